"""The process of one contestant: reads orders line by line, answers each with a line of JSON.

``python -m tests.bench.worker ENGINE NETWORK WORK BATCH``. Orders: ``run N`` (work N times; the
seconds of each on average, by the clock and of the processor), ``functions`` (milliseconds by
function of Chainer in one step), ``end`` (the peak of memory in MB).
"""

import contextlib
import gc
import json
import re
import resource
import sys
import time
from pathlib import Path

import rechainer  # noqa: F401

import chainer
import numpy as np

from .cases import Case
from .engines import ENGINES, PEAK_ENGINE

#: Seconds that a measurement takes at least, by repetition.
SHORTEST = 0.2


def main(engine, network, work, batch):
    case = Case(network, work, int(batch))
    step = ENGINES.get(engine, PEAK_ENGINE).make(case)
    forget_peak()
    output = np.asarray(step(), float).ravel()
    first, _ = timed(step, 1)
    if first < SHORTEST:
        first, _ = timed(step, 1)
    answer({"output": output.tolist(), "repeat": max(1, int(SHORTEST / first))})
    for line in sys.stdin:
        order, *count = line.split()
        if order == "run":
            answer(timed(step, int(*count)))
        elif order == "functions":
            answer(functions(step))
        else:
            answer(peak_memory())
            return


def answer(value):
    print(json.dumps(value), flush=True)


def timed(step, count):
    """Return the seconds of a step by the clock, and those that all threads computed."""
    start = time.perf_counter(), time.process_time()
    for _ in range(count):
        step()
    return ((time.perf_counter() - start[0]) / count, (time.process_time() - start[1]) / count)


class Calls(chainer.function_hooks.TimerHook):
    """Times each function called: forward, and in the backward pass those that it consists of.

    TimerHook also times the backward methods that call these, which would count them twice.
    """

    def backward_preprocess(self, function, in_data, out_grad):
        """Count nothing."""

    backward_postprocess = backward_preprocess


def functions(step):
    """Return {function: milliseconds} of one step."""
    with Calls() as hook:
        seconds, _ = timed(step, 1)
    parts = {name: 1000 * row["elapsed_time"] for name, row in hook.summary().items()}
    return parts | {"everything else": 1000 * seconds - sum(parts.values())}


def forget_peak():
    """Start measuring the peak of memory anew: what was needed to get ready does not count."""
    gc.collect()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory():
    """Return the largest resident memory in MB."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1000
    except (OSError, TypeError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


if __name__ == "__main__":
    main(*sys.argv[1:])
