"""Runs the cells of a page in the browser's worker, and tells the page what they show.

Outputs have the form that notebooks store them in (nbformat): streams, results and displays by
MIME type, errors. Cells share one namespace, ``__main__``. What a cell imports and the first
download did not bring is loaded in the middle of the import.
"""

import ast
import asyncio
import base64
import builtins
import glob
import importlib
import importlib.abc
import importlib.util
import inspect
import io
import json
import linecache
import marshal
import os
import platform
import pprint
import shutil
import sys
import time
import traceback
import warnings
import zipfile

SITE = os.path.dirname(__file__)
#: Method of an object -> the MIME type of what it returns.
REPRS = {
    "_repr_html_": "text/html",
    "_repr_markdown_": "text/markdown",
    "_repr_svg_": "image/svg+xml",
    "_repr_png_": "image/png",
    "_repr_jpeg_": "image/jpeg",
    "_repr_latex_": "text/latex",
    "_repr_json_": "application/json",
    "_repr_javascript_": "application/javascript",
}
#: Files whose frames say nothing to a reader.
HIDDEN = (__file__, "<frozen importlib", os.path.join(SITE, "rechainer", "_hooks.py"))
MAIN = sys.modules["__main__"].__dict__


class StdinNotImplementedError(RuntimeError):
    """`input()` in a place that has no keyboard; Jupyter's name for it."""


# -- What the page is told -------------------------------------------------------------------


class Channel:
    """Sends messages about the cell that runs, by the address and the length of their bytes.

    Pyodide's own way to hand over text reads other bytes when they lie above 2 GB.
    """

    HEAD = bytes.__basicsize__ - 1  # before the first byte, in CPython

    def __init__(self):
        self.post = self.cell = None

    def send(self, **message):
        data = json.dumps({"id": self.cell, **message}).encode()
        self.post(id(data) + self.HEAD, len(data))

    def output(self, kind, **fields):
        flush()
        self.send(type="output", output={"output_type": kind, **fields})


class Stream(io.TextIOBase):
    """Standard output or error: each line goes to the page, at most `LINES` at once.

    A cell that prints without end sends larger pieces then, or the page could not follow.
    """

    LINES, WINDOW = 25, 0.1  # messages in so many seconds

    def __init__(self, name):
        self.name, self.parts, self.sent, self.since = name, [], 0, 0.0

    encoding = "utf-8"

    def writable(self):
        return True

    def write(self, text):
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self.parts.append(text)
        if "\n" in text or "\r" in text:
            self.line()
        return len(text)

    def line(self):
        now = time.monotonic()
        if now - self.since > self.WINDOW:
            self.since, self.sent = now, 0
        if self.sent < self.LINES:
            self.flush()

    def flush(self):
        if text := "".join(self.parts):
            self.parts.clear()
            self.sent += 1
            output = {"output_type": "stream", "name": self.name, "text": text}
            channel.send(type="output", output=output)


channel = Channel()
streams = Stream("stdout"), Stream("stderr")


def flush():
    for stream in streams:
        stream.flush()


# -- Objects as MIME bundles -----------------------------------------------------------------


def bundle(thing):
    """Data and metadata of an object, as a notebook stores them."""
    data, metadata = {}, {}
    if method := method_of(thing, "_repr_mimebundle_"):
        data, metadata = with_metadata(method(include=None, exclude=None) or {})
    elif is_figure(thing):
        data = {"image/png": picture(thing)}
    for name, mime in REPRS.items():
        if mime not in data and (method := method_of(thing, name)):
            content, more = with_metadata(method())
            if content is not None:
                data[mime] = content
                metadata |= {mime: more} if more else {}
    data.setdefault("text/plain", plain(thing))
    return {mime: encoded(content) for mime, content in data.items()}, metadata


def method_of(thing, name):
    """A display method of an object; classes have those of their instances, which do not count."""
    return None if isinstance(thing, type) else getattr(thing, name, None)


def with_metadata(result):
    return result if isinstance(result, tuple) else (result, {})


def encoded(content):
    return base64.b64encode(content).decode() if isinstance(content, bytes) else content


def plain(thing):
    """The text of an object; containers break into lines where they are long."""
    if type(thing) in (dict, list, tuple, set, frozenset):
        return pprint.pformat(thing, width=79, sort_dicts=False)
    return repr(thing)


def display(*things, **_):
    """Show objects in the output of the cell, as `IPython.display.display` does."""
    for thing in things:
        data, metadata = bundle(thing)
        channel.output("display_data", data=data, metadata=metadata)
        mark_shown(thing)


def clear_output(wait=False):
    """Remove the output of the cell; with `wait`, as soon as there is new output."""
    flush()
    channel.send(type="clear", wait=wait)


