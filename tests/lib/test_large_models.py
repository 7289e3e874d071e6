"""VGG and ResNet: exact counts, and equality with Chainer's own and PyTorch's."""

import copy
import math
import pickle

from convnets import models
from convnets.inspect import summary
from convnets.models import copy_weights, links_in_order

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest

# Parameters, and GMACs for an image of in_shape; both strides of the ResNets.
COUNTS = [
    (models.VGG16, {}, 138_357_544, "15.470"),
    (models.VGG19, {}, 143_667_240, "19.632"),
    (models.ResNet50, {}, 25_557_032, "3.858"),
    (models.ResNet101, {}, 44_549_160, "7.570"),
    (models.ResNet152, {}, 60_192_808, "11.282"),
    (models.ResNet50, {"stride_in": "3x3"}, 25_557_032, "4.089"),
    (models.ResNet101, {"stride_in": "3x3"}, 44_549_160, "7.801"),
    (models.ResNet152, {"stride_in": "3x3"}, 60_192_808, "11.514"),
    (models.ResNet20, {}, 269_722, "0.041"),
    (models.ResNet32, {}, 464_154, None),
    (models.ResNet44, {}, 658_586, None),
    (models.ResNet56, {}, 853_018, None),
    (models.ResNet110, {}, 1_727_962, None),
    (models.Plain20, {}, 269_722, "0.041"),
    (models.Plain56, {}, 853_018, None),
]

SMALL = {
    "vgg": lambda: models.VGGSmall(),
    "vgg16": lambda: models.VGG("vgg16", 10, (3, 32, 32), hidden=16),
    "bottlenecks": lambda: models.ResNet((1, 1, 1, 1), 10),
    "cifar": lambda: models.ResNet20(),
    "plain": lambda: models.Plain20(n_in=1),
}


def images(model, n=2, size=None, seed=0):
    c, h, w = model.in_shape
    h, w = (size, size) if size else (h, w)
    return np.random.RandomState(seed).rand(n, c, h, w).astype(np.float32)


def randomize(model, seed=0):
    """Give batch normalization random scales, shifts and statistics, so that each one counts."""
    rng = np.random.RandomState(seed)
    for link in links_in_order(model):
        if isinstance(link, L.BatchNormalization):
            n = link.gamma.size
            link.gamma.array[...] = rng.uniform(0.3, 0.7, n)
            link.beta.array[...] = rng.uniform(-0.2, 0.2, n)
            link.avg_mean[...] = rng.uniform(-0.2, 0.2, n)
            link.avg_var[...] = rng.uniform(0.5, 1.5, n)
    return model


@pytest.fixture
def test_mode():
    with chainer.using_config("train", False):
        yield


@pytest.fixture
def quick_weights(monkeypatch):
    """Initial weights are a million random numbers over again: to draw VGG16's takes seconds."""
    numbers = np.random.RandomState(0).standard_normal(999_983).astype(np.float32)

    def normal(loc, scale, size):
        drawn = np.resize(numbers, size)
        drawn *= scale   # in place: memory that nobody has touched yet takes longer than sums
        drawn += loc
        return drawn

    monkeypatch.setattr(np.random, "normal", normal)


@pytest.mark.usefixtures("quick_weights")
@pytest.mark.parametrize(("build", "options", "params", "gmacs"), COUNTS)
def test_counts(build, options, params, gmacs):
    model = build(**options)
    assert sum(p.size for p in model.params()) == params
    if gmacs:
        s = summary(model, (1, *model.in_shape))
        assert s.params == params
        assert f"{s.macs / 1e9:.3f}" == gmacs


