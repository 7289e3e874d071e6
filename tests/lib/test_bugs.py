"""Planted bugs: each trains without an error, and leaves its signature."""

from pathlib import Path

from convnets import bugs, cli

import numpy as np
import pytest

STORED = Path(__file__).parents[2] / "book/results/bug-signatures.json"
PARTS = bugs.digits(200, 100)


@pytest.fixture(scope="module")
def stored():
    return {bug["name"]: bug for bug in bugs.load(STORED)["bugs"]}


@pytest.mark.parametrize("name", bugs.BUGS)
def test_the_record_is_repeatable(name, stored):
    """The first steps of each stored run, run again."""
    bug = bugs.BUGS[name]
    _, losses = bugs.train(bug, *bugs.digits()[0], steps=5)
    assert np.allclose(losses, stored[name]["curve"][:5], rtol=0.01)
    assert (bug.what, bug.sign) == (stored[name]["what"], stored[name]["sign"])


def test_the_record_shows_the_signs(stored):
    healthy = stored["healthy"]
    assert healthy["accuracy"] > 0.9 and healthy["by_heart"] < 0.01 and healthy["changed"] == 0
    for name, bug in stored.items():
        far = bug["curve"][0] > 10
        assert far == (name == "weights too large")
        assert (bug["changed"] > 0) == (name == "always training")
        silent = [layer["name"] for layer in bug["layers"] if layer["step"] is None]
        assert silent == {"graph cut": ["conv1/W", "conv2/W"],
                          "layers in a list": ["conv2/W", "conv3/W"]}.get(name, [])
        assert (bug["by_heart"] > 1.46) == (name == "two softmaxes")
        if name not in ("healthy", "always training"):
            assert bug["accuracy"] < healthy["accuracy"]
    assert stored["labels apart"]["accuracy"] < 0.25
    assert np.mean(stored["labels apart"]["curve"][-20:]) > 2


def test_a_signature(stored):
    bug = bugs.signature(bugs.BUGS["graph cut"], *PARTS, steps=3)
    assert bug.keys() == stored["graph cut"].keys()
    assert len(bug["curve"]) == 3
    assert [layer["gradient"] is None for layer in bug["layers"]] == [True, True] + [False] * 3


def test_healthy_and_always_training_are_one_until_asked_alone():
    curves = [bugs.train(bugs.BUGS[name], *PARTS[0], steps=4)[1]
              for name in ("healthy", "always training")]
    assert curves[0] == curves[1]


def test_gradients_that_add_up_are_right_once():
    clear, added = (bugs.train(bugs.BUGS[name], *PARTS[0], steps=4)[1]
                    for name in ("healthy", "gradients add up"))
    assert clear[:2] == added[:2] and clear[2] != added[2]


def test_record_and_load(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bugs, "BUGS", {n: bugs.BUGS[n] for n in ("healthy", "two softmaxes")})
    monkeypatch.setattr(bugs, "digits", lambda: PARTS)
    path = tmp_path / "signs.json"
    assert cli.main(["bugs", "--record", str(path), "--steps", "2"]) in (0, None)
    run = bugs.load(path)
    assert run["command"] == f"convnets bugs --record {path} --steps 2"
    assert [bug["name"] for bug in run["bugs"]] == ["healthy", "two softmaxes"]
    assert "two softmaxes" in capsys.readouterr().out


def test_load_of_something_else(tmp_path):
    path = tmp_path / "other.json"
    path.write_text("{}")
    with pytest.raises(ValueError, match="convnets bugs --record"):
        bugs.load(path)
