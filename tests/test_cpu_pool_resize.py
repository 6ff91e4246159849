"""The fast max-pooling and resizing: against naive, at every remainder of the vector width, ties and NaN."""

import numpy as np
import pytest
from cases import compare, of

import kernels
from kernels import checks
from kernels.cpu import max_pool2d
from kernels.cpu.tasks import run
from kernels.cpu.tiling import lanes

cpu, naive = kernels.get("cpu"), kernels.get("naive")
BOTH = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])


@BOTH
@pytest.mark.parametrize("case", of("max_pool2d", "upsample2d"), ids=str)
def test_equals_naive(case, dtype):
    compare("cpu", case, dtype)


#: kernel_size, stride, padding: windows of vectors with every step, and those at the borders.
WINDOWS = [(2, 2, 0), (3, 2, 1), (3, 1, 1), (1, 2, 0), (2, 3, 1), ((3, 5), (1, 2), (1, 2))]


@BOTH
@pytest.mark.parametrize("width", [*range(5, 37), 63, 64, 65, 66, 67])
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_every_remainder_of_the_vector_width_inside_guard_bands(window, width, dtype):
    rng = np.random.default_rng(width)
    # few values: many ties, NaN and minus infinity among them
    inside = rng.choice(np.array([-np.inf, np.nan, 0, 1, 2], dtype), (3, 2, 5, width))
    expected = naive.max_pool2d_forward(inside, *window)
    guarded = [np.full(200 + a.size, -7, a.dtype) for a in (inside, *expected)]
    guarded[0][:] = np.nan  # wins where it is read
    x, y, indices = (a[100:-100].reshape(b.shape) for a, b in zip(guarded, (inside, *expected), strict=True))
    x[...] = inside
    geometry = checks.max_pool2d(x, *window, 1, False)[1]
    places = max_pool2d._tap_places(geometry.kH, geometry.kW, width, 1)
    run(max_pool2d._pool_plane, 6, (*geometry[2:], lanes(dtype)), y, x, indices=indices, places=places)
    np.testing.assert_array_equal(y, expected[0])
    np.testing.assert_array_equal(indices, expected[1])
    for band in guarded[1:]:
        assert (band[:100] == -7).all() and (band[-100:] == -7).all()


@BOTH
@pytest.mark.parametrize("window", [((2, 2), 2, 1, 1), ((2, 2), 2, 1, (2, 1)), ((2, 2), (3, 2), 0, (3, 1))], ids=str)
def test_windows_of_two_by_two_at_borders_and_with_rows_apart(window, dtype, rng):
    x = np.asarray(rng.integers(-3, 4, (2, 3, 11, 41)), dtype)
    for actual, expected in zip(*(module.max_pool2d_forward(x, *window) for module in (cpu, naive)), strict=True):
        np.testing.assert_array_equal(actual, expected)


@BOTH
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_maxima_alone_are_those_with_their_places(window, dtype, rng):
    x = np.asarray(rng.standard_normal((2, 3, 20, 37)), dtype)
    np.testing.assert_array_equal(cpu.max_pool2d_maxima(x, *window), cpu.max_pool2d_forward(x, *window)[0])


def test_first_of_equals_and_last_nan_win():
    nan, inf = np.nan, np.inf
    x = np.array([[5, 5, nan, 1, -inf, -inf], [5, 5, 2, nan, -inf, -inf]])[None, None]
    y, indices = cpu.max_pool2d_forward(x, 2)
    np.testing.assert_array_equal(y.ravel(), [5, nan, -inf])
    np.testing.assert_array_equal(indices.ravel(), [0, 9, 4])


def test_overlapping_windows_add_up():
    x = np.array([[0.0, 9, 0], [0, 0, 0]])[None, None]
    y, indices = cpu.max_pool2d_forward(x, 2, stride=1)
    dx = cpu.max_pool2d_backward(np.array([[[[3.0, 4]]]]), indices, x.shape)
    np.testing.assert_array_equal(dx[0, 0], [[0, 7, 0], [0, 0, 0]])


