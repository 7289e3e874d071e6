"""Checks of lab 8, BottleNeck and the cost of proj: its links, its sum, a stage, what is unused."""

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
    name_shape,
    signature,
)
from convnets.check.networks import Network, filled, images

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
from chainer.initializers import HeNormal

lab = Lab(__file__, around=lambda: chainer.using_config("train", True))
hint, solution, solved = lab.hint, lab.solution, lab.solved


# ---- 1 and 2: BottleNeck ---------------------------------------------------------------------

def conv(n_in, n_out, ksize, stride=1, w=HeNormal, pad=None, nobias=True):
    return L.Convolution2D(n_in, n_out, ksize, stride, ksize // 2 if pad is None else pad,
                           initialW=w and w(), nobias=nobias)


def links_of(n_in, n_mid, n_out, stride, strides=None, proj=None, conv=conv):
    """The links of a right block by name; the options make wrong ones."""
    first, second, third = strides or (stride, 1, stride)
    yield "conv1x1a", conv(n_in, n_mid, 1, first)
    yield "bn_a", L.BatchNormalization(n_mid)
    yield "conv3x3b", conv(n_mid, n_mid, 3, second)
    yield "bn_b", L.BatchNormalization(n_mid)
    yield "conv1x1c", conv(n_mid, n_out, 1)
    yield "bn_c", L.BatchNormalization(n_out)
    if proj or (proj is None and (stride != 1 or n_in != n_out)):
        yield "conv1x1r", conv(n_in, n_out, 1, third)
        yield "bn_r", L.BatchNormalization(n_out)


class Right(chainer.Chain):
    """The right block; wrong ones have other `links`, or do another step otherwise."""

    def __init__(self, n_in, n_mid, n_out, stride=1):
        super().__init__()
        with self.init_scope():
            for name, link in self.links_of(n_in, n_mid, n_out, stride):
                setattr(self, name, link)

    def links_of(self, n_in, n_mid, n_out, stride):
        return links_of(n_in, n_mid, n_out, stride)

    def branch(self, x):
        h = F.relu(self.bn_a(self.conv1x1a(x)))
        h = F.relu(self.bn_b(self.conv3x3b(h)))
        return self.bn_c(self.conv1x1c(h))

    def shortcut(self, x):
        return self.bn_r(self.conv1x1r(x)) if hasattr(self, "conv1x1r") else x

    def end(self, h, x):
        return F.relu(h + x)

    def forward(self, x):
        return self.end(self.branch(x), self.shortcut(x))


Right.__name__ = "BottleNeck"   # what an exception of the reader's code says


def block(**methods):
    """A wrong block: `Right` with other methods."""
    return type("BottleNeck", (Right,), methods)


def made(**options):
    """A wrong block: the options of `links_of` for all blocks."""
    return block(links_of=lambda self, *sizes: links_of(*sizes, **options))


def strides(choose):
    """A wrong block: other strides of conv1x1a, conv3x3b and conv1x1r."""
    return block(links_of=lambda self, n_in, n_mid, n_out, stride: links_of(
        n_in, n_mid, n_out, stride, strides=choose(stride)))


def proj_if(condition):
    """A wrong block: projected under another condition."""
    return block(links_of=lambda self, n_in, n_mid, n_out, stride: links_of(
        n_in, n_mid, n_out, stride, proj=condition(n_in, n_out, stride)))


def convs(**options):
    """A wrong block: other convolutions."""
    return made(conv=functools.partial(conv, **options))


def changed(**others):
    """A wrong block: some links replaced, given the sizes; None leaves one out."""
    def links(self, *sizes):
        for name, link in links_of(*sizes):
            link = others[name](*sizes) if name in others else link
            if link is not None:
                yield name, link
    return block(links_of=links)


def without_scope(self, *sizes):
    chainer.Chain.__init__(self)
    for name, link in links_of(*(*sizes, 1)[:4]):
        setattr(self, name, link)


# Only the channels change, only the map does, both, and nothing. Where the map of 2 x 2 is halved
# to a single place, a sum with the input raises nothing.
BOTTLENECK = Network(
    "BottleNeck", Right, lab=lab,
    cases=(((8, 4, 8), (3, 8, 5, 6)), ((64, 32, 128, 2), (2, 64, 6, 6)),
           ((8, 4, 16), (3, 8, 4, 4)), ((8, 6, 8, 2), (3, 8, 2, 2))),
    modes=(True, False),
    advice="Go through the table line by line, and use its names. A convolution is `conv(in, out, "
           "window, stride)`, a batch normalization `L.BatchNormalization(channels of what comes "
           "out of the convolution)`.",
    steps="Go through the table line by line: conv1x1a, bn_a, relu; conv3x3b, bn_b, relu; "
          "conv1x1c, bn_c. Then the shortcut, the sum, and relu of the sum.")


