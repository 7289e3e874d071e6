"""What is measured on the gradient's way back, against calculations by other means."""

import json

from convnets import cli, gradients, models

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest


@pytest.fixture
def batch():
    random = np.random.RandomState(0)
    return random.randn(4, 3, 8, 8).astype("f"), np.array([0, 1, 2, 0], "i")


def network(residual=True, seed=0, depth=8):
    np.random.seed(seed)
    return models.CifarResNet(depth, 3, residual)


@pytest.mark.parametrize("build", [
    network, lambda: models.ResNet((1, 2, 1, 1), 3), lambda: models.VGGSmall()])
def test_blocks_in_a_row_are_the_network(build):
    np.random.seed(0)
    model = build()
    x = np.random.randn(2, model.in_shape[0], *((28, 28) if not model.any_size else (32, 32)))
    h = x = x.astype("f")
    with chainer.using_config("train", False):
        for _, function, _ in gradients.blocks(model):
            h = function(h)
        assert abs(h.array - model.logits(x).array).max() == 0.0


def test_blocks_have_the_names_of_their_parameters():
    model = network(depth=14)
    names = [name for name, *_ in gradients.blocks(model)]
    assert names == ["conv1", "res2/0", "res2/1", "res3/0", "res3/1", "res4/0", "res4/1",
                     "pool4", "fc5"]
    assert f"/{names[1]}/conv1/W" in dict(model.namedparams())


def test_neighbours(batch):
    x, _ = batch
    assert (gradients.neighbours(x, 0) == x).all()
    assert (gradients.neighbours(x, 1)[1:] == x[:-1]).all()
    near = gradients.neighbours(x, 0.25)
    np.testing.assert_allclose(near[2], 0.75 * x[2] + 0.25 * x[1], rtol=1e-6)
    assert near.dtype == np.float32


def rows_by_name(*args, **kw):
    return {row["name"]: row for row in gradients.measure(*args, **kw)}


@pytest.mark.parametrize("residual", [False, True])
def test_gradient_is_the_slope_of_each_images_loss(batch, residual):
    """Without batch normalization each image is alone: its slope, by finite differences."""
    x, t = batch
    model = gradients.without_normalization(network(residual))
    steps = gradients.blocks(model)

    def loss(h, label, start):
        for _, function, _ in steps[start:]:
            h = function(h)
        return float(F.softmax_cross_entropy(h, label).array)

    norms = []
    for i in range(len(x)):
        h = x[i:i + 1]
        for _, function, _ in steps[:2]:                        # up to res2/0
            h = function(h)
        h = chainer.Variable(h.array)
        end = h
        for _, function, _ in steps[2:]:
            end = function(end)
        F.softmax_cross_entropy(end, t[i:i + 1]).backward()
        direction = h.grad / np.linalg.norm(h.grad)
        ahead, behind = (loss(h.array + e * direction, t[i:i + 1], 2) for e in (1e-2, -1e-2))
        norms.append((ahead - behind) / 2e-2)
    measured = rows_by_name(model, x, t, distance=0)["res2/0"]
    assert measured["gradient"] == pytest.approx(np.mean(norms), rel=0.02)


class Tiny(models.base.ImageClassifier, chainer.Chain):
    """One convolution that copies its input, and a linear layer: all gradients by hand."""

    in_shape = (1, 2, 2)

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.conv1 = L.Convolution2D(1, 1, 1, nobias=True, initialW=1)
            self.fc2 = L.Linear(4, 2, nobias=True)

    def stages(self):
        return [("conv1", self.conv1), ("fc2", self.fc2)]


def test_similarities_and_sizes_by_hand():
    model = Tiny()
    W = model.fc2.W.array = np.array([[1, 0, 2, -1], [0, 1, 1, 1]], "f")
    x = np.array([[1, 2, 0, 1], [-1, 0, 2, 3]], "f").reshape(2, 1, 2, 2)
    t = np.array([0, 1], "i")
    both = np.concatenate([x, 0.75 * x + 0.25 * x[::-1]]).reshape(4, 4)
    p = np.exp(both @ W.T)
    p /= p.sum(axis=1, keepdims=True)
    gradient = (p - np.eye(2)[[0, 1, 0, 1]]) @ W
    (row,) = gradients.measure(model, x, t, distance=0.25)

    def cosine(a, b):
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    centred = both - both.mean(axis=0)
    assert row["gradient"] == pytest.approx(np.linalg.norm(gradient, axis=1).mean(), rel=1e-4)
    # Two classes: all gradients lie on one line, and neighbours agree or oppose.
    assert row["gradient_similarity"] == pytest.approx(
        np.mean([cosine(gradient[i], gradient[i + 2]) for i in (0, 1)]), abs=1e-4)
    assert row["signal_similarity"] == pytest.approx(
        np.mean([cosine(centred[i], centred[i + 2]) for i in (0, 1)]), abs=1e-4)
    assert row["signal"] == pytest.approx(both.std(), rel=1e-5)
    weight = (gradient * both).sum() / 4                        # the one weight's gradient
    assert row["step"] == pytest.approx(abs(weight), rel=1e-4)


