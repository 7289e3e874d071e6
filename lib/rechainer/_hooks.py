"""Run code around the import of one module, without touching its file.

A *seam* is a function ``seam(module, execute)``. It is called when ``module`` is about to be
executed; it prepares what is missing, calls ``execute()`` and mends what it finds, or builds the
module's contents itself and never calls ``execute``.
"""

import sys


class SeamFinder:
    """Meta path finder that lets other finders locate a module and then wraps its execution.

    Parameters
    ----------
    seams : dict of str to callable
        Full module name to ``seam(module, execute)``.
    """

    def __init__(self, seams):
        self.seams = seams

    def find_spec(self, name, path=None, target=None):
        """Return the ordinary spec of a listed module, its loader wrapped; None for all others."""
        if name not in self.seams:
            return None
        spec = self._ordinary_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            _wrap(spec.loader, self.seams[name])
        return spec

    def _ordinary_spec(self, name, path, target):
        finders = (f for f in sys.meta_path if f is not self and hasattr(f, "find_spec"))
        specs = (finder.find_spec(name, path, target) for finder in finders)
        return next((spec for spec in specs if spec is not None), None)


def _wrap(loader, seam):
    # The loader stays the same object of the same class: tracebacks, inspect and
    # importlib.resources ask it for sources. Only this one execution is replaced.
    ordinary = loader.exec_module

    def exec_module(module):
        del loader.exec_module
        seam(module, lambda: ordinary(module))

    loader.exec_module = exec_module


def install(seams):
    """Put a `SeamFinder` first on ``sys.meta_path``; one that is already there is replaced."""
    sys.meta_path[:] = [f for f in sys.meta_path if type(f).__name__ != SeamFinder.__name__]
    sys.meta_path.insert(0, SeamFinder(seams))


def apply_to_imported(seams):
    """Mend listed modules that were imported before the finder was installed."""
    for name, seam in seams.items():
        if name in sys.modules:
            seam(sys.modules[name], lambda: None)
