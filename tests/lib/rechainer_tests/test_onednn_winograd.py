"""Convolutions in tiles: every result is compared with a direct convolution in float64."""

import rechainer
from convnets import models, optimize
from rechainer.onednn import _products, _winograd

import chainer
import chainer.functions as F
import numpy as np
import pytest
from chainer.backends import intel64
from rechainer_tests.test_onednn import compare, norm_of_difference

LINE = rechainer.info()["parts"]["oneDNN"]

pytestmark = [
    pytest.mark.skipif(not intel64.is_ideep_available(), reason=f"oneDNN: {LINE}"),
    pytest.mark.skipif(intel64.is_ideep_available() and not _products.one_thread(),
                       reason="NumPy's BLAS is no OpenBLAS"),
]

#: Rounding of a result, relative to its norm.
TOLERANCE = 1e-5

#: Layers with so many channels and pixels are computed in tiles, in both directions.
LARGE = {"x": (3, 256, 28, 27), "w": (224, 256, 3, 3)}


@pytest.fixture(params=[1, 3])
def threads(request, monkeypatch):
    """Return how many threads there are."""
    monkeypatch.setattr(_products, "threads", lambda: request.param)
    monkeypatch.setattr(_winograd, "threads", lambda: request.param)
    return request.param


def direct(x, w, b, pad, size):
    """Return the convolution of Chainer in float64 of windows at the places 0 .. size - 1."""
    n, c, height, width = x.shape
    (ph, pw), (oh, ow) = pad, size
    wide = np.zeros((n, c, max(height + ph, oh + 2), max(width + pw, ow + 2)))
    wide[:, :, ph:ph + height, pw:pw + width] = x
    with chainer.using_config("use_ideep", "never"):
        return F.convolution_2d(wide, w.astype("d"), b.astype("d")).array[:, :, :oh, :ow]


def random_case(rng):
    """Return maps, weights, bias, padding and the size of the result, which may be any."""
    n, c, o = map(int, rng.randint(1, [5, 20, 20]))
    size, pad = rng.randint(1, 20, 2), rng.randint(0, 4, 2)
    out = np.maximum(1, size + 2 * pad - 2 + rng.randint(-2, 3, 2))
    x, w, b = (rng.randn(*shape).astype("f") for shape in ((n, c, *size), (o, c, 3, 3), (o,)))
    return x, w, b, tuple(map(int, pad)), tuple(map(int, out))


@pytest.mark.parametrize("seed", range(5))
def test_random_convolutions(seed, threads, monkeypatch):
    rng = np.random.RandomState(seed)
    for _ in range(20):
        monkeypatch.setattr(_winograd, "TILES", int(rng.choice([1, 7, 160])))
        x, w, b, pad, size = random_case(rng)
        if rng.randint(2):
            x = x.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)
        y_shape = (len(x), len(w), *size)
        conv = _winograd.Winograd(x.shape, w.shape, y_shape, pad)
        expected = direct(x, w, b, pad, size)
        u = _winograd.at_points(w)
        assert norm_of_difference(conv.forward(x, u, b), expected) < TOLERANCE
        add = rng.randn(*y_shape).astype("f")
        y = conv.forward(x, u, b, add, is_rectified=True)
        assert np.abs(y - np.maximum(expected + add, 0)).max() < TOLERANCE * np.abs(expected).max()
        check_gradients(conv, x, w, rng.randn(*y_shape).astype("f"), pad, size)


def check_gradients(conv, x, w, gy, pad, size):
    """The convolution is linear in maps and in weights: <y, gy> tells all about the gradients."""
    x_, w_ = (chainer.Variable(a.astype("d")) for a in (x, w))
    (ph, pw), (oh, ow) = pad, size
    behind = [max(0, o + 2 - i - p) for o, i, p in zip(size, x.shape[2:], pad, strict=True)]
    wide = F.pad(x_, ((0, 0), (0, 0), (ph, behind[0]), (pw, behind[1])), "constant")
    with chainer.using_config("use_ideep", "never"):
        y = F.convolution_2d(wide, w_)[:, :, :oh, :ow]
        y.grad = gy.astype("d")
        y.backward()
    assert norm_of_difference(conv.backward_data(w, gy), x_.grad) < TOLERANCE
    gw = conv.backward_weights(x, gy)
    assert gw.flags.c_contiguous
    assert norm_of_difference(gw, w_.grad) < TOLERANCE


def test_at_points_the_polynomials_multiply():
    # A window (g0, g1, g2) over d0 .. d5 gives four sums; each row is one of Lavin & Gray's.
    g, d = np.arange(3) + 1.5, np.arange(6) ** 2 - 3.0
    products = (_winograd.WINDOW_AT_POINTS @ g) * (_winograd.AT_POINTS @ d)
    np.testing.assert_allclose(_winograd.FROM_POINTS @ products, np.correlate(d, g), rtol=1e-13)


def is_tiled(monkeypatch):
    """Return a set to which the names of the methods that run are added."""
    called = set()
    for name in ("_convolve", "_add_products"):
        method = getattr(_winograd, name)

        def wrapped(*args, name=name, method=method, **kwargs):
            called.add(name)
            return method(*args, **kwargs)

        monkeypatch.setattr(_winograd, name, wrapped)
    return called


@pytest.mark.parametrize("settings", [{"pad": 1}, {}, {"pad": (0, 3)}], ids=str)
def test_under_chainer(monkeypatch, settings):
    called, rng = is_tiled(monkeypatch), np.random.RandomState(0)
    arrays = [rng.randn(*LARGE["x"]), rng.randn(*LARGE["w"]), rng.randn(LARGE["w"][0])]
    got = compare(lambda *a: F.convolution_2d(*a, **settings), arrays)
    assert called == {"_convolve", "_add_products"}
    assert all(a.flags.c_contiguous or a.transpose(0, 2, 3, 1).flags.c_contiguous for a in got)


@pytest.mark.parametrize("settings", [
    {"stride": 2, "pad": 1}, {"dilate": 2, "pad": 2}, {"groups": 2, "pad": 1},
], ids=str)  # fmt: skip
def test_others_are_not_tiled(monkeypatch, settings):
    called, rng = is_tiled(monkeypatch), np.random.RandomState(0)
    (o, c, *window), groups = LARGE["w"], settings.get("groups", 1)
    arrays = [rng.randn(*LARGE["x"]), rng.randn(o, c // groups, *window)]
    compare(lambda *a: F.convolution_2d(*a, **settings), arrays)
    assert not called


def test_optimized_networks_use_tiles_and_agree(monkeypatch):
    called = is_tiled(monkeypatch)
    np.random.seed(0)
    model = models.VGG16(n_class=10, in_shape=(3, 64, 64))
    x = np.random.RandomState(1).rand(4, 3, 64, 64).astype("f")
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        with chainer.using_config("use_ideep", "never"):
            expected = model.logits(x).array
        with chainer.using_config("use_ideep", "auto"):
            got = optimize(model).logits(x).array
    assert "_convolve" in called
    assert norm_of_difference(got, expected) < 1e-4


def test_without_openblas_nothing_is_tiled(monkeypatch):
    shapes = LARGE["x"], LARGE["w"], (3, 224, 28, 27), (1, 1), (1, 1)
    assert _winograd.is_better(*shapes)
    monkeypatch.setattr(_winograd, "one_thread", lambda: None)
    assert not _winograd.is_better(*shapes)


def test_an_empty_batch_is_not_tiled():
    assert not _winograd.is_better((0, 512, 28, 28), (512, 512, 3, 3), (0, 512, 28, 28), (1, 1),
                                   (1, 1))
