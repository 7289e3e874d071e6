"""Everything that only a GPU can show, in one command of under ten minutes: ``make gpu-check``.

It compares the functions of Chainer under cuDNN, and the ways to train faster, with the plain ones;
runs Chainer's own tests where their folder is given; and times training and inference beside
PyTorch where that is installed: interleaved, by CUDA events, medians, both with the kernels that
cuDNN's heuristic takes, both with TF32 for float32. Each part has a process and a time of its own:
one that fails, hangs or breaks the device is recorded so, with what it had found, and the rest goes
on.

``--record FILE`` keeps a JSON file of all of it, with its provenance, up to date after each part.
``--resume`` keeps what is whole in that file and runs the others: where the time ended, run again.

A part is a generator: it yields what it has found so far, the last time all of it.
"""

import argparse
import copy
import functools
import itertools
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

import convnets
import rechainer
from convnets import (
    cuda_graphs,
    data,
    devices,
    gpu_record,
    inspect,
    layouts,
    models,
    precision,
    results,
)
from convnets.fused import Fused, any_layout

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
from chainer.backends import cuda

try:
    import torch
except ImportError:
    torch = None

#: Seconds for all parts together, for one, and for one that compiles or chooses many plans.
BUDGET, LIMIT, LONG = 570, 75, 150
LONG_PARTS = ("ways to train", "Chainer's own tests")
#: How a part is run in a process of its own.
CHILD = [sys.executable, "-m", "tests.bench.gpu"]
ROUNDS = 15
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


# Maximum pooling with the channels last

class PooledLast:
    """Maximum pooling with the channels last on a GPU; Chainer's on the processor.

    Raises
    ------
    RuntimeError
        If cuDNN did not pool them so.
    """

    def __init__(self, **settings):
        self.settings = settings

    def __call__(self, x):
        if x.xp is np:
            return F.max_pooling_2d(x, **self.settings)
        with warnings.catch_warnings():
            warnings.simplefilter("error")     # that copies are pooled is said by a warning
            y = layouts.max_pooling(x.as_layout(LAST), **self.settings)
        if y.layout != LAST:
            raise RuntimeError("the maps were turned: expected them with the channels last")
        return y.as_layout(None)


LAST = chainer.memory_layouts.CUDNN_CHANNEL_LAST_X
#: Of VGG, of ResNet's stem as the authors have it (GoogLeNet's, too) and as PyTorch has it.
POOLINGS = {"2x2": {"ksize": 2, "stride": 2}, "3x3, cover_all": {"ksize": 3, "stride": 2},
            "3x3, pad 1": {"ksize": 3, "stride": 2, "pad": 1, "cover_all": False}}
POOLING_CHECKS = [(f"max pooling last, {name}", PooledLast(**settings), [(1, 8, 7, 9)])
                  for name, settings in POOLINGS.items()]
#: Maps in front of VGG's first pooling and of ResNet-50's.
POOLED = [("2x2", (128, 64, 224, 224)), ("3x3, pad 1", (128, 64, 112, 112))]


def time_pooling(device):
    """Measure both ways, in milliseconds: of turned copies, and with the channels last."""
    found = {}
    for name, shape in POOLED:
        for way, pool in (("copies", lambda h, **s: layouts.turned(
                F.max_pooling_2d(layouts.plain(h), **s), LAST)),
                          ("channels last", layouts.max_pooling)):
            job = cuda_graphs.record(pooling_job(device, shape, pool, POOLINGS[name]))
            found[f"max pooling {name}, {shape}, {way}"] = round(median_of(job), 4)
            yield found


def pooling_job(device, shape, pool, settings):
    """Return a function that pools maps of a shape, channels last, and goes back."""
    n, c, h, w = shape
    image = device.send(np.random.RandomState(0).randn(h, w, c).astype("e"))
    x = chainer.Variable(device.xp.repeat(image[None], n, axis=0), layout=LAST)
    gy = chainer.Variable(device.xp.ones_like(pool(x, **settings).raw_array), layout=LAST)

    def job():
        y = pool(x, **settings)
        x.cleargrad()
        with any_layout():
            y.grad_var = gy
            y.backward()

    return job


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


