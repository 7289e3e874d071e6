"""Drawings of images, filters, training runs and networks with matplotlib.

Each function returns a `Figure`; leave it as the last line of a cell. Nothing is shown or saved by
itself, and no global state of matplotlib is touched. A figure is a white card, so it reads the
same on a light and on a dark page, and it carries its own alternative text.
"""

import functools
import io
import math

import matplotlib.figure
import numpy as np
from matplotlib import rc_context
from matplotlib.colors import TwoSlopeNorm
from matplotlib.ticker import LogLocator
from PIL import Image

# Okabe and Ito (2008): told apart with every common kind of colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#595959"
STYLE = {
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "legend.frameon": False,
    "axes.axisbelow": True,
}
DPI = 144  # one and a half pixels of the file for each of the page


class Figure(matplotlib.figure.Figure):
    """A matplotlib Figure with an alternative text, `alt`, that notebooks and pages show.

    Set `alt` to describe the figure for readers who cannot see it: what it shows, not how it looks.
    Set `photographic` where it shows photographs, so that notebooks stay small.
    """

    alt = ""
    photographic = False  # stored with 256 colours, a third of the bytes where photographs are

    def png(self):
        """The figure as PNG, bytes."""
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
        return _with_palette(file) if self.photographic else file.getvalue()

    def _repr_mimebundle_(self, include=None, exclude=None):
        # No height: on a narrow page the width shrinks and the height must follow.
        width = round(96 * self.get_figwidth())
        data = {"image/png": self.png(), "text/plain": repr(self)}
        return data, {"image/png": {"alt": self.alt, "width": width}}

    def __repr__(self):
        # Not `alt`: it may hold measured numbers, and outputs are compared.
        return f"<Figure of {self.get_figwidth():.1f} by {self.get_figheight():.1f} inches>"


def _with_palette(file):
    """A PNG file with the 256 colours that suit it best, bytes."""
    image = Image.open(file).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    small = io.BytesIO()
    image.save(small, "PNG", optimize=True)
    return small.getvalue()


def _figure(width, height, alt):
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    figure.alt = alt
    return figure


def _styled(function):
    """Draw with this module's style and leave matplotlib's settings alone."""

    @functools.wraps(function)
    def draw(*args, **kwargs):
        with rc_context(STYLE):
            return function(*args, **kwargs)

    return draw


def _planes(images, name):
    """Images (N, 1, H, W), (N, H, W) or (H, W) as an array (N, H, W)."""
    array = np.asarray(getattr(images, "array", images))
    if array.ndim == 4 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or not array.size:
        raise ValueError(
            f"{name}: expected (N, 1, H, W), (N, H, W) or (H, W) with one channel; "
            f"got shape {array.shape}"
        )
    return array


def _grid(planes, titles, columns, cell, alt, **imshow):
    """One panel for each plane; panels without a plane stay empty."""
    rows = math.ceil(len(planes) / columns)
    figure = _figure(cell * columns, (cell + (0.25 if any(titles) else 0)) * rows + 0.1, alt)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, plane, title in zip(axes, planes, titles, strict=False):
        image = axis.imshow(plane, interpolation="nearest", **imshow)
        axis.set_title(title, fontsize=9, pad=2)
    return figure, image, axes


@_styled
def digits(images, labels=None, predictions=None, columns=10):
    """A grid of images; wrong predictions stand in colour with the right label.

    Parameters
    ----------
    images : array_like, (N, 1, H, W) or (N, H, W)
        0 is drawn black, 1 white.
    labels, predictions : sequence of N, optional
    columns : int

    Returns
    -------
    Figure

    Raises
    ------
    ValueError
        If the images have another shape, or the labels another number.
    """
    planes = _planes(images, "digits")
    for name, given in (("labels", labels), ("predictions", predictions)):
        if given is not None and len(given) != len(planes):
            raise ValueError(f"digits: {len(planes)} images but {len(given)} {name}")
    shown = labels if predictions is None else predictions
    titles = [""] * len(planes) if shown is None else [str(label) for label in shown]
    wrong = np.zeros(len(planes), bool)
    if labels is not None and predictions is not None:
        wrong = np.asarray(labels) != np.asarray(predictions)
        titles = [
            f"{p}, not {t}" if w else str(p)
            for p, t, w in zip(predictions, labels, wrong, strict=True)
        ]
    alt = f"{len(planes)} images of {planes.shape[1]} by {planes.shape[2]} pixels"
    alt += f", labelled {'; '.join(titles)}" if any(titles) else ""
    figure, _, axes = _grid(
        planes, titles, min(columns, len(planes)), 0.75, alt, cmap="gray", vmin=0, vmax=1
    )
    for axis in axes[: len(planes)][wrong]:
        axis.title.set_color(COLOURS[1])
    return figure


