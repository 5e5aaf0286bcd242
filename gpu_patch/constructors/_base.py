"""What the constructors share: checks, drawing, planning, and metadata of uncorrelated patches."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpu_patch.augmentation import N_UNIFORMS, Augmentation
from gpu_patch.chunks._cache import ChunkCache, ChunkKey
from gpu_patch.constructors._protocol import PatchConstr
from gpu_patch.draws import Draws, Request, Stream, checked_seed, restored_on_error
from gpu_patch.epilogue import AffineNormalization, Epilogue
from gpu_patch.errors import (
    index_in,
    indices_in,
    instance,
    mapping,
    sequence,
    shorten,
    whole_number,
)
from gpu_patch.geometry import window_start
from gpu_patch.images import ImageStack, PatchExtractor
from gpu_patch.ops import Images
from gpu_patch.patching import FixedPatching, Patching
from gpu_patch.patching._adapter import places_batches
from gpu_patch.patching._base import BatchPatching, SampledPatching
from gpu_patch.patching._locations import Locations
from gpu_patch.plan import Plan, Rows
from gpu_patch.specs import ImageMetadata, PatchBatch, PatchSpecs


class PlannedConstr(PatchConstr):
    """A constructor that plans first and then makes all patches of the plan at once.

    Parameters
    ----------
    seed : int or None
        Key of the batch draws, 0 ≤ seed < 2^64; None takes a fresh one, kept in `seed`.
    """

    _source: Source
    """Strategy and images of the patches that indices count."""

    def __init__(self, seed: int | None) -> None:
        self.seed = checked_seed(seed)
        self._orientations = Draws([Request(Stream.AUGMENTATION, 0, N_UNIFORMS)])

    @property
    def n_patches(self) -> int:
        return self._source.n_patches

    @property
    def device(self) -> str:
        return self._source.extractor.device

    @property
    def draws_by_counter(self) -> bool:
        return all(generator is None for generator in self.generators(batch=True))

    def get_patch_indices(self, data_idx: int) -> Sequence[int]:
        return self._source.get_patch_indices(data_idx)

    def sites(self) -> NDArray[np.int64]:
        """Tell roughly where every patch lies, without drawing.

        Returns
        -------
        array of int64, shape (n_patches, 2 + D)
            Image, sample and first pixel. Where a patch is drawn from a whole sample, the middle
            of it; patches of channels that come from elsewhere do not count.
        """
        return self._source.sites()

    @property
    def is_chunked(self) -> bool:
        """Whether some of the images are kept by chunk."""
        return any(images.chunked for images in self._all_images())

    def chunks(self, indices: Sequence[int], *, epoch: int = 0) -> dict[ChunkCache, list[ChunkKey]]:
        """Tell which chunks a batch reads, or most of them, without reading them.

        Parameters
        ----------
        indices : sequence of int
            As in `construct_batch`. Draws must be by counter.
        epoch : int, default 0
            As in `construct_batch`.

        Returns
        -------
        dict of ChunkCache to list of ChunkKey
            Each once.
        """
        plan = self.plan_batch(indices, epoch=epoch)
        needed: dict[ChunkCache, dict[ChunkKey, None]] = {}
        for images, rows, scale, _ in self.reads(plan):
            if images.chunked:
                for cache, keys in images.touched(rows, plan.patch_size, scale).items():
                    needed.setdefault(cache, {}).update(dict.fromkeys(keys))
        return {cache: list(keys) for cache, keys in needed.items()}

    @property
    def patch_sizes(self) -> Sequence[Sequence[int]]:
        """Sizes that patches may have, (Z)YX, as far as the strategy says them."""
        return self._source.patch_sizes

    @property
    def window_size(self) -> tuple[int, ...]:
        """What a patch reads at most with its context, (Z)YX, as far as the strategy says it."""
        sizes = self.patch_sizes or [(0,) * self._source.extractor.n_spatial_dims]
        scale = max(self._source.n_scales - 1, 0)
        return tuple(int(max(side)) << scale for side in zip(*sizes, strict=True))

    @abstractmethod
    def _all_images(self) -> list[Images]:
        """Return all images that patches are read from."""
        raise NotImplementedError

    @abstractmethod
    def reads(self, plan: Plan) -> list[Read]:
        """Tell what patches are made of.

        Parameters
        ----------
        plan : Plan
            Of this constructor.

        Returns
        -------
        list of Read
            What the input is made of; then what the target is, unless it is the same.
        """
        raise NotImplementedError

    @abstractmethod
    def _plan_patch(self, index: int) -> Plan:
        """Plan one patch with upstream's draws."""
        raise NotImplementedError

    @abstractmethod
    def _plan_batch(self, index: NDArray[np.int64], epoch: int) -> Plan:
        """Plan a batch with draws by counter."""
        raise NotImplementedError

    @abstractmethod
    def _execute(self, plan: Plan, dtype: DTypeLike) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """Make input and target."""
        raise NotImplementedError

    @property
    @abstractmethod
    def _n_channels(self) -> tuple[int, int]:
        """Channels of input and target that an epilogue tells apart, 0 where there is none."""
        raise NotImplementedError

    def generators(self, *, batch: bool) -> list[object]:
        """Return NumPy generators that making a patch, or a batch, advances.

        Parameters
        ----------
        batch : bool
            Whether a batch is made.

        Returns
        -------
        list
            Of `numpy.random.Generator`, or None.
        """
        return self._source.generators(batch=batch)

    def construct_patch(self, index: int) -> tuple[NDArray[Any], NDArray[Any] | None, PatchSpecs]:
        with restored_on_error(self.generators(batch=False)):
            plan = self.plan_patch(index)
            inputs, targets = self._execute(plan, np.float32)
        return inputs[0], None if targets is None else targets[0], plan.specs[0]

    def construct_batch(
        self,
        indices: Sequence[int],
        *,
        epoch: int = 0,
        dtype: DTypeLike = np.float32,
        normalization: AffineNormalization | None = None,
        augmentation: Augmentation | None = None,
    ) -> PatchBatch:
        with restored_on_error(self.generators(batch=True)):
            plan = self.plan_batch(
                indices, epoch=epoch, normalization=normalization, augmentation=augmentation
            )
            inputs, targets = self._execute(plan, dtype)
        return PatchBatch(inputs, targets, plan.specs)

    def plan_patch(self, index: int) -> Plan:
        """Decide what a patch reads and with which weights, without touching a pixel.

        Parameters
        ----------
        index : int
            −n_patches … n_patches − 1.

        Returns
        -------
        Plan
            What `construct_patch` makes of the same index; generators go on likewise.

        Raises
        ------
        IndexError
            Where there is no such patch.
        """
        return self._plan_patch(index_in("index", index, self.n_patches, "patches"))

    def plan_batch(
        self,
        indices: Sequence[int],
        *,
        epoch: int = 0,
        normalization: AffineNormalization | None = None,
        augmentation: Augmentation | None = None,
    ) -> Plan:
        """Decide what a batch reads and with which weights, without touching a pixel.

        Parameters
        ----------
        indices : sequence of int
            At least one, each in −n_patches … n_patches − 1.
        epoch : int, default 0
            0 ≤ epoch < 2^32.
        normalization, augmentation : optional
            As in `construct_batch`.

        Returns
        -------
        Plan
            Exactly what `construct_batch` makes of the same arguments.

        Raises
        ------
        IndexError, TypeError, ValueError
            An argument is wrong; the message names it.
        """
        index = indices_in("indices", indices, self.n_patches, "patches")
        epoch = whole_number("epoch", epoch, minimum=0, maximum=2**32 - 1)
        plan = self._plan_batch(index, epoch)
        if normalization is None and augmentation is None:
            return plan
        epilogue = plan.epilogue or Epilogue.identity(len(index), *self._n_channels)
        if normalization is not None:
            epilogue = epilogue.normalized(normalization)
        if augmentation is not None:
            epilogue = epilogue.turned(self._turns(index, epoch, augmentation, plan.patch_size))
        return replace(plan, epilogue=epilogue)

    def _turns(
        self,
        index: NDArray[np.int64],
        epoch: int,
        augmentation: Augmentation,
        patch_size: tuple[int, ...],
    ) -> NDArray[np.uint8]:
        """Draw the orientation of each sample."""
        instance("augmentation", augmentation, Augmentation, "an Augmentation or None")
        augmentation.check_patch(patch_size)
        (uniforms,) = self._orientations(self.seed, epoch, index, self.n_patches)
        return augmentation.orientations(uniforms)


