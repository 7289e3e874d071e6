"""A training step as a CUDA graph: recorded once, then launched as a whole.

A small network's step is hundreds of kernels of a few microseconds each, and Python needs longer
to start one than the GPU to run it. A graph starts them all at once (CUDA C++ Programming Guide,
CUDA Graphs). It repeats what was recorded on the memory it was recorded with, so

- images and labels are copied to the arrays that it reads; a minibatch of another shape takes the
  ordinary way;
- learning rate, Adam's step size and the rest come from a buffer (`convnets.fused`);
- dropout draws from cuDNN's states and batch normalization updates its statistics, both in memory
  of the device: they go on from launch to launch;
- evaluation stays outside.
"""

import contextlib

import chainer
from chainer.backends import cuda

#: Steps before the one that is recorded: plans are chosen, kernels compiled, libraries loaded.
WARM_UP = 3


class GraphError(RuntimeError):
    """A step cannot be recorded."""


class GraphStep:
    """A stand-in for `convnets.fused.Fused.update` that records it and launches the recording.

    Parameters
    ----------
    fused : convnets.fused.Fused
    device : chainer.backend.Device

    Raises
    ------
    ValueError
        If the device is no GPU, or Chainer has no cuDNN there.
    """

    def __init__(self, fused, device):
        if not isinstance(device, cuda.GpuDevice):
            raise ValueError(f"cuda_graph=True (--cuda-graph) records the work of a GPU; "
                             f"{device.name} is none. Give device='@cupy:0' (--device @cupy:0), "
                             f"or leave it out")
        if not cuda.cudnn_enabled:
            raise ValueError("cuda_graph=True (--cuda-graph) needs cuDNN, whose dropout goes on "
                             "from launch to launch: pip install 'rechainer[gpu]'")
        self.fused, self.device = fused, device
        self.warm_up, self.key, self.graph = WARM_UP, None, None
        # It waits for the default stream and the default stream for it, as every stream does
        # that is not `non_blocking`: so data, evaluation and log need no events.
        self.stream = device.xp.cuda.Stream()
        # Memory of the graph's own: nothing else may be given what it writes at each launch.
        self.pool = device.xp.cuda.MemoryPool()

    def update(self, lossfun, *arrays):
        """Take one step; what it reports is reported."""
        key = tuple((array.shape, array.dtype.str) for array in arrays)
        self.key = self.key or key
        with self.stream:
            if key != self.key or self.warm_up:
                self.warm_up -= key == self.key
                self.fused.update(lossfun, *arrays)
                return
            if self.graph is None or self.flat is not self.fused.flat:
                self._record(lossfun, arrays)
            self._launch(arrays)

    def _record(self, lossfun, arrays):
        self.inputs = [array.copy() for array in arrays]
        self.flat, self.reported = self.fused.flat, {}
        allocator = self.device.xp.cuda.using_allocator(self.pool.malloc)
        self.stream.begin_capture()
        try:
            with allocator, chainer.report_scope(self.reported):
                self.fused.recordable(lossfun, *self.inputs)
        except Exception as error:
            with contextlib.suppress(Exception):   # that the recording is broken is known
                self.stream.end_capture()
            raise GraphError(
                "the training step cannot be recorded as a CUDA graph; it may do nothing that "
                "waits for the GPU, such as float(loss), label smoothing, top-k accuracy or "
                "chainer.config.debug. Train without cuda_graph=True (--cuda-graph), or move that "
                f"out of the step. The reason: {type(error).__name__}: {error}") from error
        self.graph = self.stream.end_capture()

    def _launch(self, arrays):
        for mine, new in zip(self.inputs, arrays, strict=True):
            mine[...] = new
        self.fused.advance()
        if self.fused.flat is not self.flat:
            raise GraphError("the parameters were replaced between two steps, by to_device() or "
                             "an assignment; call the trainer anew")
        self.graph.launch(self.stream)
        # Copies: the next launch writes over the originals.
        chainer.report({key: chainer.as_array(value).copy()
                        for key, value in self.reported.items()})
