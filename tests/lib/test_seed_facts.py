"""What the book says about Chainer 7.8.1 itself: a change of stack must not make it untrue."""

import math
import threading
from functools import partial

from convnets import models

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainer.initializers import HeNormal
from chainer.utils import get_conv_outsize, type_check


def zeros(*shape):
    return np.zeros(shape, np.float32)


def noise(*shape):
    return np.random.RandomState(0).randn(*shape).astype(np.float32)


def pooled(pool, size, *args, **kwargs):
    return pool(zeros(1, 1, size, size), *args, **kwargs).shape[2]


def count(link):
    return sum(p.size for p in link.params() if p.is_initialized)


SIZES = {
    "convolution": (get_conv_outsize(28, 5, 1, 0), 24),
    "convolution drops the rest": (get_conv_outsize(28, 5, 2, 0), 12),
    "convolution, cover_all": (get_conv_outsize(28, 5, 2, 0, cover_all=True), 13),
    "same": (get_conv_outsize(224, 3, 1, 1), 224),
    "stem of ResNet": (get_conv_outsize(224, 7, 2, 3), 112),
    "dilated": (get_conv_outsize(28, 5, 1, 0, d=2), 20),
    "max pooling rounds up": (pooled(F.max_pooling_2d, 7, 2, 2), 4),
    "max pooling, cover_all=False": (pooled(F.max_pooling_2d, 7, 2, 2, cover_all=False), 3),
    "max pooling of 225": (pooled(F.max_pooling_2d, 225, 2, 2), 113),
    "225 elsewhere": (pooled(F.max_pooling_2d, 225, 2, 2, cover_all=False), 112),
    "padded stem pool": (pooled(F.max_pooling_2d, 112, 3, 2, 1), 57),
    "padded stem pool elsewhere": (pooled(F.max_pooling_2d, 112, 3, 2, 1, cover_all=False), 56),
    "tutorial's stem pool": (pooled(F.max_pooling_2d, 112, 2, 2), 56),
    "Caffe's stem pool": (pooled(F.max_pooling_2d, 112, 3, 2), 56),
    "max pooling of one pixel": (pooled(F.max_pooling_2d, 1, 2, 2), 1),
    "average pooling rounds down": (pooled(F.average_pooling_2d, 7, 2, 2), 3),
}


@pytest.mark.parametrize(("got", "expected"), SIZES.values(), ids=SIZES)
def test_output_size(got, expected):
    assert got == expected


def test_one_pixel_cannot_be_pooled_without_cover_all():
    with pytest.raises(AssertionError, match="positive"):
        pooled(F.max_pooling_2d, 1, 2, 2, cover_all=False)


@pytest.mark.parametrize("n_class, low", [(10, 1.4612), (1000, 5.9095)])
def test_second_softmax_confines_the_loss(n_class, low):
    certain = np.eye(n_class, dtype=np.float32)[:1]
    losses = [F.softmax_cross_entropy(certain, np.array([t])).item() for t in (0, 1)]
    assert losses == pytest.approx([low, low + 1], abs=5e-5)


def test_sigmoid_on_the_scores_confines_the_probability():
    best = F.softmax(F.sigmoid(np.float32([[99] + [-99] * 9]))).array.max()
    assert best == pytest.approx(math.e / (math.e + 9), rel=1e-6) == pytest.approx(0.2320, abs=5e-5)


@pytest.mark.parametrize("activation", [F.relu, F.sigmoid])
def test_activation_and_max_pooling_commute_exactly(activation):
    x, pool = noise(2, 3, 9, 9), partial(F.max_pooling_2d, ksize=2, stride=2)
    assert np.array_equal(pool(activation(x)).array, activation(pool(x)).array)


def test_batch_normalization_defaults_and_unbiased_running_variance():
    bn, x = L.BatchNormalization(3), noise(4, 3, 2, 2)
    assert (bn.decay, bn.eps) == (0.9, 2e-5)
    bn(x)
    variance = x.var(axis=(0, 2, 3), ddof=1)
    np.testing.assert_allclose(bn.avg_var, 0.9 * 1 + 0.1 * variance, rtol=1e-6)
    np.testing.assert_allclose(bn.avg_mean, 0.1 * x.mean(axis=(0, 2, 3)), rtol=1e-5)


@pytest.mark.parametrize(("option", "fan", "std"), [
    ({}, 3 * 49, 0.1166), ({"fan_option": "fan_out"}, 64 * 49, 0.0253)])
