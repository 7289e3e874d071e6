"""Memory of arrays, used again.

A large array that is freed goes back to the system, which fills the next one with zeros, page by
page; that takes a tenth of the time of a training step. Here memory waits for the next array.
"""

import contextlib
import ctypes
import math
import os
import threading
from collections import OrderedDict

import numpy

#: Smaller arrays (bytes) are NumPy's own matter: it and the C library keep memory for them.
SMALLEST = 1 << 16

#: Memory may be taken for an array that leaves less than this share of it unused.
WASTE = 1 / 8


class Block:
    """Memory of one array, which it gives back to the pool when the array and its views die."""

    __slots__ = "__array_interface__", "memory", "pool"

    def __init__(self, memory, pool):
        self.memory, self.pool = memory, pool
        self.__array_interface__ = memory.__array_interface__

    def __del__(self):
        self.pool.give(self.memory)


class Pool:
    """Memory that is in use and that waits.

    Both together never grow beyond what was in use at some time, so that the program's peak is
    what it would be without.
    """

    def __init__(self):
        self._waiting = OrderedDict()      # id -> memory, the longest waiting first
        self._lock = threading.RLock()     # a garbage collection may call `give` at any time
        self.used = self.most = self.spare = 0

    def take(self, size):
        """Return memory of at least `size` bytes as an array of bytes."""
        with self._lock:
            memory = self._fitting(size)
            if memory is None:
                memory = numpy.empty(size, numpy.uint8)
            self.used += memory.size
            self.most = max(self.most, self.used)
            self._shrink(self.most - self.used)
        return numpy.asarray(Block(memory, self))

    def _fitting(self, size):
        fitting = [m for m in self._waiting.values() if size <= m.size <= size * (1 + WASTE)]
        if not fitting:
            return None
        memory = min(reversed(fitting), key=len)     # the last one is likeliest in a cache
        del self._waiting[id(memory)]
        self.spare -= memory.size
        return memory

    def give(self, memory):
        """Take memory back."""
        with self._lock:
            self.used -= memory.size
            self.spare += memory.size
            self._waiting[id(memory)] = memory

    def _shrink(self, size):
        while self.spare > size:
            _, memory = self._waiting.popitem(last=False)
            self.spare -= memory.size

    def free(self):
        """Give all memory that waits back to the system."""
        with self._lock:
            self.most = self.used
            self._shrink(0)


pool = Pool()


def free_memory():
    """Give memory that is not in use back to the system: the pool's, and GNU's C library's."""
    pool.free()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _unlock_in_child():
    pool._lock = threading.RLock()    # another thread of the parent may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock_in_child)


def empty(shape, dtype):
    """Return an uninitialized C-contiguous array."""
    size = math.prod(shape) * dtype.itemsize
    if size < SMALLEST:
        return numpy.empty(shape, dtype)
    return pool.take(size)[:size].view(dtype).reshape(shape)
