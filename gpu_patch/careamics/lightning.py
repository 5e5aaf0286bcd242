"""Trainings of CAREamics on batches of this package (needs careamics).

The classes have the names of careamics' own, and take their place: change the import.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from types import FunctionType
from typing import Any

import careamics
from careamics.dataset.factory import TrainValData, TrainValSplitData, create_train_dataset
from careamics.lightning.data import CareamicsDataModule as TheirDataModule
from lightning.pytorch import LightningDataModule

from gpu_patch import device as devices
from gpu_patch.careamics.datasets import split_dataset
from gpu_patch.careamics.feed import from_careamics
from gpu_patch.careamics.regions import RegionLoader
from gpu_patch.careamics.strategies import CHOICES
from gpu_patch.checks import choice
from gpu_patch.feed.loader import BatchLoader
from gpu_patch.lightning import TrainerLoader, share_of
from gpu_patch.patching import Split

__all__ = ["CAREamist", "CareamicsDataModule", "DatasetDataModule"]


class _OwnLoaders(LightningDataModule):  # type: ignore[misc]
    """Feeds a trainer from careamics' datasets.

    Attributes
    ----------
    train_dataset, val_dataset, predict_dataset : CareamicsDataset or None
        What batches are made of.
    """

    train_dataset: Any
    val_dataset: Any
    predict_dataset: Any
    _strategies: str
    _device: str | None

    def train_dataloader(self) -> Any:
        """Return this rank's training batches.

        Returns
        -------
        TrainerLoader
            Of tuples of `ImageRegionData`.
        """
        return self._loader(self.train_dataset, same=False)

    def val_dataloader(self) -> Any:
        """Return this rank's validation batches, the same in each epoch.

        Returns
        -------
        TrainerLoader or list
            Of tuples of `ImageRegionData`; an empty list where there is no dataset.
        """
        return [] if self.val_dataset is None else self._loader(self.val_dataset, same=True)

    def predict_dataloader(self) -> Any:
        """Return this rank's batches to predict from.

        Returns
        -------
        TrainerLoader
            Of tuples of `ImageRegionData`.
        """
        return self._loader(self.predict_dataset, same=True)

    def _loader(self, dataset: Any, *, same: bool) -> TrainerLoader:
        feed = from_careamics(dataset, self._place(), strategies=self._strategies)
        # images that are larger than memory would be read again and again by a shuffle
        order = "sweep" if feed.shuffle else "shuffle"
        loader = BatchLoader(**feed._asdict(), order=order, **share_of(self.trainer))
        return TrainerLoader(RegionLoader(loader, dataset), self.trainer, same=same)

    def _place(self) -> str:
        """Return the device of the images: the trainer's, where CuPy can use it."""
        if self._device is not None or self.trainer is None:
            return devices.resolve(self._device)
        root = self.trainer.strategy.root_device
        usable = root.type == "cuda" and devices.resolve(None) != "cpu"
        return f"cuda:{root.index or 0}" if usable else "cpu"


