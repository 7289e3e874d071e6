"""cuDNN under Chainer, on a device that is NumPy: Chainer's own code runs, unchanged.

This shows that every call has the right arguments and every result its place. What a GPU calculates
it does not show: that is `tests/bench/gpu`, on a machine that has one.
"""

import json
import os
from pathlib import Path

import pytest

FAKE = Path(__file__).with_name("fake_gpu")


@pytest.fixture
def on_device(python, monkeypatch):
    """Run a function of fake_gpu/operations.py in a Python where a GPU seems to be."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(
        [str(FAKE), os.environ.get("PYTHONPATH", "")]))

    def run(name, *arguments):
        python(f"import operations; operations.{name}(*{arguments!r})")

    return run


@pytest.mark.parametrize("name", [
    "convolutions_2d", "convolutions_nd", "deconvolutions", "channels_last", "pooling",
    "pooling_with_the_channels_last",
    "pooling_with_the_channels_last_is_deterministic_where_it_shall_be",
    "pooling_where_the_channels_last_are_refused", "pooling_keeps_to_what_there_is",
    "average_pooling_has_second_derivatives", "normalization_with_the_channels_last_in_test_mode",
    "parts_of_arrays_are_aligned",
    "batch_normalization", "batch_normalization_without_running_statistics",
    "fixed_batch_normalization", "fused_normalization", "fused_normalization_in_old_code",
    "what_is_not_fused", "fused_normalization_refused", "persistent_normalization_refused",
    "waiting_variables", "convolutions_with_more",
    "group_normalization", "activations", "softmax", "dropout", "settings", "autotune",
    "autotune_without_a_plan_that_runs", "a_whole_network", "training_steps",
    "recurrent_networks_keep_away", "nothing_is_left_in_cupy", "errors",
])
def test_on_a_device_that_is_numpy(name, on_device):
    on_device(name)


@pytest.fixture
def bench(python, monkeypatch):
    """Run tests/bench/gpu where a GPU seems to be; its record is gpu.json."""
    root = Path(__file__).parents[3]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(
        [str(FAKE), str(root), os.environ.get("PYTHONPATH", "")]))

    def run(*arguments, status=0):
        return python(None, FAKE / "bench.py", *arguments, "--record", "gpu.json", status=status)

    return run


def test_the_script_for_a_machine_with_a_gpu(bench, tmp_path):
    done = bench("--small", "--rounds", "2")
    assert "FAIL" not in done.stdout
    run = json.loads((tmp_path / "gpu.json").read_text())
    assert "NumPy, 16 GiB" in run["device"]
    assert {"command", "date", "versions", "info", "parts"} <= set(run)
    training, prediction = (part for part in run["parts"].values() if isinstance(part, dict))
    assert {f"Chainer, {kind}, optimized{graph}" for kind in ("float32", "mixed16")
            for graph in ("", ", graph")} <= set(prediction["peers"])
    assert {row["what"] for row in run["parts"]["ways to infer"]} == {
        f"CIFAR, {way}" for way in (
            "channels last", "channels last, mixed16", "optimized", "optimized, graph",
            "optimized, mixed16", "optimized, mixed16, graph")}
    assert (training["network"], training["train"], prediction["train"]) == ("LeNet5", True, False)
    for row in training, prediction:
        assert {f"Chainer, {way}" for way in (
            "float32", "float32, graph", "mixed16", "mixed16, graph")} <= set(row["peers"])
        for peer in row["peers"].values():
            assert peer["milliseconds"] > 0
            assert peer["images_per_second"] > 0
    assert [row["what"] for row in run["parts"]["ways to train"]] == [
        "fused optimizer", "CUDA graph", "channels last, CIFAR", "fused normalization"]
    assert {"batch normalization + ReLU", "batch normalization + sum + ReLU",
            "max pooling 2x2, last", "max pooling 3x3, pad 1, last",
            "average pooling 7x7, last"} <= {
        row["what"] for row in run["parts"]["operations"]}


SMALL_KERNELS = """
import fake_device
from convnets import devices, models
from tests.bench.gpu import kernels, race, ways

import numpy as np

kernels.POOLED = [(name, (2, 4, 7, 7)) for name, _ in kernels.POOLED]
kernels.TIMED = [(2, 8, 3, 3)]
device = devices.get("@cupy:0")
found = list(kernels.time_kernels(device))
assert len(found[-1]) == 3 * 2 + 2 * 3, found[-1]
assert found[-1]["max pooling 2x2, (2, 4, 7, 7), channels last"] > 0
def smaller():
    np.random.seed(0)
    return models.VGG(((4, 1), (8, 1)), 10, (3, 36, 36), hidden=8)

way = "channels last, VGG, mixed16, CUDA graph"
ways.WAYS_TO_TRAIN[way] = smaller, *ways.WAYS_TO_TRAIN[way][1:]
checks = ways.check_ways_to_train(device, [way])
assert [row["passed"] for row in checks] == [True]
ways.INFERRED["VGG"] = smaller
checks = [*ways.check_ways_to_infer(device, ["VGG", "LeNet5"])]
assert [row["passed"] for row in checks] == [True] * 10, checks
assert [*race.builders("VGG16", 1, True, device, True)][:2] == [
    "Chainer, float32", "Chainer, mixed16, channels last, graph"]
assert [*race.builders("ResNet50", 1, False, device, True)][:2] == [
    "Chainer, float32", "Chainer, mixed16, optimized, graph"]
assert len([*race.builders("ResNet50", 128, True, device, False)]) >= 6
assert sorted(race.ROWS) == sorted(race.ROWS_COMPILED)
"""


def test_what_the_script_does_beside_that(python, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(
        [str(FAKE), str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")]))
    python(SMALL_KERNELS)


def test_a_part_that_breaks_or_hangs_leaves_the_others(bench, tmp_path, monkeypatch):
    late, row = "LeNet5; inference; batch 2", "LeNet5, training, batch 4"
    monkeypatch.setenv("BREAK", f"operations=exit,ways to train=hang,{late}=exit late")
    done = bench("--small", "--rounds", "1", status=1)
    assert "SOME CHECKS FAILED" in done.stdout
    parts = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert parts["operations"] == "failed: its process ended with status 7"
    assert parts["ways to train"] == "failed: not done after 4 s"
    peers = parts[row]["peers"]
    assert peers["Chainer, float32"]["milliseconds"] > 0
    late = parts[late.replace(";", ",")]
    assert late["unfinished"] == "its process ended with status 7"
    assert late["peers"].keys() > peers.keys(), "all, with those of inference"
    assert all(peer["milliseconds"] > 0 for peer in late["peers"].values())

    monkeypatch.delenv("BREAK")
    bench("--small", "--rounds", "1", "--resume")
    run = json.loads((tmp_path / "gpu.json").read_text())
    again = run["parts"]
    assert [one["command"].split()[-2] for one in run["continues"]] == ["--record"]
    assert again[row] == parts[row], "what was whole is not run again"
    assert all(check["passed"] for name in ("operations", "ways to train") for check in again[name])
    assert "unfinished" not in again["LeNet5, inference, batch 2"]
    with (tmp_path / "gpu.json").open("r+") as file:
        run = json.load(file)
        file.seek(0)
        json.dump({**run, "device": "another"}, file)
        file.truncate()
    done = bench("--small", "--resume", status=1)
    assert "was made with device another, here it is" in done.stderr


def test_without_a_gpu_the_script_says_so(python, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    done = python(None, "-m", "tests.bench.gpu", "--device", "@cupy:9", status=1)
    assert "not measured on a GPU: " in done.stderr
    assert "Traceback" not in done.stderr
