"""A real image under a small kernel whose weights can be changed."""

import numpy as np

from ._base import Widget, table

KERNELS = {
    "vertical edges": [[1, 0, -1], [2, 0, -2], [1, 0, -1]],
    "horizontal edges": [[1, 2, 1], [0, 0, 0], [-1, -2, -1]],
    "outline": [[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]],
    "sharpen": [[0, -1, 0], [-1, 5, -1], [0, -1, 0]],
    "blur": [[1 / 9] * 3] * 3,
    "wide blur": [[1 / 25] * 5] * 5,
    "identity": [[0, 0, 0], [0, 1, 0], [0, 0, 0]],
}


class FilterPlayground(Widget):
    """Made by `filter_playground`."""

    name = "filter_playground"
    label = "Filter playground: an image, a kernel to change, the output"

    def __init__(self, images, labels, kernels, first, caption, key):
        super().__init__(caption, key)
        self.images, self.labels = images, [str(label) for label in labels]
        self.kernels, self.first = kernels, first

    def state(self):
        return {
            "images": np.round(self.images, 3).tolist(),
            "labels": self.labels,
            "kernels": self.kernels,
            "first": self.first,
        }

    def fallback(self):
        return f"<p>Kernel: {self.first}</p>" + table(self.kernels[self.first], self.first)


def filter_playground(images, labels=None, *, kernels=None, caption="", key=""):
    """Let the reader change the weights of a kernel and see what it makes of a real image.

    The output is that of `F.convolution_2d` with one channel, stride 1 and no padding.

    Parameters
    ----------
    images : array_like, (N, 1, H, W), (N, H, W) or (H, W)
        Values 0 to 1; stored with three decimals. A handful at most: all travel in the page.
    labels : sequence of N, optional
        Names of the images, for the buttons that choose one.
    kernels : dict of str to array_like (k, k), optional
        Square kernels by name; the first one is shown. Default: edges, blur, sharpen and more.
    caption, key : str
        See `Widget`.

    Returns
    -------
    FilterPlayground

    Raises
    ------
    ValueError
        If the images have another shape, or a kernel is not square or larger than an image.
    """
    planes = np.asarray(images, dtype=float)
    planes = planes[:, 0] if planes.ndim == 4 and planes.shape[1] == 1 else planes
    planes = planes[None] if planes.ndim == 2 else planes
    if planes.ndim != 3 or not planes.size:
        raise ValueError(
            "filter_playground: images must be (N, 1, H, W), (N, H, W) or (H, W);"
            f" got shape {np.shape(images)}"
        )
    labels = range(len(planes)) if labels is None else labels
    if len(labels) != len(planes):
        raise ValueError(f"filter_playground: {len(planes)} images but {len(labels)} labels")
    kernels = {
        name: _kernel(name, k, min(planes.shape[1:])) for name, k in (kernels or KERNELS).items()
    }
    return FilterPlayground(planes, labels, kernels, next(iter(kernels)), caption, key)


def _kernel(name, values, room):
    kernel = np.asarray(values, dtype=float)
    if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1] or not 0 < len(kernel) <= room:
        raise ValueError(
            f"filter_playground: kernel {name!r} must be square and at most {room} wide;"
            f" got shape {kernel.shape}"
        )
    return kernel.tolist()