def attempted_method(network, method):
    """Raise NotAttempted if the class has Chain's own method, or a blank one."""
    found = getattr(network, method, ...)
    if network is ... or found is getattr(chainer.Chain, method, ...) or is_blank(found):
        raise NotAttempted


@lab.check(
    Mistake("always projected", "The projection is registered even where the shapes are equal. It "
            "is dead weight there: register it only if `stride != 1 or n_in != n_out`.",
            made(proj=True)),
    Mistake("never projected", "There is no projection. Where the shape changes, the sum needs "
            "one: `if stride != 1 or n_in != n_out:`.", made(proj=False)),
    Mistake("projected for the stride only", "With stride 1 the channels may change as well, as in "
            "the first block of res2 (64 to 256): `stride != 1 or n_in != n_out`.",
            proj_if(lambda n_in, n_out, stride: stride != 1)),
    Mistake("projected for the channels only", "With as many channels as before the map may still "
            "be halved: `stride != 1 or n_in != n_out`.",
            proj_if(lambda n_in, n_out, stride: n_in != n_out)),
    Mistake("both must change", "One change is enough: `or`, not `and`.",
            proj_if(lambda n_in, n_out, stride: stride != 1 and n_in != n_out)),
    Mistake("stride in the 3x3", "The stride is in the 3x3 convolution. That is torchvision's "
            "ResNet; the paper and this lab have it in the first 1x1, conv1x1a.",
            strides(lambda stride: (1, stride, stride))),
    Mistake("stride twice", "conv1x1a and conv3x3b both have the stride, so the map would become a "
            "quarter as high and wide. Only conv1x1a (and the projection).",
            strides(lambda stride: (stride, stride, stride))),
    Mistake("projection without stride", "The projection has stride 1, so the shortcut would keep "
            "the whole map while the branch halves it: give conv1x1r the stride too.",
            strides(lambda stride: (stride, 1, 1))),
    Mistake("stride unused", "Nothing uses `stride`: conv1x1a and conv1x1r have it.",
            strides(lambda stride: (1, 1, 1))),
    Mistake("3x3 without padding", "conv3x3b has no padding and would lose a row on each side: "
            "`conv(...)` of the cell above pads by ksize // 2.",
            changed(conv3x3b=lambda n_in, n_mid, n_out, stride: conv(n_mid, n_mid, 3, pad=0))),
    Mistake("biases", "The convolutions have a bias. Batch normalization behind them takes any "
            "constant off again: `nobias=True`.", convs(nobias=False)),
    Mistake("Chainer's own initialiser", "The weights are drawn with variance 1 / inputs, "
            "Chainer's default. ResNet uses `initialW=HeNormal()`.", convs(w=None)),
    Mistake("3x3 on all channels", "conv3x3b works on n_mid channels, that is the point of the "
            "bottleneck. Yours takes n_in and is much dearer.",
            changed(conv1x1a=lambda n_in, n_mid, n_out, stride: conv(n_in, n_in, 1, stride),
                    bn_a=lambda n_in, n_mid, n_out, stride: L.BatchNormalization(n_in),
                    conv3x3b=lambda n_in, n_mid, n_out, stride: conv(n_in, n_mid, 3))),
    Mistake("not widened again", "conv1x1c gives n_mid channels. It has to widen them to n_out, "
            "so that the sum is possible.",
            changed(conv1x1c=lambda n_in, n_mid, n_out, stride: conv(n_mid, n_mid, 1),
                    bn_c=lambda n_in, n_mid, n_out, stride: L.BatchNormalization(n_mid))),
    Mistake("bn_c of n_mid", "bn_c normalizes what conv1x1c gives: n_out channels, not n_mid.",
            changed(bn_c=lambda n_in, n_mid, n_out, stride: L.BatchNormalization(n_mid))),
    Mistake("bn_a of n_in", "bn_a normalizes what conv1x1a gives, n_mid channels, not what it "
            "takes.",
            changed(bn_a=lambda n_in, n_mid, n_out, stride: L.BatchNormalization(n_in))),
    Mistake("bn_r forgotten", "The projection has a batch normalization of its own, bn_r.",
            changed(bn_r=lambda *sizes: None)),
    Mistake("projection from n_mid", "The projection takes what the block takes: n_in channels. "
            "It is a way around the other three convolutions.",
            changed(conv1x1r=lambda n_in, n_mid, n_out, stride: conv(n_mid, n_out, 1, stride))),
    Mistake("projection to n_mid", "The projection gives what the block gives, n_out channels: it "
            "is added to what bn_c returns.",
            changed(conv1x1r=lambda n_in, n_mid, n_out, stride: conv(n_in, n_mid, 1, stride),
                    bn_r=lambda n_in, n_mid, n_out, stride: L.BatchNormalization(n_mid))),
    Mistake("projection of 3x3", "The projection has a window of 1: it mixes the channels of each "
            "place, no more.",
            changed(conv1x1r=lambda n_in, n_mid, n_out, stride: conv(n_in, n_out, 3, stride))),
    Mistake("init_scope forgotten", "Chainer does not know of these links, so nothing would train "
            "or save them: assign them inside `with self.init_scope():`.",
            block(__init__=without_scope)),
)
def layers(answer):
    """Check the layers of `BottleNeck`: give it your class, get a Report."""
    return [("attempted", lambda: attempted_method(answer, "__init__")),
            ("a class", lambda: BOTTLENECK.is_class(answer, "layers")),
            ("its links", lambda: BOTTLENECK.is_made(answer, "layers"))]


