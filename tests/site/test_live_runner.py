"""Running a page in the browser: what the reader sees and does, with a worker that plays Python."""

import json
import re
from urllib.parse import urlsplit

import live_book
import nbformat
import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import HTML, at_home, forget, needs_python, new_context, page_names, serve, watch
from live_book import ROOT
from playwright.sync_api import expect

pytestmark = pytest.mark.site
GONE = {"remove-cell"}
START = "Run this page in your browser"


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    root = tmp_path_factory.mktemp("live")
    live_book.write_sources(root)
    live_book.write_distribution(root)
    return live_book.build(root)


@pytest.fixture(scope="module")
def live_site(html):
    with serve(html) as address:
        yield address


@pytest.fixture(scope="module")
def reader(browser, live_site):
    with at_home(browser, live_site) as context:
        yield context


@pytest.fixture
def open_page(browser, live_site, reader):
    """A function: open_page(name, ...) by somebody who was never there; any fault fails."""
    unused, contexts, pages, faults = [reader], [], [], []

    def open_page(name, scheme="light", width=1100, context=None, site=live_site):
        if context is None:
            context = unused.pop() if unused else new_context(browser)
            contexts.append(context)
        page = context.new_page()
        pages.append(page)
        page.set_viewport_size({"width": width, "height": 700})
        page.emulate_media(color_scheme=scheme)
        page.requests = []
        page.on("request", lambda request: page.requests.append(urlsplit(request.url).path))
        faults.append(watch(page, live_site))
        page.goto(f"{site}{name}.html")
        return page

    yield open_page
    for page in pages:
        page.close()
    for context in contexts:
        context.close() if context is not reader else forget(reader, live_site)
    assert [fault for group in faults for fault in group] == []


@pytest.fixture
def run_page(open_page):
    """A function: the page, with all its cells run."""

    def run_page(name, said="done in", **options):
        page = open_page(name, **options)
        page.get_by_role("button", name=START).click()
        wait_for(page, said)
        return page

    return run_page


def state(page):
    return page.locator(".live-state")


def wait_for(page, said):
    expect(state(page)).to_contain_text(re.compile(said), timeout=20_000)


def output(page, name):
    return page.locator(f"#cell-{name} > .cell_output")


def press(page, cell, label):
    page.locator(f"#cell-{cell} .live-tools").get_by_role("button", name=f"{label}:").click()


def edit(page, cell, text):
    """Open the editor of a cell and replace its code."""
    press(page, cell, "Edit")
    expect(page.locator(f"#cell-{cell} .cm-content")).to_be_focused()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(text)


# -- Before it starts --------------------------------------------------------------------------


def test_the_panel_says_what_is_loaded_and_nothing_is(open_page):
    page = open_page("book/chapter")
    panel = page.locator("#live")
    expect(panel).to_contain_text("It loads 10.8 MB, once")
    expect(panel).to_contain_text("Python 6.4 MB, NumPy 2.9 MB")
    expect(panel).not_to_contain_text("last time")
    page.wait_for_load_state("networkidle")
    loaded = [path for path in page.requests if re.search("worker|dist/|codemirror|files/", path)]
    assert loaded == []
    assert page.locator(".live-tools").count() == 0


def test_a_page_that_cannot_run_says_why(open_page):
    page = open_page("book/never")
    expect(page.locator(".live-panel")).to_contain_text("it needs four GPUs")
    assert page.get_by_role("button", name=START).count() == 0
    assert not [path for path in page.requests if "/live/runner.js" in path]


def test_opened_as_a_file_it_asks_for_a_server(browser, html):
    page = browser.new_page()
    page.goto((html / "book/chapter.html").as_uri())
    expect(page.locator("#live")).to_contain_text("make serve")
    assert page.get_by_role("button", name=START).count() == 0
    page.close()


