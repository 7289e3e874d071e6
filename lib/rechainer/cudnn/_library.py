"""cuDNN's C library: found, loaded, its functions declared.

cuDNN 9, https://docs.nvidia.com/deeplearning/cudnn/backend/latest/ ; the declarations are those of
``cudnn_ops.h`` and ``cudnn_graph.h``.
"""

import ctypes
import functools
import glob
import os
import sys
import threading
from ctypes import byref, c_double, c_float, c_int, c_size_t, c_ulonglong, c_void_p

#: Environment variable: the library itself, or the folder it lies in.
VARIABLE = "RECHAINER_CUDNN"
#: The distributions that bring the library, and its Python frontend with that module.
DISTRIBUTION = "nvidia-cudnn-cu13"
FRONTEND = "nvidia-cudnn-frontend"
FRONTEND_MODULE = "cudnn"
NAME = "libcudnn.so.9"
#: Where system packages put it.
FOLDERS = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/local/cuda/lib64")
#: CUDA's libraries that cuDNN loads by name when a kernel needs them.
NEEDED = ("libcublasLt.so.*", "libcublas.so.*", "libnvrtc.so.*")

HANDLE = DESCRIPTOR = DATA = SCALAR = RESULT = c_void_p
_ARRAY = (DESCRIPTOR, DATA)
_SIZE = c_void_p  # size_t *

#: Function -> types of its arguments. All return cudnnStatus_t.
DECLARATIONS = {
    "cudnnCreate": (RESULT,),
    "cudnnSetStream": (HANDLE, c_void_p),
    "cudnnCreateTensorDescriptor": (RESULT,),
    "cudnnSetTensorNdDescriptor": (DESCRIPTOR, c_int, c_int, c_void_p, c_void_p),
    "cudnnCreateActivationDescriptor": (RESULT,),
    "cudnnSetActivationDescriptor": (DESCRIPTOR, c_int, c_int, c_double),
    "cudnnActivationForward": (HANDLE, DESCRIPTOR, SCALAR, *_ARRAY, SCALAR, *_ARRAY),
    "cudnnActivationBackward": (HANDLE, DESCRIPTOR, SCALAR, *_ARRAY * 3, SCALAR, *_ARRAY),
    "cudnnCreatePoolingDescriptor": (RESULT,),
    "cudnnSetPoolingNdDescriptor": (DESCRIPTOR, c_int, c_int, c_int, *(c_void_p,) * 3),
    "cudnnPoolingForward": (HANDLE, DESCRIPTOR, SCALAR, *_ARRAY, SCALAR, *_ARRAY),
    "cudnnPoolingBackward": (HANDLE, DESCRIPTOR, SCALAR, *_ARRAY * 3, SCALAR, *_ARRAY),
    "cudnnSoftmaxForward": (HANDLE, c_int, c_int, SCALAR, *_ARRAY, SCALAR, *_ARRAY),
    "cudnnSoftmaxBackward": (HANDLE, c_int, c_int, SCALAR, *_ARRAY * 2, SCALAR, *_ARRAY),
    "cudnnBatchNormalizationForwardInference": (
        HANDLE, c_int, SCALAR, SCALAR, *_ARRAY * 2, DESCRIPTOR, *(DATA,) * 4, c_double),
    "cudnnBatchNormalizationForwardTrainingEx": (
        HANDLE, c_int, c_int, SCALAR, SCALAR, *_ARRAY * 3, DESCRIPTOR, *(DATA,) * 2, c_double,
        *(DATA,) * 2, c_double, *(DATA,) * 2, DESCRIPTOR, DATA, c_size_t, DATA, c_size_t),
    "cudnnBatchNormalizationBackwardEx": (
        HANDLE, c_int, c_int, *(SCALAR,) * 4, *_ARRAY * 5, DESCRIPTOR, *(DATA,) * 4, c_double,
        *(DATA,) * 2, DESCRIPTOR, DATA, c_size_t, DATA, c_size_t),
    "cudnnGetBatchNormalizationForwardTrainingExWorkspaceSize": (
        HANDLE, c_int, c_int, *(DESCRIPTOR,) * 5, _SIZE),
    "cudnnGetBatchNormalizationTrainingExReserveSpaceSize": (
        HANDLE, c_int, c_int, *(DESCRIPTOR,) * 2, _SIZE),
    "cudnnGetBatchNormalizationBackwardExWorkspaceSize": (
        HANDLE, c_int, c_int, *(DESCRIPTOR,) * 7, _SIZE),
    "cudnnCreateDropoutDescriptor": (RESULT,),
    "cudnnSetDropoutDescriptor": (DESCRIPTOR, HANDLE, c_float, DATA, c_size_t, c_ulonglong),
    "cudnnDropoutGetStatesSize": (HANDLE, _SIZE),
    "cudnnDropoutGetReserveSpaceSize": (DESCRIPTOR, _SIZE),
    "cudnnDropoutForward": (HANDLE, DESCRIPTOR, *_ARRAY * 2, DATA, c_size_t),
    "cudnnDropoutBackward": (HANDLE, DESCRIPTOR, *_ARRAY * 2, DATA, c_size_t),
}  # fmt: skip