class CareamicsDataModule(_OwnLoaders, TheirDataModule):  # type: ignore[misc]
    """The data module of careamics, with batches of this package.

    For `Trainer.fit(model, datamodule=...)` with careamics' `CAREModule` or `N2VModule`. Takes
    what careamics' own takes; workers are not needed, and not started. Ranks are the trainer's.
    Where validation patches are split off (`n_val_patches`), training never reads their pixels,
    see `gpu_patch.split_validation`, and any patching can be configured.

    Parameters
    ----------
    data_config : DataConfig or dict
        careamics' configuration of data.
    strategies : {"own", "theirs"}, default "own"
        "own": whole batches, planned by counter; stratified patching is this package's. "theirs":
        careamics' own draws, patch by patch and in its own `DataLoader`, so that each batch is the
        one that careamics would make.
    device : str or None, default None
        Where to keep the images; None is the trainer's device, where it can be used.
    **data
        Further arguments of careamics' `CareamicsDataModule`: train_data, val_data, ...

    Attributes
    ----------
    split : Split or None
        What became of the images where validation patches were split off, after `setup`.

    Raises
    ------
    TypeError, ValueError
        `strategies` is none of these, or careamics refuses its arguments.
    """

    def __init__(
        self,
        data_config: Any,
        *,
        strategies: str = "own",
        device: str | None = None,
        **data: Any,
    ) -> None:
        self._strategies = choice("strategies", strategies, CHOICES)
        self._device = device
        self.split: Split | None = None
        super().__init__(data_config, **data)

    def setup(self, stage: str) -> None:
        """Make the datasets of a stage.

        Parameters
        ----------
        stage : {"fit", "validate", "predict"}
            As Lightning says.
        """
        own_split = self._strategies == "own" and isinstance(self._data, TrainValSplitData)
        if own_split and stage != "predict":
            self._setup_split(self._data)
            return
        super().setup(stage)
        if self._strategies == "theirs":
            for dataset in (self.train_dataset, self.val_dataset, self.predict_dataset):
                if dataset is not None:
                    dataset.patch_constructor = from_careamics(dataset.patch_constructor, "cpu")

    def _setup_split(self, data: TrainValSplitData) -> None:
        """Make the datasets of a training that validates on patches of its own images."""
        if self.train_dataset is None:
            whole = create_train_dataset(self.config, data, self.loading, self.model_constraints)
            self.train_dataset, self.val_dataset, (self.split,) = split_dataset(
                whole, data.n_val_patches, seed=self.config.seed
            )
            self._save_hparams()  # with the statistics

    def _loader(self, dataset: Any, *, same: bool) -> Any:
        if self._strategies == "own":
            return super()._loader(dataset, same=same)
        if dataset is self.predict_dataset:
            return TheirDataModule.predict_dataloader(self)
        return (TheirDataModule.val_dataloader if same else TheirDataModule.train_dataloader)(self)


class DatasetDataModule(_OwnLoaders):
    """Feeds a trainer from careamics' datasets as they are, those of MicroSplit included.

    Parameters
    ----------
    train : CareamicsDataset
        What is trained on.
    val : CareamicsDataset, float, int or None, default None
        For validation. A fraction or number of patches is split off `train`, so that training never
        reads their pixels, see `gpu_patch.split_validation`.
    predict : CareamicsDataset or None, default None
        For prediction.
    strategies : {"own", "theirs"}, default "own"
        As in `from_careamics`.
    device : str or None, default None
        Where to keep the images; None is the trainer's device, where it can be used.

    Attributes
    ----------
    splits : list of Split
        What became of the images where validation patches were split off.

    Raises
    ------
    TypeError, ValueError
        `strategies` is none of these, or patches cannot be split off.
    """

    def __init__(
        self,
        train: Any,
        val: Any = None,
        predict: Any = None,
        *,
        strategies: str = "own",
        device: str | None = None,
    ) -> None:
        super().__init__()
        self._strategies = choice("strategies", strategies, CHOICES)
        self._device = device
        self.splits: list[Split] = []
        if isinstance(val, int | float):
            train, val, self.splits = split_dataset(train, val, seed=train.config.seed)
        self.train_dataset, self.val_dataset, self.predict_dataset = train, val, predict
        # what careamics' modules look at before they train: whether there are targets
        targets = (
            None if dataset is None or dataset.patch_constructor.target_shapes is None else dataset
            for dataset in (train, val)
        )
        self._data = TrainValData(train, val, *targets)


def _with_our_data_module(method: Callable[..., Any]) -> Any:
    """Return a method of careamics that finds our data module by the name of its own.

    A copy with names of its own: careamics itself is left as it is, for whoever else uses it.
    """
    assert isinstance(method, FunctionType)
    assert method.__globals__["CareamicsDataModule"] is TheirDataModule
    names = {**method.__globals__, "CareamicsDataModule": CareamicsDataModule}
    copied = FunctionType(
        method.__code__, names, method.__name__, method.__defaults__, method.__closure__
    )
    copied.__kwdefaults__ = method.__kwdefaults__
    return update_wrapper(copied, method)


_train = _with_our_data_module(careamics.CAREamist.train)


class CAREamist(careamics.CAREamist):  # type: ignore[misc]
    """The `CAREamist` of careamics, trained and predicting on batches of this package.

    All arguments and methods are those of careamics.
    """

    _build_predict_datamodule = _with_our_data_module(careamics.CAREamist._build_predict_datamodule)

    def train(self, **data: Any) -> None:
        """Train the model.

        Parameters
        ----------
        **data
            As in careamics: train_data, train_data_target, val_data, val_data_target,
            filtering_mask, loading.
        """
        _train(self, **data)
