"""OME-TIFF sets: images whose planes lie in several files, as microscopes write them."""

from dataclasses import dataclass, field
from itertools import product

import numpy as np


@dataclass
class Plane:
    """Where a plane lies."""

    file: str
    page: int = 0
    pixels: np.ndarray = field(default=None, repr=False)


def uuid_of(name):
    return f"urn:uuid:{name}"


def describe(images, own, *, uuid_for=uuid_of, order="XYZCT", naming=str):
    """Return OME-XML.

    images : list of (name, {(t, c, z): Plane}, pixels TCZYX).
    own : name of the file with it.
    """
    text = (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
        f'UUID="{uuid_for(own)}">'
    )
    for number, (name, planes, data) in enumerate(images):
        t, c, z, y, x = data.shape
        kind = {"float32": "float"}.get(data.dtype.name, data.dtype.name)
        text += (
            f'<Image ID="Image:{number}" Name="{name}"><Pixels ID="Pixels:{number}" '
            f'DimensionOrder="{order}" Type="{kind}" SizeX="{x}" SizeY="{y}" SizeZ="{z}" '
            f'SizeC="{c}" SizeT="{t}" PhysicalSizeX="0.{number + 1}" PhysicalSizeXUnit="µm">'
        )
        for (at_t, at_c, at_z), plane in planes.items():
            text += (
                f'<TiffData FirstT="{at_t}" FirstC="{at_c}" FirstZ="{at_z}" IFD="{plane.page}" '
                f'PlaneCount="1"><UUID FileName="{naming(plane.file)}">{uuid_for(plane.file)}'
                "</UUID></TiffData>"
            )
        text += "</Pixels></Image>"
    return text + "</OME>"


def pixels_of(n_positions, shape=(2, 2, 1, 21, 34), dtype=np.uint16):
    """Pixels TCZYX of positions, all of them different."""
    count = int(np.prod(shape))
    step = 251 if np.dtype(dtype).itemsize == 1 else 60013
    every = np.arange(n_positions * count).reshape(n_positions, *shape)
    # each plane has a number of its own in its first pixel, whatever the type
    every = every * 7 % step
    planes = every.reshape(-1, *shape[-2:])
    planes[:, 0, 0] = np.arange(len(planes))
    return every.astype(dtype)


def write_set(folder, data, file_of, *, companion=None, binary_only=False, **options):
    """Write positions (P, T, C, Z, Y, X); return the files, in order.

    file_of : callable
        Name of the file of position, time, channel and slice.
    companion : str or None
        Name of the file with the OME-XML; else every file has it.
    binary_only : bool
        Whether the first file alone has it, and the others name that one.
    options
        Of tifffile; callables take the name of the file.
    """
    import tifffile

    options = {"uuid_for": uuid_of, "naming": str, **options}
    xml = {key: options.pop(key) for key in ("uuid_for", "naming")}
    files, images = {}, []
    for p, position in enumerate(data):
        planes = {}
        for place in product(*map(range, position.shape[:3])):
            name = file_of(p, *place)
            pages = files.setdefault(name, [])
            planes[place] = Plane(name, len(pages))
            pages.append(position[place])
        images.append((f"Position {p}", planes, position))
    first = next(iter(files))
    folder.mkdir(exist_ok=True)
    for name, pages in files.items():
        text = describe(images, name, **xml)
        if companion or (binary_only and name != first):
            text = (
                '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
                f'UUID="{uuid_of(name)}"><BinaryOnly MetadataFile="{companion or first}" '
                f'UUID="{uuid_of(companion or first)}"/></OME>'
            )
        written = {key: value(name) if callable(value) else value for key, value in options.items()}
        byteorder = written.pop("byteorder", None)
        with tifffile.TiffWriter(folder / name, byteorder=byteorder) as file:
            for number, page in enumerate(pages):
                file.write(
                    page,
                    description=text.encode() if number == 0 else None,
                    metadata=None,
                    contiguous=False,
                    photometric="minisblack",
                    **written,
                )
    if companion:
        (folder / companion).write_text(describe(images, companion, **xml), encoding="utf-8")
    return [folder / name for name in files]
