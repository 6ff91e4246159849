"""Matrix products: the core that convolutions and linear layers share, and the kernel for plain matrices.

A block of threads computes one tile of the result, up to 128 x 128. It goes along the products that are summed, a few
at a time (``depth``): what the whole block needs of both factors is copied into shared memory, from where each thread
reads 8 values of the left factor and 8 of the right one, and adds their 64 products to 64 sums in its registers. So
each value that comes from memory is used 128 times, and each that comes from shared memory 8 times.

While a block multiplies one step's values, those of the next step are on their way into registers, and are then put
into the other half of shared memory: one barrier a step is enough.

A result with few tiles would leave most of the GPU idle. Then the sum is cut into parts, ``splits``, which go to blocks
of their own and into a buffer; `add_parts` adds them up in order, so the result is always the same. How many parts
depends on the sizes alone and not on the GPU.
"""

from math import ceil
from typing import NamedTuple

import numpy as np
from numba.types import int64

from kernels.cuda.array import empty
from kernels.cuda.device import SIMULATED, Kernel, cuda, device_function, tile, typed_kernel

#: Products summed in one step, for which shared memory is filled.
DEPTH = tile(8, 8)
#: Blocks that keep a large GPU busy, and steps that make a block worth its start: for the choice of tiles and parts.
_ENOUGH_BLOCKS, _ENOUGH_STEPS = tile(264, 4), tile(16, 2)


class Tile(NamedTuple):
    """How a block of threads divides its work.

    Attributes
    ----------
    rows, cols : int
        Of the result, computed by a block.
    own_rows, own_cols : int
        Of these, computed by a thread.
    vector : int
        Elements that are read from shared memory at once: 16 bytes.
    speed : float
        Of a whole tile, in proportion to the others: larger ones read less.
    """

    rows: int
    cols: int
    own_rows: int
    own_cols: int
    vector: int
    speed: float

    @property
    def threads(self):
        """Threads of a block: at least as many as rows, as columns and as products of a step."""
        return self.rows // self.own_rows * (self.cols // self.own_cols)


_FLOAT32 = {
    "large": Tile(128, 128, 8, 8, 4, 1.0),
    "medium": Tile(64, 128, 8, 8, 4, 0.9),
    "small": Tile(32, 64, 4, 4, 4, 0.5),
}
_FLOAT64 = {
    "large": Tile(64, 64, 4, 4, 2, 1.0),
    "medium": Tile(32, 64, 4, 4, 2, 0.9),
    "small": Tile(32, 32, 4, 4, 2, 0.7),
}
#: A thread of the simulator is a Python thread, so a block has eight; still each has several columns.
_SMALLEST = Tile(8, 8, 2, 4, 2, 1.0)

SIZES = tuple(_FLOAT32)

#: For functions that do without ``cuda``: the simulator need not prepare it for them, at each call.
inlined = device_function if not SIMULATED else lambda function: function


def tile_of(size, dtype):
    """Return the tile of that size for a floating type, of NumPy's or Numba's."""
    if SIMULATED:
        return _SMALLEST
    return (_FLOAT32 if str(dtype) == "float32" else _FLOAT64)[size]


class Cut(NamedTuple):
    """How a product is cut into tiles and parts; see `cut`."""

    size: str
    rows: int
    cols: int
    splits: int


