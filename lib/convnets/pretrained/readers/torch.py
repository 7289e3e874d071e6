"""PyTorch's ``.pth`` and ``.pt``: a pickle that describes tensors, and their bytes.

Two containers hold them: a zip archive (since 1.6), and before that five pickles in a row followed
by the bytes. The pickles are read by `.pickles`, never executed, and PyTorch is not needed.
"""

import re

import numpy as np

from ..errors import WeightsError
from .bounds import BFLOAT16, fill, native, open_zip, read_member
from .pickles import Known, as_dict, load

MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."   # 0x1950a86a20f9469cfc6c, pickled
PROTOCOL = 1001
WRAPPERS = ("state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "_orig_mod.")    # of DataParallel and torch.compile

STORAGES = {
    "FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2",
    "BFloat16Storage": BFLOAT16, "LongStorage": "<i8", "IntStorage": "<i4", "ShortStorage": "<i2",
    "CharStorage": "i1", "ByteStorage": "u1", "BoolStorage": "?",
    "ComplexFloatStorage": "<c8", "ComplexDoubleStorage": "<c16",
}
DTYPES = {
    "float32": "<f4", "float64": "<f8", "float16": "<f2", "bfloat16": BFLOAT16, "int64": "<i8",
    "int32": "<i4", "int16": "<i2", "int8": "i1", "uint8": "u1", "uint16": "<u2", "uint32": "<u4",
    "uint64": "<u8", "bool": "?", "complex64": "<c8", "complex128": "<c16",
}


def read_zip(path, budget):
    """Return the tensors of a file that ``torch.save`` wrote since PyTorch 1.6.

    Parameters
    ----------
    path : pathlib.Path
    budget : Budget

    Returns
    -------
    arrays : dict of str to ndarray
        By the state dict's keys; bfloat16 as float32.
    details : dict
        ``wrapper``: the keys under which the state dict lay; ``prefix``: what was removed from
        every name; ``other``: entries beside the tensors.
    """
    with open_zip(path, budget.limit) as archive:
        names = archive.namelist()
        (pickle,) = [name for name in names if re.fullmatch(r"([^/]+/)?data\.pkl", name)]
        root = pickle.removesuffix("data.pkl")
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
            raise WeightsError("written on a big-endian machine; save it again on a usual one")

        def bytes_of(key, nbytes):
            member = f"{root}data/{key}"
            if member not in archive.NameToInfo:
                raise WeightsError(f"the archive lacks {member!r}; fetch or copy it again")
            return read_member(archive, member, budget)

        tensors = _Tensors(bytes_of, budget)
        with archive.open(pickle) as file:
            return _state_dict(load(file, tensors.known(), tensors.persistent))


def read_legacy(path, budget):
    """Return the tensors of a file that ``torch.save`` wrote before PyTorch 1.6; see `read_zip`."""
    size = path.stat().st_size
    wanted = {}

    def bytes_of(key, nbytes):
        if nbytes > size:
            raise WeightsError(f"storage {key!r} should have {nbytes:,} bytes, the whole file has "
                               f"{size:,}; fetch or copy it again")
        wanted[key] = budget.empty((nbytes,), np.uint8, key)
        return wanted[key]

    tensors = _Tensors(bytes_of, budget)
    with path.open("rb") as file:
        _, protocol, system = (load(file, {}, _nothing) for _ in range(3))
        if protocol != PROTOCOL or not system["little_endian"]:
            raise WeightsError(f"torch's protocol {protocol} of {system}; expected {PROTOCOL}, "
                               f"little-endian: save it again with a newer PyTorch")
        result = load(file, tensors.known(), tensors.persistent)
        keys = load(file, {}, _nothing)
        if sorted(keys) != sorted(wanted):
            raise WeightsError(f"{len(wanted)} storages are described, {len(keys)} follow; fetch "
                               f"or copy it again")
        for key in keys:
            _fill_legacy(wanted[key], file, key, tensors.itemsizes[key])
        if file.read(1):
            raise WeightsError("bytes follow after the last tensor; fetch or copy it again")
    # The tensors were views until now; a converted one would have missed its numbers.
    return _state_dict(result)


def _nothing(identity):
    raise WeightsError(f"an unexpected persistent id {identity!r}")


def _fill_legacy(storage, file, key, itemsize):
    count = int.from_bytes(file.read(8), "little")
    if count * itemsize != storage.size:
        raise WeightsError(f"storage {key!r} has {count:,} numbers, {storage.size // itemsize:,} "
                           f"are described; fetch or copy it again")
    fill(storage, file, key)


class _Tensors:
    """Tensors as views of storages; what the names in a pickle of PyTorch stand for."""

    def __init__(self, bytes_of, budget):
        self.bytes_of = bytes_of
        self.budget = budget
        self.storages = {}
        self.itemsizes = {}

    def known(self):
        return {
            "collections.OrderedDict": Known(as_dict),
            "torch.Size": Known(tuple),
            "torch.device": Known(lambda *name: str(name)),
            "torch._utils._rebuild_tensor": Known(self.tensor),
            "torch._utils._rebuild_tensor_v2": Known(self.tensor),
            "torch._utils._rebuild_tensor_v3": Known(self.tensor_of_dtype),
            "torch._utils._rebuild_parameter": Known(lambda data, *_: data),
            "torch._utils._rebuild_parameter_with_state": Known(lambda data, *_: data),
            "torch.nn.parameter.Parameter": Known(lambda data, *_: data),
            "torch.storage.UntypedStorage": np.dtype("u1"),
            **{f"torch.{name}": np.dtype(code) for name, code in STORAGES.items()},
            **{f"torch.{name}": np.dtype(code) for name, code in DTYPES.items()},
            **NUMPY,
        }

    def persistent(self, identity):
        """Return a storage, as its bytes and its type."""
        kind, dtype, key, _, count, *view = identity
        if kind != "storage":
            raise WeightsError(f"a persistent id {kind!r}: a whole module was saved, which is "
                               f"code. In the program that wrote it, "
                               f"torch.save(model.state_dict(), path)")
        if not isinstance(dtype, np.dtype) or any(view):
            raise WeightsError(f"storage {key!r} is of no known type; the file is damaged")
        if not isinstance(key, str) or type(count) is not int or count < 0:
            raise WeightsError(f"storage {key!r} of {count!r} numbers; the file is damaged")
        nbytes = count * dtype.itemsize
        if key not in self.storages:
            self.storages[key] = self.bytes_of(key, nbytes)
            self.itemsizes[key] = dtype.itemsize
        if self.storages[key].size != nbytes:
            raise WeightsError(f"storage {key!r} has {self.storages[key].size:,} bytes, {nbytes:,} "
                               f"are described; fetch or copy it again")
        return self.storages[key], dtype

    def tensor(self, storage, offset, size, stride, *_):
        """Return a view of a storage; NumPy checks that it lies inside."""
        data, dtype = storage
        strides = [step * dtype.itemsize for step in stride]
        view = np.ndarray(size, dtype, data, offset * dtype.itemsize, strides)
        if not view.flags.c_contiguous:   # it will be copied, and strides of 0 repeat numbers
            self.budget.take(size, dtype, "a tensor")
        return view

    def tensor_of_dtype(self, storage, offset, size, stride, grad, hooks, dtype, *_):
        if not isinstance(dtype, np.dtype):
            raise WeightsError("a tensor of no known type; the file is damaged")
        return self.tensor((storage[0], dtype), offset, size, stride)


class _Array:
    """A NumPy array inside a checkpoint, while its pickle is read."""

    def __init__(self, *_):
        self.value = None

    def set_state(self, version, shape, dtype, fortran, data):
        data = data.encode("latin1") if isinstance(data, str) else data
        order = "F" if fortran else "C"
        self.value = np.frombuffer(data, dtype.value).reshape(shape, order=order).copy()


class _DType:
    def __init__(self, code, *_):
        if not re.fullmatch(r"[biufc]\d{1,2}", code):
            raise WeightsError(f"an array of type {code!r}; expected numbers")
        self.value = np.dtype(code)

    def set_state(self, version, order, *_):
        self.value = self.value.newbyteorder(order)


def _scalar(dtype, data):
    data = data.encode("latin1") if isinstance(data, str) else data
    return np.frombuffer(data, dtype.value)[0]


def _encoded(text, encoding):
    if encoding != "latin1":
        raise WeightsError(f"bytes encoded as {encoding!r}; expected latin1")
    return text.encode("latin1")


NUMPY = {
    "_codecs.encode": Known(_encoded),
    "numpy.ndarray": None,
    "numpy.dtype": Known(_DType),
    **{f"numpy.{core}.multiarray.{name}": Known(function) for core in ("core", "_core")
       for name, function in (("_reconstruct", _Array), ("scalar", _scalar))},
}


def _state_dict(found):
    """Open the wrappers of a checkpoint, and return its tensors with plain names."""
    opened = []
    while wrapper := _wrapper(found):
        opened.append(wrapper)
        found = found[wrapper]
        if len(opened) > len(WRAPPERS):
            raise WeightsError(f"a state dict inside {' inside '.join(opened)}; expected one")
    arrays, other = _tensors_and_others(found)
    prefix = ""
    while cut := next((p for p in PREFIXES if all(n.startswith(prefix + p) for n in arrays)), None):
        prefix += cut
    arrays = {name.removeprefix(prefix): native(array) for name, array in arrays.items()}
    return arrays, {"wrapper": opened, "prefix": prefix, "other": other}


def _wrapper(found):
    if not isinstance(found, dict):
        raise WeightsError(f"holds a {type(found).__name__}; expected a state dict")
    return next((key for key in WRAPPERS if isinstance(found.get(key), dict)), None)


def _tensors_and_others(found):
    arrays, other = {}, {}
    for name, value in found.items():
        value = value.value if isinstance(value, _Array) else value
        if isinstance(value, np.ndarray) and isinstance(name, str):
            arrays[name] = value
        elif value is None or isinstance(value, bool | int | float | str | bytes | np.number):
            other[name] = value
        else:
            raise WeightsError(f"entry {name!r} is a {type(value).__name__}; expected a state dict "
                               f"of tensors, or one under {', '.join(WRAPPERS)}")
    if not arrays:
        raise WeightsError(f"no tensors; the entries are {', '.join(map(str, found)) or 'none'}")
    return arrays, other
