"""Links of the built book: each leads somewhere, and none fetches from another host."""

from collections import defaultdict
from html.parser import HTMLParser
from pathlib import PurePosixPath
from urllib.parse import unquote, urldefrag, urlsplit

import pytest
from conftest import HTML, page_names

# What a browser fetches by itself; a plain link (a) may lead anywhere.
FETCHED = {
    ("link", "href"),
    ("script", "src"),
    ("img", "src"),
    ("iframe", "src"),
    ("source", "src"),
}
LINKS = FETCHED | {("a", "href")}


class Page(HTMLParser):
    """Ids and links of one page."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links = set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids.update(value for name, value in attrs.items() if name in ("id", "name") and value)
        self.links += [
            (tag, attrs[name])
            for kind, name in LINKS
            if kind == tag and attrs.get(name) and "canonical" not in attrs.get("rel", "")
        ]


@pytest.fixture(scope="module")
def pages():
    if not (HTML / "index.html").exists():
        pytest.fail(f"no book in {HTML}: run make book first")
    names = ["index.html", *page_names()]
    return {name: Page((HTML / name).read_text(encoding="utf-8")) for name in names}


def inside(page, link):
    """The file and the anchor that a relative link of a page leads to."""
    path, anchor = urldefrag(link)
    path = unquote(urlsplit(path).path)
    parts = []
    for part in PurePosixPath(page).parent.joinpath(path).parts if path else (page,):
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts), unquote(anchor)


def broken(page, link, pages):
    """What is wrong with a relative link, or None."""
    if link.startswith("/"):
        return "starts at the root: it breaks below a folder"
    name, anchor = inside(page, link)
    if not (HTML / name).is_file():
        return f"no file {name}"
    if anchor and name in pages and anchor not in pages[name].ids:
        return f"no anchor {anchor} in {name}"
    return None


def test_every_link_leads_somewhere(pages):
    faults = defaultdict(list)
    for page, content in pages.items():
        for _, link in content.links:
            if urlsplit(link).scheme or link.startswith("//"):
                continue
            if fault := broken(page, link, pages):
                faults[f"{link}: {fault}"].append(page)
    assert not faults, "\n".join(f"{fault}, on {pages[0]}" for fault, pages in faults.items())


def test_nothing_is_fetched_from_elsewhere(pages):
    foreign = [
        f"{page}: {tag} {link}"
        for page, content in pages.items()
        for tag, link in content.links
        if tag != "a" and (link.startswith("//") or urlsplit(link).scheme not in ("", "data"))
    ]
    assert not foreign, "\n".join(foreign)


def test_widget_scripts_only_where_there_are_widgets(pages):
    for page, content in pages.items():
        scripts = any("vendor/html-manager" in link for _, link in content.links)
        widgets = "application/vnd.jupyter.widget-view+json" in (HTML / page).read_text("utf-8")
        assert scripts == widgets, page
