"""A check: there is room for all samples of a batch, which quantiles need."""

from __future__ import annotations

from gpu_patch import device as devices
from gpu_patch.checks import Message, argument
from gpu_patch.images.budget import free_host_bytes, size_text


def check_room(device: str, n_samples: int, n_tiles: int, tile_bytes: int) -> None:
    """Raise where a device has no room for samples and quantiles of a batch.

    Parameters
    ----------
    device : str
        "cpu" or "cuda:N".
    n_samples, n_tiles : int
        How many there are, in a batch.
    tile_bytes : int
        What all samples of a tile take, with their quantiles.

    Raises
    ------
    MemoryError
        The message says what would fit.
    """
    free = free_host_bytes() if device == "cpu" else devices.free_bytes(device)
    if free is None or n_tiles * tile_bytes <= free:
        return
    fits = free // tile_bytes
    what_fits = argument("batch_size", fits) if fits else "no tile"
    raise MemoryError(
        Message(
            f"quantiles keep all {n_samples} samples of a batch, {size_text(n_tiles * tile_bytes)} "
            f"for {n_tiles} tiles, and {size_text(free)} are free on {device}: ",
            what_fits,
            " fits; ",
            argument("channels"),
            " and fewer ",
            argument("n_samples"),
            " need less",
        )
    )
