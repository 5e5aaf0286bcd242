"""From any order of axes to SC(Z)YX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gpu_patch.checks import Message, argument, instance

AXES = "STCZYX"


def capitals(axes: object) -> str:
    """Return `axes`, a string, in capital letters."""
    instance("axes", axes, str, f"a string of letters of {AXES!r}")
    assert isinstance(axes, str)
    return axes.upper()


def checked_axes(axes: object, shape: tuple[int, ...], hint: str | None = None) -> str:
    """Return `axes` where it names each axis of `shape` once and has Y and X.

    Errors on their number end in `hint`; None guesses what is right.
    """
    axes = capitals(axes)
    name = argument("axes")
    unknown = sorted(set(axes) - set(AXES))
    if unknown:
        raise ValueError(
            Message(name, f" may have the letters {AXES!r}, found {axes!r} with {unknown}")
        )
    if len(set(axes)) != len(axes):
        raise ValueError(Message(name, f" must name each axis once, found {axes!r}"))
    if not {"Y", "X"} <= set(axes):
        raise ValueError(Message(name, f" must contain Y and X, found {axes!r}"))
    if len(axes) != len(shape):
        guesses = likely_axes(shape)
        if hint is None:
            hint = Message(": ", argument("axes", *guesses), "?") if guesses else ""
        raise ValueError(
            Message(
                name,
                f" must name every axis of the data: {axes!r} has {len(axes)} letters, the shape "
                f"{shape} has {len(shape)} axes",
                hint,
            )
        )
    return axes


class View(NamedTuple):
    """The axes that an image is taken with, beside those that its file says.

    Attributes
    ----------
    axes, shape : str, tuple of int
        Taken.
    left_out : str
        Axes of one pixel that the file says, and nobody asked for.
    remark : str
        What is wrong with it, "" for nothing.
    """

    axes: str
    shape: tuple[int, ...]
    left_out: str = ""
    remark: str = ""


def chosen_view(stated: str, shape: tuple[int, ...], given: str | None, kept: str = "") -> View:
    """Return the axes of an image: those that its file states, without those of one pixel.

    Parameters
    ----------
    stated : str
        Axes that the file states, one letter each; "" where it does not.
    shape : tuple of int
        Of the file.
    given : str or None
        Axes that the user gives. They may have axes of one pixel or leave them out. Where they
        contradict the file, they are taken in its place, with a remark.
    kept : str
        Axes that are kept where they have one pixel.

    Raises
    ------
    ValueError
        `given` does not name every axis; or both are empty.
    """
    if not stated:
        return View(checked_axes(given, shape), shape)
    size = dict(zip(stated, map(int, shape), strict=True))
    needed = {axis for axis in stated if size[axis] > 1 or axis in "YX"}
    usual = "".join(axis for axis in stated if axis in needed or axis in kept)
    taken = usual if given is None else given
    if taken == "".join(axis for axis in stated if axis in taken) and needed <= set(taken):
        left_out = "" if given else "".join(axis for axis in stated if axis not in taken)
        return View(
            taken, tuple(size[axis] for axis in taken), left_out, _on_one_slice(given, usual, size)
        )
    named = stated if len(taken) == len(stated) else usual
    said = Message("; the file says ", argument("axes", stated))
    shape = tuple(size[axis] for axis in named)
    checked_axes(taken, shape, said)
    remark = Message(
        f"the file says that its axes are {named}, but ", argument("axes", taken), " is taken"
    )
    return View(taken, shape, remark=remark)


def _on_one_slice(given: str | None, usual: str, size: Mapping[str, int]) -> str:
    if given is not None or size.get("Z") != 1 or "Z" not in usual:
        return ""
    return Message(
        "it has one slice, and is opened as a stack of it beside images with more: ",
        argument("axes", usual),
        " says so without a warning",
    )


def to_canonical(data: Any, axes: str) -> Any:
    """Return a view (a copy where S and T cannot be merged in place) with the axes SC(Z)YX."""
    present = [axis for axis in AXES if axis in axes]
    ordered = data.transpose([axes.index(axis) for axis in present])
    n_samples = sum(axis in "ST" for axis in present)
    ordered = ordered.reshape(-1, *ordered.shape[n_samples:]) if n_samples else ordered[None]
    return ordered if "C" in axes else ordered[:, None]


_COMMON = ("YX", "ZYX", "TYX", "CYX", "YXC", "SCYX", "TCYX", "TZYX", "CZYX", "ZCYX", "TYXC",
           "SCZYX", "TCZYX", "TZCYX", "TZYXC", "STCZYX")  # fmt: skip
_MOST_CHANNELS = 8


def likely_axes(shape: Sequence[int]) -> list[str]:
    """Return what the axes of a shape may be, at most three guesses."""
    fitting = []
    for axes in _COMMON:
        size = dict(zip(axes, shape, strict=False))
        plausible = size.get("C", 1) <= min(_MOST_CHANNELS, size.get("Y", 0), size.get("X", 0))
        if len(axes) == len(shape) and plausible:
            fitting.append(axes)
    # guess channels as the last axis first only where that axis is as short as channels are few
    last = bool(shape) and shape[-1] <= 4
    fitting.sort(key=lambda axes: axes.endswith("C") != last)
    return fitting[:3]
