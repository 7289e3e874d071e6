"""How the published weight files name and store their layers, as data.

A family is a *dialect* (how its framework stores a convolution, a linear layer, a batch
normalization) and, for each kind of network, *names* (what it calls our layers). Families also
know what no file tells: where the strides are, how the stem pools, the epsilon of batch
normalization, and what the images must look like. A wrong one of these raises nothing and only
makes the numbers wrong, so they are set from here and never guessed.
"""

from dataclasses import dataclass, field
from itertools import count

from ..models.resnet import STAGES, ResNet
from ..models.squeezenet import FIRES, POOLED, SqueezeNet
from ..models.vgg import VGG
from .errors import WeightsError

# Conversions from the arrays of a file to one of ours; `layer` is a `Layer`.

def _same(layer, array):
    return array


def _rows(layer, array):
    """A linear layer (out, in), or the same as a convolution (out, C, H, W) over the whole map."""
    return array.reshape(len(array), -1)


def _columns(layer, array):
    return array.T


def _columns_hwc(layer, array):
    """A linear layer (in, out) behind a map that was flattened as (H, W, C)."""
    n_channels, height, width = layer.map_shape
    kernels = array.reshape(height, width, n_channels, -1)
    return kernels.transpose(3, 2, 0, 1).reshape(array.shape[1], -1)


def _hwio_to_oihw(layer, array):
    return array.transpose(3, 2, 0, 1)


def _divided(layer, array, factor):
    """Caffe stores sums of moving averages and the factor they were summed with."""
    factor = float(factor.reshape(()))
    return array / factor if factor else array * 0


# The same backwards, for files that we write. A linear layer is (out, in) there, too.
BACK = {_same: _same, _rows: _same}


# kind of layer: our parameter: (names in the file, conversion).
# {0} is the layer's name; in Caffe {0} is the BatchNorm layer and {1} the Scale layer behind it.
# A "flat" layer is the linear layer that flattens a map.
def _dialect(conv, linear, flat, bias, bn):
    with_bias = {"b": ((bias,), _same)}
    return {"conv": {"W": conv} | with_bias, "linear": {"W": linear} | with_bias,
            "flat": {"W": flat} | with_bias,
            "bn": dict(zip(("gamma", "beta", "avg_mean", "avg_var"), bn, strict=True))}


TORCH = _dialect(
    conv=(("{0}.weight",), _same), linear=(("{0}.weight",), _rows), flat=(("{0}.weight",), _rows),
    bias="{0}.bias", bn=[((f"{{0}}.{name}",), _same) for name in (
        "weight", "bias", "running_mean", "running_var")])
KERAS = _dialect(
    conv=(("{0}/kernel",), _hwio_to_oihw), linear=(("{0}/kernel",), _columns),
    flat=(("{0}/kernel",), _columns_hwc), bias="{0}/bias",
    bn=[((f"{{0}}/{name}",), _same) for name in (
        "gamma", "beta", "moving_mean", "moving_variance")])
CAFFE = _dialect(
    conv=(("{0}/0",), _same), linear=(("{0}/0",), _rows), flat=(("{0}/0",), _rows), bias="{0}/1",
    bn=[(("{1}/0",), _same), (("{1}/1",), _same),
        (("{0}/0", "{0}/2"), _divided), (("{0}/1", "{0}/2"), _divided)])
CHAINER = _dialect(
    conv=(("{0}/W",), _same), linear=(("{0}/W",), _rows), flat=(("{0}/W",), _rows), bias="{0}/b",
    bn=[((f"{{0}}/{name}",), _same) for name in ("gamma", "beta", "avg_mean", "avg_var")])
# Keras's kernels as tf2onnx leaves them in an ONNX file: those of convolutions are transposed.
KERAS_ONNX = _dialect(
    conv=(("{0}/convolution/ReadVariableOp:0",), _same),
    linear=(("{0}/MatMul/ReadVariableOp:0",), _columns),
    flat=(("{0}/MatMul/ReadVariableOp:0",), _columns_hwc), bias="{0}/Squeeze:0",
    bn=[((), _same)] * 4)

