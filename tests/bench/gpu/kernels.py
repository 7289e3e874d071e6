"""Times of single kernels, and what the card reaches at most."""

import functools
import statistics

from convnets import cuda_graphs, layouts
from convnets.fused import any_layout

import chainer
import chainer.links as L
import numpy as np
from chainer.backends import cuda

from .checks import BEHIND, FAST, LAST, POOLINGS, POOLS

#: Maps in front of VGG's first pooling and of ResNet-50's, and ResNet-50's last.
POOLED = [("max pooling 2x2", (128, 64, 224, 224)), ("max pooling 3x3, pad 1", (128, 64, 112, 112)),
          ("average pooling 7x7", (128, 2048, 7, 7))]
#: Maps that are normalized: ResNet-50's first and last.
TIMED = [(128, 256, 56, 56), (128, 2048, 7, 7)]


def time_pooling(device):
    """Measure both ways, in milliseconds: of turned copies, and with the channels last."""
    found = {}
    for name, shape in POOLED:
        kind, settings = POOLINGS[name]
        ours, chainers = POOLS[kind]
        for way, pool in (("copies", functools.partial(pooled_copies, chainers)),
                          ("channels last", ours)):
            job = cuda_graphs.record(pooling_job(device, shape, pool, settings))
            found[f"{name}, {shape}, {way}"] = round(median_of(job), 4)
            yield found


def pooled_copies(pool, h, **settings):
    """Pool maps with the channels last as Chainer does: turned there, and back."""
    return layouts.turned(pool(layouts.plain(h), **settings), LAST)


def pooling_job(device, shape, pool, settings):
    """Return a function that pools maps of a shape, channels last, and goes back."""
    n, c, h, w = shape
    image = device.send(np.random.RandomState(0).randn(h, w, c).astype("e"))
    x = chainer.Variable(device.xp.repeat(image[None], n, axis=0), layout=LAST)
    gy = chainer.Variable(device.xp.ones_like(pool(x, **settings).raw_array), layout=LAST)

    def job():
        y = pool(x, **settings)
        x.cleargrad()
        with any_layout():
            y.grad_var = gy
            y.backward()

    return job


def time_fusion(device):
    """Measure forward and backward, in milliseconds: in turn, by cuDNN's fast kernels, fused."""
    found = {}
    for shape in TIMED:
        for name, behind in BEHIND.items():
            for way, fast, apart in (("in turn", False, False), ("fast, in turn", True, True),
                                     ("fused", True, False)):
                with chainer.using_config(FAST, fast):
                    # As a graph: these are kernels shorter than Python's way to them.
                    job = cuda_graphs.record(normalization_job(device, shape, behind, apart))
                found[f"{name}, {shape}, {way}"] = round(median_of(job), 4)
                yield found


def time_kernels(device):
    """Measure pooling, and normalization with what is behind it."""
    found = {}
    for measured in (time_pooling(device), time_fusion(device)):
        for part in measured:
            found |= part
            yield found


def normalization_job(device, shape, behind, apart):
    """Return a function that normalizes maps of a shape, and does what is behind, both ways."""
    rng = np.random.RandomState(0)
    images = (rng.randn(shape[2], shape[3], shape[1]).astype("e") for _ in range(3))
    x, z, gy = (chainer.Variable(device.xp.repeat(device.send(image)[None], shape[0], axis=0),
                                 layout=LAST) for image in images)
    link = L.BatchNormalization(shape[1], dtype=np.float32)
    link.to_device(device)

    def job():
        h = link(x)
        if apart:
            h.retain_data()   # who asks for it gets it, and ReLU comes too late
        y = behind(h, z)
        link.cleargrads()
        x.cleargrad()
        z.cleargrad()
        with any_layout():
            y.grad_var = gy
            y.backward()

    return job


def ceilings():
    """Measure what the card reaches: products of matrices, and copies, a second."""
    xp, n = cuda.cupy, 8192
    single = [xp.random.rand(n, n, dtype=xp.float32) for _ in range(2)]
    half = [matrix.astype("e") for matrix in single]
    c = xp.empty(2**30, "u1")
    jobs = {"float16 TFLOP/s": (lambda: half[0] @ half[1], 2 * n**3 / 1e12),
            "TF32 TFLOP/s": (lambda: single[0] @ single[1], 2 * n**3 / 1e12),
            "copy TB/s": (c.copy, 2 * c.nbytes / 1e12)}
    yield {name: amount / (median_of(job) / 1000) for name, (job, amount) in jobs.items()}


def median_of(job):
    """Return the milliseconds of a job of CuPy's, the median of ten after three."""
    times = []
    for _ in range(13):
        start, stop = cuda.Event(), cuda.Event()
        start.record()
        job()
        stop.record()
        stop.synchronize()
        times.append(cuda.cupy.cuda.get_elapsed_time(start, stop))
    return statistics.median(times[3:])
