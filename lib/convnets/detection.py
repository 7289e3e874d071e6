"""Where the digits of a scene are: scenes made of MNIST, boxes, and a detector from a classifier.

A box is (y0, x0, y1, x1) in pixels: rows y0 up to but without y1. A trained LeNet5, run over a
scene, gives one vector of features for each window of 28 x 28 at a distance of four pixels; `Head`
turns each into classes and a box.
"""

from typing import NamedTuple

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
from tqdm import tqdm

from .models.lenet5 import max_pool

N_DIGITS = 10
NOTHING = 10             # the class of a place, or a pixel, without a digit
IGNORE = -1              # neither right nor wrong: `F.softmax_cross_entropy` leaves it out
WINDOW, STRIDE = 28, 4   # of LeNet5: what one place sees, and the way to the next
ANCHOR = 20              # height and width of the box that `Head` corrects: MNIST fits digits in it
NEAR, FAR = 3, 8         # a place belongs to a digit up to here; it is background from there on
FRAGMENT = 8             # height and width of a piece of clutter


class Scenes(NamedTuple):
    """Scenes and all that is true of them.

    Attributes
    ----------
    images : numpy.ndarray, shape (N, 1, S, S), float32
        0 is black, 1 white.
    boxes : list of numpy.ndarray, shape (K, 4), float32
        Of the K digits of each scene: the smallest box with all their ink.
    labels : list of numpy.ndarray, shape (K,), int32
    pixels : numpy.ndarray, shape (N, S, S), int32
        The class of each pixel: a digit, `NOTHING`, or `IGNORE` on a digit's faint edge.
    """

    images: np.ndarray
    boxes: list
    labels: list
    pixels: np.ndarray


def scenes(digits, n, seed=0, size=96, per_scene=(3, 6), clutter=12):
    """Compose scenes of digits that do not overlap, with fragments of digits as clutter.

    Fragments make it hard to tell a digit by its ink alone (Mnih et al. 2014, cluttered MNIST).

    Parameters
    ----------
    digits : dataset
        Pairs of an image (1, 28, 28) in 0..1 and a label, such as `convnets.data.mnist` gives.
    n : int
        Number of scenes.
    seed : int
    size : int
        Height and width of a scene in pixels, 28 or more.
    per_scene : (int, int)
        Least and largest number of digits; fewer where no place is left.
    clutter : int
        Fragments in a scene.

    Returns
    -------
    Scenes

    Raises
    ------
    ValueError
        If a scene is smaller than a digit, or none is asked for.
    """
    if n < 1:
        raise ValueError(f"the number of scenes must be at least 1, got {n}")
    if size < WINDOW:
        raise ValueError(f"a scene of {size} x {size} pixels cannot hold a digit of "
                         f"{WINDOW} x {WINDOW}: size must be {WINDOW} or more")
    x, t = chainer.dataset.concat_examples(digits[:])
    random = np.random.RandomState(seed)
    return _together([_scene(x[:, 0], t, random, size, per_scene, clutter) for _ in range(n)])


def _together(rows):
    images, boxes, labels, pixels = zip(*rows, strict=True)
    return Scenes(np.stack(images)[:, None], list(boxes), list(labels), np.stack(pixels))


def _scene(x, t, random, size, per_scene, clutter):
    image, boxes, labels = np.zeros((size, size), np.float32), [], []
    pixels = np.full((size, size), NOTHING, np.int32)
    taken = np.zeros((size, size), bool)
    for _ in range(random.randint(per_scene[0], per_scene[1] + 1)):
        i = random.randint(len(x))
        if (box := _put(image, taken, x[i], random, margin=2)) is not None:
            boxes.append(box)
            labels.append(t[i])
            y0, x0, y1, x1 = box
            ink = image[y0:y1, x0:x1]
            pixels[y0:y1, x0:x1] = np.select([ink >= 0.5, ink > 0], [t[i], IGNORE], NOTHING)
    for _ in range(clutter):
        i, (y, x0) = random.randint(len(x)), random.randint(4, 17, 2)
        _put(image, taken.copy(), x[i, y:y + FRAGMENT, x0:x0 + FRAGMENT], random)
    return (image, np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int32), pixels)


def _put(image, taken, patch, random, margin=0, tries=20):
    """Draw a patch where nothing is taken, take the place, and return the box of its ink."""
    ink = patch > 0
    if not ink.any():
        return None
    rows, columns = (np.flatnonzero(ink.any(axis=axis)) for axis in (1, 0))
    for _ in range(tries):
        y, x = (random.randint(0, n - k + 1) for n, k in zip(image.shape, ink.shape, strict=True))
        box = y + rows[0], x + columns[0], y + rows[-1] + 1, x + columns[-1] + 1
        if not taken[box[0]:box[2], box[1]:box[3]].any():
            break
    else:
        return None
    taken[max(box[0] - margin, 0):box[2] + margin, max(box[1] - margin, 0):box[3] + margin] = True
    view = image[y:y + len(ink), x:x + ink.shape[1]]
    np.maximum(view, patch, out=view)
    return box


