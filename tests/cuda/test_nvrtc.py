"""All kernels compile for all architectures, without warnings; the fast path without spills."""

from __future__ import annotations

import re
from collections import Counter
from itertools import chain

import numpy as np
import nvrtc
import pytest

from gpu_patch._cuda import precompile
from gpu_patch._cuda.lateral_context import N_THREADS
from gpu_patch._cuda.loader import source_text
from gpu_patch._cuda.specialised import SHARED_BYTES
from gpu_patch.table import PAGED, PIXEL_TYPES

pytestmark = pytest.mark.skipif(
    nvrtc.library() is None, reason=f"needs the wheel {nvrtc.WHEEL} (no GPU, no driver)"
)

SPECIALISED = nvrtc.main_specialisations()
EPILOGUES = pytest.mark.parametrize("epilogue", [{}, {"EPILOGUE": 1}], ids=["plain", "epilogue"])


N_TURNS = 3
"""Each kernel that is compiled ahead is looked at for every third architecture."""


@pytest.fixture
def every_architecture(request):
    """Whether to compile each kernel for each architecture, which takes many minutes."""
    return request.config.getoption("--every-architecture")


def architectures() -> list[int]:
    if nvrtc.library() is None:
        return []
    known = nvrtc.architectures()
    return sorted({a for a in nvrtc.CHECKED if a in known} | {known[-1]})


def compiled(name: str, constants: dict[str, int], architecture: int) -> nvrtc.Report:
    report = nvrtc.compile_text(source_text(name, constants), name, architecture)
    assert "warning" not in report.log.lower(), report.log
    return report


@EPILOGUES
@pytest.mark.parametrize("architecture", architectures())
def test_general_kernels_compile(architecture, epilogue):
    for name, constants in (
        ("gather", {}),
        ("gather", {"INTEGER_BYTES": 1}),
        ("gather", {"INTEGER_BYTES": 8}),
        ("lateral_context", {"N_THREADS": N_THREADS}),
    ):
        report = compiled(name, constants | epilogue, architecture)
        # 13.5 spills one register for sm_121, where another block at a time is worth more
        assert report.spill_bytes <= (0 if nvrtc.version().startswith("12.") else 32), report.log
        assert report.registers <= 128


@pytest.mark.parametrize("architecture", architectures())
@pytest.mark.parametrize(("exclusive", "registers"), [({"EXCLUSIVE": 1}, 64), ({}, 128)])
def test_stitching_compiles(architecture, exclusive, registers):
    for dtype in ("float16", "float32"):
        constants = {"TILE_TYPE": PIXEL_TYPES[np.dtype(dtype)]} | exclusive
        report = compiled("stitch", constants, architecture)
        assert report.spill_bytes == report.stack_bytes == 0, report.log
        assert report.registers <= registers


@pytest.mark.parametrize("architecture", architectures())
def test_sums_compile(architecture):
    for squares in (0, 1):
        constants = {"TILE_TYPE": PIXEL_TYPES[np.dtype(np.float32)], "SUMS": 1 + squares}
        report = compiled("stitch", constants, architecture)
        assert report.spill_bytes == report.stack_bytes == 0, report.log
        assert report.registers <= 128
        report = compiled("means", {"SQUARES": squares}, architecture)
        assert report.spill_bytes == report.stack_bytes == 0, report.log
        assert report.registers <= 64


@pytest.mark.parametrize("architecture", architectures())
def test_moments_compile(architecture):
    for dtype in ("float16", "float32"):
        report = compiled("moments", {"VALUE_TYPE": PIXEL_TYPES[np.dtype(dtype)]}, architecture)
        assert report.spill_bytes == report.stack_bytes == 0, report.log
        assert report.registers <= 64


@pytest.mark.parametrize("architecture", architectures())
def test_answers_and_quantiles_compile(architecture):
    texts = [
        ("answer", {"OUT_TYPE": PIXEL_TYPES[np.dtype(dtype)], "ARGMAX": argmax})
        for dtype in ("uint8", "int16", "float16", "float32")
        for argmax in range(2 if dtype[0] != "f" else 1)
    ]
    for name, constants in [*texts, ("quantiles", {})]:
        report = compiled(name, constants, architecture)
        assert report.spill_bytes == report.stack_bytes == 0, report.log
        assert report.registers <= 64


