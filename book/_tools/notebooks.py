"""Run notebooks and store their outputs in one stable form: notebooks.py [PATH ...]

Without a path, every chapter, appendix and lab runs. Each notebook runs in its own folder,
with the interpreter that runs this script. What is stored holds no date, no timing, no random
id and no path of this machine, so a second run changes nothing and a diff shows what changed.
A notebook whose run fails, or whose outputs could not be the same elsewhere, is left as it was.
"""

import argparse
import hashlib
import os
import re
import site
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = (
    "book/*.ipynb",
    "book/appendix/*.ipynb",
    "labs/*/lab.ipynb",
    "labs/*/solution.ipynb",
)

KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
# No version: the outputs are the same on each supported Python.
LANGUAGE = {
    "codemirror_mode": {"name": "ipython", "version": 3},
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "name": "python",
    "nbconvert_exporter": "python",
    "pygments_lexer": "ipython3",
}
# Metadata of a notebook that its author wrote.
KEPT = ("live", "live_reason", "mystnb", "title")
WIDGETS = "application/vnd.jupyter.widget-state+json"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
CELL_NOISE = ("execution", "ExecuteTime", "collapsed", "scrolled", "jupyter", "vscode")

ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]{6,}")
# Begins behind a space: else the search takes minutes in a text of 200 kB without one.
KERNEL_FILE = re.compile(r"(?<!\S)\S*/ipykernel_\d+/\d+\.py")


class NotebookError(Exception):
    """A notebook could not be run, or its outputs would differ elsewhere."""


def find(patterns=NOTEBOOKS):
    """All notebooks of the project, in reading order."""
    return [path for pattern in patterns for path in sorted(ROOT.glob(pattern))]


def set_environment():
    """Give kernels one BLAS thread, a fixed hash seed and none of the user's own settings."""
    os.environ.update(
        OMP_NUM_THREADS="1",
        OPENBLAS_NUM_THREADS="1",
        PYTHONHASHSEED="0",
        CHAINER_WARN_VERSION_MISMATCH="0",
        JUPYTER_PREFER_ENV_PATH="1",
        JUPYTER_PLATFORM_DIRS="1",
        NO_COLOR="1",
        IPYTHONDIR=tempfile.mkdtemp(prefix="ipython-"),
    )
    for name in ("MPLBACKEND", "PYTHONSTARTUP", "FORCE_COLOR"):
        os.environ.pop(name, None)


def execute(notebook, folder, timeout=600):
    """Run all cells in `folder`; a cell that fails without permission ends the run."""
    notebook.metadata.pop("widgets", None)
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        record_timing=False,
        store_widget_state=True,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
        extra_arguments=["--log-level=ERROR"],
    )
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError) as error:
        raise NotebookError(f"{failed_cell(notebook)}\n{plain(str(error))}") from None
    return notebook


def failed_cell(notebook):
    """Name the last cell that ran."""
    index = max(i for i, cell in enumerate(notebook.cells) if cell.get("execution_count"))
    return f"{cell_name(notebook, index)} failed:"


def cell_name(notebook, index):
    return f"cell {index + 1} of {len(notebook.cells)} (id {notebook.cells[index].id})"


def known_folders():
    """Folders of this machine, longest first, and what a reader sees instead."""
    names = {
        sysconfig.get_path("purelib"): "site-packages",
        sysconfig.get_path("platlib"): "site-packages",
        sysconfig.get_path("stdlib"): "python",
        **dict.fromkeys(site.getsitepackages(), "site-packages"),
        str(ROOT / "lib"): "lib",
        str(ROOT): ".",
        str(Path.home()): "~",
    }
    # IPython writes ~ for the home folder: know each folder by both names.
    home = str(Path.home())
    pairs = list(names.items())
    pairs += [("~" + k[len(home) :], v) for k, v in names.items() if k.startswith(home + "/")]
    return sorted(pairs, key=lambda pair: -len(pair[0]))


FOLDERS = known_folders()


def plain(text):
    """Text without colours and without the folders of this machine."""
    text = KERNEL_FILE.sub("<cell>", ANSI.sub("", text))
    for folder, name in FOLDERS:
        text = text.replace(folder + "/", name + "/")
    return text


