"""The self-hosted scripts are the published files: python tests/site/test_vendor.py --write"""

import hashlib
import json
import sys
from pathlib import Path

import pytest

VENDOR = Path(__file__).resolve().parents[2] / "book/_static/vendor"
MANIFEST = VENDOR / "manifest.json"


def sums(package):
    """SHA-256 of each file of one package, by its path in the package's folder."""
    folder = VENDOR / package
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("package", sorted(json.loads(MANIFEST.read_text())))
def test_files_are_the_published_ones(package):
    entry = json.loads(MANIFEST.read_text())[package]
    assert entry["files"] == sums(package), "run python tests/site/test_vendor.py --write"
    assert "LICENSE" in entry["files"]
    assert (VENDOR / package / "LICENSE").stat().st_size > 500


def test_every_folder_is_in_the_manifest():
    folders = {path.name for path in VENDOR.iterdir() if path.is_dir()}
    assert folders == set(json.loads(MANIFEST.read_text()))


def test_size_stays_small():
    total = sum(path.stat().st_size for path in VENDOR.rglob("*") if path.is_file())
    assert total < 7e6, f"{total} bytes of vendored scripts: every clone carries them"


def write():
    manifest = json.loads(MANIFEST.read_text())
    for package, entry in manifest.items():
        entry["files"] = sums(package)
    MANIFEST.write_text(json.dumps(manifest, indent=1) + "\n")


if __name__ == "__main__" and "--write" in sys.argv:
    write()
