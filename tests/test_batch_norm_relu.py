"""Normalisation, residual and ReLU in one: bit for bit the three operators one after the other; kernel, tape, layer."""

import numpy as np
import pytest

import kernels
import tinyseg
from kernels.cpu import normalising
from tinyseg import Tensor, nn, ops

cpu = kernels.get("cpu")
BOTH = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
RUN = normalising._RUN

#: Runs of every remainder of the vector width, several runs to a plane, one pixel to a plane.
SHAPES = [(2, 3, 1, width) for width in (*range(2, 36), 63, 64, 65, RUN - 1, RUN, RUN + 1, 2 * RUN + 17)]
SHAPES += [(5, 4, 1, 1), (1, 2, 150, 131), (3, 33, 4, 5)]


def _inputs(shape, dtype, seed=0, **names):
    """Return seeded arrays: x, dy and residual of ``shape``, and four of one value per channel."""
    rng = np.random.default_rng(seed)
    x, dy, residual = (np.asarray(rng.standard_normal(shape), dtype) for _ in range(3))
    gamma, beta, mean = (np.asarray(rng.standard_normal(shape[1]), dtype) for _ in range(3))
    return x, dy, residual, gamma, beta, mean, np.asarray(rng.uniform(0.5, 2, shape[1]), dtype)


def _chain(x, dy, residual, gamma, beta, mean, var, training):
    """Return all results of the three operators one after the other, and leave the running statistics as they do."""
    between, centre, inv_std = cpu.batch_norm_forward(x, gamma, beta, mean, var, training)
    y = cpu.relu_forward(between if residual is None else cpu.add_forward(between, residual))
    behind = cpu.relu_backward(dy, y)
    return y, *cpu.batch_norm_backward(behind, x, gamma, centre, inv_std, training), behind, mean, var


def _fused(x, dy, residual, gamma, beta, mean, var, training):
    """Return the same from the fused functions."""
    y, statistics = cpu.batch_norm_relu_forward(x, gamma, beta, mean, var, training, residual=residual)
    gradients = cpu.batch_norm_relu_backward(dy, x, statistics, training, None if residual is None else y)
    return y, *gradients, mean, var


def _same_bits(inputs, training, with_residual):
    x, dy, residual, gamma, beta, mean, var = inputs
    residual = residual if with_residual else None
    expected = _chain(x, dy, residual, gamma, beta, mean.copy(), var.copy(), training)
    actual = _fused(x, dy, residual, gamma, beta, mean.copy(), var.copy(), training)
    names = ("y", "dx", "dgamma", "dbeta", "dresidual", "running_mean", "running_var")
    for name, a, e in zip(names, actual, expected, strict=True):
        if name != "dresidual" or with_residual:
            np.testing.assert_array_equal(a, e, name)
        else:
            assert a is None


@BOTH
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("with_residual", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_same_bits_as_the_operators_one_by_one(shape, with_residual, training, dtype):
    _same_bits(_inputs(shape, dtype), training, with_residual)


@BOTH
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("with_residual", [True, False])
def test_the_gradients_of_scale_and_shift_may_be_left_out(with_residual, training, dtype):
    x, dy, residual, *per_channel = _inputs((3, 4, 20, 70), dtype)
    residual = residual if with_residual else None
    y, statistics = cpu.batch_norm_relu_forward(x, *per_channel, training, residual=residual)
    arguments = dy, x, statistics, training, y if with_residual else None
    expected, actual = cpu.batch_norm_relu_backward(*arguments), cpu.batch_norm_relu_backward(*arguments, affine=False)
    assert actual[1] is None and actual[2] is None
    np.testing.assert_array_equal(actual[0], expected[0])
    np.testing.assert_array_equal(actual[3], expected[3])


@BOTH
@pytest.mark.parametrize("with_residual", [True, False])
def test_values_around_zero_are_masked_as_one_by_one(with_residual, dtype):
    # few values, among them the mean: many results are 0, -0 or within a rounding of it
    x, dy, _, gamma, _, mean, var = _inputs((4, 6, 20, 20), dtype)
    values = np.array([-1, -0.0, 0, 1, np.finfo(dtype).eps, 1 / 3], dtype)
    x, residual = values[np.random.default_rng(1).integers(0, 6, (2, *x.shape))]
    _same_bits((x, dy, residual, gamma, np.zeros_like(gamma), mean, var), True, with_residual)
    _same_bits((x, dy, residual, np.ones_like(gamma), -values, np.zeros(6, dtype), np.ones(6, dtype)), False, False)


@BOTH
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [0, 1, 2])
def test_numbers_that_are_none_pass_as_one_by_one(where, value, training, dtype):
    inputs = _inputs((2, 2, 5, 7), dtype)
    inputs[where][1, 0, 2, 3] = value
    _same_bits(inputs, training, True)
    _same_bits(inputs, training, False)


