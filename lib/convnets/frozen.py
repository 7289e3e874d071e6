"""Frozen features: what a network has learned, measured by a linear layer on top of each stage.

`features` sends images through a network once, `probe` trains a linear layer on what comes out,
`record` does both for pretrained weights and for random ones. On the command line:
``convnets frozen vgg16 --weights FILE --record FILE``.
"""

import hashlib
import math
from pathlib import Path

import chainer
import chainer.links as L
import numpy as np
from chainer import backend
from tqdm import tqdm

from . import data, results
from .pretrained import ARCHITECTURES, WeightsError, load_weights
from .pretrained.families import HEADS, layers
from .pretrained.locate import locate
from .training import train

DATA = {"cifar10": data.cifar10, "fashion_mnist": data.fashion_mnist, "mnist": data.mnist}


def map_stages(model):
    """Return the names of the stages that give maps: all but pooling and linear layers at the end.

    Parameters
    ----------
    model : convnets.models.ImageClassifier

    Returns
    -------
    list of str
    """
    return [name for name, _ in model.stages()
            if name not in HEADS and not name.startswith(("fc", "pool"))]


def averaged(maps, grid):
    """Return the means of maps over a grid of places.

    Parameters
    ----------
    maps : numpy.ndarray, shape (N, C, H, W), float
    grid : int
        Places in each direction; a map that has fewer pixels keeps them all. 1 gives one mean a
        map, which says what is there and not where.

    Returns
    -------
    numpy.ndarray, shape (N, C, min(grid, H), min(grid, W))
    """
    for axis in (2, 3):
        size = maps.shape[axis]
        edges = np.linspace(0, size, min(grid, size) + 1).astype(int)
        sums = np.add.reduceat(maps, edges[:-1], axis)
        maps = sums / np.diff(edges).astype(maps.dtype).reshape((-1, 1, 1)[:4 - axis])
    return maps


def features(model, x, picks=None, *, grid=1, batch=50, progress=False):
    """Return what some stages of a network make of images, in test mode and without a graph.

    The images go through the network once, whatever the number of stages; what follows the last
    of them is not computed.

    Parameters
    ----------
    model : convnets.models.ImageClassifier
        On any device.
    x : numpy.ndarray, shape (N, C, H, W), float32
        Images as the network wants them, see `network_input`.
    picks : sequence of str, optional
        Names in ``model.stages()``. Default: `map_stages`.
    grid : int, optional
        Average each map over a grid of so many places, see `averaged`; None keeps whole maps.
    batch : int
        Images per forward pass.
    progress : bool
        Show a progress bar on stderr.

    Returns
    -------
    dict of str to numpy.ndarray, shape (N, C, H, W)

    Raises
    ------
    ValueError
        If there is no such stage, or the images do not fit.
    """
    names = [name for name, _ in model.stages()]
    picks = map_stages(model) if picks is None else list(picks)
    if not picks or set(picks) - set(names):
        raise ValueError(f"{type(model).__name__} has no stages {picks}; "
                         f"there are: {', '.join(names)}")
    model.check_input(x)
    stages = model.stages()[:1 + max(map(names.index, picks))]
    found = {pick: [] for pick in picks}
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        for i in tqdm(range(0, len(x), batch), disable=not progress, unit="batch"):
            h = model.device.send(x[i:i + batch])
            for name, stage in stages:
                h = stage(h)
                if name in found:
                    maps = backend.CpuDevice().send(h.array)
                    found[name].append(maps if grid is None else averaged(maps, grid))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def network_input(x, preprocessing, size=None):
    """Return small images, grey or in colour, as a network for photographs wants them.

    Parameters
    ----------
    x : numpy.ndarray, shape (N, 1 or 3, H, W), float32
        Grey or RGB in 0..1.
    preprocessing : convnets.pretrained.preprocess.Preprocessing
        Only order, scale, mean and deviation are used: nothing is cut off.
    size : int, optional
        Height and width to resize to, bilinear.

    Returns
    -------
    numpy.ndarray, shape (N, 3, H, W) or (N, 3, size, size), float32
    """
    if size is not None:
        x = chainer.functions.resize_images(x, (size, size)).array
    return preprocessing.normalise(np.broadcast_to(x, (len(x), 3, *x.shape[2:])))