def test_without_a_distribution_the_page_has_no_trace_of_it(tmp_path):
    live_book.write_sources(tmp_path)
    built = live_book.build(tmp_path)
    for name in live_book.PAGES:
        page = (built / f"{name}.html").read_text("utf-8")
        assert "live" not in re.sub(r"<title>.*?</title>|aria-live", "", page).split("<article")[1]
        assert "runner.js" not in page and "importmap" not in page
    assert not (built / "service-worker.js").exists()


# -- Running -----------------------------------------------------------------------------------


def test_all_cells_run_in_order_and_their_output_takes_the_place_of_the_stored_one(run_page):
    page = run_page("book/chapter")
    expect(state(page)).to_contain_text("15 cells done")
    expect(output(page, "first")).to_have_text("one")
    expect(output(page, "folded")).to_contain_text("y is there")  # `silent` is nowhere on the page
    expect(output(page, "bars").locator("pre")).to_have_text("100 %\nend\n")
    expect(output(page, "html").locator("#made")).to_have_text("yes")
    expect(output(page, "png").locator("img")).to_have_js_property("naturalWidth", 1)
    expect(output(page, "svg").locator("svg")).to_be_visible()
    expect(output(page, "cleared")).to_have_text("stays")
    expect(output(page, "quiet")).to_be_hidden()
    expect(output(page, "last")).to_contain_text("x is there\nbook: convnets\n")
    assert page.locator("[data-live=ok]").count() == 12
    assert page.evaluate("new Set([...document.querySelectorAll('[id]')].map(it => it.id)).size") \
        == page.evaluate("document.querySelectorAll('[id]').length")


def test_an_expected_error_is_shown_and_the_run_goes_on(run_page):
    page = run_page("book/chapter")
    shown = output(page, "fails")
    expect(shown.locator(".stream")).to_have_text("before")
    expect(shown.locator(".traceback")).to_contain_text("ValueError: on purpose")
    assert "\x1b" not in shown.inner_text()
    expect(page.locator("#cell-last")).to_have_attribute("data-live", "ok")


def test_a_cell_for_other_machines_is_marked_and_keeps_its_output(run_page):
    page = run_page("book/chapter")
    expect(page.locator("#cell-gpu .live-tools")).to_contain_text("it needs a GPU")
    expect(output(page, "gpu")).to_contain_text("array")
    assert page.locator("#cell-gpu button:not(.copybtn)").count() == 0


def test_large_output_scrolls_and_can_be_reached_by_keyboard(run_page):
    page = run_page("book/chapter")
    pre = output(page, "large").locator("pre")
    assert pre.evaluate("it => it.scrollHeight > it.clientHeight && it.clientHeight < 600")
    expect(pre).to_have_attribute("tabindex", "0")


def test_a_figure_that_comes_out_the_same_stays_as_its_reader_left_it(run_page):
    page = run_page("book/chapter")
    output(page, "figure").get_by_role("button").click()
    press(page, "figure", "Run")
    wait_for(page, "Cell 9 done")
    expect(output(page, "figure").get_by_role("button")).to_have_text("pressed")
    assert output(page, "figure").locator("figure").count() == 1


def test_an_error_ends_the_run_is_scrolled_to_and_said(run_page):
    page = run_page("book/broken", said="stopped")
    expect(state(page)).to_have_text("Cell 2 stopped: TypeError: a reason")
    expect(page.get_by_role("status")).to_have_text("Cell 2 stopped: TypeError: a reason")
    expect(output(page, "bad")).to_be_in_viewport()
    expect(output(page, "after")).to_contain_text("stored after")


def test_stored_output_can_be_put_back(run_page):
    page = run_page("book/short")
    expect(output(page, "two")).to_have_text("x is there")
    press(page, "two", "Stored output")
    expect(output(page, "two")).to_contain_text("stored two")
    expect(page.locator("#cell-two .live-run")).to_be_focused()
    press(page, "one", "Stored output")
    expect(output(page, "one")).to_be_hidden()
    press(page, "two", "Run")
    expect(output(page, "two")).to_have_text("x is there")


