"""Files that would do harm, whether somebody means it or they are damaged: refused, by name."""

import bz2
import gzip
import json
import lzma
import os
import signal
import subprocess
import sys
import zlib
from contextlib import contextmanager

import numpy as np
import pytest
from formats import numbered, write_ome_zarr
from ome_sets import pixels_of, write_set

from gpu_patch import open_images
from gpu_patch.cli import main
from gpu_patch.images.readers import Options, open_file, unpacking
from gpu_patch.images.readers.paths import reading

tifffile = pytest.importorskip("tifffile")
zarr = pytest.importorskip("zarr")
numcodecs = pytest.importorskip("numcodecs")


@pytest.fixture(autouse=True)
def _on_the_host(monkeypatch):
    monkeypatch.setenv("GPU_PATCH_DEVICE", "cpu")


@contextmanager
def soon(seconds=20):
    """End what hangs."""

    def late(*_):
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def first_pixels(path, **options):
    (stack,) = open_images(path, **options).image_stacks
    n_dims = len(stack.data_shape) - 2
    return stack.extract_patch(0, None, [0] * n_dims, [1] * n_dims)


def refuses(path, words, **options):
    with soon(), pytest.raises((ValueError, OSError), match=words) as caught:
        first_pixels(path, **options)
    assert str(path) in str(caught.value)


def spied(make, opened):
    """Note what is opened."""

    def watched(self, path, *arguments, **keywords):
        opened.append(str(path))
        return make(self, path, *arguments, **keywords)

    return watched


def change_json(path, change):
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("name", ["../b.zarr/0", "0/../../b.zarr/0", "ABSOLUTE", r"..\b.zarr\0"])
def test_levels_outside_of_a_zarr(tmp_path, version, name, capsys):
    data = numbered("CYX")
    path = write_ome_zarr(tmp_path / "a.zarr", data, "CYX", version=version)
    write_ome_zarr(tmp_path / "b.zarr", data + 1, "CYX", version=version)
    name = name.replace("ABSOLUTE", str(tmp_path / "b.zarr" / "0"))

    def elsewhere(document):
        document = document if version == "0.4" else document["attributes"]["ome"]
        document["multiscales"][0]["datasets"][0]["path"] = name

    change_json(path / (".zattrs" if version == "0.4" else "zarr.json"), elsewhere)
    refuses(path, "its multiscales names '.*', which is outside of its folder: allow_outside=True")
    open_images(path, level=1)
    if "\\" in name:
        return
    found = open_images(path, allow_outside=True).image_stacks[0].data[0]
    np.testing.assert_array_equal(found, data + 1)
    assert main(["info", str(path)]) == 2
    assert f"names '{name}', which is outside of its folder: --allow-outside" in (
        capsys.readouterr().out
    )
    assert main(["info", str(path), "--allow-outside"]) == 0


@pytest.mark.parametrize("name", ["../b/{}", "ABSOLUTE/{}", r"C:\b\{}", "x/../../b/{}"])
@pytest.mark.parametrize("companion", [None, "x.companion.ome"])
def test_planes_outside_of_the_folder(tmp_path, monkeypatch, name, companion):
    data = pixels_of(1, (3, 1, 1, 21, 34))
    write_set(tmp_path / "b", data + 1, lambda p, t, c, z: f"t{t}.ome.tif")
    (tmp_path / "a" / "x").mkdir(parents=True)
    naming = name.replace("ABSOLUTE", str(tmp_path / "b"))
    outside = lambda file: file if file == "t0.ome.tif" else naming.format(file)  # noqa: E731
    file, *others = write_set(tmp_path / "a", data, lambda p, t, c, z: f"t{t}.ome.tif",
                              naming=outside, companion=companion)  # fmt: skip
    for other in others:
        other.unlink()
    opened = []
    monkeypatch.setattr(tifffile.TiffFile, "__init__", spied(tifffile.TiffFile.__init__, opened))
    refuses(file, "its OME-XML.* names '.*t1.ome.tif', which is outside.*allow_outside=True")
    assert not [path for path in opened if path.startswith(str(tmp_path / "b"))]
    refuses(tmp_path / "a", "its OME-XML.* names")
    if "C:" in name:
        return
    for images in (file, tmp_path / "a"):
        (stack,) = open_images(images, allow_outside=True).image_stacks
        data[0, 1:] = (data + 1)[0, 1:] if images == file else data[0, 1:]
        np.testing.assert_array_equal(stack.data, data[0][:, :, 0])


