"""Real processes, started by torchrun, that exchange numbers by gloo."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from samples import make_sample

pytest.importorskip("torch")

HERE = Path(__file__).parent
N_PATCHES = make_sample("multichannel").constructor.n_patches


def torchrun(world_size, script, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
         str(world_size), str(HERE / script), *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=600,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


def run(folder, world_size, epoch, steps=-1, state=None):
    """What each rank saw."""
    torchrun(world_size, "rank.py", folder, epoch, steps, *([state] if state else []))
    return [
        json.loads((folder / f"{world_size}-{rank}.json").read_text()) for rank in range(world_size)
    ]


def whole_epoch(epoch):
    """Patches of the epoch as one process makes them."""
    batch = make_sample("multichannel").constructor.construct_batch(range(N_PATCHES), epoch=epoch)
    return sorted(
        hashlib.sha256(a.tobytes() + b.tobytes()).hexdigest()
        for a, b in zip(batch.input, batch.target, strict=True)
    )


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_see_together_what_one_process_sees(world_size, tmp_path):
    ranks = run(tmp_path, world_size, epoch=1)
    assert sorted(patch for rank in ranks for patch in rank["seen"]) == whole_epoch(1)
    assert sum(ranks[0]["counts"]) == N_PATCHES
    assert len({json.dumps(rank["state"]) for rank in ranks}) == 1


def test_other_ranks_go_on_in_the_middle(tmp_path):
    """Two processes begin an epoch, three end it, and make the next one."""
    begun = run(tmp_path, 2, epoch=4, steps=3)
    state = tmp_path / "state.json"
    state.write_text(json.dumps(begun[0]["state"]))
    ended = run(tmp_path, 3, epoch=0, state=state)
    seen = [patch for rank in (*begun, *ended) for patch in rank["seen"]]
    assert sorted(seen) == whole_epoch(4)
    following = run(tmp_path, 3, epoch=ended[0]["state"]["epoch"])
    assert sorted(patch for rank in following for patch in rank["seen"]) == whole_epoch(5)


def test_careamics_trains_on_two_ranks_by_lightning(tmp_path, monkeypatch):
    """Each gets its half of every epoch, none shared: together what one process gets."""
    pytest.importorskip("careamics")
    monkeypatch.syspath_prepend(HERE)
    import rank_careamics

    torchrun(2, "rank_careamics.py", tmp_path)
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert [rank["world_size"] for rank in ranks] == [2, 2]
    assert ranks[0]["weights"] == ranks[1]["weights"]
    module = rank_careamics.make_data(rank_careamics.make_config())
    module.setup("fit")
    for kind, loader in (
        ("training", module.train_dataloader()),
        ("validation", module.val_dataloader()),
    ):
        for epoch in range(rank_careamics.N_EPOCHS):
            whole = [patch for batch in loader for patch in rank_careamics.hashes(batch)]
            halves = [rank[kind][epoch] for rank in ranks]
            assert len(halves[0]) == len(halves[1]) > 0
            assert sorted(halves[0] + halves[1]) == sorted(whole)
            assert not set(halves[0]) & set(halves[1])
