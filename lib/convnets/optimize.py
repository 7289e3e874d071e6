"""Trained networks made ready for inference: fewer operations, the same outputs.

In test mode a batch normalization behind a convolution is a change of its weights, and a ReLU or
an addition can be done while the convolution's result is still in the processor's cache. So a
network is run once for each shape of its input, the functions that it calls are written down,
joined where they can be, and from then on these are executed: by oneDNN on a processor, by cuDNN on
a GPU (`convnets.gpu_plan`).
"""

import copy
import functools
import itertools
import math
import warnings
import weakref
from collections import Counter
from dataclasses import dataclass, replace

from rechainer import cudnn, onednn

import chainer
import numpy as np
from chainer import backend
from chainer.functions.activation.relu import ReLU
from chainer.functions.activation.sigmoid import Sigmoid
from chainer.functions.array.concat import Concat
from chainer.functions.array.reshape import Reshape
from chainer.functions.connection.convolution_2d import Convolution2DFunction
from chainer.functions.connection.linear import LinearFunction
from chainer.functions.math.basic_math import Add
from chainer.functions.normalization.batch_normalization import FixedBatchNormalization
from chainer.functions.pooling.average_pooling_2d import AveragePooling2D
from chainer.functions.pooling.max_pooling_nd import MaxPoolingND

from . import gpu_plan
from .models import ImageClassifier
from .models.base import choose

#: Shapes of input whose plans a thread keeps; beyond it the oldest goes.
N_PLANS = 8

#: Multiplications in a batch from which threads compute parts of it: they meet after 0.1 ms. Up to
#: which one thread computes it all: a second would wait longer than it helps.
PARTS_FROM, ALONE_TO = 1e8, 5e5

#: How far outputs may be from the original's, relative to the largest, before `optimize` refuses.
TOLERANCE = 1e-3
#: The same on a GPU, where float32 is rounded to TF32 in both, by the type that is computed in.
TOLERANCES = {"float32": 1e-2, "float16": 5e-2}
#: Type that is computed in, by the name of the precision.
PRECISIONS = {None: "float32", "mixed16": "float16"}


def optimize(model, *, precision=None, cuda_graph=False):
    """Return a copy of a trained model that computes the same in test mode, faster.

    Batch normalizations are folded into the convolutions before them. Where
    ``chainer.config.use_ideep`` asks for oneDNN, or on a GPU with cuDNN, weights are also
    reordered once, ReLU, sigmoid and addition are done within convolutions, and maps stay with
    their channels last. The first call for a shape of images prepares it and takes longer.

    Parameters
    ----------
    model : ImageClassifier
        With float32 parameters, on the device that it shall run on. It stays as it is, and later
        changes of it do not reach the copy.
    precision : str, optional
        ``"mixed16"`` computes in float16 on a GPU: what was folded is rounded. Images and results
        are float32 all the same.
    cuda_graph : bool
        On a GPU, record the whole for each shape of images and launch it at once; it is worth most
        for few images. Of no more than `N_PLANS` shapes: each keeps memory of its own.

    Returns
    -------
    Optimized
        With `logits`, `predict`, `features` and ``forward`` of the model, in test mode only, and
        without parameters: it can be neither trained nor saved.

    Raises
    ------
    TypeError
        If it is no image classifier of this library's kind.
    ValueError
        If parameters are missing or are not float32, if the model computes something that is not
        a function of Chainer, or if an option is for a GPU with cuDNN and there is none.
    """
    if not isinstance(model, ImageClassifier) or not isinstance(model, chainer.Link):
        raise TypeError(f"optimize takes a model of convnets.models or a link that is an "
                        f"ImageClassifier, got {type(model).__name__}")
    if isinstance(model, Optimized):
        return model
    _check_parameters(model)
    choose("precision", PRECISIONS, precision)
    if (precision or cuda_graph) and not gpu_plan.wanted(next(model.params()).array):
        raise ValueError(f"precision='mixed16' and cuda_graph=True are for a GPU with cuDNN, and "
                         f"this model is on {model.device}: to_device('@cupy:0') before optimize, "
                         f"or leave them out")
    return Optimized(model, precision, cuda_graph)


