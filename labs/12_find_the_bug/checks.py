"""Checks of lab 12, find the bug: a network, a loss, a shuffle, an evaluation, a function."""

from convnets.check import Lab, Mistake, attempted, describe, same, signature
from convnets.check.calls import a_function
from convnets.check.report import Finding
from convnets.check.traits import Trait, stages

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np

lab = Lab(__file__, around=lambda: chainer.using_config("train", True))
hint, solution, solved = lab.hint, lab.solution, lab.solved


def numbers(shape, seed):
    return np.random.RandomState(seed).normal(0, 1, shape).astype(np.float32)


def few(values, n=4):
    return " ".join(three(v) for v in np.ravel(chainer.as_array(values))[:n])


def three(value):
    """Three decimals, and no minus in front of a zero."""
    return f"{round(float(value), 3) + 0.0:.3f}"


def a_class(answer, base, name):
    """Raise a Finding unless the answer is a class of that kind."""
    if not isinstance(answer, type) or not issubclass(answer, base):
        raise Finding("The check needs the class itself.", got=describe(answer),
                      expected=f"a class derived from `chainer.{base.__name__}`",
                      cause=f"`check.{name}(...)` takes the class, without brackets behind it.")


# ---- 1: network ------------------------------------------------------------------------------

SIZES = ((1, 6), (6, 12))


def convs():
    return [L.Convolution2D(n_in, n_out, 5, 2) for n_in, n_out in SIZES]


def network_with(keep, in_order=lambda self: self.convs,
                 end=lambda self, h: self.fc(self.bn(h)), scope_for_rest=True):
    """The right answer, or a wrong one: it keeps its convolutions otherwise."""
    class Net(chainer.Chain):
        def __init__(self, n_class, relu=F.relu):
            super().__init__()
            self.relu = relu
            keep(self)
            if scope_for_rest:
                with self.init_scope():
                    self.bn, self.fc = L.BatchNormalization(12), L.Linear(192, n_class)
            else:
                self.bn, self.fc = L.BatchNormalization(12), L.Linear(192, n_class)

        def forward(self, x):
            for conv in in_order(self):
                x = self.relu(conv(x))
            return end(self, x)
    return Net


def in_scope(make):
    def keep(self):
        with self.init_scope():
            self.convs = make()
    return keep


def without_scope(self):
    self.convs = chainer.ChainList(*convs())


def in_a_plain_list(self):
    self.convs = convs()


def only_the_first(self):
    self.convs = convs()
    with self.init_scope():
        self.conv1 = self.convs[0]


def names_and_list(self):
    self.convs = convs()
    with self.init_scope():
        self.conv1, self.conv2 = self.convs


right_network = network_with(in_scope(lambda: chainer.ChainList(*convs())))
X = numbers((6, 1, 28, 28), 0)
T = np.arange(6, dtype=np.int32)


def filled(build, n_class=10, **options):
    """A network whose parameters depend on their shape alone, not on their name."""
    np.random.seed(0)
    net = build(n_class, **options)
    for link in known_links(net):
        for _, param in link.namedparams(False):
            param.array[...] = numbers(param.shape, param.size) / np.sqrt(param.size / len(param))
    return net


def known_links(net):
    """The network and what hangs in its attributes, in lists, too."""
    found = [net]
    for value in vars(net).values():
        found += [v for v in (value if isinstance(value, (list, tuple)) else [value])
                  if isinstance(v, chainer.Link)]
    return found


def network_layers(build):
    net = filled(build)
    parts = sorted(f"{type(link).__name__} {param.shape}" for link in net.links()
                   for path, param in link.namedparams() if path.count("/") == 1)
    return f"{net.count_params():,} parameters\n" + "\n".join(parts + unknown(net))


def unknown(net):
    """What hangs in attributes, and is not among the registered links."""
    known = {id(link) for link in net.links()}
    return [f"not registered: {type(value).__name__} self.{name}"
            for name, value in sorted(vars(net).items())
            if any(isinstance(v, chainer.Link) and id(v) not in known
                   for v in (value if isinstance(value, (list, tuple)) else [value]))]


def network_scores(build):
    net = filled(build, n_class=10)
    with chainer.using_config("train", False):
        y = net(X)
    kind = "a Variable" if isinstance(y, chainer.Variable) else "an array"
    return f"{kind} {y.shape}: {few(y[0])} ..."


def network_relu(build):
    net = filled(build, n_class=7, relu=lambda x: x * np.float32(0.5))
    with chainer.using_config("train", False):
        return f"{net(X).shape}: {few(net(X)[0])} ..."


