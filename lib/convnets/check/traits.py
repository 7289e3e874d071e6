"""Answers that are tried in several ways, and mistakes that are known by what they do."""

import functools
import re
from collections.abc import Callable
from typing import NamedTuple

from .calls import raised
from .functions import Mistake
from .report import Finding, NotAttempted


class Trait(NamedTuple):
    """One thing that a check finds out about an answer by trying it: a stage.

    `find` takes the answer and returns a text; the right one is what it returns for the
    reference. `cause` is said where no stored mistake gives the same text.
    """

    title: str
    what: str
    find: Callable
    call: str = ""
    cause: str = ""
    by_hand: str = ""


def stages(lab, exercise, answer, right, traits):
    """A stage for each trait: what the answer does against what the reference does."""
    def stage(trait):
        try:
            got = trait.find(answer)
        except (Finding, NotAttempted):
            raise
        except Exception as error:
            finding = raised(error, trait.call)
            finding.what = without_addresses(finding.what)
            general = f"{finding.rows.get('likely cause', '')} {trait.cause}".strip()
            finding.rows["likely cause"] = known(lab, exercise, answer, traits, trait) or general
            raise finding from None
        if got != (expected := trait.find(right)):
            raise Finding(trait.what, call=trait.call, expected=expected, got=got,
                          arithmetic=trait.by_hand,
                          cause=known(lab, exercise, answer, traits, trait) or trait.cause)

    return [(trait.title, functools.partial(stage, trait)) for trait in traits]


def known(lab, exercise, answer, traits, trait):
    """Cause of the stored mistake with the same `trait` that is most like the answer, or ''."""
    def alike(mistake):
        return sum(did(t, mistake.answer) == found(t, answer) for t in traits)

    same = [m for m in lab.mistakes[exercise] if did(trait, m.answer) == found(trait, answer)]
    return max(same, key=alike, default=Mistake("", "", None)).cause


def found(trait, answer):
    """What a trait finds, or the text of the exception."""
    try:
        return trait.find(answer)
    except Exception as error:
        return without_addresses(f"{type(error).__name__}: {error}")


did = functools.cache(found)   # of the wrong answers, which do not change


def without_addresses(text):
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)
