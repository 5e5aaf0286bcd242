"""Images that are not resident as a whole: kept by chunk, the least recently used out first."""

from gpu_patch.chunks.cache import ChunkCache
from gpu_patch.chunks.image import ChunkedImage, RegionReader
from gpu_patch.chunks.lru import Traffic

__all__ = ["ChunkCache", "ChunkedImage", "RegionReader", "Traffic"]
