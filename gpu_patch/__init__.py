"""The patch feed for microscopy deep learning: whole batches, planned in microseconds.

Here are images, patching strategies, patch constructors and the prediction of whole images. Beside
them, `gpu_patch.feed` has the batches of an epoch, statistics and background filters;
`gpu_patch.torch`, `gpu_patch.lightning` and `gpu_patch.careamics` lead to these packages;
`gpu_patch.device` says where arrays are, `gpu_patch.chunks` and `gpu_patch.images.readers` how
images that are larger than memory are read. The README has recipes.
"""

from gpu_patch.augmentation import Augmentation
from gpu_patch.constructors import (
    BasicPatchConstr,
    IndependentTargetsMsPatchConstr,
    MultiChannelTargetMsPatchConstr,
    PairedInputTargetMsPatchConstr,
    PatchConstr,
    PredMsPatchConstr,
    split_constructor,
)
from gpu_patch.images import ImageStack, PatchExtractor, open_images, residency
from gpu_patch.patching import (
    ClassBalancedPatching,
    FixedPatching,
    FixedRandomPatching,
    Patching,
    RandomPatching,
    SequentialPatching,
    StratifiedPatching,
    SwitiPatching,
    TiledPatching,
    WholeSamplePatching,
    split_validation,
    stride_for,
)
from gpu_patch.predict import Prediction, predict
from gpu_patch.specs import (
    ImageMetadata,
    PatchBatch,
    PatchSpecs,
    TileSpecs,
    UncorrelatedPatchSpecs,
)
from gpu_patch.threads import get_num_threads, set_num_threads

__version__ = "0.1.0"

__all__ = [
    "Augmentation",
    "BasicPatchConstr",
    "ClassBalancedPatching",
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
    "SwitiPatching",
    "TileSpecs",
    "TiledPatching",
    "UncorrelatedPatchSpecs",
    "WholeSamplePatching",
    "__version__",
    "get_num_threads",
    "open_images",
    "predict",
    "residency",
    "set_num_threads",
    "split_constructor",
    "split_validation",
    "stride_for",
]
