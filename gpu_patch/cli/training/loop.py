"""What ``gpu-patch train-demo`` does with PyTorch: data, training, clocks, prediction."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import mse_loss

import gpu_patch
from gpu_patch import (
    Augmentation,
    ImageStack,
    MultiChannelTargetMsPatchConstr,
    PatchConstr,
    PatchExtractor,
    RandomPatching,
)
from gpu_patch.cli.arguments import needs
from gpu_patch.cli.training.unet import UNet
from gpu_patch.feed import BatchLoader, Normalization
from gpu_patch.torch import TensorBatch, TensorLoader

_WEIGHT_RANGE = (0.4, 0.6)
_LEARNING_RATE = 3e-3
_SHOWN = 20
"""Steps whose mean loss the progress bar shows."""
_VALIDATED_EVERY = 25
"""Steps."""


# ---- data --------------------------------------------------------------------------------------


def make_patches(
    pixels: NDArray[np.uint16], patch_size: int, n_scales: int, *, device: str, seed: int
) -> MultiChannelTargetMsPatchConstr:
    """Make the constructor of random patches of an image (C, Y, X), mixed with random weights."""
    images = PatchExtractor([ImageStack.from_array(pixels, "CYX", device=device)])
    places = RandomPatching(images.shapes, (patch_size, patch_size), seed)
    weights = [_WEIGHT_RANGE] * len(pixels)
    return MultiChannelTargetMsPatchConstr(
        places, images, n_scales, "reflect", weights, 0.0, seed=seed
    )


def make_loader(
    constructor: PatchConstr,
    batch_size: int,
    normalization: Normalization,
    seed: int,
) -> BatchLoader:
    """Make the loader of whole batches in random order, normalised and augmented."""
    return BatchLoader(
        constructor,
        batch_size,
        seed=seed,
        drop_last=True,
        normalization=normalization,
        augmentation=Augmentation(),
    )


def make_validation(
    constructor: PatchConstr, batch_size: int, normalization: Normalization
) -> BatchLoader:
    """Make the loader of validation patches, in order and as they are."""
    return BatchLoader(constructor, batch_size, shuffle=False, normalization=normalization)


# ---- clocks ------------------------------------------------------------------------------------


class Clock(Protocol):
    """Marks moments, and tells how far they are apart."""

    def mark(self) -> Any:
        """Return this moment."""

    def seconds(self, marks: Sequence[Any]) -> NDArray[np.float64]:
        """Return the time from each of the marks to the next one."""


class HostClock:
    """Moments of this process, which does the work itself."""

    def mark(self) -> float:
        """Return this moment."""
        return time.perf_counter()

    def seconds(self, marks: Sequence[float]) -> NDArray[np.float64]:
        """Return the time from each of the marks to the next one."""
        return np.diff(marks)


class StreamClock:
    """Moments of torch's current stream: when all work before them is done, and none after."""

    def mark(self) -> Any:
        """Return this moment; nobody waits for it."""
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, marks: Sequence[Any]) -> NDArray[np.float64]:
        """Wait for the last mark, and return the time from each of them to the next one."""
        marks[-1].synchronize()
        return np.array([a.elapsed_time(b) / 1e3 for a, b in pairwise(marks)])


# ---- training ----------------------------------------------------------------------------------


class Course(NamedTuple):
    """How a training went.

    Attributes
    ----------
    losses : array of float32, shape (steps,)
        Mean squared error of each step's batch, of normalised values.
    waiting_seconds, training_seconds : array of float64, shape (steps,)
        From the end of the step before until the batch is there, and from then to the end of the
        step. Nothing but validation is left out between.
    val_steps, val_losses : array of int64 and of float32, shape (n,)
        After which steps the validation patches were looked at, and their mean loss then.
    """

    losses: NDArray[np.float32]
    waiting_seconds: NDArray[np.float64]
    training_seconds: NDArray[np.float64]
    val_steps: NDArray[np.int64]
    val_losses: NDArray[np.float32]


def use_device(device: str) -> None:
    """Make a device torch's current one, or say that torch cannot use it."""
    if device == "cpu":
        return
    if not torch.cuda.is_available():
        raise RuntimeError(
            f"argument --device: the images would be on {device!r}, but this PyTorch "
            f"({torch.__version__}) cannot use CUDA: use --device cpu, or install one that can"
        )
    torch.cuda.set_device(device)


