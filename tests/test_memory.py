"""Memory is lent again when nobody uses it any more, and never before."""

import gc
import subprocess
import sys
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import gpu_patch
from gpu_patch.device import host_memory
from gpu_patch.device.host_memory import BufferPool

SHAPE = (30, 40)


def address(array):
    return array.__array_interface__["data"][0]


class Exporter:
    """What a library that takes arrays by DLPack or by the buffer protocol may hold."""

    def __init__(self, array):
        self._array = array
        self.__array_interface__ = array.__array_interface__


USES = {
    "array": lambda a: a,
    "slice": lambda a: a[3:, ::2],
    "one row": lambda a: a[7],
    "transposed": lambda a: a.T,
    "flat": lambda a: a.reshape(-1),
    "other type": lambda a: a.view(np.uint32),
    "view of a view of a view": lambda a: a[2:][:, 1:].T[1:],
    "memoryview": memoryview,
    "memoryview of bytes": lambda a: memoryview(a).cast("B"),
    "array of a memoryview": lambda a: np.asarray(memoryview(a)),
    "array of a buffer": lambda a: np.frombuffer(memoryview(a).cast("B"), np.float32),
    "DLPack consumer": np.from_dlpack,
    "view of a DLPack consumer": lambda a: np.from_dlpack(a)[5:],
    "array interface": lambda a: np.asarray(Exporter(a)),
    "iterator": lambda a: np.nditer(a),
    "flat iterator": lambda a: a.flat,
    "closure": lambda a: lambda: a,
    "subclass": lambda a: a.view(np.recarray),
}


def content(use):
    if callable(use):
        use = use()
    if isinstance(use, memoryview):
        return use.tobytes()
    if isinstance(use, np.nditer):
        return np.array(use.itviews[0]).tobytes()
    return np.array(use).tobytes()


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_memory_in_use_is_not_lent(use):
    pool = BufferPool()
    array = pool.take(SHAPE, np.float32)
    array[...] = np.arange(array.size).reshape(SHAPE)
    used = use(array)
    del array
    gc.collect()
    before = content(used)
    others = []
    for i in range(40):
        other = pool.take(SHAPE, np.float32)
        other[...] = -1
        if i % 3 == 0:
            others.append(other)
    assert content(used) == before


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_memory_is_lent_again_after_use(use):
    pool = BufferPool()
    array = pool.take(SHAPE, np.float32)
    where = address(array)
    used = use(array)
    del array
    assert address(pool.take(SHAPE, np.float32)) != where
    del used
    gc.collect()
    occupied = [np.empty(SHAPE, np.float32) for _ in range(5)]  # what is free would go here
    again = [pool.take(SHAPE, np.float32) for _ in range(3)]
    assert where in [address(a) for a in again]
    del occupied


def test_batches_in_a_loop_need_one_buffer():
    pool = BufferPool()
    addresses = set()
    for _ in range(20):
        array = pool.take(SHAPE, np.float32)
        addresses.add(address(array))
        keep_alive = np.empty(SHAPE, np.float32)
        del array
    del keep_alive
    assert len(addresses) == 1


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint16", "float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(1,), (3, 0, 2), (7, 5), (2, 3, 4, 5)])
def test_arrays_are_as_asked_for(shape, dtype):
    pool = BufferPool()
    for _ in range(3):
        array = pool.take(shape, dtype)
        assert array.shape == shape
        assert array.dtype == dtype
        assert array.flags.c_contiguous
        assert array.flags.writeable
        assert array.flags.aligned


def test_a_buffer_is_not_lent_to_what_is_larger_or_much_smaller():
    pool = BufferPool()
    where = address(pool.take((1000,), np.uint8))
    kept = [pool.take((1001,), np.uint8), pool.take((499,), np.uint8)]
    assert where not in [address(array) for array in kept]
    for array, value in zip(kept, (1, 2), strict=True):
        array[...] = value
    assert (kept[0] == 1).all()
    assert (kept[1] == 2).all()
    assert address(pool.take((500,), np.uint8)) == where


def traced(work):
    """Bytes of arrays that `work` leaves allocated; NumPy reports them to tracemalloc."""
    arrays_only = [tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)]
    tracemalloc.start()
    try:
        kept = work()
        gc.collect()
        traces = tracemalloc.take_snapshot().filter_traces(arrays_only).traces
        return sum(trace.size for trace in traces), kept
    finally:
        tracemalloc.stop()


def test_no_more_is_kept_than_the_limit(monkeypatch):
    monkeypatch.setattr(host_memory, "_MOST_BYTES", 100_000)

    def work():
        pool = BufferPool()
        arrays = [pool.take((30_000,), np.uint8) for _ in range(20)]
        arrays += [pool.take((200_000,), np.uint8)]
        del arrays
        return pool

    found, pool = traced(work)
    assert 30_000 <= found <= 110_000
    addresses = {address(pool.take((30_000,), np.uint8)) for _ in range(20)}
    assert len(addresses) <= 3


