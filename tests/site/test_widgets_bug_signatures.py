"""The signatures of bugs in a real browser: what was measured is shown, and bugs can be guessed."""

from convnets import widgets

import numpy as np
import pytest

pytest_plugins = ["widget_pages"]
pytestmark = pytest.mark.site


def bug(name, first, silent=()):
    """Numbers that no two bugs share."""
    random = np.random.RandomState(len(name))
    layers = [{"name": f"{layer}/W", "gradient": 1.0,
               "step": None if layer in silent else float(10 ** random.uniform(-3, 0))}
              for layer in ("conv1", "conv2", "fc3")]
    return {"name": name, "what": f"the line of {name}", "sign": f"The sign of {name}.",
            "curve": [first, *(first * random.rand(30)).tolist()], "by_heart": random.rand(),
            "layers": layers, "accuracy": random.rand(), "changed": random.rand()}


MEASURED = {"bugs": [bug("healthy", 2.3), bug("graph cut", 2.4, ("conv1", "conv2")),
                     bug("large weights", 18790.0), bug("apart", 2.5)]}


@pytest.mark.parametrize("guess", [False, True])
def test_look(check_look, guess):
    check_look(widgets.bug_signatures(MEASURED, guess=guess, caption="A claim."))


def test_fits_a_narrow_phone(show):
    page = show(widgets.bug_signatures(MEASURED), width=360)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_every_bug_shows_what_was_measured(show):
    page = show(widgets.bug_signatures(MEASURED))
    for measured in MEASURED["bugs"][1:]:
        page.get_by_role("button", name=measured["name"], exact=True).click()
        rows = page.locator("table tbody tr").all_inner_texts()
        assert f"{100 * measured['accuracy']:.1f} %" in rows[3]
        assert f"{100 * measured['changed']:.1f} %" in rows[4]
        assert f"{100 * MEASURED['bugs'][0]['changed']:.1f} %" in rows[4]
        assert measured["sign"] in page.locator(".cv-reading").inner_text()
        assert page.locator("[aria-pressed=true]").inner_text() == measured["name"]
    page.get_by_role("button", name="large weights").click()
    assert "18,800" in page.locator("table").inner_text()


def test_layers_without_a_gradient_say_so(show):
    page = show(widgets.bug_signatures(MEASURED, chosen="graph cut"))
    assert page.get_by_text("nothing arrives").count() == 2
    assert page.locator("rect.cv-on").count() == 1
    page.get_by_role("button", name="apart").click()
    assert page.get_by_text("nothing arrives").count() == 0


def test_an_unknown_bug_is_guessed(show):
    page = show(widgets.bug_signatures(MEASURED))
    reading = page.locator(".cv-reading")
    seen = set()
    for _ in range(3):
        page.get_by_role("button", name="Give me an unknown one").click()
        assert "Which bug is it?" in reading.inner_text()
        assert page.locator("[aria-pressed=true]").count() == 0
        assert "the unknown network" in page.locator("table thead").inner_text()
        for measured in MEASURED["bugs"][1:]:
            page.get_by_role("button", name=measured["name"], exact=True).click()
            said = reading.inner_text()
            if "Right." in said:
                seen.add(measured["name"])
                break
            assert f"Not {measured['name']}." in said and measured["sign"] in said
        assert page.locator("[aria-pressed=true]").count() == 1
    assert seen == {"graph cut", "large weights", "apart"}


def test_keyboard(show):
    page = show(widgets.bug_signatures(MEASURED))
    page.get_by_role("button", name="graph cut").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.locator("[aria-pressed=true]").inner_text() == "large weights"


def test_without_scripts_there_is_a_table(show):
    page = show(widgets.bug_signatures(MEASURED), java_script_enabled=False)
    assert page.locator("tr").count() == 5
