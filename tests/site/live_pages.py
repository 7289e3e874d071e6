"""Run notebooks in the worker of the built book and compare with what they store: live_pages.py

    python tests/site/live_pages.py [--record] [NOTEBOOK ...]      default: every page that may run

Outputs must be equal, numbers in them to 1e-4; of an image only that it is there. Tags as for
nbval: `nbval-ignore-output`, `raises-exception`; a cell `not-in-browser` is left out.
"""

import argparse
import os
import re
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import nbformat
import psutil
from conftest import HTML, chromium, serve, watch

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ["convnets"]
LIMIT = 300  # seconds for one cell: many times what a quiet machine needs
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
NUMBER = re.compile(r"[-+]?\d+\.?\d*(?:[eE][-+]?\d+)?")

# Starts a worker as a page does, keeps what it says, and answers when a cell is done.
DRIVER = """([folder, packages, base, limit]) => {
  const log = [];
  const worker = new Worker(new URL('../worker.js', location), { type: 'module' });
  let wake = () => {};
  worker.onmessage = event => { log.push(event.data); wake(); };
  worker.onerror = event => { log.push({ type: 'failed', message: event.message }); wake(); };
  const until = (test, seconds) => new Promise(resolve => {
    const timer = setTimeout(() => resolve({ type: 'failed', message: 'time is over' }),
      seconds * 1000);
    wake = () => {
      const found = log.find(it => it.type === 'failed' || test(it));
      if (found) { clearTimeout(timer); wake = () => {}; resolve(found); }
    };
    wake();
  });
  window.live = {
    log, worker,
    run: async (id, code, name, seconds) => {
      worker.postMessage({ type: 'run', id, code, name });
      const end = await until(it => it.type === 'done' && it.id === id, seconds);
      return [...log.filter(it => it.id === id && it !== end), end];
    },
  };
  worker.postMessage({ type: 'start', base: String(new URL(base, location)), packages, folder });
  return until(it => it.type === 'ready', limit);
}"""


# Resolves when Python's own library, compiled, is in the browser's store for the next start.
KEPT = """async () => {
  for (;; await new Promise(resolve => setTimeout(resolve, 100))) {
    for (const name of await caches.keys()) {
      const keys = await (await caches.open(name)).keys();
      if (keys.some(it => it.url.endsWith('made-python_stdlib.zip'))) return;
    }
  }
}"""


class LiveError(Exception):
    """The worker could not start, or ended."""


class Live:
    """A worker in a page of the built site."""

    def __init__(self, page, folder="book", packages=PACKAGES, base="./", limit=LIMIT):
        self.page, self.count = page, 0
        self.ready = page.evaluate(DRIVER, [folder, packages, base, limit])
        if self.ready["type"] == "failed":
            raise LiveError(self.ready["message"])

    def run(self, code, name="cell", limit=LIMIT):
        """Run one cell; its messages, of which the last says how it ended."""
        self.count += 1
        script = "([id, code, name, seconds]) => live.run(id, code, name, seconds)"
        return self.page.evaluate(script, [self.count, code, name, limit])

    def outputs(self, code, **options):
        """Outputs of a cell and ``'ok'`` or ``'error'``."""
        *messages, end = self.run(code, **options)
        if end["type"] == "failed":
            raise LiveError(end["message"])
        return [it["output"] for it in messages if it["type"] == "output"], end["status"]


@contextmanager
def worker(browser, site, context=None, **options):
    """A `Live` with `.faults` (errors, failed requests, requests to other hosts) and `.bytes`.

    In a context that has run Python before it starts sooner, as for a reader who turns the page.
    """
    own = None if context else browser.new_context()
    context = context or own
    page = beside(context)
    faults, sizes = watch(page, site), {}
    page.on("response", lambda it: sizes.update(downloaded(it)))
    # Any address of the site will do; this one names no icon.
    context.route("**/favicon.ico", lambda route: route.fulfill(status=200))
    page.goto(site + "_static/live/dist/manifest.json")
    live = Live(page, **options)
    live.faults, live.bytes = faults, sizes
    yield live
    page.close()
    if own:
        own.close()


