"""Print what the host takes for a batch, layer by layer, CuPy's real layers included.

    PYTHONPATH=.:tests/cuda python tests/cuda/cupy_on_cpu/host_times.py

The device does nothing meanwhile: what CUDA itself would take for its calls is not in these times.
Images by page have all their pages there; they take turns with resident ones.
"""

import statistics
import time

import cupy
import numpy as np
from cupy_on_cpu.on_cpu import DROPPED, set_mode

from gpu_patch import (
    BasicPatchConstr,
    ImageStack,
    MultiChannelTargetMsPatchConstr,
    PatchExtractor,
    RandomPatching,
)
from gpu_patch.constructors.execute import execute
from gpu_patch.feed import BatchLoader
from gpu_patch.pages import PageCache

BATCH = 32
REPEATS = 200
EPOCHS = 5
KERNEL = """
extern "C" __global__ void nothing(const int* a, const int* b, int* c) {}
"""


def timed(call):
    """Return the microseconds that a call takes this thread: others may be at work."""
    start = time.thread_time_ns()
    call()
    return (time.thread_time_ns() - start) / 1e3


def microseconds(call):
    """Return median and quartiles."""
    times = [timed(call) for _ in range(REPEATS)]
    low, middle, high = statistics.quantiles(times, n=4)
    return middle, low, high


class Reader:
    """Reads an array of the host."""

    def __init__(self, pixels):
        self._pixels = pixels
        self.shape, self.dtype, self.chunk_shape = pixels.shape, pixels.dtype, (1, 1, 256, 256)

    def read(self, region, out):
        out[...] = self._pixels[region]


def microsplit(images, prob=0.1):
    return MultiChannelTargetMsPatchConstr(
        RandomPatching(images.shapes, patch_size=(64, 64)),
        images,
        multiscale_count=4,
        padding_mode="reflect",
        alpha_ranges=[(0.3, 0.7)] * 2,
        uncorrelated_channel_prob=prob,
        seed=0,
    )


def plain(images):
    return BasicPatchConstr(RandomPatching(images.shapes, patch_size=(64, 64)), images, seed=0)


def batch_of_an_epoch(loader):
    """Return the microseconds that a batch of a whole epoch takes, planning it included."""
    start = time.thread_time_ns()
    for _ in loader:
        pass
    return (time.thread_time_ns() - start) / 1e3 / len(loader)


def by_page(resident, pixels):
    """Print batches of pages beside those of resident images, in turns."""
    cache = PageCache(2 * pixels.nbytes, "cuda")
    paged = PatchExtractor([ImageStack.by_chunk(Reader(pixels), cache=cache)])
    indices = np.random.default_rng(1).permutation(plain(resident).n_patches)[:BATCH]
    kinds = {
        "plain": plain,
        "4 scales": lambda images: microsplit(images, 0.0),
        "4 scales, uncorrelated": microsplit,
    }
    for name, make in kinds.items():
        made = [make(images) for images in (resident, paged)]
        loaders = [BatchLoader(each, BATCH, order="sweep") for each in made]
        for each, loader in zip(made, loaders, strict=True):
            batch_of_an_epoch(loader)  # reads all pages
            each.construct_batch(indices)
        for what, of in (
            ("construct_batch", [lambda m=m: m.construct_batch(indices) for m in made]),
            ("loader", loaders),
        ):
            times = [[], []]
            for _ in range(REPEATS if what == "construct_batch" else EPOCHS):
                for own, call in zip(times, of, strict=True):
                    own.append(batch_of_an_epoch(call) if what == "loader" else timed(call))
            whole, pages = map(statistics.median, times)
            print(
                f"{what + ', ' + name:40}{whole:8.1f} µs resident, {pages:8.1f} µs by page, "
                f"{pages / whole:.2f}"
            )


def main():
    pixels = np.random.default_rng(0).integers(0, 4095, (4, 2, 2048, 2048), dtype=np.uint16)
    images = PatchExtractor([ImageStack.from_array(pixels, "SCYX", device="cuda")])
    constructor = microsplit(images)
    indices = np.random.default_rng(1).permutation(constructor.n_patches)[:BATCH]
    plan = constructor.plan_batch(indices)
    kernel = cupy.RawKernel(KERNEL, "nothing")
    arguments = tuple(np.uint64(n) for n in (1, 2, 3))
    device = cupy.empty(4096, np.uint8)
    memory = cupy.cuda.alloc_pinned_memory(4096)
    stream = cupy.cuda.get_current_stream()
    event = cupy.cuda.Event(disable_timing=True)

    def enter_device():
        with cupy.cuda.Device(0):
            pass

    def copy_and_record():
        cupy.cuda.runtime.memcpyAsync(
            device.data.ptr, memory.ptr, 4096, cupy.cuda.runtime.memcpyHostToDevice, stream.ptr
        )
        event.record(stream)

    calls = {
        "cupy.cuda.runtime.getDevice": cupy.cuda.runtime.getDevice,
        "cupy.empty": lambda: cupy.empty((BATCH, 4, 64, 64), np.float32),
        "with cupy.cuda.Device": enter_device,
        "memcpyAsync and Event.record": copy_and_record,
        "RawKernel, 3 arguments": lambda: kernel((1,), (128,), arguments),
        "lateral_context": lambda: execute(plan, np.float32),
        "plan_batch": lambda: constructor.plan_batch(indices),
        "construct_batch": lambda: constructor.construct_batch(indices),
    }
    for call in calls.values():  # compile, and fill CuPy's pools
        for _ in range(20):
            call()
    cupy.cuda.Device().synchronize()
    set_mode(DROPPED)
    for name, call in calls.items():
        middle, low, high = microseconds(call)
        print(f"{name:32}{middle:8.1f} µs   ({low:.1f} to {high:.1f})")
    by_page(images, pixels)


if __name__ == "__main__":
    main()