def _check_parameters(model):
    for name, parameter in model.namedparams():
        if parameter.array is None:
            raise ValueError(f"{name} has no shape yet: call the model once before optimizing it")
        if parameter.dtype != np.float32:
            raise ValueError(f"{name} is {parameter.dtype}: optimize works in float32 only, "
                             f"the type of models made under chainer.config.dtype = 'float32'; "
                             f"precision='mixed16' rounds it for a GPU")


class Optimized(ImageClassifier, chainer.Link):
    """What `optimize` returns.

    Parameters
    ----------
    model : ImageClassifier
    precision : str or None
    cuda_graph : bool
    """

    def __init__(self, model, precision=None, cuda_graph=False):
        super().__init__()
        self.to_device(model.device)
        self._dtype, self._cuda_graph = np.dtype(PRECISIONS[precision]), cuda_graph
        self.in_shape, self.any_size = model.in_shape, model.any_size
        self.preprocessing = model.preprocessing
        self._name = type(model).__name__
        self._hollow, self._arrays = hollow(model)
        self._hollow.channels_last = False    # the plan sees to that
        self._names = frozenset(self._arrays)
        x = self.device.send(np.random.RandomState(0).rand(1, *model.in_shape).astype("f"))
        with chainer.using_config("train", False), chainer.using_device(self.device):
            ops = joined(*self._trace(x, None))
            self._layers = {self._key(op): self._layer(op) for op in ops if op.weights}
            alone = {id(x) for op in ops for x in op.inputs}
            for used in {id(array) for op in ops for array in op.weights} - alone:
                self._arrays.pop(used, None)      # what the layers have made of it is enough
            self._check(model, x)

    def _check(self, model, x):
        """Compare with the original, on other images than the plan was made with."""
        with chainer.no_backprop_mode():
            self.logits(x)
            y, expected = self.logits(1 - x).array, model.logits(1 - x).array
        onednn.kept_for(self).clear()    # images may come in other batches, which want other tiles
        error = float(abs(y - expected).max() / abs(expected).max())
        if not error <= (TOLERANCES[self._dtype.name] if gpu_plan.wanted(x) else TOLERANCE):
            raise ValueError(f"{self._name} cannot be optimized: outputs differ by {error:.1g} of "
                             f"the largest. Its results in test mode must be made from images by "
                             f"functions of Chainer alone, without NumPy and chance")

    def stages(self):
        """Raise an error: what happens between stages is joined."""
        raise NotImplementedError("an optimized model has no stages; features(x, pick) works, "
                                  "and the original model still has its stages")

    def features(self, x, pick):
        """Return the output of one stage of the model; see `ImageClassifier.features`."""
        return self._run(x, pick)

    def logits(self, x):
        """Return one unnormalised score per class, (N, n_class)."""
        return self._run(x, None)

    def serialize(self, serializer):
        """Raise an error: there is nothing to save or load."""
        raise TypeError("an optimized model cannot be saved or loaded: save the original, load "
                        "it, and optimize it again")

    def _run(self, x, pick):
        if chainer.config.train:
            raise RuntimeError(
                "optimize is for inference: call an optimized model within "
                "chainer.using_config('train', False), or use predict; train the original")
        images = x.array if isinstance(x, chainer.Variable) else x
        plan = self._plan(images, pick)
        if chainer.config.enable_backprop or chainer.get_function_hooks():
            return Inference(plan).apply((x,))[0]
        # No one asks for a graph: a small network waits less.
        return chainer.Variable(plan(images), requires_grad=False)

    def _plan(self, x, pick):
        """Return the function that computes the output from images like `x`."""
        # What is asked below has the same answer each time: a small network waits for one look.
        engine = chainer.config.use_ideep if type(x) is np.ndarray else gpu_plan.settings()
        key = type(x), x.shape, x.dtype, pick, engine, self.device.name
        plans = onednn.kept_for(self)
        if key not in plans:
            self._check_images(x)
            if len(plans) >= N_PLANS:
                del plans[next(iter(plans))]
            plans[key] = self._make(x, pick)
        return plans[key]

    def _check_images(self, x):
        self._hollow.check_input(x)
        if x.dtype != np.float32:
            raise ValueError(f"an optimized model takes float32 images, got {x.dtype}")
        if backend.get_device_from_array(x) != self.device:
            raise ValueError(f"the model was optimized on {self.device}: send images there, or "
                             f"optimize the original after to_device")

    def _make(self, x, pick):
        if gpu_plan.wanted(x):
            with x.device:
                return self._make_on_gpu(x, pick)
        if self._dtype != np.float32:
            raise ValueError("this model was optimized with precision='mixed16', which cuDNN "
                             "computes: set chainer.config.use_cudnn = 'auto' again")
        is_fast = onednn.wanted(x)
        if is_fast:
            onednn.free_memory()
        ops, result = self._trace(x, pick)
        ops = [self._filled(op) for op in joined(ops, result)]
        if is_fast:
            onednn.free_memory()      # what the trace has used
            try:
                return fast_plan(fused(ops, result), result, x.shape)
            except onednn.Unsupported:
                pass
        return plain_plan(ops, result)

    def _make_on_gpu(self, x, pick):
        ops, result = self._trace(x, pick)
        ops = [gpu_plan.ready(self._filled(op), self._dtype) for op in joined(ops, result)]
        run = functools.partial(gpu_plan.execute, dtype=self._dtype)

        def plan(ops):
            return gpu_plan.finished(plain_plan(ops, result, run), x, self._dtype,
                                     self._cuda_graph)

        try:
            return plan(fused(ops, result))
        except cudnn.Failure as error:
            warnings.warn(f"cuDNN cannot do the sums and activations of {self._name} within its "
                          f"convolutions; they are done behind them. It says: {error}",
                          stacklevel=2)
            return plan(ops)

    def _filled(self, op):
        """Return an operation with the model's arrays in it."""
        if not op.weights:
            if any(id(x) in self._names - self._arrays.keys() for x in op.inputs):
                raise self._gone(op.node.label)
            return replace(op, inputs=tuple(map(self._real, op.inputs)))
        if self._key(op) not in self._layers:
            raise self._gone(op.node.label)
        return replace(op, layer=self._layers[self._key(op)])

    def _gone(self, label):
        return ValueError(f"{label} is needed by itself, but was joined with another layer when "
                          f"{self._name} was optimized: use the original model for this")

    def _layer(self, op):
        W, b, *norm = map(self._real, op.weights)
        return Layer(W, b, *norm, eps=op.eps, groups=getattr(op.node, "groups", 1))

    def _real(self, x):
        return self._arrays.get(id(x), x)

    def _key(self, op):
        # Constants that are made anew in each call, such as a gamma of ones, have no name.
        return *(id(a) if id(a) in self._names else None for a in op.weights), op.eps

    def _trace(self, x, pick):
        with chainer.no_backprop_mode(), Tape(x) as tape:
            x = chainer.Variable(x)    # whose methods are functions of Chainer; an array's are not
            y = self._hollow.logits(x) if pick is None else self._hollow.features(x, pick)
        return tape.ops, tape.number(y.array)


