"""What a check says: the stages it went through and, where it stopped, a diagnosis that teaches."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from html import escape

PASSED, FAILED, BLANK = "passed", "not yet", "not attempted"
MARKS = {PASSED: "✓", FAILED: "✗", BLANK: "○"}
CLASSES = {PASSED: "good", FAILED: "bad", BLANK: "blank"}

# Every report carries its style, as it must look right on a page, in JupyterLab and in a saved
# notebook. A page may set --cv-good, --cv-bad, --cv-muted, --cv-bg, --cv-fg and --cv-line.
STYLE = """\
.cv-report { color-scheme: light dark; margin: .5rem 0; padding: .6rem 1rem; border: 1px solid; \
border-color: var(--cv-line, light-dark(#b9c0ca, #5a6577)); border-left: .4rem solid; \
border-radius: .4rem; line-height: 1.5;
  background: var(--cv-bg, light-dark(#f3f4f6, #262c36)); \
color: var(--cv-fg, light-dark(#1f2328, #e6e8eb)); }
[data-theme="light"] .cv-report, [data-jp-theme-light="true"] .cv-report { color-scheme: light; }
[data-theme="dark"] .cv-report, [data-jp-theme-light="false"] .cv-report { color-scheme: dark; }
.cv-report.good { --cv-mark: var(--cv-good, light-dark(#00693a, #5fcf97)); }
.cv-report.bad { --cv-mark: var(--cv-bad, light-dark(#b0201a, #ff9a92)); }
.cv-report.blank { --cv-mark: var(--cv-muted, light-dark(#4d5866, #b4bcc8)); }
.cv-report { border-left-color: var(--cv-mark); }
.cv-report strong { color: var(--cv-mark); }
.cv-report p, .cv-report ul, .cv-report dl, .cv-report pre { margin: .3rem 0; padding: 0; }
.cv-report li { display: inline-block; margin: 0 1rem 0 0; }
.cv-report dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .2rem 1rem; }
.cv-report dt { font-weight: 600; }
.cv-report dd { margin: 0; }
.cv-report dd pre { margin: 0; }
.cv-report code, .cv-report pre { border: 0; padding: 0; background: none; color: inherit; }
.cv-report pre { overflow-x: auto; }
.cell_output .text_html:has(> .cv-report) { padding: 0 !important; background: none !important; }
"""

class NotAttempted(Exception):
    """The answer is still the blank notebook's placeholder."""


class CheckFailed(AssertionError):
    """Raised by a check called with ``strict=True`` (and under nbgrader)."""


class Finding(Exception):
    """What one stage found wrong, in the reader's terms.

    Parameters
    ----------
    what : str
        One sentence: what is wrong.
    call, expected, got : str
        The call that shows it, with named axes, and both results.
    given, arithmetic : str
        The inputs of a case small enough to print, and the right result worked out by hand.
    code : str
        The line of the reader's own code that raised an exception.
    cause : str
        The likely mistake, and what to do about it.
    error : str
        Class and message of the exception that the reader's code raised, if it did.
    """

    def __init__(self, what: str, *, call="", given="", expected="", got="", arithmetic="",
                 code="", cause="", error=""):
        super().__init__(what)
        self.what, self.error = what, error
        rows = {"call": call, "given": given, "expected": expected, "got": got,
                "by hand": arithmetic, "your code": code, "likely cause": cause}
        self.rows = {label: text for label, text in rows.items() if text}


@dataclass(frozen=True)
class Stage:
    """One step of a check, and whether the answer got past it."""

    title: str
    ok: bool


@dataclass(frozen=True)
class Report:
    """The result of checking one answer; shows itself as text and as HTML.

    Attributes
    ----------
    exercise : str
        Name of the exercise, which is also the name of its check.
    status : str
        ``'passed'``, ``'not yet'`` or ``'not attempted'``.
    stages : tuple of Stage
        The stages that ran; only the last can have failed.
    total : int
        How many stages the check has.
    finding : Finding or None
        The diagnosis, where a stage failed.
    """

    exercise: str
    status: str
    stages: tuple[Stage, ...]
    total: int
    finding: Finding | None = None

    @property
    def ok(self) -> bool:
        """Whether every stage passed."""
        return self.status == PASSED

    @property
    def headline(self) -> str:
        if self.status == BLANK:
            return "not attempted yet"
        if self.ok:
            return f"all {self.total} stages passed"
        return f"stopped at '{self.stages[-1].title}', stage {len(self.stages)} of {self.total}"

    @property
    def advice(self) -> str:
        """What to do next."""
        hint = f"`check.hint('{self.exercise}')`"
        if self.status == BLANK:
            return f"Write your answer, run its cell, then run this check again. First hint: {hint}"
        return "" if self.ok else f"Stuck? {hint}"

    def __str__(self) -> str:
        lines = [f"{MARKS[self.status]} {self.exercise}: {self.headline}"]
        if self.finding:
            lines += [f"  {self.finding.what}",
                      *(_row(*row) for row in self.finding.rows.items())]
        return "\n".join([*lines, f"  {self.advice}"] if self.advice else lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        name = escape(self.exercise)
        return "\n".join([
            f'<div class="cv-report {CLASSES[self.status]}" role="group" '
            f'aria-label="Check of {name}">',
            f"<style>\n{STYLE}</style>",
            f"<p><strong>{MARKS[self.status]} <code>{name}</code>: "
            f"{escape(self.headline)}</strong></p>",
            *self._stages_html(),
            *self._finding_html(),
            *([f"<p>{_inline(self.advice)}</p>"] if self.advice else []),
            "</div>",
        ])

    def _stages_html(self) -> list[str]:
        items = (f"<li>{MARKS[PASSED if stage.ok else FAILED]} {escape(stage.title)}</li>"
                 for stage in self.stages)
        return ["<ul>", *items, "</ul>"] if self.stages else []

    def _finding_html(self) -> list[str]:
        if not self.finding:
            return []
        rows = (f"<dt>{label}</dt><dd>{_block(text)}</dd>"
                for label, text in self.finding.rows.items())
        return [f"<p>{_inline(self.finding.what)}</p>", "<dl>", *rows, "</dl>"]


def run(exercise: str, stages: Iterable[tuple[str, Callable[[], None]]]) -> Report:
    """Run ``(title, stage)`` pairs in order and stop at the first that teaches something.

    Parameters
    ----------
    exercise : str
        Name for the report.
    stages : iterable of (str, callable)
        A stage returns nothing when the answer is right, and raises `Finding` or
        `NotAttempted` when it is not.

    Returns
    -------
    Report
    """
    stages = list(stages)
    done: list[Stage] = []
    for title, stage in stages:
        try:
            stage()
        except NotAttempted:
            return Report(exercise, BLANK, tuple(done), len(stages))
        except Finding as finding:
            failed = Stage(title, False)
            return Report(exercise, FAILED, (*done, failed), len(stages), finding)
        done.append(Stage(title, True))
    return Report(exercise, PASSED, tuple(done), len(stages))


def _row(label: str, text: str) -> str:
    """One labelled row of the text form; further lines align under the first."""
    lines = text.split("\n") if "\n" in text else textwrap.wrap(
        text, 85, break_long_words=False, break_on_hyphens=False)
    return f"  {label:<13}" + f"\n{'':15}".join(lines)


def _inline(text: str) -> str:
    """Escaped HTML of one paragraph, with `code` between backquotes."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))


def _block(text: str) -> str:
    """A paragraph, or preformatted lines where the text has several."""
    if "\n" not in text:
        return _inline(text)
    # A region that may scroll must be reachable by keyboard.
    return f'<pre tabindex="0">{escape(text, quote=False)}</pre>'
