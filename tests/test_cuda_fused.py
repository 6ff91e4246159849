"""Fused functions of the device: the operators one after the other, in kernels, on the tape and in networks."""

import numpy as np
import pytest

import tinyseg
from kernels import cuda, naive
from kernels.cuda import concat, correlation, device
from tinyseg import Tensor, models, nn

pytestmark = pytest.mark.cuda

copy_rows = concat._copy_rows
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def normal(rng, dtype, *shapes):
    return [np.asarray(rng.standard_normal(shape), dtype) for shape in shapes]


def host(values):
    return [None if a is None else cuda.to_host(a) for a in values]


# ---- batch norm, residual, ReLU --------------------------------------------------------------------------------------


def _chain(x, dy, residual, gamma, beta, mean, var, training):
    between, centre, inv_std = cuda.batch_norm_forward(x, gamma, beta, mean, var, training)
    y = cuda.relu_forward(between if residual is None else cuda.add_forward(between, residual))
    behind = cuda.relu_backward(dy, y)
    return y, *cuda.batch_norm_backward(behind, x, gamma, centre, inv_std, training), behind, mean, var


def _fused(x, dy, residual, gamma, beta, mean, var, training):
    y, statistics = cuda.batch_norm_relu_forward(x, gamma, beta, mean, var, training, residual=residual)
    gradients = cuda.batch_norm_relu_backward(dy, x, statistics, training, None if residual is None else y)
    return y, *gradients, mean, var


def _inputs(rng, dtype, shape):
    x, dy, residual, gamma, beta, mean = normal(rng, dtype, shape, shape, shape, *[shape[1:2]] * 3)
    return [x, dy, residual, gamma, beta, mean, np.asarray(rng.uniform(0.5, 2, shape[1]), dtype)]


def _same_bits(inputs, training, residual):
    if not residual:
        inputs[2] = None
    expected, actual = (
        host(run(*[None if a is None else cuda.to_device(a) for a in inputs], training)) for run in (_chain, _fused)
    )
    names = ("y", "dx", "dgamma", "dbeta", "dresidual", "running_mean", "running_var")
    for name, a, e in zip(names, actual, expected, strict=True):
        if name == "dresidual" and not residual:
            assert a is None
        else:
            np.testing.assert_array_equal(a, e, name)
    return expected[0]


@DTYPES
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("shape", [(2, 3, 3, 5), (3, 1, 1, 1), (1, 2, 5, 9)], ids=str)
def test_normalisation_has_the_bits_of_the_operators(shape, residual, training, dtype, rng):
    y = _same_bits(_inputs(rng, dtype, shape), training, residual)
    assert y.size < 20 or 0 < np.mean(y == 0) < 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [0, 1, 2])
def test_normalisation_of_numbers_that_are_none(where, value, rng):
    for residual in (True, False):
        inputs = _inputs(rng, np.float32, (2, 2, 3, 3))
        inputs[where][1, 0, 2, 1] = value
        _same_bits(inputs, True, residual)


def test_normalisation_without_scale_and_without_pictures(rng):
    x, dy, *_ = _inputs(rng, np.float32, (2, 2, 3, 3))
    _same_bits([x, dy, None, None, None, None, None], True, False)
    nothing = np.zeros((0, 2, 3, 3), np.float32)
    _same_bits([nothing, nothing, nothing, None, None, None, None], True, True)
    _same_bits([nothing, nothing, nothing, None, None, *np.ones((2, 2), np.float32)], False, True)


def test_what_normalisation_is_not_asked_for(rng):
    x, dy, residual, *_ = map(cuda.to_device, _inputs(rng, np.float32, (2, 2, 3, 3)))
    y, statistics = cuda.batch_norm_relu_forward(x, None, None, None, None, True)
    dx, dgamma, dbeta, dresidual = cuda.batch_norm_relu_backward(dy, x, statistics, True, affine=False)
    assert dx.shape == x.shape and (dgamma, dbeta, dresidual) == (None, None, None)
    with pytest.raises(ValueError, match="residual has shape"):
        cuda.batch_norm_relu_forward(x, None, None, None, None, True, residual=residual[:1])
    with pytest.raises(ValueError, match=r"statistics has shape \(2, 3, 3\)|statistics"):
        cuda.batch_norm_relu_backward(dy, x, x[0], True)
    with pytest.raises(TypeError, match="statistics has dtype float64; expected float32"):
        cuda.batch_norm_relu_backward(dy, x, statistics.astype(np.float64), True)


