"""MicroSplit mode II: each structure has images of its own."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from gpu_patch.checks import sequence
from gpu_patch.constructors.base import PlannedConstr
from gpu_patch.constructors.checks import (
    checked_alpha_ranges,
    checked_context,
    checked_extractor,
    checked_generator,
    checked_same_device,
    checked_single_channel,
)
from gpu_patch.constructors.metadata import uncorrelated_metadata
from gpu_patch.constructors.mixing import (
    Weights,
    checked_absence,
    checked_patch_sizes,
)
from gpu_patch.constructors.placement import Placement, Sampling
from gpu_patch.constructors.plan import Plan, Read, Specs
from gpu_patch.draws import DrawPurpose, DrawSpec, integers
from gpu_patch.epilogue import Epilogue
from gpu_patch.geometry import PaddingMode
from gpu_patch.images import PatchExtractor
from gpu_patch.locations import Locations
from gpu_patch.ops import ImageSet
from gpu_patch.ops.draws import CounterDraws
from gpu_patch.patching import Patching
from gpu_patch.patching.adapter import checked_patching
from gpu_patch.sources import ChannelSources, fixed
from gpu_patch.specs import ImageMetadata, PatchSpecs


class IndependentTargetsMsPatchConstr(PlannedConstr):
    """Mode II: each structure has images of its own, the input mixes patches from all.

    Input: the weighted sum of one patch per structure, at every scale, L(Z)YX. Target: those
    patches at the native scale, unweighted, C(Z)YX. The principal channel is the first with the
    most patches; it goes through its patches, the others are drawn at random.

    Parameters
    ----------
    patching_strategies : sequence of Patching
        One per structure, all with one patch size.
    target_extractors : sequence of PatchExtractor
        One per structure, with one channel each; numbers and shapes of images may differ.
    multiscale_count : int
        Number of scales L, at least 1: the field of view grows to 2^(L−1) times the patch.
    padding_mode : {"reflect", "wrap", "periodic"}
        What the context holds beyond the image, see `MultiChannelTargetMsPatchConstr`.
    alpha_ranges : sequence of (float, float) or None
        Range of each structure's weight. None: all are 1 / C.
    rng : numpy.random.Generator or None, default None
        Draws of `construct_patch`; None makes a fresh one.
    seed : int or None, default None
        Seed of the batches' draws; None takes a fresh one. Every structure draws from streams of
        its own, also where their strategies have the same seed.
    absent_prob : float, sequence of float, or None, default None
        Probability that a structure is absent from a sample of a batch, the same for all or one
        per structure. Then `background` stands in its place: in the mixture, weighted as the
        structure would be, at all scales, and in the target. Structures are absent independently
        of each other, so all may be. `construct_patch`, which draws as careamics does, knows no
        absence.
    background : float or sequence of float, default 0
        Level of the images where a structure is absent, the same for all or one per structure.

    Raises
    ------
    TypeError, ValueError
        An argument is wrong, or they do not go together. The message names it, what was found and
        what would be right.

    Examples
    --------
    >>> import numpy as np
    >>> from gpu_patch import ImageStack, PatchExtractor, RandomPatching
    >>> nuclei = PatchExtractor([ImageStack.from_array(np.ones((200, 300), np.uint8), "YX")])
    >>> actin = PatchExtractor([ImageStack.from_array(np.ones((5, 99, 70), np.uint16), "SYX")])
    >>> strategies = [RandomPatching(e.shapes, (32, 32)) for e in (nuclei, actin)]
    >>> constructor = IndependentTargetsMsPatchConstr(
    ...     strategies, [nuclei, actin], 2, "reflect", None, seed=1
    ... )
    >>> constructor.n_patches, constructor.principal_channel
    (70, 0)
    >>> constructor.construct_batch([3, 4, 5]).input.shape
    (3, 2, 32, 32)
    """

    def __init__(
        self,
        patching_strategies: Sequence[Patching],
        target_extractors: Sequence[PatchExtractor],
        multiscale_count: int,
        padding_mode: PaddingMode,
        alpha_ranges: Sequence[tuple[float, float]] | None,
        rng: np.random.Generator | None = None,
        *,
        seed: int | None = None,
        absent_prob: float | Sequence[float] | None = None,
        background: float | Sequence[float] = 0,
    ) -> None:
        super().__init__(seed)
        self.multiscale_count, self.padding_mode = checked_context(multiscale_count, padding_mode)
        self.patching_strategies, self.target_extractors = _checked_pairs(
            patching_strategies, target_extractors
        )
        n_channels = len(self.patching_strategies)
        self.alpha_ranges = alpha_ranges
        self.absent_prob, self.background = absent_prob, background
        self.rng = checked_generator(rng)
        self._weights = Weights(checked_alpha_ranges(alpha_ranges, n_channels), n_channels)
        self._absence = checked_absence(absent_prob, background, n_channels, range(n_channels))
        n_images = [len(extractor.image_stacks) for extractor in self.target_extractors]
        self._channels = fixed([0] * n_channels)  # of each structure's own images
        self._first_image = [sum(n_images[:c]) for c in range(n_channels)]
        self._placements = [
            Placement(
                f"patching_strategies[{i}]",
                self.patching_strategies[i],
                self.target_extractors[i],
                self.multiscale_count,
                self._first_image[i],
            )
            for i in range(n_channels)
        ]
        checked_patch_sizes([size for s in self._placements for size in s.patch_sizes])
        counts = self._counts()
        self.principal_channel = counts.index(max(counts))
        images = [extractor.images for extractor in self.target_extractors]
        self._images = ImageSet(
            list(chain.from_iterable(each.arrays for each in images)),
            names=list(chain.from_iterable(each.names for each in images)),
        )
        targets = [(extractor, 0) for extractor in self.target_extractors]
        self.sampling = Sampling(
            self._placements, {"target": targets}, self.principal_channel, self.rng
        )
        self._n_places = n_channels
        self._draws = CounterDraws(
            [
                *(DrawSpec(DrawPurpose.PARTNER, c, 1) for c in range(n_channels)),
                *(
                    DrawSpec(DrawPurpose.LOCATION, c, source.n_uniforms)
                    for c, source in enumerate(self._placements)
                ),
                *self._weights.draw_specs,
                *self._absence.draw_specs,
            ]
        )

    @property
    def input_shapes(self) -> Sequence[Sequence[int]]:
        return self._placement.extractor.shapes

    @property
    def target_shapes(self) -> Sequence[Sequence[int]]:
        return self._placement.extractor.shapes

    def get_input_image_metadata(self, patch_spec: PatchSpecs) -> ImageMetadata:
        stacks = [extractor.image_stacks for extractor in self.target_extractors]
        return uncorrelated_metadata(stacks, patch_spec)

    def get_target_image_metadata(self, patch_spec: PatchSpecs) -> ImageMetadata:
        return self.get_input_image_metadata(patch_spec)

    def _plan_patch(self, index: int) -> Plan:
        counts = self._counts()
        indices = self.rng.integers(0, counts, len(counts)).tolist()
        indices[self.principal_channel] = index
        places = [source.from_specs(i) for source, i in zip(self._placements, indices, strict=True)]
        return self._plan(places, self._weights.from_generator(self.rng))

    def _plan_batch(self, index: NDArray[np.int64], epoch: int) -> Plan:
        n = len(self._placements)
        drawn = self._draws(self.seed, epoch, index)
        partners, locations, rest = drawn[:n], drawn[n : 2 * n], drawn[2 * n :]
        n_weights = len(self._weights.draw_specs)
        weights = self._weights.from_uniforms(rest[:n_weights], len(index))
        places = []
        for c, (source, count) in enumerate(zip(self._placements, self._counts(), strict=True)):
            own = integers(partners[c][0], count)
            chosen = index if c == self.principal_channel else own
            places.append(source.locate(chosen, locations[c]))
        return self._plan(places, *self._absence(rest[n_weights:], weights))

    def _counts(self) -> list[int]:
        """Return the number of patches of each structure."""
        counts = [source.n_patches for source in self._placements]
        if 0 in counts:
            name = self._placements[counts.index(0)].name
            raise ValueError(f"{name} has 0 patches: every structure needs at least 1")
        return counts

    def _plan(
        self,
        places: list[Locations],
        weights: NDArray[np.float32],
        epilogue: Epilogue | None = None,
    ) -> Plan:
        checked_patch_sizes([place.patch_size for place in places])
        sources = ChannelSources.uncorrelated(places, self._channels, self._first_image)
        return Plan(
            Read(self._images, sources, self.multiscale_count, self.padding_mode),
            None,
            is_mixture=True,
            weights=weights,
            patch_size=places[0].patch_size,
            specs=Specs(places, self.principal_channel, np.ones(len(weights), bool)),
            epilogue=epilogue,
        )


def _checked_pairs(
    strategies: object, extractors: object
) -> tuple[list[Patching], list[PatchExtractor]]:
    """Return mode II's strategies and extractors, one of each per structure."""
    checked = (
        [
            checked_patching(f"patching_strategies[{i}]", strategy)
            for i, strategy in enumerate(
                sequence("patching_strategies", strategies, "patching strategies")
            )
        ],
        [
            checked_extractor(f"target_extractors[{i}]", extractor)
            for i, extractor in enumerate(
                sequence("target_extractors", extractors, "PatchExtractor")
            )
        ],
    )
    if not checked[0] or len(checked[0]) != len(checked[1]):
        raise ValueError(
            "patching_strategies and target_extractors must have one entry per structure, found "
            f"{len(checked[0])} and {len(checked[1])}"
        )
    for i, extractor in enumerate(checked[1]):
        checked_single_channel(f"target_extractors[{i}]", extractor, "one structure each")
        if extractor.n_spatial_dims != checked[1][0].n_spatial_dims:
            raise ValueError(
                "target_extractors must all be 2D or all be 3D, found "
                f"{checked[1][0].n_spatial_dims}D and {extractor.n_spatial_dims}D"
            )
    names = [f"target_extractors[{i}]" for i in range(len(checked[1]))]
    checked_same_device(names, checked[1])
    return checked
