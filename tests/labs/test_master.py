"""One master, two notebooks: the stored ones are what the master gives."""

import copy
import re

from convnets import labs
from convnets.check import master

import nbformat
import pytest

GOOD = """\
---
kernelspec: {display_name: Python 3, language: python, name: python3}
---

# A lab

% exercise: double

```{code-cell} ipython3
---
exercises:
- name: double
  title: Twice
  difficulty: 1
  minutes: 2
  points: 1
  hints: [one, two, three]
---
def double(x):
    ### BEGIN SOLUTION
    return 2 * x
    ### END SOLUTION
```

```{code-cell} ipython3
:check: double
check.double(double)
```

+++ {"reflection": "why", "points": 2}

Because.
"""


def build(tmp_path, text=GOOD):
    path = tmp_path / "master.md"
    path.write_text(text, "utf-8")
    return master.build(path)


def test_stored_notebooks_are_what_the_master_gives(folder):
    for name, notebook in master.build(folder / "master.md").items():
        stored = nbformat.read(folder / name, as_version=4)
        differing = master.differences(notebook, stored)
        assert not differing, (f"{folder.name}/{name}: run `convnets labs build`, or, if you have "
                               f"solved the lab in place, this is as it should be: {differing}")


def test_building_twice_gives_the_same_text(folder):
    first, second = (master.build(folder / "master.md") for _ in range(2))
    for name in first:
        assert nbformat.writes(first[name]) == nbformat.writes(second[name])


def test_stored_notebooks_hold_outputs_for_every_check(folder):
    for name in ("lab.ipynb", "solution.ipynb"):
        cells = nbformat.read(folder / name, as_version=4).cells
        checks = [c for c in cells if c.metadata.get("nbgrader", {}).get("locked")]
        assert checks and all(len(c.outputs) == 1 for c in checks)


def test_the_table_of_labs_is_current(convolution):
    assert not list(labs.update_table(convolution.folder.parent, only_compare=True))


def test_the_example_on_the_page_is_a_real_report(convolution):
    page = (convolution.folder.parent / "index.md").read_text("utf-8")
    mistake = next(m for m in convolution.mistakes["conv2d"] if m.title == "only the last channel")
    report = str(convolution.checks["conv2d"](mistake.answer))
    assert report.rsplit("\n", 1)[0] in page


def test_exercises_are_complete(lab):
    assert list(lab.exercises) == list(lab.checks)
    for exercise in lab.exercises.values():
        assert len(exercise.hints) == 3 and all(exercise.hints)
        assert "###" not in exercise.solution and exercise.solution


def test_blank_and_solved_cells(tmp_path):
    built = build(tmp_path)
    blank, solved = (built[name].cells for name in ("lab.ipynb", "solution.ipynb"))
    assert blank[1].source == "def double(x):\n    ...  # your code here"
    assert "return 2 * x" in solved[1].source and "### BEGIN SOLUTION" in solved[1].source
    assert blank[3].source == master.ANSWER and solved[3].source == "Because."
    assert "`double` · difficulty ●○○ (easy) · 2 minutes" in blank[0].source
    assert "exercises" not in blank[1].metadata


def test_nbgrader_metadata(folder):
    seen = set()
    for cell in nbformat.read(folder / "solution.ipynb", as_version=4).cells:
        data = cell.metadata.get("nbgrader")
        if not data:
            continue
        assert set(data) >= {"schema_version", "grade", "grade_id", "locked", "solution", "task"}
        assert data["schema_version"] == 3 and not data["task"]
        assert data["cell_type"] == cell.cell_type
        assert data["grade"] == ("points" in data) and data.get("points", 1) > 0
        assert re.fullmatch(r"[A-Za-z0-9_-]+", data["grade_id"])
        assert data["grade_id"] not in seen
        seen.add(data["grade_id"])
        if cell.cell_type == "markdown":
            assert data["grade"] and data["solution"]
        else:
            assert data["grade"] == data["locked"] != data["solution"]
    assert len(seen) >= 9


@pytest.mark.parametrize(("old", "new", "message"), [
    ("    ### END SOLUTION\n", "", "without its partner"),
    ("    ### BEGIN SOLUTION\n", "", "without its partner"),
    ("  minutes: 2\n", "", "has the fields"),
    ("[one, two, three]", "[one, two]", "needs three hints"),
    ("difficulty: 1", "difficulty: 7", "difficulty from 1 to 3"),
    (":check: double\n", "", "must occur once"),
    (":check: double\n", ":check: treble\n", "must occur once"),
    ("- name: double", "- name: single", "must occur once"),
])
def test_faults_of_a_master_are_named(tmp_path, old, new, message):
    with pytest.raises(master.MasterError, match=message):
        build(tmp_path, GOOD.replace(old, new))


def test_outputs_stay_where_the_source_is_the_same(tmp_path):
    path = tmp_path / "solution.ipynb"
    first = build(tmp_path)["solution.ipynb"]
    first.cells[1].outputs = [nbformat.v4.new_output("stream", text="kept")]
    first.cells[2].outputs = [nbformat.v4.new_output("stream", text="lost")]
    first.cells[2].metadata["mystnb"] = {"image": {"alt": "x"}}
    assert master.write(first, path)
    changed = build(tmp_path, GOOD.replace("check.double(double)", "check.double(double)  # new"))
    assert master.write(changed["solution.ipynb"], path)
    cells = nbformat.read(path, as_version=4).cells
    assert cells[1].outputs[0].text == "kept" and cells[2].outputs == []
    assert not master.write(changed["solution.ipynb"], path)


def test_what_running_adds_is_no_difference(tmp_path):
    built = build(tmp_path)["lab.ipynb"]
    ran = copy.deepcopy(built)
    ran.cells[1].metadata["mystnb"] = {"image": {"alt": "x"}}
    ran.cells[1].execution_count = 3
    assert not master.differences(built, ran) and not master.edited(ran)
    ran.cells[1].source += "\n    return x"
    assert master.differences(built, ran) == [f"cell 2 ({ran.cells[1].id}): source differs"]
    assert master.edited(ran)


def test_a_cell_of_ones_own_counts_as_edited(tmp_path):
    built = build(tmp_path)["lab.ipynb"]
    built.cells.append(nbformat.v4.new_code_cell("check.hint('double')"))
    assert master.edited(built)


def test_two_equal_cells_are_refused(tmp_path):
    cell = "\n```{code-cell} ipython3\nx = 1\n```\n"
    with pytest.raises(master.MasterError, match="same text"):
        build(tmp_path, GOOD + cell + cell)


def stored_marks(path):
    """Return {exercise: mark} of what the checks of a stored notebook say; no cell may have raised.

    The stored outputs are what running it gives: nbval runs each notebook and compares them.
    """
    notebook = nbformat.read(path, as_version=4)
    assert not labs.first_error(notebook)
    said = "\n".join(output.get("data", {}).get("text/plain", "")
                     for cell in notebook.cells for output in cell.get("outputs", ()))
    return {name: mark for mark, name in re.findall(r"^([✓✗○]) (\w+): ", said, re.M)}


@pytest.mark.parametrize(("name", "mark"), [("lab", "○"), ("solution", "✓")])
def test_nothing_is_attempted_in_the_blank_lab_and_all_solved_in_the_solution(
        folder, lab, name, mark):
    marks = stored_marks(folder / f"{name}.ipynb")
    assert list(marks) == list(lab.checks)
    assert set(marks.values()) == {mark}
