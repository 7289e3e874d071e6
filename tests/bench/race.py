"""Contestants in turn."""

import json
import os
import statistics
import subprocess
import sys
import time

from convnets.inspect import summary

import numpy as np

from .cases import PASSES, model_of
from .engines import ENGINES, PEAK_ENGINE, PEAK_OPERATIONS, REFERENCE

#: How far outputs may be apart, of the largest. A loss of training is random where dropout is.
TOLERANCE = {"inference": 1e-3, "training": 0.2}

#: After a step its threads wait for more to do, for a while, and hinder others (seconds).
PAUSE = 0.02


class Worker:
    """A contestant's process."""

    def __init__(self, engine, case, threads):
        command = [sys.executable, "-m", "tests.bench.worker", engine, *map(str, case[:])]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, **environment(engine, threads)})
        self.name, self.seconds = engine, []
        ready = self._answer()
        self.output, self.repeat = np.array(ready["output"]), ready["repeat"]

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process of {self.name} ended with "
                               f"{self.process.wait()}; its message stands above")
        return json.loads(line)

    def ask(self, order):
        """Send an order and return the answer."""
        self.process.stdin.write(f"{order}\n")
        self.process.stdin.flush()
        return self._answer()

    def run(self):
        """Take a turn."""
        time.sleep(PAUSE)
        self.seconds.append(self.ask(f"run {self.repeat}"))

    def end(self):
        """Return the peak of memory in MB and end the process."""
        peak = self.ask("end")
        self.process.wait()
        return peak


def environment(engine, threads):
    """Return the variables that give an engine its threads.

    NumPy's products, OpenBLAS, work in stock Chainer only; elsewhere its threads would hinder
    those of OpenMP.
    """
    return {"OMP_NUM_THREADS": str(threads),
            "OPENBLAS_NUM_THREADS": str(threads if engine == "stock" else 1),
            "CHAINER_WARN_VERSION_MISMATCH": "0", "PYTHONWARNINGS": "ignore"}


def contestants(case):
    """Return the names of engines that take part."""
    return [name for name, engine in ENGINES.items()
            if case.work in engine.works and engine.is_there()]


def race(case, threads, rounds, progress=lambda text: None):
    """Let all contestants work in turn and return a row (dict) for each."""
    names = contestants(case)
    workers = []
    for name in [*names, *(["peak"] if PEAK_ENGINE.is_there() else [])]:
        progress(f"{case}, {threads} threads: {name} gets ready")
        workers.append(Worker(name, case, threads))
    _compare({w.name: w.output for w in workers if w.name in ENGINES}, case)
    for i in range(rounds):
        progress(f"{case}, {threads} threads: round {i + 1} of {rounds}")
        for worker in workers:
            worker.run()
    functions = {w.name: w.ask("functions") for w in workers if w.name in ("stock", "ours")}
    found = {w.name: (*zip(*w.seconds, strict=True), w.end()) for w in workers}
    return _rows(case, threads, found, functions)


def _compare(outputs, case):
    expected = outputs["stock"]
    for name, output in outputs.items():
        error = np.abs(output - expected).max() / np.abs(expected).max()
        if not error <= TOLERANCE[case.work]:
            raise AssertionError(f"{case}: {name} computes something else than stock Chainer "
                                 f"(difference {error:.2g} of the largest output)")


def _rows(case, threads, found, functions):
    median = {name: statistics.median(seconds) for name, (seconds, _, _) in found.items()}
    # What others do on a shared machine makes steps longer, hardly ever shorter.
    least = {name: min(seconds) for name, (_, seconds, _) in found.items()}
    flops = operations(case)
    peak = PEAK_OPERATIONS / least["peak"] if "peak" in least else None
    return [{
        **case._asdict(), "threads": threads, "engine": name, "ms": round(1000 * median[name], 3),
        "best_ms": round(1000 * min(found[name][0]), 3),
        "ratio": _rounded(median[name], median.get(REFERENCE)),
        "cpu_ms": round(1000 * least[name], 3),
        "cpu_ratio": _rounded(least[name], least.get(REFERENCE)),
        "peak_mb": round(found[name][2]), "gflops": round(flops / least[name] / 1e9, 1),
        "share_of_peak": _rounded(flops / least[name], peak),
        "functions": {k: round(v, 3) for k, v in functions.get(name, {}).items()},
    } for name in found if name in ENGINES]


def _rounded(value, unit):
    return None if unit is None else round(value / unit, 3)


def operations(case):
    """Return the floating-point operations of a step: twice the multiply-adds of its layers."""
    model = model_of(case.network)
    return 2 * summary(model, (1, *model.in_shape)).macs * case.batch * PASSES[case.work]
