"""Convolutions whose kernels do not overlap: a product of a matrix of weights with the pixels of a picture.

That is those of 1x1, whatever their stride, and transposed ones of 2x2 with a stride of 2: there, each pixel of the
input becomes four of the output, which are rows of one product.

A map has no rows here, only pixels, so no vector is cut short at the end of a row. Lanes are pixels. A task packs a
block of them as panels, [panel][channel][pixels of a register tile], which it then reads from end to end for every tile
of output channels. Where there are few channels, packing would cost more than it saves, and the pixels are read where
they are.

The rows of pixels of a transposed convolution end with a vector that is not full, since its results are two rows of the
output, written there in turn.
"""

from functools import lru_cache
from typing import NamedTuple

import numba
import numpy as np
from numba import prange

from kernels.cpu import packing
from kernels.cpu.native import address_of, call
from kernels.cpu.pair_vectors import (
    copy_vectors,
    multiply_pairs,
    pack_vectors,
    pack_weight_columns,
    pack_weight_rows,
    split_pairs,
)
from kernels.cpu.tiling import NARROW, WIDE, lanes, multiply_tiling
from kernels.cpu.vector import clear, copy, copy_every_other, copy_spaced, multiply_narrow, multiply_wide
from kernels.jit import jit

#: Packed pixels of a task leave room for weights in a core's second-level cache.
_PACKED_BYTES = 600_000
#: Vectors of a block at most.
_BLOCK_VECTORS = 384
#: Terms of the sums that are packed and multiplied at a time: the weights of a tile stay in the nearest cache, and a
#: block has enough vectors for each of them to be read seldom.
_TERMS = 512
#: Tiles of output channels, and input channels, up to which pixels are read where they are.
_DIRECT_TILES, _DIRECT_CHANNELS = 2, 512
#: Terms whose weights a task packs: what it reads at once stays in the nearest cache, whatever the distances.
_PACKED_TERMS = 8
#: What it costs to pack one vector, in multiplications of a vector.
_PACKING_COST = 6

# ---- public within the backend ---------------------------------------------------------------------------------------


def possible(x_shape, groups, out_size, rows, cols):
    """Return whether `point_correlate` can compute a correlation: no pixel is met twice, and no padding."""
    for axis, size, count in zip((rows, cols), x_shape[2:], out_size, strict=True):
        piece = axis.pieces[0]
        taps = len(piece.offsets)
        if axis.step > 1 or len(axis.pieces) > 1 or not 0 < taps <= axis.stride or piece.offsets != tuple(range(taps)):
            return False
        if piece.kernel != piece.offsets or axis.stride * (count - 1) + taps > size:
            return False
    return groups == 1