class Inference(chainer.FunctionNode):
    """The optimized model as one function of Chainer, without a gradient."""

    def __init__(self, plan):
        self.plan = plan

    def forward(self, inputs):
        """Return the output for images (N, C, H, W)."""
        return (self.plan(*inputs),)

    def backward(self, indexes, grad_outputs):
        """Raise an error."""
        raise RuntimeError("optimize is for inference: there are no gradients; "
                           "use the original model")


def hollow(model):
    """Return a copy of a model with zeros in place of all arrays, and the arrays by the zeros' id.

    The zeros are all one number in memory.
    """
    shell, arrays = model.copy(), {}
    zero = model.xp.zeros((), np.float32)

    def stand_in(array):
        zeros = model.xp.broadcast_to(zero, array.shape)
        arrays[id(zeros)] = array
        return zeros

    for link in shell.links():
        for name in link._params:
            # A copied parameter shares the list in which it has its array with the original.
            setattr(link, name, chainer.Parameter(stand_in(getattr(link, name).array)))
        for name in link._persistent:
            if getattr(getattr(link, name), "ndim", 0):
                setattr(link, name, stand_in(getattr(link, name)))
    return shell, arrays


@dataclass(eq=False)
class Op:
    """A function that a model has called.

    Values have numbers; 0 is the input. What the model has not computed is a constant array.
    """

    node: chainer.FunctionNode    # as it was before the call
    inputs: tuple                 # int or array
    outputs: tuple                # int
    shapes: tuple                 # of the outputs
    dtypes: tuple
    weights: tuple = ()           # W, b and a normalization's gamma, beta, mean, variance
    eps: float = 0                # of that normalization
    layer: "Layer | None" = None  # what has become of the weights
    add: int | None = None        # a value that is added to the output
    activation: str | None = None


