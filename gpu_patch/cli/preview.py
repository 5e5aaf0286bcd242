"""``gpu-patch preview``: one picture of what a constructor makes from real images."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gpu_patch import ImageStack
from gpu_patch.cli.arguments import (
    Commands,
    Parser,
    add_images,
    add_padding,
    add_seed,
    add_size,
    needs,
    path_named,
    picture_file,
    reading_of,
    whole,
)
from gpu_patch.cli.modes import MODES, load, make_subject, mode_named
from gpu_patch.cli.picture_files import report_saved
from gpu_patch.plots import plot_batch
from gpu_patch.plots.colours import n_not_finite
from gpu_patch.plots.subject import Subject
from gpu_patch.words import counted, times

_MOST_SAMPLES = 12
_MOST_LINES = 2


def add_to(commands: Commands) -> None:
    """Add the command to a parser."""
    parser = commands.add_parser(
        "preview",
        help="draw patches of your own images, and where they come from",
        description="Draw patches of images: where they lie, their context at "
        "every scale, and their targets with the mixing weights.",
    )
    add_images(parser, "of every IMAGE, such as CYX", scenes="those of --target too")
    add_target(parser)
    add_choice(parser)
    parser.add_argument(
        "--out",
        type=path_named,
        default=Path("preview.png"),
        metavar="FILE",
        help="the picture, on this machine and not on a server (default: %(default)s)",
    )
    parser.set_defaults(run=run)


def add_target(parser: Parser) -> None:
    """Add the options on target images."""
    parser.add_argument(
        "--target",
        nargs="+",
        default=[],
        metavar="IMAGE",
        help="target images, for the modes paired and basic; one per IMAGE",
    )
    parser.add_argument("--target-axes", metavar="AXES", help="axes of every --target")


def add_choice(parser: Parser) -> None:
    """Add what patches there are, and which of them to show."""
    parser.add_argument(
        "--mode",
        type=mode_named,
        choices=MODES,
        help="which constructor: %(choices)s; the first three also as I, II and III. Default: "
        "multichannel where the images have two channels or more, else pred; with --target, paired "
        "where they have one channel, else basic. independent: every IMAGE, quoted where it is a "
        "pattern, is a structure; or every channel of the only one",
    )
    add_size(parser, "--patch-size", 64)
    parser.add_argument("--scales", type=whole(1, 8), default=4, metavar="N", help="default: 4")
    add_padding(parser)
    parser.add_argument(
        "--samples",
        type=whole(1, _MOST_SAMPLES),
        default=4,
        metavar="N",
        help=f"patches to show, at most {_MOST_SAMPLES} (default: 4)",
    )
    add_seed(parser)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    needs("preview", "matplotlib.figure")
    out = picture_file("--out", options.out)
    choice = reading_of(options)
    written = options.parser.options
    of_target = {**written, "axes": written["target_axes"]}
    groups = load("IMAGE", options.images, options.axes, written, **choice)
    subject = make_subject(
        groups,
        load("--target", options.target, options.target_axes, of_target, **choice),
        mode=options.mode,
        patch_size=options.patch_size,
        n_scales=options.scales,
        padding=options.padding,
        seed=options.seed,
    )
    report_images([image for group in groups for image in group.image_stacks])
    report_choice(options.mode, options.images, subject)
    report_picture(subject, options.samples, options.seed, out)


def report_choice(mode: str | None, names: Sequence[str], subject: Subject) -> None:
    """Print what may not have been meant: a mode that was chosen here, patterns without quotes."""
    if mode is None and subject.mode == "paired":
        print(
            "note     --target with images of 1 channel is taken for mode paired, MicroSplit III: "
            "--mode basic shows what CARE gets"
        )
    files = [Path(name) for name in names if Path(name).is_file()]
    folders = Counter(file.parent for file in files)
    # two files in one folder are two structures as a rule, more may be of a pattern
    if subject.mode == "independent" and len(names) > 2 and max(folders.values(), default=0) > 1:
        file = next(file for file in files if folders[file.parent] > 1)
        print(
            f"note     every IMAGE is a structure, {len(names)} of them: quote patterns, as in "
            f"'{file.parent / f'*{file.suffix}'}', whose files are one structure"
        )


def report_images(images: Sequence[ImageStack]) -> None:
    """Print what was read, a file once."""
    images = list({image.source: image for image in images}.values())
    for image in images[:_MOST_LINES]:
        print(
            f"read     {image.source}: shape {image.original_data_shape}, "
            f"axes {image.original_axes}{image.colours and f' ({image.colours})'}, "
            f"{image.data_dtype}"
        )
    if len(images) > _MOST_LINES:
        print(f"         and {len(images) - _MOST_LINES} more")


def report_not_finite(images: Sequence[ImageStack]) -> None:
    """Print how many values of each image are NaN or infinite."""
    counts = [(image, n_not_finite(image.data)) for image in images]
    wrong = [(image, n) for image, n in counts if n]
    for image, n in wrong[:_MOST_LINES]:
        n_nan = int(np.count_nonzero(np.isnan(image.data)))
        kinds = [f"{k} {word}" for k, word in ((n_nan, "NaN"), (n - n_nan, "infinite")) if k]
        print(
            f"note     not finite in {image.source}, striped in the picture: "
            f"{counted(n, 'value')} ({', '.join(kinds)})"
        )
    if len(wrong) > _MOST_LINES:
        print(f"note     and some of {counted(len(wrong) - _MOST_LINES, 'more image')}")


def report_picture(subject: Subject, n_samples: int, seed: int, out: Path) -> None:
    """Draw the picture, and print what it shows and where it is."""
    indices = subject.choose(n_samples, seed)
    figure = plot_batch(subject.constructor, indices)
    sizes = subject.constructor.sampling.patch_sizes
    for image in subject.images:
        side = image.data_shape[2:]
        if any(n > m for size in sizes for n, m in zip(size, side, strict=True)):
            print(f"note     patches are larger than {image.source}, {times(side)}")
            break
    report_not_finite([*subject.images, *subject.targets])
    print(
        f"shown    {len(indices)} of {counted(subject.constructor.n_patches, 'patch')}, "
        f"mode {subject.mode}"
        + (f" of {subject.n_targets} structures" if subject.structures else "")
    )
    report_saved(figure, out)