def probe(train_x, train_t, test_x, test_t, *, epochs=30, batch=100, lr=1e-3, seed=0):
    """Train a linear layer on features and return its accuracies.

    Each feature is first brought to mean 0 and deviation 1, as the training examples have it.

    Parameters
    ----------
    train_x, test_x : numpy.ndarray, shape (N, ...), float32
        Features, one row an example; further axes are flattened.
    train_t, test_t : numpy.ndarray, shape (N,), int32
    epochs, batch : int
        Passes over the training examples, and examples in a step.
    lr : float
        Rate of Adam at the start; it falls to zero along half a cosine.
    seed : int
        Of the layer's first weights and of the order of the examples.

    Returns
    -------
    (float, float)
        Accuracy on the training examples, over the last third of the steps, and on the test
        examples.
    """
    rows, others = (x.reshape(len(x), -1) for x in (train_x, test_x))
    mean, deviation = rows.mean(axis=0), rows.std(axis=0)
    deviation[deviation == 0] = 1
    pairs = [chainer.datasets.TupleDataset((x - mean) / deviation, t)
             for x, t in ((rows, train_t), (others, test_t))]
    every = max(1, math.ceil(epochs * len(rows) / batch) // 3)
    np.random.seed(seed)
    run = train(L.Linear(rows.shape[1], int(max(train_t.max(), test_t.max())) + 1), *pairs,
                iterations=3 * every, every=every, batch=batch, lr=lr, schedule="cosine",
                seed=seed)
    last = run.get_extension("LogReport").log[-1]
    return last["main/accuracy"], last["validation/main/accuracy"]


def network(name, weights, in_shape):
    """Return a network for images of some shape, with its convolutions filled from a file.

    Parameters
    ----------
    name : str
        A key of `pretrained.ARCHITECTURES`.
    weights : str or path
        As `load_weights` takes it; the linear layers may be missing.
    in_shape : tuple of int
        (C, H, W).

    Returns
    -------
    convnets.models.ImageClassifier
        With ``preprocessing``.

    Raises
    ------
    WeightsError
        As `load_weights`, and if a convolution or batch normalization stays random.
    """
    model = _untrained(name, in_shape, 0)
    report = load_weights(model, weights, strict=False, head="new")
    random = [layer.path for layer in layers(model)
              if layer.kind in ("conv", "bn") and layer.name not in HEADS
              and any(new.startswith(f"{layer.path}/") for new in report.new)]
    if random:
        raise WeightsError(f"{report.path}: lacks the weights of {len(random)} layers that are to "
                           f"be measured, such as {random[0]}; expected those of every "
                           f"convolution of {name}")
    return model


def _untrained(name, in_shape, seed):
    build = ARCHITECTURES[name]
    np.random.seed(seed)
    return build() if build.any_size else build(in_shape=in_shape)


def measure(model, train_set, test_set, seeds=(0,), *, grid=4, size=None, progress=False):
    """Return how well linear layers do on each stage of a network.

    Parameters
    ----------
    model : convnets.models.ImageClassifier
        With ``preprocessing``.
    train_set, test_set : dataset
        Pairs of image (C, H, W) in 0..1 and label.
    seeds : iterable of int
        Of the linear layers, see `probe`.
    grid, size, progress
        As in `features` and `network_input`.

    Returns
    -------
    dict of str to list of [float, float]
        Stage: accuracy on training and test examples, one pair a seed.
    """
    (train_x, train_t), (test_x, test_t) = (
        chainer.dataset.concat_examples(part[:]) for part in (train_set, test_set))
    train_maps, test_maps = (
        features(model, network_input(x, model.preprocessing, size), grid=grid, progress=progress)
        for x in (train_x, test_x))
    return {stage: [_probed(train_maps[stage], train_t, test_maps[stage], test_t, seed)
                    for seed in seeds] for stage in train_maps}


def _probed(train_x, train_t, test_x, test_t, seed):
    return [round(float(a), 4) for a in probe(train_x, train_t, test_x, test_t, seed=seed)]


def record(path, name, weights, *, command, data_set="cifar10", n_train=3000, n_test=1000, seeds=3,
           grid=4, size=None, progress=False):
    """Measure the stages of a network with pretrained and with random weights, and write it.

    Parameters
    ----------
    path : path
        The JSON file to write.
    name, weights
        As in `network`.
    command : str
        What to type to repeat it.
    data_set : str
        A key of `DATA`.
    n_train, n_test : int
        The first so many images.
    seeds : int
        Linear layers on each stage, and networks with random weights: seeds 0, 1, ...
    grid, size, progress
        As in `measure`.

    Returns
    -------
    dict
        What was written: `results.provenance`; ``pixels``, a list of [training accuracy, test
        accuracy] of linear layers on the pixels; ``stages``, a list of dicts with the keys name,
        shape (C, H, W), n_features, pretrained and random, the last two as ``pixels``.
    """
    train_set, test_set = DATA[data_set](n_train, n_test)
    (train_x, train_t), (test_x, test_t) = (
        chainer.dataset.concat_examples(part[:]) for part in (train_set, test_set))
    in_shape = (3, size, size) if size else (3, *train_x.shape[2:])
    how = {"grid": grid, "size": size, "progress": progress}
    model = network(name, weights, in_shape)
    trained = measure(model, train_set, test_set, range(seeds), **how)
    random = []
    for seed in range(seeds):
        twin = _untrained(name, in_shape, seed)
        twin.preprocessing = model.preprocessing
        random.append(measure(twin, train_set, test_set, [seed], **how))
    run = {
        **results.provenance(command, 0, {
            "model": name, "weights": _identity(weights), "data": data_set, "n_train": n_train,
            "n_test": n_test, "seeds": seeds, "grid": grid, "size": size}),
        "pixels": [_probed(train_x, train_t, test_x, test_t, seed) for seed in range(seeds)],
        "stages": [{**row, "pretrained": trained[row["name"]],
                    "random": [r[row["name"]][0] for r in random]}
                   for row in _rows(model, in_shape, grid)],
    }
    return results.write(path, run)


def _rows(model, in_shape, grid):
    """Return name, shape and number of features of each stage."""
    blank = np.zeros((1, *in_shape), np.float32)
    whole, kept = (features(model, blank, grid=g) for g in (None, grid))
    return [{"name": name, "shape": list(maps.shape[1:]), "n_features": kept[name].size}
            for name, maps in whole.items()]


def _identity(weights):
    path = locate(weights)
    with open(path, "rb") as file:
        return {"file": path.name, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def load(path):
    """Read what `record` wrote.

    Raises
    ------
    ValueError
        If the file does not hold such measurements.
    """
    return results.load_measured(path, "stages", "measured stages", "frozen MODEL --weights FILE")


def add_parser(commands):
    """Add the command to argparse's subparsers."""
    p = commands.add_parser(
        "frozen", help="measure the features of a pretrained network against those of a random one")
    p.add_argument("model", choices=ARCHITECTURES, metavar="MODEL",
                   help=f"one of {', '.join(ARCHITECTURES)}")
    p.add_argument("--weights", required=True,
                   help="a file, or a name that `convnets weights` lists; linear layers may be "
                        "missing")
    p.add_argument("--record", type=Path, required=True, metavar="FILE",
                   help="the JSON file to write")
    p.add_argument("--data", choices=DATA, default="cifar10")
    p.add_argument("--n-train", type=int, default=3000, help="use the first so many examples")
    p.add_argument("--n-test", type=int, default=1000, help="use the first so many test examples")
    p.add_argument("--seeds", type=int, default=3, help="linear layers, and random networks")
    p.add_argument("--grid", type=int, default=4, help="average maps over so many places, squared")
    p.add_argument("--size", type=int, help="resize the images first")
    p.add_argument("--quiet", action="store_true", help="no progress bar")
    p.set_defaults(run=_run)


def _run(args):
    run = record(args.record, args.model, args.weights, command=args.command_line,
                 data_set=args.data, n_train=args.n_train, n_test=args.n_test, seeds=args.seeds,
                 grid=args.grid, size=args.size, progress=not args.quiet)
    print(f"{'':8} {'map':>15} {'features':>9}   test accuracy: pretrained  random")
    print(f"pixels{np.mean(run['pixels'], axis=0)[1]:54.3f}")
    for row in run["stages"]:
        trained, random = (np.mean(row[kind], axis=0)[1] for kind in ("pretrained", "random"))
        shape = " x ".join(map(str, row["shape"]))
        print(f"{row['name']:8} {shape:>15} {row['n_features']:9,} {trained:27.3f} {random:7.3f}")