def steps(**methods):
    """A wrong forward: some of its steps otherwise."""
    return block(**methods)


def branch(act=F.relu, act_b=None, norm_a=True, norm_c=True):
    """The branch with other activations, or without some normalizations."""
    def run(self, x):
        h = self.conv1x1a(x)
        h = act(self.bn_a(h) if norm_a else h)
        h = (act_b or act)(self.bn_b(self.conv3x3b(h)))
        h = self.conv1x1c(h)
        return self.bn_c(h) if norm_c else h
    return run


def relu_first(self, x):
    h = self.bn_a(F.relu(self.conv1x1a(x)))
    h = self.bn_b(F.relu(self.conv3x3b(h)))
    return self.bn_c(self.conv1x1c(h))


def overwritten(self, x):
    x = F.relu(self.bn_a(self.conv1x1a(x)))
    x = F.relu(self.bn_b(self.conv3x3b(x)))
    h = self.bn_c(self.conv1x1c(x))
    return F.relu(h + self.shortcut(x))


def bn_a_twice(self, x):
    h = F.relu(self.bn_a(self.conv1x1a(x)))
    h = F.relu(self.bn_a(self.conv3x3b(h)))
    return self.bn_c(self.conv1x1c(h))


def branch_projected(self, x):
    h = self.branch(x)
    return F.relu(h + self.shortcut(h)) if hasattr(self, "conv1x1r") else F.relu(h + x)


def doubled(self, x):
    h = self.branch(x)
    return F.relu(h + h)


