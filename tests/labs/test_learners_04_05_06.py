"""Labs 4 to 6: wrong code that nobody stored, and right code in another style."""

import copy
import math
from functools import partial

from convnets import models

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainer.utils import get_conv_outsize


def said(report):
    """The report's text on one line."""
    return " ".join(str(report).split())


def expect(report, *phrases):
    assert report.status == "not yet"
    for phrase in phrases:
        assert phrase in said(report)


def answers(lab):
    """What the solved notebook defines."""
    pool = partial(F.max_pooling_2d, ksize=2, stride=2)
    namespace = {"np": np, "chainer": chainer, "F": F, "L": L, "copy": copy, "math": math,
                 "pool": pool, "plan": plan, "get_conv_outsize": get_conv_outsize}
    for exercise in lab.exercises.values():
        exec(exercise.solution, namespace)
    return namespace


def plan():
    pool = partial(F.max_pooling_2d, ksize=2, stride=2)
    conv1, conv2, conv3, fc4, fc5 = models.lenet5.LeNet5ChainList().children()
    return [("conv1", conv1), ("_sigm1", F.sigmoid), ("_pool1", pool),
            ("conv2", conv2), ("_sigm2", F.sigmoid), ("_pool2", pool),
            ("conv3", conv3), ("_sigm3", F.sigmoid), ("fc4", fc4), ("_sigm4", F.sigmoid),
            ("fc5", fc5)]


# ---- lab 4 ------------------------------------------------------------------------------------

@pytest.fixture
def forms(loaded):
    return loaded["04_four_forms"]


@pytest.fixture
def solved_forms(forms):
    return answers(forms)


def test_list_net_by_type_and_add_link_passes(forms):
    class ListNet(chainer.Chain):
        def __init__(self, layers):
            super().__init__()
            self.layers = layers
            for name, layer in layers:
                if isinstance(layer, chainer.Link):
                    self.add_link(name, layer)

        def forward(self, x):
            for name, layer in self.layers:
                x = self[name](x) if isinstance(layer, chainer.Link) else layer(x)
            return x

    assert forms.checks["ListNet"](ListNet).ok


def test_list_net_without_return(forms, solved_forms):
    class ListNet(solved_forms["ListNet"]):
        def forward(self, x):
            super().forward(x)

    expect(forms.checks["ListNet"](ListNet), "forward returns None", "behind the loop")


def test_list_net_with_a_layer_too_many(forms, solved_forms):
    class ListNet(solved_forms["ListNet"]):
        def forward(self, x):
            return F.relu(super().forward(x))

    expect(forms.checks["ListNet"](ListNet), "other numbers than LeNet5", "shape (3, 10)", "0.000")


def test_list_net_that_takes_no_list(forms):
    class ListNet(chainer.Chain):
        def __init__(self):
            super().__init__()

    expect(forms.checks["ListNet"](ListNet), "takes 1 positional argument but 2 were given",
           "ListNet([('fc2', link)")


def test_list_net_as_an_instance(forms, solved_forms):
    expect(forms.checks["ListNet"](solved_forms["ListNet"](plan())), "the class itself",
           "`check.ListNet(ListNet)`")


def test_stack_net_derived_from_chain(forms):
    class StackNet(chainer.Chain):
        def forward(self, x):
            return x

    expect(forms.checks["StackNet"](StackNet), "not derived from chainer.ChainList", "got Chain",
           "`class StackNet(chainer.ChainList):`")


def test_stack_net_with_a_link_too_many(forms, solved_forms):
    class StackNet(solved_forms["StackNet"]):
        def __init__(self):
            super().__init__()
            self.add_link(L.Linear(10, 10))

    expect(forms.checks["StackNet"](StackNet), "5: Linear (10, 10)", "in forward order")


def test_stack_net_with_sigmoid_at_the_poolings_only(forms, solved_forms):
    class StackNet(solved_forms["StackNet"]):
        def forward(self, x):
            *first, last = self.children()
            for i, link in enumerate(first):
                x = link(x)
                x = F.max_pooling_2d(F.sigmoid(x), 2, 2) if i < 2 else x
            return last(x)

    expect(forms.checks["StackNet"](StackNet), "not LeNet5's logits", "behind each layer but")


