"""Where arrays live and networks run: names of devices, and errors that say what to do."""

import contextlib
import re

import rechainer
from rechainer import _cupy

import chainer
from chainer.backends import cuda

#: Names of the processor, and Chainer's for each.
PROCESSORS = {"cpu": "@numpy", "@numpy": "@numpy", "-1": "@numpy", "@intel64": "@intel64"}
#: Names of a GPU; its number, if there is one, is a group.
GPU = r"gpu|cuda|(?:@cupy:|gpu:|cuda:|)(\d+)"
NAMES = "'cpu' (or '@numpy'), '@cupy:0', '@cupy:1' ... (or 'gpu:0', 'gpu:1' ...), '@intel64'"
INSTALL = "pip install 'rechainer[gpu]'"


class DeviceError(ValueError):
    """A device is not there, or its memory is full."""


def get(name):
    """Return Chainer's device of a name, after a check that it can be used.

    Parameters
    ----------
    name : str, int or chainer.backend.Device
        ``"cpu"``, ``"@numpy"``, ``"@cupy:0"``, ``"gpu:0"`` or ``"gpu"``; a number is a GPU's,
        as for Chainer, and -1 the processor.

    Returns
    -------
    chainer.backend.Device

    Raises
    ------
    DeviceError
        If there is no such name, or no such device here; it says what is missing.
    """
    if isinstance(name, chainer.backend.Device):
        return name
    text = str(name).strip().lower()
    if text in PROCESSORS:
        return chainer.get_device(PROCESSORS[text])
    match = re.fullmatch(GPU, text)
    if match is None:
        raise DeviceError(f"unknown device {name!r}; there are: {NAMES}")
    number = int(match[1] or 0)
    _check_gpu(name, number)
    return chainer.get_device(f"@cupy:{number}")


def _check_gpu(name, number):
    if not _cupy.is_installed():
        raise DeviceError(f"device {name!r} needs CuPy, which is not installed: {INSTALL}")
    if not cuda.available:
        reason = getattr(cuda, "_resolution_error", "")
        raise DeviceError(f"device {name!r} cannot be used: {reason} Is the graphics driver "
                          f"installed, and does `nvidia-smi` list the GPU?")
    count = _count(name)
    if number >= count:
        raise DeviceError(f"there is no device {name!r}: this machine has {count} "
                          f"GPU{'s' if count != 1 else ''}, counted from 0")


def _count(name):
    runtime = cuda.cupy.cuda.runtime
    try:
        return runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        raise DeviceError(f"device {name!r} cannot be used: CUDA says {error}. Is the driver as "
                          f"new as the CUDA that CuPy was built for? "
                          f"{rechainer.info()['parts']['CuPy']}") from error


def seed(device, number):
    """Begin a GPU's random numbers anew: CuPy's, and those of cuDNN's dropout.

    Parameters
    ----------
    device : chainer.backend.Device
        Nothing is done for the processor: its random numbers are NumPy's.
    number : int
    """
    if isinstance(device, cuda.GpuDevice):
        cuda.cupy.random.seed(number)
        states = dropout_states(device)
        if states is not None:
            states.seed(number)


def dropout_states(device):
    """Return the states of cuDNN's dropout on a GPU, None where they cannot be saved.

    Parameters
    ----------
    device : chainer.backend.Device
        In use.
    """
    if not isinstance(device, cuda.GpuDevice) or not cuda.cudnn_enabled:
        return None
    states = cuda.get_cudnn_dropout_states()
    return states if hasattr(states, "seed") else None   # CuPy's own has no way to


def hardware(device):
    """Return the name and memory of a GPU, or an empty text for the processor.

    Parameters
    ----------
    device : chainer.backend.Device
    """
    if not isinstance(device, cuda.GpuDevice):
        return ""
    properties = cuda.cupy.cuda.runtime.getDeviceProperties(device.device.id)
    return f"{properties['name'].decode()}, {properties['totalGlobalMem'] / 2**30:.0f} GiB"


@contextlib.contextmanager
def told_when_full(device, remedy="a smaller batch (--batch)"):
    """Raise `DeviceError` with numbers where a GPU's memory does not do.

    Parameters
    ----------
    device : chainer.backend.Device
        Errors on the processor stay as they are.
    remedy : str
        What would need less.
    """
    try:
        yield
    except MemoryError as error:
        if not isinstance(device, cuda.GpuDevice):
            raise
        free, total = device.device.mem_info
        pool = cuda.cupy.get_default_memory_pool()
        raise DeviceError(
            f"the memory of {device.name} is full: {_gib(total)} in all, {_gib(free)} free, "
            f"{_gib(pool.used_bytes())} in use by this program and {_gib(pool.free_bytes())} kept "
            f"by it for later. Try {remedy}, or end other programs that `nvidia-smi` lists. "
            f"CuPy says: {error}") from error


def _gib(size):
    return f"{size / 2**30:.1f} GiB"
