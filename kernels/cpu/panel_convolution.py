"""Convolutions of small, deep maps with lanes of channels (see ``panels``).

A task packs the input rows of some pictures as ``correlation`` does, without filling rows up to whole vectors: a table
says where each pixel of the output starts to read, and where each tap lies from there. The rows of the product are
pixels, its terms are taps, and a panel holds weights. Where a block would have few pixels, some input channels at a
time are packed and multiplied, so that the weights are not read too often.
"""

from functools import lru_cache

import numba
import numpy as np

from kernels.cpu import packing
from kernels.cpu.packing import pack_channels
from kernels.cpu.panels import (
    Arrays,
    Sizes,
    Tables,
    add_products,
    pack_panels,
    panel_bias,
    run_tasks,
    transpose,
)
from kernels.cpu.tiling import PANEL, VECTOR_BYTES, lanes, panel_width
from kernels.cpu.vector import copy, copy_spaced
from kernels.jit import jit

#: Output pixels of a block at most, unless a row has more, and bytes of its packed input.
_PIXELS = 384
_PACKED_BYTES = 400_000
#: Input is packed for about so many terms of the sums at a time, while the sums of a task, of so many bytes, stay in
#: the second-level cache: blocks that have few pixels would read the weights too often.
_TERMS = 288
_SUMS_BYTES = 400_000
#: What it costs to pack one vector, in multiplications of a vector.
_PACKING_COST = 4

# ---- public within the backend ---------------------------------------------------------------------------------------


def possible(groups, rows, cols):
    """Return whether this module can compute a correlation: of one group, with a kernel."""
    return groups == 1 and all(any(piece.kernel for piece in axis.pieces) for axis in (rows, cols))


