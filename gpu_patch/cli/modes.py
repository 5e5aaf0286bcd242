"""From files and a mode to a constructor, whose patches there are to show."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpu_patch import (
    BasicPatchConstr,
    ImageStack,
    IndependentTargetsMsPatchConstr,
    MultiChannelTargetMsPatchConstr,
    PairedInputTargetMsPatchConstr,
    PatchExtractor,
    PredMsPatchConstr,
    RandomPatching,
    TiledPatching,
)
from gpu_patch.cli.messages import one_line, short_warnings
from gpu_patch.cli.mode_checks import (
    channels_of,
    check_channels,
    check_targets,
    check_targets_pair,
    full_patch_size,
)
from gpu_patch.images import named_once, open_images
from gpu_patch.plots.subject import Subject, subject_of

if TYPE_CHECKING:
    from gpu_patch.constructors.base import PlannedConstr
    from gpu_patch.geometry import PaddingMode

MODES = ("multichannel", "independent", "paired", "pred", "basic")
_NUMBERS = dict(zip(("i", "ii", "iii"), MODES, strict=False))
"""Of MicroSplit's training modes."""
WEIGHT_RANGE = (0.2, 0.8)


def mode_named(text: str) -> str:
    """Return the mode of a name or a number of MicroSplit's, I to III."""
    name = text.lower()
    return _NUMBERS.get(name, name)


def load(
    argument: str,
    names: Sequence[str | Path],
    axes: str | None,
    options: Mapping[str, str],
    **choice: Any,
) -> list[PatchExtractor]:
    """Read the images of each file, pattern and folder.

    Parameters
    ----------
    argument : str
        Where `names` come from, which errors name beside the file.
    names, axes : sequence of str or Path, str or None
        As for `open_images`.
    options : dict of str to str
        The command's option for each of the arguments of `open_images` that errors speak of.
    **choice
        Further arguments of `open_images`.
    """
    choice = {"device": "cpu", "by_chunk": False, "progress": False, **choice}
    groups = []
    with short_warnings(options):
        for name in named_once(names, allow_outside=choice.get("allow_outside", False)):
            try:
                groups.append(open_images(name, axes, **choice))
            except MemoryError as error:
                raise ValueError(
                    f"argument {argument}: '{name}' does not fit in memory: give a part of it, "
                    "or another --level of a pyramid"
                ) from error
            except (OSError, ValueError, TypeError) as error:
                raise ValueError(f"argument {argument}: {one_line(error, options)}") from error
    return groups


def make_subject(
    groups: Sequence[PatchExtractor | list[ImageStack]],
    targets: Sequence[PatchExtractor | list[ImageStack]],
    *,
    mode: str | None,
    patch_size: tuple[int, ...],
    n_scales: int,
    padding: PaddingMode,
    seed: int,
) -> Subject:
    """Build the constructor of a mode.

    Parameters
    ----------
    groups, targets : sequence of PatchExtractor, or of list of ImageStack
        As read, one per argument of the command line; targets may be empty. In the mode
        independent a group is a structure, or has one in every channel where it is the only one.
    mode : str or None
        One of `MODES`; None chooses by targets and the images' channels.
    patch_size : tuple of int
        (Z)YX, or one number for all axes, which the depth of the images limits along Z.
    n_scales, padding, seed : int, str, int
        As the constructors take them.
    """
    inputs, paired = _extractors("IMAGE", groups), _extractors("--target", targets)
    images, target_images = _stacks(inputs), _stacks(paired)
    mode = mode or _mode_for(images[0].data_shape[1], bool(target_images))
    check_targets(mode, target_images)
    size = full_patch_size(patch_size, images)
    context = (n_scales, padding)
    if mode == "independent":
        return subject_of(_independent(inputs, size, context, seed))
    with _about("IMAGE"):
        extractor = _joined(inputs)  # first: a mode suits none of images that differ
    check_channels(mode, images)
    with _about("--target"):
        target = _joined(paired) if paired else None
    if target is not None:
        check_targets_pair(extractor, target)
    return subject_of(_of_mode(mode, extractor, target, size, context, seed))


