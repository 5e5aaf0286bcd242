"""AddressSanitizer and ThreadSanitizer over the emulated kernels, each in a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from emulation.runtime import COMPILER, available

LIBRARIES = {"address": "libasan.so", "thread": "libtsan.so"}

pytestmark = pytest.mark.skipif(not available(), reason="needs a C++ compiler")


def run(sanitizer: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    name = LIBRARIES[sanitizer]
    printed = subprocess.run(
        [COMPILER, f"-print-file-name={name}"], capture_output=True, text=True, check=True
    )
    library = Path(printed.stdout.strip())
    if not library.is_absolute() or not library.exists():
        pytest.skip(f"the compiler {COMPILER} has no {name}")
    environment = {
        **os.environ,
        "LD_PRELOAD": str(library),
        "OPENBLAS_NUM_THREADS": "1",
        # Python's own leaks are none of ours; its signal handlers neither
        "ASAN_OPTIONS": "detect_leaks=0:handle_segv=0",
        "TSAN_OPTIONS": "halt_on_error=1:report_signal_unsafe=0",
    }
    # ThreadSanitizer wants its fixed address ranges free
    fixed_addresses = ["setarch", "-R"] if shutil.which("setarch") else []
    script = Path(__file__).with_name("sanitized.py")
    done = subprocess.run(
        [*fixed_addresses, sys.executable, str(script), sanitizer, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if "unexpected memory mapping" in done.stderr:
        pytest.skip(f"{name} does not run on this kernel: unexpected memory mapping")
    return done


@pytest.mark.parametrize("sanitizer", LIBRARIES)
def test_kernels_are_clean(sanitizer):
    done = run(sanitizer)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.strip() == "clean"


@pytest.mark.parametrize(
    ("sanitizer", "bug", "report"),
    [
        ("thread", "barrier", "data race"),
        ("address", "shared", "AddressSanitizer: heap-"),
        ("address", "output", "AddressSanitizer: heap-"),
        ("address", "image", "AddressSanitizer: heap-"),
    ],
)
def test_bugs_would_be_found(sanitizer, bug, report):
    done = run(sanitizer, bug)
    assert done.returncode != 0
    assert report in done.stderr
    assert "specialised.cu" in done.stderr or "common.cuh" in done.stderr, "file and line missing"