class Read(NamedTuple):
    """What an operation reads, up to the windows of a scale, and beyond the border by a mode."""

    images: Images
    rows: Rows
    scale: int = 0
    mode: str = "zero"


class Source:
    """A strategy and the images that it places patches in.

    Parameters
    ----------
    name : str
        Name of the strategy's argument, for messages.
    strategy : Patching
        The strategy.
    extractor : PatchExtractor
        The images.
    n_scales : int
        Number of scales of the lateral context, 0 for none: windows must then touch the image.
    """

    def __init__(
        self, name: str, strategy: Patching, extractor: PatchExtractor, n_scales: int = 0
    ) -> None:
        self.name, self.strategy, self.extractor = name, strategy, extractor
        self.n_scales = n_scales
        self._shapes = np.array([shape[:1] + shape[2:] for shape in extractor.shapes])
        self._places_batches = places_batches(strategy)
        self.n_uniforms = strategy.n_uniforms if places_batches(strategy) else 0
        self._trusted = self._places_batches and isinstance(strategy, SampledPatching)
        if isinstance(strategy, SampledPatching):
            self._check_shapes(strategy)
        elif isinstance(strategy, FixedPatching):
            self._check_table(strategy)

    def _check_shapes(self, strategy: SampledPatching) -> None:
        """Check that a strategy of ours was made for these images; channels may differ."""
        images = self.extractor.shapes
        if len(strategy.data_shapes) > len(images):
            raise ValueError(
                f"{self.name} was made for {len(strategy.data_shapes)} image stacks, "
                f"the extractor has {len(images)}"
            )
        for i, (made_for, found) in enumerate(zip(strategy.data_shapes, images, strict=False)):
            if (made_for[0], *made_for[2:]) != (found[0], *found[2:]):
                raise ValueError(
                    f"{self.name} was made for data_shapes[{i}] = {made_for}, but image stack {i} "
                    f"of the extractor has the shape {found}"
                )

    def _check_table(self, strategy: FixedPatching) -> None:
        """Check the places of a list now rather than when one is used."""
        for size in {spec["patch_size"] for spec in strategy.fixed_patch_specs}:
            specs = [s for s in strategy.fixed_patch_specs if s["patch_size"] == size]
            self._check(Locations.from_specs(specs))

    def _check(self, places: Locations) -> Locations:
        """Return `places` where all of them are in the images."""
        if self._trusted:
            return places
        ndim = self._shapes.shape[1] - 1
        if len(places.patch_size) != ndim:
            raise ValueError(
                f"{self.name} gave the patch_size {places.patch_size}, but the images have {ndim} "
                "spatial axes"
            )
        n_images = len(self._shapes)
        if places.data_idx.max() >= n_images:
            raise ValueError(
                f"{self.name} gave data_idx {places.data_idx.max()}, but there are {n_images} "
                "image stacks"
            )
        shapes = self._shapes[places.data_idx]
        beyond = places.sample_idx >= shapes[:, 0]
        if beyond.any():
            i = int(beyond.argmax())
            raise ValueError(
                f"{self.name} gave sample_idx {places.sample_idx[i]}, but image stack "
                f"{places.data_idx[i]} has {shapes[i, 0]} samples"
            )
        if self.n_scales:
            size = np.array(places.patch_size)
            start = window_start(places.coords, size, self.n_scales)
            outside = ((start >= shapes[:, 1:]) | (start + (size << self.n_scales) <= 0)).any(
                axis=1
            )
            if outside.any():
                i = int(outside.argmax())
                raise ValueError(
                    f"{self.name} gave coords {tuple(places.coords[i].tolist())}, but image stack "
                    f"{places.data_idx[i]} has the spatial shape {tuple(shapes[i, 1:].tolist())}: "
                    "no pixel of it is in the patch or its context"
                )
        return places

    def from_specs(self, index: int) -> Locations:
        """Place one patch with the strategy's own draws."""
        return self._check(Locations.from_specs([self.strategy.get_patch_spec(index)]))

    def locate(self, index: NDArray[np.int64], uniforms: NDArray[np.float64]) -> Locations:
        """Place a batch: at once where the strategy can, otherwise index by index."""
        if self._places_batches:
            batched: BatchPatching = self.strategy  # type: ignore[assignment]
            return self._check(batched.locate(index, uniforms))
        specs = [self.strategy.get_patch_spec(i) for i in index.tolist()]
        return self._check(Locations.from_specs(specs))

    @property
    def n_patches(self) -> int:
        """Number of patches, as the strategy says now."""
        if self._trusted:
            return self.strategy.n_patches
        return whole_number(f"{self.name}.n_patches", self.strategy.n_patches, minimum=0)

    @property
    def patch_sizes(self) -> Sequence[Sequence[int]]:
        """The patch sizes that the strategy may give, as far as it says so."""
        if isinstance(self.strategy, FixedPatching):
            return [spec["patch_size"] for spec in self.strategy.fixed_patch_specs]
        size = getattr(self.strategy, "patch_size", None)
        return [list(size)] if isinstance(size, (Sequence, np.ndarray)) else []

    def sites(self) -> NDArray[np.int64]:
        """Tell roughly where every patch lies: image, sample and first pixel, (n_patches, 2 + D).

        Of strategies that are not of this package only the image is known.
        """
        if self._places_batches:
            batched: BatchPatching = self.strategy  # type: ignore[assignment]
            return batched.sites()
        sites = np.zeros((self.n_patches, self._shapes.shape[1] + 1), np.int64)
        for image in range(len(self._shapes)):
            sites[list(self.get_patch_indices(image)), 0] = image
        return sites

    def get_patch_indices(self, data_idx: int) -> Sequence[int]:
        """Return the indices whose patches lie in an image stack; none in one without patches."""
        n_images = len(self.extractor.image_stacks)
        image = index_in("data_idx", data_idx, n_images, "image stacks")
        strategy = self.strategy
        if isinstance(strategy, SampledPatching) and image >= len(strategy.data_shapes):
            return []
        if isinstance(strategy, FixedPatching) and image > strategy.last_data_idx:
            return []
        return strategy.get_patch_indices(image)

    def generators(self, *, batch: bool) -> list[object]:
        """Return the strategy's generator, where making a patch or a batch advances it."""
        return [] if batch and self._places_batches else [getattr(self.strategy, "rng", None)]


