"""All parts, each in a process and a time of its own; the report, and the record."""

import argparse
import functools
import itertools
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

import rechainer
from convnets import devices, gpu_record, results

import chainer

from tests.bench.gpu import __doc__ as description

from .checks import check_dropout, check_fusion, check_operations, growing, run_own_tests
from .kernels import ceilings, time_kernels
from .race import ROWS, ROWS_COMPILED, SMALL_ROWS, time_row, torch
from .ways import (
    INFERRED,
    SMALL_WAYS,
    WAYS_TO_TRAIN,
    check_ways_to_infer,
    check_ways_to_train,
)

#: Seconds for all parts together, for one, and for one that compiles or chooses many plans.
BUDGET, LIMIT, LONG = 570, 75, 150
LONG_PARTS = ("ways to train", "ways to infer", "Chainer's own tests")
#: How a part is run in a process of its own.
CHILD = [sys.executable, "-m", "tests.bench.gpu"]
ROUNDS = 15


def parts(args, device):
    """Return the function of every part by name, most important first."""
    found = {"operations": lambda: growing(itertools.chain(
        check_operations(device), check_dropout(device), check_fusion(device)))}
    ways = SMALL_WAYS if args.small else WAYS_TO_TRAIN
    found["ways to train"] = lambda: growing(check_ways_to_train(device, ways))
    networks = ["CIFAR"] if args.small else INFERRED
    found["ways to infer"] = lambda: growing(check_ways_to_infer(device, networks))
    if not args.small:
        found["ceilings"] = ceilings
        found["kernels, ms"] = lambda: time_kernels(device)
    for row in SMALL_ROWS if args.small else ROWS:
        found[row_name(*row)] = functools.partial(time_row, *row, device, args.rounds)
    for row in ROWS_COMPILED if torch is not None and not args.small else ():
        found[row_name(*row) + BESIDE_COMPILED] = functools.partial(
            time_row, *row, device, args.rounds, compiled=True)
    if args.chainer_tests:
        found["Chainer's own tests"] = lambda: growing(run_own_tests(args.chainer_tests))
    return found


#: End of the name of a part in which torch.compile takes most of the time.
BESIDE_COMPILED = ", beside torch.compile"


def row_name(network, batch, train):
    """Return a row's name."""
    return f"{network}, {'training' if train else 'inference'}, batch {batch}"


def run_parts(args, argv, earlier, keep):
    """Return what every part gave, or why it gave nothing; `keep` is called after each.

    What is whole in `earlier` is not run again.
    """
    end, found = time.monotonic() + args.seconds, {}
    for name in parts(args, None):
        left = end - time.monotonic()
        limit = min(left, LONG if name in LONG_PARTS or name.endswith(BESIDE_COMPILED) else LIMIT)
        if is_whole(earlier.get(name)):
            found[name] = earlier[name]
        elif left > 5:
            found[name] = run_apart(name, argv, limit)
        else:
            found[name] = earlier.get(name, "skipped: no time was left")
        show(name, found[name], found.get("ceilings"))
        keep(earlier | found)
    return found


def is_whole(part):
    """Tell whether a part has found all that it looks for, well or ill."""
    return isinstance(part, list | dict) and UNFINISHED not in json.dumps(part)


def run_apart(name, argv, limit):
    """Run a part in a process of its own, for so many seconds at most; return what it gave."""
    # As cuDNN's convolutions do, CuPy's products round float32 to TF32 where time is measured.
    extra = {} if name in ("operations", "ways to train", "ways to infer") else {"CUPY_TF32": "1"}
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "part.json")
        try:
            done = subprocess.run([*CHILD, *argv, "--part", name, "--part-result", result],
                                  timeout=limit, env={**os.environ, **extra})
            reason = f"its process ended with status {done.returncode}"
        except subprocess.TimeoutExpired:
            reason = f"not done after {limit:.0f} s"
        found, whole = json.loads(result.read_text()) if result.exists() else (None, False)
    return found if whole else unfinished(found, reason)


def unfinished(found, reason):
    """Return what a part has found, with the reason why it is not all."""
    if not found:
        return f"failed: {reason}"
    if isinstance(found, list):
        return [*found, {"what": UNFINISHED, "passed": False, "error": reason}]
    return found | {UNFINISHED: reason}


UNFINISHED = "unfinished"


def run_part(args, device):
    """Run one part and write what it gives, and whether that is all, each time there is more."""
    device.use()
    latest = None

    def write(found, whole):
        new = args.part_result.with_suffix(".new")
        new.write_text(json.dumps([found, whole]))
        new.replace(args.part_result)    # at once: this process may be ended at any moment

    try:
        with chainer.Reporter():
            for found in parts(args, device)[args.part]():
                latest = found
                write(found, False)
        write(latest, True)
    except Exception as error:
        traceback.print_exc()
        write(unfinished(latest, f"{type(error).__name__}: {error}"), True)


