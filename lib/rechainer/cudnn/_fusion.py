"""Batch normalization, a sum and ReLU by one function of cuDNN's.

In train mode, of float16 maps with the channels last, their number a multiple of 4, cuDNN's
``cudnnBatchNormalizationForwardTrainingEx`` applies ReLU to what it normalizes and adds other maps
before that; ``cudnnBatchNormalizationBackwardEx`` gives all gradients. So maps are read and written
by two functions instead of four, or five with a sum. They belong to those that Chainer's own
``chainer.config.cudnn_fast_batch_normalization`` asks for, so that is the switch here, too: no
line of a model changes. (They add up scaled integers: values that are too large for them
become NaN. So Chainer leaves it off.) For test mode cuDNN has no such function; there Chainer does
not even normalize in this layout, so a function for that is here, too (`FixedLast`).

When Chainer normalizes it does not know what follows. So here a normalization that could be done
so, and a sum with it, wait until someone asks for their values (`Waiting`). If that is ReLU, one
function does all of it; if it is anyone else, what Chainer would have done before is done then. For
what nobody asks, nothing is done: running statistics do not count it.
"""

import warnings
import weakref
from typing import NamedTuple

from rechainer.cudnn import _surface

import chainer
import numpy
from chainer.backends import cuda
from chainer.function_node import FunctionNode
from chainer.functions.activation.relu import ReLU
from chainer.functions.math.basic_math import Add
from chainer.functions.normalization import batch_normalization
from chainer.functions.normalization.batch_normalization import (
    BatchNormalization,
    FixedBatchNormalization,
)
from chainer.memory_layouts import CUDNN_CHANNEL_LAST_X
from chainer.variable import Variable

#: cuDNN's fused functions take channels in groups of so many.
GROUP = 4

#: (shape, whether there is a sum) of what cuDNN has refused to do as one.
refused = set()


class Call(NamedTuple):
    """A function that is yet to be applied, and whether it is to be part of the graph."""

    function: FunctionNode
    inputs: tuple
    backprop: bool


class Waiting(Variable):
    """The result of a normalization or a sum, calculated when someone asks for more than its shape.

    Parameters
    ----------
    function : BatchNormalization or Add
    inputs : tuple of chainer.Variable or array
        The first has the result's shape and layout.
    """

    def __init__(self, function, inputs):
        # Not Variable's: what that sets is found missing, and calculated then.
        self.call = Call(function, inputs, chainer.config.enable_backprop)
        self._layout = inputs[0].layout

    @property
    def shape(self):
        """Shape (N, C, H, W)."""
        return super().shape if self.call is None else self.call.inputs[0].shape

    def __getattr__(self, name):
        if vars(self).get("call") is None:
            raise AttributeError(f"'Variable' object has no attribute {name!r}")
        self.calculate()
        return getattr(self, name)

    def __copy__(self):
        if self.call is not None:
            self.calculate()
        return super().__copy__()

    def calculate(self):
        """Apply the function as Chainer does, and become its result."""
        function, inputs, backprop = self.call
        with chainer.using_config("enable_backprop", backprop):
            result, = FunctionNode.apply(function, inputs)
        self.call = None
        vars(self).update(vars(result))
        self._node._variable = weakref.ref(self)

    def is_normalization(self):
        """Tell whether it is a normalization that nobody has asked for yet."""
        return self.call is not None and isinstance(self.call.function, BatchNormalization)


def normalize(self, inputs):
    """Do BatchNormalization.apply: wait, where ReLU could be done with it."""
    if _can_be_fused(self, *inputs):
        return (Waiting(self, inputs),)
    return FunctionNode.apply(self, inputs)


def _can_be_fused(node, x, gamma, beta):
    config = chainer.config
    return (config.cudnn_fast_batch_normalization
            and isinstance(x, Variable) and x.layout == CUDNN_CHANNEL_LAST_X
            and isinstance(x.raw_array, cuda.ndarray)
            and chainer.should_use_cudnn(">=auto", 5000)
            and not config.debug and config.schedule_func is None
            and node._impl_selector is batch_normalization._impl_selector
            and node.axis in (None, (0, 2, 3))
            and _are_taken(x.raw_array, gamma, beta))


def _are_taken(x, gamma, beta):
    n_channels = x.shape[-1]
    return (x.dtype == numpy.float16 and x.ndim == 4 and n_channels % GROUP == 0
            and x.size > n_channels     # of one value each Chainer warns
            and all(a.dtype == numpy.float32 and a.shape == (n_channels,) for a in (gamma, beta)))


def add(self, inputs):
    """Do Add.apply: wait with a normalization that waits."""
    waiting = [x for x in inputs if _is_waiting(x)]
    if waiting and inputs[0] is not inputs[1] and all(map(_is_like(waiting[0]), inputs)):
        return (Waiting(self, inputs),)
    return FunctionNode.apply(self, inputs)


def _is_waiting(x):
    return isinstance(x, Waiting) and x.is_normalization()


def _is_like(one):
    """Return a function that tells whether something is a variable of the same kind."""
    def is_like(x):
        return x is one or (isinstance(x, Variable) and x.layout == one.layout
                            and x.shape == one.shape and x.dtype == numpy.float16)

    return is_like


def rectify(self, inputs):
    """Do ReLU.apply: with what waits, by one function."""
    y = _fused(*inputs) if isinstance(inputs[0], Waiting) else None
    return FunctionNode.apply(self, inputs) if y is None else (y,)


