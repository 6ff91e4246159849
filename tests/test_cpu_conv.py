"""The vector kernels of convolution and matrix product: against the naive ones, at their edges, in any partition."""

import subprocess
import sys

import numba
import numpy as np
import pytest
from cases import compare, of

import kernels
from kernels.cpu import (
    conv2d,
    conv_joined,
    conv_relu,
    conv_transpose2d,
    correlation,
    linear,
    packing,
    panel_gradient,
    planner,
    tiling,
    weight_gradient,
    winograd_gradient,
)

naive = kernels.get("naive")
BOTH = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])


@BOTH
@pytest.mark.parametrize("case", of("conv2d", "conv_transpose2d", "linear"), ids=str)
def test_equals_naive(case, dtype):
    compare("cpu", case, dtype)


def assert_near(actual, expected, what):
    """Check against naive, where sums have up to some thousand terms of about 1; Winograd's are the least exact."""
    bound = (3e-5 if expected.dtype == np.float32 else 1e-13) * max(1, np.abs(expected).max(initial=0))
    assert actual.shape == expected.shape and actual.dtype == expected.dtype, what
    assert np.abs(actual - expected).max(initial=0) <= bound, what


# ---- guard bands ----------------------------------------------------------------------------------------------------

GUARD = 300  # elements of NaN on each side: more than any vector could reach beyond
NO_INTEGER = -(2**40)  # in place of NaN


class Guards:
    """Arrays inside larger ones, with NaN around them."""

    def __init__(self):
        self.all = []

    def place(self, a):
        """Return a copy of ``a`` inside a guard band."""
        inside = self.empty(a.shape, a.dtype)
        inside[...] = a
        return inside

    def empty(self, shape, dtype):
        """Return an array of NaN inside a guard band, in place of ``packing.new_array``."""
        size = int(np.prod(shape))
        nothing = np.nan if np.issubdtype(dtype, np.floating) else NO_INTEGER
        whole = np.full(size + 2 * GUARD, nothing, dtype)
        self.all.append(whole)
        return whole[GUARD : GUARD + size].reshape(shape)

    def scratch(self, workers, size, dtype, use="tasks"):
        """Take the place of ``packing.scratch``. Scratch starts as NaN: what was not packed must not be used."""
        return self.empty((workers, size), dtype)

    def check(self):
        """Check that no guard band was written to."""
        for whole in self.all:
            for band in whole[:GUARD], whole[-GUARD:]:
                assert np.array_equal(band, np.full_like(band, whole.dtype.type(NO_INTEGER))) or np.isnan(band).all()


def choose_algorithm(monkeypatch, *names):
    """Make all convolutions run by the first of these algorithms that is possible, or by "pixels"."""

    def first_of(estimates):
        return next((name for name in names if name in estimates), "pixels")

    def choose(dtype, *shapes):
        return first_of(planner.estimate(np.dtype(dtype), *shapes))

    def choose_gradient(dtype, *shapes):
        return first_of(planner.estimate_gradient.__wrapped__(np.dtype(dtype), *shapes))

    monkeypatch.setattr(planner, "choose", choose)
    monkeypatch.setattr(planner, "choose_gradient", choose_gradient)
    monkeypatch.setattr(panel_gradient, "gradient_pays", lambda *_, **__: True)


ALGORITHMS = ["pixels", "channels", "points", "rows", "thin", "winograd"]


@pytest.fixture(params=ALGORITHMS)
def guards(monkeypatch, request):
    choose_algorithm(monkeypatch, request.param)
    guards = Guards()
    monkeypatch.setattr(packing, "new_array", guards.empty)
    monkeypatch.setattr(packing, "scratch", guards.scratch)
    return guards


def run_guarded(guards, operator, dtype, x_shape, weight_shape, rng, **parameters):
    """Run forward and backward between guard bands and compare with naive."""
    forward, backward = (getattr(operator[0], f"{operator[1]}_{way}") for way in ("forward", "backward"))
    x, weight = (np.asarray(rng.standard_normal(shape), dtype) for shape in (x_shape, weight_shape))
    outputs = weight_shape[0] if operator[1] == "conv2d" else weight_shape[1] * parameters.get("groups", 1)
    bias = np.asarray(rng.standard_normal(outputs), dtype)
    expected = getattr(naive, f"{operator[1]}_forward")(x, weight, bias, **parameters)
    dy = np.asarray(rng.standard_normal(expected.shape), dtype)
    gradients = getattr(naive, f"{operator[1]}_backward")(dy, x, weight, **parameters)

    inputs = [guards.place(a) for a in (x, weight, bias, dy)]
    results = [forward(*inputs[:3], **parameters), *backward(inputs[3], *inputs[:2], **parameters)]
    guards.check()
    for before, after in zip((x, weight, bias, dy), inputs, strict=True):
        assert np.array_equal(before, after)
    for name, actual, wanted in zip(("y", "dx", "dweight", "dbias"), results, (expected, *gradients), strict=True):
        assert_near(actual, wanted, f"{name} {x_shape} {weight_shape} {parameters}")


CONV = (conv2d, "conv2d")
TRANSPOSED = (conv_transpose2d, "conv_transpose2d")


