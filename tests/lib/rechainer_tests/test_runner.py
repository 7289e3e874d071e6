"""python -m rechainer"""

import pytest

OLD = """\
import os, sys
import numpy as np
import chainer
import helper

class Net(chainer.Chain):
    pass

print(__name__, sys.argv[1:], os.path.basename(__file__), sys.path[0] == os.path.dirname(__file__))
print(np.float is float, np.Inf, helper.LIMIT, sys.modules["__main__"].Net is Net)
if "exit" in sys.argv:
    sys.exit(3)
if "message" in sys.argv:
    sys.exit("a message")

def fail():
    raise ValueError("on purpose")

if "fail" in sys.argv:
    fail()
"""


@pytest.fixture
def old(tmp_path):
    place = tmp_path / "old program"
    place.mkdir()
    (place / "old.py").write_text(OLD)
    (place / "helper.py").write_text("import numpy\nLIMIT = numpy.PINF\n")
    return "old program/old.py"


def test_a_script_runs_as_it_is(old, python):
    lines = python(None, "-m", "rechainer", old, "-a", "--b=1").stdout.splitlines()
    assert lines == ["__main__ ['-a', '--b=1'] old.py True", "True inf inf True"]


@pytest.mark.parametrize(("how", "status"), [("exit", 3), ("message", 1), ("fail", 1)])
def test_its_exit_status_is_kept(how, status, old, python):
    python(None, "-m", "rechainer", old, how, status=status)


def test_its_traceback_begins_with_the_script(old, python):
    lines = python(None, "-m", "rechainer", old, "fail", status=1).stderr.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1].strip().startswith("File") and "old.py" in lines[1]
    assert lines[-1] == "ValueError: on purpose"
    assert not any("rechainer" in line or "runpy" in line for line in lines)


def test_its_message_is_its_last_word(old, python):
    assert python(None, "-m", "rechainer", old, "message", status=1).stderr == "a message\n"


def test_a_module_runs_as_it_is(tmp_path, python):
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").touch()
    (tmp_path / "pkg" / "train.py").write_text(
        "import sys, numpy, chainer\nprint(__name__, __package__, numpy.int, sys.argv[1:])\n"
    )
    done = python(None, "-m", "rechainer", "-m", "pkg.train", "x")
    assert done.stdout == "__main__ pkg <class 'int'> ['x']\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.py"], "'missing.py' is not a file"),
        (["."], "'.' is not a file"),
        (["-m", "no_such_module"], "no module named 'no_such_module'"),
        (["-m"], "unknown option '-m', or nothing after it"),
        (["--speed"], "unknown option '--speed'"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, message, python):
    done = python(None, "-m", "rechainer", *arguments, status=2)
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr


def test_a_syntax_error_is_shown_at_its_line(tmp_path, python):
    (tmp_path / "bad.py").write_text("x = 1\ndef f(:\n")
    lines = python(None, "-m", "rechainer", "bad.py", status=1).stderr.splitlines()
    assert "bad.py" in lines[0] and "line 2" in lines[0]
    assert lines[-1].startswith("SyntaxError")


def test_help_and_info(python):
    assert "usage: python -m rechainer script.py" in python(None, "-m", "rechainer").stdout
    assert "chainer    7.8.1" in python(None, "-m", "rechainer", "--info").stdout
