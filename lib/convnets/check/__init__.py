"""Checks for the labs: plain functions that say what is wrong with an answer, and why.

A check takes the reader's answer and returns a `Report`. It goes through stages (attempted,
signature, type, shape with axis names, a case worked out by hand, seeded cases against a slow
loop, a property) and stops at the first that teaches something. Stored wrong versions name a
known mistake. Only the standard library and NumPy are imported here, so checks run in a browser.

A lab's ``checks.py`` makes one `Lab`, and gives it a `Function` for each exercise whose answer
is a function (a `Pair` where it returns two arrays), or decorates its own stages with `Lab.check`.
"""

from .calls import Case, attempted, call, describe, is_blank, raised, signature
from .compare import name_shape, same, show
from .functions import Function, Mistake, given, kind
from .lab import Exercise, Lab, Note
from .pairs import Pair
from .report import CheckFailed, Finding, NotAttempted, Report, Stage, run

__all__ = [
    "Case", "CheckFailed", "Exercise", "Finding", "Function", "Lab", "Mistake", "NotAttempted",
    "Note", "Pair", "Report", "Stage", "attempted", "call", "describe", "given", "is_blank", "kind",
    "name_shape", "raised", "run", "same", "show", "signature",
]
