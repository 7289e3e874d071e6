"""A page's notebook in JupyterLite: it opens from the page, runs and has living widgets."""

import json
import re
import sys
from pathlib import Path

import nbformat
import pytest
from conftest import HTML, at_home, page_names, watch
from live_pages import differences
from playwright.sync_api import expect

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book/_tools"))
import lite  # noqa: E402

pytestmark = [
    pytest.mark.site,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not (HTML / lite.PLACE).is_dir(), reason="this build has no notebooks in the browser"
    ),
]
PAGE = "book/01_convolution"
LIMIT = 300_000  # ms for anything that Python must do: many times what a quiet machine needs
LINK = "Open as notebook"
CELL = ".jp-CodeCell"
# JupyterLab's model of the notebook, which has outputs in nbformat's form.
MODEL = "const model = jupyterapp.shell.currentWidget.content.model;"
OUTPUTS = f"""() => {{ {MODEL}
  return model.toJSON().cells.filter(it => it.cell_type === 'code').map(it => [it.id, it.outputs]);
}}"""
EMPTY = f"""() => {{ {MODEL}
  for (const cell of model.cells) if (cell.type === 'code') cell.clearExecution();
}}"""
RUN_FIRST = f"""code => {{ {MODEL}
  const index = [...model.cells].findIndex(it => it.type === 'code');
  model.cells.get(index).sharedModel.setSource(code);
  jupyterapp.shell.currentWidget.content.activeCellIndex = index;
  return jupyterapp.commands.execute('notebook:run-cell').then(() => null);
}}"""
IDLE = """() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status
  === 'idle'"""
DONE = """() => ![...document.querySelectorAll('.jp-InputPrompt')]
  .some(it => it.textContent.includes('*'))"""
WIDGET = """import ipywidgets as w
slider = w.IntSlider(value=3, max=9, description="step")
label = w.Label()
slider.observe(lambda change: setattr(label, "value", f"{change.new} times {change.new}"), "value")
w.VBox([slider, label])"""


@pytest.fixture(scope="module")
def reader(browser, site):
    """Somebody who opens one notebook after the other, each beside what is open."""
    with at_home(browser, site) as context:
        yield context


@pytest.fixture
def tab(reader, site):
    """A function that opens a path of the site; `faults` must stay empty."""
    pages, faults = [], []

    def seen(page):
        pages.append(page)
        faults.append(watch(page, site))

    def opened(path):
        page = reader.new_page()
        page.set_viewport_size({"width": 1280, "height": 900})
        page.goto(site + path)
        return page

    reader.on("page", seen)
    yield opened
    reader.remove_listener("page", seen)
    for page in pages:
        page.close()
    found = [fault for some in faults for fault in some]
    assert not found, "\n".join(found)


def ready(page):
    """Wait until a notebook stands and its kernel waits for work."""
    page.locator(CELL).first.wait_for(timeout=LIMIT)
    page.wait_for_function(IDLE, timeout=LIMIT)
    return page


def run_all(page):
    """Run all cells from the menu, after their outputs are gone."""
    page.evaluate(EMPTY)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    page.wait_for_function(DONE, timeout=LIMIT)


def run_first(page, code):
    """Put code into the first code cell and run it; gives the cell."""
    page.evaluate(RUN_FIRST, code)
    return page.locator(CELL).first


def joined(outputs):
    """Outputs in the form that notebooks have on disk."""
    return [nbformat.from_dict(output) for output in outputs]


def test_each_page_that_runs_opens_its_notebook():
    """A link to a notebook of the site, with its kernel, the stored figures trusted."""
    found = 0
    for name in page_names():
        text = (HTML / name).read_text("utf-8")
        links = re.findall(rf'href="([^"]*)"[^>]*>{LINK}</a>', text)
        assert len(links) == ('id="live-page"' in text), name
        for link in links:
            page, _, path = link.partition("?path=")
            assert (HTML / name).parent.joinpath(page).resolve().is_file()
            assert path == name.replace(".html", ".ipynb")
            content = json.loads((HTML / lite.PLACE / "files" / path).read_text("utf-8"))
            assert content["metadata"]["kernelspec"]["name"] == "python"
            assert all(it["metadata"].get("trusted") for it in content["cells"]
                       if it["cell_type"] == "code")
            found += 1
    assert found


def test_a_chapter_opens_from_its_page_and_runs(tab):
    """All outputs are those that the chapter stores; an announced error ends nothing."""
    page = tab(f"{PAGE}.html")
    with page.context.expect_page() as opened:
        page.get_by_role("link", name=LINK).click()
    page = ready(opened.value)
    run_all(page)
    cells = {cell.id: cell for cell in nbformat.read(ROOT / f"{PAGE}.ipynb", 4).cells}
    outputs = dict(page.evaluate(OUTPUTS))
    found = [
        f"{name}: {problem}" for name, shown in outputs.items()
        if "raises-exception" not in cells[name].metadata.get("tags", ())
        for problem in differences(joined(shown), cells[name].outputs)
    ]
    assert not found, "\n".join(found)
    assert len(outputs) > 20


def test_a_lab_checks_and_a_widget_answers(tab):
    """The lab's own checks are beside it; a slider calls Python back."""
    page = ready(tab(f"{lite.ADDRESS}labs/01_convolution/solution.ipynb"))
    run_all(page)
    expect(page.locator(CELL, has_text="check.conv_plane")).to_contain_text("all 8 stages passed")
    assert page.locator('[data-mime-type="application/vnd.jupyter.stderr"]').count() == 0

    handle = run_first(page, WIDGET).locator(".widget-slider .noUi-handle")
    handle.wait_for(timeout=LIMIT)
    handle.press("ArrowRight")
    expect(page.locator(".widget-label", has_text="4 times 4")).to_be_visible(timeout=LIMIT)


def test_after_the_page_has_run_in_place(tab):
    """The page's service worker, which is there then, leaves the notebook's files alone."""
    page = tab(f"{PAGE}.html")
    page.get_by_role("button", name="Run this page in your browser").click()
    page.locator('.live-bar[data-session="running"]').wait_for(timeout=LIMIT)
    page.goto(page.url.replace(f"{PAGE}.html", f"{lite.ADDRESS}labs/02_lenet5/lab.ipynb"))
    ready(page)
    cell = run_first(page, "import os; print(sorted(os.listdir()))")
    expect(cell).to_contain_text("'checks.py', 'lab.ipynb'", timeout=LIMIT)
