"""Counts the instructions of the fast path: ``python tests/cuda/instructions.py [ARCHITECTURE]``.

Where no GPU is at hand, this says what one would have to do: the loop that reads the pixels is
found in the machine code, and how often it runs follows from the sizes. Needs the wheels of NVRTC
and of nvdisasm (``pip install nvidia-cuda-nvrtc-cu12 nvidia-cuda-nvdisasm``).
"""

from __future__ import annotations

import re
import shutil
import site
import subprocess
import sys
import tempfile
from collections import Counter
from math import prod
from pathlib import Path

import nvrtc

from gpu_patch._cuda.loader import source_text
from gpu_patch._cuda.specialised import MANY_SAMPLES, Shape, tiled
from gpu_patch.geometry import fir_taps

MULTIPROCESSORS, ISSUED_PER_CYCLE, GIGAHERTZ = 132, 4, 1.755
"""Of an H200: warp instructions per cycle and multiprocessor; an assumed clock."""
CASES = {
    "2D, B = 32": ((1, 64, 64), 4, 32),
    "2D, B = 256": ((1, 64, 64), 4, 256),
    "3D, B = 16": ((16, 64, 64), 3, 16),
}


def disassembler() -> str:
    """Return the path of nvdisasm."""
    for packages in map(Path, site.getsitepackages()):
        for found in packages.glob("nvidia/**/bin/nvdisasm"):
            return str(found)
    if found := shutil.which("nvdisasm"):
        return found
    raise SystemExit("needs nvdisasm: pip install nvidia-cuda-nvdisasm")


def instructions(shape: Shape, architecture: int) -> tuple[list[str], dict[str, int]]:
    """Return the instructions of a kernel, and where its labels are."""
    text = source_text("specialised", shape.constants)
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder, "kernel.cubin")
        binary.write_bytes(nvrtc.compile_to_binary(text, "specialised", architecture))
        listing = subprocess.run(
            [disassembler(), "-c", str(binary)], check=True, capture_output=True, text=True
        ).stdout
    found, labels = [], {}
    for line in listing.splitlines():
        if label := re.match(r"(\.L\S+):", line):
            labels[label[1]] = len(found)
        elif instruction := re.match(r"\s+/\*[0-9a-f]+\*/\s+(.*?);", line):
            found.append(instruction[1].strip())
    return found, labels


def loops(found: list[str], labels: dict[str, int]) -> list[list[str]]:
    """Return the bodies of the innermost loops, as they come."""
    ends = []
    for last, instruction in enumerate(found):
        target = re.search(r"BRA.*`\((\.L\S+)\)", instruction)
        if target and labels.get(target[1], last + 1) <= last:
            ends.append((labels[target[1]], last))
    innermost = [
        (a, b) for a, b in ends if not any((a, b) != (c, d) and a <= c and d <= b for c, d in ends)
    ]
    return [found[a : b + 1] for a, b in sorted(innermost)]


def kinds(body: list[str]) -> Counter[str]:
    """Count the instructions of a loop by name."""
    return Counter(re.sub(r"^@!?U?P\d+\s+", "", text).split()[0].split(".")[0] for text in body)


def main(architecture: int = 90) -> None:
    """Print a table."""
    print(f"sm_{architecture}, uint16, two channels; the loops that read pixels, and no more")
    for name, (patch, n_scales, batch) in CASES.items():
        n_dims = 3 if patch[0] > 1 else 2
        many = batch >= MANY_SAMPLES[n_dims]
        shape = tiled(n_dims, patch, n_scales, 2, 1, 3, 1, 0, many)
        found, labels = instructions(shape, architecture)
        reading = [body for body in loops(found, labels) if kinds(body)["LDG"] >= 4]
        total = 0
        print(f"{name}: {shape.tile_rows} rows a thread, {shape.n_threads} threads a block")
        # the largest scale comes first, and of each the loop over columns taken together
        bodies = iter(reading)
        for scale in range(n_scales - 1, 0, -1):
            factor = 1 << scale
            live = -(-len(fir_taps(scale)[0]) // factor)
            strips = 1 if shape.n_dims == 3 else 1 << n_scales - 1 - scale
            together = max(1, min(4, patch[2] * factor // (shape.n_threads // strips)))
            body = next(b for b in bodies if kinds(b)["LDG"] == 2 * together * factor)
            pixels = together * factor
            n_taps = len(fir_taps(scale)[0])
            cuts = zip(patch, (shape.tile_z, shape.tile_rows * strips, shape.tile_x), strict=True)
            tiles = prod(-(-side // tile) for side, tile in cuts)
            slices = 1 if shape.n_dims == 2 else (shape.tile_z - 1) * factor + n_taps
            groups = shape.tile_rows - 1 + live
            warps = shape.n_threads / 32 * tiles * slices * groups * batch
            total += warps * len(body)
            print(
                f"  scale {scale}: {len(body) / pixels:5.1f} instructions a mixed pixel "
                f"({', '.join(f'{n} {kind}' for kind, n in kinds(body).most_common(6))})"
            )
        cycles = total / MULTIPROCESSORS / ISSUED_PER_CYCLE
        print(
            f"  {total / 1e6:.1f} million warp instructions a batch: at least {cycles:,.0f} cycles "
            f"of {MULTIPROCESSORS} multiprocessors, {cycles / GIGAHERTZ / 1e3:.0f} µs at "
            f"{GIGAHERTZ} GHz"
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