def time_fusion(device):
    """Measure forward and backward, in milliseconds: in turn, by cuDNN's fast kernels, fused."""
    found = {}
    for shape in TIMED:
        for name, behind in BEHIND.items():
            for way, fast, apart in (("in turn", False, False), ("fast, in turn", True, True),
                                     ("fused", True, False)):
                with chainer.using_config(FAST, fast):
                    # As a graph: these are kernels shorter than Python's way to them.
                    job = cuda_graphs.record(normalization_job(device, shape, behind, apart))
                found[f"{name}, {shape}, {way}"] = round(median_of(job), 4)
                yield found


def time_kernels(device):
    """Measure pooling, and normalization with what is behind it."""
    found = {}
    for measured in (time_pooling(device), time_fusion(device)):
        for part in measured:
            found |= part
            yield found


def normalization_job(device, shape, behind, apart):
    """Return a function that normalizes maps of a shape, and does what is behind, both ways."""
    rng = np.random.RandomState(0)
    images = (rng.randn(shape[2], shape[3], shape[1]).astype("e") for _ in range(3))
    x, z, gy = (chainer.Variable(device.xp.repeat(device.send(image)[None], shape[0], axis=0),
                                 layout=LAST) for image in images)
    link = L.BatchNormalization(shape[1], dtype=np.float32)
    link.to_device(device)

    def job():
        h = link(x)
        if apart:
            h.retain_data()   # who asks for it gets it, and ReLU comes too late
        y = behind(h, z)
        link.cleargrads()
        x.cleargrad()
        z.cleargrad()
        with any_layout():
            y.grad_var = gy
            y.backward()

    return job


def run_own_tests(folder):
    """Run Chainer's own tests that are marked for a GPU; yield pytest's last line of each file."""
    for name in OWN_TESTS:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "rechainer", "-m", "gpu", "-x",
             "--maxfail=20", "-p", "no:cacheprovider", Path(folder) / name],
            capture_output=True, text=True, timeout=120)
        yield {"what": name, "passed": done.returncode in (0, 5),
               "summary": (done.stdout.strip().splitlines() or [done.stderr[-300:]])[-1]}


# Ways to train

class SmallNetwork(chainer.Chain):
    """What the ways to train must get right: statistics, random numbers, pooling."""

    def __init__(self):
        super().__init__()
        np.random.seed(0)
        with self.init_scope():
            self.conv = L.Convolution2D(1, 16, 5, stride=2, nobias=True)
            self.norm = L.BatchNormalization(16)
            self.out = L.Linear(576, 10)

    def forward(self, x):
        """Return logits (N, 10) of images (N, 1, 28, 28)."""
        return self.out(F.dropout(F.max_pooling_2d(F.relu(self.norm(self.conv(x))), 2), 0.4))


def residual():
    """Return a small residual network for photographs."""
    np.random.seed(0)
    return models.ResNet([1, 1, 1, 1], 10, width=1 / 4)


def cifar():
    """Return a small residual network for small images."""
    np.random.seed(0)
    return models.CifarResNet(8)


def vgg():
    """Return a small VGG."""
    np.random.seed(0)
    return models.VGG("small", 10, (3, 36, 36), hidden=32)


HALF_LAST = {"channels_last": True, "precision": "mixed16"}
#: Ways of `convnets.train`: network, options, what it is compared with, distance that is allowed.
#: ``fast`` is Chainer's configuration.
WAYS_TO_TRAIN = {
    "fused optimizer": (SmallNetwork, {"fused": True}, {}, 1e-3),
    "data sent ahead": (SmallNetwork, {"prefetch": True}, {}, 0),
    "CUDA graph": (SmallNetwork, {"cuda_graph": True}, {}, 1e-3),
    "CUDA graph, mixed16": (SmallNetwork, {"cuda_graph": True, "precision": "mixed16"},
                            {"fused": True, "precision": "mixed16"}, 1e-2),
    "channels last": (residual, {"channels_last": True}, {}, 2e-2),
    "channels last, CUDA graph": (residual, {"channels_last": True, "cuda_graph": True},
                                  {"channels_last": True, "fused": True}, 1e-2),
    "channels last, CIFAR": (cifar, {"channels_last": True}, {}, 2e-2),
    "channels last, VGG": (vgg, {"channels_last": True}, {}, 2e-2),
    "channels last, VGG, mixed16, CUDA graph": (
        vgg, {**HALF_LAST, "cuda_graph": True}, {**HALF_LAST, "fused": True}, 1e-2),
    "fused normalization": (residual, {**HALF_LAST, "fast": True}, HALF_LAST, 2e-2),
    "fused normalization, CUDA graph": (
        residual, {**HALF_LAST, "fast": True, "cuda_graph": True},
        {**HALF_LAST, "fast": True, "fused": True}, 1e-2),
}


