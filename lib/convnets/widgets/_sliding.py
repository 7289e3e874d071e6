"""A window that slides over an image: convolution and pooling with their numbers."""

import numpy as np

from ._base import Widget, table

# Chainer's default of cover_all in F.convolution_2d, F.max_pooling_2d, F.average_pooling_2d.
COVER_ALL = {"convolution": False, "max": True, "average": False}


class SlidingWindow(Widget):
    """Made by `sliding_window`."""

    name = "sliding_window"
    label = "Sliding window: input, kernel and output"

    def __init__(self, image, kernel, options, at, caption, key):
        super().__init__(caption, key)
        self.image, self.kernel = image, kernel
        self.options, self.at = options, [int(index) for index in at]

    def state(self):
        return {
            "image": self.image.tolist(),
            "kernel": self.kernel.tolist(),
            "options": self.options,
            "at": self.at,
        }

    def fallback(self):
        return (
            f"<p>Input:</p>{table(self.image, 'input')}<p>Kernel:</p>{table(self.kernel, 'kernel')}"
            f"<p>{', '.join(f'{name} = {value}' for name, value in self.options.items())}</p>"
        )


def _matrix(values, name):
    array = np.asarray(values, dtype=float)
    if array.ndim != 2 or not array.size or not np.isfinite(array).all():
        raise ValueError(
            f"sliding_window: {name} must be a table of finite numbers (H, W);"
            f" got shape {array.shape}"
        )
    return array


def sliding_window(
    image,
    kernel=None,
    *,
    mode="convolution",
    ksize=None,
    stride=1,
    pad=0,
    dilate=1,
    cover_all=None,
    at=(0, 0),
    caption="",
    key="",
):
    """Show how a window slides over an image, with every number of the sum.

    Pointing at an output, dragging on the input or pressing arrow keys moves the window. Operation,
    kernel size, stride, pad, dilation and rounding are controls; sizes and values are those of
    `F.convolution_2d`, `F.max_pooling_2d` and `F.average_pooling_2d`.

    Parameters
    ----------
    image : array_like, (H, W)
        Small: up to about 12 × 12 is readable.
    kernel : array_like, (k, k), optional
        The weights of a convolution; pooling can do without.
    mode : {'convolution', 'max', 'average'}
    ksize : int, optional
        Size of the window; by default the kernel's.
    stride, pad, dilate : int
    cover_all : bool, optional
        Round the output size up. By default as in Chainer: max pooling does, the others do not.
    at : (int, int)
        Row and column of the output that is shown first.
    caption, key : str
        See `Widget`.

    Returns
    -------
    SlidingWindow

    Raises
    ------
    ValueError
        If the mode is unknown, an array is no (H, W) table, or the kernel is not square.
    """
    if mode not in COVER_ALL:
        raise ValueError(f"sliding_window: mode must be one of {list(COVER_ALL)}; got {mode!r}")
    image = _matrix(image, "image")
    kernel = np.ones((ksize or 2,) * 2) if kernel is None else _matrix(kernel, "kernel")
    if kernel.shape != (ksize or len(kernel),) * 2:
        raise ValueError(
            f"sliding_window: the kernel must be square, of size ksize={ksize};"
            f" got shape {kernel.shape}"
        )
    options = {
        "mode": mode,
        "ksize": len(kernel),
        "stride": stride,
        "pad": pad,
        "dilate": dilate,
        "cover_all": COVER_ALL[mode] if cover_all is None else bool(cover_all),
    }
    return SlidingWindow(image, kernel, options, at, caption, key)