@BOTH
@pytest.mark.parametrize("remainder", range(2 * tiling.WIDE.columns))
def test_nothing_beyond_the_arrays_at_every_width(guards, rng, dtype, remainder):
    lanes = tiling.lanes(dtype)
    for width in range(remainder * lanes + 1, (remainder + 1) * lanes + 2):
        run_guarded(guards, CONV, dtype, (2, 2, 3, width), (3, 2, 3, 3), rng, padding=1)


@BOTH
@pytest.mark.parametrize("remainder", range(3))
@pytest.mark.parametrize("kernel", [2, 3])
def test_nothing_beyond_the_arrays_with_every_other_column(guards, rng, dtype, kernel, remainder):
    lanes = tiling.lanes(dtype)
    for width in range(remainder * lanes + kernel, (remainder + 1) * lanes + kernel):
        run_guarded(guards, CONV, dtype, (1, 2, 3, width), (2, 2, kernel, kernel), rng, stride=2)
        run_guarded(guards, TRANSPOSED, dtype, (1, 2, 2, width), (2, 2, kernel, kernel), rng, stride=2)


@BOTH
@pytest.mark.parametrize("operator", [CONV, TRANSPOSED], ids=["conv2d", "conv_transpose2d"])
@pytest.mark.parametrize("channels", range(1, 2 * tiling.WIDE.rows + 2))
def test_nothing_beyond_the_arrays_at_every_channel_count(guards, rng, dtype, operator, channels):
    weight = (channels, 3, 3, 2) if operator is CONV else (3, channels, 3, 2)
    run_guarded(guards, operator, dtype, (1, 3, 4, 9), weight, rng, stride=(1, 2))


