"""What every image classifier of this library shares."""

import chainer
import chainer.functions as F
import numpy as np
from chainer import backend

from ..layouts import entering, plain

CHANNELS_NAME = {1: "grey", 3: "colour"}


class ImageClassifier:
    """Mixin for a link that maps images to one score per class.

    A model states `in_shape` and implements `stages` or `logits`; this class adds the
    behaviour of Chainer's tutorial (`forward`), features of inner layers (`features`)
    and a safe way to ask for probabilities (`predict`).

    Attributes
    ----------
    in_shape : tuple of int
        The (C, H, W) of the images the model was designed for.
    any_size : bool
        H and W may differ from it.
    preprocessing : convnets.pretrained.preprocess.Preprocessing or None
        What loaded weights want images to be; `predict` sees to it.
    """

    in_shape = (1, 28, 28)
    any_size = False
    preprocessing = None

    @property
    def options(self):
        """How it computes where networks of one shape differ: name: value; {} if they do not."""
        return {}

    def set_options(self, **options):
        """Change `options` of a model that is built; all of them, or none if one is wrong.

        Returns
        -------
        dict
            What changed, as name: (before, after).

        Raises
        ------
        ValueError
            If the model has no such option, or the option no such value.
        """
        before = self.options
        for name in options:
            choose(f"option of {type(self).__name__}", before, name)
        changed = {name: (before[name], value) for name, value in options.items()
                   if before[name] != value}
        if changed:
            self._apply(**{name: value for name, (_, value) in changed.items()})
        return changed

    def stages(self):
        """Return the (name, function) pairs from images to class scores, in forward order."""
        raise NotImplementedError

    def features(self, x, pick):
        """Return the output of one stage; what follows is not computed.

        The mode is the caller's: for features of a trained network use
        ``chainer.using_config("train", False)``.

        Parameters
        ----------
        x : array or chainer.Variable, shape (N, C, H, W), float
        pick : str
            A name in `stages`.

        Returns
        -------
        chainer.Variable

        Raises
        ------
        ValueError
            If there is no such stage, or the images do not fit.
        """
        names = [name for name, _ in self.stages()]
        if pick not in names:
            raise ValueError(f"{type(self).__name__} has no stage {pick!r}; "
                             f"there are: {', '.join(names)}")
        self.check_input(x)
        x = entering(self, x)
        for name, stage in self.stages():
            x = stage(x)
            if name == pick:
                return plain(x)

    def logits(self, x):
        """Return one unnormalised score per class, in train and test mode alike.

        Parameters
        ----------
        x : array or chainer.Variable, shape (N, C, H, W), float

        Returns
        -------
        chainer.Variable, shape (N, n_class)
        """
        return self.features(x, pick=self.stages()[-1][0])

    def forward(self, x):
        """Return logits in train mode and probabilities in test mode.

        This switch on ``chainer.config.train`` is the tutorial's. A loss that
        applies softmax itself must not be given the test-mode output;
        `convnets.losses.Classifier` takes care of that.

        Parameters
        ----------
        x : array or chainer.Variable, shape (N, C, H, W), float

        Returns
        -------
        chainer.Variable, shape (N, n_class)

        Raises
        ------
        ValueError
            If `x` does not have four axes, the model's C, H and W, or a float type.
        """
        y = self.logits(x)
        return y if chainer.config.train else F.softmax(y)

    def predict(self, images, batch=256):
        """Return class probabilities as an array, whatever the mode is set to.

        Parameters
        ----------
        images : array, shape (N, C, H, W), (C, H, W) or (H, W)
            ``uint8`` in 0..255 or floats in 0..1; colours as RGB. With pretrained weights they
            are brought to the order and scale that these were trained with; photographs of any
            size are for `convnets.pretrained.layers.predict`.
        batch : int
            Images per forward pass.

        Returns
        -------
        numpy.ndarray, shape (N, n_class), float32

        Raises
        ------
        ValueError
            If shape or value range cannot be those of such images.
        """
        x = as_images(images, self._expected())
        if self.preprocessing is not None:
            x = self.preprocessing.normalise(x)
        with chainer.using_config("train", False), chainer.no_backprop_mode():
            parts = [F.softmax(self.logits(self.device.send(x[i:i + batch]))).array
                     for i in range(0, len(x), batch)]
        return np.concatenate([backend.CpuDevice().send(p) for p in parts])

    def check_input(self, x):
        """Raise a ValueError in the reader's terms unless `x` fits the model.

        Parameters
        ----------
        x : array or chainer.Variable
        """
        name = type(self).__name__
        expected = self._expected()
        if x.ndim != 4 or not _fits(x.shape[1:], expected):
            raise ValueError(
                f"{name} takes images of shape (N, C, H, W) = {_show(('N', *expected))}, "
                f"got {_show(x.shape)}. {_remedy(x.shape, expected)}")
        if x.dtype.kind != "f":
            raise ValueError(
                f"{name} takes floating-point images, got {x.dtype}. Use "
                f"x.astype(np.float32) / 255, or predict(x), which does that for you.")

    def _expected(self):
        """Return (C, H, W), with the letters where any size will do."""
        return (self.in_shape[0], "H", "W") if self.any_size else tuple(self.in_shape)


