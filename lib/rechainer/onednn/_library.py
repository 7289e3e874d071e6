"""oneDNN's C library: found, loaded, its functions declared.

oneDNN 3.x, C interface: https://uxlfoundation.github.io/oneDNN/
"""

import ctypes
import functools
import importlib.metadata
import os
import pathlib
import sys
import sysconfig
from ctypes import POINTER, c_char, c_float, c_int, c_int64, c_uint, c_void_p

#: Environment variable: the library itself, or the folder it lies in.
VARIABLE = "RECHAINER_ONEDNN"
#: The distribution that brings the library, built with GNU's OpenMP.
DISTRIBUTION = "onednn-cpu-gomp"
NAME = "libdnnl.so.3"

DIMS = c_int64 * 12  # DNNL_MAX_NDIMS
HANDLE = c_void_p

#: Values of dnnl_types.h. dnnl_prop_kind_t:
FORWARD_TRAINING, FORWARD_INFERENCE, BACKWARD = 64, 96, 128
#: dnnl_alg_kind_t.
ALGORITHMS = {
    "convolution_direct": 0x1,
    "relu": 0x20,
    "sigmoid": 0x29,
    "sigmoid of result": 0x104,
    "pooling_max": 0x1FF,
    "pooling_avg_include_padding": 0x2FF,
    "lrn_across_channels": 0xAFF,
    "binary_add": 0x1FFF0,
}
#: dnnl_normalization_flags_t.
USE_GLOBAL_STATS, USE_SCALE, USE_SHIFT, FUSE_RELU = 1, 2, 4, 8
#: dnnl_data_type_t by NumPy's name.
DATA_TYPES = {"float32": 3, "int32": 4, "uint8": 6}
#: Arguments of a primitive, DNNL_ARG_*.
ARGUMENTS = {
    "src": 1, "src_1": 2, "dst": 17, "weights": 33, "bias": 41, "mean": 49, "variance": 50,
    "scale": 51, "shift": 52, "workspace": 64, "diff_src": 129, "diff_dst": 145,
    "diff_weights": 161, "diff_bias": 169, "diff_scale": 255, "diff_shift": 256,
    "first_post_op": 32770,
}  # fmt: skip
#: dnnl_query_t of a memory descriptor.
QUERIES = {"src": 129, "diff_src": 130, "weights": 131, "diff_weights": 132, "dst": 133,
           "diff_dst": 134, "workspace": 135}  # fmt: skip
TAG_ANY = 1
STATUS = ("success", "out of memory", "invalid arguments", "unimplemented", "end of list",
          "runtime error", "not required")  # fmt: skip


class _Version(ctypes.Structure):
    _fields_ = [(name, c_int) for name in ("major", "minor", "patch")]


class Argument(ctypes.Structure):
    """dnnl_exec_arg_t: which argument, and its memory object."""

    _fields_ = [("arg", c_int), ("memory", HANDLE)]


_GEOMETRY = (DIMS,) * 4  # strides, dilations, padding before, padding behind

