"""Images that are not resident as a whole: kept by chunk, the least recently used out first."""

from gpu_patch.chunks.cache import ChunkCache, Traffic
from gpu_patch.chunks.image import ChunkedImage, RegionReader

__all__ = ["ChunkCache", "ChunkedImage", "RegionReader", "Traffic"]
