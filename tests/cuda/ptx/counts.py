"""Prints what launches ask of a device: ``python tests/cuda/ptx/counts.py [word of a case]``.

Counted while the PTX runs, so exact for it and for the input: warp instructions (all of a launch),
what ptxas mostly folds into others, sectors of 32 bytes that loads and stores touch, before any
cache, and wavefronts in shared memory beyond the least. Needs a C++ compiler and NVRTC's wheel.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).parents[i]) for i in (1, 2, 3)]

import stitching  # noqa: E402
from cases import Case, assert_same_context  # noqa: E402
from tilings import Tiling  # noqa: E402

from gpu_patch import ops  # noqa: E402
from gpu_patch._cuda.accumulate import accumulate  # noqa: E402
from gpu_patch.sliding import sliding_grid  # noqa: E402
from ptx.execute import Report  # noqa: E402
from ptx.runtime import PtxRuntime, aligned, missing  # noqa: E402

FOLDED = ("cvt.u32.u16", "mov.", "cvta", "ld.const", "ld.param", "st.param")
"""What ptxas mostly folds: widening of loads, operands, registers."""


def context_case(
    patch: tuple[int, ...],
    n_scales: int,
    n_samples: int,
    *,
    n_places: int = 1,
    dtype: str = "uint16",
) -> Case:
    """Make a batch whose windows lie inside of one large image."""
    n_dims = len(patch)
    case = Case.random(
        1, patch, n_scales, "reflect", n_samples=n_samples, n_places=n_places, least=2, most=3
    )
    rng = np.random.default_rng(1)
    sides = np.array((2048, 2048) if n_dims == 2 else (96, 512, 512))
    image, _ = aligned((1, 2, *sides), np.dtype(dtype))
    image[...] = rng.integers(0, 200 if dtype == "uint8" else 4000, image.shape)
    reach = (np.array(patch) << n_scales - 1) // 2 - np.array(patch) // 2
    low = np.minimum(reach, sides // 2 - 1)
    coords = rng.integers(
        low, np.maximum(sides - patch - reach, low + 1), (n_samples, n_places, n_dims)
    )
    zeros = np.zeros((n_samples, n_places), np.int64)
    sources = case.sources._replace(
        image_idx=zeros, sample_idx=zeros, coords=coords, channels=np.arange(2)
    )
    return replace(case, images=[image], sources=sources)


def context(patch: tuple[int, ...], n_scales: int, n_samples: int, specialise: bool = True,
            **options) -> Callable[[], list[Report]]:  # fmt: skip
    """Return what makes a batch, checks it, and tells the launch."""

    def run() -> list[Report]:
        case, runtime = context_case(patch, n_scales, n_samples, **options), PtxRuntime()
        assert_same_context(case.context(runtime, specialise=specialise), case.numpy_context())
        return runtime.reports

    return run


def gathered(patch: tuple[int, ...], n_samples: int) -> list[Report]:
    case, runtime = context_case(patch, 1, n_samples), PtxRuntime()
    np.testing.assert_array_equal(case.patches(runtime, "reflect"), case.numpy_patches("reflect"))
    return runtime.reports


def stitched(blend: str) -> list[Report]:
    tiling, runtime = Tiling((512, 512), (64, 64), (32, 32), blend, 0, 2), PtxRuntime()
    stitching.assert_stitched(runtime, tiling, stitching.counts_of(tiling, 32))
    return runtime.reports


SUMMED, KEPT = (64, 2, 64, 64), 2 * 32 * 32 * 4
"""Sliding tiles of a batch, and bytes of a tile that are summed."""


def summed(*, squares: bool) -> list[Report]:
    """A batch in the middle of sliding tiles, one every 4 pixels, of which 64 count at a pixel."""
    runtime = PtxRuntime()
    grid = sliding_grid((128, 512), SUMMED[2:], (32, 32), (4, 4), 0)
    tiles, _ = aligned(SUMMED, np.dtype("float32"))
    tiles[...] = np.random.default_rng(0).normal(size=tiles.shape)
    slab, _ = aligned((4 if squares else 2, 128, 512), np.dtype("float64"))
    slab[...] = 0
    expected = slab.copy()
    first = grid.n_tiles // 2
    for sums, add in ((slab, partial(accumulate, runtime)), (expected, ops.accumulate)):
        segment = ops.Segment(sums, grid, first, len(tiles), (0, 128))
        add(tiles, [segment], squares=squares, again=False)
    np.testing.assert_array_equal(slab, expected)
    return runtime.reports


TWO, THREE = (64, 64), (16, 64, 64)
CASES: dict[str, Callable[[], list[Report]]] = {
    **{f"2D, {n} scales, B = 32": context(TWO, n, 32) for n in range(1, 6)},
    "2D, 4 scales, B = 128": context(TWO, 4, 128),
    "2D, 4 scales, B = 32, own places": context(TWO, 4, 32, n_places=2),
    "2D, 4 scales, B = 32, uint8": context(TWO, 4, 32, dtype="uint8"),
    "2D, 4 scales, B = 4, general path": context(TWO, 4, 4, specialise=False),
    "3D, 3 scales, B = 4": context(THREE, 3, 4),
    "3D, 3 scales, B = 16": context(THREE, 3, 16),
    "gather 2D, B = 32": lambda: gathered(TWO, 32),
    "gather 3D, B = 4": lambda: gathered(THREE, 4),
    "stitch 512 x 512, cropped": lambda: stitched("crop"),
    "stitch 512 x 512, blended": lambda: stitched("hann"),
    "sums, stride 4, B = 64": lambda: summed(squares=False),
    "sums and squares, stride 4, B = 64": lambda: summed(squares=True),
}


def row(reports: list[Report]) -> Iterator[str]:
    """Return the cells of launches taken together."""
    everything = sum(int(report.stats["runs"].sum()) for report in reports)
    folded = sum(int(report.of(*FOLDED)["runs"]) for report in reports)
    yield f"{everything:>13,}"
    yield f"{everything - folded:>13,}"
    for verb in ("ld", "st"):  # those without a space are to global memory, but not known to be
        names = [f"{verb}.{part}" for part in ("global", "b", "f", "s1", "s3", "s6", "u")]
        counts = [report.of(*names) for report in reports]
        sectors, requests = (sum(int(c[key]) for c in counts) for key in ("sectors", "active_runs"))
        yield f"{sectors:>11,}"
        yield f"{sectors / max(requests, 1):>6.2f}"
    for name in ("ld.shared", "st.shared"):
        counts = [report.of(name) for report in reports]
        waves, extra = (sum(int(c[key]) for c in counts) for key in ("waves", "extra_waves"))
        yield f"{100 * extra / max(waves - extra, 1):>6.1f} %"
    for key in ("bytes_loaded", "bytes_stored"):
        yield f"{sum(int(report.totals[key]) for report in reports):>12,}"


def main(word: str = "") -> None:
    """Print the table."""
    if problem := missing():
        raise SystemExit(problem)
    heads = ("instructions", "not folded", "load sectors", "each", "store sectors", "each",
             "bank +ld", "bank +st", "bytes read", "bytes written")  # fmt: skip
    print("case", *heads, sep=" | ")
    for name, run in CASES.items():
        if word in name:
            print(f"{name:36}", *row(run()), sep=" | ", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
