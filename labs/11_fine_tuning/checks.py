"""Checks of lab 11, fine-tuning: a new head, frozen layers, two modes, features, rates."""

import contextlib
import functools

from convnets.check import Lab, Mistake, attempted, describe, same, signature
from convnets.check.traits import Trait, stages
from convnets.pretrained.transfer import model_arrays

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
from chainer.datasets import TupleDataset

lab = Lab(__file__, around=lambda: chainer.using_config("train", True))
hint, solution, solved = lab.hint, lab.solution, lab.solved

N, BATCH, N_CLASS = 10, 4, 3
MOST_CALLS = 40   # more are an endless loop


def numbers(shape, seed):
    return np.random.RandomState(seed).normal(0, 1, shape).astype(np.float32)


IMAGES = numbers((N, 1, 6, 6), 0)
LABELS = np.arange(N, dtype=np.int32) * 7 % N_CLASS


class Net(chainer.Chain):
    """A small network of the notebook's kind; remembers how its features were asked for."""

    def __init__(self, n_class, width=8):
        super().__init__()
        with self.init_scope():
            self.conv1 = L.Convolution2D(1, 4, 3)
            self.conv2 = L.Convolution2D(4, width, 3)
            self.bn = L.BatchNormalization(width)
            self.fc = L.Linear(width, n_class)
        self.calls, self.head_modes = [], []

    def features(self, x):
        self.calls.append((len(x), bool(chainer.config.train), chainer.config.enable_backprop))
        if len(self.calls) > MOST_CALLS:
            raise RuntimeError(f"the network was called {MOST_CALLS} times for {N} images")
        h = self.bn(self.conv2(F.relu(self.conv1(x))))   # (N, width, 2, 2)
        return F.mean(F.relu(h), axis=(2, 3))

    def head(self, h):
        self.head_modes.append(bool(chainer.config.train))
        return self.fc(F.dropout(h))

    def forward(self, x):
        return self.head(self.features(x))


def pretrained(width=8):
    """A network full of fixed numbers, with averages that are not those of a minibatch."""
    np.random.seed(0)   # the heads that answers make are drawn from here
    net = Net(N_CLASS, width)
    for seed, (_, param) in enumerate(sorted(net.namedparams())):
        param.array[...] = numbers(param.shape, seed)
    net.bn.avg_mean[...] = numbers(width, 50)
    net.bn.avg_var[...] = 1 + numbers(width, 51) ** 2
    return net


def contents(net):
    return {path: np.array(array) for path, array in model_arrays(net).items()}


def changed(before, after):
    """Paths whose arrays differ, sorted."""
    return sorted(path for path in before if not np.array_equal(before[path], after.get(path)))


def in_words(paths, nothing="nothing"):
    return ", ".join(paths) if paths else nothing


def few(values):
    return " ".join(f"{float(v):.3g}" for v in np.ravel(chainer.as_array(values))[:4])


def one_step(net, optimizer):
    """Forward, backward and update; the paths of the parameters that moved."""
    before = contents(net)
    with chainer.using_config("train", False):   # so that the averages stay
        loss = F.softmax_cross_entropy(net(IMAGES), LABELS)
    net.cleargrads()
    loss.backward()
    optimizer.update()
    return changed(before, contents(net))


# ---- 1: new_head -----------------------------------------------------------------------------

def right_new_head(model, n_class):
    return heading()(model, n_class)


right_new_head.__name__ = "new_head"


def heading(copy=lambda model: model.copy("copy"), head=None, attach=None):
    """The right answer, or a wrong one: another copy, another head, another way to attach it."""
    def new_head(model, n_class):
        net, n_in = copy(model), model.fc.W.shape[1]
        new = (head or (lambda net, n_in, n_class: L.Linear(n_in, n_class)))(net, n_in, n_class)
        if attach is not None:
            return attach(net, new)
        del net.fc
        with net.init_scope():
            net.fc = new
        return net
    return new_head


def without_scope(net, new):
    del net.fc
    net.fc = new
    return net


def name_taken(net, new):
    with net.init_scope():
        net.fc = new
    return net


def second_head(net, new):
    with net.init_scope():
        net.fc2 = new
    return net


def no_dropout(net, new):
    del net.fc
    with net.init_scope():
        net.fc = new
    net.head = net.fc
    return net


def no_head(net, new):
    del net.fc
    return net


def old_rows(net, n_in, n_class):
    new = L.Linear(n_in, n_class)
    rows = np.arange(n_class) % len(net.fc.W)
    new.W.array[...], new.b.array[...] = net.fc.W.array[rows], net.fc.b.array[rows]
    return new


def header(new_head, width=8, n_class=7):
    """The pretrained network, what it held before, and the answer's result."""
    model = pretrained(width)
    before = contents(model)
    net = new_head(model, n_class)
    with chainer.using_config("train", False), contextlib.suppress(Exception):
        net(IMAGES)   # fixes a number of inputs that was left open
    return model, before, net


def head_kind(new_head):
    _, _, net = header(new_head)
    if net is ... or net is None:
        return "nothing"
    if not isinstance(net, Net):
        return describe(net)
    return "a network of the same class"


def head_parts(new_head, width, n_class):
    _, before, net = header(new_head, width, n_class)
    with chainer.using_config("train", False):
        net(IMAGES)   # raises what it raises
    parts = {path[1:]: param.shape for path, param in net.namedparams()}
    old = {path: array.shape for path, array in before.items()}
    return in_words([f"{path} {shape}" for path, shape in sorted(parts.items())
                     if "fc" in path or shape != old.get(path)], "no layer fc")


