"""Convolutions of 3 x 3 windows with a quarter of the multiplications or less, after Winograd.

A tile of 4 x 4 results is a polynomial product, whose 6 x 6 values at chosen points take 36
multiplications instead of 144; 5 x 5 results, of which three times three cover 14 x 14 pixels, take
49 instead of 225. (6 x 6 would take 64 instead of 324, but lose more on the way than they gain.)
The values at the points are sums along columns, then along rows: products of a small matrix with
rows as long as columns x channels, or rows x channels. So are the results; and between them lies a
matrix product at each point, tiles times weights. All of them are oneDNN's.

A. Lavin, S. Gray: Fast Algorithms for Convolutional Neural Networks, 2016, arXiv:1509.09308.
Rounding errors are some ten times those of a direct convolution (2e-6 to 4e-6 of the result's
norm).
"""

import functools
import itertools
import math
from typing import NamedTuple

from rechainer.onednn import _memory
from rechainer.onednn._arrays import (
    FLOAT,
    as_channels_last,
    as_dense,
    copy,
    empty,
)
from rechainer.onednn._library import ALGORITHMS
from rechainer.onednn._primitives import (
    Description,
    Layout,
    PostOps,
    Primitive,
    Sequence,
    dense_strides,
    per_thread,
    reorder,
)
from rechainer.onednn._products import threads

import numpy


