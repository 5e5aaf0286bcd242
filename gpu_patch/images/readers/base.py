"""What every reader has in common: it reads regions of an image as SC(Z)YX."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

from numpy.typing import NDArray

from gpu_patch.images.axes import (
    to_canonical,
)
from gpu_patch.images.dtypes import largest_inexact
from gpu_patch.images.readers.info import ImageInfo, along
from gpu_patch.images.readers.paths import reading

Key = tuple[slice, ...]
"""A slice with start and stop per axis."""


class FastReader(Protocol):
    """Begins reads, which need not have ended when it returns."""

    @abstractmethod
    def begin(self, region: Sequence[slice], out: NDArray[Any]) -> Any | None:
        """Begin to fill `out` with a region; None where `ImageReader.read` should do it.

        Parameters
        ----------
        region : sequence of slice
            One per axis of SC(Z)YX, with start and stop.
        out : array
            Of the region's shape and the image's data type.

        Returns
        -------
        object or None
            With `done()`, and `result()`, which waits or does what is left. Its error, if any, may
            not say much.
        """
        raise NotImplementedError


class ImageReader(ABC):
    """An image in a file.

    Files are opened when they are read, and stay open until `close`; reading again opens them
    again. A reader may be used by one thread at a time, unless `for_threads`.

    Parameters
    ----------
    info : ImageInfo
        Its description.
    watched : Path, sequence of Path, or None
        The files whose change is an error.
    stored_shape : tuple of int or None, default None
        What `_select` reads, where that has other axes of one pixel than `info`.

    Attributes
    ----------
    stamps : dict of Path to tuple of int
        Size and date of each of them when it was opened.
    members : tuple of Path
        All files of the set that the image was found with, as they are named; none where its file
        stands alone.
    """

    kind = "an image"
    """What the file should be, for error messages."""
    members: tuple[Path, ...] = ()
    for_threads = False
    """Whether several threads may read, and let go of the file, at a time."""

    def __init__(
        self,
        info: ImageInfo,
        watched: Path | Sequence[Path] | None,
        stored_shape: tuple[int, ...] | None = None,
    ) -> None:
        self.info = info
        self._stored_shape = info.shape if stored_shape is None else stored_shape
        self.largest_inexact = 0
        paths = [watched] if isinstance(watched, Path) else watched or ()
        self.stamps = {path: file_stamp(path) for path in paths}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def resident(self) -> Any:
        """The image's array in the file's axes where it lies in memory as a whole, else None."""
        return None

    def close(self) -> None:  # noqa: B027 - most have nothing to close
        """Let go of the file."""

    def check(self) -> None:  # noqa: B027 - pictures say nothing of their length
        """Raise where the file is too short for its image, without reading pixels.

        Raises
        ------
        OSError, ValueError
            As in `read`.
        """

    def fast(self) -> FastReader | None:
        """Return what reads regions by itself, as `read` would; None where there is nothing."""
        return None

    @property
    def is_far(self) -> bool:
        """Whether reads wait for a server, so that several at a time are faster."""
        return False

    def missing(self) -> str:
        """Say how much of the image was never written, "" where nothing is known to be."""
        return ""

    def read(self, region: Sequence[slice], out: NDArray[Any]) -> None:
        """Read a part of the canonical image, and no more of the file than its chunks.

        Parameters
        ----------
        region : sequence of slice
            One with start and stop, within the image, per axis of SC(Z)YX.
        out : array
            Of the region's shape; values are converted to its type.

        Raises
        ------
        OSError, ValueError
            The file cannot be read, or is not the one that was described. The message names it.
        """
        samples, *others = region
        wanted = dict(zip(self.info.canonical_axes[1:], others, strict=True))
        first = samples.start
        for s, t in _boxes(samples, self.info.size("T")):
            key = tuple({"S": s, "T": t, **wanted}[axis] for axis in self.info.axes)
            block = to_canonical(self.select(key), self.info.axes)
            start = s.start * self.info.size("T") + t.start - first
            out[start : start + len(block)] = block

    def select(self, key: Key) -> NDArray[Any]:
        """Read a part in the file's own axes and data type.

        Parameters
        ----------
        key : tuple of slice
            One with start and stop, within the image, per axis of the file.
        """
        stored = along(key, self.info.shape, self._stored_shape, slice(0, 1))
        with reading(self.info.path, self.kind):
            block = self._select(stored)
            expected = tuple(part.stop - part.start for part in stored)
            if block.shape != expected:
                raise ValueError(f"it gave the shape {block.shape}, not {expected}")
        block = block.reshape([part.stop - part.start for part in key])
        for path in self._files_read():
            if file_stamp(path) != self.stamps[path]:
                raise self.changed(path)
        inexact = largest_inexact(block, self.info.resident_dtype)
        self.largest_inexact = max(self.largest_inexact, inexact)
        return block

    def changed(self, path: Path) -> ValueError:
        """Return the error for a file that is not the one that was opened."""
        own = path == next(iter(self.stamps))
        name = self.info.path if own else f"{self.info.path}: '{path.name}', one of its files,"
        return ValueError(
            f"{name} has changed since it was opened: open it again, and let nothing write to it "
            "while it is in use"
        )

    def _files_read(self) -> Iterable[Path]:
        """Return those of the watched files that were read since the last call."""
        return self.stamps

    def whole(self) -> NDArray[Any]:
        """Read all of it, in the file's own axes and data type."""
        return self.select(tuple(slice(0, length) for length in self.info.shape))

    @abstractmethod
    def _select(self, key: Key) -> NDArray[Any]:
        """Do what `select` does in the stored shape, with any exception for what goes wrong."""


def _boxes(samples: slice, n_times: int) -> Iterator[tuple[slice, slice]]:
    """Split samples, S outermost, into ranges of S and T."""
    if n_times == 1:
        yield samples, slice(0, 1)
        return
    for s in range(samples.start // n_times, -(-samples.stop // n_times)):
        first = s * n_times
        yield (
            slice(s, s + 1),
            slice(max(0, samples.start - first), min(n_times, samples.stop - first)),
        )


def file_stamp(path: Path) -> tuple[int, int]:
    """Return size and date of a file."""
    found = os.stat(path)  # quicker than its own method
    return found.st_size, found.st_mtime_ns