# ---- convolution, scale, residual, ReLU ------------------------------------------------------------------------------


CONVOLUTIONS = {  # small and large products, sums in parts and whole, groups, few channels
    "plain": ((1, 3, 5, 4), (5, 3, 3, 3), {"padding": 1}),
    "stride": ((2, 2, 7, 6), (3, 2, 3, 2), {"stride": (2, 1)}),
    "groups": ((1, 4, 4, 4), (6, 2, 1, 1), {"groups": 2}),
    "deep": ((1, 40, 2, 3), (3, 40, 1, 1), {}),
    "depthwise": ((1, 3, 4, 4), (3, 1, 3, 3), {"groups": 3, "dilation": 1}),
}


@DTYPES
@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("parts", ["scale bias residual relu", "residual", "scale bias", "relu"])
def test_convolution_and_what_follows(name, parts, dtype, rng, few_channels):
    x_shape, weight_shape, how = CONVOLUTIONS[name]
    x, weight, bias, scale = normal(rng, dtype, x_shape, weight_shape, weight_shape[:1], weight_shape[:1])
    bias, scale = bias if "bias" in parts else None, scale if "scale" in parts else None
    factor = 1 if scale is None else scale.reshape(-1, 1, 1, 1)
    expected = naive.conv2d_forward(x, weight * factor, bias, **how)
    residual = np.asarray(rng.standard_normal(expected.shape), dtype) if "residual" in parts else None
    expected = expected if residual is None else expected + residual
    expected = np.maximum(expected, 0) if "relu" in parts else expected
    given = {"scale": scale, "residual": residual, "relu": "relu" in parts}
    actual = cuda.to_host(cuda.conv2d_relu_forward(x, weight, bias, **how, **given))
    assert actual.dtype == dtype
    rtol, atol = (1e-5, 2e-5) if dtype == np.float32 else (1e-12, 1e-12)
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


@pytest.fixture(params=["tiles", "few channels"])
def few_channels(request, monkeypatch):
    """Let groups of few channels be left to threads that work for themselves, though outputs are small."""
    if request.param == "few channels":
        monkeypatch.setattr(correlation, "_FEW_CHANNELS", 4)
        monkeypatch.setattr(correlation, "_MANY_VALUES", 1)


