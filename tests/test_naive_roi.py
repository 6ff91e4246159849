"""The RoI operators on every backend: answers worked out by hand, boxes at the edges of what is allowed, bad input."""

import numpy as np
import pytest

import kernels

BACKENDS = pytest.mark.parametrize("backend", kernels.BACKENDS)
BOTH = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
LOWEST = float(np.finfo(np.float32).min)


def ramp(dtype=np.float64):
    """Return a map of 5x5 cells that holds 0 to 24."""
    return np.arange(25, dtype=dtype).reshape(1, 1, 5, 5)


def boxes(*corners, dtype=np.float64):
    """Return RoIs of picture 0."""
    return np.array([(0, *box) for box in corners], dtype)


# ---- RoIAlign by hand -----------------------------------------------------------------------------------------------


@BACKENDS
@BOTH
@pytest.mark.parametrize(
    ("aligned", "ratio", "expected"),
    [(False, 2, [[3, 4], [8, 9]]), (True, 1, [[0, 1], [5, 6]]), (True, 2, [[0.75, 1.625], [5.125, 6]])],
)
def test_align_on_a_ramp(backend, dtype, aligned, ratio, expected):
    rois = boxes((0, 0, 2, 2), dtype=dtype)
    y = kernels.get(backend).roi_align_forward(ramp(dtype), rois, 2, 1.0, ratio, aligned=aligned)
    np.testing.assert_array_equal(y[0, 0], expected)
    assert y.dtype == dtype


@BACKENDS
@pytest.mark.parametrize(("aligned", "top_left"), [(False, 7.5), (True, 4.5)])
def test_align_of_bins_smaller_than_cells(backend, aligned, top_left):
    y = kernels.get(backend).roi_align_forward(ramp(), boxes((1, 1, 3, 3)), 4, aligned=aligned)
    # half a cell a bin: one sample each, half a column apart and half a row, which is 2.5
    steps = np.arange(4) / 2
    np.testing.assert_allclose(y[0, 0], top_left + steps + 5 * steps[:, None], rtol=1e-15)


@BACKENDS
@pytest.mark.parametrize(("x1", "expected"), [(-2, 10), (-2.001, 0), (4, 14), (4.001, 0)])
def test_align_keeps_samples_at_the_very_edge_and_no_further(backend, x1, expected):
    # one sample in the middle of the box: at -1, just beyond, at 5 and just beyond
    y = kernels.get(backend).roi_align_forward(ramp(), boxes((x1, 1, x1 + 2, 3)), 1, 1.0, 1, aligned=False)
    assert y.item() == expected


@BACKENDS
def test_align_zero_area_boxes(backend):
    align, point = kernels.get(backend).roi_align_forward, boxes((2, 2, 2, 2))
    assert align(ramp(), point, 1, aligned=True).item() == 0, "no samples"
    assert align(ramp(), point, 1, 1.0, 2, aligned=True).item() == 9, "every sample at (1.5, 1.5)"
    assert align(ramp(), point, 1, aligned=False).item() == 15, "made 1x1, with a sample at (2.5, 2.5)"


@BACKENDS
def test_align_reversed_boxes(backend):
    align = kernels.get(backend).roi_align_forward
    for ratio in (-1, 2):
        assert align(ramp(), boxes((3, 3, 1, 2)), 1, 1.0, ratio, aligned=False).item() == 21, "1x1 from (3, 3)"
    forwards = align(ramp(), boxes((1, 1, 4, 3)), 3, 1.0, 2, aligned=True)
    backwards = align(ramp(), boxes((4, 3, 1, 1)), 3, 1.0, 2, aligned=True)
    np.testing.assert_allclose(backwards, forwards[:, :, ::-1, ::-1], rtol=1e-14)


@BACKENDS
def test_align_gradient_of_one_sample(backend):
    # at (y, x) = (1.25, 2.5): weights 0.75 and 0.25 of rows 1 and 2, halves of columns 2 and 3
    rois = boxes((2, 0.75, 3, 1.75))
    dy = np.full((1, 1, 1, 1), 8.0)
    dx = kernels.get(backend).roi_align_backward(dy, rois, (1, 1, 4, 5), 1.0, 1, aligned=False)
    expected = np.zeros((4, 5))
    expected[1, 2:4], expected[2, 2:4] = 3, 1
    np.testing.assert_array_equal(dx[0, 0], expected)


