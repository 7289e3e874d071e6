"""Detections in a real browser: boxes appear, merge and vanish, and are counted from the truth."""

import re
from itertools import product

from convnets import detection, detection_record, widgets

import numpy as np
import pytest

pytest_plugins = ["widget_pages"]
pytestmark = pytest.mark.site

SIZE = 96


def scene(seed, n_true=4, n_found=25):
    """Boxes around true ones, and some anywhere; no two scores are alike."""
    random = np.random.RandomState(seed)
    truth = [[y, x, y + 18, x + 14, int(random.randint(10))] for y, x in
             ((4, 4), (10, 60), (50, 20), (70, 70))][:n_true]
    scores = random.permutation(np.linspace(0.06, 0.99, n_found)).round(3)
    found = []
    for i, score in enumerate(scores):
        y0, x0, y1, x1, label = truth[i % n_true] if i % 5 and n_true else (30, 40, 48, 54, 7)
        box = (np.array([y0, x0, y1, x1]) + random.uniform(-4, 4, 4)).round(1)
        found.append({"place": i, "score": float(score), "box": box.tolist(),
                      "label": label if i % 7 else (label + 1) % 10})
    heat = random.rand(18 * 18).round(2).tolist()
    pixels = ["".join(random.choice(list("0123456789abcdef"), SIZE)) for _ in range(SIZE)]
    return {"pixels": pixels, "truth": truth, "heat": heat, "found": found}


@pytest.fixture(scope="module")
def run():
    return {"scenes": [scene(0), scene(1), scene(2, n_true=2)]}


def expected(one, score, overlap):
    """The library's answer: boxes, right ones, precision and recall."""
    kept = detection.keep(detection_record.as_found(one), score, overlap)
    truth = np.array(one["truth"]).reshape(-1, 5)
    ranking = detection.match([kept], [(truth[:, :4], truth[:, 4])])
    return len(kept.scores), int(ranking[1].sum()), *detection.precision_recall(*ranking)


def check(page, run, i, score, overlap):
    n, right, precision, recall = expected(run["scenes"][i], score, overlap)
    text = page.locator(".cv-reading").inner_text()
    strong = sum(one["score"] >= score for one in run["scenes"][i]["found"])
    assert text.startswith(f"{strong} places have a score of at least {score:.2f}; ")
    total = len(run["scenes"][i]["truth"])
    said = re.search(r"(\d+) of (\d+) digits found, precision ([\d.]+), recall ([\d.]*\d)", text)
    assert (int(said[1]), int(said[2])) == (right, total)
    assert float(said[3]) == pytest.approx(precision, abs=0.0051)
    assert float(said[4]) == pytest.approx(recall, abs=0.0051)
    assert page.locator("svg rect.cv-right").count() == right
    assert page.locator("svg rect.cv-wrong").count() == n - right
    assert page.locator("svg rect.cv-true").count() == total
    return text


def drag(page, name, value):
    page.get_by_role("slider", name=name).fill(str(value))


def test_look(check_look, run):
    check_look(widgets.detections(run, caption="A claim."))


def test_fits_a_narrow_phone(show, run):
    page = show(widgets.detections(run), width=360)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    letter, scale = page.locator("svg text").first.evaluate(
        "it => [parseFloat(getComputedStyle(it).fontSize), it.ownerSVGElement.clientWidth"
        " / it.ownerSVGElement.viewBox.baseVal.width]")
    assert letter * scale >= 11.5, "letters shrink with the drawing"


def test_counts_equal_the_librarys(show, run):
    page = show(widgets.detections(run))
    for i, score, overlap in product(range(3), (0.05, 0.3, 0.9), (0, 0.1, 0.3, 0.6, 1)):
        page.get_by_role("button", name=f"scene {i + 1}").click()
        drag(page, "least score", score)
        drag(page, "largest overlap", overlap)
        check(page, run, i, score, overlap)


def test_sliders_and_keyboard(show, run):
    page = show(widgets.detections(run))
    check(page, run, 0, 0.5, 0.3)
    drag(page, "least score", 0.2)
    drag(page, "largest overlap", 1)
    assert "all of their boxes are kept" in check(page, run, 0, 0.2, 1)
    slider = page.get_by_role("slider", name="least score")
    slider.focus()
    page.keyboard.press("ArrowRight")
    check(page, run, 0, 0.21, 1)
    page.keyboard.press("End")
    text = check(page, run, 0, 1, 1)
    missed = ", ".join(str(row[4]) for row in run["scenes"][0]["truth"])
    assert f"Missed: {missed}." in text


def test_rates_of_all_scenes(show, run):
    text = check(show(widgets.detections(run)), run, 0, 0.5, 0.3)
    rows = [expected(one, 0.5, 0.3) for one in run["scenes"]]
    total = sum(len(one["truth"]) for one in run["scenes"])
    right = sum(row[1] for row in rows)
    said = re.search(r"All 3 scenes: precision ([\d.]+), recall ([\d.]*\d)\.", text)
    assert float(said[1]) == pytest.approx(right / sum(row[0] for row in rows), abs=0.0051)
    assert float(said[2]) == pytest.approx(right / total, abs=0.0051)


def test_pixels_and_boxes_stand_where_they_are(show, run):
    page = show(widgets.detections(run))
    pixels = page.locator("canvas").evaluate(
        "it => [...it.getContext('2d').getImageData(0, 0, 96, 96).data]")
    grey = np.array(pixels).reshape(SIZE, SIZE, 4)
    stored = [[17 * int(v, 16) for v in row] for row in run["scenes"][0]["pixels"]]
    assert (grey[..., 0] == stored).all() and (grey[..., 3] == 255).all()
    box = page.locator("rect.cv-true").first
    values = [float(box.get_attribute(name)) for name in ("y", "x", "height", "width")]
    y0, x0, y1, x1, _ = run["scenes"][0]["truth"][0]
    assert values == [y0, x0, y1 - y0, x1 - x0]


def test_the_heat_map_can_be_hidden(show, run):
    page = show(widgets.detections(run))
    drawn = page.locator("rect.cv-heat")
    assert drawn.count() == sum(v >= 0.02 for v in run["scenes"][0]["heat"])
    last = run["scenes"][0]["heat"][-1]
    if last >= 0.02:                                          # place (17, 17): pixels 80 to 83
        assert (drawn.last.get_attribute("x"), drawn.last.get_attribute("y")) == ("80", "80")
    page.get_by_label("heat map").uncheck()
    assert drawn.count() == 0


def test_says_what_it_says_without_scripts(show, run):
    page = show(widgets.detections(run), java_script_enabled=False)
    n, right, precision, recall = expected(run["scenes"][1], 0.5, 0.3)
    cells = page.locator("tr").nth(2).inner_text().split()
    assert cells == ["2", "4", str(n), str(right), f"{precision:.2f}", f"{recall:.2f}"]


@pytest.mark.parametrize("change, message", [
    ({"scenes": []}, "holds no scenes"),
    ({"scenes": [{"pixels": [], "truth": []}]}, "scene 0 lacks heat, found"),
])
def test_faulty_runs(change, message):
    with pytest.raises(ValueError, match=message):
        widgets.detections(change)


def test_faulty_sliders(run):
    with pytest.raises(ValueError, match=r"overlap must be 0 to 1; got 1\.5"):
        widgets.detections(run, overlap=1.5)
