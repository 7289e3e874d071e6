"""Everything that only a GPU can show, in one command of under ten minutes.

``python -m tests.bench.gpu`` checks the functions of Chainer under cuDNN against Chainer on the
processor, runs Chainer's own tests where their folder is given, and times training and inference
beside PyTorch where that is installed: interleaved, by CUDA events, medians. A part that fails is
recorded with its error, a part for which no time is left as skipped; the rest goes on.

``--record FILE`` writes all of it as JSON with its provenance.
"""

import argparse
import functools
import json
import shlex
import statistics
import subprocess
import sys
import time
import traceback
from pathlib import Path

import rechainer
from convnets import devices, inspect, models, results
from convnets.precision import LOSS_SCALE

import chainer
import chainer.functions as F
import numpy as np
from chainer.backends import cuda

try:
    import torch
except ImportError:
    torch = None

#: Seconds after which no further part is begun; what is begun then still ends in time.
BUDGET = 420
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


def check_operations(device):
    """Compare every function of `CHECKS`, in every type, with float64 on the processor."""
    rng = np.random.RandomState(0)
    rows = []
    for name, function, shapes in CHECKS:
        drawn = [rng.randn(*shape) for shape in shapes]
        for kind, tolerance in TOLERANCE.items():
            dtype = "float32" if kind == "TF32" else kind
            arrays = [array.astype(dtype) for array in drawn]
            cores = "never" if kind == "float32" else "auto"
            with chainer.using_config("use_cudnn_tensor_core", cores):
                rows.append(compared(name, kind, tolerance, function, arrays, device))
    return rows


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
    return [{"what": "dropout", "type": "float32", "tolerance": 0.003, "distance": float(off),
             "passed": bool(same and off < 0.003)}]


def run_own_tests(folder):
    """Run Chainer's own tests that are marked for a GPU; return pytest's last line of each file."""
    rows = []
    for name in OWN_TESTS:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "rechainer", "-m", "gpu", "-x",
             "--maxfail=20", "-p", "no:cacheprovider", Path(folder) / name],
            capture_output=True, text=True, timeout=120)
        rows.append({"what": name, "passed": done.returncode in (0, 5),
                     "summary": (done.stdout.strip().splitlines() or [done.stderr[-300:]])[-1]})
    return rows


# Times

#: Network, batch, whether it trains.
ROWS = [("LeNet5", 128, True), ("ResNet50", 128, True), ("ResNet50", 256, True),
        ("VGG16", 128, True), ("ResNet152", 64, True), ("ResNet50", 1, False),
        ("ResNet50", 256, False)]
#: Those that are timed beside torch.compile too, which takes a minute to compile each.
COMPILED_ROWS = [ROWS[0], ROWS[1], ROWS[5]]
#: The tests' size of it.
SMALL_ROWS = [("LeNet5", 4, True), ("LeNet5", 2, False)]
TYPES = {"float32": np.float32, "mixed16": chainer.mixed16}


class Ours:
    """A network of `convnets` on Chainer, in one type of numbers."""

    def __init__(self, name, batch, train, kind, device):
        with chainer.using_config("dtype", TYPES[kind]):
            self.model = getattr(models, name)()
        self.train = train
        shape = self.model.in_shape
        rng = np.random.RandomState(0)
        x = rng.rand(batch, *shape).astype(np.float16 if kind == "mixed16" else np.float32)
        self.x, self.t = device.send((x, rng.randint(0, 10, batch).astype("i")))
        self.model.to_device(device)
        self.optimizer = chainer.optimizers.MomentumSGD(lr=1e-3).setup(self.model)
        if kind == "mixed16":
            self.optimizer.use_fp32_update()
            self.optimizer.loss_scaling(scale=LOSS_SCALE)

    def run(self):
        """Take one step, or predict once."""
        if self.train:
            self.optimizer.update(
                lambda: F.softmax_cross_entropy(self.model.logits(self.x), self.t))
        else:
            with chainer.using_config("train", False), chainer.no_backprop_mode():
                self.model.logits(self.x)

    def event(self):
        """Return an event on the stream of this framework, recorded."""
        event = cuda.Event()
        event.record()
        return event

    def milliseconds(self, start, stop):
        """Return the time between two events."""
        stop.synchronize()
        return cuda.cupy.cuda.get_elapsed_time(start, stop)

    @staticmethod
    def memory():
        """Return the bytes that this framework holds of the card."""
        return cuda.cupy.get_default_memory_pool().total_bytes()


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


def builders(device, ways):
    """Return, by name, what builds the ways of running a network."""
    found = {f"Chainer, {kind}": functools.partial(Ours, kind=kind, device=device)
             for kind in TYPES}
    if torch is not None:
        found |= {f"torch, {way}": functools.partial(Theirs, way=way) for way in ways}
    return found


