"""Predictions in files: formats, going on after an end, several processes, memory."""

from __future__ import annotations

import json
import os
import sys
import time

import memory
import numpy as np
import predictor
import pytest
from forks import Fork
from pixels import distinct
from predicted import OPTIONS, make_images, model

import gpu_patch
from gpu_patch import open_images, predict
from gpu_patch.images.version import version

pytest.importorskip("zarr")
pytest.importorskip("tifffile")

# whatever the models of a test are: some stop at a call of theirs
TILES = {"tile_size": (32, 32), "overlaps": (8, 8), "progress": False, "model_id": "any"}


@pytest.fixture(autouse=True)
def _on_the_host(monkeypatch):
    monkeypatch.setenv("GPU_PATCH_DEVICE", "cpu")


def read(path):
    """SCYX."""
    return open_images(path).image_stacks[0].data


def written(tmp_path, axes="YX", shape=(150, 90)):
    """An image in a file, with sizes of pixels."""
    tifffile = pytest.importorskip("tifffile")
    path = tmp_path / "cells.ome.tif"
    pixels = distinct(shape, "uint16")
    sizes = {"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5}
    tifffile.imwrite(path, pixels, ome=True, metadata={"axes": axes, **sizes})
    return open_images(path, device="cpu"), pixels


@pytest.mark.parametrize("ending", [".ome.zarr", ".ome.tif", ".npy"])
@pytest.mark.parametrize("dtype", ["float32", "uint16"])
@pytest.mark.parametrize(("axes", "shape"), [("YX", (150, 90)), ("TYX", (3, 40, 160)),
                                             ("CYX", (2, 70, 90))])  # fmt: skip
def test_every_format_holds_what_the_array_does(ending, dtype, axes, shape, tmp_path):
    images, pixels = written(tmp_path, axes, shape)
    out = tmp_path / f"result{ending}"
    found = predict(images, lambda x: x, out=out, dtype=dtype, **TILES)
    assert found.images == [out]
    assert found.std is None
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["cells.ome.tif", out.name])
    if ending == ".npy":
        np.testing.assert_array_equal(np.load(out), pixels)
        return
    stack = open_images(out).image_stacks[0]
    assert stack.data_dtype == dtype
    np.testing.assert_array_equal(stack.data, images.image_stacks[0].data)
    assert stack.physical_sizes == pytest.approx({"Y": 0.5, "X": 0.25})


@pytest.mark.parametrize("format", ["ome-zarr", "ome-tiff", "npy"])
def test_a_folder_gets_a_file_per_image_and_its_deviations(format, tmp_path):
    images, _ = written(tmp_path)
    other = gpu_patch.ImageStack.from_array(distinct((50, 40), "uint16"), "YX", device="cpu")
    out = tmp_path / "out"
    calls = []

    def stochastic(x):
        calls.append(None)
        return x + len(calls) % 2

    found = predict([images, other], stochastic, out=out, format=format, n_samples=2, **TILES)
    suffix = {"ome-zarr": ".ome.zarr", "ome-tiff": ".ome.tif", "npy": ".npy"}[format]
    assert found.images == [out / f"cells{suffix}", out / f"array{suffix}"]
    assert found.std == [out / f"cells_std{suffix}", out / f"array_std{suffix}"]
    assert sorted(out.iterdir()) == sorted([*found.images, *found.std])
    deviation = np.load(found.std[0]) if format == "npy" else read(found.std[0])
    np.testing.assert_allclose(deviation, np.sqrt(0.5), rtol=1e-4)


def test_what_is_there_is_kept_unless_it_may_be_replaced(tmp_path):
    images, pixels = written(tmp_path)
    calls = []

    def counted(x):
        calls.append(None)
        return x

    out = tmp_path / "result.npy"
    out.write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        predict(images, counted, out=out, **TILES)
    assert not calls
    assert out.read_bytes() == b"mine"
    predict(images, counted, out=out, overwrite=True, **TILES)
    np.testing.assert_array_equal(np.load(out), pixels)


