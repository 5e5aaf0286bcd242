"""Whether images and targets fit a mode; errors name the option, and what would fit."""

from __future__ import annotations

from collections.abc import Sequence

from gpu_patch import ImageStack, PatchExtractor
from gpu_patch.images.names import check_pairs, describe
from gpu_patch.words import counted


def check_targets(mode: str, targets: Sequence[ImageStack]) -> None:
    """Check that there are targets where, and only where, the mode takes them."""
    if mode == "paired" and not targets:
        raise ValueError(
            "argument --target: --mode paired needs an image for each IMAGE, found none"
        )
    if targets and mode not in ("paired", "basic"):
        raise ValueError(
            f"argument --target: only the modes paired and basic take targets, found --mode {mode}"
        )


def check_targets_pair(images: PatchExtractor, targets: PatchExtractor) -> None:
    """Check that targets are the partners of their images, by name and size."""
    # the order of several arguments may be the shell's
    check_pairs(("images", "target"), images.origins, targets.origins, lists_are_ordered=False)
    if len(targets.image_stacks) != len(images.image_stacks):
        raise ValueError(
            "argument --target: must be as many as IMAGE, "
            f"{describe(images.origins)}; found {describe(targets.origins)}"
        )
    for image, target in zip(images.image_stacks, targets.image_stacks, strict=True):
        sizes = [stack.data_shape[:1] + stack.data_shape[2:] for stack in (image, target)]
        if sizes[0] != sizes[1]:
            raise ValueError(
                f"argument --target: '{target.source}' must have the size of '{image.source}' "
                f"(shape {image.original_data_shape}, axes {image.original_axes}), found "
                f"{target.original_data_shape}, axes {target.original_axes}"
            )


def check_channels(mode: str, images: Sequence[ImageStack]) -> None:
    """Check that the images fit the mode, with the way out in the message."""
    for image in images:
        n_channels = image.data_shape[1]
        if mode == "multichannel" and n_channels < 2:
            raise ValueError(
                "argument --mode: multichannel needs images with 2 channels or more, found "
                f"{channels_of(image)}: use pred, or independent with one IMAGE per structure"
            )
        if mode in ("paired", "pred") and n_channels != 1:
            raise ValueError(
                f"argument --mode: {mode} needs images with 1 channel, found "
                f"{channels_of(image)}: use multichannel, or give the right --axes"
            )


def channels_of(image: ImageStack) -> str:
    """Say for an error which image has how many channels."""
    return (
        f"'{image.source}' with {counted(image.data_shape[1], 'channel')} "
        f"(shape {image.original_data_shape}, axes {image.original_axes})"
    )


def full_patch_size(patch_size: tuple[int, ...], images: list[ImageStack]) -> tuple[int, ...]:
    """Return `patch_size` with one entry per spatial axis."""
    spatial = images[0].data_shape[2:]
    if len(patch_size) == len(spatial):
        return patch_size
    if len(patch_size) > 1:
        wanted = "Y,X" if len(spatial) == 2 else "Z,Y,X"
        raise ValueError(
            f"argument --patch-size: must be one number or {wanted} for images of the shape "
            f"{spatial}, found {','.join(map(str, patch_size))}"
        )
    (size,) = patch_size
    return (size, size) if len(spatial) == 2 else (min(size, spatial[0]), size, size)
