"""Random flips and quarter turns in XY."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gpu_patch.checks import choice, probability, shorten
from gpu_patch.draws import integers

N_UNIFORMS = 4
"""Numbers per sample: whether and along which axis to flip, whether and how far to turn."""


@dataclass(frozen=True)
class Augmentation:
    """Flips and quarter turns in XY, of input and target alike; each sample has its own.

    First a flip and then a turn, as careamics 0.3.5 does by default (`XYFlip`,
    `XYRandomRotate90`). Drawn by counter: a function of the constructor's seed, epoch and index
    alone.

    Parameters
    ----------
    flip : bool or {"x", "y"}, default True
        Axes to flip along, one at a time. True: X or Y, one as likely as the other.
    rotate : bool, default True
        Whether to turn, by 90°, 180° or 270°, all as likely. Patches must be square in XY.
    flip_p, rotate_p : float, default 0.5
        Probability that a sample is flipped, and that it is turned.

    Examples
    --------
    >>> Augmentation(flip="x", rotate=False)
    Augmentation(flip='x', rotate=False, flip_p=0.5, rotate_p=0.5)
    """

    flip: bool | str = True
    rotate: bool = True
    flip_p: float = 0.5
    rotate_p: float = 0.5

    def __post_init__(self) -> None:
        if not isinstance(self.flip, bool):
            if not isinstance(self.flip, str):
                raise TypeError(f"flip must be a bool, 'x' or 'y', found {shorten(self.flip)}")
            choice("flip", self.flip, ("x", "y"))
        if not isinstance(self.rotate, bool):
            raise TypeError(f"rotate must be a bool, found {shorten(self.rotate)}")
        probability("flip_p", self.flip_p)
        probability("rotate_p", self.rotate_p)

    def check_patch(self, patch_size: Sequence[int]) -> None:
        """Check that patches can be turned, where they are to be.

        Parameters
        ----------
        patch_size : sequence of int
            (Z)YX.

        Raises
        ------
        ValueError
            Where they may be turned by 90° and are not square in XY.
        """
        if self.rotate and self.rotate_p > 0 and patch_size[-2] != patch_size[-1]:
            raise ValueError(
                "augmentation turns patches by 90°, which must be square in XY, found the "
                f"patch_size {tuple(patch_size)}: use square patches, or Augmentation(rotate=False)"
            )

    def orientations(self, uniforms: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Return how samples are turned, as `epilogue.turn` counts.

        Parameters
        ----------
        uniforms : array, shape (4, B)
            Numbers in [0, 1).

        Returns
        -------
        array of uint8, shape (B,)
        """
        below = uniforms[:3] < self._limits
        found: NDArray[np.uint8] = self._outcomes[
            np.packbits(below, axis=0, bitorder="little")[0], integers(uniforms[3], 3)
        ]
        return found

    @cached_property
    def _limits(self) -> NDArray[np.float64]:
        """Below which numbers a sample is flipped, along Y, and turned."""
        along_y = 0.5 if self.flip is True else float(self.flip == "y")
        return np.array([[self.flip_p if self.flip else 0], [along_y], [self.rotate_p]])

    @cached_property
    def _outcomes(self) -> NDArray[np.uint8]:
        """Orientations by what is below its limit, as bits, and by the number of quarters."""
        outcomes = np.zeros((8, 3), np.uint8)
        for bits, quarters in np.ndindex(outcomes.shape):
            is_flipped, along_y, is_turned = bits & 1, bits >> 1 & 1, bits >> 2
            k = 1 + quarters if is_turned and self.rotate else 0
            # a flip along X is one along Y and half a turn
            half = 2 * (is_flipped and not along_y)
            outcomes[bits, quarters] = (k + half) % 4 + 4 * is_flipped
        return outcomes
