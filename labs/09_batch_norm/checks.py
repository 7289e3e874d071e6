"""Checks of lab 9, batch normalization's two faces: train mode, averages, test mode, folding."""

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
    given,
    kind,
    name_shape,
    same,
    show,
    signature,
)
from convnets.check.compare import first_difference, pattern, shape_sentence, value_sentence

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np

lab = Lab(__file__, around=lambda: chainer.using_config("train", True))
hint, solution, solved = lab.hint, lab.solution, lab.solved

EPS = 2e-5
PLACES = (0, 2, 3)   # the axes over which a channel's mean is taken


def maps(n, c, h, w, seed):
    """Maps whose channels have different means and deviations, the last one a very small one."""
    numbers = np.random.RandomState(seed)
    x = numbers.normal(0, 1, (n, c, h, w)) * np.geomspace(3, 0.004, c)[:, None, None]
    return (x + numbers.normal(0, 1, c)[:, None, None]).astype(np.float32)


def channels(c, seed):
    """gamma, beta, avg_mean and avg_var of c channels, the last variance a very small one."""
    numbers = np.random.RandomState(seed)
    rows = numbers.uniform(0.5, 2, c), numbers.normal(0, 1, c), numbers.normal(0, 1, c), \
        np.geomspace(4, 2e-5, c)
    return dict(zip(("gamma", "beta", "avg_mean", "avg_var"), np.float32(rows), strict=True))


def some(names, c, seed):
    return {name: array for name, array in channels(c, seed).items() if name in names.split()}


def each(channel):
    """Numbers of the channels, (C,), as (C, 1, 1): they fit maps (N, C, H, W)."""
    return channel[:, None, None]


def apply(x, mean, var, gamma, beta, eps=EPS):
    """The formula of both faces, with numbers of the channels or of another shape."""
    return ((x - mean) / np.sqrt(var + eps) * gamma + beta).astype(np.float32)


# ---- 1: train_face ---------------------------------------------------------------------------

def right_train_face(x, gamma, beta, eps=EPS):
    return apply(x, each(x.mean(axis=PLACES)), each(x.var(axis=PLACES)), each(gamma), each(beta),
                 eps)


right_train_face.__name__ = "train_face"


def over(*axes, ddof=0):
    """A wrong answer: mean and variance over other axes."""
    def train_face(x, gamma, beta, eps=EPS):
        mean, var = x.mean(axis=axes, keepdims=True), x.var(axis=axes, ddof=ddof, keepdims=True)
        return apply(x, mean, var, each(gamma), each(beta), eps)
    return train_face


def formula(change):
    """A wrong answer: `change` gets the centred x, the variance, gamma, beta and eps."""
    def train_face(x, gamma, beta, eps=EPS):
        mean, var = (f(axis=PLACES, keepdims=True) for f in (x.mean, x.var))
        return change(x - mean, var, each(gamma), each(beta), eps).astype(np.float32)
    return train_face


def along_the_rows(x, gamma, beta, eps=EPS):
    return apply(x, x.mean(axis=PLACES), x.var(axis=PLACES), gamma, beta, eps)


def train_by_hand(a, index):
    x, channel = a["x"], index[1]
    values = x[:, channel].ravel().astype(float)
    mean, var = values.mean(), values.var()
    gamma, beta, value = a["gamma"][channel], a["beta"][channel], x[index]
    squares = " + ".join(f"({v:g} - {mean:g})²" for v in values)
    result = (value - mean) / np.sqrt(var + EPS) * gamma + beta
    return (f"channel {channel} holds {', '.join(f'{v:g}' for v in values)}: mean {mean:g}\n"
            f"variance ({squares}) / {len(values)} = {var:g}\n"
            f"({value:g} - {mean:g}) / root({var:g} + eps) · {gamma:g} + {beta:g} = {result:.4f}")


def like_chainer(train_face):
    """F.batch_normalization gives the same."""
    x, options = maps(5, 3, 4, 4, 9), some("gamma beta", 3, 9)
    got = call(train_face, Case({"x": x, **options}), "train_face(x, gamma, beta)")
    right = F.batch_normalization(x, **options).array
    if not same(got, right, rtol=1e-3, atol=1e-3):
        raise Finding("Chainer's batch_normalization gives other numbers.",
                      expected=show(right[0, 0, 0]), got=show(got[0, 0, 0]))


