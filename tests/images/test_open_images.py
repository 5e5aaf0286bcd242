"""open_images: what it takes, what it says, and what it leaves behind."""

import gc
import re
import shutil
import sys
import threading
import weakref
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from emulation import fake_cupy
from emulation.gpu import gpu
from formats import canonical, numbered, write_ome_zarr

from gpu_patch import ImageStack, open_images, residency
from gpu_patch.images import budget, loading, opener, opening
from gpu_patch.images.agreement import check_agreement
from gpu_patch.images.budget import make_budget
from gpu_patch.images.readers import ImageInfo, ImageReader, Options, open_file

tifffile = pytest.importorskip("tifffile")


@pytest.fixture(autouse=True)
def _nothing_stays(monkeypatch):
    monkeypatch.setenv("GPU_PATCH_DEVICE", "cpu")
    gc.collect()
    assert not residency().stacks


@pytest.fixture
def folder(tmp_path):
    """Three images of one number of channels, and what is no image."""
    for i, name in enumerate(("b.tif", "a.tif")):
        tifffile.imwrite(tmp_path / name, numbered("TCYX") + i, imagej=True,
                         metadata={"axes": "TCYX"})  # fmt: skip
    (tmp_path / "notes.txt").write_text("words")
    (tmp_path / ".hidden.tif").write_text("words")
    return tmp_path


def names(extractor):
    return [str(stack.source).rpartition("/")[2] for stack in extractor.image_stacks]


def test_a_folder_a_pattern_and_a_list(folder):
    assert names(open_images(folder)) == ["a.tif", "b.tif"]
    assert names(open_images(str(folder / "*.tif"))) == ["a.tif", "b.tif"]
    assert names(open_images([folder / "b.tif", str(folder / "a.tif")])) == ["b.tif", "a.tif"]
    assert names(open_images((str(folder / "?.tif"), folder / "b.tif"))) == [
        "a.tif",
        "b.tif",
    ]
    first = open_images(folder).image_stacks[0]
    assert np.array_equal(first.data, numbered("TCYX") + 1)
    assert (first.original_axes, first.original_data_shape) == ("TCYX", (3, 2, 37, 53))


def test_zarr_images_of_a_folder_are_files(tmp_path):
    pytest.importorskip("zarr")
    for name in ("b.zarr", "a"):
        write_ome_zarr(tmp_path / name, numbered("CYX"), "CYX")
    assert names(open_images(tmp_path)) == ["a", "b.zarr"]
    stack = open_images(tmp_path / "a", level=1).image_stacks[0]
    assert np.array_equal(stack.data[0], numbered("CYX")[:, ::2, ::2])
    assert stack.metadata["additional_metadata"] == {"physical_sizes": {"Y": 0.13, "X": 0.13}}


def test_name_with_the_characters_of_a_pattern(tmp_path):
    tifffile.imwrite(tmp_path / "a[1].tif", numbered("YX"))
    assert names(open_images(tmp_path / "a[1].tif")) == ["a[1].tif"]


def test_arrays_are_taken_as_they_are():
    data = numbered("TCYX")
    found = open_images([data, data[:1]], "TCYX")
    assert found.shapes == [(3, 2, 37, 53), (1, 2, 37, 53)]
    assert np.shares_memory(found.image_stacks[0].data, data)
    assert open_images(data[0, 0], "YX").shapes == [(1, 1, 37, 53)]
    # they take no more memory
    assert open_images(data, "TCYX", memory_budget=1).shapes == [(3, 2, 37, 53)]
    with pytest.raises(MemoryError, match=r"need 23\.5 kB on cpu, but may take 1 B"):
        open_images(data, "CTYX", memory_budget=1, by_chunk=False)


class Lazy:
    """What h5py and others give: an array that is read by slices."""

    def __init__(self, data):
        self.data, self.shape, self.dtype, self.largest = data, data.shape, data.dtype, 0

    def __getitem__(self, key):
        assert all(isinstance(part, slice) for part in key)
        self.largest = max(self.largest, self.data[key].size)
        return self.data[key]