def head_rest(new_head):
    model, _, net = header(new_head)
    before, after = contents(model) if net is not model else {}, contents(net)
    other = [path for path in changed(before, after) if not path.startswith("fc")]
    return "other numbers in " + in_words(other) if other else "the same numbers as before"


def head_numbers(new_head):
    _, before, net = header(new_head)
    rows = {few(row) for row in before["fc/W"]}
    old = any(few(row) in rows for row in net.fc.W.array)
    return "rows of the old head" if old else "numbers of its own"


def head_original(new_head):
    model, before, _ = header(new_head)
    return f"changed: {in_words(changed(before, contents(model)))}"


def head_shared(new_head):
    model, before, net = header(new_head)
    for array in model_arrays(net).values():
        array += 1
    return f"changed: {in_words(changed(before, contents(model)))}"


def head_dropout(new_head):
    _, _, net = header(new_head)
    for seed, (_, param) in enumerate(sorted(net.fc.namedparams())):
        param.array[...] = numbers(param.shape, seed)   # a head may begin with zeros
    with chainer.using_config("train", False):
        twice = [net(IMAGES).array for _ in range(2)]
    shape = f"scores {twice[0].shape}"
    train = [net.head(np.ones((2, 8), np.float32)).array for _ in range(2)]
    return shape + (", always the same in test mode" if same(*twice) else
                    ", never the same in test mode") + (
        ", no dropout in train mode" if same(*train) else ", dropout in train mode")


HEAD = (
    Trait("a network", "The result is not a network of the same class.", head_kind,
          call="new_head(model, 7)", cause="Return the copy that got the new head."),
    Trait("the new head", "The layers are not those of a network with a new fc.",
          functools.partial(head_parts, width=8, n_class=7),
          call="new_head(model, 7), where model.fc has 8 inputs",
          cause="`del net.fc`, then inside `with net.init_scope():` a new `L.Linear(n_in, "
                "n_class)`, where n_in is `model.fc.W.shape[1]`."),
    Trait("another width", "The layers are not those of a network with a new fc.",
          functools.partial(head_parts, width=5, n_class=4),
          call="new_head(model, 4), where model.fc has 5 inputs",
          cause="Take the number of inputs from the old head: `model.fc.W.shape[1]`."),
    Trait("all other layers", "What was learned is lost.", head_rest, call="new_head(model, 7)",
          cause="Copy the network, with its numbers: `model.copy('copy')`."),
    Trait("the model untouched", "The network that was handed over has changed.", head_original,
          call="new_head(model, 7); then look at model",
          cause="Work on a copy: `model.copy('copy')`."),
    Trait("nothing shared", "What is done to the new network happens to the old one, too.",
          head_shared, call="new_head(model, 7); then every array of the new network grows by 1",
          cause="`model.copy('copy')` copies the arrays as well."),
    Trait("numbers of its own", "The new head is not new.", head_numbers,
          call="new_head(model, 7).fc.W", cause="Leave the weights of `L.Linear` at random."),
    Trait("dropout", "The scores are not made as they were.", head_dropout,
          call="new_head(model, 7)(x)", cause="Only the link fc changes: `head` and its dropout "
                                              "stay as they are."),
)


@lab.check(
    Mistake("in place", "The pretrained network itself has lost its head. Somebody may still need "
            "it: work on a copy, `model.copy('copy')`.", heading(lambda model: model)),
    Mistake("shared arrays", "`model.copy()` alone makes new links around the *same* arrays: what "
            "you train changes the pretrained network as well. `model.copy('copy')`.",
            heading(lambda model: model.copy())),
    Mistake("new weights everywhere", "`copy('init')` draws all weights anew, and all that was "
            "learned is gone: `model.copy('copy')`.", heading(lambda model: model.copy("init"))),
    Mistake("a new network", "This is a new network with random weights. The point of it all is to "
            "keep what has been learned: `model.copy('copy')`.",
            lambda model, n_class: type(model)(n_class, model.fc.W.shape[1])),
    Mistake("not registered", "The new head was assigned outside `init_scope`, after the old one "
            "was deleted: the network has a layer that no optimizer and no file will ever see.",
            heading(attach=without_scope)),
    Mistake("name taken", "There is a child of that name already. Delete it first: `del net.fc`.",
            heading(attach=name_taken)),
    Mistake("a second head", "The new layer stands beside the old head, under another name, and "
            "`head` goes on using fc. Put it in the old one's place.",
            heading(attach=second_head)),
    Mistake("no head", "The old head is gone, and no new one has come.", heading(attach=no_head)),
    Mistake("no dropout", "`head` was replaced, and its dropout is lost. Only the link fc changes.",
            heading(attach=no_dropout)),
    Mistake("rows of the old head", "The new head has the old head's numbers: what was learned for "
            "other classes. A new question gets a new head, with random weights.",
            heading(head=old_rows)),
    Mistake("inputs and outputs swapped", "`L.Linear` takes first the number of inputs, then that "
            "of outputs: `L.Linear(n_in, n_class)`.",
            heading(head=lambda net, n_in, n_class: L.Linear(n_class, n_in))),
    Mistake("outputs for inputs", "The shape of W is (out, in): the number of inputs is "
            "`model.fc.W.shape[1]`.",
            heading(head=lambda net, n_in, n_class: L.Linear(len(net.fc.W), n_class))),
    Mistake("always 10 classes", "The head has 10 classes, whatever n_class says.",
            heading(head=lambda net, n_in, n_class: L.Linear(n_in, 10))),
    Mistake("no bias", "The new head has no bias: leave `nobias` out.",
            heading(head=lambda net, n_in, n_class: L.Linear(n_in, n_class, nobias=True))),
    Mistake("the head alone", "This is the new head alone. Return the whole network.",
            heading(attach=lambda net, new: new)),
)
def new_head(answer):
    """Check `new_head`: give it your function, get a Report."""
    return [("attempted", lambda: attempted(answer)),
            ("signature", lambda: signature(answer, right_new_head)),
            *stages(lab, "new_head", answer, right_new_head, HEAD)]


