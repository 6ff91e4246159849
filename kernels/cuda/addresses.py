"""Many arrays in one launch: the parameters of a network, of which hundreds are small.

A launch takes as long as the GPU needs for a million numbers, so one for each parameter would be most of a step. The
kernels of this kind take a table instead, on the device: for each array its size, and the address where it begins in
each of some lists (parameters, gradients, ...). The arrays count as one long line that is cut into parts of fixed
length; a block looks up which array its part lies in, and its threads go through the part, neighbours side by side.

Numba has no arrays of arrays, so the kernels read and write by address. The table is copied to the device when
addresses are new. Mostly they are not: parameters stay where they are, and gradients come to lie where those of the
last steps lay, as memory is used again in turn. Sizes and addresses come from the arrays themselves, after the checks,
so none leads beyond its array.
"""

import ctypes

import numpy as np
from numba import types

from kernels.cuda.array import to_device
from kernels.cuda.device import SIMULATED, THREADS, cuda, device_function, tile

#: Threads of a block, numbers of a part, and blocks at most.
PART_THREADS, PART, _BLOCKS = tile(THREADS, 4), tile(2048, 16), tile(4096, 3)
#: How many tables are kept for their next use.
_KEPT = 32

_tables: dict = {}


def launch(kernel, lists, dtype, *arguments):
    """Start a kernel for lists of arrays, of one length and of equal sizes, if there are any numbers in them.

    Parameters
    ----------
    kernel : Kernel
        Takes the table, the number of arrays and of parts, then ``arguments``.
    lists : sequence of sequence of DeviceArray
        The arrays, which the caller holds until this returns.
    dtype : dtype
        The type of all.
    *arguments
        What else the kernel takes.
    """
    filled = [arrays for arrays in zip(*lists, strict=True) if arrays[0].size]
    if filled:
        sizes = np.array([arrays[0].size for arrays in filled])
        ends = np.cumsum(-(-sizes // PART))
        parts = int(ends[-1])
        starts = np.concatenate([[0], ends[:-1]])
        addresses = np.array([[a.address for a in arrays] for arrays in filled], np.int64).T
        table = _on_device(np.concatenate([[starts, sizes], addresses]).astype(np.int64, copy=False))
        kernel.run(blocks_of(parts), PART_THREADS, table.raw, len(filled), parts, *arguments, dtype=dtype)


def parts_of_arrays(arrays):
    """Return how many parts arrays are cut into."""
    return sum(-(-a.size // PART) for a in arrays)


def blocks_of(parts):
    """Return how many blocks take them, in turns; the same on every GPU."""
    return min(parts, _BLOCKS)


def _on_device(table):
    key = table.tobytes()
    there = _tables.get(key)
    if there is None:
        while len(_tables) >= _KEPT:
            del _tables[next(iter(_tables))]  # the oldest
        there = _tables[key] = to_device(table)
    return there


@device_function
def array_of(table, arrays, part):
    """Return the number of the array that a part lies in: the last one that begins there or before."""
    low, high = 0, arrays - 1
    while low < high:
        middle = (low + high + 1) // 2
        if table[middle] <= part:
            low = middle
        else:
            high = middle - 1
    return low


@device_function
def bounds(table, arrays, number, part):
    """Return where a part begins and ends in its array."""
    start = (part - table[number]) * PART
    return start, min(start + PART, table[arrays + number])


@device_function
def address(table, arrays, number, which):
    """Return where an array of the list ``which`` begins."""
    return table[(2 + which) * arrays + number]


def memory(T):
    """Return the functions ``load(address, i)`` and ``store(address, i, value)`` for numbers of type T."""
    if SIMULATED:
        return _simulated_memory(T)
    from llvmlite import ir  # not needed elsewhere

    intrinsic = cuda.extending.intrinsic

    def place(context, builder, address, i):
        pointer = ir.PointerType(context.get_value_type(T), addrspace=1)  # 1: global memory
        return builder.gep(builder.inttoptr(address, pointer), [i])

    @intrinsic
    def load(_, address, i):
        def generate(context, builder, signature, arguments):
            return builder.load(place(context, builder, *arguments))

        return T(types.int64, types.int64), generate

    @intrinsic
    def store(_, address, i, value):
        def generate(context, builder, signature, arguments):
            builder.store(arguments[2], place(context, builder, *arguments[:2]))
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, T), generate

    return load, store


def _simulated_memory(T):
    """Return the same for the simulator, whose arrays lie in the host's memory."""
    kind = {types.float32: ctypes.c_float, types.float64: ctypes.c_double}[T]
    size = ctypes.sizeof(kind)

    def load(address, i):
        return T(kind.from_address(int(address + i * size)).value)

    def store(address, i, value):
        kind.from_address(int(address + i * size)).value = value

    return load, store
