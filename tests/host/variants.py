"""The CPU's kernels built from edited sources or with other flags, and cases of every path."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "cuda")]

import numpy as np  # noqa: E402
from cases import DTYPES, MODES, Case  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from tilings import Tiling  # noqa: E402

from gpu_patch import ops  # noqa: E402
from gpu_patch._host import build, library  # noqa: E402
from gpu_patch._host.cells import count_marked, count_near, entropies, mean_and_deviation  # noqa: E402
from gpu_patch._host.draws import draw  # noqa: E402
from gpu_patch.draws import DrawPurpose, DrawSpec, counter_words  # noqa: E402

SOURCES = build.HERE
HOW_SUMS_ARE_KEPT = ("filters.h", "constexpr bool IN_REGISTERS = W == 16;")
"""What edits replace by another rule, since only the widest vectors are summed in registers."""
SUMS_IN_REGISTERS = (*HOW_SUMS_ARE_KEPT, "constexpr bool IN_REGISTERS = true;")
"""The edit by which narrow vectors are summed as the widest are, on any processor."""


def compiled(
    folder: Path, flags: Sequence[str], edits: Sequence[tuple[str, str, str]] = ()
) -> library.Library:
    """Build for the narrowest instruction set that there is here; an edit is file, old, new."""
    sources = folder / "gpu_patch" / "_host"
    shutil.copytree(SOURCES, sources, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    shutil.copytree(SOURCES.parent / "_cuda", sources.parent / "_cuda")
    for name, before, after in edits:
        text = (sources / name).read_text()
        assert before in text, (name, before)
        (sources / name).write_text(text.replace(before, after))
    level = library.supported()[-1]
    # a sanitizer that is loaded into this process has no business in the compiler
    os.environ.pop("LD_PRELOAD", None)
    build.HERE = sources
    build.LEVELS = {build.machine(): {level: build.LEVELS[build.machine()][level]}}
    build.build(folder, build.compilers()[0], flags=flags)
    return library.Library(level, build.library_path(level, folder))


def cases() -> Iterator[Case]:
    """All types, modes, places; sizes beside those of vectors, images smaller and larger."""
    for seed, (patch, n_scales, n_channels, own, most) in enumerate(
        [
            ((64, 64), 4, 2, False, 700),
            ((33, 17), 3, 2, True, 40),
            ((5, 70), 3, 1, False, 30),
            ((19, 3), 5, 3, True, 400),
            ((1, 1), 6, 2, False, 9),
            ((2, 3), 7, 2, False, 200),
            ((40, 36), 1, 4, True, 90),
            ((21, 21), 2, 2, False, 50),
            ((5, 9, 20), 3, 2, False, 60),
            ((3, 9, 9), 2, 2, True, 30),
            ((3, 17, 8), 2, 1, False, 9),
            ((2, 3, 5), 4, 3, True, 30),
        ]
    ):
        for i, mode in enumerate(MODES):
            dtypes = DTYPES if seed % 2 else [DTYPES[(seed + 2 * i) % len(DTYPES)]]
            yield Case.random(
                seed, patch, n_scales, mode, n_samples=3, n_channels=n_channels,
                n_places=n_channels if own else 1, dtypes=dtypes, most=most,
            )  # fmt: skip
    # windows most of which lie inside, of whole vectors, of the types whose rows are read in place
    for seed, dtype in enumerate(("uint8", "uint16", "float32")):
        for n_channels in (1, 2):
            yield Case.random(
                seed, (32, 32), 1, MODES[seed], n_samples=8, n_channels=n_channels, dtypes=[dtype],
                least=100, most=300,
            )  # fmt: skip
    # squares that turn by some rows at a time, whole vectors of them and less
    for seed, (side, n_channels) in enumerate([(96, 1), (80, 2), (70, 1), (150, 4)]):
        yield Case.random(
            seed, (side, side), 1, MODES[seed % 3], n_samples=8, n_channels=n_channels,
            dtypes=["uint16"], least=150, most=200,
        )  # fmt: skip
    # threads share samples of 40 rows: 20 each, which are no whole vectors
    yield Case.random(
        1, (40, 40), 1, "reflect", n_samples=8, n_channels=2, dtypes=["uint16"], least=100, most=300
    )  # fmt: skip
    yield Case.random(
        0, (24, 36), 3, "reflect", n_samples=8, n_places=2, least=300, most=500
    )  # fmt: skip
    yield Case.random(
        0, (32, 32), 1, "wrap", n_samples=8, n_places=2, dtypes=["uint8", "uint16", "float32"],
        least=100, most=300,
    )  # fmt: skip


def stitched() -> Iterator[np.ndarray]:
    """What tiles become, of every blend, stitched and summed twice: through rings that end."""
    for seed, (size, patch, overlaps, blend, slab_axis, n_channels, dtype) in enumerate(
        [
            ((500, 900), (180, 400), (40, 30), "hann", 0, 2, "float32"),  # enough for threads
            ((37, 50), (16, 12), (5, 7), "crop", 1, 1, "float16"),
            ((11, 9, 13), (4, 5, 6), (2, 1, 4), "gaussian", 2, 2, "float16"),
            ((9, 30, 21), (4, 16, 20), (3, 9, 2), "hann", 0, 1, "float32"),
        ]
    ):
        tiling = Tiling(size, patch, overlaps, blend, slab_axis, n_channels, dtype, seed)
        n, most = tiling.grid.n_tiles, 3 if seed else 8
        counts = [most] * (n // most) + [1] * (n % most)
        yield tiling.through_a_ring(counts, ops.stitch)
        for squares in (False, True):
            shape = (n_channels * (1 + squares), *size)
            sums, out = np.full(shape, np.nan), np.full(shape, np.nan, np.float32)
            for again in (False, True):
                segment = tiling.segment(sums)
                ops.accumulate(tiling.tiles, [segment], squares=squares, again=again)
            rows = (0, size[slab_axis])
            ops.means(sums, tiling.grid, rows, out, n_samples=2, squares=squares)
            yield out


def drawn_and_measured(found: library.Library) -> Iterator[NDArray[Any]]:
    """Random numbers, and what background filters measure of cells."""
    words = counter_words([DrawSpec(DrawPurpose.WEIGHT, 3, 3)])
    yield draw(found, words, 2**63 + 5, 7, np.array([0, 3, 2**40 + 1]))
    for shape in [(5, 4), (7, 33), (3, 8, 6)]:
        cells = np.random.default_rng(0).normal(size=(20, *shape)).astype(np.float32)
        cells += np.linspace(-3, 3, 20, dtype=np.float32).reshape(-1, *(1 for _ in shape))
        cells[3, ..., 0], cells[4] = 0.5, 0.5
        for threshold in (0.5, -0.5):
            yield from count_near(found, cells, threshold)
        yield from mean_and_deviation(found, cells)
        repeated = np.round(cells)  # zeros of both signs among them
        repeated[7].reshape(-1)[7] = 0.5  # by itself
        repeated[8, ..., :2] = np.array([0x7FC00001, 0xFFC00000], np.uint32).view(np.float32)
        repeated[9, ..., -1] = 9
        repeated[10, ..., -1] = 5000
        repeated[11:13] *= np.float32(2.0**40)
        repeated[13, ..., 0] = -np.inf
        many = np.random.default_rng(1).integers(-900, 900, (3, 64, 64)).astype(np.float32) / 8
        for those in (cells, repeated, many, 8 * many):
            yield entropies(found, those)
            yield count_marked(found, those)
