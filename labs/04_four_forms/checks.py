"""Checks of lab 4, four forms: layers in a list, a ChainList, a Sequential; order and weights."""

import pickle
from functools import partial

from convnets.check import (
    Finding,
    Lab,
    Mistake,
    NotAttempted,
    attempted,
    describe,
    is_blank,
    signature,
)
from convnets.check.traits import Trait, stages
from convnets.models import FORMS

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np

lab = Lab(__file__, around=lambda: chainer.using_config("train", True))
hint, solution, solved = lab.hint, lab.solution, lab.solved


# ---- networks to try, and what can be seen of them ------------------------------------------

IMAGES = np.random.RandomState(0).uniform(0, 1, (3, 1, 28, 28)).astype(np.float32)
pool = partial(F.max_pooling_2d, ksize=2, stride=2)


def plus1(x):
    return x + 1


def linear(weight, bias=0):
    """A link from one number to one: weight·x + bias."""
    return L.Linear(1, 1, initialW=weight, initial_bias=bias)


def small_plan():
    """Three layers on one number; fc10 is last to run and first in the alphabet."""
    return [("fc2", linear(2)), ("_plus1", plus1), ("fc10", linear(3, 10))]


def lenet5_links():
    return [L.Convolution2D(1, 6, 5), L.Convolution2D(6, 16, 5), L.Convolution2D(16, 120, 4),
            L.Linear(120, 84), L.Linear(84, 10)]


def lenet5_plan():
    conv1, conv2, conv3, fc4, fc5 = lenet5_links()
    return [("conv1", conv1), ("_sigm1", F.sigmoid), ("_pool1", pool),
            ("conv2", conv2), ("_sigm2", F.sigmoid), ("_pool2", pool),
            ("conv3", conv3), ("_sigm3", F.sigmoid),
            ("fc4", fc4), ("_sigm4", F.sigmoid), ("fc5", fc5)]


def filled(model):
    """The model with fixed weights that depend on their shapes alone, not on their order."""
    for param in model.params():
        numbers = np.random.RandomState(param.size)
        scale = 2 / np.sqrt(param.size / len(param)) if param.ndim > 1 else 0.5
        param.array[...] = numbers.normal(0, scale, param.shape)
    return model


def output(model, x):
    """The result of a model as an array."""
    y = model(x)
    if y is None:
        raise Finding("forward returns None.", call="model(x)",
                      cause="Is it written? Is the last line, `return x`, there, behind the loop?")
    if not isinstance(y, (chainer.Variable, np.ndarray)):
        raise Finding(f"forward returns {describe(y)}, expected a Variable.", call="model(x)")
    return chainer.as_array(y)


def logits(model):
    """Shape and first row of the result for three images; of both modes, if they differ."""
    lines = []
    for train in (True, False):
        with chainer.using_config("train", train):
            y = output(model, IMAGES)
        first = " ".join(f"{v:.3f}" for v in y[0].ravel()[:10])
        lines.append(f"shape {y.shape}, first row {first}")
    train, test = lines
    return train if train == test else f"train mode: {train}\ntest mode: {test}"


class Inputs(chainer.LinkHook):
    """Notes the shape of what each layer gets."""

    name = "inputs"

    def __init__(self):
        super().__init__()
        self.lines = []

    def forward_preprocess(self, args):
        if not isinstance(args.link, (chainer.Chain, chainer.ChainList)):
            shape = "x".join(map(str, args.args[0].shape[1:]))
            self.lines.append(f"{type(args.link).__name__} gets {shape}")


def inputs(model):
    with Inputs() as hook:
        output(model, IMAGES)
    return "\n".join(hook.lines) or "no layer ran"


SIZES = ("28 - 5 + 1 = 24, pooled 12; 12 - 5 + 1 = 8, pooled 4; 4 - 4 + 1 = 1: 120 maps of one "
         "number")


def gradients_of_a_copy(model):
    """How many gradients one backward pass through a copy leaves, and where."""
    twin = model.copy()
    model.cleargrads()
    twin.cleargrads()
    F.sum(twin(IMAGES)).backward()
    counts = [sum(p.grad is not None for p in m.params()) for m in (twin, model)]
    return f"{counts[0]} in the copy, {counts[1]} in the original"


def a_class(answer, base, name):
    """Raise unless the answer is a class of the right kind."""
    wanted = f"chainer.{base.__name__}"
    if not isinstance(answer, type):
        raise Finding("The check needs the class itself.", got=describe(answer),
                      cause=f"`check.{name}({name})`, without brackets behind {name}.")
    if not issubclass(answer, base):
        raise Finding(f"The class is not derived from {wanted}.", expected=wanted,
                      got=", ".join(b.__name__ for b in answer.__bases__),
                      cause=f"Its first line is `class {name}({wanted}):`.")


