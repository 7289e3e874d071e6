"""Make the site on which a page's notebook opens, into _build/lite/site: lite.py

It is JupyterLite with one kernel, the Python that live.py assembles. What that Python lacks for
Jupyter (IPython, ipywidgets ...) is packed from this environment; `notebook.js` puts the two
together. Each notebook of the book that may run in the browser lies there, with what it reads.
"""

import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import live
import nbformat
import yaml

ROOT = Path(__file__).resolve().parents[2]
# Where the site lies in the book's, and a notebook's address in it.
PLACE = "_static/live/lite"
ADDRESS = PLACE + "/notebooks/index.html?path="
KERNEL = "@jupyterlite/pyodide-kernel-extension"
EXTENSIONS = ("@jupyter-widgets/jupyterlab-manager", "jupyterlab-myst", KERNEL)
APPS = ["notebooks", "tree", "edit"]
# What the kernel and the widgets need beyond the pages' packages, as installed here.
PACKAGES = (
    "asttokens", "comm", "executing", "ipython", "ipython-pygments-lexers", "ipywidgets", "jedi",
    "matplotlib-inline", "parso", "prompt-toolkit", "pure-eval", "pygments", "stack-data",
    "traitlets", "wcwidth",
)
# The kernel's own side in Python; its extension brings these as wheels.
KERNEL_WHEELS = ("ipykernel", "piplite", "pyodide-kernel")
LEAVE_OUT = (
    "__pycache__/", "jedi/third_party/typeshed/stubs/", "jedi/third_party/django-stubs/",
)
# Fonts in forms that only browsers before 2016 ask for; how the builder was built.
UNUSED = ("build/*.eot", "build/fa-*.svg", "build/fa-*.ttf", "build/fa-*.woff", "rspack.*.js")
APP = 9_900_000  # bytes of JupyterLite's own scripts that a notebook loads (measured)
SETTINGS = {
    # The page's own colours: dark where the reader's system is dark.
    "@jupyterlab/apputils-extension:themes": {"adaptive-theme": True},
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},
}


# -- Packages of the kernel -------------------------------------------------------------------


def package_files(name):
    """(path in the wheel, file) of an installed pure Python package."""
    distribution = importlib.metadata.distribution(name)
    for path in distribution.files or ():
        inside = path.as_posix()
        wanted = live.wanted_in_wheel(inside) and not inside.startswith(LEAVE_OUT)
        if wanted or path.name == "entry_points.txt":
            yield inside, Path(distribution.locate_file(path))


def wheels(extensions):
    """Name, version and content of each wheel."""
    for name in PACKAGES:
        version = importlib.metadata.version(name)
        yield name, version, live.wheel(name, version, package_files(name))
    for name in KERNEL_WHEELS:
        [path] = (extensions / KERNEL / "static/pypi").glob(f"{name.replace('-', '_')}-*.whl")
        yield name, path.name.split("-")[1], path.read_bytes()


def place_packages(extensions, folder):
    """Write the wheels into `folder`, and what to know about them in the form of Pyodide's lock."""
    entries = {}
    for name, version, content in wheels(extensions):
        # Nothing is loaded on demand, so who needs whom and which modules they hold is no matter.
        entries[name] = live.locked(name, version, content, [], [])
        live.write(folder / entries[name]["file_name"], content)
    live.write(folder / live.LOCK, json.dumps({"packages": entries}, indent=1).encode())


# -- Notebooks, and what lies beside them ------------------------------------------------------


def listed(node):
    """Names of all pages in a table of contents."""
    if isinstance(node, list):
        return [name for item in node for name in listed(item)]
    if not isinstance(node, dict):
        return []
    own = [node[key] for key in ("root", "file") if key in node]
    return own + [name for value in node.values() for name in listed(value)]


def notebooks(root):
    """{path: notebook} of the book's pages that may run in the browser."""
    contents = yaml.safe_load((root / "_toc.yml").read_text("utf-8"))
    paths = [root / f"{name}.ipynb" for name in listed(contents)]
    found = {path: nbformat.read(path, 4) for path in paths if path.is_file()}
    return {path: it for path, it in found.items() if it.metadata.get("live", True)}


def prepared(notebook):
    """A notebook as JupyterLite should open it: with its kernel, its stored figures alive."""
    notebook.metadata.kernelspec = {
        "name": "python", "display_name": "Python (Pyodide)", "language": "python",
    }
    for number, cell in enumerate(notebook.cells):
        if "not-in-browser" in cell.metadata.get("tags", ()):
            notebook.cells[number] = as_text(cell)
        elif cell.cell_type == "code":
            cell.metadata["trusted"] = True
    return json.dumps(notebook)  # nbformat would leave out that a cell is trusted


def as_text(cell):
    """A cell that cannot run in the browser, to be read: its code and what it printed."""
    printed = [it.text if it.output_type == "stream" else it.get("data", {}).get("text/plain", "")
               for it in cell.outputs]
    reason = cell.metadata.get("live_reason", "it needs another machine")
    parts = [f"This does not run in the browser: {reason}.", fenced("python", cell.source),
             *[fenced("text", text) for text in printed if text]]
    return nbformat.v4.new_markdown_cell("\n\n".join(parts), id=cell.id)


def fenced(language, text):
    return f"````{language}\n{text.rstrip()}\n````"


def place_contents(root, folder):
    """Write the notebooks and the files that they read, at the same paths as here."""
    for path, notebook in notebooks(root).items():
        target = folder / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(prepared(notebook), "utf-8")
    dist = root / "_build/live/dist"
    for name, place in read_manifest(root)["beside"].items():
        if not (folder / name).exists():
            live.write(folder / name, (dist / place).read_bytes())


