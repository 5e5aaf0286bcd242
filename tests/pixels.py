"""Images in which every pixel tells where it is, as far as the data type has room for it."""

from __future__ import annotations

from math import prod

import numpy as np

DTYPES = ("bool", "uint8", "int8", "uint16", "int16", "float16", "float32")


def distinct(shape, dtype, seed=0):
    """A shuffled ramp over the whole range of a small integer type, or over exact floats."""
    order = np.random.default_rng(seed).permutation(prod(shape)).reshape(shape)
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return order % 2 == 1
    if dtype.kind in "iu":
        limits = np.iinfo(f"{dtype.kind}{min(dtype.itemsize, 2)}")
        return (order * 7919 % (limits.max - limits.min + 1) + limits.min).astype(dtype)
    if dtype == np.float16:  # whole numbers are exact up to 2048
        return (order % 2039 - 700).astype(dtype)
    return (order % 100003 / 2 - 12345.25).astype(dtype)


LABEL_DTYPES = ("bool", *(f"{kind}{bits}" for bits in (8, 16, 32, 64) for kind in ("uint", "int")))


def labels(shape, dtype, seed=0):
    """Integers over the whole range of a type, its ends among them, far beyond what floats hold."""
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return distinct(shape, dtype, seed)
    order = np.random.default_rng(seed).permutation(prod(shape)).astype(np.uint64)
    # an odd factor: neighbours differ in all bits, and none is met twice where there is room
    bits = order * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(64 - 8 * dtype.itemsize)
    found = bits.astype(f"u{dtype.itemsize}").view(dtype)
    limits = np.iinfo(dtype)
    found[:2] = [limits.max, limits.min][: len(found)]
    return found.reshape(shape)
