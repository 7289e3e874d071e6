"""Every page of the book in a real browser: no error, no foreign request, readable by all."""

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from conftest import page_names, reopen

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


# A contrast takes axe milliseconds, and a page has thousands of coloured words of code. Those with
# one parent and one look have one contrast: all but one are marked. The one kept is in sight and
# has the most letters: axe gives no verdict on what is scrolled away or is a single character.
MARK_ALIKE = r"""() => {
  const LOOK = ['color', 'backgroundColor', 'backgroundImage', 'opacity', 'fontSize', 'fontWeight',
    'textShadow', 'webkitTextFillColor', 'webkitTextStroke', 'filter', 'mixBlendMode', 'display',
    'visibility', 'position', 'zIndex', 'clip', 'clipPath'];
  const frame = node => {
    const frames = [];
    for (let it = node; it; it = it.parentElement) {
      if (getComputedStyle(it).overflow !== 'visible') frames.push(it.getBoundingClientRect());
    }
    return box => frames.every(it => it.left <= box.left && box.right <= it.right
      && it.top <= box.top && box.bottom <= it.bottom);
  };
  for (const pre of document.querySelectorAll('pre')) {
    const inSight = frame(pre), kept = new Map();
    for (const node of pre.querySelectorAll(':scope > span')) {
      node.removeAttribute('data-alike');
      if (node.children.length || !node.textContent.trim()) continue;
      const style = getComputedStyle(node), look = LOOK.map(name => style[name]).join();
      const text = node.textContent, letters = text.replace(/\W/g, '').length;
      const weight = inSight(node.getBoundingClientRect()) * 1e6 + letters * 1e3 + text.length;
      const other = kept.get(look);
      if (!other || weight > other.weight) kept.set(look, { node, weight });
      if (other) (weight > other.weight ? other.node : node).dataset.alike = '';
    }
  }
}"""
# preload would fetch the style sheets again, their @import lines from a wrong folder.
RUN_AXE = """() => {
  axe.configure({rules: [{id: 'color-contrast', selector: '*:not([data-alike])'}]});
  return axe.run({resultTypes: ['violations'], preload: false});
}"""


def violations(page):
    """What axe finds, one line a fault: the rule, and where."""
    page.evaluate(MARK_ALIKE)
    page.evaluate(AXE_SCRIPT)
    found = page.evaluate(RUN_AXE)["violations"]
    return [
        f"{rule['id']}: {node['target']} {node['html'][:160]} {node['failureSummary'][:300]}"
        for rule in found
        for node in rule["nodes"]
    ]


def outside(page):
    """By how many pixels the page is wider than the window."""
    return page.evaluate("document.documentElement.scrollWidth - innerWidth")


def check(page, scheme):
    """Its colours, nothing for axe to find, no part wider than the window."""
    assert page.title()
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    page.evaluate(UNFOLD)
    found = violations(page)
    assert not found, "\n".join(found)
    for width in (WIDE, PHONE, WIDE):
        page.set_viewport_size({"width": width, "height": 900})
        assert outside(page) <= 0, (
            f"{outside(page)} pixels too wide at {width}: {page.evaluate(CULPRITS)}"
        )


@pytest.mark.parametrize("path", PAGES)
def test_page(page_at, path):
    """In both colour schemes; no error meanwhile (page_at sees to it)."""
    page = page_at(path, "dark")
    check(page, "dark")
    page.emulate_media(color_scheme="light")
    reopen(page)
    check(page, "light")