def test_step_is_what_sgd_moves(batch):
    x, t = batch
    model = network()
    rows = rows_by_name(model, x, t, distance=0)
    moved = model.copy("copy")
    optimizer = chainer.optimizers.SGD(lr=1).setup(moved)
    optimizer.update(lambda: F.softmax_cross_entropy(moved.logits(x), t))
    for name, block in (("res2/0", "res2"), ("res4/0", "res4")):
        pairs = [(getattr(model[block][0], c).W.array, getattr(moved[block][0], c).W.array)
                 for c in ("conv1", "conv2")]
        distance = sum(((a - b) ** 2).sum() for a, b in pairs) ** 0.5
        size = sum((a ** 2).sum() for a, _ in pairs) ** 0.5
        assert rows[name]["step"] == pytest.approx(distance / size, rel=1e-3)


def test_the_same_image_twice_agrees_with_itself(batch):
    for row in gradients.measure(network(), *batch, distance=0):
        assert row["gradient_similarity"] == pytest.approx(1, abs=1e-5)
        assert row["signal_similarity"] == pytest.approx(1, abs=1e-5)


def test_farther_neighbours_agree_less(batch):
    near, far = (rows_by_name(network(), *batch, distance=d)["res2/0"] for d in (0.01, 0.4))
    assert near["gradient_similarity"] > far["gradient_similarity"] + 0.1
    assert near["signal_similarity"] > far["signal_similarity"]


def test_the_model_is_left_as_it_was(batch):
    model = network()
    before = chainer.serializers.DictionarySerializer()
    before.save(model)
    before = {name: np.array(value) for name, value in before.target.items()}
    gradients.measure(model, *batch)
    after = chainer.serializers.DictionarySerializer()
    after.save(model)
    assert before.keys() == after.target.keys()
    for name, value in after.target.items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)


def test_shapes_and_places(batch):
    rows = gradients.measure(network(depth=14), *batch)
    assert [row["name"] for row in rows] == ["conv1", "res2/0", "res2/1", "res3/0", "res3/1",
                                             "res4/0", "res4/1"]
    assert [row["shape"] for row in rows[2::2]] == [[16, 8, 8], [32, 4, 4], [64, 2, 2]]


def test_without_normalization(batch):
    x, _ = batch
    model = network(residual=False)
    normalizations = sum(isinstance(link, L.BatchNormalization) for link in model.links())
    first = F.relu(model.conv1(x)).array
    assert gradients.without_normalization(model) is model
    assert not any(isinstance(link, L.BatchNormalization) for link in model.links())
    assert normalizations == 1 + 2 * 3
    assert abs(model.features(x, "conv1").array - first).max() == 0.0
    assert not any("bn" in name for name, _ in model.namedparams())


def test_examples():
    x, t = gradients.examples(3)
    assert x.shape == (3, 1, 32, 32) and x.dtype == np.float32 and t.shape == (3,)
    assert abs(x.mean()) < 1e-5 and x.std() == pytest.approx(1, abs=1e-5)
    assert (x[:, :, 0] == x.min()).all(), "a border of black"


def test_average_over_seeds(batch):
    x, t = batch
    one, other = (gradients.measure_many(8, True, True, [seed], x, t)[1] for seed in (0, 1))
    both = gradients.measure_many(8, True, True, [0, 1], x, t)[1]
    assert one["gradient"] != other["gradient"]
    assert both["gradient"] == pytest.approx((one["gradient"] * other["gradient"]) ** 0.5, rel=1e-3)
    assert both["gradient_similarity"] == pytest.approx(
        (one["gradient_similarity"] + other["gradient_similarity"]) / 2, rel=1e-3)


def test_record_and_load(tmp_path):
    path = tmp_path / "path.json"
    run = gradients.record(path, command="as typed", seeds=1, n=2, depths=(8,))
    assert gradients.load(path) == run
    assert [(n["name"], n["normalized"]) for n in run["networks"]] == [
        ("plain-8", True), ("ResNet-8", True), ("plain-8", False), ("ResNet-8", False)]
    assert run["command"] == "as typed" and run["options"]["n"] == 2
    assert {"date", "device", "versions", "seed"} <= run.keys()
    assert [row["name"] for row in run["networks"][0]["blocks"]] == [
        "conv1", "res2/0", "res3/0", "res4/0"]


def test_load_says_what_to_do(tmp_path):
    path = tmp_path / "other.json"
    path.write_text(json.dumps({"curve": []}))
    with pytest.raises(ValueError, match="convnets gradients --record"):
        gradients.load(path)


def test_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(gradients.record, "__kwdefaults__",
                        {**gradients.record.__kwdefaults__, "depths": (8,)})
    path = tmp_path / "path.json"
    assert cli.main(["gradients", "--record", str(path), "--seeds", "1", "--n", "2"]) == 0
    assert gradients.load(path)["command"] == f"convnets gradients --record {path} --seeds 1 --n 2"
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 5 and printed[1].startswith("plain-8")
