"""Files that torch itself wrote, of torchvision's own networks; skipped where torch is absent."""

from convnets import models, pretrained
from convnets.pretrained.compare import compare

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: the reference for its files")
torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed")

NETS = ["vgg16", "vgg19", "resnet50", "resnet101", "resnet152", "squeezenet1_1"]


def randomised(name):
    """Return a network with random weights, biases and statistics of batch normalization."""
    torch.manual_seed(0)
    net = getattr(torchvision.models, name)(num_classes=10)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.2)
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
        elif getattr(module, "bias", None) is not None:
            module.bias.data.normal_(0, 0.1)
    return net.eval()


@pytest.mark.slow
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", NETS)
def test_a_checkpoint_of_torch(name, legacy, tmp_path):
    net, path = randomised(name), tmp_path / "net.pth"
    torch.save(net.state_dict(), path, _use_new_zipfile_serialization=not legacy)
    model = pretrained.load(name.split("1_")[0], path)
    assert model.report.family == "torchvision"
    with torch.no_grad():
        x = torch.randn(1, *model.in_shape)
        expected = net(x).numpy()
    with_model = scores(model, x.numpy())
    assert abs(with_model - expected).max() < 1e-5 * expected.std() + 1e-5 * abs(expected).max()


def scores(model, x):
    import chainer
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        return model.logits(x).array


def test_compare_runs_the_file_in_its_own_framework(tmp_path):
    torch.save(randomised("resnet50").state_dict(), tmp_path / "net.pth")
    model = pretrained.load("resnet50", tmp_path / "net.pth")
    judge, distance = compare(tmp_path / "net.pth", "torch", model)
    assert judge == "torchvision" and distance < 1e-5
    model.bn1.eps = np.float32(1e-2)
    assert compare(tmp_path / "net.pth", "torch", model)[1] > 1e-4
    assert models.ResNet50 is type(model)
