"""Steps of the optimisers: cpu against naive on awkward lists of arrays, answers by hand, and what is refused."""

import numba
import numpy as np
import pytest

import kernels
from kernels.cpu import optimizer_steps

PART = optimizer_steps._PART
SHAPES = [(3, 5), (), (0, 4), (PART - 16,), (1,), (2, PART + 7), (0,), (PART,), (17,)]
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
BACKENDS = pytest.mark.parametrize("backend", kernels.BACKENDS)


def normal(rng, dtype, shapes=SHAPES):
    return [np.asarray(rng.standard_normal(shape), dtype) for shape in shapes]


def copies(lists):
    return [None if arrays is None else [a.copy() for a in arrays] for arrays in lists]


def assert_same(actual, expected, dtype):
    """Rounding differs by where the fast step rounds to its type: a few units in the last place of each step."""
    for arrays, wanted in zip(actual, expected, strict=True):
        for a, b in zip(arrays or (), wanted or (), strict=True):
            np.testing.assert_allclose(a, b, rtol=3e-6 if dtype == np.float32 else 1e-13, atol=1e-6)


@DTYPES
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"weight_decay": 0.1, "maximize": True},
        {"momentum": 0.9, "dampening": 0.3},
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.05},
    ],
    ids=str,
)
def test_sgd_cpu_against_naive(rng, dtype, settings):
    state = [normal(rng, dtype), normal(rng, dtype) if "momentum" in settings else None]
    fresh, lists = [i % 2 == 0 for i in range(len(SHAPES))], {}
    gradients = normal(rng, dtype)
    for backend in kernels.BACKENDS:
        values, buffers = lists[backend] = copies(state)
        for _ in range(3):
            kernels.get(backend).sgd_step(values, gradients, buffers, fresh, 0.1, **settings)
    assert_same(lists["cpu"], lists["naive"], dtype)
    assert not np.array_equal(lists["cpu"][0][5], state[0][5])


@DTYPES
@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize(
    "settings",
    [{}, {"weight_decay": 0.1, "maximize": True}, {"weight_decay": 0.1, "decoupled": True, "eps": 1e-3}],
    ids=str,
)
def test_adam_cpu_against_naive(rng, dtype, amsgrad, settings):
    zeros = [np.zeros(shape, dtype) for shape in SHAPES]
    state = [normal(rng, dtype), zeros, zeros, zeros if amsgrad else None]
    lists = {backend: copies(state) for backend in kernels.BACKENDS}
    for step in range(1, 4):
        gradients = normal(rng, dtype)
        for backend in kernels.BACKENDS:
            values, *others = lists[backend]
            steps = [step + i for i in range(len(SHAPES))]
            kernels.get(backend).adam_step(values, gradients, *others, steps, 0.01, **settings)
    assert_same(lists["cpu"], lists["naive"], dtype)


@BACKENDS
def test_answers_by_hand(backend):
    module = kernels.get(backend)
    value, buffer = np.array([4.0]), np.array([10.0])
    module.sgd_step([value], [np.array([1.0])], [buffer], [False], 0.5, momentum=0.5, dampening=0.5, weight_decay=0.25)
    assert (buffer.item(), value.item()) == (6, 1)  # 0.5 * 10 + 0.5 * (1 + 0.25 * 4); 4 - 0.5 * 6
    value, mean, square = np.array([1.0]), np.array([0.0]), np.array([0.0])
    module.adam_step([value], [np.array([3.0])], [mean], [square], None, [1], 0.25, 0.5, 0.75, 1.0)
    # mean 1.5, square 2.25, without their bias 3 and 9: 1 - 0.25 * 3 / (3 + 1)
    assert (mean.item(), square.item(), value.item()) == (1.5, 2.25, 0.8125)


@BACKENDS
def test_sum_and_scale(backend, rng):
    module = kernels.get(backend)
    arrays = normal(rng, np.float32)
    expected = sum(np.square(a, dtype=np.float64).sum() for a in arrays)
    assert module.sum_of_squares(arrays) == pytest.approx(expected, rel=1e-13)
    assert module.sum_of_squares([]) == 0
    assert module.sum_of_squares([np.full(9, 1e30, np.float32)]) == pytest.approx(9e60)  # beyond float32
    assert np.isnan(module.sum_of_squares([np.array([1, np.nan])]))
    scaled = [a.copy() for a in arrays]
    module.scale_arrays(scaled, -0.3)
    for a, b in zip(scaled, arrays, strict=True):
        np.testing.assert_allclose(a, b * np.float32(-0.3), rtol=2e-7)
    infinite = np.array([np.inf, 2.0])
    module.scale_arrays([infinite], 0.0)
    np.testing.assert_array_equal(infinite, [np.nan, 0])


