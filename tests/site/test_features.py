"""What the book's frame does for a reader, by mouse and keyboard."""

import re

import pytest
from conftest import HTML, page_names

pytestmark = pytest.mark.site


def chapters():
    """Pages made from notebooks: their source can be downloaded."""
    return [
        name for name in page_names() if (HTML / "_sources" / name).with_suffix(".ipynb").exists()
    ]


@pytest.fixture
def chapter(page_at):
    return page_at(chapters()[0])


def test_front_door_leads_to_the_first_page(browser, site):
    page = browser.new_page()
    page.goto(site)
    page.wait_for_url(re.compile("book/intro.html"))
    assert page.get_by_role("heading", level=1).count() == 1
    page.close()


def test_search_finds_a_word_of_the_book(page_at):
    page = page_at("search.html?q=convolution")
    page.locator("#search-results li a").first.wait_for()
    assert page.locator("#search-results li").count() >= 3


def test_search_opens_by_keyboard(chapter):
    chapter.keyboard.press("Control+k")
    field = chapter.locator("#pst-search-dialog input[type=search]")
    field.wait_for()
    chapter.keyboard.type("softmax")
    chapter.keyboard.press("Enter")
    chapter.wait_for_url(re.compile("search.html"))


def test_theme_button_changes_the_colours(chapter):
    seen = set()
    for _ in range(3):
        chapter.get_by_role("button", name="Color mode").click()
        seen.add(chapter.evaluate("document.documentElement.dataset.theme"))
    assert seen == {"light", "dark"}


def test_copy_button_copies_the_code(chapter):
    chapter.context.grant_permissions(["clipboard-read", "clipboard-write"])
    block = chapter.locator("div.highlight:has(.copybtn):visible").first
    block.hover()
    block.locator(".copybtn").click()
    chapter.wait_for_timeout(200)
    copied = chapter.evaluate("navigator.clipboard.readText()")
    assert copied.strip() == block.locator("pre").inner_text().strip()


def test_folded_solution_unfolds_by_keyboard(page_at):
    """The first page that has a folded box: closed at first, open after Enter."""
    page = page_at(next(n for n in chapters() if "dropdown admonition" in (HTML / n).read_text()))
    box = page.locator(".admonition.dropdown").first
    body = box.locator(":scope > :not(.admonition-title)").last
    assert not body.is_visible()
    box.locator(".toggle-button, summary").first.focus()
    page.keyboard.press("Enter")
    assert body.is_visible()


@pytest.mark.parametrize("name", chapters())
def test_notebook_can_be_downloaded(site, name, page_at):
    page = page_at(name)
    link = page.locator('a[download][href$=".ipynb"], a[href$=".ipynb"]').first
    response = page.request.get(link.evaluate("node => node.href"))
    assert response.ok
    assert response.json()["nbformat"] == 4


def test_mathematics_is_typeset(page_at):
    name = next(n for n in page_names() if 'class="math' in (HTML / n).read_text("utf-8"))
    page = page_at(name)
    assert page.locator("mjx-container mjx-math").count() > 0
    assert page.locator("mjx-merror").count() == 0
