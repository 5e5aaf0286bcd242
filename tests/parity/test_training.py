"""Trainings of careamics 0.3.5 itself, fed by this package."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from pixels import distinct

pytest.importorskip("careamics", reason="what is trained is careamics 0.3.5")

import careamics
import torch
from careamics.config.factories import create_advanced_care_config, create_advanced_n2v_config
from careamics.dataset import factory
from careamics.lightning.data import CareamicsDataModule as TheirDataModule
from careamics.lightning.modules import create_module
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from upstream_datasets import assert_same, make_dataset

import gpu_patch
from gpu_patch.careamics.lightning import CareamicsDataModule, CAREamist, DatasetDataModule
from gpu_patch.feed import Normalization

pytestmark = pytest.mark.filterwarnings("ignore")  # of Lightning and careamics themselves

IMAGE = np.random.default_rng(0).normal(100, 20, (96, 112)).astype(np.float32)
CLEAN = np.roll(IMAGE, 1, 0) / 2


@pytest.fixture(autouse=True)
def quiet(monkeypatch, tmp_path):
    """Warnings of others are theirs; whatever is left behind is in a folder of the test."""
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def configuration(algorithm, n_epochs=1, **more):
    create = create_advanced_care_config
    if algorithm == "n2v":
        create, more["masked_pixel_percentage"] = create_advanced_n2v_config, 2
    return create(
        experiment_name="trial", data_type="array", axes="YX", patch_size=[16, 16], batch_size=4,
        seed=3, num_epochs=n_epochs, num_workers=0, n_val_patches=4,
        model_params={"depth": 1, "num_channels_init": 8}, **more,
    )  # fmt: skip


def data(algorithm):
    return {"train_data": IMAGE, "train_data_target": CLEAN if algorithm == "care" else None}


class Losses(Callback):
    def __init__(self):
        self.training, self.validation = [], []

    def on_train_batch_end(self, trainer, module, outputs, batch, number):
        self.training.append(outputs["loss"].item())

    def on_validation_epoch_end(self, trainer, module):
        self.validation.append(trainer.callback_metrics["val_loss"].item())


def trainer(**options):
    return Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        **options,
    )  # fmt: skip


def trained(kind, algorithm, config, **options):
    """The losses of a training, and what was trained."""
    seed_everything(1)
    losses = Losses()
    model = create_module(config.algorithm_config)
    module = kind(config.data_config, **data(algorithm), **options)
    keep = {"enable_checkpointing": False, "num_sanity_val_steps": 0}
    trainer(callbacks=[losses], max_epochs=config.training_config.trainer_params["max_epochs"],
            **keep).fit(model, datamodule=module)  # fmt: skip
    return losses, model


@pytest.mark.parametrize("algorithm", ["n2v", "care"])
def test_losses_with_upstreams_draws_are_upstreams_to_the_digit(algorithm):
    theirs, _ = trained(TheirDataModule, algorithm, configuration(algorithm, 2))
    ours, _ = trained(
        CareamicsDataModule, algorithm, configuration(algorithm, 2), strategies="theirs"
    )
    assert len(theirs.training) > 10
    assert ours.training == theirs.training
    assert ours.validation == theirs.validation


@pytest.mark.parametrize("algorithm", ["n2v", "care"])
def test_losses_with_own_draws_are_of_the_same_size(algorithm):
    theirs, _ = trained(TheirDataModule, algorithm, configuration(algorithm, 8))
    ours, _ = trained(CareamicsDataModule, algorithm, configuration(algorithm, 8))
    last = [np.mean(losses.training[-40:]) for losses in (ours, theirs)]
    assert last[0] == pytest.approx(last[1], rel=0.25)
    # the same validation patches in each epoch: what differs is the network, and what N2V masks
    assert len(ours.validation) == 8


@pytest.mark.parametrize(
    "mode", ["n2v", "care", "multichannel", "independent", "paired", "pred", "tiles", "validation"]
)
def test_batches_without_draws_are_those_of_upstreams_loader(mode, tmp_path):
    """Pixels, specs and metadata, as upstream's loader collates them."""
    more = {"normalization": {"name": "mean_std", "per_channel": False}}
    if mode in ("n2v", "care", "multichannel", "independent", "paired"):
        more |= {"mode": "validating", "patching": {"name": "fixed_random", "patch_size": [16, 16]}}
    if mode in ("multichannel", "independent"):
        more["alpha_ranges"] = None
    dataset = make_dataset(mode, "array", tmp_path, **more)
    module = DatasetDataModule(dataset, dataset, dataset)
    found = list(module.val_dataloader())
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=4, collate_fn=torch.utils.data.default_collate
    )
    expected = list(loader)
    assert len(found) == len(expected) > 1
    if mode == "independent":  # whose partners are drawn
        found, expected = (
            [[part._replace(data=0, region_spec=0) for part in batch] for batch in batches]
            for batches in (found, expected)
        )
        for part in (p for batch in (*found, *expected) for p in batch):
            part.additional_metadata.clear()
    for ours, theirs in zip(found, expected, strict=True):
        assert [type(part).__name__ for part in ours] == ["ImageRegionData"] * len(theirs)
        for part, upstream in zip(ours, theirs, strict=True):
            if mode != "independent":
                scale = np.abs(np.asarray(upstream.data)).max()
                np.testing.assert_allclose(part.data, upstream.data, rtol=0, atol=2e-6 * scale)
            assert_same(part._replace(data=0), upstream._replace(data=0))


