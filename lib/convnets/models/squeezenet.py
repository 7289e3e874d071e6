"""SqueezeNet 1.1 (Iandola et al. 2016, arXiv:1602.07360), 1.2 million parameters."""

import chainer
import chainer.functions as F
import chainer.links as L
from chainer.initializers import HeNormal

from .base import ImageClassifier

# name: channels of the squeeze, of each of the two expansions. Max pooling stands in front of the
# modules in POOLED: version 1.1 pools earlier than the paper's 1.0, which saves 2.4 times the work.
FIRES = {"fire2": (16, 64), "fire3": (16, 64), "fire4": (32, 128), "fire5": (32, 128),
         "fire6": (48, 192), "fire7": (48, 192), "fire8": (64, 256), "fire9": (64, 256)}
POOLED = ("fire2", "fire4", "fire6")


class Fire(chainer.Chain):
    """A 1x1 convolution to few channels, then 1x1 and 3x3 side by side to many (figure 1).

    Parameters
    ----------
    n_in, n_squeeze, n_expand : int
        Channels in, between, and of each of the two expansions.
    """

    def __init__(self, n_in, n_squeeze, n_expand):
        super().__init__()
        w = HeNormal()
        with self.init_scope():
            self.squeeze1x1 = L.Convolution2D(n_in, n_squeeze, 1, initialW=w)
            self.expand1x1 = L.Convolution2D(n_squeeze, n_expand, 1, initialW=w)
            self.expand3x3 = L.Convolution2D(n_squeeze, n_expand, 3, pad=1, initialW=w)

    def forward(self, x):
        """Return maps (N, 2 n_expand, H, W) of maps (N, n_in, H, W)."""
        h = F.relu(self.squeeze1x1(x))
        return F.concat([F.relu(self.expand1x1(h)), F.relu(self.expand3x3(h))])


class SqueezeNet(ImageClassifier, chainer.Chain):
    """SqueezeNet 1.1 for colour images of about 227x227: 1,235,496 parameters.

    Parameters
    ----------
    n_class : int
        Number of classes.
    """

    in_shape = (3, 227, 227)
    any_size = True

    def __init__(self, n_class=1000):
        super().__init__()
        with self.init_scope():
            self.conv1 = L.Convolution2D(3, 64, 3, 2, initialW=HeNormal())
            n_in = 64
            for name, (n_squeeze, n_expand) in FIRES.items():
                setattr(self, name, Fire(n_in, n_squeeze, n_expand))
                n_in = 2 * n_expand
            self.conv10 = L.Convolution2D(n_in, n_class, 1, initialW=HeNormal())

    def stages(self):
        """Return the (name, function) pairs that `logits` goes through: conv1 ... pool10."""
        return [
            ("conv1", lambda x: F.relu(self.conv1(x))),                     # (N, 64, 113, 113)
            *((name, self._fire(name)) for name in FIRES),                  # (N, 512, 14, 14)
            ("conv10", lambda h: F.relu(self.conv10(F.dropout(h)))),        # (N, n_class, 14, 14)
            ("pool10", lambda h: F.mean(h, axis=(2, 3))),                   # (N, n_class)
        ]

    def _fire(self, name):
        if name in POOLED:
            return lambda h: self[name](F.max_pooling_2d(h, 3, 2))
        return self[name]
