"""What the gradient meets on its way back: its size, and whether neighbouring images agree.

`measure` walks one network; `record` walks plain and residual networks before training, with and
without batch normalization. On the command line: ``convnets gradients --record FILE``.
"""

from itertools import product
from pathlib import Path

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np

from . import data, models, results

SIZES = ("signal", "gradient", "step")                   # averaged as logarithms
SIMILARITIES = ("signal_similarity", "gradient_similarity")
DEPTHS = (20, 56)
LR = 0.1                                                 # of He et al. 2016, section 4.2


def blocks(model):
    """Return the (name, function, link) triples that `logits` goes through, block by block.

    Parameters
    ----------
    model : convnets.models.ImageClassifier
        A stage that is a ChainList is taken apart: ``res2/0``, ``res2/1``, ...

    Returns
    -------
    list of tuple
        The link is None where the stage has no parameters.
    """
    steps = []
    for name, stage in model.stages():
        link = getattr(model, name, None)
        if isinstance(link, chainer.ChainList):
            steps += [(f"{name}/{i}", block, block) for i, block in enumerate(link)]
        else:
            steps.append((name, stage, link))
    return steps


def neighbours(x, distance):
    """Return images a share `distance` of the way from each image to the one before it.

    Parameters
    ----------
    x : array, shape (N, C, H, W)
    distance : float
        0 gives the images themselves.

    Returns
    -------
    array, shape (N, C, H, W)
    """
    return (1 - x.dtype.type(distance)) * x + x.dtype.type(distance) * np.roll(x, 1, axis=0)


def measure(model, x, t, distance=0.01):
    """Send images and their neighbours through a network, and the loss's gradient back.

    Both halves are one minibatch in train mode. The model is left as it was.

    Parameters
    ----------
    model : convnets.models.ImageClassifier
    x : array, shape (N, C, H, W), float
    t : array of int, shape (N,)
    distance : float
        How far away the neighbours are, see `neighbours`.

    Returns
    -------
    list of dict
        One for each convolution or block on the way, from the input on, about the maps it gives:
        ``name``; ``shape`` (C, H, W); ``signal``, their standard deviation; ``signal_similarity``,
        the correlation of an image's maps with its neighbour's, the batch's mean taken off;
        ``gradient``, the norm of an image's gradient of its loss with respect to them;
        ``gradient_similarity``, the cosine of that and the neighbour's gradient (Balduzzi et al.
        2017); and ``step``, how far one step of plain SGD at rate 1 would move the block's
        convolution weights, relative to their norm. Similarities are means over the images that
        have a gradient.
    """
    model = model.copy("copy")
    model.cleargrads()
    h, passed = np.concatenate([x, neighbours(x, distance)]), []
    with chainer.using_config("train", True):
        for name, function, link in blocks(model):
            h = function(h)
            passed.append((name, h, link))
        loss = F.softmax_cross_entropy(h, np.concatenate([t, t]))
        loss.backward(retain_grad=True)
    return [{"name": name, "shape": list(h.shape[1:]), **_maps(h), "step": _relative_step(link)}
            for name, h, link in passed if h.ndim == 4 and link is not None]


def _maps(h):
    """Return sizes and similarities of maps (2N, C, H, W): images, then their neighbours."""
    signal = h.array.reshape(len(h), -1)
    gradient = h.grad.reshape(len(h), -1) * len(h)       # the loss is a mean over the batch
    return {"signal": float(signal.std()),
            "signal_similarity": _similarity(signal - signal.mean(axis=0)),
            "gradient": float(np.linalg.norm(gradient, axis=1).mean()),
            "gradient_similarity": _similarity(gradient)}


def _similarity(rows):
    """Return the mean cosine of each row of the first half with its partner in the second."""
    a, b = np.split(rows, 2)
    product_of_norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    there = product_of_norms > 0
    return float(((a * b).sum(axis=1)[there] / product_of_norms[there]).mean())


def _relative_step(link):
    weights = [child.W for child in link.links() if isinstance(child, L.Convolution2D)]
    moved, size = (sum(float((a ** 2).sum()) for a in arrays) for arrays in (
        [W.grad for W in weights], [W.array for W in weights]))
    return (moved / size) ** 0.5


