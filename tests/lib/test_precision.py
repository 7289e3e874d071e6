"""Training in mixed precision, on the processor: the arithmetic is NumPy's."""

from convnets import cli, data, models, training

import chainer
import numpy as np
import pytest

OPTIONS = {"epochs": 2, "batch": 32, "optimizer": "momentum", "lr": 0.1, "weight_decay": 1e-4,
           "seed": 3}


def small_network():
    """Convolution, batch normalization and a linear layer: as quick as float16 is on a CPU."""
    np.random.seed(0)
    model = chainer.Sequential(
        chainer.links.Convolution2D(1, 4, 5, stride=3), chainer.links.BatchNormalization(4),
        chainer.functions.relu, chainer.links.Linear(256, 10))
    return model


@pytest.fixture(scope="module")
def digits():
    return data.mnist(96, 50)


def weights(model):
    return {path: p.array.copy() for path, p in model.namedparams()}


def trained(digits, **options):
    model = small_network()
    run = training.train(model, *digits, **{**OPTIONS, **options})
    return model, run.get_extension("LogReport").log


def test_it_learns_what_full_precision_learns(digits):
    model, log = trained(digits, precision="mixed16")
    _, full = trained(digits)
    for got, expected in zip(log, full, strict=True):
        assert got["main/loss"] == pytest.approx(expected["main/loss"], rel=0.02)
        assert got["validation/main/loss"] == pytest.approx(expected["validation/main/loss"],
                                                            rel=0.05)
    assert log != full
    assert {p.dtype for p in model.params()} == {np.dtype("f")}


def test_weights_are_float16_and_normalization_is_not_while_it_runs(digits):
    model = small_network()
    originals = model[3].W.array.copy()
    run = training.trainer(model, *digits, **OPTIONS, precision="mixed16")
    convolution, normalization, _, linear = model
    assert {p.dtype.char for link in (convolution, linear) for p in link.params()} == {"e"}
    assert {p.dtype.char for p in normalization.params()} == {"f"}
    seen = []
    run.extend(lambda trainer: seen.append(model[0].W.grad.dtype.char), trigger=(1, "iteration"))
    run.run()
    assert set(seen) == {"e"}
    assert not np.array_equal(originals, originals.astype("e"))   # rounding would show
    assert {p.dtype.char for p in model.params()} == {"f"}


def test_small_steps_are_not_lost(digits):
    """A step that float16 would round away moves the float32 original."""
    model = small_network()
    before = model[3].W.array.copy()
    training.train(model, *digits, **{**OPTIONS, "lr": 1e-6, "weight_decay": 0.0},
                   precision="mixed16")
    moved = np.abs(model[3].W.array - before)
    assert 0 < moved.max() < 1e-4


def test_a_killed_run_continues_bit_for_bit(digits, tmp_path):
    whole, log = trained(digits, precision="mixed16")
    options = {**OPTIONS, "precision": "mixed16", "out": tmp_path}
    run = training.trainer(small_network(), *digits, **options)
    run.stop_trigger = chainer.training.triggers.IntervalTrigger(1, "epoch")
    run.run()
    model = small_network()
    run = training.trainer(model, *digits, **options, resume=True)
    run.run()
    assert run.get_extension("LogReport").log[-1]["main/loss"] == log[-1]["main/loss"]
    for path, expected in weights(whole).items():
        np.testing.assert_array_equal(weights(model)[path], expected, err_msg=path)


def test_a_snapshot_belongs_to_its_precision(digits, tmp_path):
    options = {**OPTIONS, "epochs": 1, "out": tmp_path}
    training.train(small_network(), *digits, **options, precision="mixed16")
    with pytest.raises(training.ResumeError, match="precision is 'mixed16' there, None here"):
        training.trainer(small_network(), *digits, **options, resume=True)


def test_wrong_precisions_and_models_without_values_are_refused(digits):
    with pytest.raises(ValueError, match="unknown precision 'half'; there are: None, mixed16"):
        training.trainer(small_network(), *digits, precision="half")
    lazy = chainer.Sequential(chainer.links.Linear(None, 10))
    with pytest.raises(ValueError, match=r"/predictor/0/W get theirs when .* call it once"):
        training.trainer(lazy, *digits, precision="mixed16")


def test_the_command_line_passes_it_on(tmp_path, capsys):
    assert cli.main(["train", "lenet5", "--epochs", "1", "--n-train", "32", "--n-test", "10",
                     "--quiet", "--precision", "mixed16", "--out", str(tmp_path)]) == 0
    with np.load(tmp_path / "model.npz") as saved:
        assert {saved[name].dtype.char for name in saved.files} == {"f"}
    model = cli.load_npz(tmp_path / "model.npz", models.LeNet5())
    assert model.predict(np.zeros((28, 28), "u1")).shape == (1, 10)
