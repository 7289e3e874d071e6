"""Every format against the arrays that its own library wrote, and every fault by its message."""

import io
import json
import re
import struct
import sys
import tracemalloc
import zipfile
from pathlib import Path

from convnets.pretrained.errors import WeightsError
from convnets.pretrained.readers import WeightFile, read
from convnets.pretrained.readers import onnx as onnx_reader

import hostile
import numpy as np
import pytest

WEIGHTS = Path(__file__).parents[1] / "files/weights"
with np.load(WEIGHTS / "expected.npz") as file:
    EXPECTED = {}
    for key in file.files:
        name, array = key.split(":", 1)
        EXPECTED.setdefault(name, {})[array] = file[key]
FORMATS = {"pth": "torch", "h5": "hdf5", "keras": "hdf5", "caffemodel": "caffe"}


def same(got, expected):
    """Assert the same names, and arrays equal bit for bit, of this machine's byte order."""
    assert set(got) == set(expected)
    for name, array in expected.items():
        assert got[name].shape == array.shape, name
        assert got[name].dtype == array.dtype.newbyteorder("="), name
        assert got[name].tobytes() == array.astype(got[name].dtype).tobytes(), name


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_arrays_are_those_that_were_written(name):
    file = read(WEIGHTS / name)
    ending = name.split(".")[-1]
    assert isinstance(file, WeightFile) and file.path == WEIGHTS / name
    assert file.format == FORMATS.get(ending, ending)
    same(file.arrays, EXPECTED[name])


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_arrays_can_be_used_as_any_other(name):
    for array in read(WEIGHTS / name).arrays.values():
        assert array.flags.writeable and array.flags.c_contiguous and array.flags.aligned
        assert array.dtype.isnative


@pytest.mark.parametrize("name", sorted(set(EXPECTED) - {"external.onnx"}))
def test_the_name_of_a_file_says_nothing(name, tmp_path):
    path = tmp_path / "weights.txt"
    path.write_bytes((WEIGHTS / name).read_bytes())
    same(read(str(path)).arrays, EXPECTED[name])


def test_no_framework_is_imported(monkeypatch):
    for name in ("torch", "keras", "tensorflow", "h5py", "onnx", "safetensors", "google.protobuf"):
        monkeypatch.setitem(sys.modules, name, None)   # an import would fail
    for name in EXPECTED:
        read(WEIGHTS / name)


def test_python_never_unpickles(monkeypatch):
    def fail(*_):
        raise AssertionError("unpickled")
    for name in ("load", "loads", "Unpickler", "_Unpickler"):
        monkeypatch.setattr(f"pickle.{name}", fail)
    for name in EXPECTED:
        read(WEIGHTS / name)


# What the formats tell beside the arrays.

def test_details_of_torch():
    details = read(WEIGHTS / "torch_wrapped.pth").details
    assert details == {"wrapper": ["state_dict"], "prefix": "module.", "other": {}}
    assert read(WEIGHTS / "torch_types.pth").details["other"] == {"accuracy": 0.5, "note": "text"}


def test_two_tensors_of_one_storage_stay_one():
    arrays = read(WEIGHTS / "torch_types.pth").arrays
    assert np.array_equal(arrays["transposed"], np.arange(24.0).reshape(4, 6).T)
    assert np.array_equal(arrays["part"], [6, 9, 12, 15])
    assert np.array_equal(arrays["repeated"], [0, 0, 0])


def test_details_of_keras():
    def found(name):
        return read(WEIGHTS / name).details
    assert found("keras2_model.h5") == {"generation": 2, "layer_names": "file"}
    assert found("keras3.weights.h5") == {"generation": 3, "layer_names": "file"}
    assert found("keras3_nameless.keras") == {"generation": 3, "layer_names": "config"}
    assert found("keras3_nameless.weights.h5") == {"generation": 3, "layer_names": "missing"}


def test_details_of_onnx():
    details = read(WEIGHTS / "raw.onnx").details
    assert details["nodes"] == [("Constant", "", [], ["b"]),
                                ("Conv", "conv1", ["x", "w", "b"], ["y"])]
    assert details["producer"] == "make.py" and details["opset"][""] > 0