# ---- 2: optimizer_for ------------------------------------------------------------------------

def right_optimizer_for(model, free, lr):
    return freezing(lambda model, free: [link for link in model.children()
                                         if link.name not in free])(model, free, lr)


right_optimizer_for.__name__ = "optimizer_for"


def freezing(frozen, make=lambda lr: chainer.optimizers.Adam(lr), target=lambda model: model,
             act=lambda link: link.disable_update()):
    """Set up an optimizer, then do something to the links that are to be frozen."""
    def optimizer_for(model, free, lr):
        optimizer = make(lr).setup(target(model))
        for link in frozen(model, free):
            act(link)
        return optimizer
    return optimizer_for


def not_free(model, free):
    return [link for link in model.children() if link.name not in free]


def frozen_too_early(model, free, lr):
    for link in not_free(model, free):
        link.disable_update()
    return chainer.optimizers.Adam(lr).setup(model)


def weights_only(link):
    if hasattr(link, "W"):
        link.W.update_rule.enabled = False
    else:
        link.disable_update()


def forget(link):
    for name in [path[1:] for path, _ in link.namedparams()]:
        delattr(link, name)


def not_set_up(model, free, lr):
    optimizer = chainer.optimizers.Adam(lr)
    model.cleargrads()
    return optimizer


def optimized(optimizer_for, free=("fc",), frozen_before=False):
    """The network after an earlier training, its numbers, and the answer's optimizer."""
    model = pretrained()
    chainer.optimizers.Adam().setup(model)
    for param in model.params():
        param.grad = np.zeros_like(param.array)
    if frozen_before:
        model.disable_update()
    before = contents(model)
    return model, before, optimizer_for(model, free, 0.02)


def optimizer_kind(optimizer_for):
    model, _, optimizer = optimized(optimizer_for)
    if not isinstance(optimizer, chainer.Optimizer):
        return "nothing" if optimizer is None or optimizer is ... else describe(optimizer)
    known = (getattr(optimizer.hyperparam, name, None) for name in ("alpha", "lr"))
    rate = next((rate for rate in known if rate is not None), float("nan"))
    target = getattr(optimizer, "target", None)
    whole = "the network" if target is model else f"{type(target).__name__} alone" if target \
        else "nothing"
    return f"{type(optimizer).__name__} with a learning rate of {rate:g}, set up with {whole}"


def optimizer_keeps(optimizer_for):
    model, before, _ = optimized(optimizer_for)
    return f"changed: {in_words(changed(before, contents(model)))}"


def optimizer_moves(optimizer_for, free, frozen_before=False, then_all=False):
    rules = []

    def watched(model, free, lr):
        rules.extend(param.update_rule for param in model.params())
        return optimizer_for(model, free, lr)

    model, _, optimizer = optimized(watched, free, frozen_before)
    clue = trace(model, rules)
    if then_all:
        model.enable_update()
    moved = one_step(model, optimizer)
    all_of_them = len(moved) == sum(1 for _ in model.params())
    return f"moved: {in_words(moved)}" + (clue if all_of_them and not then_all else "")


def trace(model, old_rules):
    """What an attempt at freezing has left behind, where everything still moves."""
    if any(param.grad is None for param in model.params()):
        return " (some gradients were cleared)"
    if any(not rule.enabled for rule in old_rules):
        return " (update rules were switched off, but those of the time before setup)"
    return ""


FREEZE = (
    Trait("an optimizer", "The result is not the optimizer that was asked for.", optimizer_kind,
          call="optimizer_for(model, ('fc',), 0.02)",
          cause="`optimizer = chainer.optimizers.Adam(lr).setup(model)`, and return it at the "
                "end."),
    Trait("nothing lost", "The network has changed before the first step.", optimizer_keeps,
          call="optimizer_for(model, ('fc',), 0.02)",
          cause="Freezing a layer changes no number: `link.disable_update()`."),
    Trait("the head moves alone", "Other parameters than those of fc move in a step.",
          functools.partial(optimizer_moves, free=("fc",)),
          call="optimizer_for(model, ('fc',), 0.02).update()",
          cause="For each `link in model.children()` whose `link.name` is not in free: "
                "`link.disable_update()`, after setup."),
    Trait("two that move", "Other parameters than those of conv2 and fc move in a step.",
          functools.partial(optimizer_moves, free=("conv2", "fc")),
          call="optimizer_for(model, ('conv2', 'fc'), 0.02).update()",
          cause="Every link whose name is in free keeps learning, all others do not."),
    Trait("frozen before", "In a network that was frozen before, other parameters move.",
          functools.partial(optimizer_moves, free=("bn", "fc"), frozen_before=True),
          call="model.disable_update(); optimizer_for(model, ('bn', 'fc'), 0.02).update()",
          cause="`setup` gives every parameter a new update rule, which is enabled. Freeze after "
                "it."),
    Trait("thawed later", "After `model.enable_update()` not all parameters move.",
          functools.partial(optimizer_moves, free=("fc",), then_all=True),
          call="optimizer_for(model, ('fc',), 0.02); model.enable_update()",
          cause="Set the optimizer up with the whole network, so that frozen layers can be thawed "
                "later."),
)


