"""The kernels on a GPU against NumPy: batches of every kind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from cases import DTYPES, MODES, Case, assert_same_context


def correctness_cases() -> Iterator[tuple[str, Case]]:
    """Batches to compare with NumPy, of every kind."""
    for i, mode in enumerate(MODES):
        yield (
            f"2D common, {mode}",
            Case.random(i, (64, 64), 4, mode, n_samples=8, most=900, least=50),
        )
        yield (
            f"2D own places, {mode}",
            Case.random(
                i, (64, 48), 3, mode, n_channels=3, n_places=3, dtypes=["float32"] * 2, most=400
            ),
        )
        yield (
            f"2D mixed types, {mode}",
            Case.random(i, (33, 57), 4, mode, n_samples=20, dtypes=DTYPES, most=300),
        )
        yield f"3D, {mode}", Case.random(i, (8, 32, 40), 3, mode, n_samples=3, most=90)
        yield (
            f"3D own places, {mode}",
            Case.random(i, (5, 17, 70), 3, mode, n_places=2, dtypes=["int16"], most=60),
        )
        yield f"odd and small, {mode}", Case.random(i, (1, 3), 5, mode, n_channels=4, most=30)
    yield "five scales", Case.random(9, (32, 32), 5, "reflect", n_channels=1, most=700)
    yield "eight scales", Case.random(9, (2, 3), 8, "reflect", most=300)
    yield "large patch", Case.random(9, (300, 520), 3, "reflect", n_samples=1, most=900)


def upload(cupy: Any, images: list[np.ndarray]) -> list[Any]:
    return [cupy.asarray(image) for image in images]


def check_correctness(cupy: Any, runtime: Any) -> dict[str, Any]:
    """Compare with NumPy; print what differs, and the largest difference."""
    failed, n_checks, worst = 0, 0, 0.0
    for name, case in correctness_cases():
        images = upload(cupy, case.images)
        expected = case.numpy_context()
        for specialise in (True, False):
            try:
                first, again = (
                    tuple(
                        cupy.asnumpy(part)
                        for part in case.context(runtime, images=images, specialise=specialise)
                    )
                    for _ in range(2)
                )
                worst = max(worst, assert_same_context(first, expected))
                for one, other in zip(first, again, strict=True):
                    np.testing.assert_array_equal(one.view(np.int32), other.view(np.int32))
                half = case.context(runtime, images=images, specialise=specialise, dtype=np.float16)
                with np.errstate(over="ignore"):
                    assert_same_context(tuple(cupy.asnumpy(part) for part in half), expected)
            except AssertionError as error:
                failed += 1
                print(f"DIFFERS: {name}, specialise={specialise}: {error}")
            n_checks += 1
        for mode in ("zero", *MODES):
            made = cupy.asnumpy(case.patches(runtime, mode, images=images))
            n_checks += 1
            if not np.array_equal(made, case.numpy_patches(mode)):
                failed += 1
                print(f"DIFFERS: {name}, patches, {mode}")
    print(f"{n_checks} comparisons with NumPy, {failed} failed, largest difference {worst:.1e}")
    return {"ok": not failed, "n_checks": n_checks, "failed": failed, "difference": worst}
