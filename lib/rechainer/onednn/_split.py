"""Parts of a batch, each computed by a thread of its own from the first layer to the last.

Threads that share each operation meet at its end, hundreds of times in a deep network; one that
does not get a processor just then holds up the others. And what one has computed lies in another's
cache. Parts need to meet once.
"""

import concurrent.futures
import functools
import os
from concurrent.futures import ThreadPoolExecutor

from rechainer.onednn._products import openmp


@functools.cache
def _worker(number):
    """Return a thread for jobs one after the other; oneDNN gives it no others for help."""
    return ThreadPoolExecutor(1, f"part {number}", openmp().omp_set_num_threads, (1,))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_worker.cache_clear)    # the child has none of the threads


class Split:
    """Programs that do the same with equal parts of a batch.

    Parameters
    ----------
    count : int
        Of parts.
    build : callable
        Returns a new program for a part, and the values that it shall return. It runs in the thread
        that will run the program.
    """

    def __init__(self, count, build):
        self._workers = [_worker(i) for i in range(count)]
        self._parts = [worker.submit(build).result() for worker in self._workers]

    def bind(self, x, *ys):
        """Return the function that computes results from x, all for the whole batch."""
        for i, worker in enumerate(self._workers):
            worker.submit(self._place, i, x, *ys).result()
        return self._run

    def _place(self, i, *arrays):
        program, results = self._parts[i]
        size = program.input.shape[0]
        for value, array in zip((program.input, *results), arrays, strict=True):
            value.array = array[i * size:(i + 1) * size]
        program.finish(*results)

    def _run(self):
        jobs = [worker.submit(program.execute)
                for worker, (program, _) in zip(self._workers, self._parts, strict=True)]
        concurrent.futures.wait(jobs)
        for job in jobs:
            job.result()
