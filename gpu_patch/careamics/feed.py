"""Datasets of careamics as feeds: constructor, statistics, augmentation, batches."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

from gpu_patch import device as devices
from gpu_patch.augmentation import Augmentation
from gpu_patch.careamics.converter import DATASET, Converter
from gpu_patch.careamics.images import Kept
from gpu_patch.careamics.recognise import careamics_class, check_nothing_replaced
from gpu_patch.careamics.strategies import CHOICES
from gpu_patch.checks import choice, instance
from gpu_patch.constructors import PatchConstr
from gpu_patch.draws import checked_seed
from gpu_patch.feed.bounds import quantiles_beyond
from gpu_patch.feed.normalization import Normalization

_LOADER_PARAMETERS = {
    "training": "train_dataloader_params",
    "validating": "val_dataloader_params",
    "predicting": "pred_dataloader_params",
}
_FLIP, _TURN = "XYFlip", "XYRandomRotate90"


class Feed(NamedTuple):
    """What a `CareamicsDataset` says, as the arguments of a `BatchLoader`.

    Attributes
    ----------
    constructor : PatchConstr
        The dataset's patch constructor, as one of this package.
    batch_size : int
        Of the dataset's configuration.
    shuffle, drop_last : bool
        As in the configured parameters of the data loader of the dataset's mode.
    seed : int
        Of the configuration; also the constructor's.
    normalization : Normalization
        With the dataset's statistics.
    augmentation : Augmentation or None
        None outside training, as in careamics.

    Examples
    --------
    ``BatchLoader(**from_careamics(dataset)._asdict())`` iterates over a dataset's batches.
    """

    constructor: PatchConstr
    batch_size: int
    shuffle: bool
    drop_last: bool
    seed: int
    normalization: Normalization
    augmentation: Augmentation | None


def from_careamics(
    obj: Any,
    device: str | None = None,
    *,
    seed: int | None = None,
    strategies: str = "theirs",
    memory_budget: float | str | None = None,
    by_chunk: bool = True,
) -> Any:
    """Return this package's counterpart of a patch constructor or a dataset of careamics.

    `construct_patch` of what is returned goes on exactly where that of `obj` would: NumPy
    generators are copied with their state, so neither advances the other's, and generators that
    were shared stay shared among the copies.

    Parameters
    ----------
    obj : careamics patch constructor, or CareamicsDataset
        `BasicPatchConstr`, `MultiChannelTargetMsPatchConstr`, `IndependentTargetsMsPatchConstr`,
        `PairedInputTargetMsPatchConstr` or `PredMsPatchConstr`; or a dataset with one of them.
        Subclasses too, unless they replace members of these classes, which would be lost.
    device : str or None, default None
        Where to keep the images; see `gpu_patch.device.resolve`.
    seed : int or None, default None
        Seed of the batches' draws. None takes that of the dataset's configuration, or a fresh one
        for a constructor.
    strategies : {"theirs", "own"}, default "theirs"
        What becomes of `StratifiedPatching`, whose design differs here. "theirs": it is copied,
        draws as careamics does, and is asked patch by patch. "own": it becomes this package's,
        with the same shapes, patch size, excluded cells and probabilities, so that batches are
        planned at once and by counter, in any number of processes; places then follow the same
        idea, not the same draws. All others are this package's either way.
    memory_budget : int, float, str or None, default None
        What images by chunk may take, as in `gpu_patch.open_images`.
    by_chunk : bool, default True
        Whether images that careamics leaves in their files (its Zarr and CZI stacks, and TIFF where
        it keeps one file open at a time) are read by chunk when batches need them, and kept within
        `memory_budget`. False reads them now, and keeps them whole.

    Returns
    -------
    PatchConstr or Feed
        A constructor for a constructor: made on the CPU, it may take the other's place as a
        dataset's `patch_constructor`. A `Feed` for a dataset.

    Raises
    ------
    TypeError, ValueError
        For what is none of these, naming what it is.

    Warns
    -----
    UserWarning
        Where a quantile of the dataset's normalisation, which careamics estimates, is beyond all
        values of its images.

    Notes
    -----
    Images in memory as float32 are shared on the CPU, not copied. careamics makes float32 of all
    others: those of 8 and 16 bits get their own type back. Zarr and TIFF are read by this package's
    readers, CZI by careamics' own. Other image stacks of careamics' protocol, those of subclasses
    and those of an extractor of a subclass are read in full. Stacks keep their source, shapes and
    data type, so metadata are equal. Image stacks that several datasets share are placed once per
    device and budget.

    Strategies become those of this package with the same places and the same state, but for
    `StratifiedPatching`, see `strategies`. A user's own is copied and asked patch by patch: its
    batches are then not drawn by counter.

    Specs of mode I with 0 < `uncorrelated_channel_prob` < 1 name the place of every channel, also
    where all come from one, so that a batch of them collates; careamics' own fail there.
    """
    choice("strategies", strategies, CHOICES)
    instance("by_chunk", by_chunk, bool, "True or False")
    kept = Kept(devices.resolve(device), memory_budget, by_chunk=by_chunk)
    converter = Converter(kept, strategies)
    if base := careamics_class(obj, (DATASET,)):
        check_nothing_replaced("obj", obj, base)
        config = obj.config
        seed = checked_seed(config.seed if seed is None else seed)
        parameters = getattr(config, _LOADER_PARAMETERS[str(config.mode)])
        # what may be refused comes before images are read
        normalization = Normalization.from_careamics(config.normalization)
        augmentation = _augmentation(config)
        constructor = converter.constructor("obj.patch_constructor", obj.patch_constructor, seed)
        if normalization.kind == "quantile":
            for remark in quantiles_beyond(constructor, normalization):
                warnings.warn(remark, stacklevel=2)
        return Feed(
            constructor,
            config.batch_size,
            bool(parameters.get("shuffle", False)),
            bool(parameters.get("drop_last", False)),
            seed,
            normalization,
            augmentation,
        )
    return converter.constructor("obj", obj, seed)


def _augmentation(config: Any) -> Augmentation | None:
    """Return the augmentation of a dataset's configuration; careamics has one in training alone.

    Whether flips come before turns or after makes no difference to what is drawn how often.
    """
    transforms = {transform.name: transform for transform in config.augmentations}
    if str(config.mode) != "training" or not transforms:
        return None
    if len(transforms) < len(config.augmentations) or not transforms.keys() <= {_FLIP, _TURN}:
        raise ValueError(
            f"config.augmentations must have {_FLIP} and {_TURN} at most once each, found "
            f"{[transform.name for transform in config.augmentations]}"
        )
    flip, turn = transforms.get(_FLIP), transforms.get(_TURN)
    axes: bool | str = False
    if flip is not None:
        axes = True if flip.flip_x and flip.flip_y else "x" if flip.flip_x else "y"
    return Augmentation(
        flip=axes,
        rotate=turn is not None,
        flip_p=0.0 if flip is None else flip.p,
        rotate_p=0.0 if turn is None else turn.p,
    )
