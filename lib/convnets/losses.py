"""Losses for image classifiers."""

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
from chainer import reporter


class Classifier(L.Classifier):
    """A drop-in for `L.Classifier` whose loss is right in both modes.

    The tutorial's models return logits in train mode but probabilities in test
    mode, and ``F.softmax_cross_entropy`` applies softmax to whatever it gets.
    `L.Classifier` therefore evaluates with softmax twice: for ten classes the
    loss it shows cannot leave [1.4612, 2.4612]. This class asks the predictor
    for its ``logits`` in both modes.

    Parameters
    ----------
    predictor : chainer.Link
        A model with a method ``logits(x)`` giving (N, n_class). A model without
        one is called as it is and must return logits in both modes.
    label_smoothing : float
        Share of the target spread evenly over all classes during training,
        0 <= label_smoothing < 1 (Szegedy et al. 2016, section 7). Test mode
        always uses the plain loss.
    top_k : sequence of int
        Report ``accuracy_top{k}`` for each k besides ``accuracy``.

    Raises
    ------
    ValueError
        If `label_smoothing` or an entry of `top_k` is out of range.
    """

    def __init__(self, predictor, label_smoothing=0.0, top_k=()):
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), got {label_smoothing}")
        if any(k < 1 for k in top_k):
            raise ValueError(f"every entry of top_k must be at least 1, got {tuple(top_k)}")
        super().__init__(predictor)
        self.label_smoothing = label_smoothing
        self.top_k = tuple(top_k)

    def forward(self, x, t):
        """Return the mean cross entropy and report loss and accuracy.

        Parameters
        ----------
        x : array or chainer.Variable, shape (N, C, H, W)
        t : array or chainer.Variable, shape (N,), int32
            Class indices; -1 marks an example to ignore.

        Returns
        -------
        chainer.Variable
            A scalar.

        Raises
        ------
        ValueError
            If a label is not one of the model's classes (checked on the CPU only, where
            it costs nothing).
        """
        self.y = getattr(self.predictor, "logits", self.predictor)(x)
        check_labels(t, n_class=self.y.shape[1])
        self.loss = self._loss(self.y, t)
        reporter.report({"loss": self.loss}, self)
        if self.compute_accuracy:
            self.accuracy = F.accuracy(self.y, t, ignore_label=-1)
            reporter.report({"accuracy": self.accuracy}, self)
        for k in self.top_k:
            reporter.report({f"accuracy_top{k}": top_k_accuracy(self.y, t, k)}, self)
        return self.loss

    def _loss(self, y, t):
        loss = F.softmax_cross_entropy(y, t)
        if not (self.label_smoothing and chainer.config.train):
            return loss
        return (1 - self.label_smoothing) * loss + self.label_smoothing * _uniform_loss(y, t)


def check_labels(t, n_class):
    """Raise a ValueError unless labels on the processor are classes, or the one to ignore."""
    t = chainer.as_array(t)
    on_cpu = chainer.backend.get_array_module(t) is np
    if on_cpu and t.size and not (t.min() >= -1 and t.max() < n_class):
        raise ValueError(f"labels must lie in 0..{n_class - 1}, one for each of the model's "
                         f"{n_class} classes (-1 to ignore), got {t.min()}..{t.max()}. "
                         f"Build the model with n_class={max(t.max() + 1, 1)}, or mend the labels.")


def _uniform_loss(y, t):
    """Cross entropy of logits y (N, K) against the uniform distribution, over labels t != -1."""
    kept = chainer.as_array(t) != -1                       # (N,)
    per_example = -F.mean(F.log_softmax(y), axis=1)        # (N,)
    return F.sum(per_example * kept.astype(y.dtype)) / max(int(kept.sum()), 1)


def top_k_accuracy(y, t, k):
    """Return the share of examples whose label is among the k highest scores.

    Parameters
    ----------
    y : array or chainer.Variable, shape (N, n_class)
    t : array or chainer.Variable, shape (N,), int
        Class indices; -1 marks an example to ignore.
    k : int
        1 <= k <= n_class.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If k is larger than the number of classes.
    """
    y, t = chainer.as_array(y), chainer.as_array(t)
    if not 1 <= k <= y.shape[1]:
        raise ValueError(f"k must be in 1..{y.shape[1]} (the number of classes), got {k}")
    kept = t != -1
    best = y[kept].argsort(axis=1)[:, -k:]                 # (N, k)
    hits = (best == t[kept][:, None]).any(axis=1)
    return float(hits.mean()) if len(hits) else 0.0
