"""Which pixels one value of a deep layer can see, drawn layer by layer."""

from functools import cache

from ._base import Widget
from ._plans import layers, published

KINDS = {"convolution": "conv", "max pooling": "max pool"}  # and as the page has them
LIMITS = {"k": (1, 15), "s": (1, 8), "p": (0, 15), "d": (1, 8), "size": (1, 512), "depth": 24}


def _stack(size, *windows):
    """An input of size x size and convolutions of (ksize, pad, dilate)."""
    names = (f"conv{i}" for i in range(1, len(windows) + 1))
    return {"size": size, "layers": [
        {"name": name, "kind": "convolution", "k": k, "s": 1, "p": p, "d": d, "cover": False}
        for name, (k, p, d) in zip(names, windows, strict=True)]}  # fmt: skip


def _model(name, last=None):
    """The windows of a published model, up to the one named `last`."""
    windows = [
        {"s": 1, "p": 0, "d": 1, "cover": False} | layer for layer in layers(name) if "k" in layer
    ]
    if last:
        windows = windows[: 1 + [window["name"] for window in windows].index(last)]
    keys = ("name", "kind", "k", "s", "p", "d", "cover")
    return {"size": published(name)["size"],
            "layers": [{key: window[key] for key in keys} for window in windows]}  # fmt: skip


@cache
def stacks():
    """The stacks of layers that can be chosen, by name."""
    return {
        "three 3 × 3": _stack(15, *[(3, 1, 1)] * 3),
        "one 7 × 7": _stack(15, (7, 3, 1)),
        "dilated by 1, 2, 4": _stack(25, (3, 1, 1), (3, 2, 2), (3, 4, 4)),
        "LeNet5": _model("LeNet5"),
        "VGG16": _model("VGG16"),
        "ResNet20, first 9": _model("ResNet20", last="res3/0/conv2"),
    }


class ReceptiveField(Widget):
    """Made by `receptive_field`."""

    name = "receptive_field"
    label = "Receptive field: what one value of a deep layer sees"

    def __init__(self, stack, layer, caption, key):
        super().__init__(caption, key)
        self.stack, self.layer = stack, layer

    def state(self):
        return {"stacks": stacks(), "stack": self.stack, "layer": self.layer,
                "kinds": KINDS, "limits": LIMITS}  # fmt: skip

    def fallback(self):
        # Araujo et al. 2019, "Computing receptive fields of convolutional neural networks"
        field, jump, rows = 1, 1, []
        for layer in stacks()[self.stack]["layers"]:
            field, jump = field + (layer["k"] - 1) * layer["d"] * jump, jump * layer["s"]
            cells = (layer["name"] or layer["kind"], f"{layer['k']} × {layer['k']}", field, jump)
            rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
        head = ("layer", "window", "field", "jump")
        head = "<tr>" + "".join(f"<th>{name}</th>" for name in head) + "</tr>"
        return f"<p>{self.stack}:</p><table>{head}{''.join(rows)}</table>"


def receptive_field(stack="three 3 × 3", *, layer=None, caption="", key=""):
    """Show which pixels a value of a deep layer depends on, in every layer below it.

    Clicking a map, or moving over it with the arrow keys, chooses a value. Kernel, stride, pad and
    dilation of each layer can be changed, layers added and removed. Field and jump (the distance
    of two neighbours' fields) are those of `convnets.inspect.receptive_fields`, where padding is
    not cut off; the drawing shows what lies inside the maps.

    Parameters
    ----------
    stack : str
        The layers shown first: 'three 3 × 3', 'one 7 × 7', 'dilated by 1, 2, 4', 'LeNet5',
        'VGG16' or 'ResNet20, first 9'.
    layer : int, optional
        The layer whose value is shown first, counted from 1; by default the last.
    caption, key : str
        See `Widget`.

    Returns
    -------
    ReceptiveField

    Raises
    ------
    ValueError
        If there is no such stack or layer.
    """
    if stack not in stacks():
        raise ValueError(f"receptive_field: unknown stack {stack!r}; there are:"
                         f" {', '.join(stacks())}")  # fmt: skip
    depth = len(stacks()[stack]["layers"])
    layer = depth if layer is None else layer
    if not 1 <= layer <= depth:
        raise ValueError(f"receptive_field: layer must be 1 to {depth}; got {layer}")
    return ReceptiveField(stack, layer, caption, key)