def test_width_multiplies_the_channels_of_every_layer():
    wide, thin = (models.ResNet((1, 1, 1, 1), 10, width=w) for w in (1, 0.5))
    inner = [[link for link in links_in_order(net) if isinstance(link, L.BatchNormalization)]
             for net in (wide, thin)]
    assert all(a.gamma.size == 2 * b.gamma.size for a, b in zip(*inner, strict=True))
    assert (thin.conv1.W.shape, thin.fc6.W.shape) == ((32, 3, 7, 7), (10, 1024))
    cifar = models.CifarResNet(20, width=0.1)      # 16, 32 and 64 become 1.6, 3.2 and 6.4
    assert [cifar[name][0].conv1.W.shape[0] for name in ("res2", "res3", "res4")] == [2, 3, 6]
    assert cifar(images(cifar)).shape == (2, 10)


def test_a_projection_in_every_bottleneck_would_cost_this_much():
    extra = sum((n - 1) * (n_out * n_out + 2 * n_out)
                for n, n_out in zip(models.resnet.BLOCKS[152], (256, 512, 1024, 2048), strict=True))
    assert extra == 47_142_912
    with_proj, without = (sum(p.size for p in models.BottleNeck(256, 64, 256, proj=p).params())
                          for p in (True, False))
    assert with_proj - without == 256 * 256 + 2 * 256


@pytest.mark.usefixtures("test_mode", "quick_weights")
def test_vgg16_equals_chainers():
    theirs = L.VGG16Layers(pretrained_model=None)
    ours = copy_weights(theirs, models.VGG16())
    x = images(ours, 1)
    with chainer.no_backprop_mode():
        y = theirs(x, layers=["fc8"])["fc8"]
        assert np.abs(ours.logits(x).array - y.array).max() == 0.0


@pytest.mark.usefixtures("test_mode", "quick_weights")
@pytest.mark.parametrize(("build", "theirs"), [
    (models.ResNet50, L.ResNet50Layers), (models.ResNet101, L.ResNet101Layers),
    (models.ResNet152, L.ResNet152Layers)])
def test_resnet_equals_chainers(build, theirs):
    theirs = randomize(theirs(pretrained_model=None))
    ours = copy_weights(theirs, build(stem_pool="caffe", stem_bias=True))
    x = images(ours, 1, size=96)
    with chainer.no_backprop_mode():
        y = theirs(x, layers=["fc6"])["fc6"]
        assert np.abs(ours.logits(x).array - y.array).max() == 0.0


@pytest.mark.usefixtures("test_mode")
@pytest.mark.parametrize("option", [
    {"stem_pool": "tutorial"}, {"stem_pool": "torch"}, {"stride_in": "3x3"}, {"bn_eps": 1e-2}])
def test_a_wrong_option_raises_nothing_and_changes_the_output(option):
    right = randomize(models.ResNet((1, 1, 1, 1), 10, stem_pool="caffe"))
    wrong = copy_weights(right, models.ResNet((1, 1, 1, 1), 10, **{"stem_pool": "caffe", **option}))
    x = images(right, 2, size=64)
    a, b = right.logits(x).array, wrong.logits(x).array
    assert np.abs(a - b).max() > 1e-3 * a.std()


def torch_resnet50(torch):
    """ResNet-50 v1.5 written with torch alone: stride in the 3x3, 3x3/2 pooling with pad 1."""
    nn = torch.nn

    class Bottleneck(nn.Module):
        def __init__(self, n_in, n_mid, stride, proj):
            super().__init__()
            n_out = 4 * n_mid
            self.conv1, self.bn1 = nn.Conv2d(n_in, n_mid, 1, bias=False), nn.BatchNorm2d(n_mid)
            self.conv2 = nn.Conv2d(n_mid, n_mid, 3, stride, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(n_mid)
            self.conv3, self.bn3 = nn.Conv2d(n_mid, n_out, 1, bias=False), nn.BatchNorm2d(n_out)
            self.down = nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False),
                                      nn.BatchNorm2d(n_out)) if proj else nn.Identity()

        def forward(self, x):
            h = torch.relu(self.bn1(self.conv1(x)))
            h = torch.relu(self.bn2(self.conv2(h)))
            return torch.relu(self.bn3(self.conv3(h)) + self.down(x))

    layers, n_in = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
                    nn.MaxPool2d(3, 2, 1)], 64
    for stage, (n, n_mid) in enumerate(zip((3, 4, 6, 3), (64, 128, 256, 512), strict=True)):
        for i in range(n):
            layers.append(Bottleneck(n_in, n_mid, 2 if stage and i == 0 else 1, i == 0))
            n_in = 4 * n_mid
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n_in, 1000))


