"""gpu-patch info without files, on machines of many kinds."""

import json
import platform
import sys
import tomllib
from contextlib import nullcontext
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import gpu_patch
from gpu_patch import device as devices
from gpu_patch import threads
from gpu_patch._cuda import loader
from gpu_patch._host import library
from gpu_patch.cli import main
from gpu_patch.cli.machine import driver, survey
from gpu_patch.cli.machine.driver import Device, Driver

H200 = Device("NVIDIA H200", (9, 0), 150_000_000_000)
V100 = Device("Tesla V100", (7, 0), 16_000_000_000)
NEW = Driver("580.65.06", (13, 0), (H200,))


def cupy(cuda=12090, nvrtc=(12, 9), n_devices=1, free=140_000_000_000):
    """What info asks of CuPy; an exception in place of a result is raised."""

    def given(value):
        def call(*_):
            if isinstance(value, BaseException):
                raise value
            return value

        return call

    def compile_program(program, options):
        assert options[0].startswith("--gpu-architecture=compute_")

    return SimpleNamespace(
        __version__="14.2.0",
        ndarray=(),
        cuda=SimpleNamespace(
            Device=nullcontext,
            runtime=SimpleNamespace(
                runtimeGetVersion=given(cuda),
                getDeviceCount=given(n_devices),
                getDevice=given(0),
                memGetInfo=given(free if isinstance(free, BaseException) else (free, 0)),
            ),
            nvrtc=SimpleNamespace(
                getVersion=given(nvrtc),
                getSupportedArchs=given((75, 80, 90, 100) if nvrtc == (13, 0) else (50, 70, 90)),
                createProgram=given("program"),
                compileProgram=compile_program,
                destroyProgram=given(None),
            ),
        ),
    )


@pytest.fixture
def computer(tmp_path, monkeypatch):
    """Return a function that makes this machine another one."""
    cache = tmp_path / "kernels"
    cache.mkdir()
    monkeypatch.setattr(loader, "COMPILED", tmp_path / "compiled")
    for variable in ("GPU_PATCH_DEVICE", "CUDA_VISIBLE_DEVICES", "CUPY_CACHE_IN_MEMORY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("CUPY_CACHE_DIR", str(cache))
    monkeypatch.setattr(library, "choice", lambda: library.Choice(None, "none here"))

    def make(found=None, packages=(), module=None, **variables):
        for package in packages:
            info = tmp_path / f"{package.replace('-', '_')}-14.2.0.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Name: {package}\nVersion: 14.2.0\n")
        installed = list(metadata.distributions(path=[str(tmp_path)]))
        monkeypatch.setattr(metadata, "distributions", lambda: installed)
        monkeypatch.setattr(driver, "find", lambda: found)
        if isinstance(module, str):  # the text of one that cannot be imported
            (tmp_path / "cupy.py").write_text(module)
            monkeypatch.syspath_prepend(tmp_path)
            monkeypatch.delitem(sys.modules, "cupy", raising=False)
        else:
            monkeypatch.setitem(sys.modules, "cupy", module)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        devices.cuda_problem.cache_clear()
        return cache

    yield make
    devices.cuda_problem.cache_clear()


def check(capsys, *arguments):
    """The exit status, and what is said, of a check."""
    status = main(["info", "--check", *arguments])
    out, err = capsys.readouterr()
    assert (out + err).count("\n") == 1
    return status, out or err.removeprefix("gpu-patch: error: ")


def test_nothing_of_nvidia_is_well(computer, capsys):
    computer()
    assert check(capsys) == (0, "ok         images go to cpu\n")


def test_a_gpu_that_can_be_used_is_well(computer, capsys):
    computer(NEW, ["cupy-cuda12x"], cupy())
    assert check(capsys) == (0, "ok         images go to cuda:0\n")


def test_check_takes_no_memory_of_a_device(computer, capsys):
    computer(NEW, ["cupy-cuda12x"], cupy(free=pytest.fail.Exception("it asked")))
    assert check(capsys)[0] == 0


@pytest.mark.parametrize("origin", ["variable", "argument"])
def test_the_cpu_asked_for_is_well_whatever_else(origin, computer, capsys):
    variables = {"GPU_PATCH_DEVICE": "cpu"} if origin == "variable" else {}
    computer(None, ["cupy-cuda12x", "cupy-cuda13x"], "raise ImportError('no')", **variables)
    arguments = ["--device", "cpu"] if origin == "argument" else []
    assert check(capsys, *arguments) == (0, "ok         images go to cpu, as asked\n")


