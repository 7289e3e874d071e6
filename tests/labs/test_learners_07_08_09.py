"""Wrong answers to labs 7 to 9 that nobody stored: what the report says must still teach."""

import json
import math
from pathlib import Path

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainer.initializers import HeNormal

ROOT = Path(__file__).parents[2]


def conv(n_in, n_out, ksize, stride=1):
    """As lab 8's notebook has it."""
    return L.Convolution2D(n_in, n_out, ksize, stride, ksize // 2, nobias=True,
                           initialW=HeNormal())


def head(n_in, hidden, n_class):
    """The head of lab 7's notebook."""
    class Head(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.fc4 = L.Linear(n_in, hidden, initialW=HeNormal())
                self.fc5 = L.Linear(hidden, hidden, initialW=HeNormal())
                self.fc6 = L.Linear(hidden, n_class, initialW=HeNormal())

        def forward(self, x):
            h = F.dropout(F.relu(self.fc4(x)))
            return self.fc6(F.dropout(F.relu(self.fc5(h))))
    return Head()


def solved(lab):
    """The names that the solved notebook defines."""
    namespace = {"np": np, "math": math, "chainer": chainer, "F": F, "L": L, "HeNormal": HeNormal,
                 "conv": conv, "Head": head}
    for exercise in lab.exercises.values():
        exec(exercise.solution, namespace)
    return namespace


@pytest.fixture
def vgg(loaded):
    return loaded["07_vgg_first_loss"]


@pytest.fixture
def bottleneck(loaded):
    return loaded["08_bottleneck"]


@pytest.fixture
def norm(loaded):
    return loaded["09_batch_norm"]


def expect(report, *phrases):
    said = " ".join(str(report).split())
    assert report.status == "not yet"
    for phrase in phrases:
        assert phrase in said


def changed(right, **methods):
    """A reader's class: the right one, with methods of its own."""
    return type(right.__name__, (right,), methods)


# ---- lab 7 ------------------------------------------------------------------------------------

def test_the_loss_that_lab_7_quotes_is_chapter_6s():
    text = (ROOT / "labs/07_vgg_first_loss/master.md").read_text("utf-8")
    cells = json.loads((ROOT / "book/06_vgg16.ipynb").read_text("utf-8"))["cells"]
    printed = "".join(line for cell in cells for output in cell.get("outputs", ())
                      for line in output.get("text", ()))
    quoted = printed.split("pixels - mean", 1)[1].split("loss", 1)[1].split()[0]
    assert f"{float(quoted):.0f}" in text


def test_a_block_with_its_inputs_left_open_passes(vgg):
    right = solved(vgg)["VGGBlock"]

    def init(self, n_in, n_channels, n_convs):
        chainer.Chain.__init__(self)
        self.n_convs = n_convs
        with self.init_scope():
            for i in range(1, n_convs + 1):
                setattr(self, f"conv{i}",
                        L.Convolution2D(None, n_channels, 3, 1, 1, initialW=HeNormal()))

    assert vgg.checks["VGGBlock"](changed(right, __init__=init)).ok


def leaky(self, x):
    for i in range(1, self.n_convs + 1):
        x = F.leaky_relu(self[f"conv{i}"](x))
    return F.max_pooling_2d(x, 2, 2)


def nothing_returned(self, x):
    F.max_pooling_2d(F.relu(self.conv1(x)), 2, 2)


def cut(self, x):
    for i in range(1, self.n_convs + 1):
        x = F.relu(self[f"conv{i}"](x)).array
    return F.max_pooling_2d(x, 2, 2)


@pytest.mark.parametrize(("forward", "phrases"), [
    (leaky, ["values are wrong", "For each convolution in turn"]),
    (nothing_returned, ["returns None", "`return ...`, missing"]),
    (cut, ["does not reach every parameter", "out of the graph"]),
    (lambda self, x: F.relu(self.conv0(x)), ["no attribute 'conv0'"]),
    (lambda self, x: F.max_pooling_2d(self.conv1(x), 2, 2).array, ["expected a Chainer Variable"]),
])
def test_forward_of_a_vgg_block(vgg, forward, phrases):
    right = solved(vgg)["VGGBlock"]
    expect(vgg.checks["VGGBlock"](changed(right, forward=forward)), *phrases)


def test_an_instance_and_another_base(vgg):
    expect(vgg.checks["VGGBlock"](solved(vgg)["VGGBlock"](1, 2, 3)), "the class itself")
    expect(vgg.checks["VGG"](solved(vgg)["VGGBlock"]), "derived from `chainer.ChainList`")


def test_vgg_with_floats_for_sizes(vgg):
    names = solved(vgg)

    def init(self, config, in_shape, hidden, n_class):
        chainer.ChainList.__init__(self)
        n_in, height, width = in_shape
        for n_channels, n_convs in config:
            self.add_link(names["VGGBlock"](n_in, n_channels, n_convs))
            n_in, height, width = n_channels, height / 2, width / 2
        self.add_link(L.Linear(n_in * height * width, n_class))

    expect(vgg.checks["VGG"](changed(names["VGG"], __init__=init)), "TypeError", "self.add_link")


def test_vgg_with_something_between_its_children(vgg):
    def forward(self, x):
        for link in self.children():
            x = F.dropout(link(x))
        return x

    expect(vgg.checks["VGG"](changed(solved(vgg)["VGG"], forward=forward)), "nothing between them")


@pytest.mark.parametrize(("wrong", "phrases"), [
    (lambda y: F.mean(F.logsumexp(y, axis=1)) - y.mean(), ["Variable, expected a plain number"]),
    (lambda y: 2.0, ["Every call gives this same result", "by hand"]),
    (lambda y: y - y.max(axis=1), ["expected a number"]),
])
def test_mean_loss(vgg, wrong, phrases):
    expect(vgg.checks["mean_loss"](wrong), *phrases)


def test_mean_loss_by_chainer_passes(vgg):
    def mean_loss(y):
        return float((F.logsumexp(y, axis=1).array - y.mean(axis=1)).mean())

    assert vgg.checks["mean_loss"](mean_loss).ok


@pytest.mark.parametrize(("wrong", "phrases"), [
    (lambda rms, n_relu: rms, ["no parameter named scale and last"]),
    (lambda rms, n_relu, scale=1.0, last=1.0: 1.4 * rms * scale**n_relu * last, ["by hand"]),
])
def test_score_std(vgg, wrong, phrases):
    expect(vgg.checks["score_std"](wrong), *phrases)


def squared(model, factor):
    model[-1].fc6.W.array *= factor**2


def bias_too(model, factor):
    model[-1].fc6.W.array *= factor
    model[-1].fc6.b.array += 1


@pytest.mark.parametrize(("wrong", "phrases"), [
    (squared, ["times 0.0001", "model[-1].fc6.W.array"]),
    (bias_too, ["Other parameters were changed", "/2/fc6/b as it was"]),
    (lambda model, factor: model.head.fc6, ["no attribute 'head'"]),
])
def test_quiet(vgg, wrong, phrases):
    expect(vgg.checks["quiet"](wrong), *phrases)


# ---- lab 8 ------------------------------------------------------------------------------------

def test_a_block_with_none_for_the_projection_passes(bottleneck):
    right = solved(bottleneck)["BottleNeck"]

    class BottleNeck(right):
        def __init__(self, n_in, n_mid, n_out, stride=1):
            super().__init__(n_in, n_mid, n_out, stride)
            self.proj = stride != 1 or n_in != n_out

        def forward(self, x):
            h = F.relu(self.bn_a(self.conv1x1a(x)))
            h = self.bn_c(self.conv1x1c(F.relu(self.bn_b(self.conv3x3b(h)))))
            return F.relu((self.bn_r(self.conv1x1r(x)) if self.proj else x) + h)

    assert bottleneck.checks["layers"](BottleNeck).ok
    assert bottleneck.checks["forward"](BottleNeck).ok


def test_two_mistakes_name_none_that_is_not_shown(bottleneck):
    """bn_b is missing in all blocks; the condition, wrong as well, comes later."""
    class BottleNeck(chainer.Chain):
        def __init__(self, n_in, n_mid, n_out, stride=1):
            super().__init__()
            with self.init_scope():
                self.conv1x1a = conv(n_in, n_mid, 1, stride)
                self.bn_a = L.BatchNormalization(n_mid)
                self.conv3x3b = conv(n_mid, n_mid, 3)
                self.conv1x1c = conv(n_mid, n_out, 1)
                self.bn_c = L.BatchNormalization(n_out)

    report = bottleneck.checks["layers"](BottleNeck)
    expect(report, "/bn_b: BatchNormalization", "line by line", "use its names")
    assert bottleneck.checks["forward"](BottleNeck).status == "not attempted"


@pytest.mark.parametrize(("end", "phrases"), [
    (lambda h, x: F.sigmoid(h + x), ["values are wrong", "relu of the sum"]),
    (lambda h, x: F.relu(F.concat([h, x])), ["C is 16 (expected 8)", "relu of the sum"]),
    (lambda h, x: F.relu(h + x) / 2, ["Every value is 0.5 times the right one"]),
])
def test_forward_of_a_bottleneck(bottleneck, end, phrases):
    def forward(self, x):
        h = F.relu(self.bn_a(self.conv1x1a(x)))
        h = self.bn_c(self.conv1x1c(F.relu(self.bn_b(self.conv3x3b(h)))))
        return end(h, self.bn_r(self.conv1x1r(x)) if hasattr(self, "conv1x1r") else x)

    right = solved(bottleneck)["BottleNeck"]
    expect(bottleneck.checks["forward"](changed(right, forward=forward)), *phrases)


@pytest.mark.parametrize(("forward", "phrases"), [
    (lambda self, x: self[1](self[0](x)), ["values are wrong", "in their order"]),
    (lambda self, x: [link(x) for link in self[:1]], ["expected a Chainer Variable"]),
    (lambda self, x: self.blocks(x), ["no attribute 'blocks'"]),
])
def test_res_block(bottleneck, forward, phrases):
    right = solved(bottleneck)["ResBlock"]
    expect(bottleneck.checks["ResBlock"](changed(right, forward=forward)), *phrases)


@pytest.mark.parametrize(("wrong", "phrases"), [
    (lambda n_blocks: 47_142_912, ["Every call gives this same result", "by hand"]),
    (lambda n_blocks: sum(n_blocks) / 2, ["expected a whole number"]),
    (lambda n_blocks: sum(n * n for n in n_blocks), ["66048", "by hand"]),
])
def test_proj_cost(bottleneck, wrong, phrases):
    expect(bottleneck.checks["proj_cost"](wrong), *phrases)


def gradient_of(model, x):
    model.cleargrads()
    F.mean(model(x) ** 2).backward()
    return [name for name, param in sorted(model.namedparams()) if param.grad is None]


def updated(model, x):
    optimizer = chainer.optimizers.Adam().setup(model)
    found = gradient_of(model, x)
    optimizer.update()
    return found


@pytest.mark.parametrize(("wrong", "phrases"), [
    (lambda model, x: set(gradient_of(model, x)), ["not a list of names", "`sorted(...)`"]),
    (lambda model, x: gradient_of(model, x)[::-1], ["in another order"]),
    (updated, ["parameters are other numbers now", "no update"]),
    (lambda model, x: ["/conv1x1r/W"], ["/bn_r/beta, /bn_r/gamma, /conv1x1r/W", "cleargrads"]),
])
def test_unreached(bottleneck, wrong, phrases):
    expect(bottleneck.checks["unreached"](wrong), *phrases)


def test_unreached_with_another_loss_passes(bottleneck):
    assert bottleneck.checks["unreached"](gradient_of).ok


# ---- lab 9 ------------------------------------------------------------------------------------

@pytest.mark.parametrize(("wrong", "phrases"), [
    (lambda x, gamma, beta, eps=2e-5: F.batch_normalization(x, gamma, beta, eps=eps),
     ["Variable, expected a NumPy array"]),
    (lambda x, gamma, beta: x, ["no parameter named eps"]),
    (lambda x, gamma, beta, eps=2e-5: x.astype(float), ["dtype float64, expected float32"]),
    (lambda x, gamma, beta, eps=2e-5: x, ["values are wrong", "variance", "by hand"]),
])
def test_train_face(norm, wrong, phrases):
    expect(norm.checks["train_face"](wrong), *phrases)


def in_place(avg_mean, avg_var, x, decay=0.9):
    avg_var *= decay
    return avg_mean, avg_var


@pytest.mark.parametrize(("wrong", "phrases"), [
    (in_place, ["changes its argument avg_var"]),
    (lambda avg_mean, avg_var, x, decay=0.9: avg_mean, ["expected two arrays", "a comma"]),
    (lambda avg_mean, avg_var, x, decay=0.9: (avg_mean, avg_var), ["avg_mean: 2 of 2", "by hand"]),
    (lambda avg_mean, avg_var, x, decay=0.9: (x.mean(axis=(0, 3)), avg_var),
     ["2 axes, expected 1 (C)", "leaves the shape (C,)"]),
    (lambda avg_mean, avg_var, x, decay=0.9: (0.0, 1.0), ["expected an array"]),
])
def test_running(norm, wrong, phrases):
    expect(norm.checks["running"](wrong), *phrases)


@pytest.mark.parametrize(("wrong", "phrases"), [
    (lambda x, gamma, beta, avg_mean, avg_var, eps=2e-5: x, ["values are wrong", "by hand"]),
    (lambda x, gamma, beta, avg_mean, avg_var, eps=2e-5: x[0], ["3 axes, expected 4"]),
    (lambda x, gamma, beta: x, ["cannot be called as the exercise asks"]),
])
def test_test_face(norm, wrong, phrases):
    expect(norm.checks["test_face"](wrong), *phrases)


@pytest.mark.parametrize(("wrong", "phrases"), [
    (lambda w, gamma, beta, avg_mean, avg_var, eps=2e-5: w, ["expected two arrays"]),
    (lambda w, gamma, beta, avg_mean, avg_var, eps=2e-5: (2 * w, beta), ["w: ", "by hand"]),
])
def test_fold(norm, wrong, phrases):
    expect(norm.checks["fold"](wrong), *phrases)


def test_a_folded_bias_of_another_shape(norm):
    def fold(w, gamma, beta, avg_mean, avg_var, eps=2e-5):
        w, b = solved(norm)["fold"](w, gamma, beta, avg_mean, avg_var, eps)
        return w, b[:, None]

    expect(norm.checks["fold"](fold), "b: The result has 2 axes", "one number for each")


def backwards(model, x, batch):
    with chainer.using_config("train", False):
        return np.concatenate([model(x[i:i + batch]).array
                               for i in range(0, len(x), batch)])[::-1].copy()


def switched_by_hand(model, x, batch):
    scores = []
    for i in range(0, len(x), batch):
        scores.append(model(x[i:i + batch]).array)
        chainer.config.train = False
    chainer.config.train = True
    return np.concatenate(scores)


@pytest.mark.parametrize(("wrong", "phrases"), [
    (backwards, ["axis N runs backwards"]),
    (switched_by_hand, ["ran in train mode", "running averages were moved"]),
    (lambda model, x, batch: np.zeros((10, 3), np.float32), ["never called"]),
    (lambda model, x, batch: model.predict(x), ["no attribute 'predict'"]),
])
def test_evaluate(norm, wrong, phrases):
    expect(norm.checks["evaluate"](wrong), *phrases)
    assert chainer.config.train
