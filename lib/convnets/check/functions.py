"""Checks of a function: the stages, and the stored wrong versions that name a mistake."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from . import calls
from .calls import Case, attempted, describe, signature
from .compare import (
    SMALL,
    first_difference,
    name_shape,
    pattern,
    same,
    shape_sentence,
    show,
    value_sentence,
)
from .report import Finding


@dataclass(frozen=True)
class Mistake:
    """A wrong answer that readers give, and what to tell them.

    Parameters
    ----------
    title : str
        The mistake in a few words.
    cause : str
        What the report says: the mistake, why it is one, and what to do.
    answer : callable or class
        The wrong answer itself, complete: its results are compared with the reader's.
    """

    title: str
    cause: str
    answer: Callable


@dataclass(frozen=True)
class Function:
    """An exercise whose answer is a function, checked against a slow and plain reference.

    Parameters
    ----------
    reference : callable
        The right answer; its name and signature are the exercise's.
    cases : sequence of dict
        Arguments of the calls. The first is the case worked out by hand, so it is small.
    by_hand : callable
        ``by_hand(arguments, index)`` gives the arithmetic of one element of the first case.
    mistakes : sequence of Mistake
    axes : dict
        Names of the axes of each array argument, and of the result under ``'return'``:
        ``{'x': 'N C H W', 'return': 'N O H W'}``. For a result that is a tuple, its parts.
    hand_title : str
        Name of the stage of the first case.
    properties : sequence of (str, callable)
        Title, and a function that takes the reader's function and raises a Finding.
    """

    reference: Callable
    cases: tuple[dict, ...]
    by_hand: Callable[[dict, tuple], str]
    mistakes: tuple[Mistake, ...] = ()
    axes: dict[str, str] | None = None
    hand_title: str = "a case by hand"
    properties: tuple[tuple[str, Callable], ...] = ()

    @property
    def name(self) -> str:
        return self.reference.__name__

    def stages(self, answer):
        """The stages of a check of `answer`, for `report.run`."""
        first, *others = map(self.case, self.cases)
        return [
            ("attempted", lambda: attempted(answer)),
            ("signature", lambda: signature(answer, self.reference)),
            ("type of the result", lambda: self._kind(answer, first)),
            *([("shape", lambda: self._shapes(answer, first, others))]
              if np.ndim(self._expected(first)) else []),
            (self.hand_title, lambda: self._values(answer, first, by_hand=True)),
            (f"{len(others)} more cases", lambda: [self._values(answer, c) for c in others]),
            *((title, lambda test=test: test(answer)) for title, test in self.properties),
        ]

    def case(self, given: dict) -> Case:
        """A Case, the arguments sorted into those handed over by position and by name."""
        return case_of(self.reference, given)

    def call(self, answer, case: Case):
        """The result of the reader's function; see `calls.call`."""
        try:
            return calls.call(answer, case, self._described(case))
        except Finding as finding:
            if finding.error:
                same_error = (m for m in self.mistakes if error_of(m.answer, case) == finding.error)
                if mistake := next(same_error, None):
                    finding.rows["likely cause"] = mistake.cause
            raise

    def recognise(self, answer, case: Case, got) -> Mistake | None:
        """The stored mistake whose result equals `got`; of several, the most faithful one."""
        right = self._expected(case)
        suspects = [m for m in self.mistakes
                    if gives(m.answer, case, got) and not gives(m.answer, case, right)]
        results = self._results(answer)
        return max(suspects, default=None,
                   key=lambda m: sum(gives(m.answer, c, result) for c, result in results))

    def recognise_shape(self, answer, case: Case) -> Mistake | None:
        """A stored mistake whose results have the reader's shape in every case."""
        right = self._expected(case)
        results = [(c, r) for c, r in self._results(answer) if r is not None]
        return next((m for m in self.mistakes if not gives(m.answer, case, right, same_shape)
                     and all(gives(m.answer, c, r, same_shape) for c, r in results)), None)

    def _results(self, answer) -> list[tuple[Case, object]]:
        """Each case and the reader's result, None where it raises."""
        return [(case, quietly(answer, case)) for case in map(self.case, self.cases)]

    def _expected(self, case: Case):
        return case.on(self.reference)[0]

    def _described(self, case: Case) -> str:
        return case.describe(self.name, self.axes or {})

    @property
    def _result_axes(self) -> str:
        return (self.axes or {}).get("return", "")

    def _kind(self, answer, case: Case) -> None:
        kind(self.call(answer, case), self._expected(case), self._described(case))

    def _shapes(self, answer, first: Case, others) -> None:
        self._shape(self.call(answer, first), answer, first)
        for case in others:
            # What raises here is reported later, after the first case's values.
            got = quietly(answer, case)
            if got is not None:
                self._shape(got, answer, case)

    def _shape(self, got, answer, case: Case) -> None:
        right = self._expected(case)
        kind(got, right, self._described(case))
        got, right = np.asarray(got), np.asarray(right)
        if got.shape != right.shape:
            mistake = self.recognise(answer, case, got) or self.recognise_shape(answer, case)
            raise Finding(shape_sentence(got.shape, right.shape, self._result_axes),
                          call=self._described(case),
                          expected=name_shape(right.shape, self._result_axes),
                          got=name_shape(got.shape, self._result_axes),
                          cause=self._constant(answer) or (mistake.cause if mistake else ""))

    def _values(self, answer, case: Case, by_hand=False) -> None:
        got, right = self.call(answer, case), self._expected(case)
        self._shape(got, answer, case)
        if same(got, right):
            return
        if not same(got, self.call(answer, case)):
            raise Finding("Two equal calls give different results.", call=self._described(case),
                          cause="Does the result start from `np.empty`, whose values are whatever "
                                "the memory held, or does it keep something between calls?")
        raise self._wrong_values(answer, case, got, right, by_hand)

    def _constant(self, answer) -> str:
        """What to say of a result that is the same whatever is handed over, or ''.

        It comes before the stored mistakes: a constant may equal one of them in a single case.
        """
        results = self._results(answer)
        _, first = results[0]
        if len(results) < 2 or not all(r is not None and same(r, first) for _, r in results):
            return ""
        if any(all(gives(m.answer, c, r) for c, r in results) for m in self.mistakes):
            return ""
        return "Every call gives this same result. Is it written into the code?"

    def _wrong_values(self, answer, case: Case, got, right, by_hand) -> Finding:
        seen = pattern(got, right, self._result_axes) if isinstance(right, np.ndarray) else ""
        got, right = np.asarray(got), np.asarray(right)
        index = first_difference(got, right)
        shown = ... if right.size <= SMALL else index
        mistake = self.recognise(answer, case, got)
        return Finding(
            value_sentence(got, right, self._result_axes),
            call=self._described(case),
            given=case.show() if by_hand else "",
            expected=show(right[shown]),
            got=show(got[shown]),
            arithmetic=self.by_hand(case.values, index) if by_hand else "",
            cause=self._constant(answer) or (mistake.cause if mistake else seen))


