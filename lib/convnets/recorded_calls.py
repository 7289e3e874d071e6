"""What Chainer calls in a training step, written down, and a program that does the same.

`StepTape` writes the functions down, forward and backward: in Chainer the gradients are functions'
outputs, too. `Translation` adds each to a `rechainer.onednn.TrainingProgram`: by primitives where
there are some (`BUILDERS`), else as the function itself.
"""

import copy
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import count
from typing import NamedTuple

from rechainer import onednn
from rechainer.onednn import Given, Unsupported

import chainer
import numpy as np
from chainer.functions.activation.relu import ReLU, ReLUGrad2
from chainer.functions.activation.sigmoid import Sigmoid, SigmoidGrad
from chainer.functions.array.reshape import Reshape
from chainer.functions.connection.convolution_2d import Convolution2DFunction, Convolution2DGradW
from chainer.functions.connection.deconvolution_2d import Deconvolution2DFunction
from chainer.functions.connection.linear import LinearFunction, LinearGradData, LinearGradWeight
from chainer.functions.loss.softmax_cross_entropy import (
    SoftmaxCrossEntropy,
    _SoftmaxCrossEntropyGrad_NoDoubleBackprop,
)
from chainer.functions.math.basic_math import Add
from chainer.functions.math.sum import Sum
from chainer.functions.normalization.batch_normalization import (
    BatchNormalization,
    BatchNormalizationGrad,
)
from chainer.functions.pooling.average_pooling_2d import AveragePooling2D, AveragePooling2DGrad
from chainer.functions.pooling.max_pooling_nd import MaxPoolingND, MaxPoolingNDGrad

from .cuda_graphs import GraphError
from .losses import check_labels
from .optimize import Tape


class Kept(NamedTuple):
    """An array that a function keeps for others."""

    number: int
    shape: tuple
    dtype: np.dtype


@dataclass(eq=False)
class Call:
    """A function that Chainer has called in a step, forward or backward.

    Values have numbers; the first are the minibatch's. What no function computed is an array.
    """

    node: chainer.FunctionNode      # as it was before the call
    inputs: tuple                   # int or array
    outputs: tuple                  # int
    shapes: tuple                   # of the outputs
    dtypes: tuple
    captured: dict = field(default_factory=dict)   # attribute: int or array
    kept: dict = field(default_factory=dict)       # attribute that the call sets: Kept
    activation: str | None = None
    parts: tuple = ()               # the calls that this one stands for

    def reads(self):
        """Return the numbers of the values that it reads."""
        return [x for x in (*self.inputs, *self.captured.values()) if isinstance(x, int)]

    def writes(self):
        """Return the numbers of the values that it makes."""
        return [*self.outputs, *(x.number for x in self.kept.values())]


class StepTape(Tape):
    """Writes down the functions called while it is active, in the backward pass, too.

    Parameters
    ----------
    arrays : sequence of array
        The minibatch, values 0, 1 and so on.
    """

    def __init__(self, arrays):
        super().__init__(arrays[0])
        for array in arrays[1:]:
            self._new(array)

    def forward_preprocess(self, function, in_data):
        """Have the function tell what it reads, returns and keeps."""
        node, ordinary = copy.copy(function), function.forward

        def forward(inputs):
            known = tuple(self.number(x, x) for x in inputs)
            captured = {name: self.number(x, x) for name, x in state_of(node)}
            for name, x in captured.items():
                if isinstance(x, int) and "." not in name:
                    setattr(node, name, None)      # so that it does not outlive the step
            outputs = ordinary(inputs)
            numbers = tuple(map(self._new, outputs))
            kept = {name: Kept(self._number_of_kept(x), x.shape, x.dtype)
                    for name, x in arrays_of(function) if name not in captured}
            self.ops.append(Call(node, known, numbers, tuple(y.shape for y in outputs),
                                 tuple(y.dtype for y in outputs), captured, kept))
            return outputs

        function.forward = forward

    def _number_of_kept(self, array):
        number = self.number(array)
        return self._new(array) if number is None else number


