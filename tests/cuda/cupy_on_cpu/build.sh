#!/bin/sh
# Makes a Python environment in which CuPy itself runs without a GPU: build.sh DIR [VERSION]
#
# VERSION is CuPy's, 14.2.0 where none is given; 14.0.0 and 13.0.0 build too.
# Needs Python 3.11 or newer with venv, a C++ compiler, pip's package index, 700 MB, some minutes.
# PYTHON and CXX say which.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
version=${2:-14.2.0}
mkdir -p "$1"
dir=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

${PYTHON:-python3} -m venv "$dir"
python=$dir/bin/python
# as CuPy's own build of that time
case $version in
    13.*)
        set -- 'numpy==1.26.*' 'Cython>=0.29.22,<3' 'setuptools<77' fastrlock
        # it does not look for NVRTC among packages, but takes one that is loaded
        load="import ctypes; ctypes.CDLL('$dir/lib/cuda_on_cpu/libnvrtc.so.12');"
        ;;
    *)
        set -- 'numpy>=2.0,<2.6' 'Cython>=3.1,<3.3,!=3.2.6' 'setuptools>=77' cuda-pathfinder
        load=
        ;;
esac
"$python" -m pip install -q "$@" wheel pytest hypothesis

# CuPy's source, and the headers of the CUDA version that build_extensions.py names
cd "$work"
CUPY_INSTALL_USE_STUB=1 "$python" -m pip download -q --no-deps --no-build-isolation \
    --no-binary cupy "cupy==$version"
"$python" -m pip download -q --no-deps --only-binary :all: nvidia-cuda-runtime-cu12==12.9.79
"$python" -m tarfile -e "cupy-$version.tar.gz" source
"$python" -m zipfile -e nvidia_cuda_runtime_cu12-*.whl cuda
cp -R cuda/nvidia/cuda_runtime/include headers
cp -R "$here/include/." headers

# one library under the three names that CuPy looks for; the third on its own, for `load`
libraries=$dir/lib/cuda_on_cpu
mkdir -p "$libraries"
${CXX:-g++} -std=c++17 -O2 -Wall -fPIC -shared -Iheaders \
    "-DSHIM=\"$here/../emulation/cpu_shim.h\"" "$here"/src/*.cpp \
    -Wl,-soname,libcuda.so.1 -o "$libraries/libcuda.so.1" -ldl
ln -sf libcuda.so.1 "$libraries/libcuda_on_cpu.so"
${CXX:-g++} -shared -Wl,--no-as-needed -Wl,-soname,libnvrtc.so.12 "-Wl,-rpath,$libraries" \
    -o "$libraries/libnvrtc.so.12" "$libraries/libcuda.so.1"
packages=$("$python" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')
mkdir -p "$packages/nvidia/cuda_runtime/lib" "$packages/nvidia/cuda_nvrtc/lib"
ln -sf "$libraries/libcuda.so.1" "$packages/nvidia/cuda_runtime/lib/libcudart.so.12"
ln -sf "$libraries/libnvrtc.so.12" "$packages/nvidia/cuda_nvrtc/lib/libnvrtc.so.12"

"$python" "$here/build_extensions.py" "source/cupy-$version" "$work/headers" "$libraries"

cd "source/cupy-$version"
find cupy cupyx cupy_backends \( -name '*.py' -o -name '*.so' -o -path '*/include/*' -type f \) \
    -print0 | tar -cf - --null -T - | tar -xf - -C "$packages"
# CUB is left out: without it CuPy's own kernels reduce. Kernels kept apart from those of a GPU.
cat > "$packages/cupy_on_cpu.pth" <<END
import os; $load os.environ.setdefault("CUPY_ACCELERATORS", ""); os.environ.setdefault("CUPY_CACHE_DIR", "$dir/kernels")
END
"$python" -c 'import cupy; print(f"CuPy {cupy.__version__}: {(cupy.arange(3) + 1).get()}")'
