"""Convolutions of small, deep maps with lanes of channels (see ``panels``), and their weight gradients.

A task packs the input rows of some pictures as ``correlation`` does, without filling rows up to whole vectors: a table
says where each pixel of the output starts to read, and where each tap lies from there. Forward, the rows of the product
are pixels, its terms are taps, and a panel holds weights. In the weight gradient the rows are taps, the terms are
pixels, and a panel holds the output's gradient.
"""

from functools import lru_cache

import numba
import numpy as np

from kernels.cpu import packing
from kernels.cpu.packing import pack_channels
from kernels.cpu.panels import (
    CHUNK,
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
from kernels.cpu.vector import copy
from kernels.jit import jit

#: Output pixels of a block at most, unless a row has more, and bytes of its packed input.
_PIXELS = 256
_PACKED_BYTES = 400_000
#: What it costs to pack one vector, in multiplications of a vector.
_PACKING_COST = 4
#: Terms of a sum, or taps of a weight gradient, below which packing and turning panels costs more than they save.
_LEAST_DEPTH = 256

# ---- public within the backend ---------------------------------------------------------------------------------------


def possible(groups, rows, cols):
    """Return whether this module can compute a correlation: of one group, and of one piece that has every tap."""
    kernels = [axis.pieces[0].kernel for axis in (rows, cols) if len(axis.pieces) == 1]
    return groups == 1 and len(kernels) == 2 and all(k == tuple(range(len(k))) and k for k in kernels)


def pays(dtype, channels, depth, width):
    """Return whether lanes of channels are faster than lanes of pixels, in rows of ``width`` output pixels."""
    if depth < _LEAST_DEPTH or channels == 0:
        return False
    vector, panel = lanes(dtype), panel_width(dtype)
    pixels_used = width / (-(-width // vector) * vector)
    channels_used = channels / (-(-channels // panel) * panel)
    return channels_used >= pixels_used


def panel_correlate(x, weight, bias, out_size, rows, cols):
    """Return the correlation of ``x`` with ``weight``, (out, in, kH, kW); see ``correlation.correlate``."""
    dtype, threads = x.dtype, numba.get_num_threads()
    channels = weight.shape[0]
    out = packing.new_array((x.shape[0], channels, *out_size), dtype)
    tables, layout, sizes, scratch_size = _forward_plan(dtype, x.shape, weight.shape, out_size, rows, cols, threads)
    arrays = Arrays(packing.flat(out), packing.flat(x), _weight_panels(weight), panel_bias(bias, channels, dtype))
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

    def packed_size(block_rows):
        layout = packing.layout_of(in_channels, x_size[0], x_size[1], rows, cols, block_rows, width)
        return in_channels * layout.channel_size

    block_rows, block_pictures = block_size(dtype, pictures, height, width, packed_size, _PIXELS, _PACKED_BYTES)
    layout, pixels, taps, phases = offset_tables(in_channels, x_size, out_size, rows, cols, block_rows, block_pictures)
    row_blocks = -(-height // block_rows)
    blocks = row_blocks * -(-pictures // block_pictures)
    panels = -(-weight_shape[0] // panel_width(dtype))
    packed = block_pictures * packed_size(block_rows)
    packing_cost, panel_cost = _PACKING_COST * packed / lanes(dtype), pixels.size * taps.size * PANEL.columns

    def cost(parts):  # every part packs the same rows once more
        return -(-blocks * parts // threads) * (packing_cost + -(-panels // parts) * panel_cost)

    parts = min(range(1, panels + 1), key=cost)
    sums_start = -(-packed // 64) * 64
    sizes = Sizes(
        tasks=blocks * parts,
        panels=panels,
        channels=weight_shape[0],
        depth=taps.size,
        chunk=CHUNK,
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
        kernel=taps.size // in_channels,
    )
    return Tables(pixels, taps, *phases), layout, sizes, sums_start + pixels.size * panel_width(dtype)


# ---- kernels ---------------------------------------------------------------------------------------------------------


@jit
def _forward_task(arrays, scratch, tables, layout, sizes, task):
    """Compute some panels of output channels for one block of rows or pictures."""
    width = PANEL.columns * (VECTOR_BYTES // scratch.itemsize)
    part, block = task % sizes.parts, task // sizes.parts
    first_row = block % sizes.row_blocks * sizes.block_rows
    first_picture = block // sizes.row_blocks * sizes.block_pictures
    rows = min(sizes.block_rows, sizes.height - first_row)
    pictures = min(sizes.block_pictures, sizes.pictures - first_picture)
    pixels = rows * sizes.width  # of each picture
    pack_pictures(arrays, scratch, tables, layout, sizes, first_picture, pictures, first_row, rows, 0, layout.channels)
    for panel in range(part * sizes.panels // sizes.parts, (part + 1) * sizes.panels // sizes.parts):
        channel = panel * width
        for m in range(pictures * pixels):
            copy(scratch, sizes.sums_start + m * width, arrays.bias, channel, width)
        for start in range(0, sizes.depth, sizes.chunk):
            terms = min(sizes.chunk, sizes.depth - start)
            # fmt: off
            add_products(
                scratch, sizes.sums_start, scratch, tables.rows, 0, pictures * pixels, tables.cols, start, terms,
                arrays.b, (panel * sizes.depth + start) * width,
            )
            # fmt: on
        channels = min(width, sizes.channels - channel)
        out_size = sizes.height * sizes.width
        for i in range(pictures):
            to = ((first_picture + i) * sizes.channels + channel) * out_size + first_row * sizes.width
            source = sizes.sums_start + i * pixels * width
            transpose(arrays.out, to, out_size, scratch, source, width, pixels, channels)


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
