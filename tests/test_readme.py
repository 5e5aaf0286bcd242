"""The code of README and guides runs as it stands, each page from top to bottom."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import readme_commands
from pixels import distinct

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
GUIDES = sorted((ROOT / "docs/guide").glob("*.md"))
PAGES = [README, *GUIDES]
LINKED = [*PAGES, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FRAMEWORKS = ("torch", "lightning", "jax", "careamics")


class Block(NamedTuple):
    """A block of code, and the line of the page that it begins in."""

    language: str
    code: str
    line: int
    page: Path = README

    @property
    def file(self) -> str | None:
        """The name of the script that it is, if it says so."""
        found = re.match(r"# (\w+\.py)\n", self.code)
        return found and found[1]

    @property
    def needs_framework(self) -> bool:
        text = r"\b(torch|lightning|jax|torchrun|network\.pt2)\b"
        return re.search(text, self.code) is not None


def blocks(page):
    text = page.read_text()
    return [
        Block(found[1], found[2], text[: found.start(2)].count("\n") + 1, page)
        for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)
    ]


def make_images(folder):
    """Make what the recipes call files of yours."""
    tifffile = pytest.importorskip("tifffile")

    def write(name, shape, axes):
        (folder / name).parent.mkdir(exist_ok=True)
        pixels = distinct(shape, "uint16")
        tifffile.imwrite(folder / name, pixels, imagej=True, metadata={"axes": axes})

    for i in range(2):
        write(f"plate/{i}.ome.tif", (2, 150, 170), "CYX")
        write(f"nuclei/{i}.tif", (240 + i, 230), "YX")
        write(f"filaments/{i}.tif", (150, 260 + i), "YX")
        write(f"mixtures/{i}.tif", (231, 250 + i), "YX")
        write(f"separated/{i}.tif", (2, 231, 250 + i), "CYX")
        write(f"noisy/{i}.tif", (220, 190 + i), "YX")
        write(f"clean/{i}.tif", (220, 190 + i), "YX")
        (folder / "labels").mkdir(exist_ok=True)
        labels = np.arange(12, dtype="int32").reshape(4, 3).repeat(55, 0).repeat(70, 1)
        tifffile.imwrite(folder / f"labels/{i}.tif", labels[:, : 190 + i], metadata={"axes": "YX"})


def run_in_shell(block, environment):
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.code],
        env=environment, text=True, capture_output=True, timeout=300,
    )  # fmt: skip
    where = f"{block.page.name}, line {block.line}:\n{block.code}"
    assert done.returncode == 0, f"{where}\n{done.stdout}\n{done.stderr}"


def run_as_workflow(block, environment):
    """The steps of a project's own job, one after the other."""
    steps = re.findall(r"^ +- run: (.*)$", block.code, re.M)
    assert len(steps) == block.code.count("run:") >= 2
    variables = dict(re.findall(r"(\w+): (\w+)", re.findall(r"env: {(.*)}", block.code)[0]))
    for step in steps:
        run_in_shell(Block("sh", step, block.line, block.page), environment | variables)


def read(found, folder, environment):
    """Run blocks, each with what those before have made; return their Python names."""
    names = {}
    for block in found:
        if block.file:
            Path(folder, block.file).write_text(block.code)
        elif block.language == "python":
            # tracebacks then show the page's own lines
            exec(compile("\n" * (block.line - 1) + block.code, str(block.page), "exec"), names)
        elif block.language == "sh":
            run_in_shell(block, environment)
        else:
            assert block.language == "yaml"
            run_as_workflow(block, environment)
    return names


@pytest.fixture
def environment(tmp_path, monkeypatch):
    readme_commands.put_into(tmp_path / "commands")
    (tmp_path / "reader").mkdir()
    monkeypatch.chdir(tmp_path / "reader")
    make_images(tmp_path / "reader")
    path = f"{tmp_path / 'commands'}:{os.environ['PATH']}:{os.defpath}"
    return os.environ | {"PATH": path, "PYTHONPATH": str(README.parent)}


