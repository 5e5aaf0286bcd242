"""What happens to a batch's values on their way out: an affine map, then a turn or flip in XY."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gpu_patch.errors import shorten


class AffineNormalization(Protocol):
    """What `construct_batch` asks of a normalisation: a value becomes value · scale + offset.

    Scale and offset have the shape (1,), or (C,) with a number per channel. All scales of a
    lateral context are one channel of the input.
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


@dataclass(frozen=True, slots=True)
class Epilogue:
    """Per sample of a batch: value · scale + offset in float32, then a turn or flip.

    Product and sum are rounded one by one, and the scale of mixtures is in their weights
    (`fold_scale`), so copies and the native scale are the same to the last bit in all backends.

    Attributes
    ----------
    input_scale, input_offset : array of float32, shape (B, C)
        Of the input's channels. A lateral context has one: the mixture, at every scale.
    target_scale, target_offset : array of float32, shape (B, C)
        Of the target's channels, however many there are.
    orientation : array of uint8, shape (B,), or None
        See `turn`; None is all 0.
    """

    input_scale: NDArray[np.float32]
    input_offset: NDArray[np.float32]
    target_scale: NDArray[np.float32]
    target_offset: NDArray[np.float32]
    orientation: NDArray[np.uint8] | None = None

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

    def normalized(self, normalization: AffineNormalization) -> Epilogue:
        """Return this followed by a normalisation."""
        pairs = [
            _followed(self, normalization, "input"),
            _followed(self, normalization, "target"),
        ]
        return Epilogue(*pairs[0], *pairs[1], self.orientation)

    def turned(self, orientation: NDArray[np.uint8]) -> Epilogue:
        """Return this with another orientation."""
        return replace(self, orientation=orientation)

    def of_target(self) -> Epilogue:
        """Return what happens to targets, as if they were inputs."""
        return replace(self, input_scale=self.target_scale, input_offset=self.target_offset)

    def fold_scale(self, weights: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return mixing weights (B, C) that hold the input's scale too.

        Every backend mixes with these and then adds the offset, so that the native scale is the
        same to the last bit in all of them.
        """
        return np.asarray(weights * self.input_scale, np.float32)


def checked_normalization(normalization: Any) -> AffineNormalization:
    """Return `normalization` where it has what an epilogue takes."""
    parts = [f"{part}_{what}" for part in ("input", "target") for what in ("scale", "offset")]
    if not all(hasattr(normalization, part) for part in parts):
        is_path = isinstance(normalization, (str, os.PathLike))
        hint = ": Normalization.load reads a file" if is_path else ""
        raise TypeError(
            f"normalization must have {', '.join(parts[:3])} and {parts[3]}, as a Normalization "
            f"has, found {shorten(normalization)}{hint}"
        )
    found: AffineNormalization = normalization
    return found


def _followed(
    epilogue: Epilogue, normalization: AffineNormalization, part: str
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return scale and offset of "input" or "target", followed by those of a normalisation."""
    scale = getattr(epilogue, f"{part}_scale")
    offset = getattr(epilogue, f"{part}_offset")
    n_channels = scale.shape[1]
    checked_normalization(normalization)
    then = getattr(normalization, f"{part}_scale"), getattr(normalization, f"{part}_offset")
    if n_channels == 0 or (part == "target" and then[0] is None and then[1] is None):
        return scale, offset
    factors = []
    for name, values in zip(("scale", "offset"), then, strict=True):
        factor = np.asarray(values, np.float32)
        if factor.shape not in ((1,), (n_channels,)):
            wanted = "(1,)" if n_channels == 1 else f"(1,) or ({n_channels},)"
            raise ValueError(
                f"normalization.{part}_{name} must have the shape {wanted}, one number per channel "
                f"of the {part}, found {shorten(values)}"
            )
        factors.append(factor)
    return scale * factors[0], offset * factors[0] + factors[1]


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
