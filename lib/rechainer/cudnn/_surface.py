"""The functions of ``cupy.cudnn`` that Chainer calls for convolutional networks.

Names, arguments and results are those of CuPy 7 to 13. Arrays are C-contiguous and aligned, or
copied so; an array in cuDNN's layout NHWC has the axes (N, H, W, C).
"""

import math
import warnings
from ctypes import byref, c_size_t

from rechainer.cudnn import _descriptors as describe
from rechainer.cudnn import _graphs as graphs
from rechainer.cudnn._constants import VALUES
from rechainer.cudnn._library import Failure, handle, load

import cupy
import numpy

NCHW, NHWC = VALUES["CUDNN_TENSOR_NCHW"], VALUES["CUDNN_TENSOR_NHWC"]
#: Compute capability since which tensor cores take a type; float32 is rounded to TF32.
TENSOR_CORES = {"float16": 70, "bfloat16": 80, "float32": 80}
#: Bytes: cuDNN's plans take it that every array begins at a multiple of them (``alignment`` of
#: ``nvidia-cudnn-frontend``'s tensors). CuPy's memory does; a part of an array need not.
ALIGNMENT = 16

# CuPy's limit was 8 MiB; kernels for tensor cores want more to reorder arrays.
_workspace_limit = 256 * 2**20


def get_max_workspace_size():
    """Return how many bytes a convolution may use beside its arrays."""
    return _workspace_limit


def set_max_workspace_size(size):
    """Set how many bytes a convolution may use beside its arrays."""
    global _workspace_limit
    _workspace_limit = int(size)


def get_handle():
    """Return cuDNN's handle of the current device, set to the current stream."""
    return handle(cupy.cuda.get_device_id(), cupy.cuda.get_current_stream().ptr)


def is_tensor_core_available(dtype):
    """Tell whether the current device multiplies a dtype on tensor cores."""
    least = TENSOR_CORES.get(numpy.dtype(dtype).name, math.inf)
    return int(cupy.cuda.Device().compute_capability) >= least


def _dense(x):
    return x if x.flags.c_contiguous and x.data.ptr % ALIGNMENT == 0 else x.copy(order="C")


def _pointer(x):
    return None if x is None else x.data.ptr


# Convolution

_plans = {}


def convolution_forward(x, W, b, y, pad, stride, dilation, groups, *, auto_tune, tensor_core,
                        d_layout=NCHW, w_layout=NCHW, z=None, activation=None):
    """Write the convolution of ``x`` with ``W``, plus ``b`` if it is not None, to ``y``.

    ``z`` and ``activation`` are not CuPy's: maps like ``y`` that are added too, and what is done
    to the sum, ``"relu"`` or ``"sigmoid"``.
    """
    if z is not None and z.shape != y.shape:
        raise ValueError(f"z is added to y: expected shape {y.shape}, got {z.shape}")
    arrays = {graphs.X: _dense(x), graphs.W: _dense(W), graphs.Y: y}
    arrays |= {number: _dense(a) for number, a in ((graphs.B, b), (graphs.Z, z)) if a is not None}
    _convolve("forward", arrays, groups, (pad, stride, dilation), (d_layout, w_layout),
              tensor_core, auto_tune, activation=activation)


def convolution_backward_data(W, x, b, y, pad, stride, dilation, groups, *, deterministic,
                              auto_tune, tensor_core, d_layout=NCHW, w_layout=NCHW):
    """Write the transposed convolution of ``x`` with ``W``, plus ``b``, to ``y``."""
    arrays = {graphs.X: y, graphs.W: _dense(W), graphs.Y: _dense(x)}
    _convolve("data", arrays, groups, (pad, stride, dilation), (d_layout, w_layout),
              tensor_core, auto_tune, deterministic)
    if b is not None:
        y += b if d_layout == NHWC else b.reshape(-1, *(1,) * (y.ndim - 2))