def _independent(
    groups: Sequence[PatchExtractor],
    size: tuple[int, ...],
    context: tuple[int, PaddingMode],
    seed: int,
) -> PlannedConstr:
    """Return the constructor of structures that have images of their own."""
    extractors = _structures(groups)
    strategies = [_random(extractor, size, seed) for extractor in extractors]
    ranges = [WEIGHT_RANGE] * len(extractors)
    return IndependentTargetsMsPatchConstr(strategies, extractors, *context, ranges, seed=seed)


def _of_mode(
    mode: str,
    extractor: PatchExtractor,
    target: PatchExtractor | None,
    size: tuple[int, ...],
    context: tuple[int, PaddingMode],
    seed: int,
) -> PlannedConstr:
    """Return the constructor of any other mode."""
    if mode == "pred":
        tiles = TiledPatching(extractor.shapes, size, [n // 4 for n in size])
        return PredMsPatchConstr(tiles, extractor, *context, seed=seed)
    strategy = _random(extractor, size, seed)
    if mode == "multichannel":
        ranges = [WEIGHT_RANGE] * extractor.n_channels
        return MultiChannelTargetMsPatchConstr(
            strategy, extractor, *context, ranges, 0.0, seed=seed
        )
    with _about("--target"):
        if mode == "paired" and target is not None:
            return PairedInputTargetMsPatchConstr(strategy, extractor, target, *context, seed=seed)
        return BasicPatchConstr(strategy, extractor, target, seed=seed)


def _random(images: PatchExtractor, patch_size: tuple[int, ...], seed: int) -> RandomPatching:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "patch_size is")  # the report has a note of it
        return RandomPatching(images.shapes, patch_size, seed)


def _extractors(
    argument: str, groups: Sequence[PatchExtractor | list[ImageStack]]
) -> list[PatchExtractor]:
    with _about(argument):
        return [g if isinstance(g, PatchExtractor) else PatchExtractor(g) for g in groups]


def _stacks(groups: Sequence[PatchExtractor]) -> list[ImageStack]:
    return [stack for group in groups for stack in group.image_stacks]


def _joined(groups: Sequence[PatchExtractor]) -> PatchExtractor:
    """Return the images of all arguments together, each of which knows its argument."""
    extractor = PatchExtractor(_stacks(groups))
    extractor.origins = [
        origin._replace(item=i) for i, group in enumerate(groups) for origin in group.origins
    ]
    return extractor


@contextmanager
def _about(argument: str) -> Iterator[None]:
    """Name the argument of the command line that an error is about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"argument {argument}: {error}") from error


def _mode_for(n_channels: int, has_targets: bool) -> str:
    """Choose the mode of images that come without one."""
    if has_targets:
        return "paired" if n_channels == 1 else "basic"
    return "pred" if n_channels == 1 else "multichannel"


def _structures(groups: Sequence[PatchExtractor]) -> Sequence[PatchExtractor]:
    """Return the images of each structure: a group each, or the channels of the only group."""
    if len(groups) > 1:
        for image in _stacks(groups):
            if image.data_shape[1] != 1:
                raise ValueError(
                    "argument --mode: independent needs 1 channel per image, found "
                    f"{channels_of(image)}: give single-channel images, or one IMAGE whose "
                    "channels are the structures"
                )
        return groups
    (group,) = groups
    if group.n_channels < 2:
        n_files = len(group.image_stacks)
        raise ValueError(
            "argument --mode: independent needs an IMAGE per structure, two or more, or one "
            f"whose channels are the structures, found one of {n_files} "
            f"{'file' if n_files == 1 else 'files'}, {channels_of(group.image_stacks[0])}"
        )
    return [
        PatchExtractor([_channel(image, c) for image in group.image_stacks])
        for c in range(group.n_channels)
    ]


def _channel(image: ImageStack, c: int) -> ImageStack:
    """Return one channel as a stack."""
    axes = "SCYX" if image.data.ndim == 4 else "SCZYX"
    return ImageStack(image.data[:, [c]], axes, source=image.source, device=image.device)
