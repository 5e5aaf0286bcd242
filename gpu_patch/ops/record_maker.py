"""Which backend of the CPU makes the records that CUDA's kernels read."""

from gpu_patch._host.library import Library, active
from gpu_patch._host.records import HostRecords
from gpu_patch.records import NUMPY_RECORDS, RecordMaker


class Records:
    """Makes the records of batches of the same columns by the backend that is asked for."""

    def __init__(self) -> None:
        self._known: tuple[Library | None, RecordMaker] = (None, NUMPY_RECORDS)

    def __call__(self) -> RecordMaker:
        """Return compiled functions where there are some, else NumPy's."""
        library = active()
        known, maker = self._known
        if library is not known:
            maker = NUMPY_RECORDS if library is None else HostRecords(library)
            self._known = library, maker
        return maker


def record_maker() -> RecordMaker:
    """Return what makes the records of one batch."""
    return Records()()
