"""Zarr by zarr-python: OME-Zarr 0.4 and 0.5, plain arrays, formats 2 and 3, sharded."""

from gpu_patch.images.readers.zarr.place import METADATA
from gpu_patch.images.readers.zarr.reader import open_all, open_url

__all__ = ["METADATA", "open_all", "open_url"]
