"""From model, data and options to a Chainer `Trainer`, with bit-exact resume."""

import json
import math
import shutil
from pathlib import Path

import chainer
import numpy as np
from chainer.training import Extension, Trainer, extensions, updaters
from tqdm import tqdm

from . import devices
from .cuda_graphs import GraphStep
from .feed import Feed
from .files import read_npz
from .fused import Fused
from .layouts import use_channels_last
from .losses import Classifier
from .precision import PRECISIONS, Originals
from .recorded import RecordedStep

# name: (constructor, the attribute that holds the learning rate)
OPTIMIZERS = {
    "adam": (chainer.optimizers.Adam, "alpha"),
    "momentum": (chainer.optimizers.MomentumSGD, "lr"),
    "sgd": (chainer.optimizers.SGD, "lr"),
}

# name: the factor on the learning rate when a share 0 <= p < 1 of all iterations is done
SCHEDULES = {
    None: lambda p: 1.0,
    "cosine": lambda p: (1 + math.cos(math.pi * p)) / 2,   # Loshchilov & Hutter 2017
    # A tenth after one half and after three quarters, He et al. 2016, section 4.2.
    "step": lambda p: 0.1 ** ((p >= 0.5) + (p >= 0.75)),
}

SNAPSHOT = "snapshot_{.updater.iteration}.npz"
OPTIONS_KEY = "extensions/RunState/options"


class ResumeError(RuntimeError):
    """A run cannot be continued, or a new one would overwrite it."""


def train(model, train_set, test_set, **options):
    """Train a model and return the finished trainer; the arguments are `trainer`'s."""
    run = trainer(model, train_set, test_set, **options)
    with devices.told_when_full(run.updater.device, "a smaller batch"):
        run.run()
    return run


def trainer(model, train_set, test_set, *, epochs=10, iterations=None, every=None, batch=128,
            optimizer="adam", lr=0.004, weight_decay=0.0, schedule=None, shift=0, seed=0, out=None,
            snapshot=True, resume=False, progress=False, device="@numpy", precision=None,
            channels_last=False, fused=False, cuda_graph=False, recorded=False, prefetch=False):
    """Build a Chainer trainer with evaluation, log, snapshots and progress bar.

    A run that was killed at any moment continues with ``resume=True`` from its
    newest snapshot, written with each entry of the log, and ends with the same
    parameters and the same log, bit for bit, as one that was not; on a GPU so with cuDNN and
    ``chainer.config.cudnn_deterministic = True``.

    Parameters
    ----------
    model : chainer.Link
        The network alone; it is wrapped in `convnets.losses.Classifier`.
        Call ``np.random.seed`` before building it to fix its initial weights.
    train_set, test_set : dataset
        Pairs of image (C, H, W) and label.
    epochs, batch : int
        Passes over `train_set`, and examples in a step.
    iterations : int, optional
        Steps to take, instead of `epochs` passes.
    every : int, optional
        Steps from one entry of the log to the next, each with an evaluation and a
        snapshot. Default: all `iterations` where they are given, else one pass.
    optimizer : str
        ``"adam"``, ``"momentum"`` or ``"sgd"``.
    lr : float
        Learning rate at the start.
    weight_decay : float
        Share of each parameter added to its gradient.
    schedule : str, optional
        ``"cosine"`` lets the rate fall to zero along half a cosine, ``"step"`` to a tenth
        after one half and again after three quarters of all steps; None keeps it.
    shift : int
        Move each minibatch by a random whole number of pixels up to this, in
        both directions, filling with zeros.
    seed : int
        Of the order of examples, shifts and dropout.
    out : path, optional
        Folder for log and snapshots. Default: none are written.
    snapshot : bool
        Write ``snapshot_<iteration>.npz`` with each entry of the log and keep two.
    resume : bool
        Continue from the newest snapshot in `out`, if there is one.
    progress : bool
        Show a progress bar on stderr.
    device : str
        ``"cpu"``, ``"@cupy:0"`` or another name that `convnets.devices.get` takes.
    precision : str, optional
        ``"mixed16"`` calculates in float16 with float32 originals of the weights, see
        `convnets.precision`; the model is float32 again when the run ends.
    channels_last : bool
        Train a residual network or a VGG on a GPU in cuDNN's layout, see `convnets.layouts`.
    fused : bool
        Update all parameters by one kernel, see `convnets.fused`: the same numbers, bit for
        bit on the processor.
    cuda_graph : bool
        Record the step of a GPU once and launch it as a whole from then on, see
        `convnets.cuda_graphs`; the optimizer is fused with it.
    recorded : bool
        Record the step once and replay it without Chainer's Python in between: on a GPU this is
        ``cuda_graph=True``, on the processor see `convnets.recorded`.
    prefetch : bool
        Send minibatches to a GPU while it works on the last one, see `convnets.feed`.

    Returns
    -------
    chainer.training.Trainer
        Not yet run. ``get_extension("LogReport").log`` is its log.

    Raises
    ------
    ValueError
        If an option is unknown, out of range, or not for this device or optimizer.
    DeviceError
        If the device is not there.
    ResumeError
        If `out` holds a run already and `resume` is off, or its newest snapshot
        is damaged or was made with another model, data or other options.
    """
    _check_options(optimizer, schedule, precision, lr, weight_decay, epochs=epochs, batch=batch,
                   shift=shift, iterations=iterations, every=every)
    if resume and out is None:
        raise ValueError("resume=True (--resume) needs the folder of the run: out (--out)")
    options = {
        "model": _signature(model), "train": len(train_set), "epochs": epochs,
        "iterations": iterations, "every": every, "batch": batch, "optimizer": optimizer, "lr": lr,
        "weight_decay": weight_decay, "schedule": schedule, "shift": shift, "seed": seed,
        "precision": precision,
    }
    found = _newest_snapshot(out) if out is not None else None
    if found and not resume:
        raise ResumeError(f"{out} holds the snapshot {found.name} of an earlier run. Continue it "
                          f"with resume=True (--resume), or choose another folder.")
    np.random.seed(seed)
    device = devices.get(device)
    device.use()
    devices.seed(device, seed)
    if channels_last:
        use_channels_last(model, device)
    target = Classifier(model)
    target.to_device(device)
    rule, rate_name = OPTIMIZERS[optimizer]
    rule = rule(**{rate_name: lr}).setup(target)
    if weight_decay:
        rule.add_hook(chainer.optimizer_hooks.WeightDecay(weight_decay))
    if fused or cuda_graph or recorded:
        step = Fused(rule)
        if cuda_graph or recorded:
            on_cpu = recorded and device.xp is np
            step = (RecordedStep if on_cpu else GraphStep)(step, device)
        rule.update = step.update
    dtype = np.float16 if precision else np.float32
    send = Feed(device) if prefetch else device.send
    updater = updaters.StandardUpdater(
        chainer.iterators.SerialIterator(train_set, batch), rule,
        converter=_shifting_converter(shift, dtype, send), device=device)
    length = (iterations, "iteration") if iterations else (epochs, "epoch")
    entry = (every or iterations, "iteration") if every or iterations else (1, "epoch")
    result = Trainer(updater, length, out=str(out or "."))
    steps = iterations or math.ceil(epochs * len(train_set) / batch)
    result.extend(LearningRate(rate_name, lr, SCHEDULES[schedule], steps))
    result.extend(RunState(options, device))
    if precision:
        result.extend(Originals(rule))
    _extend_reports(result, target, test_set, device, dtype, entry, log=out is not None)
    if progress:
        result.extend(ProgressBar(steps))
    if out is not None:
        _clear_leftovers(out)
        if snapshot:
            result.extend(extensions.snapshot(filename=SNAPSHOT, n_retains=2),
                          trigger=entry)
    if found:
        _load_snapshot(found, result, options)
    return result


