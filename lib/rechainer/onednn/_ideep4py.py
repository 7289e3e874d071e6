"""The names of ``ideep4py`` that Chainer asks for, with its signatures.

Chainer's own ``_forward_ideep`` methods call them where ``chainer.config.use_ideep`` allows. Those
of convolution and pooling are replaced as a whole, in `_chainer`: what they hand over lacks groups,
and keeps arrays that no one needs.
"""

import functools
import types
from typing import NamedTuple

from rechainer.onednn import _operations as ops
from rechainer.onednn._arrays import FLOAT, as_channels_last

import numpy

__version__ = "oneDNN"
wgt_array = "weights"


class mdarray(numpy.ndarray):
    """An array only oneDNN understands; here: the indices of max pooling, readable for all."""


def array(x, itype=None):
    """Return ``x``: all of oneDNN's operations take NumPy's arrays."""
    return x


def get_array_module(*xs):
    """Return the module whose functions take these arrays."""
    return numpy


def check_type(xs):
    """Tell whether all arrays are of NumPy, not empty, and of float32."""
    return all(isinstance(x, numpy.ndarray) and x.dtype == FLOAT and x.size for x in xs)


def check_ndim(xs, supported_ndim=(2, 4)):
    """Tell whether the first array, the data, has a supported number of axes."""
    return xs[0].ndim in supported_ndim


def basic_copyto(target, source):
    """Copy the elements of an array."""
    numpy.copyto(target, source)


def multi_add(xs):
    """Return the sum of arrays of one shape."""
    return ops.add(*xs)


class intVector(list):
    """A list with the method of C++."""

    push_back = list.append


mdarrayVector = intVector


relu = types.SimpleNamespace(Forward=functools.partial(ops.activate, "relu"),
                             Backward=functools.partial(ops.activate_backward, "relu"))


class linear:
    """y = x W^T + b."""

    @staticmethod
    def Forward(x, W, b=None):
        y = ops.product(x, W.T)
        if b is not None:
            y += b
        return y

    @staticmethod
    def BackwardData(W, gy):
        return ops.product(gy, W)

    @staticmethod
    def BackwardWeights(x, gy):
        return ops.product(gy.T, x)


class batchNormalization:
    """Batch normalization over maps (N, C, H, W)."""

    @staticmethod
    def Forward(x, gamma, beta, mean, var, eps):
        kernel = ops.normalization(x.shape, eps)
        if mean is not None:
            return (kernel.test(x, gamma, beta, mean, var),)
        y, mean, var = kernel.train(x, gamma, beta)
        return y, mean, var, 1 / numpy.sqrt(var + FLOAT.type(eps))

    @staticmethod
    def Backward(x, gy, mean, var, gamma, eps):
        gx, *gradients = ops.normalization(x.shape, eps).backward(x, gy, gamma, mean, var)
        return gx, gradients


class localResponseNormalizationParam(NamedTuple):
    """The numbers of a local response normalization; ``n_alpha`` is n times alpha."""

    n: int
    k: float
    n_alpha: float
    beta: float
    kind: str

    lrn_across_channels = "across channels"

    def kernel(self, shape):
        """Return the primitives for a shape."""
        return ops.response(shape, self.n, self.k, self.n_alpha / self.n, self.beta)


class localResponseNormalization:
    """Local response normalization across channels."""

    @staticmethod
    def Forward(x, param):
        return param.kernel(x.shape).forward(x)

    @staticmethod
    def Backward(x, gy, kept, param):
        return param.kernel(x.shape).backward(x, gy, kept)


class concat:
    """Maps joined along an axis, and parted again."""

    Forward = staticmethod(ops.concatenate)

    @staticmethod
    def Backward(x, offsets, axis):
        return tuple(map(as_channels_last, numpy.split(x, offsets, axis)))


class dropout:
    """Dropout with NumPy's random numbers, the same as without oneDNN."""

    @staticmethod
    def Forward(x, ratio):
        keep = numpy.random.rand(*x.shape) >= ratio
        mask = numpy.empty_like(x)
        numpy.multiply(keep, x.dtype.type(1 / (1 - ratio)), out=mask)
        return mask, x * mask

    @staticmethod
    def Backward(mask, gy):
        return gy * mask
