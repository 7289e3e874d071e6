"""Weight files as arrays, whatever wrote them, without the framework that wrote them.

`read` looks at a file's first bytes, not at its name's ending. No reader executes anything a file
holds, and none believes a size that a file states before it has been held against the file's own.
"""

import struct
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import WeightsError
from . import bounds, caffe, hdf5, keras, npz, onnx, safetensors, torch

__all__ = ["WeightFile", "read"]

LIMIT = 8 << 30      # bytes of arrays
RATIO = 1000         # times the file's size: what deflate can do
LEAST = 1 << 20
START = 1 << 16     # bytes by which a format is recognised
# What a damaged file makes parsers say; anything else would be a defect here.
DAMAGE = (ArithmeticError, AssertionError, EOFError, LookupError, MemoryError, RuntimeError,
          TypeError, ValueError, struct.error, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class WeightFile:
    """What a weight file holds.

    Attributes
    ----------
    path : pathlib.Path
    format : str
        npz, torch, safetensors, hdf5, onnx or caffe.
    arrays : dict of str to ndarray
        In the file's own layout and under its own names; this machine's byte order, contiguous.
        bfloat16 comes as float32, every other type as stored.
    details : dict
        What else the reader of that format found; see its module.
    """

    path: Path
    format: str
    arrays: dict[str, np.ndarray]
    details: dict = field(default_factory=dict)


def read(path, limit=LIMIT):
    """Read all arrays of a weight file.

    Parameters
    ----------
    path : path
    limit : int
        Bytes that the arrays may take together. A thousand times the file's size is never
        exceeded either.

    Returns
    -------
    WeightFile

    Raises
    ------
    WeightsError
        If the file is missing, damaged, of an unknown format, larger than the limit, or holds
        code. The message names the file and the fault. Nothing of a damaged file is returned.
    """
    path = Path(path)
    kind = "weight"
    try:
        if not path.is_file():
            raise WeightsError("no such file" if not path.exists() else "not a file")
        size = path.stat().st_size
        if not size:
            raise WeightsError("empty; fetch or copy it again")
        if size > limit:
            raise WeightsError(f"has {size:,} bytes; {limit:,} are allowed. If it is trusted, read "
                               f"it with a larger limit")
        kind, reader = _recognised(path, size)
        arrays, details = reader(path, bounds.Budget(min(limit, max(RATIO * size, LEAST))))
        if not arrays:
            raise WeightsError(f"no arrays in this {kind} file")
    except WeightsError as e:
        raise WeightsError(f"{path}: {e}") from None
    except OSError as e:
        raise WeightsError(f"{path}: cannot be read ({e})") from e
    except DAMAGE as e:
        raise WeightsError(f"{path}: a damaged {kind} file ({type(e).__name__}: {e}); fetch or "
                           f"copy it again") from e
    return WeightFile(path, kind, arrays, details)


def _recognised(path, size):
    """Return a file's format and reader, by its first bytes."""
    with path.open("rb") as file:
        start = file.read(START)
    if start.startswith(b"PK\x03\x04"):
        return _recognised_zip(path)
    for signature, at, what in STRANGERS:
        if start[at : at + len(signature)].lower() == signature:
            raise WeightsError(what)
    for recognised, kind, reader in FORMATS:
        if recognised(start, size):
            return kind, reader
    raise WeightsError(f"begins with {start[:16]!r}, which is no weight file; expected npz, torch, "
                       f"safetensors, Keras' HDF5, ONNX or Caffe")


def _recognised_zip(path):
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(name.split("/")[-1] == "data.pkl" for name in names):
        return "torch", torch.read_zip
    if "model.weights.h5" in names:
        return "hdf5", keras.read_keras
    if names and all(name.endswith(".npy") for name in names):
        return "npz", npz.read
    raise WeightsError(f"a zip archive of {', '.join(names[:3]) or 'nothing'}; expected npz, torch "
                       f"or Keras")


FORMATS = [
    (lambda start, size: start.startswith(torch.MAGIC), "torch", torch.read_legacy),
    (lambda start, size: start.startswith(hdf5.SIGNATURE), "hdf5", keras.read_h5),
    (safetensors.recognised, "safetensors", safetensors.read),
    (lambda start, size: onnx.recognised(start), "onnx", onnx.read),
    (lambda start, size: caffe.recognised(start), "caffe", caffe.read),
]
# What people have by mistake: how it begins, at which byte, and what to do.
STRANGERS = [
    (b"<!doctype", 0, "a web page, not weights; fetch the file itself"),
    (b"<html", 0, "a web page, not weights; fetch the file itself"),
    (b"version https://git-lfs", 0, "a pointer of Git LFS, not weights; fetch the file itself"),
    (b"\x1f\x8b", 0, "compressed by gzip; unpack it first"),
    (b"7z\xbc\xaf", 0, "compressed by 7-Zip; unpack it first"),
    (b"ustar", 257, "a tar archive; unpack it, or if PyTorch before 0.2 wrote it, save it again"),
    (b"\x93numpy", 0, "a single array (.npy); expected an archive of named arrays (.npz)"),
    (b'name: "', 0, "a network's description (prototxt), not its weights (caffemodel)"),
]
