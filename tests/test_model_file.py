"""Files of a trained U-Net: what is read from any weights, and what is said of wrong ones."""

import numpy as np
import pytest

from tinyseg import weights
from tinyseg.models import UNet
from tinyseg.training import load_model


def test_plain_weights_tell_the_shape_of_the_network(tmp_path):
    weights.save(tmp_path / "m.npz", UNet(3, 2, (2, 3, 5)).state_dict())
    model, info = load_model(tmp_path / "m.npz")
    assert (model.in_channels, model.out_channels, model.widths) == (3, 2, (2, 3, 5))
    assert info["normalisation"] == {"kind": "standardise"}


def test_wrong_weights_are_named(tmp_path):
    state = UNet(1, 1, (2, 4)).state_dict()
    weights.save(tmp_path / "other.npz", {"fc.weight": np.zeros((2, 2))})
    with pytest.raises(ValueError, match="does not hold the weights of a U-Net"):
        load_model(tmp_path / "other.npz")
    weights.save(tmp_path / "less.npz", {k: v for k, v in state.items() if k != "layer1_conv.conv2.weight"})
    with pytest.raises(ValueError, match="less.npz.*layer1_conv.conv2.weight"):
        load_model(tmp_path / "less.npz")
    weights.save(tmp_path / "odd.safetensors", state, {"tinyseg": '{"architecture": "resnet"}'})
    with pytest.raises(ValueError, match="is a 'resnet'; expected a 'unet'"):
        load_model(tmp_path / "odd.safetensors")
    weights.save(tmp_path / "torn.safetensors", state, {"tinyseg": '{"architecture": "unet"'})
    with pytest.raises(ValueError, match="description that is damaged"):
        load_model(tmp_path / "torn.safetensors")


def renamed(state, old, new):
    return {new if name == old else name: value for name, value in state.items()}


def test_a_misspelt_name_is_found(tmp_path):
    state = renamed(UNet(1, 1, (2, 4)).state_dict(), "layer2_conv.conv1.weight", "layer2_conv.conv1.wieght")
    weights.save(tmp_path / "plain.pth", state)
    expected = (
        "no 'layer2_conv.conv1.weight', of a U-Net of 2 levels; the nearest name there is 'layer2_conv.conv1.wieght'"
    )
    with pytest.raises(ValueError, match=expected):
        load_model(tmp_path / "plain.pth")


def test_a_wrong_shape_is_named_with_what_was_expected(tmp_path):
    state = UNet(1, 1, (2, 4)).state_dict()
    weights.save(tmp_path / "w.npz", {**state, "layer1_conv.conv2.weight": np.zeros((2, 2, 5, 5), np.float32)})
    with pytest.raises(ValueError, match=r"conv2.weight' has shape \(2, 2, 5, 5\); expected \(2, 2, 3, 3\)"):
        load_model(tmp_path / "w.npz")
