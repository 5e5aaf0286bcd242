"""Compile the modules of CuPy that `import cupy`, arrays and raw kernels need.

    python build_extensions.py SOURCE HEADERS LIBRARIES

SOURCE is CuPy's unpacked source distribution, which stays as it is; HEADERS are CUDA's, LIBRARIES
is where the stand-ins for CUDA's libraries are. The modules are written beside their sources.

CuPy's own ``setup.py`` cannot be used: it wants all of the CUDA toolkit and ``nvcc``.
"""

import os
import sys
from pathlib import Path

import Cython
import numpy as np
from Cython.Build import cythonize
from Cython.Compiler.Options import get_directive_defaults
from setuptools import Distribution, Extension

CUDA_VERSION = 12090
JOBS = 2
MODULES = """
cupy._core._accelerator cupy._core._carray cupy._core._cub_reduction cupy._core._dtype
cupy._core._fusion_kernel cupy._core._fusion_thread_local cupy._core._fusion_trace
cupy._core._fusion_variable cupy._core._kernel cupy._core._memory_range
cupy._core._optimize_config cupy._core._reduction cupy._core._routines_binary
cupy._core._routines_indexing cupy._core._routines_linalg cupy._core._routines_logic
cupy._core._routines_manipulation cupy._core._routines_math cupy._core._routines_sorting
cupy._core._routines_statistics cupy._core._scalar cupy._core.core cupy._core.dlpack
cupy._core.flags cupy._core.fusion cupy._core.internal cupy._core.new_fusion
cupy._core.numpy_allocator cupy._core.raw cupy._util cupy.cuda.common cupy.cuda.device
cupy.cuda.function cupy.cuda.graph cupy.cuda.memory cupy.cuda.memory_hook
cupy.cuda.pinned_memory cupy.cuda.stream cupy.cuda.texture cupy.fft._cache
cupy.fft._callback cupy.lib._polynomial cupyx.scipy.ndimage._bbox_slices
cupy_backends.cuda._softlink cupy_backends.cuda.api._driver_enum
cupy_backends.cuda.api._runtime_enum cupy_backends.cuda.api.driver
cupy_backends.cuda.api.runtime cupy_backends.cuda.libs.nvrtc cupy_backends.cuda.stream
"""
DIRECTIVES = {
    "linetrace": False,
    "profile": False,
    "embedsignature": True,
    "c_api_binop_methods": True,
    "binding": False,
    "warn.deprecated.IF": False,
    "freethreading_compatible": True,
}
STUBBED = "cupy.cuda.cub cupy.random._bit_generator cupy.random._generator_api"
"""Compiled with the empty stand-ins in CuPy's own headers, since the real ones need ``nvcc``."""


def extension(name: str, headers: Path, libraries: Path) -> Extension:
    """Return the recipe of one module."""
    stubbed = name in STUBBED.split()
    return Extension(
        name,
        [name.replace(".", "/") + ".pyx"],
        language="c++",
        include_dirs=[str(headers), np.get_include(), "cupy/_core/include"],
        define_macros=[
            # the macros that CuPy's setup.py defines
            ("_FORCE_INLINES", "1"),
            ("CYTHON_EXTERN_C", 'extern "C"'),
            *([("NPY_TARGET_VERSION", "NPY_2_0_API_VERSION")] if np.__version__ >= "2" else []),
            ("CUPY_CACHE_KEY", "on_cpu"),
            *([("CUPY_NO_CUDA", "1")] if stubbed else []),
        ],
        libraries=[] if stubbed else ["cuda_on_cpu"],
        library_dirs=[str(libraries)],
        runtime_library_dirs=[str(libraries)],
        extra_compile_args=["-std=c++17", "-w", "-g0", "-O2"],
    )


def main(source: str, headers: str, libraries: str) -> None:
    """Translate and compile."""
    os.chdir(source)
    names = [*MODULES.split(), *STUBBED.split()]
    extensions = [
        extension(name, Path(headers), Path(libraries))
        for name in names
        if Path(name.replace(".", "/") + ".pyx").exists()  # CuPy 13 has not all
    ]
    modules = cythonize(
        extensions,
        nthreads=JOBS,
        language_level=3,
        # directives and constants are those of CuPy's install/cupy_builder/_command.py
        compiler_directives={
            name: value
            for name, value in DIRECTIVES.items()
            if name in get_directive_defaults()  # Cython 0.29 has not all
        },
        compile_time_env={
            "CUPY_USE_CUDA_PYTHON": False,
            "CUPY_CUFFT_STATIC": False,
            "CUPY_CYTHON_VERSION": Cython.__version__,
            "CUPY_CUDA_VERSION": CUDA_VERSION,
            "CUPY_HIP_VERSION": 0,
        },
    )
    # not `setup`, which would follow CuPy's own pyproject.toml
    build = Distribution({"name": "cupy", "ext_modules": modules}).get_command_obj("build_ext")
    build.build_lib, build.build_temp, build.parallel = ".", "build", JOBS
    build.ensure_finalized()
    build.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
