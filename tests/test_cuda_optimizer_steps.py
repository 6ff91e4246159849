"""Steps of the optimisers on the device: against naive on awkward lists of arrays, and what is refused."""

import numpy as np
import pytest

import kernels
from kernels import cuda, naive
from kernels.cuda import addresses

pytestmark = pytest.mark.cuda

PART = addresses.PART
SHAPES = [(3, 5), (), (0, 4), (PART - 1,), (1,), (2, PART + 3), (0,), (PART,), (17,)]
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def normal(rng, dtype, shapes=SHAPES):
    return [np.asarray(rng.standard_normal(shape), dtype) for shape in shapes]


def there(lists):
    return [None if arrays is None else [cuda.to_device(a.copy()) for a in arrays] for arrays in lists]


def copies(lists):
    return [None if arrays is None else [a.copy() for a in arrays] for arrays in lists]


def assert_same(actual, expected, dtype):
    """A step rounds to its type more often than naive does: a few units in the last place of each."""
    for arrays, wanted in zip(actual, expected, strict=True):
        for a, b in zip(arrays or (), wanted or (), strict=True):
            np.testing.assert_allclose(cuda.to_host(a), b, rtol=3e-6 if dtype == np.float32 else 1e-13, atol=1e-6)


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
def test_sgd_against_naive(rng, dtype, settings):
    state = [normal(rng, dtype), normal(rng, dtype) if "momentum" in settings else None]
    fresh, gradients = [i % 2 == 0 for i in range(len(SHAPES))], normal(rng, dtype)
    expected, actual = copies(state), there(state)
    on_device = [cuda.to_device(g) for g in gradients]
    for _ in range(3):
        naive.sgd_step(expected[0], gradients, expected[1], fresh, 0.1, **settings)
        assert cuda.sgd_step(actual[0], on_device, actual[1], fresh, 0.1, **settings) is None
    assert_same(actual, expected, dtype)
    assert not np.array_equal(cuda.to_host(actual[0][5]), state[0][5])
    assert_same([on_device], [gradients], dtype)


