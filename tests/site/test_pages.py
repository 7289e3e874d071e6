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


# A contrast takes axe milliseconds, and a page has thousands of coloured words of code. In one
# block those of one look have one contrast: the longest of them is judged for all.
MARK_LOOKS = """() => {
  const LOOK = ['color', 'backgroundColor', 'backgroundImage', 'opacity', 'fontSize', 'fontWeight',
    'textShadow', 'webkitTextFillColor', 'webkitTextStroke', 'filter', 'mixBlendMode', 'display',
    'visibility', 'position', 'zIndex', 'clip', 'clipPath'];
  for (const [block, pre] of document.querySelectorAll('pre').entries()) {
    const longest = new Map();
    for (const node of pre.querySelectorAll(':scope > span')) {
      if (node.children.length || !node.textContent.trim()) continue;
      const style = getComputedStyle(node);
      const look = [block, ...LOOK.map(name => style[name])].join();
      node.dataset.look = look;
      const length = longest.get(look)?.textContent.length ?? 0;
      if (node.textContent.length > length) longest.set(look, node);
    }
    for (const node of longest.values()) node.dataset.judged = '';
  }
}"""
# Where axe says nothing about that word (scrolled away, a single sign), all of its look are judged.
# preload would fetch the style sheets again, their @import lines from a wrong folder.
RUN_AXE = """async ([selector, rules]) => {
  const run = (selector, more) => {
    axe.configure({rules: [{id: 'color-contrast', selector}]});
    return axe.run({resultTypes: ['violations', 'passes'], elementRef: true, selectors: false,
      preload: false, ...more});
  };
  const looks = results => results.filter(it => it.id === 'color-contrast')
    .flatMap(it => it.nodes).map(it => it.element.dataset.look);
  const { violations, passes } = await run(selector, rules ? { runOnly: rules } : {});
  const judged = new Set(looks([...violations, ...passes]));
  const open = [...document.querySelectorAll('[data-look]:not([data-judged])')]
    .filter(it => !judged.has(it.dataset.look));
  for (const node of open) node.dataset.open = '';
  if (open.length) {
    const others = await run('[data-open]', { runOnly: ['color-contrast'] });
    violations.push(...others.violations);
  }
  return violations.flatMap(({ id, nodes }) => nodes.map(it => (
    { id, html: it.html, summary: it.failureSummary, look: it.element.dataset.look ?? null })));
}"""
ONE_OF_A_LOOK = "*:not([data-look]), [data-judged]"
COLOURS = ["color-contrast", "link-in-text-block"]  # axe's rules that look at colours
# What is there, and which of it can be seen; of the logo's two pictures each page shows one.
SHOWN = """() => [...document.body.querySelectorAll('*:not(.logo__image)')]
  .map(node => node.localName + (node.checkVisibility({ visibilityProperty: true }) ? '' : ' -'))
  .join()"""


def faults_for_axe(page, selector=ONE_OF_A_LOOK, rules=None):
    """What axe finds by some rules or all; the contrast of the elements that a selector matches."""
    page.evaluate(MARK_LOOKS)
    page.evaluate(AXE_SCRIPT)
    return page.evaluate(RUN_AXE, [selector, rules])


def outside(page):
    """By how many pixels the page is wider than the window."""
    return page.evaluate("document.documentElement.scrollWidth - innerWidth")


def check(page, scheme, rules=None):
    """Its colours, nothing for axe to find, no part wider than the window."""
    assert page.title()
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    page.evaluate(UNFOLD)
    found = faults_for_axe(page, rules=rules)
    assert not found, "\n".join(f"{it['id']}: {it['html'][:160]} {it['summary'][:300]}"
                                for it in found)
    for width in (WIDE, PHONE, WIDE):
        page.set_viewport_size({"width": width, "height": 900})
        assert outside(page) <= 0, (
            f"{outside(page)} pixels too wide at {width}: {page.evaluate(CULPRITS)}"
        )


@pytest.mark.parametrize("path", PAGES)
def test_page(page_at, path):
    """In both colour schemes; no error meanwhile (page_at sees to it).

    Where both show the same elements, what axe says of anything but colours is the same. The first
    page has two pictures more, so there all of the light one is judged, the logo with it.
    """
    page = page_at(path, "dark")
    check(page, "dark")
    shown = page.evaluate(SHOWN)
    page.emulate_media(color_scheme="light")
    reopen(page)
    page.evaluate(UNFOLD)
    check(page, "light", COLOURS if page.evaluate(SHOWN) == shown else None)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_that_look_alike_share_a_verdict(page_at, scheme):
    """On grey, where no colour can be read, axe names each look of each block either way."""
    few, all_ = [], []
    for selector, found in ((ONE_OF_A_LOOK, few), ("*", all_)):
        page = page_at("labs/03_phantom_gap/lab.html", scheme)
        page.evaluate(UNFOLD)
        page.add_style_tag(content=".highlight pre { background: #777 }")
        found += [it["look"] for it in faults_for_axe(page, selector) if it["look"]]
    assert set(few) == set(all_)
    assert len(set(few)) > 20
    assert len(few) < len(all_) / 4