def refused(reason):
    """Return an error that says what cannot be recorded, and what to do."""
    return GraphError(
        f"this step cannot be recorded: {reason}. Each step must do the same, by functions of "
        f"Chainer alone: NumPy, counters and tests of values in the model's own code, label "
        f"smoothing and top-k accuracy are not repeated. Go without recorded=True (--recorded), "
        f"or write that part with chainer.functions")


def arrays_of(node):
    """Return (name, array) of a function's attributes that are arrays."""
    return [(name, x) for name, x in vars(node).items() if isinstance(x, np.ndarray)]


def state_of(node):
    """Return (name, array) of a function's arrays and, as a.b, those of functions it knows."""
    return arrays_of(node) + [
        (f"{name}.{inner}", x) for name, function in vars(node).items()
        if isinstance(function, chainer.FunctionNode) for inner, x in arrays_of(function)]


ACTIVATIONS = {ReLU: "relu", Sigmoid: "sigmoid"}
ACTIVATIONS_BACK = ReLUGrad2, SigmoidGrad

#: Function -> the activations that its primitive can apply.
APPLIED_BY = {
    Convolution2DFunction: (ReLU, Sigmoid),
    LinearFunction: (ReLU, Sigmoid),
    Add: (ReLU, Sigmoid),
    BatchNormalization: (ReLU,),
}

#: Gradient of weights -> the axes over which the gradient of the bias is a sum.
BIAS_AXES = {Convolution2DGradW: (0, 2, 3), LinearGradWeight: (0,)}


def needed(calls, results):
    """Return calls but for those whose outputs no one reads and that have no other effect."""
    read, ready = set(results), []
    for call in reversed(calls):
        if type(call.node) not in PURE or not read.isdisjoint(call.writes()):
            read.update(call.reads())
            ready.append(call)
    return ready[::-1]


def swapped(calls, results):
    """Return calls in which activations come behind maxima over windows, where there is less to do.

    An activation rises: that of the maximum is the maximum of the activations.
    """
    counts, ready = readers(calls, results), list(calls)
    normalized = {n for call in calls for n in call.outputs
                  if type(call.node) is BatchNormalization}    # whose ReLU costs nothing
    numbers = count(max((n for call in calls for n in call.writes()), default=0) + 1)
    for activation in calls:
        if (type(activation.node) not in ACTIVATIONS or activation.inputs[0] in normalized
                or counts[activation.outputs[0]] != 2):
            continue
        chain = [activation, *_chain(calls, activation)]
        if len(chain) < 4 or counts[chain[2].outputs[0]] != 1:
            continue
        _, pooling, pooling_back, back = chain
        (y,), (pooled,), (gy,) = activation.outputs, pooling.outputs, pooling_back.outputs
        highest, ghighest = next(numbers), next(numbers)
        new = [
            replace(pooling, inputs=activation.inputs, outputs=(highest,)),
            replace(activation, inputs=(highest,), outputs=(pooled,), shapes=pooling.shapes),
            renumbered(back, {y: pooled, gy: pooling_back.inputs[0]}, (ghighest,), pooling.shapes),
            replace(pooling_back, inputs=(ghighest,), outputs=back.outputs),
        ]
        for call, other in zip(chain, new, strict=True):
            ready[ready.index(call)] = other
    return ready


def _chain(calls, activation):
    """Yield the pooling behind an activation, its gradient, and the activation's."""
    (y,) = activation.outputs
    for pooling in calls:
        if type(pooling.node) is MaxPoolingND and pooling.inputs == (y,):
            yield pooling
            indexes = pooling.kept["indexes"].number
            for back in calls:
                kind = type(back.node)
                if ((kind in ACTIVATIONS_BACK and y in back.reads())
                        or (kind is MaxPoolingNDGrad and indexes in back.captured.values())):
                    yield back


