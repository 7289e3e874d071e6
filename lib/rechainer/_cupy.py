"""CuPy: not imported where it cannot work, its moved and removed names found where it can.

Chainer imports CuPy wherever it is installed. Without an NVIDIA or AMD driver that import takes
seconds, may print a page about NCCL, and ends in ``chainer.backends.cuda.available == False``;
here it ends there at once. Looking for the driver's library starts no driver: programs that
fork before they use a GPU still can.

Of the names of CuPy that Chainer uses, CuPy 13 and 14 have all but ``cupy.util``, and CuPy 14 has
lost ``cupy.cudnn`` and ``cupy.cuda.cudnn``, for which `rechainer.cudnn` stands in.
"""

import contextlib
import ctypes
import importlib.util
import sys
import types
import warnings

from rechainer import cudnn
from rechainer._hooks import Beside
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


def is_installed():
    """Tell whether a CuPy is there, imported or not."""
    return "cupy" in sys.modules or importlib.util.find_spec("cupy") is not None


class _OldUtil(types.ModuleType):
    """``cupy.util``, removed in CuPy 10: Chainer wants ``PerformanceWarning`` from it."""

    def __getattr__(self, name):
        if name != "PerformanceWarning":
            raise AttributeError(f"module 'cupy.util' has no attribute {name!r}")
        from cupy.exceptions import PerformanceWarning

        return PerformanceWarning


def _is_useless():
    return "cupy" not in sys.modules and is_installed() and not has_driver()


@contextlib.contextmanager
def _quiet():
    with warnings.catch_warnings():
        # Pages about libraries that are missing, of which Chainer tells where it needs them.
        warnings.filterwarnings("ignore", message="(?is).*(nccl|cudnn library could not)",
                                category=UserWarning)
        yield


def import_cupy(module, execute):
    """Seam: execute a module that imports CuPy: quietly, with its old names, or without it."""
    # None in sys.modules: the import system raises ModuleNotFoundError.
    names = {"cupy": None} if _is_useless() else {"cupy.util": _OldUtil("cupy.util")}
    with lent(names), _quiet():
        execute()


def import_cuda(module, execute):
    """Seam: the same for ``chainer.backends.cuda``, with cuDNN, or the reason why there is none."""
    if _is_useless():
        import_cupy(module, execute)
        module._resolution_error = ImportError(_NO_DRIVER)
    elif is_installed() and _lacks_cudnn() and cudnn.is_usable():
        _import_with_cudnn(module, execute)
    else:
        import_cupy(module, execute)


def _lacks_cudnn():
    """Tell whether CuPy has no cuDNN of its own: since 14, or when its cuDNN 8 is missing."""
    try:
        with _quiet():
            import cupy.cuda.cudnn
            import cupy.cudnn  # noqa: F401
    except ImportError:
        return True
    return False


def _import_with_cudnn(module, execute):
    """Let ``chainer.backends.cuda`` find cuDNN in CuPy while it is imported, and keep it."""
    with _quiet():
        import cupy
        import cupy.cuda

        names = cudnn.modules()
    surface, libcudnn = names.values()
    with lent(names), _attribute(cupy, surface), _attribute(cupy.cuda, libcudnn):
        import_cupy(module, execute)
    module.cuda = Beside(cupy.cuda, cudnn=libcudnn)


@contextlib.contextmanager
def _attribute(module, value):
    """Have ``module.cudnn`` inside the block only."""
    before = vars(module).get("cudnn")
    module.cudnn = value
    try:
        yield
    finally:
        del module.cudnn
        if before is not None:
            module.cudnn = before


def ask_nvtx_quietly(module, execute):
    """Seam: ``CUDAProfileHook`` asks for ``nvtx_enabled``, which warns since CuPy 8."""
    execute()
    ordinary = module.CUDAProfileHook.__init__

    def __init__(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            ordinary(self)

    module.CUDAProfileHook.__init__ = __init__


SEAMS = {
    "chainer.backends.cuda": import_cuda,
    "chainer.function_hooks.cuda_profile": ask_nvtx_quietly,
    "chainer.functions.pooling.unpooling_2d": import_cupy,
    "chainer.training.updaters.multiprocess_parallel_updater": import_cupy,
    "chainermn.communicators._memory_utility": import_cupy,
    "chainermn.nccl": import_cupy,
}


def status():
    """Say in one line what is active."""
    if not is_installed():
        return "not installed"
    if _is_useless():
        return "installed, not imported: no graphics driver"
    return "installed; cupy.util.PerformanceWarning found in cupy.exceptions"
