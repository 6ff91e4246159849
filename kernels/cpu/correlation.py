"""Sums of weights times pixels: convolution, its input gradient and transposed convolution, all by one kernel.

A correlation gives every output channel, at every position, a bias plus the weighted sum of the input pixels that
the kernel meets there. A convolution is one; so is its input gradient, which reads the output's gradient with the
kernel's axes exchanged (for stride s, one correlation per position modulo s); and a transposed convolution is the
input gradient of a convolution by another name. They differ in the two ``Axis`` that say which input an output
meets.

A task is a block of output rows of one picture and one group of channels. It packs the input rows once, then runs
``multiply_wide``, or ``multiply_narrow`` for few channels, over all tiles of output channels and pixels. Each output
is one sum in one fixed order, so how the work is cut up does not change the result.
"""

from functools import lru_cache
from typing import NamedTuple

import numba
import numpy as np
from numba import prange

from kernels.cpu import packing
from kernels.cpu.native import address_of, call
from kernels.cpu.packing import Layout, pack_rows
from kernels.cpu.pixel_vectors import merge_pairs
from kernels.cpu.tiling import NARROW, lanes, multiply_tiling
from kernels.cpu.vector import copy_spaced, multiply_narrow, multiply_wide
from kernels.jit import jit

# ---- public within the backend ---------------------------------------------------------------------------------------


def correlate(x, weight, bias, out_size, rows, cols, residual=None, relu=False):
    """Return the correlation of ``x`` with ``weight``.

    Parameters
    ----------
    x : ndarray, shape (N, groups * in, H, W)
        Input, C-contiguous.
    weight : ndarray, shape (groups, out, in, kH, kW)
        Weights, in any memory layout.
    bias : ndarray or None, shape (groups * out,)
        What each output starts at, 0 without it.
    out_size : (int, int)
        Height and width of the output.
    rows, cols : packing.Axis
        Which input rows and columns each output row and column meets.
    residual : ndarray or None, shape of the output
        What is added at the end, C-contiguous; only where the columns are of one piece.
    relu : bool
        Whether what is below 0 then becomes 0.

    Returns
    -------
    ndarray, shape (N, groups * out, height, width)
        Weighted sums, of x's type.
    """
    groups, channels = weight.shape[:2]
    out = packing.new_array((x.shape[0], groups * channels, *out_size), x.dtype)
    if out.size == 0:
        return out
    plan = _plan(x.dtype, x.shape, weight.shape, out_size, rows, cols, numba.get_num_threads())
    tile_bias = np.zeros((groups, plan.sizes.tiles * plan.sizes.tile_rows), x.dtype)
    if bias is not None:
        tile_bias[:, :channels] = bias.reshape(groups, channels)
    weights = packing.pack_weights(weight, plan.kernels, plan.sizes.tile_rows)
    scratch = packing.scratch(plan.workers, plan.scratch_size, x.dtype)
    add = packing.flat(x if residual is None else residual)  # without one, any array: it is not read
    arrays = _Arrays(packing.flat(out), packing.flat(x), weights, tile_bias.reshape(-1), add)
    sizes = plan.sizes._replace(add=int(residual is not None), relu=int(relu))
    address = address_of(_correlate_task, x.dtype, (arrays, scratch[0], plan.tables, plan.layout, sizes, 0))
    _correlate_kernel(address, tuple(arrays), scratch, tuple(plan.tables), tuple(plan.layout), tuple(sizes))
    return out


# ---- planning --------------------------------------------------------------------------------------------------------

#: Scratch for packed rows should leave room for weights in a core's second-level cache.
_PACKED_BYTES = 400_000
#: Weights larger than this are read once per task, and the pixels once per tile of channels, not the other way round.
_WEIGHT_BYTES = 500_000
#: What it costs to pack one vector, in multiplications of a vector.
_PACKING_COST = 4


