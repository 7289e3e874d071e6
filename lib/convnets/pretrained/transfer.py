"""Arrays of a weight file into a model: every name used once, every shape equal, or nothing."""

import json
from dataclasses import dataclass, field
from functools import partial

import chainer
import numpy as np

from .errors import WeightsError
from .families import BACK, CHAINER, COUNTERS, HEADS, Family, families, layers

# In npz files of ours, beside the arrays: how they were made, and the scores of a made-up image.
OWN_NOTE, OWN_CHECK = "convnets_note", "convnets_check"


@dataclass(frozen=True)
class Slot:
    """One array of the model and where it comes from.

    Attributes
    ----------
    target : str
        Path of the array in the model, such as ``res2/0/bn_a/gamma``.
    sources : tuple of str
        Names in the file.
    convert : callable
        From their arrays to the model's.
    bias : str
        Name in the file of a bias that the model's convolution does not have: it moves into the
        mean of the batch normalization behind it, which gives the same output.
    head : bool
        It belongs to the layer that gives one score per class.
    """

    target: str
    sources: tuple
    convert: object
    bias: str = ""
    head: bool = False


@dataclass(frozen=True)
class Report:
    """What `load_weights` did; prints as a few lines.

    Attributes
    ----------
    path, format, family : str
    n_arrays, n_params : int
        Arrays that were filled, and the parameters among their values.
    options : dict
        Options of the model that were set, as name: (before, after).
    folded : tuple of str
        Biases that moved into a batch normalization.
    new : tuple of str
        Arrays of the model that keep their initial values.
    unused : tuple of str
        Names in the file that were not used.
    preprocessing : str
        What the images must look like, a key of `preprocess.SETTINGS`.
    """

    path: str
    format: str
    family: str
    n_arrays: int
    n_params: int
    options: dict = field(default_factory=dict)
    folded: tuple = ()
    new: tuple = ()
    unused: tuple = ()
    preprocessing: str = ""

    def __str__(self):
        lines = [f"{self.path}: {self.format} file of the {self.family} family",
                 f"{self.n_arrays} arrays filled, {self.n_params:,} parameters"]
        lines += [f"{name} set to {after!r} (was {before!r})"
                  for name, (before, after) in self.options.items()]
        for text, names in (("biases folded into the batch normalization behind", self.folded),
                            ("arrays of the model left as they were", self.new),
                            ("names of the file not used", self.unused)):
            if names:
                lines.append(f"{len(names)} {text}: {_some(names)}")
        return "\n".join(lines)


def transfer(file, model, *, family=None, head="keep", strict=True, options=None):
    """Fill a model from a weight file that was read; the model changes only if all fits.

    Parameters
    ----------
    file : readers.WeightFile
    model : convnets.models.VGG, ResNet or SqueezeNet
    family : str or Family, optional
        Default: the family whose names are in the file.
    head : str
        ``"keep"``, or ``"new"`` to leave the model's last layer as it is.
    strict : bool
        Every array of the model must be in the file, and every name of the file be used.
    options : dict, optional
        Options of the network where they differ from the family's, such as
        ``{"stride_in": "3x3"}``.

    Returns
    -------
    Report

    Raises
    ------
    WeightsError
        If names, shapes or options do not fit, or values are NaN or infinite.
    """
    if head not in ("keep", "new"):
        raise WeightsError(f"head must be 'keep' or 'new', got {head!r}")
    chosen = _choose(file, model, family)
    all_slots = _slots(model, chosen, file.arrays)
    slots = [s for s in all_slots if head == "keep" or not s.head]
    passed_over = {name for s in all_slots if s not in slots for name in s.sources}
    found = [s for s in slots if all(name in file.arrays for name in s.sources)]
    used = {name for s in found for name in (*s.sources, s.bias) if name}
    unused = tuple(n for n in file.arrays if n not in used
                   and not n.endswith((*COUNTERS, OWN_NOTE, OWN_CHECK)))
    missing = [s for s in slots if s not in found]
    if strict:
        _refuse_misfits(file, model, chosen, missing,
                        [name for name in unused if name not in passed_over])
    arrays = _converted(file, model, found)
    changed = _set_options(model, file, chosen.options | (options or {}))
    chainer.serializers.NpzDeserializer(arrays, strict=False).load(model)
    new = sorted(model_arrays(model).keys() - arrays.keys())
    return Report(
        path=str(file.path), format=file.format, family=chosen.name, n_arrays=len(arrays),
        n_params=sum(arrays[name].size for name in arrays if "/avg_" not in name),
        options=changed, folded=tuple(s.bias for s in found if s.bias), new=tuple(new),
        unused=unused, preprocessing=chosen.preprocessing)


