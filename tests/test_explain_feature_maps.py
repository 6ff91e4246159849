"""Feature maps: the arrays are what the layers put out, named as the modules are, and the sheet shows them."""

import json

import numpy as np
import pytest

from tinyseg import Tensor, backend, explain, models, nn, no_grad, ops, random


@pytest.fixture(autouse=True)
def same_backend_afterwards():
    with backend.use_backend("cpu"):
        yield


def picture(*shape):
    return np.random.default_rng(0).random(shape, np.float32)


@pytest.fixture(scope="module")
def unet():
    random.manual_seed(0)
    return models.UNet(widths=(4, 6))


def test_maps_of_a_unet_are_what_its_layers_give(unet):
    x = picture(12, 16)
    maps = explain.feature_maps(unet, x)
    assert maps.names == [
        *(f"layer1_conv{part}" for part in (".conv1", ".bn1", ".conv2", ".bn2", "")),
        *(f"layer2_conv{part}" for part in (".conv1", ".bn1", ".conv2", ".bn2", "")),
        *("deconv1.conv1", "deconv1.bn1", "deconv1"),
        *(f"layer3_conv{part}" for part in (".conv1", ".bn1", ".conv2", ".bn2", "")),
        *("layer4_conv", "output"),
    ]
    with no_grad():
        first = ops.conv2d(Tensor(x[None, None]), unet.layer1_conv.conv1.weight, unet.layer1_conv.conv1.bias, padding=1)
        whole = unet.eval()(Tensor(x[None, None]))
    unet.train()
    np.testing.assert_allclose(maps["layer1_conv.conv1"], first.numpy()[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(maps["output"], whole.numpy()[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(maps["layer1_conv"], np.maximum(maps["layer1_conv.bn2"], 0))
    assert maps["layer2_conv"].shape == (6, 6, 8)
    assert maps.rows[0].kind == "Conv2d"
    assert maps.rows[4].kind == "DoubleConv"


def test_the_table_counts(unet):
    maps = explain.feature_maps(unet, picture(8, 8))
    for row in maps.rows:
        array = maps[row.layer]
        assert row.shape == array.shape
        assert (row.low, row.high) == (array.min(), array.max())
        assert row.mean == pytest.approx(array.mean(), abs=1e-6)
        assert row.zeros == np.count_nonzero(array == 0) / array.size
    assert json.loads(maps.to_json())["rows"][0]["shape"] == [4, 8, 8]
    assert str(maps).splitlines()[4].split()[:3] == ["layer1_conv.conv1", "Conv2d", "4"]


def test_layers_by_name(unet):
    assert explain.feature_maps(unet, picture(8, 8), ["layer4_conv", "output"]).names == ["layer4_conv", "output"]
    assert explain.feature_maps(unet, picture(8, 8), "deconv1").names == ["deconv1"]
    with pytest.raises(ValueError, match="layers has 'layer9'; expected names of layers with maps: layer1_conv.conv1,"):
        explain.feature_maps(unet, picture(8, 8), ["layer9"])
    with pytest.raises(KeyError, match="no layer 'layer1'"):
        explain.feature_maps(unet, picture(8, 8))["layer1"]


def test_a_detector_s_backbone():
    random.manual_seed(0)
    model = models.faster_rcnn(3, width=2, channels=4, representation_size=4, min_size=64, max_size=64)
    maps = explain.feature_maps(model, picture(3, 32, 64))
    assert maps.picture.shape == (3, 32, 64)  # as its own scaling and padding make it
    assert maps["body.conv1"].shape == (2, 16, 32)
    assert [maps[f"fpn[{level}]"].shape for level in range(4)] == [(4, 8, 16), (4, 4, 8), (4, 2, 4), (4, 1, 2)]
    assert not [name for name in maps if name.startswith("output")]  # the pyramid's, named already
    assert explain.feature_maps(model, picture(3, 32, 64), ["fpn"]).names == [f"fpn[{n}]" for n in (0, 1, 2, 3, "pool")]
    wide = explain.feature_maps(model, picture(3, 16, 16))
    assert wide.picture.shape == (3, 64, 64)


def test_a_layer_that_runs_twice_is_kept_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, x):
            return self.conv(self.conv(x))

    maps = explain.feature_maps(Twice(), picture(5, 5))
    assert maps.names == ["conv", "conv#2"]
    assert np.any(maps["conv"] != maps["conv#2"])


def test_channels_by_variance(unet):
    maps = explain.feature_maps(unet, picture(8, 8))
    variances = maps["layer2_conv"].var(axis=(1, 2))
    chosen = maps.channels("layer2_conv", 4)
    assert len(chosen) == 4
    assert variances[chosen].tolist() == sorted(variances, reverse=True)[:4]


def test_the_sheet(unet):
    maps = explain.feature_maps(unet, picture(8, 8))
    figure = maps.figure(["layer1_conv", "layer2_conv"], channels=3)
    assert len(figure.axes) == 1 + 2 * 3
    np.testing.assert_array_equal(
        figure.axes[1].images[0].get_array(), maps["layer1_conv"][maps.channels("layer1_conv")[0]]
    )
    assert [axes.get_title() for axes in figure.axes[1:4]] == [str(c) for c in maps.channels("layer1_conv", 3)]
    assert "2 of 20 layers" in figure.texts[0].get_text()
    assert maps.figure().axes
    with pytest.raises(ValueError, match="layers has 'nothing'"):
        maps.figure(["nothing"])


def test_large_networks_are_drawn_by_blocks():
    maps = explain.feature_maps(models.resnet18(width=2).train(), picture(3, 32, 32))
    assert len(maps) > 40
    names = maps._outermost()
    assert {"conv1", "layer1", "layer2", "layer3", "layer4"} <= set(names)
    assert len(names) <= 20


def test_looking_changes_nothing(unet):
    before = {name: value.numpy().copy() for name, value in unet.state_dict().items()}
    explain.feature_maps(unet, picture(8, 8))
    assert unet.training
    assert not any(module._hooks for module in unet.modules())
    for name, value in unet.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[name])


def test_pictures_that_do_not_fit(unet):
    with pytest.raises(ValueError, match=r"picture has shape \(2, 1, 8, 8\)"):
        explain.feature_maps(unet, picture(2, 1, 8, 8))
    with pytest.raises(TypeError, match="picture has dtype uint8"):
        explain.feature_maps(unet, np.zeros((8, 8), np.uint8))
    with pytest.raises(ValueError, match="without maps"):
        explain.feature_maps(nn.Sequential(nn.Flatten()), picture(8, 8))
