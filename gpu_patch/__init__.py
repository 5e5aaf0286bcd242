"""The patch feed for microscopy deep learning: whole batches, planned in microseconds."""

from gpu_patch.augmentation import Augmentation
from gpu_patch.constructors import (
    BasicPatchConstr,
    IndependentTargetsMsPatchConstr,
    MultiChannelTargetMsPatchConstr,
    PairedInputTargetMsPatchConstr,
    PatchConstr,
    PredMsPatchConstr,
)
from gpu_patch.images import ImageStack, PatchExtractor, open_images, residency
from gpu_patch.patching import (
    FixedPatching,
    FixedRandomPatching,
    Patching,
    RandomPatching,
    SequentialPatching,
    StratifiedPatching,
    TiledPatching,
    WholeSamplePatching,
)
from gpu_patch.predict import Prediction, predict
from gpu_patch.specs import (
    ImageMetadata,
    PatchBatch,
    PatchSpecs,
    TileSpecs,
    UncorrelatedPatchSpecs,
)

__version__ = "0.1.0"

__all__ = [
    "Augmentation",
    "BasicPatchConstr",
    "FixedPatching",
    "FixedRandomPatching",
    "ImageMetadata",
    "ImageStack",
    "IndependentTargetsMsPatchConstr",
    "MultiChannelTargetMsPatchConstr",
    "PairedInputTargetMsPatchConstr",
    "PatchBatch",
    "PatchConstr",
    "PatchExtractor",
    "PatchSpecs",
    "Patching",
    "PredMsPatchConstr",
    "Prediction",
    "RandomPatching",
    "SequentialPatching",
    "StratifiedPatching",
    "TileSpecs",
    "TiledPatching",
    "UncorrelatedPatchSpecs",
    "WholeSamplePatching",
    "__version__",
    "open_images",
    "predict",
    "residency",
]