OLD = Driver("470.82.01", (11, 4), (H200,))
TWO = ["cupy-cuda12x", "cupy-cuda13x"]
NO_LIBRARY = '''raise ImportError("""
=====
Failed to import CuPy.
If you installed CuPy via wheels, make sure.

Original error:
  ImportError: libcublas.so.12: cannot open shared object file
=====
""")'''
AGAIN = "pip uninstall -y cupy-cuda12x, then pip install 'gpu_patch[cuda13]'"
NO_NVRTC = RuntimeError("CuPy failed to load libnvrtc.so.12: OSError: libnvrtc.so.12\nmore")
NO_DEVICE = Driver("550.54.15", (12, 4), (), 100, "no CUDA-capable device is detected")
MACHINES = {
    "a driver but no CuPy": (
        {"found": NEW},
        ["CuPy is not installed", "'gpu_patch[cuda13]'", "GPU_PATCH_DEVICE=cpu"],
    ),
    "a driver of CUDA 12 but no CuPy": (
        {"found": NEW._replace(cuda=(12, 4))},
        ["CuPy is not installed", "'gpu_patch[cuda12]'"],
    ),
    "an old device, a new driver, no CuPy": (
        {"found": NEW._replace(devices=(V100,))},
        ["CuPy is not installed", "'gpu_patch[cuda12]'"],
    ),
    "cuda asked for, no CuPy": (
        {"GPU_PATCH_DEVICE": "cuda"},
        ["there is no NVIDIA driver, nor CuPy", "--gpus all", "'gpu_patch[cuda12]'"],
    ),
    "CuPy but no driver": (
        {"packages": ["cupy-cuda12x"], "module": cupy()},
        ["there is no NVIDIA driver", "--gpus all", "GPU_PATCH_DEVICE=cpu"],
    ),
    "two CuPys": (
        {"found": NEW, "packages": TWO, "module": cupy()},
        ["pip uninstall -y cupy-cuda12x cupy-cuda13x", "pip install 'gpu_patch[cuda13]'"],
    ),
    "no device": (
        {"found": NO_DEVICE, "packages": ["cupy-cuda12x"], "module": cupy()},
        ["finds no device", "--gpus all"],
    ),
    "devices hidden": (
        {
            "found": NO_DEVICE,
            "packages": ["cupy-cuda12x"],
            "module": cupy(),
            "CUDA_VISIBLE_DEVICES": "",
        },
        ["CUDA_VISIBLE_DEVICES is ''"],
    ),
    "a driver that does not start": (
        {
            "found": Driver("550.54.15", (12, 4), (), 803, "unsupported driver combination"),
            "packages": ["cupy-cuda12x"],
            "module": cupy(),
        },
        ["550.54.15 does not start (unsupported driver combination)", "nvidia-smi"],
    ),
    "a driver too old for any CuPy": (
        {"found": OLD, "packages": ["cupy-cuda12x"], "module": cupy()},
        ["470.82.01 supports CUDA up to 11.4", "update it to 525.60.13 or later"],
    ),
    "a driver too old for this CuPy": (
        {
            "found": OLD._replace(cuda=(12, 4)),
            "packages": ["cupy-cuda13x"],
            "module": cupy(13000, (13, 0)),
        },
        ["built for CUDA 13", "580.65.06", "install 'gpu_patch[cuda12]'"],
    ),
    "a driver too old for a CuPy that cannot be imported": (
        {"found": OLD, "packages": ["cupy-cuda13x"], "module": NO_LIBRARY},
        ["supports CUDA up to 11.4, CuPy is built for CUDA 13"],
    ),
    "CUDA's libraries missing": (
        {"found": NEW, "packages": ["cupy-cuda12x"], "module": NO_LIBRARY},
        ["cannot be imported (ImportError: libcublas.so.12: cannot", AGAIN],
    ),
    "what CuPy needs missing": (
        {"found": NEW, "packages": ["cupy-cuda12x"], "module": "import nosuchmodule"},
        ["cannot be imported (No module named 'nosuchmodule')", AGAIN],
    ),
    "the compiler missing": (
        {"found": NEW, "packages": ["cupy-cuda12x"], "module": cupy(nvrtc=NO_NVRTC)},
        ["no compiler, NVRTC (CuPy failed to load libnvrtc.so.12", AGAIN],
    ),
    "another CUDA's compiler": (
        {"found": NEW, "packages": ["cupy-cuda12x"], "module": cupy(nvrtc=(11, 2))},
        ["CUDA 12, but finds NVRTC 11.2", AGAIN],
    ),
    "CUDA 13's compiler too, on a machine for it": (
        {"found": NEW, "packages": ["cupy-cuda12x"], "module": cupy(nvrtc=(13, 0))},
        ["CUDA 12, but finds NVRTC 13.0", AGAIN],
    ),
    "CUDA 13's compiler too, with a driver of CUDA 12": (
        {
            "found": NEW._replace(cuda=(12, 4)),
            "packages": ["cupy-cuda12x"],
            "module": cupy(nvrtc=(13, 0)),
        },
        ["CUDA 12, but finds NVRTC 13.0", "pip uninstall -y nvidia-cuda-nvrtc,"],
    ),
    "a device too old for the compiler": (
        {
            "found": NEW._replace(devices=(V100,)),
            "packages": ["cupy-cuda13x"],
            "module": cupy(13000, (13, 0)),
        },
        ["NVRTC 13.0 cannot compile", "sm_70", "install 'gpu_patch[cuda12]'"],
    ),
    "a device that CuPy cannot start": (
        {
            "found": NEW,
            "packages": ["cupy-cuda12x"],
            "module": cupy(n_devices=RuntimeError("cudaErrorSystemDriverMismatch")),
        },
        ["cudaErrorSystemDriverMismatch", "GPU_PATCH_DEVICE=cpu"],
    ),
    "a device that CuPy does not see": (
        {"found": NEW, "packages": ["cupy-cuda12x"], "module": cupy(n_devices=0)},
        ["there is no CUDA device", "GPU_PATCH_DEVICE=cpu"],
    ),
    "too few devices": (
        {
            "found": NEW,
            "packages": ["cupy-cuda12x"],
            "module": cupy(),
            "GPU_PATCH_DEVICE": "cuda:3",
        },
        ["GPU_PATCH_DEVICE is 'cuda:3'", "there are 1 CUDA devices"],
    ),
}


