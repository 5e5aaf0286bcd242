"""careamics, patch by patch, in a process of its own beside ours."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from gpu_patch.cli.bench.process import command
from gpu_patch.cli.bench.timing import timed
from gpu_patch.cli.bench.workloads import (
    USUAL_BATCH,
    Case,
    build,
    careamics_library,
    shuffled_batches,
)


class Careamics:
    """careamics in a process of its own, where nobody else decides how memory is handed out.

    Parameters
    ----------
    settings : dict
        As `worker.main` takes them.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self._process = subprocess.Popen(
            command({**settings, "library": "careamics"}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        self.version: str = self._answer()
        self.found = not self.version.startswith("not ")

    def patch_times(self, case: Case) -> list[float]:
        """Return the seconds that some patches took one by one; none where it is not found."""
        if not self.found:
            return []
        assert self._process.stdin is not None
        print(json.dumps(case), file=self._process.stdin, flush=True)
        times: list[float] = self._answer()
        return times

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


def serve(report: Callable[[Any], None], budget: float) -> None:
    """Be the process of `Careamics`: tell the version, then time the cases that come in."""
    try:
        import careamics

        library, version = careamics_library(), str(careamics.__version__)
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        return report("not installed" if missing == "careamics" else f"not usable: {error}")
    except Exception as error:
        return report(f"not usable: {error}")
    report(version)
    for line in sys.stdin:
        case = Case(*json.loads(line))
        constructor = build(library, case, case.images())
        batches = shuffled_batches(constructor.n_patches, USUAL_BATCH)
        indices = (int(index) for batch in batches for index in batch)
        constructor.construct_patch(next(indices))
        report(timed(constructor.construct_patch, indices, budget))
    return None
