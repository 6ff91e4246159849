"""What a kernel finds under the name ``cuda`` when `cuda_trace` runs it."""

import operator
import sys
from typing import Any

import numpy as np

from tinyseg.explain.cuda.arrays import Memory, TracedArray, assigned_name, position
from tinyseg.explain.cuda.threads import WARP, Barrier

_ALL_LANES = 0xFFFFFFFF


class Sizes:
    """``cuda.gridDim`` and ``cuda.blockDim``: three numbers."""

    def __init__(self, sizes):
        self.x, self.y, self.z = sizes


class Place:
    """``cuda.threadIdx`` and ``cuda.blockIdx``: three numbers, which are others for each thread that runs."""

    def __init__(self, log, name):
        self._log, self._name = log, name

    x = property(lambda self: getattr(self._log.thread, self._name)[0])
    y = property(lambda self: getattr(self._log.thread, self._name)[1])
    z = property(lambda self: getattr(self._log.thread, self._name)[2])


class Grid:
    """The functions and values of ``numba.cuda`` that kernels use.

    Parameters
    ----------
    log : Log
        Where accesses are noted; it knows the thread that runs.
    workers : Workers
        What threads wait in.
    grid, block : (int, int, int)
        Blocks of the grid, threads of a block.
    shared_bytes : int
        Size of the dynamic shared memory.
    by_address : dict of int to TracedArray
        Arrays that are no arguments.
    """

    warpsize = WARP

    def __init__(self, log, workers, grid, block, shared_bytes, by_address):
        self._log, self._workers, self._by_address = log, workers, by_address
        self._grid, self._block = grid, block
        self.gridDim, self.blockDim = Sizes(grid), Sizes(block)
        self.threadIdx, self.blockIdx = Place(log, "index"), Place(log, "block")
        self.shared, self.local, self.const = _Shared(log, shared_bytes), _Local(log), _Constant(log)
        self.atomic, self.libdevice = _Atomic(), _LibDevice()

    def __getattr__(self, name):
        raise AttributeError(f"cuda_trace does not know cuda.{name}")

    def range(self, *numbers):
        """Return what takes the place of Python's range."""
        return Range(self._log, *numbers)

    def at_address(self, address):
        """Return the array, none of the arguments, that begins at an address."""
        return self._by_address[int(address)]

    # ---- who am I

    laneid = property(lambda self: self._log.thread.lane)

    def grid(self, axes):
        """Return the thread's place in the grid."""
        thread = self._log.thread
        places = tuple(b * size + t for b, size, t in zip(thread.block, self._block, thread.index, strict=True))
        return places[0] if axes == 1 else places[:axes]

    def gridsize(self, axes):
        """Return the threads of the grid along each axis."""
        sizes = tuple(blocks * size for blocks, size in zip(self._grid, self._block, strict=True))
        return sizes[0] if axes == 1 else sizes[:axes]

    # ---- barriers

    def _meet(self, scope, mask, name, value, answer):
        place = position(sys._getframe(2).f_code, sys._getframe(2).f_lasti)
        return self._workers.wait(Barrier(scope, place, mask, name, value, answer))

    def syncthreads(self):
        """Wait for the block."""
        self._meet("block", 0, "syncthreads", None, lambda thread, values: None)

    def syncthreads_count(self, predicate):
        """Wait for the block; return how many threads' predicate is true."""
        return self._meet("block", 0, "syncthreads_count", bool(predicate), lambda thread, values: sum(values.values()))

    def syncthreads_and(self, predicate):
        """Wait for the block; return whether all predicates are true."""
        return self._meet(
            "block", 0, "syncthreads_and", bool(predicate), lambda thread, values: int(all(values.values()))
        )

    def syncthreads_or(self, predicate):
        """Wait for the block; return whether any predicate is true."""
        return self._meet(
            "block", 0, "syncthreads_or", bool(predicate), lambda thread, values: int(any(values.values()))
        )

    def syncwarp(self, mask=_ALL_LANES):
        """Wait for the lanes of the mask."""
        self._meet("warp", int(mask), "syncwarp", None, lambda thread, values: None)

    def _shuffle(self, name, mask, value, source):
        """Return what another lane brought; ``source`` is a function of the own lane."""

        def answer(thread, values):
            lane = source(thread.lane)
            return values[lane] if 0 <= lane < WARP and lane in values else values[thread.lane]

        place = position(sys._getframe(2).f_code, sys._getframe(2).f_lasti)
        return self._workers.wait(Barrier("warp", place, int(mask), name, value, answer))

    def shfl_sync(self, mask, value, source):
        """Return the value of lane ``source``."""
        return self._shuffle("shfl_sync", mask, value, lambda lane: int(source) % WARP)

    def shfl_up_sync(self, mask, value, distance):
        """Return the value of a lane before this one."""
        return self._shuffle("shfl_up_sync", mask, value, lambda lane: lane - int(distance))

    def shfl_down_sync(self, mask, value, distance):
        """Return the value of a lane after this one."""
        return self._shuffle("shfl_down_sync", mask, value, lambda lane: lane + int(distance))

    def shfl_xor_sync(self, mask, value, bits):
        """Return the value of the lane whose number differs in ``bits``."""
        return self._shuffle("shfl_xor_sync", mask, value, lambda lane: lane ^ int(bits))

    def ballot_sync(self, mask, predicate):
        """Return a number with a bit set for each lane whose predicate is true."""
        return self._meet(
            "warp", int(mask), "ballot_sync", bool(predicate),
            lambda thread, values: sum(1 << lane for lane, true in values.items() if true),
        )  # fmt: skip

    def all_sync(self, mask, predicate):
        """Return whether the predicate is true in all lanes."""
        return self._meet("warp", int(mask), "all_sync", bool(predicate), lambda _, values: int(all(values.values())))

    def any_sync(self, mask, predicate):
        """Return whether the predicate is true in any lane."""
        return self._meet("warp", int(mask), "any_sync", bool(predicate), lambda _, values: int(any(values.values())))

    def threadfence(self):
        """Do nothing: memory keeps the order of the program here."""

    threadfence_block = threadfence_system = threadfence

    def nanosleep(self, ns):
        """Do nothing."""

    # ---- arithmetic

    @staticmethod
    def popc(x):
        """Return the number of bits set."""
        return int(x % (1 << 64) if isinstance(x, int) else x.view(f"u{x.itemsize}")).bit_count()

    @staticmethod
    def clz(x):
        """Return the number of zero bits before the first one; of 32 bits for Python's numbers."""
        bits = 8 * getattr(x, "itemsize", 4)
        return bits - (int(x) % (1 << bits)).bit_length()

    @staticmethod
    def ffs(x):
        """Return the place of the last bit set, counted from 1; 0 where there is none."""
        x = int(x)
        return (x & -x).bit_length()

    @staticmethod
    def brev(x):
        """Return the bits in reverse."""
        bits = 8 * getattr(x, "itemsize", 4)
        value = int(f"{int(x) % (1 << bits):0{bits}b}"[::-1], 2)
        return value if isinstance(x, int) else np.array(value, f"u{x.itemsize}").view(x.dtype)[()]

    @staticmethod
    def fma(a, b, c):
        """Return ``a * b + c``, rounded once for float32."""
        if isinstance(a, np.float32) and isinstance(c, np.float32):
            return np.float32(np.float64(a) * np.float64(b) + np.float64(c))
        return a * b + c

    @staticmethod
    def cbrt(x):
        """Return the cube root."""
        return np.cbrt(x)

    @staticmethod
    def selp(condition, a, b):
        """Return ``a`` where the condition holds, else ``b``."""
        return a if condition else b


