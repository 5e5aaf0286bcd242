"""From CAREamics to this package: its patch constructors and datasets with the same draws.

Written for careamics 0.3.5. Its classes are recognised by their names, so that nothing here
imports it.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary, WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from gpu_patch import device as devices
from gpu_patch.augmentation import Augmentation
from gpu_patch.checks import shorten
from gpu_patch.constructors import (
    BasicPatchConstr,
    IndependentTargetsMsPatchConstr,
    MultiChannelTargetMsPatchConstr,
    PairedInputTargetMsPatchConstr,
    PatchConstr,
    PredMsPatchConstr,
)
from gpu_patch.constructors.base import PlannedConstr
from gpu_patch.draws import checked_seed
from gpu_patch.feed.bounds import quantiles_beyond
from gpu_patch.feed.normalization import Normalization
from gpu_patch.images import ImageStack, PatchExtractor
from gpu_patch.patching import (
    FixedPatching,
    Patching,
    RandomPatching,
    SequentialPatching,
    TiledPatching,
    WholeSamplePatching,
)
from gpu_patch.progress import progress_bar
from gpu_patch.specs import ImageMetadata

__all__ = ["Feed", "from_careamics"]

Copied = TypeVar("Copied")

CONSTRUCTORS = (
    "BasicPatchConstr",
    "MultiChannelTargetMsPatchConstr",
    "IndependentTargetsMsPatchConstr",
    "PairedInputTargetMsPatchConstr",
    "PredMsPatchConstr",
)
DATASET = "CareamicsDataset"
_STRATEGIES = (
    "RandomPatching",
    "FixedRandomPatching",
    "SequentialPatching",
    "TiledPatching",
    "WholeSamplePatching",
    "FixedPatching",
)
_STACK_MEMBERS = ("source", "data_shape", "data_dtype", "original_data_shape", "original_axes")
_LOADER_PARAMETERS = {
    "training": "train_dataloader_params",
    "validating": "val_dataloader_params",
    "predicting": "pred_dataloader_params",
}
_FLIP, _TURN = "XYFlip", "XYRandomRotate90"
_extractors: WeakKeyDictionary[Any, WeakValueDictionary[str, PatchExtractor]] = WeakKeyDictionary()
"""What was made of careamics' extractors, by device, for as long as something uses it.

A training and a validation set split from the same images share them here too.
"""


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


def from_careamics(obj: Any, device: str | None = None, *, seed: int | None = None) -> Any:
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

    Returns
    -------
    PatchConstr or Feed
        A constructor for a constructor: made on the CPU, it may take the other's place as a
        dataset's `patch_constructor`. A `Feed` for a dataset.

    Raises
    ------
    TypeError
        For what is none of these, naming what it is.

    Warns
    -----
    UserWarning
        Where a quantile of the dataset's normalisation, which careamics estimates, is beyond all
        values of its images.

    Notes
    -----
    Images in memory as float32 are shared on the CPU, not copied. careamics makes float32 of all
    others: those of 8 and 16 bits get their own type back. Files, Zarr and CZI stores, and any
    other image stack of careamics' protocol are read in full, whatever limit their extractor has
    on how many are open. Stacks keep their source, shapes and data type, so metadata are equal.
    Image stacks that several datasets share are placed once per device.

    Strategies become those of this package with the same places and the same state. What this
    package has no equal of (`StratifiedPatching`, whose design differs, and a user's own) is
    copied and asked patch by patch: its batches are then not drawn by counter.
    """
    converter = _Converter(devices.resolve(device))
    if base := _careamics_class(obj, (DATASET,)):
        _check_nothing_replaced("obj", obj, base)
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


