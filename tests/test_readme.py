"""The README's Python blocks run as they stand, one after the other."""

import importlib.util
import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
NEEDS = [
    next((name for name in ("torch", "cupy") if f"import {name}\n" in block), "numpy")
    for block in BLOCKS
]


def test_readme_has_examples():
    assert len(BLOCKS) >= 4
    assert NEEDS.count("numpy") >= 3


@pytest.mark.parametrize("last", range(len(BLOCKS)))
def test_blocks_run(last, tmp_path, monkeypatch, capsys):
    """Each with what those before it have made."""
    if importlib.util.find_spec(NEEDS[last]) is None:
        pytest.skip(f"needs {NEEDS[last]}")
    monkeypatch.chdir(tmp_path)
    names = {}
    for block, needed in zip(BLOCKS[: last + 1], NEEDS[: last + 1], strict=True):
        if importlib.util.find_spec(needed):
            exec(compile(block, str(README), "exec"), names)
    assert "Traceback" not in capsys.readouterr().out