# ---- boxes -------------------------------------------------------------------------------------


def iou(a, b):
    """Return the area that boxes share over the area that they cover together.

    Parameters
    ----------
    a, b : array, shapes (N, 4) and (M, 4)
        As (y0, x0, y1, x1).

    Returns
    -------
    numpy.ndarray, shape (N, M)
        0 for boxes that do not meet, 1 for equal ones; of an empty box 0.

    Raises
    ------
    ValueError
        If an array has another shape, or a box ends before it begins.
    """
    a, b = _boxes(a), _boxes(b)
    shared = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    shared = shared.clip(min=0).prod(axis=2)                           # (N, M)
    area_a, area_b = ((box[:, 2:] - box[:, :2]).prod(axis=1) for box in (a, b))
    either = area_a[:, None] + area_b - shared
    return shared / np.where(either > 0, either, 1)


def _boxes(boxes):
    boxes = np.asarray(boxes)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes must be (N, 4), rows of (y0, x0, y1, x1); got shape {boxes.shape}")
    bad = np.flatnonzero((boxes[:, 2:] < boxes[:, :2]).any(axis=1))
    if len(bad):
        raise ValueError(f"box {bad[0]} ends before it begins: {boxes[bad[0]].tolist()}; a box is "
                         f"(y0, x0, y1, x1), not (y, x, height, width)")
    return boxes


def nms(boxes, scores, overlap=0.3):
    """Return which boxes remain when each takes away the weaker ones that overlap it too much.

    Non-maximum suppression, greedily from the highest score down.

    Parameters
    ----------
    boxes : array, shape (N, 4)
    scores : array, shape (N,)
    overlap : float
        A box with a larger IoU with a stronger one is taken away; 1 keeps all.

    Returns
    -------
    numpy.ndarray of int
        Positions of those kept, highest score first; of equal scores the first.

    Raises
    ------
    ValueError
        If the numbers of boxes and scores differ.
    """
    boxes, scores = _boxes(boxes), np.asarray(scores)
    if len(boxes) != len(scores):
        raise ValueError(f"nms: {len(boxes)} boxes but {len(scores)} scores")
    order, kept = np.argsort(-scores, kind="stable"), []
    while len(order):
        kept.append(order[0])
        order = order[1:][iou(boxes[order[:1]], boxes[order[1:]])[0] <= overlap]
    return np.array(kept, int)