def convolution_backward_filter(x, gy, gW, pad, stride, dilation, groups, *, deterministic,
                                auto_tune, tensor_core, d_layout=NCHW, w_layout=NCHW):
    """Write the gradient of a convolution's filters to ``gW``."""
    arrays = {graphs.X: _dense(x), graphs.W: gW, graphs.Y: _dense(gy)}
    _convolve("filter", arrays, groups, (pad, stride, dilation), (d_layout, w_layout),
              tensor_core, auto_tune, deterministic)


def _convolve(kind, arrays, groups, geometry, layouts, tensor_core, auto_tune,
              deterministic=False, activation=None):
    x, w, y = (_array(arrays[number], layout) for number, layout in
               ((graphs.X, layouts[0]), (graphs.W, layouts[1]), (graphs.Y, layouts[0])))
    if x.shape[1] != w.shape[1] * groups:
        raise ValueError(f"x has {x.shape[1]} channels, W takes {w.shape[1]} in each of {groups} "
                         f"groups: expected {w.shape[1] * groups}")
    convolution = graphs.Convolution(
        kind, x, w, y, graphs.B in arrays, *map(tuple, geometry), exact=tensor_core == "never",
        deterministic=bool(deterministic), autotune=bool(auto_tune), workspace=_workspace_limit,
        add=graphs.Z in arrays, activation=activation)
    pointers = {number: array.data.ptr for number, array in arrays.items()}
    _run(_plan(convolution, pointers), pointers)


def _array(array, layout):
    shape, strides = describe.maps_of(array.shape, layout == NHWC)
    return graphs.Array(shape, strides, array.dtype.name)


def _plan(convolution, pointers):
    key = cupy.cuda.get_device_id(), convolution
    if key not in _plans:
        graph = graphs.build(convolution, handle=get_handle())
        if convolution.autotune:
            _plans[key] = graphs.fastest(graphs.candidates(graph), _timed(pointers))
        else:
            _plans[key] = graphs.Plan(graph)
    return _plans[key]


def _run(plan, pointers):
    workspace = cupy.cuda.alloc(plan.workspace)
    plan(pointers, workspace.ptr, get_handle())


def _timed(pointers):
    """Return a function that runs a plan and returns milliseconds."""
    def run(plan):
        start, stop = cupy.cuda.Event(), cupy.cuda.Event()
        start.record()
        _run(plan, pointers)
        stop.record()
        stop.synchronize()
        return cupy.cuda.get_elapsed_time(start, stop)

    return run


# Batch normalization

def _behind(relu, add):
    """Return what is done behind a normalization: cudnnBatchNormOps_t, and ReLU's descriptor."""
    if not relu:
        return VALUES["CUDNN_BATCHNORM_OPS_BN"], None
    added = "ADD_" if add else ""
    return (VALUES[f"CUDNN_BATCHNORM_OPS_BN_{added}ACTIVATION"],
            describe.activation(VALUES["CUDNN_ACTIVATION_RELU"], 0.0))