class Tape(chainer.FunctionHook):
    """Writes down the functions called while it is active.

    Parameters
    ----------
    x : array
        The value 0.
    """

    name = "Tape"

    def __init__(self, x):
        super().__init__()
        self.ops, self._seen, self._numbers = [], {}, itertools.count()
        self._new(x)

    def forward_preprocess(self, function, in_data):
        """Have the function tell what it returns."""
        node, ordinary = copy.copy(function), function.forward

        def forward(inputs):
            known = tuple(self.number(x, x) for x in inputs)
            outputs = zeros_of(node, inputs) or ordinary(inputs)
            self.ops.append(Op(node, known, tuple(map(self._new, outputs)),
                               tuple(y.shape for y in outputs), tuple(y.dtype for y in outputs)))
            return outputs

        function.forward = forward

    def forward_postprocess(self, function, in_data):
        """Leave the function as it was."""
        del function.forward

    def number(self, array, default=None):
        """Return the number of the value that an array is."""
        known, number = self._seen.get(id(array), (None, default))
        return number if known is not None and known() is array else default

    def _new(self, array):
        number = next(self._numbers)
        self._seen[id(array)] = weakref.ref(array), number   # its id is another's after its death
        return number


def zeros_of(node, inputs):
    """Return what a layer of a hollow model would compute for long: zeros. Of others, None."""
    if type(node) not in SHAPES or any(any(x.strides) for x in inputs[1:]):
        return None
    x = inputs[0]
    xp = backend.get_array_module(x)
    return (xp.zeros(SHAPES[type(node)](node, x, inputs[1]), x.dtype),)


def joined(ops, result):
    """Return operations in which layers have their weights, and normalizations are part of them.

    A layer is a convolution or a linear function whose weights are constants.
    """
    counts, made, ready = readers(ops, result), {}, []
    for op in ops:
        x, *others = op.inputs
        if is_layer(op):
            op = replace(op, inputs=(x,), weights=(*others, None)[:2])
        elif is_normalization(op) and counts[x] == 1 and x in made and not made[x].eps:
            ready.remove(made[x])
            op = replace(made[x], outputs=op.outputs, eps=op.node.eps,
                         weights=(*made[x].weights, *others))
        if op.weights:
            made[op.outputs[0]] = op
        ready.append(op)
    return ready


def readers(ops, result):
    """Return how many times each value is read; the result is read once by who asked for it."""
    counts = Counter({result: 1})
    for op in ops:
        counts.update(value for value in (*op.inputs, op.add) if isinstance(value, int))
    return counts


def is_layer(op):
    """Tell whether an operation is a layer with constant weights."""
    return (type(op.node) in (Convolution2DFunction, LinearFunction)
            and isinstance(op.inputs[0], int)
            and not any(isinstance(x, int) for x in op.inputs[1:]))


def is_normalization(op):
    """Tell whether an operation normalizes channels, the second axis, with constants."""
    return (type(op.node) is FixedBatchNormalization
            and not any(isinstance(x, int) for x in op.inputs[1:])
            and op.inputs[1].ndim == 1
            and op.node.axis in (None, (0, *range(2, len(op.shapes[0])))))


class Layer:
    """Weights and bias of a layer, a normalization folded into them.

    Parameters
    ----------
    W, b : array
        The layer's own; b may be None.
    norm : tuple of array
        gamma, beta, mean and variance of a batch normalization behind it, or nothing.
    eps : float
        What that adds to the variance.
    groups : int
    """

    def __init__(self, W, b, *norm, eps=0, groups=1):
        self._W, self._b, self._groups, self._packed = *fold(W, b, *norm, eps=eps), groups, None
        self.shape = self._W.shape

    def plain(self):
        """Return W and b as Chainer's functions take them."""
        if self._packed is None:
            return self._W, self._b
        return self._packed.plain, self._b

    def turned(self, dtype):
        """Return W, of a convolution with the channels last in memory, and b; they stay so."""
        xp = backend.get_array_module(self._W)
        if self._W.ndim == 4:
            last = xp.ascontiguousarray(self._W.transpose(0, 2, 3, 1), dtype)
            self._W = last.transpose(0, 3, 1, 2)
        self._W, self._b = (a.astype(dtype, copy=False) for a in (self._W, self._b))
        return self._W, self._b

    def packed(self):
        """Return the weights for oneDNN; from then on they are kept in its order."""
        if self._packed is None:
            self._packed = onednn.Weights(self._W, self._b, self._groups)
            self._W = None
        return self._packed


