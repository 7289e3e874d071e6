"""Whole steps of training: operations forward and backward, laid out in memory once.

As in a `Program` for inference, to run a step is to execute one primitive after the other. Weights
are read where they are, since an optimizer changes them, and gradients are written where they are
wanted.
"""

import functools
import math

from rechainer.onednn import _operations as ops
from rechainer.onednn._arrays import copy
from rechainer.onednn._library import (
    ALGORITHMS,
    BACKWARD,
    FORWARD_TRAINING,
    FUSE_RELU,
    USE_SCALE,
    USE_SHIFT,
    Unsupported,
)
from rechainer.onednn._primitives import Description, Layout, PostOps, Primitive, is_same, reorder
from rechainer.onednn._programs import Program, Step, Value
from rechainer.onednn._windows import Wide, is_whole

import numpy


class Given(Value):
    """An array that is there already: a parameter, a gradient to be written, images, labels.

    Parameters
    ----------
    array : numpy.ndarray
        C-contiguous; the program reads or writes this very memory.
    """

    def __init__(self, array):
        self.array, self.shape, self.root = array, array.shape, self
        self.layout = Layout.dense(array.shape) if array.ndim else None
        self.bytes = array.nbytes


class Packed(Value):
    """What primitives keep among themselves: weights in their order, indices of a maximum."""

    def __init__(self, layout):
        self.layout, self.bytes, self.root, self.shape = layout, layout.size, self, (layout.size,)

    def view(self, memory):
        """Return memory as an array of bytes."""
        return memory[:self.bytes]


