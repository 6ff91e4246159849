"""Receptive fields against numbers worked out by hand: 1 + 2k for k convolutions 3x3, and so on up the networks."""

import json

import numpy as np
import pytest

from tinyseg import backend, explain, models, nn, ops, random


@pytest.fixture(autouse=True)
def same_backend_afterwards():
    with backend.use_backend("cpu"):
        yield


def field(model, shape, *args, pictures=0, **options):
    return explain.receptive_field(model, shape, *args, pictures=pictures, **options)


def convolutions(count, size=3, **options):
    return nn.Sequential(*(nn.Conv2d(1, 1, size, padding=size // 2, **options) for _ in range(count)))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_chain_of_convolutions_sees_one_and_twice_their_number(count):
    found = field(convolutions(count), (1, 24, 21))
    side = 1 + 2 * count
    assert found.size == (side, side)
    assert found.box == (10 - count, 12 - count, 11 + count, 13 + count)
    assert found.stride == (1, 1)
    assert found.cut_off == ()


def test_other_kernels_strides_and_dilations():
    assert field(nn.Sequential(nn.Conv2d(1, 1, (1, 5))), (1, 9, 9)).size == (1, 5)
    assert field(nn.Sequential(nn.Conv2d(1, 1, 3, dilation=4)), (1, 15, 15)).size == (9, 9)
    # 2x2 pooling after a 3x3: 4 pixels, 2 apart; a 3x3 on that: 4 + 2 * 2
    model = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.MaxPool2d(2), nn.Conv2d(1, 1, 3, padding=1))
    found = field(model, (1, 20, 30))
    assert (found.size, found.stride) == ((8, 8), (2, 2))
    assert found.box == (14 - 3, 10 - 3, 14 + 5, 10 + 5)  # cell (5, 7) pools rows 10, 11 and columns 14, 15
    # three steps of stride 2 with 3x3 kernels: 1 + 2 + 4 + 8
    assert field(convolutions(3, stride=2), (1, 64, 64)).size == (15, 15)


def test_a_transposed_convolution_sees_one_cell():
    model = nn.Sequential(nn.ConvTranspose2d(1, 1, 2, stride=2))
    assert field(model, (1, 6, 6), at=(5, 4)).box == (2, 2, 3, 3)


def test_at_the_border_the_field_is_cut_off():
    found = field(convolutions(2), (1, 12, 12), at=(0, 11))
    assert found.box == (9, 0, 12, 3)
    assert found.cut_off == ("top", "right")
    assert "on a larger one it may see more" in str(found)


def test_every_cell_of_a_small_network_by_brute_force():
    random.manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1), nn.Conv2d(3, 2, (2, 3))
    )
    for at in np.ndindex(2, 1):
        found = field(model, (2, 12, 11), at=at)
        reached = np.zeros((12, 11), bool)
        for place in np.ndindex(12, 11):
            x = np.random.default_rng(0).standard_normal((1, 2, 12, 11)).astype(np.float32)
            x[0, 1, place[0], place[1]] = np.nan
            reached[place] = np.isnan(model(x).numpy()[0, :, at[0], at[1]]).any()
        rows, columns = np.flatnonzero(reached.any(axis=1)), np.flatnonzero(reached.any(axis=0))
        assert found.box == (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)


def test_the_unet_of_the_article():
    # Twice 3x3 adds 4 cells, pooling one, each as wide as 1, 2, 4, 8, 16 pixels:
    # 5, 6, 14, 16, 32, 36, 68, 76, 140
    model = models.UNet(widths=(2, 2, 2, 2, 2))
    shape = (1, 224, 240)
    for level, size in enumerate((5, 14, 32, 68, 140), 1):
        found = field(model, shape, f"layer{level}_conv")
        assert found.size == (size, size)
        assert found.stride == (2 ** (level - 1), 2 ** (level - 1))
    # a 2x2 transposed convolution sees one cell below, and of that, two convolutions 3x3 see three, 16 pixels apart
    assert field(model, shape, "deconv1", at=(12, 14)).size == (140, 140)
    assert field(model, shape, "layer6_conv", at=(12, 14)).size == (140 + 2 * 16, 140 + 2 * 16)
    # at the end it depends on where the cell lies
    for at in ((112, 120), (101, 119), (100, 126)):
        y1, y2 = rows_of_the_article_s_unet(at[0])
        x1, x2 = rows_of_the_article_s_unet(at[1])
        assert field(model, shape, at=at).box == (x1, y1, x2 + 1, y2 + 1)
    assert field(model, shape).size == (188, 204)


def rows_of_the_article_s_unet(row):
    """Return the first and last row that a row of the output sees: down the net's layers, one after the other."""
    first, last = row - 1, row + 1  # layer10_conv
    for _ in range(4):
        first, last = first - 2, last + 2  # twice 3x3
        first, last = first // 2, last // 2  # upwards, of each cell two by two
    for level in range(5):
        first, last = first - 2, last + 2
        if level < 4:
            first, last = 2 * first, 2 * last + 1  # pooling
    return first, last


