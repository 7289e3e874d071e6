"""Checks of lab 3, the phantom gap: what the double softmax shows, hides and how it is mended."""

import functools
import math

from convnets.check import (
    Case,
    Finding,
    Function,
    Lab,
    Mistake,
    NotAttempted,
    call,
    describe,
    given,
    is_blank,
    name_shape,
    raised,
    same,
    show,
)
from convnets.models import LeNet5

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np

lab = Lab(__file__, around=lambda: chainer.using_config("train", True))
hint, solution, solved = lab.hint, lab.solution, lab.solved

IMAGES = np.random.RandomState(0).uniform(0, 1, (6, 1, 28, 28)).astype(np.float32)
LABELS = np.array([3, 1, 4, 1, 5, 9], np.int32)


class WithDropout(chainer.Chain):
    """A network that is another one in train mode, as many are: half its inputs are dropped."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.fc = L.Linear(784, 10)

    def logits(self, x):
        return self.fc(F.dropout(F.reshape(x, (len(x), -1)), 0.5))

    def forward(self, x):
        y = self.logits(x)
        return y if chainer.config.train else F.softmax(y)


def filled(model):
    """The model with fixed parameters, large enough that it is sure of something."""
    numbers = np.random.RandomState(1)
    for _, param in sorted(model.namedparams()):
        scale = 2 / np.sqrt(param.size / len(param)) if param.ndim > 1 else 0.5
        param.array[...] = numbers.normal(0, scale, param.shape)
    return model


def fixed_models():
    return filled(LeNet5()), filled(WithDropout())


def mode(train):
    return chainer.using_config("train", train)


def cross_entropy(y, t):
    return float(F.softmax_cross_entropy(y, t).array)


# ---- 1: two_losses -------------------------------------------------------------------------

def right_two_losses(model, x, t):
    with mode(False):
        return cross_entropy(model(x), t), cross_entropy(model.logits(x), t)


right_two_losses.__name__ = "two_losses"


def losses_by_hand(a, index):
    model, x, t = a["model"], a["x"], a["t"]
    with mode(False):
        values = model(x).array if index == (0,) else model.logits(x).array
    name = "probabilities" if index == (0,) else "logits"
    row = values[0]
    top = math.log(np.exp(row.astype(float)).sum())
    return (f"first image, label {t[0]}, {name} {show(row)}:\n"
            f"ln(sum of exp) - {row[t[0]]:.4f} = {top:.4f} - {row[t[0]]:.4f} = "
            f"{top - row[t[0]]:.4f}; then the mean over the images")


def mode_kept(answer):
    """The mode must be the one before."""
    with mode(True):
        answer(filled(LeNet5()), IMAGES, LABELS)
        after = chainer.config.train
    if not after:
        raise Finding("After the call Chainer is still in test mode.",
                      expected="chainer.config.train True, as before", got="False",
                      cause="`with chainer.using_config('train', False):` puts the mode back; an "
                            "assignment to `chainer.config.train` does not.")


def by_train_mode(model, x, t):
    with mode(False):
        shown = cross_entropy(model(x), t)
    np.random.seed(0)
    with mode(True):
        return shown, cross_entropy(model(x), t)


def in_train_mode(model, x, t):
    return cross_entropy(model(x), t), cross_entropy(model(x), t)


def swapped(model, x, t):
    return right_two_losses(model, x, t)[::-1]


def shown_twice(model, x, t):
    return (right_two_losses(model, x, t)[0],) * 2


def true_twice(model, x, t):
    return (right_two_losses(model, x, t)[1],) * 2


def softmax_of_logits(model, x, t):
    with mode(False):
        return cross_entropy(F.softmax(model(x)), t), cross_entropy(F.softmax(model.logits(x)), t)


def summed(model, x, t):
    return tuple(len(t) * loss for loss in right_two_losses(model, x, t))


def accuracy_instead(model, x, t):
    with mode(False):
        return right_two_losses(model, x, t)[0], float(F.accuracy(model(x), t).array)


two_losses = lab.function(Function(
    reference=right_two_losses,
    axes={"x": "N C H W", "t": "N", "return": "shown true"},
    cases=(given(model=fixed_models()[0], x=IMAGES, t=LABELS),
           given(model=fixed_models()[0], x=IMAGES[:2], t=LABELS[2:4]),
           given(model=fixed_models()[1], x=IMAGES, t=LABELS)),
    by_hand=losses_by_hand,
    hand_title="six images",
    properties=(("the mode afterwards", mode_kept),),
    mistakes=(
        Mistake("stayed in train mode", "Both were measured in train mode, where the network "
                "returns logits and all is well. The evaluation runs in test mode: `with "
                "chainer.using_config('train', False):`.", in_train_mode),
        Mistake("swapped", "The two losses are in the wrong order: first the one that is shown.",
                swapped),
        Mistake("shown twice", "The second is the shown loss again: in test mode `model(x)` gives "
                "probabilities. `model.logits(x)` gives logits in both modes.", shown_twice),
        Mistake("true twice", "The first is the true loss too. What the evaluation shows is the "
                "cross-entropy of `model(x)` in test mode, softmax or not.", true_twice),
        Mistake("a softmax too many", "There is a softmax too many: `F.softmax_cross_entropy` "
                "applies one itself.", softmax_of_logits),
        Mistake("logits by train mode", "The logits were taken in train mode. LeNet5 does not "
                "mind, but a network with dropout is another one there: use `model.logits(x)` in "
                "test mode.", by_train_mode),
        Mistake("summed", "These are sums over the images: a loss is their mean, so that it does "
                "not depend on the size of the minibatch.", summed),
        Mistake("accuracy instead", "The second number is the accuracy, the share of right "
                "answers. A loss has no ceiling of 1 and gets smaller as the network gets "
                "better.", accuracy_instead),
    ),
))


# ---- 2: bounds -----------------------------------------------------------------------------

def right_bounds(k):
    highest = math.log(math.e + k - 1)
    return highest - 1, highest


right_bounds.__name__ = "bounds"


def bounds_by_hand(a, index):
    k = a["k"]
    total = math.e + k - 1
    right = "1 at the right class" if index == (0,) else "0 at the right class"
    part = "1" if index == (0,) else "0"
    return (f"p has a single 1, and {right}: -ln(e^{part} / (e + {k - 1})) = "
            f"ln({total:.4f}) - {part} = {math.log(total) - int(part):.4f}")


def hold_in_chainer(bounds):
    """Chainer's own losses of many probability vectors lie between the bounds, and reach them."""
    numbers = np.random.RandomState(0)
    for k in (3, 10, 40):
        low, high = bounds(k)
        p = np.concatenate([np.eye(k), numbers.dirichlet(np.full(k, 0.1), 500)]).astype(np.float32)
        t = np.concatenate([[0], numbers.randint(0, k, len(p) - 1)]).astype(np.int32)
        losses = F.softmax_cross_entropy(p, t, reduce="no").array
        if losses.min() < low - 1e-4 or losses.max() > high + 1e-4 or losses[0] > low + 1e-4:
            raise Finding(f"Chainer's losses of probabilities over {k} classes lie elsewhere.",
                          call=f"bounds({k})", got=f"{low:.4f} to {high:.4f}",
                          expected=f"{losses.min():.4f} to {losses.max():.4f} occur")


