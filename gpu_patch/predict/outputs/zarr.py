"""Predictions as OME-Zarr 0.5, by zarr-python: resumed, and written by many processes."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch.errors import argument
from gpu_patch.predict.outputs._axes import merged_axes, merged_shape, put_rows
from gpu_patch.predict.outputs._base import Output, Predicted, Unit
from gpu_patch.predict.outputs._files import PathStore
from gpu_patch.predict.outputs._levels import fill, levels
from gpu_patch.predict.outputs._ngff import image_attributes
from gpu_patch.predict.outputs._ranks import Ranks
from gpu_patch.predict.outputs._settings import difference
from gpu_patch.predict.outputs._storage import Storage
from gpu_patch.predict.outputs._work import Work

_OWN = "gpu_patch"
"""Key of the attributes that are the package's own."""


class ZarrStore(PathStore):
    """Images of several resolutions; S and T are one axis T.

    Parameters
    ----------
    folder, names, variants, suffix
        As in `PathStore`.
    overwrite, resume, fingerprint
        As in `make_store`.
    versions : sequence of str
        Of each image: its file, as `version` tells it, and its shape.
    storage : Storage
        Chunks and shards.
    ranks : Ranks
        The processes that write.
    """

    def __init__(
        self,
        folder: Path,
        names: Sequence[str],
        variants: Sequence[str],
        suffix: str,
        *,
        overwrite: bool,
        resume: bool,
        fingerprint: str,
        versions: Sequence[str],
        storage: Storage,
        ranks: Ranks,
    ) -> None:
        _zarr()
        asked = storage.asked  # checked before any folder is made
        super().__init__(folder, names, variants, suffix, overwrite=overwrite)
        self._resume = resume
        self._made_of = {
            name + variant: {
                "fingerprint": fingerprint,
                "image": version,
                **asked,
            }
            for name, version in zip(names, versions, strict=True)
            for variant in variants
        }
        self._storage, self._ranks = storage, ranks
        # all ranks go by what rank 0 found: what others have written since must not count
        found = ranks.share(self._begin)
        self._done = {name: {(s, r) for s, r in units} for name, units in found["done"].items()}
        self._finished = set(found["finished"])

    def unit_rows(self, size: tuple[int, ...], slab_axis: int) -> int:
        """Return the rows of a shard or a chunk."""
        return min(size[slab_axis], self._storage.together(size)[slab_axis])

    def done(self, name: str) -> set[Unit]:
        """Return what was written before this run began."""
        return set(self._done.get(name, ()))

    def finished(self, name: str) -> Any:
        """Return the path of an image that was complete before this run began, else None."""
        return self.path(name) if name in self._finished else None

    def open(self, predicted: Predicted) -> Output:
        """Make the image where no process has done so, or go on with it."""
        work, about = Work(self.partial(predicted.name)), self._about(predicted)
        if not work.exists():
            made = work.sketch(about)
            self._create(made.image, predicted)
            made.become(work)
        work.check(about)
        return ZarrOutput(
            work,
            predicted,
            self.unit_rows(predicted.size, predicted.slab_axis),
            self._storage,
            self.path(predicted.name),
            self._publish,
            alone=not self._ranks.together,
        )

    def abandon(self) -> None:
        """Remove empty folders where no other rank may be about to write into them."""
        if not self._ranks.together:
            super().abandon()

    def wait(self) -> None:
        """Wait for the other ranks, where there are any."""
        if not self._ranks.together:
            return
        expected = [name for name in self._results if name not in self._finished]

        def missing() -> list[str]:
            return [name for name in expected if not self._ranks.marked(name)]

        self._ranks.until(
            lambda: not missing(),
            lambda: [Work(self.partial(name)).pulse() for name in expected],
            lambda: (
                f"{', '.join(missing())} not finished; {argument('resume', True)} goes on with "
                "what is there"
            ),
        )
        self._ranks.leave()

    def _begin(self) -> dict[str, Any]:
        """Look at what earlier runs left, and remove what no one goes on with."""
        done: dict[str, list[Unit]] = {}
        finished, stale = [], []
        for name in self._results:
            path, work = self.path(name), Work(self.partial(name))
            self._put_back(name)
            units = work.units()
            own, wanted = _own_attributes(path), self._made_of[name]
            if self._resume and not units and own is not None:
                differ = _difference(own, wanted)
                if not differ:
                    finished.append(name)
                elif not self._overwrite:
                    raise FileExistsError(f"{path} is complete, but {differ}. {_make_anew()}")
                stale.append(work)
                continue
            if units and self._resume and path.exists() and not self._overwrite:
                raise FileExistsError(
                    f"{path} exists, and {work.folder} was to replace it: "
                    f"{argument('overwrite', True)} beside {argument('resume', True)} goes on"
                )
            self._check_free(name)
            if units and self._resume:
                differ = work.difference(wanted)
                if not differ:
                    done[name] = units
                    continue
                if not self._overwrite:
                    raise ValueError(
                        f"{work.folder} cannot be gone on with: {differ}. {_make_anew()}"
                    )
            elif units and not self._overwrite:
                raise FileExistsError(
                    f"{work.folder} is an unfinished prediction: {argument('resume', True)} goes "
                    f"on with it, {argument('overwrite', True)} begins anew"
                )
            stale.append(work)
        for work in stale:
            work.remove()
        for name in done:
            Work(self.partial(name)).tidy()
        return {"done": done, "finished": finished}

    def _about(self, predicted: Predicted) -> dict[str, Any]:
        return {
            **self._made_of[predicted.name],
            "shape": list(predicted.shape),
            "dtype": predicted.dtype.name,
            "original_axes": predicted.original_axes,
            "original_shape": list(predicted.original_shape),
            "slab_axis": predicted.slab_axis,
        }

    def _create(self, image: Path, predicted: Predicted) -> None:
        """Make an image without pixels."""
        axes = merged_axes(predicted.original_axes, predicted.shape[1])
        found = levels(predicted.size, predicted.physical_sizes)
        attributes = {
            "ome": image_attributes(predicted.name, axes, predicted.physical_sizes, found),
            _OWN: {
                "source": predicted.source,
                "axes": predicted.original_axes,
                **self._made_of[predicted.name],
            },
        }
        group = _zarr().create_group(image, zarr_format=3, attributes=attributes)
        for i, level in enumerate(found):
            chunk, shard = self._storage.of(level.size)
            group.create_array(
                str(i),
                shape=merged_shape((*predicted.shape[:2], *level.size), axes),
                dtype=predicted.dtype,
                chunks=_stored(chunk, axes),
                shards=None if shard is None else _stored(shard, axes),
                dimension_names=list(axes.lower()),
            )

    def _publish(self, name: str) -> None:
        """Put a complete image at its path."""
        path, work = self.path(name), Work(self.partial(name))
        self._check_free(name)
        if path.exists():
            os.rename(path, self._replaced(name))
        os.rename(work.image, path)
        work.remove()
        self._put_back(name)
        self._ranks.mark(name)

    def _put_back(self, name: str) -> None:
        """Undo what a run did that ended before a new image replaced the old one."""
        replaced, path = self._replaced(name), self.path(name)
        if replaced.exists() and path.exists():
            shutil.rmtree(replaced)
        elif replaced.exists():
            os.rename(replaced, path)

    def _replaced(self, name: str) -> Path:
        return self._folder / f".{name}{self._suffix}.replaced"