def test_a_sequential_that_pools_first_passes(forms):
    def lenet5_sequential():
        layers = [layer for _, layer in plan()]
        layers[1], layers[2] = layers[2], layers[1]   # a rising function and a maximum commute
        return chainer.Sequential(*layers)

    assert forms.checks["lenet5_sequential"](lenet5_sequential).ok


@pytest.mark.parametrize(("wrong", "phrases"), [
    (lambda: [layer for _, layer in plan()], ["got a list", "chainer.Sequential(layer"]),
    (lambda: chainer.Sequential(*[layer for _, layer in plan()[:-1]]), ["4 links, 43,576"]),
    (lambda: chainer.Sequential(*[layer for _, layer in plan()[::-1]]), ["784 != 84", "'Actual'"]),
    (lambda: chainer.Sequential(*[F.tanh if layer is F.sigmoid else layer for _, layer in plan()]),
     ["not LeNet5's logits", "A sigmoid behind each layer"]),
])
def test_lenet5_sequential(forms, wrong, phrases):
    expect(forms.checks["lenet5_sequential"](wrong), *phrases)


def test_a_model_instead_of_the_function(forms, solved_forms):
    model = solved_forms["lenet5_sequential"]()
    expect(forms.checks["lenet5_sequential"](model), "a model, not the function")


@pytest.mark.parametrize(("wrong", "phrases"), [
    (lambda model: list(model.params()), ["a Parameter", "keep the links"]),
    (lambda model: [model], ["got the model", "Walk through the Sequential"]),
    (lambda model: list(model.children()) if len(model) == 4 else None, ["returns None"]),
    (lambda model: [f for f in model if isinstance(f, chainer.Link)],
     ["TypeError", "`vars(model)`", "stem=a, conv2=b"]),
])
def test_forward_order(forms, wrong, phrases):
    expect(forms.checks["forward_order"](wrong), *phrases)


def test_copy_weights_that_counts_but_compares_while_copying(forms, solved_forms):
    order = solved_forms["forward_order"]

    def copy_weights(src, dst):
        if len(order(src)) != len(order(dst)):
            raise ValueError
        for a, b in zip(order(src), order(dst), strict=True):
            if a.W.shape != b.W.shape:
                raise ValueError
            b.copyparams(a)

    expect(forms.checks["copy_weights"](copy_weights), "W (3, 1) to W (2, 1): ValueError, target "
           "changed", "only then begin to copy")


def test_copy_weights_that_copies_twice_as_much(forms, solved_forms):
    def copy_weights(src, dst):
        solved_forms["copy_weights"](src, dst)
        for param in dst.params():
            param.array *= 2

    expect(forms.checks["copy_weights"](copy_weights), "target 4x + 40", "by hand")


def test_copy_weights_waits_for_forward_order(forms):
    def copy_weights(src, dst):
        for a, b in zip(None, dst, strict=True):
            b.copyparams(a)

    expect(forms.checks["copy_weights"](copy_weights), "'NoneType' object is not iterable",
           "The line got None", "`for a, b in zip(None, dst, strict=True):`")


# ---- lab 5 ------------------------------------------------------------------------------------

@pytest.fixture
def shapes(loaded):
    return loaded["05_shapes"]


def test_out_size_by_ceil_passes(shapes):
    def out_size(size, k, s=1, p=0, cover_all=False):
        steps = (size + 2 * p - k) / s
        return (math.ceil if cover_all else math.floor)(steps) + 1

    assert shapes.checks["out_size"](out_size).ok