def network_moves(build):
    net = filled(build)
    adam = chainer.optimizers.Adam().setup(net)
    links = {id(p): p for link in known_links(net) for _, p in link.namedparams()}
    before = {key: p.array.copy() for key, p in links.items()}
    adam.update(lambda: F.softmax_cross_entropy(net(X), T))
    still = sorted(str(p.shape) for key, p in links.items() if (p.array == before[key]).all())
    return f"do not move: {', '.join(still) or 'none'}"


def network_copy(build):
    twin = filled(build).copy("init")
    for param in twin.params():
        if param.ndim == 4:
            param.array[...] = 0
    with chainer.using_config("train", False):
        y = twin(X).array
    return "equal scores for all images" if same(y, y[:1].repeat(6, 0)) else "other convolutions"


NETWORK = (
    Trait("the layers", "The registered parameters are not those of the network.", network_layers,
          call="Net(10).namedparams()",
          cause="Two convolutions, a batch normalization and a linear layer, each registered once: "
                "`self.convs = chainer.ChainList(...)` inside `init_scope`."),
    Trait("the scores", "The network computes something else.", network_scores,
          call="Net(10)(x), x (N=6, C=1, H=28, W=28), in test mode",
          cause="`forward` stays as it is: each convolution with `self.relu` behind it, then bn, "
                "then fc."),
    Trait("relu and n_class", "The network does not use what it is given.", network_relu,
          call="Net(7, relu)(x) with a relu of the check's own",
          cause="`n_class` outputs, and `self.relu = relu` behind each convolution."),
    Trait("a step", "After a step of Adam some layers are as before.", network_moves,
          call="optimizer.setup(net), then one update",
          cause="Everything that is called must be registered."),
    Trait("a copy", "A copy of the network goes on using the layers of the original.", network_copy,
          call="twin = net.copy('init'); the convolutions of twin are set to 0; twin(x)",
          cause="A copy shares a plain list: keep the links in a `chainer.ChainList`."),
)


@lab.check(
    Mistake("still a list", "`self.convs` is a Python list still: `init_scope` registers links, "
            "and a list is no link, inside or outside. `chainer.ChainList(...)` is one.",
            network_with(in_scope(convs))),
    Mistake("ChainList outside the scope", "A ChainList is a link, but it was assigned outside "
            "`init_scope`, so the Chain does not know it.", network_with(without_scope)),
    Mistake("nothing registered", "Now no layer at all is registered: the `with` line is missing.",
            network_with(in_a_plain_list, scope_for_rest=False)),
    Mistake("only the first", "Only the first convolution has got a name inside `init_scope`. The "
            "second is still known to the list alone.", network_with(only_the_first)),
    Mistake("names and a list", "The layers are registered under names of their own, and the list "
            "holds them a second time. A copy of the network has new layers, but its list holds "
            "the old ones: keep them in one place, a `chainer.ChainList`.",
            network_with(names_and_list)),
    Mistake("Sequential without relu", "A `chainer.Sequential` is called as a whole: the relu "
            "between the convolutions is lost. Loop over the links.",
            network_with(in_scope(lambda: chainer.Sequential(*convs())),
                         in_order=lambda self: [self.convs])),
    Mistake("one convolution only", "The second convolution is gone. With it went the bug, and "
            "most of the network.",
            network_with(in_scope(lambda: chainer.ChainList(L.Convolution2D(1, 12, 5, 6))))),
    Mistake("softmax at the end", "There is a softmax at the end now. The network gives scores, "
            "the loss takes the softmax.",
            network_with(in_scope(lambda: chainer.ChainList(*convs())),
                         end=lambda self, h: F.softmax(self.fc(self.bn(h))))),
    Mistake("backwards", "The convolutions are in the wrong order.",
            network_with(in_scope(lambda: chainer.ChainList(*convs())),
                         in_order=lambda self: list(self.convs)[::-1])),
    Mistake("no batch normalization", "The batch normalization is not called any more. Repair the "
            "cause, and leave the rest alone.",
            network_with(in_scope(lambda: chainer.ChainList(*convs())),
                         end=lambda self, h: self.fc(h))),
)
def network(answer):
    """Check `network`: give it your class, get a Report."""
    return [("attempted", lambda: attempted(answer)),
            ("a class", lambda: a_class(answer, chainer.Chain, "network")),
            *stages(lab, "network", answer, right_network, NETWORK)]


# ---- 2: loss_of ------------------------------------------------------------------------------

