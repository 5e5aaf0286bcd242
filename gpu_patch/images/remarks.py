"""Warnings about images that were opened."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

from gpu_patch.checks import Message
from gpu_patch.images.readers import ImageInfo
from gpu_patch.images.values import ValueCounts


def remarks_on(infos: Sequence[ImageInfo]) -> Iterator[str]:
    """Yield each remark once, with the first image that it is about and the number of others."""
    paths: dict[str, list[str]] = {}
    for info in infos:
        for remark in info.remarks:
            paths.setdefault(remark, []).append(info.path)
    for remark, about in paths.items():
        others = f" and {len(about) - 1} more" if len(about) > 1 else ""
        yield Message(f"{about[0]}{others}: ", remark)


def warn_of_remarks(infos: Sequence[ImageInfo], *, stacklevel: int) -> None:
    """Warn of what their users should know."""
    for remark in remarks_on(infos):
        warnings.warn(remark, stacklevel=stacklevel + 1)


def warn_of_values(
    infos: Sequence[ImageInfo], counts: Sequence[ValueCounts], *, stacklevel: int
) -> None:
    """Warn of images with values that are none, in one warning for all of them."""
    wrong = [f"{info.path}: {n}" for info, n in zip(infos, counts, strict=True) if str(n)]
    if wrong:
        others = f"; likewise {len(wrong) - 1} of the other images" if len(wrong) > 1 else ""
        warnings.warn(
            f"{wrong[0]}{others}. What open_images returns has all counts in value_counts",
            stacklevel=stacklevel + 1,
        )
