"""A Lightning trainer that takes its batches from the feed."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from samples import make_sample

from gpu_patch import split_constructor
from gpu_patch.feed import BatchLoader

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")

from lightning.pytorch import LightningModule, Trainer  # noqa: E402
from lightning.pytorch.callbacks import ModelCheckpoint  # noqa: E402

from gpu_patch.lightning import PatchDataModule  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # of Lightning itself


class Recorder(LightningModule):
    """Learns next to nothing, and remembers what it was shown."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen, self.validated, self.predicted = [], [], []

    def training_step(self, batch, _):
        self.seen.append(batch.input.numpy().copy())
        return ((batch.input.mean() * self.weight - batch.target.mean()) ** 2) * 1e-9

    def validation_step(self, batch, _):
        self.validated.append(batch.input.numpy().copy())

    def predict_step(self, batch, _):
        assert batch.target is None
        return batch.input

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1e-9)


def constructor(kind="multichannel"):
    return make_sample(kind).constructor


def trainer(folder, **options):
    return Trainer(
        default_root_dir=folder, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, **options,
    )  # fmt: skip


def expected(n_epochs):
    loader = BatchLoader(constructor(), 6)
    return [batch.input for _ in range(n_epochs) for batch in loader]


def assert_same(found, wanted):
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


def test_epochs_and_validation(tmp_path):
    data = PatchDataModule(constructor(), 6, val=constructor("multichannel"))
    model = Recorder()
    trainer(tmp_path, max_epochs=2, enable_checkpointing=False).fit(model, data)
    assert_same(model.seen, expected(2))
    in_order = [b.input for b in BatchLoader(constructor(), 6, shuffle=False)]
    assert_same(model.validated, in_order * 2)


N_BATCHES = len(BatchLoader(constructor(), 6))


@pytest.mark.parametrize("stop", [5, N_BATCHES, N_BATCHES + 3])
def test_a_checkpoint_goes_on_with_the_next_batch(stop, tmp_path):
    """In the middle of an epoch, and at its last batch."""
    keep = ModelCheckpoint(tmp_path, every_n_train_steps=stop, save_top_k=-1)
    first = Recorder()
    trainer(tmp_path, max_steps=stop, callbacks=[keep]).fit(
        first, PatchDataModule(constructor(), 6)
    )
    (checkpoint,) = tmp_path.glob("*.ckpt")
    second = Recorder()
    trainer(tmp_path, max_epochs=2, enable_checkpointing=False).fit(
        second, PatchDataModule(constructor(), 6), ckpt_path=checkpoint, weights_only=False
    )
    assert_same(first.seen + second.seen, expected(2))


def test_a_checkpoint_at_the_end_of_an_epoch_goes_on_with_the_next_one(tmp_path):
    first = Recorder()
    trainer(tmp_path, max_epochs=1, callbacks=[ModelCheckpoint(tmp_path)]).fit(
        first, PatchDataModule(constructor(), 6)
    )
    (checkpoint,) = tmp_path.glob("*.ckpt")
    second = Recorder()
    trainer(tmp_path, max_epochs=3, enable_checkpointing=False).fit(
        second, PatchDataModule(constructor(), 6), ckpt_path=checkpoint, weights_only=False
    )
    assert_same(first.seen + second.seen, expected(3))


def test_epochs_that_are_left_early_differ(tmp_path):
    model = Recorder()
    trainer(tmp_path, max_epochs=3, limit_train_batches=2, enable_checkpointing=False).fit(
        model, PatchDataModule(constructor(), 6)
    )
    wanted = [expected(3)[epoch * N_BATCHES + i] for epoch in range(3) for i in range(2)]
    assert_same(model.seen, wanted)


def test_loaders_that_are_made_anew_go_on(tmp_path):
    model = Recorder()
    options = {"reload_dataloaders_every_n_epochs": 1, "enable_checkpointing": False}
    trainer(tmp_path, max_epochs=2, **options).fit(model, PatchDataModule(constructor(), 6))
    assert_same(model.seen, expected(2))


def test_prediction_in_order(tmp_path):
    data = PatchDataModule(None, 5, predict=constructor("pred"))
    found = trainer(tmp_path).predict(Recorder(), data)
    wanted = [b.input for b in BatchLoader(constructor("pred"), 5, shuffle=False)]
    assert_same([tensor.numpy() for tensor in found], wanted)


def test_processes_that_the_trainer_knows_are_no_surprise(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    data = PatchDataModule(constructor(), 6, val=constructor(), predict=constructor())
    data.trainer = SimpleNamespace(global_rank=1, world_size=2, current_epoch=0)
    for made in (data.train_dataloader(), data.val_dataloader(), data.predict_dataloader()):
        assert (made.loader.rank, made.loader.world_size) == (1, 2)
    data.trainer = None  # nobody knows
    with pytest.warns(UserWarning, match="one of 2, but rank and world_size are not given"):
        data.train_dataloader()


@pytest.mark.parametrize("part", [0.2, 3])
def test_validation_that_is_split_off(part, tmp_path):
    data = PatchDataModule(constructor(), 6, val=part, seed=4)
    training, validation, _ = split_constructor(constructor(), part, seed=4)
    model = Recorder()
    trainer(tmp_path, max_epochs=2, enable_checkpointing=False).fit(model, data)
    assert_same(model.seen[: len(data.train_dataloader())],
                [b.input for b in BatchLoader(training, 6, seed=4)])  # fmt: skip
    in_order = [b.input for b in BatchLoader(validation, 6, shuffle=False, seed=4)]
    assert_same(model.validated, in_order * 2)
    assert data.splits[0].parts.validated > 0
    with pytest.raises(ValueError, match="fraction_or_count"):
        PatchDataModule(constructor(), 6, val=1.5)


def test_wrong_arguments():
    with pytest.raises(TypeError, match="val must be one of gpu_patch's constructors"):
        PatchDataModule(constructor(), 4, val=[1])
    with pytest.raises(TypeError, match="the trainer knows"):
        PatchDataModule(constructor(), 4, rank=1)
