"""Logits to drag, and what softmax, applied once and twice, makes of them."""

import numpy as np

from ._base import Widget, table


class SoftmaxExplorer(Widget):
    """Made by `softmax_explorer`."""

    name = "softmax_explorer"
    label = "Softmax explorer: logits, probabilities and two losses"

    def __init__(self, logits, label, limit, caption, key):
        super().__init__(caption, key)
        self.logits, self.right, self.limit = logits, label, limit

    def state(self):
        return {"logits": self.logits, "label": self.right, "limit": self.limit}

    def fallback(self):
        return f"<p>Logits; class {self.right} is right:</p>" + table([self.logits], "logits")


def softmax_explorer(
    logits=(3, 0, 1, 0, -1, 0, 0, 2, 0, 0), label=0, *, limit=10, caption="", key=""
):
    """Let the reader drag logits and compare the true loss with that of a double softmax.

    Parameters
    ----------
    logits : sequence of K numbers
        The first state; from -limit to limit.
    label : int
        The right class.
    limit : number
        How far a logit can be dragged either way.
    caption, key : str
        See `Widget`.

    Returns
    -------
    SoftmaxExplorer
        Blue is softmax and its cross-entropy; orange is softmax of that, whose loss cannot leave
        log(e + K - 1) - 1 to log(e + K - 1): 1.4612 to 2.4612 for ten classes.

    Raises
    ------
    ValueError
        If there are fewer than two logits, one is out of range, or the label is no class.
    """
    values = [float(value) for value in logits]
    if len(values) < 2 or not np.all(np.abs(values) <= limit):
        raise ValueError(
            f"softmax_explorer: expected at least two logits from {-limit} to {limit}; got {values}"
        )
    if not 0 <= label < len(values):
        raise ValueError(f"softmax_explorer: label must be 0 to {len(values) - 1}; got {label}")
    return SoftmaxExplorer(values, int(label), limit, caption, key)