def test_careamist(tmp_path):
    """Trained and predicting by another import, with `predict` of both packages."""
    ours = CAREamist(configuration("care"), work_dir=tmp_path, enable_progress_bar=False)
    ours.train(**data("care"))
    assert type(ours.train_datamodule) is CareamicsDataModule
    assert np.isfinite(ours.get_losses().val_loss.value).all()
    assert careamics.careamist.CareamicsDataModule is TheirDataModule
    tiles = {"tile_size": (32, 32), "tile_overlap": (8, 8)}
    (found,), _ = ours.predict(IMAGE, **tiles)
    theirs = careamics.CAREamist(
        checkpoint_path=ours.get_checkpoints()[-1], work_dir=tmp_path, enable_progress_bar=False
    )
    (expected,), _ = theirs.predict(IMAGE, **tiles)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * scale)
    stack = gpu_patch.ImageStack.from_array(IMAGE, "YX", device="cpu")
    own = gpu_patch.predict(
        stack, theirs.model.model, tile_size=(32, 32), overlaps=(8, 8), batch_size=4,
        normalization=Normalization.from_careamics(ours.config.data_config.normalization),
        progress=False,
    ).images[0]  # fmt: skip
    np.testing.assert_allclose(np.squeeze(own), expected, rtol=0, atol=1e-5 * scale)
    (whole,), _ = ours.predict(IMAGE)
    (expected,), _ = theirs.predict(IMAGE)
    np.testing.assert_allclose(whole, expected, rtol=0, atol=1e-5 * scale)


class Seen(Callback):
    def __init__(self):
        self.batches = []

    def on_train_batch_start(self, trainer, module, batch, number):
        self.batches.append(np.asarray(batch[0].data).copy())


def fit(n_steps=-1, **options):
    config, seen = configuration("n2v", 2), Seen()
    model = create_module(config.algorithm_config)
    path, more = options.pop("ckpt_path", None), options.pop("callbacks", [])
    made = trainer(callbacks=[seen, *more], max_steps=n_steps, num_sanity_val_steps=0, **options)
    module = CareamicsDataModule(config.data_config, **data("n2v"))
    made.fit(model, datamodule=module, ckpt_path=path, weights_only=False)
    return seen.batches, made, model, module


def test_a_checkpoint_in_the_middle_of_an_epoch_goes_on_with_the_next_batch(tmp_path):
    whole, *_ = fit(max_epochs=2, enable_checkpointing=False)
    keep = ModelCheckpoint(tmp_path, every_n_train_steps=5, save_top_k=-1)
    first, *_ = fit(5, callbacks=[keep])
    (checkpoint,) = tmp_path.glob("*.ckpt")
    rest, *_ = fit(max_epochs=2, enable_checkpointing=False, ckpt_path=checkpoint)
    assert len(whole) > 12
    assert_same(first + rest, whole)


def test_fit_twice_goes_on_with_the_next_epochs():
    whole, *_ = fit(max_epochs=2, enable_checkpointing=False)
    seen, made, model, module = fit(max_epochs=1, enable_checkpointing=False)
    made.fit_loop.max_epochs = 2
    made.fit(model, datamodule=module)
    assert_same(seen, whole)


