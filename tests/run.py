"""All checks of the project, in order; `make test` calls this: run.py [STEP ...]

Each step prints its heading, its output and its seconds; the last line sums up all tests. Without
a Chromium the pages are not opened, and the last lines say so; with REQUIRE_BROWSER=1 that fails.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book/_tools"))
import notebooks  # noqa: E402  it knows the notebooks and how they run

PYTEST = [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider"]
NBVAL = [
    "--nbval",
    "--nbval-current-env",
    "--nbval-cell-timeout=600",
    "--nbval-sanitize-with=tests/notebooks/sanitize.cfg",
]


@dataclass
class Result:
    """What a step found; a step without single tests counts as one."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    notes: list = field(default_factory=list)

    def __add__(self, other):
        return Result(
            self.passed + other.passed,
            self.failed + other.failed,
            self.skipped + other.skipped,
            self.notes + other.notes,
        )

    def __str__(self):
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def run(command):
    """Run a command that passes or fails as a whole."""
    status = subprocess.run(command, cwd=ROOT).returncode
    return Result(passed=int(status == 0), failed=int(status != 0))


def pytest(*args, heading=""):
    """Run pytest and count its tests; one that could not start counts as a failure.

    With a heading, what it says is kept until it is done and printed below the heading.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        done = subprocess.run(
            [*PYTEST, f"--junit-xml={report}", *args],
            cwd=ROOT,
            stdout=subprocess.PIPE if heading else None,
            stderr=subprocess.STDOUT if heading else None,
            text=True,
        )
        result = count(report)
    if heading:
        print(f"{heading}\n{done.stdout}", flush=True)
    if done.returncode not in (0, 5) and not result.failed:  # 5: no tests here
        result += Result(failed=1)
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


def lint():
    return run([sys.executable, "-m", "ruff", "check", "."])


def library():
    rechainer, pretrained = "tests/lib/rechainer_tests", "tests/lib/pretrained"
    parts = {  # the longest first
        "labs": ["tests/labs", "tests/notebooks"],
        "convnets": ["tests/lib", f"--ignore={rechainer}", f"--ignore={pretrained}"],
        "rechainer": [rechainer],
        "pretrained weights": [pretrained],
    }
    results = two_at_a_time({name: [*args, "--durations=3"] for name, args in parts.items()})
    return sum(results.values(), Result())


def book():
    return run([sys.executable, "book/_tools/build.py"])


def two_at_a_time(runs):
    """Run pytest for each {name: arguments}; what one says is printed as a whole."""

    with ThreadPoolExecutor(2) as pool:
        done = {name: pool.submit(pytest, *args, heading=name) for name, args in runs.items()}
    return {name: future.result() for name, future in done.items()}


def stored_outputs():
    """Run all notebooks and compare what they print with what is stored."""
    notebooks.set_environment()
    # The largest first, so that the last one to finish is short.
    paths = sorted(notebooks.find(), key=lambda path: -path.stat().st_size)
    names = [str(path.relative_to(ROOT)) for path in paths]
    results = two_at_a_time({name: [*NBVAL, name] for name in names})
    for name, result in results.items():
        if result.failed:
            print(f"DIFFERS: {name}  (after a wanted change: make notebooks)")
    return sum(results.values(), Result())


def site():
    if not (ROOT / "_build/html/index.html").exists():
        print("There is no book to open: the build failed, or the step `book` was not run.")
        return Result(failed=1)
    pages, live = "tests/site/test_pages.py", "tests/site/test_live_pages.py"
    parts = {
        "chapters, run in the browser": [live, "-k", "book-"],
        "links, features, figures, the runner": [
            "tests/site", f"--ignore={pages}", f"--ignore={live}",
        ],
        "every page: errors, requests, axe, width": [pages],
        "labs, run in the browser": [live, "-k", "not book-"],
    }
    results = two_at_a_time({name: [*args, "--durations=3"] for name, args in parts.items()})
    return sum(results.values(), Result())


STEPS = {
    "lint": ("Lint: ruff", lint),
    "library": ("Library and labs: pytest", library),
    "book": ("Book: built from stored outputs, warnings are errors", book),
    "notebooks": ("Notebooks: run again and compared with their stored outputs", stored_outputs),
    "site": ("Site: every page in a real browser", site),
}


def perform(name):
    """Run one step under its heading; gives its result and seconds."""
    heading, step = STEPS[name]
    print(f"\n=== {heading} ===", flush=True)
    start = time.monotonic()
    result = step()
    seconds = time.monotonic() - start
    print(f"--- {name}: {result} in {seconds:.0f} s", flush=True)
    return result, seconds


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"of {', '.join(STEPS)}")
    args = parser.parse_args(argv)
    if unknown := set(args.steps) - set(STEPS):
        parser.error(f"no such step: {', '.join(unknown)}; there are {', '.join(STEPS)}")
    os.environ.update(
        OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", CHAINER_WARN_VERSION_MISMATCH="0"
    )
    done = {name: perform(name) for name in args.steps or STEPS}

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
