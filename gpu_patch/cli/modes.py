"""From files and a mode to a constructor, and to what a picture of its patches needs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

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
from gpu_patch.cli.text import counted
from gpu_patch.images import named_once, open_images
from gpu_patch.images.names import check_pairs, describe

if TYPE_CHECKING:
    from gpu_patch.constructors.base import PlannedConstr
    from gpu_patch.constructors.plan import Plan
    from gpu_patch.geometry import PaddingMode

MODES = ("multichannel", "independent", "paired", "pred", "basic")
_NUMBERS = dict(zip(("i", "ii", "iii"), MODES, strict=False))
"""Of MicroSplit's training modes."""
WEIGHT_RANGE = (0.2, 0.8)


@dataclass(frozen=True)
class Subject:
    """A constructor, and what there is to show of it.

    Attributes
    ----------
    mode : str
        One of `MODES`.
    constructor : PlannedConstr
        Makes the batch.
    images : list of ImageStack
        Those that the plan's `image_idx` counts.
    targets : list of ImageStack
        Separate target images, where there are any.
    n_scales : int
        Boxes per patch; 1 where there is no context.
    padding : str
        What windows hold beyond the image; "zero" where there is no context.
    n_targets : int
        Channels of the target, 0 where there is none.
    structures : list of int
        In the mode independent, which structure each of `images` shows.
    """

    mode: str
    constructor: PlannedConstr
    images: list[ImageStack]
    targets: list[ImageStack]
    n_scales: int
    padding: str
    n_targets: int
    structures: list[int] = field(default_factory=list)

    @property
    def mixes(self) -> bool:
        """Whether the input is made from the targets."""
        return self.mode in ("multichannel", "independent")

    def plan(self, indices: Sequence[int]) -> Plan:
        """Return the plan that `construct_batch` follows for these indices in epoch 0."""
        return self.constructor.plan_batch(indices)

    def choose(self, n_samples: int, seed: int) -> list[int]:
        """Return some indices of an epoch, in order; all where there are no more."""
        n_patches = self.constructor.n_patches
        chosen = np.random.default_rng(seed).permutation(n_patches)[:n_samples]
        return sorted(int(index) for index in chosen)

    def pixels(self, plan: Plan, b: int, c: int, *, of_target: bool) -> NDArray[Any]:
        """Return the whole image, (Z)YX, that channel `c` of patch `b` was cut from."""
        images = self.targets if of_target and self.targets else self.images
        k = c if plan.sources.image_idx.shape[1] > 1 else 0
        image = images[int(plan.sources.image_idx[b, k])]
        channel = 0 if self.mode == "independent" else c
        pixels: NDArray[Any] = image.data[int(plan.sources.sample_idx[b, k]), channel]
        return pixels

    def target_titles(self, weights: NDArray[np.float32]) -> list[str]:
        """Name the targets of one patch, with the plan's weights (C,) where they are mixed."""
        if self.mode == "multichannel":
            names = channel_names(self.images, len(weights))
            return [f"{name}, weight {w:.2f}" for name, w in zip(names, weights, strict=True)]
        if self.mode == "independent":
            return [f"structure {c}, weight {w:.2f}" for c, w in enumerate(weights)]
        return [f"target {name}" for name in channel_names(self.targets, self.n_targets)]


