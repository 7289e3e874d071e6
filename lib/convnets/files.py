"""Files written whole or not at all, and npz files read without trust."""

import os
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
