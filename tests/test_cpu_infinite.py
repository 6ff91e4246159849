"""Infinite, NaN and too large numbers through the fast kernels: the same result as naive, and no warning."""

import numpy as np
import pytest

import kernels
from kernels.cpu.blocks import BLOCK

cpu, naive = kernels.get("cpu"), kernels.get("naive")
BOTH = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
#: Sums to NaN, to infinity in any type, and to a number beyond the type.
SUMMANDS = pytest.mark.parametrize("first, second", [(np.inf, -np.inf), (np.inf, 1), ("largest", "largest")])


def _two(dtype, first, second):
    """Return two numbers, where "largest" stands for the largest one of the type."""
    return np.array([np.finfo(dtype).max if n == "largest" else n for n in (first, second)], dtype)


@BOTH
@SUMMANDS
def test_gradients_of_a_convolution(dtype, first, second):
    dy = _two(dtype, first, second).reshape(2, 1, 1, 1)
    x, weight = np.ones((2, 1, 1, 1), dtype), np.ones((1, 1, 1, 1), dtype)
    for name in ("conv2d_backward", "conv_transpose2d_backward"):
        results = [getattr(backend, name)(dy, x, weight) for backend in (cpu, naive)]
        for fast, slow in zip(*results, strict=True):
            np.testing.assert_array_equal(fast, slow)


@BOTH
@SUMMANDS
def test_linear(dtype, first, second):
    one, two = np.ones((1, 1), dtype), _two(dtype, first, second)
    y = cpu.linear_forward(two[:1].reshape(1, 1), one, two[1:])
    np.testing.assert_array_equal(y, naive.linear_forward(two[:1].reshape(1, 1), one, two[1:]))
    results = [backend.linear_backward(two.reshape(2, 1), np.ones((2, 1), dtype), one) for backend in (cpu, naive)]
    for fast, slow in zip(*results, strict=True):
        np.testing.assert_array_equal(fast, slow)


@BOTH
@SUMMANDS
def test_add_with_broadcasting(dtype, first, second):
    two = _two(dtype, first, second)
    np.testing.assert_array_equal(cpu.add_forward(two, two[::-1][:1]), naive.add_forward(two, two[::-1][:1]))
    results = [backend.add_backward(two, (1,), (2,)) for backend in (cpu, naive)]
    for fast, slow in zip(*results, strict=True):
        np.testing.assert_array_equal(fast, slow)


@BOTH
def test_losses_whose_blocks_sum_to_infinities_of_both_signs(dtype):
    x = np.zeros(BLOCK + 1, dtype)
    x[0] = np.inf
    weight = np.ones_like(x)
    target = np.zeros_like(x)
    x[-1], weight[-1] = np.inf, -1
    assert np.isnan(cpu.binary_cross_entropy_with_logits_forward(x, target, weight, reduction="sum"))
    target[0], target[-1] = np.inf, -np.inf
    assert np.isnan(cpu.dice_forward(np.zeros_like(x), target))
    assert np.isnan(cpu.dice_backward(1.0, np.zeros_like(x), target)).all()


@BOTH
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_ignored_pixels_have_no_gradient_whatever_their_logits(dtype, value):
    x = np.array([[1, value, 0], [1, 2, 3]], dtype)
    target = np.array([-100, 1])
    fast, slow = (backend.cross_entropy_backward(1.0, x, target) for backend in (cpu, naive))
    assert not fast[0].any()
    np.testing.assert_allclose(fast, slow, rtol=4 * np.finfo(dtype).eps)


@BOTH
@pytest.mark.parametrize("mean", [np.inf, -np.inf, np.nan])
def test_running_statistics_that_are_not_finite(dtype, mean):
    x, statistics = np.ones((1, 1, 2, 2), dtype), np.array([mean, 1], dtype)
    fast, slow = (
        backend.batch_norm_forward(x, None, None, *np.split(statistics, 2), False) for backend in (cpu, naive)
    )
    np.testing.assert_array_equal(fast[0], slow[0])
    assert (fast[0] == -mean).all() or np.isnan(mean)


@pytest.mark.parametrize("backend", [cpu, naive], ids=["cpu", "naive"])
def test_whole_numbers_that_no_kernel_can_take_are_named(backend):
    x, weight = np.ones((1, 1, 2, 2)), np.ones((1, 1, 1, 1))
    with pytest.raises(ValueError, match=f"stride is {2**63}; expected a number that fits into 64 bits"):
        backend.conv2d_forward(x, weight, stride=2**63)
    with pytest.raises(ValueError, match="ignore_index is -1[0]{30}; expected a number that fits into 64 bits"):
        backend.cross_entropy_forward(x, np.zeros((1, 2, 2), np.int64), ignore_index=-(10**30))
