"""Weights into models: from a name or a path to a report, to a model, or to an npz of ours."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import chainer
import numpy as np

from .. import devices, models
from ..files import written_whole
from . import preprocess, registry
from .errors import WeightsError
from .locate import locate
from .readers import read
from .transfer import OWN_CHECK, OWN_NOTE, model_arrays, n_class_in, own_note, transfer

ARCHITECTURES = {"vgg16": models.VGG16, "vgg19": models.VGG19, "resnet50": models.ResNet50,
                 "resnet101": models.ResNet101, "resnet152": models.ResNet152,
                 "squeezenet": models.SqueezeNet}

TOLERANCE = 1e-3               # of the scores' standard deviation, between two machines


def load_weights(model, source, *, family=None, head="keep", strict=True, options=None,
                 verify=False):
    """Fill a model from a weight file; the model changes only if everything fits.

    The format is told by the file's content, the family by its names. What no file tells (where
    the strides are, how the stem pools, the epsilon of batch normalization) is set from the
    family; the images it wants are left in ``model.preprocessing``.

    Parameters
    ----------
    model : convnets.models.VGG, ResNet or SqueezeNet
    source : str or path
        A name in the registry, such as ``"resnet50/imagenet"``, or a file: Caffe, Chainer npz,
        torch, safetensors, Keras or ONNX.
    family : str or Family, optional
        Where names alone do not tell; see `families.FAMILIES`.
    head : str
        ``"keep"``, or ``"new"`` to leave the model's last layer as it is, for other classes.
    strict : bool
        Every array of the model must be in the file, and every name of the file be used.
    options : dict, optional
        Options of the network where they differ from the family's, such as
        ``{"stride_in": "3x3"}``.
    verify : bool
        Compute the scores that `convert` stored with the weights again, and compare.

    Returns
    -------
    Report

    Raises
    ------
    WeightsError
        If the file cannot be found or read, or does not fit the model; if an option is unknown.
    """
    return _fill(model, read(locate(source)), registry.find(source), verify, family=family,
                 head=head, strict=strict, options=options)


def _fill(model, file, entry, verify=False, *, family=None, **how):
    note = own_note(file)
    if family is None and note is None and entry is not None:
        family = entry.family
    report = transfer(file, model, family=family, **how)
    if entry and not note:   # one family's files may differ in it
        report = replace(report, preprocessing=entry.preprocessing)
    settings = report.preprocessing
    model.preprocessing = preprocess.SETTINGS[settings] if settings else None
    if verify:
        _verify(file, model)
    return report


def load(name, weights="auto", *, device="@numpy", n_class=None, **options):
    """Return a model with its weights, ready to predict.

    Parameters
    ----------
    name : str
        A key of `ARCHITECTURES`, such as ``"resnet50"``.
    weights : str or path, optional
        A file, a name in the registry, or ``"auto"`` for ``"<name>/imagenet"``.
        None leaves the model untrained.
    device : str
        ``"cpu"``, ``"@cupy:0"`` or another name that `convnets.devices.get` takes.
    n_class : int, optional
        Default: as many as the file has. Another number gives the model a new, untrained head.
    options
        `load_weights`'s.

    Returns
    -------
    convnets.models.VGG, ResNet or SqueezeNet
        With ``report`` and ``preprocessing``.

    Raises
    ------
    WeightsError
        As `load_weights`, and if there is no such network.
    DeviceError
        If the device is not there, or its memory is full.
    """
    device = devices.get(device)
    if name not in ARCHITECTURES:
        raise WeightsError(f"unknown network {name!r}; there are: {', '.join(ARCHITECTURES)}")
    source = f"{name}/imagenet" if weights == "auto" else weights
    file = None if weights is None else read(locate(source))    # errors before the long part
    model = ARCHITECTURES[name](n_class or 1000)
    if file is not None:
        stored = n_class_in(file, model, options.get("family"))
        if n_class is None and stored != 1000:
            model = ARCHITECTURES[name](stored)
        elif n_class not in (None, stored):
            options.setdefault("head", "new")
        model.report = _fill(model, file, registry.find(source), **options)
    with devices.told_when_full(device, "a smaller network"):
        model.to_device(device)
    return model


def convert(src, dst, arch, **options):
    """Write the weights of a file as an npz of ours, with all that is needed to use them right.

    The npz holds the model's arrays by our names, so `chainer.serializers.load_npz` takes it too;
    beside them, how it was made (architecture, options, preprocessing, the source's sha256) and
    the scores of one made-up image, with which a load can be verified.

    Parameters
    ----------
    src : str or path
        As `load_weights` takes it.
    dst : path
        The npz to write, whole or not at all.
    arch : str
        A key of `ARCHITECTURES`.
    options
        `load_weights`'s.

    Returns
    -------
    Report

    Raises
    ------
    WeightsError
        As `load`.
    """
    if Path(dst).suffix != ".npz":
        raise WeightsError(f"{dst}: the converted file is an npz; give it that ending")
    model = load(arch, src, **options)
    note = {
        "arch": arch, "family": model.report.family, "options": model.options,
        "preprocessing": model.report.preprocessing,
        "source": {"name": Path(model.report.path).name, "sha256": _sha256(model.report.path)},
    }
    arrays = model_arrays(model, counters=True) | {
        OWN_NOTE: np.array(json.dumps(note)), OWN_CHECK: made_up_scores(model)}
    with written_whole(dst) as file:
        np.savez(file, **arrays)
    return model.report


def made_up_scores(model):
    """Return the scores of one image of noise, in test mode: a fingerprint of model and weights.

    Parameters
    ----------
    model : convnets.models.ImageClassifier
        On any device.

    Returns
    -------
    numpy.ndarray, shape (n_class,), float32
    """
    n_channels, *size = (model.in_shape[0], 96, 96) if model.any_size else model.in_shape
    x = np.random.RandomState(0).standard_normal((1, n_channels, *size)).astype(np.float32)
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        y = model.logits(model.device.send(x))
    return chainer.backends.cuda.to_cpu(y.array)[0]


def _verify(file, model):
    if OWN_CHECK not in file.arrays:
        raise WeightsError(f"{file.path} holds no scores to verify with; `convnets convert` "
                           f"writes them")
    expected = file.arrays[OWN_CHECK]
    got = made_up_scores(model)
    if got.shape != expected.shape:
        raise WeightsError(f"{file.path}: cannot verify a model of {len(got)} classes with the "
                           f"scores of {len(expected)}")
    distance = abs(got - expected).max() / expected.std()
    if not distance < TOLERANCE:
        raise WeightsError(f"{file.path}: the model's scores differ from those stored with its "
                           f"weights by {distance:.2g} standard deviations, expected less than "
                           f"{TOLERANCE:g}. Were options changed?")


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
