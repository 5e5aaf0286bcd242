"""What rows of a slab become before they leave the device: the answer, and standard deviations."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpu_patch import ops
from gpu_patch.feed.affine import Inverse
from gpu_patch.predict.answers import Answer
from gpu_patch.predict.slab_writer import SlabWriter

_ALIGNMENT = 16
"""Bytes."""


class Variant(NamedTuple):
    """A result that rows of a slab become.

    Attributes
    ----------
    name : str
        The end of its name: "" of the answer, "_std" of standard deviations.
    first, stop : int
        Which planes of the slab.
    dtype : numpy.dtype
        Of the result.
    inverse : Inverse or None
        How the planes are taken back, where that is to be done.
    answer : Answer
        What is asked for.
    """

    name: str
    first: int
    stop: int
    dtype: np.dtype[Any]
    inverse: Inverse | None
    answer: Answer

    @property
    def is_plain(self) -> bool:
        """Whether it is the planes as they are."""
        return (
            self.dtype == np.float32
            and self.inverse is None
            and not (self.answer.is_labels or self.answer.is_scaled)
        )

    @property
    def n_channels(self) -> int:
        """Channels of the result."""
        return 1 if self.answer.is_labels else self.stop - self.first

    @property
    def not_held(self) -> str:
        """Which values it cannot hold, for who reads an error."""
        if self.answer.is_labels:
            return (
                "NaN, of which no channel is the largest: look for them in the image and in the "
                "model"
            )
        return (
            f"not finite, which {self.dtype} cannot hold: look for them in the image and in the "
            "model, or ask for float32"
        )

    def make(self, slab: Any, axis: int, rows: slice, out: Any, flags: Any) -> None:
        """Make it of rows of a slab, see `ops.answer`."""
        factors = centers = scaling = None
        if self.inverse is not None:
            scale, rest, center = self.inverse
            factors = np.stack([scale, rest]) if (scale != 1).any() or rest.any() else None
            # added after blending: what is blended is small without it, and keeps its digits
            centers = center if center.any() else None
        if self.answer.is_scaled:
            scaling = (
                np.float32(self.answer.add_offset),
                np.float32(1 / self.answer.scale_factor),
            )
        ops.answer(
            slab[self.first : self.stop],
            *(axis, rows, out, flags),
            factors=factors,
            centers=centers,
            scaling=scaling,
            argmax=self.answer.is_labels,
        )


class _Place(NamedTuple):
    """Where an answer and its flags are in an array of bytes."""

    shape: tuple[int, ...]
    data: slice
    flags: slice


class Answers:
    """Makes of rows of a slab all that leaves the device, as one array of bytes.

    Parameters
    ----------
    variants : sequence of Variant
        The results.
    n_planes : int
        Planes of the slab.
    source : str
        Where the image comes from that they are predicted of.
    """

    def __init__(self, variants: Sequence[Variant], n_planes: int, source: str) -> None:
        self._variants, self._source = variants, source
        self.are_plain = (
            all(variant.is_plain for variant in variants) and variants[-1].stop == n_planes
        )

    def make(self, slab: Any, axis: int, rows: slice, writer: SlabWriter) -> Any:
        """Return the answers of rows of a slab, (C, (Z), Y, X), where it is."""
        places = self._places(slab.shape, axis, rows.stop - rows.start)
        block = writer.new((places[-1].flags.stop,), np.uint8)
        for variant, place in zip(self._variants, places, strict=True):
            out = block[place.data].view(variant.dtype).reshape(place.shape)
            variant.make(slab, axis, rows, out, block[place.flags])
        return block

    def read(
        self, block: NDArray[np.uint8], shape: tuple[int, ...], axis: int, n_rows: int
    ) -> dict[str, NDArray[Any]]:
        """Return the answers by the names of their variants.

        Parameters
        ----------
        block : array of uint8
            What `make` made of rows, on the host.
        shape : tuple of int
            Of the slab.
        axis, n_rows : int
            Its axis that rows are counted along, and how many there were.

        Raises
        ------
        ValueError
            Where a value cannot be held.
        """
        found = {}
        for variant, place in zip(self._variants, self._places(shape, axis, n_rows), strict=True):
            if block[place.flags].any():
                raise ValueError(
                    f"the prediction of {self._source} has values that are {variant.not_held}"
                )
            found[variant.name] = block[place.data].view(variant.dtype).reshape(place.shape)
        return found

    def split(self, rows: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """Return the answers of rows, C(Z)YX, where they are plain."""
        return {variant.name: rows[variant.first : variant.stop] for variant in self._variants}

    def _places(self, shape: tuple[int, ...], axis: int, n_rows: int) -> list[_Place]:
        places, at = [], 0
        for variant in self._variants:
            wanted = list(shape)
            wanted[0], wanted[axis] = variant.n_channels, n_rows
            n_bytes, n_flags = prod(wanted) * variant.dtype.itemsize, ops.flags_of(tuple(wanted))
            behind = at + _aligned(n_bytes)
            places.append(
                _Place(tuple(wanted), slice(at, at + n_bytes), slice(behind, behind + n_flags))
            )
            at = behind + _aligned(n_flags)
        return places


def _aligned(n_bytes: int) -> int:
    return -(-n_bytes // _ALIGNMENT) * _ALIGNMENT
