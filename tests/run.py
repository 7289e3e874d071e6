"""All checks of the project, three at a time; `make test` calls this: run.py [STEP ...]

Each step prints its heading, its output and its seconds, which are those since the step before
was done: no processor waits for the last part of a step. The last line sums up all tests. Without
a Chromium the pages are not opened, and the last lines say so; with REQUIRE_BROWSER=1 that fails.
With NEWEST=PYTHON the library's tests run on that interpreter and on what it has installed, too.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book/_tools"))
import notebooks  # noqa: E402  it knows the notebooks and how they run

PYTEST = ["-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider"]
NBVAL = [
    "--nbval",
    "--nbval-current-env",
    "--nbval-cell-timeout=600",
    "--nbval-sanitize-with=tests/notebooks/sanitize.cfg",
]
WORKERS = 3  # for two processors: browsers and kernels wait a fifth of their time
GROUPS = 4  # of notebooks: to start pytest takes longer than to run a lab


@dataclass
class Result:
    """What a step found; a step without single tests counts as one."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    notes: list = field(default_factory=list)
    said: str = ""

    def __add__(self, other):
        return Result(
            self.passed + other.passed,
            self.failed + other.failed,
            self.skipped + other.skipped,
            self.notes + other.notes,
        )

    def __str__(self):
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def say(command, **options):
    """Run a command here; gives its status and what it said."""
    done = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )
    return done.returncode, done.stdout


def run(*command):
    """Run a Python program that passes or fails as a whole."""
    status, said = say([sys.executable, *command])
    return Result(passed=int(status == 0), failed=int(status != 0), said=said)


