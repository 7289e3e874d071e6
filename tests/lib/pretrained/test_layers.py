"""Features and predictions are those of Chainer's own classes, without their defects."""

import itertools
from dataclasses import replace

from convnets import models
from convnets.models import copy_weights, links_in_order
from convnets.pretrained import layers
from convnets.pretrained.preprocess import SETTINGS, Preprocessing

import chainer
import chainer.links as L
import numpy as np
import pytest
from chainer.links.model.vision.resnet import BuildingBlock
from PIL import Image

WIDTHS = (2, 3, 4, 4, 5)        # channels of the blocks of a thin VGG
THIN = 1 / 16                   # width of a thin ResNet
CHAINERS = {"vgg": SETTINGS["oxford"], "resnet": SETTINGS["msra"]}
# Pillow's own filter, which Chainer takes.
CHAINERS = {name: replace(p, interpolation="bicubic") for name, p in CHAINERS.items()}


def photo(height, width, seed=0):
    """Return a smooth random picture, uint8 (H, W, 3)."""
    small = np.random.RandomState(seed).randint(0, 256, (8, 9, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def bare(kind, **links):
    """Return a model of Chainer's class, with thin layers in place of its own."""
    model = kind.__new__(kind)
    chainer.Chain.__init__(model)
    with model.init_scope():
        for name, link in links.items():
            setattr(model, name, link)
    return model


def thin_vgg():
    convs, n_in = {}, 3
    for b, (width, n) in enumerate(zip(WIDTHS, (2, 2, 3, 3, 3), strict=True), 1):
        for c in range(1, n + 1):
            convs[f"conv{b}_{c}"] = L.Convolution2D(n_in, width, 3, 1, 1)
            n_in = width
    theirs = bare(L.VGG16Layers, **convs, fc6=L.Linear(5 * 49, 12), fc7=L.Linear(12, 12),
                  fc8=L.Linear(12, 7))
    config = tuple(zip(WIDTHS, (2, 2, 3, 3, 3), strict=True))
    return theirs, copy_weights(theirs, models.VGG(config, 7, hidden=12))


def thin_resnet():
    w, options = {"initialW": chainer.initializers.HeNormal()}, {"downsample_fb": False}
    blocks = {f"res{s}": BuildingBlock(n, *c, **w, **options) for s, n, c in (
        (2, 3, (4, 4, 16, 1)), (3, 4, (16, 8, 32, 2)), (4, 6, (32, 16, 64, 2)),
        (5, 3, (64, 32, 128, 2)))}
    theirs = bare(L.ResNet50Layers, conv1=L.Convolution2D(3, 4, 7, 2, 3),
                  bn1=L.BatchNormalization(4), **blocks, fc6=L.Linear(128, 7))
    rng = np.random.RandomState(0)
    for link in links_in_order(theirs):     # statistics that count, and keep prob from 0 and 1
        if isinstance(link, L.BatchNormalization):
            link.gamma.array[...] = rng.uniform(0.3, 0.7, link.gamma.shape)
            link.avg_var[...] = rng.uniform(0.5, 1.5, link.gamma.shape)
    theirs.bn1.avg_var *= 100 ** 2          # pixels are not scaled
    return theirs, copy_weights(theirs, models.ResNet(
        (3, 4, 6, 3), 7, stem_pool="caffe", stem_bias=True, width=THIN))


@pytest.fixture(scope="module", params=["vgg", "resnet"])
def pair(request):
    """Chainer's class and ours, thin, with the same weights and settings."""
    np.random.seed(0)
    theirs, ours = {"vgg": thin_vgg, "resnet": thin_resnet}[request.param]()
    ours.preprocessing = CHAINERS[request.param]
    return theirs, ours


@pytest.fixture
def vgg():
    return thin_vgg()[1]


@pytest.fixture
def resnet():
    return thin_resnet()[1]


def test_the_layers_are_chainers(pair):
    theirs, ours = pair
    assert list(layers.functions(ours)) == theirs.available_layers


def test_every_layer_equals_chainers(pair):
    theirs, ours = pair
    images = [photo(300, 260), Image.fromarray(photo(200, 280, seed=1))]
    with chainer.using_config("train", False):
        expected = theirs.extract(images, theirs.available_layers)
    got = layers.extract(ours, images, theirs.available_layers, aspect="squash")
    assert list(got) == theirs.available_layers
    for name in got:
        assert got[name].shape == expected[name].shape
        assert np.array_equal(got[name].array, expected[name].array), name
    kept = layers.extract(ours, images, ["prob"])["prob"].array
    assert np.abs(kept - expected["prob"].array).max() > 1e-4


@pytest.mark.parametrize("oversample", [True, False])
def test_predictions_equal_chainers(oversample, pair):
    theirs, ours = pair
    images = [photo(300, 260), photo(200, 280, seed=1)][:1 if oversample else 2]
    expected = theirs.predict(images, oversample)
    y = layers.predict(ours, images, oversample, aspect="squash")
    assert y.shape == (len(images), 7)
    assert np.abs(y.array - expected.array).max() < 1e-7
    one_by_one = layers.predict(ours, images, oversample, aspect="squash", batch=1)
    assert np.abs(one_by_one.array - y.array).max() < 1e-6
    assert np.abs(layers.predict(ours, images, oversample).array - expected.array).max() > 1e-4


def test_defaults_are_chainers(pair):
    theirs, ours = pair
    with chainer.using_config("train", False):
        expected = theirs.extract([photo(250, 250)])
    assert layers.extract(ours, photo(250, 250)).keys() == expected.keys()
    for kind, settings in (("vgg", "oxford"), ("resnet", "msra")):
        model = {"vgg": thin_vgg, "resnet": thin_resnet}[kind]()[1]
        assert np.array_equal(layers.prepare(model, photo(250, 300)),
                              SETTINGS[settings].prepare(photo(250, 300)))


@pytest.mark.slow
def test_a_whole_network_equals_chainers():
    theirs = L.ResNet50Layers(pretrained_model=None)
    ours = copy_weights(theirs, models.ResNet50(stem_pool="caffe", stem_bias=True))
    ours.preprocessing = CHAINERS["resnet"]
    names = ["res3", "pool5", "prob"]
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        expected = theirs.extract([photo(300, 260)], names)
        got = layers.extract(ours, [photo(300, 260)], names, aspect="squash")
    for name in names:
        assert np.array_equal(got[name].array, expected[name].array), name


def state(model):
    return [array.copy() for link in links_in_order(model)
            for array in (getattr(link, "avg_mean", None), getattr(link, "avg_var", None),
                          link.W.array if hasattr(link, "W") else None) if array is not None]


def test_looking_does_not_change_batch_normalization(pair):
    theirs, ours = pair
    before = state(ours)
    image = photo(250, 250)
    for train in (True, False):
        with chainer.using_config("train", train):
            first = layers.extract(ours, image, ["prob"])["prob"].array
            layers.predict(ours, image)
            assert chainer.config.train is train
        assert np.array_equal(layers.extract(ours, image, ["prob"])["prob"].array, first)
    assert all(np.array_equal(a, b) for a, b in zip(state(ours), before, strict=True))
    if isinstance(ours, models.ResNet):     # Chainer's own changes, which is why this is tested
        changed = theirs.copy(mode="copy")
        before = state(changed)
        with chainer.using_config("train", True):
            changed.extract([image])
        assert not all(np.array_equal(a, b) for a, b in zip(state(changed), before, strict=True))


def test_dropout_is_off_too(vgg):
    with chainer.using_config("train", True):
        a, b = (layers.extract(vgg, photo(250, 250), ["fc7"])["fc7"].array for _ in range(2))
    assert np.array_equal(a, b)


@pytest.mark.parametrize("names", [["conv6_1"], ["fc6", "fc9"], ["prob ", "prob"], []])
def test_an_unknown_layer_is_an_error(names, vgg):
    assert thin_vgg()[0](np.zeros((1, 3, 224, 224), "f"), ["conv6_1"]) == {}    # Chainer's answer
    with pytest.raises(ValueError, match=r"there are: conv1_1, conv1_2, pool1, .*fc8, prob") as e:
        layers.extract(vgg, photo(250, 250), names)
    assert all(repr(name) in str(e.value) for name in names if name not in ("fc6", "prob"))


def test_one_name_in_place_of_a_list(resnet):
    with pytest.raises(ValueError, match=r"use \['pool5'\]"):
        layers.extract(resnet, photo(250, 250), "pool5")


def test_floats_give_the_same_features(resnet):
    image = photo(250, 250)
    expected = layers.extract(resnet, image)["pool5"].array
    got = layers.extract(resnet, (image / 255).astype(np.float32))["pool5"].array
    black = layers.extract(resnet, np.zeros_like(image))["pool5"].array
    assert np.abs(got - expected).max() < 0.05 * np.abs(black - expected).max()


def test_sizes(vgg, resnet):
    image = photo(150, 130)
    assert layers.prepare(resnet, image, 96).shape == (3, 96, 96)
    assert np.array_equal(layers.prepare(resnet, image, (96, 96)),
                          layers.prepare(resnet, image, 96))
    assert layers.prepare(resnet, image, (100, 80), "squash").shape == (3, 80, 100)
    assert layers.prepare(resnet, image, None).shape == (3, 150, 130)
    assert layers.extract(resnet, image, ["res5", "fc6"], 96)["res5"].shape == (1, 128, 3, 3)
    assert layers.extract(vgg, image, ["conv5_3"], 96)["conv5_3"].shape == (1, 5, 6, 6)
    with pytest.raises(ValueError, match="Resize the images to H x W = 224 x 224"):
        layers.extract(vgg, image, ["fc6"], 96)
    with pytest.raises(ValueError, match=r"size=\(100, 80\) does not keep the aspect"):
        layers.prepare(resnet, image, (100, 80))
    with pytest.raises(ValueError, match="unknown aspect 'crop'"):
        layers.predict(resnet, image, aspect="crop")


def test_no_more_is_computed_than_asked_for(vgg):
    vgg[-1].fc4 = None          # would fail
    assert set(layers.extract(vgg, photo(250, 250), ["pool5", "conv1_1"])) == {"conv1_1", "pool5"}


def test_gradients_flow_where_they_are_wanted(resnet):
    pool5 = layers.extract(resnet, photo(250, 250))["pool5"]
    resnet.cleargrads()
    pool5.grad = np.ones_like(pool5.array)
    pool5.backward()
    assert np.abs(resnet.conv1.W.grad).max() > 0
    assert pool5.creator is not None
    assert layers.predict(resnet, photo(250, 250), oversample=False).creator is None


def test_other_numbers_of_blocks_count_on():
    small = models.VGGSmall(in_shape=(3, 32, 32))
    assert list(layers.functions(small)) == ["conv1_1", "conv1_2", "pool1", "conv2_1", "conv2_2",
                                             "pool2", "fc3", "fc4", "fc5", "prob"]


def test_squeezenet():
    model = models.SqueezeNet(7)
    model.preprocessing = SETTINGS["squeezenet"]
    assert list(layers.functions(model))[-4:] == ["fire9", "conv10", "pool10", "prob"]
    assert layers.extract(model, photo(99, 99), size=99)["fire9"].shape == (1, 512, 6, 6)
    found = layers.extract(model, photo(99, 99), ["conv10", "pool10"], 99)
    assert np.allclose(found["conv10"].array.mean(axis=(2, 3)), found["pool10"].array, rtol=1e-4)


def test_a_model_without_published_settings():
    model = models.ResNet20()
    with pytest.raises(ValueError, match=r"ResNet20: set model\.preprocessing"):
        layers.extract(model, photo(40, 40))
    model.preprocessing = Preprocessing(size=32, resize=36)
    features = layers.extract(model, photo(40, 50), ["res4", "pool4"])
    assert features["pool4"].shape == (1, 64)
    assert np.allclose(features["res4"].array.mean(axis=(2, 3)), features["pool4"].array, atol=1e-5)
    assert np.allclose(layers.predict(model, photo(40, 50)).array.sum(), 1, atol=1e-5)


def test_a_generator_of_images(resnet):
    images = (photo(100, 100, seed) for seed in itertools.count())
    y = layers.predict(resnet, itertools.islice(images, 3), oversample=False, batch=2)
    assert y.shape == (3, 7)
