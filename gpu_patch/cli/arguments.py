"""What the commands share: argument types, and a parser that raises instead of exiting."""

from __future__ import annotations

import argparse
import difflib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from gpu_patch.geometry import PADDING_MODES
from gpu_patch.images.budget import DEFAULT_FRACTION
from gpu_patch.optional import imported

Commands: TypeAlias = "argparse._SubParsersAction[Parser]"
"""What `add_subparsers` returns."""
Adds: TypeAlias = "argparse._ActionsContainer"
"""What options are added to: a parser, or a group of its options."""
_FORMATS = (".png", ".jpg", ".pdf", ".svg")
"""Of pictures."""
_NEAR = 0.7
"""How alike words must be for one to be a slip of the other, of 1."""


class Parser(argparse.ArgumentParser):
    """An `argparse.ArgumentParser` whose errors are ValueErrors, so that `main` prints them all.

    What it parses has itself as `parser`: that of the command.
    """

    def __init__(self, **keywords: Any) -> None:
        # what is short for one option today is a slip for another: --mode is no --model
        super().__init__(allow_abbrev=False, **keywords)
        self.set_defaults(parser=self)

    @property
    def options(self) -> dict[str, str]:
        """How each argument is given; a `dest` is the argument of Python that it becomes."""
        return {
            action.dest: action.option_strings[-1] if action.option_strings else str(action.metavar)
            for action in self._actions
        }

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Refuse what is not known, here and not in the parser of all commands."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            known = [name for action in self._actions for name in action.option_strings]
            hint = nearest(unknown[0].partition("=")[0], known)
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        return found, unknown

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """List what is right, as argparse does, and suggest what is near."""
        if action.choices is not None and value not in action.choices:
            choices = [str(choice) for choice in action.choices]
            raise argparse.ArgumentError(
                action,
                f"must be one of {', '.join(choices)}, found {value!r}{nearest(value, choices)}",
            )

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage and exiting."""
        raise ValueError(f"{message} (see {self.prog} --help)")


def nearest(found: object, known: Sequence[str]) -> str:
    """Return a question for what is known and nearly the same, "" where nothing is."""
    near = difflib.get_close_matches(str(found), known, 1, _NEAR)
    return f": did you mean {near[0]}?" if near else ""


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


def path_named(text: str) -> Path:
    """Return a path; an empty one, of a shell variable most often, would be the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("must be a path, found ''")
    if "://" in text:
        raise argparse.ArgumentTypeError(
            f"must be a path on this machine, found the address '{text}': images alone are read "
            "from servers; what is written here can be copied there"
        )
    return Path(text)


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


def scene_named(text: str) -> int | str:
    """Return the number that a text is, or else the name."""
    return int(text) if text.isdecimal() else text


def add_images(parser: argparse.ArgumentParser, axes: str, scenes: str = "") -> None:
    """Add images, and what `open_images` takes of each; `reading_of` returns most of it.

    Parameters
    ----------
    parser : ArgumentParser
        Of a command.
    axes : str
        Says whose axes --axes are.
    scenes : str, default ""
        Says which files --scene is about too.
    """
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="a file, a pattern, a folder, or the address of a Zarr",
    )
    parser.add_argument("--axes", help=f"axes {axes}; default: what the file says")
    parser.add_argument(
        "--level", type=whole(0), default=0, help="resolution level (default: %(default)s)"
    )
    also = f", {scenes}" if scenes else ""
    parser.add_argument(
        "--scene",
        type=scene_named,
        help=f"number or name, where a file has several{also}; or all",
    )
    add_reading(parser)