@pytest.mark.parametrize("ending", [".ome.zarr", ".ome.tif", ".npy"])
@pytest.mark.parametrize("fault", ["raises", "not finite"])
def test_after_an_error_nothing_is_at_the_final_name(ending, fault, tmp_path):
    images, _ = written(tmp_path, shape=(400, 90))
    out = tmp_path / f"result{ending}"
    calls = []

    def failing(x):
        calls.append(None)
        if len(calls) < 4:
            return x
        if fault == "raises":
            raise RuntimeError("broken")
        return x * np.nan

    error = RuntimeError if fault == "raises" else ValueError
    with pytest.raises(error, match="broken" if fault == "raises" else "not finite"):
        predict(images, failing, out=out, batch_size=4, dtype=np.uint16, **TILES)
    assert not out.exists()
    if ending != ".ome.zarr":  # of which resuming has use
        assert [p.name for p in tmp_path.iterdir()] == ["cells.ome.tif"]


@pytest.mark.parametrize("ending", [".ome.zarr", ".ome.tif", ".npy"])
def test_after_an_error_no_empty_folder_stays(ending, tmp_path):
    images, _ = written(tmp_path)
    (tmp_path / "mine").mkdir()
    for folder in ("new/folders", "mine"):
        out = tmp_path / folder / f"result{ending}"
        with pytest.raises(RuntimeError, match="broken"):  # when the output is open
            predict(images, counting([], fail_at=1), out=out, batch_size=4, **TILES)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cells.ome.tif", "mine"]
    assert not list((tmp_path / "mine").iterdir())


def counting(sizes, fail_at=None):
    """A model that notes how many tiles it gets, and breaks at some call."""

    def model(x):
        if len(sizes) == fail_at:
            raise RuntimeError("broken")
        sizes.append(len(x))
        return x + 1

    return model


@pytest.mark.filterwarnings("ignore:the standard deviation is 0")
@pytest.mark.parametrize("n_samples", [1, 2])
@pytest.mark.parametrize("at", [1, 4, 9])
def test_going_on_after_an_error(at, n_samples, tmp_path):
    images, _ = written(tmp_path, shape=(400, 90))
    options = {**TILES, "chunk_size": (32, 64), "batch_size": 4, "n_samples": n_samples}
    undisturbed, after, out = [], [], tmp_path / "out"
    whole = predict(images, counting(undisturbed), out=tmp_path / "whole", **options)
    with pytest.raises(RuntimeError, match="broken"):
        predict(images, counting([], fail_at=at * n_samples), out=out, **options)
    found = predict(images, counting(after), out=out, resume=True, **options)
    for paths, expected in zip(found[:n_samples], whole[:n_samples], strict=True):
        np.testing.assert_array_equal(read(paths[0]), read(expected[0]))
    assert sum(after) == sum(undisturbed) if at == 1 else sum(after) < sum(undisturbed)
    # once more: nothing is left to do, and the model is not asked
    assert predict(images, counting([], fail_at=0), out=out, resume=True, **options) == found


def test_going_on_with_other_arguments_is_refused(tmp_path):
    images, _ = written(tmp_path, shape=(400, 90))
    options = {**TILES, "chunk_size": (32, 64), "batch_size": 4, "out": tmp_path / "out"}
    with pytest.raises(RuntimeError, match="broken"):
        predict(images, counting([], fail_at=8), **options)
    changes = {
        "blend": ("hann", "its blend is 'crop', that of this run 'hann'"),
        "overlaps": ((4, 8), r"its overlaps is \[8, 8\], that of this run \[4, 8\]"),
        "multiscale_count": (2, "its multiscale_count is None, that of this run 2"),
        "dtype": ("uint8", "its dtype is 'float32', that of this run 'uint8'"),
    }
    advice = (
        r"\. Give the same to go on; overwrite=True beside resume=True makes anew what differs, "
    )
    advice += "overwrite=True alone everything$"
    for complete in (False, True):
        if complete:
            predict(images, counting([]), **options, resume=True)
        kind, state = (FileExistsError, "is complete, but") if complete else (ValueError, "cannot")
        for name, (value, words) in changes.items():
            with pytest.raises(kind, match=f"{state}.* {words}{advice}"):
                predict(images, lambda x: x[:, :1], **{**options, name: value}, resume=True)


