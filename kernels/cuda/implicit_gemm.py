"""Convolutions as products of matrices, of which one is never written down.

The output of a convolution is the product of the weights, a row for each output channel, with a matrix that has a
column for each output pixel: all that the pixel reads of the input. That matrix would be kH * kW times the size of the
input. So only the tile in work exists, in shared memory (see ``gemm``): a step of the sum is one cell of the kernel
with eight input channels, and each thread fetches for a fixed output pixel what lies under that cell. One comparison
tells whether that is inside the picture, and neighbouring threads have neighbouring pixels and read neighbours.

The same kernel *scatters*: the gradient of the input, or the transposed convolution. There a destination pixel ``iy``
collects from the source pixels ``oy`` with ``iy = oy * stride - padding + ky * dilation``, and with a stride of 2 only
every second cell of the kernel has one. Pixels that differ by a multiple of the stride use the same cells: they are a
*phase*, and each phase is a convolution of its own with stride 1 and part of the kernel. All run in one launch.

Before, ``packing`` copies the weights into the order in which tiles read them, filled up with zeros to whole tiles.
"""

from typing import NamedTuple

import numpy as np
from numba.types import NamedUniTuple, int64

from kernels.cuda.device import SIMULATED, cuda, typed_kernel
from kernels.cuda.gemm import DEPTH, SIZES, core, inlined, split_of, tile_of


class Plan(NamedTuple):
    """Sizes of a gather, for the kernel: from C channels of H x W pixels a group to M channels of oH x oW.

    A source row is ``scale * q + (residue + padding - k * dilation) / modulus``, for the destination row
    ``modulus * q + residue`` and row k of the kernel: a convolution has modulus 1, and a scatter scale 1. Rows k of a
    phase are ``skip`` apart, and ``step`` apart in the source.
    """

    M: int
    C: int
    groups: int
    H: int
    W: int
    oH: int
    oW: int
    kH: int
    kW: int
    pixels_h: int  # of a phase
    pixels_w: int
    phases_h: int
    phases_w: int
    modulus_h: int
    modulus_w: int
    scale_h: int
    scale_w: int
    padding_h: int
    padding_w: int
    dilation_h: int
    dilation_w: int
    skip_h: int
    skip_w: int
    step_h: int
    step_w: int
    cols: int
    row_tiles: int
    col_tiles: int
    splits: int
    size: int
    has_bias: int
    has_residual: int
    relu: int


@inlined
def phase_axis(residue, kernel_size, modulus, padding, dilation, skip):
    """Return the first row of the kernel that a phase uses, how many it uses, and its source row for q = 0."""
    first = 0
    while first < skip and (residue + padding - first * dilation) % modulus != 0:
        first += 1
    count = 0
    if first < skip and first < kernel_size:
        count = (kernel_size - first + skip - 1) // skip
    return first, count, (residue + padding - first * dilation) // modulus


#: The plan as an argument of kernels.
PLAN = NamedUniTuple(int64, len(Plan._fields), Plan)


