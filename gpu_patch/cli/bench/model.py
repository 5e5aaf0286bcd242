"""What a batch of several scales should take on a GPU: a model, to be held against measurements.

Three things can limit the specialised kernel, and the largest of them is the prediction:

- memory: bytes read and written once, at the device's bandwidth;
- issue: warp instructions, four a cycle on each multiprocessor;
- latency: how often a thread waits for the pixels that it asked for, one after the other, in each
  wave of blocks.

Where a measured time differs, the three tell which assumption to doubt.
"""

from __future__ import annotations

from math import ceil, prod
from typing import Any, NamedTuple

import numpy as np

from gpu_patch._cuda.loader import FAST_SCALES
from gpu_patch._cuda.specialised import LOADS_AHEAD, MANY_SAMPLES, MOST_SCALES_3D, Shape, tiled
from gpu_patch.geometry import fir_taps
from gpu_patch.table import MODES, PIXEL_TYPES

PER_MIXED_PIXEL, PER_FILTERED, PER_NATIVE = 11.6, 128.0, 95.3
"""Instructions, fitted to those that tests/cuda/ptx/counts.py counts for two channels of uint16, of
one to five scales and in 3D (within 4 %): to load, convert, mix and filter a pixel along Y; to
filter one along X (and Z) and write it; and for a pixel of the native scale."""
ISSUED_PER_CYCLE = 4
"""Warp instructions, of a multiprocessor."""
LATENCY_CYCLES = 700
"""Of a load from memory, while others load too: assumed."""
THREADS_AT_A_TIME = 640
"""Of a multiprocessor, by registers: as the kernel's launch bounds have it."""


class Gpu(NamedTuple):
    """What the model knows of a device."""

    name: str
    multiprocessors: int
    hertz: float
    bytes_per_second: float
    shared_bytes: int
    """Shared memory of a multiprocessor."""


class Prediction(NamedTuple):
    """Seconds that each limit asks for."""

    memory: float
    issue: float
    latency: float

    @property
    def seconds(self) -> float:
        """What a batch should take."""
        return max(self)

    @property
    def limit(self) -> str:
        """Which of the three it is."""
        return self._fields[self.index(self.seconds)]


class Work(NamedTuple):
    """What a batch asks of a device."""

    instructions: float
    """Of warps."""
    n_blocks: int
    round_trips: float
    """Of the block that has most."""


def shape_of(
    patch: tuple[int, int, int], n_scales: int, n_samples: int, n_channels: int = 2
) -> Shape | None:
    """Return the kernel's case for images of uint16 under "reflect", None where it serves none."""
    n_dims = 2 if patch[0] == 1 else 3
    if n_scales > (FAST_SCALES if n_dims == 2 else MOST_SCALES_3D):
        return None
    return tiled(
        n_dims,
        patch,
        n_scales,
        n_channels,
        1,
        PIXEL_TYPES[np.dtype(np.uint16)],
        MODES.index("reflect"),
        0,
        n_samples >= MANY_SAMPLES[n_dims],
    )


class Tiles(NamedTuple):
    """Blocks of one scale of a sample, and what each asks for."""

    n_blocks: int
    instructions: float
    """Of warps."""
    round_trips: float


def tiles_of(shape: Shape) -> list[Tiles]:
    """Count what each scale has to do; see `Level` and `filter_columns` in specialised.cu."""
    depth, height, width = shape.patch
    found = []
    for scale in range(shape.n_scales):
        factor, n_taps = 1 << scale, len(fir_taps(scale)[0])
        strips = 1 << (shape.n_scales - 1 - scale) if shape.n_dims == 2 else 1
        tile_y = min(shape.tile_rows * strips, height)
        n_tiles = ceil(depth / shape.tile_z) * ceil(height / tile_y) * ceil(width / shape.tile_x)
        if scale == 0:
            instructions, trips = PER_NATIVE * prod(shape.patch) / n_tiles, 1.0
        else:
            n_slices = 1 if shape.n_dims == 2 else (shape.tile_z - 1) * factor + n_taps
            rows = (ceil(tile_y / strips) - 1 + ceil(n_taps / factor)) * factor
            columns = (shape.tile_x - 1) * factor + n_taps
            lanes = shape.n_threads // strips
            together = max(1, min(4, width * factor // lanes))
            whole_rounds, rest = divmod(columns, together * lanes)
            # others take other rows
            few = min(lanes, max(8, min(32, 1 << (rest - 1).bit_length())))
            n_shares = min(tile_y, shape.n_threads // few)
            few_rows = (ceil(tile_y / n_shares) - 1 + ceil(n_taps / factor)) * factor
            mixed = strips * rows * (columns - rest) + n_shares * few_rows * few * ceil(rest / few)
            filtered = tile_y * shape.tile_x
            instructions = n_slices * (PER_MIXED_PIXEL * mixed + PER_FILTERED * filtered)
            waits = whole_rounds * _waits(rows, together * shape.n_channels, factor)
            waits += ceil(rest / few) * _waits(few_rows, shape.n_channels, factor)
            trips = n_slices * waits
        found.append(Tiles(n_tiles, instructions * shape.n_channels / 2 / 32, trips))
    return found


def work_of(shape: Shape, n_samples: int) -> Work:
    """Count what a batch asks for."""
    found = tiles_of(shape)
    return Work(
        n_samples * sum(tiles.n_blocks * tiles.instructions for tiles in found),
        n_samples * shape.blocks_per_sample,
        # the table, the borders' offsets, the outputs
        max(tiles.round_trips for tiles in found) + 3,
    )


def _waits(rows: int, loads_per_row: int, factor: int) -> float:
    """Return how often a thread waits in a column: once, and then for each row asked ahead."""
    ahead = 1
    while 2 * ahead <= factor and 2 * ahead * loads_per_row <= LOADS_AHEAD:
        ahead *= 2
    return 1 + rows / ahead


def blocks_at_a_time(shape: Shape, gpu: Gpu) -> int:
    """Return how many blocks a multiprocessor works on."""
    by_registers = -(-THREADS_AT_A_TIME // shape.n_threads)
    return max(1, min(by_registers, gpu.shared_bytes // shape.shared_bytes))


def predict(shape: Shape, n_samples: int, n_bytes: float, gpu: Gpu) -> Prediction:
    """Return what a batch should take, of `n_bytes` that are read and written."""
    work = work_of(shape, n_samples)
    at_a_time = blocks_at_a_time(shape, gpu)
    waves = max(1.0, work.n_blocks / (gpu.multiprocessors * at_a_time))
    return Prediction(
        n_bytes / gpu.bytes_per_second,
        work.instructions / gpu.multiprocessors / ISSUED_PER_CYCLE / gpu.hertz,
        waves * work.round_trips * LATENCY_CYCLES / gpu.hertz,
    )


def gpu_in_use(cupy: Any, number: int, bytes_per_second: float) -> Gpu:
    """Describe a device to the model."""
    attributes = cupy.cuda.Device(number).attributes
    return Gpu(
        cupy.cuda.runtime.getDeviceProperties(number)["name"].decode(),
        attributes["MultiProcessorCount"],
        attributes["ClockRate"] * 1e3,  # of kHz
        bytes_per_second,
        attributes["MaxSharedMemoryPerMultiprocessor"],
    )