class Failure(RuntimeError):
    """cuDNN reports an error, or offers nothing for what is asked."""


@functools.cache
def path():
    """Return the library's path, or None: `VARIABLE`, then pip's places, then the system's."""
    if not sys.platform.startswith("linux"):
        return None
    return next((place for place in _places() if os.path.isfile(place)), None)


def _places():
    named = os.environ.get(VARIABLE)
    if named is not None:  # nothing else: an empty value switches cuDNN off
        yield from (named, os.path.join(named, NAME), os.path.join(named, "lib", NAME))
        return
    yield from (os.path.join(folder, "nvidia/cudnn/lib", NAME) for folder in sys.path)
    folders = os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    yield from (os.path.join(folder, NAME) for folder in (*folders, *FOLDERS))


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
    _load_needed()
    library = ctypes.CDLL(path())
    library.cudnnGetVersion.restype = c_size_t
    library.cudnnGetErrorString.restype = ctypes.c_char_p
    for name, types in DECLARATIONS.items():
        function = getattr(library, name)
        function.argtypes, function.errcheck = types, checked
    return library


def _load_needed():
    # cuDNN looks for them by name only, and ends the program where it does not find one; pip
    # installs them where the system does not look.
    for folder in sys.path:
        for pattern in NEEDED:
            for file in glob.glob(os.path.join(folder, "nvidia", "*", "lib", pattern)):
                _load_first(os.path.basename(file), file)


def _load_first(*names):
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def checked(status, function, arguments):
    """Raise `Failure` unless cuDNN reports success (errcheck of ctypes)."""
    if status:
        library = load()
        text = ctypes.create_string_buffer(1024)
        library.cudnnGetLastErrorString(text, c_size_t(len(text)))
        reason = library.cudnnGetErrorString(status).decode()
        raise Failure(f"{function.__name__}: {reason}; {text.value.decode(errors='replace')}")
    return status


def version_number():
    """Return cuDNN's version as its ``cudnnGetVersion`` does: 91400 is 9.14.0."""
    return load().cudnnGetVersion()


@functools.cache
def frontend():
    """Import ``nvidia-cudnn-frontend``, and have it call the same library as this package."""
    import cudnn

    cudnn._pybind_module._set_dlhandle_cudnn(load()._handle)
    return cudnn


class _Handles(threading.local):
    """The handles of a thread, one a device, each with the stream it was last set to."""

    def __init__(self):
        self.made = {}


_handles = _Handles()


def handle(device, stream):
    """Return this thread's cuDNN handle of a device, set to a CUDA stream.

    Parameters
    ----------
    device : int
        The current device.
    stream : int
        The stream's address.
    """
    if device not in _handles.made:
        made = c_void_p()
        load().cudnnCreate(byref(made))
        _handles.made[device] = [made.value, None]
    entry = _handles.made[device]
    if entry[1] != stream:
        load().cudnnSetStream(entry[0], stream)
        entry[1] = stream
    return entry[0]
