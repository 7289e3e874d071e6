"""A weight file is found whole or an error says what to do, and the cache is whole or empty."""

import resource
import shutil
import subprocess
import sys
from dataclasses import replace

from convnets.pretrained import errors, locate, registry

import pytest
from file_server import HALF, SHA256, WHOLE

POINTER = (b"version https://git-lfs.github.com/spec/v1\n"
           b"oid sha256:" + b"0" * 64 + b"\nsize 102530333\n")
PAGE = b"\n<!DOCTYPE html>\n<html><body>Sign in</body></html>"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Chainer's models folder, which is not there yet."""
    monkeypatch.setattr("chainer.dataset.download._dataset_root", str(tmp_path / "root"))
    return tmp_path / "root/pfnet/chainer/models"


@pytest.fixture
def publish(server, folder, monkeypatch):
    """Make one entry the registry's, with the file of the local server behind it."""
    def change(**fields):
        entry = replace(registry.entry("vgg16/torchvision-v1"), **{
            "file": "file.pth", "url": server.url, "sha256": SHA256[:8], "size": None, **fields})
        monkeypatch.setattr(registry, "_registry", lambda: (
            {entry.name: entry}, {"vgg16/imagenet": entry.name}))
        return entry
    return change


def contents(folder):
    """Return what the folder holds, without the lock files, which stay."""
    found = folder.iterdir() if folder.exists() else ()
    return {p.name: p.read_bytes() for p in found if p.suffix != ".lock"}


def fails(source, *words, **how):
    with pytest.raises(errors.WeightsError) as e:
        locate.locate(source, progress=False, **how)
    assert "\n" not in str(e.value)
    for word in words:
        assert word in str(e.value), str(e.value)


def test_an_explicit_path_is_taken_as_it_is(tmp_path, folder):
    path = tmp_path / "mine.pth"
    path.write_bytes(WHOLE)
    assert locate.locate(path) == locate.locate(str(path)) == path
    assert not folder.exists()


def test_a_bare_name_of_a_file_in_the_models_folder(folder):
    folder.mkdir(parents=True)
    (folder / "mine.npz").write_bytes(WHOLE)
    assert locate.locate("mine.npz") == folder / "mine.npz"
    fails("elsewhere/mine.npz", "elsewhere/mine.npz does not exist", "vgg16/imagenet")


@pytest.mark.parametrize(("content", "words"), [
    (POINTER, ["a Git LFS pointer of 134 bytes", "git lfs pull"]),
    (PAGE, ["a web page"]), (b"<?xml version='1.0'?><Error/>", ["a web page"]),
    (b"", ["an empty file"])])
def test_what_is_no_weight_file_is_named(content, words, tmp_path, publish, folder):
    assert len(POINTER) == 134
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    fails(path, str(path), *words)
    entry = publish()
    folder.mkdir(parents=True)
    entry.path.write_bytes(content)
    fails(entry.name, str(entry.path), *words, download=False)
    no_checksum = publish(sha256=None)
    fails(no_checksum.name, str(entry.path), *words)


def test_paths_and_names_that_do_not_exist(tmp_path, folder):
    fails(tmp_path, "is a folder")
    fails("no.pth", "no.pth does not exist", "vgg16/imagenet", "convnets weights")
    fails("resnet50/none", "resnet50/none", "resnet50/torchvision-v1", "resnet50/msra")
    fails("there/resnet50-0676ba61.pth", "resnet50/torchvision-v1", "102,530,333 bytes",
          "0676ba61b6795bbe", "download.pytorch.org", str(folder))
    assert not folder.exists()


def test_the_file_that_chainer_asks_for_has_its_cure_in_the_message(folder):
    fails("resnet152/msra", "ResNet-152-model.caffemodel is not in", str(folder),
          "sha1 251edb93604ac8268c7fd2227a0f15144310e1aa", "size unknown",
          "github.com/KaimingHe/deep-residual-networks", "no longer",
          "resnet152/torchvision-v1", "resnet152/keras")
    fails("ResNet-152-model.caffemodel", "resnet152/msra", "resnet152/torchvision-v1")
    fails("vgg16/chainercv", "No checksum is published", "chainercv-models.preferred.jp")
    fails("vgg16/chainer", "never published", "VGG_ILSVRC_16_layers.npz")
    assert not folder.exists()


def test_offline_it_says_what_to_put_where(publish, folder):
    entry = publish(size=len(WHOLE), url="http://127.0.0.1:9/file")
    expected = ["file.pth", "512,000 bytes", f"sha256 begins with {SHA256[:8]}", str(folder)]
    fails(entry.name, *expected, download=False)
    assert not folder.exists()
    fails(entry.name, "refused", *expected)
    folder.mkdir(exist_ok=True, parents=True)
    entry.path.write_bytes(WHOLE)
    assert locate.locate(entry.name, download=False) == entry.path
    assert locate.locate("vgg16/imagenet") == entry.path


def test_a_download(publish, folder, server, capsys):
    entry = publish()
    assert locate.locate("vgg16/imagenet") == entry.path
    assert "file.pth" in capsys.readouterr().err
    assert contents(folder) == {"file.pth": WHOLE}
    locate.locate("vgg16/imagenet")
    assert server.ranges == [None]


