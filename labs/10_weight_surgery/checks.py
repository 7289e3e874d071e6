"""Checks of lab 10, weight surgery: layouts, folding, colours, and a file into a network."""

import functools

from convnets.check import (
    Case,
    Finding,
    Function,
    Lab,
    Mistake,
    Pair,
    attempted,
    call,
    describe,
    given,
    same,
    show,
    signature,
)
from convnets.check.traits import Trait, stages
from convnets.pretrained.transfer import model_arrays

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np

lab = Lab(__file__, around=lambda: chainer.using_config("train", True))
hint, solution, solved = lab.hint, lab.solution, lab.solved


def numbers(shape, seed, dtype=np.float32):
    return np.random.RandomState(seed).normal(0, 1, shape).astype(dtype)


# ---- 1: oihw ---------------------------------------------------------------------------------

def right_oihw(kernel):
    return kernel.transpose(3, 2, 0, 1)


right_oihw.__name__ = "oihw"


def order(*axes):
    """A wrong answer: another order of the axes."""
    return lambda kernel: kernel.transpose(axes)


def kernel_by_hand(a, index):
    o, i, y, x = index
    return (f"row {y}, column {x} from input {i} to output {o}:\n"
            f"kernel[y={y}, x={x}, in={i}, out={o}] = {a['kernel'][y, x, i, o]:g} = "
            f"w[out={o}, in={i}, y={y}, x={x}]")


def same_sums(oihw):
    """The new weights give the maps that the kernel gives with images (H, W, C)."""
    kernel, image = numbers((3, 3, 2, 2), 5), numbers((6, 5, 2), 6)
    windows = np.lib.stride_tricks.sliding_window_view(image, (3, 3), axis=(0, 1))
    right = np.einsum("hwikl,klio->ohw", windows, kernel)   # (2, 4, 3)
    w = call(oihw, Case({"kernel": kernel}), "oihw(kernel)")
    got = F.convolution_2d(image.transpose(2, 0, 1)[None], np.ascontiguousarray(w)).array[0]
    if not same(got, right, atol=1e-4):
        raise Finding("A convolution with these weights gives other maps.",
                      expected=show(right[0]), got=show(got[0]))


oihw = lab.function(Function(
    reference=right_oihw,
    axes={"kernel": "kh kw I O", "return": "O I kh kw"},
    cases=(given(kernel=np.arange(1, 17, dtype=np.float32).reshape(2, 2, 2, 2)),
           given(kernel=numbers((3, 3, 4, 4), 0)), given(kernel=numbers((3, 3, 2, 5), 1)),
           given(kernel=numbers((2, 3, 4, 5), 2)), given(kernel=numbers((1, 1, 6, 2), 3))),
    by_hand=kernel_by_hand,
    hand_title="two windows of 2 x 2 by hand",
    properties=(("the same maps", same_sums),),
    mistakes=(
        Mistake("reshaped", "`reshape` keeps the numbers in their order and only draws the borders "
                "elsewhere, so every weight ends in a wrong place. The axes have to move: "
                "`transpose`.",
                lambda kernel: kernel.reshape(*kernel.shape[:1:-1], *kernel.shape[:2])),
        Mistake("all axes turned round", "`.T`, or `transpose(3, 2, 1, 0)`, turns round all four "
                "axes: rows and columns of the window are swapped as well. No shape shows it, "
                "since windows are square. Rows stay before columns: `transpose(3, 2, 0, 1)`.",
                order(3, 2, 1, 0)),
        Mistake("inputs first", "Inputs come first here. Chainer has the outputs on axis 0, the "
                "inputs on axis 1: `transpose(3, 2, 0, 1)`.", order(2, 3, 0, 1)),
        Mistake("the way back", "This is the way back, from (O, I, kh, kw) to (kh, kw, I, O). The "
                "numbers in `transpose` say which old axis comes to each new place: the outputs, "
                "old axis 3, come first.", order(2, 3, 1, 0)),
        Mistake("outputs moved only", "Only the outputs have moved. The inputs come next, before "
                "rows and columns: `transpose(3, 2, 0, 1)`.", order(3, 0, 1, 2)),
        Mistake("inputs moved only", "The outputs are still last: they come first, "
                "`transpose(3, 2, 0, 1)`.", order(2, 0, 1, 3)),
        Mistake("first and last swapped", "Swapping the first and the last axis leaves the inputs "
                "between rows and columns: `transpose(3, 2, 0, 1)` moves all four.",
                order(3, 1, 2, 0)),
        Mistake("inputs and outputs swapped", "Inputs and outputs have changed places, but "
                "rows and columns are still in front.", order(0, 1, 3, 2)),
        Mistake("turned by 180 degrees", "The windows are turned by 180 degrees. Both frameworks "
                "lay the window on the image as it is (chapter 1): only the axes move.",
                lambda kernel: right_oihw(kernel)[:, :, ::-1, ::-1]),
        Mistake("as it was", "The kernel is as it was: the axes have to move, "
                "`kernel.transpose(3, 2, 0, 1)`.", lambda kernel: kernel),
    ),
))


# ---- 2: dense --------------------------------------------------------------------------------

def right_dense(kernel, map_shape):
    c, h, w = map_shape
    return kernel.reshape(h, w, c, -1).transpose(3, 2, 0, 1).reshape(kernel.shape[1], -1)


right_dense.__name__ = "dense"


def rearranged(before, axes):
    """A wrong answer: other sizes before, or another order of the axes."""
    def dense(kernel, map_shape):
        return kernel.reshape(*before(*map_shape), -1).transpose(axes).reshape(kernel.shape[1], -1)
    return dense


