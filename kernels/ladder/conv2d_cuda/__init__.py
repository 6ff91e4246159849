"""The ladder of conv2d on NVIDIA GPUs: one file per rung, ``rung1_global.py`` and on. Read that of matmul_cuda first.

Every rung is a function ``conv2d_forward(x, weight, bias=None, stride=1, padding=0)``: parameters, result and errors
are those of `kernels.cuda.conv2d.conv2d_forward`, without dilation and groups. To see what a rung changes, compare its
file with the one before; ``arguments.py`` holds what all of them begin with.

What a docstring says was *counted* holds for a picture of 8 channels and 4 x 16 pixels and 64 kernels of 3 x 3, padded
by 1, in float32, and needs no GPU: see `kernels.ladder.matmul_cuda` for what the numbers mean and how to look at a
warp's requests. ``python -m benchmarks ladder conv2d_cuda`` checks and times all rungs on your GPU.

The last rung is the kernel in use, ``kernels/cuda/implicit_gemm.py``. Against rung 5 it has tiles of up to 128 x 128
with 8 x 8 outputs for each thread, copies the next step's values while it multiplies, cuts long sums with few tiles
into parts, fills the weights up to whole tiles, and can do dilation and groups and the gradient of the input as well.
"""

from kernels.cuda.conv2d import conv2d_forward
from kernels.ladder.conv2d_cuda import (
    rung1_global,
    rung2_coalesced,
    rung3_shared,
    rung4_registers,
    rung5_vectors,
)
from kernels.ladder.rung import Rung

RUNGS = (
    Rung("global", "a thread for each output", rung1_global.conv2d_forward),
    Rung("coalesced", "neighbouring threads have neighbouring pixels", rung2_coalesced.conv2d_forward),
    Rung("shared", "a product of matrices, tiles of 16 x 16 shared", rung3_shared.conv2d_forward),
    Rung("registers", "4 x 4 sums in a thread's registers", rung4_registers.conv2d_forward),
    Rung("vectors", "weights transposed, 16 bytes at a time", rung5_vectors.conv2d_forward),
    Rung("final", "kernels.cuda: 8 x 8 sums, copies while multiplying", conv2d_forward),
)
