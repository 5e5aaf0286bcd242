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
from gpu_patch.constructors.plan import Plan, Specs
from gpu_patch.constructors.protocol import PatchConstr
from gpu_patch.constructors.tabulated import EpochPlans, PlannedBatch
from gpu_patch.constructors.target_dtype import checked_target_dtype
from gpu_patch.draws import DrawPurpose, DrawSpec, RestoredOnError, checked_seed
from gpu_patch.epilogue import AnyNormalization, Epilogue, FixedNormalization
from gpu_patch.ops.draws import CounterDraws
from gpu_patch.specs import PatchBatch, PatchSpecs

_NORMALIZING = [
    f"{part}_{name}" for part in ("input", "target") for name in ("center", "scale", "offset")
]


class PlannedConstr(PatchConstr):
    """A constructor that plans first and then makes all patches of the plan at once.

    Parameters
    ----------
    seed : int or None
        Key of the batch draws, 0 ≤ seed < 2^64; None takes a fresh one, kept in `seed`.
    """

    sampling: Sampling
    """Where patches come from."""
    _n_places: int = 1
    """Places that a patch may have: one, or one per channel."""

    def __init__(self, seed: int | None) -> None:
        self.seed = checked_seed(seed)
        self._orientations = CounterDraws([DrawSpec(DrawPurpose.AUGMENTATION, 0, N_UNIFORMS)])

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name[0] != "_":  # what is planned depends on it
            self.forget_plans()

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
            planned = self._planned(indices, epoch, normalization, augmentation)
            inputs, targets = planned.execute(dtype, kind)
        return PatchBatch(inputs, targets, self._specs(planned.specs))

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
        return self._described(
            self._plan_patch(index_in("index", index, self.n_patches, "patches"))
        )

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
        return self._described(self._planned(indices, epoch, normalization, augmentation).alone())

    def _described(self, plan: Plan) -> Plan:
        """Return a plan with the specs that are handed out."""
        specs = self._specs(plan.specs)
        return plan if specs is plan.specs else replace(plan, specs=specs)

    def _specs(self, specs: Specs) -> Specs:
        """Return what is handed out of specs."""
        return specs

    def _planned(
        self,
        indices: Sequence[int],
        epoch: int,
        normalization: AnyNormalization | None,
        augmentation: Augmentation | None,
    ) -> PlannedBatch:
        """Plan a batch; arguments are those of `plan_batch`."""
        n_patches = self.n_patches
        index = indices_in("indices", indices, n_patches, "patches")
        epoch = whole_number("epoch", epoch, minimum=0, maximum=2**32 - 1)
        if augmentation is not None:
            instance("augmentation", augmentation, Augmentation, "an Augmentation or None")

        def plan(samples: NDArray[np.int64]) -> Plan:
            made = self._plan_batch(samples, epoch)
            return self._finished(made, samples, epoch, normalization, augmentation)

        versions = [placement.version for placement in self.sampling.placements]
        if None in versions:
            return PlannedBatch(plan(index), None, {})
        key = (epoch, n_patches, versions, _identity(normalization), augmentation)
        return self._epoch_plans(key, index, n_patches, self._n_places, plan)

    def forget_plans(self) -> None:
        """Plan all batches anew, where something has changed that `version`s do not tell of."""
        self._epoch_plans = EpochPlans()

    def _finished(
        self,
        plan: Plan,
        index: NDArray[np.int64],
        epoch: int,
        normalization: AnyNormalization | None,
        augmentation: Augmentation | None,
    ) -> Plan:
        """Return a plan with what happens to its values."""
        if normalization is None and augmentation is None:
            return plan
        epilogue = plan.epilogue or Epilogue.identity(len(index), *plan.n_channels)
        if normalization is not None:
            epilogue = epilogue.normalized(normalization, plan.weights)
        if augmentation is not None:
            augmentation.check_patch(plan.patch_size)
            (uniforms,) = self._orientations(self.seed, epoch, index)
            epilogue = epilogue.turned(augmentation.orientations(uniforms))
        return replace(plan, epilogue=epilogue)


def _identity(normalization: AnyNormalization | None) -> object:
    """Return what tells a normalisation from others: its values, since somebody's may change."""
    if normalization is None or isinstance(normalization, FixedNormalization):
        return normalization
    found = [getattr(normalization, name, None) for name in _NORMALIZING]
    return tuple(own if own is None else np.asarray(own).tobytes() for own in found)
