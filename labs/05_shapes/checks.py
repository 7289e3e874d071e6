"""Checks of lab 5, shapes: output sizes, cover_all, and parameters that wait for a first call."""

import copy
from itertools import product

from convnets.check import (
    Finding,
    Function,
    Lab,
    Mistake,
    NotAttempted,
    attempted,
    describe,
    given,
    signature,
)
from convnets.check.traits import Trait, stages

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np

lab = Lab(__file__, around=lambda: chainer.using_config("train", True))
hint, solution, solved = lab.hint, lab.solution, lab.solved


# ---- 1: out_size ---------------------------------------------------------------------------

def right_size(size, k, s=1, p=0, cover_all=False):
    room = size + 2 * p - k
    return (room + (s - 1 if cover_all else 0)) // s + 1


right_size.__name__ = "out_size"


def size_by_hand(a, _index):
    size, k, s, p = a["size"], a["k"], a.get("s", 1), a.get("p", 0)
    room = size + 2 * p - k
    up = a.get("cover_all", False)
    return (f"room to move: {size} + 2·{p} - {k} = {room}; steps of {s}: {room / s:g}, rounded "
            f"{'up' if up else 'down'}: {right_size(size, k, s, p, up) - 1}; positions: one more, "
            f"{right_size(size, k, s, p, up)}")


def sizes_of_chainer(out_size):
    """Let Chainer pool: a formula is right for all sizes or it is wrong."""
    for k, s, p, cover_all in product((1, 2, 3), (1, 2, 3), (0, 1), (False, True)):
        for size in range(3, 13):
            rows = np.zeros((1, 1, size, size), np.float32)
            right = F.max_pooling_2d(rows, k, s, p, cover_all=cover_all).shape[2]
            got = out_size(size, k, s=s, p=p, cover_all=cover_all)
            if got != right:
                call = f"{size}, {k}, s={s}, p={p}, cover_all={cover_all}"
                raise Finding(f"Chainer's max pooling leaves {right} rows of {size}.",
                              call=f"out_size({call})", expected=str(right), got=str(got))


def sizes(formula):
    """A wrong answer: positions from the room to move, the stride and cover_all."""
    def out_size(size, k, s=1, p=0, cover_all=False):
        return formula(size + 2 * p - k, s, cover_all)
    return out_size