def outputs_last(kernel, map_shape):
    c, h, w = map_shape
    return kernel.reshape(h, w, c, -1).transpose(2, 0, 1, 3).reshape(kernel.shape)


def not_flattened(kernel, map_shape):
    return right_dense(kernel, map_shape).reshape(-1, *map_shape)


def backwards_order(kernel, map_shape):
    c, h, w = map_shape
    return kernel.T.reshape(-1, c, h, w).transpose(0, 2, 3, 1).reshape(kernel.shape[1], -1)


def dense_by_hand(a, index):
    o, place = index
    c, y, x = np.unravel_index(place, a["map_shape"])
    n_channels, _, width = a["map_shape"]
    row = (y * width + x) * n_channels + c
    return (f"column {place} of ours is channel {c}, row {y}, column {x} of the map;\n"
            f"flattened as (H, W, C) that was number ({y}·{width} + {x})·{n_channels} + {c} = "
            f"{row}: kernel[{row}, {o}] = {a['kernel'][row, o]:g}")


def same_scores(dense):
    """Both ways to flatten a map give the same scores."""
    maps, kernel = numbers((2, 3, 4, 2), 7), numbers((24, 24), 8)     # (N, C, H, W)
    right = maps.transpose(0, 2, 3, 1).reshape(2, -1) @ kernel
    w = call(dense, Case({"kernel": kernel, "map_shape": (3, 4, 2)}), "dense(kernel, (3, 4, 2))")
    got = maps.reshape(2, -1) @ w.T
    if not same(got, right, atol=1e-4):
        raise Finding("A linear layer with these weights gives other scores.",
                      expected=show(right[0, :4]), got=show(got[0, :4]))


dense = lab.function(Function(
    reference=right_dense,
    axes={"kernel": "in out", "return": "out in"},
    cases=(given(kernel=np.float32([[1, 10], [2, 20], [3, 30], [4, 40], [5, 50], [6, 60]]),
                 map_shape=(2, 1, 3)),
           given(kernel=numbers((12, 4), 0), map_shape=(3, 2, 2)),
           given(kernel=numbers((24, 5), 1), map_shape=(2, 3, 4)),
           given(kernel=numbers((16, 16), 2), map_shape=(4, 2, 2)),
           given(kernel=numbers((5, 3), 3), map_shape=(5, 1, 1))),
    by_hand=dense_by_hand,
    hand_title="a map of 1 x 3 by hand",
    properties=(("the same scores", same_scores),),
    mistakes=(
        Mistake("transposed only", "(in, out) became (out, in), but the inputs still come in the "
                "order (H, W, C), and our maps are flattened as (C, H, W). Unpack the inputs "
                "first: `kernel.reshape(h, w, c, -1)`.",
                lambda kernel, map_shape: kernel.T.copy()),
        Mistake("reshaped only", "`reshape` moves no number: inputs and outputs are mixed now. The "
                "axes have to move, by `transpose`.",
                lambda kernel, map_shape: kernel.reshape(kernel.shape[::-1])),
        Mistake("rows and columns swapped", "Rows and columns of the map are swapped: behind the "
                "channels come the rows, then the columns, `transpose(3, 2, 0, 1)`.",
                rearranged(lambda c, h, w: (h, w, c), (3, 2, 1, 0))),
        Mistake("map_shape as (H, W, C)", "map_shape is the shape of *our* map: `c, h, w = "
                "map_shape`.",
                rearranged(lambda c, h, w: (c, h, w), (3, 2, 0, 1))),
        Mistake("the other way round", "This makes (H, W, C) of (C, H, W). It is the file that has "
                "(H, W, C): unpack that, `kernel.reshape(h, w, c, -1)`.", backwards_order),
        Mistake("outputs last", "The inputs are in the right order, but the outputs come last. "
                "Chainer's W is (out, in): `transpose(3, 2, 0, 1)` brings them to the front.",
                outputs_last),
        Mistake("not flattened", "These are the weights of a convolution over the whole map, which "
                "would do as well. A linear layer's W has two axes: `.reshape(kernel.shape[1], "
                "-1)`.",
                not_flattened),
        Mistake("from the right", "Columns come before rows and run through all rows first: "
                "`transpose(3, 2, 0, 1)`, not `transpose(3, 1, 0, 2)`. The channels must be the "
                "slowest of the three.",
                rearranged(lambda c, h, w: (h, w, c), (3, 1, 0, 2))),
        Mistake("as it was", "The kernel is as it was, (in, out) with the inputs as (H, W, C).",
                lambda kernel, map_shape: kernel),
    ),
))


# ---- 3: fold ---------------------------------------------------------------------------------

def right_fold(conv, bn):
    return folding()(conv, bn)


right_fold.__name__ = "fold"


def a_factor(bn):
    return bn.gamma.array / np.sqrt(bn.avg_var + bn.eps)


def bias_of(conv):
    return 0 if conv.b is None else conv.b.array


def a_convolution(conv, w, b, **options):
    options = {"stride": conv.stride, "pad": conv.pad} | options
    return L.Convolution2D(w.shape[1], w.shape[0], w.shape[2:], **options,
                           initialW=np.float32(w), initial_bias=np.float32(b))


def folding(factor=a_factor, weights=None, bias=None, make=a_convolution):
    """The right answer, or a wrong one: another factor, other weights, another bias or link."""
    def fold(conv, bn):
        f = factor(bn)
        w = conv.W.array * f[:, None, None, None] if weights is None else weights(conv, f)
        b = (bias_of(conv) - bn.avg_mean) * f + bn.beta.array if bias is None else bias(conv, bn, f)
        return make(conv, w, b)
    return fold


