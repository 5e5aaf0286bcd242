"""MicroSplit on real input images: mode III, and prediction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpu_patch.constructors.base import Read
from gpu_patch.constructors.basic import gather_targets, read_targets
from gpu_patch.constructors.checks import (
    checked_extractor,
    checked_pairs,
    checked_single_channel,
)
from gpu_patch.constructors.metadata import image_metadata
from gpu_patch.constructors.microsplit import (
    MicroSplitConstr,
    PaddingMode,
)
from gpu_patch.constructors.placement import Placement
from gpu_patch.draws import CounterDraws, DrawPurpose, DrawSpec
from gpu_patch.images import PatchExtractor
from gpu_patch.locations import Locations
from gpu_patch.ops import ImageSet
from gpu_patch.patching import Patching
from gpu_patch.patching.adapter import checked_patching
from gpu_patch.plan import ChannelSources, Plan, Specs
from gpu_patch.specs import ImageMetadata, PatchSpecs


class _SingleInputConstr(MicroSplitConstr):
    """Lateral context of real, single-channel input images."""

    _with_targets = False

    def __init__(
        self,
        patching_strategy: Patching,
        input_extractor: PatchExtractor,
        multiscale_count: int,
        padding_mode: PaddingMode,
        seed: int | None,
    ) -> None:
        super().__init__(multiscale_count, padding_mode, seed)
        self.patching_strategy = checked_patching("patching_strategy", patching_strategy)
        self.input_extractor = checked_extractor("input_extractor", input_extractor)
        checked_single_channel("input_extractor", input_extractor, "the mixed input image")
        self._placement = Placement(
            "patching_strategy", patching_strategy, input_extractor, self.multiscale_count
        )
        self._draws = CounterDraws([DrawSpec(DrawPurpose.LOCATION, 0, self._placement.n_uniforms)])

    @property
    def input_shapes(self) -> Sequence[Sequence[int]]:
        return self.input_extractor.shapes

    def get_input_image_metadata(self, patch_spec: PatchSpecs) -> ImageMetadata:
        return image_metadata(self.input_extractor, patch_spec)

    def _input_images(self) -> ImageSet:
        return self.input_extractor.images

    @property
    def _n_channels(self) -> tuple[int, int]:
        return 1, 0

    def _plan_patch(self, index: int) -> Plan:
        return self._plan(self._placement.from_specs(index))

    def _plan_batch(self, index: NDArray[np.int64], epoch: int) -> Plan:
        (uniforms,) = self._draws(self.seed, epoch, index, self.n_patches)
        return self._plan(self._placement.locate(index, uniforms))

    def _plan(self, places: Locations) -> Plan:
        weights = np.ones((len(places.data_idx), 1), np.float32)
        return Plan(
            ChannelSources.correlated(places, np.zeros(1, np.int64)),
            weights,
            places.patch_size,
            Specs([places]),
        )


class PairedInputTargetMsPatchConstr(_SingleInputConstr):
    """Mode III: real mixed input images, with the separated structures as targets.

    Input: the input image at every scale, L(Z)YX. Target: the plain patch of all target channels,
    C(Z)YX, zero where it leaves the image.

    Parameters
    ----------
    patching_strategy : Patching
        Says where patches lie.
    input_extractor : PatchExtractor
        Input images, single-channel.
    target_extractor : PatchExtractor
        Target images of the same samples and spatial shapes. Those of folders and patterns are
        paired by the names of their files, others by position.
    multiscale_count : int
        Number of scales L, at least 1: the field of view grows to 2^(L−1) times the patch.
    padding_mode : {"reflect", "wrap", "periodic"}
        What the context holds beyond the image, see `MultiChannelTargetMsPatchConstr`.
    seed : int or None, default None
        Seed of the batches' draws; None takes a fresh one.

    Raises
    ------
    TypeError, ValueError
        An argument is wrong, or they do not go together. The message names it, what was found and
        what would be right.
    """

    def __init__(
        self,
        patching_strategy: Patching,
        input_extractor: PatchExtractor,
        target_extractor: PatchExtractor,
        multiscale_count: int,
        padding_mode: PaddingMode,
        *,
        seed: int | None = None,
    ) -> None:
        super().__init__(patching_strategy, input_extractor, multiscale_count, padding_mode, seed)
        self.target_extractor = checked_extractor("target_extractor", target_extractor)
        checked_pairs(("input_extractor", "target_extractor"), input_extractor, target_extractor)

    @property
    def target_shapes(self) -> Sequence[Sequence[int]]:
        return self.target_extractor.shapes

    def get_target_image_metadata(self, patch_spec: PatchSpecs) -> ImageMetadata:
        return image_metadata(self.target_extractor, patch_spec)

    @property
    def _n_channels(self) -> tuple[int, int]:
        return 1, self.target_extractor.n_channels

    def _all_images(self) -> list[ImageSet]:
        return [*super()._all_images(), self.target_extractor.images]

    def reads(self, plan: Plan) -> list[Read]:
        return [*super().reads(plan), read_targets(self.target_extractor, plan)]

    def _execute(self, plan: Plan, dtype: DTypeLike) -> tuple[NDArray[Any], NDArray[Any] | None]:
        inputs, _ = super()._execute(plan, dtype)
        return inputs, gather_targets(self.target_extractor, plan, dtype)


class PredMsPatchConstr(_SingleInputConstr):
    """Prediction: tiles of single-channel images with lateral context, and no targets.

    Parameters
    ----------
    patching_strategy : Patching
        Says where tiles lie, `TiledPatching` as a rule.
    input_extractor : PatchExtractor
        Input images, single-channel.
    multiscale_count : int
        Number of scales L, at least 1: the field of view grows to 2^(L−1) times the tile.
    padding_mode : {"reflect", "wrap", "periodic"}
        What the context holds beyond the image, see `MultiChannelTargetMsPatchConstr`.
    seed : int or None, default None
        Seed of the batches' draws, where the strategy draws at all.

    Raises
    ------
    TypeError, ValueError
        An argument is wrong, or they do not go together. The message names it, what was found and
        what would be right.
    """

    def __init__(
        self,
        patching_strategy: Patching,
        input_extractor: PatchExtractor,
        multiscale_count: int,
        padding_mode: PaddingMode,
        *,
        seed: int | None = None,
    ) -> None:
        super().__init__(patching_strategy, input_extractor, multiscale_count, padding_mode, seed)

    @property
    def target_shapes(self) -> None:
        return None

    def get_target_image_metadata(self, patch_spec: PatchSpecs) -> None:
        return None

    def _execute(self, plan: Plan, dtype: DTypeLike) -> tuple[NDArray[Any], None]:
        return super()._execute(plan, dtype)[0], None
