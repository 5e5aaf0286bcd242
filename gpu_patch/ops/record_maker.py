"""Which backend of the CPU makes the records that CUDA's kernels read."""

from gpu_patch._host.library import active
from gpu_patch._host.records import HostRecords
from gpu_patch.records import NUMPY_RECORDS, RecordMaker


def record_maker() -> RecordMaker:
    """Return compiled functions where there are some, else NumPy's."""
    library = active()
    return NUMPY_RECORDS if library is None else HostRecords(library)
