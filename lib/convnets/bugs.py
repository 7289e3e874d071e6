"""Planted bugs, and what can be measured of each: the signatures by which a reader knows them.

Every bug of `BUGS` trains without an error. ``convnets bugs --record FILE`` trains a small network
with each, and without.
"""

from dataclasses import dataclass
from pathlib import Path

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np

from . import data, diagnosis, results
from .models.lenet5 import max_pool

STEPS, BATCH, LR = 120, 50, 0.002
N_TRAIN, N_TEST = 1000, 500
CHUNK = 100          # test images in one call


class Net(chainer.Chain):
    """LeNet5's layers with ReLU and a batch normalization; scores (N, 10) in both modes."""

    initialW = None
    relu = staticmethod(F.relu)

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.conv1 = L.Convolution2D(1, 6, 5, initialW=self.initialW)
            self.bn1 = L.BatchNormalization(6)
            self.conv2 = L.Convolution2D(6, 16, 5, initialW=self.initialW)
            self.conv3 = L.Convolution2D(16, 120, 4, initialW=self.initialW)
            self.fc4 = L.Linear(120, 84, initialW=self.initialW)
            self.fc5 = L.Linear(84, 10, initialW=self.initialW)

    def maps(self, x):
        """Maps (N, 16, 4, 4) of images (N, 1, 28, 28)."""
        h = max_pool(self.relu(self.bn1(self.conv1(x))))       # (N, 6, 12, 12)
        return max_pool(self.relu(self.conv2(h)))

    def forward(self, x):
        h = self.relu(self.conv3(self.maps(x)))                # (N, 120, 1, 1)
        return self.fc5(self.relu(self.fc4(h)))


class TwoSoftmaxes(Net):
    """Returns probabilities, of which the loss takes another softmax."""

    def forward(self, x):
        return F.softmax(super().forward(x))


class PlainList(Net):
    """Keeps two of its layers in a plain Python list."""

    def __init__(self):
        super().__init__()
        self.convs = [self.conv2, self.conv3]
        del self.conv2, self.conv3

    def forward(self, x):
        h = max_pool(self.relu(self.bn1(self.conv1(x))))
        h = max_pool(self.relu(self.convs[0](h)))
        return self.fc5(self.relu(self.fc4(self.relu(self.convs[1](h)))))


class GraphCut(Net):
    """Takes the maps out of the graph on their way."""

    def maps(self, x):
        return super().maps(x).array


class LargeWeights(Net):
    """Draws its weights with deviation 1, however many inputs a layer has."""

    initialW = chainer.initializers.Normal(1)


class AlwaysTraining(Net):
    """Sets train mode inside forward: batch statistics in test mode, too."""

    def forward(self, x):
        with chainer.using_config("train", True):
            return super().forward(x)


class ReLUWithoutMask(chainer.FunctionNode):
    """max(x, 0), with a backward pass that forgets where x was negative."""

    def forward(self, inputs):
        x, = inputs
        return np.maximum(x, 0),

    def backward(self, indexes, grad_outputs):
        return grad_outputs


class WrongBackward(Net):
    """Uses a ReLU whose backward pass is wrong."""

    relu = staticmethod(lambda x: ReLUWithoutMask().apply((x,))[0])


@dataclass(frozen=True)
class Bug:
    """A way to train a network wrongly.

    Attributes
    ----------
    name : str
    what : str
        The line of code, in words.
    sign : str
        What gives it away, and where to look.
    build : type
        The network.
    apart : bool
        Shuffle images and labels by two different permutations.
    clear : bool
        Clear the gradients before each backward pass.
    """

    name: str
    what: str
    sign: str
    build: type = Net
    apart: bool = False
    clear: bool = True


BUGS = {bug.name: bug for bug in (
    Bug("healthy", "no bug", "The first loss is near ln 10, it falls, one minibatch goes to 0, "
        "every layer moves, and no answer depends on its neighbours."),
    Bug("two softmaxes", "`F.softmax` at the end of `forward`, and `softmax_cross_entropy`",
        "Neither the loss nor one minibatch falls below 1.4612.", TwoSoftmaxes),
    Bug("layers in a list", "`self.convs = [conv2, conv3]`: a plain list in a Chain",
        "conv2 and conv3 are not among the parameters: nothing moves them.", PlainList),
    Bug("graph cut", "`.array` between conv2 and conv3",
        "No gradient arrives at conv1, bn1 and conv2.", GraphCut),
    Bug("weights too large", "`initialW=Normal(1)` in every layer",
        "The first loss is far above ln 10.", LargeWeights),
    Bug("labels apart", "images and labels shuffled by two permutations",
        "One minibatch is learned and every layer moves, but the loss on many images hardly "
        "falls, and new images are answered little better than by chance.", apart=True),
    Bug("gradients add up", "no `cleargrads` before `backward`",
        "The first step is right. Later ones also take all gradients before them along: the "
        "loss falls late, if at all, and jumps.", clear=False),
    Bug("wrong backward", "a ReLU of one's own, whose `backward` forgets the mask",
        "Learning goes on, but worse. Only the slope of the loss tells: it is not what the "
        "gradient says.", WrongBackward),
    Bug("always training", "`using_config('train', True)` inside `forward`",
        "All of training looks healthy. Answers change with the neighbours in a minibatch.",
        AlwaysTraining),
)}


