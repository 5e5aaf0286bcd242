"""`Store`, where the results of a prediction go, and `Output`, one that is being written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch.images.readers import Calibration

UnitKey = tuple[int, int]
"""A unit, rows that are written together: their sample, and the first of them."""


@dataclass(frozen=True)
class Predicted:
    """The prediction of one image stack, as it will be written.

    Attributes
    ----------
    name : str
        Name of the result without its ending: one of `Store.names`, and its variant.
    shape : tuple of int
        SC(Z)YX, with the channels of the model.
    dtype : numpy.dtype
        Of the rows.
    original_axes, original_shape : str, tuple of int
        Of the image as given, letters of "STCZYX" in any order.
    calibration : Calibration
        Where the pixels are and when, as far as it is known.
    slab_axis : int
        Spatial axis along which the rows come: 0 is the first of (Z)YX.
    source : str
        Where the image comes from.
    channel_names : tuple of str
        One per channel, or none where they are not known.
    is_labels : bool
        Whether values are numbers of labels, of which there is no mean.
    notes : dict
        What is needed to understand the values, as JSON has it: "scale_factor" and "add_offset" of
        what is stored, or the names of "labels".
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    original_axes: str
    original_shape: tuple[int, ...]
    calibration: Calibration = field(default_factory=Calibration)
    slab_axis: int = 0
    source: str = "array"
    channel_names: tuple[str, ...] = ()
    is_labels: bool = False
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def time_interval(self) -> float | None:
        """Seconds from one T to the next; None also where S and T become one axis."""
        return None if "S" in self.original_axes else self.calibration.time_interval

    @property
    def size(self) -> tuple[int, ...]:
        """(Z)YX."""
        return self.shape[2:]


class Output(ABC):
    """One image that is being written. One thread at a time."""

    @abstractmethod
    def write(self, sample: int, start: int, rows: NDArray[Any]) -> None:
        """Write finished rows.

        Parameters
        ----------
        sample : int
            Sample that they belong to.
        start : int
            Where they begin along the slab axis. Within a unit they come in ascending order,
            each once.
        rows : array
            C(Z)YX, whole except along the slab axis; of the type that was described. Free to be
            used again when the call returns.
        """

    @abstractmethod
    def finish(self) -> Any:
        """Return the array or the path, once this process has written all that it will.

        Where several processes write, the last one puts the image at its path; the others return
        the path at once, and `Store.wait` waits for it.
        """

    @abstractmethod
    def close(self) -> None:
        """Close what is open after an error; there is nothing at the final name.

        What resuming needs stays. After `finish` there is nothing left to do.
        """


class Store(ABC):
    """Where the images of a prediction go; made by `open_store`.

    A process opens and finishes the images in which it writes; rank 0 also those of which an
    earlier run has written every unit without finishing them. In the end all of them `wait`.

    Parameters
    ----------
    names : sequence of str
        See the attribute.

    Attributes
    ----------
    names : tuple of str
        Name of each image's result without ending; a variant (as "_std") is appended to it.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)

    def unit_rows(self, size: tuple[int, ...], slab_axis: int) -> int:
        """Return how many rows along the slab axis are written, resumed and shared together.

        A unit begins at each multiple of it; the last one may be shorter.

        Parameters
        ----------
        size : tuple of int
            (Z)YX.
        slab_axis : int
            Spatial axis along which the rows come.
        """
        return size[slab_axis]

    def done(self, name: str) -> set[UnitKey]:
        """Return the units of an image that an earlier run has written.

        The same on every rank, whatever the others have written since.

        Parameters
        ----------
        name : str
            As in `Predicted`.
        """
        return set()

    def finished(self, name: str) -> Any:
        """Return what `Output.finish` gave where an earlier run has finished an image, else None.

        Parameters
        ----------
        name : str
            As in `Predicted`.
        """
        return None

    @abstractmethod
    def open(self, predicted: Predicted) -> Output:
        """Begin an image, or go on with it.

        Parameters
        ----------
        predicted : Predicted
            Its description, the same on every rank.
        """

    def abandon(self) -> None:  # noqa: B027 - most have made nothing
        """Remove the folders that were made and have stayed empty, after an error."""

    def wait(self) -> None:  # noqa: B027 - most write by one process
        """Wait until every image is at its final name, written by whatever rank."""
