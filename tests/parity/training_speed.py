"""Times of data and of training, through careamics 0.3.5's data module and through ours.

PYTHONPATH=. python tests/parity/training_speed.py [--steps 200] [--json FILE], with careamics
installed. Images of 1024 × 1024 with two channels, patches of 64 × 64, batches of 16, careamics'
default configuration. Batches of both sides are taken in turn, so that other work on the machine
slows both alike; medians.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import careamics
import numpy as np
import torch
from careamics.config.data.microsplit_data_config import MicroSplitDataConfig
from careamics.config.factories import create_care_config, create_n2v_config
from careamics.dataset import factory
from careamics.lightning.data import CareamicsDataModule as TheirDataModule
from torch.utils.data import DataLoader, default_collate

from gpu_patch.careamics.lightning import CareamicsDataModule, CAREamist, DatasetDataModule

SIZE, BATCH_SIZE, PATCH_SIZE = 1024, 16, [64, 64]
PIXELS = np.random.default_rng(0).integers(0, 4096, (2, SIZE, SIZE)).astype(np.uint16)
COMMON = {"data_type": "array", "patch_size": PATCH_SIZE, "batch_size": BATCH_SIZE}


def basic(algorithm: str) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return what makes the training batches of CARE or N2V, theirs and ours."""
    create = create_n2v_config if algorithm == "n2v" else create_care_config
    channels = {"n_channels": 2} if algorithm == "n2v" else {"n_channels_in": 2}

    def loader(kind: Any) -> Any:
        config = create(experiment_name="speed", axes="CYX", **channels, **COMMON).data_config
        targets = {} if algorithm == "n2v" else {"train_data_target": PIXELS[::-1].copy()}
        module = kind(config, train_data=PIXELS, **targets)
        module.setup("fit")
        return module.train_dataloader()

    return lambda: loader(TheirDataModule), lambda: loader(CareamicsDataModule)


def microsplit(n_scales: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return what makes the training batches of MicroSplit I, theirs and ours."""

    def dataset() -> Any:
        config = MicroSplitDataConfig(
            mode="training", data_type="array", axes="CYX", batch_size=BATCH_SIZE,
            patching={"name": "stratified", "patch_size": PATCH_SIZE},
            normalization={"name": "mean_std"}, multiscale_count=n_scales,
            padding_mode="reflect", alpha_ranges=[(0.3, 0.7)] * 2,
        )  # fmt: skip
        return factory.create_microsplit_dataset(config, factory.MultiChannelTarget([PIXELS]))

    def theirs() -> Any:
        made = dataset()
        return DataLoader(
            made, BATCH_SIZE, collate_fn=default_collate, **made.config.train_dataloader_params
        )

    return theirs, lambda: DatasetDataModule(dataset()).train_dataloader()


def endless(loader: Any) -> Iterator[Any]:
    """Yield the batches of one epoch after the other."""
    while True:
        yield from loader


def seconds_of_batches(sides: tuple[Callable[[], Any], ...], n: int) -> list[float]:
    """Return the median time until the next batch is there, of each side."""
    batches = [endless(make()) for make in sides]
    times: list[list[float]] = [[] for _ in sides]
    for _ in range(n + 2):
        for side, own in zip(batches, times, strict=True):
            start = time.perf_counter()
            next(side)
            own.append(time.perf_counter() - start)
    return [statistics.median(own[2:]) for own in times]


def training_seconds(kind: Any, n_steps: int) -> float:
    """Return how long a training of N2V takes, from images to the last step."""
    config = create_n2v_config(
        experiment_name="speed", axes="CYX", n_channels=2, num_epochs=1, num_steps=n_steps, **COMMON
    )
    with tempfile.TemporaryDirectory() as folder:
        trainee = kind(config, work_dir=folder, enable_progress_bar=False)
        start = time.perf_counter()
        trainee.train(train_data=PIXELS)
        return time.perf_counter() - start


def main() -> None:
    """Measure, print, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--steps", type=int, default=0, help="of a training of N2V, both sides")
    parser.add_argument("--rounds", type=int, default=2, help="of such trainings, in turn")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    found: dict[str, Any] = {}
    cases = {"N2V": basic("n2v"), "CARE": basic("care")} | {
        f"MicroSplit I, {n} scales": microsplit(n) for n in (1, 2, 4)
    }
    for name, sides in cases.items():
        theirs, ours = seconds_of_batches(sides, options.batches)
        found[name] = {"theirs": theirs, "ours": ours}
        print(f"{name:24}{theirs * 1e3:10.2f} ms{ours * 1e3:10.2f} ms{theirs / ours:8.1f}×")
    if options.steps:
        rounds = [
            [training_seconds(kind, options.steps) for kind in (careamics.CAREamist, CAREamist)]
            for _ in range(options.rounds)
        ]
        found["N2V training"] = rounds
        for theirs, ours in rounds:
            print(
                f"N2V, {options.steps} steps{theirs:17.1f} s {ours:10.1f} s {theirs / ours:8.2f}×"
            )
    if options.json:
        found["threads"] = torch.get_num_threads()
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
