"""Whether images can be opened together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from gpu_patch.images.readers import SUFFIXES

_MOST_NAMED = 3


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
        # those that most have are meant, and the others are in the way
        usual, _ = Counter(found).most_common(1)[0]
        others = [i for i, number in enumerate(found) if number != usual]
        if others:
            shown = [found.index(usual), *others[:_MOST_NAMED]]
            said = [f"{_name(i, sources[i])} has {found[i]}" for i in shown]
            said += [f"and {len(others) - _MOST_NAMED} more"] * (len(others) > _MOST_NAMED)
            rest = [source for i, source in enumerate(sources) if i not in others]
            raise ValueError(
                f"images must agree in {what}: {', '.join(said)}. "
                f"Give {_pattern(rest, [sources[i] for i in others])}"
            )


def _name(index: int, source: str | Path) -> str:
    return f"image_stacks[{index}]" if source == "array" else f"'{source}'"


def _pattern(wanted: Sequence[str | Path], others: Sequence[str | Path]) -> str:
    """Name a pattern that finds those that are wanted alone, where endings tell them."""
    endings, unwanted = ({Path(path).suffix for path in of} for of in (wanted, others))
    folders = {Path(path).parent for path in wanted}
    if len(endings) == len(folders) == 1 and not endings & unwanted and endings <= set(SUFFIXES):
        return f"the pattern '{folders.pop() / f'*{endings.pop()}'}' to leave others out"
    return "those alone that belong together"