@lab.check(
    Mistake("frozen too early", "`disable_update` came before `setup`. Frozen is not the parameter "
            "but its update rule, and `setup` gives every parameter a new one: first set up, then "
            "freeze.", frozen_too_early),
    Mistake("the wrong ones", "The free layers were frozen and the others left free. It is "
            "`link.name not in free` that are frozen.",
            freezing(lambda model, free: [model[name] for name in free])),
    Mistake("everything frozen", "Everything is frozen, the new head as well: nothing will ever be "
            "learned.", freezing(lambda model, free: [model])),
    Mistake("nothing frozen", "Nothing is frozen.", freezing(lambda model, free: [])),
    Mistake("all but the head", "Everything but fc is frozen, whatever free says.",
            freezing(lambda model, free: not_free(model, ("fc",)))),
    Mistake("first name only", "Only the first name of free counts here: `link.name not in free`.",
            freezing(lambda model, free: not_free(model, free[:1]))),
    Mistake("convolutions only", "Only convolutions are frozen. Batch normalization has "
            "parameters, too, gamma and beta.",
            freezing(lambda model, free: [link for link in not_free(model, free)
                                          if isinstance(link, L.Convolution2D)])),
    Mistake("weights only", "Only the weights W are frozen: the biases still move. "
            "`link.disable_update()` takes all parameters of a link.",
            freezing(not_free, act=weights_only)),
    Mistake("gradients cleared", "`cleargrads` forgets the gradients once, and the next `backward` "
            "brings new ones. `link.disable_update()`.",
            freezing(not_free, act=lambda link: link.cleargrads())),
    Mistake("deleted", "The parameters were taken out of the network. Frozen layers still have to "
            "compute: `link.disable_update()`.",
            freezing(not_free, act=forget)),
    Mistake("set up with the head", "The optimizer knows the head only. It works as long as you "
            "train nothing else; to thaw a layer later would take a new optimizer. `setup(model)`.",
            freezing(not_free, target=lambda model: model.fc)),
    Mistake("not set up", "The optimizer was not set up: `Adam(lr).setup(model)`.", not_set_up),
    Mistake("learning rate lost", "lr is not handed on: `chainer.optimizers.Adam(lr)`.",
            freezing(not_free, make=lambda lr: chainer.optimizers.Adam())),
    Mistake("another optimizer", "This is another optimizer: `chainer.optimizers.Adam(lr)`.",
            freezing(not_free, make=lambda lr: chainer.optimizers.SGD(lr))),
)
def optimizer_for(answer):
    """Check `optimizer_for`: give it your function, get a Report."""
    return [("attempted", lambda: attempted(answer)),
            ("signature", lambda: signature(answer, right_optimizer_for)),
            *stages(lab, "optimizer_for", answer, right_optimizer_for, FREEZE)]


# ---- 3: tuned --------------------------------------------------------------------------------

def right_tuned(model, x):
    with chainer.using_config("train", False):
        h = model.features(x)
    return model.head(h)


right_tuned.__name__ = "tuned"


def all_in_test_mode(model, x):
    with chainer.using_config("train", False):
        return model(x)


def leaking(model, x):
    chainer.config.train = False
    return model(x)


def set_back(model, x):
    chainer.config.train = False
    h = model.features(x)
    chainer.config.train = True
    return model.head(h)


def no_graph(model, x):
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        h = model.features(x)
    return model.head(h)


def cut(model, x):
    with chainer.using_config("train", False):
        h = model.features(x).array
    return model.head(h)


def head_in_train_mode(model, x):
    with chainer.using_config("train", False):
        h = model.features(x)
    with chainer.using_config("train", True):
        return model.head(h)


def bare_head(model, x):
    with chainer.using_config("train", False):
        h = model.features(x)
    return model.fc(h)


def modes_swapped(model, x):
    h = model.features(x)
    with chainer.using_config("train", False):
        return model.head(h)


def graph_only(model, x):
    with chainer.no_backprop_mode():
        h = model.features(x)
    return model.head(h)


def put_back_by_hand(model, x):
    """The averages are saved and put back, but the minibatch's own were used."""
    mean, var = model.bn.avg_mean.copy(), model.bn.avg_var.copy()
    y = model(x)
    model.bn.avg_mean[...], model.bn.avg_var[...] = mean, var
    return y


def run_tuned(tuned, train):
    """The network, its scores, and the mode afterwards; the mode is put back."""
    model = pretrained()
    with chainer.using_config("train", train):
        np.random.seed(3)   # dropout
        y = tuned(model, IMAGES.copy())
        after = bool(chainer.config.train)
    return model, y, after


def tuned_kind(tuned):
    _, y, _ = run_tuned(tuned, True)
    return f"a Variable {y.shape}" if isinstance(y, chainer.Variable) else describe(y)


