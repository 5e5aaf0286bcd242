"""What importing the package costs, and what it exports."""

import ast
import inspect
import json
import re
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest

import gpu_patch

PACKAGE = Path(gpu_patch.__file__).parent
TESTED = ("io", "cli", "test")
"""Extras whose oldest versions are tested."""
OPTIONAL = ("cupy", "torch", "zarr", "tifffile", "matplotlib", "PIL", "tqdm", "skimage", "scipy")

IMPORTED = """
import json, sys
import numpy, numpy.random
before = set(sys.modules)
import gpu_patch
print(json.dumps([sorted(before), sorted(set(sys.modules) - before)]))
"""


def test_import_needs_numpy_and_the_standard_library_alone(tmp_path):
    command = [sys.executable, "-c", IMPORTED]
    output = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    before, after = json.loads(output.stdout)
    assert "gpu_patch" not in before
    assert "gpu_patch" in after
    found = {name.split(".")[0] for name in after}
    assert not found & set(OPTIONAL)
    assert not found & {"asyncio", "multiprocessing", "subprocess"}  # which take long themselves
    assert found - set(sys.stdlib_module_names) <= {"gpu_patch", "numpy"}
    assert not output.stderr


# names that users import
CONSTRUCTORS = {
    "BasicPatchConstr": [
        *("patching_strategy", "input_extractor"),
        *("target_extractor=None", "channels=None"),
    ],
    "MultiChannelTargetMsPatchConstr": [
        *("patching_strategy", "target_extractor", "multiscale_count", "padding_mode"),
        *("alpha_ranges", "uncorrelated_channel_prob", "channels=None", "rng=None"),
    ],
    "IndependentTargetsMsPatchConstr": [
        *("patching_strategies", "target_extractors", "multiscale_count", "padding_mode"),
        *("alpha_ranges", "rng=None"),
    ],
    "PairedInputTargetMsPatchConstr": [
        *("patching_strategy", "input_extractor", "target_extractor"),
        *("multiscale_count", "padding_mode"),
    ],
    "PredMsPatchConstr": [
        *("patching_strategy", "input_extractor", "multiscale_count", "padding_mode"),
    ],
}
STRATEGIES = {
    "RandomPatching": ["data_shapes", "patch_size", "seed=None"],
    "FixedRandomPatching": ["data_shapes", "patch_size", "seed=None"],
    "SequentialPatching": ["data_shapes", "patch_size", "overlaps=None"],
    "TiledPatching": ["data_shapes", "patch_size", "overlaps"],
    "WholeSamplePatching": ["data_shapes"],
    "FixedPatching": ["fixed_patch_specs"],
    "StratifiedPatching": ["data_shapes", "patch_size", "seed=None"],
}
METHODS = {
    "construct_patch": ["index"],
    "construct_batch": ["indices", "*", "epoch=0"],
    "get_patch_indices": ["data_idx"],
    "get_principal_input": ["input_patch"],
    "get_input_image_metadata": ["patch_spec"],
    "get_target_image_metadata": ["patch_spec"],
}
PROPERTIES = ("n_patches", "input_shapes", "target_shapes")
DICTS = {
    "PatchSpecs": ["data_idx", "sample_idx", "coords", "patch_size"],
    "TileSpecs": ["crop_coords", "crop_size", "stitch_coords", "total_tiles"],
    "UncorrelatedPatchSpecs": [
        *("principal_channel", "all_data_idx", "all_sample_idx", "all_coords"),
    ],
    "ImageMetadata": [
        *("source", "dtype", "data_shape", "original_data_shape", "additional_metadata"),
    ],
}
OTHERS = ["PatchConstr", "Patching", "PatchExtractor", "ImageStack", "PatchBatch"]


def parameters(function):
    """Names in order, with their defaults; those after "*" are keyword-only."""
    found = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name == "self":
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in found:
            found.append("*")
        none = parameter.default is parameter.empty
        found.append(parameter.name if none else f"{parameter.name}={parameter.default!r}")
    return found


def positional(function):
    found = parameters(function)
    return found[: found.index("*")] if "*" in found else found


def test_everything_is_exported():
    names = [*CONSTRUCTORS, *STRATEGIES, *DICTS, *OTHERS]
    missing = [name for name in names if name not in gpu_patch.__all__]
    assert not missing
    assert all(hasattr(gpu_patch, name) for name in gpu_patch.__all__)
    assert sorted(gpu_patch.__all__) == sorted(set(gpu_patch.__all__))
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", gpu_patch.__version__)