@lab.check(
    Mistake("ReLU before the sum", "ReLU stands before the sum, so the branch can only add, never "
            "take away, and the maps grow from block to block. First the sum, then ReLU: "
            "`F.relu(h + x)`.",
            steps(end=lambda self, h, x: F.relu(h) + x)),
    Mistake("ReLU before and after", "ReLU stands behind the sum, and also before it, at bn_c. "
            "The branch must be able to take something away: no ReLU behind bn_c.",
            steps(end=lambda self, h, x: F.relu(F.relu(h) + x))),
    Mistake("no ReLU at the end", "The last ReLU is missing: `F.relu(h + x)`.",
            steps(end=lambda self, h, x: h + x)),
    Mistake("no sum", "The input is not added: this is a plain block. `F.relu(h + x)`.",
            steps(forward=lambda self, x: F.relu(self.branch(x)))),
    Mistake("x overwritten", "`x` was overwritten on the way, so what is added (or projected) is "
            "no longer the input. Use another name for the branch, such as h.",
            steps(forward=overwritten)),
    Mistake("the branch added to itself", "The branch is added to itself. What is added is the "
            "input, x, or its projection.", steps(forward=doubled)),
    Mistake("never projected", "The projection is registered, but not used: where there is one, "
            "`x = self.bn_r(self.conv1x1r(x))` before the sum. (A sum that happens to be "
            "possible raises nothing.)",
            steps(shortcut=lambda self, x: x)),
    Mistake("always projected", "A block that keeps the shape has no conv1x1r: ask first, with "
            "`hasattr(self, 'conv1x1r')` or a flag from `__init__`.",
            steps(shortcut=lambda self, x: self.bn_r(self.conv1x1r(x)))),
    Mistake("bn_r left out", "The projection is not normalized: bn_r was left out.",
            steps(shortcut=lambda self, x: self.conv1x1r(x) if hasattr(self, "conv1x1r") else x)),
    Mistake("ReLU on the projection", "There is a ReLU on the projected shortcut. Only the sum has "
            "one.",
            steps(shortcut=lambda self, x: F.relu(Right.shortcut(self, x))
                  if hasattr(self, "conv1x1r") else x)),
    Mistake("no ReLU in the branch", "There is no ReLU in the branch: one belongs behind bn_a, "
            "one behind bn_b.", steps(branch=branch(act=F.identity))),
    Mistake("no ReLU behind bn_a", "The ReLU behind bn_a is missing.",
            steps(branch=branch(act=F.identity, act_b=F.relu))),
    Mistake("no ReLU behind bn_b", "The ReLU behind bn_b is missing.",
            steps(branch=branch(act_b=F.identity))),
    Mistake("ReLU before the normalization", "ReLU comes before batch normalization here. The "
            "order is convolution, normalization, ReLU.", steps(branch=relu_first)),
    Mistake("bn_a left out", "bn_a was left out: each convolution has its normalization behind it.",
            steps(branch=branch(norm_a=False))),
    Mistake("bn_a twice", "bn_a is used twice: bn_b belongs behind conv3x3b.",
            steps(branch=bn_a_twice)),
    Mistake("the branch projected", "conv1x1r gets the branch. It projects the input, x, on its "
            "way around the branch.", steps(forward=branch_projected)),
    Mistake("bn_c left out", "bn_c was left out: conv1x1c has its normalization behind it, before "
            "the sum.", steps(branch=branch(norm_c=False))),
)
def forward(answer):
    """Check the forward of `BottleNeck`: give it your class, get a Report."""
    return [("attempted", lambda: attempted_method(answer, "forward")),
            ("the layers", lambda: layers_first(answer)),
            ("what it computes", lambda: BOTTLENECK.computes(answer, "forward")),
            ("gradients everywhere", lambda: BOTTLENECK.learns(answer))]


def layers_first(answer):
    """The links must be right before forward can be judged."""
    BOTTLENECK.is_class(answer, "forward")
    if any(BOTTLENECK.differences(answer)):
        raise Finding("The layers are not right yet.",
                      cause="Run `check.layers(BottleNeck)` first and follow what it says.")


# ---- 3: ResBlock -----------------------------------------------------------------------------

class Stage(chainer.ChainList):
    """The right stage; wrong ones have another `plan` or `forward`."""

    def __init__(self, n_layers, n_in, n_mid, n_out, stride=2):
        super().__init__()
        for link in self.plan(n_layers, n_in, n_mid, n_out, stride):
            self.add_link(link)

    def plan(self, n_layers, n_in, n_mid, n_out, stride):
        return [Right(n_in, n_mid, n_out, stride),
                *(Right(n_out, n_mid, n_out) for _ in range(n_layers - 1))]

    def forward(self, x):
        for link in self.children():
            x = link(x)
        return x


Stage.__name__ = "ResBlock"


def stage(**methods):
    """A wrong stage: `Stage` with other methods."""
    return type("ResBlock", (Stage,), methods)


def plan(make):
    """A wrong stage: other blocks."""
    return stage(plan=lambda self, *arguments: make(*arguments))


def one_block_again(n_layers, n_in, n_mid, n_out, stride):
    return [Right(n_in, n_mid, n_out, stride)] + [Right(n_out, n_mid, n_out)] * (n_layers - 1)


def default_of_one(self, n_layers, n_in, n_mid, n_out, stride=1):
    Stage.__init__(self, n_layers, n_in, n_mid, n_out, stride)


def kept_in_a_list(self, *arguments):
    chainer.ChainList.__init__(self)
    self.blocks = Stage.plan(self, *(*arguments, 2)[:5])


def in_a_scope(self, n_layers, n_in, n_mid, n_out, stride=2):
    chainer.ChainList.__init__(self)
    with self.init_scope():
        self.first = Right(n_in, n_mid, n_out, stride)


def first_only(self, x):
    for link in self.children():
        return link(x)


def always_x(self, x):
    for link in self.children():
        y = link(x)
    return y


def with_sums(self, x):
    for i, link in enumerate(self.children()):
        x = link(x) + x if i else link(x)
    return x


