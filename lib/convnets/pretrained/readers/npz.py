"""NumPy's ``.npz``: a zip archive of arrays, as Chainer and chainercv2 write it."""

import re

import numpy as np
from numpy.lib import format as npy

from ..errors import WeightsError
from .bounds import add, fill, native, open_zip

# How NumPy writes an array's header, in Python 2 with an L behind the sizes. It is a Python
# expression; as a pattern it can be nothing else.
HEADER = re.compile(r"\{'descr': (.+), 'fortran_order': (True|False), "
                    r"'shape': \(([\dL, ]*)\), ?\}\s*")
PLAIN = re.compile(r"'[<>|=]?([biufcSU]\d{1,9}|\?)'")
LENGTHS = {(1, 0): 2, (2, 0): 4}   # bytes of the header's length, by version
LONGEST = 10_000                   # characters of a header


def read(path, budget):
    """Return the arrays by their keys; nothing that was pickled is looked at.

    Parameters
    ----------
    path : pathlib.Path
    budget : Budget

    Returns
    -------
    arrays : dict of str to ndarray
    details : dict
    """
    arrays = {}
    with open_zip(path, budget.limit) as archive:
        for member in archive.infolist():
            key = member.filename.removesuffix(".npy")
            if key == member.filename:
                raise WeightsError(f"the archive's member {key!r} is no array; expected .npy")
            with archive.open(member) as file:
                add(arrays, key, _array(file, key, member.file_size, budget))
    return arrays, {}


def _array(file, key, size, budget):
    dtype, fortran, shape = _header(file, key)
    expected = file.tell() + budget.take(shape, dtype, key)
    if size != expected:
        raise WeightsError(f"{key!r} of shape {shape} and {dtype} needs {expected:,} bytes, but "
                           f"the archive has {size:,} for it")
    array = fill(np.empty(shape[::-1] if fortran else shape, dtype), file, key)
    file.read(1)   # the end: here zipfile compares the checksum
    return native(array.T if fortran else array)


def _header(file, key):
    """Return an array's type, whether its first axis is contiguous, and its shape."""
    version = npy.read_magic(file)
    length = int.from_bytes(file.read(LENGTHS.get(version, 0)), "little")
    found = HEADER.fullmatch(file.read(min(length, LONGEST)).decode("latin1"))
    if not found:
        raise WeightsError(f"{key!r} has a header of version {version} that NumPy would not write; "
                           f"it is damaged")
    descr, fortran, shape = found.groups()
    if not PLAIN.fullmatch(descr):
        raise WeightsError(f"{key!r} holds {descr}, not numbers: Python objects are not read, "
                           f"because they may run code. Save arrays only")
    sizes = tuple(int(n) for n in re.findall(r"\d+", shape))
    return np.dtype(descr.strip("'")), fortran == "True", sizes