class TrainingProgram(Program):
    """A step of training; each method adds an operation and returns its `Value` or values.

    Maps are (N, C, H, W). A value to be written can be given as the last argument, such as the
    gradient of a parameter; else there will be memory for it.

    Parameters
    ----------
    arrays : sequence of numpy.ndarray
        A minibatch: each run takes others of these shapes and types.
    """

    def __init__(self, arrays):
        super().__init__((0,))
        self._batch = [_place_for(array) for array in arrays]
        self.inputs = [Maps(a) if a.ndim == 4 else Given(a) for a in self._batch]
        self._packed = {}

    def run(self, *arrays):
        """Run on a minibatch; return the results as arrays that the next run does not change."""
        for mine, new in zip(self._batch, arrays, strict=True):
            _copy(new, mine)
        for step in self._runs:
            step()
        return [numpy.array(result) for result in self._results]

    def call(self, function, values, shapes, outputs=None):
        """Add a function of a list of arrays to a tuple of float32 arrays of these shapes."""
        outputs = tuple(map(Value, shapes)) if outputs is None else outputs

        def run(arrays, targets):
            for result, target in zip(function(arrays), targets, strict=True):
                _copy(result, target)

        self.steps.append(Step(run, tuple(values), tuple(outputs)))
        return outputs

    def _add(self, description, reads, writes):
        """Add a primitive; `reads` and `writes` are {argument: value or (layout, value)}."""
        both = {name: v if isinstance(v, tuple) else (v.layout, v)
                for name, v in {**reads, **writes}.items()}
        primitive = Primitive(description, **{name: layout for name, (layout, _) in both.items()})
        self.steps.append(Step(primitive, tuple(both[name][1] for name in reads),
                               tuple(both[name][1] for name in writes),
                               [value for _, value in both.values()]))

    def _write(self, function, reads, write):
        """Add a function of arrays, the last of which it writes to."""
        reads = tuple(v for v in reads if v is not None)
        self.steps.append(Step(lambda arrays, outputs: function(*arrays, *outputs), reads,
                               (write,)))

    def _in_order(self, w, plain, order):
        """Return weights in the order of a layout; each order is made once in a step."""
        if is_same(plain, order):
            return order, w
        known = self._packed.setdefault(w, [])
        for packed in known:
            if is_same(packed.layout, order):
                return order, packed
        packed = Packed(order)
        self.steps.append(Step(reorder(plain, order), (w,), (packed,), (w, packed)))
        known.append(packed)
        return order, packed

    def _out_of_order(self, w, plain, order):
        """Return where to write weights in the order of a layout, and what to do after that."""
        if is_same(plain, order):
            return (order, w), lambda: None
        packed = Packed(order)
        step = Step(reorder(order, plain), (packed,), (w,), (packed, w))
        return (order, packed), lambda: self.steps.append(step)

    def convolution_forward(self, x, w, b, y_shape, windows, activation=None):
        """Add y = w * x + b, and an activation; `windows` are stride, pad and dilation."""
        if is_whole(x.shape, w.shape, y_shape, windows):
            return reshaped(self.linear_forward(x, w, b, activation), y_shape)
        maps_of(x)
        y, wide = Value(y_shape), Wide.of(w.shape, y_shape, windows)
        if wide:
            w, b = self._widened(wide, w, b)
            self._convolution_forward(x, w, b, reshaped(y, wide.y_shape), wide.windows, activation)
        else:
            self._convolution_forward(x, w, b, y, windows, activation)
        return y

    def _widened(self, wide, w, b):
        """Add what keeps wide weights and bias up to date; return these."""
        (wider,) = self.call(lambda arrays: (wide.widened(*arrays),), (w,), None,
                             (Given(numpy.zeros(wide.w_shape, numpy.float32)),))
        if b is not None:
            (b,) = self.call(lambda arrays: (wide.repeated(*arrays),), (b,), (wide.w_shape[:1],))
        return wider, b

    def _convolution_forward(self, x, w, b, y, windows, activation):
        c = ops.convolution(x.shape, w.shape, y.shape, *windows)
        if c.forward_otherwise and activation in ((None,) if c.is_pointwise else (None, "relu")):
            self._write(functools.partial(_multiply, c, activation), (x, w, b), y)
            return
        description = Description(
            "convolution_forward", FORWARD_TRAINING, ops.DIRECT, c.x, c.any_w, b and c.b, c.y,
            *c.geometry, post_ops=activation and PostOps(activation=activation))
        bias = {} if b is None else {"bias": b}
        self._add(description, {"src": x, "weights": self._in_order(
            w, c.w, description.layout("weights")), **bias}, {"dst": y})

    def convolution_backward_data(self, gy, w, x_shape, windows):
        """Add the gradient with respect to x."""
        if is_whole(x_shape, w.shape, gy.shape, windows):
            return self.linear_backward_data(w, gy, x_shape)
        c, gx = ops.convolution(x_shape, w.shape, maps_of(gy).shape, *windows), Value(x_shape)
        if c.backward_data_otherwise:
            self._write(c.backward_data_otherwise, (w, gy), gx)
            return gx
        x, y = c.x, c.y
        if x_shape[1] < ops.FEW_CHANNELS:    # in vectors of 8, two of them empty
            x, y = Layout(x_shape), Layout(gy.shape)
        description = Description("convolution_backward_data", ops.DIRECT, x, c.any_w, y,
                                  *c.geometry, c.hint if x is c.x else Description(
                                      "convolution_forward", FORWARD_TRAINING, ops.DIRECT, x,
                                      c.any_w, None, y, *c.geometry))
        target, finish = self._out_of_order(gx, c.x, description.layout("diff_src"))
        self._add(description, {
            "diff_dst": self._in_order(gy, c.y, description.layout("diff_dst")),
            "weights": self._in_order(w, c.w, description.layout("weights"))},
            {"diff_src": target})
        finish()
        return gx

    def convolution_backward_weights(self, x, gy, windows, gw, gb=None):
        """Add the gradients with respect to w and, if it is wanted, b."""
        maps_of(x), maps_of(gy)
        wide = Wide.of(gw.shape, gy.shape, windows)
        if is_whole(x.shape, gw.shape, gy.shape, windows):
            self.linear_backward_weights(x, gy, gw, gb)
        elif wide:
            targets = (gw, gb) if gb else (gw,)
            wider = [Given(numpy.empty(shape, numpy.float32))
                     for shape in (wide.w_shape, wide.w_shape[:1])[:len(targets)]]
            self._convolution_backward_weights(x, reshaped(gy, wide.y_shape), wide.windows, *wider)
            self.call(lambda arrays: wide.narrowed(*arrays), wider, None, targets)
        else:
            self._convolution_backward_weights(x, gy, windows, gw, gb)

    def _convolution_backward_weights(self, x, gy, windows, gw, gb=None):
        c = ops.convolution(x.shape, gw.shape, gy.shape, *windows)
        products = c.backward_weights_otherwise
        if products:
            self.call(lambda arrays: (products(*arrays),), (x, gy), None, (gw,))
            if gb is not None:
                self.call(lambda arrays: (ops.channel_sums(*arrays),), (gy,), None, (gb,))
            return
        bias = {} if gb is None else {"diff_bias": gb}
        description = Description("convolution_backward_weights", ops.DIRECT, c.x, c.any_w,
                                  gb and c.b, c.y, *c.geometry, c.hint)
        target, finish = self._out_of_order(gw, c.w, description.layout("diff_weights"))
        self._add(description, {"src": x, "diff_dst": gy}, {"diff_weights": target, **bias})
        finish()

    def linear_forward(self, x, w, b, activation=None):
        """Add y = x W^T + b, and an activation; x and the rows of W are vectors or maps."""
        y = Value((x.shape[0], w.shape[0]))
        description = self._linear(x, w, b, y, activation)
        bias = {} if b is None else {"bias": b}
        self._add(description, {"src": x, "weights": self._in_order(
            w, w.layout, description.layout("weights")), **bias}, {"dst": y})
        return y

    @staticmethod
    def _linear(x, w, b, y, activation=None):
        # Vectors: W as it is, which oneDNN multiplies as fast. Maps: channels last, as x.
        any_w = w.layout if len(w.shape) == 2 else Layout(w.shape)
        return Description("inner_product_forward", FORWARD_TRAINING, x.layout, any_w,
                           b and b.layout, y.layout,
                           post_ops=activation and PostOps(activation=activation))

    def linear_backward_data(self, w, gy, x_shape=None):
        """Add the gradient with respect to x."""
        gx = Value(x_shape or (gy.shape[0], w.shape[1]))
        gy = _as_vectors(gy)
        forward = self._linear(gx, w, None, gy)
        order = forward.layout("weights")
        description = Description("inner_product_backward_data", gx.layout, order, gy.layout,
                                  forward)
        self._add(description, {"diff_dst": gy, "weights": self._in_order(w, w.layout, order)},
                  {"diff_src": gx})
        return gx

    def linear_backward_weights(self, x, gy, gw, gb=None):
        """Add the gradients with respect to W and, if it is wanted, b."""
        gy = _as_vectors(gy)
        bias = {} if gb is None else {"diff_bias": gb}
        forward = self._linear(x, gw, gb, gy)
        order = forward.layout("weights")
        description = Description("inner_product_backward_weights", x.layout, order,
                                  gb and gb.layout, gy.layout, forward)
        target, finish = self._out_of_order(gw, gw.layout, order)
        self._add(description, {"src": x, "diff_dst": gy}, {"diff_weights": target, **bias})
        finish()

    def pooling_forward(self, kind, x, y_shape, kernel, stride, pad):
        """Add a pooling; return y and, of the maximum, its indices (else None)."""
        p, y = ops.pooling(kind, maps_of(x).shape, y_shape, kernel, stride, pad), Value(y_shape)
        workspace = {name: Packed(layout) for name, layout in p.workspace.items()}
        self._add(p.hint, {"src": x}, {"dst": y, **workspace})
        return y, workspace.get("workspace")

    def pooling_backward(self, kind, gy, x_shape, kernel, stride, pad, indexes=None):
        """Add the gradient with respect to x."""
        p = ops.pooling(kind, x_shape, maps_of(gy).shape, kernel, stride, pad)
        description = Description("pooling_backward", p.algorithm, p.x, p.y, *p.geometry, p.hint)
        workspace, gx = {} if indexes is None else {"workspace": indexes}, Value(x_shape)
        self._add(description, {"diff_dst": gy, **workspace}, {"diff_src": gx})
        return gx

    def activation_backward(self, kind, source, gy):
        """Add the gradient with respect to x, of x (or, for a ReLU, y), or of a sigmoid's y."""
        gx, layout = Value(gy.shape), _in_a_row(source, gy)
        algorithm, name = ops.GRADIENTS[kind]
        forward = Description("eltwise_forward", FORWARD_TRAINING, ALGORITHMS[algorithm], layout,
                              layout, 0, 0)
        description = Description("eltwise_backward", ALGORITHMS[algorithm], layout, layout,
                                  layout, 0, 0, forward)
        self._add(description, {name: (layout, source), "diff_dst": (layout, gy)},
                  {"diff_src": (layout, gx)})
        return gx

    def normalization_forward(self, x, gamma, beta, eps, relu=False):
        """Add a batch normalization and, if it is wanted, a ReLU.

        Returns
        -------
        tuple of Value
            y, mean and variance of the batch's channels, and where the ReLU was above 0, or None.
        """
        y, mean, var = Value(maps_of(x).shape), Value(gamma.shape), Value(gamma.shape)
        description = _normalization(x, eps, relu)
        workspace = {"workspace": Packed(description.layout("workspace"))} if relu else {}
        self._add(description, {"src": x, "scale": gamma, "shift": beta},
                  {"dst": y, "mean": mean, "variance": var, **workspace})
        return y, mean, var, workspace.get("workspace")

    def normalization_backward(self, x, gy, gamma, mean, var, eps, ggamma, gbeta, above=None):
        """Add the gradients with respect to x, gamma and beta."""
        relu, gx = above is not None, Value(maps_of(x).shape)
        workspace = {"workspace": above} if relu else {}
        description = Description(
            "batch_normalization_backward", BACKWARD, x.layout, x.layout, x.layout, eps,
            SCALE_SHIFT | relu * FUSE_RELU, _normalization(x, eps, relu))
        self._add(description, {"src": x, "diff_dst": maps_of(gy), "scale": gamma, "mean": mean,
                                "variance": var, **workspace},
                  {"diff_src": gx, "diff_scale": ggamma, "diff_shift": gbeta})
        return gx


