"""Convolutions that are another operation, or another convolution, in the same memory."""

import functools

from rechainer.onednn._operations import FEW_CHANNELS

import numpy


def is_whole(x_shape, w_shape, y_shape, windows):
    """Tell whether a convolution has one window, the whole map: it is linear then."""
    _, pad, _ = windows
    return (tuple(y_shape[2:]) == (1, 1) and tuple(pad) == (0, 0)
            and tuple(x_shape[1:]) == tuple(w_shape[1:]))


class Wide:
    """A convolution to few channels as one to the channels of several pixels at once.

    With channels last, y (N, O, H, W) is in memory (N, 4 O, H, W / 4): four pixels of a row are
    one pixel with four times the channels, which fill the processor's vectors. Its weights are
    four copies of w side by side, each a pixel further to the right, and zeros.

    Parameters
    ----------
    w_shape, y_shape : tuple of int
        (O, C, kH, kW) and (N, O, H, W).
    windows : tuple
        Stride, pad and dilation.
    """

    PIXELS = 4

    def __init__(self, w_shape, y_shape, windows):
        (n_out, n_in, kh, kw), (n, _, h, width), (stride, *others) = w_shape, y_shape, windows
        self.w_shape = self.PIXELS * n_out, n_in, kh, kw + self.PIXELS - 1
        self.y_shape = n, self.PIXELS * n_out, h, width // self.PIXELS
        self.windows = (stride[0], self.PIXELS), *others
        self._slices = [(slice(i * n_out, (i + 1) * n_out), ..., slice(i, i + kw))
                        for i in range(self.PIXELS)]

    @classmethod
    def of(cls, w_shape, y_shape, windows):
        """Return the wide form of a convolution if it is faster, else None."""
        stride, _, dilate = windows
        is_faster = (w_shape[0] < FEW_CHANNELS and w_shape[1] < FEW_CHANNELS
                     and y_shape[3] % cls.PIXELS == 0 and stride[1] == dilate[1] == 1
                     and w_shape[3] >= cls.PIXELS)
        return cls(w_shape, y_shape, windows) if is_faster else None

    def widened(self, w):
        """Return the wide weights."""
        wide = numpy.zeros(self.w_shape, w.dtype)
        for part in self._slices:
            wide[part] = w
        return wide

    def repeated(self, b):
        """Return the wide bias."""
        return numpy.tile(b, self.PIXELS)

    def narrowed(self, gw, gb=None):
        """Return the gradients of weights and bias, sums of those of the wide ones."""
        narrow = functools.reduce(numpy.add, (gw[part] for part in self._slices))
        return (narrow,) if gb is None else (narrow, gb.reshape(self.PIXELS, -1).sum(axis=0))
