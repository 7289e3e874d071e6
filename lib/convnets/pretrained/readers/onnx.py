"""ONNX models: the tensors among the initialisers, and the nodes that use them.

The field numbers are used for writing, too, by `convnets.export`.
"""

from pathlib import PurePosixPath

import numpy as np

from ..errors import WeightsError
from . import protobuf
from .bounds import BFLOAT16, Budget, add, fill, native
from .protobuf import floats, integers, messages, parse, text, texts

# Field numbers of onnx.proto.
MODEL = {1: "ir_version", 2: "producer", 7: "graph", 8: "opset", 14: "metadata"}
OPSET = {1: "domain", 2: "version"}
GRAPH = {1: "node", 2: "name", 5: "initializer", 11: "input", 12: "output", 15: "sparse"}
NODE = {1: "input", 2: "output", 3: "name", 4: "op_type", 5: "attribute"}
ATTRIBUTE = {1: "name", 2: "float", 3: "int", 4: "string", 5: "tensor", 7: "floats", 8: "ints",
             20: "type"}
VALUE = {1: "name", 2: "type"}
TYPE = {1: "tensor"}
TENSOR_TYPE = {1: "data_type", 2: "shape"}
SHAPE = {1: "axis"}
AXIS = {1: "size", 2: "letter"}
TENSOR = {1: "dims", 2: "data_type", 3: "segment", 4: "float_data", 5: "int32_data",
          7: "int64_data", 8: "name", 9: "raw_data", 10: "double_data", 11: "uint64_data",
          13: "external", 14: "location"}
ENTRY = {1: "key", 2: "value"}
EXTERNAL = 1   # location: the numbers are in a file beside this one

# TensorProto.DataType: NumPy's type and the typed field that may hold it.
TYPES = {
    1: ("<f4", "float_data"), 11: ("<f8", "double_data"), 10: ("<f2", "int32_data"),
    16: (BFLOAT16, "int32_data"), 14: ("<c8", "float_data"), 15: ("<c16", "double_data"),
    2: ("u1", "int32_data"), 3: ("i1", "int32_data"), 4: ("<u2", "int32_data"),
    5: ("<i2", "int32_data"), 6: ("<i4", "int32_data"), 9: ("?", "int32_data"),
    7: ("<i8", "int64_data"), 12: ("<u4", "uint64_data"), 13: ("<u8", "uint64_data"),
}
FLOATS = {"float_data": "<f4", "double_data": "<f8"}


def read(path, budget):
    """Return the initialisers, and the tensors of Constant nodes, by name.

    Parameters
    ----------
    path : pathlib.Path
    budget : Budget

    Returns
    -------
    arrays : dict of str to ndarray
        bfloat16 as float32.
    details : dict
        ``nodes``: (op_type, name, input names, output names) in the graph's order;
        ``attributes``: of each node its numbers and texts by name; ``inputs`` and ``outputs``: the
        shape of each by name, where an axis of any size has its letter, or None; ``name``;
        ``producer``; ``opset``: version of each domain; ``metadata``: the file's own notes.
    """
    model = parse(memoryview(path.read_bytes()), MODEL)
    if len(model["graph"]) != 1:
        raise WeightsError(f"{len(model['graph'])} graphs; expected one")
    graph, = messages(model["graph"], GRAPH)
    if graph["sparse"]:
        raise WeightsError("sparse initialisers; expected dense ones")
    nodes = messages(graph["node"], NODE)
    tensors = [(text(t["name"]), t) for t in messages(graph["initializer"], TENSOR)]
    tensors += [constant for node in nodes for constant in _constants(node)]
    source = _Source(path, budget)
    arrays = {}
    for name, tensor in tensors:
        add(arrays, name, native(source.array(name, tensor)))
    opsets = messages(model["opset"], OPSET)
    return arrays, {
        "nodes": [_described(node) for node in nodes],
        "attributes": [_attributes(node) for node in nodes],
        "inputs": _shapes(graph["input"]), "outputs": _shapes(graph["output"]),
        "name": text(graph["name"]), "producer": text(model["producer"]),
        "metadata": {text(e["key"]): text(e["value"]) for e in messages(model["metadata"], ENTRY)},
        "opset": {text(o["domain"]): (integers(o["version"]) or [0])[-1] for o in opsets},
    }


def recognised(start):
    """Tell whether a file's fields are those of an ONNX model."""
    outline = protobuf.outline(start)   # ir_version is a number, a net's name is not
    return outline.get(1) == protobuf.VARINT and outline.get(7) == protobuf.LEN


def _constants(node):
    """Yield a Constant node's tensor, under the name of what it puts out."""
    if text(node["op_type"]) == "Constant":
        for attribute in messages(node["attribute"], ATTRIBUTE):
            for tensor in messages(attribute["tensor"], TENSOR):
                yield text(node["output"]), tensor


