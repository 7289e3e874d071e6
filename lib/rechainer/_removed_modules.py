"""The standard modules that Chainer imports and that are gone.

``pkg_resources`` left setuptools in version 82, ``numpy.distutils`` left NumPy for Python 3.12.
Small stand-ins are lent to the Chainer modules that import them, for the time of that import:
``sys.modules`` is afterwards as it was, so no other library sees them. They are lent even where
the real modules exist, which are slow to import and warn that they are deprecated.
"""

import contextlib
import importlib.metadata
import sys
import types


class ResolutionError(Exception):
    """Base of the two errors below, as in pkg_resources."""


class DistributionNotFound(ResolutionError):
    """A required distribution is not installed."""


class VersionConflict(ResolutionError):
    """A required distribution is installed in another version."""


def get_distribution(name):
    """Return the installed distribution, which has ``.version``.

    Raises
    ------
    DistributionNotFound
        If it is not installed.
    """
    try:
        return importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        raise DistributionNotFound(name) from None


def require(*requirements):
    """Return the distributions that satisfy requirements such as ``'cupy>=7.7.0,<8.0.0'``.

    Raises
    ------
    DistributionNotFound, VersionConflict
        For the first requirement that is not satisfied.
    """
    return [_satisfying(requirement) for requirement in requirements]


def _satisfying(requirement):
    name = requirement.translate(str.maketrans("<>=!~", "     ")).split()[0].strip()
    distribution = get_distribution(name)
    if name != requirement:
        # Only now: where no version is asked for, packaging need not be installed.
        from packaging.requirements import Requirement

        specifier = Requirement(requirement).specifier
        if not specifier.contains(distribution.version, prereleases=True):
            raise VersionConflict(f"needs {requirement}, found {distribution.version}")
    return distribution


class WorkingSet:
    """The installed distributions; ``require`` is all that Chainer asks of them."""

    def require(self, *requirements):
        """See the function `require`."""
        return require(*requirements)


def get_info(name):
    """Answer ``{}``, as ``numpy.distutils.system_info.get_info`` does for what it does not know.

    Chainer asks on macOS only, to warn of the Accelerate framework. What was wrong with that was
    repaired long before NumPy's wheels began to use it again.
    """
    return {}


def _module(name, *members, **attributes):
    module = types.ModuleType(name)
    vars(module).update({member.__name__: member for member in members}, **attributes)
    return module


_SYSTEM_INFO = _module("numpy.distutils.system_info", get_info)
_DISTUTILS = _module("numpy.distutils", system_info=_SYSTEM_INFO)
_PKG_RESOURCES = _module(
    "pkg_resources",
    ResolutionError,
    DistributionNotFound,
    VersionConflict,
    WorkingSet,
    get_distribution,
    require,
)
STAND_INS = {m.__name__: m for m in (_PKG_RESOURCES, _DISTUTILS, _SYSTEM_INFO)}


@contextlib.contextmanager
def lent(modules):
    """Have ``modules`` (a dict by name) in ``sys.modules`` inside the block only."""
    before = {name: sys.modules[name] for name in modules if name in sys.modules}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in modules:
            sys.modules.pop(name, None)
        sys.modules.update(before)


def lend(module, execute):
    """Seam: execute a module of Chainer that imports removed modules."""
    with lent(STAND_INS):
        execute()


def lend_to_check(module, execute):
    """Seam: the same for the environment check, which reads ``numpy.distutils`` later too."""
    lend(module, execute)
    module.numpy = _module("numpy", distutils=_DISTUTILS)


SEAMS = {
    "chainer._environment_check": lend_to_check,
    "chainer.testing.helper": lend,
    "chainer.testing.doctest_helper": lend,
}


def status():
    """Say in one line what is active."""
    return f"stand-ins for {', '.join(sorted(STAND_INS))}, lent to Chainer only"
