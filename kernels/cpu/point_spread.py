"""Transposed convolutions of 2x2 with a stride of 2: each pixel of the input becomes four of the output.

These are rows of one product of a matrix of weights with the pixels of a picture. The rows of pixels end with a vector
that is not full, since its results are two rows of the output, written there in turn. How a task goes about it stands
in ``points``.
"""

import numba
import numpy as np

from kernels.cpu import packing
from kernels.cpu.pair_vectors import multiply_pairs, pack_vectors
from kernels.cpu.points import plan_points, run_points, share_of
from kernels.jit import jit

# ---- public within the backend ---------------------------------------------------------------------------------------


def spread_possible(x_shape, groups, out_size, rows, cols):
    """Return whether a correlation is a transposed convolution of 2x2 with a stride of 2, and nothing more."""
    for axis, size, count in zip((rows, cols), x_shape[2:], out_size, strict=True):
        taps = [(piece.kernel, piece.offsets) for piece in axis.pieces]
        if axis.step != 2 or taps != [((0,), (0,)), ((1,), (0,))] or count != 2 * size:
            return False
    return groups == 1


def point_spread(x, weight, bias, scale=None, relu=False):
    """Return the transposed convolution of ``x`` with ``weight``, (out, in, 2, 2), with a stride of 2.

    Parameters are those of ``point_convolution.point_correlate``.
    """
    channels, in_channels = weight.shape[:2]
    out = packing.new_array((x.shape[0], channels, 2 * x.shape[2], 2 * x.shape[3]), x.dtype)
    plan = plan_points(x.dtype, x.shape, channels, out.shape[2:], (1, 1), (1, 1), numba.get_num_threads(), True)
    matrix = np.ascontiguousarray(weight.swapaxes(0, 1)).reshape(in_channels, 4 * channels).T
    bias, scale = (a if a is None else np.repeat(a, 4) for a in (bias, scale))
    return run_points(_spread_task, plan, out, x, matrix, bias, scale, None, relu)


# ---- kernels ---------------------------------------------------------------------------------------------------------


@jit
def _spread_task(arrays, scratch, tables, taps, sizes, task):
    """Compute some tiles of rows for one block of pixels, some terms of the sums at a time."""
    picture, tiles, vectors = share_of(sizes, task)
    x_start = picture * sizes.in_channels * sizes.plane
    if sizes.direct:
        chunk = 0, sizes.depth, 0, sizes.relu
        _multiply_spread_block(arrays, arrays.x[x_start:], tables, taps, sizes, picture, tiles, vectors, chunk)
        return
    for c in range(0, sizes.in_channels, sizes.group):
        channels = min(sizes.group, sizes.in_channels - c)
        _pack_spread_block(scratch, arrays.x, x_start + c * sizes.plane, channels, tables, sizes, vectors)
        relu = sizes.relu if c + channels == sizes.in_channels else 0
        chunk = c, channels, int(c > 0), relu  # what comes before is in the output already
        _multiply_spread_block(arrays, scratch, tables, taps, sizes, picture, tiles, vectors, chunk)


@jit
def _multiply_spread_block(arrays, source, tables, taps, sizes, picture, tiles, vectors, chunk):
    """Multiply some terms of the sums of a block, and add them to what the output holds."""
    (first_tile, last_tile), (first, last), (start, terms, add, relu) = tiles, vectors, chunk
    out_size = 4 * sizes.pixels
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
        multiply_pairs(
            arrays.out, *place, sizes.width, tables.out_offsets, tables.counts, source, tables.in_offsets,
            vector, last - vector, taps, terms, *weights, *bias, add, relu,
        )
        # fmt: on


@jit
def _pack_spread_block(packed, x, x_start, channels, tables, sizes, vectors):
    """Pack the vectors from the first to the last of some input channels as panels."""
    first, last = vectors
    size = sizes.panel_vectors * sizes.lanes
    for c in range(channels):
        to = c * size
        for vector in range(first, last, sizes.panel_vectors):
            count = min(sizes.panel_vectors, last - vector)
            # fmt: off
            pack_vectors(
                packed, to, x, x_start + c * sizes.plane, tables.x_offsets, tables.counts, vector, count
            )
            # fmt: on
            to += sizes.chunk * size
