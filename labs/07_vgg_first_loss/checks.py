"""Checks of lab 7, VGG from blocks and its first loss: the block, the list, the loss, its cure."""

import functools
import math

from convnets.check import (
    Case,
    Finding,
    Function,
    Lab,
    Mistake,
    attempted,
    call,
    given,
    raised,
    same,
    signature,
)
from convnets.check.networks import Network, images, ready

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
from chainer.initializers import HeNormal

lab = Lab(__file__, around=lambda: chainer.using_config("train", True))
hint, solution, solved = lab.hint, lab.solution, lab.solved


# ---- 1: VGGBlock -----------------------------------------------------------------------------

def convolution(n_in, n_out, ksize=3, stride=1, pad=1, w=HeNormal, **options):
    return L.Convolution2D(n_in, n_out, ksize, stride, pad, initialW=w and w(), **options)


def halve(h):
    return F.max_pooling_2d(h, 2, 2)


class Block(chainer.Chain):
    """The right block; wrong ones have another `conv` or `run`."""

    def conv(self, n_in, n_out):
        return convolution(n_in, n_out)

    def __init__(self, n_in, n_channels, n_convs):
        super().__init__()
        self.n_convs = n_convs
        with self.init_scope():
            for i in range(1, n_convs + 1):
                setattr(self, f"conv{i}", self.conv(n_in if i == 1 else n_channels, n_channels))

    def convs(self):
        return [self[f"conv{i}"] for i in range(1, self.n_convs + 1)]

    def run(self, x):
        for conv in self.convs():
            x = F.relu(conv(x))
        return halve(x)

    def forward(self, x):
        return self.run(x)


def block(**methods):
    """A wrong block: `Block` with other methods."""
    return type("VGGBlock", (Block,), methods)


def block_of(conv):
    """A wrong block: other convolutions."""
    return block(conv=lambda self, n_in, n_out: conv(n_in, n_out))


def all_from_n_in(self, n_in, n_channels, n_convs):
    chainer.Chain.__init__(self)
    self.n_convs = n_convs
    with self.init_scope():
        for i in range(1, n_convs + 1):
            setattr(self, f"conv{i}", convolution(n_in, n_channels))


def always_two(self, n_in, n_channels, n_convs):
    Block.__init__(self, n_in, n_channels, 2)


def one_too_few(self, n_in, n_channels, n_convs):
    Block.__init__(self, n_in, n_channels, n_convs - 1)


def from_zero(self, n_in, n_channels, n_convs):
    chainer.Chain.__init__(self)
    with self.init_scope():
        for i in range(n_convs):
            setattr(self, f"conv{i}", convolution(n_channels if i else n_in, n_channels))


def without_scope(self, n_in, n_channels, n_convs):
    chainer.Chain.__init__(self)
    self.n_convs = n_convs
    for i in range(1, n_convs + 1):
        setattr(self, f"conv{i}", convolution(n_channels if i > 1 else n_in, n_channels))


def in_a_list(self, n_in, n_channels, n_convs):
    chainer.Chain.__init__(self)
    self.convolutions = [convolution(n_channels if i else n_in, n_channels)
                         for i in range(n_convs)]


def one_name(self, n_in, n_channels, n_convs):
    chainer.Chain.__init__(self)
    with self.init_scope():
        for i in range(n_convs):
            self.conv = convolution(n_channels if i else n_in, n_channels)


def pool_each(self, x):
    for conv in self.convs():
        x = halve(F.relu(conv(x)))
    return x


def relu_last(self, x):
    for conv in self.convs():
        x = conv(x)
    return halve(F.relu(x))


def no_relu(self, x):
    for conv in self.convs():
        x = conv(x)
    return halve(x)


def no_relu_last(self, x):
    *first, last = self.convs()
    for conv in first:
        x = F.relu(conv(x))
    return halve(last(x))


def relu_before(self, x):
    for conv in self.convs():
        x = conv(F.relu(x))
    return halve(x)


def through(self, x):
    for conv in self.convs():
        x = F.relu(conv(x))
    return x


def inside_loop(self, x):
    for conv in self.convs():
        return halve(F.relu(conv(x)))


def always_x(self, x):
    for conv in self.convs():
        h = F.relu(conv(x))
    return halve(h)


def by_children(self, x):
    for conv in self.children():
        x = F.relu(conv(x))
    return halve(x)


BLOCK = Network(
    "VGGBlock", Block, lab=lab,
    # Odd maps tell how the pooling treats the rim, eleven convolutions whether 10 comes after 9.
    cases=(((16, 24, 3), (2, 16, 7, 6)), ((20, 16, 1), (1, 20, 8, 8)), ((4, 4, 11), (1, 4, 6, 6))),
    advice="The convolutions are named conv1, conv2, ..., registered inside `with "
           "self.init_scope():`, and made by `L.Convolution2D(in, out, 3, 1, 1, "
           "initialW=HeNormal())`.",
    steps="For each convolution in turn, conv1 first: `x = F.relu(self[f'conv{i}'](x))`. Then, "
          "once, `F.max_pooling_2d(x, 2, 2)`.")


