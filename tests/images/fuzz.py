"""Opens damaged files: ``python tests/images/fuzz.py --inputs 2000``.

Whatever is done to a file, opening it ends in the image or in an error that names the file, soon
and without ending the process, and after an error nothing is resident. Where damage can be noticed,
wrong pixels never come without an error: in what is compressed with a checksum, and wherever bytes
or files are missing. TIFF has no checksum of its own, and neither do Zarr's metadata: a changed
offset, width, name or uncompressed pixel can be as valid as the right one, and is only counted.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import numpy as np

BATCH = 100
SETS = {"set": "", "companion": "x.companion.ome"}
"""Folders with images in several files, and the file that describes each."""
SLOW_S = 10
"""No input of a few kB may take so long."""
EXPECTED = ("OSError", "FileNotFoundError", "NotADirectoryError", "ValueError", "TypeError",
            "MemoryError")  # fmt: skip


def pixels() -> np.ndarray:
    """A small image, TCYX, that does not compress to nothing."""
    rng = np.random.default_rng(7)
    return rng.integers(0, 50, (2, 3, 21, 34)).astype(np.uint16)


def write_seeds(folder: Path) -> dict[str, str | None]:
    """Write undamaged inputs; return their names, and the axes to be given where they lack any."""
    import tifffile
    import zarr
    from zarr.codecs import Crc32cCodec, ZstdCodec

    data, axes = pixels(), {"axes": "TCYX"}
    tiffs = {
        "plain.tif": {"metadata": None},
        "strips.tif": {"metadata": None, "rowsperstrip": 5, "compression": "zlib"},
        "tiles.tif": {"metadata": None, "tile": (16, 16), "compression": "zlib"},
        "predicted.tif": {"metadata": None, "compression": "zlib", "predictor": True},
        "ome.ome.tif": {"ome": True, "metadata": axes, "compression": "zlib"},
        "imagej.tif": {"imagej": True, "metadata": axes},
        "big.tif": {"bigtiff": True, "metadata": axes, "tile": (16, 16)},
        "shaped.tif": {"metadata": axes, "compression": "zlib"},
    }
    for name, options in tiffs.items():
        tifffile.imwrite(folder / name, data, photometric="minisblack", **options)
    checked = {"compressors": [ZstdCodec(), Crc32cCodec()]}
    zarrs = {
        "ome4.zarr": (2, {}),
        "ome5.zarr": (3, checked),
        "sharded.zarr": (3, {"shards": (1, 3, 22, 36), **checked}),
        "raw.zarr": (3, {"compressors": None}),
    }
    for name, (version, options) in zarrs.items():
        group = zarr.open_group(folder / name, mode="w", zarr_format=version)
        chunks = (1, 1, 11, 18)
        group.create_array("0", shape=data.shape, chunks=chunks, dtype="u2", **options)[:] = data
        kinds = ("time", "channel", "space", "space")
        image = {
            "version": f"0.{version + 2}",
            "axes": [{"name": n, "type": k} for n, k in zip("tcyx", kinds, strict=True)],
            "datasets": [
                {
                    "path": "0",
                    "coordinateTransformations": [{"type": "scale", "scale": [1, 1, 0.5, 0.5]}],
                }
            ],
        }
        if version == 2:
            group.attrs["multiscales"] = [image]
        else:
            group.attrs["ome"] = {"version": "0.5", "multiscales": [image]}
    write_sets(folder, data)
    given = dict.fromkeys((*tiffs, *zarrs, *SETS, *write_instruments(folder, data)))
    return given | dict.fromkeys(
        (n for n, options in tiffs.items() if options.get("metadata") is None), "SYX"
    )


def write_instruments(folder: Path, data: np.ndarray) -> list[str]:
    """Write the formats whose packages are installed; return their names."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from lif_writer import image, write_lif
    from nd2_writer import time_loop, write_nd2

    written = []
    if find_spec("liffile"):
        write_lif(folder / "a.lif", [image("a", data, "TCYX")])
        written.append("a.lif")
    if find_spec("nd2"):
        frames = np.ascontiguousarray(data.transpose(0, 2, 3, 1))
        for name, compressed in (("a.nd2", False), ("compressed.nd2", True)):
            write_nd2(folder / name, frames, (time_loop(len(data)),), compressed=compressed)
            written.append(name)
    return written


