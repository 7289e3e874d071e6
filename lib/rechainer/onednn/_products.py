"""Convolutions as matrix products, which NumPy's BLAS computes in oneDNN's threads.

For processors without AVX-512 oneDNN's convolutions are fast forward and backward to the maps, but
not backward to the weights: there they reach 15 to 70 % of what OpenBLAS does (``tests/bench``).
Windows of one pixel are products anyway; of many channels BLAS makes them in 0.7 to 1 of the time.
"""

import contextlib
import contextvars
import ctypes
import functools
import math
import pathlib
import threading

from rechainer.onednn import _memory
from rechainer.onednn._arrays import FLOAT, as_channels_last, copy, empty

import numpy

#: Fewer channels than these, in or out, make matrices too slim.
CHANNELS = 16

#: From so many channels, in and out, windows of one pixel are products in all directions.
POINTWISE_CHANNELS = 256

#: How much larger than the maps the grid may be that they are computed on.
GRID = 1.35

#: Images are taken together until they have so many pixels: long enough a sum for a product,
#: short enough to stay in the processor's cache and to need little memory.
PIXELS = 4096


class _Threads(contextlib.ContextDecorator):
    """While it is entered, by whatever thread, OpenBLAS uses one thread for each product."""

    def __init__(self, library):
        self._get = library.scipy_openblas_get_num_threads64_
        self._set = library.scipy_openblas_set_num_threads64_
        self._lock, self._inside, self._before = threading.Lock(), 0, 1

    def __enter__(self):
        with self._lock:
            if not self._inside:
                self._before = self._get()
                self._set(1)
            self._inside += 1

    def __exit__(self, *exception):
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._set(self._before)


@functools.cache
def one_thread():
    """Return the context in which NumPy's BLAS has one thread; None if it is no OpenBLAS."""
    folder = pathlib.Path(numpy.__file__).parent.parent / "numpy.libs"
    for path in folder.glob("libscipy_openblas64_*.so"):
        with contextlib.suppress(OSError, AttributeError):
            return _Threads(ctypes.CDLL(str(path)))
    return None


_BODY = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


@functools.cache
def openmp():
    """Return GNU's OpenMP, whose threads are oneDNN's."""
    return ctypes.CDLL("libgomp.so.1")


def threads():
    """Return how many threads OpenMP gives to what this thread computes."""
    return openmp().omp_get_max_threads()


class Alone:
    """The context in which what this thread computes has no threads but this one."""

    def __enter__(self):
        self._count = openmp().omp_get_max_threads()
        openmp().omp_set_num_threads(1)

    def __exit__(self, *error):
        openmp().omp_set_num_threads(self._count)


