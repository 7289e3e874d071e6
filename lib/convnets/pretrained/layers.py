"""What `chainer.links.VGG16Layers` and `ResNet50Layers` offer, for the models of this library.

Layers go by the names of the papers' releases, which Chainer took over: ``conv5_3``, ``fc7``,
``res5``, ``pool5``, ``prob``. Differences, all on purpose: features come from test mode, so that
batch normalization is not changed by looking at it; a photograph keeps its aspect unless
``aspect="squash"`` asks for Chainer's way; floats in 0..1 do not turn black; and a layer that is
not there is an error.
"""

from dataclasses import replace

import chainer
import chainer.functions as F

from ..models import VGG, ResNet
from .preprocess import SETTINGS, as_list

PUBLISHED = "published"
ORIGINAL = ((VGG, SETTINGS["oxford"]), (ResNet, SETTINGS["msra"]))    # what Chainer's models take


def functions(model):
    """Return the layers of a model by the originals' names, in forward order.

    Parameters
    ----------
    model : convnets.models.ImageClassifier
        With `stages`, such as a VGG, a ResNet or a SqueezeNet.

    Returns
    -------
    dict of str to function
        Each takes the output of the one before, the first one images. ``prob`` is the last.
    """
    found = _vgg_functions(model) if isinstance(model, VGG) else _stage_functions(model)
    return {**found, "prob": F.softmax}


def _vgg_functions(model):
    found = {}
    for b, block in enumerate(model, 1):
        for c in range(1, block.n_convs + 1):
            conv = block[f"conv{c}"]
            found[f"conv{b}_{c}"] = lambda h, conv=conv: F.relu(conv(h))
        found[f"pool{b}"] = lambda h: F.max_pooling_2d(h, 2, 2)
    # Our tutorial's block counts its linear layers from 4, the release goes on from pool5.
    linear = model.stages()[-3:]
    return found | {f"fc{n}": stage for n, (_, stage) in enumerate(linear, len(model) + 1)}


def _stage_functions(model):
    found = dict(model.stages())
    *_, pool, _ = found
    if pool.startswith("pool"):
        averages = found[pool]
        found[pool] = lambda h: F.reshape(averages(h), h.shape[:2])     # (N, C), not (N, C, 1, 1)
    return found


def prepare(model, image, size=PUBLISHED, aspect="keep"):
    """Return one photograph as the model wants it.

    The settings are ``model.preprocessing``, which `load_weights` sets; without it, those of the
    original release, as in Chainer.

    Parameters
    ----------
    model : convnets.models.ImageClassifier
    image : PIL.Image.Image, path or array
        As `Preprocessing.prepare` takes it.
    size : int, (int, int) or None
        Height and width, by default as published. With ``aspect="squash"`` also a pair of width
        and height. None leaves the photograph's size.
    aspect : str
        ``"keep"`` resizes to a little more than `size` and cuts out the middle; ``"squash"``
        resizes both sides to `size`, as Chainer does.

    Returns
    -------
    numpy.ndarray, shape (3, size, size), float32
    """
    return _settings(model, size, aspect).prepare(image)


def extract(model, images, layers=None, size=PUBLISHED, aspect="keep"):
    """Return the outputs of some layers for photographs, in test mode.

    Backpropagation is left as configured: inside ``chainer.no_backprop_mode()`` it takes less
    memory.

    Parameters
    ----------
    model : convnets.models.ImageClassifier
    images : image or iterable of images
        As `Preprocessing.batch` takes them.
    layers : sequence of str, optional
        Names that `functions` has. Default: the features in front of the layer that scores the
        classes: ``fc7`` of a VGG16, ``pool5`` of a ResNet, ``fire9`` of a SqueezeNet.
    size, aspect
        As in `prepare`.

    Returns
    -------
    dict of str to chainer.Variable

    Raises
    ------
    ValueError
        If there is no such layer, or the images do not fit.
    """
    known = functions(model)
    layers = [_features(list(known))] if layers is None else _checked(model, layers, known)
    x = _settings(model, size, aspect).batch(images)
    with chainer.using_config("train", False):
        return _outputs(model, x, layers, known)


def predict(model, images, oversample=True, aspect="keep", batch=40):
    """Return the class probabilities of photographs.

    Parameters
    ----------
    model : convnets.models.ImageClassifier
    images : image or iterable of images
        As `Preprocessing.batch` takes them.
    oversample : bool
        Average over ten crops: four corners and the middle, then the same mirrored.
    aspect : str
        As in `prepare`.
    batch : int
        Crops in a forward pass.

    Returns
    -------
    chainer.Variable, shape (N, n_class)
    """
    settings = replace(_preprocessing(model), aspect=aspect)
    n_crops = 10 if oversample else 1
    at_once = max(1, batch // n_crops)
    images, known, parts = as_list(images), functions(model), []
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        for i in range(0, len(images), at_once):
            x = settings.batch(images[i:i + at_once], oversample)
            y = _outputs(model, x, ["prob"], known)["prob"]
            parts.append(F.sum(F.reshape(y, (-1, n_crops, y.shape[1])), axis=1) / n_crops)
        return F.concat(parts, axis=0)


def _outputs(model, x, layers, known):
    """Return what some layers make of a minibatch; what follows the last is not computed."""
    missing, found = set(layers), {}
    if model.any_size or not all(name.startswith(("conv", "pool")) for name in missing):
        model.check_input(x)
    h = model.device.send(x)
    for name, function in known.items():
        h = function(h)
        if name in missing:
            found[name] = h
            missing.remove(name)
        if not missing:
            return found


def _features(names):
    """Return the layer in front of the scores, which an average over the map may follow."""
    *_, features, _, after, _ = names
    return features if after.startswith("pool") else names[-3]


def _checked(model, layers, known):
    if isinstance(layers, str):
        raise ValueError(f"layers must be a list of names, got {layers!r}; use [{layers!r}]")
    unknown = [name for name in layers if name not in known]
    if unknown or not layers:
        raise ValueError(f"{type(model).__name__} has no layer {', '.join(map(repr, unknown))}; "
                         f"there are: {', '.join(known)}")
    return list(layers)


def _settings(model, size, aspect):
    settings = _preprocessing(model)
    if size is None:
        return replace(settings, size=None, resize=None)
    size = settings.size if size == PUBLISHED else size
    if aspect == "squash":
        return replace(settings, size=None, resize=size, aspect="squash")
    if not isinstance(size, int):
        width, height = size
        if width != height:
            raise ValueError(f"size={size} does not keep the aspect: give one number, or "
                             f"aspect='squash'")
        size = width
    return replace(settings.at(size), aspect=aspect)


def _preprocessing(model):
    settings = getattr(model, "preprocessing", None)
    for kind, original in ORIGINAL:
        if settings is None and isinstance(model, kind):
            settings = original
    if settings is None:
        raise ValueError(f"it is not known what photographs must be made into for "
                         f"{type(model).__name__}: set model.preprocessing to a Preprocessing")
    return settings
