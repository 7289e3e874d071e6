"""The residual path in a real browser: it says at each block what was measured there."""

from convnets import gradients, widgets

import numpy as np
import pytest

pytest_plugins = ["widget_pages"]
pytestmark = pytest.mark.site


def network(depth, residual, normalized, count):
    """Numbers that no two places share."""
    random = np.random.RandomState(depth + 1000 * residual + 2000 * normalized)
    blocks = [{"name": f"res2/{i}", "shape": [16, 32, 32],
               "signal": float(random.rand()) + 0.1, "signal_similarity": float(random.rand()),
               "gradient": float(10 ** random.uniform(-2, 4)),
               "gradient_similarity": float(random.rand()), "step": float(random.rand())}
              for i in range(count)]
    return {"name": f"{'ResNet' if residual else 'plain'}-{depth}", "depth": depth,
            "residual": residual, "normalized": normalized, "blocks": blocks}


@pytest.fixture(scope="module")
def measurements():
    return {"options": {"distance": 0.01}, "networks": [
        network(depth, residual, normalized, count) for normalized in (True, False)
        for depth, count in ((8, 4), (14, 7)) for residual in (False, True)]}


def test_look(check_look, measurements):
    check_look(widgets.residual_path(measurements, caption="A claim."))


def test_fits_a_narrow_phone(show, measurements):
    page = show(widgets.residual_path(measurements), width=360)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    text = page.locator("svg text").first
    size = text.evaluate("it => parseFloat(getComputedStyle(it).fontSize)")
    scale = page.locator("svg").evaluate(
        "it => it.getBoundingClientRect().width / it.viewBox.baseVal.width")
    assert size * scale >= 11.5, "letters shrink with the drawing"


def find(measurements, depth, residual, normalized):
    return next(n for n in measurements["networks"] if
                (n["depth"], n["residual"], n["normalized"]) == (depth, residual, normalized))


def digits3(value):
    """As the page writes it."""
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if rounded >= 1000 else f"{rounded:g}"


def check_reading(page, chosen, twin, i, direction="gradient"):
    text = page.locator(".cv-reading").inner_text()
    here, there = chosen["blocks"][i], twin["blocks"][i]
    assert text.startswith(f"{here['name']} of {chosen['name']}, 16 × 32 × 32, ")
    assert f" {digits3(here[direction])}, " in text
    assert f"similarity {round(here[f'{direction}_similarity'], 2):g}. In {twin['name']}" in text
    similarity = round(there[f"{direction}_similarity"], 2)
    assert f"place: {digits3(there[direction])}, similarity {similarity:g}." in text
    start = chosen["blocks"][-1 if direction == "gradient" else 0]
    times = digits3(here[direction] / start[direction])
    assert f"{times} times that of {start['name']}." in text
    if direction == "gradient":
        assert f"weights by {digits3(0.1 * here['step'])} times their norm" in text


def test_keyboard_walks_from_block_to_block(show, measurements):
    page = show(widgets.residual_path(measurements))
    pair = find(measurements, 14, False, True), find(measurements, 14, True, True)
    check_reading(page, *pair, 0)
    slider = page.get_by_role("slider")
    slider.focus()
    for i in (1, 2, 3):
        page.keyboard.press("ArrowRight")
        check_reading(page, *pair, i)
        assert slider.get_attribute("aria-valuetext") == f"res2/{i}"
    page.keyboard.press("End")
    check_reading(page, *pair, 6)
    assert "begins its way" in page.locator(".cv-reading").inner_text()
    assert page.locator(".cv-block").nth(6).get_attribute("class") == "cv-block cv-chosen"


def test_buttons_choose_the_network(show, measurements):
    page = show(widgets.residual_path(measurements, residual=True))
    assert page.locator(".cv-arc").count() == 6, "a shortcut over each block but conv1"
    page.get_by_role("button", name="plain").click()
    assert page.locator(".cv-arc").count() == 0
    page.get_by_role("button", name="8 layers").click()
    page.get_by_label("batch normalization").uncheck()
    page.get_by_role("button", name="signal, going forward").click()
    page.get_by_role("slider").press("ArrowRight")
    pair = find(measurements, 8, False, False), find(measurements, 8, True, False)
    check_reading(page, *pair, 1, "signal")
    pressed = page.locator("button[aria-pressed=true]").all_inner_texts()
    assert pressed == ["8 layers", "plain", "signal, going forward"]


def test_the_place_is_kept_when_the_depth_changes(show, measurements):
    page = show(widgets.residual_path(measurements))
    page.get_by_role("slider").press("End")
    page.get_by_role("button", name="8 layers").click()
    pair = find(measurements, 8, False, True), find(measurements, 8, True, True)
    check_reading(page, *pair, 3)


def test_mouse_points_at_a_block(show, measurements):
    page = show(widgets.residual_path(measurements))
    pair = find(measurements, 14, False, True), find(measurements, 14, True, True)
    for i in (5, 2):
        block = page.locator(".cv-block").nth(i).bounding_box()
        page.mouse.click(block["x"] + block["width"] / 2, block["y"] + 60)
        check_reading(page, *pair, i)


def test_curves_stand_where_the_numbers_are(show, measurements):
    page = show(widgets.residual_path(measurements))
    chosen = find(measurements, 14, False, True)
    lines = page.locator("polyline.cv-on").evaluate_all(
        "nodes => nodes.map(it => [...it.points].map(p => p.y))")
    for line, key, scale in ((lines[0], "gradient_similarity", lambda v: v),
                             (lines[1], "gradient", np.log10)):
        values = scale(np.array([block[key] for block in chosen["blocks"]]))
        assert np.corrcoef(values, line)[0, 1] == pytest.approx(-1, abs=1e-4), key
    circle = page.locator("circle").first
    assert float(circle.get_attribute("cy")) == pytest.approx(lines[0][0], abs=0.06)


def test_says_what_it_says_without_scripts(show, measurements):
    page = show(widgets.residual_path(measurements), java_script_enabled=False)
    first = find(measurements, 8, False, True)["blocks"][0]
    row = page.locator("tr").nth(1).inner_text()
    assert row.split()[:2] == ["plain-8", "yes"] and f"{first['gradient']:.3g}" in row


def test_one_way_only_needs_no_switch(show, measurements):
    networks = [n for n in measurements["networks"] if n["normalized"]]
    page = show(widgets.residual_path({**measurements, "networks": networks}))
    assert page.get_by_role("checkbox").count() == 0


@pytest.mark.parametrize("change, message", [
    (lambda m: m["networks"].pop(), "needs a plain and a residual network"),
    (lambda m: m["networks"][0]["blocks"][2].pop("step"), "plain-8, block res2/2 lacks step"),
    (lambda m: m["networks"].clear(), "there are"),
])
def test_faulty_measurements(measurements, change, message):
    faulty = {**measurements, "networks": [
        {**n, "blocks": [dict(block) for block in n["blocks"]]} for n in measurements["networks"]]}
    change(faulty)
    with pytest.raises(ValueError, match=message):
        widgets.residual_path(faulty)


def test_unknown_depth(measurements):
    with pytest.raises(ValueError, match=r"depth 9 was not measured; there are \[8, 14\]"):
        widgets.residual_path(measurements, depth=9)


def test_takes_what_is_recorded(show, tmp_path):
    run = gradients.record(tmp_path / "path.json", command="", seeds=1, n=4, depths=(8,))
    page = show(widgets.residual_path(run))
    assert "conv1 of plain-8, 16 × 32 × 32" in page.locator(".cv-reading").inner_text()