def renumbered(call, numbers, outputs, shapes):
    """Return a call that reads other values, and writes others."""
    def new(x):
        return numbers.get(x, x) if isinstance(x, int) else x

    return replace(call, inputs=tuple(map(new, call.inputs)), outputs=outputs, shapes=shapes,
                   captured={name: new(x) for name, x in call.captured.items()})


def joined(calls, results):
    """Return calls joined where a primitive does several.

    Layers, normalizations and additions apply activations, the gradient of a normalization that of
    its ReLU, and gradients of weights come with the bias's.

    Parameters
    ----------
    calls : list of Call
    results : sequence of int
        Values that someone wants besides the calls.
    """
    counts, made, weights, ready = readers(calls, results), {}, {}, []
    for call in calls:
        x = call.inputs[2 if type(call.node) is BatchNormalizationGrad else 0]
        maker = made.get(x) if isinstance(x, int) and counts[x] == 1 else None
        if maker and _is_activation_of(maker, call):
            both = replace(maker, outputs=call.outputs, activation=ACTIVATIONS[type(call.node)],
                           parts=(maker, call))
            ready[ready.index(maker)] = both
        elif maker and _is_normalization_of(maker, call, made):
            both = replace(call, inputs=(*call.inputs[:2], *maker.inputs), activation="relu",
                           parts=(maker, call))
            ready.remove(maker)
            ready.append(both)
        elif isinstance(x, int) and x in weights and _is_bias_of(weights[x], call):
            host = weights.pop(x)
            both = replace(host, outputs=host.outputs + call.outputs,
                           shapes=host.shapes + call.shapes, dtypes=host.dtypes + call.dtypes,
                           parts=(host, call))
            ready[ready.index(host)] = both
        else:
            both = call
            ready.append(call)
            if type(call.node) in BIAS_AXES and isinstance(call.inputs[1], int):
                weights[call.inputs[1]] = call
        made.update(dict.fromkeys(both.outputs, both))
    return ready


def _is_activation_of(maker, call):
    return (maker.activation is None
            and type(call.node) in APPLIED_BY.get(type(maker.node), ()))


def _is_normalization_of(maker, call, made):
    """Tell whether calls are the gradients of a ReLU and of the normalization before it."""
    if type(maker.node) is not ReLUGrad2 or type(call.node) is not BatchNormalizationGrad:
        return False
    forward = made.get(maker.captured["b"]) if isinstance(maker.captured["b"], int) else None
    return (forward is not None and type(forward.node) is BatchNormalization
            and forward.activation == "relu"
            and forward.kept["mean"].number == call.captured["mean"])


def _is_bias_of(host, call):
    return (type(call.node) is Sum and not call.node.keepdims
            and call.node.axis == BIAS_AXES[type(host.node)])


def readers(calls, results):
    """Return how many times each value is read."""
    return Counter([*results, *(x for call in calls for x in call.reads())])


