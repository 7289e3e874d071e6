"""The loss is computed from logits in both modes."""

from convnets.losses import Classifier, top_k_accuracy
from convnets.models import LeNet5

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest


@pytest.fixture
def batch():
    rng = np.random.RandomState(0)
    return rng.rand(16, 1, 28, 28).astype(np.float32), rng.randint(0, 10, 16).astype(np.int32)


@pytest.fixture
def model():
    np.random.seed(0)
    net = LeNet5()
    net.fc5.W.array *= 40   # confident, so that a second softmax shows
    return net


@pytest.mark.parametrize("train", [True, False])
def test_loss_is_that_of_the_logits(train, model, batch):
    x, t = batch
    expected = F.softmax_cross_entropy(model.logits(x), t).array
    with chainer.using_config("train", train):
        assert Classifier(model)(x, t).array == expected


def test_train_mode_equals_chainers_classifier(model, batch):
    x, t = batch
    with chainer.using_config("train", True):
        assert Classifier(model)(x, t).array == L.Classifier(model)(x, t).array


def test_chainers_classifier_shows_the_double_softmax_in_test_mode(model, batch):
    low, high = np.log(np.e + 9) - 1, np.log(np.e + 9)
    with chainer.using_config("train", False):
        shown = float(L.Classifier(model)(*batch).array)
        true = float(Classifier(model)(*batch).array)
    assert low <= shown <= high
    assert not low <= true <= high
    assert f"{low:.4f} {high:.4f}" == "1.4612 2.4612"


def test_reports_loss_accuracy_and_top_k(model, batch):
    target = Classifier(model, top_k=(1, 3))
    reporter = chainer.Reporter()
    reporter.add_observer("main", target)
    with reporter:
        loss = target(*batch)
    seen = reporter.observation
    y = model.logits(batch[0])
    assert seen["main/loss"].array == loss.array
    assert seen["main/accuracy"].array == F.accuracy(y, batch[1]).array
    assert seen["main/accuracy_top1"] == pytest.approx(float(seen["main/accuracy"].array))
    assert seen["main/accuracy_top3"] == pytest.approx(np.mean(
        [t in np.argsort(row)[-3:] for row, t in zip(y.array, batch[1], strict=True)]))


def test_label_smoothing_is_cross_entropy_against_the_smoothed_target(model, batch):
    x, t = batch
    log_p = F.log_softmax(model.logits(x)).array.astype(np.float64)
    target = np.full((16, 10), 0.1 / 10)
    target[np.arange(16), t] += 0.9
    with chainer.using_config("train", True):
        loss = Classifier(model, label_smoothing=0.1)(x, t).array
    assert float(loss) == pytest.approx(-(target * log_p).sum(axis=1).mean(), rel=1e-5)
    with chainer.using_config("train", False):
        assert Classifier(model, label_smoothing=0.1)(x, t).array == Classifier(model)(x, t).array


def test_label_minus_one_is_ignored(model, batch):
    x, t = batch
    hidden = t.copy()
    hidden[8:] = -1
    for smoothing in (0.0, 0.1):
        target = Classifier(model, label_smoothing=smoothing)
        with chainer.using_config("train", True):
            some, half = target(x, hidden).array, target(x[:8], t[:8]).array
        assert float(some) == pytest.approx(float(half), rel=1e-5)
        assert float(target.accuracy.array) >= 0
    assert top_k_accuracy(model.logits(x), hidden, 2) == top_k_accuracy(
        model.logits(x[:8]), t[:8], 2)


def test_a_model_without_logits_is_called_as_it_is(batch):
    x, t = batch
    linear = L.Linear(784, 10)
    assert Classifier(linear)(x, t).array == F.softmax_cross_entropy(linear(x), t).array


@pytest.mark.parametrize("bad", [{"label_smoothing": 1.0}, {"label_smoothing": -0.1},
                                 {"top_k": (0,)}])
def test_bad_options(bad, model):
    with pytest.raises(ValueError, match="must be"):
        Classifier(model, **bad)


def test_top_k_beyond_the_classes():
    with pytest.raises(ValueError, match=r"1\.\.10"):
        top_k_accuracy(np.zeros((2, 10)), np.zeros(2, int), 11)


@pytest.mark.parametrize(("label", "message"), [
    (10, r"0\.\.9, .* 10 classes .* got 0\.\.10\. .*n_class=11"), (-2, r"got -2\.\.0")])
def test_labels_beyond_the_classes(label, message, model, batch):
    t = np.zeros(16, np.int32)
    t[3] = label
    with pytest.raises(ValueError, match=message):
        Classifier(model)(batch[0], t)