class _Converter:
    """One conversion: generators that are shared in careamics stay shared.

    Parameters
    ----------
    device : str
        "cpu" or "cuda:N".
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self._memo: dict[int, Any] = {}

    def constructor(self, name: str, obj: Any, seed: int | None) -> PlannedConstr:
        base = _careamics_class(obj, CONSTRUCTORS)
        if base is None:
            raise TypeError(
                f"{name} must be a {DATASET} of careamics, or one of its patch constructors "
                f"{', '.join(CONSTRUCTORS)}; found {_described(obj)}"
            )
        _check_nothing_replaced(name, obj, base)
        match base.__name__:
            case "BasicPatchConstr":
                return BasicPatchConstr(
                    self.strategy(obj.patching_strategy),
                    self.extractor("input_extractor", obj.input_extractor),
                    None
                    if obj.target_extractor is None
                    else self.extractor("target_extractor", obj.target_extractor),
                    obj.channels,
                    seed=seed,
                )
            case "MultiChannelTargetMsPatchConstr":
                return MultiChannelTargetMsPatchConstr(
                    self.strategy(obj.patching_strategy),
                    self.extractor("target_extractor", obj.target_extractor),
                    obj.multiscale_count,
                    obj.padding_mode,
                    obj.alpha_ranges,
                    obj.uncorrelated_channel_prob,
                    obj.channels,
                    self._copied(obj.rng),
                    seed=seed,
                )
            case "IndependentTargetsMsPatchConstr":
                return IndependentTargetsMsPatchConstr(
                    [self.strategy(strategy) for strategy in obj.patching_strategies],
                    [
                        self.extractor(f"target_extractors[{i}]", extractor)
                        for i, extractor in enumerate(obj.target_extractors)
                    ],
                    obj.multiscale_count,
                    obj.padding_mode,
                    obj.alpha_ranges,
                    self._copied(obj.rng),
                    seed=seed,
                )
            case "PairedInputTargetMsPatchConstr":
                return PairedInputTargetMsPatchConstr(
                    self.strategy(obj.patching_strategy),
                    self.extractor("input_extractor", obj.input_extractor),
                    self.extractor("target_extractor", obj.target_extractor),
                    obj.multiscale_count,
                    obj.padding_mode,
                    seed=seed,
                )
            case _:
                return PredMsPatchConstr(
                    self.strategy(obj.patching_strategy),
                    self.extractor("input_extractor", obj.input_extractor),
                    obj.multiscale_count,
                    obj.padding_mode,
                    seed=seed,
                )

    def strategy(self, theirs: Any) -> Patching:
        """Return a strategy with the same places and the same state."""
        base = _careamics_class(theirs, _STRATEGIES)
        if base is None or _replaced(theirs, base):
            copied: Patching = self._copied(theirs)
            return copied
        match base.__name__:
            case "RandomPatching":
                ours = RandomPatching(theirs.data_shapes, theirs.patch_size)
                ours.rng = self._copied(theirs.rng)
                return ours
            case "SequentialPatching":
                return SequentialPatching(theirs.data_shapes, theirs.patch_size, theirs.overlaps)
            case "TiledPatching":
                return TiledPatching(theirs.data_shapes, theirs.patch_size, theirs.overlaps)
            case "WholeSamplePatching":
                return WholeSamplePatching(theirs.data_shapes)
            case _:  # a list, empty where a validation set was split off with no patch
                specs = theirs.fixed_patch_specs
                return FixedPatching(specs) if specs else self._copied(theirs)

    def _copied(self, obj: Copied) -> Copied:
        # one memo for all: what is shared stays shared
        return copy.deepcopy(obj, self._memo)

    def extractor(self, name: str, theirs: Any) -> PatchExtractor:
        """Return an extractor with the same images on the device."""
        base = _careamics_class(theirs, ("PatchExtractor",))
        if base is None:
            raise TypeError(
                f"{name} must be careamics' PatchExtractor or a subclass, "
                f"found {_described(theirs)}"
            )
        known = _extractors.setdefault(theirs, WeakValueDictionary())
        ours = known.get(self.device)
        if ours is None:
            # one that replaces anything may give other pixels than its stacks hold
            as_given = not _replaced(theirs, base)
            ours = known[self.device] = PatchExtractor(self._stacks(name, theirs, as_given))
        return ours

    def _stacks(self, name: str, theirs: Any, as_given: bool) -> list[ImageStack]:
        stacks = theirs.image_stacks
        for i, stack in enumerate(stacks):
            _check_stack(f"{name}.image_stacks[{i}]", stack)
        in_memory = [_pixels_in_memory(stack) if as_given else None for stack in stacks]
        to_read = [s.data_shape[0] for s, m in zip(stacks, in_memory, strict=True) if m is None]
        found: list[ImageStack] = []
        with progress_bar("reading images", sum(to_read), " samples") as advance:
            for i, (stack, pixels) in enumerate(zip(stacks, in_memory, strict=True)):
                dtype = np.dtype(stack.data_dtype)
                if pixels is None:
                    data = np.stack(
                        [_native(sample, dtype) for sample in _samples(theirs, i, stack, advance)]
                    )
                else:
                    data = _native(pixels, dtype)
                found.append(_CareamicsStack(data, stack, self.device))
        return found


class _CareamicsStack(ImageStack):
    """An image stack with the metadata of one of careamics."""

    def __init__(self, data: NDArray[Any], theirs: Any, device: str) -> None:
        axes = "SCYX" if data.ndim == 4 else "SCZYX"
        super().__init__(data, axes, source=theirs.source, device=device)
        self.original_axes = theirs.original_axes
        self.original_data_shape = theirs.original_data_shape
        self.data_dtype = theirs.data_dtype
        # of Zarr: what careamics' `get_image_metadata` adds
        self._additional = {
            key: value
            for key in ("chunks", "shards")
            if (value := getattr(theirs, key, None)) is not None
        }

    @property
    def metadata(self) -> ImageMetadata:
        metadata = super().metadata
        metadata["additional_metadata"] = dict(self._additional)
        return metadata


def _careamics_class(obj: object, names: Sequence[str]) -> type | None:
    """Return the first class of an object that is careamics' and has one of the names."""
    for kind in type(obj).__mro__:
        if kind.__name__ in names and kind.__module__.partition(".")[0] == "careamics":
            return kind
    return None


