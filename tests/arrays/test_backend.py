"""Where arrays live, how they come and go, and what is said when there is no GPU."""

import subprocess
import sys
import weakref
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from satnp.arrays.backend import Uploads, find_device, to_device, to_host, xp_of
from satnp.errors import InputError
from tests import strict

HOST = np.arange(6.0).reshape(2, 3)


def test_xp_of_an_array_is_its_library(xp):
    x = to_device(HOST, xp)
    assert xp_of(x) is xp
    assert xp_of(x.sum(axis=0), 1.0) is xp


def test_xp_of_finds_the_device_array_among_others(xp):
    x = to_device(HOST, xp)
    assert xp_of(None, 2, HOST, np.float32(1), x) is xp


def test_xp_of_nothing_is_numpy():
    assert xp_of() is np
    assert xp_of(None, 1.0, [1, 2], HOST, np.float64(3)) is np


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128, np.int64, np.bool])
def test_there_and_back(xp, dtype):
    host = HOST.astype(dtype)
    x = to_device(host, xp)
    assert isinstance(x, xp.ndarray) and x.dtype == dtype and x.shape == host.shape
    back = to_host(x)
    assert isinstance(back, np.ndarray) and back.dtype == dtype
    np.testing.assert_array_equal(back, host)


def test_the_device_holds_a_copy(xp):
    host = HOST.copy()
    x = to_device(host, xp)
    host[0, 0] = 7
    assert to_host(x)[0, 0] == (7 if xp is np else 0)


def test_to_device_takes_sequences_and_keeps_device_arrays(xp):
    x = to_device([[1, 2], [3, 4]], xp)
    assert to_device(x, xp) is x
    np.testing.assert_array_equal(to_host(x), [[1, 2], [3, 4]])


def test_to_host_of_host_values():
    assert to_host(HOST) is HOST
    assert to_host(2.5).shape == ()
    assert to_host([1, 2]).tolist() == [1, 2]


class Stream:
    """Work in order. `after` says, of each stream, how much of its work is done before the next thing here is."""

    def __init__(self, gpu):
        self.gpu, self.after = gpu, Counter()

    def work(self):
        self.after[self] += 1
        return self.after[self]

    def record(self):
        return self.after.copy()

    def wait_event(self, event):
        self.after |= event

    def __enter__(self):
        self.gpu.current = self

    def __exit__(self, *_):
        self.gpu.current = self.gpu.main


class Array:
    pass


class Gpu:
    """As much of CuPy as Uploads touches: the memory of a freed array is the next one's that its stream asks for."""

    def __init__(self):
        self.cuda, self.main, self.free, self.blocks = self, Stream(self), {}, 0
        self.current = self.main

    def Stream(self, non_blocking):
        assert non_blocking  # else it would wait for the main one, and that for it
        return Stream(self)

    def get_current_stream(self):
        return self.current

    def asarray(self, host):
        stream, free = self.current, self.free.setdefault(self.current, [])
        array, self.blocks = Array(), self.blocks + (not free)
        array.reads = free.pop() if free else Counter()
        assert array.reads <= stream.after, "memory is overwritten that may be read still"
        array.written = Counter({stream: stream.work()})
        weakref.finalize(array, free.append, array.reads)
        return array

    def step(self, *arrays):
        """The main stream reads them."""
        for x in arrays:
            assert x.written <= self.current.after, "read before it was written"
            x.reads[self.current] = self.current.work()


@pytest.mark.parametrize("freed", ["before the next upload", "after it"])
def test_an_upload_passes_by_the_step_before_it_and_overwrites_nothing_that_is_read(freed):
    gpu = Gpu()
    uploads, began = Uploads(gpu), 0
    for _ in range(6):
        ended = gpu.main.after[gpu.main]
        photos, nothing, captions = uploads(HOST, None, HOST)
        assert nothing is None
        # it waits for no more than what was sent before the last step began
        assert set(photos.written) == {uploads.stream} and uploads.stream.after[gpu.main] <= began
        began = ended
        gpu.step(photos, captions, photos)
        if freed == "before the next upload":
            del photos, captions
    assert gpu.blocks == 4  # of two minibatches


def test_uploads_without_streams_are_arrays_of_the_library():
    for xp in (np, strict):
        photos, nothing = Uploads(xp)(HOST, None)
        assert nothing is None and xp_of(photos) is xp
        np.testing.assert_array_equal(to_host(photos), HOST)


def test_find_device_numpy():
    xp, sentence = find_device("numpy")
    assert xp is np
    assert sentence == "device: numpy (the default)"


def test_find_device_auto_says_what_it_took_and_why():
    xp, sentence = find_device("auto")
    assert "\n" not in sentence
    assert sentence.startswith("device: numpy, because " if xp is np else "device: cuda (")


def test_find_device_cuda_works_or_says_why_not():
    auto, reason = find_device("auto")
    if auto is not np:
        assert find_device("cuda")[0].__name__ == "cupy"
        return
    with pytest.raises(InputError) as error:
        find_device("cuda")
    sentence = str(error.value)
    assert sentence.startswith("--device cuda was asked for, but ") and "\n" not in sentence
    assert reason.removeprefix("device: numpy, because ") in sentence


class FakeCuda:
    """As much of CuPy as the probe touches, on a machine of four GPUs, with one thing wrong."""

    def __init__(self, driver=13000, failure=None):
        self.cuda = self.runtime = self
        self._driver = driver
        self._failure = failure
        self.touched = []

    def driverGetVersion(self):
        return self._driver

    def getDeviceCount(self):
        return 4

    def Device(self, number):
        return SimpleNamespace(id=number, use=lambda: self.touched.append(f"use {number}"))

    def ones(self, *args, **keywords):
        self.touched.append("ones")
        raise self._failure


@pytest.mark.parametrize(
    ("fake", "reason"),
    [
        (None, "CuPy is not installed"),
        (FakeCuda(driver=0), "there is no CUDA driver"),
        (FakeCuda(failure=RuntimeError("no memory\nmore")), "CUDA does not work here (RuntimeError: no memory)"),
        (FakeCuda(failure=RuntimeError()), "CUDA does not work here (RuntimeError"),
    ],
    ids=["not installed", "no driver", "kernel fails", "kernel fails without a word"],
)
def test_find_device_names_what_is_wrong(monkeypatch, fake, reason):
    monkeypatch.setitem(sys.modules, "cupy", fake)
    with pytest.raises(InputError) as error:
        find_device("cuda")
    assert reason in str(error.value) and "\n" not in str(error.value)
    xp, sentence = find_device("auto")
    assert xp is np and reason in sentence


@pytest.mark.parametrize(("place", "number"), [(0, 0), (3, 3), (5, 1)])
def test_a_process_takes_its_gpu_before_it_touches_one(monkeypatch, place, number):
    fake = FakeCuda(failure=RuntimeError())
    monkeypatch.setitem(sys.modules, "cupy", fake)
    find_device("auto", place)
    assert fake.touched == [f"use {number}", "ones"]


def test_importing_satnp_does_not_import_cupy():
    code = "import sys, satnp, satnp.arrays.backend; sys.exit('cupy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
