"""An explorer of whole networks: sizes, parameters, work and memory, recomputed in the page."""

import copy

from ._base import Widget
from ._plans import FAMILIES, MODELS, plans, published

LIMITS = {"width": (1 / 16, 4), "size": (1, 1024), "n_class": (1, 100_000), "count": (1, 200)}


class ArchitectureExplorer(Widget):
    """Made by `architecture_explorer`."""

    name = "architecture_explorer"
    label = "Architecture explorer: what a network is made of"

    def __init__(self, names, setting, opened, caption, key):
        super().__init__(caption, key)
        self.names, self.setting, self.opened = names, setting, opened

    def state(self):
        chosen = [published(name) for name in self.names]
        families = {
            model["family"]: {
                **{k: v for k, v in FAMILIES[model["family"]].items() if k not in UNUSED},
                "plans": plans(model["family"]),
            }
            for model in chosen
        }
        return {"models": chosen, "families": families, "limits": LIMITS,
                "setting": self.setting, "opened": self.opened}  # fmt: skip

    def fallback(self):
        model = published(self.setting["model"])
        family = plans(model["family"])
        stages = copy.deepcopy(next(iter(family.values())))
        counts = iter(model["counts"])
        stages[-1]["first"][-1]["out"] = model["n_class"]
        rows = "".join(
            f"<tr><td>{stage['name']}</td><td>{next(counts) if 'more' in stage else 1}</td>"
            f"<td>{_channels(stage)}</td></tr>"
            for stage in stages
        )
        what = FAMILIES[model["family"]]["repeats"] or "layers"
        head = f"<tr><th>stage</th><th>{what}</th><th>channels or units</th></tr>"
        return f"<p>{model['name']}, stage by stage:</p><table>{head}{rows}</table>"


UNUSED = {"builds", "unit"}  # of a family, in the page


def _channels(stage):
    """Channels behind a stage that has layers with weights, else an empty text."""
    return max(layer.get("out", 0) for layer in stage["first"]) or ""


def architecture_explorer(
    model="ResNet50",
    *,
    names=None,
    width=1,
    size=None,
    n_class=None,
    stride_in="1x1",
    opened="",
    caption="",
    key="",
):
    """Let the reader take networks apart and change their width, depth, input and classes.

    Every number is computed in the page from the layers of the library's own models, and is the one
    that `convnets.inspect.summary` gives for the line of Python shown below the table.

    Parameters
    ----------
    model : str
        The one that is shown first: the name of a class in `convnets.models`.
    names : sequence of str, optional
        All that can be chosen; by default LeNet5, the VGGs, the ResNets and their plain twins.
    width : float, 1/16 to 4
        Factor of all channels.
    size : int, optional
        Height and width of the images in pixels; by default the model's own.
    n_class : int, optional
        Number of classes; by default the model's own.
    stride_in : {'1x1', '3x3'}
        See `convnets.models.BottleNeck`.
    opened : str
        The stage whose layers are shown first; by default none.
    caption, key : str
        See `Widget`.

    Returns
    -------
    ArchitectureExplorer

    Raises
    ------
    ValueError
        If a model, option or stage is unknown, or a number is out of its range.
    """
    names = list(names or MODELS)
    for name in [model, *names]:
        if name not in MODELS:
            raise ValueError(f"architecture_explorer: unknown model {name!r}; there are:"
                             f" {', '.join(MODELS)}")  # fmt: skip
    if model not in names:
        raise ValueError(f"architecture_explorer: {model} must be one of the names {names}")
    own = published(model)
    setting = {
        "model": model,
        "width": width,
        "size": size or own["size"],
        "n_class": n_class or own["n_class"],
        "stride_in": _known("stride_in", stride_in, FAMILIES["ResNet"]["builds"]),
    }
    for name in ("width", "size", "n_class"):
        low, high = LIMITS[name]
        if not low <= setting[name] <= high:
            raise ValueError(f"architecture_explorer: {name} must be {low} to {high};"
                             f" got {setting[name]}")  # fmt: skip
    stages = [stage["name"] for stage in next(iter(plans(own["family"]).values()))]
    if opened:
        _known("stage", opened, stages)
    return ArchitectureExplorer(names, setting, opened, caption, key)


def _known(what, value, known):
    if value not in known:
        raise ValueError(f"architecture_explorer: unknown {what} {value!r}; there are:"
                         f" {', '.join(known)}")  # fmt: skip
    return value
