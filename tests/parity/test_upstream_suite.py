"""careamics' own tests, with our classes in the place of its own.

Where the environment variable CAREAMICS_CHECKOUT names a checkout of its repository, of the version
that is installed. `upstream/adapter.py` exchanges the classes, `upstream/may_fail.txt` lists the
tests that may fail, with reasons.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("careamics", reason="the tests are those of careamics 0.3.5")

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]
SUITE = (
    "tests/dataset/patching",
    "tests/unit/dataset/patching",
    "tests/unit/dataset/patch_constructor",
    "tests/dataset/patch_extractor",
    "tests/dataset/image_stack/test_in_memory_image_stack.py",
    "tests/dataset/image_stack/test_image_stack_utils.py",
    "tests/dataset/dataset",
    "tests/unit/dataset/test_dataset.py",
    "tests/functional/dataset/factory",
)
CHECKOUT = os.environ.get("CAREAMICS_CHECKOUT")


@pytest.mark.skipif(CHECKOUT is None, reason="CAREAMICS_CHECKOUT names no checkout of careamics")
def test_our_classes_pass_upstreams_tests():
    path = os.pathsep.join(map(str, (ROOT, HERE / "upstream")))
    done = subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "-m", "pytest", "-W", "ignore", "-q"),
            *("-p", "adapter", "-p", "no:cacheprovider", *SUITE),
        ],
        cwd=CHECKOUT, env=os.environ | {"PYTHONPATH": path, "GPU_PATCH_DEVICE": "cpu"},
        capture_output=True, text=True, timeout=1200,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    print(done.stdout.splitlines()[-1])
    assert sum(int(n) for n in re.findall(r"(\d+) x?passed", done.stdout)) > 320


def test_tests_that_may_fail_have_reasons():
    lines = (HERE / "upstream/may_fail.txt").read_text().splitlines()
    for line in lines:
        name, _, reason = line.partition("  ")
        assert line.startswith("#") or (name.startswith(SUITE) and reason), line