@BOTH
@pytest.mark.parametrize("operator", [CONV, TRANSPOSED], ids=["conv2d", "conv_transpose2d"])
@pytest.mark.parametrize("seed", range(25))
def test_nothing_beyond_the_arrays_with_any_parameters(guards, dtype, operator, seed):
    rng = np.random.default_rng(seed)

    def draw(low, high):
        return tuple(int(v) for v in rng.integers(low, high + 1, 2))

    kernel, stride, dilation, groups = draw(1, 4), draw(1, 4), draw(1, 3), int(rng.integers(1, 4))
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    pictures, per_group, outputs = (int(rng.integers(1, high)) for high in (4, 4, 6))
    channels = per_group * groups
    parameters = {"stride": stride, "dilation": dilation, "groups": groups}
    if operator is CONV:
        padding = draw(0, 5)
        size = [int(rng.integers(max(1, r - 2 * p), 30)) for r, p in zip(reach, padding, strict=True)]
        weight = (outputs * groups, per_group, *kernel)
    else:
        size = [int(rng.integers(1, 16)) for _ in range(2)]
        least = [(n - 1) * s + r for n, s, r in zip(size, stride, reach, strict=True)]
        padding = tuple(int(rng.integers(0, min(4, (n - 1) // 2) + 1)) for n in least)
        limits = zip(stride, dilation, strict=True)
        parameters["output_padding"] = tuple(int(rng.integers(0, max(limit))) for limit in limits)
        weight = (channels, outputs, *kernel)
    run_guarded(guards, operator, dtype, (pictures, channels, *size), weight, rng, padding=padding, **parameters)


@BOTH
def test_large_enough_for_several_blocks_and_slots(guards, rng, dtype):
    run_guarded(guards, CONV, dtype, (2, 9, 70, 100), (17, 9, 3, 3), rng, padding=1)
    run_guarded(guards, CONV, dtype, (5, 40, 9, 8), (33, 40, 3, 3), rng, padding=1, stride=(2, 1))
    run_guarded(guards, CONV, dtype, (1, 300, 6, 7), (520, 300, 1, 1), rng)
    # part of the input channels at a time
    run_guarded(guards, CONV, dtype, (1, 600, 5, 5), (70, 600, 1, 1), rng)
    run_guarded(guards, CONV, dtype, (2, 70, 9, 8), (130, 70, 3, 3), rng, padding=1, stride=2)


@pytest.mark.parametrize("panels", ["own", "shared"])
@pytest.mark.parametrize("guards", ["winograd"], indirect=True)
def test_winograd_weight_gradients_of_several_panels_of_tiles(guards, monkeypatch, rng, panels):
    if panels == "shared":
        monkeypatch.setattr(winograd_gradient, "_SHARED_BYTES", 1)
    monkeypatch.setattr(winograd_gradient, "_plan", winograd_gradient._plan.__wrapped__)  # it keeps what it planned
    *_, slots = winograd_gradient._plan((3, 9, 70, 100), (3, 5, 70, 100), (-1, -1), 2)
    assert (slots > 1) == (panels == "own")
    # the last panel is not full; of one channel only, the next pixels are those of the next panel
    run_guarded(guards, CONV, np.float32, (3, 5, 70, 100), (9, 5, 3, 3), rng, padding=1)
    run_guarded(guards, CONV, np.float32, (2, 1, 83, 99), (1, 1, 3, 3), rng, padding=2)


@BOTH
@pytest.mark.parametrize("stride", [1, 2, (1, 3)], ids=str)
@pytest.mark.parametrize("guards", ["points"], indirect=True)
def test_nothing_beyond_the_arrays_at_every_number_of_pixels(guards, rng, dtype, stride):
    for pixels in range(1, 2 * tiling.WIDE.columns * tiling.lanes(dtype) + 2):
        # pixels that are read where they are, and packed ones; in one row, and in two
        run_guarded(guards, CONV, dtype, (1, 3, 1, pixels), (2, 3, 1, 1), rng, stride=stride)
        run_guarded(guards, CONV, dtype, (1, 2, 2, pixels), (17, 2, 1, 1), rng, stride=stride)


@BOTH
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("guards", ["points"], indirect=True)
def test_nothing_beyond_the_arrays_at_every_channel_count_of_points(guards, rng, dtype, stride):
    for channels in (*range(1, 2 * tiling.WIDE.rows + 2), 65):
        run_guarded(guards, CONV, dtype, (2, channels, 5, 11), (channels, channels, 1, 1), rng, stride=stride)
    run_guarded(guards, CONV, dtype, (2, 6, 8, 10), (10, 3, 1, 1), rng, stride=stride, groups=2)
    # several blocks of pixels
    run_guarded(guards, CONV, dtype, (2, 70, 50, 90), (20, 70, 1, 1), rng, stride=stride)
    run_guarded(guards, CONV, dtype, (1, 3, 90, 90), (2, 3, 1, 1), rng, stride=stride)


@BOTH
@pytest.mark.parametrize("channels", range(1, tiling.WIDE.rows + 2))
@pytest.mark.parametrize("guards", ["points"], indirect=True)
def test_nothing_beyond_the_arrays_where_kernels_lie_side_by_side(guards, rng, dtype, channels):
    lanes = tiling.lanes(dtype)
    for width in (1, lanes - 1, lanes, 3 * lanes + 1):
        # few input channels, which are read where they are, and packed ones
        for inputs in (3, 65):
            shape = (2, inputs, 3, width)
            run_guarded(guards, TRANSPOSED, dtype, shape, (inputs, channels, 2, 2), rng, stride=2)
            run_guarded(guards, CONV, dtype, (1, inputs, 5, 2 * width + 1), (channels, inputs, 2, 2), rng, stride=2)
    run_guarded(guards, CONV, dtype, (1, 3, 7, 11), (channels, 3, 2, 3), rng, stride=3)
    # several blocks of pixels
    run_guarded(guards, TRANSPOSED, dtype, (1, 70, 30, 45), (70, channels, 2, 2), rng, stride=2)
    # packed, part of the terms at a time
    for width in (7, 2 * lanes, 3 * lanes + 5):
        run_guarded(guards, TRANSPOSED, dtype, (1, 600, 2, width), (600, channels, 2, 2), rng, stride=2)


@BOTH
@pytest.mark.parametrize("guards", ["points"], indirect=True)
def test_nothing_beyond_the_arrays_of_weight_gradients_over_lines_of_several_rows(guards, rng, dtype):
    lanes = tiling.lanes(dtype)
    for width in (lanes // 2, lanes, 3 * lanes // 2, 5 * lanes // 2):  # a vector ends amid a row
        for height in (1, 2, 3, 6):
            run_guarded(guards, TRANSPOSED, dtype, (3, 5, height, width), (5, 3, 2, 2), rng, stride=2)
    # rows and columns that no kernel meets; several pictures in a block, several blocks in a slot
    run_guarded(guards, CONV, dtype, (3, 2, 5, lanes + 1), (7, 2, 2, 2), rng, stride=2)
    run_guarded(guards, TRANSPOSED, dtype, (7, 9, 12, 2 * lanes), (9, 2, 2, 2), rng, stride=2)
    run_guarded(guards, TRANSPOSED, dtype, (5, 3, 100, 56), (3, 2, 2, 2), rng, stride=2)
    run_guarded(guards, CONV, dtype, (3, 3, 50, 76), (6, 3, 1, 1), rng)
    run_guarded(guards, CONV, dtype, (40, 3, 1, 1100), (2, 3, 1, 1), rng)


@BOTH
@pytest.mark.parametrize("channels", [-1, 0, 1])
@pytest.mark.parametrize("panels", [1, 2])
def test_nothing_beyond_the_arrays_at_whole_panels(guards, rng, dtype, panels, channels):
    channels += panels * tiling.panel_width(dtype)
    # as many pixels as rows of a tile, one more, and one fewer
    for width in range(tiling.PANEL.rows - 1, tiling.PANEL.rows + 2):
        run_guarded(guards, CONV, dtype, (3, channels, 1, width), (channels, channels, 1, 2), rng, padding=(0, 1))


@BOTH
def test_matrix_products_touch_nothing_beyond_the_arrays(guards, rng, dtype):
    panel, rows = tiling.panel_width(dtype), tiling.PANEL.rows
    for n, inputs, outputs in [(1, 1, 1), (rows + 1, 3, panel + 1), (panel + 3, 2 * panel, panel - 1), (3, 1100, 5)]:
        arrays = [rng.standard_normal(shape) for shape in ((n, inputs), (outputs, inputs), (outputs,), (n, outputs))]
        x, weight, bias, dy = (guards.place(np.asarray(a, dtype)) for a in arrays)
        results = linear.linear_forward(x, weight, bias), *linear.linear_backward(dy, x, weight)
        guards.check()
        expected = naive.linear_forward(x, weight, bias), *naive.linear_backward(dy, x, weight)
        for name, actual, wanted in zip(("y", "dx", "dweight", "dbias"), results, expected, strict=True):
            assert_near(actual, wanted, f"{name} {n} {inputs} {outputs}")


# ---- NaN and infinity ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf], ids=["nan", "inf"])
@pytest.mark.parametrize(
    "parameters", [{"padding": 1}, {"stride": 2, "padding": 2}, {"dilation": 2}, {"groups": 2}], ids=str
)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_nan_reaches_what_its_windows_cover_and_nothing_else(monkeypatch, rng, parameters, value, algorithm):
    choose_algorithm(monkeypatch, algorithm)
    shape, weight_shape = (2, 4, 6, 21), (4, 4 // parameters.get("groups", 1), 3, 3)
    x, weight = (np.asarray(rng.standard_normal(s), np.float32) for s in (shape, weight_shape))
    clean = naive.conv2d_forward(x, weight, **parameters)
    dy = np.asarray(rng.standard_normal(clean.shape), np.float32)

    def finite(module, x, dy):
        results = module.conv2d_forward(x, weight, **parameters), *module.conv2d_backward(dy, x, weight, **parameters)
        return [np.isfinite(a) for a in results]

    pixels = [(0, 0, 0), (1, 2, 5), (3, 5, 20), (2, 3, 15), (2, 3, 16), (0, 5, 0)]
    for c, row, col in pixels:
        for spoiled in ("x", "dy"):
            arrays = {"x": x.copy(), "dy": dy.copy()}
            where = (1, c, min(row, arrays[spoiled].shape[2] - 1), min(col, arrays[spoiled].shape[3] - 1))
            arrays[spoiled][where] = value
            actual, expected = finite(conv2d, **arrays), finite(naive, **arrays)
            if spoiled == "dy":
                # the padding is zeros, and 0 * nan is nan: the naive kernels leave these products out
                assert not (actual[2] & ~expected[2]).any() and actual[2][np.arange(4) != c].all()
                actual[2] = expected[2]
            for name, a, b in zip(("y", "dx", "dweight", "dbias"), actual, expected, strict=True):
                assert np.array_equal(a, b), f"{name} with {value} at {where} of {spoiled}"


# ---- any partition of the work gives the same bits -------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    ("x_shape", "weight_shape", "parameters"),
    [
        ((3, 5, 40, 50), (9, 5, 3, 3), {"padding": 1}),
        ((2, 64, 12, 12), (70, 64, 3, 3), {"padding": 1}),
        ((2, 8, 33, 20), (8, 1, 3, 3), {"groups": 8, "stride": 2}),
        ((7, 130, 6, 7), (192, 130, 3, 3), {"padding": 1}),
        ((3, 70, 40, 50), (64, 70, 1, 1), {}),
        ((3, 60, 40, 50), (7, 60, 1, 1), {"stride": 2}),
        ((3, 12, 80, 100), (10, 6, 1, 1), {"groups": 2}),
        ((2, 600, 9, 11), (320, 600, 1, 1), {"stride": 2}),
        ((3, 64, 40, 9), (128, 64, 3, 3), {"stride": 2}),
        ((3, 24, 80, 90), (16, 24, 2, 2), {"stride": 2}),
        ((3, 12, 60, 100), (10, 12, 3, 3), {"padding": 1}),
    ],
    ids=[
        "wide",
        "deep",
        "depthwise",
        "panels",
        "points and slots",
        "points",
        "groups",
        "deep points",
        "panels and blocks",
        "side by side",
        "panels of tiles and slots",
    ],
)
def test_same_bits_for_any_number_of_threads(monkeypatch, rng, dtype, x_shape, weight_shape, parameters):
    x, weight = (np.asarray(rng.standard_normal(shape), dtype) for shape in (x_shape, weight_shape))
    results = {}
    for threads in (1, 2, 3, 8, 50):
        # the number of shares that the work is cut into; however many threads then take them
        monkeypatch.setattr(numba, "get_num_threads", lambda threads=threads: threads)
        y = conv2d.conv2d_forward(x, weight, **parameters)
        results[threads] = y, *conv2d.conv2d_backward(np.cos(y), x, weight, **parameters)
    for threads, arrays in results.items():
        for one, other in zip(results[1], arrays, strict=True):
            assert one.tobytes() == other.tobytes(), f"{threads} threads"


@BOTH
@pytest.mark.parametrize("shapes", [((3, 70, 30, 45), (70, 40, 2, 2)), ((3, 18, 60, 56), (18, 4, 2, 2))], ids=str)
def test_same_bits_of_transposed_convolutions_for_any_number_of_threads(monkeypatch, rng, dtype, shapes):
    x, weight = (np.asarray(rng.standard_normal(shape), dtype) for shape in shapes)
    results = []
    for threads in (1, 2, 3, 50):
        monkeypatch.setattr(numba, "get_num_threads", lambda threads=threads: threads)
        y = conv_transpose2d.conv_transpose2d_forward(x, weight, stride=2)
        results.append([y, *conv_transpose2d.conv_transpose2d_backward(np.cos(y), x, weight, stride=2)])
    for arrays in results[1:]:
        for one, other in zip(results[0], arrays, strict=True):
            assert one.tobytes() == other.tobytes()


@BOTH
def test_same_bits_of_matrix_products_for_any_number_of_threads(monkeypatch, rng, dtype):
    x, weight, dy = (np.asarray(rng.standard_normal(s), dtype) for s in ((150, 1500), (70, 1500), (150, 70)))
    results = []
    for threads in (1, 2, 3, 50):
        monkeypatch.setattr(numba, "get_num_threads", lambda threads=threads: threads)
        results.append([linear.linear_forward(x, weight), *linear.linear_backward(dy, x, weight)])
    for arrays in results[1:]:
        for one, other in zip(results[0], arrays, strict=True):
            assert one.tobytes() == other.tobytes()


# ---- which algorithm -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channels", "in_channels", "kernel", "width", "expected"),
    [
        (3, 16, 3, 512, False),  # the first and last layers of a U-Net have few channels
        (256, 256, 3, 14, True),  # the mask head
        (256, 512, 1, 8, True),
        (12, 256, 1, 64, False),
    ],
)
def test_lanes_of_weight_gradients_are_channels_that_fill_panels(channels, in_channels, kernel, width, expected):
    axis, shape = packing.gather_axis(kernel, 1, kernel // 2, 1), (width, width)
    dy_shape, x_shape = (1, channels, *shape), (1, in_channels, *shape)
    assert panel_gradient.gradient_pays(np.dtype(np.float32), dy_shape, x_shape, axis, axis) == expected


@pytest.mark.parametrize(
    ("x_shape", "channels", "kernel", "stride", "dtype", "expected"),
    [
        ((10, 1, 224, 224), 8, 3, 1, "float32", "rows"),  # a U-Net's first layer: too few channels for transforms
        ((10, 8, 224, 224), 1, 3, 1, "float32", "thin"),  # its last
        ((10, 8, 224, 224), 8, 3, 1, "float32", "rows"),  # and what lies between
        ((10, 16, 112, 112), 16, 3, 1, "float32", "winograd"),
        ((1, 256, 50, 76), 256, 3, 1, "float32", "winograd"),
        ((1, 1024, 16, 16), 1024, 3, 1, "float32", "winograd"),
        ((1, 256, 50, 76), 256, 3, 1, "float64", "channels"),  # its rounding errors are not for float64
        ((1, 3, 800, 1216), 64, 7, 2, "float32", "pixels"),
        ((2, 64, 64, 64), 64, 1, 1, "float32", "points"),
        ((8, 512, 7, 7), 256, 1, 1, "float32", "channels"),
    ],
)
def test_each_layer_runs_by_the_algorithm_that_was_measured_best(x_shape, channels, kernel, stride, dtype, expected):
    padding = kernel // 2
    axis = packing.gather_axis(kernel, stride, padding, 1)
    size = [(n + 2 * padding - kernel) // stride + 1 for n in x_shape[2:]]
    weight = (1, channels, x_shape[1], kernel, kernel)
    assert planner.choose(dtype, x_shape, weight, tuple(size), axis, axis) == expected


@pytest.mark.parametrize(
    ("x_shape", "channels", "kernel", "dtype", "expected"),
    [
        ((10, 1, 224, 224), 8, 3, "float32", "thin"),
        ((10, 4, 224, 224), 4, 3, "float32", "pixels"),
        ((10, 8, 224, 224), 8, 3, "float32", "winograd"),
        ((10, 8, 224, 224), 1, 3, "float32", "thin"),
        ((10, 16, 112, 112), 16, 3, "float64", "pixels"),
        ((10, 128, 14, 14), 128, 3, "float32", "winograd"),
        ((1, 512, 8, 8), 256, 3, "float32", "channels"),
        ((1, 256, 200, 304), 64, 1, "float32", "channels"),
        ((1, 256, 50, 76), 12, 1, "float32", "points"),
    ],
)
def test_each_weight_gradient_runs_by_the_algorithm_that_was_measured_best(x_shape, channels, kernel, dtype, expected):
    axis, dy_shape = packing.gather_axis(kernel, 1, kernel // 2, 1), (x_shape[0], channels, *x_shape[2:])
    assert planner.choose_gradient(dtype, dy_shape, x_shape, 1, axis, axis) == expected


@pytest.mark.parametrize(
    ("shape", "channels", "expected"),
    [((10, 16, 112, 112), 8, "points"), ((10, 32, 56, 56), 16, "points"), ((10, 128, 14, 14), 64, "channels")],
)
def test_weight_gradients_of_transposed_convolutions_run_by_what_was_measured_best(shape, channels, expected):
    axis, dy_shape = packing.gather_axis(2, 2, 0, 1), (shape[0], channels, 2 * shape[2], 2 * shape[3])
    assert planner.choose_gradient("float32", shape, dy_shape, 1, axis, axis) == expected


def test_input_gradients_run_by_winograd_where_the_forward_pass_does():
    shapes = (1, 512, 8, 8), (1, 512, 512, 3, 3), (8, 8)
    forward, backward = packing.gather_axis(3, 1, 1, 1), packing.scatter_axis(8, 3, 1, 1, 1)
    assert planner.choose("float32", *shapes, forward, forward) == "winograd"
    assert planner.choose("float32", *shapes, backward, backward) == "winograd"


@pytest.mark.parametrize(
    ("shape", "channels", "expected"),
    [((10, 16, 112, 112), 8, "points"), ((1, 1024, 16, 16), 512, "points"), ((1, 1024, 4, 4), 512, "channels")],
)
def test_transposed_convolutions_run_by_the_algorithm_that_was_measured_best(shape, channels, expected):
    size = 2 * shape[2], 2 * shape[3]
    axes = [packing.scatter_axis(n, 2, 2, 0, 1) for n in size]
    assert planner.choose("float32", shape, (1, channels, shape[1], 2, 2), size, *axes) == expected


def test_winograd_can_be_forbidden(rng):
    x, weight = (np.asarray(rng.standard_normal(s), np.float32) for s in ((1, 64, 20, 20), (64, 64, 3, 3)))
    exact = naive.conv2d_forward(x.astype(float), weight.astype(float))
    errors = []
    for allowed in (True, False):
        before = planner.allow_winograd(allowed)
        try:
            errors.append(np.abs(conv2d.conv2d_forward(x, weight) - exact).max() / np.abs(exact).max())
        finally:
            assert planner.allow_winograd(before) == allowed
    assert before is True and errors[1] < 1e-6 < errors[0] < 3e-5


# ---- residual and ReLU -----------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("with_residual", [True, False])
def test_a_convolution_can_end_in_a_residual_and_a_relu(guards, rng, dtype, with_residual, relu, groups):
    for width, channels in ((5, 4), (33, 10), (48, 24)):
        x = np.asarray(rng.standard_normal((2, 4, 6, width)), dtype)
        weight = np.asarray(rng.standard_normal((channels, 4 // groups, 3, 3)), dtype)
        bias = np.asarray(rng.standard_normal(channels), dtype)
        residual = np.asarray(rng.standard_normal((2, channels, 6, width)), dtype) if with_residual else None
        expected = naive.conv2d_forward(x, weight, bias, padding=1, groups=groups)
        expected = expected if residual is None else naive.add_forward(expected, residual)
        expected = naive.relu_forward(expected) if relu else expected
        inputs = [a if a is None else guards.place(a) for a in (x, weight, bias, residual)]
        y = conv_relu.conv2d_relu_forward(*inputs[:3], padding=1, groups=groups, residual=inputs[3], relu=relu)
        guards.check()
        assert_near(y, expected, f"{width} {channels}")


@BOTH
def test_a_transposed_convolution_can_end_in_a_relu(guards, rng, dtype):
    for kernel in (2, 3):
        x, weight = (np.asarray(rng.standard_normal(s), dtype) for s in ((2, 5, 7, 9), (5, 3, kernel, kernel)))
        bias, scale = np.asarray(rng.standard_normal((2, 3)), dtype)
        for relu in (True, False):
            expected = naive.conv_transpose2d_forward(x, weight * scale[:, None, None], bias, stride=2)
            expected = naive.relu_forward(expected) if relu else expected
            inputs = [guards.place(a) for a in (x, weight, bias)]
            y = conv_relu.conv_transpose2d_relu_forward(*inputs, stride=2, scale=scale, relu=relu)
            guards.check()
            assert_near(y, expected, str(kernel))


@BOTH
def test_the_weights_of_an_output_channel_can_be_scaled(guards, rng, dtype):
    for channels, kernel in ((3, 1), (17, 1), (17, 3)):
        x, weight = (np.asarray(rng.standard_normal(s), dtype) for s in ((2, 9, 6, 7), (channels, 9, kernel, kernel)))
        scale = np.asarray(rng.standard_normal(channels), dtype)
        expected = naive.conv2d_forward(x, weight * scale[:, None, None, None])
        y = conv_relu.conv2d_relu_forward(guards.place(x), guards.place(weight), scale=scale, relu=False)
        guards.check()
        assert_near(y, expected, f"{channels} {kernel}")


@BOTH
@pytest.mark.parametrize("channels", [3, 17, 70])  # pixels that are read where they are, and packed ones
@pytest.mark.parametrize("guards", ["points"], indirect=True)
def test_kernels_side_by_side_can_be_scaled_and_end_in_a_residual_and_a_relu(guards, rng, dtype, channels):
    for width in (12, 19, 32):
        x, weight = (np.asarray(rng.standard_normal(s), dtype) for s in ((2, 3, 6, 2 * width), (channels, 3, 2, 2)))
        scale, bias = np.asarray(rng.standard_normal((2, channels)), dtype)
        residual = np.asarray(rng.standard_normal((2, channels, 3, width)), dtype)
        expected = naive.conv2d_forward(x, weight * scale[:, None, None, None], bias, stride=2) + residual
        for relu in (True, False):
            inputs = [guards.place(a) for a in (x, weight, bias, residual)]
            y = conv_relu.conv2d_relu_forward(*inputs[:3], stride=2, scale=scale, residual=inputs[3], relu=relu)
            guards.check()
            assert_near(y, naive.relu_forward(expected) if relu else expected, f"{width} {channels}")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_nan_reaches_four_pixels_of_a_transposed_convolution(monkeypatch, rng, value):
    choose_algorithm(monkeypatch, "points")
    for inputs in (4, 70):
        x, weight = (np.asarray(rng.standard_normal(s), np.float32) for s in ((2, inputs, 5, 19), (inputs, 3, 2, 2)))
        bias = np.asarray(rng.standard_normal(3), np.float32)
        for row, col in ((0, 0), (4, 18), (2, 15), (3, 16)):
            spoiled = x.copy()
            spoiled[1, 2, row, col] = value
            expected = naive.conv_transpose2d_forward(spoiled, weight, bias, stride=2)
            expected = naive.relu_forward(expected)
            y = conv_relu.conv_transpose2d_relu_forward(spoiled, weight, bias, stride=2)
            finite = np.isfinite(expected)
            assert np.array_equal(y[~finite], expected[~finite], equal_nan=True)
            assert_near(y[finite], expected[finite], f"{value} at {row}, {col}")


def test_a_nan_passes_the_relu_and_minus_infinity_does_not(rng):
    x = np.asarray(rng.standard_normal((1, 16, 24, 32)), np.float32)
    weight = np.asarray(rng.standard_normal((16, 16, 3, 3)), np.float32)
    for value in (np.nan, np.inf, -np.inf):
        x[0, 3, 7, 9] = value
        expected = naive.relu_forward(naive.conv2d_forward(x, weight, padding=1))
        y = conv_relu.conv2d_relu_forward(x, weight, padding=1)
        finite = np.isfinite(expected)
        assert np.array_equal(np.isfinite(y), finite) and np.array_equal(y[~finite], expected[~finite], equal_nan=True)
        assert_near(y[finite], expected[finite], str(value))


@BOTH
@pytest.mark.parametrize("shape", [(2, 8, 32, 40), (3, 20, 9, 7), (1, 65, 20, 33)])
def test_two_arrays_are_convolved_as_if_they_were_joined(guards, rng, dtype, shape):
    first, second = (np.asarray(rng.standard_normal(shape), dtype) for _ in range(2))
    weight = np.asarray(rng.standard_normal((5, 2 * shape[1], 3, 3)), dtype)
    joined = np.concatenate([first, second], axis=1)
    expected = conv_relu.conv2d_relu_forward(joined, weight, padding=1)
    y = conv_relu.conv2d_relu_forward(guards.place(first), weight, padding=1, more=guards.place(second))
    guards.check()
    assert np.array_equal(y, expected)
    dy = np.asarray(rng.standard_normal(y.shape), dtype)
    dx, dweight, dbias = conv2d.conv2d_backward(dy, joined, weight, padding=1)
    inputs = [guards.place(a) for a in (dy, first, second, weight)]
    gradients = conv_joined.conv2d_joined_backward(*inputs, padding=1)
    guards.check()
    wanted = dx[:, : shape[1]], dx[:, shape[1] :], dweight, dbias
    assert all(np.array_equal(a, b) for a, b in zip(gradients, wanted, strict=True))


@pytest.mark.parametrize("needs", [(True, False, False), (False, True, False), (False, False, True)])
def test_of_two_arrays_only_wanted_gradients_are_computed(rng, needs):
    first, second = (np.asarray(rng.standard_normal((1, 8, 24, 32)), np.float32) for _ in range(2))
    weight = np.asarray(rng.standard_normal((8, 16, 3, 3)), np.float32)
    dy = np.asarray(rng.standard_normal(first.shape), np.float32)
    found = conv_joined.conv2d_joined_backward(dy, first, second, weight, padding=1, needs=needs)
    wanted = conv_joined.conv2d_joined_backward(dy, first, second, weight, padding=1)
    for gradient, each, needed in zip(found, wanted, (needs[0], *needs), strict=True):
        assert np.array_equal(gradient, each) if needed else gradient is None


@pytest.mark.parametrize("spoiled", ["dy", "second"])
def test_of_two_arrays_an_infinite_number_spreads_backward_as_if_they_were_joined(rng, spoiled):
    first, second, dy = (np.asarray(rng.standard_normal((1, 8, 24, 32)), np.float32) for _ in range(3))
    (dy if spoiled == "dy" else second)[0, 3, 7, 9] = np.inf
    weight = np.asarray(rng.standard_normal((8, 16, 3, 3)), np.float32)
    dx, dweight, _ = conv2d.conv2d_backward(dy, np.concatenate([first, second], axis=1), weight, padding=1)
    found = conv_joined.conv2d_joined_backward(dy, first, second, weight, padding=1)
    assert not all(np.isfinite(gradient).all() for gradient in found)
    for gradient, wanted in zip(found, (dx[:, :8], dx[:, 8:], dweight), strict=False):
        assert np.array_equal(gradient, wanted, equal_nan=True)


def test_of_two_arrays_an_infinite_number_in_the_second_spreads_as_in_the_first(rng):
    first, second = (np.asarray(rng.standard_normal((1, 8, 24, 32)), np.float32) for _ in range(2))
    second[0, 3, 7, 9] = np.inf
    weight = np.asarray(rng.standard_normal((8, 16, 3, 3)), np.float32)
    expected = naive.relu_forward(naive.conv2d_forward(np.concatenate([first, second], axis=1), weight, padding=1))
    y = conv_relu.conv2d_relu_forward(first, weight, padding=1, more=second)
    assert np.array_equal(np.isfinite(y), np.isfinite(expected))


def test_further_channels_of_another_shape_are_an_error(rng):
    x, weight = np.ones((1, 2, 5, 5), np.float32), np.ones((3, 4, 3, 3), np.float32)
    with pytest.raises(ValueError, match=r"more has shape \(1, 2, 5, 4\); expected \(1, 2, 5, 5\), that of x"):
        conv_relu.conv2d_relu_forward(x, weight, more=np.ones((1, 2, 5, 4), np.float32))
    with pytest.raises(ValueError, match=r"more has shape \(1, 2, 5, 4\); expected \(1, 2, 5, 5\), that of x"):
        conv_joined.conv2d_joined_backward(
            np.ones((1, 3, 3, 3), np.float32), x, np.ones((1, 2, 5, 4), np.float32), weight
        )


def test_a_residual_of_another_shape_is_an_error(rng):
    x, weight = np.ones((1, 2, 5, 5), np.float32), np.ones((3, 2, 3, 3), np.float32)
    with pytest.raises(ValueError, match=r"residual has shape \(1, 3, 5, 5\); expected \(1, 3, 3, 3\), that of the"):
        conv_relu.conv2d_relu_forward(x, weight, residual=np.ones((1, 3, 5, 5), np.float32))


# ---- compiling -------------------------------------------------------------------------------------------------------

SECOND_PROCESS = """
import numpy as np
from kernels.cpu import conv2d, correlation, native, packing, weight_gradient
x, weight = np.ones((1, 2, 5, 6), np.float32), np.ones((3, 2, 2, 2), np.float32)
conv2d.conv2d_backward(conv2d.conv2d_forward(x, weight), x, weight)
parallel = weight_gradient._weight_gradient_kernel, weight_gradient._channel_sums_kernel
for kernel in (packing._pack_weights_kernel, correlation._correlate_kernel, *parallel):
    assert sum(kernel.stats.cache_hits.values()) == 1 and not kernel.stats.cache_misses, kernel.stats
assert [serial.cache_hits for serial in native._compiled.values()] == [1, 1, 1]
"""


def test_a_second_process_compiles_nothing():
    x, weight = np.ones((1, 2, 5, 6), np.float32), np.ones((3, 2, 2, 2), np.float32)
    conv2d.conv2d_backward(conv2d.conv2d_forward(x, weight), x, weight)
    subprocess.run([sys.executable, "-c", SECOND_PROCESS], check=True, timeout=600)


def test_read_only_and_strided_inputs_compile_nothing_more(rng):
    x, weight = rng.standard_normal((2, 4, 7, 9)), rng.standard_normal((5, 4, 2, 2))
    y = conv2d.conv2d_forward(x, weight)
    gradients = conv2d.conv2d_backward(y, x, weight)
    dispatchers = (correlation._correlate_kernel, weight_gradient._weight_gradient_kernel)
    compiled = [len(dispatcher.signatures) for dispatcher in dispatchers]
    assert all(compiled)
    for a in (x, weight, y):
        a.flags.writeable = False
    strided = np.repeat(x, 2, axis=3)[..., ::2]
    for pictures in (x, strided):
        assert np.array_equal(conv2d.conv2d_forward(pictures, weight), y)
        for actual, expected in zip(conv2d.conv2d_backward(y, pictures, weight), gradients, strict=True):
            assert np.array_equal(actual, expected)
    assert [len(dispatcher.signatures) for dispatcher in dispatchers] == compiled


@pytest.mark.parametrize(
    ("features", "machine", "registers"),
    [
        ({"avx", "avx2", "fma", "avx512f"}, "x86_64", (64, 32)),
        ({"avx", "avx2", "fma"}, "AMD64", (32, 16)),
        (set(), "x86_64", (16, 16)),
        ({"neon"}, "arm64", (16, 32)),
    ],
)
def test_tiles_fit_the_registers(features, machine, registers):
    chosen = tiling.choose_tiling(features, machine)
    assert chosen.vector_bytes == registers[0]
    panel = chosen.panel
    assert panel.rows * panel.columns + panel.columns + 1 <= registers[1]
    # accumulators, the pixels of one step, and a weight; accumulators, the gradients of one step, and a pixel
    for tile in (chosen.wide, chosen.narrow):
        assert tile.rows * tile.columns + tile.columns + 1 <= registers[1]
    assert chosen.dot.rows * chosen.dot.columns + chosen.dot.rows + 1 <= registers[1]
