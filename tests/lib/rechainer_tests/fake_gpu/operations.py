"""Chainer's functions on the device of `fake_device`, compared with Chainer on the processor."""

import fake_device  # noqa: F401  before Chainer

# isort: split
from convnets.layouts import average_pooling, max_pooling

import chainer
import chainer.functions as F
import chainer.links as L
import cudnn as frontend
import cupy
import libcudnn
import numpy as np
from chainer.backends import cuda

CONFIGURATIONS = 40
TOLERANCE = {"e": 2e-2, "f": 2e-5, "d": 1e-10}
GPU = chainer.get_device("@cupy:0")


def pair(rng, low, high, n=2):
    return tuple(int(i) for i in rng.randint(low, high + 1, n))


def run(function, arrays, device):
    """Return y and the gradients of all inputs, as NumPy arrays."""
    inputs = [chainer.Variable(device.send(np.array(a))) for a in arrays]
    y = function(*inputs)
    assert y.device == device
    y.grad = device.send(np.random.RandomState(0).randn(*y.shape).astype(y.dtype))
    y.backward()
    return [chainer.get_device("@numpy").send(a) for a in (y.array, *(x.grad for x in inputs))]


def compare(function, arrays, calls=(), reference=None):
    """Compare the device with the processor; `calls` are the library's that must be among all."""
    libcudnn.calls.clear()
    got = run(function, arrays, GPU)
    assert set(calls) <= set(libcudnn.calls), libcudnn.calls
    with chainer.using_config("use_cudnn", "never"):
        expected = run(reference or function, arrays, chainer.get_device("@numpy"))
    for one, other in zip(got, expected, strict=True):
        assert one.dtype == other.dtype
        atol = TOLERANCE[one.dtype.char] * max(1, np.abs(other).max(initial=0))
        np.testing.assert_allclose(one.astype("d"), other.astype("d"), rtol=0, atol=atol)


def dtype(rng):
    return str(rng.choice(["e", "f", "f", "d"]))


