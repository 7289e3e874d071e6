"""Memory of the device by its address, and the arithmetic of convolutions on it."""

import ctypes
import itertools

import numpy

#: cuDNN's plans are made for arrays that begin at multiples of so many bytes.
ALIGNMENT = 16


def at(address, dtype, shape, strides):
    """Return the array that lies at an address; strides count elements."""
    assert address % ALIGNMENT == 0, f"misaligned address {address:#x}"
    dtype = numpy.dtype(dtype)
    span = 1 + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    block = (ctypes.c_char * (span * dtype.itemsize)).from_address(address)
    steps = [step * dtype.itemsize for step in strides]
    return numpy.ndarray(shape, dtype, block, strides=steps)


def _windows(padded, out, w_shape, stride, dilation):
    """Yield each place in the filter, and the view of the image that it meets."""
    for place in itertools.product(*map(range, w_shape[2:])):
        starts = [k * d for k, d in zip(place, dilation, strict=True)]
        steps = (slice(a, a + s * (n - 1) + 1, s)
                 for a, s, n in zip(starts, stride, out, strict=True))
        yield place, padded[(slice(None), slice(None), *steps)]


def _padded(x, pad):
    return numpy.pad(x.astype("d"), ((0, 0), (0, 0), *((p, p) for p in pad)))


def _grouped(array, axis, groups):
    shape = array.shape
    return array.reshape(*shape[:axis], groups, shape[axis] // groups, *shape[axis + 1:])


def forward(x, w, out, pad, stride, dilation):
    """Return y of x and W, in float64; `out` is the size of y's maps."""
    groups = x.shape[1] // w.shape[1]
    y = numpy.zeros((len(x), groups, len(w) // groups, *out))
    grouped = _grouped(w.astype("d"), 0, groups)
    for place, view in _windows(_padded(x, pad), out, w.shape, stride, dilation):
        filters = grouped[(..., *place)]
        y += numpy.einsum("ngc...,gkc->ngk...", _grouped(view, 1, groups), filters)
    return y.reshape(len(x), len(w), *out)


def data(y, w, x_shape, pad, stride, dilation):
    """Return the gradient of x."""
    groups = x_shape[1] // w.shape[1]
    gx = _padded(numpy.zeros(x_shape), pad)
    gy, grouped = _grouped(y.astype("d"), 1, groups), _grouped(w.astype("d"), 0, groups)
    for place, view in _windows(gx, y.shape[2:], w.shape, stride, dilation):
        part = numpy.einsum("ngk...,gkc->ngc...", gy, grouped[(..., *place)])
        view += part.reshape(view.shape)
    inner = (slice(p, p + n) for p, n in zip(pad, x_shape[2:], strict=True))
    return gx[(slice(None), slice(None), *inner)]


def filters(x, y, w_shape, pad, stride, dilation):
    """Return the gradient of W."""
    groups = x.shape[1] // w_shape[1]
    gw = numpy.zeros(w_shape)
    gy = _grouped(y.astype("d"), 1, groups)
    gy = gy.reshape(*gy.shape[:3], -1)
    for place, view in _windows(_padded(x, pad), y.shape[2:], w_shape, stride, dilation):
        seen = _grouped(view, 1, groups)
        seen = seen.reshape(*seen.shape[:3], -1)
        gw[(..., *place)] = numpy.einsum("ngcp,ngkp->gkc", seen, gy).reshape(w_shape[:2])
    return gw
