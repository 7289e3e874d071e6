"""The sliding window in a real browser: its numbers are Chainer's."""

import convnets  # noqa: F401  before chainer

import chainer.functions as F  # isort: skip
from convnets import widgets

import numpy as np
import pytest

pytest_plugins = ["widget_pages"]
pytestmark = pytest.mark.site

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 10, (7, 8)).astype("f")
KERNEL = RNG.integers(-3, 4, (5, 5)).astype("f")


def chainer_output(image, kernel, mode, *, ksize, stride, pad, dilate=1, cover_all=False):
    x, w = image[None, None], kernel[None, None, :ksize, :ksize]
    if mode == "convolution":
        y = F.convolution_2d(x, w, stride=stride, pad=pad, dilate=dilate, cover_all=cover_all)
    elif mode == "max":
        y = F.max_pooling_2d(x, ksize, stride, pad, cover_all=cover_all)
    else:
        y = F.average_pooling_2d(x, ksize, stride, pad)
    return y.array[0, 0]


def shown_output(page):
    """The numbers in the output grid."""
    rows = page.get_by_role("grid").get_by_role("row").all()
    text = [row.get_by_role("gridcell").all_inner_texts() for row in rows]
    return np.array([[float(t.replace("−∞", "-inf").replace("−", "-")) for t in r] for r in text])


def set_controls(page, mode, *, cover_all=False, **numbers):
    page.get_by_label("operation").select_option(mode)
    labels = {"ksize": "kernel size"}
    for name, value in numbers.items():
        field = page.get_by_label(labels.get(name, name), exact=True)
        if field.is_visible():
            field.fill(str(value))
    if mode != "average":
        page.get_by_label("cover_all").set_checked(cover_all)


CASES = [
    ("convolution", {"ksize": 2, "stride": 1, "pad": 0}),
    ("convolution", {"ksize": 3, "stride": 2, "pad": 1}),
    ("convolution", {"ksize": 3, "stride": 2, "pad": 2, "dilate": 2}),
    ("convolution", {"ksize": 5, "stride": 3, "pad": 0, "cover_all": True}),
    ("convolution", {"ksize": 1, "stride": 4, "pad": 3}),
    ("max", {"ksize": 2, "stride": 2, "pad": 0, "cover_all": True}),
    ("max", {"ksize": 2, "stride": 2, "pad": 0, "cover_all": False}),
    ("max", {"ksize": 3, "stride": 2, "pad": 1, "cover_all": True}),
    ("max", {"ksize": 3, "stride": 3, "pad": 1, "cover_all": False}),
    ("max", {"ksize": 1, "stride": 5, "pad": 0, "cover_all": True}),  # a window of nothing: -inf
    ("average", {"ksize": 2, "stride": 2, "pad": 0}),
    ("average", {"ksize": 3, "stride": 2, "pad": 1}),
    ("average", {"ksize": 5, "stride": 1, "pad": 2}),
]


def test_numbers_are_chainers(show):
    page = show(widgets.sliding_window(IMAGE, KERNEL))
    for mode, options in CASES:
        set_controls(page, mode, **{"dilate": 1} | options)
        expected = chainer_output(IMAGE, KERNEL, mode, **options)
        np.testing.assert_allclose(
            shown_output(page), expected, atol=0.0051, err_msg=f"{mode} {options}"
        )


def test_seven_pools_to_four_or_three(show):
    page = show(widgets.sliding_window(np.eye(7), mode="max", ksize=2, stride=2))
    assert shown_output(page).shape == (4, 4)
    assert "Stride 2 does not divide 5, so the size is rounded up." in page.content()
    assert page.locator(".cv-beyond").count() == 15
    page.get_by_label("operation").select_option("average")
    assert shown_output(page).shape == (3, 3)
    assert "rounded down. Hatched: pixels that no window reads." in page.content()
    assert page.locator(".cv-unseen").count() == 13
    assert page.get_by_label("cover_all").is_disabled()