STAGE = Network(
    "ResBlock", Stage, lab=lab,
    cases=(((3, 8, 4, 16), (2, 8, 8, 8)), ((2, 8, 4, 16, 1), (2, 8, 4, 4)),
           ((1, 16, 4, 16, 2), (2, 16, 4, 4))),
    modes=(True, False),
    advice="The first child is `BottleNeck(n_in, n_mid, n_out, stride)`, the others are "
           "`BottleNeck(n_out, n_mid, n_out)`. Has `check.layers(BottleNeck)` passed?",
    steps="Through the children in their order, and nothing else: `for link in self.children(): x "
          "= link(x)`. Has `check.forward(BottleNeck)` passed?")


@lab.check(
    Mistake("n_in for all", "Only the first block gets n_in channels. What reaches the others has "
            "n_out.",
            plan(lambda n, n_in, n_mid, n_out, stride: [
                Right(n_in, n_mid, n_out, stride),
                *(Right(n_in, n_mid, n_out) for _ in range(n - 1))])),
    Mistake("the same arguments for all", "All blocks have the arguments of the first. The others "
            "get n_out channels and keep the map: `BottleNeck(n_out, n_mid, n_out)`.",
            plan(lambda n, *sizes: [Right(*sizes) for _ in range(n)])),
    Mistake("stride in all", "Every block has the stride, so each would halve the map again. Only "
            "the first.",
            plan(lambda n, n_in, n_mid, n_out, stride: [
                Right(n_in, n_mid, n_out, stride),
                *(Right(n_out, n_mid, n_out, stride) for _ in range(n - 1))])),
    Mistake("stride in none", "No block has the stride: the first one takes it.",
            plan(lambda n, n_in, n_mid, n_out, stride: Stage.plan(
                None, n, n_in, n_mid, n_out, 1))),
    Mistake("stride in the last", "The last block changes the shape here. It is the first that "
            "does, so that the others work on the small map.",
            plan(lambda n, n_in, n_mid, n_out, stride: [
                *(Right(n_in, n_mid, n_in) for _ in range(n - 1)),
                Right(n_in, n_mid, n_out, stride)])),
    Mistake("one block too many", "The first block counts: besides it there are n_layers - 1.",
            plan(lambda n, *sizes: Stage.plan(None, n + 1, *sizes))),
    Mistake("one block too few", "There is one block too few: the first, and n_layers - 1 "
            "others.",
            plan(lambda n, *sizes: Stage.plan(None, n, *sizes)[:max(n - 1, 1)])),
    Mistake("one block many times", "The same block object stands in the list several times: "
            "`[b] * n` repeats it, with one set of weights for all. Make a new one in each round "
            "of a loop.", plan(one_block_again)),
    Mistake("n_out inside", "The blocks after the first are not narrow: inside they have n_mid "
            "channels too.",
            plan(lambda n, n_in, n_mid, n_out, stride: [
                Right(n_in, n_mid, n_out, stride),
                *(Right(n_out, n_out, n_out) for _ in range(n - 1))])),
    Mistake("stride 1 by default", "The default of stride is 2 in the exercise: three of the four "
            "stages halve the map.", stage(__init__=default_of_one)),
    Mistake("kept in a list", "The blocks lie in a plain list, which Chainer does not look into. "
            "`self.add_link(...)` makes each a child.", stage(__init__=kept_in_a_list)),
    Mistake("init_scope in a ChainList", "A ChainList has no names to register: `init_scope` is "
            "for a Chain. Here each block is given to `self.add_link(...)`.",
            stage(__init__=in_a_scope)),
    Mistake("first and others swapped", "The first block has the arguments of the others, and the "
            "others those of the first: it is the first that changes the shape.",
            plan(lambda n, n_in, n_mid, n_out, stride: [
                Right(n_out, n_mid, n_out),
                *(Right(n_in, n_mid, n_out, stride) for _ in range(n - 1))])),
    Mistake("return inside the loop", "Only the first block runs: is `return` indented into the "
            "loop?", stage(forward=first_only)),
    Mistake("x for every block", "Every block gets what the stage got. Hand on what the one before "
            "has given: `x = link(x)`.", stage(forward=always_x)),
    Mistake("a second shortcut", "The input of each block is added once more. The block has its "
            "shortcut inside.", stage(forward=with_sums)),
)
def ResBlock(answer):
    """Check `ResBlock`: give it your class, get a Report."""
    return [("attempted", lambda: attempted(answer)),
            ("a class", lambda: STAGE.is_class(answer, "ResBlock")),
            ("its blocks", lambda: STAGE.is_made(answer, "ResBlock")),
            ("what it computes", lambda: STAGE.computes(answer, "ResBlock")),
            ("gradients everywhere", lambda: STAGE.learns(answer))]


