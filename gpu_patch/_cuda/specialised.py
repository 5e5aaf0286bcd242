"""Lateral context by a kernel that is compiled for one case: its sizes, and when it serves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch._cuda.loader import FAST_SCALES
from gpu_patch._cuda.runtime import Kernel, Runtime, launch, pointer_or_null
from gpu_patch.geometry import fir_taps
from gpu_patch.records import MOST_SHORT, NUMPY_RECORDS, RecordMaker, Windows
from gpu_patch.table import (
    EPILOGUE,
    MODES,
    PAGED,
    pack,
    short_record,
    volume,
)

LEAST_PATCH, MOST_PATCH = 8, 256
"""Sides along Y and X that it serves. Smaller tiles would be mostly border; larger patches are
whole images, and a kernel would be compiled for each size."""
MOST_CHANNELS, MOST_PLACES, MOST_SCALES_3D = 6, 4, 4
"""More would need more registers than a thread has."""
SHARED_BYTES = 48 << 10
"""Shared memory that every device gives a block by default."""
LOADS_AHEAD = 32
"""Pixels that a thread has asked for at a time: enough that waiting for them is not what limits a
batch of 32 (model), and few enough for their registers."""
MANY_SAMPLES = {2: 128, 3: 16}
"""By dimensions, samples of a batch from which on larger blocks, and fewer, still fill a device."""
LEAST_TOGETHER, MOST_TOGETHER = 8, 32
"""Samples whose largest scales begin before their smaller ones: 32 windows of 512 by 512 in two
channels are 32 MB, and an A100's L2 is 40. Twice as many where they have no such divisor; of larger
batches, fewer."""
MOST_GROUPS = 65535
"""The last dimensions of a grid have no more."""
TABLE_BYTES = 4096 - 16
"""What every device takes as parameters of a kernel, but for the addresses of the outputs. Tables
that fit are a parameter, and need no upload."""
MOST_CHANNELS_BY_VALUE = 3
"""With more, batches that fit are small, and registers spill."""


@dataclass(frozen=True)
class Shape:
    """A case, and how it is cut into tiles: the constants of specialised.cu."""

    n_dims: int
    patch: tuple[int, int, int]
    n_scales: int
    n_channels: int
    n_places: int
    pixel_type: int
    mode: int
    half_output: int
    tile_rows: int
    tile_x: int
    tile_z: int
    n_threads: int
    paged: bool = False

    @cached_property
    def kernels(self) -> dict[tuple[Runtime | None, bool, int], Kernel]:
        """Those compiled so far, by device, whether there is an epilogue, and `most_records`."""
        return {}

    def is_compiled(self, runtime: Runtime | None, epilogue: bool) -> bool:
        """Whether a runtime has a kernel of it, with or without an epilogue."""
        return any(key[:2] == (runtime, epilogue) for key in self.kernels)

    def most_records(self, n_samples: int, epilogue: bool) -> int:
        """Return how many records the kernel of a batch takes by value; 0: they are uploaded."""
        most = TABLE_BYTES // short_record(self.n_dims, epilogue).itemsize
        fits = n_samples * self.n_channels <= most and self.n_channels <= MOST_CHANNELS_BY_VALUE
        spills = self.paged or (self.n_dims == 3 and epilogue)
        return most if fits and not spills else 0

    @cached_property
    def blocks_per_sample(self) -> int:
        """Tiles of all scales."""
        depth, height, width = self.patch
        planes = -(-depth // self.tile_z) * -(-width // self.tile_x)
        return planes * sum(-(-height // self._tile_y(scale)) for scale in range(self.n_scales))

    @cached_property
    def shared_bytes(self) -> int:
        """Shared memory of the block that needs most."""
        return max(map(self._shared_bytes, range(self.n_scales)))

    @cached_property
    def constants(self) -> dict[str, int]:
        """Macros, but for those of `macros`."""
        return {
            "N_DIMS": self.n_dims,
            "PATCH_Z": self.patch[0],
            "PATCH_Y": self.patch[1],
            "PATCH_X": self.patch[2],
            "N_SCALES": self.n_scales,
            "N_CHANNELS": self.n_channels,
            "N_PLACES": self.n_places,
            "PIXEL_TYPE": self.pixel_type,
            "MODE": self.mode,
            "HALF_OUTPUT": self.half_output,
            "TILE_ROWS": self.tile_rows,
            "TILE_X": self.tile_x,
            "TILE_Z": self.tile_z,
            "N_THREADS": self.n_threads,
            "SHARED_BYTES": self.shared_bytes,
            "LOADS_AHEAD": LOADS_AHEAD,
            **(PAGED if self.paged else {}),
        }

    def macros(self, epilogue: bool, most_records: int) -> dict[str, int]:
        """Return all that a kernel is compiled with."""
        return self.constants | {"N_RECORDS": most_records} | (EPILOGUE if epilogue else {})

    def _tile_y(self, scale: int) -> int:
        rows = self.tile_rows if self.n_dims == 3 else self.tile_rows << self.n_scales - 1 - scale
        return min(rows, self.patch[1])

    def _shared_bytes(self, scale: int) -> int:
        """`Level` in specialised.cu, step by step."""
        factor, n_taps, tile_y = 1 << scale, len(fir_taps(scale)[0]), self._tile_y(scale)
        z_factor, z_taps = (factor, n_taps) if self.n_dims == 3 else (1, 1)
        n_slices = (self.tile_z - 1) * z_factor + z_taps
        n_rows = (tile_y + -(-n_taps // factor)) * factor
        n_columns = (self.tile_x - 1) * factor + n_taps
        banks = 32 // factor
        phase = (-(-n_columns // factor) + banks - 1) // (2 * banks) * 2 * banks + banks
        narrow = tile_y * factor * phase if scale else 0
        if self.paged:  # with a page each
            return 4 * (narrow + self.n_places * (2 * n_slices + 2 * n_rows + n_columns))
        return 4 * (narrow + self.n_places * (n_slices + n_rows))


def choose(
    windows: Windows,
    dtype: np.dtype[Any],
    runtime: Runtime | None = None,
    *,
    paged: bool = False,
) -> Shape | None:
    """Return the shape to compile for, None where the general path must serve.

    A `runtime` need not compile for an epoch's last batch of fewer samples what it has for larger
    ones.
    """
    table, sources, n_scales = windows.table, windows.sources, windows.n_scales
    n_samples, n_channels = windows.shape
    n_places = sources.image_idx.shape[1] if n_channels > 1 else 1
    patch = volume(windows.patch_size)
    fits = (
        n_scales <= (FAST_SCALES if table.n_dims == 2 else MOST_SCALES_3D)
        and n_channels <= MOST_CHANNELS
        and n_places <= MOST_PLACES
        and len(table.pixel_types) == 1
        and min(patch[1:]) >= LEAST_PATCH
        and max(patch) <= MOST_PATCH
        and table.most_pixels < MOST_SHORT
    )
    if not fits:
        return None
    (pixel_type,) = table.pixel_types
    case = (
        table.n_dims,
        patch,
        n_scales,
        n_channels,
        n_places,
        pixel_type,
        MODES.index(windows.mode),
        int(dtype == np.float16),
    )
    many_samples, epilogue = n_samples >= MANY_SAMPLES[table.n_dims], windows.epilogue is not None
    shape = tiled(*case, many_samples, paged)
    if many_samples or shape is None or shape.is_compiled(runtime, epilogue):
        return shape
    larger = tiled(*case, True, paged)
    return larger if larger is not None and larger.is_compiled(runtime, epilogue) else shape


@lru_cache(maxsize=256)
def tiled(
    n_dims: int,
    patch: tuple[int, int, int],
    n_scales: int,
    n_channels: int,
    n_places: int,
    pixel_type: int,
    mode: int,
    half_output: int,
    many_samples: bool = False,
    paged: bool = False,
) -> Shape | None:
    """Return the tiling with the most rows that fits, None where not even one row does."""
    n_tiles_x = -(-patch[2] // 64)
    tile_x = -(-patch[2] // n_tiles_x)
    # a thread computes four columns of the widest window at once
    n_threads = min(max(128, -(-(tile_x << n_scales - 1) // 128) * 32), 256)
    # with more rows and planes fewer pixels are read twice, but blocks are fewer; in 3D each row
    # is in registers too, so that more of them want more threads
    # with pages registers would spill
    large = many_samples and not paged and (n_dims == 2 or n_places <= 2)
    if large and n_dims == 3:
        n_threads = 256
    for tile_rows in (16, 8, 4, 2, 1) if large else (8, 4, 2, 1):
        shape = Shape(
            n_dims=n_dims,
            patch=patch,
            n_scales=n_scales,
            n_channels=n_channels,
            n_places=n_places,
            pixel_type=pixel_type,
            mode=mode,
            half_output=half_output,
            tile_rows=min(tile_rows, patch[1]),
            tile_x=tile_x,
            tile_z=min(patch[0], 8 if large else 4),
            n_threads=n_threads,
            paged=paged,
        )
        if shape.shared_bytes <= SHARED_BYTES:
            return shape
    return None


def launch_shape(
    runtime: Runtime,
    shape: Shape,
    windows: Windows,
    mixed: Any,
    target: Any,
    pages: Sequence[NDArray[Any]] = (),
    records: RecordMaker = NUMPY_RECORDS,
) -> bool:
    """Fill input and target, which may be None; `pages` is what `RecordMaker.pages` returned.

    Return whether all places fit the kernel's 32 bits; else nothing is done.
    """
    (n_samples, n_channels), finishes = windows.shape, windows.epilogue is not None
    most_records, kernel = _kernel_for(runtime, shape, n_samples, finishes)
    record = short_record(shape.n_dims, finishes)
    # all that is not filled in is 0: a kernel that read it would be seen by a memory checker
    memory = np.zeros(most_records or n_samples * n_channels, record)
    if not records.short(windows, memory):
        return False
    more: list[int] = []
    first: Any
    if most_records:
        first = memory.view(_structure(memory.nbytes))
    else:
        packed, offsets = pack(memory, *pages)
        uploaded = runtime.upload(packed)  # kept until the launch
        first, *more = (runtime.pointer(uploaded) + offset for offset in offsets)
    launch(
        kernel,
        grid_of(n_samples, shape.blocks_per_sample),
        (shape.n_threads,),
        [first, runtime.pointer(mixed), pointer_or_null(runtime, target), *more],
        shape.shared_bytes,
    )
    return True


@lru_cache(maxsize=64)
def grid_of(n_samples: int, blocks_per_sample: int) -> tuple[int, int, int]:
    """Return the blocks of a batch: samples that begin together, tiles of each, and groups."""
    divisors = (n for n in range(min(n_samples, MOST_TOGETHER), 0, -1) if n_samples % n == 0)
    together = next(divisors, 0)
    few = together < LEAST_TOGETHER and n_samples <= 2 * MOST_TOGETHER
    if few or n_samples // together > MOST_GROUPS:
        together = n_samples
    return together, blocks_per_sample, n_samples // together if together else 0


@lru_cache(maxsize=8)
def _structure(n_bytes: int) -> np.dtype[np.void]:
    """Return the type of what is passed by value: to make it takes longer than to use it."""
    return np.dtype((np.void, n_bytes))


def _kernel_for(
    runtime: Runtime, shape: Shape, n_samples: int, epilogue: bool
) -> tuple[int, Kernel]:
    """Return how many records a kernel takes by value, and the kernel."""
    kernels, most_records = shape.kernels, shape.most_records(n_samples, epilogue)
    # an epoch's last batch of fewer samples takes the kernel of those before
    for most in (most_records, 0):
        kernel = kernels.get((runtime, epilogue, most))
        if kernel is not None:  # kept: making the constants takes longer than the launch
            return most, kernel
    kernel = runtime.kernel("specialised", "specialised", shape.macros(epilogue, most_records))
    kernels[runtime, epilogue, most_records] = kernel
    return most_records, kernel
