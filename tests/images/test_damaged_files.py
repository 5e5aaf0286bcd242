"""Files that are damaged, incomplete, or not the same any more: an error that names them."""

import gc
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from formats import numbered, write_ome_zarr
from lif_writer import image, write_lif
from nd2_writer import write_nd2

from gpu_patch import open_images, residency
from gpu_patch.images.readers import Options, open_file

tifffile = pytest.importorskip("tifffile")
FUZZ = Path(__file__).with_name("fuzz.py")


@pytest.fixture(autouse=True)
def _on_the_host(monkeypatch):
    monkeypatch.setenv("GPU_PATCH_DEVICE", "cpu")
    gc.collect()


@pytest.fixture
def chunked(tmp_path):
    pytest.importorskip("zarr")
    return write_ome_zarr(tmp_path / "a.zarr", numbered("CYX"), "CYX")


def refuses(path, words, **options):
    with pytest.raises((ValueError, OSError), match=words) as caught:
        open_images(path, **options)
    assert str(path) in str(caught.value)
    assert not residency().stacks


def test_missing_chunk(chunked):
    (chunked / "0" / "c" / "1" / "2" / "0").unlink()
    refuses(chunked, r"its chunk c/1/2/0 is missing.*fill value 0, allow_missing_chunks=True")
    expected = numbered("CYX")
    expected[1, 32:, :24] = 0
    found = open_images(chunked, allow_missing_chunks=True)
    assert np.array_equal(found.image_stacks[0].data[0], expected)
    # what does not need it can be read
    (reader,) = open_file(chunked, Options())
    reader.read([slice(0, n) for n in (1, 1, 37, 53)], np.empty((1, 1, 37, 53), "u2"))


def test_chunk_that_is_left_out_of_a_shard_is_the_fill_value(tmp_path):
    pytest.importorskip("zarr")
    data = numbered("CYX")
    data[:, 16:32, 24:48] = 0
    shards = {"shards": (1, 32, 48)}
    path = write_ome_zarr(tmp_path / "a.zarr", data, "CYX", **shards)
    assert np.array_equal(open_images(path).image_stacks[0].data[0], data)
    (path / "0" / "c" / "0" / "0" / "1").unlink()
    refuses(path, "its chunk c/0/0/1 is missing")


@pytest.mark.parametrize("shards", [None, (1, 32, 48)])
@pytest.mark.parametrize("keep", [0, 0.5, 0.99])
def test_truncated_chunk(tmp_path, shards, keep):
    pytest.importorskip("zarr")
    options = {"shards": shards, "compressors": None} if shards is None else {"shards": shards}
    path = write_ome_zarr(tmp_path / "a.zarr", numbered("CYX"), "CYX", **options)
    chunk = path / "0" / "c" / "1" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[: int(chunk.stat().st_size * keep)])
    refuses(path, r"a\.zarr cannot be read as Zarr")


@pytest.mark.parametrize("name", ["zarr.json", "0/zarr.json"])
@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"zarr_format": 3, "node_type": "array"}'])
def test_metadata_that_are_none(chunked, name, text):
    if text is None:
        (chunked / name).unlink()
    else:
        (chunked / name).write_text(text)
    refuses(chunked, r"a\.zarr cannot be read as Zarr")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("multiscales", "all"),
        ("multiscales", [{"axes": [{"name": "y"}, {"name": "x"}]}]),
        ("multiscales", [{"axes": 5, "datasets": [{"path": "0"}]}]),
        ("multiscales", [{"axes": [], "datasets": [{"path": "nowhere"}]}]),
        ("multiscales", [{"axes": [], "datasets": [{"path": 7}]}]),
    ],
)
def test_ome_metadata_that_are_none(chunked, key, value):
    document = json.loads((chunked / "zarr.json").read_text())
    document["attributes"]["ome"][key] = value
    (chunked / "zarr.json").write_text(json.dumps(document))
    refuses(chunked, r"a\.zarr cannot be read as Zarr")


def reader_of(kind, folder):
    """An open reader, and the file that says what it is."""
    path = folder / f"a.{kind}"
    if kind == "zarr":
        pytest.importorskip("zarr")
        write_ome_zarr(path, numbered("CYX"), "CYX")
        watched = path / "0" / "zarr.json"
    else:
        watched = path
        if kind == "tif":
            tifffile.imwrite(path, numbered("CYX"), imagej=True, metadata={"axes": "CYX"})
        elif kind == "npy":
            np.save(path, numbered("CYX"))
        elif kind == "lif":
            pytest.importorskip("liffile")
            write_lif(path, [image("a", numbered("CYX"), "CYX")])
        elif kind == "nd2":
            pytest.importorskip("nd2")
            write_nd2(path, np.ascontiguousarray(numbered("CYX").transpose(1, 2, 0)[None]))
        else:
            czi = pytest.importorskip("pylibCZIrw.czi")
            with czi.create_czi(str(path)) as file:
                for c, plane in enumerate(numbered("CYX")):
                    file.write(plane, plane={"C": c, "T": 0, "Z": 0})
    (reader,) = open_file(path, Options("CYX" if kind in ("tif", "npy", "zarr") else None))
    return reader, path, watched


