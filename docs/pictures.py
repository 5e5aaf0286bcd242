"""Draws the pictures of the guides: python docs/pictures.py [FOLDER], docs/guide without it.

Made from the demo's image, by `gpu_patch.plots`; it trains the demo's network for that, which takes
a minute on two cores. Needs the extras ``cli`` and ``torch``. ../preview.png is what
``gpu-patch demo`` draws, ../bench.png what ``gpu-patch bench --plot`` does.
"""

import io
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gpu_patch import (
    BasicPatchConstr,
    ImageStack,
    MultiChannelTargetMsPatchConstr,
    PatchExtractor,
    StratifiedPatching,
    open_images,
    predict,
)
from gpu_patch.cli.demo import write_phantom
from gpu_patch.cli.phantom import make_phantom
from gpu_patch.cli.training import loop
from gpu_patch.feed import BatchLoader, Normalization, compute_normalization
from gpu_patch.feed.order import block_numbers, epoch_order, n_blocks, sites_of
from gpu_patch.plots import plot_batch, plot_prediction, plot_training

MOST_BYTES = 150_000
_PATCH, _N_SCALES, _N_STEPS = 64, 3, 150
_BATCH = 8


def noisy_and_clean() -> Any:
    """Patches for CARE: the demo's image, and what a tenth of its light makes of it."""
    clean = make_phantom(512, 0)[:1]
    noisy = (np.random.default_rng(0).poisson(clean / 40) * 40).astype(np.uint16)
    images = [
        PatchExtractor([ImageStack(pixels, "CYX", source=name)])
        for pixels, name in ((noisy, "noisy/t1.tif"), (clean, "clean/t1.tif"))
    ]
    patching = StratifiedPatching(images[0].shapes, (_PATCH, _PATCH), seed=1)
    return plot_batch(BasicPatchConstr(patching, *images, seed=42), [9, 20])


def blocks() -> Any:
    """Show the first patches of an epoch that goes through an image block by block."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "phantom.tif"
        write_phantom(path, 2048, 0)
        images = open_images(path, memory_budget="12MB", progress=False)  # of 16.8 MB
        constructor = MultiChannelTargetMsPatchConstr(
            StratifiedPatching(images.shapes, (_PATCH, _PATCH), seed=0),
            images,
            2,
            "reflect",
            [(0.3, 0.7), (0.3, 0.7)],
            0.0,
            seed=42,
        )
        window = BatchLoader(constructor, 6, order="blocks").window
        shapes, size = constructor.input_shapes, constructor.sampling.window_size
        boxes = block_numbers(sites_of(constructor), shapes, n_blocks(shapes, size, window))
        order = epoch_order(constructor.n_patches, 1, 0, shuffle=True, blocks=boxes, window=window)
        return plot_batch(constructor, order[:5].tolist())


class Trained(NamedTuple):
    """The demo's network, and how its training went."""

    network: Any
    losses: NDArray[np.float32]
    normalization: Normalization


def trained() -> Trained:
    """Train the demo's network."""
    constructor = loop.make_patches(make_phantom(1024, 0), _PATCH, _N_SCALES, device="cpu", seed=0)
    normalization = compute_normalization(constructor, progress=False)
    loader = loop.make_loader(constructor, _BATCH, normalization, 0)
    network = loop.make_network(_N_SCALES, 2, device="cpu", seed=0)
    return Trained(network, loop.train(network, loader, _N_STEPS).losses, normalization)


def training(found: Trained) -> Any:
    """Show the losses, and what the network makes of an image that it has not seen."""
    truth = make_phantom(256, 1)
    mixture = ImageStack(truth.mean(axis=0, dtype=np.float32), "YX")
    return plot_training(
        found.losses,
        truth,
        predicted(found, mixture).images[0],
        names=("filaments", "nuclei"),
        title="A network learns to unmix",
        subtitle=f"{_N_STEPS} steps of {_BATCH} patches of {_PATCH}×{_PATCH}, {_N_SCALES} scales; "
        "right: an image that it has not seen",
        loss_title="Loss: mean squared error, normalised",
        baseline=1,
    )


def prediction(found: Trained) -> Any:
    """Show a mixture, and the structures that the network finds in it."""
    pixels = make_phantom(512, 2).mean(axis=0, dtype=np.float32)
    mixture = ImageStack(pixels, "YX", source="mixtures/t1.tif")
    subtitle = "tiles of 64×64 pixels, 32×32 shared, blend crop, 3 scales"
    return plot_prediction(mixture, predicted(found, mixture), subtitle=subtitle)


def predicted(found: Trained, image: ImageStack) -> Any:
    """Predict an image from tiles."""
    return predict(
        image,
        found.network,
        tile_size=(_PATCH, _PATCH),
        overlaps=(_PATCH // 2, _PATCH // 2),
        multiscale_count=_N_SCALES,
        normalization=found.normalization,
        progress=False,
    )


def save(figure: Any, path: Path, width: int = 1200) -> None:
    """Write a figure as a small PNG file."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    picture = Image.open(drawn).convert("RGB")
    height = round(picture.height * width / picture.width)
    small = picture.resize((width, height), Image.Resampling.LANCZOS)
    # a palette takes a third of the bytes of full colour
    small.quantize(method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
        path, optimize=True
    )
    print(f"{path}: {width}×{height}, {path.stat().st_size / 1e3:.0f} kB")
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"{path} must have at most {MOST_BYTES} bytes")


def main(folder: Path) -> None:
    """Draw them all."""
    save(noisy_and_clean(), folder / "n2v-and-care.png", 720)
    save(blocks(), folder / "larger-than-memory.png", 720)
    found = trained()
    save(training(found), folder / "training.png", 1000)
    save(prediction(found), folder / "prediction.png", 900)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "guide"))