train_face = lab.function(Function(
    reference=right_train_face,
    axes={"x": "N C H W", "gamma": "C", "beta": "C", "return": "N C H W"},
    cases=(given(x=np.float32([[[[1, 2]], [[0, 4]]], [[[3, 6]], [[4, 0]]]]),
                 gamma=np.float32([1, 2]), beta=np.float32([0, 10])),
           given(x=maps(4, 3, 5, 6, 0), **some("gamma beta", 3, 1)),
           given(x=maps(3, 4, 4, 4, 2), **some("gamma beta", 4, 3)),
           given(x=maps(2, 5, 3, 2, 4), **some("gamma beta", 5, 5), eps=0.1)),
    by_hand=train_by_hand,
    hand_title="two channels by hand",
    properties=(("Chainer's own", like_chainer),),
    mistakes=(
        Mistake("over the images only", "Mean and variance were taken over the images only, so "
                "each place has its own. A channel has one of each, over all images and places: "
                "`axis=(0, 2, 3)`.", over(0)),
        Mistake("over the places only", "Mean and variance were taken in each image by itself "
                "(that is instance normalization). Batch normalization takes them over the images "
                "as well: `axis=(0, 2, 3)`.", over(2, 3)),
        Mistake("over each image", "Mean and variance were taken over all channels of an image "
                "(that is layer normalization). Each channel has its own: `axis=(0, 2, 3)`.",
                over(1, 2, 3)),
        Mistake("over the channels", "Mean and variance were taken over the channels. Each channel "
                "has its own: `axis=(0, 2, 3)`.", over(1)),
        Mistake("over everything", "There is one mean and one variance for all channels together. "
                "Each channel has its own: `axis=(0, 2, 3)`.", over(0, 1, 2, 3)),
        Mistake("divided by m - 1", "This variance is divided by m - 1. In train mode it is "
                "divided by m, what `x.var(axis=...)` does; m - 1 belongs to the running average "
                "only.",
                over(*PLACES, ddof=1)),
        Mistake("no root", "The centred values were divided by the variance. Divide by its root.",
                formula(lambda d, var, gamma, beta, eps: d / (var + eps) * gamma + beta)),
        Mistake("eps outside the root", "eps was added to the root. It belongs to the variance, "
                "under the root: `np.sqrt(var + eps)`.",
                formula(lambda d, var, gamma, beta, eps:
                        d / (np.sqrt(var) + eps) * gamma + beta)),
        Mistake("eps forgotten", "eps is missing. In a channel whose values hardly differ it "
                "counts: `np.sqrt(var + eps)`.",
                formula(lambda d, var, gamma, beta, eps: d / np.sqrt(var) * gamma + beta)),
        Mistake("mean not subtracted", "The mean was not subtracted.",
                lambda x, gamma, beta, eps=EPS: apply(
                    x, 0, each(x.var(axis=PLACES)), each(gamma), each(beta), eps)),
        Mistake("gamma and beta forgotten", "gamma and beta are not in it: at the end each channel "
                "is multiplied by its gamma, then its beta is added.",
                formula(lambda d, var, gamma, beta, eps: d / np.sqrt(var + eps))),
        Mistake("gamma forgotten", "gamma is not in it: each channel is multiplied by its own.",
                formula(lambda d, var, gamma, beta, eps: d / np.sqrt(var + eps) + beta)),
        Mistake("beta forgotten", "beta is not in it: each channel gets its own added.",
                formula(lambda d, var, gamma, beta, eps: d / np.sqrt(var + eps) * gamma)),
        Mistake("beta before gamma", "beta was added before gamma multiplied. First gamma, then "
                "beta.",
                formula(lambda d, var, gamma, beta, eps: (d / np.sqrt(var + eps) + beta) * gamma)),
        Mistake("gamma and beta swapped", "gamma and beta have changed places: gamma multiplies, "
                "beta is added.",
                formula(lambda d, var, gamma, beta, eps: d / np.sqrt(var + eps) * beta + gamma)),
        Mistake("along the columns", "An array of C numbers fits the *last* axis, the columns of "
                "the map. Give the numbers of the channels the shape (C, 1, 1): "
                "`gamma[:, None, None]`, or `keepdims=True` for a mean.", along_the_rows),
    ),
))


# ---- 2: running ------------------------------------------------------------------------------

def right_running(avg_mean, avg_var, x, decay=0.9):
    m = x.size // x.shape[1]
    mean, var = x.mean(axis=PLACES), x.var(axis=PLACES) * np.float32(m / (m - 1))
    return moved(avg_mean, mean, decay), moved(avg_var, var, decay)


right_running.__name__ = "running"


def moved(average, new, decay):
    return (decay * average + (1 - decay) * new).astype(np.float32)


def averages(mean=None, var=None, mix=moved):
    """A wrong answer: another mean or variance of x, or another mixture with the old ones."""
    def running(avg_mean, avg_var, x, decay=0.9):
        m = x.size // x.shape[1]
        new_mean = x.mean(axis=PLACES) if mean is None else mean(x)
        new_var = x.var(axis=PLACES) * m / (m - 1) if var is None else var(x)
        return tuple(mix(old, new, decay).astype(np.float32)
                     for old, new in ((avg_mean, new_mean), (avg_var, new_var)))
    return running