bounds = lab.function(Function(
    reference=right_bounds,
    axes={"return": "lowest highest"},
    cases=(given(k=10), given(k=2), given(k=100), given(k=1000)),
    by_hand=bounds_by_hand,
    hand_title="10 classes by hand",
    properties=(("Chainer's losses keep to them", hold_in_chainer),),
    mistakes=(
        Mistake("K for K - 1", "One of the K classes has the 1, so only K - 1 have a 0, and "
                "e^0 = 1 each: the sum is e + K - 1.",
                lambda k: (math.log(math.e + k) - 1, math.log(math.e + k))),
        Mistake("zeros forgotten", "The zeros count too: each gives e^0 = 1. With K - 1 of them "
                "the sum is e + K - 1.", lambda k: (0.0, 1.0)),
        Mistake("swapped", "The lowest comes first: the loss is lowest when the 1 is at the right "
                "class.", lambda k: right_bounds(k)[::-1]),
        Mistake("lowest 0", "0 would be the loss of a network that is right and sure, if its "
                "logits were used. A probability is at most 1, and softmax of it leaves much for "
                "the other classes.", lambda k: (0.0, right_bounds(k)[1])),
        Mistake("highest ln K", "ln K is the loss of a network that knows nothing. One that is "
                "sure and wrong, with the 1 at a wrong class, does worse.",
                lambda k: (right_bounds(k)[0], math.log(k))),
        Mistake("both the same", "In the lowest case the right class has the 1, so e^1 stands "
                "above the line: ln(e + K - 1) - 1.", lambda k: (right_bounds(k)[1],) * 2),
        Mistake("logarithm to base 10", "`log10` is another logarithm: cross-entropy uses the "
                "natural one, `math.log`.",
                lambda k: (math.log10(math.e + k - 1) - math.log10(math.e),
                           math.log10(math.e + k - 1))),
        Mistake("logarithm to base 2", "`log2` is another logarithm: cross-entropy uses the "
                "natural one, `math.log`.",
                lambda k: (math.log2(math.e + k - 1) - math.log2(math.e),
                           math.log2(math.e + k - 1))),
        Mistake("probabilities, not losses", "These are the probabilities that the second softmax "
                "gives to the right class. The loss is minus their logarithm, and the largest "
                "probability gives the lowest loss.",
                lambda k: (1 / (math.e + k - 1), math.e / (math.e + k - 1))),
    ),
))


