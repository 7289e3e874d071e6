"""Diagnoses: every planted bug is found by its own check, healthy networks pass all of them."""

import copy

from convnets import bugs, diagnosis, losses, models
from convnets.diagnosis import FirstNonFinite, diagnose

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest

DIGITS = bugs.digits(32, 1)[0]


def photos(n=16, size=16):
    """Images (n, 3, size, size) that differ by class, and their labels."""
    t = np.arange(n, dtype=np.int32) % 10
    numbers = np.random.RandomState(0)
    x = numbers.rand(n, 3, size, size) + numbers.rand(10, 3, size, size)[t] - 1
    return x.astype(np.float32), t


def found(build, x=DIGITS[0], t=DIGITS[1], **options):
    """The diagnosis of a model built with seed 0."""
    np.random.seed(0)
    return diagnose(build(), x, t, **options)


def faults(diagnosis):
    return {finding.check: finding for finding in diagnosis.faults}


# ---- healthy networks --------------------------------------------------------------------------

@pytest.mark.parametrize("build", [*models.lenet5.FORMS.values(), bugs.Net, models.VGGSmall])
def test_a_healthy_network_for_digits_passes(build):
    result = found(build)
    assert result.ok, result


@pytest.mark.parametrize("build", [models.ResNet20, models.Plain20,
                                   lambda: models.VGGSmall(in_shape=(3, 16, 16))])
def test_a_healthy_network_for_photographs_passes(build):
    result = found(build, *photos())
    assert result.ok, result


def test_a_classifier_with_the_right_loss_passes_and_the_stock_one_does_not():
    assert found(lambda: losses.Classifier(models.LeNet5())).ok
    wrong = faults(found(lambda: L.Classifier(models.LeNet5())))
    assert wrong.keys() == {"loss in test mode"}
    assert "second softmax" in wrong["loss in test mode"].advice


def test_a_network_whose_shapes_are_left_to_the_first_call_passes():
    def build():
        return chainer.Sequential(L.Convolution2D(None, 8, 5, 2), F.relu, L.Linear(None, 10))
    assert found(build).ok


def test_a_trained_network_is_recognised():
    model, _ = bugs.train(bugs.BUGS["healthy"], *DIGITS, steps=60, batch=16)
    (first,) = [f for f in diagnose(model, *DIGITS).findings if f.check == "first loss"]
    assert first.ok and "learned already" in first.got


# ---- planted bugs ------------------------------------------------------------------------------

@pytest.mark.parametrize(("name", "checks", "words"), [
    ("two softmaxes", {"scores", "one minibatch"}, ["1.4612", "1.46 at best"]),
    ("layers in a list", {"links"}, ["self.convs[0], self.convs[1]", "33,256", "ChainList"]),
    ("graph cut", {"gradients"}, ["bn1/beta", "conv1/W", "and 2 more", "`.array`"]),
    ("weights too large", {"first loss"}, ["near ln 10 = 2.30", "HeNormal"]),
    ("wrong backward", {"slopes"}, ["4 of 5", "behind fc4/W", "check_backward"]),
    ("always training", {"test mode", "neighbours"}, ["bn1/avg_mean, bn1/avg_var"]),
])
def test_a_planted_bug_is_found_by_its_own_checks(name, checks, words):
    result = found(bugs.BUGS[name].build)
    assert faults(result).keys() == checks, result
    for word in words:
        assert word in str(result)


@pytest.mark.parametrize("name", ["labels apart", "gradients add up"])
def test_bugs_outside_the_network_are_not_blamed_on_it(name):
    assert found(bugs.BUGS[name].build).ok


class Dead(bugs.Net):
    def maps(self, x):
        return super().maps(x) * 0


class Unused(bugs.Net):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.extra = L.Linear(120, 84)


class OverTheBatch(bugs.Net):
    def forward(self, x):
        h = super().forward(x)
        return h - F.broadcast_to(F.mean(h, axis=0, keepdims=True), h.shape)


