"""Datasets of careamics 0.3.5, the same at every call, and how their items are compared."""

from __future__ import annotations

import numpy as np
import torch
import zarr
from careamics.config.data.data_config import DataConfig
from careamics.config.data.microsplit_data_config import MicroSplitDataConfig
from careamics.dataset import factory, image_stack
from pixels import distinct
from tifffile import imwrite

from gpu_patch.careamics import from_careamics

MODES = ("multichannel", "independent", "paired", "pred", "n2v", "care", "tiles", "validation")
DATA_TYPES = ("array", "tiff", "tiff, one open", "zarr", "custom")


class FromNpy:
    """A custom image stack: the members of careamics' protocol and no more."""

    original_axes = "SCYX"

    def __init__(self, path):
        self.source, self._data = path, np.load(path)
        self.data_shape = self.original_data_shape = self._data.shape
        self.data_dtype = self._data.dtype

    def extract_patch(self, sample_idx, channels, coords, patch_size):
        stack = image_stack.InMemoryImageStack.from_array(self._data, "SCYX")
        return stack.extract_patch(sample_idx, channels, coords, patch_size)


LOADING = factory.ImageStackLoading(lambda source, axes: [FromNpy(path) for path in source])


def as_source(arrays, data_type, folder, name):
    """Put arrays SCYX where careamics reads them from; returns its source."""
    if data_type == "array":
        return arrays
    if data_type == "zarr":
        group = zarr.open_group(str(folder / f"{name}.zarr"), mode="w")
        for i, array in enumerate(arrays):
            # upstream's collate function needs shards in all stacks or in none
            shards = (1, 1, 16, 16) if name == "inputs" else None
            group.create_array(f"image_{i}", data=array, chunks=(1, 1, 8, 16), shards=shards)
        return [folder / f"{name}.zarr"]
    paths = []
    for i, array in enumerate(arrays):
        if data_type == "custom":
            paths.append(folder / f"{name}_{i}.npy")
            np.save(paths[-1], array)
        else:
            paths.append(folder / f"{name}_{i}.tiff")
            imwrite(paths[-1], array)
    return paths


def settings(mode, data_type, /, **more):
    training = mode not in ("pred", "tiles", "validation")
    size = {"patch_size": [16, 16]}
    names = {"pred": "tiled", "tiles": "tiled", "validation": "fixed_random"}
    found = {
        "mode": {"validation": "validating"}.get(mode, "training" if training else "predicting"),
        "data_type": data_type.partition(",")[0],
        "axes": "SCYX",
        "patching": {
            "name": names.get(mode, "random"),
            **size,
            **({"overlaps": [4, 6]} if names.get(mode) == "tiled" else {}),
        },
        "normalization": {"name": "none"},
        "batch_size": 4,
        "seed": 42,
        "num_workers": 0,
    }
    if data_type == "tiff, one open":
        found["in_memory"] = False
    return found | more


def make_dataset(mode, data_type, folder, /, **more):
    """A dataset from careamics' factories: the same one at every call."""
    images = [distinct((n, 3, 24, 40), "uint16", n) for n in (2, 1)]
    single = [array[:, :1] for array in images]
    loading = LOADING if data_type == "custom" else None
    found = settings(mode, data_type, **more)

    def source(arrays, name):
        return as_source(arrays, data_type, folder, name)

    if mode in ("n2v", "care", "tiles", "validation"):
        inputs = source(images, "inputs")
        targets = source([a[:, ::-1] for a in images], "targets") if mode == "care" else None
        return factory.create_dataset(DataConfig(**found), inputs, targets, loading)
    scales = {"multiscale_count": 3, "padding_mode": "reflect"}
    if mode == "pred":
        config = MicroSplitDataConfig(**scales | found)
        return factory.create_microsplit_pred_dataset(config, source(single, "single"), loading)
    if mode == "paired":
        config = MicroSplitDataConfig(**scales | found)
        data = factory.PairedInputTarget(source(single, "single"), source(images, "images"))
        return factory.create_microsplit_dataset(config, data, loading)
    config = MicroSplitDataConfig(**scales | {"alpha_ranges": [(0.2, 0.9)] * 3} | found)
    if mode == "independent":
        sources = [source([a[:, [c]] for a in images], f"channel_{c}") for c in range(3)]
        data = factory.IndependentTargets(sources)
    else:
        data = factory.MultiChannelTarget(source(images, "images"))
    return factory.create_microsplit_dataset(config, data, loading)


def converted(dataset):
    """The dataset with our constructor on the CPU."""
    dataset.patch_constructor = from_careamics(dataset.patch_constructor, device="cpu")
    return dataset


def assert_same(found, expected):
    """Nested tuples, lists and dicts of arrays, tensors and plain values are equal."""
    if isinstance(expected, (np.ndarray, torch.Tensor)):
        found, expected = np.asarray(found), np.asarray(expected)
        assert found.shape == expected.shape
        assert found.dtype == expected.dtype
        assert np.abs(found - expected).max() <= 1e-6 * np.abs(expected).max()
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, (tuple, list)):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    else:
        assert found == expected