def begun(network):
    """Raise NotAttempted if both methods are blank or missing."""
    if not isinstance(network, type):
        return attempted(network)
    methods = [getattr(network, name, ...) for name in ("__init__", "forward")]
    if all(m in (chainer.Chain.__init__, chainer.ChainList.__init__) or is_blank(m)
           for m in methods):
        raise NotAttempted


# ---- 1: ListNet ----------------------------------------------------------------------------

class RightListNet(chainer.Chain):
    """A right answer; wrong ones have another `__init__` or `forward`."""

    def __init__(self, layers):
        super().__init__()
        self.layers = layers
        with self.init_scope():
            for name, layer in layers:
                if not name.startswith("_"):
                    setattr(self, name, layer)

    def forward(self, x):
        for name, layer in self.layers:
            x = layer(x) if name.startswith("_") else getattr(self, name)(x)
        return x


def list_net(**methods):
    return type("ListNet", (RightListNet,), methods)


def only_listed(self, layers):
    chainer.Chain.__init__(self)
    with self.init_scope():
        self.layers = layers


def outside_of_scope(self, layers):
    chainer.Chain.__init__(self)
    self.layers = layers
    for name, layer in layers:
        setattr(self, name, layer)


def without_super(self, layers):
    self.layers = layers


def under_numbers(self, layers):
    chainer.Chain.__init__(self)
    self.layers = [(f"layer{i}" if isinstance(layer, chainer.Link) else "_f", layer)
                   for i, (_, layer) in enumerate(layers)]
    with self.init_scope():
        for name, layer in self.layers:
            setattr(self, name, layer)


def stale(self, x):
    for _, layer in self.layers:
        x = layer(x)
    return x


def lost_else(self, x):
    for name, layer in self.layers:
        if not name.startswith("_"):
            x = getattr(self, name)(x)
            x = layer(x)
    return x


def functions_skipped(self, x):
    for name, _ in self.layers:
        if not name.startswith("_"):
            x = getattr(self, name)(x)
    return x


def by_the_alphabet(self, x):
    for link in self.children():
        x = link(x)
    return x


def functions_as_attributes(self, x):
    for name, _ in self.layers:
        x = getattr(self, name)(x)
    return x


def first_only(self, x):
    for name, layer in self.layers:
        return layer(x) if name.startswith("_") else getattr(self, name)(x)


def from_x_each_time(self, x):
    for name, layer in self.layers:
        y = layer(x) if name.startswith("_") else getattr(self, name)(x)
    return y


def softmax_in_test_mode(self, x):
    y = RightListNet.forward(self, x)
    return y if chainer.config.train or y.ndim < 2 or y.shape[1] < 2 else F.softmax(y)


def registered(network):
    model = network(small_plan())
    names = ", ".join(sorted(link.name for link in model.children())) or "no children"
    return f"{names}; count_params() is {model.count_params()}"


def one_number(network):
    return f"{output(network(small_plan()), np.ones((1, 1), np.float32)).item():g}"


LIST_TRAITS = (
    Trait("links registered", "Chainer does not know the links as it should.", registered,
          "ListNet([('fc2', link), ('_plus1', function), ('fc10', link)])",
          "`setattr(self, name, layer)` inside `with self.init_scope():`, for each link of the "
          "list."),
    Trait("one number by hand", "Three layers on the number 1 give another number.", one_number,
          "model(1) with fc2: 2x, _plus1: x + 1, fc10: 3x + 10",
          "Each layer takes what the one before it gave, in the order of the list.",
          "2·1 = 2; 2 + 1 = 3; 3·3 + 10 = 19"),
    Trait("LeNet5's logits", "LeNet5's plan gives other numbers than LeNet5.",
          lambda network: logits(filled(network(lenet5_plan()))),
          "ListNet(plan())(x) with x (N=3, C=1, H=28, W=28)",
          "Hand x through the list and return what the last layer gives, in either mode."),
    Trait("a copy of its own", "Train a copy, and the gradients go to other links.",
          lambda network: gradients_of_a_copy(filled(network(lenet5_plan()))),
          "twin = model.copy(); one backward pass through twin",
          "`copy()` makes new links under the names, but `self.layers` is the same list with the "
          "old ones: `getattr(self, name)(x)` asks the model."),
)


