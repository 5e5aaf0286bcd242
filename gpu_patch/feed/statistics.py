"""Statistics for normalisation, from the native scale of a constructor's patches alone."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import groupby, islice
from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpu_patch.checks import choice, indices_in, instance, probability, shorten, whole_number
from gpu_patch.constructors import PatchConstr
from gpu_patch.constructors.base import PlannedConstr
from gpu_patch.constructors.plan import Plan
from gpu_patch.device import on_device
from gpu_patch.draws import RestoredOnError
from gpu_patch.feed.kinds import KINDS
from gpu_patch.feed.normalization import Normalization
from gpu_patch.feed.survey import Survey, Wanted
from gpu_patch.feed.team import Team
from gpu_patch.progress import progress_bar

# Pixels of a channel that are read at once: few enough to stay in a cache, where the CPU
# computes, and enough to be worth a launch, where a device does.
_CPU_PIXELS = 1 << 17
_CUDA_PIXELS = 1 << 23

QUANTILE_METHODS = ("exact", "careamics")


def compute_normalization(
    constructor: PatchConstr,
    kind: str = "mean_std",
    *,
    per_channel: bool = True,
    lower: float | Sequence[float] = 0.01,
    upper: float | Sequence[float] = 0.99,
    skip_target: bool = False,
    indices: Sequence[int] | None = None,
    epoch: int = 0,
    batch_size: int | None = None,
    upstream_draws: bool = False,
    quantile_method: str = "exact",
    share: bool = False,
    progress: bool = True,
) -> Normalization:
    """Compute the statistics of a constructor's patches, where its images are.

    They are of what careamics 0.3.5 (`resolve_normalization_config`) takes them of: the principal
    input, which is the native scale where there is context, and the target, over all patches.
    Pixels that several patches share count several times.

    Parameters
    ----------
    constructor : PatchConstr
        One of the package's.
    kind : {"mean_std", "min_max", "quantile", "none"}
        What to compute.
    per_channel : bool, default True
        Whether each channel has statistics of its own, or all together.
    lower, upper : float or sequence of float, default 0.01 and 0.99
        Shares of the values below the quantiles, 0 ≤ lower < upper ≤ 1; one, or one per channel.
    skip_target : bool, default False
        Whether targets are to stay as they are, as labels do in any case.
    indices : sequence of int, optional
        Patches to use; default all.
    epoch : int, default 0
        Epoch whose draws say where random patches lie and how they are mixed.
    batch_size : int, optional
        Patches read at once; the default is what fits a cache or is worth a launch. Results are
        the same up to rounding.
    upstream_draws : bool, default False
        Draw as `construct_patch` does, one patch after the other from the generators, and leave
        these where careamics' own computation would; `epoch` is then of no meaning.
    quantile_method : {"exact", "careamics"}, default "exact"
        How quantiles are found. "exact" gives what `numpy.quantile` gives for all values at once:
        from one pass over images of 8 and 16 bits, from two over others and over mixtures.
        "careamics" estimates them in 65536 bins, step by step as careamics does: some 1e-5 of the
        range of the values off, so that one very bright pixel spoils them.
    share : bool, default False
        Whether the processes of torch's process group each look at a part of the patches, and all
        get the result that one alone would have. All of them must call this with equal arguments.
        careamics' estimates depend on the order of all values: each process looks at all of them.
    progress : bool, default True
        Show a bar in a terminal or notebook, where tqdm is installed, once it takes longer than a
        second.

    Returns
    -------
    Normalization
        With statistics of the target where the constructor has one.

    Raises
    ------
    ValueError
        Also for images that hold NaN or infinity, wherever a patch of any epoch may lie, and for
        those that hold one value only, which cannot be normalised. Names the image, the sample and
        the channel. Of strategies that are not of this package, the patches given are looked at.

    Warns
    -----
    UserWarning
        Where some of the samples are empty: they hold one value each, as frames that were not
        acquired do. Where careamics' estimate of a quantile is beyond all values.

    Examples
    --------
    >>> import numpy as np
    >>> from gpu_patch import BasicPatchConstr, ImageStack, PatchExtractor, SequentialPatching
    >>> pixels = np.arange(100, dtype=np.uint8).reshape(10, 10)
    >>> images = PatchExtractor([ImageStack.from_array(pixels, "YX")])
    >>> constructor = BasicPatchConstr(SequentialPatching(images.shapes, (5, 5)), images)
    >>> compute_normalization(constructor, "min_max")
    Normalization.min_max(input_mins=[0.0], input_maxes=[99.0])
    """
    checked: PlannedConstr = instance(
        "constructor", constructor, PlannedConstr, "one of gpu_patch's constructors"
    )
    choice("kind", kind, KINDS)
    choice("quantile_method", quantile_method, QUANTILE_METHODS)
    levels = _checked_levels(lower, upper)
    if batch_size is not None:
        whole_number("batch_size", batch_size, minimum=1)
    if kind == "none":
        return Normalization.none()
    n_patches = checked.n_patches
    if n_patches == 0:
        raise ValueError("constructor has 0 patches: there is nothing to compute statistics of")
    chosen = range(n_patches) if indices is None else indices
    index = indices_in("indices", chosen, n_patches, "patches")
    most_pixels = _CPU_PIXELS if checked.device == "cpu" else _CUDA_PIXELS
    skip_target = skip_target or checked.sampling.has_labels
    survey = Survey(checked, Wanted(kind, *levels, quantile_method, per_channel, not skip_target))
    plans = partial(_plans, checked, index, epoch, batch_size, most_pixels, upstream_draws)
    # plans of strategies that would draw other places a second time are kept for a second pass
    repeats = not upstream_draws and all(
        placement.places_batches for placement in checked.sampling.placements
    )
    team = Team.of(share)
    if (kind, quantile_method) == ("quantile", "careamics") or upstream_draws:
        team = Team()
    bar = partial(progress_bar, total=len(index), unit=" patches", wanted=progress)
    with (
        RestoredOnError(checked.sampling.generators(batch=not upstream_draws)),
        on_device(checked.device),
        np.errstate(over="ignore", invalid="ignore"),  # refused below
    ):
        with team.together():
            own = team.own(len(index))
            kept = _take_in(survey, plans(), own, bar("Normalization"), keep_all=not repeats)
            if indices is None:
                survey.check_reach(kept[-1], most_pixels, team)
        survey.join(team)
        if survey.needs_second_pass():
            again = plans() if repeats else kept
            with team.together():
                _take_in(survey, again, own, bar("Normalization, second pass"), keep_all=False)
            survey.join(team)
        results = survey.results()
        made = Normalization(kind, results["input"], results.get("target"), skip_target)
    for remark in survey.remarks():
        warnings.warn(remark, stacklevel=2)
    return made


def _take_in(
    survey: Survey,
    plans: Iterable[Plan],
    own: range,
    bar: AbstractContextManager[Any],
    *,
    keep_all: bool,
) -> list[Plan]:
    """Take the plans whose first patch is one of `own` into the statistics.

    The first plan of all is looked at in any case: what is counted from depends on it. Returns all
    plans, or the last one alone.
    """
    kept: list[Plan] = []
    first = 0
    with bar as advance:
        for plan in plans:
            if first in own or not first:
                survey.update(plan, taken=first in own)
            if not keep_all:
                kept.clear()
            kept.append(plan)
            first += len(plan.sources.image_idx)
            advance(len(plan.sources.image_idx))
    return kept


def _plans(
    constructor: PlannedConstr,
    index: NDArray[np.int64],
    epoch: int,
    batch_size: int | None,
    most_pixels: int,
    upstream_draws: bool,
) -> Iterator[Plan]:
    """Plan the patches in order, a few at once."""

    def at_once(size: Sequence[int]) -> int:
        return batch_size or max(1, most_pixels // prod(size))

    indices = index.tolist()
    sizes = {tuple(size) for size in constructor.sampling.patch_sizes}
    if len(sizes) == 1 and not upstream_draws:
        step = at_once(sizes.pop())
        for first in range(0, len(indices), step):
            yield constructor.plan_batch(indices[first : first + step], epoch=epoch)
        return
    # one by one: a batch has one patch size, and only plans tell which there are
    singles = (
        constructor.plan_patch(i) if upstream_draws else constructor.plan_batch([i], epoch=epoch)
        for i in indices
    )
    for (size, plain), group in groupby(singles, lambda p: (p.patch_size, p.epilogue is None)):
        while some := list(islice(group, at_once(size) if plain else 1)):
            yield _joined(some)


def _joined(plans: Sequence[Plan]) -> Plan:
    """Join plans without epilogues; the specs, which are not looked at, stay those of the first."""
    # some samples may have their channels from one place, others from places of their own
    n_places = max(plan.sources.image_idx.shape[1] for plan in plans)

    def joined(column: str) -> NDArray[np.int64]:
        parts = [getattr(plan.sources, column) for plan in plans]
        return np.concatenate(
            [np.broadcast_to(part, (len(part), n_places, *part.shape[2:])) for part in parts]
        )

    columns = {name: joined(name) for name in ("image_idx", "sample_idx", "coords")}
    weights = [plan.weights for plan in plans if plan.weights is not None]
    return plans[0].moved(
        plans[0].sources._replace(**columns), weights=np.concatenate(weights) if weights else None
    )


def _checked_levels(
    lower: ArrayLike, upper: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    lows, highs = (
        np.array([probability(name, v) for v in np.atleast_1d(np.asarray(values)).tolist()])
        for name, values in (("lower", lower), ("upper", upper))
    )
    if len(lows) != len(highs) or not len(lows) or (lows >= highs).any():
        raise ValueError(
            "lower and upper must be equally many numbers, each lower one below its upper one, "
            f"found {shorten(lower)} and {shorten(upper)}"
        )
    return lows, highs
