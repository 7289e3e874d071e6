"""Everything that only a GPU can show, in one command of under ten minutes: ``make gpu-check``.

It compares the functions of Chainer under cuDNN, and the ways to train faster, with the plain ones;
runs Chainer's own tests where their folder is given; and times training and inference beside
PyTorch where that is installed: interleaved, by CUDA events, medians, both with the kernels that
cuDNN's heuristic takes, both with TF32 for float32. Each part has a process and a time of its own:
one that fails, hangs or breaks the device is recorded so, with what it had found, and the rest goes
on.

``--record FILE`` keeps a JSON file of all of it, with its provenance, up to date after each part.
``--resume`` keeps what is whole in that file and runs the others: where the time ended, run again;
``--seconds`` says when it ends.

A part is a generator: it yields what it has found so far, the last time all of it.

============  ================================================================
``checks``    single functions, against the processor
``ways``      ways to train and to infer, against plainer ones
``kernels``   times of single kernels, and what the card reaches
``race``      networks, beside PyTorch
``run``       the parts, their report and record
============  ================================================================
"""
