"""The file of progress survives kills, two writers and damage, and nothing else writes it."""

import json
import os
import signal
import subprocess
import sys
import time

from convnets.check import progress

import pytest

WRITER = """
import itertools, pathlib, sys
sys.path.insert(0, {lib!r})
import importlib.util
spec = importlib.util.spec_from_file_location("progress", {module!r})
progress = importlib.util.module_from_spec(spec)
spec.loader.exec_module(progress)
file, who, count = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
for number in itertools.count() if count == 0 else range(count):
    progress.append(file, {{"event": "solved", "lab": who, "exercise": f"e{{number}}"}})
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    path = tmp_path / "state" / "labs.jsonl"
    monkeypatch.setenv("CONVNETS_PROGRESS", str(path))
    return path


def start_writer(tmp_path, file, who, count):
    script = tmp_path / "writer.py"
    script.write_text(WRITER.format(lib="", module=progress.__file__))
    return subprocess.Popen([sys.executable, script, file, who, str(count)])


def test_two_writers_lose_nothing(tmp_path, file):
    writers = [start_writer(tmp_path, file, who, 300) for who in ("a", "b", "c")]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    state = progress.state(file)
    assert {who: len(state[who]["solved"]) for who in "abc"} == {"a": 300, "b": 300, "c": 300}


def test_a_kill_loses_at_most_the_last_line(tmp_path, file):
    for _ in range(5):
        writer = start_writer(tmp_path, file, "a", 0)
        while not file.exists() or file.stat().st_size < 2000:
            time.sleep(0.01)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        size = len(progress.events(file))
        progress.solved(file, "after", "kill")
        assert len(progress.events(file)) == size + 1
        assert "kill" in progress.state(file)["after"]["solved"]
        file.unlink()


@pytest.mark.parametrize("damage", [
    b'\n{"event": "solved", "lab": "b", "exer', b"\x00\xff\xfe\n", b"[]\n", b"null\n", b"17\n",
    b'{"event": "unknown", "lab": "b"}\n', b'{"event": "solved", "lab": "b"}\n'])
def test_damaged_lines_are_skipped_and_new_ones_kept(file, damage):
    progress.solved(file, "a", "one")
    with file.open("ab") as stream:
        stream.write(damage)
    progress.solved(file, "a", "two")
    assert list(progress.state(file)) == ["a"]
    assert list(progress.state(file)["a"]["solved"]) == ["one", "two"]


def test_events_are_recorded_once(file):
    for _ in range(3):
        progress.solved(file, "a", "one")
        progress.hint(file, "a", "one", 2)
        progress.hint(file, "a", "one", 1)
    assert len(progress.events(file)) == 2
    assert progress.state(file)["a"]["hints"] == {"one": 2}


def test_reset_forgets_one_lab(file):
    progress.solved(file, "a", "one")
    progress.solved(file, "b", "one")
    progress.reset(file, "a")
    assert list(progress.state(file)) == ["b"]
    progress.solved(file, "a", "two")
    assert list(progress.state(file)["a"]["solved"]) == ["two"]


def test_lines_are_json_with_a_date(file):
    progress.solved(file, "a", "one")
    (event,) = [json.loads(line) for line in file.read_text().splitlines() if line]
    assert event["event"] == "solved" and len(event["date"]) == len("2000-01-01")


@pytest.mark.parametrize(("environment", "records"), [
    ({}, False),                                                      # tests, builds, nbval
    ({"JPY_SESSION_NAME": "/x/labs/01_convolution/lab.ipynb"}, True),
    ({"JPY_SESSION_NAME": "/x/labs/01_convolution/solution.ipynb"}, False),
    ({"JPY_SESSION_NAME": "/x/lab.ipynb", "CI": "true"}, False),
    ({"JPY_SESSION_NAME": "/x/lab.ipynb", "CONVNETS_PROGRESS": "off"}, False),
    ({"CONVNETS_PROGRESS": "/x/chosen.jsonl"}, True),
])
def test_who_records(monkeypatch, environment, records):
    for name in ("CI", "JPY_SESSION_NAME", "CONVNETS_PROGRESS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert (progress.session_path() is not None) == records


def test_the_browser_records_nothing(monkeypatch):
    monkeypatch.delenv("CONVNETS_PROGRESS")
    monkeypatch.setenv("JPY_SESSION_NAME", "/x/lab.ipynb")
    monkeypatch.setattr(sys, "platform", "emscripten")
    assert progress.session_path() is None


def test_the_file_is_outside_the_repository(monkeypatch, tmp_path):
    monkeypatch.delenv("CONVNETS_PROGRESS")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert progress.path() == tmp_path / "convnets" / "labs.jsonl"


def test_a_passed_check_is_recorded(file, convolution):
    mistake = convolution.mistakes["output_size"][0]
    convolution.checks["output_size"](mistake.answer)
    assert not file.exists()
    convolution.checks["output_size"](lambda size, k, s=1, p=0: (size + 2 * p - k) // s + 1)
    assert list(progress.state(file)["01_convolution"]["solved"]) == ["output_size"]


def test_a_file_that_cannot_be_written_disturbs_no_check(monkeypatch, tmp_path, convolution):
    (tmp_path / "in_the_way").write_text("")
    monkeypatch.setenv("CONVNETS_PROGRESS", str(tmp_path / "in_the_way" / "labs.jsonl"))
    assert convolution.checks["output_size"](lambda size, k, s=1, p=0: (size + 2 * p - k) // s + 1)


def test_only_the_owner_may_read_it(file):
    progress.solved(file, "a", "one")
    if os.name == "posix":
        assert file.stat().st_mode & 0o077 == 0
