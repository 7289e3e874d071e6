"""The browser's kernels, run by Node: equal to NumPy and Chainer, and no byte beside the arrays."""

import base64
import json
import shutil
import subprocess
from pathlib import Path

import rechainer
from rechainer.wasm import _chainer, _compiler, _library
from rechainer.wasm import _operations as ops

import chainer
import chainer.functions as F
import numpy as np
import pytest
from chainer.utils import conv

KERNELS = Path(_library.__file__).with_name("kernels.py").read_text("utf-8")
GUARD = bytes([0xA5]) * 64  # between arrays: must stay
FUSED_SINCE = 21  # Node with "relaxed SIMD"


def node():
    """The path of a Node: the one that Playwright brings, or the system's."""
    try:
        from playwright._impl._driver import compute_driver_executable
    except ImportError:
        return shutil.which("node")
    return compute_driver_executable()[0]


def node_version():
    """The number before the first dot."""
    answer = subprocess.run([node(), "--version"], stdout=subprocess.PIPE, text=True, check=True)
    return int(answer.stdout.lstrip("v").split(".")[0])


class Machine:
    """A WebAssembly memory to which the arrays of a call are copied, and from which they return."""

    def __init__(self, folder, source, fused=False):
        module = folder / "kernels.wasm"
        module.write_bytes(_compiler.translate(source, fused))
        script = Path(__file__).with_name("wasm_machine.js")
        self.process = subprocess.Popen(
            [node(), script, module],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.arrays, self.image = [], bytearray(GUARD)

    def address(self, array):
        place = len(self.image)
        self.arrays.append((place, array))
        self.image += array.tobytes(order="A")
        self.image += GUARD + bytes(-len(self.image) % 16)
        return place

    def call(self, name, args):
        request = {"name": name, "args": args, "bytes": base64.b64encode(self.image).decode()}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        memory = base64.b64decode(self.process.stdout.readline())
        assert memory[: len(GUARD)] == GUARD
        for place, array in self.arrays:
            end = place + array.nbytes
            assert memory[end : end + len(GUARD)] == GUARD, f"{name} wrote behind {array.shape}"
            order = "C" if array.flags.c_contiguous else "F"
            after = np.frombuffer(memory[place:end], array.dtype).reshape(array.shape, order=order)
            if array.flags.writeable:
                array[...] = after
        self.arrays, self.image = [], bytearray(GUARD)

    def __getattr__(self, name):
        return lambda *args: self.call(name, args)

    def close(self):
        self.process.stdin.close()
        self.process.wait(10)


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "fused"])
def machine(request, tmp_path_factory):
    if node() is None:
        pytest.skip("no Node to run WebAssembly")
    if request.param and node_version() < FUSED_SINCE:
        pytest.skip(f"Node {node_version()} knows no fused multiply-add in WebAssembly; "
                    f"{FUSED_SINCE} does")
    machine = Machine(tmp_path_factory.mktemp("wasm"), KERNELS, request.param)
    yield machine
    machine.close()


@pytest.fixture
def kernels(machine, monkeypatch):
    """`_operations` calls the machine."""
    monkeypatch.setattr(ops, "kernels", lambda: machine)
    monkeypatch.setattr(ops, "_address", machine.address)
    return machine


@pytest.fixture
def seams(kernels, monkeypatch):
    """Chainer's classes as in the browser, for this test."""
    for module, classes in _chainer.REPLACEMENTS.items():
        for name, methods in classes.items():
            cls = getattr(__import__(module, fromlist=[name]), name)
            for method, make in methods.items():
                monkeypatch.setattr(cls, method, make(vars(cls)[method]))


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


# -- The compiler -----------------------------------------------------------------------------


def run(folder, source, *args, room=4):
    """Compile a kernel `f`, give it room for numbers and `args`; what it has written there."""
    machine = Machine(folder, source)
    out = np.zeros(room, np.int32)
    machine.f(machine.address(out), *args)
    machine.close()
    return out.tolist()


