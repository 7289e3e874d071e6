"""Minibatches on their way to a GPU while it still works on the last one."""

import numpy as np
from chainer.backends import cuda

#: Minibatches on the way: one that the GPU reads, one that is copied.
SLOTS = 2


class Feed:
    """Sends minibatches to a GPU through pinned memory, on a stream of its own.

    A training step starts its kernels and returns; the next minibatch is read, moved and sent
    meanwhile, by the same program and in the same order as without. So no random number is drawn
    earlier than it was, and a snapshot is what it was.

    Parameters
    ----------
    device : chainer.backend.Device

    Raises
    ------
    ValueError
        If the device is no GPU.
    """

    def __init__(self, device):
        if not isinstance(device, cuda.GpuDevice):
            raise ValueError(f"prefetch=True (--prefetch) sends data to a GPU; {device.name} is "
                             f"none. Give device='@cupy:0' (--device @cupy:0), or leave it out")
        self.cupy = device.xp
        self.stream = self.cupy.cuda.Stream(non_blocking=True)
        self.slots = [_Slot(self.cupy) for _ in range(SLOTS)]
        self.sent = 0

    def __call__(self, arrays):
        """Return the arrays on the device; they hold until two calls later.

        Parameters
        ----------
        arrays : tuple of numpy.ndarray

        Returns
        -------
        tuple of cupy.ndarray
        """
        work = self.cupy.cuda.get_current_stream()
        # All that reads the minibatch before this one has been started by now.
        self.slots[(self.sent - 1) % SLOTS].read.record(work)
        slot = self.slots[self.sent % SLOTS]
        self.sent += 1
        return slot.send(arrays, self.stream, work)


class _Slot:
    """Pinned memory and memory of the device for one minibatch."""

    def __init__(self, cupy):
        self.cupy, self.pinned, self.arrays = cupy, (), ()
        self.read, self.copied = cupy.cuda.Event(), cupy.cuda.Event()
        self.read.record()
        self.copied.record()

    def send(self, arrays, stream, work):
        self.copied.synchronize()   # the copy of two minibatches ago: long done
        if [a.shape for a in self.arrays] != [a.shape for a in arrays]:
            self.pinned = [self._pinned(array) for array in arrays]
            self.arrays = [self.cupy.empty(array.shape, array.dtype) for array in arrays]
            # The memory may be what the work at hand has just given back.
            self.read.record(work)
        stream.wait_event(self.read)
        for host, array, new in zip(self.pinned, self.arrays, arrays, strict=True):
            host[...] = new
            array.set(host, stream=stream)
        self.copied.record(stream)
        work.wait_event(self.copied)
        return tuple(self.arrays)

    def _pinned(self, array):
        memory = self.cupy.cuda.alloc_pinned_memory(array.nbytes)
        return np.frombuffer(memory, array.dtype, array.size).reshape(array.shape)