@pytest.mark.parametrize("complete", [False, True])
@pytest.mark.parametrize("change", ["date of a file", "size of a file", "date of a Zarr"])
def test_going_on_with_another_image_of_the_name_is_refused(change, complete, tmp_path):
    source = tmp_path / ("image.zarr" if change.endswith("Zarr") else "image.tif")
    pixels = distinct((400, 90), "uint16")
    if change.endswith("Zarr"):
        pytest.importorskip("zarr").create_array(source, data=pixels)
    else:
        pytest.importorskip("tifffile").imwrite(source, pixels)
    dated = source / "zarr.json" if source.is_dir() else source
    os.utime(dated, (86_400, 86_400))
    options = {**TILES, "chunk_size": (32, 64), "batch_size": 4, "out": tmp_path / "out"}
    with pytest.raises(RuntimeError, match="broken"):
        predict(open_images(source, axes="YX"), counting([], fail_at=8), **options)
    if complete:
        predict(open_images(source, axes="YX"), counting([]), **options, resume=True)
    if change.startswith("size"):
        with source.open("ab") as file:
            file.write(b"more")
    os.utime(dated, (86_400, 86_400 + (not change.startswith("size"))))
    refused = FileExistsError if complete else ValueError
    with pytest.raises(
        refused, match=r"its image was another one \(.*; now .*\)\. Give the same to go on"
    ):
        predict(open_images(source, axes="YX"), counting([]), **options, resume=True)
    options |= {"overwrite": True, "resume": True}  # makes anew what differs
    (found,) = predict(open_images(source, axes="YX"), counting([]), **options).images
    again = predict(open_images(source, axes="YX"), counting([], fail_at=0), **options)
    assert again.images == [found]
    np.testing.assert_array_equal(read(found)[0, 0], pixels + 1.0)  # as the model does


def test_another_file_level_or_array_is_another_image(tmp_path):
    """Also where sizes and dates are the same."""
    tifffile, zarr = pytest.importorskip("tifffile"), pytest.importorskip("zarr")
    options = {**TILES, "chunk_size": (32, 64), "out": tmp_path / "out", "resume": True}
    stack = distinct((160, 128), "uint16")
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        with tifffile.TiffWriter(tmp_path / folder / "cells.tif") as file:
            file.write(stack, metadata={"axes": "YX"}, subifds=1)
            file.write(stack[::2, ::2], subfiletype=1)
        os.utime(tmp_path / folder / "cells.tif", (86_400, 86_400))
    first = open_images(tmp_path / "a" / "cells.tif")
    predict(first, counting([]), **options)
    predict(first, counting([], fail_at=0), **options)
    for other, words in (
        (open_images(tmp_path / "b" / "cells.tif"), r"\(a/cells\.tif, .*; now b/cells\.tif, "),
        (open_images(tmp_path / "a" / "cells.tif", level=1), r"shape \(160, .*now .*shape \(80, "),
    ):
        with pytest.raises(FileExistsError, match=words):
            predict(other, counting([]), **options)
    zarr.create_group(tmp_path / "cells.zarr").create_array("0", data=stack)
    before = version(tmp_path / "cells.zarr")
    os.utime(tmp_path / "cells.zarr" / "0" / "zarr.json", (4e9, 4e9))
    assert version(tmp_path / "cells.zarr") != before


@pytest.mark.parametrize("by_chunk", [False, True])
def test_an_image_is_the_one_that_was_opened(by_chunk, tmp_path):
    """Whatever has become of its file when `predict` begins."""
    tifffile = pytest.importorskip("tifffile")
    path, pixels = tmp_path / "cells.tif", distinct((400, 900), "uint16")
    how = {"memory_budget": 500_000} if by_chunk else {}
    options = {**TILES, "chunk_size": (32, 64), "batch_size": 4, "out": tmp_path / "out"}

    def write(values, day):
        tifffile.imwrite(path, values, rowsperstrip=16)
        os.utime(path, (day * 86_400, day * 86_400))

    write(pixels, 1)
    opened = open_images(path, **how)
    assert (opened.cache is not None) == by_chunk
    if not by_chunk:  # whose pixels are no longer the file's
        write(pixels[::-1], 2)
    with pytest.raises(RuntimeError, match="broken"):
        predict(opened, counting([], fail_at=40), **options)
    write(pixels[::-1], 2)
    words = r"its image was another one \(.*1970-01-02 .*; now .*1970-01-03 "
    with pytest.raises(ValueError, match=words):
        predict(open_images(path, **how), counting([]), **options, resume=True)
    if not by_chunk:
        (found,) = predict(opened, counting([]), **options, resume=True).images
        np.testing.assert_array_equal(read(found)[0, 0], pixels + 1.0)


