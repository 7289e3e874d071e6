"""Calling the reader's code, and saying in the reader's terms what came of it."""

from __future__ import annotations

import dis
import inspect
import linecache
import sysconfig
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .compare import SMALL, name_shape, show
from .report import Finding, NotAttempted

# All that a function without statements compiles to, besides RESUME: it returns None.
IDLE = {"NOP", "LOAD_CONST", "RETURN_CONST", "RETURN_VALUE"}

# Frames of these folders are not the reader's code.
LIBRARIES = (
    str(Path(__file__).parents[1]),
    *{sysconfig.get_path(kind) for kind in ("stdlib", "purelib", "platlib")},
    "<frozen", "<__array_function__",
)

# What an exception usually means in a lab. Looked up by the names of its classes, so that
# Chainer's can be listed without importing Chainer.
MEANINGS = {
    "InvalidType": "A layer got an input of another shape than it was made for: after 'Actual' "
                   "stands what came in on the left, what the layer was made for on the right.",
    "IndexError": "An index runs past the end of an axis. Print the shape of the array and the "
                  "last value of each loop variable.",
    "UnboundLocalError": "The name gets its value further down, or only inside a loop or branch "
                         "that did not run.",
    "NameError": "Nothing has defined that name: a typing error, or a cell above was not run.",
    "RecursionError": "The function calls itself. Has it the same name as the one it should call?",
    "AttributeError": "The object has no such attribute: a typing error, or a line that should "
                      "have set it did not run.",
    "ZeroDivisionError": "Something is divided by 0.",
    "ValueError": "Two shapes do not fit. Print the shapes on both sides of that line.",
    "TypeError": "A value has another type than the line expects, or a call has too many or too "
                 "few arguments.",
}


# The same, for messages that say more than their class does.
MESSAGES = {
    "attribute exists": "Two layers were given the same name.",
    "Variables do not support": "A Chainer Variable is no array: take its numbers, `y.array`.",
    "'NoneType'": "The line got None. Does a function that it uses end without `return`?",
    "Ellipsis": "The line got `...`, the placeholder of an exercise that is not done yet.",
    "truth value of an array": "Comparing arrays gives an array of answers, and `if` wants one: "
                               "`(a == b).all()`, `.any()` or `np.array_equal(a, b)`.",
    "'ellipsis'": "The line got `...`, the placeholder of an exercise that is not done yet.",
}


@dataclass(frozen=True)
class Case:
    """One call that a check makes.

    Parameters
    ----------
    arguments : dict
        Name to value of what is handed over by position. Arrays are handed over as copies.
    options : dict
        Name to value of what is handed over by name.
    """

    arguments: dict
    options: dict = field(default_factory=dict)

    def on(self, function: Callable):
        """The result of `function`, and the arguments as it left them."""
        arguments = {name: value.copy() if isinstance(value, np.ndarray) else value
                     for name, value in self.arguments.items()}
        return function(*arguments.values(), **self.options), arguments

    def describe(self, name: str, axes: dict[str, str]) -> str:
        """The call as the reader would write it, and the named axes of its arrays."""
        given = [n if n in self._arrays else _brief(v) for n, v in self.arguments.items()]
        given += [f"{n}={_brief(v)}" for n, v in self.options.items()]
        shapes = ", ".join(f"{n} {name_shape(v.shape, axes.get(n, ''))}"
                           for n, v in self._arrays.items())
        return f"{name}({', '.join(given)})" + (f" with {shapes}" if shapes else "")

    @property
    def values(self) -> dict:
        """All arguments by name."""
        return {**self.arguments, **self.options}

    def show(self) -> str:
        """The arrays that are small enough to print."""
        return "\n".join(f"{name} =\n{show(value)}" for name, value in self._arrays.items()
                         if value.size <= SMALL)

    @property
    def _arrays(self) -> dict:
        return {n: v for n, v in self.arguments.items() if isinstance(v, np.ndarray)}


def attempted(answer) -> None:
    """Raise NotAttempted if `answer` is still the placeholder of the blank notebook."""
    if is_blank(answer):
        raise NotAttempted


def is_blank(answer) -> bool:
    """Whether `answer` is `...`, a function without statements or a class of only such."""
    if inspect.isclass(answer):
        methods = [m for m in vars(answer).values() if inspect.isfunction(m)]
        return all(map(is_blank, methods))
    code = getattr(answer, "__code__", None)
    if code is None:
        return answer is ...
    return all(i.opname == "RESUME" or (i.opname in IDLE and i.argval is None)
               for i in dis.get_instructions(code))


