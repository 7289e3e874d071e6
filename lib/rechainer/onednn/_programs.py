"""Whole networks for inference: operations on maps of fixed shapes, laid out in memory once.

Primitives are made, weights are reordered and addresses are set when a `Program` is built; to run
it is to execute one primitive after the other.
"""

import functools
import math
import threading
import weakref

from rechainer.onednn import _winograd
from rechainer.onednn._arrays import FLOAT, as_dense, copy, maps
from rechainer.onednn._library import ALGORITHMS, FORWARD_INFERENCE, Unsupported
from rechainer.onednn._operations import DIRECT, Convolution, Pooling, split
from rechainer.onednn._primitives import Description, Layout, PostOps, Primitive, is_same, reorder
from rechainer.onednn._split import Split
from rechainer.onednn._windows import Wide, is_whole

import numpy

#: Vector instructions and caches like arrays that begin at multiples of it (bytes).
ALIGNMENT = 64


def aligned(size):
    """Return an uninitialized array of bytes that begins at a multiple of `ALIGNMENT`."""
    raw = numpy.empty(size + ALIGNMENT, numpy.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start:start + size]


class Weights:
    """Weights and bias of a layer, in whatever order its primitives want them.

    The array given is released as soon as there is another order of it.

    Parameters
    ----------
    w : numpy.ndarray, float32
        (O, C / groups, kH, kW) or (O, C).
    b : numpy.ndarray, shape (O,), or None
    groups : int
    """

    def __init__(self, w, b=None, groups=1):
        self.shape = w.shape
        self.b = numpy.zeros(len(w), FLOAT) if b is None else as_dense(b)
        grouped = (groups, len(w) // groups, *w.shape[1:]) if groups > 1 else w.shape
        self.layout = Layout.dense(grouped)
        self._orders = [(self.layout, as_dense(w))]
        self._at_points, self._lock = weakref.WeakValueDictionary(), threading.Lock()
        self._wide = None

    def at_points(self, form):
        """Return the weights for `Tiled` in a form, (points, C, O), kept while they are in use."""
        turned = self._at_points.get(form)
        if turned is None:
            u = _winograd.at_points(form, self.plain)
            turned = aligned(u.nbytes).view(FLOAT).reshape(len(u), *u.shape[:0:-1])
            turned[...] = u.transpose(0, 2, 1)
            self._at_points[form] = turned
        return turned

    def widened(self, wide):
        """Return weights and bias for a `Wide` convolution; for the same layer, it is the same."""
        if self._wide is None:
            self._wide = Weights(wide.widened(self.plain), wide.repeated(self.b))
        return self._wide

    @property
    def plain(self):
        """The weights as they were given."""
        return self.in_order(self.layout, keep=False).view(FLOAT).reshape(self.shape)

    @property
    def any_order(self):
        """The layout that they are in, if they are in another than the given one; else any."""
        known, _ = self._orders[-1]
        return Layout(self.shape) if known is self.layout else known

    def in_order(self, layout, keep=True):
        """Return the weights in the order of a layout."""
        with self._lock:
            for known, array in self._orders:
                if is_same(known, layout):
                    return array
            known, packed = self._orders[-1]
            array = aligned(layout.size)
            reorder(known, layout)(packed, array)
            if keep:
                self._orders = [o for o in self._orders if o[0] is not self.layout]
                self._orders.append((layout, array))
            return array


class Value:
    """What an operation returns: maps (N, C, H, W), channels last, or a dense array.

    Parameters
    ----------
    shape : tuple of int
    root : Value, optional
        The value of another shape whose memory this is.
    """

    array = None    # of `Given` values, whose memory is not the program's

    def __init__(self, shape, root=None):
        self.shape, self.root = tuple(shape), root or self
        self.layout = maps(shape) if len(shape) == 4 else Layout.dense(shape)
        self.bytes = math.prod(shape) * FLOAT.itemsize

    def view(self, memory):
        """Return memory as an array of this shape."""
        flat = memory[:self.bytes].view(FLOAT)
        if len(self.shape) != 4:
            return flat.reshape(self.shape)
        n, c, h, w = self.shape
        return flat.reshape(n, h, w, c).transpose(0, 3, 1, 2)


class Step:
    """One operation of a `Program`.

    Parameters
    ----------
    run : Primitive, Tiled, Split or callable
        One of the first three, which ``bind`` all arguments, or a function of the arrays to read,
        in a list, and of those to write.
    reads, writes : tuple of Value
    arguments : tuple of Value or numpy.ndarray
        What is bound, in its order.
    """

    def __init__(self, run, reads, writes, arguments=()):
        self.run, self.reads, self.writes, self.arguments = run, reads, writes, arguments

    def bind(self, arrays):
        """Return a function without arguments, for the array of each value."""
        if hasattr(self.run, "bind"):
            return self.run.bind(*(arrays.get(a, a) if isinstance(a, Value) else a
                                   for a in self.arguments))
        return functools.partial(self.run, [arrays[v] for v in self.reads],
                                 [arrays[v] for v in self.writes])


class Program:
    """Operations in their order; each method adds one and returns its `Value`.

    A program belongs to the thread that built it.

    Parameters
    ----------
    shape : tuple of int
        Of the input.
    """

    def __init__(self, shape):
        self.steps = []
        self.input = Value(shape)

    def _primitive(self, description, reads, write, **layouts):
        """Add a primitive whose arguments are pairs of layout and value or array."""
        primitive = Primitive(description, **{k: layout for k, (layout, _) in layouts.items()})
        self.steps.append(Step(primitive, reads, (write,), [a for _, a in layouts.values()]))
        return write

    def convolution(self, x, weights, y_shape, stride, pad, dilate, add=None, activation=None):
        """Add a convolution, what is added to it, and an activation."""
        windows = stride, pad, dilate
        if add is None and is_whole(x.shape, weights.shape, y_shape, windows):
            return Value(y_shape, self.linear(x, weights, activation=activation))
        form = _winograd.best_form(x.shape, weights.shape, y_shape, *windows, _winograd.READ)
        if form and add is None:
            return self._tiled(form, x, weights, y_shape, pad, activation)
        if form:
            return self.add(self._tiled(form, x, weights, y_shape, pad), add, activation)
        wide = Wide.of(weights.shape, y_shape, windows)
        if wide and add is None:
            y = self._direct(x, weights.widened(wide), wide.y_shape, wide.windows, None, activation)
            return Value(y_shape, y)
        return self._direct(x, weights, y_shape, windows, add, activation)

    def _direct(self, x, weights, y_shape, windows, add, activation):
        c = Convolution(x.shape, weights.shape, y_shape, *windows)
        post_ops = PostOps(add and add.layout, activation)
        description = Description("convolution_forward", FORWARD_INFERENCE, DIRECT, c.x, c.any_w,
                                  c.b, c.y, *c.geometry, post_ops=post_ops)
        return self._weighted(description, x, weights, y_shape, add)

    def _tiled(self, form, x, weights, y_shape, pad, activation=None):
        y = Value(y_shape)
        tiled = _winograd.Tiled(form, x.shape, y_shape, pad, True, activation)
        scratch = [Value((size,)) for size in tiled.sizes]
        self.steps.append(Step(tiled, (x,), (y, *scratch),
                               (x, weights.at_points(form), weights.b, y, *scratch)))
        return y

    def linear(self, x, weights, add=None, activation=None):
        """Add y = x W^T + b, what is added to it, and an activation."""
        y = Value((x.shape[0], weights.shape[0]))
        post_ops = PostOps(add and add.layout, activation)
        # A second order of VGG's weights takes 0.5 GB, and makes no other batch faster.
        description = Description("inner_product_forward", FORWARD_INFERENCE, x.layout,
                                  weights.any_order, Layout.dense(weights.b.shape), y.layout,
                                  post_ops=post_ops)
        return self._weighted(description, x, weights, y.shape, add)

    def _weighted(self, description, x, weights, y_shape, add):
        y, order = Value(y_shape), description.layout("weights")
        arguments = {"src": (x.layout, x), "weights": (order, weights.in_order(order)),
                     "bias": (Layout.dense(weights.b.shape), weights.b), "dst": (y.layout, y)}
        if add is None:
            return self._primitive(description, (x,), y, **arguments)
        return self._primitive(description, (x, add), y, **arguments,
                               first_post_op=(add.layout, add))

    def pooling(self, kind, x, y_shape, kernel, stride, pad):
        """Add a pooling; see `Pooling`."""
        p, y = Pooling(kind, x.shape, y_shape, kernel, stride, pad), Value(y_shape)
        description = Description("pooling_forward", FORWARD_INFERENCE, p.algorithm, p.x, p.y,
                                  *p.geometry)
        return self._primitive(description, (x,), y, src=(p.x, x), dst=(p.y, y))

    def activation(self, kind, x):
        """Add a function of each element."""
        y = Value(x.shape)
        description = Description("eltwise_forward", FORWARD_INFERENCE, ALGORITHMS[kind], x.layout,
                                  y.layout, 0, 0)
        return self._primitive(description, (x,), y, src=(x.layout, x), dst=(y.layout, y))

    def add(self, a, b, activation=None):
        """Add the sum of two values of one shape, and an activation."""
        if a.shape != b.shape:
            raise Unsupported(f"the sum of shapes {a.shape} and {b.shape}")
        y = Value(a.shape)
        description = Description("binary", ALGORITHMS["binary_add"], a.layout, b.layout, y.layout,
                                  post_ops=PostOps(activation=activation))
        return self._primitive(description, (a, b), y, src=(a.layout, a), src_1=(b.layout, b),
                               dst=(y.layout, y))

    def reshape(self, x, shape):
        """Add a change of shape, which costs nothing where the elements stay in their places."""
        if x.root.array is None and _is_one_order(x.shape) and _is_one_order(shape):
            return Value(shape, x.root)
        return self.call(lambda arrays: (arrays[0].reshape(shape),), (x,), (shape,))[0]

    def concatenate(self, xs, shape, axis):
        """Add values joined along an axis."""
        y = Value(shape)
        sizes = [x.shape[axis] for x in xs]

        def join(arrays, outputs):
            for x, part in zip(arrays, split(*outputs, sizes, axis), strict=True):
                copy(x, part)

        self.steps.append(Step(join, tuple(xs), (y,)))
        return y

    def call(self, function, values, shapes):
        """Add a function of a list of arrays to a tuple of float32 arrays of these shapes."""
        results = tuple(map(Value, shapes))

        def run(arrays, outputs):
            for result, output in zip(function(arrays), outputs, strict=True):
                copy(result, output)

        self.steps.append(Step(run, tuple(values), results))
        return results

    def in_parts(self, count, build, shapes):
        """Add what is done with equal parts of the batch, each in a thread of its own.

        Parameters
        ----------
        count : int
            Of parts.
        build : callable
            Adds to the program that it is given, for a part, and returns a sequence of values.
        shapes : sequence of tuple of int
            Of these values, for the whole batch.
        """
        n, *image = self.input.shape

        def own(program, value):
            return value if value.root is value else program.call(list, (value,), (value.shape,))[0]

        def built():
            program = Program((n // count, *image))
            return program, [own(program, value) for value in build(program)]

        split, results = Split(count, built), tuple(map(Value, shapes))
        self.steps.append(Step(split, (self.input,), results, (self.input, *results)))
        return results

    def finish(self, *results):
        """Lay out the memory; `run` then returns these values.

        Returns
        -------
        Program
        """
        places, sizes = self._places(results)
        self._memories = [aligned(size) for size in sizes]  # primitives know addresses only
        arrays = {v: v.view(self._memories[places[v.root]]) if v.root.array is None else v.array
                  for v in self._values(results)}
        self._input = arrays[self.input]
        self._results = [arrays[v] for v in results]
        self._runs = [step.bind(arrays) for step in self.steps]
        return self

    def _values(self, results):
        yield from (self.input, *results)
        for step in self.steps:
            yield from (*step.reads, *step.writes)

    def _places(self, results):
        """Return the number of each value's block, and the blocks' sizes.

        A block is free again behind the last step that reads its value.
        """
        last = {v.root: i for i, step in enumerate(self.steps) for v in (*step.writes, *step.reads)}
        last |= dict.fromkeys((v.root for v in results), len(self.steps))
        sizes, free, places = [], [], {}
        if self.input.array is None:
            places[self.input] = _take(self.input.bytes, sizes, free)
        for i, step in enumerate(self.steps):
            for value in step.writes:
                if value.root.array is None:
                    places[value.root] = _take(value.bytes, sizes, free)
            free += [places[root] for root in {v.root for v in (*step.reads, *step.writes)}
                     if last[root] == i and root.array is None]
        return places, sizes

    def execute(self):
        """Compute the results from what is in the input's memory."""
        for run in self._runs:
            run()

    def run(self, x):
        """Return the results for an input, as arrays that the next run does not change."""
        copy(x, self._input)
        self.execute()
        return [numpy.array(result) for result in self._results]


def _is_one_order(shape):
    """Tell whether arrays of a shape are the same in memory, channels last or not."""
    return len(shape) != 4 or shape[1] == 1 or tuple(shape[2:]) == (1, 1)


def _take(size, sizes, free):
    """Take the smallest free block that is large enough, else enlarge one, else add one."""
    fitting = [i for i in free if sizes[i] >= size]
    block = min(fitting, key=sizes.__getitem__) if fitting else max(
        free, key=sizes.__getitem__, default=None)
    if block is None:
        sizes.append(size)
        return len(sizes) - 1
    sizes[block] = max(size, sizes[block])
    free.remove(block)
    return block