def checked_extractor(name: str, extractor: object) -> PatchExtractor:
    """Return `extractor` where it is one."""
    checked: PatchExtractor = instance(name, extractor, PatchExtractor, "a PatchExtractor")
    return checked


def checked_single_channel(name: str, extractor: PatchExtractor, why: str) -> None:
    """Check that an extractor has one channel."""
    if extractor.n_channels != 1:
        raise ValueError(
            f"{name} must have 1 channel ({why}), found {extractor.n_channels} channels"
        )


def checked_same_places(
    names: tuple[str, str], first: PatchExtractor, second: PatchExtractor
) -> None:
    """Check that two extractors have the same samples and spatial shapes, on one device."""
    a = [(shape[0], *shape[2:]) for shape in first.shapes]
    b = [(shape[0], *shape[2:]) for shape in second.shapes]
    if a != b:
        raise ValueError(
            f"{names[0]} and {names[1]} must have the same samples and spatial shapes, found "
            f"{shorten(first.shapes)} and {shorten(second.shapes)}"
        )
    checked_same_device(names, [first, second])


def checked_same_device(names: Sequence[str], extractors: Sequence[PatchExtractor]) -> None:
    """Check that extractors have their images in one place."""
    devices = {extractor.device for extractor in extractors}
    if len(devices) > 1:
        raise ValueError(f"{', '.join(names)} must be on one device, found {sorted(devices)}")


