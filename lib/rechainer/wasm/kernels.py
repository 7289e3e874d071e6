"""Chainer's slowest loops on float32 arrays, for `_compiler`, which turns them into WebAssembly.

Arrays are addresses; a step from one number to the next (``row``, ``column``) is in bytes. Nothing
here is called from Python.
"""
# ruff: noqa: F821

from __future__ import annotations

# -- Matrix products: b comes in panels of 8 columns and up to 256 rows, which are copied so that
# -- they lie together; a tile of 4 rows and 8 columns of the result stays in registers.


def _pack(b, row, column, panel, height, width):
    """`height` rows of b, `width` columns of them, to the panel (height, 8); the rest is zero."""
    if (width == 8) & (column == 4):
        for _p in range(height):
            store4(panel, load4(b))
            store4(panel + 16, load4(b + 16))
            panel += 32
            b += row
    else:
        for _p in range(height):
            store4(panel, same4(0.0))
            store4(panel + 16, same4(0.0))
            at = b
            for j in range(width):
                store(panel + (j << 2), load(at))
                at += column
            panel += 32
            b += row


def _put(c, low: four, high: four, width, spare, adds):
    """Write 8 sums to the first `width` numbers at c, or add them to what is there."""
    if width == 8:
        if adds:
            low += load4(c)
            high += load4(c + 16)
        store4(c, low)
        store4(c + 16, high)
    else:
        store4(spare, low)
        store4(spare + 16, high)
        for j in range(0, width << 2, 4):
            value = load(spare + j)
            if adds:
                value += load(c + j)
            store(c + j, value)


def _tile4(a, a_row, panel, c, c_row, height, width, spare, adds):
    """Four rows of a times the panel."""
    a1 = a + a_row
    a2 = a1 + a_row
    a3 = a2 + a_row
    c00 = same4(0.0)
    c01 = c00
    c10 = c00
    c11 = c00
    c20 = c00
    c21 = c00
    c30 = c00
    c31 = c00
    while height:
        x = load4(panel)
        y = load4(panel + 16)
        s = load_same4(a)
        c00 += s * x
        c01 += s * y
        s = load_same4(a1)
        c10 += s * x
        c11 += s * y
        s = load_same4(a2)
        c20 += s * x
        c21 += s * y
        s = load_same4(a3)
        c30 += s * x
        c31 += s * y
        panel += 32
        a += 4
        a1 += 4
        a2 += 4
        a3 += 4
        height -= 1
    _put(c, c00, c01, width, spare, adds)
    _put(c + c_row, c10, c11, width, spare, adds)
    _put(c + c_row * 2, c20, c21, width, spare, adds)
    _put(c + c_row * 3, c30, c31, width, spare, adds)


def _tile1(a, panel, c, height, width, spare, adds):
    """One row of a times the panel."""
    low = same4(0.0)
    high = low
    while height:
        s = load_same4(a)
        low += s * load4(panel)
        high += s * load4(panel + 16)
        panel += 32
        a += 4
        height -= 1
    _put(c, low, high, width, spare, adds)


def multiply(m, n, k, a, a_row, b, b_row, b_column, c, c_row, panel, adds):
    """c (m, n) = a (m, k) times b (k, n), added to c where `adds` is 1.

    Rows of a and of c lie together. `panel` has room for 257 * 8 numbers.
    """
    spare = panel + 8192
    for p in range(0, k, 256):
        height = either(k - p, 256, k - p < 256)
        for j in range(0, n, 8):
            width = either(n - j, 8, n - j < 8)
            _pack(b + p * b_row + j * b_column, b_row, b_column, panel, height, width)
            left = a + p * 4
            to = c + j * 4
            for _i in range(0, m - 3, 4):
                _tile4(left, a_row, panel, to, c_row, height, width, spare, adds)
                left += a_row * 4
                to += c_row * 4
            for _i in range(m % 4):
                _tile1(left, panel, to, height, width, spare, adds)
                left += a_row
                to += c_row
        adds = 1