def tuned_averages(tuned):
    model, _, _ = run_tuned(tuned, True)
    right = pretrained()
    return "as they were" if same(model.bn.avg_mean, right.bn.avg_mean) and same(
        model.bn.avg_var, right.bn.avg_var) else "moved"


def tuned_mode(tuned):
    return ", ".join(f"config.train was {train}, is {run_tuned(tuned, train)[2]}"
                     for train in (True, False))


def tuned_dropout(tuned, train):
    model = pretrained()
    with chainer.using_config("train", train):
        first = tuned(model, IMAGES).array
    with chainer.using_config("train", train):
        again = tuned(model, IMAGES).array
    if not same(first, again):
        return "two calls differ"
    modes = {True: "in train mode", False: "in test mode"}
    clue = modes[model.head_modes[-1]] if model.head_modes else "never called"
    return "two calls agree" + (f", model.head was {clue}" if train else "")


def tuned_scores(tuned, train):
    _, y, _ = run_tuned(tuned, train)
    _, right, _ = run_tuned(right_tuned, train)
    return "the right ones" if same(chainer.as_array(y), right.array) else f"other ones: {few(y)}"


def tuned_gradients(tuned):
    model, y, _ = run_tuned(tuned, True)
    model.cleargrads()
    F.sum(y ** 2).backward()
    idle = [path for path, param in sorted(model.namedparams()) if param.grad is None]
    clue = "" if model.calls and model.calls[-1][2] else ", the features were made without a graph"
    return f"none in {in_words(idle)}{clue}" if idle else "in every parameter"


TUNED = (
    Trait("scores", "The result is not a Variable with the scores.", tuned_kind,
          call="tuned(model, x)", cause="Return what `model.head` gives."),
    Trait("the averages stay", "The running averages of the batch normalization move.",
          tuned_averages, call="tuned(model, x) in train mode",
          cause="`with chainer.using_config('train', False):` around `model.features(x)`."),
    Trait("dropout in train mode", "The head does not drop anything in train mode.",
          functools.partial(tuned_dropout, train=True),
          call="tuned(model, x) in train mode, twice",
          cause="`model.head(h)` stands behind the `with`, not in it."),
    Trait("no dropout in test mode", "Two calls in test mode differ.",
          functools.partial(tuned_dropout, train=False),
          call="tuned(model, x) in test mode, twice",
          cause="The head is in the mode of whoever calls: leave it alone."),
    Trait("the mode afterwards", "The mode is another one after the call.", tuned_mode,
          call="tuned(model, x), once in each mode",
          cause="`with chainer.using_config('train', False):` puts the mode back by itself."),
    Trait("its numbers in train mode", "The scores are other ones.",
          functools.partial(tuned_scores, train=True), call="tuned(model, x) in train mode",
          cause="`model.features(x)` in test mode, then `model.head` of it."),
    Trait("its numbers in test mode", "The scores are other ones.",
          functools.partial(tuned_scores, train=False), call="tuned(model, x) in test mode",
          cause="In test mode it is `model(x)`."),
    Trait("gradients", "The gradient does not reach all layers, so none of them can be thawed "
          "later.", tuned_gradients, call="tuned(model, x); then backward",
          cause="Hand on the Variable, with its graph."),
)


@lab.check(
    Mistake("train mode", "All of it ran in the caller's mode. In train mode batch normalization "
            "takes the minibatch's own mean and moves its averages, although its layer is frozen: "
            "test mode around `model.features(x)`.",
            lambda model, x: model(x)),
    Mistake("all in test mode", "The head is in test mode, too, so its dropout never drops "
            "anything: only `model.features(x)` belongs into the `with`.", all_in_test_mode),
    Mistake("left in test mode", "`chainer.config.train = False` stays set, and all that follows "
            "is in test mode. `with chainer.using_config('train', False):` puts it back.",
            leaking),
    Mistake("set back by hand", "`chainer.config.train = True` at the end switches train mode on "
            "even where the caller was in test mode. `with chainer.using_config('train', False):` "
            "puts back what was there.", set_back),
    Mistake("no graph", "`no_backprop_mode` cuts the graph: right for layers that stay frozen "
            "for ever, but no gradient gets through when one of them is thawed. Leave it out.",
            no_graph),
    Mistake("cut by array", "`.array` takes the features out of the graph, and no gradient reaches "
            "the layers in front: hand on the Variable.", cut),
    Mistake("graph for mode", "`no_backprop_mode` has nothing to do with the mode: batch "
            "normalization still is in train mode. `with chainer.using_config('train', False):`.",
            graph_only),
    Mistake("head always in train mode", "The head drops features in test mode as well. Leave it "
            "in the mode of whoever calls.", head_in_train_mode),
    Mistake("head without dropout", "`model.fc` is the linear layer alone. `model.head` has the "
            "dropout in front of it.", bare_head),
    Mistake("modes swapped", "It is the other way round: the features in test mode, the head as "
            "the caller has it.", modes_swapped),
    Mistake("averages put back", "The averages were put back, but the features were made with the "
            "minibatch's own mean and variance. Test mode uses the stored ones.",
            put_back_by_hand),
    Mistake("features", "These are the features. `model.head` makes scores of them.",
            lambda model, x: right_features(model, x)),
    Mistake("probabilities", "These are probabilities. The loss wants scores: no softmax.",
            lambda model, x: F.softmax(right_tuned(model, x))),
)
def tuned(answer):
    """Check `tuned`: give it your function, get a Report."""
    return [("attempted", lambda: attempted(answer)),
            ("signature", lambda: signature(answer, right_tuned)),
            *stages(lab, "tuned", answer, right_tuned, TUNED)]


