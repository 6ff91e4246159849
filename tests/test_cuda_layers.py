"""Normalisation, pooling and resizing on the device: what stays there, what is refused, odd sizes and values."""

import numpy as np
import pytest
from cases import of, upstream

import kernels
from kernels import cuda
from kernels.cuda import max_pool2d, moments

pytestmark = pytest.mark.cuda

naive = kernels.get("naive")
BOTH = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])


def _host(results):
    return tuple(cuda.to_host(result) for result in results)


# ---- batch normalisation ---------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("shape", [(3, 1, 1, 17), (2, 2, 5, 7), (40, 1, 1, 1), (1, 3, 1, 2)], ids=str)
def test_batch_norm_in_parts(shape, dtype, rng):
    channels = shape[1]
    x, dy = (np.asarray(rng.standard_normal(shape) + 5, dtype) for _ in range(2))
    gamma, beta = (np.asarray(rng.standard_normal(channels), dtype) for _ in range(2))
    results = []
    for backend in (cuda, naive):
        running = np.zeros(channels, dtype), np.ones(channels, dtype)
        y, mean, inv_std = _host(backend.batch_norm_forward(x, gamma, beta, *running, True))
        gradients = _host(backend.batch_norm_backward(dy, x, gamma, mean, inv_std, True))
        results.append((y, mean, inv_std, *running, *gradients))
    bound = 1e-5 if dtype == np.float32 else 1e-12
    for actual, expected in zip(*results, strict=True):
        assert np.abs(actual - expected).max() <= bound * max(1, np.abs(expected).max())


@pytest.mark.parametrize("channels", [1, 3, 64, 5000])
@pytest.mark.parametrize("pictures", [1, 2, 7, 1000])
@pytest.mark.parametrize("pixels", [1, 2, 49, 3136, 1 << 20])
def test_parts_hold_every_value_once(channels, pictures, pixels):
    parts, block, cut = moments.parts_of((pictures, channels, 1, pixels))
    groups = parts // cut.strips
    assert parts == groups * cut.strips and block[0] * block[1] == moments.THREADS
    assert (groups - 1) * cut.pictures_each < pictures <= groups * cut.pictures_each
    assert (cut.strips - 1) * cut.pixels_each < pixels <= cut.strips * cut.pixels_each


@BOTH
@pytest.mark.parametrize("first", [1000.0, -1e6])
def test_batch_norm_loses_no_digits(dtype, first, rng):
    # a mean of 1000, or a first value far from all others, which all differences are taken from
    x = np.asarray(1000 + rng.standard_normal((2, 1, 5, 9)), dtype)
    x[0, 0, 0, 0] = first
    wide = x.astype(np.float64)
    running = np.zeros(1, dtype), np.zeros(1, dtype)
    y, mean, inv_std = _host(cuda.batch_norm_forward(x, None, None, *running, True, 1.0, 0.0))
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(mean, wide.mean(), rtol=eps)
    np.testing.assert_allclose(running[0], wide.mean(), rtol=eps)
    np.testing.assert_allclose(inv_std, 1 / wide.std(), rtol=max(2 * eps, 1e-13))
    np.testing.assert_allclose(running[1], wide.var(ddof=1), rtol=max(2 * eps, 1e-13))
    assert np.abs(y - (wide - wide.mean()) / wide.std()).max() <= (2e-6 if dtype == np.float32 else 1e-12)


@BOTH
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_spoils_its_channel_only(value, dtype, rng):
    for place in ((0, 0, 0, 0), (1, 0, 1, 1)):
        x = np.asarray(rng.standard_normal((2, 2, 3, 4)), dtype)
        x[place] = value
        actual = _host(cuda.batch_norm_forward(x, None, None, None, None, True))
        expected = naive.batch_norm_forward(x, None, None, None, None, True)
        for a, b in zip(actual, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_constant_channel_without_eps_is_not_a_number():
    y, _, inv_std = _host(cuda.batch_norm_forward(np.ones((2, 1, 2, 2)), None, None, None, None, True, eps=0.0))
    assert np.isnan(y).all() and np.isinf(inv_std).all()


def test_batch_norm_training_stays_on_the_device(rng):
    x, ones = rng.standard_normal((2, 3, 4, 5)), np.ones(3)
    on_device = [cuda.to_device(a) for a in (x, ones, np.zeros(3), np.zeros(3), ones)]
    before = cuda.transfers()
    y, mean, inv_std = cuda.batch_norm_forward(*on_device, True)
    gradients = cuda.batch_norm_backward(y, on_device[0], on_device[1], mean, inv_std, True)
    assert cuda.transfers() == before
    running = np.zeros(3), np.ones(3)
    expected = naive.batch_norm_forward(x, ones, np.zeros(3), *running, True)
    expected += naive.batch_norm_backward(expected[0], x, ones, *expected[1:], True)
    for a, b in zip((y, mean, inv_std, *gradients, *on_device[3:]), (*expected, *running), strict=True):
        np.testing.assert_allclose(cuda.to_host(a), b, rtol=1e-12, atol=1e-12)


def test_evaluation_leaves_running_statistics_and_allows_read_only_ones():
    running = np.array([2.0]), np.array([4.0])
    for a in running:
        a.flags.writeable = False
    y, mean, inv_std = _host(cuda.batch_norm_forward(np.full((1, 1, 1, 1), 6.0), None, None, *running, False, eps=0.0))
    assert (y.item(), mean.item(), inv_std.item()) == (2, 2, 0.5)
    with pytest.raises(ValueError, match="running_mean is read-only"):
        cuda.batch_norm_forward(np.ones((2, 1, 1, 1)), None, None, *running, True)


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 3, 0, 5), (2, 0, 4, 5)])
@pytest.mark.parametrize("training", [True, False])
def test_nothing_changes_nothing(shape, training):
    x = np.zeros(shape, np.float32)
    running = np.full(shape[1], 3, np.float32), np.full(shape[1], 4, np.float32)
    y, mean, inv_std = _host(cuda.batch_norm_forward(x, None, None, *running, training))
    assert y.shape == shape and mean.shape == inv_std.shape == (shape[1],)
    assert (running[0] == 3).all() and (running[1] == 4).all()
    dx, dgamma, dbeta = _host(cuda.batch_norm_backward(x, x, None, mean, inv_std, training))
    assert dx.shape == shape and not dgamma.any() and not dbeta.any()


