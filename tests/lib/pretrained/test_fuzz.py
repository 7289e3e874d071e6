"""Damaged and hostile weight files end in a message, never in harm.

The files are read in a process of their own (see fuzz.py), which a crash, a hang, too much memory,
or anything but reading would end. FUZZ=10000 reads that many mutations.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from convnets.pretrained.errors import WeightsError
from convnets.pretrained.readers import read

import hostile
import pytest

HERE = Path(__file__).parent
WEIGHTS = HERE.parent / "files/weights"
COUNT = int(os.environ.get("FUZZ", "400"))


@pytest.mark.timeout(600 + COUNT)
def test_mutations(tmp_path):
    command = [sys.executable, "-W", "ignore", HERE / "fuzz.py", "1000", str(COUNT), tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    counts = json.loads(done.stdout.splitlines()[-1])
    assert counts["refused"] + counts["read"] == COUNT
    assert counts["refused"] > counts["read"] > 0   # the mutations do damage, and not only that


@pytest.mark.parametrize("harm, message", [
    ("open('HARM', 'w')", "forbidden: open"), ("os.system('true')", "forbidden: os.system"),
    ("time.sleep(60)", "Timeout"), ("bytearray(1 << 34)", "MemoryError"),
])
def test_the_watch_is_awake(tmp_path, harm, message):
    """The same process with a reader that does harm is ended, so the test above can fail."""
    script = (f"import os, time, fuzz; fuzz.PATIENCE = 1; fuzz.warm = lambda: None; "
              f"fuzz.read = lambda path: {harm}; fuzz.main(0, 1, {str(tmp_path)!r})")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=HERE)
    assert done.returncode != 0 and message in done.stderr


def test_hostile_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.bin"
    for name, data in hostile.files(WEIGHTS):
        path.write_bytes(data)
        with pytest.raises(WeightsError) as caught:
            read(path)
            pytest.fail(f"{name} was read")
        assert str(caught.value).startswith(f"{path}: "), name
    assert [p.name for p in tmp_path.iterdir()] == ["weights.bin"]   # no HARM was done


@pytest.mark.parametrize("call", hostile.CALLS, ids=lambda call: call[0])
def test_a_call_is_refused_by_its_name(tmp_path, call):
    name, *arguments = call
    for protocol in (2, 4):
        data = hostile.call(name, *arguments, protocol=protocol)
        for container in (hostile.torch_zip, hostile.torch_legacy):
            (tmp_path / "weights").write_bytes(container(data))
            with pytest.raises(WeightsError, match=f"the pickle names {name}, which may be code"):
                read(tmp_path / "weights")