@BACKENDS
def test_nan_stays_where_it_is(backend):
    values, largest = np.ones(4, np.float32), np.array([1, np.nan, 1, 1], np.float32)
    means, squares = np.zeros(4, np.float32), np.zeros(4, np.float32)
    gradient = np.array([1, 1, np.nan, 1], np.float32)
    kernels.get(backend).adam_step([values], [gradient], [means], [squares], [largest], [1])
    np.testing.assert_array_equal(np.isnan(values), [False, True, True, False])
    np.testing.assert_array_equal(np.isnan(largest), [False, True, True, False])


def test_results_do_not_depend_on_threads(rng):
    gradients, results = normal(rng, np.float32), []
    start = [normal(rng, np.float32) for _ in range(3)]
    for threads in (1, numba.config.NUMBA_NUM_THREADS):
        numba.set_num_threads(threads)
        values, means, squares = copies(start)
        squares = [np.asarray(np.abs(a)) for a in squares]
        optimizer_steps.adam_step(values, gradients, means, squares, None, [2] * len(SHAPES))
        results.append([optimizer_steps.sum_of_squares(gradients), *(a.tobytes() for a in values)])
    assert results[0] == results[-1]


def test_gradients_may_be_read_only_and_of_any_layout(rng):
    a, b = rng.standard_normal((6, 4)), rng.standard_normal((4, 6)).T
    gradient = b.copy(order="F")
    gradient.flags.writeable = False
    expected = a - 0.5 * b
    optimizer_steps.sgd_step([a], [gradient], lr=0.5)
    np.testing.assert_array_equal(a, expected)


def read_only(a):
    a.flags.writeable = False
    return a


@BACKENDS
@pytest.mark.parametrize(
    ("values", "gradients", "error", "message"),
    [
        ([np.zeros(3)], [], ValueError, "gradients has 0 arrays; expected 1"),
        ([np.zeros(3)], [np.zeros(2)], ValueError, r"gradients has an array of shape \(2,\); expected \(3,\)"),
        ([np.zeros(3)], [np.zeros(3, np.float32)], TypeError, "gradients has dtype float32"),
        ([np.zeros(3), np.zeros(3, np.float32)], [], TypeError, "values has an array of dtype float32"),
        ([np.zeros(3, int)], [np.zeros(3)], TypeError, "values has an array of dtype int64"),
        ([[0.0]], [np.zeros(1)], TypeError, "values has a list"),
        ([read_only(np.zeros(3))], [np.zeros(3)], ValueError, "values has an array that is read-only"),
        ([np.zeros((3, 2)).T], [np.zeros((2, 3))], ValueError, "values has an array that is .* not C-contiguous"),
    ],
)
def test_what_does_not_fit_is_named(backend, values, gradients, error, message):
    with pytest.raises(error, match=message):
        kernels.get(backend).sgd_step(values, gradients)


@BACKENDS
def test_states_that_do_not_fit_are_named(backend):
    module, a = kernels.get(backend), [np.zeros(3)]
    with pytest.raises(ValueError, match=r"buffers has an array of shape \(2,\)"):
        module.sgd_step(a, a, [np.zeros(2)], [True], momentum=0.9)
    with pytest.raises(ValueError, match="fresh has 0 items; expected 1"):
        module.sgd_step(a, a, [np.zeros(3)], [], momentum=0.9)
    with pytest.raises(ValueError, match="squares has 0 arrays; expected 1"):
        module.adam_step(a, a, [np.zeros(3)], [], None, [1])
    with pytest.raises(ValueError, match="steps is 0"):
        module.adam_step(a, a, [np.zeros(3)], [np.zeros(3)], None, [0])
    with pytest.raises(ValueError, match="lr is nan"):
        module.sgd_step(a, a, lr=float("nan"))