@BACKENDS
@BOTH
@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("far", [1e4, 1e9, 1e15, 1e30, 1e38])
def test_align_of_a_huge_box_visits_what_is_on_the_map(backend, dtype, aligned, far):
    module, x = kernels.get(backend), ramp(dtype) + 1
    rois = boxes((-far, -far, far, far), (0, 0, far, 5), dtype=dtype)
    y = module.roi_align_forward(x, rois, 1, aligned=aligned)
    dx = module.roi_align_backward(np.ones_like(y), rois, x.shape, aligned=aligned)
    # about 7 of the far samples along an axis are on the map or its margin; rounding may gather more there
    spacing = np.spacing(dtype(far)) * 4
    assert 0 <= y[0].item() <= 25 * ((7 + spacing) / (2 * far)) ** 2
    assert 0 <= y[1].item() <= 25 * (7 + spacing) / far
    if far <= 1e4:
        assert y[1].item() > 5 / far
    np.testing.assert_allclose(dx.sum(), y.sum() / x.mean(), rtol=1, atol=1e-30)


@BACKENDS
def test_align_of_a_long_box_divides_by_the_full_count(backend):
    # 2000 samples an axis, a cell apart; on a map of 5 cells those from -0.5 to 4.5 count, the outer ones clamped
    y = kernels.get(backend).roi_align_forward(ramp(), boxes((-1000, -1000, 1000, 1000)), 1, aligned=False)
    axis = np.array([0, 0.5, 1.5, 2.5, 3.5, 4])
    np.testing.assert_allclose(y.item(), (axis + 5 * axis[:, None]).sum() / 2000**2, rtol=1e-13)


# ---- RoIPool by hand ------------------------------------------------------------------------------------------------


@BACKENDS
@BOTH
def test_pool_on_a_ramp(backend, dtype):
    y, argmax = kernels.get(backend).roi_pool_forward(ramp(dtype), boxes((1, 1, 3, 4), dtype=dtype), 2)
    # columns 1 to 3 in bins of 1.5, which share column 2; rows 1 to 4 in bins of 2
    np.testing.assert_array_equal(y[0, 0], [[12, 13], [22, 23]])
    np.testing.assert_array_equal(argmax[0, 0], [[12, 13], [22, 23]])
    assert (y.dtype, argmax.dtype) == (dtype, np.int32)


@BACKENDS
@BOTH
@pytest.mark.parametrize(
    ("corner", "cell"), [(0.5, 1), (1.5, 2), (2.5, 3), (2.4999, 2), (-0.5, -1), (0.49999997, 0), (1.4999999, 1)]
)
def test_pool_rounds_halves_away_from_zero(backend, dtype, corner, cell):
    # a box of one cell; cell -1 is outside
    y, argmax = kernels.get(backend).roi_pool_forward(ramp(dtype), boxes((corner, 0, corner, 0), dtype=dtype), 1)
    assert (y.item(), argmax.item()) == ((cell, cell) if cell >= 0 else (0, -1))


@BACKENDS
def test_pool_of_a_reversed_box_is_one_cell(backend):
    y, argmax = kernels.get(backend).roi_pool_forward(ramp(), boxes((3, 2, 1, 0)), 2)
    np.testing.assert_array_equal(y.ravel(), [13] * 4)
    np.testing.assert_array_equal(argmax.ravel(), [13] * 4)


@BACKENDS
@BOTH
def test_pool_ties_nan_and_infinity(backend, dtype):
    nan, inf = np.nan, np.inf
    x = np.array([[7, 7, nan, 1, nan, -inf, -1e39 if dtype == np.float64 else -inf, inf]], dtype)[None, None]
    rois = boxes((0, 0, 1, 0), (2, 0, 3, 0), (4, 0, 5, 0), (6, 0, 6, 0), (0, 0, 7, 0), (9, 0, 12, 0), dtype=dtype)
    y, argmax = kernels.get(backend).roi_pool_forward(x, rois, 1)
    np.testing.assert_array_equal(y.ravel(), np.array([7, 1, LOWEST, LOWEST, inf, 0], dtype))
    np.testing.assert_array_equal(argmax.ravel(), [0, 3, -1, -1, 7, -1])
    dx = kernels.get(backend).roi_pool_backward(np.ones_like(y), rois, argmax, x.shape)
    np.testing.assert_array_equal(dx.ravel(), [1, 0, 0, 1, 0, 0, 0, 1])