def test_a_broken_file_in_the_cache_is_replaced(publish, folder):
    entry = publish()
    folder.mkdir(parents=True)
    entry.path.write_bytes(WHOLE[:HALF])
    assert "expected" in locate.state(entry)
    fails(entry.name, str(entry.path), "got 256,000 bytes", "Put file.pth", download=False)
    locate.locate(entry.name, progress=False)
    assert contents(folder) == {"file.pth": WHOLE}
    assert locate.state(entry) == "whole"


def test_state(publish, folder):
    entry = publish()
    assert locate.state(entry) is None
    folder.mkdir(parents=True)
    entry.path.write_bytes(WHOLE)
    assert locate.state(entry) == "whole"
    assert locate.state(replace(entry, size=7)) == "got 512,000 bytes, expected 7"
    assert locate.state(replace(entry, sha256=None)) == "there"


@pytest.mark.parametrize(("plan", "words"), [
    (["truncate"], ["of 512,000 bytes"]),
    (["corrupt"], ["with sha256", "expected"]),
    (["page"], ["a web page instead of the file"]),
    (["missing"], ["404"]),
    (["nothing"], ["ended at 0"]),
    (["endless"], ["more came than"])])
def test_a_server_without_the_file_leaves_no_file(plan, words, publish, folder, server):
    entry = publish(size=len(WHOLE))
    server.plan = plan
    fails(entry.name, *words, entry.url, "Put file.pth", str(folder))
    assert "file.pth" not in contents(folder)
    server.plan = ["serve"]
    locate.locate(entry.name, progress=False)
    assert contents(folder) == {"file.pth": WHOLE}


def test_a_pointer_from_the_server(publish, folder, server):
    server.content = POINTER
    fails(publish().name, "Git LFS pointer of 134 bytes")
    assert contents(folder) == {}


def test_a_server_that_stalls(publish, folder, server, monkeypatch):
    fetch = locate.fetch
    monkeypatch.setattr(locate, "fetch", lambda *a, **k: fetch(*a, **k, timeout=1))
    entry = publish()
    server.plan = ["wait_half_way", "wait_for_nothing"]
    fails(entry.name, "timed out")
    assert contents(folder) == {"file.pth.part": WHOLE[:HALF]}


def start(entry, root, before=""):
    """Start a process that locates an entry of the local server."""
    fields = {name: getattr(entry, name) for name in ("url", "file", "sha256", "size", "md5")}
    code = f"""
{before}
from dataclasses import replace
from convnets.pretrained import locate, registry
import chainer
chainer.dataset.set_dataset_root({str(root)!r})
entry = replace(registry.entry({entry.name!r}), **{fields!r})
registry._registry = lambda: ({{entry.name: entry}}, {{}})
locate.locate(entry.name, progress=False)
"""
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)


def test_killed_during_the_download_it_goes_on_from_there(publish, folder, server):
    entry = publish()
    server.plan = ["wait_half_way", "serve"]
    process = start(entry, folder.parents[2])
    assert server.sent_half.wait(60), process.communicate()
    part = folder / "file.pth.part"
    while not part.exists() or part.stat().st_size == 0:
        assert process.poll() is None, process.stderr.read()
    process.kill()
    process.communicate()
    assert set(contents(folder)) == {"file.pth.part"}
    locate.locate(entry.name, progress=False)
    assert contents(folder) == {"file.pth": WHOLE}
    assert server.ranges[1].startswith("bytes=")


def test_two_processes_fetch_once(publish, folder, server):
    entry = publish()
    server.plan = ["wait_half_way"]
    first = start(entry, folder.parents[2])
    assert server.sent_half.wait(60), first.communicate()
    second = start(entry, folder.parents[2])
    assert second.stderr.readline() == "another process is fetching file.pth: waiting\n"
    server.go_on.set()
    for process in (first, second):
        _, error = process.communicate(timeout=60)
        assert process.returncode == 0, error
    assert contents(folder) == {"file.pth": WHOLE}
    assert server.ranges == [None]


def test_a_disk_that_is_full_before(publish, folder, monkeypatch):
    entry = publish()
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    fails(entry.name, "has 1 MB free", "needs 105 MB", "Put file.pth")
    assert contents(folder) == {}


def test_a_disk_that_fills_up_on_the_way(publish, folder, server):
    """The process may write no file of more than 100 kB: as on a full disk, writing fails."""
    entry = publish()
    limit = ("import resource, signal\n"
             "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
             f"resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, {resource.RLIM_INFINITY}))")
    process = start(entry, folder.parents[2], before=limit)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "WeightsError: vgg16/torchvision-v1: " in error and "File too large" in error, error
    assert "file.pth" not in contents(folder)
    locate.locate(entry.name, progress=False)
    assert contents(folder) == {"file.pth": WHOLE}


def test_a_folder_that_cannot_be_written(publish, folder):
    entry = publish()
    folder.parent.mkdir(parents=True)
    folder.write_text("a file where the folder should be")
    fails(entry.name, "Put file.pth", str(folder))
    assert folder.read_text() == "a file where the folder should be"