# ---- 3: true_loss --------------------------------------------------------------------------

def right_true_loss(p, t):
    return float(-np.log(p[np.arange(len(t)), t]).mean())


right_true_loss.__name__ = "true_loss"


def true_loss_by_hand(a, _index):
    p, t = a["p"], a["t"]
    picked = p[np.arange(len(t)), t]
    terms = " + ".join(f"ln {v:g}" for v in picked)
    return f"-({terms}) / {len(t)} = {right_true_loss(p, t):.4f}"


def rows(n, k, seed):
    numbers = np.random.RandomState(seed)
    return given(p=numbers.dirichlet(np.full(k, 0.5), n).astype(np.float32) * 0.98
                 + np.float32(0.02 / k),
                 t=numbers.randint(0, k, n).astype(np.int32))


def undoes_softmax(true_loss):
    y = np.random.RandomState(5).normal(0, 3, (8, 10)).astype(np.float32)
    t = np.arange(8, dtype=np.int32)
    got, right = true_loss(F.softmax(y).array, t), cross_entropy(y, t)
    if not same(got, right):
        raise Finding("From the probabilities of logits y comes another loss than from y itself.",
                      call="true_loss(softmax(y), t) against F.softmax_cross_entropy(y, t)",
                      expected=f"{right:.4f}", got=f"{got:.4f}")


