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


def _is_useless():
    return "cupy" not in sys.modules and _is_installed() and not has_driver()


def import_cupy(module, execute):
    """Seam: execute a module that imports CuPy: quietly, with its old names, or without it."""
    # None in sys.modules: the import system raises ModuleNotFoundError.
    names = {"cupy": None} if _is_useless() else {"cupy.util": _OldUtil("cupy.util")}
    with lent(names), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(?is).*nccl", category=UserWarning)
        execute()


def import_cuda(module, execute):
    """Seam: the same for ``chainer.backends.cuda``, which keeps the reason to tell it later."""
    useless = _is_useless()
    import_cupy(module, execute)
    if useless:
        module._resolution_error = ImportError(_NO_DRIVER)


SEAMS = {
    "chainer.backends.cuda": import_cuda,
    "chainer.functions.pooling.unpooling_2d": import_cupy,
    "chainer.training.updaters.multiprocess_parallel_updater": import_cupy,
    "chainermn.communicators._memory_utility": import_cupy,
    "chainermn.nccl": import_cupy,
}


def status():
    """Say in one line what is active."""
    if not _is_installed():
        return "not installed"
    if _is_useless():
        return "installed, not imported: no graphics driver"
    return "installed; cupy.util.PerformanceWarning found in cupy.exceptions"