# -- Convolutions, image by image: patches as columns, (channels kh kw, oh ow), then a product.


def _clear(to, count):
    for _i in range(0, count - 3, 4):
        store4(to, same4(0.0))
        to += 16
    for _i in range(count % 4):
        store(to, 0.0)
        to += 4


def _gather(x, step, to, count):
    """Copy numbers that lie `step` apart."""
    if step == 4:
        for _i in range(0, count - 3, 4):
            store4(to, load4(x))
            x += 16
            to += 16
        count = count % 4
    for _i in range(count):
        store(to, load(x))
        x += step
        to += 4


def _scatter(x, step, to, count):
    """Add numbers to others that lie `step` apart."""
    if step == 4:
        for _i in range(0, count - 3, 4):
            store4(to, load4(to) + load4(x))
            x += 16
            to += 16
        count = count % 4
    for _i in range(count):
        store(to, load(to) + load(x))
        x += 4
        to += step


def _unfold(x, col, shape, back):
    """Patches of an image as columns; with `back`, columns are added to the image again.

    shape: channels, h, w, kh, kw, sy, sx, ph, pw, dy, dx, oh, ow (integers in memory).
    """
    h = load_int(shape + 4)
    w = load_int(shape + 8)
    kh = load_int(shape + 12)
    kw = load_int(shape + 16)
    sy = load_int(shape + 20)
    sx = load_int(shape + 24)
    oh = load_int(shape + 44)
    ow = load_int(shape + 48)
    for _c in range(load_int(shape)):
        for ky in range(kh):
            for kx in range(kw):
                shift = kx * load_int(shape + 40) - load_int(shape + 32)
                # Columns from `first` to `last` lie in the image, the others in its rim.
                first = (sx - 1 - shift) // sx
                first = either(first, 0, first > 0)
                first = either(first, ow, first < ow)
                last = (w - shift + sx - 1) // sx
                last = either(last, ow, last < ow)
                last = either(last, first, last > first)
                y = ky * load_int(shape + 36) - load_int(shape + 28)
                for _oy in range(oh):
                    inside = (y >= 0) & (y < h)
                    at = x + ((y * w + first * sx + shift) << 2)
                    if back:
                        if inside:
                            _scatter(col + (first << 2), sx << 2, at, last - first)
                    else:
                        if inside:
                            _clear(col, first)
                            _gather(at, sx << 2, col + (first << 2), last - first)
                            _clear(col + (last << 2), ow - last)
                        else:
                            _clear(col, ow)
                    col += ow << 2
                    y += sy
        x += (h * w) << 2


def unfold(x, col, shape, images, back):
    """`_unfold` for images one after the other."""
    image = (load_int(shape) * load_int(shape + 4) * load_int(shape + 8)) << 2
    for _n in range(images):
        _unfold(x, col, shape, back)
        x += image
        col += ((load_int(shape) * load_int(shape + 12) * load_int(shape + 16))
                * (load_int(shape + 44) * load_int(shape + 48))) << 2


def convolve(x, w, y, shape, images, n_out, col, panel):
    """y (images, n_out, oh, ow) += the convolution of x with w (n_out, channels, kh, kw).

    `col` has room for the columns of one image; where it is 0, they are the image itself.
    """
    image = (load_int(shape) * load_int(shape + 4) * load_int(shape + 8)) << 2
    k = load_int(shape) * load_int(shape + 12) * load_int(shape + 16)
    places = load_int(shape + 44) * load_int(shape + 48)
    row = places << 2
    for _n in range(images):
        columns = x
        if col:
            _unfold(x, col, shape, 0)
            columns = col
        multiply(n_out, places, k, w, k << 2, columns, row, 4, y, row, panel, 1)
        x += image
        y += n_out * row


