"""Convolutions of 1x1, whatever their stride: a product of a matrix of weights with the pixels of a picture.

A map has no rows here, only pixels, so no vector is cut short at the end of a row. Lanes are pixels. A task packs a
block of them as panels, [panel][channel][pixels of a register tile], which it then reads from end to end for every tile
of output channels. Where there are few channels, packing would cost more than it saves, and the pixels are read where
they are.
"""

from functools import lru_cache
from typing import NamedTuple

import numba
import numpy as np
from numba import prange

from kernels.cpu import packing
from kernels.cpu.native import address_of, call
from kernels.cpu.tiling import NARROW, lanes, multiply_tiling
from kernels.cpu.vector import copy, copy_every_other, copy_spaced, multiply_narrow, multiply_wide
from kernels.jit import jit

#: Packed pixels of a task leave room for weights in a core's second-level cache.
_PACKED_BYTES = 600_000
#: Vectors of a block at most.
_BLOCK_VECTORS = 384
#: Tiles of output channels, and input channels, up to which pixels are read where they are.
_DIRECT_TILES, _DIRECT_CHANNELS = 2, 64
#: What it costs to pack one vector, in multiplications of a vector.
_PACKING_COST = 6

# ---- public within the backend ---------------------------------------------------------------------------------------


def possible(x_shape, groups, out_size, rows, cols):
    """Return whether this module can compute a correlation: of one group, 1x1 and without padding."""
    for axis, size, count in zip((rows, cols), x_shape[2:], out_size, strict=True):
        if len(axis.pieces) > 1 or axis.pieces[0].offsets != (0,) or axis.stride * (count - 1) >= size:
            return False
    return groups == 1


