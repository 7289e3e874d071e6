"""Benchmarks: Chainer, Chainer over oneDNN, PyTorch and onnxruntime on the same networks.

`make bench`, or ``python -m tests.bench --help``. Each contestant is a process of its own, which
is told to take a step when it is its turn: so they meet the same changes of a shared machine, have
their own threads, and each peak of memory is one's own. Before a time counts, all outputs are
compared. No test depends on a time.

===============  ==================================================================
``cases``        what is measured, as data
``engines``      the contestants
``torch_nets``   the networks as PyTorch has them, with Chainer's weights
``onnx_file``    a model of Chainer's as an ONNX file
``worker``       the process of one contestant
``race``         contestants in turn: medians, memory
``table``        a row as text
``roofline``     each layer by itself, for the book
``gpu``          all that only a GPU can show, a command of its own: `make gpu-check`
===============  ==================================================================
"""
