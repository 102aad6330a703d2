"""Select NumPy or CuPy, and copy arrays between host and device."""

import sys

import numpy as np

from satnp.errors import InputError


def xp_of(*arrays):
    """Return the array module (numpy, cupy, or the stand-in of the tests) of the given arrays.

    The first array that is not a NumPy array decides; Python numbers and None are ignored.
    """
    for x in arrays:
        if type(x) is not np.ndarray:  # the fast path: xp_of is called before each operation
            module = type(x).__module__.partition(".")[0]
            if module not in ("numpy", "builtins"):
                return sys.modules["cupy" if module == "cupy" else type(x).__module__]
    return np


def to_device(x, xp):
    """Return `x` (a host array or nested sequence) as an array of `xp`. It is a copy unless xp is numpy."""
    return xp.asarray(x)


def to_host(x):
    """Return `x` as a NumPy array. Waits until the device has computed it."""
    return x if isinstance(x, np.ndarray) else x.get() if hasattr(x, "get") else np.asarray(x)


class Uploads:
    """Copy minibatches to the device of `xp`: uploads(*arrays), each a host array or None, returns the device arrays.

    On CUDA the copies run on a separate stream, so that they do not wait for the training step that the GPU still computes.
    CuPy stages each copy in pinned memory and keeps this memory until the copy is done. But it gives the memory of a freed
    device array to the next upload, even if a kernel of another stream still reads it. So this object holds the arrays of
    the last call, and the memory of the call before is overwritten only after the step that read it. Use the returned
    arrays before the next call.
    """

    def __init__(self, xp):
        self.xp, self.stream = xp, None
        if hasattr(xp, "cuda"):
            self.stream, self.held = xp.cuda.Stream(non_blocking=True), ()
            self.read = xp.cuda.get_current_stream().record()  # all work that was enqueued before `held`

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
    """Return the array module for `name` (numpy, cuda or auto), and a sentence that names the choice and its reason.

    Process number `place` of a machine uses only GPU number `place` modulo the number of GPUs.

    Raises InputError if `name` is cuda and CUDA does not work.
    """
    if name == "numpy":
        return np, "device: numpy (the default)"
    cupy, reason = _probe_cuda(place)
    if cupy is not None:
        return cupy, f"device: cuda ({reason})"
    if name == "cuda":
        raise InputError(f"--device cuda was asked for, but {reason}; use --device numpy, or fix that first")
    return np, f"device: numpy, because {reason}"


def _probe_cuda(place):
    """Return (cupy, device name) if a test kernel and a test product run, else (None, the reason)."""
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
    except Exception as error:  # report any error of the driver or the toolkit as the reason
        message = (str(error).splitlines() or ["no message"])[0][:120]
        return None, f"CUDA does not work here ({type(error).__name__}: {message})"
