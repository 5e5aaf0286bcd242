"""Where the patches of a batch lie, as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch.checks import mapping, sequence, shorten, whole_number, whole_numbers
from gpu_patch.geometry import window_start
from gpu_patch.specs import PatchSpecs

LARGEST_PIXEL = 2**40
"""Largest coordinate and size: windows of 16 scales around it stay within 64 bits."""
MISSING = object()
"""Stands for a value of `extras` that a place does not have."""
PLAIN_KEYS = ("data_idx", "sample_idx", "coords", "patch_size")


@dataclass(frozen=True, slots=True)
class Locations:
    """Places of n patches of one size.

    Attributes
    ----------
    data_idx, sample_idx : array of int64, shape (n,)
        Image stack, and sample within it.
    coords : array of int64, shape (n, D)
        First pixel, (Z)YX.
    patch_size : tuple of int
        (Z)YX.
    extras : mapping of str to sequence of n values
        Further spec entries, those of tiles for example.
    """

    data_idx: NDArray[np.int64]
    sample_idx: NDArray[np.int64]
    coords: NDArray[np.int64]
    patch_size: tuple[int, ...]
    extras: Mapping[str, Sequence[Any] | NDArray[np.int64]] = field(default_factory=dict)

    def spec(self, i: int) -> PatchSpecs:
        """Return place `i` as a fresh dict."""
        spec: dict[str, Any] = {
            "data_idx": int(self.data_idx[i]),
            "sample_idx": int(self.sample_idx[i]),
            "coords": tuple(self.coords[i].tolist()),
            "patch_size": self.patch_size,
        }
        for key, values in self.extras.items():
            if values[i] is not MISSING:
                spec[key] = _plain(values[i])
        return spec  # type: ignore[return-value]

    def rows(self, index: NDArray[np.int64]) -> Locations:
        """Return some of the places."""
        extras = {
            key: values[index] if isinstance(values, np.ndarray) else [values[i] for i in index]
            for key, values in self.extras.items()
        }
        return Locations(
            self.data_idx[index],
            self.sample_idx[index],
            self.coords[index],
            self.patch_size,
            extras,
        )

    @classmethod
    def from_specs(cls, specs: Sequence[PatchSpecs]) -> Locations:
        """Gather spec dicts, whoever made them; `ValueError` where their patch sizes differ."""
        checked = [checked_spec("patch spec", spec) for spec in specs]
        size = one_patch_size({tuple(spec["patch_size"]) for spec in checked})
        return cls(
            np.array([spec["data_idx"] for spec in checked], np.int64),
            np.array([spec["sample_idx"] for spec in checked], np.int64),
            np.array([spec["coords"] for spec in checked], np.int64),
            size,
            extra_columns(specs),
        )


def check_places(name: str, places: Locations, shapes: NDArray[np.int64], n_scales: int) -> None:
    """Check that patches are of images, and have a pixel of them where that is needed.

    Parameters
    ----------
    name : str
        What messages call the strategy that gave the places.
    places : Locations
        Of the patches.
    shapes : array of int64, shape (n, 1 + D)
        Of the images, S(Z)YX.
    n_scales : int
        Scales of the lateral context, of which the image must have a pixel; 0 for none.
    """
    n_dims = shapes.shape[1] - 1
    if len(places.patch_size) != n_dims:
        raise ValueError(
            f"{name} gave the patch_size {places.patch_size}, but the images have {n_dims} "
            "spatial axes"
        )
    if places.data_idx.max() >= len(shapes):
        raise ValueError(
            f"{name} gave data_idx {places.data_idx.max()}, but there are {len(shapes)} "
            "image stacks"
        )
    own = shapes[places.data_idx]
    beyond = places.sample_idx >= own[:, 0]
    if beyond.any():
        i = int(beyond.argmax())
        raise ValueError(
            f"{name} gave sample_idx {places.sample_idx[i]}, but image stack "
            f"{places.data_idx[i]} has {own[i, 0]} samples"
        )
    if not n_scales:
        return
    size = np.array(places.patch_size)
    start = window_start(places.coords, size, n_scales)
    outside = ((start >= own[:, 1:]) | (start + (size << n_scales) <= 0)).any(axis=1)
    if outside.any():
        i = int(outside.argmax())
        raise ValueError(
            f"{name} gave coords {tuple(places.coords[i].tolist())}, but image stack "
            f"{places.data_idx[i]} has the spatial shape {tuple(own[i, 1:].tolist())}: "
            "no pixel of it is in the patch or its context"
        )


def one_patch_size(sizes: set[tuple[int, ...]]) -> tuple[int, ...]:
    """Return the only element of `sizes`, the patch sizes of a batch."""
    if len(sizes) > 1:
        raise ValueError(
            f"the patches of one batch must have one patch_size, found {shorten(sorted(sizes))}: "
            "use batches of one image, or a fixed patch size"
        )
    return next(iter(sizes))


def extra_columns(specs: Sequence[PatchSpecs]) -> dict[str, list[Any]]:
    """Gather the keys beyond the plain ones; `MISSING` stands where a spec lacks one."""
    keys = dict.fromkeys(key for spec in specs for key in spec if key not in PLAIN_KEYS)
    return {key: [spec.get(key, MISSING) for spec in specs] for key in keys}


def checked_spec(name: str, spec: object) -> PatchSpecs:
    """Return a copy of `spec` with ints and tuples in its plain keys."""
    found = mapping(name, spec, PLAIN_KEYS)
    size = whole_numbers(
        f"{name}['patch_size']", found["patch_size"], minimum=1, maximum=LARGEST_PIXEL
    )
    return {
        **{key: _plain(value) for key, value in found.items()},
        "data_idx": whole_number(f"{name}['data_idx']", found["data_idx"], minimum=0),
        "sample_idx": whole_number(f"{name}['sample_idx']", found["sample_idx"], minimum=0),
        "coords": whole_numbers(
            f"{name}['coords']",
            found["coords"],
            minimum=-LARGEST_PIXEL,
            maximum=LARGEST_PIXEL,
            length=len(size),
        ),
        "patch_size": size,
    }


def checked_shapes(data_shapes: object) -> list[tuple[int, ...]]:
    """Return `data_shapes` as tuples SC(Z)YX of one number of axes."""
    shapes = [
        whole_numbers(f"data_shapes[{i}]", shape, minimum=1)
        for i, shape in enumerate(sequence("data_shapes", data_shapes, "shapes SC(Z)YX"))
    ]
    if not shapes:
        raise ValueError("data_shapes is empty: at least one shape SC(Z)YX is needed")
    for i, shape in enumerate(shapes):
        if len(shape) not in (4, 5):
            raise ValueError(f"data_shapes[{i}] must be SCYX or SCZYX, found {shape}")
        if len(shape) != len(shapes[0]):
            raise ValueError(
                f"data_shapes must all be 2D or all be 3D, found {shapes[0]} and {shape}"
            )
    return shapes


def _plain(value: Any) -> Any:
    """Return arrays as tuples and NumPy scalars as Python numbers, also within others."""
    if isinstance(value, np.ndarray):
        value = tuple(value.tolist()) if value.ndim else value.item()
    if isinstance(value, (list, tuple)):
        return type(value)(map(_plain, value)) if type(value) in (list, tuple) else value
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value.item() if isinstance(value, np.generic) else value
