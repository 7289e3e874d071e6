"""Convolutions in tiles: every result is compared with a direct convolution in float64."""

import rechainer
from convnets import models, optimize
from rechainer.onednn import _winograd

import chainer
import chainer.functions as F
import numpy as np
import pytest
from chainer.backends import intel64
from rechainer_tests.test_onednn import compare, norm_of_difference

LINE = rechainer.info()["parts"]["oneDNN"]

pytestmark = pytest.mark.skipif(not intel64.is_ideep_available(), reason=f"oneDNN: {LINE}")

#: Rounding of a result, relative to its norm.
TOLERANCE = 1e-5

#: Layers with so many channels and pixels are computed in tiles, in both directions.
LARGE = {"x": (3, 256, 28, 27), "w": (224, 256, 3, 3)}


def random_case(rng):
    """Return maps, weights, bias, padding and a gradient of the result."""
    n, c, o = map(int, rng.randint(1, [5, 20, 20]))
    pad = tuple(map(int, rng.randint(0, 3, 2)))
    size = [int(rng.randint(7 - 2 * p, 24)) for p in pad]    # results of 5 x 5 at least
    out = (s + 2 * p - 2 for s, p in zip(size, pad, strict=True))
    return *(rng.randn(*shape).astype("f") for shape in (
        (n, c, *size), (o, c, 3, 3), (o,), (n, o, *out))), pad


def expected_of(x, w, b, gy, pad):
    """Return y and the gradients of x and w of Chainer's own convolution in float64."""
    x, w = (chainer.Variable(a.astype("d")) for a in (x, w))
    with chainer.using_config("use_ideep", "never"):
        y = F.convolution_2d(x, w, b.astype("d"), pad=pad)
        y.grad = gy.astype("d")
        y.backward()
    return y.array, x.grad, w.grad


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("form", _winograd.FORMS, ids=lambda form: f"tiles of {form.tile}")
def test_random_convolutions(form, seed, monkeypatch):
    rng = np.random.RandomState(seed)
    for _ in range(8):
        # Pieces of a row of tiles, of some rows, of some images, and of everything.
        for name in ("PIECE", "SUM_PIECE"):
            monkeypatch.setattr(_winograd, name, int(rng.choice([1, 20_000, 200_000, 1 << 22])))
        x, w, b, gy, pad = random_case(rng)
        y, gx, gw = expected_of(x, w, b, gy, pad)
        if rng.randint(2):
            x = x.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)
        conv = _winograd.Winograd(form, x.shape, gy.shape, pad)
        assert norm_of_difference(conv.forward(x, w, b), y) < TOLERANCE
        rectified = conv.forward(x, w, activation="relu")
        plain = y - b[:, None, None]
        assert np.abs(rectified - np.maximum(plain, 0)).max() < TOLERANCE * np.abs(y).max()
        assert norm_of_difference(conv.backward_data(w, gy), gx) < TOLERANCE
        got = conv.backward_weights(x, gy)
        assert got.flags.c_contiguous
        assert norm_of_difference(got, gw) < TOLERANCE


@pytest.mark.parametrize("form", _winograd.FORMS, ids=lambda form: f"tiles of {form.tile}")
def test_at_points_the_polynomials_multiply(form):
    # A window (g0, g1, g2) over d0, d1, ... gives the sums of a tile; see Lavin & Gray.
    g, d = np.arange(3) + 1.5, np.arange(form.size) ** 2 - 3.0
    products = (form.windows @ g) * (form.to_points @ d)
    np.testing.assert_allclose(form.back @ products, np.correlate(d, g), rtol=1e-12)


def test_numbers_for_tiles_of_four():
    # Equation 13 of Lavin & Gray, who have two rows of B^T and G with the other sign.
    form = _winograd.FORMS[0]
    assert form.to_points[0].tolist() == [4, 0, -5, 0, 1, 0]
    assert form.to_points[5].tolist() == [0, 4, 0, -5, 0, 1]
    assert form.back.tolist() == [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0],
                                  [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
    np.testing.assert_allclose(form.windows[:, 0], [1 / 4, -1 / 6, -1 / 6, 1 / 24, 1 / 24, 0])


@pytest.mark.parametrize(("size", "tile"), [(14, 5), (7, 4), (28, 4), (5, 5), (3, None)])
def test_tiles_fit_the_maps(size, tile):
    maps, window = (8, 512, size, size), (512, 512, 3, 3)
    form = _winograd.best_form(maps, window, maps, (1, 1), (1, 1), (1, 1), _winograd.READ)
    assert (form and form.tile) == tile


def is_tiled(monkeypatch):
    """Return a set to which the names of what is made in tiles are added."""
    called = set()
    for name in ("_tiled", "_tiled_sum", "Tiled"):
        make = getattr(_winograd, name)

        def wrapped(*args, name=name, make=make, **kwargs):
            called.add(name)
            return make(*args, **kwargs)

        monkeypatch.setattr(_winograd, name, wrapped)
    return called


@pytest.mark.parametrize("settings", [{"pad": 1}, {}, {"pad": (0, 2)}], ids=str)
def test_under_chainer(monkeypatch, settings):
    called, rng = is_tiled(monkeypatch), np.random.RandomState(0)
    arrays = [rng.randn(*LARGE["x"]), rng.randn(*LARGE["w"]), rng.randn(LARGE["w"][0])]
    got = compare(lambda *a: F.convolution_2d(*a, **settings), arrays)
    assert called == {"_tiled", "_tiled_sum"}
    assert all(a.flags.c_contiguous or a.transpose(0, 2, 3, 1).flags.c_contiguous for a in got)


@pytest.mark.parametrize("settings", [
    {"stride": 2, "pad": 1}, {"dilate": 2, "pad": 2}, {"groups": 2, "pad": 1}, {"pad": (0, 3)},
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
    assert "Tiled" in called
    assert norm_of_difference(got, expected) < 1e-4


def test_threads_that_wait_for_each_other_want_more_work(monkeypatch):
    shapes = (1, 128, 28, 28), (128, 128, 3, 3), (1, 128, 28, 28), (1, 1), (1, 1), (1, 1)
    assert _winograd.best_form(*shapes)
    monkeypatch.setattr(_winograd, "threads", lambda: 64)
    assert not _winograd.best_form(*shapes)


def test_an_empty_batch_is_not_tiled():
    shapes = (0, 512, 28, 28), (512, 512, 3, 3), (0, 512, 28, 28)
    assert not _winograd.best_form(*shapes, (1, 1), (1, 1), (1, 1))
