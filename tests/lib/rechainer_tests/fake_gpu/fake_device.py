"""Import this before Chainer: CuPy, cuDNN and a driver seem to be here, all of them NumPy."""

import functools

import rechainer
from rechainer.cudnn import _library

import libcudnn

_library.path = lambda: "libcudnn.so.9"
_library.load = functools.cache(
    lambda: libcudnn.load(_library.DECLARATIONS, _library.checked))
rechainer._cupy.has_driver = lambda: True
