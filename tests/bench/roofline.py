"""Where each convolution stands under the processor's roof.

``python -m tests.bench.roofline --record FILE``: the layers of VGG16 and ResNet-50 with 8 images,
in one thread: operations for each byte that must be moved at least, and operations a second,
forward and in both directions backward; how fast the processor computes and copies at most. The
operations are those of a direct convolution. Layers that are computed in tiles need fewer; they are
measured both ways.
Samuel Williams, Andrew Waterman, David Patterson: Roofline (2009).
"""

import argparse
import sys
import time
from unittest import mock

import rechainer
from convnets import models, results
from convnets.optimize import Tape
from rechainer.onednn import _operations as ops
from rechainer.onednn import _winograd
from rechainer.onednn._arrays import empty

import chainer
import numpy as np

from .engines import PEAK

NETWORKS = {"VGG16": models.VGG16, "ResNet-50": models.ResNet50}
BATCH = 8
#: Repetitions, of which the fastest counts, by the time of the processor.
REPEAT = 4
#: Bytes of the copy that measures the memory; far more than caches hold.
COPIED = 1 << 28


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.bench.roofline")
    parser.add_argument("--record", metavar="FILE", required=True)
    options = parser.parse_args()
    x_shape, w_shape, pad = PEAK
    peak = layer(x_shape, w_shape, x_shape, (1, 1), pad)["forward"]
    rows = [{"network": name, **layer(*shapes), "count": count}
            for name, make in NETWORKS.items()
            for shapes, count in convolutions(make()).items()]
    results.record(
        options.record, command=" ".join(["python -m tests.bench.roofline", *sys.argv[1:]]),
        seed=0, curve=rows,
        options={"threads": 1, "batch": BATCH, "peak_gflops": peak, "gb_per_s": bandwidth(),
                 "oneDNN": rechainer.info()["parts"]["oneDNN"]})


def convolutions(model):
    """Return {arguments of `layer`: how often the model has it}."""
    found, x = {}, np.zeros((1, *model.in_shape), np.float32)
    with chainer.using_config("train", False), chainer.no_backprop_mode(), Tape(x) as tape:
        model.logits(chainer.Variable(x))
    shapes = {0: x.shape}
    for op in tape.ops:
        shapes.update(zip(op.outputs, op.shapes, strict=True))
        if type(op.node).__name__ == "Convolution2DFunction":
            key = ((BATCH, *shapes[op.inputs[0]][1:]), op.inputs[1].shape,
                   (BATCH, *op.shapes[0][1:]), (op.node.sy, op.node.sx), (op.node.ph, op.node.pw))
            found[key] = found.get(key, 0) + 1
    return found


def layer(x_shape, w_shape, y_shape, stride, pad):
    """Return what was measured of a convolution: directly and, where that is better, in tiles."""
    rng = np.random.RandomState(0)
    x, gy = filled(rng, x_shape), filled(rng, y_shape)
    W = rng.rand(*w_shape).astype(np.float32)
    shapes = x_shape, w_shape, y_shape, stride, pad, (1, 1)
    flops = 2 * int(np.prod(y_shape)) * int(np.prod(w_shape[1:]))

    def speed():
        kernel = ops.Convolution(*shapes)
        passes = {"forward": lambda: kernel.forward(x, W),
                  "backward to the maps": lambda: kernel.backward_data(W, gy),
                  "backward to the weights": lambda: kernel.backward_weights(x, gy)}
        return {name: round(flops / seconds(f) / 1e9, 1) for name, f in passes.items()}

    with mock.patch.object(_winograd, "best_form", lambda *shapes: None):
        direct = speed()
    in_tiles = speed() if _winograd.best_form(*shapes) else None
    return {"x": x_shape, "W": w_shape, "y": y_shape, "gflop": flops / 1e9,
            "flops_per_byte": round(flops / (x.nbytes + W.nbytes + gy.nbytes), 2),
            **direct, "in_tiles": in_tiles}


def filled(rng, shape):
    x = empty(shape)
    x[...] = rng.rand(*shape)
    return x


def bandwidth():
    """Return the GB/s that a copy reads and writes."""
    source = np.ones(COPIED // 8)
    target = np.empty_like(source)
    return round(2 * COPIED / seconds(lambda: np.copyto(target, source)) / 1e9, 1)


def seconds(function):
    """Return the least time of the processor; the first run, which prepares, does not count."""
    function()
    found = []
    for _ in range(REPEAT):
        start = time.process_time()
        function()
        found.append(time.process_time() - start)
    return min(found)


if __name__ == "__main__":
    main()