def test_arrays_of_other_packages_are_read_in_pieces(monkeypatch):
    monkeypatch.setattr(loading, "_PIECE_BYTES", 2000)
    lazy = Lazy(numbered("CTYX"))
    found = open_images(lazy, "CTYX").image_stacks[0]
    assert np.array_equal(found.data, canonical(lazy.data, "CTYX"))
    assert lazy.largest <= 1000


@pytest.mark.parametrize("nbytes", [1, 300, 10_000, 10**9])
@pytest.mark.parametrize("chunk", [(1, 1, 1, 1, 1), (2, 1, 3, 10, 20), (1, 2, 4, 37, 53)])
def test_pieces_are_of_whole_chunks_and_cover_the_image(nbytes, chunk):
    data = numbered("TCZYX")
    info = ImageInfo("a", "made", data.shape, "TCZYX", data.dtype, chunk)
    seen = np.zeros(info.canonical_shape, int)
    for region in loading.pieces(info, nbytes):
        seen[region] += 1
        for part, n, length in zip(region, chunk, info.canonical_shape, strict=True):
            assert part.start % n == 0
            assert part.stop % n == 0 or part.stop == length
        assert seen[region].size * 2 <= max(nbytes, np.prod(chunk) * 2)
    assert (seen == 1).all()


def test_function_of_the_user(folder):
    seen = []

    def read(path):
        seen.append(path.name)
        return numbered("YX")

    assert names(open_images(folder, "YX", read_func=read)) == ["a.tif", "b.tif", "notes.txt"]
    assert seen == ["a.tif", "b.tif", "notes.txt"]
    with pytest.raises(ValueError, match=r"notes\.txt does not say its axes.*axes='YX'\?"):
        open_images(folder / "notes.txt", read_func=read)
    with pytest.raises(ZeroDivisionError) as caught:
        open_images(folder / "notes.txt", "YX", read_func=lambda path: 1 / 0)
    assert "notes.txt" in caught.value.__notes__[0]


@pytest.mark.parametrize(
    ("shape", "guesses"),
    [
        ((5, 3, 512, 512), "axes='SCYX' or 'TCYX' or 'TZYX'?"),
        ((30, 64, 64), "axes='ZYX' or 'TYX'?"),
        ((64, 64, 3), "axes='YXC' or"),
        ((64, 64), "axes='YX'?"),
        ((2, 3, 20, 64, 64), "axes='SCZYX' or 'TCZYX'?"),
        ((2,) * 7, "one letter of 'STCZYX' per axis"),
    ],
)
def test_unknown_axes_are_guessed(tmp_path, shape, guesses):
    np.save(tmp_path / "a.npy", np.zeros(shape, np.uint8))
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        open_images(tmp_path / "a.npy")
    assert str(tmp_path / "a.npy") in str(caught.value)
    assert str(shape) in str(caught.value)
    assert guesses in str(caught.value)


@pytest.mark.parametrize(
    ("images", "error", "words"),
    [
        ([], ValueError, "images is empty"),
        (None, TypeError, "images must be a path, an array or a sequence of them, found None"),
        (5, TypeError, "found 5"),
        ("nothing.tif", FileNotFoundError, "nothing.tif"),
        ("*.nothing", FileNotFoundError, r"no file matches '\*.nothing'"),
        ("empty", FileNotFoundError, "the folder 'empty' has no image in it"),
        (["x.tif", None], TypeError, "found None"),
    ],
)
def test_nothing_to_open(tmp_path, monkeypatch, images, error, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(error, match=words):
        open_images(images)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"axes": "CYX"}, ValueError, r"a\.tif: axes must name every axis.*\(3, 2, 37, 53\)"),
        ({"axes": "tcyq"}, ValueError, r"a\.tif: axes may have the letters 'STCZYX'"),
        ({"axes": 5}, TypeError, "axes must be a string"),
        ({"level": 1}, ValueError, r"a\.tif has no level 1"),
        ({"level": -1}, ValueError, "level must be a whole number of at least 0"),
        ({"scene": "nuclei"}, ValueError, r"a\.tif has no scene 'nuclei'"),
        ({"memory_budget": 1000, "by_chunk": False}, MemoryError,
         r"2 image\(s\) need 47\.1 kB on cpu, but may take 1\.0 kB, .* are free.*a\.tif"),
        ({"memory_budget": 0.0}, ValueError, r"memory_budget must be .* found 0\.0"),
        ({"memory_budget": 1.5}, ValueError, r"a fraction in \(0, 1\]"),
        ({"memory_budget": -5}, ValueError, "memory_budget must be a whole number"),
        ({"device": "toaster"}, ValueError, "device must be"),
    ],
)  # fmt: skip
def test_wrong_options(folder, options, error, words):
    with pytest.raises(error, match=words):
        open_images(folder, **options)
    assert not residency().stacks


