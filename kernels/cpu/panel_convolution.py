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
from kernels.cpu.vector import clear, copy
from kernels.jit import jit

#: Output pixels of a block at most, unless a row has more, and bytes of its packed input.
_PIXELS = 256
_PACKED_BYTES = 400_000
#: Weights whose gradient a task computes for each lane, about: its sums stay in the second-level cache.
_TAPS = 576
#: What it costs to pack one vector, in multiplications of a vector.
_PACKING_COST = 4
#: Terms of a sum, or taps of a weight gradient, below which packing and turning panels costs more than they save.
_LEAST_DEPTH = 256
#: Weights of a 1x1 convolution below which its weight gradient is faster by dot products.
_LEAST_POINTS = 2**17

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


def gradient_pays(dtype, channels, in_channels, taps, width):
    """Return whether the weight gradient is faster with lanes of channels; ``taps`` are those per input channel."""
    return pays(dtype, channels, in_channels * taps, width) and (taps > 1 or channels * in_channels >= _LEAST_POINTS)


def panel_correlate(x, weight, bias, out_size, rows, cols):
    """Return the correlation of ``x`` with ``weight``, (out, in, kH, kW); see ``correlation.correlate``."""
    dtype, threads = x.dtype, numba.get_num_threads()
    channels = weight.shape[0]
    out = packing.new_array((x.shape[0], channels, *out_size), dtype)
    tables, layout, sizes, scratch_size = _forward_plan(dtype, x.shape, weight.shape, out_size, rows, cols, threads)
    arrays = Arrays(packing.flat(out), packing.flat(x), _weight_panels(weight), panel_bias(bias, channels, dtype))
    run_tasks(_forward_task, arrays, tables, layout, sizes, scratch_size, threads)
    return out


def panel_weight_gradient(dy, x, rows, cols):
    """Return the gradient (out, in, kH, kW) of the weights of a correlation; see ``weight_gradient``."""
    dtype, threads = dy.dtype, numba.get_num_threads()
    kernel = len(rows.pieces[0].kernel), len(cols.pieces[0].kernel)
    out = packing.new_array((dy.shape[1], x.shape[1], *kernel), dtype)
    tables, layout, sizes, scratch_size = _gradient_plan(dtype, dy.shape, x.shape, rows, cols, threads)
    arrays = Arrays(packing.flat(out), packing.flat(x), packing.flat(dy), np.zeros(0, dtype))
    run_tasks(_gradient_task, arrays, tables, layout, sizes, scratch_size, threads)
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


