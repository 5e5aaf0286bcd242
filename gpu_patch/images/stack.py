"""Images of one shape, resident in their native data type."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakSet

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpu_patch import device as devices
from gpu_patch.checks import index_in, instance, shorten, whole_numbers
from gpu_patch.chunks import ChunkedImage, RegionReader
from gpu_patch.images.axes import checked_axes, to_canonical
from gpu_patch.images.channels import checked_channels
from gpu_patch.images.dtypes import (
    LABEL_DTYPES,
    STORED_DTYPES,
    largest_inexact,
    stored_dtype,
    warn_of_lost_precision,
)
from gpu_patch.images.loading import versioned
from gpu_patch.images.readers import ImageInfo, ImageReader, Options, checked_path, tiff
from gpu_patch.images.readers.array import files_of
from gpu_patch.images.remarks import warn_of_remarks
from gpu_patch.images.version import version
from gpu_patch.locations import LARGEST_PIXEL, Locations
from gpu_patch.ops.gather import gather
from gpu_patch.pages import PageCache
from gpu_patch.sources import ChannelSources
from gpu_patch.specs import ImageMetadata

alive: WeakSet[ImageStack] = WeakSet()
"""All stacks of this process, for `residency`."""


class ImageStack:
    """Samples of one shape, with the axes SC(Z)YX, kept in their native data type.

    Make one with `from_array` or `from_tiff`, or several with `open_images`.

    Parameters
    ----------
    data : array_like
        As in `from_array`.
    axes : str
        As in `from_array`.
    source : str or Path, default "array"
        Where the images come from.
    device : str or None, default None
        Where to keep them; see `gpu_patch.device.resolve`.
    labels : bool, default False
        As in `from_array`.

    Attributes
    ----------
    source : str or Path
        Path of the file, or ``"array"``.
    data : numpy.ndarray, cupy.ndarray or gpu_patch.chunks.ChunkedImage
        SC(Z)YX, C-contiguous; or what has its shape and type, and is kept by chunk.
    data_shape : tuple of int
        SC(Z)YX.
    data_dtype : numpy.dtype
        Data type of the data as given. `data` differs from it only where that type is none of
        bool, uint8, int8, uint16, int16, float16 and float32: then it is float32. Labels stay
        what they are.
    is_labels : bool
        Whether the images are labels.
    original_data_shape, original_axes : tuple of int, str
        Shape and axes as given.
    physical_sizes : dict of str to float
        Size of a pixel along Z, Y and X in micrometres, where the file says it.
    origin : dict of str to float
        Position along Z, Y and X in micrometres, where the file says it: of the first pixel, or of
        the stage, as the file means it.
    time_interval : float or None
        Seconds from one time point to the next, where the file says it.
    colours : str
        "RGB" or "RGBA" where the channels are the colours of a picture, else "".
    files : tuple of Path
        Every file or folder that the images are in, absolute and without links, where known.
    version : str
        Names, sizes and dates of the files when they were opened; `source` where there are none.
    device : str
        Where `data` lives.

    Raises
    ------
    TypeError, ValueError
        The data are empty, no real numbers, or have other axes.
    MemoryError
        The device has no room for them.
    """

    def __init__(
        self,
        data: ArrayLike,
        axes: str,
        *,
        source: str | Path = "array",
        device: str | None = None,
        labels: bool = False,
    ) -> None:
        array = devices.as_array(data)
        self.is_labels = bool(instance("labels", labels, bool, "True or False"))
        dtype = _stored_dtype(array, labels=labels)
        self.source = source
        self.original_axes = checked_axes(axes, tuple(array.shape))
        self.original_data_shape = tuple(array.shape)
        self.data_dtype = array.dtype
        if array.size == 0:
            raise ValueError(f"data must not be empty, found the shape {array.shape}")
        self.data, self.device = devices.place(
            to_canonical(array, self.original_axes), dtype, device
        )
        self.data_shape: tuple[int, ...] = tuple(self.data.shape)
        self.physical_sizes: dict[str, float] = {}
        self.origin: dict[str, float] = {}
        self.time_interval: float | None = None
        self.colours = ""
        self.files = files_of(data)
        self.version = version(source, self.files)
        alive.add(self)

    def __repr__(self) -> str:
        return (
            f"ImageStack({str(self.source)!r}, shape={self.data_shape}, dtype={self.data.dtype}, "
            f"device={self.device!r})"
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        alive.add(self)

    @property
    def nbytes(self) -> int:
        """Bytes that the images take where they are resident."""
        return int(self.data.nbytes)

    @property
    def metadata(self) -> ImageMetadata:
        """Where the images come from and how they looked there, as a fresh dict."""
        known = {
            "physical_sizes": dict(self.physical_sizes),
            "origin": dict(self.origin),
            "time_interval": self.time_interval,
        }
        return {
            "source": str(self.source),
            "dtype": str(self.data_dtype),
            "data_shape": self.data_shape,
            "original_data_shape": self.original_data_shape,
            "additional_metadata": {name: value for name, value in known.items() if value},
        }

    @classmethod
    def from_array(
        cls, data: ArrayLike, axes: str, *, device: str | None = None, labels: bool = False
    ) -> ImageStack:
        """Make a stack from an array.

        Parameters
        ----------
        data : array_like
            Real numbers or bool. Taken without a copy where it is contiguous in the order
            SC(Z)YX and of a stored type; then later changes of it show.
        axes : str
            One letter per axis of `data`, of "STCZYX", Y and X among them. S and T are merged
            into samples, S outermost.
        device : str or None, default None
            Where to keep the images; see `gpu_patch.device.resolve`.
        labels : bool, default False
            Whether they are labels: integers of any type stay what they are. Otherwise those of 32
            and 64 bits become float32.

        Examples
        --------
        >>> import numpy as np
        >>> ImageStack.from_array(np.zeros((64, 96, 3), np.uint16), "YXC").data_shape
        (1, 3, 64, 96)
        """
        return cls(data, axes, device=device, labels=labels)

    @classmethod
    def from_tiff(
        cls,
        path: str | Path,
        axes: str | None = None,
        *,
        device: str | None = None,
        allow_missing_chunks: bool = False,
        keep_alpha: bool = False,
        labels: bool = False,
    ) -> ImageStack:
        """Read a TIFF file (needs the extra ``gpu_patch[io]``).

        Parameters
        ----------
        path : str or Path
            The file; its first series is read.
        axes : str or None, default None
            As in `from_array`; None takes them from the file, where it says them.
        device : str or None, default None
            Where to keep the images.
        allow_missing_chunks, keep_alpha, labels : bool, default False
            As in `open_images`.

        Raises
        ------
        OSError
            The file cannot be opened.
        ValueError
            It is no readable TIFF, or its axes are not known. The message names the file.
        """
        options = Options(
            axes,
            0,
            0,
            allow_missing_chunks=allow_missing_chunks,
            keep_alpha=keep_alpha,
            labels=bool(instance("labels", labels, bool, "True or False")),
        )
        (reader,) = tiff.open_all(checked_path(path), options)
        warn_of_remarks([reader.info], stacklevel=2)
        with reader:
            return cls.from_reader(reader, device=device)

    @classmethod
    def from_reader(
        cls,
        reader: ImageReader,
        *,
        device: str | None = None,
        progress: Callable[[int], object] = lambda _: None,
        found: tuple[str, Any] | None = None,
    ) -> ImageStack:
        """Read an image in pieces, so that the host never holds it twice.

        Parameters
        ----------
        reader : gpu_patch.images.readers.ImageReader
            The image.
        device : str or None, default None
            Where to keep it.
        progress : callable, optional
            Told how many bytes have come, after each piece.
        found : (str, array) or None, default None
            What `loading.versioned` has returned for it already.
        """
        info = reader.info
        resident = reader.resident
        if resident is not None:
            stack = cls(resident, info.axes, source=info.path, device=device, labels=info.labels)
            stack.files = info.files
            stack.version = version(info.path, info.files)
            progress(stack.nbytes)
            return stack
        where = devices.resolve(device)
        opened, pixels = found or versioned(reader, where, progress)
        stack = cls._described(info, pixels, where, opened)
        if reader.largest_inexact:
            warn_of_lost_precision(info.path, info.dtype, reader.largest_inexact, stacklevel=3)
        return stack

    @classmethod
    def by_chunk(
        cls,
        reader: RegionReader,
        *,
        cache: PageCache,
        source: str | Path = "array",
        info: ImageInfo | None = None,
    ) -> ImageStack:
        """Make a stack that is read by chunk, when a batch needs it.

        `open_images` does this with files, where they do not fit.

        Parameters
        ----------
        reader : RegionReader
            What it is read from.
        cache : PageCache
            Where its pages are kept. Stacks that share one share its budget.
        source : str or Path, default "array"
            Where it comes from.
        info : ImageInfo or None, default None
            What else is known of the image; its path replaces `source`.

        Raises
        ------
        TypeError, ValueError
            The reader's data type is none that images are kept in, or its chunks have other axes.

        Examples
        --------
        >>> import numpy as np
        >>> from types import SimpleNamespace
        >>> from gpu_patch.pages import PageCache
        >>> pixels = np.zeros((1, 1, 2000, 3000), np.uint16)
        >>> reader = SimpleNamespace(
        ...     shape=pixels.shape,
        ...     dtype=pixels.dtype,
        ...     chunk_shape=(1, 1, 256, 256),
        ...     read=lambda region, out: np.copyto(out, pixels[region]),
        ... )
        >>> stack = ImageStack.by_chunk(reader, cache=PageCache(10**6))
        >>> stack.extract_patch(0, None, (500, 500), (64, 64)).shape
        (1, 64, 64)
        >>> stack.nbytes
        524288
        """
        data = ChunkedImage(reader, cache, str(source) if info is None else info.path)
        known = ("bool", *LABEL_DTYPES) if info is not None and info.labels else STORED_DTYPES
        if data.dtype.name not in known:
            raise TypeError(f"reader.dtype must be one of {', '.join(known)}, found {data.dtype}")
        if info is None:
            axes = "SCYX" if data.ndim == 4 else "SCZYX"
            info = ImageInfo(str(source), "array", data.shape, axes, data.dtype, data.chunk_shape)
        return cls._described(info, data, cache.device, version(info.path, info.files))

    @classmethod
    def _described(cls, info: ImageInfo, data: Any, device: str, version: str) -> ImageStack:
        """Make a stack of pixels that are canonical already."""
        stack = cls.__new__(cls)
        stack.data, stack.device = data, device
        stack.data_shape = info.canonical_shape
        in_files = info.format != "array" and info.files
        stack.source = Path(info.path) if in_files else info.path
        stack.original_axes, stack.original_data_shape = info.axes, info.shape
        stack.data_dtype, stack.is_labels = info.dtype, info.labels
        stack.physical_sizes = dict(info.physical_sizes)
        stack.origin = dict(info.calibration.origin)
        stack.time_interval = info.calibration.time_interval
        stack.colours = info.colours
        stack.files, stack.version = info.files, version
        alive.add(stack)
        return stack

    def extract_patch(
        self,
        sample_idx: int,
        channels: Sequence[int] | None,
        coords: Sequence[int],
        patch_size: Sequence[int],
    ) -> NDArray[Any]:
        """Cut a patch out; zero where it leaves the image.

        Parameters
        ----------
        sample_idx : int
            Sample.
        channels : sequence of int or None
            Channels, in the order wanted; None is all.
        coords, patch_size : sequence of int
            First pixel and size, (Z)YX.

        Returns
        -------
        array
            C(Z)YX, float32; of labels their own type.

        Raises
        ------
        IndexError, TypeError, ValueError
            An argument is wrong; the message names it.
        """
        ndim = len(self.data_shape) - 2
        start = whole_numbers(
            "coords", coords, minimum=-LARGEST_PIXEL, maximum=LARGEST_PIXEL, length=ndim
        )
        size = whole_numbers(
            "patch_size", patch_size, minimum=1, maximum=LARGEST_PIXEL, length=ndim
        )
        sample = index_in("sample_idx", sample_idx, self.data_shape[0], "samples")
        chosen = checked_channels(channels, self.data_shape[1])
        place = Locations(np.array([0]), np.array([sample]), np.array([start]), size)
        patch: NDArray[Any] = gather(
            [self.data],
            ChannelSources.correlated(place, np.array(chosen)),
            size,
            dtype=self.data.dtype if self.is_labels else np.float32,
        )[0]
        return patch


def _stored_dtype(array: Any, *, labels: bool) -> np.dtype[Any]:
    try:
        stored = stored_dtype(array.dtype, labels=labels)
    except TypeError as error:
        raise TypeError(f"{error}: {shorten(array)}") from None
    if largest := largest_inexact(array, stored):
        warn_of_lost_precision("", array.dtype, largest, stacklevel=4)
    return stored
