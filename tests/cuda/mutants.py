"""Breaks the kernels, one edit at a time, and shows that the checks notice each.

Run as ``python tests/cuda/mutants.py [--ptx] [word in a mutant's name]``; prints a table, and fails
where a mutant survives. Kernels are built by a C++ compiler, or with ``--ptx`` by NVRTC and
interpreted. Each runs in a process of its own, since a broken kernel may crash or hang.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import answering
import numpy as np
import stitching
from cases import DTYPES, MODES, Case, assert_same_context
from emulation.runtime import EmulatedRuntime
from paged import in_slots
from pixels import LABEL_DTYPES, labels
from ptx.runtime import PtxRuntime

from gpu_patch import ops
from gpu_patch._cuda import specialised
from gpu_patch._cuda.gather import gather
from gpu_patch._cuda.moments import add_sample
from gpu_patch.sources import ChannelSources

COMMON, GENERAL, GATHER, SPECIAL = "common.cuh", "lateral_context.cu", "gather.cu", "specialised.cu"
STITCH, MOMENTS = "stitch.cu", "moments.cu"
MEANS, ANSWER, QUANTILES = "means.cu", "answer.cu", "quantiles.cu"
MOST_SECONDS = 300


class Mutant(NamedTuple):
    """One edit: `before`, which occurs once in the file, becomes `after`."""

    file: str
    name: str
    before: str
    after: str


def load() -> list[Mutant]:
    """Read mutants.txt."""
    mutants, file = [], ""
    for line in Path(__file__).with_suffix(".txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("== "):
            file = line.removeprefix("== ")
        elif file:
            name, edit = line.split(" | ", 1)
            before, old, new, after = re.split("[⟦→⟧]", edit.replace("\\n", "\n"))
            mutants.append(Mutant(file, name.strip(), before + old + after, before + new + after))
    return mutants


def check(runtime: EmulatedRuntime, file: str, folder: Path) -> None:
    """Run what a mutant of `file` could break."""
    specialised.LEAST_PATCH = 1
    if file in (COMMON, GATHER):
        for case in _general_cases():
            for mode in ("zero", *MODES):
                made = case.patches(runtime, mode)
                np.testing.assert_array_equal(made, case.numpy_patches(mode))
        half = case.patches(runtime, "zero", dtype=np.float16)
        np.testing.assert_array_equal(half, case.numpy_patches("zero").astype(np.float16))
        for case in _epilogue_cases():
            epilogue = case.epilogue(mixed=False)
            made = case.patches(runtime, "zero", epilogue=epilogue)
            np.testing.assert_array_equal(made, case.numpy_patches("zero", epilogue=epilogue))
        if file == GATHER:
            assert_integers(runtime)
        huge = _huge(folder)
        made = huge.patches(runtime, "zero")
        np.testing.assert_array_equal(made, huge.numpy_patches("zero"))
    if file in (COMMON, GENERAL):
        for case in [*_general_cases(), _huge(folder)]:
            made = case.context(runtime, specialise=False)
            assert_same_context(made, case.numpy_context())
        for case in _epilogue_cases():
            epilogue = case.epilogue(mixed=True)
            made = case.context(runtime, specialise=False, epilogue=epilogue)
            assert_same_context(made, case.numpy_context(epilogue=epilogue))
    if file in (COMMON, GATHER, GENERAL, SPECIAL):
        assert_pages(runtime, file)
    if file == STITCH:
        for tiling, count in stitching.cases():
            stitching.assert_stitched(runtime, tiling, stitching.counts_of(tiling, count))
        stitching.assert_rows_kept(runtime)
        stitching.assert_huge(runtime, folder)
    if file in (STITCH, MEANS):
        answering.assert_sums(runtime)
    if file == ANSWER:
        answering.assert_answers(runtime)
    if file == QUANTILES:
        answering.assert_quantiles(runtime)
    if file == MOMENTS:
        assert_moments(runtime)
    if file in (COMMON, SPECIAL):
        for case in _special_cases():
            made = case.context(runtime)
            assert_same_context(made, case.numpy_context())
        for case in _epilogue_cases():
            epilogue = case.epilogue(mixed=True)
            made = case.context(runtime, epilogue=epilogue)
            assert_same_context(made, case.numpy_context(epilogue=epilogue))
            with mock.patch.object(specialised, "TABLE_BYTES", 0):  # uploaded
                other = case.context(runtime, epilogue=epilogue)
            for one, same in zip(made, other, strict=True):
                np.testing.assert_array_equal(one, same)


def assert_pages(runtime: EmulatedRuntime, file: str) -> None:
    """The same bits of pages as of whole images."""
    for case in _paged_cases():
        if file in (COMMON, GATHER):
            for mode in ("zero", *MODES):
                with in_slots(runtime, case, 0, mode) as table:
                    made = case.patches(runtime, mode, images=table)
                np.testing.assert_array_equal(made, case.numpy_patches(mode))
        for specialise, own in ((False, GENERAL), (True, SPECIAL)):
            if file in (COMMON, own):
                with in_slots(runtime, case, case.n_scales - 1, case.mode) as table:
                    made = case.context(runtime, images=table, specialise=specialise)
                assert_same_context(made, case.numpy_context())


def assert_integers(runtime: EmulatedRuntime) -> None:
    """Labels of all types, in their own and in the widest, turned, against the twin."""
    for case in _epilogue_cases():
        epilogue = case.epilogue(mixed=False)
        for stored, dtype in ((t, d) for t in LABEL_DTYPES for d in (t, "int64", "uint64")):
            if not np.can_cast(stored, dtype, "safe"):
                continue
            images = [labels(image.shape, stored) for image in case.images]
            where = (images, case.sources, case.patch_size)
            made = gather(runtime, *where, 0, "zero", np.dtype(dtype), epilogue=epilogue)
            expected = ops.gather(*where, dtype=dtype, epilogue=epilogue)
            np.testing.assert_array_equal(made, expected)


def assert_moments(runtime: EmulatedRuntime) -> None:
    """Samples of several blocks per tile, against the twin."""
    for dtype in (np.float32, np.float16):
        samples = np.random.default_rng(0).normal(9, 5, (4, 3, 2, 50, 70)).astype(dtype)
        found, expected = (np.full((3, 4, 50, 70), np.nan, np.float32) for _ in range(2))
        for number, values in enumerate(samples, 1):
            add_sample(runtime, values, found, number, len(samples))
            ops.add_sample(values, expected, number, len(samples))
            np.testing.assert_array_equal(found, expected)


def _general_cases() -> Iterator[Case]:
    yield Case.random(1, (11, 9), 3, "wrap", n_channels=3, n_places=3, dtypes=DTYPES)
    yield Case.random(2, (40, 37), 3, "reflect", n_channels=2)
    yield Case.random(3, (3, 5, 9), 3, "periodic", n_channels=2, n_places=2, dtypes=DTYPES, most=9)
    # images larger than upstream's cut, into which "wrap" and "reflect" fold
    yield Case.random(8, (8, 9), 1, "reflect", n_samples=30, least=25, most=30)
    yield Case.random(8, (5, 4), 2, "wrap", n_channels=2, n_samples=6, least=25, most=30)
    yield Case.random(4, (1, 2, 1), 6, "wrap", n_channels=1, n_samples=1, most=9)


def _paged_cases() -> Iterator[Case]:
    """Images of several pages along each axis, of one channel or several."""
    yield Case.random(21, (8, 11), 3, "wrap", n_places=2, least=40, most=60)
    yield Case.random(23, (3, 8, 9), 2, "reflect", n_samples=3, least=15, most=24)


def _special_cases() -> Iterator[Case]:
    yield Case.random(5, (21, 71), 3, "reflect", n_channels=2, least=30, most=90)
    yield Case.random(6, (12, 9), 3, "wrap", n_channels=3, n_places=3, dtypes=["int16"])
    # wide enough for neighbours to be taken together, and for tiles and strips to be cut short
    wide = {"n_samples": 5, "least": 250, "most": 600}
    yield Case.random(9, (19, 64), 3, "reflect", **wide)
    yield Case.random(10, (13, 72), 4, "wrap", n_places=2, **wide)
    yield Case.random(11, (9, 130), 3, "periodic", **wide)
    yield Case.random(12, (8, 64), 4, "reflect", n_channels=5, least=600, most=700)
    yield Case.random(8, (8, 9), 2, "wrap", n_samples=34)  # two groups
    yield Case.random(7, (6, 11, 9), 3, "reflect", n_channels=2, n_places=2, least=6, most=20)


def _epilogue_cases() -> Iterator[Case]:
    """All eight turns of square patches, and flips of others."""
    yield Case.random(13, (9, 9), 2, "reflect", n_samples=8, most=30)
    yield Case.random(14, (2, 6, 9), 2, "wrap", n_samples=4, n_places=2, most=16)


def _huge(folder: Path) -> Case:
    """Pixels beyond 2^31, in a file with a hole."""
    side = 50_000
    image = np.memmap(folder / "huge", np.uint8, "w+", shape=(1, 1, side, side))
    corner = np.random.default_rng(0).integers(0, 255, (200, 200), dtype=np.uint8)
    image[0, 0, side - 200 :, side - 200 :] = corner
    one = np.zeros((1, 1), np.int64)
    rows = ChannelSources(one, one, np.full((1, 1, 2), side - 20), np.array([0]))
    return Case([image], rows, np.ones((1, 1), np.float32), (8, 8), 2, "reflect")


def ptx_runtime(order: int, edit: Callable[[str], str]) -> PtxRuntime:
    """Compile in turn for architectures that take different ways: some convert by an addition."""
    return PtxRuntime(order, edit, architecture=80 if order % 2 else 90)


def run(mutant: Mutant, make_runtime: Callable[..., EmulatedRuntime] = EmulatedRuntime) -> str:
    """Return how a mutant was caught, or "survived"."""

    def edit(text: str) -> str:
        # checks of other kernels may not contain the file
        return text.replace(mutant.before, mutant.after) if f'"{mutant.file}"' in text else text

    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        outcome = 1
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        signal.alarm(MOST_SECONDS)
        try:
            with tempfile.TemporaryDirectory() as folder, np.errstate(all="ignore"):
                for order in (0, 3, 4):
                    check(make_runtime(order, edit=edit), mutant.file, Path(folder))
            outcome = 0
        except (AssertionError, IndexError):
            outcome = 2
        except RuntimeError as error:
            outcome = 4 if "g++" in str(error) or "does not compile" in str(error) else 3
        finally:
            os._exit(outcome)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return f"caught: {signal.Signals(os.WTERMSIG(status)).name}"
    return {
        0: "survived",
        2: "caught: values differ",
        3: "caught: the emulator reports it",
        4: "does not compile",
    }.get(os.WEXITSTATUS(status), "failed otherwise")


def main(word: str = "", ptx: bool = False) -> int:
    """Run all mutants whose file or name holds `word`; return how many were not caught."""
    make_runtime = ptx_runtime if ptx else EmulatedRuntime
    chosen = [mutant for mutant in load() if word in f"{mutant.file} {mutant.name}"]
    missed = 0
    files = dict.fromkeys(mutant.file for mutant in load())
    for mutant in [Mutant(file, "unchanged", "\0", "") for file in files if word in file]:
        outcome = run(mutant, make_runtime)
        missed += outcome != "survived"
        print(f"{mutant.file:20}{mutant.name:36}{outcome}", flush=True)
    start = time.perf_counter()
    for mutant in chosen:
        outcome = run(mutant, make_runtime)
        missed += not outcome.startswith("caught")
        print(f"{mutant.file:20}{mutant.name:36}{outcome}", flush=True)
    seconds = time.perf_counter() - start
    print(f"{len(chosen)} mutants in {seconds:.0f} s, {missed} not as they should be")
    return missed


if __name__ == "__main__":
    words = [argument for argument in sys.argv[1:] if argument != "--ptx"]
    sys.exit(bool(main(*words, ptx="--ptx" in sys.argv)))
