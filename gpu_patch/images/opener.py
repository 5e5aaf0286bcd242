"""`Opener`: opens the files of images, each once, and knows how to open them again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from gpu_patch.images.agreement import single_slices
from gpu_patch.images.names import Origin
from gpu_patch.images.readers import UNREADABLE, ImageReader, Options, Url, open_file
from gpu_patch.images.readers.array import ArrayReader
from gpu_patch.images.sources import found_once


@dataclass(eq=False)
class OpenedImage:
    """One image of those that are opened together.

    Attributes
    ----------
    reader : ImageReader
        Closed in the end, unless chunks are read with it later.
    open_with : callable
        Returns another reader of the same image, with the options that it is given.
    options : Options
        Those of `reader`.
    origin : Origin
        Where it is from.
    is_in_use : bool
        Whether `reader` is needed later.
    """

    reader: ImageReader
    open_with: Callable[[Options], ImageReader]
    options: Options
    origin: Origin
    is_in_use: bool = False

    @property
    def open_again(self) -> Callable[[], ImageReader]:
        """Return another reader of it."""
        return partial(self.open_with, self.options)

    def keep_single_slice(self) -> None:
        """Take a stack of one slice as one."""
        self.reader.close()
        self.options = replace(self.options, kept="Z")
        self.reader = self.open_again()


class Opener:
    """Opens images.

    Parameters
    ----------
    options : Options
        What is said of the files.
    read_func, storage_options, cache_folder : callable, dict, path, or None
        As in `open_images`.
    """

    def __init__(
        self,
        options: Options,
        read_func: Callable[[Path], Any] | None,
        storage_options: Mapping[str, Any] | None,
        cache_folder: str | Path | None,
    ) -> None:
        self._options, self._read_func = options, read_func
        self._of_servers = storage_options, cache_folder
        self._begun: dict[Path, list[ImageReader]] = {}
        self._opened: list[OpenedImage] = []

    def open_all(self, images: Any) -> list[OpenedImage]:
        """Open what `open_images` was given.

        Raises
        ------
        OSError, TypeError, ValueError, MemoryError, ImportError
            Something is nothing that can be opened; the message names it.
        """
        is_alone = self._read_func is not None
        found = found_once(images, None if is_alone else self._members, any_file=is_alone)
        for i, (source, item, _) in enumerate(found):
            if isinstance(source, Url):
                source = source.given(*self._of_servers)
            open_with = partial(_readers, source, f"images[{i}]", self._read_func)
            file = str(source) if isinstance(source, Path) else ""
            begun = self._begun.pop(source, None) if file else None
            for n, reader in enumerate(begun or open_with(self._options)):
                again = partial(_nth, open_with, n)
                origin = Origin(item, file, reader.info.path)
                self._opened.append(OpenedImage(reader, again, self._options, origin))
        are_stacks = single_slices([image.reader.info for image in self._opened])
        for image, is_stack in zip(self._opened, are_stacks, strict=True):
            if is_stack:
                image.keep_single_slice()
        return self._opened

    def close(self) -> None:
        """Close what is open, and not in use."""
        for readers in self._begun.values():
            for reader in readers:
                reader.close()
        for image in self._opened:
            if not image.is_in_use:
                image.reader.close()
        self._begun.clear()
        self._opened.clear()

    def _members(self, path: Path) -> tuple[Path, ...]:
        """Open a file, and return all files of its set."""
        try:
            readers = self._begun[path] = open_file(path, self._options)
        except UNREADABLE:  # unless it is of another one's set, who opens it again says so
            return ()
        return tuple(file for reader in readers for file in reader.members)


def _readers(
    source: Any, name: str, read_func: Callable[[Path], Any] | None, options: Options
) -> list[ImageReader]:
    if isinstance(source, (Path, Url)):
        return open_file(source, options, read_func)
    return [ArrayReader(source, name, options)]


def _nth(
    open_with: Callable[[Options], list[ImageReader]], n: int, options: Options
) -> ImageReader:
    return open_with(options)[n]