def test_statements_mean_what_they_mean_in_python(tmp_path):
    source = """
def _add(at, number):
    store_int(at, load_int(at) + number)

def f(out, n):
    for i in range(n):
        for j in range(i, 10, 3):
            if (j % 2 == 0) & (j != 4):
                _add(out, j)
            else:
                _add(out + 4, j * i - 1)
    for _ in range(3, 3):
        _add(out + 8, 1)
    while n > -2:
        n -= 1
        _add(out + 8, n)
    store_int(out + 12, either(1000000, -70, n < 0) // 3)
"""
    n, out = 7, [0, 0, 0, 0]
    for i in range(n):
        for j in range(i, 10, 3):
            even = j % 2 == 0 and j != 4
            out[0 if even else 1] += j if even else j * i - 1
    out[2] = sum(range(-2, n))
    out[3] = 333333
    assert run(tmp_path, source, n) == out


@pytest.mark.parametrize(
    "number", [0, 1, 63, 64, 127, 128, 8191, 2**31 - 1, -1, -64, -65, -(2**31)]
)
def test_numbers_of_every_length(tmp_path, number):
    assert run(tmp_path, f"def f(out):\n    store_int(out, {number})") == [number, 0, 0, 0]


@pytest.mark.parametrize(("line", "said"), [
    ("x = y + 1", "line 2: `y` has no value yet"),
    ("x = 1; x = 1.5", "line 2: `x` is int, not float"),
    ("x = 1 + 1.5", r"line 2: \('int', 'float'\) in `1 \+ 1.5`"),
    ("store(a, 1)", r"line 2: store takes \['int', 'float'\], got \['int', 'int'\]"),
    ("x = [1]", r"line 2: no translation of `\[1\]`"),
    ("return a", "line 2: no translation of `return a`"),
    ("x = 0 < a < 1", "line 2: no translation of `0 < a < 1`"),
    ("print(a)", "line 2: no translation of `print"),
])  # fmt: skip
def test_what_has_no_translation_is_named(line, said):
    with pytest.raises(_compiler.NotSupported, match=said):
        _compiler.translate(f"def f(a):\n    {line}")


# -- The kernels on arrays ----------------------------------------------------------------------

SIZES = [0, 1, 2, 3, 4, 5, 8, 9, 31]


@pytest.mark.parametrize("k", [0, 1, 7, 256, 257, 515])
def test_products(kernels, k):
    for m in SIZES:
        for n in (0, 1, 3, 8, 17):
            a, b = random(m, k, seed=m), random(k, n, seed=100 + n)
            expected = a.astype(float) @ b.astype(float)
            turned = np.asfortranarray(a), np.asfortranarray(b)
            for left, right in ((a, b), turned, (turned[0], b), (a, turned[1])):
                got = ops.multiply(left, right)
                assert (got.dtype, got.shape) == (np.float32, (m, n))
                np.testing.assert_allclose(got, expected, rtol=1e-6, atol=2e-7 * k + 1e-6)


def test_products_of_parts_of_matrices(kernels):
    a, b = random(20, 30)[::2, 3:17], random(28, 9, seed=1)[::-2]
    np.testing.assert_allclose(ops.multiply(a, b), a @ b, rtol=1e-5, atol=1e-5)
    one = np.broadcast_to(np.float32(2), (14, 5))
    np.testing.assert_allclose(ops.multiply(a, one), a @ one, rtol=1e-5, atol=1e-5)


def test_what_is_no_number_stays_in_its_row(kernels):
    a, b = random(9, 11), random(11, 10, seed=1)
    a[2, 3], a[5, 0] = np.nan, np.inf
    with np.errstate(invalid="ignore"):
        expected = a @ b
    np.testing.assert_allclose(ops.multiply(a, b), expected, rtol=1e-5, atol=1e-5)