class Shown:
    """Text of one MIME type that is shown as it is: base of `HTML`, `Markdown` ..."""

    method = None

    def __init__(self, data):
        self.data = data
        setattr(self, self.method, lambda: self.data)


def fill_ipython(module):
    module.__path__ = []
    module.version_info = (9, 0, 0)
    module.get_ipython = lambda: None  # as outside IPython, which libraries ask


def fill_display(module):
    """The part of ``IPython.display`` that works without IPython."""
    for name, method in (
        ("HTML", "_repr_html_"),
        ("Markdown", "_repr_markdown_"),
        ("SVG", "_repr_svg_"),
        ("Latex", "_repr_latex_"),
        ("Javascript", "_repr_javascript_"),
        ("Image", "_repr_png_"),
    ):
        setattr(module, name, type(name, (Shown,), {"method": method}))
    module.display, module.clear_output = display, clear_output


# -- matplotlib ------------------------------------------------------------------------------


def is_figure(thing):
    figure = sys.modules.get("matplotlib.figure")
    return figure is not None and isinstance(thing, figure.Figure)


def picture(figure):
    """A figure as PNG, cut to what is drawn, as Jupyter does."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=figure.dpi, bbox_inches="tight")
    return file.getvalue()


def open_figures():
    """The managers of pyplot's open figures."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    return pyplot._pylab_helpers.Gcf.get_all_fig_managers() if pyplot else []


def show_figures(*args, **kwargs):
    """Show and close pyplot's figures that were not shown yet: plt.show(), and each cell's end."""
    for manager in open_figures():
        figure = manager.canvas.figure
        if not getattr(figure, "_live_shown", False):
            display(figure)
        sys.modules["matplotlib.pyplot"].close(figure)


def mark_shown(thing):
    """Remember a figure that was shown as a result, so that the cell's end leaves it out."""
    if is_figure(thing):
        thing._live_shown = True


def fill_backend(module):
    """matplotlib's backend: Agg, whose `show` shows in the page."""
    from matplotlib.backends import backend_agg

    module.FigureCanvas = backend_agg.FigureCanvasAgg
    module.FigureManager = backend_agg.FigureManagerBase
    module.show = show_figures


# -- Modules that are made here, when they are imported ---------------------------------------


