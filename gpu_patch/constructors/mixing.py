"""Mixing for MicroSplit: the weights of structures, and structures that are absent.

The modes are those of the MicroSplit paper (Ashesh et al., "MicroSplit: semantic unmixing of
fluorescent microscopy data", 2025) as careamics 0.3.5 builds them
(`careamics.dataset.patch_constructor.microsplit_patch_constructors`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from numbers import Real

import numpy as np
from numpy.typing import NDArray

from gpu_patch.checks import probability, shorten
from gpu_patch.draws import DrawPurpose, DrawSpec
from gpu_patch.epilogue import Epilogue


class Weights:
    """Mixing weights: drawn per channel, or 1 / C where no ranges are given."""

    def __init__(self, ranges: Sequence[tuple[float, float]] | None, n_channels: int) -> None:
        self.n_channels = n_channels
        self.ranges = None if ranges is None else np.array(ranges).T
        # a spec per channel: its weights are the same however many channels there are
        drawn = range(n_channels) if ranges is not None else ()
        self.draw_specs = [DrawSpec(DrawPurpose.WEIGHT, c, 1) for c in drawn]

    def from_generator(self, rng: np.random.Generator) -> NDArray[np.float32]:
        if self.ranges is None:
            return np.full((1, self.n_channels), 1 / self.n_channels, np.float32)
        low, high = self.ranges
        return np.asarray(rng.uniform(low, high)[None], np.float32)

    def from_uniforms(
        self, uniforms: Sequence[NDArray[np.float64]], n_samples: int
    ) -> NDArray[np.float32]:
        if self.ranges is None:
            return np.full((n_samples, self.n_channels), 1 / self.n_channels, np.float32)
        low, high = self.ranges
        return np.asarray(low + (high - low) * np.concatenate(uniforms).T, np.float32)


class Absence:
    """Structures that samples of a batch may lack.

    Parameters
    ----------
    prob : sequence of float, or None
        Probability per channel; None: no structure is ever absent.
    background : sequence of float
        What is there instead, per channel.
    """

    def __init__(self, prob: Sequence[float] | None, background: Sequence[float]) -> None:
        self._prob = None if prob is None else np.array(prob)
        self._background = np.array(background, np.float32)
        drawn = range(len(background)) if prob is not None else ()
        self.draw_specs = [DrawSpec(DrawPurpose.ABSENT, c, 1) for c in drawn]

    def __call__(
        self, uniforms: Sequence[NDArray[np.float64]], weights: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], Epilogue | None]:
        """Return weights (B, C), 0 for what is absent, and what puts the background there."""
        if self._prob is None:
            return weights, None
        absent = self._prob > np.concatenate(uniforms).T
        level = np.where(absent, self._background, np.float32(0))
        present = Epilogue.identity(len(weights), 1, weights.shape[1])
        epilogue = replace(
            present,
            # cumsum adds channel by channel: rounding is the same in any batch
            input_offset=(weights * level).cumsum(axis=1)[:, -1:],
            target_scale=np.where(absent, np.float32(0), present.target_scale),
            target_offset=level,
        )
        return np.where(absent, np.float32(0), weights), epilogue


def checked_absence(
    absent_prob: object, background: object, n_channels: int, channels: Sequence[int]
) -> Absence:
    """Return what `absent_prob` and `background` say, given per channel of the images or for all.

    Parameters
    ----------
    absent_prob, background
        As the constructors take them.
    n_channels : int
        Channels of the images.
    channels : sequence of int
        Those that are used.
    """
    levels = _per_channel("background", background, n_channels, _level)
    prob = absent_prob
    if prob is not None:
        prob = _per_channel("absent_prob", absent_prob, n_channels, probability)
    return Absence(prob and [prob[c] for c in channels], [levels[c] for c in channels])


def _per_channel(
    name: str, value: object, n_channels: int, check: Callable[[str, object], float]
) -> list[float]:
    if isinstance(value, str) or not isinstance(value, (Sequence, np.ndarray)):
        return [check(name, value)] * n_channels
    if len(value) != n_channels:
        raise ValueError(
            f"{name} must be one number, or one per channel of the images, {n_channels}, "
            f"found {shorten(value)}"
        )
    return [check(f"{name}[{i}]", item) for i, item in enumerate(value)]


def _level(name: str, value: object) -> float:
    if not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, found {shorten(value)}")
    if not abs(float(value)) <= float(np.finfo(np.float32).max):
        raise ValueError(f"{name} must be finite in float32, found {shorten(value)}")
    return float(value)


def checked_patch_sizes(sizes: Sequence[Sequence[int]]) -> None:
    """Check that all channels of a patch have one size."""
    differ = [size for size in sizes if tuple(size) != tuple(sizes[0])]
    if differ:
        raise ValueError(
            "the channels of a patch must have one patch_size, found "
            f"{tuple(sizes[0])} and {tuple(differ[0])}"
        )