def machine(device: str) -> dict[str, Any]:
    """Describe what torch computes on."""
    return {
        "torch": torch.__version__,
        "n_threads": torch.get_num_threads(),
        "gpu": None if device == "cpu" else torch.cuda.get_device_name(device),
    }


def make_network(n_inputs: int, n_outputs: int, *, device: str, seed: int) -> UNet:
    """Make a network with random parameters."""
    torch.manual_seed(seed)
    # in this order of memory convolutions take two thirds of the time on a CPU
    network: UNet = UNet(n_inputs, n_outputs).to(device, memory_format=torch.channels_last)
    return network


def train(
    network: nn.Module, loader: BatchLoader, n_steps: int, validation: BatchLoader | None = None
) -> Course:
    """Train a network on batches of as many epochs as it takes, showing a progress bar."""
    tqdm = needs("train-demo", "tqdm")
    on_cuda = loader.device != "cpu"
    clock: Clock = StreamClock() if on_cuda else HostClock()
    optimizer = torch.optim.Adam(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, n_steps)
    batches = _endless(TensorLoader(loader))
    # copied there in the order of the stream: asking the device for a loss would wait for it
    losses = torch.full((n_steps,), torch.nan, pin_memory=on_cuda)
    val_losses: dict[int, torch.Tensor] = {}
    marks = []
    with tqdm.tqdm(
        total=n_steps, desc="train", unit=" steps", file=sys.stderr, disable=None
    ) as bar:
        for step in range(n_steps):
            marks.append(clock.mark())
            batch = next(batches)
            marks.append(clock.mark())
            loss = mse_loss(network(batch.input), batch.target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses[step].copy_(loss.detach(), non_blocking=True)
            _show(bar, losses[max(0, step + 1 - _SHOWN) : step + 1])
            marks.append(clock.mark())
            if validation and ((step + 1) % _VALIDATED_EVERY == 0 or step + 1 == n_steps):
                val_losses[step + 1] = _validated(network, validation)
    seconds = clock.seconds(marks)
    return Course(
        losses.numpy(),
        seconds[0::3],
        seconds[1::3],
        np.array(list(val_losses), np.int64),
        np.array([loss.item() for loss in val_losses.values()], np.float32),
    )


def _validated(network: nn.Module, loader: BatchLoader) -> torch.Tensor:
    """Return the mean loss of the patches of the first epoch."""
    loader.set_epoch(0)
    with torch.no_grad():
        errors = [(network(input) - target) ** 2 for input, target in TensorLoader(loader)]
    return torch.cat(errors).mean()


def _endless(loader: TensorLoader) -> Iterator[TensorBatch]:
    while True:
        yield from loader


def _show(bar: Any, losses: torch.Tensor) -> None:
    """Show the mean of what is known of the last losses; a device may be some steps behind."""
    known = losses[~losses.isnan()]
    if len(known):
        bar.set_postfix(loss=f"{known.mean().item():.3f}", refresh=False)
    bar.update()


# ---- prediction --------------------------------------------------------------------------------


def predict(
    network: nn.Module,
    pixels: NDArray[np.uint16],
    normalization: Normalization,
    *,
    patch_size: int,
    n_scales: int,
    batch_size: int,
    device: str,
) -> NDArray[np.float32]:
    """Predict the structures of an image (C, Y, X) from their mixture, the channels' mean."""
    mixture = pixels.mean(axis=0, dtype=np.float32)
    found = gpu_patch.predict(
        ImageStack.from_array(mixture, "YX", device=device),
        network,
        tile_size=(patch_size, patch_size),
        overlaps=[patch_size // 4 * 2] * 2,
        batch_size=batch_size,
        multiscale_count=n_scales,
        normalization=normalization,
        progress=False,
    )
    image: NDArray[np.float32] = found.images[0]
    return image


# ---- saving ------------------------------------------------------------------------------------


def save(network: nn.Module, n_scales: int, patch_size: int, path: Path) -> None:
    """Write a network as TorchScript, which takes batches of any number and size of tiles."""
    device = next(network.parameters()).device
    example = torch.zeros((1, n_scales, patch_size, patch_size), device=device)
    # in evaluation mode: predict warns of models that were saved in the other one
    torch.jit.trace(network.eval(), example).save(path)
