"""open_images with less memory than the images take."""

import multiprocessing
import pickle
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from emulation import fake_cupy
from emulation.runtime import available
from formats import numbered, write_ome_zarr

import gpu_patch
from gpu_patch import open_images
from gpu_patch.chunks import image
from gpu_patch.feed import BatchLoader
from gpu_patch.images import budget, regions

tifffile = pytest.importorskip("tifffile")

AXES = "TCYX"


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setenv("GPU_PATCH_DEVICE", "cpu")
    monkeypatch.setattr(image, "_LEAST_BYTES", 0)


def write(path, kind, data):
    """Write an image of the axes TCYX in small chunks."""
    if kind == "tiled TIFF":
        options = {"tile": (16, 16), "compression": "zlib", "photometric": "minisblack"}
        tifffile.imwrite(path / "image.tif", data, metadata={"axes": AXES}, ome=True, **options)
    elif kind == "TIFF in strips":
        tifffile.imwrite(path / "image.tif", data, imagej=True, metadata={"axes": AXES})
    elif kind == "npy":
        np.save(path / "image.npy", data)
    elif kind == "npy in Fortran's order":
        np.save(path / "image.npy", np.asfortranarray(data))
    else:
        pytest.importorskip("zarr")
        options = {"shards": (1, 1, 32, 48)} if kind == "sharded Zarr" else {}
        version = "0.4" if kind == "Zarr v2" else "0.5"
        write_ome_zarr(path / "image.zarr", data, AXES, version=version, **options)
    return next(iter(path.iterdir()))


def batches(extractor, n_scales=2, **options):
    strategy = gpu_patch.StratifiedPatching(extractor.shapes, (8, 8))
    made = gpu_patch.MultiChannelTargetMsPatchConstr(
        strategy, extractor, n_scales, "reflect", [(0.2, 1)] * extractor.n_channels, 0.0, seed=5
    )
    return [
        (batch.input.tobytes(), batch.target.tobytes())
        for batch in BatchLoader(made, 16, order="blocks", **options)
    ]


@pytest.mark.parametrize(
    "kind",
    ["tiled TIFF", "TIFF in strips", "npy", "npy in Fortran's order", "Zarr v2", "sharded Zarr"],
)
def test_files_of_every_format(tmp_path, kind):
    path = write(tmp_path, kind, numbered(AXES))
    axes = AXES if "npy" in kind else None
    whole = open_images(path, axes)
    budget = whole.image_stacks[0].nbytes // 3
    found = open_images(path, axes, memory_budget=budget)
    assert found.cache.budget == budget
    assert whole.cache is None
    (stack,) = found.image_stacks
    assert stack.nbytes == 0  # nothing is read by opening
    for name in ("source", "data_shape", "data_dtype", "original_axes", "original_data_shape",
                 "physical_sizes", "metadata"):  # fmt: skip
        assert getattr(stack, name) == getattr(whole.image_stacks[0], name)
    assert batches(found) == batches(whole)
    assert 0 < stack.nbytes <= budget
    traffic = found.cache.traffic
    assert traffic.bytes_moved > budget
    assert traffic.misses
    assert traffic.hits


@pytest.mark.skipif(not available(), reason="needs a C++ compiler")
def test_on_a_device(tmp_path):
    path = write(tmp_path, "tiled TIFF", numbered(AXES))
    with fake_cupy.installed():
        found = open_images(path, device="cuda", memory_budget=10_000)
        assert found.device == found.cache.device == "cuda:0"
        patch = found.extract_patch(0, 2, (11, 13), (20, 20))
        np.testing.assert_array_equal(patch.get(), numbered(AXES)[2, :, 11:31, 13:33])
        assert found.cache.nbytes <= 10_000


