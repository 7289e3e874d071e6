"""Stock Chainer on this stack: training, saving, loading, and NumPy 2's changes of meaning."""

import json

import rechainer  # noqa: F401  first

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainer import training
from chainer.training import extensions

DTYPES = ["float16", "float32", "float64"]


class Net(chainer.Chain):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.conv = L.Convolution2D(1, 4, 3)
            self.bn = L.BatchNormalization(4)
            self.fc = L.Linear(None, 2)

    def forward(self, x):  # (N, 1, 8, 8) -> (N, 2)
        return self.fc(F.max_pooling_2d(F.relu(self.bn(self.conv(x))), 2))


def make_trainer(out, epochs):
    np.random.seed(0)
    x = np.random.rand(64, 1, 8, 8).astype("f")
    t = (x[:, 0, 0, 0] > 0.5).astype("i")
    data = chainer.datasets.TupleDataset(x, t)
    optimizer = chainer.optimizers.Adam().setup(L.Classifier(Net()))
    # no shuffling: NumPy's random state is not in Chainer's snapshots
    iterator = chainer.iterators.SerialIterator(data, 16, shuffle=False)
    updater = training.StandardUpdater(iterator, optimizer)
    trainer = training.Trainer(updater, (epochs, "epoch"), out=str(out))
    test = chainer.iterators.SerialIterator(data, 16, repeat=False, shuffle=False)
    trainer.extend(extensions.Evaluator(test, optimizer.target))
    trainer.extend(extensions.LogReport())
    trainer.extend(extensions.snapshot(filename="snapshot_{.updater.epoch}"))
    return trainer, optimizer.target


def parameters(model):
    return {name: p.array for name, p in model.namedparams()}


def assert_same_bits(left, right):
    assert left.keys() == right.keys()
    for name in left:
        assert left[name].tobytes() == right[name].tobytes(), name


def test_training_resumes_to_the_same_bits(tmp_path):
    whole, model = make_trainer(tmp_path / "whole", 4)
    whole.run()
    resumed, again = make_trainer(tmp_path / "resumed", 4)
    chainer.serializers.load_npz(tmp_path / "whole" / "snapshot_2", resumed)
    resumed.run()
    assert_same_bits(parameters(model), parameters(again))
    log = json.loads((tmp_path / "whole" / "log").read_text())
    assert log[-1]["main/loss"] < log[0]["main/loss"]


def test_npz_gives_back_every_bit(tmp_path):
    trainer, model = make_trainer(tmp_path, 1)
    trainer.run()
    chainer.serializers.save_npz(tmp_path / "model.npz", model)
    fresh = L.Classifier(Net())
    chainer.serializers.load_npz(tmp_path / "model.npz", fresh)
    assert_same_bits(parameters(model), parameters(fresh))
    assert fresh.predictor.bn.avg_var.tobytes() == model.predictor.bn.avg_var.tobytes()


def test_hdf5_gives_back_every_bit_where_h5py_is_installed(tmp_path):
    pytest.importorskip("h5py")
    model = L.Classifier(Net())
    model(np.ones((2, 1, 8, 8), "f"), np.zeros(2, "i"))
    chainer.serializers.save_hdf5(str(tmp_path / "model.h5"), model)
    fresh = L.Classifier(Net())
    fresh(np.ones((2, 1, 8, 8), "f"), np.zeros(2, "i"))
    chainer.serializers.load_hdf5(str(tmp_path / "model.h5"), fresh)
    assert_same_bits(parameters(model), parameters(fresh))


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_cross_entropy_sums_a_large_batch(dtype):
    # 100,000 losses of log(2) sum to 69,315, beyond float16's largest number, 65,504
    x = chainer.Variable(np.zeros((100_000, 2), dtype))
    loss = F.softmax_cross_entropy(x, np.zeros(100_000, "i"))
    loss.backward()
    assert loss.dtype == x.grad.dtype == dtype
    np.testing.assert_allclose(float(loss.array), np.log(2), rtol=1e-3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("number", [0.1, np.float64(0.1), np.float32(0.1)])
def test_a_number_does_not_change_the_type_of_a_variable(dtype, number):
    x = chainer.Variable(np.ones(3, dtype))
    for y in (x * number, x + number, number - x, x / number, F.absolute(x) ** number):
        assert y.dtype == dtype
    assert x.array.dtype == dtype


OPTIMIZERS = [
    name
    for name in dir(chainer.optimizers)
    if isinstance(getattr(chainer.optimizers, name), type)
    and issubclass(getattr(chainer.optimizers, name), chainer.GradientMethod)
]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_keep_float32(name):
    model = L.Linear(3, 2)
    optimizer = getattr(chainer.optimizers, name)().setup(model)
    optimizer.add_hook(chainer.optimizer_hooks.GradientClipping(0.1))
    optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(np.float64(1e-3)))
    before = model.W.array.copy()
    for _ in range(2):
        optimizer.update(lambda: F.sum(model(np.ones((4, 3), "f")) ** 2))
    state = [s for s in model.W.update_rule.state.values() if isinstance(s, np.ndarray)]
    assert {a.dtype for a in (model.W.array, model.W.grad, *state)} == {np.dtype("f")}
    assert (model.W.array != before).any()


def test_debug_print_says_cpu_as_it_did():
    assert "- device: CPU\n" in chainer.Variable(np.ones((2, 3), "f")).debug_print()


def test_categorical_log_prob_picks_from_the_table():
    p = np.array([[0.2, 0.8], [0.5, 0.5], [0.9, 0.1]], "f")
    log_prob = chainer.distributions.Categorical(p).log_prob
    x = np.array([1, 0, 0])
    np.testing.assert_allclose(log_prob(x).array, np.log([0.8, 0.5, 0.9]), rtol=1e-6)
    np.testing.assert_array_equal(log_prob(chainer.Variable(x)).array, log_prob(x).array)


def test_pad_sequence_wraps_its_padding_around():
    y = F.pad_sequence([np.ones(2, np.uint8), np.ones(1, np.uint8)], padding=-1)
    assert y.array.tolist() == [[1, 1], [1, 255]]
    assert y.dtype == np.uint8


def test_resize_images_uses_a_removed_name():
    x = np.arange(4, dtype="f").reshape(1, 1, 2, 2)
    y = F.resize_images(x, (3, 3)).array
    np.testing.assert_allclose(y[0, 0], [[0, 0.5, 1], [1, 1.5, 2], [2, 2.5, 3]])
