"""docs/microsplit.md, which trains CAREamics' network: its code runs, in modes I and II."""

import os
import subprocess
import sys

import matplotlib.image
import pytest
from test_readme import ROOT, blocks

pytest.importorskip("careamics", reason="the network is that of careamics 0.3.5")


def test_code_is_short():
    (block,) = blocks(ROOT / "docs/microsplit.md")
    assert sum(bool(line.strip()) for line in block.code.splitlines()) <= 60


@pytest.mark.parametrize("mode", ["I", "II"])
def test_code_runs(mode, tmp_path):
    """For some steps: what is left out of it is time."""
    (block,) = blocks(ROOT / "docs/microsplit.md")
    shorter = {
        'MODE, N_SCALES, PATCH = "I"': f'MODE, N_SCALES, PATCH = "{mode}"',
        "max_epochs=10": "max_epochs=1, limit_train_batches=2, limit_val_batches=1",
        "0.06, seed=0": "8, seed=0",
        "n_samples=10": "n_samples=2",
    }
    code = block.code
    for text, shorter_one in shorter.items():
        assert code.count(text) == 1
        code = code.replace(text, shorter_one)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}

    def run(*arguments):
        command = [sys.executable, "-W", "ignore", *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    run("-m", "gpu_patch", "demo", "--size", "384")
    said = run("-c", code)
    assert "Parts(trained=0." in said
    picture = matplotlib.image.imread(tmp_path / "microsplit.png")
    assert picture[..., :3].std() > 0.1
