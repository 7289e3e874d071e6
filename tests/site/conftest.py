"""The built book behind a local server, opened in a real Chromium with every other host cut off."""

import functools
import http.server
import os
import shutil
import threading
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import sync_playwright

HTML = Path(os.environ.get("BOOK_HTML", Path(__file__).resolve().parents[2] / "_build/html"))
# The browser's Python, which a build leaves out where a part of it cannot be had.
DIST = HTML / "_static/live/dist"
needs_python = pytest.mark.skipif(
    not (DIST / "manifest.json").exists(),
    reason="this build has no Python for the browser (see what the build said)",
)
# Served below a folder, as on a project's public page: only relative links work there.
FOLDER = "/some/folder/"
CHROMIUM = (
    os.environ.get("CHROMIUM")
    or shutil.which("chromium")
    or shutil.which("chromium-browser")
    or shutil.which("google-chrome")
)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
# Animations would make a click miss its target and a contrast differ from run to run.
STILL = "*, *::before, *::after { transition: none !important; animation: none !important; }"


def page_names(html=HTML):
    """Paths of all pages of the book; index.html only leads to the first of them."""
    paths = {path.relative_to(html).as_posix() for path in html.rglob("*.html")}
    return sorted(path for path in paths - {"index.html"} if not path.startswith("_"))


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves the book below FOLDER, and nothing above it."""

    def translate_path(self, path):
        if not path.startswith(FOLDER):
            return os.devnull + "/outside"
        return super().translate_path("/" + path.removeprefix(FOLDER))

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        pass  # A page that closes while it loads is no error of the book.


@contextmanager
def serve(html):
    """Serve a folder on a free port; gives the address of its first page."""
    handler = functools.partial(Handler, directory=str(html))
    with Server(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}{FOLDER}"
        server.shutdown()


@contextmanager
def chromium():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def browser():
    """A Chromium; without one the test is skipped, or fails where REQUIRE_BROWSER is set."""
    if not CHROMIUM:
        message = "no Chromium found: install one, or set CHROMIUM to its path"
        if os.environ.get("REQUIRE_BROWSER", "0") not in ("", "0"):
            pytest.fail(message)
        pytest.skip(message)
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def site():
    """The address under which the built book is served."""
    if not (HTML / "index.html").exists():
        pytest.fail(f"no book in {HTML}: run make book first")
    with serve(HTML) as address:
        yield address


def watch(page, site):
    """Collect what no page may do: errors, failed requests, requests to other hosts."""
    faults, host = [], urlsplit(site).netloc

    def request(request):
        address = urlsplit(request.url)
        if address.scheme in ("http", "https", "ws", "wss") and address.netloc != host:
            faults.append(f"request to another host: {request.url}")

    def console(message):
        if message.type == "error":
            faults.append(f"console: {message.text} {message.location}")

    def response(response):
        if response.status >= 400:
            faults.append(f"status {response.status}: {response.url}")

    page.on("request", request)
    page.on("console", console)
    page.on("response", response)
    page.on("requestfailed", lambda it: faults.append(f"failed: {it.url} {it.failure}"))
    page.on("pageerror", lambda error: faults.append(f"script error: {error}"))
    return faults


def settle(page):
    """Wait until mathematics is typeset, icons are drawn and widgets stand."""
    page.wait_for_load_state("networkidle")
    page.evaluate("async () => { await window.MathJax?.startup?.promise; }")
    widgets = page.locator('script[type="application/vnd.jupyter.widget-view+json"]').count()
    if widgets:
        page.wait_for_function(
            "n => document.querySelectorAll('.jupyter-widgets.widget-subarea, .widget-subarea > *')"
            ".length >= n",
            arg=widgets,
        )


def new_context(browser, **options):
    return browser.new_context(reduced_motion="reduce", **options)


def show(page, load):
    """Load a page and wait until it stands still."""
    load()
    page.add_style_tag(content=STILL)
    settle(page)


def visit(context, site, path, scheme="light", width=1280, height=900):
    """Open one page of the book; gives the page, with `page.faults`."""
    page = context.new_page()
    page.set_viewport_size({"width": width, "height": height})
    page.emulate_media(color_scheme=scheme)
    page.faults = watch(page, site)
    show(page, lambda: page.goto(site + path))
    return page


def reopen(page):
    """Load a page again, as it opens with the colours and the width that its window now has."""
    show(page, page.reload)


@contextmanager
def opened(browser, site, path, scheme="light", width=1280, height=900):
    """`visit` by somebody who was never here before."""
    context = new_context(browser, has_touch=width < 700)
    yield visit(context, site, path, scheme, width, height)
    context.close()


@contextmanager
def at_home(browser, site):
    """A browser in which a page of the site is open: the next takes half the work to open."""
    context = new_context(browser)
    context.new_page().goto(site + "_static/pygments.css")
    yield context
    context.close()


def forget(context, site):
    """Remove all that a site keeps in a browser; the next to come was never there."""
    origin = "{0.scheme}://{0.netloc}".format(urlsplit(site))
    session = context.new_cdp_session(context.pages[0])
    session.send("Storage.clearDataForOrigin", {"origin": origin, "storageTypes": "all"})
    session.detach()


@pytest.fixture(scope="session")
def reader(browser, site):
    with at_home(browser, site) as context:
        yield context


@pytest.fixture(scope="session")
def first(browser, site):
    """The first worker of a reader, which has compiled for all that start in its context later.

    It lives on, since they share its WebAssembly's code. `first.needed`: bytes before its first
    result.
    """
    from live_pages import KEPT, worker  # which imports this module

    with at_home(browser, site) as context, worker(browser, site, context) as live:
        live.outputs("import convnets")
        live.needed = sum(live.bytes.values())
        live.outputs("from convnets import figures, models, widgets")
        live.page.evaluate(KEPT)
        yield live
        assert live.faults == []


@pytest.fixture
def page_at(reader, site):
    """A function: page_at(path, scheme='light') opens a page of the book, for a new reader.

    The test fails when the page shows an error, misses a file or asks another host for anything.
    """
    pages = []

    def open_page(path, scheme="light"):
        pages.append(visit(reader, site, path, scheme))
        return pages[-1]

    yield open_page
    faults = [fault for page in pages for fault in page.faults]
    for page in pages:
        page.close()
    forget(reader, site)  # such as the choice of colours
    assert not faults, "\n".join(faults)
