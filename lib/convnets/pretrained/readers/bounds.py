"""What the readers share: bounded sizes, bytes read in place, zip archives without surprises."""

import contextlib
import math
import zipfile

import numpy as np

from ..errors import WeightsError

CHUNK = 1 << 20        # bytes read at once
MEMBERS = 100_000      # in one archive
BFLOAT16 = np.dtype("V2")   # NumPy has no such number: the upper half of a float32


class Budget:
    """The bytes of arrays that one file may ask for.

    Parameters
    ----------
    limit : int
        Bytes for all arrays together.
    """

    def __init__(self, limit):
        self.limit = self.left = limit

    def take(self, shape, dtype, name):
        """Count an array and return its bytes, before anything is allocated."""
        if any(size < 0 for size in shape):
            raise WeightsError(f"{name!r} has the shape {tuple(shape)}, with a negative size")
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        self.left -= nbytes
        if self.left < 0:
            raise WeightsError(
                f"{name!r} of shape {tuple(shape)} brings the arrays over the {self.limit:,} bytes "
                f"that are allowed for this file; if it is whole and trusted, read it with a "
                f"larger limit")
        return nbytes

    def empty(self, shape, dtype, name):
        """Return a new array that is counted."""
        self.take(shape, dtype, name)
        return np.empty(shape, dtype)


def fill(array, file, name):
    """Read an array's bytes from where a file stands, without a second copy of them."""
    view = array.reshape(-1).view(np.uint8)
    for start in range(0, len(view), CHUNK):
        part = view[start : start + CHUNK]
        data = file.read(len(part))
        if len(data) != len(part):
            raise WeightsError(f"{name!r} needs {len(view):,} bytes, but the file ends after "
                               f"{start + len(data):,} of them; fetch or copy it again")
        part[:] = np.frombuffer(data, np.uint8)
    return array


def native(array):
    """Return an array of this machine's byte order, contiguous; bfloat16 as float32."""
    array = np.asarray(array, order="C")
    if array.dtype == BFLOAT16:
        wide = np.asarray(array.view("<u2").astype(np.uint32) << np.uint32(16))
        return np.asarray(wide.view(np.float32))
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def add(arrays, name, array):
    """Put an array under its name, which must be new."""
    if name in arrays:
        raise WeightsError(f"two arrays have the name {name!r}")
    arrays[name] = array


@contextlib.contextmanager
def open_zip(path, limit):
    """Open an archive whose members may be read: bounded, plain, none twice."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if len(members) > MEMBERS:
            raise WeightsError(f"the archive has {len(members):,} members; expected at most "
                               f"{MEMBERS:,}")
        names = set()
        for member in members:
            _check_member(member)
            add_name(names, member.filename)
        if (total := sum(member.file_size for member in members)) > limit:
            raise WeightsError(f"the archive unpacks to {total:,} bytes; {limit:,} are allowed for "
                               f"a file of its size")
        yield archive


def add_name(names, name):
    if name in names:
        raise WeightsError(f"the archive has {name!r} twice")
    names.add(name)


def _check_member(member):
    name = member.filename
    if name.startswith("/") or "\\" in name or ".." in name.split("/"):
        raise WeightsError(f"the archive's member {name!r} points outside of it")
    if member.flag_bits & 1:
        raise WeightsError(f"the archive's member {name!r} is encrypted")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise WeightsError(f"the archive's member {name!r} has the compression "
                           f"{member.compress_type}; expected none or deflate")
    if member.compress_type == zipfile.ZIP_STORED and member.compress_size != member.file_size:
        raise WeightsError(f"the archive's member {name!r} is stored as {member.compress_size:,} "
                           f"bytes but is said to have {member.file_size:,}")


def read_member(archive, name, budget):
    """Return a member's bytes as an array, checked against the archive's checksum."""
    size = archive.getinfo(name).file_size
    with archive.open(name) as file:
        data = fill(budget.empty((size,), np.uint8, name), file, name)
        file.read(1)   # the end: here zipfile compares the checksum
    return data
