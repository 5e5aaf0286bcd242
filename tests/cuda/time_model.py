"""Prints what batches should take on some devices, by a model: ``python tests/cuda/time_model.py``.

The model is `gpu_patch.cli.bench.model`, which ``gpu-patch bench --device cuda`` prints beside what
it measures; here with the devices' figures as their makers state them. Below it, how much more than
the mean the last multiprocessor works, with the blocks of a sample after those of the one before,
and with the largest scale of a group first, as they are.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from itertools import islice
from math import prod

from gpu_patch._cuda.specialised import Shape, grid_of
from gpu_patch.cli.bench.model import Gpu, blocks_at_a_time, predict, shape_of, tiles_of

GPUS = (
    Gpu("V100", 80, 1.53e9, 0.90e12, 96 << 10),
    Gpu("A100", 108, 1.41e9, 2.04e12, 164 << 10),
    Gpu("H100", 132, 1.755e9, 3.35e12, 228 << 10),
    Gpu("H200", 132, 1.755e9, 4.3e12, 228 << 10),
    Gpu("RTX 4090", 128, 2.52e9, 1.01e12, 100 << 10),
)
"""Multiprocessors, clock under load, bandwidth: assumed from data sheets, of the H200 what copies
reach."""
CASES = {
    "2D, B = 32": ((1, 64, 64), 4, 32),
    "2D, B = 256": ((1, 64, 64), 4, 256),
    "3D, B = 16": ((16, 64, 64), 3, 16),
    "3D, B = 32": ((16, 64, 64), 3, 32),
}
SIDES = {2: (2048, 2048), 3: (64, 512, 512)}
"""Of the bench's images, which windows may not leave here."""


def n_bytes(patch: tuple[int, int, int], n_scales: int, n_samples: int) -> float:
    """Return the bytes of all windows of two channels of uint16, inside, and of the outputs."""
    sides = SIDES[2 if patch[0] == 1 else 3]
    window = [
        min(p << n_scales - 1, side) for p, side in zip(patch[-len(sides) :], sides, strict=True)
    ]
    return n_samples * (2 * 2 * prod(window) + 4 * (n_scales + 2) * prod(patch))


def blocks_of(shape: Shape, n_samples: int, *, grouped: bool) -> list[float]:
    """Return the instructions of a batch's blocks, in the order in which they start."""
    of_sample = [t.instructions for t in reversed(tiles_of(shape)) for _ in range(t.n_blocks)]
    if not grouped:
        return of_sample * n_samples
    together, _, n_groups = grid_of(n_samples, len(of_sample))
    return [block for block in of_sample for _ in range(together)] * n_groups


def imbalance(blocks: Sequence[float], gpu: Gpu, at_a_time: int) -> float:
    """Return how long the last multiprocessor works, of the mean of all.

    The blocks of a multiprocessor share its issue equally. Blocks start one on each multiprocessor
    in turn, then where there is room first.
    """
    n = gpu.multiprocessors
    waiting = iter(blocks)
    started: list[list[float]] = [[] for _ in range(n)]
    for i, block in enumerate(islice(waiting, n * at_a_time)):
        started[i % n].append(block)
    events = [(min(work) * len(work), i) for i, work in enumerate(started) if work]
    heapq.heapify(events)
    time = 0.0
    while events:
        time, i = heapq.heappop(events)
        done = min(started[i])
        started[i] = [left - done for left in started[i] if left - done > 1e-9]
        started[i] += islice(waiting, at_a_time - len(started[i]))
        if started[i]:
            heapq.heappush(events, (time + min(started[i]) * len(started[i]), i))
    return time / (sum(blocks) / n)


def main() -> None:
    """Print a table of microseconds."""
    print("(model) µs, and what limits: memory, issue of instructions, latency of loads")
    for name, (patch, n_scales, n_samples) in CASES.items():
        shape = shape_of(patch, n_scales, n_samples)
        for gpu in GPUS:
            found = predict(shape, n_samples, n_bytes(patch, n_scales, n_samples), gpu)
            limits = ", ".join(f"{k} {v * 1e6:.1f}" for k, v in found._asdict().items())
            print(f"{name:12} {gpu.name:9} {found.seconds * 1e6:6.1f} {found.limit:8} ({limits})")
    print(
        "(model) the last multiprocessor's work, of the mean: samples in turn, largest scale first"
    )
    for name, (patch, n_scales, n_samples) in CASES.items():
        shape = shape_of(patch, n_scales, n_samples)
        for gpu in GPUS:
            ways = [
                imbalance(
                    blocks_of(shape, n_samples, grouped=way), gpu, blocks_at_a_time(shape, gpu)
                )
                for way in (False, True)
            ]
            print(f"{name:12} {gpu.name:9}", *(f"{way:6.2f}" for way in ways))


if __name__ == "__main__":
    main()
