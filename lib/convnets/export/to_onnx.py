"""A model as an ONNX file."""

import dataclasses
import importlib.util
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import chainer
import numpy as np
from chainer.backends import cuda

from ..files import written_whole
from ..models import ImageClassifier
from . import onnx_file, tracing
from .errors import ExportError

#: How far onnxruntime's outputs may be from Chainer's, relative to the largest.
TOLERANCE = 1e-4
JUDGE = "onnxruntime"


@dataclass(frozen=True)
class Exported:
    """What `onnx` has written; prints as a few lines.

    Attributes
    ----------
    path : str
    n_bytes, n_params : int
        Of the file; numbers in its float32 arrays, running averages included.
    operators : dict of str to int
        How many nodes of each.
    inputs, outputs : dict of str to tuple
        Shapes by name; N is any number of images.
    opset : int
    distances : dict of int to float, or None
        For batches of so many images, how far onnxruntime's outputs are from Chainer's, relative
        to the largest. None where onnxruntime is not installed.
    """

    path: str
    n_bytes: int
    n_params: int
    operators: dict
    inputs: dict
    outputs: dict
    opset: int
    distances: dict | None

    def __str__(self):
        operators = ", ".join(f"{n} {op}" for op, n in sorted(self.operators.items()))
        shapes = [f"{name} ({', '.join(map(str, shape))})"
                  for name, shape in (self.inputs | self.outputs).items()]
        compared = "not compared: onnxruntime is not installed"
        if self.distances is not None:
            compared = "compared with onnxruntime: " + ", ".join(
                f"{distance:.1e} of the largest for {n} image{'s' if n > 1 else ''}"
                for n, distance in self.distances.items())
        return "\n".join([
            f"{self.path}: ONNX, opset {self.opset}, {self.n_bytes:,} bytes",
            f"{sum(self.operators.values())} nodes: {operators}",
            f"{self.n_params:,} numbers; {' to '.join(shapes)}", compared])


def onnx(model, x, path, *, call=None, fixed=False):
    """Write what a model computes in test mode as an ONNX file.

    The file holds for any number of images of one size. Parameters keep their paths as names,
    such as ``conv1/W``; ``model.preprocessing``, if there is one, goes with it as a note. Batch
    normalization and dropout are as in test mode. The file is read back and, where onnxruntime is
    installed, run on other images before it gets its name: otherwise nothing is written.

    Parameters
    ----------
    model : chainer.Link
        On any device, with float32 parameters. It stays as it is.
    x : array, shape (N, C, H, W), float32
        Images such as the model will see; their height and width are those of the file.
    path : path
        The file to write, whole or not at all.
    call : callable, optional
        From a Variable of images to the Variable that the file is to give. By default ``logits``
        of a model of this library, for others the model itself.
    fixed : bool
        Write a graph for ``len(x)`` images only. The model is then run once and not compared with
        itself: constants that NumPy computes from the images go unnoticed, unless onnxruntime
        notices.

    Returns
    -------
    Exported

    Raises
    ------
    ExportError
        If the model calls a function that ONNX, or this module, does not have; if what it computes
        depends on the number or the values of the images other than by functions of Chainer; if
        parameters are missing or not float32; if the file would have more than 2 GB; if
        onnxruntime computes something else.
    """
    if call is None and hasattr(model, "predictor"):      # L.Classifier, which takes labels, too
        raise ExportError(f"{type(model).__name__} calculates a loss: export its model.predictor")
    call = call or (model.logits if isinstance(model, ImageClassifier) else model)
    _check_parameters(model)
    x = _checked(model, x)
    graph = tracing.graph_of(model, x, call, fixed)
    if not graph.arrays:
        raise ExportError(f"{type(model).__name__} computes with no weights: there is nothing to "
                          f"export")
    if settings := getattr(model, "preprocessing", None):
        graph.metadata["preprocessing"] = json.dumps(dataclasses.asdict(settings))
    with written_whole(path) as file:
        onnx_file.write(file, graph)
        file.flush()
        _check_read_back(file.name, graph)
        distances = _compared(file.name, model, x, call, fixed)
        n_bytes = file.tell()
    return Exported(str(path), n_bytes, _n_params(graph), dict(Counter(n.op for n in graph.nodes)),
                    graph.inputs, graph.outputs, graph.opset, distances)


