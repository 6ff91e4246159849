"""The fast RoI operators: against naive, on random boxes, in any number of threads; and what holds for any RoI."""

import numba
import numpy as np
import pytest
from cases import compare, of

import kernels
from kernels.cpu import channels_last, roi_align
from kernels.cpu.roi_vectors import largest_of_rows, whole_vectors

cpu, naive = kernels.get("cpu"), kernels.get("naive")
BOTH = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])


@BOTH
@pytest.mark.parametrize("case", of("roi_pool", "roi_align"), ids=str)
def test_equals_naive(case, dtype):
    compare("cpu", case, dtype)


@BOTH
@pytest.mark.parametrize("case", of("roi_align"), ids=str)
def test_maps_of_few_channels_could_be_turned_too(case, dtype, monkeypatch):
    monkeypatch.setattr(roi_align, "_FEW", 0)
    compare("cpu", case, dtype)


def draw(rng, dtype, allow_reversed):
    """Return a random map and random RoIs around it: ordinary, tiny, huge, reversed, on a coarse grid of places."""
    n, h, w = (int(v) for v in rng.integers(1, [4, 14, 14]))
    x = rng.standard_normal((n, int(rng.choice([1, 3, 9, 16, 20, 67])), h, w))
    k = 12
    corners = np.sort(rng.uniform(-0.7, 1.7, (k, 2, 2)) * [[h], [w]], axis=2)[:, ::-1].swapaxes(1, 2).reshape(k, 4)
    corners[:3] = np.round(corners[:3] * 4) / 4
    corners[3, 2:] = corners[3, :2] + 1e-3
    corners[4] *= 1e3
    corners[5, 2:] = corners[5, :2]
    if allow_reversed:
        corners[6:9] = corners[6:9][:, [2, 1, 0, 3]]
        corners[9] = corners[9][[2, 3, 0, 1]]
    rois = np.column_stack([rng.integers(0, n, k), corners * 4])
    return np.asarray(x, dtype), np.asarray(rois, dtype)


@BOTH
@pytest.mark.parametrize("seed", range(30))
def test_random_boxes_equal_naive(dtype, seed):
    rng = np.random.default_rng(seed)
    aligned, ratio = bool(seed % 2), int(rng.choice([-1, 0, 1, 2, 3, 5]))
    x, rois = draw(rng, dtype, allow_reversed=not aligned or ratio > 0)
    size = tuple(int(v) for v in rng.integers(1, 8, 2))
    how = {"spatial_scale": 0.25, "sampling_ratio": ratio, "aligned": aligned}
    y = cpu.roi_align_forward(x, rois, size, **how)
    dy = np.asarray(rng.standard_normal(y.shape), dtype)
    bound = 1e-5 if dtype == np.float32 else 1e-13
    np.testing.assert_allclose(y, naive.roi_align_forward(x, rois, size, **how), rtol=0, atol=bound)
    expected = naive.roi_align_backward(dy, rois, x.shape, **how)
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(cpu.roi_align_backward(dy, rois, x.shape, **how), expected, rtol=0, atol=bound * scale)
    results = [backend.roi_pool_forward(x, rois, size, 0.25) for backend in (cpu, naive)]
    for actual, wanted in zip(*results, strict=True):
        np.testing.assert_array_equal(actual, wanted)
    whole = np.asarray(rng.integers(-9, 9, y.shape), dtype)
    gradients = [backend.roi_pool_backward(whole, rois, results[0][1], x.shape) for backend in (cpu, naive)]
    np.testing.assert_array_equal(*gradients)


@BOTH
@pytest.mark.parametrize("shape", [(2, 20, 9, 11), (1, 70, 40, 37)], ids=str)
def test_only_what_rois_touch_is_read_and_the_channels_may_come_in_parts(dtype, shape, monkeypatch):
    monkeypatch.setattr(channels_last, "_SCRATCH", 1)
    rng = np.random.default_rng(0)
    rois = np.array([[shape[0] - 1, 3, 2, 6.5, 5], [0, 8, 6, 8, 6], [0, 90, 90, 99, 99]], dtype)
    x = np.full(shape, np.nan, dtype)
    x[:, :, :8, :10] = rng.standard_normal((*shape[:2], 8, 10))
    y = cpu.roi_align_forward(x, rois, 3, sampling_ratio=2, aligned=True)
    assert np.isfinite(y).all()
    expected = naive.roi_align_forward(x, rois, 3, sampling_ratio=2, aligned=True)
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5 if dtype == np.float32 else 1e-13)
    found, wanted = (backend.roi_pool_forward(x, rois, 3) for backend in (cpu, naive))
    for actual, right in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(actual, right)
    dx = cpu.roi_align_backward(np.ones_like(y), rois, shape, sampling_ratio=2, aligned=True)
    expected = naive.roi_align_backward(np.ones_like(y), rois, shape, sampling_ratio=2, aligned=True)
    np.testing.assert_allclose(dx, expected, rtol=0, atol=1e-5 if dtype == np.float32 else 1e-13)
    assert not dx[:, :, 8:].any()


