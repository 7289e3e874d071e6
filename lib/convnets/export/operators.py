"""What Chainer's functions are in ONNX, as data.

The operators: https://github.com/onnx/onnx/blob/main/docs/Operators.md, in the version
`onnx_file.OPSET`.
"""

import numpy as np
from chainer.functions.activation.clipped_relu import ClippedReLU
from chainer.functions.activation.elu import ELU
from chainer.functions.activation.leaky_relu import LeakyReLU
from chainer.functions.activation.log_softmax import LogSoftmax
from chainer.functions.activation.relu import ReLU
from chainer.functions.activation.sigmoid import Sigmoid
from chainer.functions.activation.softmax import Softmax
from chainer.functions.activation.tanh import Tanh
from chainer.functions.array.broadcast import BroadcastTo
from chainer.functions.array.concat import Concat
from chainer.functions.array.expand_dims import ExpandDims
from chainer.functions.array.get_item import GetItem
from chainer.functions.array.pad import Pad
from chainer.functions.array.reshape import Reshape
from chainer.functions.array.split_axis import SplitAxis
from chainer.functions.array.squeeze import Squeeze
from chainer.functions.array.swapaxes import Swapaxes
from chainer.functions.array.transpose import Transpose
from chainer.functions.connection.convolution_2d import Convolution2DFunction
from chainer.functions.connection.convolution_nd import ConvolutionND
from chainer.functions.connection.deconvolution_2d import Deconvolution2DFunction
from chainer.functions.connection.linear import LinearFunction
from chainer.functions.math import basic_math as math_of
from chainer.functions.math.average import Mean
from chainer.functions.math.exponential import Exp
from chainer.functions.math.identity import Identity
from chainer.functions.math.minmax import Max
from chainer.functions.math.sum import Sum
from chainer.functions.normalization.batch_normalization import FixedBatchNormalization
from chainer.functions.normalization.local_response_normalization import (
    LocalResponseNormalization,
)
from chainer.functions.pooling.average_pooling_2d import AveragePooling2D
from chainer.functions.pooling.average_pooling_nd import AveragePoolingND
from chainer.functions.pooling.max_pooling_nd import MaxPoolingND

from .errors import ExportError

END = 2**31 - 1      # of a slice that goes to the end of its axis


class Unfit(ExportError):
    """A function has options that its operator has not; the text says which."""


# Each takes a node of Chainer's and the shapes of its inputs and outputs, and returns
# (operator, attributes, *further inputs), which come behind those that the node has.

def _convolution(node, shapes, outputs):
    x, W = shapes[:2]
    if isinstance(node, ConvolutionND):
        stride, pad, dilate = node.stride, node.pad, node.dilate
    else:
        stride, pad, dilate = (node.sy, node.sx), (node.ph, node.pw), (node.dy, node.dx)
    # With cover_all the last windows stick out: more padding at the end lets them.
    ends = [max(p, (n_out - 1) * s + (k - 1) * d + 1 - n_in - p) for n_out, s, k, d, n_in, p in
            zip(outputs[0][2:], stride, W[2:], dilate, x[2:], pad, strict=True)]
    return "Conv", {"kernel_shape": W[2:], "strides": stride, "pads": (*pad, *ends),
                    "dilations": dilate, "group": node.groups}


def _deconvolution(node, shapes, outputs):
    x, W = shapes[:2]
    stride, pad, dilate = (node.sy, node.sx), (node.ph, node.pw), (node.dy, node.dx)
    over = [n_out - (s * (n_in - 1) + (k - 1) * d + 1 - 2 * p) for n_out, s, n_in, k, d, p in
            zip(outputs[0][2:], stride, x[2:], W[2:], dilate, pad, strict=True)]
    return "ConvTranspose", {
        "kernel_shape": W[2:], "strides": stride, "dilations": dilate, "group": node.groups,
        "pads": (*pad, *(p - min(n, 0) for p, n in zip(pad, over, strict=True))),
        "output_padding": [max(n, 0) for n in over]}


def _normalization(node, shapes, outputs):
    if len(shapes[1]) != 1 or node.axis not in (None, (0, *range(2, len(shapes[0])))):
        raise Unfit(f"normalizes the axes {node.axis}, ONNX has one mean and variance a channel")
    return "BatchNormalization", {"epsilon": float(node.eps)}


def _max_pooling(node, shapes, outputs):
    window = {"kernel_shape": node.ksize, "strides": node.stride, "pads": (*node.pad, *node.pad),
              "ceil_mode": int(node.cover_all)}
    for n_in, n_out, s, p in zip(shapes[0][2:], outputs[0][2:], node.stride, node.pad,
                                 strict=True):
        if (n_out - 1) * s >= n_in + p:      # ONNX leaves such a window out
            raise Unfit(f"covers {shapes[0][2:]} pixels with a window that lies outside of them")
    return "MaxPool", window


def _average_pooling(node, shapes, outputs):
    return "AveragePool", {"kernel_shape": (node.kh, node.kw), "strides": (node.sy, node.sx),
                           "pads": (node.ph, node.pw) * 2, "count_include_pad": 1}


def _average_pooling_nd(node, shapes, outputs):
    return "AveragePool", {"kernel_shape": node.ksize, "strides": node.stride,
                           "pads": (*node.pad, *node.pad),
                           "count_include_pad": int(node.pad_value is not None)}


def _local_response(node, shapes, outputs):
    size = node.n // 2 * 2 + 1      # Chainer sums n // 2 channels on either side; ONNX averages
    return "LRN", {"size": size, "alpha": float(node.alpha * size), "beta": float(node.beta),
                   "bias": float(node.k)}


