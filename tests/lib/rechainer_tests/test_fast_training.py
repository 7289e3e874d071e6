"""A recorded step, a fused optimizer and data sent ahead, on a device that is NumPy.

Its stream capture writes down what is called and does nothing, as CUDA's: a learning rate that was
recorded, random numbers that stand still or a forgotten smaller batch show as wrong results.
"""

import os
from pathlib import Path

from convnets import cli, data, models, training

import pytest

FAKE = Path(__file__).with_name("fake_gpu")


@pytest.mark.parametrize("name", [
    "a_recorded_step_is_the_plain_one",
    "what_is_recorded_without_the_buffer_of_numbers_is_wrong",
    "minibatches_of_another_size_take_the_ordinary_way",
    "the_fused_optimizer",
    "data_sent_ahead",
    "channels_last",
    "channels_last_changes_no_gradient",
    "channels_last_stay_last_in_pooling",
    "channels_last_in_test_mode",
    "the_fused_optimizer_aligns_parameters",
    "the_command_line_switches_cudnn",
    "fused_normalization_is_as_exact",
    "predictions",
    "a_killed_run_continues_bit_for_bit",
    "a_killed_run_continues_with_the_channels_last",
    "errors",
])
def test_on_a_device_that_is_numpy(name, python, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(
        [str(FAKE), os.environ.get("PYTHONPATH", "")]))
    python(f"import fast_training; fast_training.{name}()")


@pytest.mark.parametrize(("option", "message"), [
    ("channels_last", r"channels_last=True \(--channels-last\) is a layout of cuDNN's, for a GPU"),
    ("cuda_graph", r"cuda_graph=True \(--cuda-graph\) records the work of a GPU; @numpy is none"),
    ("prefetch", r"prefetch=True \(--prefetch\) sends data to a GPU; @numpy is none"),
])
def test_the_processor_has_no_graphs_and_needs_no_feed(option, message, capsys):
    with pytest.raises(ValueError, match=message):
        training.trainer(models.LeNet5(), *data.mnist(20, 10), **{option: True})
    flag = "--" + option.replace("_", "-")
    assert cli.main(["train", "lenet5", "--n-train", "20", "--n-test", "10", flag]) == 1
    assert f"({flag})" in capsys.readouterr().err


@pytest.mark.parametrize("name", cli.SWITCHES)
def test_the_processor_has_no_cudnn_to_switch(name, capsys):
    flag = "--" + name.replace("_", "-")
    assert cli.main(["train", "lenet5", "--n-train", "20", "--n-test", "10", flag]) == 1
    assert f"{flag}: this is for cuDNN on a GPU; @numpy has none." in capsys.readouterr().err


def test_the_command_line_fuses_the_optimizer(tmp_path):
    found = []
    for flags in ([], ["--fused"]):
        out = tmp_path / "".join(["run", *flags])
        assert cli.main(["train", "lenet5", "--epochs", "1", "--n-train", "64", "--n-test", "10",
                         "--quiet", "--batch", "16", "--out", str(out), *flags]) == 0
        found.append(cli.read_npz(out / "model.npz"))
    for name, array in found[0].items():
        assert (found[1][name] == array).all(), name
