"""Memory of the host that a GPU reads and writes by itself, so that the host need not wait for a copy."""

import threading
from collections import deque

import numpy as np

from kernels.cuda.device import attach_thread, cuda, default_stream

#: Bytes that `copy_small` takes at most, and how many copies of it may be on their way.
SMALL, _SMALL_ONES = 1 << 16, 64


class Piece:
    """A piece of pinned memory.

    Attributes
    ----------
    memory : ndarray of uint8
        The piece.
    done : event or None
        That the last copy from or to it has ended.
    """

    def __init__(self, memory):
        self.memory, self.done = memory, None

    def line(self, like):
        """Return room for the elements of an array, along one axis."""
        return self.memory[: like.nbytes].view(like.dtype)

    def view(self, like):
        """Return room for the elements of an array, in its shape."""
        return self.line(like).reshape(like.shape)


class Pieces:
    """Pieces that are used in turn: asking the driver for one takes longer than most copies.

    Parameters
    ----------
    most : int
        Pieces that are kept. Where all are in use, another one is made.
    size : int
        Bytes of each to begin with; all are made in one go when the first is asked for. With 0 they are made one by
        one.
    """

    def __init__(self, most, size=0):
        self._most, self._size, self._made = most, size, 0
        self._free: deque = deque()
        self._lock = threading.RLock()  # collecting garbage within may put pieces back

    def take(self, size):
        """Return a piece of at least ``size`` bytes that no copy reads or writes any more, for the caller alone."""
        piece = self._oldest()
        try:
            if piece.done is not None:
                piece.done.synchronize()
            if piece.memory.nbytes < size:
                piece.memory = np.empty(0, np.uint8)  # first give back what is too small
                piece.memory = cuda.pinned_array(1 << (size - 1).bit_length(), np.uint8)
        except BaseException:
            self.put(piece)
            raise
        return piece

    def _oldest(self):
        """Return a new piece while there are few, or else that which was put back first."""
        with self._lock:
            if self._size and not self._made:
                block = cuda.pinned_array(self._most * self._size, np.uint8).reshape(self._most, self._size)
                self._free.extend(map(Piece, block))
                self._made = self._most
            if self._made >= self._most and self._free:
                return self._free.popleft()
            self._made += 1
            return Piece(np.empty(0, np.uint8))

    def put(self, piece):
        """Take a piece back, whose copy may still be under way."""
        with self._lock:
            if len(self._free) < self._most:
                self._free.append(piece)
                return
            self._made -= 1
        if piece.done is not None:
            piece.done.synchronize()


#: Apart from those of ``staging``, whose copies may take long.
_small = Pieces(_SMALL_ONES, SMALL)


def copy_small(there, source):
    """Copy a line of at most `SMALL` bytes to the device, in line with the kernels; the host does not wait.

    A copy from ordinary memory would wait until all kernels have run: boxes and tables between two layers would stop
    the host, and soon after it the GPU. Copy and kernels are of one stream, so nothing has to be said about their
    order; but the piece of pinned memory is not written to again before the copy has read it.
    """
    attach_thread()
    piece = _small.take(source.nbytes)
    try:
        piece.line(source)[...] = source
        there.copy_to_device(piece.line(source), stream=default_stream())
        piece.done = cuda.event()
        piece.done.record()
    finally:
        _small.put(piece)
