"""Batches as tensors: without a copy, through torch's own loaders too."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from builders import KINDS
from pixels import LABEL_DTYPES, labels
from samples import make_sample

from gpu_patch import (
    BasicPatchConstr,
    ImageStack,
    PatchExtractor,
    SequentialPatching,
    open_images,
)
from gpu_patch.feed import BatchLoader

torch = pytest.importorskip("torch")

from gpu_patch.torch import (  # noqa: E402
    PatchDataset,
    TensorBatch,
    TensorLoader,
    as_tensor,
)

DataLoader = torch.utils.data.DataLoader


def dataset(kind="multichannel", **options):
    return PatchDataset(make_sample(kind).constructor, **options)


def assert_equal(tensors, batch):
    assert isinstance(tensors, TensorBatch)
    for tensor, array in zip(tensors, batch[:2], strict=True):
        if array is None:
            assert tensor is None
        else:
            assert isinstance(tensor, torch.Tensor)
            np.testing.assert_array_equal(tensor.numpy(), array)


def test_tensors_are_the_memory_of_the_arrays():
    array = make_sample("basic").constructor.construct_batch([0, 1]).input
    tensor = as_tensor(array)
    assert tensor.data_ptr() == array.ctypes.data
    tensor[0, 0, 0, 0] = 77
    assert array[0, 0, 0, 0] == 77


def test_memory_lives_as_long_as_its_tensor():
    constructor = make_sample("multichannel").constructor
    tensors = [as_tensor(constructor.construct_batch([i]).input) for i in range(20)]
    for i, tensor in enumerate(tensors):
        np.testing.assert_array_equal(tensor.numpy(), constructor.construct_batch([i]).input)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("kind", KINDS)
def test_tensor_loader_gives_what_the_loader_gives(kind, dtype):
    loader, expected = (
        BatchLoader(make_sample(kind).constructor, 5, dtype=dtype) for _ in range(2)
    )
    tensors = TensorLoader(loader)
    assert len(tensors) == len(expected)
    for _ in range(2):
        for found, batch in zip(tensors, expected, strict=True):
            assert_equal(found, batch)
    tensors.set_epoch(0)
    expected.set_epoch(0)
    for found, batch in zip(tensors, expected, strict=True):
        assert_equal(found, batch)


def test_tensor_loader_resumes():
    first = TensorLoader(BatchLoader(make_sample("pred").constructor, 4))
    batches = iter(first)
    next(batches)
    second = TensorLoader(BatchLoader(make_sample("pred").constructor, 4))
    second.load_state_dict(first.state_dict())
    for a, b in zip(batches, second, strict=True):
        assert torch.equal(a.input, b.input)


def test_states_go_through_files_and_to_loaders_of_the_same_order_alone(tmp_path):
    first = TensorLoader(BatchLoader(make_sample("pred").constructor, 4, order="blocks"))
    next(iter(first))
    torch.save(first.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state == first.state_dict()
    other = TensorLoader(BatchLoader(make_sample("pred").constructor, 4))
    with pytest.raises(ValueError, match="order='blocks', this one has order='shuffle'"):
        other.load_state_dict(state)


@pytest.mark.parametrize("n_workers", [0, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_torchs_loader_makes_whole_batches(kind, n_workers, monkeypatch):
    data = dataset(kind)
    calls, construct = [], data.constructor.construct_batch
    if n_workers == 0:

        def counted(indices, **options):
            calls.append(len(indices))
            return construct(indices, **options)

        monkeypatch.setattr(data.constructor, "construct_batch", counted)
    loader = DataLoader(data, batch_size=6, num_workers=n_workers)
    n = len(data)
    for i, found in enumerate(loader):
        assert_equal(found, construct(range(6 * i, min(6 * i + 6, n))))
    if n_workers == 0:
        assert sum(calls) == n
        assert len(calls) == -(-n // 6)


def test_any_sampler_serves():
    data = dataset()
    order = torch.randperm(len(data)).tolist()
    batches = torch.utils.data.BatchSampler(order, 7, drop_last=True)
    for indices, found in zip(batches, DataLoader(data, batch_sampler=batches), strict=True):
        assert_equal(found, data.constructor.construct_batch(indices))
    replacing = torch.utils.data.RandomSampler(data, replacement=True, num_samples=23)
    assert [len(b.input) for b in DataLoader(data, batch_size=10, sampler=replacing)] == [10, 10, 3]


def test_distributed_samplers_serve():
    data = dataset()
    found = []
    for rank in range(3):
        sampler = torch.utils.data.DistributedSampler(data, 3, rank, shuffle=True, drop_last=True)
        found += [row for b in DataLoader(data, batch_size=4, sampler=sampler) for row in b.input]
    assert len(found) == len(data) // 3 * 3
    assert len({row.numpy().tobytes() for row in found}) == len(found)


def many(n_patches=300):
    images = open_images(np.zeros((n_patches, 8, 8), np.uint8), "SYX", device="cpu")
    return PatchDataset(BasicPatchConstr(SequentialPatching(images.shapes, (8, 8)), images))


def test_a_process_of_several_that_sees_all_patches_is_told(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    data = many()
    with pytest.warns(UserWarning, match="this process is one of 2, but has taken more than its "
                      "part") as caught:  # fmt: skip
        for _ in DataLoader(data, batch_size=10, shuffle=True):
            pass
    assert len(caught) == 1
    for _ in DataLoader(data, batch_size=10):  # once
        pass
    monkeypatch.setenv("WORLD_SIZE", "1")
    for _ in DataLoader(many(), batch_size=10):
        pass


@pytest.mark.parametrize("told", [False, True])
def test_a_process_of_several_with_a_distributed_sampler_is_well(told, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    data = many()
    sampler = torch.utils.data.DistributedSampler(data, 3, 1, shuffle=True)
    for epoch in range(6):
        sampler.set_epoch(epoch)
        if told:
            data.set_epoch(epoch)
        assert len(list(DataLoader(data, batch_size=10, sampler=sampler))) == 10


def test_loaders_of_several_processes(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    constructor = make_sample("multichannel").constructor
    with pytest.warns(UserWarning, match="all of them see the same patches"):
        loader = BatchLoader(constructor, 4)
    TensorLoader(loader)
    TensorLoader(BatchLoader(constructor, 4, rank=1, world_size=2))


@pytest.mark.parametrize("n_workers", [0, 1])
def test_epochs_reach_workers_that_stay(n_workers):
    data = dataset()
    loader = DataLoader(
        data, batch_size=len(data), num_workers=n_workers, persistent_workers=n_workers > 0
    )
    for epoch in (0, 3, 0):
        data.set_epoch(epoch)
        (found,) = loader
        assert_equal(found, data.constructor.construct_batch(range(len(data)), epoch=epoch))


def test_one_patch():
    data = dataset()
    found, batch = data[3], data.constructor.construct_batch([3])
    assert_equal(TensorBatch(*(tensor[None] for tensor in found)), batch)
    assert dataset("pred")[0].target is None


def test_datasets_go_to_other_processes():
    data = dataset()
    data.set_epoch(2)
    copy = pickle.loads(pickle.dumps(data.constructor))
    assert_equal(
        PatchDataset(copy)._make([1, 5]), data.constructor.construct_batch([1, 5], epoch=0)
    )


def test_workers_cannot_use_images_on_a_device(monkeypatch):
    data = dataset()
    monkeypatch.setattr(type(data.constructor), "device", "cuda:0")
    loader = DataLoader(data, batch_size=4, num_workers=1)
    with pytest.raises(RuntimeError, match="use num_workers=0"):
        next(iter(loader))


def test_wrong_arguments():
    with pytest.raises(TypeError, match="constructor must be one of gpu_patch's constructors"):
        PatchDataset([1, 2])
    with pytest.raises(TypeError, match="loader must be a BatchLoader"):
        TensorLoader([1, 2])
    with pytest.raises(ValueError, match="epoch must be"):
        dataset().set_epoch(-1)
    with pytest.raises(IndexError):
        dataset()[10_000]


def labelled(dtype):
    sample = make_sample("basic").constructor
    shapes = sample.input_extractor.shapes
    targets = [labels((s, 1, *size), dtype, i) for i, (s, _, *size) in enumerate(shapes)]
    axes = "SCYX" if len(shapes[0]) == 4 else "SCZYX"
    return BasicPatchConstr(
        sample.patching_strategy,
        sample.input_extractor,
        PatchExtractor([ImageStack.from_array(a, axes, labels=True) for a in targets]),
        seed=1,
    )


@pytest.mark.parametrize("dtype", LABEL_DTYPES)
def test_labels_become_tensors_of_their_own_type(dtype):
    constructor = labelled(dtype)
    expected = constructor.construct_batch(range(4), target_dtype="native").target
    loader = TensorLoader(BatchLoader(constructor, 4, shuffle=False, target_dtype="native"))
    others = DataLoader(PatchDataset(constructor, target_dtype="native"), 4)
    if dtype not in ("uint16", "uint32", "uint64") or hasattr(torch, dtype):
        for tensor in (next(iter(loader)).target, next(iter(others)).target):
            assert tensor.dtype == getattr(torch, dtype)
            np.testing.assert_array_equal(tensor.numpy(), expected)
    else:
        with pytest.raises(TypeError, match=f"has no {dtype}: ask for another type"):
            next(iter(loader))


def test_cross_entropy_takes_labels_as_int64():
    constructor = labelled("uint8")
    batch = next(iter(TensorLoader(BatchLoader(constructor, 4, target_dtype="int64"))))
    logits = torch.zeros(4, 256, *batch.target.shape[2:])
    loss = torch.nn.functional.cross_entropy(logits, batch.target[:, 0])
    assert float(loss) == pytest.approx(np.log(256), rel=1e-5)
