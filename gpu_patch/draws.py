"""Random draws: by counter for batches, in upstream's call order for single patches.

Batches draw from Philox4x32-10, a counter-based generator (Salmon, Moraes, Dror and Shaw,
"Parallel random numbers: as easy as 1, 2, 3", SC'11). Its key is the seed, and its counter names
the draw: epoch, sample index, purpose (what the number is for) and channel. So every draw is a
function of those alone, the same in any batch, order, process and backend.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Sequence
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpu_patch.checks import whole_number

_MULTIPLIERS = np.array([[0xD2511F53], [0xCD9E8D57]], np.uint64)
_WEYL = np.array([0x9E3779B9, 0xBB67AE85], np.uint64)
_LOW = np.uint64(0xFFFFFFFF)
_ROUNDS = 10
_HIGH = int(sys.byteorder == "little")


class DrawPurpose(IntEnum):
    """What a draw is for; part of the counter, so values must never change."""

    LOCATION = 0
    UNCORRELATED = 1
    PARTNER = 2
    WEIGHT = 3
    AUGMENTATION = 4
    ABSENT = 5
    ORDER = 6


def philox4x32(counter: NDArray[np.uint64], key: tuple[int, int]) -> NDArray[np.uint64]:
    """Philox4x32-10.

    Parameters
    ----------
    counter : array of uint64, shape (4, ...)
        Four words of 32 bits each.
    key : tuple of int
        Two words of 32 bits.

    Returns
    -------
    array of uint64, shape (4, ...)
        Four random words of 32 bits each.
    """
    words = counter.reshape(4, -1)
    # a round multiplies words 0 and 2, whose products change places and are read as two halves:
    # few calls, since on short arrays the time goes into these
    even = words[0::2].copy()
    odd = words[1::2].astype(np.uint32)
    products = np.empty((2, 2, words.shape[1]), np.uint64)
    halves = products.view(np.uint32).reshape(*products.shape, 2)[:, ::-1]
    for number, round_key in enumerate(_round_keys(key)):
        np.multiply(even, _MULTIPLIERS, out=products[number % 2])
        half = halves[number % 2]
        np.bitwise_xor(half[..., _HIGH], odd, out=even)
        np.bitwise_xor(even, round_key, out=even)
        odd = half[..., 1 - _HIGH]
    drawn = np.empty((2, 2, words.shape[1]), np.uint64)
    drawn[:, 0], drawn[:, 1] = even, odd
    return drawn.reshape(counter.shape)


@lru_cache(maxsize=16)
def _round_keys(key: tuple[int, int]) -> NDArray[np.uint64]:
    keys = np.array(key, np.uint64) + np.arange(_ROUNDS, dtype=np.uint64)[:, None] * _WEYL
    return (keys & _LOW)[:, :, None]


class DrawSpec(NamedTuple):
    """Uniform numbers that each sample needs for one purpose and channel."""

    purpose: DrawPurpose
    channel: int
    n_uniforms: int


def counter_words(draw_specs: Sequence[DrawSpec]) -> NDArray[np.uint64]:
    """Return what the counters of a sample's blocks have beside its index, (blocks, 2).

    A block gives two numbers. The counter of block b of a spec is, from its first word on: index
    mod 2^32; epoch; purpose · 2^24 + index div 2^32; b · 2^24 + channel.
    """
    blocks = [
        (spec.purpose << 24, block << 24 | spec.channel)
        for spec in draw_specs
        for block in range(-(-spec.n_uniforms // 2))
    ]
    return np.array(blocks, np.uint64).reshape(-1, 2)


def draw(
    words: NDArray[np.uint64], seed: int, epoch: int, index: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Draw the numbers in [0, 1) of some samples.

    Parameters
    ----------
    words : array of uint64, shape (blocks, 2)
        See `counter_words`.
    seed : int
        Key, 0 ≤ seed < 2^64.
    epoch : int
        0 ≤ epoch < 2^32.
    index : array of int, shape (B,)
        Sample indices, 0 ≤ index < 2^56.

    Returns
    -------
    array of float64, shape (B, 2 · blocks)
    """
    samples = index.astype(np.uint64)
    counter = np.empty((4, len(words), len(samples)), np.uint64)
    counter[0] = samples & _LOW
    counter[1] = epoch
    counter[2] = words[:, :1] | samples >> np.uint64(32)
    counter[3] = words[:, 1:]
    drawn = philox4x32(counter, (seed & 0xFFFFFFFF, seed >> 32))
    bits = drawn[0::2] << np.uint64(32) | drawn[1::2]
    uniforms = (bits >> np.uint64(11)) * 2.0**-53
    return np.ascontiguousarray(uniforms.transpose(2, 1, 0)).reshape(len(index), -1)


def integers(uniforms: NDArray[np.float64], count: object) -> NDArray[np.int64]:
    """Turn numbers in [0, 1) into whole numbers in 0 … count − 1 (`count` may be an array)."""
    return (uniforms * count).astype(np.int64)  # type: ignore[operator,no-any-return]


def checked_seed(seed: int | None) -> int:
    """Return `seed` as a key, a fresh one for None."""
    if seed is None:
        return secrets.randbits(64)
    return whole_number("seed", seed, minimum=0, maximum=2**64 - 1)


class RestoredOnError:
    """Puts NumPy generators back to where they were when the block raises."""

    def __init__(self, generators: Sequence[object]) -> None:
        self._generators = [g for g in generators if isinstance(g, np.random.Generator)]

    def __enter__(self) -> None:
        self._states = [generator.bit_generator.state for generator in self._generators]

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            for generator, state in zip(self._generators, self._states, strict=True):
                generator.bit_generator.state = state
