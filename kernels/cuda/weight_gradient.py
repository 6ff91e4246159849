"""Gradients of a convolution's weights: the product of the output's gradient with what each output pixel read.

    dweight[o, (c, ky, kx)] = sum over pixels (n, oy, ox) of dy[n, o, oy, ox] * x[n, c, iy, ix]

A product of matrices again (see ``gemm``), with a row for each output channel and a column for each weight of one
output channel. The sum goes over all pixels of all pictures: long, and there are few tiles, so it is cut into parts.
In a step, of eight neighbouring pixels, a thread fetches for one fixed of the eight: it keeps that pixel's place, and
moves it on by eight. What a column adds to the place (channel and cell of the kernel) is the same in all steps, and is
kept in shared memory.

Groups of very few channels would leave tiles next to empty. There, in `_direct_kernel`, a block computes one weight:
its warps go through the rows of all pictures, and then the block adds up its threads in a fixed order.
"""

from math import ceil
from typing import NamedTuple

import numpy as np
from numba.types import NamedUniTuple, int32, int64

from kernels.cuda.array import empty
from kernels.cuda.device import SIMULATED, cuda, tile, typed_kernel
from kernels.cuda.gemm import DEPTH, SIZES, core, cut, finish, inlined, split_of, tile_of
from kernels.cuda.reduction import SUM_THREADS, block_sum

#: In place of a row of the kernel, for columns beyond the last weight: it is inside no picture.
_NOWHERE = -(2**30)
#: Channels of a group, of both maps, up to which a block computes one weight; and threads that share a row then.
_FEW_CHANNELS, _LANES = tile(4, 1), tile(32, 2)


class Plan(NamedTuple):
    """Sizes of a weight gradient, for the kernel: M channels of ``dy`` and C channels of ``x`` a group."""

    M: int
    C: int
    groups: int
    N: int
    H: int  # of x
    W: int
    oH: int  # of dy
    oW: int
    kH: int
    kW: int
    sH: int
    sW: int
    pH: int
    pW: int
    dH: int
    dW: int
    row_tiles: int
    col_tiles: int
    splits: int


def weight_gradient(dy, x, shape, g):
    """Return the gradient of the weights of the convolution that takes maps like ``x`` to maps like ``dy``.

    Parameters
    ----------
    dy : DeviceArray, shape (N, channels, oH, oW)
        Gradient of its output.
    x : DeviceArray, shape (N, channels, H, W)
        Its input.
    shape : (int, int, int, int)
        Of the weights: (channels of dy, channels of x / groups, kH, kW).
    g : ConvGeometry
        Its parameters are used.

    Returns
    -------
    DeviceArray
    """
    dweight = empty(shape, dy.dtype)
    if not dweight.size:
        return dweight
    rows, cols = shape[0] // g.groups, shape[1] * shape[2] * shape[3]
    n, _, height, width = dy.shape
    cuts = cut(rows, cols, ceil(n * height * width / DEPTH), g.groups, dy.dtype)
    plan = Plan(
        rows, shape[1], g.groups, n, x.shape[2], x.shape[3], height, width,
        g.kH, g.kW, g.sH, g.sW, g.pH, g.pW, g.dH, g.dW,
        cuts.rows, cuts.cols, cuts.splits,
    )  # fmt: skip
    if g.groups > 1 and max(rows, shape[1]) <= _FEW_CHANNELS:
        _direct_kernel.run(dweight.size, SUM_THREADS, dweight.raw, dy.raw, x.raw, plan)
        return dweight
    parts = dweight if cuts.splits == 1 else empty((cuts.splits, *shape), dy.dtype)
    blocks = cuts.rows * cuts.cols * cuts.splits * g.groups
    _KERNELS[cuts.size].run(blocks, tile_of(cuts.size, dy.dtype).threads, parts.raw, dy.raw, x.raw, plan)
    return finish(dweight, parts, None, 1, 1)


