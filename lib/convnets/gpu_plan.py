"""What `convnets.optimize` runs on a GPU: layers as graphs of cuDNN, with the channels last.

A convolution with a normalization folded into it, a sum behind it and an activation are one graph
of cuDNN: maps are read and written once. Filters are turned once and kept.

Maps have the axes (N, C, H, W) here, too, and lie in memory as (N, H, W, C). What is not below is
calculated by Chainer's functions, of arrays in the ordinary order.
"""

import copy
from dataclasses import replace

from rechainer import cudnn

import chainer
import numpy as np
from chainer.backends import cuda
from chainer.functions.activation.relu import ReLU
from chainer.functions.activation.sigmoid import Sigmoid
from chainer.functions.array.concat import Concat
from chainer.functions.connection.convolution_2d import Convolution2DFunction
from chainer.functions.connection.linear import LinearFunction
from chainer.functions.math.basic_math import Add
from chainer.functions.normalization.batch_normalization import FixedBatchNormalization
from chainer.functions.pooling.average_pooling_2d import AveragePooling2D
from chainer.functions.pooling.max_pooling_nd import MaxPoolingND

from .cuda_graphs import record
from .layouts import pooled

TO_LAST, TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)


def wanted(x):
    """Tell whether images are on a GPU with the cuDNN of `rechainer`, and it shall be used."""
    return cudnn.stands_in(cuda) and isinstance(x, cuda.ndarray) and chainer.should_use_cudnn(
        ">=auto")


def settings():
    """Return what of Chainer's configuration cuDNN's plans depend on."""
    config = chainer.config
    return config.use_cudnn, config.use_cudnn_tensor_core, config.autotune


def finished(steps, x, dtype, cuda_graph):
    """Return a plan as a function of images, after a first run that chooses cuDNN's plans.

    Parameters
    ----------
    steps : callable
        Takes images as `execute` does, returns the result.
    x : array, shape (N, C, H, W)
        Images to try it with.
    dtype : numpy.dtype
        Of the steps.
    cuda_graph : bool
        Record the steps for images of this shape.

    Raises
    ------
    Failure
        If cuDNN has no plan for a step.
    GraphError
        If it cannot be recorded.
    """
    def run(images):
        return steps(images.transpose(TO_FIRST)).astype(np.float32, copy=False)

    def plain(x):
        with x.device:
            return run(cuda.cupy.ascontiguousarray(x.transpose(TO_LAST), dtype))

    def launch(x):
        with x.device:
            # Images are cast and turned on their way to the recording; the next result is another.
            return launch.recording(x.transpose(TO_LAST)).copy()

    plain(x)
    if not cuda_graph:
        return plain
    launch.recording = record(run, cuda.cupy.ascontiguousarray(x.transpose(TO_LAST), dtype))
    return launch


def ready(op, dtype):
    """Return an operation whose constants are of a type, but those of a normalization."""
    if isinstance(op.node, FixedBatchNormalization):
        return op
    return replace(op, inputs=tuple(
        x if isinstance(x, int) else _cast(x, dtype) for x in op.inputs))


def _cast(x, dtype):
    return x.astype(dtype, copy=False) if x.dtype.kind == "f" else x


def execute(op, values, dtype):
    """Return the outputs of an operation.

    Parameters
    ----------
    op : convnets.optimize.Op
        A layer may have a sum and an activation behind it.
    values : dict of int to array
    dtype : numpy.dtype
        float16 or float32, of all values.
    """
    inputs = [values[x] if isinstance(x, int) else x for x in op.inputs]
    if op.layer:
        add = () if op.add is None else (values[op.add],)
        return (LAYERS[type(op.node)](op, *op.layer.turned(dtype), *inputs, *add),)
    if type(op.node) in ON_MAPS and all(x.ndim == 4 for x in inputs):
        return (ON_MAPS[type(op.node)](op.node, *map(_last, inputs)).transpose(TO_FIRST),)
    dense = (x if x.flags.c_contiguous else x.copy(order="C") for x in inputs)
    return tuple(_cast(y, dtype) for y in copy.copy(op.node).forward(tuple(dense)))


def _last(x):
    """Return maps as (N, H, W, C) in C order: a view of those that lie so."""
    return cuda.cupy.ascontiguousarray(x.transpose(TO_LAST))


def _convolution(op, W, b, x, add=None):
    node, (n, c, h, w) = op.node, op.shapes[0]
    y = cuda.cupy.empty((n, h, w, c), x.dtype)
    config, layout = chainer.config, cuda.libcudnn.CUDNN_TENSOR_NHWC
    cuda.cudnn.convolution_forward(
        _last(x), W.transpose(TO_LAST), b, y, (node.ph, node.pw), (node.sy, node.sx),
        (node.dy, node.dx), node.groups, auto_tune=config.autotune,
        tensor_core=config.use_cudnn_tensor_core, d_layout=layout, w_layout=layout,
        z=None if add is None else _last(add), activation=op.activation)
    return y.transpose(TO_FIRST)


def _linear(op, W, b, x, add=None):
    y = x.dot(W.T)
    y += b
    if add is not None:
        y += add
    return ACTIVATIONS[op.activation]().forward((y,))[0] if op.activation else y


def _maximum(node, x):
    return pooled(x, node.ksize, node.stride, node.pad, node.get_cudnn_pool_mode(),
                  cuda.libcudnn.CUDNN_TENSOR_NHWC, node.cover_all)


def _average(node, x):
    return pooled(x, (node.kh, node.kw), (node.sy, node.sx), (node.ph, node.pw),
                  cuda.libcudnn.CUDNN_POOLING_AVERAGE_COUNT_INCLUDE_PADDING,
                  cuda.libcudnn.CUDNN_TENSOR_NHWC, node.cover_all)


def _each(node, *maps):
    """Apply a function of single elements."""
    return copy.copy(node).forward(maps)[0]


def _concatenated(node, *maps):
    """Join maps along what is an axis of (N, C, H, W)."""
    return cuda.cupy.concatenate(maps, TO_LAST.index(node.axis % 4))


LAYERS = {Convolution2DFunction: _convolution, LinearFunction: _linear}
ACTIVATIONS = {"relu": ReLU, "sigmoid": Sigmoid}
#: Function -> what does it for maps (N, H, W, C).
ON_MAPS = {
    MaxPoolingND: _maximum,
    AveragePooling2D: _average,
    ReLU: _each,
    Sigmoid: _each,
    Add: _each,
    Concat: _concatenated,
}
