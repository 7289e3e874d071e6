"""Files written whole or not at all, known for what they are, and npz read without trust."""

import os
import re
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np


@contextmanager
def written_whole(path):
    """Give a binary file to write to; it becomes `path` only when the block ends without error.

    Folders on the way are made. After an error there is nothing new, and a former file stays.

    Parameters
    ----------
    path : path
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            yield file
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def mistaken_for(path):
    """Say what a file is if it is one of those that come in place of the file wanted.

    Parameters
    ----------
    path : path

    Returns
    -------
    str or None
        In words, for an error; None if the file may be the one.
    """
    with Path(path).open("rb") as file:
        head = file.read(512)
    if not head:
        return "an empty file"
    if head.startswith(b"version https://git-lfs.github.com/spec/"):
        size = Path(path).stat().st_size
        return (f"a Git LFS pointer of {size} bytes, not the file it stands for; `git lfs pull` in "
                f"its repository, or the download link there, gives the file itself")
    if re.match(rb"(\xef\xbb\xbf)?\s*<(!doctype html|html|head|\?xml)", head, re.IGNORECASE):
        return "a web page"
    return None


def read_npz(path):
    """Return the arrays of an npz file as a dictionary; a pickle in it is never executed.

    Raises
    ------
    ValueError
        If the file is missing, damaged, or not an npz of plain arrays.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, AttributeError, zlib.error, zipfile.BadZipFile) as e:
        raise ValueError(f"{path} is not a whole npz file: {e}") from e
