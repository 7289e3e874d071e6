"""The functions of libcudnn.so.9 that rechainer calls, by NumPy, behind their C declarations.

Each is called through a C function pointer of the declared types, and works on addresses: a wrong
order or type of arguments shows as it would in the library.
"""

import ctypes
import itertools
import traceback
import types

import capture
import memory
import numpy

DTYPES = {0: "f", 1: "d", 2: "e"}
NOT_SUPPORTED = 3000
#: What is asked to be as large as cuDNN says it must be.
WORKSPACE, RESERVE, STATES = 512, 256, 64

descriptors = {}
calls = []
#: Ways, "forward" and "backward", that batch normalization refuses in the persistent mode.
refuses_persistent = set()
#: Whether pooling refuses maps with the channels last.
refuses_channels_last = False
_numbers = itertools.count(1000)


def _write(address, value, kind=ctypes.c_size_t):
    kind.from_address(address).value = value


def _ints(address, n):
    return list((ctypes.c_int * n).from_address(address))


def _array(descriptor, address):
    dtype, shape, strides = descriptors[descriptor]
    return memory.at(address, dtype, shape, strides)


def _check(one, zero, descriptor):
    kind = ctypes.c_double if descriptors[descriptor][0] == "d" else ctypes.c_float
    assert (kind.from_address(one).value, kind.from_address(zero).value) == (1, 0)


def _put(descriptor, address, values):
    numpy.copyto(_array(descriptor, address), values, casting="same_kind")


def cudnnCreate(result):
    _write(result, next(_numbers))


def cudnnSetStream(handle, stream):
    assert handle


def _create(result):
    _write(result, next(_numbers))


cudnnCreateTensorDescriptor = cudnnCreatePoolingDescriptor = _create
cudnnCreateActivationDescriptor = cudnnCreateDropoutDescriptor = _create


def cudnnSetTensorNdDescriptor(descriptor, dtype, n, shape, strides):
    assert 4 <= n <= 8, "cuDNN's arrays have at least four axes"
    descriptors[descriptor] = DTYPES[dtype], _ints(shape, n), _ints(strides, n)


def cudnnSetActivationDescriptor(descriptor, mode, nan, ceiling):
    descriptors[descriptor] = mode, ceiling


def cudnnSetPoolingNdDescriptor(descriptor, mode, nan, n, ksize, pad, stride):
    descriptors[descriptor] = mode, _ints(ksize, n), _ints(pad, n), _ints(stride, n)


def cudnnActivationForward(handle, descriptor, one, of_x, x, zero, of_y, y):
    mode, ceiling = descriptors[descriptor]
    _check(one, zero, of_x)
    x = _array(of_x, x)
    _put(of_y, y, {0: lambda: 1 / (1 + numpy.exp(-x)), 1: lambda: numpy.maximum(x, 0),
                   2: lambda: numpy.tanh(x), 3: lambda: numpy.clip(x, 0, ceiling)}[mode]())


def cudnnActivationBackward(handle, descriptor, one, of_y, y, of_gy, gy, of_x, x, zero, of_gx, gx):
    mode, ceiling = descriptors[descriptor]
    _check(one, zero, of_x)
    x, y, gy = _array(of_x, x), _array(of_y, y), _array(of_gy, gy)
    _put(of_gx, gx, gy * {0: lambda: y * (1 - y), 1: lambda: x > 0, 2: lambda: 1 - y * y,
                          3: lambda: (x > 0) & (x < ceiling)}[mode]())


def _check_layout(of_x):
    _, (_, channels, *size), strides = descriptors[of_x]
    last = channels > 1 and numpy.prod(size) > 1 and strides[1] == 1
    assert not (last and refuses_channels_last), "no pooling with the channels last"


