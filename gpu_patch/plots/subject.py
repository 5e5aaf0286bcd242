"""What there is to show of a constructor: its images, scales and targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch import (
    BasicPatchConstr,
    ImageStack,
    IndependentTargetsMsPatchConstr,
    MultiChannelTargetMsPatchConstr,
    PairedInputTargetMsPatchConstr,
    PredMsPatchConstr,
)
from gpu_patch import device as devices
from gpu_patch.checks import instance
from gpu_patch.chunks import ChunkedImage
from gpu_patch.constructors.base import PlannedConstr
from gpu_patch.constructors.plan import Plan
from gpu_patch.plots.colours import middle_plane, n_not_finite


@dataclass(frozen=True)
class Subject:
    """A constructor, and what there is to show of it.

    Attributes
    ----------
    mode : {"multichannel", "independent", "paired", "pred", "basic"}
        Its kind.
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

    def plan(self, indices: Sequence[int], epoch: int = 0) -> Plan:
        """Return the plan that `construct_batch` follows for these indices."""
        return self.constructor.plan_batch(indices, epoch=epoch)

    def choose(self, n_samples: int, seed: int) -> list[int]:
        """Return some indices of an epoch, in order; all where there are no more."""
        n_patches = self.constructor.n_patches
        chosen = np.random.default_rng(seed).permutation(n_patches)[:n_samples]
        return sorted(int(index) for index in chosen)

    def plane(self, plan: Plan, b: int, c: int, *, of_target: bool) -> NDArray[Any]:
        """Return the plane (Y, X) of the whole image that channel `c` of patch `b` is from."""
        read, images = plan.input, self.images
        if of_target and plan.target is not None:
            read, images = plan.target, self.targets
        image_idx, sample_idx, _, channels = read.sources
        k = c if image_idx.shape[1] > 1 else 0
        planes = planes_of(images[int(image_idx[b, k])], int(sample_idx[b, k]))
        plane: NDArray[Any] = planes[int(channels[c])]
        return plane

    def input_names(self, plan: Plan) -> list[str]:
        """Name the channels of the input."""
        return _channel_names(self.images, plan.input.sources.channels)

    def target_names(self, plan: Plan, b: int) -> list[str]:
        """Name the targets of patch `b`, with the weights where they are mixed."""
        if not self.mixes:
            channels = np.arange(self.n_targets)
            if plan.target is not None:
                channels = plan.target.sources.channels
            return [f"target {name}" for name in _channel_names(self.targets, channels)]
        names = [f"structure {c}" for c in range(self.n_targets)]
        if self.mode == "multichannel":
            names = self.input_names(plan)
        assert plan.weights is not None
        return [f"{name}, weight {w:.2f}" for name, w in zip(names, plan.weights[b], strict=True)]


def subject_of(constructor: Any) -> Subject:
    """Return what there is to show of a constructor.

    Raises
    ------
    TypeError
        It is none of gpu_patch's.
    """
    if isinstance(constructor, IndependentTargetsMsPatchConstr):
        extractors = constructor.target_extractors
        stacks = [stack for extractor in extractors for stack in extractor.image_stacks]
        structures = [c for c, extractor in enumerate(extractors) for _ in extractor.image_stacks]
        context = constructor.multiscale_count, constructor.padding_mode
        return Subject(
            "independent", constructor, stacks, [], *context, len(extractors), structures
        )
    if isinstance(constructor, BasicPatchConstr):
        images, target = constructor.input_extractor, constructor.target_extractor
        stacks, targets = images.image_stacks, target.image_stacks if target else []
        n_targets = target.n_channels if target else 0
        return Subject("basic", constructor, [*stacks], [*targets], 1, "zero", n_targets)
    targets = []
    if isinstance(constructor, MultiChannelTargetMsPatchConstr):
        mode, images, channels = "multichannel", constructor.target_extractor, constructor.channels
        n_targets = images.n_channels if channels is None else len(channels)
    elif isinstance(constructor, PairedInputTargetMsPatchConstr):
        mode, images, target = "paired", constructor.input_extractor, constructor.target_extractor
        assert target is not None
        targets, n_targets = target.image_stacks, target.n_channels
    else:
        instance("constructor", constructor, PredMsPatchConstr, "one of gpu_patch's constructors")
        mode, images, n_targets = "pred", constructor.input_extractor, 0
    context = constructor.multiscale_count, constructor.padding_mode
    return Subject(mode, constructor, [*images.image_stacks], [*targets], *context, n_targets)


def planes_of(image: ImageStack, sample_idx: int) -> NDArray[Any]:
    """Return the middle z plane of a sample, (C, Y, X), on the host."""
    size = image.data_shape[2:]
    middle = [slice(size[0] // 2, size[0] // 2 + 1)] if len(size) == 3 else []
    place = [*middle, slice(0, size[-2]), slice(0, size[-1])]
    return middle_plane(region_of(image, sample_idx, place), 1)


def region_of(image: ImageStack, sample_idx: int, place: Sequence[slice]) -> NDArray[Any]:
    """Return a part of a sample, C(Z)YX, on the host; of an image by chunk no more is read."""
    data = image.data
    if not isinstance(data, ChunkedImage):
        return on_host(data[(sample_idx, slice(None), *place)])
    region = [slice(sample_idx, sample_idx + 1), slice(0, data.shape[1]), *place]
    out: NDArray[Any] = np.empty([part.stop - part.start for part in region], data.dtype)
    data.read_region(region, out)
    found: NDArray[Any] = out[0]
    return found


def not_finite_in(image: ImageStack, sample_idx: int) -> int:
    """Count what is not finite in a sample; by chunk or on a device, in the plane shown."""
    resident = isinstance(image.data, np.ndarray)
    return n_not_finite(image.data[sample_idx] if resident else planes_of(image, sample_idx))


def on_host(array: Any) -> NDArray[Any]:
    """Return an array in NumPy's memory."""
    found: NDArray[Any] = array.get() if devices.is_cuda_array(array) else array
    return found


def _channel_names(images: Sequence[ImageStack], channels: NDArray[Any]) -> list[str]:
    """Name channels, colours by their names where all images have them."""
    colours = ["red", "green", "blue", "alpha"]
    if images and all(image.colours for image in images):
        return [colours[c] for c in channels]
    return [f"channel {c}" for c in channels]
