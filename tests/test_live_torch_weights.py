"""Weights files against PyTorch itself: what either writes, the other reads."""

import numpy as np
import pytest

from tinyseg import weights

pytestmark = pytest.mark.torch


@pytest.fixture
def network():
    import torch

    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ConvTranspose2d(4, 2, 2))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("zipped", [True, False])
def test_reads_what_pytorch_saves(tmp_path, network, zipped, protocol):
    import torch

    state = network.state_dict()
    state["unsigned"] = torch.arange(3).to(torch.uint16)
    state["complex"] = torch.randn(3, dtype=torch.complex64)
    path = tmp_path / "w.pth"
    torch.save(state, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    found, metadata = weights.load(path, metadata=True)
    assert list(found) == list(state)
    for name, tensor in state.items():
        np.testing.assert_array_equal(found[name], tensor.numpy(), strict=True)
    assert metadata["_metadata"]["1"] == {"version": 2}


@pytest.mark.parametrize("mark", ["conj", "neg"])
def test_refuses_tensors_whose_numbers_are_not_as_stored(tmp_path, mark):
    import torch

    tensor = torch.randn(3, dtype=torch.complex64).conj()
    torch.save({"a": tensor if mark == "conj" else tensor.imag}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="marked as conjugated or negated"):
        weights.load(tmp_path / "w.pth")


def test_pytorch_reads_what_is_saved(tmp_path, network):
    import torch

    arrays = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    weights.save(tmp_path / "w.pth", arrays, {"step": "3"})
    loaded = torch.load(tmp_path / "w.pth", weights_only=True)
    assert loaded.step == "3"
    network.load_state_dict(loaded)
    for name, tensor in loaded.items():
        np.testing.assert_array_equal(tensor.numpy(), arrays[name], strict=True)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"])
def test_pytorch_reads_every_dtype_and_shape(tmp_path, rng, dtype):
    import torch

    arrays = {
        str(shape): np.asarray(rng.integers(0, 2, shape)).astype(dtype)
        for shape in [(), (0, 2), (3,), (2, 1, 4), (300,)]
    }
    weights.save(tmp_path / "w.pth", arrays)
    loaded = torch.load(tmp_path / "w.pth", weights_only=True)
    for name, array in arrays.items():
        assert loaded[name].is_contiguous()
        np.testing.assert_array_equal(loaded[name].numpy(), array, strict=True)


def test_pytorch_s_safetensors_are_read(tmp_path, network):
    import torch
    from safetensors.torch import save_file

    save_file({"a": torch.tensor([1.5, -2.0]).bfloat16(), "b": network[0].weight.detach()}, tmp_path / "w.safetensors")
    found = weights.load(tmp_path / "w.safetensors")
    np.testing.assert_array_equal(found["a"], np.array([1.5, -2.0], np.float32), strict=True)
    np.testing.assert_array_equal(found["b"], network[0].weight.detach().numpy(), strict=True)