def shift_images(x, dy, dx):
    """Return images moved down by dy and right by dx pixels; zeros move in.

    Parameters
    ----------
    x : array, shape (N, C, H, W)
    dy, dx : int
        May be negative; at most H and W in size.

    Returns
    -------
    array, shape (N, C, H, W)
    """
    height, width = x.shape[2:]
    out = np.zeros_like(x)
    out[:, :, max(dy, 0):height + min(dy, 0), max(dx, 0):width + min(dx, 0)] = \
        x[:, :, max(-dy, 0):height + min(-dy, 0), max(-dx, 0):width + min(-dx, 0)]
    return out


class LearningRate(Extension):
    """Set the learning rate before each step from the share of steps done."""

    trigger = (1, "iteration")

    def __init__(self, attribute, base, factor, steps):
        self.attribute, self.base, self.factor, self.steps = attribute, base, factor, steps

    def initialize(self, trainer):
        self(trainer)

    def __call__(self, trainer):
        share = min(trainer.updater.iteration / self.steps, 1.0)
        optimizer = trainer.updater.get_optimizer("main")
        setattr(optimizer, self.attribute, self.base * self.factor(share))


class RunState(Extension):
    """What a snapshot needs besides Chainer's own: random state and the run's options."""

    name = "RunState"

    def __init__(self, options, device):
        self.options, self.device = options, device

    def __call__(self, trainer):
        """Do nothing: it is there to be part of the snapshot."""

    def serialize(self, serializer):
        dropout = devices.dropout_states(self.device)
        if dropout is not None:
            serializer("dropout", dropout.states)
        _, keys, position, has_gauss, gauss = np.random.get_state()
        keys = serializer("random_keys", keys)
        position = serializer("random_position", position)
        has_gauss = serializer("random_has_gauss", has_gauss)
        gauss = serializer("random_gauss", gauss)
        np.random.set_state(("MT19937", keys, int(position), int(has_gauss), float(gauss)))
        serializer("options", json.dumps(self.options))