@pytest.mark.parametrize("place", [-2, 99, 2**40, -(2**40)])
@pytest.mark.parametrize("at", [(0, 0, 0, 0), (3, 4, 2, 1)])
def test_a_place_beyond_the_plane_is_refused_before_it_is_used(place, at):
    rois = np.array([[n, 0, 0, 3, 3] for n in (0, 0, 1, 1)], np.float32)
    argmax = np.full((4, 5, 3, 2), 7, np.int32 if abs(place) < 2**31 else np.int64)
    argmax[at] = place
    low, high = min(place, 7), max(place, 7)
    with pytest.raises(ValueError, match=f"argmax has values from {low} to {high}; expected -1 to 98"):
        cpu.roi_pool_backward(np.ones(argmax.shape, np.float32), rois, argmax, (2, 5, 9, 11))


@pytest.mark.parametrize("backend", kernels.BACKENDS)
@pytest.mark.parametrize("kind", [np.int32, np.int64, np.uint8, ">i4"])
def test_places_may_be_whole_numbers_of_any_type(backend, kind):
    rois = np.array([[0, 0, 0, 3, 3]] * 3, np.float32)
    argmax = np.arange(3 * 5 * 4).reshape(3, 5, 2, 2).astype(kind)
    dx = kernels.get(backend).roi_pool_backward(np.ones(argmax.shape, np.float32), rois, argmax, (2, 5, 9, 11))
    expected = np.zeros((2, 5, 99), np.float32)
    for k, c in np.ndindex(3, 5):
        expected[0, c, argmax[k, c]] += 1
    np.testing.assert_array_equal(dx.reshape(expected.shape), expected)


@pytest.mark.parametrize("backend", kernels.BACKENDS)
def test_pooling_refuses_planes_whose_cells_have_no_number_of_32_bits(backend):
    x = np.empty((0, 1, 2**16, 2**15), np.float32)
    with pytest.raises(ValueError, match=r"x has shape \(0, 1, 65536, 32768\); expected at most 2147483647 cells"):
        kernels.get(backend).roi_pool_forward(x, np.empty((0, 5), np.float32), 2)
    y, rois = np.empty((0, 1, 2, 2), np.float32), np.empty((0, 5), np.float32)
    with pytest.raises(
        ValueError, match=r"the input has shape \(0, 1, 65536, 32768\); expected at most 2147483647 cells"
    ):
        kernels.get(backend).roi_pool_backward(y, rois, np.empty(y.shape, np.int32), x.shape)


@BOTH
@pytest.mark.parametrize("size", [(1, 1), (16, 16), (17, 15), (3, 40), (40, 3), (49, 64), (33, 50)], ids=str)
def test_transposition(dtype, size):
    rows, columns = size
    source = np.random.default_rng(0).standard_normal((rows, columns + 5)).astype(dtype)
    to = np.zeros((columns + 2, rows + 3), dtype)
    channels_last.transpose(to.reshape(-1), rows + 3 + 1, rows + 3, source.reshape(-1), 2, columns + 5, rows, columns)
    expected = np.zeros_like(to)
    expected[1 : columns + 1, 1 : rows + 1] = source[:, 2 : columns + 2].T
    np.testing.assert_array_equal(to, expected)


