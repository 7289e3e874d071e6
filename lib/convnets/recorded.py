"""A training step on the processor, recorded once and replayed: less Python between operations.

A small network's step is a hundred short operations, and Chainer needs longer for what is between
them - variables, the graph, checks of types, the way back through the graph - than the processor
for the arithmetic. So a step is taken once for each shape of minibatch, the functions that Chainer
calls in it, forward and backward, are written down, and from then on oneDNN's primitives do what
these functions did, in memory laid out beforehand. It is to the processor what a CUDA graph
(`convnets.cuda_graphs`) is to a GPU:

- parameters, their gradients and the optimizer's state are views of flat buffers, updated at once
  (`convnets.fused`);
- a function without a primitive is called as it is: dropout draws its numbers from NumPy, batch
  normalization updates its statistics;
- Python of the model's own runs while the step is recorded and never again. What a recording
  computes is compared with an ordinary step on other images before it is used;
- each new shape of minibatch, such as the last one's of a pass, costs three ordinary steps;
- evaluation stays outside. Where ``chainer.config.use_ideep`` does not ask for oneDNN, or there is
  none, and under ``chainer.config.debug``, each step is an ordinary one.
"""

from contextlib import contextmanager, nullcontext

from rechainer import onednn

import chainer
import numpy as np

from .optimize import N_PLANS
from .recorded_calls import StepTape, Translation, refused

#: How far the results of a recording may be from an ordinary step's, relative to the gradient's
#: norm. float32 accounts for 1e-6 (LeNet5) to 1e-2 (ResNet20); what stands still, for far more.
TOLERANCE = 0.1


class RecordedStep:
    """A stand-in for `convnets.fused.Fused.update` that records it and replays the recording.

    Parameters
    ----------
    fused : convnets.fused.Fused
    device : chainer.backend.Device

    Raises
    ------
    ValueError
        If the device is not the processor.
    """

    def __init__(self, fused, device):
        if device.xp is not np:
            raise ValueError(f"RecordedStep is for the processor, got {device.name}: a GPU has "
                             f"convnets.cuda_graphs.GraphStep")
        self.fused = fused

    def update(self, lossfun, *arrays):
        """Take one step; what it reports is reported.

        Raises
        ------
        GraphError
            If the step cannot be recorded. Nothing has changed then.
        """
        recording = self._recording(lossfun, arrays)
        if recording is None:
            self.fused.update(lossfun, *arrays)
            return
        reported = recording(arrays)
        self.fused.advance()
        self.fused.apply()
        chainer.report(reported)

    def _recording(self, lossfun, arrays):
        """Return what does for a minibatch; None if an ordinary step does."""
        config = chainer.config
        if (config.debug or chainer.get_function_hooks() or not arrays
                or not all(isinstance(array, np.ndarray) for array in arrays)
                or not onednn.wanted(*arrays[:1], supported_ndim=range(1, 9))):
            return None
        found = onednn.kept_for(self)    # a program belongs to its thread
        key = lossfun, config.train, *((a.shape, a.dtype) for a in arrays)
        recording = found.get(key)
        if recording is not None and recording.is_current():
            return recording
        if any(p.array is None for p in self.fused.optimizer.target.params()):
            return None
        while len(found) >= N_PLANS:
            del found[next(iter(found))]
        found[key] = recording = Recording(self.fused, lossfun, arrays)
        return recording


