"""OME-Zarr: what it says of itself, its levels, its chunks, and going on with what is there."""

import json

import numpy as np
import pytest
from written import SIZES, make_predicted, make_store, pixels, units, whole, write_all, write_unit

from gpu_patch import open_images
from gpu_patch.predict.outputs.disk import Disk
from gpu_patch.predict.outputs.ome_zarr import multiscale
from gpu_patch.predict.outputs.ome_zarr.multiscale import Level, halve, levels
from gpu_patch.predict.outputs.ome_zarr.unfinished import UnfinishedImage

zarr = pytest.importorskip("zarr")


@pytest.fixture(autouse=True)
def _on_the_host(monkeypatch):
    monkeypatch.setenv("GPU_PATCH_DEVICE", "cpu")


def write(folder, predicted, **options):
    return write_all(make_store(folder / "a.ome.zarr", ["a"], **options), predicted)


def reduced(data, factor):
    """Means over blocks of the pixels that there are, SC(Z)YX, in float64."""
    for axis, step in enumerate(factor, 2):
        starts = np.arange(0, data.shape[axis], step)
        counts = np.diff([*starts, data.shape[axis]])
        shape = [-1 if a == axis else 1 for a in range(data.ndim)]
        data = np.add.reduceat(data.astype(np.float64), starts, axis) / counts.reshape(shape)
    return data


@pytest.mark.parametrize(("axes", "n_channels"), [("YX", 1), ("YX", 2), ("TYXS", 1), ("STZCYX", 2)])
def test_it_says_what_it_is(tmp_path, axes, n_channels):
    path = write(tmp_path, make_predicted(axes, n_channels=n_channels, Y=300, X=600))
    found = json.loads((path / "zarr.json").read_text())
    assert found["zarr_format"] == 3
    assert found["attributes"]["ome"]["version"] == "0.5"
    (image,) = found["attributes"]["ome"]["multiscales"]
    expected = [axis for axis in "tczyx" if axis.upper() in axes]
    if n_channels > 1 and "c" not in expected:
        expected.insert(expected.index("y"), "c")
    assert [axis["name"] for axis in image["axes"]] == expected
    kinds = {"t": "time", "c": "channel"}
    assert [axis["type"] for axis in image["axes"]] == [kinds.get(a, "space") for a in expected]
    assert [axis.get("unit") for axis in image["axes"]] == [
        None if a in kinds else "micrometer" for a in expected
    ]
    assert [dataset["path"] for dataset in image["datasets"]] == ["0", "1", "2"]
    z = [1.0] if "z" in expected else []
    outer = [1.0] * (len(expected) - len(z) - 2)
    for i, dataset in enumerate(image["datasets"]):
        # Z is halved once its pixel, of 0.5 µm, is no longer than that of Y, of 0.25
        depth = [SIZES["Z"] * (1, 1, 2)[i]] * len(z)
        scale, *shift = dataset["coordinateTransformations"]
        assert scale == {"type": "scale", "scale": [*outer, *depth, 0.25 * 2**i, 0.125 * 2**i]}
        middle = [0.25 * (2**i - 1) / 2, 0.125 * (2**i - 1) / 2]
        deep = [SIZES["Z"] * (0, 0, 0.5)[i]] * len(z)
        expected_shift = {
            "type": "translation",
            "translation": [*[0.0] * len(outer), *deep, *middle],
        }
        assert shift == ([expected_shift] if i else [])
        array = json.loads((path / dataset["path"] / "zarr.json").read_text())
        assert array["dimension_names"] == expected
    assert found["attributes"]["gpu_patch"]["axes"] == axes


def test_sizes_that_are_not_known(tmp_path):
    path = write(tmp_path, make_predicted("ZYX", sizes={}))
    (image,) = zarr.open(path, mode="r").attrs["ome"]["multiscales"]
    assert all("unit" not in axis for axis in image["axes"])
    assert image["datasets"][0]["coordinateTransformations"] == [
        {"type": "scale", "scale": [1.0, 1.0, 1.0]}
    ]


