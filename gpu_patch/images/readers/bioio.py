"""Formats that gpu_patch does not know, by bioio and whichever of its plugins are installed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch.images.axes import AXES
from gpu_patch.images.readers.base import ImageReader, Key
from gpu_patch.images.readers.choices import checked_level, chosen_scenes
from gpu_patch.images.readers.info import Options, alpha_left_out, described, foreign_axes
from gpu_patch.images.readers.paths import reading
from gpu_patch.images.readers.units import Calibration, micrometres, seconds
from gpu_patch.optional import imported

PLUGINS = {
    ".vsi": "bioio-vsi",
    **dict.fromkeys((".dv", ".r3d"), "bioio-dv"),
    ".sldy": "bioio-sldy",
    ".emd": "bioio-emd",
    ".imzml": "bioio-imzml",
    **dict.fromkeys((".gif", ".bmp", ".mp4"), "bioio-imageio"),
    # the only ones to read these are in Java
    **dict.fromkeys((".oir", ".oib", ".oif", ".ims", ".ndpi", ".scn", ".ets"), "bioio-bioformats"),
}
"""Of endings: the plugin that reads them, as PyPI calls it."""
_FOREIGN = {"M": "tiles of a mosaic", "S": "colours beside channels"}
_PURPOSE = "reading other formats"
_NO_UNIT = "its plugin tells the size of pixels without a unit: it is taken as micrometres"


class BioioReader(ImageReader):
    """A scene that a plugin of bioio reads, piece by piece of its dask array.

    Parameters
    ----------
    path : Path
        The file.
    options : Options
        Its scene is chosen already.
    scene : int
        Number of the scene.
    name : str
        What messages call it.
    """

    kind = "an image"

    def __init__(self, path: Path, options: Options, scene: int, name: str) -> None:
        self._path, self._scene, self._level = path, scene, options.level
        self._keep_alpha, self._array = options.keep_alpha, None
        with reading(name, self.kind):
            image = _image(path)
            image.set_scene(scene)
            checked_level(name, options.level, len(image.resolution_levels))
            plugin = type(image.reader).__module__.partition(".")[0].replace("_", "-")
            array, axes, colours, remarks = self._opened(image)
            calibration, no_unit = _calibration(image, scene)
        stated, shape = "".join(axes), tuple(map(int, array.shape))
        if not set(axes) <= set(AXES) or "S" in axes:
            if options.axes is None:
                raise foreign_axes(name, axes, shape, _FOREIGN)
            stated = ""
        info = described(
            f"{name}, level {options.level}" if options.level else name,
            f"by {plugin}",
            stated,
            shape,
            options,
            dtype=np.dtype(array.dtype),
            chunk_shape=tuple(map(int, array.chunksize)),
            calibration=calibration,
            files=(path,),
            colours=colours,
            remarks=[*remarks, *no_unit],
        )
        super().__init__(info, path, shape)

    def close(self) -> None:
        """Forget the array; reading asks the plugin for another one."""
        self._array = None

    def _opened(self, image: Any) -> tuple[Any, tuple[str, ...], str, list[str]]:
        """Return the array, its axes, and what they are of colours: bioio has them as samples."""
        image.set_resolution_level(self._level)
        found = image.xarray_dask_data
        array, axes, colours, remarks = found.data, tuple(map(str, found.dims)), "", []
        if "S" in axes and dict(found.sizes).get("C", 1) == 1:
            array = array[tuple(0 if axis == "C" else slice(None) for axis in axes)]
            axes = tuple("C" if axis == "S" else axis for axis in axes if axis != "C")
            at = axes.index("C")
            if array.shape[at] == 4 and not self._keep_alpha:
                array = array[(*[slice(None)] * at, slice(3))]
                remarks.append(alpha_left_out())
            colours = {3: "RGB", 4: "RGBA"}.get(array.shape[at], "")
        self._array = array
        return array, axes, colours, remarks

    def _select(self, key: Key) -> NDArray[Any]:
        if self._array is None:
            image = _image(self._path)
            image.set_scene(self._scene)
            self._opened(image)
        array: Any = self._array
        return np.asarray(array[key].compute())


def open_all(path: Path, options: Options) -> list[ImageReader]:
    """Return the scenes of the file that `options.scene` means, by number or name."""
    with reading(path, BioioReader.kind):
        names = [str(name) for name in _image(path).scenes]
    return [
        BioioReader(path, options, i, str(path) if len(names) == 1 else f"{path}, scene {i}")
        for i in chosen_scenes(path, options.scene, names)
    ]


def reads(path: Path) -> bool:
    """Tell whether a plugin is installed for such files, by their ending.

    Raises
    ------
    ImportError
        There is none, but one that could be installed.
    """
    if find_spec("bioio") is not None:
        plugins = imported("bioio.plugins", _PURPOSE).get_plugins(use_cache=True)
        if path.name.lower().endswith(tuple(plugins)):
            return True
    plugin = PLUGINS.get(path.suffix.lower())
    if plugin is None:
        return False
    java = ", which needs Java" if plugin == "bioio-bioformats" else ""
    raise ImportError(
        f"reading {path} needs bioio and a plugin of it{java}: pip install bioio {plugin}"
    )


def _image(path: Path) -> Any:
    return imported("bioio", _PURPOSE).BioImage(path, use_plugin_cache=True)


def _calibration(image: Any, scene: int) -> tuple[Calibration, list[str]]:
    """Return sizes and interval, and a remark where nobody says the unit of the sizes.

    Units are those of bioio's dimension properties, or of the OME metadata where a plugin has them.
    """
    sizes = image.physical_pixel_sizes
    pixels = _said(lambda: image.ome_metadata.images[scene].pixels)
    properties = _said(lambda: image.dimension_properties)
    lengths, guessed = {}, False
    for axis in "ZYX":
        size = getattr(sizes, axis)
        unit = _name(getattr(getattr(properties, axis, None), "unit", None))
        if unit is None and pixels is not None:
            unit = _name(getattr(pixels, f"physical_size_{axis.lower()}_unit", None))
        guessed |= size is not None and unit is None
        lengths[axis] = size, unit or "µm"
    interval = _said(lambda: image.time_interval)
    if isinstance(interval, timedelta):
        time = seconds(interval.total_seconds(), "s")
    else:
        unit = _name(getattr(pixels, "time_increment_unit", None))
        time = seconds(getattr(pixels, "time_increment", None), unit)
    return Calibration(micrometres(lengths), time_interval=time), [_NO_UNIT] * guessed


def _said(ask: Callable[[], Any]) -> Any:
    """Return what a plugin says; many raise errors of any kind for what their format lacks."""
    try:
        return ask()
    except Exception:
        return None


def _name(unit: Any) -> str | None:
    """Return the name of a unit, which plugins give as a word or an enumeration."""
    return None if unit is None else str(getattr(unit, "value", unit))
