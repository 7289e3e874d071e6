"""The kernels as functions of float32 arrays; images are (N, C, H, W)."""

import itertools
import math
from typing import NamedTuple

from rechainer.wasm._library import load as kernels

import numpy

FLOAT = numpy.dtype(numpy.float32)
SMALL = 4096  # multiplications; fewer are not worth a call


def suit(*arrays):
    """Tell whether all these are arrays of float32, in the order of this machine's bytes."""
    return all(type(it) is numpy.ndarray and it.dtype == FLOAT for it in arrays)


def _address(array):
    return array.__array_interface__["data"][0]


def _dense(array):
    return numpy.ascontiguousarray(array)


def _panel():
    return numpy.empty(257 * 8, FLOAT)


def multiply(a, b):
    """Product of matrices.

    Parameters
    ----------
    a, b : numpy.ndarray
        Matrices of shape (m, k) and (k, n), float32; turned ones are taken as they lie.

    Returns
    -------
    numpy.ndarray
        Matrix of shape (m, n), float32.
    """
    m, n = len(a), b.shape[1]
    if m < 4 and m < n and b.flags.f_contiguous:  # panels of b would cost more than the product
        return _dense(_product(b.T, a.T).T)
    return _product(a, b)


def _product(a, b):
    """Rows of the left matrix are made to lie together, the right one may be turned."""
    (m, k), n = a.shape, b.shape[1]
    a = _dense(a)
    if not (b.flags.c_contiguous or b.flags.f_contiguous):
        b = _dense(b)
    c, panel = numpy.zeros((m, n), FLOAT), _panel()
    kernels().multiply(
        m, n, k, _address(a), 4 * k, _address(b), *b.strides, _address(c), 4 * n,
        _address(panel), 0,
    )  # fmt: skip
    return c


class Windows(NamedTuple):
    """How a kernel or a pooling window moves over images."""

    channels: int
    size: tuple
    kernel: tuple
    stride: tuple
    pad: tuple
    dilate: tuple
    out: tuple

    def array(self):
        """What the kernels read: thirteen integers."""
        return numpy.array([self.channels, *itertools.chain(*self[1:])], numpy.int32)

    def is_image(self):
        """Whether the image itself is its one column or all its columns: no patches are cut."""
        return self.kernel == self.stride == (1, 1) and self.pad == (0, 0)

    def is_whole(self):
        """Whether there is one window, the image."""
        return self.kernel == self.size and self.out == (1, 1) and self.pad == (0, 0)

    def columns(self):
        """Room for the columns of one image, or None where it needs none."""
        if self.is_image():
            return None
        return numpy.empty(self.channels * math.prod(self.kernel) * math.prod(self.out), FLOAT)


def _place(array):
    return 0 if array is None else _address(array)


def convolve(x, w, b, windows):
    """Convolution.

    Parameters
    ----------
    x, w : numpy.ndarray
        Images (N, C, H, W) and weights (O, C, KH, KW), float32.
    b : numpy.ndarray or None
        Bias (O,).
    windows : Windows
        Of an image.

    Returns
    -------
    numpy.ndarray
        Maps (N, O, OH, OW), float32.
    """
    n, n_out = len(x), len(w)
    if windows.is_whole():
        y = multiply(x.reshape(n, -1), w.reshape(n_out, -1).T)
        y = y if b is None else y + b
        return y.reshape(n, n_out, 1, 1)
    y = numpy.empty((n, n_out, *windows.out), FLOAT)
    y[...] = 0 if b is None else b[:, None, None]
    x, w, shape, columns, panel = _dense(x), _dense(w), windows.array(), windows.columns(), _panel()
    kernels().convolve(
        _address(x), _address(w), _address(y), _address(shape), n, n_out, _place(columns),
        _address(panel),
    )  # fmt: skip
    return y


def convolve_back(gy, w, windows):
    """Gradient of a convolution's images: (N, O, OH, OW) and (O, C, KH, KW) to (N, C, H, W)."""
    n, n_out, channels = len(gy), len(w), windows.channels
    if windows.is_whole():
        return multiply(gy.reshape(n, -1), w.reshape(n_out, -1)).reshape(n, channels, *windows.size)
    gx = numpy.zeros((n, channels, *windows.size), FLOAT)
    turned = _dense(w.reshape(n_out, -1).T)
    gy, shape, columns, panel = _dense(gy), windows.array(), windows.columns(), _panel()
    kernels().convolve_back(
        _address(gy), _address(turned), _address(gx), _address(shape), n, n_out, _place(columns),
        _address(panel),
    )  # fmt: skip
    return gx


