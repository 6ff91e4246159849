"""Numba's CUDA simulator with a barrier that waits: its own asks all threads, again and again, how far they are.

That takes most of the time of kernels with barriers. As on a GPU, all threads of a block have to reach a barrier here;
Numba's lets those go on that are left.
"""

import threading

import numpy as np
from numba.cuda.simulator import kernel

#: Seconds after which threads that wait at a barrier for one that has ended give up.
PATIENCE = 120


def install():
    """Give the simulator's blocks that barrier."""
    kernel.BlockManager.run = _run_block
    kernel.BlockThread.syncthreads = _wait


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