def right_features(model, x):
    with chainer.using_config("train", False):
        return model.features(x)


# ---- 4: features_of --------------------------------------------------------------------------

def right_features_of(model, dataset, batch):
    return computing()(model, dataset, batch)


right_features_of.__name__ = "features_of"


def computing(ask=lambda model, x: model.features(x).array, train=False, graph=False,
              starts=lambda n, batch: range(0, n, batch), step=lambda batch: batch,
              make=lambda h, t: TupleDataset(np.concatenate(h), t)):
    """The right answer, or a wrong one: another layer, mode, walk through the data, or end."""
    def features_of(model, dataset, batch):
        x, t = chainer.dataset.concat_examples(dataset[:])
        with chainer.using_config("train", train), chainer.using_config("enable_backprop", graph):
            parts = [ask(model, x[i:i + step(batch)]) for i in starts(len(x), batch)]
        return make(parts, t)
    return features_of


def by_iterator(**options):
    def features_of(model, dataset, batch):
        h, t = [], []
        with chainer.using_config("train", False), chainer.no_backprop_mode():
            for examples in chainer.iterators.SerialIterator(dataset, batch, **options):
                x, labels = chainer.dataset.concat_examples(examples)
                h.append(model.features(x).array)
                t.append(labels)
        return TupleDataset(np.concatenate(h), np.concatenate(t))
    return features_of


def left_in_test_mode(model, dataset, batch):
    chainer.config.train = False
    return right_features_of(model, dataset, batch)


def computed(features_of):
    """The network, the data set that came back, and the mode afterwards."""
    model = pretrained()
    with chainer.using_config("train", True):
        result = features_of(model, TupleDataset(IMAGES.copy(), LABELS.copy()), BATCH)
        after = bool(chainer.config.train)
    return model, result, after


def features_kind(features_of):
    _, result, _ = computed(features_of)
    if result is None or result is ...:
        return "nothing"
    try:
        h, t = result[0]
        h, t = (np.asarray(a) if not isinstance(a, chainer.Variable) else a for a in (h, t))
        return f"{len(result)} pairs of {described(h)} and {described(t)}"
    except (TypeError, ValueError, IndexError, KeyError):
        return describe(result)


def described(value):
    kind = "a Variable" if isinstance(value, chainer.Variable) else "an array"
    return f"{kind} {value.shape} {value.dtype}"


def features_modes(features_of):
    model, _, _ = computed(features_of)
    modes = {mode for _, mode, _ in model.calls}
    words = {frozenset({False}): "test mode", frozenset({True}): "train mode",
             frozenset(): "never called"}.get(frozenset(modes), "both modes")
    moved = "" if same(model.bn.avg_mean, pretrained().bn.avg_mean) else ", the averages moved"
    return words + moved


def features_graph(features_of):
    model, _, _ = computed(features_of)
    return "graphs are built" if any(graph for *_, graph in model.calls) else "no graph is built"


def features_sizes(features_of):
    model, _, _ = computed(features_of)
    return " + ".join(str(size) for size, *_ in model.calls) or "none"


def features_numbers(features_of):
    _, result, _ = computed(features_of)
    with chainer.using_config("train", False):
        right = pretrained().features(IMAGES).array
    got = np.stack([chainer.as_array(h) for h, _ in (result[i] for i in range(len(result)))])
    return "the right ones" if same(got, right) else f"other ones: {few(got)} ..."


def features_labels(features_of):
    _, result, _ = computed(features_of)
    return " ".join(str(int(result[i][1])) for i in range(len(result)))


def features_after(features_of):
    return f"config.train is {computed(features_of)[2]}"


CALL = f"features_of(model, dataset, {BATCH}) with {N} images"
FEATURES = (
    Trait("a data set", "The result is not a data set of features and labels.", features_kind,
          call=CALL, cause="`TupleDataset(np.concatenate(parts), t)`: one row of features and one "
                           "label for each image."),
    Trait("test mode", "The features were not made in test mode.", features_modes, call=CALL,
          cause="`with chainer.using_config('train', False):` around the loop."),
    Trait("minibatches", "The minibatches are not those asked for.", features_sizes, call=CALL,
          cause="`for i in range(0, len(x), batch)`, then `x[i:i + batch]`; the last one is "
                "smaller."),
    Trait("numbers", "The features are other ones.", features_numbers, call=CALL,
          cause="`model.features(x[i:i + batch]).array`, in the order of the data."),
    Trait("labels", "The labels do not belong to the features.", features_labels, call=CALL,
          cause="The order of the data set stays, and with it the labels."),
    Trait("no graph", "A graph is built for every minibatch, though nobody will go back through "
          "it.", features_graph, call=CALL, cause="`with chainer.no_backprop_mode():`."),
    Trait("the mode afterwards", "The mode is another one after the call.", features_after,
          call=CALL, cause="`with chainer.using_config('train', False):` puts the mode back."),
)


