"""Residual networks (He et al. 2016, arXiv:1512.03385): table 1 for ImageNet, 4.2 for CIFAR."""

from itertools import pairwise

import chainer
import chainer.functions as F
import chainer.links as L
from chainer.initializers import HeNormal

from ..layouts import average_pooling, max_pooling, plain, turned
from .base import ImageClassifier, choose, scaled

# Blocks in res2 ... res5 (table 1).
BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}

# name: channels in, inside and out, stride of the first block
STAGES = {"res2": (64, 64, 256, 1), "res3": (256, 128, 512, 2),
          "res4": (512, 256, 1024, 2), "res5": (1024, 512, 2048, 2)}

# The published networks differ in the pooling behind conv1. On 112x112 maps all give 56x56,
# but not the same values.
STEM_POOL = {
    "tutorial": {"ksize": 2, "stride": 2},
    "caffe": {"ksize": 3, "stride": 2},                                   # the authors' release
    "torch": {"ksize": 3, "stride": 2, "pad": 1, "cover_all": False},
}

# Where the first block of a stage halves the map: the paper and the authors' release in the first
# 1x1 convolution, torchvision in the 3x3. A pair: stride of the 1x1, stride of the 3x3.
STRIDE_IN = {"1x1": lambda s: (s, 1), "3x3": lambda s: (1, s)}


