"""``gpu-patch predict``: options, the run, and what it tells."""

from __future__ import annotations

import argparse
import importlib
import time
from typing import Any, NamedTuple

from gpu_patch import PatchExtractor, Prediction, open_images, predict
from gpu_patch.cli.arguments import (
    Adds,
    Commands,
    add_budget,
    add_device,
    add_images,
    add_padding,
    add_size,
    folder,
    needs,
    path_named,
    readable,
    reading_of,
    whole,
)
from gpu_patch.cli.messages import in_options
from gpu_patch.cli.picture_files import report_saved
from gpu_patch.cli.predict.answers import NAMES, add_answer, described
from gpu_patch.cli.predict.settings import (
    Process,
    check_apart,
    check_channels,
    check_picture,
    digest,
    picture_path,
    sizes,
    this_process,
)
from gpu_patch.cli.predict.stops import Stop
from gpu_patch.cli.preview import report_images
from gpu_patch.feed import Normalization
from gpu_patch.images.budget import DEFAULT_FRACTION, size_text
from gpu_patch.plots import plot_prediction
from gpu_patch.predict.model import TRAINING_MODES
from gpu_patch.predict.options import TILINGS
from gpu_patch.predict.outputs.names import ending
from gpu_patch.tiling import BLENDS
from gpu_patch.words import counted, times

_MOST_LINES = 4


def add_to(commands: Commands) -> None:
    """Add the command to a parser."""
    parser = commands.add_parser(
        "predict",
        help="run a trained model over whole images; needs PyTorch",
        description="Cut images into overlapping tiles, run a TorchScript or torch.export model "
        "on them, and put the results together. Under torchrun, processes share the work.",
    )
    add_images(parser, "of every IMAGE")
    parser.add_argument(
        "--model",
        type=path_named,
        required=True,
        metavar="FILE",
        help="of torch.jit (.pt) or torch.export (.pt2)",
    )
    parser.add_argument(
        "--out",
        type=path_named,
        required=True,
        metavar="DIR",
        help="folder for the results, on this machine and not on a server; or, for one IMAGE, a "
        "file that ends in .ome.zarr, .ome.tif or .npy",
    )
    add_tiles(parser.add_argument_group("tiles"))
    add_results(parser.add_argument_group("results"))
    add_device(parser)
    add_budget(parser)
    parser.set_defaults(run=run)


def add_tiles(tiles: Adds) -> None:
    """Add how images are cut, and what the model makes of the tiles."""
    add_size(tiles, "--tile-size", 256)
    tiles.add_argument(
        "--overlaps",
        type=_overlaps,
        metavar="N",
        help="pixels that neighbours share, likewise; default: a quarter of the tile",
    )
    tiles.add_argument(
        "--batch-size", type=whole(1), default=16, metavar="N", help="default: %(default)s"
    )
    tiles.add_argument(
        "--scales",
        dest="multiscale_count",
        type=whole(1, 8),
        metavar="N",
        help="the tile and its surroundings, channels of the model's input; default: the image's "
        "channels without context",
    )
    add_padding(tiles, "padding_mode")
    tiles.add_argument(
        "--blend",
        choices=BLENDS,
        default="crop",
        help="how tiles become an image: %(choices)s (default: %(default)s)",
    )
    add_sliding(tiles)
    add_model_use(tiles)


def add_sliding(tiles: Adds) -> None:
    """Add how tiles slide over an image."""
    tiles.add_argument(
        "--tiling",
        choices=TILINGS,
        default="inner",
        help="inner: tiles side by side; switi: shifted ones, whose mean has no seams (default: "
        "%(default)s)",
    )
    tiles.add_argument(
        "--n-draws",
        type=whole(1),
        metavar="N",
        help="tiles that each pixel gets with --tiling switi, at least (default: 64)",
    )
    tiles.add_argument(
        "--stride",
        type=_overlaps,
        metavar="N",
        help="instead of that: pixels from a tile to the next, a number, or Y,X or Z,Y,X",
    )
    tiles.add_argument(
        "--std",
        action="store_true",
        default=None,
        help="write the standard deviation of the tiles at each pixel too, with --tiling switi",
    )


