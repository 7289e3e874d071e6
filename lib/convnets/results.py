"""Recorded runs: JSON files that say how each number was made."""

import json
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

import rechainer

import chainer
import numpy as np

from . import devices
from .files import written_whole

KEYS = ("command", "date", "device", "versions", "seed", "options", "curve", "final")


def record(path, *, command, seed, options, curve, device="@numpy"):
    """Write a finished run with its provenance, whole or not at all.

    Parameters
    ----------
    path : path
        The JSON file to write.
    command : str
        What to type to repeat the run.
    seed : int
    options : dict
    curve : list of dict
        One entry an epoch, as Chainer's LogReport keeps it.
    device : str
        Chainer's device name.

    Returns
    -------
    dict
        What was written.
    """
    return write(path, {**provenance(command, seed, options, device),
                        "curve": curve, "final": curve[-1]})


def write(path, run):
    """Write a recorded result as JSON, whole or not at all, and return it.

    Parameters
    ----------
    path : path
    run : dict
        `provenance` and what was measured.
    """
    with written_whole(path) as file:
        file.write(f"{json.dumps(run, indent=1)}\n".encode())
    return run


def provenance(command, seed, options, device="@numpy"):
    """Return what a recorded result says about itself: `KEYS` without curve and final.

    Parameters
    ----------
    command : str
        What to type to repeat it.
    seed : int
    options : dict
    device : str
        Chainer's device name.

    Returns
    -------
    dict
    """
    return {
        "command": command,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "device": f"{device}, {_processor()}, {os.cpu_count()} cores{_kernels(device)}",
        "versions": {"python": platform.python_version(), "numpy": np.__version__,
                     "chainer": chainer.__version__},
        "seed": seed,
        "options": options,
    }


def load(path, keys=KEYS):
    """Read a recorded run.

    Parameters
    ----------
    path : path
    keys : sequence of str
        What it must have: those of `record` by default.

    Returns
    -------
    dict
        With these keys.

    Raises
    ------
    ValueError
        If the file is not a recorded run.
    """
    try:
        run = json.loads(Path(path).read_text())
        missing = [key for key in keys if key not in run]
    except (json.JSONDecodeError, TypeError) as e:
        raise ValueError(f"{path} is not a recorded run: {e}") from e
    if missing:
        raise ValueError(f"{path} is not a recorded run: it lacks {', '.join(missing)}")
    return run


def load_measured(path, key, what, command):
    """Read a record that one of the commands has written.

    Parameters
    ----------
    path : path
    key : str
        Under which it has its measurements.
    what : str
        What these are, and `command` what makes them, in the words of an error.

    Returns
    -------
    dict

    Raises
    ------
    ValueError
        If the file does not hold them.
    """
    run = json.loads(Path(path).read_text())
    if not isinstance(run, dict) or not run.get(key):
        raise ValueError(f"{path} holds no {what}; make it with "
                         f"`convnets {command} --record {path}`")
    return run


def describe(run):
    """Return one line that says how a recorded run was made.

    Parameters
    ----------
    run : dict

    Returns
    -------
    str
    """
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    return f"{run['command']}  (seed {run['seed']}, {run['date']}, {run['device']}; {versions})"


def _kernels(device):
    """Say which GPU it was, or which kernels Chainer was told to use on the processor."""
    if device.startswith("@cupy"):
        return f", {devices.hardware(devices.get(device))}"
    if device != "@numpy" or chainer.config.use_ideep == "never":
        return ""
    return f", use_ideep={chainer.config.use_ideep}: {rechainer.info()['parts']['oneDNN']}"


def _processor():
    """Return the processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or sys.platform