@lab.check(
    Mistake("every convolution from n_in", "Only conv1 gets n_in channels. What reaches conv2 and "
            "the others has n_channels already: `n_in if i == 1 else n_channels`.",
            block(__init__=all_from_n_in)),
    Mistake("padding forgotten", "Without padding a 3x3 convolution loses a row and a column on "
            "each side. VGG pads by 1, so that only the pooling changes the size.",
            block_of(lambda n_in, n_out: convolution(n_in, n_out, pad=0))),
    Mistake("stride and padding swapped", "Behind the window of 3 comes the stride, then the "
            "padding: `L.Convolution2D(in, out, 3, 1, 1)`, or `pad=1` by name. Yours moves by 2.",
            block_of(lambda n_in, n_out: convolution(n_in, n_out, stride=2))),
    Mistake("window of 5", "VGG's windows are 3 wide, in every layer; this one is 5. Two of 3 see "
            "as much with fewer weights.",
            block_of(lambda n_in, n_out: convolution(n_in, n_out, ksize=5, pad=2))),
    Mistake("no bias", "VGG's convolutions have a bias: leave `nobias` out. (It is ResNet that "
            "needs none, as batch normalization follows.)",
            block_of(lambda n_in, n_out: convolution(n_in, n_out, nobias=True))),
    Mistake("Chainer's own initialiser", "The weights are drawn with variance 1 / inputs: that is "
            "Chainer's default, LeCunNormal. The tutorial's VGG says `initialW=HeNormal()`.",
            block_of(lambda n_in, n_out: convolution(n_in, n_out, w=None))),
    Mistake("fan_out", "The variance is 2 / outputs. `HeNormal()` without options counts the "
            "inputs of one output number.",
            block_of(lambda n_in, n_out: convolution(
                n_in, n_out, w=functools.partial(HeNormal, fan_option="fan_out")))),
    Mistake("always two convolutions", "There are two convolutions, whatever n_convs says. Make "
            "them in a loop over `range(1, n_convs + 1)`.",
            block(__init__=always_two)),
    Mistake("one convolution too few", "`range(1, n_convs)` ends before n_convs: one convolution "
            "is missing. `range(1, n_convs + 1)`.",
            block(__init__=one_too_few)),
    Mistake("counted from 0", "The names count from 0. As in the paper they count from 1: conv1, "
            "conv2, ...",
            block(__init__=from_zero)),
    Mistake("init_scope forgotten", "Chainer does not know of these convolutions, so nothing would "
            "train them: assign them inside `with self.init_scope():`.",
            block(__init__=without_scope)),
    Mistake("in a list", "Chainer does not look into a list. Give each convolution a name of its "
            "own: `setattr(self, f'conv{i}', ...)`.",
            block(__init__=in_a_list)),
    Mistake("one name for all", "`self.conv = ...` in a loop keeps the last one only. The name "
            "must count: `setattr(self, f'conv{i}', ...)`.",
            block(__init__=one_name)),
    Mistake("pooling after each convolution", "The pooling is inside the loop. It comes once, "
            "after the last convolution: indent it less.",
            block(run=pool_each)),
    Mistake("pooling missing", "Rows and columns are still all there: end with "
            "`F.max_pooling_2d(x, 2, 2)`.",
            block(run=through)),
    Mistake("average pooling", "This is average pooling: `F.max_pooling_2d`.",
            block(run=lambda self, x: F.average_pooling_2d(through(self, x), 2, 2))),
    Mistake("pooling with stride 1", "The pooling moves by one pixel only: "
            "`F.max_pooling_2d(x, 2, 2)`, window and stride.",
            block(run=lambda self, x: F.max_pooling_2d(through(self, x), 2, 1))),
    Mistake("pooling without the rim", "7 rows became 3. Chainer's max pooling covers the rim as "
            "well and gives 4, unless `cover_all=False` forbids it.",
            block(run=lambda self, x: F.max_pooling_2d(through(self, x), 2, 2, cover_all=False))),
    Mistake("a window of 3", "The pooling's window is 2, not 3: `F.max_pooling_2d(x, 2, 2)`.",
            block(run=lambda self, x: F.max_pooling_2d(through(self, x), 3, 2))),
    Mistake("no ReLU", "There is no ReLU. Without one, all convolutions of the block together "
            "could be a single one.",
            block(run=no_relu)),
    Mistake("only one ReLU", "ReLU stands behind the last convolution only. It belongs behind "
            "each: inside the loop.",
            block(run=relu_last)),
    Mistake("last ReLU missing", "The last convolution has no ReLU behind it.",
            block(run=no_relu_last)),
    Mistake("ReLU before", "ReLU comes before each convolution. It belongs behind it: "
            "`F.relu(conv(x))`.",
            block(run=relu_before)),
    Mistake("return inside the loop", "The block ends after its first convolution: is `return` "
            "indented into the loop?",
            block(run=inside_loop)),
    Mistake("always the same input", "Every convolution gets the block's own input, and only the "
            "last result is kept. Hand on what the one before has given: `x = "
            "F.relu(self[f'conv{i}'](x))`.",
            block(run=always_x)),
    Mistake("children", "The children of a Chain come in alphabetical order: conv1, conv10, "
            "conv11, conv2, ... Up to nine convolutions that goes well. Ask for them by name, "
            "`self[f'conv{i}']`.",
            block(run=by_children)),
)
def VGGBlock(answer):
    """Check `VGGBlock`: give it your class, get a Report."""
    return [("attempted", lambda: attempted(answer)),
            ("a class", lambda: BLOCK.is_class(answer, "VGGBlock")),
            ("its convolutions", lambda: BLOCK.is_made(answer, "VGGBlock")),
            ("what it computes", lambda: BLOCK.computes(answer, "VGGBlock")),
            ("gradients everywhere", lambda: BLOCK.learns(answer))]


