"""Convolutions of 3 x 3 windows with a quarter of the multiplications, after Winograd.

A tile of 4 x 4 results is a polynomial product, whose 6 x 6 values at chosen points take 36
multiplications instead of 144. Values at points, and results from them, are small matrix products,
and so is what lies between: at each point, tiles times weights. NumPy's BLAS computes all of them,
in oneDNN's threads, which is twice as fast as direct convolution where there are many channels.

A. Lavin, S. Gray: Fast Algorithms for Convolutional Neural Networks, 2016, arXiv:1509.09308.
Rounding errors are some ten times those of a direct convolution (3e-6 of the result's norm).
"""

import math

from rechainer.onednn import _memory
from rechainer.onednn._arrays import FLOAT, as_channels_last, as_dense, copy, empty
from rechainer.onednn._products import in_threads, one_thread, threads

import numpy

#: Results of a tile, and what they are computed from, in each direction.
TILE, SIZE = 4, 6

#: To the points 0, 1, -1, 2, -2 and infinity: of maps (B^T), of windows (G); and back (A^T).
AT_POINTS = [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
             [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]]
WINDOW_AT_POINTS = [[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
                    [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]]
FROM_POINTS = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]

#: The pair of points (1, 1), whose value is added to each result of the tile.
ONE = SIZE + 1

#: Tiles that a thread has in hand at a time: enough for a product, few enough for its cache.
TILES = 160

#: How many times fewer operations there must be, for maps and for gradients of weights: slim
#: products are slower than large ones, and BLAS is what the latter are compared with.
ADVANTAGE, SUM_ADVANTAGE = 1.5, 1.1

#: What a call costs apart from its tiles: in operations, and in tiles for reading the weights at
#: the points and for computing them. Operations on the way to the points and back count double.
CALL, READ, TRANSFORM, SLIM = 5e7, 16, 32, 2


def _in_both_directions(matrix):
    return numpy.kron(matrix, matrix).astype(FLOAT)


B, G, A = map(_in_both_directions, (AT_POINTS, WINDOW_AT_POINTS, FROM_POINTS))


def is_better(x_shape, w_shape, y_shape, stride, dilate, fixed=READ + TRANSFORM,
              advantage=ADVANTAGE):
    """Tell whether to compute a convolution so; see `Convolution`.

    Parameters
    ----------
    fixed : int
        `READ`, if the weights are already known at the points.
    advantage : float
        How many times fewer operations it must take.
    """
    if not (tuple(w_shape[2:]) == (3, 3) and tuple(stride) == tuple(dilate) == (1, 1)
            and (y_shape[1], x_shape[1]) == tuple(w_shape[:2]) and one_thread()):
        return False
    (o, c), tiles = w_shape[:2], math.prod(_tiles(y_shape))
    weights = 2 * len(B) * o * c
    ways = 2 * len(B) * (len(B) * c + len(A) * o)
    operations = (tiles + fixed) * weights + SLIM * tiles * ways + CALL
    return 18 * o * c * y_shape[0] * math.prod(y_shape[2:]) > advantage * operations


def at_points(w, is_rotated=False):
    """Return weights (O, C, 3, 3), rotated by half a turn or not, at the points: (36, O, C)."""
    o, c = w.shape[:2]
    w, u = as_dense(w).reshape(o, c, 9), _memory.empty((len(B), o, c), FLOAT)
    matrix = G[:, ::-1] if is_rotated else G

    def work(part):
        numpy.matmul(matrix, w[part].reshape(-1, 9).T, out=u[:, part].reshape(len(B), -1))

    with one_thread():
        in_threads(work, o)
    return u