def corrected(x, n):
    return x.var(axis=PLACES) * n / (n - 1)


def running_by_hand(a, part, index):
    x, (channel,) = a["x"], index
    values = x[:, channel].ravel().astype(float)
    m, mean = len(values), values.mean()
    old = (a["avg_mean"], a["avg_var"])[part][channel]
    if part == 0:
        new, text = mean, f"channel {channel}: mean of {', '.join(f'{v:g}' for v in values)} is "
        text += f"{mean:g}"
    else:
        new = values.var(ddof=1)
        squares = " + ".join(f"({v:g} - {mean:g})²" for v in values)
        text = f"channel {channel}: ({squares}) / ({m} - 1) = {new:.4f}"
    return f"{text}\n0.9 · {old:g} + 0.1 · {new:.4f} = {0.9 * old + 0.1 * new:.4f}"


def link_agrees(running):
    """Three minibatches through L.BatchNormalization leave the same averages."""
    bn = L.BatchNormalization(3)
    mean, var = bn.avg_mean.copy(), bn.avg_var.copy()
    for seed in range(3):
        x = maps(2, 3, 2, 3, seed)
        bn(x)
        mean, var = running(mean, var, x)
    if not same(mean, bn.avg_mean) or not same(var, bn.avg_var):
        raise Finding("After three minibatches `L.BatchNormalization` has other averages.",
                      expected=f"avg_mean {show(bn.avg_mean)}\navg_var  {show(bn.avg_var)}",
                      got=f"avg_mean {show(mean)}\navg_var  {show(var)}")


RUNNING = Pair(
    lab=lab, reference=right_running, names=("avg_mean", "avg_var"), axes=("C", "C"),
    given_axes={"avg_mean": "C", "avg_var": "C", "x": "N C H W"},
    cases=(given(avg_mean=np.zeros(2, np.float32), avg_var=np.ones(2, np.float32),
                 x=np.float32([[[[1, 2]], [[0, 4]]], [[[3, 6]], [[4, 0]]]])),
           given(**some("avg_mean avg_var", 3, 0), x=maps(2, 3, 2, 2, 1)),
           given(**some("avg_mean avg_var", 4, 2), x=maps(3, 4, 1, 4, 3)),
           given(**some("avg_mean avg_var", 3, 4), x=maps(2, 3, 3, 2, 5), decay=0.5)),
    by_hand=running_by_hand,
    shapes="Each channel has one mean and one variance, over all images and all places: "
           "`axis=(0, 2, 3)`, which leaves the shape (C,).",
    properties=(("three minibatches, as the link has them", link_agrees),))


