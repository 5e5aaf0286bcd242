"""The results of all images: which units are missing, their outputs, and what `predict` returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from gpu_patch.images import ImageStack
from gpu_patch.images.readers import Calibration
from gpu_patch.predict.answers import Answer
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
    variants : sequence of str
        What is written of each image, by what ends the names: "" is the answer, "_std" the
        deviation.
    answer : Answer
        What is asked for.
    channel_names : sequence of str, default ()
        Of the channels of tiles; none where they are not known.

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
        variants: Sequence[str],
        answer: Answer,
        channel_names: Sequence[str] = (),
    ) -> None:
        self._channel_names = tuple(channel_names)
        self._store, self._stacks, self._grids = store, stacks, grids
        self._variants, self._answer = variants, answer
        self._found: dict[tuple[int, str], Any] = {}
        self._open: dict[int, dict[str, Output]] = {}
        self._written: list[int] = []
        self.deviates: bool | None = None
        for image in range(len(stacks)):
            for variant in variants:
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

    def source(self, image: int) -> str:
        """Return where an image comes from."""
        return str(self._stacks[image].source)

    def open(self, image: int, n_channels: int) -> None:
        """Open the outputs of an image, if they are not open yet.

        Parameters
        ----------
        image : int
            Its number.
        n_channels : int
            Channels of tiles.
        """
        if image in self._open:
            return
        if self._channel_names and len(self._channel_names) != n_channels:
            raise ValueError(
                f"channel_names has {len(self._channel_names)} names, but the model returns "
                f"{n_channels} channels"
            )
        outputs = self._open[image] = {}
        for variant in self._missing(image):
            answer = Answer() if variant else self._answer  # deviations are as they are
            outputs[variant] = self._store.open(self._described(image, variant, answer, n_channels))

    def _described(self, image: int, variant: str, answer: Answer, n_channels: int) -> Predicted:
        stack, grid = self._stacks[image], self._grids[image]
        return Predicted(
            self._name(image, variant),
            (stack.data_shape[0], answer.n_channels(n_channels), *grid.size),
            answer.stored_type(n_channels),
            stack.original_axes,
            stack.original_data_shape,
            Calibration(stack.physical_sizes, stack.origin, stack.time_interval),
            grid.slab_axis,
            self.source(image),
            answer.names(self._channel_names),
            answer.is_labels,
            answer.notes(self._channel_names),
        )

    def write(self, image: int, sample: int, start: int, rows: Mapping[str, NDArray[Any]]) -> None:
        """Write rows, C(Z)YX, of each variant."""
        for variant, part in rows.items():
            if variant == "_std" and not self.deviates:
                self.deviates = bool(part.any())
            output = self._open[image].get(variant)
            if output is not None:
                output.write(sample, start, part)

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
        return [variant for variant in self._variants if (image, variant) not in self._found]

    def _name(self, image: int, variant: str) -> str:
        return self._store.names[image] + variant
