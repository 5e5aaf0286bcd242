"""Batches that show mistakes: every pixel differs, windows leave their images, shapes are mixed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpu_patch import geometry, ops
from gpu_patch._cuda.gather import gather
from gpu_patch._cuda.lateral_context import lateral_context
from gpu_patch._host import library
from gpu_patch.epilogue import Epilogue
from gpu_patch.sources import ChannelSources

MODES = geometry.PADDING_MODES
DTYPES = ("bool", "uint8", "int8", "uint16", "int16", "float16", "float32")


@dataclass(frozen=True)
class Case:
    """Arguments of both operations."""

    images: list[Any]
    sources: ChannelSources
    weights: np.ndarray
    patch_size: tuple[int, ...]
    n_scales: int
    mode: str

    @classmethod
    def random(
        cls,
        seed: int,
        patch_size: Sequence[int],
        n_scales: int,
        mode: str,
        *,
        n_samples: int = 2,
        n_channels: int = 2,
        n_places: int = 1,
        dtypes: Sequence[str] = ("uint16",),
        least: int = 1,
        most: int = 40,
    ) -> Case:
        """Make images of random shapes, a side being `least` … `most`, and places in them."""
        rng = np.random.default_rng(seed)
        images = []
        for dtype in dtypes:
            shape = (2, 3, *rng.integers(least, most + 1, len(patch_size)).tolist())
            images.append(random_pixels(rng, shape, dtype))
        shape = (n_samples, n_places)
        image_idx = rng.integers(0, len(images), shape)
        sizes = np.array([image.shape[2:] for image in images])[image_idx]
        # from before the image to behind it, so that windows leave it on both sides, with their
        # centre outside too; some of the patch stays inside
        patch = np.array(patch_size)
        coords = rng.integers(1 - patch, sizes)
        sources = ChannelSources(
            image_idx, rng.integers(0, 2, shape), coords, rng.integers(0, 3, n_channels)
        )
        weights = rng.uniform(-0.3, 1, (n_samples, n_channels)).astype(np.float32)
        return cls(images, sources, weights, tuple(patch_size), n_scales, mode)

    def with_dtype(self, dtype: str) -> Case:
        """The same with images of another data type."""
        return replace(self, images=[image.astype(dtype) for image in self.images])

    def epilogue(self, seed: int = 0, *, mixed: bool) -> Epilogue:
        """Make one for contexts, whose channels are mixed, or for patches."""
        n_samples, n_channels = self.sources.shape
        channels = (1, n_channels) if mixed else (n_channels, 0)
        return random_epilogue(seed, n_samples, *channels, self.patch_size)

    def numpy_context(self, **options) -> tuple[np.ndarray, np.ndarray]:
        return self.host_context(None, **options)

    def numpy_patches(self, mode: str, **options) -> np.ndarray:
        with library.computing(None):
            return ops.gather(
                self.images,
                self.sources,
                self.patch_size,
                mode=mode,
                n_scales=self.n_scales,
                **options,
            )

    def host_context(
        self, compiled: library.Library | None, *, rows: np.ndarray | None = None, **options
    ) -> tuple[np.ndarray, np.ndarray]:
        """By compiled kernels of the CPU, or by NumPy."""
        with library.computing(compiled):
            made = ops.LateralContext(
                self.images,
                self.sources,
                self.weights,
                self.patch_size,
                self.n_scales,
                mode=self.mode,
                **options,
            )
            return made(rows)

    def context(self, runtime, *, images=None, dtype=np.float32, **options) -> tuple[Any, Any]:
        """Run the launch code; `images` where they must be those of another library."""
        return lateral_context(
            runtime,
            self.images if images is None else images,
            self.sources,
            self.weights,
            self.patch_size,
            self.n_scales,
            self.mode,
            dtype,
            **options,
        )

    def patches(self, runtime, mode: str, *, images=None, dtype=np.float32, **options) -> Any:
        return gather(
            runtime,
            self.images if images is None else images,
            self.sources,
            self.patch_size,
            self.n_scales,
            mode,
            dtype,
            **options,
        )


def random_epilogue(
    seed: int, n_samples: int, n_inputs: int, n_targets: int, patch_size: Sequence[int]
) -> Epilogue:
    """All orientations that the patches can have, in turn from a random one on."""
    rng = np.random.default_rng(seed)
    square = patch_size[-2] == patch_size[-1]
    possible = np.array(range(8) if square else (0, 2, 4, 6), np.uint8)
    first = rng.integers(len(possible))

    def numbers(n_channels: int, size: float) -> np.ndarray:
        return (rng.uniform(-1, 1, (n_samples, n_channels)) * size).astype(np.float32)

    return Epilogue(
        numbers(n_inputs, 2),
        numbers(n_inputs, 900),
        numbers(n_targets, 0.01),
        numbers(n_targets, 3),
        np.resize(np.roll(possible, -first), n_samples),
        # where channels are mixed, they are the targets
        input_shift=numbers(n_targets or n_inputs, 200),
        target_shift=numbers(n_targets, 200),
    )


def random_pixels(rng: np.random.Generator, shape: Sequence[int], dtype: str) -> np.ndarray:
    """Values over the whole range of an integer type; for floats, of several sizes."""
    if dtype == "bool":
        return rng.random(shape) < 0.5
    if dtype.startswith("float"):
        return (rng.standard_normal(shape) * 100 + 300).astype(dtype)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max + 1, shape).astype(dtype)


def assert_same_context(actual, expected, *, tolerance: float = 1e-6) -> float:
    """Check (input, target): copies bit by bit, filtered values to a part of the largest.

    Returns the largest difference, as such a part.
    """
    mixed, target = actual
    expected_mixed, expected_target = expected
    assert mixed.shape == expected_mixed.shape
    dtype = mixed.dtype
    np.testing.assert_array_equal(target, expected_target.astype(dtype))
    np.testing.assert_array_equal(mixed[:, 0], expected_mixed[:, 0].astype(dtype))
    filtered, reference = mixed[:, 1:], expected_mixed[:, 1:]
    # beyond what the type holds is infinite; just there, rounding may go either way
    size, most = np.abs(reference).astype(np.float64), float(np.finfo(dtype).max)
    finite, beyond = size <= most, ~(size < most * 1.001)
    np.testing.assert_array_equal(filtered[beyond], reference[beyond].astype(dtype))
    difference = np.abs(filtered[finite].astype(np.float64) - reference[finite])
    largest = np.abs(expected_mixed[np.isfinite(expected_mixed)]).max(initial=0)
    assert np.isfinite(difference).all(), "a value is not finite where NumPy's is"
    allowed = tolerance * largest
    if dtype == np.float16:
        allowed = allowed + np.spacing(np.abs(reference[finite]).astype(np.float16))
    assert (difference <= allowed).all(), f"differs by {difference.max() / largest:.2e}"
    return float(difference.max(initial=0) / largest) if largest else 0.0


# (patch, n_scales, mode, n_channels, places per channel, dtype): compiled for one by one
SPECIALISED = {
    "common": ((64, 64), 4, "reflect", 2, False, "uint16"),
    "one place per channel": ((64, 64), 3, "wrap", 2, True, "uint16"),
    "single channel": ((32, 32), 3, "reflect", 1, False, "float32"),
    "odd, tiles left over": ((21, 77), 4, "periodic", 3, False, "uint8"),
    "five scales": ((16, 24), 5, "reflect", 1, False, "int16"),
    "many channels": ((9, 8), 2, "wrap", 6, False, "float16"),
    "many places": ((9, 8), 2, "wrap", 4, True, "float16"),
    "no context": ((17, 70), 1, "reflect", 2, False, "bool"),
    "bool": ((17, 70), 3, "reflect", 2, False, "bool"),
    "smaller than the taps": ((1, 3), 4, "reflect", 2, True, "int8"),
    "3D": ((5, 16, 20), 3, "reflect", 2, False, "uint16"),
    "3D, one place per channel": ((4, 9, 11), 3, "wrap", 2, True, "int16"),
    "3D, tiles left over": ((7, 19, 66), 2, "periodic", 1, False, "uint8"),
    "3D, four scales": ((2, 8, 8), 4, "reflect", 1, False, "float32"),
}


def specialised_case(name: str, seed: int = 0, **options: Any) -> Case:
    """A batch that the specialised kernel serves."""
    patch, n_scales, mode, n_channels, own_places, dtype = SPECIALISED[name]
    n_places = n_channels if own_places else 1
    options = {"most": 60 if len(patch) == 2 else 24} | options
    return Case.random(
        seed, patch, n_scales, mode, n_channels=n_channels, n_places=n_places,
        dtypes=[dtype, dtype], **options,
    )  # fmt: skip
