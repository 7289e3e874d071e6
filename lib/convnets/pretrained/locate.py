"""Where a weight file is: at a path, in Chainer's models folder, or at its published address."""

from pathlib import Path

from ..data.download import DownloadError, fetch, problem_with
from ..files import mistaken_for
from . import registry
from .errors import WeightsError


def locate(source, download=True, progress=True):
    """Return the path of a weight file, fetching it first if it must be and can be.

    A path is taken as it is; a bare file name also if that file is in the models folder,
    ``$CHAINER_DATASET_ROOT/pfnet/chainer/models``. The file of a name in the registry is looked
    for in that folder, and must have its published checksum. Otherwise it is downloaded there,
    whole or not at all, one process at a time; what has come before a break is not lost.

    Parameters
    ----------
    source : str or path
        A name that `registry.names` or `registry.aliases` has, or a file.
    download : bool
        Whether to use the network.
    progress : bool
        Show a progress bar on stderr.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    WeightsError
        If there is no such file or name, if what is there is something else, or if the file could
        not be fetched. The message says which file to put where.
    """
    entry = registry.find(source)
    return _given(source) if entry is None else _published(entry, download, progress)


def state(entry):
    """Say what the models folder has of a published file.

    Parameters
    ----------
    entry : registry.Entry

    Returns
    -------
    str or None
        ``"whole"``, None if there is nothing, or what is wrong with what is there. A file with no
        published checksum is called ``"there"``: nothing can be said of it.
    """
    if not entry.path.is_file():
        return None
    return _problem(entry) or ("whole" if entry.checksums else "there")


def _given(source):
    for path in (Path(source), registry.models_folder() / source):
        if path.is_file():
            if what := mistaken_for(path):
                raise WeightsError(f"{path} is {what}. Get the weight file again.")
            return path
        if Path(source).name != str(source):
            break                               # not a bare file name
    raise WeightsError(_not_there(source))


def _not_there(source):
    if Path(source).is_dir():
        return f"{source} is a folder; expected a weight file"
    for name in registry.names():
        entry = registry.entry(name)
        if entry.file == Path(source).name:
            return f"{source} does not exist. By the name {name!r}: {_advice(entry)}"
        if str(source).startswith(f"{entry.arch}/") and not Path(source).suffix:
            registry.entry(source)              # raises, and lists the names of that network
    return (f"{source} does not exist. Give a weight file, or a name such as "
            f"{next(iter(registry.aliases()))!r}; `convnets weights` lists them.")


def _published(entry, download, progress):
    problem = f"{entry.file} is not in {entry.path.parent}"
    if entry.path.is_file():
        problem = _problem(entry)
        if problem is None:
            return entry.path
        problem = f"{entry.path}: {problem}"
    if not (download and entry.downloadable):
        raise WeightsError(f"{entry.name}: {problem}. {_advice(entry)}")
    try:
        return fetch(entry.url, entry.path, size=entry.size, **entry.checksums, progress=progress)
    except (DownloadError, OSError) as e:
        raise WeightsError(f"{entry.name}: {e}. {_advice(entry)}") from e


def _problem(entry):
    """Say what is wrong with the file in the models folder, or return None."""
    if entry.checksums:
        return problem_with(entry.path, size=entry.size, **entry.checksums)
    what = mistaken_for(entry.path)
    return what and f"got {what}"


def _advice(entry):
    """Say what to put where, and what else there is."""
    others = [name for name in registry.names() if name != entry.name
              and name.startswith(f"{entry.arch}/") and registry.entry(name).downloadable]
    source = entry.url or entry.page
    return " ".join(filter(None, (
        entry.note,
        f"Put {entry.file} ({entry.describe_size()}, {entry.describe_checksum()}) into "
        f"{entry.path.parent}, or give its path.",
        source and f"It is published at {source}.",
        others and f"Weights of {entry.arch} that are downloaded: {', '.join(others)}.")))