#: The tests' choice of them.
SMALL_WAYS = ["fused optimizer", "CUDA graph", "channels last, CIFAR", "fused normalization"]


def check_ways_to_train(device, ways=tuple(WAYS_TO_TRAIN)):
    """Compare a short training in every way with a plainer one."""
    for name in ways:
        with chainer.using_config("cudnn_deterministic", True):
            row = compared_way(name, device, *WAYS_TO_TRAIN[name])
        yield row


def compared_way(name, device, build, options, plain, tolerance):
    """Return a row: the distance of the parameters after training, or the error."""
    row = {"what": name, "tolerance": tolerance}
    try:
        got, expected = (after_training(build(), device, **way) for way in (options, plain))
        row["distance"] = distance(got, expected)
        row["passed"] = row["distance"] <= tolerance
    except Exception as error:
        row |= {"passed": False, "error": f"{type(error).__name__}: {error}"}
    return row


def after_training(model, device, fast=False, **options):
    """Return a model's parameters as one vector, after ten steps."""
    if isinstance(model, SmallNetwork):
        train_set, test_set = data.mnist(320, 32)
    else:
        rng = np.random.RandomState(0)
        labels = rng.randint(0, 10, 320).astype("i")
        train_set = chainer.datasets.TupleDataset(rng.rand(320, 3, 36, 36).astype("f"), labels)
        test_set = train_set[:32]
    with chainer.using_config(FAST, fast):
        convnets.train(model, train_set, test_set, iterations=10, batch=32, optimizer="momentum",
                       lr=0.01, schedule="cosine", weight_decay=1e-4, device=device.name, **options)
    return np.concatenate([cuda.to_cpu(p.array).ravel().astype("d")
                           for _, p in sorted(model.namedparams())])


# Times

#: Network, batch, whether it trains.
ROWS = [("LeNet5", 128, True), ("ResNet50", 128, True), ("ResNet50", 1, False),
        ("ResNet50", 256, True), ("VGG16", 128, True), ("ResNet152", 64, True),
        ("ResNet50", 256, False)]
#: The tests' size of it.
SMALL_ROWS = [("LeNet5", 4, True), ("LeNet5", 2, False)]
#: Ways to run ours, by the words for half precision, channels last, normalization fused with ReLU,
#: and a CUDA graph.
OURS = ["float32", "float32, graph", "mixed16", "mixed16, graph", "mixed16, channels last",
        "mixed16, channels last, graph", "mixed16, channels last, fused",
        "mixed16, channels last, fused, graph"]


def ways_of(name, batch, train):
    """Return the names of the ways to run ours that there are for a network."""
    # A graph keeps memory of its own: with large minibatches one of them must do.
    if train and hasattr(getattr(models, name), "knows_layouts"):
        normalized = name.startswith("ResNet")
        spared = {"mixed16, channels last, graph"} if normalized and batch > 128 else set()
        return [way for way in OURS if ("last" in way or "graph" not in way)
                and way not in spared and ("fused" not in way or normalized)]
    return [way for way in OURS if "last" not in way and (way != "float32, graph" or batch <= 128)]


@functools.lru_cache(1)
def built(name):
    """Return a network of `convnets`; it is kept, for the next way to run it."""
    np.random.seed(0)
    return getattr(models, name)()


