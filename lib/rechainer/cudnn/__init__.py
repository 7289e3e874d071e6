"""cuDNN 9 under Chainer's functions on the GPU.

Chainer reaches cuDNN through ``cupy.cudnn`` and ``cupy.cuda.cudnn``, which CuPy 14 does not have.
Here modules of that surface stand in for them: ``pip install rechainer[gpu]`` (Linux), and Chainer
finds cuDNN enabled. What Chainer documents keeps its meaning: ``use_cudnn``, ``autotune``,
``cudnn_deterministic``, ``use_cudnn_tensor_core``, ``cudnn_fast_batch_normalization``,
``compute_mode='cudnn_fast'``, ``chainer.cuda.set_max_workspace_size``, ``CHAINER_CUDNN=0``.

==================  ==============================================================
``_library``        the C library: where it is, its functions
``_constants``      its constants, by the names of ``cupy.cuda.cudnn``
``_descriptors``    its descriptors of arrays and operations, and a cache of them
``_graphs``         convolutions as graphs of ``nvidia-cudnn-frontend``; plans
``_surface``        the functions of ``cupy.cudnn``
``_fusion``         batch normalization, a sum and ReLU by one function; test mode in NHWC
==================  ==============================================================

Convolutions are graphs, because only those reach all of cuDNN's kernels for Hopper. Batch
normalization, pooling, activations, softmax and dropout are the functions Chainer was written for,
which cuDNN 9 still has. Recurrent networks and the spatial transformer, whose functions are gone
or unused in this project, go Chainer's way without cuDNN.

The library is looked for where pip puts it, and at the environment variable ``RECHAINER_CUDNN``
(a file, or its folder; empty: nowhere).
"""

import importlib.util
import types

from rechainer._hooks import Beside
from rechainer.cudnn import _library
from rechainer.cudnn._library import Failure

#: Modules of Chainer that keep away from cuDNN: their part of it is not offered here.
WITHOUT = (
    "chainer.functions.array.spatial_transformer_grid",
    "chainer.functions.array.spatial_transformer_sampler",
    "chainer.functions.rnn.n_step_gru",
    "chainer.functions.rnn.n_step_lstm",
    "chainer.functions.rnn.n_step_rnn",
)


def is_usable():
    """Tell whether the library is there and loads, and its Python frontend is installed."""
    if _library.path() is None or not has_frontend():
        return False
    try:
        _library.load()
    except OSError:
        return False
    return True


def has_frontend():
    """Tell whether the distribution ``nvidia-cudnn-frontend`` is installed."""
    return importlib.util.find_spec(_library.FRONTEND_MODULE) is not None


def modules():
    """Return what stands in for CuPy's modules: a dict of ``cupy.cudnn``, ``cupy.cuda.cudnn``."""
    from rechainer.cudnn import _constants, _surface

    libcudnn = types.ModuleType("cupy.cuda.cudnn", _constants.__doc__)
    vars(libcudnn).update(_constants.VALUES, getVersion=_library.version_number)
    return {"cupy.cudnn": _surface, "cupy.cuda.cudnn": libcudnn}


def keep_away(module, execute):
    """Seam: a module of Chainer for which ``should_use_cudnn`` answers no."""
    execute()
    if module.__name__ in WITHOUT and stands_in(module.cuda):
        module.chainer = Beside(module.chainer, should_use_cudnn=lambda *level: False)


def stands_in(cuda):
    """Tell whether ``chainer.backends.cuda``, given, has this cuDNN."""
    return isinstance(getattr(cuda, "cuda", None), Beside)


def fuse(module, execute):
    """Seam: Chainer's functions, of which some wait for one another where this cuDNN is used."""
    execute()
    from chainer.backends import cuda

    if stands_in(cuda):
        from rechainer.cudnn import _fusion

        _fusion.install()


SEAMS = dict.fromkeys(WITHOUT, keep_away) | {"chainer.functions": fuse}


__all__ = ["SEAMS", "Failure", "has_frontend", "is_usable", "modules", "stands_in", "status"]


def status():
    """Say in one line what is active."""
    if _library.path() is None:
        return f"not installed (pip install {_library.DISTRIBUTION} {_library.FRONTEND})"
    if not has_frontend():
        return f"not used: the Python frontend is missing (pip install {_library.FRONTEND})"
    return f"{_library.path()}, where CuPy has no cuDNN of its own"