class ModuleMaker(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports modules that a function fills."""

    MODULES = {
        "live_backend": fill_backend,
        "IPython": fill_ipython,
        "IPython.display": fill_display,
    }

    def find_spec(self, name, path=None, target=None):
        return importlib.util.spec_from_loader(name, self) if name in self.MODULES else None

    def exec_module(self, module):
        self.MODULES[module.__name__](module)


# -- Packages on demand ----------------------------------------------------------------------


class PackageFinder(importlib.abc.MetaPathFinder):
    """Loads the package of the distribution that has a module which is not there yet."""

    def __init__(self, fetch, base, packages, loaded):
        self.fetch, self.base, self.packages, self.loaded = fetch, base, packages, set(loaded)
        self.owner = {name: package for package, it in packages.items() for name in it["imports"]}

    def find_spec(self, name, path=None, target=None):
        package = self.owner.get(name)
        if path is not None or package is None or package in self.loaded:
            return None
        self.load(package)
        importlib.invalidate_caches()
        return importlib.machinery.PathFinder.find_spec(name)

    def load(self, package):
        if package in self.loaded:
            return
        self.loaded.add(package)
        for needed in self.packages[package]["depends"]:
            self.load(needed)
        content = self.fetch(self.base + self.packages[package]["file_name"]).to_bytes()
        with zipfile.ZipFile(io.BytesIO(content)) as wheel:
            wheel.extractall(SITE)


# -- Cells -----------------------------------------------------------------------------------


def compiled(code, name):
    """The statements of a cell, and its last expression (or None)."""
    lines = code.splitlines(keepends=True)
    linecache.cache[name] = len(code), None, lines, name  # for tracebacks
    tree = ast.parse(code, name)
    last = None
    if tree.body and isinstance(tree.body[-1], ast.Expr) and not code.rstrip().endswith(";"):
        last = ast.Expression(tree.body.pop().value)
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    body = compile(tree, name, "exec", flags, dont_inherit=True)
    return body, last and compile(last, name, "eval", flags, dont_inherit=True)


async def evaluated(code):
    """Run compiled code in the namespace of the page."""
    result = eval(code, MAIN)
    return await result if inspect.CO_COROUTINE & code.co_flags else result


async def run(cell, code, name):
    """Run one cell; return ``'ok'`` or ``'error'``."""
    channel.cell = cell
    try:
        body, last = compiled(code, name)
    except (SyntaxError, ValueError, OverflowError, MemoryError, RecursionError) as error:
        report(error, frames=False)
        return "error"
    status = "ok"
    try:
        await evaluated(body)
        if last is not None and (value := await evaluated(last)) is not None:
            MAIN["_"] = value
            data, metadata = bundle(value)
            channel.output(
                "execute_result", data=data, metadata=metadata, execution_count=None
            )
            mark_shown(value)
        show_figures()
    except (Exception, KeyboardInterrupt, SystemExit, asyncio.CancelledError) as error:
        status = "error"
        report(error)
    flush()
    return status


def report(error, frames=True):
    """Send an error with the part of its traceback that a reader can use."""
    summary = traceback.TracebackException.from_exception(error)
    if frames:
        simplify(summary)
    else:
        summary.stack = None  # Text that is no Python has run nothing.
    text = "".join(summary.format())
    channel.output(
        "error", ename=type(error).__name__, evalue=str(error), traceback=text.split("\n")
    )


def simplify(summary):
    """Leave out frames of this module and of the import system; name files from the package on."""
    kept = [frame for frame in summary.stack if not frame.filename.startswith(HIDDEN)]
    for frame in kept:
        frame.filename = frame.filename.removeprefix(SITE + "/")
    summary.stack[:] = kept
    for other in (summary.__cause__, summary.__context__):
        if other is not None:
            simplify(other)


def no_input(prompt=""):
    raise StdinNotImplementedError("input() needs a keyboard: put the value into the cell instead")


# -- Compiled modules ------------------------------------------------------------------------


def pack_compiled(path):
    """Write the modules that this Python has compiled into a zip file; return how many are new.

    They are marked as right whatever the date of their source (PEP 552): a version of the
    distribution has one source, and unpacking it gives each file another date.
    """
    folder = sys.pycache_prefix
    found = glob.glob(f"{folder}{SITE}/**/*.pyc", recursive=True)
    contents = {os.path.relpath(name, folder): read(name) for name in found}
    new = sum(content[4:8] != UNCHECKED for content in contents.values())
    if new:
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in contents.items():
                archive.writestr(name, content[:4] + UNCHECKED + bytes(8) + content[16:])
    return new


def library_modules():
    """Modules of the standard library that this Python has compiled: it comes as a zip file."""
    specs = [getattr(module, "__spec__", None) for module in list(sys.modules.values())]
    origins = {spec.origin for spec in specs if spec and isinstance(spec.origin, str)}
    return sorted(it for it in origins if it.startswith(f"{LIBRARY}/") and it.endswith(".py"))


def compile_library():
    """Compile one more of these modules again, to keep it; return how many are left."""
    left = [name for name in library_modules() if name not in library]
    if left:
        name = left[0]
        with zipfile.ZipFile(LIBRARY) as archive:
            source = archive.read(name.removeprefix(f"{LIBRARY}/"))
        code = compile(source, name, "exec", dont_inherit=True)
        head = importlib.util.MAGIC_NUMBER + UNCHECKED + bytes(8)
        library[name] = head + marshal.dumps(code)
    return len(left[1:])


def pack_library(path):
    """Write the standard library with the compiled modules; return how many are new."""
    shutil.copyfile(LIBRARY, path)
    with zipfile.ZipFile(path, "a") as archive:
        for name, content in library.items():
            archive.writestr(name.removeprefix(f"{LIBRARY}/") + "c", content)
    return len(library)


LIBRARY = f"/lib/python{sys.version_info.major}{sys.version_info.minor}.zip"
library = {}  # file of a module -> the content of its compiled file
UNCHECKED = (1).to_bytes(4, "little")  # flags after the magic number; a date and a size follow


def read(path):
    with open(path, "rb") as file:
        return file.read()


def version():
    return platform.python_version()


def start(post, fetch, base, compiled, packages, loaded):
    """Make this interpreter the kernel of a page; the worker calls it once.

    `compiled` is the folder of compiled modules.
    """
    sys.pycache_prefix, sys.dont_write_bytecode = compiled.rstrip("/"), False
    channel.post = post
    sys.stdout, sys.stderr = streams
    builtins.input, builtins.display = no_input, display
    os.environ.update(MPLBACKEND="module://live_backend", CHAINER_WARN_VERSION_MISMATCH="0")
    # tqdm would have a thread that looks after slow bars; there are no threads here.
    warnings.filterwarnings("ignore", "tqdm:disabling monitor support")
    sys.path.insert(0, "")
    sys.argv = [""]
    sys.meta_path += [
        PackageFinder(fetch, base, json.loads(packages), json.loads(loaded)),
        ModuleMaker(),
    ]