# ---- 2: VGG ----------------------------------------------------------------------------------

class Head(chainer.Chain):
    """The three linear layers, as the notebook has them."""

    def __init__(self, n_in, hidden, n_class):
        super().__init__()
        with self.init_scope():
            self.fc4 = L.Linear(n_in, hidden, initialW=HeNormal())
            self.fc5 = L.Linear(hidden, hidden, initialW=HeNormal())
            self.fc6 = L.Linear(hidden, n_class, initialW=HeNormal())

    def forward(self, x):
        h = F.dropout(F.relu(self.fc4(x)))
        h = F.dropout(F.relu(self.fc5(h)))
        return self.fc6(h)


class List(chainer.ChainList):
    """The right network; wrong ones have another `plan` or `forward`."""

    def __init__(self, config, in_shape, hidden, n_class):
        super().__init__()
        for link in self.plan(config, in_shape, hidden, n_class):
            self.add_link(link)

    def plan(self, config, in_shape, hidden, n_class):
        """Yield the links in their order."""
        n_in, height, width = in_shape
        for n_channels, n_convs in config:
            yield Block(n_in, n_channels, n_convs)
            n_in, height, width = n_channels, math.ceil(height / 2), math.ceil(width / 2)
        yield Head(n_in * height * width, hidden, n_class)

    def forward(self, x):
        for link in self.children():
            x = link(x)
        return x


List.__name__ = "VGG"   # what an exception of the reader's code says


def network(**methods):
    """A wrong network: `List` with other methods."""
    return type("VGG", (List,), methods)


def plan_with(inputs, last=lambda n_in, hidden, n_class: Head(n_in, hidden, n_class)):
    """A wrong network: the right blocks, and another number of inputs or another head."""
    def plan(self, config, in_shape, hidden, n_class):
        *blocks, _ = List.plan(self, config, in_shape, hidden, n_class)
        return [*blocks, last(inputs(config, *in_shape), hidden, n_class)]
    return network(plan=plan)


def right_inputs(config, _n_in, height, width):
    for _ in config:
        height, width = math.ceil(height / 2), math.ceil(width / 2)
    return config[-1][0] * height * width


def image_channels(self, config, in_shape, hidden, n_class):
    for n_channels, n_convs in config:
        yield Block(in_shape[0], n_channels, n_convs)
    yield Head(right_inputs(config, *in_shape), hidden, n_class)


def same_number_of_convs(self, config, in_shape, hidden, n_class):
    return List.plan(self, [(n_channels, 2) for n_channels, _ in config], in_shape, hidden, n_class)


def pair_swapped(self, config, in_shape, hidden, n_class):
    return List.plan(self, [pair[::-1] for pair in config], in_shape, hidden, n_class)


def without_head(self, config, in_shape, hidden, n_class):
    return list(List.plan(self, config, in_shape, hidden, n_class))[:-1]


def kept_in_a_list(self, config, in_shape, hidden, n_class):
    chainer.ChainList.__init__(self)
    self.blocks = list(List.plan(self, config, in_shape, hidden, n_class))


def in_a_scope(self, config, in_shape, hidden, n_class):
    chainer.ChainList.__init__(self)
    with self.init_scope():
        self.block1 = Block(in_shape[0], *config[0])