def test_arrays_and_what_a_function_reads(tmp_path):
    pytest.importorskip("zarr")
    import zarr

    data = numbered(AXES)
    chunked = zarr.array(data, chunks=(1, 1, 16, 16))
    found = open_images([chunked, chunked], AXES, by_chunk=True)
    assert found.image_stacks[1].data.chunk_shape == (1, 1, 16, 16)
    assert batches(found) == batches(open_images([data, data], AXES))
    (tmp_path / "a.raw").write_bytes(b"")
    read = open_images(tmp_path / "a.raw", AXES, read_func=lambda _: chunked, memory_budget=5000)
    assert batches(read) == batches(open_images(data, AXES))
    assert open_images(data, AXES, memory_budget=1).cache is None  # it takes no memory of ours


def test_what_is_said(tmp_path, monkeypatch):
    path = write(tmp_path, "tiled TIFF", numbered(AXES))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_images(path).cache is None
        assert open_images(path, by_chunk=True).cache.budget > 10**6
        assert open_images(path, memory_budget=5000).cache.budget == 5000
    with pytest.raises(MemoryError, match=r"need 23\.5 kB .* or leave out by_chunk=False"):
        open_images(path, memory_budget=5000, by_chunk=False)
    with pytest.raises(MemoryError, match=r"image\.tif is read in chunks of \(1, 1, 16, 16\), of "
                       "which one takes 512 bytes, but all images may take 500"):  # fmt: skip
        open_images(path, memory_budget=500)
    with pytest.raises(TypeError, match="by_chunk must be True, False or None, found 1"):
        open_images(path, by_chunk=1)
    monkeypatch.setattr(budget, "free_host_bytes", lambda: 10_000)
    with pytest.warns(UserWarning, match=r"kept by chunk: .*order=.sweep") as caught:
        found = open_images(path)
    assert caught[0].filename == __file__
    assert found.cache.budget == 8000


def test_precision_that_is_lost_is_said_once(tmp_path):
    np.save(tmp_path / "large.npy", np.full((64, 64), 2**25, np.int32))
    found = open_images(tmp_path / "large.npy", "YX", by_chunk=True)
    with pytest.warns(UserWarning, match=r"large\.npy: int32 data .* lose precision"):
        found.extract_patch(0, 0, (0, 0), (32, 64))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found.extract_patch(0, 0, (32, 0), (32, 64))


def opened(stack):
    regions = stack.data.reader
    return regions._own.get(regions._open)


def test_few_files_are_open_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(regions, "_MOST_OPEN", 2)
    for i in range(5):
        tifffile.imwrite(tmp_path / f"{i}.tif", numbered(AXES) + i, metadata={"axes": AXES})
    found = open_images(tmp_path, axes=AXES, memory_budget=20_000)
    readers = [opened(stack)[0] for stack in found.image_stacks]
    for _ in range(2):
        for i in range(5):
            patch = found.extract_patch(i, 1, (3, 4), (30, 30))
            np.testing.assert_array_equal(patch, numbered(AXES)[1, :, 3:33, 4:34] + i)
            assert sum(not reader._opened.closed for reader in readers) <= 2


def tiles_of_a_tiff(path):
    """An image by chunk of 6 × 8 packed tiles, the regions of them, and its pixels."""
    data = numbered("TCYX", T=1, C=1, Y=96, X=128)
    found = open_images(write(path, "tiled TIFF", data), memory_budget=2048)
    places = [(y, x) for y in range(0, 96, 16) for x in range(0, 128, 16)]
    regions = [(slice(0, 1), slice(0, 1), slice(y, y + 16), slice(x, x + 16)) for y, x in places]
    return found.image_stacks[0].data, regions, data