def test_early_stopping(tmp_path):
    stop = {"monitor": "val_loss", "patience": 1, "min_delta": 1e9}
    config = configuration("care", 30, early_stopping_params=stop)
    found = CAREamist(config, work_dir=tmp_path, enable_progress_bar=False)
    found.train(**data("care"))
    assert found.trainer.current_epoch < 5


def test_ranks_share_an_epoch():
    config = configuration("n2v")
    seen = []
    for rank in range(2):
        module = CareamicsDataModule(config.data_config, device="cpu", **data("n2v"))
        module.setup("fit")
        module.trainer = SimpleNamespace(global_rank=rank, world_size=2, current_epoch=0)
        batches = module.train_dataloader()
        seen.append([patch.numpy().tobytes() for (b,) in batches for patch in b.data])
    assert len(seen[0]) == len(seen[1]) > 10
    assert not set(seen[0]) & set(seen[1])


def test_upstreams_strategy_and_ranks():
    """The message names the argument that helps."""
    config = configuration("n2v").data_config
    dataset = factory.create_train_dataset(config, factory.TrainValSplitData([IMAGE], 2), None)
    module = DatasetDataModule(dataset, strategies="theirs", device="cpu")
    module.trainer = SimpleNamespace(global_rank=0, world_size=2, current_epoch=0)
    with pytest.raises(ValueError, match=r"not by counter.*strategies='own'"):
        module.train_dataloader()
    module = DatasetDataModule(dataset, device="cpu")
    module.trainer = SimpleNamespace(global_rank=0, world_size=2, current_epoch=0)
    assert module.train_dataloader().loader.constructor.draws_by_counter


def corners(loader):
    """Image, sample and first pixel of all patches."""
    for batch in loader:
        spec = batch[0].region_spec
        columns = [spec["data_idx"], spec["sample_idx"], *spec["coords"]]
        yield from zip(*(column.tolist() for column in columns), strict=True)


@pytest.mark.parametrize("patching", ["stratified", "random"])
def test_validation_is_split_off_without_leaks(patching):
    config = configuration("care").data_config
    config.patching = {"name": patching, "patch_size": [16, 16]}
    module = CareamicsDataModule(config, device="cpu", **data("care"))
    module.setup("fit")
    held = np.zeros(IMAGE.shape, bool)
    first = list(corners(module.val_dataloader()))
    assert len(first) == config.n_val_patches
    for _, _, y, x in first:
        held[y : y + 16, x : x + 16] = True
    assert module.split.parts.validated == held.mean()
    loader = module.train_dataloader()
    for _ in range(20):
        for _, _, y, x in corners(loader):
            assert not held[y : y + 16, x : x + 16].any()
    assert list(corners(module.val_dataloader())) == first
    # the same in another run
    again = CareamicsDataModule(config, device="cpu", **data("care"))
    again.setup("validate")
    assert list(corners(again.val_dataloader())) == first


@pytest.mark.parametrize("mode", ["n2v", "care", "multichannel", "independent", "paired"])
def test_validation_is_split_off_datasets(mode, tmp_path):
    dataset = make_dataset(mode, "array", tmp_path)
    strategy = dataset.patch_constructor
    module = DatasetDataModule(dataset, 2, device="cpu")
    assert dataset.patch_constructor is strategy
    assert str(module.val_dataset.config.mode) == "validating"
    assert len(list(corners(module.val_dataloader()))) == 2
    assert len(list(corners(module.train_dataloader()))) == len(module.train_dataset) > 2
    assert len(module.splits) == (3 if mode == "independent" else 1)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="strategies must be one of 'own', 'theirs'"):
        DatasetDataModule(None, strategies="mine")
    with pytest.raises(TypeError, match="strategies must be one of 'own', 'theirs'"):
        CareamicsDataModule(configuration("n2v").data_config, strategies=1, **data("n2v"))


def test_distinct_pixels_reach_the_module_as_they_are():
    """What is normalised and turned is still the image's."""
    pixels = distinct((96, 112), "uint16")
    config = configuration("n2v", augmentations=[], normalization="none").data_config
    module = CareamicsDataModule(config, train_data=pixels, device="cpu")
    module.setup("fit")
    ((region,), *_) = module.train_dataloader()
    for patch, y, x in zip(region.data, *region.region_spec["coords"], strict=True):
        np.testing.assert_array_equal(patch[0], pixels[y : y + 16, x : x + 16])