def write_sets(folder: Path, data: np.ndarray) -> None:
    """Write folders with a file per time point: every file describes all, or a companion does."""
    import tifffile

    for name, companion in SETS.items():
        (folder / name).mkdir()
        places = "".join(
            f'<TiffData FirstT="{t}" FirstC="{c}" IFD="{c}" PlaneCount="1">'
            f'<UUID FileName="t{t}.ome.tif">urn:uuid:{t}</UUID></TiffData>'
            for t, c in np.ndindex(data.shape[:2])
        )
        n_times, n_channels, height, width = data.shape
        for t, pages in enumerate(data):
            sizes = f'SizeX="{width}" SizeY="{height}" SizeC="{n_channels}" SizeT="{n_times}"'
            text = (
                '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
                f'UUID="urn:uuid:{t}"><Image><Pixels DimensionOrder="XYZCT" Type="uint16" '
                f'SizeZ="1" {sizes}>{places}</Pixels></Image></OME>'
            )
            if companion:
                (folder / name / companion).write_text(text)
                text = (
                    '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
                    f'<BinaryOnly MetadataFile="{companion}" UUID="urn:uuid:0"/></OME>'
                )
            with tifffile.TiffWriter(folder / name / f"t{t}.ome.tif") as file:
                for c, page in enumerate(pages):
                    options = {"compression": "zlib", "rowsperstrip": 8, "metadata": None}
                    file.write(page, description=None if c else text, contiguous=False, **options)


def checksummed(name: str, file: Path, content: bytes) -> list[tuple[int, int]]:
    """Ranges of bytes in which no damage goes unnoticed."""
    if name in ("ome5.zarr", "sharded.zarr"):
        return [] if file.suffix == ".json" else [(0, len(content))]
    if file.suffix != ".tif" or name in ("plain.tif", "imagej.tif", "big.tif"):
        return []
    import tifffile

    with tifffile.TiffFile(file) as tiff:
        return [
            (start, start + count)
            for page in tiff.pages
            for start, count in zip(page.dataoffsets, page.databytecounts, strict=True)
        ]


def damage(seeds: Path, name: str, target: Path, number: int) -> tuple[str, bool]:
    """Make a damaged copy; return what was done, and whether it cannot go unnoticed."""
    rng = np.random.default_rng([11, number])
    source = seeds / name
    if source.is_dir():
        shutil.copytree(source, target)
        files = sorted(path for path in source.rglob("*") if path.is_file())
        described = (".z", "zarr", "x.companion", "t0")
        metadata = [path for path in files if path.name.startswith(described)]
        chosen = metadata if rng.random() < 0.5 else [p for p in files if p not in metadata]
        file = chosen[rng.integers(len(chosen))]
        victim = target / file.relative_to(source)
    else:
        shutil.copy(source, target)
        file, victim = source, target
    content = bytearray(file.read_bytes())
    kind = str(rng.choice(["flip", "truncate", "zero", "splice", "delete", "noise"]))
    if kind == "delete" and not source.is_dir():
        kind = "flip"
    touched: list[int] = []
    if kind == "delete":
        victim.unlink()
        return kind, True
    if kind == "truncate":
        victim.write_bytes(bytes(content[: rng.integers(len(content))]))
        return kind, True
    if kind == "flip":
        # as often in the header as anywhere
        near = len(content) if rng.random() < 0.5 else min(len(content), 512)
        touched = [int(at) for at in rng.integers(near, size=rng.integers(1, 9))]
        for at in touched:
            content[at] ^= 1 << int(rng.integers(8))
    else:
        start = int(rng.integers(len(content)))
        touched = list(range(start, min(len(content), start + int(rng.integers(1, 200)))))
        if kind == "zero":
            content[touched[0] : touched[-1] + 1] = bytes(len(touched))
        elif kind == "noise":
            content[touched[0] : touched[-1] + 1] = rng.bytes(len(touched))
        else:
            others = sorted(path for path in seeds.rglob("*") if path.is_file())
            other = others[rng.integers(len(others))].read_bytes()[: len(content)]
            n_bytes = int(rng.integers(1, len(other) + 1))
            content[:n_bytes] = other[:n_bytes]
            touched = list(range(n_bytes))
    victim.write_bytes(bytes(content))
    ranges = checksummed(name, file, file.read_bytes())
    return kind, all(any(a <= at < b for a, b in ranges) for at in touched)