class Form:
    """Tiles of a size, and the numbers in their sums.

    Parameters
    ----------
    points : tuple of float
        Where the polynomials are evaluated, besides infinity.

    Attributes
    ----------
    tile, size, points : int
        Results of a tile in each direction, what they are computed from, and values in both.
    to_points, back, gradient_to_points : numpy.ndarray
        Of maps to the points (B^T), from there to results (A^T), of gradients to the points (A).
    windows : numpy.ndarray, shape (size, 3)
        Of windows (G).
    """

    def __init__(self, *points):
        self.tile, self.size = len(points) - 1, len(points) + 1
        self.points = self.size ** 2
        others = [[q for q in points if q != p] for p in points]
        rows = [numpy.poly(roots)[::-1] for roots in (*others, points)]
        self.to_points = numpy.array([[*row, 0][:self.size] for row in rows], FLOAT)
        self.gradient_to_points = numpy.vander((*points, 0), self.tile, increasing=True)
        self.gradient_to_points[-1] = numpy.eye(self.tile)[-1]
        self.gradient_to_points = self.gradient_to_points.astype(FLOAT)
        self.back = numpy.ascontiguousarray(self.gradient_to_points.T)
        #: The point in both directions, whose value is part of each result as it is.
        self.ones = points.index(1) * self.size + points.index(1)
        scale = [[math.prod(p - q for q in roots)] for p, roots in zip(points, others, strict=True)]
        self.windows = numpy.vstack([
            numpy.vander(points, 3, increasing=True) / scale, [[0, 0, 1]]])

    @functools.cached_property
    def windows_in_both(self):
        """(size^2, 9), of rows, then columns, of windows; points are in the order of columns."""
        both = numpy.kron(self.windows, self.windows).reshape(self.size, self.size, 9)
        return both.transpose(1, 0, 2).reshape(self.points, 9).astype(FLOAT)

    def tiles(self, y_shape):
        """Return the numbers of images, and of rows and columns of tiles in each."""
        return y_shape[0], *(-(-s // self.tile) for s in y_shape[2:])

    def cost(self, o, c, y_shape, fixed):
        """Return how many multiplications it is worth in time; `fixed` in tiles."""
        tiles = math.prod(self.tiles(y_shape))
        products, ways = (tiles + fixed) * o * c, tiles * WAY * self.points * (o + c)
        return self.points * (products + ways) + CALL * threads()


FORMS = Form(0, 1, -1, 2, -2), Form(0, 1, -1, 2, -2, 1 / 2)

#: Bytes of what is in hand at the points at a time: few enough for the processor's cache; of
#: gradients of weights more, because products are faster whose sums are long.
PIECE, SUM_PIECE = 1 << 22, 1 << 24

#: How many times fewer operations there must be.
ADVANTAGE = 1.1

#: What a call costs apart from its products, in multiplications: for each thread, which waits for
#: the others some fifteen times; on the way to the points or back, for each value and each that it
#: is a sum of; in tiles, of reading the weights and of computing them.
CALL, WAY, READ, TRANSFORM = 3e6, 1, 16, 32


def best_form(x_shape, w_shape, y_shape, stride, pad, dilate, fixed=READ + TRANSFORM):
    """Return the `Form` to compute a convolution in, None for a direct one; see `Convolution`.

    Parameters
    ----------
    fixed : int
        `READ`, if the weights are already known at the points.
    """
    if not (tuple(w_shape[2:]) == (3, 3) and tuple(stride) == tuple(dilate) == (1, 1)
            and (y_shape[1], x_shape[1]) == tuple(w_shape[:2])
            and all(p in (0, 1, 2) and y == x + 2 * p - 2 for x, y, p in zip(
                x_shape[2:], y_shape[2:], pad, strict=True))):
        return None
    o, c = w_shape[:2]
    direct = 9 * o * c * y_shape[0] * math.prod(y_shape[2:])
    costs = {form: form.cost(o, c, y_shape, fixed) for form in FORMS
             if form.tile <= min(y_shape[2:])}
    form = min(costs, key=costs.get, default=None)
    return form if form and direct > ADVANTAGE * costs[form] else None


def at_points(form, w, is_rotated=False):
    """Return weights (O, C, 3, 3), rotated by half a turn or not, at the points: (size^2, O, C)."""
    o, c = w.shape[:2]
    u = _memory.empty((form.points, o, c), FLOAT)
    matrix = form.windows_in_both
    matrix = numpy.ascontiguousarray(matrix[:, ::-1]) if is_rotated else matrix
    _product((1, form.points, 9), (1, 9, o * c), None, (9 * o * c, 1, 9))(matrix, as_dense(w), u)
    return u


class Winograd:
    """A convolution, and its gradients, of given shapes in a given form; see `Convolution`."""

    def __init__(self, form, x_shape, y_shape, pad):
        self.form, self.x_shape, self.y_shape, self.pad = form, x_shape, y_shape, tuple(pad)

    def forward(self, x, w, b=None, y=None, activation=None):
        """Return y, written to the array given, which has its channels last."""
        y = empty(self.y_shape) if y is None else y
        tiled = _tiled(self.form, self.x_shape, self.y_shape, self.pad, b is not None, activation,
                       True)
        tiled(x, at_points(self.form, w), b, y)
        return y

    def backward_data(self, w, gy, gx=None):
        """Return the gradient with respect to x, written to `gx`: a convolution, too."""
        gx = empty(self.x_shape) if gx is None else gx
        tiled = _tiled(self.form, self.y_shape, self.x_shape, tuple(2 - p for p in self.pad))
        tiled(gy, at_points(self.form, w, is_rotated=True), None, gx)
        return gx

    def backward_weights(self, x, gy):
        """Return the gradient with respect to w."""
        return _tiled_sum(self.form, self.x_shape, self.y_shape, self.pad)(x, gy)


class Tiled:
    """A convolution with weights that are known at the points.

    Parameters
    ----------
    form : Form
    x_shape, y_shape : tuple of int
    pad : pair of int
    has_bias : bool
    activation : str, optional
        A key of `ALGORITHMS`.
    is_turned : bool
        Whether the weights are (points, O, C), which takes a little longer than (points, C, O).
    """

    def __init__(self, form, x_shape, y_shape, pad, has_bias=False, activation=None,
                 is_turned=False):
        self._has_bias, (c, o) = has_bias, (x_shape[1], y_shape[1])
        order = (c * o, 1, c) if is_turned else (c * o, o, 1)
        self._sequence, first, second = Sequence(), [], []
        for piece in _pieces(form, x_shape, y_shape, pad, PIECE):
            values, products = (form.points, piece.tiles, c), (form.points, piece.tiles, o)
            first += piece.sums, math.prod(values), form.tile * form.size * piece.tiles * o
            second += piece.sums, math.prod(products)
            piece.to_points(self._sequence, X, FIRST, SECOND, FIRST)
            self._sequence.add(_new_product(values, (form.points, c, o), None, order),
                               (FIRST, 0), (U, 0), (SECOND, 0))
            if has_bias:
                self._sequence.add(_new_bias(products[1:]), (SECOND, form.ones * products[1] * o),
                                   (B, 0), (SECOND, form.ones * products[1] * o))
            piece.from_points(self._sequence, SECOND, FIRST, SECOND, Y, activation)
        #: How many numbers it wants to work in, in two arrays.
        self.sizes = max(first), max(second)

    def bind(self, x, u, b, y, first, second):
        """Return the function that computes y from x, arrays that the caller keeps alive.

        Parameters
        ----------
        x, y : numpy.ndarray, shapes (N, C, H, W) and (N, O, H', W'), channels last
        u : numpy.ndarray
            The weights.
        b : numpy.ndarray, shape (O,), or None
        first, second : numpy.ndarray
            Of `sizes`.
        """
        return self._sequence.bind(x, u, y, first, second, *([b] if self._has_bias else []))

    def __call__(self, x, u, b, y):
        """Compute y."""
        x, scratch = as_channels_last(x), [_memory.empty((s,), FLOAT) for s in self.sizes]
        self.bind(x, u, b, y, *scratch)()


class TiledSum:
    """The gradient of a convolution with respect to its weights."""

    def __init__(self, form, x_shape, y_shape, pad):
        self._form, (o, c) = form, (y_shape[1], x_shape[1])
        self._shape, self._sequence, sizes = (o, c), Sequence(), []
        for i, piece in enumerate(_pieces(form, x_shape, y_shape, pad, SUM_PIECE)):
            values, gradients = (form.points, piece.tiles, c), (form.points, o, piece.tiles)
            sizes.append((max(piece.sums, math.prod(gradients)), piece.sums, math.prod(values)))
            piece.to_points(self._sequence, X, FIRST, SECOND, THIRD)
            piece.gradient_to_points(self._sequence, Y, FIRST, SECOND, FIRST)
            self._sequence.add(
                _new_product(gradients, values, (piece.tiles * o, 1, o), adds=i > 0),
                (FIRST, 0), (THIRD, 0), (U, 0))
        self.sizes = [max(size) for size in zip(*sizes, strict=True)]

    def __call__(self, x, gy):
        """Return the gradient (O, C, 3, 3), C-contiguous."""
        x, gy, (o, c) = as_channels_last(x), as_channels_last(gy), self._shape
        points, windows = self._form.points, self._form.windows_in_both
        total, gw = _memory.empty((points, o, c), FLOAT), _memory.empty((9, o * c), FLOAT)
        scratch = [_memory.empty((size,), FLOAT) for size in self.sizes]
        self._sequence.bind(x, total, gy, *scratch)()
        _product((1, 9, points), (1, points, o * c), (9 * points, 1, 9))(windows, total, gw)
        result = _memory.empty((o, c, 3, 3), FLOAT)
        copy(gw.reshape(3, 3, o, c).transpose(2, 3, 0, 1), result)
        return result


_tiled, _tiled_sum = per_thread(Tiled), per_thread(TiledSum)

#: Arrays of a `Sequence` by number: maps, weights, results, what it works in, and the bias.
X, U, Y, FIRST, SECOND, THIRD = range(6)
B = THIRD


class Maps(NamedTuple):
    """Where a piece of maps (N, H, W, C) stands in an array of all images.

    Attributes
    ----------
    height, width, channels : int
        Of the piece in each image.
    start, image : int
        Numbers in front of the first one of the piece, and from image to image.
    """

    height: int
    width: int
    channels: int
    start: int
    image: int

    @classmethod
    def of(cls, shape, first_image, rows):
        """Return those of some rows from an image on, of maps of a shape (N, C, H, W)."""
        _, c, height, width = shape
        start = (first_image * height + rows.start) * width * c
        return cls(rows.stop - rows.start, width, c, start, c * height * width)


class Piece:
    """Some images, or some rows of tiles of one.

    Parameters
    ----------
    form : Form
    x_shape, y_shape : tuple of int
    pad : pair of int
    images, lines : slice
        Which images, and which rows of tiles of each.
    """

    def __init__(self, form, x_shape, y_shape, pad, images, lines):
        self.form, tile = form, form.tile
        self.n, self.grid = images.stop - images.start, (lines.stop - lines.start,
                                                         form.tiles(y_shape)[2])
        self.tiles = self.n * math.prod(self.grid)
        begin = lines.start * tile - pad[0]
        rows = slice(max(0, begin), min(x_shape[2], lines.stop * tile - pad[0] + 2))
        self.x, self.pad = Maps.of(x_shape, images.start, rows), (rows.start - begin, pad[1])
        rows = slice(lines.start * tile, min(y_shape[2], lines.stop * tile))
        self.y = Maps.of(y_shape, images.start, rows)

    @property
    def sums(self):
        """How many numbers there are halfway to the points, of maps and of gradients."""
        columns = max(maps.width * maps.channels for maps in (self.x, self.y))
        return self.form.size * self.n * self.grid[0] * columns

    def to_points(self, sequence, x, sums, turned, values):
        """Add what computes maps at the points: (size^2, tiles, C)."""
        self._to_points(sequence, self.form.to_points, self.x, self.pad, x, sums, turned, values)

    def gradient_to_points(self, sequence, gy, sums, turned, values):
        """Add what computes the gradient of the results at the points: (size^2, tiles, O)."""
        self._to_points(sequence, self.form.gradient_to_points, self.y, (0, 0), gy, sums, turned,
                        values)

    def _to_points(self, sequence, matrix, maps, pad, source, sums, turned, values):
        """Add sums along columns and along rows; in between rows and columns change places.

        So that what lies side by side is long both times: columns x channels, then rows x channels.
        Sums are (size, N, rows of tiles, columns, C); turned, columns stand before N.
        """
        (rows, columns), n, s = self.grid, self.n, self.form.size
        height, width, c, start, image = maps
        _add_sums(sequence, matrix, self.form.tile, (n, rows, height, width * c), pad[0],
                  (source, start), (image, width * c), (sums, 0),
                  (rows * width * c, n * rows * width * c))
        length = n * rows * c
        shape = s, n * rows, width, c
        sequence.add(reorder(Layout.dense(shape), Layout(shape, (width * length, c, length, 1))),
                     (sums, 0), (turned, 0))
        _add_sums(sequence, matrix, self.form.tile, (s, columns, width, length), pad[1],
                  (turned, 0), (width * length, length), (values, 0),
                  (columns * length, s * columns * length))

    def from_points(self, sequence, products, halves, results, y, activation):
        """Add what computes results (N, H', W', O) from products (size^2, tiles, O)."""
        back, (t, s), length = self.form.back, self.form.back.shape, self.tiles * self.y.channels
        for n, source, target, settings in ((s, products, halves, ()),
                                            (t, halves, results, (activation,))):
            product = _new_product((1, t, s), (n, s, length), None, None,
                                   (length, n * length, 1), False, *settings)
            sequence.add(product, back, (source, 0), (target, 0))
        self._place(sequence, results, y)

    def _place(self, sequence, results, y):
        """Add what copies results (columns, rows, tiles, O) to where they belong.

        Of the last tiles in each direction some results lie outside.
        """
        n, rows, tile = self.n, self.grid[0], self.form.tile
        height, width, o, start, image = self.y
        sources = tile * self.tiles * o, self.tiles * o, n * rows * o, rows * o, o, 1
        targets = o, width * o, tile * o, image, tile * width * o, 1
        for (column, wide, across), (row, high, along) in itertools.product(
                _whole_and_rest(width, tile), _whole_and_rest(height, tile)):
            shape = across, along, wide, n, high, o
            sequence.add(reorder(Layout(shape, sources), Layout(shape, targets)),
                         (results, (column * n * rows + row) * o),
                         (y, start + tile * (row * width + column) * o))


def _pieces(form, x_shape, y_shape, pad, size):
    """Cut a convolution into pieces of about `size` bytes at the points."""
    n, rows, columns = form.tiles(y_shape)
    channels = max(x_shape[1], y_shape[1])
    lines = max(1, size // (form.points * FLOAT.itemsize * channels * columns))
    return [Piece(form, x_shape, y_shape, pad, images, part)
            for images in _parts(n, max(1, lines // rows)) for part in _parts(rows, lines)]


def _parts(length, most):
    """Cut a range into slices of about the same length, none longer than `most`."""
    count = -(-length // most)
    return [slice(length * i // count, length * (i + 1) // count) for i in range(count)]


def _whole_and_rest(size, tile):
    """Return first tile, number of tiles, and results of each, of whole tiles and of the rest."""
    whole, rest = divmod(size, tile)
    return [part for part in ((0, whole, tile), (whole, 1, rest)) if part[1] and part[2]]


def _add_sums(sequence, matrix, tile, shape, pad, source, x_strides, target, y_strides):
    """Add the products of a matrix with each window of a sequence of rows, of which x has N.

    Windows overlap, oneDNN's arrays must not: every other one is part of the same product. What
    lies outside x is left out.

    Parameters
    ----------
    matrix : numpy.ndarray, shape (rows of y, size of a window)
    tile : int
        Rows from window to window.
    shape : tuple of int
        N, windows, rows, and the length of a row.
    pad : int
        Rows that the first window begins before x.
    source, target : pair of int
    x_strides, y_strides : pair of int
        Of x: between its N, and between rows. Of y: between its N, and between its rows; those of
        windows are a row's length apart.
    """
    (n, windows, height, length), (m, size) = shape, matrix.shape
    for (start, stop), step, numbers in _alike(windows, tile, size, pad, height):
        k, first = stop - start, numbers[0]
        batch = [axis for axis in ((n, x_strides[0], y_strides[0]),
                                   (len(numbers), step * tile * x_strides[1], step * length))
                 if axis[0] > 1]
        sizes, x_steps, y_steps = zip(*batch, strict=True) if batch else ((),) * 3
        product = _new_product(
            (*[1] * len(batch), m, k), (*sizes, k, length), (*[m * size] * len(batch), size, 1),
            (*x_steps, x_strides[1], 1), (*y_steps, y_strides[1], 1))
        sequence.add(product, matrix[:, start:stop],
                     (source[0], source[1] + (first * tile - pad + start) * x_strides[1]),
                     (target[0], target[1] + first * length))


def _alike(windows, tile, size, pad, height):
    """Yield which rows of a window are inside, a step, and windows so far apart with just these.

    They do not overlap, and take no more steps than there are, which oneDNN wants to be sure of.
    """
    step, groups = -(-size // tile), {}
    for i in range(windows):
        begin = i * tile - pad
        inside = max(0, -begin), min(size, height - begin)
        groups.setdefault((i % step, inside), []).append(i)
    most = max(1, min(windows // step, height // (step * tile)))
    for (_, inside), numbers in groups.items():
        for part in _parts(len(numbers), most):
            yield inside, step, numbers[part]


@per_thread
def _describe_product(a_shape, b_shape, a_strides, b_strides, y_strides, adds, activation):
    y_shape = *b_shape[:-2], a_shape[-2], b_shape[-1]
    a, b, y = (Layout(shape, strides or dense_strides(shape)) for shape, strides in (
        (a_shape, a_strides), (b_shape, b_strides), (y_shape, y_strides)))
    post_ops = PostOps(activation=activation, has_sum=adds) if adds or activation else None
    description = Description("matmul", a, b, None, y, post_ops=post_ops)
    return description, {"src": a, "weights": b, "dst": y}


def _new_product(a_shape, b_shape, a_strides=None, b_strides=None, y_strides=None, adds=False,
                 activation=None):
    """Return the primitive of matrix products, activation(a b), or y + a b; b may have more."""
    description, layouts = _describe_product(a_shape, b_shape, a_strides, b_strides, y_strides,
                                             adds, activation)
    return Primitive(description, **layouts)


_product = per_thread(_new_product)


def _new_bias(shape):
    """Return the primitive that adds a row to each row of a matrix."""
    x, row = Layout.dense(shape), Layout.dense((1, shape[1]))
    description = Description("binary", ALGORITHMS["binary_add"], x, row, x)
    return Primitive(description, src=x, src_1=row, dst=x)