def _signed(planes):
    """Symmetric colours around 0, so that the sign is seen: blue below, red above."""
    top = float(np.abs(planes).max()) or 1.0
    return {"cmap": "RdBu_r", "norm": TwoSlopeNorm(0.0, -top, top)}


@_styled
def feature_maps(maps, columns=8):
    """The channels of one image after some layer.

    Parameters
    ----------
    maps : array_like or Variable, (C, H, W) or (1, C, H, W)
        Values of both signs are drawn around a white 0, others from black to white.
    columns : int

    Returns
    -------
    Figure

    Raises
    ------
    ValueError
        If the maps have another shape.
    """
    array = np.asarray(getattr(maps, "array", maps))
    planes = _planes(array[0] if array.ndim == 4 and len(array) == 1 else array, "feature_maps")
    colours = (
        _signed(planes)
        if planes.min() < 0
        else {"cmap": "gray", "vmin": 0, "vmax": float(planes.max()) or 1.0}
    )
    titles = [str(channel) for channel in range(len(planes))]
    alt = f"{len(planes)} feature maps of {planes.shape[1]} by {planes.shape[2]}"
    figure, image, axes = _grid(planes, titles, min(columns, len(planes)), 1.0, alt, **colours)
    figure.colorbar(image, ax=list(axes), shrink=0.8)
    return figure


@_styled
def filters(weights, columns=8):
    """The kernels of a convolution, all on one scale around a white 0.

    Parameters
    ----------
    weights : array_like or Parameter, (C_out, C_in, kh, kw)
        One row of panels for each output channel, or one panel each if C_in is 1.
    columns : int
        Panels in a row, where C_in is 1.

    Returns
    -------
    Figure

    Raises
    ------
    ValueError
        If the weights are not of four dimensions.
    """
    array = np.asarray(getattr(weights, "array", weights))
    if array.ndim != 4:
        raise ValueError(f"filters: expected (C_out, C_in, kh, kw); got shape {array.shape}")
    n_out, n_in, kh, kw = array.shape
    planes = array.reshape(n_out * n_in, kh, kw)
    titles = [f"{o}" if n_in == 1 else f"{o}, {i}" for o in range(n_out) for i in range(n_in)]
    alt = f"{n_out} filters of {n_in} by {kh} by {kw}"
    width = min(columns, n_out) if n_in == 1 else n_in
    figure, image, axes = _grid(planes, titles, width, 0.9, alt, **_signed(planes))
    figure.colorbar(image, ax=list(axes), shrink=0.8)
    return figure


def _runs(runs):
    """A log, a recorded run, or a dict of those, as a dict of logs."""
    if isinstance(runs, dict) and "curve" not in runs:
        named = runs
    else:
        named = {"": runs}
    return {label: run["curve"] if isinstance(run, dict) else run for label, run in named.items()}


def _points(log, key):
    points = [(entry["epoch"], entry[key]) for entry in log if key in entry]
    return [epoch for epoch, _ in points], [value for _, value in points]