class Translation:
    """A program made of calls.

    Parameters
    ----------
    arrays : sequence of array
        The minibatch, of which shapes and types matter.
    calls : list of Call
    gradients : list of (int or None, array)
        Value and place of each gradient that is wanted; None for zeros.
    results : list of int
        Values that a run returns.
    own : list of array
        The model's, which a run is to read where they are.

    Raises
    ------
    GraphError
        If there is something among the calls that no program can do.
    """

    def __init__(self, arrays, calls, gradients, results, own):
        self.program = onednn.TrainingProgram(arrays)
        self.values = dict(enumerate(self.program.inputs))
        self.statistics, self.scores, self._given = {}, {}, {}
        self._places = {n: Given(place) for n, place in gradients if n is not None}
        wanted = [*(n for n, _ in gradients if n is not None), *results]
        calls = swapped(needed(calls, wanted), wanted)
        self._counts = readers(calls, wanted)
        self._n, self._own = len(arrays[0]), {id(array) for array in own}
        for call in joined(calls, wanted):
            self._check(call)
            self._add(call)
        for number, place in gradients:
            self._fill(number, place)
        self.program.finish(*(self.values[n] for n in results))

    def _fill(self, number, place):
        """See to it that a gradient is where it is wanted."""
        if number is None:
            self.program.call(lambda arrays: (0,), (), None, (Given(place),))
        elif self.values[number].array is not place:
            self.program.call(tuple, (self.values[number],), None, (Given(place),))

    def _check(self, call):
        for dtype in call.dtypes:
            if dtype != np.float32:
                raise refused(f"{call.node.label} returns {dtype}, and there is only float32")
        for x in (*call.inputs, *call.captured.values()):
            if not isinstance(x, int) and self._is_of_batch(x) and type(call.node) not in MEANS:
                raise refused(f"{call.node.label} gets an array of shape {x.shape} that no "
                              f"function of Chainer has made of the minibatch")

    def _is_of_batch(self, array):
        # Maps of zeros, which some networks join with others, are the same in each step.
        return (array.ndim and len(array) == self._n > 1 and id(array) not in self._own
                and (array.ndim != 4 or array.any()))

    def _add(self, call):
        try:
            values = BUILDERS.get(type(call.node), Translation._call)(self, call)
        except Unsupported:
            for part in call.parts:
                self._add(part)
            if call.parts:
                return
            values = self._call(call)
        self.values.update(zip(call.outputs, values, strict=True))

    def _call(self, call):
        """Add a function as it is."""
        numbers = call.reads()
        if not self.values.keys() >= set(numbers):
            raise refused(f"{call.node.label} needs what oneDNN keeps in another form")
        kept = {name: x for name, x in call.kept.items() if self._counts[x.number]
                and x.number not in self.values and x.number not in call.outputs}
        for name, x in kept.items():
            if x.dtype != np.float32:
                raise refused(f"{call.node.label} keeps {name} as {x.dtype}")
        outputs = list(map(self.output, call.outputs, call.shapes))
        also = [onednn.Value(x.shape) for x in kept.values()]

        def run(arrays):
            known = dict(zip(numbers, arrays, strict=True))
            node = with_state(call, known)
            results = node.forward(tuple(_filled(call.inputs, known)))
            return *results, *(getattr(node, name) for name in kept)

        self.program.call(run, [self.values[n] for n in numbers], None, (*outputs, *also))
        self.values.update(zip((x.number for x in kept.values()), also, strict=True))
        return outputs

    def known(self, number, among=None):
        """Return what there is of a value.

        Raises
        ------
        Unsupported
            If a primitive did not make it.
        """
        found = (self.values if among is None else among).get(number)
        if found is None:
            raise Unsupported("an array that primitives do not make")
        return found

    def value(self, x):
        """Return what a call reads: a value that was computed, or an array that is there."""
        if isinstance(x, int):
            return self.known(x)
        if x.dtype != np.float32 or not x.flags.c_contiguous:
            raise Unsupported("an array of another type or order")
        return self._given.setdefault(id(x), Given(x))    # which keeps the array, and its id

    def output(self, number, shape):
        """Return where a call writes: the place of a gradient, or memory of the program's."""
        return self._places.get(number) or onednn.Value(shape)


def with_state(call, known):
    """Return a call's function with the arrays that it knows from others."""
    node = copy.copy(call.node)
    for name, number in call.captured.items():
        if isinstance(number, int):
            owner, _, attribute = name.rpartition(".")
            if owner:
                setattr(node, owner, copy.copy(getattr(node, owner)))
            setattr(getattr(node, owner) if owner else node, attribute, known[number])
    return node


def _filled(inputs, known):
    return (known[x] if isinstance(x, int) else x for x in inputs)


def _windows(node):
    return (node.sy, node.sx), (node.ph, node.pw), (node.dy, node.dx)


