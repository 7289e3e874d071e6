"""Processes: a Python that has none, and child processes that need rechainer too.

In WebAssembly the C module ``_multiprocessing`` is missing, without which two of Chainer's
iterators cannot be imported. An empty module of that name is lent to them for the time of the
import: `SerialIterator` works; the two others say, when one is made, that they cannot.

A child process that is *spawned* (macOS, Windows, and ``forkserver``, Linux' default since Python
3.14) imports the main script anew. A script that imports rechainer itself brings it along; for an
unchanged script, run by ``python -m rechainer``, the child is told to import rechainer first.
"""

import importlib.util
import types

from rechainer._numpy_names import cover
from rechainer._removed_modules import lent


def are_missing():
    """Tell whether this Python lacks ``_multiprocessing``."""
    return importlib.util.find_spec("_multiprocessing") is None


def lend(module, execute):
    """Seam: execute an iterator module that imports ``_multiprocessing``."""
    if not are_missing():
        execute()
        return
    with lent({"_multiprocessing": types.ModuleType("_multiprocessing")}):
        execute()
    for name in ("MultiprocessIterator", "MultithreadIterator"):
        if name in vars(module):
            vars(module)[name].__new__ = _refuse  # before there is anything to finalize


def _refuse(cls, *args, **kwargs):
    raise RuntimeError(
        f"{cls.__name__} needs processes or threads, which this Python (WebAssembly) "
        "does not have: use chainer.iterators.SerialIterator"
    )


SEAMS = {
    "chainer.iterators.multiprocess_iterator": lend,
    "chainer.iterators.multithread_iterator": lend,
}


class _CoverInChild:
    """Imports rechainer and covers ``place`` in the process that unpickles it."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return cover, (self.place,)


def bring_to_children(place):
    """Have spawned children import rechainer and `cover` ``place`` before the main script.

    Children unpickle what ``multiprocessing`` prepared for them before they import the main
    script; an entry of its own in that dict is enough.
    """
    if are_missing():
        return
    import multiprocessing
    from multiprocessing import spawn

    ordinary = spawn.get_preparation_data
    spawn.get_preparation_data = lambda name: {**ordinary(name), "rechainer": _CoverInChild(place)}
    if "forkserver" in multiprocessing.get_all_start_methods():
        # In place of '__main__', which the server would import without rechainer.
        multiprocessing.set_forkserver_preload(["rechainer"])


def status():
    """Say in one line what is active."""
    if are_missing():
        return "stand-in lent to Chainer's iterators: this Python has no processes"
    return "left to Python"
