"""What a model is made of: shapes, parameters, multiply-adds, memory, graph."""

import copy
import html
import math
from dataclasses import asdict, dataclass, replace

import chainer
import numpy as np
from chainer.functions.connection.convolution_2d import Convolution2DFunction
from chainer.functions.connection.linear import LinearFunction
from chainer.utils.conv import get_conv_outsize

# Multiply-adds from the function's label and the shapes of input x, weight W and output y.
# W is (C_out, C_in / groups, kh, kw), and (C_in, C_out / groups, kh, kw) for deconvolution.
MACS = {
    "Convolution2DFunction": lambda x, w, y: math.prod(y) * math.prod(w[1:]),
    "Deconvolution2DFunction": lambda x, w, y: math.prod(x) * math.prod(w[1:]),
    "LinearFunction": lambda x, w, y: math.prod(y) * w[1],
}

KINDS = {
    "Convolution2DFunction": "convolution",
    "Deconvolution2DFunction": "deconvolution",
    "LinearFunction": "linear",
    "MaxPoolingND": "max pooling",
    "AveragePoolingND": "average pooling",
    "MaxPooling2D": "max pooling",
    "AveragePooling2D": "average pooling",
    "BatchNormalization": "batch normalization",
    "FixedBatchNormalization": "batch normalization",
    "Sigmoid": "sigmoid",
    "ReLU": "relu",
    "_ + _": "sum",
    "Concat": "concatenation",
    "GetItem": "slice",
    "Reshape": "reshape",
}

VIEWS = {"Reshape"}  # take no arithmetic and no memory of their own


@dataclass(frozen=True)
class Row:
    """One layer: a function call that computed something.

    Attributes
    ----------
    name : str
        The link that holds its parameters, or the empty string.
    kind : str
        What it does.
    in_shape, out_shape : tuple of int
        (N, C, H, W) or (N, C).
    params : int
        Parameters it uses, counted where they are first used.
    macs : int
        Multiply-adds of convolutions and linear layers, for all N images.
    activation_bytes : int
        Size of its output.
    kept_bytes : int
        What Chainer keeps of it until backward, parameters aside: outputs, masks and indices
        that a gradient needs. The first layer's count includes the input, if it is kept.
    """

    name: str
    kind: str
    in_shape: tuple
    out_shape: tuple
    params: int
    macs: int
    activation_bytes: int
    kept_bytes: int


@dataclass(frozen=True)
class Summary:
    """The rows of a model and their totals; prints as a table, in notebooks too.

    Attributes
    ----------
    model : str
        Name of the model's class.
    rows : list of Row
        In the order of computation.
    """

    model: str
    rows: list

    @property
    def params(self):
        """Number of parameters, an int."""
        return sum(row.params for row in self.rows)

    @property
    def macs(self):
        """Number of multiply-adds in one forward pass of all N images, an int."""
        return sum(row.macs for row in self.rows)

    @property
    def activation_bytes(self):
        """Sum of the sizes of all outputs, in bytes, an int."""
        return sum(row.activation_bytes for row in self.rows)

    @property
    def kept_bytes(self):
        """Bytes that a forward pass in train mode leaves for backward, parameters aside, an int.

        It is what training needs beyond parameters, their gradients and the optimizer's state,
        but for what a single step of the computation takes and gives back.
        """
        return sum(row.kept_bytes for row in self.rows)

    def as_dicts(self):
        """Return the rows as dictionaries."""
        return [asdict(row) for row in self.rows]

    def _cells(self):
        for r in self.rows:
            yield (r.name or "-", r.kind, " x ".join(map(str, r.out_shape)),
                   f"{r.params:,}", f"{r.macs:,}", f"{r.activation_bytes:,}")

    def _total(self):
        return ("total", "", "", f"{self.params:,}", f"{self.macs:,}",
                f"{self.activation_bytes:,}")

    def __str__(self):
        table = [HEADER, *self._cells(), self._total()]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = ["  ".join(cell.ljust(w) if i < 3 else cell.rjust(w)
                           for i, (cell, w) in enumerate(zip(row, widths, strict=True))).rstrip()
                 for row in table]
        rule = "-" * max(map(len, lines))
        return "\n".join([f"{self.model}", *lines[:1], rule, *lines[1:-1], rule, lines[-1]])

    __repr__ = __str__

    def _repr_html_(self):
        def cell(text, tag, style):
            tag = tag if text else "td"  # an empty header has nothing to announce
            return f'<{tag} style="{style}">{html.escape(text)}</{tag}>'

        def line(cells, tag):
            one_line = "white-space: nowrap; " if tag == "td" else ""
            styles = [f"{one_line}padding: .25em .6em; text-align: {side}"
                      for side in ["left"] * 3 + ["right"] * 3]
            return "<tr>" + "".join(map(cell, cells, [tag] * 6, styles)) + "</tr>"

        body = "\n".join(line(cells, "td") for cells in self._cells())
        return (f'<table class="cv-summary" style="font-size: .92em">\n'
                f'<caption style="color: inherit">{html.escape(self.model)}</caption>\n'
                f"<thead>{line(HEADER, 'th')}</thead>\n<tbody>\n{body}\n</tbody>\n"
                f"<tfoot>{line(self._total(), 'th')}</tfoot>\n</table>")