class Noise(bugs.Net):
    def forward(self, x):
        return super().forward(x * np.random.uniform(0.5, 1.5, x.shape).astype(np.float32))


class Divides(bugs.Net):
    def maps(self, x):
        h = super().maps(x)
        return h / F.sum(h * 0)


class Sigmoid(bugs.Net):
    def forward(self, x):
        return F.sigmoid(super().forward(x))


class ScaledGradient(bugs.Net):
    """A backward pass with a factor too much, in front of the last layer only."""

    def maps(self, x):
        class Twice(chainer.FunctionNode):
            def forward(self, inputs):
                return inputs[0] * 1,

            def backward(self, indexes, grads):
                return grads[0] * 2,
        return Twice().apply((super().maps(x),))[0]


@pytest.mark.parametrize(("build", "check", "words"), [
    (Dead, "gradients", ["exactly 0 for", "conv1/W"]),
    (Unused, "gradients", ["none for", "extra/W", "never called"]),
    (OverTheBatch, "neighbours", ["axis=0"]),
    (Noise, "test mode", ["two equal calls differ"]),
    (Divides, "finite numbers", ["the loss is nan", "FirstNonFinite"]),
    (Sigmoid, "one minibatch", ["between 0 and 1", "1.4612"]),
    (ScaledGradient, "slopes", ["2 of 5", "behind conv2/W", "0.50 of"]),
])
def test_other_bugs(build, check, words):
    wrong = faults(found(build))
    assert check in wrong, wrong
    for word in words:
        assert word in str(wrong[check])


def test_a_minibatch_of_one_class():
    x, t = DIGITS
    wrong = faults(found(models.LeNet5, x, np.zeros_like(t)))
    assert "Shuffle" in wrong["labels"].advice


def test_frozen_layers_are_named_and_no_fault():
    np.random.seed(0)
    model = bugs.Net()
    chainer.optimizers.Adam().setup(model)
    model.conv1.disable_update()
    result = diagnose(model, *DIGITS)
    assert result.ok and "frozen: conv1/W, conv1/b" in str(result)
    assert not model.conv1.W.update_rule.enabled


def test_neither_the_model_nor_the_random_state_changes():
    np.random.seed(3)
    model = bugs.AlwaysTraining()
    before = {path: np.array(a) for path, a in diagnosis._state(model).items()}
    np.random.seed(5)
    expected = np.random.RandomState(5).rand()
    first = str(diagnose(model, *DIGITS))
    assert np.random.rand() == expected
    assert str(diagnose(model, *DIGITS)) == first
    for path, array in diagnosis._state(model).items():
        assert np.array_equal(array, before[path])


@pytest.mark.parametrize(("x", "t", "words"), [
    (DIGITS[0][:1], DIGITS[1][:1], "at least 2 images"),
    (DIGITS[0], DIGITS[1].tolist(), "NumPy arrays are needed, got ndarray and list"),
    (DIGITS[0], DIGITS[1][:5], r"t \(5,\)"),
    ((DIGITS[0] * 255).astype(np.uint8), DIGITS[1], "uint8"),
    (DIGITS[0], DIGITS[1].astype(np.float32), "astype"),
    (DIGITS[0], DIGITS[1] + 7, "labels must lie in 0..9"),
])
def test_bad_minibatches(x, t, words):
    with pytest.raises(ValueError, match=words):
        found(bugs.Net, x, t)


def test_a_model_that_gives_no_scores():
    with pytest.raises(ValueError, match=r"scores \(N, K\) as a Variable"):
        found(lambda: chainer.Sequential(L.Convolution2D(1, 3, 5)))


def test_text_and_html_say_the_same():
    result = found(bugs.TwoSoftmaxes)
    page = result._repr_html_()
    for finding in result.findings:
        assert finding.check in page and finding.check in str(result)
    assert str(result).startswith("TwoSoftmaxes: 2 of 11 checks failed")
    assert page.count("✗") == 2 and page.count("<li>") == 9 and "passed: 9" in page