def checked_alpha_ranges(alpha_ranges: object, n_channels: int) -> list[tuple[float, float]] | None:
    """Return `alpha_ranges` as finite (low, high) per channel, or None."""
    if alpha_ranges is None:
        return None
    pairs = [
        _alpha_range(f"alpha_ranges[{i}]", pair)
        for i, pair in enumerate(sequence("alpha_ranges", alpha_ranges, "(low, high)"))
    ]
    if len(pairs) != n_channels:
        raise ValueError(
            f"alpha_ranges must have one (low, high) per channel of the images, {n_channels}, "
            f"found {len(pairs)}"
        )
    return pairs


def _alpha_range(name: str, pair: object) -> tuple[float, float]:
    wanted = f"{name} must be (low, high), found {shorten(pair)}"
    if isinstance(pair, str) or not isinstance(pair, (Sequence, np.ndarray)):
        raise TypeError(wanted)
    if len(pair) != 2:
        raise ValueError(wanted)
    if not all(isinstance(value, Real) for value in pair):
        raise TypeError(wanted)
    low, high = float(pair[0]), float(pair[1])
    # weights are float32
    if not (max(abs(low), abs(high)) <= float(np.finfo(np.float32).max) and low <= high):
        raise ValueError(f"{name} must be finite in float32 with low ≤ high, found {shorten(pair)}")
    return low, high


