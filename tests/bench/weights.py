"""How long a weight file of 100 MB takes to convert, and how much memory it needs.

Run it with python -m tests.bench.weights. Random ResNet-50 weights in the layouts of several
sources; `convnets convert` runs in a process of its own. The memory is what that process needed
beyond one that only imports the library.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import rechainer  # noqa: F401  before chainer, which the layouts import

sys.path.insert(0, str(Path(__file__).parents[1] / "lib/pretrained"))
import layouts
from reference import resnet_params

BLOCKS = (3, 4, 6, 3)
SOURCES = {"resnet50.caffemodel": layouts.save_caffe,
           "resnet50.safetensors": layouts.save_torchvision,
           "resnet50.h5": layouts.save_keras}
IMPORT = "import convnets.pretrained"
CONVERT = "import sys; from convnets.cli import main; sys.exit(main(sys.argv[1:]))"


def main():
    params = resnet_params(BLOCKS, 64, 1000)
    with tempfile.TemporaryDirectory() as folder:
        *_, idle = measured(IMPORT)
        print(f"{'file':24}{'MB':>8}{'seconds':>10}{'CPU seconds':>13}{'memory / file':>15}")
        for name, save in SOURCES.items():
            source = Path(folder, name)
            save(source, params, BLOCKS)
            size = source.stat().st_size
            seconds, busy, peak = measured(CONVERT, "convert", source, Path(folder, "out.npz"),
                                           "--arch", "resnet50")
            print(f"{name:24}{size / 1e6:8.1f}{seconds:10.1f}{busy:13.1f}"
                  f"{(peak - idle) / size:15.2f}")


def measured(code, *args):
    """Return the seconds, seconds on the processor and peak bytes of a Python process."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", code, *map(str, args)],
                               stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"the process ended with status {status}")
    busy = usage.ru_utime + usage.ru_stime
    return time.perf_counter() - start, busy, usage.ru_maxrss * 1024


if __name__ == "__main__":
    main()
