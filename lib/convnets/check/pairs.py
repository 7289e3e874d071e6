"""Checks of a function that returns two arrays, such as weights and bias."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from .calls import Case, attempted, call, describe, signature
from .compare import (
    first_difference,
    name_shape,
    pattern,
    same,
    shape_sentence,
    show,
    value_sentence,
)
from .functions import case_of, kind
from .lab import Lab
from .report import Finding


@dataclass(frozen=True, eq=False)
class Pair:
    """An exercise whose answer is a function that returns two arrays.

    Parameters
    ----------
    reference : callable
        The right answer; its name and signature are the exercise's.
    names, axes : tuple of str
        What the two arrays are called, and the names of their axes.
    given_axes : dict
        Names of the axes of the arguments.
    cases : tuple of dict
        Arguments of the calls. The first is worked out by hand.
    by_hand : callable
        ``by_hand(arguments, part, index)`` gives the arithmetic of one number of the first case;
        part is 0 or 1.
    shapes : str
        What to say of a wrong shape that no stored mistake explains.
    properties : tuple of (str, callable)
        Title, and a function that takes the reader's function and raises a Finding.
    lab : Lab
        The lab that stores the mistakes, under the reference's name.
    """

    reference: Callable
    names: tuple[str, str]
    axes: tuple[str, str]
    given_axes: dict[str, str]
    cases: tuple[dict, ...]
    by_hand: Callable[[dict, int, tuple], str]
    shapes: str
    properties: tuple[tuple[str, Callable], ...] = ()
    lab: Lab = field(kw_only=True)

    def stages(self, answer):
        """The stages of a check of `answer`, for `report.run`."""
        return [("attempted", lambda: attempted(answer)),
                ("signature", lambda: signature(answer, self.reference)),
                ("two arrays", lambda: self._two_arrays(answer)),
                ("a case by hand", lambda: self._values(answer, 0)),
                (f"{len(self.cases) - 1} more cases",
                 lambda: [self._values(answer, i) for i in range(1, len(self.cases))]),
                *((title, lambda test=test: test(answer)) for title, test in self.properties)]

    def results(self, answer):
        """For each case two arrays, or a text on what came instead."""
        return [self._result(answer, case) for case in map(self._case, range(len(self.cases)))]

    def known(self, answer, index):
        """Cause of the stored mistake with the same result in one case, and in most others."""
        got, right = self.results(answer), self.results(self.reference)[index]
        suspects = {}
        for mistake in self.lab.mistakes[self.reference.__name__]:
            stored = stored_results(self, mistake.answer)
            fits = [*map(pairs_alike, stored, got)]
            if fits[index] and not pairs_alike(stored[index], right):
                suspects[mistake.cause] = sum(fits)
        return max(suspects, key=suspects.get, default="")

    def _case(self, index):
        return case_of(self.reference, self.cases[index])

    def _described(self, index):
        return self._case(index).describe(self.reference.__name__, self.given_axes)

    def _result(self, answer, case: Case):
        try:
            pair = case.on(answer)[0]
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return tuple(pair) if isinstance(pair, (tuple, list)) else describe(pair)

    def _called(self, answer, index):
        """The result of the reader's function; names the mistake if it raises."""
        try:
            return call(answer, self._case(index), self._described(index))
        except Finding as finding:
            cause = self.known(answer, index) if finding.error else ""
            finding.rows["likely cause"] = cause or finding.rows.get("likely cause", "")
            raise

    def _two_arrays(self, answer):
        got, right = self._called(answer, 0), self._case(0).on(self.reference)[0]
        if not isinstance(got, (tuple, list)) or len(got) != 2:
            raise Finding(f"The result is {describe(got)}, expected two arrays.",
                          call=self._described(0), cause=f"End with `return "
                          f"{', '.join(self.names)}`, the two behind a comma.")
        for array, wanted, name in zip(got, right, self.names, strict=True):
            kind(array, wanted, f"{self._described(0)}: {name}")

    def _values(self, answer, index):
        got, right = self._called(answer, index), self._case(index).on(self.reference)[0]
        for part, (array, wanted) in enumerate(zip(got, right, strict=True)):
            if not same(array, wanted):
                raise self._wrong(answer, index, part, np.asarray(array), wanted)

    def _wrong(self, answer, index, part, got, right):
        """The Finding for one array that is not the right one."""
        name, axes, cause = self.names[part], self.axes[part], self.known(answer, index)
        if got.shape != right.shape:
            return Finding(f"{name}: {shape_sentence(got.shape, right.shape, axes)}",
                           call=self._described(index), expected=name_shape(right.shape, axes),
                           got=name_shape(got.shape, axes), cause=cause or self.shapes)
        place, first = first_difference(got, right), index == 0
        case = self._case(index)
        return Finding(f"{name}: {value_sentence(got, right, axes)}", call=self._described(index),
                       given=case.show() if first else "", expected=show(right[place]),
                       got=show(got[place]),
                       arithmetic=self.by_hand(case.values, part, place) if first else "",
                       cause=cause or pattern(got, right, axes))


@functools.cache   # stored wrong answers do not change
def stored_results(pair, answer):
    """What a stored wrong answer gives in each case."""
    return pair.results(answer)


def pairs_alike(a, b):
    """Whether two results are the same text, or the same arrays."""
    if isinstance(a, str) or isinstance(b, str):
        return isinstance(a, type(b)) and a == b
    return len(a) == len(b) and all(map(same, a, b))