def test_a_description_outside_of_the_folder(tmp_path):
    data = pixels_of(1, (3, 1, 1, 21, 34))
    files = write_set(tmp_path / "a", data, lambda p, t, c, z: f"t{t}.tif", binary_only=True)
    content = files[1].read_bytes().replace(b'MetadataFile="t0.tif"', b'MetadataFile="../x.t"')
    files[1].write_bytes(content)
    refuses(files[1], r"its OME-XML names '\.\./x\.t', which is outside of its folder")


def test_planes_outside_that_look_like_the_files_own(tmp_path, monkeypatch):
    """Its old name, it seems, by the UUID of one plane; the other has another UUID."""
    other = tmp_path / "other.tif"
    tifffile.imwrite(other, np.ones((21, 34), np.uint16))
    (tmp_path / "a").mkdir()
    places = "".join(
        f'<TiffData FirstT="{t}" IFD="0" PlaneCount="1"><UUID FileName="../other.tif">{uuid}</UUID>'
        "</TiffData>"
        for t, uuid in enumerate(("urn:uuid:0", "urn:uuid:1"))
    )
    text = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:0"><Image>'
        '<Pixels DimensionOrder="XYZCT" Type="uint16" SizeX="34" SizeY="21" SizeZ="1" SizeC="1" '
        f'SizeT="2">{places}</Pixels></Image></OME>'
    )
    path = tmp_path / "a" / "a.tif"
    tifffile.imwrite(path, np.zeros((21, 34), np.uint16), description=text, metadata=None)
    opened = []
    monkeypatch.setattr(tifffile.TiffFile, "__init__", spied(tifffile.TiffFile.__init__, opened))
    (stack,) = open_images(path).image_stacks
    assert not stack.data.any()
    assert set(opened) == {str(path)}


@pytest.mark.parametrize("name", ["a.tif", "a.ome.tif", "a.npy", "a.png", "a.czi", "a", "a.ome"])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_is_no_file(tmp_path, name, kind, capsys):
    path = tmp_path / name
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    refuses(path, f"is a {kind}, and no file", axes="YX")
    assert main(["info", str(path)]) == 2
    assert f"is a {kind}" in capsys.readouterr().out
    tifffile.imwrite(tmp_path / "b.tif", np.ones((9, 13), "u1"), metadata={"axes": "YX"})
    if name != "a":
        with soon(), pytest.raises(ValueError, match=f"{name} is a {kind}"):
            open_images(tmp_path, axes=None)


def test_pipes_inside_of_images(tmp_path):
    files = write_set(tmp_path / "a", pixels_of(1), lambda p, t, c, z: f"t{t}.tif")
    files[1].unlink()
    os.mkfifo(files[1])
    refuses(files[0], r"t1\.tif is a pipe")
    path = write_ome_zarr(tmp_path / "a.zarr", numbered("CYX"), "CYX")
    for inside in ("0/c/1/0/0", "0/zarr.json", "zarr.json"):
        os.remove(path / inside)
        os.mkfifo(path / inside)
        for allow in (False, True):
            refuses(path, "a pipe|is missing", allow_missing_chunks=allow)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"chunks": [0, 16]}, r"its chunks have the shape \(0, 16\)"),
        ({"chunks": [16, -16]}, "cannot be read as Zarr: .+"),
        ({"chunks": [16]}, "cannot be read as Zarr: .+"),
        ({"shape": [10**18, 10**18]}, "no file has so many pixels"),
        ({"shape": [-32, 32]}, "cannot be read as Zarr: .+"),
        ({"shape": [0, 32]}, "no pixels"),
    ],
    ids=str,
)
@pytest.mark.parametrize("by_chunk", [False, True])
def test_sizes_of_zarr_that_cannot_be(tmp_path, change, words, by_chunk):
    path = write_zarr(tmp_path, None, zarr_format=2)
    change_json(path / ".zarray", lambda document: document.update(change))
    for allow in (False, True):
        refuses(path, words, axes="YX", by_chunk=by_chunk, allow_missing_chunks=allow)


