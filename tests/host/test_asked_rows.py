"""Rows are asked for before they are read, those of the next sample too."""

import subprocess
import sys
from pathlib import Path

import pytest

from gpu_patch._host import build, library


def test_rows_are_asked_for_once_and_the_first_of_a_sample_early(tmp_path):
    has_kernels = build.library_path(build.PROBE).exists() and library.supported()
    if not (build.compilers() and has_kernels):
        pytest.skip("needs a C++ compiler, and a processor that has kernels: build them")
    script = Path(__file__).with_name("asked_rows.py")
    done = subprocess.run(
        [sys.executable, script, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
