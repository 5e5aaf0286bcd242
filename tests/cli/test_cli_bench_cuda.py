"""`gpu-patch bench --device cuda`: what it computes and prints, with a stand-in for CuPy."""

import json
import time
from types import SimpleNamespace

import numpy as np
import pytest
from emulation import fake_cupy
from emulation.gpu import gpu
from emulation.runtime import available

from gpu_patch import ops
from gpu_patch._cuda import specialised
from gpu_patch.cli import main
from gpu_patch.cli.bench import command, cuda, process, report, timing
from gpu_patch.cli.bench.traffic import pixels_read
from gpu_patch.cli.bench.workloads import CONSTRUCTORS, Case, Workload, settings_of
from gpu_patch.device import placement
from gpu_patch.sources import ChannelSources

needs_compiler = pytest.mark.skipif(not available(), reason="needs a C++ compiler")
SMALL = (1, 2, 70, 80)


@pytest.fixture
def cupy(monkeypatch):
    """Few small batches; the general kernels, since the others would be compiled for."""
    pixels = np.random.default_rng(0).integers(0, 4096, SMALL, np.uint16)
    monkeypatch.setattr(Case, "images", lambda self: pixels)
    monkeypatch.setattr(specialised, "choose", lambda *arguments, **options: None)
    monkeypatch.setattr(cuda, "N_CALLS", 2)
    monkeypatch.setattr(timing, "N_CALLS", 2)
    monkeypatch.setattr(cuda, "USUAL_BATCH", 2)
    with fake_cupy.installed() as module:
        yield module


def careamics(*times):
    return SimpleNamespace(
        version="1" if times else "not installed",
        patch_times=lambda case: list(times),
        close=lambda: None,
    )


# ---- bytes -------------------------------------------------------------------------------------