class ProgressBar(Extension):
    """A bar on stderr: epoch, iterations a second, latest loss and test accuracy."""

    trigger = (1, "iteration")

    def __init__(self, steps):
        self.steps, self.bar = steps, None

    def __call__(self, trainer):
        updater = trainer.updater
        if self.bar is None:
            self.bar = tqdm(total=self.steps, initial=updater.iteration - 1, unit="it")
        self.bar.update(updater.iteration - self.bar.n)
        self.bar.set_description(f"epoch {updater.epoch_detail:5.2f}", refresh=False)
        log = trainer.get_extension("LogReport").log
        if log:
            self.bar.set_postfix_str(
                f"loss {log[-1]['main/loss']:.4f}, "
                f"test accuracy {log[-1]['validation/main/accuracy']:.4f}", refresh=False)

    def finalize(self):
        if self.bar is not None:
            self.bar.close()


LOWEST = {"epochs": 1, "iterations": 1, "every": 1, "batch": 1, "shift": 0}


def _check_options(optimizer, schedule, precision, lr, weight_decay, **whole):
    for name, value, known in (("optimizer", optimizer, OPTIMIZERS),
                               ("schedule", schedule, SCHEDULES),
                               ("precision", precision, PRECISIONS)):
        if value not in known:
            raise ValueError(f"unknown {name} {value!r}; there are: {', '.join(map(str, known))}")
    for name, value in whole.items():
        if value is None and name in ("iterations", "every"):
            continue
        if value != int(value) or value < LOWEST[name]:
            raise ValueError(f"{name} must be a whole number of at least {LOWEST[name]}, "
                             f"got {value}")
    if whole["iterations"] and whole["every"] and whole["iterations"] % whole["every"]:
        raise ValueError(f"iterations must be a multiple of every, so that the last step is in "
                         f"the log; got {whole['iterations']} and {whole['every']}")
    if not lr > 0:
        raise ValueError(f"lr must be above 0, got {lr}")
    if not weight_decay >= 0:
        raise ValueError(f"weight_decay must not be negative, got {weight_decay}")


def _signature(model):
    """Return the model's class and the shape of each parameter; None before its first call."""
    return {"class": type(model).__name__,
            "params": {name: list(p.shape) if p.array is not None else None
                       for name, p in sorted(model.namedparams())}}


def _shifting_converter(limit, dtype, send):
    @chainer.dataset.converter()
    def convert(batch, device):
        x, t = chainer.dataset.concat_examples(batch)
        x = x.astype(dtype, copy=False)
        if limit:
            x = shift_images(x, *np.random.randint(-limit, limit + 1, 2))
        return send((x, t))
    return convert


def _extend_reports(run, target, test_set, device, dtype, entry, log):
    test_iterator = chainer.iterators.SerialIterator(test_set, 500, repeat=False, shuffle=False)
    converter = _shifting_converter(0, dtype, device.send)
    run.extend(extensions.Evaluator(test_iterator, target, converter, device), trigger=entry)
    rate = run.get_extension("LearningRate").attribute
    run.extend(extensions.observe_value(
        "lr", lambda t: getattr(t.updater.get_optimizer("main"), rate)), trigger=entry)
    # filename=None would mean "log"; only this older name can say that no file is wanted.
    run.extend(extensions.LogReport(trigger=entry, log_name="log" if log else None))


def _iteration(path):
    return int(path.stem.split("_")[1])


def _newest_snapshot(out):
    found = [p for p in Path(out).glob("snapshot_*.npz") if p.stem.split("_")[1].isdigit()]
    return max(found, key=_iteration, default=None)


def _clear_leftovers(out):
    """Remove the temporary folders that a killed run left while it was writing."""
    for pattern in ("tmpsnapshot_*", "log*"):
        for path in Path(out).glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)


def _load_snapshot(path, run, options):
    """Load a snapshot into a trainer; change nothing unless it is whole and fits."""
    try:
        arrays = read_npz(path)
        stored = json.loads(str(arrays[OPTIONS_KEY]))
    except (ValueError, KeyError) as e:
        raise ResumeError(f"{path} is not a whole snapshot of a run ({e}). Delete it to continue "
                          f"from the one before it.") from e
    differing = [key for key in options if stored.get(key) != options[key]]
    if differing:
        raise ResumeError(f"{path} was made by another run: " + "; ".join(
            f"{key} is {_brief(stored.get(key))} there, {_brief(options[key])} here"
            for key in differing) + ". Use the same options, or another folder.")
    chainer.serializers.NpzDeserializer(arrays).load(run)


def _brief(value):
    """Name a model by its class and its number of parameters."""
    if not isinstance(value, dict):
        return repr(value)
    count = sum(math.prod(shape) for shape in value["params"].values() if shape is not None)
    return f"{value['class']} ({count:,} parameters)"
