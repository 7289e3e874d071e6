"""cuDNN's descriptors: of arrays, pooling, activations. They are kept: settings are few."""

import ctypes
import functools
import math
from ctypes import byref, c_int, c_void_p

from rechainer.cudnn._constants import DATA_TYPES, VALUES
from rechainer.cudnn._library import Failure, load

#: Kept of each kind; a program with more shapes than this makes some again.
CACHE_SIZE = 4096


def data_type(dtype):
    """Return cudnnDataType_t of a dtype.

    Raises
    ------
    TypeError
        If cuDNN does not calculate in it.
    """
    try:
        return DATA_TYPES[dtype.name]
    except KeyError:
        raise TypeError(f"cuDNN has no type {dtype.name}; it has {', '.join(DATA_TYPES)}. Set "
                        f"chainer.config.use_cudnn = 'never' for others.") from None


def dense_strides(shape):
    """Return the strides, in elements, of a C-contiguous array."""
    return tuple(math.prod(shape[i + 1:]) for i in range(len(shape)))


def maps_of(shape, channels_last):
    """Return the axes (N, C, ...) of a C-contiguous array, as shape and strides in elements.

    Parameters
    ----------
    shape : tuple of int
        Of the array: (N, C, ...), or (N, ..., C).
    channels_last : bool
    """
    strides = dense_strides(shape)
    if not channels_last:
        return tuple(shape), strides
    return tuple((s[0], s[-1], *s[1:-1]) for s in (shape, strides))


class Descriptor:
    """A descriptor of the C library, never freed: the caches below hold all of them.

    Parameters
    ----------
    kind : str
        ``Tensor``, ``Activation``, ``Pooling`` or ``Dropout``.
    """

    def __init__(self, kind):
        made = c_void_p()
        getattr(load(), f"cudnnCreate{kind}Descriptor")(byref(made))
        self._as_parameter_ = made.value


def ints(*values):
    """Return a C array of int."""
    return (c_int * len(values))(*values)


@functools.lru_cache(CACHE_SIZE)
def tensor(dtype, shape, strides=None):
    """Return the descriptor of an array; of fewer than four axes, with axes of one behind.

    Parameters
    ----------
    dtype : numpy.dtype
    shape : tuple of int
    strides : tuple of int, optional
        In elements. Default: C-contiguous.
    """
    if 0 in shape:
        raise Failure(f"an array of shape {shape}: cuDNN takes none without elements")
    strides = strides or dense_strides(shape)
    missing = (1,) * (4 - len(shape))
    made = Descriptor("Tensor")
    load().cudnnSetTensorNdDescriptor(made, data_type(dtype), len(shape + missing),
                                      ints(*shape, *missing), ints(*strides, *missing))
    return made


@functools.lru_cache(CACHE_SIZE)
def activation(mode, ceiling):
    """Return the descriptor of an activation; ``ceiling`` is the clipped ReLU's."""
    made = Descriptor("Activation")
    load().cudnnSetActivationDescriptor(made, mode, VALUES["CUDNN_NOT_PROPAGATE_NAN"], ceiling)
    return made


@functools.lru_cache(CACHE_SIZE)
def pooling(mode, ksize, stride, pad):
    """Return the descriptor of pooling over two or three axes."""
    made = Descriptor("Pooling")
    load().cudnnSetPoolingNdDescriptor(made, mode, VALUES["CUDNN_NOT_PROPAGATE_NAN"], len(ksize),
                                       ints(*ksize), ints(*pad), ints(*stride))
    return made


_SCALARS = {
    kind: tuple(kind(value) for value in (0, 1)) for kind in (ctypes.c_float, ctypes.c_double)
}


def zero_and_one(dtype):
    """Return pointers to 0 and 1, in float64 for that dtype and in float32 for all others."""
    zero, one = _SCALARS[ctypes.c_double if dtype.name == "float64" else ctypes.c_float]
    return byref(zero), byref(one)
