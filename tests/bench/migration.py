"""What Chainer's layers, pooling and optimizers are called in PyTorch, compared by numbers.

Each row is calculated in both. Beside it stands what one would write by the names alone, and how
far that is from Chainer.
"""

from functools import partial
from typing import NamedTuple

import rechainer  # noqa: F401  must come before Chainer

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import torch
from torch import nn


class Row(NamedTuple):
    """One line of the table.

    `chainer` and `torch` are what stands there; `compute` returns arrays of Chainer, of PyTorch
    and, if `naive` is not empty, of that.
    """

    chainer: str
    torch: str
    naive: str
    compute: object


def images(*shape, seed=0):
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)


def distance(a, b):
    """Return the largest difference relative to the largest value, or that there is none."""
    return float(abs(a - b).max() / abs(a).max()) if a.shape == b.shape else "another shape"


def rows():
    """Return the table as dictionaries, measured."""
    found = []
    for row in ROWS:
        np.random.seed(0)
        with chainer.using_config("use_ideep", "never"):
            ours, theirs, *naive = (np.asarray(a) for a in row.compute())
        found.append({"chainer": row.chainer, "torch": row.torch, "naive": row.naive,
                      "distance": distance(ours, theirs),
                      "naive_distance": distance(ours, naive[0]) if naive else None})
    return found


def on(module, x):
    with torch.no_grad():
        return module.eval()(torch.from_numpy(x)).numpy()


def filled(module, *arrays):
    """Give a module of PyTorch Chainer's parameters, in its own order."""
    with torch.no_grad():
        for parameter, array in zip(module.parameters(), arrays, strict=True):
            parameter.copy_(torch.from_numpy(array))
    return module


def convolution():
    x, link = images(2, 3, 9, 8), L.Convolution2D(3, 4, 3, 2, 1)
    return link(x).array, on(filled(nn.Conv2d(3, 4, 3, 2, 1), link.W.array, link.b.array), x)


def deconvolution():
    x, link = images(2, 3, 5, 4), L.Deconvolution2D(3, 4, 3, 2, 1)
    return link(x).array, on(filled(nn.ConvTranspose2d(3, 4, 3, 2, 1), link.W.array,
                                    link.b.array), x)


def linear():
    x, link = images(2, 3, 4, 5), L.Linear(60, 7)
    flat = filled(nn.Linear(60, 7), link.W.array, link.b.array)
    narrow = filled(nn.Linear(5, 7), link.W.array[:, :5], link.b.array)
    return link(x).array, on(nn.Sequential(nn.Flatten(), flat), x), on(narrow, x)


def pooling():
    x = images(2, 3, 9, 8)
    return (F.max_pooling_2d(x, 2, 2).array, on(nn.MaxPool2d(2, 2, ceil_mode=True), x),
            on(nn.MaxPool2d(2, 2), x))


def average_pooling():
    x = images(2, 3, 9, 8)
    return F.average_pooling_2d(x, 3, 2, 1).array, on(nn.AvgPool2d(3, 2, 1), x)


def normalization():
    """After one step of training: the output in test mode, and the running averages."""
    x, link = 2 + images(8, 4, 5, 5), L.BatchNormalization(4)
    exact, naive = nn.BatchNorm2d(4, eps=2e-5, momentum=0.1), nn.BatchNorm2d(4, momentum=0.9)
    with chainer.using_config("train", True):
        link(x)
    with torch.no_grad():
        exact.train()(torch.from_numpy(x)), naive.train()(torch.from_numpy(x))
    with chainer.using_config("train", False):
        y = link(x).array
    return y, on(exact, x), on(naive, x)


def local_response():
    x = images(2, 8, 4, 4)
    return (F.local_response_normalization(x).array,
            on(nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2), x),
            on(nn.LocalResponseNorm(5), x))


def leaky():
    x = images(2, 9)
    return F.leaky_relu(x).array, on(nn.LeakyReLU(0.2), x), on(nn.LeakyReLU(), x)


def loss():
    y, t = images(6, 5), np.arange(6) % 5
    theirs = nn.functional.cross_entropy(torch.from_numpy(y), torch.from_numpy(t))
    twice = nn.functional.cross_entropy(torch.from_numpy(y).softmax(1), torch.from_numpy(t))
    return (F.softmax_cross_entropy(y, t.astype("i")).array[None], theirs.numpy()[None],
            twice.numpy()[None])