true_loss = lab.function(Function(
    reference=right_true_loss,
    axes={"p": "N K", "t": "N"},
    cases=(given(p=np.float32([[0.5, 0.25, 0.25], [0.125, 0.75, 0.125]]),
                 t=np.array([0, 2], np.int32)),
           rows(5, 10, 0), rows(4, 3, 1), rows(1, 10, 2)),
    by_hand=true_loss_by_hand,
    hand_title="two rows by hand",
    properties=(("undoes the softmax", undoes_softmax),),
    mistakes=(
        Mistake("sign", "The sign: the logarithm of a probability is below 0, and the loss is "
                "minus that.", lambda p, t: -right_true_loss(p, t)),
        Mistake("summed", "This is the sum over the examples: take the mean.",
                lambda p, t: len(t) * right_true_loss(p, t)),
        Mistake("mean over all classes", "This is the mean over all classes. Only the probability "
                "of the right class counts: `p[np.arange(N), t]`.",
                lambda p, t: float(-np.log(p).mean())),
        Mistake("every row with every label", "`p[:, t]` has the shape (N, N): every row with "
                "every label. Row i belongs to label i: `p[np.arange(N), t]`.",
                lambda p, t: float(-np.log(p[:, t]).mean())),
        Mistake("largest probability", "This takes the largest probability of each row, right or "
                "not. The loss asks for that of the label, `t`.",
                lambda p, t: float(-np.log(p.max(axis=1)).mean())),
        Mistake("a softmax too many", "Here is the phantom again: p are probabilities already, so "
                "no softmax. Only take the logarithm.",
                lambda p, t: cross_entropy(p, t)),
        Mistake("logarithm of the mean", "This is the logarithm of the mean probability. First "
                "the logarithm of each, then the mean.",
                lambda p, t: float(-np.log(p[np.arange(len(t)), t].mean()))),
        Mistake("logarithm to base 10", "`log10` is another logarithm: the loss uses the natural "
                "one, `np.log`.",
                lambda p, t: float(-np.log10(p[np.arange(len(t)), t]).mean())),
        Mistake("no logarithm", "This is one minus the mean probability. The loss is the mean of "
                "minus the logarithms.",
                lambda p, t: float(1 - p[np.arange(len(t)), t].mean())),
    ),
))


# ---- 4: HonestClassifier -------------------------------------------------------------------

class Right(chainer.Chain):
    """A right answer; wrong ones change `loss_of` or `told`."""

    def __init__(self, predictor):
        super().__init__()
        with self.init_scope():
            self.predictor = predictor

    def loss_of(self, x, t):
        return F.softmax_cross_entropy(self.predictor.logits(x), t)

    def told(self, x, t, loss):
        return {"loss": loss, "accuracy": F.accuracy(self.predictor.logits(x), t)}

    def forward(self, x, t):
        loss = self.loss_of(x, t)
        chainer.report(self.told(x, t, loss), self)
        return loss


def changed(**methods):
    """A wrong answer: `Right` with other methods."""
    return type("HonestClassifier", (Right,), methods)


def unregistered(self, predictor):
    chainer.Chain.__init__(self)
    self.predictor = predictor


def loss_in_train_mode(self, x, t):
    with mode(True):
        return F.softmax_cross_entropy(self.predictor(x), t)


def silent(self, x, t):
    return self.loss_of(x, t)


def plain_number(self, x, t):
    loss = self.loss_of(x, t)
    chainer.report(self.told(x, t, loss), self)
    return float(loss.array)


def without_predictor(network):
    """Whether the class keeps its predictor, but not as a child."""
    return not any(link.name == "predictor" for link in network(LeNet5()).children())


def measure(network, model, train):
    """Loss and reports of one call: a dict, or the text of the exception."""
    np.random.seed(0)   # the same units are dropped each time
    classifier = network(model)
    reporter, box = chainer.Reporter(), {}
    reporter.add_observer("main", classifier)
    try:
        with mode(train), reporter.scope(box):
            loss = classifier(IMAGES, LABELS)
    except Exception as error:
        return {"raises": f"{type(error).__name__}: {error}"}
    numbers = {name: float(chainer.as_array(value)) for name, value in box.items()}
    return {"returns": type(loss).__name__,
            "loss": None if loss is None else float(chainer.as_array(loss)), **numbers}


def alike(a, b):
    return a.keys() == b.keys() and all(
        a[key] == b[key] or (isinstance(a[key], float) and isinstance(b[key], float)
                             and same(a[key], b[key])) for key in a)


