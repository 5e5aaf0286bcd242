"""NVRTC by ctypes, from its wheel: compiles kernels where there is neither GPU nor driver."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import site
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path

from gpu_patch._cuda.lateral_context import N_THREADS
from gpu_patch._cuda.loader import CUPY_OPTIONS, OPTIONS, source_text
from gpu_patch._cuda.specialised import Shape, tiled

WHEEL = "nvidia-cuda-nvrtc-cu12"
FOLDER_VARIABLE = "GPU_PATCH_NVRTC"
"""Environment variable with a folder of packages to look for NVRTC in before all others."""
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
    for packages in filter(None, (os.environ.get(FOLDER_VARIABLE), *site.getsitepackages())):
        for pattern in _PLACES:
            for found in sorted(Path(packages).glob(pattern)):
                # found by its name when it is there: 13 does not look beside itself
                for builtins in found.parent.glob("libnvrtc-builtins.so.*"):
                    ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
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
    """Compile to machine code as CuPy does, and ask ptxas for its report."""
    log, _ = _compile(text, name, architecture)
    return Report(
        registers=max(map(int, re.findall(r"Used (\d+) registers", log))),
        spill_bytes=sum(map(int, re.findall(r"(\d+) bytes spill", log))),
        stack_bytes=sum(map(int, re.findall(r"(\d+) bytes stack frame", log))),
        log=log,
    )


def compile_to_ptx(text: str, architecture: int, folder: Path) -> str:
    """Compile to PTX, or take what an earlier process has made of the same text from a folder."""
    key = "\0".join([version(), str(architecture), *OPTIONS, *CUPY_OPTIONS, text])
    kept = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:20]}.ptx"
    if not kept.exists():
        unfinished = kept.with_suffix(f".{os.getpid()}")
        made = _compile(text, "kernel", architecture, ptx=True)[1]
        unfinished.write_bytes(made.rstrip(b"\0"))
        unfinished.replace(kept)
    return kept.read_text()


def _compile(text: str, name: str, architecture: int, ptx: bool = False) -> tuple[str, bytes]:
    """Return the compiler's messages, and machine code or PTX."""
    nvrtc = library()
    target, result = ("compute", "PTX") if ptx else ("sm", "CUBIN")
    options = [f"--gpu-architecture={target}_{architecture}", *OPTIONS, *CUPY_OPTIONS]
    options.append("--generate-line-info" if ptx else "--ptxas-options=-v")
    program = ctypes.c_void_p()
    nvrtc.nvrtcCreateProgram(
        ctypes.byref(program), text.encode(), f"{name}.cu".encode(), 0, None, None
    )

    def output(what: str) -> bytes:
        size = ctypes.c_size_t()
        getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        getattr(nvrtc, f"nvrtcGet{what}")(program, buffer)
        return buffer.raw

    try:
        arguments = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        failed = nvrtc.nvrtcCompileProgram(program, len(options), arguments)
        # that NVRTC will drop an architecture some day is no fault of the kernel
        lines = output("ProgramLog").rstrip(b"\0").decode().splitlines()
        log = "\n".join(line for line in lines if "are deprecated and may be" not in line)
        if failed:
            raise RuntimeError(f"{name}.cu does not compile for sm_{architecture}:\n{log}")
        return log, output(result)
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def main_specialisations(*, paged: bool = False) -> dict[str, Shape]:
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
    return {name: tiled(*arguments, paged=paged) for name, arguments in shapes.items()}


def main() -> None:
    """Print registers, shared memory and spills of all kernels."""
    print(f"NVRTC {version()}: registers, +bytes spilled, per architecture")
    chosen = [a for a in CHECKED if a in architectures()] + [architectures()[-1]]
    print(f"{'':32}{'shared':>7}", *(f"{f'sm_{a}':>8}" for a in chosen))
    rows = [("gather", "gather", {}, 0)]
    rows.append(("stitch, blended", "stitch", {"TILE_TYPE": 6}, 0))
    rows.append(("stitch, cropped", "stitch", {"TILE_TYPE": 6, "EXCLUSIVE": 1}, 0))
    rows.append(("sums", "stitch", {"TILE_TYPE": 6, "SUMS": 1}, 0))
    rows.append(("sums and squares", "stitch", {"TILE_TYPE": 6, "SUMS": 2}, 0))
    rows.append(("means and deviations", "means", {"SQUARES": 1}, 0))
    rows.append(("moments", "moments", {"VALUE_TYPE": 6}, 0))
    rows.append(("general", "lateral_context", {"N_THREADS": N_THREADS}, 24072))
    for name, shape in main_specialisations().items():
        rows.append((name, "specialised", shape, shape.shared_bytes))
    for (name, file, case, shared), epilogue in product(rows, (False, True)):
        if epilogue and file in ("stitch", "means", "moments"):
            continue
        if isinstance(case, Shape):
            constants = case.macros(epilogue, case.most_records(1, epilogue))
        else:
            constants = case | ({"EPILOGUE": 1} if epilogue else {})
        text = source_text(file, constants)
        reports = [compile_text(text, file, a) for a in chosen]
        found = [f"{r.registers}{f'+{r.spill_bytes}' if r.spill_bytes else ''}" for r in reports]
        title = "  with an epilogue" if epilogue else name
        print(f"{title:32}{shared:>7}", *(f"{cell:>8}" for cell in found), flush=True)


if __name__ == "__main__":
    main()
