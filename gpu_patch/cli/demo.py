"""``gpu-patch demo``: from nothing to training batches in a few seconds."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from gpu_patch.cli.arguments import Commands, add_folder, add_seed, folder, needs, whole
from gpu_patch.cli.modes import load, make_subject
from gpu_patch.cli.phantom import make_phantom
from gpu_patch.cli.preview import report_images, report_picture
from gpu_patch.plots.subject import Subject
from gpu_patch.words import counted

_PATCH = 64
_NEXT = """\
next     gpu-patch preview YOUR_IMAGE.tif   the same picture of your own data
         gpu-patch bench --quick            how fast this machine makes batches"""


def add_to(commands: Commands) -> None:
    """Add the command to a parser."""
    parser = commands.add_parser(
        "demo",
        help="make an image of cells, draw its patches, and run an epoch; needs no data",
        description="Make a two-channel image of cells, draw patches of it, and run one epoch of "
        "MicroSplit batches. Needs no data.",
    )
    add_folder(parser, "phantom.tif and preview.png")
    parser.add_argument(
        "--size",
        type=whole(16, 4096),
        default=1024,
        metavar="N",
        help="pixels of the image along Y and X (default: %(default)s)",
    )
    parser.add_argument(
        "--batch-size", type=whole(1), default=32, metavar="N", help="default: %(default)s"
    )
    parser.add_argument(
        "--scales", type=whole(1, 8), default=4, metavar="N", help="default: %(default)s"
    )
    add_seed(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    for module in ("tifffile", "tqdm", "matplotlib.figure"):
        needs("demo", module)
    out = folder("--out", options.out)
    path = out / "phantom.tif"
    out.mkdir(parents=True, exist_ok=True)
    write_phantom(path, options.size, options.seed)
    subject = make_subject(
        load("--out", [path], None, options.parser.options),
        [],
        mode="multichannel",
        patch_size=(_PATCH,),
        n_scales=options.scales,
        padding="reflect",
        seed=options.seed,
    )
    report_images(subject.images)
    report_picture(subject, 4, options.seed, out / "preview.png")
    seconds, n_pixels = run_epoch(subject, options.batch_size)
    n_patches = subject.constructor.n_patches
    print(
        f"epoch    {counted(n_patches, 'patch')} in batches of {options.batch_size}: "
        f"{seconds:.2f} s, "
        f"{n_patches / seconds:.0f} patches/s, {n_pixels / seconds / 1e6:.1f} megapixels/s "
        "of inputs and targets"
    )
    print(_NEXT)


def write_phantom(path: Path, size: int, seed: int) -> None:
    """Write the phantom as a composite that ImageJ opens with its channels."""
    tifffile = needs("demo", "tifffile")
    metadata = {"axes": "CYX", "mode": "composite", "Labels": ["filaments", "nuclei"]}
    tifffile.imwrite(path, make_phantom(size, seed), imagej=True, metadata=metadata)


def run_epoch(subject: Subject, batch_size: int) -> tuple[float, int]:
    """Make all patches of an epoch once; return the seconds it took and the pixels made."""
    tqdm = needs("demo", "tqdm")
    n_patches, n_pixels = subject.constructor.n_patches, 0
    start = time.perf_counter()
    with tqdm.tqdm(
        total=n_patches, desc="epoch", unit=" patches", file=sys.stderr, disable=None
    ) as bar:
        for first in range(0, n_patches, batch_size):
            indices = range(first, min(first + batch_size, n_patches))
            batch = subject.constructor.construct_batch(indices, epoch=1)
            n_pixels += batch.input.size + batch.target.size
            bar.update(len(indices))
    return time.perf_counter() - start, n_pixels
