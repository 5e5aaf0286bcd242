"""What happens to a batch's values on their way out: an affine map, then a turn or flip in XY."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import accumulate
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gpu_patch.checks import shorten


class AffineNormalization(Protocol):
    """A normalisation by scale and offset: a value becomes value · scale + offset.

    Scale and offset have the shape (1,), or (C,) with a number per channel. All scales of a
    lateral context are one channel of the input. Where the offset is large against the result,
    digits are lost; a `CenteredNormalization` keeps them.
    """

    @property
    def input_scale(self) -> NDArray[np.float32]:
        """Factor of the input."""
        ...

    @property
    def input_offset(self) -> NDArray[np.float32]:
        """Summand of the input."""
        ...

    @property
    def target_scale(self) -> NDArray[np.float32] | None:
        """Factor of the target; None leaves it as it is."""
        ...

    @property
    def target_offset(self) -> NDArray[np.float32] | None:
        """Summand of the target; None where the factor is."""
        ...


class CenteredNormalization(Protocol):
    """A normalisation by center and scale: a value becomes (value − center) · scale.

    The center is subtracted first, so that a small signal on a large background keeps its digits.
    Shapes are those of an `AffineNormalization`, whose offsets are not looked at where there are
    centers.
    """

    @property
    def input_center(self) -> NDArray[np.float64]:
        """What becomes 0 of the input; of lateral context, of the mixture."""
        ...

    @property
    def input_scale(self) -> NDArray[np.float32]:
        """Factor of the input."""
        ...

    @property
    def target_center(self) -> NDArray[np.float64] | None:
        """What becomes 0 of the target; None where the factor is."""
        ...

    @property
    def target_scale(self) -> NDArray[np.float32] | None:
        """Factor of the target; None leaves it as it is."""
        ...


class FixedNormalization:
    """What a normalisation is that never changes: equal ones of the same class do the same."""


AnyNormalization: TypeAlias = AffineNormalization | CenteredNormalization
"""What `construct_batch` takes."""


NUMBERS = (
    *("input_scale", "input_offset", "target_scale", "target_offset"),
    *("input_shift", "target_shift"),
)
"""The columns of an `Epilogue` that are of float32."""


class Packed(NamedTuple):
    """The numbers of an epilogue, side by side.

    Attributes
    ----------
    values : array of float32, shape (B, n)
        A row for each sample.
    widths : tuple of int
        Numbers of each column in the order of `NUMBERS`, -1 where there is none.
    """

    values: NDArray[np.float32]
    widths: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Epilogue:
    """Per sample of a batch: (value − shift) · scale + offset in float32, then a turn or flip.

    Each step is rounded by itself, so that copies and the native scale are the same to the last
    bit in all backends. Of a mixture, each channel is shifted before it is weighted, and the sum,
    at every scale, is scaled and offset: filters sum to 1, so a constant passes through them.

    Attributes
    ----------
    input_scale, input_offset : array of float32, shape (B, C)
        Of the input's channels. A lateral context has one: the mixture, at every scale.
    target_scale, target_offset : array of float32, shape (B, C)
        Of the target's channels, however many there are.
    orientation : array of uint8, shape (B,), or None
        See `turn`; None is all 0.
    input_shift : array of float32, shape (B, C), or None
        Of the input's channels; of a lateral context, of those that are mixed. None is all 0.
    target_shift : array of float32, shape (B, C), or None
        Of the target's channels. None is all 0.
    """

    input_scale: NDArray[np.float32]
    input_offset: NDArray[np.float32]
    target_scale: NDArray[np.float32]
    target_offset: NDArray[np.float32]
    orientation: NDArray[np.uint8] | None = None
    input_shift: NDArray[np.float32] | None = None
    target_shift: NDArray[np.float32] | None = None
    _packed: Packed | None = field(default=None, init=False, repr=False, compare=False)

    @classmethod
    def identity(cls, n_samples: int, n_inputs: int, n_targets: int) -> Epilogue:
        """Return one that changes nothing."""
        inputs, targets = (n_samples, n_inputs), (n_samples, n_targets)
        return cls(
            np.ones(inputs, np.float32),
            np.zeros(inputs, np.float32),
            np.ones(targets, np.float32),
            np.zeros(targets, np.float32),
        )

    def normalized(
        self, normalization: AnyNormalization, weights: NDArray[np.float32] | None = None
    ) -> Epilogue:
        """Return this followed by a normalisation.

        Parameters
        ----------
        normalization : AnyNormalization
            What follows.
        weights : array of float32, shape (B, C), optional
            How channels are mixed, where the input is a mixture.
        """
        checked_normalization(normalization)
        inputs = _step(normalization, "input", self.input_scale.shape[1])
        targets = _step(normalization, "target", self.target_scale.shape[1])
        # where several channels are mixed, they are the targets too
        known = None if targets is None else targets.center
        mixing = None
        if weights is not None:
            mixing = _Mixing(weights, known if weights.shape[1] > 1 else None)
        of_input = _Part(self.input_shift, self.input_scale, self.input_offset)
        of_target = _Part(self.target_shift, self.target_scale, self.target_offset)
        of_input = _followed(of_input, inputs, mixing)
        of_target = _followed(of_target, targets)
        return Epilogue(  # in the order of its fields: `replace` takes longer
            of_input.scale,
            of_input.offset,
            of_target.scale,
            of_target.offset,
            self.orientation,
            of_input.shift,
            of_target.shift,
        )

    def turned(self, orientation: NDArray[np.uint8]) -> Epilogue:
        """Return this with another orientation."""
        return replace(self, orientation=orientation)

    @property
    def columns(self) -> tuple[NDArray[Any] | None, ...]:
        """What a sample has a row of, in the order of the fields."""
        return (
            self.input_scale,
            self.input_offset,
            self.target_scale,
            self.target_offset,
            self.orientation,
            self.input_shift,
            self.target_shift,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpacked, (*self.packed(), self.orientation)  # columns and numbers stay one

    def packed(self) -> Packed:
        """Return all numbers in one array, as compiled code takes them."""
        if self._packed is not None:
            return self._packed
        given = {name: getattr(self, name) for name in NUMBERS}
        columns = [own for own in given.values() if own is not None]
        widths = tuple([-1 if own is None else own.shape[1] for own in given.values()])
        return Packed(np.concatenate(columns, axis=1, dtype=np.float32), widths)

    def room(self, n_samples: int) -> Epilogue:
        """Return one of so many samples that has the same columns, which are not filled."""
        values, widths = self.packed()
        orientation = None if self.orientation is None else np.empty(n_samples, np.uint8)
        return _unpacked(np.empty((n_samples, values.shape[1]), np.float32), widths, orientation)

    def of_samples(self, samples: slice) -> Epilogue:
        """Return what happens to some of the samples."""
        values, widths = self.packed()
        orientation = None if self.orientation is None else self.orientation[samples]
        return _unpacked(values[samples], widths, orientation)

    def rows(self, index: NDArray[np.int64]) -> Epilogue:
        """Return what happens to some of the samples."""
        values, widths = self.packed()
        orientation = None if self.orientation is None else self.orientation.take(index)
        return _unpacked(values.take(index, axis=0), widths, orientation)

    def of_target(self) -> Epilogue:
        """Return what happens to targets, as if they were inputs."""
        found = replace(
            self,
            input_shift=self.target_shift,
            input_scale=self.target_scale,
            input_offset=self.target_offset,
        )
        return _unpacked(*found.packed(), self.orientation)  # once, and not for any rows of it


def _unpacked(
    values: NDArray[np.float32], widths: tuple[int, ...], orientation: NDArray[np.uint8] | None
) -> Epilogue:
    """Return an epilogue of these numbers, whose columns are views of them."""
    a, b, c, d, e, f = [None if part is None else values[:, part] for part in columns_of(widths)]
    found = Epilogue(a, b, c, d, orientation, e, f)  # type: ignore[arg-type]
    object.__setattr__(found, "_packed", Packed(values, widths))
    return found


@lru_cache(maxsize=64)
def columns_of(widths: tuple[int, ...]) -> tuple[slice | None, ...]:
    """Return where in a row of `Packed` the columns are, in the order of `NUMBERS`."""
    stops = list(accumulate(max(width, 0) for width in widths))
    return tuple(
        None if width < 0 else slice(stop - width, stop)
        for width, stop in zip(widths, stops, strict=True)
    )


def checked_normalization(normalization: Any) -> AnyNormalization:
    """Return `normalization` where it has what an epilogue takes."""
    parts = ("input", "target")
    if not all(
        hasattr(normalization, f"{part}_scale")
        and (hasattr(normalization, f"{part}_center") or hasattr(normalization, f"{part}_offset"))
        for part in parts
    ):
        is_path = isinstance(normalization, (str, os.PathLike))
        hint = ": Normalization.load reads a file" if is_path else ""
        raise TypeError(
            "normalization must have input_scale, input_center, target_scale and target_center, "
            f"as a Normalization has, found {shorten(normalization)}{hint}"
        )
    found: AnyNormalization = normalization
    return found


class _Part(NamedTuple):
    """What an epilogue does to input or target, (value − shift) · scale + offset."""

    shift: NDArray[np.float32] | None
    scale: NDArray[np.float32]
    offset: NDArray[np.float32]


class _Step(NamedTuple):
    """What a normalisation does, (value − center) · scale; without a center, + offset instead."""

    scale: NDArray[np.float32]
    center: NDArray[np.float64] | None
    offset: NDArray[np.float32]


class _Mixing(NamedTuple):
    """Weights (B, C) of channels, and their centers, (C,) or (1,), where they are known."""

    weights: NDArray[np.float32]
    centers: NDArray[np.float64] | None


def _step(normalization: AnyNormalization, part: str, n_channels: int) -> _Step | None:
    """Return what is done to "input" or "target", None for nothing."""
    scale, center, offset = (
        getattr(normalization, f"{part}_{name}", None) for name in ("scale", "center", "offset")
    )
    if n_channels == 0 or (part == "target" and scale is None and center is offset is None):
        return None

    def checked(name: str, values: Any, dtype: type[np.floating[Any]]) -> NDArray[Any]:
        found = np.asarray(values, dtype)
        if found.shape not in ((1,), (n_channels,)):
            wanted = "(1,)" if n_channels == 1 else f"(1,) or ({n_channels},)"
            raise ValueError(
                f"normalization.{part}_{name} must have the shape {wanted}, one number per channel "
                f"of the {part}, found {shorten(values)}"
            )
        return found

    factor = checked("scale", scale, np.float32)
    if center is None:
        return _Step(factor, None, checked("offset", offset, np.float32))
    return _Step(factor, checked("center", center, np.float64), np.zeros(1, np.float32))


def _followed(part: _Part, step: _Step | None, mixing: _Mixing | None = None) -> _Part:
    """Return what happens to a part with a step after it."""
    if step is None:
        return part
    scale = part.scale * step.scale
    if step.center is None:
        return _Part(part.shift, scale, part.offset * step.scale + step.offset)
    center = step.center - part.offset
    if mixing is None:
        shift = np.empty(scale.shape, np.float32)
        shift[:] = step.center
    else:
        shift = _shift_of_mixture(mixing, center)
    level = shift.astype(np.float64) if part.shift is None else shift - part.shift.astype(float)
    if mixing is not None:
        level = _sum(mixing.weights * level)
    # what the float32 shift leaves of the exact center, rounded once
    offset = np.empty(scale.shape, np.float32)
    offset[:] = (part.scale * level - center) * step.scale
    return _Part(shift, scale, offset)


def _shift_of_mixture(mixing: _Mixing, center: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return what to subtract from each channel, (B, C), so that Σ weight · shift is the center.

    All shifts of that sum give the same result but for rounding, which is least where they are
    near the channels' own values. So the channels' centers are taken where they are known, and
    what they lack is divided among the channels.
    """
    weights = mixing.weights
    known = np.zeros(1) if mixing.centers is None else mixing.centers
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        lack = (center - _sum(weights * known)) / _sum(np.abs(weights))
        shift = (known + np.sign(weights) * lack).astype(np.float32)
        # where all weights are 0, nothing can be divided among the channels
        is_finite = np.isfinite(shift)
        return shift if is_finite.all() else np.where(is_finite, shift, known.astype(np.float32))