@pytest.mark.parametrize(("wrong", "phrases"), [
    (lambda size, k, s=1, p=0, cover_all=False: (size + 2 * p - k) / s + 1,
     ["number 2.5, of type float", "`//`"]),
    (lambda size, k, s=1, p=0, cover_all=True: 3, ["The default of cover_all differs"]),
    (lambda size, k, s=1, p=0, cover_all=False: (size + 2 * p - k + s) // s if cover_all else None,
     ["expected 3", "got 2", "rounded up: 2"]),
])
def test_out_size(shapes, wrong, phrases):
    expect(shapes.checks["out_size"](wrong), *phrases)


@pytest.mark.parametrize(("wrong", "phrases"), [
    (lambda layers, shape, cover_all=True: (4, 4, 4), ["tuple, expected a number"]),
    (lambda layers, shape, cover_all=True: math.prod(shape), ["expected 64", "4x7x7 > 4x4x4"]),
    (lambda layers, shape, cover_all=True: shape[0] * layers[1][1],
     ["Your code raised TypeError", "The line got None"]),
])
def test_flat_size(shapes, wrong, phrases):
    expect(shapes.checks["flat_size"](wrong), *phrases)


@pytest.mark.parametrize(("wrong", "phrases"), [
    (lambda model: {name: p for name, p in model.namedparams() if p.array is None},
     ["an object of type dict", "expected /first/W"]),
    (lambda model: [n for n, p in model.namedparams() if p.grad is None], ["Cannot retrieve"]),
    (lambda model: model(np.zeros((1, 2), np.float32)) and [], ["the model is resolved now"]),
])
def test_unresolved(shapes, wrong, phrases):
    expect(shapes.checks["unresolved"](wrong), *phrases)


def test_unresolved_by_is_initialized_passes(shapes):
    def unresolved(model):
        return {name for name, p in model.namedparams() if not p.is_initialized}

    assert shapes.checks["unresolved"](unresolved).ok


def run_in_test_mode(model, x):
    with chainer.using_config("train", False):
        model(x)


def filled_with_zeros(model, shape):
    run_in_test_mode(model, np.zeros((1, *shape), np.float32))
    for param in model.params():
        param.array[...] = 0


@pytest.mark.parametrize(("wrong", "phrases"), [
    (lambda model, shape: run_in_test_mode(model, np.zeros((1, shape), np.float32)),
     ["'tuple' object", "np.zeros((1, *shape), np.float32)"]),
    (lambda model, shape: shape, ["/conv/W None", "waits for its first call"]),
    (lambda model, shape: [p.initialize((4, 1)) for p in model.params() if p.array is None],
     ["/conv/W (4, 1)", "fc4 gets 2·5·4 = 40"]),
    (filled_with_zeros, ["the two get the same weights"]),
])
def test_resolve(shapes, wrong, phrases):
    expect(shapes.checks["resolve"](wrong), *phrases)


def test_resolve_that_sets_the_mode_and_puts_it_back_passes(shapes):
    def resolve(model, shape):
        chainer.config.train = False
        model(np.ones((2, *shape), np.float32))
        chainer.config.train = True

    assert shapes.checks["resolve"](resolve).ok


def of_a_copy_of_a_copy(model, shape):
    other = copy.deepcopy(model)
    run_in_test_mode(other, np.zeros((1, *shape), np.float32))
    return copy.deepcopy(other)


@pytest.mark.parametrize(("wrong", "phrases"), [
    (lambda model, shape: None, ["not attempted"]),
    (lambda model, shape: (model, model), ["of type tuple, expected a model"]),
    (of_a_copy_of_a_copy, ["model 0.979 2.241, twin 1.764 0.400", "the model not"]),
    (lambda model, shape: run_in_test_mode(model, np.zeros((1, *shape), np.float32)),
     ["The result is None", "`return` the copy"]),
])
def test_twin(shapes, wrong, phrases):
    report = shapes.checks["twin"](wrong)
    assert not report.ok and all(phrase in said(report) for phrase in phrases)


def test_twin_by_copy_passes(shapes):
    def twin(model, shape):
        run_in_test_mode(model, np.zeros((1, *shape), np.float32))
        return model.copy("copy")

    assert shapes.checks["twin"](twin).ok


# ---- lab 6 ------------------------------------------------------------------------------------