class _Sizes(NamedTuple):
    """What a task must know of the shapes; ``rows`` counts a piece's, ``tiles`` are of output channels in a group."""

    tasks: int
    groups: int
    channels: int
    tiles: int
    tile_rows: int
    tile_vectors: int
    narrow: int
    out_height: int
    out_width: int
    row_step: int
    col_step: int
    rows: int
    block_rows: int
    blocks: int
    parts: int
    lanes: int
    col_pieces: int
    result_start: int  # in scratch, with columns between two outputs of a piece: where the results of a piece wait
    result_size: int
    result_channel: int
    result_row: int
    weights_outside: int
    add: int = 0  # whether a residual is added, and a ReLU applied
    relu: int = 0


class _Tables(NamedTuple):
    """Arrays of int64 that follow from the shapes."""

    taps: np.ndarray  # per piece: where each tap starts in the packed rows
    in_offsets: np.ndarray  # per piece and vector of pixels: where it reads, where it writes, how many lanes it writes
    out_offsets: np.ndarray
    counts: np.ndarray
    pieces: np.ndarray  # per piece: first row and column, rows, columns, first tap, taps, first vector, first weight
    row_phases: np.ndarray
    col_phases: np.ndarray


class _Plan(NamedTuple):
    """How one shape of correlation is computed."""

    workers: int
    scratch_size: int
    kernels: tuple  # per piece: its kernel rows and columns
    tables: _Tables
    layout: packing.Layout
    sizes: _Sizes