def in_place(conv, bn):
    f = a_factor(bn)
    b = (bias_of(conv) - bn.avg_mean) * f + bn.beta.array
    conv.W.array *= f[:, None, None, None]
    if conv.b is None:
        with conv.init_scope():
            conv.b = chainer.Parameter(b)
    conv.b.array = b
    return conv


def not_filled(conv, w, b):
    return L.Convolution2D(w.shape[1], w.shape[0], w.shape[2:], conv.stride, conv.pad)


# inputs, outputs, window, stride, padding, no bias, eps
PAIRS = ((3, 4, 3, 1, 0, False, 2e-5), (3, 4, 3, 1, 0, True, 2e-5), (4, 4, 3, 1, 0, False, 2e-5),
         (2, 3, 3, 2, 1, False, 0.1), (5, 6, 1, 1, 0, True, 1.001e-5))


def conv_and_bn(n_in, n_out, ksize, stride, pad, nobias, eps):
    """Both links, full of numbers; the last variance is so small that eps counts."""
    conv = L.Convolution2D(n_in, n_out, ksize, stride, pad, nobias)
    bn = L.BatchNormalization(n_out, eps=eps)
    conv.W.array[...] = numbers(conv.W.shape, 1)
    for seed, array in enumerate((bn.gamma.array, bn.beta.array, bn.avg_mean), 2):
        array[...] = numbers(array.shape, seed)
    bn.avg_var[...] = np.geomspace(4, 1e-5, n_out)
    if not nobias:
        conv.b.array[...] = numbers(n_out, 5)
    return conv, bn


def folded(fold, index):
    """The link that an answer makes of pair `index`; a text where it is none."""
    np.random.seed(0)   # for weights that were left at random
    link = fold(*conv_and_bn(*PAIRS[index]))
    if link is ... or link is None:
        return "nothing"
    return link if isinstance(link, chainer.Link) else describe(link)


def fold_kind(fold):
    link = folded(fold, 0)
    if isinstance(link, str):
        return link
    return f"{type(link).__name__} with " + ", ".join(
        f"{path[1:]} {param.shape}" for path, param in sorted(link.namedparams()))


def fold_maps(fold, index):
    """Whether one convolution gives the maps of both links; else three numbers of its maps."""
    conv, bn = conv_and_bn(*PAIRS[index])
    x = numbers((2, PAIRS[index][0], 6, 6), 9)
    with chainer.using_config("train", False):
        right = bn(conv(x)).array
        link = folded(fold, index)
        got = link if isinstance(link, str) else link(x).array
    if isinstance(got, str):
        return got
    if got.shape != right.shape:
        return f"maps of shape {got.shape}"
    if same(got, right, rtol=1e-3, atol=1e-3 * right.std()):
        return "the maps of both"
    return "other maps, channel by channel at the first place: " + " ".join(
        f"{float(value):.3g}" for value in got[0, :, 0, 0])


def fold_numbers(fold, index):
    """As `fold_maps`; on what both links give, for the report."""
    text = fold_maps(fold, index)
    if not text.startswith("other maps"):
        return text
    conv, bn = conv_and_bn(*PAIRS[index])
    with chainer.using_config("train", False):
        right = bn(conv(numbers((2, PAIRS[index][0], 6, 6), 9))).array[0, :, 0, 0]
    return f"{text}, where both give " + " ".join(f"{float(value):.3g}" for value in right)


def fold_leaves(fold):
    conv, bn = conv_and_bn(*PAIRS[0])
    before = [np.copy(a) for a in (conv.W.array, conv.b.array, *arrays_of(bn))]
    fold(conv, bn)
    after = [conv.W.array, conv.b.array, *arrays_of(bn)]
    unchanged = all(map(np.array_equal, before, after))
    return "both as they were" if unchanged else "other numbers in conv or bn"


def arrays_of(bn):
    return bn.gamma.array, bn.beta.array, bn.avg_mean, bn.avg_var


def pair_text(index):
    n_in, n_out, ksize, stride, pad, nobias, eps = PAIRS[index]
    return (f"fold(L.Convolution2D({n_in}, {n_out}, {ksize}, {stride}, {pad}"
            f"{', nobias=True' if nobias else ''}), L.BatchNormalization({n_out}, eps={eps}))")


FOLD = (
    Trait("a convolution", "The result is not a single convolution with weights and a bias.",
          fold_kind, call=pair_text(0),
          cause="Return `L.Convolution2D(...)`, made with `initialW=w` and `initial_bias=b`."),
    *(Trait(title, "The new convolution does not give the maps of both links.",
            functools.partial(fold_numbers, index=index), call=pair_text(index), cause=cause)
      for index, title, cause in (
          (0, "the same maps", "With factor = gamma / root(avg_var + eps): the weights are "
           "w · factor, the bias (b - avg_mean) · factor + beta."),
          (2, "as many inputs as outputs", "The factors belong to the outputs, axis 0 of W."),
          (1, "a convolution without a bias", "`conv.b` is None there: take 0 for it."),
          (3, "another stride, padding and eps", "Take them from the links: `conv.stride`, "
           "`conv.pad`, `bn.eps`."),
          (4, "a window of 1", "Take the window from the weights, `conv.W.shape`."))),
    Trait("conv and bn untouched", "The links that were handed over have changed.", fold_leaves,
          call=pair_text(0), cause="Make new arrays (`w * factor`, not `w *= factor`) and a new "
                                   "link: the old network is still needed to compare with."),
)