# ---- flow and overfit --------------------------------------------------------------------------

def test_flow_is_what_backward_gives():
    np.random.seed(0)
    model = bugs.Net()
    rows = {row["name"]: row for row in diagnosis.flow(model, *DIGITS)}
    twin = copy.deepcopy(model)
    twin.cleargrads()
    F.softmax_cross_entropy(twin(DIGITS[0][:16]), DIGITS[1][:16]).backward()
    assert next(iter(rows)) == "conv1/W" and len(rows) == 12
    for path, param in twin.namedparams():
        row = rows[path[1:]]
        assert np.isclose(row["gradient"], np.linalg.norm(param.grad), rtol=1e-5)
        if row["weight"]:
            assert np.isclose(row["step"], row["gradient"] / row["weight"])


def test_slopes_are_one_and_a_factor_shows():
    np.random.seed(0)
    ratios = diagnosis.slopes(bugs.Net(), *DIGITS)
    assert [*ratios] == [f"{name}/W" for name in ("conv1", "conv2", "conv3", "fc4", "fc5")]
    assert all(abs(ratio - 1) < 0.05 for ratio in ratios.values()), ratios
    np.random.seed(0)
    halves = diagnosis.slopes(ScaledGradient(), *DIGITS)
    assert all(abs(2 * halves[name] - ratios[name]) < 0.05 for name in ("conv1/W", "conv2/W"))


def test_slopes_of_noise():
    generator = np.random.default_rng(0)

    class Unseeded(bugs.Net):
        def forward(self, x):
            return super().forward(x) * generator.uniform(0.5, 1)

    with pytest.raises(ValueError, match="noise"):
        diagnosis.slopes(Unseeded(), *DIGITS)
    (finding,) = [f for f in found(Unseeded).findings if f.check == "slopes"]
    assert finding.ok and "not checked" in finding.got


def test_overfit_learns_a_minibatch_and_stops():
    np.random.seed(0)
    model = bugs.Net()
    seen = diagnosis.overfit(model, DIGITS[0][:8], DIGITS[1][:8])
    assert seen[-1] < 0.03 and len(seen) < 150


# ---- the first infinity ------------------------------------------------------------------------

def test_first_non_finite_forward_names_the_function_before_debug_mode_does():
    x = chainer.Variable(np.float32([[100, 1]]))

    def by_hand(x):
        e = F.exp(x)
        return e / F.broadcast_to(F.sum(e, axis=1, keepdims=True), e.shape)

    with np.errstate(all="ignore"):
        with chainer.using_config("debug", True), pytest.raises(RuntimeError, match="_ / _"):
            by_hand(x)
        with FirstNonFinite(), pytest.raises(FloatingPointError, match="exp gives inf") as error:
            by_hand(x)
    assert "(1, 2) from 1 to 100" in str(error.value)
    with FirstNonFinite():
        assert by_hand(x / 10).array[0, 0] > 0.9


def test_first_non_finite_backward():
    x = chainer.Variable(np.float32([0, 1]))
    with np.errstate(all="ignore"), FirstNonFinite():
        y = F.sum(F.sqrt(x))
        with pytest.raises(FloatingPointError, match="gives inf in the backward pass of sqrt"):
            y.backward()


def test_first_non_finite_leaves_numbers_alone():
    np.random.seed(0)
    grads = []
    for hook in (FirstNonFinite, lambda: np.errstate()):
        np.random.seed(0)
        model = bugs.Net()
        model.cleargrads()
        with hook():
            F.softmax_cross_entropy(model(DIGITS[0]), DIGITS[1]).backward()
        grads.append({path: p.grad for path, p in model.namedparams()})
    for path, grad in grads[0].items():
        assert np.array_equal(grad, grads[1][path])
