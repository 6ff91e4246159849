"""Arrays on the device: transfers that are counted, memory that is used again, and what is refused."""

import numpy as np
import pytest

from kernels import cuda
from kernels.cuda.array import Pool, empty, rounded


def test_memory_comes_in_few_sizes():
    sizes = {rounded(size) for size in range(1, 1 << 16)}
    assert len(sizes) < 100 and all(size <= rounded(size) <= max(512, size * 9 / 8 + 512) for size in (1, 513, 70_000))


def test_a_buffer_is_used_again():
    asked = []
    pool = Pool(lambda size: asked.append(size) or object())
    first, size = pool.take(1000)
    pool.give_back(first, size)
    assert pool.waiting() == size == 1024
    assert pool.take(900) == (first, size) and asked == [1024] and pool.waiting() == 0
    assert pool.take(900)[0] is not first


@pytest.mark.cuda
@pytest.mark.parametrize("shape", [(3, 4), (2, 0, 5), (), (7,)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.bool_])
def test_there_and_back(shape, dtype):
    a = np.arange(int(np.prod(shape))).reshape(shape).astype(dtype)
    before = cuda.transfers()
    there = cuda.to_device(a)
    assert (there.shape, there.dtype, there.size, there.ndim, there.nbytes) == (shape, dtype, a.size, a.ndim, a.nbytes)
    back = cuda.to_host(there)
    assert back.dtype == dtype and np.array_equal(back, a) and back.shape == shape
    counts = np.subtract(cuda.transfers(), before)
    assert counts.tolist() == [1, a.nbytes, 1, a.nbytes]
    assert cuda.to_device(there) is there and cuda.to_host(a) is a


@pytest.mark.cuda
def test_foreign_layouts_and_byte_orders_arrive_in_order():
    a = np.arange(24, dtype=">f4").reshape(2, 3, 4)
    for other in (a, a.T, a[:, ::-1], np.asfortranarray(a)):
        assert np.array_equal(cuda.to_host(cuda.to_device(other)), other)


@pytest.mark.cuda
def test_reshape_shares_memory():
    a = cuda.to_device(np.arange(12.0))
    b = a.reshape(3, -1)
    assert b.shape == (3, 4) and b.raw is a.raw and b.reshape((2, 6)).shape == (2, 6) and len(b) == 3
    with pytest.raises(ValueError, match=r"cannot reshape a device array of shape \(12,\) to \(5, 2\)"):
        a.reshape(5, 2)


@pytest.mark.cuda
def test_nothing_is_copied_unasked():
    a = empty((2, 3), np.float32)
    with pytest.raises(TypeError, match=r"not copied to the host unasked: use kernels.cuda.to_host"):
        np.asarray(a)
    with pytest.raises(TypeError, match="a is a list; expected a NumPy array or a device array"):
        cuda.to_device([1.0])
    with pytest.raises(TypeError, match="a is a list; expected a device array or a NumPy array"):
        cuda.to_host([1.0])