@lab.check(
    Mistake("bias lost", "The convolution's own bias is lost. It was added before the "
            "normalization, so it goes through the factor, too: `(b - avg_mean) * factor + beta`.",
            folding(bias=lambda conv, bn, f: bn.beta.array - bn.avg_mean * f)),
    Mistake("bias past the factor", "The convolution's bias was added at the end. It goes through "
            "the normalization as the maps do: `(b - avg_mean) * factor + beta`.",
            folding(bias=lambda conv, bn, f: bias_of(conv) + bn.beta.array - bn.avg_mean * f)),
    Mistake("sign of the bias", "The signs: the bias is added to the maps, the mean is subtracted: "
            "`(b - avg_mean) * factor + beta`.",
            folding(bias=lambda conv, bn, f: bn.beta.array - (bias_of(conv) + bn.avg_mean) * f)),
    Mistake("mean past the factor", "The mean in the bias was not multiplied: `(b - avg_mean) * "
            "factor + beta`.",
            folding(bias=lambda conv, bn, f: bias_of(conv) * f - bn.avg_mean + bn.beta.array)),
    Mistake("beta through the factor", "beta was multiplied, too. It comes last: `(b - avg_mean) * "
            "factor + beta`.",
            folding(bias=lambda conv, bn, f: (bias_of(conv) - bn.avg_mean + bn.beta.array) * f)),
    Mistake("beta lost", "beta is lost: `(b - avg_mean) * factor + beta`.",
            folding(bias=lambda conv, bn, f: (bias_of(conv) - bn.avg_mean) * f)),
    Mistake("mean lost", "avg_mean is lost: `(b - avg_mean) * factor + beta`.",
            folding(bias=lambda conv, bn, f: bias_of(conv) * f + bn.beta.array)),
    Mistake("no root", "The factor divides by the variance. Divide by its root.",
            folding(lambda bn: bn.gamma.array / (bn.avg_var + bn.eps))),
    Mistake("eps lost", "eps is missing: `np.sqrt(bn.avg_var + bn.eps)`. One channel here has "
            "hardly any variance, and real networks have such channels, too.",
            folding(lambda bn: bn.gamma.array / np.sqrt(bn.avg_var))),
    Mistake("eps outside the root", "eps stands outside the root: `np.sqrt(bn.avg_var + bn.eps)`.",
            folding(lambda bn: bn.gamma.array / (np.sqrt(bn.avg_var) + bn.eps))),
    Mistake("Chainer's own eps", "eps is 2e-5 here whatever the link says. Other frameworks have "
            "others: `bn.eps`.",
            folding(lambda bn: bn.gamma.array / np.sqrt(bn.avg_var + 2e-5))),
    Mistake("gamma lost", "gamma is lost: `bn.gamma.array / np.sqrt(bn.avg_var + bn.eps)`.",
            folding(lambda bn: 1 / np.sqrt(bn.avg_var + bn.eps))),
    Mistake("along the inputs", "The factors were laid along the inputs. Each output channel has "
            "its own: `factor[:, None, None, None]`.",
            folding(weights=lambda conv, f: conv.W.array * f[:, None, None])),
    Mistake("weights as they were", "Only the bias was folded: the weights are multiplied by the "
            "factor as well.", folding(weights=lambda conv, f: conv.W.array)),
    Mistake("no bias expected", "A convolution with `nobias=True` has `conv.b` None, and None has "
            "no array: `0 if conv.b is None else conv.b.array`.",
            folding(bias=lambda conv, bn, f: (conv.b.array - bn.avg_mean) * f + bn.beta.array)),
    Mistake("stride and padding lost", "The new convolution has a stride of 1 and no padding. Hand "
            "on the old one's: `conv.stride, conv.pad`.",
            folding(make=functools.partial(a_convolution, stride=1, pad=0))),
    Mistake("padding lost", "The new convolution does not pad: hand on `conv.pad`.",
            folding(make=functools.partial(a_convolution, pad=0))),
    Mistake("stride lost", "The new convolution has a stride of 1: hand on `conv.stride`.",
            folding(make=functools.partial(a_convolution, stride=1))),
    Mistake("in place", "The numbers are right, but they were written into the links that were "
            "handed over: the old network is spoilt. Make a new link.", in_place),
    Mistake("not filled", "The new convolution has random weights: hand over `initialW=w` and "
            "`initial_bias=b`.", folding(make=not_filled)),
    Mistake("two arrays", "These are weights and bias, without a layer around them: "
            "`L.Convolution2D(..., initialW=w, initial_bias=b)`.",
            folding(make=lambda conv, w, b: (w, b))),
    Mistake("both in a row", "This puts the two links into a row, and nothing is saved. One "
            "convolution does the work of both.", lambda conv, bn: chainer.Sequential(conv, bn)),
)
def fold(answer):
    """Check `fold`: give it your function, get a Report."""
    return [("attempted", lambda: attempted(answer)),
            ("signature", lambda: signature(answer, right_fold)),
            *stages(lab, "fold", answer, right_fold, FOLD)]


# ---- 4: eat_pixels ---------------------------------------------------------------------------

def columns(values):
    """Numbers of the channels, (3,), as (3, 1, 1): they fit weights (O, 3, kh, kw)."""
    return values[:, None, None]


def right_eat_pixels(w, b, scale, mean, std):
    return eating()(w, b, scale, mean, std)


right_eat_pixels.__name__ = "eat_pixels"


