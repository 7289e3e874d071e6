"""The stages of functions and of pairs: what is said before any stored mistake comes in."""

from convnets.check import Function, Lab, Mistake, Pair, given, run

import numpy as np
import pytest


def double(x):
    return 2 * x


def tripled(x):
    return 3 * x


def both(x):
    return 2 * x, x + 1


def no_arithmetic(*_):
    return "2 · 1 = 2"


CASES = (given(x=np.float32([1, 2])), given(x=np.float32([2, 5])), given(x=np.float32([3, 3])))
DOUBLE = Function(reference=double, cases=CASES, by_hand=no_arithmetic,
                  mistakes=(Mistake("tripled", "Times two.", tripled),))


def said(function, answer):
    report = run(function.reference.__name__, function.stages(answer))
    assert report.status == "not yet"
    return " ".join(str(report).split())


@pytest.fixture
def pair(tmp_path):
    lab = Lab(tmp_path / "checks.py")
    spec = Pair(reference=both, names=("doubled", "next"), axes=("N", "N"), given_axes={"x": "N"},
                cases=CASES, by_hand=no_arithmetic, shapes="One number for each.", lab=lab)
    lab.check(Mistake("swapped", "They have changed places.", lambda x: both(x)[::-1]),
              Mistake("squared", "Not squared.", lambda x: (2 * x, (x + 1) ** 2)))(both)
    return spec


def test_right_answers_pass(pair):
    for spec, answer in ((DOUBLE, lambda x: x + x), (pair, lambda x: [x + x, 1 + x])):
        assert run("it", spec.stages(answer)).ok


@pytest.mark.parametrize("constant", [np.float32([3, 6]), np.float32([2, 4]), np.zeros(2, "f")],
                         ids=["as a mistake in one case", "right in the first case", "never right"])
def test_a_constant_is_called_one(constant):
    text = said(DOUBLE, lambda x: constant.copy())
    assert "Every call gives this same result. Is it written into the code?" in text
    assert "Times two." not in text


def test_a_constant_of_another_shape_is_called_one():
    text = said(DOUBLE, lambda x: np.zeros(5, np.float32))
    assert "axis 0 is 5 (expected 2)" in text and "written into the code" in text


@pytest.mark.parametrize("ragged", [[[1, 2], [3]], [[1], 2], ([1, 2], [3])])
def test_a_list_of_rows_of_different_lengths(ragged):
    assert "The result is an object of type" in said(DOUBLE, lambda x: ragged)


def test_another_kind_in_a_later_case():
    text = said(DOUBLE, lambda x: 2 * x if x[0] < 3 else [[1, 2], [3]])
    assert "an object of type list, expected an array" in text


def test_a_tuple_of_arrays_is_not_called_numbers():
    spec = Function(reference=both, cases=CASES, by_hand=no_arithmetic)
    assert "expected 2 arrays" in said(spec, double)


@pytest.mark.parametrize(("compare", "cause"), [
    (lambda x: x if x > 0 else -x, "`if` wants one"),
    (lambda x: 2 * x if x == 2 * x else x, "`np.array_equal(a, b)`"),
])
def test_the_truth_of_an_array(compare, cause):
    assert cause in said(DOUBLE, compare)


@pytest.mark.parametrize(("answer", "phrases"), [
    (lambda x: (x + 1, 2 * x), ["They have changed places.", "doubled: "]),
    (lambda x: (2 * x, (x + 1) ** 2), ["next: 2 of 2 values are wrong", "Not squared."]),
    (lambda x: 2 * x, ["expected two arrays", "`return doubled, next`"]),
    (lambda x: (2 * x, (x + 1)[:, None]), ["next: The result has 2 axes", "One number for each."]),
    (lambda x: (2 * x, (x + 1)[::-1]), ["axis N runs backwards", "by hand 2 · 1 = 2"]),
    (lambda x: (2 * x, [[1], [2, 3]]), ["type list, expected an array"]),
    (lambda x: x.nothing, ["AttributeError", "no such attribute"]),
])
def test_pairs(pair, answer, phrases):
    for phrase in phrases:
        assert phrase in said(pair, answer)
