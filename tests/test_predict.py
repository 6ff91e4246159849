"""Tiles: the receptive field against gradients, and tiled prediction against a single pass."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyseg import Tensor, manual_seed
from tinyseg.data import Sample
from tinyseg.evaluation import automatic_tile, evaluate, evaluating, predict, predict_mask, receptive_field, to_mask
from tinyseg.evaluation.tiling import _reach, smallest_tile, tiles_along
from tinyseg.models import UNet


def make_model(in_channels=1, out_channels=1, widths=(2, 3, 4), seed=0):
    """Return a U-Net whose normalisation layers are not idle: running statistics as after training."""
    generator = manual_seed(seed)
    model = UNet(in_channels, out_channels, widths)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.array[...] = generator.normal(0, 0.3, buffer.shape)
        elif name.endswith("running_var"):
            buffer.array[...] = generator.uniform(0.5, 2, buffer.shape)
    return model


# ---- how far the network looks -----------------------------------------------------------------------------------


def test_receptive_field_by_hand():
    # One resolution: three 3x3 convolutions look one pixel further each.
    assert receptive_field(1) == (3, 3)
    # Two: the last convolution and the two after the concatenation reach 3 pixels; from there the pair of pixels that
    # a coarse pixel spreads to; two convolutions there, 4 pixels; the pair that was pooled; two convolutions.
    assert receptive_field(2) == (3 + 1 + 4 + 2, 3 + 1 + 4 + 2)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_receptive_field_is_where_the_gradient_is_not_zero(depth):
    """Weights and statistics that let nothing cancel or clip: what an output depends on, its gradient shows."""
    model = UNet(1, 1, (1,) * depth)
    for name, parameter in model.named_parameters():
        parameter.array[...] = 0.1 if name.endswith("weight") and ".bn" not in name else 1.0
    stride = 2 ** (depth - 1)
    length = 16 * stride
    ramp = 1 + np.arange(length, dtype=np.float64) / length  # max-pooling takes the last of each pair
    reach = _reach(depth)
    middle = length // 2
    with evaluating(model.to(np.float64)):
        for p in range(middle, middle + stride):
            touched = np.zeros(length, bool)
            for x in (ramp, ramp[::-1].copy()):
                x = Tensor(np.broadcast_to(x, (1, 1, 4 * stride, length)).copy(), requires_grad=True)
                model.logits(x)[0, 0, 2 * stride, p].backward()
                touched |= (x.grad.numpy() != 0).any((0, 1, 2))
            found = np.flatnonzero(touched)
            assert (p - found[0], found[-1] - p) == reach[p % stride]


# ---- cutting -----------------------------------------------------------------------------------------------------


@given(st.integers(1, 4), st.integers(1, 60), st.integers(0, 12))
def test_kept_parts_cover_the_axis_and_see_their_whole_surroundings(depth, strides, extra):
    stride = 2 ** (depth - 1)
    length, tile = strides * stride, smallest_tile(depth) + extra * stride
    reach, end = _reach(depth), 0
    for start, stop, keep_start, keep_stop in tiles_along(length, tile, depth):
        assert start % stride == 0 and stop % stride == 0 and stop - start == min(tile, length)
        assert keep_start == end and keep_stop > keep_start
        for p in (keep_start, keep_stop - 1):
            assert start == 0 or p - reach[p % stride][0] >= start
            assert stop == length or p + reach[p % stride][1] < stop
        end = keep_stop
    assert end == length


def test_wrong_tiles_are_named():
    with pytest.raises(ValueError, match=r"tile is 10; expected multiples of the network's stride 4"):
        tiles_along(64, 10, 3)
    with pytest.raises(ValueError, match=r"tile is 48; expected at least 52"):
        tiles_along(64, 48, 3)
    with pytest.raises(ValueError, match="depth is 0"):
        receptive_field(0)


def test_automatic_tile_keeps_to_its_budget():
    assert automatic_tile((8, 16, 32, 64, 128)) == 1440
    assert 32 * 64 * automatic_tile((64, 128, 256, 512, 1024)) ** 2 <= 512 * 2**20
    assert automatic_tile((1024, 1024), budget=1) == 2 * smallest_tile(2)


# ---- joining -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(90, 131), (52, 200), (3, 117), (1, 60), (121, 1), (104, 104)])
def test_tiles_join_without_a_seam(rng, size):
    model = make_model()
    picture = rng.random((1, *size), np.float32)
    whole = predict(model, picture, tile="none")
    tiled = predict(model, picture, tile=52)
    assert whole.shape == tiled.shape == (1, *size) and whole.dtype == tiled.dtype == np.float32
    np.testing.assert_allclose(tiled, whole, rtol=0, atol=1e-5)
    assert np.ptp(whole) > 1e-3  # far from a constant, which would be the same anywhere


def test_tiles_that_are_too_close_would_show_a_seam(rng):
    """The comparison above can fail: joined at the tile's edge, without overlap, the results differ."""
    model = make_model()
    picture = rng.standard_normal((1, 52, 104), np.float32)
    whole = predict(model, picture, tile="none", normalisation="none")
    halves = [
        predict(model, picture[:, :, half], tile="none", normalisation="none") for half in (slice(52), slice(52, None))
    ]
    assert abs(np.concatenate(halves, axis=2) - whole).max() > 1e-4