@_styled
def learning_curves(runs, quantities=("loss", "accuracy")):
    """Loss and accuracy over epochs; training dashed, test solid.

    Parameters
    ----------
    runs : list of dict, or dict of those
        A log as LogReport keeps it (or a recorded run with its key `curve`), or several by label.
    quantities : sequence of {'loss', 'accuracy', 'error'}
        One panel each. `'error'` is 100 % minus accuracy, on a logarithmic scale.

    Returns
    -------
    Figure

    Raises
    ------
    ValueError
        If there is nothing to draw.
    """
    logs = _runs(runs)
    if not logs or not all(logs.values()):
        raise ValueError("learning_curves: a run has no entry; train for one epoch at least")
    figure = _figure(4.4 * len(quantities), 3.1, _describe_runs(logs))
    for axis, quantity in zip(
        figure.subplots(1, len(quantities), squeeze=False)[0], quantities, strict=True
    ):
        _draw_curves(axis, logs, quantity)
        axis.set_xlabel("epoch")
        axis.set_title({"accuracy": "accuracy (%)", "error": "error (%)"}.get(quantity, quantity))
    axis.legend()
    return figure


def _draw_curves(axis, logs, quantity):
    scale = {"loss": lambda v: v, "accuracy": lambda v: 100 * v, "error": lambda v: 100 * (1 - v)}
    key = "loss" if quantity == "loss" else "accuracy"
    lines = (("main", "--", "training"), ("validation/main", "-", "test"))
    for (label, log), colour in zip(logs.items(), COLOURS, strict=False):
        for prefix, dash, part in lines:
            epochs, values = _points(log, f"{prefix}/{key}")
            axis.plot(
                epochs,
                [scale[quantity](v) for v in values],
                dash,
                color=colour,
                marker="." if len(epochs) < 15 else "",
                label=f"{label} {part}".strip(),
            )
    if quantity == "error":
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_minor_formatter("")


def _describe_runs(logs):
    ends = []
    for label, log in logs.items():
        accuracy = log[-1].get("validation/main/accuracy")
        end = f"test accuracy {100 * accuracy:.2f} %" if accuracy is not None else "no test"
        ends.append(f"{label + ': ' if label else ''}{end} after epoch {log[-1]['epoch']}")
    return "Learning curves. " + "; ".join(ends)


@_styled
def confusion(labels, predictions, n_class=10):
    """How often each class was taken for each other one.

    Parameters
    ----------
    labels, predictions : array_like of int, (N,)
    n_class : int

    Returns
    -------
    Figure
        Rows are true classes. Colours show mistakes only: the diagonal would drown them.

    Raises
    ------
    ValueError
        If the two differ in length or hold something that is not a class.
    """
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if labels.shape != predictions.shape or labels.ndim != 1:
        raise ValueError(
            f"confusion: expected two vectors of one length; got shapes "
            f"{labels.shape} and {predictions.shape}"
        )
    both = np.concatenate([labels, predictions])
    if both.size and not 0 <= both.min() <= both.max() < n_class:
        raise ValueError(
            f"confusion: classes must be 0 to {n_class - 1}; got {both.min()} to {both.max()}"
        )
    counts = np.zeros((n_class, n_class), int)
    np.add.at(counts, (labels, predictions), 1)
    right = int(np.trace(counts))
    alt = f"Confusion matrix: {right} of {len(labels)} right"
    figure = _figure(0.46 * n_class + 1.1, 0.46 * n_class + 0.8, alt)
    _draw_counts(figure.subplots(), counts)
    return figure


def _draw_counts(axis, counts):
    mistakes = counts - np.diag(np.diag(counts))
    axis.imshow(mistakes, cmap="Oranges", vmin=0, vmax=max(1.6 * mistakes.max(), 1))
    for (row, column), count in np.ndenumerate(counts):
        axis.text(
            column,
            row,
            f"{count}" if count else "",
            ha="center",
            va="center",
            fontsize=8,
            color="black" if row != column else COLOURS[0],
        )
    axis.set(
        xticks=range(len(counts)),
        yticks=range(len(counts)),
        xlabel="predicted",
        ylabel="true class",
    )
    axis.grid(False)


def double_softmax_losses(margins, n_class=10):
    """True loss, and the loss when softmax is applied twice, where two classes compete.

    Parameters
    ----------
    margins : array_like, (M,)
        The right class's logit minus its one rival's; all other logits are far below.
    n_class : int

    Returns
    -------
    true, shown : ndarray, (M,)
        -log softmax(z)[right] and -log softmax(softmax(z))[right].
    """
    logits = np.full((np.size(margins), n_class), -1000.0)
    logits[:, 0], logits[:, 1] = margins, 0
    log_p = _log_softmax(logits)
    return -log_p[:, 0], -_log_softmax(np.exp(log_p))[:, 0]


