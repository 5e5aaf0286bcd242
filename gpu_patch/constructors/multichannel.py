"""MicroSplit mode I: the structures are channels of the same images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gpu_patch.checks import probability
from gpu_patch.constructors.base import PlannedConstr
from gpu_patch.constructors.checks import (
    checked_alpha_ranges,
    checked_context,
    checked_extractor,
    checked_generator,
)
from gpu_patch.constructors.metadata import image_metadata
from gpu_patch.constructors.mixing import (
    Weights,
    checked_absence,
    checked_patch_sizes,
)
from gpu_patch.constructors.partners import PartnerPlaces, Partners
from gpu_patch.constructors.placement import Placement, Sampling
from gpu_patch.constructors.plan import Plan, Read, Specs
from gpu_patch.draws import DrawPurpose, DrawSpec
from gpu_patch.epilogue import Epilogue
from gpu_patch.geometry import PaddingMode
from gpu_patch.images import PatchExtractor, checked_channels
from gpu_patch.locations import Locations
from gpu_patch.ops.draws import CounterDraws
from gpu_patch.patching import Patching
from gpu_patch.patching.adapter import checked_patching
from gpu_patch.sources import ChannelSources, fixed
from gpu_patch.specs import ImageMetadata, PatchSpecs


class MultiChannelTargetMsPatchConstr(PlannedConstr):
    """Mode I: the structures are channels of the same images, the input is their mixture.

    Input: the weighted sum of the channels, at every scale, L(Z)YX. Target: each channel at the
    native scale, unweighted, C(Z)YX.

    Parameters
    ----------
    patching_strategy : Patching
        Says where patches lie.
    target_extractor : PatchExtractor
        Images with one channel per structure.
    multiscale_count : int
        Number of scales L, at least 1: the field of view grows to 2^(L−1) times the patch.
    padding_mode : {"reflect", "wrap", "periodic"}
        What the context holds beyond the image. "wrap" is careamics' rule, which wraps a cut of
        the image; "periodic" wraps the image itself.
    alpha_ranges : sequence of (float, float) or None
        Range of each channel's weight, one per channel of the images. None: all are 1 / C.
    uncorrelated_channel_prob : float
        Probability that the channels of a patch come from different places.
    channels : sequence of int or None, default None
        Channels to use, in the order wanted, with their entries of `alpha_ranges`; None is all.
    rng : numpy.random.Generator or None, default None
        Draws of `construct_patch`; None makes a fresh one.
    seed : int or None, default None
        Seed of the batches' draws; None takes a fresh one.
    absent_prob : float, sequence of float, or None, default None
        Probability that a structure is absent from a sample of a batch, the same for all or one
        per channel of the images. Then `background` stands in its place: in the mixture, weighted
        as the structure would be, at all scales, and in the target. Structures are absent
        independently of each other, so all may be. `construct_patch`, which draws as careamics
        does, knows no absence.
    background : float or sequence of float, default 0
        Level of the images where a structure is absent, the same for all or one per channel of the
        images.
    partners : {"anywhere", "near"}, default "anywhere"
        Where the other channels of a batch's uncorrelated patch come from: "anywhere" is any patch
        of any image, as in careamics; "near" is the nearest of 64 patches of the same image, drawn
        at random, where a pixel along the image's longest axis counts as four along others. That is
        for images by page in the order "sweep", which then reads much less for uncorrelated
        patches; which patches meet is less random.
        `construct_patch` always takes any patch.

    Raises
    ------
    TypeError, ValueError
        An argument is wrong, or they do not go together. The message names it, what was found and
        what would be right.

    Examples
    --------
    >>> import numpy as np
    >>> from gpu_patch import ImageStack, PatchExtractor, RandomPatching
    >>> pixels = np.random.default_rng(0).integers(0, 4000, (2, 256, 256), dtype=np.uint16)
    >>> images = PatchExtractor([ImageStack.from_array(pixels, "CYX")])
    >>> constructor = MultiChannelTargetMsPatchConstr(
    ...     RandomPatching(images.shapes, (64, 64)), images, 3, "reflect", [(0.3, 0.7)] * 2, 0.1,
    ...     seed=1,
    ... )
    >>> batch = constructor.construct_batch(range(16))
    >>> batch.input.shape, batch.target.shape
    ((16, 3, 64, 64), (16, 2, 64, 64))
    """

    def __init__(
        self,
        patching_strategy: Patching,
        target_extractor: PatchExtractor,
        multiscale_count: int,
        padding_mode: PaddingMode,
        alpha_ranges: Sequence[tuple[float, float]] | None,
        uncorrelated_channel_prob: float,
        channels: Sequence[int] | None = None,
        rng: np.random.Generator | None = None,
        *,
        seed: int | None = None,
        absent_prob: float | Sequence[float] | None = None,
        background: float | Sequence[float] = 0,
        partners: PartnerPlaces = "anywhere",
    ) -> None:
        super().__init__(seed)
        self.multiscale_count, self.padding_mode = checked_context(multiscale_count, padding_mode)
        self.patching_strategy = checked_patching("patching_strategy", patching_strategy)
        self.target_extractor = checked_extractor("target_extractor", target_extractor)
        self.alpha_ranges = alpha_ranges
        self.uncorrelated_channel_prob = probability(
            "uncorrelated_channel_prob", uncorrelated_channel_prob
        )
        self.channels = channels
        self.absent_prob, self.background = absent_prob, background
        self.partners = partners
        self.rng = checked_generator(rng)

        self._channels = fixed(checked_channels(channels, target_extractor.n_channels))
        ranges = checked_alpha_ranges(alpha_ranges, target_extractor.n_channels)
        self._weights = Weights(ranges and [ranges[c] for c in self._channels], len(self._channels))
        self._absence = checked_absence(
            absent_prob, background, target_extractor.n_channels, self._channels.tolist()
        )
        placement = Placement(
            "patching_strategy", patching_strategy, target_extractor, self.multiscale_count
        )
        targets = [(target_extractor, c) for c in self._channels.tolist()]
        self.sampling = Sampling([placement], {"target": targets}, rng=self.rng)
        # places that a patch may have: one, or one per channel
        self._n_places = len(self._channels) if self.uncorrelated_channel_prob > 0 else 1
        # on CUDA a batch without uncorrelated samples, the first of which may come after many
        # others, would have another kernel compiled
        self._always_own_places = self._n_places > 1 and target_extractor.device != "cpu"
        self._partners = Partners(partners, placement, self._n_places)
        self._draws = CounterDraws(
            [
                DrawSpec(DrawPurpose.LOCATION, 0, placement.n_uniforms),
                DrawSpec(DrawPurpose.UNCORRELATED, 0, int(self.uncorrelated_channel_prob > 0)),
                *self._weights.draw_specs,
                *self._absence.draw_specs,
            ]
        )

    @property
    def input_shapes(self) -> Sequence[Sequence[int]]:
        return self.target_extractor.shapes

    @property
    def target_shapes(self) -> Sequence[Sequence[int]]:
        return self.target_extractor.shapes

    def get_input_image_metadata(self, patch_spec: PatchSpecs) -> ImageMetadata:
        return image_metadata(self.target_extractor, patch_spec)

    def get_target_image_metadata(self, patch_spec: PatchSpecs) -> ImageMetadata:
        return image_metadata(self.target_extractor, patch_spec)

    def _plan_patch(self, index: int) -> Plan:
        indices = [index]
        if self.rng.random() < self.uncorrelated_channel_prob:
            indices += self.rng.integers(0, self.n_patches, len(self._channels) - 1).tolist()
            places = [self._placement.from_specs(i) for i in indices]
            uncorrelated = np.ones(1, bool)
        else:
            places, uncorrelated = [self._placement.from_specs(index)], np.zeros(1, bool)
        return self._plan(places, uncorrelated, self._weights.from_generator(self.rng))

    def _plan_batch(self, index: NDArray[np.int64], epoch: int) -> Plan:
        location, decision, *rest = self._draws(self.seed, epoch, index)
        n_weights = len(self._weights.draw_specs)
        weights = self._weights.from_uniforms(rest[:n_weights], len(index))
        places = [self._placement.locate(index, location)]
        uncorrelated = np.zeros(len(index), bool)
        if len(decision):  # else none can be
            uncorrelated = decision[0] < self.uncorrelated_channel_prob
        if uncorrelated.any():
            own, which = places[0].rows(np.flatnonzero(uncorrelated)), index[uncorrelated]
            for elsewhere in self._partners(self.seed, epoch, which, own):
                places.append(_moved(places[0], uncorrelated, elsewhere))
        return self._plan(places, uncorrelated, *self._absence(rest[n_weights:], weights))

    def _plan(
        self,
        places: list[Locations],
        uncorrelated: NDArray[np.bool_],
        weights: NDArray[np.float32],
        epilogue: Epilogue | None = None,
    ) -> Plan:
        if len(places) == 1 and not self._always_own_places:
            sources = ChannelSources.correlated(places[0], self._channels)
        else:
            checked_patch_sizes([place.patch_size for place in places])
            own = places * (self._n_places if len(places) == 1 else 1)
            sources = ChannelSources.uncorrelated(own, self._channels)
        images, n_scales = self.target_extractor.images, self.multiscale_count
        return Plan(
            Read(images, sources, n_scales, self.padding_mode),
            None,
            is_mixture=True,
            weights=weights,
            patch_size=places[0].patch_size,
            specs=Specs(places, 0, uncorrelated),
            epilogue=epilogue,
        )


def _moved(places: Locations, which: NDArray[np.bool_], to: Locations) -> Locations:
    """Return `places` with some of them moved elsewhere."""
    checked_patch_sizes([places.patch_size, to.patch_size])
    data_idx, sample_idx, coords = (
        column.copy() for column in (places.data_idx, places.sample_idx, places.coords)
    )
    data_idx[which], sample_idx[which], coords[which] = to.data_idx, to.sample_idx, to.coords
    return Locations(data_idx, sample_idx, coords, places.patch_size)