@pytest.mark.parametrize(
    ("tag", "value"),
    [("TileWidth", 0), ("TileLength", 0), ("RowsPerStrip", 0), ("ImageLength", 0),
     ("ImageLength", 2**31), ("BitsPerSample", 0), ("SamplesPerPixel", 60_000)],
)  # fmt: skip
@pytest.mark.parametrize("by_chunk", [False, True])
def test_sizes_of_tiff_that_cannot_be(tmp_path, tag, value, by_chunk):
    path, data = tmp_path / "a.tif", numbered("YX", Y=32, X=32)
    layout = {"tile": (16, 16)} if "Tile" in tag else {"rowsperstrip": 8, "compression": "zlib"}
    tifffile.imwrite(path, data, metadata=None, **layout)
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages[0].tags[tag].overwrite(value)
    refuses(path, ".{9}", axes="YX", by_chunk=by_chunk)


def write_zarr(folder, compressor, *, shape=(32, 32), chunks=(16, 16), pixels=None, **options):
    """Write an array that is compressed so."""
    path = folder / "a.zarr"
    array = zarr.create_array(
        path, shape=shape, chunks=chunks, dtype="u2", compressors=compressor, **options
    )
    array[:] = np.arange(np.prod(shape)).reshape(shape) if pixels is None else pixels
    return path


CODECS = ["blosc", "zstd", "lz4", "gzip", "zlib", "bz2", "lzma"]
OF_FORMAT_3 = {
    "blosc": lambda: zarr.codecs.BloscCodec(),
    "zstd": lambda: zarr.codecs.ZstdCodec(),
    "gzip": lambda: zarr.codecs.GzipCodec(),
}


def codec_of(name):
    return numcodecs.get_codec({"id": name})


@pytest.mark.parametrize("codec", CODECS)
def test_chunks_that_claim_too_much(tmp_path, codec):
    path = write_zarr(tmp_path, codec_of(codec), zarr_format=2)
    (path / "0.1").write_bytes(codec_of(codec).encode(bytes(20_000_000)))
    for options in ({}, {"allow_missing_chunks": True}):
        refuses(path, r"a\.zarr cannot be read as Zarr: its chunk 0\.1 (has [\d,]+ bytes|says that "
                r"it unpacks to 20,000,000 bytes|unpacks to more than).* for pixels of 512 bytes",
                axes="YX", **options)  # fmt: skip


@pytest.mark.parametrize("place", ["start", "end"])
@pytest.mark.parametrize("codec", ["blosc", "zstd"])
def test_headers_that_lie_in_chunks_and_in_shards(tmp_path, codec, place):
    """One changed number in a header; what it says is never asked of the memory."""
    made = OF_FORMAT_3[codec]()
    options = {"shards": {"shape": (32, 32), "index_location": place}}
    path = write_zarr(tmp_path, made, shape=(64, 64), **options)
    shard = path / "c" / "1" / "0"
    content = bytearray(shard.read_bytes())
    index = np.frombuffer(content[-68:-4] if place == "end" else content[:64], "<u8")
    start = int(index.reshape(2, 2, 2)[1, 0, 0])
    if codec == "blosc":
        content[start + 4 : start + 8] = (2**31 - 64).to_bytes(4, "little")
    else:  # of 2 bytes, to which 256 is added: the most that it can say, and a length of 8 bytes
        assert content[start + 4] == 0x60
        content[start + 4] = 0xE0
    shard.write_bytes(content)
    refuses(path, r"\(1, 0\) in shard c/1/0 says that it unpacks to [\d,]{10,} bytes", axes="YX")
    # what does not need it can be read
    (reader,) = open_file(path, Options("YX"))
    expected = np.arange(4096).reshape(64, 64)
    for key in ((slice(0, 48), slice(0, 64)), (slice(40, 64), slice(16, 64))):
        np.testing.assert_array_equal(reader.select(key), expected[key])
    with pytest.raises(ValueError, match=r"\(1, 0\) in shard c/1/0"):
        reader.select((slice(63, 64), slice(15, 16)))


