"""The `convnets` command: train, predict, summary, data, weights, convert, labs, and more."""

import argparse
import contextlib
import importlib
import shlex
import sys
from pathlib import Path

import rechainer  # noqa: F401  must come before chainer

import chainer  # isort: skip
import numpy as np
from chainer.backends import cuda

from . import (
    cuda_graphs,
    data,
    devices,
    export,
    inspect,
    models,
    precision,
    pretrained,
    results,
    training,
)
from .files import read_npz, written_whole
from .pretrained import layers, registry
from .pretrained.compare import compare
from .pretrained.locate import locate, state
from .pretrained.transfer import model_arrays

COMMANDS = "labs", "gradients", "frozen", "bugs", "detection_record"   # modules with one each

# Networks for the small images of `DATA`, with ten classes, and those for ImageNet.
SMALL = {"lenet5" if form == "chain" else f"lenet5-{form}": build
         for form, build in models.FORMS.items()}
SMALL["vgg-small"] = models.VGGSmall
SMALL.update((f"{kind}{depth}", getattr(models, f"{name}{depth}"))
             for kind, name in (("resnet", "ResNet"), ("plain", "Plain"))
             for depth in (20, 32, 44, 56, 110))
LARGE = pretrained.ARCHITECTURES
LENET5 = [name for name in SMALL if name.startswith("lenet5")]
DATA = {"mnist": data.mnist, "fashion_mnist": data.fashion_mnist, "cifar10": data.cifar10}
FETCH = {"cifar10": data.fetch_cifar10}

# Of `convnets train`, handed to the trainer as they are.
OPTIONS = ("epochs", "iterations", "every", "batch", "optimizer", "lr", "weight_decay", "schedule",
           "shift", "precision")

# The same, but no part of what a run is: they change how it is calculated.
WAYS = "channels_last", "fused", "cuda_graph", "recorded", "prefetch"

# Settings of Chainer's for cuDNN that `convnets train` switches on for the run, by their own names.
SWITCHES = {
    "autotune": "measure cuDNN's ways to do each convolution, and take the fastest",
    "cudnn_deterministic": "the same bits each time, which --resume needs for them",
    "cudnn_fast_batch_normalization":
        "cuDNN's faster batch normalization; with --precision mixed16 and --channels-last the sum "
        "and the ReLU behind it are part of it",
}

# Distance of a converted network from the original in its own framework: rounding stays below.
CHECKED = 1e-4

# What a wrong input may raise; anything else is a defect and keeps its traceback.
INPUT_ERRORS = (ValueError, OSError, training.ResumeError, data.DataError, cuda_graphs.GraphError)


