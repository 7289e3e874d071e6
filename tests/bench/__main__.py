"""Benchmarks as tables: LeNet5 on the CPU, beside PyTorch where it is installed.

`make bench` runs it. Pairs are interleaved in one run and compared by the ratio of their medians,
because the speed of a shared machine drifts; no test depends on a time.
"""

import statistics
import time

import rechainer
from convnets.models import LeNet5

import chainer
import chainer.functions as F
import numpy as np

try:
    import torch
except ImportError:
    torch = None

BATCHES = (32, 128)
ROUNDS = 20


def main():
    print(rechainer.info(), "\n")
    print(f"{'LeNet5':28s}{'Chainer':>12s}{'PyTorch':>12s}{'ratio':>8s}")
    for batch in BATCHES:
        for name in ("training step", "inference"):
            peers = [make(name, batch) for make in (chainer_job, torch_job) if make]
            ours, *theirs = medians(peers)
            peer = f"{theirs[0]:9.2f} ms{ours / theirs[0]:8.2f}" if theirs else "  not installed"
            print(f"{name + f', batch {batch}':28s}{ours:9.2f} ms{peer}")


def medians(jobs):
    """Run the jobs in turn and return the median milliseconds of each."""
    times = [[] for _ in jobs]
    for i in range(ROUNDS + 3):
        for job, seen in zip(jobs, times, strict=True):
            start = time.perf_counter()
            job()
            if i >= 3:   # the first rounds fill caches
                seen.append(1000 * (time.perf_counter() - start))
    return [statistics.median(seen) for seen in times]


def batch_of_noise(n):
    rng = np.random.RandomState(0)
    return rng.rand(n, 1, 28, 28).astype(np.float32), rng.randint(0, 10, n).astype(np.int32)


def chainer_job(name, batch):
    x, t = batch_of_noise(batch)
    model = LeNet5()
    optimizer = chainer.optimizers.Adam().setup(model)

    def step():
        optimizer.update(lambda: F.softmax_cross_entropy(model.logits(x), t))

    def infer():
        with chainer.no_backprop_mode(), chainer.using_config("train", False):
            model.logits(x)
    return {"training step": step, "inference": infer}[name]


def torch_lenet5():
    nn = torch.nn
    return nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.Sigmoid(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), nn.Sigmoid(), nn.MaxPool2d(2),
        nn.Conv2d(16, 120, 4), nn.Sigmoid(), nn.Flatten(),
        nn.Linear(120, 84), nn.Sigmoid(), nn.Linear(84, 10))


if torch is None:
    torch_job = None
else:
    def torch_job(name, batch):
        x, t = (torch.from_numpy(a) for a in batch_of_noise(batch))
        model, t = torch_lenet5(), t.long()
        optimizer = torch.optim.Adam(model.parameters())

        def step():
            optimizer.zero_grad()
            nn_loss = torch.nn.functional.cross_entropy(model(x), t)
            nn_loss.backward()
            optimizer.step()

        def infer():
            with torch.inference_mode():
                model(x)
        return {"training step": step, "inference": infer}[name]


if __name__ == "__main__":
    main()
