"""Stands in for the commands that the README's shell blocks call: COMMAND ARGUMENT...

What gpu_patch does runs for real. Of what would install, build or start a container, every name is
looked up where it is defined; `.ci/run` and `docker/try-images.sh` do these for real. The test
suite is not run within itself, nor the reference built: `.ci/run` calls these lines of the README.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMMANDS = ("gpu-patch", "torchrun", "python3", "pip", "pytest", "docker")


def put_into(folder: Path, commands: tuple[str, ...] = COMMANDS) -> None:
    """Make executables of these names."""
    folder.mkdir(parents=True, exist_ok=True)
    for command in commands:
        file = folder / command
        call = shlex.join([sys.executable, str(Path(__file__)), command])
        file.write_text(f'#!/bin/sh\nexec {call} "$@"\n')
        file.chmod(0o755)


def run_module(name: str, *arguments: str) -> None:
    os.execv(sys.executable, [sys.executable, "-W", "ignore", "-m", name, *arguments])


def make_environment(folder: str) -> None:
    put_into(Path(folder, "bin"), (*COMMANDS, "python"))
    Path(folder, "bin/activate").write_text(f"PATH={folder}/bin:$PATH\n")


def install(*requirements: str) -> None:
    """Know each requirement, and each of its extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    known = {
        ".": project["optional-dependencies"],
        project["name"]: project["optional-dependencies"],
    }
    for requirement in requirements:
        found = re.fullmatch(r"([\w.-]+)(?:\[([\w,]+)\])?", requirement)
        name, extras = found.groups() if found else (requirement, None)
        # bioio and its plugins are other projects, one plugin per format
        if name not in {*known, "pytest", "bioio", "bioio-dv"}:
            sys.exit(f"no such requirement: {requirement}")
        for extra in extras.split(",") if extras else ():
            if extra not in known[name]:
                sys.exit(f"no such extra: {requirement}")


def docker(verb: str, *arguments: str) -> None:
    """Find the file, the target and the service, and run what the container would."""
    rest = list(arguments)

    def option(name: str) -> str | None:
        if name not in rest:
            return None
        i = rest.index(name)
        _, value = rest.pop(i), rest.pop(i)
        return value

    if verb == "build":
        file = (ROOT / str(option("-f"))).read_text()
        assert option("-t") == "gpu_patch"
        target = option("--target")
        assert target is None or re.search(rf"^FROM \S+ AS {target}$", file, re.M)
        for name in re.findall(r"--build-arg (\w+)=", " ".join(rest)):
            assert re.search(rf"^ARG {name}=", file, re.M), name
        assert rest == ["."], rest
    elif verb == "run":
        assert rest.pop(0) == "--rm"
        assert option("--gpus") == "all"
        assert option("--user")
        volumes = [option("-v") for _ in range(rest.count("-v"))]
        file = (ROOT / "docker/Dockerfile").read_text()
        for volume in volumes:
            folder = str(volume).rpartition(":")[2]
            assert f"VOLUME {folder}\n" in file or f"WORKDIR {folder}\n" in file, volume
        assert rest.pop(0) == "gpu_patch"
        run_module("gpu_patch", *rest)
    else:
        assert verb == "compose"
        services = (ROOT / str(option("-f"))).read_text()
        assert rest[:2] == ["run", "--rm"]
        assert re.search(rf"^  {rest[2]}:", services, re.M)
        run_module("gpu_patch", *rest[3:])


def main(command: str, *arguments: str) -> None:
    """Do what a command would."""
    match (command, *arguments):
        case ("gpu-patch", *rest):
            run_module("gpu_patch", *rest)
        case ("torchrun", *rest):
            run_module("torch.distributed.run", *rest)
        case ("python3", "-m", "venv", folder):
            make_environment(folder)
        case ("pip", "install", "-e", *requirements) | ("pip", "install", *requirements):
            install(*requirements)
        case ("python", "-m", "pytest", *_) | ("pytest",):
            pass
        case ("python", script, _) if (ROOT / script).is_file():
            pass
        case ("docker", *rest):
            docker(*rest)
        case _:
            sys.exit(f"nothing stands in for: {shlex.join(sys.argv[1:])}")


if __name__ == "__main__":
    main(*sys.argv[1:])
