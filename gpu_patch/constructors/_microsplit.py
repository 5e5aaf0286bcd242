"""Patches with lateral context, for MicroSplit.

The modes are those of the MicroSplit paper (Ashesh et al., "MicroSplit: semantic unmixing of
fluorescent microscopy data", 2025) as careamics 0.3.5 builds them
(`careamics.dataset.patch_constructor.microsplit_patch_constructors`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from itertools import chain
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpu_patch.constructors._base import (
    PlannedConstr,
    Source,
    checked_alpha_ranges,
    checked_extractor,
    checked_generator,
    checked_same_device,
    checked_same_places,
    checked_single_channel,
    image_metadata,
    uncorrelated_metadata,
)
from gpu_patch.constructors._basic import gather_targets
from gpu_patch.draws import Draws, Request, Stream, integers
from gpu_patch.errors import choice, probability, sequence, whole_number
from gpu_patch.geometry import PADDING_MODES
from gpu_patch.images import PatchExtractor, checked_channels
from gpu_patch.ops import Images, lateral_context
from gpu_patch.patching import Patching
from gpu_patch.patching._adapter import checked_patching
from gpu_patch.patching._locations import Locations
from gpu_patch.plan import Plan, Rows, Specs
from gpu_patch.specs import ImageMetadata, PatchSpecs

PaddingMode = Literal["reflect", "wrap", "periodic"]
MOST_SCALES = 16


class MicroSplitConstr(PlannedConstr):
    """What all constructors with lateral context share."""

    def __init__(self, multiscale_count: int, padding_mode: str, seed: int | None) -> None:
        super().__init__(seed)
        self.multiscale_count = whole_number(
            "multiscale_count", multiscale_count, minimum=1, maximum=MOST_SCALES
        )
        self.padding_mode = choice("padding_mode", padding_mode, PADDING_MODES)

    @abstractmethod
    def _input_images(self) -> Images:
        """Images that the plan's `image_idx` counts."""
        raise NotImplementedError

    def get_principal_input(self, input_patch: NDArray[Any]) -> NDArray[Any]:
        ndim = self._source.extractor.n_spatial_dims
        return input_patch[:, [0]] if input_patch.ndim == ndim + 2 else input_patch[[0]]

    _with_targets = True

    def _execute(self, plan: Plan, dtype: DTypeLike) -> tuple[NDArray[Any], NDArray[Any] | None]:
        return lateral_context(
            self._input_images(),
            plan.rows,
            plan.weights,
            plan.patch_size,
            self.multiscale_count,
            mode=self.padding_mode,
            targets=self._with_targets,
            dtype=dtype,
        )


class _Weights:
    """Mixing weights: drawn per channel, or 1 / C where no ranges are given."""

    def __init__(self, ranges: Sequence[tuple[float, float]] | None, n_channels: int) -> None:
        self.n_channels = n_channels
        self.ranges = None if ranges is None else np.array(ranges).T
        # one request per channel keeps a channel's draws apart from how many others there are
        drawn = range(n_channels) if ranges is not None else ()
        self.requests = [Request(Stream.WEIGHT, c, 1) for c in drawn]

    def from_generator(self, rng: np.random.Generator) -> NDArray[np.float32]:
        if self.ranges is None:
            return np.full((1, self.n_channels), 1 / self.n_channels, np.float32)
        low, high = self.ranges
        return np.asarray(rng.uniform(low, high)[None], np.float32)

    def from_uniforms(
        self, uniforms: Sequence[NDArray[np.float64]], n_samples: int
    ) -> NDArray[np.float32]:
        if self.ranges is None:
            return np.full((n_samples, self.n_channels), 1 / self.n_channels, np.float32)
        low, high = self.ranges
        return np.asarray(low + (high - low) * np.concatenate(uniforms).T, np.float32)


