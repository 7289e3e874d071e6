"""What a reader has solved: a small file of events in the user's own folder.

Each event is one line of JSON, appended in a single write. So two notebooks can record at the
same time, and a kill in the middle costs at most the line being written: readers skip a line
that is not whole, and every write starts on a new one.

Where: ``$CONVNETS_PROGRESS`` if it is set (a path, or ``off``), else ``convnets/labs.jsonl`` in
the user's state folder (``$XDG_STATE_HOME``, ``%LOCALAPPDATA%`` or ``~/.local/state``): outside
the repository, so solving a lab dirties nothing but the notebook.

When: without ``$CONVNETS_PROGRESS``, only where a person works: in a notebook that a Jupyter
server or VS Code has open. Tests, builds, CI and the page in a browser record nothing, and so
does ``solution.ipynb``.
"""

from __future__ import annotations

import datetime
import json
import os
import sys
from pathlib import Path


def default_path() -> Path:
    """The file of this user."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    else:
        base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "convnets" / "labs.jsonl"


def path() -> Path | None:
    """The file to read and to record in on request; None if recording is off."""
    chosen = os.environ.get("CONVNETS_PROGRESS", "")
    if chosen.lower() in ("off", "0", "no"):
        return None
    return Path(chosen) if chosen else default_path()


def notebook() -> str:
    """Name of the notebook that a person has open in this session, or ''."""
    # Jupyter's server sets the first; VS Code puts the second into the notebook's names.
    names = vars(sys.modules["__main__"])
    return os.environ.get("JPY_SESSION_NAME") or names.get("__vsc_ipynb_file__", "")


def session_path() -> Path | None:
    """Where a check that runs here records on its own; None if it does not."""
    person = notebook() and Path(notebook()).name != "solution.ipynb"
    unattended = "CI" in os.environ or sys.platform == "emscripten"
    if os.environ.get("CONVNETS_PROGRESS") or (person and not unattended):
        return path()
    return None


def append(file: Path, event: dict) -> None:
    """Add one event, in one write.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    line = "\n" + json.dumps(event, sort_keys=True) + "\n"
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def events(file: Path) -> list[dict]:
    """All whole events, oldest first; none if there is no file.

    Raises
    ------
    OSError
        If there is a file that cannot be read.
    """
    try:
        text = file.read_text("utf-8", errors="replace")
    except FileNotFoundError:
        return []
    return [event for line in text.splitlines() if (event := _parsed(line))]


def state(file: Path) -> dict[str, dict]:
    """What the events come to: ``{lab: {'solved': {exercise: date}, 'hints': {exercise: n}}}``."""
    labs: dict[str, dict] = {}
    for event in events(file):
        kind, lab = event["event"], event["lab"]
        if kind == "reset":
            labs.pop(lab, None)
            continue
        entry = labs.setdefault(lab, {"solved": {}, "hints": {}})
        if kind == "solved":
            entry["solved"].setdefault(event["exercise"], event.get("date", ""))
        elif kind == "hint":
            seen = entry["hints"].get(event["exercise"], 0)
            entry["hints"][event["exercise"]] = max(seen, event["number"])
    return labs


def solved(file: Path, lab: str, exercise: str) -> None:
    """Record that an exercise is solved, once."""
    if exercise not in state(file).get(lab, {}).get("solved", {}):
        append(file, {"event": "solved", "lab": lab, "exercise": exercise,
                      "date": datetime.date.today().isoformat()})


def hint(file: Path, lab: str, exercise: str, number: int) -> None:
    """Record that hints up to `number` were shown."""
    if number > state(file).get(lab, {}).get("hints", {}).get(exercise, 0):
        append(file, {"event": "hint", "lab": lab, "exercise": exercise, "number": number})


def reset(file: Path, lab: str) -> None:
    """Forget a lab."""
    append(file, {"event": "reset", "lab": lab})


def _parsed(line: str) -> dict | None:
    """One event, or None for a blank or torn line."""
    try:
        event = json.loads(line)
        fields = {"solved": ("exercise",), "hint": ("exercise", "number"), "reset": ()}
        whole = all(name in event for name in ("lab", *fields[event["event"]]))
    except (ValueError, TypeError, KeyError):
        return None
    return event if whole else None