class ZarrOutput(Output):
    """An image that is being written, in whole chunks.

    Parameters
    ----------
    work : Work
        Where it is.
    predicted : Predicted
        Its description.
    unit_rows : int
        Rows that are kept until all of them are there.
    storage : Storage
        Chunks and shards.
    path : Path
        Where it will be.
    publish : callable
        Puts it there, by its name.
    alone : bool
        Whether no other process writes.
    """

    def __init__(
        self,
        work: Work,
        predicted: Predicted,
        unit_rows: int,
        storage: Storage,
        path: Path,
        publish: Callable[[str], object],
        *,
        alone: bool,
    ) -> None:
        self._work, self._predicted, self._unit_rows = work, predicted, unit_rows
        self._storage, self._path, self._publish, self._alone = storage, path, publish, alone
        self._axes = merged_axes(predicted.original_axes, predicted.shape[1])
        self._array = self._level(0)
        self._kept: NDArray[Any] | None = None
        self._unit: Unit | None = None
        self._next = 0

    def write(self, sample: int, start: int, rows: NDArray[Any]) -> None:
        """Keep rows until a unit is complete, and write that."""
        axis = 1 + self._predicted.slab_axis
        length = self._predicted.shape[1 + axis]
        before = (slice(None),) * axis
        taken = 0
        while taken < rows.shape[axis]:
            row = start + taken
            first = row - row % self._unit_rows
            stop = min(first + self._unit_rows, length)
            part = rows[(*before, slice(taken, taken + stop - row))]
            taken += part.shape[axis]
            self._take((sample, first), row, stop, part)

    def _take(self, unit: Unit, start: int, stop: int, part: NDArray[Any]) -> None:
        """Take rows of one unit, which ends at `stop`."""
        sample, first = unit
        slab_axis, axis = self._predicted.slab_axis, 1 + self._predicted.slab_axis
        expected = (self._unit, self._next) if self._unit else (unit, first)
        if (unit, start) != expected:
            raise ValueError(
                f"start must go on where rows ended: {start} of sample {sample} came, "
                f"{expected[1]} of sample {expected[0][0]} is next"
            )
        if part.shape[axis] == stop - first:
            self._put(unit, part)
            return
        if self._kept is None:
            shape = list(self._predicted.shape[1:])
            shape[axis] = self._unit_rows
            self._kept = np.empty(shape, self._predicted.dtype)
        put_rows(self._kept, slab_axis, start - first, part)
        self._unit, self._next = unit, start + part.shape[axis]
        if self._next == stop:
            self._put(unit, self._kept[(slice(None),) * axis + (slice(0, stop - first),)])
            self._unit = None

    def _put(self, unit: Unit, rows: NDArray[Any]) -> None:
        sample, first = unit
        slab_axis = self._predicted.slab_axis
        spatial = [slice(None)] * len(self._predicted.size)
        spatial[slab_axis] = slice(first, first + rows.shape[1 + slab_axis])
        outer = {"T": slice(sample, sample + 1), "C": slice(None)}
        key = tuple(outer[axis] for axis in self._axes if axis in outer)
        block = rows if "C" in self._axes else rows[0]
        self._array[(*key, *spatial)] = block[None] if "T" in self._axes else block
        self._work.record(unit)

    def finish(self) -> Path:
        """Make the other levels and put the image at its path, where this was the last rank."""
        if self._unit is not None:
            raise RuntimeError(
                f"rows of {self._path} are missing: {self._next} of sample {self._unit[0]} is next"
            )
        n_units = self._predicted.shape[0] * -(
            -self._predicted.size[self._predicted.slab_axis] // self._unit_rows
        )
        try:
            written = len(self._work.units())
        except FileNotFoundError:  # another rank has just finished it
            return self._path
        if written < n_units and self._alone:
            raise RuntimeError(
                f"{n_units - written} of {n_units} units of {self._path} are missing"
            )
        if written == n_units and self._work.finishing():
            self._fill_levels()
            self._publish(self._predicted.name)
        return self._path

    def _fill_levels(self) -> None:
        found = levels(self._predicted.size, self._predicted.physical_sizes)
        fine = self._array
        for i, level in enumerate(found[1:], 1):
            coarse = self._level(i)
            stored = _stored(self._storage.together(level.size), self._axes)
            fill(fine, coarse, stored, self._work.alive)
            fine = coarse

    def _level(self, level: int) -> Any:
        zarr = _zarr()
        # a chunk that is not there is one that was lost, also where all of it would be zero
        with zarr.config.set({"array.write_empty_chunks": True}):
            return zarr.open_array(self._work.image / str(level), mode="r+")

    def close(self) -> None:
        """Forget the rows of a unit that is not complete. Units stay for resuming."""
        self._kept = self._unit = None
        if self._alone and not self._work.units():
            self._work.remove()


