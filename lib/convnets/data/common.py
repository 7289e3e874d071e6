"""What all data sets share: their error and their tuples."""

import chainer
import numpy as np


class DataError(RuntimeError):
    """A data file is missing, cut short or altered."""


def tuple_dataset(name, part, images, labels, n):
    """Return the first n examples (all for None) as Chainer's loaders give them.

    Parameters
    ----------
    name, part : str
        For the error: the set, and ``"train"`` or ``"test"``.
    images : numpy.ndarray, shape (N, C, H, W), uint8
    labels : numpy.ndarray, shape (N,), uint8
    n : int or None

    Returns
    -------
    chainer.datasets.TupleDataset
        Pairs of an image, float32 (C, H, W) in 0..1, and a label, int32.

    Raises
    ------
    ValueError
        If `n` is not in 1..N.
    """
    if n is not None and not 1 <= n <= len(images):
        raise ValueError(f"n_{part} must be in 1..{len(images)} for {name}, got {n}")
    # Multiplied, not divided: to the last bit what Chainer's own loaders give.
    x = images[:n].astype(np.float32)
    x *= np.float32(1 / 255)
    return chainer.datasets.TupleDataset(x, labels[:n].astype(np.int32))
