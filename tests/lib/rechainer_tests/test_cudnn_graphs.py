"""cuDNN's own verdict on our graphs, without a GPU: plans are made for a described H200.

cuDNN builds plans ahead of time for a device it is told of. What it loads for that wants symbols of
the driver, which it does not call: a library of the driver's name without a driver will do.
"""

import contextlib
import ctypes
import json
import re
import subprocess
from pathlib import Path

from convnets import models
from rechainer import _cupy, cudnn
from rechainer.cudnn import _constants, _descriptors, _graphs, _library

import chainer
import numpy
import pytest
from chainer.utils.conv import get_conv_outsize

#: As cuDNN writes a device down; numbers of CUDA's properties of an H200.
H200 = {
    "deviceName": "NVIDIA H200", "cudaDeviceId": 0, "deviceVer": 900, "driverVer": 13000,
    "multiProcessorCount": 132, "smCountOrigin": 0, "warpSize": 32, "pciDeviceId": 0,
    "maxGridSize": [2147483647, 65535, 65535], "maxBlockSize": [1024, 1024, 64],
    "maxThreadsPerBlock": 1024, "maxThreadsPerSM": 2048, "maxCtasPerSM": 32,
    "regsPerBlock": 65536, "maxRegistersPerSM": 65536, "maxSharedMemoryPerBlock": 49152,
    "maxSharedMemoryPerBlockOptin": 232448, "reservedSharedMemoryPerBlock": 1024,
    "oversizedSharedMemoryPerBlock": 0, "isTccDriver": 0, "supportCoopLaunch": 1,
    "smClockRateKHz": 1980000, "memClockRateKHz": 3201000, "memoryBusWidth": 6144,
    "l2CacheSize": 62914560, "totalGlobalMem": 150_000_000_000,
}
SYMBOLS = ("cuGetErrorString cuModuleGetFunction cuModuleLoadData cuModuleUnload "
           "cuTensorMapEncodeIm2col cuTensorMapEncodeTiled")
WORKSPACE = 256 * 2**20
#: Type, and whether the channels are last.
SETTINGS = [("float32", False), ("float32", True), ("float16", False), ("float16", True),
            ("bfloat16", True)]

pytestmark = pytest.mark.skipif(
    not cudnn.is_usable(), reason=f"cuDNN or its frontend: {cudnn.status()}")


@pytest.fixture(scope="module")
def device(tmp_path_factory):
    """Return cuDNN's description of an H200."""
    if not _cupy.has_driver():
        folder = tmp_path_factory.mktemp("driver")
        source, library = folder / "cuda.c", folder / "libcuda.so.1"
        source.write_text("".join(f"int {name}(void) {{ return 100; }}\n"
                                  for name in SYMBOLS.split()))
        try:
            subprocess.run(["cc", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", library,
                            source], check=True)
        except OSError as error:
            pytest.skip(f"no C compiler for a library of the driver's name: {error}")
        ctypes.CDLL(str(library))
    return _library.frontend().create_device_properties(json.dumps(H200))


class Convolutions(chainer.LinkHook):
    """Collects the distinct convolutions that a model runs, and the images that each is given."""

    name = "Convolutions"

    def __init__(self):
        self.found = {}

    def forward_preprocess(self, args):
        link = args.link
        if isinstance(link, chainer.links.Convolution2D):
            _, c, *size = args.args[0].shape
            key = c, link.out_channels, link.ksize, link.stride, link.pad, *size
            self.found.setdefault(key, (link, size[0]))


def convolutions(model):
    """Return the distinct (link, height and width of its input) of a model's convolutions."""
    x = numpy.zeros((1, *model.in_shape), "f")
    with Convolutions() as hook, chainer.using_config("train", False), chainer.no_backprop_mode():
        model(x)
    return list(hook.found.values())


