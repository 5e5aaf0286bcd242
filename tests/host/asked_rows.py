"""Records which rows kernels ask for before they read them: ``python asked_rows.py FOLDER``.

A library is built in FOLDER that notes which lines of memory it asks for: results are the same
whatever that is, so that nothing else would tell.
"""

from __future__ import annotations

import ctypes
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
from variants import HOW_SUMS_ARE_KEPT, compiled

from gpu_patch import ops, set_num_threads
from gpu_patch._host import library

# isort: split
from cases import Case

EDITS = [
    (
        "rows.h",
        "template <int CACHE> static ALWAYS_INLINE void ask_for_line",
        "inline std::vector<const char*> asked;\n"
        "template <int CACHE> static ALWAYS_INLINE void ask_for_line",
    ),
    ("native.h", "prefetch<3>(", "++n_native, prefetch<3>("),
    ("native.h", "constexpr int ROWS_AHEAD", "inline int n_native = 0;\nconstexpr int ROWS_AHEAD"),
    ("rows.h", "#include <algorithm>", "#include <algorithm>\n#include <vector>"),
    ("rows.h", "__builtin_prefetch(at, 0, CACHE);", "asked.push_back(at);"),
    (*HOW_SUMS_ARE_KEPT, "inline bool IN_REGISTERS = false;"),
    (
        "kernels.cpp",
        "EXPORT const char* source_digest()",
        "EXPORT int64 take_asked(const char** to) {\n"
        "    if (to) std::copy(asked.begin(), asked.end(), to), asked.clear();\n"
        "    return asked.size();\n"
        "}\n"
        "EXPORT int n_of_native_scale() { return n_native; }\n"
        "EXPORT void sum_in_registers(int whether) { IN_REGISTERS = whether; }\n"
        "EXPORT const char* source_digest()",
    ),
]
ROWS_AHEAD = 32
BYTES_ASKED = 512
LINE = 64


def inside(
    patch: tuple[int, ...], dtype: str, n_channels: int, n_scales: int = 1, **others: int
) -> Case:
    """Make samples whose windows lie inside of their images."""
    case = Case.random(
        3, patch, n_scales, "reflect", n_samples=4, n_channels=n_channels, dtypes=[dtype] * 2,
        least=90, most=120, **others,
    )  # fmt: skip
    least = max(patch) * (2 ** (n_scales - 1) - 1)
    coords = least + np.abs(case.sources.coords) % (20 if n_scales == 1 else 10)
    return replace(case, sources=case.sources._replace(coords=coords))


def rows_of(case: Case, sample: int, channel: int) -> np.ndarray:
    """Return the addresses of a window's rows, (Z, Y)."""
    image_idx, sample_idx, coords, channels = case.sources
    pixels = case.images[image_idx[sample, 0]][sample_idx[sample, 0], channels[channel]]
    pixels = pixels.reshape(-1, *pixels.shape[-2:])
    z, y, x = (0, *coords[sample, 0])[-3:]
    depth, height, _ = (1, *case.patch_size)[-3:]
    rows = z + np.arange(depth)[:, None], y + np.arange(height)
    offsets = rows[0] * pixels.strides[0] + rows[1] * pixels.strides[1] + x * pixels.strides[2]
    return pixels.ctypes.data + offsets


def expected(case: Case) -> Counter[int]:
    """Return what patches ask for: each row, and the first ones with the sample before, too."""
    n_samples, n_channels = case.sources.shape
    found: Counter[int] = Counter()
    for sample, channel in product(range(n_samples), range(n_channels)):
        rows = rows_of(case, sample, channel)
        image = case.images[case.sources.image_idx[sample, 0]]
        n_bytes = min(BYTES_ASKED, case.patch_size[-1] * image.itemsize)
        steps = np.array([*range(0, n_bytes, LINE), n_bytes - 1])
        for those in [rows.ravel()] + [rows[0, :ROWS_AHEAD]] * (sample > 0):
            found.update((those[:, None] + steps).ravel().tolist())
    return found


