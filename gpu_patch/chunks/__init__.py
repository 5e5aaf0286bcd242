"""Images that are not resident as a whole: kept by chunk, the least recently used out first."""

from gpu_patch.chunks._cache import ChunkCache, Traffic
from gpu_patch.chunks._image import ChunkedImage, RegionReader

__all__ = ["ChunkCache", "ChunkedImage", "RegionReader", "Traffic"]
