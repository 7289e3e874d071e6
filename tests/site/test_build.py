"""The build: a warning stops it, every time; a second one has nothing to do."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def book(tmp_path):
    """A book of one page, with the configuration of the real one."""
    shutil.copy(ROOT / "_config.yml", tmp_path)
    shutil.copytree(ROOT / "book/_tools", tmp_path / "book/_tools")
    (tmp_path / "book/_static").mkdir()
    for name in ("book.css", "book.js", "logo.svg", "favicon.svg"):
        shutil.copy(ROOT / "book/_static" / name, tmp_path / "book/_static")
    shutil.copy(ROOT / "book/references.bib", tmp_path / "book")
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: book/page\n")
    (tmp_path / "book/page.md").write_text("# Page\n\nText.\n")
    return tmp_path


def build(book):
    return subprocess.run(
        [sys.executable, str(book / "book/_tools/build.py")], capture_output=True, text=True
    )


def test_good_then_nothing_to_do_then_bad_twice(book):
    first = build(book)
    assert first.returncode == 0, first.stderr
    page = book / "_build/html/book/page.html"
    assert "Text." in page.read_text(encoding="utf-8")
    assert 'href="book/page.html"' in (book / "_build/html/index.html").read_text(encoding="utf-8")

    assert "Nothing changed" in build(book).stdout

    (book / "book/page.md").write_text("# Page\n\nSee {doc}`nowhere`.\n")
    for _ in range(2):
        bad = build(book)
        assert bad.returncode == 1
        assert "nowhere" in bad.stderr
        assert not page.exists()