#: Function -> types of its arguments, None to check and convert none. All return dnnl_status_t but
#: `dnnl_memory_desc_get_size`, `dnnl_memory_desc_equal` and `dnnl_primitive_desc_query_md`.
_DECLARATIONS = {
    "dnnl_version": (),
    "dnnl_engine_create": (POINTER(HANDLE), c_int, ctypes.c_size_t),
    "dnnl_stream_create": (POINTER(HANDLE), HANDLE, c_uint),
    "dnnl_memory_desc_create_with_strides": (POINTER(HANDLE), c_int, DIMS, c_int, DIMS),
    "dnnl_memory_desc_create_with_tag": (POINTER(HANDLE), c_int, DIMS, c_int, c_int),
    "dnnl_memory_desc_destroy": (HANDLE,),
    "dnnl_memory_desc_get_size": (HANDLE,),
    "dnnl_memory_desc_equal": (HANDLE, HANDLE),
    "dnnl_memory_create": (POINTER(HANDLE), HANDLE, HANDLE, HANDLE),
    "dnnl_memory_set_data_handle": (HANDLE, HANDLE),
    "dnnl_memory_destroy": (HANDLE,),
    "dnnl_primitive_attr_create": (POINTER(HANDLE),),
    "dnnl_primitive_attr_destroy": (HANDLE,),
    "dnnl_primitive_attr_set_post_ops": (HANDLE, HANDLE),
    "dnnl_post_ops_create": (POINTER(HANDLE),),
    "dnnl_post_ops_destroy": (HANDLE,),
    "dnnl_post_ops_append_sum": (HANDLE, c_float, c_int, c_int),
    "dnnl_post_ops_append_binary": (HANDLE, c_int, HANDLE),
    "dnnl_post_ops_append_eltwise": (HANDLE, c_int, c_float, c_float),
    "dnnl_primitive_desc_query_md": (HANDLE, c_int, c_int),
    "dnnl_primitive_desc_next_impl": (HANDLE,),
    "dnnl_primitive_desc_destroy": (HANDLE,),
    "dnnl_primitive_create": (POINTER(HANDLE), HANDLE),
    "dnnl_primitive_execute": None,    # objects of these very types: it is called all the time
    "dnnl_primitive_destroy": (HANDLE,),
    "dnnl_reorder_primitive_desc_create": (POINTER(HANDLE), *(HANDLE,) * 5),
    "dnnl_sgemm": (c_char, c_char, *(c_int64,) * 3, c_float, HANDLE, c_int64, HANDLE, c_int64,
                   c_float, HANDLE, c_int64),
}  # fmt: skip
#: The same for dnnl_<kind>_primitive_desc_create, between the engine and the attributes.
_DESCRIPTIONS = {
    "convolution_forward": (c_int, c_int, *(HANDLE,) * 4, *_GEOMETRY),
    "convolution_backward_data": (c_int, *(HANDLE,) * 3, *_GEOMETRY, HANDLE),
    "convolution_backward_weights": (c_int, *(HANDLE,) * 4, *_GEOMETRY, HANDLE),
    "pooling_forward": (c_int, c_int, *(HANDLE,) * 2, DIMS, *_GEOMETRY),
    "pooling_backward": (c_int, *(HANDLE,) * 2, DIMS, *_GEOMETRY, HANDLE),
    "eltwise_forward": (c_int, c_int, *(HANDLE,) * 2, c_float, c_float),
    "eltwise_backward": (c_int, *(HANDLE,) * 3, c_float, c_float, HANDLE),
    "batch_normalization_forward": (c_int, *(HANDLE,) * 2, c_float, c_uint),
    "batch_normalization_backward": (c_int, *(HANDLE,) * 3, c_float, c_uint, HANDLE),
    "lrn_forward": (c_int, c_int, *(HANDLE,) * 2, c_int64, *(c_float,) * 3),
    "lrn_backward": (c_int, *(HANDLE,) * 3, c_int64, *(c_float,) * 3, HANDLE),
    "binary": (c_int, *(HANDLE,) * 3),
    "matmul": (HANDLE,) * 4,
    "inner_product_forward": (c_int, *(HANDLE,) * 4),
    "inner_product_backward_data": (HANDLE,) * 4,
    "inner_product_backward_weights": (HANDLE,) * 5,
}
_RESULTS = {"dnnl_memory_desc_get_size": ctypes.c_size_t, "dnnl_memory_desc_equal": c_int,
            "dnnl_primitive_desc_query_md": HANDLE, "dnnl_version": POINTER(_Version)}  # fmt: skip


class Unsupported(Exception):
    """oneDNN does not offer an operation for this shape, type or processor."""


def checked(status, function, arguments):
    """Raise unless oneDNN reports success (errcheck of ctypes)."""
    if status:
        reason = STATUS[status] if status < len(STATUS) else f"status {status}"
        raise Unsupported(f"{function.__name__}: {reason}")
    return status


@functools.cache
def path():
    """Return the library's path, or None: `VARIABLE`, then the distribution, then ``lib``."""
    if not sys.platform.startswith("linux"):
        return None
    return next((place for place in _places() if os.path.isfile(place)), None)


def _places():
    named = os.environ.get(VARIABLE)
    if named is not None:  # nothing else: an empty value switches oneDNN off
        yield from (named, os.path.join(named, NAME), os.path.join(named, "lib", NAME))
        return
    yield from (str(file.locate()) for file in _distribution_files() if file.name == NAME)
    # pip --target forgets such files, other installers forget to list them.
    yield os.path.join(sysconfig.get_path("data"), "lib", NAME)
    yield from (str(pathlib.Path(folder).parent.parent / NAME) for folder in sys.path)


def _distribution_files():
    try:
        return importlib.metadata.files(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return []


@functools.cache
def load():
    """Load the library with its functions declared.

    Returns
    -------
    ctypes.CDLL

    Raises
    ------
    OSError
        If it is not there, or cannot be loaded on this machine.
    """
    if path() is None:
        raise OSError(f"{NAME} was not found; pip install {DISTRIBUTION}, or set {VARIABLE}")
    library = ctypes.CDLL(path())
    for name, types in _DECLARATIONS.items():
        _declare(library, name, types)
    for kind, types in _DESCRIPTIONS.items():
        _declare(library, f"dnnl_{kind}_primitive_desc_create",
                 (POINTER(HANDLE), HANDLE, *types, HANDLE))
    return library


def _declare(library, name, types):
    function = getattr(library, name)
    function.argtypes = types
    if name in _RESULTS:
        function.restype = _RESULTS[name]
    else:
        function.errcheck = checked


def version():
    """Return the library's name and version."""
    numbers = load().dnnl_version().contents
    return f"oneDNN {numbers.major}.{numbers.minor}.{numbers.patch}"
