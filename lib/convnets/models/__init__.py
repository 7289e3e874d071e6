"""Convolutional networks as plain Chainer models."""

from .base import ImageClassifier, as_images
from .lenet5 import (
    FORMS,
    LeNet5,
    LeNet5ChainList,
    LeNet5List,
    LeNet5Sequential,
    lenet5_sequential,
)
from .resnet import (
    BasicBlock,
    BottleNeck,
    CifarResNet,
    Plain20,
    Plain32,
    Plain44,
    Plain56,
    Plain110,
    ResBlock,
    ResNet,
    ResNet20,
    ResNet32,
    ResNet44,
    ResNet50,
    ResNet56,
    ResNet101,
    ResNet110,
    ResNet152,
)
from .squeezenet import Fire, SqueezeNet
from .vgg import VGG, VGG16, VGG19, VGGBlock, VGGSmall
from .weights import copy_weights, links_in_order

__all__ = [
    "FORMS", "VGG", "VGG16", "VGG19", "BasicBlock", "BottleNeck", "CifarResNet", "Fire",
    "ImageClassifier", "LeNet5", "LeNet5ChainList", "LeNet5List", "LeNet5Sequential",
    "Plain20", "Plain32", "Plain44", "Plain56", "Plain110", "ResBlock", "ResNet", "ResNet20",
    "ResNet32", "ResNet44", "ResNet50", "ResNet56", "ResNet101", "ResNet110", "ResNet152",
    "SqueezeNet", "VGGBlock", "VGGSmall", "as_images", "copy_weights", "lenet5_sequential",
    "links_in_order",
]
