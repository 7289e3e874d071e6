"""What a report looks like as text and as HTML."""

import ast
import sys
from html.parser import HTMLParser
from pathlib import Path

import convnets.check
from convnets.check import Finding, NotAttempted, is_blank, run

import pytest

VOID = {"br", "img", "hr", "input", "meta", "link"}


class Outline(HTMLParser):
    """Checks that tags are balanced and collects ids, classes and links."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.urls, self.tags = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.ids += [value for name, value in attributes if name == "id"]
        self.urls += [value for name, value in attributes if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def passing():
    return run("demo", [("one", lambda: None), ("two", lambda: None)])


def failing(text="a < b & `c`"):
    def stage():
        raise Finding("It is <b>wrong</b>.", call="demo(x)", expected="[[1 2]\n [3 4]]", got=text,
                      cause="You wrote `x < 0`.")
    return run("demo", [("one", lambda: None), ("two", stage), ("three", lambda: None)])


def blank():
    def stage():
        raise NotAttempted
    return run("demo", [("attempted", stage)])


def test_texts():
    assert str(passing()) == "✓ demo: all 2 stages passed"
    assert str(blank()).startswith("○ demo: not attempted yet\n  Write your answer")
    assert str(failing()).splitlines() == [
        "✗ demo: stopped at 'two', stage 2 of 3",
        "  It is <b>wrong</b>.",
        "  call         demo(x)",
        "  expected     [[1 2]",
        "                [3 4]]",
        "  got          a < b & `c`",
        "  likely cause You wrote `x < 0`.",
        "  Stuck? `check.hint('demo')`",
    ]


def test_stages_stop_at_the_first_that_fails():
    report = failing()
    assert [(s.title, s.ok) for s in report.stages] == [("one", True), ("two", False)]
    assert not report.ok and report.total == 3


def test_long_lines_of_text_are_wrapped():
    assert max(map(len, str(failing("word " * 100)).splitlines())) <= 100


@pytest.mark.parametrize("report", [passing(), failing(), blank()], ids=lambda r: r.status)
def test_html_is_whole_and_asks_for_nothing(report):
    html = report._repr_html_()
    outline = Outline(html)
    assert not outline.open and not outline.ids and not outline.urls
    assert "script" not in outline.tags
    assert 'role="group"' in html and 'aria-label="Check of demo"' in html


def test_html_escapes_what_the_reader_wrote():
    html = failing()._repr_html_()
    assert "<b>" not in html
    assert "It is &lt;b&gt;wrong&lt;/b&gt;." in html
    assert "a &lt; b &amp; <code>c</code>" in html


def test_html_says_in_words_what_colours_say():
    html = failing()._repr_html_()
    assert "✓ one" in html and "✗ two" in html and "stopped at" in html


def test_html_follows_light_and_dark():
    html = passing()._repr_html_()
    for part in ("--cv-good", "--cv-bad", "light-dark(", '[data-theme="dark"]',
                 '[data-jp-theme-light="false"]'):
        assert part in html


def test_scrolling_blocks_can_be_reached_by_keyboard():
    assert '<pre tabindex="0">[[1 2]' in failing()._repr_html_()


# Not imported with the others: the first makes notebooks, the second is for labs on networks.
APART = ("master", "networks")


def test_checks_need_only_the_standard_library_and_numpy():
    folder = Path(convnets.check.__file__).parent
    for path in folder.glob("*.py"):
        if path.stem in APART:
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else \
                [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            for name in names:
                assert name.split(".")[0] in {*sys.stdlib_module_names, "numpy"}, (path, name)
    for name in APART:
        assert name not in (folder / "__init__.py").read_text("utf-8")


def commented():
    """A docstring is no answer."""
    ...  # your code here


class Untouched:
    def __init__(self):
        ...

    def forward(self, x):
        """Nor is this."""


@pytest.mark.parametrize(("answer", "blank"), [
    (..., True), (commented, True), (Untouched, True), (lambda: None, True),
    (lambda: 0, False), (lambda: False, False), (lambda x: x, False), (None, False), (0, False),
])
def test_what_counts_as_not_attempted(answer, blank):
    assert is_blank(answer) == blank
