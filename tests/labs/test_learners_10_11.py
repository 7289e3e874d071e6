"""Labs 10 and 11: wrong code that nobody stored, and right code in another style."""

from convnets.pretrained.transfer import model_arrays

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest


def expect(report, *phrases):
    said = " ".join(str(report).split())
    assert report.status == "not yet"
    for phrase in phrases:
        assert phrase in said


def passes(report):
    assert report.ok, report


def solved(lab):
    """What the solved notebook defines."""
    namespace = {"np": np, "chainer": chainer, "F": F, "L": L, "model_arrays": model_arrays}
    for exercise in lab.exercises.values():
        exec(exercise.solution, namespace)
    return namespace


# ---- lab 10: layouts ---------------------------------------------------------------------------

@pytest.fixture
def surgery(loaded):
    return loaded["10_weight_surgery"]


def loops(kernel):
    kh, kw, n_in, n_out = kernel.shape
    w = np.zeros((n_out, n_in, kh, kw), kernel.dtype)
    for o in range(n_out):
        for i in range(n_in):
            w[o, i] = kernel[:, :, i, o]
    return w


@pytest.mark.parametrize("right", [
    loops, lambda kernel: np.einsum("hwio->oihw", kernel),
    lambda kernel: np.moveaxis(np.moveaxis(kernel, 3, 0), 3, 1).copy(),
])
def test_oihw_in_other_styles(surgery, right):
    passes(surgery.checks["oihw"](right))


@pytest.mark.parametrize(("wrong", "phrases"), [
    (lambda kernel: kernel.transpose(3, 2, 0, 1).astype(float), ["dtype float64"]),
    (lambda kernel: kernel.transpose(3, 2, 0), ["ValueError", "axes don't match"]),
    (lambda kernel: F.transpose(kernel, (3, 2, 0, 1)), ["Variable, expected a NumPy array"]),
    (lambda kernel: kernel.transpose(3, 2, 0, 1)[:, ::-1], ["axis I runs backwards", "by hand"]),
    (lambda kernel: kernel.transpose(3, 2, 0, 1).reshape(len(kernel), -1), ["2 axes, expected 4"]),
    (lambda kernel: np.zeros((2, 2, 2, 2), np.float32), ["Is it written into the code?"]),
    (lambda kernel: kernel.tolist(), ["type list, expected an array"]),
])
def test_oihw(surgery, wrong, phrases):
    expect(surgery.checks["oihw"](wrong), *phrases)


def by_index(kernel, map_shape):
    c, h, w = map_shape
    order = np.arange(len(kernel)).reshape(h, w, c).transpose(2, 0, 1).ravel()
    return kernel[order].T


@pytest.mark.parametrize("right", [
    by_index,
    lambda kernel, map_shape: kernel.reshape(-1, map_shape[0], kernel.shape[1]).transpose(
        2, 1, 0).reshape(kernel.shape[1], -1),   # rows and columns may stay together
])
def test_dense_in_other_styles(surgery, right):
    passes(surgery.checks["dense"](right))


@pytest.mark.parametrize(("wrong", "phrases"), [
    (lambda kernel, map_shape: kernel.T[:, ::-1], ["The right values are all there", "by hand"]),
    (lambda kernel, map_shape: kernel.reshape((*map_shape, -1)), ["4 axes, expected 2"]),
    (lambda kernel, c, h, w: kernel, ["cannot be called as the exercise asks"]),
    (lambda kernel, map_shape: map_shape.reshape(2), ["AttributeError"]),
    (lambda kernel, map_shape: print, ["expected an array"]),
])
def test_dense(surgery, wrong, phrases):
    expect(surgery.checks["dense"](wrong), *phrases)


# ---- lab 10: folding ---------------------------------------------------------------------------

def with_matrices(conv, bn):
    """Another way to the same layer: what both do to single numbers."""
    new = L.Convolution2D(conv.W.shape[1], conv.W.shape[0], conv.ksize, conv.stride, conv.pad)
    scale = np.diag(bn.gamma.array / (bn.avg_var + bn.eps) ** 0.5)
    new.W.array = np.einsum("po,oikl->pikl", scale, conv.W.array).astype(np.float32)
    bias = np.zeros(len(scale)) if conv.b is None else conv.b.array
    new.b.array = (scale @ (bias - bn.avg_mean) + bn.beta.array).astype(np.float32)
    return new


def test_fold_in_another_style(surgery):
    passes(surgery.checks["fold"](with_matrices))


def batch_statistics(conv, bn):
    bn.avg_var[...] = 1
    return solved_fold(conv, bn)


def solved_fold(conv, bn):
    factor = bn.gamma.array / np.sqrt(bn.avg_var + bn.eps)
    bias = 0 if conv.b is None else conv.b.array
    return L.Convolution2D(conv.W.shape[1], conv.W.shape[0], conv.W.shape[2:], conv.stride,
                           conv.pad, initialW=conv.W.array * factor[:, None, None, None],
                           initial_bias=(bias - bn.avg_mean) * factor + bn.beta.array)


