"""``gpu-patch train-demo``: a network learns to unmix the demo's structures, fed by gpu_patch."""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpu_patch import PatchConstr, Patching, RandomPatching, split_constructor, split_validation
from gpu_patch.cli.arguments import (
    Commands,
    add_device,
    add_folder,
    add_json,
    add_seed,
    folder,
    needs,
    path_named,
    whole,
    writable,
)
from gpu_patch.cli.bench.timing import machine
from gpu_patch.cli.phantom import make_phantom
from gpu_patch.cli.picture_files import save_picture
from gpu_patch.cli.text import head, line
from gpu_patch.device import resolve
from gpu_patch.feed import Normalization, compute_normalization
from gpu_patch.patching import Split
from gpu_patch.plots import plot_training
from gpu_patch.plots.training import psnr, running_mean
from gpu_patch.words import counted, times

if TYPE_CHECKING:
    from gpu_patch.cli.training.loop import Course
    from gpu_patch.cli.training.unet import UNet

STRUCTURES = ("filaments", "nuclei")
HELD_OUT_SIZE = 384
_FACTOR = 4
"""Of the patch size: the network halves the resolution twice."""
_WARM_UP = 5
"""Steps whose times do not count: in them memory is prepared and algorithms are chosen."""
_SMOOTHED = 20
"""Steps whose mean loss is shown."""
_BATCH_SIZE, _BATCH_SIZE_ON_CUDA = 16, 256
_SIZE, _SIZE_ON_CUDA = 1024, 2048

_TIME_COLUMNS = (("mean of a step", 24), ("ms", 10), ("share", 10))
_TIME_LEGEND = """\
waiting    until the batch is there, by the clock: on the CPU it is made then and there
training   from then to the end of the step: forward, backward, optimizer, progress bar"""
_TIME_LEGEND_ON_CUDA = """\
waiting    from the end of a step's kernels until the next batch is there for them, by events on
           their stream: also what the host takes to ask for it, where the device runs idle
training   from then to the end of the step's kernels"""
_QUALITY_COLUMNS = (("held-out image, PSNR in dB", 30), *((name, 12) for name in STRUCTURES))
_QUALITY_LEGEND = """\
PSNR       peak: the largest minus the smallest value of the true image, whose camera noise
           cannot be predicted; constant and line are the best there are for this very image"""