@lab.check(
    Mistake("decay the wrong way round", "decay is the share that stays of the old: `decay * "
            "avg_mean + (1 - decay) * mean`. Yours forgets nine tenths at once.",
            averages(mix=lambda old, new, decay: (1 - decay) * old + decay * new)),
    Mistake("biased variance", "The variance was divided by m. For the running average Chainer "
            "corrects it: times m / (m - 1), where m is how many numbers a channel has.",
            averages(var=lambda x: x.var(axis=PLACES))),
    Mistake("m is the number of images", "m is how many numbers a channel has in the minibatch, N "
            "· H · W, not the number of images.",
            averages(var=lambda x: corrected(x, len(x)))),
    Mistake("m is the number of all values", "m is how many numbers *one channel* has, N · H · W: "
            "`x.size` counts all channels.",
            averages(var=lambda x: corrected(x, x.size))),
    Mistake("corrected the wrong way round", "The correction makes the variance larger: times m / "
            "(m - 1), not (m - 1) / m.",
            averages(var=lambda x: x.var(axis=PLACES) ** 2 / corrected(x, x.size // x.shape[1]))),
    Mistake("deviation", "This is an average of deviations. The running average is of variances: "
            "no root.",
            averages(var=lambda x: np.sqrt(corrected(x, x.size // x.shape[1])))),
    Mistake("deviation, not corrected", "This is an average of deviations, of the minibatch as "
            "they are. The running average is of variances, and these times m / (m - 1).",
            averages(var=lambda x: x.std(axis=PLACES))),
    Mistake("over everything", "Mean and variance were taken over all channels together: each has "
            "its own, `axis=(0, 2, 3)`.",
            averages(lambda x: x.mean(), lambda x: x.var(ddof=1))),
    Mistake("over the places only", "Mean and variance were taken in each image by itself: they "
            "run over the images as well, `axis=(0, 2, 3)`.",
            averages(lambda x: x.mean(axis=(2, 3)), lambda x: x.var(axis=(2, 3), ddof=1))),
    Mistake("replaced", "The old averages are forgotten at once. They stay with the share `decay`.",
            averages(mix=lambda old, new, decay: new)),
    Mistake("added up", "The old average was not made smaller: `decay * avg_mean`. As it is the "
            "numbers only grow.",
            averages(mix=lambda old, new, decay: old + (1 - decay) * new)),
    Mistake("new one whole", "The new mean and variance come in whole: they have the share "
            "`1 - decay`.",
            averages(mix=lambda old, new, decay: decay * old + new)),
    Mistake("always 0.9", "The share is 0.9 whatever decay says.",
            averages(mix=lambda old, new, decay: 0.9 * old + 0.1 * new)),
    Mistake("over the images only", "A channel has one mean and one variance: over the images and "
            "over all places, `axis=(0, 2, 3)`.",
            averages(lambda x: x.mean(axis=0), lambda x: x.var(axis=0, ddof=1),
                     lambda old, new, decay: decay * each(old) + (1 - decay) * new)),
    Mistake("mean corrected too", "The mean was corrected as well. Only the variance is too small "
            "by (m - 1) / m; the mean is right as it is.",
            averages(mean=lambda x: x.mean(axis=PLACES) * (x.size // x.shape[1])
                     / (x.size // x.shape[1] - 1))),
    Mistake("swapped", "The two have changed places: the mean comes first.",
            lambda avg_mean, avg_var, x, decay=0.9:
            right_running(avg_mean, avg_var, x, decay)[::-1]),
)
def running(answer):
    """Check `running`: give it your function, get a Report."""
    return RUNNING.stages(answer)


# ---- 3: test_face ----------------------------------------------------------------------------

def right_test_face(x, gamma, beta, avg_mean, avg_var, eps=EPS):
    return apply(x, each(avg_mean), each(avg_var), each(gamma), each(beta), eps)


right_test_face.__name__ = "test_face"


def test_by_hand(a, index):
    c, value = index[1], a["x"][index]
    numbers = [a[name][c] for name in ("avg_mean", "avg_var", "gamma", "beta")]
    mean, var, gamma, beta = map(float, numbers)
    result = (value - mean) / np.sqrt(var + EPS) * gamma + beta
    return (f"channel {c}: ({value:g} - {mean:g}) / root({var:g} + eps) · {gamma:g} + {beta:g} = "
            f"{result:.4f}")


def alone(test_face):
    """An image gets the same result alone as among others."""
    x, options = maps(4, 3, 3, 3, 7), channels(3, 7)
    both = [call(test_face, Case({"x": part, **options}), "test_face(x, ...)")
            for part in (x, x[:1])]
    if not same(both[0][:1], both[1]):
        raise Finding("The first image gets another result alone than among four.",
                      expected=show(both[1][0, 0]), got=show(both[0][0, 0]),
                      cause="Something is still calculated from x. In test mode only the stored "
                            "averages count.")


ALL = "gamma beta avg_mean avg_var"
test_face = lab.function(Function(
    reference=right_test_face,
    axes={"x": "N C H W", "gamma": "C", "beta": "C", "avg_mean": "C", "avg_var": "C",
          "return": "N C H W"},
    cases=(given(x=np.float32([[[[1, 2]], [[0, 4]]]]), gamma=np.float32([1, 2]),
                 beta=np.float32([0, 10]), avg_mean=np.float32([3, 1]),
                 avg_var=np.float32([4, 0.25])),
           given(x=maps(4, 3, 5, 6, 0), **some(ALL, 3, 1)),
           given(x=maps(3, 4, 4, 4, 2), **some(ALL, 4, 3)),
           given(x=maps(1, 5, 3, 2, 4), **some(ALL, 5, 5), eps=0.1)),
    by_hand=test_by_hand,
    hand_title="two channels by hand",
    properties=(("an image alone and among others", alone),),
    mistakes=(
        Mistake("train mode", "Mean and variance of x were used. In test mode the stored averages "
                "take their place, whatever x is.",
                lambda x, gamma, beta, avg_mean, avg_var, eps=EPS:
                right_train_face(x, gamma, beta, eps)),
        Mistake("only the mean stored", "The mean is the stored one, the variance that of x: both "
                "are stored.",
                lambda x, gamma, beta, avg_mean, avg_var, eps=EPS: apply(
                    x, each(avg_mean), each(x.var(axis=PLACES)), each(gamma), each(beta), eps)),
        Mistake("only the variance stored", "The variance is the stored one, the mean that of x: "
                "both are stored.",
                lambda x, gamma, beta, avg_mean, avg_var, eps=EPS: apply(
                    x, each(x.mean(axis=PLACES)), each(avg_var), each(gamma), each(beta), eps)),
        Mistake("no root", "avg_var is a variance: divide by its root.",
                lambda x, gamma, beta, avg_mean, avg_var, eps=EPS: (
                    (x - each(avg_mean)) / (each(avg_var) + eps) * each(gamma) + each(beta)
                ).astype(np.float32)),
        Mistake("eps outside the root", "eps was added to the root. It belongs under it: "
                "`np.sqrt(avg_var + eps)`.",
                lambda x, gamma, beta, avg_mean, avg_var, eps=EPS: (
                    (x - each(avg_mean)) / (np.sqrt(each(avg_var)) + eps) * each(gamma)
                    + each(beta)).astype(np.float32)),
        Mistake("eps forgotten", "eps is missing. Where the stored variance is small it counts: "
                "`np.sqrt(avg_var + eps)`.",
                lambda x, gamma, beta, avg_mean, avg_var, eps=EPS: apply(
                    x, each(avg_mean), each(avg_var), each(gamma), each(beta), 0)),
        Mistake("taken for a deviation", "avg_var was squared. It is a variance already: add eps "
                "and take the root.",
                lambda x, gamma, beta, avg_mean, avg_var, eps=EPS: apply(
                    x, each(avg_mean), each(avg_var**2), each(gamma), each(beta), eps)),
        Mistake("mean added", "The mean was added. It is subtracted: `x - avg_mean`.",
                lambda x, gamma, beta, avg_mean, avg_var, eps=EPS: apply(
                    x, each(-avg_mean), each(avg_var), each(gamma), each(beta), eps)),
        Mistake("mean and variance swapped", "avg_mean and avg_var have changed places.",
                lambda x, gamma, beta, avg_mean, avg_var, eps=EPS: apply(
                    x, each(avg_var), each(abs(avg_mean)), each(gamma), each(beta), eps)),
        Mistake("gamma and beta forgotten", "gamma and beta are not in it: they count in both "
                "modes.",
                lambda x, gamma, beta, avg_mean, avg_var, eps=EPS: apply(
                    x, each(avg_mean), each(avg_var), 1, 0, eps)),
        Mistake("beta forgotten", "beta is not in it: each channel gets its own added.",
                lambda x, gamma, beta, avg_mean, avg_var, eps=EPS: apply(
                    x, each(avg_mean), each(avg_var), each(gamma), 0, eps)),
        Mistake("along the columns", "An array of C numbers fits the *last* axis, the columns of "
                "the map. Give each the shape (C, 1, 1): `avg_mean[:, None, None]`.",
                lambda x, gamma, beta, avg_mean, avg_var, eps=EPS: apply(
                    x, avg_mean, avg_var, gamma, beta, eps)),
    ),
))


# ---- 4: fold ---------------------------------------------------------------------------------

def right_fold(w, gamma, beta, avg_mean, avg_var, eps=EPS):
    factor = gamma / np.sqrt(avg_var + np.float32(eps))
    return w * factor[:, None, None, None], beta - avg_mean * factor


right_fold.__name__ = "fold"


def folded(weights=lambda w, factor, gamma: w * factor[:, None, None, None],
           bias=lambda beta, mean, factor: beta - mean * factor,
           factor=lambda gamma, var, eps: gamma / np.sqrt(var + eps)):
    """A wrong answer: another factor, other weights or another bias."""
    def fold(w, gamma, beta, avg_mean, avg_var, eps=EPS):
        f = factor(gamma, avg_var, eps)
        pair = weights(w, f, gamma), bias(beta, avg_mean, f)
        return tuple(np.asarray(array, np.float32) for array in pair)
    return fold


def fold_by_hand(a, part, index):
    o = index[0]
    gamma, beta, mean, var = (float(a[name][o]) for name in
                              ("gamma", "beta", "avg_mean", "avg_var"))
    factor = gamma / np.sqrt(var + EPS)
    text = f"output channel {o}: factor {gamma:g} / root({var:g} + eps) = {factor:.4f}\n"
    if part == 0:
        value = float(a["w"][index])
        return f"{text}weight {value:g} · {factor:.4f} = {value * factor:.4f}"
    return f"{text}bias {beta:g} - {mean:g} · {factor:.4f} = {beta - mean * factor:.4f}"


def same_maps(fold):
    """The folded convolution gives what convolution and normalization give."""
    for seed, (n_in, n_out) in enumerate(((3, 4), (4, 4))):
        numbers = np.random.RandomState(seed)
        x, w = (numbers.normal(0, 1, s).astype(np.float32)
                for s in ((2, n_in, 5, 5), (n_out, n_in, 3, 3)))
        options = channels(n_out, seed) | {"avg_var": np.float32(numbers.uniform(0.1, 4, n_out))}
        right = right_test_face(F.convolution_2d(x, w, pad=1).array, **options)
        new_w, new_b = fold(w, **options)
        got = F.convolution_2d(x, new_w, new_b, pad=1).array
        if not same(got, right, rtol=1e-3, atol=1e-3):
            raise Finding("The folded convolution gives other maps than convolution and "
                          "normalization.", expected=show(right[0, 0, 0]), got=show(got[0, 0, 0]))


FOLD = Pair(
    lab=lab, reference=right_fold, names=("w", "b"), axes=("O C kh kw", "O"),
    given_axes={"w": "O C kh kw", **dict.fromkeys(ALL.split(), "O")},
    cases=(given(w=np.float32([[[[1, 2], [3, 4]]], [[[1, 0], [0, -1]]]]),
                 gamma=np.float32([1, 3]), beta=np.float32([0.5, 10]),
                 avg_mean=np.float32([3, 1]), avg_var=np.float32([4, 0.25])),
           given(w=maps(3, 2, 3, 3, 0), **some(ALL, 3, 1)),
           given(w=maps(4, 4, 1, 1, 2), **some(ALL, 4, 3)),
           given(w=maps(3, 3, 3, 3, 4), **some(ALL, 3, 5), eps=0.1)),
    by_hand=fold_by_hand,
    shapes="The weights keep their shape (O, C, kh, kw), and the bias is one number for each "
           "output channel, (O,).",
    properties=(("the same maps", same_maps),))


@lab.check(
    Mistake("along the input channels", "The factor went to the input channels, axis 1. It belongs "
            "to the output channels, axis 0, whose maps are normalized: "
            "`factor[:, None, None, None]`.",
            folded(lambda w, factor, gamma: w * factor[:, None, None])),
    Mistake("along the columns", "An array of numbers fits the *last* axis, the columns of the "
            "window. The factors belong to axis 0: `factor[:, None, None, None]`.",
            folded(lambda w, factor, gamma: w * factor)),
    Mistake("weights as they were", "The weights are as they were: each output channel's are "
            "multiplied by its factor.", folded(lambda w, factor, gamma: w)),
    Mistake("gamma alone", "The weights were multiplied by gamma, but not divided by the root of "
            "the variance.", folded(lambda w, factor, gamma: w * gamma[:, None, None, None])),
    Mistake("mean without the factor", "The mean in the bias was not multiplied: it goes through "
            "the same factor as the maps, `beta - avg_mean * factor`.",
            folded(bias=lambda beta, mean, factor: beta - mean)),
    Mistake("beta times the factor", "beta was multiplied too. It comes last, after the factor: "
            "`beta - avg_mean * factor`.",
            folded(bias=lambda beta, mean, factor: (beta - mean) * factor)),
    Mistake("sign of the mean", "The sign of the mean: it is subtracted from the maps, so it "
            "comes off the bias.",
            folded(bias=lambda beta, mean, factor: beta + mean * factor)),
    Mistake("mean forgotten", "The mean is not in the bias: `beta - avg_mean * factor`.",
            folded(bias=lambda beta, mean, factor: beta)),
    Mistake("beta forgotten", "beta is not in the bias: `beta - avg_mean * factor`.",
            folded(bias=lambda beta, mean, factor: -mean * factor)),
    Mistake("no root", "The factor is divided by the variance. Divide by its root.",
            folded(factor=lambda gamma, var, eps: gamma / (var + eps))),
    Mistake("eps outside the root", "eps was added to the root. It belongs under it: "
            "`np.sqrt(avg_var + eps)`.",
            folded(factor=lambda gamma, var, eps: gamma / (np.sqrt(var) + eps))),
    Mistake("eps forgotten", "eps is missing. Where the stored variance is small it counts: "
            "`np.sqrt(avg_var + eps)`.",
            folded(factor=lambda gamma, var, eps: gamma / np.sqrt(var))),
    Mistake("gamma forgotten", "The factor lacks gamma: `gamma / np.sqrt(avg_var + eps)`.",
            folded(factor=lambda gamma, var, eps: 1 / np.sqrt(var + eps))),
    Mistake("bias first", "The two have changed places: first the weights, then the bias.",
            lambda *arguments, **options: right_fold(*arguments, **options)[::-1]),
    Mistake("factor upside down", "The factor is upside down: normalizing divides by the root of "
            "the variance and multiplies by gamma.",
            folded(factor=lambda gamma, var, eps: np.sqrt(var + eps) / gamma)),
)
def fold(answer):
    """Check `fold`: give it your function, get a Report."""
    return FOLD.stages(answer)


# ---- 5: evaluate -----------------------------------------------------------------------------

N, BATCH = 10, 4
IMAGES = maps(N, 2, 3, 3, 11)


class Probe(chainer.Chain):
    """A small network with a batch normalization, which remembers how it was called."""

    def __init__(self):
        super().__init__()
        numbers = np.random.RandomState(1)
        with self.init_scope():
            self.bn = L.BatchNormalization(2)
            self.fc = L.Linear(18, 3, initialW=numbers.normal(0, 1, (3, 18)))
        self.bn.avg_mean[...], self.bn.avg_var[...] = (0.5, -1), (2, 0.3)
        self.start = self.bn.avg_mean.copy()
        self.calls = []

    def forward(self, x):
        self.calls.append((len(x), bool(chainer.config.train), chainer.config.enable_backprop))
        return self.fc(self.bn(x))


def right_evaluate(model, x, batch):
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        return np.concatenate([model(x[i:i + batch]).array for i in range(0, len(x), batch)])


right_evaluate.__name__ = "evaluate"


def watch(evaluate):
    """What one call returned and did; the mode is put back."""
    probe = Probe()
    with chainer.using_config("train", True):
        try:
            result = evaluate(probe, IMAGES.copy(), BATCH)
        except Exception as error:
            return {"result": f"{type(error).__name__}: {error}"}
        after = bool(chainer.config.train)
    return {"result": result, "sizes": [size for size, *_ in probe.calls],
            "modes": {mode for _, mode, _ in probe.calls}, "after": after,
            "graph": {graph for *_, graph in probe.calls},
            "moved": not same(probe.bn.avg_mean, probe.start)}


stored_watch = functools.cache(watch)   # of the wrong answers, which do not change


def results_alike(a, b):
    if type(a) is not type(b) or isinstance(a, str):
        return isinstance(a, str) and isinstance(b, str) and a == b
    if isinstance(a, list):
        return len(a) == len(b) and all(map(results_alike, a, b))
    return same(chainer.as_array(a), chainer.as_array(b))


def known_use(evaluate):
    got = watch(evaluate)
    return next((m.cause for m in lab.mistakes["evaluate"] if (
        (stored := stored_watch(m.answer)).keys() == got.keys()
        and results_alike(stored["result"], got["result"])
        and all(stored[key] == got[key] for key in got if key != "result"))), "")


DESCRIBED = f"evaluate(model, x, {BATCH}) with x {name_shape(IMAGES.shape, 'N C H W')}"


def runs(evaluate):
    try:
        with chainer.using_config("train", True):
            result = call(evaluate, Case({"model": Probe(), "x": IMAGES, "batch": BATCH}),
                          DESCRIBED)
        if isinstance(result, (list, tuple)):
            raise Finding(f"The result is a {type(result).__name__}, expected an array.",
                          call=DESCRIBED, cause="`np.concatenate(...)` joins the scores of the "
                                                "minibatches to one array.")
        kind(result, right_evaluate(Probe(), IMAGES, BATCH), DESCRIBED)
    except Finding as finding:
        finding.rows["likely cause"] = known_use(evaluate) or finding.rows.get("likely cause", "")
        raise


def in_test_mode(evaluate):
    seen = watch(evaluate)
    if not seen["sizes"]:
        raise Finding("The model was never called.", call=DESCRIBED,
                      cause="Call it like a function: `model(x[i:i + batch])`.")
    if True in seen["modes"]:
        raise Finding("The model ran in train mode.", call=DESCRIBED, got="chainer.config.train "
                      "True" + (", and the running averages were moved" if seen["moved"] else ""),
                      expected="chainer.config.train False", cause=known_use(evaluate) or
                      "Call it inside `with chainer.using_config('train', False):`.")


def in_minibatches(evaluate):
    sizes = watch(evaluate)["sizes"]
    if sizes != [4, 4, 2]:
        raise Finding("The minibatches are not those asked for.", call=DESCRIBED,
                      expected="4 + 4 + 2 images", got=" + ".join(map(str, sizes)) + " images",
                      cause=known_use(evaluate) or
                      "`for i in range(0, len(x), batch)` takes the start of each minibatch, "
                      "`x[i:i + batch]` the minibatch; the last one may be smaller.")


def right_scores(evaluate):
    got, right = watch(evaluate)["result"], right_evaluate(Probe(), IMAGES, BATCH)
    cause = known_use(evaluate)
    if got.shape != right.shape:
        raise Finding(shape_sentence(got.shape, right.shape, "N K"), call=DESCRIBED, cause=cause,
                      expected=name_shape(right.shape, "N K"), got=name_shape(got.shape, "N K"))
    if not same(got, right):
        index = first_difference(got, right)
        raise Finding(value_sentence(got, right, "N K"), call=DESCRIBED,
                      expected=show(right[index]), got=show(got[index]),
                      cause=cause or pattern(got, right, "N K"))


def mode_after(evaluate):
    if not watch(evaluate)["after"]:
        raise Finding("After the call Chainer is still in test mode.",
                      expected="chainer.config.train True, as before", got="False",
                      cause=known_use(evaluate) or "`with chainer.using_config('train', False):` "
                                                   "puts the mode back.")


def scores_of(model, x, batch, starts=None, join=np.concatenate, train=False):
    """Wrong answers: other minibatches, another mode, another end."""
    with chainer.using_config("train", train):
        return join([model(x[i:i + batch]).array
                     for i in (range(0, len(x), batch) if starts is None else starts)])


def left_in_test_mode(model, x, batch):
    chainer.config.train = False
    return scores_of(model, x, batch)


def without_graph(model, x, batch):
    with chainer.no_backprop_mode():
        return scores_of(model, x, batch, train=True)


def return_in_loop(model, x, batch):
    return scores_of(model, x, batch, [0])


def one_call_in_test_mode(model, x, batch):
    with chainer.using_config("train", False):
        first = model(x[:batch]).array
    rest = scores_of(model, x[batch:], batch, train=True)
    return np.concatenate([first, rest])


@lab.check(
    Mistake("train mode", "The model ran in train mode, which is what Chainer starts in. The "
            "scores depend on the neighbours in the minibatch, and the running averages have "
            "moved: `with chainer.using_config('train', False):`.",
            functools.partial(scores_of, train=True)),
    Mistake("no_backprop_mode alone", "`no_backprop_mode` only saves memory: the mode is still "
            "that of training. `with chainer.using_config('train', False):`.", without_graph),
    Mistake("test mode for the first only", "Only the first minibatch ran in test mode: the loop "
            "belongs inside the `with`.", one_call_in_test_mode),
    Mistake("left in test mode", "`chainer.config.train = False` stays set, and the next training "
            "runs in test mode. `with chainer.using_config('train', False):` puts it back.",
            left_in_test_mode),
    Mistake("last minibatch dropped", "The last, smaller minibatch is missing: 10 images are 4 + 4 "
            "+ 2. `range(0, len(x), batch)` starts it too.",
            lambda model, x, batch: scores_of(
                model, x, batch, range(0, len(x) - batch + 1, batch))),
    Mistake("first minibatch only", "Only the first minibatch was evaluated: is `return` indented "
            "into the loop?", return_in_loop),
    Mistake("all at once", "All images went in at once. A test set of 10,000 may not fit into "
            "memory: `batch` at a time.", lambda model, x, batch: scores_of(model, x, len(x))),
    Mistake("one by one", "The images went in one by one. It gives the same in test mode, but "
            "takes much longer: `batch` at a time.",
            lambda model, x, batch: scores_of(model, x, 1)),
    Mistake("overlapping", "The minibatches overlap: the loop moves by one image. "
            "`range(0, len(x), batch)` moves by a whole minibatch.",
            lambda model, x, batch: scores_of(model, x, batch, range(len(x)))),
    Mistake("a list", "This is a list of arrays, one for each minibatch. `np.concatenate(...)` "
            "joins them.", functools.partial(scores_of, join=list)),
    Mistake("an array of minibatches", "`np.array(...)` would stack minibatches of one size on a "
            "new axis. `np.concatenate(...)` puts them one behind the other, of any size.",
            functools.partial(scores_of, join=np.array)),
    Mistake("labels", "These are labels. The scores are asked for, one row for each image.",
            lambda model, x, batch: scores_of(model, x, batch).argmax(axis=1).astype(np.int32)),
    Mistake("probabilities", "These are probabilities. Return what the model returns.",
            lambda model, x, batch: F.softmax(scores_of(model, x, batch)).array),
    Mistake("a Variable", "This is a Chainer Variable, which keeps the graph of every minibatch "
            "alive. `model(...).array` is the array.",
            lambda model, x, batch: chainer.Variable(scores_of(model, x, batch))),
)
def evaluate(answer):
    """Check `evaluate`: give it your function, get a Report."""
    return [("attempted", lambda: attempted(answer)),
            ("signature", lambda: signature(answer, right_evaluate)),
            ("an array", lambda: runs(answer)),
            ("test mode", lambda: in_test_mode(answer)),
            ("minibatches", lambda: in_minibatches(answer)),
            ("scores", lambda: right_scores(answer)),
            ("the mode afterwards", lambda: mode_after(answer))]
