"""Arguments that several operations share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpu_patch.checks import shorten
from gpu_patch.epilogue import NUMBERS, Epilogue
from gpu_patch.ops.image_set import ImageSet
from gpu_patch.sources import ChannelSources
from gpu_patch.table import all_within, check_index

_DTYPES = (np.dtype(np.float32), np.dtype(np.float16))


def checked_dtype(dtype: DTypeLike, *, integers: bool = False) -> np.dtype[Any]:
    """Return float32 or float16, or where they may be integers one of their types or bool."""
    try:
        found = np.dtype(dtype)
    except TypeError:
        raise TypeError(f"dtype must be float32 or float16, found {shorten(dtype)}") from None
    if integers and found.kind in "biu":
        return found
    if found not in _DTYPES:
        raise ValueError(f"dtype must be float32 or float16, found {found}")
    return found


def check_converted(images: ImageSet, dtype: np.dtype[Any]) -> None:
    """Check that all values of the images can become `dtype`, integers without loss."""
    if dtype.kind in "biu":
        lossy = [d for d in images.dtypes if not np.can_cast(d, dtype, "safe")]
        if lossy:
            raise TypeError(f"dtype is {dtype}, which does not hold all values of {lossy[0]}")
        return
    if wide := images.wide_integers:
        raise TypeError(
            f"dtype is {dtype}, but the images are labels of {wide[0]}, which stay what they are: "
            f'give {wide[0]}, or constructors and loaders target_dtype="native"'
        )


def check_sources(
    sources: ChannelSources, patch_size: Sequence[int], weights: NDArray[Any] | None = None
) -> None:
    """Check that the columns of a batch are as long as each other: kernels do not."""
    image_idx, sample_idx, coords, channels = sources
    n_samples, n_channels, n_dims = len(image_idx), len(channels), len(patch_size)
    n_places = image_idx.shape[1]
    if n_channels == 0:
        raise ValueError("sources.channels is empty: at least one channel is needed")
    if n_places not in (1, n_channels):
        raise ValueError(
            f"sources.image_idx must have one column, or {n_channels}, one per channel, found "
            f"the shape {image_idx.shape}"
        )
    for name, found, shape in (
        ("sources.sample_idx", sample_idx, (n_samples, n_places)),
        ("sources.coords", coords, (n_samples, n_places, n_dims)),
        ("weights", weights, (n_samples, n_channels)),
    ):
        if found is not None and found.shape != shape:
            raise ValueError(f"{name} must have the shape {shape}, found {found.shape}")


def check_rows(rows: NDArray[np.int64], n_samples: int) -> None:
    """Check that columns have these rows, since NumPy counts negative ones from the end."""
    if not all_within(rows, 0, n_samples):
        check_index("rows", rows, n_samples)


def check_epilogue(
    epilogue: Epilogue,
    inputs: tuple[int, int],
    targets: tuple[int, int] | None,
    patch_size: Sequence[int],
    *,
    sources: tuple[int, int] | None = None,
) -> None:
    """Check that an epilogue is for this batch: kernels do not.

    Parameters
    ----------
    epilogue : Epilogue
        What to check.
    inputs, targets : (int, int)
        Samples and channels; None where there are no targets.
    patch_size : sequence of int
        (Z)YX.
    sources : (int, int), optional
        Samples and channels that are mixed, where the input is a mixture.
    """
    parts: list[tuple[str, NDArray[Any] | None, tuple[int, int]]] = [
        ("input_scale", epilogue.input_scale, inputs),
        ("input_offset", epilogue.input_offset, inputs),
        ("input_shift", epilogue.input_shift, sources or inputs),
    ]
    if targets is not None:
        parts += [
            ("target_scale", epilogue.target_scale, targets),
            ("target_offset", epilogue.target_offset, targets),
            ("target_shift", epilogue.target_shift, targets),
        ]
    for name, numbers, shape in parts:
        if numbers is not None and numbers.shape != shape:
            raise ValueError(f"epilogue.{name} must have the shape {shape}, found {numbers.shape}")
    for name in NUMBERS:  # all of them, those that are not wanted too
        numbers = getattr(epilogue, name)
        if numbers is not None and len(numbers) != inputs[0]:
            raise ValueError(f"epilogue.{name} must have {inputs[0]} rows, found {len(numbers)}")
    if (orientation := epilogue.orientation) is None:
        return
    if orientation.shape != inputs[:1] or not all_within(orientation, 0, 8):
        raise ValueError(
            f"epilogue.orientation must be {inputs[0]} numbers in 0 … 7, "
            f"found {shorten(orientation)}"
        )
    if patch_size[-2] != patch_size[-1] and (orientation % 2).any():
        raise ValueError(
            "epilogue.orientation turns patches by 90°, which must be square in XY, found the "
            f"patch_size {tuple(patch_size)}"
        )