DROPPED = "LeNet5's loss is right and this network's is not: it has dropout, which must be off " \
          "in test mode. Use `self.predictor.logits(x)` and leave the mode alone."

# LeNet5 in both modes. The other only in test mode: in train mode what it drops is random.
TRIED = ((LeNet5, True), (LeNet5, False), (WithDropout, False))


def everything(network):
    """All that the check measures of a class, to compare two classes."""
    return [measure(network, filled(model()), train) for model, train in TRIED]


stored = functools.cache(everything)   # of the wrong answers, which do not change


def known_classifier(network, otherwise=""):
    got = everything(network)
    registered = without_predictor(network)
    return next((m.cause for m in lab.mistakes["HonestClassifier"]
                 if without_predictor(m.answer) == registered
                 and all(map(alike, stored(m.answer), got))), otherwise)


def attempted_class(network):
    methods = [getattr(network, name, ...) for name in ("__init__", "forward")]
    own = [m for m in methods if m not in (..., chainer.Chain.__init__)]
    if network is ... or all(map(is_blank, own)):
        raise NotAttempted


def builds(network):
    if not isinstance(network, type) or not issubclass(network, chainer.Chain):
        raise Finding("The check needs the class itself, derived from `chainer.Chain`.",
                      got=describe(network),
                      cause="`check.HonestClassifier(HonestClassifier)`, without a model.")
    try:
        network(LeNet5())
    except Exception as error:
        raise raised(error, "HonestClassifier(model)") from None
    if without_predictor(network):
        children = [link.name for link in network(LeNet5()).children()]
        raise Finding("The network is not registered as `predictor`.", expected="predictor",
                      got=", ".join(sorted(children)) or "no child at all",
                      cause=known_classifier(network) or
                      "`self.predictor = predictor` inside `with self.init_scope():`, after "
                      "`super().__init__()`.")


def losses_in(network, train):
    name = "train" if train else "test"
    for kind in (model for model, tried in TRIED if tried == train):
        described = f"HonestClassifier(model)(x, t) in {name} mode, model a {kind.__name__}, " \
                    f"x {name_shape(IMAGES.shape, 'N C H W')}"
        np.random.seed(0)
        with mode(train):
            loss = call(network(filled(kind())), Case({"x": IMAGES, "t": LABELS}), described)
        if not isinstance(loss, chainer.Variable):
            raise Finding(f"The result is of type {type(loss).__name__}, expected a Variable.",
                          call=described,
                          cause=known_classifier(network, "Return the loss itself."))
        right = measure(Right, filled(kind()), train)["loss"]
        if not same(float(loss.array), right):
            raise Finding(f"The loss in {name} mode is wrong.", call=described,
                          expected=f"{right:.4f}", got=f"{float(loss.array):.4f}",
                          cause=known_classifier(network, DROPPED if kind is WithDropout else ""))


def reports(network):
    for train in (True, False):
        model = fixed_models()[0]
        got, right = measure(network, model, train), measure(Right, model, train)
        for name in ("main/loss", "main/accuracy"):
            if name not in got or not same(got[name], right[name]):
                raise Finding(f"The {name[5:]} that is reported in {'train' if train else 'test'} "
                              f"mode is {'wrong' if name in got else 'missing'}.",
                              expected=f"{right[name]:.4f}",
                              got=f"{got[name]:.4f}" if name in got else "nothing",
                              cause=known_classifier(
                                  network, "`chainer.report({'loss': loss, 'accuracy': "
                                           "F.accuracy(y, t)}, self)` tells the Trainer."))


def leaves_mode(network):
    with mode(False):
        network(filled(LeNet5()))(IMAGES, LABELS)
        after = chainer.config.train
    if after:
        raise Finding("After the call Chainer is in train mode.", expected="False, as before",
                      got="chainer.config.train True",
                      cause="Do not set the mode at all: `predictor.logits(x)` needs none.")


