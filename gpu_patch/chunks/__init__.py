"""Images that are not resident as a whole: what they are read from, and their chunks."""

from gpu_patch.chunks.image import ChunkedImage, RegionReader

__all__ = ["ChunkedImage", "RegionReader"]