def head_beside(self, config, in_shape, hidden, n_class):
    chainer.ChainList.__init__(self)
    *blocks, self.head = List.plan(self, config, in_shape, hidden, n_class)
    for link in blocks:
        self.add_link(link)


def blocks_only(self, x):
    for link in list(self.children())[:-1]:
        x = link(x)
    return x


def first_only(self, x):
    for link in self.children():
        return link(x)


def always_the_image(self, x):
    for link in self.children():
        y = link(x)
    return y


def probabilities(self, x):
    return F.softmax(List.forward(self, x))


def by_mode(self, x):
    y = List.forward(self, x)
    return y if chainer.config.train else F.softmax(y)


def relu_at_the_end(self, x):
    return F.relu(List.forward(self, x))


LIST = Network(
    "VGG", List, lab=lab,
    cases=(((((4, 2), (6, 3)), (3, 16, 16), 10, 7), (2, 3, 16, 16)),
           ((((4, 1), (5, 2), (6, 1)), (1, 28, 20), 8, 10), (2, 1, 28, 20))),
    modes=(True, False),
    advice="The children are one `VGGBlock(n_in, n_channels, n_convs)` for each pair, and the "
           "`Head` behind them. Has `check.VGGBlock(VGGBlock)` passed?",
    steps="The image goes through the children in their order, nothing between them and nothing "
          "behind: `for link in self.children(): x = link(x)`.")


@lab.check(
    Mistake("channels of the image everywhere", "Only the first block gets the channels of the "
            "image. The next one gets what the block before it gives: `n_in = n_channels` at the "
            "end of the loop.", network(plan=image_channels)),
    Mistake("the image's size for the head", "The head was made for maps as large as the image. "
            "Each block halves rows and columns before they get there.",
            plan_with(lambda config, n_in, height, width: config[-1][0] * height * width)),
    Mistake("halved once", "The maps are halved by every block, not only once: do it inside the "
            "loop.",
            plan_with(lambda config, n_in, height, width:
                      config[-1][0] * math.ceil(height / 2) * math.ceil(width / 2))),
    Mistake("rounded down", "28 rows become 14, 7, and then 4: Chainer's max pooling covers the "
            "rim, so an odd number is rounded up. `math.ceil(height / 2)`, not `height // 2`.",
            plan_with(lambda config, n_in, height, width: config[-1][0]
                      * (height >> len(config)) * (width >> len(config)))),
    Mistake("channels only", "The head flattens the maps: it gets channels times rows times "
            "columns, not one number for each channel.",
            plan_with(lambda config, n_in, height, width: config[-1][0])),
    Mistake("rows only", "The head gets channels times rows times columns: the columns are "
            "missing.",
            plan_with(lambda config, n_in, height, width: right_inputs(config, n_in, height, 1))),
    Mistake("hidden and n_class swapped", "hidden and n_class have changed places: "
            "`Head(n_in, hidden, n_class)`.",
            plan_with(right_inputs, lambda n_in, hidden, n_class: Head(n_in, n_class, hidden))),
    Mistake("a linear layer for the head", "Behind the blocks stands a single linear layer. VGG "
            "has three of them, which `Head` holds.",
            plan_with(right_inputs, lambda n_in, hidden, n_class:
                      L.Linear(n_in, n_class, initialW=HeNormal()))),
    Mistake("two convolutions in each block", "The second number of each pair is not used: it is "
            "how many convolutions the block has.", network(plan=same_number_of_convs)),
    Mistake("pairs the other way round", "A pair is (channels, convolutions), in this order. "
            "Yours takes the channels for the number of convolutions.",
            network(plan=pair_swapped)),
    Mistake("head forgotten", "The head is missing: behind the last block, outside the loop, add "
            "`Head(inputs, hidden, n_class)`.", network(plan=without_head)),
    Mistake("kept in a list", "The blocks lie in a plain list, which Chainer does not look into. "
            "`self.add_link(...)` makes each a child.",
            network(__init__=kept_in_a_list)),
    Mistake("init_scope in a ChainList", "A ChainList has no names to register: `init_scope` is "
            "for a Chain. Here each child is given to `self.add_link(...)`.",
            network(__init__=in_a_scope)),
    Mistake("head as an attribute", "`self.head = ...` makes a plain attribute, which the "
            "optimizer never sees. In a ChainList the head is a child like the blocks: "
            "`self.add_link(Head(...))`.", network(__init__=head_beside)),
    Mistake("return inside the loop", "Only the first block runs: is `return` indented into the "
            "loop?", network(forward=first_only)),
    Mistake("the image for every child", "Every child gets the image itself. Hand on what the one "
            "before has given: `x = link(x)`.", network(forward=always_the_image)),
    Mistake("the head does not run", "These are the maps of the last block: the head has to run "
            "too. It is the last of the children.", network(forward=blocks_only)),
    Mistake("softmax", "These are probabilities, they sum to 1. In this lab forward returns the "
            "scores as they are: the loss applies softmax itself.",
            network(forward=probabilities)),
    Mistake("softmax in test mode", "In test mode these are probabilities, as in the tutorial. In "
            "this lab forward returns the scores in both modes.", network(forward=by_mode)),
    Mistake("ReLU on the scores", "There is a ReLU behind fc6. A score may be below 0.",
            network(forward=relu_at_the_end)),
)
def VGG(answer):
    """Check `VGG`: give it your class, get a Report."""
    return [("attempted", lambda: attempted(answer)),
            ("a class", lambda: LIST.is_class(answer, "VGG")),
            ("its children", lambda: LIST.is_made(answer, "VGG")),
            ("what it computes", lambda: LIST.computes(answer, "VGG")),
            ("gradients everywhere", lambda: LIST.learns(answer))]


