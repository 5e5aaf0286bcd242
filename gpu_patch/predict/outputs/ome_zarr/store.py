"""`ZarrStore`: begins, resumes and publishes OME-Zarr images, for one process or several."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gpu_patch.checks import Message, argument
from gpu_patch.predict.outputs.axes import merged_axes
from gpu_patch.predict.outputs.base import Output, Predicted, UnitKey
from gpu_patch.predict.outputs.names import ResultNames
from gpu_patch.predict.outputs.ome_zarr.image import (
    Storage,
    complete_units,
    create_image,
    has_levels,
    import_zarr,
    own_attributes,
)
from gpu_patch.predict.outputs.ome_zarr.output import ZarrOutput
from gpu_patch.predict.outputs.ome_zarr.unfinished import UnfinishedImage, difference
from gpu_patch.predict.outputs.options import OutputOptions, Shard
from gpu_patch.predict.outputs.paths import PathStore
from gpu_patch.predict.outputs.ranks import Ranks
from gpu_patch.predict.outputs.removal import discard, sweep


class ZarrStore(PathStore):
    """Images of several resolutions; S and T are one axis T.

    Parameters
    ----------
    results : ResultNames
        What the images are called.
    options : OutputOptions
        How they are stored.
    shard : Shard
        Which of the processes that write this is.
    fingerprint : str
        What another run must have in common with this one to go on with it.
    versions : sequence of str
        Of each image: its file, as `version` tells it, and its shape.
    """

    _folders = True

    def __init__(
        self,
        results: ResultNames,
        options: OutputOptions,
        shard: Shard,
        *,
        fingerprint: str,
        versions: Sequence[str],
    ) -> None:
        import_zarr()
        super().__init__(results, options)
        self._resume, self._shard = options.resume, shard
        self._storage = Storage(options.chunk_size, options.shard_size)
        self._made_of = {
            name + variant: {"fingerprint": fingerprint, "image": version, **self._storage.asked}
            for name, version in zip(results.names, versions, strict=True)
            for variant in results.variants
        }
        ranks = self._folder / f".{results.names[0]}{results.suffix}.ranks"
        self._ranks = Ranks(ranks, shard, options.timeout)
        try:
            # all ranks go by what rank 0 found, not by what others have written since
            found = self._ranks.share(self._begin)
            if self._claim is None:
                self._claim_results(found["run"])
        except BaseException:
            self.abandon()
            raise
        self._done = {name: {(s, r) for s, r in units} for name, units in found["done"].items()}
        self._finished = set(found["finished"])

    def unit_rows(self, size: tuple[int, ...], slab_axis: int) -> int:
        """Return the rows of a shard or a chunk."""
        return min(size[slab_axis], self._storage.together(size)[slab_axis])

    def done(self, name: str) -> set[UnitKey]:
        """Return what was written before this run began."""
        return set(self._done.get(name, ()))

    def finished(self, name: str) -> Any:
        """Return the path of an image that was complete before this run began, else None."""
        return self.path(name) if name in self._finished else None

    def open(self, predicted: Predicted) -> Output:
        """Make the image where no process has done so, or go on with it."""
        unfinished, about = self._unfinished(predicted.name), self._about(predicted)
        if not unfinished.exists():
            made = unfinished.sketch(about)
            create_image(made.image, predicted, self._storage, self._made_of[predicted.name])
            made.become(unfinished)
        unfinished.check(about)
        return ZarrOutput(
            unfinished,
            predicted,
            self.unit_rows(predicted.size, predicted.slab_axis),
            self._storage,
            self.path(predicted.name),
            partial(self._publish, predicted.name),
            partial(self._let_go, predicted.name),
            alone=not self._ranks.together,
        )

    def abandon(self) -> None:
        """Let others write, and remove folders that no other rank may be about to write into."""
        if self._ranks.together:
            self._made = []
        super().abandon()

    def wait(self) -> None:
        """Wait for the other ranks, where there are any, and let others write."""
        if not self._ranks.together:
            super().wait()
            return
        expected = [name for name in self._results if name not in self._finished]

        def missing() -> list[str]:
            return [name for name in expected if not self._ranks.marked(name)]

        self._ranks.until(
            lambda: not missing(),
            lambda: [self._unfinished(name).pulse() for name in expected],
            lambda: Message(
                f"{', '.join(missing())} not finished; ",
                argument("resume", True),
                " goes on with what is there",
            ),
        )
        # rank 0 lets go last: no other run may begin while ranks use the folder `Ranks`
        if not self._shard.is_first:
            super().wait()
        self._ranks.leave()
        super().wait()

    def _flush(self, folder: Path) -> None:
        """Flush what an earlier run has written, which may not have done so."""
        self._disk.flush_tree(folder)
        self._disk.flush_folder(self._folder)

    def _unfinished(self, name: str) -> UnfinishedImage:
        return UnfinishedImage(self.partial(name), self._disk)

    def _let_go(self, name: str) -> None:
        if not self._ranks.together:  # else another rank may be writing it
            super()._let_go(name)

    def _begin(self) -> dict[str, Any]:
        """Look at what earlier runs left: what is resumed, what is finished; remove the rest."""
        run = self._claim_results()
        left = {name: self._left_of(name) for name in self._results}
        done = {}
        for name, (units, _) in left.items():
            if units:
                done[name] = self._complete(self._unfinished(name), units)
            else:
                self._unfinished(name).remove()
        finished = [name for name, (_, is_finished) in left.items() if is_finished]
        for name in finished:
            self._flush(self.path(name))
            self._let_go(name)
        return {"run": run, "done": done, "finished": finished}

    def _left_of(self, name: str) -> tuple[list[UnitKey], bool]:
        """Return the units that this run goes on with, and whether the result is finished.

        Raises
        ------
        FileExistsError, ValueError
            Something is there that this run was not allowed to replace or to go on with.
        """
        path, unfinished = self.path(name), self._unfinished(name)
        resume, overwrite = argument("resume", True), argument("overwrite", True)
        self._put_back(name)
        units = unfinished.units() if has_levels(unfinished.image) else []
        own, wanted = own_attributes(path), self._made_of[name]
        if self._resume and not units and own is not None:
            differ = _difference(own, wanted)
            if differ and not self._overwrite:
                raise FileExistsError(
                    Message(f"{path} is complete, but ", differ, ". ", _make_anew())
                )
            return [], not differ
        folder = unfinished.folder
        if units and self._resume and path.exists() and not self._overwrite:
            was = f"{path} exists, and {folder} was to replace it: "
            raise FileExistsError(Message(was, overwrite, " beside ", resume, " goes on"))
        self._check_free(name)
        if units and self._resume:
            differ = unfinished.difference(wanted)
            if differ and not self._overwrite:
                cannot = f"{folder} cannot be gone on with: "
                raise ValueError(Message(cannot, differ, ". ", _make_anew()))
            return [] if differ else units, False
        if units and not self._overwrite:
            what = f"{folder} is an unfinished prediction: "
            ways = Message(resume, " goes on with it, ", overwrite, " begins anew")
            raise FileExistsError(Message(what, ways))
        return [], False

    def _complete(self, unfinished: UnfinishedImage, units: list[UnitKey]) -> list[UnitKey]:
        """Return the units of which all chunks are there, and forget the others."""
        about, files = unfinished.about(), unfinished.tidy()
        self._flush(unfinished.folder)
        axes = merged_axes(about["original_axes"], about["shape"][1])
        found = complete_units(unfinished.image, units, files, axes, about["slab_axis"])
        for unit in set(units).difference(found):
            unfinished.forget(unit)
        return found

    def _about(self, predicted: Predicted) -> dict[str, Any]:
        return {
            **self._made_of[predicted.name],
            "shape": list(predicted.shape),
            "dtype": predicted.dtype.name,
            "original_axes": predicted.original_axes,
            "original_shape": list(predicted.original_shape),
            "slab_axis": predicted.slab_axis,
        }

    def _publish(self, name: str) -> None:
        """Put a complete image at its path."""
        path, unfinished = self.path(name), self._unfinished(name)
        self._check_free(name)
        if os.path.lexists(path):
            os.rename(path, self._replaced(name))
        os.rename(unfinished.image, path)
        self._disk.flush_folder(self._folder)
        unfinished.remove()
        self._put_back(name)
        self._let_go(name)
        self._ranks.mark(name)

    def _put_back(self, name: str) -> None:
        """Put an old image back, where a run was killed before the new one took its name."""
        replaced, path = self._replaced(name), self.path(name)
        if os.path.lexists(replaced):
            if os.path.lexists(path):
                discard(replaced)
            else:
                os.rename(replaced, path)
        sweep(replaced)

    def _replaced(self, name: str) -> Path:
        return self._folder / f".{name}{self._suffix}.replaced"


def _difference(own: dict[str, Any], wanted: dict[str, Any]) -> str:
    """Say how an image differs from what this run would make, "" where it does not."""
    for key, value in wanted.items():
        if own.get(key) != value:
            return difference(key, own.get(key), value)
    return ""


def _make_anew() -> str:
    """Say what to do about it."""
    resume, overwrite = argument("resume", True), argument("overwrite", True)
    return Message(
        "Give the same to go on; ",
        overwrite,
        " beside ",
        resume,
        " makes anew what differs, ",
        overwrite,
        " alone everything",
    )