_PLAN = NamedUniTuple(int64, len(Plan._fields), Plan)


@typed_kernel(lambda T: (T[::1], T[::1], T[::1], _PLAN), threads=SUM_THREADS)
def _direct_kernel(T):
    def direct_kernel(dweight, dy, x, g):
        """A block computes one weight."""
        thread, place = cuda.threadIdx.x, cuda.blockIdx.x
        kx, ky = place % g.kW, place // g.kW % g.kH
        channel = place // (g.kW * g.kH)
        c, o = channel % g.C, channel // g.C
        source_channel = o // g.M * g.C + c
        reach_y, reach_x = ky * g.dH - g.pH, kx * g.dW - g.pW
        total = T(0)
        row = thread // _LANES
        while row < g.N * g.oH:
            picture, oy = row // g.oH, row % g.oH
            iy = oy * g.sH + reach_y
            if iy >= 0 and iy < g.H:
                at = ((picture * g.groups * g.M + o) * g.oH + oy) * g.oW
                source = ((picture * g.groups * g.C + source_channel) * g.H + iy) * g.W
                ox = thread % _LANES
                while ox < g.oW:
                    ix = ox * g.sW + reach_x
                    if ix >= 0 and ix < g.W:
                        total += dy[np.uint64(at + ox)] * x[np.uint64(source + ix)]
                    ox += _LANES
            row += SUM_THREADS // _LANES
        total = block_sum(total)
        if thread == 0:
            dweight[place] = total

    return direct_kernel