def _log_softmax(z):
    z = z - z.max(axis=1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=1, keepdims=True))


def loss_bounds(n_class=10):
    """The smallest and the largest cross-entropy that softmax of *probabilities* can give.

    A probability vector with all on the right class gives log(e + K - 1) - 1; with all on one
    wrong class, log(e + K - 1).

    Returns
    -------
    low, high : float
    """
    high = math.log(math.e + n_class - 1)
    return high - 1, high


@_styled
def double_softmax(n_class=10):
    """The loss with one softmax and with two, over how sure the network is.

    Parameters
    ----------
    n_class : int

    Returns
    -------
    Figure
        The double one never leaves the band of `loss_bounds`.
    """
    margins = np.linspace(-10, 10, 201)
    true, shown = double_softmax_losses(margins, n_class)
    low, high = loss_bounds(n_class)
    alt = (
        f"Loss over the logit's margin, {n_class} classes: with one softmax it falls to 0, "
        f"with two it stays between {low:.4f} and {high:.4f}"
    )
    figure = _figure(6.4, 3.4, alt)
    axis = figure.subplots()
    axis.axhspan(low, high, color=COLOURS[1], alpha=0.12, lw=0)
    axis.plot(margins, true, color=COLOURS[0], lw=2, label="softmax once: the true loss")
    axis.plot(margins, shown, color=COLOURS[1], lw=2, label="softmax twice: what is shown")
    for bound, height, side in ((low, low - 0.08, "top"), (high, high + 0.05, "bottom")):
        axis.text(margins[-1], height, f"{bound:.4f}", color="#8a3d00", va=side, ha="right")
    axis.set(xlabel="the right class's logit minus its rival's", ylabel="loss", ylim=(-0.2, 5))
    axis.legend(loc="upper right")
    return figure


@_styled
def architecture(rows):
    """A network as a row of boxes: higher for larger maps, wider for more channels.

    Parameters
    ----------
    rows : list of dict
        `convnets.inspect.summary(model, shape).as_dicts()`. Layers with parameters and poolings
        are drawn; activations are left out.

    Returns
    -------
    Figure
    """
    drawn = [row for row in rows if row["name"] or "pooling" in row["kind"]]
    if not drawn:
        raise ValueError("architecture: no row has parameters or pools")
    boxes = [("input", drawn[0]["in_shape"])]
    boxes += [(row["name"] or row["kind"], row["out_shape"]) for row in drawn]
    alt = "Network: " + ", ".join(f"{name} {_shape(shape)}" for name, shape in boxes)
    figure = _figure(1.0 * len(boxes), 2.7, alt)
    axis = figure.subplots()
    axis.set(xlim=(-0.6, len(boxes) - 0.4), ylim=(-1.05, 1.05))
    axis.set_axis_off()
    tallest = max(shape[2] for _, shape in boxes if len(shape) == 4)
    for x, (name, shape) in enumerate(boxes):
        _draw_box(axis, x, name, shape, tallest)
    return figure


def _shape(shape):
    return "×".join(map(str, shape[1:]))


def _draw_box(axis, x, name, shape, tallest):
    """One box; square roots keep the largest and the smallest on one page."""
    side = shape[2] if len(shape) == 4 else 1
    height = 1.3 * math.sqrt(side / tallest) if side > 1 else 0.28
    width = min(0.12 + 0.045 * math.sqrt(shape[1]), 0.7)
    colour = GREY if name == "input" else COLOURS[2] if "pooling" in name else COLOURS[0]
    axis.bar(x, height, width, bottom=-height / 2 + 0.1, color=colour, alpha=0.85)
    axis.text(x, 0.86, name.replace(" ", "\n"), ha="center", va="center", fontsize=9)
    axis.text(x, -0.86, _shape(shape), ha="center", va="center", fontsize=9)