@lab.check(
    Mistake("train mode", "The features were made in train mode: each depends on its neighbours in "
            "the minibatch, and the averages have moved. `with chainer.using_config('train', "
            "False):`.", computing(train=True)),
    Mistake("graph kept", "Every minibatch builds a graph, which costs time and memory, and nobody "
            "goes back through it: `with chainer.no_backprop_mode():`.", computing(graph=True)),
    Mistake("scores", "These are scores, the old head's opinion. The features come before it: "
            "`model.features(x)`.", computing(ask=lambda model, x: model(x).array)),
    Mistake("maps", "These are the maps of a layer in between. `model.features(x)` gives one row "
            "for each image.",
            computing(ask=lambda model, x: model.features(x) is not None
                      and model.conv2(F.relu(model.conv1(x))).array)),
    Mistake("last minibatch lost", "The last, smaller minibatch is missing: 10 images are 4 + 4 + "
            "2. `range(0, len(x), batch)` starts it too.",
            computing(starts=lambda n, batch: range(0, n - batch + 1, batch),
                      make=lambda h, t: TupleDataset(rows := np.concatenate(h), t[:len(rows)]))),
    Mistake("first minibatch only", "Only the first minibatch is there: is `return` indented into "
            "the loop?",
            computing(starts=lambda n, batch: [0],
                      make=lambda h, t: TupleDataset(h[0], t[:len(h[0])]))),
    Mistake("all at once", "All images went in at once. With large images they do not fit into "
            "memory: `batch` at a time.",
            computing(starts=lambda n, batch: [0], step=lambda batch: N)),
    Mistake("one by one", "The images went in one by one, which takes much longer: `batch` at a "
            "time.",
            computing(starts=lambda n, batch: range(n), step=lambda batch: 1)),
    Mistake("shuffled", "A `SerialIterator` shuffles unless `shuffle=False`. The labels go along, "
            "but a feature can no longer be found by the number of its image.",
            by_iterator(repeat=False)),
    Mistake("without end", "A `SerialIterator` begins anew for ever unless `repeat=False`.",
            by_iterator(shuffle=False)),
    Mistake("labels lost", "These are the features without their labels: "
            "`TupleDataset(features, t)`.",
            computing(make=lambda h, t: np.concatenate(h))),
    Mistake("two arrays", "These are two arrays. `TupleDataset(features, t)` makes one data set "
            "of them, which an iterator can walk through.",
            computing(make=lambda h, t: (np.concatenate(h), t))),
    Mistake("minibatches in a list", "This is a data set of minibatches: `np.concatenate(...)` "
            "joins them, so that there is one row for each image.",
            computing(make=lambda h, t: TupleDataset(h, [t[:4], t[4:8], t[8:]]))),
    Mistake("Variables", "These are Variables: `.array` is the array.",
            computing(ask=lambda model, x: model.features(x),
                      make=lambda h, t: TupleDataset([row for part in h for row in part], t))),
    Mistake("float64", "The features have become float64, twice as large, and the network's "
            "weights are float32. `np.concatenate` of the arrays keeps their dtype.",
            computing(make=lambda h, t: TupleDataset(np.concatenate(h).astype(float), t))),
    Mistake("left in test mode", "`chainer.config.train = False` stays set, and the training of "
            "the head runs without dropout.", left_in_test_mode),
)
def features_of(answer):
    """Check `features_of`: give it your function, get a Report."""
    return [("attempted", lambda: attempted(answer)),
            ("signature", lambda: signature(answer, right_features_of)),
            *stages(lab, "features_of", answer, right_features_of, FEATURES)]


# ---- 5: set_rates ----------------------------------------------------------------------------

def right_set_rates(optimizer, rates):
    thawing()(optimizer, rates)


right_set_rates.__name__ = "set_rates"


def own_rate(optimizer, param, rate):
    param.update_rule.hyperparam.alpha = rate


def thawing(enable=lambda optimizer, link: link.enable_update(), rate=own_rate,
            params=lambda link: link.params()):
    """The right answer, or a wrong one: it thaws otherwise, or sets other rates."""
    def set_rates(optimizer, rates):
        for name, value in rates.items():
            enable(optimizer, optimizer.target[name])
            for param in list(params(optimizer.target[name])):
                rate(optimizer, param, value)
    return set_rates


def rate_of_all(optimizer, param, rate):
    optimizer.alpha = rate


def unknown_name(optimizer, param, rate):
    param.update_rule.hyperparam.lr = rate


def on_the_rule(optimizer, param, rate):
    param.update_rule.alpha = rate


def as_factor(optimizer, param, rate):
    param.update_rule.hyperparam.alpha *= rate


def set_up_again(optimizer, rates):
    optimizer.setup(optimizer.target)
    optimizer.target.disable_update()
    right_set_rates(optimizer, rates)


def one_optimizer_each(optimizer, rates):
    for name, rate in rates.items():
        chainer.optimizers.Adam(rate).setup(optimizer.target[name])


def others_frozen(optimizer, rates):
    optimizer.target.disable_update()
    right_set_rates(optimizer, rates)


def all_the_first(optimizer, rates):
    right_set_rates(optimizer, dict.fromkeys(rates, next(iter(rates.values()))))


def scaled_weights(optimizer, rates):
    right_set_rates(optimizer, rates)
    for name, rate in rates.items():
        optimizer.target[name].W.array *= rate


def thawed(set_rates, *calls):
    """Network and optimizer after three steps of the head alone, and then these calls."""
    model = pretrained()
    optimizer = chainer.optimizers.Adam(0.01).setup(model)
    for link in not_free(model, ("fc",)):
        link.disable_update()
    for _ in range(3):
        one_step(model, optimizer)
    before = contents(model)
    for rates in calls:
        set_rates(optimizer, dict(rates))
    return model, optimizer, before