def _windows(x, out, ksize, pad, stride):
    """Yield the index of each result, its window in x, and how many elements of padding."""
    for place in itertools.product(*map(range, out)):
        low = [i * s - p for i, s, p in zip(place, stride, pad, strict=True)]
        window = tuple(slice(max(a, 0), min(a + k, n))
                       for a, k, n in zip(low, ksize, x.shape[2:], strict=True))
        yield (..., *place), (..., *window)


def _pooled(mode, ksize, view):
    axes = tuple(range(2, view.ndim))
    if mode in (0, 3):
        return view.max(axis=axes, initial=-numpy.inf)  # of nothing but padding
    inside = numpy.prod(view.shape[2:])
    return view.sum(axis=axes) / (numpy.prod(ksize) if mode == 1 else inside)


def cudnnPoolingForward(handle, descriptor, one, of_x, x, zero, of_y, y):
    mode, ksize, pad, stride = descriptors[descriptor]
    _check(one, zero, of_x)
    _check_layout(of_x)
    x, y = _array(of_x, x), _array(of_y, y)
    for place, window in _windows(x, y.shape[2:], ksize, pad, stride):
        y[place] = _pooled(mode, ksize, x[window])


def cudnnPoolingBackward(handle, descriptor, one, of_y, y, of_gy, gy, of_x, x, zero, of_gx, gx):
    mode, ksize, pad, stride = descriptors[descriptor]
    _check(one, zero, of_x)
    _check_layout(of_x)
    x, y, gy, gx = (_array(d, a) for d, a in ((of_x, x), (of_y, y), (of_gy, gy), (of_gx, gx)))
    gx[...] = 0
    axes = (slice(None), slice(None), *(None,) * len(ksize))
    for place, window in _windows(x, y.shape[2:], ksize, pad, stride):
        if mode in (0, 3):
            gx[window] += gy[place][axes] * (x[window] == y[place][axes])
        else:
            count = ksize if mode == 1 else x[window].shape[2:]
            gx[window] += gy[place][axes] / numpy.prod(count)


def cudnnSoftmaxForward(handle, algorithm, mode, one, of_x, x, zero, of_y, y):
    assert mode == 1
    _check(one, zero, of_x)
    x = _array(of_x, x).astype("d")
    shifted = x - x.max(axis=1, keepdims=True)
    total = numpy.exp(shifted).sum(axis=1, keepdims=True)
    _put(of_y, y, {1: numpy.exp(shifted) / total, 2: shifted - numpy.log(total)}[algorithm])


def cudnnSoftmaxBackward(handle, algorithm, mode, one, of_y, y, of_gy, gy, zero, of_gx, gx):
    assert mode == 1
    _check(one, zero, of_y)
    y, gy = _array(of_y, y).astype("d"), _array(of_gy, gy)
    if algorithm == 2:
        gx_values = gy - numpy.exp(y) * gy.sum(axis=1, keepdims=True)
    else:
        gx_values = y * (gy - (y * gy).sum(axis=1, keepdims=True))
    _put(of_gx, gx, gx_values)


def _vector(descriptor, address):
    """Return what there is one a channel, ready to meet maps."""
    return _array(descriptor, address)


def _axes(mode):
    return (0,) if mode == 0 else (0, 2, 3)


def cudnnBatchNormalizationForwardInference(handle, mode, one, zero, of_x, x, of_y, y, of_c, gamma,
                                            beta, mean, var, eps):
    _check(one, zero, of_x)
    gamma, beta, mean, var = (_array(of_c, a) for a in (gamma, beta, mean, var))
    _put(of_y, y, gamma * (_array(of_x, x) - mean) / numpy.sqrt(var + eps) + beta)


#: cudnnBatchNormOps_t: alone, with ReLU behind, with a sum and ReLU behind.
ALONE, RELU, ADD_RELU = range(3)
PERSISTENT = 2


