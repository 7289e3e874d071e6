"""NumPy arrays of the order oneDNN likes: shape (N, C, H, W), channels last in memory."""

from rechainer.onednn import _memory
from rechainer.onednn._library import Unsupported
from rechainer.onednn._primitives import Layout, per_thread, reorder

import numpy

FLOAT = numpy.dtype(numpy.float32)

#: Arrays of fewer elements are copied by NumPy before oneDNN would have begun.
FEW = 4096


def channels_last(shape):
    """Return the strides, in elements, of maps (N, C, H, W) whose channels lie side by side."""
    _, c, h, w = shape
    return h * w * c, 1, w * c, c


def maps(shape, dtype="float32"):
    """Return the `Layout` of maps of a shape (N, C, H, W), channels last."""
    return Layout(shape, channels_last(shape), dtype)


def empty(shape, dtype=FLOAT):
    """Return an uninitialized array (N, C, H, W), channels last."""
    n, c, h, w = shape
    return _memory.empty((n, h, w, c), numpy.dtype(dtype)).transpose(0, 3, 1, 2)


def empty_like(x):
    """Return an uninitialized float32 array of the order of ``x``, dense or channels last."""
    return _memory.empty(x.shape, FLOAT) if is_dense(x) else empty(x.shape)


def zeros(shape):
    """Return a float32 array (N, C, H, W) of zeros, channels last."""
    x = empty(shape)
    x.fill(0)
    return x


def is_dense(x):
    """Tell whether ``x`` is C-contiguous and where a processor wants float32."""
    return x.flags.c_contiguous and x.flags.aligned


def as_channels_last(x):
    """Return ``x`` (N, C, H, W), or a copy of it, with its channels last in memory."""
    if is_dense(x.transpose(0, 2, 3, 1)):
        return x
    y = empty(x.shape)
    copy(x, y)
    return y


def as_dense(x):
    """Return ``x``, or a copy of it, C-contiguous."""
    return x if is_dense(x) else numpy.array(x, order="C")


def in_one_order(*arrays):
    """Return arrays of one shape, all C-contiguous or, if they are maps, all channels last."""
    if arrays[0].ndim != 4 or all(map(is_dense, arrays)):
        return [*map(as_dense, arrays)]
    return [*map(as_channels_last, arrays)]


def copy(source, target):
    """Copy between float32 arrays of one shape and of any strides."""
    if source.size < FEW:
        numpy.copyto(target, source)
        return
    strides = _element_strides(source), _element_strides(target)
    try:
        if None in strides:
            raise Unsupported
        _reorder(source.shape, *strides)(source, target)
    except Unsupported:
        numpy.copyto(target, source)


@per_thread
def _reorder(shape, source, target):
    return reorder(Layout(shape, source), Layout(shape, target))


def _element_strides(array):
    # Broadcast arrays have strides of 0, reversed ones negative strides: neither is a layout.
    # Nor need the stride of an axis of size 1 mean anything.
    if not array.flags.aligned:
        return None
    strides = tuple(step // 4 if size > 1 else array.size
                    for step, size in zip(array.strides, array.shape, strict=True))
    return strides if min(strides) > 0 else None
