"""`convnets labs` as a reader uses it."""

import re
import shutil

from convnets import cli, labs
from convnets.check import progress

import nbformat
import pytest


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A copy of lab 1, and a file of progress."""
    source = labs.root_of()
    copied = tmp_path / "labs"
    shutil.copytree(source / "01_convolution", copied / "01_convolution",
                    ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setenv("CONVNETS_PROGRESS", str(tmp_path / "labs.jsonl"))
    monkeypatch.chdir(tmp_path)
    make_blank(copied / "01_convolution")
    return copied


def make_blank(folder):
    nbformat.write(labs.master_module().build(folder / "master.md")["lab.ipynb"],
                   folder / "lab.ipynb")


def run(*arguments):
    return cli.main(["labs", *map(str, arguments)])


def solve(path, *names, code=None):
    """Put solutions, or other code, into a blank notebook."""
    notebook = nbformat.read(path, as_version=4)
    exercises = labs.load(path.parent).exercises
    for cell in notebook.cells:
        name = cell.metadata.get("nbgrader", {}).get("grade_id")
        if name in names:
            cell.source = code or exercises[name].solution
    nbformat.write(notebook, path)


def test_list(root, capsys):
    assert run("list") == 0
    out = capsys.readouterr().out
    assert "01_convolution: Convolution by hand, 40 minutes" in out
    assert "conv2d" in out and "●●●" in out


@pytest.mark.parametrize("name", ["1", "01", "convolution", "01_convolution"])
def test_names_of_a_lab(root, name):
    assert labs.find(name).name == "01_convolution"


@pytest.mark.parametrize(("arguments", "message"), [
    (["hint", "7", "conv2d"], "no lab '7'; there are: 01_convolution"),
    (["hint", "1", "conv3d"], "has no exercise 'conv3d'; there are: output_size, conv_plane"),
    (["hint", "1", "conv2d", "--number", "0"], "hints count from 1, got 0"),
    (["solution", "1", "x"], "has no exercise 'x'"),
    (["check", "nowhere.ipynb"], "nowhere.ipynb: no such notebook"),
    (["reset", "1"], "nobody to ask: add --yes"),
    (["--labs", "nowhere", "list"], "nowhere: no lab in it"),
])
def test_errors_are_one_line_and_status_1(root, capsys, arguments, message):
    assert run(*arguments) == 1
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1


def test_bad_usage_is_status_2(root):
    with pytest.raises(SystemExit) as error:
        run("juggle")
    assert error.value.code == 2


def test_a_notebook_away_from_its_lab(root, capsys):
    away = shutil.copy(root / "01_convolution" / "lab.ipynb", root.parent / "mine.ipynb")
    assert run("check", away) == 1
    assert "no checks.py beside it" in capsys.readouterr().err


def test_hints_come_in_order_then_the_solution(root, capsys):
    for number in (1, 2, 3):
        assert run("hint", "1", "conv2d") == 0
        assert f"Hint {number} of 3" in capsys.readouterr().out
    assert run("hint", "1", "conv2d") == 0
    assert "no more hints" in capsys.readouterr().out
    assert run("hint", "1", "conv2d", "--number", "2") == 0
    assert "Hint 2 of 3" in capsys.readouterr().out
    assert run("solution", "1", "conv2d") == 0
    assert "def conv2d" in capsys.readouterr().out
    assert progress.state(progress.path())["01_convolution"]["hints"] == {"conv2d": 3}


def test_hints_in_a_notebook_count_for_themselves(root):
    lab = labs.load(root / "01_convolution")
    texts = [repr(lab.hint("conv_plane")) for _ in range(4)]
    assert [text[:6] for text in texts[:3]] == ["Hint 1", "Hint 2", "Hint 3"]
    assert "check.solution('conv_plane')" in texts[3]
    assert repr(lab.hint("conv_plane", 1)) == texts[0]
    assert "def conv_plane" in repr(lab.solution("conv_plane"))
    assert lab.hint("conv_plane", 1)._repr_markdown_().startswith("**Hint 1 of 3.** ")
    assert lab.solution("conv_plane")._repr_markdown_().startswith("```python\n")


def test_hints_without_the_file_they_are_in(root, capsys):
    (root / "01_convolution" / "solution.ipynb").unlink()
    assert run("hint", "1", "conv2d") == 1
    assert "hints and solutions are read from it" in capsys.readouterr().err


def test_cells_wait_for_answers(root, capsys):
    lab = labs.load(root / "01_convolution")
    assert not lab.solved("output_size", "conv2d")
    assert "waits for output_size and conv2d" in capsys.readouterr().out
    lab.checks["output_size"](lambda size, k, s=1, p=0: (size + 2 * p - k) // s + 1)
    assert lab.solved("output_size") and not lab.solved("output_size", "conv2d")
    assert "waits for conv2d" in capsys.readouterr().out


def test_check_of_a_half_done_notebook(root, capsys):
    path = root / "01_convolution" / "lab.ipynb"
    solve(path, "output_size", "conv_plane")
    solve(path, "vertical_edges", code="def vertical_edges():\n"
          "    return np.array([[-1, -2, -1], [0, 0, 0], [1, 2, 1]], np.float32)")
    before = path.read_bytes()
    assert run("check", "1") == 1
    out = capsys.readouterr().out
    assert "✓ output_size" in out and "✓ conv_plane" in out
    assert "✗ vertical_edges" in out and "compares rows" in " ".join(out.split())
    assert "○ conv2d: not attempted" in out
    assert "lab.ipynb: 2 of 5 exercises solved" in out
    assert path.read_bytes() == before
    assert list(progress.state(progress.path())["01_convolution"]["solved"]) == \
        ["output_size", "conv_plane"]
    assert run("progress") == 0
    out = capsys.readouterr().out
    assert "2/5" in out and "13/40" in out and "✓output_size" in out and "·conv2d" in out


def test_check_names_the_cell_that_failed(root, capsys):
    path = root / "01_convolution" / "lab.ipynb"
    solve(path, "output_size", code="def output_size(size, k, s=1, p=0)\n    return 1")
    assert run("check", path) == 1
    assert re.search(r"! cell \d+ raised SyntaxError: expected ':'", capsys.readouterr().out)


def test_check_ends_a_loop_without_end(root, capsys):
    path = root / "01_convolution" / "lab.ipynb"
    solve(path, "conv_plane", code="def conv_plane(x, w):\n    while True:\n        pass")
    solve(path, "output_size")
    assert run("check", "1", "--timeout", "5") == 1
    out = capsys.readouterr().out
    assert "✓ output_size" in out and "- conv2d: its check did not run" in out
    assert "did not end within 5 s" in out


def test_reset_keeps_a_backup_and_forgets(root, capsys):
    folder = root / "01_convolution"
    solve(folder / "lab.ipynb", "output_size")
    mine = (folder / "lab.ipynb").read_bytes()
    progress.solved(progress.path(), "01_convolution", "output_size")
    assert run("reset", "1", "--yes") == 0
    assert run("reset", "1", "--yes") == 0
    assert (folder / "lab-backup-1.ipynb").read_bytes() == mine
    assert (folder / "lab-backup-2.ipynb").exists()
    assert not labs.master_module().edited(nbformat.read(folder / "lab.ipynb", as_version=4))
    assert progress.state(progress.path()) == {}


def test_reset_that_is_declined_changes_nothing(root, monkeypatch):
    path = root / "01_convolution" / "lab.ipynb"
    before = path.read_bytes()
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: "")
    assert run("reset", "1") == 1
    assert path.read_bytes() == before and not list(path.parent.glob("lab-backup-*"))


def test_build_does_not_overwrite_a_readers_work(root, capsys):
    path = root / "01_convolution" / "lab.ipynb"
    solve(path, "output_size")
    mine = path.read_bytes()
    assert run("build") == 1
    assert "left alone, somebody has worked in it" in capsys.readouterr().out
    assert path.read_bytes() == mine


def test_build_writes_what_the_master_says(root, capsys):
    folder = root / "01_convolution"
    text = (folder / "master.md").read_text("utf-8")
    text = text.replace("# Convolution by hand", "# By hand", 1)
    (folder / "master.md").write_text(text, "utf-8")
    assert run("build", "--check", "1") == 1
    assert "not what the master gives" in capsys.readouterr().out
    assert run("build", "1") == 0
    assert run("build", "--check", "1") == 0
    notebook = nbformat.read(folder / "lab.ipynb", as_version=4)
    assert notebook.cells[0].source.startswith("# By hand")


def test_progress_that_is_off(root, monkeypatch, capsys):
    monkeypatch.setenv("CONVNETS_PROGRESS", "off")
    assert run("progress") == 1
    assert "switched off" in capsys.readouterr().err
    assert run("hint", "1", "conv2d") == 0


def test_outside_of_any_repository(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(labs, "__file__", str(tmp_path / "labs.py"))
    assert run("list") == 1
    assert "run this inside the repository" in capsys.readouterr().err
