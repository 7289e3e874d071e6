"""Lab 12: wrong code that nobody stored, and right code in another style."""

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


@pytest.fixture
def lab(loaded):
    return loaded["12_find_the_bug"]


@pytest.fixture
def solved(lab):
    """What the solved notebook defines."""
    namespace = {"np": np, "chainer": chainer, "F": F, "L": L}
    for exercise in lab.exercises.values():
        exec(exercise.solution, namespace)
    return namespace


def test_the_solutions_pass(lab, solved):
    answers = {**solved, "network": solved["Net"], "leaky": solved["Leaky"]}
    for name, check in lab.checks.items():
        passes(check(answers[name]))


# ---- the network -------------------------------------------------------------------------------

class OneByOne(chainer.Chain):
    """The links under names of their own; the list is made anew in each call."""

    def __init__(self, n_class, relu=F.relu):
        super().__init__()
        self.relu = relu
        with self.init_scope():
            self.conv1, self.conv2 = L.Convolution2D(1, 6, 5, 2), L.Convolution2D(6, 12, 5, 2)
            self.bn, self.fc = L.BatchNormalization(12), L.Linear(192, n_class)

    def forward(self, x):
        for conv in (self.conv1, self.conv2):
            x = self.relu(conv(x))
        return self.fc(self.bn(x))


class ByAddLink(OneByOne):
    def __init__(self, n_class, relu=F.relu):
        chainer.Chain.__init__(self)
        self.relu = relu
        for i, link in enumerate((L.Convolution2D(1, 6, 5, 2), L.Convolution2D(6, 12, 5, 2)), 1):
            self.add_link(f"conv{i}", link)
        self.add_link("bn", L.BatchNormalization(12))
        self.add_link("fc", L.Linear(192, n_class))


class WithSequential(OneByOne):
    def __init__(self, n_class, relu=F.relu):
        super().__init__(n_class, relu)
        del self.conv1, self.conv2
        with self.init_scope():
            self.convs = chainer.Sequential(
                L.Convolution2D(1, 6, 5, 2), relu, L.Convolution2D(6, 12, 5, 2), relu)

    def forward(self, x):
        return self.fc(self.bn(self.convs(x)))


@pytest.mark.parametrize("right", [OneByOne, ByAddLink, WithSequential])
def test_network_in_other_styles(lab, right):
    passes(lab.checks["network"](right))


class GraphCut(OneByOne):
    def forward(self, x):
        return self.fc(self.bn(self.relu(self.conv2(self.relu(self.conv1(x)).array))))


class Ten(OneByOne):
    def __init__(self, n_class, relu=F.relu):
        super().__init__(10, relu)


class PlainReLU(OneByOne):
    def __init__(self, n_class, relu=F.relu):
        super().__init__(n_class)


class Wide(OneByOne):
    def __init__(self, n_class, relu=F.relu):
        super().__init__(n_class, relu)
        del self.fc
        with self.init_scope():
            self.fc = L.Linear(None, 2 * n_class)


@pytest.mark.parametrize(("wrong", "phrases"), [
    (GraphCut, ["do not move: (6, 1, 5, 5)", "a step"]),
    (Ten, ["relu and n_class", "(6, 10)"]),
    (PlainReLU, ["relu and n_class"]),
    (Wide, ["the layers"]),
    (OneByOne(10), ["needs the class itself"]),
    (lambda n_class: OneByOne(n_class), ["needs the class itself"]),
    (L.Linear, ["needs the class itself", "chainer.Chain"]),
])
def test_network(lab, wrong, phrases):
    expect(lab.checks["network"](wrong), *phrases)


# ---- the loss ----------------------------------------------------------------------------------

@pytest.mark.parametrize("right", [
    lambda model, x, t: F.softmax_cross_entropy(F.log_softmax(model(x)), t),
    lambda model, x, t: -F.mean(F.select_item(F.log_softmax(model(x)), t)),
    lambda model, x, t: F.mean(F.softmax_cross_entropy(model(x), t, reduce="no")),
])
def test_loss_in_other_styles(lab, right):
    passes(lab.checks["loss_of"](right))


@pytest.mark.parametrize(("wrong", "phrases"), [
    (lambda model, x, t: F.softmax_cross_entropy(model(x) * 2, t), ["some scores"]),
    (lambda model, x, t: F.softmax_cross_entropy(model.logits(x), t), ["AttributeError"]),
    (lambda model, x, t: F.softmax_cross_entropy(model(x) + 0 * model(x), t), ["called 2 times"]),
    (lambda x, t: 0, ["cannot be called"]),
    (lambda model, x, t: F.softmax_cross_entropy(model(x).array, t), ["no gradient"]),
])
def test_loss(lab, wrong, phrases):
    expect(lab.checks["loss_of"](wrong), *phrases)


