"""Checks of lab 2, LeNet5 as a Chain: its shapes, parameters, layers, forward and use."""

import functools

from convnets.check import (
    Case,
    Finding,
    Function,
    Lab,
    Mistake,
    NotAttempted,
    attempted,
    call,
    describe,
    given,
    is_blank,
    kind,
    name_shape,
    raised,
    run,
    same,
    show,
    signature,
)
from convnets.models import LeNet5

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np

lab = Lab(__file__, around=lambda: chainer.using_config("train", True))
hint, solution, solved = lab.hint, lab.solution, lab.solved


def mode(train):
    return chainer.using_config("train", train)


# ---- 1: shapes -----------------------------------------------------------------------------

STEPS = ("conv1", "pool", "conv2", "pool", "conv3", "fc4", "fc5")
SHAPES = [(6, 24, 24), (6, 12, 12), (16, 8, 8), (16, 4, 4), (120, 1, 1), (84,), (10,)]
WHY = (
    "6 output channels; a window of 5 has 28 - 5 + 1 = 24 positions",
    "the channels stay; windows of 2 with stride 2: 24 / 2 = 12",
    "16 output channels; 12 - 5 + 1 = 8 positions",
    "the channels stay; 8 / 2 = 4",
    "120 output channels; a window of 4 on a map of 4 has 4 - 4 + 1 = 1 position",
    "a fully connected layer gives a vector: 84 numbers",
    "one number for each of the 10 digits",
)


def first_wrong(shapes):
    """Index and value of the first shape that differs; None if there is none."""
    return next(((i, tuple(got)) for i, (got, right) in enumerate(zip(shapes, SHAPES, strict=True))
                 if tuple(got) != right), None)


def same_shapes(shapes):
    wrong = first_wrong(shapes)
    if wrong is None:
        return
    index, got = wrong
    known = next((m.cause for m in lab.mistakes["shapes"] if first_wrong(m.answer()) == wrong), "")
    before = (1, 28, 28) if index == 0 else SHAPES[index - 1]
    raise Finding(f"The shape after {STEPS[index]} (entry {index} of the list) is wrong.",
                  given=f"before {STEPS[index]}: {before}", expected=str(SHAPES[index]),
                  got=str(got), arithmetic=WHY[index], cause=known)


def seven_tuples(shapes):
    listed = isinstance(shapes, (list, tuple)) and all(isinstance(s, (list, tuple))
                                                       for s in shapes)
    if not listed or len(shapes) != len(SHAPES):
        raise Finding("The result is not a list of seven tuples.", got=str(shapes)[:200],
                      expected=f"one for each of {', '.join(STEPS)}",
                      cause="A vector's shape is a tuple too: `(84,)`, with a comma. `(84)` is "
                            "only the number 84.")


@lab.check(
    Mistake("padding assumed", "28 rows stay 28 only with a padding of 2. LeNet5's convolutions "
            "have none: a window of 5 loses 4 rows and 4 columns.",
            lambda: [(6, 28, 28), (6, 14, 14), (16, 14, 14), (16, 7, 7), (120, 7, 7), (84,),
                     (10,)]),
    Mistake("one position too few", "28 - 5 = 23 steps, but 24 positions: the window stands "
            "somewhere before the first step.",
            lambda: [(6, 23, 23), *SHAPES[1:]]),
    Mistake("channels last", "Chainer's order is C, H, W: channels first.",
            lambda: [(24, 24, 6), *SHAPES[1:]]),
    Mistake("channels unchanged", "A convolution has as many output channels as its second "
            "argument says, whatever came in.",
            lambda: [(1, 24, 24), *SHAPES[1:]]),
    Mistake("pooling by one", "Windows of 2 with stride 2 lie side by side: half as many rows, "
            "not one less.",
            lambda: [SHAPES[0], (6, 23, 23), *SHAPES[2:]]),
    Mistake("channels multiplied", "A convolution sums over its input channels, so their number "
            "does not multiply: 16 output channels are 16.",
            lambda: [*SHAPES[:2], (96, 8, 8), *SHAPES[3:]]),
    Mistake("flattened too early", "conv3 is a convolution, so its result still has rows and "
            "columns, one of each: (120, 1, 1). It is fc4 that flattens.",
            lambda: [*SHAPES[:4], (120,), *SHAPES[5:]]),
)
def shapes(answer):
    """Check `shapes`: give it your function, get a Report."""
    def result():
        return call(answer, Case({}), "shapes()")

    return [("attempted", lambda: attempted(answer)),
            ("seven tuples", lambda: seven_tuples(result())),
            ("each shape", lambda: same_shapes(result()))]