def test_he_normal(option, fan, std):
    w = zeros(64, 3, 7, 7)
    HeNormal(**option, rng=np.random.RandomState(0))(w)
    assert math.sqrt(2 / fan) == pytest.approx(std, abs=5e-5)
    assert w.std() == pytest.approx(std, rel=0.03)


def linears(n):
    return [L.Linear(4, 4) for _ in range(n)]


def order(container, links):
    return [links.index(child) for child in container.children()]


@pytest.mark.parametrize(("build", "expected"), [
    (lambda ls: chainer.Chain(**{f"l{i}": link for i, link in enumerate(ls)}),
     [0, 1, 10, 11, *range(2, 10)]),
    (lambda ls: chainer.ChainList(*ls), [*range(12)]),
    (lambda ls: chainer.Sequential(*ls), [0, *range(11, 0, -1)]),
], ids=["Chain by name", "ChainList as added", "Sequential scrambled"])
def test_order_of_children(build, expected):
    links = linears(12)
    assert order(build(links), links) == expected


def test_sequential_runs_in_order_but_its_file_loads_in_another(tmp_path):
    seq, target, x = chainer.Sequential(*linears(4)), chainer.ChainList(*linears(4)), noise(2, 4)
    h = x
    for link in seq:
        h = link(h)
    assert np.array_equal(seq(x).array, h.array)
    chainer.serializers.save_npz(tmp_path / "m.npz", seq)
    chainer.serializers.load_npz(tmp_path / "m.npz", target)
    found = [i for link in target for i in range(4) if np.array_equal(link.W.array, seq[i].W.array)]
    assert found == [0, 3, 2, 1]


def test_sequential_slices_to_a_list_and_chokes_on_partial():
    seq = chainer.Sequential(L.Linear(4, 4), partial(F.max_pooling_2d, ksize=2))
    assert type(seq[:1]) is list
    for method in (seq.count_by_layer_type, seq.remove_by_layer_type):
        with pytest.raises(AttributeError):
            method("relu")


def test_list_form_needs_getattr_after_copy():
    model = models.LeNet5List()
    twin = model.copy()
    assert dict(twin.layers)["conv1"] is model.conv1
    assert twin.conv1 is not model.conv1


def vgg16():
    """Without activations, and weights are zeros: only shapes matter here."""
    conv, fc = (partial(kind, initialW=0) for kind in (L.Convolution2D, L.Linear))
    layers = []
    for n, n_convs in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        layers += [conv(n_in, n, 3, 1, 1) for n_in in [None] + [n] * (n_convs - 1)]
        layers += [partial(F.max_pooling_2d, ksize=2, stride=2)]
    return chainer.Sequential(*layers, fc(None, 4096), fc(4096, 4096), fc(4096, 1000))


def test_lazy_parameters_are_counted_after_the_first_call_only():
    net = vgg16()
    assert count(net) == 31_687_784
    with chainer.no_backprop_mode():
        net(zeros(1, 3, 32, 32))
    # From 32 x 32 pixels fc4 gets 512 x 1 x 1 inputs, from 224 x 224 it would get 512 x 7 x 7.
    assert count(net) == 138_357_544 - 4096 * 512 * (7 * 7 - 1)


def test_first_call_fixes_a_lazy_shape():
    fc = L.Linear(None, 3)
    fc(zeros(1, 512, 1, 1))
    assert fc.W.shape == (3, 512)
    with pytest.raises(type_check.InvalidType):
        fc(zeros(1, 512, 7, 7))


def test_running_mode_belongs_to_the_thread():
    seen = []
    with chainer.using_config("train", False):
        thread = threading.Thread(target=lambda: seen.append(chainer.config.train))
        thread.start()
        thread.join()
        assert chainer.config.train is False
    assert seen == [True]


def test_classifier_registers_its_predictor_as_a_child():
    model = L.Classifier(models.LeNet5())
    assert [child.name for child in model.children()] == ["predictor"]
    assert all(name.startswith("/predictor/") for name, _ in model.namedparams())


@pytest.mark.parametrize(("form", "first"), [
    ("chain", "conv1/W"), ("list", "conv1/W"), ("chainlist", "0/W"), ("sequential", "0/W")])
def test_names_in_an_npz(form, first, tmp_path):
    chainer.serializers.save_npz(tmp_path / "m.npz", models.FORMS[form]())
    assert min(np.load(tmp_path / "m.npz")) == first
