"""Device arrays indexed by arrays: what NumPy gives, sums of repeated places in order, and what is refused."""

import numpy as np
import pytest
from cuda_traced import traced

from kernels import cuda
from kernels.cuda.array import empty

pytestmark = pytest.mark.cuda

#: A shape, and indices of an array of it.
INDICES = {
    "rows": ((5, 3), np.array([4, 0, -5, 2])),
    "repeated": ((4, 3), np.array([2, 0, 2, 2, -4])),
    "two_axes_of_numbers": ((2, 4), np.array([[1, 0], [1, 1]])),
    "elements": ((7,), np.array([6, 1, 6])),
    "one": ((3, 2), np.array(1)),
    "list": ((3, 2), [2, 0]),
    "none": ((3, 2), np.zeros(0, np.int64)),
    "none_of_none": ((0, 2), np.zeros(0, np.int64)),
    "rows_without_elements": ((3, 0), np.array([1, 1])),
    "a_class_each": ((4, 3, 2), (np.array([0, 1, 3]), np.array([2, 0, 2]))),
    "broadcast": ((3, 4, 2), (np.array([[2], [0]]), np.array([3, 0, 1]))),
    "with_a_number": ((3, 4, 2), (1, np.array([3, 3], np.uint8))),
    "later_axis": ((2, 4, 3), (slice(None), np.array([3, 1, 3]))),
    "last_axis": ((2, 3, 4), (..., np.array([1, -1, 0]))),
    "middle": ((2, 3, 4), (slice(None), np.array([2, 2, 0]), slice(None))),
    "bools": ((4, 3), np.array([True, False, True, True])),
    "bools_of_two_axes": ((2, 3, 2), np.array([[True, False, True], [False, True, False]])),
    "bools_of_the_last_axis": ((2, 3), (..., np.array([False, True, True]))),
    "no_bool": ((2, 3), np.zeros(2, bool)),
}
CASES = pytest.mark.parametrize("name", INDICES)


@CASES
def test_read(name, rng):
    shape, index = INDICES[name]
    a = rng.standard_normal(shape)
    there = cuda.to_device(a)
    before = cuda.transfers()
    y = there[index]
    after = cuda.transfers()
    assert (after.to_device - before.to_device, after.to_host) == (1, before.to_host)  # the places
    assert y.shape == a[index].shape and np.array_equal(cuda.to_host(y), a[index])


@CASES
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_added_in_the_order_of_the_index(name, dtype, rng):
    shape, index = INDICES[name]
    a = rng.standard_normal(shape).astype(dtype)
    values = (rng.standard_normal(a[index].shape) * 10.0 ** rng.integers(-6, 6, a[index].shape)).astype(dtype)
    there, added = cuda.to_device(a), cuda.to_device(values)
    picks = there.picks(index)
    expected = a.copy()
    for _ in range(2):
        np.add.at(expected, index, values)
        np.add.at(there, picks, added)
    assert np.array_equal(cuda.to_host(there), expected)  # bit for bit
    np.add.at(expected, index, 2)
    np.add.at(there, index, 2)
    assert np.array_equal(cuda.to_host(there), expected)


@CASES
def test_written(name, rng):
    shape, index = INDICES[name]
    a = rng.standard_normal(shape)
    values, row = rng.standard_normal(a[index].shape), rng.standard_normal(a[index].shape[-1:])
    there = cuda.to_device(a)
    for value in (values, row, 3.0):
        a[index] = value
        there[index] = cuda.to_device(value) if isinstance(value, np.ndarray) else value
        assert np.array_equal(cuda.to_host(there), a)


def test_whole_numbers_and_bools():
    a = np.arange(12).reshape(4, 3)
    for array in (a, a % 2 == 0):
        there = cuda.to_device(array)
        assert np.array_equal(cuda.to_host(there[np.array([3, 0])]), array[[3, 0]])
        there[np.array([1, 1])] = there[:2]
        array[[1, 1]] = array[:2].copy()
        assert np.array_equal(cuda.to_host(there), array)


