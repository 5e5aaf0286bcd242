"""Records which rows kernels ask for before they read them: ``python asked_rows.py FOLDER``.

A library is built in FOLDER whose `prefetch` notes addresses: results are the same whatever is
asked for, so that nothing else would tell.
"""

from __future__ import annotations

import ctypes
import sys
from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
from variants import compiled

from gpu_patch import ops, set_num_threads
from gpu_patch._host import library

# isort: split
from cases import Case

EDITS = [
    (
        "native.h",
        "constexpr int ROWS_AHEAD",
        "#include <vector>\ninline std::vector<const char*> asked;\nconstexpr int ROWS_AHEAD",
    ),
    (
        "native.h",
        "n_bytes = std::min(n_bytes,",
        "asked.push_back(from);\nn_bytes = std::min(n_bytes,",
    ),
    (
        "kernels.cpp",
        "EXPORT const char* source_digest()",
        "EXPORT int64 take_asked(const char** to) {\n"
        "    if (to) std::copy(asked.begin(), asked.end(), to), asked.clear();\n"
        "    return asked.size();\n"
        "}\n"
        "EXPORT const char* source_digest()",
    ),
]
ROWS_AHEAD = 32


def inside(patch: tuple[int, ...], dtype: str, n_channels: int) -> Case:
    """Make samples whose windows lie inside of their images."""
    case = Case.random(
        3, patch, 1, "reflect", n_samples=4, n_channels=n_channels, dtypes=[dtype] * 2, least=90,
        most=120,
    )  # fmt: skip
    return replace(case, sources=case.sources._replace(coords=np.abs(case.sources.coords) % 20))


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
    """Each row once, and the first ones of a sample while the one before it is made, too."""
    n_samples, n_channels = case.sources.shape
    found: Counter[int] = Counter()
    for sample, channel in product(range(n_samples), range(n_channels)):
        rows = rows_of(case, sample, channel)
        found.update(rows.ravel().tolist())
        if sample:
            found.update(rows[0, :ROWS_AHEAD].tolist())
    return found


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
    # across borders, nothing beside the images; and nothing that larger scales have read
    case = Case.random(5, (24, 32), 1, "wrap", n_samples=40, most=60)
    case.host_context(found)
    starts = np.array([image.ctypes.data for image in case.images])
    ends = starts + [image.nbytes for image in case.images]
    addresses = np.array([*asked()])
    assert len(addresses)
    assert ((addresses[:, None] >= starts) & (addresses[:, None] < ends)).any(axis=1).all()
    replace(inside((32, 32), "uint16", 2), n_scales=2).host_context(found)
    assert not asked()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