def without_normalization(model):
    """Take the batch normalizations out of a network, in place, and return it.

    Parameters
    ----------
    model : chainer.Chain
    """
    for chain in list(model.links()):
        for child in list(chain.children()) if isinstance(chain, chainer.Chain) else ():
            if isinstance(child, L.BatchNormalization):
                delattr(chain, child.name)
                setattr(chain, child.name, F.identity)
    return model


def examples(n=32):
    """Return the first images of Fashion-MNIST, 32x32 and standardised, and their labels.

    Parameters
    ----------
    n : int

    Returns
    -------
    x : numpy.ndarray, shape (n, 1, 32, 32), float32
    t : numpy.ndarray, shape (n,), int32
    """
    x, t = chainer.dataset.concat_examples(data.fashion_mnist(n, 1)[0])
    x = np.pad(x, ((0, 0), (0, 0), (2, 2), (2, 2)))
    return (x - x.mean()) / x.std(), t


def measure_many(depth, residual, normalized, seeds, x, t, distance=0.01):
    """Measure new CIFAR networks that differ in their seed only, and average.

    Parameters
    ----------
    depth : int
    residual, normalized : bool
        With shortcuts; with batch normalization.
    seeds : iterable of int
    x, t, distance
        See `measure`.

    Returns
    -------
    list of dict
        As `measure`'s: geometric means of sizes, means of similarities, to four digits.
    """
    runs = []
    for seed in seeds:
        np.random.seed(seed)
        model = models.CifarResNet(depth, residual=residual, n_in=x.shape[1])
        runs.append(measure(model if normalized else without_normalization(model), x, t, distance))
    return [_mean_row(rows) for rows in zip(*runs, strict=True)]


def _mean_row(rows):
    means = {key: np.exp(np.mean([np.log(row[key]) for row in rows])) for key in SIZES}
    means |= {key: np.mean([row[key] for row in rows]) for key in SIMILARITIES}
    return {"name": rows[0]["name"], "shape": rows[0]["shape"],
            **{key: float(f"{value:.4g}") for key, value in means.items()}}


def record(path, *, command, seeds=5, n=32, distance=0.01, depths=DEPTHS):
    """Measure plain and residual networks of each depth and write the result with its provenance.

    Parameters
    ----------
    path : path
        The JSON file to write.
    command : str
        What to type to repeat it.
    seeds : int
        Networks to average over: seeds 0, 1, ...
    n, distance
        Number of images, see `examples`; how far their neighbours are, see `neighbours`.
    depths : sequence of int

    Returns
    -------
    dict
        What was written: `results.provenance` and ``networks``, a list of dicts with the keys
        name, depth, residual, normalized and blocks (see `measure`).
    """
    x, t = examples(n)
    networks = [
        {"name": f"{'ResNet' if residual else 'plain'}-{depth}", "depth": depth,
         "residual": residual, "normalized": normalized,
         "blocks": measure_many(depth, residual, normalized, range(seeds), x, t, distance)}
        for normalized, depth, residual in product((True, False), depths, (False, True))]
    options = {"data": "fashion_mnist", "seeds": seeds, "n": n, "distance": distance}
    return results.write(path, {**results.provenance(command, 0, options), "networks": networks})


def load(path):
    """Read what `record` wrote.

    Raises
    ------
    ValueError
        If the file does not hold such measurements.
    """
    return results.load_measured(path, "networks", "measured networks", "gradients")


def add_parser(commands):
    """Add the command to argparse's subparsers."""
    parser = commands.add_parser(
        "gradients", help="measure what the gradient meets in plain and residual networks")
    parser.add_argument("--record", type=Path, required=True, metavar="FILE",
                        help="the JSON file to write")
    parser.add_argument("--seeds", type=int, default=5, help="networks to average over")
    parser.add_argument("--n", type=int, default=32, help="images, each with a neighbour")
    parser.add_argument("--distance", type=float, default=0.01,
                        help="how far a neighbour is, as a share of the way to another image")
    parser.set_defaults(run=_run)


def _run(args):
    run = record(args.record, command=args.command_line, seeds=args.seeds, n=args.n,
                 distance=args.distance)
    print("network    normalized  gradient, first / last block  similarity at the first block")
    for network in run["networks"]:
        first, last = (network["blocks"][i] for i in (0, -1))
        print(f"{network['name']:10} {network['normalized']!s:10}  "
              f"{first['gradient'] / last['gradient']:28.3g}  {first['gradient_similarity']:29.3f}")
