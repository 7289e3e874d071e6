"""What Chainer uses of ``cupyx``."""

import sys
import types

import numpy


def rsqrt(x, dtype=None):
    return 1 / numpy.sqrt(x, dtype=dtype)


for _name in ("scipy", "scipy.linalg", "scipy.special"):
    sys.modules[f"{__name__}.{_name}"] = types.ModuleType(f"{__name__}.{_name}")
scipy = sys.modules[f"{__name__}.scipy"]