@lab.check(
    Mistake("only a plain list", "Chainer does not look into a list, inside `init_scope` or not: "
            "no parameter is found, so nothing is trained and nothing saved. Register each link "
            "as well: `setattr(self, name, layer)`.", list_net(__init__=only_listed)),
    Mistake("init_scope forgotten", "The links are attributes like any others: `setattr` has to "
            "stand inside `with self.init_scope():` to register them.",
            list_net(__init__=outside_of_scope)),
    Mistake("super().__init__() forgotten", "`super().__init__()` must come first: it makes the "
            "Chain that the links are registered in.", list_net(__init__=without_super)),
    Mistake("names of one's own", "The links have other names than the list gives them. A weight "
            "file goes by these names: `setattr(self, name, layer)`.",
            list_net(__init__=under_numbers)),
    Mistake("the list's links called", "The links were called from the list. `copy()` makes new "
            "links under the names, but the copy still holds the same list with the *old* ones: "
            "its answers look right, and training it changes the original. "
            "`getattr(self, name)(x)` asks the model.", list_net(forward=stale)),
    Mistake("else lost", "Each link runs twice and no function ever: both calls stand under the "
            "`if`. The second belongs under `else:`. (A copy of Chainer's tutorial has this "
            "mistake.)", list_net(forward=lost_else)),
    Mistake("functions left out", "The functions of the list never run: a name that begins with "
            "an underscore is called too, `layer(x)`, it only has nothing to register.",
            list_net(forward=functions_skipped)),
    Mistake("functions asked of the model", "Only links were registered, so the model has no "
            "attribute for a function: call that from the list, `x = layer(x)`.",
            list_net(forward=functions_as_attributes)),
    Mistake("loop over children()", "`children()` of a Chain is in alphabetical order, fc10 "
            "before fc2, and has no functions in it. Loop over the list.",
            list_net(forward=by_the_alphabet)),
    Mistake("return inside the loop", "Only the first layer ran: `return` is indented into the "
            "loop.", list_net(forward=first_only)),
    Mistake("every layer gets the input", "Every layer gets the first x: hand on what the layer "
            "before gave, `x = layer(x)`.", list_net(forward=from_x_each_time)),
    Mistake("softmax in test mode", "In test mode these are probabilities. Here the forms return "
            "logits in both modes, so that they can be compared.",
            list_net(forward=softmax_in_test_mode)),
)
def ListNet(answer):
    """Check `ListNet`: give it your class, get a Report."""
    return [("attempted", lambda: begun(answer)),
            ("a Chain", lambda: a_class(answer, chainer.Chain, "ListNet")),
            *stages(lab, "ListNet", answer, RightListNet, LIST_TRAITS)]


# ---- 2: StackNet ---------------------------------------------------------------------------

class RightStackNet(chainer.ChainList):
    """A right answer; wrong ones have another `__init__` or `forward`."""

    def __init__(self):
        super().__init__(*lenet5_links())

    def forward(self, x):
        return through(self, x)


def through(links, x, act=F.sigmoid, last=F.identity, pools=(0, 1)):
    """Links in a row: an activation behind all but the last, pooling behind some."""
    links = list(links)
    for i, link in enumerate(links):
        x = (last if link is links[-1] else act)(link(x))
        x = pool(x) if i in pools else x
    return x


def stack_net(**methods):
    return type("StackNet", (RightStackNet,), methods)


def starless(self):
    chainer.ChainList.__init__(self, lenet5_links())


def python_list(self):
    chainer.ChainList.__init__(self)
    self.links_of_mine = lenet5_links()


def attributes(self):
    chainer.ChainList.__init__(self)
    with self.init_scope():
        self.conv1 = L.Convolution2D(1, 6, 5)


def no_super(self):
    for link in lenet5_links():
        self.add_link(link)


def fc_first(self):
    *convs, fc4, fc5 = lenet5_links()
    chainer.ChainList.__init__(self, fc4, fc5, *convs)


def fc5_left_out(self):
    chainer.ChainList.__init__(self, *lenet5_links()[:-1])


def functions_added(self):
    # New functions, as add_link gives each thing it gets a name.
    chainer.ChainList.__init__(self, *(
        layer if isinstance(layer, chainer.Link) else partial(layer) for _, layer in lenet5_plan()))


def thrown_away(self, x):
    for link in self.children():
        F.sigmoid(link(x))
    return x


def shapes_of(network):
    return "\n".join(
        f"{i}: {type(link).__name__} {link.W.array.shape}" if isinstance(link, chainer.Link)
        else f"{i}: a function" for i, link in enumerate(network().children())) or "no children"


