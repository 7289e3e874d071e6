"""``python -m tests.bench``: run the benchmarks, print a table, record it."""

import argparse
import importlib.metadata
import os
import sys
from pathlib import Path

import rechainer
from convnets import results

from . import table
from .cases import CASES, NETWORKS, Case
from .race import race

#: Versions that a record keeps beside those of every record.
DISTRIBUTIONS = ("torch", "onnxruntime")


def main():
    options = parse()
    cases = [c for c in CASES if c.network in options.only and c.work in options.work]
    print(rechainer.info(), "\n\n", table.HEADING, sep="")
    rows = []
    for threads in options.threads:
        for case in cases:
            rows += (found := race(case, threads, options.rounds, progress))
            print(table.text(found), flush=True)
            for row in found:
                row["load"] = round(os.getloadavg()[0], 2)
            if options.record:    # what there is, even if the rest is interrupted
                record(options, rows)


def parse():
    cores = os.cpu_count()
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--work", nargs="+", choices=("inference", "training"),
                        default=["inference", "training"])
    parser.add_argument("--threads", nargs="+", type=int, default=sorted({1, min(2, cores)}))
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contestant")
    parser.add_argument("--record", metavar="FILE",
                        help="write the table as a recorded run; other cases in it are kept")
    return parser.parse_args()


def progress(text):
    """Show what is going on, in one line that is overwritten, where someone looks."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="\r", file=sys.stderr, flush=True)


def record(options, rows):
    """Write a recorded run; what it has of other cases stays, with the commands that made it."""
    command, kept = " ".join(["python -m tests.bench", *sys.argv[1:]]), []
    commands = [command]
    if Path(options.record).exists():
        before = results.load(options.record)
        measured = {case_of(row) for row in rows}
        kept = [row for row in before["curve"] if case_of(row) not in measured]
        commands = [*(c for c in before["options"]["commands"] if c != command), command]
    results.record(
        options.record, command=command, seed=0,
        options={"commands": commands, "rounds": options.rounds,
                 "oneDNN": rechainer.info()["parts"]["oneDNN"], **versions()},
        curve=sorted(kept + rows, key=lambda row: order(case_of(row))))


def case_of(row):
    """Return a row's case and its threads."""
    return Case(row["network"], row["work"], row["batch"]), row["threads"]


def order(key):
    """Return where a case stands in the table."""
    case, threads = key
    return threads, CASES.index(case)


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
