"""A picture of cells that never lived: two fluorescent structures, for trying things out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float64]

_CELL_SPACING = 128
_MARGIN = 96
"""Pixels made around the picture and cut off, so that structures run out of it."""
_CAMERA_OFFSET = 100
_COUNTS_PER_PHOTON = 4
_READ_NOISE = 6.0
_HIGHEST = 60000


def make_phantom(size: int, seed: int) -> NDArray[np.uint16]:
    """Make a two-channel fluorescence image of cells.

    Channel 0 holds filaments that grow out of the cells' centres, some of them out of focus,
    channel 1 the nuclei. Both have out-of-focus haze, photon (Poisson) noise, and the read noise
    and offset of a camera.

    Parameters
    ----------
    size : int
        Pixels along Y and X.
    seed : int
        The same seed gives the same image.

    Returns
    -------
    array of uint16, shape (2, size, size)
        Axes CYX.
    """
    rng = np.random.default_rng(seed)
    full = size + 2 * _MARGIN
    centres = _cell_centres(rng, full)
    radii = rng.uniform(24, 34, len(centres))
    channels = [
        240 * _filaments(rng, centres, radii, full),
        300 * _nuclei(rng, centres, radii, full),
    ]
    inner = slice(_MARGIN, -_MARGIN)
    return np.stack([photograph(rng, channel[inner, inner]) for channel in channels])


def _cell_centres(rng: np.random.Generator, full: int) -> Image:
    """Return positions (n, 2) on a shaken grid: irregular, yet never on top of each other."""
    line = np.arange(_CELL_SPACING / 2, full, _CELL_SPACING)
    grid = np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2)
    # every other column is shifted by half a cell, so that no rows are seen
    grid[:, 0] += np.tile(np.arange(len(line)) % 2, len(line)) * _CELL_SPACING / 2
    return grid + rng.uniform(-0.22, 0.22, grid.shape) * _CELL_SPACING


def _filaments(rng: np.random.Generator, centres: Image, radii: Image, full: int) -> Image:
    """Draw curves that leave the nuclei and wander off, as microtubules do."""
    n_steps, step, per_cell = 480, 0.5, 45
    origin = np.repeat(centres, per_cell, axis=0)
    n = len(origin)
    outwards = rng.uniform(0, 2 * np.pi, n)
    bend = np.cumsum(_smooth_noise(rng, (n, n_steps), 90) * 0.008, axis=1)
    heading = (outwards + rng.normal(0, 0.5, n))[:, None] + bend
    direction = np.stack([np.sin(heading), np.cos(heading)], axis=-1)
    reach = np.repeat(radii, per_cell) * rng.uniform(0.5, 1.1, n)
    start = origin + reach[:, None] * np.stack([np.sin(outwards), np.cos(outwards)], axis=-1)
    path = start[:, None] + step * np.cumsum(direction, axis=1)

    length = rng.gamma(5, 40, n)[:, None]
    along = np.arange(n_steps) / length
    brightness = np.clip(1 + 0.35 * _smooth_noise(rng, (n, n_steps), 40), 0.1, None)
    brightness *= rng.lognormal(0, 0.45, n)[:, None] * (along < 1) * (1 - 0.5 * along)

    # three depths: in focus, a little and far out of it
    depth = rng.choice(3, n, p=[0.6, 0.25, 0.15])
    picture = np.zeros((full, full))
    for layer, sigma in enumerate((1.2, 2.6, 6.0)):
        picture += _blur(_splat(path[depth == layer], brightness[depth == layer], full), sigma)
    return picture + 0.5 * _blur(picture, 24)


def _nuclei(rng: np.random.Generator, centres: Image, radii: Image, full: int) -> Image:
    """Draw bent ellipses with a mottled inside and a few dark nucleoli."""
    picture = np.zeros((full, full))
    mottle = _texture(rng, full, 2.2) + 0.7 * _texture(rng, full, 6)
    for centre, radius in zip(centres, radii, strict=True):
        low = np.clip((centre - 2 * radius).astype(int), 0, full)
        high = np.clip((centre + 2 * radius).astype(int), 0, full)
        y, x = np.ogrid[low[0] : high[0], low[1] : high[1]]
        tilt = rng.uniform(0, np.pi)
        squeeze = rng.uniform(0.72, 1.0)
        dy, dx = y - centre[0], x - centre[1]
        u, v = (dx * np.cos(tilt) + dy * np.sin(tilt)), (dy * np.cos(tilt) - dx * np.sin(tilt))
        angle = np.arctan2(v, u)
        outline = radius * (1 + sum(rng.normal(0, 0.03) * np.cos(k * angle) for k in (2, 3)))
        inside = 1 / (1 + np.exp((np.hypot(u, v / squeeze) - outline) / 1.2))
        for _ in range(rng.integers(1, 4)):
            spot = rng.uniform(-0.5, 0.5, 2) * radius
            distance = np.hypot(u - spot[0], v - spot[1] * squeeze)
            inside *= 1 - 0.55 * np.exp(-0.5 * (distance / rng.uniform(2.5, 4.5)) ** 2)
        region = np.s_[low[0] : high[0], low[1] : high[1]]
        texture = np.clip(1 + 0.26 * mottle[region], 0.2, None)
        picture[region] += rng.uniform(0.55, 1.0) * inside * texture
    return _blur(picture, 1.3) + 0.12 * _blur(picture, 22)


def photograph(rng: np.random.Generator, photons: Image) -> NDArray[np.uint16]:
    """Expose a camera to the expected photons of each pixel."""
    noise = rng.normal(_CAMERA_OFFSET, _READ_NOISE, photons.shape)
    counts = _COUNTS_PER_PHOTON * rng.poisson(photons + 2) + noise
    return np.clip(np.rint(counts), 0, _HIGHEST).astype(np.uint16)


def _splat(path: Image, weight: Image, full: int) -> Image:
    """Add points (n, m, 2) of weight (n, m) to a picture, each shared among its four pixels."""
    points, weights = path.reshape(-1, 2), weight.reshape(-1)
    seen = (weights > 0) & ((points >= 0) & (points < full - 1)).all(axis=1)
    points, weights = points[seen], weights[seen]
    corner = points.astype(np.int64)
    rest = points - corner
    picture = np.zeros(full * full)
    for y in (0, 1):
        for x in (0, 1):
            share = np.abs(1 - y - rest[:, 0]) * np.abs(1 - x - rest[:, 1])
            at = (corner[:, 0] + y) * full + corner[:, 1] + x
            picture += np.bincount(at, share * weights, full * full)
    return picture.reshape(full, full)


def _texture(rng: np.random.Generator, full: int, sigma: float) -> Image:
    """Return noise of one grain size, mean 0 and standard deviation 1."""
    noise = _blur(rng.standard_normal((full, full)), sigma)
    noise -= noise.mean()
    noise /= noise.std()
    return noise


def _smooth_noise(rng: np.random.Generator, shape: tuple[int, int], period: int) -> Image:
    """Return rows of noise that changes over about `period` steps, linear in between."""
    knots = rng.standard_normal((shape[0], shape[1] // period + 2))
    at = np.arange(shape[1]) / period
    left = at.astype(int)
    rest = at - left
    noise: Image = knots[:, left] * (1 - rest) + knots[:, left + 1] * rest
    return noise


def _blur(picture: Image, sigma: float) -> Image:
    """Convolve with a Gaussian of `sigma` pixels, periodically, through the Fourier transform."""
    transfer = [
        np.exp(-2 * (np.pi * sigma * np.asarray(frequency)) ** 2)
        for frequency in (np.fft.fftfreq(len(picture)), np.fft.rfftfreq(picture.shape[1]))
    ]
    spectrum: NDArray[Any] = np.fft.rfft2(picture) * np.outer(*transfer)
    return np.fft.irfft2(spectrum, s=picture.shape)
