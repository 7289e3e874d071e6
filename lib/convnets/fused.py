"""An optimizer's step over all parameters at once, instead of one after the other.

The parameters, the state of the optimizer and the gradients lie in a row in flat buffers; the
parameters of the model are views of theirs. So a step is one kernel on a GPU, where Chainer starts
at least one for each parameter. What changes from step to step, such as the learning rate, is read
from a small buffer on the device: a recorded step (`convnets.cuda_graphs`) finds the new values.

The rules are Chainer's, as are the optimizer's snapshots: its state is where it always was.
"""

import itertools
import math
from typing import NamedTuple

import chainer
import numpy as np
from chainer.backends import cuda
from chainer.optimizer_hooks import WeightDecay
from chainer.optimizers.adam import AdamRule
from chainer.optimizers.momentum_sgd import MomentumSGDRule
from chainer.optimizers.sgd import SGDRule
from chainer.variable import _AllowArrayAccessWithNonstandardLayout as any_layout

#: numbers[0] and numbers[1] of every rule: 1 / loss scale, and the rate of `WeightDecay`.
COMMON = 2
#: Elements that a processor updates at a time: they and what comes between stay in its cache.
PIECE = 2**15
#: Parameters begin at multiples of so many elements: of 16 bytes, as cuDNN wants filters, in
#: float16 too. What lies between is zero and stays so.
ALIGNED = 8
#: The gradient as the rules take it, in C.
GRADIENT = "T g = grad * numbers[0] + numbers[1] * param;\n"


class Rule(NamedTuple):
    """An update rule of Chainer, over flat buffers.

    Parameters
    ----------
    states : tuple of str
        Names of its states.
    numbers : callable
        Takes Chainer's rule, returns its part of ``numbers``, from ``numbers[2]`` on.
    on_cpu : callable
        Updates ``(param, grad, numbers, *states)`` in place; the order of its operations is
        Chainer's, so its result is too, bit for bit.
    operation : str
        The same in C, with ``g`` for the gradient.
    """

    states: tuple
    numbers: callable
    on_cpu: callable
    operation: str


def _sgd(param, grad, numbers):
    param -= numbers[2] * grad


def _momentum(param, grad, numbers, v):
    v *= numbers[3]
    v -= numbers[2] * grad
    param += v


def _adam(param, grad, numbers, m, v):
    alpha_t, rest1, rest2, eps, eta, kept = numbers[COMMON:]
    m += rest1 * (grad - m)
    v += rest2 * (grad * grad - v)
    step = alpha_t / (np.sqrt(v) + eps)
    if kept != 1:
        param *= kept
    param += -eta * (step * m)


def _adam_numbers(rule):
    hp = rule.hyperparam
    return (rule.alpha_t, 1 - hp.beta1, 1 - hp.beta2, hp.eps, hp.eta,
            1.0 - hp.eta * hp.weight_decay_rate)


RULES = {
    SGDRule: Rule((), lambda rule: (rule.hyperparam.lr,), _sgd, "param -= numbers[2] * g;"),
    MomentumSGDRule: Rule(
        ("v",), lambda rule: (rule.hyperparam.lr, rule.hyperparam.momentum), _momentum,
        "v = numbers[3] * v - numbers[2] * g; param += v;"),
    AdamRule: Rule(
        ("m", "v"), _adam_numbers, _adam,
        "m += numbers[3] * (g - m); v += numbers[4] * (g * g - v);\n"
        "param = numbers[7] * param - numbers[6] * (numbers[2] / (sqrt(v) + numbers[5]) * m);"),
}


class Flat(NamedTuple):
    """The buffers, and the parameters' views of them.

    Parameters
    ----------
    params : list of chainer.Parameter
        Those that are updated.
    grads : list of array
        Of each a view of its gradient.
    param, grad, numbers : array
        The buffers.
    states : tuple of array
    half : array
        The float16 parameters, which come first; empty if there are none.
    held : list of (chainer.Parameter, array)
        What each parameter and each original holds, as long as nobody replaces it.
    enabled : list of (chainer.UpdateRule, bool)
        Whether each rule of the model's updated its parameter.
    """

    params: list
    grads: list
    param: np.ndarray
    grad: np.ndarray
    numbers: np.ndarray
    states: tuple
    half: np.ndarray
    held: list
    enabled: list


