"""Results as files with the pixels in one block, which is mapped into memory, such as .npy."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable
from functools import partial as bound
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch.predict.outputs.axes import put_rows, restored_axes, restored_shape, sample_of
from gpu_patch.predict.outputs.base import Output, Predicted
from gpu_patch.predict.outputs.disk import Disk
from gpu_patch.predict.outputs.paths import PathStore
from gpu_patch.predict.outputs.removal import discard


class FileStore(PathStore):
    """Files with the pixels in one block."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        try:
            self._claim_results()
            for name in self._results:
                self._check_free(name)
        except BaseException:
            self.abandon()
            raise

    @abstractmethod
    def _create(self, path: Path, predicted: Predicted) -> tuple[np.memmap[Any, Any], str]:
        """Make the file; return its image and the axes of that."""

    def open(self, predicted: Predicted) -> Output:
        """Make the file."""
        self._check_free(predicted.name)
        partial = self.partial(predicted.name)
        discard(partial)  # of a run that was killed
        try:
            image, axes = self._create(partial, predicted)
            # a full disk is an error here; when a page is written, it would kill the process
            if hasattr(os, "posix_fallocate"):
                with partial.open("r+b") as file:
                    os.posix_fallocate(file.fileno(), image.offset, image.nbytes)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        path, done = self.path(predicted.name), bound(self._let_go, predicted.name)
        return FileOutput(predicted, image, axes, partial, path, done, self._disk)


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
    done : callable
        Called when it is there, or given up.
    disk : Disk
        Flushes it.
    """

    def __init__(
        self,
        predicted: Predicted,
        image: np.memmap[Any, Any],
        axes: str,
        partial: Path,
        path: Path,
        done: Callable[[], object],
        disk: Disk,
    ) -> None:
        self._slab_axis, self._axes = predicted.slab_axis, axes
        self._partial, self._path, self._done, self._disk = partial, path, done, disk
        self._is_over = False
        self._place = {"dtype": image.dtype, "offset": image.offset, "shape": image.shape}

    def write(self, sample: int, start: int, rows: NDArray[Any]) -> None:
        """Copy rows into the file."""
        # mapped anew for each write: what stays mapped counts as memory of the process
        image = np.memmap(self._partial, mode="r+", **self._place)
        put_rows(sample_of(image, self._axes, sample), self._slab_axis, start, rows)

    def finish(self) -> Path:
        """Give the file its name."""
        self._disk.flush_file(self._partial)
        os.replace(self._partial, self._path)
        self._disk.flush_folder(self._path.parent)
        self._let_go()
        return self._path

    def close(self) -> None:
        """Remove the file where it has not got its name."""
        if not self._is_over:  # later on, a file of that name is another run's
            self._partial.unlink(missing_ok=True)
            self._let_go()

    def _let_go(self) -> None:
        self._is_over = True
        self._done()


class NpyStore(FileStore):
    """Files as `numpy.save` writes them."""

    def _create(self, path: Path, predicted: Predicted) -> tuple[np.memmap[Any, Any], str]:
        axes = predicted.original_axes
        shape = restored_shape(predicted.shape, axes, predicted.original_shape)
        image = np.lib.format.open_memmap(path, "w+", predicted.dtype, shape)
        return image, restored_axes(axes, predicted.shape[1])