def test_the_limit_is_for_memory_that_nobody_uses(monkeypatch):
    monkeypatch.setattr(host_memory, "_MOST_BYTES", 1000)
    pool = BufferPool()
    arrays = []
    for i, size in enumerate([400, 400, 300, 999, 1000, 1001, 5000, 10, 990]):
        arrays.append(pool.take((size,), np.uint8))
        arrays[-1][...] = i
    assert all((array == i).all() for i, array in enumerate(arrays))


def test_nothing_is_said_when_the_interpreter_ends():
    program = """
import ctypes
import numpy as np
from gpu_patch.device import host_memory
from gpu_patch.device.host_memory import BufferPool, pool
batch, own = pool.take((50, 50), np.float32), BufferPool().take((9,), np.int8)
cycle = [pool.take((60, 60), np.float32)]
cycle.append(cycle)
# a module that something keeps outlives what is in it, its own names first
ctypes.pythonapi.Py_IncRef(ctypes.py_object(host_memory))
host_memory.kept = pool.take((70, 70), np.float32)
print("made")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "made\n", "")


def hammer(pool, worker, rounds, sizes, wrong):
    """Take, fill, keep a while, check."""
    rng = np.random.default_rng(worker)
    kept = []
    for i in range(rounds):
        array = pool.take((int(rng.choice(sizes)),), np.int64)
        value = worker * 1_000_000 + i
        array[...] = value
        kept.append((array[1:] if i % 2 else array, value))
        if len(kept) > 3:
            array, value = kept.pop(int(rng.integers(len(kept))))
            if not (array == value).all():
                wrong.append((worker, i))


@pytest.mark.parametrize("most_bytes", [1 << 27, 6000])
def test_threads_never_share_memory(monkeypatch, most_bytes):
    monkeypatch.setattr(host_memory, "_MOST_BYTES", most_bytes)
    pool, wrong, errors = BufferPool(), [], []

    def work(worker):
        try:
            hammer(pool, worker, 1500, [100, 150, 180, 300], wrong)
        except BaseException as error:
            errors.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(i,)) for i in range(1, 7)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not errors
    assert not wrong


def make_constructor(dtype="uint16"):
    image = np.random.default_rng(0).integers(0, 2, (2, 3, 90, 80)).astype(dtype)
    image = (image + np.arange(80)).astype(dtype)
    images = gpu_patch.PatchExtractor(
        [gpu_patch.ImageStack.from_array(image, "SCYX", device="cpu")]
    )
    return gpu_patch.MultiChannelTargetMsPatchConstr(
        gpu_patch.RandomPatching(images.shapes, (16, 12)),
        images, 3, "reflect", [(0.1, 1)] * 3, 0.5, seed=1,
    )  # fmt: skip


def test_earlier_batches_stay_as_they_are():
    constructor = make_constructor()
    index = range(constructor.n_patches)
    batches = [constructor.construct_batch(index, epoch=e) for e in range(6)]
    consumers = [np.from_dlpack(constructor.construct_batch(index, epoch=e)[0]) for e in range(6)]
    rows = [constructor.construct_batch(index, epoch=e).target[5, 1] for e in range(6)]
    for _ in range(20):
        more = constructor.construct_batch(index, epoch=9)
        more.input[...] = more.target[...] = -7
        del more
    fresh = make_constructor()
    for epoch, (batch, consumer, row) in enumerate(zip(batches, consumers, rows, strict=True)):
        expected = fresh.construct_batch(index, epoch=epoch)
        np.testing.assert_array_equal(batch.input, expected.input)
        np.testing.assert_array_equal(batch.target, expected.target)
        np.testing.assert_array_equal(consumer, expected.input)
        np.testing.assert_array_equal(row, expected.target[5, 1])


@pytest.mark.parametrize("n_epochs", [1, 4])
def test_threads_make_the_batches_that_one_thread_makes(n_epochs):
    constructor = make_constructor()
    index = np.arange(constructor.n_patches)
    rng = np.random.default_rng(0)
    wanted = [(rng.choice(index, 1 + i % 9), i % n_epochs) for i in range(160)]
    expected = [make_constructor().construct_batch(i, epoch=e) for i, e in wanted]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(6) as threads:
            found = list(
                threads.map(lambda job: constructor.construct_batch(job[0], epoch=job[1]), wanted)
            )
    finally:
        sys.setswitchinterval(interval)
    for batch, alone in zip(found, expected, strict=True):
        np.testing.assert_array_equal(batch.input, alone.input)
        np.testing.assert_array_equal(batch.target, alone.target)
        assert list(batch.specs) == list(alone.specs)
