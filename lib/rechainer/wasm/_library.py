"""The compiled kernels in Python's own memory, where this is a browser's Python (Pyodide)."""

import functools
import sys
from pathlib import Path

from rechainer.wasm._compiler import translate


def is_possible():
    """Tell whether this Python is itself a WebAssembly program."""
    return sys.platform == "emscripten"


@functools.cache
def load():
    """The kernels, or None where there is no WebAssembly with SIMD to run them.

    Returns
    -------
    object or None
        Its attributes are the kernels of ``kernels.py``, functions of numbers and addresses.
    """
    if not is_possible():
        return None
    import js
    import pyodide_js
    from pyodide.ffi import JsException, to_js

    source = Path(__file__).with_name("kernels.py").read_text("utf-8")
    imports = {"env": {"memory": pyodide_js._module.memory}}
    given = to_js(imports, dict_converter=js.Object.fromEntries)
    for fused in True, False:
        try:
            module = js.WebAssembly.Module.new(to_js(translate(source, fused)))
            return js.WebAssembly.Instance.new(module, given).exports
        except JsException:  # an instruction that this browser does not know
            continue
    return None
