"""One lab: its checks, and its hints and solutions, shown only when asked for."""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import progress
from .functions import Function, Mistake
from .report import CheckFailed, Report, run

REPORTS = "CONVNETS_REPORTS"  # a file that every report is appended to, for `convnets labs check`


@dataclass(frozen=True)
class Exercise:
    """What the master says about an exercise."""

    name: str
    title: str
    difficulty: int
    minutes: int
    points: int
    hints: tuple[str, ...]
    solution: str


@dataclass(frozen=True, repr=False)
class Note:
    """A text, and its Markdown form for where that is shown."""

    text: str
    markdown: str

    def __repr__(self):
        return self.text

    def _repr_markdown_(self):
        return self.markdown


class Lab:
    """The checks of one lab, with the hints and solutions that lie beside them.

    Parameters
    ----------
    checks_file : str
        ``__file__`` of the lab's ``checks.py``. The hints and solutions are read from
        ``solution.ipynb`` in the same folder, which is made from the lab's master.
    around : callable
        Makes the context that every check runs in, to put back what an answer leaves changed.
    """

    def __init__(self, checks_file: str, around: Callable = contextlib.nullcontext):
        self.folder = Path(checks_file).resolve().parent
        self.name = self.folder.name
        self.around = around
        self.checks: dict[str, Callable] = {}
        self.mistakes: dict[str, tuple[Mistake, ...]] = {}
        self._passed: set[str] = set()
        self._hints_shown: dict[str, int] = {}

    def function(self, spec: Function) -> Callable:
        """Add a check of a function and return it."""
        def stages(answer):
            return spec.stages(answer)
        stages.__name__ = spec.name
        stages.__doc__ = f"Check `{spec.name}`: give it your function, get a Report."
        return self.check(*spec.mistakes)(stages)

    def check(self, *mistakes: Mistake) -> Callable:
        """Decorator: turn a function from an answer to stages into a check.

        The check takes the answer, returns a Report, and raises `CheckFailed` on anything but
        a pass if it is called with ``strict=True``, or by nbgrader.
        """
        def add(stages: Callable) -> Callable:
            @functools.wraps(stages)
            def check(answer, *, strict: bool | None = None) -> Report:
                with self.around(), undisturbed_random():
                    report = run(stages.__name__, stages(answer))
                self._record(report)
                if not report.ok and (by_nbgrader() if strict is None else strict):
                    raise CheckFailed(str(report))
                return report
            self.checks[stages.__name__] = check
            self.mistakes[stages.__name__] = mistakes
            return check
        return add

    @functools.cached_property
    def exercises(self) -> dict[str, Exercise]:
        """The exercises by name, in order.

        Raises
        ------
        FileNotFoundError
            If ``solution.ipynb`` is not beside ``checks.py``.
        """
        path = self.folder / "solution.ipynb"
        if not path.is_file():
            raise FileNotFoundError(f"{path} is not there: hints and solutions are read from it. "
                                    f"Put it beside checks.py; `convnets labs build` makes it.")
        cells = json.loads(path.read_text("utf-8"))["cells"]
        return {data["name"]: Exercise(**{**data, "hints": tuple(data["hints"])},
                                       solution=unmarked("".join(cell["source"])))
                for cell in cells for data in cell["metadata"].get("exercises", ())}

    def solved(self, *exercises: str) -> bool:
        """Whether these checks have passed since the kernel started; says so if not.

        A cell that uses the reader's answers asks this first, so that the notebook runs from
        top to bottom while some are still missing.
        """
        missing = [name for name in exercises if name not in self._passed]
        if missing:
            print(f"This cell waits for {' and '.join(missing)}.")
        return not missing

    def hint(self, exercise: str, number: int | None = None) -> Note:
        """Show the next hint of an exercise, or hint `number`.

        Parameters
        ----------
        exercise : str
        number : int, optional
            From 1. Default: the one after the last shown since the kernel started.
        """
        hints = self._exercise(exercise).hints
        if number is None:
            number = self._hints_shown.get(exercise, 0) + 1
        if number < 1:
            raise ValueError(f"hints count from 1, got {number}")
        if number > len(hints):
            end = f"There are no more hints for `{exercise}`. " \
                  f"`check.solution('{exercise}')` shows a solution."
            return Note(end, end)
        self._hints_shown[exercise] = number
        self._note(progress.hint, exercise, number)
        title, text = f"Hint {number} of {len(hints)}.", hints[number - 1].strip()
        return Note(f"{title} {text}", f"**{title}** {text}")

    def solution(self, exercise: str) -> Note:
        """Show the solution of an exercise."""
        source = self._exercise(exercise).solution
        return Note(source, f"```python\n{source}\n```")

    def _exercise(self, name: str) -> Exercise:
        if name not in self.exercises:
            raise ValueError(f"lab {self.name} has no exercise {name!r}; "
                             f"there are: {', '.join(self.exercises)}")
        return self.exercises[name]

    def _record(self, report: Report) -> None:
        if report.ok:
            self._passed.add(report.exercise)
            self._note(progress.solved, report.exercise)
        if os.environ.get(REPORTS):
            progress.append(Path(os.environ[REPORTS]), {
                "exercise": report.exercise, "status": report.status, "text": str(report)})

    def _note(self, event: Callable, *details) -> None:
        """Record an event where this session records at all; a lab works without."""
        # RuntimeError: there is no home folder.
        with contextlib.suppress(OSError, RuntimeError):
            if file := progress.session_path():
                event(file, self.name, *details)


@contextlib.contextmanager
def undisturbed_random():
    """Put NumPy's global random state back, so that a check changes no later result."""
    state = np.random.get_state()
    try:
        yield
    finally:
        np.random.set_state(state)


def by_nbgrader() -> bool:
    """Whether nbgrader runs this notebook, to grade or to validate it."""
    return "NBGRADER_EXECUTION" in os.environ


def unmarked(source: str, marks: Sequence[str] = ("### BEGIN SOLUTION", "### END SOLUTION")) -> str:
    """Source of a solved cell without the lines that mark the solution."""
    return "\n".join(line for line in source.splitlines() if line.strip() not in marks)