@pytest.mark.parametrize("seed", range(40))
def test_any_pooling_equals_naive(seed):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 6, (2, 2, *rng.integers(8, 20, 2))).astype(np.float64)
    x[rng.random(x.shape) < 0.05] = rng.choice([np.nan, -np.inf])
    size, stride, dilation = rng.integers(1, 4, (3, 2))
    padding = [rng.integers(0, k // 2 + 1) for k in size]
    parameters = [tuple(int(v) for v in pair) for pair in (size, stride, padding, dilation)]
    results = [b.max_pool2d_forward(x, *parameters, bool(seed % 2)) for b in (cpu, naive)]
    for actual, expected in zip(*results, strict=True):
        np.testing.assert_array_equal(actual, expected, str(parameters))
    dy = rng.integers(-9, 9, results[0][0].shape).astype(np.float64)
    gradients = [b.max_pool2d_backward(dy, results[0][1], x.shape) for b in (cpu, naive)]
    np.testing.assert_array_equal(*gradients)


@BOTH
@pytest.mark.parametrize("backend", kernels.BACKENDS)
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_a_gradient_added_to_another_has_the_bits_of_a_sum(backend, dtype, stride):
    rng, module = np.random.default_rng(stride), kernels.get(backend)
    y, indices = module.max_pool2d_forward(np.asarray(rng.standard_normal((2, 3, 9, 20)), dtype), 2, stride)
    dy, onto = (np.asarray(rng.standard_normal(shape), dtype) for shape in (y.shape, (2, 3, 9, 20)))
    for a in (dy, onto):
        a[rng.random(a.shape) < 0.2] = -0.0  # a sum of two zeros is -0 only if both are
        a[rng.random(a.shape) < 0.02] = rng.choice([np.nan, np.inf])
    onto, before = np.repeat(onto, 2, axis=3)[..., ::2], onto
    dx = module.max_pool2d_backward(dy, indices, onto.shape, onto)
    with np.errstate(invalid="ignore"):
        expected = before + module.max_pool2d_backward(dy, indices, onto.shape)
    np.testing.assert_array_equal(dx, expected)
    np.testing.assert_array_equal(np.signbit(dx[dx == 0]), np.signbit(expected[dx == 0]))
    np.testing.assert_array_equal(onto, before)


@pytest.mark.parametrize("backend", kernels.BACKENDS)
def test_an_index_outside_of_the_last_plane_is_found(backend):
    dy, indices = np.ones((2, 3, 40, 40), np.float32), np.zeros((2, 3, 40, 40), int)
    for bad in (-1, 6400, -(2**63), 2**63 - 1):
        indices[1, 2, 39, 39] = bad
        with pytest.raises(ValueError, match=f"indices has values from {min(bad, 0)} to {max(bad, 0)}; expected 0 to"):
            kernels.get(backend).max_pool2d_backward(dy, indices, (2, 3, 80, 80))


@pytest.mark.parametrize("backend", kernels.BACKENDS)
def test_a_window_without_a_pixel_of_the_picture_is_refused(backend):
    with pytest.raises(ValueError, match="dilation is"):
        kernels.get(backend).max_pool2d_forward(np.zeros((1, 1, 3, 9)), 2, stride=1, padding=(3, 0), dilation=(5, 1))


@BOTH
@pytest.mark.parametrize("seed", range(40))
def test_any_resizing_equals_naive(dtype, seed):
    rng = np.random.default_rng(seed)
    shape = (2, 2, *(int(v) for v in rng.integers(1, 20, 2)))
    mode, corners = ("nearest", False) if seed % 3 == 0 else ("bilinear", seed % 3 == 1)
    if seed % 2:
        target = {"size": tuple(int(v) for v in rng.integers(1, 60, 2))}
    else:
        target = {"scale_factor": tuple(float(v) for v in rng.uniform(1, 4, 2))}
    x = np.asarray(rng.standard_normal(shape), dtype)
    y = cpu.upsample2d_forward(x, mode=mode, align_corners=corners, **target)
    dy = np.asarray(rng.standard_normal(y.shape), dtype)
    pairs = [(y, naive.upsample2d_forward(x, mode=mode, align_corners=corners, **target))]
    gradients = [b.upsample2d_backward(dy, shape, mode=mode, align_corners=corners, **target) for b in (cpu, naive)]
    pairs.append(tuple(gradients))
    bound = 1e-6 if dtype == np.float32 else 1e-14
    for actual, expected in pairs:
        assert actual.shape == expected.shape
        assert np.abs(actual - expected).max() <= 10 * bound * max(1, np.abs(expected).max())


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_picture_of_no_numbers_stays_so(mode, value):
    y = cpu.upsample2d_forward(np.full((1, 1, 2, 2), value), size=(5, 7), mode=mode)
    assert np.isnan(y).all() if np.isnan(value) else np.isinf(y[y == y]).all()


def test_nearest_copies_infinity():
    y = cpu.upsample2d_forward(np.array([[[[1.0, np.inf]]]]), scale_factor=2)
    np.testing.assert_array_equal(y[0, 0], [[1, 1, np.inf, np.inf]] * 2)


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_the_size_that_a_factor_leaves_as_it_is_gives_a_copy(mode, rng):
    # as in PyTorch: 6 * 1.1 is still 6 pixels, and then 1.1 does not count
    x = rng.standard_normal((1, 1, 6, 6))
    np.testing.assert_array_equal(cpu.upsample2d_forward(x, scale_factor=1.1, mode=mode), x)


@pytest.mark.parametrize("backend", [cpu, naive], ids=["cpu", "naive"])
def test_a_factor_that_makes_twice_the_pixels_takes_each_one_twice(backend):
    # as in PyTorch, for nearest only: 4 * 2.2 is 8 pixels, and then 2.2 does not count
    x = np.arange(4.0).reshape(1, 1, 1, 4)
    y = backend.upsample2d_forward(x, scale_factor=(1, 2.2))
    np.testing.assert_array_equal(y.ravel(), [0, 0, 1, 1, 2, 2, 3, 3])
    dx = backend.upsample2d_backward(np.arange(8.0).reshape(1, 1, 1, 8), x.shape, scale_factor=(1, 2.2))
    np.testing.assert_array_equal(dx.ravel(), [1, 5, 9, 13])
    # the second pixel's centre, 1.5 / 2.2 - 0.5, as ever
    y = backend.upsample2d_forward(x, scale_factor=(1, 2.2), mode="bilinear")
    np.testing.assert_allclose(y.ravel()[1], 1.5 / 2.2 - 0.5)