class Scores(chainer.Chain):
    """A model whose scores are given; its parameter is a factor of all of them."""

    def __init__(self, scores):
        super().__init__()
        self.scores, self.modes = np.float32(scores), []
        with self.init_scope():
            self.factor = chainer.Parameter(np.float32([[1]]))

    def forward(self, x):
        self.modes.append(bool(chainer.config.train))
        return F.broadcast_to(self.factor, self.scores.shape) * self.scores


SOME, SURE, WRONG = numbers((5, 4), 3), np.eye(4)[[0, 1, 2]] * 60, np.eye(4)[[1, 2, 3]] * 200


def right_loss_of(model, x, t):
    return F.softmax_cross_entropy(model(x), t)


right_loss_of.__name__ = "loss_of"


def losing(change):
    """A wrong answer: `change` gets the scores and the labels."""
    def loss_of(model, x, t):
        return change(model(x), t)
    return loss_of


def told_loss(loss_of, scores):
    model = Scores(scores)
    t = np.arange(len(scores), dtype=np.int32) % scores.shape[1]
    with np.errstate(all="ignore"):
        loss = loss_of(model, np.zeros((len(scores), 1), np.float32), t)
        if not isinstance(loss, chainer.Variable):
            return f"{describe(loss)}, not a Variable"
        model.cleargrads()
        F.sum(loss).backward()
    gradient = "no gradient" if model.factor.grad is None else \
        f"gradient {three(model.factor.grad.sum())}"
    return f"{few(loss)}, {gradient}" + ("" if loss.shape == () else f", shape {loss.shape}")


def loss_mode(loss_of):
    model = Scores(SOME)
    with chainer.using_config("train", True):
        loss_of(model, np.zeros((5, 1), np.float32), np.zeros(5, np.int32))
        return f"called {len(model.modes)} times, train mode: {model.modes}; " \
               f"afterwards {bool(chainer.config.train)}"


LOSS = (
    Trait("some scores", "The loss is not the cross-entropy of the scores.",
          lambda loss_of: told_loss(loss_of, SOME), call="loss_of(model, x, t), 4 classes",
          cause="`F.softmax_cross_entropy(model(x), t)`, and nothing else."),
    Trait("a sure network", "A network that is sure, and right, has a loss.",
          lambda loss_of: told_loss(loss_of, SURE), call="scores of 60 for the right class, else 0",
          cause="The loss of a right and certain answer is 0."),
    Trait("sure and wrong", "The loss does not bear large scores.",
          lambda loss_of: told_loss(loss_of, WRONG),
          call="scores of 200 for a wrong class, else 0",
          cause="`F.softmax_cross_entropy` does softmax and logarithm in one, and stays finite."),
    Trait("one call", "The model is not called once, in the mode of the caller.", loss_mode,
          call="loss_of(model, x, t)", cause="Call the model once, and leave the mode alone."),
)


def tempered(y, t):
    return F.softmax_cross_entropy(10 * F.softmax(y), t)


def less_the_floor(y, t):
    return F.softmax_cross_entropy(F.softmax(y), t) - float(np.log(1 + (y.shape[1] - 1) / np.e))


def in_test_mode(model, x, t):
    with chainer.using_config("train", False):
        return F.softmax_cross_entropy(model(x), t)


@lab.check(
    Mistake("softmax stays", "The softmax is taken twice still: the model's scores go into "
            "`F.softmax_cross_entropy` as they are.",
            losing(lambda y, t: F.softmax_cross_entropy(F.softmax(y), t))),
    Mistake("sigmoid instead", "With a sigmoid in place of the softmax the scores still lie "
            "between 0 and 1, and the loss has the same floor.",
            losing(lambda y, t: F.softmax_cross_entropy(F.sigmoid(y), t))),
    Mistake("stretched", "Stretching the probabilities lowers the floor and leaves it there. Take "
            "the softmax away.", losing(tempered)),
    Mistake("less the floor", "Subtracting 1.46 changes what is printed, and not one gradient. The "
            "network learns as badly as before.", losing(less_the_floor)),
    Mistake("logarithm by hand", "This is the right number until a probability becomes 0: then its "
            "logarithm is infinite. `F.softmax_cross_entropy` does both steps in one.",
            losing(lambda y, t: -F.mean(F.log(F.select_item(F.softmax(y), t))))),
    Mistake("no logarithm", "The cross-entropy is minus the *logarithm* of the right class's "
            "probability. Without it, sure and wrong answers have hardly a gradient.",
            losing(lambda y, t: -F.mean(F.select_item(F.softmax(y), t)))),
    Mistake("squared error", "This is the mean squared error of the probabilities, another loss. "
            "Remove the bug, not the loss.",
            losing(lambda y, t: F.mean_squared_error(
                F.softmax(y), np.eye(y.shape[1], dtype=y.dtype)[t]))),
    Mistake("an array", "This is an array: without the graph, `backward` has nowhere to go. Return "
            "the Variable.", losing(lambda y, t: F.softmax_cross_entropy(y, t).array)),
    Mistake("one loss for each image", "There is one loss for each image. `backward` starts from a "
            "single number, the mean, which is the default.",
            losing(lambda y, t: F.softmax_cross_entropy(y, t, reduce="no"))),
    Mistake("sum", "This is the sum over the images: it grows with the minibatch, and so do the "
            "gradients. The mean is the default.",
            losing(lambda y, t: F.sum(F.softmax_cross_entropy(y, t, reduce="no")))),
    Mistake("test mode", "The loss is computed in test mode: batch normalization and dropout do "
            "not train. The loss does not set the mode.", in_test_mode),
)
def loss_of(answer):
    """Check `loss_of`: give it your function, get a Report."""
    return [("attempted", lambda: attempted(answer)),
            ("signature", lambda: signature(answer, right_loss_of)),
            *stages(lab, "loss_of", answer, right_loss_of, LOSS)]


