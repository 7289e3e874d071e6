"""Every live figure of every page answers to the mouse and to the keyboard."""

import pytest
from conftest import HTML, page_names

pytestmark = pytest.mark.site

# What the page says about a figure; an input's value is no part of its HTML.
STATE = """node => node.innerHTML + [...node.querySelectorAll('input, select')]
  .map(it => it.type === 'checkbox' ? it.checked : it.value)"""
CONTROLS = "button, input, select, summary, [tabindex='0']"
KEYS = ["ArrowRight", "ArrowDown", "ArrowLeft", "Enter", "Space"]


def pages_with(mark):
    """Pages whose HTML holds a mark."""
    return [name for name in page_names() if mark in (HTML / name).read_text("utf-8")]


def enabled(figure):
    """The controls of a figure that can be used now."""
    return [it for it in figure.locator(CONTROLS).all() if it.is_visible() and it.is_enabled()]


def by_keyboard(page, figure):
    """Whether some control answers to a key."""
    before = figure.evaluate(STATE)
    for control in enabled(figure):
        for key in KEYS:
            control.focus()
            page.keyboard.press(key)
            if figure.evaluate(STATE) != before:
                return True
    return False


def by_mouse(page, figure):
    """Whether some control answers to a click near its right edge."""
    before = figure.evaluate(STATE)
    for control in enabled(figure):
        box = control.bounding_box()
        if control.evaluate("node => node.tagName") == "SELECT":
            control.select_option(index=1)
        else:
            control.click(position={"x": box["width"] * 0.8, "y": box["height"] * 0.5})
        if figure.evaluate(STATE) != before:
            return True
    return False


@pytest.mark.parametrize("name", pages_with("data-cv="))
def test_figures(page_at, name):
    """Figures of convnets.widgets; one without controls (a card) has nothing to answer to."""
    for answers in (by_keyboard, by_mouse):
        page = page_at(name)
        for figure in page.locator("[data-cv]").all():
            if enabled(figure):
                assert answers(page, figure), f"{figure.get_attribute('id')}: {answers.__name__}"


@pytest.mark.parametrize("name", pages_with("application/vnd.jupyter.widget-view+json"))
def test_jupyter_widgets(page_at, name):
    """Sliders of ipywidgets move, by arrow key and by mouse, and carry a name."""
    page = page_at(name)
    sliders = page.locator(".widget-subarea [role=slider]").all()
    assert sliders, "no slider was drawn"
    for slider in sliders:
        assert slider.get_attribute("aria-label")
        value = float(slider.get_attribute("aria-valuenow"))
        slider.press("ArrowRight")
        assert float(slider.get_attribute("aria-valuenow")) > value
        track = slider.locator("xpath=ancestor::*[contains(@class, 'slider')][1]").bounding_box()
        page.mouse.click(track["x"] + 2, track["y"] + track["height"] / 2)
        assert float(slider.get_attribute("aria-valuenow")) <= value + 1