# Names that hold nothing a network computes with.
COUNTERS = ("num_batches_tracked", "/N")

# The layers of a VGG: block b, convolution c of it; position t among torch's `features`.
VGG_NAMES = {
    "torchvision": {"conv": "features.{t}", "fc4": "classifier.0", "fc5": "classifier.3",
                    "fc6": "classifier.6"},
    "timm": {"conv": "features.{t}", "fc4": "pre_logits.fc1", "fc5": "pre_logits.fc2",
             "fc6": "head.fc"},
    "keras": {"conv": "block{b}_conv{c}", "fc4": "fc1", "fc5": "fc2", "fc6": "predictions"},
    "keras-onnx": {"conv": "functional_1/block{b}_conv{c}_1", "fc4": "functional_1/fc1_1",
                   "fc5": "functional_1/fc2_1", "fc6": "functional_1/predictions_1"},
    "caffe": {"conv": "conv{b}_{c}", "fc4": "fc6", "fc5": "fc7", "fc6": "fc8"},
    "chainercv": {"conv": "conv{b}_{c}/conv", "fc4": "fc6", "fc5": "fc7", "fc6": "fc8"},
    "chainercv2": {"conv": "features/stage{b}/unit{c}/conv", "fc4": "output/classifier/fc1/fc",
                   "fc5": "output/classifier/fc2/fc", "fc6": "output/classifier/fc3"},
}

# The layers of a ResNet: stage s = 2 ... 5, block i = 0, 1, ... of it; n, z = s - 1, s - 2 and
# j = i + 1; `letter` as the authors' release counts blocks, `chainer` as Chainer does.
RESNET_NAMES = {
    "torchvision": {
        "conv1": "conv1", "bn1": "bn1", "fc6": "fc",
        "conv1x1a": "layer{n}.{i}.conv1", "bn_a": "layer{n}.{i}.bn1",
        "conv3x3b": "layer{n}.{i}.conv2", "bn_b": "layer{n}.{i}.bn2",
        "conv1x1c": "layer{n}.{i}.conv3", "bn_c": "layer{n}.{i}.bn3",
        "conv1x1r": "layer{n}.{i}.downsample.0", "bn_r": "layer{n}.{i}.downsample.1"},
    "huggingface": {
        "conv1": "resnet.embedder.embedder.convolution",
        "bn1": "resnet.embedder.embedder.normalization", "fc6": "classifier.1",
        **{kind: f"resnet.encoder.stages.{{z}}.layers.{{i}}.{layer}"
           for kind, layer in (
               ("conv1x1a", "layer.0.convolution"), ("bn_a", "layer.0.normalization"),
               ("conv3x3b", "layer.1.convolution"), ("bn_b", "layer.1.normalization"),
               ("conv1x1c", "layer.2.convolution"), ("bn_c", "layer.2.normalization"),
               ("conv1x1r", "shortcut.convolution"), ("bn_r", "shortcut.normalization"))}},
    "keras": {
        "conv1": "conv1_conv", "bn1": "conv1_bn", "fc6": "predictions",
        "conv1x1a": "conv{s}_block{j}_1_conv", "bn_a": "conv{s}_block{j}_1_bn",
        "conv3x3b": "conv{s}_block{j}_2_conv", "bn_b": "conv{s}_block{j}_2_bn",
        "conv1x1c": "conv{s}_block{j}_3_conv", "bn_c": "conv{s}_block{j}_3_bn",
        "conv1x1r": "conv{s}_block{j}_0_conv", "bn_r": "conv{s}_block{j}_0_bn"},
    "caffe": {
        "conv1": "conv1", "bn1": "bn_conv1 scale_conv1", "fc6": "fc1000",
        "conv1x1a": "res{letter}_branch2a", "bn_a": "bn{letter}_branch2a scale{letter}_branch2a",
        "conv3x3b": "res{letter}_branch2b", "bn_b": "bn{letter}_branch2b scale{letter}_branch2b",
        "conv1x1c": "res{letter}_branch2c", "bn_c": "bn{letter}_branch2c scale{letter}_branch2c",
        "conv1x1r": "res{letter}_branch1", "bn_r": "bn{letter}_branch1 scale{letter}_branch1"},
    "chainer": {
        "conv1": "conv1", "bn1": "bn1", "fc6": "fc6",
        **{kind: f"res{{s}}/{{chainer}}/{layer}"
           for kind, layer in (
               ("conv1x1a", "conv1"), ("bn_a", "bn1"), ("conv3x3b", "conv2"), ("bn_b", "bn2"),
               ("conv1x1c", "conv3"), ("bn_c", "bn3"), ("conv1x1r", "conv4"), ("bn_r", "bn4"))}},
    "chainercv": {
        "conv1": "conv1/conv", "bn1": "conv1/bn", "fc6": "fc6",
        **{kind: f"res{{s}}/{{chainer}}/{layer}"
           for kind, layer in (
               ("conv1x1a", "conv1/conv"), ("bn_a", "conv1/bn"),
               ("conv3x3b", "conv2/conv"), ("bn_b", "conv2/bn"),
               ("conv1x1c", "conv3/conv"), ("bn_c", "conv3/bn"),
               ("conv1x1r", "residual_conv/conv"), ("bn_r", "residual_conv/bn"))}},
    "chainercv2": {
        "conv1": "features/init_block/conv/conv", "bn1": "features/init_block/conv/bn",
        "fc6": "output/fc",
        **{kind: f"features/stage{{n}}/unit{{j}}/{layer}"
           for kind, layer in (
               ("conv1x1a", "body/conv1/conv"), ("bn_a", "body/conv1/bn"),
               ("conv3x3b", "body/conv2/conv"), ("bn_b", "body/conv2/bn"),
               ("conv1x1c", "body/conv3/conv"), ("bn_c", "body/conv3/bn"),
               ("conv1x1r", "identity_conv/conv"), ("bn_r", "identity_conv/bn"))}},
}

