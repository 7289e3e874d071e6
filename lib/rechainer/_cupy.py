"""CuPy: not imported where it cannot work, its moved names found where it can.

Chainer imports CuPy wherever it is installed. Without an NVIDIA or AMD driver that import takes
seconds, may print a page about NCCL, and ends in ``chainer.backends.cuda.available == False``;
here it ends there at once. Looking for the driver's library starts no driver: programs that
fork before they use a GPU still can.
"""

import ctypes
import importlib.util
import sys
import types
import warnings

from rechainer._removed_modules import lent

#: Libraries of the graphics drivers CuPy runs on.
DRIVERS = ("libcuda.so.1", "nvcuda.dll", "libamdhip64.so")

_NO_DRIVER = (
    f"CuPy was not imported: this machine has no graphics driver for it ({', '.join(DRIVERS)})."
)


def has_driver():
    """Tell whether a driver that CuPy can use is installed."""
    return any(map(_loads, DRIVERS))


def _loads(library):
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _is_installed():
    return "cupy" in sys.modules or importlib.util.find_spec("cupy") is not None


class _OldUtil(types.ModuleType):
    """``cupy.util``, removed in CuPy 10: Chainer wants ``PerformanceWarning`` from it."""

    def __getattr__(self, name):
        if name != "PerformanceWarning":
            raise AttributeError(f"module 'cupy.util' has no attribute {name!r}")
        from cupy.exceptions import PerformanceWarning

        return PerformanceWarning


def import_cuda(module, execute):
    """Seam: execute ``chainer.backends.cuda`` with CuPy hidden, or with its old names."""
    if not _is_installed():
        execute()
    elif "cupy" not in sys.modules and not has_driver():
        with lent({"cupy": None}):  # None: the import system raises ModuleNotFoundError
            execute()
        module._resolution_error = ImportError(_NO_DRIVER)
    else:
        with lent({"cupy.util": _OldUtil("cupy.util")}), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="(?s).*nccl", category=UserWarning)
            execute()


SEAMS = {"chainer.backends.cuda": import_cuda}


def status():
    """Say in one line what is active."""
    if not _is_installed():
        return "not installed"
    if "cupy" not in sys.modules and not has_driver():
        return "installed, not imported: no graphics driver"
    return "installed; cupy.util.PerformanceWarning found in cupy.exceptions"