# ---- 3: mean_loss ----------------------------------------------------------------------------

def right_mean_loss(y):
    top = y.max(axis=1, keepdims=True)
    log_sum = top[:, 0] + np.log(np.exp(y - top).sum(axis=1))
    return float((log_sum - y.mean(axis=1)).mean())


right_mean_loss.__name__ = "mean_loss"


def loss_by_hand(a, _index):
    row = a["y"][0].astype(float)
    terms = " + ".join(f"e^{v:g}" for v in row)
    log_sum = math.log(np.exp(row).sum())
    return (f"ln({terms}) - ({' + '.join(f'{v:g}' for v in row)})/{len(row)} = "
            f"{log_sum:.4f} - {row.mean():g} = {log_sum - row.mean():.4f}")


def of_chainer(mean_loss):
    """The mean of Chainer's losses over all labels is the same number."""
    y = np.random.RandomState(4).normal(0, 3, (2, 12)).astype(np.float32)
    losses = [F.softmax_cross_entropy(y, np.full(2, label, np.int32)).array for label in range(12)]
    got, right = call(mean_loss, Case({"y": y}), "mean_loss(y)"), float(np.mean(losses))
    if not same(got, right):
        raise Finding("Chainer's losses for the 12 labels have another mean.",
                      expected=f"{right:.4f}", got=f"{got:.4f}")


def log_softmax(y):
    return y - y.max(axis=1, keepdims=True) - \
        np.log(np.exp(y - y.max(axis=1, keepdims=True)).sum(axis=1, keepdims=True))


def quietly(function):
    """A wrong answer without NumPy's warnings on what overflows in it."""
    @functools.wraps(function)
    def mean_loss(y):
        with np.errstate(all="ignore"):
            return float(function(y))
    return mean_loss


mean_loss = lab.function(Function(
    reference=right_mean_loss,
    axes={"y": "N K"},
    cases=(given(y=np.float32([[1, 2, 6]])), given(y=np.zeros((2, 5), np.float32)),
           given(y=images((3, 10))), given(y=8 * images((2, 40))),
           given(y=np.float32([[900, -300, 0, 400], [0, 100, 200, 1000]])),
           given(y=np.float32([[0, 100, 50], [-900, -800, -700]]))),
    by_hand=loss_by_hand,
    hand_title="three scores by hand",
    properties=(("Chainer's own losses", of_chainer),),
    mistakes=(
        Mistake("overflow", "e to the 900 is too large for any float. Take the largest score out "
                "of each row first and put it back behind the logarithm: ln(sum of e^y) = "
                "max + ln(sum of e^(y - max)).",
                quietly(lambda y: (np.log(np.exp(y).sum(axis=1)) - y.mean(axis=1)).mean())),
        Mistake("softmax, then logarithm", "Some probabilities are too small for a float and "
                "become 0, or not a number. The logarithm of the sum, less the score, needs no "
                "probability.",
                quietly(lambda y: -np.log(np.exp(y) / np.exp(y).sum(axis=1, keepdims=True))
                        .mean())),
        Mistake("maximum not put back", "The largest score was taken out before e^y and not put "
                "back: ln(sum of e^y) = max + ln(sum of e^(y - max)).",
                quietly(lambda y: (np.log(np.exp(y - y.max(axis=1, keepdims=True)).sum(axis=1))
                                   - y.mean(axis=1)).mean())),
        Mistake("one maximum for all", "One maximum of all scores is not enough: in a row that "
                "lies far below it every e^(y - max) is 0, and the logarithm of 0 has no end. Each "
                "row has a maximum of its own: `y.max(axis=1, keepdims=True)`.",
                quietly(lambda y: (y.max() + np.log(np.exp(y - y.max()).sum(axis=1))
                                   - y.mean(axis=1)).mean())),
        Mistake("sign", "The sign: a loss is minus the logarithm of a probability, so it is "
                "above 0.", lambda y: -right_mean_loss(y)),
        Mistake("summed over the labels", "This is the sum over the labels. Take the mean of the "
                "scores of a row.",
                lambda y: float(-log_softmax(y).sum(axis=1).mean())),
        Mistake("summed over the images", "This is the sum over the images. Take their mean.",
                lambda y: len(y) * right_mean_loss(y)),
        Mistake("loss of the best label", "This is the loss of the label with the largest score, "
                "the lowest there is. Average over all labels.",
                lambda y: float(-log_softmax(y).max(axis=1).mean())),
        Mistake("scores not subtracted", "This is only the logarithm of the sum. The mean of the "
                "scores comes off it.",
                lambda y: right_mean_loss(y) + float(y.mean())),
        Mistake("softmax over the images", "The sum runs over the images. Softmax is over the "
                "classes: axis 1.",
                lambda y: right_mean_loss(y.T)),
        Mistake("over everything at once", "The sum runs over all images at once. Each has a "
                "softmax of its own: `axis=1`.",
                lambda y: right_mean_loss(y.reshape(1, -1))),
        Mistake("logarithm of the mean probability", "This is minus the logarithm of the mean "
                "probability, which is always 1/K. First the logarithm of each, then the mean.",
                lambda y: math.log(y.shape[1])),
        Mistake("logarithm to base 10", "`log10` is another logarithm: the loss uses the natural "
                "one, `np.log`.",
                lambda y: right_mean_loss(y) / math.log(10)),
    ),
))