def described(link, size, kind, dtype, channels_last, batch=8, **options):
    """Return the `Convolution` of a link."""
    def array(shape):
        _, c, h, w = shape
        strides = (h * w * c, 1, w * c, c) if channels_last else (c * h * w, h * w, w, 1)
        return _graphs.Array(shape, strides, dtype)

    k, c, *ksize = link.W.shape
    out = [get_conv_outsize(size, n, s, p, d=d) for n, s, p, d in
           zip(ksize, link.stride, link.pad, link.dilate, strict=True)]
    options = {"exact": False, "deterministic": False, "workspace": WORKSPACE, **options}
    return _graphs.Convolution(
        kind, array((batch, c * link.groups, size, size)), array((k, c, *ksize)),
        array((batch, k, *out)), kind == "forward" and link.b is not None, link.pad, link.stride,
        link.dilate, autotune=False, **options)


#: Network, images in a minibatch, distinct convolutions of it.
NETWORKS = [("LeNet5", 128, 3), ("VGG16", 128, 9), ("ResNet50", 128, 20), ("ResNet152", 64, 20),
            ("ResNet56", 128, 6)]


@pytest.mark.slow
@pytest.mark.parametrize("name, batch, count", NETWORKS)
def test_every_convolution_has_a_plan_for_an_h200(name, batch, count, device):
    found = convolutions(getattr(models, name)())
    assert len(found) == count
    for link, height in found:
        for kind in ("forward", "data", "filter"):
            for dtype, channels_last in SETTINGS:
                convolution = described(link, height, kind, dtype, channels_last, batch)
                graph = _graphs.build(convolution, device_property=device)
                plan = _graphs.Plan(graph)
                assert 0 <= plan.workspace <= WORKSPACE, _graphs.describe(convolution)


#: What an optimized network (`convnets.gpu_plan`) does behind a convolution.
BEHIND = [{}, {"activation": "relu"}, {"activation": "sigmoid"}, {"add": True},
          {"add": True, "activation": "relu"}]


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 256])
@pytest.mark.parametrize("name", ["LeNet5", "VGG16", "ResNet50", "ResNet152", "ResNet56",
                                  "SqueezeNet"])
def test_sums_and_activations_are_in_one_graph_with_the_convolution(name, batch, device):
    for link, height in convolutions(getattr(models, name)()):
        for dtype in ("float16", "float32"):
            plain = described(link, height, "forward", dtype, True, batch)
            for behind in BEHIND:
                convolution = plain._replace(bias=True, **behind)
                graph = _graphs.build(convolution, device_property=device)
                assert _graphs.Plan(graph).workspace <= WORKSPACE, _graphs.describe(convolution)
                # With the sum behind the bias there would be none; with ReLU there are many.
                if "relu" in behind.values():
                    assert graph.get_execution_plan_count() > 1


#: Pooling of the networks: mode, ksize, stride, pad.
POOLINGS = [("MAX", (2, 2), (2, 2), (0, 0)), ("MAX", (3, 3), (2, 2), (1, 1)),
            ("AVERAGE_COUNT_INCLUDE_PADDING", (7, 7), (1, 1), (0, 0))]


