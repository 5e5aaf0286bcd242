"""Which library computes: the best that there is, NumPy where there is none, and why."""

from __future__ import annotations

import ctypes
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cases import Case

from gpu_patch import ops
from gpu_patch._host import arguments, build, library
from gpu_patch.table import PIXEL_TYPES


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.delenv(library.VARIABLE, raising=False)
    library.find.cache_clear()
    yield
    library.find.cache_clear()


@pytest.fixture
def installed(compiled):
    """The level of a library that is there."""
    return compiled.level


def chosen(monkeypatch, value=None):
    """What a new process would choose."""
    if value is not None:
        monkeypatch.setenv(library.VARIABLE, value)
    return library.find.__wrapped__()


needs_library = pytest.mark.skipif(
    not any(build.library_path(level).exists() for level in library.build.LEVELS["x86_64"]),
    reason="not compiled: python -m gpu_patch._host",
)


@needs_library
def test_the_best_that_the_processor_has(monkeypatch):
    found = chosen(monkeypatch)
    assert found.library.level == library.supported()[0]
    assert found.reason == ""


@needs_library
def test_another_where_the_processor_has_no_better(monkeypatch):
    monkeypatch.setattr(library, "supported", lambda: ("x86-64-v3",))
    assert chosen(monkeypatch).library.level == "x86-64-v3"
    monkeypatch.setattr(library, "supported", lambda: ())
    found = chosen(monkeypatch)
    assert found.library is None
    assert "this processor has none of x86-64-v4, x86-64-v3" in found.reason


def test_the_variable_asks_for_numpy(monkeypatch):
    found = chosen(monkeypatch, "numpy")
    assert found == (None, "GPU_PATCH_CPU is numpy")


def test_a_wrong_variable_is_named(monkeypatch):
    with pytest.raises(ValueError, match=r"GPU_PATCH_CPU must be one of numpy, .*found 'fast'"):
        chosen(monkeypatch, "fast")


@needs_library
def test_the_variable_asks_for_an_instruction_set(monkeypatch):
    assert chosen(monkeypatch, "x86-64-v3").library.level == "x86-64-v3"
    monkeypatch.setattr(library, "supported", lambda: ("x86-64-v3",))
    with pytest.raises(ValueError, match="x86-64-v4, which this processor does not have"):
        chosen(monkeypatch, "x86-64-v4")


def test_without_libraries_numpy_computes(monkeypatch, tmp_path):
    monkeypatch.setattr(build, "library_path", lambda name, *_: tmp_path / name)
    found = chosen(monkeypatch)
    assert found.library is None
    assert "python -m gpu_patch._host" in found.reason


@needs_library
@pytest.mark.parametrize("what", ["digest", "damaged", "sizes"])
def test_a_library_of_something_else_is_not_used(monkeypatch, tmp_path, what):
    if what == "digest":
        monkeypatch.setattr(build, "digest", lambda: "0123456789abcdef")
    elif what == "sizes":
        empty = type("Job", (ctypes.Structure,), {"_fields_": []})
        monkeypatch.setattr(library, "_STRUCTURES", (empty, *library._STRUCTURES[1:]))
    else:
        for level in build.LEVELS["x86_64"]:
            (tmp_path / level).write_bytes(b"no library")
        path = build.library_path
        monkeypatch.setattr(
            build, "library_path", lambda n, *_: path(n) if n == "probe" else tmp_path / n
        )
    found = chosen(monkeypatch)
    assert found.library is None
    words = {"digest": "other sources", "damaged": "", "sizes": "records of"}[what]
    assert words in found.reason
    assert found.reason


def test_it_is_of_these_sources(compiled):
    """After a change of the sources: python -m gpu_patch._host."""
    assert compiled._functions.source_digest().decode() == build.digest()


def test_it_travels_as_its_path(compiled):
    assert pickle.loads(pickle.dumps(compiled)).level == compiled.level


def test_numpy_serves_sizes_that_integers_would_not_hold():
    assert arguments.serves((1 << 20, 3), (64, 64), 5)
    for shape, patch, n_scales in [
        ((1, 1), (1, 1 << 26), 5),
        ((1, 1), (1, 1), 31),
        ((1, 1), (0, 5), 1),
        ((1, 1), (-1, 5), 1),
        ((1 << 30, 1 << 10), (1 << 12, 1 << 12), 1),
        ((1, 1 << 15), (2, 2), 1),
    ]:
        assert not arguments.serves(shape, patch, n_scales)