def _layer_inputs(step, call):
    x, w, *b = map(step.value, call.inputs)
    return x, w, *(b or (None,))


def _weight_gradients(step, call):
    x, gy = map(step.value, call.inputs)
    places = [step.output(n, shape) for n, shape in zip(call.outputs, call.shapes, strict=True)]
    return x, gy, places


def _convolution(step, call):
    x, w, b = _layer_inputs(step, call)
    return (step.program.convolution_forward(x, w, b, call.shapes[0], _windows(call.node),
                                             call.activation),)


def _convolution_data(step, call):
    gy, w, b = _layer_inputs(step, call)
    if b is not None:
        raise Unsupported("a transposed convolution with a bias")
    return (step.program.convolution_backward_data(gy, w, call.shapes[0], _windows(call.node)),)


def _convolution_weights(step, call):
    x, gy, places = _weight_gradients(step, call)
    step.program.convolution_backward_weights(x, gy, _windows(call.node), *places)
    return places


def _linear(step, call):
    return (step.program.linear_forward(*_layer_inputs(step, call), call.activation),)


def _linear_data(step, call):
    return (step.program.linear_backward_data(*map(step.value, call.inputs)),)


def _linear_weights(step, call):
    x, gy, places = _weight_gradients(step, call)
    step.program.linear_backward_weights(x, gy, *places)
    return places


def _max_pooling(step, call):
    y, indexes = step.program.pooling_forward("max", step.value(call.inputs[0]), call.shapes[0],
                                              *_window(call.node))
    step.values[call.kept["indexes"].number] = indexes
    return (y,)


def _max_pooling_back(step, call):
    indexes = step.known(call.captured["func.indexes"])
    return (step.program.pooling_backward("max", step.value(call.inputs[0]), call.shapes[0],
                                          *_window(call.node.func), indexes),)


def _window(node):
    return tuple(node.ksize), tuple(node.stride), tuple(node.pad)


def _average_pooling(step, call):
    y, _ = step.program.pooling_forward(AVERAGE, step.value(call.inputs[0]), call.shapes[0],
                                        *_window_2d(call.node))
    return (y,)


def _average_pooling_back(step, call):
    return (step.program.pooling_backward(AVERAGE, step.value(call.inputs[0]), call.shapes[0],
                                          *_window_2d(call.node)),)


AVERAGE = "avg_include_padding"


def _window_2d(node):
    return (node.kh, node.kw), (node.sy, node.sx), (node.ph, node.pw)


def _activation(step, call):
    return (step.program.activation(ACTIVATIONS[type(call.node)], step.value(call.inputs[0])),)


def _relu_back(step, call):
    y = step.value(call.captured["b"])
    return (step.program.activation_backward("relu", y, step.value(call.inputs[0])),)


def _sigmoid_back(step, call):
    return (step.program.activation_backward("sigmoid", *map(step.value, call.inputs)),)


def _add(step, call):
    return (step.program.add(*map(step.value, call.inputs), call.activation),)


def _reshape(step, call):
    return (step.program.reshape(step.value(call.inputs[0]), call.shapes[0]),)


def _normalization(step, call):
    node = call.node
    if node.axis not in (None, (0, 2, 3)) or len(call.shapes[0]) != 4:
        raise Unsupported("batch normalization over other axes")
    x, gamma, beta = map(step.value, call.inputs)
    y, mean, var, above = step.program.normalization_forward(
        x, gamma, beta, node.eps, call.activation == "relu")
    step.statistics[call.kept["mean"].number] = mean, var, above
    if node.running_mean is not None:
        n = x.shape[0] * x.shape[2] * x.shape[3]
        adjust = n / max(n - 1, 1)    # an estimate without bias
        step.program.call(lambda arrays: _follow(node, adjust, *arrays), (mean, var), ())
    return (y,)


