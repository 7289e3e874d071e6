"""Run an old Chainer program, unchanged, on today's Python and NumPy.

usage: python -m rechainer script.py [argument ...]
       python -m rechainer -m module [argument ...]
       python -m rechainer --info

The program finds what Python itself would give it: its arguments, its directory first on the
module search path, the module __main__. Beside Chainer, the program and the modules in its
directory get the names that NumPy removed; packages in site-packages do not.
"""

import importlib.util
import io
import os
import runpy
import sys
import types

from rechainer import cover, info
from rechainer._processes import bring_to_children


def run_script(path, arguments):
    """Run the Python file ``path`` as ``__main__``."""
    if not os.path.isfile(path):
        _fail(f"{path!r} is not a file; scripts are looked for from {os.getcwd()!r}")
    sys.argv = [path, *arguments]
    file = os.path.abspath(path)
    directory = os.path.dirname(os.path.realpath(path))
    if not sys.flags.safe_path:
        sys.path[0] = directory
    _adopt(directory)
    module = sys.modules["__main__"] = types.ModuleType("__main__")
    module.__file__ = file
    module.__builtins__ = __builtins__
    with io.open_code(file) as source:
        code = compile(source.read(), file, "exec", dont_inherit=True)
    exec(code, vars(module))


def run_module(name, arguments):
    """Run a module, found on the module search path, as ``__main__``."""
    package = importlib.util.find_spec(name.partition(".")[0])
    if package is None:
        _fail(f"no module named {name!r}; modules are looked for from {os.getcwd()!r}")
    sys.argv = [name, *arguments]  # runpy puts the module's file in place of its name
    _adopt(*(package.submodule_search_locations or [package.origin]))
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def _adopt(*places):
    for place in places:
        cover(place)
        bring_to_children(place)


def _fail(message):
    print(f"rechainer: {message}", file=sys.stderr)
    sys.exit(2)


def _report(error):
    # As Python does for a script: no frame of the runner before the program's first.
    runner = {os.path.dirname(__file__), os.path.dirname(runpy.__file__), ""}
    trace = error.__traceback__
    while trace is not None and os.path.dirname(trace.tb_frame.f_code.co_filename) in runner:
        trace = trace.tb_next
    sys.excepthook(type(error), error.with_traceback(trace), trace)
    return 130 if isinstance(error, KeyboardInterrupt) else 1


def _run(arguments):
    match arguments:
        case [] | ["-h" | "--help", *_]:
            print(__doc__.strip())
        case ["--info"]:
            print(info())
        case ["-m", name, *rest]:
            run_module(name, rest)
        case [option, *_] if option.startswith("-"):
            _fail(f"unknown option {option!r}, or nothing after it; try --help")
        case [path, *rest]:
            run_script(path, rest)


def main(arguments):
    """Run the program that the command line names; return the exit status."""
    try:
        return _run(arguments)
    except (KeyboardInterrupt, Exception) as error:
        return _report(error)
