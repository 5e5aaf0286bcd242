"""Checks that images opened together agree in channels and spatial axes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from gpu_patch.checks import Message, argument
from gpu_patch.images.readers import SUFFIXES, ImageInfo

_MOST_NAMED = 3


def single_slices(infos: Sequence[ImageInfo]) -> list[bool]:
    """Tell which images have one slice that counts as a stack beside the others, with more.

    Files of ImageJ do not count: they cannot say that a plane is a slice.
    """
    differ = len({len(info.canonical_shape) for info in infos}) > 1
    return [
        differ and "Z" in info.left_out and not info.format.startswith("ImageJ") for info in infos
    ]


def check_images(infos: Sequence[ImageInfo]) -> None:
    """Raise where images differ, as `check_agreement`, with what their files say in mind."""
    shapes = [
        (*info.canonical_shape[:2], 1, *info.canonical_shape[2:])
        if is_stack
        else info.canonical_shape
        for info, is_stack in zip(infos, single_slices(infos), strict=True)
    ]
    try:
        check_agreement([info.path for info in infos], shapes)
    except ValueError as error:
        planes = [info for info in infos if "Z" not in info.axes]
        axes = {info.axes for info in infos if "Z" in info.axes}
        sizes = {info.canonical_shape[-2:] for info in infos}
        if (
            len(axes) == len(sizes) == 1
            and planes
            and all("Z" in info.left_out for info in planes)
            and all(set(info.axes) | {"Z"} == set(*axes) for info in planes)
        ):
            stacks = Message(
                ", or say ", argument("axes", *axes), ", where planes are stacks of one slice"
            )
            raise ValueError(Message(*error.args, stacks)) from None
        raise


def check_agreement(sources: Sequence[str | Path], shapes: Sequence[Sequence[int]]) -> None:
    """Raise where images differ in spatial axes or channels, with what to give instead.

    Parameters
    ----------
    sources : sequence of str or Path
        Where each comes from; "array" is not said.
    shapes : sequence of sequence of int
        SC(Z)YX.
    """
    for what, found in (
        ("spatial axes", [len(shape) - 2 for shape in shapes]),
        ("channels", [shape[1] for shape in shapes]),
    ):
        # what most images have is taken as wanted; the message lists those that differ
        usual, _ = Counter(found).most_common(1)[0]
        others = [i for i, number in enumerate(found) if number != usual]
        if others:
            shown = [found.index(usual), *others[:_MOST_NAMED]]
            listed = [f"{_name(i, sources[i])} has {found[i]}" for i in shown]
            listed += [f"and {len(others) - _MOST_NAMED} more"] * (len(others) > _MOST_NAMED)
            rest = [source for i, source in enumerate(sources) if i not in others]
            raise ValueError(
                Message(
                    f"images must agree in {what}: {', '.join(listed)}. ",
                    _advice(rest, [sources[i] for i in others]),
                )
            )


def _name(index: int, source: str | Path) -> str:
    return f"image_stacks[{index}]" if source == "array" else f"'{source}'"


def _advice(wanted: Sequence[str | Path], others: Sequence[str | Path]) -> str:
    """Say what opens those that are wanted alone."""
    scenes, unwanted = ([_scene(path) for path in of] for of in (wanted, others))
    if {file for file, _ in scenes} & {file for file, _ in unwanted}:
        numbers = sorted({number for _, number in scenes})
        if set(numbers) & {number for _, number in unwanted}:
            return "Open each file by itself, with its own scene"
        choices = [argument("scene", number) for number in numbers]
        return (
            Message("Say ", choices[0], " to leave others out")
            if len(choices) == 1
            else Message("Open one scene at a time: ", Message.joined(", ", choices[:_MOST_NAMED]))
        )
    endings, their_endings = ({Path(path).suffix for path in of} for of in (wanted, others))
    folders = {Path(path).parent for path in wanted}
    if len(endings) == len(folders) == 1 and not endings & their_endings and endings <= {*SUFFIXES}:
        return f"Give the pattern '{folders.pop() / f'*{endings.pop()}'}' to leave others out"
    return "Give those alone that belong together"


def _scene(source: str | Path) -> tuple[str, int]:
    """Return the file of an image, and which image of the file it is."""
    found = re.fullmatch(r"(.*), (?:series|scene) ([0-9]+)", str(source))
    return (found[1], int(found[2])) if found else (str(source), 0)
