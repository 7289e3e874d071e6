"""VGG networks as a `ChainList` of blocks (Simonyan & Zisserman 2014, arXiv:1409.1556, table 1)."""

import math

import chainer
import chainer.functions as F
import chainer.links as L
from chainer.initializers import HeNormal

from ..layouts import max_pooling, plain
from .base import ImageClassifier

# One pair a block: channels, number of 3x3 convolutions. Columns D and E of the paper's table 1.
CONFIGS = {
    "vgg16": ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)),
    "vgg19": ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)),
    # Two blocks, for images of 28 to 32 pixels; they train on a CPU in minutes.
    "small": ((16, 2), (32, 2)),
}


class VGGBlock(chainer.Chain):
    """Convolutions of 3x3 with ReLU, max pooling, and in the last block the linear layers.

    Parameters
    ----------
    n_channels : int
        Output channels of every convolution.
    n_convs : int
        Number of convolutions.
    fc : bool
        Add fc4, fc5 and fc6 behind the pooling.
    n_in : int, optional
        Input channels; None leaves them to the first call.
    fc_in : int, optional
        Inputs of fc4, C x H x W of the pooled map; None leaves them to the first call.
    hidden, n_class : int
        Outputs of fc4 and fc5, and of fc6.
    """

    def __init__(self, n_channels, n_convs=2, fc=False, *, n_in=None, fc_in=None,
                 hidden=4096, n_class=1000):
        super().__init__()
        w = HeNormal()
        with self.init_scope():
            for i in range(1, n_convs + 1):
                setattr(self, f"conv{i}", L.Convolution2D(
                    n_in if i == 1 else n_channels, n_channels, 3, 1, 1, initialW=w))
            if fc:
                self.fc4 = L.Linear(fc_in, hidden, initialW=w)
                self.fc5 = L.Linear(hidden, hidden, initialW=w)
                self.fc6 = L.Linear(hidden, n_class, initialW=w)
        self.n_convs = n_convs
        self.fc = fc

    def convolve(self, x):
        """Return the pooled maps (N, n_channels, ceil(H/2), ceil(W/2)) of maps (N, n_in, H, W)."""
        for i in range(1, self.n_convs + 1):
            x = F.relu(self[f"conv{i}"](x))
        h = max_pooling(x, 2, 2)
        return plain(h) if self.fc else h   # fc4 reads (N, C, H, W) in a row

    def forward(self, x):
        """Return pooled maps, or with ``fc`` the class scores (N, n_class)."""
        h = self.convolve(x)
        if self.fc:
            h = F.dropout(F.relu(self.fc4(h)))
            h = F.dropout(F.relu(self.fc5(h)))
            h = self.fc6(h)
        return h


class VGG(ImageClassifier, chainer.ChainList):
    """A VGG network for images of one size.

    Parameters
    ----------
    config : str or sequence of (channels, n_convs)
        A name in `CONFIGS`, or the blocks themselves.
    n_class : int
        Number of classes.
    in_shape : tuple of int
        (C, H, W) of the images; it fixes the inputs of fc4, so nothing is left to the first call.
    hidden : int
        Width of fc4 and fc5.

    Raises
    ------
    ValueError
        If the configuration is unknown or has no blocks.
    """

    knows_layouts = True   # see `convnets.layouts`

    def __init__(self, config, n_class=1000, in_shape=(3, 224, 224), hidden=4096):
        blocks = _blocks(config)
        super().__init__()
        self.in_shape = tuple(in_shape)
        n_in, *size = in_shape
        for i, (n_channels, n_convs) in enumerate(blocks, 1):
            size = [math.ceil(s / 2) for s in size]     # pooling covers every pixel
            self.add_link(VGGBlock(
                n_channels, n_convs, fc=i == len(blocks), n_in=n_in,
                fc_in=n_channels * math.prod(size), hidden=hidden, n_class=n_class))
            n_in = n_channels

    def stages(self):
        """Return the (name, function) pairs that `logits` goes through: block1 ... fc6."""
        last = self[-1]
        return [(f"block{i}", block.convolve) for i, block in enumerate(self, 1)] + [
            ("fc4", lambda h: F.dropout(F.relu(last.fc4(h)))),
            ("fc5", lambda h: F.dropout(F.relu(last.fc5(h)))),
            ("fc6", last.fc6),
        ]


def _blocks(config):
    blocks = CONFIGS.get(config) if isinstance(config, str) else tuple(config)
    if not blocks:
        raise ValueError(f"unknown VGG configuration {config!r}; there are {', '.join(CONFIGS)}, "
                         f"or pairs of (channels, convolutions)")
    return blocks


class VGG16(VGG):
    """VGG with 13 convolutions and 3 linear layers, 138,357,544 parameters for 1000 classes.

    The parameters are `VGG`'s.
    """

    def __init__(self, n_class=1000, in_shape=(3, 224, 224)):
        super().__init__("vgg16", n_class, in_shape)


class VGG19(VGG):
    """VGG with 16 convolutions and 3 linear layers, 143,667,240 parameters for 1000 classes.

    The parameters are `VGG`'s.
    """

    def __init__(self, n_class=1000, in_shape=(3, 224, 224)):
        super().__init__("vgg19", n_class, in_shape)


class VGGSmall(VGG):
    """Two blocks and 128 hidden units, for 28x28 or 32x32 images.

    The parameters are `VGG`'s.
    """

    def __init__(self, n_class=10, in_shape=(1, 28, 28)):
        super().__init__("small", n_class, in_shape, hidden=128)
