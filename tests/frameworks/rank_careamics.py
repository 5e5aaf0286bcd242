"""One rank of a training of CAREamics: `torchrun tests/frameworks/rank_careamics.py FOLDER`.

Lightning's DDP trains N2V for two epochs; each rank writes down which patches it saw, and what
became of the network.
"""

from __future__ import annotations

import hashlib
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from careamics.config.factories import create_advanced_n2v_config
from careamics.lightning.modules import create_module
from lightning.pytorch import Callback, Trainer, seed_everything

from gpu_patch.careamics.lightning import CareamicsDataModule

N_EPOCHS = 2


def make_config() -> Any:
    """Return a configuration, which validates on patches of the image that is trained on."""
    return create_advanced_n2v_config(
        experiment_name="ranks", data_type="array", axes="YX", patch_size=[16, 16], batch_size=3,
        seed=3, num_workers=0, n_val_patches=4, masked_pixel_percentage=2,
        model_params={"depth": 1, "num_channels_init": 8},
    )  # fmt: skip


def make_data(config: Any) -> CareamicsDataModule:
    """Return the data module of an image."""
    pixels = np.random.default_rng(0).normal(100, 20, (112, 96)).astype(np.float32)
    return CareamicsDataModule(config.data_config, train_data=pixels, device="cpu")


def hashes(batch: Any) -> list[str]:
    """Return a hash of each patch."""
    return [hashlib.sha256(np.ascontiguousarray(patch)).hexdigest() for patch in batch[0].data]


class Seen(Callback):  # type: ignore[misc]
    """The patches of each epoch of a training, and those of each validation."""

    def __init__(self) -> None:
        self.training: list[list[str]] = [[] for _ in range(N_EPOCHS)]
        self.validation: list[list[str]] = [[] for _ in range(N_EPOCHS)]

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, number: int) -> None:
        """Note what is trained on."""
        self.training[trainer.current_epoch] += hashes(batch)

    def on_validation_batch_start(
        self, trainer: Any, module: Any, batch: Any, number: int, which: int = 0
    ) -> None:
        """Note what is validated on."""
        self.validation[trainer.current_epoch] += hashes(batch)


def main(folder: str) -> None:
    """Train, and write what was seen."""
    warnings.simplefilter("ignore")
    seed_everything(1)
    config, seen = make_config(), Seen()
    module = create_module(config.algorithm_config)
    trainer = Trainer(
        accelerator="cpu", devices=2, strategy="ddp", max_epochs=N_EPOCHS, logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        num_sanity_val_steps=0, callbacks=[seen],
    )  # fmt: skip
    trainer.fit(model=module, datamodule=make_data(config))
    weights = b"".join(p.detach().numpy().tobytes() for p in module.parameters())
    found = {
        "world_size": trainer.world_size,
        "training": seen.training,
        "validation": seen.validation,
        "weights": hashlib.sha256(weights).hexdigest(),
    }
    Path(folder, f"{trainer.global_rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