def steps(optimizer, theirs, *, rates=(0.1,) * 5, hook=None, scale=1.0, adjust=None):
    """Return how far a parameter has gone along the same gradients in both.

    `rates` are the learning rates of the steps; `adjust` is called with PyTorch's optimizer, the
    step's number and the rate before it.
    """
    start = images(20)
    link = chainer.Link()
    with link.init_scope():
        link.W = chainer.Parameter(start.copy())
    optimizer.setup(link)
    if hook:
        optimizer.add_hook(hook)
    parameter = nn.Parameter(torch.from_numpy(start.copy()))
    other = theirs([parameter])
    for i, rate in enumerate(rates):
        gradient = (scale * images(20, seed=i + 1)).astype(np.float32)
        setattr(optimizer, "alpha" if "alpha" in optimizer.hyperparam.get_dict() else "lr", rate)
        other.param_groups[0]["lr"] = rate
        if adjust:
            adjust(other, i + 1, rates[i - 1] if i else rate)
        link.W.grad, parameter.grad = gradient.copy(), torch.from_numpy(gradient.copy())
        optimizer.update()
        other.step()
    return link.W.array - start, parameter.detach().numpy() - start


def sgd(parameters, **options):
    return torch.optim.SGD(parameters, 0.1, momentum=0.9, **options)


def momentum():
    return steps(chainer.optimizers.MomentumSGD(0.1, 0.9), sgd)


def momentum_when_the_rate_falls():
    """Chainer's velocity has the old rate in it, PyTorch's buffer has none."""
    def scaled(other, step, before):
        for state in other.state.values():
            state["momentum_buffer"] *= before / other.param_groups[0]["lr"]

    rates = (0.1, 0.1, 0.1, 0.01, 0.01)
    return (*steps(chainer.optimizers.MomentumSGD(0.1, 0.9), sgd, rates=rates, adjust=scaled),
            steps(chainer.optimizers.MomentumSGD(0.1, 0.9), sgd, rates=rates)[1])


def decay():
    return steps(chainer.optimizers.MomentumSGD(0.1, 0.9), partial(sgd, weight_decay=0.01),
                 hook=chainer.optimizer_hooks.WeightDecay(0.01))


def adam():
    return steps(chainer.optimizers.Adam(), torch.optim.Adam, rates=(0.001,) * 5)


def adam_of_tiny_gradients():
    """Chainer adds eps before the second moment's bias is corrected, PyTorch behind it."""
    def corrected(other, step, before):
        other.param_groups[0]["eps"] = 1e-8 / (1 - 0.999 ** step) ** 0.5

    options = {"rates": (0.001,) * 5, "scale": 1e-7}
    return (*steps(chainer.optimizers.Adam(), torch.optim.Adam, **options, adjust=corrected),
            steps(chainer.optimizers.Adam(), torch.optim.Adam, **options)[1])


ROWS = (
    Row("L.Convolution2D(3, 4, 3, 2, 1)", "nn.Conv2d(3, 4, 3, 2, 1)", "", convolution),
    Row("L.Deconvolution2D(3, 4, 3, 2, 1)", "nn.ConvTranspose2d(3, 4, 3, 2, 1)", "",
        deconvolution),
    Row("L.Linear(60, 7) of maps", "nn.Flatten(), nn.Linear(60, 7)", "nn.Linear of the last axis",
        linear),
    Row("F.max_pooling_2d(h, 2, 2)", "nn.MaxPool2d(2, 2, ceil_mode=True)", "nn.MaxPool2d(2, 2)",
        pooling),
    Row("F.average_pooling_2d(h, 3, 2, 1)", "nn.AvgPool2d(3, 2, 1)", "", average_pooling),
    Row("L.BatchNormalization(4)", "nn.BatchNorm2d(4, eps=2e-5, momentum=0.1)",
        "nn.BatchNorm2d(4, momentum=0.9)", normalization),
    Row("F.local_response_normalization(h)", "nn.LocalResponseNorm(5, alpha=5e-4, k=2)",
        "nn.LocalResponseNorm(5)", local_response),
    Row("F.leaky_relu(h)", "nn.LeakyReLU(0.2)", "nn.LeakyReLU()", leaky),
    Row("F.softmax_cross_entropy(y, t)", "F.cross_entropy(y, t)", "F.cross_entropy of softmax",
        loss),
    Row("MomentumSGD(0.1, 0.9)", "optim.SGD(p, 0.1, momentum=0.9)", "", momentum),
    Row("MomentumSGD, rate falls by 10", "optim.SGD, momentum_buffer *= 10", "optim.SGD",
        momentum_when_the_rate_falls),
    Row("WeightDecay(0.01)", "optim.SGD(weight_decay=0.01)", "", decay),
    Row("Adam()", "optim.Adam(p)", "", adam),
    Row("Adam(), gradients near 1e-7", "optim.Adam, eps / sqrt(1 - 0.999 ** t)", "optim.Adam(p)",
        adam_of_tiny_gradients),
)