class Range:
    """``range``, which notes in what round a thread is: so threads of a warp are seen side by side though some skip.

    Parameters
    ----------
    log : Log
        It knows the thread that runs.
    *numbers : int
        As for ``range``.
    """

    def __init__(self, log, *numbers):
        self._log, self._numbers = log, range(*numbers)

    def __len__(self):
        return len(self._numbers)

    def __getitem__(self, index):
        return self._numbers[index]

    def __iter__(self):
        log, thread = self._log, self._log.thread
        outer = thread.rounds
        try:
            for number, value in enumerate(self._numbers):
                thread.rounds = log.rounds(outer, number)
                yield value
        finally:  # also after break and return, which let go of this at once
            thread.rounds = outer


# ---- memory ----------------------------------------------------------------------------------------------------------


def numpy_type(dtype):
    """Return the NumPy type for one of NumPy's or Numba's."""
    try:
        return np.dtype(dtype)
    except TypeError:
        return np.dtype(str(dtype))  # Numba's types are called as NumPy's are


def _values(shape, dtype):
    """Return an array whose elements show that nothing was written to them, where the type can: NaN."""
    shape = tuple(int(size) for size in shape) if isinstance(shape, tuple | list) else (int(shape),)
    dtype = numpy_type(dtype)
    return np.full(shape, np.nan if dtype.kind in "fc" else 0, dtype)


