"""`convnets convert`: from any file to an npz of ours, compared with the original's framework."""

import json
import subprocess
import sys

from convnets import cli, models, pretrained

import chainer
import numpy as np
import pytest
from reference import resnet_graph, resnet_params

BLOCKS, WIDTH = (3, 4, 6, 3), 4


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    def build(n_class=1000):
        return models.ResNet(BLOCKS, n_class, width=WIDTH / 64)
    monkeypatch.setitem(pretrained.ARCHITECTURES, "resnet50", build)


@pytest.fixture
def onnx_file(tmp_path):
    return write(tmp_path / "net.onnx")


def write(path, **options):
    graph = resnet_graph(resnet_params(BLOCKS, WIDTH), BLOCKS, (1, 3, 224, 224), **options)
    path.write_bytes(graph.SerializeToString())
    return path


def convert(*argv):
    return cli.main(["convert", *map(str, argv), "--arch", "resnet50"])


def test_convert_and_check(onnx_file, tmp_path, capsys):
    assert convert(onnx_file, tmp_path / "net.npz", "--check") == 0
    out = capsys.readouterr().out
    assert "onnx file of the torchvision family" in out
    assert "standard deviations of the scores from onnxruntime" in out
    model = pretrained.load("resnet50", tmp_path / "net.npz", verify=True)
    assert model.fc6.W.shape == (10, 128)


def test_check_finds_a_network_with_other_options(tmp_path, capsys):
    wrong = write(tmp_path / "net.onnx", stem_pool="caffe")   # torchvision's names, Caffe's pooling
    assert convert(wrong, tmp_path / "net.npz", "--check") == 1
    assert "does not compute what onnxruntime computes" in capsys.readouterr().err


def test_check_without_a_judge(tmp_path, capsys):
    model = pretrained.ARCHITECTURES["resnet50"](10)
    chainer.serializers.save_npz(tmp_path / "ours.npz", model)
    assert convert(tmp_path / "ours.npz", tmp_path / "net.npz", "--check") == 1
    assert "nothing that could run a file of format npz" in capsys.readouterr().err


def test_a_failed_conversion_leaves_nothing(onnx_file, tmp_path, capsys):
    onnx_file.write_bytes(onnx_file.read_bytes()[:-500])
    assert convert(onnx_file, tmp_path / "net.npz") == 1
    assert str(onnx_file) in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.onnx"]
    assert convert(onnx_file, tmp_path / "net.h5") == 1
    assert "npz" in capsys.readouterr().err


def test_a_full_disk_leaves_the_former_file(onnx_file, tmp_path, monkeypatch, capsys):
    target = tmp_path / "net.npz"
    convert(onnx_file, target)
    before = target.read_bytes()
    monkeypatch.setattr(np, "savez", lambda *a, **k: (_ for _ in ()).throw(OSError(28, "full")))
    assert convert(onnx_file, target) == 1
    assert "full" in capsys.readouterr().err
    assert target.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.npz", "net.onnx"]
    note = json.loads(str(np.load(target)["convnets_note"]))
    assert note["options"] == {"stride_in": "3x3", "stem_pool": "torch", "bn_eps": 1e-5}


def test_killed_while_it_writes_the_former_file_stays(onnx_file, tmp_path):
    """The child stops in the middle of the npz, says so, and is killed there."""
    target = tmp_path / "net.npz"
    convert(onnx_file, target)
    whole = target.read_bytes()
    code = f"""
import time
import numpy as np
from convnets import models, pretrained
def write_half(file, **arrays):
    file.write(b"PK" + bytes(1000))
    file.flush()
    print("half", flush=True)
    time.sleep(600)
np.savez = write_half
pretrained.ARCHITECTURES["resnet50"] = lambda n: models.ResNet({BLOCKS}, n, width={WIDTH / 64})
pretrained.convert({str(onnx_file)!r}, {str(target)!r}, "resnet50")
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "half\n"
    process.kill()
    process.wait()
    assert target.read_bytes() == whole
    assert pretrained.load("resnet50", target, verify=True).fc6.W.shape == (10, 128)
    assert convert(onnx_file, tmp_path / "again.npz") == 0
