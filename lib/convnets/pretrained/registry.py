"""The published weight files, as data: where each is, how it is known, what it must be fed."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import chainer
import numpy as np

from .errors import WeightsError
from .preprocess import SETTINGS

FILES = Path(__file__).parent / "files"
FOLDER = "pfnet/chainer/models"     # below Chainer's data folder, where Chainer looks too
MIB = 1 << 20


@dataclass(frozen=True)
class Entry:
    """One published file.

    Attributes
    ----------
    name : str
        Such as ``"resnet50/torchvision-v1"``.
    arch, family : str
        The network, and a name in `families`: who wrote the file.
    file : str
        Its name in the models folder.
    bundled : bool
        It comes with this package.
    url : str, optional
        Address of the file itself. Without one it is not downloaded.
    page : str, optional
        Where a reader finds it.
    size : int, optional
        Length in bytes.
    mib : float, optional
        Length in units of 2**20 bytes, as rounded by the publisher.
    sha256, sha1, md5 : str, optional
        Published checksums. A `sha256` of less than 64 digits is its published beginning.
    preprocessing : str
        A key of `preprocess.SETTINGS`.
    n_class : int
    classes : str
        A set of class names, see `class_names`.
    top1_error, top5_error : float, optional
        On the validation set of ImageNet, in percent, one crop, as `errors_source` gives them.
    errors_source, licence, note : str, optional
    """

    name: str
    arch: str
    family: str
    file: str
    preprocessing: str
    n_class: int
    classes: str
    bundled: bool = False
    url: str | None = None
    page: str | None = None
    size: int | None = None
    mib: float | None = None
    sha256: str | None = None
    sha1: str | None = None
    md5: str | None = None
    top1_error: float | None = None
    top5_error: float | None = None
    errors_source: str | None = None
    licence: str | None = None
    note: str | None = None

    @property
    def path(self):
        """Where the file belongs: in Chainer's models folder, which need not exist, or here."""
        return (FILES if self.bundled else models_folder()) / self.file

    @property
    def checksums(self):
        """The published checksums, by name; there may be none."""
        known = {name: getattr(self, name) for name in ("sha256", "sha1", "md5")}
        return {name: digest for name, digest in known.items() if digest}

    @property
    def downloadable(self):
        """Whether it has an address, and a checksum to know it by."""
        return bool(self.url and self.checksums)

    @property
    def settings(self):
        """The `Preprocessing` of its photographs."""
        return SETTINGS[self.preprocessing]

    def describe_size(self):
        """Return the size for readers: exact, about, or unknown."""
        if self.size:
            return f"{self.size:,} bytes"
        return f"about {self.mib:.0f} MiB" if self.mib else "size unknown"

    def describe_checksum(self):
        """Return the best checksum for readers."""
        if not self.checksums:
            return "no published checksum"
        name, digest = next(iter(self.checksums.items()))
        begins = "begins with " if name == "sha256" and len(digest) < 64 else ""
        return f"{name} {begins}{digest}"


def models_folder():
    """Return the folder of weight files, ``$CHAINER_DATASET_ROOT/pfnet/chainer/models``.

    Returns
    -------
    pathlib.Path
        It is not made here.
    """
    return Path(chainer.dataset.get_dataset_directory(FOLDER, create_directory=False))


def names():
    """Return the names of all entries, in the order of the registry, without aliases."""
    return tuple(_registry()[0])


def aliases():
    """Return the short names as a dictionary, ``"vgg16/imagenet"`` and its like to an entry's."""
    return dict(_registry()[1])


def entry(name):
    """Return what is known of a published file.

    Parameters
    ----------
    name : str
        A name, or an alias such as ``"vgg16/imagenet"``.

    Returns
    -------
    Entry

    Raises
    ------
    WeightsError
        If there is no such name.
    """
    found = find(name)
    if found is None:
        entries, short = _registry()
        arch = str(name).split("/")[0]
        close = [n for n in entries if n.split("/")[0] == arch] or list(short)
        raise WeightsError(f"no published weights are known by the name {name!r}; "
                           f"there are: {', '.join(close)}. `convnets weights` lists all.")
    return found


def find(source):
    """Return the entry of a name or an alias, or None for anything else, such as a path.

    Parameters
    ----------
    source : str or path

    Returns
    -------
    Entry or None
    """
    entries, short = _registry()
    return entries.get(short.get(source, source)) if isinstance(source, str) else None


@cache
def _registry():
    data = json.loads((FILES / "registry.json").read_text(encoding="utf-8"))
    return {row["name"]: Entry(**row) for row in data["entries"]}, data["aliases"]


@cache
def class_names(classes="imagenet"):
    """Return the names of a set of classes, in the order of the network's outputs.

    Parameters
    ----------
    classes : str
        ``"imagenet"``, the 1,000 labels of ILSVRC-2012: synonyms with commas between.

    Returns
    -------
    tuple of str
    """
    path = FILES / f"{classes}_classes.json"
    return tuple(json.loads(path.read_text(encoding="utf-8"))["names"])


def top(probabilities, classes, k=5):
    """Return the most probable classes of one image.

    Parameters
    ----------
    probabilities : array, shape (n_class,)
    classes : sequence of str
        Their names; None for the numbers of the classes.
    k : int
        How many; more than there are gives all.

    Returns
    -------
    list of (int, str, float)
        Class, name and probability, the most probable first.

    Raises
    ------
    ValueError
        If there is not one name a probability.
    """
    p = np.asarray(probabilities)
    labels = [str(i) for i in range(p.size)] if classes is None else classes
    if p.shape != (len(labels),):
        raise ValueError(f"expected the probabilities of one image, shape ({len(labels)},) for "
                         f"{len(labels)} class names, got {p.shape}")
    best = np.argsort(-p, kind="stable")[:k]
    return [(int(i), labels[i], float(p[i])) for i in best]
