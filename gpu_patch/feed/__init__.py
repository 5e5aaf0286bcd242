"""The training feed: batches of an epoch, normalised and augmented."""

from gpu_patch.feed.background import (
    exclude_background,
    filter_background,
    find_background,
    score_maps,
)
from gpu_patch.feed.filter_report import FilterReport
from gpu_patch.feed.filters import (
    MaskFilter,
    MaxFilter,
    MeanStdFilter,
    PatchFilter,
    ShannonFilter,
)
from gpu_patch.feed.loader import BatchLoader
from gpu_patch.feed.normalization import Normalization
from gpu_patch.feed.statistics import compute_normalization

__all__ = [
    "BatchLoader",
    "FilterReport",
    "MaskFilter",
    "MaxFilter",
    "MeanStdFilter",
    "Normalization",
    "PatchFilter",
    "ShannonFilter",
    "compute_normalization",
    "exclude_background",
    "filter_background",
    "find_background",
    "score_maps",
]
