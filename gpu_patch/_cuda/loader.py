"""Texts of the kernels, as NVRTC and the emulated tests compile them, and their machine code."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TypeAlias

import numpy as np

from gpu_patch.geometry import fir_taps

Constants: TypeAlias = Mapping[str, int]
"""Compile-time constants by macro name."""

OPTIONS = ("--std=c++17",)
"""Options of NVRTC."""
CUPY_OPTIONS = ("-ftz=true", "--device-as-default-execution-space")
"""What CuPy 14 adds to `OPTIONS`."""
COMPILED = Path(__file__).parent / "compiled"
"""Machine code that `precompile` made."""
FAST_SCALES = 5
"""Scales whose taps are known at compile time: 0 … 4."""


def source_text(name: str, constants: Constants) -> str:
    """Return the complete text of ``name.cu``: constants, taps, what all kernels share, itself.

    Compilers name the file and line of each part in their messages.
    """
    defines = "".join(f"#define {key} {value}\n" for key, value in constants.items())
    return defines + _taps_text() + _file_text("common.cuh") + _file_text(f"{name}.cu")


def binary_path(text: str, cuda_version: int, architecture: str) -> Path:
    """Return where the machine code of a text is, if it was compiled ahead.

    Parameters
    ----------
    text : str
        Complete text of the kernel: what was compiled from another one is never found.
    cuda_version : int
        As CUDA numbers it, 12090 for 12.9: drivers of one major version load each other's code.
    architecture : str
        "90" for compute capability 9.0.
    """
    digest = hashlib.sha256("\0".join((*OPTIONS, text)).encode()).hexdigest()[:32]
    return COMPILED / folder_name(cuda_version // 1000, architecture) / f"{digest}.cubin"


def folder_name(cuda_major: int, architecture: str) -> str:
    """Return the folder of the machine code for a CUDA and an architecture, "cuda12-sm_90"."""
    return f"cuda{cuda_major}-sm_{architecture}"


@cache
def _taps_text() -> str:
    lines = []
    for scale in range(1, FAST_SCALES):
        taps, offset = fir_taps(scale)
        # ten digits, of which nine tell every float32 from its neighbours
        values = ", ".join(f"{tap:.9e}f" for tap in taps.astype(np.float32))
        lines.append(f"#define FIR_TAPS_{scale} {values}\n#define FIR_OFFSET_{scale} ({offset})\n")
    return "".join(lines)


@cache
def _file_text(name: str) -> str:
    text = (Path(__file__).parent / name).read_text(encoding="utf-8")
    return f'#line 1 "{name}"\n{text}\n'
