"""Keras weights: ``.h5`` of Keras 2, ``.weights.h5`` and ``.keras`` of Keras 3.

All become ``'<layer>/<kind>'`` with the kinds kernel, bias, gamma, beta, moving_mean and
moving_variance, whatever the generation calls them.
"""

import io
import itertools
import json
import re
from collections import Counter

from ..errors import WeightsError
from . import hdf5
from .bounds import add, open_zip

# Keras 3 numbers a layer's variables: their kinds by the layer's class, when all are there.
KINDS = {
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
    "conv2d": ("kernel", "bias"),
    "dense": ("kernel", "bias"),
}
OPTIONAL = {"conv2d", "dense"}   # their last kind may be missing
# Keras 1 put the kind behind the layer's name, and called it otherwise.
OLD_KINDS = {"W": "kernel", "b": "bias", "running_mean": "moving_mean",
             "running_std": "moving_variance"}
NOT_WEIGHTS = {"optimizer", "optimizer_weights"}


def read_h5(path, budget):
    """Return the arrays of an HDF5 file that Keras wrote.

    Parameters
    ----------
    path : pathlib.Path
    budget : Budget

    Returns
    -------
    arrays : dict of str to ndarray
        ``'<layer>/<kind>'``, in the file's order.
    details : dict
        ``generation``: 2 or 3; ``layer_names``: 'file', 'config' or 'missing', which says where the
        layers' names come from.
    """
    with path.open("rb") as file:
        return _read(hdf5.File(file, path.stat().st_size, budget), {})


def read_keras(path, budget):
    """Return the arrays of a ``.keras`` archive; see `read_h5`."""
    with open_zip(path, budget.limit) as archive:
        names = _names(json.loads(archive.read("config.json")))
        data = archive.read("model.weights.h5")   # checked against the archive's checksum
    return _read(hdf5.File(io.BytesIO(data), len(data), budget), names)


def _read(file, names):
    root = file.root.members()
    top = root.get("model_weights", file.root)
    layers = _texts(top, "layer_names")
    if layers is not None:
        return _generation_2(top, layers), {"generation": 2, "layer_names": "file"}
    return _generation_3(file.root, names)


def _generation_2(top, layers):
    """Read the arrays that the groups list, each under its layer's name."""
    arrays = {}
    for layer in layers:
        group = top[layer]
        weights = _texts(group, "weight_names")
        if weights is None:
            raise WeightsError(f"layer {layer!r} does not list its weights; expected weight_names")
        owners = {_owner(weight) for weight in weights}
        for weight in weights:
            # A model inside the model is one group, in which many layers own weights.
            name = _owner(weight) if len(owners) > 1 else layer
            add(arrays, f"{name}/{_kind(weight, name)}", group[weight].array())
    return arrays


def _texts(group, name):
    """Return an attribute's texts; Keras cuts long ones into name0, name1, ..."""
    whole = group.attribute(name)
    if whole is not None:
        return whole
    parts = (group.attribute(f"{name}{index}") for index in itertools.count())
    parts = itertools.takewhile(lambda part: part is not None, parts)
    return list(itertools.chain.from_iterable(parts)) or None


def _owner(weight):
    return weight.split("/")[-2] if "/" in weight else ""


def _kind(weight, layer):
    """Return 'kernel' for 'block1_conv1/kernel:0', and for 'block1_conv1_W_1:0' of Keras 1."""
    kind = weight.split("/")[-1].split(":")[0]
    old = re.fullmatch(rf"{re.escape(layer)}_(\D+?)(_\d+)?", kind)
    kind = old[1] if old else kind
    return OLD_KINDS.get(kind, kind)


def _generation_3(root, names):
    """Read every group called vars: its parent is a layer, its members are numbered."""
    arrays, sources = {}, set()
    for group, variables in _layers(root):
        source, layer = _layer_name(group, variables, names)
        sources.add(source)
        members = variables.members()
        kinds = _kinds(group, members)
        for index in sorted(members, key=int):
            add(arrays, f"{layer}/{kinds[int(index)]}", members[index].array())
    if not arrays:
        raise WeightsError(f"no weights of Keras; expected layer_names or groups called vars, got "
                           f"{', '.join(root.members()) or 'nothing'}")
    found = next(s for s in ("missing", "config", "file") if s in sources)
    return arrays, {"generation": 3, "layer_names": found}


def _layers(group):
    """Yield the groups that hold variables, in the file's order."""
    for name, member in group.members().items():
        if member.is_group and name == "vars" and member.members():
            yield group, member
        elif member.is_group and name not in NOT_WEIGHTS:
            yield from _layers(member)


def _layer_name(group, variables, names):
    written = variables.attribute("name")
    if written:
        return "file", written[0]
    last = group.name.split("/")[-1]
    return ("config", names[last]) if last in names else ("missing", last)


def _kinds(group, members):
    """Return the kinds of a layer's variables by their number."""
    if set(members) != {str(index) for index in range(len(members))}:
        raise WeightsError(f"{group.name!r} has the variables {', '.join(members)}; expected 0, 1 "
                           f"and so on")
    kind = re.sub(r"_\d+$", "", group.name.split("/")[-1])
    kinds = KINDS.get(kind, ())
    missing = len(kinds) - len(members)
    known = missing == 0 or (missing == 1 and kind in OPTIONAL)
    return kinds if known else [str(index) for index in range(len(members))]


def _names(config):
    """Return the layers' names by the names of their groups: the class and a running number."""
    counts, names = Counter(), {}
    for layer in config["config"]["layers"]:
        kind = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=.)(?=[A-Z][a-z])", "_", layer["class_name"]).lower()
        names[f"{kind}_{counts[kind]}" if counts[kind] else kind] = layer["config"]["name"]
        counts[kind] += 1
    return names