def _check_ops(mode, ops, of_x, of_z, activation):
    """Complain of what cuDNN does not fuse, and of descriptors that are missing or too many."""
    assert (of_z is None) == (ops != ADD_RELU)
    if ops == ALONE:
        assert activation is None
        return
    dtype, (_, channels, *_), strides = descriptors[of_x]
    assert (mode, dtype, strides[1], channels % 4) == (PERSISTENT, "e", 1, 0)
    assert descriptors[activation] == (1, 0)


def _reserved(ops, of_x):
    """Return the bytes kept for the gradient: of a sum, where it is positive."""
    return RESERVE + (int(numpy.prod(descriptors[of_x][1])) if ops == ADD_RELU else 0)


def _mask(reserve, of_x):
    shape = descriptors[of_x][1]
    return memory.at(reserve + RESERVE, "u1", [int(numpy.prod(shape))], [1]).reshape(shape)


def cudnnGetBatchNormalizationForwardTrainingExWorkspaceSize(handle, mode, ops, of_x, of_z, of_y,
                                                             of_c, activation, size):
    _check_ops(mode, ops, of_x, of_z, activation)
    _write(size, WORKSPACE)


def cudnnGetBatchNormalizationTrainingExReserveSpaceSize(handle, mode, ops, activation, of_x, size):
    assert (activation is None) == (ops == ALONE)
    _write(size, _reserved(ops, of_x))


def cudnnGetBatchNormalizationBackwardExWorkspaceSize(handle, mode, ops, of_x, of_y, of_gy, of_gz,
                                                      of_gx, of_c, activation, size):
    assert (of_y is None) == (ops == ALONE)
    _check_ops(mode, ops, of_x, of_gz, activation)
    assert descriptors[of_c]
    _write(size, WORKSPACE)


def cudnnBatchNormalizationForwardTrainingEx(
        handle, mode, ops, one, zero, of_x, x, of_z, z, of_y, y, of_c, gamma, beta, factor,
        running_mean, running_var, eps, mean, inv_std, activation, workspace, workspace_size,
        reserve, reserve_size):
    _check(one, zero, of_x)
    _check_ops(mode, ops, of_x, of_z, activation)
    assert not (mode == PERSISTENT and "forward" in refuses_persistent)
    assert (workspace_size, reserve_size) == (WORKSPACE, _reserved(ops, of_x))
    assert workspace
    x = _array(of_x, x).astype("d")
    gamma, beta, running_mean, running_var, saved_mean, saved_inv_std = (
        _array(of_c, a) for a in (gamma, beta, running_mean, running_var, mean, inv_std))
    axes = _axes(mode)
    mean, var = x.mean(axis=axes, keepdims=True), x.var(axis=axes, keepdims=True)
    m = x.size // mean.size
    saved_mean[...], saved_inv_std[...] = mean, 1 / numpy.sqrt(var + eps)
    running_mean[...] = running_mean * (1 - factor) + mean * factor
    running_var[...] = running_var * (1 - factor) + var * factor * m / max(m - 1, 1)
    values = gamma * (x - mean) / numpy.sqrt(var + eps) + beta
    ctypes.memset(reserve, 7, RESERVE)
    if ops == ADD_RELU:
        values += _array(of_z, z)
        _mask(reserve, of_x)[...] = values > 0
    _put(of_y, y, values if ops == ALONE else numpy.maximum(values, 0))