def doubled(conv, bn):
    link = solved_fold(conv, bn)
    link.W.array *= 2
    return link


def spoils(conv, bn):
    link = solved_fold(conv, bn)
    bn.avg_mean -= 1
    return link


@pytest.mark.parametrize(("wrong", "phrases"), [
    (lambda conv, bn: L.Linear(3, 4), ["not a single convolution", "Linear with W (4, 3)"]),
    (lambda conv, bn: conv.W * 2, ["not a single convolution", "type Variable"]),
    (doubled, ["does not give the maps of both", "where both give", "(b - avg_mean) · factor"]),
    (spoils, ["other numbers in conv or bn", "Make a new link"]),
    (batch_statistics, ["where both give"]),
    (lambda conv, bn: L.Convolution2D(3, 4, 3, initialW=conv.W * bn.gamma), ["InvalidType"]),
    (lambda conv: conv, ["cannot be called as the exercise asks"]),
    (lambda conv, bn: conv.copy(), ["other maps, channel by channel"]),
])
def test_fold(surgery, wrong, phrases):
    expect(surgery.checks["fold"](wrong), *phrases)


# ---- lab 10: pixels ----------------------------------------------------------------------------

def pixel_loops(w, b, scale, mean, std):
    new, bias = np.empty_like(w), b.copy()
    for c in range(3):
        new[:, 2 - c] = w[:, c] * scale / std[c]
        bias -= mean[c] / std[c] * w[:, c].sum(axis=(1, 2))
    return [new, bias]


def test_eat_pixels_in_another_style(surgery):
    passes(surgery.checks["eat_pixels"](pixel_loops))


def in_the_argument(w, b, scale, mean, std):
    new, bias = pixel_loops(w, b, scale, mean, std)
    b -= 1
    return new, bias


@pytest.mark.parametrize(("wrong", "phrases"), [
    (lambda w, b, scale, mean, std: w[:, ::-1] * scale, ["expected two arrays", "`return w, b`"]),
    (in_the_argument, ["changes its argument b"]),
    (lambda w, b, scale, mean, std: (w, b.sum()), ["b", "expected an array"]),
    (lambda w, b, scale, mean, std: (w * (scale / std), b), ["w: "]),
    (lambda w, b, scale, mean, std: (pixel_loops(w, b, scale, mean, std)[0], b * 2),
     ["b: 2 of 2 values are wrong", "the sums of its windows"]),
    (lambda w, b, scale, mean, std: (w[:, ::-1] * scale * std[:, None, None, None], b),
     ["ValueError"]),
    (lambda w, b, scale, mean, std: w if mean > 0 else (w, b), ["`if` wants one"]),
])
def test_eat_pixels(surgery, wrong, phrases):
    expect(surgery.checks["eat_pixels"](wrong), *phrases)


# ---- lab 10: the loader ------------------------------------------------------------------------

def in_one_go(model, arrays, plan):
    """Another right way: by a serializer, after all is compared."""
    targets = model_arrays(model)
    rest = dict(arrays)
    new = {}
    for path in targets:
        if path not in plan:
            raise KeyError(path)
        convert, names = plan[path]
        new[path] = np.asarray(convert(*[arrays[name] for name in names]), np.float32)
        assert new[path].shape == targets[path].shape, path
        for name in names:
            rest.pop(name, None)
    for path in targets:
        np.copyto(targets[path], new[path])
    return sorted(rest)


def test_load_in_another_style(surgery):
    passes(surgery.checks["load"](in_one_go))


def load_with(change):
    """The right loader with one thing changed."""
    def load(model, arrays, plan):
        return change(in_one_go, model, arrays, plan)
    return load


def empties(right, model, arrays, plan):
    left = right(model, arrays, plan)
    model.fc.b.array[...] = 0
    return left


def counts(right, model, arrays, plan):
    return len(right(model, arrays, plan))


def swallows(right, model, arrays, plan):
    try:
        return right(model, arrays, plan)
    except Exception:
        return []


def bare_error(right, model, arrays, plan):
    try:
        return right(model, arrays, plan)
    except Exception:
        raise RuntimeError("does not work") from None


def forgets_return(right, model, arrays, plan):
    right(model, arrays, plan)


def needs_a_suffix(right, model, arrays, plan):
    return right(model, {f"{name}:0": array for name, array in arrays.items()}, plan)


@pytest.mark.parametrize(("change", "phrases"), [
    (empties, ["other numbers in fc/b"]),
    (counts, ["returned 2", "['block3/kernel', 'step']"]),
    (forgets_return, ["returned None"]),
    (swallows, ["no error; the model as it was", "lacks block2/gamma"]),
    (bare_error, ["an error, RuntimeError, that does not say which array"]),
    (needs_a_suffix, ["KeyError", "load(model, arrays, plan)"]),
])
def test_load(surgery, change, phrases):
    expect(surgery.checks["load"](load_with(change)), *phrases)


def test_the_solutions_of_lab_10_pass(surgery):
    names = solved(surgery)
    for name, check in surgery.checks.items():
        passes(check(names[name]))