def test_the_next_visit_knows_how_long_it_took(run_page, open_page):
    page = run_page("book/short")
    again = open_page("book/chapter", context=page.context)
    expect(again.locator("#live")).to_contain_text("took 1.5 s to start here last time")


# -- Editing -----------------------------------------------------------------------------------


def test_code_is_edited_run_and_reset(run_page):
    page = run_page("book/short")
    edit(page, "two", 'print("mine")')
    page.keyboard.press("Control+Enter")
    expect(output(page, "two")).to_have_text("mine")
    expect(page.locator("#cell-two .cm-content")).to_be_focused()
    press(page, "two", "Reset")
    expect(page.locator("#cell-two .cm-content")).to_have_count(0)
    expect(page.locator("#cell-two .highlight").first).to_be_visible()
    press(page, "two", "Run")
    expect(output(page, "two")).to_have_text("x is there")
    assert page.evaluate("Object.keys(sessionStorage)") == []


def test_a_click_on_code_opens_it_there(run_page):
    page = run_page("book/short")
    page.locator("#cell-two pre").first.click()
    expect(page.locator("#cell-two .cm-content")).to_be_focused()


def test_python_is_indented(run_page):
    page = run_page("book/short")
    edit(page, "two", "for i in range(3):")
    page.keyboard.press("Enter")
    page.keyboard.type("pass")
    lines = page.locator("#cell-two .cm-line").all_inner_texts()
    assert lines == ["for i in range(3):", "    pass"]
    assert page.locator("#cell-two .tok-keyword").count() >= 2


def test_an_editor_is_left_by_escape_and_shift_enter_goes_on(run_page):
    page = run_page("book/short")
    edit(page, "one", 'print("1")')
    page.keyboard.press("Escape")
    expect(page.locator("#cell-one .live-run")).to_be_focused()
    press(page, "one", "Edit")
    page.keyboard.press("Shift+Enter")
    expect(output(page, "one")).to_have_text("1")
    expect(page.locator("#cell-two .live-run")).to_be_focused()


def test_edits_survive_a_reload_but_not_a_new_edition(run_page):
    page = run_page("book/short")
    edit(page, "two", 'print("kept")')
    page.reload()
    expect(page.locator("#live")).to_contain_text("Your edits of one cell are kept in this tab")
    page.get_by_role("button", name=START).click()
    expect(output(page, "two")).to_have_text("kept")
    expect(page.locator("#cell-two .cm-content")).to_have_text('print("kept")')

    page.evaluate("""() => { for (const [key, value] of Object.entries(sessionStorage))
      sessionStorage[key] = JSON.stringify({...JSON.parse(value), from: 'older code'}); }""")
    page.reload()
    expect(page.locator("#live")).not_to_contain_text("Your edits")
    page.get_by_role("button", name=START).click()
    expect(output(page, "two")).to_have_text("x is there")


def test_a_syntax_error_is_shown_like_any_other(run_page):
    page = run_page("book/short")
    edit(page, "two", "SyntaxError!")
    page.keyboard.press("Control+Enter")
    wait_for(page, "Cell 2 stopped: SyntaxError: invalid syntax")
    expect(output(page, "two").locator(".traceback")).to_be_visible()


# -- Stop, Restart, loss -----------------------------------------------------------------------


def test_an_endless_loop_is_stopped(run_page):
    page = run_page("book/short")
    edit(page, "one", live_book.do(loop=True))
    page.get_by_role("button", name="Run all", exact=True).click()
    expect(page.locator("#cell-one")).to_have_attribute("data-live", "running")
    expect(page.locator("#cell-one .live-note")).to_have_text("running")
    page.get_by_role("button", name="Stop").click()
    wait_for(page, "Stopped. All variables are lost")
    expect(page.locator("#cell-two .live-note")).to_contain_text("before Python was restarted")
    press(page, "one", "Reset")
    page.get_by_role("button", name="Run all", exact=True).click()
    wait_for(page, "3 cells done")


