"""Chainer's questions about arrays have the same answers as without the shortcuts."""

import rechainer  # noqa: F401

import chainer
import numpy as np
import pytest
from chainer import backend


class Array(np.ndarray):
    """Not quite NumPy's array."""


ARRAYS = {
    "none": (), "plain": (np.ones(2), np.ones(3)), "None among them": (None, np.ones(1)),
    "subclass": (np.ones(2).view(Array), np.ones(2)), "scalar": (np.float32(1), np.ones(1)),
    "number": (1.0,), "list": ([1.0], np.ones(1)),
}  # fmt: skip


@pytest.mark.parametrize("arrays", ARRAYS.values(), ids=ARRAYS)
def test_compatible_or_not(arrays):
    ordinary = chainer.is_arrays_compatible.__wrapped__
    assert chainer.is_arrays_compatible(arrays) == ordinary(arrays)
    assert chainer.is_arrays_compatible(list(arrays)) == ordinary(arrays)


@pytest.mark.parametrize("arrays", ARRAYS.values(), ids=ARRAYS)
def test_device(arrays):
    ordinary = backend.get_device_from_array.__wrapped__
    assert backend.get_device_from_array(*arrays) == ordinary(*arrays)
    assert chainer.backend.get_device_from_array(*arrays).xp is np


def test_mixed_inputs_are_still_refused():
    with pytest.raises(TypeError, match="incompatible array types"):
        chainer.utils._check_arrays_forward_compatible((np.ones(1), "no array"))