class Fused:
    """A stand-in for the ``update`` of an optimizer.

    Parameters
    ----------
    optimizer : chainer.GradientMethod
        SGD, MomentumSGD or Adam, set up; `WeightDecay` is its only hook, if it has one.

    Raises
    ------
    ValueError
        If the optimizer is another, or has other hooks or options.
    """

    def __init__(self, optimizer):
        self.optimizer = optimizer
        self.rule = _rule_of(optimizer)
        self.decay = _decay_of(optimizer)
        self.flat, self.told = None, {}   # told: the numbers on the device

    def update(self, lossfun, *args):
        """Take one step: loss, gradients, and new parameters."""
        self.backward(lossfun, *args)
        self.advance()
        self._apply()

    def recordable(self, lossfun, *args):
        """Do the part of a step that a device does; `advance` must come before it."""
        self.backward(lossfun, *args)
        self._apply()

    def place(self):
        """Lay parameters and states out in flat buffers, unless they are; return these."""
        if self.flat is None or not self._is_in_place():
            self.flat, self.told = _flatten(self.optimizer.target, self.rule), {}
        return self.flat

    def advance(self):
        """Count a step, and tell the device its numbers."""
        optimizer = self.optimizer
        self.place()
        optimizer.t += 1
        rules = [param.update_rule for param in self.flat.params]
        for rule in rules:
            rule.t += 1
        if self.rule.on_cpu is _adam and len({rule.t for rule in rules}) > 1:
            raise ValueError("Adam's step size depends on the number of steps, and the fused "
                             "optimizer has one for all parameters; some of these were enabled "
                             "later than others: use Chainer's own (fused=False)")
        scale = _static_scale(optimizer)
        self._tell((1 / scale, self.decay, *self.rule.numbers(rules[0])))

    def _tell(self, numbers):
        """Write the numbers that changed to the device, each by a kernel: no copy is waited for."""
        for i, number in enumerate(numbers):
            if number != self.told.get(i):
                self.flat.numbers[i] = self.told[i] = number

    def backward(self, lossfun, *args):
        """Compute the loss and give each parameter its gradient; return the loss."""
        loss = lossfun(*args)
        self.optimizer.target.cleargrads()
        loss.backward(loss_scale=self.optimizer._loss_scale)
        return loss

    def _apply(self):
        flat = self.flat
        with any_layout():
            for param, grad in zip(flat.params, flat.grads, strict=True):
                grad[...] = 0 if param.grad is None else param.grad
        self.apply()

    def apply(self):
        """Update the parameters by the gradients in the flat buffer."""
        flat = self.flat
        _step(self.rule, flat)
        if flat.half.size:
            flat.half[...] = flat.param[:flat.half.size]

    def _is_in_place(self):
        """Tell whether all is as it was flattened, without ``to_device``, ``disable_update``."""
        return (all(param.raw_array is array for param, array in self.flat.held)
                and all(rule.enabled == was for rule, was in self.flat.enabled))


def _rule_of(optimizer):
    created = optimizer.create_update_rule()
    rule = RULES.get(type(created))
    if rule is None:
        known = ", ".join(sorted(kind.__name__.removesuffix("Rule") for kind in RULES))
        raise ValueError(f"the fused optimizer knows {known}, got {type(optimizer).__name__}")
    hp = created.hyperparam
    if rule.on_cpu is _adam and (hp.amsgrad or hp.adabound):
        raise ValueError("the fused optimizer has no amsgrad and no adabound; use Chainer's own "
                         "(fused=False)")
    return rule


def _decay_of(optimizer):
    """Return the rate of the optimizer's `WeightDecay`, 0 without one."""
    hookable = optimizer._hookable
    hooks = [*hookable._pre_update_hooks.values(), *hookable._post_update_hooks.values()]
    others = [hook for hook in hooks if not isinstance(hook, WeightDecay)]
    if others:
        raise ValueError(f"the fused optimizer knows the hook WeightDecay, got "
                         f"{', '.join(type(hook).__name__ for hook in others)}")
    return sum(hook.rate for hook in hooks)


def _static_scale(optimizer):
    if optimizer._loss_scaling_is_dynamic:
        raise ValueError("the fused optimizer needs a constant loss scale "
                         "(optimizer.loss_scaling(scale=1024)): a dynamic one waits for the GPU "
                         "at each parameter")
    return optimizer._loss_scale or 1


