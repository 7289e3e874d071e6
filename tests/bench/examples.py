"""Chainer's own examples, run as they are: do they still, and do they print the same numbers?

    python -m tests.bench.examples FOLDER [--old PYTHON]

FOLDER is ``examples`` of Chainer's repository at tag v7.8.1; PYTHON an interpreter with stock
Chainer on the last stack that it is content with (Python 3.11, NumPy 1.23.5), where they run too.
They get small data, drawn at random or from MNIST, in Chainer's dataset folder or as files, so that
nothing is downloaded, and the same seed. The table has the last losses, accuracies and perplexities
of each, and the largest difference of all that were printed; the last line counts those that agree
to a thousandth.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from convnets import data

import chainer
import numpy as np
from PIL import Image

IMAGES = "../images/list.txt"
#: Worker processes of its iterators draw crops in no fixed order: no two runs are alike.
IMAGENET = (f"train_imagenet.py -d -1 -E 1 -B 4 -b 2 -j 1 --test -R ../images -m ../images/mean.npy"
            f" {IMAGES} {IMAGES} -a ")
#: Folder and command, in this order: some read what others have written.
EXAMPLES = [
    ("serialization", "save.py"),
    ("serialization", "load.py"),
    ("glance", "glance.py"),
    ("mnist", "train_mnist.py -d -1 -e 1"),
    ("mnist", "train_mnist_custom_loop.py -d -1 -e 1"),
    ("mnist", "inference.py -d -1 --snapshot result/mlp.model"),
    ("static_graph_optimizations/mnist", "train_mnist.py -d -1 -e 1"),
    ("static_graph_optimizations/mnist", "train_mnist_custom_loop.py -d -1 -e 1"),
    ("cifar", "train_cifar.py -d -1 -e 1"),
    ("cifar", "train_cifar_custom_loop.py -d -1 -e 1 --test"),
    ("imagenet", f"compute_mean.py {IMAGES} -R ../images -o ../images/mean.npy"),
    *(("imagenet", IMAGENET + name)
      for name in ("nin", "alex", "googlenet", "googlenetbn", "resnet50", "resnext50")),
    ("dcgan", "train_dcgan.py -d -1 -e 1 -b 16 --n_hidden 20 --display_interval 2"),
    ("vae", "train_vae.py -d -1 -e 1 --test --out result"),
    ("ptb", "train_ptb.py -d -1 -e 1 --test"),
    ("ptb", "train_ptb_custom_loop.py -d -1 -e 1 --test"),
    ("word2vec", "train_word2vec.py -d -1 -e 1 --test"),
    ("memnn", "train_memnn.py ../stories.txt ../stories.txt -d -1 -e 2 --model model"),
    ("memnn", "test_memnn.py model ../stories.txt"),
    ("sentiment", "train_sentiment.py -d -1 -e 2 --test"),
    ("sentiment", "train_recursive_minibatch.py -d -1 -e 1 --test"),
    ("chainermn/mnist", "train_mnist.py -e 1 --communicator naive"),
]
#: Read by each Python as it starts, its worker processes included: no seed is left to chance.
SEED = """import random, numpy
class RandomState(numpy.random.RandomState):
    def __init__(self, seed=None):
        super().__init__(0 if seed is None else seed)
random.seed(0)
numpy.random.seed(0)
numpy.random.RandomState = RandomState
"""
KINDS = "loss", "accuracy", "perplexity"
NUMBER = re.compile(rf"({'|'.join(KINDS)})\W+(-?\d+\.\d+(?:e[-+]\d+)?|nan)", re.I)
TIMEOUT, TOLERANCE = 600, 1e-3


# Data, a few of each

def write_datasets(root):
    """Write MNIST, images like CIFAR-10's and words like Penn Treebank's, where Chainer looks."""
    rng, folder = np.random.RandomState(0), root / "pfnet/chainer"
    for name in ("mnist", "cifar", "ptb"):
        (folder / name).mkdir(parents=True)
    for name, examples in zip(("train", "test"), data.mnist(600, 200), strict=True):
        x, t = chainer.dataset.concat_examples(examples[:])
        pixels = (255 * x.reshape(len(x), 784)).round().astype(np.uint8)
        np.savez(folder / f"mnist/{name}.npz", x=pixels, y=t.astype(np.uint8))
    images = {f"{name}_x": rng.randint(0, 256, (n, 3072)).astype(np.uint8)
              for name, n in (("train", 128), ("test", 64))}
    labels = {name.replace("x", "y"): rng.randint(0, 10, len(x)) for name, x in images.items()}
    np.savez(folder / "cifar/cifar-10.npz", **images, **labels)
    words = [f"w{i}" for i in range(49)] + ["<eos>"]
    (folder / "ptb/vocab.txt").write_text("\n".join(words) + "\n")
    for name, n in (("train", 4000), ("valid", 800), ("test", 800)):
        np.savez(folder / f"ptb/{name}.npz", x=rng.randint(0, 50, n).astype(np.int32))


def write_files(folder):
    """Write pictures with their labels, stories with questions, and trees of words."""
    rng = np.random.RandomState(0)
    (folder / "images").mkdir()
    for i in range(12):
        pixels = rng.randint(0, 256, (256, 256, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"images/{i}.png")
    (folder / "images/list.txt").write_text("".join(f"{i}.png {i % 10}\n" for i in range(12)))
    (folder / "stories.txt").write_text("".join(story(rng) for _ in range(30)))
    (folder / "sentiment/trees").mkdir()
    for name in ("train", "dev", "test"):
        lines = "".join(tree(rng, 6) + "\n" for _ in range(60))
        (folder / f"sentiment/trees/{name}.txt").write_text(lines)


def story(rng):
    """Return lines of the form of bAbI's first task: who went where, and where is one of them?"""
    lines = []
    for i in range(1, 10, 3):
        names = rng.permutation(["John", "Mary", "Sandra"])[:2]
        places = rng.choice(["garden", "office", "kitchen"], 2)
        lines += [f"{i + j} {name} moved to the {place}."
                  for j, (name, place) in enumerate(zip(names, places, strict=True))]
        lines += [f"{i + 2} Where is {names[0]}?\t{places[0]}\t{i}"]
    return "\n".join(lines) + "\n"


