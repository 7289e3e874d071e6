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
# one parent and one look have one contrast: one of them, in sight and of many letters, stands for
# the others (axe passes over what is scrolled away).
MARK_ALIKE = r"""() => {
  const LOOK = ['color', 'backgroundColor', 'backgroundImage', 'opacity', 'fontSize', 'fontWeight',
    'textShadow', 'webkitTextFillColor', 'webkitTextStroke', 'filter', 'mixBlendMode', 'display',
    'visibility', 'position', 'zIndex', 'clip', 'clipPath'];
  const frames = node => {  // What scrolls or hides it.
    const found = [];
    for (let it = node; it; it = it.parentElement) {
      if (getComputedStyle(it).overflow !== 'visible') found.push(it.getBoundingClientRect());
    }
    return found;
  };
  const inSight = (box, found) => {  // 2: all of it, 1: its beginning
    const begins = found.every(it => it.left <= box.left && box.left < it.right
      && it.top <= box.top && box.bottom <= it.bottom);
    return begins + (begins && found.every(it => box.right <= it.right));
  };
  let number = 0;
  for (const pre of document.querySelectorAll('pre')) {
    const looks = new Map(), found = frames(pre);
    for (const node of pre.querySelectorAll(':scope > span')) {
      if (node.children.length || !node.textContent.trim()) continue;
      const style = getComputedStyle(node), look = LOOK.map(name => style[name]).join();
      looks.set(look, [...(looks.get(look) ?? []), node]);
    }
    for (const alike of looks.values()) {
      const weights = alike.map(node => {
        const letters = node.textContent.replace(/\W/g, '').length;
        return letters && letters + 1e6 * inSight(node.getBoundingClientRect(), found);
      });
      const first = weights.indexOf(Math.max(...weights));
      number += 1;
      for (const [i, node] of alike.entries()) {
        delete node.dataset.alike;
        delete node.dataset.look;
        node.dataset[i === first ? 'look' : 'alike'] = number;
      }
    }
  }
}"""
# Where axe gives no verdict on a word (scrolled away, a single sign), all like it are judged.
# preload would fetch the style sheets again, their @import lines from a wrong folder.
RUN_AXE = """async selector => {
  const run = (selector, more) => {
    axe.configure({rules: [{id: 'color-contrast', selector}]});
    return axe.run({resultTypes: ['violations', 'incomplete'], preload: false, ...more});
  };
  const { violations, incomplete } = await run(selector);
  const open = incomplete.filter(it => it.id === 'color-contrast').flatMap(it => it.nodes)
    .map(it => document.querySelector(it.target[0])?.dataset.look).filter(it => it);
  if (!open.length) return violations;
  const others = open.map(it => `[data-alike="${it}"]`).join();
  return [...violations, ...(await run(others, { runOnly: ['color-contrast'] })).violations];
}"""
FIRST_OF_ALIKE = "*:not([data-alike])"

# Blocks of code and the looks in them: of words at which axe found a fault.
LOOKS = """targets => {
  const blocks = [...document.querySelectorAll('pre')];
  const looks = targets.map(target => {
    const node = document.querySelector(target), style = getComputedStyle(node);
    return [blocks.indexOf(node.parentNode), style.color, style.fontWeight, style.opacity].join();
  });
  return [...new Set(looks)].sort();
}"""


def run_axe(page, selector=FIRST_OF_ALIKE):
    """Its violations; the contrast of the elements that a selector matches."""
    page.evaluate(MARK_ALIKE)
    page.evaluate(AXE_SCRIPT)
    return page.evaluate(RUN_AXE, selector)


def violations(page):
    """What axe finds, one line a fault: the rule, and where."""
    return [
        f"{rule['id']}: {node['target']} {node['html'][:160]} {node['failureSummary'][:300]}"
        for rule in run_axe(page)
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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_that_look_alike_share_a_verdict(page_at, scheme):
    """On grey, where no colour can be read, axe names each look of each block either way."""
    page = page_at("labs/02_lenet5/lab.html", scheme)
    page.evaluate(UNFOLD)
    page.add_style_tag(content=".highlight pre { background: #777 }")
    found = []
    for selector in (FIRST_OF_ALIKE, "*"):
        nodes = [node for rule in run_axe(page, selector) for node in rule["nodes"]]
        found.append([node["target"][0] for node in nodes])
    looks = [page.evaluate(LOOKS, targets) for targets in found]
    assert looks[0] == looks[1]
    assert len(looks[0]) > 20
    assert len(found[0]) < len(found[1]) / 4
