"""oneDNN under Chainer's functions: every result is compared with NumPy's."""

import os

import rechainer
from convnets import models
from convnets.losses import Classifier
from rechainer.onednn import _products

import chainer
import chainer.functions as F
import numpy as np
import pytest
from chainer.backends import intel64

LINE = rechainer.info()["parts"]["oneDNN"]

pytestmark = pytest.mark.skipif(not intel64.is_ideep_available(), reason=f"oneDNN: {LINE}")

RANDOM = 500
NEAR = {"rtol": 1e-4, "atol": 1e-5}


def norm_of_difference(got, expected):
    """Return |got - expected| / |expected|, the gradients' measure."""
    size = np.linalg.norm(expected)
    return np.linalg.norm(got.astype("d") - expected) / size if size else np.abs(got).max()


def run(use_ideep, function, arrays, dtype="f"):
    """Return y and the gradients of all inputs, for one fixed upper gradient."""
    inputs = [chainer.Variable(array.astype(dtype)) for array in arrays]
    with chainer.using_config("use_ideep", use_ideep):
        y = function(*inputs)
        y.grad = np.random.RandomState(0).randn(*y.shape).astype(dtype)
        y.backward()
    return [y.array, *(x.grad for x in inputs)]


def compare(function, arrays, tolerance=1e-5):
    """Compare oneDNN with NumPy in float64; return oneDNN's arrays."""
    got = run("auto", function, arrays)
    expected = run("never", function, arrays, "d")
    for one, other in zip(got, expected, strict=True):
        assert one.shape == other.shape
        assert one.dtype == np.float32
        finite = np.isfinite(other)  # maxima over nothing but padding are -inf
        np.testing.assert_array_equal(np.isfinite(one), finite)
        assert norm_of_difference(one[finite], other[finite]) < tolerance
    return got


def is_channels_last(x):
    return x.transpose(0, 2, 3, 1).flags.c_contiguous


def pair(rng, low, high):
    return tuple(int(n) for n in rng.randint(low, high + 1, 2))


