"""Which scene and which resolution level of a file are meant."""

from __future__ import annotations

from collections.abc import Sequence

from gpu_patch.checks import Message, argument, whole_number
from gpu_patch.images.readers.paths import NotThereError

_MOST_NAMES = 8


def chosen_scenes(
    path: object, scene: int | str | None, names: Sequence[str], *, alike: bool = True
) -> list[int]:
    """Return the numbers of the scenes that `scene` means, of those with these names.

    Images that are not `alike`, as a slide and the picture of its label, are not opened together.
    """
    listed = _listed([f"{i} ({name})" if name else str(i) for i, name in enumerate(names)])
    if scene is None:
        if len(names) > 1:
            raise ValueError(
                Message(
                    f"{path} has {len(names)} scenes ({listed}): say ",
                    argument("scene", 0),
                    " or another number or name",
                    Message(", or ", argument("scene", "all"))
                    if alike
                    else ". They differ in channels or spatial axes, and open one at a time",
                )
            )
        return [0]
    if isinstance(scene, str):
        if scene == "all":
            return list(range(len(names)))
        numbers = [i for i, name in enumerate(names) if name == scene]
        if not numbers:
            raise ValueError(f"{path} has no scene {scene!r}, only {listed}")
        if len(numbers) > 1:
            raise ValueError(
                Message(
                    f"{path} has {len(numbers)} scenes that are called {scene!r}, of the numbers "
                    f"{_listed(numbers)}: say ",
                    argument("scene", numbers[0]),
                    " or another of them",
                )
            )
        return numbers
    if whole_number("scene", scene, minimum=0) >= len(names):
        raise ValueError(f"{path} has no scene {scene}, only {listed}")
    return [int(scene)]


def _listed(items: Sequence[object]) -> str:
    return ", ".join([*map(str, items[:_MOST_NAMES]), *["…"] * (len(items) > _MOST_NAMES)])


def checked_level(path: object, level: int, n_levels: int) -> int:
    """Return `level` where the image has it."""
    if whole_number("level", level, minimum=0) >= n_levels:
        raise NotThereError(
            f"{path} has no level {level}: "
            + (
                f"its resolution levels are 0 … {n_levels - 1}"
                if n_levels > 1
                else "it has level 0 alone"
            )
        )
    return level