@DTYPES
@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize(
    "settings",
    [{}, {"weight_decay": 0.1, "maximize": True}, {"weight_decay": 0.1, "decoupled": True, "eps": 1e-3}],
    ids=str,
)
def test_adam_against_naive(rng, dtype, amsgrad, settings):
    zeros = [np.zeros(shape, dtype) for shape in SHAPES]
    state = [normal(rng, dtype), zeros, zeros, zeros if amsgrad else None]
    expected, actual = copies(state), there(state)
    for step in range(1, 4):
        gradients = normal(rng, dtype)
        steps = [step + i // 4 for i in range(len(SHAPES))]  # some of each step: several launches
        naive.adam_step(expected[0], gradients, *expected[1:], steps, 0.01, **settings)
        cuda.adam_step(actual[0], gradients, *actual[1:], steps, 0.01, **settings)  # gradients of the host go there
    assert_same(actual, expected, dtype)


def test_answers_by_hand():
    value, buffer, gradient = (cuda.to_device(np.array([number])) for number in (4.0, 10.0, 1.0))
    cuda.sgd_step([value], [gradient], [buffer], [False], 0.5, momentum=0.5, dampening=0.5, weight_decay=0.25)
    assert (cuda.to_host(buffer).item(), cuda.to_host(value).item()) == (6, 1)


@DTYPES
def test_sum_and_scale(rng, dtype):
    arrays = normal(rng, dtype)
    there = [cuda.to_device(a) for a in arrays]
    expected = sum(np.square(a, dtype=np.float64).sum() for a in arrays)
    total = cuda.sum_of_squares(there)
    assert isinstance(total, float) and total == pytest.approx(expected, rel=1e-13)
    assert cuda.sum_of_squares(arrays) == total  # from the host as well: nothing is changed
    cuda.scale_arrays(there, -0.3)
    for a, b in zip(there, arrays, strict=True):
        np.testing.assert_allclose(cuda.to_host(a), b * dtype(-0.3), rtol=2e-7)


def test_sums_without_numbers_and_beyond_the_type():
    assert cuda.sum_of_squares([]) == 0 and cuda.sum_of_squares([np.zeros((0, 3))]) == 0
    assert cuda.sum_of_squares([np.full(9, 1e30, np.float32)]) == pytest.approx(9e60)
    assert np.isnan(cuda.sum_of_squares([np.array([1, np.nan])]))
    assert cuda.scale_arrays([], 2.0) is None and cuda.sgd_step([], []) is None
    infinite = cuda.to_device(np.array([np.inf, 2.0]))
    cuda.scale_arrays([infinite], 0.0)
    np.testing.assert_array_equal(cuda.to_host(infinite), [np.nan, 0])


def test_nan_stays_where_it_is():
    ones, zeros = np.ones(4, np.float32), np.zeros(4, np.float32)
    (values,), (largest,), (means,), (squares,) = there(
        [[ones], [np.array([1, np.nan, 1, 1], np.float32)], [zeros], [zeros]]
    )
    gradient = np.array([1, 1, np.nan, 1], np.float32)
    cuda.adam_step([values], [gradient], [means], [squares], [largest], [1])
    np.testing.assert_array_equal(np.isnan(cuda.to_host(values)), [False, True, True, False])
    np.testing.assert_array_equal(np.isnan(cuda.to_host(largest)), [False, True, True, False])


def test_a_table_is_copied_once(rng):
    values, gradients = there([normal(rng, np.float32), normal(rng, np.float32)])
    before = cuda.transfers()
    for _ in range(3):
        cuda.sgd_step(values, gradients)
    assert np.subtract(cuda.transfers(), before)[0] == 1


def test_neighbours_in_memory_stay_as_they_are():
    whole = cuda.to_device(np.ones(3 * PART, np.float32))
    middle = cuda.DeviceArray(whole.raw[PART : 2 * PART - 1], (PART - 1,))
    cuda.scale_arrays([middle], 2.0)
    expected = np.ones(3 * PART)
    expected[PART : 2 * PART - 1] = 2
    np.testing.assert_array_equal(cuda.to_host(whole), expected)


@pytest.mark.parametrize("name", [name for names in kernels.IN_PLACE.values() for name in names if "sum" not in name])
def test_what_is_changed_has_to_be_on_the_device(name):
    host = [np.zeros(3)]
    arguments = {
        "sgd_step": (host, host),
        "adam_step": (host, host, host, host, None, [1]),
        "scale_arrays": (host, 2.0),
    }
    with pytest.raises(TypeError, match="has a ndarray; expected device arrays, which are changed in place"):
        getattr(cuda, name)(*arguments[name])
    assert not host[0].any()


def test_what_does_not_fit_is_named():
    a, b = [cuda.to_device(np.zeros(3))], [cuda.to_device(np.zeros(2))]
    single = [cuda.to_device(np.zeros(3, np.float32))]
    with pytest.raises(ValueError, match="gradients has 0 arrays; expected 1"):
        cuda.sgd_step(a, [])
    with pytest.raises(ValueError, match=r"gradients has an array of shape \(2,\); expected \(3,\)"):
        cuda.sgd_step(a, b)
    with pytest.raises(TypeError, match="gradients has dtype float32"):
        cuda.sgd_step(a, single)
    with pytest.raises(TypeError, match="values has an array of dtype float32; expected one type for all"):
        cuda.sgd_step([*a, *single], [*a, *single])
    with pytest.raises(ValueError, match=r"buffers has an array of shape \(2,\)"):
        cuda.sgd_step(a, a, b, [True], momentum=0.9)
    with pytest.raises(ValueError, match="steps is 0"):
        cuda.adam_step(a, a, a, a, None, [0])