def _follow(node, adjust, mean, var):
    """Update the moving averages."""
    node.running_mean *= node.decay
    node.running_mean += (1 - node.decay) * mean
    node.running_var *= node.decay
    node.running_var += (1 - node.decay) * adjust * var
    return ()


def _normalization_back(step, call):
    x, gamma, gy = map(step.value, call.inputs)
    mean, var, above = step.known(call.captured["mean"], step.statistics)
    if call.activation is None:
        above = None
    places = [step.output(n, gamma.shape) for n in call.outputs[1:]]
    gx = step.program.normalization_backward(x, gy, gamma, mean, var, call.node.eps, *places,
                                             above)
    return gx, *places


class CrossEntropy:
    """Softmax, cross entropy and their gradient; labels of `ignore_label` do not count."""

    def __init__(self, node, n):
        self.normalize, self.ignored, self.rows = node.normalize, node.ignore_label, np.arange(n)

    def forward(self, x, t):
        """Return the loss of logits x (N, K) and labels t (N,), and the probabilities."""
        self.counts = t != self.ignored
        self.places = self.rows, t * self.counts
        check_labels(self.places[1], x.shape[1])
        self.scale = 1 / max(int(np.count_nonzero(self.counts)) if self.normalize else len(t), 1)
        y = x - x.max(axis=1, keepdims=True)
        log_p = y[self.places]
        np.exp(y, out=y)
        total = y.sum(axis=1, keepdims=True)
        y /= total
        log_p -= np.log(total[:, 0])
        return -self.scale * np.dot(log_p, self.counts), y

    def backward(self, y, gloss):
        """Return the gradient with respect to the logits."""
        gx = y.copy()
        gx[self.places] -= 1
        gx *= (gloss * np.float32(self.scale) * self.counts)[:, None]
        return gx


def _cross_entropy(step, call):
    node, (x, t) = call.node, call.inputs
    if node.reduce == "no":
        raise Unsupported("a loss for each example")
    logits, labels = step.value(x), step.values.get(t) if isinstance(t, int) else None
    if node.class_weight is not None or labels is None or len(logits.shape) != 2:
        raise refused("softmax_cross_entropy must be of logits (N, n_class) and of the "
                      "minibatch's labels (N,), without class weights")
    score = CrossEntropy(node, logits.shape[0])
    loss, y = step.program.call(lambda arrays: score.forward(*arrays), (logits, labels),
                                ((), logits.shape))
    step.scores[call.kept["y"].number] = score, y
    return (loss,)


def _cross_entropy_back(step, call):
    gloss = call.inputs[2]
    score, y = step.known(call.captured["y"], step.scores)
    return step.program.call(lambda arrays: (score.backward(*arrays),), (y, step.value(gloss)),
                             call.shapes)


#: Functions that make arrays of ones and zeros for a normalization without scale or shift.
MEANS = BatchNormalization, BatchNormalizationGrad

#: Function -> what adds it to a program; all others are called as they are.
BUILDERS = {
    Convolution2DFunction: _convolution,
    Deconvolution2DFunction: _convolution_data,
    Convolution2DGradW: _convolution_weights,
    LinearFunction: _linear,
    LinearGradData: _linear_data,
    LinearGradWeight: _linear_weights,
    MaxPoolingND: _max_pooling,
    MaxPoolingNDGrad: _max_pooling_back,
    AveragePooling2D: _average_pooling,
    AveragePooling2DGrad: _average_pooling_back,
    ReLU: _activation,
    ReLUGrad2: _relu_back,
    Sigmoid: _activation,
    SigmoidGrad: _sigmoid_back,
    Add: _add,
    Reshape: _reshape,
    BatchNormalization: _normalization,
    BatchNormalizationGrad: _normalization_back,
    SoftmaxCrossEntropy: _cross_entropy,
    _SoftmaxCrossEntropyGrad_NoDoubleBackprop: _cross_entropy_back,
}

#: Functions that do nothing but return something.
PURE = BUILDERS.keys() - {BatchNormalization} | {Sum}
