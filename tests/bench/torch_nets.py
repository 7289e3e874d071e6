"""The networks as PyTorch has them, with the weights of Chainer's.

Layers stand in the order in which Chainer's models have them.
"""

from convnets.models import links_in_order
from convnets.models.resnet import BLOCKS, STAGES
from convnets.models.vgg import CONFIGS

import torch
from torch import nn


def lenet5():
    return nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.Sigmoid(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), nn.Sigmoid(), nn.MaxPool2d(2),
        nn.Conv2d(16, 120, 4), nn.Sigmoid(), nn.Flatten(),
        nn.Linear(120, 84), nn.Sigmoid(), nn.Linear(84, 10))


def vgg16():
    layers, n_in = [], 3
    for n_channels, n_convs in CONFIGS["vgg16"]:
        for _ in range(n_convs):
            layers += [nn.Conv2d(n_in, n_channels, 3, 1, 1), nn.ReLU(inplace=True)]
            n_in = n_channels
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(
        *layers, nn.Flatten(),
        nn.Linear(25088, 4096), nn.ReLU(inplace=True), nn.Dropout(),
        nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(4096, 1000))


def conv_bn(n_in, n_out, ksize, stride):
    return (nn.Conv2d(n_in, n_out, ksize, stride, ksize // 2, bias=False),
            nn.BatchNorm2d(n_out, eps=2e-5))


class BottleNeck(nn.Module):
    """See `convnets.models.BottleNeck`."""

    def __init__(self, n_in, n_mid, n_out, stride, proj):
        super().__init__()
        self.conv1, self.bn1 = conv_bn(n_in, n_mid, 1, stride)
        self.conv2, self.bn2 = conv_bn(n_mid, n_mid, 3, 1)
        self.conv3, self.bn3 = conv_bn(n_mid, n_out, 1, 1)
        self.proj = proj
        if proj:
            self.conv4, self.bn4 = conv_bn(n_in, n_out, 1, stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        h = self.relu(self.bn1(self.conv1(x)))
        h = self.relu(self.bn2(self.conv2(h)))
        h = self.bn3(self.conv3(h))
        if self.proj:
            x = self.bn4(self.conv4(x))
        h += x
        return self.relu(h)


def resnet(depth):
    layers = [*conv_bn(3, 64, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
    for n, (n_in, n_mid, n_out, stride) in zip(BLOCKS[depth], STAGES.values(), strict=True):
        layers.append(BottleNeck(n_in, n_mid, n_out, stride, True))
        layers += [BottleNeck(n_out, n_mid, n_out, 1, False) for _ in range(n - 1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))


NETWORKS = {"lenet5": lenet5, "vgg16": vgg16, "resnet50": lambda: resnet(50),
            "resnet152": lambda: resnet(152)}


def network(name, model):
    """Return PyTorch's network with the weights of Chainer's."""
    net = NETWORKS[name]()
    layers = [m for m in net.modules() if list(m.parameters(recurse=False))]
    for layer, link in zip(layers, links_in_order(model), strict=True):
        for name, parameter in layer.named_parameters():
            parameter.data.copy_(torch.from_numpy(_source(link, name)))
    return net


def _source(link, name):
    names = {"weight": ("W", "gamma"), "bias": ("b", "beta")}[name]
    return next(getattr(link, n).array for n in names if getattr(link, n, None) is not None)


def folded(net):
    """Return the network with its batch normalizations folded into its convolutions."""
    from torch.fx.experimental.optimization import fuse

    return fuse(net)
