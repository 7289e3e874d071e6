"""What a model computes, as a graph: it is run on two batches, and its functions are written down.

A trace sees calls and no program: of an ``if`` one way, of a loop its rounds, of ``x.shape[0]`` a
number. Two runs with other images, two of one and three of the other, show what is no constant.
"""

from collections import Counter

import chainer
import numpy as np
from chainer import backend
from chainer.backends import cuda

from ..optimize import Tape
from .errors import ExportError
from .onnx_file import Graph, Node
from .operators import BROADCASTING, NUMBER_FIRST, OPERATORS, Unfit, known

#: The names of what goes in and what comes out, and the letter of the batch axis.
INPUT, OUTPUT, BATCH = "images", "scores", "N"


def graph_of(model, x, call, fixed=False):
    """Return the graph of a model in test mode.

    Parameters
    ----------
    model : chainer.Link
        Whose parameters have arrays.
    x : array, shape (N, C, H, W)
        Images of which the two batches are made.
    call : callable
        From images to the output.
    fixed : bool
        Run once, on `x`: the graph holds for this number of images.

    Returns
    -------
    Graph

    Raises
    ------
    ExportError
        As `convnets.export.onnx`.
    """
    names = names_of(model)
    if fixed:
        nodes, _, y = lowered(model, x, call)
        shape = y.shape
    else:
        two, three = batches(x)
        first, second = lowered(model, two, call), lowered(model, three, call)
        nodes = merged(first, second)
        shape = first[2].shape
        if shape[:1] != (2,) or second[2].shape != (3, *shape[1:]):
            raise ExportError(f"outputs of shape {shape} for 2 images and {second[2].shape} for 3: "
                              f"expected one row for each image")
    letter = len(x) if fixed else BATCH
    return Graph(*with_arrays(nodes, names), {INPUT: (letter, *x.shape[1:])},
                 {OUTPUT: (letter, *shape[1:])}, name=type(model).__name__)


def batches(x):
    """Return two images and three others, of the same range of values."""
    xp = backend.get_array_module(x)
    take = xp.arange(3) % len(x)
    return x[take[:2]], (x.max() + x.min() - x)[take[::-1]]


def names_of(model):
    """Return the path of each array of a model by its id: parameters, and averages."""
    found = {}
    for path, link in model.namedlinks():
        for name in (*link._params, *link._persistent):
            value = getattr(link, name)
            array = value.array if isinstance(value, chainer.Parameter) else value
            found.setdefault(id(array), f"{path}/{name}".lstrip("/"))
    return found


class Places(chainer.LinkHook):
    """Knows in which link of a model the program is.

    Parameters
    ----------
    model : chainer.Link
    """

    name = "Places"

    def __init__(self, model):
        self._paths = {id(link): path.lstrip("/") for path, link in model.namedlinks()}
        self._stack = [""]

    @property
    def here(self):
        """The path of the innermost link, a str."""
        return self._stack[-1]

    def forward_preprocess(self, args):
        """Enter a link."""
        self._stack.append(self._paths.get(id(args.link), self.here))

    def forward_postprocess(self, args):
        """Leave a link."""
        self._stack.pop()


class PlacedTape(Tape):
    """A tape that also keeps the place of each function.

    Parameters
    ----------
    x : array
    places : Places
    """

    def __init__(self, x, places):
        super().__init__(x)
        self._links, self.places = places, []

    def forward_postprocess(self, function, in_data):
        """Keep where the function was called."""
        super().forward_postprocess(function, in_data)
        self.places.append(self._links.here)


def lowered(model, x, call):
    """Run a model once and return what it computes in terms of ONNX.

    Returns
    -------
    nodes : list of Node
        Their inputs are names, or arrays where the model has computed with a constant.
    shapes : dict
        Of all values by name.
    output : array
    """
    places = Places(model)
    with chainer.using_config("train", False), chainer.using_config("use_ideep", "never"), \
            chainer.no_backprop_mode(), places, PlacedTape(x, places) as tape:
        y = call(chainer.Variable(x))
    if not isinstance(y, chainer.Variable):
        raise ExportError(f"expected one chainer.Variable as the output, got {type(y).__name__}; "
                          f"give call=, a function that returns one")
    names, shapes, nodes, counts = {0: INPUT}, {INPUT: x.shape}, [], Counter()
    result = tape.number(y.array)
    if not result:
        raise ExportError("the output is not what a function of Chainer has returned for these "
                          "images: what NumPy computes leaves no trace")
    for op, place in zip(tape.ops, tape.places, strict=True):
        node = _node(op, place, names, shapes)
        counts[node.name] += 1
        if counts[node.name] > 1:
            node.name += f"_{counts[node.name]}"
        for i, (number, shape) in enumerate(zip(op.outputs, op.shapes, strict=True)):
            names[number] = (OUTPUT if number == result else
                             f"{node.name}:{i}" if i else node.name)
            shapes[names[number]] = shape
        node.outputs = [names[number] for number in op.outputs]
        nodes.append(node)
    return needed(nodes), shapes, y.array


def _node(op, place, names, shapes):
    where = f"{op.node.label} in {place or 'the model itself'}"
    inputs = [names[x] if isinstance(x, int) else x for x in op.inputs]
    if type(op.node) not in OPERATORS:
        raise ExportError(f"{where} cannot be written as ONNX; known are {', '.join(known())}. "
                          f"Compute the same by these, or export a part of the model by call=")
    if any(dtype != np.float32 for dtype in op.dtypes):
        raise ExportError(f"{where} returns {op.dtypes[0]}; only float32 is written: make the "
                          f"model under chainer.config.dtype = 'float32' and load its weights")
    try:
        kind, attributes, *more = OPERATORS[type(op.node)](
            op.node, [shapes[x] if isinstance(x, str) else x.shape for x in inputs], op.shapes)
    except Unfit as e:
        raise ExportError(f"{where} {e}") from e
    inputs = [*more, *inputs] if type(op.node) in NUMBER_FIRST else [*inputs, *more]
    return Node(kind, f"{place}/{kind}".lstrip("/"), inputs, [], attributes)


