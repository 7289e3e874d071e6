"""Answers that are classes of links: how their models are built, and what these compute.

Apart from the rest of `convnets.check`, since it needs Chainer.
"""

import contextlib
import functools
from dataclasses import dataclass, field
from itertools import product

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np

from .calls import Case, call, describe, raised
from .compare import (
    first_difference,
    name_shape,
    pattern,
    same,
    shape_sentence,
    show,
    value_sentence,
)
from .lab import Lab
from .report import Finding


@dataclass(frozen=True)
class Network:
    """An exercise whose answer is a class of links, compared with a right one.

    Parameters
    ----------
    name : str
        Name of the reader's class.
    right : type
        The right class, derived from `chainer.Chain` or `chainer.ChainList`.
    cases : tuple of (arguments, shape)
        What the class is called with, and the shape (N, C, H, W) of the images for the model.
    modes : tuple of bool
        Values of ``chainer.config.train`` in which the models are compared.
    advice : str
        What to say of parts that no stored mistake explains.
    steps : str
        What to say of results that no stored mistake explains.
    lab : Lab
        The lab that stores the mistakes.
    """

    name: str
    right: type
    cases: tuple
    modes: tuple = (False,)
    advice: str = ""
    steps: str = ""
    lab: Lab = field(default=None, compare=False, kw_only=True)

    def described(self, arguments):
        """The call as the reader would write it, a str."""
        return f"{self.name}({', '.join(map(repr, arguments))})"

    def is_class(self, answer, exercise):
        """Raise a Finding unless the answer is a class of the right kind."""
        base = self.right.__mro__[1]
        if not isinstance(answer, type):
            raise Finding("The check needs the class itself.", got=describe(answer),
                          cause=f"`check.{exercise}({self.name})`, without brackets behind "
                                f"{self.name}.")
        if not issubclass(answer, base):
            raise Finding(f"The class is not derived from `chainer.{base.__name__}`.",
                          expected=f"class {self.name}(chainer.{base.__name__})",
                          got=f"class {answer.__name__}({answer.__mro__[1].__name__})")

    def is_made(self, answer, exercise):
        """Raise a Finding unless every model is made of the same parts as the right one."""
        found = self.differences(answer)
        for index, (arguments, shape) in enumerate(self.cases):
            if not found[index]:
                continue
            cause = self.known_parts(exercise, found, index)
            model = built(answer, arguments, shape)
            if isinstance(model, Exception):
                finding = raised(model, self.described(arguments))
                finding.rows["likely cause"] = cause or finding.rows.get("likely cause", "")
                raise finding from None
            raise Finding("The model is not made of the parts that the exercise asks for.",
                          call=self.described(arguments), cause=cause or self.advice,
                          expected=listed(f[2:] for f in found[index] if f[0] == "-"),
                          got=listed(f[2:] for f in found[index] if f[0] == "+"))

    def computes(self, answer, exercise):
        """Raise a Finding unless every model gives what the right one gives."""
        outputs = self.outputs(answer)
        for index, ((arguments, shape), mode) in enumerate(product(self.cases, self.modes)):
            got, right = outputs[index], self.outputs(self.right)[index]
            if equal(got, right):
                continue
            cause = self.known_outputs(exercise, outputs, index)
            described = (f"{self.described(arguments)}(x) in {'train' if mode else 'test'} mode, "
                         f"x {name_shape(shape, 'N C H W')}")
            if isinstance(got, str):
                raise self.trouble(answer, arguments, shape, mode, described, cause)
            raise wrong_maps(got, right, described, cause, self.steps)

    def learns(self, answer):
        """Raise a Finding unless the gradient of the result reaches every parameter."""
        model = ready(answer, *self.cases[0])
        model.cleargrads()
        F.sum(model(images(self.cases[0][1])) ** 2).backward()
        idle = sorted(path for path, param in model.namedparams() if param.grad is None)
        if idle:
            raise Finding("The gradient does not reach every parameter.",
                          got=f"none in {', '.join(idle)}",
                          cause="`.array` takes the numbers out of the graph. Hand the Variable "
                                "on to the next function as it is.")

    def trouble(self, answer, arguments, shape, mode, described, cause):
        """The Finding for a model that gives no array."""
        try:
            with chainer.using_config("train", mode):
                y = call(ready(answer, arguments, shape), Case({"x": images(shape)}), described)
        except Finding as finding:
            finding.rows["likely cause"] = cause or finding.rows.get("likely cause", "")
            return finding
        return Finding(f"The result is {describe(y)}, expected a Chainer Variable.",
                       call=described, cause=cause or "Return what the last function gives. An "
                       "array has forgotten how it was made, so nothing can be learned from it.")

    def differences(self, answer):
        """For each case, the facts that the answer's model has more (+) or less (-)."""
        return tuple(frozenset(differing(built(answer, *case), built(self.right, *case)))
                     for case in self.cases)

    def outputs(self, answer):
        """For each case and mode an array, or a text where there is none."""
        return tuple(output(answer, *case, mode) for case, mode in product(self.cases, self.modes))

    def known_parts(self, exercise, found, index):
        """Cause of the stored mistake that explains most of what differs in one case, or ''."""
        causes = {m.cause: stored_differences(self, m.answer) for m in self.lab.mistakes[exercise]}
        sizes = {cause: (len(facts[index]), sum(map(len, facts))) for cause, facts in causes.items()
                 if all(a <= b for a, b in zip(facts, found, strict=True))}
        cause = max(sizes, key=sizes.get, default="")
        return cause if cause and 2 * sizes[cause][0] >= len(found[index]) else ""

    def known_outputs(self, exercise, outputs, index):
        """Cause of the stored mistake with the same output in one case, and in most others."""
        fits = {m.cause: [*map(equal, stored_outputs(self, m.answer), outputs)]
                for m in self.lab.mistakes[exercise] if not any(stored_differences(self, m.answer))}
        suspects = {cause: sum(fit) for cause, fit in fits.items() if fit[index]}
        return max(suspects, key=suspects.get, default="")


