"""The results of all images: which units are missing, their outputs, and what `predict` returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch.images import ImageStack
from gpu_patch.images.readers import Calibration
from gpu_patch.predict.outputs import Output, Predicted, Store
from gpu_patch.predict.outputs.paths import PathStore
from gpu_patch.predict.schedule import WriteUnit, units_of
from gpu_patch.tiling import TileGrid


class Results:
    """The outputs of all images, each opened when its first rows are there.

    Parameters
    ----------
    store : Store
        Where they go.
    stacks : sequence of ImageStack
        The images.
    grids : sequence of TileGrid
        How each is tiled.
    dtypes : dict of str to numpy.dtype
        What is written of each image: the data types by variant, the ending of the name.

    channel_names : sequence of str, default ()
        Of the channels of the model; none where they are not known.

    Attributes
    ----------
    deviates : bool or None
        Whether a standard deviation that was written differs from 0; None before any was.
    """

    def __init__(
        self,
        store: Store,
        stacks: Sequence[ImageStack],
        grids: Sequence[TileGrid],
        dtypes: Mapping[str, np.dtype[Any]],
        channel_names: Sequence[str] = (),
    ) -> None:
        self._channel_names = tuple(channel_names)
        self._store, self._stacks, self._grids, self._dtypes = store, stacks, grids, dtypes
        self._found: dict[tuple[int, str], Any] = {}
        self._open: dict[int, dict[str, Output]] = {}
        self._written: list[int] = []
        self.deviates: bool | None = None
        for image in range(len(stacks)):
            for variant in dtypes:
                found = store.finished(self._name(image, variant))
                if found is not None:
                    self._found[image, variant] = found

    def todo(self) -> list[WriteUnit]:
        """Return the units that no earlier run has written."""
        units: list[WriteUnit] = []
        for image, (stack, grid) in enumerate(zip(self._stacks, self._grids, strict=True)):
            missing = self._missing(image)
            if not missing:
                continue
            done = set.intersection(*(self._store.done(self._name(image, v)) for v in missing))
            n_rows = grid.size[grid.slab_axis]
            rows = self._store.unit_rows(grid.size, grid.slab_axis)
            of_image = units_of(image, stack.data_shape[0], n_rows, rows, done)
            if not of_image:
                self._written.append(image)
            units += of_image
        return units

    @property
    def written(self) -> list[int]:
        """Images of which earlier runs have written everything, without finishing them."""
        return self._written

    def open(self, image: int, n_channels: int) -> None:
        """Open the outputs of an image, if they are not open yet."""
        if image in self._open:
            return
        if self._channel_names and len(self._channel_names) != n_channels:
            raise ValueError(
                f"channel_names has {len(self._channel_names)} names, but the model returns "
                f"{n_channels} channels"
            )
        outputs = self._open[image] = {}
        stack, grid = self._stacks[image], self._grids[image]
        for variant in self._missing(image):
            outputs[variant] = self._store.open(
                Predicted(
                    self._name(image, variant),
                    (stack.data_shape[0], n_channels, *grid.size),
                    self._dtypes[variant],
                    stack.original_axes,
                    stack.original_data_shape,
                    Calibration(stack.physical_sizes, stack.origin, stack.time_interval),
                    grid.slab_axis,
                    str(stack.source),
                    self._channel_names,
                )
            )

    def write(self, image: int, sample: int, start: int, rows: NDArray[np.float32]) -> None:
        """Write rows (C(Z)YX, the channels of all variants after each other)."""
        parts = np.split(rows, len(self._dtypes))
        for (variant, dtype), part in zip(self._dtypes.items(), parts, strict=True):
            if variant == "_std" and not self.deviates:
                self.deviates = bool(part.any())
            output = self._open[image].get(variant)
            if output is not None:
                source = str(self._stacks[image].source)
                output.write(sample, start, _converted(part, dtype, source))

    def finish(self, image: int) -> None:
        """Finish the outputs of an image, once this process has written its share."""
        outputs = self._open[image]
        for variant in list(outputs):
            self._found[image, variant] = outputs[variant].finish()
            del outputs[variant]

    def close(self) -> None:
        """Close the outputs that are open, after an error."""
        for outputs in self._open.values():
            for output in outputs.values():
                output.close()

    def all(self, variant: str) -> list[Any]:
        """Return the result of each image."""
        return [self._result(image, variant) for image in range(len(self._stacks))]

    def _result(self, image: int, variant: str) -> Any:
        if (image, variant) in self._found:
            return self._found[image, variant]
        assert isinstance(self._store, PathStore)  # another process has written it
        return self._store.path(self._name(image, variant))

    def _missing(self, image: int) -> list[str]:
        return [variant for variant in self._dtypes if (image, variant) not in self._found]

    def _name(self, image: int, variant: str) -> str:
        return self._store.names[image] + variant


def _converted(values: NDArray[np.float32], dtype: np.dtype[Any], source: str) -> NDArray[Any]:
    """Return values of `dtype`: for whole numbers rounded to the nearest, within its range.

    Raises
    ------
    ValueError
        Where a value is not finite and `dtype` has no such value.
    """
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return values.astype(dtype, copy=False)
    if not np.isfinite(values).all():
        raise ValueError(
            f"the prediction of {source} has values that are not finite, which {dtype} cannot "
            "hold: look for them in the image and in the model, or ask for float32"
        )
    limits = np.iinfo(dtype)
    rounded = np.rint(values)
    return np.clip(rounded, limits.min, limits.max, out=rounded).astype(dtype)