@pytest.mark.parametrize(
    ("module", "name", "extra"),
    [
        ("tifffile", "a.tif", r"tifffile: pip install 'gpu_patch\[io\]'"),
        ("zarr", "a.zarr", r"zarr 3: pip install 'gpu_patch\[io\]'"),
        ("pylibCZIrw", "a.czi", r"pylibCZIrw: pip install 'gpu_patch\[czi\]'"),
        ("liffile", "a.lif", r"liffile: pip install 'gpu_patch\[lif\]'"),
        ("nd2", "a.nd2", r"nd2: pip install 'gpu_patch\[nd2\]'"),
        ("PIL", "a.png", r"Pillow: pip install 'gpu_patch\[io\]'"),
    ],
)
def test_missing_package_is_asked_for_by_name(tmp_path, monkeypatch, module, name, extra):
    for found in [n for n in sys.modules if n.partition(".")[0] == module]:
        monkeypatch.setitem(sys.modules, found, None)
    monkeypatch.setitem(sys.modules, module, None)
    if name == "a.zarr":
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_bytes(b"any")
    with pytest.raises(ImportError, match=extra):
        open_images(tmp_path / name)


@pytest.mark.parametrize("dtype", ["int32", "uint32", "int64"])
def test_warning_names_the_file_where_integers_lose_precision(tmp_path, dtype):
    data = numbered("YX", dtype)
    np.save(tmp_path / "a.npy", data)
    assert np.array_equal(open_images(tmp_path / "a.npy", "YX").image_stacks[0].data[0, 0], data)
    data[3, 4] = 2**24 + 1
    np.save(tmp_path / "a.npy", data)
    with pytest.warns(UserWarning, match=r"a\.npy: .*beyond 2\^24.* lose precision.*labels=True"):
        open_images(tmp_path / "a.npy", "YX")


def test_complex_data_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((3, 4), complex))
    with pytest.raises(TypeError, match=r"a\.npy: data must be real, found complex128"):
        open_images(tmp_path / "a.npy", "YX")


@pytest.mark.parametrize(
    ("given", "limit"),
    [
        ("5000", 5000),
        ("1.5kB", 1500),
        ("8GB", 8 * 10**9),
        ("8 GiB", 8 * 2**30),
        ("2tib", 2**41),
        ("8G", 8 * 10**9),
        (".5Gi", 2**29),
        ("1e9", 10**9),
        ("1.5e3", 1500),
        ("9007199254740993", 2**53 + 1),
        ("0.25", 250),
        (0.25, 250),
        (5000, 5000),
    ],
)
def test_budgets(given, limit, monkeypatch):
    monkeypatch.setattr(budget, "free_host_bytes", lambda: 1000)
    assert make_budget("cpu", given).limit == limit


@pytest.mark.parametrize(
    "given",
    ["", "GB", "8 apples", "8i", "8Q", "-1", "1e-1", "1e40", "1e400", "2.0", "0", "0kB"],
)
def test_wrong_budgets(given):
    with pytest.raises(ValueError, match="memory_budget must be "):
        make_budget("cpu", given)


def test_images_must_agree_in_channels(folder, monkeypatch):
    """Before anything is loaded; those that differ are named, and a pattern for the others."""
    pillow = pytest.importorskip("PIL.Image")
    monkeypatch.setattr(ImageReader, "select", lambda *_: pytest.fail("it read pixels"))
    pillow.new("L", (9, 8)).save(folder / "c.png")
    expected = re.escape(
        f"images must agree in channels: '{folder / 'a.tif'}' has 2, '{folder / 'c.png'}' has 1. "
        f"Give the pattern '{folder / '*.tif'}' to leave others out"
    )
    with pytest.raises(ValueError, match=expected):
        open_images(folder)
    gc.collect()
    assert not residency().stacks


