"""The fast losses: against naive, in several blocks, stable where the formula as written is not."""

import numpy as np
import pytest
from case_builders import case, loss_inputs
from cases import compare, of

import kernels
from kernels.cpu import softmax
from kernels.cpu.blocks import BLOCK

cpu = kernels.get("cpu")
BOTH = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
LOSSES = ("binary_cross_entropy", "cross_entropy", "smooth_l1", "sigmoid_focal", "dice")


def _classes(rng, dtype):
    """Return inputs of a cross entropy of more pixels than a task takes, some of them ignored."""
    shape = (2, 2 * softmax.POSITIONS + 3)
    target = rng.integers(0, 5, shape)
    target[rng.random(shape) < 0.1] = -100
    weight = np.asarray(rng.uniform(0.2, 3, 5), dtype)
    return {"x": np.asarray(rng.standard_normal((2, 5, shape[1])), dtype), "target": target, "weight": weight}


def _rows(rng, dtype):
    """Return inputs of a cross entropy of rows, more than a task takes, some of them ignored."""
    target = rng.integers(0, 91, 200)
    target[rng.random(200) < 0.1] = -100
    return {"x": np.asarray(rng.standard_normal((200, 91)), dtype), "target": target, "weight": None}


def _several_blocks():
    """Yield cases of more than one block, the last one not full."""
    shape = (3, 2 * BLOCK // 3 + 5)
    for how in ("none", "mean", "sum"):
        # thousands of terms, which naive adds one after the other: rounding grows with their number
        scale = {"none": 1.0, "mean": 100.0, "sum": float(BLOCK)}[how]
        for function in ("binary_cross_entropy_with_logits", "smooth_l1", "sigmoid_focal"):
            yield case(function, f"blocks_{how}", loss_inputs(shape), scale, reduction=how)
        both = loss_inputs(shape, weight=shape, pos_weight=shape[1:])
        yield case("binary_cross_entropy_with_logits", f"blocks_weights_{how}", both, scale, reduction=how)
        probability = loss_inputs(shape, weight=shape, probability=True)
        yield case("binary_cross_entropy", f"blocks_{how}", probability, scale, reduction=how)
        yield case("cross_entropy", f"blocks_{how}", _classes, scale, label_smoothing=0.1, reduction=how)
        yield case("cross_entropy", f"rows_{how}", _rows, scale, reduction=how)
        for per_sample in (False, True):
            make = loss_inputs((3, BLOCK + 7))
            yield case("dice", f"blocks_{per_sample}_{how}", make, per_sample=per_sample, reduction=how)


@BOTH
@pytest.mark.parametrize("each", [*of(*LOSSES), *_several_blocks()], ids=str)
def test_equals_naive(each, dtype):
    compare("cpu", each, dtype)


@BOTH
def test_logits_that_are_right_cost_little_and_exactly(dtype):
    # log(1 + exp(-20)) is lost where the formula takes a difference of numbers near 20
    x, target = np.array([20, -20, 20, -20], dtype), np.array([1, 0, 0, 1], dtype)
    y = cpu.binary_cross_entropy_with_logits_forward(x, target, reduction="none")
    small = np.log1p(np.exp(-20.0))
    np.testing.assert_allclose(y, [small, small, 20 + small, 20 + small], rtol=4 * np.finfo(dtype).eps)


@BOTH
@pytest.mark.parametrize("far", [1e4, 1e30])
def test_far_logits_neither_overflow_nor_warn(dtype, far):
    x, target = np.array([far, -far, far, -far], dtype), np.array([1, 0, 0, 1], dtype)
    y = cpu.binary_cross_entropy_with_logits_forward(x, target, reduction="none")
    np.testing.assert_array_equal(y, np.array([0, 0, far, far], dtype))
    dx = cpu.binary_cross_entropy_with_logits_backward(np.ones(4, dtype), x, target, reduction="none")
    np.testing.assert_array_equal(dx, [0, 0, 1, -1])
    rows = np.array([[far, -far]], dtype)
    for chosen, expected in ((0, 0), (1, dtype(far) + dtype(far))):
        y = cpu.cross_entropy_forward(rows, np.array([chosen]), reduction="none")
        np.testing.assert_array_equal(y, np.array([expected], dtype))


def test_sums_are_kept_in_float64():
    # ten million times 0.1: a float32 sum is off by thousands
    x = np.full(2_000_000, 0.1, np.float32)
    total = cpu.smooth_l1_forward(x, np.zeros_like(x), beta=0.0, reduction="sum")
    assert total == np.float32(x.size * np.float64(np.float32(0.1)))


def test_sum_beyond_the_type_is_infinite_and_silent():
    x = np.full(4, 3e38, np.float32)
    assert np.isinf(cpu.smooth_l1_forward(x, np.zeros_like(x), reduction="sum"))


def test_probabilities_of_0_and_1():
    p, target = np.array([0.0, 1, 0, 1]), np.array([0.0, 1, 1, 0])
    np.testing.assert_array_equal(cpu.binary_cross_entropy_forward(p, target, reduction="none"), [0, 0, 100, 100])
    dp = cpu.binary_cross_entropy_backward(np.ones(4), p, target, reduction="none")
    np.testing.assert_allclose(dp, [0, 0, -1e12, 1e12])


def test_class_weights_weigh_the_mean():
    # two pixels of even odds: each costs log 2; the mean divides by 3 + 1
    x, target, weight = np.zeros((2, 2)), np.array([0, 1]), np.array([3.0, 1])
    np.testing.assert_allclose(cpu.cross_entropy_forward(x, target, weight), np.log(2))
    np.testing.assert_allclose(cpu.cross_entropy_forward(x, target, weight, reduction="sum"), 4 * np.log(2))


@pytest.mark.parametrize("target", [np.array([[-100, -100]]), np.array([[0, 0]])], ids=["all ignored", "no weight"])
def test_mean_over_no_weight_is_0(target):
    x, weight = np.ones((1, 2, 2)), np.array([0.0, 1])
    assert cpu.cross_entropy_forward(x, target, weight) == 0
    assert not cpu.cross_entropy_backward(1.0, x, target, weight).any()


def test_smooth_l1_without_beta_is_l1():
    x = np.array([-2.0, 0, 3, np.nan])
    zeros = np.zeros(4)
    np.testing.assert_array_equal(cpu.smooth_l1_forward(x, zeros, 0.0, "none"), [2, 0, 3, np.nan])
    np.testing.assert_array_equal(cpu.smooth_l1_backward(np.ones(4), x, zeros, 0.0, "none"), [-1, 0, 1, np.nan])


@BOTH
def test_focal_with_a_fractional_power_where_nothing_is_missed(dtype):
    # miss ** (gamma - 1) is infinite at 0; the loss and its gradient are 0
    x, target = np.array([1000, -1000], dtype), np.array([1, 0], dtype)
    assert not cpu.sigmoid_focal_forward(x, target, gamma=0.5).any()
    assert not cpu.sigmoid_focal_backward(np.ones(2, dtype), x, target, gamma=0.5).any()


def test_dice_by_hand():
    # p is 1/2 everywhere: overlap 2 * 0.5 + 1 of areas 2 * 0.5 + 1 + 1
    x, target = np.zeros((1, 2)), np.array([[1.0, 0]])
    np.testing.assert_allclose(cpu.dice_forward(x, target), 1 - 2 / 3)
    np.testing.assert_allclose(cpu.dice_forward(x, target, smooth=0.0), 0.5)