class Found(NamedTuple):
    """What a detector says of one scene: boxes (N, 4), scores (N,) and labels (N,)."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


def match(found, truth, overlap=0.5):
    """Return which of the found boxes are right, over all scenes.

    The rule of PASCAL VOC (Everingham et al. 2010, section 4.2): from the highest score down, a
    box is right if the true box of its label that it overlaps most is overlapped enough and not
    yet found. A second box on the same digit is wrong.

    Parameters
    ----------
    found : sequence of Found
        One for each scene.
    truth : sequence of (array (K, 4), array (K,))
        True boxes and labels of each scene.
    overlap : float
        The least IoU of a right box.

    Returns
    -------
    scores : numpy.ndarray, shape (M,), float32
        Of all found boxes, highest first.
    right : numpy.ndarray, shape (M,), bool
    n_true : int
        Number of true boxes.
    """
    scores, right = [np.zeros(0, np.float32)], [np.zeros(0, bool)]
    for one, (boxes, labels) in zip(found, truth, strict=True):
        order = np.argsort(-np.asarray(one.scores), kind="stable")
        scores.append(np.asarray(one.scores)[order])
        right.append(_right(one.boxes[order], one.labels[order], boxes, labels, overlap))
    scores, right = np.concatenate(scores), np.concatenate(right)
    order = np.argsort(-scores, kind="stable")
    return scores[order], right[order], sum(len(boxes) for boxes, _ in truth)


def _right(boxes, labels, true_boxes, true_labels, overlap):
    right = np.zeros(len(boxes), bool)
    if not len(true_boxes):
        return right
    fits = iou(boxes, true_boxes) * (labels[:, None] == true_labels)    # 0 for another label
    free = np.ones(len(true_boxes), bool)
    for i, best in enumerate(fits.argmax(axis=1)):
        right[i] = fits[i, best] >= overlap and free[best]
        free[best] &= not right[i]
    return right


def precision_recall(scores, right, n_true, threshold=0.0):
    """Return the share of found boxes that are right, and the share of true boxes that are found.

    Parameters
    ----------
    scores, right, n_true
        As `match` returns them.
    threshold : float
        Only boxes with at least this score count.

    Returns
    -------
    precision, recall : float
        Precision is 1 where nothing is found.
    """
    kept = right[scores >= threshold]
    return float(kept.mean()) if len(kept) else 1.0, float(kept.sum() / max(n_true, 1))


def average_precision(scores, right, n_true):
    """Return the mean precision over all recalls from 0 to 1.

    As PASCAL VOC has it since 2010: the area under precision over recall, where precision at a
    recall is the best that is reached at this or a higher one. All classes are in one ranking;
    VOC's mean AP averages one for each class.

    Parameters
    ----------
    scores, right, n_true
        As `match` returns them.

    Returns
    -------
    float
        0 to 1.
    """
    hits = right.cumsum()
    precision = hits / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float(best[right].sum() / max(n_true, 1))


# ---- a detector from a classifier ---------------------------------------------------------------


def feature_maps(net, images, pad=0, batch=8):
    """Run the convolutions of a LeNet5 over images of any size, once and without a graph.

    Parameters
    ----------
    net : convnets.models.LeNet5
    images : array, shape (N, 1, H, W), float
        H and W plus twice `pad` are 28 and a multiple of four more: else Chainer's poolings, which
        cover all, add a place that sees less than a window.
    pad : int
        Zeros around the image.
    batch : int
        Images at a time.

    Returns
    -------
    dict of numpy.ndarray
        ``conv1`` (N, 6, H', W'), ``conv2`` (N, 16, ...) and ``conv3`` (N, 120, ...) behind their
        sigmoids. Place (i, j) of conv3 sees the window of 28 x 28 pixels at (4i - pad, 4j - pad).

    Raises
    ------
    ValueError
        If height or width do not fit.
    """
    sides = [side + 2 * pad for side in images.shape[2:]]
    if any(side < WINDOW or (side - WINDOW) % STRIDE for side in sides):
        raise ValueError(f"height and width must be {WINDOW}, {WINDOW + STRIDE}, "
                         f"{WINDOW + 2 * STRIDE}, ... pixels with the padding; got {sides}")
    images = np.pad(images, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    with chainer.no_backprop_mode():
        parts = [_maps(net, images[i:i + batch]) for i in range(0, len(images), batch)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _maps(net, x):
    conv1 = F.sigmoid(net.conv1(x))
    conv2 = F.sigmoid(net.conv2(max_pool(conv1)))
    conv3 = F.sigmoid(net.conv3(max_pool(conv2)))
    return {"conv1": conv1.array, "conv2": conv2.array, "conv3": conv3.array}


def rows(maps):
    """Return maps (N, C, H, W) as one row a place, (N H W, C)."""
    return np.moveaxis(maps, 1, 3).reshape(-1, maps.shape[1])


def centres(size):
    """Return where the middles of the windows are, in pixels, along a side of a scene."""
    return np.arange(0, size - WINDOW + 1, STRIDE) + WINDOW / 2


def anchors(size):
    """Return the box of `ANCHOR` x `ANCHOR` pixels in the middle of each window, (P, 4)."""
    y, x = np.meshgrid(centres(size), centres(size), indexing="ij")
    half = ANCHOR / 2
    return np.stack([y - half, x - half, y + half, x + half], axis=-1).reshape(-1, 4)


def encode(boxes):
    """Return boxes (N, 4) as middle (y, x), height and width, (N, 4)."""
    sides = boxes[:, 2:] - boxes[:, :2]
    return np.concatenate([boxes[:, :2] + sides / 2, sides], axis=1)


def targets(boxes, labels, size):
    """Return what each place of a scene should say.

    A place within `NEAR` pixels of a digit's middle, in both directions, is positive; from `FAR`
    pixels on it is background; in between it is left out.

    Parameters
    ----------
    boxes : array, shape (K, 4)
    labels : array, shape (K,)
    size : int
        Height and width of the scene.

    Returns
    -------
    classes : numpy.ndarray, shape (P,), int32
        A digit, `NOTHING` or `IGNORE`; P places, row by row.
    offsets : numpy.ndarray, shape (P, 4), float32
        From the anchor to the digit's box: the way in anchors, and the logarithms of height and
        width in anchors (Girshick et al. 2014, appendix C). 0 where there is no digit.
    """
    places = encode(anchors(size))
    classes = np.full(len(places), NOTHING, np.int32)
    offsets = np.zeros((len(places), 4), np.float32)
    away = [abs(places[:, :2] - box[:2]).max(axis=1) for box in encode(boxes)]
    for distance in away:
        classes[distance < FAR] = IGNORE
    for distance, label, box in zip(away, labels, encode(boxes), strict=True):
        near = distance <= NEAR
        classes[near] = label
        offsets[near, :2] = (box[:2] - places[near, :2]) / ANCHOR
        offsets[near, 2:] = np.log(box[2:] / ANCHOR)
    return classes, offsets


def decode(offsets, size):
    """Return the boxes (P, 4) that offsets (P, 4) make of the `anchors` of a scene."""
    middle = encode(anchors(size))[:, :2] + ANCHOR * offsets[:, :2]
    half = ANCHOR / 2 * np.exp(offsets[:, 2:])
    return np.concatenate([middle - half, middle + half], axis=1)


class Head(chainer.Chain):
    """Classes and boxes from LeNet5's features: its own last layers, one class more, and a box.

    Parameters
    ----------
    net : convnets.models.LeNet5
        Its fc4 and fc5 are copied; the row for `NOTHING` starts at 0, and so does the box.
    """

    def __init__(self, net):
        super().__init__()
        with self.init_scope():
            self.fc4 = net.fc4.copy("copy")
            self.fc5 = L.Linear(net.fc5.W.shape[1], N_DIGITS + 1, initialW=0)
            self.box = L.Linear(net.fc4.W.shape[1], 4, initialW=0)
        self.fc5.W.array[:N_DIGITS] = net.fc5.W.array
        self.fc5.b.array[:N_DIGITS] = net.fc5.b.array

    def forward(self, h):
        """Return scores (P, 11) and offsets (P, 4) of features (P, 120)."""
        return self.fc5(F.sigmoid(self.fc4(h))), self.box(h)


def loss(head, h, classes, offsets):
    """Return cross entropy of all places plus smooth L1 of the boxes where there is a digit.

    Girshick 2015, "Fast R-CNN", equations 1 to 3.

    Parameters
    ----------
    head : Head
    h : array, shape (P, 120)
    classes, offsets
        As `targets` returns them.

    Returns
    -------
    chainer.Variable
        A scalar.
    """
    scores, guesses = head(h)
    total = F.softmax_cross_entropy(scores, classes, ignore_label=IGNORE)
    (digit,) = np.nonzero((classes != NOTHING) & (classes != IGNORE))
    if len(digit):
        total += F.mean(F.huber_loss(guesses[digit], offsets[digit], delta=1.0))
    return total


def fit(head, h, classes, offsets, epochs, batch=512, lr=0.003, seed=0, progress=False):
    """Train a head with Adam on places that are not to be ignored, in a random order.

    Parameters
    ----------
    head : Head
    h : array, shape (P, 120)
    classes, offsets
        As `targets` returns them, of all scenes one behind the other.
    epochs, batch, lr, seed
        Passes, places in a step, rate, and seed of the order.
    progress : bool
        Show a progress bar on stderr.
    """
    random = np.random.RandomState(seed)
    (kept,) = np.nonzero(classes != IGNORE)
    adam = chainer.optimizers.Adam(lr).setup(head)
    for _ in tqdm(range(epochs), "detector", disable=not progress, unit="pass"):
        for i in np.array_split(random.permutation(kept), max(len(kept) // batch, 1)):
            adam.update(loss, head, h[i], classes[i], offsets[i])


def all_targets(some):
    """Return `targets` of all places of all scenes, one behind the other."""
    size = some.images.shape[2]
    pairs = [targets(boxes, labels, size)
             for boxes, labels in zip(some.boxes, some.labels, strict=True)]
    return tuple(map(np.concatenate, zip(*pairs, strict=True)))


def answers(head, maps, size, fitted=True):
    """Return what each place says of its scene, before anything is left out.

    Parameters
    ----------
    head : Head
    maps : array, shape (120, H, W)
        Of one scene.
    size : int
        Its height and width in pixels.
    fitted : bool
        Correct the anchors; else they are the boxes.

    Returns
    -------
    Found
        Of all P = H W places, with the digit that is most probable there.
    """
    with chainer.no_backprop_mode():
        scores, offsets = head(rows(maps[None]))
        p = F.softmax(scores).array[:, :N_DIGITS]
    boxes = decode(offsets.array, size) if fitted else anchors(size)
    return Found(boxes, p.max(axis=1), p.argmax(axis=1))


def keep(found, score=0.05, overlap=0.3):
    """Return the boxes with at least this score that `nms` leaves; `overlap` None skips it.

    Parameters
    ----------
    found : Found
    score, overlap : float

    Returns
    -------
    Found
        Highest score first.
    """
    strong = Found(*(part[found.scores >= score] for part in found))
    order = nms(strong.boxes, strong.scores, 1 if overlap is None else overlap)
    return Found(*(part[order] for part in strong))