class Ours:
    """A network of `convnets` on Chainer, in one way of running it."""

    def __init__(self, name, batch, train, way, device):
        half, last, fast, graph = (word in way for word in ("mixed16", "last", "fused", "graph"))
        self.model = copy.deepcopy(built(name))
        rng = np.random.RandomState(0)
        x = rng.rand(batch, *self.model.in_shape).astype(np.float16 if half else np.float32)
        self.arrays = device.send((x, rng.randint(0, 10, batch).astype("i")))
        self.model.to_device(device)
        if last:
            layouts.use_channels_last(self.model, device)
        self.pool = cuda.cupy.get_default_memory_pool()
        run = (self.training if train else self.prediction)(half, graph, device)
        self.run = functools.partial(configured, fast, run)

    def training(self, half, graph, device):
        """Return a function that takes one step."""
        rule = chainer.optimizers.MomentumSGD(lr=1e-3).setup(self.model)
        if half:
            precision.Originals(rule)
        update = rule.update
        if graph:
            self.graph = cuda_graphs.GraphStep(Fused(rule), device)
            update = self.graph.update
        return lambda: update(self.loss, *self.arrays)

    def loss(self, x, t):
        """Return the loss of a minibatch."""
        return F.softmax_cross_entropy(self.model.logits(x), t)

    def prediction(self, half, graph, device):
        """Return a function that predicts once."""
        if half:
            precision.half(self.model)
        x, _ = self.arrays
        if graph:
            self.graph = cuda_graphs.record(self.logits, x)
            return lambda: self.graph(x)
        return lambda: self.logits(x)

    def logits(self, x):
        """Return the scores of a minibatch."""
        with chainer.using_config("train", False), chainer.no_backprop_mode():
            return self.model.logits(x).array

    def event(self):
        """Return an event on the stream of this framework, recorded."""
        event = cuda.Event()
        event.record()
        return event

    def milliseconds(self, start, stop):
        """Return the time between two events."""
        stop.synchronize()
        return cuda.cupy.cuda.get_elapsed_time(start, stop)

    def memory(self):
        """Return the bytes that this framework holds of the card."""
        recording = getattr(getattr(self, "graph", None), "recording", None)
        recording = recording or getattr(self, "graph", None)
        own = recording.pool.total_bytes() if hasattr(recording, "pool") else 0
        return self.pool.total_bytes() + own


def configured(fast, run):
    """Do something with or without cuDNN's fast batch normalization, which ReLU can be part of."""
    with chainer.using_config(FAST, fast):
        run()


class Theirs:
    """The same network of torchvision, or LeNet5, on PyTorch, in one way of running it."""

    def __init__(self, name, batch, train, way):
        self.train, self.way = train, way
        model = torch_model(name).cuda()
        shape = getattr(models, name)().in_shape
        self.x, self.t = torch.rand(batch, *shape, device="cuda"), torch.zeros(
            batch, dtype=torch.long, device="cuda")
        if "channels_last" in way:
            model = model.to(memory_format=torch.channels_last)
            self.x = self.x.to(memory_format=torch.channels_last)
        model.train(train)
        torch.set_float32_matmul_precision("high")   # TF32, which its convolutions take anyway
        self.optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9)
        self.model = torch.compile(model) if "compile" in way else model

    def run(self):
        """Take one step, or predict once."""
        cast = torch.autocast("cuda", torch.float16, enabled="autocast" in self.way)
        if not self.train:
            with torch.no_grad(), cast:
                self.model(self.x)
            return
        self.optimizer.zero_grad(set_to_none=True)
        with cast:
            loss = torch.nn.functional.cross_entropy(self.model(self.x), self.t)
        loss.backward()
        self.optimizer.step()

    def event(self):
        """Return an event on the stream of this framework, recorded."""
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def milliseconds(self, start, stop):
        """Return the time between two events."""
        stop.synchronize()
        return start.elapsed_time(stop)

    @staticmethod
    def memory():
        """Return the most bytes that this framework has held of the card since it was emptied."""
        return torch.cuda.max_memory_reserved()


WAYS = ("eager", "channels_last", "channels_last, autocast")
COMPILED = ("compile", "channels_last, autocast, compile")


