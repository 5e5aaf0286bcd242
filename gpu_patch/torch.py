"""Batches as PyTorch tensors, without a copy (needs PyTorch).

`TensorLoader` is the shortest way: batches in the order of a `gpu_patch.feed.BatchLoader`.
`PatchDataset` is for PyTorch's own `DataLoader`, with any sampler: one batch is still one call.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np

try:
    import torch
except ModuleNotFoundError as error:
    if error.name != "torch":  # but something that torch needs
        raise
    needed = "gpu_patch.torch needs PyTorch: pip install 'gpu_patch[torch]'"
    raise ModuleNotFoundError(needed, name="torch") from error
from numpy.typing import DTypeLike
from torch.utils.data import Dataset, get_worker_info
from torch.utils.data._utils.collate import default_collate_fn_map

from gpu_patch import device as devices
from gpu_patch.checks import instance, whole_number
from gpu_patch.constructors import PatchConstr
from gpu_patch.constructors.protocol import checked_constructor
from gpu_patch.constructors.target_dtype import target_option
from gpu_patch.feed.loader import BatchLoader
from gpu_patch.feed.ranks import Share, n_processes
from gpu_patch.specs import PatchBatch

__all__ = ["PatchDataset", "TensorBatch", "TensorLoader", "as_tensor"]


class TensorBatch(NamedTuple):
    """A batch as tensors, where the images are.

    Attributes
    ----------
    input : torch.Tensor
        (B, L, (Z), Y, X) with lateral context, otherwise (B, C, (Z), Y, X).
    target : torch.Tensor or None
        (B, C, (Z), Y, X), or None where there are no targets.
    """

    input: torch.Tensor
    target: torch.Tensor | None


def as_tensor(array: Any) -> torch.Tensor:
    """Return an array's memory as a tensor.

    Parameters
    ----------
    array : numpy.ndarray or cupy.ndarray
        As constructors return it.

    Returns
    -------
    torch.Tensor
        Of the same memory, which lives as long as either does. On CUDA in the order of torch's
        current stream, which the memory will wait for before it is used again.

    Raises
    ------
    TypeError
        This PyTorch has no such data type: before 2.3 it lacks uint16, uint32 and uint64.
    """
    if not isinstance(getattr(torch, str(array.dtype), None), torch.dtype):
        raise TypeError(
            f"PyTorch {torch.__version__} has no {array.dtype}: ask for another type, "
            'such as target_dtype="int64"'
        )
    return torch.from_numpy(array) if isinstance(array, np.ndarray) else torch.from_dlpack(array)


def as_tensors(batch: PatchBatch) -> TensorBatch:
    """Return input and target of a batch, see `as_tensor`."""
    return TensorBatch(
        as_tensor(batch.input), None if batch.target is None else as_tensor(batch.target)
    )


def _on_torch_stream(device: str) -> AbstractContextManager[Any]:
    """Make torch's current stream of a device CuPy's."""
    if device == "cpu":
        return nullcontext()
    return devices.external_stream(device, torch.cuda.current_stream(device).cuda_stream)


class TensorLoader:
    """Iterates over the batches of a `BatchLoader` as tensors.

    On CUDA, torch's current stream waits for each batch, on the device.

    Parameters
    ----------
    loader : BatchLoader
        Gives the batches; its `set_epoch`, `state_dict` and `load_state_dict` are here too.

    Raises
    ------
    TypeError
        `loader` is no `BatchLoader`.
    """

    def __init__(self, loader: BatchLoader) -> None:
        self.loader: BatchLoader = instance("loader", loader, BatchLoader, "a BatchLoader")

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self.loader)

    def __iter__(self) -> Iterator[TensorBatch]:
        """Yield (input, target)."""
        batches = iter(self.loader)
        while True:
            with _on_torch_stream(self.loader.device):
                batch = next(batches, None)
                if batch is None:
                    return
                tensors = self.convert(batch)
            del batch  # or its memory would live until the next one is taken
            yield tensors

    def convert(self, batch: PatchBatch) -> Any:
        """Return what is yielded for a batch; subclasses may yield something else.

        Parameters
        ----------
        batch : PatchBatch
            Of the loader.

        Returns
        -------
        TensorBatch
            Of the same memory.
        """
        return as_tensors(batch)

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of an epoch.

        Parameters
        ----------
        epoch : int
            0 ≤ epoch < 2^32.

        Raises
        ------
        TypeError, ValueError
            `epoch` is anything else.
        """
        self.loader.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return where the loader is.

        Returns
        -------
        dict
            As `BatchLoader.state_dict` returns it.
        """
        return self.loader.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to where a loader was.

        Parameters
        ----------
        state : dict
            As `state_dict` returned it.

        Raises
        ------
        TypeError, ValueError
            `state` is none of a loader of these patches in this order.
        """
        self.loader.load_state_dict(state)


