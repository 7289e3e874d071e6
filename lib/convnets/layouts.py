"""Channels last, (N, H, W, C): the layout in which tensor cores take images.

With (N, C, H, W) cuDNN turns half-precision arrays around before and behind each convolution.
Chainer's ``compute_mode='cudnn_fast'`` keeps them turned, as far as its functions know the layout:
convolution without bias, batch normalization in train mode, ReLU and sums do; pooling, the gradient
of a bias and test mode do not. So here a model has ordinary parameters, a convolution takes its
images channels last in train mode, with a gradient for its bias, `max_pooling` and
`average_pooling` take maps as they are, and the model gives what knows no layout `plain` maps. In
test mode images are turned by `entering`, in `ImageClassifier.features`, and `rechainer.cudnn`
normalizes them.

With ``precision='mixed16'`` and ``cudnn_fast_batch_normalization`` of ``chainer.config`` (or the
environment's ``CHAINER_CUDNN_FAST_BATCH_NORMALIZATION=1``) batch normalization, a sum and ReLU are
done by one function of cuDNN's, see `rechainer.cudnn`.
"""

from rechainer import cudnn

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
from chainer import memory_layouts as known
from chainer.backends import cuda
from chainer.functions.connection.convolution_2d import Convolution2DFunction
from chainer.functions.pooling.average_pooling_nd import AveragePoolingND
from chainer.functions.pooling.max_pooling_nd import MaxPoolingND
from chainer.utils.conv import get_conv_outsize


class Turned(chainer.FunctionNode):
    """Maps or filters in another layout, copied once.

    Chainer's ``as_layout`` makes a view, which each function that reads it copies for cuDNN. And
    its backward pass goes by the layout that a gradient is said to have: of filters with the
    channels last Chainer makes a gradient laid out like them that is said to be ordinary.
    """

    def __init__(self, source, layout):
        super().__init__()
        self.source, self.layout = source, layout

    def check_layout_forward(self, inputs):
        """Take every layout."""

    def forward(self, inputs):
        x, = inputs
        axes = known._get_layout_transpose_axes(x.ndim, self.source, self.layout)
        self.output_layouts = (self.layout,)
        return cuda.get_array_module(x).ascontiguousarray(x.transpose(axes)),

    def backward(self, indexes, gys):
        return Turned(self.layout, self.source).apply(gys)


def turned(x, layout):
    """Return a variable in a layout of `chainer.memory_layouts`, itself if it has it already."""
    return x if x.layout == layout else Turned(x.layout, layout).apply((x,))[0]


class SumOverMaps(chainer.FunctionNode):
    """The gradient of a bias: the sum of maps, channels last, over all but the channels."""

    def check_layout_forward(self, inputs):
        """The last axis has the channels."""

    def forward(self, inputs):
        """Return sums (C,) of maps (N, H, W, C); those of float16 are added up in float32."""
        x, = inputs
        self.shape = x.shape
        wide = np.promote_types(x.dtype, np.float32)
        return x.sum(axis=(0, 1, 2), dtype=wide).astype(x.dtype, copy=False),

    def backward(self, indexes, grad_outputs):
        n, h, w, c = self.shape
        sums = F.broadcast_to(F.reshape(grad_outputs[0], (1, c, 1, 1)), (n, c, h, w))
        return turned(sums, known.CUDNN_CHANNEL_LAST_X),


class Convolution(Convolution2DFunction):
    """Chainer's convolution of maps with the channels last, and the gradient of its bias."""

    label = Convolution2DFunction.__name__   # by which hooks and tables know it

    def backward(self, indexes, grad_outputs):
        """Return the gradients of what `indexes` name: maps 0, filters 1, bias 2."""
        others = super().backward([i for i in indexes if i != 2], grad_outputs)
        return [*others, *(SumOverMaps().apply(grad_outputs) if 2 in indexes else ())]


