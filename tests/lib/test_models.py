"""LeNet5 in four forms: one network, whatever it is written as."""

import copy
import pickle

from convnets import models

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest

FORMS = sorted(models.FORMS)


def digits(n=8, seed=0):
    return np.random.RandomState(seed).rand(n, 1, 28, 28).astype(np.float32)


def same_network(form, source):
    return models.copy_weights(source, models.FORMS[form]())


@pytest.fixture
def chain():
    np.random.seed(1)
    return models.LeNet5()


def gradients(model, x, t):
    model.cleargrads()
    F.softmax_cross_entropy(model.logits(x), t).backward()
    return [p.grad for link in models.links_in_order(model) for _, p in sorted(link.namedparams())]


@pytest.mark.parametrize("form", FORMS)
def test_forms_are_equal_in_outputs_and_gradients(form, chain):
    x, t = digits(), np.arange(8, dtype=np.int32)
    other = same_network(form, chain)
    assert np.abs(other.logits(x).array - chain.logits(x).array).max() == 0.0
    for a, b in zip(gradients(other, x, t), gradients(chain, x, t), strict=True):
        assert np.abs(a - b).max() == 0.0


@pytest.mark.parametrize("form", FORMS)
def test_parameter_count(form):
    assert sum(p.size for p in models.FORMS[form]().params()) == 44_426


@pytest.mark.parametrize("form", FORMS)
def test_forward_gives_logits_in_train_mode_and_probabilities_in_test_mode(form):
    model, x = models.FORMS[form](), digits()
    with chainer.using_config("train", True):
        assert np.array_equal(model(x).array, model.logits(x).array)
    with chainer.using_config("train", False):
        assert np.array_equal(model(x).array, F.softmax(model.logits(x)).array)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("twin", [
    copy.deepcopy, lambda m: m.copy(), lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_compute_the_same(form, twin, chain):
    model, x = same_network(form, chain), digits()
    assert np.array_equal(twin(model).logits(x).array, model.logits(x).array)


@pytest.mark.parametrize("form", FORMS)
def test_copy_does_not_keep_the_old_links(form, chain):
    model, x = same_network(form, chain), digits()
    before = model.logits(x).array
    twin = model.copy(mode="copy")
    for p in twin.params():
        p.array[...] = 0
    assert np.array_equal(model.logits(x).array, before)
    assert not twin.logits(x).array.any()


@pytest.mark.parametrize("form", FORMS)
def test_npz_round_trip(form, chain, tmp_path):
    model, other = same_network(form, chain), models.FORMS[form]()
    chainer.serializers.save_npz(tmp_path / "m.npz", model)
    chainer.serializers.load_npz(tmp_path / "m.npz", other)
    assert np.array_equal(model.logits(digits()).array, other.logits(digits()).array)


def test_the_sources_extra_sigmoid_is_a_sigmoid_on_the_scores(chain):
    x = digits()
    extra = models.copy_weights(chain, models.LeNet5List(sigm5=True))
    assert np.array_equal(extra.logits(x).array, F.sigmoid(chain.logits(x)).array)


def test_the_sources_extra_pooling_changes_nothing(chain):
    x = digits()
    extra = models.copy_weights(chain, models.LeNet5List(mpool3=True))
    assert np.array_equal(extra.logits(x).array, chain.logits(x).array)


def test_agrees_with_torch(chain):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    w = {name: torch.tensor(p.array) for name, p in chain.namedparams()}
    x = digits()
    h = torch.tensor(x)
    for name in ("conv1", "conv2", "conv3"):
        h = torch.sigmoid(torch.conv2d(h, w[f"/{name}/W"], w[f"/{name}/b"]))
        h = torch.max_pool2d(h, 2) if name != "conv3" else h.flatten(1)
    h = torch.sigmoid(h @ w["/fc4/W"].T + w["/fc4/b"])
    expected = (h @ w["/fc5/W"].T + w["/fc5/b"]).numpy()
    np.testing.assert_allclose(chain.logits(x).array, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(8, 1, 28, 28), (1, 28, 28), (28, 28)])
def test_predict_takes_one_image_or_many(shape, chain):
    x = np.random.RandomState(0).randint(0, 256, shape).astype(np.uint8)
    with chainer.using_config("train", True):
        p = chain.predict(x)
    assert p.shape == (8 if len(shape) == 4 else 1, 10)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(p, chain.predict(x.astype(np.float32) / 255), rtol=1e-5)


def test_predict_does_not_depend_on_the_batch(chain):
    x = digits(10)
    np.testing.assert_allclose(chain.predict(x, batch=3), chain.predict(x), rtol=1e-5)


@pytest.mark.parametrize(("images", "hint"), [
    (np.zeros((32, 32)), "Resize the images to H x W = 28 x 28"),
    (np.zeros((4, 28, 28)), "x[:, None]"),
    (np.zeros((4, 28, 28, 1)), "x.transpose(0, 3, 1, 2)"),
    (np.zeros((4, 3, 28, 28)), "C must be 1"),
    (np.full((1, 28, 28), 255.0), "Divide by 255"),
    (np.zeros((1, 28, 28), np.int64), "int64"),
    (np.full((1, 28, 28), np.nan), "0..1"),
])
def test_predict_says_what_is_wrong_with_the_images(images, hint, chain):
    with pytest.raises(ValueError, match=r"expected|must") as e:
        chain.predict(images)
    assert hint in str(e.value)


@pytest.mark.parametrize(("x", "hint"), [
    (np.zeros((4, 28, 28), np.float32), "x[:, None]"),
    (np.zeros((4, 1, 32, 32), np.float32), "Resize"),
    (np.zeros((4, 1, 28, 28), np.uint8), "astype"),
    (np.zeros((1, 28, 28), np.float32), "x[None]"),
])
@pytest.mark.parametrize("form", FORMS)
def test_forward_says_what_is_wrong_with_its_input(form, x, hint):
    with pytest.raises(ValueError, match=r"LeNet5.* takes") as e:
        models.FORMS[form]()(x)
    assert hint in str(e.value)


def test_copy_weights_refuses_other_layers_and_leaves_the_target(chain):
    target = models.LeNet5(n_class=26)
    before = [p.array.copy() for p in target.params()]
    with pytest.raises(ValueError, match="layer 4 differs"):
        models.copy_weights(chain, target)
    with pytest.raises(ValueError, match="different numbers of layers"):
        models.copy_weights(chain, L.Linear(3, 3))
    assert all(np.array_equal(a, p.array) for a, p in zip(before, target.params(), strict=True))


def test_links_in_order_follows_the_author_not_the_alphabet():
    class Net(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                for i in range(1, 12):
                    setattr(self, f"conv{i}", L.Convolution2D(i, i + 1, 1))
    assert [link.out_channels for link in models.links_in_order(Net())] == list(range(2, 13))
