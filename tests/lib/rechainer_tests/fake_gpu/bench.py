"""`tests/bench/gpu` on the device of `fake_device`, in its parts' processes too."""

import os
import sys
import time

import fake_device  # noqa: F401  before Chainer

# isort: split
from tests.bench.gpu import race
from tests.bench.gpu import run as gpu

gpu.CHILD = [sys.executable, __file__]
# NumPy on a machine that does other things, too.
gpu.LIMIT = gpu.LONG = 250
#: How the parts named in the environment go wrong, such as "operations=exit": at once they end or
#: hang; or they end where all ways to run a network have been timed alone.
BREAK = dict(item.replace(";", ",").split("=")
             for item in os.environ.get("BREAK", "").split(",") if item)

if BREAK:
    # The time of a part is short where one hangs; the others need longer to begin.
    limits, run_apart = {"hang": 4}, gpu.run_apart
    gpu.run_apart = lambda name, argv, limit: run_apart(
        name, argv, limits.get(BREAK.get(name), limit))

args = gpu.parser().parse_args()
if BREAK.get(args.part) == "exit":
    os._exit(7)
if BREAK.get(args.part) == "hang":
    time.sleep(60)
if BREAK.get(args.part) == "exit late":
    interleaved = race.interleaved
    race.interleaved = lambda peers, rounds: (
        interleaved(peers, rounds) if rounds == 3 else os._exit(7))
sys.exit(gpu.main())
