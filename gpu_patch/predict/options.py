"""What is asked of a prediction: its tiles, how often the model sees them, and what is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from gpu_patch.checks import (
    Message,
    argument,
    choice,
    instance,
    sequence,
    shorten,
    whole_number,
    whole_numbers,
)
from gpu_patch.constructors import BasicPatchConstr, PredMsPatchConstr
from gpu_patch.feed.normalization import Normalization
from gpu_patch.geometry import PaddingMode
from gpu_patch.images import PatchExtractor
from gpu_patch.locations import LARGEST_PIXEL
from gpu_patch.patching import SwitiPatching, TiledPatching, stride_for
from gpu_patch.patching.base import checked_overlaps, checked_stride
from gpu_patch.predict.model import TRAINING_MODES
from gpu_patch.predict.schedule import choose_grid
from gpu_patch.tiling import BLENDS, TileGrid

TILINGS = ("inner", "switi")
"""Tiles side by side, or many shifted ones at each pixel."""

_N_DRAWS = 64
"""Tiles a pixel, where nobody says."""
_DTYPES = ("float32", "float16", "uint8", "int8", "uint16", "int16")


@dataclass(frozen=True)
class PredictOptions:
    """What is asked of a prediction, beside where it goes; each as in `predict`.

    Parameters
    ----------
    n_dims : int
        Spatial axes of the images.
    tile_size, overlaps : sequence of int
        (Z)YX.
    batch_size : int
        Tiles per batch.
    multiscale_count : int or None
        Scales of the lateral context.
    padding_mode : {"reflect", "wrap", "periodic"}
        What the context holds beyond the image.
    blend : {"crop", "hann", "gaussian"}
        How tiles become an image.
    tiling : {"inner", "switi"}
        Where tiles lie.
    n_draws : int or None
        Tiles a pixel, of "switi".
    stride : sequence of int or None
        Pixels from tile to tile, likewise; once checked None for "inner" alone.
    n_samples : int
        How often the model sees each batch.
    std : bool or None
        Whether standard deviations are wanted; once checked True or False.
    training_mode : {"eval", "keep"} or None
        Modes of a torch module.
    normalization : Normalization or None
        Of the tiles.
    dtype : data type
        Of the result.
    channel_names : sequence of str or None
        Of the channels of the model.
    model_id : str or None
        What tells the model from others.
    """

    n_dims: int
    tile_size: Sequence[int]
    overlaps: Sequence[int]
    batch_size: int
    multiscale_count: int | None
    padding_mode: PaddingMode
    blend: str
    tiling: str
    n_draws: int | None
    stride: Sequence[int] | None
    n_samples: int
    std: bool | None
    training_mode: str | None
    normalization: Normalization | None
    dtype: DTypeLike
    channel_names: Sequence[str] | None
    model_id: str | None

    def __post_init__(self) -> None:
        limits = {"minimum": 1, "maximum": LARGEST_PIXEL, "length": self.n_dims}
        tile = whole_numbers("tile_size", self.tile_size, **limits)
        whole_number("batch_size", self.batch_size, minimum=1)
        whole_number("n_samples", self.n_samples, minimum=1)
        choice("blend", self.blend, BLENDS)
        if self.model_id is not None and not instance(
            "model_id", self.model_id, str, "a str or None"
        ):
            raise ValueError("model_id must not be empty, found ''")
        if self.training_mode is not None:
            choice("training_mode", self.training_mode, TRAINING_MODES)
        if self.normalization is not None:
            instance("normalization", self.normalization, Normalization, "a Normalization or None")
        names = self.channel_names
        names = () if names is None else sequence("channel_names", names, "str")
        for i, name in enumerate(names):
            instance(f"channel_names[{i}]", name, str, "a str")
        overlaps = checked_overlaps(self.overlaps, tile, "tile_size")
        checked = {
            "tile_size": tile,
            "overlaps": overlaps,
            "stride": self._checked_stride(tile, overlaps),
            "std": self._checked_std(),
            "dtype": _checked_dtype(self.dtype),
            "channel_names": tuple(names),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def _checked_stride(
        self, tile: tuple[int, ...], overlaps: tuple[int, ...]
    ) -> tuple[int, ...] | None:
        """Return the stride of sliding tiles, None where tiles do not slide."""
        choice("tiling", self.tiling, TILINGS)
        if self.tiling == "inner":
            for name, given in (("n_draws", self.n_draws), ("stride", self.stride)):
                if given is not None:
                    raise ValueError(
                        Message(argument(name), " needs ", argument("tiling", "switi"))
                    )
            return None
        if self.blend != "crop":
            raise ValueError(
                Message(
                    argument("blend", self.blend),
                    " has no place in ",
                    argument("tiling", "switi"),
                    ", where all tiles at a pixel count alike",
                )
            )
        if self.stride is None:
            return stride_for(_N_DRAWS if self.n_draws is None else self.n_draws, tile, overlaps)
        if self.n_draws is not None:
            raise ValueError(
                Message(argument("n_draws"), " and ", argument("stride"), " say the same: give one")
            )
        return checked_stride(self.stride, tile, overlaps, "tile_size")

    def _checked_std(self) -> bool:
        """Return whether standard deviations are wanted."""
        if self.std is None:
            return self.n_samples > 1
        if instance("std", self.std, bool, "True, False or None") and not self.has_several:
            raise ValueError(
                Message(
                    argument("std", True),
                    " needs several values a pixel: ",
                    argument("n_samples"),
                    " of at least 2, or ",
                    argument("tiling", "switi"),
                )
            )
        return self.std

    @property
    def has_several(self) -> bool:
        """Whether a pixel is the mean of several values."""
        return self.n_samples > 1 or self.tiling == "switi"

    @property
    def dtypes(self) -> dict[str, np.dtype[Any]]:
        """Data types of the results by their variant: the mean "", and the deviation "_std"."""
        found = {"": np.dtype(self.dtype)}
        if self.std:
            found["_std"] = np.dtype(np.float32)
        return found

    @property
    def axes_of_batches(self) -> str:
        """Which argument decides on each axis of what the model gets."""
        channels = "channels of the images"
        if self.multiscale_count is not None:
            channels = argument("multiscale_count")
        size = [argument(f"tile_size[{axis}]") for axis in range(self.n_dims)]
        inner = Message.joined(", ", [channels, *size])
        return Message("(", argument("batch_size"), " or less, ", inner, ")")

    def constructor(self, images: PatchExtractor) -> BasicPatchConstr | PredMsPatchConstr:
        """Return what makes the tiles."""
        tiling: SwitiPatching | TiledPatching
        if self.stride is None:
            tiling = TiledPatching(images.shapes, self.tile_size, self.overlaps)
        else:
            tiling = SwitiPatching(images.shapes, self.tile_size, self.overlaps, self.stride)
        if self.multiscale_count is None:
            return BasicPatchConstr(tiling, images, seed=0)
        return PredMsPatchConstr(tiling, images, self.multiscale_count, self.padding_mode, seed=0)

    def grids(self, images: PatchExtractor) -> list[TileGrid]:
        """Return how each image is tiled."""
        sizes = [shape[2:] for shape in images.shapes]
        tile, overlaps = tuple(self.tile_size), tuple(self.overlaps)
        # one grid for images of one size: its tables are uploaded once
        stride = None if self.stride is None else tuple(self.stride)
        grid_of = {
            size: choose_grid(size, tile, overlaps, self.blend, stride) for size in set(sizes)
        }
        return [grid_of[size] for size in sizes]

    def to_dict(self) -> dict[str, Any]:
        """Return the settings that decide on the values of the result, as JSON has them."""
        normalization = self.normalization
        return {
            "tile_size": self.tile_size,
            "overlaps": self.overlaps,
            "multiscale_count": self.multiscale_count,
            "padding_mode": self.padding_mode,
            "blend": self.blend,
            "tiling": self.tiling,
            "stride": self.stride,
            "n_samples": self.n_samples,
            "std": self.std,
            "dtype": np.dtype(self.dtype).name,
            "normalization": None if normalization is None else normalization.to_dict(),
        }


def _checked_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """Return a data type that predictions can be of."""
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = None
    if found is None or found.name not in _DTYPES:
        raise ValueError(
            Message(
                argument("dtype"), f" must be one of {', '.join(_DTYPES)}, found {shorten(dtype)}"
            )
        )
    return found