def test_the_sum_with_its_numbers(show):
    page = show(widgets.sliding_window(np.arange(9).reshape(3, 3), np.arange(4).reshape(2, 2)))
    sentence = page.locator(".cv-sum")
    assert sentence.inner_text() == "y[0, 0] = 0×0 + 1×1 + 3×2 + 4×3 = 19"
    assert sentence.get_attribute("aria-live") == "polite"
    page.get_by_label("weight 0, 0").fill("-1")
    page.get_by_role("gridcell").nth(3).hover()
    assert sentence.inner_text() == "y[1, 1] = 4×(−1) + 5×1 + 7×2 + 8×3 = 39"


def test_arrow_keys_move_the_window(show):
    page = show(widgets.sliding_window(IMAGE, KERNEL[:2, :2]))
    page.locator('[role="gridcell"][tabindex="0"]').focus()
    for key, place in [
        ("ArrowRight", "0, 1"),
        ("ArrowDown", "1, 1"),
        ("ArrowUp", "0, 1"),
        ("ArrowUp", "0, 1"),
        ("End", "0, 6"),
        ("Home", "0, 0"),
    ]:
        page.keyboard.press(key)
        assert page.locator(".cv-sum").inner_text().startswith(f"y[{place}]")
        assert page.evaluate("document.activeElement.dataset.at") == place.replace(" ", "")
    window = page.locator('[role="img"] .cv-window').evaluate_all("c => c.map(x => x.dataset.at)")
    assert window == ["0,0", "0,1", "1,0", "1,1"]


def test_dragging_on_the_input_moves_the_window(show):
    page = show(widgets.sliding_window(IMAGE, KERNEL[:3, :3]))
    page.locator('[role="img"] [data-at="4,5"]').hover()
    assert page.locator(".cv-sum").inner_text().startswith("y[3, 4]")
    page.locator('[role="img"] [data-at="0,0"]').hover()
    assert page.locator(".cv-sum").inner_text().startswith("y[0, 0]")


@pytest.mark.parametrize(
    "label, value, reason",
    [
        ("kernel size", "7", "spans 7 pixels but the padded input has only 3"),
        ("stride", "0", "stride must be a whole number of at least 1"),
        ("stride", "1.5", "stride must be a whole number of at least 1"),
        ("pad", "", "pad must be a whole number of at least 0"),
    ],
)
def test_invalid_combinations_are_marked(show, label, value, reason):
    page = show(widgets.sliding_window(np.eye(3), np.eye(2)))
    field = page.get_by_label(label, exact=True)
    field.fill(value)
    assert field.get_attribute("aria-invalid") == "true"
    assert reason in page.locator(".cv-reasons").inner_text()
    assert not page.get_by_role("grid").is_visible()
    field.fill("1")
    assert field.get_attribute("aria-invalid") is None
    assert page.get_by_role("grid").is_visible()


@pytest.mark.parametrize("mode", ["convolution", "max", "average"])
@pytest.mark.parametrize("image", [IMAGE[:3], IMAGE[:, :3]])
def test_the_reason_quotes_chainer(show, mode, image):
    with pytest.raises(Exception) as error:
        chainer_output(image, KERNEL, mode, ksize=5, stride=1, pad=0)
    page = show(widgets.sliding_window(image, KERNEL, mode=mode))
    assert f"“{error.value}”" in page.locator(".cv-reasons").inner_text()


def test_a_weight_that_is_no_number(show):
    page = show(widgets.sliding_window(np.eye(3), np.eye(2)))
    page.get_by_label("weight 1, 0").fill("x")
    assert "not a number" in page.locator(".cv-reasons").inner_text()
    page.get_by_label("weight 1, 0").fill("0.5")
    np.testing.assert_allclose(
        shown_output(page),
        chainer_output(
            np.eye(3, dtype="f"),
            np.array([[1, 0], [0.5, 1]], "f"),
            "convolution",
            ksize=2,
            stride=1,
            pad=0,
        ),
    )


def test_look(check_look):
    check_look(
        widgets.sliding_window(IMAGE, KERNEL[:3, :3], pad=2, stride=2, dilate=2),
        widgets.sliding_window(IMAGE, mode="max", ksize=2, stride=2, caption="A claim."),
    )


def test_without_scripts_the_numbers_stand_there(show):
    page = show(widgets.sliding_window(IMAGE, KERNEL), java_script_enabled=False)
    assert page.get_by_role("table").count() == 2
