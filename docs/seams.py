"""Measures seams of tiles, and draws them: python docs/seams.py [FOLDER], docs/guide without it.

Trains the demo's network, predicts an image that it has not seen with tiles side by side and with
sliding ones, and compares the jump across the borders of what tiles keep with the mean step between
any two neighbouring pixels. Needs the extras ``cli`` and ``torch``; takes some minutes.
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from pictures import save

from gpu_patch import ImageStack, PatchExtractor, TiledPatching, predict
from gpu_patch.cli.phantom import make_phantom
from gpu_patch.cli.training import loop
from gpu_patch.feed import compute_normalization

TILE, SCALES, STEPS, BATCH, SIZE, DRAWS = 64, 3, 150, 8, 384, 64
OVERLAP = 8
SHOWN = slice(96, 288)


def trained():
    """Return the network, its normalisation, and an image (Y, X) that it has not seen."""
    pixels, truth = make_phantom(512, 0), make_phantom(SIZE, 1)
    patches = loop.make_patches(pixels, TILE, SCALES, device="cpu", seed=0)
    normalization = compute_normalization(patches, progress=False)
    network = loop.make_network(SCALES, 2, device="cpu", seed=0)
    loop.train(network, loop.make_loader(patches, BATCH, normalization, 0), STEPS)
    mixture = np.asarray(truth, np.float32).mean(axis=0)
    return network.eval(), normalization, mixture


def borders_of(overlap):
    """Return the columns where what tiles keep begins, after the first; rows are alike."""
    tiling = TiledPatching([(1, 1, SIZE, SIZE)], (TILE, TILE), (overlap, overlap))
    return sorted({tiling.get_patch_spec(i)["stitch_coords"][1] for i in range(tiling.n_patches)})[
        1:
    ]


def seams_of(image, borders):
    """Return the mean step across the borders over that between other pixels: 1 is no seam."""
    across, other = [], []
    for axis in (-1, -2):
        steps = np.abs(np.diff(image, axis=axis))
        at = np.array(borders) - 1
        across.append(np.take(steps, at, axis=axis).mean())
        other.append(np.delete(steps, at, axis=axis).mean())
    return float(np.mean(across) / np.mean(other))


def draw(shown, path):
    """Show the same part of each image, with the step from column to column below it."""
    figure = Figure(figsize=(9, 5.4), dpi=100, layout="constrained")
    axes = figure.subplots(2, len(shown), height_ratios=(2.4, 1), sharex=True, sharey="row")
    low, high = np.percentile(shown[0][1], (1, 99.5))
    for column, (title, image, borders) in zip(axes.T, shown, strict=True):
        column[0].imshow(image, cmap="gray", vmin=low, vmax=high, aspect="auto")
        column[0].set_title(title, fontsize=9)
        column[0].set_axis_off()
        steps = np.abs(np.diff(image, axis=-1)).mean(axis=-2)
        column[1].plot(np.arange(1, len(steps) + 1), steps, lw=1, color="#1f5fa8")
        for border in borders:
            column[1].axvline(border, color="#c0392b", lw=0.8, ls=":")
        column[1].set_xlabel("X, pixels")
    axes[1, 0].set_ylabel("mean step to the next column")
    save(figure, path, 900)


def main():
    """Print the ratios, and write seams.png."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "guide"
    network, normalization, mixture = trained()
    images = PatchExtractor([ImageStack.from_array(mixture, "YX", device="cpu")])
    options = {"tile_size": (TILE, TILE), "multiscale_count": SCALES, "batch_size": 64}
    options |= {"normalization": normalization, "progress": False}
    borders = borders_of(OVERLAP)
    inside = [b - SHOWN.start for b in borders if SHOWN.start < b < SHOWN.stop]
    shown = []
    for title, more in (
        ("tiles side by side", {}),
        (f"tiles that slide, {DRAWS} a pixel", {"tiling": "switi", "n_draws": DRAWS}),
    ):
        found = predict(images, network, overlaps=(OVERLAP, OVERLAP), **options, **more)
        ratio = seams_of(found.images[0], borders)
        print(f"{title}: {ratio:.3f}", flush=True)
        shown.append((f"{title}: {ratio:.2f}", found.images[0][0, SHOWN, SHOWN], inside))
    draw(shown, folder / "seams.png")


if __name__ == "__main__":
    main()