HEADER = ("layer", "kind", "output (N, C, H, W)", "parameters", "multiply-adds",
          "activation bytes")


def summary(model, shape):
    """Return what every layer of a model does to images of one shape.

    One forward pass in train mode of a copy of the model; the model itself,
    its lazy parameters and the random state stay as they are.

    Parameters
    ----------
    model : chainer.Link
        Called through its ``logits`` where it has them, else as it is.
    shape : tuple of int
        (N, C, H, W), or (C, H, W) for a single image.

    Returns
    -------
    Summary

    Raises
    ------
    ValueError
        If `shape` does not have three or four axes.
    """
    twin, y = _trace(model, shape)
    return Summary(type(model).__name__, _rows(y, twin))


def receptive_fields(model, shape):
    """Return how many input pixels, in height, one value behind each layer depends on.

    Parameters
    ----------
    model : chainer.Link
        Called through its ``logits`` where it has them, else as it is.
    shape : tuple of int
        (N, C, H, W), or (C, H, W) for a single image.

    Returns
    -------
    list of (str, str, int, int)
        For each convolution and pooling, in the order of computation: the link's name or the
        empty string, the kind, the receptive field and the distance of two neighbours' fields,
        both in input pixels. Padding is not cut off, so a field may be larger than the image.
        Where branches meet, the larger field counts.

    Raises
    ------
    ValueError
        If `shape` does not have three or four axes.
    """
    twin, y = _trace(model, shape)
    owners = _owners(twin)
    fields, rows = {}, []              # id of a variable: (field, distance)
    for node in _functions(y):
        field, distance = max(fields.get(id(v), (1, 1)) for v in node.inputs
                               if id(v) not in owners)
        if (window := _window(node)) is not None:
            reach, stride = window
            field, distance = field + reach * distance, distance * stride
            name = _owner(node, owners)
            rows.append((name, KINDS.get(node.label, node.label), field, distance))
        fields.update((id(out()), (field, distance)) for out in node.outputs if out() is not None)
    return rows


@dataclass(frozen=True)
class Node:
    """One function call in a model's graph, or its input.

    Attributes
    ----------
    name : str
        The link that holds its parameters, or the empty string.
    kind : str
        What it does, with kernel and stride where it has a window.
    shape : tuple of int
        Of its output: (N, C, H, W) or (N, C).
    sources : tuple of int
        Positions in the list of the nodes that it reads.
    """

    name: str
    kind: str
    shape: tuple
    sources: tuple


def graph(model, shape):
    """Return what a model computes from what, function by function.

    Parameters
    ----------
    model : chainer.Link
        Called through its ``logits`` where it has them, else as it is.
    shape : tuple of int
        (N, C, H, W), or (C, H, W) for a single image.

    Returns
    -------
    list of Node
        The input first, then every function in the order of computation. `figures.graph`
        draws it.

    Raises
    ------
    ValueError
        If `shape` does not have three or four axes.
    """
    twin, y = _trace(model, shape)
    owners = _owners(twin)
    found = [Node("", "input", tuple(shape), ())]
    place = {}                         # id of a variable: position of the function that made it
    for node in _functions(y):
        sources = {place.get(id(v), 0) for v in node.inputs if id(v) not in owners}
        outputs = [out() for out in node.outputs if out() is not None]
        place.update((id(out), len(found)) for out in outputs)
        name = _owner(node, owners)
        found.append(Node(name, _describe(node), outputs[0].shape, tuple(sorted(sources))))
    return found


def _describe(node):
    """Return the kind of a function, with kernel size and stride where it has them."""
    kind = KINDS.get(node.label, node.label)
    if (window := _window(node)) is None:
        return kind
    reach, stride = window
    return f"{reach + 1} x {reach + 1} {kind}" + (f", stride {stride}" if stride > 1 else "")


def _window(node):
    """Return (reach, stride) of a function with a sliding window, in height; else None."""
    if node.label == "Convolution2DFunction":
        return (node.inputs[1].shape[2] - 1) * node.dy, node.sy
    if node.label in ("MaxPooling2D", "AveragePooling2D"):
        return node.kh - 1, node.sy
    if node.label in ("MaxPoolingND", "AveragePoolingND"):
        return node.ksize[0] - 1, node.stride[0]
    return None