def test_answer_worked_by_hand():
    # mean 4, variance 5, inv_std 1/3: normal -1, -1/3, 1/3, 1; times 2, plus 1, plus the residual
    x = np.array([1.0, 3, 5, 7]).reshape(2, 1, 1, 2)
    residual = np.array([2.0, -1, 0, 0]).reshape(x.shape)
    y, statistics = cpu.batch_norm_relu_forward(
        x, np.array([2.0]), np.array([1.0]), None, None, True, eps=4.0, residual=residual
    )
    np.testing.assert_allclose(y.ravel(), [1, 0, 5 / 3, 3], atol=1e-15)
    dy = np.array([3.0, 100, 0, 3]).reshape(x.shape)
    dx, dgamma, dbeta, dresidual = cpu.batch_norm_relu_backward(dy, x, statistics, True, y)
    np.testing.assert_array_equal(dresidual.ravel(), [3, 0, 0, 3])
    # the sum of dy is 6; dy * normal adds up to 0: dx = 2/3 * (dy - 6/4)
    np.testing.assert_allclose((dgamma[0], dbeta[0]), (0, 6), atol=1e-15)
    np.testing.assert_allclose(dx.ravel(), [1, -1, -1, 1])


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 3, 0, 5), (2, 0, 4, 5)])
@pytest.mark.parametrize("training", [True, False])
def test_nothing_gives_nothing(shape, training):
    x, dy, residual, gamma, beta, mean, var = _inputs(shape, np.float32)
    y, dx, dgamma, dbeta, dresidual, *_ = _fused(x, dy, residual, gamma, beta, mean, var, training)
    assert y.shape == dx.shape == dresidual.shape == shape
    assert not dgamma.any() and not dbeta.any()


@pytest.mark.parametrize("size", [1e-20, 1e18])
def test_squares_beyond_float32_are_summed_in_float64(size, rng):
    x = (size * rng.standard_normal((2, 1, 9, 11))).astype(np.float32)
    _, mean, inv_std = cpu.batch_norm_forward(x, None, None, None, None, True, eps=0.0)
    wide = x.astype(np.float64)
    np.testing.assert_allclose(mean, wide.mean(), rtol=1e-6)
    np.testing.assert_allclose(inv_std, 1 / wide.std(), rtol=1e-6)
    dy = (rng.standard_normal(x.shape) * 1e25).astype(np.float32)
    _, dgamma, _ = cpu.batch_norm_backward(dy, x, None, mean, inv_std, True)
    np.testing.assert_allclose(dgamma, (dy.astype(np.float64) * (wide - mean) * inv_std).sum(), rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"residual": np.zeros((2, 3, 4, 4), np.float32)}, ValueError, "residual has shape"),
        ({"residual": np.zeros((2, 3, 4, 5))}, TypeError, "residual has dtype float64; expected float32"),
        ({"beta": np.zeros(4, np.float32)}, ValueError, "beta has shape"),
    ],
)
def test_bad_input_of_forward_is_named(change, error, message):
    x = np.zeros((2, 3, 4, 5), np.float32)
    arguments = {"gamma": None, "beta": None, "running_mean": None, "running_var": None, "training": True}
    with pytest.raises(error, match=message):
        cpu.batch_norm_relu_forward(x, **arguments | change)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"dy": np.zeros((2, 3, 4, 4), np.float32)}, ValueError, "dy has shape"),
        ({"y": np.zeros((2, 3, 4, 5))}, TypeError, "y has dtype float64; expected float32"),
        ({"statistics": np.zeros((2, 8))}, ValueError, r"statistics has shape \(2, 8\); expected \(3, 8\)"),
        ({"statistics": np.zeros((3, 8), np.float32)}, TypeError, "statistics has dtype float32"),
    ],
)
def test_bad_input_of_backward_is_named(change, error, message):
    x = np.zeros((2, 3, 4, 5), np.float32)
    arguments = {"dy": x, "x": x, "statistics": np.zeros((3, 8)), "training": True}
    with pytest.raises(error, match=message):
        cpu.batch_norm_relu_backward(**arguments | change)


# ---- operator and layers ---------------------------------------------------------------------------------------------