def eating(weights=None, bias=None):
    """The right answer, or a wrong one with other weights or another bias."""
    def eat_pixels(w, b, scale, mean, std):
        scale, mean, std = np.float32(scale), columns(mean), columns(std)
        new = (w * (scale / std))[:, ::-1] if weights is None else weights(w, scale, mean, std)
        shift = (w * (mean / std)).sum(axis=(1, 2, 3))
        return new, (b - shift if bias is None else bias(w, b, scale, mean, std))
    return eat_pixels


def over_windows(product):
    return product.sum(axis=(1, 2, 3))


def pixels_by_hand(a, part, index):
    scale = a["scale"]
    if part == 0:
        channel = 2 - index[1]
        value, std = a["w"][index[0], channel, index[2], index[3]], a["std"][channel]
        return (f"channel {index[1]} of the pixels is channel {channel} of the network, whose "
                f"weight is {value:g}\n{value:g} · {scale:g} / {std:g} = {value * scale / std:g}")
    (o,) = index
    sums = a["w"][o].sum(axis=(1, 2))
    terms = [f"{total:g} · {m:g} / {s:g}" for total, m, s in
             zip(sums, a["mean"], a["std"], strict=True)]
    value = a["b"][o] - float((sums * a["mean"] / a["std"]).sum())
    return (f"output {o}, the sums of its windows are {', '.join(f'{v:g}' for v in sums)}\n"
            f"{a['b'][o]:g} - ({' + '.join(terms)}) = {value:g}")


def same_from_pixels(eat_pixels):
    """A convolution of raw pixels gives the maps of the prepared ones."""
    for stride, case in ((1, PIXELS.cases[1]), (2, PIXELS.cases[2])):
        pixels = np.random.RandomState(4).randint(0, 256, (1, 3, 7, 7)).astype(np.float32)
        prepared = (pixels * case["scale"] - columns(case["mean"])) / columns(case["std"])
        right = F.convolution_2d(np.float32(prepared), case["w"], case["b"], stride).array
        w, b = call(eat_pixels, Case(case), "eat_pixels(w, b, scale, mean, std)")
        got = F.convolution_2d(pixels[:, ::-1].copy(), w.copy(), b, stride).array
        if not same(got, right, rtol=1e-3, atol=1e-3 * right.std()):
            raise Finding("From pixels, the new convolution gives other maps than the old one "
                          "from prepared images.", expected=show(right[0, 0]), got=show(got[0, 0]))


TORCH = {"scale": 1 / 255, "mean": np.float32([0.485, 0.456, 0.406]),
         "std": np.float32([0.229, 0.224, 0.225])}
CAFFE = {"scale": 1.0, "mean": np.float32([104, 117, 123]), "std": np.ones(3, np.float32)}

PIXELS = Pair(
    lab=lab, reference=right_eat_pixels, names=("w", "b"), axes=("O C kh kw", "O"),
    given_axes={"w": "O C kh kw", "b": "O", "mean": "C", "std": "C"},
    cases=(given(w=np.float32([[[[1, 2]], [[4, -2]], [[3, 0]]], [[[0, 1]], [[1, 1]], [[5, -1]]]]),
                 b=np.float32([10, 20]), scale=0.5, mean=np.float32([4, 1, 2]),
                 std=np.float32([2, 4, 1])),
           given(w=numbers((4, 3, 3, 3), 0), b=numbers(4, 1), **TORCH),
           given(w=numbers((3, 3, 2, 2), 2), b=numbers(3, 3), **CAFFE),
           given(w=numbers((2, 3, 3, 3), 4), b=numbers(2, 5), scale=2.0,
                 mean=np.float32([1, -3, 2]), std=np.float32([1, 2, 0.5]))),
    by_hand=pixels_by_hand,
    shapes="The weights keep their shape (O, 3, kh, kw), and the bias is one number for each "
           "output, (O,): the sum runs over channels, rows and columns.",
    properties=(("the same maps", same_from_pixels),))


