"""Summaries count what is there and leave the model alone."""

import gc
import html.parser
import tracemalloc

from convnets import inspect, models
from convnets.inspect import graph, receptive_fields, summary

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest


@pytest.mark.parametrize("form", sorted(models.FORMS))
def test_lenet5(form):
    s = summary(models.FORMS[form](), (1, 1, 28, 28))
    with_weights = [r for r in s.rows if r.params]
    assert [r.params for r in with_weights] == [156, 2_416, 30_840, 10_164, 850]
    assert [r.out_shape for r in with_weights] == [
        (1, 6, 24, 24), (1, 16, 8, 8), (1, 120, 1, 1), (1, 84), (1, 10)]
    assert (s.params, s.macs) == (44_426, 281_640)


def test_batch_multiplies_work_and_memory_but_not_parameters():
    one, four = (summary(models.LeNet5(), (n, 1, 28, 28)) for n in (1, 4))
    assert (four.params, four.macs) == (one.params, 4 * one.macs)
    assert four.activation_bytes == 4 * one.activation_bytes
    assert one.activation_bytes == 4 * sum(np.prod(r.out_shape) for r in one.rows)


def test_three_axes_mean_one_image():
    assert str(summary(models.LeNet5(), (1, 28, 28))) == str(summary(models.LeNet5(),
                                                                     (1, 1, 28, 28)))


@pytest.mark.parametrize(("build", "shape"), [
    (models.LeNet5, (16, 1, 28, 28)), (models.VGGSmall, (16, 1, 28, 28)),
    (models.ResNet20, (8, 3, 32, 32)), (models.Plain20, (8, 3, 32, 32)),
    (models.ResNet50, (1, 3, 64, 64))])
def test_kept_bytes_are_what_a_forward_pass_leaves_allocated(build, shape):
    model = build()
    x = np.random.RandomState(0).rand(*shape).astype(np.float32)
    model.logits(x)  # allocates what is lazy
    gc.collect()
    tracemalloc.start()
    y = model.logits(x)
    gc.collect()
    allocated = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    kept = summary(model, shape).kept_bytes - x.nbytes + y.array.nbytes
    # Beside arrays there are Python's own objects: some kB for each of the layers.
    assert kept <= allocated < kept * 1.01 + 3_000 * len(summary(model, shape).rows)


@pytest.mark.parametrize(("build", "shape"), [
    (models.LeNet5, (2, 1, 28, 28)), (models.SqueezeNet, (1, 3, 64, 64)),
    (models.ResNet20, (2, 3, 32, 32)), (lambda: L.Convolution2D(4, 8, 3, groups=2), (1, 4, 9, 9)),
    (lambda: L.DilatedConvolution2D(3, 5, 3, 2, 2, 2), (1, 3, 19, 16))])
def test_rows_are_those_of_a_pass_that_computes_its_products(monkeypatch, build, shape):
    model = build()
    without = summary(model, shape)
    x = np.random.RandomState(0).rand(*shape).astype(np.float32)
    with chainer.using_config("train", False):
        after = getattr(model, "logits", model)(x).array
    assert after.any()               # products are computed again
    monkeypatch.setattr(inspect, "PRODUCTS", {})
    assert without == summary(model, shape)


def test_what_a_layer_keeps():
    rows = summary(models.LeNet5(), (1, 1, 28, 28)).rows
    conv, sigmoid, pool = rows[:3]
    assert conv.kept_bytes == 4 * 28 * 28          # its input; its output is of no use later
    assert sigmoid.kept_bytes == sigmoid.activation_bytes      # y (1 - y)
    assert pool.kept_bytes == 3 * pool.activation_bytes        # an index takes 8 bytes


