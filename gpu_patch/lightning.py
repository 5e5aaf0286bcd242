"""Batches for Lightning (needs PyTorch and Lightning)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gpu_patch.constructors import PatchConstr
from gpu_patch.constructors.protocol import checked_constructor
from gpu_patch.constructors.split import split_constructor
from gpu_patch.feed.loader import BatchLoader
from gpu_patch.patching import Split
from gpu_patch.torch import TensorLoader

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
    val : PatchConstr, float, int or None, default None
        Makes the patches for validation, in the order of their indices, neither augmented nor
        dropped. Each epoch's are the same. A fraction or number of patches is split off `train`,
        so that training never reads their pixels, see `gpu_patch.split_validation`.
    predict : PatchConstr or None, default None
        Makes the patches for prediction, likewise.
    **options
        Of `BatchLoader`: seed, drop_last, prefetch, normalization, augmentation, dtype,
        target_dtype.

    Attributes
    ----------
    splits : list of Split
        What became of the images where validation patches were split off.

    Raises
    ------
    TypeError, ValueError
        An argument is no constructor, an option is one that the trainer decides on, or patches
        cannot be split off.
    """

    def __init__(
        self,
        train: PatchConstr | None,
        batch_size: int,
        *,
        val: PatchConstr | float | None = None,
        predict: PatchConstr | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.splits: list[Split] = []
        if isinstance(val, int | float):
            whole = checked_constructor("train", train)
            train, val, self.splits = split_constructor(whole, val, seed=options.get("seed") or 0)
        for name, constructor in (("train", train), ("val", val), ("predict", predict)):
            if constructor is not None:
                checked_constructor(name, constructor)
        self._train, self._val, self._predict = train, val, predict
        self._batch_size, self._options = batch_size, options
        if {"rank", "world_size", "shuffle"} & options.keys():
            raise TypeError("rank, world_size and shuffle are not options here: the trainer knows")

    def train_dataloader(self) -> TrainerLoader | list[Any]:
        """Return this rank's training batches.

        Returns
        -------
        TrainerLoader or list
            An empty list where there is no constructor.
        """
        return self._loader(self._train, same=False, shuffle=True, **self._options)

    def val_dataloader(self) -> TrainerLoader | list[Any]:
        """Return this rank's validation batches.

        Returns
        -------
        TrainerLoader or list
            An empty list where there is no constructor.
        """
        return self._in_order(self._val)

    def predict_dataloader(self) -> TrainerLoader | list[Any]:
        """Return this rank's batches to predict from.

        Returns
        -------
        TrainerLoader or list
            An empty list where there is no constructor.
        """
        return self._in_order(self._predict)

    def _in_order(self, constructor: PatchConstr | None) -> TrainerLoader | list[Any]:
        training_only = ("augmentation", "drop_last", "order", "window")
        options = {k: v for k, v in self._options.items() if k not in training_only}
        return self._loader(constructor, same=True, shuffle=False, **options)

    def _loader(
        self, constructor: PatchConstr | None, *, same: bool, **options: Any
    ) -> TrainerLoader | list[Any]:
        if constructor is None:
            return []
        loader = BatchLoader(constructor, self._batch_size, **options, **share_of(self.trainer))
        return TrainerLoader(TensorLoader(loader), self.trainer, same=same)


class TrainerLoader:
    """Gives a trainer the batches of its own epoch.

    Trainers make loaders anew, and leave epochs early.

    Parameters
    ----------
    batches : TensorLoader
        What is iterated over.
    trainer : Trainer or None
        Knows the epoch.
    same : bool
        Whether every epoch has the patches of the first, so that what is measured on its batches
        can be compared.
    """

    def __init__(self, batches: TensorLoader, trainer: Any, *, same: bool) -> None:
        self.loader = batches.loader
        self._batches, self._trainer, self._same = batches, trainer, same

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Any]:
        # only when the first batch is asked for: before, the trainer does not know its epoch
        trainer = self._trainer
        if self._same:
            self.loader.set_epoch(0)
        elif trainer is not None and self.loader.epoch != trainer.current_epoch:
            self.loader.set_epoch(trainer.current_epoch)
        yield from self._batches

    def state_dict(self) -> dict[str, Any]:
        """Return where the loader is, see `BatchLoader.state_dict`."""
        return self.loader.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to where a loader was, see `BatchLoader.load_state_dict`."""
        self.loader.load_state_dict(state)


def share_of(trainer: Any) -> dict[str, Any]:
    """Return rank and world size of a trainer as options of a `BatchLoader`; none of no trainer."""
    if trainer is None:
        return {}
    return {"rank": trainer.global_rank, "world_size": trainer.world_size}
