"""Memory of devices: where arrays are, how they get there, and who may still read them."""

from gpu_patch.device.placement import (
    ENVIRONMENT_VARIABLE,
    address,
    cuda_problem,
    empty,
    free_bytes,
    import_cupy,
    is_cuda_array,
    library_of,
    on_device,
    out_of_memory,
    resolve,
)
from gpu_patch.device.streams import SideStream, current_stream, external_stream
from gpu_patch.device.transfer import Uploader, as_array, place, to_cuda

__all__ = [
    "ENVIRONMENT_VARIABLE",
    "SideStream",
    "Uploader",
    "address",
    "as_array",
    "cuda_problem",
    "current_stream",
    "empty",
    "external_stream",
    "free_bytes",
    "import_cupy",
    "is_cuda_array",
    "library_of",
    "on_device",
    "out_of_memory",
    "place",
    "resolve",
    "to_cuda",
]
