"""Metadata of the images that patches come from."""

from __future__ import annotations

from collections.abc import Sequence

from gpu_patch.checks import index_in, mapping, sequence, shorten
from gpu_patch.images import ImageStack, PatchExtractor
from gpu_patch.specs import ImageMetadata


def uncorrelated_metadata(
    stacks: Sequence[Sequence[ImageStack]], patch_spec: object
) -> ImageMetadata:
    """Metadata of the principal channel's image, with the sources and shapes of all.

    Parameters
    ----------
    stacks : sequence of sequence of ImageStack
        Image stacks of each channel.
    patch_spec : UncorrelatedPatchSpecs
        Names one of them per channel.
    """
    spec = mapping("patch_spec", patch_spec, ["data_idx"])
    if "all_data_idx" not in spec:
        raise TypeError(
            "patch_spec must be an uncorrelated one, with all_data_idx, as construct_patch "
            f"returns it, found {shorten(patch_spec)}"
        )
    mapping("patch_spec", spec, ["principal_channel"])
    indices = sequence("patch_spec['all_data_idx']", spec["all_data_idx"], "image stack indices")
    if len(indices) != len(stacks):
        raise ValueError(
            f"patch_spec['all_data_idx'] must name an image stack for each of the {len(stacks)} "
            f"channels, found {shorten(indices)}"
        )
    chosen = [
        images[index_in("patch_spec['all_data_idx']", i, len(images), "image stacks")]
        for images, i in zip(stacks, indices, strict=True)
    ]
    principal = index_in(
        "patch_spec['principal_channel']", spec["principal_channel"], len(chosen), "channels"
    )
    metadata = chosen[principal].metadata
    metadata["additional_metadata"] |= {
        "all_sources": [str(stack.source) for stack in chosen],
        "all_data_shapes": [stack.data_shape for stack in chosen],
        "all_original_data_shapes": [stack.original_data_shape for stack in chosen],
    }
    return metadata


def image_metadata(extractor: PatchExtractor, patch_spec: object) -> ImageMetadata:
    """Metadata of the image, or images, of one extractor that a spec names."""
    spec = mapping("patch_spec", patch_spec, ["data_idx"])
    stacks = extractor.image_stacks
    if "all_data_idx" in spec:
        indices = sequence("patch_spec['all_data_idx']", spec["all_data_idx"], "stack indices")
        return uncorrelated_metadata([stacks] * len(indices), spec)
    at = index_in("patch_spec['data_idx']", spec["data_idx"], len(stacks), "image stacks")
    return stacks[at].metadata
