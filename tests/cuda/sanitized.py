"""Runs a few cases through kernels built with a sanitizer: `python sanitized.py address [bug]`.

The sanitizer's library must be loaded before Python: see test_sanitizers.py. A bug is one of
BUGS, to see that the sanitizer would find it.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import stitching
from cases import Case, assert_same_context
from emulation.runtime import EmulatedRuntime
from tilings import Tiling

from gpu_patch._cuda import lateral_context, specialised

BUGS = {
    "barrier": ("__syncthreads();  // the rows are complete", ""),
    "shared": ("int PHASE =\n", "int PHASE = 1 +\n"),
    "output": ("if (at.in_patch())\n", "\n"),
    "image": ("at < range.hi) return at;", "at < range.hi + 99) return at;"),
}


def main(sanitizer: str, bug: str = "") -> None:
    # every thread of a block is an OS thread here: fewer do as well
    lateral_context.N_THREADS = 64
    choose_shape = specialised.tiled
    specialised.tiled = lambda *a: replace(choose_shape(*a), n_threads=32, tile_rows=2)
    specialised.LEAST_PATCH = 1

    def edit(text: str) -> str:
        if not bug:
            return text
        text = text.replace("static_assert(4 * (NARROW", "static_assert(0 * (NARROW")
        before, after = BUGS[bug]
        assert before in text or "void specialised" not in text
        return text.replace(before, after)

    runtime = EmulatedRuntime(sanitizer=sanitizer, edit=edit)
    for patch, n_scales, mode, n_places in (
        ((9, 11), 3, "reflect", 1),
        ((5, 35), 2, "wrap", 2),
        ((3, 5, 9), 2, "periodic", 2),
    ):
        case = Case.random(5, patch, n_scales, mode, n_samples=1, n_places=n_places, most=12)
        for specialise in (True, False):
            made = case.context(runtime, specialise=specialise)
            if not bug:  # that the values are wrong is not the question
                assert_same_context(made, case.numpy_context())
        case.patches(runtime, "zero")
        case.patches(runtime, mode)
    for blend, size, patch in (("crop", (20, 50), (7, 40)), ("hann", (3, 9, 9), (2, 5, 6))):
        tiling = Tiling(size, patch, tuple(p // 2 for p in patch), blend, 1, 2)
        stitching.assert_stitched(runtime, tiling, stitching.counts_of(tiling, 5))
    print("clean", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
