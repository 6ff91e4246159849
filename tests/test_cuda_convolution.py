"""CUDA convolutions and matrix products: how they are cut, and what must not depend on it."""

import numpy as np
import pytest
from tolerances import TOLERANCES, assert_close

import kernels
from kernels import cuda
from kernels.cuda import gemm

pytestmark = pytest.mark.cuda
naive = kernels.get("naive")
BOTH = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])


def _compare(actual, expected, operator, dtype):
    for a, b in zip(actual, expected, strict=True):
        assert_close(cuda.to_host(a), b, TOLERANCES[operator].of(dtype), what=operator)


@BOTH
@pytest.mark.parametrize("splits", [1, 2, 3, 50])
def test_sums_in_parts(monkeypatch, rng, splits, dtype):
    cut = gemm.cut

    def chosen(*sizes):
        return cut(*sizes)._replace(splits=splits)  # also more parts than steps

    for module in ("gemm", "correlation", "weight_gradient"):
        monkeypatch.setattr(f"kernels.cuda.{module}.cut", chosen)
    x, weight, bias = (np.asarray(rng.standard_normal(shape), dtype) for shape in ((2, 9, 3, 4), (3, 9, 2, 2), 3))
    dy = np.asarray(rng.standard_normal((2, 3, 2, 2)), dtype)
    how = {"stride": 2, "padding": 1, "dilation": 2}
    _compare(
        [cuda.conv2d_forward(x, weight, bias, **how)], [naive.conv2d_forward(x, weight, bias, **how)], "conv2d", dtype
    )
    _compare(cuda.conv2d_backward(dy, x, weight, **how), naive.conv2d_backward(dy, x, weight, **how), "conv2d", dtype)
    a, b, c = (np.asarray(rng.standard_normal(shape), dtype) for shape in ((5, 19), (6, 19), 6))
    _compare([cuda.linear_forward(a, b, c)], [naive.linear_forward(a, b, c)], "linear", dtype)


@BOTH
@pytest.mark.parametrize("stride, dilation", [(4, 2), (6, 4), ((2, 3), (3, 2)), (9, 1)])
def test_phases_that_no_cell_of_the_kernel_reaches(rng, stride, dilation, dtype):
    x, weight, bias = (np.asarray(rng.standard_normal(shape), dtype) for shape in ((1, 2, 2, 3), (2, 2, 2, 3), 2))
    y = naive.conv_transpose2d_forward(x, weight, bias, stride=stride, dilation=dilation)
    actual = cuda.conv_transpose2d_forward(x, weight, bias, stride=stride, dilation=dilation)
    _compare([actual], [y], "conv_transpose2d", dtype)


@BOTH
def test_nothing_to_sum(dtype):
    def zeros(*shape):
        return np.zeros(shape, dtype)

    bias = np.arange(3).astype(dtype)
    y = cuda.conv2d_forward(zeros(2, 0, 4, 5), zeros(3, 0, 2, 2), bias)
    np.testing.assert_array_equal(cuda.to_host(y), np.broadcast_to(bias.reshape(1, 3, 1, 1), (2, 3, 3, 4)))
    y = cuda.linear_forward(zeros(2, 0), zeros(3, 0), bias)
    np.testing.assert_array_equal(cuda.to_host(y), np.broadcast_to(bias, (2, 3)))
    for gradient in cuda.conv2d_backward(zeros(0, 3, 3, 4), zeros(0, 2, 4, 5), zeros(3, 2, 2, 2)):
        assert not cuda.to_host(gradient).any()
    for gradient in cuda.linear_backward(zeros(0, 3), zeros(0, 2), zeros(3, 2)):
        assert not cuda.to_host(gradient).any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("how", [{"padding": 1}, {"stride": 2, "padding": 2}, {"dilation": 2}, {"groups": 2}], ids=str)
def test_a_nan_reaches_what_its_windows_cover_and_nothing_else(rng, how, value):
    x = np.asarray(rng.standard_normal((2, 4, 6, 5)), np.float32)
    weight = np.asarray(rng.standard_normal((4, 4 // how.get("groups", 1), 3, 3)), np.float32)
    dy = np.asarray(rng.standard_normal(naive.conv2d_forward(x, weight, **how).shape), np.float32)
    for n, c, row, col in ((0, 0, 0, 0), (1, 3, 5, 4), (1, 2, 3, 1)):
        spoiled = x.copy()
        spoiled[n, c, row, col] = value
        expected = naive.conv2d_forward(spoiled, weight, **how), *naive.conv2d_backward(dy, spoiled, weight, **how)
        actual = cuda.conv2d_forward(spoiled, weight, **how), *cuda.conv2d_backward(dy, spoiled, weight, **how)
        for a, b in zip(actual, expected, strict=True):
            np.testing.assert_array_equal(np.isfinite(cuda.to_host(a)), np.isfinite(b))


def test_gradients_of_large_numbers(rng):
    largest = np.finfo(np.float32).max
    dy = np.full((2, 1, 1, 1), largest)
    ones = np.ones((2, 1, 1, 1), np.float32), np.ones((1, 1, 1, 1), np.float32)
    for name in ("conv2d_backward", "conv_transpose2d_backward"):
        for a, b in zip(getattr(cuda, name)(dy, *ones), getattr(naive, name)(dy, *ones), strict=True):
            np.testing.assert_array_equal(cuda.to_host(a), b)


@pytest.mark.parametrize("n, channels, pixels", [(1, 1, 1), (3, 2, 100), (50, 3, 1), (7, 9, 5), (0, 2, 4), (0, 2, 1)])
def test_bias_gradients(rng, n, channels, pixels):
    dy = rng.integers(-9, 10, (n, channels, 1, pixels)).astype(np.float32)
    weight = np.ones((channels, 1, 1, 1), np.float32)
    x = np.ones((n, 1, 1, pixels), np.float32)
    dbias = cuda.conv2d_backward(dy, x, weight, needs=(False, False, True))[2]
    np.testing.assert_array_equal(cuda.to_host(dbias), dy.sum((0, 2, 3)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tiles_for_gpus(monkeypatch, dtype):
    monkeypatch.setattr(gemm, "SIMULATED", False)
    monkeypatch.setattr(gemm, "_ENOUGH_BLOCKS", 264)
    monkeypatch.setattr(gemm, "_ENOUGH_STEPS", 16)
    for size in gemm.SIZES:
        shape = gemm.tile_of(size, dtype)
        assert max(shape.rows, shape.cols) <= shape.threads <= 256
        assert shape.own_rows % shape.vector == 0 and shape.own_cols in (shape.vector, 2 * shape.vector)
        # copies into shared memory, and its vectors, are whole: along either axis, for steps of eight products
        assert shape.rows * 8 % shape.threads == shape.cols * 8 % shape.threads == 0
        assert (shape.rows + shape.vector) * np.dtype(dtype).itemsize % 16 == 0
    assert gemm.cut(512, 100_000, 1000, 1, dtype).splits == 1
    assert gemm.cut(512, 100_000, 1000, 1, dtype).size == "large"
    few = gemm.cut(64, 576, 10_000, 1, dtype)
    assert 1 < few.splits * few.rows * few.cols <= 264
    assert gemm.cut(3, 5, 2, 1, dtype) == ("small", 1, 1, 1)
    with pytest.raises(ValueError, match="too large"):
        gemm.cut(3, 2**31, 2, 1, dtype)