# ---- 3: shuffled -----------------------------------------------------------------------------

N = 40
IMAGES = np.arange(N * 4, dtype=np.float32).reshape(N, 1, 2, 2)   # image i holds 4i ... 4i + 3
LABELS = np.arange(N, dtype=np.int32) * 7 % N                     # each number once


def right_shuffled(x, t, seed):
    i = np.random.RandomState(seed).permutation(len(x))
    return x[i], t[i]


right_shuffled.__name__ = "shuffled"


def ordered(i, j=None):
    """A wrong answer: orders of images and of labels, from a generator and a length."""
    def shuffled(x, t, seed):
        generator = np.random.RandomState(seed)
        first = i(generator, len(x))
        return x[first], t[first if j is None else j(generator, len(x))]
    return shuffled


def permuted(generator, n):
    return generator.permutation(n)


def drawn(shuffled, seed=0):
    x, t = IMAGES.copy(), LABELS.copy()
    result = shuffled(x, t, seed)
    if result is None or result is ... or len(result) != 2:
        raise Finding("The result is not a pair of images and labels.", got=describe(result),
                      call="shuffled(x, t, 0)", cause="`return x[i], t[i]`")
    return np.asarray(result[0]), np.asarray(result[1]), x, t


def shuffled_shapes(shuffled):
    x, t, _, _ = drawn(shuffled)
    return f"images {x.shape} {x.dtype}, labels {t.shape} {t.dtype}"


def shuffled_all(shuffled):
    x, t, _, _ = drawn(shuffled)
    missing = N - len({*x[:, 0, 0, 0].tolist()}), N - len({*t.tolist()})
    torn = int((x.reshape(N, 4) != x.reshape(N, 4)[:, :1] + np.arange(4)).any(axis=1).sum())
    return f"missing: {missing[0]} images, {missing[1]} labels; images torn apart: {torn}"


def numbers_of(x):
    return (x[:, 0, 0, 0] / 4).astype(int)


def shuffled_pairs(shuffled):
    x, t, _, _ = drawn(shuffled)
    wrong = int((LABELS[numbers_of(x)] != t).sum())
    kind = ("none" if not wrong else "nearly all" if wrong > 0.8 * N else "some")
    return f"images with another one's label: {kind}"


def shuffled_order(shuffled):
    orders = [drawn(shuffled, seed)[1].tolist() for seed in (0, 0, 1)]
    known = {tuple(LABELS.tolist()): "the old order", tuple(range(N)): "sorted by label"}
    return (f"seed 0: {known.get(tuple(orders[0]), 'a new order')}; "
            f"again: {'the same' if orders[0] == orders[1] else 'another one'}; "
            f"seed 1: {'the same' if orders[0] == orders[2] else 'another one'}")


def shuffled_neighbours(shuffled):
    kept = int((abs(np.diff(numbers_of(drawn(shuffled)[0]))) == 1).sum())
    return "neighbours stay together" if kept > N // 2 else "neighbours are parted"


def shuffled_untouched(shuffled):
    _, _, x, t = drawn(shuffled)
    changed = [name for name, a, b in (("x", x, IMAGES), ("t", t, LABELS)) if (a != b).any()]
    return f"changed: {', '.join(changed) or 'nothing'}"


