"""Gradients of a convolution's weights and bias: sums over all pixels of all pictures.

The gradient of one weight is the dot product of an output channel's gradient with the input pixels that its tap met.
``dot_tile`` computes a tile of them at once over a block of output rows, or of whole pictures where they are small.
A block packs its input rows as the forward pass does; the rows of ``dy`` are read where they are if they consist of
whole vectors, and otherwise packed too and filled up with zeros.

The blocks are dealt out to a fixed number of slots, each with partial sums of its own, which are added up in order:
the result does not depend on the number of threads.
"""

from functools import lru_cache
from typing import NamedTuple

import numba
import numpy as np
from numba import prange

from kernels.cpu import packing
from kernels.cpu.native import address_of, call
from kernels.cpu.packing import Layout, pack_gradient, pack_rows
from kernels.cpu.tiling import DOT, dot_size, lanes
from kernels.cpu.vector import clear, dot_tile
from kernels.jit import RELAXED, jit

# ---- public within the backend ---------------------------------------------------------------------------------------


def weight_gradient(dy, x, groups, rows, cols):
    """Return the gradient of the weights of a correlation.

    Parameters
    ----------
    dy : ndarray, shape (N, groups * out, oH, oW)
        Gradient with respect to the output, C-contiguous.
    x : ndarray, shape (N, groups * in, H, W)
        Input, C-contiguous.
    groups : int
        Number of groups.
    rows, cols : packing.Axis
        Which input rows and columns each output row and column met; of one piece each.

    Returns
    -------
    ndarray, shape (groups, out, in, kH, kW)
        Sums of products over all pixels of all pictures.
    """
    (row_piece,), (col_piece,) = rows.pieces, cols.pieces
    channels, in_channels = dy.shape[1] // groups, x.shape[1] // groups
    kernel = (in_channels, len(row_piece.kernel), len(col_piece.kernel))
    taps = int(np.prod(kernel))
    if dy.size == 0 or taps == 0:
        return np.zeros((groups, channels, *kernel), dy.dtype)
    plan = _plan(dy.dtype, dy.shape, x.shape, groups, rows, cols, numba.get_num_threads())
    size = plan.sizes
    sums = packing.new_array((size.slots, groups, size.tiles, size.tap_tiles, dot_size(dy.dtype)), dy.dtype)
    scratch = packing.scratch(plan.workers, plan.scratch_size, dy.dtype)
    arrays = _Arrays(sums.reshape(-1), packing.flat(dy), packing.flat(x))
    address = address_of(_slot_task, dy.dtype, (arrays, scratch[0], plan.tables, plan.layout, size, 0))
    _weight_gradient_kernel(address, tuple(arrays), scratch, tuple(plan.tables), tuple(plan.layout), tuple(size))
    with np.errstate(all="ignore"):  # infinities of both signs make NaN, silently
        total = sums.sum(axis=0)[..., : DOT.rows * DOT.columns]
    total = total.reshape(groups, size.tiles, size.tap_tiles, DOT.rows, DOT.columns).swapaxes(2, 3)
    total = total.reshape(groups, size.tiles * DOT.rows, size.tap_tiles * DOT.columns)
    return total[:, :channels, :taps].reshape(groups, channels, *kernel)


def channel_sums(dy):
    """Return the sum of ``dy`` over everything but channels: the gradient of a bias.

    Parameters
    ----------
    dy : ndarray, shape (N, C, H, W)
        Gradient with respect to the output, C-contiguous.

    Returns
    -------
    ndarray, shape (C,)
        Sums, rounded to dy's type at the end.
    """
    pictures, channels, height, width = dy.shape
    sums = np.zeros((pictures, channels), np.float64)
    if dy.size:
        _channel_sums_kernel(sums.reshape(-1), packing.flat(dy), height * width, width)
    with np.errstate(all="ignore"):
        return sums.sum(axis=0).astype(dy.dtype)


# ---- planning --------------------------------------------------------------------------------------------------------

#: Packed input rows and gradient rows of a block should stay in a core's second-level cache.
_PACKED_BYTES = 700_000
#: Pixels of a block: enough that adding up the lanes is little beside the products.
_BLOCK_PIXELS = 4096
#: Slots at most, and the memory that all partial sums may take.
_SLOTS = 32
_SUMS_BYTES = 8_000_000
#: What it costs to pack one vector, in multiplications of a vector.
_PACKING_COST = 4


class _Sizes(NamedTuple):
    """What a task must know of the shapes."""

    tasks: int
    groups: int
    channels: int
    tiles: int  # of output channels
    tap_tiles: int
    tap_count: int
    height: int  # of dy
    width: int
    padded_width: int
    pictures: int
    block_pictures: int  # 1, unless a block holds all rows of a picture
    block_rows: int
    row_blocks: int
    blocks: int
    slots: int
    parts: int
    lanes: int
    dot_size: int
    packed_gradient: int  # whether dy is packed: where, and how many numbers for one channel of a block
    gradient_start: int
    gradient_size: int


