"""What the constructors share: a plan first, then all patches of it at once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpu_patch.augmentation import N_UNIFORMS, Augmentation
from gpu_patch.checks import index_in, indices_in, instance, whole_number
from gpu_patch.constructors.execute import execute
from gpu_patch.constructors.placement import Placement, Sampling
from gpu_patch.constructors.plan import Plan
from gpu_patch.constructors.protocol import PatchConstr
from gpu_patch.constructors.target_dtype import checked_target_dtype
from gpu_patch.draws import CounterDraws, DrawPurpose, DrawSpec, RestoredOnError, checked_seed
from gpu_patch.epilogue import AnyNormalization, Epilogue
from gpu_patch.specs import PatchBatch, PatchSpecs


class PlannedConstr(PatchConstr):
    """A constructor that plans first and then makes all patches of the plan at once.

    Parameters
    ----------
    seed : int or None
        Key of the batch draws, 0 ≤ seed < 2^64; None takes a fresh one, kept in `seed`.
    """

    sampling: Sampling
    """Where patches come from."""

    def __init__(self, seed: int | None) -> None:
        self.seed = checked_seed(seed)
        self._orientations = CounterDraws([DrawSpec(DrawPurpose.AUGMENTATION, 0, N_UNIFORMS)])

    @cached_property
    def _placement(self) -> Placement:
        """Strategy and images of the patches that indices count."""
        return self.sampling.principal

    @property
    def n_patches(self) -> int:
        return self._placement.n_patches

    @property
    def device(self) -> str:
        return self._placement.extractor.device

    @property
    def draws_by_counter(self) -> bool:
        return all(generator is None for generator in self.sampling.generators(batch=True))

    def get_patch_indices(self, data_idx: int) -> Sequence[int]:
        return self._placement.get_patch_indices(data_idx)

    def get_principal_input(self, input_patch: NDArray[Any]) -> NDArray[Any]:
        if self._placement.n_scales == 0:  # all of it is at the native scale
            return input_patch
        ndim = self._placement.extractor.n_spatial_dims
        return input_patch[:, [0]] if input_patch.ndim == ndim + 2 else input_patch[[0]]

    @abstractmethod
    def _plan_patch(self, index: int) -> Plan:
        """Plan one patch with upstream's draws."""
        raise NotImplementedError

    @abstractmethod
    def _plan_batch(self, index: NDArray[np.int64], epoch: int) -> Plan:
        """Plan a batch with draws by counter."""
        raise NotImplementedError

    def construct_patch(
        self, index: int, *, target_dtype: DTypeLike | None = None
    ) -> tuple[NDArray[Any], NDArray[Any] | None, PatchSpecs]:
        kind = checked_target_dtype(target_dtype, self.sampling)
        with RestoredOnError(self.sampling.generators(batch=False)):
            plan = self.plan_patch(index)
            inputs, targets = execute(plan, np.float32, kind)
        return inputs[0], None if targets is None else targets[0], plan.specs[0]

    def construct_batch(
        self,
        indices: Sequence[int],
        *,
        epoch: int = 0,
        dtype: DTypeLike = np.float32,
        normalization: AnyNormalization | None = None,
        augmentation: Augmentation | None = None,
        target_dtype: DTypeLike | None = None,
    ) -> PatchBatch:
        kind = checked_target_dtype(target_dtype, self.sampling)
        with RestoredOnError(self.sampling.generators(batch=True)):
            plan = self.plan_batch(
                indices, epoch=epoch, normalization=normalization, augmentation=augmentation
            )
            inputs, targets = execute(plan, dtype, kind)
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
        epilogue = plan.epilogue or Epilogue.identity(len(index), *plan.n_channels)
        if normalization is not None:
            epilogue = epilogue.normalized(normalization, plan.weights)
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
