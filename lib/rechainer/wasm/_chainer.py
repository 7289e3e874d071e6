"""Chainer's methods on a browser's processor, with the kernels under them.

What they do not suit (other types, grouped convolutions, windows that do not fit) goes to the
method that was there.
"""

import functools

from rechainer import _hooks
from rechainer.wasm import _library
from rechainer.wasm import _operations as ops


def windows(module, channels, size, kernel, stride, pad, dilate=(1, 1), cover_all=False):
    """The `Windows`, or None where no window fits; `module` is ``chainer.utils.conv``."""
    out = tuple(
        module.get_conv_outsize(*it[:4], cover_all, it[4])
        for it in zip(size, kernel, stride, pad, dilate, strict=True)
    )
    return ops.Windows(channels, size, kernel, stride, pad, dilate, out) if min(out) > 0 else None


def conv_windows(function, module, x_shape, kernel, out=None):
    """`Windows` of a convolution's function over images of shape (N, C, H, W)."""
    _, channels, *size = x_shape
    found = windows(
        module, channels, tuple(size), tuple(kernel), (function.sy, function.sx),
        (function.ph, function.pw), (function.dy, function.dx), bool(function.cover_all),
    )  # fmt: skip
    return found if found is None or out is None else found._replace(out=tuple(out))


# -- Convolutions: each takes the ordinary method and returns the one in its place


def with_convolution(ordinary):
    def _forward_cpu_core(self, x, W, b):
        from chainer.utils import conv

        if ops.suit(x, W, *(() if b is None else (b,))) and not self._use_ideep:
            at = conv_windows(self, conv, x.shape, W.shape[2:])
            if at:
                return (ops.convolve(x, W, b, at),)
        return ordinary(self, x, W, b)

    return _forward_cpu_core


def with_correlation(ordinary):
    def _forward_cpu_core(self, x, gy):
        from chainer.utils import conv

        if ops.suit(x, gy) and self.W_dtype == ops.FLOAT and not self._use_ideep:
            at = conv_windows(self, conv, x.shape, (self.kh, self.kw))
            if at and at.out == gy.shape[2:]:
                return (ops.correlate(x, gy, at),)
        return ordinary(self, x, gy)

    return _forward_cpu_core


def with_convolution_back(ordinary):
    def _forward_cpu_core(self, x, W, b):
        from chainer.utils import conv

        if ops.suit(x, W, *(() if b is None else (b,))) and not self._use_ideep:
            shape = len(x), W.shape[1], self.outh, self.outw
            at = conv_windows(self, conv, shape, W.shape[2:], x.shape[2:])
            if at:
                y = ops.convolve_back(x, W, at)
                if b is not None:
                    y += b.reshape(1, -1, 1, 1)
                return (y,)
        return ordinary(self, x, W, b)

    return _forward_cpu_core


# -- Matrix products


def are_plain(inputs):
    """Whether a function of `linear` has nothing but matrices of float32 to do with."""
    import chainer

    static = getattr(chainer.config, "schedule_func", None) is not None
    return ops.suit(*inputs) and not static


def with_linear(ordinary):
    def forward(self, inputs):
        import chainer

        if not are_plain(inputs):
            return ordinary(self, inputs)
        self._config_use_ideep = chainer.config.use_ideep
        self.retain_inputs((0, 1))
        x, W, *b = inputs
        y = ops.multiply(x, W.T)
        if b:
            y += b[0]
        return (y,)

    return forward


def with_product(of):
    """A product of two inputs; ``of(inputs)`` gives the two matrices."""

    def make(ordinary):
        def forward(self, inputs):
            import chainer

            if not are_plain(inputs):
                return ordinary(self, inputs)
            self._config_use_ideep = chainer.config.use_ideep
            self.retain_inputs((0, 1))
            return (ops.multiply(*of(inputs)),)

        return forward

    return make


# -- Pooling, activation, random weights


def pool_windows(function, shape):
    from chainer.utils import conv

    _, channels, *size = shape
    return windows(
        conv, channels, tuple(size), tuple(function.ksize), tuple(function.stride),
        tuple(function.pad), cover_all=function.cover_all,
    )  # fmt: skip


def with_maximum(ordinary):
    def forward_cpu(self, inputs):
        at = self.ndim == 2 and ops.suit(*inputs) and pool_windows(self, inputs[0].shape)
        if not at:
            return ordinary(self, inputs)
        self._in_shape, self._in_dtype = inputs[0].shape, inputs[0].dtype
        y, self.indexes = ops.pool_max(inputs[0], at)
        return (y,)

    return forward_cpu


