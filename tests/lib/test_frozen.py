"""Frozen features and the linear layers that measure them."""

import json

from convnets import cli, data, frozen, models, pretrained
from convnets.pretrained.preprocess import SETTINGS, Preprocessing

import chainer
import numpy as np
import pytest


@pytest.fixture
def images():
    return np.random.RandomState(0).rand(5, 3, 20, 20).astype("f")


@pytest.fixture
def net():
    np.random.seed(0)
    return models.CifarResNet(8, 10)


def in_test_mode(function, *args):
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        return function(*args).array


@pytest.mark.parametrize("build, expected", [
    (lambda: models.VGG16(10, (3, 32, 32)), ["block1", "block2", "block3", "block4", "block5"]),
    (models.SqueezeNet, ["conv1", *(f"fire{i}" for i in range(2, 10))]),
    (lambda: models.ResNet((1, 1, 1, 1), width=1 / 8), ["conv1", "res2", "res3", "res4", "res5"]),
    (lambda: models.CifarResNet(8), ["conv1", "res2", "res3", "res4"]),
])
def test_stages_that_give_maps(build, expected):
    assert frozen.map_stages(build()) == expected


@pytest.mark.parametrize("size, grid, widths", [
    (8, 4, [2, 2, 2, 2]), (7, 3, [2, 2, 3]), (3, 4, [1, 1, 1]), (5, 1, [5])])
def test_averages_over_a_grid(size, grid, widths):
    maps = np.random.RandomState(0).rand(2, 3, size, size).astype("f")
    ends = np.cumsum(widths)
    parts = [slice(end - width, end) for end, width in zip(ends, widths, strict=True)]
    expected = np.stack([np.stack([maps[:, :, rows, columns].mean(axis=(2, 3))
                                   for columns in parts], -1) for rows in parts], -2)
    got = frozen.averaged(maps, grid)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def close(got, expected):
    """Another size of batch sums in another order: rounding goes with the largest values."""
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6 * abs(expected).max())


def test_features_are_those_of_the_model_in_test_mode(net, images):
    before = {name: array.copy() for name, array in pretrained.transfer.model_arrays(net).items()}
    found = frozen.features(net, images, ["res2", "res4"], grid=None, batch=2)
    assert list(found) == ["res2", "res4"]
    for pick, maps in found.items():
        close(maps, in_test_mode(net.features, images, pick))
    after = pretrained.transfer.model_arrays(net)   # looking at it changed no statistics
    assert all((after[name] == array).all() for name, array in before.items())
    means = frozen.features(net, images, ["res4"])["res4"]
    close(means[:, :, 0, 0], found["res4"].mean(axis=(2, 3)))


def test_what_follows_the_last_stage_is_not_computed(net, images):
    net.res4 = None
    assert frozen.features(net, images, ["res3"])["res3"].shape == (5, 32, 1, 1)


@pytest.mark.parametrize("picks", [["res9"], ["res2", "res9"], []])
def test_unknown_stages(net, images, picks):
    with pytest.raises(ValueError, match=r"has no stages .*conv1, res2, res3"):
        frozen.features(net, images, picks)


def test_input_of_grey_images_is_grey_in_the_networks_order():
    x = np.random.RandomState(0).rand(2, 1, 28, 28).astype("f")
    settings = SETTINGS["squeezenet"]
    got = frozen.network_input(x, settings, size=56)
    assert got.shape == (2, 3, 56, 56) and got.dtype == np.float32
    pixels = got + np.float32(settings.mean)[:, None, None]
    np.testing.assert_allclose(pixels[:, 0], pixels[:, 2], rtol=1e-5)
    np.testing.assert_allclose(pixels[:, 0, ::55, ::55], 255 * x[:, 0, ::27, ::27], atol=1e-3)
    same = frozen.network_input(x, Preprocessing(scale=1 / 255, mean=(0,) * 3, std=(1,) * 3))
    np.testing.assert_allclose(same, np.repeat(x, 3, axis=1), rtol=1e-6)


def examples(n, seed):
    """Two classes, told apart by one of six features; the others are noise, one is constant."""
    random = np.random.RandomState(seed)
    t = random.randint(0, 2, n).astype("i")
    x = random.randn(n, 2, 1, 3).astype("f")
    x[:, 1, 0, 2] = 1000 + 50 * t + random.randn(n)
    x[:, 0, 0, 0] = 7
    return x, t


def test_probe_finds_what_is_linear_whatever_its_scale():
    train, test = examples(200, 0), examples(100, 1)
    seen, unseen = frozen.probe(*train, *test, epochs=30, lr=0.01)
    assert seen > 0.97 and unseen > 0.97
    assert frozen.probe(*train, *test, epochs=3, seed=1) == frozen.probe(*train, *test, epochs=3,
                                                                         seed=1)
    shuffled = np.random.RandomState(2).permutation(test[1])
    assert frozen.probe(*train, test[0], shuffled, epochs=3)[1] < 0.8


def test_a_file_without_linear_layers_will_do(tmp_path):
    np.random.seed(1)
    source = models.VGG16(10, (3, 32, 32))
    arrays = {name: a for name, a in pretrained.transfer.model_arrays(source).items()
              if "/conv" in name}
    path = tmp_path / "trunk.npz"
    np.savez(path, **arrays)
    net = frozen.network("vgg16", path, (3, 32, 32))
    assert (net[4].conv3.W.array == source[4].conv3.W.array).all()
    np.savez(path, **{name: a for name, a in arrays.items() if "4/conv2" not in name})
    with pytest.raises(pretrained.WeightsError, match=r"lacks the weights of 1 layers.*4/conv2"):
        frozen.network("vgg16", path, (3, 32, 32))


ARGV = ["frozen", "squeezenet", "--weights", "squeezenet/imagenet", "--data", "fashion_mnist",
        "--n-train", "100", "--n-test", "40", "--seeds", "2", "--grid", "1", "--size", "48",
        "--quiet"]


def test_record_and_its_command(tmp_path, capsys):
    path = tmp_path / "features.json"
    assert cli.main([*ARGV, "--record", str(path)]) == 0
    run = frozen.load(path)
    assert run["command"] == f"convnets {' '.join(ARGV)} --record {path}"
    assert run["options"]["weights"]["file"] == "squeezenet.npz"
    assert [row["name"] for row in run["stages"]] == frozen.map_stages(models.SqueezeNet())
    last = run["stages"][-1]
    assert last["shape"] == [512, 2, 2] and last["n_features"] == 512
    for row in run["stages"]:
        assert np.shape(row["pretrained"]) == np.shape(row["random"]) == (2, 2)
    best = max(np.mean(row["pretrained"], axis=0)[1] for row in run["stages"])
    assert best > 0.4      # ten classes
    assert f"{np.mean(run['pixels'], axis=0)[1]:.3f}" in capsys.readouterr().out

    train, test = data.fashion_mnist(100, 40)
    again = frozen.measure(pretrained.load("squeezenet"), train, test, [1], grid=1, size=48)
    assert again["fire9"][0] == last["pretrained"][1]


def test_load_refuses_other_files(tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"stages": []}))
    with pytest.raises(ValueError, match="convnets frozen MODEL"):
        frozen.load(path)
