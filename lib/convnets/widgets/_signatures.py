"""The signatures of bugs: what each does to curve, gradients and answers, beside no bug."""

import html
import math

from ._base import Widget

# What is known of each bug, see `convnets.bugs.signature`.
COLUMNS = ("name", "what", "sign", "curve", "by_heart", "layers", "accuracy", "changed")


class BugSignatures(Widget):
    """Made by `bug_signatures`."""

    name = "bug_signatures"
    label = "Signatures of bugs, beside a healthy network"

    def __init__(self, measured, chance, chosen, guess, caption, key):
        super().__init__(caption, key)
        self.measured, self.chance, self.chosen, self.guess = measured, chance, chosen, guess

    def state(self):
        return {"bugs": self.measured, "chance": self.chance, "chosen": self.chosen,
                "guess": self.guess}

    def fallback(self):
        head = ("bug", "first loss", "last loss", "one minibatch", "new images right",
                "answers that change alone")  # fmt: skip
        rows = "".join(
            f"<tr><td>{html.escape(bug['name'])}</td><td>{bug['curve'][0]:.3g}</td>"
            f"<td>{bug['curve'][-1]:.3g}</td><td>{abs(bug['by_heart']):.3f}</td>"
            f"<td>{bug['accuracy']:.1%}</td><td>{bug['changed']:.1%}</td></tr>"
            for bug in self.measured
        )
        titles = "".join(f"<th>{title}</th>" for title in head)
        return f"<table><tr>{titles}</tr>{rows}</table>"


def bug_signatures(measurements, *, chosen=None, guess=False, n_class=10, caption="", key=""):
    """Pick a bug and see what gives it away, beside the same network without one; or guess it.

    Parameters
    ----------
    measurements : dict
        What `convnets.bugs.record` wrote; its first entry is the network without a bug.
    chosen : str, optional
        The bug that is shown first; by default the second entry.
    guess : bool
        Begin with a bug whose name is hidden.
    n_class : int
        Chance is at a loss of ln n_class.
    caption, key : str
        See `Widget`.

    Returns
    -------
    BugSignatures

    Raises
    ------
    ValueError
        If a measurement is missing, or there is no such bug.
    """
    bugs = measurements["bugs"]
    for bug in bugs:
        if missing := [column for column in COLUMNS if column not in bug]:
            raise ValueError(
                f"bug_signatures: {bug.get('name', '?')} lacks {', '.join(missing)}")
    names = [bug["name"] for bug in bugs]
    if len(names) < 2:
        raise ValueError(f"bug_signatures: a healthy network and a bug are needed, got {names}")
    chosen = chosen or names[1]
    if chosen not in names[1:]:
        raise ValueError(f"bug_signatures: no bug {chosen!r} was measured; there are "
                         f"{', '.join(names[1:])}")
    measured = [{column: bug[column] for column in COLUMNS} for bug in bugs]
    return BugSignatures(measured, math.log(n_class), names.index(chosen), bool(guess),
                         caption, key)
