"""oneDNN's objects: memory descriptors, primitives that run on NumPy arrays, a cache of them."""

import contextlib
import ctypes
import functools
import os
import threading
import weakref
from ctypes import byref
from typing import NamedTuple

from rechainer.onednn import _library
from rechainer.onednn._library import (
    ALGORITHMS,
    ARGUMENTS,
    DATA_TYPES,
    DIMS,
    HANDLE,
    QUERIES,
    TAG_ANY,
    Argument,
)

#: What `per_thread` keeps; beyond it the oldest goes.
CACHE_SIZE = 2048


@functools.cache
def engine():
    """Return oneDNN's engine for the CPU."""
    made = HANDLE()
    _library.load().dnnl_engine_create(byref(made), 1, 0)
    return made


class _Thread(threading.local):
    """What each thread has of its own: primitives, because a call sets their memory objects."""

    def __init__(self):
        self.made = {}
        self.kept = weakref.WeakKeyDictionary()

    @functools.cached_property
    def stream(self):
        stream = HANDLE()
        _library.load().dnnl_stream_create(byref(stream), engine(), 1)
        return stream


_thread = _Thread()


def per_thread(make):
    """Cache the results of ``make`` by its arguments, for each thread apart."""

    @functools.wraps(make)
    def cached(*key):
        made = _thread.made
        key = (make, *key)
        if key not in made:
            if len(made) >= CACHE_SIZE:
                del made[next(iter(made))]
            made[key] = make(*key[1:])
        return made[key]

    return cached


def kept_for(owner):
    """Return a dictionary of what this thread keeps for an object, while that is alive."""
    return _thread.kept.setdefault(owner, {})


def _start_anew_in_child():
    # GNU's OpenMP cannot use the threads of its parent after a fork, and waits for them forever;
    # with one thread it needs none. Primitives remember how many threads they were made for.
    global _thread
    if _library.load.cache_info().currsize:
        _thread = _Thread()
        ctypes.CDLL("libgomp.so.1").omp_set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew_in_child)


class Layout:
    """A memory descriptor: shape, type, and strides counted in elements.

    Parameters
    ----------
    shape : tuple of int
    strides : tuple of int, optional
        Default: oneDNN shall choose the order it likes best.
    dtype : str
        A key of `DATA_TYPES`.
    """

    def __init__(self, shape, strides=None, dtype="float32"):
        self.handle = HANDLE()
        library = _library.load()
        start = byref(self.handle), len(shape), DIMS(*shape), DATA_TYPES[dtype]
        if strides is None:
            library.dnnl_memory_desc_create_with_tag(*start, TAG_ANY)
        else:
            library.dnnl_memory_desc_create_with_strides(*start, DIMS(*strides))
        weakref.finalize(self, library.dnnl_memory_desc_destroy, self.handle).atexit = False

    @property
    def size(self):
        """Bytes."""
        return _library.load().dnnl_memory_desc_get_size(self.handle)

    @classmethod
    def dense(cls, shape, dtype="float32"):
        """Return the layout of a C-contiguous array."""
        return cls(shape, dense_strides(shape), dtype)


def dense_strides(shape):
    """Return the strides, in elements, of a C-contiguous array."""
    strides = [1]
    for size in shape[:0:-1]:
        strides.insert(0, strides[0] * size)
    return tuple(strides)


class PostOps:
    """Attributes of an operation: what happens to its result before that is written.

    Parameters
    ----------
    add : Layout, optional
        Of an array that is added.
    activation : str, optional
        A key of `ALGORITHMS`, applied last.
    has_sum : bool
        Whether the result is added to what is there.
    """

    def __init__(self, add=None, activation=None, has_sum=False):
        self.handle, chain = HANDLE(), HANDLE()
        library = _library.load()
        library.dnnl_primitive_attr_create(byref(self.handle))
        weakref.finalize(self, library.dnnl_primitive_attr_destroy, self.handle).atexit = False
        library.dnnl_post_ops_create(byref(chain))
        if has_sum:
            library.dnnl_post_ops_append_sum(chain, 1, 0, 0)
        if add is not None:
            library.dnnl_post_ops_append_binary(chain, ALGORITHMS["binary_add"], add.handle)
        if activation is not None:
            library.dnnl_post_ops_append_eltwise(chain, ALGORITHMS[activation], 0, 0)
        library.dnnl_primitive_attr_set_post_ops(self.handle, chain)  # copies it
        library.dnnl_post_ops_destroy(chain)


