"""What is measured."""

from typing import NamedTuple

from convnets import models

import numpy as np

#: Name -> constructor.
NETWORKS = {
    "lenet5": models.LeNet5,
    "vgg16": models.VGG16,
    "resnet50": models.ResNet50,
    "resnet152": models.ResNet152,
}

#: Network -> (work, batch sizes).
WORK = {
    "lenet5": (("inference", (1, 8)), ("training", (32, 128))),
    "vgg16": (("inference", (1, 8)), ("training", (8,))),
    "resnet50": (("inference", (1, 8)), ("training", (8,))),
    "resnet152": (("inference", (1, 8)), ("training", (8,))),
}

#: Operations of a training step for one of inference: outputs, gradients of maps and of weights.
PASSES = {"inference": 1, "training": 3}


class Case(NamedTuple):
    """One network, one kind of work, one batch size."""

    network: str
    work: str
    batch: int

    def __str__(self):
        return f"{self.network}, {self.work}, batch {self.batch}"


CASES = [Case(network, work, batch) for network, works in WORK.items()
         for work, batches in works for batch in batches]


def model_of(network):
    """Return a Chainer model; its weights are the same in every process."""
    np.random.seed(0)
    return NETWORKS[network]()


def batch_of(model, n):
    """Return images (N, C, H, W) and labels, the same in every process."""
    rng = np.random.RandomState(1)
    return rng.rand(n, *model.in_shape).astype(np.float32), rng.randint(0, 10, n).astype(np.int32)
