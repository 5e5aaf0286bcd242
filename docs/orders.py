"""Whether a training notices the order of its patches: python docs/orders.py [--json FILE].

Trains a small network to denoise an image whose texture and brightness vary over it, with batch
normalisation and without, on patches in random order and in the order "sweep" with 1, 2, 4 and 8
strips of what is swept at a quarter of the image in memory; draws the errors on places of their own
as guide/orders.png. Needs the extras ``cli`` and ``torch``; takes some minutes on a core. With
--json it goes on where it was ended.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from pictures import save

from gpu_patch import BasicPatchConstr, ImageStack, PatchExtractor, StratifiedPatching
from gpu_patch.feed.sweep import Sweep, sweep_order
from gpu_patch.pages import PagedImage

SIZE, PATCH, PAGE, BATCH, EPOCHS = 1024, 16, 16, 32, 5
IN_MEMORY = 0.25 * 7 / 8
"""Of the image; an eighth of a quarter is for what is read ahead."""
ORDERS = {"shuffle": 0, "8 strips": 8, "4 strips": 4, "2 strips": 2, "1 strip": 1}
RATE, WIDTH, N_VALIDATION = 2e-3, 12, 512


def smooth(rng: np.random.Generator, sigma: float) -> np.ndarray:
    """Return noise of standard deviation 1 behind a Gaussian filter."""
    y, x = np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE)
    weights = np.exp(-2 * (np.pi * sigma) ** 2 * (x**2 + y**2))
    field = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(SIZE, SIZE))) * weights, s=(SIZE, SIZE))
    return field / field.std()


def noisy_and_clean() -> np.ndarray:
    """Return an image (2, Y, X) of fine grains here and coarse ones there, dark and bright."""
    rng = np.random.default_rng(0)
    share = 1 / (1 + np.exp(-3 * smooth(rng, 100)))
    brightness = 20 * np.exp(1.2 * smooth(rng, 75))
    fine, coarse = (np.maximum(smooth(rng, sigma), 0) for sigma in (1.5, 5))
    clean = brightness * (0.2 + share * fine + 1.5 * (1 - share) * coarse)
    both = np.stack([rng.poisson(clean), clean]).astype(np.float32)
    return (both - both[0].mean()) / both[0].std()


def order_of(constructor: BasicPatchConstr, n_strips: int, seed: int, epoch: int) -> np.ndarray:
    """Return the patches of an epoch in their order; no strips are a shuffle."""
    rng = np.random.default_rng((seed, epoch))
    n = constructor.n_patches
    if not n_strips:
        return rng.permutation(n)
    places = constructor.plan_batch(range(n), epoch=epoch).specs.principal
    described = SimpleNamespace(number=0, shape=(1, 2, SIZE, SIZE), dtype=np.dtype(np.float32))
    image = PagedImage(described, (1, 2, PAGE, PAGE), 0)
    window = (places.coords, places.coords + PATCH - 1)
    sweep = Sweep(n_strips, 1, IN_MEMORY * image.n_pages, "")
    return sweep_order(places, [image], window, sweep, rng.random(n), rng.random(3))


def network(*, normalised: bool) -> torch.nn.Sequential:
    """Return four convolutions."""
    layers: list[torch.nn.Module] = []
    for channels in (1, WIDTH, WIDTH):
        layers.append(torch.nn.Conv2d(channels, WIDTH, 3, padding=1))
        if normalised:
            layers.append(torch.nn.BatchNorm2d(WIDTH))
        layers.append(torch.nn.ReLU())
    return torch.nn.Sequential(*layers, torch.nn.Conv2d(WIDTH, 1, 3, padding=1))


def error_after_training(
    constructor: BasicPatchConstr, n_strips: int, seed: int, *, normalised: bool
) -> float:
    """Return the mean squared error on places that every training is asked about."""
    torch.manual_seed(seed)
    model = network(normalised=normalised)
    optimiser = torch.optim.Adam(model.parameters(), RATE)
    for epoch in range(EPOCHS):
        for group in optimiser.param_groups:
            group["lr"] = RATE * (1 - epoch / EPOCHS)
        order = order_of(constructor, n_strips, seed, epoch)
        for first in range(0, len(order), BATCH):
            batch = constructor.construct_batch(order[first : first + BATCH].tolist(), epoch=epoch)
            noisy, clean = torch.from_numpy(batch.input).split(1, dim=1)
            loss = (model(noisy) - clean).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    places = np.random.default_rng(1).integers(0, SIZE - PATCH, (N_VALIDATION, 2))
    (stack,) = constructor.input_extractor.image_stacks
    cut = np.stack([stack.data[0, :, y : y + PATCH, x : x + PATCH] for y, x in places])
    noisy, clean = torch.from_numpy(cut).split(1, dim=1)
    with torch.no_grad():
        return float((model.eval()(noisy) - clean).square().mean())


def run(path: Path | None, n_seeds: int) -> dict[str, list[float]]:
    """Train all that is not in the file yet, seed by seed; return the errors."""
    found: dict[str, list[float]] = {}
    if path is not None and path.exists():
        found = json.loads(path.read_text())
    stack = ImageStack.from_array(noisy_and_clean(), "CYX", device="cpu")
    strategy = StratifiedPatching([stack.data_shape], (PATCH, PATCH), seed=0)
    for seed in range(n_seeds):
        constructor = BasicPatchConstr(strategy, PatchExtractor([stack]), seed=seed)
        for normalised in (True, False):
            for name, n_strips in ORDERS.items():
                errors = found.setdefault(f"{name}, {'with' if normalised else 'without'}", [])
                if len(errors) > seed:
                    continue
                errors.append(
                    error_after_training(constructor, n_strips, seed, normalised=normalised)
                )
                print(f"{seed}: {name}, normalised {normalised}: {errors[-1]:.5f}", flush=True)
                if path is not None:
                    path.write_text(json.dumps(found))
    return found


def draw(found: dict[str, list[float]]) -> Figure:
    """Show the error of each training, and the medians."""
    figure = Figure(figsize=(8, 3.6), dpi=100, layout="constrained")
    panels: Any = figure.subplots(1, 2, sharey=True)
    for axes, which in zip(panels, ("with", "without"), strict=True):
        for x, name in enumerate(ORDERS):
            errors = 1e4 * np.array(found[f"{name}, {which}"])
            spread = x + np.linspace(-0.14, 0.14, len(errors))
            axes.plot(spread, errors, "o", ms=5, mfc="none", color="#1f5fa8")
            axes.plot([x - 0.3, x + 0.3], [np.median(errors)] * 2, lw=2.5, color="#c0392b")
        axes.set_xticks(range(len(ORDERS)), ORDERS)
        axes.set_yscale("log")
        axes.set_title(f"{which} batch normalisation", fontsize=10)
        axes.grid(axis="y", which="both", color="#dddddd", lw=0.6)
        axes.set_axisbelow(True)
    panels[0].set_ylabel("squared error × 10⁴ after training")
    return figure


def main() -> None:
    """Print the errors, and write orders.png."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = run(options.json, options.seeds)
    for name, errors in found.items():
        scaled = 1e4 * np.array(errors)
        print(f"{name:18s} median {np.median(scaled):6.0f}  {np.sort(scaled).round().tolist()}")
    save(draw(found), Path(__file__).parent / "guide" / "orders.png", 900)


if __name__ == "__main__":
    main()