@lab.check(
    Mistake("channels as they were", "The channels are as they were. The pixels come in the other "
            "order: turn axis 1 round, `[:, ::-1]`.",
            eating(lambda w, scale, mean, std: w * (scale / std))),
    Mistake("outputs turned round", "`[::-1]` turns round axis 0, the outputs. The colours are "
            "axis 1: `[:, ::-1]`.",
            eating(lambda w, scale, mean, std: (w * (scale / std))[::-1])),
    Mistake("windows turned round", "Rows or columns of the windows are turned round, too. Only "
            "axis 1, the colours: `[:, ::-1]`.",
            eating(lambda w, scale, mean, std: (w * (scale / std))[:, ::-1, ::-1, ::-1])),
    Mistake("turned round too early", "The weights were turned round first, then each got the std "
            "of another colour. mean and std are in the network's order: multiply first, then turn "
            "round.",
            eating(lambda w, scale, mean, std: w[:, ::-1] * (scale / std))),
    Mistake("mean of another colour", "The bias was calculated with the weights turned round, and "
            "the means not: red's mean met blue's weights. Use the old w.",
            eating(bias=lambda w, b, scale, mean, std:
                   b - over_windows(w[:, ::-1] * (mean / std)))),
    Mistake("new weights in the bias", "The bias was calculated from the new weights. The mean "
            "meets the old ones, divided by std: `(w * (mean / std)).sum(axis=(1, 2, 3))`.",
            eating(bias=lambda w, b, scale, mean, std:
                   b - over_windows((w * (scale / std))[:, ::-1] * mean))),
    Mistake("scale lost", "scale is lost: a weight that met p · scale now meets p.",
            eating(lambda w, scale, mean, std: (w / std)[:, ::-1])),
    Mistake("scale upside down", "The weights were divided by scale. They met p · scale and now "
            "meet p: multiply them by it.",
            eating(lambda w, scale, mean, std: (w / (scale * std))[:, ::-1])),
    Mistake("scale on the mean", "The mean was multiplied by scale, too. It is subtracted after "
            "the pixels were scaled.",
            eating(bias=lambda w, b, scale, mean, std: b - over_windows(w * (scale * mean / std)))),
    Mistake("std lost", "std is lost: a weight that met p / std now meets p.",
            eating(lambda w, scale, mean, std: (w * scale)[:, ::-1])),
    Mistake("std upside down", "The weights were multiplied by std. Dividing the pixels by std and "
            "dividing the weights by std is the same.",
            eating(lambda w, scale, mean, std: (w * (scale * std))[:, ::-1])),
    Mistake("mean not divided", "The mean was not divided by std: (p · scale - mean) / std is "
            "p · scale / std - mean / std.",
            eating(bias=lambda w, b, scale, mean, std: b - over_windows(w * mean))),
    Mistake("sign of the bias", "The sign: the mean is subtracted from the pixels, so what it "
            "gives comes off the bias.",
            eating(bias=lambda w, b, scale, mean, std: b + over_windows(w * (mean / std)))),
    Mistake("mean lost", "The mean is lost: it belongs to the bias.",
            eating(bias=lambda w, b, scale, mean, std: b)),
    Mistake("old bias lost", "The old bias is lost: `b - ...`.",
            eating(bias=lambda w, b, scale, mean, std: -over_windows(w * (mean / std)))),
    Mistake("channels not added up", "The sum runs over the windows only. One output sees all "
            "three channels: `axis=(1, 2, 3)`.",
            eating(bias=lambda w, b, scale, mean, std:
                   b[:, None] - (w * (mean / std)).sum(axis=(2, 3)))),
    Mistake("mean over the windows", "This takes the mean of the weights of a window. Each of "
            "them meets the mean colour, so they add up: `.sum(axis=(1, 2, 3))`.",
            eating(bias=lambda w, b, scale, mean, std:
                   b - (w * (mean / std)).mean(axis=(1, 2, 3)))),
    Mistake("along the columns", "An array of three numbers fits the *last* axis, the columns of "
            "the window. The channels are axis 1: `std[:, None, None]`.",
            lambda w, b, scale, mean, std: (
                (w * (scale / std))[:, ::-1], b - over_windows(w * columns(mean / std)))),
)
def eat_pixels(answer):
    """Check `eat_pixels`: give it your function, get a Report."""
    return PIXELS.stages(answer)


# ---- 5: load ---------------------------------------------------------------------------------

