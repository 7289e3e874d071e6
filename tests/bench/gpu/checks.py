"""What functions of Chainer calculate on a GPU, against the processor in float64."""

import functools
import subprocess
import sys
import warnings
from pathlib import Path

from convnets import layouts

import chainer
import chainer.functions as F
import numpy as np
from chainer.backends import cuda

#: Chainer's tests under its folder tests/chainer_tests, those marked for a GPU.
OWN_TESTS = [f"functions_tests/{name}" for name in (
    "connection_tests/test_convolution_2d.py", "connection_tests/test_deconvolution_2d.py",
    "connection_tests/test_linear.py", "pooling_tests/test_max_pooling_2d.py",
    "pooling_tests/test_average_pooling_2d.py", "normalization_tests/test_batch_normalization.py",
    "activation_tests/test_relu.py", "activation_tests/test_softmax.py",
    "activation_tests/test_log_softmax.py", "noise_tests/test_dropout.py")]
#: |got - expected| / |expected|, against float64 on the processor.
TOLERANCE = {"float64": 1e-10, "float32": 1e-5, "TF32": 3e-3, "float16": 5e-3}

#: Name, function, shapes of the inputs.
CHECKS = [
    ("convolution 3x3", functools.partial(F.convolution_2d, pad=1),
     [(8, 32, 14, 14), (64, 32, 3, 3), (64,)]),
    ("convolution 7x7, stride 2", functools.partial(F.convolution_2d, pad=3, stride=2),
     [(4, 3, 33, 31), (16, 3, 7, 7)]),
    ("convolution, dilation 2", functools.partial(F.convolution_2d, pad=2, dilate=2),
     [(4, 16, 15, 15), (16, 16, 3, 3), (16,)]),
    ("convolution, 8 groups", functools.partial(F.convolution_2d, pad=1, groups=8),
     [(4, 32, 12, 12), (32, 4, 3, 3), (32,)]),
    ("deconvolution", functools.partial(F.deconvolution_2d, stride=2, pad=1),
     [(4, 16, 9, 9), (16, 8, 4, 4), (8,)]),
    ("batch normalization", F.batch_normalization, [(16, 32, 9, 9), (32,), (32,)]),
    ("max pooling, cover_all", functools.partial(F.max_pooling_2d, ksize=3, stride=2),
     [(2, 4, 13, 13)]),   # few enough that no two of a window are equal in float16
    ("average pooling", functools.partial(F.average_pooling_2d, ksize=3, stride=2, pad=1),
     [(8, 16, 13, 13)]),
    ("ReLU", F.relu, [(64, 100)]),
    ("softmax", F.softmax, [(64, 1000)]),
    ("log softmax", F.log_softmax, [(8, 21, 7, 7)]),
    ("linear", F.linear, [(32, 100), (50, 100), (50,)]),
]


def outputs(function, arrays, device):
    """Return y and the gradients of all inputs, as float64 arrays of the processor."""
    inputs = [chainer.Variable(device.send(array)) for array in arrays]
    y = function(*inputs)
    upper = np.random.RandomState(1).randn(*y.shape).astype(y.dtype)
    y.grad = device.send(upper)
    y.backward()
    return [cuda.to_cpu(a).astype("d") for a in (y.array, *(x.grad for x in inputs))]


def distance(got, expected):
    """Return |got - expected| / |expected|; NaN counts as infinite."""
    found = np.linalg.norm(got - expected) / max(np.linalg.norm(expected), 1e-30)
    return float(found) if np.isfinite(found) else float("inf")


def growing(rows):
    """Yield what there is of the rows, each time there is one more."""
    found = []
    for row in rows:
        found.append(row)
        yield found


def check_operations(device):
    """Compare every function of `CHECKS`, in every type, with float64 on the processor."""
    rng = np.random.RandomState(0)
    for name, function, shapes in CHECKS + POOLING_CHECKS:
        drawn = [rng.randn(*shape) for shape in shapes]
        for kind, tolerance in TOLERANCE.items():
            dtype = "float32" if kind == "TF32" else kind
            arrays = [array.astype(dtype) for array in drawn]
            cores = "never" if kind == "float32" else "auto"
            with chainer.using_config("use_cudnn_tensor_core", cores):
                yield compared(name, kind, tolerance, function, arrays, device)


def compared(name, kind, tolerance, function, arrays, device):
    """Return a row: the largest distance among y and the gradients, or the error."""
    row = {"what": name, "type": kind, "tolerance": tolerance}
    try:
        got = outputs(function, arrays, device)
        with chainer.using_config("use_cudnn", "never"):
            cpu = chainer.get_device("@numpy")
            expected = outputs(function, [a.astype("d") for a in arrays], cpu)
        row["distance"] = max(map(distance, got, expected))
        row["passed"] = row["distance"] < tolerance
    except Exception as error:
        row |= {"passed": False, "error": f"{type(error).__name__}: {error}"}
    return row