# ---- 4: score_std ----------------------------------------------------------------------------

def right_score_std(rms, n_relu, scale=1.0, last=1.0):
    return rms * scale**n_relu * math.sqrt(2) * last


right_score_std.__name__ = "score_std"


def std_by_hand(a, _index):
    rms, n_relu, scale, last = a["rms"], a["n_relu"], a.get("scale", 1), a.get("last", 1)
    steps = [f"the mean square comes in as {rms:g}² = {rms**2:g}"]
    for i in range(1, n_relu + 1):
        square = rms**2 * scale ** (2 * i)
        steps.append(f"layer {i}: ·2·{scale:g}² by the weights, /2 by ReLU: {square:g}")
    return "\n".join([*steps, f"last layer: ·2·{last:g}², no ReLU: {2 * last**2 * square:g}",
                      f"the root of it: {right_score_std(**a):.4f}"])


def measured(score_std):
    """Layers of 500 units, drawn by HeNormal: their scores spread as the formula says."""
    for n_relu, scale, last in ((3, 1.0, 1.0), (6, 0.7, 1.0), (4, 1.0, 0.1)):
        np.random.seed(7)
        h = 3 * images((100, 500))
        for i in range(n_relu + 1):
            ends = i == n_relu
            layer = L.Linear(500, 500, initialW=HeNormal(last if ends else scale))
            h = layer(h).array if ends else F.relu(layer(h)).array
        described = f"score_std(3.0, {n_relu}, scale={scale}, last={last})"
        got = score_std(3.0, n_relu, scale=scale, last=last)
        if not 0.75 < got / h.std() < 1.33:
            raise Finding("Layers drawn by HeNormal spread otherwise.", call=described,
                          expected=f"measured, {n_relu} layers with ReLU and one without: "
                                   f"{h.std():.3g}", got=f"{got:.3g}")