@pytest.mark.parametrize(
    ("axes", "dtype", "sharded"),
    [("TYX", "float32", False), ("YX", "uint16", True), ("CZYX", "float16", False),
     ("ZYX", "int8", True)],
)  # fmt: skip
def test_levels_are_means(tmp_path, monkeypatch, axes, dtype, sharded):
    """In pieces of one chunk, and of several."""
    monkeypatch.setattr(multiscale, "SMALLEST", 64)
    lengths = {"Z": 9, "Y": 77, "X": 131}
    predicted = make_predicted(axes, n_channels=2, dtype=dtype, **lengths)
    ndim = len(predicted.size)
    chunk_size = (4, 16, 32)[-ndim:]
    shard = (8, 32, 64)[-ndim:] if sharded else None
    options = {"chunk_size": chunk_size, "shard_size": shard}
    path = write(tmp_path, predicted, **options)
    expected = levels(predicted.size, SIZES)
    assert len(expected) == 3
    fine = whole(predicted)
    for i, level in enumerate(expected):
        (found,) = open_images(path, level=i).image_stacks
        assert found.data_shape[2:] == level.size
        assert found.physical_sizes == pytest.approx(
            {a: SIZES[a] * f for a, f in zip("ZYX"[-ndim:], level.factor, strict=True)}
        )
        if i:
            before = expected[i - 1].factor
            step = [b // a for a, b in zip(before, level.factor, strict=True)]
            mean = reduced(fine, step)
            mean = np.rint(mean) if predicted.dtype.kind in "iu" else mean
            limit = {"f2": 1e-3, "f4": 1e-6}.get(predicted.dtype.str[1:], 0)
            np.testing.assert_allclose(found.data, mean, rtol=limit, atol=0)
        fine = found.data
    monkeypatch.setattr(multiscale, "_PIECE_BYTES", 1)
    small = write(tmp_path / "small", predicted, **options)
    assert contents(small) == contents(path)


def test_halving_keeps_what_there_is():
    largest = np.finfo(np.float32).max
    data = np.array([[largest, largest, 1, np.nan, -0.0]], np.float32)
    assert np.array_equal(halve(data, (1,)), np.float32([[largest, np.nan, 0]]), equal_nan=True)
    # 0.5 and 2.5 are rounded to the even ones
    assert halve(np.array([[0, 1, 2, 3, 255]], np.uint8), (1,)).tolist() == [[0, 2, 255]]
    large = np.array([2**31 - 1, 2**31 - 3], np.int32)
    assert halve(large, (0,)).tolist() == [2**31 - 2]


@pytest.mark.parametrize(
    ("size", "sizes", "expected"),
    [
        ((256, 256), {}, [(1, 1)]),
        ((257, 10), {}, [(1, 1), (2, 2)]),
        ((1, 1000), {}, [(1, 1), (1, 2), (1, 4)]),
        ((50, 600, 600), {}, [(1, 1, 1), (1, 2, 2), (1, 4, 4)]),
        ((50, 600, 600), {"Z": 1, "Y": 1}, [(1, 1, 1), (2, 2, 2), (4, 4, 4)]),
        ((50, 600, 600), {"Z": 2, "Y": 1}, [(1, 1, 1), (1, 2, 2), (2, 4, 4)]),
        ((50, 600, 600), {"Z": 9, "Y": 1}, [(1, 1, 1), (1, 2, 2), (1, 4, 4)]),
        ((1, 600, 600), {"Z": 1, "Y": 1}, [(1, 1, 1), (1, 2, 2), (1, 4, 4)]),
    ],
)
def test_factors_of_levels(size, sizes, expected):
    found = levels(size, sizes)
    assert found[0] == Level(size, (1,) * len(size))
    assert [level.factor for level in found] == expected


def contents(path):
    """Every file of it."""
    return {
        str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()
    }


@pytest.mark.parametrize(
    ("axes", "slab_axis", "chunk_size", "shard_size", "stored"),
    [
        ("TYX", 0, (16, 24), None, (16, 24)),
        ("TYX", 1, (16, 24), None, (16, 24)),
        ("TYX", 0, (8, 8), (24, 16), (24, 16)),
        ("CZYX", 0, (2, 16, 24), (4, 32, 48), (4, 32, 48)),
        ("CZYX", 1, (2, 16, 24), (4, 32, 48), (4, 32, 48)),
        ("YX", 0, (100, 200), (300, 200), (37, 53)),
        ("YX", 0, None, None, (37, 53)),
    ],
)
def test_chunks_are_written_once_and_never_read(
    tmp_path, monkeypatch, axes, slab_axis, chunk_size, shard_size, stored
):
    from zarr.storage import LocalStore

    read, wrote = [], []
    get, put = LocalStore.get, LocalStore.set

    async def counted_get(store, key, *arguments, **options):
        found = await get(store, key, *arguments, **options)
        if found is not None:  # zarr-python looks for a shard before it writes it
            read.append(key)
        return found

    async def counted_set(store, key, *arguments, **options):
        wrote.append(key)
        return await put(store, key, *arguments, **options)

    monkeypatch.setattr(LocalStore, "get", counted_get)
    monkeypatch.setattr(LocalStore, "set", counted_set)
    predicted = make_predicted(axes, n_channels=2, slab_axis=slab_axis)
    path = write(tmp_path, predicted, chunk_size=chunk_size, shard_size=shard_size)
    chunks = [key for key in wrote if "c/" in key]
    assert len(chunks) == len(set(chunks))
    n_chunks = np.prod([-(-n // s) for n, s in zip(predicted.size, stored, strict=True)])
    assert len(chunks) == predicted.shape[0] * predicted.shape[1] * n_chunks
    assert not [key for key in read if "c/" in key]
    array = zarr.open(path / "0", mode="r")
    together = array.shards or array.chunks
    assert together[-len(stored) :] == stored
    assert set(together[: -len(stored)]) <= {1}
    assert (array.shards is None) == (shard_size is None)


@pytest.mark.parametrize("setting", [False, True])
@pytest.mark.parametrize("shard_size", [None, (32, 64)])
def test_chunks_of_zeros_are_written_whatever_the_user_has_set(
    tmp_path, monkeypatch, setting, shard_size
):
    """Of all levels; and no setting of the process is changed, not for a moment."""
    predicted = make_predicted("TYX", Y=40, X=600)
    with zarr.config.set({"array.write_empty_chunks": setting}):
        store = make_store(tmp_path / "a.zarr", ["a"], chunk_size=(16, 64), shard_size=shard_size)

        def changed(*arguments, **options):
            raise AssertionError("a setting of zarr's was changed")

        monkeypatch.setattr(type(zarr.config), "set", changed)
        output = store.open(predicted)
        for sample, start, stop in units(store, predicted):
            output.write(sample, start, np.zeros((1, stop - start, 600), np.float32))
        path = output.finish()
        monkeypatch.undo()
        assert zarr.config.get("array.write_empty_chunks") is setting
    for level in range(3):
        array = zarr.open_array(path / str(level), mode="r")
        stored = array.shards or array.chunks
        expected = np.prod([-(-n // s) for n, s in zip(array.shape, stored, strict=True)])
        files = [file for file in (path / str(level) / "c").rglob("*") if file.is_file()]
        assert len(files) == expected
        assert not array[:].any()


def test_units_are_rows_of_chunks(tmp_path):
    plain = make_store(tmp_path / "a.zarr", ["a"])
    assert plain.unit_rows((1000, 2000), 0) == 256
    assert plain.unit_rows((100, 2000), 0) == 100
    assert [plain.unit_rows((64, 1000, 2000), axis) for axis in range(3)] == [16, 128, 128]
    options = {"chunk_size": (32, 64), "shard_size": (128, 64)}
    sharded = make_store(tmp_path / "b.zarr", ["a"], **options)
    assert [sharded.unit_rows((1000, 2000), axis) for axis in range(2)] == [128, 64]
    assert sharded.unit_rows((50, 2000), 0) == 50


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chunk_size": (0, 8)}, r"chunk_size\[0\] must be a whole number of at least 1, found 0"),
        ({"chunk_size": (8,)}, "chunk_size must have 2 entries"),
        ({"chunk_size": (8, 8), "shard_size": (12, 16)}, r"multiple of chunk_size \(8, 8\)"),
    ],
)
def test_chunks_that_cannot_be(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        make_store(tmp_path / "a.zarr", ["a"], **options).unit_rows((37, 53), 0)


def test_rows_out_of_order(tmp_path):
    predicted = make_predicted("YX")
    output = make_store(tmp_path / "a.zarr", ["a"], chunk_size=(16, 16)).open(predicted)
    with pytest.raises(ValueError, match="4 of sample 0 came, 0 of sample 0 is next"):
        output.write(0, 4, pixels(predicted, 0, 4, 8))
    output.write(0, 0, pixels(predicted, 0, 0, 8))
    with pytest.raises(ValueError, match="16 of sample 0 came, 8 of sample 0 is next"):
        output.write(0, 16, pixels(predicted, 0, 16, 20))
    with pytest.raises(RuntimeError, match="8 of sample 0 is next"):
        output.finish()


def test_units_that_were_forgotten(tmp_path):
    predicted = make_predicted("TYX")
    output = make_store(tmp_path / "a.zarr", ["a"]).open(predicted)
    output.write(1, 0, pixels(predicted, 1))
    with pytest.raises(RuntimeError, match=r"2 of 3 units of .*a\.zarr are missing"):
        output.finish()


def test_units_come_in_any_order(tmp_path):
    predicted = make_predicted("TYX")
    store = make_store(tmp_path / "a.zarr", ["a"], chunk_size=(8, 16))
    output = store.open(predicted)
    for unit in reversed(units(store, predicted)):
        write_unit(output, predicted, unit)
    assert np.array_equal(open_images(output.finish()).image_stacks[0].data, whole(predicted))


def begin(folder, predicted, n_units, **options):
    """Write some units and stop, as an error makes a run do."""
    store = make_store(folder / "a.zarr", ["a"], chunk_size=(8, 16), **options)
    output = store.open(predicted)
    for unit in units(store, predicted)[:n_units]:
        write_unit(output, predicted, unit)
    output.close()
    return store


def go_on(folder, predicted, **options):
    """Write what is left; return the path, and how many units that were."""
    options = {"chunk_size": (8, 16), "resume": True, **options}
    store = make_store(folder / "a.zarr", ["a"], **options)
    done = store.done("a")
    left = [unit for unit in units(store, predicted) if unit[:2] not in done]
    output = store.open(predicted)
    for unit in left:
        write_unit(output, predicted, unit, seed=1)
    return output.finish(), len(left)


@pytest.mark.parametrize("n_units", [0, 1, 7, 15])
def test_a_run_goes_on(tmp_path, n_units):
    predicted = make_predicted("TYX", Y=40, X=300)
    expected = contents(
        write_all(make_store(tmp_path / "b" / "a.zarr", ["a"], chunk_size=(8, 16)), predicted)
    )
    begin(tmp_path, predicted, n_units)
    assert not (tmp_path / "a.zarr").exists()
    path, n_left = go_on(tmp_path, predicted)
    assert n_left == 15 - n_units
    assert contents(path) == expected
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.zarr", "b"]


def test_what_is_finished_is_left_alone(tmp_path):
    predicted = make_predicted("TYX")
    begin(tmp_path, predicted, 99)
    path, _ = go_on(tmp_path, predicted)
    same = {"chunk_size": (8, 16), "resume": True}
    store = make_store(path, ["a"], **same)
    assert store.finished("a") == path
    assert store.done("a") == set()
    for other in (
        {"fingerprint": "b"},
        {"chunk_size": None},
        {"versions": lambda: ["another level"]},
    ):
        with pytest.raises(FileExistsError, match="overwrite=True beside resume=True makes anew"):
            make_store(path, ["a"], **{**same, **other})
    store = make_store(path, ["a"], **{**same, "fingerprint": "b"}, overwrite=True)
    assert store.finished("a") is None


@pytest.mark.parametrize("other", [{"fingerprint": "b"}, {"chunk_size": (4, 16)}])
def test_what_differs_is_made_anew(tmp_path, other):
    begin(tmp_path, make_predicted("TYX"), 3)
    path, n_left = go_on(tmp_path, make_predicted("TYX"), overwrite=True)
    assert n_left == 12
    begin(tmp_path, make_predicted("TYX"), 3, overwrite=True)
    with pytest.raises(FileExistsError, match=r"was to replace it: overwrite=True beside resume"):
        go_on(tmp_path, make_predicted("TYX"))
    assert go_on(tmp_path, make_predicted("TYX"), overwrite=True, **other)[0] == path
    chunk = other.get("chunk_size", (8, 16))
    assert zarr.open_array(path / "0").chunks == (1, *chunk)


def test_a_run_that_noted_less_is_another_one(tmp_path):
    store = begin(tmp_path, make_predicted("TYX"), 3)
    about = store.partial("a") / "about.json"
    noted = json.loads(about.read_text())
    del noted["image"]
    about.write_text(json.dumps(noted))
    with pytest.raises(ValueError, match=r"its image was another one \(not noted; now a\)"):
        go_on(tmp_path, make_predicted("TYX"))
    assert go_on(tmp_path, make_predicted("TYX"), overwrite=True)[1] == 15


def test_an_unfinished_run_is_not_lost_by_chance(tmp_path):
    predicted = make_predicted("TYX")
    begin(tmp_path, predicted, 3)
    with pytest.raises(FileExistsError, match="unfinished prediction: resume=True goes on"):
        make_store(tmp_path / "a.zarr", ["a"])
    _, n_left = go_on(tmp_path, make_predicted("TYX", dtype="uint8"), resume=False, overwrite=True)
    assert n_left == 15


def test_a_run_that_replaces_goes_on(tmp_path):
    """The old image has its name all the while, and is not taken for the result."""
    predicted = make_predicted("TYX")
    path, _ = go_on(tmp_path, predicted)
    begin(tmp_path, predicted, 4, overwrite=True)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        go_on(tmp_path, predicted)
    assert go_on(tmp_path, predicted, overwrite=True) == (path, 11)


def test_another_model_is_refused_before_it_runs(tmp_path):
    begin(tmp_path, make_predicted("TYX"), 3, fingerprint="model 1")
    with pytest.raises(ValueError, match="its fingerprint is 'model 1', that of this run 'b'"):
        make_store(tmp_path / "a.zarr", ["a"], resume=True, fingerprint="b")


def test_what_killed_processes_left_is_removed(tmp_path):
    """Half a chunk of zarr-python, and an image that two began at once."""
    predicted = make_predicted("TYX")
    store = begin(tmp_path, predicted, 3)
    work = UnfinishedImage(store.partial("a"), Disk(durable=False))
    half = work.image / "0" / "c" / "1" / "0" / "0.0123456789abcdef.partial"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half")
    work.sketch({})
    path, _ = go_on(tmp_path, predicted)
    assert not list(path.rglob("*.partial"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.zarr"]


def test_of_two_that_begin_an_image_one_does(tmp_path):
    work = UnfinishedImage(tmp_path / ".a.partial", Disk(durable=False))
    for about in ({"rank": 0}, {"rank": 1}):
        made = work.sketch(about)
        made.image.mkdir()
        (made.image / "zarr.json").touch()
        made.become(work)
    work.check({"rank": 0})
    assert [entry.name for entry in tmp_path.iterdir()] == [".a.partial"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fingerprint": "b"}, "its fingerprint is '', that of this run 'b'"),
        ({"dtype": "float16"}, "its dtype is 'float32', that of this run 'float16'"),
        ({"n_channels": 2}, r"its shape is \[3, 1, 37, 53\], that of this run \[3, 2, 37, 53\]"),
        ({"original_axes": "SYX", "S": 3}, "its original_axes is 'TYX'"),
        ({"chunk_size": (4, 16)}, r"its chunk_size is \[8, 16\]"),
        ({"slab_axis": 1}, "its slab_axis is 0"),
    ],
)
def test_only_the_same_run_goes_on(tmp_path, change, message):
    begin(tmp_path, make_predicted("TYX"), 3)
    change = {"original_axes": "TYX", **change}
    options = {k: change.pop(k) for k in ("fingerprint", "chunk_size") if k in change}
    with pytest.raises(ValueError, match=message):
        go_on(tmp_path, make_predicted(**change), **options)


def test_a_run_that_ended_while_it_replaced_an_image(tmp_path):
    """Each moment of putting an image in the place of an old one is one to go on from."""
    old, new = make_predicted("TYX"), make_predicted("TYX", dtype="uint8")
    path = write(tmp_path, old)
    replaced = tmp_path / ".a.ome.zarr.replaced"
    path.rename(replaced)
    store = make_store(path, ["a"], overwrite=True)
    assert np.array_equal(open_images(path).image_stacks[0].data, whole(old))
    assert not replaced.exists()
    store.abandon()
    path.rename(replaced)
    write(tmp_path / "b", new)
    (tmp_path / "b" / "a.ome.zarr").rename(path)
    make_store(path, ["a"], overwrite=True)
    assert not replaced.exists()
    assert np.array_equal(open_images(path).image_stacks[0].data, whole(new))
    assert store.names == ("a",)


@pytest.mark.filterwarnings("ignore")  # what these packages warn of is theirs
@pytest.mark.parametrize("axes", ["YX", "TYX", "CZYX", "STCZYX"])
def test_others_read_it(tmp_path, axes):
    models = pytest.importorskip("ome_zarr_models", reason="ome-zarr-models is not installed")
    reader = pytest.importorskip("ome_zarr.reader", reason="ome-zarr is not installed")
    from ome_zarr.io import parse_url

    predicted = make_predicted(axes, n_channels=2, Y=600)
    path = write(tmp_path, predicted)
    models.v05.Image.from_zarr(zarr.open_group(path, mode="r"))  # raises where it is not valid
    (node, *_) = reader.Reader(parse_url(path))()
    assert len(node.data) == 3
    found = np.asarray(node.data[0])
    expected = whole(predicted)
    assert np.array_equal(found.reshape(expected.shape), expected)
    names = "".join(axis["name"] for axis in node.metadata["axes"])
    assert names == "".join(a for a in "tczyx" if a.upper() in axes or a == "c")
