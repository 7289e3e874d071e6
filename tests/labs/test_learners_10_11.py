"""Labs 10 and 11: wrong code that nobody stored, and right code in another style."""

import copy

from convnets.pretrained.transfer import model_arrays

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainer.datasets import TupleDataset


def expect(report, *phrases):
    said = " ".join(str(report).split())
    assert report.status == "not yet"
    for phrase in phrases:
        assert phrase in said


def passes(report):
    assert report.ok, report


def solved(lab):
    """What the solved notebook defines."""
    namespace = {"np": np, "chainer": chainer, "F": F, "L": L, "model_arrays": model_arrays,
                 "TupleDataset": TupleDataset}
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


# ---- lab 11: a new head ------------------------------------------------------------------------

@pytest.fixture
def tuning(loaded):
    return loaded["11_fine_tuning"]


def test_the_solutions_of_lab_11_pass(tuning):
    names = solved(tuning)
    for name, check in tuning.checks.items():
        passes(check(names[name]))


def by_deepcopy(model, n_class):
    net = copy.deepcopy(model)
    net.fc = L.Linear(net.fc.W.shape[1], n_class)   # the name stays registered
    return net


def lazy_and_quiet(model, n_class):
    net = model.copy("copy")
    delattr(net, "fc")
    net.add_link("fc", L.Linear(None, n_class, initialW=0))
    return net


@pytest.mark.parametrize("right", [by_deepcopy, lazy_and_quiet])
def test_new_head_in_other_styles(tuning, right):
    passes(tuning.checks["new_head"](right))


def head_with(change):
    def new_head(model, n_class):
        net = by_deepcopy(model, n_class)
        return change(model, net)
    return new_head


def resized(model, n_class):
    net = model.copy("copy")
    net.fc.W.array.resize(n_class, net.fc.W.shape[1])
    return net


def spoils_conv1(model, net):
    net.conv1.W.array += 1
    return net


def shares_averages(model, net):
    net.bn.avg_mean = model.bn.avg_mean
    return net


def softmax_head(model, net):
    net.head = lambda h: F.softmax(net.fc(F.dropout(h, 0.5)))
    return net


@pytest.mark.parametrize(("wrong", "phrases"), [
    (resized, ["InvalidType", "a new `L.Linear(n_in, n_class)`"]),
    (head_with(lambda model, net: model), ["no", "fc"]),
    (head_with(lambda model, net: None), ["got nothing"]),
    (head_with(spoils_conv1), ["other numbers in conv1/W"]),
    (head_with(shares_averages), ["happens to the old one", "bn/avg_mean"]),
    (head_with(lambda model, net: chainer.Sequential(net)), ["type Sequential"]),
    (lambda model: model, ["cannot be called as the exercise asks"]),
    (lambda model, n_class: model.copy("deep"), ["unknown 'mode' argument 'deep'"]),
    (lambda model, n_class: L.Linear(model.fc.n_in, n_class), ["AttributeError"]),
])
def test_new_head(tuning, wrong, phrases):
    expect(tuning.checks["new_head"](wrong), *phrases)


# ---- lab 11: freezing --------------------------------------------------------------------------

def by_parameters(model, free, lr):
    optimizer = chainer.optimizers.Adam(alpha=lr)
    optimizer.setup(model)
    for path, param in model.namedparams():
        param.update_rule.enabled = path.split("/")[1] in free
    return optimizer


def first_all_then_some(model, free, lr):
    optimizer = chainer.optimizers.Adam(lr).setup(model)
    model.disable_update()
    for name in free:
        model[name].enable_update()
    return optimizer


@pytest.mark.parametrize("right", [by_parameters, first_all_then_some])
def test_optimizer_for_in_other_styles(tuning, right):
    passes(tuning.checks["optimizer_for"](right))


def zeroes(model, free, lr):
    optimizer = first_all_then_some(model, free, lr)
    model.fc.b.array[...] = 0
    return optimizer


def no_grad(model, free, lr):
    for param in model.params():
        param.requires_grad = False
    return chainer.optimizers.Adam(lr).setup(model)


@pytest.mark.parametrize(("wrong", "phrases"), [
    (zeroes, ["changed: fc/b", "changes no number"]),
    (no_grad, ["AttributeError"]),
    (lambda model, free, lr: first_all_then_some(model, free, lr) and None, ["got nothing"]),
    (lambda model, free, lr: first_all_then_some(model, ["bn", *free], lr), ["bn/beta, bn/gamma"]),
    (lambda model, free, lr: chainer.optimizers.AdaDelta().setup(model), ["AdaDelta with"]),
    (lambda model, free, lr: model, ["an object of type Net"]),
    (lambda model, free, lr=0.1: None, ["cannot be called"]),
])
def test_optimizer_for(tuning, wrong, phrases):
    report = tuning.checks["optimizer_for"](wrong)
    if report.status == "not attempted":
        assert phrases == ["cannot be called"]   # a function without statements is a blank one
    else:
        expect(report, *phrases)


