"""Where pixels are and when they were recorded: from an image to its prediction."""

import json

import numpy as np
import pytest
from pixels import distinct

from gpu_patch import open_images, predict

tifffile = pytest.importorskip("tifffile")
zarr = pytest.importorskip("zarr")

TILES = {"tile_size": (16, 16), "overlaps": (4, 4), "progress": False}
ENDINGS = [".ome.tif", ".ome.zarr"]


@pytest.fixture(autouse=True)
def _on_the_host(monkeypatch):
    monkeypatch.setenv("GPU_PATCH_DEVICE", "cpu")


def of(path, **options):
    """Sizes, origin and time interval."""
    (stack,) = open_images(path, **options).image_stacks
    return stack.physical_sizes, stack.origin, stack.time_interval


def by_ome(path, metadata, axes="TYX", shape=(3, 21, 34)):
    tifffile.imwrite(path, distinct(shape, "uint16"), ome=True, metadata={"axes": axes, **metadata})


def by_ngff(path, transforms, *, time="millisecond", space="nanometer", of_image=()):
    group = zarr.create_group(path)
    group.create_array("0", data=distinct((3, 21, 34), "uint16"), chunks=(1, 21, 34))
    units = {"t": time, "y": space, "x": space}
    axes = [
        {"name": name, "type": "time" if name == "t" else "space", **({"unit": u} if u else {})}
        for name, u in units.items()
    ]
    image = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": transforms}]}
    if of_image:
        image["coordinateTransformations"] = list(of_image)
    group.attrs["ome"] = {"version": "0.5", "multiscales": [image]}


PLANES = {f"Position{a}": [at] * 3 for a, at in (("X", -120.5), ("Y", 0.0), ("Z", 7.25))}
UNITS = {f"Position{a}Unit": [unit] * 3 for a, unit in (("X", "µm"), ("Y", "µm"), ("Z", "µm"))}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(("said", "unit", "expected"), [(2.5, "s", 2.5), (4, "ms", 0.004),
                                                        (1.5, "min", 90.0)])  # fmt: skip
def test_the_time_interval_of_ome_tiff_is_kept(tmp_path, ending, said, unit, expected):
    by_ome(tmp_path / "a.ome.tif", {"TimeIncrement": said, "TimeIncrementUnit": unit})
    out = tmp_path / f"out{ending}"
    predict(open_images(tmp_path / "a.ome.tif"), lambda x: x, out=out, **TILES)
    assert of(tmp_path / "a.ome.tif")[2] == pytest.approx(expected)
    assert of(out)[2] == pytest.approx(expected)


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_time_interval_of_imagej_is_kept(tmp_path, ending):
    metadata = {"axes": "TYX", "finterval": 0.75}
    tifffile.imwrite(tmp_path / "a.tif", distinct((3, 21, 34), "uint16"), imagej=True,
                     metadata=metadata)  # fmt: skip
    out = tmp_path / f"out{ending}"
    predict(open_images(tmp_path / "a.tif"), lambda x: x, out=out, **TILES)
    assert of(out)[2] == 0.75


def test_imagej_says_the_unit_of_time(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", distinct((3, 21, 34), "uint16"), imagej=True,
                     metadata={"axes": "TYX", "finterval": 3, "tunit": "min"})  # fmt: skip
    assert of(tmp_path / "a.tif")[2] == 180


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_position_of_ome_tiff_is_kept(tmp_path, ending):
    sizes = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.25}
    by_ome(tmp_path / "a.ome.tif", {**sizes, "Plane": {**PLANES, **UNITS}})
    found = of(tmp_path / "a.ome.tif")
    assert found == ({"X": 0.5, "Y": 0.25}, {"X": -120.5, "Y": 0.0, "Z": 7.25}, None)
    out = tmp_path / f"out{ending}"
    predict(open_images(tmp_path / "a.ome.tif"), lambda x: x, out=out, **TILES)
    sizes, origin, _ = of(out)
    assert sizes == found[0]
    # a plane has no place along Z in OME-Zarr
    assert origin == {a: at for a, at in found[1].items() if a != "Z" or ending == ".ome.tif"}


def test_a_position_in_no_known_unit_is_none(tmp_path):
    by_ome(tmp_path / "a.ome.tif", {"Plane": {"PositionX": [3.0] * 3}})
    assert of(tmp_path / "a.ome.tif")[1] == {}


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_ome_zarr_says_is_kept(tmp_path, ending):
    scale = {"type": "scale", "scale": [500, 250, 125]}
    shift = {"type": "translation", "translation": [0, -2000, 30]}
    twice = {"type": "scale", "scale": [2, 1, 2]}
    moved = {"type": "translation", "translation": [0, 0, 40]}
    by_ngff(tmp_path / "a.zarr", [scale, shift], of_image=(twice, moved))
    expected = ({"Y": 0.25, "X": 0.25}, {"Y": -2.0, "X": 0.1}, 1.0)
    out = tmp_path / f"out{ending}"
    predict(open_images(tmp_path / "a.zarr"), lambda x: x, out=out, **TILES)
    for found in (of(tmp_path / "a.zarr"), of(out)):
        for value, wanted in zip(found, expected, strict=True):
            assert value == pytest.approx(wanted)


def test_ome_zarr_without_units_says_nothing(tmp_path):
    scale = {"type": "scale", "scale": [500, 250, 125]}
    by_ngff(tmp_path / "a.zarr", [scale], time=None, space=None)
    assert of(tmp_path / "a.zarr") == ({}, {}, None)