@pytest.fixture
def counts(loaded):
    return loaded["06_count_it"]


@pytest.mark.parametrize(("wrong", "phrases"), [
    (lambda n_in, n_out, k=1, groups=1, nobias=False: n_out * n_in / groups * k * k,
     ["of type float", "It is a count"]),
    (lambda n_in, n_out, k=1, nobias=False: 3, ["no parameter named groups"]),
    (lambda n_in, n_out, k=1, groups=1, nobias=False: n_in + n_out, ["got 10", "6·(18 + 1) = 114"]),
])
def test_layer_params(counts, wrong, phrases):
    expect(counts.checks["layer_params"](wrong), *phrases)


@pytest.mark.parametrize(("wrong", "phrases"), [
    (lambda n_in, n_out, k=1, out_h=1, out_w=1, groups=1: out_h * out_w * n_out * n_out * k * k,
     ["got 1620", "2·3·3 = 18 multiply-adds"]),
    (lambda n_in, n_out, k=1, out_h=1, out_w=1, groups=1: (out_h + out_w) * n_out * n_in * k * k,
     ["got 486", "3·4·5 = 60"]),
    (lambda n_in, n_out, k=3, out_h=1, out_w=1, groups=1: 0, ["The default of k differs"]),
])
def test_layer_macs(counts, wrong, phrases):
    expect(counts.checks["layer_macs"](wrong), *phrases)


@pytest.mark.parametrize(("wrong", "phrases"), [
    (lambda function, in_data: (len(in_data[0]), len(in_data[1])), ["got (2, 4)",
                                                                    "5 - 3 + 1 = 3"]),
    (lambda function, in_data: "(4, 2)", ["an object of type str"]),
    (lambda function, in_data: (4, 2) if function.label == "Linear" else None,
     ["returns None", "The labels are 'LinearFunction'"]),
])
def test_output_shape(counts, wrong, phrases):
    expect(counts.checks["output_shape"](wrong), *phrases)


def counter(method):
    """A hook with a list of rows and this forward_postprocess."""
    return type("Counter", (chainer.FunctionHook,), {
        "__init__": lambda self: setattr(self, "rows", []), "forward_postprocess": method})


@pytest.mark.parametrize(("wrong", "phrases"), [
    (lambda self, function: None, ["2 positional arguments but 3 were given",
                                   "`forward_postprocess(self, function, in_data)`"]),
    (lambda self, function, in_data: self.rows.append([6, 8]), ["got [6, 8]",
                                                                "(function.label, MACs, bytes)"]),
    (lambda self, function, in_data: setattr(self, "rows", {}), ["no list of rows", "type dict"]),
    (lambda self, function, in_data: self.rows.append((function.label, 1, 1)),
     ["1 MACs, 1 bytes", "6 MACs; 2 outputs of 4 bytes"]),
])
def test_counter(counts, wrong, phrases):
    # The third replaces the list that the instance has, so it is seen while it counts.
    expect(counts.checks["Counter"](counter(wrong)), *phrases)


def test_counter_in_forward_preprocess_passes(counts):
    right = answers(counts)["Counter"]

    class Counter(chainer.FunctionHook):
        def __init__(self):
            self.rows = []

        def forward_preprocess(self, function, in_data):
            right.forward_postprocess(self, function, in_data)

    assert counts.checks["Counter"](Counter).ok


@pytest.mark.parametrize(("wrong", "phrases"), [
    (lambda config, size=224, hidden=4096, n_class=1000: (1, 2), ["tuple, expected 4 numbers"]),
    (lambda config, size=224, hidden=4096, n_class=1000: (992, 1, 2, 3),
     ["`fc_params` is wrong", "(32 + 1)·5 + (5 + 1)·5 + (5 + 1)·7 = 237"]),
    (lambda config, size=224, hidden=4096, n_class=1000: (992, 237, 20736, 1.5),
     ["of type float"]),
])
def test_vgg_totals(counts, wrong, phrases):
    expect(counts.checks["vgg_totals"](wrong), *phrases)
