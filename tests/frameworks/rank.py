"""One rank of a training: `torchrun tests/frameworks/rank.py FOLDER EPOCH STEPS [STATE]`.

Takes STEPS batches of an epoch (all where it is -1) after loading STATE, sums a number over all
ranks at each step as a training does its gradients, and writes down which patches it saw.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
import torch.distributed as dist
from samples import make_sample

from gpu_patch.feed import BatchLoader
from gpu_patch.torch import TensorLoader


def main(folder: str, epoch: str, steps: str, state: str = "") -> None:
    dist.init_process_group("gloo")
    rank, world_size = dist.get_rank(), dist.get_world_size()
    constructor = make_sample("multichannel").constructor
    loader = TensorLoader(
        BatchLoader(constructor, 3, seed=5, rank=rank, world_size=world_size, prefetch=1)
    )
    loader.set_epoch(int(epoch))
    if state:
        loader.load_state_dict(json.loads(Path(state).read_text()))
    seen, counts = [], []
    for batch in itertools.islice(loader, None if steps == "-1" else int(steps)):
        count = torch.tensor(len(batch.input))
        dist.all_reduce(count)  # hangs where ranks make different numbers of steps
        counts.append(int(count))
        for pair in zip(batch.input, batch.target, strict=True):
            pixels = b"".join(tensor.numpy().tobytes() for tensor in pair)
            seen.append(hashlib.sha256(pixels).hexdigest())
    found = {"seen": seen, "counts": counts, "state": loader.state_dict()}
    Path(folder, f"{world_size}-{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