def run_batch(first: int, last: int) -> None:
    """Open the inputs first … last − 1; one line each, begun before it is opened."""
    import gpu_patch

    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process
    limit = 4 << 30
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    import logging
    import warnings

    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    truth = pixels()
    with tempfile.TemporaryDirectory() as folder:
        seeds = Path(folder) / "seeds"
        seeds.mkdir()
        names = write_seeds(seeds)
        for number in range(first, last):
            name = list(names)[number % len(names)]
            target = Path(folder) / f"{number}-{name}"
            kind, noticeable = damage(seeds, name, target, number)
            print(f"{number} {name} {kind} {'noticeable' if noticeable else 'any'} ", end="")
            sys.stdout.flush()
            signal.alarm(SLOW_S)
            print(outcome(gpu_patch, target, names[name], truth))
            signal.alarm(0)
            shutil.rmtree(target) if target.is_dir() else target.unlink()


def outcome(gpu_patch, path: Path, axes: str | None, truth: np.ndarray) -> str:
    """Open a damaged input, and say in one word what came of it."""
    try:
        found = gpu_patch.open_images(path, axes, device="cpu", memory_budget=10**8, by_chunk=False)
    except Exception as error:
        if gpu_patch.residency().stacks:
            return "left-something"
        if type(error).__name__ not in EXPECTED:
            return f"raised-{type(error).__name__}"
        return "error" if str(path) in str(error) else f"unnamed-{type(error).__name__}"
    data = found.image_stacks[0].data
    # the undamaged image, whatever its axes are said to be
    return "same" if data.tobytes() == truth.tobytes() else "other"


def main() -> int:
    """Run all batches; return how many outcomes are wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=2000)
    parser.add_argument("--batch", type=int, nargs=2, help="for this script's own use")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.batch:
        run_batch(*options.batch)
        return 0
    began, results, wrong = time.monotonic(), Counter(), []
    number = 0
    while number < options.inputs:
        last = min(number + BATCH, options.inputs)
        command = [sys.executable, __file__, "--batch", str(number), str(last)]
        try:
            run = subprocess.run(command, capture_output=True, text=True, timeout=BATCH * SLOW_S)
            output, status = run.stdout, run.returncode
            said = run.stderr.strip().splitlines()[-1:]
        except subprocess.TimeoutExpired as error:
            output, status, said = (error.stdout or b"").decode(), "timeout", []
        lines = output.splitlines()
        for line in lines:
            parts = line.split()
            result = parts[4] if len(parts) == 5 else f"ended-{status}"
            results[parts[3], result] += 1
            if result not in ("same", "error") and (parts[3], result) != ("any", "other"):
                wrong.append(line if len(parts) == 5 else f"{line} {result} {said}")
        if len(lines) < last - number and (not lines or len(lines[-1].split()) == 5):
            wrong.append(f"batch {number} … {last}: {status} {said}")
            break
        number += len(lines)
    report = {
        "inputs": sum(results.values()),
        "seconds": round(time.monotonic() - began, 1),
        "outcomes": {" ".join(key): count for key, count in sorted(results.items())},
        "wrong": wrong,
    }
    print(json.dumps(report, indent=2))
    if options.json:
        options.json.write_text(json.dumps(report))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
