"""Stream capture, by NumPy: what is called is written down and not done; a launch does it.

As with CUDA, the results of a call hold nothing before the launch (here: NaN), numbers that came
from Python are those of the recording for ever, and to wait for the device is an error.
"""

import contextlib
import functools

import numpy

#: What is recorded, in order; None while nothing is.
calls = None
#: What must not be given back before the graph: all memory given out during the recording.
kept = []


class Graph:
    """A recording."""

    def __init__(self, calls):
        self.calls, self.launches = calls, 0

    def launch(self, stream=None):
        self.launches += 1
        for call in self.calls:
            call()


def begin():
    global calls
    assert calls is None
    calls = []


def end():
    global calls
    recorded, calls = calls, None
    if recorded is None or None in recorded:
        raise RuntimeError("cudaErrorStreamCaptureInvalidated")
    return Graph(recorded)


def must_not_wait():
    """Raise what CUDA says where a program waits for a device that records."""
    if calls is not None:
        calls.append(None)
        raise RuntimeError("cudaErrorStreamCaptureUnsupported: operation not permitted when "
                           "stream is capturing")


@contextlib.contextmanager
def _aside():
    """Call NumPy inside without recording."""
    global calls
    before, calls = calls, None
    try:
        with numpy.errstate(all="ignore"):
            yield
    finally:
        calls = before


def keep(memory):
    if calls is not None:
        kept.append(memory)
    return memory


def written(function):
    """Decorate what writes to memory it is given: recorded, it is not done."""
    @functools.wraps(function)
    def call(*args, **kwargs):
        if calls is None:
            return function(*args, **kwargs)
        calls.append(lambda: function(*args, **kwargs))
        return None

    return call


def made(function):
    """Decorate what returns new arrays, or views: recorded, new ones hold nothing yet."""
    @functools.wraps(function)
    def call(*args, **kwargs):
        if calls is None:
            return function(*args, **kwargs)
        with _aside():
            result = function(*args, **kwargs)
        fresh = [a for a in (result if isinstance(result, tuple | list) else [result])
                 if isinstance(a, numpy.ndarray) and not _is_view(a, args)]
        if fresh:
            for array in fresh:
                array.fill(numpy.nan if array.dtype.kind == "f" else 0)
            calls.append(functools.partial(_again, function, args, kwargs, result))
        return result

    return call


def _is_view(array, args):
    return any(isinstance(a, numpy.ndarray) and numpy.may_share_memory(array, a) for a in args)


def _again(function, args, kwargs, result):
    once_more = function(*args, **kwargs)
    if not isinstance(result, tuple | list):
        result, once_more = [result], [once_more]
    for array, value in zip(result, once_more, strict=True):
        if isinstance(array, numpy.ndarray):
            numpy.ndarray.__setitem__(array, ..., value)
