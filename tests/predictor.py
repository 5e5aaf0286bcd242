"""One process that predicts.

Four images go to OUT by all ranks together, through a model that takes PAUSE seconds per batch.
REPORT gets how many tiles this process made.
"""

from __future__ import annotations

import json
import time

from predicted import OPTIONS, make_images, model

import gpu_patch


def main(out, report, rank, world_size, pause, resume):
    n_tiles = 0

    def slow(x):
        nonlocal n_tiles
        n_tiles += len(x)
        time.sleep(pause)
        return model(x)

    found = gpu_patch.predict(
        make_images(),
        slow,
        out=out,
        rank=rank,
        world_size=world_size,
        resume=resume,
        timeout=60.0,
        batch_size=3 + rank,
        n_samples=2,
        progress=False,
        **OPTIONS,
    )
    assert all(path.exists() for paths in found for path in paths)
    report.write_text(json.dumps({"n_tiles": n_tiles}))