def beside(context):
    """A new page in the process of the first one, whose workers share their WebAssembly's code."""
    if not context.pages:
        return context.new_page()
    with context.expect_page() as opened:
        context.pages[0].evaluate("() => { open('about:blank'); }")
    return opened.value


def downloaded(response):
    """{address: bytes} of what came; a question for the length of a file brings nothing."""
    got = response.request.method == "GET"
    return {response.url: int(response.headers["content-length"])} if got else {}


# -- Comparison ------------------------------------------------------------------------------


def same_text(live, stored):
    """Whether two texts are equal up to 1e-4 in their numbers."""
    if NUMBER.sub("#", live) != NUMBER.sub("#", stored):
        return False
    pairs = zip(NUMBER.findall(live), NUMBER.findall(stored), strict=True)
    return all(a == b or close(float(a), float(b)) for a, b in pairs)


def close(a, b):
    return abs(a - b) <= 1e-4 * max(1, abs(b))


def texts(outputs):
    """Outputs as comparable pairs (kind, text), pieces of one stream joined."""
    found = []
    for output in outputs:
        kind = output["output_type"]
        if kind == "stream":
            kind = output["name"]
            if found and found[-1][0] == kind:
                found[-1] = kind, found[-1][1] + output["text"]
            else:
                found.append((kind, output["text"]))
        elif kind == "error":
            found.append((output["ename"], output["evalue"]))
        elif turns_frames(output["data"]):
            found.append(("frames", "(there)"))
        else:
            found += [(mime, content(mime, data)) for mime, data in sorted(output["data"].items())]
    return found


def turns_frames(data):
    """Whether these are frames behind a slider: with ipywidgets, or our own in the browser."""
    return WIDGET_VIEW in data or 'data-cv="frames"' in data.get("text/html", "")


def content(mime, data):
    if not mime.startswith("text/"):
        return "(there)"
    return data if isinstance(data, str) else "".join(data)


def differences(live, stored):
    """What differs between the outputs of a cell, in words."""
    live, stored = texts(live), texts(stored)
    kinds = [[kind for kind, _ in side] for side in (live, stored)]
    if kinds[0] != kinds[1]:
        more = [text[-300:] for kind, text in live if kind not in kinds[1]]
        yield f"shows {kinds[0]}, stored are {kinds[1]}; {more or live[-1:]}"
        return
    for (kind, a), (_, b) in zip(live, stored, strict=True):
        if not same_text(a, b):
            yield f"{kind}: {first_difference(a, b)}"


def first_difference(a, b):
    pairs = zip([*a.splitlines(), ""], [*b.splitlines(), ""], strict=False)
    pair = next((pair for pair in pairs if not same_text(*pair)), ("", ""))
    return f"{pair[0][:200]!r}, stored is {pair[1][:200]!r}"


# -- Notebooks -------------------------------------------------------------------------------


@dataclass
class Result:
    """What came of one notebook."""

    path: Path
    cells: int = 0
    skipped: int = 0
    problems: list = field(default_factory=list)
    ready: float = 0.0
    first: float = 0.0
    total: float = 0.0
    cpu: float = 0.0
    slowest: float = 0.0
    megabytes: float = 0.0


def live_notebooks():
    """Chapters and the labs' solutions whose metadata allows them to run in the browser."""
    paths = [*sorted(ROOT.glob("book/*.ipynb")), *sorted(ROOT.glob("labs/*/solution.ipynb"))]
    return [path for path in paths if read(path).metadata.get("live", True)]


def read(path):
    return nbformat.read(path, as_version=4)


def cpu_seconds():
    """{process: processor time until now} of the browser."""
    times = {}
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            times[process.pid] = sum(process.cpu_times()[:2])  # in user mode and in the system
    return times


