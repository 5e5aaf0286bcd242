"""Patches centred on pixels of chosen classes, each with a share of all patches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch.checks import Message, argument, index_in, mapping, sequence, shorten
from gpu_patch.draws import integers
from gpu_patch.locations import Locations
from gpu_patch.patching.base import (
    SampledPatching,
    checked_patch_size,
    tiles_of,
    warn_of_small_images,
)
from gpu_patch.patching.class_index import IndexBuilder, PixelIndex, pixels_of
from gpu_patch.patching.random import checked_generator
from gpu_patch.specs import PatchSpecs

FOREGROUND = "foreground"
"""The class of all labels above 0."""

_ROUNDING = 1e-9


class ClassBalancedPatching(SampledPatching):
    """Random patches, of which given shares are centred on pixels of given classes.

    For segmentation, where classes that cover little would hardly be seen. A third of nnU-Net's
    patches is centred on foreground (Isensee et al. 2021); TorchIO's `LabelSampler` and MONAI's
    `RandCropByPosNegLabel` take shares likewise. Here each pixel of a class is as likely as any
    other of that class, in whichever image it is; what the shares leave of 1 are patches at
    uniformly random places. An epoch has as many patches as with `RandomPatching`.

    The pixel is the patch's middle, ``coords + patch_size // 2``. Where the patch would leave the
    image it is moved inside, so that the pixel is in it, but not in its middle; along an axis
    shorter than the patch it starts at 0.

    Places of patches are lined up sample by sample and class by class, and the line is cut into
    pieces of one patch each: index i is drawn from piece i. So an epoch meets the shares more
    nearly than independent draws would, and indices of one image follow each other; those at its
    ends may be its neighbour's in another epoch.

    What is kept of the labels is an index: runs of pixels of a class in about two bytes each, or,
    where these would take more, a bit for each pixel. For objects that is some hundredths of the
    label image; for noise, a seventh of a byte per pixel and class.

    Parameters
    ----------
    labels : PatchExtractor, or sequence of ImageStack or of arrays SC(Z)YX
        Label images of the samples that patches are for, of integers or bool; `open_images` with
        `labels=True` keeps those of 32 and 64 bits. Looked at once, each pixel.
    patch_size : sequence of int
        Pixels, (Z)YX.
    weights : mapping of int or "foreground" to float
        Share of each class among all patches, above 0, with a sum of at most 1. "foreground" are
        all labels above 0.
    seed : int or None, default None
        Seed of the places that `get_patch_spec` draws. Batches draw by counter instead, from the
        constructor's seed.
    channel : int, default 0
        Of the labels.

    Attributes
    ----------
    n_pixels : dict of int or str to int
        Of each class, in all images.
    index_nbytes : int
        Memory that the index takes.

    Raises
    ------
    TypeError, ValueError
        An argument is wrong, or no image has a pixel of a class; the message names them.

    Examples
    --------
    >>> labels = np.zeros((1, 1, 200, 300), np.uint8)
    >>> labels[0, 0, 50:60, 100:130] = 7
    >>> strategy = ClassBalancedPatching([labels], (32, 32), {7: 0.5, "foreground": 0.1}, seed=0)
    >>> strategy.n_patches, strategy.n_pixels
    (70, {7: 300, 'foreground': 300})
    >>> y, x = np.array([strategy.get_patch_spec(i)["coords"] for i in range(70)]).T + 16
    >>> int((labels[0, 0, y, x] == 7).sum())
    42
    """

    def __init__(
        self,
        labels: Any,
        patch_size: Sequence[int],
        weights: Mapping[int | str, float],
        seed: int | None = None,
        *,
        channel: int = 0,
    ) -> None:
        images, shapes = _checked_labels(labels)
        super().__init__(shapes)
        self.patch_size = checked_patch_size(patch_size, self.data_shapes)
        warn_of_small_images(self, self.patch_size, stacklevel=3)
        self.weights = _checked_weights(weights)
        self.channel = index_in("channel", channel, self.data_shapes[0][1], "channels")
        self.seed, self.rng = seed, checked_generator(seed)
        self.n_uniforms = 1 + len(self.patch_size)
        self._last_start: NDArray[np.int64] = np.maximum(self._sample_shape - self.patch_size, 0)
        sizes = self._sample_shape.prod(axis=1)
        self._first_pixel = np.cumsum(sizes) - sizes
        self._indices, self._n_pixels = self._look_at(images)
        totals = self._n_pixels.sum(axis=0).tolist()
        self.n_pixels = dict(zip(self.weights, totals, strict=True))
        self._check_present()
        self._first_rank = self._n_pixels.cumsum(axis=0) - self._n_pixels
        self._line_up()

    @property
    def index_nbytes(self) -> int:
        """Memory that the index takes, in bytes."""
        return sum(column.nbytes for index in self._indices for column in index.columns)

    def _look_at(self, images: Sequence[Any]) -> tuple[list[PixelIndex], NDArray[np.int64]]:
        """Return the index of each class, and its pixels in each sample, (samples, classes)."""
        builders = {name: IndexBuilder() for name in self.weights}
        counts = np.zeros((len(self._sample_image), len(builders)), np.int64)
        places = zip(self._sample_image.tolist(), self._sample_idx.tolist(), strict=True)
        for i, (image, sample) in enumerate(places):
            for values in pixels_of(images[image], sample, self.channel):
                for c, (name, builder) in enumerate(builders.items()):
                    counts[i, c] += builder.add(_mask(values, name))
        return [builder.finish() for builder in builders.values()], counts

    def _check_present(self) -> None:
        absent = [repr(name) for name, n in self.n_pixels.items() if not n]
        if absent:
            raise ValueError(
                Message(
                    argument("weights"),
                    f" has shares of {' and '.join(absent)}, of which no image has a pixel: leave "
                    + ("them" if len(absent) > 1 else "it")
                    + " out, or give images that have some",
                )
            )

    def _line_up(self) -> None:
        """Cut the line of places into stretches, of one sample and class each."""
        full = (-(-self._sample_shape // self.patch_size)).prod(axis=1)
        n_patches = int(full.sum())
        shares = np.array(list(self.weights.values()))
        rest = max(0.0, 1.0 - float(shares.sum()))
        masses = n_patches * shares * self._n_pixels / self._n_pixels.sum(axis=0)
        anywhere = full * (rest if rest > _ROUNDING else 0.0)
        lengths = np.column_stack([masses, anywhere]).ravel()
        kept = np.flatnonzero(lengths)
        stops = lengths[kept].cumsum()
        self._stops = stops * (n_patches / stops[-1])
        self._stretch_sample, self._stretch_class = np.divmod(kept, len(shares) + 1)
        middle = self._stretch_sample[self._stretch_at(np.arange(n_patches) + 0.5)]
        self._set_counts(np.bincount(middle, minlength=len(full)))

    def _stretch_at(self, at: NDArray[Any]) -> NDArray[np.int64]:
        # index + u may round up to the line's very end
        found: NDArray[np.int64] = self._stops.searchsorted(at, "right")
        return np.minimum(found, len(self._stops) - 1)

    def get_patch_spec(self, index: int) -> PatchSpecs:
        checked = index_in("index", index, self.n_patches, "patches")
        return self.locate(np.array([checked]), self.rng.random((self.n_uniforms, 1))).spec(0)

    def locate(self, index: NDArray[np.int64], uniforms: NDArray[np.float64]) -> Locations:
        stretch = self._stretch_at(index + uniforms[0])
        sample, kind = self._stretch_sample[stretch], self._stretch_class[stretch]
        coords = integers(uniforms[1:].T, self._last_start[sample] + 1)
        for c, found in enumerate(self._indices):
            own = np.flatnonzero(kind == c)
            where = sample[own]
            rank = integers(uniforms[1, own], self._n_pixels[where, c]) + self._first_rank[where, c]
            centre = self._coords_of(found.pixels(rank) - self._first_pixel[where], where)
            start = centre - np.array(self.patch_size) // 2
            coords[own] = np.clip(start, 0, self._last_start[where])
        return Locations(
            self._sample_image[sample], self._sample_idx[sample], coords, self.patch_size
        )

    def _coords_of(self, pixel: NDArray[np.int64], sample: NDArray[np.intp]) -> NDArray[np.int64]:
        """Return the place of pixels, counted within their samples, (n, D)."""
        coords = np.empty((len(pixel), len(self.patch_size)), np.int64)
        for axis in reversed(range(1, len(self.patch_size))):
            pixel, coords[:, axis] = np.divmod(pixel, self._sample_shape[sample, axis])
        coords[:, 0] = pixel
        return coords

    def sites(self) -> NDArray[np.int64]:
        sample = self._sample_of(np.arange(self.n_patches))
        middle = self._last_start[sample] // 2
        return np.column_stack([self._sample_image[sample], self._sample_idx[sample], middle])

    def reach(self) -> Iterator[Locations]:
        return tiles_of(self, self.patch_size)

    def content(self) -> Iterator[NDArray[Any]]:
        yield from super().content()
        yield np.frombuffer(repr(self.weights).encode(), np.uint8)
        for index in self._indices:
            yield from index.columns


def _checked_labels(labels: Any) -> tuple[list[Any], Any]:
    """Return the label images, SC(Z)YX, and their shapes."""
    wanted = "a PatchExtractor, ImageStacks or arrays SC(Z)YX"
    stacks = getattr(labels, "image_stacks", labels)
    if hasattr(stacks, "dtype"):
        raise TypeError(Message(argument("labels"), f" must be {wanted}: put the array in a list"))
    listed = sequence("labels", stacks, wanted)
    # an array has a `data` of its own
    images = [stack.data if hasattr(stack, "data_shape") else stack for stack in listed]
    for i, image in enumerate(images):
        if not hasattr(image, "dtype") or not hasattr(image, "shape"):
            raise TypeError(f"labels must be {wanted}, found {shorten(image)} in labels[{i}]")
        if image.dtype.kind not in "biu":
            raise TypeError(
                Message(
                    argument(f"labels[{i}]"),
                    f" must be of integers or bool, found {image.dtype}: open files with ",
                    argument("labels", True),
                )
            )
        if len(image.shape) not in (4, 5):
            raise ValueError(f"labels[{i}] must be SCYX or SCZYX, found the shape {image.shape}")
        if image.shape[1] != images[0].shape[1]:
            raise ValueError(
                f"labels must have one number of channels, found {images[0].shape} and "
                f"{image.shape}, SC(Z)YX"
            )
    return images, getattr(labels, "shapes", [tuple(image.shape) for image in images])


def _checked_weights(weights: object) -> dict[int | str, float]:
    """Return the share of each class."""
    found: dict[int | str, float] = {}
    for name, share in mapping("weights", weights).items():
        if name != FOREGROUND and (
            isinstance(name, (bool, np.bool_)) or not isinstance(name, (int, np.integer))
        ):
            raise TypeError(
                Message(
                    argument("weights"),
                    f" must be of classes, whole numbers or 'foreground', found {shorten(name)}",
                )
            )
        if isinstance(share, (bool, np.bool_)) or not isinstance(share, Real):
            raise TypeError(f"weights[{name!r}] must be a number, found {shorten(share)}")
        if not 0 < float(share) <= 1 + _ROUNDING:
            raise ValueError(f"weights[{name!r}] must be above 0 and at most 1, found {share}")
        found[name if isinstance(name, str) else int(name)] = float(share)
    total = sum(found.values())
    if not found or total > 1 + _ROUNDING:
        raise ValueError(
            Message(
                argument("weights"),
                " must be shares of all patches, of one class at least and with a sum of at most "
                f"1, found {shorten(weights)}" + (f" with the sum {total:g}" if found else ""),
            )
        )
    # in whichever order they were given
    return dict(sorted(found.items(), key=lambda item: (isinstance(item[0], str), item[0])))


def _mask(values: NDArray[Any], name: int | str) -> NDArray[np.bool_]:
    """Return which labels are of a class."""
    if values.dtype == bool:
        values = values.view(np.uint8)
    if isinstance(name, str):
        return np.asarray(values > 0)
    limits = np.iinfo(values.dtype)
    if not limits.min <= name <= limits.max:
        return np.zeros(len(values), bool)
    return np.asarray(values == values.dtype.type(name))
