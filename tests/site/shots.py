"""Pictures of the book's pages, for people to look at: shots.py FOLDER [PAGE ...]

Each page is taken in both colour schemes, wide and as on a phone, as it looks when it opens.
`--whole` takes it down to its last line; `--part SELECTOR` takes the first element that matches.
`--own` takes those that the README and the first page show: shots.py book/_static --own
"""

import argparse
import sys
from pathlib import Path

from conftest import HTML, chromium, opened, page_names, serve

LOOKS = [("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390)]


def take(page, path, whole, part):
    """Write one picture of a page or of a part of it."""
    if part:
        page.locator(part).first.screenshot(path=path)
    else:
        page.screenshot(path=path, full_page=whole)


def shoot(folder, pages, whole=False, part=None, html=HTML, looks=LOOKS):
    """Take all pictures; gives their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    with serve(html) as site, chromium() as browser:
        for name in pages:
            for scheme, width in looks:
                path = folder / f"{Path(name).with_suffix('').as_posix()}-{scheme}-{width}.png"
                path = folder / path.relative_to(folder).as_posix().replace("/", "_")
                with opened(browser, site, name, scheme, width) as page:
                    take(page, path, whole, part)
                yield path


def shoot_own(folder, html=HTML):
    """The sliding window of the first chapter: in its page, and alone in both colour schemes."""
    with serve(html) as site, chromium() as browser:
        for scheme in ("light", "dark"):
            with opened(browser, site, "book/01_convolution.html", scheme, 1280, 800) as page:
                figure = page.locator("[data-cv=sliding_window]").first
                pad = figure.get_by_role("spinbutton", name="pad")
                pad.fill("1")
                pad.blur()
                figure.get_by_role("gridcell").nth(5).hover()
                figure.screenshot(path=folder / f"window-{scheme}.png")
                figure.evaluate("it => scrollTo(0, it.getBoundingClientRect().top + scrollY - 70)")
                if scheme == "light":
                    page.screenshot(path=folder / "readme.png")


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("pages", nargs="*", help="such as book/intro.html (default: all)")
    parser.add_argument("--whole", action="store_true", help="down to the last line")
    parser.add_argument("--part", metavar="SELECTOR", help="only the first element that matches")
    parser.add_argument("--own", action="store_true", help="those of the README and first page")
    args = parser.parse_intermixed_args(argv)
    if args.own:
        return shoot_own(args.folder)
    if missing := [name for name in args.pages if not (HTML / name).is_file()]:
        parser.error(f"no such page in {HTML}: {', '.join(missing)}; such as book/intro.html")
    for path in shoot(args.folder, args.pages or page_names(), args.whole, args.part):
        print(path)


if __name__ == "__main__":
    sys.exit(main())
