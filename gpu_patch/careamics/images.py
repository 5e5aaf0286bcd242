"""The images of careamics' extractors, in their own type, where they are wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from gpu_patch.careamics.recognise import careamics_class, described, replaced
from gpu_patch.images import ImageStack, PatchExtractor
from gpu_patch.progress import progress_bar
from gpu_patch.specs import ImageMetadata

_STACK_MEMBERS = ("source", "data_shape", "data_dtype", "original_data_shape", "original_axes")
_extractors: WeakKeyDictionary[Any, WeakValueDictionary[str, PatchExtractor]] = WeakKeyDictionary()
"""What was made of careamics' extractors, by device, for as long as something uses it.

A training and a validation set split from the same images share them here too.
"""


def extractor_of(name: str, theirs: Any, device: str) -> PatchExtractor:
    """Return an extractor with the images of one of careamics.

    Parameters
    ----------
    name : str
        Of the argument, for messages.
    theirs : careamics' PatchExtractor
        Asked for pixels where its images are not in memory, or it has methods of its own.
    device : str
        "cpu" or "cuda:N".
    """
    base = careamics_class(theirs, ("PatchExtractor",))
    if base is None:
        raise TypeError(
            f"{name} must be careamics' PatchExtractor or a subclass, found {described(theirs)}"
        )
    known = _extractors.setdefault(theirs, WeakValueDictionary())
    ours = known.get(device)
    if ours is None:
        # one that replaces anything may give other pixels than its stacks hold
        as_given = not replaced(theirs, base)
        ours = known[device] = PatchExtractor(_stacks(name, theirs, as_given, device))
    return ours


def _stacks(name: str, theirs: Any, as_given: bool, device: str) -> list[ImageStack]:
    stacks = theirs.image_stacks
    for i, stack in enumerate(stacks):
        _check_stack(f"{name}.image_stacks[{i}]", stack)
    in_memory = [_pixels_in_memory(stack) if as_given else None for stack in stacks]
    to_read = [s.data_shape[0] for s, m in zip(stacks, in_memory, strict=True) if m is None]
    found: list[ImageStack] = []
    with progress_bar("reading images", sum(to_read), " samples") as advance:
        for i, (stack, pixels) in enumerate(zip(stacks, in_memory, strict=True)):
            dtype = np.dtype(stack.data_dtype)
            if pixels is None:
                data = np.stack(
                    [_native(sample, dtype) for sample in _samples(theirs, i, stack, advance)]
                )
            else:
                data = _native(pixels, dtype)
            found.append(_CareamicsStack(data, stack, device))
    return found


class _CareamicsStack(ImageStack):
    """An image stack with the metadata of one of careamics."""

    def __init__(self, data: NDArray[Any], theirs: Any, device: str) -> None:
        axes = "SCYX" if data.ndim == 4 else "SCZYX"
        super().__init__(data, axes, source=theirs.source, device=device)
        self.original_axes = theirs.original_axes
        self.original_data_shape = theirs.original_data_shape
        self.data_dtype = theirs.data_dtype
        # of Zarr: what careamics' `get_image_metadata` adds
        self._additional = {
            key: value
            for key in ("chunks", "shards")
            if (value := getattr(theirs, key, None)) is not None
        }

    @property
    def metadata(self) -> ImageMetadata:
        metadata = super().metadata
        metadata["additional_metadata"] = dict(self._additional)
        return metadata


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
