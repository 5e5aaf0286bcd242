"""AddressSanitizer with UndefinedBehaviorSanitizer, and ThreadSanitizer, over the CPU's kernels."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gpu_patch._host import build, library

LIBRARIES = {"address": "libasan.so", "thread": "libtsan.so"}


def run(folder, sanitizer, *arguments):
    command = build.compilers()[:1]
    if not command or not build.library_path(build.PROBE).exists() or not library.supported():
        pytest.skip("needs a C++ compiler, and a processor that has kernels: build them")
    name = LIBRARIES[sanitizer]
    printed = subprocess.run(
        [*command[0], f"-print-file-name={name}"], capture_output=True, text=True, check=True
    )
    path = Path(printed.stdout.strip())
    if not path.is_absolute() or not path.exists():
        pytest.skip(f"the compiler {command[0][0]} has no {name}")
    environment = {
        **os.environ,
        "LD_PRELOAD": str(path),
        "OPENBLAS_NUM_THREADS": "1",
        # Python's own leaks are none of ours; its signal handlers neither
        "ASAN_OPTIONS": "detect_leaks=0:handle_segv=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "TSAN_OPTIONS": "halt_on_error=1:report_signal_unsafe=0",
    }
    # ThreadSanitizer wants its fixed address ranges free
    fixed_addresses = ["setarch", "-R"] if shutil.which("setarch") else []
    script = str(Path(__file__).with_name("sanitized.py"))
    done = subprocess.run(
        [*fixed_addresses, sys.executable, script, sanitizer, str(folder), *arguments],
        env=environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    if "unexpected memory mapping" in done.stderr:
        pytest.skip(f"{name} does not run on this kernel: unexpected memory mapping")
    return done


@pytest.mark.parametrize(
    ("sanitizer", "ways", "bugs"),
    [
        (
            "address",
            ("", "in registers"),
            {
                "columns": "AddressSanitizer: ",
                "output": "AddressSanitizer: ",
                "scratch": "AddressSanitizer: ",
                "shift": "runtime error: shift exponent",
            },
        ),
        ("thread", ("",), {"race": "data race"}),
    ],
)
def test_kernels_are_clean_and_bugs_would_be_found(tmp_path, sanitizer, ways, bugs):
    """In one test, since compiling takes a minute."""
    for way in ways:
        done = run(tmp_path, sanitizer, way)
        assert done.returncode == 0, done.stderr[-4000:]
        assert done.stdout.strip() == "clean"
    for bug, report in bugs.items():
        done = run(tmp_path, sanitizer, bug)
        assert done.returncode != 0, bug
        assert report in done.stderr, (bug, done.stderr[-3000:])