def deflated(n_bytes, bits):
    """Zeros, which unpack to a thousand times as much."""
    stream, piece = zlib.compressobj(9, zlib.DEFLATED, bits), bytes(1 << 20)
    parts = [stream.compress(piece) for _ in range(n_bytes >> 20)]
    return b"".join([*parts, stream.flush()])


@pytest.mark.parametrize(("codec", "bits"), [("gzip", 31), ("zlib", 15)])
def test_streams_that_unpack_to_too_much(tmp_path, monkeypatch, codec, bits):
    """Short enough for their pixels, and nothing in them says what comes."""
    monkeypatch.setattr(unpacking, "_HARMLESS", 1 << 24)
    options = {"shape": (256, 256), "chunks": (128, 128), "zarr_format": 2}
    path = write_zarr(tmp_path, codec_of(codec), **options)
    bomb = deflated(30 << 20, bits)
    assert len(bomb) < 128 * 128 * 2
    (path / "1.0").write_bytes(bomb)
    refuses(path, r"its chunk 1\.0 unpacks to more than 1,048,576 bytes, for .*32,768", axes="YX")
    # one that ends too early
    (path / "1.0").write_bytes(bomb[: len(bomb) // 1000])
    refuses(path, r"a\.zarr cannot be read as Zarr", axes="YX")


@pytest.mark.parametrize("codec", ["zlib", "lzma", "zstd"])
def test_strips_that_unpack_to_too_much(tmp_path, monkeypatch, codec):
    if codec == "zstd":
        pytest.importorskip("imagecodecs")
    monkeypatch.setattr(unpacking, "_HARMLESS", 1 << 24)
    path, data = tmp_path / "a.tif", numbered("YX", Y=128, X=128)
    tifffile.imwrite(path, data, compression=codec, rowsperstrip=64, metadata=None)
    zeros = bytes(30 << 20)
    bomb = {
        "zlib": lambda: deflated(len(zeros), 15),
        "lzma": lambda: lzma.compress(zeros),
        "zstd": lambda: numcodecs.zstd.compress(zeros, 3),
    }[codec]()
    start = path.stat().st_size
    with path.open("ab") as file:
        file.write(bomb)
    with tifffile.TiffFile(path, mode="r+b") as file:
        tags = file.pages[0].tags
        tags["StripOffsets"].overwrite((tags["StripOffsets"].value[0], start))
        tags["StripByteCounts"].overwrite((tags["StripByteCounts"].value[0], len(bomb)))
    refuses(path, "strip or tile 1 of page 0 .*unpacks to .*, for pixels of 16,384 by", axes="YX")


@pytest.mark.parametrize("what", ["noise", "zeros"])
@pytest.mark.parametrize("codec", CODECS)
def test_honest_chunks_are_read(tmp_path, monkeypatch, codec, what):
    """What does not compress is longer than its pixels; what does is much shorter."""
    monkeypatch.setattr(unpacking, "_HARMLESS", 0)  # all streams are looked into
    rng = np.random.default_rng(0)
    data = rng.integers(0, 2**16, (33, 51)) if what == "noise" else np.zeros((33, 51))
    options = {"shape": data.shape, "chunks": (8, 16), "pixels": data}
    ways = [{"zarr_format": 2}, {"zarr_format": 2, "filters": [numcodecs.Delta("u2", "i8")]}]
    for i, more in enumerate(ways):
        path = write_zarr(tmp_path / str(i), codec_of(codec), **options, **more)
        found = open_images(path, "YX", allow_missing_chunks=True).image_stacks[0].data[0, 0]
        np.testing.assert_array_equal(found, data)
    if codec in OF_FORMAT_3:
        made = OF_FORMAT_3[codec]()
        for i, more in enumerate(({}, {"shards": (16, 32)})):
            checked = [made, zarr.codecs.Crc32cCodec()]
            path = write_zarr(tmp_path / f"v3{i}", checked, **options, **more)
            found = open_images(path, "YX", allow_missing_chunks=True).image_stacks[0].data[0, 0]
            np.testing.assert_array_equal(found, data)


def test_what_frames_of_zstd_say():
    """By numcodecs itself, for lengths around those where the header changes."""
    for n in (0, 1, 255, 256, 257, 65_535, 65_536, 65_791, 65_792, 10**6, 2**24 + 1):
        frame = numcodecs.zstd.compress(bytes(n), 3)
        claim = unpacking.claimed_bytes("zstd", frame[: unpacking.HEAD])
        assert claim == n or len(frame) < unpacking.HEAD
    assert unpacking.claimed_bytes("zstd", b"no frame at all, this") is None


@pytest.mark.parametrize(
    ("codec", "pack"), [("gzip", gzip.compress), ("bz2", bz2.compress), ("lzma", lzma.compress)]
)
def test_streams_are_measured_to_the_byte(monkeypatch, codec, pack):
    monkeypatch.setattr(unpacking, "_PIECE", 100)
    limit = 2 * 1000 + unpacking._ROOM
    unpacking.check_stream("it", codec, pack(bytes(limit)), 1000)
    with pytest.raises(ValueError, match=r"it unpacks to more than 6,\d+ bytes, .*1,000 bytes"):
        unpacking.check_stream("it", codec, pack(bytes(limit + 1)), 1000)


def test_errors_without_a_text_have_one():
    for error, words in ((MemoryError(), "no memory is left"), (KeyError(), "KeyError")):
        with pytest.raises((MemoryError, ValueError), match=f"a.zarr.*{words}"):  # noqa: SIM117
            with reading("a.zarr", "Zarr"):
                raise error


@pytest.mark.parametrize("kind", ["tif", "czi", "set"])
def test_many_files_where_few_may_be_open(tmp_path, kind):
    pytest.importorskip("resource")
    data = numbered("YX")
    if kind == "czi":
        czi = pytest.importorskip("pylibCZIrw.czi")
    if kind == "set":
        frames = np.broadcast_to(data, (1, 100, 1, 1, *data.shape)).copy()
        write_set(tmp_path, frames, lambda p, t, c, z: f"{t:03}.ome.tif")
    for i in range({"tif": 300, "czi": 80, "set": 0}[kind]):
        if kind == "tif":
            tifffile.imwrite(tmp_path / f"{i:03}.tif", data + i, metadata={"axes": "YX"})
        else:
            with czi.create_czi(str(tmp_path / f"{i:03}.czi")) as file:
                file.write(data + i, plane={"C": 0, "T": 0, "Z": 0})
    script = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
import gpu_patch
from gpu_patch.feed import BatchLoader
found = gpu_patch.open_images(sys.argv[1], by_chunk=True)
strategy = gpu_patch.RandomPatching(found.shapes, (32, 32), seed=0)
constructor = gpu_patch.BasicPatchConstr(strategy, found, seed=0)
loader = BatchLoader(constructor, 16)
print(sum(len(batch.input) for _ in range(2) for batch in loader) == 2 * constructor.n_patches)
print(int(found.extract_patch(len(found.shapes) - 1, 0, (0, 0), (1, 2)).max()))
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    last = {"tif": 299, "czi": 79, "set": 0}[kind]
    assert run.stdout.split() == ["True", str(7 + last)]