@pytest.mark.parametrize(("machine", "words"), MACHINES.values(), ids=MACHINES)
def test_one_thing_to_fix(machine, words, computer, capsys):
    computer(**machine)
    status, said = check(capsys)
    assert status == 2
    for word in words:
        assert word in said
    # the same with everything else, and no failure where nobody asked to check
    assert main(["info"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"to fix     {said}".rstrip()
    assert main(["info", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["problem"] == said.rstrip()


def test_kernels_that_cannot_be_kept(computer, capsys, monkeypatch):
    cache = computer(NEW, ["cupy-cuda12x"], cupy())
    monkeypatch.setattr(survey.os, "access", lambda *_: False)
    status, said = check(capsys)
    assert status == 2
    assert f"cannot be kept in {cache}: set CUPY_CACHE_DIR" in said
    # CuPy keeps them in memory then, but makes the folder all the same
    monkeypatch.setenv("CUPY_CACHE_IN_MEMORY", "1")
    assert check(capsys)[0] == 0
    cache.rmdir()
    assert check(capsys)[0] == 2


def test_a_newer_device_than_the_compiler_knows_is_well(computer, capsys):
    newest = H200._replace(name="next year's", compute_capability=(15, 0))
    computer(NEW._replace(devices=(newest,)), ["cupy-cuda12x"], cupy())
    assert check(capsys)[0] == 0


@pytest.mark.parametrize(
    ("free", "said"),
    [
        (140_000_000_000, "140.0 GB of 150.0 GB free"),
        (RuntimeError("cudaErrorMemoryAllocation: out of memory"), "150.0 GB, full: no room"),
        (RuntimeError("cudaErrorDevicesUnavailable: busy"), "150.0 GB, busy: another process"),
        (RuntimeError("cudaErrorUnknown: what"), "150.0 GB, cudaErrorUnknown: what"),
    ],
)
def test_devices(free, said, computer, capsys):
    computer(NEW, ["cupy-cuda12x"], cupy(free=free))
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    assert f"devices    cuda:0 NVIDIA H200, compute capability 9.0, {said}" in out
    # the process that fills a device may be the one that is looked after
    assert out.endswith("ok         images go to cuda:0\n")


def test_table(computer, capsys):
    cache = computer(NEW._replace(devices=(H200, H200)), ["cupy-cuda12x"], cupy())
    (cache / "a.cubin").write_bytes(bytes(1500))
    assert main(["info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"gpu_patch  {gpu_patch.__version__}, Python ")
    assert lines[1] == "CPU        NumPy computes batches: none here"
    assert lines[2] == "driver     580.65.06, CUDA up to 13.0"
    assert lines[3] == "CuPy       cupy-cuda12x 14.2.0, CUDA 12.9, NVRTC 12.9"
    assert lines[5].startswith("           cuda:1 NVIDIA H200")
    assert lines[6] == f"kernels    1 in {cache}, 1.5 kB, writable"
    assert lines[7] == "           none compiled ahead: CuPy compiles each when it is first used"
    assert lines[8].startswith("packages   tifffile ")


@pytest.mark.parametrize(
    ("n_threads", "reason", "said"),
    [
        (1, "", "compiled kernels for x86-64-v3, 1 thread"),
        (5, "no better one", "compiled kernels for x86-64-v3, 5 threads; no better one"),
    ],
)
def test_compiled_kernels_of_the_cpu(n_threads, reason, said, computer, capsys, monkeypatch):
    computer()
    found = library.Choice(SimpleNamespace(level="x86-64-v3"), reason)
    monkeypatch.setattr(library, "choice", lambda: found)
    monkeypatch.setenv("GPU_PATCH_NUM_THREADS", str(n_threads))
    threads._default.cache_clear()
    assert main(["info"]) == 0
    assert f"\nCPU        {said}\n" in capsys.readouterr().out
    threads._default.cache_clear()


def test_kernels_are_of_no_interest_without_cupy(computer, capsys):
    computer()
    assert main(["info"]) == 0
    assert "\nkernels " not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("cuda", "of_device", "end"),
    [(12090, 2, ""), (12000, 2, ""), (13000, 0, "; none for cuda:0"), (None, None, "")],
)
def test_kernels_compiled_ahead(cuda, of_device, end, computer, capsys):
    computer(NEW, ["cupy-cuda12x"], cupy(cuda) if cuda else "import nosuchmodule")
    for text, architecture in [("a", "90"), ("b", "90"), ("a", "100")]:
        path = loader.binary_path(text, 12090, architecture)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert main(["info"]) == 0
    line = capsys.readouterr().out.splitlines()[6]
    assert line == f"           3 compiled ahead, for cuda12-sm_90, cuda12-sm_100{end}"
    assert main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["compiled_ahead"] == {"cuda12-sm_100": 1, "cuda12-sm_90": 2}
    assert found["devices"][0]["compiled_ahead"] == of_device


def test_json(computer, capsys):
    cache = computer(NEW, ["cupy-cuda12x"], cupy(free=5))
    assert main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    packages = found.pop("packages")
    assert packages["matplotlib"]["extra"] == "cli"
    assert packages["tifffile"]["version"] == metadata.version("tifffile")
    assert found == {
        "gpu_patch": gpu_patch.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": {"kernels": None, "threads": None, "reason": "none here"},
        "device": "cuda:0",
        "problem": None,
        "driver": {"version": "580.65.06", "cuda": "13.0", "error": None},
        "devices": [
            {
                "name": "NVIDIA H200",
                "compute_capability": "9.0",
                "compiled_ahead": 0,
                "memory_bytes": 150_000_000_000,
                "free_bytes": 5,
                "state": None,
            }
        ],
        "cupy": {
            "packages": {"cupy-cuda12x": "14.2.0"},
            "version": "14.2.0",
            "cuda": "12.9",
            "nvrtc": "12.9",
            "error": None,
        },
        "kernel_cache": {"path": str(cache), "kernels": 0, "bytes": 0, "writable": True},
        "compiled_ahead": {},
    }


def test_json_of_a_check_that_fails(computer, capsys):
    computer(NEW)
    assert main(["info", "--check", "--json"]) == 2
    out, err = capsys.readouterr()
    assert err == f"gpu-patch: error: {json.loads(out)['problem']}\n"


def test_extras_are_those_of_the_package():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    for package, (extra, _) in survey.PACKAGES.items():
        if extra:
            requirements = project["optional-dependencies"][extra]
            assert any(line.startswith(f"{package}>=") for line in requirements)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("info --axes YX", ["FILE", "--axes"]),
        ("info --level 1", ["FILE", "--level"]),
        ("info --memory-budget 0.5", ["FILE", "--memory-budget"]),
        ("info a.tif --check", ["--check", "FILE"]),
        ("info --device toaster", ["device", "'toaster'"]),
    ],
)
def test_wrong_arguments(arguments, words, computer, capsys):
    computer()
    assert main(arguments.split()) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert all(word in error for word in words)
