"""What Chainer uses of CuPy 14, over NumPy: arrays are NumPy's, of a class of their own.

New memory is poisoned with NaN, so that an element no kernel has written does not go unnoticed.
Elementwise kernels, which are C, are known by their names.
"""

import functools
import math
import sys
import types
from ctypes import c_char

import numpy

__version__ = "14.2.0"


class ndarray(numpy.ndarray):
    """An array on the device."""

    @property
    def data(self):
        return types.SimpleNamespace(ptr=self.ctypes.data, device=self.device)

    @property
    def device(self):
        return cuda.Device(0)

    def get(self, stream=None):
        return numpy.array(self.view(numpy.ndarray))

    def set(self, array, stream=None):
        self[...] = array

    def reduced_view(self):
        return self


def _on_device(value):
    if isinstance(value, tuple | list):
        return type(value)(map(_on_device, value))
    return value.view(ndarray) if isinstance(value, numpy.ndarray) else value


def __getattr__(name):
    found = getattr(numpy, name)
    if not callable(found) or isinstance(found, type):
        return found
    return functools.wraps(found)(lambda *a, **k: _on_device(found(*a, **k)))


def empty(shape, dtype=float, order="C"):
    made = numpy.empty(shape, dtype, order).view(ndarray)
    made.fill(math.nan if made.dtype.kind == "f" else 255)
    return made


def empty_like(array):
    return empty(array.shape, array.dtype)


def get_array_module(*arrays):
    return sys.modules[__name__] if any(isinstance(a, ndarray) for a in arrays) else numpy


def memoize(for_each_device=False):
    return functools.cache


def clear_memo():
    """Forget nothing."""


def fuse(*args, **kwargs):
    return lambda function: function


def _crossent(t, log_y, n_channel, coeff, ignore_label):
    rows = log_y.reshape(-1, n_channel)[numpy.arange(t.size), t.ravel()]
    return numpy.asarray(-(rows * (t.ravel() != ignore_label)).sum() * coeff)


KERNELS = {
    "crossent_fwd": _crossent,
    "softmax_crossent_bwd": lambda y, t, gloss, coeff, n_channel, n_unit, ignore_label: (
        gloss * coeff * (y - numpy.eye(n_channel)[t[:, 0]]) * (t != ignore_label)).astype(y.dtype),
    "sigmoid_fwd": lambda x: 1 / (1 + numpy.exp(-x)),
    "sigmoid_bwd": lambda y, gy: gy * y * (1 - y),
    "relu_bwd": lambda y, gy: gy * (y > 0),
    "groupnorm_y": lambda gamma, beta, y: numpy.copyto(y, y * gamma + beta),
    "momentum_sgd": lambda grad, lr, momentum, param, v: (
        numpy.copyto(v, momentum * v - lr * grad), numpy.copyto(param, param + v)),
}


class ElementwiseKernel:
    """A kernel by its name; the C of an unknown one cannot be run here."""

    def __init__(self, in_params, out_params, operation, name, **options):
        self.name = name

    def __call__(self, *arrays, **options):
        return _on_device(KERNELS[self.name](*arrays))


class ReductionKernel(ElementwiseKernel):
    """The same for reductions."""

    def __init__(self, *arguments, **options):
        self.name = arguments[6]


RawKernel = ElementwiseKernel


def get_default_memory_pool():
    return types.SimpleNamespace(used_bytes=lambda: 3 << 30, free_bytes=lambda: 1 << 30,
                                 total_bytes=lambda: 4 << 30, free_all_blocks=lambda: None)


get_default_pinned_memory_pool = get_default_memory_pool


class Device:
    compute_capability = "90"
    mem_info = 2 << 30, 16 << 30

    def __init__(self, device=0):
        self.id = int(device or 0)

    def __eq__(self, other):
        return isinstance(other, Device) and self.id == other.id

    __hash__ = None

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        return None

    def use(self):
        """There is one device."""

    synchronize = use


class Event:
    """The time, which is the number of the event: later is slower."""

    made = 0

    def record(self):
        Event.made += 1
        self.time = Event.made

    def synchronize(self):
        """Everything is done at once."""


class Stream:
    ptr = 0


class _Memory:
    def __init__(self, size):
        self.block = (c_char * max(size, 1))()
        self.ptr = numpy.frombuffer(self.block, numpy.uint8).ctypes.data if size else 0


def _module(name, **members):
    made = sys.modules[name] = types.ModuleType(name)
    vars(made).update(members)
    parent, _, child = name.rpartition(".")
    setattr(sys.modules[parent], child, made)
    return made


cuda = _module(
    "cupy.cuda", __path__=[], Device=Device, Event=Event, Stream=Stream, alloc=_Memory,
    get_device_id=lambda: 0, get_current_stream=Stream,
    get_elapsed_time=lambda start, stop: stop.time - start.time)
_module("cupy.cuda.cublas")
_module("cupy.cuda.runtime", getDeviceCount=lambda: 1, CUDARuntimeError=RuntimeError,
        getDeviceProperties=lambda number: {"name": b"NumPy", "totalGlobalMem": 16 << 30})
_module("cupy.exceptions", PerformanceWarning=type("PerformanceWarning", (Warning,), {}))