def _replaced(obj: object, base: type) -> list[str]:
    """Return the members of `base` that its subclasses have their own of, but for `__init__`."""
    mro = type(obj).__mro__
    own = {name: member for kind in mro[: mro.index(base)] for name, member in vars(kind).items()}
    return sorted(
        name
        for name, member in own.items()
        if hasattr(base, name)
        and (callable(member) or isinstance(member, (property, classmethod, staticmethod)))
        and (name in ("__getitem__", "__len__") or not name.startswith("__"))
    )


def _check_nothing_replaced(name: str, obj: object, base: type) -> None:
    if replaced := _replaced(obj, base):
        raise TypeError(
            f"{name} must behave as careamics' {base.__name__}, but {type(obj).__name__} has its "
            f"own {', '.join(replaced)}, which would be lost"
        )


def _check_stack(name: str, stack: object) -> None:
    missing = [m for m in (*_STACK_MEMBERS, "extract_patch") if not hasattr(stack, m)]
    if missing:
        raise TypeError(
            f"{name} must be an image stack of careamics (in memory, file, Zarr, CZI) or another "
            f"with its members, found {_described(stack)}, which lacks {', '.join(missing)}"
        )


def _described(obj: object) -> str:
    kind = type(obj)
    return f"{shorten(obj)} ({kind.__module__}.{kind.__qualname__})"


def _pixels_in_memory(stack: Any) -> NDArray[np.float32] | None:
    """Return careamics' own array of a stack, None where there is none."""
    base = _careamics_class(stack, ("InMemoryImageStack",))
    return None if base is None or _replaced(stack, base) else stack._data


def _samples(
    extractor: Any, data_idx: int, stack: Any, advance: Callable[[int], object]
) -> Iterator[NDArray[Any]]:
    """Read a stack sample by sample, each C(Z)YX."""
    n_samples, _, *size = stack.data_shape
    for sample_idx in range(n_samples):
        yield extractor.extract_patch(data_idx, sample_idx, (0,) * len(size), size)
        advance(1)


def _native(pixels: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return pixels in the type they had before careamics made float32 of them.

    As they are where that type cannot hold them, and where float32 takes no more room.
    """
    if dtype.itemsize >= pixels.itemsize or dtype.kind not in "biuf":
        return pixels
    with np.errstate(invalid="ignore", over="ignore"):
        native = pixels.astype(dtype.newbyteorder("="))
    return native if np.array_equal(native, pixels, equal_nan=True) else pixels


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
