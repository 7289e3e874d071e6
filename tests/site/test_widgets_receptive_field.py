"""The receptive-field explorer in a real browser: it shows what the gradient shows."""

import random

import convnets  # noqa: F401  before chainer
from convnets import inspect, models, widgets
from convnets.widgets._receptive_field import stacks

import chainer
import chainer.functions as F
import numpy as np
import pytest

pytest_plugins = ["widget_pages"]
pytestmark = pytest.mark.site


def table(page):
    """Names of the layers, and their (output size, field, jump, weights)."""
    cells = "rows => rows.map(row => [...row.cells].map(cell => cell.innerText))"
    for name, _, *others in page.locator("tbody tr").evaluate_all(cells):
        size, *counts = others[4:8]
        yield name, (int(size.split(" × ")[0]), *map(int, counts))


@pytest.mark.parametrize(
    "stack, model, shape",
    [
        ("LeNet5", lambda: models.LeNet5(), (1, 28, 28)),
        ("VGG16", lambda: models.VGG("vgg16", 10, (3, 64, 64), 8), (3, 64, 64)),
        ("ResNet20, first 9", lambda: models.ResNet20(), (2, 3, 32, 32)),
    ],
)
def test_fields_are_those_of_the_models(show, stack, model, shape):
    page = show(widgets.receptive_field(stack))
    if not page.get_by_role("table").is_visible():
        page.locator("summary").click()
    shown = list(table(page))
    expected = inspect.receptive_fields(model(), shape)[: len(shown)]
    assert [row[1][1:3] for row in shown] == [tuple(row[2:]) for row in expected]
    for (name, _), (expected_name, kind, *_) in zip(shown, expected, strict=True):
        assert name == expected_name or (kind == "max pooling" and name.startswith("pool"))
    if stack != "ResNet20, first 9":
        windows = ("convolution", "max pooling")
        rows = inspect.summary(model(), shape).rows
        sizes = [row.out_shape[2] for row in rows if row.kind in windows]
        scale = stacks()[stack]["size"] / shape[-1]  # VGG16 is drawn for 224 pixels
        assert [row[1][0] for row in shown] == [size * scale for size in sizes]


def gradient_rows(stack, layer, at):
    """Rows and columns of the input on which a value depends, found by backpropagation."""
    x = chainer.Variable(np.zeros((1, 1, stack["size"], stack["size"]), "f"))
    h = x
    for one in stack["layers"][:layer]:
        w = np.ones((1, 1, one["k"], one["k"]), "f")
        h = F.convolution_2d(h, w, stride=one["s"], pad=one["p"], dilate=one["d"],
                             cover_all=one["cover"])  # fmt: skip
    assert h.shape[2] > max(at)
    h[0, 0, at[0], at[1]].backward()
    seen = x.grad[0, 0] > 0
    return np.flatnonzero(seen.any(1)).tolist(), np.flatnonzero(seen.any(0)).tolist(), h.shape[2]


def random_stack(rng):
    layers = [{"name": f"conv{i}", "kind": "convolution", "k": rng.randint(1, 5),
               "s": rng.randint(1, 3), "p": rng.randint(0, 2), "d": rng.randint(1, 3),
               "cover": rng.random() < 0.3} for i in range(rng.randint(1, 4))]  # fmt: skip
    return {"size": rng.randint(12, 40), "layers": layers}


def test_random_stacks_see_what_the_gradient_reaches(show):
    page = show(widgets.receptive_field())
    rng = random.Random(0)
    compared = 0
    while compared < 60:
        stack = random_stack(rng)
        levels = page.evaluate("stack => cv.receptive.levels(stack)", stack)
        if min(level["size"] for level in levels) < 1:
            continue
        top = len(stack["layers"])
        at = [rng.randrange(levels[top]["size"]) for _ in range(2)]
        *places, size = gradient_rows(stack, top, at)
        assert size == levels[top]["size"]
        for place, expected in zip(at, places, strict=True):
            got = page.evaluate("a => cv.receptive.seen(...a)[0]", [stack, top, place])
            inside = [i for i in got if 0 <= i < stack["size"]]
            assert inside == expected or (not inside or not places[0] or not places[1])
        compared += 1


def drawn(page, level):
    """Rows and columns of a map that are marked as seen."""
    boxes = page.locator(".cv-panel").nth(level).locator(".cv-seen").evaluate_all(
        "all => all.map(r => ['x', 'y', 'width', 'height'].map(n => Number(r.getAttribute(n))))")
    rows = {i for _, y, _, height in boxes for i in range(int(y), int(y + height))}
    cols = {i for x, _, width, _ in boxes for i in range(int(x), int(x + width))}
    return sorted(rows), sorted(cols)


def reading(page):
    return page.locator(".cv-says").inner_text()


def test_arrow_keys_move_and_the_corner_is_cut(show):
    page = show(widgets.receptive_field())
    assert reading(page) == (
        "Row 7, column 7 of conv3 sees rows 4 to 10 and columns 4 to 10 of the input:"
        " 7 × 7 pixels.")
    page.locator('[role="application"][tabindex="0"]').focus()
    for key in ["ArrowUp"] * 9 + ["ArrowRight"] * 8:
        page.keyboard.press(key)
    assert reading(page) == (
        "Row 0, column 14 of conv3 sees rows 0 to 3 and columns 11 to 14 of the input:"
        " 4 × 4 pixels, since the rest of its 7 × 7 lies outside the image.")
    rows, cols, _ = gradient_rows(stacks()["three 3 × 3"], 3, (0, 14))
    assert drawn(page, 0) == (rows, cols)
    assert drawn(page, 2) == ([0, 1], [13, 14])
    page.keyboard.press("ArrowDown")
    assert drawn(page, 0) == (list(range(5)), [11, 12, 13, 14])


