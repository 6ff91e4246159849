"""Convolutions of few channels, whose pixels are read where they are: every edge of their tiles, in any partition."""

import numba
import numpy as np
import pytest
from test_cpu_conv import BOTH, CONV, Guards, assert_near, choose_algorithm, run_guarded

import kernels
from kernels.cpu import conv2d, conv_relu, packing, planner, row_convolution, thin_convolution, thin_gradient, tiling

naive = kernels.get("naive")
#: The algorithms of this page; each output channel by itself comes first, where both are possible.
HERE = "thin", "rows"
#: Few and many channels of either side: less than a tile, a whole one, and more.
CHANNELS = [(1, 1), (1, tiling.WIDE.rows + 1), (tiling.WIDE.rows + 1, 1), (3, 2), (2, thin_gradient.FEW)]


@pytest.fixture
def guards(monkeypatch):
    choose_algorithm(monkeypatch, *HERE)
    guards = Guards()
    monkeypatch.setattr(packing, "new_array", guards.empty)
    return guards


@pytest.fixture
def calls(monkeypatch):
    """Collect which of the kernels ran."""
    ran = []
    kernels = (
        (thin_convolution, "thin_correlate"),
        (row_convolution, "row_correlate"),
        (thin_gradient, "thin_weight_gradient"),
    )
    for module, name in kernels:
        kernel = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, name=name, kernel=kernel: ran.append(name) or kernel(*a))
    return ran


@BOTH
@pytest.mark.parametrize(("inputs", "outputs"), CHANNELS)
def test_nothing_beyond_the_arrays_at_every_width(guards, calls, rng, dtype, inputs, outputs):
    lanes = tiling.lanes(dtype)
    edges = {edge + by for edge in range(0, 7 * lanes, lanes) for by in (-1, 0, 1, 2)}
    for width in sorted(edge for edge in edges if edge > 0):
        padding = 1 if width < 3 else (1, width % 4)
        run_guarded(guards, CONV, dtype, (2, inputs, 3, width), (outputs, inputs, 3, 3), rng, padding=padding)
    few = [n <= thin_convolution.FEW for n in (outputs, inputs)]  # of the channels that y and dx have
    expected = {"thin_weight_gradient", *np.where(few, "thin_correlate", "row_correlate")}
    assert set(calls) == expected


@BOTH
@pytest.mark.parametrize(("inputs", "outputs"), CHANNELS)
def test_nothing_beyond_the_arrays_at_every_height(guards, rng, dtype, inputs, outputs):
    for height in range(1, 22):
        padding = (1 + height % 3, 0)
        run_guarded(guards, CONV, dtype, (2, inputs, height, 21), (outputs, inputs, 3, 3), rng, padding=padding)


@BOTH
def test_nothing_beyond_the_arrays_at_every_channel_count(guards, rng, dtype):
    for channels in range(1, 2 * tiling.WIDE.rows + 2):
        run_guarded(guards, CONV, dtype, (1, 3, 5, 19), (channels, 3, 3, 3), rng, padding=1)
        run_guarded(guards, CONV, dtype, (1, channels, 5, 19), (2, channels, 3, 3), rng, padding=1)


@BOTH
@pytest.mark.parametrize(("groups", "inputs", "outputs"), [(5, 1, 1), (3, 2, 9), (2, 9, 2)])
def test_groups_have_kernels_of_their_own(guards, rng, dtype, groups, inputs, outputs):
    shapes = (2, groups * inputs, 13, 37), (groups * outputs, inputs, 3, 3)
    run_guarded(guards, CONV, dtype, *shapes, rng, padding=1, groups=groups)


