"""The names that NumPy removed since 1.24, for old code only.

NumPy asks its module-level ``__getattr__`` for a name it does not have. That function is replaced
by one that looks at who asks: Chainer's modules (and code given to `cover`) get the old name,
everybody else gets NumPy's own answer, an ``AttributeError`` as before. So ``numpy`` gains no
name, ``hasattr(numpy, 'float')`` in other code stays False, ``xp is numpy`` stays true in Chainer,
and a name that NumPy has is never asked for here and never changed: ``numpy.bool`` of NumPy 2 stays
``numpy.bool_``. A name NumPy has costs nothing more than before.
"""

import os
import sys

import numpy

#: Top-level packages that are old code wherever they lie.
PACKAGES = {"chainer", "chainermn", "chainerx", "onnx_chainer"}

#: Files and directories given to `cover`, as real paths.
_covered = set()


def _sctypes():
    def types(names):
        return [getattr(numpy, n) for n in names.split() if hasattr(numpy, n)]

    return {
        "int": types("int8 int16 int32 int64"),
        "uint": types("uint8 uint16 uint32 uint64"),
        "float": types("float16 float32 float64 longdouble"),
        "complex": types("complex64 complex128 clongdouble"),
        "others": [bool, object, bytes, str, numpy.void],
    }


def _asscalar(a):
    return numpy.asarray(a).item()


#: Removed name -> function that makes its value; made when first asked for.
REMOVED = {
    # aliases of builtins, removed in 1.24
    "bool": lambda: bool,
    "int": lambda: int,
    "float": lambda: float,
    "complex": lambda: complex,
    "object": lambda: object,
    "str": lambda: str,
    "long": lambda: int,
    "unicode": lambda: str,
    # scalar types and constants, removed in 2.0
    "float_": lambda: numpy.float64,
    "complex_": lambda: numpy.complex128,
    "unicode_": lambda: numpy.str_,
    "string_": lambda: numpy.bytes_,
    "Inf": lambda: numpy.inf,
    "Infinity": lambda: numpy.inf,
    "infty": lambda: numpy.inf,
    "PINF": lambda: numpy.inf,
    "NINF": lambda: -numpy.inf,
    "NaN": lambda: numpy.nan,
    "NAN": lambda: numpy.nan,
    "PZERO": lambda: 0.0,
    "NZERO": lambda: -0.0,
    "sctypes": _sctypes,
    # functions, removed in 1.23 to 2.x
    "asscalar": lambda: _asscalar,
    "product": lambda: numpy.prod,
    "cumproduct": lambda: numpy.cumprod,
    "alltrue": lambda: numpy.all,
    "sometrue": lambda: numpy.any,
    "round_": lambda: numpy.round,
    "row_stack": lambda: numpy.vstack,
    "in1d": lambda: lambda ar1, ar2, *args, **kwargs: numpy.isin(
        numpy.ravel(ar1), ar2, *args, **kwargs
    ),
    "trapz": lambda: numpy.trapezoid,
    # exceptions, moved to numpy.exceptions
    "AxisError": lambda: numpy.exceptions.AxisError,
    "ComplexWarning": lambda: numpy.exceptions.ComplexWarning,
    "VisibleDeprecationWarning": lambda: numpy.exceptions.VisibleDeprecationWarning,
}


def cover(path):
    """Give the removed NumPy names to old code in a file or below a directory.

    Parameters
    ----------
    path : str or os.PathLike
        A Python file, or a directory: every module below it is covered, except installed
        packages (``site-packages``).
    """
    _covered.add(os.path.realpath(path))


def is_old_code(module_globals):
    """Tell whether the module with these globals gets the removed names."""
    name = module_globals.get("__name__") or ""
    if name.partition(".")[0] in PACKAGES:
        return True
    file = module_globals.get("__file__")
    if not file or not _covered:
        return False
    file = os.path.realpath(file)
    return any(_lies_in(file, place) for place in _covered)


def _lies_in(file, place):
    if file == place:
        return True
    if not file.startswith(os.path.join(place, "")):
        return False
    inner = file[len(place) :].split(os.sep)
    return not {"site-packages", "dist-packages"}.intersection(inner)


def _make_getattr(ordinary):
    def __getattr__(name):
        if name in REMOVED and is_old_code(sys._getframe(1).f_globals):
            return REMOVED[name]()
        return ordinary(name)

    __getattr__.ordinary = ordinary
    return __getattr__


def install():
    """Put the asking function on ``numpy``; doing it again changes nothing."""
    present = numpy.__getattr__
    numpy.__getattr__ = _make_getattr(getattr(present, "ordinary", present))
