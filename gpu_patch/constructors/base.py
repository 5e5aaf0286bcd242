"""What the constructors share: a plan first, then all patches of it at once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpu_patch.augmentation import N_UNIFORMS, Augmentation
from gpu_patch.checks import index_in, indices_in, instance, whole_number
from gpu_patch.chunks.cache import ChunkCache
from gpu_patch.chunks.image import ChunkKey
from gpu_patch.constructors.placement import Placement
from gpu_patch.constructors.protocol import PatchConstr
from gpu_patch.draws import CounterDraws, DrawPurpose, DrawSpec, checked_seed, restored_on_error
from gpu_patch.epilogue import AnyNormalization, Epilogue
from gpu_patch.ops import ImageSet
from gpu_patch.plan import ChannelSources, Plan
from gpu_patch.specs import PatchBatch, PatchSpecs


class PlannedConstr(PatchConstr):
    """A constructor that plans first and then makes all patches of the plan at once.

    Parameters
    ----------
    seed : int or None
        Key of the batch draws, 0 ≤ seed < 2^64; None takes a fresh one, kept in `seed`.
    """

    _placement: Placement
    """Strategy and images of the patches that indices count."""

    def __init__(self, seed: int | None) -> None:
        self.seed = checked_seed(seed)
        self._orientations = CounterDraws([DrawSpec(DrawPurpose.AUGMENTATION, 0, N_UNIFORMS)])

    @property
    def n_patches(self) -> int:
        return self._placement.n_patches

    @property
    def device(self) -> str:
        return self._placement.extractor.device

    @property
    def draws_by_counter(self) -> bool:
        return all(generator is None for generator in self.generators(batch=True))

    def get_patch_indices(self, data_idx: int) -> Sequence[int]:
        return self._placement.get_patch_indices(data_idx)

    def placements(self) -> list[tuple[Placement, int]]:
        """Tell which strategies place patches, and in which images.

        Returns
        -------
        list of (Placement, int)
            Each strategy with its images, and the number of the first of these among all images
            that the input is read from.
        """
        return [(self._placement, 0)]

    def sites(self) -> NDArray[np.int64]:
        """Tell roughly where every patch lies, without drawing.

        Returns
        -------
        array of int64, shape (n_patches, 2 + D)
            Image, sample and first pixel. Where a patch is drawn from a whole sample, the middle
            of it; patches of channels that come from elsewhere do not count.
        """
        return self._placement.sites()

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
        for images, sources, scale, _ in self.reads(plan):
            if images.chunked:
                for cache, keys in images.touched(sources, plan.patch_size, scale).items():
                    needed.setdefault(cache, {}).update(dict.fromkeys(keys))
        return {cache: list(keys) for cache, keys in needed.items()}

    @property
    def patch_sizes(self) -> Sequence[Sequence[int]]:
        """Sizes that patches may have, (Z)YX, as far as the strategy says them."""
        return self._placement.patch_sizes

    @property
    def window_size(self) -> tuple[int, ...]:
        """What a patch reads at most with its context, (Z)YX, as far as the strategy says it."""
        sizes = self.patch_sizes or [(0,) * self._placement.extractor.n_spatial_dims]
        scale = max(self._placement.n_scales - 1, 0)
        return tuple(int(max(side)) << scale for side in zip(*sizes, strict=True))

    @abstractmethod
    def _all_images(self) -> list[ImageSet]:
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
        return self._placement.generators(batch=batch)

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
        normalization: AnyNormalization | None = None,
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
        normalization: AnyNormalization | None = None,
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
            # plain patches have no weights
            weights = plan.weights if plan.weights.size else None
            epilogue = epilogue.normalized(normalization, weights)
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

    images: ImageSet
    sources: ChannelSources
    scale: int = 0
    mode: str = "zero"
