"""Chainer's slowest loops in a browser's Python, which has no BLAS: WebAssembly with SIMD.

NumPy for WebAssembly multiplies matrices at about 1 GFLOP/s; with these kernels it is twenty times
as much. Convolutions, pooling and sigmoids of float32 need no array on the way, and random weights
come in half the time, the same ones. Nothing is to be switched on; elsewhere, and in a browser
without SIMD, Chainer is left as it is.

==================  ==============================================================
``kernels.py``      the loops, in a small part of Python
``_compiler``       makes a WebAssembly module of them
``_library``        the module in Python's own memory
``_operations``     the kernels on arrays
``_chainer``        Chainer's methods that call them
==================  ==============================================================
"""

from rechainer.wasm import _library
from rechainer.wasm._chainer import SEAMS

__all__ = ["SEAMS", "status"]


def status():
    """Say in one line what is active."""
    if not _library.is_possible():
        return "not needed: this Python is no WebAssembly program"
    if _library.load() is None:
        return "not used: this browser has no SIMD in WebAssembly"
    return "kernels for convolutions, products, pooling, sigmoid, random weights; float32"
