"""`SwitiPatching`: tiles at every multiple of a stride, so that many of them cover each pixel."""

from __future__ import annotations

from collections.abc import Sequence

from gpu_patch.checks import Message, argument, whole_number, whole_numbers
from gpu_patch.locations import LARGEST_PIXEL, checked_shapes
from gpu_patch.patching.base import checked_overlaps, checked_patch_size, checked_stride
from gpu_patch.patching.grid import TilePatching
from gpu_patch.sliding import largest_stride, sliding_axis


class SwitiPatching(TilePatching):
    """Sliding-window inner tiling: every pixel is to be the mean of many shifted tiles.

    Of each tile half of the overlap is cut off at each side, and the rest is kept. Tiles are
    thought at all multiples of the stride whose kept part meets the image; one that reaches beyond
    the image is moved inside, and keeps what of that part is in the image. A pixel is kept by
    ``(patch − overlap) // stride`` tiles along each axis, or by more where that does not divide
    or at borders; along an axis that is no longer than the patch by one. Places are computed when
    they are asked for: only the axes are stored.

    (SWITi, arXiv 2607.18990; `SwitiPatching` in CAREamics' draft, pull request 995.)

    Parameters
    ----------
    data_shapes : sequence of sequence of int
        SC(Z)YX.
    patch_size : sequence of int
        Pixels of a tile, (Z)YX.
    overlaps : sequence of int
        Pixels (Z)YX, 0 ≤ overlap < patch. Half of it is cropped from each side.
    stride : sequence of int
        Pixels from a tile to the next, (Z)YX, 1 ≤ stride ≤ patch − overlap; `stride_for` finds it.

    Raises
    ------
    ValueError
        For sizes out of range, with the argument's name.

    Examples
    --------
    >>> strategy = SwitiPatching([(1, 1, 64, 100)], (64, 64), (32, 32), (16, 16))
    >>> strategy.n_patches
    8
    >>> tile = strategy.get_patch_spec(0)
    >>> tile["coords"], tile["crop_coords"], tile["crop_size"], tile["stitch_coords"]
    ((0, 0), (0, 0), (64, 16), (0, 0))
    """

    def __init__(
        self,
        data_shapes: Sequence[Sequence[int]],
        patch_size: Sequence[int],
        overlaps: Sequence[int],
        stride: Sequence[int],
    ) -> None:
        shapes = checked_shapes(data_shapes)
        size = checked_patch_size(patch_size, shapes)
        self.overlaps = checked_overlaps(overlaps, size)
        self.stride = checked_stride(stride, size, self.overlaps)
        super().__init__(
            shapes,
            size,
            lambda axis, n: sliding_axis(n, size[axis], self.overlaps[axis], self.stride[axis]),
        )


def stride_for(
    n_draws: int,
    patch_size: Sequence[int],
    overlaps: Sequence[int],
    *,
    z_stride: int | None = None,
) -> tuple[int, ...]:
    """Return the largest stride with which `SwitiPatching` gives pixels so many tiles.

    Parameters
    ----------
    n_draws : int
        Tiles that should keep each pixel, at least; there is no such promise along axes that are
        no longer than the patch, which have one tile.
    patch_size, overlaps : sequence of int
        Pixels of a tile, and those that are cropped, (Z)YX.
    z_stride : int or None, default None
        Stride along Z, in 3D; None is ``patch − overlap``, one tile at each Z.

    Returns
    -------
    tuple of int
        (Z)YX, equal along Y and X.

    Raises
    ------
    ValueError
        Where even a stride of 1 gives fewer.

    Examples
    --------
    >>> stride_for(64, (64, 64), (32, 32))
    (4, 4)
    >>> stride_for(50, (16, 64, 64), (8, 32, 32), z_stride=4)
    (4, 6, 6)
    """
    count = whole_number("n_draws", n_draws, minimum=1)
    size = whole_numbers("patch_size", patch_size, minimum=1, maximum=LARGEST_PIXEL)
    if len(size) not in (2, 3):
        raise ValueError(
            Message(argument("patch_size"), f" must have 2 or 3 numbers, (Z)YX, found {size}")
        )
    cropped = checked_overlaps(overlaps, size)
    return largest_stride(count, size, cropped, checked_z_stride(z_stride, size, cropped))


def checked_z_stride(
    z_stride: object, patch_size: tuple[int, ...], overlaps: tuple[int, ...]
) -> int | None:
    """Return a stride along Z, or None, which is the only one in 2D."""
    if z_stride is None:
        return None
    if len(patch_size) == 2:
        raise ValueError(Message(argument("z_stride"), f" is for images with Z, found {z_stride}"))
    return whole_number("z_stride", z_stride, minimum=1, maximum=patch_size[0] - overlaps[0])
