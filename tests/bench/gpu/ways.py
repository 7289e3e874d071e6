"""The ways of `convnets` to train and to infer faster, against plainer ones."""

import warnings

import convnets
from convnets import data, layouts, models, precision

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
from chainer.backends import cuda

from .checks import FAST, distance


class SmallNetwork(chainer.Chain):
    """What the ways to train must get right: statistics, random numbers, pooling."""

    def __init__(self):
        super().__init__()
        np.random.seed(0)
        with self.init_scope():
            self.conv = L.Convolution2D(1, 16, 5, stride=2, nobias=True)
            self.norm = L.BatchNormalization(16)
            self.out = L.Linear(576, 10)

    def forward(self, x):
        """Return logits (N, 10) of images (N, 1, 28, 28)."""
        return self.out(F.dropout(F.max_pooling_2d(F.relu(self.norm(self.conv(x))), 2), 0.4))


def residual():
    """Return a small residual network for photographs."""
    np.random.seed(0)
    return models.ResNet([1, 1, 1, 1], 10, width=1 / 4)


def cifar():
    """Return a small residual network for small images."""
    np.random.seed(0)
    return models.CifarResNet(8)


def vgg():
    """Return a small VGG."""
    np.random.seed(0)
    return models.VGG("small", 10, (3, 36, 36), hidden=32)


HALF_LAST = {"channels_last": True, "precision": "mixed16"}
#: Ways of `convnets.train`: network, options, what it is compared with, distance that is allowed.
#: ``fast`` is Chainer's configuration.
WAYS_TO_TRAIN = {
    "fused optimizer": (SmallNetwork, {"fused": True}, {}, 1e-3),
    "data sent ahead": (SmallNetwork, {"prefetch": True}, {}, 0),
    "CUDA graph": (SmallNetwork, {"cuda_graph": True}, {}, 1e-3),
    "CUDA graph, mixed16": (SmallNetwork, {"cuda_graph": True, "precision": "mixed16"},
                            {"fused": True, "precision": "mixed16"}, 1e-2),
    "channels last": (residual, {"channels_last": True}, {}, 2e-2),
    "channels last, CUDA graph": (residual, {"channels_last": True, "cuda_graph": True},
                                  {"channels_last": True, "fused": True}, 1e-2),
    "channels last, CIFAR": (cifar, {"channels_last": True}, {}, 2e-2),
    "channels last, VGG": (vgg, {"channels_last": True}, {}, 2e-2),
    "channels last, VGG, mixed16, CUDA graph": (
        vgg, {**HALF_LAST, "cuda_graph": True}, {**HALF_LAST, "fused": True}, 1e-2),
    "fused normalization": (residual, {**HALF_LAST, "fast": True}, HALF_LAST, 2e-2),
    "fused normalization, CUDA graph": (
        residual, {**HALF_LAST, "fast": True, "cuda_graph": True},
        {**HALF_LAST, "fast": True, "fused": True}, 1e-2),
}


#: The tests' choice of them.
SMALL_WAYS = ["fused optimizer", "CUDA graph", "channels last, CIFAR", "fused normalization"]


def check_ways_to_train(device, ways=tuple(WAYS_TO_TRAIN)):
    """Compare a short training in every way with a plainer one."""
    for name in ways:
        with chainer.using_config("cudnn_deterministic", True):
            row = compared_way(name, device, *WAYS_TO_TRAIN[name])
        yield row


def compared_way(name, device, build, options, plain, tolerance):
    """Return a row: the distance of the parameters after training, or the error."""
    row = {"what": name, "tolerance": tolerance}
    try:
        got, expected = (after_training(build(), device, **way) for way in (options, plain))
        row["distance"] = distance(got, expected)
        row["passed"] = row["distance"] <= tolerance
    except Exception as error:
        row |= {"passed": False, "error": f"{type(error).__name__}: {error}"}
    return row


def after_training(model, device, fast=False, **options):
    """Return a model's parameters as one vector, after ten steps."""
    if isinstance(model, SmallNetwork):
        train_set, test_set = data.mnist(320, 32)
    else:
        rng = np.random.RandomState(0)
        labels = rng.randint(0, 10, 320).astype("i")
        train_set = chainer.datasets.TupleDataset(rng.rand(320, 3, 36, 36).astype("f"), labels)
        test_set = train_set[:32]
    with chainer.using_config(FAST, fast):
        convnets.train(model, train_set, test_set, iterations=10, batch=32, optimizer="momentum",
                       lr=0.01, schedule="cosine", weight_decay=1e-4, device=device.name, **options)
    return np.concatenate([cuda.to_cpu(p.array).ravel().astype("d")
                           for _, p in sorted(model.namedparams())])


def lenet5():
    """Return a LeNet5, with its sigmoids."""
    np.random.seed(0)
    return models.LeNet5()


#: Ways to infer, by the words of `race.OURS_TO_INFER`, and how far scores may be from those of
#: float32 on the processor: TF32 and float16 have as many bits.
WAYS_TO_INFER = ("channels last", "channels last, mixed16", "optimized", "optimized, graph",
                 "optimized, mixed16", "optimized, mixed16, graph")
SCORES_APART = 1e-2
#: Networks that are run so; LeNet5 knows one layout.
INFERRED = {"LeNet5": lenet5, "residual": residual, "CIFAR": cifar, "VGG": vgg}


def check_ways_to_infer(device, networks=tuple(INFERRED)):
    """Compare the scores of small networks, in every way, with the processor's."""
    for name in networks:
        for way in WAYS_TO_INFER:
            if name != "LeNet5" or "last" not in way:
                yield inferred_way(f"{name}, {way}", device, INFERRED[name], way)


def inferred_way(name, device, build, way):
    """Return a row: the distance of the scores, or the error; a warning is one."""
    row = {"what": name, "tolerance": SCORES_APART}
    try:
        with warnings.catch_warnings():
            # What cuDNN refuses, and is done otherwise, is said by warnings.
            warnings.filterwarnings("error", message=".*cuDNN (cannot|does not|has no)")
            row["distance"] = scores_apart(build(), device, way)
        row["passed"] = row["distance"] < SCORES_APART
    except Exception as error:
        row |= {"passed": False, "error": f"{type(error).__name__}: {error}"}
    return row


def scores_apart(model, device, way):
    """Return the distance of the scores of five images."""
    if model.any_size:
        model.in_shape = 3, 36, 36
    trained_statistics(model)
    x = np.random.RandomState(1).rand(5, *model.in_shape).astype("f")
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        with chainer.using_config("use_ideep", "never"):
            expected = model.logits(x).array.astype("d")
        got = ready_to_infer(model, device, way)(device.send(x))
    return distance(cuda.to_cpu(got).astype("d"), expected)


def trained_statistics(model):
    """Give batch normalizations statistics as training does."""
    rng = np.random.RandomState(2)
    for link in model.links():
        if isinstance(link, L.BatchNormalization):
            link.avg_mean[...] = 0.1 * rng.randn(*link.avg_mean.shape)
            link.avg_var[...] = rng.uniform(0.5, 1.5, link.avg_var.shape)


def ready_to_infer(model, device, way):
    """Return a function of float32 images on a GPU; in test mode it gives scores."""
    half, last, optimized, graph = (
        word in way for word in ("mixed16", "last", "optimized", "graph"))
    model.to_device(device)
    if optimized:
        fast = convnets.optimize(model, precision="mixed16" if half else None, cuda_graph=graph)
        return lambda x: fast.logits(x).array
    if last:
        layouts.use_channels_last(model, device)
    if half:
        precision.half(model)
    return lambda x: model.logits(x.astype("e" if half else "f")).array