def normalise(notebook):
    """Bring an executed notebook into the one form in which it is stored."""
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    widgets = notebook.metadata.get("widgets")
    kept = {k: notebook.metadata[k] for k in KEPT if k in notebook.metadata}
    notebook.metadata = nbformat.from_dict(
        {**kept, "kernelspec": KERNELSPEC, "language_info": LANGUAGE}
    )
    if widgets and widgets[WIDGETS]["state"]:
        notebook.metadata["widgets"] = widgets
    set_cell_ids(notebook)
    for cell in notebook.cells:
        for name in CELL_NOISE:
            cell.metadata.pop(name, None)
        if cell.cell_type == "code":
            cell.outputs = [clean_output(output) for output in cell.outputs]
            describe_image(cell)
    return rename_widgets(notebook)


def describe_image(cell):
    """Give the cell its figure's alternative text: the book takes it from the cell alone."""
    for output in cell.outputs:
        if alt := output.get("metadata", {}).get("image/png", {}).get("alt"):
            cell.metadata["mystnb"] = {**cell.metadata.get("mystnb", {}), "image": {"alt": alt}}


def set_cell_ids(notebook):
    """Give cells without an id (or with another's) one made from their text."""
    seen = set()
    for cell in notebook.cells:
        new = cell.get("id") or hashlib.sha256(cell.source.encode()).hexdigest()[:8]
        while new in seen:
            new = hashlib.sha256(new.encode()).hexdigest()[:8]
        cell["id"] = new
        seen.add(new)


def clean_output(output):
    if output.output_type == "error":
        output.traceback = [plain(line) for line in output.traceback]
    elif output.output_type == "stream":
        output.text = ANSI.sub("", output.text)
    return output


def rename_widgets(notebook):
    """Number the widget models in the order of their creation: their own names are random."""
    state = notebook.metadata.get("widgets", {}).get(WIDGETS, {}).get("state", {})
    names = {name: f"{i:032x}" for i, name in enumerate(state, 1)}
    if not names:
        return notebook
    pattern = re.compile("|".join(names))
    text = pattern.sub(lambda match: names[match[0]], nbformat.writes(notebook))
    return nbformat.reads(text, as_version=4)


def texts(output):
    """The parts of an output that nbval compares as text."""
    if output.output_type == "stream":
        return [output.text]
    if output.output_type == "error":
        return [output.evalue]
    return [text for mime, text in output.data.items() if mime.startswith("text/")]


def problems(notebook):
    """What would make the stored outputs differ in another run or on another machine."""
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type != "code" or "nbval-ignore-output" in cell.metadata.get("tags", ()):
            continue
        where = cell_name(notebook, index)
        if cell.source.rstrip().endswith(";"):
            yield f'{where} ends with ";", which nbval ignores: write "_ = ..." instead'
        for output in cell.outputs:
            if output.get("name") == "stderr":
                yield f"{where} writes to stderr: {output.text.strip()[:300]}"
            for text in texts(output):
                if match := ADDRESS.search(text):
                    yield f"{where} shows an object by its address: {match[0]}"
                if plain(text) != text:
                    yield f"{where} shows a path of this machine or colours: {text[:300]!r}"


def write(notebook, path):
    """Replace the file in one step, and only if its text is new."""
    text = nbformat.writes(notebook).rstrip("\n") + "\n"
    if path.read_text(encoding="utf-8") == text:
        return False
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
    return True


def process(path, timeout=600):
    """Run and store one notebook; True when the file changed."""
    notebook = nbformat.read(path, as_version=4)
    set_cell_ids(notebook)
    notebook = normalise(execute(notebook, path.parent, timeout))
    nbformat.validate(notebook)
    if found := list(problems(notebook)):
        remedy = "Mend the cell, or tag it nbval-ignore-output if it must vary."
        raise NotebookError("\n".join([*found, remedy]))
    return write(notebook, path)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("paths", nargs="*", type=Path, help="notebooks (default: all)")
    parser.add_argument("--timeout", type=int, default=600, help="seconds allowed for one cell")
    args = parser.parse_args(argv)
    paths = args.paths or find()
    if missing := [str(path) for path in paths if not path.is_file()]:
        parser.error(f"no such notebook: {', '.join(missing)}")
    set_environment()
    failed = 0
    for number, path in enumerate(paths, 1):
        print(f"[{number}/{len(paths)}] {path} ...", end=" ", flush=True)
        start = time.monotonic()
        try:
            result = "stored" if process(path.resolve(), args.timeout) else "unchanged"
        except (NotebookError, nbformat.ValidationError) as error:
            result, failed = f"FAILED\n{error}\n", failed + 1
        print(f"{time.monotonic() - start:.1f} s, {result}", flush=True)
    print(f"{len(paths) - failed} of {len(paths)} notebooks ran")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
