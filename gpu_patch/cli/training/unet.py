"""A small U-Net (Ronneberger et al., 2015), in plain PyTorch."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn.functional import max_pool2d

FACTOR = 4
"""Y and X must be multiples of this."""


class UNet(nn.Module):  # type: ignore[misc]
    """From channels to channels of the same size, over three resolutions.

    Without normalisation layers, which would take the brightness of a patch away.

    Parameters
    ----------
    n_inputs, n_outputs : int
        Channels in and out.
    width : int, default 16
        Channels at full resolution; twice as many at each level below.
    """

    def __init__(self, n_inputs: int, n_outputs: int, width: int = 16) -> None:
        super().__init__()
        widths = [width, 2 * width, FACTOR * width]
        self.down = nn.ModuleList(_block(a, b) for a, b in pairwise([n_inputs, *widths]))
        upwards = list(pairwise(reversed(widths)))
        self.enlarge = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in upwards)
        self.up = nn.ModuleList(_block(a, b) for a, b in upwards)
        self.head = nn.Conv2d(width, n_outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, n_inputs, Y, X) to (B, n_outputs, Y, X)."""
        skips = []
        for level, block in enumerate(self.down):
            x = block(max_pool2d(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for enlarge, block in zip(self.enlarge, self.up, strict=True):
            x = block(torch.cat([enlarge(x), skips.pop()], dim=1))
        return self.head(x)


def _block(n_inputs: int, n_outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(n_inputs, n_outputs, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(n_outputs, n_outputs, 3, padding=1),
        nn.ReLU(inplace=True),
    )
