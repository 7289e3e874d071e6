"""oneDNN under Chainer's functions on the processor.

Chainer asks ``ideep4py`` for fast convolutions where ``chainer.config.use_ideep`` is ``'auto'`` or
``'always'``; that package ended with Python 3.8. Here oneDNN stands in for it, called through its
C interface: ``pip install rechainer[onednn]`` (Linux, x86-64), then ``CHAINER_USE_IDEEP=auto`` in
the environment or ``chainer.config.use_ideep = 'auto'``. Without it everything stays as it was.

Activations remain NumPy's arrays of shape (N, C, H, W) whose channels lie side by side in memory,
an order that NumPy's functions keep. float32 maps go to oneDNN, everything else to NumPy.

==================  ==============================================================
``_library``        the C library: where it is, its functions
``_primitives``     its objects, and a cache of them
``_arrays``         the order of arrays in memory
``_products``       weight gradients by NumPy's BLAS, in oneDNN's threads
``_winograd``       convolutions of 3 x 3 windows with fewer multiplications
``_operations``     the operations, on arrays
``_ideep4py``       ideep4py's names for them
``_chainer``        Chainer's methods that need more than that
``_programs``       whole networks for inference, which `convnets.optimize` builds
``_split``          parts of a batch, each with a thread of its own
``_steps``          whole steps of training, which `convnets.recorded` builds
==================  ==============================================================

The library is looked for where pip puts it, and at the environment variable ``RECHAINER_ONEDNN``
(a file, or its folder; empty: nowhere).
"""

from rechainer.onednn import _library
from rechainer.onednn._chainer import SEAMS, is_usable, wanted
from rechainer.onednn._library import Unsupported
from rechainer.onednn._memory import free_memory
from rechainer.onednn._primitives import kept_for
from rechainer.onednn._products import Alone, threads
from rechainer.onednn._programs import Program, Value, Weights
from rechainer.onednn._steps import Given, TrainingProgram

__all__ = ["SEAMS", "Alone", "Given", "Program", "TrainingProgram", "Unsupported", "Value",
           "Weights", "free_memory", "is_usable", "kept_for", "status", "threads", "wanted"]


def status():
    """Say in one line what is active."""
    if _library.path() is None:
        return f"not installed (pip install {_library.DISTRIBUTION})"
    if not is_usable():
        return "installed, not used: it does not load here, or ideep4py is there"
    return f"{_library.version()}, where chainer.config.use_ideep is 'auto' or 'always'"