def give_to_torch(torch, model, net):
    """Copy all parameters and statistics, matched by order."""
    modules = [m for m in net.modules()
               if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear, torch.nn.BatchNorm2d))]
    for link, module in zip(links_in_order(model), modules, strict=True):
        if isinstance(link, L.BatchNormalization):
            arrays = link.gamma.array, link.beta.array, link.avg_mean, link.avg_var
            targets = module.weight, module.bias, module.running_mean, module.running_var
        else:
            arrays, targets = (link.W.array, link.b), (module.weight, module.bias)
            arrays = (arrays[0], None if arrays[1] is None else arrays[1].array)
        for array, target in zip(arrays, targets, strict=True):
            assert (array is None) == (target is None)
            if array is not None:
                target.data = torch.tensor(array)
    return list(zip(links_in_order(model), modules, strict=True))


def test_resnet50_agrees_with_torch_in_outputs_and_gradients():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    np.random.seed(0)
    model = randomize(models.ResNet50(stride_in="3x3", stem_pool="torch", bn_eps=1e-5))
    net = torch_resnet50(torch).eval()
    pairs = give_to_torch(torch, model, net)
    x, t = images(model, 2, size=96), np.array([3, 7], np.int32)
    model.cleargrads()
    with chainer.using_config("train", False):
        y = model.logits(x)
        F.softmax_cross_entropy(y, t).backward()
    expected = net(torch.tensor(x))
    torch.nn.functional.cross_entropy(expected, torch.tensor(t).long()).backward()
    expected = expected.detach().numpy()
    assert np.abs(y.array - expected).max() <= 1e-5 * expected.std()
    for link, module in pairs:
        if isinstance(link, L.BatchNormalization):
            continue   # Chainer's test mode treats gamma and beta as constants
        g, h = link.W.grad, module.weight.grad.numpy()
        assert np.linalg.norm(g - h) <= 1e-4 * np.linalg.norm(h)


@pytest.mark.usefixtures("test_mode")
@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("twin", [
    copy.deepcopy, lambda m: m.copy(mode="copy"), lambda m: pickle.loads(pickle.dumps(m)),
    lambda m: m.copy(mode="copy").to_device("@numpy")])
def test_copies_compute_the_same(name, twin):
    model = randomize(SMALL[name]())
    x = images(model, size=64 if name == "bottlenecks" else None)
    other = twin(model) or model
    assert np.array_equal(other.logits(x).array, model.logits(x).array)


@pytest.mark.usefixtures("test_mode")
@pytest.mark.parametrize("name", SMALL)
def test_npz_round_trip(name, tmp_path):
    model, other = randomize(SMALL[name]()), SMALL[name]()
    x = images(model, size=64 if name == "bottlenecks" else None)
    chainer.serializers.save_npz(tmp_path / "m.npz", model)
    chainer.serializers.load_npz(tmp_path / "m.npz", other)
    assert np.array_equal(other.logits(x).array, model.logits(x).array)


@pytest.mark.parametrize("name", SMALL)
def test_repeat_gives_new_weights_to_each_copy(name):
    model = SMALL[name]()
    first, second = model.repeat(2)
    shapes = [[p.shape for _, p in sorted(m.namedparams())] for m in (model, first, second)]
    assert shapes[0] == shapes[1] == shapes[2]
    w = [links_in_order(m)[0].W.array for m in (first, second)]
    assert not np.array_equal(*w)