@functools.cache   # stored wrong answers do not change
def stored_differences(network, answer):
    return network.differences(answer)


@functools.cache
def stored_outputs(network, answer):
    return network.outputs(answer)


def built(answer, arguments, shape):
    """A model after a first call, which fixes what was left to it; or the exception."""
    np.random.seed(0)
    try:
        model = answer(*arguments)
    except Exception as error:
        return error
    with chainer.using_config("train", False), contextlib.suppress(Exception):
        model(np.zeros(shape, np.float32))
    return model


def ready(answer, arguments, shape):
    """A model with fixed numbers in it; raises what building it raises."""
    model = built(answer, arguments, shape)
    if isinstance(model, Exception):
        raise model
    return filled(model)


def differing(model, right):
    if isinstance(model, Exception):
        return {f"+ raises {type(model).__name__}: {model}"}
    got, wanted = parts(model), parts(right)
    return {f"+ {fact}" for fact in got - wanted} | {f"- {fact}" for fact in wanted - got}


def parts(model):
    """What a model is made of: facts about each link, and about links it does not know of."""
    found = set()
    for path, link in model.namedlinks(skipself=True):
        if not any(True for _ in link.children()):
            found |= {f"{path}: {fact}" for fact in about(link)}
    known = {id(link) for link in model.links()}
    for name, value in vars(model).items():
        kept = value if isinstance(value, (list, tuple)) else [value]
        if not name.startswith("_") and any(
                isinstance(v, chainer.Link) and id(v) not in known for v in kept):
            found.add(f"self.{name} is not registered")
    return found


def listed(facts, most=6):
    facts = sorted(facts)
    more = [f"and {len(facts) - most} more"] if len(facts) > most else []
    return "\n".join(facts[:most] + more) if facts else "nothing more"


def images(shape):
    return np.random.RandomState(0).normal(0, 1, shape).astype(np.float32)


def output(answer, arguments, shape, mode):
    """What a filled model gives: an array, or a text on what came instead."""
    try:
        with chainer.using_config("train", mode), np.errstate(all="ignore"):
            model = ready(answer, arguments, shape)
            np.random.seed(2)   # dropout
            y = model(images(shape))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return y.array if isinstance(y, chainer.Variable) else describe(y)


def equal(a, b):
    """Whether two outputs are the same text, or the same array."""
    if isinstance(a, str) or isinstance(b, str):
        return isinstance(a, type(b)) and a == b
    return same(a, b)


def wrong_maps(got, right, described, cause, steps):
    """The Finding for an array that is not the right one."""
    axes = "N C H W" if right.ndim == 4 else "N K"
    if got.shape != right.shape:
        return Finding(shape_sentence(got.shape, right.shape, axes), call=described,
                       expected=name_shape(right.shape, axes), got=name_shape(got.shape, axes),
                       cause=cause or steps)
    index = first_difference(got, right)
    return Finding(value_sentence(got, right, axes), call=described, expected=show(right[index]),
                   got=show(got[index]), cause=cause or pattern(got, right, axes) or steps)


def about(link):
    """Facts about one link: its kind, the shapes of its parameters, stride, padding, spread."""
    yield type(link).__name__
    yield from (f"{name} {getattr(link, name)}" for name in ("stride", "pad", "eps")
                if hasattr(link, name))
    for name, param in link.namedparams():
        yield f"{name[1:]} {param.shape}"
        if param.is_initialized and param.ndim > 1 and param.size > 2000:
            yield spread(param.array)
    if getattr(link, "b", 0) is None:
        yield "no bias"


def spread(w):
    """Which of the usual variances the initial weights (outputs, inputs, ...) have."""
    share = w.var() * w[0].size
    known = {"2 / inputs": 2, "1 / inputs": 1, "2 / outputs": 2 * w.shape[1] / len(w)}
    return "W drawn with variance " + next(
        (name for name, value in known.items() if abs(share / value - 1) < 0.2),
        f"{share:.2g} / inputs")


def filled(model):
    """The model with fixed numbers everywhere: the signal neither grows nor dies on its way."""
    numbers = np.random.RandomState(1)
    for path, param in sorted(model.namedparams()):
        if param.is_initialized:
            scale = np.sqrt(2 * len(param) / param.size) if param.ndim > 1 else 0.3
            param.array[...] = numbers.normal(path.endswith("gamma"), scale, param.shape)
    for _, link in sorted(model.namedlinks()):
        if isinstance(link, L.BatchNormalization):
            link.avg_mean[...] = numbers.normal(0, 0.3, link.avg_mean.shape)
            link.avg_var[...] = numbers.uniform(0.5, 2, link.avg_var.shape)
    return model
