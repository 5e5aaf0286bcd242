"""Recorded results of careamics 0.3.5: the same specs, metadata and pixels."""

import json
from pathlib import Path

import numpy as np
import pytest
from builders import assert_close, make_constructor, ours, plain

FOLDER = Path(__file__).parents[1] / "golden"
CASES = json.loads((FOLDER / "cases.json").read_text())["cases"]


def load_images(arrays):
    images = {}
    for key in sorted(arrays.files, key=lambda k: [int(p) for p in k.split("_") if p.isdigit()]):
        if key.startswith(("data_input", "data_target")):
            images.setdefault(key.split("_")[1], []).append(arrays[key])
        elif key.startswith("data_sources"):
            source = int(key.split("_")[2])
            sources = images.setdefault("sources", [])
            sources.extend([] for _ in range(source + 1 - len(sources)))
            sources[source].append(arrays[key])
    return images


def test_corpus_is_complete():
    assert sorted(p.name for p in FOLDER.glob("*.npz")) == [f"case_{i:02}.npz" for i in range(32)]
    assert [record["case"]["id"] for record in CASES] == list(range(32))
    assert all(len(record["calls"]) == 4 for record in CASES)
    kinds = {record["case"]["kind"] for record in CASES}
    assert kinds == {"basic", "multichannel", "independent", "paired", "pred"}
    assert "careamics 0.3.5" in (FOLDER / "PROVENANCE.md").read_text()


@pytest.mark.parametrize("record", CASES, ids=lambda r: f"{r['case']['id']}-{r['case']['kind']}")
def test_equal_to_upstream(record, device):
    case = record["case"]
    with np.load(FOLDER / f"case_{case['id']:02}.npz") as arrays:
        constructor = make_constructor(ours(device), case, load_images(arrays))
        assert constructor.n_patches == record["n_patches"]
        assert plain(constructor.input_shapes) == record["input_shapes"]
        assert plain(constructor.target_shapes) == record["target_shapes"]
        for k, call in enumerate(record["calls"]):
            inputs, target, spec = constructor.construct_patch(call["index"])
            assert plain(spec) == call["spec"]
            assert_close(inputs, arrays[f"input_{k}"])
            if f"target_{k}" in arrays.files:
                assert_close(target, arrays[f"target_{k}"])
            else:
                assert target is None
            for name in ("input", "target"):
                metadata = getattr(constructor, f"get_{name}_image_metadata")(spec)
                assert plain(metadata) == call[f"{name}_metadata"]
