"""What the strategies of this package share: samples, grids, and planning a batch at a time."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch.checks import Message, argument, index_in, whole_numbers
from gpu_patch.locations import LARGEST_PIXEL, Locations, checked_shapes
from gpu_patch.patching.protocol import Patching
from gpu_patch.specs import PatchSpecs


class BatchPatching(Patching):
    """A strategy that can place a whole batch at once."""

    n_uniforms: int = 0
    """Random numbers that placing one patch of a batch takes."""
    starts_inside: bool = False
    """Whether first pixels always lie in the images that the strategy was made for."""
    version: int = 0
    """Counts how often it was changed in place: what `locate` said before holds no more then."""

    @property
    @abstractmethod
    def n_images(self) -> int:
        """Number of image stacks that patches may be from."""
        raise NotImplementedError

    @abstractmethod
    def check(self, name: str, shapes: Sequence[Sequence[int]], n_scales: int) -> None:
        """Check that patches lie in the images that they are to be cut from.

        Parameters
        ----------
        name : str
            What messages call the strategy.
        shapes : sequence of sequence of int
            SC(Z)YX; channels make no difference.
        n_scales : int
            Scales of the lateral context, 0 for plain patches.

        Raises
        ------
        ValueError
            The images are others.
        """
        raise NotImplementedError

    @abstractmethod
    def content(self) -> Iterator[NDArray[Any]]:
        """Tell what decides, beside sizes and seed, where patches lie or may lie.

        Yields
        ------
        array
            In one order; equal arrays mean equal places.
        """
        raise NotImplementedError

    @property
    def patch_sizes(self) -> Sequence[Sequence[int]]:
        """Sizes that patches may have, (Z)YX; none where samples have sizes of their own."""
        size = getattr(self, "patch_size", None)
        return [] if size is None else [size]

    def reach(self) -> Iterator[Locations]:
        """Tile all that patches may come to lie on, whatever is drawn.

        Yields
        ------
        Locations
            Of a sample each; none where nothing is drawn.
        """
        return iter(())

    @abstractmethod
    def locate(self, index: NDArray[np.int64], uniforms: NDArray[np.float64]) -> Locations:
        """Place patches.

        Parameters
        ----------
        index : array of int64, shape (n,)
            Patch indices, already checked to be in 0 … n_patches − 1.
        uniforms : array of float64, shape (n_uniforms, n)
            Numbers in [0, 1).

        Returns
        -------
        Locations
            One place per index.
        """
        raise NotImplementedError

    def sites(self) -> NDArray[np.int64]:
        """Tell roughly where every patch lies, without drawing.

        Returns
        -------
        array of int64, shape (n_patches, 2 + D)
            Image, sample, and the middle of the places of its first pixel that can be drawn.
        """
        index = np.arange(self.n_patches)
        first = self.locate(index, np.zeros((self.n_uniforms, len(index))))
        largest = np.full((self.n_uniforms, len(index)), np.nextafter(1, 0))
        middle = (first.coords + self.locate(index, largest).coords) // 2
        return np.column_stack([first.data_idx, first.sample_idx, middle])

    def get_patch_spec(self, index: int) -> PatchSpecs:
        checked = index_in("index", index, self.n_patches, "patches")
        return self.locate(np.array([checked]), np.empty((0, 1))).spec(0)


class SampledPatching(BatchPatching):
    """A strategy with a known number of patches in each sample of each image stack.

    Patch indices go through the samples in order.

    Parameters
    ----------
    data_shapes : sequence of sequence of int
        SC(Z)YX.
    """

    def __init__(self, data_shapes: Sequence[Sequence[int]]) -> None:
        shapes = checked_shapes(data_shapes)
        self.data_shapes: Sequence[tuple[int, ...]] = shapes
        # which images they are, where the shapes are those of a `PatchExtractor`
        self.origins: Sequence[Any] | None = getattr(data_shapes, "origins", None)
        counts = [shape[0] for shape in shapes]
        self._sample_image = np.repeat(np.arange(len(shapes)), counts)
        self._sample_idx = np.concatenate([np.arange(count) for count in counts])
        self._sample_shape = np.repeat(np.array([shape[2:] for shape in shapes]), counts, axis=0)

    starts_inside = True

    @property
    def n_images(self) -> int:
        return len(self.data_shapes)

    def check(self, name: str, shapes: Sequence[Sequence[int]], n_scales: int) -> None:
        if self.n_images > len(shapes):
            raise ValueError(
                f"{name} was made for {self.n_images} image stacks, the extractor has {len(shapes)}"
            )
        for i, (made_for, found) in enumerate(zip(self.data_shapes, shapes, strict=False)):
            if (made_for[0], *made_for[2:]) != (found[0], *found[2:]):
                raise ValueError(
                    f"{name} was made for data_shapes[{i}] = {made_for}, but image stack {i} "
                    f"of the extractor has the shape {found}"
                )

    def content(self) -> Iterator[NDArray[Any]]:
        # channels make no difference
        yield np.array([(shape[0], *shape[2:]) for shape in self.data_shapes], np.int64)

    def _set_counts(self, per_sample: NDArray[np.int64]) -> None:
        self._ends = np.cumsum(per_sample)
        self._starts = self._ends - per_sample

    @property
    def n_patches(self) -> int:
        return int(self._ends[-1])

    def get_patch_indices(self, data_idx: int) -> Sequence[int]:
        image = index_in("data_idx", data_idx, len(self.data_shapes), "image stacks")
        samples = np.flatnonzero(self._sample_image == image)
        return list(range(int(self._starts[samples[0]]), int(self._ends[samples[-1]])))

    def _sample_of(self, index: NDArray[np.int64]) -> NDArray[np.intp]:
        """Position of each patch's sample in the list of all samples of all image stacks."""
        return self._ends.searchsorted(index, "right")