@_styled
def graph(nodes):
    """What is computed from what, from the input at the top to the output at the bottom.

    Parameters
    ----------
    nodes : list of `convnets.inspect.Node`
        As `convnets.inspect.graph(model, shape)` returns them.

    Returns
    -------
    Figure
        Functions with parameters are blue and carry the name of their link; a line that passes
        by others is a shortcut.
    """
    layers = _layers(nodes)
    columns = _columns(nodes, layers)
    alt = "Graph: " + "; ".join(_sentence(nodes, i) for i in range(len(nodes)))
    figure = _figure(2.6 * (max(columns) + 1) + 0.8, 0.62 * (max(layers) + 1) + 0.2, alt)
    axis = figure.subplots()
    axis.set(xlim=(-0.75, max(columns) + 0.55), ylim=(max(layers) + 0.5, -0.5))
    axis.set_axis_off()
    boxes = [_draw_node(axis, node, *place)
             for node, *place in zip(nodes, columns, layers, strict=True)]
    for node, box in zip(nodes, boxes, strict=True):
        for source in node.sources:
            _draw_edge(axis, boxes[source], box)
    return figure


def _draw_node(axis, node, x, y):
    paper, ink = (COLOURS[0], "white") if node.name else ("white", "black")
    return axis.text(x, y, f"{_title(node)}\n{_shape(node.shape)}", ha="center", va="center",
                     fontsize=8.5, linespacing=1.15, color=ink, zorder=3,
                     bbox={"boxstyle": "round,pad=0.35", "facecolor": paper,
                           "edgecolor": COLOURS[0] if node.name else GREY})


def _title(node):
    return f"{node.name}: {node.kind}" if node.name else node.kind


def _sentence(nodes, i):
    read = " and ".join(_title(nodes[s]) for s in nodes[i].sources)
    return _title(nodes[i]) + (f" of {read}" if read else "")


def _layers(nodes):
    """The length of the longest way from the input to each node."""
    layers = []
    for node in nodes:
        layers.append(1 + max((layers[s] for s in node.sources), default=-1))
    return layers


def _columns(nodes, layers):
    """The longest way from input to output stands in column 0, each branch in one of its own."""
    columns = [None] * len(nodes)
    starts = [len(nodes) - 1]
    column = 0
    while starts:
        i = starts.pop(0)
        drawn = columns[i] is None
        while i is not None and columns[i] is None:
            columns[i] = column
            order = sorted(nodes[i].sources, key=lambda s: layers[s])
            starts += order[:-1]
            i = order[-1] if order else None
        column += drawn
    return [column if column is not None else 0 for column in columns]


def _draw_edge(axis, start, end):
    """An arrow to the next node, or one that leaves its column and so passes by others."""
    (x0, y0), (x1, y1) = start.get_position(), end.get_position()
    if x0 == x1 and y1 - y0 == 1:
        corners, colour = [(x0, y0)], GREY
    else:
        lane = x0 + 0.5 if x0 == x1 else max(x0, x1)
        corners, colour = [(x0, y0), (lane, y0), (lane, y1)], COLOURS[1]
        corners = [c for c in corners if c != (x1, y1)]
        axis.plot(*zip(*corners, strict=True), color=colour, lw=1.3, zorder=1)
    arrow = {"arrowstyle": "-|>", "lw": 1.3, "color": colour, "shrinkA": 0, "shrinkB": 1,
             "patchB": end.get_bbox_patch()}
    if len(corners) == 1:
        arrow["patchA"] = start.get_bbox_patch()
    axis.annotate("", (x1, y1), corners[-1], arrowprops=arrow, zorder=1)


