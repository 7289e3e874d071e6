"""Make stock Chainer 7.8.1 work on today's Python and NumPy: ``import rechainer`` first."""

from rechainer import _caffe, _hooks, _numpy_names, _removed_modules
from rechainer._numpy_names import cover

__all__ = ["cover"]

SEAMS = {**_removed_modules.SEAMS, **_caffe.SEAMS}

_numpy_names.install()
_hooks.install(SEAMS)
_hooks.apply_to_imported(SEAMS)