def add_to(commands: Commands) -> None:
    """Add the command to a parser."""
    parser = commands.add_parser(
        "train-demo",
        help="train a small network to unmix the demo's image; needs PyTorch, and no data",
        description="Make the demo's two-structure image of cells, train a small U-Net to unmix "
        "its structures, and show what it makes of an image that it has not seen. Needs PyTorch, "
        "and no data. Takes about a minute on two CPU cores.",
    )
    add_folder(parser, "unmixed.png")
    add_json(parser)
    parser.add_argument(
        "--save",
        type=path_named,
        metavar="MODEL.pt",
        help="also write the network as TorchScript, and beside it MODEL.normalization.json: what "
        "gpu-patch predict takes as --model and --normalization",
    )
    parser.add_argument(
        "--steps", type=whole(1), default=500, metavar="N", help="default: %(default)s"
    )
    parser.add_argument(
        "--batch-size",
        type=whole(1),
        metavar="N",
        help=f"default: {_BATCH_SIZE}, on a GPU {_BATCH_SIZE_ON_CUDA}",
    )
    parser.add_argument(
        "--patch-size",
        type=whole(8, 128),
        default=64,
        metavar="N",
        help=f"pixels along Y and X, a multiple of {_FACTOR} (default: %(default)s)",
    )
    parser.add_argument(
        "--scales",
        dest="multiscale_count",
        type=whole(1, 8),
        default=3,
        metavar="N",
        help="the patch and its surroundings, channels of the input (default: %(default)s)",
    )
    parser.add_argument(
        "--size",
        type=whole(128, 4096),
        metavar="N",
        help="pixels of the training image along Y and X "
        f"(default: {_SIZE}, on a GPU {_SIZE_ON_CUDA})",
    )
    parser.add_argument(
        "--val",
        dest="fraction_or_count",
        type=whole(0),
        default=16,
        metavar="N",
        help="patches held out of the training image, so that training reads no pixel of them; 0 "
        "for none (default: %(default)s)",
    )
    add_device(parser)
    add_seed(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    needs("train-demo", "torch", "torch")
    for module in ("tqdm", "matplotlib.figure"):
        needs("train-demo", module)
    from gpu_patch.cli.training import loop  # imports what may be missing

    settings = settings_of(options)
    loop.use_device(settings["device"])
    if options.json is not None:
        writable("--json", options.json)
    if options.save is not None:
        _check_save(options.save)
    picture = folder("--out", options.out) / "unmixed.png"
    described = {**machine(), **loop.machine(settings["device"])}
    print("\n".join(machine_lines(described)))
    found = _trained(settings)
    times, qualities = _print_results(found, settings)
    picture.parent.mkdir(parents=True, exist_ok=True)
    width, height = save_picture(_plot(found, settings), picture)
    print(f"picture    {picture} ({width}×{height} pixels)")
    if options.json is not None:
        document = {
            "machine": described,
            "settings": settings,
            "n_parameters": found.n_parameters,
            "parts": None if found.split is None else found.split.parts._asdict(),
            **{name: values.tolist() for name, values in found.course._asdict().items()},
            "step_seconds": times,
            "psnr": qualities,
        }
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        print(f"written    {options.json}")
    if options.save is not None:
        _save(found, settings, options.save)


def _check_save(path: Path) -> None:
    """Raise where a network cannot be written."""
    if path.suffix.lower() != ".pt":
        raise ValueError(f"argument --save: must end in .pt, as TorchScript does, found '{path}'")
    for file in (path, _normalization_of(path)):
        writable("--save", file)


def _normalization_of(model: Path) -> Path:
    return model.with_suffix(".normalization.json")


def _save(found: _Trained, settings: dict[str, Any], path: Path) -> None:
    """Write a network and its normalization, and say how to use them."""
    from gpu_patch.cli.training import loop

    n_scales, patch_size = settings["scales"], settings["patch_size"]
    loop.save(found.network, n_scales, patch_size, path)
    normalization = _normalization_of(path)
    found.normalization.save(normalization)
    print(f"written    {path}\nwritten    {normalization}")
    files = f"--model {quote(str(path))} --normalization {quote(str(normalization))}"
    tiles = f"--scales {n_scales} --tile-size {patch_size}"
    print(f"for use    gpu-patch predict IMAGE {files} {tiles} --out DIR")


class _Trained(NamedTuple):
    """A training: how it went, on what, and a held-out image as it is and as it was predicted."""

    network: UNet
    normalization: Normalization
    n_parameters: int
    course: Course
    pixels: NDArray[np.uint16]
    split: Split | None
    truth: NDArray[np.uint16]
    before: NDArray[np.float32]
    after: NDArray[np.float32]


def _trained(settings: dict[str, Any]) -> _Trained:
    """Train a network on one phantom and predict another, before and after."""
    from gpu_patch.cli.training import loop

    device, seed, batch_size = settings["device"], settings["seed"], settings["batch_size"]
    patch_size, n_scales = settings["patch_size"], settings["scales"]
    pixels, truth = make_phantom(settings["size"], seed), make_phantom(HELD_OUT_SIZE, seed + 1)
    patches: PatchConstr = loop.make_patches(pixels, patch_size, n_scales, device=device, seed=seed)
    split, held, validation = None, None, None
    if settings["val"]:
        patches, held, (split,) = split_constructor(patches, settings["val"], seed=seed)
    normalization = compute_normalization(patches)
    loader = loop.make_loader(patches, batch_size, normalization, seed)
    if held is not None:
        validation = loop.make_validation(held, batch_size, normalization)
    network = loop.make_network(n_scales, len(STRUCTURES), device=device, seed=seed)
    n_parameters = sum(parameter.numel() for parameter in network.parameters())
    print(
        f"images     phantoms: {_square(settings['size'])} to train on, {patches.n_patches} "
        f"patches of {_square(patch_size)} an epoch; {_square(HELD_OUT_SIZE)} held out"
    )
    if split is not None:
        print(f"validation {counted(settings['val'], 'patch')}: {parts_of(split)}")
    print(
        f"network    U-Net, {n_parameters} parameters; input: {counted(n_scales, 'scale')}",
        flush=True,
    )
    shape = {"patch_size": patch_size, "n_scales": n_scales, "batch_size": batch_size}
    predicted = partial(loop.predict, network, truth, normalization, **shape, device=device)
    before = predicted()
    course = loop.train(network, loader, settings["steps"], validation)
    after = predicted()
    return _Trained(
        network, normalization, n_parameters, course, pixels, split, truth, before, after
    )


def parts_of(split: Split) -> str:
    """Say what part of an image is trained on, validated on, and lost."""
    trained, validated, lost = split.parts
    return (
        f"{trained:.1%} of the image is trained on, {validated:.1%} validated, {lost:.1%} lost "
        "between them"
    )


def _print_results(
    found: _Trained, settings: dict[str, Any]
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Print what a training took and reached; return its times and qualities."""
    course, batch_size = found.course, settings["batch_size"]
    losses = running_mean(course.losses, _SMOOTHED)
    seconds = course.waiting_seconds.sum() + course.training_seconds.sum()
    print(
        f"training   {counted(len(course.losses), 'step')} of {counted(batch_size, 'patch')} in "
        f"{seconds:.1f} s: "
        f"loss {losses[0]:.3f} at first, {losses[-1]:.3f} at last; the mean of the image has 1"
    )
    if len(course.val_losses):
        print(f"validated  loss {course.val_losses[-1]:.3f} at last, of what training never reads")
    print()
    times = times_of(course)
    legend = _TIME_LEGEND if settings["device"] == "cpu" else _TIME_LEGEND_ON_CUDA
    print("\n".join(time_lines(times, batch_size)))
    print(f"\n{legend}\n")
    qualities = qualities_of(found.truth, found.before, found.after)
    print("\n".join(quality_lines(qualities)))
    print(f"\n{_QUALITY_LEGEND}\n")
    return times, qualities


def _plot(found: _Trained, settings: dict[str, Any]) -> Any:
    """Return the picture of a training."""
    course, split, losses = found.course, found.split, found.course.losses
    return plot_training(
        losses,
        found.truth,
        found.after,
        names=STRUCTURES,
        title="Two structures unmixed, in an image the network has not seen",
        subtitle=f"U-Net, {found.n_parameters} parameters, {len(losses)} steps of "
        f"{settings['batch_size']} patches of {_square(settings['patch_size'])} pixels with "
        f"{counted(settings['scales'], 'scale')}",
        loss_title="Loss: mean squared error, normalised",
        baseline=1,
        window=_SMOOTHED,
        validation=(course.val_steps, course.val_losses),
        image=None if split is None else found.pixels,
        parts=None if split is None else split.map(0, 0),
    )


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """Return what to do; what was not asked for depends on the device."""
    patch_size = options.patch_size
    if patch_size % _FACTOR:
        raise ValueError(
            f"argument --patch-size: must be a multiple of {_FACTOR}, found {patch_size}"
        )
    device = resolve(options.device)
    on_cuda = device != "cpu"
    size = options.size or (_SIZE_ON_CUDA if on_cuda else _SIZE)
    n_scales, n_val = options.multiscale_count, options.fraction_or_count
    places: Patching = RandomPatching([(1, 2, size, size)], [patch_size] * 2)
    if n_val:
        split = split_validation(places, n_val, multiscale_count=n_scales, seed=options.seed)
        places = split.training
    n_patches = places.n_patches
    usual = min(_BATCH_SIZE_ON_CUDA if on_cuda else _BATCH_SIZE, n_patches)
    if options.batch_size is not None and options.batch_size > n_patches:
        raise ValueError(
            f"argument --batch-size: must be at most {n_patches}, the training patches of an "
            f"image of {_square(size)}, found {options.batch_size}"
        )
    return {
        "steps": options.steps,
        "batch_size": options.batch_size or usual,
        "patch_size": patch_size,
        "scales": n_scales,
        "val": n_val,
        "size": size,
        "device": device,
        "seed": options.seed,
    }


def times_of(course: Course) -> dict[str, float]:
    """Return the mean seconds of a step's parts, without the first steps."""
    first = min(_WARM_UP, len(course.losses) - 1)
    return {
        "waiting for the batch": float(course.waiting_seconds[first:].mean()),
        "training": float(course.training_seconds[first:].mean()),
    }


def time_lines(times: dict[str, float], batch_size: int) -> list[str]:
    """Return the table of times."""
    step = sum(times.values())
    rows = {**times, "together": step}
    return [
        head(_TIME_COLUMNS),
        *(
            line(_TIME_COLUMNS, (name, f"{seconds * 1e3:.2f}", f"{seconds / step:.2%}"))
            for name, seconds in rows.items()
        ),
        f"{batch_size / step:.0f} patches/s",
    ]


def qualities_of(
    truth: NDArray[np.uint16], untrained: NDArray[np.float32], trained: NDArray[np.float32]
) -> dict[str, list[float]]:
    """Return the PSNR of each structure (C, Y, X), as predicted by different means."""
    mixture = truth.mean(axis=0)
    lines = [np.polynomial.Polynomial.fit(mixture.ravel(), t.ravel(), 1)(mixture) for t in truth]
    predictions = {
        "a constant": truth.mean(axis=(1, 2), keepdims=True),
        "a line through the mixture": np.stack(lines),
        "network, untrained": untrained,
        "network, trained": trained,
    }
    return {name: psnr(predicted, truth) for name, predicted in predictions.items()}


def quality_lines(qualities: dict[str, list[float]]) -> list[str]:
    """Return the table of PSNRs."""
    return [
        head(_QUALITY_COLUMNS),
        *(
            line(_QUALITY_COLUMNS, (name, *(f"{value:.1f}" for value in values)))
            for name, values in qualities.items()
        ),
    ]


def machine_lines(described: dict[str, Any]) -> list[str]:
    """Say what the times were measured on."""
    load = "" if described["load"] is None else f", load before {described['load']:.1f}"
    cpu = f"{described['cpu']}, {described['n_threads']} threads{load}"
    commit = "" if described["commit"] is None else f" ({described['commit']})"
    return [
        f"machine    {described['gpu'] or cpu}",
        f"software   gpu_patch {described['gpu_patch']}{commit}, PyTorch {described['torch']}, "
        f"{described['date']}",
    ]


def _square(n: int) -> str:
    return times((n, n))
