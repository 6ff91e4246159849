"""Copies beside the kernels: what waits for what, pinned memory that is not written to early, and the same results.

The simulator copies at once, which would hide a copy that nobody waits for. So streams here are as slow as they may be:
what they are given is done when somebody waits for it, and no sooner.
"""

import gc
import math
import threading
from types import SimpleNamespace

import numpy as np
import pytest

import tinyseg
from kernels import cuda
from kernels.cuda import array, device, pinned, staging
from tinyseg import data, models, training
from tinyseg.backend import moved
from tinyseg.evaluation import predict
from tinyseg.evaluation.tiling import smallest_tile
from tinyseg.training.data_source import Source

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not device.SIMULATED, reason="a GPU's streams cannot be slowed down"),
]


class Slow:
    """Streams, events and copies of a GPU that does everything as late as it may; ``log`` says what was asked for."""

    def __init__(self):
        self.log, self.streams, self.pinned = [], [], 0
        self._lock = threading.RLock()
        self.default = SimpleNamespace(name="kernels", todo=[], done=0)

    def stream(self):
        stream = SimpleNamespace(name=f"copies {len(self.streams)}", todo=[], done=0)
        self.streams.append(stream)
        return stream

    def event(self):
        return _Event(self)

    def pinned_array(self, size, dtype):
        self.pinned += 1
        return np.full(size, 0xFF, dtype)

    def later(self, stream, what, work):
        with self._lock:
            self.log.append((what, stream.name))
            stream.todo.append(work)

    def until(self, stream, count):
        """Do all that a stream was given up to a moment."""
        with self._lock:
            while stream.todo and count > stream.done:
                work = stream.todo.pop(0)
                stream.done += 1
                work()

    def catch_up(self):
        """Do all that stands in line before a kernel, or a copy that the host waits for."""
        self.until(self.default, math.inf)


class _Event:
    def __init__(self, gpu):
        self._gpu, self._of = gpu, None

    def record(self, stream=0):
        if stream == 0:
            stream = self._gpu.default
            self._gpu.log.append(("event", "kernels"))
        self._of = stream, stream.done + len(stream.todo)

    def wait(self, stream=0):
        self._gpu.log.append(("wait", "kernels" if stream == 0 else stream.name))
        if stream == 0:  # the simulator's kernels run when they are started
            self.synchronize()
        elif self._of[0] is self._gpu.default:
            stream.todo.append(self._gpu.catch_up)

    def synchronize(self):
        if self._of is not None:
            self._gpu.until(*self._of)


@pytest.fixture
def slow(monkeypatch):
    """Make copies of ``sending`` and ``fetching`` late, in pinned memory of their own."""
    from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray

    gpu = Slow()
    to_device, to_host = FakeCUDAArray.copy_to_device, FakeCUDAArray.copy_to_host

    def late(copy, what):
        def start(self, other=None, stream=0):
            if stream == 0:
                gpu.catch_up()
                return copy(self, other)
            return gpu.later(stream, what, lambda: copy(self, other))

        return start

    monkeypatch.setattr(FakeCUDAArray, "copy_to_device", late(to_device, "to device"))
    monkeypatch.setattr(FakeCUDAArray, "copy_to_host", late(to_host, "to host"))
    run = device.Kernel.run
    monkeypatch.setattr(device.Kernel, "run", lambda *args, **how: (gpu.catch_up(), run(*args, **how)))
    monkeypatch.setattr(staging, "cuda", gpu)
    monkeypatch.setattr(staging, "copy_stream", gpu.stream)
    monkeypatch.setattr(pinned, "cuda", gpu)
    monkeypatch.setattr(pinned, "default_stream", lambda: gpu.default)
    monkeypatch.setattr(staging, "_pieces", pinned.Pieces(staging._MOST))
    monkeypatch.setattr(pinned, "_small", pinned.Pieces(pinned._SMALL_ONES, pinned.SMALL))
    staging._streams.cache_clear()
    yield gpu
    staging._streams.cache_clear()


# ---- the order -------------------------------------------------------------------------------------------------------


def test_a_copy_stands_behind_what_was_started_and_what_follows_behind_it(slow):
    arrives = cuda.sending(np.arange(5.0))
    assert slow.log == [("event", "kernels"), ("wait", "copies 0"), ("to device", "copies 0")]
    a = arrives()
    assert slow.log[3:] == [("wait", "kernels")]
    assert cuda.to_host(a).tolist() == [0, 1, 2, 3, 4] and arrives() is a and len(slow.log) == 4
    slow.log.clear()
    arrives = cuda.fetching(a + 1)
    assert slow.log == [("event", "kernels"), ("wait", "copies 1"), ("to host", "copies 1")]
    assert arrives().tolist() == [1, 2, 3, 4, 5] and arrives() is arrives()