def both(function, *arrays, gradient=True):
    """Results of a function of variables and its gradients."""
    variables = [chainer.Variable(array.copy()) for array in arrays]
    y = function(*variables)
    if not gradient:
        return [y.array]
    y.grad = random(*y.shape, seed=9).astype(y.dtype)
    y.backward()
    return [y.array, *(it.grad for it in variables)]


def check(request, function, *arrays, **options):
    """A function gives the same with the kernels and without."""
    expected = both(function, *arrays, **options)
    request.getfixturevalue("seams")
    for got, wanted in zip(both(function, *arrays, **options), expected, strict=True):
        assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
        scale = max(1, np.abs(wanted[np.isfinite(wanted)]).max(initial=0))
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5 * scale)


@pytest.mark.parametrize(("shape", "kernel", "options"), [
    ((2, 3, 9, 8), (4, 3, 3, 3), {"pad": 1}),
    ((2, 3, 9, 8), (5, 3, 3, 2), {"stride": 2, "pad": (2, 1)}),
    ((3, 2, 11, 5), (3, 2, 2, 5), {"stride": (3, 1), "pad": (0, 4)}),
    ((1, 4, 7, 7), (6, 4, 1, 1), {}),
    ((2, 4, 7, 7), (6, 4, 1, 1), {"stride": 2}),
    ((2, 4, 7, 7), (6, 4, 1, 1), {"pad": 1}),
    ((5, 3, 4, 4), (7, 3, 4, 4), {}),  # the whole image
    ((2, 3, 10, 9), (4, 3, 3, 3), {"dilate": (2, 3), "pad": 3}),
    ((2, 1, 6, 6), (1, 1, 5, 5), {"pad": 4, "stride": 3, "cover_all": True}),
    ((2, 3, 5, 5), (2, 3, 3, 3), {"stride": 4, "cover_all": True}),
    ((0, 3, 5, 5), (2, 3, 3, 3), {}),
    ((2, 4, 6, 6), (6, 2, 3, 3), {"groups": 2}),
])  # fmt: skip
def test_convolutions(request, kernels, shape, kernel, options):
    x, w, b = random(*shape), random(*kernel, seed=1), random(kernel[0], seed=2)
    check(request, lambda x, w, b: F.convolution_2d(x, w, b, **options), x, w, b)


def test_convolutions_of_turned_images(request, kernels):
    x, w = random(6, 8, 9, 2).transpose(3, 0, 1, 2), random(3, 3, 6, 5).transpose(3, 2, 0, 1)
    check(request, lambda x, w: F.convolution_2d(x, w, pad=1), x, w)


@pytest.mark.parametrize("options", [
    {}, {"stride": 2, "pad": 1}, {"stride": 3, "outsize": (15, 11)}, {"dilate": 2},
])  # fmt: skip
def test_deconvolutions(request, kernels, options):
    x, w, b = random(2, 3, 5, 4), random(3, 4, 3, 2, seed=1), random(4, seed=2)
    check(request, lambda x, w, b: F.deconvolution_2d(x, w, b, **options), x, w, b)


def test_convolutions_in_other_types_are_chainers(request, kernels):
    x, w = random(2, 3, 6, 6).astype(np.float64), random(4, 3, 3, 3).astype(np.float64)
    check(request, F.convolution_2d, x, w)


def test_a_window_that_does_not_fit_is_refused_as_ever(seams):
    with pytest.raises(AssertionError, match="Height in the output should be positive"):
        F.convolution_2d(random(1, 1, 2, 2), random(1, 1, 3, 3))


@pytest.mark.parametrize(("n", "k", "m"), [(20, 30, 12), (1, 50, 40), (3, 1, 5), (7, 9, 1)])
def test_linear(request, kernels, n, k, m):
    check(request, F.linear, random(n, k), random(m, k, seed=1), random(m, seed=2))