class MultiChannelTargetMsPatchConstr(MicroSplitConstr):
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
    channels : sequence of int or None, default: None
        Channels to use, in the order wanted, with their entries of `alpha_ranges`; None is all.
    rng : numpy.random.Generator or None, default: None
        Draws of `construct_patch`; None makes a fresh one.
    seed : int or None, default: None
        Seed of the batches' draws; None takes a fresh one.

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
    ) -> None:
        super().__init__(multiscale_count, padding_mode, seed)
        self.patching_strategy = checked_patching("patching_strategy", patching_strategy)
        self.target_extractor = checked_extractor("target_extractor", target_extractor)
        self.alpha_ranges = alpha_ranges
        self.uncorrelated_channel_prob = probability(
            "uncorrelated_channel_prob", uncorrelated_channel_prob
        )
        self.channels = channels
        self.rng = checked_generator(rng)

        self._channels = np.array(checked_channels(channels, target_extractor.n_channels))
        ranges = checked_alpha_ranges(alpha_ranges, target_extractor.n_channels)
        self._weights = _Weights(
            ranges and [ranges[c] for c in self._channels], len(self._channels)
        )
        self._source = Source(
            "patching_strategy", patching_strategy, target_extractor, self.multiscale_count
        )
        # places that a patch may have: one, or one per channel
        self._n_places = len(self._channels) if self.uncorrelated_channel_prob > 0 else 1
        per_place, others = self._source.n_uniforms, range(1, self._n_places)
        self._draws = Draws(
            [
                Request(Stream.LOCATION, 0, per_place),
                Request(Stream.UNCORRELATED, 0, int(self.uncorrelated_channel_prob > 0)),
                *(Request(Stream.PARTNER, c, 1) for c in others),
                *(Request(Stream.LOCATION, c, per_place) for c in others),
                *self._weights.requests,
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

    def _generators(self, *, batch: bool) -> list[object]:
        return [*([] if batch else [self.rng]), *self._source.generators(batch=batch)]

    def _input_images(self) -> Images:
        return self.target_extractor.images

    def _plan_patch(self, index: int) -> Plan:
        indices = [index]
        if self.rng.random() < self.uncorrelated_channel_prob:
            indices += self.rng.integers(0, self.n_patches, len(self._channels) - 1).tolist()
            places = [self._source.from_specs(i) for i in indices]
            uncorrelated = np.ones(1, bool)
        else:
            places, uncorrelated = [self._source.from_specs(index)], np.zeros(1, bool)
        return self._plan(places, uncorrelated, self._weights.from_generator(self.rng))

    def _plan_batch(self, index: NDArray[np.int64], epoch: int) -> Plan:
        location, decision, *rest = self._draws(self.seed, epoch, index, self.n_patches)
        n_others = self._n_places - 1
        partners, locations, weights = (
            rest[:n_others],
            rest[n_others : 2 * n_others],
            rest[2 * n_others :],
        )
        places = [self._source.locate(index, location)]
        uncorrelated = np.any(decision < self.uncorrelated_channel_prob, axis=0)
        if uncorrelated.any():
            for partner, uniforms in zip(partners, locations, strict=True):
                other = integers(partner[0, uncorrelated], self.n_patches)
                elsewhere = self._source.locate(other, uniforms[:, uncorrelated])
                places.append(_moved(places[0], uncorrelated, elsewhere))
        return self._plan(places, uncorrelated, self._weights.from_uniforms(weights, len(index)))

    def _plan(
        self,
        places: list[Locations],
        uncorrelated: NDArray[np.bool_],
        weights: NDArray[np.float32],
    ) -> Plan:
        if len(places) == 1:
            rows = Rows.correlated(places[0], self._channels)
        else:
            checked_patch_sizes([place.patch_size for place in places])
            rows = Rows.uncorrelated(places, self._channels)
        specs = Specs(places, 0, uncorrelated)
        return Plan(rows, weights, places[0].patch_size, specs)


class IndependentTargetsMsPatchConstr(MicroSplitConstr):
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
    rng : numpy.random.Generator or None, default: None
        Draws of `construct_patch`; None makes a fresh one.
    seed : int or None, default: None
        Seed of the batches' draws; None takes a fresh one. Every structure draws from streams of
        its own, also where their strategies have the same seed.

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
    ) -> None:
        super().__init__(multiscale_count, padding_mode, seed)
        self.patching_strategies, self.target_extractors = _checked_pairs(
            patching_strategies, target_extractors
        )
        n_channels = len(self.patching_strategies)
        self.alpha_ranges = alpha_ranges
        self.rng = checked_generator(rng)
        self._weights = _Weights(checked_alpha_ranges(alpha_ranges, n_channels), n_channels)
        self._sources = [
            Source(f"patching_strategies[{i}]", strategy, extractor, self.multiscale_count)
            for i, (strategy, extractor) in enumerate(
                zip(self.patching_strategies, self.target_extractors, strict=True)
            )
        ]
        checked_patch_sizes([size for s in self._sources for size in s.patch_sizes])
        counts = self._counts()
        self.principal_channel = counts.index(max(counts))
        self._source = self._sources[self.principal_channel]

        images = [extractor.images.arrays for extractor in self.target_extractors]
        self._images = Images(list(chain.from_iterable(images)))
        self._first_image = [sum(map(len, images[:c])) for c in range(n_channels)]
        self._draws = Draws(
            [
                *(Request(Stream.PARTNER, c, 1) for c in range(n_channels)),
                *(
                    Request(Stream.LOCATION, c, source.n_uniforms)
                    for c, source in enumerate(self._sources)
                ),
                *self._weights.requests,
            ]
        )

    @property
    def input_shapes(self) -> Sequence[Sequence[int]]:
        return self._source.extractor.shapes

    @property
    def target_shapes(self) -> Sequence[Sequence[int]]:
        return self._source.extractor.shapes

    def get_input_image_metadata(self, patch_spec: PatchSpecs) -> ImageMetadata:
        stacks = [extractor.image_stacks for extractor in self.target_extractors]
        return uncorrelated_metadata(stacks, patch_spec)

    def get_target_image_metadata(self, patch_spec: PatchSpecs) -> ImageMetadata:
        return self.get_input_image_metadata(patch_spec)

    def _generators(self, *, batch: bool) -> list[object]:
        own: list[object] = [] if batch else [self.rng]
        return own + [g for source in self._sources for g in source.generators(batch=batch)]

    def _input_images(self) -> Images:
        return self._images

    def _plan_patch(self, index: int) -> Plan:
        counts = self._counts()
        indices = self.rng.integers(0, counts, len(counts)).tolist()
        indices[self.principal_channel] = index
        places = [source.from_specs(i) for source, i in zip(self._sources, indices, strict=True)]
        return self._plan(places, self._weights.from_generator(self.rng))

    def _plan_batch(self, index: NDArray[np.int64], epoch: int) -> Plan:
        n = len(self._sources)
        drawn = self._draws(self.seed, epoch, index, self.n_patches)
        partners, locations, weights = drawn[:n], drawn[n : 2 * n], drawn[2 * n :]
        places = []
        for c, (source, count) in enumerate(zip(self._sources, self._counts(), strict=True)):
            own = integers(partners[c][0], count)
            chosen = index if c == self.principal_channel else own
            places.append(source.locate(chosen, locations[c]))
        return self._plan(places, self._weights.from_uniforms(weights, len(index)))

    def _counts(self) -> list[int]:
        """Return the number of patches of each structure."""
        counts = [source.n_patches for source in self._sources]
        if 0 in counts:
            name = self._sources[counts.index(0)].name
            raise ValueError(f"{name} has 0 patches: every structure needs at least 1")
        return counts

    def _plan(self, places: list[Locations], weights: NDArray[np.float32]) -> Plan:
        checked_patch_sizes([place.patch_size for place in places])
        rows = Rows.uncorrelated(places, np.zeros(len(places), np.int64), self._first_image)
        specs = Specs(places, self.principal_channel, np.ones(len(weights), bool))
        return Plan(rows, weights, places[0].patch_size, specs)


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
        self._source = Source(
            "patching_strategy", patching_strategy, input_extractor, self.multiscale_count
        )
        self._draws = Draws([Request(Stream.LOCATION, 0, self._source.n_uniforms)])

    @property
    def input_shapes(self) -> Sequence[Sequence[int]]:
        return self.input_extractor.shapes

    def get_input_image_metadata(self, patch_spec: PatchSpecs) -> ImageMetadata:
        return image_metadata(self.input_extractor, patch_spec)

    def _input_images(self) -> Images:
        return self.input_extractor.images

    def _plan_patch(self, index: int) -> Plan:
        return self._plan(self._source.from_specs(index))

    def _plan_batch(self, index: NDArray[np.int64], epoch: int) -> Plan:
        (uniforms,) = self._draws(self.seed, epoch, index, self.n_patches)
        return self._plan(self._source.locate(index, uniforms))

    def _plan(self, places: Locations) -> Plan:
        weights = np.ones((len(places.data_idx), 1), np.float32)
        return Plan(
            Rows.correlated(places, np.zeros(1, np.int64)),
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
        Target images of the same samples and spatial shapes.
    multiscale_count : int
        Number of scales L, at least 1: the field of view grows to 2^(L−1) times the patch.
    padding_mode : {"reflect", "wrap", "periodic"}
        What the context holds beyond the image, see `MultiChannelTargetMsPatchConstr`.
    seed : int or None, default: None
        Seed of the batches' draws; None takes a fresh one.
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
        checked_same_places(
            ("input_extractor", "target_extractor"), input_extractor, target_extractor
        )

    @property
    def target_shapes(self) -> Sequence[Sequence[int]]:
        return self.target_extractor.shapes

    def get_target_image_metadata(self, patch_spec: PatchSpecs) -> ImageMetadata:
        return image_metadata(self.target_extractor, patch_spec)

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
    seed : int or None, default: None
        Seed of the batches' draws, where the strategy draws at all.
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


def checked_patch_sizes(sizes: Sequence[Sequence[int]]) -> None:
    """Check that all channels of a patch have one size."""
    differ = [size for size in sizes if tuple(size) != tuple(sizes[0])]
    if differ:
        raise ValueError(
            "the channels of a patch must have one patch_size, found "
            f"{tuple(sizes[0])} and {tuple(differ[0])}"
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


def _moved(places: Locations, which: NDArray[np.bool_], to: Locations) -> Locations:
    """Return `places` with some of them moved elsewhere."""
    checked_patch_sizes([places.patch_size, to.patch_size])
    data_idx, sample_idx, coords = (
        column.copy() for column in (places.data_idx, places.sample_idx, places.coords)
    )
    data_idx[which], sample_idx[which], coords[which] = to.data_idx, to.sample_idx, to.coords
    return Locations(data_idx, sample_idx, coords, places.patch_size)
