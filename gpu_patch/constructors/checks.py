"""Checks of what constructors are given."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np

from gpu_patch.checks import Message, argument, choice, instance, sequence, shorten, whole_number
from gpu_patch.geometry import PADDING_MODES
from gpu_patch.images import PatchExtractor
from gpu_patch.images.names import check_pairs, describe

_MOST_SCALES = 16


def checked_extractor(name: str, extractor: object, *, labels: bool = False) -> PatchExtractor:
    """Return `extractor` where it is one, of images that can be calculated with unless `labels`."""
    checked: PatchExtractor = instance(name, extractor, PatchExtractor, "a PatchExtractor")
    wide = () if labels else checked.images.wide_integers
    if wide:
        raise TypeError(
            Message(
                argument(name),
                f" holds labels of {wide[0]}, which are for targets with images of their own: open "
                "the images without ",
                argument("labels", True),
            )
        )
    return checked


def checked_context(multiscale_count: object, padding_mode: object) -> tuple[int, str]:
    """Return the scales of a lateral context, and how windows continue beyond the image."""
    n_scales = whole_number("multiscale_count", multiscale_count, minimum=1, maximum=_MOST_SCALES)
    return n_scales, choice("padding_mode", padding_mode, PADDING_MODES)


def checked_single_channel(name: str, extractor: PatchExtractor, why: str) -> None:
    """Check that an extractor has one channel."""
    if extractor.n_channels != 1:
        raise ValueError(
            f"{name} must have 1 channel ({why}), found {extractor.n_channels} channels"
        )


def checked_pairs(names: tuple[str, str], first: PatchExtractor, second: PatchExtractor) -> None:
    """Check that the images of two extractors are pairs, of one size and on one device."""
    check_pairs(names, first.origins, second.origins)
    a = [(shape[0], *shape[2:]) for shape in first.shapes]
    b = [(shape[0], *shape[2:]) for shape in second.shapes]
    if a != b:
        raise ValueError(
            Message(
                argument(names[0]),
                " and ",
                argument(names[1]),
                f" must have the same samples and spatial shapes, found {shorten(first.shapes)} "
                f"and {shorten(second.shapes)}: ",
                " and ".join(_first_to_differ(first, a, b) + _first_to_differ(second, b, a)),
            )
        )
    checked_same_device(names, [first, second])


def _first_to_differ(extractor: PatchExtractor, shapes: list[Any], others: list[Any]) -> list[str]:
    """Name the images where numbers differ, else the first one that has no partner's shape."""
    if len(shapes) != len(others):
        return [describe(extractor.origins)]
    i = next(i for i, shape in enumerate(shapes) if shape != others[i])
    return [f"'{extractor.origins[i].label}' ({i}) has {extractor.shapes[i]}"]


def checked_same_device(names: Sequence[str], extractors: Sequence[PatchExtractor]) -> None:
    """Check that extractors have their images in one place."""
    devices = {extractor.device for extractor in extractors}
    if len(devices) > 1:
        raise ValueError(f"{', '.join(names)} must be on one device, found {sorted(devices)}")


def checked_alpha_ranges(alpha_ranges: object, n_channels: int) -> list[tuple[float, float]] | None:
    """Return `alpha_ranges` as finite (low, high) per channel, or None."""
    if alpha_ranges is None:
        return None
    pairs = [
        _alpha_range(f"alpha_ranges[{i}]", pair)
        for i, pair in enumerate(sequence("alpha_ranges", alpha_ranges, "(low, high)"))
    ]
    if len(pairs) != n_channels:
        raise ValueError(
            f"alpha_ranges must have one (low, high) per channel of the images, {n_channels}, "
            f"found {len(pairs)}"
            + (": channels are the structures that are mixed" if n_channels == 1 else "")
        )
    return pairs


def _alpha_range(name: str, pair: object) -> tuple[float, float]:
    wanted = f"{name} must be (low, high), found {shorten(pair)}"
    if isinstance(pair, str) or not isinstance(pair, (Sequence, np.ndarray)):
        raise TypeError(wanted)
    if len(pair) != 2:
        raise ValueError(wanted)
    if not all(isinstance(value, Real) for value in pair):
        raise TypeError(wanted)
    low, high = float(pair[0]), float(pair[1])
    # weights are float32
    if not (max(abs(low), abs(high)) <= float(np.finfo(np.float32).max) and low <= high):
        raise ValueError(f"{name} must be finite in float32 with low ≤ high, found {shorten(pair)}")
    return low, high


def checked_generator(rng: object) -> np.random.Generator:
    """Return `rng`, a fresh one for None."""
    if rng is None:
        return np.random.default_rng()
    checked: np.random.Generator = instance(
        "rng", rng, np.random.Generator, "a numpy.random.Generator or None"
    )
    return checked