def vectors_of(pixels, channels, dtype):
    """Return how many vectors are computed for one picture of so many output pixels."""
    columns = multiply_tiling(channels).columns
    return -(-pixels // (columns * lanes(dtype))) * columns


def spread_possible(x_shape, groups, out_size, rows, cols):
    """Return whether a correlation is a transposed convolution of 2x2 with a stride of 2, and nothing more."""
    for axis, size, count in zip((rows, cols), x_shape[2:], out_size, strict=True):
        taps = [(piece.kernel, piece.offsets) for piece in axis.pieces]
        if axis.step != 2 or taps != [((0,), (0,)), ((1,), (0,))] or count != 2 * size:
            return False
    return groups == 1


def point_spread(x, weight, bias, scale=None, relu=False):
    """Return the transposed convolution of ``x`` with ``weight``, (out, in, 2, 2), with a stride of 2.

    Parameters are those of ``point_correlate``.
    """
    channels, in_channels = weight.shape[:2]
    out = packing.new_array((x.shape[0], channels, 2 * x.shape[2], 2 * x.shape[3]), x.dtype)
    plan = _plan(x.dtype, x.shape, channels, out.shape[2:], (1, 1), (1, 1), numba.get_num_threads(), True)
    matrix = np.ascontiguousarray(weight.swapaxes(0, 1)).reshape(in_channels, 4 * channels).T
    bias, scale = (a if a is None else np.repeat(a, 4) for a in (bias, scale))
    return _run(plan, out, x, matrix, bias, scale, None, relu)


def point_correlate(x, weight, bias, out_size, rows, cols, scale=None, residual=None, relu=False):
    """Return the correlation of ``x`` with ``weight``, (out, in, kH, kW); see ``correlation.correlate``.

    What ``weight`` gives for each output channel is multiplied by its ``scale``, if there is one.
    """
    channels, strides = weight.shape[0], (rows.stride, cols.stride)
    out = packing.new_array((x.shape[0], channels, *out_size), x.dtype)
    plan = _plan(x.dtype, x.shape, channels, out.shape[2:], strides, weight.shape[2:], numba.get_num_threads(), False)
    matrix = weight.reshape(channels, -1)
    return _run(plan, out, x, matrix, bias, scale, residual, relu)


def _run(plan, out, x, matrix, bias, scale, residual, relu):
    """Fill ``out``; the weights are a matrix, (rows of the product, terms of its sums)."""
    dtype, rows = x.dtype, plan.sizes.tiles * plan.sizes.tile_rows
    tile_bias = np.zeros(rows + plan.sizes.tile_rows, dtype)  # what later chunks of a sum start at comes last
    if bias is not None:
        tile_bias[: bias.size] = bias
    weights = _pack_weights(plan, matrix, scale)
    scratch = packing.scratch(plan.workers, plan.scratch_size, dtype)
    add = packing.flat(x if residual is None else residual)  # without one, any array: it is not read
    arrays = _Arrays(packing.flat(out), packing.flat(x), weights, tile_bias, add)
    sizes = plan.sizes._replace(add=int(residual is not None), relu=int(relu))
    _launch(_point_task, arrays, scratch, plan, sizes)
    return out


def _launch(task, arrays, scratch, plan, sizes):
    """Run all tasks on as many workers as there are rows of scratch."""
    address = address_of(task, arrays.out.dtype, (arrays, scratch[0], plan.tables, plan.taps, sizes, 0))
    _point_kernel(address, tuple(arrays), scratch, tuple(plan.tables), plan.taps, tuple(sizes))


def _pack_weights(plan, matrix, scale):
    """Return the weights of each tile, term by term, multiplied by the scale of their row."""
    sizes, dtype = plan.sizes, matrix.dtype
    if sizes.narrow:  # there are few
        matrix = matrix if scale is None else matrix * scale[:, None]
        return packing.pack_weights(matrix[None, :, :, None, None], (((0,), (0,)),), sizes.tile_rows)
    factors = np.zeros(sizes.tiles * sizes.tile_rows, dtype)
    factors[: matrix.shape[0]] = 1 if scale is None else scale
    packed = packing.scratch(1, factors.size * sizes.depth, dtype, "weights")[0]
    if matrix.T.flags.c_contiguous:
        line, task, tasks = matrix.T, _pack_columns_task, -(-sizes.depth // _PACKED_TERMS)
    else:
        line, task, tasks = np.ascontiguousarray(matrix), _pack_rows_task, sizes.tiles
    arrays = _Arrays(packed, packing.flat(line), packed, factors, packed)
    workers = min(numba.get_num_threads(), tasks)
    _launch(task, arrays, packing.scratch(workers, 0, dtype, "none"), plan, sizes._replace(tasks=tasks))
    return packed


# ---- planning --------------------------------------------------------------------------------------------------------


class _Sizes(NamedTuple):
    """What a task must know of the shapes; pixels and vectors are those of one picture of the output."""

    tasks: int
    channels: int
    rows: int  # of the product
    in_channels: int
    depth: int  # terms of a sum
    group: int  # input channels whose terms are packed at a time
    chunk: int  # how many terms these are
    tiles: int  # of output channels
    tile_channels: int
    tile_rows: int
    narrow: int
    pixels: int
    vectors: int
    lanes: int
    panel_vectors: int
    block_vectors: int
    blocks: int
    parts: int
    width: int  # of the output
    in_width: int
    row_step: int  # between pixels of x that are neighbours in the output
    col_step: int
    plane: int  # of x
    kernel_rows: int
    kernel_cols: int
    lines: int  # in scratch: where a line of pixels waits, and how long it is
    line_size: int
    direct: int
    spread: int
    add: int = 0  # whether a residual is added, and a ReLU applied
    relu: int = 0


class _Tables(NamedTuple):
    """Arrays of int64: per vector where it reads, where it writes, how many lanes it writes."""

    x_offsets: np.ndarray  # in the input, and in the packed block
    in_offsets: np.ndarray
    out_offsets: np.ndarray
    counts: np.ndarray


class _Plan(NamedTuple):
    """How one shape of correlation is computed."""

    workers: int
    scratch_size: int
    tables: _Tables
    taps: np.ndarray  # of int64: where each channel starts
    sizes: _Sizes


@lru_cache(maxsize=1024)
def _plan(dtype, x_shape, channels, out_size, strides, kernel, threads, spread):
    """Return the plan for arrays of these shapes."""
    pictures, in_channels, height, width = x_shape
    plane, depth = height * width, in_channels * kernel[0] * kernel[1]
    rows = 4 * channels if spread else channels  # of the product
    tile, lane_count = WIDE if spread else multiply_tiling(channels), lanes(dtype)
    tiles = -(-rows // tile.rows)
    # a line is what vectors do not cross: a row of pixels, or all of them
    lines, line = (height, width) if spread else (1, out_size[0] * out_size[1])
    row, col = (a.ravel() for a in np.meshgrid(range(lines), np.arange(0, line, lane_count), indexing="ij"))
    pixels, vectors = lines * line, row.size
    group = -(-in_channels // -(-depth // _TERMS))
    chunk = group * kernel[0] * kernel[1]
    panel_size = tile.columns * lane_count * chunk
    few = tiles <= _DIRECT_TILES * (2 if spread else 1) and in_channels <= _DIRECT_CHANNELS
    direct = few and pixels == plane and line >= lane_count
    fit = _BLOCK_VECTORS
    if not direct:
        fit = min(fit, _PACKED_BYTES // (panel_size * dtype.itemsize) * tile.columns)
    blocks = -(-vectors // max(fit, tile.columns))
    block_vectors = -(-vectors // blocks)
    block_vectors = -(-block_vectors // tile.columns) * tile.columns  # of about equal size, in whole panels
    blocks = -(-vectors // block_vectors)

    def cost(parts):  # every part packs the same pixels once more
        pack = 0 if direct else _PACKING_COST
        return -(-pictures * blocks * parts // threads) * (pack + -(-tiles // parts) * tile.rows)

    parts = min((p for p in (1, 2, 4, 8, 16, 32) if p <= tiles), key=cost)
    if direct:  # the last vector of a line begins earlier instead of reading beyond the end
        col = np.minimum(col, line - lane_count)
        in_offsets, taps = row * line + col, np.arange(in_channels) * plane
    else:
        panel, place = np.divmod(np.arange(vectors) % block_vectors, tile.columns)
        in_offsets = panel * panel_size + place * lane_count
        taps = np.arange(chunk) * tile.columns * lane_count
    panels = -(-block_vectors // tile.columns)
    line_size = (panels * tile.columns + 1) * lane_count if kernel[1] == strides[1] == 2 else 0
    x_offsets, counts = row * line + col, np.minimum(line - col, lane_count)
    out_offsets = 4 * row * line + 2 * col if spread else col
    sizes = _Sizes(
        tasks=pictures * blocks * parts,
        channels=channels,
        rows=rows,
        in_channels=in_channels,
        depth=depth,
        group=group,
        chunk=chunk,
        tiles=tiles,
        tile_channels=tile.rows // 4 if spread else tile.rows,
        tile_rows=tile.rows,
        narrow=int(tile == NARROW),
        pixels=pixels,
        vectors=vectors,
        lanes=lane_count,
        panel_vectors=tile.columns,
        block_vectors=block_vectors,
        blocks=blocks,
        parts=parts,
        width=out_size[1],
        in_width=width,
        row_step=strides[0] * width,
        col_step=strides[1],
        plane=plane,
        kernel_rows=kernel[0],
        kernel_cols=kernel[1],
        lines=panels * panel_size,
        line_size=line_size,
        direct=int(direct),
        spread=int(spread),
    )
    arrays = (x_offsets, in_offsets, out_offsets, counts, taps)
    *tables, taps = (np.ascontiguousarray(a, np.int64) for a in arrays)
    scratch_size = 0 if direct else panels * panel_size + 2 * line_size
    return _Plan(min(threads, sizes.tasks), -(-scratch_size // 64) * 64, _Tables(*tables), taps, sizes)


# ---- kernels ---------------------------------------------------------------------------------------------------------


class _Arrays(NamedTuple):
    """The flat arrays that all tasks share."""

    out: np.ndarray
    x: np.ndarray
    weights: np.ndarray
    bias: np.ndarray
    residual: np.ndarray


@jit(parallel=True)
def _point_kernel(address, arrays, scratch, tables, taps, sizes):
    """Share the tasks out to as many workers as there are rows of scratch."""
    # named here: Numba takes long to recognise a named tuple that comes from Python
    named_arrays, named_tables, named_sizes = _Arrays(*arrays), _Tables(*tables), _Sizes(*sizes)
    workers, tasks = scratch.shape[0], named_sizes.tasks
    for worker in prange(workers):
        first = np.int64(worker) * tasks // workers
        last = (np.int64(worker) + 1) * tasks // workers
        for task in range(first, last):
            call(address, named_arrays, scratch[worker], named_tables, taps, named_sizes, task)


@jit
def _point_task(arrays, scratch, tables, taps, sizes, task):
    """Compute some tiles of output channels for one block of pixels, some terms of the sums at a time."""
    part, block = task % sizes.parts, task // sizes.parts % sizes.blocks
    picture = task // (sizes.parts * sizes.blocks)
    tiles = part * sizes.tiles // sizes.parts, (part + 1) * sizes.tiles // sizes.parts
    first = block * sizes.block_vectors
    vectors = first, min(first + sizes.block_vectors, sizes.vectors)
    x_start = picture * sizes.in_channels * sizes.plane
    if sizes.direct:
        chunk = 0, sizes.depth, sizes.add, sizes.relu
        _multiply_block(
            arrays, arrays.residual, arrays.x[x_start:], tables, taps, sizes, picture, tiles, vectors, chunk
        )
        return
    for c in range(0, sizes.in_channels, sizes.group):
        channels = min(sizes.group, sizes.in_channels - c)
        _pack_block(scratch, arrays.x, x_start + c * sizes.plane, channels, tables, sizes, vectors)
        relu = sizes.relu if c + channels == sizes.in_channels else 0
        start, terms = c * (sizes.chunk // sizes.group), channels * (sizes.chunk // sizes.group)
        add, residual = sizes.add, arrays.residual
        if c > 0:  # what comes before is in the output already
            add, residual = 1, arrays.out
        chunk = start, terms, add, relu
        _multiply_block(arrays, residual, scratch, tables, taps, sizes, picture, tiles, vectors, chunk)


@jit
def _multiply_block(arrays, residual, source, tables, taps, sizes, picture, tiles, vectors, chunk):
    """Multiply some terms of the sums of a block, and add them to a residual."""
    (first_tile, last_tile), (first, last), (start, terms, add, relu) = tiles, vectors, chunk
    out_size = sizes.pixels * (4 if sizes.spread else 1)
    tiles, panels = last_tile - first_tile, (last - first + sizes.panel_vectors - 1) // sizes.panel_vectors
    for i in range(tiles * panels):
        tile, panel = first_tile + i // panels, i % panels
        if sizes.direct:  # all tiles meet a panel while it is in the cache
            tile, panel = first_tile + i % tiles, i // tiles
        vector = first + panel * sizes.panel_vectors
        channel, row = tile * sizes.tile_channels, tile * sizes.tile_rows
        out_start = (picture * sizes.channels + channel) * out_size
        place = out_start, out_size, sizes.channels - channel
        weights = arrays.weights, row * sizes.depth + start * sizes.tile_rows
        bias = arrays.bias, row if start == 0 else sizes.tiles * sizes.tile_rows
        # fmt: off
        if sizes.spread:
            multiply_pairs(
                arrays.out, *place, sizes.width, tables.out_offsets, tables.counts, source, tables.in_offsets,
                vector, last - vector, taps, terms, *weights, *bias, add, relu,
            )
        elif sizes.narrow:
            multiply_narrow(
                arrays.out, *place, tables.out_offsets, tables.counts, source, tables.in_offsets, vector,
                last - vector, taps, 0, terms, *weights, *bias, residual, add, relu,
            )
        else:
            multiply_wide(
                arrays.out, *place, tables.out_offsets, tables.counts, source, tables.in_offsets, vector,
                last - vector, taps, 0, terms, *weights, *bias, residual, add, relu,
            )
        # fmt: on


@jit
def _pack_block(packed, x, x_start, channels, tables, sizes, vectors):
    """Pack the vectors from the first to the last of the terms of some input channels as panels."""
    first, last = vectors
    size = sizes.panel_vectors * sizes.lanes
    start, end = first * sizes.lanes, min(last * sizes.lanes, sizes.pixels)
    for c in range(channels):
        for ky in range(sizes.kernel_rows):
            source = x_start + c * sizes.plane + ky * sizes.in_width
            to = (c * sizes.kernel_rows + ky) * sizes.kernel_cols * size
            if sizes.spread:
                for vector in range(first, last, sizes.panel_vectors):
                    count = min(sizes.panel_vectors, last - vector)
                    pack_vectors(packed, to, x, source, tables.x_offsets, tables.counts, vector, count)
                    to += sizes.chunk * size
            elif sizes.line_size:
                _pack_pairs(packed, to, x, source, sizes, start, end)
            else:
                for kx in range(sizes.kernel_cols):
                    _pack_term(packed, to + kx * size, x, source + kx, sizes, start, end)


@jit
def _pack_term(packed, to, x, source, sizes, first, last):
    """Pack the pixels from ``first`` to ``last`` that one tap meets."""
    size = sizes.panel_vectors * sizes.lanes
    for start in range(first, last, size):
        end = min(start + size, last)
        if sizes.pixels == sizes.plane:  # no stride leaves any out
            copy(packed, to, x, source + start, end - start)
        else:
            _pack_rows(packed, to, x, source, sizes, start, end)
        to += sizes.chunk * size


@jit
def _pack_pairs(packed, to, x, source, sizes, first, last):
    """Pack the pixels from ``first`` to ``last`` that two neighbouring taps meet, first each in a line."""
    even, start = sizes.lines, first
    while start < last:
        row, col = start // sizes.width, start % sizes.width
        count = min(last - start, sizes.width - col)
        split_pairs(packed, even, even + sizes.line_size, x, source + row * sizes.row_step + 2 * col, count)
        start, even = start + count, even + count
    size = sizes.panel_vectors * sizes.lanes
    for place in range(0, last - first, size):
        copy_vectors(packed, to, packed, sizes.lines + place, sizes.panel_vectors)
        copy_vectors(packed, to + size, packed, sizes.lines + sizes.line_size + place, sizes.panel_vectors)
        to += sizes.chunk * size


@jit
def _pack_rows(packed, to, x, source, sizes, start, end):
    """Pack some pixels of one channel, a row of the output at a time."""
    while start < end:
        row, col = start // sizes.width, start % sizes.width
        count = min(end - start, sizes.width - col)
        place = source + row * sizes.row_step + col * sizes.col_step
        if sizes.col_step == 2:
            copy_every_other(packed, to, x, place, count)
        else:
            copy_spaced(packed, to, 1, x, place, sizes.col_step, count)
        start, to = start + count, to + count


@jit
def _pack_rows_task(arrays, scratch, tables, taps, sizes, tile):
    """Pack the weights of one tile, whose terms stand side by side."""
    first, to = tile * sizes.tile_rows, tile * sizes.tile_rows * sizes.depth
    rows = min(sizes.tile_rows, sizes.rows - first)
    source = first * sizes.depth
    if rows == sizes.tile_rows:
        pack_weight_rows(arrays.out, to, arrays.x, source, sizes.depth, sizes.depth, arrays.bias, first)
        return
    clear(arrays.out, to, sizes.tile_rows * sizes.depth)
    for m in range(rows):
        for t in range(sizes.depth):
            arrays.out[to + t * sizes.tile_rows + m] = arrays.x[source + m * sizes.depth + t] * arrays.bias[first + m]


@jit
def _pack_columns_task(arrays, scratch, tables, taps, sizes, task):
    """Pack some terms of the weights of every tile, whose rows stand side by side."""
    first = task * _PACKED_TERMS
    terms = min(_PACKED_TERMS, sizes.depth - first)
    for tile in range(sizes.tiles):
        row = tile * sizes.tile_rows
        source, to = first * sizes.rows + row, (tile * sizes.depth + first) * sizes.tile_rows
        rows = min(sizes.tile_rows, sizes.rows - row)
        pack_weight_columns(arrays.out, to, arrays.x, source, sizes.rows, terms, rows, arrays.bias, row)
