"""`gpu-patch bench --by-chunk`, and its picture."""

import json
from importlib.util import find_spec

import numpy as np
import pytest
from formats import numbered, write_ome_zarr

import gpu_patch
from gpu_patch.cli import main
from gpu_patch.cli.bench import by_chunk, by_chunk_table, from_files
from gpu_patch.cli.bench.from_files import Cut, Place

zarr = pytest.importorskip("zarr")

NAMES = ["resident", "paged", "tensorstore loop", "reader alone", "torch DataLoader"]
MACHINE = {
    "cpu": "Some CPU",
    "n_cores": 2,
    "load": None,
    "commit": None,
    "python": "3.12",
    "numpy": "2.4",
    "gpu_patch": "0.1.0",
    "date": "2026-01-02",
    "images": "1 of (1, 2, 64, 64)",
    "image_bytes": 4000,
    "budget_bytes": 1000,
    "n_threads": 2,
    "n_workers": 2,
}


@pytest.fixture
def image(tmp_path):
    """TCYX, as an array of Zarr."""
    path = tmp_path / "image.zarr"
    pixels = numbered("TCYX", T=4, Y=500, X=600)
    zarr.create_array(
        path, data=pixels, chunks=(1, 1, 64, 64), dimension_names=("t", "c", "y", "x")
    )
    return path, pixels


def cut_of(path):
    (stack,) = gpu_patch.open_images(path, device="cpu", by_chunk=True).image_stacks
    return Cut.of(stack, (16, 16))


def test_contenders_cut_the_same_patches(image):
    path, pixels = image
    cut = cut_of(path)
    batches = [[Place(2, (5, 7)), Place(0, (484, 584))], [Place(1, (0, 100))]]
    expected = [
        np.stack([pixels[s, :, y : y + 16, x : x + 16] for s, (y, x) in batch]) for batch in batches
    ]
    dataset = from_files.Patches(cut, [place for batch in batches for place in batch])
    np.testing.assert_array_equal(
        [dataset[i] for i in range(len(dataset))], np.concatenate(expected)
    )
    pytest.importorskip("tensorstore")
    found = list(from_files.tensorstore_loop(cut, 10**6, batches))
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_array_equal(ours, theirs)


def test_what_is_no_array_of_zarr_is_not_cut(tmp_path):
    images = gpu_patch.open_images(np.zeros((200, 300), np.uint8), "YX", device="cpu")
    with pytest.raises(ValueError, match="no folder of Zarr"):
        Cut.of(images.image_stacks[0], (16, 16))
    folder = tmp_path / "ome.zarr"
    write_ome_zarr(folder, numbered("CYX", Y=100, X=100), "CYX")
    assert cut_of(folder).axes == "CYX"


def test_each_contender_has_a_row_or_says_why_not(image, monkeypatch):
    path, pixels = image
    monkeypatch.setattr(by_chunk, "SCALES", (0, 2))
    monkeypatch.setattr(by_chunk, "data_loader", lambda cut, batches, n, limit: (len(batches), 2.0))
    found = []
    by_chunk.serve({"by_chunk": str(path), "quick": True}, found.append)
    machine, *rows = found
    assert machine["image_bytes"] == pixels.nbytes == 4 * machine["budget_bytes"]
    assert [(row["name"], row["n_scales"]) for row in rows] == [
        *((name, 0) for name in NAMES),
        *((name, 2) for name in NAMES[:2]),
    ]
    for row in rows:
        if row["name"] == "tensorstore loop" and find_spec("tensorstore") is None:
            assert "tensorstore" in row["skipped"]
        else:
            assert row.get("patches_per_second", 0) > 0, row
    for paged in (rows[1], rows[-1]):
        assert paged["bytes_read"] >= pixels.nbytes
        assert 0 <= paged["waited_share"] <= 1


@pytest.fixture
def measured(monkeypatch):
    asked = []

    def measured(settings):
        asked.append(settings)
        yield MACHINE
        more = {"bytes_read": 4400, "megabytes_per_second": 5.0, "waited_share": 0.25}
        for n_scales in (0, 2):
            yield {"n_scales": n_scales, "name": "resident", "patches_per_second": 1000.0}
            speed = {"patches_per_second": 400.0 + n_scales, "n_strips": 6}
            yield {"n_scales": n_scales, "name": "paged", **speed, **more}
        yield {"n_scales": 0, "name": "torch DataLoader", "skipped": "it needs torch"}

    monkeypatch.setattr(by_chunk_table, "measured", measured)
    return asked


def test_the_command(image, measured, tmp_path, capsys):
    path, _ = image
    file = tmp_path / "bench.json"
    assert main(["bench", "--by-chunk", str(path), "--json", str(file)]) == 0
    assert measured == [{"device": "cpu", "by_chunk": str(path), "quick": False}]
    table = capsys.readouterr().out.splitlines()
    assert next(row for row in table if row.startswith("paged  ")).split() == [
        *("paged", "-", "400", "0.40", "1.10", "5", "25.0%", "6")
    ]
    assert any(row.endswith("not measured: it needs torch") for row in table)
    assert len(json.loads(file.read_text())["rows"]) == 5
    assert main(["bench", "--by-chunk"]) == 0
    assert measured[1]["by_chunk"] == ""


def test_what_goes_with_it(image, measured, tmp_path, capsys):
    path, _ = image
    assert main(["bench", "--by-chunk", str(path), "--scales", "2"]) == 2
    assert "argument --by-chunk: goes without --scales" in capsys.readouterr().err
    assert main(["bench", "--by-chunk", str(tmp_path / "none")]) == 2
    assert "argument --by-chunk: there is no" in capsys.readouterr().err
    assert measured == []


def test_the_picture(measured, tmp_path):
    pytest.importorskip("matplotlib")
    from gpu_patch.plots import plot_by_chunk

    bars, curves = plot_by_chunk(by_chunk_table.report({})).axes
    assert [bar.get_width() for bar in bars.patches] == [400, 1000]  # from below
    assert [text.get_text() for text in bars.get_yticklabels()] == ["paged", "resident"]
    assert [line.get_ydata().tolist() for line in curves.lines] == [[400, 402], [1000, 1000]]
    file = tmp_path / "bench.png"
    assert main(["bench", "--by-chunk", "--plot", str(file)]) == 0
    assert file.stat().st_size > 10_000
