"""``gpu-patch info`` without files: this machine, and the one thing to fix."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gpu_patch._cuda.loader import folder_name
from gpu_patch.cli.machine.diagnosis import problem
from gpu_patch.cli.machine.driver import Device
from gpu_patch.cli.machine.survey import (
    PACKAGES,
    Machine,
    cpu,
    survey_machine,
    version_of,
    versions,
)
from gpu_patch.cli.messages import in_options
from gpu_patch.images.budget import size_text


def show(device: str | None, options: Mapping[str, str], *, as_json: bool, check: bool) -> None:
    """Print what there is, or only whether it is well, in terms of the command's options.

    Raises
    ------
    RuntimeError
        With the one thing to fix, where `check` is asked for and there is one.
    """
    machine = survey_machine(device, memory=not check)
    to_fix = in_options(problem(machine), options)
    if as_json:
        print(json.dumps(_document(machine, to_fix), indent=2))
    elif not check:
        print("\n".join(_lines(machine, to_fix)))
    elif not to_fix:
        print(_verdict(machine, to_fix))
    if check and to_fix:
        raise RuntimeError(to_fix)


def _document(machine: Machine, to_fix: str) -> dict[str, Any]:
    driver, cupy = machine.driver, machine.cupy
    return {
        **versions(),
        "cpu": cpu(),
        "device": machine.device,
        "problem": to_fix or None,
        "driver": driver
        and {
            "version": driver.version,
            "cuda": _dotted(driver.cuda),
            "error": driver.error or None,
        },
        "devices": _devices(machine),
        "cupy": {
            "packages": cupy.packages,
            "version": cupy.version,
            "cuda": _dotted(cupy.cuda),
            "nvrtc": _dotted(cupy.nvrtc),
            "error": cupy.error or cupy.nvrtc_error or None,
        },
        "kernel_cache": {
            "path": machine.cache.path,
            "kernels": machine.cache.n_kernels,
            "bytes": machine.cache.n_bytes,
            "writable": machine.cache.writable,
        },
        "compiled_ahead": machine.compiled,
        "packages": {
            name: {"version": version_of(name), "extra": extra, "for": purpose}
            for name, (extra, purpose) in PACKAGES.items()
        },
    }


def _n_compiled(machine: Machine, device: Device) -> int | None:
    """Return how many kernels were compiled ahead for a device, None where CuPy is not there."""
    if machine.cupy.cuda is None:
        return None
    architecture = "".join(map(str, device.compute_capability))
    return machine.compiled.get(folder_name(machine.cupy.cuda[0], architecture), 0)


def _devices(machine: Machine) -> list[dict[str, Any]]:
    devices = machine.driver.devices if machine.driver else ()
    free: Sequence[int | str | None] = machine.memory or [None] * len(devices)
    return [
        {
            "name": device.name,
            "compute_capability": _dotted(device.compute_capability),
            "compiled_ahead": _n_compiled(machine, device),
            "memory_bytes": device.memory_bytes,
            "free_bytes": found if isinstance(found, int) else None,
            "state": found if isinstance(found, str) else None,
        }
        for device, found in zip(devices, free, strict=True)
    ]


def _lines(machine: Machine, to_fix: str) -> Iterator[str]:
    found, driver, cupy, cache = versions(), machine.driver, machine.cupy, machine.cache
    yield (
        f"gpu_patch  {found['gpu_patch']}, Python {found['python']}, NumPy {found['numpy']}, "
        f"{found['platform']}"
    )
    yield f"CPU        {_cpu_text(cpu())}"
    if driver is None:
        yield "driver     none"
    else:
        state = f", does not start: {driver.error}" if driver.error else ""
        yield f"driver     {driver.version or 'NVIDIA'}, CUDA up to {_dotted(driver.cuda)}{state}"
    names = ", ".join(f"{name} {version}" for name, version in cupy.packages.items())
    parts = [names or cupy.version or "not installed"]
    parts += [f"CUDA {_dotted(cupy.cuda)}"] if cupy.cuda else []
    parts += [f"NVRTC {_dotted(cupy.nvrtc)}"] if cupy.nvrtc else []
    parts += [error for error in (cupy.error, cupy.nvrtc_error) if error]
    yield f"CuPy       {', '.join(parts)}"
    devices = [
        f"cuda:{index} {device['name']}, compute capability {device['compute_capability']}, "
        + _memory(device)
        for index, device in enumerate(_devices(machine))
    ]
    yield from _listed("devices", devices or ["none"])
    if cupy.packages or cupy.version or cache.n_kernels or machine.compiled:
        access = "writable" if cache.writable else "not writable"
        kept = f"{cache.n_kernels} in {cache.path}, {size_text(cache.n_bytes)}, {access}"
        yield from _listed("kernels", [kept, _compiled_ahead(machine)])
    packages = []
    for name, (extra, purpose) in PACKAGES.items():
        known = version_of(name)
        source = f"'gpu_patch[{extra}]'" if extra else name
        missing = "" if known else f": pip install {source}"
        packages.append(f"{name:10}  {known or 'missing':13} {purpose}{missing}")
    yield from _listed("packages", packages)
    yield _verdict(machine, to_fix)


def _cpu_text(found: dict[str, Any]) -> str:
    if found["kernels"] is None:
        return f"NumPy computes batches: {found['reason']}"
    threads = "1 thread" if found["threads"] == 1 else f"{found['threads']} threads"
    also = f"; {found['reason']}" if found["reason"] else ""
    return f"compiled kernels for {found['kernels']}, {threads}{also}"


def _compiled_ahead(machine: Machine) -> str:
    if not machine.compiled:
        return "none compiled ahead: CuPy compiles each when it is first used"
    found = f"{sum(machine.compiled.values())} compiled ahead, for {', '.join(machine.compiled)}"
    without = [
        f"cuda:{index}"
        for index, device in enumerate(_devices(machine))
        if device["compiled_ahead"] == 0
    ]
    return f"{found}; none for {', '.join(without)}" if without else found


def _memory(device: dict[str, Any]) -> str:
    total = size_text(device["memory_bytes"])
    if device["free_bytes"] is not None:
        return f"{size_text(device['free_bytes'])} of {total} free"
    return ", ".join(filter(None, [total, device["state"]]))


def _listed(title: str, items: list[str]) -> Iterator[str]:
    for i, item in enumerate(items):
        yield f"{'' if i else title:11}{item}"


def _verdict(machine: Machine, to_fix: str) -> str:
    if to_fix:
        return f"to fix     {to_fix}"
    asked = ", as asked" if machine.wanted else ""
    return f"ok         images go to {machine.device}{asked}"


def _dotted(version: tuple[int, int] | None) -> str | None:
    return version and ".".join(map(str, version))