def test_several_channels_and_classes_in_tiles(rng):
    model = make_model(3, 4, (2, 3))
    picture = rng.random((3, 61, 47), np.float32)
    whole, tiled = predict(model, picture, tile="none"), predict(model, picture, tile=22)
    np.testing.assert_allclose(tiled, whole, rtol=0, atol=1e-5)
    np.testing.assert_allclose(tiled.sum(0), 1, atol=1e-5)


def test_small_tiles_are_enlarged_to_what_works(rng):
    model = make_model()
    picture = rng.random((1, 60, 60), np.float32)
    sizes = []
    model.register_forward_hook(lambda module, args, output: sizes.append(args[0].shape[2:]))
    predict(model, picture, tile=1)
    assert set(sizes) == {(52, 52)}


def test_a_picture_without_pixels_gives_a_result_without_pixels():
    assert predict(make_model(), np.zeros((1, 0, 5), np.float32)).shape == (1, 0, 5)


def test_each_layer_keeps_its_mode(rng):
    model = make_model().train()
    model.layer1_conv.bn1.eval()
    before = {key: value.numpy().copy() for key, value in model.state_dict().items()}
    predict(model, rng.random((1, 16, 16), np.float32))
    assert model.training and not model.layer1_conv.bn1.training and model.layer1_conv.bn2.training
    assert all((value.numpy() == before[key]).all() for key, value in model.state_dict().items())


def test_giving_up_between_tiles(rng):
    calls = []

    def stop(done, total):
        calls.append((done, total))
        if len(calls) == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        predict(make_model(), rng.random((1, 104, 104), np.float32), tile=52, before_tile=stop)
    assert calls == [(0, 196), (1, 196)]  # 52 is the smallest tile, of which 4 pixels are kept


@pytest.mark.parametrize(
    "picture, options, words",
    [
        (np.zeros((16, 16), np.float32), {}, r"picture has shape \(16, 16\); expected \(C, H, W\)"),
        (np.zeros((3, 16, 16), np.float32), {}, "picture has 3 channels; the model expects 1"),
        (np.zeros((1, 16, 16), np.float32), {"tile": 0}, "tile is 0"),
        (np.zeros((1, 16, 16), np.float32), {"tile": True}, "tile is True"),
        (np.zeros((1, 16, 16), np.float32), {"tile": "big"}, "tile is 'big'"),
        (np.zeros((1, 16, 16), np.float32), {"normalisation": "odd"}, "normalisation is 'odd'"),
    ],
)
def test_mistakes_are_named(picture, options, words):
    with pytest.raises(ValueError, match=words):
        predict(make_model(), picture, **options)


# ---- masks and scores --------------------------------------------------------------------------------------------


def test_masks_of_one_class_take_the_threshold_in_and_of_several_the_likeliest():
    p = np.array([[[0.3, 0.5, 0.7]]], np.float32)
    assert to_mask(p).tolist() == [[0, 1, 1]]
    assert to_mask(p, 0.3).tolist() == [[1, 1, 1]]
    assert to_mask(p, 1).tolist() == [[0, 0, 0]]
    assert to_mask(np.array([[[0.4, 0.2]], [[0.4, 0.3]], [[0.2, 0.5]]])).tolist() == [[0, 2]]
    with pytest.raises(ValueError, match="threshold is 1.5"):
        to_mask(p, 1.5)
    with pytest.raises(ValueError, match="probabilities has shape"):
        to_mask(p[0])


def test_evaluation_scores_what_prediction_gives(rng):
    model = make_model()
    samples = []
    for name in "ab":
        picture = rng.random((1, 30, 22), np.float32)
        found = predict_mask(model, picture, threshold=0.45)
        samples.append(Sample(picture, found.copy(), name))
    samples[1].mask[:15] ^= 1
    scores = evaluate(model, samples, threshold=0.45)
    assert [entry["pixel_error"] for entry in scores.pictures] == [0, 0.5]
    assert [entry["name"] for entry in scores.pictures] == ["a", "b"]
    assert scores.pictures[0]["dice"] == 1
