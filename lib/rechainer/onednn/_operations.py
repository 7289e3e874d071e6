"""The operations of a convolutional network on NumPy's float32 arrays.

Maps have the shape (N, C, H, W). They may come in any order in memory; results are channels last.
Pairs are (vertical, horizontal). Each primitive is made once for a shape.
"""

import functools

from rechainer.onednn import _memory, _winograd
from rechainer.onednn._arrays import (
    FLOAT,
    as_channels_last,
    as_dense,
    copy,
    empty,
    empty_like,
    in_one_order,
    maps,
)
from rechainer.onednn._library import (
    ALGORITHMS,
    BACKWARD,
    DIMS,
    FORWARD_INFERENCE,
    FORWARD_TRAINING,
    USE_GLOBAL_STATS,
    USE_SCALE,
    USE_SHIFT,
    Unsupported,
    load,
)
from rechainer.onednn._primitives import (
    Description,
    Layout,
    Primitive,
    is_same,
    per_thread,
    reorder,
)
from rechainer.onednn._products import Pointwise, WeightGradient, is_better, is_pointwise

import numpy


def padding_behind(size, out, kernel, stride, pad, dilate=(1, 1)):
    """Return what the windows read below and right of the maps; negative if they end inside.

    Chainer's ``cover_all`` and ``outsize`` mean nothing else.
    """
    return tuple(
        s * (o - 1) + (k - 1) * d + 1 - i - p
        for i, o, k, s, p, d in zip(size, out, kernel, stride, pad, dilate, strict=True)
    )


