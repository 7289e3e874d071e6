"""Which versions are in use and which parts of rechainer are active."""

import importlib.metadata
import platform

from rechainer import (
    _caffe,
    _cupy,
    _numpy_behaviour,
    _numpy_names,
    _processes,
    _removed_modules,
    cudnn,
    onednn,
    wasm,
)

#: Distributions whose versions are told; CuPy's name also tells its CUDA.
DISTRIBUTIONS = ("rechainer", "chainer", "numpy", "protobuf", "h5py")

#: Part -> function that says in one line what is active.
PARTS = {
    "removed NumPy names": _numpy_names.status,
    "NumPy 2 behaviour": _numpy_behaviour.status,
    "removed modules": _removed_modules.status,
    "Caffe models": _caffe.status,
    "processes": _processes.status,
    "CuPy": _cupy.status,
    "cuDNN": cudnn.status,
    "oneDNN": onednn.status,
    "WebAssembly": wasm.status,
}


class Info(dict):
    """``{'versions': {name: version}, 'parts': {name: what is active}}``; ``str()`` is a table."""

    def __str__(self):
        return "\n\n".join(_table(title, rows) for title, rows in self.items())

    __repr__ = __str__


def _table(title, rows):
    width = max(map(len, rows))
    return "\n".join([title, *(f"  {name:<{width}}  {text}" for name, text in rows.items())])


def _versions():
    versions = {"python": platform.python_version()}
    for name in (*DISTRIBUTIONS, *_cupy_distributions()):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def _cupy_distributions():
    return sorted(importlib.metadata.packages_distributions().get("cupy", ()))


def info():
    """Report versions and active parts, importing neither Chainer nor CuPy.

    Returns
    -------
    Info
        A dict with the dicts ``'versions'`` and ``'parts'``; printing it gives a table.

    Examples
    --------
    >>> import rechainer
    >>> rechainer.info()['versions']['chainer']
    '7.8.1'
    """
    return Info(versions=_versions(), parts={name: status() for name, status in PARTS.items()})