def needed(nodes):
    """Return the nodes on which the output depends."""
    wanted, kept = {OUTPUT}, []
    for node in reversed(nodes):
        if wanted.intersection(node.outputs):
            wanted.update(x for x in node.inputs if isinstance(x, str))
            kept.append(node)
    return kept[::-1]


def merged(first, second):
    """Return the nodes of two runs as one list that holds for any number of images.

    Parameters
    ----------
    first, second : tuple
        Of `lowered`.
    """
    nodes, shapes, _ = first
    others, other_shapes, _ = second
    if [(n.op, n.name, n.outputs) for n in nodes] != [(n.op, n.name, n.outputs) for n in others]:
        raise ExportError("the model has gone another way for other images: an if or a loop "
                          "depends on them or on their number. A trace sees one way only; export "
                          "the ways one by one, by call=")
    for node, other in zip(nodes, others, strict=True):
        if node.attributes != other.attributes:
            raise ExportError(f"{node.name} has {node.attributes} for 2 images and "
                              f"{other.attributes} for 3: its options depend on the images")
        for i, (a, b) in enumerate(zip(node.inputs, other.inputs, strict=True)):
            if isinstance(a, str) and a == b:
                continue
            if isinstance(a, str) or isinstance(b, str):
                raise ExportError(f"{node.name} reads another value for other images")
            node.inputs[i] = _constant(node, a, b, shapes, other_shapes)
        if any(isinstance(x, Zeros) for x in node.inputs):
            _pad(node, shapes)
    return nodes


class Zeros:
    """Maps of zeros for each image, which are concatenated with others: padding.

    Parameters
    ----------
    n : int
        How many along the axis of the concatenation.
    """

    def __init__(self, n):
        self.n = n


def _constant(node, a, b, shapes, other_shapes):
    """Return what stands for the constant `a` of two images and `b` of three."""
    if a is b or (a.shape == b.shape and _equal(a, b)):
        return a
    if a.dtype == np.int64 and node.op in ("Reshape", "Expand"):
        return _shape(node, a, b, shapes, other_shapes)
    if (a.shape[:1], b.shape[:1]) == ((2,), (3,)) and a.shape[1:] == b.shape[1:]:
        rows_are_one = _equal(a, a[:1]) and _equal(b, a[:1])
        if rows_are_one and node.op in BROADCASTING:
            return a[:1]
        if rows_are_one and node.op == "Concat" and node.attributes["axis"] and not a.any():
            return Zeros(a.shape[node.attributes["axis"]])
    what = (f"of shape {a.shape} for 2 images, and of {b.shape} for 3" if a.shape != b.shape else
            f"{_brief(a)} for some images, and {_brief(b)} for others")
    raise ExportError(f"{node.name} reads an array that is no constant: it is {what}. NumPy made "
                      f"it from the images or their number; let functions of Chainer do it")


def _shape(node, a, b, shapes, other_shapes):
    """Return the shape that a Reshape or Expand is to give, free in the axis of the images."""
    free = [i for i, (p, q) in enumerate(zip(a, b, strict=True)) if p != q]
    source, other = shapes[node.inputs[0]], other_shapes[node.inputs[0]]
    if node.op == "Expand":     # 1 stands for the size that is there
        if len(source) == len(a) and all((source[i], other[i]) == (a[i], b[i]) for i in free):
            return np.where(a == b, a, 1)
    elif len(free) < 2:
        return np.where(a == b, a, -1)
    raise ExportError(f"{node.name} gives the shape {tuple(a)} for 2 images and {tuple(b)} for 3, "
                      f"which no rule of ONNX says: keep the images in an axis of their own")


def _pad(node, shapes):
    """Make a concatenation with zeros a padding."""
    axis, zeros = node.attributes["axis"], [isinstance(x, Zeros) for x in node.inputs]
    if sum(zeros) != len(zeros) - 1:
        raise ExportError(f"{node.name} concatenates zeros for each image with more than one "
                          f"other: use F.pad, or concatenate them one after another")
    at = zeros.index(False)
    source = node.inputs[at]
    widths = np.zeros((2, len(shapes[source])), np.int64)
    widths[:, axis] = (sum(x.n for x in node.inputs[:at]), sum(x.n for x in node.inputs[at + 1:]))
    node.op, node.attributes = "Pad", {"mode": "constant"}
    node.inputs = [source, widths.ravel(), np.float32(0)]


def with_arrays(nodes, names):
    """Return the nodes with a name in place of every array, and the arrays by their names."""
    arrays, known_ids = {}, {}
    for node in nodes:
        for i, x in enumerate(node.inputs):
            if isinstance(x, str):
                continue
            if id(x) not in known_ids:
                known_ids[id(x)] = names.get(id(x), f"{node.name}:in{i}"), x   # x: to keep its id
                arrays[known_ids[id(x)][0]] = np.asarray(cuda.to_cpu(x))
            node.inputs[i] = known_ids[id(x)][0]
    return nodes, arrays


def _equal(a, b):
    return bool((a == b).all())


def _brief(array):
    return np.array2string(cuda.to_cpu(array).reshape(-1)[:2], precision=4)
