"""Run code around the import of one module, without touching its file.

A *seam* is a function ``seam(module, execute)``, called when ``module`` is about to be executed.
It prepares what is missing, calls ``execute()`` and mends what it finds; or it builds the module's
contents itself and never calls ``execute``.
"""

import functools
import sys
import types


class Beside(types.ModuleType):
    """Another module with further names, for one module of Chainer to see.

    Parameters
    ----------
    module : module
        It answers what is asked for; it is not changed.
    **names
        What is found first.
    """

    def __init__(self, module, **names):
        super().__init__(module.__name__, module.__doc__)
        vars(self).update(names, _module=module)

    def __getattr__(self, name):
        return getattr(self._module, name)


def replace_method(cls, name, make):
    """Put what ``make`` makes of a method in its place, under the method's own name."""
    ordinary = vars(cls)[name]
    setattr(cls, name, functools.wraps(ordinary)(make(ordinary)))


def replace_methods(module, replacements):
    """Replace methods of a module's classes: {class: {method: function that makes the new one}}."""
    for name, methods in replacements.items():
        for method, make in methods.items():
            replace_method(getattr(module, name), method, make)


class SeamFinder:
    """Meta path finder that has other finders locate a module and then wraps its execution.

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
            spec.loader = SeamLoader(spec.loader, self.seams[name])
        return spec

    def _ordinary_spec(self, name, path, target):
        finders = (f for f in sys.meta_path if f is not self and hasattr(f, "find_spec"))
        specs = (finder.find_spec(name, path, target) for finder in finders)
        return next((spec for spec in specs if spec is not None), None)


class SeamLoader:
    """Loader that hands the execution of a module to a seam; else it is the ordinary loader."""

    def __init__(self, ordinary, seam):
        self.ordinary = ordinary
        self.seam = seam

    def __getattr__(self, name):  # get_source, is_package, get_resource_reader ...
        return getattr(self.ordinary, name)

    def exec_module(self, module):
        """Let the seam execute ``module``; afterwards the module knows its ordinary loader."""
        module.__loader__ = module.__spec__.loader = self.ordinary
        self.seam(module, lambda: self.ordinary.exec_module(module))


def install(seams):
    """Put one `SeamFinder` first on ``sys.meta_path``, in place of any earlier one."""
    others = [f for f in sys.meta_path if type(f).__name__ != SeamFinder.__name__]
    sys.meta_path[:] = [SeamFinder(seams), *others]