# ---- lab 11: two modes -------------------------------------------------------------------------

def by_config(model, x):
    before = chainer.config.train
    chainer.config.train = False
    try:
        h = model.features(x)
    finally:
        chainer.config.train = before
    return model.head(h)


def by_layers(model, x):
    with chainer.using_config("train", False):
        h = model.bn(model.conv2(F.relu(model.conv1(x))))
    return model.fc(F.dropout(F.mean(F.relu(h), axis=(2, 3))))


@pytest.mark.parametrize("right", [by_config, by_layers])
def test_tuned_in_other_styles(tuning, right):
    passes(tuning.checks["tuned"](right))


@pytest.mark.parametrize(("wrong", "phrases"), [
    (lambda model, x: by_config(model, x).array, ["not a Variable with the scores"]),
    (lambda model, x: by_config(model, x / 2), ["other ones"]),
    (lambda model, x: by_config(model, x)[:5], ["Variable (5, 3)"]),
    (lambda model, x: model.feature(x), ["no attribute 'feature'"]),
    (lambda model, x: model.head(x), ["InvalidType"]),
    (lambda model, x: by_config(model, x) and None, ["truth value"]),
])
def test_tuned(tuning, wrong, phrases):
    expect(tuning.checks["tuned"](wrong), *phrases)
    assert chainer.config.train


# ---- lab 11: features --------------------------------------------------------------------------

def by_examples(model, dataset, batch):
    iterator = chainer.iterators.SerialIterator(dataset, batch, repeat=False, shuffle=False)
    pairs = []
    with chainer.using_config("train", False), chainer.using_config("enable_backprop", False):
        for examples in iterator:
            x, t = chainer.dataset.concat_examples(examples)
            pairs += zip(model.features(x).array, t, strict=True)
    return pairs


def test_features_of_in_another_style(tuning):
    passes(tuning.checks["features_of"](by_examples))


def features_with(change):
    def features_of(model, dataset, batch):
        return change(by_examples(model, dataset, batch))
    return features_of


def first_in_train_mode(model, dataset, batch):
    model.features(dataset[:batch][0][0][None])
    return by_examples(model, dataset, batch)


@pytest.mark.parametrize(("wrong", "phrases"), [
    (features_with(lambda pairs: pairs[:-1]), ["9 pairs of an array (8,)"]),
    (features_with(lambda pairs: [(h, 0) for h, _ in pairs]), ["an array () int64"]),
    (features_with(lambda pairs: [(2 * h, t) for h, t in pairs]), ["other ones"]),
    (features_with(lambda pairs: [(h, t * 0) for h, t in pairs]), ["do not belong", "0 0 0"]),
    (features_with(lambda pairs: 5), ["the number 5"]),
    (features_with(lambda pairs: {}), ["type dict"]),
    (first_in_train_mode, ["both modes, the averages moved"]),
    (lambda model, dataset, batch: by_examples(model, dataset, 5), ["5 + 5", "4 + 4 + 2"]),
    (lambda model, dataset, batch: model.features(dataset), ["in features"]),
])
def test_features_of(tuning, wrong, phrases):
    expect(tuning.checks["features_of"](wrong), *phrases)


# ---- lab 11: rates -----------------------------------------------------------------------------

def over_the_target(optimizer, rates):
    for path, param in optimizer.target.namedparams():
        if (name := path.split("/")[1]) in rates:
            param.update_rule.enabled = True
            param.update_rule.hyperparam.alpha = rates[name]
    return optimizer


def test_set_rates_in_another_style(tuning):
    passes(tuning.checks["set_rates"](over_the_target))


def halved(optimizer, rates):
    over_the_target(optimizer, {name: rate / 2 for name, rate in rates.items()})


def one_more_step(optimizer, rates):
    over_the_target(optimizer, rates)
    optimizer.target.fc.W.array += 1


def no_first_moment(optimizer, rates):
    over_the_target(optimizer, rates)
    for param in optimizer.target.params():
        param.update_rule.t = 0


@pytest.mark.parametrize(("wrong", "phrases"), [
    (halved, ["conv2/W 5e-05"]),
    (one_more_step, ["changed: fc/W"]),
    (no_first_moment, ["fc has seen 0 steps"]),
    (lambda optimizer, rates: optimizer.fc, ["AttributeError"]),
    (lambda optimizer, rates: optimizer.target["fc"].enable_update(), ["conv2/W frozen"]),
    (lambda model, optimizer, rates: rates, ["cannot be called as the exercise asks"]),
])
def test_set_rates(tuning, wrong, phrases):
    expect(tuning.checks["set_rates"](wrong), *phrases)
