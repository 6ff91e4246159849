"""The U-Net: the article's numbers, and every other shape it comes in."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from tape_gradients import check_gradients

import tinyseg
from tinyseg import Tensor, ops
from tinyseg.backend import record_kernels
from tinyseg.models import UNet
from tinyseg.models.unet import pad_to_multiple

STORED = Path(__file__).parent / "reference" / "unet_article.npz"
MODES = ["eval", "train"]


@cache
def stored():
    """Return the stored arrays, and the notes on them."""
    with np.load(STORED, allow_pickle=False) as file:
        return {key: file[key] for key in file.files}, json.loads(str(file["meta"]))


def article(mode, dtype=np.float32):
    arrays, _ = stored()
    model = UNet().to(dtype)
    model.load_state_dict({key[3:]: value for key, value in arrays.items() if key.startswith("sd/")})
    return model.train(mode == "train")


def keep_relu_from_flipping(model, mode):
    """Put one value back where exact arithmetic has it.

    In evaluation, the value of ``deconv2.bn1`` at (0, 16, 3, 1) is 3.9e-8, less than the rounding of float32. Whether
    it comes out above or below 0 is chance, decides whether ReLU lets its gradient through, and so changes all
    gradients of the layers before it by up to a hundredth.
    """
    if mode != "eval":
        return

    def put_back(module, args, output):
        value = output.numpy()[0, 16, 3, 1]
        assert abs(value) < 1e-5
        output.numpy()[0, 16, 3, 1] = 3.9e-8

    model.deconv2.bn1.register_forward_hook(put_back)


def relative_error(actual, expected):
    return np.abs(actual - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("backend", "dtype", "winograd"),
    [
        ("cpu", np.float32, False),
        ("cpu", np.float32, True),
        ("cpu", np.float64, False),
        ("naive", np.float32, False),
    ],
)
def test_article(backend, dtype, winograd, mode):
    """Output, loss, every gradient and the running statistics. Bounds: ten times PyTorch's own rounding, and more
    where a sum runs over all pixels. With Winograd's larger rounding, other values near 0 may come out on the other
    side in evaluation (see ``keep_relu_from_flipping``)."""
    bound = 1e-3 if winograd and mode == "eval" else 3e-5
    arrays, meta = stored()
    errors = meta["cases"][mode]["err"]
    model = article(mode, dtype)
    keep_relu_from_flipping(model, mode)
    x = Tensor(arrays["io/x"].astype(dtype), requires_grad=True)
    with tinyseg.use_backend(backend), tinyseg.use_winograd(winograd):
        y = model(x)
        loss = ops.binary_cross_entropy(y, arrays["io/t"])
        loss.backward()
    assert y.dtype == loss.dtype == dtype
    np.testing.assert_allclose(y.numpy(), arrays[f"{mode}/y"], rtol=0, atol=10 * errors["y"])
    assert loss.item() == pytest.approx(float(arrays[f"{mode}/loss"]), abs=2e-7)

    gradients = {"x": x.grad, **{name: parameter.grad for name, parameter in model.named_parameters()}}
    assert {f"{mode}/g_{name}" for name in gradients} == {key for key in arrays if key.startswith(f"{mode}/g_")}
    for name, gradient in gradients.items():
        expected = arrays[f"{mode}/g_{name}"]
        if mode == "train" and ".conv" in name and name.endswith(".bias"):
            # before a BatchNorm: the exact gradient is 0, and both numbers are rounding
            assert np.abs(gradient.numpy()).max() < 1e-6, name
            assert np.abs(expected).max() < 1e-6, name
        else:
            assert relative_error(gradient.numpy(), expected) < bound, name

    for name, buffer in model.named_buffers():
        if name.endswith("num_batches_tracked"):
            assert buffer.item() == (mode == "train")
        elif mode == "train":
            np.testing.assert_allclose(
                buffer.numpy(), arrays[f"train/after_{name}"], rtol=1e-5, atol=1e-6, err_msg=name
            )
        else:
            np.testing.assert_array_equal(buffer.numpy(), arrays[f"sd/{name}"].astype(dtype), err_msg=name)


@pytest.mark.parametrize("mode", MODES)
def test_article_layer_by_layer(mode):
    """Mean and standard deviation of each layer's output."""
    arrays, meta = stored()
    seen = {}
    model = article(mode)
    for name, module in model.named_children():
        module.register_forward_hook(lambda m, args, output, name=name: seen.update({name: output.numpy()}))
    with tinyseg.no_grad():
        model(arrays["io/x"])
    order = meta["cases"][mode]["err"].get("layer_order") or meta["cases"]["train"]["err"]["layer_order"]
    assert list(seen) == order
    expected = arrays[f"{mode}/act_mean_std"]
    actual = [(seen[name].mean(dtype=np.float64), seen[name].std(dtype=np.float64, ddof=1)) for name in order]
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("winograd", [True, False])
def test_training_joins_nothing_unless_somebody_looks(rng, winograd):
    """A hook sees the joined channels; without one, they are never joined. All numbers are the same, bit for bit."""
    x, seen, results = rng.standard_normal((2, 1, 40, 32)).astype(np.float32), [], []
    for looks in (False, True):
        tinyseg.manual_seed(0)
        model = UNet(widths=(8, 16, 24))
        if looks:
            model.layer5_conv.conv1.register_forward_hook(lambda module, args, output: seen.append(args))
        calls = []
        with tinyseg.use_winograd(winograd), record_kernels(calls.append):
            y = model(x)
            ops.mean(y * y).backward()
        joined = [call.name for call in calls if call.name == "concat_forward"]
        assert len(joined) == looks
        results.append([y.numpy(), *(parameter.grad.numpy() for parameter in model.parameters())])
    assert [[tensor.shape for tensor in args] for args in seen] == [[(2, 16, 40, 32)]]
    assert all(np.array_equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("mode", MODES)
def test_article_large_batch(mode):
    """Ten pictures of 224x224: the sum of the output, and 256 of its values."""
    arrays, _ = stored()
    model = article(mode)
    x = np.random.RandomState(123).rand(10, 1, 224, 224).astype(np.float32)
    with tinyseg.no_grad(), tinyseg.use_backend("cpu"):
        y = model(x).numpy()
    assert abs(y.sum(dtype=np.float64) - arrays[f"big_{mode}/sum_f64"]) < 1
    np.testing.assert_allclose(
        y.ravel()[arrays[f"big_{mode}/sample_pos"]], arrays[f"big_{mode}/sample_val"], rtol=0, atol=2e-5
    )


def test_names_are_the_articles():
    _, meta = stored()
    assert list(UNet().state_dict()) == meta["state_dict_keys"]


@pytest.mark.parametrize(
    ("widths", "layers"),
    [
        ((4,), ["layer1_conv", "layer2_conv"]),
        ((4, 6), ["layer1_conv", "layer2_conv", "deconv1", "layer3_conv", "layer4_conv"]),
        (
            (2, 3, 5),
            ["layer1_conv", "layer2_conv", "layer3_conv", "deconv1", "layer4_conv", "deconv2", "layer5_conv"]
            + ["layer6_conv"],
        ),
    ],
)
def test_any_depth(widths, layers):
    model = UNet(3, 4, widths)
    assert sorted(name for name, _ in model.named_children()) == sorted(layers)
    y = model(np.zeros((2, 3, 8, 12), np.float32))
    assert y.shape == (2, 4, 8, 12)


def test_probabilities():
    x = np.random.default_rng(0).random((2, 1, 8, 8), np.float32)
    tinyseg.manual_seed(0)
    binary, classes = UNet(widths=(4, 8)).eval(), UNet(1, 3, (4, 8)).eval()
    np.testing.assert_allclose(binary(x).numpy(), 1 / (1 + np.exp(-binary.logits(x).numpy())), rtol=1e-5)
    np.testing.assert_allclose(classes(x).numpy().sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(classes(x).numpy().argmax(axis=1), classes.logits(x).numpy().argmax(axis=1))


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (3, 16), (17, 2), (31, 33)])
def test_odd_sizes(size):
    tinyseg.manual_seed(0)
    model = UNet(widths=(2, 3, 4, 5)).eval()
    x = np.random.default_rng(0).random((1, 1, *size), np.float32)
    y = model(x).numpy()
    assert y.shape == x.shape
    padded = pad_to_multiple(Tensor(x), 8)
    assert all(after % 8 == 0 and after - before < 8 for before, after in zip(size, padded.shape[2:], strict=True))
    np.testing.assert_array_equal(y, model(padded).numpy()[:, :, : size[0], : size[1]])


