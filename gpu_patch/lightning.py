"""Batches for Lightning (needs PyTorch and Lightning)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gpu_patch.constructors import PatchConstr
from gpu_patch.constructors.protocol import checked_constructor
from gpu_patch.feed.loader import BatchLoader
from gpu_patch.torch import TensorBatch, TensorLoader

try:
    from lightning.pytorch import LightningDataModule
except ImportError:  # the same classes by their older name
    from pytorch_lightning import LightningDataModule

__all__ = ["PatchDataModule"]


class PatchDataModule(LightningDataModule):  # type: ignore[misc]
    """Gives a `Trainer` batches as tensors; each of its ranks gets its part of every epoch.

    Checkpoints in the middle of an epoch go on with the next batch: the trainer keeps the state of
    the training batches.

    Parameters
    ----------
    train : PatchConstr
        Makes the training patches.
    batch_size : int
        Patches per batch and rank.
    val, predict : PatchConstr or None, default None
        Make the patches for validation and prediction, in the order of their indices, neither
        augmented nor dropped. Each epoch's are the same.
    **options
        Of `BatchLoader`: seed, drop_last, prefetch, normalization, augmentation, dtype.

    Raises
    ------
    TypeError
        An argument is no constructor, or an option is one that the trainer decides on.
    """

    def __init__(
        self,
        train: PatchConstr | None,
        batch_size: int,
        *,
        val: PatchConstr | None = None,
        predict: PatchConstr | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        for name, constructor in (("train", train), ("val", val), ("predict", predict)):
            if constructor is not None:
                checked_constructor(name, constructor)
        self._train, self._val, self._predict = train, val, predict
        self._batch_size, self._options = batch_size, options
        if {"rank", "world_size", "shuffle"} & options.keys():
            raise TypeError("rank, world_size and shuffle are not options here: the trainer knows")

    def train_dataloader(self) -> TensorLoader | list[Any]:
        """Return this rank's training batches.

        Returns
        -------
        TensorLoader or list
            An empty list where there is no constructor.
        """
        return self._loader(_TrainerEpoch, self._train, shuffle=True, **self._options)

    def val_dataloader(self) -> TensorLoader | list[Any]:
        """Return this rank's validation batches.

        Returns
        -------
        TensorLoader or list
            An empty list where there is no constructor.
        """
        return self._in_order(self._val)

    def predict_dataloader(self) -> TensorLoader | list[Any]:
        """Return this rank's batches to predict from.

        Returns
        -------
        TensorLoader or list
            An empty list where there is no constructor.
        """
        return self._in_order(self._predict)

    def _in_order(self, constructor: PatchConstr | None) -> TensorLoader | list[Any]:
        training_only = ("augmentation", "drop_last", "order", "window")
        options = {k: v for k, v in self._options.items() if k not in training_only}
        return self._loader(_SameEpoch, constructor, shuffle=False, **options)

    def _loader(
        self, kind: type[_OfTrainer], constructor: PatchConstr | None, **options: Any
    ) -> TensorLoader | list[Any]:
        if constructor is None:
            return []
        if self.trainer is not None:
            options |= {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}
        loader = BatchLoader(constructor, self._batch_size, **options)
        return kind(loader, self.trainer)


class _OfTrainer(TensorLoader):
    """Knows the trainer that takes the batches, None where there is none."""

    def __init__(self, loader: BatchLoader, trainer: Any) -> None:
        super().__init__(loader)
        self._trainer = trainer


class _TrainerEpoch(_OfTrainer):
    """Gives the batches of the trainer's epoch, however far the one before came.

    Trainers make loaders anew, and leave epochs early.
    """

    def __iter__(self) -> Iterator[TensorBatch]:
        # only when the first batch is asked for: before, the trainer does not know its epoch
        trainer = self._trainer
        if trainer is not None and self.loader.epoch != trainer.current_epoch:
            self.set_epoch(trainer.current_epoch)
        yield from super().__iter__()


class _SameEpoch(_OfTrainer):
    """Draws nothing anew, so that what is measured on its batches can be compared."""

    def __iter__(self) -> Iterator[TensorBatch]:
        self.set_epoch(0)
        return super().__iter__()
