"""Patches that keep to signal: background of the images made rare, or left out.

After careamics 0.3.5 (`careamics.dataset.factory.filter_bg`).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch.checks import choice, instance, probability, sequence, whole_number
from gpu_patch.constructors.checks import checked_extractor
from gpu_patch.constructors.placement import Placement
from gpu_patch.feed.cells import CellWindows, Sample, paint
from gpu_patch.feed.filter_report import FilterReport
from gpu_patch.feed.filters import PatchFilter
from gpu_patch.feed.team import Team
from gpu_patch.images import PatchExtractor
from gpu_patch.images.names import check_pairs
from gpu_patch.patching import StratifiedPatching


def filter_background(
    patching_strategy: StratifiedPatching,
    extractor: PatchExtractor,
    patch_filter: PatchFilter | Sequence[PatchFilter],
    *,
    ref_channel: int | Sequence[int] = 0,
    keep: str = "any",
    filtered_patch_prob: float = 0.1,
    share: bool = False,
    progress: bool = True,
) -> FilterReport:
    """Make patches of background rare.

    Looks at the regions of twice the patch size that patches starting in a grid cell touch, and
    sets the probability of the cells whose region is background. After careamics'
    `filter_background`, and with `MaskFilter` and an extractor of masks its
    `filter_background_with_mask`; as there, regions hold zeros outside the image. Acts on the
    strategy alone, so it serves every constructor.

    Parameters
    ----------
    patching_strategy : StratifiedPatching
        Changed in place: its number of patches falls.
    extractor : PatchExtractor
        The images that decide; of the strategy's shapes, with any channels. A strategy made of
        `PatchExtractor.shapes` knows its images: those of folders and patterns must be partners
        by the names of their files.
    patch_filter : PatchFilter or sequence of PatchFilter
        One for all channels named, or one for each.
    ref_channel : int or sequence of int, default 0
        Channels that decide.
    keep : {"any", "all"}
        Whether any filter must find signal, or all of them.
    filtered_patch_prob : float, default 0.1
        Probability of background, relative to 1, in [0, 1].
    share : bool, default False
        Whether the processes of torch's process group each look at a part of the cells; all get
        the same result. All of them must call this with equal arguments.
    progress : bool, default True
        Show a bar in a terminal or notebook, where tqdm is installed, once it takes longer than a
        second.

    Returns
    -------
    FilterReport
        What was found.

    Raises
    ------
    ValueError
        If all is background, or no patch would be left. The strategy is then as it was.

    Examples
    --------
    >>> import numpy as np
    >>> from gpu_patch import ImageStack, PatchExtractor, StratifiedPatching
    >>> from gpu_patch.feed import MaxFilter
    >>> image = np.zeros((64, 96))
    >>> image[:, 70:] = 100
    >>> extractor = PatchExtractor([ImageStack.from_array(image, "YX", device="cpu")])
    >>> strategy = StratifiedPatching(extractor.shapes, (16, 16), seed=0)
    >>> filter_background(strategy, extractor, MaxFilter(50), progress=False)
    FilterReport: 12 of 24 regions kept
      image stack 0: 12 of 24
    """
    prob = probability("filtered_patch_prob", filtered_patch_prob)
    report = find_background(
        patching_strategy,
        extractor,
        patch_filter,
        ref_channel=ref_channel,
        keep=keep,
        share=share,
        progress=progress,
    )
    _change(
        patching_strategy,
        report,
        lambda strategy, sample, cells: strategy.set_region_probs(
            *sample, dict.fromkeys(cells, prob)
        ),
    )
    return report


def exclude_background(
    patching_strategy: StratifiedPatching,
    extractor: PatchExtractor,
    patch_filter: PatchFilter | Sequence[PatchFilter],
    *,
    ref_channel: int | Sequence[int] = 0,
    keep: str = "any",
    share: bool = False,
    progress: bool = True,
) -> FilterReport:
    """Exclude grid cells that are background: no patch will touch any of their pixels.

    Stricter than `filter_background`: also patches that hold signal beside background are left
    out. Looks at the cells themselves, those at the end of an axis cut to the image.

    Parameters
    ----------
    patching_strategy, extractor, patch_filter, ref_channel, keep, share, progress
        As in `filter_background`.

    Returns
    -------
    FilterReport
        What was found.

    Raises
    ------
    ValueError
        If all is background, or no patch would be left. The strategy is then as it was.
    """
    report = find_background(
        patching_strategy,
        extractor,
        patch_filter,
        ref_channel=ref_channel,
        keep=keep,
        regions=False,
        share=share,
        progress=progress,
    )
    _change(
        patching_strategy,
        report,
        lambda strategy, sample, cells: strategy.exclude_patches(*sample, cells),
    )
    return report


def find_background(
    patching_strategy: StratifiedPatching,
    extractor: PatchExtractor,
    patch_filter: PatchFilter | Sequence[PatchFilter],
    *,
    ref_channel: int | Sequence[int] = 0,
    keep: str = "any",
    regions: bool = True,
    share: bool = False,
    progress: bool = True,
) -> FilterReport:
    """Tell what `filter_background` or `exclude_background` would do, and change nothing.

    Parameters
    ----------
    patching_strategy, extractor, patch_filter, ref_channel, keep, share, progress
        As in `filter_background`.
    regions : bool, default True
        Look at regions, as `filter_background` does, or at cells, as `exclude_background` does.

    Returns
    -------
    FilterReport
        What was found.

    Raises
    ------
    TypeError, ValueError
        An argument is wrong, or they do not go together; the message names it.
    """
    _check_together(patching_strategy, extractor)
    pairs = _filters_of_channels(patch_filter, ref_channel, extractor.n_channels)
    combine = operator.or_ if choice("keep", keep, ("any", "all")) == "any" else operator.and_
    channels = sorted({channel for _, channel in pairs})

    def keeps(cells: Any) -> dict[str, Any]:
        kept = [one.keeps(cells[:, channels.index(channel)]) for one, channel in pairs]
        return {"kept": reduce(combine, kept)}

    windows = CellWindows(patching_strategy, regions)
    found = windows.measure(extractor, channels, keeps, progress, Team.of(share))["kept"]
    return FilterReport(
        windows.grids(found), patching_strategy.data_shapes, patching_strategy.patch_size, regions
    )


def score_maps(
    patching_strategy: StratifiedPatching,
    extractor: PatchExtractor,
    patch_filter: PatchFilter,
    *,
    ref_channel: int = 0,
    share: bool = False,
    progress: bool = True,
) -> list[dict[str, NDArray[Any]]]:
    """Return pictures to choose thresholds from, as careamics' `filter_map` of each filter.

    Parameters
    ----------
    patching_strategy, extractor, share, progress
        As in `filter_background`.
    patch_filter : PatchFilter
        What measures; its thresholds do not matter.
    ref_channel : int, default 0
        Channel that is measured.

    Returns
    -------
    list of dict of str to array, S(Z)YX
        For each image stack and score, by the name of the parameter that it is compared with:
        each pixel's largest score of all regions that it lies in.
    """
    _check_together(patching_strategy, extractor)
    ((one, channel),) = _filters_of_channels([patch_filter], ref_channel, extractor.n_channels)
    windows = CellWindows(patching_strategy, regions=True)
    found = windows.measure(
        extractor, [channel], lambda cells: one.scores(cells[:, 0]), progress, Team.of(share)
    )
    shapes, patch_size = patching_strategy.data_shapes, patching_strategy.patch_size
    maps = {
        name: paint(windows.grids(scores), shapes, patch_size, regions=True)
        for name, scores in found.items()
    }
    return [{name: of_stack[i] for name, of_stack in maps.items()} for i in range(len(shapes))]


def _check_together(strategy: object, extractor: object) -> None:
    instance(
        "patching_strategy",
        strategy,
        StratifiedPatching,
        "a StratifiedPatching, which alone can leave parts of images out",
    )
    images = checked_extractor("extractor", extractor)
    if strategy.origins is not None:  # type: ignore[attr-defined]
        check_pairs(("patching_strategy", "extractor"), strategy.origins, images.origins)  # type: ignore[attr-defined]
    Placement("patching_strategy", strategy, images)  # type: ignore[arg-type]


def _filters_of_channels(
    patch_filter: object, ref_channel: object, n_channels: int
) -> list[tuple[PatchFilter, int]]:
    wanted = "a PatchFilter"
    several = not isinstance(patch_filter, PatchFilter)
    filters: Sequence[Any] = (
        sequence("patch_filter", patch_filter, wanted) if several else [patch_filter]
    )
    for i, one in enumerate(filters):
        instance(f"patch_filter[{i}]" if several else "patch_filter", one, PatchFilter, wanted)
    named = ref_channel if isinstance(ref_channel, (Sequence, np.ndarray)) else [ref_channel]
    channels = [whole_number("ref_channel", c, minimum=0, maximum=n_channels - 1) for c in named]
    if not filters or not channels:
        raise ValueError("patch_filter and ref_channel must name at least one filter and channel")
    if len(filters) > 1 < len(channels) and len(filters) != len(channels):
        raise ValueError(
            f"patch_filter must be one filter, or one for each of the {len(channels)} channels of "
            f"ref_channel, found {len(filters)}"
        )
    n = max(len(filters), len(channels))
    return [(filters[i % len(filters)], channels[i % len(channels)]) for i in range(n)]


def _change(
    strategy: StratifiedPatching,
    report: FilterReport,
    change: Callable[[StratifiedPatching, Sample, list[tuple[int, ...]]], None],
) -> None:
    """Change the cells that are background, unless nothing would be left."""
    if not report.n_kept:
        raise ValueError(
            f"patch_filter finds no signal in any of the {report.n_cells} cells, nothing would be "
            "left: lower its thresholds, score_maps shows which values there are"
        )
    trial = deepcopy(strategy)
    for changed in (trial, strategy):
        for sample, kept in report.kept.items():
            change(changed, sample, [tuple(cell) for cell in np.argwhere(~kept).tolist()])
        if not changed.n_patches:
            raise ValueError(
                f"patch_filter keeps {report.n_kept} of {report.n_cells} cells, but no patch fits "
                "into them together with what was excluded before: lower its thresholds"
            )