FORWARD_TRAITS = (
    Trait("sizes on the way", "A layer gets a map of another size than in LeNet5.",
          lambda make: inputs(filled(make())), "model(x) with x (N=3, C=1, H=28, W=28)",
          "A pooling of 2 with stride 2 stands behind conv1 and behind conv2, none elsewhere.",
          SIZES),
    Trait("LeNet5's logits", "These are not LeNet5's logits.", lambda make: logits(filled(make())),
          "model(x) with x (N=3, C=1, H=28, W=28)",
          "A sigmoid behind each layer but the last, which gives the logits; the same in both "
          "modes."),
)
STACK_TRAITS = (
    Trait("five links in order", "The children are not LeNet5's five layers in order.", shapes_of,
          "StackNet().children()",
          "`super().__init__(link, link, ...)` or `self.add_link(link)`, in forward order."),
    *FORWARD_TRAITS,
    Trait("a copy of its own", "Train a copy, and the gradients go to other links.",
          lambda network: gradients_of_a_copy(filled(network())),
          "twin = model.copy(); one backward pass through twin",
          "Ask `self.children()` for the links each time; a list of your own keeps the old ones."),
)


@lab.check(
    Mistake("a list for an argument", "A ChainList takes its links one by one, not in a list: put "
            "a star before it, `super().__init__(*links)`.", stack_net(__init__=starless)),
    Mistake("an ordinary list inside", "The links lie in an ordinary list, where a ChainList does "
            "not look. Hand them to `super().__init__(...)` or to `self.add_link(...)`.",
            stack_net(__init__=python_list)),
    Mistake("attributes", "A ChainList has no names, so links cannot be attributes. Hand them to "
            "`super().__init__(...)`: their place in the list is their name.",
            stack_net(__init__=attributes)),
    Mistake("super().__init__() forgotten", "`super().__init__()` must come first: it makes the "
            "list that `add_link` adds to.", stack_net(__init__=no_super)),
    Mistake("another order", "The links were added in another order than they run in. Here the "
            "order is all there is: conv1, conv2, conv3, fc4, fc5.",
            stack_net(__init__=fc_first)),
    Mistake("fc5 left out", "There are four links: the last, from 84 to 10, is missing.",
            stack_net(__init__=fc5_left_out)),
    Mistake("functions added", "A ChainList is for links. It takes functions without a word and "
            "fails later, when it asks them for parameters: they belong into `forward`.",
            stack_net(__init__=functions_added)),
    Mistake("sigmoid on the logits", "There is a sigmoid behind the last layer too: that is "
            "another model, whose loss cannot fall below 1.4612. `*first, last = "
            "self.children()` keeps the last apart.",
            stack_net(forward=lambda self, x: through(self, x, last=F.sigmoid))),
    Mistake("no pooling", "Nothing pools, so conv3 gets maps that are too large: pool behind "
            "layers 0 and 1.", stack_net(forward=lambda self, x: through(self, x, pools=()))),
    Mistake("pooling behind all", "Every layer is pooled, until a vector comes that has no rows "
            "and columns: pool behind layers 0 and 1 only, `if i < 2`.",
            stack_net(forward=lambda self, x: through(self, x, pools=range(5)))),
    Mistake("one pooling", "Only one pooling runs: one is needed behind layer 0 and one behind "
            "layer 1, `if i < 2`.",
            stack_net(forward=lambda self, x: through(self, x, pools=(0,)))),
    Mistake("no activations", "There is no sigmoid anywhere: without one the layers are (but for "
            "the pooling) a single linear map.",
            stack_net(forward=lambda self, x: through(self, x, act=F.identity))),
    Mistake("relu", "This network has ReLU where LeNet5 has sigmoids.",
            stack_net(forward=lambda self, x: through(self, x, act=F.relu))),
    Mistake("results thrown away", "Every layer gets the images themselves: the result was not "
            "handed on. `x = F.sigmoid(link(x))`.", stack_net(forward=thrown_away)),
    Mistake("softmax in test mode", "In test mode these are probabilities. Here the forms return "
            "logits in both modes, so that they can be compared.",
            stack_net(forward=lambda self, x: (F.identity if chainer.config.train else F.softmax)(
                through(self, x)))),
)
def StackNet(answer):
    """Check `StackNet`: give it your class, get a Report."""
    return [("attempted", lambda: begun(answer)),
            ("a ChainList", lambda: a_class(answer, chainer.ChainList, "StackNet")),
            *stages(lab, "StackNet", answer, RightStackNet, STACK_TRAITS)]


# ---- 3: lenet5_sequential ------------------------------------------------------------------

def right_sequential():
    return chainer.Sequential(*(layer for _, layer in lenet5_plan()))


right_sequential.__name__ = "lenet5_sequential"


def row(change):
    """A wrong answer: the layers of the plan, each handed to `change(name, layer)`."""
    def build():
        layers = [change(name, layer) for name, layer in lenet5_plan()]
        return chainer.Sequential(*(layer for layer in layers if layer is not None))
    return build


def without(*words):
    return row(lambda name, layer: None if name.startswith(words) else layer)


def with_last(function):
    return lambda: chainer.Sequential(*right_sequential(), function)