def _stored(size: tuple[int, ...], axes: str) -> tuple[int, ...]:
    """Return the shape of what is stored together, of one time and channel."""
    return (1,) * (len(axes) - len(size)) + size


def _own_attributes(path: Path) -> dict[str, Any] | None:
    """Return what the package has noted in an image, None where that was written by others."""
    try:
        own = json.loads((path / "zarr.json").read_text())["attributes"][_OWN]
    except (OSError, KeyError, TypeError, ValueError):
        return None
    return own if isinstance(own, dict) and "fingerprint" in own else None


def _difference(own: dict[str, Any], wanted: dict[str, Any]) -> str:
    """Say how an image differs from what this run would make, "" where it does not."""
    for key, value in wanted.items():
        if own.get(key) != value:
            return difference(key, own.get(key), value)
    return ""


def _make_anew() -> str:
    """Say what to do about it."""
    resume, overwrite = argument("resume", True), argument("overwrite", True)
    return (
        f"Give the same to go on; {overwrite} beside {resume} makes anew what differs, "
        f"{overwrite} alone everything"
    )


def _zarr() -> Any:
    try:
        import zarr
    except ImportError as error:
        raise ImportError("writing Zarr needs zarr 3: pip install 'gpu_patch[io]'") from error
    if int(zarr.__version__.partition(".")[0]) < 3:
        raise ImportError(
            f"writing Zarr needs zarr 3, found {zarr.__version__}: pip install 'gpu_patch[io]'"
        )
    return zarr
