"""Results at paths, which take their final name when they are complete."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial as bound
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch.checks import Message, argument
from gpu_patch.predict.outputs.axes import put_rows, sample_of
from gpu_patch.predict.outputs.base import Output, Predicted, Store
from gpu_patch.predict.outputs.claims import Claim
from gpu_patch.predict.outputs.removal import discard


class PathStore(Store):
    """A folder with a result for each image and variant, which no other run may write meanwhile.

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

    _folders = False
    """Whether results are folders."""

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
        for place in (folder, *folder.parents):
            if os.path.lexists(place) and not place.is_dir():
                raise FileExistsError(
                    Message(f"{place} is no folder: ", argument("out"), " cannot be in it")
                )
        self._made = [place for place in (folder, *folder.parents) if not place.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._suffix, self._overwrite = folder, suffix, overwrite
        self._results = [name + variant for name in names for variant in variants]
        self._claim: Claim | None = None

    def wait(self) -> None:
        """Let others write what is written."""
        if self._claim is not None:
            self._claim.release()

    def abandon(self) -> None:
        """Let others write, and remove the folders that were made and have stayed empty."""
        if self._claim is not None:
            self._claim.release()
        with suppress(OSError):  # where one is not empty
            for folder in self._made:
                folder.rmdir()

    def path(self, name: str) -> Path:
        """Return where a result is in the end."""
        return self._folder / (name + self._suffix)

    def partial(self, name: str) -> Path:
        """Return where it is until then: hidden, and beside it, so that renaming is enough."""
        return self._folder / f".{name}{self._suffix}.partial"

    def _claim_results(self, run: str | None = None) -> str:
        """See to it that no other run writes the same; return what tells this run from others."""
        names = [name + self._suffix for name in self._results]
        self._claim = Claim(self._folder, names, run)
        return self._claim.run

    def _let_go(self, name: str) -> None:
        """Let others write a result that is finished or given up."""
        if self._claim is not None:
            self._claim.done(name + self._suffix)

    def _check_free(self, name: str) -> None:
        """Raise where a result must not take its name. A link would be replaced by itself."""
        path = self.path(name)
        if not os.path.lexists(path):
            return
        if not path.is_symlink() and not (path.is_dir() if self._folders else path.is_file()):
            kind, found = ("folder", "file") if self._folders else ("file", "folder")
            found = found if path.is_dir() or path.is_file() else "special file"
            raise FileExistsError(
                Message(
                    f"{path} would be a {kind}, but there is a {found} of that name: give another ",
                    argument("out"),
                    ", or move it",
                )
            )
        if not self._overwrite:
            raise FileExistsError(
                Message(f"{path} exists: ", argument("overwrite", True), " replaces it")
            )


class FileStore(PathStore):
    """Files in which an image lies as it does in memory."""

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
            # a full disk is an error here; at a page of a memory map it would kill the process
            if hasattr(os, "posix_fallocate"):
                with partial.open("r+b") as file:
                    os.posix_fallocate(file.fileno(), image.offset, image.nbytes)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        path, done = self.path(predicted.name), bound(self._let_go, predicted.name)
        return FileOutput(predicted, image, axes, partial, path, done)


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
    """

    def __init__(
        self,
        predicted: Predicted,
        image: np.memmap[Any, Any],
        axes: str,
        partial: Path,
        path: Path,
        done: Callable[[], object],
    ) -> None:
        self._slab_axis, self._axes = predicted.slab_axis, axes
        self._partial, self._path, self._done = partial, path, done
        self._is_over = False
        self._place = {"dtype": image.dtype, "offset": image.offset, "shape": image.shape}

    def write(self, sample: int, start: int, rows: NDArray[Any]) -> None:
        """Copy rows into the file."""
        # mapped for each write anew: what stays mapped counts as memory of the process
        image = np.memmap(self._partial, mode="r+", **self._place)
        put_rows(sample_of(image, self._axes, sample), self._slab_axis, start, rows)

    def finish(self) -> Path:
        """Give the file its name."""
        os.replace(self._partial, self._path)
        self._let_go()
        return self._path

    def close(self) -> None:
        """Remove the file where it has not got its name."""
        if not self._is_over:  # what has that name then is another run's
            self._partial.unlink(missing_ok=True)
            self._let_go()

    def _let_go(self) -> None:
        self._is_over = True
        self._done()