def convolve_back(gy, wt, gx, shape, images, n_out, col, panel):
    """gx (images, channels, h, w) += the gradient of x; wt (channels kh kw, n_out) is w turned."""
    image = (load_int(shape) * load_int(shape + 4) * load_int(shape + 8)) << 2
    k = load_int(shape) * load_int(shape + 12) * load_int(shape + 16)
    places = load_int(shape + 44) * load_int(shape + 48)
    row = places << 2
    for _n in range(images):
        columns = either(col, gx, col != 0)
        multiply(k, places, n_out, wt, n_out << 2, gy, row, 4, columns, row, panel, 0)
        if col:
            _unfold(gx, col, shape, 1)
        gy += n_out * row
        gx += image


def correlate(x, gy, gw, shape, images, n_out, col, panel):
    """gw (channels kh kw, n_out) += the gradient of the weights, turned."""
    image = (load_int(shape) * load_int(shape + 4) * load_int(shape + 8)) << 2
    k = load_int(shape) * load_int(shape + 12) * load_int(shape + 16)
    places = load_int(shape + 44) * load_int(shape + 48)
    row = places << 2
    for _n in range(images):
        columns = x
        if col:
            _unfold(x, col, shape, 0)
            columns = col
        multiply(k, n_out, places, columns, row, gy, 4, row, gw, n_out << 2, panel, 1)
        x += image
        gy += n_out * row


# -- Pooling: of equal numbers the first one counts, and what is no number counts above all.


def pool_max(x, y, index, shape, planes):
    """Maximum of each window, and its place (ky * kw + kx) in the window; shape as in `_unfold`."""
    h = load_int(shape + 4)
    w = load_int(shape + 8)
    kh = load_int(shape + 12)
    kw = load_int(shape + 16)
    sy = load_int(shape + 20)
    sx = load_int(shape + 24)
    oh = load_int(shape + 44)
    ow = load_int(shape + 48)
    for _plane in range(planes):
        top = 0 - load_int(shape + 28)
        for _oy in range(oh):
            left = 0 - load_int(shape + 32)
            for _ox in range(ow):
                best = lowest()
                place = 0
                for ky in range(either(0 - top, 0, top < 0), either(kh, h - top, kh < h - top)):
                    at = x + (((top + ky) * w + left) << 2)
                    for kx in range(
                        either(0 - left, 0, left < 0), either(kw, w - left, kw < w - left)
                    ):
                        value = load(at + (kx << 2))
                        if (value > best) | ((value != value) & (best == best)):
                            best = value
                            place = ky * kw + kx
                store(y, best)
                store_int(index, place)
                y += 4
                index += 4
                left += sx
            top += sy
        x += (h * w) << 2


def pool_max_back(gy, gx, index, shape, planes):
    """Add each number of gy to gx where the maximum was."""
    h = load_int(shape + 4)
    w = load_int(shape + 8)
    kw = load_int(shape + 16)
    for _plane in range(planes):
        top = 0 - load_int(shape + 28)
        for _oy in range(load_int(shape + 44)):
            left = 0 - load_int(shape + 32)
            for _ox in range(load_int(shape + 48)):
                place = load_int(index)
                y = top + place // kw
                x = left + place % kw
                if ((y >= 0) & (y < h)) & ((x >= 0) & (x < w)):
                    at = gx + ((y * w + x) << 2)
                    store(at, load(at) + load(gy))
                gy += 4
                index += 4
                left += load_int(shape + 24)
            top += load_int(shape + 20)
        gx += (h * w) << 2


# -- Sigmoid


