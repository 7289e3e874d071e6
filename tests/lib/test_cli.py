"""The command line: results, and one-line errors with a status that is not 0."""

import json
import subprocess
import sys

from convnets import cli, data, models, pretrained, results
from convnets.pretrained import layers, registry

import chainer
import numpy as np
import pytest
from PIL import Image

TRAIN = ["train", "lenet5", "--n-train", "200", "--n-test", "100", "--epochs", "1", "--quiet"]


@pytest.fixture
def weights(tmp_path):
    np.random.seed(0)
    path = tmp_path / "model.npz"
    chainer.serializers.save_npz(path, models.LeNet5())
    return path


@pytest.fixture
def digit(tmp_path):
    path = tmp_path / "digit.png"
    Image.fromarray(data.raw("mnist")["test_x"][0]).save(path)
    return path


def fails(argv, capsys):
    """Run a command that must fail, and return its one line of error."""
    assert cli.main([str(a) for a in argv]) == 1
    error = capsys.readouterr().err
    assert error.startswith("convnets: error: ") and error.count("\n") == 1
    return error


def test_train_writes_weights_log_and_record(tmp_path, capsys):
    record = tmp_path / "results" / "run.json"
    argv = [*TRAIN, "--out", str(tmp_path / "run"), "--record", str(record)]
    assert cli.main(argv) == 0
    run = results.load(record)
    assert run["command"] == "convnets " + " ".join(argv)
    assert run["final"] == run["curve"][-1] == json.loads((tmp_path / "run/log").read_text())[-1]
    assert run["options"]["lr"] == 0.004
    assert results.describe(run).startswith("convnets train lenet5")
    assert f"{run['final']['validation/main/accuracy']:.4f}" in capsys.readouterr().out
    cli.load_npz(tmp_path / "run/model.npz", models.LeNet5())


def test_train_shows_progress_on_stderr(tmp_path):
    done = subprocess.run([sys.executable, "-m", "convnets.cli", *TRAIN[:-1]],
                          capture_output=True, text=True, check=True)
    assert "epoch" in done.stderr and "2/2" in done.stderr
    assert "Error" not in done.stderr


def test_predict(weights, digit, capsys):
    assert cli.main(["predict", str(digit), "--weights", str(weights), "--top", "10"]) == 0
    lines = capsys.readouterr().out.split("\n")[:-1]
    model = cli.load_npz(weights, models.LeNet5())
    expected = model.predict(data.raw("mnist")["test_x"][0])[0]
    assert lines[0] == f"{expected.argmax()}  {expected.max():.4f}"
    assert len(lines) == 10


def test_predict_of_a_dark_digit(weights, digit, tmp_path, capsys):
    Image.fromarray(255 - np.asarray(Image.open(digit))).save(tmp_path / "dark.png")
    cli.main(["predict", str(digit), "--weights", str(weights)])
    plain = capsys.readouterr().out
    cli.main(["predict", str(tmp_path / "dark.png"), "--weights", str(weights), "--invert"])
    assert capsys.readouterr().out == plain


def test_predict_of_a_photograph(capsys):
    photo = data.FILES / "photos/persian.jpg"
    argv = ["predict", str(photo), "--model", "squeezenet"]
    assert cli.main(argv) == 0
    lines = capsys.readouterr().out.splitlines()
    model = pretrained.load("squeezenet")
    p = layers.predict(model, photo, oversample=False).array[0]
    assert lines[0] == f"{p[283]:.4f}  Persian cat" and p[283] > 0.99
    assert len(lines) == 5
    cli.main([*argv, "--weights", str(registry.entry("squeezenet/caffe").path), "--top", "1"])
    assert capsys.readouterr().out.splitlines() == lines[:1]
    cli.main([*argv, "--ten-crops"])
    ten = layers.predict(model, photo).array[0]
    assert capsys.readouterr().out.startswith(f"{ten.max():.4f}  Persian cat\n")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Chainer's models folder, empty."""
    monkeypatch.setattr(chainer.dataset.download, "_dataset_root", str(tmp_path / "root"))
    folder = tmp_path / "root/pfnet/chainer/models"
    folder.mkdir(parents=True)
    return folder


def test_weights_lists_what_is_known_and_what_is_here(folder, capsys):
    (folder / "resnet50-0676ba61.pth").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    (folder / "ResNet-50-model.npz").write_bytes(b"something")
    assert cli.main(["weights"]) == 0
    out = capsys.readouterr().out
    rows = {line.split()[0]: line for line in out.splitlines()}
    assert set(registry.names()) | set(registry.aliases()) < set(rows)
    assert "got a Git LFS pointer of 42 bytes" in rows["resnet50/torchvision-v1"]
    assert rows["resnet50/chainer"].endswith(" there")
    assert rows["squeezenet/caffe"].endswith(" whole")
    assert rows["vgg16/torchvision-v1"].endswith(" 28.4 %")
    assert rows["resnet50/msra"].endswith(" 24.7 %  no download")
    assert rows["vgg16/imagenet"].endswith("is vgg16/torchvision-v1")
    assert str(folder) in out


def test_weights_tells_all_about_one(folder, capsys):
    assert cli.main(["weights", "resnet50/imagenet"]) == 0
    out = capsys.readouterr().out
    entry = registry.entry("resnet50/torchvision-v1")
    for word in (entry.url, entry.sha256, "102,530,333 bytes", "top-1 23.87 %, top-5 7.138 %",
                 str(folder / entry.file), entry.licence):
        assert word in out


def test_weights_that_are_here_are_not_fetched(capsys):
    assert cli.main(["weights", "--fetch", "squeezenet/imagenet"]) == 0
    assert capsys.readouterr().out == f"{registry.entry('squeezenet/caffe').path}\n"


