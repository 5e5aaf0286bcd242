"""Patches of input images and, where there are targets, of the same places in these."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gpu_patch.constructors.base import PlannedConstr
from gpu_patch.constructors.checks import checked_extractor, checked_pairs, checked_single_channel
from gpu_patch.constructors.metadata import image_metadata
from gpu_patch.constructors.placement import Placement, Sampling
from gpu_patch.constructors.plan import Plan, Read, Specs
from gpu_patch.draws import DrawPurpose, DrawSpec
from gpu_patch.images import PatchExtractor, checked_channels
from gpu_patch.locations import Locations
from gpu_patch.ops.draws import CounterDraws
from gpu_patch.patching import Patching
from gpu_patch.patching.adapter import checked_patching
from gpu_patch.sources import ChannelSources, fixed
from gpu_patch.specs import ImageMetadata, PatchSpecs


class AlignedConstr(PlannedConstr):
    """Input images, and target images of the same samples and sizes where there are any.

    Parameters
    ----------
    patching_strategy : Patching
        Says where patches lie, in both alike.
    input_extractor : PatchExtractor
        Input images; single-channel where there is lateral context.
    target_extractor : PatchExtractor or None
        Target images, of which plain patches of all channels are made.
    channels : sequence of int or None
        Channels of the input; None is all.
    seed : int or None
        Seed of the batches' draws.
    n_scales : int, default 0
        Scales of the input's lateral context; 0 for plain patches.
    mode : {"zero", "reflect", "wrap", "periodic"}
        What the input holds beyond the image.
    """

    def __init__(
        self,
        patching_strategy: Patching,
        input_extractor: PatchExtractor,
        target_extractor: PatchExtractor | None,
        channels: Sequence[int] | None,
        seed: int | None,
        n_scales: int = 0,
        mode: str = "zero",
    ) -> None:
        super().__init__(seed)
        self.patching_strategy = checked_patching("patching_strategy", patching_strategy)
        self.input_extractor = checked_extractor("input_extractor", input_extractor)
        if n_scales:
            checked_single_channel("input_extractor", input_extractor, "the mixed input image")
        self.target_extractor = target_extractor
        if target_extractor is not None:
            checked_extractor("target_extractor", target_extractor, labels=True)
            names = ("input_extractor", "target_extractor")
            checked_pairs(names, input_extractor, target_extractor)
            self._target_channels = fixed(range(target_extractor.n_channels))
        self._channels = fixed(checked_channels(channels, input_extractor.n_channels))
        placement = Placement("patching_strategy", patching_strategy, input_extractor, n_scales)
        parts = {"input": [(input_extractor, c) for c in self._channels.tolist()]}
        if target_extractor is not None:
            parts["target"] = [(target_extractor, c) for c in range(target_extractor.n_channels)]
        self.sampling = Sampling([placement], parts)
        self._mode = mode
        self._draws = CounterDraws([DrawSpec(DrawPurpose.LOCATION, 0, placement.n_uniforms)])

    @property
    def input_shapes(self) -> Sequence[Sequence[int]]:
        return self.input_extractor.shapes

    @property
    def target_shapes(self) -> Sequence[Sequence[int]] | None:
        return None if self.target_extractor is None else self.target_extractor.shapes

    def get_input_image_metadata(self, patch_spec: PatchSpecs) -> ImageMetadata:
        return image_metadata(self.input_extractor, patch_spec)

    def get_target_image_metadata(self, patch_spec: PatchSpecs) -> ImageMetadata | None:
        if self.target_extractor is None:
            return None
        return image_metadata(self.target_extractor, patch_spec)

    def _plan_patch(self, index: int) -> Plan:
        return self._plan(self._placement.from_specs(index))

    def _plan_batch(self, index: NDArray[np.int64], epoch: int) -> Plan:
        (uniforms,) = self._draws(self.seed, epoch, index)
        return self._plan(self._placement.locate(index, uniforms))

    def _plan(self, places: Locations) -> Plan:
        n_scales, target = self._placement.n_scales, None
        sources = ChannelSources.correlated(places, self._channels)
        if self.target_extractor is not None:
            own = ChannelSources.correlated(places, self._target_channels)
            target = Read(self.target_extractor.images, own)
        return Plan(
            Read(self.input_extractor.images, sources, n_scales, self._mode),
            target,
            is_mixture=False,
            weights=np.ones((len(places.data_idx), 1), np.float32) if n_scales else None,
            patch_size=places.patch_size,
            specs=Specs([places]),
        )