def train(bug, x, t, steps=STEPS, batch=BATCH, lr=LR, seed=0):
    """Train a network with a bug and return it, and the loss of every step.

    Parameters
    ----------
    bug : Bug
    x : array, shape (N, 1, 28, 28), float32
    t : array of int32, shape (N,)
    steps, batch : int
    lr : float
        Adam's rate.
    seed : int
        Of the weights and of the order.

    Returns
    -------
    model : chainer.Chain
    losses : list of float
    """
    np.random.seed(seed)
    model = bug.build()
    optimizer = chainer.optimizers.Adam(lr).setup(model)
    order = np.random.RandomState(seed)
    if bug.apart:
        t = t[order.permutation(len(t))]
    rows = np.concatenate([order.permutation(len(x)) for _ in range(-(-steps * batch // len(x)))])
    model.cleargrads()
    losses = []
    for i in rows[:steps * batch].reshape(steps, batch):
        loss = F.softmax_cross_entropy(model(x[i]), t[i])
        if bug.clear:
            model.cleargrads()
        loss.backward()
        optimizer.update()
        losses.append(float(loss.array))
    return model, losses


def answers(model, x, chunk=CHUNK):
    """Return the classes (N,) that a model gives images in test mode, `chunk` images a call."""
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        return np.concatenate([model(x[i:i + chunk]).array.argmax(axis=1)
                               for i in range(0, len(x), chunk)])


def signature(bug, train_set, test_set, steps=STEPS):
    """Measure everything that gives a bug away.

    Parameters
    ----------
    bug : Bug
    train_set, test_set : tuple of arrays
        Images (N, 1, 28, 28) and labels (N,).
    steps : int
        Length of the training.

    Returns
    -------
    dict
        ``name``, ``what``, ``sign``; ``curve``, the loss of every step; ``by_heart``, the last
        loss after as many steps on 16 images alone; ``layers``, before training: for each
        parameter of more than one axis its ``name``, and ``gradient`` and ``step`` as in
        `diagnosis.flow`, both None where nothing arrives; ``accuracy`` on new images; ``changed``,
        the share of new images whose answer is another one when they are asked about alone.
    """
    (x, t), (test_x, test_t) = train_set, test_set
    model, losses = train(bug, x, t, steps)
    _, by_heart = train(bug, x[:16], t[:16], steps, batch=16)
    np.random.seed(0)
    told = {row["name"]: row for row in diagnosis.flow(bug.build(), x, t)}
    layers = [{"name": f"{name}/W", **{key: _digits(told.get(f"{name}/W", {}).get(key))
                                       for key in ("gradient", "step")}}
              for name in ("conv1", "conv2", "conv3", "fc4", "fc5")]
    together, alone = answers(model, test_x), answers(model, test_x, chunk=1)
    return {"name": bug.name, "what": bug.what, "sign": bug.sign,
            "curve": [_digits(loss) for loss in losses], "by_heart": _digits(by_heart[-1]),
            "layers": layers, "accuracy": float((together == test_t).mean()),
            "changed": float((together != alone).mean())}


def _digits(value):
    return None if value is None else float(f"{value:.4g}")


def digits(n_train=N_TRAIN, n_test=N_TEST):
    """Return images and labels to train with, and to test with: MNIST's first.

    Returns
    -------
    tuple of two tuples of arrays
        Images (N, 1, 28, 28), float32, and labels (N,), int32.
    """
    return tuple(chainer.dataset.concat_examples(part[:]) for part in data.mnist(n_train, n_test))


def record(path, *, command, steps=STEPS):
    """Measure every bug and write the signatures with their provenance.

    Parameters
    ----------
    path : path
        The JSON file to write.
    command : str
        What to type to repeat it.
    steps : int

    Returns
    -------
    dict
        What was written: `results.provenance` and ``bugs``, a list of `signature`.
    """
    parts = digits()
    options = {"data": "mnist", "n_train": N_TRAIN, "n_test": N_TEST, "steps": steps,
               "batch": BATCH, "optimizer": "adam", "lr": LR}
    measured = [signature(bug, *parts, steps) for bug in BUGS.values()]
    return results.write(path, {**results.provenance(command, 0, options), "bugs": measured})


def load(path):
    """Read what `record` wrote.

    Raises
    ------
    ValueError
        If the file does not hold signatures.
    """
    return results.load_measured(path, "bugs", "signatures of bugs", "bugs")


def add_parser(commands):
    """Add the command to argparse's subparsers."""
    parser = commands.add_parser(
        "bugs", help="train a small network with each of the planted bugs, and measure the signs")
    parser.add_argument("--record", type=Path, required=True, metavar="FILE",
                        help="the JSON file to write")
    parser.add_argument("--steps", type=int, default=STEPS, help="training steps for each")
    parser.set_defaults(run=_run)


def _run(args):
    run = record(args.record, command=args.command_line, steps=args.steps)
    print("bug                  first loss  last 20  by heart  accuracy  changed")
    for bug in run["bugs"]:
        print(f"{bug['name']:20} {bug['curve'][0]:10.4g} {np.mean(bug['curve'][-20:]):8.3f}"
              f" {bug['by_heart']:9.4f} {bug['accuracy']:9.1%} {bug['changed']:8.1%}")
