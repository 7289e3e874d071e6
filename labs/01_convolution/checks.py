"""Checks of lab 1, convolution by hand: slow and plain references, and the usual mistakes."""

from itertools import product

from convnets.check import (
    Case,
    Finding,
    Function,
    Lab,
    Mistake,
    attempted,
    call,
    given,
    kind,
    name_shape,
    same,
    show,
)

import numpy as np

lab = Lab(__file__)
hint, solution, solved = lab.hint, lab.solution, lab.solved

random = np.random.RandomState(1)


def grid(*shape):
    """Seeded whole numbers from -5 to 5 as float32: exact in any order of summation."""
    return random.randint(-5, 6, shape).astype(np.float32)


def plane(*rows):
    return np.array(rows, np.float32)


def terms(window, w):
    """'1·2 + 3·(-1)': the products under a window, as one reads them."""
    def factor(v):
        return f"{v:g}" if v >= 0 else f"({v:g})"
    return " + ".join(f"{factor(a)}·{factor(b)}"
                      for a, b in zip(np.ravel(window), np.ravel(w), strict=True))


# ---- 1: output_size ------------------------------------------------------------------------

def right_size(size, k, s=1, p=0):
    return (size + 2 * p - k) // s + 1


right_size.__name__ = "output_size"


def size_by_hand(a, _index):
    size, k, s, p = a["size"], a["k"], a.get("s", 1), a.get("p", 0)
    room = size + 2 * p - k
    return (f"room to move: {size} + 2·{p} - {k} = {room}; whole steps of {s}: {room // s}; "
            f"positions: {room // s} + 1 = {room // s + 1}")


def every_size(output_size):
    """Count the positions instead: a formula is right for all sizes or it is wrong."""
    for k, s, p in product((1, 2, 3, 5), (1, 2, 3), (0, 1, 2)):
        for size in range(k, 30):
            positions = len(range(0, size + 2 * p - k + 1, s))
            got = output_size(size, k, s=s, p=p)
            if got != positions:
                raise Finding(f"{size} pixels, k={k}, s={s}, p={p} leave {positions} positions.",
                              call=f"output_size({size}, {k}, s={s}, p={p})",
                              expected=str(positions), got=str(got))