def time_row(name, batch, train, device, rounds, ways=WAYS):
    """Return a row: for each way of running a network its milliseconds, images a second, bytes."""
    found, peers = {}, {}
    for label, build in builders(device, ways).items():
        empty_memory()
        try:
            before = build.func.memory()
            peer = build(name, batch, train)
            for _ in range(3):   # plans, memory, compilation
                peer.run()
            found[label] = {"bytes": peer.memory() - before}
            peers[label] = peer
        except Exception as error:
            found[label] = {"error": f"{type(error).__name__}: {error}"}
    for label, times in zip(peers, interleaved(peers.values(), rounds), strict=True):
        middle = statistics.median(times)
        found[label] |= {"milliseconds": middle, "images_per_second": 1000 * batch / middle}
    model = getattr(models, name)()
    macs = inspect.summary(model, (1, *model.in_shape)).macs
    return {"network": name, "batch": batch, "train": train, "peers": found,
            "flop_per_image": 2 * macs * (3 if train else 1)}


def interleaved(peers, rounds):
    """Run the peers in turn; return the milliseconds of each."""
    times = [[] for _ in peers]
    for _ in range(rounds):
        for peer, seen in zip(peers, times, strict=True):
            start = peer.event()
            peer.run()
            seen.append(peer.milliseconds(start, peer.event()))
    return times


def empty_memory():
    """Give back what the two frameworks keep."""
    cuda.cupy.get_default_memory_pool().free_all_blocks()
    if torch is not None:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def ceilings():
    """Measure what the card reaches: products of float16 matrices, and copies."""
    xp, n = cuda.cupy, 8192
    a, b = (xp.random.rand(n, n, dtype=xp.float32).astype("e") for _ in range(2))
    c = xp.empty(2**30, "u1")
    jobs = {"float16 TFLOP/s": (lambda: a @ b, 2 * n**3 / 1e12),
            "copy TB/s": (c.copy, 2 * c.nbytes / 1e12)}
    found = {}
    for name, (job, amount) in jobs.items():
        clock = Ours.event, Ours.milliseconds
        times = []
        for _ in range(13):
            start = clock[0](None)
            job()
            times.append(clock[1](None, start, clock[0](None)))
        found[name] = amount / (statistics.median(times[3:]) / 1000)
    return found


# The whole

def parts(args, device):
    """Yield name and function of every part, most important first."""
    yield "operations", lambda: check_operations(device) + check_dropout(device)
    if not args.small:
        yield "ceilings", ceilings
    for name, batch, train in SMALL_ROWS if args.small else ROWS:
        kind = "training" if train else "inference"
        yield (f"{name}, {kind}, batch {batch}",
               functools.partial(time_row, name, batch, train, device, args.rounds))
    for name, batch, train in COMPILED_ROWS if torch is not None and not args.small else ():
        yield (f"{name}, batch {batch}, beside torch.compile",
               functools.partial(time_row, name, batch, train, device, args.rounds, COMPILED))
    if args.chainer_tests:
        yield "Chainer's own tests", lambda: run_own_tests(args.chainer_tests)


def run_parts(args, device):
    """Return what every part gave, its error, or that there was no time for it."""
    begun, found = time.monotonic(), {}
    for name, part in parts(args, device):
        if time.monotonic() - begun > BUDGET:
            found[name] = "skipped: no time was left"
            continue
        try:
            found[name] = part()
        except Exception as error:
            traceback.print_exc()
            found[name] = f"failed: {type(error).__name__}: {error}"
        show(name, found[name])
    return found


def show(name, found):
    """Print one part."""
    print(f"\n{name}", flush=True)
    if isinstance(found, list):
        for row in found:
            told = row.get("error") or row.get("summary") or f"{row['distance']:.1e}"
            print(f"  {'ok  ' if row['passed'] else 'FAIL'} {row['what']:28s} "
                  f"{row.get('type', ''):8s} {told[:160]}")
    elif isinstance(found, dict) and "peers" in found:
        for peer, row in found["peers"].items():
            told = row.get("error") or (f"{row['milliseconds']:9.2f} ms  "
                                        f"{row['bytes'] / 2**20:9.0f} MiB")
            print(f"  {peer:44s}{told[:160]}")
    else:
        print(f"  {found}")


def passed(found):
    """Tell whether every check passed, no part failed, and all of Chainer's rows ran."""
    return all(_passed(part) for part in found.values())


def _passed(part):
    if isinstance(part, list):
        return all(row["passed"] for row in part)
    if isinstance(part, dict):
        return not any("error" in row for label, row in part.get("peers", {}).items()
                       if label.startswith("Chainer"))
    return not part.startswith("failed")


def main(argv=None):
    """Run all parts; return 0 if every check passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="@cupy:0")
    parser.add_argument("--record", type=Path, help="write the results to this JSON file")
    parser.add_argument("--chainer-tests", type=Path, help="folder chainer_tests of the sources")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--small", action="store_true", help="LeNet5 only, as a test of this file")
    args = parser.parse_args(argv)
    print(rechainer.info(), flush=True)
    device = devices.get(args.device)
    device.use()
    found = run_parts(args, device)
    if args.record:
        command = shlex.join(["python", "-m", "tests.bench.gpu", *(argv or sys.argv[1:])])
        run = results.provenance(command, 0, {"rounds": args.rounds}, device.name)
        results.write(args.record, {**run, "info": json.loads(json.dumps(rechainer.info())),
                                    "torch": getattr(torch, "__version__", None), "parts": found})
    print("\nall checks passed" if passed(found) else "\nSOME CHECKS FAILED")
    return 0 if passed(found) else 1


if __name__ == "__main__":
    sys.exit(main())
