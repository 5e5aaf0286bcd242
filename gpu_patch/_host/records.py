"""The records of an epilogue, filled by the compiled kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch._host.arguments import address
from gpu_patch._host.library import Job, Library
from gpu_patch.epilogue import turned_places
from gpu_patch.table import EPILOGUE_RECORD, VALUES


def fill_records(
    library: Library,
    job: Job,
    orientation: NDArray[np.uint8] | None,
    **values: NDArray[np.float32] | None,
) -> NDArray[Any]:
    """Return `EPILOGUE_RECORD` records (B, C) as words; see `table.epilogue_records`."""
    words = np.empty((job.n_samples, job.n_channels, EPILOGUE_RECORD.itemsize // 8), np.int64)
    columns = [(values.get(name), np.float32) for name in VALUES]
    places = turned_places(job.patch[1], job.patch[2])
    given = [(orientation, np.uint8), (places, np.int64), *columns]
    # kept until the call is over
    arrays = [None if own is None else np.ascontiguousarray(own, kind) for own, kind in given]
    library.call("fill_records", job, *map(address, arrays), address(words))
    return words
