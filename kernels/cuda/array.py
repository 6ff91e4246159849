"""Arrays that live in the GPU's memory, and the only ways from and to the host."""

import functools
import gc
import math
import threading
from collections import defaultdict
from typing import NamedTuple

import numpy as np
from numba.types import int64

from kernels.cuda.device import SIMULATED, cuda, kernel, require
from kernels.cuda.pinned import SMALL, copy_small

#: Bytes that memory is handed out in multiples of: so pieces of about equal size serve each other.
_GRAIN = 512


class DeviceArray(np.lib.mixins.NDArrayOperatorsMixin):
    """An array in the GPU's memory: C-contiguous, of any of NumPy's number types.

    Nothing turns it into a NumPy array by itself: `to_host` does. Arithmetic, comparisons, indices, and some of NumPy's
    functions give device arrays: see ``arithmetic``, ``views`` and, for indices with arrays, ``rows``. But for another
    shape over the same elements, what they give is a copy.

    Parameters
    ----------
    raw : device array of numba.cuda, one axis
        Its elements in order, at least one.
    shape : tuple of int
        Its shape.

    Attributes
    ----------
    raw : device array
        What kernels take that index elements by one number.
    shape : tuple of int
    dtype : numpy.dtype
    """

    on_device = True  # kernels.checks tells by this

    def __init__(self, raw, shape):
        self.raw, self.shape, self.dtype = raw, tuple(shape), np.dtype(raw.dtype)

    @property
    def ndim(self):
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self):
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def itemsize(self):
        """Bytes of an element."""
        return self.dtype.itemsize

    @property
    def nbytes(self):
        """Bytes of all elements."""
        return self.size * self.dtype.itemsize

    @functools.cached_property
    def address(self):
        """Where its memory begins, for kernels that find arrays in a table."""
        return _address(self.raw)

    @property
    def nd(self):
        """What kernels take that index elements by one number for each axis. It has elements."""
        return self.raw[: self.size].reshape(self.shape)

    @property
    def flags(self):
        """How it lies in memory: ``flags.c_contiguous`` is True."""
        return _FLAGS

    @property
    def T(self):
        """A copy with the axes in reverse order."""
        return self.transpose()

    def __len__(self):
        if not self.shape:
            raise TypeError("len() of a device array without axes")
        return self.shape[0]

    def __repr__(self):
        return f"DeviceArray(shape={self.shape}, dtype={self.dtype})"

    __hash__ = object.__hash__  # not lost to ==, which compares elements

    def reshape(self, *shape):
        """Return an array of another shape over the same memory. One size may be -1: what is left for it."""
        shape = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape
        if -1 in shape:
            others = math.prod(size for size in shape if size != -1)
            shape = tuple(self.size // max(others, 1) if size == -1 else size for size in shape)
        if math.prod(shape) != self.size:
            raise ValueError(f"cannot reshape a device array of shape {self.shape} to {tuple(shape)}")
        return DeviceArray(self.raw, shape)

    # ---- to the host -----------------------------------------------------------------------------------------------

    def __array__(self, *_, **__):
        raise TypeError("a device array is not copied to the host unasked: use kernels.cuda.to_host(a)")

    def __reduce__(self):
        raise TypeError("a device array is not copied to the host unasked, for pickle: use kernels.cuda.to_host(a)")

    def item(self):
        """Return the only element as a Python number, copied to the host."""
        if self.size != 1:
            raise ValueError(f"item() of a device array of shape {self.shape}; expected exactly one element")
        return to_host(self).item()

    def __bool__(self):
        return bool(self.item())

    def __float__(self):
        return float(self.item())

    def __int__(self):
        return int(self.item())

    # ---- on the device: these files build on this one, so that they are loaded when first needed --------------------

    def __array_ufunc__(self, ufunc, method, *inputs, **how):
        from kernels.cuda import arithmetic

        return arithmetic.apply(ufunc, method, *inputs, **how)

    def __array_function__(self, function, types, args, parameters):
        from kernels.cuda import views

        return views.apply(function, args, parameters)

    def astype(self, dtype, order="K", copy=True):
        """Return the elements as another type: a copy, even of the same type, unless ``copy`` is False."""
        from kernels.cuda import arithmetic

        return arithmetic.astype(self, dtype, copy)

    def __getitem__(self, index):
        from kernels.cuda import views

        return views.get_item(self, index)

    def __setitem__(self, index, value):
        from kernels.cuda import views

        views.set_item(self, index, value)

    def picks(self, index):
        """Return an index with arrays, checked and copied to the device, in a form that serves several times.

        Parameters
        ----------
        index : tuple, list, ndarray or DeviceArray
            Arrays of whole numbers or bools, for neighbouring axes; numbers; and full slices or an ellipsis. Arrays of
            the device are copied to the host, where all are checked; the places that they name go to the device in one
            copy, and in another one when ``numpy.add.at`` first meets a place that is named several times.

        Returns
        -------
        Picks
            For arrays of this shape: ``a[picks]``, ``a[picks] = b``, ``numpy.add.at(a, picks, b)``.

        Raises
        ------
        TypeError, IndexError
            If the index holds anything else, or does not fit.
        """
        from kernels.cuda import views

        return views.picks(self, index)

    def copy(self):
        """Return a copy."""
        return np.copy(self)

    def __copy__(self):
        return np.copy(self)

    def __deepcopy__(self, memo):
        return np.copy(self)

    def transpose(self, *axes):
        """Return a copy with the axes in another order, given one by one or as a sequence; reversed if none is."""
        axes = axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes
        return np.transpose(self, axes or None) if isinstance(axes, tuple) else np.transpose(self, axes)

    def swapaxes(self, axis1, axis2):
        """Return a copy with two axes swapped."""
        return np.swapaxes(self, axis1, axis2)

    def ravel(self):
        """Return the elements along one axis, over the same memory."""
        return self.reshape(-1)

    def take(self, indices, axis=None):
        """Return the positions of an axis that a list names."""
        return np.take(self, indices, axis)

    def sum(self, axis=None, keepdims=False):
        """Return the sums along axes, or of all elements."""
        return np.sum(self, axis, keepdims=keepdims)

    def mean(self, axis=None, keepdims=False):
        """Return the means along axes, or of all elements."""
        return np.mean(self, axis, keepdims=keepdims)

    def max(self, axis=None, keepdims=False):
        """Return the largest values along axes, or of all elements; NaN where one is NaN."""
        return np.max(self, axis, keepdims=keepdims)

    def all(self, axis=None, keepdims=False):
        """Return whether all values along axes are true, or all of them."""
        return np.all(self, axis, keepdims=keepdims)


class _Flags(NamedTuple):
    c_contiguous: bool = True
    writeable: bool = True


_FLAGS = _Flags()


# ---- transfers -------------------------------------------------------------------------------------------------------


class Transfers(NamedTuple):
    """How often and how much was copied between host and device since the program started."""

    to_device: int
    to_device_bytes: int
    to_host: int
    to_host_bytes: int


_count = dict.fromkeys(Transfers._fields, 0)
_counting = threading.Lock()  # other threads may copy as well: see kernels.cuda.staging


def transfers():
    """Return the counts of all copies so far: two calls around some work show what it copied.

    Returns
    -------
    Transfers
    """
    with _counting:
        return Transfers(**_count)


def count_copy(way, size):
    """Count a copy of so many bytes, ``"to_device"`` or ``"to_host"``."""
    with _counting:
        _count[way] += 1
        _count[f"{way}_bytes"] += size


def to_device(a):
    """Return an array in the GPU's memory with the values of ``a``.

    The copy stands in line with the kernels. The host waits for it, and so for all kernels before it, unless the array
    is small: then it goes by way of pinned memory.

    Parameters
    ----------
    a : ndarray or DeviceArray
        What to copy. A device array is returned as it is.

    Returns
    -------
    DeviceArray

    Raises
    ------
    TypeError
        If ``a`` is something else.
    RuntimeError
        If there is no GPU, nor the simulator.
    MemoryError
        If the GPU's memory is full.
    """
    if isinstance(a, DeviceArray):
        return a
    if not isinstance(a, np.ndarray):
        raise TypeError(f"a is a {type(a).__name__}; expected a NumPy array or a device array")
    source = np.ascontiguousarray(a, a.dtype.newbyteorder("=")).reshape(-1)
    result = empty(a.shape, source.dtype)
    if 0 < source.nbytes <= SMALL:
        copy_small(result.raw[: source.size], source)
    elif source.size:
        result.raw[: source.size].copy_to_device(source)
    count_copy("to_device", source.nbytes)
    return result


def to_host(a):
    """Return a NumPy array with the values of ``a``, when all that computes them has run.

    Parameters
    ----------
    a : DeviceArray or ndarray
        What to copy. A NumPy array is returned as it is.

    Returns
    -------
    ndarray

    Raises
    ------
    TypeError
        If ``a`` is something else.
    """
    if isinstance(a, np.ndarray):
        return a
    if not isinstance(a, DeviceArray):
        raise TypeError(f"a is a {type(a).__name__}; expected a device array or a NumPy array")
    result = np.empty(a.shape, a.dtype)
    if a.size:
        result[...] = a.raw[: a.size].copy_to_host().reshape(a.shape)
    count_copy("to_host", result.nbytes)
    return result


def on_device(*arrays):
    """Return arrays on the device, in one tuple: NumPy arrays are copied there, None stays None."""
    return tuple(None if a is None else to_device(a) for a in arrays)


# ---- memory ----------------------------------------------------------------------------------------------------------


class Pool:
    """Memory that is used again when an array has died: asking the driver for it takes longer than most kernels.

    Work on the GPU runs in the order in which it was started, so memory may have a new owner while kernels of the old
    one are still to run.

    Parameters
    ----------
    allocate : callable
        Takes a number of bytes and returns a buffer; raises MemoryError where there is no room.
    room : callable
        Returns how many bytes of the memory are free, and all that it has; None where nobody tells.
    """

    def __init__(self, allocate, room=lambda: None):
        self._allocate, self._room = allocate, room
        self._free = defaultdict(list)  # by size
        self._held = 0
        self._lock = threading.RLock()  # collecting garbage within may give buffers back

    def take(self, size):
        """Return a buffer of at least ``size`` bytes, and its size.

        Raises
        ------
        MemoryError
            If there is no room for it, not even without the buffers that wait: how much was asked for, and what the
            rest is taken by.
        """
        asked, size = size, rounded(size)
        with self._lock:
            waiting = self._free[size]
            if waiting:
                self._held += size
                return waiting.pop(), size
        try:
            buffer = self._allocate(size)
        except MemoryError:
            buffer = self._allocated_at_last(asked, size)
        with self._lock:
            self._held += size
        return buffer, size

    def _allocated_at_last(self, asked, size):
        """Return a buffer after all that can be spared was let go."""
        gc.collect()  # arrays in circles of references, such as those of a traceback
        self.release()  # what waits in other sizes
        try:
            return self._allocate(size)
        except MemoryError:
            room = self._room()
        free = "" if room is None else f", where {_amount(room[0])} of {_amount(room[1])} are free"
        raise MemoryError(
            f"no room for an array of {_amount(asked)} in the GPU's memory{free}; this program's arrays hold "
            f"{_amount(self._held)} of it"
        )

    def give_back(self, buffer, size):
        """Keep a buffer for its next use."""
        with self._lock:
            self._free[size].append(buffer)
            self._held -= size

    def release(self):
        """Let go of all buffers that wait."""
        with self._lock:
            self._free.clear()

    def waiting(self):
        """Return the bytes of all buffers that wait."""
        with self._lock:
            return sum(size * len(buffers) for size, buffers in list(self._free.items()))

    def held(self):
        """Return the bytes of all buffers that are in use."""
        return self._held


def _amount(size):
    """Return a number of bytes in words."""
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} bytes"


