"""A model of ours against the framework its weight file came from, where that is installed."""

import importlib.util

import chainer
import chainer.functions as F
import numpy as np


def compare(path, file_format, model):
    """Return how far a model is from its file's own framework, on one image of noise.

    Parameters
    ----------
    path : path
        The original file.
    file_format : str
        As `readers.WeightFile` has it.
    model : convnets.models.VGG or convnets.models.ResNet
        Filled from it, on the CPU.

    Returns
    -------
    (str, float) or None
        What it was compared with, and the largest difference of the scores in their standard
        deviations. None where nothing that could run the file is installed.
    """
    name, judge = JUDGES.get(file_format, (None, None))
    if name is None or importlib.util.find_spec(name) is None:
        return None
    x = np.random.RandomState(1).standard_normal((1, *model.in_shape)).astype(np.float32)
    theirs = judge(path, model, x)
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        ours = model.logits(x)
        if theirs.min() >= 0 and abs(theirs.sum() - 1) < 1e-3:   # it ends in a softmax
            ours = F.softmax(ours)
    return name, float(abs(ours.array - theirs).max() / theirs.std())


def _run_onnx(path, model, x):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (node,) = session.get_inputs()
    if node.shape[-1] == x.shape[1]:     # Keras: (N, H, W, C)
        x = x.transpose(0, 2, 3, 1)
    return session.run(None, {node.name: x})[0]


def _run_torchvision(path, model, x):
    import torch
    import torchvision

    build = getattr(torchvision.models, type(model).__name__.lower())
    state = torch.load(path, weights_only=True)
    net = build(num_classes=len(list(state.values())[-1])).eval()   # the last is the head's bias
    net.load_state_dict(state)
    with torch.no_grad():
        return net(torch.from_numpy(x)).numpy()


# file format: the package that can run it, and how
JUDGES = {"onnx": ("onnxruntime", _run_onnx), "torch": ("torchvision", _run_torchvision)}