def channel_names(images: Sequence[ImageStack], n_channels: int) -> list[str]:
    """Name channels, colours by their names where all images have them."""
    if images and all(image.colours for image in images):
        return ["red", "green", "blue", "alpha"][:n_channels]
    return [f"channel {c}" for c in range(n_channels)]


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
    _check_targets(mode, target_images)
    size = _full_patch_size(patch_size, images)
    constructor: PlannedConstr
    if mode == "independent":
        extractors = _structures(inputs)
        n_targets = len(extractors)
        strategies = [_random(extractor, size, seed) for extractor in extractors]
        ranges = [WEIGHT_RANGE] * n_targets
        constructor = IndependentTargetsMsPatchConstr(
            strategies, extractors, n_scales, padding, ranges, seed=seed
        )
        structures = [c for c, of_one in enumerate(extractors) for _ in of_one.image_stacks]
        images = _stacks(extractors)
        return Subject(mode, constructor, images, [], n_scales, padding, n_targets, structures)

    with _about("IMAGE"):
        extractor = _joined(inputs)  # first: a mode suits none of images that differ
    _check_channels(mode, images)
    with _about("--target"):
        target = _joined(paired) if paired else None
    if target is not None:
        _check_pairs(extractor, target)
    n_targets = 0 if target is None else target.n_channels
    strategy = _random(extractor, size, seed)
    if mode == "multichannel":
        n_targets = extractor.n_channels
        ranges = [WEIGHT_RANGE] * n_targets
        constructor = MultiChannelTargetMsPatchConstr(
            strategy, extractor, n_scales, padding, ranges, 0.0, seed=seed
        )
    elif mode == "pred":
        tiles = TiledPatching(extractor.shapes, size, [n // 4 for n in size])
        constructor = PredMsPatchConstr(tiles, extractor, n_scales, padding, seed=seed)
    elif mode == "paired" and target is not None:
        with _about("--target"):
            constructor = PairedInputTargetMsPatchConstr(
                strategy, extractor, target, n_scales, padding, seed=seed
            )
    else:
        with _about("--target"):
            constructor = BasicPatchConstr(strategy, extractor, target, seed=seed)
        return Subject(mode, constructor, images, target_images, 1, "zero", n_targets)
    return Subject(mode, constructor, images, target_images, n_scales, padding, n_targets)


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


def _check_targets(mode: str, targets: Sequence[ImageStack]) -> None:
    """Check that there are targets where, and only where, the mode takes them."""
    if mode == "paired" and not targets:
        raise ValueError(
            "argument --target: --mode paired needs an image for each IMAGE, found none"
        )
    if targets and mode not in ("paired", "basic"):
        raise ValueError(
            f"argument --target: only the modes paired and basic take targets, found --mode {mode}"
        )


def _check_pairs(images: PatchExtractor, targets: PatchExtractor) -> None:
    """Check that targets are the partners of their images, by name and size."""
    # the order of several arguments may be the shell's
    check_pairs(("images", "target"), images.origins, targets.origins, lists_are_ordered=False)
    if len(targets.image_stacks) != len(images.image_stacks):
        raise ValueError(
            "argument --target: must be as many as IMAGE, "
            f"{describe(images.origins)}; found {describe(targets.origins)}"
        )
    for image, target in zip(images.image_stacks, targets.image_stacks, strict=True):
        sizes = [stack.data_shape[:1] + stack.data_shape[2:] for stack in (image, target)]
        if sizes[0] != sizes[1]:
            raise ValueError(
                f"argument --target: '{target.source}' must have the size of '{image.source}' "
                f"(shape {image.original_data_shape}, axes {image.original_axes}), found "
                f"{target.original_data_shape}, axes {target.original_axes}"
            )


def _check_channels(mode: str, images: Sequence[ImageStack]) -> None:
    """Check that the images fit the mode, with the way out in the message."""
    for image in images:
        n_channels = image.data_shape[1]
        if mode == "multichannel" and n_channels < 2:
            raise ValueError(
                "argument --mode: multichannel needs images with 2 channels or more, found "
                f"{_channels_of(image)}: use pred, or independent with one IMAGE per structure"
            )
        if mode in ("paired", "pred") and n_channels != 1:
            raise ValueError(
                f"argument --mode: {mode} needs images with 1 channel, found "
                f"{_channels_of(image)}: use multichannel, or give the right --axes"
            )


def _structures(groups: Sequence[PatchExtractor]) -> Sequence[PatchExtractor]:
    """Return the images of each structure: a group each, or the channels of the only group."""
    if len(groups) > 1:
        for image in _stacks(groups):
            if image.data_shape[1] != 1:
                raise ValueError(
                    "argument --mode: independent needs 1 channel per image, found "
                    f"{_channels_of(image)}: give single-channel images, or one IMAGE whose "
                    "channels are the structures"
                )
        return groups
    (group,) = groups
    if group.n_channels < 2:
        n_files = len(group.image_stacks)
        raise ValueError(
            "argument --mode: independent needs an IMAGE per structure, two or more, or one "
            f"whose channels are the structures, found one of {n_files} "
            f"{'file' if n_files == 1 else 'files'}, {_channels_of(group.image_stacks[0])}"
        )
    return [
        PatchExtractor([_channel(image, c) for image in group.image_stacks])
        for c in range(group.n_channels)
    ]


def _channels_of(image: ImageStack) -> str:
    """Say for an error which image has how many channels."""
    return (
        f"'{image.source}' with {counted(image.data_shape[1], 'channel')} "
        f"(shape {image.original_data_shape}, axes {image.original_axes})"
    )


def _channel(image: ImageStack, c: int) -> ImageStack:
    """Return one channel as a stack."""
    axes = "SCYX" if image.data.ndim == 4 else "SCZYX"
    return ImageStack(image.data[:, [c]], axes, source=image.source, device=image.device)


def _full_patch_size(patch_size: tuple[int, ...], images: list[ImageStack]) -> tuple[int, ...]:
    """Return `patch_size` with one entry per spatial axis."""
    spatial = images[0].data_shape[2:]
    if len(patch_size) == len(spatial):
        return patch_size
    if len(patch_size) > 1:
        wanted = "Y,X" if len(spatial) == 2 else "Z,Y,X"
        raise ValueError(
            f"argument --patch-size: must be one number or {wanted} for images of the shape "
            f"{spatial}, found {','.join(map(str, patch_size))}"
        )
    (size,) = patch_size
    return (size, size) if len(spatial) == 2 else (min(size, spatial[0]), size, size)