def what_it_is(build):
    if isinstance(build, chainer.Link):
        raise Finding("The check got a model, not the function that makes one.",
                      got=describe(build),
                      cause="`check.lenet5_sequential(lenet5_sequential)`, without calling it.")
    model = build()
    if model is None:
        raise Finding("The function returns None.", call="lenet5_sequential()",
                      cause="Is the last line, `return chainer.Sequential(...)`, missing?")
    if model is ...:
        raise NotAttempted
    if not isinstance(model, chainer.Sequential):
        return f"a {type(model).__name__}"
    links = [layer for layer in model if isinstance(layer, chainer.Link)]
    return f"a Sequential with {len(links)} links, {model.count_params():,} parameters"


def pickled(build):
    with_weights = filled(build())
    again = pickle.loads(pickle.dumps(with_weights))
    return f"outputs differ by {abs(again(IMAGES).array - with_weights(IMAGES).array).max():.1f}"


SEQUENTIAL_TRAITS = (
    Trait("a Sequential", "This is another thing than the exercise asks for.", what_it_is,
          "lenet5_sequential()",
          "`chainer.Sequential(layer, layer, ...)`: the five links, with functions between them."),
    *FORWARD_TRAITS,
    Trait("it can be pickled", "The model does not survive `pickle`.", pickled,
          "pickle.loads(pickle.dumps(model))",
          "Everything in it must be found again by its name: `partial(F.max_pooling_2d, ...)`."),
)


@lab.check(
    Mistake("a lambda", "A lambda has no name to be found by, so a Sequential that holds one "
            "cannot be pickled, and not sent to another process. `partial(F.max_pooling_2d, "
            "ksize=2, stride=2)` does the same and can.",
            row(lambda name, layer: (lambda h: F.max_pooling_2d(h, 2, 2))
                if name.startswith("_pool") else layer)),
    Mistake("a function called", "`F.sigmoid()` calls the function, now and without its argument. "
            "A Sequential wants the function itself: `F.sigmoid`.",
            row(lambda name, layer: layer() if name.startswith("_sigm") else layer)),
    Mistake("pooling called", "`F.max_pooling_2d(2, 2)` pools the number 2, now. What is wanted "
            "is a function of x alone: `partial(F.max_pooling_2d, ksize=2, stride=2)`.",
            row(lambda name, layer: F.max_pooling_2d(2, 2) if name.startswith("_pool") else layer)),
    Mistake("pooling without a size", "A Sequential calls each function with x alone, so "
            "`F.max_pooling_2d` does not learn its ksize. `partial(F.max_pooling_2d, ksize=2, "
            "stride=2)` is the function with these filled in.",
            row(lambda name, layer: F.max_pooling_2d if name.startswith("_pool") else layer)),
    Mistake("pooling with stride 1", "The pooling moves by one pixel only: stride=2 as well.",
            row(lambda name, layer: partial(F.max_pooling_2d, ksize=2, stride=1)
                if name.startswith("_pool") else layer)),
    Mistake("a list for an argument", "A Sequential takes its layers one by one, not in a list: "
            "put a star before it, `chainer.Sequential(*layers)`.",
            lambda: chainer.Sequential([layer for _, layer in lenet5_plan()])),
    Mistake("pairs", "A Sequential takes layers, not pairs of a name and a layer.",
            lambda: chainer.Sequential(*lenet5_plan())),
    Mistake("a ChainList", "A ChainList holds links only and has no `forward`. "
            "`chainer.Sequential` takes functions too, and runs them all in a row.",
            lambda: chainer.ChainList(*lenet5_links())),
    Mistake("no activations", "There is no sigmoid: without one the layers are (but for the "
            "pooling) a single linear map.", without("_sigm")),
    Mistake("no pooling", "Nothing pools, so conv3 gets maps that are too large. In a Sequential "
            "functions are layers like any others: `partial(F.max_pooling_2d, ksize=2, stride=2)` "
            "has its place behind each of the first two sigmoids.", without("_pool")),
    Mistake("softmax at the end", "The last layer is a softmax, so these are probabilities. Stop "
            "at fc5: the loss applies softmax itself.", with_last(F.softmax)),
    Mistake("sigmoid on the logits", "There is a sigmoid behind fc5: that is another model, "
            "whose loss cannot fall below 1.4612.", with_last(F.sigmoid)),
    Mistake("relu", "This network has ReLU where LeNet5 has sigmoids.",
            row(lambda name, layer: F.relu if name.startswith("_sigm") else layer)),
)
def lenet5_sequential(answer):
    """Check `lenet5_sequential`: give it your function, get a Report."""
    return [("attempted", lambda: attempted(answer)),
            ("signature", lambda: signature(answer, right_sequential)),
            *stages(lab, "lenet5_sequential", answer, right_sequential, SEQUENTIAL_TRAITS)]


