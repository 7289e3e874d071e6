"""Removed NumPy names: which values, and who gets them."""

import importlib
import pickle
import sys

import rechainer
from rechainer import _numpy_names

import numpy
import pytest

MISSING = _numpy_names.missing()


def asked_by(module_name, expression, file=None):
    """Evaluate an expression as if it stood in the module of that name."""
    scope = {"numpy": numpy, "__name__": module_name, "__file__": file}
    return eval(expression, scope)


@pytest.mark.parametrize("name", MISSING)
def test_chainer_gets_every_removed_name(name):
    assert asked_by("chainer.functions.any", f"numpy.{name}") is not None


@pytest.mark.filterwarnings("ignore:In the future `np:FutureWarning")
@pytest.mark.parametrize("name", MISSING)
def test_others_get_numpys_own_error(name):
    assert not hasattr(numpy, name)
    with pytest.raises(AttributeError, match=name):
        asked_by("some_library", f"numpy.{name}")
    with pytest.raises(AttributeError, match=name):
        asked_by("chainercv.links", f"numpy.{name}")


def test_numpy_itself_gains_no_name(python):
    python("""
        import numpy
        before = set(vars(numpy))
        import rechainer, chainer
        import types
        new = {n: v for n, v in vars(numpy).items() if n not in before}
        # submodules that Chainer imports are no names of ours
        assert all(isinstance(v, types.ModuleType) for v in new.values()), new
        assert not set(new) & set(rechainer._numpy_names.REMOVED), new
    """)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("float", float),
        ("object", object),
        ("float_", numpy.float64),
        ("complex_", numpy.complex128),
        ("unicode_", numpy.str_),
        ("string_", numpy.bytes_),
        ("Inf", float("inf")),
        ("NINF", float("-inf")),
        ("product", numpy.prod),
        ("row_stack", numpy.vstack),
        ("AxisError", numpy.exceptions.AxisError),
    ],
)
def test_values_are_those_numpy_documented(name, value):
    assert _numpy_names.REMOVED[name]() == value


def test_functions_calculate():
    make = _numpy_names.REMOVED
    assert make["asscalar"]()(numpy.array([7])) == 7
    assert make["in1d"]()([[1, 2], [3, 4]], [2, 3]).tolist() == [False, True, True, False]
    assert make["asfarray"]()([1, 2], dtype=int).dtype == numpy.float64
    assert make["asfarray"]()([1, 2], dtype="f").dtype == numpy.float32
    assert make["math"]().sqrt(9) == 3
    if "trapz" in MISSING:
        assert make["trapz"]()([1, 2, 3]) == 4


def test_sctypes_list_the_types_by_kind():
    sctypes = _numpy_names.REMOVED["sctypes"]()
    assert {t().itemsize: t for t in sctypes["int"]}[8] is numpy.int64
    assert numpy.float16 in sctypes["float"]
    for kind, code in (("int", "i"), ("uint", "u"), ("float", "f"), ("complex", "c")):
        assert {numpy.dtype(t).kind for t in sctypes[kind]} == {code}


def test_a_name_that_numpy_has_stays_numpys():
    if "bool" in vars(numpy):  # NumPy 2
        assert asked_by("chainer", "numpy.bool") is numpy.bool_
    assert asked_by("chainer", "numpy.float32") is numpy.float32


def test_chainers_numpy_is_numpy():
    import chainer

    assert chainer.backend.get_array_module(numpy.zeros(1)) is numpy
    assert chainer.functions.array.where.numpy is numpy
    assert pickle.loads(pickle.dumps(numpy.float32)) is numpy.float32


def test_cover_gives_names_to_a_file_and_below_a_directory(tmp_path, monkeypatch):
    monkeypatch.setattr(_numpy_names, "_covered", set())
    old, deep, other = tmp_path / "old.py", tmp_path / "pkg" / "deep.py", tmp_path / "other.py"
    installed = tmp_path / "env" / "site-packages" / "lib.py"
    for file in (old, deep, other, installed):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()

    rechainer.cover(old)
    assert asked_by("old", "numpy.float", str(old)) is float
    with pytest.raises(AttributeError):
        asked_by("other", "numpy.float", str(other))

    rechainer.cover(tmp_path)
    assert asked_by("deep", "numpy.float", str(deep)) is float
    assert asked_by("other", "numpy.float", str(other)) is float
    with pytest.raises(AttributeError):
        asked_by("lib", "numpy.float", str(installed))
    _numpy_names._is_covered.cache_clear()


def test_from_import_works_in_covered_code(tmp_path, python):
    (tmp_path / "old.py").write_text("from numpy import float, Inf\nassert float is not None\n")
    python("import rechainer; rechainer.cover('old.py'); import old; assert old.Inf > 1")


def test_cover_of_nothing_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file or directory to cover"):
        rechainer.cover(tmp_path / "missing")


def test_importing_again_changes_nothing_more():
    importlib.reload(rechainer)
    importlib.reload(rechainer)
    assert not hasattr(numpy.__getattr__.ordinary, "ordinary")
    assert sum(type(finder).__name__ == "SeamFinder" for finder in sys.meta_path) == 1
