"""Images larger than memory: pages of them in one pool of slots, which windows read in place."""

from gpu_patch.pages.cache import PageCache
from gpu_patch.pages.image import PagedImage
from gpu_patch.pages.pool import PagePool

__all__ = ["PageCache", "PagePool", "PagedImage"]
