"""Optimized models: the same outputs as the original, and clear words where they cannot serve."""

import ctypes
import multiprocessing
import sys
import threading

import convnets
from convnets import models
from convnets.optimize import N_PLANS, fold, joined
from rechainer import onednn

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainer.backends import intel64

NEAR = 1e-5    # of the largest output

#: Model -> constructor, height and width of its images. All kinds of layers; few channels.
MODELS = {
    "LeNet5": (models.LeNet5, (28, 28)),
    "LeNet5List": (models.LeNet5List, (28, 28)),
    "LeNet5List with all": (lambda: models.LeNet5List(sigm5=True, mpool3=True), (28, 28)),
    "LeNet5ChainList": (models.LeNet5ChainList, (28, 28)),
    "LeNet5 as Sequential": (models.lenet5_sequential, (28, 28)),
    "VGG": (lambda: models.VGG(((8, 2), (16, 3)), 10, (3, 29, 30), 32), (29, 30)),
    "VGGSmall": (models.VGGSmall, (28, 28)),
    "ResNet50": (lambda: models.ResNet50(20, width=0.125), (65, 70)),
    "ResNet as torch has it": (lambda: models.ResNet(
        (1, 2, 1, 1), 20, width=0.125, stride_in="3x3", stem_pool="torch"), (64, 64)),
    "ResNet as Caffe has it": (lambda: models.ResNet(
        (1, 1, 2, 1), 20, width=0.125, stem_pool="caffe", stem_bias=True), (66, 64)),
    "ResNet20": (models.ResNet20, (32, 32)),
    "Plain20": (models.Plain20, (33, 32)),
    "SqueezeNet": (models.SqueezeNet, (65, 67)),
}

WITH_ONEDNN = pytest.mark.skipif(
    not intel64.is_ideep_available(), reason=f"oneDNN: {onednn.status()}")

#: A value of `use_ideep`, and how many threads it has.
ENGINES = [("never", 1), *(pytest.param(("auto", n), marks=WITH_ONEDNN) for n in (1, 2))]


@pytest.fixture(params=ENGINES, ids=str)
def engine(request, monkeypatch):
    mode, threads = request.param
    # Batches of 2 and 4 images are computed in two parts, however small they are.
    monkeypatch.setattr(onednn, "threads", lambda: threads)
    monkeypatch.setattr(sys.modules["convnets.optimize"], "PARTS_FROM", 0)
    monkeypatch.setattr(sys.modules["convnets.optimize"], "ALONE_TO", 0)
    with chainer.using_config("use_ideep", mode):
        yield mode


@pytest.fixture
def inference():
    with chainer.using_config("train", False):
        yield


def build(name):
    """Return a model whose batch normalizations have statistics that are not 0 and 1."""
    np.random.seed(0)
    model, rng = MODELS[name][0](), np.random.RandomState(1)
    if model.any_size:
        model.in_shape = (3, *MODELS[name][1])    # what `optimize` tries it with
    for link in model.links():
        if isinstance(link, L.BatchNormalization):
            size = link.avg_mean.shape
            link.avg_mean[...], link.beta.array[...] = 0.1 * rng.randn(2, *size)
            link.avg_var[...], link.gamma.array[...] = rng.uniform(0.5, 1.5, (2, *size))
    return model


def images(name, n=3):
    channels = 1 if MODELS[name][1] == (28, 28) else 3
    return np.random.RandomState(n).rand(n, channels, *MODELS[name][1]).astype("f")


def difference(got, expected):
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype
    return abs(got - expected).max() / abs(expected).max()


@pytest.mark.parametrize("name", MODELS)
def test_outputs_are_the_same(name, engine, inference):
    model, x = build(name), images(name)
    fast = convnets.optimize(model)
    for n in 3, 1, 2, 3:
        expected = model.logits(x[:n]).array
        got = fast.logits(x[:n])
        assert isinstance(got, chainer.Variable)
        assert difference(got.array, expected) < NEAR
    assert difference(fast(x).array, model(x).array) < NEAR
    assert difference(fast.predict(x), model.predict(x)) < NEAR


@pytest.mark.parametrize("name", ["VGGSmall", "ResNet50", "ResNet20", "SqueezeNet"])
def test_features_are_the_same(name, engine, inference):
    model, x = build(name), images(name, 2)
    fast = convnets.optimize(model)
    for pick, _ in model.stages():
        assert difference(fast.features(x, pick).array, model.features(x, pick).array) < NEAR
    with pytest.raises(ValueError, match="no stage 'conv99'"):
        fast.features(x, "conv99")