def _check_parameters(model):
    for name, parameter in model.namedparams():
        if parameter.array is None:
            raise ExportError(f"{name} has no shape yet: load the weights, or call the model once")
        if parameter.dtype != np.float32:
            raise ExportError(f"{name} is {parameter.dtype}; only float32 is written: make the "
                              f"model under chainer.config.dtype = 'float32' and load its weights")


def _checked(model, x):
    x = x.array if isinstance(x, chainer.Variable) else x
    if not hasattr(x, "dtype") or x.dtype != np.float32 or not x.ndim or not len(x):
        got = f"{x.dtype} of shape {x.shape}" if hasattr(x, "dtype") else type(x).__name__
        raise ExportError(f"x must be float32 images, (N, C, H, W) with at least one, got {got}")
    return model.device.send(x)


def _check_read_back(path, graph):
    found = onnx_file.read(path)
    names = graph.arrays.keys()
    if (found.nodes != _as_read(graph.nodes) or found.arrays.keys() != names
            or any(not np.array_equal(found.arrays[n], graph.arrays[n], equal_nan=True)
                   for n in names)):
        raise ExportError(f"{path} does not hold what was written; is the disk full or damaged?")


def _as_read(nodes):
    """Return nodes as a file gives them back: lists, and floats with 32 bits."""
    def plain(value):
        if isinstance(value, float):
            return float(np.float32(value))
        return value if isinstance(value, (int, str)) else list(value)
    return [dataclasses.replace(node, attributes={k: plain(v) for k, v in node.attributes.items()})
            for node in nodes]


def _n_params(graph):
    return sum(array.size for array in graph.arrays.values() if array.dtype == np.float32)


def _compared(path, model, x, call, fixed):
    """Return the distance from onnxruntime's outputs by number of images, or None without it."""
    if importlib.util.find_spec(JUDGE) is None:
        return None
    run = session(path)
    found = {}
    for images in [x] if fixed else [x[:1], tracing.batches(x)[1]]:
        with chainer.using_config("train", False), chainer.no_backprop_mode():
            expected = cuda.to_cpu(call(chainer.Variable(images)).array)
        found[len(images)] = error = distance(run(cuda.to_cpu(images)), expected)
        if not error <= TOLERANCE:
            raise ExportError(
                f"{Path(path).stem}: onnxruntime's outputs for {len(images)} images differ by "
                f"{error:.1g} of the largest, at most {TOLERANCE:g} is allowed. Results must be "
                f"made from the images by functions of Chainer alone, without NumPy and chance")
    return found


def session(path):
    """Return a function that runs an ONNX file on images in onnxruntime.

    Parameters
    ----------
    path : path

    Raises
    ------
    ExportError
        If onnxruntime does not take the file.
    """
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        found = onnxruntime.InferenceSession(str(path), options,
                                             providers=["CPUExecutionProvider"])
    except Exception as e:      # its errors have no common class of their own
        raise ExportError(f"onnxruntime does not take {path}: {e}") from e
    (entry,) = found.get_inputs()

    def run(images):
        try:
            return found.run(None, {entry.name: images})[0]
        except Exception as e:
            raise ExportError(f"onnxruntime cannot run {path} on images of shape {images.shape}: "
                              f"{e}") from e

    return run


def distance(y, expected):
    """Return the largest difference of outputs, relative to the largest expected one."""
    if y.shape != expected.shape:
        return float("inf")
    return float(abs(y - expected).max() / max(abs(expected).max(), 1e-30))