# ---- 4: proj_cost ----------------------------------------------------------------------------

WIDTHS = (256, 512, 1024, 2048)


def right_proj_cost(n_blocks):
    return sum((n - 1) * (width * width + 2 * width)
               for n, width in zip(n_blocks, WIDTHS, strict=True))


right_proj_cost.__name__ = "proj_cost"


def cost_by(formula, minus=1):
    """A wrong answer: another number of parameters for each projection, or of projections."""
    return lambda n_blocks: sum((n - minus) * formula(width)
                                for n, width in zip(n_blocks, WIDTHS, strict=True))


def cost_by_hand(a, _index):
    lines = [f"res{i}: ({n} - 1) · ({width}·{width} + 2·{width}) = {n - 1} · {width**2 + 2 * width}"
             f" = {(n - 1) * (width**2 + 2 * width)}"
             for i, (n, width) in enumerate(zip(a["n_blocks"], WIDTHS, strict=True), 2)]
    return "\n".join([*lines, f"sum: {right_proj_cost(a['n_blocks'])}"])


def counts_of_links(proj_cost):
    """A projection of 256 channels, made and counted."""
    links = conv(256, 256, 1), L.BatchNormalization(256)
    right = sum(link.count_params() for link in links)
    got = call(proj_cost, Case({"n_blocks": (2, 1, 1, 1)}), "proj_cost((2, 1, 1, 1))")
    if got != right:
        raise Finding("A single projection, made and counted, has another number of parameters.",
                      call="proj_cost((2, 1, 1, 1))", expected=str(right), got=str(got))