def vectors_of(pixels, channels, dtype):
    """Return how many vectors are computed for one picture of so many output pixels."""
    columns = multiply_tiling(channels).columns
    return -(-pixels // (columns * lanes(dtype))) * columns


def point_correlate(x, weight, bias, out_size, rows, cols, residual=None, relu=False):
    """Return the correlation of ``x`` with ``weight``, (out, in, 1, 1); see ``correlation.correlate``."""
    dtype, channels = x.dtype, weight.shape[0]
    out = packing.new_array((x.shape[0], channels, *out_size), dtype)
    plan = _plan(dtype, x.shape, channels, tuple(out_size), (rows.stride, cols.stride), numba.get_num_threads())
    tile_bias = np.zeros(plan.sizes.tiles * plan.sizes.tile_rows, dtype)
    if bias is not None:
        tile_bias[:channels] = bias
    weights = packing.pack_weights(weight[None], (((0,), (0,)),), plan.sizes.tile_rows)
    scratch = packing.scratch(plan.workers, plan.scratch_size, dtype)
    add = packing.flat(x if residual is None else residual)  # without one, any array: it is not read
    arrays = _Arrays(packing.flat(out), packing.flat(x), weights, tile_bias, add)
    sizes = plan.sizes._replace(add=int(residual is not None), relu=int(relu))
    address = address_of(_point_task, dtype, (arrays, scratch[0], plan.tables, plan.taps, sizes, 0))
    _point_kernel(address, tuple(arrays), scratch, tuple(plan.tables), plan.taps, tuple(sizes))
    return out


# ---- planning --------------------------------------------------------------------------------------------------------


class _Sizes(NamedTuple):
    """What a task must know of the shapes; pixels and vectors are those of one picture of the output."""

    tasks: int
    channels: int
    in_channels: int
    tiles: int  # of output channels
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
    row_step: int  # between pixels of x that are neighbours in the output
    col_step: int
    plane: int  # of x
    direct: int
    add: int = 0  # whether a residual is added, and a ReLU applied
    relu: int = 0


class _Tables(NamedTuple):
    """Arrays of int64: per vector where it reads, where it writes, how many lanes it writes."""

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
def _plan(dtype, x_shape, channels, out_size, strides, threads):
    """Return the plan for arrays of these shapes."""
    pictures, in_channels, height, width = x_shape
    plane, pixels = height * width, out_size[0] * out_size[1]
    tile, lane_count = multiply_tiling(channels), lanes(dtype)
    tiles, vectors = -(-channels // tile.rows), -(-pixels // lane_count)
    panel_size = tile.columns * lane_count * in_channels
    few = tiles <= _DIRECT_TILES and in_channels <= _DIRECT_CHANNELS
    direct = few and pixels == plane and pixels >= lane_count
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
    first = np.arange(vectors) * lane_count
    if direct:  # the last vector begins earlier instead of reading beyond the end
        in_offsets = out_offsets = np.minimum(first, pixels - lane_count)
        counts, taps = np.full(vectors, lane_count), np.arange(in_channels) * plane
    else:
        panel, place = np.divmod(np.arange(vectors) % block_vectors, tile.columns)
        in_offsets, out_offsets = panel * panel_size + place * lane_count, first
        counts, taps = np.minimum(pixels - first, lane_count), np.arange(in_channels) * tile.columns * lane_count
    sizes = _Sizes(
        tasks=pictures * blocks * parts,
        channels=channels,
        in_channels=in_channels,
        tiles=tiles,
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
        row_step=strides[0] * width,
        col_step=strides[1],
        plane=plane,
        direct=int(direct),
    )
    *tables, taps = (np.ascontiguousarray(a, np.int64) for a in (in_offsets, out_offsets, counts, taps))
    scratch_size = 0 if direct else -(-block_vectors // tile.columns) * panel_size
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
    """Compute some tiles of output channels for one block of pixels."""
    part, block = task % sizes.parts, task // sizes.parts % sizes.blocks
    picture = task // (sizes.parts * sizes.blocks)
    first_tile, last_tile = part * sizes.tiles // sizes.parts, (part + 1) * sizes.tiles // sizes.parts
    first = block * sizes.block_vectors
    last = min(first + sizes.block_vectors, sizes.vectors)
    x_start = picture * sizes.in_channels * sizes.plane
    source = scratch
    if sizes.direct:
        source = arrays.x[x_start:]
    else:
        end = min(last * sizes.lanes, sizes.pixels)
        _pack_block(scratch, arrays.x, x_start, sizes, first * sizes.lanes, end)
    for tile in range(first_tile, last_tile):
        channel = tile * sizes.tile_rows
        out_start = (picture * sizes.channels + channel) * sizes.pixels
        place = out_start, sizes.pixels, sizes.channels - channel
        weights_from = channel * sizes.in_channels
        for vector in range(first, last, sizes.panel_vectors):
            # fmt: off
            if sizes.narrow:
                multiply_narrow(
                    arrays.out, *place, tables.out_offsets, tables.counts, source, tables.in_offsets, vector,
                    last - vector, taps, 0, sizes.in_channels, arrays.weights, weights_from,
                    arrays.bias, channel, arrays.residual, sizes.add, sizes.relu,
                )
            else:
                multiply_wide(
                    arrays.out, *place, tables.out_offsets, tables.counts, source, tables.in_offsets, vector,
                    last - vector, taps, 0, sizes.in_channels, arrays.weights, weights_from,
                    arrays.bias, channel, arrays.residual, sizes.add, sizes.relu,
                )
            # fmt: on


@jit
def _pack_block(packed, x, x_start, sizes, first, last):
    """Pack the pixels from ``first`` to ``last`` of all channels of one picture as panels."""
    size = sizes.panel_vectors * sizes.lanes
    for c in range(sizes.in_channels):
        source, to = x_start + c * sizes.plane, c * size
        for start in range(first, last, size):
            end = min(start + size, last)
            if sizes.pixels == sizes.plane:  # no stride leaves any out
                copy(packed, to, x, source + start, end - start)
            else:
                _pack_rows(packed, to, x, source, sizes, start, end)
            to += sizes.in_channels * size


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