def _flatten(target, rule):
    known = [param for _, param in sorted(target.namedparams()) if param.update_rule is not None]
    # Those in float16 first, so that one part of the buffer is theirs.
    params = sorted((param for param in known if param.update_rule.enabled),
                    key=lambda param: param.dtype != np.float16)
    _check(params)
    with any_layout(), chainer.using_device(params[0].device):
        masters = [_master(param) for param in params]
        _check_types(masters)
        for param, master in zip(params, masters, strict=True):
            param.update_rule._init_states(master)
        values, views = _joined([master.array for master in masters])
        for master, view in zip(masters, views, strict=True):
            master.array = view
        xp = masters[0].device.xp
        gradient = xp.zeros_like(values)
        states = tuple(_joined_state(params, name) for name in rule.states)
        half = _half(params, masters, xp)
        return Flat(
            params, _views(gradient, [view.shape for view in views]), values, gradient,
            xp.zeros(COMMON + 6, values.dtype), states, half,
            [(param, param.array) for param in (*params, *masters)],
            [(param.update_rule, param.update_rule.enabled) for param in known])


def _check(params):
    if not params:
        raise ValueError("the fused optimizer has no parameter to update: all are disabled")
    for param in params:
        rule = param.update_rule
        own = sorted(set(vars(rule.hyperparam)) - {"_parent"})
        if own:
            raise ValueError(f"the fused optimizer has one {own[0]} for all parameters, but "
                             f"{param.name} of shape {param.shape} has its own")
        if rule._hookable._pre_update_hooks or rule._hookable._post_update_hooks:
            raise ValueError(f"the fused optimizer knows no hooks of single parameters, but "
                             f"{param.name} of shape {param.shape} has one")


def _check_types(masters):
    kinds = sorted({master.dtype.name for master in masters})
    if len(kinds) > 1:
        raise ValueError(f"the fused optimizer takes parameters of one type, got "
                         f"{' and '.join(kinds)}")


def _master(param):
    """Return what is updated of a parameter: itself, or the float32 original of a float16 one."""
    rule = param.update_rule
    if param.dtype != np.float16:
        return param
    if not rule._use_fp32_update:
        raise ValueError("the fused optimizer updates float16 parameters by float32 originals: "
                         "call optimizer.use_fp32_update()")
    if rule._fp32_param is None:
        rule._fp32_param = chainer.Parameter(param.array.astype(np.float32))
    return rule._fp32_param


def _joined(arrays):
    """Return arrays as one flat array, and views of it that are equal to them."""
    xp = cuda.get_array_module(*arrays)
    flat = xp.zeros(sum(_room(array.shape) for array in arrays), arrays[0].dtype)
    views = _views(flat, [array.shape for array in arrays])
    for view, array in zip(views, arrays, strict=True):
        view[...] = array
    return flat, views


def _room(shape):
    """Return the elements that an array takes with what lies behind it."""
    return -(-math.prod(shape) // ALIGNED) * ALIGNED


def _views(flat, shapes):
    begins = itertools.accumulate((_room(shape) for shape in shapes[:-1]), initial=0)
    return [flat[begin:begin + math.prod(shape)].reshape(shape)
            for begin, shape in zip(begins, shapes, strict=True)]


def _joined_state(params, name):
    states = [param.update_rule.state for param in params]
    flat, views = _joined([state[name] for state in states])
    for state, view in zip(states, views, strict=True):
        state[name] = view
    return flat


def _half(params, masters, xp):
    """Return the float16 parameters as one array, and make them views of it."""
    halves = [param for param, master in zip(params, masters, strict=True) if param is not master]
    if not halves:
        return xp.empty(0, np.float16)
    flat, views = _joined([param.array for param in halves])
    for param, view in zip(halves, views, strict=True):
        param.array = view
    return flat


def _step(rule, flat):
    if isinstance(flat.param, np.ndarray) and not _is_on_gpu(flat.param):
        _on_cpu(rule, flat)
    else:
        kernel(rule)(flat.grad, flat.numbers, flat.param, *flat.states)


def _is_on_gpu(array):
    return cuda.available and isinstance(array, cuda.ndarray)


def _on_cpu(rule, flat):
    for begin in range(0, flat.param.size, PIECE):
        piece = slice(begin, begin + PIECE)
        _piece_on_cpu(rule, flat.numbers, flat.param[piece], flat.grad[piece],
                      *(state[piece] for state in flat.states))


def _piece_on_cpu(rule, numbers, param, grad, *states):
    scale, decay = numbers[:COMMON]
    if scale != 1:
        grad *= scale
    if decay:
        grad += decay * param
    rule.on_cpu(param, grad, numbers, *states)


def kernel(rule):
    """Return the kernel of a rule: it takes grad, numbers, param and the states."""
    outputs = ", ".join(f"T {name}" for name in ("param", *rule.states))
    return cuda.elementwise("T grad, raw T numbers", outputs, GRADIENT + rule.operation,
                            f"fused{rule.on_cpu.__name__}")
