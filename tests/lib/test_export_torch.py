"""Weights for PyTorch: read back by our own reader always, run by PyTorch where it is installed."""

import json
from pathlib import Path

from convnets import cli, export, models, pretrained
from convnets.pretrained import families
from convnets.pretrained.readers import read
from convnets.pretrained.transfer import model_arrays

import chainer
import chainer.links as L
import numpy as np
import pytest
import safetensors.numpy

ROOT = Path(__file__).parents[2]
TORCH = {"stride_in": "3x3", "stem_pool": "torch", "bn_eps": 1e-5}


def with_statistics(model, seed=0):
    random = np.random.RandomState(seed)
    for link in model.links():
        if isinstance(link, L.BatchNormalization):
            for array, low, high in ((link.avg_mean, -0.2, 0.2), (link.avg_var, 0.5, 1.5),
                                     (link.gamma.array, 0.5, 1.2), (link.beta.array, -0.2, 0.2)):
                array[...] = random.uniform(low, high, array.shape)
    return model


def vgg():
    return models.VGG([(8, 2), (16, 1)], 5, (3, 28, 28), 12)


def resnet(**options):
    return with_statistics(models.ResNet50(5, width=1 / 16, **TORCH | options))


def squeezenet():
    return models.SqueezeNet(5)


PAIRS = [(vgg, "torchvision"), (vgg, "timm"), (resnet, "torchvision"), (resnet, "huggingface"),
         (squeezenet, "torchvision")]


@pytest.mark.parametrize("build, family", PAIRS)
def test_read_back_bit_for_bit(build, family, tmp_path):
    np.random.seed(0)
    model = build()
    path = tmp_path / "model.safetensors"
    report = export.torch(model, path, family)
    np.random.seed(1)
    other = build()
    loaded = pretrained.load_weights(other, path, family=family)
    ours, theirs = model_arrays(model), model_arrays(other)
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    assert loaded.unused == loaded.new == () and loaded.options == {}
    assert report.n_arrays == loaded.n_arrays == len(ours)
    assert report.n_params == model.count_params() == loaded.n_params
    assert f"{report.n_bytes:,} bytes" in str(report) and report.n_bytes == path.stat().st_size


def test_the_package_safetensors_reads_it(tmp_path):
    path = tmp_path / "model.safetensors"
    export.torch(resnet(), path)
    found, ours = safetensors.numpy.load_file(path), read(path)
    assert found.keys() == ours.arrays.keys()
    assert all(np.array_equal(found[name], ours.arrays[name]) for name in found)
    assert ours.details["metadata"] == {"format": "pt"}
    assert int.from_bytes(path.read_bytes()[:8], "little") % 8 == 0
    assert found["layer1.0.downsample.1.running_var"].shape == (16,)


def test_the_bias_of_the_stem_moves_into_the_mean(tmp_path):
    model = resnet(stem_bias=True)
    model.conv1.b.array[...] = np.random.RandomState(0).uniform(-1, 1, model.conv1.b.shape)
    mean = model.bn1.avg_mean.copy()
    export.torch(model, tmp_path / "m.safetensors")
    assert np.array_equal(model.bn1.avg_mean, mean)
    other = resnet()
    pretrained.load_weights(other, tmp_path / "m.safetensors")
    x = np.random.RandomState(0).uniform(-1, 1, (2, 3, 65, 65)).astype(np.float32)
    with chainer.using_config("train", False):
        assert export.to_onnx.distance(other.logits(x).array, model.logits(x).array) < 1e-5


@pytest.mark.parametrize("options, said", [
    ({"stride_in": "1x1"}, "computes with stride_in='1x1' (there: '3x3')"),
    ({"stem_pool": "caffe"}, "stem_pool='caffe' (there: 'torch')"),
    ({"bn_eps": 2e-5}, "bn_eps=2e-05 (there: 1e-05)"),
])
def test_options_that_no_weight_file_holds_are_refused(options, said, tmp_path):
    with pytest.raises(export.ExportError) as caught:
        export.torch(resnet(**options), tmp_path / "m.safetensors")
    assert said in str(caught.value) and "as ONNX" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_other_refusals(tmp_path):
    path = tmp_path / "m.safetensors"
    with pytest.raises(export.ExportError, match="LeNet5: what PyTorch's networks"):
        export.torch(models.LeNet5(), path)
    with pytest.raises(export.ExportError, match="unknown family 'keras' for writing a VGG; there "
                                                 "are: torchvision, timm"):
        export.torch(vgg(), path, "keras")
    assert not list(tmp_path.iterdir())


def test_the_tables_backwards_undo_the_readers():
    rows = np.arange(12.0).reshape(3, 4)
    for convert, back in families.BACK.items():
        assert np.array_equal(convert(None, back(None, rows)), rows)


def test_command_line(tmp_path, capsys):
    target = tmp_path / "squeezenet.safetensors"
    assert cli.main(["export", "squeezenet", "auto", str(target)]) == 0
    assert "52 arrays, 1,235,496 parameters" in capsys.readouterr().out
    model, other = pretrained.load("squeezenet"), pretrained.load("squeezenet", target)
    assert all(np.array_equal(a.array, b.array) for a, b in
               zip(model.params(), other.params(), strict=True))


def test_rows_of_the_migration_table(monkeypatch):
    pytest.importorskip("torch", reason="PyTorch is not installed: what it computes is in "
                                        "book/results/export.json")
    monkeypatch.syspath_prepend(ROOT)
    from tests.bench import migration
    for row in migration.rows():
        assert row["distance"] < 1e-5, row
        if row["naive"]:
            assert row["naive_distance"] == "another shape" or row["naive_distance"] > 0.01, row


@pytest.mark.parametrize("name", ["ResNet50, torchvision's options", "SqueezeNet"])
def test_torchvision_computes_the_same(name, tmp_path, monkeypatch):
    pytest.importorskip("torchvision", reason="torchvision is not installed: what it computes is "
                                              "in book/results/export.json")
    monkeypatch.syspath_prepend(ROOT)
    from tests.bench import export as bench
    row = bench.case(name, tmp_path)
    assert max(row["torchvision"], *row["onnxruntime"].values()) < 1e-5


def test_the_recorded_run_has_what_the_chapter_shows():
    run = json.loads((ROOT / "book/results/export.json").read_text())
    assert {"command", "date", "device", "versions", "seed"} < run.keys()
    assert {"torch", "torchvision", "onnxruntime"} < run["versions"].keys()
    assert all(row["distance"] < 1e-5 for row in run["migration"])
    for row in run["models"]:
        assert max(row["onnxruntime"].values()) < 1e-5
        assert row["torchvision"] is None or row["torchvision"] < 1e-5