def test_padding_is_a_reflection_at_the_bottom_and_right():
    x = np.arange(30.0).reshape(1, 1, 5, 6)
    expected = np.pad(x, ((0, 0), (0, 0), (0, 3), (0, 2)), mode="reflect")
    np.testing.assert_array_equal(pad_to_multiple(Tensor(x), 8).numpy(), expected)


def test_padding_of_tiny_pictures_repeats_the_border():
    x = np.array([[[[1.0, 2.0]]]])
    np.testing.assert_array_equal(pad_to_multiple(Tensor(x), 4).numpy()[0, 0], [[1, 2, 2, 2]] * 4)


def test_no_padding_where_sizes_fit():
    x = Tensor(np.zeros((1, 1, 16, 8)))
    assert pad_to_multiple(x, 8) is x


def test_gradients_through_padding_and_cropping():
    tinyseg.manual_seed(1)
    model = UNet(widths=(2, 3)).to(np.float64).eval()
    check_gradients(model, np.random.default_rng(0).normal(size=(1, 1, 3, 5)))


def test_empty_batch():
    assert UNet(widths=(2, 3)).eval()(np.zeros((0, 1, 8, 8), np.float32)).shape == (0, 1, 8, 8)


@pytest.mark.parametrize("shape", [(1, 2, 8, 8), (8, 8), (1, 8, 8)])
def test_pictures_of_another_shape(shape):
    with pytest.raises(ValueError, match=r"x has shape .*; expected \(N, 1, H, W\)"):
        UNet(widths=(2, 3))(np.zeros(shape, np.float32))


@pytest.mark.parametrize("shape", [(1, 1, 0, 8), (1, 1, 8, 0)])
def test_pictures_without_pixels(shape):
    with pytest.raises(ValueError, match="with pixels"):
        UNet(widths=(2, 3))(np.zeros(shape, np.float32))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"widths": ()}, "widths is empty"), ({"widths": (4, 0)}, "is 0"), ({"in_channels": 0}, "in_channels is 0")],
)
def test_settings_that_do_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        UNet(**arguments)


def test_training_lowers_the_loss():
    tinyseg.manual_seed(0)
    rng = np.random.default_rng(0)
    x = rng.random((4, 1, 16, 16), np.float32)
    target = x > 0.5
    model = UNet(widths=(4, 8))
    optimizer = tinyseg.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(12):
        loss = ops.binary_cross_entropy_with_logits(model.logits(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
