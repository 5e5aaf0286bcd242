"""The images of careamics' extractors, in their own type, where they are wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from gpu_patch.careamics.lazy import is_lazy, regions_of
from gpu_patch.careamics.recognise import careamics_class, described, replaced
from gpu_patch.chunks import RegionReader
from gpu_patch.images import ImageStack, PatchExtractor
from gpu_patch.images.budget import make_budget
from gpu_patch.images.by_chunk import cache_within, check_chunk_fits
from gpu_patch.pages import PageCache
from gpu_patch.progress import progress_bar
from gpu_patch.specs import ImageMetadata

_STACK_MEMBERS = ("source", "data_shape", "data_dtype", "original_data_shape", "original_axes")
_extractors: WeakKeyDictionary[Any, WeakValueDictionary[Any, PatchExtractor]] = WeakKeyDictionary()
"""What was made of careamics' extractors, by device and budget, while something uses it.

A training and a validation set split from the same images share them here too.
"""


class Kept:
    """Where images go: whole to a device, or by chunk into a cache that all of them share.

    Parameters
    ----------
    device : str
        "cpu" or "cuda:N".
    memory_budget : int, float, str or None
        What those by chunk may take.
    by_chunk : bool
        Whether those that careamics leaves in their files are kept by chunk.
    """

    def __init__(self, device: str, memory_budget: float | str | None, *, by_chunk: bool) -> None:
        self._budget = make_budget(device, memory_budget)
        self.device, self.by_chunk = device, by_chunk
        self.key = (device, memory_budget) if by_chunk else (device,)
        self._cache: PageCache | None = None

    def stacks(self, regions: Sequence[RegionReader], theirs: Sequence[Any]) -> list[ImageStack]:
        """Return stacks that are read by chunk."""
        if self._cache is None:
            sizes = [prod(each.shape) * each.dtype.itemsize for each in regions]
            self._cache = cache_within(self._budget, sum(sizes))
        found: list[ImageStack] = []
        for each, of in zip(regions, theirs, strict=True):
            stack = _CareamicsStack.by_chunk(each, cache=self._cache, source=of.source)
            check_chunk_fits(stack)
            found.append(_described_as(stack, of))
        return found


def extractor_of(name: str, theirs: Any, kept: Kept) -> PatchExtractor:
    """Return an extractor with the images of one of careamics.

    Parameters
    ----------
    name : str
        Of the argument, for messages.
    theirs : careamics' PatchExtractor
        Asked for pixels where its images are not in memory, or it has methods of its own.
    kept : Kept
        Where its images go.
    """
    base = careamics_class(theirs, ("PatchExtractor", "LimitFilesPatchExtractor"))
    if base is None:
        raise TypeError(
            f"{name} must be careamics' PatchExtractor or a subclass, found {described(theirs)}"
        )
    known = _extractors.setdefault(theirs, WeakValueDictionary())
    ours = known.get(kept.key)
    if ours is None:
        # one that replaces anything may give other pixels than its stacks hold
        as_given = not replaced(theirs, base)
        ours = known[kept.key] = PatchExtractor(_stacks(name, theirs, as_given, kept))
    return ours


def _stacks(name: str, theirs: Any, as_given: bool, kept: Kept) -> list[ImageStack]:
    stacks = theirs.image_stacks
    for i, stack in enumerate(stacks):
        _check_stack(f"{name}.image_stacks[{i}]", stack)
    if as_given and kept.by_chunk and all(map(is_lazy, stacks)):
        return kept.stacks([regions_of(stack) for stack in stacks], stacks)
    in_memory = [_pixels_in_memory(stack) if as_given else None for stack in stacks]
    to_read = [s.data_shape[0] for s, m in zip(stacks, in_memory, strict=True) if m is None]
    made: list[ImageStack] = []
    with progress_bar("reading images", sum(to_read), " samples") as advance:
        for i, (stack, pixels) in enumerate(zip(stacks, in_memory, strict=True)):
            dtype = np.dtype(stack.data_dtype)
            if pixels is None:
                data = np.stack(
                    [_native(sample, dtype) for sample in _samples(theirs, i, stack, advance)]
                )
            else:
                data = _native(pixels, dtype)
            axes = "SCYX" if data.ndim == 4 else "SCZYX"
            ours = _CareamicsStack(data, axes, source=stack.source, device=kept.device)
            made.append(_described_as(ours, stack))
    return made


class _CareamicsStack(ImageStack):
    """An image stack with the metadata of one of careamics."""

    additional: Mapping[str, Any]

    @property
    def metadata(self) -> ImageMetadata:
        metadata = super().metadata
        metadata["additional_metadata"] = dict(self.additional)
        return metadata


def _described_as(stack: Any, theirs: Any) -> ImageStack:
    """Return a stack with the metadata of one of careamics."""
    stack.source = theirs.source
    stack.original_axes = theirs.original_axes
    stack.original_data_shape = theirs.original_data_shape
    stack.data_dtype = theirs.data_dtype
    # of Zarr: what careamics' `get_image_metadata` adds
    stack.additional = {
        key: value
        for key in ("chunks", "shards")
        if (value := getattr(theirs, key, None)) is not None
    }
    found: ImageStack = stack
    return found


def _check_stack(name: str, stack: object) -> None:
    missing = [m for m in (*_STACK_MEMBERS, "extract_patch") if not hasattr(stack, m)]
    if missing:
        raise TypeError(
            f"{name} must be an image stack of careamics (in memory, file, Zarr, CZI) or another "
            f"with its members, found {described(stack)}, which lacks {', '.join(missing)}"
        )


def _pixels_in_memory(stack: Any) -> NDArray[np.float32] | None:
    """Return careamics' own array of a stack, None where there is none."""
    base = careamics_class(stack, ("InMemoryImageStack",))
    return None if base is None or replaced(stack, base) else stack._data


def _samples(
    extractor: Any, data_idx: int, stack: Any, advance: Callable[[int], object]
) -> Iterator[NDArray[Any]]:
    """Read a stack sample by sample, each C(Z)YX."""
    n_samples, _, *size = stack.data_shape
    for sample_idx in range(n_samples):
        yield extractor.extract_patch(data_idx, sample_idx, (0,) * len(size), size)
        advance(1)


def _native(pixels: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return pixels in the type they had before careamics made float32 of them.

    As they are where that type cannot hold them, and where float32 takes no more room.
    """
    if dtype.itemsize >= pixels.itemsize or dtype.kind not in "biuf":
        return pixels
    with np.errstate(invalid="ignore", over="ignore"):
        native = pixels.astype(dtype.newbyteorder("="))
    return native if np.array_equal(native, pixels, equal_nan=True) else pixels