# ---- 4: forward_order ----------------------------------------------------------------------

def right_order(model):
    if isinstance(model, chainer.Sequential):
        layers = model
    elif isinstance(model, chainer.ChainList):
        layers = model.children()
    else:
        layers = vars(model).values()
    return [layer for layer in layers if isinstance(layer, chainer.Link)]


right_order.__name__ = "forward_order"


def named(answer, model, links):
    """The links that an answer gives for a model, each by its letter."""
    result = answer(model)
    if result is None:
        raise Finding("The function returns None.", call="forward_order(model)",
                      cause="Is the last line, `return ...`, missing, or in a branch that did not "
                            "run?")
    if result is ...:
        raise NotAttempted
    letters = {id(link): "abcd"[i] for i, link in enumerate(links)} | {id(model): "the model"}
    return ", ".join(letters.get(id(layer)) or brief(layer) for layer in result) or "nothing"


def brief(layer):
    """Something that is none of the links, in a word."""
    if isinstance(layer, str):
        return repr(layer)
    return getattr(layer, "__name__", f"a {type(layer).__name__}")


def four():
    return [L.Linear(2, 2) for _ in range(4)]


def of_a_sequential(answer):
    a, b, c, d = links = four()
    return named(answer, chainer.Sequential(a, F.relu, b, F.relu, c, d), links)


def of_a_chainlist(answer):
    links = four()
    return named(answer, chainer.ChainList(*links), links)


def of_a_chain(answer):
    model = chainer.Chain()
    links = four()
    with model.init_scope():
        for name, link in zip(("stem", "conv2", "conv10", "fc"), links, strict=True):
            setattr(model, name, link)
    return named(answer, model, links)


def of_a_list_net(answer):
    links = four()
    names = ("conv9", "conv10", "fc2", "fc1")
    return named(answer, RightListNet([*zip(names, links, strict=True), ("_relu", F.relu)]), links)


ORDER_TRAITS = (
    Trait("four links in a Sequential", "A Sequential's layers come out in another order.",
          of_a_sequential, "forward_order(chainer.Sequential(a, F.relu, b, F.relu, c, d))",
          "Walk through the Sequential itself, not through its children, and keep the links.",
          "it runs a, relu, b, relu, c, d: the links among these are a, b, c, d. children() gives "
          "a, d, c, b: Chainer 7.8.1 puts each new child behind the first"),
    Trait("a ChainList", "A ChainList's links come out in another order.", of_a_chainlist,
          "forward_order(chainer.ChainList(a, b, c, d))",
          "`model.children()` of a ChainList is in the order of adding."),
    Trait("a Chain", "A Chain's links come out in another order.", of_a_chain,
          "forward_order(model) of a Chain with stem=a, conv2=b, conv10=c, fc=d",
          "`vars(model)` has the attributes in the order in which they were assigned."),
    Trait("a list in a Chain", "A ListNet's links come out in another order.", of_a_list_net,
          "forward_order(ListNet([('conv9', a), ('conv10', b), ('fc2', c), ('fc1', d), "
          "('_relu', F.relu)]))",
          "A ListNet is a Chain: the same branch serves."),
)


@lab.check(
    Mistake("children() of all", "`children()` is right for a ChainList alone: a Chain's go by "
            "the alphabet, and a Sequential's are scrambled by a mistake in Chainer 7.8.1. A "
            "Sequential itself can be walked through: `for layer in model`.",
            lambda model: list(model.children())),
    Mistake("ChainList asked first", "A Sequential *is* a ChainList (a class derived from it), so "
            "`isinstance(model, chainer.ChainList)` is true for it too. Ask for "
            "`chainer.Sequential` first.",
            lambda model: list(model.children()) if isinstance(model, chainer.ChainList)
            else right_order(model)),
    Mistake("functions too", "The functions are in the list as well: keep what is a "
            "`chainer.Link`.",
            lambda model: list(model) if isinstance(model, chainer.Sequential)
            else right_order(model)),
    Mistake("vars of all", "The links of a Sequential or ChainList are not attributes, so "
            "`vars(model)` does not show them: it serves for a Chain.",
            lambda model: [v for v in vars(model).values() if isinstance(v, chainer.Link)]),
    Mistake("links()", "`links()` begins with the model itself, and then goes by children(): "
            "scrambled in a Sequential.", lambda model: list(model.links())),
    Mistake("a Chain by the alphabet", "A Chain's `children()` are in alphabetical order, conv10 "
            "before conv2. `vars(model)` has the attributes in the order of assignment.",
            lambda model: right_order(model) if isinstance(model, chainer.ChainList)
            else list(model.children())),
    Mistake("backwards", "The order is backwards: the first layer comes first.",
            lambda model: right_order(model)[::-1]),
    Mistake("names", "These are the names of the links, not the links.",
            lambda model: [link.name for link in right_order(model)]),
    Mistake("only one level of list", "A ListNet was asked for its list. The links in it need not "
            "be the model's own (think of a copy), and functions are in it too: "
            "`vars(model).values()` serves for every Chain.",
            lambda model: [layer for _, layer in model.layers] if hasattr(model, "layers")
            else right_order(model)),
)
def forward_order(answer):
    """Check `forward_order`: give it your function, get a Report."""
    return [("attempted", lambda: attempted(answer)),
            ("signature", lambda: signature(answer, right_order)),
            *stages(lab, "forward_order", answer, right_order, ORDER_TRAITS)]