FIRST = {"conv2": 1e-4, "fc": 1e-3}
SECOND = {"conv1": 1e-5}


def rates_told(set_rates, *calls):
    model, _, _ = thawed(set_rates, *calls)
    return "\n".join(f"{path[1:]:9} {rate_told(param.update_rule)}"
                     for path, param in sorted(model.namedparams()))


def rate_told(rule):
    """The rate that a rule uses; one that was set where nobody reads it is mentioned."""
    if not rule.enabled:
        return "frozen"
    lost = [where for where, place, name in (("update_rule.alpha", rule, "alpha"),
                                             ("hyperparam.lr", rule.hyperparam, "lr"))
            if name in vars(place) and "alpha" not in vars(rule.hyperparam)]
    return f"{rule.hyperparam.alpha:g}" + "".join(f" (and {where}, unread)" for where in lost)


def rates_memory(set_rates):
    model, optimizer, _ = thawed(set_rates, FIRST)
    seen = model.fc.W.update_rule.t
    return f"fc has seen {seen} steps, the optimizer's own rate is {optimizer.hyperparam.alpha:g}"


def rates_numbers(set_rates):
    model, _, before = thawed(set_rates, FIRST)
    return f"changed: {in_words(changed(before, contents(model)))}"


def rates_step(set_rates):
    model, optimizer, _ = thawed(set_rates, FIRST)
    before = contents(model)
    moved = one_step(model, optimizer)
    largest = abs(model.conv2.W.array - before["conv2/W"]).max()
    return f"moved: {in_words(moved)}; conv2/W by at most {largest:.1g}"


RATES = (
    Trait("the rates", "The learning rates are not those asked for.",
          lambda set_rates: rates_told(set_rates, FIRST),
          call="set_rates(optimizer, {'conv2': 0.0001, 'fc': 0.001}), where only fc was free, "
               "at 0.01",
          cause="For each name: `optimizer.target[name].enable_update()`, and for each of its "
                "params `param.update_rule.hyperparam.alpha = rate`."),
    Trait("the memory", "The optimizer has forgotten what it knew, or its own rate has changed.",
          rates_memory,
          call="three steps, then set_rates(optimizer, {'conv2': 0.0001, 'fc': 0.001})",
          cause="No new optimizer, no new setup: change the update rules that are there."),
    Trait("no step yet", "The call itself changes the network.", rates_numbers,
          call="set_rates(optimizer, {'conv2': 0.0001, 'fc': 0.001})",
          cause="Only the update rules change, no weights."),
    Trait("a step", "A step moves other parameters, or by more or less.", rates_step,
          call="set_rates(optimizer, {'conv2': 0.0001, 'fc': 0.001}), then a step",
          cause="Adam's first step moves each weight by its learning rate."),
    Trait("a second call", "After a second call the rates are not those asked for.",
          lambda set_rates: rates_told(set_rates, FIRST, SECOND),
          call="set_rates(optimizer, {'conv2': 0.0001, 'fc': 0.001}), then "
               "set_rates(optimizer, {'conv1': 1e-05})",
          cause="Layers that are not named stay as they are."),
)


@lab.check(
    Mistake("not thawed", "The rates are set, but what was frozen stays frozen: "
            "`link.enable_update()`.", thawing(enable=lambda optimizer, link: None)),
    Mistake("all thawed", "Everything was thawed, named or not: "
            "`optimizer.target[name].enable_update()`.",
            thawing(enable=lambda optimizer, link: optimizer.target.enable_update())),
    Mistake("one rate for all", "`optimizer.alpha` is the rate of all parameters that have none of "
            "their own. Each has an update rule with its own: "
            "`param.update_rule.hyperparam.alpha`.", thawing(rate=rate_of_all)),
    Mistake("a name that Adam does not know", "Adam's learning rate is called alpha. An attribute "
            "`lr` of the hyperparameters is set without a word, and nobody reads it.",
            thawing(rate=unknown_name)),
    Mistake("on the rule", "`update_rule.alpha` is an attribute that nobody reads. The rate is one "
            "of the rule's hyperparameters: `update_rule.hyperparam.alpha`.",
            thawing(rate=on_the_rule)),
    Mistake("as a factor", "The old rate was multiplied by the new one. Set it: `= rate`.",
            thawing(rate=as_factor)),
    Mistake("set up again", "`setup` gives every parameter a new update rule: Adam forgets its "
            "averages, and counts its steps from 0. Change the rules that are there.",
            set_up_again),
    Mistake("an optimizer each", "These new optimizers take the parameters away from the one that "
            "is there: its memory is lost, and nobody keeps the new ones.",
            one_optimizer_each),
    Mistake("others frozen", "What is not named was frozen. It stays as it is.", others_frozen),
    Mistake("weights only", "Only the weights W have got the new rate: the biases belong to the "
            "layer as well. `link.params()` gives all.",
            thawing(params=lambda link: [link.W])),
    Mistake("always the first rate", "All named layers have got the first rate.", all_the_first),
    Mistake("weights scaled", "The weights themselves were multiplied by the rate. It belongs to "
            "the update rule.", scaled_weights),
)
def set_rates(answer):
    """Check `set_rates`: give it your function, get a Report."""
    return [("attempted", lambda: attempted(answer)),
            ("signature", lambda: signature(answer, right_set_rates)),
            *stages(lab, "set_rates", answer, right_set_rates, RATES)]