def checked_generator(rng: object) -> np.random.Generator:
    """Return `rng`, a fresh one for None."""
    if rng is None:
        return np.random.default_rng()
    checked: np.random.Generator = instance(
        "rng", rng, np.random.Generator, "a numpy.random.Generator or None"
    )
    return checked


def uncorrelated_metadata(
    stacks: Sequence[Sequence[ImageStack]], patch_spec: object
) -> ImageMetadata:
    """Metadata of the principal channel's image, with the sources and shapes of all.

    Parameters
    ----------
    stacks : sequence of sequence of ImageStack
        Image stacks of each channel.
    patch_spec : UncorrelatedPatchSpecs
        Names one of them per channel.
    """
    spec = mapping("patch_spec", patch_spec, ["data_idx"])
    if "all_data_idx" not in spec:
        raise TypeError(
            "patch_spec must be an uncorrelated one, with all_data_idx, as construct_patch "
            f"returns it, found {shorten(patch_spec)}"
        )
    mapping("patch_spec", spec, ["principal_channel"])
    indices = sequence("patch_spec['all_data_idx']", spec["all_data_idx"], "image stack indices")
    if len(indices) != len(stacks):
        raise ValueError(
            f"patch_spec['all_data_idx'] must name an image stack for each of the {len(stacks)} "
            f"channels, found {shorten(indices)}"
        )
    chosen = [
        images[index_in("patch_spec['all_data_idx']", i, len(images), "image stacks")]
        for images, i in zip(stacks, indices, strict=True)
    ]
    principal = index_in(
        "patch_spec['principal_channel']", spec["principal_channel"], len(chosen), "channels"
    )
    metadata = chosen[principal].metadata
    metadata["additional_metadata"] |= {
        "all_sources": [str(stack.source) for stack in chosen],
        "all_data_shapes": [stack.data_shape for stack in chosen],
        "all_original_data_shapes": [stack.original_data_shape for stack in chosen],
    }
    return metadata


def image_metadata(extractor: PatchExtractor, patch_spec: object) -> ImageMetadata:
    """Metadata of the image, or images, of one extractor that a spec names."""
    spec = mapping("patch_spec", patch_spec, ["data_idx"])
    stacks = extractor.image_stacks
    if "all_data_idx" in spec:
        indices = sequence("patch_spec['all_data_idx']", spec["all_data_idx"], "stack indices")
        return uncorrelated_metadata([stacks] * len(indices), spec)
    at = index_in("patch_spec['data_idx']", spec["data_idx"], len(stacks), "image stacks")
    return stacks[at].metadata
