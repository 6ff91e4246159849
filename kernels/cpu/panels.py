"""Products with panels: what small deep convolutions, their weight gradients and matrix products have in common.

A panel holds a few vectors of output channels side by side, one row for each term of the sums. ``multiply_panel``
multiplies it with rows of numbers that a table of offsets finds wherever they are: pixels of packed maps, or a matrix.
Lanes are channels, so the width of a map, its stride and the number of its pictures cut no vector short, which lanes
of pixels (see ``correlation``) suffer from.

Every sum is taken in chunks of fixed length, added up in order: how the work is cut up does not change the result.
"""

from typing import NamedTuple

import numba
import numpy as np
from numba import prange

from kernels.cpu import packing
from kernels.cpu.native import address_of, call
from kernels.cpu.packing import Layout
from kernels.cpu.tiling import PANEL, VECTOR_BYTES, panel_width
from kernels.cpu.vector import clear, copy, copy_spaced, multiply_panel, transpose_square
from kernels.jit import jit

#: Terms of a chunk: its part of a panel stays in a core's second-level cache while all rows meet it.
CHUNK = 1024
#: Rows of a matrix product that one task computes at most.
_ROWS = 1024


class Sizes(NamedTuple):
    """What a task must know of the shapes. Rows and pictures are those of a convolution's output, or of a matrix."""

    tasks: int
    panels: int
    channels: int
    depth: int  # terms of a sum, all chunks together
    chunk: int
    height: int
    block_rows: int
    row_blocks: int
    panel_start: int  # in scratch
    sums_start: int
    transposed: int = 0
    parts: int = 1
    pictures: int = 1
    block_pictures: int = 1
    width: int = 1
    picture_size: int = 0  # numbers of a packed picture
    group: int = 0  # input channels of a task of the weight gradient
    kernel: int = 1  # taps per input channel
    slots: int = 1  # of the weight gradient: partial sums, and panels of a task
    panel_group: int = 1
    direct: int = 0  # whether the input is read where it is, not packed
    row_step: int = 0  # of a matrix that is packed into panels, or of an input that is read where it is
    run_step: int = 0
    out_start: int = 0  # where outputs lie apart: the first one, and how far it is to the next row, column
    out_row: int = 0
    out_col: int = 0  # 0: they do not
    out_size: int = 0  # numbers of a channel of the whole output
    turned_start: int = 0  # in scratch, where they wait


class Tables(NamedTuple):
    """Arrays of int64: where the rows and columns of what is multiplied are; phases for packing."""

    rows: np.ndarray
    cols: np.ndarray
    row_phases: np.ndarray
    col_phases: np.ndarray


class Arrays(NamedTuple):
    """The flat arrays that all tasks share; ``bias`` is filled up to whole panels, or empty."""

    out: np.ndarray
    a: np.ndarray
    b: np.ndarray
    bias: np.ndarray


_NO_LAYOUT = packing.Layout(*[0] * len(packing.Layout._fields))
_NO_PHASES = np.zeros(0, np.int64)


def run_tasks(task, arrays, tables, layout, sizes, scratch_size, threads):
    """Run all tasks, ``task(arrays, scratch, tables, layout, sizes, number)``, on so many threads."""
    dtype = arrays.out.dtype
    scratch = packing.scratch(max(1, min(threads, sizes.tasks)), scratch_size, dtype)
    address = address_of(task, dtype, (arrays, scratch[0], tables, layout, sizes, 0))
    _run_kernel(address, tuple(arrays), scratch, tuple(tables), tuple(layout), tuple(sizes))


