"""Files of every family load and compute what onnxruntime computes with the same parameters."""

import json

import convnets
from convnets import models, pretrained
from convnets.pretrained import WeightsError, families, load_weights
from convnets.pretrained.transfer import model_arrays

import chainer
import numpy as np
import pytest
from layouts import (
    save_caffe,
    save_chainer,
    save_chainercv,
    save_chainercv2,
    save_huggingface,
    save_keras,
    save_torchvision,
    save_vgg_caffe,
    save_vgg_chainer,
    save_vgg_chainercv,
    save_vgg_chainercv2,
    save_vgg_keras,
    save_vgg_timm,
    save_vgg_torchvision,
)
from reference import resnet_graph, resnet_params, run, vgg_graph, vgg_params

BLOCKS = (3, 4, 6, 3)
WIDTH = 4                      # of 64 channels behind conv1
SHAPE = (2, 3, 64, 64)
X = np.random.default_rng(5).normal(size=SHAPE).astype(np.float32)
TORCH = {"stride_in": "3x3", "stem_pool": "torch", "bn_eps": 1e-5}
CAFFE = {"stride_in": "1x1", "stem_pool": "caffe", "bn_eps": 1e-5}

# family: how its file is written, and the options of the network it was trained as
RESNETS = {
    "torchvision": (save_torchvision, TORCH),
    "huggingface": (save_huggingface, TORCH),
    "keras": (save_keras, {"stride_in": "1x1", "stem_pool": "torch", "bn_eps": 1.001e-5}),
    "caffe": (save_caffe, CAFFE),
    "chainer": (save_chainer, CAFFE | {"bn_eps": 2e-5}),
    "chainercv": (save_chainercv, CAFFE | {"bn_eps": 2e-5}),
    "chainercv-fb": (save_chainercv, CAFFE | {"stride_in": "3x3", "bn_eps": 2e-5}),
    "chainercv2": (save_chainercv2, {"stride_in": "1x1", "stem_pool": "torch", "bn_eps": 1e-5}),
    "chainercv2-b": (save_chainercv2, TORCH),
}
# Their files do not tell them apart, so the family has to be named.
PAIRS = {"chainercv": "chainercv-fb", "chainercv-fb": "chainercv", "chainercv2": "chainercv2-b",
         "chainercv2-b": "chainercv2"}
VGGS = {"torchvision": save_vgg_torchvision, "timm": save_vgg_timm, "keras": save_vgg_keras,
        "caffe": save_vgg_caffe, "chainer": save_vgg_chainer, "chainercv": save_vgg_chainercv,
        "chainercv2": save_vgg_chainercv2}
CONFIG = ((4, 2), (6, 2), (8, 3), (8, 3), (8, 3))
ENDING = {"torchvision": "safetensors", "huggingface": "safetensors", "timm": "safetensors",
          "keras": "h5", "caffe": "caffemodel", **dict.fromkeys(("chainer", *PAIRS), "npz")}


def resnet(n_class=10, blocks=BLOCKS):
    return models.ResNet(blocks, n_class, width=WIDTH / 64)


def vgg(n_class=10):
    return models.VGG(CONFIG, n_class, in_shape=(3, 64, 64), hidden=12)


def scores(model):
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        return model.logits(X).array


def distance(got, expected):
    return abs(got - expected).max() / expected.std()


def with_conv_biases(params, every):
    """Keras has a bias in each convolution, the authors' ResNet-50 one in conv1."""
    rng = np.random.default_rng(1)
    names = [n for n in params if params[n].ndim == 4] if every else ["conv1.weight"]
    return params | {n.replace(".weight", ".bias"):
                     rng.normal(0, 0.3, len(params[n])).astype(np.float32) for n in names}


def resnet_file(folder, family, blocks=BLOCKS):
    """Write a file of a family; return its path and the scores it should give."""
    save, options = RESNETS[family]
    params = resnet_params(blocks, WIDTH)
    if family in ("keras", "caffe", "chainer", "chainercv"):
        params = with_conv_biases(params, every=family == "keras")
    path = folder / f"{family}.{ENDING[family]}"
    save(path, params, blocks)
    return path, run(resnet_graph(params, blocks, SHAPE, **options), X)


@pytest.mark.parametrize("family", RESNETS)
def test_resnet(family, tmp_path):
    path, expected = resnet_file(tmp_path, family)
    model = resnet()
    report = load_weights(model, path, family=family if family in PAIRS else None)
    assert (report.family, model.options) == (family, RESNETS[family][1])
    assert not report.new and not report.unused
    assert report.n_params == model.count_params()
    assert distance(scores(model), expected) < 1e-5
    assert model.preprocessing is not None


