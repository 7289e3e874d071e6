"""Where Chainer's own way to iDeep does not do, its methods are replaced.

Each replacement asks `use_ideep` as Chainer does. A method that runs into something oneDNN does
not offer runs again without it.
"""

import copy
import functools
import importlib.util
from typing import NamedTuple

from rechainer import _hooks
from rechainer._removed_modules import lent
from rechainer.onednn import _ideep4py, _library
from rechainer.onednn import _operations as ops
from rechainer.onednn._arrays import zeros
from rechainer.onednn._library import Unsupported
from rechainer.onednn._products import in_threads

import numpy


def is_usable():
    """Tell whether the library is there and loads, and no ideep4py is in its place."""
    if importlib.util.find_spec("ideep4py") is not None:
        return False
    try:
        _library.load()
    except OSError:
        return False
    return True


def import_intel64(module, execute):
    """Seam: ``chainer.backends.intel64`` finds oneDNN by the name of ideep4py."""
    if not is_usable():
        return execute()
    with lent({"ideep4py": _ideep4py}):
        execute()
    module.inputs_all_ready = inputs_all_ready


def inputs_all_ready(inputs, supported_ndim=(2, 4)):
    """Tell whether oneDNN takes these arrays or variables."""
    arrays = [getattr(x, "array", x) for x in inputs]
    return _ideep4py.check_type(arrays) and _ideep4py.check_ndim(arrays, supported_ndim)


def wanted(*inputs, supported_ndim=(4,)):
    """Tell whether ``use_ideep`` asks for oneDNN and it takes these arrays.

    A value that is none of Chainer's is no error here: functions that are asked in its stead do
    not look at it in stock Chainer.
    """
    import chainer
    from chainer.backends import intel64

    return (chainer.config.use_ideep in ("auto", "always") and intel64.is_ideep_available()
            and inputs_all_ready(inputs, supported_ndim))


def with_retreat(method):
    """Wrap a method of a function node: what oneDNN does not offer is done without it."""

    @functools.wraps(method)
    def forward(self, inputs):
        try:
            return method(self, inputs)
        except Unsupported:
            import chainer

            self._use_ideep = False
            with chainer.using_config("use_ideep", "never"):
                return method(self, inputs)

    return forward


def _convolution(node, x_shape, w_shape, y_shape):
    return ops.convolution(tuple(x_shape), tuple(w_shape), tuple(y_shape), (node.sy, node.sx),
                           (node.ph, node.pw), (node.dy, node.dx))


def convolve(self, x, W, b):
    """Convolution2DFunction: y of x."""
    y_shape = (len(x), len(W), *self._get_out_size(x.shape, W.shape))
    return (_convolution(self, x.shape, W.shape, y_shape).forward(x, W, b),)


def convolve_back(self, x, W, b):
    """Deconvolution2DFunction: gx of gy, which is called x here."""
    gx_shape = (len(x), W.shape[1] * self.groups, self.outh, self.outw)
    gx = _convolution(self, gx_shape, W.shape, x.shape).backward_data(W, x)
    if b is not None:
        gx += b[:, None, None]
    return (gx,)


def correlate(self, x, gy):
    """Convolution2DGradW: gW of x and gy."""
    return (_convolution(self, x.shape, self.W_shape, gy.shape).backward_weights(x, gy),)


def with_groups(ordinary):
    """Groups are no reason not to use oneDNN."""

    def method(self, *arrays):
        return self._forward_ideep(*arrays) if self._use_ideep else ordinary(self, *arrays)

    return method


def with_dilation(ordinary):
    """Deconvolution2DFunction: nor is dilation, of a grouped convolution or another."""

    def forward_cpu(self, inputs):
        self._use_ideep = wanted(*inputs)
        return ordinary(self, inputs)

    return with_retreat(forward_cpu)


def pool_average(self, xs):
    """AveragePooling2D: the mean over windows, of which the padding is a part."""
    (x,) = xs
    self._in_shape, self._in_dtype = x.shape, x.dtype
    size = _pooled(x.shape[2:], (self.kh, self.kw), (self.sy, self.sx), (self.ph, self.pw), False)
    return (_average(self, size).forward(x)[0],)


