"""Compiles the CPU's kernels, a library per instruction set: ``python -m gpu_patch._host``.

The standard library is enough for it: the build of the wheel runs it as a file of its own.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import shlex
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
SUFFIX = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
LEVELS: dict[str, dict[str, tuple[str, ...]]] = {
    "x86_64": {
        "x86-64-v4": ("-march=x86-64-v4", "-mprefer-vector-width=512"),
        "x86-64-v3": ("-march=x86-64-v3",),
    },
    "aarch64": {"arm64": ()},
}
"""Instruction sets of each architecture, the widest first, and their flags."""
PROBE = "probe"
"""What tells instruction sets, where there are several."""
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}

_FLAGS = [
    *("-O3", "-std=c++17", "-shared", "-fvisibility=hidden", "-Wno-psabi"),
    # rounding is the same everywhere: no product and sum becomes one where none is asked for
    *("-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"),
]
_STATIC = ("-static-libstdc++", "-static-libgcc")
# copies of loops for each condition within them take GCC a third of its time and gain nothing
_OF_GCC = ("-fno-unswitch-loops", "-fno-split-loops")


def machine() -> str:
    """Return the architecture of this processor, as `LEVELS` names it."""
    found = platform.machine().lower()
    return MACHINES.get(found, found)


def library_path(level: str, folder: Path = HERE, suffix: str = SUFFIX) -> Path:
    """Return where the library of an instruction set is."""
    return folder / f"kernels_{level}{suffix}"


def digest() -> str:
    """Return what tells these sources from others."""
    sources = [*HERE.glob("*.h"), *HERE.glob("*.cpp"), HERE.parent / "_cuda" / "common.cuh"]
    texts = (path.read_bytes() for path in sorted(sources))
    return hashlib.sha256(b"\0".join(texts)).hexdigest()[:16]


def compilers() -> list[list[str]]:
    """Return the commands that may compile C++, in the order in which they are tried."""
    found = [shlex.split(os.environ["CXX"])] if os.environ.get("CXX") else []
    found += [[name] for name in ("c++", "g++", "clang++") if shutil.which(name)]
    if importlib.util.find_spec("ziglang"):
        found.append([sys.executable, "-m", "ziglang", "c++"])
    return found


def build(
    folder: Path,
    command: Sequence[str],
    *,
    architecture: str | None = None,
    suffix: str = SUFFIX,
    flags: Sequence[str] = (),
) -> list[Path]:
    """Compile all libraries of an architecture.

    Parameters
    ----------
    folder : Path
        Where they go.
    command : sequence of str
        The compiler.
    architecture : str, optional
        A key of `LEVELS`; default this machine's.
    suffix : str
        Of a library's name.
    flags : sequence of str
        More for the compiler.

    Raises
    ------
    OSError, RuntimeError
        Where it does not work; the message is the compiler's.
    """
    levels = LEVELS.get(architecture or machine(), {})
    if not levels:
        raise RuntimeError(f"the kernels are for {' and '.join(LEVELS)}, not {machine()}")
    common = [*_FLAGS, f'-DSOURCE_DIGEST="{digest()}"', *flags]
    if suffix == ".so":
        common += ["-fPIC", "-pthread", *(() if flags else ("-s",))]
    if "ziglang" in command:  # which writes the names of processors in its own way
        common.append("-mcpu=baseline")  # and compiles for this one alone where it is told nothing
        levels = {
            level: tuple(own.replace("x86-64-v", "x86_64_v") for own in flags_of)
            for level, flags_of in levels.items()
        }
    jobs = [
        (library_path(level, folder, suffix), "kernels.cpp", own) for level, own in levels.items()
    ]
    if len(levels) > 1:
        jobs.append((library_path(PROBE, folder, suffix), "probe.cpp", ()))
    folder.mkdir(parents=True, exist_ok=True)

    def run(what: Sequence[str]) -> None:
        import subprocess  # takes time where nothing is compiled

        done = subprocess.run(what, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{shlex.join(what)}\n{done.stderr}")

    def compile_one(job: tuple[Path, str, Sequence[str]]) -> Path:
        path, source, own = job
        # moved when it is whole: another process may be loading what is there
        unfinished = path.with_name(f"{path.stem}.{os.getpid()}{suffix}")
        what = [*command, *common, *own, str(HERE / source)]
        if "ziglang" in command and own:
            # an object first: for each instruction set that it links for zig makes a C++ library
            run([*what, "-c", "-o", str(unfinished.with_suffix(".o"))])
            what = [*command, *common, str(unfinished.with_suffix(".o"))]
        # the C++ library within it, where there is one to take: it meets others' in a process
        for more in ((*_OF_GCC, *_STATIC), _STATIC, ()):
            try:
                run([*what, "-o", str(unfinished), *more])
                break
            except RuntimeError:
                if not more:
                    raise
        unfinished.replace(path)
        unfinished.with_suffix(".o").unlink(missing_ok=True)
        return path

    with ThreadPoolExecutor() as executor:
        return list(executor.map(compile_one, jobs))


def build_with_any(folder: Path) -> tuple[list[Path], str]:
    """Compile with the first compiler that can.

    Returns
    -------
    list of Path
        The libraries; none where nothing could compile them.
    str
        What compiled them, or why nothing did.
    """
    problems = []
    for command in compilers():
        try:
            return build(folder, command), shlex.join(command)
        except (OSError, RuntimeError) as error:
            problems.append(str(error))
    return [], problems[0] if problems else "there is no C++ compiler, and no ziglang from PyPI"
