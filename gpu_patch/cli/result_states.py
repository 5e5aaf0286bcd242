"""How ``gpu-patch info`` tells of predictions: how much is done, by whom, and what was asked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gpu_patch.predict.outputs.state import ResultState

_SIZES = ("tile_size", "overlaps", "stride")
"""Settings with a number per axis."""
_WITHOUT = {"inner": ("stride",), "switi": ("blend",)}
"""Settings that each tiling does not have."""


def lines_of(states: Iterable[ResultState]) -> list[str]:
    """Say how far each result is, with its settings in the line below."""
    lines = []
    for state in states:
        lines.append(f"result: {state.path}: {_progress(state)}")
        without = _WITHOUT.get(str(state.settings.get("tiling")), ())
        settings = ", ".join(
            f"{key} {_short(value, key in _SIZES)}"
            for key, value in state.settings.items()
            if key not in without
        )
        lines += [f"  made with {settings}"] * bool(settings)
    return lines


def as_json(states: Iterable[ResultState]) -> list[dict[str, Any]]:
    """Return the same, as JSON has it."""
    return [{**state._asdict(), "path": str(state.path)} for state in states]


def _progress(state: ResultState) -> str:
    if state.complete:
        return "complete"
    by = f"being written by {state.writer}" if state.writer else "stopped"
    if state.units is None:
        return f"{by}; files of this format do not tell how much is done"
    assert state.done is not None
    percent = 100 * state.done // state.units
    goes_on = "; --resume with the same settings goes on" if state.done and not state.writer else ""
    return f"{state.done} of {state.units} parts written ({percent} %), {by}{goes_on}"


def _short(value: Any, is_size: bool = False) -> str:
    """Return a setting in few words; a model has a digest of each part, of which names tell."""
    if isinstance(value, dict):
        return f"({', '.join(f'{key} {_short(inner)}' for key, inner in value.items())})"
    if isinstance(value, list):
        return ("×" if is_size else " and ").join(map(str, value)) or "none"
    return "none" if value is None else str(value)