def add_model_use(tiles: Adds) -> None:
    """Add how the model is used on each tile."""
    tiles.add_argument(
        "--n-samples",
        type=whole(1),
        default=1,
        metavar="N",
        help="times that a stochastic model sees each tile; from 2 on the standard deviation is "
        "written too (default: %(default)s)",
    )
    tiles.add_argument(
        "--training-mode",
        choices=TRAINING_MODES,
        help="eval: all of a TorchScript model in evaluation mode; keep: as it was saved; default: "
        "eval where it was saved in training mode as a whole, else keep",
    )
    tiles.add_argument(
        "--normalization",
        type=path_named,
        metavar="FILE",
        help="what Normalization.save wrote; results are taken back to the values of images",
    )


def add_results(results: Adds) -> None:
    """Add what is written, and where."""
    add_answer(results)
    results.add_argument(
        "--format",
        choices=("ome-zarr", "ome-tiff", "npy"),
        help="of the files in DIR: %(choices)s (default: ome-zarr)",
    )
    results.add_argument(
        "--resume",
        action="store_true",
        help="go on where an earlier run ended (ome-zarr); with --overwrite what was made of other "
        "images or settings is made anew",
    )
    results.add_argument(
        "--overwrite", action="store_true", help="replace results that are there already"
    )
    results.add_argument(
        "--durable",
        action="store_true",
        help="flush what is written to the disk before it counts: it survives that the machine "
        "stops, and not the process alone; slower",
    )
    results.add_argument(
        "--picture",
        type=path_named,
        metavar="FILE",
        help="picture of input and prediction (.png, .jpg, .pdf, .svg); default: prediction.png in "
        "DIR, or NAME_prediction.png beside one file NAME; numbered where that is there",
    )


