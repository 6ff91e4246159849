"""How the kernels divide their work, so that no result depends on the number of threads.

An array is cut into blocks of a fixed size. One task computes one block, whichever thread it runs on; sums are kept per
block and added up in the order of the blocks. Each parallel loop is a single call of a serial function: the compiler
spends long on anything else that stands inside a parallel loop.
"""

import numpy as np

from kernels.jit import jit

#: Elements in a block: a few arrays of that size lie in the second-level cache together.
BLOCK = 16384


def flat(a, dtype=None):
    """Return ``a`` as a one-dimensional view that cannot be written to; None as an empty one of type ``dtype``.

    Numba compiles a kernel anew for writable and for read-only arrays: inputs are read-only always, and one form of
    each kernel is enough.
    """
    view = np.empty(0, dtype) if a is None else a.reshape(-1)
    view.flags.writeable = False
    return view


def block_count(size):
    """Return how many blocks hold ``size`` elements."""
    return -(-size // BLOCK)


@jit
def block_slice(block, size):
    """Return which of ``size`` elements belong to a block."""
    return slice(block * BLOCK, min(block * BLOCK + BLOCK, size))


@jit
def row_and_slice(task, size, blocks):
    """Return the row of a task and its part of the flat array, where rows have ``size`` elements in ``blocks``."""
    row, start = task // blocks, task % blocks * BLOCK
    return row, slice(row * size + start, row * size + min(start + BLOCK, size))
