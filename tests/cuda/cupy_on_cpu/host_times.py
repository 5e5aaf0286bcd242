"""Print what the host takes for a batch, layer by layer, CuPy's real layers included.

    PYTHONPATH=.:tests/cuda python tests/cuda/cupy_on_cpu/host_times.py

The device does nothing meanwhile: what CUDA itself would take for its calls is not in these times.
"""

import statistics
import time

import cupy
import numpy as np
from cupy_on_cpu.on_cpu import DROPPED, set_mode

from gpu_patch import (
    ImageStack,
    MultiChannelTargetMsPatchConstr,
    PatchExtractor,
    RandomPatching,
)
from gpu_patch.constructors.execute import execute

BATCH = 32
REPEATS = 200
KERNEL = """
extern "C" __global__ void nothing(const int* a, const int* b, int* c) {}
"""


def microseconds(call):
    """Return median and quartiles."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter_ns()
        call()
        times.append((time.perf_counter_ns() - start) / 1e3)
    low, middle, high = statistics.quantiles(times, n=4)
    return middle, low, high


def main():
    pixels = np.random.default_rng(0).integers(0, 4095, (4, 2, 2048, 2048), dtype=np.uint16)
    images = PatchExtractor([ImageStack.from_array(pixels, "SCYX", device="cuda")])
    constructor = MultiChannelTargetMsPatchConstr(
        RandomPatching(images.shapes, patch_size=(64, 64)),
        images,
        multiscale_count=4,
        padding_mode="reflect",
        alpha_ranges=[(0.3, 0.7)] * 2,
        uncorrelated_channel_prob=0.1,
        seed=0,
    )
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


if __name__ == "__main__":
    main()