def show(name, found, ceilings=None):
    """Print one part; a row's share of the card's ceiling where that is known."""
    print(f"\n{name}", flush=True)
    if isinstance(found, list):
        for row in found:
            told = row.get("error") or row.get("summary") or f"{row['distance']:.1e}"
            print(f"  {'ok  ' if row['passed'] else 'FAIL'} {row['what']:28s} "
                  f"{row.get('type', ''):8s} {told[:160]}")
    elif isinstance(found, dict) and "peers" in found:
        for peer, row in found["peers"].items():
            share = gpu_record.share(peer, row, found, ceilings)
            print(f"  {peer:44s}{row.get('error', '')[:160] or told_time(row)}"
                  f"{'' if share is None else f' {share:6.1%}'}")
        if UNFINISHED in found:
            print(f"  {UNFINISHED}: {found[UNFINISHED]}")
    elif isinstance(found, dict):
        for what, value in found.items():
            print(f"  {what:76s} {value if isinstance(value, str) else f'{value:10.3f}'}")
    else:
        print(f"  {found}", flush=True)


def told_time(row):
    """Return a line's numbers."""
    return (f"{row['milliseconds']:9.2f} ms {row['images_per_second']:9.0f} images/s "
            f"{row['bytes'] / 2**20:7.0f} MiB")


def passed(found):
    """Tell whether every check passed, no part failed, and all of Chainer's rows ran."""
    return all(_passed(part) for part in found.values())


def _passed(part):
    if isinstance(part, list):
        return all(row["passed"] for row in part)
    if isinstance(part, dict):
        return UNFINISHED not in part and not any(
            "error" in row for label, row in part.get("peers", {}).items()
            if label.startswith("Chainer"))
    return not part.startswith("failed")


def parser():
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(prog="python -m tests.bench.gpu", description=description)
    made.add_argument("--device", default="@cupy:0")
    made.add_argument("--record", type=Path, help="write the results to this JSON file")
    made.add_argument("--resume", action="store_true",
                      help="keep what is whole in the file of --record, and run the rest")
    made.add_argument("--chainer-tests", type=Path, help="folder chainer_tests of the sources")
    made.add_argument("--seconds", type=int, default=BUDGET,
                      help=f"time for all parts together (default {BUDGET})")
    made.add_argument("--rounds", type=int, default=ROUNDS)
    made.add_argument("--small", action="store_true", help="LeNet5 only, as a test of this file")
    made.add_argument("--part", help="run this part only, in this process")
    made.add_argument("--part-result", type=Path, help="where it writes what it gave")
    return made


def recorded_parts(path, run):
    """Return the parts of a record that a run goes on with, and the runs that made them.

    There are none if there is no file.

    Raises
    ------
    ValueError
        If the file is no record, or of another device or other versions.
    """
    if path is None:
        raise ValueError("which record? Give --record FILE")
    if not path.exists():
        return {}, []
    there = results.load(path, (*results.KEYS[:6], "parts"))
    for key in ("device", "versions", "torch"):
        if there.get(key) != run[key]:
            raise ValueError(f"{path} was made with {key} {there.get(key)}, here it is {run[key]}; "
                             f"numbers of both in one table would not compare. Record to another "
                             f"file")
    one = {key: there[key] for key in ("command", "date")}
    return there["parts"], [*there.get("continues", ()), one]


def main(argv=None):
    """Run all parts; return 0 if every check passed."""
    argv = sys.argv[1:] if argv is None else argv
    args = parser().parse_args(argv)
    try:
        device = devices.get(args.device)
    except devices.DeviceError as error:
        print(f"not measured on a GPU: {error}", file=sys.stderr)
        return 1
    if args.part:
        run_part(args, device)
        return 0
    print(rechainer.info(), flush=True)
    command = shlex.join(["python", "-m", "tests.bench.gpu", *argv])
    run = results.provenance(command, 0, {"rounds": args.rounds}, device.name)
    run |= {"info": json.loads(json.dumps(rechainer.info())),
            "torch": getattr(torch, "__version__", None)}

    earlier = {}
    if args.resume:
        try:
            earlier, run["continues"] = recorded_parts(args.record, run)
        except ValueError as error:
            print(f"--resume: {error}", file=sys.stderr)
            return 1

    def keep(found):
        if args.record:
            results.write(args.record, {**run, "parts": found})

    found = run_parts(args, argv, earlier, keep)
    print("\nall checks passed" if passed(found) else "\nSOME CHECKS FAILED")
    return 0 if passed(found) else 1
