"""Convolutional networks in Chainer: models, losses, data, training and figures to learn from.

``import convnets`` makes Chainer 7.8.1 ready for today's Python and NumPy
(`rechainer`), so it comes before ``import chainer``.
"""

import rechainer  # noqa: F401  must come before anything that imports chainer

from . import data, inspect, losses, models, pretrained, results  # isort: skip
from .optimize import optimize  # isort: skip
from .training import train, trainer  # isort: skip

__all__ = ["data", "inspect", "losses", "models", "optimize", "pretrained", "results", "train",
           "trainer"]
__version__ = "0.1.0"