@pytest.mark.parametrize("family", RESNETS)
@pytest.mark.parametrize("wrong", [{"stride_in": "other"}, {"stem_pool": "other"},
                                   {"stem_pool": "tutorial"}, {"bn_eps": 1e-3}])
def test_each_wrong_option_is_far_off(family, wrong, tmp_path):
    path, expected = resnet_file(tmp_path, family)
    right = RESNETS[family][1]
    other = {"stride_in": {"1x1": "3x3", "3x3": "1x1"}, "stem_pool": {"torch": "caffe",
                                                                      "caffe": "torch"}}
    wrong = {name: other[name][right[name]] if value == "other" else value
             for name, value in wrong.items()}
    model = resnet()
    report = load_weights(model, path, options=wrong, family=family)   # and nothing is raised
    assert report.options.keys() <= {"stride_in", "stem_pool", "bn_eps"}
    assert distance(scores(model), expected) > 1e-3


@pytest.mark.parametrize(("family", "other"), PAIRS.items())
def test_a_family_that_the_names_do_not_tell_must_be_named(family, other, tmp_path):
    path, expected = resnet_file(tmp_path, family)
    model = resnet()
    with pytest.raises(WeightsError, match="more than one family") as e:
        load_weights(model, path)
    assert all(f"{name!r} ({{" in str(e.value) for name in (family, other))
    load_weights(model, path, family=other)
    assert distance(scores(model), expected) > 1e-3


@pytest.mark.parametrize("blocks", [(3, 4, 23, 3), (3, 8, 36, 3)])
@pytest.mark.parametrize("family", ["torchvision", "caffe", "chainer", "keras"])
def test_deeper_resnets(family, blocks, tmp_path):
    path, expected = resnet_file(tmp_path, family, blocks)
    model = resnet(blocks=blocks)
    load_weights(model, path)
    assert distance(scores(model), expected) < 2e-5


@pytest.mark.parametrize("family", VGGS)
def test_vgg(family, tmp_path):
    params = vgg_params(CONFIG, 12, 64)
    path = tmp_path / f"{family}.{ENDING[family]}"
    VGGS[family](path, params, CONFIG, (8, 2, 2))
    model = vgg()
    report = load_weights(model, path)
    assert report.family == family
    assert not report.new and not report.unused
    assert distance(scores(model), run(vgg_graph(params, CONFIG, SHAPE), X)) < 1e-5


def test_onnx_with_the_names_of_torch(tmp_path):
    params = resnet_params(BLOCKS, WIDTH)
    graph = resnet_graph(params, BLOCKS, SHAPE, **TORCH)
    (tmp_path / "net.onnx").write_bytes(graph.SerializeToString())
    model = resnet()
    assert load_weights(model, tmp_path / "net.onnx").format == "onnx"
    assert distance(scores(model), run(graph, X)) < 1e-5


@pytest.fixture
def torch_file(tmp_path):
    return resnet_file(tmp_path, "torchvision")


def state(model):
    return {path: array.copy() for path, array in pretrained.transfer.model_arrays(model).items()}


def test_a_new_head_keeps_its_values(torch_file):
    model = resnet(n_class=7)
    before = state(model)
    report = load_weights(model, torch_file[0], head="new")
    after = state(model)
    assert report.new == ("fc6/W", "fc6/b")
    assert all(np.array_equal(before[n], after[n]) for n in report.new)
    assert not any(np.array_equal(before[n], after[n]) for n in before.keys() - set(report.new))


@pytest.mark.parametrize(("n_class", "options", "message"), [
    (7, {}, r"fc\.weight \(10, 128\) does not fit fc6/W, which is \(7, 128\).*head='new'"),
    (10, {"head": "old"}, "head must be 'keep' or 'new', got 'old'"),
    (10, {"family": "caffee"}, "unknown family 'caffee'.*there are: torchvision, huggingface"),
    (10, {"options": {"stride": 2}}, "unknown option of ResNet 'stride'; there are: stride_in, "),
    (10, {"options": {"stride_in": "1x1", "stem_pool": "keras"}}, "unknown stem_pool 'keras'"),
    (10, {"options": {"bn_eps": "small"}}, "could not convert string to float"),
])
def test_what_does_not_fit_is_said_and_changes_nothing(n_class, options, message, torch_file):
    model = resnet(n_class)
    before, set_to = state(model), model.options
    with pytest.raises(WeightsError, match=message):
        load_weights(model, torch_file[0], **options)
    after = state(model)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert model.options == set_to


def changed_file(torch_file, tmp_path, change):
    from safetensors.numpy import load_file, save_file
    arrays = load_file(torch_file[0])
    change(arrays)
    save_file(arrays, tmp_path / "changed.safetensors")
    return tmp_path / "changed.safetensors"


