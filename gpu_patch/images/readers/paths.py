"""Paths that may be read, and errors that name them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath

from gpu_patch.checks import Message, argument, shorten
from gpu_patch.images.readers.content import mistaken


def checked_path(path: object) -> Path:
    """Return `path` as one."""
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path must be a str or a pathlib.Path, found {shorten(path)}")
    return Path(path)


class NotThereError(ValueError):
    """What was asked for is not in a file that can be read."""


class ServerError(OSError):
    """A server does not give what it was asked for."""


class DeniedError(ServerError, PermissionError):
    """A server denies access."""


class NothingThereError(ServerError, FileNotFoundError):
    """A server does not have it."""


def inside(folder: Path, name: str, who: str, *, allow: bool) -> Path:
    """Return a file or folder that a file names.

    Parameters
    ----------
    folder : Path
        What the name starts from.
    name : str
        The name.
    who : str
        Says which file names it, for the error.
    allow : bool
        Whether it may lie outside of `folder`.

    Raises
    ------
    ValueError
        It lies outside of `folder`, and may not.
    """
    # checked by the rules of both systems: files move between them
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    outside = posix.is_absolute() or windows.drive or windows.root or ".." in windows.parts
    if outside and not allow:
        # whoever made the file may not have meant well
        raise NotThereError(
            Message(
                f"{who} names '{name}', which is outside of its folder: ",
                argument("allow_outside", True),
                " reads it, where you trust the file",
            )
        )
    return folder / name


def checked_file(path: Path) -> Path:
    """Return `path` where it is a file or a folder: a pipe would be waited for without an end."""
    mode = path.stat().st_mode  # raises where there is nothing
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        kind = (
            "a pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"
        )
        raise ValueError(f"{path} is {kind}, and no file")
    return path


@contextmanager
def reading(path: object, kind: str) -> Iterator[None]:
    """Make every exception of a reading package one that names the file."""
    try:
        yield
    except (ImportError, NotThereError, ServerError):
        raise
    except MemoryError as error:
        raise MemoryError(f"{path}: {str(error) or 'no memory is left'}") from error
    except OSError as error:
        if error.errno is None:
            raise _unreadable(path, kind, error) from error
        if error.filename is None or Path(os.fsdecode(error.filename)) != Path(str(path)):
            other = f", of '{os.fsdecode(error.filename)}'" if error.filename else ""
            raise OSError(error.errno, f"{os.strerror(error.errno)}{other}", str(path)) from error
        raise
    # damaged files make packages raise anything, struct.error and zlib.error included
    except Exception as error:
        raise _unreadable(path, kind, error) from error


def _unreadable(path: object, kind: str, error: Exception) -> ValueError:
    reason = mistaken(Path(str(path)), kind) or str(error) or type(error).__name__
    return ValueError(f"{path} cannot be read as {kind}: {reason}")
