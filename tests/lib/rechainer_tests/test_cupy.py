"""CuPy's seam, tried on an empty CuPy so that it needs no GPU."""

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
        assert not [w for w in told if "NCCL" in str(w.message)]
        assert cuda.available
        assert cuda._PerformanceWarning is sys.modules["cupy.exceptions"].PerformanceWarning
        assert "cupy.util" not in sys.modules
    """)


def test_without_cupy_chainer_is_left_alone(python):
    python("""
        import rechainer, chainer
        if rechainer._cupy._is_installed():
            raise SystemExit
        assert not chainer.backends.cuda.available
        assert "No module named 'cupy'" in str(chainer.backends.cuda._resolution_error)
        assert rechainer.info()["parts"]["CuPy"] == "not installed"
    """)
