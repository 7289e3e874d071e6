"""Comparing a reader's array with the right one, and naming what differs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

SMALL = 36  # elements that are still printed whole


def same(a, b, rtol=1e-4, atol=1e-5) -> bool:
    """Whether two results have the same shape and, within rounding, the same values."""
    try:
        a, b = np.asarray(a), np.asarray(b)
        return a.shape == b.shape and bool(np.allclose(a, b, rtol=rtol, atol=atol, equal_nan=True))
    except (TypeError, ValueError):   # no numbers, or lists of different lengths in a list
        return False


def show(values) -> str:
    """A number or a small array as text, the same for every NumPy version."""
    values = np.asarray(values)
    if values.ndim == 0:
        return f"{values[()]:.6g}" if values.dtype.kind in "iuf" else str(values[()])
    if values.ndim > 2 and values.size == values.shape[-1] * values.shape[-2]:
        values = values.reshape(values.shape[-2:])   # one plane: print it as one
    width = max(len(f"{v:.6g}") for v in values.ravel())
    return np.array2string(values, formatter={"all": lambda v: f"{v:{width}.6g}"})


def name_shape(shape: tuple[int, ...], axes: str) -> str:
    """A shape with its axes named: (N=2, C=3, H=5, W=5).

    Parameters
    ----------
    shape : tuple of int
    axes : str
        Names separated by blanks; if their number is not the shape's, the bare shape is given.
    """
    names = axes.split()
    if len(names) != len(shape) or not names:
        return str(tuple(map(int, shape)))
    return "(" + ", ".join(f"{name}={size}" for name, size in zip(names, shape, strict=True)) + ")"


def shape_sentence(got: tuple[int, ...], expected: tuple[int, ...], axes: str) -> str:
    """One sentence on how two different shapes differ."""
    names = axes.split()
    if len(got) != len(expected):
        named = f" ({', '.join(names)})" if names else ""
        return f"The result has {_count(len(got), 'axis')}, expected {len(expected)}{named}."
    if len(names) != len(got):
        names = [f"axis {i}" for i in range(len(got))]
    differing = [f"{name} is {g} (expected {e})"
                 for name, g, e in zip(names, got, expected, strict=True) if g != e]
    return f"The result has the wrong shape: {', '.join(differing)}."


def first_difference(got, expected) -> tuple[int, ...]:
    """Index of the first element that differs."""
    wrong = ~np.isclose(got, expected, rtol=1e-4, atol=1e-5, equal_nan=True)
    return tuple(int(i) for i in np.argwhere(wrong)[0])


def value_sentence(got, expected, axes: str) -> str:
    """One sentence on how many values differ and where the first is.

    `axes` names the axes of an array, or the parts of a tuple of numbers.
    """
    got, expected = np.asarray(got), np.asarray(expected)
    if expected.ndim == 0:
        return "The result is wrong."
    if expected.ndim == 1 and len(axes.split()) == len(expected) > 1:   # the parts of a tuple
        return f"`{axes.split()[first_difference(got, expected)[0]]}` is wrong."
    wrong = int((~np.isclose(got, expected, rtol=1e-4, atol=1e-5, equal_nan=True)).sum())
    return (f"{wrong} of {_count(expected.size, 'value')} {'is' if wrong == 1 else 'are'} wrong; "
            f"the first is at {name_index(first_difference(got, expected), axes)}.")


def name_index(index: tuple[int, ...], axes: str) -> str:
    """An index with its axes named: [N=0, C=1, H=2, W=0]."""
    names = axes.split()
    if len(names) != len(index):
        return str(list(index))
    return "[" + ", ".join(f"{name}={i}" for name, i in zip(names, index, strict=True)) + "]"


def pattern(got, expected, axes: str) -> str:
    """What the wrong values have in common, as a sentence; '' if nothing is seen.

    Used when no stored mistake matches: it says what is true of the numbers and
    leaves the cause to the reader.
    """
    got, expected = np.asarray(got, dtype=float), np.asarray(expected, dtype=float)
    if got.shape != expected.shape:
        return ""
    return next(_patterns(got, expected, axes.split()), "")


def _patterns(got, expected, names) -> Iterator[str]:
    if not np.isfinite(got).all():
        yield ("Some values are infinite or not a number: something is divided by 0, or a maximum "
               "was taken over an empty window.")
        return
    if not got.any():
        yield "Every value is 0: nothing was added to the result, or it was set back."
        return
    if same(got, -expected):
        yield "Every value has the wrong sign."
    if same(got, np.trunc(expected)):
        yield "The values are cut to whole numbers: the result was made with an integer dtype."
    yield from _affine(got, expected)
    yield from _moved(got, expected, names)
    yield from _partly(got, expected, names)
    yield from _ends_early(got, expected, names)


def _affine(got, expected) -> Iterator[str]:
    """A constant factor or a constant difference (of values that are not all equal)."""
    if expected.size < 2 or np.ptp(expected) == 0:
        return
    factor = (got * expected).sum() / (expected * expected).sum()
    if factor and same(got, factor * expected):
        yield f"Every value is {factor:.4g} times the right one."
    offset = (got - expected).mean()
    if same(got, expected + offset):
        yield f"Every value is off by the same amount, {offset:+.4g}."


def _moved(got, expected, names) -> Iterator[str]:
    """The right values in other places."""
    for count in (1, 2):
        for axes in itertools.combinations(range(got.ndim), count):
            if same(np.flip(got, axes), expected):
                which = " and ".join(_name(names, axis) for axis in axes)
                yield f"The values are right, but {which} {_runs(count)} backwards."
    if got.ndim >= 2 and same(np.swapaxes(got, -1, -2), expected):
        yield f"The values are right, but {_name(names, -2)} and {_name(names, -1)} are swapped."
    if same(np.sort(got, axis=None), np.sort(expected, axis=None)):
        yield "The right values are all there, but in other places."


def _partly(got, expected, names) -> Iterator[str]:
    """Right in one part: at index 0 of an axis, or everywhere but at the rim."""
    wrong = ~np.isclose(got, expected, rtol=1e-4, atol=1e-5)
    for axis in range(got.ndim):
        others = tuple(i for i in range(got.ndim) if i != axis)
        first, *rest = wrong.any(axis=others)
        if not first and rest and all(rest):
            yield f"Index 0 of {_name(names, axis)} is right, every other index has errors."
    inner = (..., slice(1, -1), slice(1, -1))
    if got.ndim >= 2 and min(got.shape[-2:]) > 2 and not wrong[inner].any():
        yield "Only values at the rim are wrong: look at the padding and at the last window."


def _ends_early(got, expected, names) -> Iterator[str]:
    """Right up to some element, and 0 after it."""
    last = int(np.flatnonzero(got)[-1])
    if last < got.size - 1 and same(got.ravel()[:last + 1], expected.ravel()[:last + 1]):
        place = name_index(tuple(map(int, np.unravel_index(last, got.shape))), " ".join(names))
        yield (f"The values are right up to {place} and 0 after it: the loops end too early. Is "
               f"`return` inside a loop?")


def _name(names, axis) -> str:
    return f"axis {names[axis]}" if names else f"axis {axis}"


def _runs(count) -> str:
    return "runs" if count == 1 else "run"


def _count(number, noun) -> str:
    plural = {"axis": "axes"}.get(noun, f"{noun}s")
    return f"{number} {noun if number == 1 else plural}"
