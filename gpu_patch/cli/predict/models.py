"""Models from files, and why one does not fit the images."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from gpu_patch.words import counted

_MOST_CHANNELS = 16
_MULTIPLES = (2, 4, 8, 16, 32, 64, 128)
_SIZES = (32, 48, 64, 96, 128, 192, 256, 384, 512)
_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Tiles(NamedTuple):
    """What a model is given.

    Attributes
    ----------
    batch_size, n_channels : int
        Tiles per batch; channels, or scales where there is context.
    size : tuple of int
        (Z)YX.
    """

    batch_size: int
    n_channels: int
    size: tuple[int, ...]


def load_model(path: Path, device: str) -> Any:
    """Read a file of `torch.export` (.pt2) or TorchScript (any other)."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))  # torch logs a traceback of what is raised here
    try:
        if path.suffix.lower() == ".pt2":
            return torch.export.load(path).module().to(device)
        return torch.jit.load(path, map_location=device)
    # torch raises whatever a foreign file provokes
    except Exception as error:
        raise ValueError(
            f"argument --model: '{path}' is neither TorchScript nor, with the ending .pt2, of "
            "torch.export: save the model by torch.jit.trace(model, batch).save('model.pt') or "
            "torch.export.save(torch.export.export(model, (batch,)), 'model.pt2')"
        ) from error
    finally:
        logging.disable(before)


class Counting(torch.nn.Module):  # type: ignore[misc]
    """A model that counts its tiles: none where nothing was left to do.

    Parameters
    ----------
    model : torch.nn.Module
        The model. Those of TorchScript take no hooks.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.n_tiles = model, 0
        self.training = model.training  # as a whole, as it was saved

    def forward(self, batch: Any) -> Any:
        """Run the model."""
        self.n_tiles += len(batch)
        return self.model(batch)


def misfit(model: Any, given: Tiles, *, has_context: bool) -> str:
    """Say why a model does not take tiles, by one thing to change; "" where there is none.

    Parameters
    ----------
    model : torch.nn.Module
        The model.
    given : Tiles
        What it was given.
    has_context : bool
        Whether channels are scales.
    """
    device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))

    def takes(tiles: Tiles) -> bool:
        batch = torch.zeros((tiles.batch_size, tiles.n_channels, *tiles.size), device=device)
        try:
            with torch.inference_mode():
                found = model(batch)
            return tuple(found.shape[2:]) == tiles.size
        except Exception:  # of any kind
            return False

    if takes(given):
        return ""
    for change in (_batch_size, _n_channels, _size):
        for tiles, reason in change(given, has_context):
            if takes(tiles):
                return reason
    return ""


_Reasons = Iterator[tuple[Tiles, str]]
_Change = Callable[[Tiles, bool], _Reasons]


def _batch_size(given: Tiles, has_context: bool) -> _Reasons:
    for n in _BATCH_SIZES:
        reason = f"it takes batches of {n} alone, found --batch-size {given.batch_size}: "
        # of another size than 1, the last batch would be the next error
        way = "use --batch-size 1, or " if n == 1 else ""
        yield (
            given._replace(batch_size=n),
            f"{reason}{way}export it for batches of any size (dynamic_shapes)",
        )


def _n_channels(given: Tiles, has_context: bool) -> _Reasons:
    for n in range(1, _MOST_CHANNELS + 1):
        if has_context:
            reason = f"{counted(n, 'scale')}, found --scales {given.n_channels}: use --scales {n}"
        else:
            reason = f"{counted(n, 'channel')}, and the images have {given.n_channels}: give others"
            reason += f", or --scales {n} for context" if given.n_channels == 1 else ""
        yield given._replace(batch_size=1, n_channels=n), f"it takes {reason}"


def _size(given: Tiles, has_context: bool) -> _Reasons:
    multiples = [tuple(-(-n // m) * m for n in given.size) for m in _MULTIPLES]
    fixed = [(*given.size[:-2], n, n) for n in _SIZES]  # as exported modules do
    kinds = [f"whose size is a multiple of {m}" for m in _MULTIPLES]
    kinds += [f"of {_listed(size)} alone" for size in fixed]
    for size, kind in zip(multiples + fixed, kinds, strict=True):
        yield (
            given._replace(batch_size=1, size=size),
            f"it takes tiles {kind}, found --tile-size {_listed(given.size)}: use --tile-size "
            f"{_listed(size)}",
        )


def _listed(size: Sequence[int]) -> str:
    return ",".join(map(str, size))