def test_stages_are_refused_and_lenet5_has_none():
    fast = convnets.optimize(models.LeNet5())
    with pytest.raises(NotImplementedError, match="features"):
        fast.stages()


def test_the_original_stays_as_it_is(engine, inference):
    model, x = build("ResNet20"), images("ResNet20")
    before = {name: p.array.copy() for name, p in model.namedparams()}
    fast = convnets.optimize(model)
    expected = fast.logits(x).array
    for name, p in model.namedparams():
        np.testing.assert_array_equal(p.array, before[name])
        p.array[...] = 0
    for link in model.links():
        if isinstance(link, L.BatchNormalization):
            link.avg_var[...] = 9
    np.testing.assert_array_equal(fast.logits(x).array, expected)
    np.testing.assert_array_equal(fast.logits(x[:2]).array, convnets.optimize(fast).logits(
        x[:2]).array)


def test_results_are_not_overwritten_by_later_calls(engine, inference):
    fast, x = convnets.optimize(build("ResNet20")), images("ResNet20")
    first = fast.logits(x).array
    kept = first.copy()
    fast.logits(1 - x)
    np.testing.assert_array_equal(first, kept)


def test_inputs_are_not_written_to(engine, inference):
    fast, x = convnets.optimize(build("VGGSmall")), images("VGGSmall")
    kept = x.copy()
    fast.logits(x)
    fast.logits(np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(x, kept)


def test_switched_after_optimizing(inference):
    model, x = build("ResNet20"), images("ResNet20")
    fast, expected = convnets.optimize(model), model.logits(x).array
    for use_ideep in "never", "auto", "never":
        with chainer.using_config("use_ideep", use_ideep):
            assert difference(fast.logits(x).array, expected) < NEAR


def test_more_shapes_than_plans_are_kept(engine, inference):
    model = build("LeNet5")
    fast = convnets.optimize(model)
    for n in [*range(1, N_PLANS + 4), 1]:
        x = np.random.RandomState(n).rand(n, 1, 28, 28).astype("f")
        assert difference(fast.logits(x).array, model.logits(x).array) < NEAR
    assert len(onednn.kept_for(fast)) == N_PLANS


def test_an_empty_batch(engine, inference):
    fast = convnets.optimize(OneLayer(lambda self, x: self.conv(x), conv=L.Convolution2D(2, 3, 1)))
    assert fast.logits(np.zeros((0, 2, 6, 6), "f")).shape == (0, 3, 6, 6)


def test_training_is_refused():
    model = models.LeNet5()
    fast, x = convnets.optimize(model), images("LeNet5")
    with pytest.raises(RuntimeError, match="optimize is for inference"):
        fast.logits(x)
    assert not list(fast.params())
    with chainer.using_config("train", False):
        loss = F.sum(fast.logits(chainer.Variable(x)))
        with pytest.raises(RuntimeError, match="there are no gradients"):
            loss.backward()


def test_saving_is_refused(tmp_path):
    fast = convnets.optimize(models.LeNet5())
    with pytest.raises(TypeError, match="save the original"):
        chainer.serializers.save_npz(tmp_path / "x.npz", fast)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_types_of_parameters_are_refused(dtype):
    with chainer.using_config("dtype", dtype):
        model = models.VGGSmall()
    with pytest.raises(ValueError, match=rf"{np.dtype(dtype)}: optimize works in float32 only"):
        convnets.optimize(model)


def test_other_types_of_images_are_refused(inference):
    fast = convnets.optimize(models.LeNet5())
    with pytest.raises(ValueError, match="float32 images, got float64"):
        fast.logits(np.zeros((1, 1, 28, 28)))
    with pytest.raises(ValueError, match="LeNet5 takes images of shape"):
        fast.logits(np.zeros((1, 28, 28), "f"))


def test_what_is_no_model_is_refused():
    with pytest.raises(TypeError, match="got Linear"):
        convnets.optimize(L.Linear(3, 4))


class OneLayer(models.ImageClassifier, chainer.Chain):
    """A model made of whatever function is given."""

    in_shape = (2, 6, 6)

    def __init__(self, function, **links):
        super().__init__(**links)
        self.function = function

    def logits(self, x):
        self.check_input(x)
        return self.function(self, x)


def test_parameters_without_shape_are_refused():
    model = OneLayer(lambda self, x: self.fc(x), fc=L.Linear(None, 3))
    with pytest.raises(ValueError, match="/fc/W has no shape yet: call the model once"):
        convnets.optimize(model)


def test_what_is_hidden_from_chainer_is_noticed():
    model = OneLayer(lambda self, x: self.fc(np.sqrt(getattr(x, "array", x))), fc=L.Linear(72, 3))
    with pytest.raises(ValueError, match="functions of Chainer alone"):
        convnets.optimize(model)


def twice_normalized(self, x):
    h = self.conv(x)
    return F.sum(self.bn(h) + F.tanh(h), axis=(2, 3))


#: What could be joined wrongly: function of model and input.
TRICKY = {
    "a result that is read twice": twice_normalized,
    "x + x": lambda self, x: F.sum(self.bn(self.conv(x) + self.conv(x)), axis=(2, 3)),
    "two normalizations": lambda self, x: F.sum(self.bn(self.bn(self.conv(x))), axis=(2, 3)),
    "normalization of the input": lambda self, x: F.sum(self.conv(self.bn(x)), axis=(2, 3)),
    "ReLU before the sum": lambda self, x: F.sum(F.relu(self.conv(x)) + x, axis=(2, 3)),
    "a sum that is broadcast": lambda self, x: F.sum(
        self.conv(x) + F.broadcast_to(F.mean(x, axis=(2, 3), keepdims=True), x.shape),
        axis=(2, 3)),
    "a constant": lambda self, x: F.sum(self.conv(x) + np.ones(x.shape, "f"), axis=(2, 3)),
    "sum of an input": lambda self, x: F.sum(F.relu(x + self.conv(x)), axis=(2, 3)),
    "two outputs": lambda self, x: F.sum(F.concat(F.split_axis(self.conv(x), 2, 1)[::-1]),
                                         axis=(2, 3)),
    "max and mean": lambda self, x: F.max(x, axis=(2, 3)) - F.mean(self.conv(x), axis=(2, 3)),
    "twice the same weights": lambda self, x: F.sum(
        F.relu(self.bn(self.conv(F.relu(self.conv(x))))), axis=(2, 3)),
    "groups": lambda self, x: F.sum(self.bn(self.group(x)), axis=(2, 3)),
    "a linear layer, normalized": lambda self, x: F.relu(self.bn(self.fc(x))),
    "the last is a maximum": lambda self, x: F.max_pooling_2d(self.conv(x), 6).reshape(-1, 2),
    "few channels and a large window": lambda self, x: F.sum(F.relu(self.wide(x)), axis=(2, 3)),
    "a sum with few channels": lambda self, x: F.sum(self.wide(x) + self.wide(x), axis=(2, 3)),
    "a window as large as the map": lambda self, x: F.relu(self.whole(x)).reshape(-1, 2),
    "a sum with such windows": lambda self, x: F.relu(
        self.whole(x) + self.whole(F.relu(x))).reshape(-1, 2),
    "indices of a maximum": lambda self, x: F.sum(F.cast(F.cast(self.conv(x), "d"), "f"),
                                                  axis=(2, 3)),
}


@pytest.mark.parametrize("name", TRICKY)
def test_tricky(name, engine, inference):
    np.random.seed(2)
    model = OneLayer(TRICKY[name], conv=L.Convolution2D(2, 2, 3, pad=1),
                     group=L.Convolution2D(2, 2, 3, pad=1, groups=2, nobias=True),
                     wide=L.Convolution2D(2, 2, 5, pad=3), whole=L.Convolution2D(2, 2, 6),
                     bn=L.BatchNormalization(2), fc=L.Linear(72, 2))
    model.bn.avg_var[...], model.bn.avg_mean[...] = (0.5, 2), (1, -1)
    fast, x = convnets.optimize(model), np.random.RandomState(3).randn(4, 2, 6, 6).astype("f")
    assert difference(fast.logits(x).array, model.logits(x).array) < NEAR


def test_folding():
    rng = np.random.RandomState(4)
    W, (b, gamma, beta, mean) = rng.randn(3, 4).astype("f"), rng.randn(4, 3).astype("f")
    var, x = rng.rand(3).astype("f"), rng.randn(4)
    V, c = fold(W, b, gamma, beta, mean, var, eps=0.1)
    expected = gamma * (W @ x + b - mean) / np.sqrt(var.astype("d") + 0.1) + beta
    np.testing.assert_allclose(V @ x + c, expected, rtol=1e-5)
    assert V.dtype == c.dtype == np.float32


@pytest.mark.skipif(not intel64.is_ideep_available(), reason=f"oneDNN: {onednn.status()}")
def test_without_the_library_it_still_folds(monkeypatch, inference):
    model, x = build("ResNet20"), images("ResNet20")
    expected = model.logits(x).array
    monkeypatch.setattr(intel64, "is_ideep_available", lambda: False)
    monkeypatch.setattr(intel64, "should_use_ideep", lambda level: False)
    monkeypatch.setattr(onednn.Program, "__init__", None)
    with chainer.using_config("use_ideep", "auto"):
        fast = convnets.optimize(model)
        functions = chainer.function_hooks.TimerHook()
        assert difference(fast.logits(x).array, expected) < NEAR
        with functions:
            fast.logits(x)
    assert [row["occurrence"] for row in functions.summary().values()] == [1]


def test_normalizations_are_gone(inference):
    model = build("ResNet20")
    fast = convnets.optimize(model)
    x = images("ResNet20")
    ops = joined(*fast._trace(x, None))
    labels = [op.node.label for op in ops]
    assert "FixedBatchNormalization" not in labels
    assert labels.count("Convolution2DFunction") == 19


def test_threads_have_programs_of_their_own(engine):
    model = build("ResNet20")
    fast = convnets.optimize(model)
    inputs = [images("ResNet20", n) for n in (1, 2, 2, 3)]
    with chainer.using_config("train", False):
        expected = [model.logits(x).array for x in inputs]
    wrong = []

    def work(x, y):
        with chainer.using_config("train", False), chainer.using_config("use_ideep", engine):
            wrong.extend(1 for _ in range(5) if difference(fast.logits(x).array, y) > NEAR)

    threads = [threading.Thread(target=work, args=pair) for pair in zip(inputs, expected,
                                                                        strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def work_in_a_child(queue, fast, x):
    with chainer.using_config("train", False), chainer.using_config("use_ideep", "auto"):
        queue.put(fast.logits(x).array)


@WITH_ONEDNN
def test_a_fork_has_no_threads_of_its_parent(monkeypatch, inference):
    monkeypatch.setattr(onednn, "threads", lambda: 2)
    monkeypatch.setattr(sys.modules["convnets.optimize"], "PARTS_FROM", 0)
    model, x = build("ResNet20"), images("ResNet20", 2)
    context = multiprocessing.get_context("fork")
    with chainer.using_config("use_ideep", "auto"):
        fast, queue = convnets.optimize(model), context.Queue()
        expected = fast.logits(x).array
    child = context.Process(target=work_in_a_child, args=(queue, fast, x))
    child.start()
    got = queue.get(timeout=60)
    child.join()
    assert difference(got, expected) < NEAR


@WITH_ONEDNN
def test_a_small_network_needs_one_thread(inference):
    openmp = ctypes.CDLL("libgomp.so.1")
    before = openmp.omp_get_max_threads()
    asked, call = [], onednn.Program.execute

    def execute(self):
        asked.append(openmp.omp_get_max_threads())
        call(self)

    openmp.omp_set_num_threads(2)
    try:
        with chainer.using_config("use_ideep", "auto"), pytest.MonkeyPatch.context() as patch:
            patch.setattr(onednn.Program, "execute", execute)
            fast = convnets.optimize(build("LeNet5ChainList"))
            asked.clear()
            for n in 1, 16:
                fast.logits(images("LeNet5ChainList", n))
            after = openmp.omp_get_max_threads()
    finally:
        openmp.omp_set_num_threads(before)
    assert asked == [1, 2]
    assert after == 2


@WITH_ONEDNN
def test_parts_fall_back_together(monkeypatch, inference):
    """Where one thread's part cannot be built, the whole batch is computed as one."""
    model, x = build("ResNet20"), images("ResNet20", 2)
    monkeypatch.setattr(onednn, "threads", lambda: 2)
    monkeypatch.setattr(sys.modules["convnets.optimize"], "PARTS_FROM", 0)
    build_pooling = onednn.Program.pooling

    def pooling(self, *args):
        if len(self.input.shape) == 4 and self.input.shape[0] == 1:
            raise onednn.Unsupported("in parts")
        return build_pooling(self, *args)

    monkeypatch.setattr(onednn.Program, "pooling", pooling)
    with chainer.using_config("use_ideep", "auto"):
        fast = convnets.optimize(model)
        assert difference(fast.logits(x).array, model.logits(x).array) < NEAR