def _trace(model, shape):
    """Run a copy of the model in train mode on zeros; return the copy and its output.

    Shapes are all that is asked for, so convolutions and linear layers give zeros at once: the
    products of a ResNet-152 would take seconds, and a minute in the reader's browser.
    """
    if len(shape) not in (3, 4):
        raise ValueError(f"shape must be (N, C, H, W) or (C, H, W), got {tuple(shape)}")
    x = np.zeros(shape if len(shape) == 4 else (1, *shape), np.float32)
    twin = copy.deepcopy(model)
    state = np.random.get_state()
    try:
        with chainer.using_config("train", True), chainer.using_config("enable_backprop", True), \
                _WithoutProducts():
            return twin, getattr(twin, "logits", twin)(twin.device.send(x))
    finally:
        np.random.set_state(state)


def _convolved(function, x, w):
    """Shape (N, C, H, W) of a convolution's output."""
    sizes = [get_conv_outsize(size, k, s, p, function.cover_all, d) for size, k, s, p, d in zip(
        x[2:], w[2:], (function.sy, function.sx), (function.ph, function.pw),
        (function.dy, function.dx), strict=True)]
    return x[0], w[0], *sizes


# Functions whose products are left out, with the shape of their output.
PRODUCTS = {
    Convolution2DFunction: _convolved,
    LinearFunction: lambda _, x, w: (x[0], w[0]),
}


class _WithoutProducts(chainer.FunctionHook):
    """Lets functions of PRODUCTS give zeros, on the CPU, and keep what they would keep."""

    name = "without products"

    def forward_preprocess(self, function, in_data):
        shape = PRODUCTS.get(type(function))
        is_on_cpu = isinstance(in_data[0], np.ndarray)
        if shape is None or not is_on_cpu or getattr(function, "groups", 1) > 1:
            return

        def forward(inputs):
            function.retain_inputs((0, 1))
            x, w = inputs[:2]
            return np.zeros(shape(function, x.shape, w.shape), x.dtype),

        function.forward = forward

    def forward_postprocess(self, function, in_data):
        vars(function).pop("forward", None)


def _owners(model):
    """Return the path of the link that holds each parameter, by the id of its graph node."""
    return {id(p.node): path.rsplit("/", 1)[0].lstrip("/") for path, p in model.namedparams()}


def _owner(node, owners):
    """Return the path of the link whose parameters a function takes, "" if it takes none."""
    return next((owners[id(v)] for v in node.inputs if id(v) in owners), "")


def _rows(y, model):
    owners = _owners(model)
    seen = set()
    held = _Held(model)
    rows = []
    for node in _functions(y):
        kept = held.count(node)
        if node.label in VIEWS:
            if rows and kept:   # the view is what holds on to the output of the layer before
                rows[-1] = replace(rows[-1], kept_bytes=rows[-1].kept_bytes + kept)
            continue
        output = next(out() for out in node.outputs if out() is not None)
        params = [v for v in node.inputs if id(v) in owners]
        fresh = [v for v in params if id(v) not in seen]
        seen.update(map(id, fresh))
        shapes = [v.shape for v in node.inputs[:2]]
        count = MACS.get(node.label)
        rows.append(Row(
            name=_owner(node, owners),
            kind=KINDS.get(node.label, node.label),
            in_shape=shapes[0], out_shape=output.shape,
            params=sum(math.prod(v.shape) for v in fresh),
            macs=count(*shapes, output.shape) if count else 0,
            activation_bytes=math.prod(output.shape) * output.dtype.itemsize,
            kept_bytes=kept))
    return rows


class _Held:
    """Counts the memory that function nodes hold, each buffer once and the model's own never."""

    def __init__(self, model):
        own = [p.array for p in model.params()]
        own += [value for link in model.links() for value in vars(link).values()]
        self.seen = {id(_buffer(array)) for array in own if _is_array(array)}

    def count(self, node):
        """Return the bytes of all buffers that are met for the first time at this node."""
        outputs = [out() for out in node.outputs if out() is not None]
        found = [v.data for v in (*node.inputs, *outputs)]
        for value in vars(node).values():  # masks, indices, retained outputs
            found += value if isinstance(value, (list, tuple)) else [value]
        buffers = {id(b): b for b in map(_buffer, filter(_is_array, found))}
        fresh = buffers.keys() - self.seen
        self.seen |= fresh
        return sum(buffers[key].nbytes for key in fresh)


def _is_array(value):
    return isinstance(value, chainer.get_array_types())


def _buffer(array):
    """Return the array that owns the memory of a view; a view keeps all of it."""
    while _is_array(array.base):
        array = array.base
    return array


def _functions(y):
    """Return the function nodes that led to y, in the order of computation."""
    found, waiting = {}, [y.creator_node]
    while waiting:
        node = waiting.pop()
        if node is None or id(node) in found:
            continue
        found[id(node)] = node
        waiting += [v.creator_node for v in node.inputs]
    return sorted(found.values(), key=lambda node: node.rank)