class _Shared:
    """``cuda.shared``: one array for each block and each place in the source."""

    def __init__(self, log, size):
        self._log, self._size = log, size
        self._memories: dict = {}
        self._arrays: dict = {}

    def new_block(self):
        """Forget the arrays of the block before."""
        self._arrays = {}

    def array(self, shape, dtype, alignment=None):
        """Return the block's array of this place."""
        dynamic = shape in (0, (0,))
        place = "dynamic" if dynamic else self._log.place(1)
        frame = sys._getframe(1)
        name = assigned_name(frame.f_code, frame.f_lasti, "shared")
        if place not in self._memories:
            what = "dynamic" if dynamic else name
            self._memories[place] = Memory(what, "shared", numpy_type(dtype).itemsize, alignment)
        if place not in self._arrays:
            if dynamic:
                self._arrays[place] = np.zeros(self._size, np.uint8), None
            else:
                values = _values(shape, dtype)
                self._arrays[place] = values, np.zeros(values.shape, bool)
        values, filled = self._arrays[place]
        if dynamic:
            dtype = numpy_type(dtype)
            values = values[: self._size // dtype.itemsize * dtype.itemsize].view(dtype)
        return TracedArray(self._log, self._memories[place], values, name, 0, filled)


class _Local:
    """``cuda.local``: an array for each thread."""

    def __init__(self, log):
        self._log = log
        self._memory = Memory("local", "local", 0)

    def array(self, shape, dtype, alignment=None):
        """Return a new array."""
        frame = sys._getframe(1)
        values, name = _values(shape, dtype), assigned_name(frame.f_code, frame.f_lasti, "local")
        return TracedArray(self._log, self._memory, values, name, 0, np.zeros(values.shape, bool))


class _Constant:
    """``cuda.const``: arrays that the compiler puts beside the kernel."""

    def __init__(self, log):
        self._log = log
        self._memory = Memory("constant", "constant", 0)

    def array_like(self, values):
        """Return an array of the same values, which cannot be written to."""
        frame = sys._getframe(1)
        return self.traced(values, assigned_name(frame.f_code, frame.f_lasti, "constant"))

    def traced(self, values, name):
        """Return a traced array of the same values and that name."""
        values = np.array(values)
        values.flags.writeable = False
        return TracedArray(self._log, self._memory, values, name)


class _Atomic:
    """``cuda.atomic``: each function returns what was there before."""

    def __getattr__(self, name):
        raise AttributeError(f"cuda_trace does not know cuda.atomic.{name}")

    def compare_and_swap(self, array, old, value):
        """Put ``value`` in element 0 where it is ``old``."""
        return array.change((0,) * array.ndim, lambda now: value if now == old else now)

    def cas(self, array, index, old, value):
        """Put ``value`` where ``old`` is."""
        return array.change(index, lambda now: value if now == old else now)


def _atomic(function):
    def change(self, array, index, value):
        value = int(value) if isinstance(value, np.integer) else value  # which do not overflow
        return array.change(index, lambda old: function(old, value))

    return change


for _name, _function in {
    "add": lambda old, value: old + value,
    "sub": lambda old, value: old - value,
    "and_": lambda old, value: old & value,
    "or_": lambda old, value: old | value,
    "xor": lambda old, value: old ^ value,
    "exch": lambda old, value: value,
    "inc": lambda old, value: 0 if old >= value else old + 1,
    "dec": lambda old, value: value if old == 0 or old > value else old - 1,
    "max": lambda old, value: value if value > old else old,
    "min": lambda old, value: value if value < old else old,
    "nanmax": lambda old, value: value if value > old or old != old else old,
    "nanmin": lambda old, value: value if value < old or old != old else old,
}.items():
    setattr(_Atomic, _name, _atomic(_function))


class _LibDevice:
    """``cuda.libdevice``: arithmetic by the names of CUDA's own library, those that kernels are likely to use."""

    def __getattr__(self, name):
        raise AttributeError(f"cuda_trace does not know cuda.libdevice.{name}")


_ROUNDED: dict[str, Any] = {
    "mul": operator.mul,
    "add": operator.add,
    "sub": operator.sub,
    "div": operator.truediv,
    "sqrt": np.sqrt,
}
_MATHEMATICS: dict[str, Any] = {
    "exp": np.exp, "log": np.log, "sqrt": np.sqrt, "floor": np.floor, "ceil": np.ceil, "rint": np.rint, "fabs": np.abs,
    "tanh": np.tanh, "fmin": np.fmin, "fmax": np.fmax, "pow": np.power, "fma": Grid.fma,
    "rsqrt": lambda x: 1 / np.sqrt(x),
}  # fmt: skip
for _name in _ROUNDED:  # "rn": to the nearest, as NumPy does
    setattr(_LibDevice, f"f{_name}_rn", staticmethod(_ROUNDED[_name]))
    setattr(_LibDevice, f"d{_name}_rn", staticmethod(_ROUNDED[_name]))
for _name in _MATHEMATICS:
    for _variant in (_name, f"{_name}f", f"fast_{_name}f"):
        setattr(_LibDevice, _variant, staticmethod(_MATHEMATICS[_name]))