def _tape(backend, operator, with_residual, training):
    """Return y and the gradients of everything that an operator took."""
    arrays = _inputs((3, 4, 6, 5), np.float32)
    x, residual, weight, bias = (Tensor(arrays[i], requires_grad=True) for i in (0, 2, 3, 4))
    running = [Tensor(a.copy()) for a in arrays[5:]]
    with tinyseg.use_backend(backend):
        y = operator(x, *running, weight, bias, training, 0.1, 1e-5, residual if with_residual else None)
        y.backward(Tensor(arrays[1]))
    tensors = (x, weight, bias, *([residual] if with_residual else []))
    return [y.numpy(), *(tensor.grad.numpy() for tensor in tensors), *(tensor.numpy() for tensor in running)]


def _one_by_one(x, mean, var, weight, bias, training, momentum, eps, residual):
    y = ops.batch_norm(x, mean, var, weight, bias, training, momentum, eps)
    return ops.relu(y if residual is None else y + residual)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("with_residual", [True, False])
def test_operator_equals_the_chain_on_each_backend(with_residual, training):
    expected = _tape("naive", _one_by_one, with_residual, training)
    for actual, value in zip(_tape("naive", ops.batch_norm_relu, with_residual, training), expected, strict=True):
        np.testing.assert_array_equal(actual, value)
    chain = _tape("cpu", _one_by_one, with_residual, training)
    fused = _tape("cpu", ops.batch_norm_relu, with_residual, training)
    for actual, value, reference in zip(fused, chain, expected, strict=True):
        np.testing.assert_array_equal(actual, value)
        np.testing.assert_allclose(actual, reference, rtol=1e-4, atol=1e-5)


def test_running_statistics_that_require_gradients_are_refused():
    x, one = Tensor(np.ones((2, 1, 2, 2), np.float32)), Tensor(np.ones(1, np.float32))
    with pytest.raises(ValueError, match="running_mean requires gradients"):
        ops.batch_norm_relu(x, Tensor(np.ones(1, np.float32), requires_grad=True), one)


@pytest.mark.parametrize("backend", kernels.BACKENDS)
def test_a_residual_of_another_shape_is_refused(backend):
    x, one = Tensor(np.ones((2, 1, 2, 2), np.float32)), Tensor(np.ones(1, np.float32))
    with tinyseg.use_backend(backend), pytest.raises(ValueError, match="residual has shape"):
        ops.batch_norm_relu(x, one, one, residual=Tensor(np.ones((1, 1, 2, 2), np.float32)))


def test_changing_x_in_place_before_backward_is_refused():
    x = Tensor(np.ones((2, 1, 2, 2), np.float32))
    weight = Tensor(np.ones(1, np.float32), requires_grad=True)
    y = ops.batch_norm_relu(x, Tensor(np.zeros(1, np.float32)), Tensor(np.ones(1, np.float32)), weight)
    x += 1
    with pytest.raises(RuntimeError, match="input 'x' of batch_norm_relu was changed in place"):
        y.sum().backward()


@pytest.mark.parametrize("layer", [nn.BatchNorm2d, nn.FrozenBatchNorm2d])
@pytest.mark.parametrize("training", [True, False])
def test_layers_give_what_layer_addition_and_relu_give(layer, training):
    x, _, residual, weight, bias, mean, var = _inputs((3, 4, 6, 5), np.float32)
    results = []
    for fused in (True, False):
        module = layer(4).train(training)
        module.load_state_dict({"weight": weight, "bias": bias, "running_mean": mean, "running_var": var}, strict=False)
        if fused:
            y = module.relu(module.relu(Tensor(x)), Tensor(residual))
        else:
            y = ops.relu(module(ops.relu(module(Tensor(x)))) + Tensor(residual))
        results.append((y.numpy(), module.state_dict()))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    for name, value in results[1][1].items():
        np.testing.assert_array_equal(results[0][1][name], value, name)


def test_a_hook_sees_the_normalisation_itself():
    x, _, residual, *_ = _inputs((3, 4, 6, 5), np.float32)
    module, seen = nn.BatchNorm2d(4), []
    expected = module.relu(Tensor(x), Tensor(residual)).numpy()
    handle = module.register_forward_hook(lambda module, args, output: seen.append(output.numpy()))
    np.testing.assert_array_equal(module.relu(Tensor(x), Tensor(residual)).numpy(), expected)
    assert len(seen) == 1 and seen[0].min() < 0
    np.testing.assert_array_equal(np.maximum(seen[0] + residual, 0), expected)
    handle.remove()
    module.relu(Tensor(x))
    assert len(seen) == 1
