"""Training in half precision with weights kept in full precision, Chainer's ``mixed16``.

Images, activations and weights are float16; each weight has a float32 original, which the optimizer
updates and rounds (Micikevicius et al. 2018, Mixed precision training). Batch normalization keeps
float32 parameters and statistics. The loss is scaled, so that small gradients do not become zero.
"""

import chainer
import numpy as np
from chainer.training import Extension

PRECISIONS = (None, "mixed16")
# Constant: a scale that adapts would wait for the GPU at each parameter of each step, and is no
# part of a snapshot.
LOSS_SCALE = 1024


class Originals(Extension):
    """The float32 originals of a model's weights: in each snapshot, and back at the end.

    Parameters
    ----------
    optimizer : chainer.GradientMethod
        Set up for the model, which becomes float16 here.

    Raises
    ------
    ValueError
        If a parameter has no values yet.
    """

    name = "Originals"

    def __init__(self, optimizer):
        self.weights = _weights(optimizer.target)
        optimizer.use_fp32_update()
        optimizer.loss_scaling(scale=LOSS_SCALE)
        for weight in self.weights.values():
            weight.update_rule._fp32_param = chainer.Parameter(weight.array)
            _replace(weight, weight.array.astype(np.float16))

    def __call__(self, trainer):
        """Do nothing: it is there to be part of the snapshot."""

    def serialize(self, serializer):
        for path, weight in self.weights.items():
            original = weight.update_rule._fp32_param
            original.array = serializer(path.strip("/").replace("/", "."), original.array)

    def finalize(self):
        """Give the model its originals: it is float32 again, and as exact as it was trained."""
        for weight in self.weights.values():
            _replace(weight, weight.update_rule._fp32_param.array)


def half(model):
    """Round a model's weights to float16, without those of batch normalization.

    Parameters
    ----------
    model : chainer.Link

    Raises
    ------
    ValueError
        If a parameter has no values yet.
    """
    for weight in _weights(model).values():
        _replace(weight, weight.array.astype(np.float16))


def _weights(model):
    """Return a model's parameters by path, without those of batch normalization."""
    norms = [link for link in model.links() if isinstance(link, chainer.links.BatchNormalization)]
    kept = {id(parameter) for link in norms for parameter in link.params()}
    found = {path: p for path, p in sorted(model.namedparams()) if id(p) not in kept}
    empty = [path for path, parameter in found.items() if parameter.array is None]
    if empty:
        raise ValueError(f"precision='mixed16' needs a model with values; {', '.join(empty)} get "
                         f"theirs when the model is first called: call it once with an image")
    return found


def _replace(parameter, array):
    parameter.array = array
    parameter.cleargrad()