def given(**arguments) -> dict:
    """The arguments of one case, by name."""
    return arguments


def case_of(reference: Callable, given: dict) -> Case:
    """A Case for `reference`: what has no default goes by position, all else by name."""
    optional = {name for name, p in inspect.signature(reference).parameters.items()
                if p.default is not p.empty}
    return Case({n: v for n, v in given.items() if n not in optional},
                {n: v for n, v in given.items() if n in optional})


def quietly(function: Callable, case: Case):
    """The result of a call, or None where it raises."""
    try:
        return case.on(function)[0]
    except Exception:
        return None


def error_of(function: Callable, case: Case) -> str:
    """Class and message of what a call raises, or ''."""
    try:
        case.on(function)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def gives(function: Callable, case: Case, result, alike: Callable = same) -> bool:
    """Whether a call gives just this result."""
    got = quietly(function, case)
    return got is not None and result is not None and alike(got, result)


def same_shape(a, b) -> bool:
    """Whether two results have the same shape, whatever their values."""
    try:
        return np.shape(a) == np.shape(b)
    except ValueError:   # lists of different lengths in a list
        return False


def kind(got, right, described: str) -> None:
    """Raise a Finding unless `got` is the kind of thing that `right` is.

    An array of the same dtype, a whole number, a number, or a tuple of as many numbers.
    """
    if isinstance(right, np.ndarray):
        _array_kind(got, right, described)
    elif isinstance(right, tuple):
        if not isinstance(got, (tuple, list)) or len(got) != len(right):
            parts = "arrays" if all(isinstance(r, np.ndarray) for r in right) else "numbers"
            raise Finding(f"The result is {describe(got)}, expected {len(right)} {parts}.",
                          call=described, cause=f"End with `return {', '.join('ab'[:len(right)])}`"
                          if len(right) == 2 else "")
        for g, r in zip(got, right, strict=True):
            kind(g, r, described)
    elif not single(got):
        raise Finding(f"The result is {describe(got)}, expected a number.", call=described)
    elif hasattr(got, "array"):
        raise Finding("The result is a Chainer Variable, expected a plain number.", call=described,
                      cause="Take the number out of it: `float(y.array)`.")
    elif isinstance(right, int) and not isinstance(got, (int, np.integer)):
        raise Finding(f"The result is {describe(got)}, of type {type(got).__name__}; expected a "
                      f"whole number.", call=described, expected=show(right), got=repr(got),
                      cause="It is a count, so it is an int: `/` always gives a float, "
                            "`//` divides and rounds down.")


def single(thing) -> bool:
    """Whether a result is one thing, not a list of several (of rows of any lengths)."""
    return not isinstance(thing, (list, tuple)) and np.shape(thing) == ()


def _array_kind(got, right, described):
    if hasattr(got, "array"):
        raise Finding("The result is a Chainer Variable, expected a NumPy array.", call=described,
                      cause="Take the array out of it: `y.array`.")
    if not isinstance(got, np.ndarray):
        raise Finding(f"The result is {describe(got)}, expected an array.", call=described,
                      cause="Is `return` inside the loop? Then the first number is all there is."
                      if single(got) else "`np.array(...)` makes an array of a list.")
    if got.dtype != right.dtype:
        cut = "An integer array cuts every value that is put into it to a whole number. " \
            if got.dtype.kind in "iub" else ""
        raise Finding(f"The result has dtype {got.dtype}, expected {right.dtype}, the dtype of "
                      f"the input.", call=described,
                      cause=f"{cut}`np.zeros(shape)` is float64 unless it is told otherwise: "
                            f"`np.zeros(shape, dtype=x.dtype)`.")