def fold(W, b, gamma=1, beta=0, mean=0, var=1, *, eps=0):
    """Return weights and bias that do what a layer and a batch normalization behind it do.

    gamma (W x + b - mean) / sqrt(var + eps) + beta. The arrays are new, always.
    """
    xp = backend.get_array_module(W)
    scale = gamma / xp.sqrt(xp.asarray(var, "d") + eps) * xp.ones(len(W))
    bias = ((0 if b is None else b) - mean) * scale + beta
    return W * scale.astype("f").reshape(-1, *(1,) * (W.ndim - 1)), bias.astype("f")


def plain_plan(ops, result, execute=None):
    """Return a function of images that calls Chainer's functions, without graph and checks.

    ``execute`` takes an operation and the values so far in their place.
    """
    execute = execute or call
    last = {value: i for i, op in enumerate(ops) for value in (0, *op.outputs, *op.inputs, op.add)
            if isinstance(value, int)} | {result: None}

    def run(x):
        values = {0: x}
        for i, op in enumerate(ops):
            values.update(zip(op.outputs, execute(op, values), strict=True))
            for value in [v for v in values if last[v] == i]:
                del values[value]
        return values[result]

    return run


def call(op, values):
    """Return the outputs of an operation as Chainer computes them."""
    inputs = [values[x] if isinstance(x, int) else x for x in op.inputs]
    if op.layer:
        inputs += op.layer.plain()
    return copy.copy(op.node).forward(tuple(inputs))


def fused(ops, result):
    """Return operations in which layers also add what is added to them, and apply activations."""
    counts, layers, ready = readers(ops, result), {}, []
    shapes = {}
    for op in ops:
        shapes.update(zip(op.outputs, op.shapes, strict=True))
        hosts = [x for x in op.inputs if isinstance(x, int) and x in layers and counts[x] == 1]
        host = layers[max(hosts)] if hosts else None    # the last one can wait for the others
        if type(op.node) in ACTIVATIONS and host:
            op = _moved(host, op, ready, activation=ACTIVATIONS[type(op.node)])
        elif (type(op.node) is Add and host and host.add is None
              and all(isinstance(x, int) and shapes.get(x) == op.shapes[0] for x in op.inputs)):
            (other,) = set(op.inputs) - set(host.outputs)
            op = _moved(host, op, ready, add=other)
        if op.layer and op.activation is None:
            layers[op.outputs[0]] = op
        ready.append(op)
    return ready


def _moved(host, op, ready, **also):
    """Return a layer that does what `op` did, too; take it out of its place."""
    ready.remove(host)
    return replace(host, outputs=op.outputs, **also)


def fast_plan(ops, result, shape):
    """Return a function of images that runs oneDNN's primitives, made and placed beforehand.

    Raises
    ------
    Unsupported
        If oneDNN does not take the values' types.
    """
    for op in ops:
        if any(dtype != np.float32 for dtype in op.dtypes):
            raise onednn.Unsupported(f"{op.node.label} in {op.dtypes}")
    if work(ops) > ALONE_TO:
        program = built(ops, result, shape)
        return lambda x: program.run(x)[0]
    with onednn.Alone():
        program = built(ops, result, shape)

    def run(x):
        with onednn.Alone():
            return program.run(x)[0]

    return run


def built(ops, result, shape):
    """Return the program for these operations."""
    program = onednn.Program(shape)
    values = {0: program.input}
    on_maps, rest = in_parts(ops, shape)
    if on_maps:
        try:
            values |= add_parts(program, on_maps, readers(rest, result))
        except onednn.Unsupported:
            rest = ops
    add_steps(program, rest, values)
    return program.finish(values[result])


def work(ops):
    """Return the multiplications in layers."""
    return sum(math.prod(op.shapes[0]) * math.prod(op.layer.shape[1:]) for op in ops if op.layer)