@pytest.mark.parametrize("generation", [0, 1, 2])
def test_details_of_caffe(generation):
    details = read(WEIGHTS / f"v{generation}.caffemodel").details
    assert details == {"name": "tiny", "types": {"conv1": "Convolution", "fc": "InnerProduct"}}


def test_details_of_safetensors():
    assert read(WEIGHTS / "tiny.safetensors").details == {"metadata": {"format": "np"}}


# Large files, made here field by field.

def field(number, data):
    """Return a protobuf field of bytes."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def varint(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def caffemodel(blobs, shape):
    """Return a net with one convolution for each array of numbers."""
    dims = field(1, b"".join(map(varint, shape)))
    layers = (field(1, f"conv{i}".encode()) + field(2, b"Convolution")
              + field(7, field(5, numbers.tobytes()) + field(7, dims))
              for i, numbers in enumerate(blobs))
    return field(1, b"large") + b"".join(field(100, layer) for layer in layers)


def large(kind):
    """Return a file of 20 MB and its arrays."""
    r = np.random.default_rng(0)
    blobs = [r.standard_normal((128, 128, 3, 3), dtype="f4") for _ in range(34)]
    arrays = {f"conv{i}": blob for i, blob in enumerate(blobs)}
    if kind == "caffe":
        return (caffemodel(blobs, blobs[0].shape), {f"{n}/0": a for n, a in arrays.items()})
    if kind == "npz":
        return hostile.zipped({f"{n}.npy": npy(a) for n, a in arrays.items()}), arrays
    ends = np.cumsum([a.nbytes for a in blobs]).tolist()
    header = {n: {"dtype": "F32", "shape": a.shape, "data_offsets": [end - a.nbytes, end]}
              for (n, a), end in zip(arrays.items(), ends, strict=True)}
    return safetensors(header, b"".join(b.tobytes() for b in blobs)), arrays


def npy(array):
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {array.shape}, }}".encode()
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + array.tobytes()


@pytest.mark.parametrize("kind, times", [("caffe", 2.1), ("npz", 1.1), ("safetensors", 1.1)])
def test_memory_for_a_large_file(tmp_path, kind, times):
    path = tmp_path / "large"
    data, arrays = large(kind)
    path.write_bytes(data)
    read(path)   # so that nothing is left to import
    tracemalloc.start()
    try:
        got = read(path).arrays
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    same(got, arrays)
    assert peak < times * len(data)


def test_floats_that_are_not_packed(tmp_path):
    numbers = np.arange(3, dtype="<f4")
    blob = b"".join(bytes([5 << 3 | 5]) + n.tobytes() for n in numbers)
    layer = field(1, b"fc") + field(2, b"Scale") + field(7, blob + field(7, field(1, b"\3")))
    (tmp_path / "a").write_bytes(field(100, layer))
    same(read(tmp_path / "a").arrays, {"fc/0": numbers})


# Faults, by what the message says.

def changed(name, old, new):
    data = (WEIGHTS / name).read_bytes()
    assert data.count(old) >= 1
    return data.replace(old, new, 1)


def repacked(name, **changes):
    """Return an archive with other contents of the members whose names end so; None leaves out."""
    with zipfile.ZipFile(WEIGHTS / name) as archive:
        members = {n: archive.read(n) for n in archive.namelist()}
    for name in list(members):
        last = name.split("/")[-1].split(".")[0]
        if last in changes:
            members[name] = changes[last]
    return hostile.zipped({n: data for n, data in members.items() if data is not None})


def safetensors(header, data=b""):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(header)) + header + data


def tensor(**changes):
    return {"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} | changes}


def onnx(tensors):
    return b"\x08\x09" + field(7, b"".join(field(5, t) for t in tensors))


def onnx_tensor(kind=1, dims=b"\1", rest=b"\x4a\4\0\0\0\0"):
    return field(1, dims) + b"\x10" + varint(kind) + field(8, b"w") + rest


def twice(name):
    with pytest.warns(UserWarning, match="Duplicate"):
        return zip_of([(name, npy(np.zeros(1, "f4")))] * 2)


def zip_of(members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members:
            archive.writestr(name, data)
    return file.getvalue()


def encrypted():
    data = bytearray(hostile.zipped({"w.npy": b""}))
    data[data.index(b"PK\1\2") + 8] |= 1
    return bytes(data)


def layer(shape, numbers, kind=b"InnerProduct"):
    blob = field(5, bytes(4 * numbers)) + field(7, field(1, bytes(shape)))
    return field(1, b"fc") + field(2, kind) + field(7, blob)


FAULTS = {
    "empty": (lambda: b"", "empty; fetch or copy it again"),
    "unknown": (lambda: b"what is that" * 9, "begins with b'what is thatwhat', which is no"),
    "web page": (lambda: b"<!DOCTYPE html><html>", "a web page, not weights; fetch"),
    "LFS": (lambda: b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
    "gzip": (lambda: b"\x1f\x8b\x08" + bytes(20), "compressed by gzip; unpack it first"),
    "npy": (lambda: npy(np.zeros(3, "f4")), "a single array .*; expected an archive"),
    "prototxt": (lambda: b'name: "VGG_ILSVRC_16"\n', "a network's description"),
    "tar": (lambda: bytes(257) + b"ustar" + bytes(99), "a tar archive"),
    "zip of anything": (lambda: hostile.zipped({"photo.jpg": b""}), "a zip archive of photo.jpg; "),
    "zip cut": (lambda: (WEIGHTS / "numpy.npz").read_bytes()[:300], "damaged weight file .*zip"),
    "npz of other members": (lambda: zip_of([("data.pkl", b""), ("x.npy", b"")]), "pickle|torch"),
    "npz twice": (lambda: twice("w.npy"), "the archive has 'w.npy' twice"),
    "npz encrypted": (encrypted, "'w.npy' is encrypted"),
    "npz no array": (lambda: hostile.zipped({"w.npy": b"what is that?"}), "damaged npz .*magic"),
    "npz data bit": (lambda: repaired_checksum(), "Bad CRC-32"),
    "npz size": (lambda: hostile.npz("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }"),
                 r"'w' of shape \(2,\) and float32 needs [\d,]+ bytes, but the archive has"),
    "npz structure": (lambda: hostile.npz("{'descr': [('a', '<f4')], 'fortran_order': False, "
                                          "'shape': (2,), }"), "holds .*, not numbers"),
    "torch whole module": (lambda: (WEIGHTS / "torch_module.pth").read_bytes(),
                           r"the pickle names __main__.Tiny, which may be code.*state_dict\(\)"),
    "torch lacks storage": (lambda: repacked("torch_zip.pth", **{"0": None}),
                            "the archive lacks 'torch_zip/data/0'"),
    "torch big-endian": (lambda: repacked("torch_zip.pth", byteorder=b"big"), "big-endian machine"),
    "torch storage short": (lambda: repacked("torch_zip.pth", **{"0": b"1234"}),
                            "storage '0' has 4 bytes, 432 are described"),
    "torch legacy cut": (lambda: (WEIGHTS / "torch_legacy.pth").read_bytes()[:-5],
                         "needs [0-9]+ bytes, but the file ends after"),
    "torch legacy more": (lambda: (WEIGHTS / "torch_legacy.pth").read_bytes() + b"x",
                          "bytes follow after the last tensor"),
    "torch legacy protocol": (lambda: hostile.torch_legacy(b"\x80\x02M\xea\x03.", 1),
                              "torch's protocol 1002 .*; expected 1001"),
    "torch list": (lambda: hostile.torch_zip(b"]."), "holds a list; expected a state dict"),
    "torch nothing": (lambda: hostile.torch_zip(b"}X\5\0\0\0epochK\1s."), "no tensors; .* epoch"),
    "torch nested": (lambda: hostile.torch_zip(b"}X\1\0\0\0a}s."), "entry 'a' is a dict; expected"),
    "safetensors cut": (lambda: (WEIGHTS / "tiny.safetensors").read_bytes()[:-1],
                        "the file ends after|describes"),
    "safetensors more": (lambda: (WEIGHTS / "tiny.safetensors").read_bytes() + b"x",
                         r"the file has \d+ bytes, its header describes \d+"),
    "safetensors header": (lambda: struct.pack("<Q", 99) + b"{" + bytes(95), "the header should"),
    "safetensors twice": (lambda: safetensors(b'{"w": {}, "w": {}}'), "has a name twice"),
    "safetensors type": (lambda: safetensors(tensor(dtype="F8_E4M3"), bytes(4)),
                         "'w' has the type F8_E4M3, which NumPy does not have; expected"),
    "safetensors shape": (lambda: safetensors(tensor(shape=[-1]), bytes(4)), "'w' has the shape"),
    "safetensors size": (lambda: safetensors(tensor(shape=[2]), bytes(4)),
                         r"'w' of shape \(2,\) and F32 needs 8 bytes, but its place has 4"),
    "safetensors gap": (lambda: safetensors(tensor(data_offsets=[4, 8]), bytes(8)),
                        "'w' begins at byte 4 of the data, expected 0"),
    "safetensors offsets": (lambda: safetensors(tensor(data_offsets=4), bytes(8)),
                            "'w' has data_offsets 4; expected two"),
    "hdf5 cut": (lambda: (WEIGHTS / "keras3.weights.h5").read_bytes()[:-1],
                 "the file should have 23,952 bytes, it has 23,951"),
    "hdf5 new superblock": (lambda: b"\x89HDF\r\n\x1a\n\x02\x08\x08\x00" + bytes(60),
                            "superblock of version 2, which Keras does not write.*earliest"),
    "hdf5 index": (lambda: changed("keras2_model.h5", b"TREE", b"FREE"),
                   "at byte [0-9,]+ is b'FREE', expected b'TREE'"),
    "hdf5 name lost": (lambda: changed("keras2_weights.h5", b"conv1/kernel:0", b"conv1/cernel:0"),
                       "'conv1/conv1' has no member 'cernel:0'"),
    "hdf5 of others": (lambda: changed("keras2_weights.h5", b"layer_names0", b"other_names0"),
                       "no weights of Keras; expected layer_names or groups called vars, got"),
    "keras lacks config": (lambda: repacked("keras3.keras", config=None), "config.json"),
    "onnx cut": (lambda: (WEIGHTS / "raw.onnx").read_bytes()[:-60],
                 "field 7 should have [0-9]+ bytes, only [0-9]+ follow"),
    "onnx text": (lambda: onnx([onnx_tensor(kind=8)]), "'w' is of ONNX type 8; expected numbers"),
    "onnx size": (lambda: onnx([onnx_tensor(dims=b"\2")]), r"'w' of shape \(2,\) has 1 numbers"),
    "onnx negative": (lambda: onnx([onnx_tensor(dims=varint(2**64 - 1))]), "with a negative size"),
    "onnx twice": (lambda: onnx([onnx_tensor()] * 2), "two arrays have the name 'w'"),
    "onnx sparse": (lambda: b"\x08\x09" + field(7, field(15, b"")), "sparse initialisers"),
    "onnx empty": (lambda: b"\x08\x09" + field(7, b""), "no arrays in this onnx file"),
    "onnx wire type": (lambda: onnx([b"\x0b"]), "field 1 has wire type 3; expected 0, 1, 2 or 5"),
    "onnx number": (lambda: onnx([onnx_tensor(dims=b"\xff" * 11)]), "a number of more than 64"),
    "caffe cut": (lambda: (WEIGHTS / "v2.caffemodel").read_bytes()[:-1], "field 100 should have"),
    "caffe size": (lambda: field(100, layer([2], 3)), r"'fc/0' of shape .* has 3 numbers"),
    "caffe rank": (lambda: field(100, layer([2, 1, 1], 2)),
                   r"'fc/0' has the shape \(2, 1, 1\); expected 2 sizes"),
    "caffe twice": (lambda: field(100, layer([1, 1], 1)) * 2, "two arrays have the name 'fc/0'"),
}


def repaired_checksum():
    """Flip a bit of an array's numbers, which only the archive's checksum can tell."""
    data = bytearray((WEIGHTS / "numpy.npz").read_bytes())
    data[data.index(b"\n", data.index(b"NUMPY")) + 1] ^= 1
    return bytes(data)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named(tmp_path, fault):
    make, message = FAULTS[fault]
    path = tmp_path / "weights.bin"
    path.write_bytes(make())
    with pytest.raises(WeightsError, match=f"^{re.escape(str(path))}: .*{message}"):
        read(path)


def test_no_such_file(tmp_path):
    with pytest.raises(WeightsError, match=r"none\.npz: no such file"):
        read(tmp_path / "none.npz")
    with pytest.raises(WeightsError, match="not a file"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["chainer.npz", "torch_zip.pth", "torch_legacy.pth", "raw.onnx",
                                  "tiny.safetensors", "keras2_model.h5", "v2.caffemodel"])
def test_the_limit_is_kept(name):
    size = (WEIGHTS / name).stat().st_size
    with pytest.raises(WeightsError, match=rf"{size:,} bytes; 50 are allowed.*larger limit"):
        read(WEIGHTS / name, limit=50)


def test_arrays_over_the_limit(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, w=np.zeros(10_000, "f4"))
    with pytest.raises(WeightsError, match="the archive unpacks to 40,128 bytes; 20,000 are"):
        read(path, limit=20_000)
    assert read(path).arrays["w"].size == 10_000


# ONNX data beside the model.

def external(location, offset=0, length=4):
    entries = {"location": location, "offset": str(offset), "length": str(length)}
    rest = b"".join(field(13, field(1, k.encode()) + field(2, v.encode()))
                    for k, v in entries.items())
    return onnx([onnx_tensor(rest=rest + b"\x70\x01")])


@pytest.mark.parametrize("location, message", [
    ("../secret", "points to '../secret', outside of the model's folder; it was not opened"),
    ("/etc/hostname", "outside of the model's folder"),
    ("sub/../../secret", "outside of the model's folder"),
    ("link", "outside of the model's folder"),
    ("", "put that file beside the model"),
    ("missing.data", "'w' is kept in 'missing.data': put that file beside the model"),
])
def test_onnx_data_elsewhere(tmp_path, location, message):
    (tmp_path / "secret").write_bytes(bytes(4))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "m.onnx").write_bytes(external(location))
    with pytest.raises(WeightsError, match=message):
        read(folder / "m.onnx")


def test_onnx_data_beside(tmp_path):
    (tmp_path / "data").write_bytes(np.arange(3, dtype="<f4").tobytes())
    (tmp_path / "m.onnx").write_bytes(external("data", offset=8))
    same(read(tmp_path / "m.onnx").arrays, {"w": np.array([2], "f4")})
    (tmp_path / "m.onnx").write_bytes(external("data", offset=9))
    with pytest.raises(WeightsError, match="'w' needs 4 bytes, but the file ends after 3"):
        read(tmp_path / "m.onnx")
    (tmp_path / "m.onnx").write_bytes(external("data", length=8))
    with pytest.raises(WeightsError, match="needs 4 bytes, 8 are announced"):
        read(tmp_path / "m.onnx")


def test_onnx_and_caffe_are_told_apart():
    assert not onnx_reader.recognised((WEIGHTS / "v1.caffemodel").read_bytes())
    assert onnx_reader.recognised((WEIGHTS / "raw.onnx").read_bytes()[:60])


# Nothing of a damaged file comes out.

@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_cut_anywhere(tmp_path, name):
    """Only a protobuf file can be cut unseen, between two layers; then what is there is right."""
    data = (WEIGHTS / name).read_bytes()
    path = tmp_path / "cut"
    (tmp_path / "external.data").write_bytes((WEIGHTS / "external.data").read_bytes())
    for length in range(0, len(data), max(1, len(data) // 150)):
        path.write_bytes(data[:length])
        try:
            got = read(path).arrays
        except WeightsError as e:
            assert str(e).startswith(f"{path}: ")
        else:
            assert name.endswith(("caffemodel", "onnx")), length
            same(got, {n: EXPECTED[name][n] for n in got})