class Convolution:
    """The primitives of a convolution of given shapes.

    Parameters
    ----------
    x_shape, w_shape, y_shape : tuple of int
        (N, C, H, W), (O, C / groups, kH, kW) and (N, O, H', W').
    stride, pad, dilate : pair of int
        Dilation 1 is none, as in Chainer.
    """

    def __init__(self, x_shape, w_shape, y_shape, stride, pad, dilate):
        self.x_shape, self.w_shape, self.y_shape = x_shape, w_shape, y_shape
        self.stride, self.pad, self.dilate = stride, pad, dilate
        behind = padding_behind(x_shape[2:], y_shape[2:], w_shape[2:], stride, pad, dilate)
        self.geometry = DIMS(*stride), DIMS(*(d - 1 for d in dilate)), DIMS(*pad), DIMS(*behind)
        self.x, self.y, self.b = maps(x_shape), maps(y_shape), Layout.dense(w_shape[:1])
        groups = x_shape[1] // w_shape[1]
        grouped = (groups, w_shape[0] // groups, *w_shape[1:]) if groups > 1 else w_shape
        self.w, self.any_w = Layout.dense(grouped), Layout(grouped)

    @functools.cached_property
    def hint(self):
        return self._describe_forward(None)

    def _describe_forward(self, b):
        return Description("convolution_forward", FORWARD_TRAINING, DIRECT, self.x, self.any_w, b,
                           self.y, *self.geometry)

    @functools.cached_property
    def _forward(self):
        return Primitive(self.hint, src=self.x, weights=None, dst=self.y), Weights(self, self.hint)

    @functools.cached_property
    def _forward_with_bias(self):
        description = self._describe_forward(self.b)
        layouts = {"src": self.x, "weights": None, "bias": self.b, "dst": self.y}
        return Primitive(description, **layouts), Weights(self, description)

    @functools.cached_property
    def _backward_data(self):
        description = Description("convolution_backward_data", DIRECT, self.x, self.any_w, self.y,
                                  *self.geometry, self.hint,
                                  skip=int(self.x_shape[1] < FEW_CHANNELS))
        primitive = Primitive(description, diff_src=self.x, weights=None, diff_dst=self.y)
        return primitive, Weights(self, description)

    @functools.cached_property
    def is_pointwise(self):
        return is_pointwise(self.x_shape, self.w_shape, self.y_shape, self.stride, self.pad)

    @functools.cached_property
    def forward_otherwise(self):
        """What computes y otherwise than by oneDNN's convolution, if that is better."""
        if self.is_pointwise:
            return Pointwise(self.x_shape, self.y_shape, self.stride).forward
        form = _winograd.best_form(self.x_shape, self.w_shape, self.y_shape, *self._windows)
        return form and self._tiled(form).forward

    @functools.cached_property
    def backward_data_otherwise(self):
        """What computes the gradient with respect to x otherwise, if that is better."""
        if self.is_pointwise:
            return Pointwise(self.x_shape, self.y_shape, self.stride).backward_data
        o, c, *window = self.w_shape
        behind = tuple(2 - p for p in self.pad)
        form = _winograd.best_form(self.y_shape, (c, o, *window), self.x_shape, self.stride,
                                   behind, self.dilate)
        return form and self._tiled(form).backward_data

    @functools.cached_property
    def backward_weights_otherwise(self):
        """What computes the gradient with respect to w otherwise, if that is better."""
        arguments = self.x_shape, self.w_shape, self.y_shape, *self._windows
        form = _winograd.best_form(*arguments)
        if form:
            return self._tiled(form).backward_weights
        return WeightGradient(*arguments) if is_better(*arguments) else None

    @property
    def _windows(self):
        return self.stride, self.pad, self.dilate

    def _tiled(self, form):
        return _winograd.Winograd(form, self.x_shape, self.y_shape, self.pad)

    @functools.cached_property
    def _backward_weights(self):
        description = Description("convolution_backward_weights", DIRECT, self.x, self.any_w,
                                  None, self.y, *self.geometry, self.hint)
        primitive = Primitive(description, src=self.x, diff_weights=None, diff_dst=self.y)
        return primitive, Weights(self, description, "diff_weights")

    def forward(self, x, w, b=None):
        """Return y."""
        if self.forward_otherwise:
            return self.forward_otherwise(x, w, b)
        primitive, weights = self._forward if b is None else self._forward_with_bias
        bias = () if b is None else (as_dense(b),)
        y = empty(self.y_shape)
        primitive(as_channels_last(x), weights.pack(w), *bias, y)
        return y

    def backward_data(self, w, gy):
        """Return the gradient with respect to x."""
        if self.backward_data_otherwise:
            return self.backward_data_otherwise(w, gy)
        primitive, weights = self._backward_data
        gx = empty(self.x_shape)
        primitive(gx, weights.pack(w), as_channels_last(gy))
        return gx

    def backward_weights(self, x, gy):
        """Return the gradient with respect to w."""
        if self.backward_weights_otherwise:
            return self.backward_weights_otherwise(x, gy)
        primitive, weights = self._backward_weights
        packed = weights.empty()
        primitive(as_channels_last(x), packed, as_channels_last(gy))
        return weights.unpack(packed)


class Weights:
    """The way between plain weights and the order a convolution wants them in."""

    def __init__(self, convolution, description, name="weights"):
        self.shape, self.plain = convolution.w_shape, convolution.w
        self.packed = description.layout(name)
        self.are_plain = is_same(self.plain, self.packed)

    @functools.cached_property
    def _pack(self):
        return reorder(self.plain, self.packed)

    @functools.cached_property
    def _unpack(self):
        return reorder(self.packed, self.plain)

    def empty(self):
        """Return an uninitialized array for packed weights."""
        return _memory.empty((self.packed.size // FLOAT.itemsize,), FLOAT)

    def pack(self, w):
        """Return the weights in the convolution's order."""
        w = as_dense(w)
        if self.are_plain:
            return w
        packed = self.empty()
        self._pack(w, packed)
        return packed

    def unpack(self, packed):
        """Return the weights (O, C / groups, kH, kW), C-contiguous."""
        if self.are_plain:
            return packed.reshape(self.shape)
        w = _memory.empty(self.shape, FLOAT)
        self._unpack(packed, w)
        return w


DIRECT = ALGORITHMS["convolution_direct"]

#: To maps of fewer channels than a vector holds, oneDNN's second choice takes 0.5 to 0.8 of the
#: time of its first (LeNet5, `tests/bench`).
FEW_CHANNELS = 8

convolution = per_thread(Convolution)


class Pooling:
    """The primitives of a pooling of given shapes.

    Parameters
    ----------
    kind : str
        ``"max"``, or ``"avg_include_padding"``, which divides by the whole window everywhere.
    x_shape, y_shape : tuple of int
    kernel, stride, pad : pair of int

    Raises
    ------
    Unsupported
        If a window lies outside of the maps altogether.
    """

    def __init__(self, kind, x_shape, y_shape, kernel, stride, pad):
        behind = padding_behind(x_shape[2:], y_shape[2:], kernel, stride, pad)
        if any(p >= k for p, k in zip(pad + behind, kernel * 2, strict=True)):
            raise Unsupported(f"pooling windows of {kernel} within a padding of {pad + behind}")
        self.x_shape, self.y_shape, self.is_max = x_shape, y_shape, kind == "max"
        self.algorithm = ALGORITHMS[f"pooling_{kind}"]
        self.x, self.y = maps(x_shape), maps(y_shape)
        self.geometry = (*(DIMS(*pair) for pair in (stride, kernel)), DIMS(0, 0), DIMS(*pad),
                         DIMS(*behind))
        self.index_type = "uint8" if kernel[0] * kernel[1] <= 256 else "int32"

    @functools.cached_property
    def hint(self):
        return Description("pooling_forward", FORWARD_TRAINING, self.algorithm, self.x, self.y,
                           *self.geometry)

    @functools.cached_property
    def workspace(self):
        if not self.is_max:
            return {}
        layout = maps(self.y_shape, self.index_type)
        if not is_same(layout, self.hint.layout("workspace")):
            raise Unsupported("max pooling whose indices are not channels last")
        return {"workspace": layout}

    @functools.cached_property
    def _forward(self):
        return Primitive(self.hint, src=self.x, dst=self.y, **self.workspace)

    @functools.cached_property
    def _backward(self):
        description = Description("pooling_backward", self.algorithm, self.x, self.y,
                                  *self.geometry, self.hint)
        return Primitive(description, diff_src=self.x, diff_dst=self.y, **self.workspace)

    def forward(self, x):
        """Return y and, of the maximum, its index within the window, counted row by row."""
        arrays = [empty(self.y_shape)]
        if self.is_max:
            arrays.append(empty(self.y_shape, self.index_type))
        self._forward(as_channels_last(x), *arrays)
        return arrays

    def backward(self, gy, indexes=None):
        """Return the gradient with respect to x."""
        gx = empty(self.x_shape)
        workspace = () if indexes is None else (indexes,)
        self._backward(gx, as_channels_last(gy), *workspace)
        return gx


pooling = per_thread(Pooling)


class Normalization:
    """The primitives of a batch normalization, scale and shift included, of a given shape.

    Parameters
    ----------
    shape : tuple of int
        (N, C, H, W); the statistics are C numbers.
    eps : float
        Added to the variance.
    """

    def __init__(self, shape, eps):
        self.x, self.c = maps(shape), Layout.dense(shape[1:2])
        self.channels, self.eps = shape[1], eps

    def _describe(self, kind, flags=0):
        return Description("batch_normalization_forward", kind, self.x, self.x, self.eps,
                           USE_SCALE | USE_SHIFT | flags)

    @functools.cached_property
    def hint(self):
        return self._describe(FORWARD_TRAINING)

    @functools.cached_property
    def _train(self):
        return Primitive(self.hint, src=self.x, scale=self.c, shift=self.c, dst=self.x,
                         mean=self.c, variance=self.c)

    @functools.cached_property
    def _test(self):
        return Primitive(self._describe(FORWARD_INFERENCE, USE_GLOBAL_STATS), src=self.x,
                         scale=self.c, shift=self.c, dst=self.x, mean=self.c, variance=self.c)

    @functools.cached_property
    def _backward(self):
        description = Description("batch_normalization_backward", BACKWARD, self.x, self.x, self.x,
                                  self.eps, USE_SCALE | USE_SHIFT, self.hint)
        names = "scale", "mean", "variance", "diff_scale", "diff_shift"
        return Primitive(description, src=self.x, diff_dst=self.x, diff_src=self.x,
                         **dict.fromkeys(names, self.c))

    def _numbers(self, count):
        return numpy.empty((count, self.channels), FLOAT)

    def train(self, x, gamma, beta):
        """Return y, and mean and (biased) variance of each channel of the batch."""
        y, mean, var = empty(x.shape), *self._numbers(2)
        self._train(as_channels_last(x), as_dense(gamma), as_dense(beta), y, mean, var)
        return y, mean, var

    def test(self, x, gamma, beta, mean, var):
        """Return y for given statistics."""
        y = empty(x.shape)
        numbers = map(as_dense, (mean, var))
        self._test(as_channels_last(x), as_dense(gamma), as_dense(beta), y, *numbers)
        return y

    def backward(self, x, gy, gamma, mean, var):
        """Return the gradients with respect to x, gamma and beta."""
        gx, ggamma, gbeta = empty(x.shape), *self._numbers(2)
        self._backward(as_channels_last(x), as_channels_last(gy), gx, as_dense(gamma), mean, var,
                       ggamma, gbeta)
        return gx, ggamma, gbeta


normalization = per_thread(Normalization)


#: Function of each element -> algorithm of its gradient, and what that is computed from.
GRADIENTS = {"relu": ("relu", "src"), "sigmoid": ("sigmoid of result", "dst")}


class Activation:
    """The primitives of a function of each element.

    Parameters
    ----------
    kind : str
        A key of `GRADIENTS`.
    size : int
        Number of elements.
    slope : float
        Of a (leaky) ReLU on the negative side.
    """

    def __init__(self, kind, size, slope):
        self.x, self.kind, self.slope = Layout.dense((size,)), kind, slope

    def _describe(self, algorithm):
        return Description("eltwise_forward", FORWARD_TRAINING, ALGORITHMS[algorithm], self.x,
                           self.x, self.slope, 0)

    @functools.cached_property
    def forward(self):
        return Primitive(self._describe(self.kind), src=self.x, dst=self.x)

    @functools.cached_property
    def backward(self):
        algorithm, source = GRADIENTS[self.kind]
        description = Description("eltwise_backward", ALGORITHMS[algorithm], self.x, self.x,
                                  self.x, self.slope, 0, self._describe(algorithm))
        return Primitive(description, **{source: self.x}, diff_dst=self.x, diff_src=self.x)


_activation = per_thread(Activation)


def activate(kind, x, slope=0.0):
    """Return y, the function of each element of x."""
    (x,) = in_one_order(x)
    y = empty_like(x)
    _activation(kind, x.size, slope).forward(x, y)
    return y


def activate_backward(kind, source, gy, slope=0.0):
    """Return the gradient with respect to x, of x (or, for a ReLU, y), or of a sigmoid's y."""
    source, gy = in_one_order(source, gy)
    gx = empty_like(gy)
    _activation(kind, gy.size, slope).backward(source, gy, gx)
    return gx


@per_thread
def _add(size):
    x = Layout.dense((size,))
    return Primitive(Description("binary", ALGORITHMS["binary_add"], x, x, x),
                     src=x, src_1=x, dst=x)


def add(*xs):
    """Return the sum of arrays of one shape."""
    first, *others = in_one_order(*xs)
    total = empty_like(first)
    for x in others:
        _add(x.size)(first, x, total)
        first = total
    return total


class Response:
    """The primitives of local response normalization across channels, of a given shape.

    Parameters
    ----------
    shape : tuple of int
        (N, C, H, W).
    n : int
        Channels that count; half of them, rounded down, to each side.
    k, alpha, beta : float
        y = x (k + alpha sum x^2)^-beta.

    Raises
    ------
    Unsupported
        If the window is not of 3 or 5 channels.
    """

    def __init__(self, shape, n, k, alpha, beta):
        window = 2 * (n // 2) + 1
        if window not in (3, 5):  # oneDNN 3.2 crashes (1) or is wrong (7 and more)
            raise Unsupported(f"local response normalization over {window} channels")
        self.x = maps(shape)
        self.settings = window, alpha * window, beta, k  # oneDNN divides alpha by the window
        self.hint = Description("lrn_forward", FORWARD_TRAINING, self.algorithm, self.x, self.x,
                                *self.settings)
        self.workspace_size = self.hint.layout("workspace").size

    algorithm = ALGORITHMS["lrn_across_channels"]

    def _workspace(self):
        return {"workspace": None} if self.workspace_size else {}

    @functools.cached_property
    def _forward(self):
        return Primitive(self.hint, src=self.x, dst=self.x, **self._workspace())

    @functools.cached_property
    def _backward(self):
        description = Description("lrn_backward", self.algorithm, self.x, self.x, self.x,
                                  *self.settings, self.hint)
        return Primitive(description, src=self.x, diff_dst=self.x, diff_src=self.x,
                         **self._workspace())

    def forward(self, x):
        """Return y, and what `backward` wants to have kept (or None)."""
        y, kept = empty(x.shape), ()
        if self.workspace_size:
            kept = (numpy.empty(self.workspace_size, numpy.uint8),)
        self._forward(as_channels_last(x), y, *kept)
        return y, kept

    def backward(self, x, gy, kept):
        """Return the gradient with respect to x."""
        gx = empty(x.shape)
        self._backward(as_channels_last(x), as_channels_last(gy), gx, *kept)
        return gx


response = per_thread(Response)


def concatenate(xs, axis):
    """Return maps joined along an axis."""
    shape = list(xs[0].shape)
    shape[axis] = sum(x.shape[axis] for x in xs)
    y = empty(tuple(shape))
    for part, x in zip(split(y, [x.shape[axis] for x in xs], axis), xs, strict=True):
        copy(x, part)
    return y


def split(x, sizes, axis):
    """Return views of parts along an axis."""
    return numpy.split(x, numpy.cumsum(sizes)[:-1], axis)


def product(a, b):
    """Return the matrix product of two float32 matrices, either of which may be transposed."""
    (m, k), n = a.shape, b.shape[1]
    y = _memory.empty((m, n), FLOAT)
    (a, order_a, step_a), (b, order_b, step_b) = _operand(a), _operand(b)
    load().dnnl_sgemm(order_a, order_b, m, n, k, 1, a.ctypes.data, step_a, b.ctypes.data, step_b,
                      0, y.ctypes.data, n)
    return y


def _operand(a):
    # A matrix as BLAS takes it: stored by rows (N) or by columns (T), and the length of one.
    if a.flags.f_contiguous and not a.flags.c_contiguous and a.flags.aligned:
        return a, b"T", a.shape[0]
    return as_dense(a), b"N", a.shape[1]


def channel_sums(x):
    """Return the sum of each channel, (C,), of maps."""
    n, c, h, w = x.shape
    rows = as_channels_last(x).transpose(0, 2, 3, 1).reshape(-1, c)
    return product(numpy.ones((1, n * h * w), FLOAT), rows)[0]