@pytest.mark.parametrize(("name", "expected"), CONSTRUCTORS.items())
def test_parameters_of_the_constructors_are_the_references(name, expected):
    kind = getattr(gpu_patch, name)
    assert positional(kind.__init__) == expected
    own = parameters(kind.__init__)[len(expected) :]
    assert own[:2] == ["*", "seed=None"]
    assert all("=" in parameter for parameter in own[1:])
    assert positional(kind) == expected


@pytest.mark.parametrize(("name", "expected"), STRATEGIES.items())
def test_parameters_of_the_strategies(name, expected):
    kind = getattr(gpu_patch, name)
    assert parameters(kind.__init__) == expected
    assert gpu_patch.Patching in kind.__mro__
    assert parameters(kind.get_patch_spec) == ["index"]
    assert parameters(kind.get_patch_indices) == ["data_idx"]
    assert isinstance(inspect.getattr_static(kind, "n_patches"), property)


@pytest.mark.parametrize("name", [*CONSTRUCTORS, "PatchConstr"])
def test_members_of_the_constructors(name):
    kind = getattr(gpu_patch, name)
    for method, expected in METHODS.items():
        found = parameters(getattr(kind, method))
        assert found[: len(expected)] == expected
        assert all("=" in parameter or parameter == "*" for parameter in found[len(expected) :])
        assert "*" in found or len(found) == len(expected)
    for member in PROPERTIES:
        assert isinstance(inspect.getattr_static(kind, member), property)
    assert gpu_patch.PatchConstr in kind.__mro__


def test_members_of_images():
    stack, extractor = gpu_patch.ImageStack, gpu_patch.PatchExtractor
    patch = ["coords", "patch_size"]
    assert parameters(stack.from_array) == ["data", "axes", "*", "device=None", "labels=False"]
    assert positional(stack.from_tiff)[0] == "path"
    assert positional(stack.from_tiff)[1].split("=")[0] == "axes"
    more = ["allow_missing_chunks=False", "keep_alpha=False", "labels=False"]
    assert parameters(stack.from_tiff)[2:] == ["*", "device=None", *more]
    assert parameters(stack.extract_patch) == ["sample_idx", "channels", *patch]
    assert parameters(extractor.__init__) == ["image_stacks"]
    assert parameters(extractor.extract_patch) == ["data_idx", "sample_idx", *patch]
    expected = ["data_idx", "sample_idx", "channels", *patch]
    assert parameters(extractor.extract_channel_patch) == expected


@pytest.mark.parametrize(("name", "keys"), DICTS.items())
def test_keys_of_the_dicts(name, keys):
    plain = [] if name in ("PatchSpecs", "ImageMetadata") else DICTS["PatchSpecs"]
    assert set(getattr(gpu_patch, name).__annotations__) == {*plain, *keys}
    assert gpu_patch.PatchBatch._fields == ("input", "target", "specs")


def sources():
    return [pytest.param(path, id=str(path.relative_to(PACKAGE))) for path in PACKAGE.rglob("*.py")]


@pytest.mark.parametrize("path", sources())
def test_nothing_is_left_to_do(path):
    text = path.read_text()
    assert not re.search(r"TODO|FIXME|XXX|\b[Ss]tub\b|[Nn]ot implemented|[Cc]oming soon", text)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            abstract = any("abstract" in ast.unparse(d) for d in node.decorator_list)
            overload = any("overload" in ast.unparse(d) for d in node.decorator_list)
            body = [n for n in node.body if not isinstance(getattr(n, "value", None), ast.Constant)]
            empty = all(isinstance(n, ast.Pass) for n in body)
            assert not empty or overload or body == [], f"{node.name} has no body"
            raises = "raise NotImplementedError" in ast.unparse(node)
            assert not raises or abstract, f"{node.name} is unfinished"


def test_the_oldest_versions_that_are_tested_are_those_allowed():
    root = Path(__file__).parents[1]
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    lines = [*extras["dependencies"], *chain(*map(extras["optional-dependencies"].get, TESTED))]
    lowest = dict(line.split(">=") for line in lines if ">=" in line)
    pinned = re.findall(r"^([\w-]+)==([\d.]+)$", (root / "tests/oldest.txt").read_text(), re.M)
    assert {name for name, _ in pinned} == set(lowest)
    for name, version in pinned:
        assert f"{version}.0".startswith(f"{lowest[name]}."), name


def test_torch_is_asked_for_by_its_extra():
    code = "import sys; sys.modules['torch'] = None; import gpu_patch.torch"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "gpu_patch.torch needs PyTorch: pip install 'gpu_patch[torch]'" in done.stderr
