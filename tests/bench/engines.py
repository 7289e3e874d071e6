"""The contestants: each is a function from a case to what it does again and again."""

import importlib.util
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

import convnets
from convnets.fused import Fused
from convnets.recorded import RecordedStep
from rechainer import onednn

import chainer
import chainer.functions as F
import numpy as np

from .cases import batch_of, model_of


class Engine(NamedTuple):
    """A contestant.

    `make` returns, for a case, a function that does the work once and returns the logits (in
    inference) or the loss (in training).
    """

    title: str
    make: object
    works: tuple
    modules: tuple = ()
    needs_onednn: bool = False

    def is_there(self):
        """Tell whether what it needs is installed."""
        return (all(importlib.util.find_spec(m) for m in self.modules)
                and (onednn.is_usable() or not self.needs_onednn))


def _chainer(use_ideep, prepare=None):
    def make(case):
        # Not chainer.using_config: a worker has one contestant.
        chainer.global_config.use_ideep = use_ideep
        model = model_of(case.network)
        x, t = batch_of(model, case.batch)
        if case.work == "training":
            optimizer = _optimizer(case, model)
            return lambda: _step(model, optimizer, x, t)
        chainer.global_config.train = chainer.global_config.enable_backprop = False
        if prepare:
            model = prepare(model)
        return lambda: model.logits(x).array
    return make


def _optimizer(case, model):
    return (chainer.optimizers.Adam() if case.network == "lenet5"
            else chainer.optimizers.MomentumSGD(0.01)).setup(model)


def _step(model, optimizer, x, t):
    loss = F.softmax_cross_entropy(model.logits(x), t)
    model.cleargrads()
    loss.backward()
    optimizer.update()
    return loss.array


def _recorded(case):
    chainer.global_config.use_ideep = "auto"
    model = model_of(case.network)
    batch = batch_of(model, case.batch)
    step = RecordedStep(Fused(_optimizer(case, model)), model.device)

    def loss(x, t):
        y = F.softmax_cross_entropy(model.logits(x), t)
        chainer.report({"loss": y})
        return y

    def work():
        step.update(loss, *batch)
        return observed["loss"]

    reporter, observed = chainer.Reporter(), {}
    reporter.observation = observed
    reporter.__enter__()
    return work


def _torch(channels_last, is_folded=False):
    def make(case):
        import torch

        from . import torch_nets

        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        torch.manual_seed(0)    # what dropout drops decides how far losses are apart
        order = torch.channels_last if channels_last else torch.contiguous_format
        model = model_of(case.network)
        x, t = batch_of(model, case.batch)
        net = torch_nets.network(case.network, model)
        if is_folded:
            net = torch_nets.folded(net.eval())
        net, x = net.to(memory_format=order), torch.from_numpy(x).to(memory_format=order)
        del model
        if case.work == "inference":
            net.eval()
            return lambda: _torch_infer(torch, net, x)
        t = torch.from_numpy(t).long()
        optimizer = (torch.optim.Adam(net.parameters()) if case.network == "lenet5"
                     else torch.optim.SGD(net.parameters(), 0.01, momentum=0.9))
        return lambda: _torch_step(torch, net, optimizer, x, t)
    return make


def _torch_infer(torch, net, x):
    with torch.inference_mode():
        return net(x).numpy()


def _torch_step(torch, net, optimizer, x, t):
    optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(net(x), t)
    loss.backward()
    optimizer.step()
    return loss.detach().numpy()


def _onnxruntime(case):
    import onnxruntime

    from . import onnx_file

    model = model_of(case.network)
    x, _ = batch_of(model, case.batch)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ["OMP_NUM_THREADS"])
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx_file.write(model, x, path)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (name,) = (i.name for i in session.get_inputs())
    return lambda: session.run(None, {name: x})[0]


BOTH, INFERENCE, TRAINING = ("inference", "training"), ("inference",), ("training",)

ENGINES = {
    "stock": Engine("stock Chainer", _chainer("never"), BOTH),
    "ours": Engine("ours, use_ideep", _chainer("auto"), BOTH, (), True),
    "optimized": Engine("ours, optimized", _chainer("auto", convnets.optimize), INFERENCE, (),
                        True),
    "recorded": Engine("ours, recorded", _recorded, TRAINING, (), True),
    "torch": Engine("PyTorch", _torch(False), BOTH, ("torch",)),
    "channels_last": Engine("PyTorch channels_last", _torch(True), BOTH, ("torch",)),
    "folded": Engine("PyTorch, folded BN", _torch(True, True), INFERENCE, ("torch",)),
    "onnxruntime": Engine("onnxruntime", _onnxruntime, INFERENCE, ("onnxruntime", "onnx")),
}

#: What others are compared with.
REFERENCE = "channels_last"

#: A convolution for the processor's peak: input, weights, padding. It is limited by arithmetic
#: alone, and direct: what is computed in tiles needs fewer operations than are counted.
PEAK = (8, 256, 14, 14), (256, 256, 5, 5), (2, 2)


def _peak(case):
    from rechainer.onednn import Program, Weights

    x_shape, w_shape, pad = PEAK
    program = Program(x_shape)
    weights = Weights(np.full(w_shape, 0.01, np.float32))
    program.finish(program.convolution(program.input, weights, x_shape, (1, 1), pad, (1, 1)))
    x = np.ones(x_shape, np.float32)
    return lambda: program.run(x)[0][:1, :1, 0, 0]


#: No contestant: what the processor can do, measured in the same run.
PEAK_ENGINE = Engine("oneDNN's convolution", _peak, BOTH, (), True)

PEAK_OPERATIONS = int(2 * np.prod(PEAK[0]) * np.prod(PEAK[1][1:]))
