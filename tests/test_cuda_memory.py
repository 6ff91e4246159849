"""Full memory, bad input and errors on the device: what is said, and that the next call works."""

import gc
import weakref

import numpy as np
import pytest
from test_checks import BAD, VALID

import tinyseg
from kernels import cuda
from kernels.cuda import array, device
from kernels.cuda.array import Pool
from tinyseg import Tensor, nn, ops
from tinyseg.function import Function


class Memory:
    """An allocator of some bytes, as the driver is one, and a count of how often it was asked and refused."""

    def __init__(self, size, allocate=bytearray):
        self.size, self.used, self.asked, self.refused, self._allocate = size, 0, 0, 0, allocate

    def __call__(self, size):
        self.asked += 1
        if self.used + size > self.size:
            self.refused += 1
            raise MemoryError
        buffer = _Buffer(size) if self._allocate is bytearray else self._allocate(size)
        self.used += size
        weakref.finalize(buffer, self._freed, size)
        return buffer

    def _freed(self, size):
        self.used -= size

    def room(self):
        return self.size - self.used, self.size


class _Buffer(bytearray):
    """One that weak references may be made of."""


@pytest.fixture
def memory(monkeypatch):
    """Give the device ten megabytes from now on."""
    memory = Memory(10 << 20, array._allocate)
    monkeypatch.setattr(array, "_pool", Pool(memory, memory.room))
    return memory


# ---- the pool --------------------------------------------------------------------------------------------------------


def test_full_memory_is_asked_once_more_and_then_one_line_says_all():
    memory = Memory(4096)
    pool = Pool(memory, memory.room)
    first, second = pool.take(1000), pool.take(2048)
    pool.give_back(*first)
    del first
    assert (pool.held(), pool.waiting()) == (2048, 1024)
    message = r"^no room for an array of 3\.0 KiB in the GPU's memory, where 2\.0 KiB of 4\.0 KiB are free; "
    with pytest.raises(MemoryError, match=message + r"this program's arrays hold 2\.0 KiB of it$"):
        pool.take(3072)
    assert (memory.asked, memory.refused, memory.used, pool.held(), pool.waiting()) == (4, 2, 2048, 2048, 0)
    third = pool.take(2048)  # the next call works
    assert (third[1], pool.held(), second[1]) == (2048, 4096, 2048)


def test_where_nobody_tells_how_much_is_free():
    with pytest.raises(MemoryError) as caught:
        Pool(Memory(0)).take(3 << 30)
    assert str(caught.value) == (
        "no room for an array of 3.0 GiB in the GPU's memory; this program's arrays hold 0 bytes of it"
    )


def test_what_waits_is_let_go_before_memory_is_given_up():
    memory = Memory(4096)
    pool = Pool(memory)
    pool.give_back(*pool.take(1024))
    assert pool.take(4096)[1] == 4096
    assert (memory.asked, memory.refused, pool.waiting()) == (3, 1, 0)


def test_circles_of_references_are_let_go_before_memory_is_given_up():
    memory = Memory(1024)
    pool = Pool(memory)

    class Node:
        def __init__(self):
            self.taken, self.me = pool.take(1024), self

        def __del__(self):
            pool.give_back(*self.taken)

    gc.disable()
    try:
        Node()
        assert (memory.used, pool.waiting()) == (1024, 0)
        assert pool.take(512)[1] == 512
    finally:
        gc.enable()


def test_garbage_may_be_collected_while_the_pool_is_at_work():
    pool = Pool(Memory(4096))
    taken = pool.take(1024)
    with pool._lock:  # a lease that dies in here is given back by the same thread
        assert pool._lock.acquire(blocking=False)
        pool.give_back(*taken)
        pool._lock.release()
    assert pool.waiting() == 1024


def test_another_error_of_the_driver_stays_what_it_is():
    def broken(size):
        raise OSError("the GPU has fallen off the bus")

    pool = Pool(broken)
    with pytest.raises(OSError, match="fallen off the bus"):
        pool.take(1)
    assert pool.held() == 0


# ---- arrays ----------------------------------------------------------------------------------------------------------


@pytest.mark.cuda
def test_memory_is_used_again_when_the_last_view_has_died(memory):
    a = cuda.to_device(np.arange(100_000, dtype=np.float32))
    address, view = a.address, a.reshape(100, 1000)
    del a
    gc.collect()
    other = array.empty((100_000,), np.float32)
    assert other.address != address and memory.asked == 2
    assert cuda.to_host(view)[1, 0] == 1000
    del view
    gc.collect()
    assert array.empty((100_000,), np.float32).address == address and memory.asked == 2


@pytest.mark.cuda
def test_an_array_too_large_for_what_is_left(memory):
    held = cuda.to_device(np.ones(1 << 20, np.float32))
    with pytest.raises(MemoryError) as caught:
        array.empty((3, 1 << 19), np.float64)
    assert str(caught.value) == (
        "no room for an array of 12.0 MiB in the GPU's memory, where 6.0 MiB of 10.0 MiB are free; this program's "
        "arrays hold 4.0 MiB of it"
    )
    there = cuda.to_device(np.full(1 << 20, 2, np.float32))
    assert cuda.to_host(there)[-1] == 2 and cuda.to_host(held)[0] == 1
    with pytest.raises(MemoryError, match=r"an array of 4\.0 MiB .* hold 8\.0 MiB"):
        Tensor(np.ones((1 << 20), np.float32)).to("cuda")