class Description:
    """A primitive descriptor: an operation on given layouts, its implementation chosen.

    Parameters
    ----------
    kind : str
        As in ``dnnl_<kind>_primitive_desc_create``.
    *settings
        That function's arguments between the engine and the attributes (of a reorder: before
        the attributes); objects with a ``handle`` stand for it.
    post_ops : PostOps, optional
    skip : int
        Implementations to pass over, if there are as many more; they come in oneDNN's order.

    Raises
    ------
    Unsupported
        If oneDNN has no implementation.
    """

    def __init__(self, kind, *settings, post_ops=None, skip=0):
        self.handle = HANDLE()
        library = _library.load()
        create = getattr(library, f"dnnl_{kind}_primitive_desc_create")
        if kind != "reorder":
            settings = (engine(), *settings)
        create(byref(self.handle), *(getattr(s, "handle", s) for s in (*settings, post_ops)))
        weakref.finalize(self, library.dnnl_primitive_desc_destroy, self.handle).atexit = False
        with contextlib.suppress(_library.Unsupported):  # the last one stays
            for _ in range(skip):
                library.dnnl_primitive_desc_next_impl(self.handle)

    def layout(self, name):
        """Return the layout chosen for an argument of `QUERIES`; the description owns it."""
        query = _library.load().dnnl_primitive_desc_query_md
        return ChosenLayout(HANDLE(query(self.handle, QUERIES[name], 0)), self)


class ChosenLayout(NamedTuple):
    """A layout of oneDNN's choice, and the description it is part of."""

    handle: HANDLE
    owner: Description

    @property
    def size(self):
        """Bytes."""
        return _library.load().dnnl_memory_desc_get_size(self.handle)


class Primitive:
    """An operation that runs on arrays.

    Parameters
    ----------
    description : Description
    **layouts
        Name of each argument (of `ARGUMENTS`) to its layout, in the order of the call; None for
        the layout that the description chose.
    """

    def __init__(self, description, **layouts):
        library = _library.load()
        self.handle = HANDLE()
        library.dnnl_primitive_create(byref(self.handle), description.handle)
        weakref.finalize(self, library.dnnl_primitive_destroy, self.handle).atexit = False
        self.memories = [
            self._memory(layout or description.layout(name)) for name, layout in layouts.items()
        ]
        numbers = (ARGUMENTS[name] for name in layouts)
        self.arguments = (Argument * len(layouts))(*zip(numbers, self.memories, strict=True))
        self.set_address = library.dnnl_memory_set_data_handle
        self.execute = library.dnnl_primitive_execute

    def _memory(self, layout):
        library = _library.load()
        memory = HANDLE()
        library.dnnl_memory_create(byref(memory), layout.handle, engine(), None)
        weakref.finalize(self, library.dnnl_memory_destroy, memory).atexit = False
        return memory

    def __call__(self, *arrays):
        """Run on arrays of the layouts given; what is written to is an argument, too."""
        self.bind(*arrays)()

    def bind(self, *arrays):
        """Return the function that runs on these arrays, which the caller keeps alive."""
        for memory, array in zip(self.memories, arrays, strict=True):
            self.set_address(memory, array.ctypes.data)
        return self.run

    @functools.cached_property
    def run(self):
        """What runs on the arrays of the last `bind`."""
        return functools.partial(self.execute, self.handle, _thread.stream, len(self.memories),
                                 self.arguments)


class Sequence:
    """Primitives in their order, on numbered arrays that may be others each time."""

    def __init__(self):
        self._primitives, self._places, self._runs = [], [], []

    def add(self, primitive, *arguments):
        """Add a primitive of its own.

        Parameters
        ----------
        primitive : Primitive
        *arguments : numpy.ndarray or pair of int
            An array that is always the same, or the number of an array and where in it the
            argument begins, in elements of float32.
        """
        self._primitives.append(primitive)
        for memory, argument in zip(primitive.memories, arguments, strict=True):
            if isinstance(argument, tuple):
                number, start = argument
                self._places.append((memory, number, 4 * start))
            else:
                primitive.set_address(memory, argument.ctypes.data)
        self._runs.append(primitive.run)

    def bind(self, *arrays):
        """Return the function that runs on these arrays, which the caller keeps alive."""
        set_address = _library.load().dnnl_memory_set_data_handle
        addresses = [array.ctypes.data for array in arrays]
        for memory, number, start in self._places:
            set_address(memory, addresses[number] + start)
        return self._run

    def _run(self):
        for run in self._runs:
            run()


def reorder(source, target):
    """Return the primitive that copies from one layout to another."""
    description = Description("reorder", source, engine(), target, engine())
    return Primitive(description, src=source, dst=target)


def is_same(layout, other):
    """Tell whether two layouts are equal."""
    return bool(_library.load().dnnl_memory_desc_equal(layout.handle, other.handle))