def pool_average_back(self, gys):
    """AveragePooling2DGrad."""
    return (_average(self, gys[0].shape[2:]).backward(gys[0]),)


def _average(node, size):
    return ops.pooling("avg_include_padding", node._in_shape, (*node._in_shape[:2], *size),
                       (node.kh, node.kw), (node.sy, node.sx), (node.ph, node.pw))


def pool_max(self, xs):
    """MaxPoolingND: the maximum over windows, and its place, which is Chainer's index, too."""
    (x,) = xs
    self._in_shape, self._in_dtype = x.shape, x.dtype
    size = _pooled(x.shape[2:], self.ksize, self.stride, self.pad, self.cover_all)
    y, indexes = _maximum(self, size).forward(x)
    self.indexes = indexes.view(_ideep4py.mdarray)
    return (y,)


def pool_max_back(self, gys):
    """MaxPoolingNDGrad."""
    indexes = self.func.indexes
    if not isinstance(indexes, _ideep4py.mdarray):
        raise Unsupported("indices of a maximum that NumPy has found")
    return (_maximum(self.func, gys[0].shape[2:]).backward(gys[0], indexes),)


def _maximum(node, size):
    return ops.pooling("max", node._in_shape, (*node._in_shape[:2], *size), tuple(node.ksize),
                       tuple(node.stride), tuple(node.pad))


def _pooled(size, ksize, stride, pad, cover_all):
    from chainer.utils.conv import get_conv_outsize

    axes = zip(size, ksize, stride, pad, strict=True)
    size = tuple(get_conv_outsize(i, k, s, p, cover_all) for i, k, s, p in axes)
    if min(size) <= 0:
        raise Unsupported("pooling to nothing, of which Chainer tells")
    return size


def with_checked_axes(ordinary):
    """_BNMode: Chainer forgets to ask which axis the channels are."""

    def init(self, x, gamma, key_axis, inference=False):
        ordinary(self, x, gamma, key_axis, inference)
        self.ideep_ok = self.ideep_ok and tuple(key_axis) == (1,)

    return init


def with_sigmoid(ordinary):
    """Sigmoid: NumPy takes six passes and a slow tanh."""

    def forward_cpu(self, inputs):
        if not wanted(*inputs, supported_ndim=(2, 4)):
            return ordinary(self, inputs)
        self.retain_outputs((0,))
        self._use_cudnn = False
        return (ops.activate("sigmoid", *inputs),)

    return forward_cpu


def with_sigmoid_back(ordinary):
    """SigmoidGrad, of y and gy."""

    def forward_cpu(self, inputs):
        if not wanted(*inputs, supported_ndim=(2, 4)):
            return ordinary(self, inputs)
        self.retain_inputs((0, 1))
        return (ops.activate_backward("sigmoid", *inputs),)

    return forward_cpu


def with_addition(ordinary):
    """Add: two maps, gradients that meet among them."""

    def forward(self, xs):
        a, b = xs
        if a.shape == b.shape and wanted(a, b):
            return (ops.add(a, b),)
        return ordinary(self, xs)

    return forward


def with_channel_sums(ordinary):
    """Sum: over all but the channels, as the gradient of a bias is."""

    def forward(self, xs):
        if self.axis == (0, 2, 3) and not self.keepdims and wanted(*xs):
            return (ops.channel_sums(*xs),)
        return ordinary(self, xs)

    return forward


def with_plain_slices(ordinary):
    """GetItemGrad: where no element is taken twice, the gradient is put, not added."""
    plain = int, slice, type(None), type(...)

    def forward(self, gys):
        is_plain = all(type(s) in plain for s in self.slices) and len(self._in_shape) == 4
        if not (is_plain and wanted(*gys)):
            return ordinary(self, gys)
        gx = zeros(self._in_shape)
        gx[self.slices] = gys[0]
        return (gx,)

    return forward


#: Elements of a parameter that are updated at a time: what the rules read and write of so many
#: stays in the processor's cache.
PIECE = 1 << 16


class Piece(NamedTuple):
    """A part of a parameter as an update rule sees it."""

    data: numpy.ndarray
    grad: numpy.ndarray
    dtype: numpy.dtype

    def __setattr__(self, name, value):
        """Ignore what ``param.data -= x`` assigns when it has changed the array."""