# ---- 5: copy_weights -----------------------------------------------------------------------

def right_copy(src, dst):
    pairs = matched(right_order(src), right_order(dst))
    for a, b in pairs:
        b.copyparams(a)


right_copy.__name__ = "copy_weights"


def matched(sources, targets):
    if [a.W.shape for a in sources] != [b.W.shape for b in targets]:
        raise ValueError("the models differ")
    return list(zip(sources, targets, strict=True))


def by(listing):
    """A wrong answer that copies parameter by parameter, in the order of `listing`."""
    def copy(src, dst):
        matched(right_order(src), right_order(dst))
        for a, b in zip(listing(src), listing(dst), strict=True):
            b.array[...] = a.array
    return copy


def by_name(src, dst):
    values = dict(src.namedparams())
    for name, param in dst.namedparams():
        param.array[...] = values[name].array


def shared(src, dst):
    for a, b in matched(right_order(src), right_order(dst)):
        b.W.array, b.b.array = a.W.array, a.b.array


def weights_only(src, dst):
    for a, b in matched(right_order(src), right_order(dst)):
        b.W.array[...] = a.W.array


def unchecked(src, dst):
    for a, b in zip(right_order(src), right_order(dst), strict=False):
        b.copyparams(a)


def counted_by_zip(src, dst):
    for a, b in zip(right_order(src), right_order(dst), strict=True):
        b.copyparams(a)


def compared_on_the_way(src, dst):
    for a, b in zip(right_order(src), right_order(dst), strict=True):
        if a.W.shape != b.W.shape:
            raise ValueError
        b.copyparams(a)


def stretched(src, dst):
    sources, targets = right_order(src), right_order(dst)
    if len(sources) != len(targets):
        raise ValueError
    for a, b in zip(sources, targets, strict=True):
        b.W.array[...], b.b.array[...] = a.W.array, a.b.array


def whole_models(src, dst):
    dst.copyparams(src)


def another_object(src, dst):
    dst = src.copy("copy")  # noqa: F841  the mistake itself


def asserted(src, dst):
    try:
        right_copy(src, dst)
    except ValueError:
        raise AssertionError from None


def silently_refused(src, dst):
    try:
        right_copy(src, dst)
    except ValueError:
        return


def row_of(*weights):
    """A Sequential of links 1 → 1 with these weights, and biases ten times as large."""
    return chainer.Sequential(*(linear(weight, 10 * weight) for weight in weights))


def ending(row, n_out):
    """The row with a last link from one number to n_out."""
    return chainer.Sequential(*row, L.Linear(1, n_out))


def weights(links):
    return ", ".join(f"{link.W.array.item():g}x + {link.b.array.item():g}" for link in links)


def three_links(copy):
    src, dst = row_of(2, 3, 5), chainer.ChainList(linear(7, 7), linear(7, 7), linear(7, 7))
    copy(src, dst)
    return f"source {weights(src)}; target {weights(dst)}"


def between_forms(copy):
    lines = []
    names = list(FORMS)
    for a, b in zip(names, names[1:] + names[:1], strict=True):
        src, dst = filled(FORMS[a]()), FORMS[b]()
        copy(src, dst)
        difference = abs(src.logits(IMAGES).array - dst.logits(IMAGES).array).max()
        lines.append(f"{a} to {b}: outputs differ by {difference:.3g}")
    return "\n".join(lines)


def arrays_afterwards(copy):
    src, dst = row_of(2, 3), row_of(7, 7)
    copy(src, dst)
    kept = weights(src)
    for param in src.params():
        param.array += 1
    return f"source {kept}; target {weights(dst)}"