def learns(network):
    model = filled(LeNet5())
    classifier = network(model)
    classifier.cleargrads()
    with mode(True):
        classifier(IMAGES, LABELS).backward()
    idle = [path for path, p in sorted(model.namedparams()) if p.grad is None]
    if idle:
        raise Finding("The loss does not reach the network's weights.",
                      got=f"no gradient in {', '.join(idle)}",
                      cause="`.array` or `float()` takes the numbers out of the graph.")


@lab.check(
    Mistake("softmax twice", "The phantom is still there: in test mode `self.predictor(x)` gives "
            "probabilities. Ask for `self.predictor.logits(x)`.",
            changed(loss_of=lambda self, x, t: F.softmax_cross_entropy(self.predictor(x), t))),
    Mistake("train mode for the logits", "The logits were fetched by switching to train mode. "
            "That also switches dropout on: the network that is measured is not the one that "
            "will be used. `self.predictor.logits(x)` needs no switch.",
            changed(loss_of=loss_in_train_mode)),
    Mistake("softmax in both modes", "A softmax stands before `F.softmax_cross_entropy`, which "
            "has one itself. Now training suffers too.",
            changed(loss_of=lambda self, x, t: F.softmax_cross_entropy(
                F.softmax(self.predictor.logits(x)), t))),
    Mistake("logarithm twice", "The logarithm is taken twice: `F.log_softmax` gives logarithms "
            "already. (`F.softmax_cross_entropy` does it all.)",
            changed(loss_of=lambda self, x, t: -F.mean(F.select_item(F.log_softmax(
                F.log_softmax(self.predictor.logits(x)) * 2), t)))),
    Mistake("mean over all classes", "This is the mean over all classes. Only the right class "
            "counts: `F.softmax_cross_entropy(y, t)`.",
            changed(loss_of=lambda self, x, t: -F.mean(F.log_softmax(
                self.predictor.logits(x))))),
    Mistake("not registered", "The network is a plain attribute, so the optimizer would find "
            "nothing to train: assign it inside `with self.init_scope():`.",
            changed(__init__=unregistered)),
    Mistake("nothing reported", "Nothing was reported, so the Trainer's log would have no loss: "
            "`chainer.report({'loss': loss, 'accuracy': ...}, self)`.",
            changed(forward=silent)),
    Mistake("only the loss reported", "The accuracy is not reported: put it into the same dict "
            "as the loss.",
            changed(told=lambda self, x, t, loss: {"loss": loss})),
    Mistake("error for accuracy", "This is the share of wrong answers. The accuracy is the share "
            "of right ones.",
            changed(told=lambda self, x, t, loss: {
                "loss": loss, "accuracy": 1 - F.accuracy(self.predictor.logits(x), t)})),
    Mistake("accuracy for loss", "Loss and accuracy have changed places in the report.",
            changed(told=lambda self, x, t, loss: {
                "accuracy": loss, "loss": F.accuracy(self.predictor.logits(x), t)})),
    Mistake("accuracy as a count", "This is how many answers are right. The accuracy is their "
            "share: `F.accuracy` gives it.",
            changed(told=lambda self, x, t, loss: {
                "loss": loss, "accuracy": len(t) * F.accuracy(self.predictor.logits(x), t)})),
    Mistake("a plain number", "`float(...)` takes the loss out of the graph, so nothing can be "
            "learned from it. Return the Variable.",
            changed(forward=plain_number)),
)
def HonestClassifier(answer):
    """Check `HonestClassifier`: give it your class, get a Report."""
    return [("attempted", lambda: attempted_class(answer)),
            ("it keeps the network", lambda: builds(answer)),
            ("loss in train mode", lambda: losses_in(answer, True)),
            ("loss in test mode", lambda: losses_in(answer, False)),
            ("what it reports", lambda: reports(answer)),
            ("the mode afterwards", lambda: leaves_mode(answer)),
            ("gradients arrive", lambda: learns(answer))]