@pytest.mark.parametrize(("argv", "words"), [
    (["predict", "no.png", "--weights", "w.npz"], ["no.png", "does not exist"]),
    (["predict", "DIGIT", "--weights", "no.npz"], ["no.npz"]),
    (["predict", "DIGIT"], ["--weights is missing", "convnets train lenet5 --out"]),
    (["predict", "DIGIT", "--model", "vgg16", "--weights", "no.npz"], ["no.npz does not exist"]),
    (["predict", "DIGIT", "--model", "vgg16", "--weights", "vgg16/none"], ["vgg16/keras"]),
    (["predict", "DIGIT", "--model", "resnet50", "--weights", "DIGIT"], ["digit.png"]),
    (["predict", "WEIGHTS", "--model", "squeezenet"], ["cannot identify image"]),
    (["weights", "vgg16/none"], ["vgg16/none", "vgg16/keras"]),
    (["weights", "--fetch", "resnet50/chainer"], ["resnet50/chainer", "never published"]),
    (["predict", "BIG", "--weights", "WEIGHTS"], ["(32, 30)", "(1, 28, 28)", "Resize"]),
    (["predict", "WEIGHTS", "--weights", "WEIGHTS"], ["cannot identify image"]),
    (["predict", "DIGIT", "--weights", "DIGIT"], ["digit.png", "not a whole npz"]),
    (["predict", "DIGIT", "--weights", "HALF"], ["half.npz", "not a whole npz"]),
    (["predict", "DIGIT", "--weights", "WEIGHTS", "--model", "lenet5-chainlist"],
     ["model.npz", "LeNet5ChainList", "0/W is missing, expected (6, 1, 5, 5)"]),
    (["train", "resnet20", *TRAIN[2:]], ["ResNet20 takes", "(N, 3, H, W)", "(1, 1, 28, 28)"]),
    ([*TRAIN, "--weight-decay", "-1"], ["weight_decay", "negative", "-1"]),
    ([*TRAIN, "--batch", "0"], ["batch", "at least 1", "got 0"]),
    ([*TRAIN, "--n-train", "70000"], ["1..60000", "got 70000"]),
    ([*TRAIN, "--resume"], ["--out"]),
])
def test_bad_input(argv, words, weights, digit, tmp_path, capsys):
    Image.new("L", (30, 32)).save(tmp_path / "big.png")
    (tmp_path / "half.npz").write_bytes(weights.read_bytes()[:5000])
    places = {"WEIGHTS": weights, "DIGIT": digit, "BIG": tmp_path / "big.png",
              "HALF": tmp_path / "half.npz"}
    error = fails([places.get(a, a) for a in argv], capsys)
    assert all(word in error for word in words), error


def test_a_damaged_data_file(tmp_path, monkeypatch, capsys):
    for entry in data.SETS.values():
        (tmp_path / entry["file"]).write_bytes(b"damaged")
    monkeypatch.setattr(data, "FILES", tmp_path)
    assert "is damaged: got 7 bytes" in fails(["data"], capsys)
    assert "reinstall" in fails(TRAIN, capsys)


def test_a_run_is_not_overwritten(tmp_path, capsys):
    cli.main([*TRAIN, "--out", str(tmp_path)])
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    capsys.readouterr()
    assert "--resume" in fails([*TRAIN, "--out", tmp_path], capsys)
    assert "lr is 0.004 there, 0.5 here" in fails(
        [*TRAIN, "--out", tmp_path, "--resume", "--lr", "0.5"], capsys)
    assert "LeNet5ChainList" in fails(
        ["train", "lenet5-chainlist", *TRAIN[2:], "--out", tmp_path, "--resume"], capsys)
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize("argv", [["train", "lenet6"], ["train"], ["summary", "lenet5-tree"], []])
def test_unknown_words_list_the_known_ones(argv, capsys):
    with pytest.raises(SystemExit) as e:
        cli.main(argv)
    assert e.value.code == 2
    error = capsys.readouterr().err
    assert "lenet5-sequential" in error or "required" in error


@pytest.mark.parametrize(("argv", "total"), [
    (["lenet5", "--batch", "2"], "563,280"), (["resnet20"], "269,722"),
    (["plain56"], "853,018"), (["resnet50"], "25,557,032")])
def test_summary(argv, total, capsys):
    cli.main(["summary", *argv])
    assert total in capsys.readouterr().out


def test_train_of_a_small_vgg_with_crops_and_mirrors(tmp_path, capsys):
    argv = ["train", "vgg-small", "--data", "fashion_mnist", "--augment", "--n-train", "64",
            "--n-test", "50", "--epochs", "1", "--batch", "32", "--quiet",
            "--optimizer", "momentum", "--lr", "0.01", "--weight-decay", "1e-4",
            "--schedule", "step", "--record", str(tmp_path / "run.json")]
    assert cli.main(argv) == 0, capsys.readouterr().err
    options = results.load(tmp_path / "run.json")["options"]
    assert options["augment"] is True
    assert (options["weight_decay"], options["schedule"]) == (1e-4, "step")


def test_data_checks_and_installs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(chainer.dataset.download, "_dataset_root", str(tmp_path))
    assert cli.main(["data", "--install", "mnist"]) == 0
    out = capsys.readouterr().out
    assert "60,000 training" in out and str(tmp_path) in out


def test_a_recorded_run_must_be_whole(tmp_path):
    path = tmp_path / "run.json"
    for text in ("{", '{"command": "x"}', "[]"):
        path.write_text(text)
        with pytest.raises(ValueError, match="not a recorded run"):
            results.load(path)