def test_tiles_of_a_tiff_are_unpacked_by_several_threads(tmp_path, monkeypatch):
    chunked, tiles, data = tiles_of_a_tiff(tmp_path)
    together, decode = threading.Barrier(2), tifffile.TiffPage.decode

    def both_at_once(page):
        own = decode.func(page)

        def decoded(content, *args, **options):
            if content is not None:
                together.wait(10)
            return own(content, *args, **options)

        return decoded

    monkeypatch.setattr(tifffile.TiffPage, "decode", property(both_at_once))
    outs = [np.empty((1, 1, 16, 16), data.dtype) for _ in range(2)]
    with ThreadPoolExecutor(2) as executor:
        list(executor.map(chunked.read_region, tiles[5:7], outs))
    for out, tile in zip(outs, tiles[5:7], strict=True):
        assert np.array_equal(out, data[tile])


def test_threads_read_a_tiff_that_is_let_go_of_meanwhile(tmp_path):
    chunked, tiles, data = tiles_of_a_tiff(tmp_path)

    def read(number):
        if number % 3 == 0:
            chunked.reader.close()
        tile = tiles[number % len(tiles)]
        out = np.empty((1, 1, 16, 16), data.dtype)
        chunked.read_region(tile, out)
        return np.array_equal(out, data[tile])

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as executor:
            assert all(executor.map(read, range(400)))
    finally:
        sys.setswitchinterval(before)


def test_arrays_are_not_let_go_for_others(monkeypatch):
    monkeypatch.setattr(regions, "_MOST_OPEN", 2)
    zarr = pytest.importorskip("zarr")
    arrays = [zarr.create_array({}, data=numbered("SYX") + i, chunks=(1, 16, 16)) for i in range(5)]
    found = open_images(arrays, axes="SYX", memory_budget=20_000, by_chunk=True)
    for _ in range(2):
        for i in range(5):
            patch = found.extract_patch(i, 1, (3, 4), (20, 20))
            np.testing.assert_array_equal(patch[0], numbered("SYX")[1, 3:23, 4:24] + i)


def patches_in_another_process(extractor, send):
    try:
        send.put([extractor.extract_patch(0, s, (1, 2), (30, 40)).tolist() for s in range(3)])
    except BaseException as error:
        send.put(repr(error))
        raise


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_in_other_processes(tmp_path, method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system cannot {method}")
    path = write(tmp_path, "TIFF in strips", numbered(AXES))
    found = open_images(path, memory_budget=8000)
    expected = [numbered(AXES)[s, :, 1:31, 2:42].tolist() for s in range(3)]
    assert found.extract_patch(0, 0, (1, 2), (30, 40)).tolist() == expected[0]
    held = opened(found.image_stacks[0])[1]
    context = multiprocessing.get_context(method)
    with held, found.cache.pool._changed:  # as another thread may, when a process is forked
        receive = context.Queue()
        process = context.Process(target=patches_in_another_process, args=(found, receive))
        process.start()
        assert receive.get(timeout=120) == expected
        process.join()
    assert pickle.loads(pickle.dumps(found)).extract_patch(0, 1, (1, 2), (30, 40)).shape[0] == 2


@pytest.mark.parametrize("kind", ["tiled TIFF", "sharded Zarr", "npy"])
def test_files_that_change_or_vanish_or_are_damaged(tmp_path, kind):
    path = write(tmp_path, kind, numbered(AXES))
    axes = AXES if kind == "npy" else None
    found = open_images(path, axes, memory_budget=8000)
    batches(found)
    if kind == "sharded Zarr":
        missing = path / "0" / "c" / "1" / "0" / "0" / "0"
        missing.unlink()
        message = r"image\.zarr.*chunk"
    else:
        content = path.read_bytes()
        path.write_bytes(content[: len(content) - 700])
        message = rf"{path.name} (has changed since it was opened|cannot be read)"
    with pytest.raises(ValueError, match=message):
        batches(found, prefetch=0)
    if kind == "npy":
        path.unlink()
        with pytest.raises(FileNotFoundError, match=r"image\.npy"):
            batches(found)
    pool = found.cache.pool
    assert pool.pins.sum() == len(pool._readings)  # and nobody else has pinned anything
    assert found.cache.nbytes <= 8000
