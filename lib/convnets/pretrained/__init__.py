"""Published weights for VGG and ResNet, from the files of any framework.

A constructor in `convnets.models` never touches disk or network. `load_weights` fills a model
from a file, `load` gives model and weights in one call, `convert` writes what was read as npz.
"""

from .errors import WeightsError
from .loading import ARCHITECTURES, convert, load, load_weights
from .transfer import Report

__all__ = ["ARCHITECTURES", "Report", "WeightsError", "convert", "load", "load_weights"]
