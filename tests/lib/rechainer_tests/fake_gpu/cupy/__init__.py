"""What Chainer uses of CuPy 14, over NumPy: arrays are NumPy's, of a class of their own.

New memory is poisoned with NaN, so that an element no kernel has written does not go unnoticed.
Elementwise kernels, which are C, are known by their names.
"""

import contextlib
import functools
import math
import sys
import types
from ctypes import c_char

import capture
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
        capture.must_not_wait()
        return numpy.array(self.view(numpy.ndarray))

    def set(self, array, stream=None):
        assert array.shape == self.shape
        assert array.dtype == self.dtype
        self[...] = array

    def scatter_add(self, slices, values):
        capture.written(numpy.add.at)(*_on_host((self,)), slices, *_on_host((values,)))

    def reduced_view(self):
        return self

    def __array_ufunc__(self, ufunc, method, *inputs, out=(), **kwargs):
        return _ufunc(getattr(ufunc, method), _on_host(inputs), _on_host(out), kwargs, out)


def _ufunc(function, inputs, host, kwargs, out):
    if out:
        capture.written(function)(*inputs, out=host if len(host) > 1 else host[0], **kwargs)
        return out[0] if len(out) == 1 else out
    return capture.made(lambda *a: _on_device(_arrays(function(*a, **kwargs))))(*inputs)


def _arrays(result):
    """Return results as arrays, of no axes where NumPy gives a number."""
    return tuple(map(numpy.asarray, result)) if isinstance(result, tuple) else numpy.asarray(result)


def _on_host(values):
    return tuple(v.view(numpy.ndarray) if isinstance(v, ndarray) else v for v in values)


def _waiting(function):
    def call(self, *args):
        capture.must_not_wait()
        return function(self, *args)

    return call


WAITING = "__float__", "__int__", "__bool__", "__index__", "item", "tolist"
MAKING = ("astype", "copy", "dot", "clip", "argmax", "sum", "mean", "max", "min", "ravel",
          "reshape", "flatten", "transpose", "squeeze", "__getitem__")
for _names, _kind in ((WAITING, _waiting), (MAKING, capture.made),
                      (("__setitem__", "fill"), capture.written)):
    for _name in _names:
        setattr(ndarray, _name, _kind(getattr(numpy.ndarray, _name)))


def _on_device(value):
    if isinstance(value, tuple | list):
        return type(value)(map(_on_device, value))
    return value.view(ndarray) if isinstance(value, numpy.ndarray) else value


def __getattr__(name):
    found = getattr(numpy, name)
    if not callable(found) or isinstance(found, type):
        return found
    return capture.made(functools.wraps(found)(lambda *a, **k: _on_device(found(*a, **k))))


def empty(shape, dtype=float, order="C"):
    made = numpy.empty(shape, dtype, order)
    made.fill(math.nan if made.dtype.kind == "f" else 255)
    return capture.keep(made.view(ndarray))


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
}


def _groupnorm(gamma, beta, y):
    y[...] = y * gamma + beta


def _weight_decay(p, decay, g):
    g += decay * p


def _sgd(grad, lr, param):
    param -= lr * grad


def _momentum_sgd(grad, lr, momentum, param, v):
    v[...] = momentum * v - lr * grad
    param += v


def _adam(grad, alpha_t, one_minus_beta1, one_minus_beta2, eps, eta, decay, dummy, param, m, v):
    m += one_minus_beta1 * (grad - m)
    v += one_minus_beta2 * (grad * grad - v)
    param -= eta * (alpha_t * m / (numpy.sqrt(v) + eps) + decay * param)


def _fused_sgd(grad, n, param):
    param -= n[2] * (grad * n[0] + n[1] * param)


def _fused_momentum(grad, n, param, v):
    v[...] = n[3] * v - n[2] * (grad * n[0] + n[1] * param)
    param += v


def _fused_adam(grad, n, param, m, v):
    g = grad * n[0] + n[1] * param
    m += n[3] * (g - m)
    v += n[4] * (g * g - v)
    param[...] = n[7] * param - n[6] * (n[2] / (numpy.sqrt(v) + n[5]) * m)


#: Those that write to arrays they are given.
WRITING = {
    "groupnorm_y": _groupnorm, "weight_decay": _weight_decay, "sgd": _sgd,
    "momentum_sgd": _momentum_sgd, "adam": _adam, "fused_sgd": _fused_sgd,
    "fused_momentum": _fused_momentum, "fused_adam": _fused_adam,
}
launched = []   # the name of every kernel


class ElementwiseKernel:
    """A kernel by its name; the C of an unknown one cannot be run here."""

    def __init__(self, in_params, out_params, operation, name, **options):
        self.name = name

    def __call__(self, *arrays, **options):
        launched.append(self.name)
        arrays = _on_host(arrays)
        if self.name in WRITING:
            return capture.written(WRITING[self.name])(*arrays)
        return capture.made(lambda *a: _on_device(_arrays(KERNELS[self.name](*a))))(*arrays)


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

    def synchronize(self):
        capture.must_not_wait()


class Event:
    """The time, which is the number of the event: later is slower."""

    made = 0

    def record(self, stream=None):
        Event.made += 1
        self.time, self.stream = Event.made, stream

    def synchronize(self):
        """Everything is done at once."""
        assert self.time
        capture.must_not_wait()


class Stream:
    """A stream; on each, everything is done at once."""

    current = []

    def __init__(self, non_blocking=False):
        self.ptr = id(self)

    def __enter__(self):
        self.current.append(self)
        return self

    def __exit__(self, *exception):
        assert self.current.pop() is self

    def wait_event(self, event):
        assert event.time, "it was recorded"
        assert event.stream is not self
        self.waited = event.stream

    def record(self, event=None):
        event = event or Event()
        event.record(self)
        return event

    def begin_capture(self, mode=None):
        assert self.ptr, "the default stream cannot be recorded"
        capture.begin()

    def end_capture(self):
        return capture.end()


Stream.null = Stream()
Stream.null.ptr = 0


def _current_stream():
    return (Stream.current or [Stream.null])[-1]


class MemoryPool:
    """Memory, counted."""

    def malloc(self, size):
        return _Memory(size)

    def total_bytes(self):
        return 1 << 20


@contextlib.contextmanager
def using_allocator(allocator):
    yield


class _Memory:
    def __init__(self, size):
        capture.keep(self)
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
    get_device_id=lambda: 0, get_current_stream=_current_stream, MemoryPool=MemoryPool,
    using_allocator=using_allocator, alloc_pinned_memory=lambda size: (c_char * (size + 512))(),
    get_elapsed_time=lambda start, stop: stop.time - start.time)
_module("cupy.cuda.cublas")
_module("cupy.cuda.runtime", getDeviceCount=lambda: 1, CUDARuntimeError=RuntimeError,
        getDeviceProperties=lambda number: {"name": b"NumPy", "totalGlobalMem": 16 << 30})
_module("cupy.exceptions", PerformanceWarning=type("PerformanceWarning", (Warning,), {}))
