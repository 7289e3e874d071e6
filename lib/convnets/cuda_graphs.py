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
import functools

import chainer
from chainer.backends import cuda

#: Steps before the one that is recorded: plans are chosen, kernels compiled, libraries loaded.
WARM_UP = 3


class GraphError(RuntimeError):
    """A step cannot be recorded."""


class Recording:
    """What a function does with arrays on a GPU, recorded; a call launches it.

    Parameters
    ----------
    function : callable
        Takes `arrays`. It may do nothing that waits for the GPU.
    arrays : sequence of cupy.ndarray
    stream : cupy.cuda.Stream
        Current, and not the default stream.

    Raises
    ------
    GraphError
        If the function cannot be recorded.
    """

    def __init__(self, function, arrays, stream):
        self.stream = stream
        # Memory of the graph's own: nothing else may be given what it writes at each launch.
        self.pool = cuda.cupy.cuda.MemoryPool()
        self.inputs = [array.copy() for array in arrays]
        stream.begin_capture()
        try:
            with cuda.cupy.cuda.using_allocator(self.pool.malloc):
                self.result = function(*self.inputs)
        except Exception as error:
            with contextlib.suppress(Exception):   # that the recording is broken is known
                stream.end_capture()
            raise GraphError(
                "this cannot be recorded as a CUDA graph, which may do nothing that waits for the "
                "GPU, such as float(loss), label smoothing, top-k accuracy or "
                "chainer.config.debug. Go without cuda_graph=True (--cuda-graph), or move that "
                f"out of it. The reason: {type(error).__name__}: {error}") from error
        self.graph = stream.end_capture()

    def __call__(self, *arrays):
        """Return the function's result for other arrays of the same shapes.

        The result lies in memory that the next call writes to.

        Raises
        ------
        ValueError
            If there are more or fewer arrays than recorded, or of other shapes.
        """
        got, expected = ([array.shape for array in some] for some in (arrays, self.inputs))
        if got != expected:
            raise ValueError(f"recorded for arrays of shape {expected}, got {got}: a CUDA graph "
                             f"has one shape; record another")
        current = cuda.cupy.cuda.get_current_stream()
        # The default stream and this one wait for each other by themselves.
        apart = current.ptr not in (0, self.stream.ptr)
        if apart:
            self.stream.wait_event(current.record())
        with self.stream:
            for mine, new in zip(self.inputs, arrays, strict=True):
                mine[...] = new
            self.graph.launch(self.stream)
        if apart:
            current.wait_event(self.stream.record())
        return self.result


def record(function, *arrays):
    """Run a function some times on a GPU, then record it.

    Parameters
    ----------
    function : callable
        Takes `arrays`; such as a model in test mode without backprop.
    arrays : cupy.ndarray

    Returns
    -------
    Recording
    """
    stream = cuda.cupy.cuda.Stream()
    with stream:
        for _ in range(WARM_UP):
            function(*arrays)
        return Recording(function, arrays, stream)


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
                             f"or recorded=True (--recorded), which does it on the processor")
        if not cuda.cudnn_enabled:
            raise ValueError("cuda_graph=True (--cuda-graph) needs cuDNN, whose dropout goes on "
                             "from launch to launch: pip install 'rechainer[gpu]'")
        self.fused = fused
        self.warm_up, self.key, self.recording = WARM_UP, None, None
        # It waits for the default stream and the default stream for it, as every stream does
        # that is not `non_blocking`: so data, evaluation and log need no events.
        self.stream = device.xp.cuda.Stream()

    def update(self, lossfun, *arrays):
        """Take one step; what it reports is reported."""
        key = tuple((array.shape, array.dtype.str) for array in arrays)
        self.key = self.key or key
        with self.stream:
            if key != self.key or self.warm_up:
                self.warm_up -= key == self.key
                self.fused.update(lossfun, *arrays)
                return
            if self.recording is None or self.flat is not self.fused.flat:
                self.flat = self.fused.flat
                self.recording = Recording(functools.partial(self._step, lossfun), arrays,
                                           self.stream)
            self.fused.advance()
            if self.fused.flat is not self.flat:
                raise GraphError("the parameters were replaced between two steps, by to_device(), "
                                 "disable_update() or an assignment; make a new trainer")
            reported = self.recording(*arrays)
        # Copies: the next launch writes over the originals.
        chainer.report({key: value.copy() for key, value in reported.items()})

    def _step(self, lossfun, *arrays):
        """Take a step; return what it reports, by name."""
        reported = {}
        with chainer.report_scope(reported):
            self.fused.recordable(lossfun, *arrays)
        return {key: chainer.as_array(value) for key, value in reported.items()}