def _gather_kernel(size, ends=False):
    """Make the kernel for one tile size; one that ``ends`` adds a residual and applies a ReLU as it writes."""

    def gather_kernel(T):
        (
            ROWS, COLS, THREADS, COL_VECTORS, VECTOR, OWN_COLS, SUMS, ACROSS, ROW_PITCH, COL_PITCH,
            ROW_MEMORY, COL_MEMORY, ROW_LOADS, COL_LOADS, multiply, stage, write_column,
        ) = core(T, size)  # fmt: skip
        OWN_ROWS = SUMS // OWN_COLS
        ROW_VECTORS, DOWN = OWN_ROWS // VECTOR, ROWS // OWN_ROWS
        ROW_SHIFT, ROW_MASK = split_of(ROWS)
        COL_SHIFT, COL_MASK = split_of(COLS)
        ROW_SLOW, COL_SLOW = THREADS >> ROW_SHIFT, THREADS >> COL_SHIFT  # products of a step between a thread's copies
        ROW_STEP, COL_STEP = ROW_SLOW * ROW_PITCH, COL_SLOW * COL_PITCH
        ZERO = T(0)

        @inlined
        def write_ended(y, total, mine, residual, col, at, stride, row, rows, g):
            """Write a thread's sums of a column as `write_column` does, with what ends them."""
            for c in range(ROW_VECTORS):
                for i in range(VECTOR):
                    m = (c * DOWN + row) * VECTOR + i
                    if m < rows:
                        value = total[(c * VECTOR + i) * OWN_COLS + col] + mine[c * VECTOR + i]
                        if g.has_residual:
                            value += residual[np.uint64(at + m * stride)]
                        if g.relu and value < ZERO:  # not so for NaN
                            value = ZERO
                        y[np.uint64(at + m * stride)] = value

        @inlined
        def write(y, total, mine, residual, col, n, at, stride, row, residue_h, residue_w, rows, g):
            """Write column number ``col`` of the thread, which is destination pixel ``n`` of the phase."""
            if n < g.cols:
                picture, pixel = n // (g.pixels_h * g.pixels_w), n % (g.pixels_h * g.pixels_w)
                oy = pixel // g.pixels_w * g.modulus_h + residue_h
                ox = pixel % g.pixels_w * g.modulus_w + residue_w
                if oy < g.oH and ox < g.oW:
                    place = at + picture * (g.groups * g.M * stride) + oy * g.oW + ox
                    if ends:
                        write_ended(y, total, mine, residual, col, place, stride, row, rows, g)
                    else:
                        write_column(y, total, mine, col, place, stride, row, rows)

        @inlined
        def write_vector(y, total, mine, residual, col, n, at, stride, row, residue_h, residue_w, rows, g):
            write(y, total, mine, residual, col, n, at, stride, row, residue_h, residue_w, rows, g)
            if VECTOR > 1:
                write(y, total, mine, residual, col + 1, n + 1, at, stride, row, residue_h, residue_w, rows, g)
            if VECTOR > 2:
                write(y, total, mine, residual, col + 2, n + 2, at, stride, row, residue_h, residue_w, rows, g)
                write(y, total, mine, residual, col + 3, n + 3, at, stride, row, residue_h, residue_w, rows, g)

        def run(y, x, packed, bias, residual, g):
            if SIMULATED:
                left = cuda.shared.array(ROW_MEMORY, T)
                right = cuda.shared.array(COL_MEMORY, T)
            else:
                left = cuda.shared.array(ROW_MEMORY, T, alignment=16)
                right = cuda.shared.array(COL_MEMORY, T, alignment=16)
            total = cuda.local.array(SUMS, T)
            mine = cuda.local.array(OWN_ROWS, T)
            others = cuda.local.array(OWN_COLS, T)
            next_left = cuda.local.array(ROW_LOADS, T)
            next_right = cuda.local.array(COL_LOADS, T)
            for k in range(SUMS):
                total[k] = ZERO

            # which part of the work this block has
            thread, block = cuda.threadIdx.x, np.int32(cuda.blockIdx.x)
            row_tile = np.int32(block % np.int32(g.row_tiles))
            block = np.int32(block // np.int32(g.row_tiles))
            col_tile = np.int32(block % np.int32(g.col_tiles))
            block = np.int32(block // np.int32(g.col_tiles))
            split = np.int32(block % np.int32(g.splits))
            block = np.int32(block // np.int32(g.splits))
            phases = np.int32(g.phases_h * g.phases_w)
            phase, group = np.int32(block % phases), np.int32(block // phases)
            residue_h, residue_w = np.int32(phase // g.phases_w), np.int32(phase % g.phases_w)
            first_y, count_y, start_y = phase_axis(
                residue_h, g.kH, g.modulus_h, g.padding_h, g.dilation_h, g.skip_h
            )  # fmt: skip
            first_x, count_x, start_x = phase_axis(
                residue_w, g.kW, g.modulus_w, g.padding_w, g.dilation_w, g.skip_w
            )  # fmt: skip
            taps, plane = np.int32(count_y * count_x), g.H * g.W
            chunks = np.int32((g.C + DEPTH - 1) // DEPTH)
            steps = np.int32(chunks * taps)
            per_split = np.int32((steps + g.splits - 1) // g.splits)
            begin = np.int32(split * per_split)
            end = np.int32(min(np.int32(begin + per_split), steps))

            # the pixel for which this thread fetches, and where that begins in the source
            col, depth = thread & COL_MASK, thread >> COL_SHIFT
            n = np.int32(col_tile * COLS + col)
            pixels = np.int32(g.pixels_h * g.pixels_w)
            picture, pixel = np.int32(n // pixels), np.int32(n % pixels)
            sy = np.int32(pixel // np.int32(g.pixels_w) * g.scale_h + start_y)
            sx = np.int32(pixel % np.int32(g.pixels_w) * g.scale_w + start_x)
            is_pixel = n < g.cols
            # cell of the kernel (i, j), and chunk of channels, of the first step
            chunk, tap = np.int32(0), np.int32(0)
            if taps > 0:
                chunk, tap = np.int32(begin // taps), np.int32(begin % taps)
            i, j = np.int32(0), np.int32(0)
            if count_x > 0:
                i, j = np.int32(tap // count_x), np.int32(tap % count_x)
            base = (picture * g.groups + group) * g.C * plane + (chunk * DEPTH + depth) * plane
            base += sy * g.W + sx
            channels = np.int32(g.C - chunk * DEPTH - depth)
            width = g.row_tiles * ROWS
            row, slow = thread & ROW_MASK, thread >> ROW_SHIFT
            weights = ((group * chunks + chunk) * (g.kH * g.kW) * DEPTH + slow) * width + row_tile * ROWS + row

            for step in range(begin, end + 1):
                if step < end:
                    iy, ix = np.int32(sy + i * g.step_h), np.int32(sx + j * g.step_w)
                    inside = is_pixel and iy >= 0 and iy < g.H and ix >= 0 and ix < g.W
                    at = base + i * (g.step_h * g.W) + j * g.step_w
                    for k in range(COL_LOADS):
                        value = ZERO
                        if inside and k * COL_SLOW < channels:
                            value = x[np.uint64(at + k * COL_SLOW * plane)]
                        next_right[k] = value
                    cell = (first_y + i * g.skip_h) * g.kW + first_x + j * g.skip_w
                    at = weights + cell * DEPTH * width
                    for k in range(ROW_LOADS):
                        next_left[k] = packed[np.uint64(at + k * ROW_SLOW * width)]
                    j = np.int32(j + 1)
                    if j == count_x:
                        i, j = np.int32(i + 1), np.int32(0)
                        if i == count_y:
                            i = np.int32(0)
                            base += DEPTH * plane
                            channels = np.int32(channels - DEPTH)
                            weights += g.kH * g.kW * DEPTH * width
                if step > begin:
                    multiply(total, mine, others, left, right, (step - 1) & 1, thread // ACROSS, thread & (ACROSS - 1))
                if step < end:
                    half = step & 1
                    stage(left, next_left, ROW_LOADS, (half * DEPTH + slow) * ROW_PITCH + row, ROW_STEP)
                    stage(right, next_right, COL_LOADS, (half * DEPTH + depth) * COL_PITCH + col, COL_STEP)
                cuda.syncthreads()

            down, along = thread // ACROSS, thread & (ACROSS - 1)
            channel, stride = group * g.M + row_tile * ROWS, g.oH * g.oW
            rows = g.M - row_tile * ROWS
            for k in range(OWN_ROWS):
                m = (k // VECTOR * (ROWS // OWN_ROWS) + down) * VECTOR + k % VECTOR
                mine[k] = ZERO
                if g.has_bias and m < rows:
                    mine[k] = bias[np.uint64(channel + m)]
            at = split * g.size + channel * stride
            n = col_tile * COLS + along * VECTOR
            write_vector(y, total, mine, residual, 0, n, at, stride, down, residue_h, residue_w, rows, g)
            if COL_VECTORS > 1:
                n += ACROSS * VECTOR
                write_vector(y, total, mine, residual, VECTOR, n, at, stride, down, residue_h, residue_w, rows, g)

        return run

    gather_kernel.__name__ = f"gather_{'relu_' * ends}{size}"
    threads = tile_of(size, "float32").threads  # no fewer than for float64
    return typed_kernel(lambda T: (*(T[::1],) * 5, PLAN), threads)(gather_kernel)


#: The kernel, by the size of its tiles, and whether something ends the sums.
GATHER = {(size, ends): _gather_kernel(size, ends) for ends in (False, True) for size in SIZES}