def random_convolution(rng):
    """Return settings and arrays of a convolution that Chainer accepts."""
    while True:
        groups = int(rng.choice([1, 1, 1, 2, 3, 8]))
        n_in, n_out = (groups * int(rng.randint(1, 9)) for _ in range(2))
        settings = {"stride": pair(rng, 1, 3), "pad": pair(rng, 0, 3), "dilate": pair(rng, 1, 2)}
        ksize, size = pair(rng, 1, 5), pair(rng, 1, 14)
        reach = [(k - 1) * d + 1 for k, d in zip(ksize, settings["dilate"], strict=True)]
        if all(i + 2 * p >= r for i, p, r in zip(size, settings["pad"], reach, strict=True)):
            break
    x = rng.randn(rng.randint(1, 5), n_in, *size)
    W = rng.randn(n_out, n_in // groups, *ksize)
    arrays = [x, W, rng.randn(n_out)][: rng.randint(2, 4)]
    return {**settings, "groups": groups, "cover_all": bool(rng.randint(2))}, arrays


@pytest.mark.parametrize("seed", range(10))
def test_random_convolutions(seed):
    rng = np.random.RandomState(seed)
    for _ in range(RANDOM // 10):
        settings, arrays = random_convolution(rng)
        compare(lambda *a, s=settings: F.convolution_2d(*a, **s), arrays)


def configurations(model):
    """Return the distinct (weight shape, stride, pad) of a model's convolutions."""
    return sorted({(link.W.shape, link.stride, link.pad) for link in model.links()
                   if isinstance(link, chainer.links.Convolution2D)})


@pytest.mark.parametrize("build", [
    models.LeNet5, lambda: models.VGG("vgg16", 10, (3, 32, 32), hidden=16),
    models.ResNet50, models.ResNet56], ids=["LeNet5", "VGG16", "ResNet50", "ResNet56"])
def test_every_convolution_of(build):
    """VGG16 with small linear layers: their 120 million numbers would take most of the time."""
    rng = np.random.RandomState(18)
    found = configurations(build())
    assert found
    for shape, stride, pad in found:
        arrays = [rng.randn(2, shape[1], 9, 8), rng.randn(*shape), rng.randn(shape[0])]
        compare(lambda *a, s=stride, p=pad: F.convolution_2d(*a, stride=s, pad=p), arrays, 1e-4)


def test_gradients_of_a_whole_network():
    np.random.seed(0)
    model = Classifier(models.LeNet5())
    rng = np.random.RandomState(19)
    x, t = rng.rand(16, 1, 28, 28).astype("f"), rng.randint(0, 10, 16).astype("i")
    found = {}
    for use_ideep in "auto", "never":
        model.cleargrads()
        with chainer.using_config("use_ideep", use_ideep):
            model(x, t).backward()
        found[use_ideep] = {name: p.grad.copy() for name, p in model.namedparams()}
    for name, expected in found["never"].items():
        assert norm_of_difference(found["auto"][name], expected) < 1e-4, name


def train(use_ideep, ulps=0):
    """Return the losses of ten steps of a ResNet-20 whose images are off by units of rounding.

    Of 16 x 16: rounding takes the same way through all layers, in a quarter of the time.
    """
    np.random.seed(0)
    model = Classifier(models.ResNet20())
    optimizer = chainer.optimizers.MomentumSGD(lr=0.01).setup(model)
    optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(1e-4))
    rng = np.random.RandomState(20)
    losses = []
    with chainer.using_config("use_ideep", use_ideep):
        for _ in range(10):
            t = rng.randint(0, 10, 16).astype("i")
            x = (rng.rand(16, 3, 16, 16) + t[:, None, None, None] / 10).astype("f")
            x += ulps * np.spacing(x)
            loss = model(x, t)
            model.cleargrads()
            loss.backward()
            optimizer.update()
            losses.append(float(loss.array))
    return np.array(losses)


def test_training_differs_no_more_than_by_rounding():
    # Where a ReLU's input is next to zero its rounding decides, so that networks drift apart.
    ordinary = train("never")
    drift = max(np.abs(train("never", ulps) - ordinary).max() for ulps in (1, 2, -1))
    assert np.abs(train("auto") - ordinary).max() < 3 * drift
    assert drift < 0.1


def test_random_deconvolutions():
    rng = np.random.RandomState(0)
    for _ in range(100):
        settings, (x, W, *b) = random_convolution(rng)
        del settings["cover_all"]
        with chainer.using_config("use_ideep", "never"):
            y = F.convolution_2d(x.astype("f"), W.astype("f"), **settings)
        settings["outsize"] = x.shape[2:]
        b = [rng.randn(x.shape[1])] if b else []
        compare(lambda *a, s=settings: F.deconvolution_2d(*a, **s), [rng.randn(*y.shape), W, *b])


def random_pooling(rng):
    while True:
        size, ksize = pair(rng, 1, 14), pair(rng, 1, 4)
        pad = tuple(int(rng.randint(0, k)) for k in ksize)
        if all(i + 2 * p >= k for i, k, p in zip(size, ksize, pad, strict=True)):
            break
    x = rng.randn(rng.randint(1, 4), rng.randint(1, 40), *size)
    return {"ksize": ksize, "stride": pair(rng, 1, 4), "pad": pad}, x


@pytest.mark.parametrize("cover_all", [True, False])
def test_random_max_poolings(cover_all):
    rng = np.random.RandomState(1)
    for _ in range(RANDOM // 2):
        settings, x = random_pooling(rng)
        compare(lambda x, s=settings: F.max_pooling_2d(x, **s, cover_all=cover_all), [x])


def test_random_average_poolings():
    rng = np.random.RandomState(2)
    for _ in range(RANDOM):
        settings, x = random_pooling(rng)
        compare(lambda x, s=settings: F.average_pooling_2d(x, **s), [x])


def batch_normalization(x, gamma, beta):
    """Normalize in training; running statistics start at 0 and 1 and are kept as attributes."""
    kept = batch_normalization.kept = [np.zeros_like(gamma.array), np.ones_like(gamma.array)]
    return F.batch_normalization(x, gamma, beta, running_mean=kept[0], running_var=kept[1])


def random_batch(rng):
    """Return batch size, height and width; or a batch size alone, for vectors."""
    return (rng.randint(2, 9), *pair(rng, 2, 9)) if rng.randint(4) else (rng.randint(8, 40),)


def test_random_batch_normalizations():
    rng = np.random.RandomState(3)
    for _ in range(RANDOM):
        # Eight values a channel and more: gx is a difference, of which two values leave nothing.
        c, (n, *size) = rng.randint(1, 70), random_batch(rng)
        x = rng.randn(n, c, *size) * (rng.rand() * 3 + 0.3) + rng.randn()
        arrays = [x, rng.rand(c) + 0.5, rng.randn(c)]
        got = run("auto", batch_normalization, arrays)
        means, variances = batch_normalization.kept
        expected = run("never", batch_normalization, arrays, "d")
        for one, other in zip(got, expected, strict=True):
            assert norm_of_difference(one, other) < 1e-4
        np.testing.assert_allclose(means, batch_normalization.kept[0], **NEAR)
        np.testing.assert_allclose(variances, batch_normalization.kept[1], **NEAR)


def test_fixed_batch_normalization():
    rng = np.random.RandomState(4)
    arrays = [rng.randn(3, 20, 5, 4), *rng.randn(3, 20), rng.rand(20) + 0.5]
    compare(F.fixed_batch_normalization, arrays)


def test_batch_normalization_over_other_axes_is_left_to_numpy():
    rng = np.random.RandomState(5)
    arrays = [rng.randn(3, 4, 5, 6), rng.rand(6), rng.randn(6)]
    compare(lambda *a: F.batch_normalization(*a, axis=(0, 1, 2)), arrays, 1e-4)


ELEMENTWISE = {
    "relu": F.relu,
    "sigmoid": F.sigmoid,
    "leaky relu": lambda x: F.leaky_relu(x, 0.1),
    "sum": lambda x: x + x,
    "sum of three": lambda x: F.add(x, x, x),
    "channel sums": lambda x: F.sum(x, axis=(0, 2, 3)),
    "concat": lambda x: F.concat([x, x[:, :2], x], axis=1),
    "concat of rows": lambda x: F.concat([x, x], axis=2),
    "split": lambda x: F.split_axis(x, [1, 3], axis=1)[1],
    "slices": lambda x: x[:, 1:, ::2, ::-1],
    "lrn": lambda x: F.local_response_normalization(x, 5, 2, 0.3),
    "lrn, wide": lambda x: F.local_response_normalization(x, 9, 2, 0.3),
    "lrn, narrow": lambda x: F.local_response_normalization(x, 1, 2, 0.3),
}

#: How the same maps may lie in memory.
ORDERS = {
    "channels first": lambda x: x,
    "channels last": lambda x: np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
    "every second": lambda x: np.repeat(x, 2, axis=3)[:, :, :, ::2],
    "backwards": lambda x: np.ascontiguousarray(x[:, :, ::-1])[:, :, ::-1],
    "broadcast": lambda x: np.broadcast_to(x[:1], x.shape),
    "columns first": np.asfortranarray,
    "off its alignment": lambda x: misaligned(x),
}


def misaligned(x):
    raw = np.empty(x.nbytes + 1, np.uint8)[1:]
    y = raw.view(x.dtype).reshape(x.shape)
    y[...] = x
    return y


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize("order", ORDERS)
def test_any_order_in_memory(name, order):
    x = ORDERS[order](np.random.RandomState(6).randn(3, 20, 6, 7).astype("f"))
    function = ELEMENTWISE[name]
    results = []
    for use_ideep in "auto", "never":
        variable = chainer.Variable(x)
        with chainer.using_config("use_ideep", use_ideep):
            y = function(variable)
            gy = ORDERS[order](np.random.RandomState(7).randn(*y.shape).astype("f")) \
                if y.ndim == 4 else np.ones_like(y.array)
            y.grad = gy
            y.backward()
        results.append((y.array, variable.grad))
    for got, expected in zip(*results, strict=True):
        np.testing.assert_allclose(got, expected, **NEAR)


@pytest.mark.parametrize("order", ORDERS)
def test_convolution_takes_any_order_in_memory(order):
    rng = np.random.RandomState(8)
    x, W, b = (rng.randn(*shape).astype("f") for shape in ((3, 8, 6, 7), (4, 8, 3, 3), (4,)))
    expected = F.convolution_2d(x, W, b).array
    with chainer.using_config("use_ideep", "auto"):
        got = F.convolution_2d(ORDERS[order](x), ORDERS[order](W), np.repeat(b, 2)[::2]).array
    if order == "broadcast":
        expected = F.convolution_2d(ORDERS[order](x), ORDERS[order](W), b).array
    np.testing.assert_allclose(got, expected, **NEAR)
    assert is_channels_last(got)


def test_linear():
    rng = np.random.RandomState(9)
    for n, n_in, n_out in rng.randint(1, 70, (60, 3)):
        compare(F.linear, [rng.randn(n, n_in), rng.randn(n_out, n_in), rng.randn(n_out)])
        compare(F.linear, [rng.randn(n, n_in), rng.randn(n_out, n_in)])


def test_dropout_draws_the_same_numbers():
    x = np.random.RandomState(10).randn(4, 5, 6, 7)

    def dropout(x):
        np.random.seed(0)
        return F.dropout(x, 0.3)

    with chainer.using_config("train", True):
        compare(dropout, [x], 1e-6)


DTYPES = ["float16", "float64"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_other_types_are_left_to_numpy(dtype):
    rng = np.random.RandomState(11)
    arrays = [rng.randn(2, 3, 6, 6), rng.randn(4, 3, 3, 3), rng.randn(4)]

    def network(x, W, b):
        return F.max_pooling_2d(F.relu(F.convolution_2d(x, W, b)), 2)

    got, expected = (run(use, network, arrays, dtype) for use in ("auto", "never"))
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == dtype


def test_weights_of_another_type_are_left_to_numpy():
    x, W = np.ones((1, 2, 4, 4), "f"), np.ones((2, 2, 3, 3), "d")
    with chainer.using_config("use_ideep", "auto"):
        assert F.convolution_2d(x, W).dtype == np.float32


def test_empty_batch():
    x, W = np.ones((0, 2, 4, 4), "f"), np.ones((2, 2, 3, 3), "f")
    with chainer.using_config("use_ideep", "auto"):
        assert F.relu(F.convolution_2d(x, W)).shape == (0, 2, 2, 2)


def test_pooling_windows_outside_of_the_maps_are_left_to_numpy():
    x = np.random.RandomState(12).randn(1, 2, 5, 5)
    settings = {"ksize": 2, "stride": 3, "pad": 1}
    got, expected = (run(use, lambda x: F.max_pooling_2d(x, **settings), [x])
                     for use in ("auto", "never"))
    assert np.isneginf(expected[0]).any()
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_max_pooling_tells_its_indices():
    x = np.random.RandomState(13).randn(2, 3, 7, 7).astype("f")
    expected = F.max_pooling_2d(x, 3, 2, return_indices=True)[1]
    with chainer.using_config("use_ideep", "auto"):
        y, indexes = F.max_pooling_2d(x, 3, 2, return_indices=True)
        np.testing.assert_array_equal(indexes, expected)
        assert F.upsampling_2d(y, indexes, 3, 2, 0, (7, 7)).shape == (2, 3, 7, 7)


SWITCHED = {
    "max": lambda x: F.max_pooling_2d(x, 3, 2, 1),
    "average": lambda x: F.average_pooling_2d(x, 3, 2, 1),
    "relu": F.relu,
    "convolution": lambda x: F.convolution_2d(x, np.ones((4, 3, 3, 3), "f")),
}


@pytest.mark.parametrize("name", SWITCHED)
@pytest.mark.parametrize("forward, backward", [("auto", "never"), ("never", "auto")])
def test_switched_between_forward_and_backward(name, forward, backward):
    x = chainer.Variable(np.random.RandomState(14).randn(2, 3, 8, 8).astype("f"))
    expected = run("never", SWITCHED[name], [x.array])[1]
    with chainer.using_config("use_ideep", forward):
        y = SWITCHED[name](x)
    y.grad = np.random.RandomState(0).randn(*y.shape).astype("f")
    with chainer.using_config("use_ideep", backward):
        y.backward()
    np.testing.assert_allclose(x.grad, expected, **NEAR)


TWICE = {
    "convolution": lambda x, W, b: F.convolution_2d(x, W, b, pad=1),
    "groups": lambda x, W, b: F.convolution_2d(x, W[:, :2], b, groups=2, dilate=2, pad=2),
    "normalization": lambda x, W, b: F.batch_normalization(x, b * b + 1, b),
    "max": lambda x, W, b: F.max_pooling_2d(x * x, 2),
    "average": lambda x, W, b: F.average_pooling_2d(x * x, 2),
    "sigmoid": lambda x, W, b: F.sigmoid(x),
    "linear": lambda x, W, b: F.linear(F.tanh(x), F.tanh(W.reshape(4, -1)[:, :1]
                                                         + np.zeros((4, 144), W.dtype))),
}


@pytest.mark.parametrize("name", TWICE)
def test_double_backward(name):
    rng = np.random.RandomState(15)
    arrays = rng.randn(2, 4, 6, 6), rng.randn(4, 4, 3, 3), rng.randn(4)

    def penalty(use_ideep, dtype):
        x, W, b = inputs = [chainer.Variable(a.astype(dtype)) for a in arrays]
        with chainer.using_config("use_ideep", use_ideep):
            y = TWICE[name](x, W, b)
            weights = np.random.RandomState(0).randn(*y.shape).astype(dtype)
            (gx,) = chainer.grad([F.sum(y * y * weights)], [x], enable_double_backprop=True)
            F.sum(gx * gx).backward()
        return [x.grad, *(v.grad for v in inputs[1:] if v.grad is not None)]

    for got, expected in zip(penalty("auto", "f"), penalty("never", "d"), strict=True):
        assert norm_of_difference(got, expected) < 1e-4


OPTIMIZERS = ["Adam", "AMSGrad", "AdaBound", "AdamW", "MomentumSGD", "SGD", "RMSprop", "SMORMS3"]


def trained(name, use_ideep):
    """Return parameters and states after three updates, of more and fewer elements than a piece."""
    rng = np.random.RandomState(21)
    model = chainer.Chain(large=chainer.links.Linear(300, 400, initialW=rng.randn(400, 300)),
                          small=chainer.links.Linear(3, 4, initialW=rng.randn(4, 3)))
    optimizer = getattr(chainer.optimizers, name)().setup(model)
    optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(1e-3))
    with chainer.using_config("use_ideep", use_ideep):
        for _ in range(3):
            for p in sorted(model.params(), key=lambda p: p.size):
                p.grad = rng.randn(*p.shape).astype("f")
            optimizer.update()
    rules = [p.update_rule for p in model.params()]
    return [p.array for p in model.params()] + [
        array for rule in rules for array in (rule.state or {}).values()]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_updates_in_pieces_have_the_same_bits(name):
    for got, expected in zip(trained(name, "auto"), trained(name, "never"), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_large_parameters_are_updated_in_pieces(monkeypatch):
    rule = chainer.optimizers.momentum_sgd.MomentumSGDRule
    sizes = []
    from rechainer.onednn import _chainer

    make = _chainer.in_pieces(lambda self, param: sizes.append(param.data.size))
    monkeypatch.setattr(rule, "update_core_cpu", make)
    trained("MomentumSGD", "auto")
    assert sizes.count(_chainer.PIECE) == sizes.count(300 * 400 - _chainer.PIECE) == 3
    assert 300 * 400 not in sizes
    sizes.clear()
    trained("MomentumSGD", "never")
    assert sizes.count(300 * 400) == 3


def test_use_ideep_is_the_switch(monkeypatch):
    from rechainer.onednn import _operations

    made = []
    ordinary = _operations.Convolution.forward
    monkeypatch.setattr(_operations.Convolution, "forward",
                        lambda *a: made.append(1) or ordinary(*a))
    x, W = np.ones((1, 2, 4, 4), "f"), np.ones((2, 2, 3, 3), "f")
    counts = {}
    for use_ideep in "never", "auto", "always":
        made.clear()
        with chainer.using_config("use_ideep", use_ideep):
            F.convolution_2d(x, W)
        counts[use_ideep] = len(made)
    assert counts == {"never": 0, "auto": 1, "always": 1}


def test_activations_stay_channels_last():
    x = np.random.RandomState(16).randn(2, 3, 8, 8).astype("f")
    W = np.random.RandomState(17).randn(5, 3, 3, 3).astype("f")
    with chainer.using_config("use_ideep", "auto"), chainer.no_backprop_mode():
        h = F.convolution_2d(x, W)
        for function in (F.relu, lambda h: h + h, lambda h: F.max_pooling_2d(h, 2),
                         lambda h: F.concat([h, h[:, ::2]]), F.sigmoid):
            h = function(h)
            assert is_channels_last(h.array)


def test_the_cache_of_primitives_is_bounded(monkeypatch):
    from rechainer.onednn import _primitives

    monkeypatch.setattr(_primitives, "CACHE_SIZE", 3)
    monkeypatch.setattr(_primitives._thread, "made", {})
    with chainer.using_config("use_ideep", "auto"):
        for n in range(1, 8):
            x = np.random.RandomState(n).randn(n, n, 3, 3).astype("f")
            np.testing.assert_array_equal(F.relu(x).array, np.maximum(x, 0))
    assert len(_primitives._thread.made) == 3


MODEL = """
    import os, sys, threading
    import rechainer, chainer
    import chainer.functions as F
    import numpy as np

    chainer.global_config.use_ideep = "auto"
    rng = np.random.RandomState(0)
    W = rng.randn(8, 8, 3, 3).astype("f")

    def gradient(seed):
        x = chainer.Variable(np.random.RandomState(seed).randn(4, 8, 9, 9).astype("f"))
        h = F.relu(F.convolution_2d(x, W, pad=1)) + x
        F.sum(F.max_pooling_2d(h, 2) ** 2).backward()
        return x.grad

    expected = [gradient(seed) for seed in range(4)]
"""


def test_threads_do_not_meet(python):
    python(MODEL + """
    wrong = []

    def work(seed):
        for _ in range(50):
            if not np.allclose(gradient(seed), expected[seed], atol=1e-5):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, wrong
    """)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize("threads", ["1", "2"])
def test_children_of_a_fork(python, monkeypatch, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    python(MODEL + """
    children = []
    for seed in range(4):
        child = os.fork()
        if not child:
            right = np.allclose(gradient(seed), expected[seed], atol=1e-5)
            os._exit(0 if right else 1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert np.allclose(gradient(0), expected[0], atol=1e-5)
    """)


def test_switched_off_by_an_empty_variable(python, monkeypatch):
    monkeypatch.setenv("RECHAINER_ONEDNN", "")
    python("""
        import rechainer, chainer
        import numpy as np
        assert "not installed" in rechainer.info()["parts"]["oneDNN"]
        assert not chainer.backends.intel64.is_ideep_available()
        with chainer.using_config("use_ideep", "auto"):
            y = chainer.functions.relu(np.ones((1, 2, 3, 4), "f"))
        assert y.array.flags.c_contiguous
    """)


#: Settings of convolutions whose weight gradients are matrix products.
BY_PRODUCTS = {
    "1x1": {}, "1x1 strided": {"stride": (2, 3)}, "same": {"ksize": 3, "pad": 1},
    "dilated": {"ksize": 3, "pad": 2, "dilate": 2}, "no border": {"ksize": 2},
    "wide border": {"ksize": (3, 2), "pad": (2, 1)},
    "covering all": {"ksize": 3, "pad": 1, "cover_all": True},
    "windows in the border": {"ksize": 3, "pad": 3},
    "several groups of images": {"ksize": 3, "pad": 1, "size": (60, 50)},
}  # fmt: skip


@pytest.mark.parametrize("name", BY_PRODUCTS)
@pytest.mark.parametrize("n", [1, 3])
def test_weight_gradients_by_products(name, n):
    settings = dict(BY_PRODUCTS[name])
    rng, size = np.random.RandomState(0), settings.pop("size", (23, 19))
    ksize = settings.pop("ksize", 1)
    window = ksize if isinstance(ksize, tuple) else (ksize, ksize)
    x, W = rng.randn(n, 16, *size), rng.randn(24, 16, *window)
    asked = []

    def convolution(x, W):
        y = F.convolution_2d(x, W, **settings)
        asked.append((x.shape, W.shape, y.shape, y.creator))
        return y

    compare(convolution, [x, W])
    *shapes, node = asked[0]
    assert _products.is_better(*shapes, (node.sy, node.sx), (node.ph, node.pw),
                               (node.dy, node.dx)) == (_products.one_thread() is not None)


@pytest.mark.parametrize("settings", [{}, {"stride": (2, 3)}, {"stride": 2, "cover_all": True}],
                         ids=str)
@pytest.mark.parametrize("bias", [False, True])
def test_pointwise_convolutions(settings, bias, monkeypatch):
    rng, (o, c), made = np.random.RandomState(0), (272, 256), []
    monkeypatch.setattr(_products, "_multiply_rows", lambda *arrays, do=_products._multiply_rows: (
        made.append(len(arrays[0])), do(*arrays)))
    arrays = [rng.randn(3, c, 8, 7), rng.randn(o, c, 1, 1), rng.randn(o)][:2 + bias]
    compare(lambda *a: F.convolution_2d(*a, **settings), arrays)
    # Forward and backward, where all windows lie in the maps.
    assert len(made) == (2 if _products.one_thread() and "cover_all" not in settings else 0)


def test_products_in_threads_report_errors_and_meet_all_parts():
    seen = []
    _products.in_threads(lambda part: seen.extend(range(part.start, part.stop)), 7)
    assert sorted(seen) == list(range(7))
    with pytest.raises(ZeroDivisionError):
        _products.in_threads(lambda part: 1 / 0, 7)


def test_openblas_gets_its_threads_back():
    threads = _products.one_thread()
    if threads is None:
        pytest.skip("NumPy's BLAS is no OpenBLAS")
    before = threads._get()
    with threads, threads:
        assert threads._get() == 1
    assert threads._get() == before


def losses_on(device):
    np.random.seed(0)
    model = models.LeNet5()
    model.to_device(device)
    assert str(model.device) == device
    rng = np.random.RandomState(1)
    x, t = model.device.send((rng.rand(4, *model.in_shape).astype("f"), np.arange(4, dtype="i")))
    optimizer = chainer.optimizers.Adam().setup(model)
    losses = []
    with chainer.using_config("use_ideep", "auto"):
        for _ in range(3):
            loss = F.softmax_cross_entropy(model.logits(x), t)
            model.cleargrads()
            loss.backward()
            optimizer.update()
            losses.append(float(loss.array))
    model.to_device("@numpy")
    assert str(model.device) == "@numpy"
    return losses


def test_the_device_of_ideep_trains_alike():
    assert losses_on("@intel64") == losses_on("@numpy")


def test_variables_go_to_ideep_and_back():
    x = chainer.Variable(np.arange(24, dtype="f").reshape(1, 2, 3, 4))
    x.to_intel64()
    assert str(x.device) == "@intel64"
    np.testing.assert_array_equal(F.relu(x).array, x.array)
    x.to_cpu()
    assert str(x.device) == "@numpy"
