"""Importing rechainer before, after and without Chainer."""

import base64
import hashlib
import importlib.metadata
import importlib.util
import inspect
import pathlib
import textwrap

import rechainer  # noqa: F401  makes Chainer importable

import numpy
import pytest


def test_no_file_of_chainer_is_changed():
    import chainer  # noqa: F401

    checked = 0
    for file in importlib.metadata.files("chainer"):
        if file.hash and file.suffix == ".py":
            digest = hashlib.new(file.hash.mode, file.locate().read_bytes()).digest()
            assert base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == file.hash.value, file
            checked += 1
    assert checked > 500


def test_after_a_failed_or_early_import_of_chainer(python):
    # On NumPy 2 the first import fails; on NumPy 1.26 and Python 3.11 it works.
    python("""
        try:
            import chainer
        except Exception:
            pass
        import rechainer
        import chainer, numpy
        link = chainer.links.Linear(3, 2)
        assert link(numpy.ones((1, 3), 'f')).shape == (1, 2)
        assert chainer.functions.resize_images(numpy.ones((1, 1, 2, 2), 'f'), (3, 3)).shape[2] == 3
        import chainer.links.caffe
    """)


@pytest.fixture
def without_chainer(tmp_path):
    """Directory with NumPy and rechainer but no Chainer."""
    places = [numpy.__file__, importlib.util.find_spec("rechainer").origin]
    for place in map(pathlib.Path, places):
        for part in place.parent.parent.glob(f"{place.parent.name}*"):
            (tmp_path / part.name).symlink_to(part)
    return tmp_path


def test_missing_chainer_is_one_line_with_the_commands(without_chainer, python):
    code = f"import sys; sys.path.insert(0, {str(without_chainer)!r}); import rechainer"
    last = python(None, "-S", "-c", code, status=1).stderr.strip().splitlines()[-1]
    assert last.startswith("ModuleNotFoundError: Chainer is not installed.")
    assert "pip install 'setuptools<81' wheel" in last
    assert "pip install --no-build-isolation chainer==7.8.1" in last


def test_runner_without_chainer_is_one_line(without_chainer, python):
    lines = python(None, "-S", "-m", "rechainer", "x.py", status=1).stderr.strip().splitlines()
    assert len(lines) == 1
    assert "Chainer is not installed" in lines[0]


def test_mended_modules_keep_their_loader_and_source():
    import chainer.variable

    assert type(chainer.variable.__loader__).__name__ == "SourceFileLoader"
    assert chainer.variable.__spec__.loader is chainer.variable.__loader__
    assert "class Variable" in inspect.getsource(chainer.variable)


def test_a_spec_that_is_only_looked_at_is_complete(python):
    python(
        textwrap.dedent("""
        import importlib.util, rechainer, chainer
        spec = importlib.util.find_spec("chainer.testing.helper")
        assert "pkg_resources" in spec.loader.get_source("chainer.testing.helper")
        import chainer.testing
        """)
    )


def test_import_is_quiet(python):
    done = python(None, "-W", "error", "-c", "import rechainer, chainer, chainer.links.caffe")
    assert done.stdout + done.stderr == ""
