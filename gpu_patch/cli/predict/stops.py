"""What is said of a run that is stopped: whether there is something to go on with."""

from __future__ import annotations

import argparse
from contextlib import suppress
from pathlib import Path

from gpu_patch import PatchExtractor
from gpu_patch.predict.outputs.options import OutputOptions
from gpu_patch.predict.outputs.state import results_at


class Stop:
    """Made before a run, it tells what is written by the time of a stop.

    Parameters
    ----------
    options : Namespace
        Of the command.
    images : PatchExtractor
        What the results are named after.
    """

    def __init__(self, options: argparse.Namespace, images: PatchExtractor) -> None:
        output = OutputOptions(options.out, options.format)
        self._kind, self._overwrite = output.kind, options.overwrite
        sources = [stack.source for stack in images.image_stacks]
        self._paths = output.results_of(sources, [""]).paths
        # no part of a run that makes other results
        other = self._kind == "ome-zarr" and not options.resume
        self._replaced = self._complete() if other else set()

    def report(self) -> None:
        """Print how to go on; only OME-Zarr can."""
        if self._kind != "ome-zarr":
            return
        with suppress(OSError):  # the stop itself is what counts
            self._report()

    def _report(self) -> None:
        if self._has_parts() or self._complete() - self._replaced:
            again = "--resume --overwrite" if self._overwrite else "--resume"
            print(f"stopped  {again} goes on with what is written")
        else:
            print("stopped  before anything was written: the same command begins anew")

    def _has_parts(self) -> bool:
        return any(state.done for path in self._paths for state in results_at(path))

    def _complete(self) -> set[tuple[Path, int]]:
        """Return complete results, with what tells a folder from one that replaces it."""
        states = [state for path in self._paths for state in results_at(path) if state.complete]
        return {(state.path, state.path.stat().st_ino) for state in states}