def refused(copy):
    """What comes of targets that do not fit."""
    lines = []
    for name, src, dst in (
            ("3 layers to 2", row_of(2, 3, 5), row_of(7, 7)),
            ("3 layers to 4", row_of(2, 3, 5), row_of(7, 7, 7, 7)),
            ("W (3, 1) to W (2, 1)", ending(row_of(2, 3), 3), ending(row_of(7, 7), 2)),
            ("W (1, 1) to W (2, 1)", ending(row_of(2, 3), 1), ending(row_of(7, 7), 2))):
        before = [p.array.copy() for p in dst.params()]
        try:
            copy(src, dst)
            result = "no error"
        except Exception as error:
            result = type(error).__name__
        same = all(map(np.array_equal, before, (p.array for p in dst.params())))
        lines.append(f"{name}: {result}, target {'unchanged' if same else 'changed'}")
    return "\n".join(lines)


COPY_TRAITS = (
    Trait("three links by hand", "The weights arrive in other places.", three_links,
          "copy_weights(src, dst) with src a Sequential of 2x + 20, 3x + 30, 5x + 50, dst a "
          "ChainList of three links 7x + 7",
          "Pair the links by `forward_order` of both models, and copy W and b of each.",
          "first to run gets 2x + 20, second 3x + 30, third 5x + 50"),
    Trait("all four forms", "After copying, two forms of LeNet5 differ.", between_forms,
          "copy_weights(src, dst) between convnets.models' forms",
          "Pair the links by `forward_order` of both models."),
    Trait("arrays of its own", "Source and target are not two models afterwards.",
          arrays_afterwards,
          "copy_weights(src, dst), src: 2x + 20, 3x + 30; then 1 is added to every number of src",
          "Copy the numbers, from the source into the target's own arrays: `b.W.array[...] = "
          "a.W.array`, or `b.copyparams(a)`."),
    Trait("models that do not fit", "A target that does not fit is not refused as it should be.",
          refused, "copy_weights(src, dst) with another number of links, or another last W",
          "Compare the number of links and every shape first, raise a `ValueError` if one "
          "differs, and only then begin to copy."),
)


@lab.check(
    Mistake("by params()", "`params()` and `children()` are not the order in which a Sequential "
            "runs: of three layers the last is child number 1. Pair the links by `forward_order`.",
            by(lambda model: list(model.params()))),
    Mistake("by name", "Names differ from form to form, conv1 here and 0 there, and where they "
            "agree they may mean another layer: 1 is a Sequential's last. Pair the links by "
            "`forward_order`.", by_name),
    Mistake("arrays shared", "Both models now hold the *same* arrays: training one changes the "
            "other. Copy the numbers into the target's own: `b.W.array[...] = a.W.array`, or "
            "`b.copyparams(a)`.", shared),
    Mistake("biases forgotten", "Only W was copied: each link has a bias b as well. "
            "`b.copyparams(a)` copies both.", weights_only),
    Mistake("the wrong way", "The copy goes from dst to src. `b.copyparams(a)` copies from a to "
            "b: the target is what stands before the dot.",
            lambda src, dst: right_copy(dst, src)),
    Mistake("a new name", "`dst = ...` only gives the name dst to another object; the caller's "
            "model stays as it was. Change the links that are in it: `b.copyparams(a)`.",
            another_object),
    Mistake("copyparams of whole models", "`dst.copyparams(src)` goes by the names of the "
            "children, or their numbers, so it works between two models of the same form. Call "
            "it for each pair of links, `b.copyparams(a)`.", whole_models),
    Mistake("nothing compared", "`zip` stops at the shorter of the two without a word, so a "
            "network of two layers takes the first two of three. Compare the number of links and "
            "every shape first, and raise a `ValueError`.", unchecked),
    Mistake("left to zip", "`zip(..., strict=True)` does raise a `ValueError`, but at its end, "
            "when the layers before have been overwritten: the target is then neither the old "
            "model nor the new. Compare number and shapes before the first copy.",
            counted_by_zip),
    Mistake("compared on the way", "Each layer is compared just before it is copied, so the error "
            "comes when those before it have been overwritten: the target is then neither the "
            "old model nor the new. Compare all of them before the first copy.",
            compared_on_the_way),
    Mistake("shapes left to the copy", "NumPy stretches an array of one number to fill a larger "
            "one, so the copy itself (`copyparams` too) does not notice every other shape, and "
            "those it notices too late. Compare every shape before the first copy.", stretched),
    Mistake("assert", "`assert` is for mistakes in one's own code (and `python -O` leaves it "
            "out). That two models do not fit is the caller's: `raise ValueError(...)`, with "
            "what was got and expected.", asserted),
    Mistake("refused in silence", "A target that does not fit stays as it was, but nobody hears "
            "of it: `raise ValueError(...)`.", silently_refused),
)
def copy_weights(answer):
    """Check `copy_weights`: give it your function, get a Report."""
    return [("attempted", lambda: attempted(answer)),
            ("signature", lambda: signature(answer, right_copy)),
            *stages(lab, "copy_weights", answer, right_copy, COPY_TRAITS)]