def test_restart_forgets_variables_and_offers_the_cells_above(run_page):
    page = run_page("book/short")
    page.get_by_role("button", name="Restart").click()
    wait_for(page, "Python is new")
    press(page, "two", "Run")
    wait_for(page, "NameError")
    page.locator("#cell-two").get_by_role("button", name="Run them").click()
    wait_for(page, "2 cells done")
    expect(output(page, "two")).to_have_text("x is there")


@pytest.mark.parametrize("end", [{"crash": True}, {"break": "memory access out of bounds"}])
def test_a_lost_worker_is_said_and_restart_brings_a_new_one(run_page, end):
    page = run_page("book/short")
    edit(page, "three", live_book.do(**end))
    page.keyboard.press("Control+Enter")
    wait_for(page, "Python was lost: .*out of .*Restart")
    page.get_by_role("button", name="Restart").click()
    wait_for(page, "Python is new")
    press(page, "one", "Run")
    wait_for(page, "Cell 1 done")


def test_a_stop_while_it_loads(open_page, browser):
    # Without a service worker the page waits for one a while: time enough to press Stop.
    context = browser.new_context(service_workers="block")
    page = open_page("book/short", context=context)
    page.get_by_role("button", name=START).click()
    page.get_by_role("button", name="Stop").click()
    wait_for(page, "Stopped")
    page.get_by_role("button", name="Run all", exact=True).click()
    wait_for(page, "3 cells done")
    context.close()


def test_two_tabs_do_not_know_of_each_other(run_page):
    one = run_page("book/short")
    two = run_page("book/short", context=one.context)
    edit(one, "three", live_book.do(loop=True))
    one.keyboard.press("Control+Enter")
    expect(one.locator("#cell-three")).to_have_attribute("data-live", "running")
    press(two, "two", "Run")
    wait_for(two, "Cell 2 done")
    expect(two.locator("#cell-three .cm-content")).to_have_count(0)


# -- For everybody -----------------------------------------------------------------------------


def test_by_keyboard_alone(open_page):
    page = open_page("book/short")
    page.get_by_role("button", name=START).focus()
    page.keyboard.press("Enter")
    wait_for(page, "3 cells done")
    expect(page.get_by_role("button", name="Run all cells again")).to_be_focused()
    seen = []
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.getAttribute('aria-label')"))
        if seen[-1] == "Edit: cell 2":
            break
    assert [name for name in seen if name and "cell" in name] == [
        "Run: cell 1", "Run above: cell 1", "Edit: cell 1", "Stored output: cell 1",
        "Run: cell 2", "Run above: cell 2", "Edit: cell 2"]
    page.keyboard.press("Enter")
    expect(page.locator("#cell-two .cm-content")).to_be_focused()
    page.keyboard.press("Control+End")
    page.keyboard.type('\nprint("typed")')
    page.keyboard.press("Shift+Enter")
    expect(output(page, "two")).to_contain_text("typed")
    expect(page.locator("#cell-three .live-run")).to_be_focused()


def test_axe_and_width_of_a_lab(run_page):
    page = run_page("labs/01_lab/lab", width=360)
    check_look(page)


def check_look(page):
    found = Axe().run(page, options={"resultTypes": ["violations"], "preload": False})
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1100, 360])
def test_axe_and_width(run_page, scheme, width):
    page = run_page("book/chapter", scheme=scheme, width=width)
    edit(page, "folded", 'x = "text"  # comment\nfor i in range(3): print(i, None)\n' + "y" * 200)
    page.keyboard.press("Control+Enter")
    wait_for(page, "Cell 4 done")
    edit(page, "last", "SyntaxError!")
    page.keyboard.press("Control+Enter")
    wait_for(page, "stopped")
    check_look(page)


