"""The plans of the models as data: what a page needs to recompute them at other sizes.

Nothing here lists layers. Each family is built small, run once, and read from its graph.
"""

import inspect as signatures
from functools import cache
from itertools import takewhile
from operator import eq

import chainer
import numpy as np

from .. import inspect, models
from ..models import resnet, vgg

# Models are read at a sixteenth of their width, where the weights are few: all channels of the
# published ones are multiples of 16.
UNIT = 16


def default(build, name):
    """The default value of a constructor's argument."""
    return signatures.signature(build).parameters[name].default


def _vgg(n):
    config = [(n_channels // UNIT, n) for n_channels, _ in vgg.CONFIGS["vgg16"]]
    hidden = default(models.VGG, "hidden") // UNIT
    return models.VGG(config, in_shape=(3, 32, 32), hidden=hidden)


def _resnet(stride_in):
    return lambda n: models.ResNet((n,) * len(resnet.STAGES), width=1 / UNIT, stride_in=stride_in)


def _cifar(residual):
    return lambda n: models.CifarResNet(6 * n + 2, residual=residual, width=1 / UNIT)


def _cifar_family(residual):
    title = "residual, for CIFAR" if residual else "plain, for CIFAR"
    code = (f"models.CifarResNet({{layers}}, n_class={{n_class}}, residual={residual},"
            " width={width})")
    return {"title": title, "unit": UNIT, "repeats": "blocks", "depth": "same", "fixed": False,
            "named": "models.{name}(n_class={n_class})", "code": code,
            "builds": {"": _cifar(residual)}}  # fmt: skip


# builds: a constructor for each value of stride_in, from the number of repetitions in a stage.
# repeats: what a stage repeats. depth: stages have 'each' a number of it, or the 'same' number.
# fixed: the model takes images of one size only.
# named, code: Python for the published model and for a changed one, filled in by the page.
FAMILIES = {
    "LeNet5": {
        "title": "LeNet5", "unit": 1, "repeats": "", "depth": "", "fixed": True,
        "named": "models.LeNet5(n_class={n_class})", "code": "",
        "builds": {"": lambda n: models.LeNet5()},
    },
    "VGG": {
        "title": "VGG", "unit": UNIT, "repeats": "convolutions", "depth": "each", "fixed": False,
        "named": "models.{name}(n_class={n_class}, in_shape=({n_in}, {size}, {size}))",
        "code": "models.VGG({pairs}, n_class={n_class}, in_shape=({n_in}, {size}, {size}),"
                " hidden={hidden})",
        "builds": {"": _vgg},
    },
    "ResNet": {
        "title": "ResNet, for ImageNet", "unit": UNIT, "repeats": "blocks", "depth": "each",
        "fixed": False,
        "named": 'models.{name}(n_class={n_class}, stride_in="{stride_in}")',
        "code": 'models.ResNet({counts}, n_class={n_class}, stride_in="{stride_in}",'
                " width={width})",
        "builds": {name: _resnet(name) for name in resnet.STRIDE_IN},
    },
    "CIFAR": _cifar_family(True),
    "plain": _cifar_family(False),
}  # fmt: skip

CIFAR_DEPTHS = (20, 32, 44, 56, 110)

# name of a class in convnets.models: its family, and how often each stage repeats
MODELS = {
    "LeNet5": ("LeNet5", ()),
    **{f"VGG{depth}": ("VGG", tuple(n for _, n in vgg.CONFIGS[f"vgg{depth}"]))
       for depth in (16, 19)},
    **{f"ResNet{depth}": ("ResNet", blocks) for depth, blocks in resnet.BLOCKS.items()},
    **{f"{kind}{depth}": (family, ((depth - 2) // 6,) * len(resnet.CIFAR_STAGES))
       for kind, family in (("ResNet", "CIFAR"), ("Plain", "plain")) for depth in CIFAR_DEPTHS},
}  # fmt: skip


def published(name):
    """What a model's class says of itself, as JSON values: its family, n_class, input, counts."""
    build = getattr(models, name)
    family, counts = MODELS[name]
    in_shape = default(build, "in_shape") if family == "VGG" else (
        (3, 32, 32) if issubclass(build, models.CifarResNet) else build.in_shape)  # fmt: skip
    return {"name": name, "family": family, "counts": list(counts), "n_in": in_shape[0],
            "size": in_shape[1], "n_class": default(build, "n_class")}  # fmt: skip


@cache
def plans(family):
    """A family's stages for each value of stride_in: {value: [stage, ...]}.

    A stage has `name`; `first`, the layers it has in any case; and where it can be repeated
    `more`, the layers of one repetition, `start`, the number in their names, and `last`, what
    comes behind all repetitions. A layer has `name`, `kind`, and of `out` (channels), `k`, `s`, `p`
    (window, stride, pad), `cover` (cover_all), `bias` and `back` what is not 0 or usual.
    """
    unit, builds = FAMILIES[family]["unit"], FAMILIES[family]["builds"]
    state = np.random.get_state()
    try:
        return {name: _plan([_read(build(n), unit) for n in (1, 2, 3)])
                for name, build in builds.items()}  # fmt: skip
    finally:
        np.random.set_state(state)


def layers(name):
    """All layers of a published model in the order of computation, as `plans` has them."""
    family, counts = MODELS[name]
    counts, found = iter(counts), []
    for stage in next(iter(plans(family).values())):
        found += stage["first"]
        for i in range(next(counts) - 1 if "more" in stage else 0):
            number = str(stage["start"] + i)
            found += [layer | {"name": layer["name"].replace("{}", number)}
                      for layer in stage["more"]]  # fmt: skip
        found += stage.get("last", [])
    return found


def _plan(runs):
    stages = [_stage(name, *(run[name] for run in runs)) for name in runs[0]]
    del stages[-1]["first"][-1]["out"]  # the scores: one for each class, not a matter of width
    return stages


def _stage(name, once, twice, thrice):
    """What a stage repeats, from its layers with one, two and three repetitions."""
    if once == twice:
        return {"name": name, "first": once}
    same = _common(once, twice)
    more = twice[same : same + len(twice) - len(once)]
    following = thrice[same + len(more) : same + 2 * len(more)]
    numbered = [_numbered(a["name"], b["name"]) for a, b in zip(more, following, strict=True)]
    start = next(number for _, number in numbered if number)
    more = [layer | {"name": name} for layer, (name, _) in zip(more, numbered, strict=True)]
    return {"name": name, "first": once[:same], "more": more, "start": start, "last": once[same:]}


def _common(a, b):
    """How many items two sequences have in common before the first difference."""
    return sum(takewhile(bool, map(eq, a, b)))


def _numbered(a, b):
    """('res2/{}/conv', 1) from 'res2/1/conv' and 'res2/2/conv'."""
    if a == b:
        return a, None
    place = _common(a, b)
    return f"{a[:place]}{{}}{a[place + 1 :]}", int(a[place])


def _read(model, unit):
    """The layers of each stage of a model: {stage: [layer, ...]}."""
    _, height, width = model.in_shape
    size = (32, 32) if model.any_size else (height, width)
    # Two images: batch normalization warns when it has one value per channel.
    x = chainer.Variable(np.zeros((2, model.in_shape[0], *size), np.float32))
    owners = inspect._owners(model)
    found, known = {}, {id(x.node): 0}
    for name, h in _outputs(model, x):
        found[name] = list(_new_layers(h, owners, known, unit))
    return found if len(found) > 1 else _split_at_links(*found.values())


def _outputs(model, x):
    """(name, Variable) behind each stage; one for all of a model without stages."""
    try:
        stages = model.stages()
    except NotImplementedError:
        stages = [("", model.logits)]
    for name, stage in stages:
        x = stage(x)
        yield name, x


def _new_layers(y, owners, known, unit):
    """The layers up to `y` whose outputs are not `known`, the numbers of outputs by their ids."""
    for node in inspect._functions(y):
        outputs = [id(out()) for out in node.outputs if out() is not None]
        if outputs[0] in known:
            continue
        inputs = [known[id(v)] for v in node.inputs if id(v) in known]
        if node.label in inspect.VIEWS:
            known.update(dict.fromkeys(outputs, inputs[0]))
            continue
        number = max(known.values()) + 1
        known.update(dict.fromkeys(outputs, number))
        layer = {"name": inspect._owner(node, owners),
                 "kind": inspect.KINDS.get(node.label, node.label)}
        layer |= READ.get(node.label, lambda node, unit: {})(node, unit)
        # Where the inputs were made, counted back from here; most often one step.
        back = [number - i for i in inputs]
        layer["back"] = back if back != [1] else None
        yield {key: value for key, value in layer.items() if value or key == "name"}


def _convolution(node, unit):
    n_out, _, k, _ = node.inputs[1].shape
    window = {"k": k, "s": node.sy, "p": node.ph}
    return {"out": n_out * unit, **window, "bias": len(node.inputs) > 2}


def _linear(node, unit):
    return {"out": node.inputs[1].shape[0] * unit, "bias": len(node.inputs) > 2}


def _max_pooling(node, unit):
    return {"k": node.ksize[0], "s": node.stride[0], "p": node.pad[0], "cover": node.cover_all}


def _average_pooling(node, unit):
    height = node.inputs[0].shape[2]
    if node.kh != height:
        raise NotImplementedError(f"average pooling with a window of {node.kh} on {height} pixels")
    return {}  # over the whole map, whatever its size


def _subsampling(node, unit):
    return {"s": node.slices[2].step}


def _padded_channels(node, unit):
    return {"out": node.outputs[0]().shape[1] * unit}


READ = {
    "Convolution2DFunction": _convolution,
    "LinearFunction": _linear,
    "MaxPoolingND": _max_pooling,
    "AveragePooling2D": _average_pooling,
    "GetItem": _subsampling,
    "Concat": _padded_channels,
}


def _split_at_links(layers):
    """Stages of a model that states none: each link with what follows it."""
    stages, name = {}, ""
    for layer in layers:
        if layer["name"]:
            name = layer["name"]
        stages.setdefault(name, []).append(layer)
    return stages
