"""How the kernels divide their work, so that no result depends on the number of threads.

An array is cut into blocks of a fixed size. One task computes one block, whichever thread it runs on; sums are kept per
block and added up in the order of the blocks. Each parallel loop only calls a serial function for its block: the
compiler spends long on what stands inside a parallel loop itself.
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
def block_bounds(block, size):
    """Return the first index of a block, and the one after its last."""
    start = np.int64(block) * BLOCK
    return start, min(start + BLOCK, size)