def choose(option, known, value):
    """Return known[value], or raise a ValueError that lists the values of an option.

    Parameters
    ----------
    option : str
        Its name.
    known : dict
        Value: what it stands for.
    value : str
    """
    if value not in known:
        raise ValueError(f"unknown {option} {value!r}; there are: "
                         f"{', '.join(map(str, known)) or 'none'}")
    return known[value]


def scaled(n_channels, width):
    """Return `width` times a number of channels, rounded, and at least 1.

    Parameters
    ----------
    n_channels : int
    width : float

    Returns
    -------
    int

    Raises
    ------
    ValueError
        If width is not positive.
    """
    if not width > 0:
        raise ValueError(f"width must be positive, got {width}: 1 is the published network, "
                         f"0.5 has half the channels in every layer")
    return max(1, int(n_channels * width + 0.5))


def as_images(images, in_shape):
    """Bring one image or many to a float32 minibatch in 0..1.

    Parameters
    ----------
    images : array, shape (N, C, H, W), (C, H, W) or (H, W)
        ``uint8`` in 0..255 or floats in 0..1.
    in_shape : tuple
        The (C, H, W) expected; a letter in place of a number takes any.

    Returns
    -------
    numpy.ndarray, shape (N, C, H, W), float32

    Raises
    ------
    ValueError
        If the shape does not end in the expected axes, or values lie outside 0..1.
    """
    x = np.asarray(images)
    shape = x.shape
    if x.ndim == 2 and in_shape[0] == 1:
        x = x[None]
    if x.ndim == 3:
        x = x[None]
    if x.ndim != 4 or not _fits(x.shape[1:], in_shape):
        raise ValueError(
            f"expected images of shape (C, H, W) = {_show(in_shape)}, one or N of them, "
            f"got {_show(shape)}. {_remedy(shape, in_shape)}")
    if x.dtype == np.uint8:
        return x.astype(np.float32) * np.float32(1 / 255)
    if x.dtype.kind != "f":
        raise ValueError(f"expected uint8 or floating-point images, got {x.dtype}")
    if x.size and not (x.min() >= 0 and x.max() <= 1):
        raise ValueError(
            f"floating-point images must lie in 0..1, got values from {x.min():g} to "
            f"{x.max():g}. Divide by 255, or pass uint8.")
    return x.astype(np.float32)


def _fits(shape, expected):
    return len(shape) == len(expected) and all(
        isinstance(e, str) or s == e for s, e in zip(shape, expected, strict=True))


def _remedy(shape, in_shape):
    """Say what to do about a shape that is not (N, *in_shape)."""
    channels, height, width = in_shape
    if _fits(shape, in_shape):
        return "The axis N is missing: x[None] adds it."
    if _fits(shape[1:], (height, width)) and channels == 1:
        return "The channel axis C is missing: x[:, None] adds it."
    if _fits(shape[1:], (height, width, channels)):
        return "C is the last axis: x.transpose(0, 3, 1, 2) moves it."
    if len(shape) >= 2 and not _fits(shape[-2:], (height, width)):
        return f"Resize the images to H x W = {height} x {width}."
    return f"C must be {channels} ({CHANNELS_NAME.get(channels, 'channels')})."


def _show(shape):
    return "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"