def random_convolution(rng, n):
    """Return settings and arrays of a convolution over n axes that Chainer accepts."""
    while True:
        settings = {"stride": pair(rng, 1, 3, n), "pad": pair(rng, 0, 2, n),
                    "dilate": pair(rng, 1, 2, n), "groups": int(rng.choice([1, 1, 2, 3]))}
        ksize, size = pair(rng, 1, 4, n), pair(rng, 1, 9, n)
        reach = [(k - 1) * d + 1 for k, d in zip(ksize, settings["dilate"], strict=True)]
        if all(i + 2 * p >= r for i, p, r in zip(size, settings["pad"], reach, strict=True)):
            break
    n_in, n_out = (settings["groups"] * int(rng.randint(1, 5)) for _ in range(2))
    kind = dtype(rng)
    arrays = [rng.randn(rng.randint(1, 4), n_in, *size) / 4,
              rng.randn(n_out, n_in // settings["groups"], *ksize) / 4, rng.randn(n_out)]
    return settings, [a.astype(kind) for a in arrays[:rng.randint(2, 4)]]


def convolutions(function, n, count):
    rng = np.random.RandomState(n)
    before = len(frontend.built)
    for _ in range(count):
        settings, arrays = random_convolution(rng, n)
        compare(lambda *a, s=settings: function(*a, **s), arrays)
    assert len(frontend.built) - before > 2 * count  # forward, data and filter


def convolutions_2d():
    convolutions(F.convolution_2d, 2, 3 * CONFIGURATIONS)


def convolutions_with_more():
    """A sum and an activation behind a convolution, in one graph, in both layouts."""
    rng = np.random.RandomState(24)
    for i in range(CONFIGURATIONS):
        settings, (x, W, *b) = random_convolution(rng, 2)
        b = b[0] if b else None
        with chainer.using_config("use_cudnn", "never"):
            plain = F.convolution_2d(x, W, b, **settings)
        z = rng.randn(*plain.shape).astype(x.dtype) if i % 2 else None
        activation = (None, "relu", "sigmoid")[i % 3]
        expected = plain if z is None else plain + z
        expected = getattr(F, activation)(expected) if activation else expected
        for last in (False, True):
            before = len(frontend.built)
            got = convolved(last, plain.shape, x, W, b, z, activation, **settings)
            assert len(frontend.built) == before + 1
            atol = TOLERANCE[x.dtype.char] * max(1, abs(expected.array).max())
            np.testing.assert_allclose(got.astype("d"), expected.array, rtol=0, atol=atol)
    wrong = z[:, :, 1:]
    message = message_of(ValueError, lambda: convolved(False, plain.shape, x, W, b, wrong, "relu",
                                                       **settings))
    assert "expected shape" in message


def convolved(last, out, x, W, b, z, activation, stride, pad, dilate, groups):
    """Return a convolution with more of it, calculated in a layout."""
    def turned(a):
        return a if a is None else GPU.send(np.ascontiguousarray(np.moveaxis(a, 1, -1))
                                            if last else a)

    y = turned(np.empty(out, x.dtype))
    layout = cuda.cudnn.NHWC if last else cuda.cudnn.NCHW
    cuda.cudnn.convolution_forward(
        turned(x), turned(W), b if b is None else GPU.send(b), y, pad, stride, dilate, groups,
        auto_tune=False, tensor_core="auto", d_layout=layout, w_layout=layout, z=turned(z),
        activation=activation)
    return cuda.to_cpu(np.moveaxis(y, -1, 1) if last else y)


def convolutions_nd():
    convolutions(F.convolution_nd, 3, CONFIGURATIONS // 2)


def deconvolutions():
    rng = np.random.RandomState(7)
    for _ in range(CONFIGURATIONS):
        groups, kind = int(rng.choice([1, 2])), dtype(rng)
        n_in, n_out = groups * int(rng.randint(1, 4)), int(rng.randint(1, 4))
        ksize = pair(rng, 2, 4)
        settings = {"stride": pair(rng, 1, 3), "pad": pair(rng, 0, 1), "groups": groups}
        arrays = [rng.randn(2, n_in, *pair(rng, 2, 6)) / 4, rng.randn(n_in, n_out, *ksize) / 4,
                  rng.randn(n_out * groups)]
        compare(lambda *a, s=settings: F.deconvolution_2d(*a, **s),
                [a.astype(kind) for a in arrays[:rng.randint(2, 4)]])


def channels_last():
    """compute_mode='cudnn_fast': convolution, batch normalization and ReLU in NHWC."""
    x = np.random.RandomState(1).randn(2, 3, 8, 7).astype("f")
    layouts = chainer.memory_layouts

    def network(mode):
        np.random.seed(0)
        with chainer.using_config("compute_mode", mode):
            # no bias: Chainer's gradient of one does not know the layout
            return chainer.Sequential(
                L.Convolution2D(3, 4, 3, 2, 1, nobias=True), L.BatchNormalization(4), F.relu,
                L.Convolution2D(4, 6, 3, dilate=2, pad=2, nobias=True))

    def gradients(model, device, layout):
        model.to_device(device)
        model.cleargrads()
        v = chainer.Variable(device.send(x))
        y = model(v.as_layout(layout))
        y = y.as_layout(None)
        F.sum(y * y).backward()
        return {n: cuda.to_cpu(p.grad_var.raw_array)
                for n, p in model.namedparams()}, cuda.to_cpu(v.grad)

    with chainer.using_config("use_cudnn", "auto"):
        of_fast, gx_fast = gradients(network("cudnn_fast"), GPU, layouts.CUDNN_CHANNEL_LAST_X)
    of_plain, gx_plain = gradients(network(None), chainer.get_device("@numpy"), None)
    assert {g.settings["stride"][1] for b in frontend.built for g in b.tensors if g.settings
            and len(g.settings["dim"]) == 4 and g.settings["dim"][1] > 1} == {1}
    np.testing.assert_allclose(gx_fast, gx_plain, atol=1e-5)
    for name, expected in of_plain.items():
        got = of_fast[name]
        if got.ndim == 4:  # filters (K, R, S, C)
            got = got.transpose(0, 3, 1, 2)
        np.testing.assert_allclose(got, expected, atol=2e-4, err_msg=name)


def random_pooling(rng, n):
    while True:
        ksize, size = pair(rng, 1, 4, n), pair(rng, 3, 8, n)
        pad = tuple(int(rng.randint(0, k // 2 + 1)) for k in ksize)
        if all(i + 2 * p >= k for i, p, k in zip(size, pad, ksize, strict=True)):
            # distinct values: where two are equal, the gradient may go to either
            values = rng.permutation(int(2 * 3 * np.prod(size))) / 8 - 9
            x = values.reshape(2, 3, *size).astype(rng.choice(["f", "d"]))
            return x, {"ksize": ksize, "stride": pair(rng, 1, 3, n), "pad": pad}


def pooling():
    rng = np.random.RandomState(2)
    calls = "cudnnPoolingForward", "cudnnPoolingBackward"
    for n in (2, 2, 3):
        for _ in range(CONFIGURATIONS):
            x, s = random_pooling(rng, n)
            cover = bool(rng.randint(2)) and all(a <= k for a, k in zip(s["stride"], s["ksize"],
                                                                        strict=True))
            compare(lambda v, s=s, c=cover: F.max_pooling_nd(v, cover_all=c, **s), [x], calls)
            compare(lambda v, s=s: F.average_pooling_nd(v, **s), [x], calls)
            compare(lambda v, s=s: F.average_pooling_nd(v, pad_value=None, **s), [x], calls)
            if n == 2:
                compare(lambda v, s=s: F.average_pooling_2d(v, **s), [x], calls)
    with chainer.using_config("cudnn_deterministic", True):
        compare(lambda v: F.max_pooling_2d(v, 2), [rng.permutation(96).reshape(2, 3, 4, 4) / 7])


class Layouts(chainer.FunctionHook):
    """Collects which functions there were, and the layouts of what they were given."""

    name = "Layouts"

    def __init__(self):
        self.seen = []

    def forward_postprocess(self, function, in_data):
        self.seen.append((type(function).__name__, set(function.input_layouts)))


#: Maximum pooling of VGG and LeNet5, GoogLeNet, ResNet's three stems, and one with all settings.
POOLINGS = [{"ksize": 2, "stride": 2}, {"ksize": 3, "stride": 2}, {"ksize": 2},
            {"ksize": 3, "stride": 2, "pad": 1, "cover_all": False},
            {"ksize": (3, 2), "stride": (1, 2), "pad": (1, 0), "cover_all": True}]


#: Average pooling of GoogLeNet and of residual networks, and one with all settings.
AVERAGES = [{"ksize": 3, "stride": 2}, {"ksize": (4, 4), "stride": 1},
            {"ksize": (3, 2), "stride": (1, 2), "pad": (1, 0)}]


def pooled_twice(x, gy, settings, layout, pool=max_pooling):
    """Return y, gx and the functions both ways, with pooling in a layout."""
    x = chainer.Variable(GPU.send(x))
    with Layouts() as hook:
        y = pool(x.as_layout(layout), **settings)
        assert y.layout == layout
        y = y.as_layout(None)
        y.grad = GPU.send(gy(y))
        y.backward()
    return cuda.to_cpu(y.array), cuda.to_cpu(x.grad), hook.seen


def pooling_with_the_channels_last():
    """What it is with the channels first; maxima and their gradients are to the last bit."""
    rng = np.random.RandomState(18)

    def gy(y):
        return np.random.RandomState(19).randn(*y.shape).astype(y.dtype)

    for pool, name, settings in [*((max_pooling, "MaxPooling", s) for s in POOLINGS),
                                 *((average_pooling, "AveragePooling", s) for s in AVERAGES)]:
        for kind in "efd":
            for shape in ((2, 3, 7, 8), (1, 1, 5, 5), (3, 16, 4, 4)):
                x = rng.permutation(int(np.prod(shape))).reshape(shape).astype(kind)
                *expected, _ = pooled_twice(x, gy, settings, None, pool)
                *got, seen = pooled_twice(x, gy, settings, LAST, pool)
                assert (name, {LAST}) in seen
                assert ("PoolingGrad", {LAST}) in seen
                # Sums of float16, by NumPy in another order, are rounded otherwise.
                rtol = {"e": 3e-3, "f": 1e-6, "d": 1e-14}[kind] * (pool is average_pooling)
                for one, other in zip(got, expected, strict=True):
                    np.testing.assert_allclose(one, other, rtol=rtol, err_msg=f"{settings} {kind}")


def pooling_with_the_channels_last_is_deterministic_where_it_shall_be():
    x = chainer.Variable(GPU.send(np.random.RandomState(20).rand(1, 2, 4, 4).astype("f")))
    for wanted in (False, True):
        with chainer.using_config("cudnn_deterministic", wanted):
            node = max_pooling(x.as_layout(LAST), 2).creator_node
            assert node.settings()["mode"] == (3 if wanted else 0)


def pooling_where_the_channels_last_are_refused():
    import warnings

    x = np.random.RandomState(21).permutation(96).reshape(2, 3, 4, 4).astype("f")

    def gy(y):
        return np.ones(y.shape, y.dtype)

    *expected, _ = pooled_twice(x, gy, {"ksize": 2}, None)
    libcudnn.refuses_channels_last = True
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            *got, _ = pooled_twice(x, gy, {"ksize": 2}, LAST)
            for one, other in zip(got, expected, strict=True):
                np.testing.assert_array_equal(one, other)
    told = [str(w.message) for w in caught if "does not pool float32" in str(w.message)]
    assert len(told) == 2, caught   # forward and backward
    assert "ksize, stride, pad, mode = ((2, 2), (2, 2), (0, 0), 0)" in told[0]


def pooling_keeps_to_what_there_is():
    """Other layouts, CuPy's own cuDNN, and second derivatives."""
    from rechainer import cudnn

    x = chainer.Variable(GPU.send(np.random.RandomState(22).rand(2, 3, 4, 4).astype("f")))
    last = x.as_layout(LAST)
    assert max_pooling(x, 2).layout is None
    ours, cudnn.stands_in = cudnn.stands_in, lambda cuda: False
    y = max_pooling(last, 2)
    cudnn.stands_in = ours
    assert y.layout is None
    np.testing.assert_array_equal(y.array, F.max_pooling_2d(x, 2).array)
    F.sum(max_pooling(last, 2).as_layout(None)).backward(enable_double_backprop=True)
    message = message_of(RuntimeError, F.sum(x.grad_var).backward)
    assert "no second derivatives" in message


def average_pooling_has_second_derivatives():
    rng = np.random.RandomState(25)
    x, v, w = (rng.rand(2, 3, 4, 4).astype("f") for _ in range(3))

    def second(layout):
        """Return the gradient of v's, where v x are pooled and their squares summed up twice."""
        a, b = (chainer.Variable(GPU.send(array)) for array in (x, v))
        y = average_pooling((a * b).as_layout(layout), 2, pad=1)
        assert y.layout == layout
        y = y.as_layout(None)
        F.sum(y * y).backward(enable_double_backprop=True)
        grad, a.grad_var = a.grad_var, None
        b.cleargrad()
        F.sum(grad * GPU.send(w)).backward()
        return cuda.to_cpu(b.grad)

    np.testing.assert_allclose(second(LAST), second(None), rtol=1e-5, atol=1e-6)


def normalization_with_the_channels_last_in_test_mode():
    """Of old code with compute_mode='cudnn_fast', too, which Chainer itself can only train."""
    rng = np.random.RandomState(26)
    for kind in "efd":
        x = GPU.send(rng.randn(2, 6, 5, 4).astype(kind))
        link = L.BatchNormalization(6, dtype=np.float32 if kind == "e" else kind)
        link.avg_mean[...], link.avg_var[...] = rng.randn(6), rng.rand(6) + 0.5
        link.gamma.array[...], link.beta.array[...] = rng.rand(2, 6)
        link.to_device(GPU)
        with chainer.using_config("train", False):
            expected = link(x)
            got = link(chainer.Variable(x).as_layout(LAST))
            assert got.layout == LAST
            np.testing.assert_allclose(got.as_layout(None).array, expected.array,
                                       atol=TOLERANCE[kind] * 5)
            F.sum(link(chainer.Variable(x))).backward()   # as ever
            v = chainer.Variable(x)
            loss = F.sum(link(v.as_layout(LAST)).as_layout(None))
            assert "no gradients in test mode" in message_of(RuntimeError, loss.backward)


def parts_of_arrays_are_aligned():
    """Filters that begin anywhere in a larger array, and maps that do."""
    rng = np.random.RandomState(23)
    whole = GPU.send(rng.randn(2 * 3 * 36 + 4 * 3 * 9 + 20).astype("f"))
    for begin in range(4):
        x = whole[begin:begin + 216].reshape(2, 3, 6, 6)
        W = whole[begin + 219:begin + 219 + 108].reshape(4, 3, 3, 3)
        gamma, beta = whole[begin:begin + 3], whole[begin + 1:begin + 4]

        def network(x, W, gamma, beta):
            h = F.batch_normalization(x, gamma, beta)
            return F.max_pooling_2d(F.relu(F.convolution_2d(h, W, pad=1)), 2)

        arrays = [x, W, gamma, beta]
        inputs = [chainer.Variable(a) for a in arrays]
        y = network(*inputs)
        assert y.xp is cupy
        F.sum(y).backward()
        with chainer.using_config("use_cudnn", "never"):
            expected = network(*map(cuda.to_cpu, arrays))
        np.testing.assert_allclose(cuda.to_cpu(y.array), expected.array, atol=1e-5)


def batch_normalization():
    rng = np.random.RandomState(3)
    calls = ("cudnnBatchNormalizationForwardTrainingEx", "cudnnBatchNormalizationBackwardEx")
    for _ in range(CONFIGURATIONS):
        c, kind = int(rng.randint(1, 6)), dtype(rng)
        maps = bool(rng.randint(2)) or kind == "e"
        x = rng.randn(rng.randint(2, 5), c, *(pair(rng, 2, 5) if maps else ())).astype(kind)
        of_channels = "f" if kind == "e" and rng.randint(2) else kind
        gamma, beta = (rng.rand(c).astype(of_channels) + 0.5 for _ in range(2))
        running = {}

        def normalize(x, gamma, beta, running=running, c=c):
            key, xp = str(x.device), x.xp
            running[key] = xp.zeros(c, gamma.dtype), xp.ones(c, gamma.dtype)
            mean, var = running[key]
            return F.batch_normalization(x, gamma, beta, running_mean=mean, running_var=var,
                                         decay=0.7, eps=1e-3)

        with chainer.using_config("cudnn_fast_batch_normalization", bool(rng.randint(2))):
            compare(normalize, [x, gamma, beta], calls)
        for got, expected in zip(*running.values(), strict=True):
            np.testing.assert_allclose(cuda.to_cpu(got), cuda.to_cpu(expected), rtol=1e-2,
                                       atol=TOLERANCE[of_channels])


def batch_normalization_without_running_statistics():
    rng = np.random.RandomState(4)
    arrays = [rng.randn(4, 3, 5, 5), rng.rand(3) + 1, rng.randn(3)]
    compare(lambda *a: F.batch_normalization(*a), [a.astype("f") for a in arrays])
    arrays = [rng.randn(4, 2, 3), rng.rand(3) + 1, rng.randn(3)]  # per activation, three axes
    compare(lambda *a: F.batch_normalization(*a, axis=(0, 1)), [a.astype("f") for a in arrays],
            ["cudnnBatchNormalizationForwardTrainingEx"])


def fixed_batch_normalization():
    rng = np.random.RandomState(5)
    for kind in "fde":
        arrays = [rng.randn(4, 3, 5, 2), rng.rand(3) + 1, rng.randn(3), rng.randn(3),
                  rng.rand(3) + 0.5]
        compare(F.fixed_batch_normalization, [a.astype(kind) for a in arrays],
                ["cudnnBatchNormalizationForwardInference"])


LAST = chainer.memory_layouts.CUDNN_CHANNEL_LAST_X


class Normalizing(chainer.Chain):
    """Maps of float16 with the channels last through a normalization, in one of several ways."""

    def __init__(self, way, n_channels=8):
        super().__init__()
        self.way = way
        rng = np.random.RandomState(13)
        with self.init_scope():
            self.bn = L.BatchNormalization(n_channels, dtype=np.float32)
            self.other = L.BatchNormalization(n_channels, dtype=np.float32)
        for link in self.children():
            link.gamma.array[...] = rng.rand(n_channels) + 0.5
            link.beta.array[...] = rng.randn(n_channels)

    def forward(self, x, z):
        return self.way(self, x, z)


def read_twice(net, x, z):
    h = net.bn(x)
    return F.relu(h) + h * 2 + z


def read_shape(net, x, z):
    h = net.bn(x)
    return F.relu(h * h.shape[1])


def doubled(net, x, z):
    h = net.bn(x)
    return F.relu(h + h)


def two_sums(net, x, z):
    h = net.bn(x)
    return F.relu(h + z) + F.relu(h + x)


def sum_of_sums(net, x, z):
    h = net.bn(x)
    return F.relu(h + (h + z))


def read_before(net, x, z):
    h = net.bn(x) + z
    h.retain_data()
    return F.relu(h)


#: Way through a network -> names of the functions forward, in order.
WAYS = {
    "relu": (lambda net, x, z: F.relu(net.bn(x)), ["NormalizedReLU"]),
    "add": (lambda net, x, z: F.relu(net.bn(x) + z), ["NormalizedReLU"]),
    "added": (lambda net, x, z: F.relu(z + net.bn(x)), ["NormalizedReLU"]),
    "two": (lambda net, x, z: F.relu(net.bn(x) + net.other(z)),
            ["BatchNormalization", "NormalizedReLU"]),
    "row": (lambda net, x, z: F.relu(net.other(F.relu(net.bn(x)))), ["NormalizedReLU"] * 2),
    "shape": (read_shape, ["BatchNormalization", "_ * 8", "ReLU"]),
    "alone": (lambda net, x, z: net.bn(x), ["BatchNormalization"]),
    "twice": (read_twice, ["NormalizedReLU", "BatchNormalization", "_ * 2", "_ + _", "_ + _"]),
    "doubled": (doubled, ["BatchNormalization", "_ + _", "ReLU"]),
    "two sums": (two_sums, ["NormalizedReLU"] * 2 + ["_ + _"]),
    "sum of sums": (sum_of_sums, ["BatchNormalization", "_ + _", "_ + _", "ReLU"]),
    "before": (read_before, ["BatchNormalization", "_ + _", "ReLU"]),
}


class Labels(chainer.FunctionHook):
    name = "Labels"

    def __init__(self):
        self.seen = []

    def forward_postprocess(self, function, in_data):
        self.seen.append(function.label)


def normalized(way, fast, n_channels=8):
    """Return the functions of a way forward, y, the gradients and the statistics."""
    rng = np.random.RandomState(14)
    x, z = (chainer.Variable(GPU.send(rng.randn(3, n_channels, 4, 5).astype("e")))
            for _ in range(2))
    net = Normalizing(way, n_channels)
    net.to_device(GPU)
    with chainer.using_config("cudnn_fast_batch_normalization", fast):
        inputs = [v.as_layout(LAST) for v in (x, z)]
        with Labels() as labels:
            y = net(*inputs)
            y.shape  # noqa: B018
            y.node  # noqa: B018
        y = y.as_layout(None)
        y.grad = GPU.send(rng.randn(*y.shape).astype("e"))
        y.backward()
    arrays = {"y": y.array, "gx": x.grad, "gz": z.grad}
    for path, param in net.namedparams():
        arrays[path] = param.grad
    for link in net.children():
        arrays |= {f"{link.name}/mean": link.avg_mean, f"{link.name}/var": link.avg_var}
    return labels.seen, {k: None if a is None else cuda.to_cpu(a) for k, a in arrays.items()}


def fused_normalization():
    """One kernel gives what three give, and only where nobody else looks at what is between."""
    for name, (way, labels) in WAYS.items():
        plain_labels, plain = normalized(way, fast=False)
        assert "NormalizedReLU" not in plain_labels
        seen, got = normalized(way, fast=True)
        assert seen == labels, (name, seen)
        for key, expected in plain.items():
            if expected is None:
                assert got[key] is None, (name, key)
                continue
            atol = 5e-4 if "/" in key and key[0] != "/" else 4e-3 * max(1, np.abs(expected).max())
            np.testing.assert_allclose(got[key], expected, rtol=0, atol=atol,
                                       err_msg=f"{name} {key}")


def fused_normalization_in_old_code():
    """Chainer's configuration alone, and a model that knows nothing of layouts or kernels."""
    with chainer.using_config("compute_mode", "cudnn_fast"), \
            chainer.using_config("dtype", chainer.mixed16):
        model = chainer.Sequential(
            L.Convolution2D(4, 8, 3, nobias=True), L.BatchNormalization(8), F.relu,
            L.Convolution2D(8, 4, 3, nobias=True), L.BatchNormalization(4), F.relu)
    model.to_device(GPU)
    x = GPU.send(np.random.RandomState(17).rand(2, 4, 9, 9).astype("e"))
    with chainer.using_config("cudnn_fast_batch_normalization", True), Labels() as labels:
        y = model(chainer.Variable(x).as_layout(LAST)).as_layout(None)
        model.cleargrads()
        F.sum(y).backward()
    assert labels.seen.count("NormalizedReLU") == labels.seen.count("NormalizedReLUGrad") == 2
    assert all(p.grad_var is not None for p in model.params())


def what_is_not_fused():
    relu = WAYS["relu"][0]
    assert normalized(relu, True, n_channels=6)[0] == ["BatchNormalization", "ReLU"]
    net = Normalizing(None)
    net.to_device(GPU)
    x = np.random.RandomState(15).randn(3, 8, 4, 5)
    with chainer.using_config("cudnn_fast_batch_normalization", True), Labels() as labels:
        F.relu(net.bn(GPU.send(x.astype("e"))))                     # channels first
        F.relu(net.bn(chainer.Variable(GPU.send(x.astype("f"))).as_layout(LAST)))
        with chainer.using_config("train", False):
            F.relu(net.bn(GPU.send(x.astype("e"))))
        with chainer.using_config("debug", True):
            F.relu(net.bn(chainer.Variable(GPU.send(x.astype("e"))).as_layout(LAST)))
    assert "NormalizedReLU" not in labels.seen


def fused_normalization_refused():
    """Where cuDNN has no such kernel after all, Chainer's functions take turns."""
    import warnings

    from rechainer.cudnn import _fusion, _library

    ordinary = _fusion._surface.batch_normalization_forward_training_ex

    def fail(*args, relu=False, **kwargs):
        if relu:
            raise _library.Failure("CUDNN_STATUS_NOT_SUPPORTED")
        return ordinary(*args, **kwargs)

    _fusion._surface.batch_normalization_forward_training_ex = fail
    for name in ("relu", "add"):
        way, _ = WAYS[name]
        _, expected = normalized(way, fast=False)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(2):
                seen, got = normalized(way, fast=True)
                assert seen[-1] == "ReLU", seen
        told = [str(w.message) for w in caught if "calculated in turn" in str(w.message)]
        assert len(told) == 1, caught
        for key, array in expected.items():
            if array is not None:
                np.testing.assert_allclose(got[key], array, atol=4e-3, err_msg=key)


def persistent_normalization_refused():
    """Forward or backward, alone, with ReLU or with a sum: known before the first way forward."""
    import warnings

    from rechainer.cudnn import _fusion

    for ways in ({"forward"}, {"backward"}):
        libcudnn.refuses_persistent = ways
        cuda.cudnn._modes.clear()
        _fusion.refused.clear()
        for name in ("relu", "add", "alone"):
            way, _ = WAYS[name]
            _, expected = normalized(way, fast=False)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                for _ in range(2):
                    seen, got = normalized(way, fast=True)
                    assert "NormalizedReLU" not in seen
            told = [str(w.message) for w in caught]
            assert sum("calculated in turn" in text for text in told) == (name != "alone"), told
            # The first of the three says it once for all.
            assert sum("the ordinary one is used" in text for text in told) == (name == "relu")
            for key, array in expected.items():
                if array is None:
                    assert got[key] is None
                else:    # the running statistics have counted each minibatch once
                    np.testing.assert_array_equal(got[key], array, err_msg=f"{ways} {key}")
    libcudnn.refuses_persistent = {"backward"}
    message = message_of(
        cuda.cudnn.Failure, lambda: cuda.cudnn.batch_normalization_forward_training_ex(
            *refusable(), d_layout=cuda.cudnn.NHWC, relu=True))
    assert "cudnnBatchNormalizationBackwardEx" in message


def refusable():
    """Return the arguments of a normalization that no other test tries."""
    x = GPU.send(np.ones((2, 3, 3, 12), "e"))
    arrays = (GPU.send(np.ones(12, "f")) for _ in range(4))
    return x, *arrays, None, None, 1e-5, 0.9, True, cuda.cudnn.PERSISTENT, False


def waiting_variables():
    """What waits is a variable like any other."""
    import copy

    net = Normalizing(None)
    net.to_device(GPU)
    x = chainer.Variable(GPU.send(np.random.RandomState(16).randn(3, 8, 4, 5).astype("e")))
    with chainer.using_config("cudnn_fast_batch_normalization", True):
        def wait():
            return net.bn(x.as_layout(LAST))

        assert wait().shape == (3, 8, 4, 5)
        h = wait()
        assert copy.copy(h).raw_array is h.raw_array
        assert h.dtype == np.float16
        assert h.node.get_variable() is h
        assert h.layout == LAST
        h = wait()
        assert not hasattr(h, "nonsense")
        with chainer.no_backprop_mode():
            h = wait()
        assert h.creator is None
        assert F.relu(h).creator is not None   # of its own, as ever
        with chainer.no_backprop_mode():
            h = wait()
        y = F.relu(h)
        assert type(y.creator).__name__ == "ReLU"
        y = F.sum(F.relu(wait()).as_layout(None))
        y.backward(enable_double_backprop=True)
        message = message_of(RuntimeError, F.sum(x.grad_var).backward)
    assert "no second derivatives" in message


def group_normalization():
    rng = np.random.RandomState(6)
    x, gamma, beta = rng.randn(3, 6, 4, 5), rng.rand(6) + 1, rng.randn(6)
    libcudnn.calls.clear()
    with chainer.no_backprop_mode():
        got = F.group_normalization(GPU.send(x.astype("f")), 2, GPU.send(gamma.astype("f")),
                                    GPU.send(beta.astype("f")))
        expected = F.group_normalization(x.astype("f"), 2, gamma.astype("f"), beta.astype("f"))
    assert "cudnnBatchNormalizationForwardTrainingEx" in libcudnn.calls
    np.testing.assert_allclose(cuda.to_cpu(got.array), expected.array, atol=1e-5)


def activations():
    rng = np.random.RandomState(8)
    calls = "cudnnActivationForward", "cudnnActivationBackward"
    for kind in "efd":
        for shape in ((5,), (3, 4), (2, 3, 4, 5), (2, 3, 1, 2, 2)):
            x = rng.randn(*shape).astype(kind) * 3
            compare(F.relu, [x], calls)
            with chainer.using_config("use_cudnn", "always"):
                compare(F.tanh, [x], calls)
                compare(F.sigmoid, [x], calls)
                compare(lambda v: F.clipped_relu(v, 1.5), [x], calls)
    empty = GPU.send(np.empty((0, 3), "f"))
    assert F.relu(empty).shape == (0, 3)


def softmax():
    rng = np.random.RandomState(9)
    calls = "cudnnSoftmaxForward", "cudnnSoftmaxBackward"
    for kind in "efd":
        for shape, axis in (((3, 4), 1), ((3, 4), 0), ((2, 3, 4, 5), 1), ((2, 3, 4), -1)):
            x = rng.randn(*shape).astype(kind) * 4
            compare(lambda v, a=axis: F.softmax(v, axis=a), [x], calls)
            compare(lambda v, a=axis: F.log_softmax(v, axis=a), [x], calls)


def dropout():
    for kind in "efd":
        for ratio in (0.0, 0.3, 0.8):
            libcudnn.calls.clear()
            x = chainer.Variable(GPU.send(np.full((40, 50), 2, kind)))
            y = F.dropout(x, ratio)
            y.grad = cupy.ones_like(y.array)
            y.backward()
            kept = cuda.to_cpu(y.array) != 0
            assert abs(kept.mean() - (1 - ratio)) < 0.05
            scale = kept.astype("d") / (1 - ratio)
            tolerance = max(TOLERANCE[kind], 1e-6)  # the ratio is a float32
            np.testing.assert_allclose(cuda.to_cpu(y.array), 2 * scale, tolerance)
            np.testing.assert_allclose(cuda.to_cpu(x.grad), scale, tolerance)
            assert {"cudnnDropoutForward", "cudnnDropoutBackward"} <= set(libcudnn.calls)
    one, other = (cuda.to_cpu(F.dropout(x, 0.5).array) for _ in range(2))
    assert not np.array_equal(one, other), "the random numbers go on"


def convolve(x=(2, 3, 6, 6), kind="f"):
    """Run one convolution and its gradients; return their graphs."""
    rng = np.random.RandomState(10)
    before = len(frontend.built)
    run(lambda v, W: F.convolution_2d(v, W, pad=1),
        [rng.randn(*x).astype(kind), rng.randn(4, 3, 3, 3).astype(kind)], GPU)
    return frontend.built[before:]


def settings():
    notes = frontend.numerical_note
    assert len(convolve()) == 3
    assert convolve() == [], "the plans are kept"
    assert len(convolve((3, 3, 6, 6))) == 3, "by shape"
    assert len(convolve(kind="d")) == 3, "and dtype"
    assert not any(g.unwanted for g in frontend.built)
    with chainer.using_config("cudnn_deterministic", True):
        _, *gradients = convolve((5, 3, 6, 6))
    assert all(g.unwanted == [notes.NONDETERMINISTIC] for g in gradients)
    with chainer.using_config("use_cudnn_tensor_core", "never"):
        exact = convolve()
    assert all(notes.TENSOR_CORE in g.unwanted for g in exact)
    assert len(exact) == 3
    cuda.set_max_workspace_size(12345)
    assert cuda.get_max_workspace_size() == 12345
    assert [g.limit for g in convolve()] == [12345] * 3
    with chainer.using_config("use_cudnn", "never"):
        assert not chainer.should_use_cudnn(">=auto")
    assert cuda.cudnn.is_tensor_core_available(np.dtype("e"))
    assert not cuda.cudnn.is_tensor_core_available(np.dtype("d"))


def autotune():
    with chainer.using_config("autotune", True):
        graphs = convolve()
        assert {g.used for g in graphs} == {2}, "the fastest of those that can be built and run"
        assert convolve() == []
    assert {g.used for g in convolve()} == {"heuristic"}


def autotune_without_a_plan_that_runs():
    from rechainer.cudnn import _library

    def fail(*arguments):
        raise RuntimeError("out of luck")

    frontend.pygraph.execute_plan_at_index = fail
    with chainer.using_config("autotune", True):
        text = message_of(_library.Failure, convolve)
    assert "none of the 3 plans" in text
    assert "autotune = False" in text


def LeNet():
    return chainer.Sequential(
        L.Convolution2D(1, 4, 5), F.relu, lambda h: F.max_pooling_2d(h, 2, 2),
        L.BatchNormalization(4), L.Convolution2D(4, 6, 3, nobias=True), F.relu,
        lambda h: F.average_pooling_2d(h, 2), L.Linear(None, 5), F.softmax)


def loss_of(model, x):
    y = model(x)
    return F.sum(y * y)


def a_whole_network():
    x = np.random.RandomState(11).rand(4, 1, 14, 14).astype("f")
    found = []
    for device in (GPU, chainer.get_device("@numpy")):
        np.random.seed(0)
        model = LeNet()
        model(x)
        model.cleargrads()
        model.to_device(device)
        loss = loss_of(model, chainer.Variable(device.send(x)))
        loss.backward()
        found.append({n: cuda.to_cpu(p.grad) for n, p in model.namedparams()})
    for name, expected in found[1].items():
        np.testing.assert_allclose(found[0][name], expected, atol=1e-5, err_msg=name)


def training_steps():
    x = np.random.RandomState(12).rand(4, 1, 14, 14).astype("f")
    losses = []
    for device in (GPU, chainer.get_device("@numpy")):
        np.random.seed(0)
        model = LeNet()
        model(x)
        model.to_device(device)
        optimizer = chainer.optimizers.MomentumSGD(lr=0.1).setup(model)
        inputs = device.send(x)
        steps = []
        for _ in range(5):
            optimizer.update(lambda v, model=model: loss_of(model, v), inputs)
            steps.append(float(loss_of(model, inputs).array))
        losses.append(steps)
    np.testing.assert_allclose(*losses, rtol=1e-3)
    assert losses[0][0] != losses[0][-1]


def recurrent_networks_keep_away():
    from chainer.functions.array import spatial_transformer_grid
    from chainer.functions.rnn import n_step_gru, n_step_lstm, n_step_rnn

    for module in (n_step_rnn, n_step_lstm, n_step_gru, spatial_transformer_grid):
        assert not module.chainer.should_use_cudnn(">=auto", 5000)
        assert module.chainer.Variable is chainer.Variable
    assert chainer.should_use_cudnn(">=auto", 5000)


def nothing_is_left_in_cupy():
    assert cuda.cudnn_enabled
    assert not hasattr(cupy, "cudnn")
    assert not hasattr(cupy.cuda, "cudnn")
    assert cuda.cuda.cudnn is cuda.libcudnn
    assert cuda.cuda.Device is cupy.cuda.Device
    assert cuda._cudnn_version == 91400
    assert cuda.cupy is cupy


def message_of(error, function, *arguments):
    try:
        function(*arguments)
    except error as raised:
        return str(raised)
    raise AssertionError("nothing was raised")


def errors():
    from rechainer.cudnn import _library

    cuda.set_max_workspace_size(10)
    text = message_of(_library.Failure, convolve)
    assert "convolution (forward) of x (2, 3, 6, 6), W (4, 3, 3, 3)" in text
    assert "at most 10 bytes" in text
    assert "set_max_workspace_size" in text
    text = message_of(_library.Failure, cuda.cudnn.softmax_forward, cupy.empty((0, 3), "f"), 1, 1)
    assert "without elements" in text
    text = message_of(TypeError, cuda.cudnn.activation_forward,
                      GPU.send(np.zeros((2, 2), "i")), 1)
    assert "cuDNN has no type int32" in text
    text = message_of(_library.Failure, cuda.cudnn.softmax_forward,
                      GPU.send(np.zeros((2, 2), "f")), 1, 99)
    assert "cudnnSoftmaxForward: CUDNN_STATUS_NOT_SUPPORTED" in text