def main(argv=None):
    """Run the command line and return its exit status: 0, 1 for an error, 2 for bad usage."""
    parser = build_parser()
    args = parser.parse_args(argv)
    args.command_line = shlex.join(["convnets", *(sys.argv[1:] if argv is None else argv)])
    try:
        return args.run(args) or 0
    except INPUT_ERRORS as e:
        print(f"convnets: error: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("convnets: interrupted", file=sys.stderr)
        return 130


def build_parser():
    """Return the argument parser with all commands."""
    parser = argparse.ArgumentParser(prog="convnets", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (_add_train, _add_predict, _add_summary, _add_data, _add_weights,
                _add_convert, _add_export):
        add(commands)
    for name in COMMANDS:
        importlib.import_module(f".{name}", __package__).add_parser(commands)
    return parser


def _add_train(commands):
    p = commands.add_parser("train", help="train a model and log its test accuracy",
                            formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("model", choices=SMALL, metavar="MODEL", help=f"one of {', '.join(SMALL)}")
    p.add_argument("--data", choices=DATA, default="mnist")
    p.add_argument("--n-train", type=int, help="use only the first so many examples")
    p.add_argument("--n-test", type=int, help="use only the first so many test examples")
    p.add_argument("--epochs", type=int, default=10)
    p.add_argument("--iterations", type=int, help="steps to take, instead of --epochs")
    p.add_argument("--every", type=int, help="steps between two entries of the log")
    p.add_argument("--batch", type=int, default=128)
    p.add_argument("--optimizer", choices=training.OPTIMIZERS, default="adam")
    p.add_argument("--lr", type=float, default=0.004, help="learning rate at the start")
    p.add_argument("--weight-decay", type=float, default=0.0)
    p.add_argument("--schedule", choices=[s for s in training.SCHEDULES if s],
                   help="how the learning rate falls")
    p.add_argument("--shift", type=int, default=0,
                   help="move each minibatch by up to so many pixels at random")
    p.add_argument("--augment", action="store_true",
                   help="pad by 4, crop at random, mirror half of the images")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--device", default="@numpy", help="such as cpu or @cupy:0")
    p.add_argument("--precision", choices=[p for p in precision.PRECISIONS if p],
                   help="mixed16: float16 with float32 originals of the weights")
    p.add_argument("--channels-last", action="store_true",
                   help="train a residual network or a VGG in cuDNN's layout, on a GPU")
    p.add_argument("--fused", action="store_true", help="update all parameters by one kernel")
    p.add_argument("--cuda-graph", action="store_true",
                   help="record the step of a GPU once, then launch it as a whole; with --fused")
    p.add_argument("--recorded", action="store_true",
                   help="record the step once and replay it without Chainer's Python; on a "
                        "processor with oneDNN (CHAINER_USE_IDEEP=auto)")
    p.add_argument("--prefetch", action="store_true",
                   help="send images to a GPU while it works on the last ones")
    for name, text in SWITCHES.items():
        p.add_argument(_flag(name), action="store_true", help=f"{text}; on a GPU")
    p.add_argument("--out", type=Path, help="folder for log, snapshots and model.npz")
    p.add_argument("--resume", action="store_true", help="continue the run in --out")
    p.add_argument("--record", type=Path, help="write a recorded run to this JSON file")
    p.add_argument("--quiet", action="store_true", help="no progress bar")
    p.set_defaults(run=_train)


def _flag(name):
    return "--" + name.replace("_", "-")


@contextlib.contextmanager
def _switched(args):
    """Have Chainer's settings for cuDNN on that were asked for.

    Raises
    ------
    ValueError
        If the device is no GPU with cuDNN.
    """
    wanted = [name for name in SWITCHES if getattr(args, name)]
    device = devices.get(args.device)
    if wanted and not (isinstance(device, cuda.GpuDevice) and cuda.cudnn_enabled):
        raise ValueError(f"{' '.join(map(_flag, wanted))}: this is for cuDNN on a GPU; "
                         f"{device.name} has none. Give --device @cupy:0, or leave it out")
    with contextlib.ExitStack() as stack:
        for name in wanted:
            stack.enter_context(chainer.using_config(name, True))
        yield


def _train(args):
    with _switched(args):
        _trained(args)


def _trained(args):
    np.random.seed(args.seed)
    model = SMALL[args.model]()
    train_set, test_set = DATA[args.data](args.n_train, args.n_test)
    model.check_input(train_set[:1][0][0][None])
    if args.augment:
        train_set = data.augment(train_set)
    options = {name: getattr(args, name) for name in OPTIONS}
    run = training.trainer(model, train_set, test_set, **options, seed=args.seed, out=args.out,
                           resume=args.resume, progress=not args.quiet, device=args.device,
                           **{name: getattr(args, name) for name in WAYS})
    with devices.told_when_full(run.updater.device):
        run.run()
    log = run.get_extension("LogReport").log
    for entry in log:
        place = (f"step {entry['iteration']:5d}" if args.every or args.iterations
                 else f"epoch {entry['epoch']:3d}")
        print(f"{place}  loss {entry['main/loss']:.4f}  "
              f"test loss {entry['validation/main/loss']:.4f}  "
              f"test accuracy {entry['validation/main/accuracy']:.4f}")
    if args.out:
        _save_npz(args.out / "model.npz", model)
    if args.record:
        results.record(args.record, command=args.command_line, seed=args.seed, curve=log,
                       options={name: getattr(args, name) for name in
                                ("model", "data", "n_train", "n_test", "augment")} | options,
                       device=run.updater.device.name)


def _save_npz(path, model):
    """Write the weights whole or not at all."""
    with written_whole(path) as file:
        chainer.serializers.save_npz(file, model)
    print(f"weights: {path}")


def _add_predict(commands):
    p = commands.add_parser("predict", help="say which digit or thing an image shows")
    p.add_argument("image", type=Path, help="for a LeNet5 a 28 x 28 image, white digit on black as "
                                            "in MNIST; for the other networks any photograph")
    p.add_argument("--model", choices=[*LENET5, *LARGE], default="lenet5")
    p.add_argument("--weights", help="for a LeNet5 model.npz, as `convnets train --out` writes it; "
                                     "for the others a file, a name that `convnets weights` lists, "
                                     "or auto, which is the default")
    p.add_argument("--invert", action="store_true", help="the digit is dark on white")
    p.add_argument("--ten-crops", action="store_true", help="average over ten parts of the photo")
    p.add_argument("--top", type=int, default=5, help="how many classes to list")
    p.add_argument("--device", default="@numpy", help="such as cpu or @cupy:0")
    p.set_defaults(run=_predict)


def _predict(args):
    if not args.image.exists():
        raise ValueError(f"{args.image} does not exist")
    if args.model in LARGE:
        _predict_photo(args)
    else:
        _predict_digit(args)


def _predict_photo(args):
    model = pretrained.load(args.model, args.weights or "auto", device=args.device)
    y = layers.predict(model, args.image, oversample=args.ten_crops).array
    (probabilities,) = chainer.backends.cuda.to_cpu(y)
    names = registry.class_names() if len(probabilities) == 1000 else None
    for _, name, probability in registry.top(probabilities, names, args.top):
        print(f"{probability:.4f}  {name}")


def _predict_digit(args):
    from PIL import Image
    if args.weights is None:
        raise ValueError(f"--weights is missing: a file that `convnets train {args.model} --out "
                         f"FOLDER` wrote")
    with Image.open(args.image) as image:
        pixels = np.asarray(image.convert("L"))
    model = load_npz(args.weights, SMALL[args.model]())
    model.to_device(devices.get(args.device))
    (probabilities,) = model.predict(255 - pixels if args.invert else pixels)
    for digit, _, probability in registry.top(probabilities, None, args.top):
        print(f"{digit}  {probability:.4f}")


def load_npz(path, model):
    """Load weights that Chainer saved, after a check that they are this model's.

    Parameters
    ----------
    path : path
        An npz file without pickles.
    model : chainer.Link

    Returns
    -------
    chainer.Link
        `model`, loaded.

    Raises
    ------
    ValueError
        If the file is damaged, or its names and shapes are not the model's.
    """
    arrays = read_npz(path)
    got = {name: array.shape for name, array in arrays.items()}
    expected = {name: array.shape for name, array in model_arrays(model, counters=True).items()}
    wrong = [f"{name} is {got.get(name, 'missing')}, expected {expected.get(name, 'nothing')}"
             for name in sorted(got.keys() | expected) if got.get(name) != expected.get(name)]
    if wrong:
        raise ValueError(f"{path} does not hold the weights of {type(model).__name__}: "
                         + "; ".join(wrong[:3]) + ("; ..." if len(wrong) > 3 else ""))
    chainer.serializers.NpzDeserializer(arrays).load(model)
    return model


def _add_summary(commands):
    p = commands.add_parser("summary", help="list a model's layers, shapes, parameters, MACs")
    known = SMALL | LARGE
    p.add_argument("model", choices=known, metavar="MODEL", help=f"one of {', '.join(known)}")
    p.add_argument("--batch", type=int, default=1, help="images in the minibatch, N")
    p.set_defaults(run=_summary)


def _summary(args):
    model = (SMALL | LARGE)[args.model]()
    print(inspect.summary(model, (args.batch, *model.in_shape)))


def _add_data(commands):
    p = commands.add_parser("data", help="check the data files, or give them to Chainer's loaders")
    p.add_argument("--install", choices=[n for n, s in data.SETS.items() if s["chainer_folder"]],
                   help="put a set where chainer.datasets looks")
    p.add_argument("--fetch", choices=FETCH, help="download a set to where chainer.datasets looks")
    p.set_defaults(run=_data)


def _data(args):
    for name in data.SETS:
        data.check(name)
        arrays = data.raw(name)
        print(f"{name:14s} {len(arrays['train_y']):6,} training and "
              f"{len(arrays['test_y']):6,} test images, file whole")
    for path in data.install(args.install) if args.install else ():
        print(f"installed {path}")
    if args.fetch:
        print(f"{args.fetch}: {FETCH[args.fetch]()}")


def _add_weights(commands):
    p = commands.add_parser("weights", help="list the published weight files and those that are "
                                            "here, or fetch one")
    p.add_argument("name", nargs="?", help="tell all about this one, such as resnet50/imagenet")
    p.add_argument("--fetch", metavar="NAME", help="download the file of a name, unless it is here")
    p.set_defaults(run=_weights)


def _weights(args):
    if args.fetch:
        print(locate(registry.entry(args.fetch).name))
    elif args.name:
        _print_weights(registry.entry(args.name))
    else:
        _list_weights()


def _add_convert(commands):
    p = commands.add_parser("convert", help="write the weights of any known file as an npz of ours")
    p.add_argument("source", help="a file, or a name that `convnets weights` lists")
    p.add_argument("target", type=Path, help="the npz to write")
    p.add_argument("--arch", choices=pretrained.ARCHITECTURES, required=True)
    p.add_argument("--family", help="where the names in the file do not tell who wrote it")
    p.add_argument("--check", action="store_true",
                   help="run the original in onnxruntime or torch, and compare")
    p.set_defaults(run=_convert)


def _convert(args):
    report = pretrained.convert(args.source, args.target, args.arch, family=args.family)
    print(f"{report}\nwritten: {args.target}")
    if args.check:
        model = pretrained.load(args.arch, args.target, verify=True)
        found = compare(report.path, report.format, model)
        if found is None:
            raise ValueError(f"--check: nothing that could run a file of format {report.format} is "
                             f"installed; ONNX needs onnxruntime, torch's files need torchvision")
        judge, distance = found
        print(f"check: {distance:.1e} standard deviations of the scores from {judge}")
        if not distance < CHECKED:
            raise ValueError(f"{args.target} does not compute what {judge} computes: expected a "
                             f"distance below {CHECKED:g}")


def _add_export(commands):
    p = commands.add_parser("export", help="write a trained model for other programs: ONNX, or "
                                           "weights under torchvision's names")
    known = SMALL | LARGE
    p.add_argument("model", choices=known, metavar="MODEL", help=f"one of {', '.join(known)}")
    p.add_argument("weights", help="model.npz, as `convnets train --out` writes it; for the large "
                                   "networks any file or name that `convnets convert` takes, or "
                                   "auto")
    p.add_argument("target", type=Path, help="the file to write, ending in .onnx or .safetensors")
    p.add_argument("--size", type=int, help="height and width of the images of an .onnx, where "
                                            "the network takes any")
    p.add_argument("--softmax", action="store_true",
                   help="have an .onnx give probabilities instead of scores")
    p.add_argument("--family", help="whose names a .safetensors has; torchvision by default")
    p.set_defaults(run=_export)


def _export(args):
    ending = args.target.suffix
    if ending not in (".onnx", ".safetensors"):
        raise ValueError(f"{args.target}: what it is to be is told by its ending, .onnx or "
                         f".safetensors, got {ending or 'none'}")
    wrong = [_flag(name) for name, of in (("size", ".onnx"), ("softmax", ".onnx"),
                                          ("family", ".safetensors"))
             if getattr(args, name) and ending != of]
    if wrong:
        raise ValueError(f"{', '.join(wrong)}: not for a file that ends in {ending}")
    if args.model in LARGE:
        model = pretrained.load(args.model, args.weights)
    else:
        model = load_npz(args.weights, SMALL[args.model]())
    if ending == ".safetensors":
        print(export.torch(model, args.target, args.family or "torchvision"))
        return
    x = _made_up_images(model, args.size)
    try:
        print(export.onnx(model, x, args.target, call=model if args.softmax else None))
    except (AssertionError, chainer.utils.type_check.InvalidType) as e:
        raise ValueError(f"--size {args.size}: {type(model).__name__} cannot compute with images "
                         f"of this size ({e})") from e


def _made_up_images(model, size):
    channels, *sides = model.in_shape
    if size is not None and not model.any_size and [size, size] != sides:
        raise ValueError(f"--size {size}: {type(model).__name__} takes images of {sides[0]} x "
                         f"{sides[1]} only")
    if size is not None and size < 1:
        raise ValueError(f"--size must be at least 1 pixel, got {size}")
    shape = (2, channels, *([size, size] if size else sides))
    return np.random.RandomState(0).random_sample(shape).astype(np.float32)


def _list_weights():
    rows = [("name", "file", "size", "error", "here")]
    for name in registry.names():
        entry = registry.entry(name)
        error = f"{entry.top1_error:.1f} %" if entry.top1_error else ""
        here = state(entry) or ("" if entry.downloadable else "no download")
        rows.append((name, entry.file, entry.describe_size(), error, here))
    rows += [(alias, f"is {name}", "", "", "") for alias, name in registry.aliases().items()]
    for name, file, size, error, here in rows:
        print(f"{name:25s} {file:46s} {size:>17s}  {error:6s}  {here}".rstrip())
    print(f"Error: top-1, as published. Files are looked for and put in {registry.models_folder()}")


def _print_weights(entry):
    errors = [f"{kind} {error:g} %" for kind, error in
              (("top-1", entry.top1_error), ("top-5", entry.top5_error)) if error]
    rows = {
        "name": entry.name, "file": entry.path, "here": state(entry) or "no",
        "size": entry.describe_size(), "checksum": entry.describe_checksum(),
        "address": entry.url or "none to download from", "published at": entry.page,
        "licence": entry.licence, "note": entry.note,
        "error": errors and f"{', '.join(errors)} ({entry.errors_source})",
    }
    for label, value in rows.items():
        if value:
            print(f"{label:13s} {value}")


if __name__ == "__main__":
    sys.exit(main())
