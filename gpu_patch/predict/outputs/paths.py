"""Results at paths: hidden while they are written, renamed when they are complete."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from gpu_patch.checks import Message, argument
from gpu_patch.predict.outputs.base import Store
from gpu_patch.predict.outputs.claims import Claim
from gpu_patch.predict.outputs.disk import Disk
from gpu_patch.predict.outputs.names import ResultNames
from gpu_patch.predict.outputs.options import OutputOptions


class PathStore(Store):
    """A folder with a result for each image and variant, which no other run may write meanwhile.

    Parameters
    ----------
    results : ResultNames
        What they are called; their folder is made.
    options : OutputOptions
        Whether what is there may be replaced, and writes are flushed.
    """

    _folders = False
    """Whether results are folders."""

    def __init__(self, results: ResultNames, options: OutputOptions) -> None:
        super().__init__(results.names)
        assert results.folder is not None
        folder = results.folder
        for place in (folder, *folder.parents):
            if os.path.lexists(place) and not place.is_dir():
                raise FileExistsError(
                    Message(f"{place} is no folder: ", argument("out"), " cannot be in it")
                )
        self._made = [place for place in (folder, *folder.parents) if not place.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        self._disk = Disk(durable=options.durable)
        for place in self._made:
            self._disk.flush_folder(place.parent)
        self._folder, self._suffix, self._overwrite = folder, results.suffix, options.overwrite
        self._results = results.results
        self._claim: Claim | None = None

    def wait(self) -> None:
        """End the claim: other runs may write these results again."""
        if self._claim is not None:
            self._claim.release()

    def abandon(self) -> None:
        """End the claim, and remove the folders that were made and have stayed empty."""
        if self._claim is not None:
            self._claim.release()
        with suppress(OSError):  # a folder that is not empty stays
            for folder in self._made:
                folder.rmdir()

    def path(self, name: str) -> Path:
        """Return where a result is in the end."""
        return self._folder / (name + self._suffix)

    def partial(self, name: str) -> Path:
        """Return where it is until then: hidden, and beside it, so that renaming is enough."""
        return self._folder / f".{name}{self._suffix}.partial"

    def _claim_results(self, run: str | None = None) -> str:
        """Claim the results, see `Claim`; return what tells this run from others."""
        names = [name + self._suffix for name in self._results]
        self._claim = Claim(self._folder, names, run)
        return self._claim.run

    def _let_go(self, name: str) -> None:
        """Give up the claim to a result that is finished or given up."""
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
