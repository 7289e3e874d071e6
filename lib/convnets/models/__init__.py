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
from .weights import copy_weights, links_in_order

__all__ = [
    "FORMS", "ImageClassifier", "LeNet5", "LeNet5ChainList", "LeNet5List", "LeNet5Sequential",
    "as_images", "copy_weights", "lenet5_sequential", "links_in_order",
]