def test_residual_networks_as_published():
    # 7x7 and 3x3 with stride 2 see 7 + 2 * 2 = 11. Stage 1 adds four times 2 cells of 4 pixels: 43. Each further stage
    # begins with a stride in its first 3x3: 43 + 2 * 4 + 3 * 2 * 8 = 99, and so on
    body = models.resnet18(width=2)
    for stage, size in ((1, 43), (2, 99), (3, 211)):
        found = field(body, (3, 256, 256), f"layer{stage}")
        assert found.size == (size, size)
        assert found.stride == (2 ** (stage + 1),) * 2
    assert field(body, (3, 480, 480), "layer4").size == (435, 435)


def test_the_levels_of_a_pyramid_of_a_detector():
    model = models.faster_rcnn(3, width=2, channels=2, representation_size=4)
    own = field(model, (3, 160, 160), "body.layer1")
    assert own.size == (43, 43)
    finest = field(model, (3, 160, 160), "fpn[0]")
    assert finest.cut_off == ("left", "top", "right", "bottom")  # it knows what the coarsest knows
    assert finest.layer == "fpn[0]"
    assert field(model, (3, 160, 160)).map_shape == (2, 40, 40)
    assert finest.stride == (4, 4)


# ---- the effective field ---------------------------------------------------------------------------------------------


def test_effective_field_of_equal_weights_is_a_power_of_the_window():
    # k windows of three ones, one after the other: the gradient is the window with itself, k times
    model = convolutions(3, bias=False)
    for layer in model:
        layer.weight.array[...] = 1
    found = field(model, (1, 9, 9), pictures=2)
    row = np.convolve(np.convolve([1, 1, 1], [1, 1, 1]), [1, 1, 1])
    expected = np.zeros((9, 9))
    expected[1:8, 1:8] = np.outer(row, row)
    np.testing.assert_allclose(found.effective, expected, rtol=1e-6)
    # of 1 3 6 7 6 3 1 over 7: products of at least 0.0455 * 49 = 2.2: all but 1 * 1
    assert found.effective_size == pytest.approx(np.sqrt(45))
    assert found.effective_share == pytest.approx(45 / 49)


def test_effective_field_lies_inside_and_repeats():
    random.manual_seed(0)
    model = models.UNet(widths=(2, 3, 4))
    found = field(model, (1, 64, 64), pictures=3)
    x1, y1, x2, y2 = found.box
    outside = found.effective.copy()
    outside[y1:y2, x1:x2] = 0
    assert not outside.any()
    assert 0 < found.effective_size < found.size[0]
    np.testing.assert_array_equal(field(model, (1, 64, 64), pictures=3).effective, found.effective)
    assert np.any(field(model, (1, 64, 64), pictures=3, seed=1).effective != found.effective)


def test_looking_changes_nothing():
    model = models.UNet(widths=(2, 3))
    model.layer1_conv.conv1.weight.grad = gradient = nn.Parameter(np.ones((2, 1, 3, 3), np.float32))
    before = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    chance = random.get_state()
    field(model, (1, 16, 16), pictures=2)
    assert model.training
    assert model.layer1_conv.conv1.weight.grad is gradient
    assert not any(module._hooks for module in model.modules())
    assert random.get_state() == chance
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[name])


def test_words_json_and_figure():
    random.manual_seed(0)
    found = field(convolutions(3), (1, 15, 15), pictures=2)
    assert "The cell in row 7, column 7 sees 7 x 7 pixels: rows 4 to 10, columns 4 to 10." in str(found)
    data = json.loads(found.to_json())
    assert data["box"] == [4, 4, 11, 11]
    assert data["effective_size"] == found.effective_size
    figure = found.figure(np.zeros((15, 15)))
    frames = [patch for patch in figure.axes[0].patches if patch.get_width() == 7]
    assert [(frame.get_x(), frame.get_y(), frame.get_height()) for frame in frames] == [(3.5, 3.5, 7)]
    assert field(convolutions(3), (1, 15, 15)).figure().axes
    with pytest.raises(ValueError, match=r"picture has shape \(14, 15\)"):
        found.figure(np.zeros((14, 15)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((1, 9),), r"shape is \(1, 9\)"),
        (((2, 1, 9, 9),), r"shape is \(2, 1, 9, 9\)"),
        (((1, 9, 9), "3"), "layer is '3'; expected the name of one, such as '"),
        (((1, 9, 9), None, (9, 0)), r"at is \(9, 0\); expected row and column of a map of 9 x 9 cells"),
    ],
)
def test_arguments_that_do_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        field(convolutions(2), *arguments)


def test_types_and_layers_that_do_not_fit():
    with pytest.raises(TypeError, match=r"shape is \(1, 9.5, 9\)"):
        field(convolutions(1), (1, 9.5, 9))
    with pytest.raises(TypeError, match="at is"):
        field(convolutions(1), (1, 9, 9), at=(1, 2.5))
    with pytest.raises(ValueError, match="pictures is -1"):
        field(convolutions(1), (1, 9, 9), pictures=-1)

    class Constant(nn.Module):
        def forward(self, x):
            return ops.relu(np.ones(x.shape, np.float32))

    with pytest.raises(ValueError, match="depends on no pixel"):
        field(Constant(), (1, 9, 9))
    with pytest.raises(ValueError, match=r"gives an array of shape \(1, 5\); expected maps"):
        field(models.resnet18(5, width=2), (3, 32, 32))
