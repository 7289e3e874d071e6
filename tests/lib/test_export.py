"""ONNX files: what onnxruntime computes from them, what the package onnx says, what is refused."""

import importlib.util
import random
from functools import partial
from pathlib import Path

import convnets
from convnets import cli, export, models
from convnets.export import onnx_file, operators, to_onnx
from convnets.models.vgg import CONFIGS
from convnets.optimize import Tape
from convnets.pretrained.preprocess import SETTINGS

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import onnx
import pytest

NEAR = 1e-5      # of the largest output
assert convnets.export is export


def images(*shape, seed=0):
    return np.random.RandomState(seed).uniform(-1, 1, shape).astype(np.float32)


def randomized(model, seed=0):
    """Give batch normalizations statistics that change something."""
    random = np.random.RandomState(seed)
    for link in model.links():
        if isinstance(link, L.BatchNormalization):
            for array, low, high in ((link.avg_mean, -0.2, 0.2), (link.avg_var, 0.5, 1.5),
                                     (link.gamma.array, 0.5, 1.5), (link.beta.array, -0.2, 0.2)):
                array[...] = random.uniform(low, high, array.shape)
    return model


def written(model, x, path, **options):
    """Export, check with the package onnx and onnxruntime, and return report and graph."""
    report = export.onnx(model, x, path, **options)
    onnx.checker.check_model(str(path), full_check=True)
    assert report.distances.keys() == ({len(x)} if options.get("fixed") else {1, 3})
    assert max(report.distances.values()) <= NEAR
    return report, export.read(path)