score_std = lab.function(Function(
    reference=right_score_std,
    cases=(given(rms=3.0, n_relu=2, scale=0.5, last=1.0), given(rms=1.0, n_relu=15),
           given(rms=80.0, n_relu=15), given(rms=1.0, n_relu=15, scale=0.7),
           given(rms=2.0, n_relu=4, scale=1.5, last=0.01), given(rms=0.5, n_relu=1, last=0.1)),
    by_hand=std_by_hand,
    hand_title="three layers by hand",
    properties=(("measured on random layers", measured),),
    mistakes=(
        Mistake("the 2 of the last layer", "The last layer has no ReLU behind it, so nothing "
                "takes its factor 2 back: the mean square doubles once, the deviation grows by "
                "the root of 2.",
                lambda rms, n_relu, scale=1.0, last=1.0: rms * scale**n_relu * last),
        Mistake("2 instead of its root", "This doubles the deviation in the last layer. It is the "
                "mean square that doubles, so the deviation grows by the root of 2.",
                lambda rms, n_relu, scale=1.0, last=1.0: 2 * rms * scale**n_relu * last),
        Mistake("mean square", "This is the mean square of the scores. Its root is asked for.",
                lambda rms, n_relu, scale=1.0, last=1.0:
                right_score_std(rms, n_relu, scale, last) ** 2),
        Mistake("ReLU forgotten", "Each layer doubles the mean square here, and nothing halves "
                "it. ReLU sets half of the numbers to 0, and their squares with them.",
                lambda rms, n_relu, scale=1.0, last=1.0:
                rms * (scale * math.sqrt(2)) ** n_relu * math.sqrt(2) * last),
        Mistake("weights forgotten", "ReLU halves the mean square here, and nothing doubles it. "
                "HeNormal's variance is 2 / inputs, so that the sum over the inputs has twice "
                "their mean square.",
                lambda rms, n_relu, scale=1.0, last=1.0:
                rms * (scale / math.sqrt(2)) ** n_relu * math.sqrt(2) * last),
        Mistake("scale once", "`scale` counts once here. Every layer multiplies by it: "
                "`scale**n_relu`.",
                lambda rms, n_relu, scale=1.0, last=1.0: rms * scale * math.sqrt(2) * last),
        Mistake("scale times layers", "`scale * n_relu` adds up. The layers come one behind the "
                "other, so their factors multiply: `scale**n_relu`.",
                lambda rms, n_relu, scale=1.0, last=1.0:
                rms * scale * n_relu * math.sqrt(2) * last),
        Mistake("scale as a variance", "`scale` is a factor of the deviation of the weights, not "
                "of their variance: each layer multiplies the deviation of its outputs by scale, "
                "not by its root.",
                lambda rms, n_relu, scale=1.0, last=1.0:
                rms * scale ** (n_relu / 2) * math.sqrt(2 * last)),
        Mistake("last under the root", "The root of 2 is right, but `last` stands outside the "
                "root: it is a factor of the weights' deviation, and so of the scores' deviation.",
                lambda rms, n_relu, scale=1.0, last=1.0:
                rms * scale**n_relu * math.sqrt(2 * last)),
        Mistake("scale squared", "scale² is what a layer does to the mean square. The deviation is "
                "its root, so each layer multiplies it by scale.",
                lambda rms, n_relu, scale=1.0, last=1.0:
                rms * scale ** (2 * n_relu) * math.sqrt(2) * last),
        Mistake("one layer too many", "`scale` is in it once too often: the last layer has a "
                "factor of its own, `last`.",
                lambda rms, n_relu, scale=1.0, last=1.0:
                rms * scale ** (n_relu + 1) * math.sqrt(2) * last),
        Mistake("last forgotten", "The factor of the last layer, `last`, is not in it.",
                lambda rms, n_relu, scale=1.0, last=1.0: rms * scale**n_relu * math.sqrt(2)),
        Mistake("input forgotten", "The input is not in it: all that these layers do multiplies, "
                "so the scores are as large as what comes in.",
                lambda rms, n_relu, scale=1.0, last=1.0: scale**n_relu * math.sqrt(2) * last),
    ),
))


# ---- 5: quiet --------------------------------------------------------------------------------

def right_quiet(model, factor):
    model[-1].fc6.W.array *= factor


right_quiet.__name__ = "quiet"
CONFIG = ((4, 2), (6, 1))


def small_model():
    return ready(List, (CONFIG, (1, 8, 8), 12, 10), (1, 1, 8, 8))


def change(quiet, factor=0.01):
    """What one call does to the model: for each parameter, by what it was multiplied."""
    model = small_model()
    before = {path: param.array.copy() for path, param in model.namedparams()}
    try:
        with np.errstate(all="ignore"):
            quiet(model, factor)
    except Exception as error:
        return {"raises": f"{type(error).__name__}: {error}"}
    after = dict(model.namedparams())
    return {path: fate(after.get(path), array) for path, array in before.items()}


def fate(param, before):
    """What became of a parameter, in words: 'as it was', 'times 0.01', ..."""
    if not isinstance(param, chainer.Parameter):
        return "no longer a parameter"
    if param.array is None or param.shape != before.shape:
        return "of another shape"
    ratio = param.array / before
    if not same(ratio, np.full_like(ratio, ratio.mean())):
        return "other numbers"
    return "as it was" if abs(ratio.mean() - 1) < 1e-6 else f"times {ratio.mean():.3g}"


def known_change(quiet):
    got = [change(quiet, factor) for factor in (0.01, 0.5)]
    return next((m.cause for m in lab.mistakes["quiet"]
                 if got == [change(m.answer, factor) for factor in (0.01, 0.5)]), "")


def takes_model_and_factor(quiet):
    try:
        quiet(small_model(), 0.01)
    except Exception as error:
        finding = raised(error, "quiet(model, 0.01)")
        finding.rows["likely cause"] = known_change(quiet) or finding.rows.get("likely cause", "")
        raise finding from None


