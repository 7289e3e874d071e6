"""Sphinx extension: what the pages need to run in the reader's browser.

Every page made from a notebook gets its code cells as JSON, an id on each cell that it shows, and
a panel that says what running it takes (book/_static/live/runner.js does the rest). All that only
where the build has a Python for the browser (live.py); without one the pages are as they were.

A notebook's metadata may say `"live": false` and, in `live_reason`, why: the page then says so.
A cell tagged `not-in-browser` keeps its stored output; its metadata may hold a `live_reason`, too.
"""

import html
import json
import re
import shutil
from pathlib import Path

import lite
import nbformat
from docutils import nodes

# Cells with one of these words draw: matplotlib comes with the first download.
DRAWS = re.compile(r"\b(matplotlib|plt|figures)\b")
NAMES = {"convnets": "Chainer and this book's library", "matplotlib": "matplotlib"}


def notebook_of(app, docname):
    """The notebook that a page is made from, or None."""
    path = Path(app.env.doc2path(docname))
    return path if path.suffix == ".ipynb" else None


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def distribution(app):
    """The browser's Python of this build, as (manifest, packages of its lock), or None."""
    folder = Path(app.srcdir) / "_build/live/dist"
    if not (folder / "manifest.json").is_file():
        return None
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    return manifest, json.loads((folder / "pyodide-lock.json").read_text("utf-8"))["packages"]


# -- What the cells of a page need ------------------------------------------------------------


def packages(sources):
    """Packages of the distribution that come before the first cell runs."""
    return ["convnets", *(["matplotlib"] if any(map(DRAWS.search, sources)) else [])]


def closure(names, locked):
    """These packages and all that they need."""
    found, todo = set(), list(names)
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += locked[name]["depends"]
    return found


def sizes(names, manifest, locked):
    """[(what, bytes)] of the first download: Python itself, then each package with its needs."""
    size, seen = manifest["bytes"], {"numpy"}
    rows = [
        ("Python", sum(size[name] for name in manifest["core"])),
        ("NumPy", size[locked["numpy"]["file_name"]]),
    ]
    for name in names:
        new = closure([name], locked) - seen
        seen |= new
        rows.append((NAMES[name], sum(size[locked[it]["file_name"]] for it in new)))
    return rows


def lab_of(folder):
    """Name of a lab and its number of exercises, or None for another page."""
    if not (folder / "checks.py").is_file():
        return None
    cells = read(folder / "solution.ipynb").cells
    exercises = sum(len(cell.metadata.get("exercises", ())) for cell in cells)
    return {"name": folder.name, "exercises": exercises}


# -- The page -----------------------------------------------------------------------------------


def cell_data(cell):
    data = {"id": cell.id, "source": cell.source, "tags": cell.metadata.get("tags", [])}
    if "live_reason" in cell.metadata:
        data["reason"] = cell.metadata["live_reason"]
    return data


def page_data(docname, path, link):
    """What runner.js needs to know; `link` makes an address relative to the page."""
    cells = code_cells(read(path))
    return {
        "name": docname,
        "folder": Path(docname).parent.as_posix(),
        "base": link("_static/live/dist/"),
        "worker": link("service-worker.js"),
        "packages": packages([cell.source for cell in cells]),
        "lab": lab_of(path.parent),
        "cells": [cell_data(cell) for cell in cells],
    }


def notebook_link(app, docname):
    """HTML of the link that opens a page's notebook in a new tab, where the site has that."""
    if not lite.site(Path(app.srcdir)).is_dir():
        return ""
    address = "../" * docname.count("/") + lite.ADDRESS + docname
    return (
        f'<a class="live-button live-notebook" href="{address}.ipynb" target="_blank" '
        f'title="JupyterLite in a new tab: about {lite.download(Path(app.srcdir)) / 1e6:.0f} MB">'
        "Open as notebook</a>"
    )


def panel(rows, link=""):
    """HTML of the panel on a page that runs; `rows` are the sizes of the first download."""
    total = sum(size for _, size in rows) / 1e6
    parts = ", ".join(f"{html.escape(name)} {size / 1e6:.1f} MB" for name, size in rows)
    return (
        '<section class="live-panel" id="live" aria-label="Run this page">'
        f'<span class="live-place"></span>{link}'
        f'<p class="live-note">It loads {total:.1f} MB, once, from this site alone: {parts}. Data '
        "sets come when a cell opens them.</p>"
        "<script>if (location.protocol === 'file:') document.getElementById('live').innerHTML ="
        " '<p class=\"live-note\">This page can run in your browser, but a file cannot load Python:"
        " <code>make serve</code> and open <code>http://127.0.0.1:8000/</code>.</p>'</script>"
        "</section>"
    )


def refusal(reason):
    """HTML of the panel on a page that does not run."""
    return (
        '<section class="live-panel" aria-label="Run this page"><p class="live-note">'
        f"This page does not run in the browser: {html.escape(reason)}. It does in Jupyter "
        "(<code>make lab</code>).</p></section>"
    )


def mark_page(app, doctree, docname):
    """Put the panel below the title, and on each cell its id."""
    path, found = notebook_of(app, docname), distribution(app)
    if app.builder.format != "html" or not path or not found:
        return
    notebook = read(path)
    if notebook.metadata.get("live", True):
        names = packages([cell.source for cell in code_cells(notebook)])
        text = panel(sizes(names, *found), notebook_link(app, docname))
        for node in doctree.findall(nodes.container):
            if node.get("nb_element") == "cell_code":
                node["ids"].append(f"cell-{notebook.cells[node['cell_index']].id}")
    else:
        text = refusal(notebook.metadata["live_reason"])
    title = next(iter(doctree.findall(nodes.title)))
    title.parent.insert(title.parent.index(title) + 1, nodes.raw("", text, format="html"))


def add_scripts(app, pagename, templatename, context, doctree):
    """Add the data, the import map of the editor's modules, and the script."""
    path = notebook_of(app, pagename) if pagename in app.env.all_docs else None
    if not path or not distribution(app) or not read(path).metadata.get("live", True):
        return

    def link(target):
        return context["pathto"](target, True)

    # '<' as \u003c: no text in a cell can close the script element.
    data = json.dumps(page_data(pagename, path, link)).replace("<", "\\u003c")
    context["body"] += f'<script type="application/json" id="live-page">{data}</script>'
    editor = "_static/vendor/codemirror/"
    modules = {name: link(editor + file) for name, file in editor_modules(app).items()}
    app.add_js_file(None, body=json.dumps({"imports": modules}), type="importmap", priority=100)
    app.add_js_file("live/runner.js", type="module", priority=950)
    app.add_css_file("live/runner.css", priority=950)


def editor_modules(app):
    manifest = Path(app.srcdir) / "book/_static/vendor/manifest.json"
    return json.loads(manifest.read_text("utf-8"))["codemirror"]["imports"]


def place_service_worker(app, exception):
    """Copy it to the site's root: from its own folder it could serve that folder only."""
    if not exception and app.builder.format == "html" and distribution(app):
        out = Path(app.outdir)
        shutil.copyfile(out / "_static/live/service-worker.js", out / "service-worker.js")


def setup(app):
    app.connect("doctree-resolved", mark_page)
    app.connect("html-page-context", add_scripts)
    app.connect("build-finished", place_service_worker)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
