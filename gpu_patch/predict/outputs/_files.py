"""Results at paths, which take their final name when they are complete."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch.errors import argument
from gpu_patch.predict.outputs._axes import put_rows, sample_of
from gpu_patch.predict.outputs._base import Output, Predicted, Store


class PathStore(Store):
    """A folder with a result for each image and variant.

    Parameters
    ----------
    folder : Path
        It is made.
    names, variants : sequence of str
        As in `make_store`.
    suffix : str
        Ending of the results.
    overwrite : bool
        Whether what is there may be replaced.
    """

    def __init__(
        self,
        folder: Path,
        names: Sequence[str],
        variants: Sequence[str],
        suffix: str,
        *,
        overwrite: bool,
    ) -> None:
        super().__init__(names)
        self._made = [place for place in (folder, *folder.parents) if not place.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._suffix, self._overwrite = folder, suffix, overwrite
        self._results = [name + variant for name in names for variant in variants]

    def abandon(self) -> None:
        """Remove the folders that were made and have stayed empty, after an error."""
        with suppress(OSError):  # where one is not empty
            for folder in self._made:
                folder.rmdir()

    def path(self, name: str) -> Path:
        """Return where a result is in the end."""
        return self._folder / (name + self._suffix)

    def partial(self, name: str) -> Path:
        """Return where it is until then: hidden, and beside it, so that renaming is enough."""
        return self._folder / f".{name}{self._suffix}.partial"

    def _check_free(self, name: str) -> None:
        path = self.path(name)
        if path.exists() and not self._overwrite:
            raise FileExistsError(f"{path} exists: {argument('overwrite', True)} replaces it")


class FileStore(PathStore):
    """Files in which an image lies as it does in memory."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for name in self._results:
            self._check_free(name)

    @abstractmethod
    def _create(self, path: Path, predicted: Predicted) -> tuple[np.memmap[Any, Any], str]:
        """Make the file; return its image and the axes of that."""

    def open(self, predicted: Predicted) -> Output:
        """Make the file."""
        self._check_free(predicted.name)
        partial = self.partial(predicted.name)
        try:
            image, axes = self._create(partial, predicted)
            # a full disk is an error here; at a page of a memory map it would kill the process
            if hasattr(os, "posix_fallocate"):
                with partial.open("r+b") as file:
                    os.posix_fallocate(file.fileno(), image.offset, image.nbytes)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        return FileOutput(predicted, image, axes, partial, self.path(predicted.name))


class FileOutput(Output):
    """A file that is being filled.

    Parameters
    ----------
    predicted : Predicted
        Description of the image.
    image : numpy.memmap
        The image in the file. Only its place is kept.
    axes : str
        Those of `image`.
    partial, path : Path
        Where the file is, and where it will be.
    """

    def __init__(
        self,
        predicted: Predicted,
        image: np.memmap[Any, Any],
        axes: str,
        partial: Path,
        path: Path,
    ) -> None:
        self._slab_axis, self._axes = predicted.slab_axis, axes
        self._partial, self._path = partial, path
        self._place = {"dtype": image.dtype, "offset": image.offset, "shape": image.shape}

    def write(self, sample: int, start: int, rows: NDArray[Any]) -> None:
        """Copy rows into the file."""
        # mapped for each write anew: what stays mapped counts as memory of the process
        image = np.memmap(self._partial, mode="r+", **self._place)
        put_rows(sample_of(image, self._axes, sample), self._slab_axis, start, rows)

    def finish(self) -> Path:
        """Give the file its name."""
        os.replace(self._partial, self._path)
        return self._path

    def close(self) -> None:
        """Remove the file where it has not got its name."""
        self._partial.unlink(missing_ok=True)