def in_pieces(ordinary):
    """Update rules: one pass through memory instead of one for each operation, the same bits."""

    def update_core_cpu(self, param):
        whole = self.state or {}
        arrays = [param.data, param.grad, *whole.values()]
        if not _divisible(arrays):
            return ordinary(self, param)
        data, grad, *states = (array.reshape(-1) for array in arrays)

        def work(numbers):
            rule = copy.copy(self)  # It has the state of one piece.
            for i in range(numbers.start, numbers.stop):
                part = slice(i * PIECE, (i + 1) * PIECE)
                rule._state = dict(zip(whole, (s[part] for s in states), strict=True))
                ordinary(rule, Piece(data[part], grad[part], data.dtype))

        in_threads(work, -(-data.size // PIECE))

    return update_core_cpu


def _divisible(arrays):
    return (wanted(*arrays, supported_ndim=range(1, 9)) and arrays[0].size > PIECE
            and all(a.size == arrays[0].size and a.flags.c_contiguous for a in arrays))


def instead(method):
    """Return what replaces a method by another."""
    return lambda ordinary: method


CONVOLUTION = "chainer.functions.connection.convolution_2d"
DECONVOLUTION = "chainer.functions.connection.deconvolution_2d"
MAX = "chainer.functions.pooling.max_pooling_nd"
AVERAGE = "chainer.functions.pooling.average_pooling_2d"

#: Module -> class -> method -> function that makes the new method of the ordinary one.
REPLACEMENTS = {
    CONVOLUTION: {
        "Convolution2DFunction": {
            "forward_cpu": with_retreat,
            "_forward_ideep": instead(convolve),
            "_forward_grouped_convolution": with_groups,
        },
        "Convolution2DGradW": {
            "forward_cpu": with_retreat,
            "_forward_ideep": instead(correlate),
            "_forward_grouped_convolution": with_groups,
        },
    },
    DECONVOLUTION: {
        "Deconvolution2DFunction": {
            "forward_cpu": with_dilation,
            "_forward_ideep": instead(convolve_back),
            "_forward_grouped_convolution": with_groups,
        },
    },
    MAX: {
        "MaxPoolingND": {"forward_cpu": with_retreat, "_forward_2d_ideep": instead(pool_max)},
        "MaxPoolingNDGrad": {
            "forward_cpu": with_retreat,
            "_forward_2d_ideep": instead(pool_max_back),
        },
    },
    AVERAGE: {
        "AveragePooling2D": {
            "forward_cpu": with_retreat,
            "_forward_ideep": instead(pool_average),
        },
        "AveragePooling2DGrad": {
            "forward_cpu": with_retreat,
            "_forward_ideep": instead(pool_average_back),
        },
    },
    "chainer.functions.normalization.batch_normalization": {
        "_BNMode": {"__init__": with_checked_axes},
    },
    "chainer.functions.normalization.local_response_normalization": {
        "LocalResponseNormalization": {"forward_cpu": with_retreat},
    },
    "chainer.functions.activation.sigmoid": {
        "Sigmoid": {"forward_cpu": with_sigmoid},
        "SigmoidGrad": {"forward_cpu": with_sigmoid_back},
    },
    "chainer.optimizers.adam": {"AdamRule": {"update_core_cpu": in_pieces}},
    "chainer.optimizers.momentum_sgd": {"MomentumSGDRule": {"update_core_cpu": in_pieces}},
    "chainer.optimizers.sgd": {"SGDRule": {"update_core_cpu": in_pieces}},
    "chainer.functions.math.basic_math": {"Add": {"forward": with_addition}},
    "chainer.functions.math.sum": {"Sum": {"forward": with_channel_sums}},
    "chainer.functions.array.get_item": {"GetItemGrad": {"forward": with_plain_slices}},
}


def replace_methods(module, execute):
    """Seam: replace what `REPLACEMENTS` names."""
    execute()
    if is_usable():
        _hooks.replace_methods(module, REPLACEMENTS[module.__name__])


SEAMS = {"chainer.backends.intel64": import_intel64} | dict.fromkeys(REPLACEMENTS, replace_methods)