def _described(node):
    return (text(node["op_type"]), text(node["name"]), texts(node["input"]), texts(node["output"]))


# AttributeProto.AttributeType: the field that has the value, and how it is read.
ATTRIBUTES = {
    1: ("float", lambda values: float(floats(values)[-1])),
    2: ("int", lambda values: integers(values)[-1]), 3: ("string", text),
    6: ("floats", lambda values: floats(values).tolist()), 7: ("ints", integers),
}


def _attributes(node):
    """Return a node's numbers and texts by name; tensors and graphs are left out."""
    found = {}
    for attribute in messages(node["attribute"], ATTRIBUTE):
        (kind,) = integers(attribute["type"])[-1:] or [0]
        if kind in ATTRIBUTES:
            field, value = ATTRIBUTES[kind]
            found[text(attribute["name"])] = value(attribute[field])
    return found


def _shapes(values):
    """Return the shapes of a graph's inputs or outputs by name; None for what is no tensor."""
    found = {}
    for value in messages(values, VALUE):
        found[text(value["name"])] = None
        for kind in messages(value["type"], TYPE):
            for tensor in messages(kind["tensor"], TENSOR_TYPE):
                axes = [axis for shape in messages(tensor["shape"], SHAPE)
                        for axis in messages(shape["axis"], AXIS)]
                found[text(value["name"])] = tuple(map(_axis, axes))
    return found


def _axis(axis):
    return integers(axis["size"])[-1] if axis["size"] else text(axis["letter"])


class _Source:
    """Where the numbers of a model's tensors are taken from."""

    def __init__(self, path, budget):
        self.path = path
        self.budget = budget
        self.beside = {}   # budgets of the files beside the model

    def array(self, name, tensor):
        """Return a tensor's numbers, from whichever field has them."""
        (kind,) = integers(tensor["data_type"])[-1:] or [0]
        shape = integers(tensor["dims"])
        if kind not in TYPES or tensor["segment"]:
            raise WeightsError(f"{name!r} is of ONNX type {kind}; expected numbers, in one piece")
        dtype, typed = TYPES[kind]
        if integers(tensor["location"])[-1:] == [EXTERNAL]:
            return self.external(name, tensor, shape, dtype)
        self.budget.take(shape, dtype, name)
        if tensor["raw_data"]:
            numbers = floats(tensor["raw_data"][-1:], dtype)
        elif typed in FLOATS:
            numbers = floats(tensor[typed], FLOATS[typed]).view(dtype)
        else:
            numbers = _whole_numbers(integers(tensor[typed]), dtype)
        return _shaped(numbers, shape, name)

    def external(self, name, tensor, shape, dtype):
        entries = {text(e["key"]): text(e["value"]) for e in messages(tensor["external"], ENTRY)}
        place = self.place(name, entries.get("location", ""))
        size = place.stat().st_size
        budget = self.beside.setdefault(place, Budget(min(self.budget.limit, 2 * size)))
        array = budget.empty(shape, dtype, name)
        if int(entries.get("length", array.nbytes)) != array.nbytes:
            raise WeightsError(f"{name!r} of shape {tuple(shape)} needs {array.nbytes:,} bytes, "
                               f"{entries['length']} are announced")
        with place.open("rb") as file:
            file.seek(int(entries.get("offset", 0)))
            return fill(array, file, name)

    def place(self, name, location):
        """Return the path of a data file, which must lie in the model's folder or below."""
        folder = self.path.parent.resolve()
        place = (folder / location).resolve()
        parts = PurePosixPath(location.replace("\\", "/")).parts
        if ".." in parts or location.startswith("/") or not place.is_relative_to(folder):
            raise WeightsError(f"{name!r} points to {location!r}, outside of the model's folder; "
                               f"it was not opened")
        if not place.is_file():
            raise WeightsError(f"{name!r} is kept in {location!r}: put that file beside the model")
        return place


def _whole_numbers(numbers, dtype):
    """Turn the numbers of an integer field into an array; 16-bit floats are stored as bits."""
    dtype = np.dtype(dtype)
    if dtype.kind in "fV":
        return np.array(numbers, "<u2").view(dtype)
    if dtype.kind == "u":   # those above 2**63 came as negative
        return np.array([n % (1 << 64) for n in numbers], "<u8").astype(dtype)
    return np.array(numbers, "<i8").astype(dtype)


def _shaped(numbers, shape, name):
    if numbers.size != np.prod(shape, dtype=object):
        raise WeightsError(f"{name!r} of shape {tuple(shape)} has {numbers.size:,} numbers; fetch "
                           f"or copy it again")
    return numbers.reshape(shape)