# The layers of a SqueezeNet: module `fire`, at position t among torch's `features`.
SQUEEZENET_NAMES = {
    "caffe": {"conv1": "conv1", "conv10": "conv10",
              **{layer: f"{{fire}}/{layer}" for layer in ("squeeze1x1", "expand1x1", "expand3x3")}},
    "torchvision": {"conv1": "features.0", "conv10": "classifier.1",
                    "squeeze1x1": "features.{t}.squeeze", "expand1x1": "features.{t}.expand1x1",
                    "expand3x3": "features.{t}.expand3x3"},
}


@dataclass(frozen=True)
class Family:
    """Files of one origin.

    Attributes
    ----------
    name : str
    formats : tuple of str
        File formats it comes in, see `readers.WeightFile`.
    dialect : dict
        How a layer of each kind is stored, such as `TORCH`.
    names : dict
        What our layers are called, see `VGG_NAMES`, `RESNET_NAMES` and `SQUEEZENET_NAMES`.
    options : dict
        The model's options that these weights were trained with, see `ResNet.set_options`.
    preprocessing : str
        A key of `preprocess.SETTINGS`.
    """

    name: str
    formats: tuple
    dialect: dict
    names: dict
    options: dict = field(default_factory=dict)
    preprocessing: str = ""


_FROM_TORCH = ("torch", "safetensors", "onnx")
_TORCH_OPTIONS = {"stride_in": "3x3", "stem_pool": "torch", "bn_eps": 1e-5}
_CAFFE_OPTIONS = {"stride_in": "1x1", "stem_pool": "caffe", "bn_eps": 1e-5}