def test_a_copy_is_late_indeed(slow):
    """Without the wait that `arrives` does, an array would hold what was there before."""
    arrives = cuda.sending(np.ones(4))
    assert len(slow.streams[0].todo) == 2  # to wait for the kernels, and to copy
    arrives()
    assert slow.streams[0].todo == []


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.bool_, np.dtype(">f4")])
@pytest.mark.parametrize("shape", [(3, 4), (2, 0, 5), (), (7,)])
def test_there_and_back(shape, dtype, slow):
    a = np.arange(int(np.prod(shape))).reshape(shape).astype(dtype)
    before = cuda.transfers()
    there = cuda.sending(a)()
    back = cuda.fetching(there)()
    assert np.subtract(cuda.transfers(), before).tolist() == [1, a.nbytes, 1, a.nbytes]
    assert back.shape == a.shape and back.dtype == a.dtype.newbyteorder("=") and np.array_equal(back, a)
    assert cuda.sending(there)() is there and cuda.fetching(back)() is back


def test_a_small_array_stands_in_line_and_the_host_does_not_wait(slow):
    a = cuda.to_device(np.arange(5.0))
    assert slow.log == [("to device", "kernels"), ("event", "kernels")] and len(slow.default.todo) == 1
    assert cuda.to_host(a + a).tolist() == [0, 2, 4, 6, 8] and slow.default.todo == []
    cuda.to_device(np.zeros(pinned.SMALL + 1, np.uint8))
    assert len(slow.log) == 2


def test_pinned_memory_of_small_arrays_is_not_written_to_early(slow):
    source, there = np.empty(6), []
    for n in range(3 * pinned._SMALL_ONES):
        source[...] = n
        there.append(cuda.to_device(source))
    assert slow.pinned == 1 and len(slow.default.todo) == pinned._SMALL_ONES
    for n, a in enumerate(there):
        assert cuda.to_host(a).tolist() == [n] * 6


def test_what_comes_back_is_the_callers_own(slow):
    first = cuda.fetching(cuda.to_device(np.zeros(4)))()
    cuda.fetching(cuda.to_device(np.ones(4)))()
    for _ in range(staging._MOST):
        cuda.fetching(cuda.to_device(np.ones(4)))()
    assert first.tolist() == [0, 0, 0, 0]


def test_an_array_that_is_no_array(slow):
    with pytest.raises(TypeError, match="a is a list; expected a NumPy array or a device array"):
        cuda.sending([1.0])
    with pytest.raises(TypeError, match="a is a list; expected a device array or a NumPy array"):
        cuda.fetching([1.0])


# ---- memory ----------------------------------------------------------------------------------------------------------


def test_the_source_may_be_changed_and_pinned_memory_is_not_written_to_early(slow):
    source = np.empty(6)
    under_way = []
    for n in range(3 * staging._MOST):
        source[...] = n
        under_way.append(cuda.sending(source))
    assert slow.pinned == staging._MOST
    # pieces are taken in turn: those of the last copies are not free yet, and only they
    assert len(slow.streams[0].todo) == 2 * staging._MOST
    for n, arrives in enumerate(under_way):
        assert cuda.to_host(arrives()).tolist() == [n] * 6


def test_pinned_memory_of_results_is_not_shared(slow):
    under_way = [cuda.fetching(cuda.to_device(np.full(6, n))) for n in range(2 * staging._MOST)]
    for n, arrives in reversed(list(enumerate(under_way))):
        assert arrives().tolist() == [n] * 6
    assert len(staging._pieces._free) == staging._pieces._made == staging._MOST


def test_a_larger_array_gets_a_larger_piece(slow):
    for size in (1, 10, 1000, 10):
        for _ in range(staging._MOST):
            assert cuda.to_host(cuda.sending(np.full(size, 1.0 * size))()).tolist() == [size] * size
    assert slow.pinned == 3 * staging._MOST


@pytest.mark.parametrize("begin", ["sending", "fetching"])
def test_memory_of_an_array_that_nobody_asked_for_is_given_back_behind_its_copy(begin, slow, monkeypatch):
    pool = array.Pool(array._allocate)
    monkeypatch.setattr(array, "_pool", pool)
    source = np.ones(100)
    under_way = cuda.sending(source) if begin == "sending" else cuda.fetching(cuda.to_device(source))
    gc.collect()
    slow.log.clear()
    order = []
    monkeypatch.setattr(array.Pool, "give_back", lambda *_: order.append([len(s.todo) for s in slow.streams]))
    del under_way
    gc.collect()
    assert order == [[0, 0]] and slow.log == [("wait", "kernels")]


