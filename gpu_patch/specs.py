"""What says where a patch comes from: plain dicts, so that any collate function takes them.

Names and keys follow careamics 0.3.5 (`careamics.dataset.patching.patch_specs` and
`careamics.dataset.patch_constructor.metadata_utils`). Values are Python ints, tuples and lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypedDict


class PatchSpecs(TypedDict):
    """Where one patch lies.

    Attributes
    ----------
    data_idx : int
        Index of the image stack.
    sample_idx : int
        Index of the sample within that stack.
    coords : sequence of int
        First pixel of the patch, (Z)YX.
    patch_size : sequence of int
        Size of the patch in pixels, (Z)YX.
    """

    data_idx: int
    sample_idx: int
    coords: Sequence[int]
    patch_size: Sequence[int]


class TileSpecs(PatchSpecs):
    """A patch of a tiling, with what stitching needs.

    Attributes
    ----------
    crop_coords : sequence of int
        First pixel of the tile that is kept, relative to the tile.
    crop_size : sequence of int
        Number of pixels kept per axis.
    stitch_coords : sequence of int
        Where the kept part goes in the image.
    total_tiles : int
        Number of tiles of the whole image stack, all samples counted.
    """

    crop_coords: Sequence[int]
    crop_size: Sequence[int]
    stitch_coords: Sequence[int]
    total_tiles: int


class UncorrelatedPatchSpecs(PatchSpecs):
    """A patch whose channels come from different places.

    The keys of `PatchSpecs` describe the principal channel.

    Attributes
    ----------
    principal_channel : int
        The channel that the plain keys describe.
    all_data_idx, all_sample_idx : sequence of int
        Image stack and sample of each channel.
    all_coords : sequence of sequence of int
        First pixel of each channel's patch, (Z)YX.
    """

    principal_channel: int
    all_data_idx: Sequence[int]
    all_sample_idx: Sequence[int]
    all_coords: Sequence[Sequence[int]]


class ImageMetadata(TypedDict):
    """Where an image comes from and how it looked there.

    Attributes
    ----------
    source : str
        Path of the file, or ``"array"``.
    dtype : str
        Data type of the image as it was given.
    data_shape : sequence of int
        Shape of the stack, SC(Z)YX.
    original_data_shape : sequence of int
        Shape before the axes were brought into that order.
    additional_metadata : dict
        For uncorrelated patches: `all_sources`, `all_data_shapes` and
        `all_original_data_shapes`, one entry per channel.
    """

    source: str
    dtype: str
    data_shape: Sequence[int]
    original_data_shape: Sequence[int]
    additional_metadata: dict[str, Any]


class PatchBatch(NamedTuple):
    """A batch of patches.

    Attributes
    ----------
    input : array
        (B, L, (Z), Y, X) for the MicroSplit constructors, L being the scales from the native one
        outwards; (B, C, (Z), Y, X) for `BasicPatchConstr`. float32, or float16 where asked for.
    target : array or None
        (B, C, (Z), Y, X), or None where there are no targets.
    specs : sequence of PatchSpecs
        One dict per patch, made when it is looked at.
    """

    input: Any
    target: Any
    specs: Sequence[PatchSpecs]
