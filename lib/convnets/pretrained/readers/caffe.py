"""Caffe's ``.caffemodel``: layers with their blobs, in all three generations of the format."""

import math

from ..errors import WeightsError
from . import protobuf
from .bounds import add, native
from .protobuf import floats, integers, messages, parse, text

# Field numbers of caffe.proto. The second and first generation share the field of the net;
# the first wraps each layer once more.
NET = {1: "name", 2: "layers", 100: "layer"}
LAYER = {1: "name", 2: "type", 7: "blobs"}
LAYER_V1 = {1: "v0", 4: "name", 5: "type", 6: "blobs"}
LAYER_V0 = {1: "name", 2: "type", 50: "blobs"}
BLOB = {1: "num", 2: "channels", 3: "height", 4: "width", 5: "data", 7: "shape", 8: "double_data"}
SHAPE = {1: "dim"}
LEGACY = ("num", "channels", "height", "width")

# Older names of the layer types; those that are not here have no blobs in a VGG or ResNet.
TYPES = {
    3: "Concat", 4: "Convolution", 5: "Data", 6: "Dropout", 8: "Flatten", 14: "InnerProduct",
    15: "LRN", 17: "Pooling", 18: "ReLU", 20: "Softmax", 21: "SoftmaxWithLoss", 22: "Split",
    25: "Eltwise", 39: "Deconvolution",
    "conv": "Convolution", "innerproduct": "InnerProduct", "relu": "ReLU", "pool": "Pooling",
    "dropout": "Dropout", "softmax": "Softmax", "lrn": "LRN", "concat": "Concat", "data": "Data",
}
# How many sizes a blob has by its layer's type: weights, then bias. Old files always store four.
RANKS = {"InnerProduct": (2, 1), "Convolution": (4, 1), "Deconvolution": (4, 1)}


def read(path, budget):
    """Return the blobs as ``'<layer>/<index>'``.

    Parameters
    ----------
    path : pathlib.Path
    budget : Budget

    Returns
    -------
    arrays : dict of str to ndarray
        float32, or float64 where the file has that.
    details : dict
        ``name`` of the net; ``types``: the type of each layer, by today's name.
    """
    net = parse(memoryview(path.read_bytes()), NET)
    arrays, types = {}, {}
    for layer in _layers(net):
        name, kind = text(layer["name"]), _type(layer["type"])
        types[name] = kind
        for index, blob in enumerate(messages(layer["blobs"], BLOB)):
            key = f"{name}/{index}"
            add(arrays, key, _array(blob, key, RANKS.get(kind, ())[index : index + 1], budget))
    return arrays, {"name": text(net["name"]), "types": types}


def recognised(start):
    """Tell whether a file's fields are those of a Caffe net."""
    outline = protobuf.outline(start)
    lengths = {number for number, wire in outline.items() if wire == protobuf.LEN}
    return outline.get(1, protobuf.LEN) == protobuf.LEN and bool(lengths & {2, 100})


def _layers(net):
    old = messages(net["layers"], LAYER_V1)
    inner = [messages(layer["v0"], LAYER_V0)[-1] if layer["v0"] else layer for layer in old]
    return inner + messages(net["layer"], LAYER)


def _type(values):
    """Return a layer's type as today's text; the second generation has numbers."""
    number = bool(values) and isinstance(values[-1], int)
    value = values[-1] if number else text(values)
    return TYPES.get(value, str(value))


def _array(blob, key, rank, budget):
    double = bool(blob["double_data"])
    shape = _shape(blob, key, rank)
    budget.take(shape, "<f8" if double else "<f4", key)
    numbers = floats(blob["double_data"], "<f8") if double else floats(blob["data"])
    if numbers.size != math.prod(shape):
        raise WeightsError(f"{key!r} of shape {tuple(shape)} has {numbers.size:,} numbers; fetch "
                           f"or copy it again")
    return native(numbers.reshape(shape))


def _shape(blob, key, rank):
    """Return a blob's shape, without leading ones where the type says how many sizes it has."""
    if blob["shape"]:
        shape = integers(messages(blob["shape"], SHAPE)[-1]["dim"])
    else:
        shape = [(integers(blob[name]) or [1])[-1] for name in LEGACY]
    extra = max(len(shape) - rank[0], 0) if rank else 0
    if shape[:extra] != [1] * extra:
        raise WeightsError(f"{key!r} has the shape {tuple(shape)}; expected {rank[0]} sizes")
    return shape[extra:]
