"""A model of Chainer's as an ONNX file, from the functions that it calls."""

from convnets.optimize import Tape

import chainer
import numpy as np
from onnx import TensorProto, helper, numpy_helper


def _pads(node):
    return [node.ph, node.pw, node.ph, node.pw]


def _max_pooling(node):
    return {"kernel_shape": node.ksize, "strides": node.stride, "pads": (*node.pad, *node.pad),
            "ceil_mode": int(node.cover_all)}


#: Chainer's function -> ONNX's operator and its attributes.
OPERATORS = {
    "Convolution2DFunction": ("Conv", lambda n: {"strides": [n.sy, n.sx], "pads": _pads(n)}),
    "FixedBatchNormalization": ("BatchNormalization", lambda n: {"epsilon": n.eps}),
    "LinearFunction": ("Gemm", lambda n: {"transB": 1}),
    "MaxPoolingND": ("MaxPool", _max_pooling),
    "AveragePooling2D": ("AveragePool", lambda n: {
        "kernel_shape": [n.kh, n.kw], "strides": [n.sy, n.sx], "pads": _pads(n),
        "count_include_pad": 1}),
    "Reshape": ("Flatten", lambda n: {}),
    "ReLU": ("Relu", lambda n: {}),
    "Sigmoid": ("Sigmoid", lambda n: {}),
    "Add": ("Add", lambda n: {}),
}


def write(model, x, path):
    """Write what a model computes in test mode from images of the shape of `x`."""
    with chainer.using_config("train", False), chainer.no_backprop_mode(), Tape(x) as tape:
        y = model.logits(chainer.Variable(x))
    nodes, arrays = [], {}

    def name(value):
        if isinstance(value, int):
            return f"value{value}"
        arrays.setdefault(id(value), (f"array{len(arrays)}", value))
        return arrays[id(value)][0]

    for op in tape.ops:
        kind, attributes = OPERATORS[type(op.node).__name__]
        nodes.append(helper.make_node(kind, [*map(name, op.inputs)], [*map(name, op.outputs)],
                                      **attributes(op.node)))
    graph = helper.make_graph(
        nodes, type(model).__name__,
        [helper.make_tensor_value_info("value0", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info(name(tape.number(y.array)), TensorProto.FLOAT, y.shape)],
        [numpy_helper.from_array(np.ascontiguousarray(a), n) for n, a in arrays.values()])
    opset = [helper.make_opsetid("", 17)]
    path.write_bytes(helper.make_model(graph, opset_imports=opset, ir_version=8)
                     .SerializeToString())