def _cut(dtype, tasks, channels, in_channels, rows, cols, piece_rows, padded_width, taps, threads):
    """Return the number of output rows of a block, and of parts of the output channels, that cost the least."""
    row, col = packing.phases_of(rows), packing.phases_of(cols)
    tile = multiply_tiling(channels)
    tiles = -(-channels // tile.rows)
    block_rows = np.arange(1, piece_rows + 1)[:, None]
    parts = np.array([p for p in (1, 2, 4, 8, 16, 32) if p <= tiles])
    row_size = len(col.phases) * (padded_width + col.reach)
    packed = in_channels * len(row.phases) * (block_rows + row.reach) * row_size
    vectors = -(-block_rows * (padded_width // lanes(dtype)) // tile.columns) * tile.columns
    compute = vectors * tile.rows * -(-tiles // parts) * taps
    rounds = -(-tasks * -(-piece_rows // block_rows) * parts // threads)
    cost = rounds * (compute + _PACKING_COST * packed / lanes(dtype))
    cost = np.where((packed * dtype.itemsize > _PACKED_BYTES) & (block_rows > 1), np.inf, cost)
    best_rows, best_parts = np.unravel_index(np.argmin(cost), cost.shape)
    return int(best_rows) + 1, int(parts[best_parts])


@lru_cache(maxsize=1024)
def _plan(dtype, x_shape, weight_shape, out_size, rows, cols, threads):
    """Return the plan for arrays of these shapes."""
    pictures, _, height, width = x_shape
    groups, channels, in_channels = weight_shape[:3]
    width_of_vector, tile = lanes(dtype), multiply_tiling(channels)
    tiles = -(-channels // tile.rows)

    piece_rows, piece_cols = -(-out_size[0] // rows.step), -(-out_size[1] // cols.step)  # of the first, largest piece
    padded_width = -(-piece_cols // width_of_vector) * width_of_vector
    tap_count = in_channels * sum(len(p.kernel) for p in rows.pieces) * sum(len(p.kernel) for p in cols.pieces)
    cut = (channels, in_channels, rows, cols, piece_rows, padded_width, tap_count, threads)
    block_rows, parts = _cut(dtype, pictures * groups, *cut)
    layout = packing.layout_of(in_channels, height, width, rows, cols, block_rows, padded_width)

    kernels, taps, vectors, pieces = [], [], [], []
    taps_before = vectors_before = weights_before = 0
    for row_piece in rows.pieces:
        for col_piece in cols.pieces:
            kernels.append((row_piece.kernel, col_piece.kernel))
            taps.append(packing.tap_offsets(layout, rows, cols, row_piece, col_piece))
            size = [
                -(-(n - piece.start) // axis.step)
                for n, axis, piece in zip(out_size, (rows, cols), (row_piece, col_piece), strict=True)
            ]
            out_row = padded_width if cols.step > 1 else rows.step * out_size[1]
            vectors.append(_vectors(layout, block_rows, size[1], width_of_vector, out_row))
            starts = (row_piece.start, col_piece.start, *size)
            pieces.append((*starts, taps_before, taps[-1].size, vectors_before, weights_before))
            taps_before += taps[-1].size
            vectors_before += vectors[-1].shape[1]
            weights_before += groups * tiles * taps[-1].size * tile.rows

    blocks = -(-piece_rows // block_rows)
    tasks = pictures * groups * blocks * parts
    packed_size = -(-layout.channels * layout.channel_size // 64) * 64
    result_size = channels * block_rows * padded_width if cols.step > 1 else 0
    scratch_size = packed_size + len(cols.pieces) * result_size
    sizes = _Sizes(
        tasks=tasks,
        groups=groups,
        channels=channels,
        tiles=tiles,
        tile_rows=tile.rows,
        tile_vectors=tile.columns,
        narrow=int(tile == NARROW),
        out_height=out_size[0],
        out_width=out_size[1],
        row_step=rows.step,
        col_step=cols.step,
        rows=piece_rows,
        block_rows=block_rows,
        blocks=blocks,
        parts=parts,
        lanes=width_of_vector,
        col_pieces=len(cols.pieces),
        result_start=packed_size,
        result_size=result_size,
        result_channel=block_rows * padded_width,
        result_row=padded_width,
        weights_outside=int(tiles * tile.rows * tap_count * dtype.itemsize > _WEIGHT_BYTES),
    )
    phases = [np.array(packing.phases_of(axis).phases, np.int64) for axis in (rows, cols)]
    in_offsets, out_offsets, counts = np.concatenate(vectors, axis=1)
    tables = _Tables(np.concatenate(taps), in_offsets, out_offsets, counts, np.array(pieces, np.int64), *phases)
    return _Plan(min(threads, tasks), scratch_size, tuple(kernels), tables, layout, sizes)


def _vectors(layout, block_rows, cols, width_of_vector, out_row):
    """Return where each vector of a block's pixels reads, where it writes, and how many lanes it writes."""
    r, j = np.meshgrid(np.arange(block_rows), np.arange(0, cols, width_of_vector), indexing="ij")
    reads = r * layout.row_size + j
    writes = r * out_row + j
    counts = np.minimum(cols - j, width_of_vector)
    return np.stack([reads.ravel(), writes.ravel(), counts.ravel()]).astype(np.int64)


# ---- the kernel ------------------------------------------------------------------------------------------------------


class _Arrays(NamedTuple):
    """The flat arrays that all tasks share."""

    out: np.ndarray
    x: np.ndarray
    weights: np.ndarray
    bias: np.ndarray
    residual: np.ndarray


class _Part(NamedTuple):
    """The share of one task in a piece: rows of one plane (picture and group), and tiles of output channels."""

    plane: int
    first_row: int
    rows: int
    first_tile: int
    last_tile: int


@jit(parallel=True)
def _correlate_kernel(address, arrays, scratch, tables, layout, sizes):
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
def _correlate_task(arrays, scratch, tables, layout, sizes, task):
    """Pack the rows of one block, then run the tiles of each piece."""
    part, block = task % sizes.parts, task // sizes.parts % sizes.blocks
    plane = task // (sizes.parts * sizes.blocks)  # picture * groups + group
    first_row = block * sizes.block_rows
    block_rows = min(sizes.block_rows, sizes.rows - first_row)
    first_tile, last_tile = part * sizes.tiles // sizes.parts, (part + 1) * sizes.tiles // sizes.parts

    x_start = plane * layout.channels * layout.height * layout.width
    packed_rows = block_rows + layout.rows - sizes.block_rows
    phases = tables.row_phases, tables.col_phases
    pack_rows(scratch, 0, arrays.x, x_start, first_row, packed_rows, *phases, layout)
    for p in range(tables.pieces.shape[0]):
        rows = min(block_rows, tables.pieces[p, 2] - first_row)
        if rows > 0:
            share = _Part(plane, first_row, rows, first_tile, last_tile)
            result_start = sizes.result_start + p % sizes.col_pieces * sizes.result_size
            _correlate_piece(arrays, scratch, tables, sizes, tables.pieces[p], share, result_start)
            if sizes.col_step > 1 and (p + 1) % sizes.col_pieces == 0:
                _merge_columns(arrays.out, scratch, tables.pieces[p + 1 - sizes.col_pieces : p + 1], sizes, share)


@jit
def _correlate_piece(arrays, scratch, tables, sizes, piece, share, result_start):
    """Compute a task's share of one piece from packed rows."""
    start_row, _, _, cols, tap_start, tap_count, vector_start, weight_start = piece
    row_vectors = (cols + sizes.lanes - 1) // sizes.lanes
    vectors = share.rows * row_vectors
    out_size = sizes.out_height * sizes.out_width
    out_row = start_row + sizes.row_step * share.first_row
    out_start = share.plane * sizes.channels * out_size + out_row * sizes.out_width
    group = share.plane % sizes.groups

    target, target_start, channel_size = arrays.out, out_start, out_size
    if sizes.col_step > 1:
        target, target_start, channel_size = scratch, result_start, sizes.result_channel
    pixel_tiles = (vectors + sizes.tile_vectors - 1) // sizes.tile_vectors
    channel_tiles = share.last_tile - share.first_tile
    outer, inner = pixel_tiles, channel_tiles
    if sizes.weights_outside:
        outer, inner = channel_tiles, pixel_tiles
    for a in range(outer):
        for b in range(inner):
            tile, first = share.first_tile + b, a * sizes.tile_vectors
            if sizes.weights_outside:
                tile, first = share.first_tile + a, b * sizes.tile_vectors
            channel = tile * sizes.tile_rows
            place = target_start + channel * channel_size, channel_size, sizes.channels - channel
            bias_start = (group * sizes.tiles + tile) * sizes.tile_rows
            weights_from = weight_start + bias_start * tap_count
            pixels = vector_start + first, vectors - first
            # fmt: off
            if sizes.narrow:
                multiply_narrow(
                    target, *place, tables.out_offsets, tables.counts, scratch, tables.in_offsets, *pixels,
                    tables.taps, tap_start, tap_count, arrays.weights, weights_from, arrays.bias, bias_start,
                    arrays.residual, sizes.add, sizes.relu, scratch, 0, 0, 0,
                )
            else:
                multiply_wide(
                    target, *place, tables.out_offsets, tables.counts, scratch, tables.in_offsets, *pixels,
                    tables.taps, tap_start, tap_count, arrays.weights, weights_from, arrays.bias, bias_start,
                    arrays.residual, sizes.add, sizes.relu, scratch, 0, 0, 0,
                )
            # fmt: on


@jit
def _merge_columns(out, scratch, pieces, sizes, share):
    """Write the rows of the pieces of one row piece, whose columns take turns in the output."""
    out_size = sizes.out_height * sizes.out_width
    out_row = pieces[0, 0] + sizes.row_step * share.first_row
    out_start = share.plane * sizes.channels * out_size + out_row * sizes.out_width
    last_channel = min(share.last_tile * sizes.tile_rows, sizes.channels)
    for channel in range(share.first_tile * sizes.tile_rows, last_channel):
        for r in range(share.rows):
            source = sizes.result_start + channel * sizes.result_channel + r * sizes.result_row
            to = out_start + channel * out_size + r * sizes.row_step * sizes.out_width
            merged = 0
            if sizes.col_step == 2 and sizes.col_pieces == 2:
                merged = pieces[1, 3]
                merge_pairs(out, to, scratch, source, source + sizes.result_size, merged)
            for p in range(sizes.col_pieces):
                place = to + pieces[p, 1] + sizes.col_step * merged
                result = source + p * sizes.result_size + merged
                copy_spaced(out, place, sizes.col_step, scratch, result, 1, pieces[p, 3] - merged)