def torch_model(name):
    """Return PyTorch's network of a name."""
    if name != "LeNet5":
        import torchvision
        return getattr(torchvision.models, name.lower())()
    nn = torch.nn
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.Sigmoid(), nn.MaxPool2d(2, 2), nn.Conv2d(6, 16, 5),
        nn.Sigmoid(), nn.MaxPool2d(2, 2), nn.Conv2d(16, 120, 5), nn.Sigmoid(), nn.Flatten(),
        nn.Linear(120, 84), nn.Sigmoid(), nn.Linear(84, 10))


def builders(name, batch, train, device, ways):
    """Return, by name, what builds the ways of running a network.

    Beside what compiles, for which that takes most of the time, only two of ours run.
    """
    ours = ways_of(name, batch, train)
    ours = [ours[0], ours[-1]] if ways == COMPILED else ours
    found = {f"Chainer, {way}": functools.partial(Ours, name, batch, train, way, device)
             for way in ours}
    if torch is not None:
        found |= {f"torch, {way}": functools.partial(Theirs, name, batch, train, way)
                  for way in ways}
    return found


def time_row(name, batch, train, device, rounds, ways=WAYS):
    """Yield a row: for each way of running a network its milliseconds, images a second, bytes.

    Each is timed alone once it is ready, so that there is a number whatever comes then, and all of
    them in turn at the end, which counts.
    """
    found, peers = {}, {}
    macs = inspect.summary(built(name), (1, *built(name).in_shape)).macs
    row = {"network": name, "batch": batch, "train": train, "peers": found,
           "flop_per_image": 2 * macs * (3 if train else 1)}
    for label, build in builders(name, batch, train, device, ways).items():
        before = held(label)
        try:
            peer = build()
            for _ in range(cuda_graphs.WARM_UP + 1):   # plans, memory, compilation, recording
                peer.run()
            alone, = interleaved([peer], 3)
            found[label] = {"bytes": peer.memory() - before} | speed(alone, batch)
            peers[label] = peer
        except Exception as error:
            traceback.print_exc()
            found[label] = {"error": f"{type(error).__name__}: {error}"}
        yield row
    for label, times in zip(peers, interleaved(peers.values(), rounds), strict=True):
        found[label] |= speed(times, batch)
    yield row


def speed(times, batch):
    """Return the median of times in milliseconds, and the images a second that it makes."""
    middle = statistics.median(times)
    return {"milliseconds": middle, "images_per_second": 1000 * batch / middle}


def held(label):
    """Give back what a framework keeps; return the bytes that it still holds."""
    if label.startswith("Chainer"):
        pool = cuda.cupy.get_default_memory_pool()
        pool.free_all_blocks()
        return pool.total_bytes()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_reserved()


def interleaved(peers, rounds):
    """Run the peers in turn; return the milliseconds of each."""
    times = [[] for _ in peers]
    for _ in range(rounds):
        for peer, seen in zip(peers, times, strict=True):
            start = peer.event()
            peer.run()
            seen.append(peer.milliseconds(start, peer.event()))
    return times


def ceilings():
    """Measure what the card reaches: products of matrices, and copies, a second."""
    xp, n = cuda.cupy, 8192
    single = [xp.random.rand(n, n, dtype=xp.float32) for _ in range(2)]
    half = [matrix.astype("e") for matrix in single]
    c = xp.empty(2**30, "u1")
    jobs = {"float16 TFLOP/s": (lambda: half[0] @ half[1], 2 * n**3 / 1e12),
            "TF32 TFLOP/s": (lambda: single[0] @ single[1], 2 * n**3 / 1e12),
            "copy TB/s": (c.copy, 2 * c.nbytes / 1e12)}
    yield {name: amount / (median_of(job) / 1000) for name, (job, amount) in jobs.items()}


def median_of(job):
    """Return the milliseconds of a job of CuPy's, the median of ten after three."""
    times = []
    for _ in range(13):
        start = Ours.event(None)
        job()
        times.append(Ours.milliseconds(None, start, Ours.event(None)))
    return statistics.median(times[3:])


# The whole