def own_family(note=None):
    """Return the family of npz files that hold our own names.

    Parameters
    ----------
    note : dict, optional
        What `convert` wrote into the file; without it the model's options stay.
    """
    note = note or {}
    return Family("convnets", ("npz",), CHAINER, {}, note.get("options", {}),
                  note.get("preprocessing", ""))


def own_note(file):
    """Return what `convert` wrote into an npz file, or None.

    Raises
    ------
    WeightsError
        If it is there but cannot be read.
    """
    if file.format != "npz" or OWN_NOTE not in file.arrays:
        return None
    try:
        note = json.loads(str(file.arrays[OWN_NOTE]))
        return {"options": dict(note["options"]), **note}
    except (ValueError, KeyError, TypeError) as e:
        raise WeightsError(f"{file.path}: its entry {OWN_NOTE!r} is damaged ({e}); convert the "
                           f"original file again") from e


def model_arrays(model, counters=False):
    """Return the arrays of a model that a file can fill, by path, without copying them.

    Parameters
    ----------
    model : chainer.Link
    counters : bool
        Also the numbers N of minibatches that batch normalization has seen.

    Returns
    -------
    dict
        Parameters and running averages.
    """
    collected = chainer.serializers.DictionarySerializer()
    collected.save(model)
    return {path: array for path, array in collected.target.items()
            if counters or not path.endswith(COUNTERS)}


def arrays_for(model, family):
    """Return the arrays of a model as a file of a family has them: what `transfer` undoes.

    Parameters
    ----------
    model : convnets.models.VGG, ResNet or SqueezeNet
    family : str
        The name of one of `families.FAMILIES` for this kind of network, from torch.

    Returns
    -------
    dict of str to array
        On the model's device. A bias in front of a batch normalization has moved into its mean.

    Raises
    ------
    WeightsError
        If there is no such family, its layouts are only known for reading, or the model computes
        with other options than those for which such files are.
    """
    known = {f.name: f for f in families(model)
             if all(convert in BACK for kind in f.dialect.values() for _, convert in kind.values())}
    if family not in known:
        raise WeightsError(f"unknown family {family!r} for writing a {type(model).__name__}; "
                           f"there are: {', '.join(known)}")
    chosen, targets = known[family], model_arrays(model)
    _refuse_options(model, chosen)
    for layer in layers(model):
        if layer.kind == "bn" and f"{layer.path_in_front}/b" in targets:
            mean, bias = f"{layer.path}/avg_mean", targets.pop(f"{layer.path_in_front}/b")
            targets[mean] = targets[mean] - bias
    found = {}
    for slot in _slots(model, chosen, {}):
        if slot.target in targets:
            (name,), layer = slot.sources, slot.convert.args[0]
            found[name] = BACK[slot.convert.func](layer, targets[slot.target])
    return found


def _refuse_options(model, family):
    wrong = [f"{name}={model.options[name]!r} (there: {value!r})"
             for name, value in family.options.items() if model.options[name] != value]
    if wrong:
        raise WeightsError(
            f"this {type(model).__name__} computes with {', '.join(wrong)}. Its weights would fit "
            f"a network of the {family.name} family and give it wrong scores without an error. "
            f"Export it as ONNX, which keeps the options, or train it with "
            + ", ".join(f"{name}={value!r}" for name, value in family.options.items()))


def n_class_in(file, model, family=None):
    """Return how many classes the weights of a file are for.

    Parameters
    ----------
    file : readers.WeightFile
    model : convnets.models.VGG, ResNet or SqueezeNet
        Of the same architecture, with any number of classes.
    family : str or Family, optional

    Returns
    -------
    int
        The model's own number if the file has no head.
    """
    bias = next(s for s in _slots(model, _choose(file, model, family), file.arrays)
                if s.head and s.target.endswith("/b"))
    (name,) = bias.sources
    return file.arrays[name].size if name in file.arrays else model_arrays(model)[bias.target].size