def panel_bias(bias, channels, dtype):
    """Return what each output channel starts at, filled up with zeros to whole panels."""
    width = panel_width(dtype)
    filled = np.zeros(-(-channels // width) * width, dtype)
    if bias is not None:
        filled[:channels] = bias
    return filled


def pack_panels(matrix, rows, row_step, runs, run_step, run):
    """Return panels whose lanes are the rows of a matrix, as (panels, runs * run, lanes) in one line.

    Term ``i * run + j`` of row r is number ``r * row_step + i * run_step + j`` of the flat array ``matrix``. Lanes
    beyond the last row are zeros.
    """
    width, depth = panel_width(matrix.dtype), runs * run
    panels = -(-rows // width)
    packed = packing.scratch(1, panels * width * depth, matrix.dtype, "panels")[0]
    sizes = Sizes(
        tasks=panels,
        panels=panels,
        channels=rows,
        depth=depth,
        chunk=run,
        height=runs,
        block_rows=1,
        row_blocks=runs,
        panel_start=0,
        sums_start=0,
        row_step=row_step,
        run_step=run_step,
    )
    nothing = np.zeros(0, matrix.dtype)
    arrays = Arrays(packed, matrix, nothing, nothing)
    tables = Tables(_NO_PHASES, _NO_PHASES, _NO_PHASES, _NO_PHASES)
    run_tasks(_pack_task, arrays, tables, _NO_LAYOUT, sizes, 0, numba.get_num_threads())
    return packed


@jit
def _pack_task(arrays, scratch, tables, layout, sizes, panel):
    """Pack one panel (see ``pack_panels``): ``height`` runs of ``chunk`` terms."""
    width = PANEL.columns * (VECTOR_BYTES // arrays.out.itemsize)
    first, size = panel * width, sizes.chunk * width
    channels = min(width, sizes.channels - first)
    start = panel * sizes.height * size
    if channels < width:
        clear(arrays.out, start, sizes.height * size)
    for i in range(sizes.height):
        source = first * sizes.row_step + i * sizes.run_step
        transpose(arrays.out, start + i * size, width, arrays.a, source, sizes.row_step, channels, sizes.chunk)


# ---- matrix products -------------------------------------------------------------------------------------------------


def matrix_product(a, row_offsets, col_offsets, b, channels, *, transposed, bias, threads):
    """Return the matrix whose row m is ``bias`` plus the sum of ``a[row_offsets[m] + col_offsets[k]] * b[k]``.

    Parameters
    ----------
    a : ndarray, flat
        First factor.
    row_offsets, col_offsets : ndarray of int64, (M,), (K,)
        Where its elements are.
    b : ndarray, flat
        Second factor, C-contiguous (K, channels); or, with ``transposed``, (channels, K).
    channels : int
        Columns of the product.
    transposed : bool
        See ``b``.
    bias : ndarray or None, (channels,)
        What each row starts at.
    threads : int
        Number of threads.

    Returns
    -------
    ndarray, (M, channels)
        The product.
    """
    rows, depth, width = row_offsets.size, col_offsets.size, panel_width(b.dtype)
    out = packing.new_array((rows, channels), b.dtype)
    panels = -(-channels // width)
    row_blocks = max(-(-rows // _ROWS), min(-(-4 * threads // panels), -(-rows // 64)))
    block_rows = -(-rows // row_blocks)
    row_blocks = -(-rows // block_rows)
    chunk = max(1, min(depth, CHUNK))
    sizes = Sizes(
        tasks=panels * row_blocks,
        panels=panels,
        channels=channels,
        depth=depth,
        chunk=chunk,
        height=rows,
        block_rows=block_rows,
        row_blocks=row_blocks,
        panel_start=0,
        sums_start=chunk * width,
        transposed=int(transposed),
    )
    arrays = Arrays(packing.flat(out), a, b, panel_bias(bias, channels, b.dtype))
    tables = Tables(row_offsets, col_offsets, _NO_PHASES, _NO_PHASES)
    run_tasks(_product_task, arrays, tables, _NO_LAYOUT, sizes, (chunk + block_rows) * width, threads)
    return out


@jit
def _product_task(arrays, scratch, tables, layout, sizes, task):
    """Compute some rows of one panel of a matrix product."""
    width = PANEL.columns * (VECTOR_BYTES // scratch.itemsize)
    panel, first = task // sizes.row_blocks, task % sizes.row_blocks * sizes.block_rows
    rows = min(sizes.block_rows, sizes.height - first)
    channel = panel * width
    channels = min(width, sizes.channels - channel)
    for m in range(rows):
        copy(scratch, sizes.sums_start + m * width, arrays.bias, channel, width)
    if channels < width:
        clear(scratch, sizes.panel_start, sizes.chunk * width)
    for start in range(0, sizes.depth, sizes.chunk):
        terms = min(sizes.chunk, sizes.depth - start)
        if sizes.transposed:
            source = channel * sizes.depth + start
            transpose(scratch, sizes.panel_start, width, arrays.b, source, sizes.depth, channels, terms)
        else:
            for k in range(terms):
                source = (start + k) * sizes.channels + channel
                copy(scratch, sizes.panel_start + k * width, arrays.b, source, channels)
        # fmt: off
        add_products(
            scratch, sizes.sums_start, arrays.a, tables.rows, first, rows, tables.cols, start, terms,
            scratch, sizes.panel_start,
        )
        # fmt: on
    for m in range(rows):
        to = (first + m) * sizes.channels + channel
        copy(arrays.out, to, scratch, sizes.sums_start + m * width, channels)


# ---- shared by the tasks ---------------------------------------------------------------------------------------------


@jit(parallel=True)
def _run_kernel(address, arrays, scratch, tables, layout, sizes):
    """Share the tasks out to as many workers as there are rows of scratch."""
    # named here: Numba takes long to recognise a named tuple that comes from Python
    named_arrays, named_tables = Arrays(*arrays), Tables(*tables)
    named_layout, named_sizes = Layout(*layout), Sizes(*sizes)
    workers, tasks = scratch.shape[0], named_sizes.tasks
    for worker in prange(workers):
        first = np.int64(worker) * tasks // workers
        last = (np.int64(worker) + 1) * tasks // workers
        for task in range(first, last):
            call(address, named_arrays, scratch[worker], named_tables, named_layout, named_sizes, task)


@jit
def add_products(sums, sums_start, a, row_offsets, first, rows, col_offsets, first_col, cols, panel, panel_start):
    """Add the products of ``rows`` rows with one panel to ``sums``, a tile at a time."""
    width = PANEL.columns * (VECTOR_BYTES // sums.itemsize)
    for m in range(0, rows, PANEL.rows):
        # fmt: off
        multiply_panel(
            sums, sums_start + m * width, a, row_offsets, first + m, rows - m, col_offsets, first_col, cols,
            panel, panel_start,
        )
        # fmt: on


@jit
def transpose(to, to_start, to_step, source, source_start, source_step, rows, cols):
    """Copy a matrix of ``rows`` by ``cols`` transposed; the rows of either are ``_step`` apart."""
    lanes = VECTOR_BYTES // to.itemsize
    whole_rows, whole_cols = rows // lanes * lanes, cols // lanes * lanes
    for r in range(0, whole_rows, lanes):
        for c in range(0, whole_cols, lanes):
            transpose_square(
                to, to_start + c * to_step + r, to_step, source, source_start + r * source_step + c, source_step
            )
    for c in range(whole_cols, cols):
        copy_spaced(to, to_start + c * to_step, 1, source, source_start + c, source_step, rows)
    for r in range(whole_rows, rows):
        copy_spaced(to, to_start + r, to_step, source, source_start + r * source_step, 1, whole_cols)
