"""The standard modules that Chainer imports and that are gone.

``pkg_resources`` left setuptools in version 82, ``numpy.distutils`` left NumPy for Python 3.12.
Small stand-ins are lent to the Chainer modules that import them, while these are being imported:
``sys.modules`` is afterwards as it was, so no other library sees them.
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
    """Return an object with ``.version``, or raise `DistributionNotFound`."""
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
    from packaging.requirements import Requirement

    found = []
    for requirement in map(Requirement, requirements):
        distribution = get_distribution(requirement.name)
        if not requirement.specifier.contains(distribution.version, prereleases=True):
            raise VersionConflict(f"{requirement}, found {distribution.version}")
        found.append(distribution)
    return found


class WorkingSet:
    """The installed distributions; ``require`` is all that Chainer asks of it."""

    def require(self, *requirements):
        """See the function `require`."""
        return require(*requirements)


def get_info(name):
    """Answer like ``numpy.distutils.system_info.get_info`` for something unknown: ``{}``.

    Chainer asks on macOS only, to warn about the Accelerate framework of 2016.
    """
    return {}


def _module(name, **attributes):
    module = types.ModuleType(name)
    vars(module).update(attributes)
    return module


def _stand_ins():
    here = {k: v for k, v in globals().items() if not k.startswith("_")}
    system_info = _module("numpy.distutils.system_info", get_info=get_info)
    return {
        "pkg_resources": _module("pkg_resources", **here),
        "numpy.distutils": _module("numpy.distutils", system_info=system_info),
        "numpy.distutils.system_info": system_info,
    }


@contextlib.contextmanager
def lent(modules):
    """Have ``modules`` in ``sys.modules`` inside the block only."""
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module


def lend(module, execute):
    """Seam: execute a Chainer module that imports removed modules."""
    with lent(_stand_ins()):
        execute()


SEAMS = {
    "chainer._environment_check": lend,
    "chainer.testing.helper": lend,
    "chainer.testing.doctest_helper": lend,
}