def signature(answer, model: Callable) -> None:
    """Raise a Finding unless `answer` can be called as `model` can.

    Parameters
    ----------
    answer : object
        What the reader handed to the check.
    model : callable
        The reference; its signature is the exercise's.
    """
    name, wanted = model.__name__, inspect.signature(model)
    a_function(answer, name)
    got = inspect.signature(answer)
    if _accepts(got, wanted):
        return
    raise Finding("The function cannot be called as the exercise asks.",
                  expected=f"{name}{wanted}", got=f"{getattr(answer, '__name__', name)}{got}",
                  cause=_difference(got.parameters, wanted.parameters))


def a_function(answer, name: str) -> None:
    """Raise a Finding if the reader handed over something else, such as a result."""
    if not callable(answer):
        raise Finding(f"The check got {describe(answer)}, not a function.",
                      cause=f"Hand over the function itself, without calling it: "
                            f"`check.{name}({name})`")


def call(answer: Callable, case: Case, described: str):
    """Call the reader's function on copies of the arguments and return its result.

    Raises
    ------
    NotAttempted
        If it returns the placeholder `...`.
    Finding
        If it is no function, raises, returns nothing, or changes an argument.
    """
    a_function(answer, described.split("(")[0])
    try:
        result, arguments = case.on(answer)
    except Exception as error:
        raise raised(error, described) from None
    if result is ...:
        raise NotAttempted
    if result is None:
        raise Finding("The function returns None.", call=described,
                      cause="Is the last line, `return ...`, missing, or indented into a branch "
                            "that did not run?")
    _untouched(case.arguments, arguments, described)
    return result


def raised(error: Exception, described: str) -> Finding:
    """The Finding for an exception of the reader's code."""
    names = [cls.__name__ for cls in type(error).__mro__]
    message = " ".join(str(error).split())[:300]
    causes = [meaning for words, meaning in MESSAGES.items() if words in message]
    causes += [MEANINGS[name] for name in names if name in MEANINGS]
    return Finding(f"Your code raised {names[0]}: {message}", call=described,
                   code=reader_line(error), cause=next(iter(causes), ""),
                   error=f"{names[0]}: {error}")


def reader_line(error: BaseException) -> str:
    """The innermost line of the reader's own code in a traceback, or ''."""
    frames = [f for f in traceback.extract_tb(error.__traceback__)
              if not f.filename.startswith(LIBRARIES) and Path(f.filename).name != "checks.py"]
    if not frames:
        return ""
    text = frames[-1].line or linecache.getline(frames[-1].filename, frames[-1].lineno).strip()
    return f"line {frames[-1].lineno} of the cell, in {frames[-1].name}" + (
        f": `{text}`" if text else "")


def _untouched(before: dict, after: dict, described: str) -> None:
    for name, value in before.items():
        if isinstance(value, np.ndarray) and not np.array_equal(value, after[name]):
            raise Finding(f"The function changes its argument {name}.", call=described,
                          cause=f"The caller still needs {name}: work on a copy, `{name}.copy()`, "
                                f"or on a new array.")


def _accepts(got: inspect.Signature, wanted: inspect.Signature) -> bool:
    """Whether a function takes as many arguments, and options of the same names and defaults."""
    options = {name: p.default for name, p in wanted.parameters.items()
               if p.default is not p.empty}
    required = len(wanted.parameters) - len(options)
    try:
        got.bind(*range(required))
        got.bind(*range(required), **options)
    except TypeError:
        return False
    return all(name not in got.parameters or got.parameters[name].default == default
               for name, default in options.items())


def _difference(got, wanted) -> str:
    """What two lists of parameters differ in, as a sentence."""
    options = [name for name, p in wanted.items() if p.default is not p.empty]
    if missing := [name for name in options if name not in got]:
        return f"There is no parameter named {' and '.join(missing)}."
    if changed := [name for name in options if got[name].default != wanted[name].default]:
        return f"The default of {' and '.join(changed)} differs."
    return f"The exercise hands over {len(wanted) - len(options)} arguments without a default."


def describe(thing) -> str:
    """What something is, in a few words: 'an array of shape (3, 3)', 'the number 4'."""
    if thing is None:
        return "None"
    if isinstance(thing, np.ndarray):
        return f"an array of shape {thing.shape}"
    if isinstance(thing, (int, float, np.number)):
        return f"the number {thing}"
    return f"an object of type {type(thing).__name__}"


def _brief(value) -> str:
    simple = (int, float, str, bool, tuple, type(None))
    return repr(value) if isinstance(value, simple) else type(value).__name__
