"""Memory of arrays that is used again."""

import gc
import threading

import rechainer  # noqa: F401
from rechainer.onednn import _memory
from rechainer.onednn._memory import SMALLEST, Pool

import numpy as np
import pytest

SIZE = 4 * SMALLEST


@pytest.fixture
def pool(monkeypatch):
    pool = Pool()
    monkeypatch.setattr(_memory, "pool", pool)
    return pool


def address(array):
    return array.__array_interface__["data"][0]


def test_memory_is_used_again_when_the_last_view_is_gone(pool):
    x = pool.take(SIZE)
    place, view = address(x), x[10:].reshape(2, -1).T
    del x
    y = pool.take(SIZE)
    assert address(y) != place
    del view
    assert (pool.used, pool.spare) == (SIZE, SIZE)
    assert address(pool.take(SIZE)) == place


@pytest.mark.parametrize("size, is_taken", [
    (SIZE, True), (SIZE - 1, True), (SIZE + 1, False), (SIZE // 2, False)])
def test_only_memory_of_nearly_the_size_is_taken(pool, size, is_taken):
    kept = pool.take(SIZE)     # so that two may wait
    place = address(pool.take(SIZE))
    assert (address(pool.take(size)) == place) == is_taken
    del kept


def test_never_more_than_was_in_use_at_some_time(pool):
    rng = np.random.RandomState(0)
    held = []
    for _ in range(500):
        if len(held) > 5 or (held and rng.rand() < 0.5):
            del held[rng.randint(len(held))]
        else:
            held.append(pool.take(int(rng.randint(SIZE, 3 * SIZE))))
        assert pool.used == sum(x.base.memory.size for x in held)
        assert pool.used + pool.spare <= pool.most
        assert pool.spare == sum(m.size for m in pool._waiting.values())


def test_memory_can_be_given_back(pool):
    x = pool.take(SIZE)
    del x
    assert pool.spare == SIZE
    pool.free()
    assert (pool.used, pool.spare, pool.most) == (0, 0, 0)


def test_arrays_do_not_meet(pool):
    arrays = [_memory.empty((n, SIZE // 8), np.dtype("f")) for n in range(1, 9)]
    for n, array in enumerate(arrays):
        array.fill(n)
    for n, array in enumerate(arrays):
        assert (array == n).all()
        assert array.flags.c_contiguous
        assert array.flags.writeable


def test_small_arrays_are_numpy_s(pool):
    assert _memory.empty((SMALLEST // 4 - 1,), np.dtype("f")).base is None
    assert _memory.empty((0, 5), np.dtype("f")).shape == (0, 5)
    assert pool.used == 0


def test_threads_share_it(pool):
    wrong = []

    def work(n):
        for _ in range(200):
            x = _memory.empty((SIZE,), np.dtype("u1"))
            x.fill(n)
            y = _memory.empty((2 * SIZE,), np.dtype("u1"))
            y.fill(n + 100)
            wrong.extend([n] * (not ((x == n).all() and (y == n + 100).all())))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    assert not wrong
    assert pool.used == 0
