"""What an OME-Zarr stores together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gpu_patch.checks import whole_numbers

_CHUNKS = {2: (256, 256), 3: (16, 128, 128)}
"""(Z)YX: 0.25 and 1 MiB of float32."""


@dataclass(frozen=True)
class Storage:
    """Chunks, and shards of them where wanted.

    Parameters
    ----------
    chunk_size, shard_size : sequence of int or None
        (Z)YX, as in `make_store`.
    """

    chunk_size: Sequence[int] | None = None
    shard_size: Sequence[int] | None = None

    @property
    def asked(self) -> dict[str, list[int] | None]:
        """What was asked for, as JSON has it."""
        asked = {"chunk_size": self.chunk_size, "shard_size": self.shard_size}
        return {
            name: None if size is None else list(whole_numbers(name, size, minimum=1))
            for name, size in asked.items()
        }

    def of(self, size: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
        """Return the chunk and the shard of an image (Z)YX, no longer than it needs them."""
        ndim = len(size)
        wanted = _CHUNKS[ndim] if self.chunk_size is None else self.chunk_size
        chunk = whole_numbers("chunk_size", wanted, minimum=1, length=ndim)
        short = tuple(map(min, chunk, size))
        if self.shard_size is None:
            return short, None
        shard = whole_numbers("shard_size", self.shard_size, minimum=1, length=ndim)
        if any(s % c for s, c in zip(shard, chunk, strict=True)):
            raise ValueError(
                f"shard_size must be a multiple of chunk_size {chunk} along each axis, "
                f"found {shard}"
            )
        return short, tuple(
            s * min(n_chunks // c, -(-n // s))
            for s, c, n_chunks, n in zip(short, chunk, shard, size, strict=True)
        )

    def together(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Return what is written at once, (Z)YX: a shard or a chunk."""
        chunk, shard = self.of(size)
        return shard or chunk