# kind of network: its families. The one with most of its names in a file is taken; of equals the
# first, unless they differ in their options: then the family must be named.
FAMILIES = {
    VGG: (
        Family("torchvision", _FROM_TORCH, TORCH, VGG_NAMES["torchvision"],
               preprocessing="torchvision"),
        Family("timm", _FROM_TORCH, TORCH, VGG_NAMES["timm"], preprocessing="torchvision"),
        Family("keras", ("hdf5",), KERAS, VGG_NAMES["keras"], preprocessing="keras"),
        Family("keras-onnx", ("onnx",), KERAS_ONNX, VGG_NAMES["keras-onnx"],
               preprocessing="keras"),
        Family("caffe", ("caffe",), CAFFE, VGG_NAMES["caffe"], preprocessing="oxford"),
        Family("chainer", ("npz",), CHAINER, VGG_NAMES["caffe"], preprocessing="oxford"),
        Family("chainercv", ("npz",), CHAINER, VGG_NAMES["chainercv"],
               preprocessing="chainercv-vgg"),
        Family("chainercv2", ("npz",), CHAINER, VGG_NAMES["chainercv2"],
               preprocessing="torchvision"),
    ),
    ResNet: (
        Family("torchvision", _FROM_TORCH, TORCH, RESNET_NAMES["torchvision"], _TORCH_OPTIONS,
               "torchvision"),
        Family("huggingface", _FROM_TORCH, TORCH, RESNET_NAMES["huggingface"], _TORCH_OPTIONS,
               "huggingface"),
        Family("keras", ("hdf5",), KERAS, RESNET_NAMES["keras"],
               {"stride_in": "1x1", "stem_pool": "torch", "bn_eps": 1.001e-5}, "keras"),
        Family("caffe", ("caffe",), CAFFE, RESNET_NAMES["caffe"], _CAFFE_OPTIONS, "msra"),
        # Chainer converts the authors' files and runs them with its own default epsilon.
        Family("chainer", ("npz",), CHAINER, RESNET_NAMES["chainer"],
               {**_CAFFE_OPTIONS, "bn_eps": 2e-5}, "msra"),
        # The next two pairs share their names: only who has the file knows where the stride is.
        Family("chainercv", ("npz",), CHAINER, RESNET_NAMES["chainercv"],
               {**_CAFFE_OPTIONS, "bn_eps": 2e-5}, "chainercv-resnet"),         # arch="he"
        Family("chainercv-fb", ("npz",), CHAINER, RESNET_NAMES["chainercv"],
               {**_CAFFE_OPTIONS, "stride_in": "3x3", "bn_eps": 2e-5}, "chainercv-resnet"),
        Family("chainercv2", ("npz",), CHAINER, RESNET_NAMES["chainercv2"],
               {**_TORCH_OPTIONS, "stride_in": "1x1"}, "torchvision"),
        Family("chainercv2-b", ("npz",), CHAINER, RESNET_NAMES["chainercv2"], _TORCH_OPTIONS,
               "torchvision"),                                                  # resnet50b, ...
    ),
    SqueezeNet: (
        Family("torchvision", _FROM_TORCH, TORCH, SQUEEZENET_NAMES["torchvision"],
               preprocessing="torchvision"),
        Family("caffe", ("caffe",), CAFFE, SQUEEZENET_NAMES["caffe"], preprocessing="squeezenet"),
    ),
}


def families(model):
    """Return the families that know networks of this kind.

    Parameters
    ----------
    model : chainer.Link

    Returns
    -------
    tuple of Family

    Raises
    ------
    WeightsError
        If there are none.
    """
    for kind, known in FAMILIES.items():
        if isinstance(model, kind):
            return known
    raise WeightsError(f"{type(model).__name__}: published weights are known for "
                       f"{', '.join(kind.__name__ for kind in FAMILIES)} only. For any other model "
                       f"use chainer.serializers.load_npz.")


