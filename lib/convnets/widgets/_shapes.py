"""A network as a row of boxes with the shapes between them and the arithmetic behind them."""

import html
import math

from ._base import Widget

FIELDS = ("name", "kind", "in_shape", "out_shape", "params", "macs", "activation_bytes")


class Shapes(Widget):
    """Made by `shapes`."""

    name = "shapes"

    def __init__(self, rows, caption, key):
        super().__init__(caption, key)
        self.stages = [_input_stage(rows[0]["in_shape"]), *map(_stage, rows)]
        self.label = f"Network of {len(rows)} layers with their shapes"

    def state(self):
        return {"stages": self.stages}

    def fallback(self):
        facts = (dict(stage["facts"]) for stage in self.stages[1:])
        lines = (
            f"<tr><td>{html.escape(stage['title'])}</td><td>{fact['output']}</td>"
            f"<td>{fact['parameters']}</td></tr>"
            for stage, fact in zip(self.stages[1:], facts, strict=True)
        )
        head = "<tr><th>layer</th><th>output</th><th>parameters</th></tr>"
        return f"<table>{head}{''.join(lines)}</table>"


def shapes(rows, *, caption="", key=""):
    """Draw a network as a row of boxes; pointing at one shows its shapes, parameters and work.

    Parameters
    ----------
    rows : list of dict
        `convnets.inspect.summary(model, shape).as_dicts()`: in the order of computation, each with
        the keys name, kind, in_shape, out_shape, params, macs and activation_bytes.
    caption, key : str
        See `Widget`.

    Returns
    -------
    Shapes

    Raises
    ------
    ValueError
        If there is no row, or one lacks a key.

    Notes
    -----
    The kernel size is not in the rows: it follows from the parameters, and the arithmetic is shown
    only where it gives exactly the counted numbers.
    """
    rows = list(rows)
    if not rows:
        raise ValueError("shapes: got no rows; give convnets.inspect.summary(...).as_dicts()")
    for number, row in enumerate(rows):
        if missing := [field for field in FIELDS if field not in row]:
            raise ValueError(f"shapes: row {number} lacks {', '.join(missing)}")
    return Shapes(rows, caption, key)


def _times(*numbers):
    return " × ".join(f"{number:,}" for number in numbers)


def _size(shape):
    """Channels and height of one image; vectors count as 1 × 1 maps."""
    return shape[1], shape[2] if len(shape) > 2 else 1


def _group(kind):
    if "pooling" in kind:
        return "pooling"
    return "layer" if kind in ("convolution", "linear") else "activation"


def _input_stage(shape):
    channels, height = _size(shape)
    facts = [["shape (N, C, H, W)", _times(*shape)]]
    return {"name": "input", "title": "input", "group": "input", "facts": facts,
            "shape": _times(*shape[1:]), "channels": channels, "height": height}  # fmt: skip


def _stage(row):
    channels, height = _size(row["out_shape"])
    name = row["name"] or row["kind"]
    facts = {
        "input": _times(*row["in_shape"]),
        "output": _times(*row["out_shape"]),
        "parameters": _explained(row["params"], _parameters(row)),
        "multiply-adds": _explained(row["macs"], _multiply_adds(row)),
        "activations": f"{row['activation_bytes']:,} bytes",
    }
    return {"name": name, "title": f"{row['name']}: {row['kind']}" if row["name"] else name,
            "group": _group(row["kind"]), "facts": [list(fact) for fact in facts.items()],
            "shape": _times(*row["out_shape"][1:]), "channels": channels,
            "height": height}  # fmt: skip


def _explained(count, arithmetic):
    return f"{count:,} = {arithmetic}" if arithmetic else f"{count:,}"


def _fan_in(row):
    """Weights of one output channel as factors (C_in, k, k) or (inputs,), and biases; or None."""
    n_in, n_out = row["in_shape"][1], row["out_shape"][1]
    for biases in (n_out, 0):
        each, rest = divmod(row["params"] - biases, n_out)
        if rest or each <= 0:
            continue
        if row["kind"] == "linear" and each == math.prod(row["in_shape"][1:]):
            return (each,), biases
        k = math.isqrt(each // n_in)
        if row["kind"] == "convolution" and n_in * k * k == each:
            return (n_in, k, k), biases
    return None


def _parameters(row):
    """'6 × (1 × 5 × 5) + 6', or '' where the row is no plain convolution or linear layer."""
    if not (found := _fan_in(row)):
        return ""
    factors, biases = found
    inside = f"({_times(*factors)})" if len(factors) > 1 else _times(*factors)
    return f"{row['out_shape'][1]:,} × {inside}" + (f" + {biases:,}" if biases else "")


def _multiply_adds(row):
    if not (found := _fan_in(row)):
        return ""
    outputs, (factors, _) = row["out_shape"], found
    if math.prod(outputs) * math.prod(factors) != row["macs"]:
        return ""
    inside = f"({_times(*factors)})" if len(factors) > 1 else _times(*factors)
    return f"{_times(*outputs)} × {inside}"