def _normalization(x, eps, relu):
    return Description("batch_normalization_forward", FORWARD_TRAINING, x.layout, x.layout, eps,
                       SCALE_SHIFT | relu * FUSE_RELU)


SCALE_SHIFT = USE_SCALE | USE_SHIFT


class Maps(Given):
    """Maps (N, C, H, W) that are there already, their channels side by side."""

    def __init__(self, array):
        super().__init__(array)
        self.layout = Value(array.shape).layout


def _multiply(c, activation, x, w, *arrays):
    """Write a convolution and an activation to the last array; a bias comes before it."""
    *b, y = arrays
    options = {"activation": activation} if activation else {}
    c.forward_otherwise(x, w, *(b or (None,)), y, **options)


def _as_vectors(y):
    """Return values (N, O, 1, 1) as (N, O)."""
    return reshaped(y, y.shape[:2]) if len(y.shape) == 4 else y


def reshaped(value, shape):
    """Return a value of the program's as another of the same memory."""
    if value.root.array is not None:
        raise Unsupported("another shape of memory that is not the program's")
    return Value(shape, value.root)


def maps_of(value):
    """Return a value if it is maps whose channels lie side by side.

    Raises
    ------
    Unsupported
        If it is something else.
    """
    if len(value.shape) != 4 or type(value) is Given:
        raise Unsupported(f"an array of shape {value.shape} in the place of maps")
    return value


def _in_a_row(*values):
    """Return the layout of all elements in the order of the memory, which values share."""
    if len({v.shape for v in values}) > 1:
        raise Unsupported("arrays of different shapes")
    if len(values[0].shape) == 4:
        for value in values:
            maps_of(value)
    return Layout.dense((math.prod(values[0].shape),))


def _place_for(array):
    if array.ndim == 4 and array.dtype == numpy.float32:
        n, c, h, w = array.shape
        return numpy.empty((n, h, w, c), array.dtype).transpose(0, 3, 1, 2)
    return numpy.empty(array.shape, array.dtype)


def _copy(source, target):
    if target.ndim == 4 and source.dtype == target.dtype == numpy.float32:
        copy(source, target)
    else:
        numpy.copyto(target, source)