# ---- the tape --------------------------------------------------------------------------------------------------------


def _network(rng):
    tinyseg.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU()).to(np.float64)
    return model, rng.standard_normal((1, 1, 4, 5)), rng.standard_normal((1, 2, 4, 5))


def _step(model, x, factor, between=lambda y: y):
    """Run forward and backward; return the gradients."""
    for parameter in model.parameters():
        parameter.grad = None
    loss = (between(model(x)) * factor).sum()
    return loss


def _gradients(model):
    return [None if p.grad is None else p.grad.to("cpu").numpy() for p in model.parameters()]


class Fails(Function):
    """The identity, until its gradient is asked for."""

    def forward(self, x):
        return x + 0

    def backward(self, dy):
        return cuda.relu_backward(dy, array.zeros((3, 3), dy.dtype))  # bad input of a kernel


@pytest.mark.cuda
def test_a_backward_pass_that_fails_leaves_no_trace(rng, memory):
    model, picture, weights = _network(rng)
    _step(model, Tensor(picture), Tensor(weights)).backward()
    expected = _gradients(model)
    model.to("cuda")
    x, factor = Tensor(picture).to("cuda"), Tensor(weights).to("cuda")
    _step(model, x, factor)
    gc.collect()
    held = array._pool.held()
    with pytest.raises(ValueError, match="dy has shape .*; expected"):
        _step(model, x, factor, Fails.apply).backward()
    assert _gradients(model) == [None] * len(expected)
    gc.collect()
    assert array._pool.held() == held  # what the tape held is free
    _step(model, x, factor).backward()
    for actual, wanted in zip(_gradients(model), expected, strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.cuda
def test_memory_that_is_full_in_the_middle_of_a_backward_pass(rng, memory):
    model, picture, weights = _network(rng)
    _step(model, Tensor(picture), Tensor(weights)).backward()
    expected = _gradients(model)
    model.to("cuda")
    x, factor = Tensor(picture).to("cuda"), Tensor(weights).to("cuda")
    loss = _step(model, x, factor)
    array._pool.release()
    memory.size = memory.used + 1024  # room for two small arrays, where the pass needs several
    with pytest.raises(MemoryError, match=r"no room for an array of \d+ bytes in the GPU's memory, where"):
        loss.backward()
    assert _gradients(model) == [None] * len(expected)
    del loss
    memory.size = 10 << 20
    _step(model, x, factor).backward()
    for actual, wanted in zip(_gradients(model), expected, strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-9, atol=1e-12)


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.fixture
def launches(monkeypatch):
    """Note which kernels are started, and start none."""
    started: list = []
    monkeypatch.setattr(device.Kernel, "run", lambda kernel, *_, **__: started.append(kernel.name))
    return started


@pytest.mark.cuda
@pytest.mark.parametrize(("name", "change", "error", "message"), BAD)
def test_bad_input_is_named_before_any_launch(name, change, error, message, launches):
    with pytest.raises(error, match=f"^{message}"):
        getattr(cuda, name)(**VALID[name] | change)
    assert launches == []


@pytest.mark.cuda
def test_bad_shapes_and_types_of_device_arrays_are_named_before_any_launch(launches):
    x = array.empty((2, 3, 4, 5), np.float32)
    wide, row = array.empty((2, 3, 4, 5), np.float64), array.empty((4,), np.float32)
    weight, rois = array.empty((2, 4, 3, 3), np.float32), array.empty((3, 4), np.float32)
    for call, error, message in (
        (lambda: cuda.conv2d_forward(x, weight), ValueError, "weight has shape .* x has 3 channels"),
        (lambda: cuda.relu_backward(wide, x), TypeError, "dy has dtype float64; expected float32"),
        (lambda: cuda.batch_norm_forward(x, row, None, None, None, True), ValueError, r"gamma .* \(4,\); expected"),
        (lambda: cuda.roi_align_forward(x, rois, 2, aligned=True), ValueError, r"rois has shape \(3, 4\)"),
        (lambda: cuda.add_forward(x, row), ValueError, "do not broadcast|broadcast"),
        (lambda: cuda.max_pool2d_forward(x, 9), ValueError, "kernel_size"),
    ):
        with pytest.raises(error, match=message):
            call()
        assert launches == [], message


@pytest.mark.cuda
def test_the_call_after_an_error_works():
    x = cuda.to_device(np.array([-1.0, 2.0]))
    with pytest.raises(TypeError, match="x"):
        cuda.relu_forward(cuda.to_device(np.array([1, 2])))
    assert cuda.to_host(cuda.relu_forward(x)).tolist() == [0, 2]
    assert cuda.to_host(ops.relu(Tensor(x)).array).tolist() == [0, 2]