def context_lines(case: Case) -> set[int]:
    """Return the lines of memory that the second scale of 2D patches reads."""
    image_idx, sample_idx, coords, channels = case.sources
    found: set[int] = set()
    for sample, channel in product(range(len(coords)), range(len(channels))):
        place = channel if coords.shape[1] > 1 else 0
        image = case.images[image_idx[sample, place]]
        pixels = image[sample_idx[sample, place], channels[channel]]
        axes = []
        for size, n, at in zip(pixels.shape, case.patch_size, coords[sample, place], strict=True):
            places = np.abs(at + n // 2 - n + np.arange(2 * n))  # mirrored at both ends
            axes.append(np.minimum(places, 2 * (size - 1) - places))
        first = pixels.ctypes.data + axes[0][:, None] * pixels.strides[0]
        addresses = first + axes[1] * pixels.strides[1]
        for byte in (0, image.itemsize - 1):
            found.update(((addresses + byte) // LINE).ravel().tolist())
    return found


def are_inside(found: Counter[int], images: Sequence[np.ndarray]) -> bool:
    """Whether addresses are those of pixels."""
    starts = np.array([image.ctypes.data for image in images])
    ends = starts + [image.nbytes for image in images]
    addresses = np.array([*found])[:, None]
    return bool(((addresses >= starts) & (addresses < ends)).any(axis=1).all())


def main(folder: Path) -> None:
    found = compiled(folder, ["-O1"], EDITS)
    take = found._functions.take_asked
    take.restype, take.argtypes = ctypes.c_int64, [ctypes.c_void_p]

    def asked() -> Counter[int]:
        addresses = np.zeros(take(None), np.int64)
        take(addresses.ctypes.data)
        return Counter(addresses.tolist())

    set_num_threads(1)
    patches = [(64, 64), (40, 24), (16, 32), (33, 7), (5, 16, 32), (2, 48, 64)]
    for (patch, dtype), n_channels in product(product(patches, ["uint16", "bool"]), [1, 2, 3]):
        case = inside(patch, dtype, n_channels)
        first = case.epilogue(mixed=True)
        turns = [0, 2, 4, 6] + ([1, 3] if patch[-1] == patch[-2] else [])
        for turn in (None, *turns):
            mixed = patched = None
            if turn is not None:
                orientation = np.full(len(case.weights), turn, np.uint8)
                mixed = replace(first, orientation=orientation)
                patched = replace(case.epilogue(mixed=False), orientation=orientation)
            wanted = expected(case)
            case.host_context(found, epilogue=mixed)
            assert asked() == wanted, (patch, dtype, n_channels, turn)
            with library.computing(found):
                ops.gather(case.images, case.sources, patch, mode="reflect", epilogue=patched)
            assert asked() == wanted, (patch, dtype, n_channels, turn)
    # across borders, nothing beside the images
    case = Case.random(5, (24, 32), 1, "wrap", n_samples=40, most=60)
    case.host_context(found)
    addresses = asked()
    assert addresses
    assert are_inside(addresses, case.images)
    for in_registers in (False, True):
        found._functions.sum_in_registers(in_registers)
        contexts(found, asked)


def contexts(found: library.Library, asked: Callable[[], Counter[int]]) -> None:
    """What larger scales read is asked for, and nothing else: not again for the native scale."""
    n_before = found._functions.n_of_native_scale()
    for (patch, dtype), n_places in product(
        product([(16, 16), (24, 16), (5, 16)], ["uint8", "uint16", "float32"]), [1, 2]
    ):
        case = inside(patch, dtype, 2, 2, n_places=n_places)
        case.host_context(found)
        assert {at // LINE for at in asked()} == context_lines(case), (patch, dtype, n_places)
    # across borders, of types that become floats
    for seed, dtypes in enumerate([["uint16"], ["uint8", "float32"], ["bool"]]):
        for n_places in (1, 2):
            case = Case.random(
                seed, (33, 80), 2, "reflect", n_samples=6, n_places=n_places, dtypes=dtypes,
                least=165, most=300,
            )  # fmt: skip
            sizes = np.array([image.shape[2:] for image in case.images])[case.sources.image_idx]
            coords = np.abs(case.sources.coords) % (sizes - case.patch_size)
            case = replace(case, sources=case.sources._replace(coords=coords))
            case.host_context(found)
            addresses, wanted = asked(), context_lines(case)
            lines = {at // LINE for at in addresses}
            assert lines >= wanted, (dtypes, n_places)
            # vectors may go beyond the last column
            assert lines <= wanted | {line + 1 for line in wanted}, (dtypes, n_places)
            assert are_inside(addresses, case.images), (dtypes, n_places)
    assert found._functions.n_of_native_scale() == n_before


if __name__ == "__main__":
    main(Path(sys.argv[1]))
