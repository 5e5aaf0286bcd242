"""The table that a kernel reads: where each channel of each sample comes from, and constants.

The layouts are those of the structs in `_cuda/common.cuh`, which kernels of the CPU read too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property, lru_cache
from math import prod
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gpu_patch.geometry import folds_into_cut, window_start
from gpu_patch.sources import ChannelSources

MODES = ("zero", "reflect", "wrap", "periodic")
"""Order of `enum Mode`."""

PIXEL_TYPES = {
    np.dtype(name): number
    for number, name in enumerate(
        (
            *("bool", "uint8", "int8", "uint16", "int16", "float16", "float32"),
            *("int32", "uint32", "int64", "uint64"),
        )
    )
}
"""Numbers of `enum PixelType`; the last four are of labels, and read as integers alone."""

CHANNEL_SOURCE = np.dtype(
    [
        ("pixels", np.uint64),
        ("size", np.int64, 3),
        ("coords", np.int64, 3),
        ("pixel_type", np.int32),
        ("weight", np.float32),
    ]
)
"""`struct ChannelSource`."""

VALUES = ("shift", "scale", "offset", "input_shift", "input_scale", "input_offset")
"""What an epilogue does to values: of the channel, and of the mixture."""

EPILOGUE_RECORD = np.dtype(
    [
        ("first", np.int64),
        ("along_y", np.int64),
        ("along_x", np.int64),
        *((name, np.float32) for name in VALUES),
    ]
)
"""`struct EpilogueRecord`."""
EPILOGUE = {"EPILOGUE": 1}
"""Macro of kernels that have `EPILOGUE_RECORD` records as their last parameter."""
PAGED = {"PAGED": 1}
"""Macro of kernels that read pages; their `PageBox` records and slots come before an epilogue."""

_ALIGNMENT = 16


@lru_cache(maxsize=4)
def short_record(n_dims: int, epilogue: bool) -> np.dtype[np.void]:
    """Return `struct Record` of specialised.cu: all of a channel, in 32 bits where that is enough.

    Parameters
    ----------
    n_dims : int
        2 for YX, 3 for ZYX.
    epilogue : bool
        Whether there is one.
    """
    return np.dtype(
        [
            ("pixels", np.uint64),
            ("size", np.int32, n_dims),
            ("coords", np.int32, n_dims),
            ("weight", np.float32),
            ("orientation", np.int32),
            *((name, np.float32) for name in VALUES if epilogue),
        ]
    )


class Addresses(Protocol):
    """What tells where arrays are: a `Runtime` of CUDA, or the host."""

    def pointer(self, array: Any) -> int:
        """Return the address of an array."""


class WindowTable(ABC):
    """What kernels ask for the places of windows.

    It has records of its images at hand, as words of int64: NumPy writes fields of a record more
    slowly.
    """

    least_side: int
    """Patches that start in 0 … `least_side` − 1 along each axis start in their image."""
    n_dims: int
    """2 for YX, 3 for ZYX."""
    pixel_types: set[int]
    """Those of `PIXEL_TYPES` that occur."""
    most_pixels: int
    """Of one channel of one sample."""
    samples: NDArray[np.int64]
    """Of each image: how many samples it has, how many of them lie behind each other, and the bytes
    from one to the next; (n_images, 3)."""
    fewest_channels: int
    """Of an image."""
    paged: NDArray[np.void] | None = None
    """`slot_table.PAGED_IMAGE` records of the images; None where these are whole."""
    slots: NDArray[np.int32] | None = None
    """Of all pages, where these are of one pool."""
    _known: tuple[NDArray[np.int64] | None, NDArray[np.int64]] = (None, np.empty(0, np.int64))
    """Channels that all images have, and the records of them."""

    def sources(
        self, sources: ChannelSources, weights: NDArray[np.float32] | None = None
    ) -> NDArray[np.void]:
        """Return `CHANNEL_SOURCE` records of shape (B, C), of sources that `check` has passed."""
        words = self._words(sources)
        words[..., 7 - self.n_dims : 7] = sources.coords
        if weights is not None:
            words.view(np.float32)[..., 15] = weights
        found: NDArray[np.void] = words.view(CHANNEL_SOURCE)[..., 0]
        return found

    def fill_short(self, records: NDArray[np.void], sources: ChannelSources) -> None:
        """Fill in the places of `short_record` records of shape (B, C).

        The sources are those of `check`, images smaller than 2^31 pixels, places within 32 bits.
        """
        words = self._words(sources)
        records["pixels"], records["size"] = words[..., 0], words[..., 4 - self.n_dims : 4]
        records["coords"] = sources.coords

    def _words(self, sources: ChannelSources) -> NDArray[np.int64]:
        """Return records as words, (B, C, 8), but for places and weights."""
        image_idx, sample_idx, _, channels = sources
        known = self.of_channels(channels)
        if len(known) == 1:
            words = np.empty((*sources.shape, known.shape[-1]), np.int64)
            words[:] = known
        elif image_idx.shape[1] == 1:
            words = known.take(image_idx[:, 0], axis=0)
        else:
            n = len(channels)
            words = known.reshape(-1, known.shape[-1]).take(image_idx * n + np.arange(n), axis=0)
        if self._most_together > 1:
            _, together, n_bytes = np.moveaxis(self.samples[image_idx], -1, 0)
            words[..., 0] += sample_idx % together * n_bytes
        return words

    @cached_property
    def _most_together(self) -> int:
        return int(self.samples[:, 1].max())

    def of_channels(self, channels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return records, as words, of these channels of the first sample of each image.

        Returns
        -------
        array of int64, shape (n_images, C, 8), C-contiguous
            Of which nothing may be changed.
        """
        known, words = self._known
        if channels is not known:
            words = self._of_channels(channels)
            # most batches bring the very array that was here before, and that nobody can change
            if not channels.flags.writeable and all_within(channels, 0, self.fewest_channels):
                self._known = (channels, words)
        return words

    def has_checked(self, channels: NDArray[np.int64]) -> bool:
        """Whether all images are known to have these channels."""
        return channels is self._known[0]

    @abstractmethod
    def check(self, sources: ChannelSources) -> None:
        """Check that all images, samples and channels exist."""

    @abstractmethod
    def _of_channels(self, channels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return what `of_channels` does, made anew."""

    @abstractmethod
    def sizes(self, sources: ChannelSources) -> NDArray[np.int64]:
        """Return the images' (Z)YX sizes, (B, 1 or C, D)."""

    def pages(
        self,
        sources: ChannelSources,
        patch_size: Sequence[int],
        scale: int,
        n_scales: int,
        mode: str,
    ) -> tuple[NDArray[Any], ...]:
        """Return where the pages of windows are; nothing, as here, of images that have none."""
        return ()


class ImageTable(WindowTable):
    """Addresses, shapes and data types of images, as columns.

    Made from a sequence of images at every call, or once and then given instead of it.

    Parameters
    ----------
    runtime : Addresses
        Whose arrays the images are.
    images : sequence of array, SC(Z)YX
        C-contiguous, of stored data types.

    Attributes
    ----------
    images : sequence of array
        As given: as long as the table lives, so do they.
    n_dims : int
        2 for YX, 3 for ZYX.
    pixel_types : set of int
        Those that occur.
    most_pixels : int
        Of one channel of one sample.
    least_side : int
        The shortest of all images.
    """

    def __init__(self, runtime: Addresses, images: Sequence[Any]) -> None:
        if not len(images):
            raise ValueError("images is empty: at least one image is needed")
        self.images = images
        self.n_dims = images[0].ndim - 2
        rows = []
        for i, image in enumerate(images):
            if image.ndim not in (4, 5) or image.ndim != images[0].ndim:
                raise ValueError(
                    "images must all be SCYX or all be SCZYX, found the shapes "
                    f"{images[0].shape} and {image.shape}"
                )
            pixel_type = PIXEL_TYPES.get(image.dtype)
            if pixel_type is None:
                raise TypeError(
                    f"images[{i}] must have one of the data types "
                    f"{', '.join(str(known) for known in PIXEL_TYPES)}, found {image.dtype}"
                )
            if not image.flags.c_contiguous:
                raise ValueError(f"images[{i}] must be C-contiguous")
            n_samples, n_channels, *size = image.shape
            depth, height, width = volume(size)
            channel_bytes = depth * height * width * image.dtype.itemsize
            # an address fits int64: no device uses the upper half of the address space
            place = (runtime.pointer(image), n_channels * channel_bytes, channel_bytes)
            rows.append((*place, depth, height, width, pixel_type, n_samples, n_channels))
        self._table = np.array(rows, np.int64)
        # records of the images, as words
        self._records = np.zeros((len(rows), CHANNEL_SOURCE.itemsize // 8), np.int64)
        self._records[:, 0], self._records[:, 1:4] = self._table[:, 0], self._table[:, 3:6]
        self._records.view(np.int32)[:, 14] = self._table[:, 6]
        self.samples = np.ascontiguousarray(self._table[:, [7, 7, 1]])
        self._fewest_samples, self.fewest_channels = self._table[:, 7:].min(axis=0).tolist()
        self.least_side = int(self._table[:, 6 - self.n_dims : 6].min())
        self.pixel_types = {PIXEL_TYPES[image.dtype] for image in images}
        self.most_pixels = max(prod(image.shape[2:]) for image in images)

    def __len__(self) -> int:
        return len(self.images)

    def check(self, sources: ChannelSources) -> None:
        image_idx, sample_idx, _, channels = sources
        if not all_within(image_idx, 0, len(self.images)):
            check_index("sources.image_idx", image_idx, len(self.images))
        # quick where even the image with the fewest samples has all that are asked for
        if not all_within(sample_idx, 0, self._fewest_samples):
            check_index("sources.sample_idx", sample_idx, self._table[image_idx][..., 7])
        if not self.has_checked(channels) and not all_within(channels, 0, self.fewest_channels):
            check_index("sources.channels", channels, self._table[image_idx][..., 8])

    def _of_channels(self, channels: NDArray[np.int64]) -> NDArray[np.int64]:
        words = np.repeat(self._records[:, None], len(channels), axis=1)
        words[..., 0] += self._table[:, 2:3] * channels
        return words

    def sizes(self, sources: ChannelSources) -> NDArray[np.int64]:
        """Return the images' (Z)YX sizes, (B, 1 or C, D)."""
        return self._table[sources.image_idx, 6 - self.n_dims : 6]


def as_table(runtime: Addresses, images: WindowTable | Sequence[Any]) -> WindowTable:
    """Return `images` as a table."""
    return images if isinstance(images, WindowTable) else ImageTable(runtime, images)


def volume(patch_size: Sequence[int]) -> tuple[int, int, int]:
    """Return a patch size as Z, Y, X; two axes are three with a Z of 1."""
    depth, height, width = (1, *patch_size)[-3:]
    return depth, height, width


def pack(*parts: NDArray[Any]) -> tuple[NDArray[np.uint8], list[int]]:
    """Put arrays behind each other, so that they travel as one; return them and their offsets."""
    if len(parts) == 1:
        return parts[0].reshape(-1).view(np.uint8), [0]
    offsets, at = [], 0
    for part in parts:
        offsets.append(at)
        at += -(-part.nbytes // _ALIGNMENT) * _ALIGNMENT
    # exactly as long as needed: reading past the last part should be seen by a memory checker
    packed = np.zeros(offsets[-1] + parts[-1].nbytes, np.uint8)
    for offset, part in zip(offsets, parts, strict=True):
        packed[offset : offset + part.nbytes] = (
            np.ascontiguousarray(part).reshape(-1).view(np.uint8)
        )
    return packed, offsets


def all_within(values: NDArray[np.integer[Any]], low: int, high: int) -> bool:
    """Whether low ≤ values < high, in one pass: what is below `low` becomes huge."""
    index = np.asarray(values, np.int64)
    shifted = (index - low if low else index).view(np.uint64)
    # quicker than the largest itself
    return not index.size or shifted.item(shifted.argmax()) < high - low


def check_index(name: str, index: NDArray[np.int64], count: int | NDArray[np.int64]) -> None:
    """Check that all of an index is in 0 … count − 1; raises IndexError."""
    wrong = (index < 0) | (index >= count)
    if wrong.any():
        found = int(np.broadcast_to(index, wrong.shape)[wrong][0])
        below = int(np.broadcast_to(count, wrong.shape)[wrong][0])
        raise IndexError(f"{name} holds {found}, which must be in 0 … {below - 1}")


def check_cuts(
    table: WindowTable, sources: ChannelSources, patch_size: Sequence[int], n_scales: int, mode: str
) -> None:
    """Check that there is something to fold into: the kernels would divide by its size."""
    # most often every patch starts in its image
    if not folds_into_cut(mode) or all_within(sources.coords, 0, table.least_side):
        return
    patch = np.array(patch_size)
    start = window_start(sources.coords, patch, n_scales)
    misses = (start >= table.sizes(sources)) | (start + (patch << n_scales) <= 0)
    if misses.any():
        raise ValueError(
            f"sources.coords holds places whose patch and context miss the image: under {mode!r} "
            "there is nothing to fill them with"
        )
