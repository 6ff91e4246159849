"""The ladder of matrix products on NVIDIA GPUs: one file per rung, ``rung1_global.py`` and on.

Every rung is a function ``matmul(a, b)``: arrays of shape (M, K) and (K, N), float32 or float64, of NumPy's or on the
device, to a device array of shape (M, N); TypeError or ValueError where they do not fit. To see what a rung changes,
compare its file with the one before; ``arguments.py`` holds what all of them begin with.

What a docstring says was *counted* holds for matrices of 128 x 16 and 16 x 128 in float32, and needs no GPU: a warp's
requests to global memory and the sectors of 32 bytes that they touch, as `tinyseg.explain.cuda_trace` counts them;
bytes that are read from there for each multiplication or addition; passes through the banks of shared memory; and a
thread's registers, as the compiler gives them out for an H100. See for yourself what a warp asks for at once:

>>> import numpy as np
>>> from tinyseg.explain import cuda_trace
>>> from kernels.ladder.matmul_cuda import rung1_global
>>> a, b, y = np.ones((64, 16), "f4"), np.ones((16, 64), "f4"), np.empty((64, 64), "f4")
>>> trace = cuda_trace(rung1_global.matmul_kernel, 16, 256, y, a, b)
>>> line = next(row.line for row in trace.rows if row.array == "a")
>>> trace.figure(line, "a").savefig("rung1.png")

``python -m benchmarks ladder matmul_cuda`` checks and times all rungs on your GPU.
"""

from kernels.ladder.matmul_cuda import (
    rung1_global,
    rung2_coalesced,
    rung3_shared,
    rung4_registers,
    rung5_vectors,
    rung6_final,
)
from kernels.ladder.rung import Rung

RUNGS = (
    Rung("global", "a thread for each element", rung1_global.matmul),
    Rung("coalesced", "neighbouring threads read neighbours", rung2_coalesced.matmul),
    Rung("shared", "tiles of 16 x 16 in shared memory", rung3_shared.matmul),
    Rung("registers", "4 x 4 sums in a thread's registers", rung4_registers.matmul),
    Rung("vectors", "16 bytes with each instruction", rung5_vectors.matmul),
    Rung("final", "kernels.cuda: 8 x 8 sums, copies while multiplying", rung6_final.matmul),
)
