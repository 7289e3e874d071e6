"""convnets.devices: names, what is missing, what to do."""

import importlib.util
import os
from pathlib import Path

from convnets import cli, data, devices, models, pretrained, training

import chainer
import pytest

FAKE = Path(__file__).parent / "rechainer_tests" / "fake_gpu"
NO_CUPY = importlib.util.find_spec("cupy") is None


@pytest.mark.parametrize("name", ["cpu", "@numpy", "CPU", " cpu ", -1, "-1"])
def test_names_of_the_processor(name):
    assert devices.get(name) == chainer.get_device("@numpy")


def test_a_device_is_itself():
    device = chainer.get_device("@numpy")
    assert devices.get(device) is device


@pytest.mark.parametrize("name", ["tpu", "@cupy", "@cupy:x", "@cupy:", "cpu:0", "gpu:-1", "", "@"])
def test_unknown_names_are_refused_with_the_known_ones(name):
    with pytest.raises(devices.DeviceError, match=r"there are: 'cpu' \(or '@numpy'\), '@cupy:0'"):
        devices.get(name)


@pytest.mark.skipif(not NO_CUPY, reason="CuPy is installed")
@pytest.mark.parametrize("name", ["@cupy:0", "gpu", "gpu:1", "cuda:0", 0])
def test_without_cupy_the_way_to_it_is_told(name):
    with pytest.raises(devices.DeviceError, match=r"needs CuPy, which is not installed: pip"):
        devices.get(name)


@pytest.mark.skipif(not NO_CUPY, reason="CuPy is installed")
def test_train_load_and_the_command_line_check_the_device_first(tmp_path, capsys):
    with pytest.raises(devices.DeviceError, match="needs CuPy"):
        pretrained.load("squeezenet", tmp_path / "not-there.npz", device="@cupy:0")
    with pytest.raises(devices.DeviceError, match="needs CuPy"):
        training.trainer(models.LeNet5(), *data.mnist(10, 10), device="@cupy:0")
    assert cli.main(["train", "lenet5", "--n-train", "10", "--n-test", "10", "--quiet",
                     "--device", "gpu:0"]) == 1
    assert "convnets: error: device 'gpu:0' needs CuPy" in capsys.readouterr().err


def test_the_processors_errors_stay_as_they_are():
    with pytest.raises(MemoryError), devices.told_when_full(devices.get("cpu")):
        raise MemoryError
    assert devices.hardware(devices.get("cpu")) == ""


@pytest.fixture
def on_device(tmp_path, monkeypatch):
    """Run code in a Python where a GPU seems to be."""
    import subprocess
    import sys

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(FAKE),
                                                      os.environ.get("PYTHONPATH", "")]))

    def run(code):
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=tmp_path,
                              capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr

    return run


START = """
import fake_device
from convnets import data, devices, models, pretrained, results, training
import chainer
def message(function, *arguments):
    try:
        function(*arguments)
    except devices.DeviceError as error:
        return str(error)
"""


def test_a_gpu_by_all_its_names(on_device):
    on_device(START + """
for name in ("gpu", "cuda", "gpu:0", "@cupy:0", 0, "0"):
    assert devices.get(name) == chainer.get_device("@cupy:0"), name
assert "this machine has 1 GPU, counted from 0" in message(devices.get, "@cupy:1")
assert devices.hardware(devices.get("gpu")) == "NumPy, 16 GiB"
assert "NumPy, 16 GiB" in results.provenance("c", 0, {}, "@cupy:0")["device"]
""")


def test_full_memory_is_told_with_numbers_and_a_remedy(on_device):
    on_device(START + """
def fill():
    with devices.told_when_full(devices.get("gpu"), "a smaller batch"):
        raise MemoryError("Out of memory allocating 7 bytes")
text = message(fill)
for part in ("@cupy:0 is full: 16.0 GiB in all, 2.0 GiB free, 3.0 GiB in use by this program",
             "1.0 GiB kept", "Try a smaller batch", "allocating 7 bytes"):
    assert part in text, text
""")


def test_a_driver_that_fails_is_told(on_device):
    on_device(START + """
import cupy
def fail():
    raise RuntimeError("cudaErrorInsufficientDriver")
cupy.cuda.runtime.getDeviceCount = fail
text = message(devices.get, "gpu")
assert "cudaErrorInsufficientDriver" in text and "driver as new as" in text, text
chainer.backends.cuda.available = False
chainer.backends.cuda._resolution_error = ImportError("no graphics driver.")
assert "no graphics driver. Is the graphics driver installed" in message(devices.get, "gpu")
""")


def test_a_pretrained_network_predicts_on_the_device_as_on_the_processor(on_device):
    on_device(START + """
import numpy as np
photos = np.stack([np.full((227, 227, 3), 80, np.uint8)]).transpose(0, 3, 1, 2)
found = []
for name in ("gpu", "cpu"):
    model = pretrained.load("squeezenet", device=name)
    assert model.device == devices.get(name)
    found.append(model.predict(photos))
np.testing.assert_allclose(*found, atol=1e-5)
assert type(found[0]) is np.ndarray
""")
