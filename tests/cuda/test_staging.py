"""Pinned memory: used again, but never while a copy reads it."""

from __future__ import annotations

import numpy as np
import pytest
from emulation import fake_cupy
from emulation.gpu import gpu

from gpu_patch.device.pinned import PinnedPool


@pytest.fixture
def cupy():
    with fake_cupy.installed() as module:
        yield module


def pinned():
    return [action.what for action in gpu.log if action.kind == "pin"]


def copied(cupy, staging, value, nbytes=100):
    """Begin a copy; the device makes it later."""
    array = cupy.empty(nbytes, np.uint8)
    piece = staging.take(nbytes)
    piece.host[:nbytes] = value
    piece.copy_to(array)
    staging.give_back(piece)
    return array


def test_nothing_waits(cupy):
    staging = PinnedPool(cupy)
    arrays = [copied(cupy, staging, i) for i in range(5)]
    assert pinned() == [4096] * 5
    assert gpu.count("synchronize") == 0
    for i, array in enumerate(arrays):
        assert (array.get() == i).all()
    assert (copied(cupy, staging, 9).get() == 9).all()
    assert len(pinned()) == 5


def test_what_is_too_small_is_let_go(cupy):
    staging = PinnedPool(cupy)
    for i in range(2):
        copied(cupy, staging, i)
    gpu.finish()
    large = [copied(cupy, staging, i, 5000) for i in range(3)]
    assert pinned() == [4096, 4096, 8192, 8192, 8192]
    for i, array in enumerate(large):
        assert (array.get() == i).all()


def test_what_is_taken_is_nobody_elses(cupy):
    staging = PinnedPool(cupy)
    pieces = [staging.take(1) for _ in range(2)]
    for piece in pieces:
        staging.give_back(piece)
    first, second = staging.take(1), staging.take(1)
    assert {first, second} == set(pieces)
    assert first is not second
