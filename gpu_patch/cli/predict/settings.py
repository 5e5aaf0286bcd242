"""What ``gpu-patch predict`` makes of its options; errors name the option, and what would do."""

from __future__ import annotations

import argparse
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from gpu_patch import PatchExtractor
from gpu_patch import device as devices
from gpu_patch.cli.arguments import picture_file
from gpu_patch.predict.outputs.names import ending


class Process(NamedTuple):
    """What this process is among those that share the work, and its device."""

    rank: int
    world_size: int
    device: str


def this_process(device: str | None) -> Process:
    """Return this process as torchrun has started it; alone otherwise."""
    rank, world_size = (_environment(name, n) for name, n in (("RANK", 0), ("WORLD_SIZE", 1)))
    return Process(rank, world_size, _device(device))


def _device(device: str | None) -> str:
    """Return the device; under torchrun the one of this process."""
    local = _environment("LOCAL_RANK", 0)
    found = devices.resolve(device)
    if device is not None or found == "cpu" or not local:
        return found
    return devices.resolve(f"cuda:{local}")


def _environment(name: str, default: int) -> int:
    """Return a number that torchrun sets."""
    text = os.environ.get(name, str(default))
    if not text.isdigit():
        raise ValueError(f"the environment variable {name} must be a number, found {text!r}")
    return int(text)


def check_channels(images: PatchExtractor, n_scales: int | None) -> None:
    """Raise where context is asked for, of images that can have none."""
    if n_scales is not None and images.n_channels > 1:
        raise ValueError(
            f"argument --scales: context is for images with 1 channel, found "
            f"'{images.image_stacks[0].source}' with {images.n_channels}: leave --scales out where "
            f"the model takes {images.n_channels} channels, or give images of one of them"
        )


def check_apart(images: Sequence[str], out: Path) -> None:
    """Raise where results would be images of the next run."""
    for image in images:
        if out.is_dir() and Path(image).is_dir() and out.samefile(image):
            raise ValueError(
                f"argument --out: '{out}' is the folder of the images, where results would be "
                f"taken for images too: give another, such as '{out / 'predicted'}'"
            )


def check_picture(options: argparse.Namespace) -> None:
    """Raise where the picture that is asked for cannot be written, or is another one already."""
    if options.picture is None:
        return
    if picture_file("--picture", options.picture).exists() and not options.overwrite:
        raise ValueError(
            f"argument --picture: '{options.picture}' is there already: give another, or "
            "--overwrite"
        )


def sizes(argument: str, given: tuple[int, ...], images: PatchExtractor) -> tuple[int, ...]:
    """Return a number per spatial axis."""
    n_dims = images.n_spatial_dims
    if len(given) == n_dims:
        return given
    if len(given) > 1:
        raise ValueError(
            f"argument {argument}: must be one number or {'Y,X' if n_dims == 2 else 'Z,Y,X'} for "
            f"these images, found {','.join(map(str, given))}"
        )
    depth = [min(given[0], min(shape[2] for shape in images.shapes))] if n_dims == 3 else []
    return (*depth, given[0], given[0])


def picture_path(options: argparse.Namespace) -> Path:
    """Return where the picture goes; without --overwrite a number tells it from what is there."""
    wanted: Path | None = options.picture
    if wanted is None:
        wanted = options.out / "prediction.png"
        if ending(options.out.name) is not None:
            wanted = options.out.with_name(f"{options.out.name}_prediction.png")
    path, count = wanted, 0
    while path.exists() and not options.overwrite:
        count += 1
        path = wanted.with_name(f"{wanted.stem}_{count}{wanted.suffix}")
    return path


def digest(path: Path) -> str:
    """Return what tells the file of a model from others."""
    with path.open("rb") as file:
        return f"sha256 {hashlib.file_digest(file, 'sha256').hexdigest()}"
