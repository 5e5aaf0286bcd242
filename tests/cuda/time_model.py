"""Prints what batches should take on some devices, by a model: ``python tests/cuda/time_model.py``.

The model is `gpu_patch.cli.bench.model`, which ``gpu-patch bench --device cuda`` prints beside what
it measures; here with the devices' figures as their makers state them.
"""

from __future__ import annotations

from math import prod

from gpu_patch.cli.bench.model import Gpu, predict, shape_of

GPUS = (
    Gpu("V100", 80, 1.53e9, 0.90e12, 96 << 10),
    Gpu("A100", 108, 1.41e9, 2.04e12, 164 << 10),
    Gpu("H100", 132, 1.755e9, 3.35e12, 228 << 10),
    Gpu("H200", 132, 1.755e9, 4.3e12, 228 << 10),
    Gpu("RTX 4090", 128, 2.52e9, 1.01e12, 100 << 10),
)
"""Multiprocessors, clock under load, bandwidth: assumed from data sheets, of the H200 what copies
reach."""
CASES = {
    "2D, B = 32": ((1, 64, 64), 4, 32),
    "2D, B = 256": ((1, 64, 64), 4, 256),
    "3D, B = 16": ((16, 64, 64), 3, 16),
}
SIDES = {2: (2048, 2048), 3: (64, 512, 512)}
"""Of the bench's images, which windows may not leave here."""


def n_bytes(patch: tuple[int, int, int], n_scales: int, n_samples: int) -> float:
    """Return the bytes of all windows of two channels of uint16, inside, and of the outputs."""
    sides = SIDES[2 if patch[0] == 1 else 3]
    window = [
        min(p << n_scales - 1, side) for p, side in zip(patch[-len(sides) :], sides, strict=True)
    ]
    return n_samples * (2 * 2 * prod(window) + 4 * (n_scales + 2) * prod(patch))


def main() -> None:
    """Print a table of microseconds."""
    print("(model) µs, and what limits: memory, issue of instructions, latency of loads")
    for name, (patch, n_scales, n_samples) in CASES.items():
        shape = shape_of(patch, n_scales, n_samples)
        for gpu in GPUS:
            found = predict(shape, n_samples, n_bytes(patch, n_scales, n_samples), gpu)
            limits = ", ".join(f"{k} {v * 1e6:.1f}" for k, v in found._asdict().items())
            print(f"{name:12} {gpu.name:9} {found.seconds * 1e6:6.1f} {found.limit:8} ({limits})")


if __name__ == "__main__":
    main()