def check_dropout(device):
    """Count what dropout drops, and compare its gradient with what it kept."""
    x = chainer.Variable(device.send(np.ones((1000, 1000), "f")))
    y = F.dropout(x, 0.3)
    y.grad = device.send(np.ones(x.shape, "f"))
    y.backward()
    kept = cuda.to_cpu(y.array)
    same = np.array_equal(kept, cuda.to_cpu(x.grad))
    off = abs((kept != 0).mean() - 0.7)
    yield {"what": "dropout", "type": "float32", "tolerance": 0.003, "distance": float(off),
           "passed": bool(same and off < 0.003)}


# Pooling with the channels last

class PooledLast:
    """Pooling with the channels last on a GPU; Chainer's on the processor.

    Raises
    ------
    RuntimeError
        If cuDNN did not pool them so.
    """

    def __init__(self, kind, **settings):
        self.ours, self.chainers = POOLS[kind]
        self.settings = settings

    def __call__(self, x):
        if x.xp is np:
            return self.chainers(x, **self.settings)
        with warnings.catch_warnings():
            warnings.simplefilter("error")     # that copies are pooled is said by a warning
            y = self.ours(x.as_layout(LAST), **self.settings)
        if y.layout != LAST:
            raise RuntimeError("the maps were turned: expected them with the channels last")
        return y.as_layout(None)


LAST = chainer.memory_layouts.CUDNN_CHANNEL_LAST_X
POOLS = {"max": (layouts.max_pooling, F.max_pooling_2d),
         "average": (layouts.average_pooling, F.average_pooling_2d)}
#: Of VGG, of ResNet's stem as the authors have it (GoogLeNet's, too) and as PyTorch has it, and
#: behind a residual network's last maps.
POOLINGS = {
    "max pooling 2x2": ("max", {"ksize": 2, "stride": 2}),
    "max pooling 3x3, cover_all": ("max", {"ksize": 3, "stride": 2}),
    "max pooling 3x3, pad 1": ("max", {"ksize": 3, "stride": 2, "pad": 1, "cover_all": False}),
    "average pooling 7x7": ("average", {"ksize": 7, "stride": 1})}
POOLING_CHECKS = [(f"{name}, last", PooledLast(kind, **settings), [(1, 8, 7, 9)])
                  for name, (kind, settings) in POOLINGS.items()]


# Batch normalization and what is behind it, by one kernel

FAST = "cudnn_fast_batch_normalization"
#: What is behind a normalization, as functions of it and of other maps of its shape.
BEHIND = {
    "batch normalization + ReLU": lambda h, z: F.relu(h),
    "batch normalization + sum + ReLU": lambda h, z: F.relu(h + z),
}
#: Shape of the maps that are compared, and of those that are timed: ResNet-50's first and last.
COMPARED, TIMED = (8, 32, 14, 14), [(128, 256, 56, 56), (128, 2048, 7, 7)]


def check_fusion(device):
    """Compare the fused kernels with float64 on the processor; not to be fused is to fail."""
    rng = np.random.RandomState(0)
    n_channels = COMPARED[1]
    drawn = [rng.randn(*COMPARED), rng.rand(n_channels) + 0.5, rng.randn(n_channels),
             rng.randn(*COMPARED)]
    arrays = [a.astype("f" if a.ndim == 1 else "e") for a in drawn]
    for name, behind in BEHIND.items():
        with chainer.using_config(FAST, True):
            row = compared(name, "float16", TOLERANCE["float16"], NormalizedAndMore(behind),
                           arrays, device)
        yield row


class NormalizedAndMore:
    """A normalization and what is behind it, on a GPU with the channels last.

    Raises
    ------
    RuntimeError
        If cuDNN did not do it by one kernel there.
    """

    def __init__(self, behind):
        self.behind = behind

    def __call__(self, x, gamma, beta, z):
        on_gpu = x.xp is not np
        maps = [v.as_layout(LAST) if on_gpu else v for v in (x, z)]
        y = self.behind(F.batch_normalization(maps[0], gamma, beta), maps[1])
        if on_gpu and y.creator.label != "NormalizedReLU":
            raise RuntimeError(f"not fused: {y.creator.label} is a function of its own")
        # The other maps' gradient is wanted, of zeros where they are not added.
        return y.as_layout(None) + 0 * z


def run_own_tests(folder):
    """Run Chainer's own tests that are marked for a GPU; yield pytest's last line of each file."""
    for name in OWN_TESTS:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "rechainer", "-m", "gpu", "-x",
             "--maxfail=20", "-p", "no:cacheprovider", Path(folder) / name],
            capture_output=True, text=True, timeout=120)
        yield {"what": name, "passed": done.returncode in (0, 5),
               "summary": (done.stdout.strip().splitlines() or [done.stderr[-300:]])[-1]}
