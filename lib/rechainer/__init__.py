"""Make stock Chainer 7.8.1 work on today's Python and NumPy.

``import rechainer`` before ``import chainer`` is all, and it may be done again at any time.
Nothing on disk is changed; what Chainer misses is supplied when its modules are imported, by one
module a seam:

==========================  ====================================================================
``_numpy_names``            names NumPy removed, visible to Chainer's modules only
``_numpy_behaviour``        what NumPy 2 changed in meaning
``_removed_modules``        ``pkg_resources`` and ``numpy.distutils``, lent to Chainer only
``_caffe``                  Caffe's message classes, built by today's protobuf
``_processes``              Python without processes (WebAssembly); spawned children
``_shortcuts``              less to ask about arrays that are all NumPy's
``_cupy``                   CuPy's moved names; no import of CuPy without a graphics driver
``cudnn``                   cuDNN 9 in place of ``cupy.cudnn``, which CuPy 14 removed
``onednn``                  oneDNN in place of ideep4py, where ``use_ideep`` asks for it
``wasm``                    Chainer's slowest loops in WebAssembly, where Python runs in a browser
==========================  ====================================================================

**Reach.** Outside Chainer only ``numpy.__getattr__`` and ``sys.meta_path`` are touched: other
code sees no name on ``numpy`` and no module that it did not see before. Old code of your own gets
NumPy's removed names too if you ask for it: `cover` a file or directory, or run the script by
``python -m rechainer script.py``. With ``pytest -p rechainer`` old tests run.

If Chainer was imported first and that worked, its modules not yet imported are still supplied; if
it failed, what it left behind is cleared away, and ``import chainer`` works.
"""

import importlib.util
import sys

from rechainer import (
    _caffe,
    _cupy,
    _hooks,
    _numpy_behaviour,
    _numpy_names,
    _processes,
    _removed_modules,
    _shortcuts,
    cudnn,
    onednn,
    wasm,
)
from rechainer._info import info
from rechainer._numpy_names import cover

__all__ = ["cover", "info"]

_INSTALL = (
    "Chainer is not installed. Its source archive builds only beside an older setuptools: "
    "pip install 'setuptools<81' wheel && pip install --no-build-isolation chainer==7.8.1"
)


def _activate():
    if sys.modules.get("chainer") is None:
        if importlib.util.find_spec("chainer") is None:
            _say_chainer_is_missing()
        _forget_failed_import()
    _numpy_names.install()
    _hooks.install(
        _removed_modules.SEAMS
        | _numpy_behaviour.SEAMS
        | _caffe.SEAMS
        | _processes.SEAMS
        | _shortcuts.SEAMS
        | _cupy.SEAMS
        | cudnn.SEAMS
        | onednn.SEAMS
        | wasm.SEAMS
    )


def _say_chainer_is_missing():
    # While `python -m rechainer` imports this package, sys.argv[0] is "-m": one line will do.
    if sys.argv[:1] == ["-m"] and "rechainer" in sys.orig_argv:
        sys.exit(f"rechainer: {_INSTALL}")
    raise ModuleNotFoundError(_INSTALL, name="chainer")


def _forget_failed_import():
    # `import chainer` that failed leaves submodules which a new chainer package would not know.
    for name in [name for name in sys.modules if name.startswith("chainer.")]:
        del sys.modules[name]


def pytest_configure(config):
    """As a plugin (``pytest -p rechainer``): run old tests, Chainer's own among them."""
    from rechainer import _own_tests

    config.pluginmanager.register(_own_tests, "rechainer-own-tests")


_activate()
