"""Optimized models on a GPU, on a device that is NumPy; the processor's are in `test_optimize`."""

import os
from pathlib import Path

import convnets
from convnets import models

import pytest

FAKE = Path(__file__).with_name("fake_gpu")


@pytest.mark.parametrize("name", [
    pytest.param("outputs_are_the_same", marks=pytest.mark.slow),
    "layers_are_one_graph_each",
    "features_and_hooks",
    "results_are_kept_and_inputs_left_alone",
    "recordings",
    "recordings_wait_for_the_callers_stream",
    "autotune_and_other_settings_have_plans_of_their_own",
    "where_cudnn_refuses_sums",
    "other_layers",
    "errors",
])
def test_on_a_device_that_is_numpy(name, python, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(
        [str(FAKE), os.environ.get("PYTHONPATH", "")]))
    python(f"import inference; inference.{name}()")


@pytest.mark.parametrize("options", [{"precision": "mixed16"}, {"cuda_graph": True}])
def test_the_processor_has_neither(options):
    with pytest.raises(ValueError, match="this model is on @numpy"):
        convnets.optimize(models.LeNet5(), **options)