# ---- 2: count ------------------------------------------------------------------------------

def right_count(n_in, n_out, k=1):
    return n_out * (n_in * k * k + 1)


right_count.__name__ = "count"


def count_by_hand(a, _index):
    n_in, n_out, k = a["n_in"], a["n_out"], a.get("k", 1)
    weights = n_in * k * k
    return (f"{n_out} channels of {n_in}·{k}·{k} = {weights} weights and 1 bias: "
            f"{n_out}·({weights} + 1) = {n_out * (weights + 1)}")


def counts_of_chainer(count):
    for n_in, n_out, k in ((1, 6, 5), (6, 16, 5), (16, 120, 4), (3, 7, 2), (120, 84, 1)):
        right = L.Convolution2D(n_in, n_out, k).count_params()
        if count(n_in, n_out, k) != right:
            raise Finding(f"`L.Convolution2D({n_in}, {n_out}, {k})` has another count.",
                          call=f"count({n_in}, {n_out}, {k})", expected=str(right),
                          got=str(count(n_in, n_out, k)))


count = lab.function(Function(
    reference=right_count,
    cases=(given(n_in=3, n_out=2, k=5), given(n_in=1, n_out=6, k=5), given(n_in=6, n_out=16, k=5),
           given(n_in=16, n_out=120, k=4), given(n_in=120, n_out=84), given(n_in=84, n_out=10)),
    by_hand=count_by_hand,
    hand_title="2 channels by hand",
    properties=(("Chainer's own counts", counts_of_chainer),),
    mistakes=(
        Mistake("biases forgotten", "The biases are missing: one for each output channel.",
                lambda n_in, n_out, k=1: n_out * n_in * k * k),
        Mistake("one bias in all", "There is one bias for each output channel, not one for the "
                "layer.",
                lambda n_in, n_out, k=1: n_out * n_in * k * k + 1),
        Mistake("a bias for each kernel plane", "There is one bias for each output channel. This "
                "counts one for each pair of input and output channel.",
                lambda n_in, n_out, k=1: n_out * n_in * (k * k + 1)),
        Mistake("a bias for each input channel", "There is one bias for each output channel, not "
                "for each input channel.",
                lambda n_in, n_out, k=1: n_out * n_in * k * k + n_in),
        Mistake("window not squared", "A window k wide is k high too: k·k weights.",
                lambda n_in, n_out, k=1: n_out * (n_in * k + 1)),
        Mistake("input channels forgotten", "Each output channel sees all input channels and has "
                "a k·k kernel for each of them.",
                lambda n_in, n_out, k=1: n_out * (k * k + 1)),
    ),
))


# ---- 3: layers -----------------------------------------------------------------------------

TABLE = {"conv1": (L.Convolution2D, 1, 6, 5), "conv2": (L.Convolution2D, 6, 16, 5),
         "conv3": (L.Convolution2D, 16, 120, 4), "fc4": (L.Linear, 120, 84),
         "fc5": (L.Linear, 84, 10)}