class Recording:
    """A step of a loss for minibatches of one shape; a call takes it, all but the update.

    Parameters
    ----------
    fused : convnets.fused.Fused
    lossfun : callable
    arrays : sequence of array
        A minibatch.

    Raises
    ------
    GraphError
        If the step cannot be recorded.
    """

    def __init__(self, fused, lossfun, arrays):
        self.fused, self.flat, target = fused, fused.place(), fused.optimizer.target
        self._params = [(param, param.array) for param in target.params()]
        self._kept = [(link, name, value) for link, name, value in kept_by(target)
                      if isinstance(value, np.ndarray)]
        expected, reported = self._ordinary(lossfun, arrays)
        self.names, self._program = self._translated(lossfun, arrays)
        onednn.free_memory()         # what ordinary steps have used is not used again
        expected = {name: np.array(value) for name, value in expected.items()}
        with unchanged(target):
            got = {**self(arrays), **self._gradients(), **state(target)}
        target.cleargrads()
        onednn.free_memory()
        wrong = differing(got, expected, reported, len(arrays[0]))
        if wrong:
            raise refused(f"what was recorded with other images gives another "
                          f"{', '.join(wrong)}")

    def __call__(self, arrays):
        """Write the gradients of a minibatch to the flat buffer; return what is reported."""
        results = self._program.run(*arrays)
        for param, grad in zip(self.flat.params, self.flat.grads, strict=True):
            if param.grad is not grad:
                param.grad = grad
        return dict(zip(self.names, results, strict=True))

    def is_current(self):
        """Tell whether all arrays are where they were recorded."""
        return (self.fused.place() is self.flat
                and all(p.raw_array is array for p, array in self._params)
                and all(getattr(link, name) is value for link, name, value in self._kept))

    def _ordinary(self, lossfun, arrays):
        """Return what an ordinary step makes, by name, and the names of what it reports."""
        target = self.fused.optimizer.target
        with unchanged(target):
            loss, reported = ordinary(self.fused, lossfun, arrays)
            found = {**reported, **self._waiting_gradients(), **state(target)}
        loss.unchain_backward()      # the model may keep it, and with it the whole graph
        target.cleargrads()
        return found, reported.keys()

    def _gradients(self):
        """Return the gradients that are wanted, by name."""
        wanted = {id(param) for param in self.flat.params}
        return {f"gradient of {name}": p.grad
                for name, p in self.fused.optimizer.target.namedparams()
                if id(p) in wanted and p.grad is not None}

    def _waiting_gradients(self):
        """Return the gradients by name, in the flat buffer: there they need no memory."""
        found = self._gradients()
        places = {id(p.grad): place for p, place in zip(self.flat.params, self.flat.grads,
                                                        strict=True) if p.grad is not None}
        for name, grad in found.items():
            place = places[id(grad)]
            place[...] = grad
            found[name] = place
        return found

    def _translated(self, lossfun, arrays):
        """Return the names of what is reported, and the program that does the step."""
        others, target = tuple(map(another, arrays)), self.fused.optimizer.target
        with unchanged(target), StepTape(others) as tape:
            np.random.rand()         # so that noise of the model's own is other noise, too
            loss, reported = ordinary(self.fused, lossfun, others)
        wanted = reported | self._gradients()
        numbers = {name: tape.number(array) for name, array in wanted.items()}
        for name, number in numbers.items():
            if number is None:
                raise refused(f"{name} is not what a function of Chainer returned")
        gradients = [(None if p.grad is None else tape.number(p.grad), place)
                     for p, place in zip(self.flat.params, self.flat.grads, strict=True)]
        loss.unchain_backward()
        target.cleargrads()
        onednn.free_memory()         # for the program
        own = [*(array for _, array in self._params), *(value for *_, value in self._kept)]
        return list(reported), Translation(
            arrays, tape.ops, gradients, [numbers[name] for name in reported], own).program


def another(array):
    """Return other numbers of the same kind: what depends on them only seems to be constant."""
    if array.dtype.kind == "f":
        return np.ascontiguousarray(array[..., ::-1]) * array.dtype.type(0.75)
    return np.roll(array, 1, axis=0)


def ordinary(fused, lossfun, arrays):
    """Take a step without update; return the loss and the arrays that it reports."""
    reported = {}
    with observed(reported):
        loss = fused.backward(lossfun, *arrays)
    return loss, {name: chainer.as_array(value) for name, value in reported.items()}


def observed(reported):
    """Return the context in which reports go to a dictionary; without a reporter there are none."""
    try:
        return chainer.get_current_reporter().scope(reported)
    except IndexError:
        return nullcontext()


def kept_by(target):
    """Return (link, name, value) of what a model keeps besides parameters."""
    return [(link, name, getattr(link, name)) for link in target.links()
            for name in link._persistent]


def state(target):
    """Return copies of what a step changes besides gradients, by name."""
    return {"state of np.random": np.array(np.random.get_state()[2])} | {
        f"{path}/{name}": np.array(getattr(link, name))
        for path, link in target.namedlinks() for name in link._persistent}


@contextmanager
def unchanged(target):
    """Undo what happens inside to NumPy's random numbers and what a model keeps."""
    random, before = np.random.get_state(), [
        (link, name, value, np.array(value)) for link, name, value in kept_by(target)]
    try:
        yield
    finally:
        np.random.set_state(random)
        for link, name, value, copied in before:
            if isinstance(value, np.ndarray):
                value[...] = copied
            setattr(link, name, value)


def differing(got, expected, reported, n):
    """Return the names of what is different, beyond what float32 accounts for.

    Parameters
    ----------
    got, expected : dict of array
    reported : collection of str
        Names of numbers that may be counts of examples.
    n : int
        Examples.
    """
    norms = {name: np.linalg.norm(value) for name, value in expected.items()}
    least = 1e-3 * max((norms[name] for name in norms if name.startswith("gradient")), default=0)

    def is_close(name, value):
        if name not in got or value.dtype.kind in "iub":
            return name in got and np.array_equal(got[name], value)
        allowed = TOLERANCE * max(norms[name], least) + (1.5 / n if name in reported else 0)
        return distance(got[name], value) <= allowed

    return [name for name, value in expected.items() if not is_close(name, value)]


def distance(a, b, size=1 << 20):
    """Return the norm of a - b, by `size` elements: one of VGG's gradients alone takes 0.4 GB."""
    pairs = zip(*(np.split(x.ravel(), range(size, x.size, size)) for x in (a, b)), strict=True)
    return np.linalg.norm([np.linalg.norm(x - y) for x, y in pairs])
