"""Networks on Chainer and on PyTorch, in turn: what they need for a step or a prediction."""

import contextlib
import copy
import functools
import statistics
import traceback

import convnets
from convnets import cuda_graphs, inspect, layouts, models, precision
from convnets.fused import Fused
from rechainer import onednn

import chainer
import chainer.functions as F
import numpy as np
from chainer.backends import cuda

from .checks import FAST

try:
    import torch

    from tests.bench import torch_nets
except ImportError:
    torch = None

#: Network, batch, whether it trains.
ROWS = [("LeNet5", 128, True), ("ResNet50", 128, True), ("ResNet50", 1, False),
        ("ResNet50", 256, True), ("VGG16", 128, True), ("ResNet152", 64, True),
        ("ResNet50", 256, False)]
#: The same in the order in which they are worth the time that torch.compile takes.
ROWS_COMPILED = [("ResNet50", 128, True), ("ResNet50", 1, False), ("LeNet5", 128, True),
                 ("ResNet50", 256, False), ("VGG16", 128, True), ("ResNet50", 256, True),
                 ("ResNet152", 64, True)]
#: The tests' size of it.
SMALL_ROWS = [("LeNet5", 4, True), ("LeNet5", 2, False)]
#: Ways to train ours, by the words for half precision, channels last, normalization fused with
#: ReLU, and a CUDA graph.
OURS = ["float32", "float32, graph", "float32, channels last", "mixed16", "mixed16, graph",
        "mixed16, channels last", "mixed16, channels last, graph",
        "mixed16, channels last, fused", "mixed16, channels last, fused, graph"]
#: Ways to infer; the best comes last.
OURS_TO_INFER = [
    "float32", "float32, graph", "mixed16", "mixed16, graph", "mixed16, channels last",
    "mixed16, channels last, graph", "float32, optimized", "float32, optimized, graph",
    "mixed16, optimized", "mixed16, optimized, graph"]


def ways_of(name, batch, train):
    """Return the names of the ways to run ours that there are for a network."""
    knows_layouts = hasattr(getattr(models, name), "knows_layouts")
    if not train:
        return [way for way in OURS_TO_INFER if knows_layouts or "last" not in way]
    # A graph keeps memory of its own: with large minibatches one of them must do.
    if knows_layouts:
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
        run = self.training(half, graph, device) if train else self.prediction(way)
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

    def prediction(self, way):
        """Return a function that predicts once."""
        half, graph = (word in way for word in ("mixed16", "graph"))
        x, _ = self.arrays
        if "optimized" in way:
            # As PyTorch is given them: float32, the channels last.
            x = x.astype("f").transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)
            self.model = convnets.optimize(
                self.model, precision="mixed16" if half else None, cuda_graph=graph)
            return lambda: self.logits(x)
        if half:
            precision.half(self.model)
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
        graph = getattr(self, "graph", None)
        recordings = {graph, *(getattr(one, "recording", None) for one in (
            graph, *onednn.kept_for(self.model).values()))}
        return self.pool.total_bytes() + sum(
            one.pool.total_bytes() for one in recordings if hasattr(one, "pool"))


def configured(fast, run):
    """Do something with or without cuDNN's fast batch normalization, which ReLU can be part of."""
    with chainer.using_config(FAST, fast):
        run()


class Theirs:
    """The same network on PyTorch, in one way of running it."""

    def __init__(self, name, batch, train, way):
        self.train, self.way = train, way
        model = torch_nets.NETWORKS[name.lower()]().cuda().train(train)
        shape = getattr(models, name)().in_shape
        self.x, self.t = torch.rand(batch, *shape, device="cuda"), torch.zeros(
            batch, dtype=torch.long, device="cuda")
        if "folded" in way:
            model = torch_nets.folded(model)
        if "half" in way:
            model, self.x = model.half(), self.x.half()
        if "channels_last" in way:
            model = model.to(memory_format=torch.channels_last)
            self.x = self.x.to(memory_format=torch.channels_last)
        torch.set_float32_matmul_precision("high")   # TF32, which its convolutions take anyway
        self.optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9)
        self.model = torch.compile(model) if "compile" in way else model
        self.run = recorded(self.step) if "graph" in way else self.step

    def step(self):
        """Take one step, or predict once."""
        cast = torch.autocast("cuda", torch.float16) if "autocast" in self.way else (
            contextlib.nullcontext())
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


def recorded(function):
    """Return a function that launches what another does on PyTorch's CUDA graph of it."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(cuda_graphs.WARM_UP):
            function()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return graph.replay


#: Ways to run PyTorch's; the last two of inference do by hand what `convnets.optimize` does.
WAYS = ("eager", "channels_last", "channels_last, autocast")
WAYS_TO_INFER = (*WAYS, "channels_last, half, folded", "channels_last, half, folded, graph")
COMPILED = ("compile", "channels_last, autocast, compile")


def builders(name, batch, train, device, compiled):
    """Return, by name, what builds the ways of running a network.

    Beside what compiles, for which that takes most of the time, only two of ours run.
    """
    ours = ways_of(name, batch, train)
    ours = [ours[0], ours[-1]] if compiled else ours
    ways = COMPILED if compiled else WAYS if train else WAYS_TO_INFER
    found = {f"Chainer, {way}": functools.partial(Ours, name, batch, train, way, device)
             for way in ours}
    if torch is not None:
        found |= {f"torch, {way}": functools.partial(Theirs, name, batch, train, way)
                  for way in ways}
    return found


def time_row(name, batch, train, device, rounds, compiled=False):
    """Yield a row: for each way of running a network its milliseconds, images a second, bytes.

    Each is timed alone once it is ready, so that there is a number whatever comes then, and all of
    them in turn at the end, which counts.
    """
    found, peers = {}, {}
    macs = inspect.summary(built(name), (1, *built(name).in_shape)).macs
    row = {"network": name, "batch": batch, "train": train, "peers": found,
           "flop_per_image": 2 * macs * (3 if train else 1)}
    for label, build in builders(name, batch, train, device, compiled).items():
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