def correlate(x, gy, windows):
    """Gradient of a convolution's weights: (N, C, H, W) and (N, O, OH, OW) to (O, C, KH, KW)."""
    n, n_out = gy.shape[:2]
    shape = n_out, windows.channels, *windows.kernel
    if windows.is_whole():
        return multiply(gy.reshape(n, -1).T, x.reshape(n, -1)).reshape(shape)
    gw = numpy.zeros((math.prod(shape[1:]), n_out), FLOAT)
    x, gy, columns, panel = _dense(x), _dense(gy), windows.columns(), _panel()
    integers = windows.array()
    kernels().correlate(
        _address(x), _address(gy), _address(gw), _address(integers), n, n_out, _place(columns),
        _address(panel),
    )  # fmt: skip
    return _dense(gw.T).reshape(shape)


def unfold(x, windows):
    """Patches (N, C, KH, KW, OH, OW) of images (N, C, H, W) with a rim of zeros."""
    col = numpy.empty((*x.shape[:2], *windows.kernel, *windows.out), FLOAT)
    x, shape = _dense(x), windows.array()
    kernels().unfold(_address(x), _address(col), _address(shape), len(x), 0)
    return col


def fold(col, windows):
    """Patches added up to images again, the reverse of `unfold`."""
    x = numpy.zeros((*col.shape[:2], *windows.size), FLOAT)
    col, shape = _dense(col), windows.array()
    kernels().unfold(_address(x), _address(col), _address(shape), len(x), 1)
    return x


def pool_max(x, windows):
    """Maxima (N, C, OH, OW) of windows of images, and the place of each in its window."""
    y = numpy.empty((*x.shape[:2], *windows.out), FLOAT)
    index = numpy.empty(y.shape, numpy.int32)
    x, shape = _dense(x), windows.array()
    kernels().pool_max(
        _address(x), _address(y), _address(index), _address(shape), math.prod(x.shape[:2])
    )
    return y, index


def pool_max_back(gy, index, windows):
    """Gradient (N, C, H, W) of `pool_max`."""
    gx = numpy.zeros((*gy.shape[:2], *windows.size), FLOAT)
    gy, shape = _dense(gy), windows.array()
    index = numpy.ascontiguousarray(index, numpy.int32)
    kernels().pool_max_back(
        _address(gy), _address(gx), _address(index), _address(shape), math.prod(gy.shape[:2])
    )
    return gx


def sigmoid(x):
    """1 / (1 + exp(-x)) of each number."""
    count = -(-x.size // 4) * 4
    y = numpy.empty(count, FLOAT)
    if count > x.size:
        y[: x.size] = x.ravel()
        y[x.size :] = 0
        x_at = _address(y)
    else:
        dense = _dense(x)
        x_at = _address(dense)
    kernels().sigmoid(x_at, _address(y), count)
    return y[: x.size].reshape(x.shape)


def draw_normal(out, scale):
    """Fill an array with what ``numpy.random.normal(0, scale, out.shape)`` would draw.

    Parameters
    ----------
    out : numpy.ndarray
        Array of float32 whose numbers lie together.
    scale : float
        Standard deviation.

    Returns
    -------
    bool
        False, and nothing is done, where NumPy's generator is not its usual one.
    """
    state = numpy.random.get_state(legacy=False)
    if state["bit_generator"] != "MT19937" or not out.size:
        return not out.size
    numbers, twister = out.reshape(-1), state["state"]
    if state["has_gauss"]:  # half a pair that was drawn before
        numbers[:1] = scale * state["gauss"]
        numbers = numbers[1:]
    key, words = twister["key"].astype(numpy.uint32), numpy.empty(624, numpy.uint32)
    position = numpy.array([twister["pos"], 0, 0, 0, 0], numpy.int32)
    even = numbers.size // 2 * 2
    kernels().draw_normal(
        _address(key), _address(position), _address(words), _address(numbers), even, float(scale)
    )
    after = {"key": key, "pos": int(position[0])}
    numpy.random.set_state({**state, "state": after, "has_gauss": 0, "gauss": 0.0})
    numbers[even:] = numpy.random.normal(0, scale, numbers.size - even)
    return True