def parts(args, device):
    """Return the function of every part by name, most important first."""
    found = {"operations": lambda: growing(itertools.chain(
        check_operations(device), check_dropout(device), check_fusion(device)))}
    ways = SMALL_WAYS if args.small else WAYS_TO_TRAIN
    found["ways to train"] = lambda: growing(check_ways_to_train(device, ways))
    if not args.small:
        found["ceilings"] = ceilings
        found["kernels, ms"] = lambda: time_kernels(device)
    for row in SMALL_ROWS if args.small else ROWS:
        found[row_name(*row)] = functools.partial(time_row, *row, device, args.rounds)
    for row in ROWS if torch is not None and not args.small else ():
        found[row_name(*row) + BESIDE_COMPILED] = functools.partial(
            time_row, *row, device, args.rounds, COMPILED)
    if args.chainer_tests:
        found["Chainer's own tests"] = lambda: growing(run_own_tests(args.chainer_tests))
    return found


#: End of the name of a part in which torch.compile takes most of the time.
BESIDE_COMPILED = ", beside torch.compile"


def row_name(network, batch, train):
    """Return a row's name."""
    return f"{network}, {'training' if train else 'inference'}, batch {batch}"


def run_parts(args, argv, earlier, keep):
    """Return what every part gave, or why it gave nothing; `keep` is called after each.

    What is whole in `earlier` is not run again.
    """
    end, found = time.monotonic() + BUDGET, {}
    for name in parts(args, None):
        left = end - time.monotonic()
        limit = min(left, LONG if name in LONG_PARTS or name.endswith(BESIDE_COMPILED) else LIMIT)
        if is_whole(earlier.get(name)):
            found[name] = earlier[name]
        elif left > 5:
            found[name] = run_apart(name, argv, limit)
        else:
            found[name] = earlier.get(name, "skipped: no time was left")
        show(name, found[name], found.get("ceilings"))
        keep(earlier | found)
    return found


def is_whole(part):
    """Tell whether a part has found all that it looks for, well or ill."""
    return isinstance(part, list | dict) and UNFINISHED not in json.dumps(part)


def run_apart(name, argv, limit):
    """Run a part in a process of its own, for so many seconds at most; return what it gave."""
    # As cuDNN's convolutions do, CuPy's products round float32 to TF32 where time is measured.
    extra = {} if name in ("operations", "ways to train") else {"CUPY_TF32": "1"}
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "part.json")
        try:
            done = subprocess.run([*CHILD, *argv, "--part", name, "--part-result", result],
                                  timeout=limit, env={**os.environ, **extra})
            reason = f"its process ended with status {done.returncode}"
        except subprocess.TimeoutExpired:
            reason = f"not done after {limit:.0f} s"
        found, whole = json.loads(result.read_text()) if result.exists() else (None, False)
    return found if whole else unfinished(found, reason)


def unfinished(found, reason):
    """Return what a part has found, with the reason why it is not all."""
    if not found:
        return f"failed: {reason}"
    if isinstance(found, list):
        return [*found, {"what": UNFINISHED, "passed": False, "error": reason}]
    return found | {UNFINISHED: reason}


UNFINISHED = "unfinished"


def run_part(args, device):
    """Run one part and write what it gives, and whether that is all, each time there is more."""
    device.use()
    latest = None

    def write(found, whole):
        new = args.part_result.with_suffix(".new")
        new.write_text(json.dumps([found, whole]))
        new.replace(args.part_result)    # at once: this process may be ended at any moment

    try:
        with chainer.Reporter():
            for found in parts(args, device)[args.part]():
                latest = found
                write(found, False)
        write(latest, True)
    except Exception as error:
        traceback.print_exc()
        write(unfinished(latest, f"{type(error).__name__}: {error}"), True)