def _choose(file, model, family):
    """Return the family that was named, or the one that the names of the file tell."""
    if isinstance(family, Family):
        return family
    known = list(families(model))
    if file.format == "npz":
        known.insert(0, own_family(own_note(file)))
    if family is not None:
        named = [f for f in known if f.name == family]
        if not named:
            raise WeightsError(f"unknown family {family!r} for a {type(model).__name__} in a file "
                               f"of format {file.format}; there are: "
                               f"{', '.join(f.name for f in known)}")
        return named[0]
    known = [f for f in known if file.format in f.formats]
    if not known:
        raise WeightsError(f"{file.path}: no known weights of a {type(model).__name__} come in "
                           f"the format {file.format}")

    shares = [_n_found(file, _slots(model, f, file.arrays)) for f in known]
    best = known[shares.index(max(shares))]
    if not max(shares):
        raise WeightsError(
            f"{file.path}: none of its {len(file.arrays)} names is known for a "
            f"{type(model).__name__}; got {_some(list(file.arrays))}, expected names as in "
            + " or ".join(f"{f.name} ({_slots(model, f, {})[0].sources[0]})" for f in known))
    rivals = [f for f, share in zip(known, shares, strict=True)
              if share == max(shares) and f.options != best.options]
    if rivals:
        raise WeightsError(f"{file.path}: its names are those of more than one family, which "
                           f"differ in their options: say which by family="
                           + " or ".join(f"{f.name!r} ({f.options})" for f in (best, *rivals)))
    return best


def _n_found(file, slots):
    """Return how many of the names of layers that are not the head are in a file."""
    return sum(name in file.arrays for s in slots if not s.head for name in s.sources)


def _slots(model, family, arrays):
    """Return the slot of every array of the model, as a family names them."""
    targets = model_arrays(model)
    found = []
    for layer in layers(model):
        names = _names_of(layer.name, layer, family)
        for param, (templates, convert) in family.dialect[layer.kind].items():
            target = f"{layer.path}/{param}"
            if target in targets:   # convolutions in front of batch normalization have no bias
                bias = ""
                if param == "avg_mean" and f"{layer.path_in_front}/b" not in targets:
                    bias = _bias_in_front(layer, family, arrays)
                found.append(Slot(target, tuple(t.format(*names) for t in templates),
                                  partial(convert, layer), bias, layer.name in HEADS))
    return found


def _names_of(name, layer, family):
    return family.names[name].format(**layer.fields).split() if family.names else [layer.path]


def _bias_in_front(layer, family, arrays):
    """Return the name of the bias of the convolution in front, if the file has one."""
    if not family.names:
        return ""
    (template,), _ = family.dialect["conv"]["b"]
    name = template.format(*_names_of(layer.conv, layer, family))
    return name if name in arrays else ""


def _refuse_misfits(file, model, family, missing, unused):
    faults = []
    if missing:
        faults.append(f"lacks {_some([n for s in missing for n in s.sources])}")
    if unused:
        faults.append(f"has {_some(unused)}, which no layer of the model takes")
    if faults:
        raise WeightsError(
            f"{file.path}: taken for {family.name} weights of a {type(model).__name__}, it "
            + " and ".join(faults) + ". Is it the right model? strict=False loads what fits.")


def _converted(file, model, slots):
    """Return the arrays for the model by path, after all checks."""
    targets = model_arrays(model)
    arrays = {}
    for slot in slots:
        got = [file.arrays[name] for name in slot.sources]
        expected = targets[slot.target].shape
        try:
            array = slot.convert(*got)
            if slot.bias:
                array = array - file.arrays[slot.bias]
        except ValueError as e:   # a shape that cannot even be converted
            raise _misshapen(file, slot, got, expected) from e
        if array.shape != expected:
            raise _misshapen(file, slot, got, expected, array.shape)
        if not np.isfinite(array).all():
            raise WeightsError(f"{file.path}: {slot.sources[0]} has values that are NaN or "
                               f"infinite; the file is damaged, or its training went wrong")
        arrays[slot.target] = array
    return arrays


def _misshapen(file, slot, got, expected, converted=None):
    shapes = " and ".join(f"{name} {array.shape}" for name, array in
                          zip(slot.sources, got, strict=True))
    if converted and converted != got[0].shape:
        shapes += f", for us {converted},"
    remedy = (" The head is for another number of classes: head='new' keeps the model's own."
              if slot.head else "")
    return WeightsError(f"{file.path}: {shapes} does not fit {slot.target}, which is "
                        f"{expected}.{remedy}")


def _set_options(model, file, options):
    try:
        return model.set_options(**options)
    except ValueError as e:
        raise WeightsError(f"{file.path}: cannot set the options {options}: {e}") from e


def _some(names, n=4):
    names = list(names)
    return ", ".join(names[:n]) + (f", ... ({len(names)} in all)" if len(names) > n else "")