def rounded(size):
    """Return a size of memory to ask for: one of eight between powers of two, so that few kinds are left over."""
    size = max(size, 1)
    step = max(_GRAIN, 1 << max(0, size.bit_length() - 4))
    return -(-size // step) * step


#: By this name, since the simulator puts another ``cuda`` into a file while a kernel of it runs, in all threads.
_device_array = cuda.device_array


def _allocate(size):
    """Ask the driver for memory."""
    try:
        return _device_array(size, np.uint8)
    except Exception as error:
        if "OUT_OF_MEMORY" in str(error).upper() or getattr(error, "code", None) == 2:
            raise MemoryError from None
        raise


def _room():
    """Return how many bytes of the GPU's memory are free, and how many it has, if the driver tells."""
    try:
        return tuple(cuda.current_context().get_memory_info())
    except Exception:  # the simulator has none; and a driver in trouble shall not hide what the trouble was
        return None


_pool = Pool(_allocate, _room)


def _address(raw):
    """Return where an array of numba.cuda begins; the simulator's lie in the host's memory."""
    return raw.ctypes.data if SIMULATED else raw.__cuda_array_interface__["data"][0]


class _Lease:
    """Shows a buffer to numba.cuda as an array; as long as one of its views lives, so does the lease."""

    def __init__(self, pool, count, dtype):
        self._pool = pool
        self._buffer, self._size = pool.take(count * dtype.itemsize)
        pointer = _address(self._buffer)
        interface = {"shape": (count,), "typestr": dtype.str, "data": (pointer, False), "strides": None, "version": 3}
        setattr(self, "__array_interface__" if SIMULATED else "__cuda_array_interface__", interface)

    def __del__(self):
        if hasattr(self, "_size"):  # not where there was no room
            self._pool.give_back(self._buffer, self._size)


def _leased(count, dtype):
    """Return memory for ``count`` elements, as an array of numba.cuda."""
    lease = _Lease(_pool, count, dtype)
    if SIMULATED:
        from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray

        return FakeCUDAArray(np.asarray(lease))
    return cuda.as_cuda_array(lease, sync=False)


def empty(shape, dtype):
    """Return a device array of any content, whose memory is used again when its last view has died.

    Parameters
    ----------
    shape : sequence of int
        Its shape.
    dtype : dtype
        Its type.

    Returns
    -------
    DeviceArray

    Raises
    ------
    RuntimeError
        If there is no GPU, nor the simulator.
    MemoryError
        If the GPU's memory is full: how much was asked for, and what is free or held by other arrays.
    """
    require()
    shape, dtype = tuple(shape), np.dtype(dtype)
    return DeviceArray(_leased(max(math.prod(shape), 1), dtype), shape)


def release_memory():
    """Give memory that waits for its next use back to the driver."""
    _pool.release()


def zeros(shape, dtype):
    """Return a device array of zeros.

    Parameters
    ----------
    shape : sequence of int
        Its shape.
    dtype : dtype
        float32 or float64.

    Returns
    -------
    DeviceArray

    Raises
    ------
    RuntimeError, MemoryError
        As in `empty`.
    """
    a = empty(shape, dtype)
    _zeros_kernel.over(a.size, a.raw, a.size)
    return a


@kernel(lambda T: (T[::1], int64))
def _zeros_kernel(a, count):
    for i in range(cuda.grid(1), count, cuda.gridsize(1)):
        a[i] = 0