@pytest.mark.parametrize(("mode", "ksize", "stride", "pad"), POOLINGS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_pooling_has_the_shape_that_cudnn_says(mode, ksize, stride, pad, dtype, channels_last):
    """What is asked for without a device; the functions themselves want one."""
    of = _descriptors.pooling(_constants.VALUES[f"CUDNN_POOLING_{mode}"], ksize, stride, pad)
    shape = (8, 14, 14, 64) if channels_last else (8, 64, 14, 14)
    x = _descriptors.tensor(numpy.dtype(dtype), *_descriptors.maps_of(shape, channels_last))
    found = (ctypes.c_int * 4)()
    of, x = (ctypes.c_void_p(made._as_parameter_) for made in (of, x))
    assert _library.load().cudnnGetPoolingNdForwardOutputDim(of, x, 4, found) == 0
    out = [get_conv_outsize(14, *dims) for dims in zip(ksize, stride, pad, strict=True)]
    assert list(found) == [8, 64, *out]


@pytest.mark.parametrize("kind", ["forward", "data", "filter"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("settings", [
    {"groups": 4}, {"dilate": 2, "pad": 2}, {"groups": 8, "stride": 2}, {"nobias": True}])
def test_groups_dilation_and_float64(kind, dtype, settings, device):
    link = chainer.links.Convolution2D(8, 16, 3, **settings)
    convolution = described(link, 20, kind, dtype, False)
    assert _graphs.Plan(_graphs.build(convolution, device_property=device)).workspace >= 0


@pytest.mark.parametrize("kind", ["forward", "data", "filter"])
@pytest.mark.parametrize(("dtype", "channels_last"), SETTINGS)
def test_plans_without_tensor_cores_and_deterministic_ones(kind, dtype, channels_last, device):
    link = chainer.links.Convolution2D(64, 64, 3, pad=1)
    counts = []
    for options in ({}, {"exact": True}, {"deterministic": True}, {"workspace": 0},
                    {"exact": True, "deterministic": True}):
        convolution = described(link, 28, kind, dtype, channels_last, **options)
        graph = _graphs.build(convolution, device_property=device)
        counts.append(sum(1 for _ in usable(graph)))
        assert counts[-1] > 0
    assert counts[1] < counts[0], "some plans use tensor cores"
    assert max(counts[2:]) <= counts[0]


def usable(graph):
    """Yield all plans of a graph that can be built."""
    for index in range(graph.get_execution_plan_count()):
        with contextlib.suppress(Exception):   # of several kinds, for plans that were left out
            yield _graphs.Plan(graph, index)


def test_a_convolution_that_does_not_fit_is_refused_in_words(device):
    link = chainer.links.Convolution2D(8, 16, 3)
    convolution = described(link, 20, "forward", "float32", False)
    wrong = convolution._replace(y=convolution.y._replace(shape=(8, 16, 5, 5)))
    with pytest.raises(_library.Failure, match=r"no plan for a convolution \(forward\) of x "):
        _graphs.build(wrong, device_property=device)


#: Where the type of a C parameter says it; what says nothing of these is an enumeration.
TYPES = [(r"\*|\[|Descriptor_t|Handle_t|Stream_t", ctypes.c_void_p), (r"double", ctypes.c_double),
         (r"float", ctypes.c_float), (r"size_t", ctypes.c_size_t),
         (r"unsigned long long", ctypes.c_ulonglong), (r"", ctypes.c_int)]


def headers():
    """Return cuDNN's headers as one text without comments."""
    folder = Path(_library.path()).parent.parent / "include"
    text = "".join(path.read_text() for path in sorted(folder.glob("cudnn_*.h")))
    if not text:
        pytest.skip(f"no headers in {folder}")
    return re.sub(r"/\*.*?\*/|//.*?$", "", text, flags=re.DOTALL | re.MULTILINE)


def test_the_functions_are_declared_as_in_the_headers():
    text = headers()
    for name, types in _library.DECLARATIONS.items():
        (parameters,) = set(re.findall(rf"\b{name}\(([^;]*?)\);", text)) or {None}
        expected = tuple(next(kind for pattern, kind in TYPES if re.search(pattern, parameter))
                         for parameter in parameters.split(","))
        assert types == expected, name


def test_the_constants_are_those_of_the_headers():
    text = headers()
    for name, value in _constants.VALUES.items():
        found = re.search(rf"\b{name}\b(?:\s+CUDNN_DEPRECATED_ENUM)?\s*=?\s*([\d.]+)U?", text)
        assert float(found[1]) == value, name
    for dtype, value in _constants.DATA_TYPES.items():
        name = {"float32": "FLOAT", "float64": "DOUBLE", "float16": "HALF",
                "bfloat16": "BFLOAT16"}[dtype]
        assert re.search(rf"\bCUDNN_DATA_{name}\s*=\s*{value}\b", text)
