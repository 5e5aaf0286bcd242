"""Where predictions go: a module or folder per format, whose package is imported on first use."""

from gpu_patch.predict.outputs.axes import restore, restored_axes
from gpu_patch.predict.outputs.base import Output, Predicted, Store, UnitKey
from gpu_patch.predict.outputs.open_store import open_store
from gpu_patch.predict.outputs.options import OutputOptions, Shard

__all__ = [
    "Output",
    "OutputOptions",
    "Predicted",
    "Shard",
    "Store",
    "UnitKey",
    "open_store",
    "restore",
    "restored_axes",
]