def test_places_beyond_64_bits_are_refused(compiled):
    case = Case.random(0, (4, 4), 2, "reflect")
    sources = case.sources._replace(coords=case.sources.coords + 2**57)
    with pytest.raises(ValueError, match="must be within"):
        ops.gather(case.images, sources, (4, 4))


def test_batches_of_nothing(compiled):
    case = Case.random(0, (4, 5), 2, "reflect", n_samples=1)
    empty = case.sources._replace(
        image_idx=case.sources.image_idx[:0],
        sample_idx=case.sources.sample_idx[:0],
        coords=case.sources.coords[:0],
    )
    assert ops.gather(case.images, empty, (4, 5)).shape == (0, 2, 4, 5)
    made, target = ops.lateral_context(
        case.images, empty, np.ones((0, 2), np.float32), (4, 5), 2, mode="reflect"
    )
    assert (made.shape, target.shape) == ((0, 2, 4, 5), (0, 2, 4, 5))


def test_types_are_in_the_order_of_the_kernels():
    names = [str(dtype) for dtype in PIXEL_TYPES]
    assert names[:7] == ["bool", "uint8", "int8", "uint16", "int16", "float16", "float32"]
    assert names[7:] == ["int32", "uint32", "int64", "uint64"]


def test_a_boolean_is_one_whatever_its_byte(compiled):
    image = np.arange(40, dtype=np.uint8).reshape(1, 1, 5, 8).view(bool)
    sources = Case.random(0, (5, 8), 1, "reflect", n_channels=1, n_samples=1).sources
    sources = sources._replace(
        image_idx=np.array([[0]]), sample_idx=np.array([[0]]), coords=np.array([[[0, 0]]]),
        channels=np.array([0]),
    )  # fmt: skip
    found = ops.gather([image], sources, (5, 8))
    np.testing.assert_array_equal(found[0, 0], np.arange(40).reshape(5, 8) > 0)


@pytest.mark.skipif(not build.compilers(), reason="needs a C++ compiler")
def test_the_command_compiles(tmp_path):
    """As a file, without the package and NumPy."""
    text = "import sys; sys.path.insert(0, sys.argv[1])\nimport build, pathlib\n"
    text += "paths, by = build.build_with_any(pathlib.Path(sys.argv[2]))\nprint(by)\n"
    text += "assert 'numpy' not in sys.modules; sys.exit(not paths)"
    folder = str(Path(build.__file__).parent)
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-c", text, folder, str(tmp_path)],
        capture_output=True, text=True, check=False, env={**os.environ},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    names = {path.name for path in tmp_path.iterdir()}
    assert {build.library_path(level).name for level in build.LEVELS[build.machine()]} <= names


def test_zig_links_all_libraries_for_one_processor(tmp_path):
    """It makes a C++ library for each processor that it links for, which takes minutes."""
    log, zig = tmp_path / "log", tmp_path / "zig.py"
    zig.write_text(f"""import sys
with open({str(log)!r}, "a") as log:
    print(*sys.argv, file=log)
if "-fno-unswitch-loops" in sys.argv:
    sys.exit("unknown flag")
open(sys.argv[sys.argv.index("-o") + 1], "w")
""")
    command = [sys.executable, str(zig), "ziglang"]
    paths = build.build(tmp_path / "out", command, architecture="x86_64")
    assert set(paths) == set((tmp_path / "out").iterdir())
    calls = [line.split() for line in log.read_text().splitlines()]
    compiled = {word for words in calls if "-c" in words for word in words if "march" in word}
    assert compiled == {"-march=x86_64_v4", "-march=x86_64_v3"}
    linked = [words for words in calls if "-c" not in words and "-fno-unswitch-loops" not in words]
    assert len(linked) == len(paths) == 3
    assert not any("march" in word for words in linked for word in words)
    assert all("-mcpu=baseline" in words for words in linked)


def test_without_a_compiler_it_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(build, "compilers", list)
    assert build.build_with_any(tmp_path) == (
        [], "there is no C++ compiler, and no ziglang from PyPI"
    )  # fmt: skip
    monkeypatch.setattr(build, "compilers", lambda: [["false"]])
    paths, why = build.build_with_any(tmp_path)
    assert paths == []
    assert "false" in why


def test_mutants_fit_the_sources(monkeypatch):
    """Each edit changes a file; that each is noticed, `host_mutants.py` shows."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    from host_mutants import load

    assert len(load()) > 20
    for name, (file, before, after) in load().items():
        assert before in (build.HERE / file).read_text(), name
        assert before != after