CALL = "shuffled(x, t, 0) with 40 images, each with a label of its own"
SHUFFLED = (
    Trait("arrays", "These are not the images and labels.", shuffled_shapes, call=CALL,
          cause="`return x[i], t[i]`: shapes and dtypes stay."),
    Trait("all of them", "Not every image and label is there once.", shuffled_all, call=CALL,
          cause="`permutation(len(x))` holds each number from 0 to len(x) - 1 once."),
    Trait("the arguments", "The arguments have changed.", shuffled_untouched, call=CALL,
          cause="`x[i]` makes a new array; `shuffle` works in place."),
    Trait("pairs", "Images have lost their labels.", shuffled_pairs, call=CALL,
          cause="One permutation for both: `x[i], t[i]`."),
    Trait("the order", "The order is not as asked for.", shuffled_order,
          call="shuffled(x, t, 0) twice, then shuffled(x, t, 1)",
          cause="`np.random.RandomState(seed).permutation(len(x))`."),
    Trait("neighbours", "The order is hardly random.", shuffled_neighbours, call=CALL,
          cause="A permutation, not a rotation or a reversal."),
)


def in_place(x, t, seed):
    i = np.random.RandomState(seed).permutation(len(x))
    x[...], t[...] = x[i], t[i]
    return x, t


def without_seed(x, t, seed):
    i = np.random.permutation(len(x))
    return x[i], t[i]


def one_seed(x, t, seed):
    return right_shuffled(x, t, 5)


def pixels_too(x, t, seed):
    generator = np.random.RandomState(seed)
    i = generator.permutation(len(x))
    flat = x[i].reshape(len(x), -1)
    return flat[:, generator.permutation(flat.shape[1])].reshape(x.shape), t[i]


def sorted_by_label(x, t, seed):
    i = np.argsort(t)
    return x[i], t[i]


def rotated(x, t, seed):
    start = int(np.random.RandomState(seed).randint(1, len(x)))
    return np.roll(x, start, axis=0), np.roll(t, start)


@lab.check(
    Mistake("two permutations", "`permutation` is called twice, and gives two orders: images and "
            "labels part. Draw one, and use it for both.", ordered(permuted, permuted)),
    Mistake("images only", "Only the images are shuffled; the labels stay where they were.",
            ordered(permuted, lambda generator, n: np.arange(n))),
    Mistake("not shuffled", "Now nothing is shuffled. The labels are back, but each minibatch is "
            "the same in every epoch.", ordered(lambda generator, n: np.arange(n))),
    Mistake("sorted", "Sorting keeps the pairs, but it is no shuffling: a minibatch would hold one "
            "class only.", sorted_by_label),
    Mistake("drawn with replacement", "`randint` and `choice` draw some images twice and others "
            "never. `permutation` holds each once.",
            ordered(lambda generator, n: generator.randint(0, n, n))),
    Mistake("in place", "The arrays that were handed over are shuffled themselves. Whoever gave "
            "them still needs them: `x[i]` makes new ones.", in_place),
    Mistake("without the seed", "The order comes from the global generator, whatever the seed: no "
            "run can be repeated. `np.random.RandomState(seed)`.", without_seed),
    Mistake("a constant seed", "The seed is written into the code: every epoch has the same order. "
            "Use the argument.", one_seed),
    Mistake("pixels as well", "The pixels are shuffled as well. Only axis 0 is: which image comes "
            "when.", pixels_too),
    Mistake("rotated", "The images are only moved round: each has the neighbours that it had. "
            "`permutation` parts them.", rotated),
)
def shuffled(answer):
    """Check `shuffled`: give it your function, get a Report."""
    return [("attempted", lambda: attempted(answer)),
            ("signature", lambda: signature(answer, right_shuffled)),
            *stages(lab, "shuffled", answer, right_shuffled, SHUFFLED)]


# ---- 4: accuracy -----------------------------------------------------------------------------

COUNT, BATCH = 10, 4
TEST = numbers((COUNT, 1, 4, 4), 7)
# One class holds six of the ten: whoever averages over minibatches or counts wrongly is off.
TRUE = np.int32([0, 1, 2, 0, 0, 1, 0, 0, 2, 0])