def test_arrays_are_told_by_what_is_in_them(device, tmp_path):
    pixels = distinct((2, 200, 90), "uint16")
    options = {**TILES, "chunk_size": (32, 64), "batch_size": 4, "out": tmp_path / "out.zarr"}

    def image(data, device="cpu"):
        return gpu_patch.ImageStack.from_array(data, "CYX", device=device)

    with pytest.raises(RuntimeError, match="broken"):
        predict(image(pixels), counting([], fail_at=4), **options)
    other = pixels.copy()
    other[1, -1, -1] += 1
    with pytest.raises(ValueError, match=r"its image was another one \(array, digest .*; now arr"):
        predict(image(other, device), lambda x: x, **options, resume=True)
    same = image(np.asfortranarray(pixels), device)  # wherever it is
    found = predict(same, lambda x: x, **options, resume=True).images[0]
    assert read(found).shape == (1, 2, 200, 90)


@pytest.mark.parametrize("source", ["array", "of the microscope", "a" * 300, "nul\0", ""])
def test_a_source_may_be_any_text(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "array").write_text("no image")
    assert version(source) == source


def test_what_was_written_but_not_finished_is_finished(tmp_path, monkeypatch):
    """An end between the last rows and the coarser levels."""
    from gpu_patch.predict.outputs.ome_zarr.output import ZarrOutput

    images, pixels = written(tmp_path)
    options = {**TILES, "out": tmp_path / "out.ome.zarr", "chunk_size": (32, 64)}

    def broken(output):
        raise RuntimeError("broken")

    with monkeypatch.context() as patch:
        patch.setattr(ZarrOutput, "finish", broken)
        with pytest.raises(RuntimeError, match="broken"):
            predict(images, lambda x: x, **options)
    sizes = []
    found = predict(images, lambda x: sizes.append(len(x)) or x, resume=True, **options)
    assert sizes == [1]  # to know the channels
    np.testing.assert_array_equal(read(found.images[0])[0, 0], pixels)


# ---- processes ---------------------------------------------------------------------------------


def start(out, rank=0, world_size=1, pause=0.0, *, resume=False):
    report = out.parent / f"{out.name}-{rank}.json"
    arguments = (out, report, rank, world_size, pause, resume)
    return Fork(predictor.main, *arguments, errors=out.parent / f"errors-{time.monotonic_ns()}")


def ended(processes):
    """Wait for processes; how many tiles each made."""
    counts = []
    for process in processes:
        assert process.wait() == 0, process.errors[-3000:]
        counts.append(json.loads(process.arguments[1].read_text())["n_tiles"])
    return counts


def contents(folder):
    """Every file of the results."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """What one process writes that nobody disturbs."""
    folder = tmp_path_factory.mktemp("expected")
    with pytest.warns(UserWarning, match="the standard deviation is 0"):
        predict(make_images(), model, out=folder, n_samples=2, progress=False, **OPTIONS)
    return contents(folder)


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_write_together_what_one_process_writes(world_size, expected, tmp_path):
    out = tmp_path / "out"
    counts = ended([start(out, rank, world_size) for rank in range(world_size)])
    assert min(counts) > 0
    assert contents(out) == expected


@pytest.mark.parametrize("seconds", [0.05, 0.25, 0.5])
def test_a_killed_process_leaves_what_resuming_completes(seconds, expected, tmp_path):
    out = tmp_path / "out"
    process = start(out, pause=0.01)
    process.wait_until(out.exists)
    time.sleep(seconds)
    process.kill()
    finished = [path for path in out.iterdir() if not path.name.startswith(".")]
    whole = sum(name.startswith(tuple(p.name for p in finished)) for name in expected)
    kept = {name: c for name, c in contents(out).items() if not name.startswith(".")}
    assert len(kept) == whole
    assert kept.items() <= expected.items()
    ended([start(out, resume=True)])
    assert contents(out) == expected


# ---- memory ------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc, of Linux")
@pytest.mark.parametrize("ending", [".ome.zarr", ".ome.tif"])
def test_a_tall_image_takes_a_third_of_its_buffer(ending, tmp_path):
    """Of 256 MiB."""
    report = tmp_path / "report"
    fork = Fork(memory.predict, tmp_path, ending, report, errors=tmp_path / "errors")
    assert fork.wait() == 0, fork.errors
    assert int(report.read_text()) <= (256 << 20) / 3
