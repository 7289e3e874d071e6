"""The registry holds what it says it holds, and every entry can be used."""

import json
import re
from dataclasses import fields

from convnets.pretrained import ARCHITECTURES, errors, preprocess, registry
from convnets.pretrained.families import FAMILIES

import numpy as np
import pytest

ENTRIES = [registry.entry(name) for name in registry.names()]
DIGITS = {"sha256": 64, "sha1": 40, "md5": 32}


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.name)
def test_every_entry_is_complete(entry):
    assert entry.name.startswith(f"{entry.arch}/")
    assert entry.arch in ARCHITECTURES
    assert entry.settings is preprocess.SETTINGS[entry.preprocessing]
    assert len(registry.class_names(entry.classes)) == entry.n_class
    assert entry.licence
    assert re.fullmatch(r"[\w.-]+\.(pth|npz|h5|caffemodel|safetensors)", entry.file)
    for name, digest in entry.checksums.items():
        assert re.fullmatch("[0-9a-f]+", digest)
        assert len(digest) == DIGITS[name] or (name == "sha256" and len(digest) >= 8)
    assert (entry.top1_error is None) == (entry.errors_source is None)
    assert entry.page or "never published" in entry.note or entry.bundled
    assert not entry.bundled or entry.path.stat().st_size == entry.size
    for address in (entry.url, entry.page):
        assert address is None or address.startswith("https://")


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.name)
def test_every_family_can_be_read(entry):
    (known,) = [families for kind, families in FAMILIES.items()
                if issubclass(ARCHITECTURES[entry.arch], kind)]
    if not entry.bundled:
        (family,) = [f for f in known if f.name == entry.family]
        ending = {"pth": "torch", "h5": "hdf5", "caffemodel": "caffe"}
        ending = ending.get(entry.file.rpartition(".")[2], entry.file.rpartition(".")[2])
        assert ending in family.formats
        # Newer files of torchvision and timm were measured at other sizes.
        others = {"torchvision-v2", "timm-a1"}
        assert entry.preprocessing == family.preprocessing or entry.preprocessing in others


def test_names_and_files_are_unique():
    assert len({e.name for e in ENTRIES}) == len({e.file for e in ENTRIES}) == len(ENTRIES)


def test_every_field_of_the_file_is_known():
    rows = json.loads((registry.FILES / "registry.json").read_text())["entries"]
    assert {key for row in rows for key in row} == {f.name for f in fields(registry.Entry)}


def test_a_torchvision_name_holds_the_beginning_of_its_checksum():
    found = [e for e in ENTRIES if e.url and "download.pytorch.org" in e.url]
    assert len(found) == 8
    for entry in found:
        assert entry.sha256.startswith(re.search(r"-([0-9a-f]{8})\.pth$", entry.file)[1])
        assert entry.url.endswith("/" + entry.file)


@pytest.mark.parametrize(("name", "size"), [
    ("vgg16/torchvision-v1", 553_433_881), ("resnet50/torchvision-v1", 102_530_333)])
def test_an_exact_size_agrees_with_the_rounded_one(name, size):
    entry = registry.entry(name)
    assert entry.size == size
    assert round(entry.size / registry.MIB, 3) == entry.mib


def test_sizes_hold_the_parameters():
    """A file of float32 is a little longer than 4 bytes a parameter."""
    parameters = {"vgg16": 138_357_544, "vgg19": 143_667_240, "resnet50": 25_557_032,
                  "resnet101": 44_549_160, "resnet152": 60_192_808}
    for entry in ENTRIES:
        if entry.mib:
            ratio = entry.mib * registry.MIB / (4 * parameters[entry.arch])
            assert 0.99 < ratio < 1.02, entry.name
        if entry.size and not entry.bundled:
            assert abs(entry.size / registry.MIB - entry.mib) < 1, entry.name


def test_aliases_name_the_default_of_each_network():
    assert set(registry.aliases()) == {f"{arch}/imagenet" for arch in ARCHITECTURES}
    for alias, name in registry.aliases().items():
        assert registry.entry(alias) is registry.entry(name)
        assert registry.entry(alias).downloadable or registry.entry(alias).bundled
        assert registry.entry(alias).arch == alias.split("/")[0]


def test_find_takes_names_and_no_paths(tmp_path):
    assert registry.find("resnet50/imagenet").name == "resnet50/torchvision-v1"
    for path in ("resnet50-0676ba61.pth", tmp_path / "resnet50/imagenet"):
        assert registry.find(path) is None


@pytest.mark.parametrize(("name", "words"), [
    ("resnet50/none", ["resnet50/none", "resnet50/torchvision-v1", "resnet50/msra"]),
    ("alexnet", ["alexnet", "vgg16/imagenet", "convnets weights"])])
def test_an_unknown_name_lists_known_ones(name, words):
    with pytest.raises(errors.WeightsError) as e:
        registry.entry(name)
    assert all(word in str(e.value) for word in words)


@pytest.mark.parametrize(("name", "size", "checksum"), [
    ("resnet50/torchvision-v1", "102,530,333 bytes", "sha256 0676ba61b6795bbe"),
    ("vgg19/torchvision-v1", "about 548 MiB", "sha256 begins with dcbb9e9d"),
    ("resnet50/keras", "102,967,424 bytes", "md5 2cb95161"),
    ("resnet101/msra", "size unknown", "sha1 1dbf5f49"),
    ("vgg16/chainer", "size unknown", "no published checksum")])
def test_sizes_and_checksums_in_words(name, size, checksum):
    entry = registry.entry(name)
    assert entry.describe_size() == size
    assert entry.describe_checksum().startswith(checksum)


def test_the_authors_residual_networks_have_no_address():
    for depth in (50, 101, 152):
        entry = registry.entry(f"resnet{depth}/msra")
        assert not entry.downloadable and "no longer" in entry.note


def test_the_folder_is_chainers_and_is_not_made(tmp_path, monkeypatch):
    monkeypatch.setattr("chainer.dataset.download._dataset_root", str(tmp_path / "root"))
    path = registry.entry("resnet50/msra").path
    assert path == tmp_path / "root/pfnet/chainer/models/ResNet-50-model.caffemodel"
    assert not (tmp_path / "root").exists()


def test_class_names():
    names = registry.class_names()
    assert len(names) == 1000
    assert [names[i].split(", ")[0] for i in (0, 281, 283, 284, 285, 967, 999)] == [
        "tench", "tabby", "Persian cat", "Siamese cat", "Egyptian cat", "espresso",
        "toilet tissue"]


def test_top():
    p = np.array([0.1, 0.5, 0.1, 0.3], np.float32)
    assert registry.top(p, "abcd", 3) == [
        (1, "b", 0.5), (3, "d", pytest.approx(0.3)), (0, "a", pytest.approx(0.1))]
    assert [i for i, *_ in registry.top(p, "abcd", 9)] == [1, 3, 0, 2]
    assert registry.top(p, None, 1) == [(1, "1", 0.5)]
    with pytest.raises(ValueError, match=r"shape \(3,\) for 3 class names, got \(4,\)"):
        registry.top(p, "abc")
    with pytest.raises(ValueError, match=r"got \(1, 4\)"):
        registry.top(p[None], "abcd")