def chain(**changes):
    """A Chain class with LeNet5's layers, some of them changed or (None) left out."""
    table = {name: row for name, row in {**TABLE, **changes}.items() if row}

    class Network(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                for name, (link, *arguments) in table.items():
                    setattr(self, name, link(*arguments))
    return Network


class NoScope(chainer.Chain):
    def __init__(self):
        super().__init__()
        for name, (link, *arguments) in TABLE.items():
            setattr(self, name, link(*arguments))


class NoSuper(chainer.Chain):
    def __init__(self):
        with self.init_scope():
            self.conv1 = L.Convolution2D(1, 6, 5)


class InAList(chainer.Chain):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.layers = [link(*arguments) for link, *arguments in TABLE.values()]


class Locals(chainer.Chain):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            conv1 = L.Convolution2D(1, 6, 5)  # noqa: F841  the mistake itself


def is_link(value):
    return isinstance(value, chainer.Link)


def traits(network):
    """How a class differs from LeNet5, as a set of facts to compare."""
    try:
        model = network()
    except Exception as error:
        return {f"raises {type(error).__name__}: {error}"}
    children = {link.name: link for link in model.children()}
    hidden = {name: value for name, value in vars(model).items()
              if name not in children and not name.startswith("_")}
    facts = {f"{name} is not registered" for name, value in hidden.items() if is_link(value)}
    facts |= {"links in a list" for value in hidden.values()
              if isinstance(value, (list, tuple, dict)) and any(map(is_link, value))}
    if not children:
        facts.add("no children")
    return facts | {f"{name}: {fact}" for name, link in children.items()
                    for fact in about(link) - about(link_of(name))}


stored_traits = functools.cache(traits)   # of the wrong answers, which do not change


def link_of(name):
    """LeNet5's own link of that name; a link that nothing equals for another name."""
    link, *arguments = TABLE.get(name, (L.Bias, 1, (1,)))
    return link(*arguments)


def about(link):
    """Facts about one link: its kind, the shapes of its parameters, stride and padding."""
    fill(link)
    shapes = {f"{name} {p.shape}" for name, p in link.namedparams()}
    moves = {f"{name} {getattr(link, name)}" for name in ("stride", "pad") if hasattr(link, name)}
    return {type(link).__name__, *moves, *shapes, f"{len(shapes)} parameters"}


def fill(link):
    """Fix the input size of fc4 if the reader left it to the first call."""
    if isinstance(link, L.Linear) and link.W.array is None:
        link(np.zeros((1, 120), np.float32))


def known_layers(network):
    """The cause of the stored mistake that explains most of what differs, or ''."""
    found = traits(network)
    fitting = [m for m in lab.mistakes["layers"] if stored_traits(m.answer) <= found]
    return max(fitting, key=lambda m: len(stored_traits(m.answer)),
               default=Mistake("", "", None)).cause


def builds(network):
    if not isinstance(network, type) or not issubclass(network, chainer.Chain):
        raise Finding("The check needs the class itself, derived from `chainer.Chain`.",
                      got=describe(network),
                      cause="`check.layers(LeNet5)`, without brackets behind LeNet5.")
    try:
        network()
    except Exception as error:
        finding = raised(error, "LeNet5()")
        finding.rows["likely cause"] = known_layers(network) or finding.rows["likely cause"]
        raise finding from None


def names(network):
    got = {link.name for link in network().children()}
    if got != set(TABLE):
        raise Finding("The registered layers have other names.",
                      expected=", ".join(TABLE), got=", ".join(sorted(got)) or "none",
                      cause=known_layers(network) or
                      "Chainer knows what is assigned to an attribute, `self.NAME = ...`, inside "
                      "`with self.init_scope():`. Use the names of the table.")


def weights(network):
    children = {link.name: link for link in network().children()}
    for name, link in children.items():
        got, right = about(link) - about(link_of(name)), about(link_of(name)) - about(link)
        if got or right:
            raise Finding(f"The layer {name} is another than the exercise asks for.",
                          expected=", ".join(sorted(right)) or "nothing more",
                          got=", ".join(sorted(got)) or "nothing more",
                          cause=known_layers(network) or
                          "The arguments are (in channels, out channels, window) for "
                          "`L.Convolution2D` and (in, out) for `L.Linear`.")


def total(network):
    model = network()
    for link in model.children():
        fill(link)
    if model.count_params() != 44_426:
        raise Finding("The number of parameters is wrong.", expected="44426",
                      got=str(model.count_params()),
                      cause="Is there a parameter besides the five layers'?")


def blank_method(network, method):
    """Raise NotAttempted if the class has Chain's own method, or a blank one."""
    found = getattr(network, method, ...)
    if network is ... or found is getattr(chainer.Chain, method, ...) or is_blank(found):
        raise NotAttempted


@lab.check(
    Mistake("init_scope forgotten", "The links are attributes like any others, so the optimizer "
            "would never see them: assign them inside `with self.init_scope():`.", NoScope),
    Mistake("super().__init__() forgotten", "`super().__init__()` must come first: it makes the "
            "Chain that the layers are registered in.", NoSuper),
    Mistake("links in a list", "Chainer does not look into a list. Assign each link to an "
            "attribute of its own (or use a ChainList).", InAList),
    Mistake("local variables", "Nothing was kept: `conv1 = ...` is a local variable and is gone "
            "when `__init__` ends. Write `self.conv1 = ...`.", Locals),
    Mistake("conv1: channels swapped", "The input channels come first: "
            "`L.Convolution2D(1, 6, 5)` makes 6 maps of 1.",
            chain(conv1=(L.Convolution2D, 6, 1, 5))),
    Mistake("conv2: channels swapped", "The input channels come first: "
            "`L.Convolution2D(6, 16, 5)` makes 16 maps of 6.",
            chain(conv2=(L.Convolution2D, 16, 6, 5))),
    Mistake("conv1: window of 3", "conv1's window is 5 wide: 28 - 5 + 1 = 24.",
            chain(conv1=(L.Convolution2D, 1, 6, 3))),
    Mistake("conv1: padded", "conv1 has no padding here. LeCun's network of 1998 takes images of "
            "32 x 32 instead; with ours, 28 rows become 24.",
            chain(conv1=(L.Convolution2D, 1, 6, 5, 1, 2))),
    Mistake("conv1: stride 2", "conv1 moves by one pixel. It is the pooling that halves.",
            chain(conv1=(L.Convolution2D, 1, 6, 5, 2))),
    Mistake("conv3: window of 5", "The maps that reach conv3 are 4 x 4: a window of 5 does not "
            "fit. (In LeCun's network they are 5 x 5.)",
            chain(conv3=(L.Convolution2D, 16, 120, 5))),
    Mistake("fc4 fed by conv2", "16·4·4 = 256 numbers come out of the second pooling, but conv3 "
            "stands between: it leaves 120.",
            chain(fc4=(L.Linear, 256, 84))),
    Mistake("fc5: sizes swapped", "The inputs come first: `L.Linear(84, 10)`.",
            chain(fc5=(L.Linear, 10, 84))),
    Mistake("fc5 as large as fc4", "fc5 gives one number for each of 10 digits.",
            chain(fc5=(L.Linear, 84, 84))),
    Mistake("no biases", "The layers have no bias: leave `nobias` out.",
            chain(conv1=(L.Convolution2D, 1, 6, 5, 1, 0, True))),
    Mistake("fc instead of conv3", "conv3 is a convolution whose window covers the whole map. A "
            "fully connected layer would compute the same, but has another shape of weights.",
            chain(conv3=(L.Linear, 256, 120))),
)
def layers(answer):
    """Check the layers of `LeNet5`: give it your class, get a Report."""
    return [("attempted", lambda: blank_method(answer, "__init__")),
            ("it can be built", lambda: builds(answer)),
            ("names of the layers", lambda: names(answer)),
            ("shapes of the weights", lambda: weights(answer)),
            ("44,426 parameters", lambda: total(answer))]


# ---- 4: forward ----------------------------------------------------------------------------

IMAGES = np.random.RandomState(0).uniform(0, 1, (3, 1, 28, 28)).astype(np.float32)


def halve(h):
    return F.max_pooling_2d(h, 2, 2)


def scores(m, x, act=F.sigmoid, last=F.sigmoid, pool=halve):
    """LeNet5's logits, with another activation (or another one after fc4) or pooling."""
    h = pool(act(m.conv1(x)))
    h = pool(act(m.conv2(h)))
    return m.fc5(last(m.fc4(act(m.conv3(h)))))


def finish(y, train=F.identity, test=F.softmax):
    return train(y) if chainer.config.train else test(y)


def forward_of(body):
    """A LeNet5 class with another forward."""
    class Network(chain()):
        def forward(self, x):
            return body(self, x)
    return Network


def no_pool(h):
    return h


def filled(network):
    """A model of the class, its parameters set to fixed numbers larger than the initial ones."""
    model, numbers = network(), np.random.RandomState(1)
    for link in model.children():
        fill(link)
    for _, param in sorted(model.namedparams()):
        scale = 2 / np.sqrt(param.size / len(param)) if param.ndim > 1 else 0.5
        param.array[...] = numbers.normal(0, scale, param.shape)
    return model


def output(model, train):
    """The result in one mode as an array, or the text of the exception."""
    try:
        with mode(train):
            y = model(IMAGES)
        return chainer.as_array(y)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def equal(a, b):
    """Whether two outputs are the same text, or the same array."""
    if isinstance(a, str) or isinstance(b, str):
        return isinstance(a, type(b)) and a == b
    return same(a, b)


def outputs(network):
    """The results in both modes."""
    return [output(filled(network), train) for train in (True, False)]


stored_outputs = functools.cache(outputs)   # of the wrong answers, which do not change


def known_forward(network):
    """The cause of the stored mistake with the same results in both modes, or ''."""
    got = outputs(network)
    return next((m.cause for m in lab.mistakes["forward"]
                 if all(map(equal, got, stored_outputs(m.answer)))), "")


def ready(network):
    """The layers must be right before forward can be judged."""
    report = run("layers", layers.__wrapped__(network))
    if not report.ok:
        raise Finding("The layers are not right yet.", got=report.headline,
                      cause="Run `check.layers(LeNet5)` first and follow what it says.")


def runs(network):
    described = f"model(x) in train mode with x {name_shape(IMAGES.shape, 'N C H W')}"
    try:
        with mode(True):
            y = call(filled(network), Case({"x": IMAGES}), described)
    except Finding as finding:
        cause = known_forward(network)
        if cause:
            finding.rows["likely cause"] = cause
        raise
    if not isinstance(y, chainer.Variable):
        raise Finding(f"The result is of type {type(y).__name__}, expected a Chainer Variable.",
                      call=described, cause="Return what the last link gives. An array has "
                                            "forgotten how it was made, so nothing can be learned.")


def gives(network, train):
    """Compare the result in one mode with LeNet5's."""
    name = "logits" if train else "probabilities"
    described = f"model(x) in {'train' if train else 'test'} mode with x " \
                f"{name_shape(IMAGES.shape, 'N C H W')}"
    with mode(train):
        y = call(filled(network), Case({"x": IMAGES}), described)
    got, right = chainer.as_array(y), output(filled(LeNet5), train)
    if got.shape != right.shape:
        raise Finding("The result has the wrong shape.", call=described,
                      expected=name_shape(right.shape, "N K"), got=name_shape(got.shape, "N K"),
                      cause=known_forward(network))
    if not same(got, right):
        raise Finding(f"These are not LeNet5's {name}.", call=described,
                      expected=f"for the first image: {show(right[0])}, sum {right[0].sum():.2f}",
                      got=f"for the first image: {show(got[0])}, sum {got[0].sum():.2f}",
                      cause=known_forward(network) or
                      "Go through the table line by line: conv1, sigmoid, pooling; conv2, "
                      "sigmoid, pooling; conv3, sigmoid; fc4, sigmoid; fc5.")


def learns(network):
    model = filled(network)
    model.cleargrads()
    with mode(True):
        F.softmax_cross_entropy(model(IMAGES), np.arange(3, dtype=np.int32)).backward()
    idle = sorted({path.split("/")[1] for path, p in model.namedparams()
                   if p.grad is None or not p.grad.any()})
    if idle:
        raise Finding("The gradient does not reach every layer.", got=f"none in {', '.join(idle)}",
                      expected="a gradient in each of the five layers",
                      cause="`.array` takes the numbers out of the graph. Hand the Variable on to "
                            "the next layer as it is.")


def cut_off(m, x):
    h = halve(F.sigmoid(m.conv1(x))).array
    h = halve(F.sigmoid(m.conv2(h)))
    return finish(m.fc5(F.sigmoid(m.fc4(F.sigmoid(m.conv3(h))))))


def conv1_twice(m, x):
    return m.conv1(halve(F.sigmoid(m.conv1(x))))


def one_pool(m, x):
    h = F.sigmoid(m.conv2(halve(F.sigmoid(m.conv1(x)))))
    return finish(m.fc5(F.sigmoid(m.fc4(F.sigmoid(m.conv3(h))))))


def conv3_left_out(m, x):
    h = halve(F.sigmoid(m.conv2(halve(F.sigmoid(m.conv1(x))))))
    return finish(m.fc5(F.sigmoid(m.fc4(h))))


@lab.check(
    Mistake("softmax in train mode", "In train mode too these are probabilities, each row sums to "
            "1. The loss applies softmax itself, so train mode returns the plain logits.",
            forward_of(lambda m, x: F.softmax(scores(m, x)))),
    Mistake("modes swapped", "The modes are the wrong way round: `chainer.config.train` is True "
            "while training, and then the logits are wanted.",
            forward_of(lambda m, x: finish(scores(m, x), F.softmax, F.identity))),
    Mistake("no softmax in test mode", "In test mode these are still logits: apply `F.softmax` "
            "unless `chainer.config.train` is set.",
            forward_of(lambda m, x: scores(m, x))),
    Mistake("softmax twice", "Softmax was applied twice: the probabilities of probabilities are "
            "almost all alike.",
            forward_of(lambda m, x: finish(scores(m, x), test=lambda y: F.softmax(F.softmax(y))))),
    Mistake("log_softmax", "These are logarithms of probabilities: `F.softmax`, not "
            "`F.log_softmax`.",
            forward_of(lambda m, x: finish(scores(m, x), test=F.log_softmax))),
    Mistake("softmax over the images", "Each column sums to 1, not each row: softmax runs over "
            "the classes, axis 1, which is what `F.softmax` does by itself.",
            forward_of(lambda m, x: finish(scores(m, x), test=lambda y: F.softmax(y, axis=0)))),
    Mistake("relu", "This network has ReLU where the table says sigmoid. ReLU is a good idea (and "
            "came later); this LeNet5 has sigmoids.",
            forward_of(lambda m, x: finish(scores(m, x, F.relu, F.relu)))),
    Mistake("tanh", "This network has tanh where the table says sigmoid.",
            forward_of(lambda m, x: finish(scores(m, x, F.tanh, F.tanh)))),
    Mistake("no activations", "There is no sigmoid anywhere: without one the layers are (but for "
            "the pooling) a single linear map.",
            forward_of(lambda m, x: finish(scores(m, x, F.identity, F.identity)))),
    Mistake("no activation after fc4", "The sigmoid after fc4 is missing: two linear layers in a "
            "row are one.",
            forward_of(lambda m, x: finish(scores(m, x, last=F.identity)))),
    Mistake("sigmoid on the logits", "There is a sigmoid after fc5. Logits may be any number; "
            "squeezed into 0..1, no class can get more than e/(e + 9) = 0.23.",
            forward_of(lambda m, x: finish(F.sigmoid(scores(m, x))))),
    Mistake("average pooling", "This is average pooling: `F.max_pooling_2d`.",
            forward_of(lambda m, x: finish(scores(
                m, x, pool=lambda h: F.average_pooling_2d(h, 2, 2))))),
    Mistake("pooling missing", "The maps are too large when they reach fc4: the poolings are "
            "missing. Each halves rows and columns: `F.max_pooling_2d(h, 2, 2)`.",
            forward_of(lambda m, x: finish(scores(m, x, pool=no_pool)))),
    Mistake("pooling with stride 1", "The pooling moves by one pixel only: give it a stride of 2 "
            "as well.",
            forward_of(lambda m, x: finish(scores(
                m, x, pool=lambda h: F.max_pooling_2d(h, 2, 1))))),
    Mistake("one pooling missing", "Only one pooling runs, so the maps are too large when they "
            "reach fc4: one after conv1, one after conv2.",
            forward_of(one_pool)),
    Mistake("conv3 left out", "fc4 gets 256 numbers, 16·4·4: conv3 was left out.",
            forward_of(conv3_left_out)),
    Mistake("conv1 used twice", "conv1 gets 6 channels: it is used a second time where conv2 "
            "should be.",
            forward_of(conv1_twice)),
    Mistake("cut out of the graph", "`.array` takes the numbers out of the graph. Hand the "
            "Variable on to the next layer as it is.",
            forward_of(cut_off)),
)
def forward(answer):
    """Check the forward of `LeNet5`: give it your class, get a Report."""
    return [("attempted", lambda: blank_method(answer, "forward")),
            ("the layers", lambda: ready(answer)),
            ("it runs", lambda: runs(answer)),
            ("logits in train mode", lambda: gives(answer, True)),
            ("probabilities in test mode", lambda: gives(answer, False)),
            ("gradients in every layer", lambda: learns(answer))]


# ---- 5: classify ---------------------------------------------------------------------------

PIXELS = np.random.RandomState(2).randint(0, 256, (5, 28, 28)).astype(np.uint8)


def right_classify(model, images):
    x = images[:, None].astype(np.float32) / 255
    with chainer.using_config("train", False):
        return model(x).array.argmax(axis=1)


right_classify.__name__ = "classify"


class Probe(chainer.Chain):
    """A model that remembers what it was called with; its scores depend on the pixels alone."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        x = chainer.as_array(x)
        least, most = (round(float(value), 2) for value in (x.min(), x.max()))
        self.seen.append((x.shape, str(x.dtype), f"{least} to {most}", chainer.config.train))
        y = np.random.RandomState(3).normal(size=(10, x.size // len(x))) @ \
            x.reshape(len(x), -1).T / 255
        y = chainer.Variable(np.float32(y.T / max(x.max(), 1e-3)))
        return y if chainer.config.train else F.softmax(y)


def watch(classify):
    """What one call did: what the model saw, the result, the mode afterwards."""
    probe = Probe()
    with mode(True):
        try:
            result = call(classify, Case({"model": probe, "images": PIXELS}),
                          f"classify(model, images) with images {name_shape(PIXELS.shape, 'N H W')}"
                          " of dtype uint8")
        finally:
            after = chainer.config.train
    return {"seen": probe.seen, "result": result, "after": after}


def watched_alike(a, b):
    return a["seen"] == b["seen"] and a["after"] == b["after"] and \
        type(a["result"]) is type(b["result"]) and \
        same(chainer.as_array(a["result"]), chainer.as_array(b["result"]))


def known_use(classify, otherwise=""):
    got = watch(classify)
    return next((m.cause for m in lab.mistakes["classify"] if watched_alike(watch(m.answer), got)),
                otherwise)


INPUT = ("shape", "dtype", "values", "train")


def enters(classify):
    seen, right = watch(classify)["seen"], watch(right_classify)["seen"]
    if not seen:
        raise Finding("The model was never called.", cause="Call it like a function: `model(x)`.")
    wrong = [i for i, name in enumerate(INPUT[:3]) if seen[0][i] != right[0][i]]
    if wrong:
        raise Finding("The model does not get images as it was made for.",
                      expected="\n".join(f"{INPUT[i]}: {right[0][i]}" for i in range(3)),
                      got="\n".join(f"{INPUT[i]}: {seen[0][i]}" for i in range(3)),
                      cause=known_use(classify, f"Look at the {INPUT[wrong[0]]} of `x`."))


def in_test_mode(classify):
    if watch(classify)["seen"][0][3]:
        raise Finding("The model ran in train mode.", expected="chainer.config.train False",
                      got="chainer.config.train True",
                      cause=known_use(classify, "Call it inside `with "
                                                "chainer.using_config('train', False):`."))


def labels(classify):
    got, right = watch(classify)["result"], right_classify(Probe(), PIXELS)
    try:
        kind(got, right, "classify(model, images)")
        wrong = not same(got, right)
    except Finding as finding:
        finding.rows["likely cause"] = known_use(classify, finding.rows.get("likely cause", ""))
        raise
    if wrong:
        raise Finding("These are not the labels.", expected=show(right), got=show(got),
                      cause=known_use(classify, "For each image, the index of the largest of ten "
                                                "probabilities."))


def mode_after(classify):
    if not watch(classify)["after"]:
        raise Finding("After the call Chainer is still in test mode.",
                      expected="chainer.config.train True, as before", got="False",
                      cause=known_use(classify))


def scaled(images):
    return images[:, None].astype(np.float32) / 255


def in_test(model, x):
    with mode(False):
        return model(x).array


def left_in_test_mode(model, images):
    chainer.config.train = False
    return model(scaled(images)).array.argmax(axis=1)


@lab.check(
    Mistake("no channel axis", "The channel axis is missing: a minibatch has the shape (N, C, H, "
            "W), so grey images are (N, 1, 28, 28). `images[:, None]` adds it.",
            lambda model, images: in_test(model, scaled(images)[:, 0]).argmax(axis=1)),
    Mistake("channel axis last", "The channel axis is the last. Chainer's order is N, C, H, W: "
            "`images[:, None]` puts it second.",
            lambda model, images:
            in_test(model, np.moveaxis(scaled(images), 1, 3)).argmax(axis=1)),
    Mistake("channel axis first", "The new axis is the first, so Chainer takes the five images "
            "for five channels of one: `images[:, None]`, not `images[None]`.",
            lambda model, images: in_test(model, scaled(images).swapaxes(0, 1)).argmax(axis=1)),
    Mistake("not scaled", "The pixels still run from 0 to 255, but the network was trained with "
            "0 to 1: divide by 255.",
            lambda model, images: in_test(model, scaled(images) * 255).argmax(axis=1)),
    Mistake("divided in integers", "Every pixel but the brightest became 0: `//` cuts to whole "
            "numbers. Convert to float32, then divide with `/`.",
            lambda model, images:
            in_test(model, (images[:, None] // 255).astype(np.float32)).argmax(axis=1)),
    Mistake("float64", "A uint8 array divided by 255 is float64, but the weights are float32, and "
            "Chainer does not mix them: `.astype(np.float32)`.",
            lambda model, images: in_test(model, images[:, None] / 255).argmax(axis=1)),
    Mistake("train mode", "The model ran in train mode. LeNet5 would get away with it, a network "
            "with dropout or batch normalization would not: call it inside `with "
            "chainer.using_config('train', False):`.",
            lambda model, images: model(scaled(images)).array.argmax(axis=1)),
    Mistake("left in test mode", "`chainer.config.train = False` stays set, and the next training "
            "runs in test mode. `with chainer.using_config('train', False):` puts it back.",
            left_in_test_mode),
    Mistake("argmax over the images", "This is the largest of each column: one image for each "
            "class. Over the classes it is `argmax(axis=1)`.",
            lambda model, images: in_test(model, scaled(images)).argmax(axis=0)),
    Mistake("argmax over everything", "`argmax()` without an axis gives one number for the whole "
            "minibatch: `argmax(axis=1)`.",
            lambda model, images: in_test(model, scaled(images)).argmax()),
    Mistake("probabilities", "These are the probabilities. The label is the index of the largest: "
            "`argmax(axis=1)`.",
            lambda model, images: in_test(model, scaled(images))),
    Mistake("largest probability", "This is how large the largest probability is, not which class "
            "has it: `argmax`, not `max`.",
            lambda model, images: in_test(model, scaled(images)).max(axis=1)),
)
def classify(answer):
    """Check `classify`: give it your function, get a Report."""
    return [("attempted", lambda: attempted(answer)),
            ("signature", lambda: signature(answer, right_classify)),
            ("what the model gets", lambda: enters(answer)),
            ("test mode", lambda: in_test_mode(answer)),
            ("labels", lambda: labels(answer)),
            ("the mode afterwards", lambda: mode_after(answer))]
