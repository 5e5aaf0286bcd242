"""Compiles the kernels of common cases ahead: ``python -m gpu_patch._cuda.precompile``.

For container images and cluster installations, so that the first batch on a new machine does not
wait. Needs CuPy and NVRTC, but neither GPU nor driver. What is not among these cases, CuPy
compiles when it is first used and keeps in its own cache.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path

import numpy as np

from gpu_patch._cuda.lateral_context import N_THREADS
from gpu_patch._cuda.loader import COMPILED, CUPY_OPTIONS, OPTIONS, binary_path, source_text
from gpu_patch._cuda.specialised import MANY_SAMPLES, tiled
from gpu_patch.device import import_cupy
from gpu_patch.table import EPILOGUE, MODES, PIXEL_TYPES

ARCHITECTURES = ("70", "75", "80", "86", "89", "90", "100", "120")
"""V100, T4, A100, RTX 30, L4 and RTX 40, H100 and H200, B200, RTX 50, as far as the compiler knows
them."""
_PATCHES = {2: (1, 64, 64), 3: (16, 64, 64)}
_SCALES = {2: (2, 3, 4), 3: (3,)}
_CHANNELS_AND_PLACES = ((1, 1), (2, 1), (2, 2))
"""One channel; two channels of one place; two channels of a place each."""
_PIXELS = ("uint16", "float32")


def common_texts() -> Iterator[str]:
    """Yield the kernels that serve any case, and those of what MicroSplit mostly trains on."""
    for epilogue in ({}, EPILOGUE):
        yield source_text("gather", epilogue)
        yield source_text("lateral_context", {"N_THREADS": N_THREADS, **epilogue})
        yield from _specialised_texts(bool(epilogue))


def _specialised_texts(epilogue: bool) -> Iterator[str]:
    macros = []
    for n_dims, patch in _PATCHES.items():
        for n_scales, channels_and_places, pixels, n_samples in product(
            _SCALES[n_dims], _CHANNELS_AND_PLACES, _PIXELS, _batch_sizes(MANY_SAMPLES[n_dims])
        ):
            shape = tiled(
                n_dims,
                patch,
                n_scales,
                *channels_and_places,
                PIXEL_TYPES[np.dtype(pixels)],
                MODES.index("reflect"),
                half_output=0,
                many_samples=n_samples >= MANY_SAMPLES[n_dims],
            )
            if shape is not None:
                macros.append(shape.macros(epilogue, shape.most_records(n_samples, epilogue)))
    for constants in {tuple(each.items()): each for each in macros}.values():
        yield source_text("specialised", constants)


def _batch_sizes(many: int) -> tuple[int, ...]:
    """Return one of each kind: blocks are small or large, tables parameters or uploaded."""
    return 1, many - 1, many, 10 * many


def precompile(architectures: Sequence[str] | None = None) -> int:
    """Compile the common cases into the package's folder.

    Parameters
    ----------
    architectures : sequence of str or None, default None
        "90" for compute capability 9.0; None for the `ARCHITECTURES` that the compiler knows.

    Returns
    -------
    int
        How many kernels were compiled.
    """
    cupy = import_cupy()
    cuda_version, nvrtc_version = (
        cupy.cuda.runtime.runtimeGetVersion(),
        cupy.cuda.nvrtc.getVersion(),
    )
    if nvrtc_version[0] != cuda_version // 1000:  # of two installed, CuPy takes the newer one
        raise RuntimeError(
            f"CuPy is built for CUDA {cuda_version // 1000}, but finds NVRTC "
            f"{'.'.join(map(str, nvrtc_version))}, whose code older drivers do not load: see what "
            "gpu-patch info says"
        )
    known = set(map(str, cupy.cuda.nvrtc.getSupportedArchs()))
    chosen = architectures or [a for a in ARCHITECTURES if a in known]
    if unknown := [a for a in chosen if a not in known]:
        raise ValueError(
            f"architectures must be among {', '.join(sorted(known, key=int))}, "
            f"found {', '.join(unknown)}"
        )
    jobs = [
        (text, architecture, binary_path(text, cuda_version, architecture))
        for text, architecture in product(common_texts(), chosen)
    ]
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(_compile, *zip(*jobs, strict=True), chunksize=4))
    return len(jobs)


def _compile(text: str, architecture: str, path: Path) -> None:
    # not CuPy's own function, which asks the current device
    nvrtc = import_cupy().cuda.nvrtc
    program = nvrtc.createProgram(text, "kernel.cu", (), ())
    try:
        options = (*OPTIONS, *CUPY_OPTIONS, f"-arch=sm_{architecture}")
        nvrtc.compileProgram(program, options)
        binary = nvrtc.getCUBIN(program)
    except nvrtc.NVRTCError as error:
        log = nvrtc.getProgramLog(program)
        raise RuntimeError(f"no kernel for sm_{architecture} ({error}): {log}") from None
    finally:
        nvrtc.destroyProgram(program)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(binary)


def main() -> None:
    """Compile for the architectures named, or the common ones."""
    start = time.perf_counter()
    n_kernels = precompile(sys.argv[1:])
    size = sum(path.stat().st_size for path in COMPILED.rglob("*.cubin"))
    print(
        f"{n_kernels} kernels, {size / 1e6:.0f} MB in {COMPILED}, "
        f"{time.perf_counter() - start:.0f} s"
    )


if __name__ == "__main__":
    main()