@BACKENDS
def test_pool_gradients_of_shared_cells_add_up(backend):
    x = np.zeros((1, 1, 1, 3))
    x[..., 1] = 9
    y, argmax = kernels.get(backend).roi_pool_forward(x, boxes((0, 0, 2, 0), (1, 0, 1, 0)), (1, 2))
    np.testing.assert_array_equal(argmax.ravel(), [1, 1, 1, 1])
    dy = np.array([1.0, 2, 3, 4]).reshape(y.shape)
    dx = kernels.get(backend).roi_pool_backward(dy, boxes((0, 0, 2, 0), (1, 0, 1, 0)), argmax, x.shape)
    np.testing.assert_array_equal(dx.ravel(), [0, 10, 0])


@BACKENDS
@BOTH
@pytest.mark.parametrize("far", [1e9, 1e20, 1e38])
def test_pool_of_a_huge_box(backend, dtype, far):
    y, argmax = kernels.get(backend).roi_pool_forward(ramp(dtype), boxes((-far, -far, far, far), dtype=dtype), 1)
    assert (y.item(), argmax.item()) == (24, 24)


@BACKENDS
def test_coordinates_are_rounded_in_the_type_of_the_map(backend):
    # 7 cells in 7 bins: in float32 and float64 alike each bin is one cell, for every size that divides
    for dtype in (np.float32, np.float64):
        for size in range(1, 60):
            x = np.arange(size, dtype=dtype).reshape(1, 1, 1, size)
            y, _ = kernels.get(backend).roi_pool_forward(x, boxes((0, 0, size - 1, 0), dtype=dtype), (1, size))
            p = np.arange(size).astype(dtype)
            bin_size = dtype(size) / dtype(size)
            np.testing.assert_array_equal(y.ravel(), np.ceil((p + dtype(1)) * bin_size) - 1)
            for bins in (3, 7, 14):
                y, _ = kernels.get(backend).roi_pool_forward(x, boxes((0, 0, size - 1, 0), dtype=dtype), (1, bins))
                ends = np.ceil(np.arange(1, bins + 1).astype(dtype) * (dtype(size) / dtype(bins)))
                np.testing.assert_array_equal(y.ravel(), np.minimum(ends, size) - 1)


# ---- bad input ------------------------------------------------------------------------------------------------------

F32 = np.float32
X = np.zeros((2, 3, 6, 8), F32)


def rois(*rows):
    return np.array(rows, F32)


GOOD = (0, 1, 1, 3, 3)
BAD_ROIS = [
    (rois(GOOD, (0, 1, np.nan, 3, 3)), r"row 1 of rois has y1 nan; expected a finite number"),
    (rois((0, 1, 1, np.inf, 3)), r"row 0 of rois has x2 inf; expected a finite number"),
    (rois(GOOD, GOOD, (0, 1, 1, 3, -np.inf)), r"row 2 of rois has y2 -inf; expected a finite number"),
    (rois(GOOD, (2, 1, 1, 3, 3)), r"row 1 of rois has batch index 2; expected a whole number from 0 to 1"),
    (rois((-1, 1, 1, 3, 3)), r"row 0 of rois has batch index -1; expected a whole number from 0 to 1"),
    (rois((0.5, 1, 1, 3, 3)), r"row 0 of rois has batch index 0.5; expected a whole number"),
    (rois(GOOD, (np.nan, 1, 1, 3, 3)), r"row 1 of rois has batch index nan; expected a whole number"),
    (np.zeros((2, 4), F32), r"rois has shape \(2, 4\); expected \(K, 5\): batch index, x1, y1, x2, y2"),
    (np.zeros(5, F32), r"rois has shape \(5,\); expected \(K, 5\)"),
]
TOO_LARGE = [
    (
        rois(GOOD, (0, 1, 1, 3e38, 3)),
        4.0,
        r"row 1 of rois has x2 3e\+38; expected .* finite in float32 when multiplied",
    ),
    (rois((0, 1, -3e38, 3, 3e38)), 1.0, r"row 0 of rois has y1 -3e\+38 and y2 3e\+38; expected a difference"),
    (rois(GOOD), 0.0, r"spatial_scale is 0.0; expected more than 0"),
    (rois(GOOD), np.nan, r"spatial_scale is nan; expected a finite number"),
]
REVERSED = [
    (rois(GOOD, (0, 3, 1, 1, 3)), r"row 1 of rois has x2 1, less than x1 3; expected no reversed box"),
    (rois((0, 1, 3, 3, 2)), r"row 0 of rois has y2 2, less than y1 3; expected no reversed box"),
]