def test_three_small_filters_against_a_large_one(show):
    page = show(widgets.receptive_field())
    sums = page.locator("dl")
    assert "1 + (3 − 1) · 1 + (3 − 1) · 1 + (3 − 1) · 1 = 7" in sums.inner_text()
    assert "(9 + 9 + 9) · C² = 27 C²; one filter of 7 × 7: 49 C²" in sums.inner_text()
    page.get_by_role("button", name="one 7 × 7").click()
    assert "1 + (7 − 1) · 1 = 7" in sums.inner_text()
    assert "49 C²; one filter of 7 × 7: 49 C²" in sums.inner_text()
    assert reading(page).endswith("rows 4 to 10 and columns 4 to 10 of the input: 7 × 7 pixels.")


def test_a_click_chooses_layer_and_place(show):
    page = show(widgets.receptive_field("LeNet5"))
    pool1 = page.get_by_role("application", name="pool1, 12 × 12; arrow keys move")
    box = pool1.bounding_box()
    pool1.click(position={"x": box["width"] * 2.5 / 12, "y": box["height"] * 10.5 / 12})
    assert reading(page).startswith(
        "Row 10, column 2 of pool1 sees rows 20 to 25 and columns 4 to 9 of the input: 6 × 6")
    assert page.get_by_role("button", name="show pool1").get_attribute("aria-pressed") == "true"
    page.get_by_role("button", name="show conv2").press("Enter")
    assert reading(page).startswith("Row 3, column 3 of conv2 sees rows 6 to 19")
    assert page.locator(".cv-above").count() == 2


def test_layers_can_be_changed_added_and_removed(show):
    page = show(widgets.receptive_field())
    page.get_by_label("dilation of conv2").fill("3")
    page.get_by_label("pad of conv2").fill("3")
    page.get_by_label("stride of conv1").fill("2")
    page.get_by_label("kernel of conv3").fill("5")
    page.get_by_label("pad of conv3").fill("2")
    assert dict(table(page))["conv3"] == (8, 3 + 2 * 3 * 2 + 4 * 2, 2, 25)
    assert "1 + (3 − 1) · 1 + (3 − 1) · 3 · 2 + (5 − 1) · 2 = 23" in page.locator("dl").inner_text()
    page.get_by_role("button", name="add a layer").click()
    assert [name for name, _ in table(page)] == ["conv1", "conv2", "conv3", "conv4"]
    page.get_by_label("kind of layer 4").select_option("max pooling")
    assert dict(table(page))["pool1"][3] == 0
    assert page.get_by_label("dilation of pool1").is_disabled()
    page.get_by_role("button", name="remove conv2").click()
    assert page.evaluate("document.activeElement.textContent") == "conv3"
    assert [name for name, _ in table(page)] == ["conv1", "conv3", "pool1"]


def test_gaps_are_drawn_as_gaps(show):
    page = show(widgets.receptive_field("dilated by 1, 2, 4", layer=3))
    assert "15 × 15 pixels" in reading(page) and "gaps" not in reading(page)
    page.get_by_label("dilation of conv1").fill("4")
    page.get_by_label("dilation of conv2").fill("4")
    assert reading(page).endswith("with gaps between them.")
    rows, cols = drawn(page, 0)
    assert rows == cols == list(range(0, 25, 4))


@pytest.mark.parametrize(
    "label, value, reason",
    [
        ("kernel of conv2", "0", "The kernel of conv2 must be a whole number from 1 to 15."),
        ("stride of conv3", "1.5", "The stride of conv3 must be a whole number from 1 to 8."),
        ("pad of conv1", "", "The pad of conv1 must be a whole number from 0 to 15."),
        ("input size", "0", "The input must be 1 to 512 pixels high and wide."),
    ],
)
def test_impossible_numbers(show, label, value, reason):
    page = show(widgets.receptive_field())
    page.get_by_label(label).fill(value)
    assert page.locator(".cv-bad").inner_text() == reason
    assert page.get_by_label(label).get_attribute("aria-invalid") == "true"
    assert not page.locator(".cv-maps").is_visible()
    page.get_by_label(label).fill("1")
    assert page.locator(".cv-maps").is_visible() and page.locator(".cv-bad").inner_text() == ""


def test_an_image_too_small(show):
    page = show(widgets.receptive_field("LeNet5"))
    page.get_by_label("input size").fill("10")
    said = page.locator(".cv-bad").inner_text()
    assert said.startswith("conv2 spans 5 places, but its input with padding has only 3")


@pytest.mark.parametrize("width", [360, 720])
def test_nothing_sticks_out_of_the_figure(show, width):
    """Not even where a later figure on the page brings the shared style once more."""
    page = show(widgets.receptive_field("LeNet5"), widgets.softmax_explorer(), width=width)
    assert page.locator(".cv-receptive_field").evaluate(
        """figure => [...figure.querySelectorAll('*')].filter(element =>
        element.getBoundingClientRect().right > figure.getBoundingClientRect().right)
        .map(element => element.tagName)"""
    ) == []


def test_look(check_look):
    check_look(
        widgets.receptive_field(caption="A claim."),
        widgets.receptive_field("VGG16"),
        widgets.receptive_field("LeNet5", layer=2),
    )


def test_without_scripts_the_fields_stand_there(show):
    page = show(widgets.receptive_field("LeNet5"), java_script_enabled=False)
    assert "conv3\t4 × 4\t28\t4" in page.get_by_role("table").inner_text()