def painted(sources, patch_size, n_scales, image_size):
    """Pixels read, by painting them."""
    read = set()
    factor = 1 << max(n_scales - 1, 0)
    n_places = sources.image_idx.shape[1]
    for b in range(len(sources.image_idx)):
        for c in range(len(sources.channels)):
            k = c if n_places > 1 else 0
            image = np.zeros(image_size, bool)
            start = [x + p // 2 - p * factor // 2 for x, p in zip(sources.coords[b, k], patch_size)]  # noqa: B905
            window = (slice(max(a, 0), a + p * factor) for a, p in zip(start, patch_size))  # noqa: B905
            image[tuple(window)] = True
            here = (int(sources.image_idx[b, k]), int(sources.sample_idx[b, k]), c)
            read |= {(*here, int(i)) for i in np.flatnonzero(image)}
    return len(read)


@pytest.mark.parametrize("n_places", [1, 3])
@pytest.mark.parametrize(
    ("patch_size", "n_scales", "image_size"),
    [((5, 6), 0, (20, 30)), ((5, 6), 2, (20, 30)), ((2, 3, 4), 2, (5, 11, 12))],
)
def test_each_pixel_counts_once(patch_size, n_scales, image_size, n_places):
    rng = np.random.default_rng(0)
    shape = (12, n_places)
    last = np.array(image_size) - patch_size
    coords = rng.integers(0, last, (*shape, len(last)), endpoint=True)
    sources = ChannelSources(
        rng.integers(0, 2, shape), rng.integers(0, 2, shape), coords, np.arange(3)
    )
    expected = painted(sources, patch_size, n_scales, image_size)
    assert pixels_read(sources, patch_size, n_scales, image_size) == expected


def test_copy_bandwidth(cupy):
    # the stand-in's events are always half a millisecond apart
    assert timing.device_copy_bandwidth(cupy, 1 << 10) == pytest.approx(2 * 1024 / 500e-6)


# ---- times -------------------------------------------------------------------------------------


def test_device_times_wait_only_at_the_end(cupy):
    order = []
    calls = [lambda i=i: order.append((i, gpu.count("synchronize"))) for i in range(3)]
    assert timing.device_times(cupy, calls) == [500e-6] * 3
    # a first pass over all, then the one that counts
    assert [i for i, _ in order] == [0, 1, 2] * 2
    assert len({waits for _, waits in order[3:]}) == 1
    # each after something else has filled the device's cache
    launches = [action.what for action in gpu.log if action.kind == "launch"]
    assert launches == ["of CuPy", "spin"] * 2
    assert [action.kind for action in gpu.log[:3]] == ["launch", "synchronize", "launch"]


def test_host_times_do_not_wait(cupy):
    waits = []
    calls = [lambda: waits.append(gpu.count("synchronize"))] * 4
    assert len(timing.host_times(cupy, calls)) == 4
    assert waits == [1] * 4
    assert gpu.count("synchronize") == 1


def test_elapsed_ends_when_the_device_is_done(cupy):
    waits = []
    calls = [lambda: waits.append(gpu.count("synchronize"))] * 4
    assert timing.elapsed(cupy, calls) > 0
    assert waits == [1] * 4
    assert gpu.count("synchronize") == 2


# ---- rows --------------------------------------------------------------------------------------


def same(image, n_scales):
    """An alternative that does it as we do."""

    def run(plan):
        return ops.lateral_context(
            [image], plan.sources, plan.weights, plan.patch_size, n_scales, mode="reflect"
        )

    return run


def without_border(image, n_scales):
    """An alternative that is wrong in part of the input."""

    def run(plan):
        return ops.lateral_context(
            [image], plan.sources, plan.weights, plan.patch_size, n_scales, mode="periodic"
        )

    return run


def missing(image, n_scales):
    raise ModuleNotFoundError("No module named 'torch'")


@needs_compiler
def test_a_row(cupy, monkeypatch):
    others = {"same": same, "wrong": without_border, "torch": missing}
    monkeypatch.setattr(cuda, "ALTERNATIVES", others)
    image_bytes = 3 * 2 * 70 * 80 * 2
    row = cuda.measure(
        cupy,
        Workload("multichannel", 2, 3),
        careamics(0.25, 0.5, 0.75),
        device="cuda:0",
        bandwidth=1e9,
        budget=0.01,
        image_bytes=image_bytes,
    )
    assert row["device_seconds"] == 500e-6
    assert row["device_seconds_range"] == [500e-6, 500e-6]
    assert row["n_batches"] == 2
    assert row["elapsed_seconds"] > 0
    assert min(row["host_seconds"], row["launch_seconds"]) > 0
    assert row["output_bytes"] == 3 * (2 + 2) * 64 * 64 * 4
    # windows of 128×128 cover the image, of which each sample counts once
    assert 2 * 2 * 60 * 64 <= row["read_bytes"] <= image_bytes
    floor = (row["read_bytes"] + row["output_bytes"]) / 1e9
    assert row["floor_seconds"] == pytest.approx(floor)
    assert row["model_seconds"]["memory"] == pytest.approx(floor)
    assert min(row["model_seconds"].values()) > 0
    assert row["image_bytes"] == image_bytes
    assert 0 <= row["added_bytes"] < 5 * row["output_bytes"]
    found = {other["name"]: other for other in row["alternatives"]}
    assert found["same"]["difference"] == 0
    assert found["same"]["device_seconds"] == 500e-6
    assert found["same"]["elapsed_seconds"] > 0
    assert found["wrong"]["difference"] > 0.01
    assert "No module named 'torch'" in found["torch"]["skipped"]
    assert found[cuda.CAREAMICS]["elapsed_seconds"] == 0.5 * 3
    report.cuda_row(row)
    json.dumps(row)


@needs_compiler
@pytest.mark.parametrize("name", [name for name in CONSTRUCTORS if not name.endswith("3d")])
def test_every_constructor_has_a_row(cupy, monkeypatch, name):
    monkeypatch.setattr(cuda, "ALTERNATIVES", {})
    row = cuda.measure(
        cupy,
        Workload(name, 0 if name.startswith("basic") else 1, 2),
        careamics(),
        device="cuda:0",
        bandwidth=1e9,
        budget=0.01,
        image_bytes=0,
    )
    # in 70×80 pixels at most the whole image is read, of input and targets
    one = 70 * 80 * 2
    n_inputs = {"pred": 1, "paired": 1}.get(name, 2)
    n_targets = 2 if name == "paired" else 0
    assert row["read_bytes"] <= (n_inputs + n_targets) * one
    assert row["read_bytes"] >= (n_inputs + n_targets) * 64 * 64 * 2
    assert row["image_bytes"] == (n_inputs + n_targets) * one
    (other,) = row["alternatives"]
    assert other == {"name": cuda.CAREAMICS, "skipped": "careamics not installed"}


@needs_compiler
def test_the_process(cupy, monkeypatch):
    asked = []

    def start(settings):
        asked.append(settings)
        return careamics()

    monkeypatch.setattr(cuda, "ALTERNATIVES", {})
    monkeypatch.setattr(cuda, "Careamics", start)
    monkeypatch.setattr(cuda, "device_copy_bandwidth", lambda cupy: 2e9)
    monkeypatch.setattr(cuda, "IMAGE_BYTES", 0)
    records = []
    settings = settings_of("cuda:0", constructors=["pred"], scales=[1], batch_sizes=[1])
    cuda.serve(json.loads(json.dumps(settings)), records.append)
    found, row = json.loads(json.dumps(records))
    assert found["gpu"] == "fake"
    assert found["cuda_runtime"] == "12.9"
    assert found["cuda_driver"] == "13.2"
    assert found["copy_bytes_per_second"] == 2e9
    assert (row["constructor"], row["n_scales"], row["batch_size"]) == ("pred", 1, 1)
    assert [settings["device"] for settings in asked] == ["cpu"]


@needs_compiler
def test_the_first_batch(cupy):
    records = []
    started = time.time() - 7
    settings = {"device": "cuda:0", "first_batch_since": started}
    cuda.serve(settings, records.append)
    (times,) = records
    assert 7 <= times["import_seconds"] < 8
    steps = (times[f"{step}_seconds"] for step in ("import", "images", "first_batch"))
    assert times["total_seconds"] == pytest.approx(sum(steps))
    assert min(times.values()) > 0


def test_first_batches_are_of_a_cold_and_then_a_warm_cache(monkeypatch):
    seen = []

    def measured(settings, environment):
        (folder,) = set(environment.values())
        seen.append((settings["device"], set(environment), folder))
        yield {"total_seconds": len(seen)}

    monkeypatch.setattr(process, "measured", measured)
    assert process.first_batches("cuda:1") == {
        "cold": {"total_seconds": 1},
        "warm": {"total_seconds": 2},
    }
    assert seen[0] == seen[1]
    assert seen[0][:2] == ("cuda:1", {"CUPY_CACHE_DIR", "CUDA_CACHE_PATH"})


# ---- the command -------------------------------------------------------------------------------

MACHINE = {
    "gpu": "NVIDIA Some GPU",
    "memory_bytes": 80e9,
    "compute_capability": "9.0",
    "cache_bytes": 50e6,
    "cuda_runtime": "13.0",
    "cuda_driver": "13.1",
    "driver": "580.1",
    "cupy": "14.2.0",
    "cpu": "some CPU",
    "n_cores": 16,
    "load": None,
    "python": "3.12.3",
    "numpy": "2.5.2",
    "gpu_patch": "0.1.0",
    "commit": "abc1234",
    "date": "2026-01-02",
    "careamics": "not installed",
    "copy_bytes_per_second": 4.3e12,
}
ROW = {
    "constructor": "multichannel",
    "n_scales": 4,
    "batch_size": 256,
    "device_seconds": 100e-6,
    "device_seconds_range": [90e-6, 120e-6],
    "elapsed_seconds": 200e-6,
    "host_seconds": 150e-6,
    "launch_seconds": 60e-6,
    "read_bytes": 270_000_000,
    "output_bytes": 25_000_000,
    "floor_seconds": 80e-6,
    "model_seconds": {"memory": 80e-6, "issue": 70e-6, "latency": 88e-6},
    "image_bytes": 1_000_000_000,
    "added_bytes": 5_000_000,
    "alternatives": [
        {"name": "slow", "device_seconds": 1e-3, "elapsed_seconds": 3e-3, "difference": 2e-6},
        {"name": "CPU", "elapsed_seconds": 2.0},
        {"name": "torch", "skipped": "it is not here"},
    ],
}
FIRST = {
    "import_seconds": 1.0,
    "images_seconds": 0.5,
    "first_batch_seconds": 0.25,
    "second_batch_seconds": 0.001,
    "total_seconds": 1.75,
}


def test_the_command(tmp_path, capsys, monkeypatch):
    asked = []

    def measured(settings, environment=None):
        asked.append(settings)
        yield from [FIRST] if environment else [MACHINE, ROW]

    monkeypatch.setattr(command, "resolve", lambda name: {"cuda": "cuda:3"}[name])
    monkeypatch.setattr(report, "measured", measured)
    monkeypatch.setattr(process, "measured", measured)
    file = tmp_path / "gpu.json"
    assert main(["bench", "--device", "cuda", "--json", str(file)]) == 0
    printed, errors = capsys.readouterr()
    assert errors == ""
    assert asked[0]["device"] == "cuda:3"
    assert "NVIDIA Some GPU, 80 GB, compute capability 9.0, cache 50 MB" in printed
    assert "gpu_patch 0.1.0 (abc1234)" in printed
    assert "4300 GB/s" in printed
    lines = {line.split()[0]: line.split() for line in printed.splitlines() if line.strip()}
    assert lines["slow"] == ["slow", "1000.0", "10.0", "3000.0", "15.0", "2.0e-06"]
    assert lines["CPU"] == ["CPU", "-", "-", "2000000.0", "10000.0", "-"]
    assert "torch                           not measured: it is not here" in printed
    assert report.cuda_row(ROW) in printed
    assert "first batch, cold kernel cache: 0.25 s, the second 1.0 ms" in printed
    document = json.loads(file.read_text())
    assert document["machine"] == MACHINE
    assert document["rows"] == [ROW]
    assert document["first_batch"] == {"cold": FIRST, "warm": FIRST}
    assert document["settings"]["workloads"][0] == ["multichannel", 4, 32]


def test_a_row_printed():
    assert report.cuda_row(ROW).split() == [
        *("multichannel", "4", "256", "100.0", "90-120", "80.0", "1.25"),
        *("88.0", "latency", "2560000"),
        *("200.0", "150.0", "60.0", "5.0", "0.50%"),
    ]


def test_what_is_measured():
    usual = settings_of("cuda:0")["workloads"]
    assert usual[:3] == settings_of("cuda:0", quick=True)["workloads"]
    assert {(name, n) for name, n, _ in usual} >= {("multichannel", n) for n in range(1, 6)}
    some = settings_of("cuda:0", constructors=["basic", "pred"], scales=[2, 3])
    assert some["workloads"] == [("basic", 0, 32), ("pred", 2, 32), ("pred", 3, 32)]
    assert settings_of("cuda:0", batch_sizes=[8])["workloads"] == [("multichannel", 4, 8)]


def test_without_a_gpu_it_is_one_line(capsys, monkeypatch):
    monkeypatch.setattr(placement, "cuda_problem", lambda: "there is no CUDA device")
    assert main(["bench", "--device", "cuda"]) == 2
    printed, errors = capsys.readouterr()
    assert printed == ""
    assert errors == (
        "gpu-patch: error: --device is 'cuda', but there is no CUDA device: use --device cpu\n"
    )
    assert main(["bench", "--device", "gpu"]) == 2
    assert "--device must be 'cpu', 'cuda' or 'cuda:N', found 'gpu'" in capsys.readouterr().err