class Small(chainer.Chain):
    """Two convolutions of one shape, their normalizations, and a linear layer."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.conv1 = L.Convolution2D(4, 4, 3, nobias=True)
            self.bn1 = L.BatchNormalization(4)
            self.conv2 = L.Convolution2D(4, 4, 3, nobias=True)
            self.bn2 = L.BatchNormalization(4)
            self.fc = L.Linear(4, 3)


def as_it_is(array):
    return array


def without(mean, bias):
    return mean - bias


def a_plan():
    plan = {"fc/W": (np.transpose, ["scores/kernel"]), "fc/b": (as_it_is, ["scores/bias"])}
    for i in "12":
        plan |= {f"conv{i}/W": (right_oihw, [f"block{i}/kernel"]),
                 f"bn{i}/gamma": (as_it_is, [f"block{i}/gamma"]),
                 f"bn{i}/beta": (as_it_is, [f"block{i}/beta"]),
                 f"bn{i}/avg_mean": (without, [f"block{i}/moving_mean", f"block{i}/bias"]),
                 f"bn{i}/avg_var": (as_it_is, [f"block{i}/moving_variance"])}
    return plan


def a_file():
    """Arrays by name, the second block first, float64 as NumPy makes them."""
    shapes = {"scores/kernel": (4, 3), "scores/bias": (3,)}
    for i in "21":
        shapes |= {f"block{i}/kernel": (3, 3, 4, 4)} | {f"block{i}/{name}": (4,) for name in (
            "bias", "gamma", "beta", "moving_mean", "moving_variance")}
    return {name: numbers(shape, seed, np.float64)
            for seed, (name, shape) in enumerate(shapes.items())}


def right_load(model, arrays, plan):
    targets, found = model_arrays(model), {}
    if missing := set(targets) - set(plan):
        raise ValueError(f"no plan for {', '.join(sorted(missing))}")
    for path, (convert, names) in plan.items():
        found[path] = convert(*(arrays[name] for name in names))
        if found[path].shape != targets[path].shape:
            raise ValueError(f"{path} is {targets[path].shape}, got {found[path].shape}")
    for path, array in found.items():
        targets[path][...] = array
    return sorted(set(arrays) - {name for _, names in plan.values() for name in names})


right_load.__name__ = "load"


def wrongly(check=lambda path, array, target: None, put=None, names=None, left=None,
            plan_whole=True, get=None):
    """A wrong answer: it skips a check, puts arrays elsewhere, or forgets what is left over."""
    def load(model, arrays, plan):
        targets, found = model_arrays(model), {}
        for path in set(targets) - set(plan) if plan_whole else ():
            raise ValueError(f"no plan for {path}")
        for path, (convert, sources) in plan.items():
            taken = [arrays[n] for n in sources] if get is None else get(arrays, sources)
            if taken is None:
                continue
            array = convert(*taken)
            array = array if (new := check(path, array, targets[path])) is None else new
            if array is not SKIP:
                found[path] = array
        for path, array in found.items():
            if put is None:
                targets[path][...] = array
            else:
                put(model, targets, path, array)
        used = {n for _, sources in plan.values() for n in sources}
        return sorted(set(arrays) - used) if left is None else left(arrays, used)
    return load


SKIP = object()


def exact(path, array, target):
    if array.shape != target.shape:
        raise ValueError(f"{path} is {target.shape}, got {array.shape}")


def skip_misfits(path, array, target):
    return None if array.shape == target.shape else SKIP


def by_size(path, array, target):
    if array.size != target.size:
        raise ValueError(f"{path} is {target.shape}, got {array.shape}")


def reshaped(path, array, target):
    return np.resize(array, target.shape)


def wordless(path, array, target):
    if array.shape != target.shape:
        raise ValueError("wrong shape")


def put_object(model, targets, path, array):
    """The file's own array becomes the parameter's."""
    params = {name[1:]: param for name, param in model.namedparams()}
    if path in params:
        params[path].array = array
    else:
        targets[path][...] = array


def put_copied(model, targets, path, array):
    put_object(model, targets, path, array.astype(np.float64))


def put_parameters(model, targets, path, array):
    if "/" + path in dict(model.namedparams()):
        targets[path][...] = array


def put_nowhere(model, targets, path, array):
    targets[path] = array


def put_new_parameter(model, targets, path, array):
    link, name = path.split("/")
    if "avg" in name:
        return put_object(model, targets, path, array)
    with model[link].init_scope():
        setattr(model[link], name, chainer.Parameter(np.array(array, np.float32)))


def by_order(model, arrays, plan):
    targets = model_arrays(model)
    for path, name in zip(targets, arrays, strict=False):
        if targets[path].shape == arrays[name].shape:
            targets[path][...] = arrays[name]
    return sorted(arrays)[len(targets):]


def at_once(model, arrays, plan):
    targets = model_arrays(model)
    if missing := set(targets) - set(plan):
        raise ValueError(f"no plan for {', '.join(sorted(missing))}")
    for path, (convert, names) in plan.items():
        array = convert(*(arrays[name] for name in names))
        exact(path, array, targets[path])
        targets[path][...] = array
    return sorted(set(arrays) - {name for _, names in plan.values() for name in names})


def refuse_leftovers(arrays, used):
    if rest := set(arrays) - used:
        raise ValueError(f"unused: {rest}")
    return []


def loaded(load, arrays=None, plan=None):
    """A model after the call, and what the call returned; raises what it raises."""
    model = Small()
    result = load(model, a_file() if arrays is None else arrays, plan or a_plan())
    return model, result


def contents(model):
    return {path: np.array(array) for path, array in model_arrays(model).items()}


def load_fills(load):
    model, right = loaded(load)[0], contents(loaded(right_load)[0])
    got = contents(model)
    wrong = [path for path in sorted(right) if not same(got.get(path), right[path])]
    return f"other numbers in {', '.join(wrong)}" if wrong else "all as the plan says"


def load_types(load):
    model = Small()
    before = {path: id(param) for path, param in model.namedparams()}
    load(model, a_file(), a_plan())
    types = {f"{path} {array.dtype}" for path, array in model_arrays(model).items()
             if array.dtype != np.float32}
    if before != {path: id(param) for path, param in model.namedparams()}:
        return "other parameters in place of the model's own"
    return ", ".join(sorted(types)) or "float32, in the model's own parameters"


def load_keeps(load):
    arrays = {name: array.astype(np.float32) for name, array in a_file().items()}
    model, _ = loaded(load, arrays)
    before = contents(model)
    for array in arrays.values():
        array += 1
    kept = all(map(np.array_equal, before.values(), contents(model).values()))
    return "the model keeps its numbers" if kept else "the model's numbers change with the file's"


def load_left_over(load):
    extra = {"step": np.array(7), "block3/kernel": np.zeros((3, 3, 4, 4))}
    _, result = loaded(load, a_file() | extra)
    return f"returned {list(result) if isinstance(result, (list, tuple)) else result!r}"


def refusal(load, arrays, plan, words):
    """What becomes of a file that does not fit: refused or not, and the model afterwards."""
    model = Small()
    before = contents(model)
    try:
        load(model, arrays, plan)
        said = "no error"
    except Exception as error:
        named = any(word in str(error) for word in words)
        said = "an error that names it" if named else f"an error, {type(error).__name__}, that " \
                                                      f"does not say which array it is about"
    after = contents(model)
    changed = {path for path in before if not np.array_equal(before[path], after.get(path))}
    filled = "" if "fc/b" in changed else " but for fc/b"
    return said + (f"; the model has changed{filled}" if changed else "; the model as it was")


def load_misfit(load, shape):
    arrays = a_file()
    arrays["scores/bias"] = np.ones(shape)
    return refusal(load, arrays, a_plan(), ("fc/b", "scores/bias"))


def load_missing(load):
    arrays = a_file()
    del arrays["block2/gamma"]
    return refusal(load, arrays, a_plan(), ("block2/gamma", "bn2/gamma"))


def load_unplanned(load):
    plan = a_plan()
    del plan["bn1/avg_var"]
    return refusal(load, a_file(), plan, ("bn1/avg_var",))


LOAD = (
    Trait("every array filled", "The model does not hold what the file and the plan say.",
          load_fills, call="load(model, arrays, plan)",
          cause="For each path of the plan: `convert(*[arrays[name] for name in names])` into "
                "`model_arrays(model)[path][...]`."),
    Trait("what is left over", "The names that nobody used are not what is returned.",
          load_left_over, call="load(model, arrays, plan), with two names more in arrays",
          cause="Return a sorted list of all names in arrays that stand nowhere in the plan."),
    Trait("a missing name", "The file lacks block2/gamma.", load_missing,
          call="load(model, arrays without 'block2/gamma', plan)",
          cause="`arrays[name]` raises a KeyError with the name. Fill nothing before all arrays "
                "have been found."),
    Trait("a wrong shape", "The file has a single number where the model has three.",
          functools.partial(load_misfit, shape=(1,)),
          call="load(model, arrays, plan), with arrays['scores/bias'] of shape (1,)",
          cause="NumPy stretches a single number over three places. Compare the shapes, and raise "
                "a ValueError with the path before anything is filled."),
    Trait("another wrong shape", "The file has five numbers where the model has three.",
          functools.partial(load_misfit, shape=(5,)),
          call="load(model, arrays, plan), with arrays['scores/bias'] of shape (5,)",
          cause="Compare the shapes, and raise a ValueError with the path before anything is "
                "filled."),
    Trait("a path without a plan", "The plan says nothing about bn1/avg_var.", load_unplanned,
          call="load(model, arrays, plan without 'bn1/avg_var')",
          cause="Compare the paths of `model_arrays(model)` with those of the plan, and raise a "
                "ValueError with what is missing before anything is filled."),
    Trait("float32 parameters", "The model's parameters are not what they were.", load_types,
          call="load(model, arrays, plan), arrays of float64",
          cause="`array[...] = new` puts numbers into the array that is there, of its dtype."),
    Trait("a copy", "Model and file share their memory.", load_keeps,
          call="load(model, arrays, plan), then the arrays change",
          cause="`array[...] = new` copies the numbers."),
)


@lab.check(
    Mistake("by order", "The arrays went in one after the other. The order in a file means "
            "nothing, and two layers of one shape then have each other's weights: go by the names "
            "of the plan.", by_order),
    Mistake("missing ones skipped", "A name that is not in the file was passed over, and that "
            "layer keeps its random weights: nobody will notice. `arrays[name]` raises a KeyError "
            "that says what is missing.",
            wrongly(exact, get=lambda arrays, names: [arrays[n] for n in names]
                    if all(n in arrays for n in names) else None)),
    Mistake("wrong shapes skipped", "An array of another shape was passed over, and that layer "
            "keeps its random weights. Raise a ValueError that says which.", wrongly(skip_misfits)),
    Mistake("stretched", "`array[...] = new` stretches a single number over all places without a "
            "word (broadcasting). Compare the shapes first.", wrongly()),
    Mistake("made to fit", "The array was made to fit: cut, or repeated. Numbers of another shape "
            "belong to another layer: raise a ValueError.", wrongly(reshaped)),
    Mistake("error without a name", "The error does not say which array does not fit. Put the path "
            "and both shapes into it: whoever reads it has a file with hundreds.",
            wrongly(wordless)),
    Mistake("half filled", "What came before the fault is in the model already: half of it is old, "
            "half new. First find and compare all arrays, then fill.", at_once),
    Mistake("unplanned paths", "An array of the model that the plan forgets keeps its old numbers "
            "without a word. Compare the paths: `set(model_arrays(model)) - set(plan)`.",
            wrongly(exact, plan_whole=False)),
    Mistake("parameters only", "Only the parameters were filled. avg_mean and avg_var are no "
            "parameters, but without them batch normalization has forgotten all it saw: "
            "`model_arrays(model)` has them.",
            wrongly(exact, put_parameters)),
    Mistake("into the dictionary", "`targets[path] = array` puts the array into the dictionary and "
            "leaves the model as it was. `targets[path][...] = array` fills the model's.",
            wrongly(exact, put_nowhere)),
    Mistake("the file's own array", "`param.array = array` makes the file's array the model's own: "
            "of its dtype, and in its memory. `array[...] = new` copies the numbers.",
            wrongly(exact, put_object)),
    Mistake("float64", "The numbers were copied with the file's dtype, float64. Everything behind "
            "them becomes slow, or raises. Fill the array that is there.",
            wrongly(exact, put_copied)),
    Mistake("new parameters", "New parameters stand in place of the model's own. An optimizer that "
            "was set up before goes on with the old ones: fill the arrays that are there.",
            wrongly(exact, put_new_parameter)),
    Mistake("leftovers not told", "Nothing is said about names that nobody used, and often they "
            "are the sign of a wrong plan. Return them, sorted.",
            wrongly(exact, left=lambda arrays, used: [])),
    Mistake("the used ones", "These are the names that were used. Return the others.",
            wrongly(exact, left=lambda arrays, used: sorted(used))),
    Mistake("not sorted", "These are the right names, in the order of the file. `sorted(...)`.",
            wrongly(exact, left=lambda arrays, used: [n for n in arrays if n not in used])),
    Mistake("leftovers refused", "A name too many raised an error. Files have counters and "
            "optimizer states, too: return what is left over, and let the caller judge.",
            wrongly(exact, left=refuse_leftovers)),
    Mistake("first name only", "Only the first name of each entry was taken. A conversion may need "
            "several: `convert(*[arrays[name] for name in names])`.",
            wrongly(exact, get=lambda arrays, names: [arrays[names[0]]])),
)
def load(answer):
    """Check `load`: give it your function, get a Report."""
    return [("attempted", lambda: attempted(answer)),
            ("signature", lambda: signature(answer, right_load)),
            *stages(lab, "load", answer, right_load, LOAD)]
