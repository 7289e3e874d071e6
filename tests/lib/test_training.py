"""Training: what it does, that it can be killed at any moment, and what it refuses."""

import json
import multiprocessing
import random
import sys
import time

import convnets
from convnets import cli, data, losses, models, training

import chainer
import numpy as np
import pytest

QUICK = {"epochs": 2, "batch": 100, "schedule": "cosine", "shift": 2, "seed": 5}


def lenet5(seed=0):
    np.random.seed(seed)
    return models.LeNet5()


def small():
    return data.mnist(300, 100)


def arrays(model):
    return {name: p.array.copy() for name, p in model.namedparams()}


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def history(run):
    return [{k: v for k, v in entry.items() if k != "elapsed_time"}
            for entry in run.get_extension("LogReport").log]


def test_equals_a_loop_written_by_hand():
    train_set, test_set = small()
    ours = lenet5()
    run = convnets.train(ours, train_set, test_set, epochs=2, batch=100, seed=7)
    theirs = lenet5()
    target = losses.Classifier(theirs)
    rule = chainer.optimizers.Adam(alpha=0.004).setup(target)
    np.random.seed(7)
    x, t = chainer.dataset.concat_examples(train_set[:])
    for _ in range(2):
        order = np.random.permutation(300)
        for i in range(0, 300, 100):
            rule.update(target, x[order[i:i + 100]], t[order[i:i + 100]])
    assert same(arrays(ours), arrays(theirs))
    with chainer.using_config("train", False):
        loss = target(*chainer.dataset.concat_examples(test_set[:]))
    assert history(run)[-1]["validation/main/loss"] == pytest.approx(float(loss.array), rel=1e-5)


def test_learns():
    train_set, test_set = data.mnist(2000, 500)
    run = convnets.train(lenet5(), train_set, test_set, epochs=3, batch=10, lr=0.003)
    assert history(run)[-1]["validation/main/accuracy"] > 0.8


def test_same_seed_same_run_and_other_seed_another():
    runs = [lenet5() for _ in range(3)]
    for model, seed in zip(runs, (1, 1, 2), strict=True):
        convnets.train(model, *small(), epochs=1, batch=100, seed=seed, shift=1)
    assert same(arrays(runs[0]), arrays(runs[1]))
    assert not same(arrays(runs[0]), arrays(runs[2]))


def test_cosine_schedule_ends_near_zero():
    rates = [e["lr"] for e in history(convnets.train(lenet5(), *small(), **QUICK))]
    # The rate of the last step of each epoch: steps 2 and 5 of 6.
    expected = [0.004 * (1 + np.cos(np.pi * i / 6)) / 2 for i in (2, 5)]
    assert rates == pytest.approx(expected)


def test_step_schedule_and_weight_decay_are_those_of_a_loop_by_hand():
    ours, theirs = lenet5(), lenet5()
    options = {"optimizer": "momentum", "lr": 0.1, "weight_decay": 0.01, "schedule": "step"}
    run = convnets.train(ours, *small(), epochs=4, batch=300, **options)
    target = losses.Classifier(theirs)
    rule = chainer.optimizers.MomentumSGD(lr=0.1).setup(target)
    rule.add_hook(chainer.optimizer_hooks.WeightDecay(0.01))
    np.random.seed(0)
    x, t = chainer.dataset.concat_examples(small()[0][:])
    rates = (0.1, 0.1, 0.01, 0.001)
    for rate in rates:
        order = np.random.permutation(300)
        rule.lr = rate
        rule.update(target, x[order], t[order])
    assert same(arrays(ours), arrays(theirs))
    assert [e["lr"] for e in history(run)] == pytest.approx(rates)


@pytest.mark.parametrize(("dy", "dx"), [(0, 0), (2, -1), (-2, 2), (0, 1), (-1, 0)])
def test_shift_moves_images_and_fills_with_zeros(dy, dx):
    x = np.random.RandomState(0).rand(2, 1, 6, 5)
    expected = np.zeros_like(x)
    for i in range(6):
        for j in range(5):
            if 0 <= i - dy < 6 and 0 <= j - dx < 5:
                expected[:, :, i, j] = x[:, :, i - dy, j - dx]
    assert np.array_equal(training.shift_images(x, dy, dx), expected)


def stop_in_the_second_epoch(run):
    if run.updater.iteration == 4:
        raise KeyboardInterrupt


STEPS = {"iterations": 8, "every": 2, "batch": 100, "schedule": "step", "shift": 1}


def test_iterations_instead_of_epochs():
    log = history(convnets.train(lenet5(), *small(), **STEPS))
    assert [e["iteration"] for e in log] == [2, 4, 6, 8]  # 3 steps are an epoch
    assert [e["lr"] for e in log] == pytest.approx([0.004, 0.004, 4e-4, 4e-5])
    assert all("validation/main/accuracy" in e for e in log)
    (entry,) = history(convnets.train(lenet5(), *small(), iterations=4, batch=100))
    assert entry["iteration"] == 4


@pytest.mark.parametrize("options", [QUICK, STEPS])
def test_resume_is_bit_exact(options, tmp_path):
    whole = lenet5()
    reference = convnets.train(whole, *small(), **options)
    broken = training.trainer(lenet5(), *small(), **options, out=tmp_path)
    broken.extend(stop_in_the_second_epoch, trigger=(1, "iteration"))
    with pytest.raises(KeyboardInterrupt):
        broken.run()
    resumed = lenet5(seed=99)
    np.random.seed(1234)
    run = convnets.train(resumed, *small(), **options, out=tmp_path, resume=True)
    assert same(arrays(whole), arrays(resumed))
    assert history(run) == history(reference)


