"""The functions of ``kernels.cuda`` run by `tinyseg.explain.cuda_trace`: no GPU, no simulator, and tiles of full size.

``with traced() as traces: kernels.cuda.relu_forward(x)`` appends the trace of each kernel that is started, with the
kernel.
"""

from contextlib import contextmanager

import numpy as np
import pytest
from numba import cuda
from numba.np.numpy_support import from_dtype

from kernels.cuda import addresses, array, device, optimizer_steps
from tinyseg.explain import cuda_trace

#: A small GPU: large grids take long here.
GPU = device.Properties("traced", 1, (9, 0))


class Memory(np.ndarray):
    """Memory of the host that looks like a device array to ``kernels.cuda.array``."""

    def copy_to_host(self):
        return np.array(self)

    def copy_to_device(self, values):
        self[...] = values


def _memory(count, dtype):
    """Return memory that nothing was written to: NaN, or the largest number."""
    dtype = np.dtype(dtype)
    return np.full(count, np.nan if dtype.kind == "f" else np.iinfo(dtype).max, dtype).view(Memory)


def load(address, i):
    return cuda.at_address(address)[i]


def store(address, i, value):
    cuda.at_address(address)[i] = value


def _addressed(lists):
    """Return the arrays of lists by names that tell where they stand there: the first place of those in several."""
    places = [(n, i, a) for n, arrays in enumerate(lists) for i, a in enumerate(arrays)]
    return {f"list {n}, array {i}": a.raw[: a.size] for n, i, a in reversed(places)}


@contextmanager
def traced():
    """Let kernels run in the tracer; yield the list of kernels and their traces."""
    traces: list = []
    lists: list = []  # that the next kernel finds by a table of addresses

    def run(kernel, grid, block, *arguments, dtype=None):
        # a kernel of tables is made anew: the one that is kept would go on calling our `load`
        function = kernel.source.__wrapped__(from_dtype(dtype)) if lists else kernel
        traces.append((kernel, cuda_trace(function, grid, block, *arguments, by_address=_addressed(lists))))

    def launch(kernel, arrays, dtype, *arguments):
        lists[:] = arrays
        try:
            addresses.launch(kernel, arrays, dtype, *arguments)
        finally:
            lists.clear()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device.Kernel, "run", run)
        patch.setattr(device, "why_not", lambda: None)
        patch.setattr(device, "properties", lambda: GPU)
        patch.setattr(optimizer_steps, "memory", lambda T: (load, store))
        patch.setattr(optimizer_steps, "launch", launch)
        patch.setattr(array, "SIMULATED", True)  # memory has an address of the host's
        patch.setattr(array, "_leased", _memory)
        patch.setattr(array, "copy_small", Memory.copy_to_device)
        yield traces
