"""Files that no one here wrote: those that packages ship, and those that other writers make."""

from pathlib import Path

import numpy as np
import pytest
from formats import canonical, numbered

from gpu_patch import open_images
from gpu_patch.images.readers import Options, open_file

tifffile = pytest.importorskip("tifffile")
skimage = pytest.importorskip("skimage")
ORDERS = ["YX", "CYX", "ZYX", "TYX", "TCYX", "CZYX", "TZYX", "TCZYX"]


@pytest.fixture(autouse=True)
def _on_the_host(monkeypatch):
    monkeypatch.setenv("GPU_PATCH_DEVICE", "cpu")


def shipped():
    """TIFF files that installed packages bring along."""
    folder = Path(skimage.__file__).parent
    return sorted(folder.rglob("*.tif")) + sorted(folder.rglob("*.tiff"))


def test_packages_ship_tiffs():
    if not shipped():
        pytest.skip("this scikit-image ships no TIFF files")


@pytest.mark.parametrize("path", shipped(), ids=lambda path: path.name)
def test_tiffs_that_packages_ship(path):
    expected = tifffile.imread(path)
    guess = {2: "YX", 3: "SYX", 4: "SCYX"}[expected.ndim]
    try:
        (reader,) = open_file(path, Options(scene=0))
    except ValueError as error:
        assert "does not say its axes" in str(error)  # noqa: PT017
        (reader,) = open_file(path, Options(guess, scene=0))
    axes = reader.info.axes
    reader.close()
    found = open_images(path, axes, scene=0).image_stacks[0]
    kept = expected.astype(found.data.dtype)
    assert np.array_equal(found.data, canonical(kept, axes))


@pytest.mark.filterwarnings("ignore")  # what ome-zarr and its packages warn of is theirs
@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ORDERS)
def test_ome_zarr_by_its_own_package(tmp_path, axes, version):
    pytest.importorskip("ome_zarr", reason="the package ome-zarr is not installed")
    import zarr
    from ome_zarr.format import format_from_version
    from ome_zarr.writer import write_image

    data = numbered(axes, Y=64, X=64)
    kind = format_from_version(version)
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=kind.zarr_format)
    write_image(data, group, axes=axes.lower(), fmt=kind)
    found = open_images(tmp_path / "a.zarr").image_stacks[0]
    assert found.original_axes == axes
    assert np.array_equal(found.data, canonical(data, axes))
    assert open_images(tmp_path / "a.zarr", level=1).shapes[0][-2:] == (32, 32)


@pytest.mark.parametrize("axes", ORDERS)
def test_ome_tiff_by_bioio(tmp_path, axes):
    writers = pytest.importorskip(
        "bioio_ome_tiff.writers", reason="the package bioio-ome-tiff is not installed"
    )
    data = numbered(axes)
    writers.OmeTiffWriter.save(data, tmp_path / "a.ome.tiff", dim_order=axes)
    found = open_images(tmp_path / "a.ome.tiff").image_stacks[0]
    assert np.array_equal(found.data, canonical(data, axes))


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("axes", ORDERS)
def test_ome_zarr_by_bioio(tmp_path, axes, zarr_format):
    writers = pytest.importorskip(
        "bioio_ome_zarr.writers", reason="the package bioio-ome-zarr is not installed"
    )
    data = numbered(axes)
    kinds = {"T": "time", "C": "channel"}
    writer = writers.OMEZarrWriter(
        store=str(tmp_path / "a.zarr"),
        level_shapes=[data.shape],
        dtype=data.dtype,
        zarr_format=zarr_format,
        axes_names=list(axes.lower()),
        axes_types=[kinds.get(axis, "space") for axis in axes],
    )
    writer.write_full_volume(data)
    found = open_images(tmp_path / "a.zarr").image_stacks[0]
    assert found.original_axes == axes
    assert np.array_equal(found.data, canonical(data, axes))