def ceil(a, b):
    return -(-a // b)


out_size = lab.function(Function(
    reference=right_size,
    cases=(given(size=5, k=2, s=2, cover_all=True), given(size=5, k=2, s=2),
           given(size=28, k=5), given(size=28, k=2, s=2, cover_all=True),
           given(size=112, k=3, s=2, p=1), given(size=112, k=3, s=2, p=1, cover_all=True),
           given(size=225, k=2, s=2, cover_all=True), given(size=1, k=2, s=2, cover_all=True),
           given(size=8, k=3, s=3, cover_all=True), given(size=7, k=3, s=3, cover_all=True),
           given(size=7, k=2, s=2), given(size=7, k=2, s=2, cover_all=True)),
    by_hand=size_by_hand,
    hand_title="5 pixels by hand",
    properties=(("Chainer's own sizes", sizes_of_chainer),),
    mistakes=(
        Mistake("cover_all ignored", "This rounds down, whatever cover_all says. With "
                "cover_all=True the last window may stick out over the rim: round the number of "
                "steps up.", sizes(lambda room, s, up: room // s + 1)),
        Mistake("always covers all", "This rounds up even with cover_all=False. Then a window "
                "that would stick out is dropped: round down, `//`.",
                sizes(lambda room, s, up: ceil(room, s) + 1)),
        Mistake("the wrong way round", "True and False have changed places: cover_all=True rounds "
                "up.", sizes(lambda room, s, up: (room // s if up else ceil(room, s)) + 1)),
        Mistake("one more for cover_all", "cover_all does not always add a position: only where "
                "the steps do not come out even. 28 pixels halve to 14 either way. (To round up, "
                "`//` needs s - 1 more, not s.)",
                sizes(lambda room, s, up: room // s + 1 + bool(up))),
        Mistake("1 added for s - 1", "To round up, `//` needs s - 1 more, not 1: with s = 3 the "
                "two differ.", sizes(lambda room, s, up: (room + bool(up)) // s + 1)),
        Mistake("one too few", "n steps lead to n + 1 positions: the one at the start counts. Add "
                "1 after the division.",
                sizes(lambda room, s, up: ceil(room, s) if up else room // s)),
        Mistake("rounded to nearest", "`round` goes to the nearest number, and from a half to the "
                "even one. Without cover_all a half step is dropped, with it counted.",
                sizes(lambda room, s, up: round(room / s) + 1)),
        Mistake("kernel forgotten", "The window's own k pixels are missing: it has only size + 2p "
                "- k pixels of room to move. Steps are counted in that room, positions are one "
                "more.", lambda size, k, s=1, p=0, cover_all=False:
                ceil(size + 2 * p, s) if cover_all else (size + 2 * p) // s),
        Mistake("pad on one side", "Padding puts p pixels on both sides: the row has size + 2p.",
                lambda size, k, s=1, p=0, cover_all=False:
                right_size(size + p, k, s, 0, cover_all)),
        Mistake("padding forgotten", "The padding p is missing: the row has size + 2p pixels.",
                lambda size, k, s=1, p=0, cover_all=False: right_size(size, k, s, 0, cover_all)),
    ),
))


# ---- 2: flat_size --------------------------------------------------------------------------

SMALL = (("conv", 4, 3, 1, 0), ("pool", None, 2, 2, 0))
LENET5 = (("conv", 6, 5, 1, 0), ("pool", None, 2, 2, 0), ("conv", 16, 5, 1, 0),
          ("pool", None, 2, 2, 0), ("conv", 120, 4, 1, 0))
STEM = (("conv", 64, 7, 2, 3), ("pool", None, 3, 2, 0), ("conv", 32, 3, 2, 1))


def maps(layers, shape, cover_all=True):
    """The map behind each layer, (C, H, W)."""
    found = [tuple(shape)]
    for kind, n_out, k, s, p in layers:
        c, *size = found[-1]
        up = kind == "pool" and cover_all
        found.append((n_out or c, *(right_size(n, k, s, p, up) for n in size)))
    return found


def right_flat_size(layers, shape, cover_all=True):
    c, h, w = maps(layers, shape, cover_all)[-1]
    return c * h * w


right_flat_size.__name__ = "flat_size"


def flat_by_hand(a, _index):
    steps = maps(a["layers"], a["shape"], a.get("cover_all", True))
    c, h, w = steps[-1]
    return (f"{' > '.join('x'.join(map(str, s)) for s in steps)} (C x H x W); flat: "
            f"{c}·{h}·{w} = {c * h * w}")


def inputs_of_chainer(flat_size):
    """Build the layers, end with L.Linear(None, 1), call it, and ask for its inputs."""
    for layers, shape in ((SMALL, (3, 8, 11)), (LENET5, (1, 31, 29)), (STEM, (3, 37, 41))):
        x = np.zeros((1, *shape), np.float32)
        for kind, n_out, k, s, p in layers:
            x = F.max_pooling_2d(x, k, s, p) if kind == "pool" else \
                L.Convolution2D(None, n_out, k, s, p)(x)
        fc = L.Linear(None, 1)
        fc(x)
        if flat_size(layers, shape) != fc.W.shape[1]:
            raise Finding("`L.Linear(None, 1)` behind these layers gets another number of inputs.",
                          call=f"flat_size({layers}, {shape})", expected=str(fc.W.shape[1]),
                          got=str(flat_size(layers, shape)))


def flat(size=None, channels=None, product_of=None):
    """A wrong answer: with another size of a layer, other channels, or another product."""
    def flat_size(layers, shape, cover_all=True):
        c, *sides = shape
        for kind, n_out, k, s, p in layers:
            rule = size or (lambda n, k, s, p, pools, up: right_size(n, k, s, p, pools and up))
            sides = [rule(n, k, s, p, kind == "pool", cover_all) for n in sides]
            c = channels(c, n_out) if channels else n_out or c
        return (product_of or (lambda c, h, w: c * h * w))(c, *sides)
    return flat_size


flat_size = lab.function(Function(
    reference=right_flat_size,
    cases=(given(layers=SMALL, shape=(3, 9, 9)), given(layers=SMALL, shape=(3, 9, 9),
                                                       cover_all=False),
           given(layers=LENET5, shape=(1, 28, 28)), given(layers=LENET5, shape=(1, 29, 29)),
           given(layers=LENET5, shape=(1, 29, 29), cover_all=False),
           given(layers=LENET5[:2], shape=(1, 20, 29)), given(layers=STEM, shape=(3, 64, 48)),
           given(layers=STEM[:2], shape=(3, 64, 48), cover_all=False)),
    by_hand=flat_by_hand,
    hand_title="two layers by hand",
    properties=(("Chainer's own L.Linear(None, 1)", inputs_of_chainer),),
    mistakes=(
        Mistake("pooling rounded down", "The pooling rounds down. Chainer's max pooling covers all "
                "by default: `out_size(..., cover_all=cover_all)` for a pool.",
                flat(size=lambda n, k, s, p, pools, up: right_size(n, k, s, p))),
        Mistake("cover_all ignored", "The pooling covers all, whatever cover_all says: hand it on "
                "to `out_size`.", flat(size=lambda n, k, s, p, pools, up:
                                       right_size(n, k, s, p, pools))),
        Mistake("convolutions cover all", "cover_all was used for convolutions too. It is a "
                "matter of the pooling: a convolution's windows must fit.",
                flat(size=lambda n, k, s, p, pools, up: right_size(n, k, s, p, up))),
        Mistake("channels forgotten", "The channels are missing: every channel has a map of H·W "
                "numbers, so the vector has C·H·W.", flat(product_of=lambda c, h, w: h * w)),
        Mistake("rows only", "A map has rows and columns: C·H·W numbers, not C·H.",
                flat(product_of=lambda c, h, w: c * h)),
        Mistake("height squared", "Maps need not be square: follow H and W each by itself.",
                flat(product_of=lambda c, h, w: c * h * h)),
        Mistake("the image's channels", "These are the channels of the image. A convolution has as "
                "many as its row says, n_out; a pooling keeps them.",
                flat(channels=lambda c, n_out: c)),
        Mistake("channels multiplied", "A convolution sums over its input channels: it leaves "
                "n_out of them, not C times n_out.",
                flat(channels=lambda c, n_out: c * (n_out or 1))),
        Mistake("return inside the loop", "Only the first layer was followed: `return` is "
                "indented into the loop.", lambda layers, shape, cover_all=True:
                right_flat_size(layers[:1], shape, cover_all)),
        Mistake("bias counted", "One too many: the bias is no input, it is added to the output.",
                lambda layers, shape, cover_all=True:
                right_flat_size(layers, shape, cover_all) + 1),
        Mistake("padding forgotten", "The padding p of a layer is missing.",
                flat(size=lambda n, k, s, p, pools, up: right_size(n, k, s, 0, pools and up))),
        Mistake("stride forgotten", "The stride s of a layer is missing.",
                flat(size=lambda n, k, s, p, pools, up: right_size(n, k, 1, p))),
        Mistake("pooling left out", "The poolings were passed over: they change H and W as well.",
                flat(size=lambda n, k, s, p, pools, up: n if pools else right_size(n, k, s, p))),
    ),
))


# ---- models to try -------------------------------------------------------------------------

SHAPE = (1, 12, 10)   # C, H, W


class Lazy(chainer.Chain):
    """Three links wait for a first call; batch normalization and dropout mind the mode."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.conv = L.Convolution2D(None, 2, 3)
            self.bn = L.BatchNormalization(2)
            self.fc4 = L.Linear(None, 4)
            self.fc5 = L.Linear(None, 3)

    def forward(self, x):
        h = F.max_pooling_2d(F.relu(self.bn(self.conv(x))), 2, 2)
        return self.fc5(F.dropout(F.relu(self.fc4(h))))


class Row(chainer.ChainList):
    """Links in a row."""

    def forward(self, x):
        for link in self.children():
            x = link(x)
        return x


def images(n=4):
    return np.random.RandomState(1).uniform(0, 1, (n, *SHAPE)).astype(np.float32)


def mode(train):
    return chainer.using_config("train", train)


def missing(model):
    return [name for name, p in sorted(model.namedparams()) if not p.is_initialized]


# ---- 3: unresolved -------------------------------------------------------------------------

def right_unresolved(model):
    return [name for name, param in model.namedparams() if param.array is None]


right_unresolved.__name__ = "unresolved"


def paths(unresolved, model):
    """What an answer gives for a model, sorted, and whether the model is still as it was."""
    before = missing(model)
    result = unresolved(model)
    if result is None:
        raise Finding("The function returns None.", call="unresolved(model)",
                      cause="Is the last line, `return ...`, missing?")
    if result is ...:
        raise NotAttempted
    if not isinstance(result, (list, tuple, set)):
        return describe(result)
    listed = sorted(x if isinstance(x, str) else f"<{type(x).__name__}>" for x in result)
    text = ", ".join(listed) or "an empty list"
    return text if missing(model) == before else f"{text}; and the model is resolved now"


class TwoLinks(chainer.Chain):
    """One link that waits, and one that does not."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.first = L.Linear(None, 3)
            self.second = L.Linear(3, 2)

    def forward(self, x):
        return self.second(self.first(x))


def nested():
    return Row(chainer.Sequential(L.Convolution2D(None, 2, 3), F.relu), L.Linear(None, 3))


def called(model, x):
    with mode(False):
        model(x)
    return model


def trained():
    """A complete model whose batch normalization has seen data."""
    np.random.seed(2)
    model = Lazy()
    with mode(True):
        model(images())
    return model


UNRESOLVED_TRAITS = (
    Trait("two links by hand", "Of two links, other names come out.",
          lambda f: paths(f, TwoLinks()),
          "unresolved(model) with first = L.Linear(None, 3), second = L.Linear(3, 2)",
          "`for name, param in model.namedparams():`, and keep the names whose `param.array` is "
          "None.",
          "first.W waits for its inputs: array None; first.b has 3 numbers; second has all: W "
          "(2, 3), b (2,)"),
    Trait("convolution, BN, fc", "Of a whole network, other names come out.",
          lambda f: paths(f, Lazy()),
          "unresolved(model) with conv, bn, fc4, fc5, three of them made with None",
          "The path as `namedparams()` gives it, for every parameter whose array is None."),
    Trait("links inside links", "Of links inside links, other names come out.",
          lambda f: paths(f, nested()),
          "unresolved(ChainList(Sequential(L.Convolution2D(None, 2, 3), F.relu), "
          "L.Linear(None, 3)))",
          "`model.namedparams()` goes down into all links by itself."),
    Trait("after a call", "After a call, nothing is missing any more.",
          lambda f: paths(f, called(Lazy(), images())), "unresolved(model) after model(x)",
          "Ask each parameter, each time."),
)


@lab.check(
    Mistake("every parameter", "These are all parameters. Keep those that have no array yet: `if "
            "param.array is None`.", lambda model: [name for name, _ in model.namedparams()]),
    Mistake("those that are there", "These are the parameters that *have* an array: the condition "
            "is the wrong way round.",
            lambda model: [n for n, p in model.namedparams() if p.array is not None]),
    Mistake("asking for the shape", "A parameter without an array has no shape and no size to "
            "ask for. Ask for the array itself: `param.array is None`.",
            lambda model: [n for n, p in model.namedparams() if p.shape is None]),
    Mistake("asking for the size", "A parameter without an array has no size to ask for. Ask for "
            "the array itself: `param.array is None`.",
            lambda model: [n for n, p in model.namedparams() if p.size == 0]),
    Mistake("not param.array", "`not array` and `array == None` go through an array number by "
            "number and have no single answer. Ask with `is`: `param.array is None`.",
            lambda model: [n for n, p in model.namedparams() if not p.array]),
    Mistake("slash cut off", "The path begins with a slash, which stands for the model itself: "
            "give it as `namedparams()` does.",
            lambda model: [n[1:] for n in right_unresolved(model)]),
    Mistake("the bare name", "Only the last part of the path is left, and every link has a W. "
            "`model.namedparams()` gives the whole path.",
            lambda model: [p.name for p in model.params() if p.array is None]),
    Mistake("parameters, not names", "These are the parameters. Whoever reads the list wants "
            "their names, the first of each pair.",
            lambda model: [p for p in model.params() if p.array is None]),
    Mistake("names of the links", "These are the paths of the links. A link with a lazy W may "
            "have a b that is there: give the paths of the parameters.",
            lambda model: [n.rsplit("/", 1)[0] for n, p in model.namedparams() if p.array is None]),
    Mistake("uninitialised ones left out", "`include_uninit=False` leaves out just those that "
            "are asked for.",
            lambda model: [n for n, p in model.namedparams(include_uninit=False)
                           if p.array is None]),
    Mistake("a count", "This is how many there are. To mend it, one needs to know which.",
            lambda model: len(right_unresolved(model))),
    Mistake("the first level only", "Only the model's own children were asked. Links may lie "
            "inside links: `model.namedparams()` goes all the way down.",
            lambda model: [f"/{link.name}/W" for link in model.children()
                           if hasattr(link, "W") and link.W.array is None]),
)
def unresolved(answer):
    """Check `unresolved`: give it your function, get a Report."""
    return [("attempted", lambda: attempted(answer)),
            ("signature", lambda: signature(answer, right_unresolved)),
            *stages(lab, "unresolved", answer, right_unresolved, UNRESOLVED_TRAITS)]


# ---- 4: resolve ----------------------------------------------------------------------------

def right_resolve(model, shape):
    with mode(False), chainer.no_backprop_mode():
        model(np.zeros((1, *shape), np.float32))


right_resolve.__name__ = "resolve"


def resolved(resolve, model):
    """The model after `resolve`, called in train mode."""
    np.random.seed(0)
    with mode(True):
        result = resolve(model, SHAPE)
    if result is ...:
        raise NotAttempted
    return model


def shapes_now(resolve):
    model = resolved(resolve, Lazy())
    return ", ".join(f"{name} {None if p.array is None else p.array.shape}"
                     for name, p in sorted(model.namedparams()) if name.endswith("/W"))


def statistics(model):
    return (f"avg_mean {' '.join(f'{v:.3f}' for v in model.bn.avg_mean)}, "
            f"avg_var {' '.join(f'{v:.3f}' for v in model.bn.avg_var)}")


def draws(resolve):
    """What two models in a row take from the random numbers."""
    np.random.seed(0)
    first, second = Lazy(), Lazy()
    with mode(True):
        resolve(first, SHAPE)
        resolve(second, SHAPE)
    if missing(first) or missing(second):
        return f"{' and '.join(missing(first) or missing(second))} wait still"
    alike = np.array_equal(first.conv.W.array, second.conv.W.array)
    return (f"the two get {'the same' if alike else 'different'} weights; the next random number "
            f"is {np.random.uniform():.4f}")


def mode_afterwards(resolve):
    with mode(True):
        resolve(Lazy(), SHAPE)
        return f"chainer.config.train {chainer.config.train}"


def a_model_in_use(resolve):
    """Which parts of a model that is complete and trained are changed."""
    model = trained()
    before = dict(everything(model))
    resolved(resolve, model)
    changed = [name for name, value in everything(model) if not np.array_equal(value, before[name])]
    return ", ".join(changed) or "nothing is changed"


def everything(model):
    """Name and a copy of every parameter, and of BN's statistics."""
    for name, param in sorted(model.namedparams()):
        yield name, param.array.copy()
    for name in ("avg_mean", "avg_var"):
        yield f"/bn/{name}", getattr(model.bn, name).copy()


RESOLVE_CALL = "resolve(model, (1, 12, 10)), model with conv, bn, fc4, dropout, fc5"
RESOLVE_TRAITS = (
    Trait("every weight has a shape", "The weights have other shapes, or none.", shapes_now,
          RESOLVE_CALL,
          "Run the model itself once, on one image of the given shape: `model(np.zeros((1, "
          "*shape), np.float32))`.",
          "conv leaves 12 - 3 + 1 = 10 by 10 - 3 + 1 = 8, pooled 5 by 4: fc4 gets 2·5·4 = 40"),
    Trait("BN's statistics", "The statistics of batch normalization have moved.",
          lambda f: statistics(resolved(f, Lazy())), RESOLVE_CALL,
          "In train mode batch normalization learns from whatever it sees. `with "
          "chainer.using_config('train', False):`.",
          "train mode: avg_var = 0.9·1 + 0.1·(variance of the batch)"),
    Trait("random numbers", "Other random numbers are used up than the weights need.", draws,
          "np.random.seed(0); resolve(first, shape); resolve(second, shape)",
          "Only the new weights may draw. An image of zeros needs no random numbers, dropout in "
          "test mode needs none."),
    Trait("the mode afterwards", "After the call the mode is another.", mode_afterwards,
          RESOLVE_CALL, "`with chainer.using_config('train', False):` puts the mode back."),
    Trait("a model in use", "A model that is complete already is changed.", a_model_in_use,
          "resolve(model, shape) of a trained model",
          "In test mode a call changes nothing that is there."),
)


def zeros(shape, dtype=np.float32):
    return np.zeros((1, *shape), dtype)


def in_train_mode(model, shape):
    model(zeros(shape))


def of_a_copy(model, shape):
    right_resolve(copy.deepcopy(model), shape)


def without_n(model, shape):
    with mode(False):
        model(np.zeros(shape, np.float32))


def in_float64(model, shape):
    with mode(False):
        model(zeros(shape, float))


def left_in_test_mode(model, shape):
    chainer.config.train = False
    model(zeros(shape))


def random_image(model, shape):
    with mode(False):
        model(np.random.uniform(size=(1, *shape)).astype(np.float32))


def seeded(model, shape):
    np.random.seed(0)
    right_resolve(model, shape)


def state_put_back(model, shape):
    state = np.random.get_state()
    right_resolve(model, shape)
    np.random.set_state(state)


def statistics_put_back(model, shape):
    kept = model.bn.avg_mean.copy(), model.bn.avg_var.copy()
    model(zeros(shape))
    model.bn.avg_mean[...], model.bn.avg_var[...] = kept


def statistics_reset(model, shape):
    model(zeros(shape))
    model.bn.avg_mean[...], model.bn.avg_var[...] = 0, 1


def only_the_links(model, shape):
    for link in model.children():
        if getattr(link, "W", None) is not None and link.W.array is None:
            with mode(False):
                link(zeros(shape))


@lab.check(
    Mistake("train mode", "The model ran in train mode: batch normalization took the empty image "
            "for data and moved its statistics. `with chainer.using_config('train', False):` "
            "around the call.", in_train_mode),
    Mistake("of a copy", "The model itself still waits for its first call. (A call of a copy "
            "gives weights to the copy.) Call the model.", of_a_copy),
    Mistake("seeded", "`np.random.seed` makes every model draw the *same* weights, and everything "
            "after it too. Seeds are the caller's; draw what the weights need, no more.", seeded),
    Mistake("no N axis", "shape is (C, H, W), that of a single image. A minibatch has the axis N "
            "in front: `np.zeros((1, *shape), np.float32)`.", without_n),
    Mistake("float64", "`np.zeros` is float64 unless it is told otherwise, and Chainer does not "
            "mix it with float32: `np.zeros((1, *shape), np.float32)`.", in_float64),
    Mistake("left in test mode", "`chainer.config.train = False` stays set, and the next training "
            "runs in test mode. `with chainer.using_config('train', False):` puts it back.",
            left_in_test_mode),
    Mistake("a random image", "The image was drawn at random, so every number drawn later is "
            "another one. Only shapes count here: zeros will do.", random_image),
    Mistake("random state put back", "The state of the random numbers was put back. But the "
            "weights are made of these numbers: put back, the next model gets the *same* weights. "
            "What the weights need must stay used up.", state_put_back),
    Mistake("statistics put back", "The statistics were put back by hand, but the model ran in "
            "train mode, and dropout has drawn random numbers. Test mode avoids both.",
            statistics_put_back),
    Mistake("statistics reset", "The statistics were set to 0 and 1, also where a training has "
            "put better ones, and in train mode dropout draws random numbers. Test mode touches "
            "neither.", statistics_reset),
    Mistake("link by link", "Each link got the image itself, so fc4 has as many inputs as the "
            "image has pixels. What a link gets, only the model's `forward` knows: call the "
            "model.", only_the_links),
)
def resolve(answer):
    """Check `resolve`: give it your function, get a Report."""
    return [("attempted", lambda: attempted(answer)),
            ("signature", lambda: signature(answer, right_resolve)),
            *stages(lab, "resolve", answer, right_resolve, RESOLVE_TRAITS)]


# ---- 5: twin -------------------------------------------------------------------------------

def right_twin(model, shape):
    right_resolve(model, shape)
    return copy.deepcopy(model)


right_twin.__name__ = "twin"


def twin_of(twin, model, shape=SHAPE):
    """The twin that an answer makes in train mode, with seeded random numbers."""
    np.random.seed(0)
    with mode(True):
        result = twin(model, shape)
    if result is ...:
        raise NotAttempted
    if not isinstance(result, chainer.Link):
        raise Finding(f"The result is {describe(result)}, expected a model.",
                      call="twin(model, shape)", cause="`return` the copy.")
    return result


class Drawn(chainer.Chain):
    """A link with weights drawn from the normal distribution, at the first call."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.fc = L.Linear(None, 1, initialW=chainer.initializers.Normal(1))

    def forward(self, x):
        return self.fc(x)


def two_weights(twin):
    model = Drawn()
    other = twin_of(twin, model, (2,))
    # One that still waits draws its weights here, as in a user's first call.
    parts = [(name, called(one, np.zeros((1, 2), np.float32)).fc.W.array.ravel())
             for name, one in (("model", model), ("twin", other))]
    return ", ".join(f"{name} {w[0]:.3f} {w[1]:.3f}" for name, w in parts)


def outputs(twin):
    model = Lazy()
    other = twin_of(twin, model)
    with mode(False):
        gap = abs(model(images()).array - other(images()).array).max()
    return f"outputs differ by {gap:.3f}"


def independent(twin):
    model = called(Lazy(), images())
    other = twin_of(twin, model)
    if other is model:
        return "the twin is the model"
    with mode(False):
        before = other(images()).array
        for param in model.params():
            param.array += 1
        after = other(images()).array
    same = np.array_equal(before, after)
    return f"the twin's outputs {'stay' if same else 'change'}"


def original(twin):
    """What is left of a lazy model whose optimizer is set up, and of a trained model."""
    model = Lazy()
    params = list(model.params())
    twin_of(twin, model)
    same = all(a is b for a, b in zip(params, model.params(), strict=True))
    state = "complete" if not missing(model) else f"without {', '.join(missing(model))}"
    return f"{'the same' if same else 'new'} parameters, {state}; {statistics(model)}"


def trained_statistics(twin):
    return statistics(twin_of(twin, trained()))


TWIN_TRAITS = (
    Trait("two weights by hand", "Model and twin do not have the same weights.", two_weights,
          "np.random.seed(0); twin(model, (2,)), model of one link, fc = L.Linear(None, 1)",
          "A weight that waits is drawn at each model's own first call. Let the model have its "
          "weights first, then copy it.",
          "the random numbers are 1.764, 0.400, then 0.979, 2.241: the model's weights are the "
          "first two, and so must be the twin's"),
    Trait("outputs", "Model and twin give different outputs.", outputs,
          "twin(model, (1, 12, 10)), model with conv, bn, fc4, dropout, fc5",
          "Let the model have its weights first, then copy it."),
    Trait("arrays of its own", "Change the model's weights, and the twin changes too.",
          independent, "other = twin(model, shape); then 1 is added to every weight of model",
          "`model.copy()` shares the arrays; `model.copy('copy')` or `copy.deepcopy(model)` has "
          "its own."),
    Trait("the model afterwards", "The model is not as it should be afterwards.", original,
          "twin(model, (1, 12, 10))",
          "The model keeps its parameters (an optimizer may hold them) and its statistics, and "
          "is complete."),
    Trait("a trained model's twin", "The twin of a trained model has other statistics.",
          trained_statistics, "twin(model, shape) of a trained model",
          "The twin has the model's statistics, as they are."),
)


def copied(how, first=right_resolve, then=None):
    """A wrong answer: resolve the model or not, copy it, resolve the copy or not."""
    def twin(model, shape):
        if first:
            first(model, shape)
        other = how(model)
        if then:
            then(other, shape)
        return other
    return twin


def both_resolved(model, shape):
    other = model.copy("copy")
    right_resolve(model, shape)
    right_resolve(other, shape)
    return other


def made_anew(model, shape):
    right_resolve(model, shape)
    other = type(model)()
    right_resolve(other, shape)
    return other


def params_only(model, shape):
    other = made_anew(model, shape)
    other.copyparams(model, copy_persistent=False)
    return other


@lab.check(
    Mistake("copied before the first call", "The copy was made while the weights were still "
            "missing: each of the two draws its own at its own first call. Resolve the model "
            "first, then copy it.", copied(copy.deepcopy, first=None)),
    Mistake("both resolved after copying", "Copied first, then resolved both: each draws weights "
            "of its own. Resolve the model first, then copy it.", both_resolved),
    Mistake("only the twin resolved", "The twin was resolved, the model not: it will draw other "
            "weights at its first call. Resolve the model, then copy it.",
            copied(copy.deepcopy, first=None, then=right_resolve)),
    Mistake("arrays shared", "`copy()` shares the arrays (and of a model that waits even the "
            "arrays to come): train one, and you train both. `model.copy('copy')` or "
            "`copy.deepcopy(model)` has its own.", copied(lambda model: model.copy())),
    Mistake("shared, and not resolved", "`copy()` shares the arrays, even those to come: train "
            "one, and you train both. And the model still waits. Resolve it, then "
            "`copy.deepcopy(model)`.", copied(lambda model: model.copy(), first=None)),
    Mistake("the model itself", "This is the model itself under a second name, no copy.",
            copied(lambda model: model)),
    Mistake("drawn anew", "`copy('init')` draws all weights anew: the twin is a stranger. "
            "`copy('copy')` copies them.", copied(lambda model: model.copy("init"))),
    Mistake("made anew", "A new object of the class draws weights of its own: the twin is a "
            "stranger. Copy the model.", made_anew),
    Mistake("statistics left behind", "The weights are the model's, but the statistics of batch "
            "normalization are new: they are no parameters, but belong to a model all the same. "
            "`copy.deepcopy(model)` takes everything.", params_only),
    Mistake("resolved in train mode", "The model ran in train mode on the way, so batch "
            "normalization has moved its statistics: your `resolve` knows better.",
            copied(copy.deepcopy, first=in_train_mode)),
)
def twin(answer):
    """Check `twin`: give it your function, get a Report."""
    return [("attempted", lambda: attempted(answer)),
            ("signature", lambda: signature(answer, right_twin)),
            *stages(lab, "twin", answer, right_twin, TWIN_TRAITS)]