def checked_patch_size(patch_size: object, data_shapes: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Return `patch_size` as positive ints, one per spatial axis of the data."""
    return whole_numbers(
        "patch_size", patch_size, minimum=1, maximum=LARGEST_PIXEL, length=len(data_shapes[0]) - 2
    )


def tiles_of(strategy: SampledPatching, patch_size: tuple[int, ...]) -> Iterator[Locations]:
    """Tile every sample, see `BatchPatching.reach`."""
    size = np.array(patch_size)
    for image, sample, shape in zip(
        strategy._sample_image, strategy._sample_idx, strategy._sample_shape, strict=True
    ):
        corners = np.argwhere(np.ones(-(-shape // size), bool)) * size
        n = len(corners)
        yield Locations(np.full(n, image), np.full(n, sample), corners, patch_size)


def warn_of_small_images(
    strategy: SampledPatching, patch_size: tuple[int, ...], *, stacklevel: int
) -> None:
    """Warn where patches are larger than an image."""
    small = [
        i
        for i, shape in enumerate(strategy.data_shapes)
        if any(n < patch for n, patch in zip(shape[2:], patch_size, strict=True))
    ]
    if not small:
        return
    label = strategy.origins[small[0]].label if strategy.origins else f"data_shapes[{small[0]}]"
    more = f" and {len(small) - 1} more" * (len(small) > 1)
    warnings.warn(
        f"patch_size is {patch_size}, larger than {label} with "
        f"{tuple(strategy.data_shapes[small[0]][2:])}{more}: what a patch has beyond an image is "
        "zero, or with context what the padding says. Give smaller patches, or leave the image out",
        stacklevel=stacklevel,
    )


def checked_overlaps(
    overlaps: object, patch_size: tuple[int, ...], name: str = "patch_size"
) -> tuple[int, ...]:
    """Return `overlaps` as ints, each at least 0 and smaller than the patch, which is `name`d."""
    checked = whole_numbers("overlaps", overlaps, minimum=0, length=len(patch_size))
    for axis, (overlap, patch) in enumerate(zip(checked, patch_size, strict=True)):
        if overlap >= patch:
            raise ValueError(
                Message(
                    argument(f"overlaps[{axis}]"),
                    " must be smaller than ",
                    argument(f"{name}[{axis}]"),
                    f" = {patch}, found {overlap}",
                )
            )
    return checked


def checked_stride(
    stride: object, patch_size: tuple[int, ...], overlaps: tuple[int, ...], name: str = "patch_size"
) -> tuple[int, ...]:
    """Return `stride` as ints, each from 1 to what tiles keep: the patch less the overlap."""
    checked = whole_numbers("stride", stride, minimum=1, length=len(patch_size))
    for axis, (step, p, o) in enumerate(zip(checked, patch_size, overlaps, strict=True)):
        if step > p - o:
            raise ValueError(
                Message(
                    argument(f"stride[{axis}]"),
                    " must be at most ",
                    argument(f"{name}[{axis}]"),
                    " − ",
                    argument(f"overlaps[{axis}]"),
                    f" = {p - o}, else pixels get no tile; found {step}",
                )
            )
    return checked