class BottleNeck(chainer.Chain):
    """1x1 down, 3x3, 1x1 up, added to the input (figure 5, right).

    Parameters
    ----------
    n_in, n_mid, n_out : int
        Channels of the input, inside, and of the output.
    stride : int
        2 halves height and width.
    proj : bool
        Project the shortcut with a 1x1 convolution, for a change of size or channels. Without
        it the projection is not registered at all: no memory, no gradient, no weight decay.
    stride_in : str
        ``"1x1"`` or ``"3x3"``, the convolution that has the stride.
    bn_eps : float
        Added to the variance. Chainer's default is 2e-5; Caffe and torch use 1e-5.
    """

    def __init__(self, n_in, n_mid, n_out, stride=1, proj=False, *, stride_in="1x1", bn_eps=2e-5):
        super().__init__()
        w = HeNormal()
        stride_a, stride_b = choose("stride_in", STRIDE_IN, stride_in)(stride)

        def conv(n_in, n_out, ksize, stride=1):
            return L.Convolution2D(n_in, n_out, ksize, stride, ksize // 2, initialW=w, nobias=True)

        with self.init_scope():
            self.conv1x1a = conv(n_in, n_mid, 1, stride_a)
            self.bn_a = L.BatchNormalization(n_mid, eps=bn_eps)
            self.conv3x3b = conv(n_mid, n_mid, 3, stride_b)
            self.bn_b = L.BatchNormalization(n_mid, eps=bn_eps)
            self.conv1x1c = conv(n_mid, n_out, 1)
            self.bn_c = L.BatchNormalization(n_out, eps=bn_eps)
            if proj:
                self.conv1x1r = conv(n_in, n_out, 1, stride)
                self.bn_r = L.BatchNormalization(n_out, eps=bn_eps)
        self.proj = proj

    def forward(self, x):
        """Return maps (N, n_out, H/stride, W/stride) of maps (N, n_in, H, W)."""
        h = F.relu(self.bn_a(self.conv1x1a(x)))
        h = F.relu(self.bn_b(self.conv3x3b(h)))
        h = self.bn_c(self.conv1x1c(h))
        if self.proj:
            x = self.bn_r(self.conv1x1r(x))
        return F.relu(h + x)


class ResBlock(chainer.ChainList):
    """A stage: one bottleneck that changes the size and others that keep it.

    Parameters
    ----------
    n_layers : int
        Number of bottlenecks.
    n_in, n_mid, n_out, stride : int
        Of the first bottleneck; the others take n_out channels at stride 1.
    options
        ``stride_in`` and ``bn_eps`` of `BottleNeck`.
    """

    def __init__(self, n_layers, n_in, n_mid, n_out, stride=2, **options):
        super().__init__(BottleNeck(n_in, n_mid, n_out, stride, True, **options))
        for _ in range(n_layers - 1):
            self.add_link(BottleNeck(n_out, n_mid, n_out, **options))

    def forward(self, x):
        """Return maps (N, n_out, H/stride, W/stride) of maps (N, n_in, H, W)."""
        for block in self.children():
            x = block(x)
        return x


class ResNet(ImageClassifier, chainer.Chain):
    """A residual network of bottlenecks for colour images of about 224x224.

    Parameters
    ----------
    n_blocks : sequence of int
        Bottlenecks in res2, res3, res4 and res5.
    n_class : int
        Number of classes.
    stride_in : str
        ``"1x1"`` (paper, Caffe) or ``"3x3"`` (torchvision).
    stem_pool : str
        ``"tutorial"``, ``"caffe"`` or ``"torch"``, see `STEM_POOL`.
    bn_eps : float
        See `BottleNeck`.
    stem_bias : bool
        Give conv1 a bias, as `chainer.links.ResNet50Layers` has it; bn1 makes it useless.
    width : float
        Factor of the channels of every layer.

    Raises
    ------
    ValueError
        If an option is unknown, or the width is not positive.
    """

    in_shape = (3, 224, 224)
    any_size = True
    knows_layouts = True   # see `convnets.layouts`

    def __init__(self, n_blocks, n_class=1000, *, stride_in="1x1", stem_pool="tutorial",
                 bn_eps=2e-5, stem_bias=False, width=1):
        super().__init__()
        channels = {name: [scaled(c, width) for c in row] for name, (*row, _) in STAGES.items()}
        n_first, n_last = channels["res2"][0], channels["res5"][2]
        options = {"stride_in": stride_in, "bn_eps": bn_eps}
        self.stem_pool = choose("stem_pool", STEM_POOL, stem_pool)
        with self.init_scope():
            self.conv1 = L.Convolution2D(3, n_first, 7, 2, 3, initialW=HeNormal(),
                                         nobias=not stem_bias)
            self.bn1 = L.BatchNormalization(n_first, eps=bn_eps)
            for n, (name, (*_, stride)) in zip(n_blocks, STAGES.items(), strict=True):
                setattr(self, name, ResBlock(n, *channels[name], stride, **options))
            self.fc6 = L.Linear(n_last, n_class)

    @property
    def options(self):
        """The options that its weights were trained with, as `set_options` takes them."""
        first = self.res3[0]
        strides = (first.conv1x1a.stride[0], first.conv3x3b.stride[0])
        return {"stride_in": next(k for k, place in STRIDE_IN.items() if place(2) == strides),
                "stem_pool": next(k for k, pool in STEM_POOL.items() if pool == self.stem_pool),
                "bn_eps": self.bn1.eps}

    def _apply(self, **options):
        options = self.options | options
        place = choose("stride_in", STRIDE_IN, options["stride_in"])
        pool = choose("stem_pool", STEM_POOL, options["stem_pool"])
        bn_eps = float(options["bn_eps"])
        self.stem_pool = pool
        for link in self.links():
            if isinstance(link, L.BatchNormalization):
                link.eps = bn_eps
        for name, (*_, stride) in STAGES.items():
            first = self[name][0]
            first.conv1x1a.stride, first.conv3x3b.stride = ((s, s) for s in place(stride))

    def stages(self):
        """Return the (name, function) pairs that `logits` goes through: conv1 ... fc6."""
        return [
            ("conv1", lambda x: F.relu(self.bn1(self.conv1(x)))),           # (N, 64, 112, 112)
            ("pool1", lambda h: max_pooling(h, **self.stem_pool)),          # (N, 64, 56, 56)
            ("res2", self.res2),                                            # (N, 256, 56, 56)
            ("res3", self.res3),                                            # (N, 512, 28, 28)
            ("res4", self.res4),                                            # (N, 1024, 14, 14)
            ("res5", self.res5),                                            # (N, 2048, 7, 7)
            ("pool5", average_over_map),                                    # (N, 2048, 1, 1)
            ("fc6", self.fc6),
        ]


class ResNet50(ResNet):
    """ResNet with 50 layers, 25,557,032 parameters; the options are `ResNet`'s."""

    def __init__(self, n_class=1000, **options):
        super().__init__(BLOCKS[50], n_class, **options)


class ResNet101(ResNet):
    """ResNet with 101 layers, 44,549,160 parameters; the options are `ResNet`'s."""

    def __init__(self, n_class=1000, **options):
        super().__init__(BLOCKS[101], n_class, **options)


class ResNet152(ResNet):
    """ResNet with 152 layers, 60,192,808 parameters; the options are `ResNet`'s."""

    def __init__(self, n_class=1000, **options):
        super().__init__(BLOCKS[152], n_class, **options)


class BasicBlock(chainer.Chain):
    """Two 3x3 convolutions, with or without a shortcut around them (figure 5, left).

    Parameters
    ----------
    n_in, n_out, stride : int
        Channels, and 2 to halve the map.
    residual : bool
        Add the input. Where the shape changes it is subsampled and padded with zero channels
        (option A of section 3.3), which costs no parameter.
    """

    def __init__(self, n_in, n_out, stride=1, residual=True):
        super().__init__()
        w = HeNormal()
        with self.init_scope():
            self.conv1 = L.Convolution2D(n_in, n_out, 3, stride, 1, initialW=w, nobias=True)
            self.bn1 = L.BatchNormalization(n_out)
            self.conv2 = L.Convolution2D(n_out, n_out, 3, 1, 1, initialW=w, nobias=True)
            self.bn2 = L.BatchNormalization(n_out)
        self.stride, self.residual = stride, residual

    def forward(self, x):
        """Return maps (N, n_out, H/stride, W/stride) of maps (N, n_in, H, W)."""
        h = F.relu(self.bn1(self.conv1(x)))
        h = self.bn2(self.conv2(h))
        return F.relu(h + self.shortcut(x, h.shape[1]) if self.residual else h)

    def shortcut(self, x, n_out):
        """Return every stride-th pixel of x, with zero channels up to n_out."""
        x = chainer.as_variable(x)
        if self.stride == 1 and x.shape[1] == n_out:
            return x
        h = plain(x)[:, :, ::self.stride, ::self.stride]
        if h.shape[1] < n_out:
            n, n_in, *size = h.shape
            h = F.concat([h, self.xp.zeros((n, n_out - n_in, *size), h.dtype)])
        return turned(h, x.layout)


class CifarResNet(ImageClassifier, chainer.Chain):
    """A residual network, or its plain twin, for images of 32x32 (section 4.2).

    Parameters
    ----------
    depth : int
        6n + 2 layers: 20, 32, 44, 56, 110.
    n_class : int
        Number of classes.
    residual : bool
        False leaves out all shortcuts: the plain network of the same parameters.
    n_in : int
        Channels of the images.
    width : float
        Factor of the channels of every layer.

    Raises
    ------
    ValueError
        If depth is not 6n + 2, or the width is not positive.
    """

    any_size = True
    knows_layouts = True   # see `convnets.layouts`

    def __init__(self, depth, n_class=10, residual=True, n_in=3, width=1):
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"depth must be 6n + 2 (8, 14, 20, ..., 56, 110), got {depth}")
        super().__init__()
        self.in_shape = (n_in, 32, 32)
        n_first = scaled(CIFAR_STAGES["res2"][0], width)
        n_last = scaled(CIFAR_STAGES["res4"][1], width)
        with self.init_scope():
            self.conv1 = L.Convolution2D(n_in, n_first, 3, 1, 1, initialW=HeNormal(), nobias=True)
            self.bn1 = L.BatchNormalization(n_first)
            for name, (first, n_out, stride) in CIFAR_STAGES.items():
                channels = [first] + [n_out] * ((depth - 2) // 6)
                setattr(self, name, chainer.ChainList(*(
                    BasicBlock(scaled(a, width), scaled(b, width), stride if i == 0 else 1,
                               residual)
                    for i, (a, b) in enumerate(pairwise(channels)))))
            self.fc5 = L.Linear(n_last, n_class)

    def stages(self):
        """Return the (name, function) pairs that `logits` goes through: conv1 ... fc5."""
        def through(blocks):
            def apply(h):
                for block in blocks:
                    h = block(h)
                return h
            return apply
        return [
            ("conv1", lambda x: F.relu(self.bn1(self.conv1(x)))),           # (N, 16, 32, 32)
            *((name, through(self[name])) for name in CIFAR_STAGES),        # (N, 64, 8, 8)
            ("pool4", average_over_map),                                    # (N, 64, 1, 1)
            ("fc5", self.fc5),
        ]


# name: channels in, channels out, stride of the first block
CIFAR_STAGES = {"res2": (16, 16, 1), "res3": (16, 32, 2), "res4": (32, 64, 2)}


def cifar_resnet(depth, residual):
    """Return the constructor of one depth; its arguments are `CifarResNet`'s `n_class`, `n_in`."""
    kind = "ResNet" if residual else "Plain"

    def init(self, n_class=10, n_in=3):
        CifarResNet.__init__(self, depth, n_class, residual, n_in)
    return type(f"{kind}{depth}", (CifarResNet,), {
        "__init__": init, "__module__": __name__,
        "__doc__": f"{kind} network with {depth} layers for 32x32 images; see `CifarResNet`."})


ResNet20, ResNet32, ResNet44, ResNet56, ResNet110 = (
    cifar_resnet(depth, True) for depth in (20, 32, 44, 56, 110))
Plain20, Plain32, Plain44, Plain56, Plain110 = (
    cifar_resnet(depth, False) for depth in (20, 32, 44, 56, 110))


def average_over_map(h):
    """Return the mean of each channel, (N, C, 1, 1), of maps (N, C, H, W)."""
    return plain(average_pooling(h, h.shape[2:], stride=1))
