"""Convolutions whose kernels do not overlap: a product of a matrix of weights with the pixels of a picture.

That is those of 1x1, whatever their stride, and of 2x2 with a stride of 2. A map has no rows here, only pixels, so no
vector is cut short at the end of a row. How a task goes about it stands in ``points``.
"""

import numba

from kernels.cpu import packing
from kernels.cpu.pair_vectors import copy_vectors, split_pairs
from kernels.cpu.pixel_vectors import pack_narrow_terms, pack_wide_terms
from kernels.cpu.points import plan_points, point_tile, run_points, share_of
from kernels.cpu.tiling import lanes
from kernels.cpu.vector import copy_every_other, copy_spaced, multiply_narrow, multiply_wide
from kernels.jit import jit

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
    columns = point_tile(channels).columns
    return -(-pixels // (columns * lanes(dtype))) * columns


def point_correlate(x, weight, bias, out_size, rows, cols, scale=None, residual=None, relu=False):
    """Return the correlation of ``x`` with ``weight``, (out, in, kH, kW); see ``correlation.correlate``.

    What ``weight`` gives for each output channel is multiplied by its ``scale``, if there is one.
    """
    channels, strides = weight.shape[0], (rows.stride, cols.stride)
    out = packing.new_array((x.shape[0], channels, *out_size), x.dtype)
    plan = plan_points(
        x.dtype, x.shape, channels, out.shape[2:], strides, weight.shape[2:], numba.get_num_threads(), False
    )
    matrix = weight.reshape(channels, -1)
    return run_points(_point_task, plan, out, x, matrix, bias, scale, residual, relu)


# ---- kernels ---------------------------------------------------------------------------------------------------------


@jit
def _point_task(arrays, scratch, tables, taps, sizes, task):
    """Compute some tiles of output channels for one block of pixels, some terms of the sums at a time."""
    picture, tiles, vectors = share_of(sizes, task)
    x_start = picture * sizes.in_channels * sizes.plane
    if sizes.direct:
        x, chunk = arrays.x[x_start:], (0, sizes.depth, sizes.add, sizes.relu)
        _multiply_block(arrays, arrays.residual, x, tables, taps, sizes, picture, tiles, vectors, chunk, x_start, 0)
        return
    for c in range(0, sizes.in_channels, sizes.group):
        channels = min(sizes.group, sizes.in_channels - c)
        _pack_block(scratch, arrays.x, x_start + c * sizes.plane, channels, sizes, vectors)
        relu = sizes.relu if c + channels == sizes.in_channels else 0
        start, terms = c * (sizes.chunk // sizes.group), channels * (sizes.chunk // sizes.group)
        add, residual = sizes.add, arrays.residual
        if c > 0:  # what comes before is in the output already
            add, residual = 1, arrays.out
        chunk = start, terms, add, relu
        # what is packed next: more channels, or another block
        x_after, vector_after = x_start + (c + channels) * sizes.plane, vectors[0]
        if c + channels == sizes.in_channels:
            picture_after, _, vectors_after = share_of(sizes, task + 1)
            x_after, vector_after = picture_after * sizes.in_channels * sizes.plane, vectors_after[0]
        # fmt: off
        _multiply_block(
            arrays, residual, scratch, tables, taps, sizes, picture, tiles, vectors, chunk, x_after, vector_after
        )
        # fmt: on


@jit
def _multiply_block(
    arrays, residual, source, tables, taps, sizes, picture, tiles, vectors, chunk, x_after, vector_after
):
    """Multiply some terms of the sums of a block, and add them to a residual."""
    (first_tile, last_tile), (first, last), (start, terms, add, relu) = tiles, vectors, chunk
    tiles, panels = last_tile - first_tile, (last - first + sizes.panel_vectors - 1) // sizes.panel_vectors
    steps, lines = tiles * panels, (panels * sizes.panel_vectors + 1) * sizes.col_step
    fetch, pitch = sizes.kernel_rows * sizes.kernel_cols == 1, tiles * sizes.lanes * sizes.direct
    for i in range(steps):
        tile, panel = first_tile + i // panels, i % panels
        # the last steps fetch the pixels that are packed next, a line of each channel at a time
        ahead_vector, line = vector_after, i - (steps - lines)
        if sizes.direct:  # all tiles meet a panel while it is in the cache, and fetch lines of the next in turn
            tile, panel = first_tile + i % tiles, i // tiles
            ahead_vector, line = first + (panel + 1) * sizes.panel_vectors, i % tiles
        pixel = ahead_vector * sizes.lanes + line * sizes.lanes // sizes.col_step
        ahead = x_after + pixel // sizes.width * sizes.row_step + pixel % sizes.width * sizes.col_step
        step = sizes.plane if fetch and line >= 0 else 0
        vector = first + panel * sizes.panel_vectors
        channel = tile * sizes.tile_rows
        out_start = (picture * sizes.channels + channel) * sizes.pixels
        place = out_start, sizes.pixels, sizes.channels - channel
        weights = arrays.weights, channel * sizes.depth + start * sizes.tile_rows
        bias = arrays.bias, channel if start == 0 else sizes.tiles * sizes.tile_rows
        # fmt: off
        if sizes.narrow:
            multiply_narrow(
                arrays.out, *place, tables.out_offsets, tables.counts, source, tables.in_offsets, vector,
                last - vector, taps, 0, terms, *weights, *bias, residual, add, relu, arrays.x, ahead, step, pitch,
            )
        else:
            multiply_wide(
                arrays.out, *place, tables.out_offsets, tables.counts, source, tables.in_offsets, vector,
                last - vector, taps, 0, terms, *weights, *bias, residual, add, relu, arrays.x, ahead, step, pitch,
            )
        # fmt: on


@jit
def _pack_block(packed, x, x_start, channels, sizes, vectors):
    """Pack the vectors from the first to the last of the terms of some input channels as panels."""
    first, last = vectors
    size = sizes.panel_vectors * sizes.lanes
    start, end = first * sizes.lanes, min(last * sizes.lanes, sizes.pixels)
    if sizes.pixels == sizes.plane:  # no stride leaves any out
        for place in range(start, end, size):
            to, count = (place - start) * sizes.chunk, min(size, end - place)
            if sizes.narrow:
                pack_narrow_terms(packed, to, x, x_start + place, sizes.plane, channels, count)
            else:
                pack_wide_terms(packed, to, x, x_start + place, sizes.plane, channels, count)
        return
    for c in range(channels):
        for ky in range(sizes.kernel_rows):
            source = x_start + c * sizes.plane + ky * sizes.in_width
            to = (c * sizes.kernel_rows + ky) * sizes.kernel_cols * size
            if sizes.line_size:
                _pack_pairs(packed, to, x, source, sizes, start, end)
            else:
                for kx in range(sizes.kernel_cols):
                    _pack_term(packed, to + kx * size, x, source + kx, sizes, start, end)


@jit
def _pack_term(packed, to, x, source, sizes, first, last):
    """Pack the pixels from ``first`` to ``last`` that one tap meets."""
    size = sizes.panel_vectors * sizes.lanes
    for start in range(first, last, size):
        _pack_rows(packed, to, x, source, sizes, start, min(start + size, last))
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
            copy_every_other(packed, to, x, place, count, sizes.row_step)
        else:
            copy_spaced(packed, to, 1, x, place, sizes.col_step, count)
        start, to = start + count, to + count
