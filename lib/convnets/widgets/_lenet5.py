"""A digit to draw, and what each layer of a trained LeNet5 makes of it."""

import base64

import chainer
import numpy as np

from ._base import Widget, table

# Parameters in the order in which the script reads them, with their shapes.
SHAPES = (
    ("conv1/W", (6, 1, 5, 5)), ("conv1/b", (6,)),
    ("conv2/W", (16, 6, 5, 5)), ("conv2/b", (16,)),
    ("conv3/W", (120, 16, 4, 4)), ("conv3/b", (120,)),
    ("fc4/W", (84, 120)), ("fc4/b", (84,)),
    ("fc5/W", (10, 84)), ("fc5/b", (10,)),
)  # fmt: skip


class LeNet5Explorer(Widget):
    """Made by `lenet5_explorer`."""

    name = "lenet5_explorer"
    label = "LeNet5 explorer: draw a digit, see every layer"

    def __init__(self, weights, digits, labels, probabilities, caption, key):
        super().__init__(caption, key)
        self.weights, self.digits, self.labels = weights, digits, labels
        self.probabilities = probabilities

    def state(self):
        return {
            "weights": base64.b64encode(self.weights.tobytes()).decode(),
            "digits": [base64.b64encode(digit.tobytes()).decode() for digit in self.digits],
            "labels": self.labels,
        }

    def fallback(self):
        return f"<p>Probabilities of 0 to 9 for the digit {self.labels[0]}:</p>" + table(
            np.round([self.probabilities], 4), "probabilities"
        )


def lenet5_explorer(model, images, labels, *, caption="", key=""):
    """Let the reader draw a digit and watch each layer of a LeNet5 change with every stroke.

    The network is computed in the page, with the weights that `model` has now: 280,000
    multiplications, at once on any machine. All 44,426 weights travel with the figure (240 kB).

    Parameters
    ----------
    model : convnets.models.LeNet5
        With ten classes. Trained, or the figure shows how little a fresh one tells digits apart.
    images : array_like, (N, 1, 28, 28)
        Digits to start from, values 0 to 1; stored in 256 steps, as MNIST has them.
    labels : sequence of N
        Names of these digits, for the buttons that choose one.
    caption, key : str
        See `Widget`.

    Returns
    -------
    LeNet5Explorer

    Raises
    ------
    ValueError
        If the model's parameters are not those of LeNet5, or images and labels do not fit.
    """
    digits = np.asarray(images, dtype=np.float32)
    labels = [str(label) for label in labels]
    if digits.shape != (len(labels), 1, 28, 28) or not labels:
        raise ValueError(
            f"lenet5_explorer: images must be (N, 1, 28, 28), with N labels; got shape"
            f" {np.shape(images)} and {len(labels)} labels"
        )
    if digits.min() < 0 or digits.max() > 1:
        raise ValueError(
            f"lenet5_explorer: values of images must be 0 to 1; got {digits.min():g} to"
            f" {digits.max():g}"
        )
    weights = _weights(model)
    digits = np.rint(255 * digits).astype(np.uint8)
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        probabilities = model(digits[:1].astype(np.float32) / 255).array[0]
    return LeNet5Explorer(weights, digits, labels, probabilities, caption, key)


def _weights(model):
    """All parameters of a LeNet5 as one float32 array, in the order of SHAPES."""
    found = {name.lstrip("/"): it.array for name, it in model.namedparams()}
    for name, shape in SHAPES:
        got = getattr(found.get(name), "shape", None)
        if got != shape:
            raise ValueError(
                f"lenet5_explorer: model must be a LeNet5 with ten classes, whose {name} has the"
                f" shape {shape}; got {got or 'no such parameter'} in {type(model).__name__}"
            )
    parts = [chainer.backend.CpuDevice().send(found[name]).ravel() for name, _ in SHAPES]
    return np.concatenate(parts).astype("<f4")
