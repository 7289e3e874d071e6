"""Every page of the book in a real browser: no error, no foreign request, readable by all."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import page_names

pytestmark = pytest.mark.site
PAGES = page_names() or ["book/intro.html"]
WIDE, PHONE = 1280, 390

# Everything folded is unfolded, so that axe sees it too.
UNFOLD = """async () => {
  for (const details of document.querySelectorAll('details')) details.open = true;
  for (const node of document.querySelectorAll('.toggle-hidden')) {
    node.classList.remove('toggle-hidden');
  }
  for (let frame = 0; frame < 3; frame += 1) await new Promise(requestAnimationFrame);
}"""

# What sticks out to the right, for the message: the innermost elements only.
CULPRITS = """() => [...document.querySelectorAll('body *')]
  .filter(node => node.getBoundingClientRect().right > innerWidth + 1
    && ![...node.children].some(child => child.getBoundingClientRect().right > innerWidth + 1))
  .slice(0, 5).map(node => node.outerHTML.slice(0, 160))"""


def violations(page):
    """What axe finds, one line a fault: the rule, and where."""
    # preload would fetch the style sheets again, their @import lines from a wrong folder.
    options = {"resultTypes": ["violations"], "preload": False}
    found = Axe().run(page, options=options).response["violations"]
    return [
        f"{rule['id']}: {node['target']} {node['html'][:160]} {node['failureSummary'][:300]}"
        for rule in found
        for node in rule["nodes"]
    ]


def outside(page):
    """By how many pixels the page is wider than the window."""
    return page.evaluate("document.documentElement.scrollWidth - innerWidth")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", PAGES)
def test_page(page_at, path, scheme):
    """No error (page_at sees to it), nothing for axe to find, no part wider than the window."""
    page = page_at(path, scheme)
    assert page.title()
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    page.evaluate(UNFOLD)
    found = violations(page)
    assert not found, "\n".join(found)
    for width in (WIDE, PHONE):
        page.set_viewport_size({"width": width, "height": 900})
        assert outside(page) <= 0, (
            f"{outside(page)} pixels too wide at {width}: {page.evaluate(CULPRITS)}"
        )
