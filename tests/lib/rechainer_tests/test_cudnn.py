"""cuDNN under Chainer, on a device that is NumPy: Chainer's own code runs, unchanged.

This shows that every call has the right arguments and every result its place. What a GPU calculates
it does not show: that is `tests/bench/gpu.py`, on a machine that has one.
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
    "batch_normalization", "batch_normalization_without_running_statistics",
    "fixed_batch_normalization", "group_normalization", "activations", "softmax", "dropout",
    "settings", "autotune", "autotune_without_a_plan_that_runs", "a_whole_network",
    "training_steps", "recurrent_networks_keep_away", "nothing_is_left_in_cupy", "errors",
])
def test_on_a_device_that_is_numpy(name, on_device):
    on_device(name)


def test_the_script_for_a_machine_with_a_gpu(on_device, python, tmp_path):
    root = Path(__file__).parents[3]
    done = python(f"""
        import sys
        sys.path.insert(0, {str(root)!r})
        import fake_device
        from tests.bench import gpu
        assert gpu.main(["--small", "--rounds", "2", "--record", "gpu.json"]) == 0
        sys.exit(0)
    """)
    assert "FAIL" not in done.stdout
    run = json.loads((tmp_path / "gpu.json").read_text())
    assert "NumPy, 16 GiB" in run["device"]
    assert {"command", "date", "versions", "info", "parts"} <= set(run)
    (row, _) = [part for part in run["parts"].values() if isinstance(part, dict)]
    assert row["network"] == "LeNet5"
    assert set(row["peers"]) >= {"Chainer, float32", "Chainer, mixed16"}
    assert row["peers"]["Chainer, float32"]["milliseconds"] > 0
