"""Playground, network and softmax explorer in a real browser: their numbers are Chainer's."""

import convnets
from convnets import figures, widgets

import chainer
import chainer.functions as F
import numpy as np
import pytest

pytest_plugins = ["widget_pages"]
pytestmark = pytest.mark.site

IMAGES, LABELS = chainer.dataset.concat_examples(convnets.data.mnist(3, 1)[0])
ROWS = convnets.inspect.summary(convnets.models.LeNet5(), (1, 1, 28, 28)).as_dicts()


def test_look(check_look):
    check_look(
        widgets.filter_playground(IMAGES, LABELS, caption="A claim."),
        widgets.shapes(ROWS),
        widgets.softmax_explorer(),
    )


def reading(page):
    """Row, column and value of the chosen output."""
    at, value = page.locator(".cv-reading").inner_text().split("  ")[0].split(" = ")
    row, col = at[2:-1].split(", ")
    return int(row), int(col), float(value.split(" ")[0].replace("−", "-"))


def convolve(image, kernel):
    x = np.round(image, 3)[None].astype("f")
    return F.convolution_2d(x, np.array(kernel, "f")[None, None]).array[0, 0]


def test_playground_computes_the_convolution(show):
    page = show(widgets.filter_playground(IMAGES, LABELS))
    kernel = [[1, 0, -1], [2, 0, -2], [1, 0, -1]]
    row, col, value = reading(page)
    expected = convolve(IMAGES[0], kernel)
    assert abs(expected[row, col]) == abs(expected).max(), "the strongest answer is shown first"
    assert value == pytest.approx(expected[row, col], abs=6e-4)
    page.get_by_label("weight 0, 0").fill("-3")
    kernel[0][0] = -3
    page.get_by_role("application").focus()
    for key in ("ArrowUp", "ArrowLeft", "ArrowLeft", "ArrowDown", "ArrowDown"):
        page.keyboard.press(key)
        row, col, value = reading(page)
        assert value == pytest.approx(convolve(IMAGES[0], kernel)[row, col], abs=6e-4)


@pytest.mark.parametrize("name", ["blur", "wide blur", "outline"])
def test_playground_presets_and_images(show, name):
    page = show(widgets.filter_playground(IMAGES, ["a", "b", "c"]))
    page.get_by_role("button", name=name, exact=True).click()
    page.get_by_role("button", name="b", exact=True).click()
    kernel = widgets.filter_playground(IMAGES).kernels[name]
    row, col, value = reading(page)
    assert value == pytest.approx(convolve(IMAGES[1], kernel)[row, col], abs=6e-4)
    size = 29 - len(kernel)
    assert f"{size} × {size} output" in page.content()


def test_playground_paints_the_sign(show):
    """Red above 0, blue below: the pixels of the canvas say what the convolution says."""
    page = show(widgets.filter_playground(IMAGES))
    pixels = np.array(
        page.evaluate(
            """() => { const c = document.querySelectorAll('canvas')[1];
            return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]; }"""
        )
    ).reshape(26, 26, 4)
    expected = convolve(IMAGES[0], [[1, 0, -1], [2, 0, -2], [1, 0, -1]])
    strong = abs(expected) > 0.1
    assert strong.sum() > 50
    np.testing.assert_array_equal((pixels[..., 0] > pixels[..., 2])[strong], (expected > 0)[strong])


def test_playground_marks_a_weight_that_is_no_number(show):
    page = show(widgets.filter_playground(IMAGES))
    page.get_by_label("weight 1, 1").fill("?")
    assert page.get_by_label("weight 1, 1").get_attribute("aria-invalid") == "true"
    assert "not a number" in page.locator(".cv-reading").inner_text()


def test_shapes_by_keyboard_and_mouse(show):
    page = show(widgets.shapes(ROWS))
    detail = page.locator(".cv-detail")
    assert "156 = 6 × (1 × 5 × 5) + 6" in detail.inner_text()
    page.get_by_role("button").first.focus()
    assert "input" in detail.inner_text() and "1 × 1 × 28 × 28" in detail.inner_text()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    assert "153,600 = 1 × 16 × 8 × 8 × (6 × 5 × 5)" in detail.inner_text()
    page.get_by_role("button", name="fc5").hover()
    assert "850 = 10 × 84 + 10" in detail.inner_text()


def shown_losses(page):
    return [float(text) for text in page.locator("p strong").all_inner_texts()]


def check_losses(page, logits, label):
    z = np.array([logits], "f")
    t = np.array([label], "i")
    true = float(F.softmax_cross_entropy(z, t).array)
    double = float(F.softmax_cross_entropy(F.softmax(z), t).array)
    np.testing.assert_allclose(shown_losses(page), [true, double], atol=1e-4)


def test_softmax_explorer_computes_both_losses(show):
    logits = [3, 0, 1, 0, -1, 0, 0, 2, 0, 0]
    page = show(widgets.softmax_explorer(logits))
    check_losses(page, logits, 0)
    page.get_by_label("class 7 is right").check()
    page.get_by_label("logit of class 7").fill("-4.5")
    logits[7] = -4.5
    check_losses(page, logits, 7)
    shown = [
        float(text) for text in page.locator(".cv-class:not(.cv-head) .cv-value").all_inner_texts()
    ]
    once = F.softmax(np.array([logits], "f"))
    twice = F.softmax(once)
    np.testing.assert_allclose(shown[::2], once.array[0], atol=6e-4)
    np.testing.assert_allclose(shown[1::2], twice.array[0], atol=6e-4)


def test_softmax_explorer_reaches_the_bounds(show):
    page = show(widgets.softmax_explorer())
    low, high = figures.loss_bounds(10)
    page.get_by_role("button", name="sure and right").click()
    np.testing.assert_allclose(shown_losses(page), [0, low], atol=1e-4)
    page.get_by_role("button", name="sure and wrong").click()
    np.testing.assert_allclose(shown_losses(page), [20, high], atol=1e-4)
    assert "always between 1.4612 and 2.4612" in page.content()
    page.get_by_role("button", name="all equal").click()
    np.testing.assert_allclose(shown_losses(page), [np.log(10)] * 2, atol=1e-4)


def test_softmax_slider_by_keyboard(show):
    page = show(widgets.softmax_explorer([0, 0, 0]))
    page.get_by_label("logit of class 0").focus()
    page.keyboard.press("ArrowRight")
    check_losses(page, [0.1, 0, 0], 0)
