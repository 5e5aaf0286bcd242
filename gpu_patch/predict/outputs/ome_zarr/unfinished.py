"""The hidden folder of an OME-Zarr image that is not complete, and how it differs from a run's."""

from __future__ import annotations

import json
import os
import re
import uuid
from pathlib import Path
from typing import Any

from gpu_patch.checks import Message, argument, shorten
from gpu_patch.predict.outputs.base import UnitKey
from gpu_patch.predict.outputs.disk import Disk
from gpu_patch.predict.outputs.removal import discard, sweep


class UnfinishedImage:
    """An image that is being written, with what another run needs to go on with it.

    Parameters
    ----------
    folder : Path
        It holds the image, what it was made with, and an empty file for each unit that is written.
    disk : Disk
        Flushes it.
    """

    def __init__(self, folder: Path, disk: Disk) -> None:
        self.folder, self.disk = folder, disk
        self.image = folder / "image"
        self._about = folder / "about.json"
        self._units = folder / "units"
        self._finishing = folder / "finishing"

    def exists(self) -> bool:
        """Tell whether there is an image, with all that belongs to it."""
        metadata = self.image / "zarr.json"
        return metadata.is_file() and self._units.is_dir() and bool(self.about())

    def about(self) -> dict[str, Any]:
        """Return what it was made with, nothing where that cannot be read."""
        try:
            found = json.loads(self._about.read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def sketch(self, about: dict[str, Any]) -> UnfinishedImage:
        """Return a draft of this one under another name, which takes its place by `become`."""
        made = UnfinishedImage(
            self.folder.with_name(f"{self.folder.name}.{uuid.uuid4().hex}"), self.disk
        )
        made._units.mkdir(parents=True)
        made._about.write_text(json.dumps(about))
        return made

    def become(self, other: UnfinishedImage) -> None:
        """Take the place of `other` in one step; if another process did so, be removed."""
        self.disk.flush_tree(self.folder)
        try:
            os.rename(self.folder, other.folder)
            self.disk.flush_folder(other.folder.parent)
        except OSError:
            discard(self.folder)
            if not other.exists():
                raise

    def check(self, about: dict[str, Any]) -> None:
        """Raise where it was made with something else than `about`."""
        if differ := self.difference(about):
            raise ValueError(
                Message(f"{self.folder} cannot be gone on with: ", differ, ". ", begin_anew())
            )

    def difference(self, about: dict[str, Any]) -> str:
        """Say how what it was made with differs from `about`, "" where it does not."""
        found = self.about()
        for key, wanted in about.items():
            if found.get(key) != wanted:
                return difference(key, found.get(key), wanted)
        return ""

    def record(self, unit: UnitKey) -> None:
        """Note that a unit is written."""
        sample, first = unit
        marker = self._units / f"{sample}-{first}"
        marker.touch()
        self.disk.flush_file(marker)
        self.disk.flush_folder(self._units)

    def forget(self, unit: UnitKey) -> None:
        """Note that a unit is not written."""
        sample, first = unit
        (self._units / f"{sample}-{first}").unlink(missing_ok=True)

    def units(self) -> list[UnitKey]:
        """Return the units that are written, none where there is no image."""
        # files of others, such as file managers leave, do not count
        found = map(_UNIT.fullmatch, _names(self._units) if self.exists() else [])
        return sorted((int(unit[1]), int(unit[2])) for unit in found if unit)

    def finishing(self) -> bool:
        """Tell whether this process may finish the image: of all that ask, one may."""
        try:
            self._finishing.touch(exist_ok=False)
        # not found where another process has finished the image already
        except (FileExistsError, FileNotFoundError):
            return False
        return True

    def alive(self) -> None:
        """Show other processes that the image is being finished."""
        self._finishing.touch()

    def pulse(self) -> tuple[int, float]:
        """Return what changes while the image is written or finished."""
        units = len(_names(self._units))
        try:
            return units, self._finishing.stat().st_mtime
        except OSError:
            return units, 0.0

    def tidy(self) -> set[str]:
        """Remove what killed processes left half done; return the files of the image by name."""
        discard(self._finishing)
        sweep(self.folder)
        found = set()
        for folder, _, files in os.walk(self.image):
            within = Path(folder).relative_to(self.image)
            for name in files:
                # zarr-python writes to such a name first
                if name.endswith(".partial"):
                    Path(folder, name).unlink(missing_ok=True)
                else:
                    found.add((within / name).as_posix())
        return found

    def remove(self) -> None:
        """Remove it, and drafts of it."""
        discard(self.folder)
        sweep(self.folder)


_UNIT = re.compile(r"(\d+)-(\d+)")


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:  # the folder has been removed
        return []


def difference(name: str, found: Any, wanted: Any) -> str:
    """Say how a setting differs between an earlier run and this one; a fingerprint by its parts.

    Parameters
    ----------
    name : str
        The setting.
    found, wanted : object
        Of the earlier run, and of this one. A fingerprint is JSON, of a dict by arguments.
    """
    if name == "fingerprint":
        before, now = _parts(found), _parts(wanted)
        names = [name for name in now if before.get(name) != now[name]]
        if before and names:
            differ = [difference(name, before.get(name), now[name]) for name in names]
            return Message.joined(", ", differ)
    if isinstance(found, dict) and isinstance(wanted, dict) and name != "model":
        inner = next((k for k in {**found, **wanted} if found.get(k) != wanted.get(k)), "")
        return difference(f"{name}[{inner!r}]", found.get(inner), wanted.get(inner))
    if name == "model":
        return _other_model(found, wanted)
    if name == "image":
        return f"its image was another one ({found or 'not noted'}; now {wanted})"
    return Message(
        "its ", argument(name), f" is {shorten(found)}, that of this run {shorten(wanted)}"
    )


def _other_model(found: Any, wanted: Any) -> str:
    """Say in which parts a model differs, of which there are digests, or what its user has said."""
    its = Message("its ", argument("model"))
    if isinstance(found, dict) and isinstance(wanted, dict):
        names = [name for name in {**found, **wanted} if found.get(name) != wanted.get(name)]
        return Message(its, f" is another one, by its {', '.join(names)}")
    told = [isinstance(each, str) and each != "" for each in (found, wanted)]
    if told[0] == told[1]:
        return Message(its, f" is another one ({found}; now {wanted})")
    by = Message("told by ", argument("model_id"))
    if told[0]:
        return Message(its, " was ", by, ", that of this run not")
    return Message(its, " was not ", by)


def begin_anew() -> str:
    """Say what to do about it."""
    return Message(
        "Give the same settings to go on; ",
        argument("overwrite", True),
        " without ",
        argument("resume", True),
        " begins anew",
    )


def _parts(fingerprint: str) -> dict[str, Any]:
    try:
        found = json.loads(fingerprint)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
