"""What is asked of a prediction: its tiles, how often the model sees them, and what is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gpu_patch.checks import (
    Message,
    argument,
    choice,
    instance,
    sequence,
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
from gpu_patch.predict.answers import Answer
from gpu_patch.predict.model import TRAINING_MODES
from gpu_patch.predict.schedule import choose_grid
from gpu_patch.tiling import BLENDS, TileGrid

TILINGS = ("inner", "switi")
"""Tiles side by side, or many shifted ones at each pixel."""

_N_DRAWS = 64
"""Tiles a pixel, where nobody says."""


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
    answer : Answer
        What becomes of what the model returns.
    channel_names : sequence of str or None
        Of the channels of the model, those that are chosen.
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
    answer: Answer
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
            "channel_names": tuple(names),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        self._check_answer()

    def _check_answer(self) -> None:
        """Raise where tiles or samples do not give what is asked for."""
        channels, quantiles = self.answer.channels, self.answer.quantiles
        if channels is not None and self.channel_names and len(self.channel_names) != len(channels):
            raise ValueError(
                Message(
                    argument("channel_names"),
                    f" must have a name for each of {len(channels)} ",
                    argument("channels"),
                    f", found {len(self.channel_names)}",
                )
            )
        if not quantiles:
            return
        its = Message("quantiles, which ", argument("reduce"), " asks for, ")
        if self.stride is not None:
            raise ValueError(
                Message(
                    its,
                    "would need every value of a pixel, of which ",
                    argument("tiling", "switi"),
                    " keeps sums alone: it gives means and, with ",
                    argument("std", True),
                    ", standard deviations; ",
                    argument("tiling", "inner"),
                    " gives quantiles of ",
                    argument("n_samples"),
                )
            )
        if self.n_samples == 1:
            raise ValueError(
                Message(its, "need several samples: ", argument("n_samples"), " of at least 2")
            )
        if self.blend != "crop":
            raise ValueError(
                Message(
                    its,
                    "are exact where a pixel is of one tile: with ",
                    argument("blend", "crop"),
                    f", found {self.blend!r}",
                )
            )

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
            return self.n_samples > 1 and self.answer.reduce is None
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
        if self.std and self.answer.reduce is not None:
            raise ValueError(
                Message(
                    argument("std", True),
                    " is beside means, and has no place where there is ",
                    argument("reduce"),
                )
            )
        return self.std

    @property
    def has_several(self) -> bool:
        """Whether a pixel is the mean of several values."""
        return self.n_samples > 1 or self.tiling == "switi"

    @property
    def variants(self) -> list[str]:
        """The results by what ends their names: "" is the answer, "_std" the deviation."""
        return ["", "_std"] if self.std else [""]

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
            **self.answer.to_dict(),
            "normalization": None if normalization is None else normalization.to_dict(),
        }
