"""Notebooks are stored in one form, with nothing in them that differs from run to run."""

import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "book/_tools"))
import notebooks

PATHS = notebooks.find()


@pytest.mark.parametrize("path", PATHS, ids=[str(p.relative_to(notebooks.ROOT)) for p in PATHS])
def test_every_notebook_is_stored_in_normal_form(path):
    text = path.read_text(encoding="utf-8")
    notebook = notebooks.normalise(nbformat.reads(text, as_version=4))
    assert nbformat.writes(notebook).rstrip("\n") + "\n" == text, "run make notebooks"
    assert list(notebooks.problems(notebook)) == []
    assert all(c.execution_count for c in notebook.cells if c.cell_type == "code" and c.source)


def cell(source="x", **output):
    return new_code_cell(source, outputs=[new_output(**output)] if output else [])


@pytest.mark.parametrize(
    "bad, complaint",
    [
        (cell(output_type="stream", name="stderr", text="careful"), "stderr"),
        (cell(output_type="stream", text="<object object at 0x7f1234567890>"), "address"),
        (cell(output_type="stream", text=f"{notebooks.ROOT}/book/x.py"), "path"),
        (cell(output_type="stream", text="\x1b[31mred\x1b[0m"), "colours"),
        (cell("plot();"), ";"),
    ],
)
def test_what_would_differ_elsewhere_is_named(bad, complaint):
    notebook = new_notebook(cells=[cell("good"), bad])
    (found,) = notebooks.problems(notebook)
    assert found.startswith("cell 2 of 2") and complaint in found
    bad.metadata.tags = ["nbval-ignore-output"]
    assert list(notebooks.problems(notebook)) == []


def test_tracebacks_hide_the_machine():
    lines = [f"\x1b[31mFile\x1b[0m {folder}/a/b.py:3" for folder, _ in notebooks.FOLDERS]
    bad = cell(output_type="error", ename="E", evalue="no", traceback=lines)
    notebook = notebooks.normalise(new_notebook(cells=[bad]))
    for line, (_, name) in zip(
        notebook.cells[0].outputs[0].traceback, notebooks.FOLDERS, strict=True
    ):
        assert line == f"File {name}/a/b.py:3"


def test_widget_names_are_numbers_in_the_order_of_creation():
    first, second = "f" * 32, "0123456789abcdef" * 2
    view = {notebooks.WIDGET_VIEW: {"model_id": second}}
    shown = cell(output_type="display_data", data=view)
    state = {first: {"state": {}}, second: {"state": {"layout": f"IPY_MODEL_{first}"}}}
    notebook = new_notebook(
        cells=[shown], metadata={"widgets": {notebooks.WIDGETS: {"state": state}}}
    )
    notebook = notebooks.normalise(notebook)
    one, two = f"{1:032x}", f"{2:032x}"
    assert notebook.cells[0].outputs[0].data[notebooks.WIDGET_VIEW]["model_id"] == two
    state = notebook.metadata.widgets[notebooks.WIDGETS]["state"]
    assert sorted(state) == [one, two] and state[two]["state"]["layout"] == f"IPY_MODEL_{one}"


def test_cells_keep_their_names_and_get_distinct_ones():
    cells = [cell("a"), cell("a"), cell("a")]
    cells[0]["id"] = "kept"
    notebook = new_notebook(cells=cells)
    for other in cells[1:]:
        del other["id"]
    notebooks.set_cell_ids(notebook)
    names = [c.id for c in notebook.cells]
    assert names[0] == "kept" and len(set(names)) == 3
    notebooks.set_cell_ids(notebook)
    assert [c.id for c in notebook.cells] == names


def test_a_failing_notebook_stays_as_it_was(tmp_path, capsys):
    path = tmp_path / "fails.ipynb"
    nbformat.write(new_notebook(cells=[cell("x = 1"), cell("x / 0")]), path)
    before = path.read_bytes()
    assert notebooks.main([str(path)]) == 1
    said = capsys.readouterr().out
    assert "cell 2 of 2" in said and "ZeroDivisionError" in said
    assert path.read_bytes() == before


def test_a_second_run_changes_nothing(tmp_path, capsys):
    path = tmp_path / "twice.ipynb"
    nbformat.write(new_notebook(cells=[cell("for i in range(3): print(i, flush=True)")]), path)
    assert notebooks.main([str(path)]) == 0
    stored = path.read_bytes()
    assert notebooks.main([str(path)]) == 0
    assert path.read_bytes() == stored
    assert "unchanged" in capsys.readouterr().out