proj_cost = lab.function(Function(
    reference=right_proj_cost,
    cases=(given(n_blocks=(2, 3, 1, 1)), given(n_blocks=(3, 4, 6, 3)),
           given(n_blocks=(3, 4, 23, 3)), given(n_blocks=(3, 8, 36, 3)),
           given(n_blocks=(1, 1, 1, 1)), given(n_blocks=(1, 1, 1, 5))),
    by_hand=cost_by_hand,
    hand_title="six and one blocks by hand",
    properties=(("a projection, made and counted", counts_of_links),),
    mistakes=(
        Mistake("the first counted too", "The first block of each stage needs its projection, so "
                "it costs nothing more: n - 1 blocks of a stage count.",
                cost_by(lambda w: w * w + 2 * w, minus=0)),
        Mistake("one block in all", "Every stage has a first block that needs its projection: n - "
                "1 in each of the four stages, not one less in all.",
                lambda n_blocks: right_proj_cost(n_blocks) + sum(
                    w * w + 2 * w for w in WIDTHS[1:])),
        Mistake("batch normalization forgotten", "bn_r is registered as well: gamma and beta, 2 "
                "numbers for each channel.", cost_by(lambda w: w * w)),
        Mistake("running averages counted", "avg_mean and avg_var are saved, but they are no "
                "parameters: nothing learns them. Batch normalization has gamma and beta, 2 for "
                "each channel.", cost_by(lambda w: w * w + 4 * w)),
        Mistake("a bias", "The projection has no bias (`nobias=True`), its batch normalization "
                "has beta.", cost_by(lambda w: w * w + 3 * w)),
        Mistake("one number for each channel", "Batch normalization has two numbers for each "
                "channel, gamma and beta.", cost_by(lambda w: w * w + w)),
        Mistake("from the narrow channels", "The projection goes around the bottleneck: from all "
                "the channels that come in, not from the narrow quarter inside.",
                cost_by(lambda w: w * w // 4 + 2 * w)),
        Mistake("as a 3x3", "The projection has a window of 1, so w·w weights, not 9 times as "
                "many.", cost_by(lambda w: 9 * w * w + 2 * w)),
        Mistake("from the channels before", "Behind the first block of a stage, a block gets as "
                "many channels as it gives.",
                cost_by(lambda w: w * (w // 2 if w > 256 else 64) + 2 * w)),
        Mistake("all parameters of the blocks", "This counts whole blocks. Only the projection is "
                "asked for: conv1x1r and bn_r.",
                cost_by(lambda w: w * w // 2 + 9 * w * w // 16 + w + 2 * w)),
    ),
))


# ---- 5: unreached ----------------------------------------------------------------------------

SHAPE = (4, 8, 4, 4)


def right_unreached(model, x):
    model.cleargrads()
    F.sum(model(x) ** 2).backward()
    return sorted(path for path, param in model.namedparams() if param.grad is None)


right_unreached.__name__ = "unreached"


class Spare(Right):
    """A block with a projection that its forward never uses."""

    def links_of(self, n_in, n_mid, n_out, stride):
        return links_of(n_in, n_mid, n_out, stride, proj=True)

    def shortcut(self, x):
        return x


def whole():
    return filled(Right(8, 4, 8))


def spare():
    return filled(Spare(8, 4, 8))


def silent():
    """A block whose branch ends in zeros: gradients of 0 reach what lies before."""
    model = whole()
    model.bn_c.gamma.array[...] = 0
    return model


def trained():
    """A block with an unused projection that has been updated once."""
    model = spare()
    optimizer = chainer.optimizers.SGD(0.01).setup(model)
    model.cleargrads()
    F.sum(model(images(SHAPE)) ** 2).backward()
    optimizer.update()
    return model


MODELS = {"a BottleNeck(8, 4, 8)": whole,
          "a block with a projection that forward does not use": spare,
          "a block whose bn_c has a gamma of 0": silent,
          "the block with the unused projection, after an update": trained}


def answers(unreached):
    """What it says of each model, and in what state it leaves the gradients."""
    found = []
    for make in MODELS.values():
        model = make()
        try:
            said = unreached(model, images(SHAPE))
        except Exception as error:
            found.append(f"{type(error).__name__}: {error}")
            continue
        names = isinstance(said, list) and all(isinstance(name, str) for name in said)
        found.append((said if names else brief(said), *traces(model)))
    return found


def traces(model):
    """Whether some gradients are None or all zeros, and whether an optimizer has been here."""
    grads = [param.grad for param in model.params()]
    return (any(g is None for g in grads), any(g is not None and not g.any() for g in grads),
            all(param.update_rule is not None for param in model.params()))


def brief(value):
    """What came instead of names: 'list of Parameter', 'a dict'."""
    if isinstance(value, list):
        return "list of " + " and ".join(sorted({type(v).__name__ for v in value}))
    return describe(value)


@functools.cache
def stored_answers(unreached):
    return answers(unreached)


def known_answers(unreached, index=None):
    """Cause of the stored mistake that says the same, of one model and of most others."""
    found = answers(unreached)
    fits = {m.cause: [a == b for a, b in zip(stored_answers(m.answer), found, strict=True)]
            for m in lab.mistakes["unreached"]}
    suspects = {cause: sum(fit) for cause, fit in fits.items() if index is None or fit[index]}
    cause = max(suspects, key=suspects.get, default="")
    return cause if suspects.get(cause) else ""


def is_list(unreached):
    described = f"unreached(model, x) with model a BottleNeck(8, 4, 8), x " \
                f"{name_shape(SHAPE, 'N C H W')}"
    try:
        got = call(unreached, Case({"model": spare(), "x": images(SHAPE)}), described)
    except Finding as finding:
        finding.rows["likely cause"] = known_answers(unreached, 1) or \
            finding.rows.get("likely cause", "")
        raise
    if not isinstance(got, list) or not all(isinstance(name, str) for name in got):
        raise Finding("The result is not a list of names.", call=described, got=brief(got),
                      expected="a list of texts such as '/conv1x1a/W'",
                      cause=known_answers(unreached, 1) or
                      ("`model.namedparams()` gives pairs of a name and a parameter."
                       if isinstance(got, list) else "`sorted(...)` makes a list of the names."))


def says(unreached, index):
    name, make = list(MODELS.items())[index]
    got = call(unreached, Case({"model": make(), "x": images(SHAPE)}), "unreached(model, x)")
    right = right_unreached(make(), images(SHAPE))
    if got == right:
        return
    cause = known_answers(unreached, index)
    if sorted(got) == right:
        cause = cause or "The names are right, in another order: `sorted(...)`."
    raise Finding("These are not the parameters that the gradient misses.", call="unreached(model, "
                  "x)", given=f"model: {name}", expected=", ".join(right) or "an empty list",
                  got=", ".join(got) or "an empty list",
                  cause=cause or "First `model.cleargrads()`, then a loss from `model(x)`, then "
                                 "its `backward()`. Whose grad is still None was not reached.")


def leaves_parameters(unreached):
    model = spare()
    before = {path: param.array.copy() for path, param in model.namedparams()}
    unreached(model, images(SHAPE))
    moved = [path for path, param in sorted(model.namedparams())
             if not (param.array == before[path]).all()]
    if moved:
        raise Finding("The parameters are other numbers now.", got=", ".join(moved),
                      cause="Looking must not train: no optimizer, no update.")


def after_backward(model, x):
    model.cleargrads()
    F.sum(model(x) ** 2).backward()
    return sorted(model.namedparams())


def not_cleared(model, x):
    F.sum(model(x) ** 2).backward()
    return sorted(path for path, param in model.namedparams() if param.grad is None)


def zeroed(model, x):
    for param in model.params():
        param.grad = np.zeros_like(param.array)
    return not_cleared(model, x)


def no_backward(model, x):
    model.cleargrads()
    F.sum(model(x) ** 2)
    return sorted(path for path, param in model.namedparams() if param.grad is None)


def after_update(model, x):
    optimizer = chainer.optimizers.SGD(0).setup(model)
    model.cleargrads()
    F.sum(model(x) ** 2).backward()
    optimizer.update()
    return sorted(path for path, param in model.namedparams() if param.grad is None)


def zeros_too(model, x):
    return [path for path, param in after_backward(model, x)
            if param.grad is None or not param.grad.any()]


def zeros_only(model, x):
    return [path for path, param in after_backward(model, x)
            if param.grad is not None and not param.grad.any()]


def links_instead(model, x):
    return sorted({path.split("/")[1] for path in right_unreached(model, x)})


def bare_names(model, x):
    return sorted(param.name for _, param in after_backward(model, x) if param.grad is None)


def reached(model, x):
    return [path for path, param in after_backward(model, x) if param.grad is not None]


def parameters(model, x):
    return [param for _, param in after_backward(model, x) if param.grad is None]


def backward_of_maps(model, x):
    model.cleargrads()
    model(x).backward()
    return sorted(path for path, param in model.namedparams() if param.grad is None)


def compared_by_value(model, x):
    return [path for path, param in after_backward(model, x) if param.grad == None]  # noqa: E711


def without_slash(model, x):
    return [path[1:] for path in right_unreached(model, x)]


@lab.check(
    Mistake("not cleared", "Nothing is None, as every gradient still holds something from before "
            "(not-a-number in a new model, zeros after an update): `model.cleargrads()` first.",
            not_cleared),
    Mistake("set to zero", "Gradients of 0 from the start look the same whether backward came by "
            "or not. `model.cleargrads()` sets them to None.", zeroed),
    Mistake("no backward", "No gradient was calculated: `loss.backward()` is missing, so "
            "everything is still None.", no_backward),
    Mistake("after the update", "An update gives a gradient of zeros to every parameter that has "
            "none. Look after `backward()`, before any update; none is needed here.",
            after_update),
    Mistake("zeros counted", "A gradient of zeros has arrived, it only happens to be zero: behind "
            "a gamma of 0 everything gets such. Not reached means `param.grad is None`.",
            zeros_too),
    Mistake("only zeros", "These have a gradient, of zeros. Not reached means that there is none: "
            "`param.grad is None`.", zeros_only),
    Mistake("links", "These are links. Return the names of the parameters, as "
            "`model.namedparams()` gives them: '/conv1x1r/W'.", links_instead),
    Mistake("names without the way", "W, gamma and beta occur in many links. `model.namedparams()` "
            "gives names that tell which: '/conv1x1r/W'.", bare_names),
    Mistake("slash cut off", "The names begin with a slash, as `model.namedparams()` gives them.",
            without_slash),
    Mistake("== None", "`==` compares an array number by number. Whether something is None, ask "
            "with `is`: `param.grad is None`.", compared_by_value),
    Mistake("reached", "These are the ones that the gradient has reached. Those with `grad is "
            "None` are asked for.", reached),
    Mistake("parameters", "These are the parameters themselves. Return their names.", parameters),
    Mistake("backward from the maps", "`backward()` starts from a single number: make a loss of "
            "the maps, such as `F.sum(y ** 2)`.", backward_of_maps),
)
def unreached(answer):
    """Check `unreached`: give it your function, get a Report."""
    return [("attempted", lambda: attempted(answer)),
            ("signature", lambda: signature(answer, right_unreached)),
            ("a list of names", lambda: is_list(answer)),
            ("an unused projection", lambda: says(answer, 1)),
            ("a block without one", lambda: says(answer, 0)),
            ("gradients of zero", lambda: says(answer, 2)),
            ("a model that was trained before", lambda: says(answer, 3)),
            ("nothing learned", lambda: leaves_parameters(answer))]
