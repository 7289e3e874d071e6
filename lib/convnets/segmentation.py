"""The class of each pixel: from LeNet5's coarse map back to the scene, with and without skips."""

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
from tqdm import tqdm

PAD = 12      # zeros around a scene: then place i of conv3 has its middle in pixels 4i to 4i + 3
FACTOR = 4    # pixels to a place of the coarse map


def bilinear(n_channel, factor):
    """Return weights of a transposed convolution that enlarges each map by linear interpolation.

    Kernel 2 factor, stride factor, pad factor / 2, for an even factor (Long et al. 2015,
    section 3.3).

    Parameters
    ----------
    n_channel : int
    factor : int
        Even.

    Returns
    -------
    numpy.ndarray, shape (n_channel, n_channel, 2 factor, 2 factor), float32

    Raises
    ------
    ValueError
        If the factor is odd, where the kernel has another size.
    """
    if factor < 2 or factor % 2:
        raise ValueError(f"factor must be even and at least 2, got {factor}")
    k = 2 * factor
    side = 1 - abs(np.arange(k) - (k - 1) / 2) / factor                # a tent
    W = np.zeros((n_channel, n_channel, k, k), np.float32)
    W[range(n_channel), range(n_channel)] = np.outer(side, side)
    return W


def mean_iou(predicted, true, n_class, ignore_label=-1):
    """Return the mean over classes of shared pixels over pixels of either.

    Parameters
    ----------
    predicted, true : array of int, the same shape
        Classes from 0 on.
    n_class : int
    ignore_label : int
        Pixels with this true class do not count.

    Returns
    -------
    float
        Over the classes that occur in one of the two; 0 if none does.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    predicted, true = np.asarray(predicted), np.asarray(true)
    if predicted.shape != true.shape:
        raise ValueError(f"mean_iou: predicted classes of shape {predicted.shape}, "
                         f"true ones of shape {true.shape}")
    kept = true != ignore_label
    counts = np.zeros((n_class, n_class), int)
    np.add.at(counts, (true[kept], predicted[kept]), 1)
    both = np.diag(counts)
    either = counts.sum(axis=0) + counts.sum(axis=1) - both
    return float((both / np.maximum(either, 1))[either > 0].mean()) if either.any() else 0.0


class Segmenter(chainer.Chain):
    """Scores for each pixel from LeNet5's frozen maps, after the FCN of Long et al. 2015.

    Parameters
    ----------
    net : convnets.models.LeNet5
        Its fc4 is copied as a 1 x 1 convolution; its scores of ten classes as well.
    skips : bool
        Add the scores that each pixel's own conv1 values give, which know where ink is but not
        of which digit.
    n_class : int
        The last class is the background, and it is preferred at the start.
    """

    def __init__(self, net, skips, n_class=11):
        super().__init__()
        n_known, n_hidden = net.fc5.W.shape
        with self.init_scope():
            self.fc4 = L.Convolution2D(120, n_hidden, 1)
            self.score = L.Convolution2D(n_hidden, n_class, 1, initialW=0)
            self.up = L.Deconvolution2D(n_class, n_class, 2 * FACTOR, FACTOR, FACTOR // 2,
                                        nobias=True, initialW=bilinear(n_class, FACTOR))
            if skips:
                self.skip = L.Convolution2D(6, n_class, 1, initialW=0)
        self.skips = skips
        self.fc4.W.array[...] = net.fc4.W.array[:, :, None, None]
        self.fc4.b.array[...] = net.fc4.b.array
        self.score.W.array[:n_known] = net.fc5.W.array[:, :, None, None]
        self.score.b.array[-1] = 4.0                       # most pixels are background

    def forward(self, conv1, conv3):
        """Return scores (N, n_class, S, S) of `maps`."""
        y = self.up(self.score(F.sigmoid(self.fc4(conv3))))
        return y + self.skip(conv1) if self.skips else y


def maps(feature_maps):
    """Return conv1 (N, 6, S, S), a value a pixel, and conv3 (N, 120, S / 4, S / 4).

    Parameters
    ----------
    feature_maps : dict
        Of `detection.feature_maps` with ``pad=PAD``.

    Returns
    -------
    conv1, conv3 : numpy.ndarray
    """
    edge = PAD - 2                                         # conv1's windows of 5 begin 2 before
    return feature_maps["conv1"][:, :, edge:-edge, edge:-edge], feature_maps["conv3"]


def fit(model, inputs, pixels, epochs, batch=4, lr=0.03, seed=0, background=0.3, progress=False):
    """Train a segmenter with Adam.

    Parameters
    ----------
    model : Segmenter
        Its upsampling stays as it is.
    inputs : (array, array)
        As `maps` returns them.
    pixels : array of int, shape (N, S, S)
        The class of each pixel; -1 does not count.
    epochs, batch, lr, seed
        Passes, scenes in a step, rate, and seed of the order.
    background : float
        Weight of a pixel of the last class, which is nearly everywhere, against 1 of the others.
    progress : bool
        Show a progress bar on stderr.
    """
    random = np.random.RandomState(seed)
    weight = np.ones(model.score.b.size, np.float32)
    weight[-1] = background
    adam = chainer.optimizers.Adam(lr).setup(model)
    model.up.disable_update()
    for _ in tqdm(range(epochs), "segmenter", disable=not progress, unit="pass"):
        for i in np.array_split(random.permutation(len(pixels)), max(len(pixels) // batch, 1)):
            y = model(*(part[i] for part in inputs))
            model.cleargrads()
            F.softmax_cross_entropy(y, pixels[i], class_weight=weight, ignore_label=-1).backward()
            adam.update()


def predict(model, inputs, batch=8):
    """Return the most probable class of each pixel, (N, S, S), of `maps`."""
    with chainer.no_backprop_mode():
        return np.concatenate([
            model(*(part[i:i + batch] for part in inputs)).array.argmax(axis=1)
            for i in range(0, len(inputs[0]), batch)])