@EPILOGUES
@pytest.mark.parametrize("architecture", architectures())
@pytest.mark.parametrize("name", SPECIALISED)
def test_fast_path_keeps_to_registers(name, architecture, epilogue, every_architecture):
    shape = SPECIALISED[name]
    tables = sorted({0, shape.most_records(1, bool(epilogue))})  # uploaded, in parameters
    if architecture != 90 and not every_architecture:  # one of them, in turn
        number = list(SPECIALISED).index(name) + architectures().index(architecture) + len(epilogue)
        tables = [tables[number % len(tables)]]
    for most_records in tables:
        macros = shape.macros(bool(epilogue), most_records)
        report = compiled("specialised", macros, architecture)
        assert report.spill_bytes == report.stack_bytes == 0, report.log
        # of 64 K registers: common cases have room for 20 warps at a time, others for 16, all for 8
        few, many = shape.n_channels <= 2 and shape.n_places == 1, shape.n_places > 2
        assert report.registers <= (96 if few else 255 if many else 128)
    assert shape.shared_bytes <= SHARED_BYTES


@pytest.mark.parametrize(
    "name", ["2D C2 L4, own places", "3D C2 L3 uint16", "3D C2 L3, own places"]
)
def test_fast_path_of_pages_does_not_spill(name):
    shape = nvrtc.main_specialisations(paged=True)[name]
    report = compiled("specialised", shape.macros(True, 0), 90)
    assert report.spill_bytes == report.stack_bytes == 0, report.log
    assert report.registers <= 128
    assert shape.shared_bytes <= SHARED_BYTES


def test_general_kernels_of_pages_do_not_spill():
    for name, constants in (("gather", {}), ("lateral_context", {"N_THREADS": N_THREADS})):
        report = compiled(name, constants | PAGED | {"EPILOGUE": 1}, 90)
        assert report.spill_bytes == report.stack_bytes == 0, report.log
        assert report.registers <= 128


@pytest.mark.parametrize("architecture", precompile.ARCHITECTURES)
def test_what_is_compiled_ahead_does_not_spill(architecture, every_architecture):
    if int(architecture) not in nvrtc.architectures():
        pytest.skip(f"NVRTC {nvrtc.version()} has no sm_{architecture}")
    texts = list(precompile.common_texts())
    if not every_architecture:
        texts = of_turn(texts, precompile.ARCHITECTURES.index(architecture))
    for text in texts:
        report = nvrtc.compile_text(text, "kernel", int(architecture))
        constants = text[: text.index("#define FIR_TAPS")]
        assert report.spill_bytes == report.stack_bytes == 0, f"{constants}{report.log}"


def of_turn(texts: list, number: int) -> list:
    """Return those whose turn an architecture is; neighbours differ in one constant mostly."""
    return [text for i, text in enumerate(texts) if (i + i // N_TURNS + number) % N_TURNS == 0]


def test_each_constant_has_its_turn_on_each_architecture():
    texts = list(precompile.common_texts())
    defined = [re.findall(r"^#define (?!FIR)(\w+ \d+)$", text, re.MULTILINE) for text in texts]
    common = {each for each, n in Counter(chain(*defined)).items() if n >= 2 * N_TURNS}
    assert {"EPILOGUE 1", "N_DIMS 3", "N_SCALES 4", "N_PLACES 2", "PIXEL_TYPE 6"} < common
    turns = [of_turn(list(range(len(texts))), number) for number in range(N_TURNS)]
    assert sorted(chain(*turns)) == list(range(len(texts)))
    for turn in turns:
        assert common <= set(chain(*(defined[i] for i in turn)))


def test_messages_name_file_and_line():
    text = source_text("gather", {}).replace("const int64 z = ", "const int64 z == ")
    with pytest.raises(RuntimeError, match=r"gather\.cu\(\d+\): error"):
        nvrtc.compile_text(text, "gather", 80)
