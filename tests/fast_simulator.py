"""Numba's CUDA simulator with a barrier that waits: its own asks all threads, again and again, how far they are.

That takes most of the time of kernels with barriers. As on a GPU, all threads of a block have to reach a barrier here;
Numba's lets those go on that are left.

And with shared memory of which a block has one: where the first two threads of a block meet in Numba's, each may get
an array of its own.
"""

import sys
import threading

import numpy as np
from numba import types
from numba.cuda.simulator import kernel, kernelapi
from numba.np.numpy_support import as_dtype

#: Seconds after which threads that wait at a barrier for one that has ended give up.
PATIENCE = 120


def install():
    """Give the simulator's blocks that barrier."""
    kernel.BlockManager.run = _run_block
    kernel.BlockThread.syncthreads = _wait
    dynamic = kernelapi.FakeCUDAShared.array

    def shared_array(self, shape, dtype, **_):
        if isinstance(shape, int) and shape == 0:
            return dynamic(self, shape, dtype)
        line = sys._getframe(1)
        key = line.f_code, line.f_lineno
        found = self._allocations.get(key)
        if found is None:  # one step for all threads: the first one's stays
            dtype = as_dtype(dtype) if isinstance(dtype, types.Type) else dtype
            found = self._allocations.setdefault(key, np.empty(shape, dtype))
        return found

    kernelapi.FakeCUDAShared.array = shared_array


def _run_block(self, grid_point, *arguments):
    points = list(np.ndindex(*self._block_dim))
    barrier = threading.Barrier(len(points))

    def work():
        try:
            self._f(*arguments)
        except BaseException:
            barrier.abort()  # the others would wait for ever
            raise

    threads = [kernel.BlockThread(work, self, grid_point, point, self._debug) for point in points]
    for thread in threads:
        thread.barrier = barrier
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    errors = [thread.exception for thread in threads if thread.exception]
    if errors:  # first what broke the barrier, not those who found it broken
        error, trace = min(errors, key=lambda pair: isinstance(pair[0], threading.BrokenBarrierError))
        raise error.with_traceback(trace)


def _wait(self):
    self.barrier.wait(PATIENCE)
