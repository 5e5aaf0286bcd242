"""Small image files of every format, written by the packages that microscopists use."""

import numpy as np

LENGTHS = {"S": 2, "T": 3, "C": 2, "Z": 4, "Y": 37, "X": 53}


def numbered(axes, dtype=np.uint16, **lengths):
    """Pixels that differ."""
    shape = [{**LENGTHS, **lengths}[axis] for axis in axes]
    return (np.arange(np.prod(shape)) * 7 % 60000).reshape(shape).astype(dtype)


def canonical(data, axes):
    """SC(Z)YX, with every step written out."""
    for axis in "CTS":
        if axis not in axes:
            data, axes = data[None], axis + axes
    order = "STCZYX" if "Z" in axes else "STCYX"
    data = data.transpose([axes.index(axis) for axis in order])
    return data.reshape(-1, *data.shape[2:])


def multiscales(axes, *, levels=("0",), scale=None, version=None):
    """Metadata of an OME-NGFF image."""
    kinds = {"T": "time", "C": "channel"}
    named = [{"name": a.lower(), "type": kinds.get(a, "space")} for a in axes]
    for axis in named:
        if axis["type"] == "space":
            axis["unit"] = "nanometer"
    made = {
        "axes": named,
        "datasets": [
            {
                "path": path,
                "coordinateTransformations": [
                    {"type": "scale", "scale": [(scale or {}).get(a, 1.0) * 2**i for a in axes]}
                ],
            }
            for i, path in enumerate(levels)
        ],
    }
    return [made if version is None else {"version": version, **made}]


def write_ome_zarr(path, data, axes, *, version="0.5", **options):
    """Write an OME-Zarr image with two levels."""
    import zarr

    group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
    chunks = tuple({"Y": 16, "X": 24}.get(axis, 1) for axis in axes)
    coarse = data[tuple(slice(None, None, 2) if a in "YX" else slice(None) for a in axes)]
    for name, pixels in (("0", data), ("1", coarse)):
        found = group.create_array(
            name,
            **{"shape": pixels.shape, "dtype": pixels.dtype, "chunks": chunks, **options},
        )
        found[:] = pixels
    scale = {"Z": 300.0, "Y": 65.0, "X": 65.0}
    if version == "0.4":
        group.attrs["multiscales"] = multiscales(axes, levels="01", scale=scale, version=version)
    else:
        found = multiscales(axes, levels="01", scale=scale)
        group.attrs["ome"] = {"version": version, "multiscales": found}
    return path
