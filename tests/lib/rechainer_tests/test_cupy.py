"""CuPy's seam, tried on an empty CuPy so that it needs no GPU; the names Chainer wants of CuPy."""

import ast
import importlib.util
import json
from pathlib import Path

from rechainer import cudnn
from rechainer.cudnn import _constants

import cupy_names
import pytest

EMPTY_CUPY = """
import sys, types, warnings

def module(name, **members):
    made = sys.modules[name] = types.ModuleType(name)
    vars(made).update(members)
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, made)

warnings.warn("cupy could not find NCCL\\npage after page")
warnings.warn("\\ncudnn library could not be loaded.\\npage after page")
class anything:
    def __init__(self, *args, **kwargs):
        pass

    def __call__(self, function):  # a decorator such as cupy.fuse()
        return function

cupy = sys.modules["cupy"]
cupy.__getattr__ = lambda name: anything
cupy.__version__ = "14.0.0"
cupy.__path__ = []
module("cupy.cuda", Device=anything, Event=anything, Stream=anything)
module("cupy.cuda.cublas")
module("cupy.exceptions", PerformanceWarning=type("PerformanceWarning", (Warning,), {}))
for name in ("cupyx", "cupyx.scipy", "cupyx.scipy.linalg", "cupyx.scipy.special"):
    module(name)
"""


@pytest.fixture
def empty_cupy(tmp_path):
    (tmp_path / "cupy.py").write_text(EMPTY_CUPY)


def test_without_a_driver_cupy_is_not_imported(empty_cupy, python):
    python("""
        import sys
        import rechainer
        rechainer._cupy.has_driver = lambda: False
        assert "no graphics driver" in rechainer.info()["parts"]["CuPy"]
        import chainer
        assert "cupy" not in sys.modules
        assert not chainer.backends.cuda.available
        try:
            chainer.backends.cuda.check_cuda_available()
        except RuntimeError as error:
            assert "CuPy was not imported: this machine has no graphics driver" in str(error)
        else:
            raise AssertionError
    """)


def test_with_a_driver_its_moved_name_is_found_quietly(empty_cupy, python):
    python("""
        import sys, warnings
        import rechainer
        rechainer._cupy.has_driver = lambda: True
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            from chainer.backends import cuda
            import chainer.training.updaters
        assert "cupy" in sys.modules
        assert not [w for w in told if "page after page" in str(w.message)]
        assert cuda.available
        assert cuda._PerformanceWarning is sys.modules["cupy.exceptions"].PerformanceWarning
        assert "cupy.util" not in sys.modules
    """)


def test_without_cupy_chainer_is_left_alone(python):
    python("""
        import rechainer, chainer
        if rechainer._cupy.is_installed():
            raise SystemExit
        assert not chainer.backends.cuda.available
        assert "No module named 'cupy'" in str(chainer.backends.cuda._resolution_error)
        assert rechainer.info()["parts"]["CuPy"] == "not installed"
    """)


TABLE = json.loads(cupy_names.TABLE.read_text())
# Not offered by rechainer: what the modules that keep away from cuDNN would have called.
AWAY = ("Descriptor", "descriptor", "rnn_", "RNN", "spatialTf", "cudnn.get_data_type")


def surface():
    """Return what `_surface` offers; it can be imported only where CuPy is."""
    tree = ast.parse(Path(_constants.__file__).with_name("_surface.py").read_text())
    return next(ast.literal_eval(node.value) for node in tree.body
                if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__")


SUPPLIED = {
    "cupy.util.PerformanceWarning", "cupy.cudnn", "cupy.cuda.cudnn", "cupy.cuda.cudnn.getVersion",
    *(f"cupy.cudnn.{name}" for name in surface()),
    *(f"cupy.cuda.cudnn.{name}" for name in _constants.VALUES),
}


def test_the_table_has_every_name_that_chainer_uses():
    assert TABLE["used"] == sorted({*cupy_names.used("chainer"), *cupy_names.used("chainermn")})


@pytest.mark.parametrize("version", TABLE["missing"])
def test_every_name_that_a_cupy_lacks_is_supplied_or_not_asked_for(version):
    left = [name for name in TABLE["missing"][version] if name not in SUPPLIED
            # part of CuPy where NCCL is installed; Chainer asks before it uses them
            and not name.startswith("cupy.cuda.nccl.")]
    assert [name for name in left if not any(part in name for part in AWAY)] == []


def test_the_modules_without_cudnn_are_those_whose_names_are_not_offered():
    assert cupy_names.modules_using("chainer", AWAY) == set(cudnn.WITHOUT) - {
        "chainer.functions.rnn.n_step_gru", "chainer.functions.rnn.n_step_lstm"}


@pytest.mark.skipif(importlib.util.find_spec("cupy") is None, reason="CuPy is not installed")
def test_the_table_is_right_about_the_installed_cupy():
    import cupy

    missing = TABLE["missing"].get(cupy.__version__)
    if missing is None:
        pytest.skip(f"CuPy {cupy.__version__} is not in the table")
    found = [name for name in TABLE["used"] if "nccl" not in name and not cupy_names.has(name)]
    assert found == [name for name in missing if "nccl" not in name]


def test_nvtx_is_asked_for_without_a_warning(empty_cupy, python):
    python("""
        import sys, types, warnings
        import rechainer
        rechainer._cupy.has_driver = lambda: True
        from chainer.backends import cuda
        from chainer import function_hooks

        class WithOldFlag(types.ModuleType):
            @property
            def nvtx_enabled(self):
                warnings.warn("nvtx_enabled is deprecated", DeprecationWarning)
                return True

        sys.modules["cupy"].cuda = WithOldFlag("cupy.cuda")
        cuda.check_cuda_available = lambda: None
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            function_hooks.CUDAProfileHook()
    """)