def in_parts(ops, shape):
    """Return operations that threads do best with parts of the batch for themselves, and the rest.

    The former have results for each image, and nothing to share: linear layers may have so many
    weights that it takes longest to read them.
    """
    on_maps = list(itertools.takewhile(is_on_maps, ops))
    if onednn.threads() == 1 or shape[0] % onednn.threads() or work(on_maps) < PARTS_FROM:
        return [], ops
    return on_maps, ops[len(on_maps):]


def is_on_maps(op):
    """Tell whether an operation computes maps, for each image from that image's values alone."""
    joins_images = type(op.node) is Concat and op.node.axis % len(op.shapes[0]) == 0
    return (type(op.node) in {*LAYERS, *BUILDERS} - {Reshape} and not joins_images
            and len(op.shapes[0]) == 4 and all(isinstance(x, int) for x in op.inputs))


def add_parts(program, ops, needed):
    """Add operations in parts to a program and return the values that are needed."""
    count = onednn.threads()
    ready = {x: shape for op in ops for x, shape in zip(op.outputs, op.shapes, strict=True)
             if x in needed}

    def build(part):
        values = {0: part.input}
        for op in ops:
            n, *shape = op.shapes[0]
            op = replace(op, shapes=((n // count, *shape),))
            values[op.outputs[0]] = add_built(part, op, values)
        return [values[x] for x in ready]

    return dict(zip(ready, program.in_parts(count, build, ready.values()), strict=True))


def add_steps(program, ops, values):
    """Add operations to a program and their results to the values."""
    for op in ops:
        try:
            values[op.outputs[0]] = add_built(program, op, values)
        except onednn.Unsupported:
            if op.layer:
                raise
            values.update(zip(op.outputs, add_call(program, op, values), strict=True))


def add_built(program, op, values):
    """Add an operation for which there is one of the program, and return its value.

    Raises
    ------
    Unsupported
        If there is none.
    """
    inputs = [values.get(x) if isinstance(x, int) else None for x in op.inputs]
    if op.layer:
        build = LAYERS[type(op.node)]
        return build(program, op, *inputs, values.get(op.add), op.activation)
    if type(op.node) not in BUILDERS or None in inputs:
        raise onednn.Unsupported(op.node.label)
    return BUILDERS[type(op.node)](program, op, *inputs)


def add_call(program, op, values):
    """Add a function of Chainer to a program, as it is, and return its values."""
    numbers = [x for x in op.inputs if isinstance(x, int)]
    return program.call(
        lambda arrays: call(op, dict(zip(numbers, arrays, strict=True))),
        [values[n] for n in numbers], op.shapes)


def _convolution(program, op, x, add, activation):
    node = op.node
    return program.convolution(x, op.layer.packed(), op.shapes[0], (node.sy, node.sx),
                               (node.ph, node.pw), (node.dy, node.dx), add, activation)


def _linear(program, op, x, add, activation):
    return program.linear(x, op.layer.packed(), add, activation)


def _max_pooling(program, op, x):
    node = op.node
    return program.pooling("max", x, op.shapes[0], *map(tuple, (node.ksize, node.stride, node.pad)))


def _average_pooling(program, op, x):
    node = op.node
    return program.pooling("avg_include_padding", x, op.shapes[0], (node.kh, node.kw),
                           (node.sy, node.sx), (node.ph, node.pw))


#: Layer -> the shape of its output.
SHAPES = {
    Convolution2DFunction: lambda node, x, W: (
        len(x), len(W), *node._get_out_size(x.shape, W.shape)),
    LinearFunction: lambda node, x, W: (len(x), len(W)),
}

ACTIVATIONS = {ReLU: "relu", Sigmoid: "sigmoid"}
LAYERS = {Convolution2DFunction: _convolution, LinearFunction: _linear}

#: Function -> what adds it to a program; all others are called as they are.
BUILDERS = {
    ReLU: lambda program, op, x: program.activation("relu", x),
    Sigmoid: lambda program, op, x: program.activation("sigmoid", x),
    Add: lambda program, op, a, b: program.add(a, b),
    Reshape: lambda program, op, x: program.reshape(x, op.shapes[0]),
    Concat: lambda program, op, *xs: program.concatenate(xs, op.shapes[0], op.node.axis),
    MaxPoolingND: _max_pooling,
    AveragePooling2D: _average_pooling,
}