MODELS = {
    **{name: (build, (1, 28, 28)) for name, build in models.FORMS.items()},
    "list, extra layers": (lambda: models.LeNet5List(sigm5=True, mpool3=True), (1, 28, 28)),
    "vgg16": (lambda: models.VGG(
        [(n // 8, convs) for n, convs in CONFIGS["vgg16"]], 10, (3, 45, 37), 32), (3, 45, 37)),
    "vgg small": (models.VGGSmall, (1, 28, 28)),
    "resnet20": (models.ResNet20, (3, 33, 31)),
    "plain20": (models.Plain20, (3, 32, 32)),
    "squeezenet": (lambda: models.SqueezeNet(10), (3, 66, 61)),
    **{f"resnet50 {stride} {pool}": (
        lambda stride=stride, pool=pool: models.ResNet50(
            10, stride_in=stride, stem_pool=pool, stem_bias=stride == "3x3", width=1 / 8),
        (3, 65, 74)) for stride, pool in (("1x1", "tutorial"), ("1x1", "caffe"), ("3x3", "torch"))},
}


@pytest.mark.parametrize("name", MODELS)
def test_models_of_the_library(name, tmp_path):
    build, shape = MODELS[name]
    np.random.seed(0)
    model = randomized(build())
    report, graph = written(model, images(2, *shape), tmp_path / "model.onnx")
    ours = {path[1:]: p.array for path, p in model.namedparams()}
    assert all(np.array_equal(graph.arrays[path], array) for path, array in ours.items())
    assert graph.inputs == {"images": ("N", *shape)} and graph.outputs == {"scores": ("N", 10)}
    assert graph.opset == report.opset == 17
    assert report.n_bytes == (tmp_path / "model.onnx").stat().st_size
    for text in (f"{report.n_bytes:,} bytes", "opset 17", f"(N, {', '.join(map(str, shape))})",
                 "compared with onnxruntime: "):
        assert text in str(report)


class Net(chainer.Chain):
    """A convolution, then a function."""

    def __init__(self, function, **links):
        super().__init__()
        with self.init_scope():
            self.conv = L.Convolution2D(3, 6, 3)
            for name, link in links.items():
                setattr(self, name, link)
        self.function = function

    def forward(self, x):
        return self.function(self, self.conv(x))      # (N, 6, 9, 8) of (N, 3, 11, 10)


FUNCTIONS = {
    "relu": lambda net, h: F.relu(h),
    "leaky": lambda net, h: F.leaky_relu(h, 0.3),
    "elu": lambda net, h: F.elu(h, 0.7),
    "clipped": lambda net, h: F.clipped_relu(h, 0.4),
    "sigmoid, tanh": lambda net, h: F.sigmoid(h) + F.tanh(h),
    "softmax": lambda net, h: F.softmax(h) + F.log_softmax(h, axis=-1),
    "dropout": lambda net, h: F.dropout(F.identity(h), 0.9),
    "max": lambda net, h: F.max_pooling_2d(h, 3, 2, 1),
    "max, floor": lambda net, h: F.max_pooling_2d(h, (2, 3), 2, cover_all=False),
    "max, 4 by 3": lambda net, h: F.max_pooling_2d(h, 4, 3),
    "average": lambda net, h: F.average_pooling_2d(h, 3, 2, 1),
    "average, nd": lambda net, h: F.average_pooling_nd(h, 3, 2, 1, pad_value=None)
                                + F.average_pooling_nd(h, 3, 2, 1),
    "global": lambda net, h: F.average_pooling_2d(h, h.shape[2:]),
    "mean": lambda net, h: F.mean(h, axis=(2, -1)),
    "sum, max": lambda net, h: F.sum(h, axis=-1) + F.max(h, axis=3) + F.max(h, (3,), True)[..., 0:1]
                             .reshape(h.shape[:3]),
    "lrn": lambda net, h: F.local_response_normalization(h, 3, 1.5, 0.2, 0.6),
    "lrn, even": lambda net, h: F.local_response_normalization(h, 4, 2, 0.3),
    "reshape": lambda net, h: F.reshape(h, (h.shape[0], -1)),
    "reshape, all": lambda net, h: F.reshape(F.reshape(h, (-1, 8)), (-1, 6, 9, 8)),
    "flatten by hand": lambda net, h: F.reshape(h, (len(h), 6 * 9 * 8)),
    "axes": lambda net, h: F.squeeze(F.expand_dims(h, 2), (2,)),
    "transpose": lambda net, h: F.transpose(h, (0, 2, -1, 1)),
    "swap": lambda net, h: F.swapaxes(h, 1, -1),
    "slice": lambda net, h: h[:, 1:, ::2, -5:7] + h[:, -5:, 0:9:2, 3:7],
    "slice of all": lambda net, h: h[...] + h[:],
    "pad": lambda net, h: F.pad(h, ((0, 0), (1, 2), (0, 0), (3, 1)), "constant"),
    "pad, value": lambda net, h: F.pad(h, ((0, 0), (0, 0), (2, 2), (0, 1)), "constant",
                                       constant_values=0.5),
    "concat": lambda net, h: F.concat([h, -h, h * 2], axis=-1),
    "concat zeros": lambda net, h: F.concat(
        [net.xp.zeros((len(h), 2, 9, 8), "f"), h, net.xp.zeros((len(h), 1, 9, 8), "f")]),
    "split": lambda net, h: F.concat(F.split_axis(h, 3, 1)[::-1] + F.split_axis(h, [1, 4], 1)),
    "arithmetic": lambda net, h: (1 - h) * h / (2 + F.exp(h)) - 0.5 / (h * h + 1) - (-h),
    "three": lambda net, h: F.add(h, h * 2, h * h),
    "constant": lambda net, h: h + np.arange(8, dtype="f"),
    "row": lambda net, h: h + np.ones((len(h), 1, 1, 8), "f") * np.float32(0.3),
    "gate": lambda net, h: h * F.broadcast_to(
        F.sigmoid(F.mean(h, axis=(2, 3), keepdims=True)), h.shape),
    "unused": lambda net, h: (F.tanh(h), F.relu(h))[1],
}
LINKS = {
    "groups": L.Convolution2D(6, 4, 3, 2, 1, groups=2),
    "dilated": L.Convolution2D(6, 4, (3, 2), (1, 2), (2, 1), dilate=(2, 3), nobias=True),
    "cover_all": L.Convolution2D(6, 4, 2, 3),
    "depthwise": L.DepthwiseConvolution2D(6, 2, 3, pad=1),
    "nd": L.ConvolutionND(2, 6, 4, 3, 2, 1),
    "deconvolution": L.Deconvolution2D(6, 4, 3, 2, 1),
    "deconvolution, outsize": L.Deconvolution2D(6, 4, 3, 2, 1, outsize=(18, 16)),
    "deconvolution, groups": L.Deconvolution2D(6, 4, 4, 2, 0, groups=2, outsize=(20, 18)),
    "deconvolution, cut": L.Deconvolution2D(6, 4, 4, 2, 1, outsize=(17, 15)),
    "linear": L.Linear(6 * 9 * 8, 5),
    "linear, no bias": L.Linear(6 * 9 * 8, 5, nobias=True),
    "bn": L.BatchNormalization(6, eps=0.01),
    "bn, plain": L.BatchNormalization(6, use_gamma=False, use_beta=False),
}
CASES = {**FUNCTIONS, **dict.fromkeys(LINKS, lambda net, h: net.link(h)),
         "conv covering all": lambda net, h: F.convolution_2d(
             h, net.link.W, stride=3, cover_all=True)}


def net_of(case):
    link = LINKS.get(case, LINKS["cover_all"] if case == "conv covering all" else None)
    net = Net(CASES[case], **({"link": link.copy("copy")} if link else {}))
    for i, (_, p) in enumerate(sorted(net.namedparams())):
        p.array[...] = images(*p.shape, seed=i + 1)
    return net


@pytest.mark.parametrize("case", CASES)
def test_functions(case, tmp_path):
    written(net_of(case), images(2, 3, 11, 10), tmp_path / "net.onnx")


def test_every_function_that_is_known_was_tried():
    met = set()
    for case in CASES:
        x = images(1, 3, 11, 10)
        with chainer.using_config("train", False), Tape(x) as tape:
            net_of(case)(x)
        met |= {type(op.node) for op in tape.ops}
    assert met == set(operators.OPERATORS) and len(operators.known()) == len(met)


def test_the_api_page_lists_every_function_that_is_known():
    page = (Path(__file__).parents[2] / "book/appendix/api/export.md").read_text()
    rows = [row.split("|")[2] for row in page.splitlines() if row.startswith("| ")][1:]
    listed = [name.strip() for row in rows for name in row.split(",")]
    assert sorted(listed) == operators.known()


def random_net(seed):
    """A network of random layers for odd sizes, with its images."""
    choose = random.Random(seed)
    steps, n_in = [], 3
    for stride in choose.choice([[1, 1], [2, 1], [2, 1, 1]]):
        n_out, k = choose.choice([2, 4, 6]), choose.choice([1, 2, 3])
        groups = choose.choice([1, 2]) if n_in % 2 == 0 else 1
        steps.append(L.Convolution2D(n_in, n_out, k, stride, k // 2, groups=groups))
        if choose.random() < 0.5:
            steps.append(L.BatchNormalization(n_out))
        steps.append(choose.choice([F.relu, F.tanh, F.sigmoid, F.leaky_relu]))
        k, pad, cover_all = choose.choice([2, 3]), choose.choice([0, 1]), choose.random() < 0.5
        steps.append(choose.choice([
            F.relu, partial(F.max_pooling_2d, ksize=k, stride=2, pad=pad, cover_all=cover_all),
            partial(F.average_pooling_2d, ksize=k, stride=2, pad=pad)]))
        n_in = n_out
    net = randomized(chainer.Sequential(*steps, L.Linear(None, 3)), seed)
    return net, images(2, 3, choose.randint(33, 43), choose.randint(33, 43), seed=seed)


@pytest.mark.parametrize("seed", range(12))
def test_random_networks(seed, tmp_path):
    np.random.seed(seed)
    net, x = random_net(seed)
    with chainer.using_config("train", False):
        net(x)
    written(net, x, tmp_path / "net.onnx")


def refused(net, tmp_path, x=None, **options):
    """Export what must be refused, and return the message; nothing may be left."""
    path = tmp_path / "net.onnx"
    path.write_bytes(b"the file of before")
    with pytest.raises(export.ExportError) as caught:
        export.onnx(net, images(2, 3, 11, 10) if x is None else x, path, **options)
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]
    assert path.read_bytes() == b"the file of before"
    return str(caught.value)


def test_an_unknown_function_is_named_with_its_place(tmp_path):
    inner = Net(lambda net, h: F.sin(h))
    message = refused(chainer.Sequential(Net(lambda net, h: F.relu(h[:, :3])), inner), tmp_path)
    assert message.startswith("sin in 1 cannot be written as ONNX; known are Add, AddConstant, ")
    assert "MaxPoolingND" in message and "call=" in message
    assert "ReLU in the model itself" not in message


@pytest.mark.parametrize("function, said", [
    (lambda net, h: F.matmul(h, h, transb=True), "MatMul in the model itself"),
    (lambda net, h: h * h.array.mean(), "Mul reads an array that is no constant"),
    (lambda net, h: h + np.arange(len(h), dtype="f").reshape(-1, 1, 1, 1),
     "of shape (2, 1, 1, 1) for 2 images, and of (3, 1, 1, 1) for 3"),
    (lambda net, h: F.concat([h, np.ones((len(h), 1, 9, 8), "f")]), "no constant"),
    (lambda net, h: F.concat([h, np.zeros((len(h), 1, 9, 8), "f"), h]), "more than one other"),
    (lambda net, h: h / (len(h) + 0.5), "reads an array that is no constant"),
    (lambda net, h: h[:, 0], "only ranges such as"),
    (lambda net, h: h[:, ::-1], "only ranges such as"),
    (lambda net, h: h[:len(h) - 1], "no constant"),
    (lambda net, h: F.pad(h, ((0, 0), (0, 0), (1, 1), (1, 1)), "reflect"), "pads by reflect"),
    (lambda net, h: F.max_pooling_2d(h, 1, 3), "lies outside"),
    (lambda net, h: F.reshape(h, (-1, 8)), "expected one row for each image"),
    (lambda net, h: F.relu(h) if len(h) == 2 else F.tanh(h), "another way"),
    (lambda net, h: F.relu(h) if h.array.sum() > 0 else F.tanh(F.relu(h)), "another way"),
    (lambda net, h: F.leaky_relu(h, len(h) / 10), "options depend on the images"),
    (lambda net, h: (F.relu(h), h), "got tuple"),
    (lambda net, h: chainer.Variable(h.array * 2), "leaves no trace"),
    (lambda net, h: F.reshape(h, (len(h), 1, len(h), -1)), "no rule of ONNX says"),
    (lambda net, h: net.bn(h), "normalizes the axes"),
    (lambda net, h: in_train_mode(F.dropout, h), "Dropout in the model itself"),
])
def test_what_a_file_could_not_say_is_refused(function, said, tmp_path):
    net = Net(function, bn=L.BatchNormalization((6, 9, 8), axis=0))
    assert said in refused(net, tmp_path)


def in_train_mode(function, h):
    with chainer.using_config("train", True):
        return function(h)


def test_images_and_parameters_are_checked(tmp_path):
    net = net_of("relu")
    assert "got float64 of shape (2, 3, 11, 10)" in refused(net, tmp_path, np.zeros((2, 3, 11, 10)))
    assert "got list" in refused(net, tmp_path, [1.0])
    assert "with at least one" in refused(net, tmp_path, images(0, 3, 11, 10))
    lazy = Net(lambda net, h: net.fc(h), fc=L.Linear(None, 2))
    assert "/fc/W has no shape yet" in refused(lazy, tmp_path)
    with chainer.using_config("dtype", np.float64):
        double = Net(lambda net, h: h)
    assert "is float64; only float32" in refused(double, tmp_path)
    assert "model.predictor" in refused(L.Classifier(net), tmp_path)
    weightless = chainer.Sequential(F.relu)
    assert "no weights" in refused(weightless, tmp_path)


def test_a_fixed_batch_is_frozen_to_a_number(tmp_path):
    net, x = net_of("flatten by hand"), images(2, 3, 11, 10)
    written(net, x, tmp_path / "free.onnx")
    _, fixed = written(net, x, tmp_path / "fixed.onnx", fixed=True)
    assert fixed.inputs == {"images": (2, 3, 11, 10)}
    assert [a.tolist() for a in fixed.arrays.values() if a.dtype == np.int64] == [[2, 432]]
    free = export.read(tmp_path / "free.onnx")
    assert [a.tolist() for a in free.arrays.values() if a.dtype == np.int64] == [[-1, 432]]


def test_the_model_and_its_mode_stay(tmp_path):
    model = models.ResNet20()
    before = {name: a.copy() for name, a in model.__dict__["bn1"].__dict__.items()
              if isinstance(a, np.ndarray)}
    state = np.random.get_state()[1].copy()
    assert chainer.config.train
    export.onnx(model, images(2, 3, 32, 32), tmp_path / "m.onnx")
    assert chainer.config.train and np.array_equal(np.random.get_state()[1], state)
    assert all(np.array_equal(getattr(model.bn1, name), a) for name, a in before.items())


def test_the_call_and_the_preprocessing_go_with_the_file(tmp_path):
    model = models.LeNet5()
    model.preprocessing = SETTINGS["torchvision"]
    _, graph = written(model, images(2, 1, 28, 28), tmp_path / "p.onnx", call=model)
    assert graph.nodes[-1].op == "Softmax" and graph.nodes[-1].outputs == ["scores"]
    assert '"mean": [0.485, 0.456, 0.406]' in graph.metadata["preprocessing"]
    found = onnx.load(tmp_path / "p.onnx")
    assert {e.key for e in found.metadata_props} == {"preprocessing"}
    assert found.producer_name == "convnets" and found.opset_import[0].version == 17


def test_the_file_is_what_the_package_onnx_would_write(tmp_path):
    """Each number and text, by another reader than ours."""
    net = net_of("deconvolution, outsize")
    report, graph = written(net, images(2, 3, 11, 10), tmp_path / "n.onnx")
    found = onnx.load(tmp_path / "n.onnx")
    assert [(n.op_type, n.name, list(n.input), list(n.output)) for n in found.graph.node] == [
        (n.op, n.name, n.inputs, n.outputs) for n in graph.nodes]
    assert [{a.name: onnx.helper.get_attribute_value(a) for a in n.attribute}
            for n in found.graph.node] == [n.attributes for n in graph.nodes]
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in found.graph.initializer}
    assert arrays.keys() == graph.arrays.keys() == {"conv/W", "conv/b", "link/W", "link/b"}
    assert all(np.array_equal(arrays[n], graph.arrays[n]) for n in arrays)
    again = onnx_file.encoded(graph)
    assert b"".join(again) == (tmp_path / "n.onnx").read_bytes()
    assert report.n_params == sum(a.size for a in arrays.values())


def test_attributes_of_every_kind(tmp_path):
    attributes = {"i": -3, "f": 0.25, "s": "constant", "is": [1, -2], "fs": [0.5, 2.0]}
    node = export.Node("Any", "n", ["x"], ["y"], attributes)
    graph = export.Graph([node], {"w": np.zeros((0, 2), "f"), "n": np.array([2**62, -1])},
                         {"x": ("N", 3)}, {"y": ()}, metadata={"über": "ß"})
    with (tmp_path / "g.onnx").open("wb") as file:
        onnx_file.write(file, graph)
    found = export.read(tmp_path / "g.onnx")
    assert found.nodes == [node] and found.metadata == {"über": "ß"}
    assert found.arrays["w"].shape == (0, 2) and found.arrays["n"].tolist() == [2**62, -1]
    assert found.inputs == {"x": ("N", 3)} and found.outputs == {"y": ()}


def test_too_large_for_the_format(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "LIMIT", 500)
    message = refused(net_of("relu"), tmp_path)
    assert "the format allows 500" in message and ".safetensors" in message


def test_without_onnxruntime_it_says_so(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec",
                        lambda name: None if name == "onnxruntime" else find(name))
    report = export.onnx(net_of("relu"), images(1, 3, 11, 10), tmp_path / "n.onnx")
    assert report.distances is None and "not compared: onnxruntime" in str(report)


def test_what_onnxruntime_computes_otherwise_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setitem(operators.OPERATORS, type(F.relu(images(1)).creator_node),
                        lambda node, shapes, outputs: ("Sigmoid", {}))
    assert "onnxruntime's outputs for 1 images differ by" in refused(net_of("relu"), tmp_path)


def test_what_is_no_onnx_file_is_not_read(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"nothing")
    with pytest.raises(export.ExportError, match=r"x\.onnx"):
        export.read(tmp_path / "x.onnx")
    np.savez(tmp_path / "x.npz", a=np.zeros(2))
    with pytest.raises(export.ExportError, match="format npz; expected ONNX"):
        export.read(tmp_path / "x.npz")


def test_command_line(tmp_path, capsys):
    np.random.seed(0)
    npz, target = tmp_path / "model.npz", tmp_path / "out/model.onnx"
    chainer.serializers.save_npz(npz, randomized(models.ResNet20()))
    argv = ["export", "resnet20", str(npz), str(target), "--size", "24", "--softmax"]
    assert cli.main(argv) == 0
    out = capsys.readouterr().out
    assert "images (N, 3, 24, 24) to scores (N, 10)" in out and "1 Softmax" in out
    run = to_onnx.session(target)
    x = images(5, 3, 24, 24)
    model = cli.load_npz(npz, models.ResNet20())
    with chainer.using_config("train", False):
        assert to_onnx.distance(run(x), model(x).array) < NEAR


@pytest.mark.parametrize("argv, said", [
    (["lenet5", "m.npz", "x.pt"], ".onnx or .safetensors, got .pt"),
    (["lenet5", "m.npz", "x"], "got none"),
    (["lenet5", "nothing.npz", "x.onnx"], "nothing.npz"),
    (["lenet5", "m.npz", "x.onnx", "--family", "timm"], "--family: not for a file that ends in"),
    (["lenet5", "m.npz", "x.safetensors", "--softmax"], "--softmax: not for a file"),
    (["lenet5", "m.npz", "x.onnx", "--size", "29"], "takes images of 28 x 28 only"),
    (["lenet5", "m.npz", "x.safetensors"], "known for VGG, ResNet, SqueezeNet"),
    (["resnet20", "m.npz", "x.onnx"], "does not hold the weights of ResNet20"),
    (["squeezenet", "auto", "x.onnx", "--size", "3"], "cannot compute with images of this size"),
    (["squeezenet", "auto", "x.onnx", "--size", "0"], "at least 1 pixel"),
])
def test_command_line_errors(argv, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    chainer.serializers.save_npz("m.npz", models.LeNet5())
    assert cli.main(["export", *argv]) == 1
    error = capsys.readouterr().err
    assert error.startswith("convnets: error: ") and said in error and error.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["m.npz"]