def _fused(x):
    """Return the ReLU of what waits, or None if it must be calculated in turn."""
    normalization, addends = _parts(x)
    if (normalization is None or x.call.backprop != chainer.config.enable_backprop
            or (x.shape, bool(addends)) in refused):
        return None
    function, inputs, _ = normalization.call
    try:
        y, = NormalizedReLU(function).apply((*inputs, *addends))
    except _surface.Failure as error:
        refused.add((x.shape, bool(addends)))
        warnings.warn(f"cuDNN has no function for batch normalization{' + sum' * bool(addends)} + "
                      f"ReLU of maps {x.shape}; they are calculated in turn. It says: {error}",
                      stacklevel=2)
        return None
    # Who asks for the normalization itself after that gets it; its statistics have been counted.
    function.running_mean = function.running_var = None
    return y


def _parts(x):
    """Return the normalization in what waits, or None, and a tuple of what is added to it."""
    if x.call is None or x.is_normalization():
        return (x if x.call else None), ()
    found = next(filter(_is_waiting, x.call.inputs), None)
    one, other = x.call.inputs
    return found, (other if one is found else one,)


class NormalizedReLU(FunctionNode):
    """ReLU of normalized maps, or of the sum of these and others.

    Parameters
    ----------
    normalization : BatchNormalization
        Its settings and running statistics are used.
    """

    def __init__(self, normalization):
        super().__init__()
        self.normalization = normalization

    def check_layout_forward(self, inputs):
        """They were looked at before."""

    def forward(self, inputs):
        """Return y (N, H, W, C) of x, gamma (C,), beta (C,) and, if there are, others like x."""
        x, gamma, beta, *z = inputs
        self.retain_inputs((0, 1, 2))
        self.retain_outputs((0,))
        self.output_layouts = self.input_layouts[:1]
        of = self.normalization
        running = of.running_mean, of.running_var
        if of.running_mean is None:
            running = cuda.cupy.zeros_like(gamma), cuda.cupy.zeros_like(gamma)
        self.reserve, y, self.mean, self.inv_std = _surface.batch_normalization_forward_training_ex(
            x, gamma, beta, *running, None, None, of.eps, of.decay, True, _surface.PERSISTENT,
            False, d_layout=_surface.NHWC, relu=True, z=z[0] if z else None)
        return (y,)

    def backward(self, indexes, grad_outputs):
        """Return the gradients of all inputs."""
        return NormalizedReLUGrad(self).apply(
            (*self.get_retained_inputs(), *self.get_retained_outputs(), *grad_outputs))


class NormalizedReLUGrad(FunctionNode):
    """The gradients of `NormalizedReLU`."""

    def __init__(self, forward):
        super().__init__()
        self.of, self.add = forward, len(forward.inputs) > 3

    def check_layout_forward(self, inputs):
        """All maps are channels last."""

    def forward(self, inputs):
        """Return gx, ggamma, gbeta and, if there was a sum, gz of x, gamma, beta, y and gy."""
        x, gamma, beta, y, gy = inputs
        of, last = self.of, self.input_layouts[0]
        self.output_layouts = (last, None, None, *(last,) * self.add)
        return _surface.batch_normalization_backward(
            x, gamma, gy, of.mean, of.inv_std, of.normalization.eps, True,
            _surface.PERSISTENT, False, d_layout=_surface.NHWC, reserve_space=of.reserve, y=y,
            beta=beta, add=self.add)

    def backward(self, indexes, grad_outputs):
        """Say that there are no second derivatives, as Chainer has none in this layout.

        Raises
        ------
        RuntimeError
        """
        raise RuntimeError("batch normalization of maps with the channels last has no second "
                           "derivatives; take them without compute_mode='cudnn_fast'")


class FixedLast(FunctionNode):
    """Batch normalization by given statistics, of maps with the channels last; without gradients.

    Parameters
    ----------
    eps : float
        Added to the variance.
    """

    label = FixedBatchNormalization.__name__

    def __init__(self, eps):
        super().__init__()
        self.eps = eps

    def check_layout_forward(self, inputs):
        """The first input's was looked at before; the others have one axis."""

    def forward(self, inputs):
        """Return y (N, H, W, C) of x, and gamma, beta, mean and variance (C,)."""
        self.output_layouts = self.input_layouts[:1]
        return (_surface.batch_normalization_forward_inference(
            *inputs, self.eps, True, _surface.SPATIAL, d_layout=_surface.NHWC),)

    def backward(self, indexes, grad_outputs):
        """Say that there are none.

        Raises
        ------
        RuntimeError
        """
        raise RuntimeError("batch normalization of maps with the channels last has no gradients in "
                           "test mode; give it maps with the channels first: x.as_layout(None)")


def fix(self, inputs):
    """Do FixedBatchNormalization.apply, of maps with the channels last, too."""
    x = inputs[0]
    if (isinstance(x, Variable) and x.layout == CUDNN_CHANNEL_LAST_X
            and self.axis in (None, (0, 2, 3)) and chainer.should_use_cudnn(">=auto", 5000)):
        return FixedLast(self.eps).apply(inputs)
    return FunctionNode.apply(self, inputs)


REPLACEMENTS = {BatchNormalization: normalize, Add: add, ReLU: rectify,
                FixedBatchNormalization: fix}


def install():
    """Have Chainer's functions wait for one another, and normalize in any layout."""
    for cls, apply in REPLACEMENTS.items():
        cls.apply = apply
