"""What statistics are of: the native scale of patches, part by part, checked on the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpu_patch.checks import shorten
from gpu_patch.constructors.base import PlannedConstr
from gpu_patch.constructors.plan import Plan, Read
from gpu_patch.device import library_of
from gpu_patch.feed.accumulators import (
    Accumulator,
    CareamicsQuantiles,
    MeanStd,
    MinMax,
    Quantiles,
)
from gpu_patch.feed.kinds import NAMES, Statistics
from gpu_patch.feed.ranges import Ranges, finite_range
from gpu_patch.feed.reach import reach
from gpu_patch.feed.team import Team
from gpu_patch.finite import is_finite
from gpu_patch.ops import gather

_SMALL = frozenset(map(np.dtype, ("bool", "uint8", "int8", "uint16", "int16")))
"""Data types whose values are whole numbers of at most 16 bits."""

_BIN_ROUNDING = 1e-3
"""How far estimates may lie outside all values, as a part of the distance of the two estimates."""


class Wanted(NamedTuple):
    """What is to be computed, as `compute_normalization` takes it."""

    kind: str
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    quantile_method: str
    per_channel: bool
    target: bool


class _Patches(NamedTuple):
    """Patches (B, C, (Z), Y, X) as the images hold them, and where they come from."""

    name: str
    read: Read
    pixels: Any


class Survey:
    """Statistics of input and target, of plan after plan.

    Parameters
    ----------
    constructor : PlannedConstr
        Whose plans they are.
    wanted : Wanted
        What to compute.
    """

    def __init__(self, constructor: PlannedConstr, wanted: Wanted) -> None:
        self._constructor, self._wanted = constructor, wanted
        self._accumulators: dict[str, Accumulator] = {}
        self._ranges: dict[str, Ranges] = {}
        self._unchanged: dict[str, str] = {}
        """Which patches a part is, where it is nothing but patches."""

    def update(self, plan: Plan, *, taken: bool = True) -> None:
        """Take the patches of a plan in; in a second pass, all of them again.

        Parameters
        ----------
        plan : Plan
            The first one must be that of all processes.
        taken : bool, default True
            Whether its values count: on one process of a team alone.
        """
        patches = self._gathered(plan)
        for name, (images, sources, *_), pixels in patches:
            if name not in self._ranges:
                self._ranges[name] = Ranges(name, images, sources.channels)
            if taken:
                self._ranges[name].update(pixels, sources)
        for part, pixels in self._native_scale(plan, patches).items():
            n_channels = pixels.shape[1] if self._wanted.per_channel else 1
            values = pixels.reshape(len(pixels), n_channels, -1)
            if part not in self._accumulators:
                self._accumulators[part] = self._accumulator(values, part)
            origin = [each for each in patches if each.pixels is pixels]
            whole = bool(origin) and all(
                array.dtype in _SMALL for array in origin[0].read.images.arrays
            )
            if taken:
                self._accumulators[part].update(values, whole=whole)
            name = origin[0].name if origin else ""
            self._unchanged[part] = name if self._unchanged.get(part, name) == name else ""

    def join(self, team: Team) -> None:
        """Take in what each process of a team has taken in, in this pass."""
        if team.size == 1:
            return
        for ranges in self._ranges.values():
            ranges.join(team)
        for found in self._accumulators.values():
            found.join(team)
        for part in self._unchanged:
            names = set(team.all_of(self._unchanged[part]))
            self._unchanged[part] = names.pop() if len(names) == 1 else ""

    def check_reach(self, like: Plan, at_once: int, team: Team) -> None:
        """Refuse values that are not finite where another epoch's patches may lie.

        Parameters
        ----------
        like : Plan
            One of the constructor's plans.
        at_once : int
            Pixels of a channel to look at in one go.
        team : Team
            Whose part of them is looked at.
        """
        finite: dict[int, bool] = {}
        for plan in reach(self._constructor, like):
            n = max(1, at_once // prod(plan.patch_size))
            for name, read in self._reads(plan):
                images, sources = read.images, read.sources
                if id(images) not in finite:
                    finite[id(images)] = images.pages is None and all(map(is_finite, images.arrays))
                if finite[id(images)] or not any(a.dtype.kind == "f" for a in images.arrays):
                    continue
                firsts = range(0, len(sources.image_idx), n)
                for i in (firsts[k] for k in team.own(len(firsts))):
                    places = (sources.image_idx, sources.sample_idx, sources.coords)
                    some = sources._replace(
                        **dict(zip(sources._fields, (p[i : i + n] for p in places), strict=False))
                    )
                    pixels = gather(images, some, plan.patch_size)
                    finite_range(name, images, pixels, some)

    def needs_second_pass(self) -> bool:
        """Tell, once all plans are in, whether they must all come again."""
        # all are asked, since asking also ends their first pass
        needs = [found.needs_second_pass() for found in self._accumulators.values()]
        return any(needs)

    def results(self) -> dict[str, Statistics]:
        """Return the statistics of every part.

        Raises
        ------
        ValueError
            Where there is nothing to scale by.
        """
        results = {part: found.result() for part, found in self._accumulators.items()}
        for part, found in results.items():
            if not np.isfinite(found).all():
                raise ValueError(
                    f"the {part} images must hold values whose mixtures and sums of squares are "
                    f"finite in float32: their {self._wanted.kind} statistics are {shorten(found)}"
                )
            for c, (first, second) in enumerate(zip(*found, strict=True)):
                self._check_width(part, c, first, second)
        return results

    def remarks(self) -> Iterator[str]:
        """Say what is worth a warning."""
        for ranges in self._ranges.values():
            yield from ranges.remarks()
        for part, found in self._accumulators.items():
            if isinstance(found, CareamicsQuantiles):
                for c, ends in enumerate(zip(*found.result(), found.ends, strict=True)):
                    yield from beyond(part, c, *ends)

    def _check_width(self, part: str, c: int, first: float, second: float) -> None:
        kind, per_channel = self._wanted.kind, self._wanted.per_channel
        names = [f"{part}_{name}[{c}]" for name in NAMES[kind]]
        ranges = self._ranges.get(self._unchanged[part])
        value = ranges and ranges.single_value(c if per_channel else None)
        if ranges is not None and value is not None:
            which = f"channel {ranges.channels[c]} of the {part} images" if per_channel else ""
            raise ValueError(
                f"{' and '.join(names)} would be of no use: {which or f'the {part} images'} "
                f"{'holds' if which else 'hold'} a single value, {value:g}, in {ranges.seen()}. "
                "Leave that out, or use kind='none'"
            )
        if (second if kind == "mean_std" else second - first) > 0:
            return
        if kind == "quantile":
            share = float((self._wanted.upper - self._wanted.lower).min())
            raise ValueError(
                f"{names[0]} and {names[1]} are both {first:g}: about {share:.4g} of the values "
                "between these quantiles, or more, are equal. Give a lower that is nearer to 0 or "
                "an upper that is nearer to 1, or another kind"
            )
        raise ValueError(
            f"{names[1]} must be {'more than 0' if kind == 'mean_std' else f'above {names[0]}'}, "
            f"found {second:g}: the {part} holds a single value"
        )

    def _reads(self, plan: Plan) -> list[tuple[str, Read]]:
        """Tell what is read; where the input is mixed from the targets, these are."""
        names = ["target"] if plan.is_mixture else ["input", "target"]
        found = list(zip(names, plan.reads, strict=False))
        return found if self._wanted.target else found[:1]

    def _gathered(self, plan: Plan) -> list[_Patches]:
        return [
            _Patches(
                name,
                read,
                # what lies beyond a border depends on how many scales there are
                gather(
                    read.images,
                    read.sources,
                    plan.patch_size,
                    mode=read.mode,
                    n_scales=read.n_scales,
                ),
            )
            for name, read in self._reads(plan)
        ]

    def _native_scale(self, plan: Plan, patches: Sequence[_Patches]) -> dict[str, Any]:
        """Return principal input and target (B, C, (Z), Y, X), the target where it is wanted."""
        channels = patches[0].pixels
        found = {"input": _mixed(channels, plan.weights)}
        if self._wanted.target and plan.n_channels[1]:
            found["target"] = patches[-1].pixels
        if plan.epilogue is None:
            return found
        return {
            part: values * _beside(values, getattr(plan.epilogue, f"{part}_scale"))
            + _beside(values, getattr(plan.epilogue, f"{part}_offset"))
            for part, values in found.items()
        }

    def _accumulator(self, first: Any, part: str) -> Accumulator:
        kind, lower, upper, method, *_ = self._wanted
        if kind == "mean_std":
            return MeanStd(first)
        if kind == "min_max":
            return MinMax()
        n_channels = first.shape[1]
        if len(lower) not in (1, n_channels):
            raise ValueError(
                f"lower and upper must have one number, or one for each of the {n_channels} "
                f"channels of the {part}, found {len(lower)}"
            )
        made = Quantiles if method == "exact" else CareamicsQuantiles
        levels = [np.broadcast_to(level, n_channels).tolist() for level in (lower, upper)]
        return made(library_of(first), *levels)


def beyond(part: str, c: int, low: float, high: float, ends: tuple[float, float]) -> Iterator[str]:
    """Say where estimates of quantiles, `low` and `high`, are beyond all values of a channel."""
    rounding = _BIN_ROUNDING * (high - low)
    for name, estimate in zip(NAMES["quantile"], (low, high), strict=True):
        if not ends[0] - rounding <= estimate <= ends[1] + rounding:
            yield (
                f"{part}_{name}[{c}] is {estimate:g}, as careamics estimates it, but all values "
                f"lie in {ends[0]:g} … {ends[1]:g}: a few of them are far from the others. "
                "compute_normalization(…, 'quantile') gives the exact quantiles"
            )


def _mixed(channels: Any, weights: NDArray[np.float32] | None) -> Any:
    """Return the weighted sum of channels, (B, 1, (Z), Y, X); plain patches as they are."""
    if weights is None or (channels.shape[1] == 1 and (weights == 1).all()):
        return channels
    factors = _beside(channels, weights)
    mixed = channels[:, :1] * factors[:, :1]
    for c in range(1, channels.shape[1]):
        mixed += channels[:, c : c + 1] * factors[:, c : c + 1]
    return mixed


def _beside(patches: Any, numbers: NDArray[np.float32]) -> Any:
    """Return numbers (B, C) so that they go with patches (B, C, (Z), Y, X)."""
    shape = (*numbers.shape, *[1] * (patches.ndim - 2))
    return library_of(patches).asarray(numbers).reshape(shape)
