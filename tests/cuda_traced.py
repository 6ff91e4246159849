"""The functions of ``kernels.cuda`` run by `tinyseg.explain.cuda_trace`: no GPU, no simulator, and tiles of full size.

``with traced() as traces: kernels.cuda.relu_forward(x)`` appends the trace of each kernel that is started, with the
kernel.
"""

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

from kernels.cuda import array, device
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


@contextmanager
def traced():
    """Let kernels run in the tracer; yield the list of kernels and their traces."""
    traces: list = []

    def run(kernel, grid, block, *arguments, dtype=None):
        traces.append((kernel, cuda_trace(kernel, grid, block, *arguments)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device.Kernel, "run", run)
        patch.setattr(device, "why_not", lambda: None)
        patch.setattr(device, "properties", lambda: GPU)
        patch.setattr(array, "SIMULATED", True)  # then memory comes from the next line
        patch.setattr(array, "cuda", SimpleNamespace(device_array=_memory))
        yield traces
