"""Images: reading them, keeping them resident, cutting patches out of them."""

from gpu_patch.images.channels import checked_channels
from gpu_patch.images.extractor import PatchExtractor
from gpu_patch.images.opening import open_images
from gpu_patch.images.residency import Residency, residency
from gpu_patch.images.sources import named_once, sources
from gpu_patch.images.stack import ImageStack
from gpu_patch.images.values import ValueCounts

__all__ = [
    "ImageStack",
    "PatchExtractor",
    "Residency",
    "ValueCounts",
    "checked_channels",
    "named_once",
    "open_images",
    "residency",
    "sources",
]
