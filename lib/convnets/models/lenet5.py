"""LeNet5 as Chainer's tutorial has it, in four forms that compute the same.

Five layers with weights, for 28 x 28 grey images, after LeCun et al. 1998
(doi:10.1109/5.726791). It is simpler than the paper's network, which has
60,000 parameters, trainable subsampling, a partly connected C3 and an RBF
output; this one has 44,426.
"""

from functools import partial

import chainer
import chainer.functions as F
import chainer.links as L

from .base import ImageClassifier

# One row a layer with weights, in forward order: name, constructor, arguments.
# conv: in channels, out channels, ksize, stride. fc4's 120 inputs are conv3's
# 120 maps of 1x1; the tutorial leaves them to the first call with None.
LAYERS = (
    ("conv1", L.Convolution2D, (1, 6, 5, 1)),      # (N, 1, 28, 28) > (N, 6, 24, 24)
    ("conv2", L.Convolution2D, (6, 16, 5, 1)),     # (N, 6, 12, 12) > (N, 16, 8, 8)
    ("conv3", L.Convolution2D, (16, 120, 4, 1)),   # (N, 16, 4, 4) > (N, 120, 1, 1)
    ("fc4", L.Linear, (120, 84)),
    ("fc5", L.Linear, (84, None)),                 # None: n_class
)

max_pool = partial(F.max_pooling_2d, ksize=2, stride=2)


def _links(n_class):
    """Yield (name, new link) in forward order."""
    for name, link, (n_in, n_out, *rest) in LAYERS:
        yield name, link(n_in, n_class if n_out is None else n_out, *rest)


class LeNet5(ImageClassifier, chainer.Chain):
    """LeNet5 as a `Chain`: layers are attributes, `logits` calls them by name.

    Parameters
    ----------
    n_class : int
        Number of classes.
    """

    def __init__(self, n_class=10):
        super().__init__()
        with self.init_scope():
            for name, link in _links(n_class):
                setattr(self, name, link)

    def logits(self, x):
        """Return class scores (N, n_class) of images (N, 1, 28, 28)."""
        self.check_input(x)
        h = max_pool(F.sigmoid(self.conv1(x)))     # (N, 6, 12, 12)
        h = max_pool(F.sigmoid(self.conv2(h)))     # (N, 16, 4, 4)
        h = F.sigmoid(self.conv3(h))               # (N, 120, 1, 1)
        h = F.sigmoid(self.fc4(h))                 # (N, 84)
        return self.fc5(h)


class LeNet5List(ImageClassifier, chainer.Chain):
    """LeNet5 as a list of (name, layer) pairs that `logits` walks through.

    Names that begin with an underscore are functions without parameters; the
    others are registered as links. The source's printed list also holds
    ``_mpool3``, which pools a 1x1 map, and ``_sigm5``, a sigmoid on the scores,
    so that it is not the network of `LeNet5`. Both are switches here.

    Parameters
    ----------
    n_class : int
        Number of classes.
    sigm5 : bool
        Put the extra sigmoid on the scores. Then no probability can exceed
        e / (e + n_class - 1) and, for ten classes, no loss can fall below 1.4612.
    mpool3 : bool
        Put the extra pooling after conv3. It changes nothing, and works only
        because Chainer's ``cover_all`` lets a 2x2 window stand on a 1x1 map.
    """

    def __init__(self, n_class=10, sigm5=False, mpool3=False):
        super().__init__()
        link = dict(_links(n_class))
        net = [
            ("conv1", link["conv1"]), ("_sigm1", F.sigmoid), ("_mpool1", max_pool),
            ("conv2", link["conv2"]), ("_sigm2", F.sigmoid), ("_mpool2", max_pool),
            ("conv3", link["conv3"]), ("_sigm3", F.sigmoid), ("_mpool3", max_pool),
            ("fc4", link["fc4"]), ("_sigm4", F.sigmoid),
            ("fc5", link["fc5"]), ("_sigm5", F.sigmoid),
        ]
        left_out = {"_sigm5": not sigm5, "_mpool3": not mpool3}
        self.layers = [(name, f) for name, f in net if not left_out.get(name)]
        with self.init_scope():
            for name, f in self.layers:
                if not name.startswith("_"):
                    setattr(self, name, f)

    def logits(self, x):
        """Return class scores (N, n_class) of images (N, 1, 28, 28)."""
        self.check_input(x)
        for name, f in self.layers:
            # A copy of the model has new links, but its list still holds the
            # old ones: ask the model, not the list, for every link.
            x = f(x) if name.startswith("_") else getattr(self, name)(x)
        return x


class LeNet5ChainList(ImageClassifier, chainer.ChainList):
    """LeNet5 as a `ChainList`: layers have numbers instead of names.

    Parameters
    ----------
    n_class : int
        Number of classes.
    """

    def __init__(self, n_class=10):
        super().__init__(*(link for _, link in _links(n_class)))

    def logits(self, x):
        """Return class scores (N, n_class) of images (N, 1, 28, 28)."""
        self.check_input(x)
        conv1, conv2, conv3, fc4, fc5 = self.children()
        h = max_pool(F.sigmoid(conv1(x)))
        h = max_pool(F.sigmoid(conv2(h)))
        h = F.sigmoid(conv3(h))
        h = F.sigmoid(fc4(h))
        return fc5(h)


class LeNet5Sequential(ImageClassifier, chainer.Sequential):
    """LeNet5 as a `Sequential`: the list of layers is the model.

    Use `lenet5_sequential` to build it.
    """

    def logits(self, x):
        """Return class scores (N, n_class) of images (N, 1, 28, 28)."""
        self.check_input(x)
        return chainer.Sequential.forward(self, x)

    def copy(self, mode="share"):
        """Return a copy of the same class; Chainer's own is a plain `Sequential`."""
        return type(self)(*super().copy(mode))


def lenet5_sequential(n_class=10):
    """Return LeNet5 as a `Sequential` of links and functions.

    Parameters
    ----------
    n_class : int
        Number of classes.

    Returns
    -------
    LeNet5Sequential
    """
    conv1, conv2, conv3, fc4, fc5 = (link for _, link in _links(n_class))
    return LeNet5Sequential(
        conv1, F.sigmoid, max_pool,
        conv2, F.sigmoid, max_pool,
        conv3, F.sigmoid,
        fc4, F.sigmoid,
        fc5,
    )


FORMS = {
    "chain": LeNet5,
    "list": LeNet5List,
    "chainlist": LeNet5ChainList,
    "sequential": lenet5_sequential,
}