def in_threads(work, size):
    """Call ``work`` with slices that make up ``range(size)``, each in a thread of OpenMP."""
    count = min(threads(), size)
    if count == 1:
        work(slice(0, size))
        return
    errors = []
    # What NumPy does about an overflow is said in the context of the caller.
    contexts = [contextvars.copy_context() for _ in range(count)]

    def body(_):
        # OpenMP may give fewer threads than it was asked for.
        i, n = openmp().omp_get_thread_num(), openmp().omp_get_num_threads()
        try:
            contexts[i].run(work, slice(size * i // n, size * (i + 1) // n))
        except BaseException as e:
            errors.append(e)

    openmp().GOMP_parallel(_BODY(body), None, count, 0)
    if errors:
        raise errors[0]


def is_better(x_shape, w_shape, y_shape, stride, pad, dilate):
    """Tell whether to compute a weight gradient by products; see `Convolution`."""
    if one_thread() is None or x_shape[1] != w_shape[1] or min(w_shape[:2]) < CHANNELS:
        return False
    if tuple(w_shape[2:]) == (1, 1):
        return _are_pixels(x_shape, y_shape, stride, pad)
    grid = _grid(x_shape, w_shape, y_shape, pad, dilate)
    return tuple(stride) == (1, 1) and math.prod(grid) <= GRID * math.prod(y_shape[2:])


def is_pointwise(x_shape, w_shape, y_shape, stride, pad):
    """Tell whether to compute a convolution and its gradient by one product; see `Convolution`."""
    return (tuple(w_shape[2:]) == (1, 1) and _are_pixels(x_shape, y_shape, stride, pad)
            and x_shape[1] == w_shape[1] and min(w_shape[:2]) >= POINTWISE_CHANNELS
            and one_thread() is not None)


def _are_pixels(x_shape, y_shape, stride, pad):
    """Tell whether windows of one pixel all lie in the maps; `cover_all` knows others."""
    return tuple(pad) == (0, 0) and all(
        s * (o - 1) < size for o, s, size in zip(y_shape[2:], stride, x_shape[2:], strict=True))


class Pointwise:
    """A convolution with windows of one pixel without padding; arguments of `Convolution`."""

    def __init__(self, x_shape, y_shape, stride):
        self.x_shape, self.y_shape = x_shape, y_shape
        self.places = (slice(None), *(slice(0, s * (o - 1) + 1, s) for o, s in zip(
            y_shape[2:], stride, strict=True)))

    def forward(self, x, w, b=None, y=None):
        """Return y, written to the array given."""
        y = empty(self.y_shape) if y is None else y
        x = x.transpose(0, 2, 3, 1)[self.places].transpose(0, 3, 1, 2)
        _multiply_rows(_pixels(x), w[:, :, 0, 0].T, _pixels(y))
        if b is not None:
            y += b[:, None, None]
        return y

    def backward_data(self, w, gy, gx=None):
        """Return the gradient with respect to x, written to `gx`."""
        gx = empty(self.x_shape) if gx is None else gx
        if gy.shape[2:] == gx.shape[2:]:
            _multiply_rows(_pixels(gy), w[:, :, 0, 0], _pixels(gx))
            return gx
        rows = empty((len(gy), w.shape[1], *gy.shape[2:]))
        _multiply_rows(_pixels(gy), w[:, :, 0, 0], _pixels(rows))
        gx.fill(0)
        gx.transpose(0, 2, 3, 1)[self.places] = rows.transpose(0, 2, 3, 1)
        return gx


def _multiply_rows(a, b, out):
    with one_thread():
        in_threads(lambda part: numpy.matmul(a[part], b, out=out[part]), len(a))


def _grid(x_shape, w_shape, y_shape, pad, dilate):
    # High and wide enough that a window over a border meets zeros, not what is on the other side.
    return tuple(max(i + p, o, o + (k - 1) * d - p) for i, k, o, p, d in zip(
        x_shape[2:], w_shape[2:], y_shape[2:], pad, dilate, strict=True))


class WeightGradient:
    """The gradient of a convolution with respect to its weights; arguments of `Convolution`."""

    def __init__(self, x_shape, w_shape, y_shape, stride, pad, dilate):
        self.w_shape, self.stride = w_shape, stride
        self.is_plain = tuple(w_shape[2:]) == (1, 1)
        self.grid = _grid(x_shape, w_shape, y_shape, pad, dilate)
        self.images = -(-PIXELS // math.prod(self.grid))
        (kh, kw), (ph, pw), (dh, dw) = w_shape[2:], pad, dilate
        #: Place in the window -> how many pixels of the grid x is ahead of gy.
        self.ahead = {(i, j): (i * dh - ph) * self.grid[1] + j * dw - pw
                      for i in range(kh) for j in range(kw)}

    def __call__(self, x, gy):
        """Return the gradient, (O, C, kH, kW), C-contiguous."""
        with one_thread():
            return self._plain(x, gy) if self.is_plain else self._by_place(x, gy)

    def _plain(self, x, gy):
        sy, sx = self.stride
        x, gy = _pixels(x[:, :, ::sy, ::sx][:, :, :gy.shape[2], :gy.shape[3]]), _pixels(gy)
        gw = _memory.empty(self.w_shape[:2], FLOAT)
        if x.shape[1] > gy.shape[1]:
            in_threads(lambda part: numpy.matmul(gy.T, x[:, part], out=gw[:, part]), x.shape[1])
        else:
            in_threads(lambda part: numpy.matmul(gy[:, part].T, x, out=gw[part]), gy.shape[1])
        return gw.reshape(self.w_shape)

    def _by_place(self, x, gy):
        sums = {}

        def work(images):
            sums[images.start] = self._sum(x[images], gy[images])

        in_threads(work, len(x))
        total = functools.reduce(lambda a, b: numpy.add(a, b, out=a),
                                 (sums[start] for start in sorted(sums)))
        gw = _memory.empty(self.w_shape, FLOAT)
        copy(total.transpose(2, 3, 0, 1), gw)
        return gw

    def _sum(self, x, gy):
        """Return the gradient of some images, (kH, kW, O, C)."""
        n_out, n_in, *window = self.w_shape
        total, product = None, _memory.empty((*window, n_out, n_in), FLOAT)
        for i in range(0, len(x), self.images):
            part = slice(i, i + self.images)
            self._multiply(self._on_grid(x[part]), self._on_grid(gy[part]).T, product)
            if total is None:
                total, product = product, numpy.empty_like(product)
            else:
                total += product
        return total

    def _multiply(self, x, gy, out):
        for place, ahead in self.ahead.items():
            length = len(x) - abs(ahead)
            numpy.matmul(gy[:, max(0, -ahead):][:, :length], x[max(0, ahead):][:length],
                         out=out[place])

    def _on_grid(self, x):
        """Return maps as a matrix of pixels (rows) of the grid, zero where the maps end."""
        (n, c, h, w), (height, width) = x.shape, self.grid
        grid = empty((n, c, height, width))
        grid[:, :, h:] = 0
        grid[:, :, :h, w:] = 0
        grid[:, :, :h, :w] = x
        return _pixels(grid)


def _pixels(x):
    """Return maps as a matrix: a row for each pixel, a column for each channel."""
    return as_channels_last(x).transpose(0, 2, 3, 1).reshape(-1, x.shape[1])