def with_maximum_back(ordinary):
    def forward_cpu(self, inputs):
        func = self.func
        at = func.ndim == 2 and ops.suit(*inputs) and pool_windows(func, func._in_shape)
        if not at or func._in_dtype != ops.FLOAT:
            return ordinary(self, inputs)
        return (ops.pool_max_back(inputs[0], func.indexes, at),)

    return forward_cpu


def with_sigmoid(ordinary):
    def forward_cpu(self, inputs):
        if not ops.suit(*inputs):
            return ordinary(self, inputs)
        self.retain_outputs((0,))
        self._use_cudnn = False
        return (ops.sigmoid(inputs[0]),)

    return forward_cpu


def with_normal(ordinary):
    def __call__(self, array):
        usual = self.rng is None and self.dtype in (None, ops.FLOAT) and ops.suit(array)
        large = array.size >= ops.SMALL and array.flags.c_contiguous
        if not (usual and large and ops.draw_normal(array, self.scale)):
            ordinary(self, array)

    return __call__


CONVOLUTION = "chainer.functions.connection.convolution_2d"
DECONVOLUTION = "chainer.functions.connection.deconvolution_2d"
LINEAR = "chainer.functions.connection.linear"
MAX = "chainer.functions.pooling.max_pooling_nd"
SIGMOID = "chainer.functions.activation.sigmoid"
NORMAL = "chainer.initializers.normal"
#: Module -> class -> method -> what makes the method in its place.
REPLACEMENTS = {
    CONVOLUTION: {
        "Convolution2DFunction": {"_forward_cpu_core": with_convolution},
        "Convolution2DGradW": {"_forward_cpu_core": with_correlation},
    },
    DECONVOLUTION: {"Deconvolution2DFunction": {"_forward_cpu_core": with_convolution_back}},
    LINEAR: {
        "LinearFunction": {"forward": with_linear},
        "LinearGradData": {"forward": with_product(lambda inputs: (inputs[1], inputs[0]))},
        "LinearGradWeight": {"forward": with_product(lambda inputs: (inputs[1].T, inputs[0]))},
    },
    MAX: {
        "MaxPoolingND": {"forward_cpu": with_maximum},
        "MaxPoolingNDGrad": {"forward_cpu": with_maximum_back},
    },
    SIGMOID: {"Sigmoid": {"forward_cpu": with_sigmoid}},
    NORMAL: {"Normal": {"__call__": with_normal}},
}


def replace_methods(module, execute):
    """Seam: replace what `REPLACEMENTS` names."""
    execute()
    if _library.load() is not None:
        _hooks.replace_methods(module, REPLACEMENTS[module.__name__])


def replace_patches(module, execute):
    """Seam: ``im2col_cpu`` and ``col2im_cpu``, which average pooling calls; ``numpy.tensordot``."""
    execute()
    if _library.load() is None:
        return
    ordinary, ordinary_back = module.im2col_cpu, module.col2im_cpu

    @functools.wraps(ordinary)
    def im2col_cpu(img, kh, kw, sy, sx, ph, pw, pval=0, cover_all=False, dy=1, dx=1,
                   out_h=None, out_w=None):  # fmt: skip
        if ops.suit(img) and pval == 0 and out_h is None and out_w is None:
            at = windows(
                module, img.shape[1], img.shape[2:], (kh, kw), (sy, sx), (ph, pw), (dy, dx),
                cover_all,
            )  # fmt: skip
            if at:
                return ops.unfold(img, at)
        return ordinary(img, kh, kw, sy, sx, ph, pw, pval, cover_all, dy, dx, out_h, out_w)

    @functools.wraps(ordinary_back)
    def col2im_cpu(col, sy, sx, ph, pw, h, w, dy=1, dx=1):
        if not ops.suit(col):
            return ordinary_back(col, sy, sx, ph, pw, h, w, dy, dx)
        _, channels, *kernel, out_h, out_w = col.shape
        at = ops.Windows(
            channels, (h, w), tuple(kernel), (sy, sx), (ph, pw), (dy, dx), (out_h, out_w)
        )
        return ops.fold(col, at)

    module.im2col_cpu, module.col2im_cpu = im2col_cpu, col2im_cpu
    speed_up_tensordot()


def speed_up_tensordot():
    """Have `numpy.tensordot` take its product from the kernels, where that is worth it."""
    from numpy._core import numeric

    ordinary = numeric.dot

    def dot(a, b, out=None):
        suits = out is None and ops.suit(a, b) and a.ndim == b.ndim == 2
        if suits and a.shape[1] == len(b) and a.size * b.shape[1] >= ops.SMALL:
            return ops.multiply(a, b)
        return ordinary(a, b, out)

    numeric.dot = dot


SEAMS = (
    {"chainer.utils.conv": replace_patches, **dict.fromkeys(REPLACEMENTS, replace_methods)}
    if _library.is_possible()
    else {}
)
"""Module -> seam; see `rechainer._hooks`."""
