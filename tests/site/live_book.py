"""A small book that runs in the browser, with a worker that only pretends to be Python."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[2]
FAKE = Path(__file__).with_name("live_worker.js")
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
    "gg=="
)
SCRIPTED = (
    '<p id="made">no</p><script>document.getElementById("made").textContent = "yes"</script>'
)
FIGURE = (
    '<figure class="cv cv-x" id="cv-x-1" data-cv="x">'
    "<button onclick=\"this.textContent='pressed'\">press</button></figure>"
)


def do(**directive):
    """A line of a cell that tells the worker what to do."""
    return "#: " + json.dumps(directive)


def show(mime, content):
    return do(show={mime: content})


def stored(text):
    return nbformat.v4.new_output("stream", name="stdout", text=text)


def cell(name, *lines, tags=(), outputs=(), **metadata):
    """A code cell with stored outputs."""
    made = nbformat.v4.new_code_cell("\n".join(lines), outputs=list(outputs))
    made.id = name
    made.metadata.update({**({"tags": list(tags)} if tags else {}), **metadata})
    return made


def text(source):
    made = nbformat.v4.new_markdown_cell(source)
    made.id = f"text-{abs(hash(source))}"
    return made


def figure():
    return nbformat.v4.new_output("display_data", data={"text/html": FIGURE, "text/plain": "x"})


# Every kind of cell that the book has; `stop` fails while nobody has defined `late`.
CHAPTER = [
    cell("card", show("text/html", "<p>card</p>"), tags=["remove-input"]),
    cell("first", 'print("one")', do(define="x"), outputs=[stored("stored one\n")]),
    cell("silent", do(define="y"), tags=["remove-cell"]),
    cell("folded", 'print("folded")', do(use="y"), tags=["hide-input"], outputs=[stored("old\n")]),
    cell("bars", do(print="10 %\r"), do(print="55 %\r"), do(print="100 %\nend\n"), do(sleep=50)),
    cell("html", show("text/html", SCRIPTED)),
    cell("png", show("image/png", PIXEL)),
    cell("svg", show("image/svg+xml", '<svg width="9" height="9" role="img" aria-label="s"/>')),
    cell("figure", show("text/html", FIGURE), outputs=[figure()]),
    cell("large", *[f'print("line {i} of many, and a wide one at that")' for i in range(80)]),
    cell(
        "fails", 'print("before")', do(**{"raise": ["ValueError", "on purpose"]}),
        tags=["raises-exception"],
    ),
    cell("gpu", "cupy.zeros(3)", tags=["not-in-browser"], outputs=[stored("array\n")],
         live_reason="it needs a GPU"),
    cell("cleared", 'print("gone")', do(clear=True), 'print("stays")'),
    cell("quiet", "nothing = 0", outputs=[stored("stored words\n")]),
    cell("last", do(use="x"), do(start=True), outputs=[stored("stored last\n")]),
]
BROKEN = [
    cell("good", 'print("fine")', do(define="a")),
    *[text(f"Paragraph {i} of many.\n\n" * 5) for i in range(12)],
    cell("bad", do(use="a"), do(**{"raise": ["TypeError", "a reason\nand more"]})),
    cell("after", 'print("never")', outputs=[stored("stored after\n")]),
]
SHORT = [
    cell("one", 'print("one")', do(define="x")),
    cell("two", do(use="x"), outputs=[stored("stored two\n")]),
    cell("three", 'print("three")'),
]
ANSWER = {"event": "solved", "lab": "01_lab", "exercise": "conv", "date": "2026-01-01"}
LAB = [
    cell("import", "import checks", do(start=True)),
    cell("check", do(append=["/convnets-labs.jsonl", json.dumps(ANSWER) + "\n"])),
]
PAGES = {
    "book/chapter": (CHAPTER, {}),
    "book/broken": (BROKEN, {}),
    "book/short": (SHORT, {}),
    "book/never": (SHORT, {"live": False, "live_reason": "it needs four GPUs"}),
    "labs/01_lab/lab": (LAB, {}),
}


def notebook(cells, metadata, title):
    heading = nbformat.v4.new_markdown_cell(f"# The {title} page\n\nSome text.")
    heading.id = "heading"
    language = {"name": "python", "pygments_lexer": "ipython3"}
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return nbformat.v4.new_notebook(
        cells=[heading, *cells],
        metadata={"kernelspec": kernel, "language_info": language, **metadata},
    )


def write_sources(root):
    """The book's sources in an empty folder: our tools and scripts, pages of our own."""
    shutil.copy(ROOT / "_config.yml", root)
    shutil.copytree(ROOT / "book/_tools", root / "book/_tools")
    skip = shutil.ignore_patterns("mathjax", "html-manager", "requirejs", "*.png")
    shutil.copytree(ROOT / "book/_static", root / "book/_static", ignore=skip)
    shutil.copy(FAKE, root / "book/_static/live/worker.js")
    shutil.copy(ROOT / "book/references.bib", root / "book")
    (root / "book/page.md").write_text("# Page\n\nText.\n")
    chapters = "".join(f"  - file: {name}\n" for name in PAGES)
    (root / "_toc.yml").write_text(f"format: jb-book\nroot: book/page\nchapters:\n{chapters}")
    for name, (cells, metadata) in PAGES.items():
        path = root / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook(cells, metadata, path.stem), path)
    lab = root / "labs/01_lab"
    (lab / "checks.py").write_text("the checks\n")
    solution = cell("conv", "...", exercises=[{"name": "conv"}, {"name": "pool"}])
    nbformat.write(notebook([solution], {}, "solution"), lab / "solution.ipynb")


def write_distribution(root):
    """What the build knows of the browser's Python: names and sizes."""
    folder = root / "_build/live/dist"
    folder.mkdir(parents=True)
    needs = {"numpy": [], "chainer": ["numpy"], "convnets": ["chainer"], "matplotlib": ["numpy"]}
    lock = {name: {"file_name": f"{name}.whl", "depends": it} for name, it in needs.items()}
    sizes = {"core.wasm": 6_400_000, "numpy.whl": 2_900_000, "chainer.whl": 1_000_000,
             "convnets.whl": 500_000, "matplotlib.whl": 7_000_000}
    manifest = {"id": "0123abcd", "core": ["core.wasm"], "data": {}, "bytes": sizes}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "pyodide-lock.json").write_text(json.dumps({"packages": lock}))


def build(root):
    """Sphinx alone: the distribution is not to be made here."""
    code = (
        "import pathlib, sys; sys.path.insert(0, 'book/_tools'); import build; "
        "root = pathlib.Path.cwd(); out = root / '_build/html'; "
        "result, said = build.sphinx(root, out); build.write_front_door(root, out); "
        "sys.exit(said if result else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return root / "_build/html"
