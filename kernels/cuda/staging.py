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

from functools import cache

import numpy as np

from kernels.cuda.array import DeviceArray, count_copy, empty
from kernels.cuda.device import attach_thread, copy_stream, cuda, require
from kernels.cuda.pinned import Pieces

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
    piece = _pieces.take(there.nbytes)
    try:
        piece.view(there)[...] = a
        done = _copied(_streams()[0], lambda stream: _raw(there).copy_to_device(piece.line(there), stream=stream))
        piece.done = done
    finally:
        _pieces.put(piece)
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
    piece = _pieces.take(a.nbytes)
    try:
        piece.done = _copied(_streams()[1], lambda stream: _raw(a).copy_to_host(piece.line(a), stream=stream))
    except BaseException:
        _pieces.put(piece)
        raise
    return _Fetched(a, piece)


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

    def __init__(self, array, piece):
        self._array, self._piece, self._here = array, piece, None

    def __call__(self):
        if self._piece is not None:
            piece, array = self._piece, self._array
            piece.done.synchronize()
            self._here = piece.view(array).copy()
            self._piece = self._array = None
            _pieces.put(piece)
        return self._here

    def __del__(self):
        if self._piece is not None:
            self._piece.done.wait()  # the array's memory is given back now
            _pieces.put(self._piece)


_pieces = Pieces(_MOST)