def cut(rows, cols, steps, copies, dtype):
    """Return the tiles and parts that suit ``copies`` results of ``rows`` x ``cols``, each a sum of ``steps`` steps.

    Returns
    -------
    Cut
        ``size`` of the tiles, how many ``rows`` and ``cols`` of tiles there are, and into how many parts, ``splits``,
        each sum is cut.
    """
    if cols >= 2**31 or rows >= 2**31:
        raise ValueError(f"a product of {rows} x {cols} values is too large for the GPU's kernels: 2**31 on an axis")

    def of(size):
        shape = tile_of(size, dtype)
        tiles = ceil(rows / shape.rows), ceil(cols / shape.cols)
        blocks = tiles[0] * tiles[1] * copies
        splits = max(1, min(_ENOUGH_BLOCKS // max(blocks, 1), steps // _ENOUGH_STEPS))
        # blocks run together: time goes in rounds, of which each has room for _ENOUGH_BLOCKS
        rounds = max(1.0, blocks * splits / _ENOUGH_BLOCKS) / splits
        return rounds * shape.rows * shape.cols / shape.speed, Cut(size, *tiles, splits)

    return min((of(size) for size in SIZES), key=lambda cost: cost[0])[1]


# ---- the core --------------------------------------------------------------------------------------------------------


class Core(NamedTuple):
    """What a kernel needs for one tile shape and type: sizes, and device functions."""

    rows: int
    cols: int
    threads: int
    col_vectors: int  # of a thread
    vector: int
    own_cols: int
    sums: int  # of a thread
    across: int  # threads along the columns
    row_pitch: int  # elements between two of the products of a step, in shared memory
    col_pitch: int
    row_memory: int  # elements of both halves
    col_memory: int
    row_loads: int  # elements that a thread copies in a step
    col_loads: int
    multiply: object
    stage: object
    write_column: object


def core(T, size):
    """Return the `Core` of a tile size and a floating type of Numba's.

    A thread's 8 rows are not neighbours but two vectors of 4, half a tile apart, and its columns likewise: then
    neighbouring threads read neighbouring vectors, and no two of them the same bank of shared memory.
    """
    shape = tile_of(size, T)
    own_rows, own_cols, vector = shape.own_rows, shape.own_cols, shape.vector
    row_vectors, col_vectors = own_rows // vector, own_cols // vector
    across, down = shape.cols // own_cols, shape.rows // own_rows
    # one vector more than a row: threads that write one below the other hit different banks
    row_pitch, col_pitch = shape.rows + vector, shape.cols + vector
    row_step, col_step = row_pitch // vector, col_pitch // vector
    V = np.uint64(vector)

    @inlined
    def one(total, mine, others, left, right, p, q):
        """Add the products of one row of shared memory; ``p`` and ``q`` count vectors, so vectors can be read."""
        for c in range(row_vectors):
            for i in range(vector):
                mine[c * vector + i] = left[(p + np.uint64(c * down)) * V + np.uint64(i)]
        for c in range(col_vectors):
            for i in range(vector):
                others[c * vector + i] = right[(q + np.uint64(c * across)) * V + np.uint64(i)]
        for i in range(own_rows):
            for j in range(own_cols):
                total[i * own_cols + j] += mine[i] * others[j]

    @inlined
    def multiply(total, mine, others, left, right, half, row, col):
        """Add the products of a step in one half of shared memory, for the thread at ``row``, ``col`` of the block."""
        p = np.uint64(half * DEPTH * row_step + row)
        q = np.uint64(half * DEPTH * col_step + col)
        for _ in range(DEPTH // 4):  # unrolled by hand, four rows: the counting would cost as much as a few products
            one(total, mine, others, left, right, p, q)
            one(total, mine, others, left, right, p + np.uint64(row_step), q + np.uint64(col_step))
            one(total, mine, others, left, right, p + np.uint64(2 * row_step), q + np.uint64(2 * col_step))
            one(total, mine, others, left, right, p + np.uint64(3 * row_step), q + np.uint64(3 * col_step))
            p += np.uint64(4 * row_step)
            q += np.uint64(4 * col_step)

    @inlined
    def stage(shared, values, count, place, step):
        """Put what a thread fetched into shared memory."""
        for i in range(count):
            shared[np.uint64(place + i * step)] = values[i]

    @inlined
    def write_column(y, total, mine, col, at, stride, row, rows):
        """Write a thread's sums of its column ``col``, plus what ``mine`` holds for each row, to ``at`` and below.

        Callers name each column on a line of its own: in a loop as long as that, ``total`` would not stay in registers.
        """
        for c in range(row_vectors):
            for i in range(vector):
                m = (c * down + row) * vector + i
                if m < rows:
                    y[np.uint64(at + m * stride)] = total[(c * vector + i) * own_cols + col] + mine[c * vector + i]

    threads = shape.threads
    return Core(
        shape.rows, shape.cols, threads, col_vectors, vector, own_cols, own_rows * own_cols, across,
        row_pitch, col_pitch, 2 * DEPTH * row_pitch, 2 * DEPTH * col_pitch,
        shape.rows * DEPTH // threads, shape.cols * DEPTH // threads, multiply, stage, write_column,
    )  # fmt: skip


# ---- plain matrices --------------------------------------------------------------------------------------------------


def product(a, b, bias=None, *, a_transposed=False, b_transposed=False):
    """Return the product of two matrices on the device.

    Parameters
    ----------
    a : DeviceArray, shape (M, K), or (K, M) if ``a_transposed``
        Left factor.
    b : DeviceArray, shape (K, N), or (N, K) if ``b_transposed``
        Right factor.
    bias : DeviceArray, shape (N,), optional
        Added to each row.

    Returns
    -------
    DeviceArray, shape (M, N)
    """
    rows, depth = a.shape[::-1] if a_transposed else a.shape
    cols = b.shape[0] if b_transposed else b.shape[1]
    y = empty((rows, cols), a.dtype)
    if not y.size:
        return y
    plan = cut(rows, cols, ceil(depth / DEPTH), 1, a.dtype)
    target = y if plan.splits == 1 else empty((plan.splits, *y.shape), y.dtype)
    _PRODUCTS[a_transposed, b_transposed, plan.size].run(
        plan.rows * plan.cols * plan.splits, tile_of(plan.size, a.dtype).threads,
        target.raw, a.raw, b.raw, (a if bias is None else bias).raw,
        int(bias is not None and plan.splits == 1), rows, cols, depth, plan.rows, plan.splits,
    )  # fmt: skip
    return finish(y, target, bias, 1, cols)


def finish(y, parts, bias, plane, channels, residual=None, relu=False):
    """Return ``y``, made the sum of its parts and all that follows, unless it is whole.

    There may follow a bias for each of ``channels`` planes, a residual and a ReLU.
    """
    if parts is not y:
        _add_parts_kernel.over(
            y.size, y.raw, parts.raw, *((parts if a is None else a).raw for a in (bias, residual)),
            int(bias is not None), int(residual is not None), int(relu), y.size, parts.shape[0], plane, channels,
        )  # fmt: skip
    return y


@typed_kernel(lambda T: (*(T[::1],) * 4, *(int64,) * 7))
def _add_parts_kernel(T):
    ZERO = T(0)

    def add_parts(y, parts, bias, residual, has_bias, has_residual, relu, size, splits, plane, channels):
        for i in range(cuda.grid(1), size, cuda.gridsize(1)):
            total = parts[i]
            for split in range(1, splits):
                total += parts[split * size + i]
            if has_bias:
                total += bias[i // plane % channels]
            if has_residual:
                total += residual[i]
            if relu and total < ZERO:  # not so for NaN
                total = ZERO
            y[i] = total

    return add_parts


def _product_kernel(a_transposed, b_transposed, size):
    """Make the kernel of the product for one layout of its factors and one tile size.

    Copies into shared memory go along the axis that is contiguous: threads take neighbours in memory.
    """

    def product_kernel(T):
        (
            ROWS, COLS, THREADS, COL_VECTORS, VECTOR, OWN_COLS, SUMS, ACROSS, ROW_PITCH, COL_PITCH,
            ROW_MEMORY, COL_MEMORY, ROW_LOADS, COL_LOADS, multiply, stage, write_column,
        ) = core(T, size)  # fmt: skip
        OWN_ROWS = SUMS // OWN_COLS
        A_SHIFT, A_MASK = split_of(ROWS if a_transposed else DEPTH)
        B_SHIFT, B_MASK = split_of(DEPTH if b_transposed else COLS)
        A_SLOW, B_SLOW = THREADS >> A_SHIFT, THREADS >> B_SHIFT  # what a thread's copies are apart
        A_STEP = A_SLOW * ROW_PITCH if a_transposed else A_SLOW
        B_STEP = B_SLOW if b_transposed else B_SLOW * COL_PITCH
        ZERO = T(0)

        @inlined
        def write(y, total, mine, bias, has_bias, col, n, at, row, N, rows):
            if n < N:
                value = ZERO
                if has_bias:
                    value = bias[np.uint64(n)]
                for i in range(OWN_ROWS):
                    mine[i] = value
                write_column(y, total, mine, col, at + n, N, row, rows)

        @inlined
        def write_vector(y, total, mine, bias, has_bias, col, n, at, row, N, rows):
            write(y, total, mine, bias, has_bias, col, n, at, row, N, rows)
            if VECTOR > 1:
                write(y, total, mine, bias, has_bias, col + 1, n + 1, at, row, N, rows)
            if VECTOR > 2:
                write(y, total, mine, bias, has_bias, col + 2, n + 2, at, row, N, rows)
                write(y, total, mine, bias, has_bias, col + 3, n + 3, at, row, N, rows)

        def run(y, a, b, bias, has_bias, M, N, K, row_tiles, splits):
            if SIMULATED:
                left = cuda.shared.array(ROW_MEMORY, T)
                right = cuda.shared.array(COL_MEMORY, T)
            else:
                left = cuda.shared.array(ROW_MEMORY, T, alignment=16)
                right = cuda.shared.array(COL_MEMORY, T, alignment=16)
            total = cuda.local.array(SUMS, T)
            mine = cuda.local.array(OWN_ROWS, T)
            others = cuda.local.array(OWN_COLS, T)
            next_a = cuda.local.array(ROW_LOADS, T)
            next_b = cuda.local.array(COL_LOADS, T)
            for i in range(SUMS):
                total[i] = ZERO
            thread, block = cuda.threadIdx.x, cuda.blockIdx.x
            split = block % splits
            first_row, first_col = block // splits % row_tiles * ROWS, block // splits // row_tiles * COLS
            # which of the values this thread copies
            if a_transposed:
                am, ak = thread & A_MASK, thread >> A_SHIFT
            else:
                am, ak = thread >> A_SHIFT, thread & A_MASK
            if b_transposed:
                bn, bk = thread >> B_SHIFT, thread & B_MASK
            else:
                bn, bk = thread & B_MASK, thread >> B_SHIFT
            rows_left, cols_left = np.int32(M - first_row - am), np.int32(N - first_col - bn)
            steps = (K + DEPTH - 1) // DEPTH
            per_split = (steps + splits - 1) // splits
            begin = split * per_split
            end = min(begin + per_split, steps)
            for step in range(begin, end + 1):
                if step < end:
                    k = step * DEPTH
                    a_left, b_left = np.int32(K - k - ak), np.int32(K - k - bk)
                    if a_transposed:
                        at = (k + ak) * M + first_row + am
                        for i in range(ROW_LOADS):
                            value = ZERO
                            if i * A_SLOW < a_left and rows_left > 0:
                                value = a[np.uint64(at + i * A_SLOW * M)]
                            next_a[i] = value
                    else:
                        at = (first_row + am) * K + k + ak
                        for i in range(ROW_LOADS):
                            value = ZERO
                            if i * A_SLOW < rows_left and a_left > 0:
                                value = a[np.uint64(at + i * A_SLOW * K)]
                            next_a[i] = value
                    if b_transposed:
                        at = (first_col + bn) * K + k + bk
                        for i in range(COL_LOADS):
                            value = ZERO
                            if i * B_SLOW < cols_left and b_left > 0:
                                value = b[np.uint64(at + i * B_SLOW * K)]
                            next_b[i] = value
                    else:
                        at = (k + bk) * N + first_col + bn
                        for i in range(COL_LOADS):
                            value = ZERO
                            if i * B_SLOW < b_left and cols_left > 0:
                                value = b[np.uint64(at + i * B_SLOW * N)]
                            next_b[i] = value
                if step > begin:
                    half = (step - 1) & 1
                    multiply(total, mine, others, left, right, half, thread // ACROSS, thread & (ACROSS - 1))
                if step < end:
                    half = step & 1
                    stage(left, next_a, ROW_LOADS, (half * DEPTH + ak) * ROW_PITCH + am, A_STEP)
                    stage(right, next_b, COL_LOADS, (half * DEPTH + bk) * COL_PITCH + bn, B_STEP)
                cuda.syncthreads()
            row, col = thread // ACROSS, thread & (ACROSS - 1)
            at = (split * M + first_row) * N
            write_vector(y, total, mine, bias, has_bias, 0, first_col + col * VECTOR, at, row, N, M - first_row)
            if COL_VECTORS > 1:
                n = first_col + (ACROSS + col) * VECTOR
                write_vector(y, total, mine, bias, has_bias, VECTOR, n, at, row, N, M - first_row)

        return run

    product_kernel.__name__ = f"product_{'t' if a_transposed else 'n'}{'t' if b_transposed else 'n'}_{size}"
    threads = tile_of(size, "float32").threads  # no fewer than for float64
    return typed_kernel(lambda T: (*(T[::1],) * 4, *(int64,) * 6), threads)(product_kernel)


def split_of(size):
    """Return the shift and the mask that split a thread's number by a power of two."""
    assert size & (size - 1) == 0
    return size.bit_length() - 1, size - 1


#: By whether each factor is transposed, and by size: those that linear layers use.
_PRODUCTS: dict[tuple, Kernel] = {
    (a, b, size): _product_kernel(a, b, size)
    for a, b in ((False, True), (False, False), (True, False))
    for size in SIZES
}
