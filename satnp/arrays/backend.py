"""Which array library an array belongs to, and how arrays come and go. Nothing else in satnp knows."""

import sys

import numpy as np

from satnp.errors import InputError


def xp_of(*arrays):
    """The array module (numpy, cupy, or a stand-in) that the given arrays live in.

    The first array that is not NumPy's decides; Python numbers and None do not count.
    """
    for x in arrays:
        if type(x) is not np.ndarray:  # this is asked before each operation
            module = type(x).__module__.partition(".")[0]
            if module not in ("numpy", "builtins"):
                return sys.modules["cupy" if module == "cupy" else type(x).__module__]
    return np


def to_device(x, xp):
    """`x` (a host array or nested sequence) as an array of `xp`; a copy except where xp is numpy."""
    return xp.asarray(x)


def to_host(x):
    """`x` as a NumPy array; waits for the device."""
    return x if isinstance(x, np.ndarray) else x.get() if hasattr(x, "get") else np.asarray(x)


class Uploads:
    """How minibatches come to the device of `xp`: uploads(*arrays), each a host array or None -> the same on the device.

    On CUDA by a stream of their own: the host calls this while the GPU is still at the step before, and the copies need not
    stand in line behind it. CuPy stages them in pinned memory, and keeps that until they are sent. But the memory of a freed
    array goes to the next upload, whoever still reads it. So the last arrays are held here, and those freed before them are
    overwritten after the step that read them. Read what this gives before it is called again.
    """

    def __init__(self, xp):
        self.xp, self.stream = xp, None
        if hasattr(xp, "cuda"):
            self.stream, self.held = xp.cuda.Stream(non_blocking=True), ()
            self.read = xp.cuda.get_current_stream().record()  # all that was sent before `held`

    def __call__(self, *arrays):
        if self.stream is None:
            return self._sent(arrays)
        steps = self.xp.cuda.get_current_stream()
        self.stream.wait_event(self.read)
        self.read = steps.record()
        with self.stream:
            self.held = self._sent(arrays)
        steps.wait_event(self.stream.record())
        return self.held

    def _sent(self, arrays):
        return [None if x is None else to_device(x, self.xp) for x in arrays]


def find_device(name, place=0):
    """Array module for `name`, one of numpy, cuda, auto -> (xp, sentence saying what was taken and why).

    The process that is number `place` on its machine takes the GPUs there in turn, and touches no other one.

    Raises InputError when `cuda` is asked for and cannot be had.
    """
    if name == "numpy":
        return np, "device: numpy (the default)"
    cupy, reason = _probe_cuda(place)
    if cupy is not None:
        return cupy, f"device: cuda ({reason})"
    if name == "cuda":
        raise InputError(f"--device cuda was asked for, but {reason}; use --device numpy, or mend that first")
    return np, f"device: numpy, because {reason}"


def _probe_cuda(place):
    """(cupy, device name) if a kernel and a product really run, else (None, the reason)."""
    try:
        import cupy
    except ModuleNotFoundError:
        return None, 'CuPy is not installed (pip install "satnp[cuda13]" or "satnp[cuda12]")'
    try:
        if cupy.cuda.runtime.driverGetVersion() == 0:
            return None, "there is no CUDA driver"
        device = cupy.cuda.Device(place % cupy.cuda.runtime.getDeviceCount())
        device.use()
        x = cupy.ones((2, 2), dtype="float32")
        if float((cupy.tanh(x) @ x).sum()) <= 0:
            return None, "a test product on the GPU gave a wrong result"
        return cupy, cupy.cuda.runtime.getDeviceProperties(device.id)["name"].decode()
    except Exception as error:  # whatever the driver or the toolkit lacks, the reason is the answer
        message = (str(error).splitlines() or ["no message"])[0][:120]
        return None, f"CUDA does not work here ({type(error).__name__}: {message})"