def name_of(page):
    return str(page.relative_to(ROOT))


def test_blocks_are_of_the_languages_that_run():
    found = [block for page in PAGES for block in blocks(page)]
    assert len(found) == sum(page.read_text().count("\n```") for page in PAGES) / 2
    assert {block.language for block in found} == {"python", "sh", "yaml"}
    assert sum(block.needs_framework for block in found) < len(found) / 2


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_without_frameworks(page, tmp_path, environment):
    found = [block for block in blocks(page) if not block.needs_framework]
    if not found:
        pytest.skip("all of it needs a framework")
    phantom = [] if page == README else [Block("sh", "gpu-patch demo", 0)]
    names = read([*phantom, *found], tmp_path / "reader", environment)
    if page.stem == "larger-than-memory":
        assert names["images"].cache.traffic.misses
    if page == README:
        pictures = {path.name for path in (tmp_path / "reader").glob("**/*.png")}
        assert pictures >= {"preview.png", "bench.png"}


WITH_FRAMEWORKS = [page for page in PAGES if any(b.needs_framework for b in blocks(page))]


@pytest.mark.filterwarnings("ignore")  # of the frameworks themselves
@pytest.mark.parametrize("page", WITH_FRAMEWORKS, ids=name_of)
def test_with_frameworks(page, tmp_path, environment):
    for name in FRAMEWORKS:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"needs {name}")
    found = [b for b in blocks(page) if b.needs_framework or b.language == "python"]
    names = read([Block("sh", "gpu-patch demo", 0), *found], tmp_path / "reader", environment)
    if page.stem == "training":
        assert np.isfinite(names["loss"].item())
    if page.stem == "prediction":
        assert len(list((tmp_path / "reader").glob("*/*.ome.zarr"))) == 6


def test_guides_are_listed_by_both_lists():
    for page in (README, ROOT / "docs/guide/README.md"):
        for guide in GUIDES:
            assert guide.name == "README.md" or f"{guide.name})" in page.read_text()


def test_pictures_of_guides_are_shown_small_and_can_be_drawn_anew():
    shown = "\n".join(page.read_text() for page in GUIDES)
    script = "\n".join(path.read_text() for path in (ROOT / "docs").glob("*.py"))
    pictures = sorted((ROOT / "docs/guide").glob("*.png"))
    assert pictures
    for picture in pictures:
        assert f"]({picture.name})" in shown
        assert f'"{picture.name}"' in script
        assert picture.stat().st_size <= 150_000


@pytest.mark.parametrize(
    "wrong",
    [
        "pip install '.[cuda11]'",
        "pip install gpupatch",
        "docker build -f docker/Dockerfile --target cuda14 -t gpu_patch .",
        "docker build -f Dockerfile -t gpu_patch .",
        "docker run --rm --gpus all -v $PWD:/work gpu_patch demo",
        "docker compose -f docker/compose.yaml run --rm gpu demo",
        "gpu-patch info nothing.tif",
        "conda install gpu_patch",
    ],
)
def test_wrong_commands_would_be_seen(wrong, environment):
    with pytest.raises(AssertionError, match=r"README\.md, line 7"):
        run_in_shell(Block("sh", wrong + "\n", 7), environment)


def test_what_the_text_installs_exists(environment):
    text = "\n".join(page.read_text() for page in PAGES)
    found = set(re.findall(r"`pip install\s+('?[^`;&]+)`", text))
    assert found
    for what in found:
        run_in_shell(Block("sh", f"pip install {what}".replace("\n", " "), 0), environment)


def anchors(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", LINKED, ids=name_of)
def test_links_and_pictures_lead_somewhere(page):
    targets = set(re.findall(r"\]\(([^)]+)\)", page.read_text()))
    for target in targets:
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.is_file(), target
        assert not anchor or anchor in anchors(file), target