@pytest.mark.parametrize("options", [
    {"ksize": 2}, {"ksize": 3, "stride": 2}, {"ksize": 3, "stride": 2, "pad": 1},
    {"ksize": (2, 3), "stride": (1, 2), "pad": (1, 0)}, {"ksize": 2, "cover_all": False},
    {"ksize": 2, "stride": 5, "pad": 1},
])  # fmt: skip
def test_maximum_pooling(request, kernels, options):
    x = random(2, 3, 9, 7)
    x[0, 0, :4, :4] = 1.5  # equal ones: the first counts
    check(request, lambda x: F.max_pooling_2d(x, **options), x)


def test_the_place_of_a_maximum(request, kernels):
    x = random(1, 2, 6, 6)
    x[0, 0, 0, 1], x[0, 1, :2, :2] = np.nan, -np.inf
    expected = F.max_pooling_2d(x, 2, return_indices=True)
    request.getfixturevalue("seams")
    y, places = F.max_pooling_2d(x, 2, return_indices=True)
    np.testing.assert_array_equal(y.array, expected[0].array)
    np.testing.assert_array_equal(places, expected[1])


@pytest.mark.parametrize("size", [0, 1, 3, 4, 1001])
def test_sigmoid(request, kernels, size):
    x = random(size) * 9
    check(request, F.sigmoid, x)


def test_sigmoid_far_out(seams):
    x = np.array([0, 1e-9, -1e-9, 17, -17, 90, -90, 1e30, -1e30, np.inf, -np.inf, np.nan], "f")
    y = F.sigmoid(x).array
    with np.errstate(over="ignore"):
        expected = 1 / (1 + np.exp(-x.astype(float)))
    np.testing.assert_allclose(y, expected, rtol=3e-7, atol=1e-37)


@pytest.mark.parametrize(("kernel", "stride", "pad", "cover"), [
    ((3, 3), (1, 1), (1, 1), False), ((2, 3), (2, 1), (0, 2), True),
    ((1, 1), (3, 3), (0, 0), False),
])  # fmt: skip
def test_patches(kernels, kernel, stride, pad, cover):
    x = random(2, 3, 8, 7)
    at = _chainer.windows(conv, 3, (8, 7), kernel, stride, pad, cover_all=cover)
    expected = conv.im2col_cpu(x, *kernel, *stride, *pad, cover_all=cover)
    col = ops.unfold(x, at)
    np.testing.assert_array_equal(col, expected)
    np.testing.assert_allclose(
        ops.fold(col, at), conv.col2im_cpu(col, *stride, *pad, 8, 7), rtol=1e-6, atol=1e-6
    )


def test_normal_numbers_are_those_of_numpy(kernels):
    """For every place in the state and either half of a pair; the state goes on as NumPy's."""

    def drawn(draw):
        np.random.seed(5)
        arrays = []
        for size in (1, 2, 3, 0, 7, 623, 1000, 5001):
            arrays.append(np.empty(size, np.float32))
            draw(arrays[-1])
        return arrays, np.random.random(3), np.random.normal(size=3)

    def ordinary(out):
        out[...] = np.random.normal(0, 0.37, out.shape)

    expected, got = drawn(ordinary), drawn(lambda out: ops.draw_normal(out, 0.37))
    for a, b in zip(expected[0], got[0], strict=True):
        np.testing.assert_allclose(b, a, rtol=2e-7)
    np.testing.assert_array_equal(expected[1], got[1])
    np.testing.assert_array_equal(expected[2], got[2])


def test_weights_of_a_layer(request, kernels):
    def weights():
        np.random.seed(1)
        return chainer.initializers.HeNormal()(w) or w.copy()

    w = np.empty((16, 64, 3, 3), np.float32)
    expected = weights()
    request.getfixturevalue("seams")
    np.testing.assert_allclose(weights(), expected, rtol=2e-7)


# -- Elsewhere than in a browser --------------------------------------------------------------


def test_nothing_is_changed_here():
    assert not _library.is_possible()
    assert _library.load() is None
    assert _chainer.SEAMS == {}
    assert rechainer.info()["parts"]["WebAssembly"].startswith("not needed")