# ---- pooling ---------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("case", of("max_pool2d"), ids=str)
def test_pooling_goes_back_without_a_transfer(case, dtype):
    x = case.inputs(dtype)["x"]
    y, indices = cuda.max_pool2d_forward(cuda.to_device(x), **case.parameters)
    dy = upstream(y)
    on_device = cuda.to_device(dy)
    before = cuda.transfers()
    dx = cuda.max_pool2d_backward(on_device, indices, x.shape)
    assert cuda.transfers() == before
    # the same sums in the same order
    np.testing.assert_array_equal(cuda.to_host(dx), naive.max_pool2d_backward(dy, cuda.to_host(indices), x.shape))


def test_indices_that_no_pooling_made(rng):
    # from anywhere to anywhere, several to one place
    dy = rng.integers(-9, 9, (2, 3, 4, 5)).astype(np.float32)
    indices = rng.integers(0, 42, dy.shape)
    expected = naive.max_pool2d_backward(dy, indices, (2, 3, 6, 7))
    for given in (indices, cuda.to_device(indices), indices.astype(np.int32)):
        np.testing.assert_array_equal(cuda.to_host(cuda.max_pool2d_backward(dy, given, (2, 3, 6, 7))), expected)


def test_a_pooling_s_indices_for_pictures_of_another_size(rng):
    x = rng.standard_normal((1, 2, 4, 6))
    y, indices = cuda.max_pool2d_forward(x, 2)
    dy = upstream(y)
    for shape in ((1, 2, 6, 4), (1, 2, 5, 6)):
        expected = naive.max_pool2d_backward(dy, cuda.to_host(indices), shape)
        np.testing.assert_array_equal(cuda.to_host(cuda.max_pool2d_backward(dy, indices, shape)), expected)
    with pytest.raises(ValueError, match=r"indices has values from \d+ to \d+; expected 0 to 7"):
        cuda.max_pool2d_backward(dy, indices, (1, 2, 2, 4))


@pytest.mark.parametrize("bad", [-1, 42, -(2**63), 2**63 - 1])
def test_an_index_outside_the_picture_is_refused(bad):
    dy, indices = np.ones((1, 1, 2, 2)), np.zeros((1, 1, 2, 2), np.int64)
    indices[0, 0, 1, 0] = bad
    for given in (indices, cuda.to_device(indices)):
        with pytest.raises(ValueError, match=f"indices has values from {min(bad, 0)} to {max(bad, 0)}; expected 0 to"):
            cuda.max_pool2d_backward(dy, given, (1, 1, 6, 7))
    with pytest.raises(TypeError, match="indices has dtype int32; expected int64 on the device"):
        cuda.max_pool2d_backward(dy, cuda.to_device(indices.astype(np.int32)), (1, 1, 6, 7))


@pytest.mark.parametrize("shape", [(0, 2, 4, 4), (2, 0, 4, 4)])
def test_pooling_of_nothing(shape):
    y, indices = cuda.max_pool2d_forward(np.zeros(shape), 2)
    assert y.shape == indices.shape == (*shape[:2], 2, 2)
    assert cuda.max_pool2d_backward(y, indices, shape).shape == shape
    # gradients of no windows
    nothing = np.zeros((2, 3, 0, 2)), np.zeros((2, 3, 0, 2), np.int64)
    assert not cuda.to_host(cuda.max_pool2d_backward(*nothing, (2, 3, 4, 5))).any()


