"""``python -m tests.bench``: run the benchmarks, print a table, record it."""

import argparse
import importlib.metadata
import os
import sys

import rechainer
from convnets import results

from . import table
from .cases import CASES, NETWORKS
from .race import race

#: Versions that a record keeps beside those of every record.
DISTRIBUTIONS = ("torch", "onnxruntime")


def main():
    options = parse()
    cases = [c for c in CASES if c.network in options.only and c.work in options.work]
    load = [os.getloadavg()[0]]
    print(rechainer.info(), "\n\n", table.HEADING, sep="")
    rows = []
    for threads in options.threads:
        for case in cases:
            rows += (found := race(case, threads, options.rounds, progress))
            print(table.text(found), flush=True)
    if options.record:
        record(options, rows, [*load, os.getloadavg()[0]])


def parse():
    cores = os.cpu_count()
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--work", nargs="+", choices=("inference", "training"),
                        default=["inference", "training"])
    parser.add_argument("--threads", nargs="+", type=int, default=sorted({1, min(2, cores)}))
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contestant")
    parser.add_argument("--record", metavar="FILE", help="write the table as a recorded run")
    return parser.parse_args()


def progress(text):
    """Show what is going on, in one line that is overwritten, where someone looks."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="\r", file=sys.stderr, flush=True)


def record(options, rows, load):
    results.record(
        options.record, command=" ".join(["python -m tests.bench", *sys.argv[1:]]), seed=0,
        options={"rounds": options.rounds, "threads": options.threads,
                 "load": [round(x, 2) for x in load],
                 "oneDNN": rechainer.info()["parts"]["oneDNN"], **versions()},
        curve=rows)


def versions():
    """Return {distribution: version} of the other frameworks."""
    found = {}
    for name in DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


if __name__ == "__main__":
    main()
