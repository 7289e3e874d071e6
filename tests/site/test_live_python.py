"""Running pages of the book in the browser with the real Python: what a reader does with it."""

import re
from contextlib import ExitStack

import pytest
from conftest import HTML, needs_python, opened, serve
from playwright.sync_api import expect
from test_live_runner import START, check_look, edit, output, press, state

pytestmark = [
    pytest.mark.site,
    pytest.mark.slow,
    needs_python,
]
# Many times what a quiet machine needs: cells train networks here.
LIMIT = 500_000


@pytest.fixture
def page_at(browser, site):
    """As in conftest, by somebody who was never here: Python is loaded, and nothing is compiled."""
    with ExitStack() as stack:
        pages = []

        def open_page(path):
            pages.append(stack.enter_context(opened(browser, site, path)))
            return pages[-1]

        yield open_page
        faults = [fault for page in pages for fault in page.faults]
    assert not faults, "\n".join(faults)


def wait_for(page, said):
    """Wait for a line of the bar; a cell that stops is told at once."""
    text = state(page)
    expect(text).to_contain_text(re.compile(f"{said}|stopped|lost"), timeout=LIMIT)
    expect(text).to_contain_text(re.compile(said))


# A run of 20 steps that draws its loss: pictures take each other's place.
CURVE = """import convnets
from convnets import widgets
run = convnets.trainer(convnets.models.LeNet5(), *convnets.data.mnist(200, 20), epochs=1, batch=10)
run.extend(widgets.loss_curve(20))
run.run()"""


def id_of(cell):
    return cell.get_attribute("id").removeprefix("cell-")


def run_cell(page, cell, code, said):
    edit(page, cell, code)
    page.keyboard.press("Control+Enter")
    wait_for(page, said)


@pytest.mark.timeout(1200)
def test_chapter_2(page_at):
    page = page_at("book/02_lenet5.html")
    page.get_by_role("button", name=START).click()
    wait_for(page, r"\d+ cells done")
    assert page.locator("[data-live=error]").count() == 1  # the one broken on purpose
    assert page.locator("[data-live=ok]").count() == page.locator("[data-live]").count() - 1
    first = id_of(page.locator(".live-cell:has(.live-run)").first)
    expect(output(page, first)).to_contain_text("images (100, 1, 28, 28) float32")

    run_cell(page, first, "print('7 %\\r', end='')\nprint(x.shape)", "done")
    expect(output(page, first)).to_have_text("(100, 1, 28, 28)")
    press(page, first, "Stored output")
    expect(output(page, first)).to_contain_text("images (100, 1, 28, 28) float32")

    run_cell(page, first, CURVE, "done")
    curve = output(page, first).locator("[data-cv=loss_curve]")
    expect(curve).to_have_count(1)
    expect(curve).to_contain_text("after 20 of 20 steps")

    run_cell(page, first, "x = = 2", "Cell 2 stopped: SyntaxError")
    expect(output(page, first).locator(".traceback")).to_contain_text("x = = 2")
    run_cell(page, first, "[np.empty(2**27) for _ in range(9)]", "stopped: .*MemoryError")
    run_cell(page, first, "print(float(x[0].max()))", "done")
    check_look(page)

    edit(page, first, "while True:\n    pass")
    page.keyboard.press("Control+Enter")
    expect(page.locator(f"#cell-{first}")).to_have_attribute("data-live", "running")
    page.get_by_role("button", name="Stop").click()
    wait_for(page, "Stopped. All variables are lost")
    run_cell(page, first, "print(x)", "stopped: NameError")
    expect(output(page, first)).to_contain_text("have not run since Python started")


@pytest.mark.timeout(600)
def test_a_lab_is_solved_and_its_progress_stays(page_at):
    page = page_at("labs/01_convolution/lab.html")
    page.get_by_role("button", name=START).click()
    wait_for(page, r"\d+ cells done")
    expect(page.locator(".live-bar .live-solved")).to_have_text("Solved: 0 of 5")
    answer = "def output_size(size, k, s=1, p=0):\n    return (size + 2 * p - k) // s + 1"
    cell = page.locator(".live-cell", has_text="def output_size").first
    run_cell(page, id_of(cell), answer, "done")
    check = page.locator(".live-cell", has_text="check.output_size(output_size)").first
    press(page, id_of(check), "Run")
    expect(page.locator(".live-bar .live-solved")).to_have_text("Solved: 1 of 5", timeout=60_000)
    page.reload()
    expect(page.locator("#live .live-solved")).to_have_text("Solved: 1 of 5")


@pytest.mark.timeout(600)
def test_python_starts_again_without_a_network(browser):
    code = "import convnets, chainer; print(chainer.__version__, len(convnets.data.mnist(9, 1)[0]))"
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(LIMIT)
    seen = []
    with serve(HTML) as site:
        page.goto(f"{site}book/01_convolution.html")
        seen.append(page.evaluate("code => liveKernel.run(code)", code))
    page.reload()
    seen.append(page.evaluate("code => liveKernel.run(code)", code))
    context.close()
    assert [outputs[0]["text"] for outputs in seen] == ["7.8.1 9\n"] * 2