def _blocks(dtype, pictures, height, width, packed_size):
    """Return how many rows and pictures a block has; ``packed_size(rows)`` numbers are packed for one picture."""

    rows = min(height, max(1, _PIXELS // width))
    while rows > 1 and packed_size(rows) * dtype.itemsize > _PACKED_BYTES:
        rows -= 1
    rows = -(-height // -(-height // rows))  # of about equal size
    if rows < height:
        return rows, 1
    fit = min(_PIXELS // (rows * width), _PACKED_BYTES // (packed_size(rows) * dtype.itemsize))
    return rows, max(1, min(pictures, fit))


def _tables(in_channels, x_size, size, rows, cols, block_rows, block_pictures):
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

    block_rows, block_pictures = _blocks(dtype, pictures, height, width, packed_size)
    layout, pixels, taps, phases = _tables(in_channels, x_size, out_size, rows, cols, block_rows, block_pictures)
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


@lru_cache(maxsize=1024)
def _gradient_plan(dtype, dy_shape, x_shape, rows, cols, threads):
    """Return tables, layout, sizes and the size of scratch for arrays of these shapes."""
    pictures, channels, height, width = dy_shape
    in_channels, *x_size = x_shape[1:]
    kernel = len(rows.pieces[0].kernel) * len(cols.pieces[0].kernel)
    panels = -(-channels // panel_width(dtype))
    most = max(1, _TAPS // kernel)  # input channels of a task

    def packed_size(block_rows):
        return most * packing.layout_of(most, x_size[0], x_size[1], rows, cols, block_rows, width).channel_size

    # sums are taken block by block, so the blocks must not depend on the number of threads; what shares them may
    block_rows, block_pictures = _blocks(dtype, pictures, height, width, packed_size)
    parts = max(-(-in_channels // most), min(in_channels, -(-2 * threads // panels)))
    group = -(-in_channels // parts)
    layout, pixels, taps, phases = _tables(group, x_size, (height, width), rows, cols, block_rows, block_pictures)
    parts = -(-in_channels // group)
    picture_size = group * layout.channel_size
    panel_start = -(-block_pictures * picture_size // 64) * 64
    sums_start = panel_start + pixels.size * panel_width(dtype)
    sizes = Sizes(
        tasks=parts * panels,
        panels=panels,
        channels=channels,
        depth=in_channels * kernel,
        chunk=pixels.size,
        height=height,
        block_rows=block_rows,
        row_blocks=-(-height // block_rows),
        panel_start=panel_start,
        sums_start=sums_start,
        parts=parts,
        pictures=pictures,
        block_pictures=block_pictures,
        width=width,
        picture_size=picture_size,
        group=group,
        kernel=kernel,
    )
    return Tables(taps, pixels, *phases), layout, sizes, sums_start + taps.size * panel_width(dtype)


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
    _pack_pictures(arrays, scratch, tables, layout, sizes, first_picture, pictures, first_row, rows, 0, layout.channels)
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
def _gradient_task(arrays, scratch, tables, layout, sizes, task):
    """Compute the gradient of the weights between one panel of output channels and some input channels."""
    width = PANEL.columns * (VECTOR_BYTES // scratch.itemsize)
    panel, first_input = task // sizes.parts, task % sizes.parts * sizes.group
    inputs = min(sizes.group, sizes.depth // sizes.kernel - first_input)
    channel, taps = panel * width, inputs * sizes.kernel
    channels = min(width, sizes.channels - channel)
    out_size = sizes.height * sizes.width
    clear(scratch, sizes.sums_start, taps * width)
    if channels < width:
        clear(scratch, sizes.panel_start, sizes.chunk * width)
    for first_picture in range(0, sizes.pictures, sizes.block_pictures):
        pictures = min(sizes.block_pictures, sizes.pictures - first_picture)
        for first_row in range(0, sizes.height, sizes.block_rows):
            rows = min(sizes.block_rows, sizes.height - first_row)
            pixels = rows * sizes.width
            # fmt: off
            _pack_pictures(
                arrays, scratch, tables, layout, sizes, first_picture, pictures, first_row, rows, first_input, inputs
            )
            # fmt: on
            for i in range(pictures):
                source = ((first_picture + i) * sizes.channels + channel) * out_size + first_row * sizes.width
                to = sizes.panel_start + i * pixels * width
                transpose(scratch, to, width, arrays.b, source, out_size, channels, pixels)
            # fmt: off
            add_products(
                scratch, sizes.sums_start, scratch, tables.rows, 0, taps, tables.cols, 0, pictures * pixels,
                scratch, sizes.panel_start,
            )
            # fmt: on
    to = channel * sizes.depth + first_input * sizes.kernel
    transpose(arrays.out, to, sizes.depth, scratch, sizes.sums_start, width, taps, channels)


@jit
def _pack_pictures(arrays, scratch, tables, layout, sizes, first_picture, pictures, first_row, rows, first, channels):
    """Pack the input rows that some output rows of some pictures meet, for ``channels`` channels from ``first`` on."""
    size = layout.height * layout.width
    packed_rows = rows + layout.rows - sizes.block_rows
    phases = tables.row_phases, tables.col_phases
    for i in range(pictures):
        x_start = ((first_picture + i) * (sizes.depth // sizes.kernel) + first) * size
        to = i * sizes.picture_size
        pack_channels(scratch, to, arrays.a, x_start, channels, first_row, packed_rows, *phases, layout)