def test_the_bar_folds(run_page):
    page = run_page("book/short")
    fold = page.get_by_role("button", name="Fold")
    fold.click()
    expect(page.get_by_role("button", name="Restart")).to_be_hidden()
    expect(state(page)).to_be_visible()
    unfold = page.get_by_role("button", name="Unfold")
    expect(unfold).to_have_attribute("aria-expanded", "false")
    unfold.click()
    expect(page.get_by_role("button", name="Restart")).to_be_visible()


def test_without_a_network_after_the_first_time(browser, html):
    context = browser.new_context()
    page = context.new_page()
    with serve(html) as site:
        page.goto(f"{site}book/short.html")
        page.get_by_role("button", name=START).click()
        wait_for(page, "3 cells done")
        press(page, "one", "Edit")
        expect(page.locator("#cell-one .cm-content")).to_be_focused()
    # The server is gone.
    page.reload()
    page.get_by_role("button", name=START).click()
    wait_for(page, "3 cells done")
    press(page, "two", "Edit")
    expect(page.locator("#cell-two .cm-content")).to_be_focused()
    context.close()


# -- Labs and figures --------------------------------------------------------------------------


def test_a_lab_has_its_checks_and_its_progress_is_kept(run_page, open_page, tmp_path):
    page = run_page("labs/01_lab/lab")
    expect(output(page, "import")).to_have_text("labs/01_lab: convnets")
    expect(page.locator(".live-bar .live-solved")).to_have_text("Solved: 1 of 2")
    again = open_page("labs/01_lab/lab", context=page.context)
    expect(again.locator("#live .live-solved")).to_have_text("Solved: 1 of 2")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save progress").click()
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    assert json.loads(path.read_text().splitlines()[0]) == live_book.ANSWER

    other = open_page("labs/01_lab/lab")
    event = {**live_book.ANSWER, "exercise": "pool"}
    path.write_text(path.read_text() + "torn\n" + json.dumps(event) + "\n")
    expect(other.locator("#live .live-solved")).to_have_text("Solved: 0 of 2")
    other.locator("input[type=file]").set_input_files(path)
    expect(other.locator("#live .live-solved")).to_have_text("Solved: 2 of 2")


def test_figures_can_ask_the_kernel(open_page):
    page = open_page("book/short")
    assert page.evaluate("liveKernel.state") == "off"
    outputs = page.evaluate("""liveKernel.run('print("hello")')""")
    assert outputs == [{"output_type": "stream", "name": "stdout", "text": "hello\n"}]
    assert page.evaluate("liveKernel.state") == "ready"
    failed = page.evaluate("liveKernel.run('SyntaxError!').catch(error => error.message)")
    assert failed == "SyntaxError: invalid syntax"


# -- Every page of the book --------------------------------------------------------------------


def pages_that_run():
    pages = [(name, (HTML / name).read_text("utf-8")) for name in page_names()]
    return [(name, text) for name, text in pages if 'id="live-page"' in text]


def test_each_cell_of_each_page_is_found():
    """By its id: a cell that shows its code or has stored output stands on the page, once."""
    for name, text in pages_that_run():
        data = json.loads(re.search(r'id="live-page">(.*?)</script>', text)[1])
        path = ROOT / f"{data['name']}.ipynb"
        cells = [it for it in nbformat.read(path, 4).cells if it.cell_type == "code"]
        assert [it.id for it in cells] == [it["id"] for it in data["cells"]], name
        assert [it.source for it in cells] == [it["source"] for it in data["cells"]], name
        shown = [it.id for it in cells if not GONE & set(it.metadata.get("tags", []))]
        assert re.findall(r'<div class="cell [^>]*id="cell-([^"]*)"', text) == shown, name


@needs_python
def test_the_pages_that_have_to_run_do():
    """Where there is a Python for the browser: chapters 1 to 7 and 9, and all labs."""
    names = {name for name, _ in pages_that_run()}
    wanted = {f"{path.relative_to(ROOT).with_suffix('')}.html"
              for pattern in ("book/0[1-79]_*.ipynb", "labs/0*/lab.ipynb")
              for path in ROOT.glob(pattern)}
    assert wanted <= names