class ChannelsLast(L.Convolution2D):
    """Chainer's convolution, of maps with their channels last in train mode."""

    def forward(self, x):
        """Return maps (N, K, H, W), in train mode with a layout of (N, H, W, K).

        Parameters
        ----------
        x : array or chainer.Variable, shape (N, C, H, W)
            In any layout; in test mode it is the result's.
        """
        x = chainer.as_variable(x)
        # Images and filters of two types are Chainer's business: cuDNN takes one.
        if not chainer.config.train and not (stays_last(x) and x.dtype == self.W.dtype):
            return super().forward(turned(x, None))
        if self.W.array is None:
            self._initialize_params(x.shape[1])
        function = Convolution(self.stride, self.pad, dilate=self.dilate, groups=self.groups,
                               cudnn_fast=True)
        bias = () if self.b is None else (self.b,)
        return function.apply((turned(x, known.CUDNN_CHANNEL_LAST_X),
                               turned(self.W, known.CUDNN_CHANNEL_LAST_W), *bias))[0]


class PoolingLast:
    """Mixin for Chainer's poolings: by cuDNN, of maps with the channels last."""

    def check_layout_forward(self, inputs):
        """The last axis has the channels."""

    def forward(self, inputs):
        """Return what is pooled, (N, Y, X, C), of maps (N, H, W, C)."""
        x, = inputs
        self.retain_inputs((0,))
        self.retain_outputs((0,))
        self.output_layouts = self.input_layouts
        return pooled(x, cover_all=self.cover_all, **self.settings()),

    def settings(self):
        """Return what both ways are called with."""
        return {"ksize": self.ksize, "stride": self.stride, "pad": self.pad,
                "mode": self.get_cudnn_pool_mode(),
                "d_layout": cuda.libcudnn.CUDNN_TENSOR_NHWC}

    def backward(self, indexes, grad_outputs):
        """Return the gradient of the maps."""
        return PoolingGrad(self).apply(
            (*self.get_retained_inputs(), *self.get_retained_outputs(), *grad_outputs))

    def twice(self, grad_outputs):
        """Say that there are no second derivatives.

        Raises
        ------
        RuntimeError
        """
        raise RuntimeError("maximum pooling of maps with the channels last has no second "
                           "derivatives; take them without channels_last=True")


class MaxPooling(PoolingLast, MaxPoolingND):
    """Chainer's maximum pooling, of maps with the channels last."""

    label = MaxPoolingND.__name__


class AveragePooling(PoolingLast, AveragePoolingND):
    """Chainer's average pooling, of maps with the channels last."""

    label = AveragePoolingND.__name__

    def twice(self, grad_outputs):
        """Return the gradient of the upper gradient: the average of its gradient."""
        again = AveragePooling(self.ndim, self.ksize, self.stride, self.pad)
        return None, None, *again.apply(grad_outputs)


class PoolingGrad(chainer.FunctionNode):
    """The gradient of a pooling with the channels last."""

    def __init__(self, of):
        super().__init__()
        self.of = of

    @property
    def label(self):
        """By which hooks and tables know it."""
        return f"{self.of.label}Grad"

    def check_layout_forward(self, inputs):
        """All of them are channels last."""

    def forward(self, inputs):
        """Return gx of x, y and gy."""
        self.output_layouts = self.input_layouts[:1]
        return cuda.cudnn.pooling_backward(*inputs, **self.of.settings()),

    def backward(self, indexes, grad_outputs):
        """Return second derivatives, where there are some."""
        return self.of.twice(grad_outputs)


def pooled(x, ksize, stride, pad, mode, d_layout, cover_all):
    """Return what cuDNN pools, an array (N, Y, X, C), of an array (N, H, W, C).

    Parameters
    ----------
    ksize, stride, pad : pair of int
    mode, d_layout : int
        Of cuDNN's; the layout is NHWC.
    cover_all : bool
        Whether a last window may hang over the border.
    """
    n, *size, c = x.shape
    out = [get_conv_outsize(*dims, cover_all=cover_all)
           for dims in zip(size, ksize, stride, pad, strict=True)]
    y = cuda.cupy.empty((n, *out, c), x.dtype)
    return cuda.cudnn.pooling_forward(x, y, ksize, stride, pad, mode, d_layout=d_layout)


