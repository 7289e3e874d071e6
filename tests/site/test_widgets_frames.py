"""Frames look through their figures on a static page, without a kernel."""

import json
import shutil
import sys
from pathlib import Path

from convnets import figures, widgets

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import serve, watch
from ipywidgets.embed import dependency_state, embed_data

pytest_plugins = ["widget_pages"]
pytestmark = pytest.mark.site

STATIC = Path(__file__).resolve().parents[2] / "book/_static"
PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Frames</title>
<link rel="stylesheet" href="book.css">
<script src="vendor/requirejs/require.js"></script>
<script src="vendor/html-manager/embed-amd.js"></script></head><body><main><h1>Frames</h1><div>
<script type="application/vnd.jupyter.widget-state+json">{state}</script>
<script type="application/vnd.jupyter.widget-view+json">{view}</script></div></main>
<script src="book.js"></script></body></html>"""


def three_frames():
    drawn = [figures.digits(np.full((1, 4, 4), grey)) for grey in (0.1, 0.5, 0.9)]
    return widgets.frames(drawn, ["first", "second", "third"], interval=20)


@pytest.fixture
def page(browser, tmp_path):
    box = three_frames()
    data = embed_data(views=[box], state=dependency_state([box]))
    text = PAGE.format(
        state=json.dumps(data["manager_state"]), view=json.dumps(data["view_specs"][0])
    )
    (tmp_path / "index.html").write_text(text)
    shutil.copytree(STATIC / "vendor", tmp_path / "vendor")
    for name in ("book.js", "book.css"):
        shutil.copy(STATIC / name, tmp_path)
    with serve(tmp_path) as site:
        page = browser.new_page()
        faults = watch(page, site)
        page.goto(site + "index.html")
        page.wait_for_selector("[role=slider]")
        yield page
        page.close()
    assert [fault for fault in faults if "favicon" not in fault] == []


def shown(page):
    return [text for text in ("first", "second", "third") if page.get_by_text(text).is_visible()]


def test_the_slider_turns_the_frames(page):
    assert shown(page) == ["first"]
    page.get_by_role("slider").focus()
    page.keyboard.press("ArrowRight")
    assert shown(page) == ["second"]
    page.keyboard.press("ArrowRight")
    assert shown(page) == ["third"]
    assert page.get_by_role("img", name="third: 1 images of 4 by 4 pixels").is_visible()


def test_they_play(page):
    page.get_by_role("button", name="Play").first.click()
    page.wait_for_function("() => document.querySelector('[role=slider]').ariaValueNow === '2.0'")
    assert shown(page) == ["third"]


def test_accessible(page):
    report = Axe().run(page)
    assert report.violations_count == 0, report.generate_report()


@pytest.fixture
def plain(monkeypatch):
    """The frames of a Python without ipywidgets."""
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    return three_frames()


def test_without_ipywidgets_they_turn_and_play(plain, show):
    page = show(plain)
    page.get_by_role("slider", name="frame").press("ArrowRight")
    assert shown(page) == ["second"]
    assert page.get_by_role("img", name="second: 1 images of 4 by 4 pixels").is_visible()
    page.get_by_role("button", name="Play").click()
    page.get_by_text("third").wait_for()
    page.get_by_role("button", name="Play").click()  # it stopped at the end, and starts again
    page.get_by_text("first").wait_for()


def test_without_ipywidgets_accessible(plain, check_look):
    check_look(plain)
