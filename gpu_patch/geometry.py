"""Windows, borders and filters: the arithmetic of where a patch reads and with which weights.

It knows no image. Kernels of other languages repeat these formulas and are tested against them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, NamedTuple, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

Pixels = TypeVar("Pixels", int, NDArray[np.int64])

PaddingMode = Literal["reflect", "wrap", "periodic"]
"""How a window continues beyond the image; "zero", used for plain patches, comes on top."""
PADDING_MODES: tuple[str, ...] = get_args(PaddingMode)


def window_start(coords: Pixels, size: Pixels, scale: int) -> Pixels:
    """First pixel of the window of `scale` around a patch.

    The window is ``size · 2**scale`` long and centred on the patch's centre pixel
    ``coords + size // 2`` (careamics 0.3.5, `_extract_lc_patch`). Works on arrays too.
    """
    return coords + size // 2 - (size << scale) // 2


def folds_into_cut(mode: str) -> bool:
    """Whether a border mode maps onto the cut that upstream takes, rather than onto the image."""
    return mode in ("reflect", "wrap")


def border_range(start: int, size: int, n: int, mode: str) -> tuple[int, int]:
    """Return the range of image indices that the border rule `mode` maps onto.

    Parameters
    ----------
    start, size : int
        The cut that upstream takes and pads, P·2^L long: "reflect" and "wrap" fold into the part
        of it that lies in the image. For "reflect" that is the same as folding into the image,
        unless the patch's centre is outside; for "wrap" it is not.
    n : int
        Pixels of the image along this axis.
    mode : {"zero", "reflect", "wrap", "periodic"}
        The border rule.

    Returns
    -------
    lo, hi : int
        Half-open range; empty where the cut misses the image.
    """
    if not folds_into_cut(mode):
        return 0, n
    return min(max(start, 0), n), min(max(start + size, 0), n)


def mirror(index: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Fold indices into 0 … n − 1 by mirroring at both ends, the edge pixel not repeated."""
    if n == 1:
        return np.zeros_like(index)
    folded = np.mod(index, 2 * (n - 1))
    return np.where(folded >= n, 2 * (n - 1) - folded, folded)


def border_index(virtual: NDArray[np.int64], lo: int, hi: int, mode: str) -> NDArray[np.int64]:
    """Image index that each virtual coordinate reads, −1 where it reads zero."""
    if mode == "zero":
        return np.where((virtual >= lo) & (virtual < hi), virtual, -1)
    if mode == "reflect":
        return lo + mirror(virtual - lo, hi - lo)
    return lo + np.mod(virtual - lo, hi - lo)


class Stretch(NamedTuple):
    """A stretch of a window that reads the image at a constant stride.

    Window pixels ``at … at + length − 1`` read image pixels ``first``, ``first + step``, … with
    step +1 or −1.
    """

    at: int
    first: int
    length: int
    step: int

    @property
    def window(self) -> slice:
        """The stretch as a slice of the window."""
        return slice(self.at, self.at + self.length)

    @property
    def image(self) -> slice:
        """The pixels it reads as a slice of the image."""
        stop = self.first + self.step * self.length
        return slice(self.first, stop if stop >= 0 else None, self.step)


def border_stretches(start: int, size: int, lo: int, hi: int, mode: str) -> list[Stretch]:
    """Cut the window ``start … start + size − 1`` into stretches of constant stride.

    The same map as `border_index`, as a few slices instead of `size` indices. A window inside
    the image is one stretch; window pixels that read zero are in none.
    """
    if mode == "zero":
        first, last = max(start, lo), min(start + size, hi)
        return [Stretch(first - start, first, last - first, 1)] if first < last else []
    n = hi - lo
    stretches: list[Stretch] = []
    at = 0
    period = max(1, 2 * (n - 1)) if mode == "reflect" else n
    while at < size:
        phase = (start + at - lo) % period
        if phase < n:  # forwards; under "reflect" up to and with the last pixel
            length = min(n - phase, size - at)
            stretches.append(Stretch(at, lo + phase, length, 1))
        else:  # backwards: pixels n − 2 … 1
            length = min(period - phase, size - at)
            stretches.append(Stretch(at, lo + period - phase, length, -1))
        at += length
    return stretches


def fir_taps(scale: int) -> tuple[NDArray[np.float64], int]:
    """Taps of the anti-aliased downscaling by ``f = 2**scale`` along one axis.

    `skimage.transform.resize` with its defaults, which careamics 0.3.5 uses, is per axis a
    Gaussian of σ = (f − 1) / 2 cut at 4σ and then the mean of the two middle pixels. Both
    together are one FIR of stride f.

    Parameters
    ----------
    scale : int
        At least 0; scale 0 is a copy.

    Returns
    -------
    taps : array of float64
        1, 6, 14, 30, 62, … weights that sum to 1.
    offset : int
        Output i sums ``taps[k] · window[mirror(f · i + offset + k)]``.
    """
    if scale == 0:
        return np.ones(1), 0
    factor = 1 << scale
    sigma = (factor - 1) / 2
    radius = int(4 * sigma + 0.5)
    gauss = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    gauss /= gauss.sum()
    taps = np.zeros(2 * radius + 2)
    taps[:-1] += gauss / 2
    taps[1:] += gauss / 2
    return taps, factor // 2 - 1 - radius


class FirBlock(NamedTuple):
    """A few neighbouring outputs of a FIR as one small dense matrix.

    ``weights @ window[start : start + weights.shape[1]]`` gives outputs
    ``first … first + weights.shape[0] − 1``. The mirror at the window's edges is folded into the
    weights.
    """

    first: int
    start: int
    weights: NDArray[np.float32]


@lru_cache(maxsize=256)
def fir_blocks(size: int, scale: int, rows: int) -> tuple[FirBlock, ...]:
    """Operator that downscales ``size · 2**scale`` pixels to `size`, `rows` outputs at a time."""
    taps, offset = fir_taps(scale)
    n = size << scale
    outputs = np.arange(size)
    pixels = mirror((outputs[:, None] << scale) + offset + np.arange(len(taps)), n)
    blocks = []
    for first in range(0, size, rows):
        reads = pixels[first : first + rows]
        start, stop = int(reads.min()), int(reads.max()) + 1
        weights = np.zeros((len(reads), stop - start))
        np.add.at(weights, (np.arange(len(reads))[:, None], reads - start), taps)
        matrix = weights.astype(np.float32)
        matrix.setflags(write=False)
        blocks.append(FirBlock(first, start, matrix))
    return tuple(blocks)
