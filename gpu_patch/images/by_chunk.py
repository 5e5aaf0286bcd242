"""Where images that are read by chunk are kept, and whether a chunk of theirs has room there."""

from __future__ import annotations

from gpu_patch.checks import Message, argument
from gpu_patch.images.budget import Budget
from gpu_patch.images.stack import ImageStack
from gpu_patch.pages import PageCache


def cache_within(budget: Budget, n_bytes: int) -> PageCache:
    """Return a cache for images of a device.

    Parameters
    ----------
    budget : Budget
        What they may take there.
    n_bytes : int
        What it may take where the budget does not say.
    """
    limit = max(1, n_bytes if budget.limit is None else budget.limit)
    return PageCache(limit, budget.device)


def check_chunk_fits(stack: ImageStack) -> None:
    """Raise where not even one chunk of an image fits into its cache."""
    image = stack.data
    if image.largest_chunk_bytes > image.cache.budget:
        raise MemoryError(
            Message(
                f"{image.name} is read in chunks of {image.chunk_shape}, of which one takes "
                f"{image.largest_chunk_bytes} bytes, but all images may take "
                f"{image.cache.budget}: raise ",
                argument("memory_budget"),
                ", or store the image in smaller chunks or tiles" * image.is_as_stored,
            )
        )