def test_levels_of_a_prediction_begin_at_the_same_corner(tmp_path):
    metadata = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.25, "TimeIncrement": 3}
    planes = {"PositionX": [10.0] * 2, "PositionY": [20.0] * 2, **{
        f"Position{a}Unit": ["µm"] * 2 for a in "XY"}}  # fmt: skip
    by_ome(tmp_path / "a.ome.tif", {**metadata, "Plane": planes}, shape=(2, 300, 500))
    out = tmp_path / "out.ome.zarr"
    predict(open_images(tmp_path / "a.ome.tif"), lambda x: x, out=out,
            tile_size=(128, 128), overlaps=(16, 16), progress=False)  # fmt: skip
    fine, coarse = of(out), of(out, level=1)
    assert coarse[2] == fine[2] == 3
    for axis in "YX":
        factor = coarse[0][axis] / fine[0][axis]
        assert factor in (1, 2)
        corners = [origin[axis] - sizes[axis] / 2 for sizes, origin, _ in (fine, coarse)]
        assert corners[0] == pytest.approx(corners[1])
    assert coarse[0]["X"] == 1.0


def test_samples_have_no_time_interval(tmp_path):
    by_ome(tmp_path / "a.ome.tif", {"TimeIncrement": 2})
    for ending in ENDINGS:
        out = tmp_path / f"out{ending}"
        with pytest.warns(UserWarning, match="axes='SYX' is taken"):
            images = open_images(tmp_path / "a.ome.tif", "SYX")
        predict(images, lambda x: x, out=out, **TILES)
        assert of(out)[2] is None


@pytest.mark.parametrize("shape", [(64, 96), (65, 97)])
def test_a_coarse_level_of_a_tiff_has_larger_pixels(tmp_path, shape):
    sizes = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.25}
    fine = distinct(shape, "uint16")
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as file:
        file.write(fine, subifds=2, tile=(16, 16), metadata={"axes": "YX", **sizes})
        file.write(fine[::2, ::2], subfiletype=1, tile=(16, 16))
        file.write(fine[: -(shape[0] % 2) or None : 4, ::4], subfiletype=1, tile=(16, 16))
    for level, factor in enumerate((1, 2, 4)):
        found = of(tmp_path / "a.ome.tif", level=level)[0]
        assert found == pytest.approx({"X": 0.5 * factor, "Y": 0.25 * factor})


@pytest.mark.parametrize(
    ("options", "metadata", "expected"),
    [
        ({"resolution": (300, 600), "resolutionunit": 2}, {}, {"X": 84.6667, "Y": 42.3333}),
        ({"resolution": (2000, 4000), "resolutionunit": 3}, {}, {"X": 5, "Y": 2.5}),
        ({"resolution": (100, 200)}, {"unit": "inch"}, {"X": 254, "Y": 127}),
        ({"resolution": (100, 200)}, {"unit": "cm"}, {"X": 100, "Y": 50}),
        ({"resolution": (4, 8), "resolutionunit": 3}, {"unit": "um"}, {"X": 0.25, "Y": 0.125}),
        ({"resolution": (72, 72), "resolutionunit": 2}, {}, {}),
        ({"resolution": (5, 5)}, {}, {}),
    ],
    ids=str,
)
def test_imagej_in_inches_and_centimetres(tmp_path, options, metadata, expected):
    tifffile.imwrite(tmp_path / "a.tif", distinct((3, 21, 34), "uint16"), imagej=True,
                     metadata={"axes": "TYX", **metadata}, **options)  # fmt: skip
    assert of(tmp_path / "a.tif")[0] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("names", [("nuclei",), ("nuclei", "membranes & more")])
def test_channels_of_the_model_are_named(tmp_path, names):
    image = open_images(distinct((21, 34), "uint16"), "YX")

    def model(batch):
        return np.concatenate([batch] * len(names), axis=1)

    for ending in ENDINGS:
        predict(image, model, out=tmp_path / f"a{ending}", channel_names=names, **TILES)
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
        found = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]["Channel"]
    found = found if isinstance(found, list) else [found]
    assert [channel["Name"] for channel in found] == list(names)
    ome = json.loads((tmp_path / "a.ome.zarr" / "zarr.json").read_text())["attributes"]["ome"]
    if len(names) > 1:  # one channel has no axis
        assert [channel["label"] for channel in ome["omero"]["channels"]] == list(names)


def test_as_many_names_as_channels(tmp_path):
    image = open_images(distinct((21, 34), "uint16"), "YX")
    with pytest.raises(ValueError, match="channel_names has 2 names, but the model returns 1"):
        predict(image, lambda x: x, out=tmp_path / "a.npy", channel_names=["a", "b"], **TILES)
    assert not list(tmp_path.iterdir())
    with pytest.raises(TypeError, match="channel_names"):
        predict(image, lambda x: x, channel_names="nuclei", **TILES)


def test_what_a_czi_says_of_place_and_time():
    from gpu_patch.images.readers.czi import _calibration, _Scene

    scene = _Scene(1, (0, 0), (21, 41), frozenset(), {}, (), "")
    metadata = {
        "Scaling": {"Items": {"Distance": [{"@Id": "X", "Value": "5e-7"},
                                           {"@Id": "Y", "Value": "2e-7"}]}},
        "Information": {"Image": {"Dimensions": {
            "S": {"Scenes": {"Scene": [{"@Index": "0", "CenterPosition": "1,2"},
                                       {"@Index": "1", "CenterPosition": "100,-50"}]}},
            "T": {"Positions": {"Interval": {"Start": "0", "Increment": "12.5"}}}}}},
    }  # fmt: skip
    found = _calibration(metadata, scene)
    assert found.physical_sizes == pytest.approx({"X": 0.5, "Y": 0.2})
    assert found.origin == pytest.approx({"X": 90, "Y": -52})
    assert found.time_interval == 12.5
    for nothing in (None, {}, {"Information": None}, {"Scaling": {"Items": None}}):
        assert _calibration(nothing, scene).time_interval is None