def read_manifest(root):
    return json.loads((root / "_build/live/dist/manifest.json").read_text("utf-8"))


# -- The site ----------------------------------------------------------------------------------


def extensions_folder():
    """Where this environment keeps extensions of JupyterLab."""
    folder = Path(sysconfig.get_path("data"), "share/jupyter/labextensions")
    for name in EXTENSIONS:
        if not (folder / name / "package.json").is_file():
            raise live.Missing(f"{name} is not installed: {folder} has no such extension")
    return folder


def configure(source, site, extensions, packages):
    """Write what JupyterLite's builder and its pages read, into the folder `source`."""
    build = {
        "apps": APPS,
        "contents": ["files"],
        "output_dir": str(site),
        "cache_dir": str(source / "cache"),
        "no_sourcemaps": True,
        "no_unused_shared_packages": True,
        "ignore_sys_prefix": ["federated_extensions"],
        "federated_extensions": [str(extensions / name) for name in EXTENSIONS],
    }
    kernel = {
        "pyodideUrl": "./../notebook.js",
        "disablePyPIFallback": True,
        "loadPyodideOptions": {"packages": packages},
    }
    page = {
        "appName": "Notebook",
        "appUrl": "./tree",
        "exposeAppInBrowser": True,  # as `jupyterapp`: tests read what a notebook shows
        "faviconUrl": "./tree/favicon.ico",
        "litePluginSettings": {KERNEL + ":kernel": kernel},
    }
    files = {
        "jupyter_lite_config.json": {"LiteBuildConfig": build},
        "jupyter-lite.json": {"jupyter-lite-schema-version": 0, "jupyter-config-data": page},
        "overrides.json": SETTINGS,
    }
    for name, content in files.items():
        live.write(source / name, json.dumps(content).encode())


def run_builder(source):
    command = [sys.executable, "-W", "ignore", "-m", "jupyterlite_core", "build"]
    done = subprocess.run(
        command, cwd=source, capture_output=True, text=True, timeout=600,
        env={**os.environ, "JUPYTER_PREFER_ENV_PATH": "1"},
    )
    if done.returncode:
        raise live.Missing(f"jupyter lite build: {(done.stderr or done.stdout)[-1000:]}")


def assemble(root=ROOT):
    """Make the site of notebooks, unless it is there and made of the same parts; return its folder.

    Raises
    ------
    live.Missing
        If a part cannot be had.
    """
    out, stamp = site(root), root / "_build/lite/stamp"
    if not (root / "_build/live/dist/manifest.json").is_file():
        raise live.Missing("there is no Python for the browser")
    extensions, parts = extensions_folder(), digest(root)
    if stamp.is_file() and stamp.read_text() == parts:
        return out
    shutil.rmtree(out.parent, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder)
        place_contents(root, source / "files")
        lock = json.loads((root / "_build/live/dist" / live.LOCK).read_text("utf-8"))
        configure(source, out, extensions, [*lock["packages"], *PACKAGES, *KERNEL_WHEELS])
        run_builder(source)
    place_packages(extensions, out / "packages")
    finish(out)
    stamp.write_text(parts)
    return out


def site(root):
    """The folder of the site, whether it is there or not."""
    return root / "_build/lite/site"


def finish(out):
    """Leave out what no browser asks for, and name the icon, which would be sought elsewhere."""
    for path in [path for pattern in UNUSED for path in out.glob(pattern)]:
        path.unlink()
    for path in out.glob("*/index.html"):
        icon = '<head><link rel="icon" href="favicon.ico">'
        path.write_text(path.read_text("utf-8").replace("<head>", icon), "utf-8")


def digest(root):
    """One sum over all that the site is made of."""
    total = hashlib.sha256(Path(__file__).read_bytes())
    for name in (*PACKAGES, "jupyterlite-core", "jupyterlite-pyodide-kernel", "jupyterlab-myst"):
        total.update(f"{name} {importlib.metadata.version(name)}".encode())
    total.update(json.dumps(read_manifest(root)["bytes"]).encode())
    for path, notebook in notebooks(root).items():
        total.update(path.as_posix().encode() + nbformat.writes(notebook).encode())
    return total.hexdigest()


def prepare(root):
    """Have the site in `_build/lite/site`, or none there: pages then offer no notebook.

    Says so loudly when a part cannot be had; nothing else of the book depends on it.
    """
    if not (root / "_build/live/dist").is_dir():
        shutil.rmtree(root / "_build/lite", ignore_errors=True)
        return  # live.py has said so.
    try:
        print(f"Notebooks in the browser: {size(assemble(root)) / 1e6:.0f} MB of the site.")
    except (live.Missing, importlib.metadata.PackageNotFoundError) as error:
        shutil.rmtree(root / "_build/lite", ignore_errors=True)
        print(
            f"NO NOTEBOOKS IN THE BROWSER: a part of JupyterLite cannot be had.\n  {error}\n"
            "The book is made without them: pages run in place, but do not open as notebooks.",
            file=sys.stderr,
        )


def size(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def download(root):
    """Bytes that come before the first cell of a notebook runs, if nothing was kept before."""
    python = read_manifest(root)
    names = [*python["core"], *(name for name in python["bytes"] if name.endswith(".whl"))]
    return sum(python["bytes"][name] for name in names) + size(site(root) / "packages") + APP


def add_to_site(root, html):
    """Put the prepared site, if there is one, into the book's."""
    if site(root).is_dir():
        shutil.copytree(site(root), html / PLACE, copy_function=live.link, dirs_exist_ok=True)