def sigmoid(x, y, count):
    """1 / (1 + exp(-x)) of `count` numbers, a multiple of 4.

    exp(t) = 2**i * exp(r): i = round(t / ln 2), r the rest, in two parts (Cody and Waite), and
    exp(r) for |r| < ln 2 / 2 by its Taylor series, of which the next term is below 2e-8.
    """
    one = same4(1.0)
    for _i in range(0, count, 4):
        t = same4(0.0) - load4(x)
        t = min4(max4(t, same4(-86.0)), same4(86.0))
        i = round4(t * same4(1.44269504))
        r = t - i * same4(0.693359375) - i * same4(-2.12194440e-4)
        e = same4(1.3888889e-3) * r + same4(8.3333333e-3)
        e = e * r + same4(4.1666668e-2)
        e = e * r + same4(0.16666667)
        e = e * r + same4(0.5)
        e = (e * r + one) * r + one
        # Two to the power i: its bits are added to those of the exponent.
        e = add_int4(e, shift4(to_int4(i), 23))
        store4(y, one / (one + e))
        x += 16
        y += 16


# -- Normal numbers: those of numpy.random.normal, from the state of its Mersenne Twister.


def _twist(key):
    """The next 624 words of the state (Matsumoto and Nishimura, 1998)."""
    for i in range(0, 2496, 4):
        follower = either(i + 4, 0, i < 2492)
        other = either(i + 1588, i - 908, i < 908)
        y = (load_int(key + i) & -2147483648) | (load_int(key + follower) & 2147483647)
        odd = 0 - (y & 1)
        store_int(key + i, load_int(key + other) ^ (y >> 1) ^ (odd & -1727483681))


def _temper(key, words):
    """The state's 624 random words."""
    for i in range(0, 2496, 4):
        y = load_int(key + i)
        y = y ^ (y >> 11)
        y = y ^ ((y << 7) & -1658038656)
        y = y ^ ((y << 15) & -272236544)
        store_int(words + i, y ^ (y >> 18))


def draw_normal(key, position, words, out, count, scale: double):
    """`count` numbers, an even one, times `scale`; the state goes on by what they take.

    By the polar method (Marsaglia and Bray, 1964), two at a time and in NumPy's order. `position`
    has the number of words used and room for four more; `words` has room for 624.
    """
    used = load_int(position)
    _temper(key, words)
    while count > 0:
        at = words + (used << 2)
        if used > 620:
            at = position + 4
            for j in range(0, 16, 4):
                if used == 624:
                    _twist(key)
                    _temper(key, words)
                    used = 0
                store_int(at + j, load_int(words + (used << 2)))
                used += 1
        else:
            used += 4
        x = to_double(load_int(at) >> 5) * double(67108864.0) + to_double(load_int(at + 4) >> 6)
        y = to_double(load_int(at + 8) >> 5) * double(67108864.0)
        y = y + to_double(load_int(at + 12) >> 6)
        x = x * double(2.220446049250313e-16) - double(1.0)  # 2 / 2**53
        y = y * double(2.220446049250313e-16) - double(1.0)
        r = x * x + y * y
        if (r < double(1.0)) & (r > double(0.0)):
            # ln r = e ln 2 + ln m, m near 1; ln m = 2 artanh((m - 1) / (m + 1)), its series.
            e = (upper_half(r) >> 20) - 1023
            m = r * two_to(0 - e)
            if m > double(1.4142135623730951):
                m = m * double(0.5)
                e += 1
            s = (m - double(1.0)) / (m + double(1.0))
            z = s * s
            series = z * double(0.10526315789473684) + double(0.11764705882352941)
            series = series * z + double(0.13333333333333333)
            series = series * z + double(0.15384615384615385)
            series = series * z + double(0.18181818181818182)
            series = series * z + double(0.2222222222222222)
            series = series * z + double(0.2857142857142857)
            series = series * z + double(0.4)
            series = series * z + double(0.6666666666666666)
            series = series * z + double(2.0)
            logarithm = series * s + to_double(e) * double(0.6931471805599453)
            f = root(double(-2.0) * logarithm / r)
            store(out, to_float(scale * (f * y)))
            store(out + 4, to_float(scale * (f * x)))
            out += 8
            count -= 2
    store_int(position, used)
