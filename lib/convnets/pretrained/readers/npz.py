"""NumPy's ``.npz``: a zip archive of arrays, as Chainer and chainercv2 write it."""

import numpy as np
from numpy.lib import format as npy

from ..errors import WeightsError
from .bounds import add, fill, native, open_zip

HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


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
    version = npy.read_magic(file)
    if version not in HEADERS:
        raise WeightsError(f"{key!r} has npy version {version}; expected (1, 0) or (2, 0)")
    shape, fortran, dtype = HEADERS[version](file)
    if dtype.kind not in "biufcSU":
        raise WeightsError(f"{key!r} holds {dtype}, not numbers: Python objects are not read, "
                           f"because they may run code. Save arrays only")
    expected = file.tell() + budget.take(shape, dtype, key)
    if size != expected:
        raise WeightsError(f"{key!r} of shape {shape} and {dtype} needs {expected:,} bytes, but "
                           f"the archive has {size:,} for it")
    order = shape[::-1] if fortran else shape
    array = fill(np.empty(order, dtype), file, key)
    file.read(1)   # the end: here zipfile compares the checksum
    return native(array.T if fortran else array)