@BOTH
@pytest.mark.parametrize(("inputs", "outputs"), [(2, 3), (2, tiling.WIDE.rows)])
def test_it_can_end_in_scale_residual_and_relu(guards, calls, rng, dtype, inputs, outputs):
    x, weight = (np.asarray(rng.standard_normal(s), dtype) for s in ((2, inputs, 11, 75), (outputs, inputs, 3, 3)))
    bias, scale = np.asarray(rng.standard_normal((2, outputs)), dtype)
    residual = np.asarray(rng.standard_normal((2, outputs, 11, 75)), dtype)
    expected = naive.conv2d_forward(x, weight * scale[:, None, None, None], bias, padding=1)
    expected = naive.relu_forward(expected + residual)
    arrays = (guards.place(a) for a in (x, weight, bias))
    y = conv_relu.conv2d_relu_forward(*arrays, padding=1, scale=scale, residual=guards.place(residual))
    guards.check()
    assert_near(y, expected, "y")
    assert calls == ["thin_correlate" if outputs <= thin_convolution.FEW else "row_correlate"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 9), (9, 1)])
def test_what_is_not_finite_reaches_what_its_windows_cover(monkeypatch, rng, inputs, outputs, value):
    # the other way round than in test_cpu_conv, there is an array that is read shifted on either side
    choose_algorithm(monkeypatch, *HERE)
    x = np.asarray(rng.standard_normal((1, inputs, 9, 83)), np.float32)
    weight = np.asarray(rng.standard_normal((outputs, inputs, 3, 3)), np.float32)
    dy = np.asarray(rng.standard_normal((1, outputs, 9, 83)), np.float32)
    for row, col in ((0, 0), (8, 82), (4, 31), (4, 32), (4, 47), (4, 48), (7, 0), (0, 82)):
        for where in (x, dy):
            kept = where[0, 0, row, col]
            where[0, 0, row, col] = value
            results = conv2d.conv2d_forward(x, weight, padding=1), *conv2d.conv2d_backward(dy, x, weight, padding=1)
            expected = naive.conv2d_forward(x, weight, padding=1), *naive.conv2d_backward(dy, x, weight, padding=1)
            where[0, 0, row, col] = kept
            for name, a, b in zip(("y", "dx", "dweight", "dbias"), results, expected, strict=True):
                assert np.array_equal(np.isfinite(a), np.isfinite(b)), f"{name} with {value} at {row}, {col}"


@BOTH
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 8), (8, 1)])
def test_same_bits_for_any_number_of_threads(monkeypatch, rng, dtype, inputs, outputs):
    choose_algorithm(monkeypatch, *HERE)
    x = np.asarray(rng.standard_normal((3, inputs, 67, 90)), dtype)
    weight = np.asarray(rng.standard_normal((outputs, inputs, 3, 3)), dtype)
    dy = np.asarray(rng.standard_normal((3, outputs, 67, 90)), dtype)
    results, before = [], numba.get_num_threads()
    try:
        for threads in range(1, before + 1):
            numba.set_num_threads(threads)
            y = conv2d.conv2d_forward(x, weight, padding=1)
            results.append([a.tobytes() for a in (y, *conv2d.conv2d_backward(dy, x, weight, padding=1))])
    finally:
        numba.set_num_threads(before)
    assert all(arrays == results[0] for arrays in results)


@pytest.mark.parametrize(
    ("channels", "in_channels", "parameters", "expected"),
    [
        (1, 64, (3, 1, 1, 1), True),
        (64, 64, (3, 1, 1, 1), False),
        (1, 64, (3, 2, 1, 1), False),
        (1, 64, (3, 1, 2, 2), False),
        (1, 64, (2, 1, 0, 1), False),
    ],
    ids=["", "many channels", "stride", "dilation", "kernel"],
)
def test_where_it_is_possible(channels, in_channels, parameters, expected):
    kernel, stride, padding, dilation = parameters
    axis, plain = packing.gather_axis(kernel, stride, padding, dilation), packing.gather_axis(3, 1, 1, 1)
    weight = (1, channels, in_channels, kernel, 3)
    for axes in ((axis, plain), (plain, axis)):
        assert thin_convolution.possible(weight, *axes) == expected
    shapes = (2, in_channels, 40, 40), weight, (40, 40)
    backward = packing.scatter_axis(40, kernel, stride, padding, dilation)
    assert ("thin" in planner.estimate(np.dtype(np.float32), *shapes, backward, plain)) == expected
