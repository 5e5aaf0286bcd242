"""NVRTC by ctypes, from its wheel: compiles kernels where there is neither GPU nor driver."""

from __future__ import annotations

import ctypes
import re
import site
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path

from gpu_patch._cuda.lateral_context import N_THREADS
from gpu_patch._cuda.loader import source_text
from gpu_patch._cuda.specialised import Shape, tiled

WHEEL = "nvidia-cuda-nvrtc-cu12"
CHECKED = (70, 75, 80, 86, 89, 90)
"""Architectures to compile for, where NVRTC still knows them; the newest comes on top."""
_PLACES = ("nvidia/cuda_nvrtc/lib/libnvrtc.so.*", "nvidia/cu13/lib/libnvrtc.so.*")


@dataclass(frozen=True)
class Report:
    """What ptxas says of a kernel."""

    registers: int
    spill_bytes: int
    stack_bytes: int
    log: str


@cache
def library() -> ctypes.CDLL | None:
    """Return NVRTC, None where its wheel is not installed."""
    for packages in map(Path, site.getsitepackages()):
        for pattern in _PLACES:
            for found in sorted(packages.glob(pattern)):
                return ctypes.CDLL(str(found), mode=ctypes.RTLD_GLOBAL)
    return None


def version() -> str:
    major, minor = ctypes.c_int(), ctypes.c_int()
    library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return f"{major.value}.{minor.value}"


@cache
def architectures() -> list[int]:
    """Compute capabilities that this NVRTC knows, 90 for 9.0."""
    nvrtc, count = library(), ctypes.c_int()
    nvrtc.nvrtcGetNumSupportedArchs(ctypes.byref(count))
    found = (ctypes.c_int * count.value)()
    nvrtc.nvrtcGetSupportedArchs(found)
    return sorted(found)


def compile_text(text: str, name: str, architecture: int) -> Report:
    """Compile to machine code with the options of `CupyRuntime`, and ask ptxas for its report."""
    log, _ = _compile(text, name, architecture)
    return Report(
        registers=max(map(int, re.findall(r"Used (\d+) registers", log))),
        spill_bytes=sum(map(int, re.findall(r"(\d+) bytes spill", log))),
        stack_bytes=sum(map(int, re.findall(r"(\d+) bytes stack frame", log))),
        log=log,
    )


def compile_to_binary(text: str, name: str, architecture: int) -> bytes:
    """Compile to machine code."""
    return _compile(text, name, architecture)[1]


def _compile(text: str, name: str, architecture: int) -> tuple[str, bytes]:
    """Return the compiler's messages, and the machine code."""
    nvrtc = library()
    options = [
        f"--gpu-architecture=sm_{architecture}",
        "--std=c++17",
        "--ptxas-options=-v",
    ]
    program = ctypes.c_void_p()
    nvrtc.nvrtcCreateProgram(
        ctypes.byref(program), text.encode(), f"{name}.cu".encode(), 0, None, None
    )
    try:
        arguments = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        failed = nvrtc.nvrtcCompileProgram(program, len(options), arguments)
        size = ctypes.c_size_t()
        nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        nvrtc.nvrtcGetProgramLog(program, buffer)
        # that NVRTC will drop an architecture some day is no fault of the kernel
        lines = buffer.value.decode().splitlines()
        log = "\n".join(line for line in lines if "are deprecated and may be" not in line)
        if failed:
            raise RuntimeError(f"{name}.cu does not compile for sm_{architecture}:\n{log}")
        nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size))
        binary = ctypes.create_string_buffer(size.value)
        nvrtc.nvrtcGetCUBIN(program, binary)
        return log, binary.raw
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def main_specialisations() -> dict[str, Shape]:
    """Cases that MicroSplit trains on, as the launch code would choose them."""
    two, three = (1, 64, 64), (16, 64, 64)
    uint16, float32, reflect, wrap = 3, 6, 1, 2
    shapes = {
        "2D C2 L4 uint16": (2, two, 4, 2, 1, uint16, reflect, 0),
        "2D C2 L3 float32": (2, two, 3, 2, 1, float32, wrap, 0),
        "2D C1 L3 uint16 to float16": (2, two, 3, 1, 1, uint16, reflect, 1),
        "2D C2 L4, own places": (2, two, 4, 2, 2, uint16, reflect, 0),
        "2D C4 L5 uint16": (2, (1, 128, 128), 5, 4, 1, uint16, reflect, 0),
        "2D C6 L4 uint16": (2, two, 4, 6, 1, uint16, reflect, 0),
        "2D C4 L5 float32, own places": (2, two, 5, 4, 4, float32, reflect, 0),
        "3D C4 L4, own places": (3, three, 4, 4, 4, uint16, reflect, 0),
        "3D C2 L3 uint16": (3, three, 3, 2, 1, uint16, reflect, 0),
        "3D C2 L3, own places": (3, three, 3, 2, 2, uint16, reflect, 0),
    }
    return {name: tiled(*arguments) for name, arguments in shapes.items()}


def main() -> None:
    """Print registers, shared memory and spills of all kernels."""
    print(f"NVRTC {version()}: registers, +bytes spilled, per architecture")
    chosen = [a for a in CHECKED if a in architectures()] + [architectures()[-1]]
    print(f"{'':32}{'shared':>7}", *(f"{f'sm_{a}':>8}" for a in chosen))
    rows = [("gather", "gather", {}, 0)]
    rows.append(("stitch, blended", "stitch", {"TILE_TYPE": 6}, 0))
    rows.append(("stitch, cropped", "stitch", {"TILE_TYPE": 6, "EXCLUSIVE": 1}, 0))
    rows.append(("moments", "moments", {"VALUE_TYPE": 6}, 0))
    rows.append(("general", "lateral_context", {"N_THREADS": N_THREADS}, 22792))
    for name, shape in main_specialisations().items():
        rows.append((name, "specialised", shape.constants, shape.shared_bytes))
    for (name, file, constants, shared), epilogue in product(rows, ({}, {"EPILOGUE": 1})):
        if epilogue and file in ("stitch", "moments"):
            continue
        text = source_text(file, constants | epilogue)
        reports = [compile_text(text, file, a) for a in chosen]
        found = [f"{r.registers}{f'+{r.spill_bytes}' if r.spill_bytes else ''}" for r in reports]
        title = "  with an epilogue" if epilogue else name
        print(f"{title:32}{shared:>7}", *(f"{cell:>8}" for cell in found), flush=True)


if __name__ == "__main__":
    main()