@dataclass(frozen=True)
class Layer:
    """One layer of ours that has weights.

    Attributes
    ----------
    path : str
        Where it is in the model, such as ``res2/0/bn_a``.
    kind : str
        ``"conv"``, ``"linear"``, ``"flat"`` (linear, of a flattened map) or ``"bn"``.
    name : str
        Its key in a family's names.
    fields : dict
        What fills the placeholders there.
    conv : str, optional
        Key of the convolution in front of a batch normalization.
    map_shape : tuple of int, optional
        (C, H, W) of the map that a flat layer takes.
    """

    path: str
    kind: str
    name: str
    fields: dict = field(default_factory=dict)
    conv: str = ""
    map_shape: tuple = ()

    @property
    def path_in_front(self):
        """Where the convolution `conv` is in the model, a str."""
        return f"{self.path.rpartition('/')[0]}/{self.conv}".lstrip("/")


HEADS = ("fc6", "conv10")  # the layer that gives one score per class


def layers(model):
    """Return the layers of a model that have weights, in forward order.

    Parameters
    ----------
    model : convnets.models.VGG, ResNet or SqueezeNet

    Returns
    -------
    list of Layer
    """
    return next(find(model) for kind, find in LAYERS.items() if isinstance(model, kind))


def _vgg_layers(model):
    found, position = [], count()
    for b, block in enumerate(model):
        for c in range(1, block.n_convs + 1):
            found.append(Layer(f"{b}/conv{c}", "conv", "conv",
                               {"b": b + 1, "c": c, "t": next(position)}))
            next(position)  # its ReLU
        next(position)      # the pooling
    n_channels = block[f"conv{block.n_convs}"].W.shape[0]
    side = tuple(-(-s // 2 ** len(model)) for s in model.in_shape[1:])
    return [*found, Layer(f"{b}/fc4", "flat", "fc4", map_shape=(n_channels, *side)),
            Layer(f"{b}/fc5", "linear", "fc5"), Layer(f"{b}/fc6", "linear", "fc6")]


def _resnet_layers(model):
    found = [Layer("conv1", "conv", "conv1"), Layer("bn1", "bn", "bn1", conv="conv1")]
    stages = {name: list(model[name]) for name in STAGES}
    counted_in_letters = sum(map(len, stages.values())) == 16   # ResNet-50
    for s, blocks in enumerate(stages.values(), 2):
        in_letters = counted_in_letters or len(blocks) == 3
        for i, block in enumerate(blocks):
            number = "abcdefghijklm"[i] if in_letters else f"b{i}" if i else "a"
            fields = {"s": s, "n": s - 1, "z": s - 2, "i": i, "j": i + 1,
                      "letter": f"{s}{number}", "chainer": f"b{i}" if i else "a"}
            for conv, bn in _PAIRS[:4 if block.proj else 3]:
                path = f"res{s}/{i}"
                found += [Layer(f"{path}/{conv}", "conv", conv, fields),
                          Layer(f"{path}/{bn}", "bn", bn, fields, conv)]
    return [*found, Layer("fc6", "linear", "fc6")]


_PAIRS = (("conv1x1a", "bn_a"), ("conv3x3b", "bn_b"), ("conv1x1c", "bn_c"), ("conv1x1r", "bn_r"))


def _squeezenet_layers(model):
    found, position = [Layer("conv1", "conv", "conv1")], count(2)
    for fire in FIRES:
        t = next(position) + (fire in POOLED)
        if fire in POOLED:
            next(position)  # the pooling
        found += [Layer(f"{fire}/{name}", "conv", name, {"fire": fire, "t": t})
                  for name in ("squeeze1x1", "expand1x1", "expand3x3")]
    return [*found, Layer("conv10", "conv", "conv10")]


LAYERS = {VGG: _vgg_layers, ResNet: _resnet_layers, SqueezeNet: _squeezenet_layers}