# ---- the data ----------------------------------------------------------------------------------

def by_pairs(x, t, seed):
    pairs = list(zip(x, t, strict=True))
    np.random.RandomState(seed).shuffle(pairs)
    return np.stack([a for a, _ in pairs]), np.array([b for _, b in pairs], t.dtype)


def by_new_generator(x, t, seed):
    i = np.random.default_rng(seed).permutation(len(x))
    return x[i], t[i]


def twice_the_same_seed(x, t, seed):
    return (np.random.RandomState(seed).permutation(x),
            np.random.RandomState(seed).permutation(t))


@pytest.mark.parametrize("right", [by_pairs, by_new_generator, twice_the_same_seed])
def test_shuffled_in_other_styles(lab, right):
    passes(lab.checks["shuffled"](right))


@pytest.mark.parametrize(("wrong", "phrases"), [
    (lambda x, t, seed: (x[::-1], t[::-1]), ["the order"]),
    (lambda x, t, seed: x, ["not a pair"]),
    (lambda x, t, seed: (x[:20], t[:20]), ["labels (20,)"]),
    (lambda x, t, seed: (x.astype(float), t), ["float64"]),
    (lambda x, t, seed: (x[seed], t[seed]), ["labels ()"]),
    (lambda x, t: (x, t), ["cannot be called"]),
])
def test_shuffled(lab, wrong, phrases):
    expect(lab.checks["shuffled"](wrong), *phrases)


# ---- the evaluation ----------------------------------------------------------------------------

def by_function(model, x, t, batch):
    with chainer.using_config("train", False), chainer.using_config("enable_backprop", False):
        y = np.concatenate([model(x[i:i + batch]).array for i in range(0, len(x), batch)])
    return float((y.argmax(axis=1) == t).mean())


def by_hand(model, x, t, batch):
    before = chainer.config.train
    chainer.config.train = False
    try:
        with chainer.no_backprop_mode():
            return sum(int((model(x[i:i + batch]).array.argmax(1) == t[i:i + batch]).sum())
                       for i in range(0, len(x), batch)) / len(x)
    finally:
        chainer.config.train = before


@pytest.mark.parametrize("right", [by_function, by_hand])
def test_accuracy_in_other_styles(lab, right):
    passes(lab.checks["accuracy"](right))


@pytest.mark.parametrize(("wrong", "phrases"), [
    (lambda model, x, t, batch: 0.7, ["never called"]),
    (lambda model, x, t, batch: F.accuracy(model(x), t), ["train mode"]),
    (lambda model, x, t, batch: 1 - by_function(model, x, t, batch), ["the share"]),
    (lambda model, x, t, batch: np.float32(by_function(model, x, t, batch)), ["float32"]),
    (lambda model, x, t: 1.0, ["cannot be called"]),
    (0.9, ["not a function"]),
])
def test_accuracy(lab, wrong, phrases):
    expect(lab.checks["accuracy"](wrong), *phrases)
    assert chainer.config.train


# ---- the function ------------------------------------------------------------------------------

class WithOutputs(chainer.FunctionNode):
    """For slopes above 0 the sign of y is that of x."""

    def __init__(self, slope):
        self.slope = slope

    def forward(self, inputs):
        self.retain_outputs((0,))
        x = inputs[0]
        y = x.copy()
        y[x < 0] *= x.dtype.type(self.slope)
        return y,

    def backward(self, indexes, grad_outputs):
        y, = self.get_retained_outputs()
        gy, = grad_outputs
        return F.where(y.array > 0, gy, gy * y.dtype.type(self.slope)),


def test_leaky_in_another_style(lab):
    passes(lab.checks["leaky"](WithOutputs))


class Doubled(WithOutputs):
    def backward(self, indexes, grad_outputs):
        return super().backward(indexes, grad_outputs)[0] * 2,


class Silent(WithOutputs):
    def backward(self, indexes, grad_outputs):
        return None,


class Shifted(WithOutputs):
    def forward(self, inputs):
        return super().forward(inputs)[0] + 1,


class ForwardOnly(chainer.FunctionNode):
    def __init__(self, slope):
        self.slope = slope

    def forward(self, inputs):
        return np.where(inputs[0] > 0, inputs[0], np.float32(self.slope) * inputs[0]),


@pytest.mark.parametrize(("wrong", "phrases"), [
    (Doubled, ["a gradient by hand", "the derivative of x is 1"]),
    (Silent, ["a gradient by hand", "none"]),
    (Shifted, ["forward"]),
    (ForwardOnly, ["a gradient by hand", "none"]),
    (WithOutputs(0.2), ["needs the class itself"]),
])
def test_leaky(lab, wrong, phrases):
    expect(lab.checks["leaky"](wrong), *phrases)