class _Normalized:
    """Descriptors of a batch normalization: of the maps, and of what there is one a channel.

    Parameters
    ----------
    x : array
        (N, C, H, W), in layout NHWC (N, H, W, C); else (..., C).
    is_for_conv2d : bool
    d_layout : int
    relu, add : bool
        What is done behind it.
    """

    def __init__(self, x, is_for_conv2d, d_layout, relu=False, add=False):
        if is_for_conv2d:
            self.shape, self.strides = describe.maps_of(x.shape, d_layout == NHWC)
        else:
            self.shape, self.strides = (x.size // x.shape[-1], x.shape[-1]), None
        self.add, (self.ops, self.activation) = add, _behind(relu, add)
        # float16 maps are normalized in float32.
        self.dtype = numpy.promote_types(x.dtype, numpy.float32)
        self.maps = describe.tensor(x.dtype, self.shape, self.strides)
        self.channels = describe.tensor(self.dtype, (1, self.shape[1]))
        self.zero, self.one = describe.zero_and_one(x.dtype)

    def cast(self, *arrays):
        """Return one-a-channel arrays, C-contiguous and in the type cuDNN wants them in."""
        return [_dense(a.astype(self.dtype, copy=False)) for a in arrays]


def _size(function, *arguments):
    size = c_size_t()
    getattr(load(), function)(*arguments, byref(size))
    return size.value


def batch_normalization_forward_training_ex(
        x, gamma, beta, running_mean, running_var, mean, inv_std, eps, decay, is_for_conv2d,
        cudnn_mode, debug, *, d_layout=NCHW, relu=False, z=None):
    """Normalize by a batch's statistics and update the running ones in place.

    ``relu`` and ``z`` are not CuPy's: ``y`` is the ReLU of the normalized ``x``, with ``z`` added
    to it before. cuDNN has that for float16 in NHWC, of channels that are a multiple of 4, in the
    mode ``CUDNN_BATCHNORM_SPATIAL_PERSISTENT``.

    Returns
    -------
    reserve_space, y, mean, inv_std
        The first is for the backward function. ``mean`` and ``inv_std`` are written to the arrays
        given, if they are.

    Raises
    ------
    Failure
        If cuDNN refuses ``relu``, here or on the way back; before anything is written.
    """
    x, z = _dense(x), z if z is None else _dense(z)
    of = _Normalized(x, is_for_conv2d, d_layout, relu, z is not None)
    mode = _mode_of(x, of, cudnn_mode)
    running = of.cast(running_mean, running_var)
    gamma, beta = of.cast(gamma, beta)
    mean = cupy.empty(gamma.shape, of.dtype) if mean is None else mean
    inv_std = cupy.empty(gamma.shape, of.dtype) if inv_std is None else inv_std
    reserve, y = _normalize(of, mode, x, z, gamma, beta, running, mean, inv_std, eps, 1 - decay)
    for given, updated in zip((running_mean, running_var), running, strict=True):
        if given is not updated:
            given[...] = updated
    return reserve, y, mean, inv_std


def _normalize(of, mode, x, z, gamma, beta, running, mean, inv_std, eps, factor):
    """Return what the way back needs, and y."""
    modes, of_z = (get_handle(), mode, of.ops), None if z is None else of.maps
    y = cupy.empty(x.shape, x.dtype)
    size = _size("cudnnGetBatchNormalizationForwardTrainingExWorkspaceSize", *modes, of.maps, of_z,
                 of.maps, of.channels, of.activation)
    workspace = cupy.cuda.alloc(size)
    reserve = cupy.empty(_size("cudnnGetBatchNormalizationTrainingExReserveSpaceSize", *modes,
                               of.activation, of.maps), numpy.uint8)
    load().cudnnBatchNormalizationForwardTrainingEx(
        *modes, of.one, of.zero, of.maps, x.data.ptr, of_z, _pointer(z), of.maps, y.data.ptr,
        of.channels, gamma.data.ptr, beta.data.ptr, factor, *map(_pointer, running), eps,
        mean.data.ptr, inv_std.data.ptr, of.activation, workspace.ptr, size,
        reserve.data.ptr, reserve.nbytes)
    return reserve, y


#: What of the persistent mode was tried -> the mode that cuDNN takes, forward and backward.
_modes = {}
PERSISTENT, SPATIAL = (VALUES[f"CUDNN_BATCHNORM_SPATIAL{behind}"] for behind in ("_PERSISTENT", ""))


def _mode_of(x, of, mode):
    """Return the mode for both ways: the ordinary one where cuDNN refuses the persistent one.

    A training that was refused on the way back would end there. So both ways are tried before the
    first way forward.
    """
    if mode != PERSISTENT:
        return mode
    key = cupy.cuda.get_device_id(), x.dtype.name, of.shape, of.strides, of.ops
    if key not in _modes:
        try:
            _try_persistent(x, of)
            _modes[key] = mode
        except Failure as error:
            if of.activation:    # which the ordinary mode does not have
                raise
            _modes[key] = SPATIAL
            warnings.warn(f"cuDNN has no fast batch normalization of {x.dtype} maps {of.shape} "
                          f"with strides {of.strides}; the ordinary one is used. It says: {error}",
                          stacklevel=4)
    return _modes[key]


def _try_persistent(x, of):
    """Normalize ``x`` and go back, for nothing but the error that cuDNN may report."""
    gamma, beta, mean, inv_std, *running = cupy.zeros((6, -(-of.shape[1] // 4) * 4), of.dtype)
    z = x if of.add else None
    reserve, y = _normalize(of, PERSISTENT, x, z, gamma, beta, running, mean, inv_std, 1e-5, 1)
    _denormalize(of, PERSISTENT, x, y if of.activation else None, x, gamma, beta, mean, inv_std,
                 1e-5, reserve)


def batch_normalization_forward_training(
        x, gamma, beta, running_mean, running_var, mean, inv_std, eps, decay, is_for_conv2d,
        cudnn_mode, debug, *, d_layout=NCHW):
    """Do the same; return ``y``, and ``mean`` and ``inv_std`` unless arrays were given."""
    _, *results = batch_normalization_forward_training_ex(
        x, gamma, beta, running_mean, running_var, mean, inv_std, eps, decay, is_for_conv2d,
        cudnn_mode, debug, d_layout=d_layout)
    return tuple(results) if mean is None else results[0]


def batch_normalization_forward_inference(x, gamma, beta, mean, var, eps, is_for_conv2d,
                                          cudnn_mode, *, d_layout=NCHW):
    """Return ``x`` normalized by given statistics."""
    x = _dense(x)
    of = _Normalized(x, is_for_conv2d, d_layout)
    y = cupy.empty(x.shape, x.dtype)
    parameters = of.cast(gamma, beta, mean, var)
    load().cudnnBatchNormalizationForwardInference(
        get_handle(), cudnn_mode, of.one, of.zero, of.maps, x.data.ptr, of.maps, y.data.ptr,
        of.channels, *map(_pointer, parameters), eps)
    return y


def batch_normalization_backward(x, gamma, gy, mean, inv_std, eps, is_for_conv2d, cudnn_mode,
                                 debug, *, d_layout=NCHW, reserve_space=None, y=None, beta=None,
                                 add=False):
    """Return the gradients of ``x``, ``gamma`` and ``beta``.

    With ``y``, which is not CuPy's, of what was done with ``relu``: ``y`` is its result and
    ``beta`` is needed; with ``add``, the gradient of ``z`` is returned behind the others.
    """
    x, gy = _dense(x), _dense(gy)
    of = _Normalized(x, is_for_conv2d, d_layout, y is not None, add)
    gamma, mean, inv_std = of.cast(gamma, mean, inv_std)
    if y is not None:
        y, (beta,) = _dense(y), of.cast(beta)
    return _denormalize(of, _mode_of(x, of, cudnn_mode), x, y, gy, gamma, beta, mean, inv_std, eps,
                        reserve_space)


def _denormalize(of, mode, x, y, gy, gamma, beta, mean, inv_std, eps, reserve):
    """Return the gradients of x, gamma, beta and, where there is one, z."""
    gx = cupy.empty(x.shape, x.dtype)
    ggamma, gbeta = (cupy.empty(gamma.shape, of.dtype) for _ in range(2))
    gz = cupy.empty(x.shape, x.dtype) if of.add else None
    of_y, of_z = (None if array is None else of.maps for array in (y, gz))
    modes = get_handle(), mode, of.ops
    size = _size("cudnnGetBatchNormalizationBackwardExWorkspaceSize", *modes, of.maps, of_y,
                 of.maps, of_z, of.maps, of.channels, of.activation)
    workspace = cupy.cuda.alloc(size)
    load().cudnnBatchNormalizationBackwardEx(
        *modes, of.one, of.zero, of.one, of.zero, of.maps, x.data.ptr, of_y, _pointer(y), of.maps,
        gy.data.ptr, of_z, _pointer(gz), of.maps, gx.data.ptr, of.channels, gamma.data.ptr,
        _pointer(beta), ggamma.data.ptr, gbeta.data.ptr, eps, mean.data.ptr, inv_std.data.ptr,
        of.activation, workspace.ptr, size, _pointer(reserve),
        0 if reserve is None else reserve.nbytes)
    return (gx, ggamma, gbeta, gz) if of.add else (gx, ggamma, gbeta)


# Pooling

#: (function, settings) of pooling that cuDNN has refused to do with the channels last.
_refused = set()


def pooling_forward(x, y, ksize, stride, pad, mode, *, d_layout=NCHW):
    """Pool ``x`` over windows, write the result to ``y`` and return it.

    ``d_layout`` is not CuPy's. Where cuDNN refuses NHWC, copies with the channels first are pooled.
    """
    pooled = _pool_in(d_layout, _pool, (x, y), (ksize, stride, pad, mode))
    if pooled is not y:
        y[...] = pooled
    return y


def pooling_backward(x, y, gy, ksize, stride, pad, mode, *, d_layout=NCHW):
    """Return the gradient of what was pooled."""
    return _pool_in(d_layout, _unpool, (x, y, gy), (ksize, stride, pad, mode))


def _pool_in(layout, function, arrays, settings):
    """Call a function of pooling in a layout, or in NCHW where cuDNN refuses NHWC."""
    settings = tuple(tuple(s) if isinstance(s, list | tuple) else s for s in settings)
    if layout == NCHW:
        return function(*arrays, settings, NCHW)
    if (function, settings) not in _refused:
        try:
            return function(*arrays, settings, layout)
        except Failure as error:
            _refused.add((function, settings))
            warnings.warn(f"cuDNN does not pool {arrays[0].dtype} maps with the channels last by "
                          f"ksize, stride, pad, mode = {settings}; copies with the channels first "
                          f"are. It says: {error}", stacklevel=3)
    first = (cupy.ascontiguousarray(cupy.moveaxis(a, -1, 1)) for a in arrays)
    return cupy.ascontiguousarray(cupy.moveaxis(function(*first, settings, NCHW), 1, -1))


def _pool(x, y, settings, layout):
    x = _dense(x)
    zero, one = describe.zero_and_one(x.dtype)
    load().cudnnPoolingForward(get_handle(), _pooling(*settings), one, _maps(x, layout),
                               x.data.ptr, zero, _maps(y, layout), y.data.ptr)
    return y


def _unpool(x, y, gy, settings, layout):
    x, y, gy = map(_dense, (x, y, gy))
    gx = cupy.empty(x.shape, x.dtype)
    zero, one = describe.zero_and_one(x.dtype)
    of_x, of_y = _maps(x, layout), _maps(y, layout)
    load().cudnnPoolingBackward(
        get_handle(), _pooling(*settings), one, of_y, y.data.ptr, of_y, gy.data.ptr, of_x,
        x.data.ptr, zero, of_x, gx.data.ptr)
    return gx


def _maps(x, layout):
    """Return the descriptor of maps in a layout."""
    return describe.tensor(x.dtype, *describe.maps_of(x.shape, layout == NHWC))


def _pooling(ksize, stride, pad, mode):
    return describe.pooling(mode, ksize, stride, pad)


# Activations, softmax, dropout: C-contiguous arrays whose axes are counted together

def _rows(x):
    """Return the descriptor of an array as a matrix, its first axis against all others."""
    first = x.shape[0] if x.ndim else 1
    return describe.tensor(x.dtype, (first, x.size // max(first, 1)))


def activation_forward(x, mode, coef=0.0):
    """Return an activation of ``x``; ``coef`` is the ceiling of a clipped ReLU."""
    x = _dense(x)
    y = cupy.empty(x.shape, x.dtype)
    if x.size:
        zero, one = describe.zero_and_one(x.dtype)
        load().cudnnActivationForward(get_handle(), describe.activation(mode, coef), one, _rows(x),
                                      x.data.ptr, zero, _rows(x), y.data.ptr)
    return y


def activation_backward(x, y, gy, mode, coef=0.0):
    """Return the gradient of ``x``, where ``y`` is the activation of it."""
    x, y, gy = map(_dense, (x, y, gy))
    gx = cupy.empty(x.shape, x.dtype)
    if x.size:
        zero, one = describe.zero_and_one(x.dtype)
        of = _rows(x)
        load().cudnnActivationBackward(
            get_handle(), describe.activation(mode, coef), one, of, y.data.ptr, of, gy.data.ptr,
            of, x.data.ptr, zero, of, gx.data.ptr)
    return gx


def _around(x, axis):
    """Return the descriptor of an array as (before the axis, the axis, behind it)."""
    axis %= x.ndim
    shape = math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1:])
    return describe.tensor(x.dtype, shape)


def softmax_forward(x, axis, algorithm):
    """Return the softmax of ``x`` along an axis, or its logarithm."""
    x = _dense(x)
    y = cupy.empty(x.shape, x.dtype)
    zero, one = describe.zero_and_one(x.dtype)
    of = _around(x, axis)
    load().cudnnSoftmaxForward(get_handle(), algorithm, VALUES["CUDNN_SOFTMAX_MODE_CHANNEL"], one,
                               of, x.data.ptr, zero, of, y.data.ptr)
    return y


def softmax_backward(y, gy, axis, algorithm):
    """Return the gradient of what ``y`` is the softmax of."""
    y, gy = _dense(y), _dense(gy)
    gx = cupy.empty(y.shape, y.dtype)
    zero, one = describe.zero_and_one(y.dtype)
    of = _around(y, axis)
    load().cudnnSoftmaxBackward(get_handle(), algorithm, VALUES["CUDNN_SOFTMAX_MODE_CHANNEL"], one,
                                of, y.data.ptr, of, gy.data.ptr, zero, of, gx.data.ptr)
    return gx


class DropoutStates:
    """The state of cuDNN's random numbers on the current device.

    Parameters
    ----------
    handle : int or None
        cuDNN's handle. None: the current device's, here as in the methods.
    seed : int
    """

    def __init__(self, handle, seed):
        handle = handle or get_handle()
        # An array, so that it can be saved and loaded: the random numbers then go on from there.
        self.states = cupy.empty(_size("cudnnDropoutGetStatesSize", handle), numpy.uint8)
        self.descriptor = describe.Descriptor("Dropout")
        self.seed(seed, handle)

    def seed(self, seed, handle=None):
        """Begin the random numbers anew."""
        load().cudnnSetDropoutDescriptor(self.descriptor, handle or get_handle(), 0.0,
                                         self.states.data.ptr, self.states.nbytes, int(seed))

    def set_dropout_ratio(self, handle, ratio):
        """Set the share of elements to drop; the random numbers go on."""
        load().cudnnSetDropoutDescriptor(self.descriptor, handle or get_handle(), ratio, None, 0,
                                         0)

    def forward(self, handle, x, dropout_ratio):
        """Return what the gradient needs, and ``x`` with elements dropped, the others scaled."""
        handle = handle or get_handle()
        self.set_dropout_ratio(handle, dropout_ratio)
        x = _dense(x)
        y, of = cupy.empty(x.shape, x.dtype), _rows(x)
        reserve = cupy.empty(_size("cudnnDropoutGetReserveSpaceSize", of), numpy.uint8)
        load().cudnnDropoutForward(handle, self.descriptor, of, x.data.ptr, of, y.data.ptr,
                                   reserve.data.ptr, reserve.nbytes)
        return reserve, y

    def backward(self, handle, dy, dropout_ratio, reserve_space):
        """Return the gradient: the same elements dropped, the others scaled."""
        handle = handle or get_handle()
        self.set_dropout_ratio(handle, dropout_ratio)
        dy = _dense(dy)
        dx, of = cupy.empty(dy.shape, dy.dtype), _rows(dy)
        load().cudnnDropoutBackward(handle, self.descriptor, of, dy.data.ptr, of, dx.data.ptr,
                                    reserve_space.data.ptr, reserve_space.nbytes)
        return dx


__all__ = [
    "DropoutStates",
    "Failure",
    "activation_backward",
    "activation_forward",
    "batch_normalization_backward",
    "batch_normalization_forward_inference",
    "batch_normalization_forward_training",
    "batch_normalization_forward_training_ex",
    "convolution_backward_data",
    "convolution_backward_filter",
    "convolution_forward",
    "get_handle",
    "get_max_workspace_size",
    "is_tensor_core_available",
    "pooling_backward",
    "pooling_forward",
    "set_max_workspace_size",
    "softmax_backward",
    "softmax_forward",
]
