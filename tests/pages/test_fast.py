"""Zarr read chunk by chunk, or by tensorstore: as by zarr-python, with the same errors."""

from __future__ import annotations

import errno
import json
import os

import numpy as np
import pytest
from pixels import distinct

from gpu_patch import open_images
from gpu_patch.images.readers.zarr import fast
from gpu_patch.images.readers.zarr import reader as zarr_reader
from gpu_patch.images.readers.zarr.direct import DirectChunks
from gpu_patch.images.readers.zarr.fast import FastRegions
from gpu_patch.optional import if_installed

zarr = pytest.importorskip("zarr")
needs_tensorstore = pytest.mark.skipif(
    if_installed("tensorstore") is None, reason="needs tensorstore"
)


@pytest.fixture(autouse=True)
def on_the_host(monkeypatch):
    monkeypatch.setenv("GPU_PATCH_DEVICE", "cpu")
    monkeypatch.setattr("gpu_patch.chunks.image._LEAST_BYTES", 0)


@pytest.fixture(params=["direct", "tensorstore"])
def kind(request, monkeypatch):
    """What reads chunks that are not compressed."""
    if request.param == "direct":
        if not hasattr(os, "RWF_NOWAIT"):
            pytest.skip("this system does not tell what it has in memory")
        return DirectChunks
    pytest.importorskip("tensorstore")
    no_direct(monkeypatch)
    return FastRegions


def no_direct(monkeypatch):
    monkeypatch.setattr(zarr_reader, "direct_chunks", lambda *_, **__: None)


def written(path, pixels, chunks, **options):
    options.setdefault("compressors", None)
    array = zarr.create_array(
        path, shape=pixels.shape, dtype=pixels.dtype, chunks=chunks, **options
    )
    array[...] = pixels
    return path


def reader_of(images):
    regions = images.image_stacks[0].data.reader
    return regions._own.get(regions._open)[0].fast()


def assert_read(path, axes, pixels, kind=FastRegions, **options):
    """`pixels` SC(Z)YX are what is read by page, by a reader of this kind."""
    options.setdefault("memory_budget", pixels.nbytes // 2 + 4096)
    images = open_images(path, axes, by_chunk=True, **options)
    assert type(reader_of(images)) is kind
    (stack,) = images.image_stacks
    assert stack.data_shape == pixels.shape
    size = [min(n, 20) for n in pixels.shape[2:]]
    rng = np.random.default_rng(0)
    for _ in range(12):
        s = int(rng.integers(pixels.shape[0]))
        start = [int(rng.integers(n - m + 1)) for n, m in zip(pixels.shape[2:], size, strict=True)]
        box = tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))
        found = images.extract_patch(0, s, start, size)
        np.testing.assert_array_equal(found, pixels[(s, slice(None), *box)])
    return images


@needs_tensorstore
@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("codec", ["none", "zstd", "blosc", "sharded"])
def test_codecs(tmp_path, codec, zarr_format):
    if zarr_format == 2 and codec != "none":
        pytest.skip("the codecs of format 2 are numcodecs'")
    pixels = distinct((2, 61, 70), "uint16")
    options = {
        "none": {},
        "zstd": {"compressors": zarr.codecs.ZstdCodec(level=1)},
        "blosc": {"compressors": zarr.codecs.BloscCodec()},
        "sharded": {"shards": (1, 32, 32)},
    }[codec]
    path = written(tmp_path / "a.zarr", pixels, (1, 16, 16), zarr_format=zarr_format, **options)
    assert_read(path, "CYX", pixels[None], DirectChunks if codec == "none" else FastRegions)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_chunks_of_nothing_but_pixels(tmp_path, monkeypatch, zarr_format, dtype):
    pixels = distinct((2, 61, 70), dtype)
    path = written(tmp_path / "a.zarr", pixels, (1, 16, 16), zarr_format=zarr_format)
    monkeypatch.setattr("gpu_patch.chunks.image._LEAST_BYTES", 3000)  # several chunks a page
    whole = {"memory_budget": 2 * pixels.nbytes}
    assert_read(path, "CYX", pixels[None], DirectChunks, **whole)
    path = written(tmp_path / "b.zarr", pixels, (2, 70, 70), zarr_format=zarr_format)
    # a chunk that the image does not fill
    assert_read(path, "CYX", pixels[None], DirectChunks, **whole)