def run_notebook(browser, site, path, context=None):
    """Run a notebook cell by cell in a new worker; `context` as for `worker`."""
    folder = path.parent.relative_to(ROOT).as_posix()
    result = Result(path.relative_to(ROOT))
    begin, cpu = time.monotonic(), cpu_seconds()
    with worker(browser, site, context, folder=folder) as live:
        result.ready = time.monotonic() - begin
        for number, cell in enumerate(read(path).cells, 1):
            if cell.cell_type == "code":
                try:
                    run_cell(live, cell, number, result)
                except LiveError as error:
                    result.problems.append(f"cell {number} ({cell.id}): {error}")
                    break
        result.total = time.monotonic() - begin
        result.cpu = sum(it - cpu.get(pid, 0) for pid, it in cpu_seconds().items())
        result.problems += live.faults
        result.megabytes = sum(live.bytes.values()) / 1e6
    return result


def run_cell(live, cell, number, result):
    tags = cell.metadata.get("tags", ())
    if "not-in-browser" in tags:
        result.skipped += 1
        return
    begin = time.monotonic()
    outputs, status = live.outputs(cell.source, name=f"cell {number}")
    seconds = time.monotonic() - begin
    result.cells += 1
    result.first = result.first or seconds
    result.slowest = max(result.slowest, seconds)
    result.problems += [
        f"cell {number} ({cell.id}, {seconds:.1f} s): {problem}"
        for problem in problems(outputs, status, cell, tags)
    ]


def problems(outputs, status, cell, tags):
    if status == "error" and "raises-exception" not in tags:
        yield f"failed: {outputs[-1]['ename']}: {outputs[-1]['evalue'][:500]}"
    elif "nbval-ignore-output" not in tags:
        yield from differences(outputs, cell.outputs)


TITLES = ("notebook", "cells", "left out", "first s", "all s", "slowest s", "CPU s", "MB",
          "outputs")
WIDTHS = 42, 5, 8, 7, 6, 9, 6, 5, 8


def values(result):
    """The row of a notebook; its first result comes when the worker is ready and the cell done."""
    seconds = result.ready + result.first, result.total, result.slowest, result.cpu
    return (
        result.path.as_posix(), result.cells, result.skipped, *(f"{it:.1f}" for it in seconds),
        f"{result.megabytes:.1f}",
        f"{len(result.problems)} differ" if result.problems else "equal",
    )  # fmt: skip


def row(cells):
    name, *others = (f"{cell!s:>{width}}" for cell, width in zip(cells, WIDTHS, strict=True))
    return " | ".join([f"{name.strip():<{WIDTHS[0]}}", *others])


RECORD = Path(__file__).with_name("live_pages.md")
HEADING = """# Pages in the browser

Every page that runs in the reader's browser, run there cell by cell with all other hosts blocked,
its outputs compared with the stored ones (numbers to 1e-4). Written by
`python tests/site/live_pages.py --record`; {where}, {date}, load {load:.1f}.

"first" is the time from nothing to the result of the first cell, "MB" all that was downloaded,
"CPU s" the processor time of all the browser's processes, which a busy machine does not lengthen,
"left out" the cells tagged `not-in-browser`.

"""


def record(results, browser):
    where = f"Chromium {browser.version}, {os.cpu_count()} cores"
    text = HEADING.format(where=where, date=date.today(), load=os.getloadavg()[1])
    table = [TITLES, ["---", *["--:"] * 7, "---"], *map(values, results)]
    RECORD.write_text(text + "".join(f"| {row(cells)} |\n" for cells in table), encoding="utf-8")


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("notebooks", nargs="*", type=Path)
    parser.add_argument("--record", action="store_true", help=f"write {RECORD.name}")
    args = parser.parse_args(argv)
    results = []
    print(row(TITLES), flush=True)
    with serve(HTML) as site, chromium() as browser:
        for path in args.notebooks or live_notebooks():
            results.append(run_notebook(browser, site, path.resolve()))
            print(row(values(results[-1])), *results[-1].problems, sep="\n    ", flush=True)
        if args.record:
            record(results, browser)
    return 1 if any(result.problems for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
