"""Predictions to write, the same in every process: pixels that all differ."""

from __future__ import annotations

import threading
from math import prod

import numpy as np

from gpu_patch.images.readers import Calibration
from gpu_patch.predict.outputs import OutputOptions, Predicted, Shard, open_store

SOURCES = ["a.tif", "b.tif", "c.tif"]
OPTIONS = {"chunk_size": (16, 64), "fingerprint": "model 1"}
SIZES = {"Z": 0.5, "Y": 0.25, "X": 0.125}


def make_store(
    out, sources, *, rank=0, world_size=1, variants=("",), fingerprint="", versions=None, **options
):
    """A store by all that is asked of it."""
    return open_store(
        OutputOptions(out, **options),
        Shard(rank, world_size),
        sources,
        variants=variants,
        fingerprint=lambda: fingerprint,
        versions=versions,
    )


def make_predicted(
    original_axes, *, n_channels=1, dtype="float32", slab_axis=0, name="a", sizes=SIZES, **lengths
):
    """The description of the prediction of an image with such axes."""
    length = {"S": 2, "T": 3, "C": 2, "Z": 5, "Y": 37, "X": 53, **lengths}
    spatial = [length[axis] for axis in "ZYX" if axis in original_axes]
    n_samples = prod(length[axis] for axis in "ST" if axis in original_axes)
    return Predicted(
        name,
        (n_samples, n_channels, *spatial),
        np.dtype(dtype),
        original_axes,
        tuple(length[axis] for axis in original_axes),
        Calibration(sizes),
        slab_axis,
        "image.tif",
    )


def make_images(names):
    """The predictions, of different shapes."""
    return {
        names[0]: make_predicted("YX", name=names[0], n_channels=2, Y=150, X=300),
        names[1]: make_predicted("TYX", name=names[1], Y=70, X=600, slab_axis=1),
        names[2]: make_predicted("YX", name=names[2], dtype="uint16", Y=40),
    }


def pixels(predicted, sample, start=0, stop=None):
    """Rows of a sample, C(Z)YX."""
    index = [np.arange(n) for n in predicted.shape[1:]]
    index[1 + predicted.slab_axis] = index[1 + predicted.slab_axis][start:stop]
    value = np.full((1,) * len(index), sample)
    for numbers, length in zip(np.ix_(*index), predicted.shape[1:], strict=True):
        value = value * length + numbers
    value = value * 7 % 65521
    if predicted.dtype.kind == "f":
        value = value / 16
    return value.astype(predicted.dtype)


def whole(predicted):
    """All of it, SC(Z)YX."""
    return np.stack([pixels(predicted, s) for s in range(predicted.shape[0])])


def units(store, predicted):
    """All units: sample, first row, one past the last."""
    length = predicted.size[predicted.slab_axis]
    rows = store.unit_rows(predicted.size, predicted.slab_axis)
    return [
        (sample, first, min(first + rows, length))
        for sample in range(predicted.shape[0])
        for first in range(0, length, rows)
    ]


def write_unit(output, predicted, unit, seed=0):
    """Write a unit in pieces of other heights for each seed."""
    sample, row, stop = unit
    rng = np.random.default_rng(seed)
    while row < stop:
        end = min(stop, row + int(rng.integers(1, 20)))
        output.write(sample, row, pixels(predicted, sample, row, end))
        row = end


def write_all(store, predicted, seed=0):
    """Write an image and return what it became."""
    output = store.open(predicted)
    for unit in units(store, predicted):
        write_unit(output, predicted, unit, seed)
    return output.finish()


def together(function, world_size):
    """Call a function with each rank at once; what they return or raise."""
    found = [None] * world_size

    def call(rank):
        try:
            found[rank] = function(rank)
        except Exception as error:
            found[rank] = error

    threads = [threading.Thread(target=call, args=(rank,)) for rank in range(world_size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found
