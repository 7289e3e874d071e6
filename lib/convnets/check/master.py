"""From one master to two notebooks: the blank one to solve, and the solved one.

A master is a MyST-Markdown notebook (read with jupytext) in which

- an exercise's code cell has the metadata ``exercises``: a list of entries with the fields of
  `Exercise` but its solution; the lines of the solution stand between ``### BEGIN SOLUTION`` and
  ``### END SOLUTION``, nbgrader's marks;
- the cell that checks it has the metadata ``check``: the exercise's name;
- a text cell with the metadata ``reflection`` (a name) and ``points`` holds the answer to an open
  question;
- a line ``% exercise: NAME`` in a text stands for that exercise's difficulty and minutes.

The same master always gives the same notebooks. The id of a cell is made from its text, so it
also tells whether somebody has edited the cell since.
"""

from __future__ import annotations

import copy
import hashlib
import re
from dataclasses import fields
from pathlib import Path

import jupytext
import nbformat

from ..files import written_whole
from .lab import Exercise

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
PLACEHOLDER = "...  # your code here"
ANSWER = "*Write your answer here: double-click, type, run the cell.*"
BADGE = re.compile(r"^% exercise: (\w+)$", re.MULTILINE)
FIELDS = {field.name for field in fields(Exercise)} - {"solution"}

# Cell metadata that running a notebook adds: the alternative text of its figures.
FROM_RUNNING = ("mystnb",)

# What the book's own tools store in every notebook.
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python",
                   "name": "python3"},
    "language_info": {
        "codemirror_mode": {"name": "ipython", "version": 3}, "file_extension": ".py",
        "mimetype": "text/x-python", "name": "python", "nbconvert_exporter": "python",
        "pygments_lexer": "ipython3"},
}


class MasterError(ValueError):
    """A master is not as it must be."""


def build(master: Path) -> dict[str, nbformat.NotebookNode]:
    """Make ``{'lab.ipynb': blank notebook, 'solution.ipynb': solved notebook}`` from a master.

    Raises
    ------
    MasterError
        If a mark has no partner, an exercise lacks a field or a check, or a name occurs twice.
    """
    source = jupytext.reads(master.read_text("utf-8"), fmt="md:myst")
    exercises = _exercises(source, master)
    return {"lab.ipynb": _notebook(source, exercises, solved=False, where=master),
            "solution.ipynb": _notebook(source, exercises, solved=True, where=master)}


def write(notebook: nbformat.NotebookNode, path: Path) -> bool:
    """Store a built notebook with the outputs that its cells have in `path`; True if it changed."""
    old = nbformat.read(path, as_version=4) if path.exists() else None
    text = nbformat.writes(with_outputs(notebook, old) if old else notebook).rstrip("\n") + "\n"
    if old and path.read_text("utf-8") == text:
        return False
    with written_whole(path) as file:
        file.write(text.encode())
    return True