@pytest.mark.parametrize("seed", range(10))
def test_any_pooling_equals_naive(seed):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 6, (2, 2, *rng.integers(8, 13, 2))).astype(np.float64)
    x[rng.random(x.shape) < 0.05] = rng.choice([np.nan, -np.inf])
    size, stride, dilation = rng.integers(1, 4, (3, 2))
    padding = [rng.integers(0, k // 2 + 1) for k in size]
    parameters = [tuple(int(v) for v in pair) for pair in (size, stride, padding, dilation)]
    y, indices = cuda.max_pool2d_forward(x, *parameters, bool(seed % 2))
    expected = naive.max_pool2d_forward(x, *parameters, bool(seed % 2))
    np.testing.assert_array_equal(cuda.to_host(y), expected[0], str(parameters))
    np.testing.assert_array_equal(cuda.to_host(indices), expected[1], str(parameters))
    dy = upstream(expected[0])
    dx = cuda.to_host(cuda.max_pool2d_backward(dy, indices, x.shape))
    np.testing.assert_array_equal(dx, naive.max_pool2d_backward(dy, expected[1], x.shape))


def test_tables_of_both_origins_agree():
    # pixels that no window reaches need not agree: they collect nothing
    x = np.arange(2 * 9 * 11, dtype=np.float64).reshape(1, 2, 9, 11)
    y, indices = cuda.max_pool2d_forward(x, 3, 2, 1)
    found = cuda.to_host(max_pool2d._windows_found(indices, x.shape))
    known = cuda.to_host(max_pool2d._windows(*indices.pooling[2:]))
    for start, size in ((0, 9), (18, 11)):
        first, end = (table[start : start + 2 * size].reshape(2, size) for table in (known, found))
        used = end[1] > end[0]
        assert used.any() and (first[0, used] <= end[0, used]).all() and (first[1, used] >= end[1, used]).all()


# ---- resizing --------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("seed", range(15))
def test_any_resizing_equals_naive(dtype, seed):
    rng = np.random.default_rng(seed)
    shape = (1, 2, *(int(v) for v in rng.integers(1, 12, 2)))
    mode, corners = ("nearest", False) if seed % 3 == 0 else ("bilinear", seed % 3 == 1)
    if seed % 2:
        target = {"size": tuple(int(v) for v in rng.integers(1, 20, 2))}
    else:
        target = {"scale_factor": tuple(float(v) for v in rng.uniform(1, 3, 2))}
    x = np.asarray(rng.standard_normal(shape), dtype)
    y = cuda.to_host(cuda.upsample2d_forward(x, mode=mode, align_corners=corners, **target))
    dy = upstream(y)
    dx = cuda.to_host(cuda.upsample2d_backward(dy, shape, mode=mode, align_corners=corners, **target))
    expected = naive.upsample2d_forward(x, mode=mode, align_corners=corners, **target)
    gradient = naive.upsample2d_backward(dy, shape, mode=mode, align_corners=corners, **target)
    bound = 1e-5 if dtype == np.float32 else 1e-13
    for a, b in ((y, expected), (dx, gradient)):
        assert a.shape == b.shape and np.abs(a - b).max() <= bound * max(1, np.abs(b).max())


@BOTH
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_resizing_spreads_what_is_no_number_as_naive_does(mode, value, dtype, rng):
    for size in ((9, 13), (3, 2), (4, 5)):
        x = np.asarray(rng.standard_normal((1, 1, 4, 5)), dtype)
        x[0, 0, 1, 2] = x[0, 0, 3, 4] = value
        y = cuda.to_host(cuda.upsample2d_forward(x, size=size, mode=mode))
        np.testing.assert_allclose(y, naive.upsample2d_forward(x, size=size, mode=mode), rtol=1e-5, atol=1e-6)
        dy = np.asarray(rng.standard_normal(y.shape), dtype)
        dy[0, 0, 1, 1] = dy[0, 0, -1, -1] = value
        dx = cuda.to_host(cuda.upsample2d_backward(dy, x.shape, size=size, mode=mode))
        expected = naive.upsample2d_backward(dy, x.shape, size=size, mode=mode)
        np.testing.assert_allclose(dx, expected, rtol=1e-5, atol=1e-6)


def test_resizing_stays_on_the_device(rng):
    x = cuda.to_device(rng.standard_normal((1, 2, 5, 7)))
    before = cuda.transfers()
    y = cuda.upsample2d_forward(x, scale_factor=2, mode="bilinear")
    assert cuda.upsample2d_backward(y, x.shape, scale_factor=2, mode="bilinear").shape == x.shape
    assert cuda.transfers() == before


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_resizing_of_nothing(mode):
    y = cuda.upsample2d_forward(np.zeros((2, 0, 3, 4)), size=(5, 6), mode=mode)
    assert y.shape == (2, 0, 5, 6)
    assert cuda.upsample2d_backward(y, (2, 0, 3, 4), size=(5, 6), mode=mode).shape == (2, 0, 3, 4)
    with pytest.raises(ValueError, match="dy has shape"):
        cuda.upsample2d_backward(np.zeros((1, 1, 2, 2)), (1, 1, 3, 4), size=(5, 6), mode=mode)