def cudnnBatchNormalizationBackwardEx(
        handle, mode, ops, one, zero, one_, zero_, of_x, x, of_y, y, of_gy, gy, of_gz, gz, of_gx,
        gx, of_c, gamma, beta, ggamma, gbeta, eps, mean, inv_std, activation, workspace,
        workspace_size, reserve, reserve_size):
    _check(one, zero, of_x)
    _check_ops(mode, ops, of_x, of_gz, activation)
    assert not (mode == PERSISTENT and "backward" in refuses_persistent)
    assert workspace_size == WORKSPACE
    if reserve is not None or ops != ALONE:
        assert reserve_size == _reserved(ops, of_x)
        assert (ctypes.c_char * RESERVE).from_address(reserve).raw == b"\7" * RESERVE
    x, gy = _array(of_x, x).astype("d"), _array(of_gy, gy).astype("d")
    gamma, mean, inv_std = (_array(of_c, a) for a in (gamma, mean, inv_std))
    if ops == RELU:
        assert beta
        gy = gy * (_array(of_y, y) > 0)
    if ops == ADD_RELU:
        gy = gy * _mask(reserve, of_x)
        _put(of_gz, gz, gy)
    axes = _axes(mode)
    x_hat = (x - mean) * inv_std
    m = x.size // mean.size
    of_gamma = (gy * x_hat).sum(axis=axes, keepdims=True)
    of_beta = gy.sum(axis=axes, keepdims=True)
    _put(of_c, ggamma, of_gamma)
    _put(of_c, gbeta, of_beta)
    _put(of_gx, gx, gamma * inv_std * (gy - (x_hat * of_gamma + of_beta) / m))


def cudnnDropoutGetStatesSize(handle, size):
    _write(size, STATES)


def cudnnDropoutGetReserveSpaceSize(of_x, size):
    _write(size, int(numpy.prod(descriptors[of_x][1])))


def cudnnSetDropoutDescriptor(descriptor, handle, ratio, states, size, seed):
    if states is not None:
        assert size == STATES
        descriptors[descriptor] = {"states": states}
        _state_at(states)[:] = seed % 2**32, 0
    descriptors[descriptor]["ratio"] = ratio


def _state_at(address):
    """Return seed and count of the numbers drawn, which lie in memory of the device."""
    return memory.at(address, "i8", [2], [1])


def cudnnDropoutForward(handle, descriptor, of_x, x, of_y, y, reserve, size):
    of = descriptors[descriptor]
    x = _array(of_x, x)
    state = _state_at(of["states"])
    mask = memory.at(reserve, "u1", [size], [1])
    mask[...] = numpy.random.RandomState(state % 2**32).rand(size) >= of["ratio"]
    state[1] += 1
    _put(of_y, y, x * mask.reshape(x.shape) / (1 - of["ratio"]))


def cudnnDropoutBackward(handle, descriptor, of_gy, gy, of_gx, gx, reserve, size):
    gy = _array(of_gy, gy)
    mask = memory.at(reserve, "u1", [size], [1]).reshape(gy.shape)
    _put(of_gx, gx, gy * mask / (1 - descriptors[descriptor]["ratio"]))


def _status_of(name):
    def function(*arguments):
        calls.append(name)
        # A recorded kernel has its settings by value.
        settings = {k: dict(v) if isinstance(v, dict) else v for k, v in descriptors.items()}
        launch = _run if name.startswith(HOST) else capture.written(_run)
        return launch(globals()[name], arguments, settings) or 0

    return function


#: What the processor does at once.
HOST = "cudnnCreate", "cudnnSet", "cudnnGet", "cudnnDropoutGet"


def _run(function, arguments, settings):
    global descriptors
    if capture.calls is None and not function.__name__.startswith(HOST):
        now, descriptors = descriptors, settings
    else:
        now = descriptors
    try:
        function(*arguments)
    except Exception:  # must not leave a C callback
        traceback.print_exc()
        return NOT_SUPPORTED
    finally:
        descriptors = now
    return 0


def load(declarations, checked):
    """Return an object with the declared functions, each behind a C function pointer."""
    library = types.SimpleNamespace(_handle=1, cudnnGetVersion=lambda: 91400)
    library.cudnnGetErrorString = lambda status: b"CUDNN_STATUS_NOT_SUPPORTED"
    library.cudnnGetLastErrorString = lambda text, size: None
    for name, arguments in declarations.items():
        function = ctypes.CFUNCTYPE(ctypes.c_int, *arguments)(_status_of(name))
        function.__name__, function.errcheck = name, checked
        setattr(library, name, function)
    return library