def reading_of(options: argparse.Namespace) -> dict[str, Any]:
    """Return what was given of the options of `add_images`, as `open_images` takes it."""
    names = ("level", "scene", "allow_missing_chunks", "keep_alpha", "allow_outside")
    return {name: getattr(options, name) for name in names}


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Add what `open_images` takes of files that are not as they should be."""
    parser.add_argument(
        "--allow-missing-chunks",
        action="store_true",
        help="take zeros, or the fill value, for what was never written; default: an error",
    )
    parser.add_argument(
        "--keep-alpha",
        action="store_true",
        help="take an alpha channel for a channel; default: it is left out",
    )
    parser.add_argument(
        "--allow-outside",
        action="store_true",
        help="read files outside of their folder that OME-TIFF and OME-Zarr name: for those whose "
        "makers you trust",
    )


def add_budget(parser: argparse.ArgumentParser) -> None:
    """Add --memory-budget, which is that of `open_images`."""
    parser.add_argument(
        "--memory-budget",
        metavar="SIZE",
        help="what the images may take: 8G, 8GiB, a number of bytes, or a fraction such as 0.5 of "
        f"what is free; default: {DEFAULT_FRACTION} of what is free",
    )


def add_size(parser: Adds, option: str, default: int) -> None:
    """Add the size of patches or tiles."""
    parser.add_argument(
        option,
        type=patch_size,
        default=(default,),
        metavar="N",
        help="pixels: one number, Y,X or Z,Y,X; one number is limited to the depth along Z "
        f"(default: {default})",
    )


def add_padding(parser: Adds, dest: str = "padding") -> None:
    """Add --padding, which is the `padding_mode` of constructors."""
    parser.add_argument(
        "--padding",
        dest=dest,
        choices=PADDING_MODES,
        default="reflect",
        help="what the context holds beyond the image: %(choices)s (default: %(default)s)",
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add --device, which is that of `open_images`."""
    parser.add_argument("--device", help="cpu, cuda or cuda:N; default: a GPU where one is usable")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add --json, a file for the figures that a command prints."""
    parser.add_argument(
        "--json", type=path_named, metavar="FILE", help="also write the figures here"
    )


def add_folder(parser: argparse.ArgumentParser, for_what: str) -> None:
    """Add --out, the folder of a demo."""
    parser.add_argument(
        "--out",
        type=path_named,
        default=Path("gpu-patch-demo"),
        metavar="DIR",
        help=f"folder for {for_what} (default: %(default)s)",
    )


def add_seed(parser: argparse.ArgumentParser) -> None:
    """Add --seed, which means the same for every command."""
    parser.add_argument(
        "--seed",
        type=whole(0, 2**64 - 1),
        default=0,
        help="seed of all draws; the same seed gives the same picture (default: %(default)s)",
    )


def needs(command: str, module: str, extra: str = "cli") -> Any:
    """Import a module of an optional package, or say what the command needs."""
    return imported(module, f"gpu-patch {command}", extra)


def readable(argument: str, path: Path) -> Path:
    """Return `path` where there is a file."""
    if not path.is_file():
        what = "must be a file, found the folder" if path.is_dir() else "there is no file"
        raise ValueError(f"argument {argument}: {what} '{path}'")
    if not os.access(path, os.R_OK):
        raise ValueError(f"argument {argument}: '{path}' cannot be read: permission is denied")
    return path


def writable(argument: str, path: Path) -> Path:
    """Return `path` where a file can be written there; checked before any work is done."""
    if path.is_dir():
        raise ValueError(f"argument {argument}: must be a file, found the folder '{path}'")
    if not path.parent.is_dir():
        raise ValueError(f"argument {argument}: there is no folder '{path.parent}' to write to")
    _check_permission(argument, path if path.exists() else path.parent)
    return path


def picture_file(argument: str, path: Path) -> Path:
    """Return `path` where a picture can be written there, of a format that its end names."""
    writable(argument, path)
    if path.suffix.lower() not in _FORMATS:
        raise ValueError(f"argument {argument}: must end in {', '.join(_FORMATS)}, found '{path}'")
    return path


def folder(argument: str, path: Path) -> Path:
    """Return `path` where there is a folder, or can be; to be made when there is what to write."""
    there = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not there.is_dir():
        raise ValueError(f"argument {argument}: must be a folder, found the file '{there}'")
    _check_permission(argument, there)
    return path


def _check_permission(argument: str, path: Path) -> None:
    if not os.access(path, os.W_OK):
        raise ValueError(f"argument {argument}: nothing can be written to '{path}'")
