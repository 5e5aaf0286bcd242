"""Validation patches split off so that no pixel of theirs is trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpu_patch.checks import Message, argument, choice, index_in, shorten, whole_number
from gpu_patch.geometry import PADDING_MODES
from gpu_patch.locations import checked_shapes
from gpu_patch.patching.base import BatchPatching
from gpu_patch.patching.class_balanced import ClassBalancedPatching
from gpu_patch.patching.footprint import covered, paint
from gpu_patch.patching.protocol import Patching
from gpu_patch.patching.splitting import Splitting

LOST, TRAINED, VALIDATED = 0, 1, 2
"""Values of `Split.map`."""


class Parts(NamedTuple):
    """What becomes of the pixels of all samples.

    Attributes
    ----------
    trained, validated, lost : float
        Parts of them that training patches may lie on, that validation patches lie on, and that
        neither does. Their sum is 1.
    """

    trained: float
    validated: float
    lost: float


@dataclass(frozen=True, eq=False)
class Split:
    """A training and a validation strategy; unpacks as these two.

    Attributes
    ----------
    training, validation : Patching
        The strategies. Validation patches are the same in every epoch and run.
    shapes : sequence of tuple of int
        Of the image stacks, SC(Z)YX.
    """

    training: Patching
    validation: Patching
    shapes: Sequence[tuple[int, ...]]

    def __iter__(self) -> Iterator[Patching]:
        return iter((self.training, self.validation))

    def map(self, data_idx: int, sample_idx: int) -> NDArray[np.uint8]:
        """Return what becomes of the pixels of a sample.

        Parameters
        ----------
        data_idx, sample_idx : int
            Image stack and sample.

        Returns
        -------
        array of uint8, shape ((Z), Y, X)
            1 where training patches may lie, 2 where validation patches lie, 0 where neither does.

        Raises
        ------
        IndexError, TypeError
            There is no such sample.
        """
        image = index_in("data_idx", data_idx, len(self.shapes), "image stacks")
        sample = index_in("sample_idx", sample_idx, self.shapes[image][0], "samples")
        first = sum(shape[0] for shape in self.shapes[:image])
        cuts, painted = self._painted(first + sample)
        for axis, cut in enumerate(cuts):
            painted = painted.repeat(np.diff(cut), axis)
        return painted

    @cached_property
    def parts(self) -> Parts:
        """What part of the pixels is trained on, validated on, and lost."""
        pixels = np.zeros(3)
        for sample in range(sum(shape[0] for shape in self.shapes)):
            cuts, painted = self._painted(sample)
            volume = np.ones(())
            for cut in cuts:
                volume = np.multiply.outer(volume, np.diff(cut))
            pixels += np.bincount(painted.ravel(), volume.ravel(), 3)
        lost, trained, validated = pixels / pixels.sum()
        return Parts(float(trained), float(validated), float(lost))

    def _painted(self, sample: int) -> tuple[list[NDArray[np.int64]], NDArray[np.uint8]]:
        """Return a sample as boxes between cuts along each axis, and what becomes of each."""
        shape = [shape[2:] for shape in self.shapes for _ in range(shape[0])][sample]
        none = np.zeros((0, 2, len(shape)), np.int64)
        return paint(shape, [(boxes.get(sample, none), value) for boxes, value in self._covered])

    @cached_property
    def _covered(self) -> list[tuple[Mapping[int, NDArray[np.int64]], int]]:
        return [
            (covered(self.training, self.shapes), TRAINED),
            (covered(self.validation, self.shapes), VALIDATED),
        ]


def split_validation(
    patching: Patching,
    fraction_or_count: float | int,
    *,
    multiscale_count: int = 1,
    padding_mode: str = "reflect",
    data_shapes: Sequence[Sequence[int]] | None = None,
    strict: bool = True,
    seed: int,
) -> Split:
    """Split validation patches off a strategy, so that training never reads them.

    No pixel of the largest window of a validation patch is read by any training patch at any
    scale, also where windows are folded back at borders. Whole image stacks are held out first,
    then samples that follow each other in one, then a compact block where it costs least, which
    mostly is in a corner. Around a block a ring is lost to both sides. Either side can be split
    again, as into training, validation and test: what it lost stays lost.

    Parameters
    ----------
    patching : Patching
        A strategy of this package; it stays as it is. Of those that draw, `RandomPatching` and
        `StratifiedPatching`, training draws from what is left, with the same density, and
        validation patches lie side by side. Others list their places: both sides get some.
    fraction_or_count : float or int
        A float in (0, 1) is the part of the places to validate on, roughly where whole images come
        near it. A whole number is how many patches.
    multiscale_count : int, default 1
        Scales of the constructor that the strategies are for; 1 where there is no context.
    padding_mode : {"reflect", "wrap", "periodic"}, default "reflect"
        Of that constructor.
    data_shapes : sequence of sequence of int, optional
        SC(Z)YX; needed for `FixedPatching` alone, which does not know them.
    strict : bool, default True
        False asks for less: no pixel of a validation target is read by a training patch, but
        pixels of its surroundings may be. The ring is half as wide.
    seed : int
        Decides among places that cost the same.

    Returns
    -------
    Split
        Unpacks as (training strategy, validation strategy).

    Raises
    ------
    TypeError, ValueError
        An argument is wrong, or there is too little data; the message says what would fit.

    Examples
    --------
    >>> from gpu_patch.patching import RandomPatching
    >>> patching = RandomPatching([(1, 1, 1024, 1024)], (64, 64), seed=0)
    >>> split = split_validation(patching, 16, multiscale_count=2, seed=0)
    >>> training, validation = split
    >>> training.n_patches, validation.n_patches
    (228, 16)
    >>> [round(part, 3) for part in split.parts]  # trained, validated, lost
    [0.902, 0.062, 0.035]
    """
    n_scales = whole_number("multiscale_count", multiscale_count, minimum=1, maximum=16)
    choice("padding_mode", padding_mode, PADDING_MODES)
    rng = np.random.default_rng(whole_number("seed", seed, minimum=0, maximum=2**64 - 1))
    job = Splitting(_checked(patching), _shapes_of(patching, data_shapes), padding_mode)
    n_all = len(job.places.sample)
    n_wanted = _number_wanted(fraction_or_count, n_all)
    exact = not isinstance(fraction_or_count, float)
    state = rng.bit_generator.state
    found = job.attempt(n_wanted, n_scales, strict, exact, rng)
    if found is None:
        raise ValueError(_too_little(job, n_wanted, n_scales, strict, state))
    return Split(*found, job.shapes)


def _checked(patching: object) -> BatchPatching:
    if isinstance(patching, ClassBalancedPatching):
        raise TypeError(
            f"{argument('patching')} must not be a ClassBalancedPatching, whose places follow the "
            "labels: give it label images for training alone, and validation images of its own"
        )
    if not isinstance(patching, BatchPatching):
        raise TypeError(
            f"{argument('patching')} must be a strategy of gpu_patch, found "
            f"{shorten(patching)}: from somebody's own it cannot be known where patches may lie"
        )
    return patching


def _shapes_of(patching: Any, data_shapes: object) -> list[tuple[int, ...]]:
    own = getattr(patching, "data_shapes", None)
    if own is None and data_shapes is None:
        raise ValueError(
            f"{argument('data_shapes')} must be given for a {type(patching).__name__}, which does "
            "not know the images: SC(Z)YX of each"
        )
    return checked_shapes(data_shapes if own is None else own)


def _number_wanted(wanted: object, n_all: int) -> int:
    if isinstance(wanted, float) and 0 < wanted < 1:
        return max(1, round(wanted * n_all))
    if isinstance(wanted, float):
        raise ValueError(
            f"{argument('fraction_or_count')} must be a fraction between 0 and 1, or a whole "
            f"number of patches, found {wanted}"
        )
    return whole_number("fraction_or_count", wanted, minimum=1)


def _too_little(
    job: Splitting, n_wanted: int, n_scales: int, strict: bool, state: Mapping[str, Any]
) -> Message:
    """Say what does not fit, and what would."""

    def fits(n: int, scales: int, strictly: bool) -> bool:
        rng = np.random.default_rng()
        rng.bit_generator.state = dict(state)
        return job.attempt(n, scales, strictly, True, rng) is not None

    n_all = len(job.places.sample)
    size = tuple(job.places.sizes.max(axis=0).tolist())
    window = tuple(s << (n_scales - 1) for s in size)
    low, high = 0, min(n_wanted, n_all)
    while high - low > 1:  # the largest number that does fit
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle, n_scales, strict) else (low, middle)
    advice: list[str] = [f"at most {low}"] if low else []
    if strict and n_scales > 1 and fits(n_wanted, n_scales, False):
        advice.append(argument("strict", False))
    fewer = next((s for s in range(n_scales - 1, 0, -1) if fits(n_wanted, s, strict)), None)
    if fewer:
        advice.append(argument("multiscale_count", fewer))
    advice.append("images of their own for validation")
    return Message(
        argument("fraction_or_count"),
        f" asks for {n_wanted} validation patches of {size}, of {n_all} places, with windows of "
        f"{window}: nothing would be left to train on. What would fit: ",
        Message.joined(", or ", advice),
    )
