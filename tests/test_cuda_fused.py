"""Fused functions of the device: the operators one after the other, in kernels, on the tape and in networks."""

import numpy as np
import pytest

from kernels import cuda
from tinyseg import Tensor, nn

pytestmark = pytest.mark.cuda

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


# ---- networks --------------------------------------------------------------------------------------------------------


@pytest.fixture
def called(monkeypatch):
    """Note the names of the kernels that are started."""
    from kernels.cuda import device

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
    for device in ("cpu", "cuda"):
        module = nn.BatchNorm2d(2).to(np.float64).to(device)
        a, b = (Tensor(value, requires_grad=True) for value in (x, residual))
        there = [a.to(device), b.to(device)]
        y = module.relu(module.relu(there[0]), there[1])
        (y * y).sum().backward()
        tensors = y, a.grad, b.grad, module.weight.grad, module.bias.grad, module.running_var
        results.append([tensor.to("cpu").numpy() for tensor in tensors])
    for actual, expected in zip(results[1], results[0], strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-10, atol=1e-12)
    assert {"normalising.normalise_relu", "normalising.normalise_residual_relu"} <= set(called)
    assert {"normalising.gradient_relu", "normalising.gradient_residual_relu"} <= set(called)
    assert not any(name.startswith("relu.") for name in called)
