"""ONNX files, written and read without the package onnx.

The format: https://github.com/onnx/onnx/blob/main/docs/IR.md. A model is a graph; a graph is nodes
in an order in which they can be computed, arrays by name (the initialisers), and the names and
shapes of what goes in and what comes out. A node is an operator, such as Conv, with attributes.
"""

import struct
from dataclasses import dataclass, field

import numpy as np

from ..pretrained.errors import WeightsError
from ..pretrained.readers import onnx as schema
from ..pretrained.readers import read as read_weights
from .errors import ExportError
from .protobuf import four_bytes, integer, message, size, text

#: The version of the operators: since 2021, and read by all that runs ONNX today.
OPSET = 17
IR_VERSION = 8      # of the format itself; goes with that opset
LIMIT = 2**31 - 1   # bytes: protobuf counts no further
PRODUCER = "convnets"

FLOAT, INT, STRING, FLOATS, INTS = 1, 2, 3, 6, 7      # AttributeProto.AttributeType
TYPES = {"float32": 1, "int64": 7}                    # TensorProto.DataType, of what is written


@dataclass
class Node:
    """One operation of a graph.

    Attributes
    ----------
    op : str
        The operator, such as Conv.
    name : str
    inputs, outputs : list of str
        Names of values; an input may also be the name of an array of the graph.
    attributes : dict
        Numbers, texts and lists of numbers, by name.
    """

    op: str
    name: str
    inputs: list
    outputs: list
    attributes: dict = field(default_factory=dict)


@dataclass
class Graph:
    """What an ONNX file holds.

    Attributes
    ----------
    nodes : list of Node
        Each after those whose outputs it reads.
    arrays : dict of str to ndarray
        float32, or int64 for shapes and positions.
    inputs, outputs : dict of str to tuple
        Shapes; an axis of any size is a letter.
    name : str
    opset : int
    producer : str
    metadata : dict of str to str
        The file's own notes.
    """

    nodes: list
    arrays: dict
    inputs: dict
    outputs: dict
    name: str = "model"
    opset: int = OPSET
    producer: str = PRODUCER
    metadata: dict = field(default_factory=dict)


def read(path):
    """Return the graph in an ONNX file.

    Parameters
    ----------
    path : path

    Returns
    -------
    Graph

    Raises
    ------
    ExportError
        If it is no ONNX file, or a damaged one.
    """
    try:
        file = read_weights(path)
    except WeightsError as e:
        raise ExportError(str(e)) from e
    if file.format != "onnx":
        raise ExportError(f"{path} is a file of format {file.format}; expected ONNX")
    found = file.details
    nodes = [Node(op, name, inputs, outputs, attributes) for (op, name, inputs, outputs), attributes
             in zip(found["nodes"], found["attributes"], strict=True)]
    inputs = {name: shape for name, shape in found["inputs"].items() if name not in file.arrays}
    return Graph(nodes, file.arrays, inputs, found["outputs"], found["name"],
                 found["opset"].get("", 0), found["producer"], found["metadata"])


def write(file, graph):
    """Write a graph to a binary file.

    Raises
    ------
    ExportError
        If it has more bytes than an ONNX file can.
    """
    pieces = encoded(graph)
    if size(pieces) > LIMIT:
        raise ExportError(f"{graph.name} would be an ONNX file of {size(pieces):,} bytes, the "
                          f"format allows {LIMIT:,}: export it in two parts, or its weights alone "
                          f"as .safetensors")
    file.writelines(pieces)


def encoded(graph):
    """Return a graph as the bytes of a model, in pieces."""
    body = []
    for node in graph.nodes:
        body += _message(schema.GRAPH, "node", _node(node))
    body += _text(schema.GRAPH, "name", graph.name)
    for name, array in graph.arrays.items():
        body += _message(schema.GRAPH, "initializer", _tensor(name, array))
    for kind, values in (("input", graph.inputs), ("output", graph.outputs)):
        for name, shape in values.items():
            body += _message(schema.GRAPH, kind, _value(name, shape))
    opset = _integer(schema.OPSET, "version", graph.opset)
    notes = [_text(schema.ENTRY, "key", key) + _text(schema.ENTRY, "value", value)
             for key, value in graph.metadata.items()]
    return [*_integer(schema.MODEL, "ir_version", IR_VERSION),
            *_text(schema.MODEL, "producer", graph.producer),
            *_message(schema.MODEL, "graph", body), *_message(schema.MODEL, "opset", opset),
            *(piece for note in notes for piece in _message(schema.MODEL, "metadata", note))]


def _node(node):
    pieces = [piece for kind, names in (("input", node.inputs), ("output", node.outputs))
              for name in names for piece in _text(schema.NODE, kind, name)]
    pieces += _text(schema.NODE, "name", node.name) + _text(schema.NODE, "op_type", node.op)
    for name, value in node.attributes.items():
        pieces += _message(schema.NODE, "attribute", _attribute(name, value))
    return pieces


def _attribute(name, value):
    pieces, fields = _text(schema.ATTRIBUTE, "name", name), schema.ATTRIBUTE
    if isinstance(value, str):
        kind, found = STRING, _text(fields, "string", value)
    elif isinstance(value, float):
        kind, found = FLOAT, _float(fields, "float", value)
    elif isinstance(value, int):
        kind, found = INT, _integer(fields, "int", value)
    elif any(isinstance(v, float) for v in value):
        kind, found = FLOATS, [piece for v in value for piece in _float(fields, "floats", v)]
    else:
        kind, found = INTS, [piece for v in value for piece in _integer(fields, "ints", int(v))]
    return pieces + found + _integer(fields, "type", kind)


def _tensor(name, array):
    numbers = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1)
    return [*(piece for n in array.shape for piece in _integer(schema.TENSOR, "dims", n)),
            *_integer(schema.TENSOR, "data_type", TYPES[array.dtype.name]),
            *_text(schema.TENSOR, "name", name),
            *_message(schema.TENSOR, "raw_data", [memoryview(numbers.view(np.uint8))])]


def _value(name, shape):
    axes = []
    for axis in shape:
        is_letter = isinstance(axis, str)
        axes += _message(schema.SHAPE, "axis", _text(schema.AXIS, "letter", axis) if is_letter
                         else _integer(schema.AXIS, "size", axis))
    tensor = (_integer(schema.TENSOR_TYPE, "data_type", TYPES["float32"])
              + _message(schema.TENSOR_TYPE, "shape", axes))
    kind = _message(schema.TYPE, "tensor", tensor)
    return _text(schema.VALUE, "name", name) + _message(schema.VALUE, "type", kind)


def _number(fields, name):
    """Return a field's number in the reader's table."""
    return next(number for number, known in fields.items() if known == name)


def _integer(fields, name, value):
    return integer(_number(fields, name), value)


def _float(fields, name, value):
    return four_bytes(_number(fields, name), struct.pack("<f", value))


def _text(fields, name, value):
    return text(_number(fields, name), value)


def _message(fields, name, pieces):
    return message(_number(fields, name), pieces)