def calls(backend, rois, scale=1.0, ratio=-1, aligned=True):
    """Yield the four functions, to be called without arguments."""
    module, dy = kernels.get(backend), np.zeros((len(rois), 3, 2, 2), F32)
    yield lambda: module.roi_align_forward(X, rois, 2, scale, ratio, aligned=aligned)
    yield lambda: module.roi_align_backward(dy, rois, X.shape, scale, ratio, aligned=aligned)
    yield lambda: module.roi_pool_forward(X, rois, 2, scale)
    yield lambda: module.roi_pool_backward(dy, rois, np.zeros(dy.shape, int), X.shape)


@BACKENDS
@pytest.mark.parametrize(("bad", "message"), BAD_ROIS)
def test_bad_rois_are_named(backend, bad, message):
    for call in calls(backend, bad):
        with pytest.raises(ValueError, match=f"^{message}"):
            call()


@BACKENDS
@pytest.mark.parametrize(("bad", "scale", "message"), TOO_LARGE)
def test_boxes_that_leave_the_range_of_their_type_are_named(backend, bad, scale, message):
    for call in list(calls(backend, bad, scale))[:3]:
        with pytest.raises(ValueError, match=f"^{message}"):
            call()


@BACKENDS
@pytest.mark.parametrize(("bad", "message"), REVERSED)
def test_reversed_boxes_are_refused_where_samples_follow_from_their_size(backend, bad, message):
    for ratio in (-1, 0):
        for call in list(calls(backend, bad, ratio=ratio))[:2]:
            with pytest.raises(ValueError, match=f"^{message}"):
                call()
    for ratio, aligned in ((1, True), (-1, False)):
        for call in calls(backend, bad, ratio=ratio, aligned=aligned):
            call()


@BACKENDS
@pytest.mark.parametrize(
    ("function", "change", "error", "message"),
    [
        ("roi_align_forward", {"aligned": None}, TypeError, r"aligned is None; expected True or False"),
        ("roi_align_forward", {"sampling_ratio": 1.5}, TypeError, r"sampling_ratio is 1.5; expected a whole number"),
        ("roi_align_forward", {"output_size": 0}, ValueError, r"output_size is 0; expected at least 1"),
        ("roi_pool_forward", {"output_size": (2, 2, 2)}, ValueError, r"output_size is \(2, 2, 2\); expected"),
        ("roi_pool_forward", {"rois": np.zeros((2, 5))}, TypeError, r"rois has dtype float64; expected float32"),
        ("roi_pool_forward", {"x": X[:, :, :0]}, ValueError, r"x has shape .*; expected a height and width"),
        ("roi_align_forward", {"x": X[0]}, ValueError, r"x has shape \(3, 6, 8\); expected 4 axes"),
        ("roi_align_forward", {"x": X[:0]}, ValueError, r"row 0 of rois has batch index 0; expected none, since"),
        ("roi_align_backward", {"input_shape": (2, 4, 6, 8)}, ValueError, r"dy has shape .*; expected \(1, 4, 2, 2\)"),
        ("roi_align_backward", {"dy": np.zeros((1, 3, 0, 2), F32)}, ValueError, r"dy has shape .* at least 1x1"),
        ("roi_pool_backward", {"input_shape": (2, 3, 6)}, ValueError, r"input_shape is \(2, 3, 6\); expected a shape"),
        ("roi_pool_backward", {"argmax": np.full((1, 3, 2, 2), 48)}, ValueError, r"argmax has values from 48 to 48"),
        ("roi_pool_backward", {"argmax": np.full((1, 3, 2, 2), -2)}, ValueError, r"argmax .*; expected -1 to 47"),
        ("roi_pool_backward", {"argmax": np.zeros((1, 3, 2, 1), int)}, ValueError, r"argmax has shape"),
    ],
)
def test_other_bad_input_is_named(backend, function, change, error, message):
    good = {"rois": rois(GOOD)}
    if function.endswith("forward"):
        good |= {"x": X, "output_size": 2}
    else:
        good |= {"dy": np.zeros((1, 3, 2, 2), F32), "input_shape": X.shape}
    if function == "roi_pool_backward":
        good["argmax"] = np.zeros((1, 3, 2, 2), int)
    if "align" in function:
        good["aligned"] = True
    getattr(kernels.get(backend), function)(**good)
    with pytest.raises(error, match=f"^{message}"):
        getattr(kernels.get(backend), function)(**good | change)


@BACKENDS
def test_aligned_has_no_default(backend):
    with pytest.raises(TypeError, match="aligned"):
        kernels.get(backend).roi_align_forward(X, rois(GOOD), 2)