def with_outputs(notebook: nbformat.NotebookNode,
                 old: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A copy of `notebook`; cells whose source is the same as in `old` keep their outputs."""
    stored = {cell.source: cell for cell in old.cells if cell.cell_type == "code"}
    result = copy.deepcopy(notebook)
    for cell in result.cells:
        if cell.cell_type == "code" and cell.source in stored:
            kept = stored[cell.source]
            cell.outputs, cell.execution_count = kept.outputs, kept.execution_count
            cell.metadata.update({k: kept.metadata[k] for k in FROM_RUNNING if k in kept.metadata})
    return result


def differences(notebook: nbformat.NotebookNode, stored: nbformat.NotebookNode) -> list[str]:
    """How the sources and metadata of a stored notebook differ from a built one."""
    if len(notebook.cells) != len(stored.cells):
        return [f"{len(stored.cells)} cells, expected {len(notebook.cells)}"]
    return [f"cell {number} ({new.id}): {part} differs"
            for number, (new, old) in enumerate(zip(notebook.cells, stored.cells, strict=True), 1)
            for part in ("cell_type", "id", "source", "metadata")
            if _part(new, part) != _part(old, part)]


def edited(notebook: nbformat.NotebookNode) -> bool:
    """Whether somebody has changed, added or moved in a cell since the notebook was built."""
    return any(not cell.get("id", "").endswith(_digest(cell.source)) for cell in notebook.cells)


def blank(source: str, where: str = "") -> str:
    """Source of a cell with each solution replaced by a placeholder.

    Raises
    ------
    MasterError
        If a mark has no partner.
    """
    lines, inside = [], False
    for line in source.splitlines():
        mark = line.strip()
        if mark == (BEGIN if inside else END):
            raise MasterError(f"{where}: {mark!r} without its partner in:\n{source}")
        if mark == BEGIN:
            lines.append(line[:line.index(BEGIN)] + PLACEHOLDER)
        if mark in (BEGIN, END):
            inside = mark == BEGIN
        elif not inside:
            lines.append(line)
    if inside:
        raise MasterError(f"{where}: {BEGIN!r} without its partner in:\n{source}")
    return "\n".join(lines)


def badge(exercise: Exercise | dict) -> str:
    """Difficulty and minutes as a line of Markdown."""
    data = exercise if isinstance(exercise, dict) else vars(exercise)
    dots = "●" * data["difficulty"] + "○" * (3 - data["difficulty"])
    words = ("easy", "medium", "harder")[data["difficulty"] - 1]
    return (f"`{data['name']}` · difficulty {dots} ({words}) · {data['minutes']} minutes · "
            f"stuck? `check.hint('{data['name']}')`")


def _exercises(source, master: Path) -> dict[str, dict]:
    found: dict[str, dict] = {}
    checks = [cell.metadata["check"] for cell in source.cells if "check" in cell.metadata]
    for data in (e for cell in source.cells for e in cell.metadata.get("exercises", ())):
        name = data.get("name")
        if set(data) != FIELDS:
            raise MasterError(f"{master}: exercise {name!r} has the fields {sorted(data)}, "
                              f"expected {sorted(FIELDS)}")
        if len(data["hints"]) != 3 or not 1 <= data["difficulty"] <= 3:
            raise MasterError(f"{master}: exercise {name!r} needs three hints and a difficulty "
                              f"from 1 to 3, got {len(data['hints'])} and {data['difficulty']}")
        if name in found or checks.count(name) != 1:
            raise MasterError(f"{master}: exercise {name!r} must occur once and have one cell "
                              f"with `:check: {name}`, got {checks.count(name)}")
        found[name] = data
    if unknown := set(checks) - set(found):
        raise MasterError(f"{master}: `:check:` names no exercise: {', '.join(sorted(unknown))}")
    return found


def _notebook(source, exercises, solved: bool, where: Path) -> nbformat.NotebookNode:
    cells = [_cell(cell, exercises, solved, str(where)) for cell in source.cells]
    for cell in cells:
        name = cell.metadata.get("nbgrader", {}).get("grade_id", cell.cell_type)
        cell.id = f"{name}-{_digest(cell.source)}"
    if len({cell.id for cell in cells}) < len(cells):
        raise MasterError(f"{where}: two cells have the same text; make them differ")
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=copy.deepcopy(METADATA))
    nbformat.validate(notebook)
    return notebook


def _cell(original, exercises, solved: bool, where: str):
    cell = copy.deepcopy(original)
    if "exercises" in cell.metadata:
        cell.metadata["nbgrader"] = nbgrader(cell.metadata["exercises"][0]["name"], solution=True)
        if not solved:
            del cell.metadata["exercises"]
            cell.source = blank(cell.source, where)
    elif name := cell.metadata.pop("check", None):
        cell.metadata["nbgrader"] = nbgrader(f"{name}-check", locked=True,
                                             points=exercises[name]["points"])
    elif name := cell.metadata.pop("reflection", None):
        cell.metadata["nbgrader"] = nbgrader(name, cell_type="markdown", solution=True,
                                             points=cell.metadata.pop("points"))
        cell.source = cell.source if solved else ANSWER
    elif cell.cell_type == "markdown":
        cell.source = BADGE.sub(lambda match: badge(exercises[match[1]]), cell.source)
    return cell


def nbgrader(grade_id: str, *, cell_type="code", solution=False, locked=False, points=None):
    """Cell metadata of nbgrader's schema 3: a cell with points is graded."""
    data = {"cell_type": cell_type, "grade": points is not None, "grade_id": grade_id,
            "locked": locked, "schema_version": 3, "solution": solution, "task": False}
    return nbformat.from_dict(data if points is None else {**data, "points": points})


def _part(cell, name: str):
    """A part of a cell, without what running it adds."""
    if name != "metadata":
        return cell.get(name)
    return {key: value for key, value in cell.metadata.items() if key not in FROM_RUNNING}


def _digest(source: str) -> str:
    return hashlib.sha256(source.encode()).hexdigest()[:8]