@pytest.mark.parametrize("options", [
    {"dtype": ">u2", "zarr_format": 2},
    {"order": "F", "zarr_format": 2},
    {"zarr_format": 3, "serializer": zarr.codecs.BytesCodec(endian="big")},
    {"zarr_format": 3, "filters": zarr.codecs.TransposeCodec(order=(1, 0))},
    {"zarr_format": 3, "compressors": zarr.codecs.Crc32cCodec()},
])  # fmt: skip
def test_other_chunks_are_not_read_as_they_lie(tmp_path, options):
    options = {"dtype": "uint16", "compressors": None, **options}
    pixels = distinct((40, 50), "uint16")
    array = zarr.create_array(tmp_path / "a.zarr", shape=pixels.shape, chunks=(16, 16), **options)
    array[...] = pixels
    images = open_images(tmp_path / "a.zarr", "YX", by_chunk=True)
    assert type(reader_of(images)) is not DirectChunks
    np.testing.assert_array_equal(
        images.extract_patch(0, 0, (3, 5), (30, 40))[0], pixels[3:33, 5:45]
    )


def test_axes_of_any_order(tmp_path, kind):
    pixels = distinct((3, 2, 40, 50), "uint8")  # TCYX
    path = written(tmp_path / "a.zarr", pixels.transpose(2, 0, 3, 1), (16, 1, 16, 1))
    assert_read(path, "YTXC", pixels, kind)
    path = written(tmp_path / "b.zarr", pixels[0, 0][None, :, None, :], (1, 16, 1, 16))
    assert_read(path, "CYZX", pixels[:1, :1, None], kind)
    path = written(tmp_path / "c.zarr", pixels[:, 0], (2, 16, 16))  # samples share a chunk
    assert_read(path, "TYX", pixels[:, :1], kind)


def test_values_that_are_converted_are_left_to_zarr(tmp_path):
    path = written(tmp_path / "a.zarr", np.arange(4000, dtype="int32").reshape(50, 80), (16, 16))
    images = open_images(path, "YX", by_chunk=True)
    assert reader_of(images) is None
    assert images.extract_patch(0, 0, (3, 7), (1, 1)) == 247


@pytest.mark.parametrize("shards", [None, (1, 32, 32)])
def test_chunks_that_are_missing(tmp_path, kind, shards):
    pixels = distinct((1, 64, 64), "uint16") | 1
    path = written(tmp_path / "a.zarr", pixels, (1, 16, 16), shards=shards)
    (path / "c" / "0" / "1" / "1").unlink()
    images = open_images(path, "CYX", by_chunk=True)
    with pytest.raises(ValueError, match=r"a\.zarr.*chunk c/0/1/1 is missing"):
        images.extract_patch(0, 0, (0, 0), (64, 64))
    filled = open_images(path, "CYX", by_chunk=True, allow_missing_chunks=True)
    assert type(reader_of(filled)) is (FastRegions if shards else kind)
    side = 16 if shards is None else 32
    expected = pixels.copy()
    expected[:, side : 2 * side, side : 2 * side] = 0
    np.testing.assert_array_equal(filled.extract_patch(0, 0, (0, 0), (64, 64)), expected)


@needs_tensorstore
def test_chunks_that_a_shard_leaves_out_are_the_fill_value(tmp_path):
    pixels = np.ones((1, 64, 64), "uint16")
    pixels[:, 16:32, 16:32] = 0
    path = written(tmp_path / "a.zarr", pixels, (1, 16, 16), shards=(1, 64, 64))
    assert_read(path, "CYX", pixels[None])