def changes(quiet, others):
    """Look at fc6's weights, or at all parameters but these."""
    for factor in (0.01, 0.5):
        got, right = change(quiet, factor), change(right_quiet, factor)
        wrong = [path for path in sorted(got) if got[path] != right[path]
                 and (path == "/2/fc6/W") != others]
        if wrong:
            raise Finding("Other parameters were changed as well." if others else
                          "The weights of the last layer are not what they should be.",
                          call=f"quiet(model, {factor})",
                          expected="\n".join(f"{path} {right[path]}" for path in wrong),
                          got="\n".join(f"{path} {got[path]}" for path in wrong),
                          cause=known_change(quiet) or
                          "`model[-1]` is the head, `model[-1].fc6.W.array` the array of its last "
                          "layer's weights. Multiply that by factor, in place.")


def still_learns(quiet):
    model = small_model()
    quiet(model, 0.1)
    optimizer = chainer.optimizers.SGD(0.1).setup(model)
    before = model[-1].fc6.W.array.copy()
    model.cleargrads()
    F.softmax_cross_entropy(model(images((4, 1, 8, 8))), np.arange(4, dtype=np.int32)).backward()
    optimizer.update()
    if (model[-1].fc6.W.array == before).all():
        raise Finding("An update does not change fc6 any more.",
                      cause="Change the numbers in the array: `model[-1].fc6.W.array *= factor`.")


def every_layer(model, factor):
    for param in model.params():
        param.array *= factor


def assigned(model, factor):
    model[-1].fc6.W = model[-1].fc6.W * factor


@lab.check(
    Mistake("every layer", "All layers were made small. One behind the other they multiply: the "
            "scores are gone, and the gradients with them. Only the last layer, fc6.",
            every_layer),
    Mistake("every linear layer", "fc4 and fc5 were changed too: only the last layer, fc6.",
            lambda model, factor: [np.multiply(w, factor, out=w) for w in (
                model[-1].fc4.W.array, model[-1].fc5.W.array, model[-1].fc6.W.array)]),
    Mistake("fc5", "This is fc5. The scores would become as small, but all that fc6 learns from "
            "as well: the last layer is fc6.",
            lambda model, factor: np.multiply(
                model[-1].fc5.W.array, factor, out=model[-1].fc5.W.array)),
    Mistake("the first layer", "This is the first convolution. The scores would become as small, "
            "but every map behind it as well: the last layer is fc6.",
            lambda model, factor: np.multiply(
                model[0].conv1.W.array, factor, out=model[0].conv1.W.array)),
    Mistake("the network for the head", "The network has blocks and a head, and only the head has "
            "an fc6: `model[-1].fc6`.",
            lambda model, factor: np.multiply(
                model.fc6.W.array, factor, out=model.fc6.W.array)),
    Mistake("the bias", "The bias was changed. In a new network it is 0 and stays 0: it is the "
            "weights that make the scores large.",
            lambda model, factor: np.multiply(
                model[-1].fc6.b.array, factor, out=model[-1].fc6.b.array)),
    Mistake("zeros", "All weights are 0. The loss is ln K then, but no gradient comes through to "
            "the layers below: multiply by factor.",
            lambda model, factor: model[-1].fc6.W.array.fill(0)),
    Mistake("divided", "The weights became larger: multiply by factor, do not divide.",
            lambda model, factor: np.divide(
                model[-1].fc6.W.array, factor, out=model[-1].fc6.W.array)),
    Mistake("subtracted", "factor was subtracted from each weight. Their spread has not changed: "
            "multiply.",
            lambda model, factor: np.subtract(
                model[-1].fc6.W.array, factor, out=model[-1].fc6.W.array)),
    Mistake("a new Variable", "`fc6.W = fc6.W * factor` puts the result of a calculation where "
            "the parameter was, and no optimizer can train that. Change the numbers in its "
            "array: `fc6.W.array *= factor`.", assigned),
    Mistake("nothing changed", "The model is as it was. `w = w * factor` makes a new array and "
            "leaves the model's own alone: `model[-1].fc6.W.array *= factor`.",
            lambda model, factor: model[-1].fc6.W.array * factor),
    Mistake("always 0.01", "It was multiplied by 0.01, whatever factor says.",
            lambda model, factor: right_quiet(model, 0.01)),
)
def quiet(answer):
    """Check `quiet`: give it your function, get a Report."""
    return [("attempted", lambda: attempted(answer)),
            ("signature", lambda: signature(answer, right_quiet)),
            ("it runs", lambda: takes_model_and_factor(answer)),
            ("the last layer", lambda: changes(answer, others=False)),
            ("all other layers", lambda: changes(answer, others=True)),
            ("it can still learn", lambda: still_learns(answer))]