output_size = lab.function(Function(
    reference=right_size,
    cases=(given(size=6, k=3, s=2, p=1), given(size=28, k=5), given(size=5, k=3, p=1),
           given(size=6, k=3, s=2), given(size=8, k=3, s=3, p=1), given(size=224, k=7, s=2, p=3),
           given(size=3, k=3), given(size=10, k=2, s=4, p=2)),
    by_hand=size_by_hand,
    hand_title="6 pixels by hand",
    properties=(("every size from k to 29", every_size),),
    mistakes=(
        Mistake("one too few", "The position at the start counts too: n steps lead to n + 1 "
                "positions, as n rails need n + 1 posts. Add 1 after the division.",
                lambda size, k, s=1, p=0: (size + 2 * p - k) // s),
        Mistake("1 added before the division", "The 1 is a position, not a pixel: add it after "
                "dividing by the stride.",
                lambda size, k, s=1, p=0: (size + 2 * p - k + 1) // s),
        Mistake("pad on one side", "Padding puts p pixels on both sides, so the row grows by 2p.",
                lambda size, k, s=1, p=0: (size + p - k) // s + 1),
        Mistake("pad forgotten", "The padding p is missing: the row the window moves along has "
                "size + 2p pixels.",
                lambda size, k, s=1, p=0: (size - k) // s + 1),
        Mistake("stride forgotten", "The stride s is missing: divide the room to move by s.",
                lambda size, k, s=1, p=0: size + 2 * p - k + 1),
        Mistake("rounded up", "This rounds up. A convolution's window must lie wholly on the "
                "padded row, so a last step that does not fit is dropped: round down, `//`.",
                lambda size, k, s=1, p=0: -(-(size + 2 * p - k) // s) + 1),
        Mistake("rounded to nearest", "`round` goes to the nearest number, sometimes up. A step "
                "that does not fit is dropped: round down, `//`.",
                lambda size, k, s=1, p=0: round((size + 2 * p - k) / s) + 1),
        Mistake("kernel not subtracted", "This counts pixels, not positions of a window: a window "
                "k wide has only size + 2p - k pixels of room to move.",
                lambda size, k, s=1, p=0: (size + 2 * p) // s),
        Mistake("kernel subtracted after the division", "The kernel takes k pixels of room, not k "
                "steps: subtract it before dividing by the stride.",
                lambda size, k, s=1, p=0: (size + 2 * p) // s - k + 1),
    ),
))


# ---- 2: conv_plane -------------------------------------------------------------------------

def right_plane(x, w):
    (H, W), (kh, kw) = x.shape, w.shape
    y = np.zeros((H - kh + 1, W - kw + 1), x.dtype)
    for i, j in np.ndindex(*y.shape):
        y[i, j] = (x[i:i + kh, j:j + kw] * w).sum()
    return y


right_plane.__name__ = "conv_plane"


def plane_by_hand(a, index):
    i, j = index
    x, w = a["x"], a["w"]
    window = x[i:i + w.shape[0], j:j + w.shape[1]]
    return f"y[{i}, {j}] = {terms(window, w)} = {(window * w).sum():g}"


def windows(x, w, result):
    """A conv_plane whose single values are `result(window, w)`."""
    y = right_plane(x, w)
    for i, j in np.ndindex(*y.shape):
        y[i, j] = result(x[i:i + w.shape[0], j:j + w.shape[1]], w)
    return y


def same_size(x, w):
    """'Same' convolution: zeros all round, so that the result is as large as the image."""
    kh, kw = w.shape
    around = ((kh - 1) // 2, kh // 2), ((kw - 1) // 2, kw // 2)
    return right_plane(np.pad(x, around), w)


def tiles(x, w):
    """Windows laid side by side."""
    kh, kw = w.shape
    return right_plane(x, w)[::kh, ::kw]


def linear(conv_plane):
    x, z, w = grid(5, 4), grid(5, 4), grid(2, 3)
    whole, parts = conv_plane(2 * x - 3 * z, w), 2 * conv_plane(x, w) - 3 * conv_plane(z, w)
    if not same(whole, parts):
        raise Finding("The result is not linear in the image.",
                      call="conv_plane(2x - 3z, w) against 2·conv_plane(x, w) - "
                           "3·conv_plane(z, w)",
                      expected=show(parts), got=show(whole),
                      cause="A sum of products has this property for all images. Is a value cut, "
                            "stored between calls, or written into the code?")


def moves_along(conv_plane):
    x, w = grid(7, 7), grid(3, 3)
    cut, moved = conv_plane(x, w)[2:, 1:], conv_plane(x[2:, 1:].copy(), w)
    if not same(cut, moved):
        raise Finding("Move the image and the result does not move along.",
                      call="conv_plane(x[2:, 1:], w) against conv_plane(x, w)[2:, 1:]",
                      expected=show(cut), got=show(moved),
                      cause="The same weights must be used at every position, and the result "
                            "must depend only on the window.")


conv_plane = lab.function(Function(
    reference=right_plane,
    axes={"x": "H W", "w": "kh kw", "return": "H W"},
    cases=(given(x=plane([1, 5, 2], [0, 3, 7], [6, 4, 9]), w=plane([1, 0], [2, -1])),
           given(x=grid(5, 5), w=grid(3, 3)), given(x=grid(6, 4), w=grid(3, 2)),
           given(x=grid(4, 7), w=grid(1, 2)), given(x=grid(3, 4), w=grid(3, 4))),
    by_hand=plane_by_hand,
    hand_title="3x3 by hand",
    properties=(("linear", linear), ("moves with the image", moves_along)),
    mistakes=(
        Mistake("kernel flipped", "The kernel is upside down and mirrored: x[i + u, j + v] must "
                "meet w[u, v]. Mathematics flips the kernel and calls that convolution; Chainer, "
                "like every deep-learning library, does not.",
                lambda x, w: right_plane(x, w[::-1, ::-1])),
        Mistake("kernel transposed", "Rows and columns of the kernel are swapped: the first index "
                "of w goes down, as the first of x does.",
                lambda x, w: right_plane(x, w.T)),
        Mistake("result transposed", "Rows and columns of the result are swapped: i counts rows "
                "and comes first, y[i, j].",
                lambda x, w: right_plane(x, w).T),
        Mistake("same size as the image", "The result is as large as the image. Without padding a "
                "window must lie wholly on the image, which leaves H - kh + 1 by W - kw + 1 "
                "positions ('valid', not 'same').",
                same_size),
        Mistake("last row and column missing", "The loops stop one position early: `range(H - kh)` "
                "leaves out the window that touches the rim. There are H - kh + 1 positions.",
                lambda x, w: right_plane(x, w)[:-1, :-1]),
        Mistake("windows side by side", "The window jumps by its own size. It must move by one "
                "pixel, so that neighbouring windows overlap.",
                tiles),
        Mistake("mean instead of sum", "These are means: add the products up, do not average "
                "them.",
                lambda x, w: right_plane(x, w) / np.float32(w.size)),
        Mistake("only the last product", "Only the window's last product is left: `=` overwrites "
                "what `+=` would add up.",
                lambda x, w: windows(x, w, lambda a, b: a[-1, -1] * b[-1, -1])),
        Mistake("matrix product", "`@` multiplies matrices, rows with columns. Here each pixel "
                "meets the one weight that lies on it: `*`.",
                lambda x, w: windows(x, w, lambda a, b: (a @ b).sum())),
        Mistake("kernel ignored", "This adds up the pixels alone: multiply each with its weight.",
                lambda x, w: windows(x, w, lambda a, b: a.sum())),
    ),
))


# ---- 3: vertical_edges ---------------------------------------------------------------------

SOBEL = plane([-1, 0, 1], [-2, 0, 2], [-1, 0, 1])
STEP = np.repeat(plane([0, 0, 0, 1, 1, 1]), 6, axis=0)
# picture: what the answers along it must be, and the smallest and largest of their signs
PICTURES = {
    "a flat image": (np.ones((6, 6), np.float32), "0 everywhere", (0, 0)),
    "brighter to the right": (STEP, "above 0 at the edge, never below 0", (0, 1)),
    "brighter downwards": (STEP.T, "0 everywhere", (0, 0)),
}


def along(kernel):
    """The four answers along each picture, across its edge."""
    results = [right_plane(picture, kernel) for picture, *_ in PICTURES.values()]
    return [y[0] if (y == y[:1]).all() else y[:, 0] for y in results]


def signs(kernel):
    return [(np.sign(y.min()), np.sign(y.max())) for y in np.round(along(kernel), 5)]


def answers(kernel):
    """Raise a Finding unless the kernel answers to vertical edges and to nothing else."""
    wanted = [wanted for *_, wanted in PICTURES.values()]
    if signs(kernel) == wanted:
        return
    known = next((m.cause for m in lab.mistakes["vertical_edges"]
                  if signs(m.answer()) == signs(kernel)), "")
    raise Finding("The kernel does not answer as it should.",
                  given=f"w =\n{show(kernel)}",
                  expected="\n".join(f"{name}: {text}" for name, (_, text, _) in PICTURES.items()),
                  got="\n".join(f"{name}: {show(y)}"
                                for name, y in zip(PICTURES, along(kernel), strict=True)),
                  cause=known or "On a flat image all weights add up: they must sum to 0. Where it "
                                 "is brighter downwards whole rows add up: each row must sum to "
                                 "0. Then let the right column outweigh the left.")


def three_by_three(kernel):
    kind(kernel, SOBEL.astype(np.asarray(kernel).dtype), "vertical_edges()")
    if kernel.shape != (3, 3):
        raise Finding("The kernel has the wrong shape.", expected=name_shape((3, 3), "kh kw"),
                      got=name_shape(kernel.shape, "kh kw"))


@lab.check(
    Mistake("turned by 90 degrees", "This kernel answers to horizontal edges: it compares rows. "
            "Compare columns: transpose it.", lambda: SOBEL.T),
    Mistake("wrong sign", "The sign is turned round: this is below 0 where the image gets "
            "brighter to the right. Put the minus signs on the left.", lambda: -SOBEL),
    Mistake("turned by 90 degrees, wrong sign", "This kernel answers to horizontal edges, and to "
            "those that get darker downwards. Compare columns, right minus left.",
            lambda: -SOBEL.T),
    Mistake("a blur", "A flat image does not give 0, because all weights have one sign: this "
            "kernel blurs. An edge is a difference: the weights must sum to 0.",
            lambda: np.full((3, 3), 1 / 9, np.float32)),
    Mistake("a line", "This kernel finds thin vertical lines: at an edge its answer goes above "
            "and below 0. Compare the left side with the right, not the middle with both.",
            lambda: plane([-1, 2, -1], [-1, 2, -1], [-1, 2, -1])),
    Mistake("a Laplacian", "This kernel compares the middle with all that surrounds it, so it "
            "answers to edges of every direction. Compare only the left column with the right.",
            lambda: plane([0, 1, 0], [1, -4, 1], [0, 1, 0])),
    Mistake("a diagonal", "This kernel answers to diagonal edges, so to vertical and horizontal "
            "ones alike. Each of the three rows must sum to 0.",
            lambda: plane([-2, -1, 0], [-1, 0, 1], [0, 1, 2])),
)
def vertical_edges(answer):
    """Check `vertical_edges`: give it your function, get a Report."""
    def kernel():
        return call(answer, Case({}), "vertical_edges()")

    return [("attempted", lambda: attempted(answer)),
            ("a 3x3 array", lambda: three_by_three(kernel())),
            ("what it answers to", lambda: answers(kernel()))]


# ---- 4: conv2d -----------------------------------------------------------------------------

def right_conv2d(x, w, b, stride=1, pad=0):
    """Convolve a minibatch; `np.ndindex` over N, O, H, W, one window at a time."""
    (N, _, H, W), (out, _, kh, kw) = x.shape, w.shape
    h, v = right_size(H, kh, stride, pad), right_size(W, kw, stride, pad)
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    y = np.zeros((N, out, h, v), x.dtype)
    for n, o, i, j in np.ndindex(*y.shape):
        top, left = i * stride, j * stride
        y[n, o, i, j] = (padded[n, :, top:top + kh, left:left + kw] * w[o]).sum() + b[o]
    return y


right_conv2d.__name__ = "conv2d"


def conv2d_by_hand(a, index):
    (n, o, i, j), x, w, b = index, a["x"], a["w"], a["b"]
    window = x[n, :, i:i + w.shape[2], j:j + w.shape[3]]
    return (f"y[{n}, {o}, {i}, {j}] = {terms(window, w[o])} + b[{o}] = "
            f"{(window * w[o]).sum():g} + {b[o]:g} = {(window * w[o]).sum() + b[o]:g}")


def cropped(y, shape):
    return y[:, :, :shape[2], :shape[3]]


def padded_by(x, before, after, **mode):
    return np.pad(x, ((0, 0), (0, 0), (before, after), (before, after)), **mode)


def one_channel(x, w, b, stride, pad, c):
    return right_conv2d(x[:, [c]], w[:, [c]], b, stride, pad)


def window_start(x, w, b, stride, pad, step):
    """Windows that start at i and j times `step`, in a result of the right size."""
    right = right_conv2d(x, w, b, stride, pad)
    every = right_conv2d(x, w, b, 1, pad)
    return cropped(every[:, :, ::step[0], ::step[1]], right.shape)


def padded_everywhere(x, w, b, stride=1, pad=0):
    """np.pad(x, pad), and loops over the old N and C."""
    wide = np.pad(x, pad)[:len(x), :x.shape[1]]
    return right_conv2d(wide, w, b, stride, 0)


def conv2d_linear(conv2d):
    x, z, w, b = grid(2, 2, 5, 4), grid(2, 2, 5, 4), grid(3, 2, 3, 3), np.zeros(3, np.float32)
    whole = conv2d(2 * x - 3 * z, w, b, pad=1)
    parts = 2 * conv2d(x, w, b, pad=1) - 3 * conv2d(z, w, b, pad=1)
    if not same(whole, parts):
        raise Finding("With b = 0 the result is not linear in the images.",
                      call="conv2d(2x - 3z, w, b, pad=1) against 2·conv2d(x, w, b, pad=1) - "
                           "3·conv2d(z, w, b, pad=1)",
                      expected=show(parts[0, 0]), got=show(whole[0, 0]))


def conv2d_one_by_one(conv2d):
    x, w, b = grid(3, 2, 4, 5), grid(2, 2, 3, 2), grid(2)
    together = conv2d(x, w, b, stride=2)
    alone = np.concatenate([conv2d(x[n:n + 1].copy(), w, b, stride=2) for n in range(3)])
    if not same(together, alone):
        raise Finding("An image gives another result alone than among others.",
                      call="conv2d(x, w, b, stride=2) against conv2d(x[n:n+1], w, b, stride=2)",
                      expected=show(alone[-1, 0]), got=show(together[-1, 0]),
                      cause="The images of a minibatch must not mix, and nothing may be kept "
                            "between calls.")


def conv2d_case(n, c, o, size, ksize, **options):
    return given(x=grid(n, c, *size), w=grid(o, c, *ksize), b=1 + np.arange(o, dtype=np.float32),
                 **options)


conv2d = lab.function(Function(
    reference=right_conv2d,
    axes={"x": "N C H W", "w": "O C kh kw", "b": "O", "return": "N O H W"},
    cases=(given(x=plane([1, 5, 2], [0, 3, 7], [6, 4, 9])[None, None],
                w=plane([1, 0], [2, -1])[None, None], b=np.array([10], np.float32)),
           conv2d_case(2, 3, 4, (5, 4), (3, 2)),
           conv2d_case(2, 3, 4, (7, 6), (3, 3), stride=2),
           conv2d_case(3, 2, 2, (4, 5), (3, 3), pad=1),
           conv2d_case(1, 3, 2, (6, 8), (3, 3), stride=2, pad=1),
           conv2d_case(2, 1, 5, (7, 9), (2, 4), stride=3, pad=2)),
    by_hand=conv2d_by_hand,
    hand_title="3x3 by hand",
    properties=(("linear", conv2d_linear), ("images do not mix", conv2d_one_by_one)),
    mistakes=(
        Mistake("kernel flipped", "The kernel is upside down and mirrored: x[i + u, j + v] must "
                "meet w[u, v], without a flip.",
                lambda x, w, b, stride=1, pad=0:
                right_conv2d(x, w[:, :, ::-1, ::-1], b, stride, pad)),
        Mistake("bias forgotten", "The bias is missing: add b[o] to every value of output "
                "channel o.",
                lambda x, w, b, stride=1, pad=0: right_conv2d(x, w, 0 * b, stride, pad)),
        Mistake("bias once per input channel", "The bias is added once for every input channel: "
                "add it once, after the sum over channels.",
                lambda x, w, b, stride=1, pad=0:
                right_conv2d(x, w, x.shape[1] * b, stride, pad)),
        Mistake("only the last channel", "Only the last input channel is left: `=` overwrites, "
                "`+=` adds up. One output channel sees all input channels and sums over C.",
                lambda x, w, b, stride=1, pad=0: one_channel(x, w, b, stride, pad, -1)),
        Mistake("only the first channel", "Only the first input channel is used. One output "
                "channel sees all input channels: sum over C too.",
                lambda x, w, b, stride=1, pad=0: one_channel(x, w, b, stride, pad, 0)),
        Mistake("N and O swapped", "The first two axes of the result are swapped: N, the images, "
                "comes before O, the output channels.",
                lambda x, w, b, stride=1, pad=0:
                right_conv2d(x, w, b, stride, pad).swapaxes(0, 1)),
        Mistake("H and W swapped", "The last two axes of the result are swapped: H, the rows, "
                "comes before W.",
                lambda x, w, b, stride=1, pad=0:
                right_conv2d(x, w, b, stride, pad).swapaxes(2, 3)),
        Mistake("channels last", "The output channels are the last axis. Chainer's order is "
                "N, O, H, W: channels before rows and columns.",
                lambda x, w, b, stride=1, pad=0:
                np.moveaxis(right_conv2d(x, w, b, stride, pad), 1, -1)),
        Mistake("pad forgotten", "The padding is missing: put `pad` rows and columns of zeros all "
                "round each image first.",
                lambda x, w, b, stride=1, pad=0: right_conv2d(x, w, b, stride)),
        Mistake("pad only above and to the left", "The zeros are only above and to the left: "
                "padding goes on both sides, so H grows by 2·pad.",
                lambda x, w, b, stride=1, pad=0:
                right_conv2d(padded_by(x, pad, 0), w, b, stride)),
        Mistake("pad only below and to the right", "The zeros are only below and to the right: "
                "padding goes on both sides, so H grows by 2·pad.",
                lambda x, w, b, stride=1, pad=0:
                right_conv2d(padded_by(x, 0, pad), w, b, stride)),
        Mistake("twice the pad below and to the right", "All the zeros are below and to the "
                "right: the size is right, but the image must sit in the middle, `pad` on each "
                "side.",
                lambda x, w, b, stride=1, pad=0:
                right_conv2d(padded_by(x, 0, 2 * pad), w, b, stride)),
        Mistake("pad repeats the rim", "The padding repeats the rim of the image (mode='edge'). "
                "It is zeros, which is what `np.pad` does if it is told no mode.",
                lambda x, w, b, stride=1, pad=0:
                right_conv2d(padded_by(x, pad, pad, mode="edge"), w, b, stride)),
        Mistake("all four axes padded", "`np.pad(x, pad)` pads all four axes, also N and C. Give "
                "it a pair for each: ((0, 0), (0, 0), (pad, pad), (pad, pad)).",
                padded_everywhere),
        Mistake("all four axes padded, and used", "`np.pad(x, pad)` pads all four axes, also N "
                "and C. Give it a pair for each: ((0, 0), (0, 0), (pad, pad), (pad, pad)).",
                lambda x, w, b, stride=1, pad=0:
                right_conv2d(np.pad(x, pad), w, b, stride)),
        Mistake("stride ignored", "The stride is not used: the window moves by one pixel. The "
                "result has output_size(H, kh, stride, pad) rows.",
                lambda x, w, b, stride=1, pad=0: right_conv2d(x, w, b, 1, pad)),
        Mistake("stride ignored at the window's start", "The result has the right size, but the "
                "window moves by one pixel: window i starts at row i·stride.",
                lambda x, w, b, stride=1, pad=0:
                window_start(x, w, b, stride, pad, (1, 1))),
        Mistake("stride only down", "The stride is used for rows only: column j starts at "
                "j·stride too.",
                lambda x, w, b, stride=1, pad=0:
                window_start(x, w, b, stride, pad, (stride, 1))),
        Mistake("last row and column missing", "One row and one column too few: the position at "
                "the start counts too, (H + 2·pad - kh) // stride + 1.",
                lambda x, w, b, stride=1, pad=0:
                right_conv2d(x, w, b, stride, pad)[:, :, :-1, :-1]),
    ),
))


# ---- 5: max_pool2d -------------------------------------------------------------------------

def pool(x, ksize, stride, cover_all, reduce=np.max, fill=-np.inf):
    """Reduce each window; what lies beyond the rim has the value `fill`."""
    N, C, H, W = x.shape
    extra = stride - 1 if cover_all else 0
    h, v = right_size(H + extra, ksize, stride), right_size(W + extra, ksize, stride)
    rim = ((0, 0), (0, 0), (0, ksize + stride), (0, ksize + stride))
    wide = np.pad(x, rim, constant_values=fill)
    y = np.zeros((N, C, h, v), x.dtype)
    for n, c, i, j in np.ndindex(*y.shape):
        top, left = i * stride, j * stride
        y[n, c, i, j] = reduce(wide[n, c, top:top + ksize, left:left + ksize])
    return y


def right_pool(x, ksize, stride, cover_all=True):
    return pool(x, ksize, stride, cover_all)


right_pool.__name__ = "max_pool2d"


def pool_by_hand(a, index):
    (n, c, i, j), k, s = index, a["ksize"], a["stride"]
    window = a["x"][n, c, i * s:i * s + k, j * s:j * s + k]
    cut = "" if window.shape == (k, k) else ", the window cut off at the rim"
    return (f"y[{n}, {c}, {i}, {j}] = max({', '.join(f'{v:g}' for v in window.ravel())}) = "
            f"{window.max():g}{cut}")


def over_channels(x, ksize, stride, cover_all=True):
    y = right_pool(x, ksize, stride, cover_all)
    return np.broadcast_to(y.max(axis=1, keepdims=True), y.shape).copy()


def over_images(x, ksize, stride, cover_all=True):
    y = right_pool(x, ksize, stride, cover_all)
    return np.broadcast_to(y.max(axis=0, keepdims=True), y.shape).copy()


def commutes(max_pool2d):
    x = grid(2, 2, 5, 4)
    before, after = max_pool2d(np.maximum(x, 0), 2, 2), np.maximum(max_pool2d(x, 2, 2), 0)
    if not same(before, after):
        raise Finding("Pooling after ReLU gives another result than ReLU after pooling.",
                      call="max_pool2d(relu(x), 2, 2) against relu(max_pool2d(x, 2, 2))",
                      expected=show(after[0, 0]), got=show(before[0, 0]),
                      cause="A rising function keeps the largest value largest, so the two must "
                            "agree. Does the result depend only on the window?")


max_pool2d = lab.function(Function(
    reference=right_pool,
    axes={"x": "N C H W", "return": "N C H W"},
    cases=(given(x=plane([1, 7, 3], [4, 5, -6], [-7, -8, -9])[None, None], ksize=2, stride=2),
           given(x=grid(2, 3, 4, 6), ksize=2, stride=2),
           given(x=-1 - np.abs(grid(3, 2, 5, 3)), ksize=2, stride=2),
           given(x=grid(2, 2, 7, 6), ksize=3, stride=2),
           given(x=grid(2, 3, 6, 5), ksize=3, stride=1),
           given(x=grid(2, 2, 7, 5), ksize=2, stride=2, cover_all=False),
           given(x=grid(1, 2, 6, 8), ksize=3, stride=2, cover_all=False),
           given(x=grid(2, 4, 1, 1), ksize=2, stride=2)),
    by_hand=pool_by_hand,
    hand_title="3x3 by hand",
    properties=(("commutes with ReLU", commutes),),
    mistakes=(
        Mistake("cover_all ignored", "This rounds down, as if cover_all were False. With "
                "cover_all=True every pixel must lie in some window, so a window that sticks out "
                "over the rim counts too: round up.",
                lambda x, ksize, stride, cover_all=True: pool(x, ksize, stride, False)),
        Mistake("always covers all", "This rounds up even with cover_all=False, where a window "
                "that sticks out over the rim is dropped.",
                lambda x, ksize, stride, cover_all=True: pool(x, ksize, stride, True)),
        Mistake("zeros beyond the rim", "Zeros beyond the rim win against negative pixels. Cut "
                "the window off at the rim (a slice does it by itself), or pad with -np.inf.",
                lambda x, ksize, stride, cover_all=True:
                pool(x, ksize, stride, cover_all, fill=0)),
        Mistake("maximum starts from 0", "No value is below 0: the maximum starts from 0. Start "
                "from the first pixel of the window, or from -np.inf.",
                lambda x, ksize, stride, cover_all=True:
                np.maximum(pool(x, ksize, stride, cover_all), 0)),
        Mistake("mean instead of maximum", "These are means of the windows: average pooling. "
                "Take the largest pixel.",
                lambda x, ksize, stride, cover_all=True:
                pool(x, ksize, stride, cover_all, np.nanmean, np.nan)),
        Mistake("minimum instead of maximum", "These are the smallest pixels of the windows.",
                lambda x, ksize, stride, cover_all=True:
                pool(x, ksize, stride, cover_all, np.min, np.inf)),
        Mistake("largest absolute value", "The largest absolute value is not the largest value: "
                "-7 is below 3.",
                lambda x, ksize, stride, cover_all=True:
                pool(np.abs(x), ksize, stride, cover_all)),
        Mistake("stride ignored", "The window moves by one pixel, whatever the stride is.",
                lambda x, ksize, stride, cover_all=True: pool(x, ksize, 1, cover_all)),
        Mistake("stride taken for ksize", "The window moves by its own size. ksize and stride are "
                "two numbers: in the 3x3/2 pooling of larger networks windows overlap.",
                lambda x, ksize, stride, cover_all=True: pool(x, ksize, ksize, cover_all)),
        Mistake("maximum over channels", "All channels have the same values: the maximum was "
                "taken over the channels too. Each channel is pooled by itself.",
                over_channels),
        Mistake("maximum over images", "All images have the same values: the maximum was taken "
                "over N too. Each image is pooled by itself.",
                over_images),
    ),
))