def pytest(*args, env=None, python=sys.executable):
    """Run pytest and count its tests; one that could not start counts as a failure."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        status, said = say([python, *PYTEST, f"--junit-xml={report}", *args], env=env)
        result = count(report)
    if status not in (0, 5) and not result.failed:  # 5: no tests here
        result += Result(failed=1)
    result.said = said
    return result


def count(report):
    """The numbers in a JUnit report."""
    if not report.exists():
        return Result()
    suite = ET.parse(report).getroot().find("testsuite")
    failed = int(suite.get("failures")) + int(suite.get("errors"))
    skipped = int(suite.get("skipped"))
    passed = int(suite.get("tests")) - failed - skipped
    reasons = {node.get("message", "") for node in suite.iter("skipped")}
    return Result(passed, failed, skipped, sorted(reasons))


# Each step gives its parts, {name: function}, the longest first.


def lint(started):
    return {"ruff": partial(run, "-m", "ruff", "check", ".")}


def book(started):
    return {"build": partial(run, "book/_tools/build.py")}


# What the newest versions are not asked again: what it shows does not depend on them, or a shorter
# test shows it there. Beginnings of pytest's names.
ONCE = [
    # The script for a GPU, on a device that is NumPy; what it calls is tested one by one.
    "rechainer_tests/test_cudnn.py::test_the_script_for_a_machine_with_a_gpu",
    "rechainer_tests/test_cudnn.py::test_a_part_that_breaks_or_hangs_leaves_the_others",
    # Names in Chainer's source and in a stored list of CuPy's.
    "rechainer_tests/test_cupy.py::test_the_table_has_every_name_that_chainer_uses",
    "rechainer_tests/test_cupy.py::test_the_modules_without_cudnn_are_those_whose_names",
    # Sums of whole numbers, and VGG16 against Chainer's: all ResNets are compared there, too.
    "test_large_models.py::test_counts",
    "test_large_models.py::test_vgg16_equals_chainers",
    # That a run goes on as if nothing had been is test_resume_is_bit_exact.
    "rechainer_tests/test_fast_training.py::test_on_a_device_that_is_numpy[a_killed_run_continues",
    "rechainer_tests/test_fast_training.py::test_on_a_device_that_is_numpy[the_command_line_switches",
    "test_training.py::test_killed_up_to_ten_times_it_ends_with_the_same_parameters_and_log",
]


def of_the_library(python, *options):
    rechainer, pretrained = "tests/lib/rechainer_tests", "tests/lib/pretrained"
    parts = {
        "convnets": ["tests/lib", f"--ignore={rechainer}", f"--ignore={pretrained}"],
        "rechainer": [rechainer],
        "pretrained weights": [pretrained],
    }
    return {
        name: partial(pytest, *args, *options, "--durations=3", python=python)
        for name, args in parts.items()
    }


def library(started):
    labs = partial(pytest, "tests/labs", "tests/notebooks", "--durations=3")
    return {"labs": labs, **of_the_library(sys.executable)}


def newest(started):
    python = os.environ.get("NEWEST")
    options = [f"--deselect=tests/lib/{name}" for name in ONCE]
    return of_the_library(python, *options) if python else {}


def notebook_environment():
    """What `make notebooks` runs them in."""
    own = dict(os.environ)
    notebooks.set_environment()
    made = dict(os.environ)
    os.environ.clear()
    os.environ.update(own)
    return made


def files_beside(names):
    """The files in the folders of notebooks, without compiled modules."""
    folders = {(ROOT / name).parent for name in names}
    return {path for folder in folders for path in folder.iterdir() if path.is_file()}


def stored_outputs(started):
    """Run all notebooks and compare what they print with what is stored."""
    env = notebook_environment()

    def compare(names):
        before = files_beside(names)
        result = pytest(*NBVAL, *names, env=env)
        for path in sorted(files_beside(names) - before):
            result.failed += 1
            result.said += f"LEFT BEHIND by a notebook: {path}\n"
        for name in dict.fromkeys(re.findall(r"^(?:FAILED|ERROR) (\S+\.ipynb)", result.said, re.M)):
            result.said += f"DIFFERS: {name}  (after a wanted change: make notebooks)\n"
        return result

    paths = sorted(notebooks.find(), key=lambda path: -path.stat().st_size)
    names = [str(path.relative_to(ROOT)) for path in paths]
    groups = [names[i::GROUPS] for i in range(GROUPS)]
    return {f"{len(group)} notebooks, {group[0]} ...": partial(compare, group) for group in groups}


def site(started):
    pages = "tests/site/test_pages.py"
    live = ["tests/site/test_live_kernel.py", "tests/site/test_live_pages.py"]
    python = [f"tests/site/test_{it}.py" for it in ("lite", "live_python", "live_firefox")]
    others = [f"--ignore={path}" for path in (pages, *live, *python)]
    parts = {
        "cells, chapters and labs, run in the browser": live,
        "Python in the browser": python,
        "links, features, figures, the runner": ["tests/site", *others],
        "every page: errors, requests, axe, width": [pages],
    }

    def check(*args):
        for part in started.get("book", {}).values():
            part.result()
        if not (ROOT / "_build/html/index.html").exists():
            said = "There is no book to open: the build failed, or the step `book` was not run.\n"
            return Result(failed=1, said=said)
        return pytest(*args, "--durations=3")

    return {name: partial(check, *args) for name, args in parts.items()}


STEPS = {
    "lint": ("Lint: ruff", lint),
    "book": ("Book: built from stored outputs, warnings are errors", book),
    "library": ("Library and labs: pytest", library),
    "notebooks": ("Notebooks: run again and compared with their stored outputs", stored_outputs),
    "site": ("Site: every page in a real browser", site),
    "newest": ("The library on the newest versions, without the lock: pytest", newest),
}


def perform(name, parts):
    """Print the parts of a step below its heading, each when it is done; gives their sum."""
    print(f"\n=== {STEPS[name][0]} ===", flush=True)
    names = {part: title for title, part in parts.items()}
    for part in as_completed(names):
        print(f"{names[part]}\n{part.result().said}", flush=True)
    return sum((part.result() for part in parts.values()), Result())


def perform_all(names):
    """{name: (result, seconds)} of the steps."""
    started, done, before = {}, {}, time.monotonic()
    with ThreadPoolExecutor(WORKERS) as pool:
        for name in names:
            if parts := STEPS[name][1](started).items():
                started[name] = {title: pool.submit(part) for title, part in parts}
        for name, parts in started.items():
            result, now = perform(name, parts), time.monotonic()
            done[name] = result, now - before
            print(f"--- {name}: {result} in {now - before:.0f} s", flush=True)
            before = now
    return done


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"of {', '.join(STEPS)}")
    args = parser.parse_args(argv)
    if unknown := set(args.steps) - set(STEPS):
        parser.error(f"no such step: {', '.join(unknown)}; there are {', '.join(STEPS)}")
    os.environ.update(
        OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", CHAINER_WARN_VERSION_MISMATCH="0"
    )
    done = perform_all([name for name in STEPS if name in (args.steps or STEPS)])

    print("\n=== Summary ===")
    for name, (result, seconds) in done.items():
        print(f"{'FAILED' if result.failed else 'ok':7} {name:10} {seconds:5.0f} s  {result}")
    total = sum((result for result, _ in done.values()), Result())
    for note in dict.fromkeys(total.notes):
        print(f"SKIPPED: {note}")
    if any("Chromium" in note for note in total.notes):
        print("!!! THE PAGES WERE NOT OPENED IN A BROWSER: install Chromium to check them. !!!")
    print(f"{total} in {sum(seconds for _, seconds in done.values()):.0f} s")
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