@pytest.mark.usefixtures("test_mode")
def test_features_by_name():
    model = models.ResNet((1, 1, 1, 1), 10)
    x = images(model, 1)
    expected = {"conv1": (64, 112, 112), "pool1": (64, 56, 56), "res2": (256, 56, 56),
                "res3": (512, 28, 28), "res4": (1024, 14, 14), "res5": (2048, 7, 7),
                "pool5": (2048, 1, 1), "fc6": (10,)}
    assert [name for name, _ in model.stages()] == list(expected)
    for name, shape in expected.items():
        assert model.features(x, name).shape == (1, *shape)
    assert np.array_equal(model.features(x, "fc6").array, model.logits(x).array)
    with pytest.raises(ValueError, match="no stage 'res6'; there are: conv1, pool1"):
        model.features(x, "res6")


@pytest.mark.usefixtures("test_mode")
def test_the_shortcut_of_option_a_is_the_subsampled_input_with_zero_channels():
    block = models.BasicBlock(4, 8, stride=2)
    block.bn2.gamma.array[...] = 0     # the residual is zero: only the shortcut is left
    x = np.random.RandomState(0).rand(2, 4, 6, 6).astype(np.float32)
    y = block(x).array
    assert np.array_equal(y[:, :4], x[:, :, ::2, ::2])
    assert not y[:, 4:].any()
    plain = models.BasicBlock(4, 8, stride=2, residual=False)
    plain.bn2.gamma.array[...] = 0
    assert not plain(x).array.any()


def test_the_sources_own_blocks_still_work_lazily():
    block = models.VGGBlock(8, 3, True)
    assert block.conv1.W.array is None
    assert block(np.zeros((1, 3, 8, 8), np.float32)).shape == (1, 1000)


def test_vgg_leaves_nothing_to_the_first_call():
    assert all(p.array is not None for p in models.VGG("vgg16", 10, (3, 32, 32), 16).params())
    assert models.VGG16(10, (3, 32, 32))[-1].fc4.W.shape == (4096, 512)


@pytest.mark.parametrize(("build", "message"), [
    (lambda: models.ResNet50(stride_in="2x2"), "unknown stride_in '2x2'; there are: 1x1, 3x3"),
    (lambda: models.ResNet50(stem_pool="keras"), "unknown stem_pool 'keras'; there are: tutorial"),
    (lambda: models.VGG("vgg11"), "unknown VGG configuration 'vgg11'; there are vgg16"),
    (lambda: models.CifarResNet(21), "6n \\+ 2"),
    (lambda: models.ResNet50(width=0), "width must be positive, got 0"),
])
def test_unknown_options(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(("shape", "message"), [
    ((2, 1, 64, 64), r"\(N, 3, H, W\), got \(2, 1, 64, 64\). C must be 3 \(colour\)"),
    ((2, 64, 64, 3), r"x.transpose\(0, 3, 1, 2\)"),
    ((3, 64, 64), r"x\[None\]"),
])
def test_wrong_images_for_a_network_of_any_size(shape, message):
    with pytest.raises(ValueError, match=message):
        models.ResNet((1, 1, 1, 1), 10).logits(np.zeros(shape, np.float32))


def test_wrong_size_for_vgg():
    with pytest.raises(ValueError, match=r"Resize the images to H x W = 32 x 32"):
        models.VGG("small", 10, (3, 32, 32)).logits(np.zeros((1, 3, 224, 224), np.float32))


def test_initial_loss_of_the_small_networks_is_near_chance():
    np.random.seed(0)
    model = models.ResNet20()
    x = np.random.RandomState(1).standard_normal((64, 3, 32, 32)).astype(np.float32)
    loss = F.softmax_cross_entropy(model.logits(x), np.arange(64, dtype=np.int32) % 10)
    assert abs(float(loss.array) - math.log(10)) < 1
