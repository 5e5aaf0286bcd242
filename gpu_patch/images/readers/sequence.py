"""Files that are parts of one image, whose names say where: "t{t}_c{c}.tif"."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch.checks import shorten
from gpu_patch.images.readers.array import ArrayReader
from gpu_patch.images.readers.base import ImageReader, Key
from gpu_patch.images.readers.info import ImageInfo, Options, described

_PLACE = re.compile(r"\{([STCZstcz])\}")
_MOST_NAMES = 8


class FileSequence(ImageReader):
    """An image of many files, one per value of the axes that their names count.

    The values of an axis are numbers or words, in natural order. One file is open at a time; what a
    function of the user reads is read again for each part.

    Parameters
    ----------
    path : Path
        A name with {s}, {t}, {c} or {z} in it; * and ? stand for what does not matter.
    open_one : callable
        Returns the reader of a file.
    """

    kind = "a sequence of files"

    def __init__(self, path: Path, open_one: Callable[[Path], ImageReader]) -> None:
        files, self._values = _found(path)
        counted = "".join(self._values)
        self._files, self._open_one = files, open_one
        self._current: ImageReader | None = None
        readers = [_asked(open_one(file)) for file in files]
        infos = [reader.info for reader in readers]
        first = infos[0]
        own = sorted(set(first.axes) & set(counted))
        if own:
            raise ValueError(
                f"{path}: its names count {', '.join(own)}, and its files, of the axes "
                f"{first.axes}, do too: name another axis in braces, or other axes of a file"
            )
        _check_alike(path, infos)
        lengths = tuple(map(len, self._values.values()))
        self._places = np.arange(len(files)).reshape(lengths)
        values = "; ".join(
            f"{axis} {shorten(list(found), 40)}" for axis, found in self._values.items()
        )
        info = described(
            str(path),
            f"{first.format}, {len(files)} files: {values}",
            counted + first.axes,
            lengths + first.shape,
            # given, so that axes of length 1 are not dropped: those counted by the names first
            Options(axes=counted + first.axes, labels=first.labels),
            dtype=first.dtype,
            chunk_shape=(1,) * len(lengths) + first.chunk_shape,
            calibration=first.calibration,
            files=tuple(file for each in infos for file in each.files),
            colours=first.colours,
            remarks=tuple(dict.fromkeys(remark for each in infos for remark in each.remarks)),
        )
        super().__init__(replace(info, left_out=first.left_out), None)
        self.stamps = {file: at for reader in readers for file, at in reader.stamps.items()}
        self._readers = [None if isinstance(each, ArrayReader) else each for each in readers]

    def close(self) -> None:
        """Let go of the file that was read last."""
        if self._current is not None:
            self._current.close()
            self._current = None

    def check(self) -> None:
        """Raise where one of the files is too short."""
        for reader in filter(None, self._readers):
            with reader:
                reader.check()

    def missing(self) -> str:
        """Say what was never written of the first file that lacks something."""
        for reader in filter(None, self._readers):
            with reader:
                if missing := reader.missing():
                    return f"{reader.info.path}: {missing}"
        return ""

    def _files_read(self) -> Iterable[Path]:
        return ()  # each reader looks after its own

    def _select(self, key: Key) -> NDArray[Any]:
        n_counted = self._places.ndim
        out = np.empty([part.stop - part.start for part in key], self.info.dtype)
        chosen = self._places[key[:n_counted]]
        for at, number in np.ndenumerate(chosen):
            reader = self._readers[int(number)]
            if reader is None or reader is not self._current:
                self.close()
                self._current = reader = reader or self._open_one(self._files[int(number)])
            out[at] = reader.select(key[n_counted:])
        return out


def is_sequence(path: Path) -> bool:
    """Tell whether a path is a name with places for axes, and not that of a file."""
    return bool(_PLACE.search(str(path))) and not path.exists()


def open_all(path: Path, open_file: Callable[[Path], Sequence[ImageReader]]) -> list[ImageReader]:
    """Return the image of a sequence.

    Parameters
    ----------
    path : Path
        As `FileSequence` takes it.
    open_file : callable
        Returns the readers of a file.
    """

    def open_one(file: Path) -> ImageReader:
        found = open_file(file)
        if len(found) != 1:
            raise ValueError(f"{path}: '{file}' has {len(found)} scenes: choose one")
        return found[0]

    return [FileSequence(path, open_one)]


def _found(path: Path) -> tuple[list[Path], dict[str, list[str]]]:
    """Return the files in the order of their axes, and the values of each axis.

    Raises
    ------
    FileNotFoundError
        There is none, or not one for each combination of values; the message lists those missing.
    ValueError
        Two files are for the same.
    """
    letters = [letter.upper() for letter in _PLACE.findall(str(path))]
    axes = [axis for axis in "STCZ" if axis in letters]
    there: dict[tuple[str, ...], str] = {}
    pattern = _expression(str(path))
    for name in glob.glob(_PLACE.sub("*", _escaped(str(path)))):
        match = pattern.fullmatch(name)
        if match is None:
            continue
        at = tuple(match[axis] for axis in axes)
        if at in there:
            raise ValueError(
                f"{path}: '{there[at]}' and '{name}' are for the same place: put what differs in "
                "braces, or name what they have in common"
            )
        there[at] = name
    if not there:
        raise FileNotFoundError(
            f"no file matches '{path}', where {{{'}, {'.join(axis.lower() for axis in axes)}}} "
            "stand for numbers or words"
        )
    values = {axis: sorted({at[i] for at in there}, key=_natural) for i, axis in enumerate(axes)}
    wanted = list(product(*values.values()))
    lacking = [dict(zip(axes, at, strict=True)) for at in wanted if at not in there]
    if lacking:
        names = [_filled(path, of) for of in lacking[:_MOST_NAMES]]
        more = f" and {len(lacking) - _MOST_NAMES} more" if len(lacking) > _MOST_NAMES else ""
        raise FileNotFoundError(
            f"{path}: there must be a file for each combination of "
            + "; ".join(f"{axis.lower()} {shorten(list(of))}" for axis, of in values.items())
            + f", but {len(lacking)} of {len(wanted)} are missing: {', '.join(names)}{more}"
        )
    return [Path(there[at]) for at in wanted], values


def _asked(reader: ImageReader) -> ImageReader:
    """Return a reader whose description is known and whose file is closed."""
    reader.close()
    return reader


def _filled(path: Path, values: Mapping[str, str]) -> str:
    """Return the name of a file, with its folder where that has places for axes too."""
    name = _PLACE.sub(lambda place: values[place[1].upper()], str(path))
    n_parts = next(i for i, part in enumerate(path.parts) if _PLACE.search(part))
    return str(Path(*Path(name).parts[n_parts:]))


def _escaped(text: str) -> str:
    """Return a pattern in which brackets are themselves."""
    return text.replace("[", "[[]")


def _expression(text: str) -> re.Pattern[str]:
    """Return what a path matches, with a group per axis."""
    parts, known = [], set()
    for part in re.split(r"(\{[STCZstcz]\}|\*|\?)", text):
        place = _PLACE.fullmatch(part)
        if place is None:
            parts.append({"*": r"[^/\\]*?", "?": r"[^/\\]"}.get(part, re.escape(part)))
            continue
        axis = place[1].upper()
        parts.append(f"(?P={axis})" if axis in known else rf"(?P<{axis}>[^/\\]+?)")
        known.add(axis)
    return re.compile("".join(parts))


def _natural(value: str) -> list[tuple[bool, int, str]]:
    """Return what sorts numbers in a word as numbers."""
    return [
        (not part.isdecimal(), int(part) if part.isdecimal() else 0, part)
        for part in re.split("([0-9]+)", value)
        if part
    ]


def _check_alike(path: Path, infos: Sequence[ImageInfo]) -> None:
    first = infos[0]
    for info in infos:
        for what in ("axes", "shape", "dtype"):
            here, there = getattr(info, what), getattr(first, what)
            if here != there:
                raise ValueError(
                    f"{path}: its files must agree in {what}: '{first.path}' has {there}, "
                    f"'{info.path}' {here}"
                )