@DTYPES
@pytest.mark.parametrize(("groups", "relu"), [(1, True), (2, True), (2, False)])
def test_transposed_convolution_and_what_follows(groups, relu, dtype, rng, few_channels):
    x, weight, bias, scale = normal(rng, dtype, (2, 4, 3, 2), (4, 6 // groups, 2, 2), (6,), (6,))
    scaled = weight.reshape(groups, -1, 6 // groups, 2, 2) * scale.reshape(groups, 1, -1, 1, 1)
    expected = naive.conv_transpose2d_forward(x, scaled.reshape(weight.shape), bias, 2, groups=groups)
    expected = np.maximum(expected, 0) if relu else expected
    actual = cuda.conv_transpose2d_relu_forward(x, weight, bias, 2, groups=groups, scale=scale, relu=relu)
    np.testing.assert_allclose(cuda.to_host(actual), expected, rtol=1e-5, atol=2e-5 if dtype == np.float32 else 1e-12)


HALVES = {  # two convolutions, and where both halves are joined first: a large output, groups
    "two": ((1, 2, 4, 3), (3, 4, 3, 3), {"padding": 1}),
    "strided": ((2, 3, 5, 4), (4, 6, 2, 3), {"stride": 2, "padding": (0, 1)}),
    "many channels": ((1, 2, 2, 3), (5, 4, 1, 1), {}),
    "groups": ((1, 3, 4, 3), (4, 3, 3, 3), {"padding": 1, "groups": 2}),
    "no pictures": ((0, 2, 4, 3), (3, 4, 3, 3), {"padding": 1}),
}


@DTYPES
@pytest.mark.parametrize("name", HALVES)
def test_channels_in_two_halves(name, dtype, rng, few_channels):
    half, weight_shape, how = HALVES[name]
    x, more, weight, bias, scale = normal(rng, dtype, half, half, weight_shape, weight_shape[:1], weight_shape[:1])
    joined = np.concatenate([x, more], axis=1)
    plain = naive.conv2d_forward(joined, weight * scale.reshape(-1, 1, 1, 1), bias, **how)
    residual, dy = normal(rng, dtype, plain.shape, plain.shape)
    given = {"scale": scale, "residual": residual, "more": more}
    actual = cuda.to_host(cuda.conv2d_relu_forward(x, weight, bias, **how, **given))
    near = {"rtol": 1e-5, "atol": 3e-5} if dtype == np.float32 else {"rtol": 1e-12, "atol": 1e-12}
    np.testing.assert_allclose(actual, np.maximum(plain + residual, 0), **near)
    dx, *expected = naive.conv2d_backward(dy, joined, weight, **how)
    expected = [dx[:, : half[1]], dx[:, half[1] :], *expected]
    found = cuda.conv2d_joined_backward(dy, x, more, weight, **how)
    for one, wanted in zip(host(found), expected, strict=True):
        np.testing.assert_allclose(one, wanted, **near)
    for needs in ((True, False, False), (False, True, False), (False, False, True)):
        some = host(cuda.conv2d_joined_backward(dy, x, more, weight, **how, needs=needs))
        for one, whole, needed in zip(some, host(found), (needs[0], *needs), strict=True):
            assert np.array_equal(one, whole) if needed else one is None


def test_halves_that_are_infinite_or_do_not_fit(rng):
    x, more, weight, dy = normal(rng, np.float64, (1, 2, 3, 3), (1, 2, 3, 3), (2, 4, 3, 3), (1, 2, 3, 3))
    more[0, 1, 1, 2] = np.inf
    expected = naive.conv2d_forward(np.concatenate([x, more], axis=1), weight, padding=1)
    y = cuda.to_host(cuda.conv2d_relu_forward(x, weight, padding=1, more=more, relu=False))
    np.testing.assert_allclose(y, expected, rtol=1e-12)
    with pytest.raises(ValueError, match=r"more has shape \(1, 2, 3, 2\); expected \(1, 2, 3, 3\), the shape of x"):
        cuda.conv2d_joined_backward(dy, x, more[..., :2], weight, padding=1)


def test_nan_stays_and_nothing_gives_nothing():
    x = np.array([np.nan, -1, 2]).reshape(1, 1, 1, 3)
    for residual in (None, np.zeros_like(x)):
        y = cuda.conv2d_relu_forward(x, np.ones((1, 1, 1, 1)), residual=residual)
        np.testing.assert_array_equal(cuda.to_host(y).ravel(), [np.nan, 0, 2])
    assert cuda.conv2d_relu_forward(x[:0], np.ones((1, 1, 1, 1))).shape == (0, 1, 1, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"residual": np.zeros((1, 1, 2, 3))}, r"residual has shape \(1, 1, 2, 3\); expected \(1, 1, 1, 3\)"),
        ({"scale": np.zeros(2)}, r"scale has shape \(2,\); expected \(1,\), one value per output channel"),
        ({"more": np.zeros((1, 1, 1, 2))}, "more has shape|weight has shape"),
    ],
)
def test_what_does_not_fit_a_convolution(change, message):
    with pytest.raises(ValueError, match=message):
        cuda.conv2d_relu_forward(np.zeros((1, 1, 1, 3)), np.ones((1, 2 if "more" in change else 1, 1, 1)), **change)


@DTYPES
def test_a_normalisation_as_scale_and_shift(dtype, rng):
    mean, gamma, beta, bias = normal(rng, dtype, (5,), (5,), (5,), (5,))
    var = np.asarray(rng.uniform(0.5, 2, 5), dtype)
    wide = [a.astype(np.float64) for a in (mean, var, gamma, beta, bias)]
    for given in ((gamma, beta, bias), (None, None, None), (gamma, None, bias)):
        g = 1 if given[0] is None else wide[2]
        b, start = (0 if a is None else a.astype(np.float64) for a in given[1:])
        scale, shift = host(cuda.folded_batch_norm(mean, var, *given, 0.1))
        factor = g / np.sqrt(wide[1] + 0.1)
        np.testing.assert_allclose(scale, factor, rtol=1e-6 if dtype == np.float32 else 1e-14)
        np.testing.assert_allclose(shift, (start - wide[0]) * factor + b, rtol=1e-5 if dtype == np.float32 else 1e-12)
    with pytest.raises(ValueError, match=r"beta has shape \(3,\); expected \(5,\)"):
        cuda.folded_batch_norm(mean, var, None, beta[:3], None)