@BOTH
@pytest.mark.parametrize("channels", [1, 15, 16, 17, 63, 64, 65, 130])
def test_largest_of_rows_keeps_within_its_rows(dtype, channels):
    rng, guard = np.random.default_rng(channels), 77
    step = whole_vectors(channels, np.dtype(dtype).itemsize)
    source = np.full(guard + 12 * step + guard, np.inf, dtype)
    rows = source[guard:-guard].reshape(12, step)
    rows[:] = rng.integers(-3, 4, rows.shape)  # many are equal
    rows[rng.random(rows.shape) < 0.1] = np.nan
    cells = np.array([3, 4, 7, 8, 11, 99])
    to, places = (np.full(guard + step + guard, np.nan, dtype) for _ in range(2))
    lowest = np.array([-2], dtype)
    largest_of_rows(to, places, guard, lowest, source, guard, step, cells, 5)
    place = places.view({4: np.int32, 8: np.int64}[places.itemsize])[guard:-guard]
    chosen = np.where(rows[cells[:5]] > -2, rows[cells[:5]], -np.inf)
    nothing = (chosen == -np.inf).all(axis=0)
    np.testing.assert_array_equal(to[guard:-guard], np.where(nothing, -2, chosen.max(axis=0)))
    np.testing.assert_array_equal(place, np.where(nothing, -1, cells[chosen.argmax(axis=0)]))
    for array in (to, places):
        assert np.isnan(array[:guard]).all() and np.isnan(array[-guard:]).all()


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="needs two processors")
@pytest.mark.parametrize("aligned", [False, True])
def test_results_do_not_depend_on_the_number_of_threads(aligned):
    rng = np.random.default_rng(3)
    x = rng.standard_normal((2, 150, 9, 10)).astype(np.float32)
    corners = np.sort(rng.uniform(-2, 12, (40, 2, 2)), axis=1).reshape(40, 4)
    rois = np.column_stack([rng.integers(0, 2, 40), corners]).astype(np.float32)
    dy = rng.standard_normal((40, 150, 3, 3)).astype(np.float32)

    def run():
        y, argmax = cpu.roi_pool_forward(x, rois, 3)
        yield from (y, argmax, cpu.roi_pool_backward(dy, rois, argmax, x.shape))
        yield cpu.roi_align_forward(x, rois, 3, aligned=aligned)
        yield cpu.roi_align_backward(dy, rois, x.shape, aligned=aligned)

    threads, results = numba.get_num_threads(), []
    try:
        for count in (1, numba.config.NUMBA_NUM_THREADS):
            numba.set_num_threads(count)
            results.append(list(run()))
    finally:
        numba.set_num_threads(threads)
    for one, many in zip(*results, strict=True):
        np.testing.assert_array_equal(one, many)


# ---- what holds for any RoI -----------------------------------------------------------------------------------------

BACKENDS = pytest.mark.parametrize("backend", kernels.BACKENDS)
SEEDS = pytest.mark.parametrize("seed", range(6))


def inside(rng, count, shape):
    """Return RoIs that lie wholly inside a map of that shape, also with their outermost samples."""
    n, _, h, w = shape
    corners = np.sort(rng.uniform(0.5, 1, (count, 2, 2)) * [w - 1, h - 1], axis=1).reshape(count, 4)
    return np.column_stack([rng.integers(0, n, count), corners])


@BACKENDS
@SEEDS
def test_align_of_a_constant_is_the_constant(backend, seed):
    rng = np.random.default_rng(seed)
    rois = inside(rng, 8, (2, 3, 9, 11))
    y = kernels.get(backend).roi_align_forward(np.full((2, 3, 9, 11), 0.7), rois, (3, 2), aligned=seed % 2 == 0)
    np.testing.assert_allclose(y, 0.7, rtol=1e-13)


@BACKENDS
@SEEDS
@pytest.mark.parametrize("ratio", [-1, 2])
def test_align_has_its_adjoint_as_gradient_and_conserves_mass(backend, seed, ratio):
    rng = np.random.default_rng(seed)
    shape = (2, 3, 9, 11)
    x, rois = rng.standard_normal(shape), inside(rng, 8, shape)
    how = {"sampling_ratio": ratio, "aligned": seed % 2 == 0}
    y = kernels.get(backend).roi_align_forward(x, rois, (3, 2), **how)
    dy = rng.standard_normal(y.shape)
    dx = kernels.get(backend).roi_align_backward(dy, rois, shape, **how)
    np.testing.assert_allclose(np.vdot(y, dy), np.vdot(x, dx), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(dx.sum(), dy.sum(), rtol=1e-10, atol=1e-10)


@BACKENDS
@SEEDS
def test_shifting_map_and_boxes_together_changes_nothing(backend, seed):
    rng = np.random.default_rng(seed)
    module, shape = kernels.get(backend), (1, 2, 9, 11)
    x, rois = rng.standard_normal(shape), inside(rng, 8, shape)
    shifted = np.pad(x, ((0, 0), (0, 0), (2, 0), (3, 0)))
    moved = rois + [0, 3, 2, 3, 2]
    y = module.roi_align_forward(x, rois, 3, sampling_ratio=2, aligned=True)
    np.testing.assert_allclose(
        module.roi_align_forward(shifted, moved, 3, sampling_ratio=2, aligned=True), y, rtol=0, atol=1e-13
    )
    np.testing.assert_array_equal(module.roi_pool_forward(shifted, moved, 3)[0], module.roi_pool_forward(x, rois, 3)[0])