def panel_correlate(x, weight, bias, out_size, rows, cols):
    """Return the correlation of ``x`` with ``weight``, (out, in, kH, kW); see ``correlation.correlate``."""
    kernel_axes = zip((rows, cols), weight.shape[2:], strict=True)
    if all(len(axis.pieces) == 1 and axis.pieces[0].kernel == tuple(range(k)) for axis, k in kernel_axes):
        return _piece(x, _weight_panels(weight), weight.shape, bias, out_size, rows, cols)
    # such as an input gradient with a stride: one piece after the other
    out = packing.new_array((x.shape[0], weight.shape[0], *out_size), x.dtype)
    pieces = [(row_piece, col_piece) for row_piece in rows.pieces for col_piece in cols.pieces]
    kernels = tuple((row_piece.kernel, col_piece.kernel) for row_piece, col_piece in pieces)
    panels = packing.pack_weights(weight[None], kernels, panel_width(x.dtype))
    for (row_piece, col_piece), kernel in zip(pieces, kernels, strict=True):
        part = out[:, :, row_piece.start :: rows.step, col_piece.start :: cols.step]
        shape = (*weight.shape[:2], *map(len, kernel))
        if part.size and all(kernel):
            axes = _only(rows, row_piece), _only(cols, col_piece)
            start = row_piece.start * out_size[1] + col_piece.start
            into = out, start, rows.step * out_size[1], cols.step
            _piece(x, panels, shape, bias, part.shape[2:], *axes, into)
        elif part.size:  # no tap meets these pixels
            part[...] = 0 if bias is None else bias[:, None, None]
        panels = panels[-(-shape[0] // panel_width(x.dtype)) * panel_width(x.dtype) * int(np.prod(shape[1:])) :]
    return out


def _only(axis, piece):
    """Return an axis of one piece, all of whose outputs and taps count."""
    return packing.Axis(axis.stride, 1, (packing.Piece(0, tuple(range(len(piece.kernel))), piece.offsets),))


def _piece(x, panels, weight_shape, bias, out_size, rows, cols, into=None):
    """Return a correlation of one piece with weights of that shape, in panels.

    ``into`` is an array whose pixels it shall become, where they begin, and the steps to the next row and column.
    """
    dtype, threads = x.dtype, numba.get_num_threads()
    channels = weight_shape[0]
    tables, layout, sizes, scratch_size = _forward_plan(dtype, x.shape, weight_shape, out_size, rows, cols, threads)
    if into is None:
        out = packing.new_array((x.shape[0], channels, *out_size), dtype)
    else:
        out, start, row, col = into
        places = {"out_start": start, "out_row": row, "out_col": col, "out_size": out.shape[2] * out.shape[3]}
        sizes = sizes._replace(turned_start=scratch_size, **places)
        scratch_size += sizes.block_rows * sizes.width * panel_width(dtype)
    arrays = Arrays(packing.flat(out), packing.flat(x), panels, panel_bias(bias, channels, dtype))
    run_tasks(_forward_task, arrays, tables, layout, sizes, scratch_size, threads)
    return out


def _weight_panels(weight):
    """Return ``weight`` in panels of output channels, its terms in the order (in, kH, kW)."""
    channels, in_channels, *kernel = weight.shape
    taps = int(np.prod(kernel))
    if weight.swapaxes(0, 1).flags.c_contiguous:  # that of an input gradient: as many runs as input channels
        flat = packing.flat(weight.swapaxes(0, 1))
        return pack_panels(flat, channels, taps, in_channels, channels * taps, taps)
    flat = packing.flat(np.ascontiguousarray(weight))
    return pack_panels(flat, channels, in_channels * taps, 1, 0, in_channels * taps)


# ---- planning --------------------------------------------------------------------------------------------------------


def block_size(dtype, pictures, height, width, packed_size, most_pixels, most_bytes):
    """Return how many rows and pictures a block has; ``packed_size(rows)`` numbers are packed for one picture."""
    rows = min(height, max(1, most_pixels // width))
    while rows > 1 and packed_size(rows) * dtype.itemsize > most_bytes:
        rows -= 1
    rows = -(-height // -(-height // rows))  # of about equal size
    if rows < height:
        return rows, 1
    fit = min(most_pixels // (rows * width), most_bytes // max(1, packed_size(rows) * dtype.itemsize))
    return rows, max(1, min(pictures, fit))


def offset_tables(in_channels, x_size, size, rows, cols, block_rows, block_pictures):
    """Return the layout of packed rows, where pixels and taps are in them, and the phases; see ``Tables``."""
    layout = packing.layout_of(in_channels, x_size[0], x_size[1], rows, cols, block_rows, size[1])
    picture_size = in_channels * layout.channel_size
    offsets = np.arange(block_pictures)[:, None, None] * picture_size
    offsets = offsets + np.arange(block_rows)[:, None] * layout.row_size + np.arange(size[1])
    taps = packing.tap_offsets(layout, rows, cols, rows.pieces[0], cols.pieces[0])
    phases = [np.array(packing.phases_of(axis).phases, np.int64) for axis in (rows, cols)]
    return layout, offsets.reshape(-1).astype(np.int64), taps, phases


@lru_cache(maxsize=1024)
def _forward_plan(dtype, x_shape, weight_shape, out_size, rows, cols, threads):
    """Return tables, layout, sizes and the size of scratch for arrays of these shapes."""
    pictures, in_channels, *x_size = x_shape
    height, width = out_size
    kernel = int(np.prod(weight_shape[2:]))

    def packed_size(block_rows):  # of as many input channels as are packed at once
        layout = packing.layout_of(group, x_size[0], x_size[1], rows, cols, block_rows, width)
        return group * layout.channel_size

    panels, lane_count = -(-weight_shape[0] // panel_width(dtype)), panel_width(dtype)
    least_parts = max(1, panels * _PIXELS * lane_count * dtype.itemsize // _SUMS_BYTES)
    group = in_channels
    if least_parts <= 2:  # otherwise, packing so often would cost more than it saves
        group = -(-in_channels // max(1, in_channels * kernel // _TERMS))
    block_rows, block_pictures = block_size(dtype, pictures, height, width, packed_size, _PIXELS, _PACKED_BYTES)
    layout, pixels, taps, phases = offset_tables(group, x_size, out_size, rows, cols, block_rows, block_pictures)
    row_blocks = -(-height // block_rows)
    blocks = row_blocks * -(-pictures // block_pictures)
    sums_size = pixels.size * lane_count
    packed = block_pictures * packed_size(block_rows)
    packing_cost = _PACKING_COST * packed / lanes(dtype) / group
    panel_cost = pixels.size * kernel * PANEL.columns

    def cost(parts):  # every part packs the same rows once more
        return -(-blocks * parts // threads) * (packing_cost + -(-panels // parts) * panel_cost)

    parts = min(range(min(panels, 1 if group == in_channels else least_parts), panels + 1), key=cost)
    sums_start = -(-packed // 64) * 64
    sizes = Sizes(
        tasks=blocks * parts,
        panels=panels,
        channels=weight_shape[0],
        depth=in_channels * kernel,
        chunk=taps.size,
        height=height,
        block_rows=block_rows,
        row_blocks=row_blocks,
        panel_start=0,
        sums_start=sums_start,
        parts=parts,
        pictures=pictures,
        block_pictures=block_pictures,
        width=width,
        picture_size=packed_size(block_rows),
        group=group,
        kernel=kernel,
    )
    return Tables(pixels, taps, *phases), layout, sizes, sums_start + -(-panels // parts) * sums_size


# ---- kernels ---------------------------------------------------------------------------------------------------------


@jit
def _forward_task(arrays, scratch, tables, layout, sizes, task):
    """Compute some panels of output channels for one block of rows or pictures, some input channels at a time."""
    width = PANEL.columns * (VECTOR_BYTES // scratch.itemsize)
    part, block = task % sizes.parts, task // sizes.parts
    first_panel, last_panel = part * sizes.panels // sizes.parts, (part + 1) * sizes.panels // sizes.parts
    first_row = block % sizes.row_blocks * sizes.block_rows
    first_picture = block // sizes.row_blocks * sizes.block_pictures
    rows = min(sizes.block_rows, sizes.height - first_row)
    pictures = min(sizes.block_pictures, sizes.pictures - first_picture)
    pixels = rows * sizes.width  # of each picture
    sums_size = pictures * pixels * width
    for panel in range(first_panel, last_panel):
        to = sizes.sums_start + (panel - first_panel) * sums_size
        for m in range(pictures * pixels):
            copy(scratch, to + m * width, arrays.bias, panel * width, width)
    for start in range(0, sizes.depth, sizes.chunk):
        terms = min(sizes.chunk, sizes.depth - start)
        channel, channels = start // sizes.kernel, terms // sizes.kernel
        # fmt: off
        pack_pictures(
            arrays, scratch, tables, layout, sizes, first_picture, pictures, first_row, rows, channel, channels
        )
        for panel in range(first_panel, last_panel):
            add_products(
                scratch, sizes.sums_start + (panel - first_panel) * sums_size, scratch, tables.rows, 0,
                pictures * pixels, tables.cols, 0, terms, arrays.b, (panel * sizes.depth + start) * width,
            )
        # fmt: on
    for panel in range(first_panel, last_panel):
        channels, out_size = min(width, sizes.channels - panel * width), sizes.height * sizes.width
        for i in range(pictures):
            first = (first_picture + i) * sizes.channels + panel * width
            source = sizes.sums_start + (panel - first_panel) * sums_size + i * pixels * width
            if sizes.out_col:
                transpose(scratch, sizes.turned_start, pixels, scratch, source, width, pixels, channels)
                _spread(arrays.out, scratch, sizes, first, channels, first_row, rows)
            else:
                to = first * out_size + first_row * sizes.width
                transpose(arrays.out, to, out_size, scratch, source, width, pixels, channels)


@jit
def _spread(out, scratch, sizes, first_channel, channels, first_row, rows):
    """Write some rows of some channels, whose pixels lie apart in the output."""
    source = sizes.turned_start
    for c in range(channels):
        to = (first_channel + c) * sizes.out_size + sizes.out_start + first_row * sizes.out_row
        for _ in range(rows):
            copy_spaced(out, to, sizes.out_col, scratch, source, 1, sizes.width)
            source, to = source + sizes.width, to + sizes.out_row


@jit
def pack_pictures(arrays, scratch, tables, layout, sizes, first_picture, pictures, first_row, rows, first, channels):
    """Pack the input rows that some output rows of some pictures meet, for ``channels`` channels from ``first`` on."""
    size = layout.height * layout.width
    packed_rows = rows + layout.rows - sizes.block_rows
    phases = tables.row_phases, tables.col_phases
    for i in range(pictures):
        x_start = ((first_picture + i) * (sizes.depth // sizes.kernel) + first) * size
        to = i * sizes.picture_size
        pack_channels(scratch, to, arrays.a, x_start, channels, first_row, packed_rows, *phases, layout)
