"""The nodes of an ONNX file: what each reads, by name, and who reads what it writes."""

import html

from ._base import Widget

#: Operator -> how its button is coloured; all others are activations.
GROUPS = {
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm", "BatchNormalization"), "layer"),
    **dict.fromkeys(("MaxPool", "AveragePool", "ReduceMean", "ReduceMax"), "pooling"),
    **dict.fromkeys(("Reshape", "Transpose", "Slice", "Pad", "Concat", "Split", "Expand"), "shape"),
}


class OnnxGraph(Widget):
    """Made by `onnx_graph`."""

    name = "onnx_graph"

    def __init__(self, graph, shapes, caption, key):
        super().__init__(caption, key)
        self.nodes = _nodes(graph, shapes)
        self.label = f"ONNX graph of {len(graph.nodes)} nodes, each with what it reads and writes"

    def state(self):
        return {"nodes": self.nodes}

    def fallback(self):
        rows = "".join(f"<tr><td>{html.escape(node['title'])}</td>"
                       f"<td>{html.escape(node['writes'])}</td></tr>" for node in self.nodes)
        return f"<table><tr><th>node</th><th>writes</th></tr>{rows}</table>"


def onnx_graph(graph, shapes=None, *, caption="", key=""):
    """Walk through the nodes of an ONNX graph; each shows its attributes and follows its names.

    Parameters
    ----------
    graph : convnets.export.Graph
        As `convnets.export.read` gives it. It must have at least one node.
    shapes : dict of str to tuple, optional
        Of the values, where they are known; a file need not tell.
    caption, key : str
        See `Widget`.

    Returns
    -------
    OnnxGraph

    Raises
    ------
    ValueError
        If the graph has no node.
    """
    if not graph.nodes:
        raise ValueError("onnx_graph: the graph has no nodes")
    return OnnxGraph(graph, shapes or {}, caption, key)


def _nodes(graph, shapes):
    shapes = {**shapes, **graph.inputs, **graph.outputs}
    makers = dict.fromkeys(graph.inputs, 0)
    makers.update((name, i) for i, node in enumerate(graph.nodes, 1) for name in node.outputs)
    found = [_end("input", graph.inputs, [], 0, shapes)]
    for node in graph.nodes:
        reads = [_read(name, graph, makers, shapes) for name in node.inputs]
        attributes = [[name, _text(value)] for name, value in node.attributes.items()]
        found.append({
            "op": node.op, "title": f"{node.name} ({node.op})",
            "group": GROUPS.get(node.op, "activation"), "reads": reads, "attributes": attributes,
            "writes": ", ".join(_value(name, shapes) for name in node.outputs), "feeds": []})
    found.append(_end("output", {}, graph.outputs, makers, shapes))
    for i, node in enumerate(found):
        for read in node["reads"]:
            if read["from"] is not None and i not in found[read["from"]]["feeds"]:
                found[read["from"]]["feeds"].append(i)
    return found


def _end(op, inputs, outputs, makers, shapes):
    """Return what stands before the first node, or behind the last."""
    reads = [{"text": _value(name, shapes), "from": makers[name]} for name in outputs]
    return {"op": op, "title": op, "group": "input", "reads": reads, "attributes": [],
            "writes": ", ".join(_value(name, shapes) for name in inputs), "feeds": []}


def _read(name, graph, makers, shapes):
    if name not in graph.arrays:
        return {"text": _value(name, shapes), "from": makers.get(name)}
    array = graph.arrays[name]
    what = f"{array.dtype} {_shape(array.shape)}" if array.size > 4 else _text(array.tolist())
    return {"text": f"{name}: {what}, {array.nbytes:,} bytes in the file", "from": None}


def _value(name, shapes):
    return f"{name} {_shape(shapes[name])}" if name in shapes else name


def _shape(shape):
    return f"({', '.join(map(str, shape))})"


def _text(value):
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
