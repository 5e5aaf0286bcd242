"""Errors and warnings as a command prints them: in one line, in terms of its options."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from gpu_patch.checks import Argument, Message
from gpu_patch.images.readers import without_login


def in_options(text: str, options: Mapping[str, str]) -> str:
    """Return a message with the options of a command where it speaks of arguments of Python.

    Parameters
    ----------
    text : str
        A `Message`, or any text, which stays as it is.
    options : dict of str to str
        The option, such as "--axes", of each argument that has one.

    Examples
    --------
    >>> from gpu_patch.checks import argument
    >>> message = Message(argument("overlaps[0]"), " of ", argument("axes", "ZYX", "TYX"), ", or ",
    ...                   argument("by_chunk", False))
    >>> in_options(message, {"axes": "--axes", "overlaps": "--overlaps"})
    '--overlaps[0] of --axes ZYX or TYX, or by_chunk=False in Python'
    """
    return "".join(_option(piece, options) for piece in getattr(text, "pieces", (text,)))


def _option(piece: str, options: Mapping[str, str]) -> str:
    if not isinstance(piece, Argument):
        return piece
    name, *entry = piece.name.partition("[")
    if name not in options:  # only who writes Python can give it
        return f"{piece} in Python" if piece.values else piece
    option = options[name] + "".join(entry)
    if piece.values in ((), (True,)):
        return option
    return f"{option} {' or '.join(map(str, piece.values))}"


def one_line(error: BaseException, options: Mapping[str, str]) -> str:
    """Return in one line what an error or a warning says, in terms of a command's options.

    It has no password, even where an address is given for something else.
    """
    text = _told(error, options)
    if isinstance(error, OSError) and error.strerror:  # rather than its number
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return without_login(" ".join(text.split())) or type(error).__name__


def _told(error: BaseException, options: Mapping[str, str]) -> str:
    """Return the message of an error, in which that of another one may be quoted."""
    text = in_options(error.args[0], options) if _has_message(error) else str(error)
    quoted = error.__cause__ or error.__context__
    if quoted is None or not str(quoted):
        return text
    return text.replace(str(quoted), _told(quoted, options))


def _has_message(error: BaseException) -> bool:
    return bool(error.args) and isinstance(error.args[0], Message)


@contextmanager
def short_warnings(options: Mapping[str, str]) -> Iterator[None]:
    """Print what users are warned of as errors are, without lines of code."""
    with warnings.catch_warnings():
        as_usual = warnings.showwarning

        def show(message: Any, category: Any, *place: Any, **more: Any) -> None:
            if category is not UserWarning:
                return as_usual(message, category, *place, **more)
            print(f"gpu-patch: warning: {one_line(message, options)}", file=sys.stderr)
            return None

        warnings.showwarning = show
        yield
