"""Patches from several image stacks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import GenericAlias
from typing import Any, ClassVar

from numpy.typing import NDArray

from gpu_patch.checks import index_in, sequence, shorten
from gpu_patch.chunks import ChunkedImage
from gpu_patch.images.agreement import check_agreement
from gpu_patch.images.names import ImageShapes, Origin
from gpu_patch.images.stack import ImageStack
from gpu_patch.images.values import ValueCounts
from gpu_patch.ops import ImageSet
from gpu_patch.pages import PageCache


class PatchExtractor:
    """Image stacks of one number of channels and axes, of any sizes.

    Parameters
    ----------
    image_stacks : sequence of ImageStack
        At least one; all 2D or all 3D, with as many channels each, on one device.

    Attributes
    ----------
    image_stacks : list of ImageStack
        As given.
    images : gpu_patch.ops.Images
        Their pixels, as operations take them.
    device : str
        Where the images live.
    origins : list of Origin
        Where each image is from. Constructors pair inputs and targets by the names of their
        files where `open_images` found these in a folder or by a pattern, else by position.
    value_counts : list of ValueCounts
        What `open_images` with `check_values` found in each image; empty without.

    Raises
    ------
    TypeError, ValueError
        There is none, one is no `ImageStack`, or they differ in channels, axes or device.
    """

    # as careamics' can be written, whose stacks are of many kinds
    __class_getitem__: ClassVar[Any] = classmethod(GenericAlias)

    def __init__(self, image_stacks: Sequence[ImageStack]) -> None:
        self.image_stacks: list[ImageStack] = list(
            sequence("image_stacks", image_stacks, "ImageStack")
        )
        if not self.image_stacks:
            raise ValueError("image_stacks is empty: at least one ImageStack is needed")
        for i, stack in enumerate(self.image_stacks):
            if not isinstance(stack, ImageStack):
                raise TypeError(
                    f"image_stacks[{i}] must be a gpu_patch.ImageStack, found {shorten(stack)}"
                )
        self.origins = [
            Origin(i, str(source) if isinstance(source, Path) else "", str(source))
            for i, source in enumerate(stack.source for stack in self.image_stacks)
        ]
        self.value_counts: list[ValueCounts] = []
        first = self.image_stacks[0]
        check_agreement([stack.source for stack in self.image_stacks], self.shapes)
        for i, stack in enumerate(self.image_stacks):
            if stack.device != first.device:
                raise ValueError(
                    f"image_stacks must agree in device: image_stacks[0] has {first.device}, "
                    f"image_stacks[{i}] has {stack.device}"
                )
            if stack.is_labels != first.is_labels:
                raise ValueError(
                    f"image_stacks must all be labels or none, but image_stacks[0] is "
                    f"{'labels' if first.is_labels else 'none'} and image_stacks[{i}] is not"
                )
        self.device = first.device
        self.images = ImageSet(
            [stack.data for stack in self.image_stacks],
            names=[str(stack.source) for stack in self.image_stacks],
        )

    def __repr__(self) -> str:
        return f"PatchExtractor({self.image_stacks!r})"

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Shape SC(Z)YX of each image stack; a strategy made of them knows whose they are."""
        return ImageShapes([stack.data_shape for stack in self.image_stacks], self.origins)

    @property
    def cache(self) -> PageCache | None:
        """Where pages of images are kept that are not resident; None where all are.

        Its `traffic` tells hits, misses, bytes moved and waits.
        """
        data = self.image_stacks[0].data
        return data.cache if isinstance(data, ChunkedImage) else None

    @property
    def n_channels(self) -> int:
        """Number of channels of every image stack."""
        return self.image_stacks[0].data_shape[1]

    @property
    def is_labels(self) -> bool:
        """Whether the images are labels, whose integers stay what they are."""
        return self.image_stacks[0].is_labels

    @property
    def n_spatial_dims(self) -> int:
        """Number of spatial axes: 2 for YX, 3 for ZYX."""
        return len(self.image_stacks[0].data_shape) - 2

    def extract_patch(
        self, data_idx: int, sample_idx: int, coords: Sequence[int], patch_size: Sequence[int]
    ) -> NDArray[Any]:
        """Cut a patch of all channels out; zero where it leaves the image.

        Parameters
        ----------
        data_idx, sample_idx : int
            Image stack and sample.
        coords, patch_size : sequence of int
            First pixel and size, (Z)YX.

        Returns
        -------
        array
            C(Z)YX, float32; of labels their own type.

        Raises
        ------
        IndexError, TypeError, ValueError
            An argument is wrong; the message names it.
        """
        return self.extract_channel_patch(data_idx, sample_idx, None, coords, patch_size)

    def extract_channel_patch(
        self,
        data_idx: int,
        sample_idx: int,
        channels: Sequence[int] | None,
        coords: Sequence[int],
        patch_size: Sequence[int],
    ) -> NDArray[Any]:
        """Cut a patch of some channels out; zero where it leaves the image.

        Parameters
        ----------
        data_idx, sample_idx : int
            Image stack and sample.
        channels : sequence of int or None
            Channels, in the order wanted; None is all.
        coords, patch_size : sequence of int
            First pixel and size, (Z)YX.

        Returns
        -------
        array
            C(Z)YX, float32; of labels their own type.

        Raises
        ------
        IndexError, TypeError, ValueError
            An argument is wrong; the message names it.
        """
        image = index_in("data_idx", data_idx, len(self.image_stacks), "image stacks")
        return self.image_stacks[image].extract_patch(sample_idx, channels, coords, patch_size)