class Branches(chainer.Chain):
    """Shared weights, groups, stride, deconvolution, dropout and a sum."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.a = L.Convolution2D(None, 8, 3, pad=1)
            self.grouped = L.Convolution2D(8, 8, 3, stride=2, pad=1, groups=4)
            self.up = L.Deconvolution2D(8, 4, 2, stride=2)
            self.bn = L.BatchNormalization(8)

    def forward(self, x):
        h = self.bn(self.a(x))
        h = F.dropout(h + self.grouped.copy()(F.concat([h, h], 2))[:, :, :4].array.mean())
        return self.up(self.grouped(self.grouped(h)))


def test_counts_of_groups_strides_deconvolution_and_shared_weights():
    s = summary(Branches(), (2, 3, 8, 8))
    rows = [(r.name, r.params, r.macs) for r in s.rows if r.name]
    assert rows == [
        ("a", 8 * 3 * 9 + 8, 2 * 64 * 8 * 3 * 9),
        ("bn", 16, 0),
        ("grouped", 8 * 2 * 9 + 8, 2 * 16 * 8 * 2 * 9),
        ("grouped", 0, 2 * 4 * 8 * 2 * 9),
        ("up", 8 * 4 * 4 + 4, 2 * 4 * 8 * 4 * 4),
    ]


def test_leaves_model_random_state_and_lazy_shapes_alone():
    model = Branches()
    np.random.seed(3)
    before = np.random.get_state()[1].copy()
    summary(model, (1, 3, 8, 8))
    assert np.array_equal(np.random.get_state()[1], before)
    assert model.a.W.array is None
    assert not model.bn.avg_mean.any() and model.bn.N == 0


def test_html_is_well_formed_and_the_same_twice():
    class Balance(html.parser.HTMLParser):
        depth = 0

        def handle_starttag(self, tag, attrs):
            self.depth += 1

        def handle_endtag(self, tag):
            self.depth -= 1
    text = summary(models.LeNet5(), (1, 28, 28))._repr_html_()
    parser = Balance()
    parser.feed(text)
    assert parser.depth == 0
    assert "281,640" in text
    assert text == summary(models.LeNet5(), (1, 28, 28))._repr_html_()


def test_bad_shape():
    with pytest.raises(ValueError, match=r"\(28, 28\)"):
        summary(models.LeNet5(), (28, 28))


def test_receptive_fields_of_lenet5():
    rows = receptive_fields(models.LeNet5(), (1, 28, 28))
    assert [(name, field, distance) for name, _, field, distance in rows] == [
        ("conv1", 5, 1), ("", 6, 2), ("conv2", 14, 2), ("", 16, 4), ("conv3", 28, 4)]


@pytest.mark.parametrize(("model", "name", "field"), [
    (models.VGG("vgg16", 10, (3, 32, 32), 8), "4/conv3", 196),    # as Araujo et al. 2019 have it
    (models.ResNet50(10, stem_pool="caffe"), "res5/2/conv1x1c", 483),
    (models.ResNet50(10, stem_pool="caffe", stride_in="3x3"), "res5/2/conv1x1c", 427)])
def test_receptive_fields_of_published_networks(model, name, field):
    rows = receptive_fields(model, (2, 3, 32, 32))
    assert {n: f for n, _, f, _ in rows}[name] == field


def test_receptive_field_is_where_the_gradient_is_not_zero():
    class Net(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.a = L.Convolution2D(1, 1, 3, pad=1, initialW=1)
                self.b = L.Convolution2D(1, 1, 3, stride=2, pad=1, initialW=1)
                self.c = L.DilatedConvolution2D(1, 1, 3, pad=2, dilate=2, initialW=1)

        def forward(self, x):
            h = self.a(x)
            return self.c(F.average_pooling_2d(self.b(h + x), 2, 2))
    net, x = Net(), chainer.Variable(np.zeros((1, 1, 64, 64), np.float32))
    F.sum(net(x)[:, :, 8, 8]).backward()
    rows_with_gradient = np.flatnonzero(x.grad[0, 0].any(axis=1))
    *_, (_, _, field, distance) = receptive_fields(net, (1, 64, 64))
    assert field == rows_with_gradient[-1] - rows_with_gradient[0] + 1
    assert distance == 4


def test_graph_of_a_bottleneck():
    block = models.BottleNeck(64, 64, 256, 2, proj=True)
    nodes = graph(block, (1, 64, 56, 56))
    assert nodes[0].kind == "input" and nodes[0].sources == ()
    by_name = {node.name: i for i, node in enumerate(nodes) if node.name}
    assert set(by_name) == {link.name for link in block.children()}
    assert nodes[by_name["conv1x1r"]].kind == "1 x 1 convolution, stride 2"
    assert nodes[by_name["conv3x3b"]].kind == "3 x 3 convolution"
    (joined,) = (node for node in nodes if node.kind == "sum")
    assert joined.sources == tuple(sorted((by_name["bn_r"], by_name["bn_c"])))
    assert joined.shape == nodes[-1].shape == (1, 256, 28, 28)
    identity = graph(models.BottleNeck(256, 64, 256), (1, 256, 28, 28))
    (joined,) = (node for node in identity if node.kind == "sum")
    assert 0 in joined.sources