class PatchDataset(Dataset):  # type: ignore[misc]
    """A map-style dataset that PyTorch's `DataLoader` asks for whole batches.

    With any sampler and the default collate function. Patches are drawn by counter, so workers
    need no seeds and give what one process would.

    In a training of several processes the sampler shares patches out: `DistributedSampler`, which
    Lightning puts in by itself. A process without workers that sees more than its part of an
    epoch warns, once, that all processes see the same patches; nothing else can be known here.

    Parameters
    ----------
    constructor : PatchConstr
        Makes the patches.
    normalization, augmentation : optional
        As in `BatchLoader`.
    dtype : {float32, float16}, default float32
        Of the tensors.
    target_dtype : "native", integer type, bool or None, default None
        Of targets that are labels, as in `BatchLoader`.

    Raises
    ------
    TypeError
        `constructor` is none.

    Examples
    --------
    >>> import numpy as np
    >>> import gpu_patch
    >>> images = gpu_patch.PatchExtractor(
    ...     [gpu_patch.ImageStack.from_array(np.zeros((64, 96), np.uint8), "YX", device="cpu")]
    ... )
    >>> strategy = gpu_patch.RandomPatching(images.shapes, (16, 16))
    >>> dataset = PatchDataset(gpu_patch.BasicPatchConstr(strategy, images))
    >>> loader = torch.utils.data.DataLoader(dataset, batch_size=10, shuffle=True)
    >>> next(iter(loader)).input.shape
    torch.Size([10, 1, 16, 16])
    """

    def __init__(
        self,
        constructor: PatchConstr,
        *,
        normalization: Any = None,
        augmentation: Any = None,
        dtype: DTypeLike = np.float32,
        target_dtype: DTypeLike | None = None,
    ) -> None:
        self.constructor = checked_constructor("constructor", constructor)
        self.normalization, self.augmentation, self.dtype = normalization, augmentation, dtype
        self._of_target = target_option(self.constructor, target_dtype)
        self._share: Share | None = None
        self._is_watched = True
        # shared, so that workers that live for several epochs see it change
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose draws patches have; call it where the sampler's is called.

        Parameters
        ----------
        epoch : int
            0 ≤ epoch < 2^32.

        Raises
        ------
        TypeError, ValueError
            `epoch` is anything else.
        """
        self._epoch.fill_(whole_number("epoch", epoch, minimum=0, maximum=2**32 - 1))
        self._share = None

    def __len__(self) -> int:
        """Return the number of patches."""
        return self.constructor.n_patches

    def __getitem__(self, index: int) -> TensorBatch:
        """Return one patch: input and target without the batch's axis."""
        batch = self._make([index])
        return TensorBatch(batch.input[0], None if batch.target is None else batch.target[0])

    def __getitems__(self, indices: Sequence[int]) -> list[_Whole]:
        """Return what collates to the batch of `indices`, made at once."""
        return [_Whole(self._make(indices))]

    def _make(self, indices: Sequence[int]) -> TensorBatch:
        device = self.constructor.device
        if device != "cpu" and get_worker_info() is not None:
            raise RuntimeError(
                f"a worker process of a DataLoader cannot use images on {device}: use "
                "num_workers=0 (batches are made on the device, in one launch each), or images on "
                "device='cpu'"
            )
        with _on_torch_stream(device):
            batch = self.constructor.construct_batch(
                indices,
                epoch=int(self._epoch),
                dtype=self.dtype,
                normalization=self.normalization,
                augmentation=self.augmentation,
                **self._of_target,
            )
            if self._is_watched and get_worker_info() is None:
                self._watch(indices)
            return as_tensors(batch)

    def _watch(self, indices: Sequence[int]) -> None:
        """Warn once where a process of several takes more than its part of an epoch."""
        n, n_patches = n_processes(), self.constructor.n_patches
        if n == 1:
            return
        if self._share is None or self._share.n_patches != n_patches:
            self._share = Share(n_patches, n)
        if self._share.is_exceeded(indices):
            self._is_watched = False
            warnings.warn(
                f"this process is one of {n}, but has taken more than its part of the "
                "patches: all of them see the same, unless the DataLoader has a "
                "torch.utils.data.DistributedSampler",
                stacklevel=2,
            )


class _Whole(NamedTuple):
    """A whole batch, which PyTorch's collate functions need not put together."""

    batch: TensorBatch


def _take_whole(samples: list[_Whole], *, collate_fn_map: Any = None) -> TensorBatch:
    return samples[0].batch


default_collate_fn_map[_Whole] = _take_whole
