"""What the commands share: argument types, and a parser that raises instead of exiting."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[Parser]"
"""What `add_subparsers` returns."""
_FORMATS = (".png", ".jpg", ".pdf", ".svg")
"""Of pictures."""


class Parser(argparse.ArgumentParser):
    """An `argparse.ArgumentParser` whose errors are ValueErrors, so that `main` prints them all."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage and exiting."""
        raise ValueError(f"{message} (see {self.prog} --help)")


def whole(minimum: int, maximum: int | None = None) -> Callable[[str], int]:
    """Return an argument type: whole numbers of at least `minimum` and at most `maximum`."""
    upto = "" if maximum is None else f" and at most {maximum}"

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = minimum - 1
        if number < minimum or (maximum is not None and number > maximum):
            raise argparse.ArgumentTypeError(
                f"must be a whole number of at least {minimum}{upto}, found {text!r}"
            )
        return number

    return parse


def patch_size(text: str) -> tuple[int, ...]:
    """Parse "64", "64,96" or "16,64,64"."""
    try:
        size = tuple(int(number) for number in text.split(","))
    except ValueError:
        size = ()
    if not 1 <= len(size) <= 3 or min(size) < 1:
        raise argparse.ArgumentTypeError(
            f"must be one whole number of at least 1, or Y,X or Z,Y,X, found {text!r}"
        )
    return size


def add_seed(parser: argparse.ArgumentParser) -> None:
    """Add --seed, which means the same for every command."""
    parser.add_argument(
        "--seed",
        type=whole(0, 2**64 - 1),
        default=0,
        help="seed of all draws; the same seed gives the same picture (default: %(default)s)",
    )


def needs(command: str, module: str, extra: str = "cli") -> Any:
    """Import a module that is no dependency of gpu_patch itself, and say how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ImportError(
            f"gpu-patch {command} needs {package}: pip install 'gpu_patch[{extra}]'"
        ) from error


def writable(argument: str, path: Path) -> Path:
    """Return `path` where a file can be written there; checked before any work is done."""
    if path.is_dir():
        raise ValueError(f"argument {argument}: must be a file, found the folder '{path}'")
    if not path.parent.is_dir():
        raise ValueError(f"argument {argument}: there is no folder '{path.parent}' to write to")
    return path


def picture_file(argument: str, path: Path) -> Path:
    """Return `path` where a picture can be written there, of a format that its end names."""
    writable(argument, path)
    if path.suffix.lower() not in _FORMATS:
        raise ValueError(f"argument {argument}: must end in {', '.join(_FORMATS)}, found '{path}'")
    return path


def folder(argument: str, path: Path) -> Path:
    """Return `path`, a folder that is made where there is none."""
    if path.exists() and not path.is_dir():
        raise ValueError(f"argument {argument}: must be a folder, found the file '{path}'")
    path.mkdir(parents=True, exist_ok=True)
    return path
