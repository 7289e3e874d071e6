"""``python -m tests.bench.export``: what other programs compute from exported models.

Needs onnxruntime, torch, torchvision and safetensors beside the library.
"""

import argparse
import importlib.metadata
import sys
import tempfile
from pathlib import Path

from convnets import export, models, pretrained, results
from convnets.export.to_onnx import distance
from convnets.models import resnet

import chainer
import chainer.links as L
import numpy as np
import safetensors.torch
import torch
import torchvision

from . import migration

SEED = 0
WEIGHTS = Path(__file__).parents[2] / "book/results/lenet5-mnist-shift.npz"
TORCH = {"stride_in": "3x3", "stem_pool": "torch", "bn_eps": 1e-5}
DISTRIBUTIONS = ("onnxruntime", "onnx", "torch", "torchvision")


def lenet5():
    model = models.LeNet5()
    chainer.serializers.load_npz(WEIGHTS, model)
    return model


def with_statistics(model):
    """Give batch normalizations averages as if the model had been trained."""
    random = np.random.RandomState(SEED)
    for link in model.links():
        if isinstance(link, L.BatchNormalization):
            for array, low, high in ((link.avg_mean, -0.2, 0.2), (link.avg_var, 0.5, 1.5),
                                     (link.gamma.array, 0.5, 1.2), (link.beta.array, -0.2, 0.2)):
                array[...] = random.uniform(low, high, array.shape)
    return model


#: name: the weights, how the model is made, torchvision's constructor of the same network
CASES = {
    "LeNet5": ("trained on MNIST", lenet5, None),
    "ResNet20": ("random", lambda: with_statistics(models.ResNet20()), None),
    "SqueezeNet": ("ImageNet", lambda: pretrained.load("squeezenet"),
                   torchvision.models.squeezenet1_1),
    "VGG16": ("random", models.VGG16, torchvision.models.vgg16),
    "ResNet50": ("random", lambda: with_statistics(models.ResNet50()), None),
    "ResNet50, torchvision's options": (
        "random", lambda: with_statistics(resnet.ResNet50(**TORCH)), torchvision.models.resnet50),
}


def main():
    options = parse()
    run = {"models": [], "migration": migration.rows()}
    for row in run["migration"]:
        print("{chainer:36s} {torch:42s} {distance:8.1e} {naive_distance}".format(**row))
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only:
            run["models"].append(row := case(name, Path(folder)))
            print(row, flush=True)
    if options.record:
        command = " ".join(["python -m tests.bench.export", *sys.argv[1:]])
        provenance = results.provenance(command, SEED, {"tolerance": export.to_onnx.TOLERANCE})
        provenance["versions"] |= {d: importlib.metadata.version(d) for d in DISTRIBUTIONS}
        results.write(options.record, {**provenance, **run})


def parse():
    parser = argparse.ArgumentParser(prog="python -m tests.bench.export", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--record", metavar="FILE", help="write the tables as a recorded run")
    return parser.parse_args()


def case(name, folder):
    """Export one network in both ways, and return how far the other programs are from Chainer."""
    weights, build, theirs = CASES[name]
    np.random.seed(SEED)
    model = build()
    x = np.random.RandomState(SEED).standard_normal((2, *model.in_shape)).astype(np.float32)
    report = export.onnx(model, x, folder / "model.onnx")
    row = {"model": name, "weights": weights, "shape": model.in_shape,
           "n_nodes": sum(report.operators.values()), "n_bytes": report.n_bytes,
           "onnxruntime": {str(n): d for n, d in report.distances.items()}, "torchvision": None}
    if theirs:
        path = folder / "model.safetensors"
        export.torch(model, path)
        net = theirs()
        net.load_state_dict(safetensors.torch.load_file(path))
        with chainer.using_config("train", False), chainer.no_backprop_mode():
            row["torchvision"] = distance(migration.on(net, x), model.logits(x).array)
    return row


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