def _weight_gradient_kernel(size):
    """Make the kernel for one tile size."""

    def weight_gradient_kernel(T):
        (
            ROWS, COLS, THREADS, COL_VECTORS, VECTOR, OWN_COLS, SUMS, ACROSS, ROW_PITCH, COL_PITCH,
            ROW_MEMORY, COL_MEMORY, ROW_LOADS, COL_LOADS, multiply, stage, write_column,
        ) = core(T, size)  # fmt: skip
        OWN_ROWS = SUMS // OWN_COLS
        SHIFT, MASK = split_of(DEPTH)
        SLOW = THREADS >> SHIFT  # rows between a thread's copies, and columns likewise
        ZERO = T(0)

        @inlined
        def write_vector(y, total, mine, col, n, at, stride, row, rows):
            if n < stride:
                write_column(y, total, mine, col, at + n, stride, row, rows)
            if VECTOR > 1 and n + 1 < stride:
                write_column(y, total, mine, col + 1, at + n + 1, stride, row, rows)
            if VECTOR > 2 and n + 2 < stride:
                write_column(y, total, mine, col + 2, at + n + 2, stride, row, rows)
            if VECTOR > 2 and n + 3 < stride:
                write_column(y, total, mine, col + 3, at + n + 3, stride, row, rows)

        def run(dweight, dy, x, g):
            if SIMULATED:
                left = cuda.shared.array(ROW_MEMORY, T)
                right = cuda.shared.array(COL_MEMORY, T)
            else:
                left = cuda.shared.array(ROW_MEMORY, T, alignment=16)
                right = cuda.shared.array(COL_MEMORY, T, alignment=16)
            reach_y = cuda.shared.array(COLS, int32)
            reach_x = cuda.shared.array(COLS, int32)
            reach = cuda.shared.array(COLS, int64)
            total = cuda.local.array(SUMS, T)
            mine = cuda.local.array(OWN_ROWS, T)
            others = cuda.local.array(OWN_COLS, T)
            next_left = cuda.local.array(ROW_LOADS, T)
            next_right = cuda.local.array(COL_LOADS, T)
            for i in range(SUMS):
                total[i] = ZERO

            # which part of the work this block has
            thread, block = cuda.threadIdx.x, np.int32(cuda.blockIdx.x)
            row_tile = np.int32(block % np.int32(g.row_tiles))
            block = np.int32(block // np.int32(g.row_tiles))
            col_tile = np.int32(block % np.int32(g.col_tiles))
            block = np.int32(block // np.int32(g.col_tiles))
            split, group = np.int32(block % np.int32(g.splits)), np.int32(block // np.int32(g.splits))
            pixels, plane, weights = g.oH * g.oW, g.H * g.W, g.C * g.kH * g.kW
            for i in range(thread, COLS, THREADS):
                n = col_tile * COLS + i
                ky, kx = n // g.kW % g.kH * g.dH - g.pH, n % g.kW * g.dW - g.pW
                reach[i] = n // (g.kH * g.kW) * plane + ky * g.W + kx
                reach_y[i] = ky if n < weights else _NOWHERE
                reach_x[i] = kx
            cuda.syncthreads()
            steps = (g.N * pixels + DEPTH - 1) // DEPTH
            per_split = (steps + g.splits - 1) // g.splits
            begin = split * per_split
            end = min(begin + per_split, steps)

            # the pixel for which this thread fetches
            depth, lane = thread & MASK, thread >> SHIFT
            k = begin * DEPTH + depth
            picture = np.int32(k // pixels)
            oy, ox = np.int32(k % pixels // g.oW), np.int32(k % g.oW)
            rows_left = np.int32(g.M - row_tile * ROWS - lane)

            for step in range(begin, end + 1):
                if step < end:
                    is_pixel = picture < g.N
                    at = (picture * g.groups + group) * g.M + row_tile * ROWS + lane
                    at = at * pixels + oy * g.oW + ox
                    for i in range(ROW_LOADS):
                        value = ZERO
                        if is_pixel and i * SLOW < rows_left:
                            value = dy[np.uint64(at + i * SLOW * pixels)]
                        next_left[i] = value
                    sy, sx = np.int32(oy * g.sH), np.int32(ox * g.sW)
                    at = (picture * g.groups + group) * g.C * plane + sy * g.W + sx
                    for i in range(COL_LOADS):
                        col = lane + i * SLOW
                        iy, ix = np.int32(sy + reach_y[col]), np.int32(sx + reach_x[col])
                        value = ZERO
                        if is_pixel and iy >= 0 and iy < g.H and ix >= 0 and ix < g.W:
                            value = x[np.uint64(at + reach[col])]
                        next_right[i] = value
                    ox = np.int32(ox + DEPTH)
                    while ox >= g.oW:
                        ox = np.int32(ox - g.oW)
                        oy = np.int32(oy + 1)
                        if oy == g.oH:
                            oy = np.int32(0)
                            picture = np.int32(picture + 1)
                if step > begin:
                    half = (step - 1) & 1
                    multiply(total, mine, others, left, right, half, thread // ACROSS, thread & (ACROSS - 1))
                if step < end:
                    half = step & 1
                    stage(left, next_left, ROW_LOADS, (half * DEPTH + depth) * ROW_PITCH + lane, SLOW)
                    stage(right, next_right, COL_LOADS, (half * DEPTH + depth) * COL_PITCH + lane, SLOW)
                cuda.syncthreads()

            down, along = thread // ACROSS, thread & (ACROSS - 1)
            for i in range(OWN_ROWS):
                mine[i] = ZERO
            at = ((split * g.groups + group) * g.M + row_tile * ROWS) * weights
            n = col_tile * COLS + along * VECTOR
            write_vector(dweight, total, mine, 0, n, at, weights, down, g.M - row_tile * ROWS)
            if COL_VECTORS > 1:
                n += ACROSS * VECTOR
                write_vector(dweight, total, mine, VECTOR, n, at, weights, down, g.M - row_tile * ROWS)

        return run

    weight_gradient_kernel.__name__ = f"weight_gradient_{size}"
    threads = tile_of(size, "float32").threads  # no fewer than for float64
    return typed_kernel(lambda T: (T[::1], T[::1], T[::1], _PLAN), threads)(weight_gradient_kernel)


_KERNELS = {size: _weight_gradient_kernel(size) for size in SIZES}