class _Work(NamedTuple):
    """What there is to do.

    Attributes
    ----------
    images : PatchExtractor
        The images.
    model : object
        What sees their tiles, and counts them.
    model_id : str
        Tells its file from others.
    normalization : Normalization or None
        Before it, and taken back after.
    tile_size, overlaps : tuple of int
        (Z)YX.
    stride : tuple of int or None
        Likewise, where it is given.
    """

    images: PatchExtractor
    model: Any
    model_id: str
    normalization: Normalization | None
    tile_size: tuple[int, ...]
    overlaps: tuple[int, ...]
    stride: tuple[int, ...] | None


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    needs("predict", "torch", "torch")
    for module in ("tqdm", "matplotlib.figure"):
        needs("predict", module)
    process = this_process(options.device)
    work = _prepared(options, process)
    if process.rank == 0:
        report_images(work.images.image_stacks)
        if work.images.cache is not None:
            print(f"         kept by chunk in {size_text(work.images.cache.budget)}")
    start = time.perf_counter()
    found = _predicted(options, process, work)
    if process.rank:
        return
    _report_tiles(work.model.n_tiles // options.n_samples, time.perf_counter() - start, process)
    report_results(found)
    subtitle = f"{options.model.name}: {', '.join(_described(options, work))}"
    figure = plot_prediction(work.images, found, subtitle=subtitle)
    report_saved(figure, picture_path(options))
    if work.normalization is None:
        print("note     no --normalization: the model got the values of the images as they are")


def _prepared(options: argparse.Namespace, process: Process) -> _Work:
    """Read model and images, and check all that can be before work begins."""
    # these import what may be missing
    models, training = _models(), importlib.import_module("gpu_patch.cli.training.loop")
    training.use_device(process.device)
    normalization = None
    if options.normalization is not None:
        normalization = Normalization.load(readable("--normalization", options.normalization))
    check_picture(options)
    folder("--out", options.out if ending(options.out.name) is None else options.out.parent)
    check_apart(options.images, options.out)
    model_id = digest(readable("--model", options.model))
    model = models.Counting(models.load_model(options.model, process.device))
    images = open_images(
        options.images,
        options.axes,
        device=process.device,
        # given, so that nobody is warned of images that are kept by chunk: here it is no loss
        memory_budget=options.memory_budget or DEFAULT_FRACTION,
        **reading_of(options),
    )
    check_channels(images, options.multiscale_count)
    tile_size = sizes("--tile-size", options.tile_size, images)
    if options.overlaps is None:
        overlaps = tuple(n // 8 * 2 for n in tile_size)
    else:
        overlaps = sizes("--overlaps", options.overlaps, images)
    stride = None if options.stride is None else sizes("--stride", options.stride, images)
    return _Work(images, model, model_id, normalization, tile_size, overlaps, stride)


def _predicted(options: argparse.Namespace, process: Process, work: _Work) -> Prediction:
    """Run the model over the images; say how to go on where that is stopped or fails."""
    names = (
        *("batch_size", "multiscale_count", "padding_mode", "blend", "n_samples", "training_mode"),
        *("tiling", "n_draws", "std", "out", "format", "resume", "overwrite", "durable"),
        *NAMES,
    )
    stop = Stop(options, work.images)
    try:
        return predict(
            work.images,
            work.model,
            tile_size=work.tile_size,
            overlaps=work.overlaps,
            stride=work.stride,
            normalization=work.normalization,
            model_id=work.model_id,
            rank=process.rank,
            world_size=process.world_size,
            **{name: getattr(options, name) for name in names},
        )
    except KeyboardInterrupt:
        if process.rank == 0:
            stop.report()
        raise
    except Exception as error:
        if hasattr(error, "__notes__"):  # it is from the model
            raise _misfit(error, options, work) from error
        raise


def _misfit(error: Exception, options: argparse.Namespace, work: _Work) -> Exception:
    """Return an error that says how the model and its input differ."""
    models = _models()
    has_context = options.multiscale_count is not None
    n_channels = options.multiscale_count or work.images.n_channels
    tiles = models.Tiles(options.batch_size, n_channels, work.tile_size)
    reason = models.misfit(work.model.model, tiles, has_context=has_context)
    if not reason:
        given = in_options(error.__notes__[-1], options.parser.options)
        reason = f"{given}: {str(error).strip().splitlines()[-1]}"
    return ValueError(f"argument --model: '{options.model}' does not fit: {reason}")


def _models() -> Any:
    return importlib.import_module("gpu_patch.cli.predict.models")


def _report_tiles(n_tiles: int, seconds: float, process: Process) -> None:
    # it counted its own alone
    together = process.world_size > 1
    by = f" by the first of {process.world_size} processes" if together else ""
    if n_tiles:
        print(f"tiles    {n_tiles} in {seconds:.1f} s{by}, {n_tiles / seconds:.1f} tiles/s")
    else:
        print(f"tiles    none left to do{by}: all its results are complete")


def report_results(found: Prediction) -> None:
    """Print where results are."""
    paths = [path for pair in zip(*filter(None, found), strict=True) for path in pair]
    for path in paths[:_MOST_LINES]:
        print(f"written  {path}")
    if len(paths) > _MOST_LINES:
        print(f"         and {len(paths) - _MOST_LINES} more")


def _described(options: argparse.Namespace, work: _Work) -> list[str]:
    """Say how a prediction was made."""
    words = [f"tiles of {times(work.tile_size)} pixels, {times(work.overlaps)} shared"]
    if options.tiling == "switi":
        words += ["mean of sliding tiles"]
    else:
        words += [f"blend {options.blend}"]
    if options.multiscale_count:
        words += [f"{counted(options.multiscale_count, 'scale')}, padding {options.padding_mode}"]
    words += described(options)
    if work.normalization is None:
        words += ["not normalised"]
    return words


def _overlaps(text: str) -> tuple[int, ...]:
    """Parse as a patch size, with 0."""
    try:
        found = tuple(int(number) for number in text.split(","))
    except ValueError:
        found = ()
    if not 1 <= len(found) <= 3 or min(found) < 0:
        raise argparse.ArgumentTypeError(
            f"must be one whole number of at least 0, or Y,X or Z,Y,X, found {text!r}"
        )
    return found