class Asked(chainer.Chain):
    """A small network with batch normalization; remembers how it was called."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.bn, self.fc = L.BatchNormalization(1), L.Linear(16, 3)
        for seed, (_, param) in enumerate(sorted(self.namedparams())):
            param.array[...] = numbers(param.shape, seed)
        self.bn.avg_mean[...], self.bn.avg_var[...] = 0.7, 2.0
        self.calls = []

    def forward(self, x):
        self.calls.append((len(x), bool(chainer.config.train), chainer.config.enable_backprop))
        return self.fc(self.bn(x))


def right_accuracy(model, x, t, batch):
    return asking()(model, x, t, batch)


right_accuracy.__name__ = "accuracy"


def asking(train=False, graph=False, starts=lambda n, batch: range(0, n, batch),
           step=lambda batch: batch, end=lambda right, n: right / n):
    """The right answer, or a wrong one: another mode, other minibatches, another end."""
    def accuracy(model, x, t, batch):
        right = 0
        with chainer.using_config("train", train), \
                chainer.using_config("enable_backprop", graph):
            for i in starts(len(x), batch):
                y = model(x[i:i + step(batch)]).array
                right += int((y.argmax(axis=1) == t[i:i + step(batch)]).sum())
        return end(right, len(x))
    return accuracy


def asked(accuracy):
    model = Asked()
    with chainer.using_config("train", True):
        got = accuracy(model, TEST, TRUE, BATCH)
        return model, got, bool(chainer.config.train)


def accuracy_modes(accuracy):
    model, _, _ = asked(accuracy)
    modes = {mode for _, mode, _ in model.calls}
    return {frozenset({False}): "test mode", frozenset({True}): "train mode",
            frozenset(): "never called"}.get(frozenset(modes), "both modes")


def accuracy_averages(accuracy):
    model, _, _ = asked(accuracy)
    moved = not same(model.bn.avg_mean, Asked().bn.avg_mean)
    return "the averages have moved" if moved else "the averages are as before"


def accuracy_sizes(accuracy):
    return " + ".join(str(size) for size, *_ in asked(accuracy)[0].calls) or "none"


def accuracy_value(accuracy):
    got = asked(accuracy)[1]
    kind = "" if isinstance(got, float) else f", {type(got).__name__}"
    return f"{float(chainer.as_array(got)):.3f}{kind}"


def accuracy_after(accuracy):
    return f"config.train is {asked(accuracy)[2]}"


def accuracy_graph(accuracy):
    calls = asked(accuracy)[0].calls
    return "graphs are built" if any(graph for *_, graph in calls) else "no graph is built"


ASK = f"accuracy(model, x, t, {BATCH}) with {COUNT} images, in train mode"
ACCURACY = (
    Trait("test mode", "The network is not asked in test mode.", accuracy_modes, call=ASK,
          cause="`with chainer.using_config('train', False):` around the loop."),
    Trait("the model", "The model has changed.", accuracy_averages, call=ASK,
          cause="In test mode nothing moves."),
    Trait("minibatches", "The minibatches are not those asked for.", accuracy_sizes, call=ASK,
          cause="`for i in range(0, len(x), batch)`; the last one is smaller."),
    Trait("the share", "The share is another one.", accuracy_value, call=ASK,
          cause="Count the right answers over all minibatches, and divide once by `len(x)`."),
    Trait("the mode afterwards", "The mode is another one after the call.", accuracy_after,
          call=ASK, cause="`using_config` puts the mode back."),
    Trait("no graph", "A graph is built that nobody goes back through.", accuracy_graph, call=ASK,
          cause="`chainer.no_backprop_mode()`."),
)


def left_in_test_mode(model, x, t, batch):
    chainer.config.train = False
    with chainer.no_backprop_mode():
        return right_accuracy(model, x, t, batch)


def set_back_to_test(model, x, t, batch):
    share = asking(train=True)(model, x, t, batch)
    model.bn.avg_mean[...], model.bn.avg_var[...] = Asked().bn.avg_mean, Asked().bn.avg_var
    return share


def mean_of_means(model, x, t, batch):
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        shares = [(model(x[i:i + batch]).array.argmax(axis=1) == t[i:i + batch]).mean()
                  for i in range(0, len(x), batch)]
    return float(np.mean(shares))


@lab.check(
    Mistake("train mode", "The network is asked in train mode: each answer depends on the "
            "minibatch, and the averages move. `with chainer.using_config('train', False):`.",
            asking(train=True, graph=True)),
    Mistake("no graph, and train mode", "`no_backprop_mode` only leaves out the graph. The mode is "
            "another switch: `chainer.using_config('train', False)`.", asking(train=True)),
    Mistake("averages put back", "The averages are put back by hand, but each answer was still "
            "made with those of its minibatch. Test mode does both.", set_back_to_test),
    Mistake("left in test mode", "`chainer.config.train = False` stays set, and training goes on "
            "without batch statistics. `with chainer.using_config('train', False):` puts it back.",
            left_in_test_mode),
    Mistake("graph kept", "Every call builds a graph, which takes memory: "
            "`chainer.no_backprop_mode()`.", asking(graph=True)),
    Mistake("all at once", "All images went in at once. That hides how the answers depend on the "
            "minibatch, and large images do not fit: `batch` at a time, in test mode.",
            asking(starts=lambda n, batch: [0], step=lambda batch: COUNT)),
    Mistake("one by one", "The images went in one by one: slow, and no cure. `batch` at a time.",
            asking(starts=lambda n, batch: range(n), step=lambda batch: 1)),
    Mistake("last minibatch lost", "The last, smaller minibatch is missing: 10 images are 4 + 4 + "
            "2.", asking(starts=lambda n, batch: range(0, n - batch + 1, batch))),
    Mistake("mean of means", "The mean of the minibatches' shares counts the images of the "
            "smaller, last one more. Count, and divide once by `len(x)`.", mean_of_means),
    Mistake("a number of images", "This is the number of right answers, not their share: divide by "
            "`len(x)`.", asking(end=lambda right, n: right)),
    Mistake("per cent", "This is per cent. The share lies between 0 and 1.",
            asking(end=lambda right, n: 100 * right / n)),
)
def accuracy(answer):
    """Check `accuracy`: give it your function, get a Report."""
    return [("attempted", lambda: attempted(answer)),
            ("a function", lambda: a_function(answer, "accuracy")),
            ("signature", lambda: signature(answer, right_accuracy)),
            *stages(lab, "accuracy", answer, right_accuracy, ACCURACY)]


# ---- 5: leaky --------------------------------------------------------------------------------

VALUES = np.float32([[-2, -0.5, 1], [3, -1, 0.25]])
GRADS = np.float32([[1, 2, 3], [4, 5, 6]])


def leaky_with(factor, forward=lambda x, slope: np.where(x > 0, x, x.dtype.type(slope) * x),
               use_grad=True):
    """The right answer, or a wrong one: another factor in backward, another forward."""
    class Leaky(chainer.FunctionNode):
        def __init__(self, slope):
            self.slope = slope

        def forward(self, inputs):
            x, = inputs
            self.retain_inputs((0,))
            return forward(x, self.slope),

        def backward(self, indexes, grad_outputs):
            x, = self.get_retained_inputs()
            f = np.asarray(factor(x.array, self.slope)).astype(x.dtype)
            gx = grad_outputs[0] * f if use_grad else chainer.Variable(f)
            return gx,
    return Leaky


right_leaky = leaky_with(lambda x, slope: np.where(x > 0, 1, slope))


def in_place_forward(x, slope):
    x[x < 0] *= x.dtype.type(slope)
    return x.copy()


def apply(build, x, slope):
    return build(slope).apply((x,))[0]


def leaky_forward(build):
    y = apply(build, VALUES.copy(), 0.2)
    other = apply(build, VALUES.astype(np.float64), 0.5)
    return f"{np.array2string(y.array, precision=3)} {y.dtype}; in float64: {other.dtype}"


def leaky_untouched(build):
    x = VALUES.copy()
    apply(build, x, 0.2)
    return "x is as before" if (x == VALUES).all() else f"x is {x.tolist()}"


def gradient(build, slope, grad):
    x = chainer.Variable(VALUES.copy())
    y = apply(build, x, slope)
    y.grad = grad.copy()
    y.backward()
    if x.grad is None:
        return "none"
    return f"{np.array2string(x.grad, precision=3)} {x.grad.dtype}"


def leaky_by_differences(build):
    numbers = np.random.RandomState(3)
    x = numbers.normal(0, 1, 20)
    x[abs(x) < 0.05] = 0.3
    grad = numbers.normal(0, 1, 20)
    v = chainer.Variable(x)
    y = apply(build, v, 0.35)
    y.grad = grad
    y.backward()
    step = 1e-6
    right = [np.dot(apply(build, x + step * e, 0.35).array - apply(build, x - step * e, 0.35).array,
                    grad) / (2 * step) for e in np.eye(20)]
    wrong = int((~np.isclose(v.grad, right, atol=1e-4)).sum())
    return f"{wrong} of 20 gradients differ"


HAND = ("the derivative of x is 1, that of 0.2 · x is 0.2\n"
        "x = -2: 0.2, x = -0.5: 0.2, x = 1: 1, x = 3: 1, x = -1: 0.2, x = 0.25: 1")
LEAKY = (
    Trait("forward", "The outputs are other ones.", leaky_forward, call="Leaky(0.2).apply((x,))",
          cause="Forward was right: `np.where(x > 0, x, x.dtype.type(self.slope) * x)`."),
    Trait("the input", "The input has changed.", leaky_untouched, call="Leaky(0.2).apply((x,))",
          cause="Make a new array: other functions have kept x for their own backward pass."),
    Trait("a gradient by hand", "The gradient is another one.",
          lambda build: gradient(build, 0.2, np.ones_like(VALUES)), by_hand=HAND,
          call="y.grad = 1 everywhere, then y.backward(), x = [[-2, -0.5, 1], [3, -1, 0.25]]",
          cause="The incoming gradient, times 1 where x is positive, times the slope elsewhere."),
    Trait("what comes in", "The gradient that comes in is not used as it should.",
          lambda build: gradient(build, 0.2, GRADS),
          call="y.grad = [[1, 2, 3], [4, 5, 6]], then y.backward()",
          cause="The chain rule: `grad_outputs[0]` times the derivative."),
    Trait("another slope", "With another slope the gradient is wrong.",
          lambda build: gradient(build, 0.5, GRADS), call="Leaky(0.5)",
          cause="Use `self.slope`."),
    Trait("differences", "The gradient is not the slope of what forward computes.",
          leaky_by_differences, call="twenty numbers, float64, slope 0.35",
          cause="Compare with `chainer.gradient_check.check_backward`."),
)


@lab.check(
    Mistake("slope forgotten", "Where x is negative nothing goes back: that is the derivative of a "
            "plain ReLU. Here it is the slope.", leaky_with(lambda x, slope: x > 0)),
    Mistake("no factor", "The incoming gradient is handed on as it is, for negative x, too.",
            leaky_with(lambda x, slope: np.ones_like(x))),
    Mistake("wrong sign", "Where x is negative the gradient has the wrong sign: the derivative of "
            "slope · x is the slope, also left of 0.",
            leaky_with(lambda x, slope: np.where(x > 0, 1, -slope))),
    Mistake("the other way round", "The two cases are swapped: the slope belongs where x is "
            "negative.", leaky_with(lambda x, slope: np.where(x > 0, slope, 1))),
    Mistake("slope times x", "The derivative of slope · x is the slope alone, without x.",
            leaky_with(lambda x, slope: np.where(x > 0, 1, slope * x))),
    Mistake("the outputs", "These are the outputs of forward times the gradient. The derivative is "
            "wanted: 1, or the slope.",
            leaky_with(lambda x, slope: np.where(x > 0, x, slope * x))),
    Mistake("slope everywhere", "The slope is everywhere now, also where x is positive.",
            leaky_with(lambda x, slope: np.full_like(x, slope))),
    Mistake("a constant slope", "The slope 0.2 is written into the code: `self.slope`.",
            leaky_with(lambda x, slope: np.where(x > 0, 1, 0.2))),
    Mistake("nothing comes in", "The incoming gradient is not used: this is the derivative alone. "
            "The chain rule multiplies both.",
            leaky_with(lambda x, slope: np.where(x > 0, 1, slope), use_grad=False)),
    Mistake("the gradient's sign", "The derivative depends on the sign of x. This asks nothing of "
            "x: the slope is divided by two everywhere.",
            leaky_with(lambda x, slope: np.full_like(x, (1 + slope) / 2))),
    Mistake("in place", "Forward now changes its input in place. Whatever was computed from x "
            "before and keeps it for its own backward pass gets wrong numbers, without an error.",
            leaky_with(lambda x, slope: np.where(x > 0, 1, slope), forward=in_place_forward)),
    Mistake("a plain ReLU", "Backward and forward agree now, since forward has become a plain "
            "ReLU. Forward was right: repair backward.",
            leaky_with(lambda x, slope: x > 0, forward=lambda x, slope: np.maximum(x, 0))),
    Mistake("float64", "Forward gives float64 for float32: the next layer will refuse it. A Python "
            "float times a float32 array is float32, a float64 array is not: "
            "`x.dtype.type(self.slope)`.",
            leaky_with(lambda x, slope: np.where(x > 0, 1, slope),
                       forward=lambda x, slope: x * np.where(x > 0, 1.0, slope))),
)
def leaky(answer):
    """Check `leaky`: give it your class, get a Report."""
    return [("attempted", lambda: attempted(answer)),
            ("a class", lambda: a_class(answer, chainer.FunctionNode, "leaky")),
            *stages(lab, "leaky", answer, right_leaky, LEAKY)]
