"""Plain patches, for denoising and restoration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpu_patch.constructors.base import PlannedConstr, Read
from gpu_patch.constructors.checks import checked_extractor, checked_pairs
from gpu_patch.constructors.metadata import image_metadata
from gpu_patch.constructors.placement import Placement
from gpu_patch.draws import CounterDraws, DrawPurpose, DrawSpec
from gpu_patch.images import PatchExtractor, checked_channels
from gpu_patch.locations import Locations
from gpu_patch.ops import ImageSet, gather
from gpu_patch.patching import Patching
from gpu_patch.patching.adapter import checked_patching
from gpu_patch.plan import ChannelSources, Plan, Specs
from gpu_patch.specs import ImageMetadata, PatchSpecs


class BasicPatchConstr(PlannedConstr):
    """Patches of the input images and, where there are any, the same places of the targets.

    For N2V, CARE and the like, in training and in prediction. Patches are zero where they leave
    the image.

    Parameters
    ----------
    patching_strategy : Patching
        Says where patches lie.
    input_extractor : PatchExtractor
        Input images.
    target_extractor : PatchExtractor or None, default None
        Target images of the same samples and spatial shapes, with any number of channels. Those of
        folders and patterns are paired by the names of their files, others by position. None for
        self-supervised training and for prediction.
    channels : sequence of int or None, default None
        Channels of the input, in the order wanted; None is all. Targets have all channels.
    seed : int or None, default None
        Seed of the batches' draws; None takes a fresh one.

    Raises
    ------
    TypeError, ValueError
        An argument is wrong, or they do not go together. The message names it, what was found and
        what would be right.

    Examples
    --------
    >>> import numpy as np
    >>> from gpu_patch import ImageStack, PatchExtractor, RandomPatching
    >>> images = PatchExtractor([ImageStack.from_array(np.ones((200, 300), np.uint8), "YX")])
    >>> constructor = BasicPatchConstr(RandomPatching(images.shapes, (64, 64)), images, seed=1)
    >>> constructor.construct_batch(range(20)).input.shape
    (20, 1, 64, 64)
    """

    def __init__(
        self,
        patching_strategy: Patching,
        input_extractor: PatchExtractor,
        target_extractor: PatchExtractor | None = None,
        channels: Sequence[int] | None = None,
        *,
        seed: int | None = None,
    ) -> None:
        super().__init__(seed)
        self.patching_strategy = checked_patching("patching_strategy", patching_strategy)
        self.input_extractor = checked_extractor("input_extractor", input_extractor)
        self.target_extractor = target_extractor
        if target_extractor is not None:
            checked_extractor("target_extractor", target_extractor)
            checked_pairs(
                ("input_extractor", "target_extractor"), input_extractor, target_extractor
            )
        self.channels = channels
        self._channels = np.array(checked_channels(channels, input_extractor.n_channels))
        self._placement = Placement("patching_strategy", patching_strategy, input_extractor)
        self._draws = CounterDraws([DrawSpec(DrawPurpose.LOCATION, 0, self._placement.n_uniforms)])

    @property
    def input_shapes(self) -> Sequence[Sequence[int]]:
        return self.input_extractor.shapes

    @property
    def target_shapes(self) -> Sequence[Sequence[int]] | None:
        return None if self.target_extractor is None else self.target_extractor.shapes

    def get_principal_input(self, input_patch: NDArray[Any]) -> NDArray[Any]:
        return input_patch

    def get_input_image_metadata(self, patch_spec: PatchSpecs) -> ImageMetadata:
        return image_metadata(self.input_extractor, patch_spec)

    def get_target_image_metadata(self, patch_spec: PatchSpecs) -> ImageMetadata | None:
        if self.target_extractor is None:
            return None
        return image_metadata(self.target_extractor, patch_spec)

    @property
    def _n_channels(self) -> tuple[int, int]:
        target = self.target_extractor
        return len(self._channels), 0 if target is None else target.n_channels

    def _plan_patch(self, index: int) -> Plan:
        return self._plan(self._placement.from_specs(index))

    def _plan_batch(self, index: NDArray[np.int64], epoch: int) -> Plan:
        (uniforms,) = self._draws(self.seed, epoch, index, self.n_patches)
        return self._plan(self._placement.locate(index, uniforms))

    def _plan(self, places: Locations) -> Plan:
        sources = ChannelSources.correlated(places, self._channels)
        return Plan(sources, np.empty(0, np.float32), places.patch_size, Specs([places]))

    def _all_images(self) -> list[ImageSet]:
        target = self.target_extractor
        return [self.input_extractor.images, *([] if target is None else [target.images])]

    def reads(self, plan: Plan) -> list[Read]:
        reads = [Read(self.input_extractor.images, plan.sources)]
        if self.target_extractor is not None:
            reads.append(read_targets(self.target_extractor, plan))
        return reads

    def _execute(self, plan: Plan, dtype: DTypeLike) -> tuple[NDArray[Any], NDArray[Any] | None]:
        patches = gather(
            self.input_extractor.images,
            plan.sources,
            plan.patch_size,
            dtype=dtype,
            epilogue=plan.epilogue,
        )
        if self.target_extractor is None:
            return patches, None
        return patches, gather_targets(self.target_extractor, plan, dtype)


def gather_targets(extractor: PatchExtractor, plan: Plan, dtype: DTypeLike) -> Any:
    """Plain patches of all target channels, where the inputs lie."""
    images, sources, *_ = read_targets(extractor, plan)
    epilogue = plan.epilogue and plan.epilogue.of_target()
    return gather(images, sources, plan.patch_size, dtype=dtype, epilogue=epilogue)


def read_targets(extractor: PatchExtractor, plan: Plan) -> Read:
    """Tell what `gather_targets` reads."""
    return Read(extractor.images, plan.sources._replace(channels=np.arange(extractor.n_channels)))
