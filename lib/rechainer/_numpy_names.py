"""The names that NumPy removed since 1.24, given to old code only.

NumPy's module-level ``__getattr__`` is asked for a name that ``numpy`` does not have. Here it is
replaced by one that looks at who asks: Chainer's modules, and code given to `cover`, get the old
name; everybody else gets NumPy's own answer, an ``AttributeError``, as before.

So ``numpy`` gains no name: ``hasattr(numpy, 'float')`` stays False in other code, and
``xp is numpy`` stays true in Chainer, which a stand-in for the module would break. A name that
NumPy has is never asked for here and never changed: ``numpy.bool`` of NumPy 2 stays
``numpy.bool_``. Looking up such a name costs nothing more than before.
"""

import functools
import os
import sys
import warnings

import numpy

#: Top-level packages that are old code wherever they lie.
PACKAGES = {"chainer", "chainermn", "chainerx"}

#: Files and directories given to `cover`, as real paths.
_covered = set()


def _sctypes():
    def present(*names):
        return [getattr(numpy, name) for name in names if hasattr(numpy, name)]

    return {
        "int": present("int8", "int16", "int32", "int64"),
        "uint": present("uint8", "uint16", "uint32", "uint64"),
        "float": present("float16", "float32", "float64", "longdouble"),
        "complex": present("complex64", "complex128", "clongdouble"),
        "others": [bool, object, bytes, str, numpy.void],
    }


def _asscalar(a):
    return numpy.asarray(a).item()


def _asfarray(a, dtype=float):
    inexact = numpy.issubdtype(dtype, numpy.inexact)
    return numpy.asarray(a, dtype=dtype if inexact else float)


def _in1d(ar1, ar2, *args, **kwargs):
    return numpy.isin(numpy.ravel(ar1), ar2, *args, **kwargs)


def _standard_math():
    import math

    return math


#: Removed name -> function that returns its value.
REMOVED = {
    # aliases of built-in types, removed in 1.24
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
    "cfloat": lambda: numpy.complex128,
    "longfloat": lambda: numpy.longdouble,
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
    # functions and modules, removed between 1.23 and 2.4
    "asscalar": lambda: _asscalar,
    "asfarray": lambda: _asfarray,
    "mat": lambda: numpy.asmatrix,
    "math": _standard_math,
    "product": lambda: numpy.prod,
    "cumproduct": lambda: numpy.cumprod,
    "alltrue": lambda: numpy.all,
    "sometrue": lambda: numpy.any,
    "round_": lambda: numpy.round,
    "row_stack": lambda: numpy.vstack,
    "in1d": lambda: _in1d,
    "trapz": lambda: numpy.trapezoid,
    # exceptions, moved to numpy.exceptions in 1.25
    "AxisError": lambda: numpy.exceptions.AxisError,
    "ComplexWarning": lambda: numpy.exceptions.ComplexWarning,
    "VisibleDeprecationWarning": lambda: numpy.exceptions.VisibleDeprecationWarning,
}


def missing():
    """Return the sorted names of `REMOVED` that the installed NumPy does not have."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy warns of some names before it denies them
        return sorted(name for name in REMOVED if not hasattr(numpy, name))


def cover(path):
    """Give the removed NumPy names to the old code in a file or below a directory.

    Parameters
    ----------
    path : str or os.PathLike
        A Python file, or a directory: every module below it is covered, except packages
        installed there (``site-packages``).

    Raises
    ------
    FileNotFoundError
        If there is no such file or directory.
    """
    if not os.path.exists(path):
        raise FileNotFoundError(f"no file or directory to cover: {os.fspath(path)!r}")
    _covered.add(os.path.realpath(path))
    _is_covered.cache_clear()


@functools.cache
def _is_covered(file):
    file = os.path.realpath(file)
    return any(_lies_in(file, place) for place in _covered)


def _lies_in(file, place):
    if file == place:
        return True
    below = os.path.join(place, "")
    installed = {"site-packages", "dist-packages"}
    return file.startswith(below) and not installed & set(file[len(below) :].split(os.sep))


def _is_old_code(module_globals):
    package = (module_globals.get("__name__") or "").partition(".")[0]
    file = module_globals.get("__file__")
    return package in PACKAGES or bool(file and _covered and _is_covered(file))


def _asking(ordinary):
    def __getattr__(name):
        if name in REMOVED and _is_old_code(sys._getframe(1).f_globals):
            return REMOVED[name]()
        return ordinary(name)

    __getattr__.ordinary = ordinary
    return __getattr__


def install():
    """Replace ``numpy.__getattr__``; doing it again changes nothing more."""
    present = numpy.__getattr__
    numpy.__getattr__ = _asking(getattr(present, "ordinary", present))


def status():
    """Say in one line what is active."""
    covered = ", ".join(sorted(map(os.path.basename, _covered)))
    to = "Chainer" + (f" and {covered}" if covered else "")
    return f"{len(missing())} of {len(REMOVED)} names missing here, given to {to} only"