def _sum(values: NDArray[Any]) -> NDArray[Any]:
    """Return the sum of all channels, (B, 1), in their order whatever the batch's size."""
    total = values[:, :1]
    for c in range(1, values.shape[1]):
        total = total + values[:, c : c + 1]
    return total


def turn(array: Any, orientation: int) -> Any:
    """Return a view of the last two axes, Y and X, in one of the square's symmetries.

    Parameters
    ----------
    array : array, shape (..., Y, X)
        Of any library whose slices are views.
    orientation : int
        k + 4 f in 0 … 7: flipped along Y where f is 1, and then turned by k quarters as
        `numpy.rot90` turns, from Y to X.

    Examples
    --------
    >>> turn(np.array([[1, 2], [3, 4]]), 4).tolist()
    [[3, 4], [1, 2]]
    >>> turn(np.array([[1, 2], [3, 4]]), 1).tolist()
    [[2, 4], [1, 3]]
    """
    quarters, flipped = orientation % 4, orientation >= 4
    along_y = -1 if flipped != (quarters >= 2) else 1
    along_x = -1 if quarters in (1, 2) else 1
    view = array[..., ::along_y, ::along_x]
    return view.swapaxes(-2, -1) if quarters % 2 else view


def turn_back(array: Any, orientation: int) -> Any:
    """Return the view that `turn` makes `array` of; what fills the view fills `array` turned."""
    # flips, also along diagonals, are their own inverse
    return turn(array, orientation if orientation >= 4 else -orientation % 4)


@lru_cache(maxsize=64)
def turned_places(height: int, width: int) -> NDArray[np.int64]:
    """Return where `turn` puts a pixel of a plane, for each orientation.

    Returns
    -------
    array of int64, shape (8, 3)
        First, step along Y, step along X: pixel (y, x) goes to first + y · step + x · step of the
        turned plane, which is C-contiguous.
    """
    quarters = [
        (0, width, 1),
        ((width - 1) * height, 1, -height),
        (height * width - 1, -width, -1),
        (height - 1, -1, height),
    ]
    flipped = [(first + (height - 1) * y, -y, x) for first, y, x in quarters]
    return np.array(quarters + flipped, np.int64)
