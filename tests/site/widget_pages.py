"""Pages that hold widgets and nothing else, open in a real browser."""

import pytest
from axe_playwright_python.sync_playwright import Axe

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>Widgets</title></head>
<body style="font-family: sans-serif"><main><h1>Widgets</h1>{}</main></body></html>"""


@pytest.fixture(scope="session")
def contexts(browser):
    """A function: the context with some options, in which a page is open (see `reader`)."""
    made = {}

    def context(**options):
        key = tuple(sorted(options.items()))
        if key not in made:
            made[key] = browser.new_context(**options)
            made[key].new_page()
        return made[key]

    yield context
    for context in made.values():
        context.close()


@pytest.fixture
def show(contexts):
    """A function that opens widgets in a page; any error or request of the page fails the test."""
    pages, faults = [], []

    def show(*widgets, scheme="light", width=900, **options):
        page = contexts(**options).new_page()
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme=scheme)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: faults.append(message.text))
        page.on("request", lambda request: faults.append(request.url))
        page.set_content(PAGE.format("".join(w._repr_html_() for w in widgets)))
        pages.append(page)
        return page

    yield show
    for page in pages:
        page.close()
    assert faults == []


@pytest.fixture
def check_look(show):
    """A function: nothing sticks out of a phone, and axe finds nothing in either colour scheme."""

    def check(*widgets):
        for scheme, width in [("light", 900), ("dark", 900), ("light", 390), ("dark", 390)]:
            page = show(*widgets, scheme=scheme, width=width)
            outside = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
            assert outside <= 0, f"{outside} pixels stick out at width {width}"
            report = Axe().run(page)
            assert report.violations_count == 0, report.generate_report()

    return check
