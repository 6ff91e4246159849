"""The fast batch normalisation: against naive, in several blocks of pixels, with a mean far from 0."""

import numpy as np
import pytest
from cases import compare, of

import kernels
from kernels.cpu.blocks import BLOCK

cpu, naive = kernels.get("cpu"), kernels.get("naive")
BOTH = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])


@BOTH
@pytest.mark.parametrize("case", of("batch_norm"), ids=str)
def test_equals_naive(case, dtype):
    compare("cpu", case, dtype)


def _bound(dtype):
    """Return the relative rounding of sums of some ten thousand terms, kept in float64."""
    return 2e-6 if dtype == np.float32 else 1e-12


@BOTH
@pytest.mark.parametrize("pixels", [BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 3])
def test_planes_of_several_blocks(dtype, pixels, rng):
    x = np.asarray(rng.standard_normal((2, 3, 1, pixels)) + 5, dtype)
    dy = np.asarray(rng.standard_normal(x.shape), dtype)
    gamma, beta = np.asarray([0.5, 1, 2], dtype), np.asarray([0, 1, -1], dtype)
    results = []
    for backend in (cpu, naive):
        running = np.zeros(3, dtype), np.ones(3, dtype)
        y, mean, inv_std = backend.batch_norm_forward(x, gamma, beta, *running, True)
        gradients = backend.batch_norm_backward(dy, x, gamma, mean, inv_std, True)
        results.append((y, mean, inv_std, *running, *gradients))
    for actual, expected in zip(*results, strict=True):
        assert np.abs(actual - expected).max() <= _bound(dtype) * max(1, np.abs(expected).max())


@BOTH
def test_a_mean_of_1000_costs_no_digits(dtype, rng):
    # the exact statistics of these very numbers, in float64
    x = np.asarray(1000 + rng.standard_normal((4, 2, 90, 70)), dtype)
    wide = x.astype(np.float64)
    mean, variance = wide.mean(axis=(0, 2, 3)), wide.var(axis=(0, 2, 3))
    running_mean, running_var = np.zeros(2, dtype), np.zeros(2, dtype)
    y, actual_mean, inv_std = cpu.batch_norm_forward(x, None, None, running_mean, running_var, True, 1.0, 0.0)
    eps = np.finfo(dtype).eps
    count = x.size // 2
    np.testing.assert_allclose(actual_mean, mean, rtol=eps)
    np.testing.assert_allclose(running_mean, mean, rtol=eps)
    np.testing.assert_allclose(inv_std, 1 / np.sqrt(variance), rtol=max(2 * eps, 1e-13))
    np.testing.assert_allclose(running_var, variance * count / (count - 1), rtol=max(2 * eps, 1e-13))
    expected = (wide - mean[:, None, None]) / np.sqrt(variance)[:, None, None]
    # a mean rounded to float32 would be off by 3e-5
    assert np.abs(y - expected).max() <= (1e-6 if dtype == np.float32 else 1e-12)


def test_by_hand():
    x = np.array([1.0, 3, 5, 7]).reshape(2, 1, 1, 2)
    running_mean, running_var = np.array([1.0]), np.array([1.0])
    y, mean, inv_std = cpu.batch_norm_forward(
        x, np.array([2.0]), np.array([1.0]), running_mean, running_var, True, momentum=0.5, eps=4.0
    )
    # mean 4, variance 5, so 1 / sqrt(5 + 4); unbiased variance 20 / 3
    np.testing.assert_allclose(y.ravel(), [-1, 1 / 3, 5 / 3, 3])
    np.testing.assert_allclose((mean[0], inv_std[0]), (4, 1 / 3))
    np.testing.assert_allclose((running_mean[0], running_var[0]), (2.5, 0.5 + 10 / 3))


def test_evaluation_leaves_running_statistics_and_allows_read_only_ones():
    running = np.array([2.0]), np.array([4.0])
    for a in running:
        a.flags.writeable = False
    y, mean, inv_std = cpu.batch_norm_forward(np.full((1, 1, 1, 1), 6.0), None, None, *running, False, eps=0.0)
    assert (y.item(), mean.item(), inv_std.item()) == (2, 2, 0.5)


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 3, 0, 5), (2, 0, 4, 5)])
@pytest.mark.parametrize("training", [True, False])
def test_nothing_changes_nothing(shape, training):
    x = np.zeros(shape, np.float32)
    running = np.full(shape[1], 3, np.float32), np.full(shape[1], 4, np.float32)
    y, mean, inv_std = cpu.batch_norm_forward(x, None, None, *running, training)
    assert y.shape == shape and mean.shape == inv_std.shape == (shape[1],)
    assert (running[0] == 3).all() and (running[1] == 4).all()
    dx, dgamma, dbeta = cpu.batch_norm_backward(x, x, None, mean, inv_std, training)
    assert dx.shape == shape and not dgamma.any() and not dbeta.any()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_no_number_spoils_its_channel_only(value, rng):
    x = rng.standard_normal((2, 2, 3, 4))
    clean = cpu.batch_norm_forward(x, None, None, None, None, True)
    x[1, 0, 1, 1] = value
    y, mean, inv_std = cpu.batch_norm_forward(x, None, None, None, None, True)
    assert np.isnan(y[:, 0]).all()
    np.testing.assert_array_equal(y[:, 1], clean[0][:, 1])
    assert np.isfinite(mean[1]) and np.isnan(inv_std[0])


def test_a_constant_channel_without_eps_is_not_a_number_and_silent():
    y, _, inv_std = cpu.batch_norm_forward(np.ones((2, 1, 2, 2)), None, None, None, None, True, eps=0.0)
    assert np.isnan(y).all() and np.isinf(inv_std).all()
