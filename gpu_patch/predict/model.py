"""A model of any library, as a function that takes a batch and returns tiles."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from gpu_patch import device as devices
from gpu_patch.checks import Message, argument, shorten

TRAINING_MODES = ("eval", "keep")

_STORED = ("float32", "float16")


@contextmanager
def running(model: Any, device: str, axes: str) -> Iterator[Callable[[Any], Any]]:
    """Give a function that returns the tiles (B, C, (Z), Y, X) of a batch.

    A torch module makes no gradients meanwhile.

    Parameters
    ----------
    model : torch.nn.Module or callable
        As in `predict`.
    device : str
        Where batches are.
    axes : str
        What they are of, for who reads an error of the model.
    """
    with ExitStack() as stack:
        stack.enter_context(devices.on_device(device))
        dtype = "float32"
        if is_module(model):
            function, dtype = stack.enter_context(_module_running(model, device))
        elif callable(model):
            function = model
        else:
            raise TypeError(
                "model must be a torch module or a function of a batch, found "
                f"{shorten(model)} ({type(model).__name__})"
            )

        def tiles_of(batch: Any) -> Any:
            try:
                return _as_tiles(function(batch), batch, device)
            except Exception as error:
                error.add_note(
                    Message(
                        f"the model was given a batch of {dtype} and of the shape "
                        f"{tuple(batch.shape)}, which is ",
                        axes,
                    )
                )
                raise

        yield tiles_of


def is_module(model: object) -> bool:
    """Tell whether `model` is one of torch's, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(model, torch.nn.Module)


def modes_of(model: Any) -> list[str]:
    """Return the parts of a torch module that are in training mode; of others none."""
    if not is_module(model):
        return []
    return sorted(name or "model" for name, part in model.named_modules() if part.training)


@contextmanager
def modes(model: Any, training_mode: str | None) -> Iterator[bool]:
    """Put a torch module into the modes that it is to run in, and back at the end.

    Parameters
    ----------
    model : torch.nn.Module or callable
        As in `predict`. What is no module has no modes.
    training_mode : {"eval", "keep"} or None
        As in `predict`.

    Yields
    ------
    bool
        Whether parts that were in training mode are in evaluation mode, unasked.
    """
    if not is_module(model):
        if training_mode is not None:
            raise ValueError(
                Message(
                    argument("training_mode", training_mode),
                    f" is for torch modules, found {shorten(model)} ({type(model).__name__}): set "
                    "the mode of what it calls yourself",
                )
            )
        yield False
        return
    before = [(module, module.training) for module in model.modules()]
    changed = False
    try:
        # a module that trains in part does so on purpose: dropout, say, that is to be sampled
        if training_mode == "eval" or (training_mode is None and model.training):
            try:
                model.eval()
                changed = training_mode is None
            except (
                NotImplementedError
            ):  # modules from torch.export have no modes; their submodules may
                for module, _ in before:
                    module.training = False
        yield changed
    finally:
        for module, mode in before:
            module.training = mode


@contextmanager
def _module_running(model: Any, device: str) -> Iterator[tuple[Callable[[Any], Any], str]]:
    """Give a function that runs a module, and the name of the data type that this takes."""
    torch: Any = sys.modules["torch"]
    from gpu_patch.torch import as_tensor

    tensors = [*model.parameters(), *model.buffers()]
    elsewhere = sorted({_place(tensor) for tensor in tensors} - {device})
    if elsewhere:
        raise ValueError(
            f"model is on {', '.join(elsewhere)}, but the images are on {device}: move it there "
            f"with model.to({device!r}), or load the images with device={elsewhere[0]!r}"
        )
    wanted = next((t.dtype for t in tensors if t.is_floating_point()), torch.float32)
    with ExitStack() as stack:
        if device != "cpu":
            stream = torch.cuda.current_stream(device).cuda_stream
            stack.enter_context(devices.external_stream(device, stream))
        stack.enter_context(torch.inference_mode())
        dtype = str(wanted).removeprefix("torch.")
        yield lambda batch: model(as_tensor(batch).to(wanted)), dtype


def _place(tensor: Any) -> str:
    return "cpu" if tensor.device.type == "cpu" else str(tensor.device)


def _as_tiles(found: Any, batch: Any, device: str) -> Any:
    """Return what a model gave as a contiguous array of float32 or float16, where the batch is."""
    array = _as_array(found)
    here = f"cuda:{array.device.id}" if devices.is_cuda_array(array) else "cpu"
    if here != device:
        raise ValueError(f"model must return tiles on {device}, as the batch is, found {here}")
    shape, given = tuple(array.shape), tuple(batch.shape)
    if len(shape) != len(given) or shape[:1] + shape[2:] != given[:1] + given[2:] or not shape[1]:
        wanted = ", ".join(map(str, (given[0], "C", *given[2:])))
        raise ValueError(
            f"model must return a tile for each of the batch, and as large: of the shape "
            f"({wanted}) for a batch of {given}, found {shape}"
        )
    if array.dtype.kind in "cOSUMm":
        raise TypeError(f"model must return real numbers, found {array.dtype}")
    dtype = array.dtype if array.dtype.name in _STORED else np.dtype(np.float32)
    return devices.place(array, dtype, None if here != "cpu" else here)[0]


def _as_array(found: Any) -> Any:
    if isinstance(found, (tuple, list, dict)):
        kind = type(found).__name__
        key = repr(next(iter(found))) if isinstance(found, dict) and found else "0"
        raise TypeError(
            f"model must return one array, found a {kind} of {len(found)}: choose from them, as "
            f"in predict(images, lambda batch: model(batch)[{key}], …)"
        )
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(found, torch.Tensor):
        found = found.detach()
        if found.is_floating_point() and found.dtype != torch.float16:
            found = found.float()
        if found.is_cuda:
            _keep_until_read(torch, found)
    if not hasattr(found, "shape"):
        raise TypeError(f"model must return an array, found {shorten(found)}")
    return devices.as_array(found)


def _keep_until_read(torch: Any, tensor: Any) -> None:
    """Keep torch from using a tensor's memory again before CuPy's stream has read it."""
    reader = devices.current_stream(f"cuda:{tensor.device.index}")
    if reader != torch.cuda.current_stream(tensor.device).cuda_stream:
        tensor.record_stream(torch.cuda.ExternalStream(reader, device=tensor.device))