@pytest.mark.parametrize("codec", ["none", "blosc", "zstd"])
def test_damaged_chunks_are_an_error(tmp_path, kind, codec):
    compressors = {
        "none": None,
        "blosc": zarr.codecs.BloscCodec(),
        "zstd": zarr.codecs.ZstdCodec(checksum=True),
    }[codec]
    pixels = distinct((1, 64, 64), "uint16")
    path = written(tmp_path / "a.zarr", pixels, (1, 32, 32), compressors=compressors)
    chunk = path / "c" / "0" / "1" / "0"
    whole = chunk.read_bytes()
    images = open_images(path, "CYX", by_chunk=True)
    wrong = b"\xff" * len(whole) if codec != "none" else whole + b"\1"
    for content in (whole[: len(whole) // 2], wrong):
        chunk.write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.zarr"):
            images.extract_patch(0, 0, (0, 0), (64, 64))
    chunk.write_bytes(whole)
    np.testing.assert_array_equal(images.extract_patch(0, 0, (0, 0), (64, 64)), pixels)


def test_a_chunk_that_claims_to_be_huge_is_not_unpacked(tmp_path):
    pixels = distinct((1, 64, 64), "uint16")
    compressors = zarr.codecs.BloscCodec()
    path = written(tmp_path / "a.zarr", pixels, (1, 32, 32), compressors=compressors)
    chunk = path / "c" / "0" / "1" / "0"
    content = bytearray(chunk.read_bytes())
    content[4:8] = (2**31 - 64).to_bytes(4, "little")
    chunk.write_bytes(content)
    images = open_images(path, "CYX", by_chunk=True)
    with pytest.raises(ValueError, match=r"chunk c/0/1/0 says that it unpacks to 2,147,483,584"):
        images.extract_patch(0, 0, (0, 0), (64, 64))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_process_reads_without_tensorstore(tmp_path, kind):
    pixels = distinct((1, 64, 64), "uint16")
    path = written(tmp_path / "a.zarr", pixels, (1, 16, 16))
    images = assert_read(path, "CYX", pixels[None], kind)
    assert kind is DirectChunks or fast._used_by == os.getpid()
    process = os.fork()
    if not process:
        code = 1
        try:
            same = np.array_equal(
                images.extract_patch(0, 0, (3, 4), (40, 40)), pixels[:, 3:43, 4:44]
            )
            without = kind is DirectChunks or reader_of(images) is None
            code = 0 if same and without else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0


def test_without_tensorstore(tmp_path, monkeypatch):
    pixels = distinct((1, 64, 64), "uint16")
    path = written(tmp_path / "a.zarr", pixels, (1, 16, 16))
    monkeypatch.setattr(fast, "if_installed", lambda _: None)
    assert_read(path, "CYX", pixels[None], DirectChunks)
    no_direct(monkeypatch)
    images = open_images(path, "CYX", memory_budget=4000)
    assert reader_of(images) is None
    np.testing.assert_array_equal(images.extract_patch(0, 0, (0, 0), (9, 9)), pixels[:, :9, :9])


@pytest.mark.parametrize("there", [0, 0.5])
def test_what_is_not_in_memory_is_copied_when_it_is_waited_for(tmp_path, monkeypatch, there):
    pixels = distinct((2, 64, 64), "uint16")
    path = written(tmp_path / "a.zarr", pixels, (1, 16, 16))
    reader = reader_of(open_images(path, "CYX", by_chunk=True))
    preadv, told = os.preadv, []

    def cold(file, buffers, offset, flags=0):
        if flags and not there:
            raise BlockingIOError
        if flags:
            buffers = [memoryview(buffers[0]).cast("B")[: int(there * buffers[0].nbytes)]]
        return preadv(file, buffers, offset, flags)

    monkeypatch.setattr(os, "preadv", cold)
    monkeypatch.setattr(os, "posix_fadvise", lambda *given: told.append(given[1:]))
    region = (slice(0, 1), slice(0, 2), slice(16, 48), slice(32, 64))
    out = np.zeros((1, 2, 32, 32), "uint16")
    reading = reader.begin(region, out)
    assert not reading.done()
    assert told == [(0, 1 << 17, os.POSIX_FADV_WILLNEED)] * 8
    reading.result()
    assert reading.done()
    np.testing.assert_array_equal(out, pixels[None][region])
    (path / "c" / "0" / "1" / "2").unlink()  # after the kernel was told
    reading = reader.begin(region, out)
    with pytest.raises(FileNotFoundError):
        reading.result()
    with pytest.raises(FileNotFoundError):  # whoever waits beside
        reading.result()


def test_what_is_in_memory_is_copied_at_once(tmp_path, monkeypatch):
    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda *given: preadv(*given[:3]))  # whatever /tmp is
    pixels = distinct((2, 64, 64), "uint16")
    reader = reader_of(
        open_images(written(tmp_path / "a.zarr", pixels, (1, 16, 16)), "CYX", by_chunk=True)
    )
    region = (slice(0, 1), slice(1, 2), slice(0, 64), slice(0, 64))
    out = np.zeros((1, 1, 64, 64), "uint16")
    assert reader.begin(region, out).done()
    np.testing.assert_array_equal(out, pixels[None][region])


def test_a_large_chunk_is_fetched_piece_by_piece(tmp_path, monkeypatch):
    path = written(tmp_path / "a.zarr", np.ones((700, 500), "uint8"), (700, 500))
    reader = reader_of(open_images(path, "YX", by_chunk=True))
    preadv, told = os.preadv, []
    cold = lambda *given: preadv(*given) if not given[3] else 0  # noqa: E731
    monkeypatch.setattr(os, "preadv", cold)
    monkeypatch.setattr(os, "posix_fadvise", lambda *given: told.append(given[1:3]))
    region = (slice(0, 1), slice(0, 1), slice(0, 700), slice(0, 500))
    out = np.zeros((1, 1, 700, 500), "uint8")
    reader.begin(region, out).result()
    assert told == [(0, 1 << 17), (1 << 17, 1 << 17), (1 << 18, 1 << 17)]
    assert out.all()


def test_a_file_system_that_does_not_tell_is_left_to_others(tmp_path, monkeypatch):
    pixels = distinct((1, 64, 64), "uint16")
    path = written(tmp_path / "a.zarr", pixels, (1, 16, 16))
    preadv = os.preadv

    def not_here(file, buffers, offset, flags=0):
        if flags:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        return preadv(file, buffers, offset)

    monkeypatch.setattr(os, "preadv", not_here)
    images = open_images(path, "CYX", memory_budget=4000)
    assert type(reader_of(images)) is not DirectChunks
    np.testing.assert_array_equal(images.extract_patch(0, 0, (0, 0), (9, 9)), pixels[:, :9, :9])


def test_an_image_of_one_pixel(tmp_path, kind):
    path = written(tmp_path / "a.zarr", np.full((1, 1), 77, "uint8"), (1, 1))
    images = open_images(path, "YX", by_chunk=True)
    assert type(reader_of(images)) is kind
    assert images.extract_patch(0, 0, (0, 0), (1, 1)).tolist() == [[[77]]]


def test_chunks_whose_fill_value_is_not_said(tmp_path):
    pixels = distinct((1, 64, 64), "uint16") | 1
    path = written(tmp_path / "a.zarr", pixels, (1, 16, 16), zarr_format=2)
    text = json.loads((path / ".zarray").read_text())
    (path / ".zarray").write_text(json.dumps({**text, "fill_value": None}))
    (path / "0.1.1").unlink()
    images = open_images(path, "CYX", by_chunk=True, allow_missing_chunks=True)
    expected = pixels.copy()
    expected[:, 16:32, 16:32] = 0
    for _ in range(2):
        found = images.extract_patch(0, 0, (0, 0), (64, 64))
        np.testing.assert_array_equal(found, expected)
    assert images.cache.traffic.bytes_moved == pixels.nbytes  # each page once