def _reshaped(node, shapes, outputs):
    return "Reshape", {}, _ints(outputs[0])


def _split(node, shapes, outputs):
    axis = node.axis % len(shapes[0])
    return "Split", {"axis": axis}, _ints([shape[axis] for shape in outputs])


def _slice(node, shapes, outputs):
    slices, shape = list(node.slices), shapes[0]
    if Ellipsis in slices:
        i = slices.index(Ellipsis)
        slices[i:i + 1] = [slice(None)] * (len(shape) - len(slices) + 1)
    if not all(isinstance(s, slice) and (s.step or 1) > 0 for s in slices):
        raise Unfit(f"takes [{node.slices}], only ranges such as [:, 2:8, ::2] can be written")
    cut = [(axis, s.start or 0, END if s.stop is None else s.stop, s.step or 1)
           for axis, s in enumerate(slices) if s != slice(None)]
    if not cut:
        return "Identity", {}
    axes, starts, stops, steps = (_ints(column) for column in zip(*cut, strict=True))
    return "Slice", {}, starts, stops, axes, steps


def _pad(node, shapes, outputs):
    value = node.keywords.get("constant_values", 0)
    if node.mode != "constant" or not np.isscalar(value):
        raise Unfit(f"pads by {node.mode}, with {node.keywords}; only one constant can be written")
    widths = np.broadcast_to(node.pad_bw, (len(shapes[0]), 2))
    return "Pad", {"mode": "constant"}, _ints(widths.T.ravel()), np.float32(value)


def _reduced(op):
    def convert(node, shapes, outputs):
        axes = range(len(shapes[0])) if node.axis is None else node.axis
        return op, {"axes": [a % len(shapes[0]) for a in axes], "keepdims": int(node.keepdims)}
    return convert


def _sum(node, shapes, outputs):
    op, attributes = _reduced("ReduceSum")(node, shapes, outputs)
    return op, attributes, _ints(attributes.pop("axes"))


def _transposed(node, shapes, outputs):
    n = len(shapes[0])
    axes = range(n)[::-1] if node.axes is None else node.axes
    return "Transpose", {"perm": [a % n for a in axes]}


def _swapped(node, shapes, outputs):
    axes = list(range(len(shapes[0])))
    a, b = node.axis1, node.axis2
    axes[a], axes[b] = axes[b], axes[a]
    return "Transpose", {"perm": axes}


def _on_axis(op):
    def convert(node, shapes, outputs):
        return op, {"axis": node.axis % len(shapes[0])}
    return convert


def _with_value(op):
    """A function of an array and a number, which is a constant in ONNX."""
    def convert(node, shapes, outputs):
        return op, {}, np.asarray(node.value, np.float32)
    return convert


def _plain(op, **attributes):
    """A function without options, or with those of its attributes."""
    def convert(node, shapes, outputs):
        return op, {name: float(getattr(node, ours)) for name, ours in attributes.items()}
    return convert


def _ints(numbers):
    return np.array([*numbers], np.int64)


#: Chainer's function -> what writes it.
OPERATORS = {
    Convolution2DFunction: _convolution, ConvolutionND: _convolution,
    Deconvolution2DFunction: _deconvolution,
    LinearFunction: lambda node, shapes, outputs: ("Gemm", {"transB": 1}),
    FixedBatchNormalization: _normalization, LocalResponseNormalization: _local_response,
    MaxPoolingND: _max_pooling, AveragePooling2D: _average_pooling,
    AveragePoolingND: _average_pooling_nd,
    Mean: _reduced("ReduceMean"), Max: _reduced("ReduceMax"), Sum: _sum,
    ReLU: _plain("Relu"), LeakyReLU: _plain("LeakyRelu", alpha="slope"),
    ELU: _plain("Elu", alpha="alpha"), Sigmoid: _plain("Sigmoid"), Tanh: _plain("Tanh"),
    ClippedReLU: lambda node, shapes, outputs: (
        "Clip", {}, np.float32(0), np.float32(node.cap)),
    Softmax: _on_axis("Softmax"), LogSoftmax: _on_axis("LogSoftmax"), Exp: _plain("Exp"),
    Reshape: _reshaped, ExpandDims: _reshaped, Squeeze: _reshaped, GetItem: _slice, Pad: _pad,
    BroadcastTo: lambda node, shapes, outputs: ("Expand", {}, _ints(outputs[0])),
    Concat: _on_axis("Concat"), SplitAxis: _split, Transpose: _transposed, Swapaxes: _swapped,
    Identity: _plain("Identity"), math_of.Neg: _plain("Neg"),
    math_of.Add: _plain("Add"), math_of.MultiAdd: _plain("Sum"), math_of.Sub: _plain("Sub"),
    math_of.Mul: _plain("Mul"), math_of.Div: _plain("Div"),
    math_of.AddConstant: _with_value("Add"), math_of.MulConstant: _with_value("Mul"),
    math_of.SubFromConstant: _with_value("Sub"),
    math_of.DivFromConstant: _with_value("Div"),
}

#: Functions whose number comes before the array.
NUMBER_FIRST = (math_of.SubFromConstant, math_of.DivFromConstant)

#: Operators in which an axis of size 1 stands for any number of images.
BROADCASTING = ("Add", "Sub", "Mul", "Div", "Sum")


def known():
    """Return the names of the functions that can be written, sorted."""
    return sorted(function.__name__ for function in OPERATORS)