class Winograd:
    """A convolution, and its gradients, of given shapes; see `Convolution`.

    Rows of tiles are counted through all images.
    """

    def __init__(self, x_shape, w_shape, y_shape, pad):
        self.x_shape, self.w_shape, self.y_shape, self.pad = x_shape, w_shape, y_shape, pad

    def forward(self, x, u, b=None, add=None, is_rectified=False, y=None):
        """Return y.

        Parameters
        ----------
        x : numpy.ndarray, shape (N, C, H, W)
        u : numpy.ndarray, shape (36, O, C)
            Weights, see `at_points`.
        b : numpy.ndarray, shape (O,), optional
        add : numpy.ndarray, shape (N, O, H', W'), optional
            What is added to the result.
        is_rectified : bool
            Whether a ReLU follows.
        y : numpy.ndarray, shape (N, O, H', W'), channels last, optional
            Where to write the result.
        """
        y = empty(self.y_shape) if y is None else y
        _convolve(x, u.transpose(0, 2, 1), self.pad, y, b, add, is_rectified)
        return y

    def backward_data(self, w, gy, gx=None):
        """Return the gradient with respect to x, written to `gx`: a convolution, too."""
        gx = empty(self.x_shape) if gx is None else gx
        _convolve(gy, at_points(w, is_rotated=True), [2 - p for p in self.pad], gx)
        return gx

    def backward_weights(self, x, gy):
        """Return the gradient with respect to w."""
        (o, c), (x, gy) = self.w_shape[:2], map(_pixels, (x, gy))
        n, rows, columns = _tiles(self.y_shape)
        total = _memory.empty((len(B), o, c), FLOAT)
        total.fill(0)
        with one_thread():
            for lines in _pieces(slice(0, n * rows), -(-TILES * threads() // columns)):
                _add_products(x, gy, lines, rows, columns, self.pad, total)
            gw = _memory.empty((9, o * c), FLOAT)
            numpy.matmul(G.T, total.reshape(len(B), -1), out=gw)
        result = _memory.empty(self.w_shape, FLOAT)
        copy(gw.reshape(3, 3, o, c).transpose(2, 3, 0, 1), result)
        return result


def _add_products(x, gy, lines, rows, columns, pad, total):
    """Add to the gradient at the points, (36, O, C), what some rows of tiles contribute."""
    count = lines.stop - lines.start
    v, m = (_memory.empty((len(B), count, columns, a.shape[3]), FLOAT) for a in (x, gy))

    def transform(part):
        these = slice(lines.start + part.start, lines.start + part.stop)
        for tiles, matrix, values in (
                (_cut(x, these, rows, columns, SIZE, pad), B, v),
                (_cut(gy, these, rows, columns, TILE, (0, 0)), A.T, m)):
            numpy.matmul(matrix, tiles, out=values[:, part].reshape(len(B), -1))

    def multiply(points):
        product = _memory.empty(total.shape[1:], FLOAT)
        for i in range(points.start, points.stop):
            numpy.matmul(m[i].reshape(-1, m.shape[3]).T, v[i].reshape(-1, v.shape[3]), out=product)
            total[i] += product

    in_threads(transform, count)
    in_threads(multiply, len(B))


def _convolve(x, u, pad, y, b=None, add=None, is_rectified=False):
    """Compute y from x and u, (36, C, O)."""
    n, rows, columns = _tiles(y.shape)
    x, y, add = _pixels(x), _pixels(y), None if add is None else _pixels(add)
    c, o = u.shape[1:]

    def at_points(lines):
        tiles = _cut(x, lines, rows, columns, SIZE, pad)
        return _product(B, tiles).reshape(len(B), -1, c)

    def results(lines):
        products = _product(at_points(lines), u)
        if b is not None:
            products[ONE] += b
        return _product(A, products.reshape(len(B), -1)).reshape(TILE, TILE, -1, columns, o)

    def work(part):
        for lines in _pieces(part, -(-TILES // columns)):
            tiles = results(lines)
            if add is not None:
                for place, tile in _places(add, lines, rows, tiles):
                    tile += place
            if is_rectified:
                numpy.maximum(tiles, 0, out=tiles)
            for place, tile in _places(y, lines, rows, tiles):
                place[...] = tile

    with one_thread():
        in_threads(work, n * rows)


def _product(a, b):
    y = _memory.empty((*a.shape[:-1], b.shape[-1]), FLOAT)
    return numpy.matmul(a, b, out=y)


def _pixels(x):
    return as_channels_last(x).transpose(0, 2, 3, 1)


def _tiles(y_shape):
    """Return the numbers of images, and of rows and columns of tiles in each."""
    return y_shape[0], *(-(-s // TILE) for s in y_shape[2:])


def _pieces(whole, step):
    """Cut a slice into slices of about the same length, none longer than `step`."""
    length = whole.stop - whole.start
    count = -(-length // step)
    for i in range(count):
        yield slice(whole.start + length * i // count, whole.start + length * (i + 1) // count)


def _blocks(lines, rows):
    """Cut a slice of all rows of tiles into parts of an image and into whole images.

    Yields slices: the images, the rows of tiles in each of them, their rows in the slice.
    """
    start = lines.start
    while start < lines.stop:
        image, first = divmod(start, rows)
        left = lines.stop - start
        count = 1 if first else max(1, left // rows)
        inside = slice(first, min(rows, first + left))
        stop = start + count * (inside.stop - first)
        yield (slice(image, image + count), inside,
               slice(start - lines.start, stop - lines.start))
        start = stop


def _cut(x, lines, rows, columns, size, pad):
    """Return some rows of tiles of maps (N, H, W, C), zero outside: (size^2, tiles x C)."""
    tiles = _memory.empty((size, size, lines.stop - lines.start, columns, x.shape[3]), FLOAT)
    for images, inside, part in _blocks(lines, rows):
        window = _window(x[images], inside, columns, size - TILE, pad)
        count, (n, down, right, channel) = inside.stop - inside.start, window.strides
        # One copy: threads wait for each other between NumPy's functions.
        overlapping = numpy.lib.stride_tricks.as_strided(
            window, (size, size, len(window), count, columns, x.shape[3]),
            (down, right, n, TILE * down, TILE * right, channel), writeable=False)
        tiles[:, :, part].reshape(overlapping.shape)[...] = overlapping
    return tiles.reshape(size * size, -1)


def _window(x, lines, columns, overlap, pad):
    """Return what some rows of tiles cover of images (N, H, W, C), zero outside."""
    height, width = (count * TILE + overlap for count in (lines.stop - lines.start, columns))
    window = numpy.zeros((len(x), height, width, x.shape[3]), FLOAT)
    corner = lines.start * TILE - pad[0], -pad[1]
    # What the tiles need and the images have.
    here = tuple(slice(max(0, start), max(0, start, min(size, start + length)))
                 for start, length, size in zip(corner, (height, width), x.shape[1:3],
                                                strict=True))
    there = tuple(slice(part.start - start, part.stop - start)
                  for part, start in zip(here, corner, strict=True))
    window[:, *there] = x[:, *here]
    return window


def _places(y, lines, rows, tiles):
    """Return (view of maps, view of the tiles there), of one shape, with all that the maps have."""
    columns = tiles.shape[3]
    for images, inside, part in _blocks(lines, rows):
        n, count = images.stop - images.start, inside.stop - inside.start
        tile = tiles[:, :, part].reshape(TILE, TILE, n, count, columns, -1)
        place = y[images, inside.start * TILE:inside.stop * TILE]
        if place.shape[1:3] == (count * TILE, columns * TILE):
            yield _in_tiles(place), tile
            continue
        for i in range(TILE):
            for j in range(TILE):
                here = place[:, i::TILE, j::TILE]
                yield here, tile[i, j][:, :here.shape[1], :here.shape[2]]


def _in_tiles(maps):
    n, height, width, c = maps.shape
    tiles = maps.reshape(n, height // TILE, TILE, width // TILE, TILE, c)
    return tiles.transpose(2, 4, 0, 1, 3, 5)
