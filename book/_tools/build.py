"""Build the book into _build/html: quiet when all is well, a second call takes no time.

Every warning is an error. Pages are made from the stored outputs of the notebooks, so a build
runs no cell. A failed build leaves no traces that could hide its warnings from the next one.
"""

import argparse
import hashlib
import io
import os
import shutil
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path

import lite
import live
import yaml

ROOT = Path(__file__).resolve().parents[2]
# What a page is made of; lib is read for the docstrings, and pages bring it to the browser.
SOURCES = (
    "_config.yml",
    "_toc.yml",
    "requirements.txt",
    "book/**/*",
    "labs/**/*.md",
    "labs/*/*.ipynb",
    "lib/convnets/**/*",
    "lib/rechainer/**/*",
)
# A change to one of these changes every page.
FRAME = ("_config.yml", "_toc.yml", "requirements.txt", "book/_tools/*", "book/references.bib")
IGNORED = {"__pycache__", ".ipynb_checkpoints"}


def files(root, patterns):
    """The files that match, in a fixed order."""
    found = {path for pattern in patterns for path in root.glob(pattern) if path.is_file()}
    return sorted(path for path in found if not IGNORED.intersection(path.parts))


def digest(root, patterns):
    """One sum over names and contents of the files that match."""
    total = hashlib.sha256(sys.version.encode())
    for path in files(root, patterns):
        total.update(path.relative_to(root).as_posix().encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def read(path):
    return path.read_text().split() if path.exists() else ["", ""]


def sphinx(root, out):
    """Run Jupyter Book's Sphinx; return its result (0 is good) and what it said."""
    from jupyter_book.sphinx import build_sphinx

    said = io.StringIO()
    with redirect_stdout(said):
        result = build_sphinx(
            root,
            out,
            noconfig=True,
            path_config=root / "_config.yml",
            confoverrides={
                "external_toc_path": (root / "_toc.yml").as_posix(),
                "latex_individualpages": False,
            },
            force_all=True,  # Menus and links stand on every page: write all, read what changed.
            quiet=True,
            warningiserror=True,
            keep_going=True,
        )
    return result, said.getvalue()


def write_front_door(root, out):
    """index.html leads to the first page of the book."""
    first = yaml.safe_load((root / "_toc.yml").read_text())["root"] + ".html"
    title = yaml.safe_load((root / "_config.yml").read_text())["title"]
    (out / "index.html").write_text(
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f"<title>{title}</title>\n"
        f'<meta http-equiv="refresh" content="0; url={first}">\n'
        f'<p><a href="{first}">{title}</a></p>\n</html>\n',
        encoding="utf-8",
    )
    (out / ".nojekyll").touch()  # GitHub Pages would hide _static.


def build(root, fresh=False):
    """Build unless nothing changed since the last good build; return the exit status."""
    build_dir = root / "_build"
    stamp, out = build_dir / "book.stamp", build_dir / "html"
    frame, content = digest(root, FRAME), digest(root, SOURCES)
    if not fresh and read(stamp) == [frame, content] and (out / "index.html").exists():
        print("Nothing changed since the last build.")
        return 0
    if fresh or read(stamp)[0] != frame:
        remove(build_dir / ".doctrees")
    # Beside the old book, so that somebody who reads it never sees half a new one.
    new = build_dir / "html.new"
    remove(new, stamp)
    live.prepare(root)  # First: pages ask whether it is there.
    lite.prepare(root)
    result, said = sphinx(root, new)
    if result != 0:
        # A page that was read before would not warn again.
        remove(new, out, build_dir / ".doctrees")
        print(said, file=sys.stderr)
        print("The book was not built: mend what is said above.", file=sys.stderr)
        return 1
    write_front_door(root, new)
    live.add_to_site(root, new)
    lite.add_to_site(root, new)
    remove(out)
    new.rename(out)
    stamp.write_text(f"{frame}\n{content}\n")
    return 0


def remove(*paths):
    """Remove files and folders, also those that are not there."""
    for path in paths:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--fresh", action="store_true", help="read and write every page anew")
    parser.add_argument("--root", type=Path, default=ROOT, help="folder that holds _config.yml")
    args = parser.parse_args(argv)
    os.environ["COLUMNS"] = "88"  # The help of commands is as wide for everybody.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("CHAINER_WARN_VERSION_MISMATCH", "0")
    start = time.monotonic()
    root = args.root.resolve()
    if status := build(root, args.fresh):
        return status
    print(f"The book is in {root / '_build/html/index.html'} ({time.monotonic() - start:.0f} s).")
    print('Open that file, or run "make serve" and open http://127.0.0.1:8000/')
    return 0


if __name__ == "__main__":
    sys.exit(main())
