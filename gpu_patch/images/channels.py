"""Which channels of an image are asked for."""

from __future__ import annotations

from gpu_patch.checks import shorten, whole_number


def checked_channels(channels: object, n_channels: int) -> list[int]:
    """Return the channels asked for, all for None.

    Parameters
    ----------
    channels : sequence of int or None
        Each in 0 … n_channels − 1, in the order wanted.
    n_channels : int
        Number of channels that there are.

    Returns
    -------
    list of int
        At least one.

    Raises
    ------
    TypeError, ValueError
        `channels` is anything else.
    """
    if channels is None:
        return list(range(n_channels))
    if isinstance(channels, (str, bytes)) or not hasattr(channels, "__iter__"):
        raise TypeError(
            f"channels must be a sequence of channel indices or None, found {shorten(channels)}"
        )
    chosen = [
        whole_number(f"channels[{i}]", c, minimum=0, maximum=n_channels - 1)
        for i, c in enumerate(channels)
    ]
    if not chosen:
        raise ValueError("channels is empty: name at least one channel, or None for all")
    return chosen
