"""Checks of lab 6, count it: parameters, multiply-adds and bytes, by formula and by a hook."""

import math
from itertools import pairwise

from convnets import inspect, models
from convnets.check import (
    Finding,
    Function,
    Lab,
    Mistake,
    NotAttempted,
    attempted,
    describe,
    given,
    is_blank,
    signature,
)
from convnets.check.traits import Trait, stages

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
from chainer.utils import get_conv_outsize

lab = Lab(__file__, around=lambda: chainer.using_config("train", True))
hint, solution, solved = lab.hint, lab.solution, lab.solved


# ---- 1: layer_params -----------------------------------------------------------------------

def right_params(n_in, n_out, k=1, groups=1, nobias=False):
    return n_out * (n_in // groups * k * k + (not nobias))


right_params.__name__ = "layer_params"


def params_by_hand(a, _index):
    n_in, n_out, k, groups = a["n_in"], a["n_out"], a.get("k", 1), a.get("groups", 1)
    weights = n_in // groups * k * k
    return (f"each output channel sees {n_in}/{groups} = {n_in // groups} input channels: "
            f"{n_in // groups}·{k}·{k} = {weights} weights, and 1 bias; {n_out} channels: "
            f"{n_out}·({weights} + 1) = {n_out * (weights + 1)}")


LAYERS = (given(n_in=4, n_out=6, k=3, groups=2), given(n_in=3, n_out=64, k=3),
          given(n_in=512, n_out=4096), given(n_in=64, n_out=256, nobias=True),
          given(n_in=3, n_out=64, k=7, nobias=True), given(n_in=32, n_out=32, k=3, groups=32))


def params_of_chainer(layer_params):
    for a in LAYERS:
        link = L.Convolution2D(a["n_in"], a["n_out"], a.get("k", 1), nobias=a.get("nobias", False),
                               groups=a.get("groups", 1))
        got = layer_params(**a)
        if got != link.count_params():
            call = ", ".join(f"{name}={value}" for name, value in a.items())
            raise Finding("Chainer's own layer has another count.", call=f"layer_params({call})",
                          expected=str(link.count_params()), got=str(got))


layer_params = lab.function(Function(
    reference=right_params,
    cases=LAYERS,
    by_hand=params_by_hand,
    hand_title="two groups by hand",
    properties=(("Chainer's own counts", params_of_chainer),),
    mistakes=(
        Mistake("groups forgotten", "With groups each output channel sees only its own group of "
                "input channels, n_in / groups of them.",
                lambda n_in, n_out, k=1, groups=1, nobias=False:
                right_params(n_in, n_out, k, 1, nobias)),
        Mistake("everything divided by groups", "Groups divide the weights, not the biases: every "
                "output channel has one.",
                lambda n_in, n_out, k=1, groups=1, nobias=False:
                right_params(n_in, n_out, k, 1, nobias) // groups),
        Mistake("divided by groups twice", "Groups divide the input channels only. There are "
                "still n_out output channels in all.",
                lambda n_in, n_out, k=1, groups=1, nobias=False:
                n_out // groups * (n_in // groups * k * k) + n_out * (not nobias)),
        Mistake("multiplied by groups", "Groups make a layer cheaper: each output channel sees "
                "n_in / groups input channels.",
                lambda n_in, n_out, k=1, groups=1, nobias=False:
                groups * right_params(n_in, n_out, k, 1, nobias)),
        Mistake("the bias in the window", "The bias is one number for an output channel: it has "
                "no window, so k·k does not multiply it.",
                lambda n_in, n_out, k=1, groups=1, nobias=False:
                n_out * (n_in // groups + (not nobias)) * k * k),
        Mistake("no biases", "The biases are missing: one for each output channel, unless nobias "
                "is set.",
                lambda n_in, n_out, k=1, groups=1, nobias=False:
                right_params(n_in, n_out, k, groups, True)),
        Mistake("nobias ignored", "With nobias=True there are no biases to count.",
                lambda n_in, n_out, k=1, groups=1, nobias=False:
                right_params(n_in, n_out, k, groups)),
        Mistake("nobias the wrong way round", "nobias=True means: no biases.",
                lambda n_in, n_out, k=1, groups=1, nobias=False:
                right_params(n_in, n_out, k, groups, not nobias)),
        Mistake("one bias in all", "There is one bias for each output channel, not one for the "
                "layer.",
                lambda n_in, n_out, k=1, groups=1, nobias=False:
                right_params(n_in, n_out, k, groups, True) + (not nobias)),
        Mistake("a bias for each input channel", "There is one bias for each output channel, not "
                "for each input channel. (Or have n_in and n_out changed places?)",
                lambda n_in, n_out, k=1, groups=1, nobias=False:
                right_params(n_in, n_out, k, groups, True) + n_in * (not nobias)),
        Mistake("window not squared", "A window k wide is k high too: k·k weights.",
                lambda n_in, n_out, k=1, groups=1, nobias=False:
                n_out * (n_in // groups * k + (not nobias))),
    ),
))


# ---- 2: layer_macs -------------------------------------------------------------------------

def right_macs(n_in, n_out, k=1, out_h=1, out_w=1, groups=1):
    return out_h * out_w * n_out * (n_in // groups * k * k)


right_macs.__name__ = "layer_macs"


def macs_by_hand(a, _index):
    n_in, n_out, k = a["n_in"], a["n_out"], a.get("k", 1)
    h, w = a.get("out_h", 1), a.get("out_w", 1)
    one = n_in // a.get("groups", 1) * k * k
    return (f"one output value: {n_in}·{k}·{k} = {one} multiply-adds; there are {n_out}·{h}·{w} = "
            f"{n_out * h * w} of them: {n_out * h * w * one}")


def macs_counted(layer_macs):
    """Count ones: with all inputs and weights 1, the outputs add up to the multiply-adds."""
    for n_in, n_out, k, h, w, groups in ((2, 3, 3, 4, 5, 1), (4, 2, 1, 3, 2, 1), (4, 6, 2, 2, 3, 2),
                                         (5, 7, 1, 1, 1, 1)):
        ones = np.ones((1, n_in, h + k - 1, w + k - 1), np.float32)
        y = F.convolution_2d(ones, np.ones((n_out, n_in // groups, k, k), np.float32),
                             groups=groups)
        right, got = int(y.array.sum()), layer_macs(n_in, n_out, k, h, w, groups)
        if got != right:
            raise Finding("With all inputs and weights 1, each product is 1, so the outputs add "
                          "up to the number of products.",
                          call=f"layer_macs({n_in}, {n_out}, {k}, {h}, {w}, groups={groups})",
                          expected=str(right), got=str(got))


def macs_with(formula):
    """A wrong answer: a formula of all six numbers."""
    def layer_macs(n_in, n_out, k=1, out_h=1, out_w=1, groups=1):
        return formula(n_in, n_out, k, out_h, out_w, groups)
    return layer_macs


layer_macs = lab.function(Function(
    reference=right_macs,
    cases=(given(n_in=2, n_out=3, k=3, out_h=4, out_w=5),
           given(n_in=1, n_out=6, k=5, out_h=24, out_w=24), given(n_in=120, n_out=84),
           given(n_in=3, n_out=64, k=3, out_h=224, out_w=224),
           given(n_in=8, n_out=8, k=3, out_h=7, out_w=9, groups=8),
           given(n_in=8, n_out=4, k=1, out_h=7, out_w=9, groups=2)),
    by_hand=macs_by_hand,
    hand_title="a small layer by hand",
    properties=(("counting ones", macs_counted),),
    mistakes=(
        Mistake("the positions forgotten", "These are the weights. Each of them is used at every "
                "one of the out_h·out_w positions.",
                macs_with(lambda n, o, k, h, w, g: o * (n // g * k * k))),
        Mistake("the window forgotten", "One output value takes k·k products for every input "
                "channel.", macs_with(lambda n, o, k, h, w, g: h * w * o * (n // g))),
        Mistake("the input channels forgotten", "One output value sums over all input channels: "
                "n_in·k·k products.", macs_with(lambda n, o, k, h, w, g: h * w * o * k * k)),
        Mistake("the output channels forgotten", "This is one output channel: there are n_out.",
                macs_with(lambda n, o, k, h, w, g: h * w * (n // g * k * k))),
        Mistake("a square map", "A map need not be square: out_h·out_w positions.",
                macs_with(lambda n, o, k, h, w, g: h * h * o * (n // g * k * k))),
        Mistake("multiplications and additions", "A multiply-add is one operation: the "
                "multiplication and the addition together count once. (Twice as many would be "
                "FLOPs.)", macs_with(lambda n, o, k, h, w, g: 2 * h * w * o * (n // g * k * k))),
        Mistake("with the bias", "The bias is added without a multiplication, so it is no "
                "multiply-add.",
                macs_with(lambda n, o, k, h, w, g: h * w * o * (n // g * k * k + 1))),
        Mistake("groups forgotten", "With groups one output value sums over n_in / groups input "
                "channels.", macs_with(lambda n, o, k, h, w, g: h * w * o * n * k * k)),
        Mistake("divided by groups twice", "Groups divide the input channels only: there are "
                "still n_out output channels in all.",
                macs_with(lambda n, o, k, h, w, g: h * w * o // g * (n // g) * k * k)),
        Mistake("window not squared", "A window k wide is k high too: k·k products.",
                macs_with(lambda n, o, k, h, w, g: h * w * o * (n // g * k))),
    ),
))


# ---- layers to watch -----------------------------------------------------------------------

def data(*shape, dtype=np.float32):
    return np.random.RandomState(0).uniform(-1, 1, shape).astype(dtype)


class Watch(chainer.FunctionHook):
    """Hands every convolution and linear function to a function, and keeps what that says."""

    name = "watch"

    def __init__(self, function):
        super().__init__()
        self.function, self.results = function, []

    def forward_postprocess(self, function, in_data):
        if function.label in LABELS:
            self.results.append(self.function(function, in_data))


LABELS = ("Convolution2DFunction", "LinearFunction")


# ---- 3: output_shape -----------------------------------------------------------------------

def right_shape(function, in_data):
    x, w = in_data[:2]
    if function.label == "LinearFunction":
        return len(x), len(w)
    (n, _, height, width), (n_out, _, kh, kw) = x.shape, w.shape
    return (n, n_out, get_conv_outsize(height, kh, function.sy, function.ph),
            get_conv_outsize(width, kw, function.sx, function.pw))


right_shape.__name__ = "output_shape"


def seen(link, x):
    """Finds what an answer says of the function that a link calls."""
    def find(output_shape):
        with Watch(output_shape) as hook:
            y = link(x)
        result = hook.results[0]
        if result is None:
            raise Finding("The function returns None.", call="output_shape(function, in_data)",
                          cause="Did no branch run? The labels are 'LinearFunction' and "
                                "'Convolution2DFunction'. Or is a `return` missing?")
        if result is ...:
            raise NotAttempted
        if not isinstance(result, (tuple, list)):
            return describe(result)
        text = str(tuple(int(n) if isinstance(n, (int, np.integer)) else n for n in result))
        return text + ("" if tuple(result) == y.shape or len(result) != y.ndim else
                       f", but the result has {y.shape}")
    return find


SHAPE_TRAITS = (
    Trait("a linear function by hand", "The shape is not that of the output.",
          seen(L.Linear(3, 2), data(4, 3)),
          "output_shape(function, in_data) in L.Linear(3, 2)(x) with x (N=4, C=3)",
          "The inputs are x, (N, C), and W, (n_out, C).",
          "in_data is x (4, 3), W (2, 3), b (2,): 4 images, 2 outputs each, (4, 2)"),
    Trait("a convolution by hand", "The shape is not that of the output.",
          seen(L.Convolution2D(3, 4, 3), data(2, 3, 6, 5)),
          "output_shape(function, in_data) in L.Convolution2D(3, 4, 3)(x) with x (N=2, C=3, H=6, "
          "W=5)", "N of x, n_out of W, and for each side get_conv_outsize(size, k, s, p).",
          "x (2, 3, 6, 5), W (4, 3, 3, 3): 2 images, 4 channels, 6 - 3 + 1 = 4, 5 - 3 + 1 = 3"),
    Trait("stride and padding", "With stride and padding the shape is not that of the output.",
          seen(L.Convolution2D(3, 4, 3, stride=2, pad=1), data(1, 3, 9, 6)),
          "output_shape(function, in_data) in L.Convolution2D(3, 4, 3, stride=2, pad=1)(x) with "
          "x (N=1, C=3, H=9, W=6)", "The function knows its stride, sy and sx, and its padding, "
          "ph and pw."),
    Trait("rows and columns that differ", "Rows and columns are not told apart.",
          seen(L.Convolution2D(2, 3, (3, 2), (2, 1), (1, 0), nobias=True), data(1, 2, 9, 8)),
          "output_shape(function, in_data) in L.Convolution2D(2, 3, ksize=(3, 2), stride=(2, 1), "
          "pad=(1, 0), nobias=True)(x) with x (N=1, C=2, H=9, W=8)",
          "kh, sy and ph belong to the rows, kw, sx and pw to the columns."),
)


def conv_shape(n=lambda x: len(x), channels=lambda x, w: len(w), rows=None, columns=None):
    """A wrong answer for convolutions: another N, other channels, or other sides."""
    def output_shape(function, in_data):
        x, w = in_data[:2]
        if function.label == "LinearFunction":
            return right_shape(function, in_data)
        right = right_shape(function, in_data)
        sides = [side(function, x, w) if side else kept
                 for side, kept in ((rows, right[2]), (columns, right[3]))]
        return n(x), channels(x, w), *sides
    return output_shape


def along(axis, stride=True, pad=True, cover_all=False):
    """Size along axis 2 or 3 by a rule that leaves something out."""
    def size(f, x, w):
        s, p = ((f.sy, f.ph), (f.sx, f.pw))[axis - 2]
        return get_conv_outsize(x.shape[axis], w.shape[axis], s if stride else 1, p if pad else 0,
                                cover_all)
    return size


def both_sides(**options):
    return {"rows": along(2, **options), "columns": along(3, **options)}


def from_outputs(function, in_data):
    return function.outputs[0]().shape


def two_unpacked(function, in_data):
    x, w = in_data
    return right_shape(function, (x, w))


def three_unpacked(function, in_data):
    x, w, _b = in_data
    return right_shape(function, (x, w))


def window_of_function(function, in_data):
    if function.label == "LinearFunction":
        return right_shape(function, in_data)
    return function.kh, function.kw


def always_four(function, in_data):
    (n, _, height, width), (n_out, _, kh, kw) = in_data[0].shape, in_data[1].shape
    return (n, n_out, get_conv_outsize(height, kh, function.sy, function.ph),
            get_conv_outsize(width, kw, function.sx, function.pw))


@lab.check(
    Mistake("function.outputs", "When a hook is called the function has no outputs yet: "
            "`function.outputs` is None. What is there are the inputs, `in_data`, and the "
            "function's own numbers, sy, sx, ph, pw.", from_outputs),
    Mistake("two arrays unpacked", "in_data holds the bias as well, where there is one: `x, W = "
            "in_data[:2]` takes the first two.", two_unpacked),
    Mistake("three arrays unpacked", "Without a bias in_data holds two arrays only: `x, W = "
            "in_data[:2]` takes the first two, whatever follows.", three_unpacked),
    Mistake("window of the function", "The function does not know the size of its window: W does, "
            "in its last two axes.", window_of_function),
    Mistake("the input's shape", "This is the shape of x, what comes in.",
            lambda function, in_data: in_data[0].shape),
    Mistake("the weights' shape", "This is the shape of W. The output has N of x and n_out, the "
            "first axis of W.", lambda function, in_data: in_data[1].shape),
    Mistake("linear as convolution", "A linear function has matrices, x (N, C) and W (n_out, C): "
            "no rows and columns to unpack. Ask for `function.label` first.", always_four),
    Mistake("the input's channels", "These are the channels that come in. Those of the output are "
            "the first axis of W.", conv_shape(channels=lambda x, w: x.shape[1])),
    Mistake("linear: W transposed", "W of a linear function is (n_out, C): the outputs are its "
            "first axis.", lambda function, in_data: (len(in_data[0]), in_data[1].shape[1])
            if function.label == "LinearFunction" else right_shape(function, in_data)),
    Mistake("one image", "N is missing, or is always 1: it is the first axis of x.",
            conv_shape(n=lambda x: 1)),
    Mistake("no stride", "The stride is missing: `function.sy` for the rows, `function.sx` for "
            "the columns.", conv_shape(**both_sides(stride=False))),
    Mistake("no padding", "The padding is missing: `function.ph` for the rows, `function.pw` for "
            "the columns.", conv_shape(**both_sides(pad=False))),
    Mistake("cover_all", "A convolution drops a step that does not fit. `cover_all` is the "
            "pooling's.", conv_shape(**both_sides(cover_all=True))),
    Mistake("columns by the rows' numbers", "The columns were calculated with the numbers of the "
            "rows: they have their own, kw, sx and pw.",
            conv_shape(columns=lambda f, x, w: get_conv_outsize(x.shape[3], w.shape[2], f.sy,
                                                                f.ph))),
    Mistake("H and W swapped", "Rows and columns have changed places: the order is N, C, H, W.",
            conv_shape(rows=along(3), columns=along(2))),
    Mistake("size of the input kept", "The output of a convolution is smaller than its input, "
            "unless padding makes up for it: get_conv_outsize(size, k, s, p).",
            conv_shape(rows=lambda f, x, w: x.shape[2], columns=lambda f, x, w: x.shape[3])),
)
def output_shape(answer):
    """Check `output_shape`: give it your function, get a Report."""
    return [("attempted", lambda: attempted(answer)),
            ("signature", lambda: signature(answer, right_shape)),
            *stages(lab, "output_shape", answer, right_shape, SHAPE_TRAITS)]


# ---- 4: Counter ----------------------------------------------------------------------------

class RightCounter(chainer.FunctionHook):
    """A right answer; wrong ones change `row`, or another method."""

    name = "counter"

    def __init__(self):
        super().__init__()
        self.rows = []

    def row(self, function, x, w, shape):
        values = math.prod(shape)
        return function.label, values * math.prod(w.shape[1:]), values * x.dtype.itemsize

    def forward_postprocess(self, function, in_data):
        if function.label in LABELS:
            x, w = in_data[:2]
            self.rows.append(self.row(function, x, w, right_shape(function, in_data)))


def counter(**methods):
    return type("Counter", (RightCounter,), methods)


def by_row(macs=None, size=None):
    """A wrong answer: with other MACs, or other bytes, of a function."""
    def row(self, function, x, w, shape):
        label, right_count, right_size = RightCounter.row(self, function, x, w, shape)
        return (label, macs(x, w, shape) if macs else right_count,
                size(x, w, shape) if size else right_size)
    return counter(row=row)


def only(label):
    """A wrong answer that counts the functions of one label."""
    def forward_postprocess(self, function, in_data):
        if function.label == label:
            RightCounter.forward_postprocess(self, function, in_data)
    return counter(forward_postprocess=forward_postprocess)


def everything(self, function, in_data):
    x, w = in_data[:2]
    self.rows.append(self.row(function, x, w, right_shape(function, in_data)))


def noted(run):
    """Finds the rows that an answer has after `run`, as text."""
    def find(network):
        with network() as hook:
            run()
        return "\n".join(map(shown, rows_of(hook))) or "no rows"
    return find


def rows_of(hook):
    rows = getattr(hook, "rows", None)
    if not isinstance(rows, list):
        raise Finding("The counter has no list of rows.", expected="a list, `counter.rows`",
                      got=describe(rows), call="with Counter() as counter: ...",
                      cause="`self.rows = []` in `__init__`, and every function that counts is "
                            "appended to it.")
    return rows


def shown(row):
    """One row: label, MACs, bytes."""
    if not isinstance(row, (tuple, list)) or len(row) != 3:
        return str(row)[:80]
    label, macs, size = row
    return f"{label}: {macs} MACs, {size} bytes"


def two_counters(network):
    """Whether a second counter begins with nothing."""
    with network():
        L.Linear(3, 2)(data(1, 3))
    return "it has rows already" if rows_of(network()) else "an empty list"


def double_precision():
    F.linear(data(2, 3, dtype=np.float64), data(4, 3, dtype=np.float64))


COUNTER_TRAITS = (
    Trait("a new counter", "A second counter does not begin with nothing.", two_counters,
          "Counter().rows, after another Counter has counted",
          "`self.rows = []` belongs into `__init__`, and the method that counts is "
          "`forward_postprocess(self, function, in_data)`."),
    Trait("a linear layer by hand", "The row of a linear layer is another.",
          noted(lambda: L.Linear(3, 2)(data(1, 3))),
          "with Counter() as counter: L.Linear(3, 2)(x), x (N=1, C=3)",
          "A row is (function.label, MACs, bytes).",
          "2 outputs of 3 products each: 6 MACs; 2 outputs of 4 bytes: 8 bytes"),
    Trait("a convolution by hand", "The row of a convolution is another.",
          noted(lambda: L.Convolution2D(3, 4, 3)(data(2, 3, 6, 5))),
          "with Counter() as counter: L.Convolution2D(3, 4, 3)(x), x (N=2, C=3, H=6, W=5)",
          "The output's values times the products for each of them, `math.prod(W.shape[1:])`.",
          "the output (2, 4, 4, 3) has 96 values; each takes 3·3·3 = 27 products: 96·27 = 2592; "
          "96·4 bytes = 384"),
    Trait("groups", "With groups the row is another.",
          noted(lambda: L.Convolution2D(4, 6, 3, groups=2)(data(1, 4, 5, 5))),
          "with Counter() as counter: L.Convolution2D(4, 6, 3, groups=2)(x), x (1, 4, 5, 5)",
          "W has the shape (n_out, C/groups, kh, kw): all but its first axis make one output "
          "value."),
    Trait("double precision", "In float64 the row is another.", noted(double_precision),
          "with Counter() as counter: F.linear(x, W) in float64, x (2, 3), W (4, 3)",
          "How many bytes a value has, its dtype says: `x.dtype.itemsize`."),
    Trait("LeNet5", "LeNet5's rows are others.",
          noted(lambda: models.LeNet5()(data(1, 1, 28, 28))),
          "with Counter() as counter: models.LeNet5()(x), x (1, 1, 28, 28)",
          "One row for each of three convolutions and two linear functions, and for nothing else."),
)


def silent(self, function, in_data):
    """What a hook does whose method has a name that Chainer does not know."""


@lab.check(
    Mistake("nothing noted", "Nothing was noted. Is the method written? Chainer calls it by its "
            "name, `forward_postprocess(self, function, in_data)`, spelt like this.",
            counter(forward_postprocess=silent)),
    Mistake("convolutions only", "Only convolutions are counted: 'LinearFunction' is wanted too.",
            only("Convolution2DFunction")),
    Mistake("linear layers only", "Only linear layers are counted: 'Convolution2DFunction' is "
            "wanted too.", only("LinearFunction")),
    Mistake("every function", "A hook sees every function, sigmoid and pooling too, and these have "
            "no W. Go on only if `function.label` is one of the two.",
            counter(forward_postprocess=everything)),
    Mistake("before and after", "Every function is there twice: once from `forward_preprocess`, "
            "once from `forward_postprocess`. One of them is enough.",
            counter(forward_preprocess=RightCounter.forward_postprocess)),
    Mistake("rows of the class", "`rows = []` in the body of the class is one list for *all* "
            "counters, so a new one begins with the rows of the old. `self.rows = []` in "
            "`__init__` makes each its own.",
            counter(rows=[], __init__=lambda self: chainer.FunctionHook.__init__(self))),
    Mistake("one image", "The N images of the minibatch are missing: each needs its own "
            "multiply-adds.",
            by_row(macs=lambda x, w, y: math.prod(y[1:]) * math.prod(w.shape[1:]))),
    Mistake("W whole", "W's first axis is n_out, which is in the output's shape already: "
            "`math.prod(W.shape[1:])` products for one output value.",
            by_row(macs=lambda x, w, y: math.prod(y) * w.size)),
    Mistake("the weights once", "These are the weights, each counted once. A convolution uses "
            "each at every position, and a minibatch for every image.",
            by_row(macs=lambda x, w, y: w.size)),
    Mistake("groups", "With groups an output value sees only a part of the input channels. W "
            "knows it: its second axis is C/groups.",
            by_row(macs=lambda x, w, y: math.prod(y) * x.shape[1] * math.prod(w.shape[2:]))),
    Mistake("FLOPs", "Multiplication and addition are one multiply-add. Twice as many would be "
            "FLOPs.", by_row(macs=lambda x, w, y: 2 * math.prod(y) * math.prod(w.shape[1:]))),
    Mistake("with the bias", "The bias is added without a multiplication, so it is no "
            "multiply-add.", by_row(macs=lambda x, w, y: math.prod(y) * (w[0].size + 1))),
    Mistake("values, not bytes", "This is how many values the output has. A float32 has 4 bytes: "
            "`x.dtype.itemsize`.", by_row(size=lambda x, w, y: math.prod(y))),
    Mistake("4 bytes always", "Not every value has 4 bytes: in float64 it is 8. "
            "`x.dtype.itemsize` knows.", by_row(size=lambda x, w, y: 4 * math.prod(y))),
    Mistake("bytes of the input", "These are the bytes of x, what comes in. What the layer adds "
            "to the memory is its output.", by_row(size=lambda x, w, y: x.nbytes)),
    Mistake("bytes of the weights", "These are the bytes of W. The activations are the output.",
            by_row(size=lambda x, w, y: w.nbytes)),
)
def Counter(answer):
    """Check `Counter`: give it your class, get a Report."""
    return [("attempted", lambda: begun(answer)),
            ("a FunctionHook", lambda: a_hook(answer)),
            *stages(lab, "Counter", answer, RightCounter, COUNTER_TRAITS)]


def begun(network):
    """Raise NotAttempted if the hook's methods are blank or missing."""
    if not isinstance(network, type):
        return attempted(network)
    names = ("__init__", "forward_preprocess", "forward_postprocess")
    methods = [getattr(network, name) for name in names]
    if all(is_blank(m) or m is getattr(chainer.FunctionHook, name)
           for name, m in zip(names, methods, strict=True)):
        raise NotAttempted


def a_hook(answer):
    if not isinstance(answer, type):
        raise Finding("The check needs the class itself.", got=describe(answer),
                      cause="`check.Counter(Counter)`, without brackets behind Counter.")
    if not issubclass(answer, chainer.FunctionHook):
        raise Finding("The class is not derived from chainer.FunctionHook.",
                      expected="chainer.FunctionHook",
                      got=", ".join(b.__name__ for b in answer.__bases__),
                      cause="Its first line is `class Counter(chainer.FunctionHook):`.")


# ---- 5: vgg_totals -------------------------------------------------------------------------

VGG16, VGG19 = models.vgg.CONFIGS["vgg16"], models.vgg.CONFIGS["vgg19"]


def convolutions(config, size):
    """(n_in, n_out, side of the map) of each convolution."""
    n_in = 3
    for n_out, n_convs in config:
        for _ in range(n_convs):
            yield n_in, n_out, size
            n_in = n_out
        size //= 2


def right_totals(config, size=224, hidden=4096, n_class=1000):
    convs = list(convolutions(config, size))
    flat = config[-1][0] * (size // 2 ** len(config)) ** 2
    fcs = list(pairwise((flat, hidden, hidden, n_class)))
    return (sum(o * (9 * i + 1) for i, o, _ in convs), sum((i + 1) * o for i, o in fcs),
            sum(n * n * o * 9 * i for i, o, n in convs), sum(i * o for i, o in fcs))


right_totals.__name__ = "vgg_totals"


def totals_by_hand(a, index):
    config, size, hidden, n_class = (a[n] for n in ("config", "size", "hidden", "n_class"))
    convs = list(convolutions(config, size))
    flat = config[-1][0] * (size // 2 ** len(config)) ** 2
    fcs = list(pairwise((flat, hidden, hidden, n_class)))
    terms = ([f"{o}·(9·{i} + 1)" for i, o, _ in convs], [f"({i} + 1)·{o}" for i, o in fcs],
             [f"{n}·{n}·{o}·9·{i}" for i, o, n in convs], [f"{i}·{o}" for i, o in fcs])
    part = index[0]
    return f"{' + '.join(terms[part])} = {right_totals(config, size, hidden, n_class)[part]}"


def totals_of_chainer(vgg_totals):
    """Let the library build such a network and count it."""
    config, options = ((4, 2), (6, 1), (8, 3)), {"hidden": 5, "n_class": 7}
    rows = inspect.summary(models.VGG(config, in_shape=(3, 32, 32), **options), (3, 32, 32)).rows
    right = tuple(sum(getattr(row, part) for row in rows if row.kind == kind)
                  for part in ("params", "macs") for kind in ("convolution", "linear"))
    got = tuple(vgg_totals(config, size=32, **options))
    if got != right:
        raise Finding("`inspect.summary` of the library's network counts otherwise.",
                      call=f"vgg_totals({config}, size=32, hidden=5, n_class=7)",
                      expected=str(right), got=str(got))


def totals(flat=None, hidden_layers=2, biases=True, pooled=0, first=None, order=(0, 1, 2, 3),
           macs=1, area=True):
    """A wrong answer: one thing of the right one is otherwise."""
    def vgg_totals(config, size=224, hidden=4096, n_class=1000):
        convs = list(convolutions(config, size))
        if first:
            convs[0] = (first(config), *convs[0][1:])
        n = size // 2 ** len(config)
        inputs = (flat or (lambda c, n: c * n * n))(config[-1][0], n)
        fcs = list(pairwise((inputs, *[hidden] * hidden_layers, n_class)))
        side = (lambda n: n // 2 ** pooled) if area else (lambda n: 1)
        found = (sum(o * (9 * i + biases) for i, o, _ in convs),
                 sum((i + biases) * o for i, o in fcs),
                 macs * sum(side(n) ** 2 * o * 9 * i for i, o, n in convs),
                 macs * sum(i * o for i, o in fcs))
        return tuple(found[i] for i in order)
    return vgg_totals


def never_pooled(config, size=224, hidden=4096, n_class=1000):
    convs = [(i, o, size) for i, o, _ in convolutions(config, size)]
    fcs = list(pairwise((config[-1][0] * size * size, hidden, hidden, n_class)))
    return (sum(o * (9 * i + 1) for i, o, _ in convs), sum((i + 1) * o for i, o in fcs),
            sum(n * n * o * 9 * i for i, o, n in convs), sum(i * o for i, o in fcs))


def with_biases(config, size=224, hidden=4096, n_class=1000):
    conv_params, fc_params, conv_macs, _ = right_totals(config, size, hidden, n_class)
    values = sum(n * n * o for _, o, n in convolutions(config, size))
    return conv_params, fc_params, conv_macs + values, fc_params


def one_conv_a_block(config, size=224, hidden=4096, n_class=1000):
    return right_totals(tuple((n_out, 1) for n_out, _ in config), size, hidden, n_class)


def alike_in_a_block(config, size=224, hidden=4096, n_class=1000):
    """n_in changes only behind the block."""
    n_in, convs = 3, []
    for (n_out, n_convs), n in zip(config, (size // 2 ** i for i in range(len(config))),
                                   strict=True):
        convs += [(n_in, n_out, n)] * n_convs
        n_in = n_out
    right = right_totals(config, size, hidden, n_class)
    return (sum(o * (9 * i + 1) for i, o, _ in convs), right[1],
            sum(n * n * o * 9 * i for i, o, n in convs), right[3])


vgg_totals = lab.function(Function(
    reference=right_totals,
    axes={"return": "conv_params fc_params conv_macs fc_macs"},
    cases=(given(config=((4, 1), (8, 2)), size=8, hidden=5, n_class=7), given(config=VGG16),
           given(config=VGG19), given(config=VGG16, size=32, hidden=16, n_class=10),
           given(config=((2, 1), (3, 1)), size=20)),
    by_hand=totals_by_hand,
    hand_title="three convolutions by hand",
    properties=(("the library's own network", totals_of_chainer),),
    mistakes=(
        Mistake("grey images", "The first convolution gets 3 channels, red, green and blue.",
                totals(first=lambda config: 1)),
        Mistake("the first n_in", "The first convolution gets the 3 channels of the image, not as "
                "many as it has itself.", totals(first=lambda config: config[0][0])),
        Mistake("n_in kept in a block", "Only the first convolution of a block gets the channels "
                "of the block before. The others get n_out: `n_in = n_out` belongs into the inner "
                "loop.", alike_in_a_block),
        Mistake("one convolution a block", "A block has n_convs convolutions.", one_conv_a_block),
        Mistake("no biases", "The biases are missing among the parameters: one for each output.",
                totals(biases=False)),
        Mistake("never pooled", "Each block ends with a pooling that halves the map: `size //= 2` "
                "behind its convolutions.", never_pooled),
        Mistake("pooled too early", "The pooling stands behind the convolutions of its block. "
                "They still work on the larger map.", totals(pooled=1)),
        Mistake("positions forgotten", "These are weights, not multiply-adds: a convolution uses "
                "each of its weights at every one of size·size positions.", totals(area=False)),
        Mistake("fc4 without the map", "fc4 gets the whole map, channels times rows times "
                "columns, not one number for each channel.", totals(flat=lambda c, n: c)),
        Mistake("fc4 with rows only", "The map has rows and columns: fc4 gets channels·size·size "
                "numbers.", totals(flat=lambda c, n: c * n)),
        Mistake("size ignored", "The image has size·size pixels, not always 224·224.",
                lambda config, size=224, hidden=4096, n_class=1000:
                right_totals(config, 224, hidden, n_class)),
        Mistake("hidden ignored", "The linear layers have `hidden` and `n_class` outputs, not "
                "always 4096 and 1000.", lambda config, size=224, hidden=4096, n_class=1000:
                right_totals(config, size)),
        Mistake("multiply-adds of the biases", "A bias is added without a multiplication, so it "
                "is no multiply-add: it counts among the parameters only.", with_biases),
        Mistake("two linear layers", "There are three linear layers: to hidden, to hidden once "
                "more, to n_class.", totals(hidden_layers=1)),
        Mistake("another order", "The four numbers are in another order: parameters of the "
                "convolutions, of the linear layers, then multiply-adds of both.",
                totals(order=(0, 2, 1, 3))),
        Mistake("FLOPs", "Multiplication and addition are one multiply-add. Twice as many would "
                "be FLOPs.", totals(macs=2)),
    ),
))
