"""How the browser's Python is assembled: from the first source that has a part, and checked."""

import hashlib
import io
import json
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book/_tools"))
import live  # noqa: E402

OFFICIAL = ROOT / "_build/live/official"
here = pytest.mark.skipif(
    not (OFFICIAL / live.LOCK).is_file(), reason="no official file was fetched by a build"
)


def digests(files):
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def source(files):
    """A source that has these files, and remembers what it was asked for."""

    def bring(wanted):
        bring.asked = set(wanted)
        yield from ((name, files[name]) for name in wanted if name in files)

    return bring


def broken(wanted):
    raise live.Missing("the network is down")
    yield


FILES = {"a": b"first", "b": b"second"}


def test_each_file_comes_from_the_first_source_that_has_it(tmp_path):
    first, second, third = source({"a": b"first"}), source(FILES), source(FILES)
    live.official(digests(FILES), tmp_path, (broken, first, second, third))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == FILES
    assert (first.asked, second.asked) == ({"a", "b"}, {"b"})
    assert not hasattr(third, "asked")


def test_what_is_there_is_not_fetched_again_unless_it_is_damaged(tmp_path):
    live.official(digests(FILES), tmp_path, (source(FILES),))
    live.official(digests(FILES), tmp_path, (broken,))
    (tmp_path / "a").write_bytes(b"fir")
    again = source(FILES)
    live.official(digests(FILES), tmp_path, (again,))
    assert again.asked == {"a"}


def test_a_file_with_another_sum_is_not_taken(tmp_path):
    false = source({"a": b"forged", "b": b"second"})
    with pytest.raises(live.Missing) as error:
        live.official(digests(FILES), tmp_path, (broken, false))
    assert not (tmp_path / "a").exists()
    for said in ("no source has a", "the network is down", "a has sha256"):
        assert said in str(error.value)


def test_a_damaged_file_that_nobody_replaces_is_not_used(tmp_path):
    (tmp_path / "a").write_bytes(b"fir")
    with pytest.raises(live.Missing, match="no source has a"):
        live.official(digests({"a": b"first"}), tmp_path, (broken,))


def test_an_address_that_does_not_answer(tmp_path, monkeypatch):
    monkeypatch.setitem(live.PLAN, "address", "http://127.0.0.1:9/")
    with pytest.raises(live.Missing, match=r"from_address: http://127\.0\.0\.1:9/a"):
        live.official(digests(FILES), tmp_path, (live.from_address,))


def test_pip_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(live.Missing, match="open-webui"):
        live.pip_download(live.PLAN["carrier"]["package"], tmp_path)


@pytest.fixture
def root(tmp_path):
    """A project with a little library and an older distribution."""
    (tmp_path / "lib/convnets").mkdir(parents=True)
    (tmp_path / "_build/live/dist").mkdir(parents=True)
    (tmp_path / "_build/live/dist/manifest.json").write_text("{}")
    return tmp_path


def test_without_a_part_the_book_is_made_without_live_code(root, capsys):
    live.prepare(root, (broken,))
    said = capsys.readouterr().err
    assert said.startswith("NO LIVE CODE")
    assert "the network is down" in said
    html = root / "html"
    live.add_to_site(root, html)
    assert not html.exists()


def test_a_book_without_the_library_asks_nobody(tmp_path, capsys):
    live.prepare(tmp_path, (broken,))
    assert capsys.readouterr().err == ""


def test_the_same_files_give_the_same_wheel(tmp_path):
    (tmp_path / "m.py").write_text("x = 1\n")
    first, second = (live.wheel("some-name", "1.0", [("m.py", tmp_path / "m.py")]) for _ in "12")
    assert first == second
    with zipfile.ZipFile(io.BytesIO(first)) as wheel:
        assert wheel.testzip() is None
        assert "some_name-1.0.dist-info/METADATA" in wheel.namelist()
        assert wheel.read("m.py") == b"x = 1\n"


def test_data_are_not_in_the_wheel_but_beside_it():
    assert live.is_data("convnets/data/files/mnist.npz")
    assert live.is_data("convnets/pretrained/files/squeezenet.npz")
    assert not live.is_data("convnets/pretrained/files/registry.json")
    inside = dict(live.own_files("convnets", ROOT))
    assert {"convnets/__init__.py", "convnets/assets/base.js"} <= inside.keys()
    assert not [name for name in inside if name.endswith((".npz", ".jpg"))]


@here
def test_each_font_that_matplotlib_lists_is_there():
    """One that was left out is drawn in another: a missing file would be looked for, aloud."""
    [path] = OFFICIAL.glob("matplotlib-*.whl")
    with zipfile.ZipFile(io.BytesIO(live.trimmed(path, "matplotlib"))) as wheel:
        names = set(wheel.namelist())
        fonts = json.loads(wheel.read(live.FONTS))
    listed = {entry["fname"] for entry in fonts["ttflist"] + fonts["afmlist"]}
    assert {f"matplotlib/mpl-data/{name}" for name in listed} <= names
    assert {"DejaVu Sans", "STIXGeneral"} <= {entry["name"] for entry in fonts["ttflist"]}


@here
def test_official_files_are_those_of_the_pinned_lock():
    assert live.sha256((OFFICIAL / live.LOCK).read_bytes()) == live.PLAN["core"][live.LOCK]
    lock = json.loads((OFFICIAL / live.LOCK).read_text())
    for name in live.PLAN["official"]:
        entry = lock["packages"][name]
        assert live.sha256((OFFICIAL / entry["file_name"]).read_bytes()) == entry["sha256"]


@here
def test_our_lock_names_whole_wheels_and_their_needs(tmp_path):
    """A distribution assembled from what is there, without any source."""
    (tmp_path / "_build/live").mkdir(parents=True)
    (tmp_path / "_build/live/official").symlink_to(OFFICIAL)
    for name in ("lib", "book", "labs"):
        (tmp_path / name).symlink_to(ROOT / name)
    dist = live.assemble(tmp_path, ())
    packages = json.loads((dist / live.LOCK).read_text())["packages"]
    manifest = json.loads((dist / "manifest.json").read_text())
    for name, entry in packages.items():
        assert live.sha256((dist / entry["file_name"]).read_bytes()) == entry["sha256"], name
        assert set(entry["depends"]) <= packages.keys()
    assert {"numpy", "chainer", "rechainer", "convnets", "matplotlib"} <= packages.keys()
    placed = [*manifest["core"], *manifest["data"].values(), *manifest["beside"].values()]
    assert set(placed) <= manifest["bytes"].keys()
    assert "labs/01_convolution/checks.py" in manifest["beside"]
