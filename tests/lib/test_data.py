"""The packaged data are the published files, and damage is noticed."""

import hashlib

from convnets import data

import chainer
import numpy as np
import pytest

IDX_MD5 = {  # of the raw idx files, as their authors publish them
    "train_x": "6bbc9ace898e44ae57da46a324031adb",
    "train_y": "a25bea736e30d166cdddb491f175f624",
    "test_x": "2646ac647ad5339dbf082846283269ea",
    "test_y": "27ae3e4e09519cfbb04c329615203637",
}


def idx_bytes(array):
    """Return the array as an idx file: 0, 0, type 8 (ubyte), axes, sizes, content."""
    sizes = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


@pytest.mark.parametrize("part", IDX_MD5)
def test_mnist_is_the_published_one(part):
    assert hashlib.md5(idx_bytes(data.raw("mnist")[part])).hexdigest() == IDX_MD5[part]


@pytest.mark.parametrize(("load", "sizes"), [
    (data.mnist, (60_000, 10_000)), (data.fashion_mnist, (5_000, 1_000))])
def test_sizes_types_and_range(load, sizes):
    for part, size in zip(load(), sizes, strict=True):
        x, t = chainer.dataset.concat_examples(part[:500])
        assert len(part) == size
        assert (x.shape, x.dtype, t.dtype) == ((500, 1, 28, 28), np.float32, np.int32)
        assert (x.min(), x.max(), set(t)) == (0, 1, set(range(10)))


def test_a_part_is_the_beginning_of_the_whole():
    part, whole = data.mnist(7, 3), data.mnist()
    for a, b, n in zip(part, whole, (7, 3), strict=True):
        assert len(a) == n
        assert all(np.array_equal(a[i][0], b[i][0]) and a[i][1] == b[i][1] for i in range(n))


@pytest.mark.parametrize("n", [0, -1, 60_001])
def test_a_part_larger_than_the_whole(n):
    with pytest.raises(ValueError, match=r"1\.\.60000"):
        data.mnist(n)


def test_unknown_set():
    with pytest.raises(ValueError, match="mnist, fashion_mnist"):
        data.raw("cifar")


def test_one_reader_cannot_change_what_the_next_one_reads():
    with pytest.raises(ValueError, match="read-only"):
        data.raw("mnist")["train_x"][0] = 0


@pytest.mark.parametrize("damage", [
    lambda b: b[:len(b) // 2], lambda b: b[:999] + bytes([b[999] ^ 1]) + b[1000:], lambda b: b""])
def test_a_damaged_file_is_refused(damage, tmp_path, monkeypatch):
    name = data.SETS["fashion_mnist"]["file"]
    (tmp_path / name).write_bytes(damage((data.FILES / name).read_bytes()))
    monkeypatch.setattr(data, "FILES", tmp_path)
    with pytest.raises(data.DataError, match=r"is damaged: got .* expected .* reinstall"):
        data.fashion_mnist()


def test_a_missing_file(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "FILES", tmp_path)
    with pytest.raises(data.DataError, match="is missing"):
        data.mnist()


def test_installed_mnist_is_read_by_chainers_own_loader(tmp_path, monkeypatch):
    monkeypatch.setattr(chainer.dataset.download, "_dataset_root", str(tmp_path))
    data.install("mnist")
    for theirs, ours in zip(chainer.datasets.get_mnist(ndim=3), data.mnist(), strict=True):
        a = chainer.dataset.concat_examples(theirs[:1000])
        b = chainer.dataset.concat_examples(ours[:1000])
        assert all(np.array_equal(p, q) for p, q in zip(a, b, strict=True))


def test_install_keeps_what_is_there(tmp_path):
    mine = tmp_path / "pfnet/chainer/mnist/train.npz"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    data.install("mnist", tmp_path)
    assert mine.read_bytes() == b"mine"
    assert {p.name for p in mine.parent.iterdir()} == {"train.npz", "test.npz"}


def test_install_of_a_part_is_refused(tmp_path):
    with pytest.raises(ValueError, match="only whole sets"):
        data.install("fashion_mnist", tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def fail(file, **arrays):
        file.write(b"half")
        raise OSError("disk full")
    monkeypatch.setattr(np, "savez_compressed", fail)
    with pytest.raises(OSError, match="disk full"):
        data.install("mnist", tmp_path)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_a_first_part_beside_the_whole_is_read_where_it_is_enough(tmp_path, monkeypatch):
    arrays = {name: array[:4] for name, array in data.raw("mnist").items()}
    np.savez(tmp_path / "mnist_part.npz", **arrays)
    monkeypatch.setattr(data, "FILES", tmp_path)  # the whole is not there
    train, test = data.mnist(4, 2)
    assert (len(train), len(test)) == (4, 2)
    for n_train, n_test in ((5, 2), (None, 2), (4, None)):
        with pytest.raises(data.DataError, match=r"mnist\.npz is missing"):
            data.mnist(n_train, n_test)
