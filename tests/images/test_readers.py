"""Every format: any region of an image, described before and read without the rest."""

import itertools

import numpy as np
import pytest
from formats import canonical, multiscales, numbered, write_ome_zarr

from gpu_patch.images.readers import Options, open_file

tifffile = pytest.importorskip("tifffile")
zarr = pytest.importorskip("zarr")


def read(reader, region):
    out = np.full([part.stop - part.start for part in region], 77, reader.info.resident_dtype)
    reader.read(region, out)
    return out


def check(path, data, axes, *, given=None, **options):
    """All of the image, and many parts of it."""
    (reader,) = open_file(path, Options(given, **options))
    expected = canonical(data, axes)
    info = reader.info
    assert (info.shape, info.axes) == (data.shape, axes)
    assert info.dtype == data.dtype
    assert info.canonical_shape == expected.shape
    assert info.nbytes == expected.size * info.resident_dtype.itemsize
    assert len(info.chunk_shape) == data.ndim
    assert all(n >= 1 for n in info.chunk_shape)
    rng = np.random.default_rng(0)
    with reader:
        assert np.array_equal(read(reader, [slice(0, n) for n in expected.shape]), expected)
        for _ in range(25):
            starts = [int(rng.integers(n)) for n in expected.shape]
            region = tuple(
                slice(start, int(rng.integers(start, n)) + 1)
                for start, n in zip(starts, expected.shape, strict=True)
            )
            assert np.array_equal(read(reader, region), expected[region]), region
        reader.close()
        assert np.array_equal(read(reader, region), expected[region])  # opens again
        whole = reader.whole()
        assert whole.dtype == data.dtype
        assert np.array_equal(whole, data)
    return info


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rowsperstrip": 5},
        {"rowsperstrip": 5, "compression": "zlib"},
        {"tile": (16, 32)},
        {"tile": (16, 16), "compression": "zlib"},
        {"bigtiff": True, "byteorder": ">"},
        {"byteorder": ">", "compression": "zlib", "predictor": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("axes", ["YX", "ZYX", "TCYX", "TZCYX"])
@pytest.mark.parametrize("kind", ["ome", "plain"])
def test_tiff(tmp_path, options, axes, kind):
    data = numbered(axes)
    options = {"photometric": "minisblack", "metadata": {"axes": axes}, **options}
    tifffile.imwrite(tmp_path / "a.tif", data, ome=kind == "ome", **options)
    info = check(tmp_path / "a.tif", data, axes)
    assert info.format.startswith("OME-TIFF" if kind == "ome" else "TIFF")


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("options", [{}, {"tile": (16, 16)}, {"compression": "zlib"}], ids=str)
def test_colours_of_a_tiff(tmp_path, planar, options):
    axes = "YXC" if planar == "contig" else "CYX"
    data = numbered(axes, np.uint8, C=3)
    tifffile.imwrite(tmp_path / "a.tif", data, photometric="rgb", planarconfig=planar, **options)
    check(tmp_path / "a.tif", data, axes)


def test_tiff_by_imagej_with_one_directory(tmp_path):
    axes = "TZCYX"
    data = numbered(axes)
    tifffile.imwrite(
        tmp_path / "a.tif", data, imagej=True, resolution=(10, 5),
        metadata={"axes": axes, "unit": "um", "spacing": 0.5},
    )  # fmt: skip
    info = check(tmp_path / "a.tif", data, axes)
    assert info.physical_sizes == pytest.approx({"Z": 0.5, "Y": 0.2, "X": 0.1})


def test_physical_sizes_of_ome_tiff(tmp_path):
    data = numbered("ZYX")
    sizes = {"PhysicalSizeX": 65, "PhysicalSizeXUnit": "nm", "PhysicalSizeZ": 0.3}
    tifffile.imwrite(tmp_path / "a.tif", data, ome=True, metadata={"axes": "ZYX", **sizes})
    info = check(tmp_path / "a.tif", data, "ZYX")
    assert info.physical_sizes == pytest.approx({"X": 0.065, "Z": 0.3})


def test_series_of_a_tiff_are_scenes(tmp_path):
    first, second = numbered("YX"), numbered("YX", np.uint8, Y=9)
    tifffile.imwrite(tmp_path / "a.tif", first)
    tifffile.imwrite(tmp_path / "a.tif", second, append=True)
    check(tmp_path / "a.tif", first, "YX", scene=0)
    assert check(tmp_path / "a.tif", second, "YX", scene=1).path.endswith("a.tif, series 1")
    assert len(open_file(tmp_path / "a.tif", Options(scene="all"))) == 2
    for scene, words in ((None, r"2 scenes \(0, 1\): say scene=0"), (2, "no scene 2, only 0, 1")):
        with pytest.raises(ValueError, match=rf"a\.tif has {words}"):
            open_file(tmp_path / "a.tif", Options(scene=scene))


def test_levels_of_a_tiff(tmp_path):
    fine, coarse = numbered("YX", Y=64, X=64), numbered("YX", Y=32, X=32)
    with tifffile.TiffWriter(tmp_path / "a.tif", ome=True) as tiff:
        tiff.write(fine, subifds=1, tile=(16, 16))
        tiff.write(coarse, subfiletype=1, tile=(16, 16))
    check(tmp_path / "a.tif", fine, "YX")
    check(tmp_path / "a.tif", coarse, "YX", level=1)
    with pytest.raises(ValueError, match=r"no level 2: its resolution levels are 0 … 1"):
        open_file(tmp_path / "a.tif", Options(level=2))


ZARRS = {
    "0.4": {"version": "0.4"},
    "0.4 in folders": {"version": "0.4", "chunk_key_encoding": {"name": "v2", "separator": "/"}},
    "0.5": {"version": "0.5"},
    "0.5 sharded": {"version": "0.5", "sharded": True},
}


@pytest.mark.parametrize("kind", ZARRS)
@pytest.mark.parametrize("axes", ["YX", "CYX", "ZYX", "TCZYX"])
def test_ome_zarr(tmp_path, kind, axes):
    data = numbered(axes)
    options = dict(ZARRS[kind])
    if options.pop("sharded", False):
        options["shards"] = tuple({"Y": 32, "X": 48}.get(axis, 1) for axis in axes)
    path = write_ome_zarr(tmp_path / "a.zarr", data, axes, **options)
    info = check(path, data, axes)
    assert info.format.startswith(f"OME-Zarr {kind[:3]}")
    expected = {axis: 0.3 if axis == "Z" else 0.065 for axis in axes if axis in "ZYX"}
    assert info.physical_sizes == pytest.approx(expected)
    coarse = data[..., ::2, ::2]
    info = check(path, coarse, axes, level=1)
    assert info.physical_sizes == pytest.approx({a: n * 2 for a, n in expected.items()})
    check(path / "1", coarse, axes, given=axes)  # a plain array
    with pytest.raises(ValueError, match=r"a\.zarr has no level 2"):
        open_file(path, Options(level=2))


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", ">u2", "float32", "float64", "int32"])
@pytest.mark.parametrize("version", [2, 3])
def test_types_of_a_zarr_array(tmp_path, dtype, version):
    data = numbered("CYX").astype(dtype)
    array = zarr.create_array(
        tmp_path / "a", shape=data.shape, chunks=(2, 10, 10), dtype=dtype, zarr_format=version
    )
    array[:] = data
    (reader,) = open_file(tmp_path / "a", Options("CYX"))
    assert np.array_equal(read(reader, [slice(0, n) for n in (1, *data.shape)]), data[None])


def test_names_of_dimensions(tmp_path):
    data = numbered("CYX")
    for version, options in ((3, {"dimension_names": ["channel", "y", "X"]}), (2, {})):
        array = zarr.create_array(
            tmp_path / f"v{version}", shape=data.shape, dtype="u2", zarr_format=version,
            chunks=(1, 9, 9), **options,
        )  # fmt: skip
        array[:] = data
        if version == 2:
            array.attrs["_ARRAY_DIMENSIONS"] = ["c", "y", "x"]
    check(tmp_path / "v2", data, "CYX")
    with pytest.raises(ValueError, match=r"v3 does not say its axes: its shape is \(2, 37, 53\)"):
        open_file(tmp_path / "v3", Options())


def test_plates_go_by_path(tmp_path):
    plate = zarr.open_group(tmp_path / "plate.zarr", mode="w", zarr_format=3)
    plate.attrs["ome"] = {"version": "0.5", "plate": {"wells": [{"path": "A/1"}, {"path": "B/3"}]}}
    well = plate.create_group("A/1")
    well.attrs["ome"] = {"version": "0.5", "well": {"images": [{"path": "0"}]}}
    data = numbered("CYX")
    write_ome_zarr(tmp_path / "plate.zarr" / "A" / "1" / "0", data, "CYX")
    check(tmp_path / "plate.zarr" / "A" / "1" / "0", data, "CYX")
    with pytest.raises(ValueError, match=r"1 of 2 wells and fields .* the first is well B/3"):
        open_file(tmp_path / "plate.zarr", Options())
    check(tmp_path / "plate.zarr" / "A" / "1", data, "CYX")


def test_series_as_bioformats2raw_writes_them(tmp_path):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    group.attrs["bioformats2raw.layout"] = 3
    first, second = numbered("CYX"), numbered("ZYX")
    write_ome_zarr(tmp_path / "a.zarr" / "0", first, "CYX", version="0.4")
    check(tmp_path / "a.zarr", first, "CYX")
    write_ome_zarr(tmp_path / "a.zarr" / "1", second, "ZYX", version="0.4")
    check(tmp_path / "a.zarr", second, "ZYX", scene=1)
    assert len(open_file(tmp_path / "a.zarr", Options(scene="all"))) == 2
    with pytest.raises(ValueError, match=r"a\.zarr has 2 scenes \(0 \(0\), 1 \(1\)\)"):
        open_file(tmp_path / "a.zarr", Options())


def test_group_of_arrays_is_no_image(tmp_path):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    group.create_array("nuclei", shape=(3, 4), dtype="u1")
    with pytest.raises(ValueError, match=r"it is a group: name what is inside.*nuclei"):
        open_file(tmp_path / "a.zarr", Options())


def test_axes_of_ome_zarr_without_a_letter(tmp_path):
    path = write_ome_zarr(tmp_path / "a.zarr", numbered("CYX"), "CYX")
    found = multiscales("CYX", levels="01")
    found[0]["axes"][0] = {"name": "angle"}
    zarr.open_group(path).attrs["ome"] = {"version": "0.5", "multiscales": found}
    with pytest.raises(ValueError, match=r"a\.zarr does not say its axes.*'CYX'"):
        open_file(path, Options())
    check(path, numbered("CYX"), "CYX", given="CYX")


@pytest.mark.parametrize("dtype", ["bool", "uint8", ">u2", "float32", "float64"])
@pytest.mark.parametrize("order", "CF")
def test_npy(tmp_path, dtype, order):
    data = numbered("TCYX").astype(dtype)
    np.save(tmp_path / "a.npy", np.asarray(data, order=order))
    check(tmp_path / "a.npy", data, "TCYX", given="TCYX")


def test_npy_with_rows_longer_than_a_read(tmp_path):
    data = np.arange(3 * 5 * 40000).reshape(3, 5, 40000).astype("u2")
    np.save(tmp_path / "a.npy", data)
    check(tmp_path / "a.npy", data, "CYX", given="CYX")


def test_objects_are_never_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return pytest.fail, ("it was unpickled",)

    np.save(tmp_path / "a.npy", np.array([[Trap()]], object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"a\.npy.*Python objects, which are never loaded"):
        open_file(tmp_path / "a.npy", Options("YX"))


def test_pictures(tmp_path):
    image = pytest.importorskip("PIL.Image")
    for axes in ("YX", "YXC"):
        data = numbered(axes, np.uint8, C=3)
        image.fromarray(data).save(tmp_path / "a.png")
        check(tmp_path / "a.png", data, axes)


def test_content_tells_the_format_where_the_name_does_not(tmp_path):
    data = numbered("YX")
    tifffile.imwrite(tmp_path / "a", data)
    check(tmp_path / "a", data, "YX")
    np.save(tmp_path / "b.npy", data)
    (tmp_path / "b.npy").rename(tmp_path / "b.dat")
    check(tmp_path / "b.dat", data, "YX", given="YX")
    (tmp_path / "c.xyz").write_text("words")
    with pytest.raises(ValueError, match=r"c\.xyz is of no known format \(\.tif.*read_func"):
        open_file(tmp_path / "c.xyz", Options())


@pytest.mark.parametrize("order", list(itertools.permutations("STCYX"))[::13])
def test_samples_and_times_are_merged_in_any_order(tmp_path, order):
    axes = "".join(order)
    data = numbered(axes, Y=5, X=6)
    np.save(tmp_path / "a.npy", data)
    check(tmp_path / "a.npy", data, axes, given=axes)


def test_czi(tmp_path):
    czi = pytest.importorskip("pylibCZIrw.czi")
    data = numbered("STCZYX")
    with czi.create_czi(str(tmp_path / "a.czi")) as file:
        for s, t, c, z in np.ndindex(data.shape[:4]):
            plane = {"T": t, "C": c, "Z": z}
            at = (100 * s, 0)
            file.write(data[s, t, c, z], plane=plane, scene=s, location=at)
        file.write_metadata("made", scale_x=1e-7, scale_y=1e-7, scale_z=5e-7)
    for scene in range(2):
        info = check(tmp_path / "a.czi", data[scene], "TCZYX", scene=scene)
        assert info.physical_sizes == pytest.approx({"Z": 0.5, "Y": 0.1, "X": 0.1})
    with pytest.raises(ValueError, match=r"a\.czi has 2 scenes \(0, 1\)"):
        open_file(tmp_path / "a.czi", Options())
    assert len(open_file(tmp_path / "a.czi", Options(scene="all"))) == 2
    whole = (tmp_path / "a.czi").read_bytes()
    (tmp_path / "cut.czi").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut\.czi cannot be read as a CZI"):
        open_file(tmp_path / "cut.czi", Options(scene=0))


def test_colours_of_a_czi(tmp_path):
    czi = pytest.importorskip("pylibCZIrw.czi")
    data = numbered("YXC", np.uint8, C=3)
    with czi.create_czi(str(tmp_path / "a.czi")) as file:
        file.write(data[..., ::-1].copy(), plane={"T": 0, "C": 0, "Z": 0})  # BGR
    check(tmp_path / "a.czi", data, "YXC")
