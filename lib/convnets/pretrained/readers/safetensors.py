"""``.safetensors``: a length, a JSON header, and the bytes of all tensors without a gap."""

import json

import numpy as np

from ..errors import WeightsError
from .bounds import BFLOAT16, fill, native

LONGEST_HEADER = 100_000_000   # bytes, the format's own bound
DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": BFLOAT16, "C64": "<c8", "BOOL": "?",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1",
}


def read(path, budget):
    """Return the tensors by their keys.

    Parameters
    ----------
    path : pathlib.Path
    budget : Budget

    Returns
    -------
    arrays : dict of str to ndarray
        bfloat16 as float32.
    details : dict
        ``metadata``: the file's own notes.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        header, start = _header(file, size)
        metadata = header.pop("__metadata__", {})
        arrays = {}
        end = 0
        for name, entry in sorted(header.items(), key=lambda item: _offsets(*item)):
            begin, until = _offsets(name, entry)
            if begin != end:
                raise WeightsError(f"{name!r} begins at byte {begin:,} of the data, expected "
                                   f"{end:,}: tensors may not overlap or leave a gap")
            arrays[name] = _tensor(file, name, entry, budget)
            end = until
    if start + end != size:
        raise WeightsError(f"the file has {size:,} bytes, its header describes {start + end:,}; "
                           f"fetch or copy it again")
    return {name: arrays[name] for name in header}, {"metadata": metadata}


def recognised(start, size):
    """Tell whether a file begins with a header's length and a JSON object."""
    return start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= size


def _header(file, size):
    length = int.from_bytes(file.read(8), "little")
    if length > min(LONGEST_HEADER, size - 8):
        raise WeightsError(f"the header should have {length:,} bytes, the file has {size:,}; "
                           f"fetch or copy it again")
    header = json.loads(file.read(length).decode(), object_pairs_hook=_no_name_twice)
    if not isinstance(header, dict):
        raise WeightsError(f"the header is a JSON {type(header).__name__}, expected an object")
    return header, 8 + length


def _no_name_twice(pairs):
    if len(dict(pairs)) != len(pairs):
        raise WeightsError("the header has a name twice")
    return dict(pairs)


def _offsets(name, entry):
    offsets = entry["data_offsets"]
    if not _sizes(offsets) or len(offsets) != 2:
        raise WeightsError(f"{name!r} has data_offsets {offsets}; expected two byte positions")
    return tuple(offsets)


def _sizes(values):
    return isinstance(values, list) and all(type(v) is int and v >= 0 for v in values)


def _tensor(file, name, entry, budget):
    code, shape = entry["dtype"], entry["shape"]
    if code not in DTYPES:
        raise WeightsError(f"{name!r} has the type {code}, which NumPy does not have; expected "
                           f"one of {', '.join(DTYPES)}")
    if not _sizes(shape):
        raise WeightsError(f"{name!r} has the shape {shape}; expected a list of sizes")
    begin, until = _offsets(name, entry)
    nbytes = budget.take(shape, DTYPES[code], name)
    if nbytes != until - begin:
        raise WeightsError(f"{name!r} of shape {tuple(shape)} and {code} needs {nbytes:,} bytes, "
                           f"but its place has {until - begin:,}")
    return native(fill(np.empty(shape, DTYPES[code]), file, name))