# ---- networks --------------------------------------------------------------------------------------------------------


@pytest.fixture
def called(monkeypatch):
    """Note the names of the kernels that are started."""
    names: list = []
    run = device.Kernel.run

    def noted(kernel, *arguments, **how):
        names.append(kernel.name)
        run(kernel, *arguments, **how)

    monkeypatch.setattr(device.Kernel, "run", noted)
    return names


def test_layers_in_training_run_as_one(rng, called):
    x, residual = normal(rng, np.float64, (2, 2, 3, 4), (2, 2, 3, 4))
    results = []
    for place in ("cpu", "cuda"):
        module = nn.BatchNorm2d(2).to(np.float64).to(place)
        a, b = (Tensor(value, requires_grad=True) for value in (x, residual))
        there = [a.to(place), b.to(place)]
        y = module.relu(module.relu(there[0]), there[1])
        (y * y).sum().backward()
        tensors = y, a.grad, b.grad, module.weight.grad, module.bias.grad, module.running_var
        results.append([tensor.to("cpu").numpy() for tensor in tensors])
    for actual, expected in zip(results[1], results[0], strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-10, atol=1e-12)
    assert {"normalising.normalise_relu", "normalising.normalise_residual_relu"} <= set(called)
    assert {"normalising.gradient_relu", "normalising.gradient_residual_relu"} <= set(called)
    assert not any(name.startswith("relu.") for name in called)


def test_a_network_at_inference_runs_as_one(rng, called):
    tinyseg.manual_seed(5)
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU(), nn.ConvTranspose2d(2, 2, 2, stride=2), nn.ReLU()
    ).to(np.float64)
    model[1].running_mean.array = rng.standard_normal(2)
    model[1].running_var.array = rng.uniform(0.5, 2, 2)
    model.eval()
    x = Tensor(rng.standard_normal((1, 1, 3, 3)))
    with tinyseg.no_grad():
        expected = model(x).numpy()
        model.to("cuda")
        for backend in ("cpu", "naive", "cuda"):  # whatever it is, operators run where their tensors lie
            called.clear()
            with tinyseg.use_backend(backend):
                actual = model(x.to("cuda")).to("cpu").numpy()
            np.testing.assert_allclose(actual, expected, rtol=1e-10, atol=1e-12)
            assert "folding.fold_kernel" in called
            assert not any(name.startswith(("relu.", "normalising.", "moments.")) for name in called)


def test_a_unet_uses_them(rng, called):
    tinyseg.manual_seed(3)
    model = models.UNet(widths=(1, 2)).to("cuda")
    x = Tensor(rng.standard_normal((2, 1, 2, 2)).astype(np.float32)).to("cuda")
    with tinyseg.no_grad():
        model.eval()(x)
    assert "folding.fold_kernel" in called and not any(name.startswith(("relu.", "normalising.")) for name in called)
    called.clear()
    model.train().logits(x).sum().backward()
    assert {"normalising.normalise_relu", "normalising.sums_relu", "normalising.gradient_relu"} <= set(called)
    assert not any(name.startswith("relu.") for name in called)


def test_a_unet_never_joins_its_maps(rng, called, monkeypatch):
    tinyseg.manual_seed(3)
    model = models.UNet(widths=(1, 2)).to("cuda")
    x = Tensor(rng.standard_normal((1, 1, 4, 4)).astype(np.float32)).to("cuda")
    sizes: list = []
    monkeypatch.setattr(concat, "_copy_rows", lambda *given: sizes.append(given[0].shape) or copy_rows(*given))
    for training in (True, False):
        sizes.clear()
        model.train(training).logits(x).sum().backward()
        assert set(sizes) == ({(1, 1, 3, 3), (1, 2, 3, 3)}), sizes  # of weights