WHOLE = [slice(0, n) for n in (1, 2, 37, 53)]
FORMATS = ["tif", "npy", "zarr", "czi", "lif", "nd2"]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("begun", [False, True])
def test_file_that_vanishes(tmp_path, kind, begun):
    reader, path, _ = reader_of(kind, tmp_path)
    out = np.empty((1, 2, 37, 53), np.uint16)
    with reader:
        if begun:
            reader.read(WHOLE, out)
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        with pytest.raises((OSError, ValueError), match=rf"a\.{kind}"):
            reader.read(WHOLE, out)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("how", ["touched", "emptied"])
def test_file_that_changes(tmp_path, kind, begun, how):
    reader, _, watched = reader_of(kind, tmp_path)
    out = np.empty((1, 2, 37, 53), np.uint16)
    with reader:
        if begun:
            reader.read(WHOLE, out)
        if how == "emptied":
            os.truncate(watched, 10)
        os.utime(watched, ns=(1, 1))
        with pytest.raises(ValueError, match=rf"a\.{kind}.* (has changed|cannot be read)"):
            reader.read(WHOLE, out)


@pytest.mark.parametrize("kind", ["tif", "npy"])
def test_no_file_is_left_open_by_an_error(tmp_path, kind):
    _, path, _ = reader_of(kind, tmp_path)
    path.write_bytes(path.read_bytes()[:-500])
    before = set(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else None
    for _ in range(3):
        with pytest.raises(ValueError, match=rf"a\.{kind}"):
            open_images(path, "CYX")
    if before is not None:
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) <= len(before)


def test_ome_tiff_without_one_of_its_files(tmp_path):
    data = numbered("TYX")
    for t in range(3):
        tifffile.imwrite(tmp_path / f"t{t}.tif", data[t])
    pixels = "".join(
        f'<TiffData FirstT="{t}" FirstC="0" FirstZ="0" IFD="0" PlaneCount="1">'
        f'<UUID FileName="t{t}.tif">urn:uuid:{t}</UUID></TiffData>'
        for t in range(3)
    )
    xml = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
        'UUID="urn:uuid:0"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" '
        f'Type="uint16" SizeX="53" SizeY="37" SizeC="1" SizeZ="1" SizeT="3">{pixels}'
        "</Pixels></Image></OME>"
    )
    tifffile.imwrite(tmp_path / "t0.tif", data[0], description=xml, metadata=None)
    assert np.array_equal(open_images(tmp_path / "t0.tif").image_stacks[0].data[:, 0], data)
    (reader,) = open_file(tmp_path / "t0.tif", Options())
    with reader:
        reader.check()
    (tmp_path / "t1.tif").unlink()
    words = r"of the 3 files of the image 1 is missing, 't1\.tif': .*allow_missing_chunks=True"
    refuses(tmp_path / "t0.tif", words)
    found = open_images(tmp_path / "t0.tif", allow_missing_chunks=True).image_stacks[0].data[:, 0]
    data[1] = 0
    assert np.array_equal(found, data)


def test_tile_that_was_never_written(tmp_path):
    data = numbered("YX", Y=32, X=32)
    tifffile.imwrite(tmp_path / "a.tif", data, tile=(16, 16), compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        tag = tiff.pages[0].tags["TileByteCounts"]
        counts = list(tag.value)
    counts[2] = 0
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as tiff:
        tiff.pages[0].tags["TileByteCounts"].overwrite(counts)
    refuses(tmp_path / "a.tif", "strip or tile 2 of page 0 was never written")
    data[16:, :16] = 0
    found = open_images(tmp_path / "a.tif", allow_missing_chunks=True)
    assert np.array_equal(found.image_stacks[0].data[0, 0], data)


def test_lost_pages(tmp_path):
    data = numbered("TYX")
    tifffile.imwrite(tmp_path / "a.tif", data, metadata=None, photometric="minisblack")
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        page = tiff.pages[1]
        at = page.offset + 2 + 12 * len(page.tags)
    content = bytearray((tmp_path / "a.tif").read_bytes())
    content[at : at + 4] = b"\xff\xff\xff\x7f"
    (tmp_path / "a.tif").write_bytes(content)
    refuses(tmp_path / "a.tif", "its page 2 is damaged or missing", axes="TYX")


def test_fewer_pages_than_imagej_wrote(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", numbered("TYX"), imagej=True, metadata={"axes": "TYX"})
    content = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(content[: len(content) // 2])
    refuses(tmp_path / "a.tif", "it says that it has 3 pages, and has fewer")


def test_fuzzed(tmp_path, request):
    """Hundreds of damaged inputs here; ``--fuzz 2000`` or fuzz.py for more."""
    pytest.importorskip("zarr")
    n_inputs = request.config.getoption("--fuzz")
    command = [sys.executable, str(FUZZ), "--inputs", str(n_inputs), "--json", tmp_path / "a.json"]
    subprocess.run(command, check=False, capture_output=True)
    report = json.loads((tmp_path / "a.json").read_text())
    assert report["inputs"] == n_inputs
    assert report["wrong"] == []
    # it does damage them
    assert report["outcomes"]["noticeable error"] > n_inputs / 5
    assert report["outcomes"]["any error"] > n_inputs / 5
