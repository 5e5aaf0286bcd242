"""TIFF files by tifffile: OME-TIFF, ImageJ, BigTIFF, tiled, compressed, of several series."""

from gpu_patch.images.readers.tiff.ome import COMPANION
from gpu_patch.images.readers.tiff.reader import open_all
from gpu_patch.images.readers.tiff.sets import members

__all__ = ["COMPANION", "members", "open_all"]