def show(name, found, ceilings=None):
    """Print one part; a row's share of the card's ceiling where that is known."""
    print(f"\n{name}", flush=True)
    if isinstance(found, list):
        for row in found:
            told = row.get("error") or row.get("summary") or f"{row['distance']:.1e}"
            print(f"  {'ok  ' if row['passed'] else 'FAIL'} {row['what']:28s} "
                  f"{row.get('type', ''):8s} {told[:160]}")
    elif isinstance(found, dict) and "peers" in found:
        for peer, row in found["peers"].items():
            share = gpu_record.share(peer, row, found, ceilings)
            print(f"  {peer:44s}{row.get('error', '')[:160] or told_time(row)}"
                  f"{'' if share is None else f' {share:6.1%}'}")
        if UNFINISHED in found:
            print(f"  {UNFINISHED}: {found[UNFINISHED]}")
    elif isinstance(found, dict):
        for what, value in found.items():
            print(f"  {what:76s} {value if isinstance(value, str) else f'{value:10.3f}'}")
    else:
        print(f"  {found}", flush=True)


def told_time(row):
    """Return a line's numbers."""
    return (f"{row['milliseconds']:9.2f} ms {row['images_per_second']:9.0f} images/s "
            f"{row['bytes'] / 2**20:7.0f} MiB")


def passed(found):
    """Tell whether every check passed, no part failed, and all of Chainer's rows ran."""
    return all(_passed(part) for part in found.values())


def _passed(part):
    if isinstance(part, list):
        return all(row["passed"] for row in part)
    if isinstance(part, dict):
        return UNFINISHED not in part and not any(
            "error" in row for label, row in part.get("peers", {}).items()
            if label.startswith("Chainer"))
    return not part.startswith("failed")


def parser():
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(prog="python -m tests.bench.gpu", description=__doc__)
    made.add_argument("--device", default="@cupy:0")
    made.add_argument("--record", type=Path, help="write the results to this JSON file")
    made.add_argument("--resume", action="store_true",
                      help="keep what is whole in the file of --record, and run the rest")
    made.add_argument("--chainer-tests", type=Path, help="folder chainer_tests of the sources")
    made.add_argument("--rounds", type=int, default=ROUNDS)
    made.add_argument("--small", action="store_true", help="LeNet5 only, as a test of this file")
    made.add_argument("--part", help="run this part only, in this process")
    made.add_argument("--part-result", type=Path, help="where it writes what it gave")
    return made


def recorded_parts(path, run):
    """Return the parts of a record that a run goes on with, and the runs that made them.

    There are none if there is no file.

    Raises
    ------
    ValueError
        If the file is no record, or of another device or other versions.
    """
    if path is None:
        raise ValueError("which record? Give --record FILE")
    if not path.exists():
        return {}, []
    there = results.load(path, (*results.KEYS[:6], "parts"))
    for key in ("device", "versions", "torch"):
        if there.get(key) != run[key]:
            raise ValueError(f"{path} was made with {key} {there.get(key)}, here it is {run[key]}; "
                             f"numbers of both in one table would not compare. Record to another "
                             f"file")
    one = {key: there[key] for key in ("command", "date")}
    return there["parts"], [*there.get("continues", ()), one]


def main(argv=None):
    """Run all parts; return 0 if every check passed."""
    argv = sys.argv[1:] if argv is None else argv
    args = parser().parse_args(argv)
    try:
        device = devices.get(args.device)
    except devices.DeviceError as error:
        print(f"not measured on a GPU: {error}", file=sys.stderr)
        return 1
    if args.part:
        run_part(args, device)
        return 0
    print(rechainer.info(), flush=True)
    command = shlex.join(["python", "-m", "tests.bench.gpu", *argv])
    run = results.provenance(command, 0, {"rounds": args.rounds}, device.name)
    run |= {"info": json.loads(json.dumps(rechainer.info())),
            "torch": getattr(torch, "__version__", None)}

    earlier = {}
    if args.resume:
        try:
            earlier, run["continues"] = recorded_parts(args.record, run)
        except ValueError as error:
            print(f"--resume: {error}", file=sys.stderr)
            return 1

    def keep(found):
        if args.record:
            results.write(args.record, {**run, "parts": found})

    found = run_parts(args, argv, earlier, keep)
    print("\nall checks passed" if passed(found) else "\nSOME CHECKS FAILED")
    return 0 if passed(found) else 1


if __name__ == "__main__":
    sys.exit(main())
