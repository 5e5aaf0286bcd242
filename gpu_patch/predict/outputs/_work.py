"""The folder in which an OME-Zarr is, until it is complete."""

from __future__ import annotations

import glob
import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

from gpu_patch.predict.outputs._base import Unit
from gpu_patch.predict.outputs._settings import begin_anew, difference


class Work:
    """An image that is being written, with what another run needs to go on with it.

    Parameters
    ----------
    folder : Path
        It holds the image, what it was made with, and an empty file for each unit that is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.image = folder / "image"
        self._about = folder / "about.json"
        self._units = folder / "units"
        self._finishing = folder / "finishing"

    def exists(self) -> bool:
        """Tell whether there is an image."""
        return self.image.exists()

    def sketch(self, about: dict[str, Any]) -> Work:
        """Return a new one, which becomes this one by `become`."""
        made = Work(self.folder.with_name(f"{self.folder.name}.{uuid.uuid4().hex}"))
        made._units.mkdir(parents=True)
        made._about.write_text(json.dumps(about))
        return made

    def become(self, other: Work) -> None:
        """Take the place of `other`, at once; where another process did, be removed."""
        try:
            os.rename(self.folder, other.folder)
        except OSError:
            shutil.rmtree(self.folder)
            if not other.exists():
                raise

    def check(self, about: dict[str, Any]) -> None:
        """Raise where it was made with something else than `about`."""
        if differ := self.difference(about):
            raise ValueError(f"{self.folder} cannot be gone on with: {differ}. {begin_anew()}")

    def difference(self, about: dict[str, Any]) -> str:
        """Say what it was made with else than `about`, "" where that is nothing."""
        found = json.loads(self._about.read_text())
        for key, wanted in about.items():
            if found.get(key) != wanted:
                return difference(key, found.get(key), wanted)
        return ""

    def record(self, unit: Unit) -> None:
        """Note that a unit is written."""
        sample, first = unit
        (self._units / f"{sample}-{first}").touch()

    def units(self) -> list[Unit]:
        """Return the units that are written, none where there is no image."""
        if not self.exists():
            return []
        found = []
        for name in os.listdir(self._units):
            sample, first = name.split("-")
            found.append((int(sample), int(first)))
        return sorted(found)

    def finishing(self) -> bool:
        """Tell whether it is this call that may finish the image: one alone may."""
        try:
            self._finishing.touch(exist_ok=False)
        # none: another process has finished it already
        except (FileExistsError, FileNotFoundError):
            return False
        return True

    def alive(self) -> None:
        """Show other processes that the image is being finished."""
        self._finishing.touch()

    def pulse(self) -> tuple[int, float]:
        """Return what changes while the image is written or finished."""
        try:
            units = len(os.listdir(self._units))
        except FileNotFoundError:
            units = 0
        try:
            return units, self._finishing.stat().st_mtime
        except FileNotFoundError:
            return units, 0.0

    def tidy(self) -> None:
        """Remove what processes left that were killed while they wrote."""
        self._finishing.unlink(missing_ok=True)
        self._remove_sketches()
        # zarr-python gives a file its name when it is complete
        for file in self.image.rglob("*.partial"):
            file.unlink()

    def remove(self) -> None:
        """Remove it, and what never became it."""
        self._remove_sketches()
        if self.folder.exists():
            shutil.rmtree(self.folder)

    def _remove_sketches(self) -> None:
        for sketch in self.folder.parent.glob(f"{glob.escape(self.folder.name)}.*"):
            shutil.rmtree(sketch)
