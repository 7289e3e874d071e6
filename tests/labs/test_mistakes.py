"""Right answers pass, and every stored wrong answer gets its own message."""

from pathlib import Path

from convnets import labs
from convnets.check import CheckFailed

import numpy as np
import pytest

ROOT = Path(__file__).parents[2] / "labs"
ALL = {folder.name: labs.load(folder) for folder in labs.folders_in(ROOT)}
MISTAKES = [pytest.param(lab, name, mistake, id=f"{lab.name}-{name}-{mistake.title}")
            for lab in ALL.values() for name, mistakes in lab.mistakes.items()
            for mistake in mistakes]
EXERCISES = [pytest.param(lab, name, id=f"{lab.name}-{name}")
             for lab in ALL.values() for name in lab.checks]


@pytest.mark.parametrize(("lab", "name", "mistake"), MISTAKES)
def test_a_stored_mistake_gets_its_message(lab, name, mistake):
    report = lab.checks[name](mistake.answer)
    assert report.status == "not yet"
    assert report.finding.rows["likely cause"] == mistake.cause
    assert " ".join(mistake.cause.split()) in " ".join(str(report).split())


@pytest.mark.parametrize(("lab", "name"), EXERCISES)
def test_messages_and_titles_of_an_exercise_are_distinct(lab, name):
    mistakes = lab.mistakes[name]
    assert len(mistakes) >= 6
    assert len({m.title for m in mistakes}) == len(mistakes)
    # Two ways into the same mistake may share their message; never more than one pair.
    assert len({m.cause for m in mistakes}) >= len(mistakes) - 1


@pytest.mark.parametrize(("lab", "name"), EXERCISES)
def test_a_mistake_raises_only_when_asked_to(lab, name, monkeypatch):
    wrong = lab.mistakes[name][0].answer
    lab.checks[name](wrong)
    with pytest.raises(CheckFailed, match=name):
        lab.checks[name](wrong, strict=True)
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    with pytest.raises(CheckFailed, match=name):
        lab.checks[name](wrong)


@pytest.mark.parametrize(("lab", "name"), EXERCISES)
def test_a_check_leaves_random_numbers_alone(lab, name):
    np.random.seed(5)
    expected = np.random.uniform(size=3)
    np.random.seed(5)
    lab.checks[name](lab.mistakes[name][0].answer)
    assert (np.random.uniform(size=3) == expected).all()


@pytest.mark.parametrize(("lab", "name"), EXERCISES)
def test_reports_are_the_same_each_time(lab, name):
    wrong = lab.mistakes[name][-1].answer
    first, second = lab.checks[name](wrong), lab.checks[name](wrong)
    assert str(first) == str(second)
    assert first._repr_html_() == second._repr_html_()
