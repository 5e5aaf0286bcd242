"""NVIDIA's driver, as a small library in C that has its functions."""

import ctypes
import shutil
import subprocess

import pytest

from gpu_patch.cli.machine import driver
from gpu_patch.cli.machine.driver import Device, Driver

LIBRARY = """
#include <stddef.h>
#include <stdio.h>
#include <string.h>
int status = 0;
int cuDriverGetVersion(int* version) { return *version = 12040, 0; }
int cuInit(unsigned flags) { return flags ? 1 : status; }
int cuGetErrorString(int error, const char** text) {
    return *text = error == 803 ? "unsupported" : NULL, 0;
}
int cuDeviceGetCount(int* count) { return *count = 2, 0; }
int cuDeviceGet(int* device, int number) { return *device = 70 + number, 0; }
int cuDeviceGetName(char* name, int size, int device) {
    return snprintf(name, size, "device %d", device), 0;
}
int cuDeviceTotalMem_v2(size_t* size, int device) {
    return *size = ((size_t)device << 32) + 1, 0;
}
int cuDeviceGetAttribute(int* value, int attribute, int device) {
    return *value = attribute == 75 ? device / 10 : attribute == 76 ? device % 10 : -1, 0;
}
"""
KERNEL_MODULE = {
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  525.85.05  Sat Jan 14 00:49:50 UTC 2023\\n"
    "GCC version:  gcc version 11.3.0 (Ubuntu 11.3.0-1ubuntu1~22.04)": "525.85.05",
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65  Release Build": "580.65",
    "something else": None,
}


@pytest.fixture
def library(tmp_path, monkeypatch):
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    path = tmp_path / "libcuda.so"
    command = [compiler, "-shared", "-fPIC", "-xc", "-", "-o", str(path)]
    subprocess.run(command, input=LIBRARY, text=True, check=True)
    monkeypatch.setattr(driver, "_LIBRARY", str(path))
    monkeypatch.setattr(driver, "version", lambda: "550.54.15")
    return ctypes.CDLL(str(path))


def test_devices(library):
    first = Device("device 70", (7, 0), (70 << 32) + 1)
    second = Device("device 71", (7, 1), (71 << 32) + 1)
    assert driver.find() == Driver("550.54.15", (12, 4), (first, second))


@pytest.mark.parametrize(("status", "error"), [(803, "unsupported"), (999, "error 999")])
def test_a_driver_that_does_not_start(library, status, error):
    ctypes.c_int.in_dll(library, "status").value = status
    assert driver.find() == Driver("550.54.15", (12, 4), (), status, error)


def test_no_driver(monkeypatch, tmp_path):
    monkeypatch.setattr(driver, "_LIBRARY", str(tmp_path / "nosuch.so"))
    assert driver.find() is None


@pytest.mark.parametrize(("text", "version"), KERNEL_MODULE.items())
def test_version_of_the_kernel_module(text, version, tmp_path, monkeypatch):
    monkeypatch.setattr(driver, "_KERNEL_MODULE", tmp_path / "version")
    assert driver.version() is None
    (tmp_path / "version").write_text(text)
    assert driver.version() == version