@pytest.mark.parametrize(("change", "message"), [
    (lambda a: a.pop("layer3.2.bn1.running_var"), "lacks layer3.2.bn1.running_var"),
    (lambda a: a.update(extra=np.ones(3)), "has extra, which no layer of the model takes"),
    (lambda a: a["fc.bias"].fill(np.nan), "fc.bias has values that are NaN or infinite"),
    (lambda a: a.update({"bn1.weight": np.ones(5)}), r"bn1.weight \(5,\) does not fit bn1/gamma"),
    (lambda a: [a.update({f"x{n}": a.pop(n)}) for n in list(a)], "none of its .* names is known"),
])
def test_files_that_are_not_whole(change, message, torch_file, tmp_path):
    model = resnet()
    before = state(model)
    with pytest.raises(WeightsError, match=message):
        load_weights(model, changed_file(torch_file, tmp_path, change))
    assert all(np.array_equal(before[name], array) for name, array in state(model).items())


def test_not_strict_loads_what_fits_and_lists_the_rest(torch_file, tmp_path):
    def change(arrays):
        del arrays["layer1.0.conv1.weight"]
        arrays["extra"] = np.ones(3)
    report = load_weights(resnet(), changed_file(torch_file, tmp_path, change), strict=False)
    assert report.new == ("res2/0/conv1x1a/W",)
    assert report.unused == ("extra",)
    assert "extra" in str(report)


def test_another_depth_is_noticed(torch_file):
    with pytest.raises(WeightsError, match="Is it the right model"):
        load_weights(resnet(blocks=(3, 4, 23, 3)), torch_file[0])


def test_weights_of_other_models_are_refused(torch_file):
    with pytest.raises(WeightsError, match="LeNet5: published weights are known for VGG, ResNet"):
        load_weights(models.LeNet5(), torch_file[0])


def test_convert_keeps_options_and_verifies(tmp_path, monkeypatch):
    monkeypatch.setitem(pretrained.ARCHITECTURES, "resnet50", lambda n_class=1000: resnet(n_class))
    path, expected = resnet_file(tmp_path, "keras")
    npz = tmp_path / "out.npz"
    pretrained.convert(path, npz, "resnet50")
    model = pretrained.load("resnet50", npz, verify=True)
    assert (model.report.family, model.options) == ("convnets", RESNETS["keras"][1])
    assert distance(scores(model), expected) < 1e-5
    assert model.preprocessing == pretrained.preprocess.SETTINGS["keras"]
    plain = resnet()
    chainer.serializers.load_npz(npz, plain)           # Chainer's own way takes the file too
    assert np.array_equal(plain.fc6.W.array, model.fc6.W.array)
    with pytest.raises(WeightsError, match="standard deviations"):
        pretrained.load("resnet50", npz, verify=True, options={"stem_pool": "caffe"})
    note = json.loads(str(np.load(npz)["convnets_note"]))
    assert note["source"]["name"] == path.name and len(note["source"]["sha256"]) == 64


def test_load_finds_the_number_of_classes(torch_file, monkeypatch):
    monkeypatch.setitem(pretrained.ARCHITECTURES, "resnet50", lambda n_class=1000: resnet(n_class))
    path, _ = torch_file
    assert pretrained.load("resnet50", path).fc6.W.shape == (10, 128)
    fresh = pretrained.load("resnet50", path, n_class=3)
    assert fresh.fc6.W.shape == (3, 128)
    assert fresh.report.new == ("fc6/W", "fc6/b")
    assert pretrained.load("resnet50", None, n_class=4).fc6.W.shape == (4, 128)
    with pytest.raises(WeightsError, match="unknown network 'resnet34'"):
        pretrained.load("resnet34")


def test_convnets_has_it():
    assert convnets.pretrained is pretrained


def test_a_kernel_that_was_not_transposed_is_shown_in_both_layouts(tmp_path):
    model = models.SqueezeNet(10)
    layers = families.layers(model)
    keras = families.Family("keras", ("npz",), families.KERAS, {
        layer.name: f"{'{fire}/' * ('/' in layer.path)}{layer.name}" for layer in layers})
    arrays = {f"{layer.path}/{kind}": model_arrays(model)[f"{layer.path}/{param}"]
              for layer in layers for param, kind in (("W", "kernel"), ("b", "bias"))}
    np.savez(tmp_path / "wrong.npz", **arrays)
    message = r"conv1/kernel \(64, 3, 3, 3\), for us \(3, 3, 64, 3\), .* is \(64, 3, 3, 3\)"
    with pytest.raises(WeightsError, match=message):
        load_weights(model, tmp_path / "wrong.npz", family=keras)
