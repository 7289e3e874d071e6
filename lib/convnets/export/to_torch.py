"""Weights under the names that PyTorch's networks give them."""

from dataclasses import dataclass

import numpy as np
from chainer.backends import cuda

from ..files import written_whole
from ..pretrained.errors import WeightsError
from ..pretrained.families import FAMILIES
from ..pretrained.readers import read
from ..pretrained.transfer import arrays_for
from . import safetensors
from .errors import ExportError


@dataclass(frozen=True)
class ExportedWeights:
    """What `torch` has written; prints as a few lines.

    Attributes
    ----------
    path, family : str
    n_bytes, n_arrays, n_params : int
        Running averages are among the arrays and not among the parameters.
    """

    path: str
    family: str
    n_bytes: int
    n_arrays: int
    n_params: int

    def __str__(self):
        return (f"{self.path}: safetensors of the {self.family} family, {self.n_bytes:,} bytes\n"
                f"{self.n_arrays} arrays, {self.n_params:,} parameters, read back bit for bit\n"
                f"there: net.load_state_dict(safetensors.torch.load_file(path)); net.eval()")


def torch(model, path, family="torchvision"):
    """Write a model's weights as a ``.safetensors`` that a network of PyTorch takes as they are.

    The names come from the tables by which such files are read, `convnets.pretrained.families`,
    used backwards: so ``torchvision.models.resnet50().load_state_dict(...)`` takes the file, and
    in ``eval()`` gives the same scores. It holds no optimizer, no graph and no preprocessing.

    Parameters
    ----------
    model : convnets.models.VGG, ResNet or SqueezeNet
        On any device. One that was made narrower, or for smaller images, has the same names, but
        no constructor in torchvision.
    path : path
        The file to write, whole or not at all.
    family : str
        ``"torchvision"``; for a VGG also ``"timm"``, for a ResNet ``"huggingface"``.

    Returns
    -------
    ExportedWeights

    Raises
    ------
    ExportError
        If the family's names are not known for this kind of network, or the model computes with
        options that networks of the family do not have: these are in no weight file.
    """
    if not isinstance(model, tuple(FAMILIES)):
        raise ExportError(f"{type(model).__name__}: what PyTorch's networks call their weights is "
                          f"known for {', '.join(kind.__name__ for kind in FAMILIES)}. ONNX takes "
                          f"any model: give the file the ending .onnx, or use export.onnx")
    try:
        arrays = {name: np.asarray(cuda.to_cpu(array), np.float32)
                  for name, array in arrays_for(model, family).items()}
    except WeightsError as e:
        raise ExportError(str(e)) from e
    with written_whole(path) as file:
        safetensors.write(file, arrays)
        file.flush()
        n_bytes, found = file.tell(), read(file.name).arrays
        if found.keys() != arrays.keys() or any(
                found[name].tobytes() != array.tobytes() for name, array in arrays.items()):
            raise ExportError(f"{path} does not hold what was written; is the disk full or "
                              f"damaged?")
    n_params = sum(array.size for name, array in arrays.items() if ".running_" not in name)
    return ExportedWeights(str(path), family, n_bytes, len(arrays), n_params)