def tree(rng, leaves):
    """Return a binary tree of words, a label at each node, as the Stanford treebank writes it."""
    if leaves == 1:
        return f"({rng.randint(5)} w{rng.randint(20)})"
    left = rng.randint(1, leaves)
    return f"({rng.randint(5)} {tree(rng, left)} {tree(rng, leaves - left)})"


# Running them

class Stack:
    """A Python in which all examples run, in a copy of theirs."""

    def __init__(self, python, runner, examples, folder):
        self.python, self.runner, self.folder = python, runner, folder / "examples"
        shutil.copytree(examples, self.folder)
        write_files(self.folder)
        write_datasets(folder / "datasets")
        (folder / "sitecustomize.py").write_text(SEED)
        threads = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS")}
        self.env = {**os.environ, **threads, "CHAINER_DATASET_ROOT": str(folder / "datasets"),
                    "PYTHONPATH": str(folder), "PYTHONHASHSEED": "0",
                    "CHAINER_WARN_VERSION_MISMATCH": "0", "MPLBACKEND": "agg"}

    def run(self, place, command):
        """Run an example; return its numbers {name: [values]}, or why there are none."""
        where, command = self.folder / place, [self.python, *self.runner, *command.split()]
        if place.startswith("chainermn"):
            mpi = shutil.which("mpiexec", path=str(Path(self.python).parent))
            if not mpi:
                return "no MPI beside this Python"
            command = [mpi, "--allow-run-as-root", "--oversubscribe", "-n", "2", *command]
        log = where / "result/log"
        log.unlink(missing_ok=True)
        try:
            done = subprocess.run(command, cwd=where, env=self.env, capture_output=True, text=True,
                                  timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            return f"still running after {TIMEOUT} s"
        if done.returncode:
            return (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        return logged(log) if log.exists() else printed(done.stdout)


def logged(path):
    """Return what Chainer's LogReport has written."""
    found = {}
    for entry in json.loads(path.read_text()):
        for name, value in entry.items():
            if name.endswith(KINDS) or name in ("perp", "val_perp"):
                found.setdefault(name, []).append(value)
    return found


def printed(text):
    """Return the losses, accuracies and perplexities in a text."""
    found = {}
    for name, value in NUMBER.findall(text):
        found.setdefault(name.lower(), []).append(float(value))
    return found


def distance(old, new):
    """Return the largest difference of two runs' numbers, each relative to the largest of its kind.

    It is infinite where one has numbers that the other lacks.
    """
    if {name: len(values) for name, values in old.items()} != {
            name: len(values) for name, values in new.items()}:
        return np.inf
    return max((np.max(np.abs(np.subtract(values, new[name]))) / (np.max(np.abs(values)) or 1)
                for name, values in old.items()), default=0.0)


def told(found):
    """Return the last numbers of a run in a few words."""
    if isinstance(found, str):
        return found[:60]
    short = {name.replace("validation", "val").replace("main/", ""): values[-1]
             for name, values in found.items()}
    return ", ".join(f"{name} {value:.4g}" for name, value in list(short.items())[:3]) or "done"


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("examples", type=Path, metavar="FOLDER")
    parser.add_argument("--old", metavar="PYTHON", help="with stock Chainer on its last stack")
    args = parser.parse_args(argv)
    ran = both = same = 0
    with tempfile.TemporaryDirectory() as folder:
        stacks = [Stack(sys.executable, ["-m", "rechainer"], args.examples, Path(folder) / "new")]
        if args.old:
            stacks.append(Stack(args.old, [], args.examples, Path(folder) / "old"))
        for place, command in EXAMPLES:
            begin, is_imagenet = time.monotonic(), command.startswith(IMAGENET)
            name = f"{place}/{command.split()[0]}"
            name += " " + command.removeprefix(IMAGENET) if is_imagenet else ""
            found = [stack.run(place, command) for stack in stacks]
            words = [f"{time.monotonic() - begin:4.0f} s", *map(told, found)]
            ran += isinstance(found[0], dict)
            if len(found) == 2 and all(isinstance(it, dict) and it for it in found) and (
                    not is_imagenet):
                far = distance(found[1], found[0])
                both, same = both + 1, same + (far < TOLERANCE)
                words.append(f"distance {far:.0e}")
            print(f"{name:58}", " | ".join(words), flush=True)
    print(f"{ran} of {len(EXAMPLES)} run; {same} of {both} with comparable numbers have equal ones")
    return int(ran < len(EXAMPLES))


if __name__ == "__main__":
    sys.exit(main())
