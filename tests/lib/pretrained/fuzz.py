"""Read mutated weight files, and count what comes of it: fuzz.py FIRST COUNT FOLDER

Each number is the seed of one mutation, so that a finding can be repeated. Everything goes on in a
process of its own, with little memory, watched by an audit hook: starting programs, opening other
files, connections and unpickling end it at once. The last line is a JSON object.
"""

import codecs
import collections
import contextlib
import faulthandler
import io
import json
import os
import random
import resource
import sys
import zipfile
from pathlib import Path

from convnets.pretrained.errors import WeightsError
from convnets.pretrained.readers import read

import hostile
import numpy as np

WEIGHTS = Path(__file__).parents[1] / "files/weights"
SEEDS = sorted(p for p in WEIGHTS.iterdir()
               if p.suffix not in (".py", ".data") and p.name != "expected.npz")
MEMORY = 1 << 30     # bytes beyond what the imports took
PATIENCE = 20        # seconds for one file
FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "os.remove", "os.rename",
             "subprocess.Popen", "socket.", "pickle.", "marshal.", "ctypes.", "shutil.", "exec",
             "code.__new__", "function.__new__", "webbrowser.open", "urllib.Request")
INTERESTING = [0, 1, 2, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40,
               2**62, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1]


def flip(data, r):
    for _ in range(r.choice([1, 1, 2, 8])):
        data[r.randrange(len(data))] ^= 1 << r.randrange(8)


def overwrite(data, r):
    for _ in range(r.choice([1, 1, 2, 8])):
        data[r.randrange(len(data))] = r.choice([0, 1, 0x7F, 0x80, 0xFF, r.randrange(256)])


def truncate(data, r):
    del data[r.randrange(len(data)) :]


def length_field(data, r):
    """Put a number that is special somewhere, as if it were a length or an address."""
    at, size = r.randrange(len(data)), r.choice([1, 2, 4, 8])
    value = r.choice([*INTERESTING, len(data), len(data) - 1, r.randrange(len(data))])
    value = (value % 2**64).to_bytes(8, "little")[:size]
    data[at : at + size] = value if r.random() < 0.8 else value[::-1]


def insert(data, r):
    at = r.randrange(len(data))
    data[at:at] = r.choice([bytes(r.randrange(64)), b"\xff" * 9, r.randbytes(r.randrange(1, 64))])


def delete(data, r):
    at = r.randrange(len(data))
    del data[at : at + r.randrange(1, 64)]


def swap(data, r):
    size = r.randrange(1, max(2, len(data) // 4))
    a, b = r.randrange(len(data)), r.randrange(len(data))
    data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]


def repeat(data, r):
    at, size = r.randrange(len(data)), r.randrange(1, 512)
    data[at:at] = data[at : at + size] * r.choice([1, 2, 50])


def splice(data, r):
    """Go on as another file does."""
    other = r.choice(SEEDS).read_bytes()
    data[r.randrange(len(data)) :] = other[r.randrange(len(other)) :]


BYTES = [flip, flip, overwrite, overwrite, truncate, length_field, length_field, insert, delete,
         swap, repeat, splice]


def bytes_mutated(data, r):
    """Change a file's bytes once or more; half of the time near its beginning or end."""
    data = bytearray(data)
    for _ in range(r.choice([1, 1, 1, 2, 4])):
        if data:
            r.choice(BYTES)(data, r)
    return bytes(data)


def members_mutated(data, r):
    """Change an archive's members and pack them again, so that no checksum gives it away."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [[name, archive.read(name)] for name in archive.namelist()]
    for _ in range(r.choice([1, 1, 2])):
        a, b = r.choice(members), r.choice(members)
        change = r.randrange(5)
        if change == 0:
            a[1], b[1] = b[1], a[1]
        elif change == 1:
            a[0] = r.choice([b[0], "../" + a[0], "/" + a[0], a[0] + "\0x", a[0][1:], "é" + a[0]])
        elif change == 2:
            members = [m for m in members if m is not a] or members
        else:
            a[1] = bytes_mutated(a[1], r)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", r.choice([0, 0, 0, 8, 12, 14])) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return out.getvalue()


def mutated(seed, bad):
    """Return what the mutation of this number starts from, and its bytes."""
    r = random.Random(seed)
    if r.random() < 0.1:
        name, data = r.choice(bad)
        return name, bytes_mutated(data, r) if r.random() < 0.5 else data
    path = r.choice(SEEDS)
    data = path.read_bytes()
    if data.startswith(b"PK") and r.random() < 0.6:
        return path.name, members_mutated(data, r)
    return path.name, bytes_mutated(data, r)


def watch(folder):
    """End the process at the first event that reading weights has no need of."""
    allowed = {str(folder), str(WEIGHTS)}

    def hook(event, arguments):
        opened = event == "open" and isinstance(arguments[0], str | bytes | os.PathLike)
        elsewhere = opened and os.path.dirname(os.fsdecode(arguments[0])) not in allowed
        writes = opened and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        if hook.armed and (event.startswith(FORBIDDEN) or elsewhere or writes):
            os.write(2, f"forbidden: {event} {repr(arguments)[:200]}\n".encode())
            os._exit(3)

    hook.armed = False
    sys.addaudithook(hook)
    return hook


def outcome(path):
    """Read a file; return what came of it, or raise if that is none of the two allowed things."""
    try:
        file = read(path)
    except WeightsError as e:
        text = str(e)
        assert text.startswith(f"{path}: ") and len(text) > len(f"{path}: ") + 5, text
        return "refused"
    assert file.arrays
    for name, array in file.arrays.items():
        assert isinstance(name, str) and isinstance(array, np.ndarray), (name, array)
        assert array.dtype.isnative and array.flags.c_contiguous, (name, array.flags)
        assert not array.dtype.hasobject, (name, array.dtype)
        array.sum() if array.dtype.kind in "iufcb" else None   # every number can be read
    return "read"


def warm():
    """Import all there is to import, before the watch begins."""
    for path in SEEDS:
        with contextlib.suppress(WeightsError):
            read(path)
    for encoding in ("cp437", "raw_unicode_escape", "unicode_escape"):
        codecs.lookup(encoding)


def main(first, count, folder):
    folder = Path(folder)
    bad = list(hostile.files(WEIGHTS))
    warm()
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    faulthandler.enable()
    hook = watch(folder)
    counts, kinds = collections.Counter(), collections.Counter()
    path = folder / "weights.bin"
    (folder / "external.data").write_bytes((WEIGHTS / "external.data").read_bytes())
    for seed in range(first, first + count):
        name, data = mutated(seed, bad)
        path.write_bytes(data)
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        hook.armed = True
        try:
            with np.errstate(all="ignore"):
                counts[outcome(path)] += 1
        except BaseException:
            hook.armed = False
            print(f"seed {seed}, from {name}", file=sys.stderr)
            raise
        hook.armed = False
        kinds[name.split(":")[0]] += 1
    faulthandler.cancel_dump_traceback_later()
    print(json.dumps({**counts, "kinds": dict(kinds)}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