@pytest.mark.parametrize("wanted", [True, False])
def test_progress(folder, monkeypatch, wanted):
    seen = []

    class Bar:
        def __init__(self, **options):
            seen.append((options["total"], options["desc"]))

        def __enter__(self):
            return self

        def __exit__(self, *_):
            seen.append("closed")

        def update(self, n):
            seen.append(n)

    monkeypatch.setitem(sys.modules, "tqdm.auto", SimpleNamespace(tqdm=Bar))
    nbytes = numbered("TCYX").nbytes
    open_images([folder, numbered("TCYX")], "TCYX", progress=wanted)
    first, *steps, last = seen or [None, None]
    if wanted:
        assert first == (3 * nbytes, "reading 3 images")
        assert sum(steps) == 3 * nbytes
        assert last == "closed"
    else:
        assert not seen


def test_without_tqdm_there_is_no_bar(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    assert len(open_images(folder).image_stacks) == 2


def test_onto_a_device_in_pieces(folder, monkeypatch):
    monkeypatch.setattr(loading, "_PIECE_BYTES", 9000)
    with fake_cupy.installed():
        found = open_images(folder, device="cuda")
        assert found.device == "cuda:0"
        assert np.array_equal(found.image_stacks[0].data.get(), numbered("TCYX") + 1)
        uploads = [action.what for action in gpu.log if action.kind == "upload"]
        assert sum(uploads) == 2 * numbered("TCYX").nbytes
        assert max(uploads) <= 9000
        # arrays that are there already stay there
        here = found.image_stacks[0].data
        again = open_images([here, here], "SCYX")
        assert again.device == "cuda:0"
        assert again.image_stacks[0].data.data.ptr == here.data.ptr
        with pytest.raises(ValueError, match="must agree in device"):
            open_images([here, numbered("TCYX")], "SCYX")


@pytest.mark.parametrize(
    ("room", "name"),
    [
        pytest.param(0.5, "a.tif", id="not for an image"),
        pytest.param(1.5, "b.tif", id="for one image alone"),
    ],
)
def test_full_device(folder, room, name):
    with fake_cupy.installed():
        data = numbered("TCYX")
        gpu.capacity = 3 * data.nbytes
        with pytest.raises(MemoryError, match=r"need 47\.1 kB on cuda:0, .* 70\.6 kB are free"):
            open_images(folder, device="cuda", memory_budget=0.5, by_chunk=False)
        before = gpu.used_bytes()
        gpu.capacity = int(room * data.nbytes)
        with pytest.raises(MemoryError, match="cuda:0 has no room for") as caught:
            open_images(folder, device="cuda", memory_budget=10**9)
        assert not residency().stacks  # while the error and its traceback are alive
        gpu.finish()
        assert gpu.used_bytes() == before
        assert str(folder / name) in str(caught.value)


def damage_the_pixels(path):
    """Damage that shows only where the pixels are read."""
    options = {"compression": "zlib", "photometric": "minisblack", "metadata": {"axes": "TCYX"}}
    tifffile.imwrite(path, numbered("TCYX"), **options)
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[5]
        at = page.dataoffsets[0] + page.databytecounts[0] // 2
    content = bytearray(path.read_bytes())
    content[at] ^= 0x55
    path.write_bytes(content)


class Watched(np.ndarray):
    """Arrays that somebody can count."""


def test_no_memory_is_held_by_an_error(folder, monkeypatch):
    alive, make = [], np.empty

    def empty(*arguments, **options):
        array = make(*arguments, **options).view(Watched)
        alive.append(weakref.ref(array))
        return array

    damage_the_pixels(folder / "b.tif")
    monkeypatch.setattr(np, "empty", empty)
    with pytest.raises(ValueError, match=r"b\.tif") as caught:
        open_images(folder)
    monkeypatch.undo()
    assert not residency().stacks
    assert len(alive) >= 2  # of both images
    assert not [ref for ref in alive if ref() is not None]
    assert caught.value.__traceback__ is not None


def is_closed(reader):
    return reader._opened.closed


def test_small_files_are_read_by_threads_in_order(tmp_path, monkeypatch):
    threads, read, seen = [], ImageReader.select, []
    both = threading.Barrier(2, timeout=60)

    def watched_select(reader, key):
        threads.append(threading.current_thread())
        if len(threads) <= 2:
            both.wait()  # one waits for the other, which must be here then
        return read(reader, key)

    monkeypatch.setattr(ImageReader, "select", watched_select)
    monkeypatch.setattr(opening, "progress_bar", lambda *_, **__: nullcontext(seen.append))
    paths = [tmp_path / f"{i}.tif" for i in (4, 2, 7, 0, 5, 1, 3)]
    for i, path in enumerate(paths):
        tifffile.imwrite(path, np.full((i + 3, 5), i, np.uint16))
    images = open_images(paths, "YX", device="cpu")
    assert [stack.source for stack in images.image_stacks] == paths
    for i, stack in enumerate(images.image_stacks):
        assert stack.data_shape == (1, 1, i + 3, 5)
        assert (stack.data == i).all()
    assert len(seen) == len(paths)
    assert sum(seen) == sum(stack.nbytes for stack in images.image_stacks)
    assert threading.main_thread() not in threads


def test_images_of_one_file_are_read_by_one_thread(tmp_path, monkeypatch):
    threads, read = [], ImageReader.select

    def watched_select(reader, key):
        threads.append(threading.current_thread())
        return read(reader, key)

    monkeypatch.setattr(ImageReader, "select", watched_select)
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as file:
        for i in range(3):
            file.write(np.full((6, 5 + i), i, np.uint16), metadata={"axes": "YX"})
    images = open_images(tmp_path / "a.ome.tif", scene="all")
    assert [int(stack.data.max()) for stack in images.image_stacks] == [0, 1, 2]
    assert set(threads) == {threading.main_thread()}


def test_files_are_closed_soon(folder, monkeypatch):
    readers, n_open = [], []
    open_file, select = opener.open_file, ImageReader.select

    def watched_open(*arguments):
        readers.extend(found := open_file(*arguments))
        return found

    def watched_select(reader, key):
        found = select(reader, key)
        n_open.append(sum(not is_closed(other) for other in readers))
        return found

    monkeypatch.setattr(opener, "open_file", watched_open)
    monkeypatch.setattr(ImageReader, "select", watched_select)
    for i in range(6):
        shutil.copy(folder / "a.tif", folder / f"c{i}.tif")
    open_images(folder)
    assert len(n_open) == 8
    assert max(n_open) <= loading._THREADS
    assert all(map(is_closed, readers))
    damage_the_pixels(folder / "b.tif")
    with pytest.raises(ValueError, match=r"b\.tif cannot be read as a TIFF"):
        open_images(folder)
    assert all(map(is_closed, readers))


def test_each_file_is_looked_at_once(folder, monkeypatch):
    """To find its set, to describe it and to read it."""
    parsed, make = [], tifffile.TiffFile.__init__

    def watched(tiff, file, *arguments, **options):
        parsed.append(Path(file).name)
        make(tiff, file, *arguments, **options)

    monkeypatch.setattr(tifffile.TiffFile, "__init__", watched)
    open_images(folder)
    assert parsed == ["a.tif", "b.tif"]


def test_from_reader_reads_what_was_described(folder):
    (reader,) = open_file(folder / "a.tif", Options())
    seen = []
    with reader:
        stack = ImageStack.from_reader(reader, device="cpu", progress=seen.append)
    assert sum(seen) == stack.nbytes == reader.info.nbytes
    assert stack.data_shape == reader.info.canonical_shape


@pytest.mark.parametrize("usual", [["a/0.tif", "b/1.tif"], ["a/0.TIF", "a/1.tif"]])
def test_no_pattern_is_named_that_would_lose_images(usual):
    with pytest.raises(ValueError, match=r"'c\.png' has 3\. Give those alone that belong together"):
        check_agreement([*usual, "c.png"], [(1, 1, 8, 8)] * 2 + [(1, 3, 8, 8)])
