"""Runs cases through kernels built with sanitizers: `python sanitized.py address FOLDER [bug]`.

The sanitizer's library must be loaded before Python: see test_sanitizers.py. A bug is one of BUGS,
all of which are in the copy of the sources that is compiled, once for a folder; the one that is
named happens, to see that the sanitizer finds it.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import numpy as np
from variants import HOW_SUMS_ARE_KEPT, cases, compiled, drawn_and_measured, stitched

from gpu_patch import ops, set_num_threads
from gpu_patch._host import arguments, build, library
from gpu_patch.device.host_memory import BufferPool

# isort: split
from cases import MODES, Case, assert_same_context
from paged import host_context

FLAGS = {
    "address": ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g1", "-O1"),
    "thread": ("-fsanitize=thread", "-g1", "-O1"),
}
VARIABLE = "PLANTED_BUG"
"""Environment variable with the number of the bug that happens, from 1; 0 for none."""
IN_REGISTERS = "in registers"
"""What stands for no bug, but for sums that stay in registers: number -1."""
PRELUDE = f"""#pragma once
#include <cstdlib>
static const int PLANTED = std::getenv("{VARIABLE}") ? std::atoi(std::getenv("{VARIABLE}")) : 0;
"""
BUGS = {
    "columns": (
        "filters.h",
        "if (x == n) return;",
        "if (x == n && PLANTED == 1)"
        " add_block<T, C, SHIFT, LAST, 1>(band, rows, nullptr, x, x);"
        " if (x == n) return;",
    ),
    "output": (
        "vectors.h",
        "if (n >= W) return put(to, value);",
        "if (n >= W || PLANTED == 2) return put(to, value);",
    ),
    "scratch": (
        "downscaled.h",
        "take<float>(f * stride)",
        "take<float>(PLANTED == 3 ? stride / 2 : f * stride)",
    ),
    "shift": (
        "kernels.cpp",
        "std::max<int64>(1,",
        "std::max<int64>(PLANTED == 4 ? 1 << job.n_threads + 40 : 1,",
    ),
    "race": (
        "pool.h",
        "(i = own.next++) < own.n",
        "(PLANTED == 5 ? (i = own.next.load(), own.next = i + 1, own.plain++, i)"
        " : (i = own.next++)) < own.n",
    ),
}
FEWER_TYPES = [
    ("filters.h", f"case {name}: return adder<{kind}, LAST>(n_channels, shift);", "")
    for name, kind in (("INT8", "int8_t"), ("INT16", "int16_t"), ("FLOAT16", "half"))
]
"""Become floats first, so that compiling takes half as long."""
EDITS = [
    *BUGS.values(),
    *FEWER_TYPES,
    ("pool.h", "int64_t n;\n        Each", "int64_t n, plain = 0;\n        Each"),
    (*HOW_SUMS_ARE_KEPT, "static const bool IN_REGISTERS = PLANTED < 0;"),
]


def built(folder: Path, sanitizer: str) -> library.Library:
    """Compile, or take what an earlier process has compiled into the folder."""
    level = library.supported()[-1]
    path = build.library_path(level, folder)
    if path.exists():
        build.HERE = folder / "gpu_patch" / "_host"  # the sources that it must be of
        return library.Library(level, path)
    prelude = folder / "planted.h"
    prelude.write_text(PRELUDE)
    return compiled(folder, (*FLAGS[sanitizer], "-include", str(prelude)), EDITS)


def main(sanitizer: str, folder: str, bug: str = "") -> None:
    os.environ[VARIABLE] = str(["", *BUGS].index(bug) if bug != IN_REGISTERS else -1)
    is_clean = bug in ("", IN_REGISTERS)
    usual = library.choice().library
    found = built(Path(folder), sanitizer)
    arguments._WORK_OF_A_THREAD = 1  # threads for small batches, too
    # outputs of exactly their size, with the sanitizer's guards behind them
    BufferPool.take = lambda _, shape, dtype: np.empty(shape, dtype)
    for number, case in enumerate(cases()):
        set_num_threads(1 + number % 3)
        for dtype in (np.float32, np.float16):
            options = {"dtype": dtype}
            if number % 2:
                options["epilogue"] = case.epilogue(number, mixed=True)
            made = case.host_context(found, **options)
            by_page = host_context(found, case, **options)
            if is_clean:
                np.testing.assert_array_equal(by_page[0], made[0])
            if is_clean and usual:
                np.testing.assert_array_equal(case.host_context(usual, **options)[0], made[0])
            if is_clean and dtype == np.float32 and number % 2 == 0:
                assert_same_context(made, case.numpy_context())
            with library.computing(found):
                modes = ("zero", *MODES)
                ops.gather(
                    case.images, case.sources, case.patch_size, mode=modes[number % len(modes)],
                    n_scales=case.n_scales, dtype=dtype,
                    epilogue=case.epilogue(number, mixed=False) if number % 2 else None,
                )  # fmt: skip
            if dtype == np.float16:
                case.host_context(found, rows=np.array([2, 0, 2, 1]), **options)
    for shape, dtype in (((3, 2, 5, 7), np.float32), ((2, 1, 150, 257), np.float16)):
        moments = np.full((shape[0], 2 * shape[1], *shape[2:]), np.nan, np.float32)
        with library.computing(found):
            for number in (1, 2, 3):
                ops.add_sample(np.ones(shape, dtype), moments, number, 3)
    for number in (1, 3):
        set_num_threads(number)
        with library.computing(found):
            assert all(np.isfinite(image).all() for image in stitched())
            assert all(np.isfinite(array).all() for array in drawn_and_measured(found))
    # several callers, of which one has the threads
    case = Case.random(0, (64, 64), 3, "reflect", n_samples=8, least=300, most=400)
    set_num_threads(3)
    with library.computing(found):
        callers = [
            threading.Thread(
                target=lambda: ops.gather(case.images, case.sources, case.patch_size)
            )
            for _ in range(3)
        ]  # fmt: skip
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    print("clean", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