def test_memory_that_is_full_leaves_the_pinned_pieces(slow, monkeypatch):
    def refuse(size, dtype):
        raise MemoryError(f"no room for {size} bytes")

    monkeypatch.setattr(slow, "pinned_array", refuse)
    for _ in range(2 * staging._MOST):
        with pytest.raises(MemoryError, match="no room for 32 bytes"):
            cuda.sending(np.ones(3))
    monkeypatch.setattr(slow, "pinned_array", np.empty)
    assert cuda.to_host(cuda.sending(np.ones(3))()).tolist() == [1, 1, 1]
    assert staging._pieces._made <= staging._MOST


# ---- training and prediction -----------------------------------------------------------------------------------------


def test_batches_are_sent_ahead_and_arrive_as_they_were_made(slow, rng):
    made = [(rng.random((2, 3)), [rng.random(4), rng.random(1)], {"truth": n}) for n in range(6)]
    before, source = cuda.transfers(), Source(made, "cuda", sent=2)
    for n in (0, 1, 2, 4, 5):  # 4: a step that was not expected
        pictures, others, truth = source.batch(n)
        assert truth is made[n][2]
        np.testing.assert_array_equal(cuda.to_host(pictures), made[n][0])
        for there, here in zip(others, made[n][1], strict=True):
            np.testing.assert_array_equal(cuda.to_host(there), here)
    source.close()
    assert np.subtract(cuda.transfers(), before)[0] >= 3 * 5
    # behind each event of the kernels one copy, whatever the thread
    copies = [what for what in slow.log if what != ("wait", "kernels")]
    assert copies == [("event", "kernels"), ("wait", "copies 0"), ("to device", "copies 0")] * (len(copies) // 3)


def test_batches_of_a_network_on_the_host_stay_there(slow):
    made = [(np.zeros(2), np.ones(2))] * 2
    source = Source(made, "cpu", sent=2)
    assert source.batch(0)[0] is made[0][0] and slow.log == []
    source.close()


def _trained(steps=2, **options):
    tinyseg.manual_seed(1)
    model = models.UNet(1, options.pop("classes", 1), (1, 2)).to("cuda")
    samples = [*data.SyntheticCells(2, 16, radius=(3, 5))]
    settings = {"steps": steps, "batch_size": 1, "crop": 4, "augment": "none", "progress": False}
    history = training.fit(model, samples, **settings, **options)
    return history.losses, [p.to("cpu").numpy() for p in model.parameters()]


def test_training_gives_the_same_bits_as_with_copies_in_line(slow, monkeypatch):
    losses, weights = _trained()
    assert ("to device", "copies 0") in slow.log
    slow.log.clear()
    monkeypatch.setattr("tinyseg.training.data_source.moving", _in_line)
    expected = _trained()
    assert ("to device", "copies 0") not in slow.log and losses == expected[0]
    for here, there in zip(weights, expected[1], strict=True):
        np.testing.assert_array_equal(here, there)


def test_dice_of_several_classes_takes_a_target_of_the_device(rng):
    logits, target = rng.standard_normal((2, 3, 1, 2)), rng.integers(0, 3, (2, 1, 2))
    loss = training.segmentation.dice_of_classes
    expected = loss(tinyseg.Tensor(logits), target).item()
    found = loss(tinyseg.Tensor(logits).to("cuda"), cuda.to_device(target)).item()
    assert abs(found - expected) < 1e-12


def test_a_nan_in_a_batch_on_the_device_is_named():
    picture = np.zeros((1, 1, 4, 4), np.float32)
    picture[0, 0, 1, 2] = np.nan
    find = training.diagnosis.find_not_finite
    for pictures in (cuda.to_device(picture), [cuda.to_device(picture[0])]):
        assert find(None, pictures, None) == "the pictures of the batch hold it already"


def test_tiles_go_and_come_back_while_others_are_computed(slow, monkeypatch):
    tinyseg.manual_seed(1)
    model = models.UNet(1, 1, (1,))
    side = smallest_tile(1)
    picture = np.random.default_rng(0).random((1, side, side + 2)).astype(np.float32)
    whole = predict(model, picture, tile=side)
    model.to("cuda")
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda x: slow.log.append(("network", "")) or forward(x))
    seen = []
    found = predict(model, picture, tile=side, before_tile=lambda *place: seen.append(place))
    tiles = len(seen)
    assert tiles > 1 and seen == [(n, tiles) for n in range(tiles)]
    order = [what for what, stream in slow.log if what not in ("event", "wait") and stream != "kernels"]
    middle = ["network", "to host"]
    assert order == ["to device", *["to device", *middle] * (tiles - 1), *middle]
    np.testing.assert_allclose(found, whole, rtol=1e-5, atol=1e-6)
    monkeypatch.setattr("tinyseg.evaluation.prediction.moving", _in_line)
    np.testing.assert_array_equal(predict(model, picture, tile=side), found)


def _in_line(a, device):
    there = moved(a, device)
    return lambda: there
