"""pkg_resources and numpy.distutils: lent to Chainer, unseen by others."""

import sys
import warnings

from rechainer import _removed_modules as removed

import pytest


def test_chainer_imports_where_they_are_gone(python):
    python("""
        import sys
        sys.modules["pkg_resources"] = sys.modules["numpy.distutils"] = None
        import rechainer, chainer, chainer.testing
        assert sys.modules["pkg_resources"] is sys.modules["numpy.distutils"] is None
        assert "numpy.distutils.system_info" not in sys.modules
    """)


def test_others_do_not_see_them(python):
    python("""
        import sys
        import rechainer, chainer, chainer.testing
        assert not [name for name in rechainer._removed_modules.STAND_INS if name in sys.modules]
    """)


def test_lent_modules_return_even_after_an_error():
    before = sys.modules["json"] = __import__("json")
    with pytest.raises(KeyError), removed.lent({"json": None, "no_such": sys}):
        assert sys.modules["json"] is None
        raise KeyError
    assert sys.modules["json"] is before
    assert "no_such" not in sys.modules


def test_require_reads_installed_versions():
    (found,) = removed.require("numpy>=1.26,<100")
    assert found.version == removed.get_distribution("numpy").version
    assert removed.WorkingSet().require("numpy") != []


def test_require_tells_wrong_version_from_missing():
    with pytest.raises(removed.VersionConflict, match=r"needs numpy<1\.14, found"):
        removed.require("numpy<1.14")
    with pytest.raises(removed.DistributionNotFound, match="no-such-thing"):
        removed.require("no-such-thing>=1")


def test_chainers_test_helpers_skip_by_version(python):
    # apart, because importing chainer.testing uses marks that a strict pytest refuses
    python("""
        import rechainer
        from chainer import testing
        skips = lambda decorate: hasattr(decorate(type("Test", (), {})), "__unittest_skip__")
        assert skips(testing.with_requires("numpy<1.14"))
        assert not skips(testing.with_requires("numpy>=1.14"))
        assert skips(testing.with_requires("no-such-thing"))
        assert skips(testing.without_requires("numpy>=1.14"))
    """)


def test_environment_check_passes_on_macos(monkeypatch):
    from chainer import _environment_check

    monkeypatch.setattr(sys, "platform", "darwin")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _environment_check._check_osx_numpy_backend()