@_styled
def predictions(images, tops, titles=None, labels=None):
    """Photographs, each beside the classes that a network finds most probable.

    Parameters
    ----------
    images : sequence of PIL.Image.Image or array (H, W, 3)
        RGB, ``uint8`` in 0..255 or floats in 0..1.
    tops : sequence of list of (int, str, float)
        Class, name and probability, as `convnets.pretrained.registry.top` returns them, one list
        for each image. Of names with synonyms the first is shown.
    titles : sequence of str, optional
        What to call the images.
    labels : sequence of int or None, optional
        The right classes, whose bars are green; None where there is none.

    Returns
    -------
    Figure

    Raises
    ------
    ValueError
        If there are no images, or another number of anything else.
    """
    images, tops = list(images), list(tops)
    titles = [""] * len(images) if titles is None else list(titles)
    labels = [None] * len(images) if labels is None else list(labels)
    if not images or not len(images) == len(tops) == len(titles) == len(labels):
        raise ValueError(f"predictions: {len(images)} images, {len(tops)} lists of classes, "
                         f"{len(titles)} titles and {len(labels)} labels")
    alt = "; ".join(": ".join(filter(None, (title, _describe_top(top))))
                    for title, top in zip(titles, tops, strict=True))
    figure = _figure(6.6, 1.45 * len(images), alt)
    figure.photographic = True
    axes = figure.subplots(len(images), 2, width_ratios=(1, 2.2), squeeze=False)
    for (left, right), image, *rest in zip(axes, images, tops, titles, labels, strict=True):
        _draw_top(left, right, image, *rest)
    return figure


def _first(name):
    return name.split(",")[0]


def _describe_top(top):
    return ", ".join(f"{_first(name)} {100 * p:.0f} %" for _, name, p in top)


def _draw_top(left, right, image, top, title, label):
    left.imshow(np.asarray(image))
    left.set_axis_off()
    left.set_title(title, fontsize=9, pad=2)
    colours = [COLOURS[2] if c == label and label is not None else COLOURS[5] for c, _, _ in top]
    right.barh(range(len(top)), [p for _, _, p in top], color=colours)
    for i, (_, name, p) in enumerate(top):
        right.text(0.13, i, f"{100 * p:.1f} %", va="center", ha="right", fontsize=9)
        right.text(0.15, i, _first(name), va="center", fontsize=9)
    right.set(xlim=(0, 1), ylim=(len(top) - 0.4, -0.6), xticks=[], yticks=[])
    right.spines[["bottom"]].set_visible(False)


@_styled
def saliency(image, maps):
    """Where on a photograph something is large, drawn over it in grey.

    Parameters
    ----------
    image : PIL.Image.Image or array (H, W, 3)
        RGB, ``uint8`` in 0..255 or floats in 0..1.
    maps : dict of str to array_like or Variable, (h, w)
        By title; values from 0 on. Each is stretched over the image, and from the largest
        hundredth of its values on the colour is full.

    Returns
    -------
    Figure
        The photograph, then one panel for each map.

    Raises
    ------
    ValueError
        If a map has another shape, or negative values.
    """
    heats = {title: _heat(title, heat) for title, heat in maps.items()}
    alt = "Photograph; " + "; ".join(_describe_heat(*item) for item in heats.items())
    figure = _figure(2.6 * (1 + len(heats)), 2.8, alt)
    figure.photographic = True
    first, *others = figure.subplots(1, 1 + len(heats), squeeze=False)[0]
    pixels = np.asarray(image)
    first.imshow(pixels)
    for axis, (title, heat) in zip(others, heats.items(), strict=True):
        shown = axis.imshow(pixels.mean(axis=2), cmap="gray")
        full = np.quantile(heat, 0.99) or 1.0
        axis.imshow(heat, cmap="autumn", vmin=0, vmax=full, extent=shown.get_extent(),
                    alpha=np.clip(heat / full, 0, 1), interpolation="nearest")
        axis.set_title(title, fontsize=9, pad=2)
    for axis in figure.axes:
        axis.set_axis_off()
    return figure


def _heat(title, values):
    heat = np.asarray(getattr(values, "array", values))
    if heat.ndim != 2 or not heat.size:
        raise ValueError(f"saliency: expected (h, w) for {title!r}; got shape {heat.shape}")
    if heat.min() < 0:
        raise ValueError(f"saliency: {title!r} has negative values, down to {heat.min():g}; "
                         f"their absolute values, or those above 0, can be drawn")
    return heat


def _describe_heat(title, heat):
    """Where the middle of a map's values is, from the left and from the top."""
    total = float(heat.sum()) or 1.0
    x, y = ((heat.sum(axis=axis) * (np.arange(n) + 0.5)).sum() / n / total
            for axis, n in enumerate(heat.shape[::-1]))
    return f"{title}, centred at {100 * x:.0f} % from the left and {100 * y:.0f} % from the top"