def test_an_index_on_the_device_is_copied_to_the_host():
    a = cuda.to_device(np.arange(6.0).reshape(3, 2))
    before = cuda.transfers()
    numbers = cuda.to_device(np.array([2, 0, 2]))
    assert cuda.to_host(a[numbers]).tolist() == [[4, 5], [0, 1], [4, 5]]
    assert cuda.to_host(a[a > 2]).tolist() == [3, 4, 5]
    after = cuda.transfers()
    assert (after.to_device - before.to_device, after.to_host - before.to_host) == (1 + 2, 2 + 2)


def test_an_index_serves_several_times():
    a = cuda.to_device(np.arange(8.0).reshape(4, 2))
    before = cuda.transfers()
    picks = a.picks(np.array([1, 3, 1]))
    y = a[picks]
    np.add.at(a, picks, y)
    np.add.at(a, picks, y)
    after = cuda.transfers()
    assert (after.to_device - before.to_device, after.to_host) == (1 + 1, before.to_host)  # places; their order
    assert cuda.to_host(a).tolist() == [[0, 1], [10, 15], [4, 5], [18, 21]]


@pytest.mark.parametrize(
    ("index", "error", "text"),
    [
        (np.array([0, 3]), IndexError, "index 3 is out of range for axis 0 of size 3"),
        ((0, np.array([-5])), IndexError, "index -5 is out of range for axis 1 of size 4"),
        ((np.arange(2), np.arange(3)), IndexError, r"arrays of shapes \(2,\) and \(3,\), which do not broadcast"),
        ((0, 0, 0, np.array([0])), IndexError, "4 indices for a device array of 3 axes"),
        (np.zeros((3, 3), bool), IndexError, r"indexed by bools of shape \(3, 3\), from axis 0"),
        (np.array([0.0]), TypeError, "indexed by an array of float64; expected whole numbers or bools"),
        ((np.array([0]), slice(1, 2)), TypeError, r"arrays and slice\(1, 2, None\); expected full slices"),
        ((np.array([0]), None), TypeError, "arrays and None; expected full slices"),
        ((np.array([0]), slice(None), 1), TypeError, r"arrays for axes \[0, 2\]; expected neighbouring axes"),
    ],
)
def test_refused(index, error, text):
    a = cuda.to_device(np.ones((3, 4, 2)))
    before = cuda.transfers()
    for call in (lambda: a[index], lambda: a.__setitem__(index, 0), lambda: np.add.at(a, index, 1)):
        with pytest.raises(error, match=text):
            call()
    assert cuda.transfers() == before


def test_values_that_do_not_fit():
    a, numbers = cuda.to_device(np.ones((3, 2))), np.array([0, 2])
    with pytest.raises(ValueError, match=r"shape \(3,\) does not broadcast to \(2, 2\)"):
        a[numbers] = empty((3,), np.float64)
    with pytest.raises(TypeError, match=r"NumPy array of shape \(2,\) is written to a device array"):
        a[numbers] = np.ones(2)
    with pytest.raises(TypeError, match="add.at of device arrays of float64 and float32"):
        np.add.at(a, numbers, empty((2, 2), np.float32))
    with pytest.raises(TypeError, match=r"indexed by slice\(None, None, None\); expected arrays in it"):
        np.add.at(a, slice(None), 1)
    with pytest.raises(IndexError, match=r"for device arrays of shape \(3, 2\) is used on one of shape \(2, 2\)"):
        a[:2][a.picks(numbers)]


@pytest.mark.parametrize(
    ("shape", "index"), [INDICES["repeated"], INDICES["middle"], ((40, 32), np.arange(39, -1, -2))]
)
def test_threads_do_not_meet(shape, index, rng):
    a = rng.standard_normal(shape).astype(np.float32)
    values = a[index] * 3
    with traced() as traces:
        there = cuda.to_device(a)
        assert np.array_equal(cuda.to_host(there[index]), a[index])
        there[index] = cuda.to_device(values)
        np.add.at(there, index, cuda.to_device(values))
        a[index] = values
        np.add.at(a, index, values)
        assert np.array_equal(cuda.to_host(there), a)
    assert {"rows.take_kernel", "rows.put_kernel", "rows.add_kernel"} <= {kernel.name for kernel, _ in traces}
    assert [trace.mistakes for _, trace in traces] == [[]] * len(traces)
    if shape[-1] == 32:  # rows that warps read whole
        assert [trace.slow for _, trace in traces] == [[]] * len(traces)