@pytest.fixture
def start():
    """A function: start(*argv) runs the command line in a process that has imported it already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["convnets.cli"])
    started = []

    def start(*argv):
        started.append(context.Process(target=exit_with, args=(argv,)))
        started[-1].start()
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.join()


def exit_with(argv):
    sys.exit(cli.main(argv))


@pytest.mark.slow
def test_killed_up_to_ten_times_it_ends_with_the_same_parameters_and_log(tmp_path, start):
    options = ["--n-train", "300", "--n-test", "200", "--epochs", "24", "--batch", "50",
               "--shift", "2", "--schedule", "cosine", "--seed", "3", "--quiet"]
    def arguments(out):
        return ["train", "lenet5", *options, "--out", str(out)]
    whole, out = tmp_path / "whole", tmp_path / "killed"
    process = start(*arguments(whole))
    process.join()
    assert process.exitcode == 0
    rng, kills = random.Random(0), 0
    while kills < 10:
        before = newest(out)
        process = start(*arguments(out), "--resume")
        if kills % 2:   # wait for progress, so that the kill falls into later and later epochs
            wait_for(lambda: newest(out) > before or process.exitcode is not None)  # noqa: B023
        process.join(rng.uniform(0, 0.2))
        if process.exitcode is not None:
            assert process.exitcode == 0
            break
        process.kill()
        process.join()
        kills += 1
    assert kills >= 5
    process = start(*arguments(out), "--resume")
    process.join()
    assert process.exitcode == 0
    with np.load(whole / "model.npz") as a, np.load(out / "model.npz") as b:
        assert same(dict(a), dict(b))
    logs = [json.loads((folder / "log").read_text()) for folder in (whole, out)]
    for entry in logs[0] + logs[1]:
        del entry["elapsed_time"]
    assert logs[0] == logs[1]
    assert not [p for p in out.iterdir() if p.is_dir()]


def newest(out):
    found = training._newest_snapshot(out)
    return training._iteration(found) if found else 0


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


@pytest.fixture
def finished(tmp_path):
    convnets.train(lenet5(), *small(), **QUICK, out=tmp_path)
    return tmp_path


def test_keeps_two_snapshots(finished):
    assert sorted(p.name for p in finished.glob("snapshot*")) == [
        "snapshot_3.npz", "snapshot_6.npz"]


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.mark.parametrize(("change", "message"), [
    ({"resume": False}, r"holds the snapshot snapshot_6.npz .*resume=True"),
    ({"lr": 0.1}, r"lr is 0.004 there, 0.1 here"),
    ({"epochs": 9, "seed": 6}, r"epochs is 2 there, 9 here; seed is 5 there, 6 here"),
])
def test_another_run_is_refused_and_nothing_overwritten(finished, change, message):
    before = contents(finished)
    with pytest.raises(training.ResumeError, match=message):
        training.trainer(lenet5(), *small(), **{**QUICK, "out": finished, "resume": True, **change})
    assert contents(finished) == before


def test_a_snapshot_of_another_model_is_refused(finished):
    model = models.LeNet5(n_class=26)
    before = arrays(model)
    with pytest.raises(training.ResumeError, match=r"LeNet5 \(44,426 .*LeNet5 \(45,786"):
        training.trainer(model, *small(), **QUICK, out=finished, resume=True)
    assert same(arrays(model), before)


@pytest.mark.parametrize("damage", [lambda b: b[:len(b) // 3], lambda b: b"", lambda b: b"x" * 99])
def test_a_damaged_snapshot_is_refused_and_the_one_before_it_continues(finished, damage):
    newest = finished / "snapshot_6.npz"
    newest.write_bytes(damage(newest.read_bytes()))
    with pytest.raises(training.ResumeError, match=r"not a whole snapshot.*Delete it"):
        training.trainer(lenet5(), *small(), **QUICK, out=finished, resume=True)
    newest.unlink()
    resumed, whole = lenet5(seed=9), lenet5()
    convnets.train(resumed, *small(), **QUICK, out=finished, resume=True)
    convnets.train(whole, *small(), **QUICK)
    assert same(arrays(resumed), arrays(whole))


def test_a_pickle_in_a_snapshot_is_not_executed(finished, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "bang"), "w"))
    np.savez(finished / "snapshot_6.npz", **{training.OPTIONS_KEY: np.array(Bomb(), object)})
    with pytest.raises(training.ResumeError, match="not a whole snapshot"):
        training.trainer(lenet5(), *small(), **QUICK, out=finished, resume=True)
    assert not (tmp_path / "bang").exists()


@pytest.mark.parametrize(("bad", "message"), [
    ({"optimizer": "adm"}, "unknown optimizer 'adm'; there are: adam"),
    ({"schedule": "linear"}, "unknown schedule 'linear'; there are: None, cosine"),
    ({"epochs": 0}, "epochs must be a whole number of at least 1, got 0"),
    ({"batch": 2.5}, "batch must be a whole number"),
    ({"shift": -1}, "shift must be"),
    ({"iterations": 0}, "iterations must be a whole number of at least 1, got 0"),
    ({"iterations": 10, "every": 3}, "must be a multiple of every.*got 10 and 3"),
    ({"lr": float("nan")}, "lr must be above 0"),
    ({"resume": True}, "needs the folder"),
])
def test_bad_options(bad, message):
    with pytest.raises(ValueError, match=message):
        training.trainer(lenet5(), *small(), **bad)