def max_pooling(h, ksize, stride=None, pad=0, cover_all=True):
    """Return the maxima of windows, in the layout of the maps where cuDNN can.

    Parameters
    ----------
    h : array or chainer.Variable, shape (N, C, H, W)
        In any layout.
    ksize, stride, pad, cover_all
        As of `chainer.functions.max_pooling_2d`.

    Returns
    -------
    chainer.Variable, shape (N, C, Y, X)
    """
    if stays_last(h):
        return MaxPooling(2, ksize, stride, pad, cover_all).apply((h,))[0]
    return F.max_pooling_2d(plain(h), ksize, stride, pad, cover_all)


def average_pooling(h, ksize, stride=None, pad=0):
    """Return the means of windows, in the layout of the maps where cuDNN can.

    Parameters
    ----------
    h : array or chainer.Variable, shape (N, C, H, W)
        In any layout.
    ksize, stride, pad
        As of `chainer.functions.average_pooling_2d`.

    Returns
    -------
    chainer.Variable, shape (N, C, Y, X)
    """
    if stays_last(h):
        return AveragePooling(2, ksize, stride, pad).apply((h,))[0]
    return F.average_pooling_2d(plain(h), ksize, stride, pad)


def stays_last(h):
    """Tell whether maps have their channels last and can stay so."""
    return getattr(h, "layout", None) == known.CUDNN_CHANNEL_LAST_X and has_cudnn()


def has_cudnn():
    """Tell whether cuDNN is used, and it is the one that pools and normalizes in any layout."""
    return cudnn.stands_in(cuda) and chainer.should_use_cudnn(">=auto")


def entering(model, x):
    """Return images as a model wants them: with the channels last where it is asked for that.

    In train mode the first convolution turns them. In test mode Chainer's normalization has no
    gradients in this layout: so there they are turned only where nobody asks for gradients.

    Parameters
    ----------
    model : chainer.Link
    x : array or chainer.Variable, shape (N, C, H, W)
    """
    wanted = (getattr(model, "channels_last", False)
              and not chainer.config.train and not chainer.config.enable_backprop)
    if wanted and has_cudnn() and isinstance(chainer.as_array(x), cuda.ndarray):
        return turned(chainer.as_variable(x), known.CUDNN_CHANNEL_LAST_X)
    return x


def plain(h):
    """Return maps in the ordinary layout, for a function that knows no other.

    Parameters
    ----------
    h : array or chainer.Variable, shape (N, C, H, W)
    """
    return turned(h, None) if isinstance(h, chainer.Variable) else h


def use_channels_last(model, device):
    """Have a model's convolutions run with the channels last, in training and in inference.

    Parameters
    ----------
    model : chainer.Link
        A residual network or a VGG of `convnets.models`, or another whose attribute
        ``knows_layouts`` says that it gives `plain` maps to what knows no other layout.
    device : chainer.backend.Device

    Raises
    ------
    ValueError
        If the device is no GPU with cuDNN, or the model has parts that know one layout only.
    """
    option = "channels_last=True (--channels-last)"
    if not isinstance(device, cuda.GpuDevice) or not cuda.cudnn_enabled:
        raise ValueError(f"{option} is a layout of cuDNN's, for a GPU; {device.name} has none. "
                         f"Give device='@cupy:0' (--device @cupy:0), or leave it out")
    if not getattr(model, "knows_layouts", False):
        raise ValueError(f"{option} is for residual networks, their plain twins and VGG; "
                         f"{type(model).__name__} has parts that know one layout only")
    model.channels_last = True
    for link in model.links():
        if isinstance(link, L.Convolution2D):
            link.__class__ = ChannelsLast
