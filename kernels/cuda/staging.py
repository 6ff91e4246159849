"""Copies between host and device that run while kernels compute: through pinned memory, on streams of their own.

`to_device` and `to_host` stand in line with the kernels, and the host waits for them. `sending` and `fetching` return
at once: what was started before goes on computing, and the host too, until the array is asked for. Four rules keep the
results those of copies in line, bit for bit:

1. A copy waits for everything that was started before it: memory that `empty` hands out may have had an owner whose
   kernels are still to run, and what is fetched has to be computed first. So an array is best sent before the work
   that shall hide the copy is started.
2. What is started after the array was asked for waits for the copy, as a stream waits: the host goes on.
3. Pinned memory is written to again when the copy from or to it has ended, and not before.
4. An array that nobody asked for gives its memory back behind its copy, too.

Kernels run on the default stream. The streams of the copies are made such that they do not wait for it by themselves:
those that ``cuda.stream()`` makes do, which would undo all of this. None of it has been timed on a GPU yet;
``python -m benchmarks gpu --only overlap`` will.
"""

import threading
from collections import deque
from functools import cache

import numpy as np

from kernels.cuda.array import DeviceArray, count_copy, empty, rounded
from kernels.cuda.device import attach_thread, copy_stream, cuda, require

#: Pieces of pinned memory that are kept: one is filled while another is copied, in each direction.
_MOST = 4


def sending(a):
    """Begin to copy an array to the device.

    Parameters
    ----------
    a : ndarray or DeviceArray
        What to copy; it may be changed as soon as this returns. A device array is given as it is.

    Returns
    -------
    callable
        Without arguments; gives the `DeviceArray`, to be used by what is started from then on. Any thread may begin
        to send; the one that computes asks.

    Raises
    ------
    TypeError
        If ``a`` is something else.
    RuntimeError
        If there is no GPU, nor the simulator.
    MemoryError
        If the GPU's memory is full.

    Examples
    --------
    >>> arrives = sending(next_batch)  # doctest: +SKIP
    >>> y = cuda.relu_forward(batch)  # doctest: +SKIP
    >>> batch = arrives()  # doctest: +SKIP
    """
    if isinstance(a, DeviceArray):
        return lambda: a
    if not isinstance(a, np.ndarray):
        raise TypeError(f"a is a {type(a).__name__}; expected a NumPy array or a device array")
    require()
    attach_thread()
    there = empty(a.shape, a.dtype.newbyteorder("="))
    count_copy("to_device", there.nbytes)
    if not a.size:
        return lambda: there
    stage = _stages.take(there.nbytes)
    try:
        stage.view(there)[...] = a
        done = _copied(_streams()[0], lambda stream: _raw(there).copy_to_device(stage.line(there), stream=stream))
        stage.done = done
    finally:
        _stages.put(stage)
    return _Sent(there, done)


def fetching(a):
    """Begin to copy an array to the host, once it is computed.

    Parameters
    ----------
    a : DeviceArray or ndarray
        What to copy, which must not be changed in place until it has arrived. A NumPy array is given as it is.

    Returns
    -------
    callable
        Without arguments; waits for the copy and gives the array.

    Raises
    ------
    TypeError
        If ``a`` is something else.
    MemoryError
        If there is no room for pinned memory.
    """
    if isinstance(a, np.ndarray):
        return lambda: a
    if not isinstance(a, DeviceArray):
        raise TypeError(f"a is a {type(a).__name__}; expected a device array or a NumPy array")
    count_copy("to_host", a.nbytes)
    if not a.size:
        return lambda: np.empty(a.shape, a.dtype)
    stage = _stages.take(a.nbytes)
    try:
        stage.done = _copied(_streams()[1], lambda stream: _raw(a).copy_to_host(stage.line(a), stream=stream))
    except BaseException:
        _stages.put(stage)
        raise
    return _Fetched(a, stage)


@cache
def _streams():
    """Return the streams of copies to the device and back: a GPU does both at once."""
    return copy_stream(), copy_stream()


def _raw(a):
    return a.raw[: a.size]


def _copied(stream, start):
    """Start a copy behind all that was started so far; return an event that it has ended."""
    before, done = cuda.event(), cuda.event()
    before.record()
    before.wait(stream)
    start(stream)
    done.record(stream)
    return done


class _Sent:
    """An array on its way to the device.

    The default stream waits for the copy once: when the array is asked for, or else when its memory is given back.
    """

    def __init__(self, array, done):
        self._array, self._done = array, done

    def __call__(self):
        done, self._done = self._done, None
        if done is not None:
            done.wait()
        return self._array

    def __del__(self):
        self()


class _Fetched:
    """An array on its way to the host."""

    def __init__(self, array, stage):
        self._array, self._stage, self._here = array, stage, None

    def __call__(self):
        if self._stage is not None:
            stage, array = self._stage, self._array
            stage.done.synchronize()
            self._here = stage.view(array).copy()
            self._stage = self._array = None
            _stages.put(stage)
        return self._here

    def __del__(self):
        if self._stage is not None:
            self._stage.done.wait()  # the array's memory is given back now
            _stages.put(self._stage)


# ---- pinned memory ---------------------------------------------------------------------------------------------------


class _Stage:
    """A piece of pinned memory, and the event that the last copy from or to it has ended."""

    def __init__(self):
        self.memory, self.done = np.empty(0, np.uint8), None

    def line(self, like):
        """Return room for the elements of an array, along one axis."""
        return self.memory[: like.nbytes].view(like.dtype)

    def view(self, like):
        """Return room for the elements of an array, in its shape."""
        return self.line(like).reshape(like.shape)


class Stages:
    """Pieces of pinned memory: asking for one takes the driver longer than most copies.

    Parameters
    ----------
    most : int
        Pieces that are kept. Where all are in use, another one is made.
    """

    def __init__(self, most):
        self._most, self._made = most, 0
        self._free: deque = deque()
        self._lock = threading.RLock()  # collecting garbage within may put pieces back

    def take(self, size):
        """Return a piece of at least ``size`` bytes that no copy reads or writes any more, for the caller alone."""
        with self._lock:
            new = self._made < self._most or not self._free
            self._made += new
            stage = _Stage() if new else self._free.popleft()  # that which has waited longest
        try:
            if stage.done is not None:
                stage.done.synchronize()
            if stage.memory.nbytes < size:
                stage.memory = np.empty(0, np.uint8)  # first give back what is too small
                stage.memory = cuda.pinned_array(rounded(size), np.uint8)
        except BaseException:
            self.put(stage)
            raise
        return stage

    def put(self, stage):
        """Take a piece back, whose copy may still be under way."""
        with self._lock:
            if len(self._free) < self._most:
                self._free.append(stage)
            else:
                self._made -= 1
                if stage.done is not None:
                    stage.done.synchronize()


_stages = Stages(_MOST)