class _Tables(NamedTuple):
    """Arrays of int64 that follow from the shapes."""

    taps: np.ndarray  # where each tap starts in the packed rows
    in_offsets: np.ndarray  # where each vector of pixels of a block reads, and how many lanes of it count
    counts: np.ndarray
    row_phases: np.ndarray
    col_phases: np.ndarray


class _Plan(NamedTuple):
    """How the weight gradient of one shape is computed."""

    workers: int
    scratch_size: int
    tables: _Tables
    layout: packing.Layout
    sizes: _Sizes


@lru_cache(maxsize=1024)
def _plan(dtype, dy_shape, x_shape, groups, rows, cols, threads):
    """Return the plan for arrays of these shapes."""
    pictures, all_channels, height, width = dy_shape
    channels, in_channels = all_channels // groups, x_shape[1] // groups
    (row_piece,), (col_piece,) = rows.pieces, cols.pieces
    width_of_vector = lanes(dtype)
    padded_width = -(-width // width_of_vector) * width_of_vector

    def layout_for(block_rows):
        return packing.layout_of(in_channels, x_shape[2], x_shape[3], rows, cols, block_rows, padded_width)

    def block_bytes(block_rows):
        x_size = in_channels * layout_for(block_rows).channel_size
        return dtype.itemsize * (x_size + channels * block_rows * padded_width)

    block_rows = min(height, max(1, _BLOCK_PIXELS // padded_width))
    while block_rows > 1 and block_bytes(block_rows) > _PACKED_BYTES:
        block_rows -= 1
    row_blocks = -(-height // block_rows)
    block_rows = -(-height // row_blocks)  # of about equal size
    block_pictures = 1
    if row_blocks == 1:
        fit = min(_BLOCK_PIXELS // (block_rows * padded_width), _PACKED_BYTES // block_bytes(block_rows))
        block_pictures = max(1, min(pictures, fit))
    blocks = -(-pictures // block_pictures) * row_blocks

    layout = layout_for(block_rows)
    picture_size, row_size = in_channels * layout.channel_size, layout.row_size
    taps = packing.tap_offsets(layout, rows, cols, row_piece, col_piece)
    tiles, tap_tiles = -(-channels // DOT.rows), -(-taps.size // DOT.columns)
    sums_bytes = groups * tiles * tap_tiles * dot_size(dtype) * dtype.itemsize
    slots = max(1, min(blocks, _SLOTS, _SUMS_BYTES // sums_bytes))
    # every part packs the same input rows once more, but does not change the sums: as many as suit the threads
    choices = np.array([p for p in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32) if p <= tiles])
    rounds = -(-slots * groups * choices // threads)
    products = -(-tiles // choices) * DOT.rows * tap_tiles * DOT.columns * block_pictures * block_rows * padded_width
    parts = int(choices[np.argmin(rounds * (products + _PACKING_COST * block_pictures * picture_size))])
    packed_gradient = padded_width > width or block_pictures > 1
    gradient_start = -(-block_pictures * picture_size // 64) * 64
    gradient_size = block_pictures * block_rows * padded_width
    sizes = _Sizes(
        tasks=slots * groups * parts,
        groups=groups,
        channels=channels,
        tiles=tiles,
        tap_tiles=tap_tiles,
        tap_count=taps.size,
        height=height,
        width=width,
        padded_width=padded_width,
        pictures=pictures,
        block_pictures=block_pictures,
        block_rows=block_rows,
        row_blocks=row_blocks,
        blocks=blocks,
        slots=slots,
        parts=parts,
        lanes=width_of_vector,
        dot_size=dot_size(dtype),
        packed_gradient=int(packed_gradient),
        gradient_start=gradient_start,
        gradient_size=gradient_size,
    )
    picture, row, col = np.meshgrid(
        np.arange(block_pictures), np.arange(block_rows), np.arange(0, width, width_of_vector), indexing="ij"
    )
    in_offsets = (picture * picture_size + row * row_size + col).reshape(-1).astype(np.int64)
    counts = np.minimum(width - col, width_of_vector).reshape(-1).astype(np.int64)
    # the last tile of taps repeats the last tap
    taps = np.append(taps, np.full(tap_tiles * DOT.columns - taps.size, taps[-1]))
    phases = [np.array(packing.phases_of(axis).phases, np.int64) for axis in (rows, cols)]
    scratch_size = gradient_start + packed_gradient * channels * gradient_size
    return _Plan(min(threads, sizes.tasks), scratch_size, _Tables(taps, in_offsets, counts, *phases), layout, sizes)


# ---- kernels ---------------------------------------------------------------------------------------------------------


class _Arrays(NamedTuple):
    """The flat arrays that all tasks share."""

    sums: np.ndarray
    dy: np.ndarray
    x: np.ndarray


class _Block(NamedTuple):
    """Rows of one picture, or some whole pictures; of one group, for some tiles of output channels."""

    group: int
    first_picture: int
    pictures: int
    first_row: int
    rows: int
    first_tile: int
    last_tile: int


@jit(parallel=True)
def _weight_gradient_kernel(address, arrays, scratch, tables, layout, sizes):
    """Share the tasks out to as many workers as there are rows of scratch."""
    # named here: Numba takes long to recognise a named tuple that comes from Python
    named_arrays, named_tables = _Arrays(*arrays), _Tables(*tables)
    named_layout, named_sizes = Layout(*layout), _Sizes(*sizes)
    workers, tasks = scratch.shape[0], named_sizes.tasks
    for worker in prange(workers):
        first = np.int64(worker) * tasks // workers
        last = (np.int64(worker) + 1) * tasks // workers
        for task in range(first, last):
            call(address, named_arrays, scratch[worker], named_tables, named_layout, named_sizes, task)


@jit
def _slot_task(arrays, scratch, tables, layout, sizes, task):
    """Sum over the blocks of one slot, for one group and some tiles of output channels."""
    part, rest = task % sizes.parts, task // sizes.parts
    group, slot = rest % sizes.groups, rest // sizes.groups
    first_tile, last_tile = part * sizes.tiles // sizes.parts, (part + 1) * sizes.tiles // sizes.parts
    tile_size = sizes.tap_tiles * sizes.dot_size
    sums_start = (slot * sizes.groups + group) * sizes.tiles * tile_size
    clear(arrays.sums, sums_start + first_tile * tile_size, (last_tile - first_tile) * tile_size)
    for number in range(slot * sizes.blocks // sizes.slots, (slot + 1) * sizes.blocks // sizes.slots):
        first_row = number % sizes.row_blocks * sizes.block_rows
        first_picture = number // sizes.row_blocks * sizes.block_pictures
        rows = min(sizes.block_rows, sizes.height - first_row)
        pictures = min(sizes.block_pictures, sizes.pictures - first_picture)
        block = _Block(group, first_picture, pictures, first_row, rows, first_tile, last_tile)
        _pack_block(arrays, scratch, tables, layout, sizes, block)
        _add_block(arrays, scratch, tables, sizes, block, sums_start)


@jit
def _pack_block(arrays, scratch, tables, layout, sizes, block):
    """Pack the input rows of one block, and its gradient rows where they are not whole vectors."""
    phases = tables.row_phases, tables.col_phases
    rows = block.rows + layout.rows - sizes.block_rows
    for i in range(block.pictures):
        plane = (block.first_picture + i) * sizes.groups + block.group
        start, x_start = (
            i * layout.channels * layout.channel_size,
            plane * layout.channels * layout.height * layout.width,
        )
        pack_rows(scratch, start, arrays.x, x_start, block.first_row, rows, *phases, layout)
        if sizes.packed_gradient:
            for channel in range(block.first_tile * DOT.rows, min(block.last_tile * DOT.rows, sizes.channels)):
                to = sizes.gradient_start + channel * sizes.gradient_size + i * sizes.block_rows * sizes.padded_width
                row = (plane * sizes.channels + channel) * sizes.height + block.first_row
                pack_gradient(scratch, to, arrays.dy, row * sizes.width, block.rows, sizes.width, sizes.padded_width)


@jit
def _add_block(arrays, scratch, tables, sizes, block, sums_start):
    """Add the dot products over one block to the sums of its slot."""
    gradient, start, channel_size = scratch, sizes.gradient_start, sizes.gradient_size
    if not sizes.packed_gradient:
        channel_size = sizes.height * sizes.width
        plane = block.first_picture * sizes.groups + block.group
        gradient, start = arrays.dy, plane * sizes.channels * channel_size + block.first_row * sizes.width
    vectors = block.pictures * block.rows * (sizes.padded_width // sizes.lanes)
    for tap_tile in range(sizes.tap_tiles):
        for tile in range(block.first_tile, block.last_tile):
            channel = tile * DOT.rows
            dot_tile(
                arrays.sums,
                sums_start + (tile * sizes.tap_tiles + tap_tile) * sizes.dot_size,
                gradient,
                start + channel * channel_size,
                channel_size,
                sizes.channels - channel,
                scratch,
                tables.in_offsets,
                tables.counts,
                vectors,
                tables.taps,
                tap_tile * DOT.columns,
            )


@jit(parallel=True)
def _channel_sums_kernel(sums, dy, size, width):
    """Sum every plane of ``size`` pixels, in float64 over sums of rows of ``width`` pixels."""
    for plane in prange(sums.size):
        sums[plane] = _plane_sum(dy, np.int64(plane) * size, size, width)


@jit(fastmath=RELAXED)
def _plane_sum(dy, start, size, width):
    """Return the sum of one plane. Reordering lets a row's sum use vectors; it is the same order every time."""
    total = 0.0
    for row in range(start, start + size, width):
        pixels = dy[row : row + width]  # counted from 0, so that no index can be negative: then it vectorises
        row_total = dy.dtype.type(0)
        for j in range(width):
            row_total += pixels[j]
        total += row_total
    return total
