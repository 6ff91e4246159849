"""Weight gradients with lanes of output channels (see ``panels``).

The rows of the product are weights of one output channel (an input channel and a place in the kernel), its terms are
output pixels. A task computes the weights between some input channels and some panels of output channels: block after
block of pixels it packs the input that these meet, turns the output's gradient so that the channels of a pixel lie
side by side, and adds the products to sums that stay in the second-level cache.

Blocks are dealt out to slots with sums of their own, which are added up in order. Blocks and slots follow from the
shapes alone, so the result does not depend on the number of threads; what a task takes on may. Without padding, the
input is read where it is.
"""

from functools import lru_cache

import numba
import numpy as np

from kernels.cpu import packing
from kernels.cpu.panel_convolution import block_size, offset_tables, pack_pictures
from kernels.cpu.panels import Arrays, Sizes, Tables, add_products, run_tasks, transpose
from kernels.cpu.tiling import PANEL, VECTOR_BYTES, panel_width
from kernels.cpu.vector import clear
from kernels.jit import jit

#: Bytes of a task's sums, and of the input that it packs at once: with the turned gradient they fill a second-level
#: cache by half.
_SUMS_BYTES = 262_144
_PACKED_BYTES = 262_144
#: Panels of a task at most: each reads the packed input once.
_PANELS = 4
#: Weights of an output channel below which turning its gradient costs more than it saves.
_LEAST_TAPS = 16
#: Tasks that there should be, whatever the number of threads: slots make up for few weights.
_TASKS = 16
#: Pixels of a block at most, times panels of a task.
_PIXELS = 1024

# ---- public within the backend ---------------------------------------------------------------------------------------


def gradient_pays(dtype, dy_shape, x_shape, rows, cols):
    """Return whether lanes of output channels are faster than lanes of pixels (see ``weight_gradient``)."""
    channels, panel = dy_shape[1], panel_width(dtype)
    taps = x_shape[1] * len(rows.pieces[0].kernel) * len(cols.pieces[0].kernel)
    channels_used = channels / max(1, -(-channels // panel) * panel)
    direct = all(_inside(*axis) for axis in zip((rows, cols), x_shape[2:], dy_shape[2:], strict=True))
    return taps >= _LEAST_TAPS and channels_used >= (0.5 if direct else 0.75)


def panel_weight_gradient(dy, x, rows, cols):
    """Return the gradient (out, in, kH, kW) of the weights of a correlation; see ``weight_gradient``."""
    dtype, threads = dy.dtype, numba.get_num_threads()
    kernel = len(rows.pieces[0].kernel), len(cols.pieces[0].kernel)
    if rows == cols == packing.gather_axis(1, 1, 0, 1):  # only the number of pixels counts, not the shape of the map
        dy, x = (a.reshape(*a.shape[:2], *_flat_size(a.shape[2] * a.shape[3])) for a in (dy, x))
    tables, layout, sizes, scratch_size = _plan(dtype, dy.shape, x.shape, rows, cols, threads)
    out = packing.new_array((sizes.slots, dy.shape[1], x.shape[1], *kernel), dtype)
    arrays = Arrays(packing.flat(out), packing.flat(x), packing.flat(dy), np.zeros(0, dtype))
    run_tasks(_gradient_task, arrays, tables, layout, sizes, scratch_size, threads)
    if sizes.slots == 1:
        return out[0]
    with np.errstate(all="ignore"):  # infinities of both signs make NaN, silently
        return out.sum(axis=0)


# ---- planning --------------------------------------------------------------------------------------------------------


def _flat_size(pixels):
    """Return a height and a width, of so many pixels, such that rows fill up blocks."""
    width = next(w for w in range(min(pixels, _PIXELS), 0, -1) if pixels % w == 0)
    return pixels // width, width


def _inside(axis, size, out_size):
    """Return whether every output of an axis meets places inside an input of ``size`` only: there is no padding."""
    offsets = axis.pieces[0].offsets
    return min(offsets) >= 0 and axis.stride * (out_size - 1) + max(offsets) < size


def _places(group, in_channels, x_size, size, rows, cols, block_rows, block_pictures):
    """Return where pixels and taps are in x itself, as ``offset_tables`` does for packed rows."""
    plane = x_size[0] * x_size[1]
    offsets = np.arange(block_pictures)[:, None, None] * in_channels * plane
    offsets = offsets + np.arange(block_rows)[:, None] * rows.stride * x_size[1] + np.arange(size[1]) * cols.stride
    down, right = (np.array(axis.pieces[0].offsets) for axis in (rows, cols))
    taps = np.arange(group)[:, None, None] * plane + down[:, None] * x_size[1] + right
    return offsets.reshape(-1).astype(np.int64), taps.reshape(-1).astype(np.int64)


@lru_cache(maxsize=1024)
def _plan(dtype, dy_shape, x_shape, rows, cols, threads):
    """Return tables, layout, sizes and the size of scratch for arrays of these shapes."""
    pictures, channels, height, width = dy_shape
    in_channels, *x_size = x_shape[1:]
    kernel = len(rows.pieces[0].kernel) * len(cols.pieces[0].kernel)
    lane_count = panel_width(dtype)
    panels = -(-channels // lane_count)
    panel_group = min(panels, _PANELS)
    most = max(1, min(in_channels, _SUMS_BYTES // (panel_group * lane_count * dtype.itemsize * kernel)))

    direct = _inside(rows, x_size[0], height) and _inside(cols, x_size[1], width)

    def packed_size(block_rows):
        if direct:
            return 0
        return most * packing.layout_of(most, x_size[0], x_size[1], rows, cols, block_rows, width).channel_size

    most_pixels = _PIXELS // panel_group if direct else _PIXELS // 4
    block_rows, block_pictures = block_size(dtype, pictures, height, width, packed_size, most_pixels, _PACKED_BYTES)
    row_blocks = -(-height // block_rows)
    blocks = row_blocks * -(-pictures // block_pictures)
    panel_groups, parts = -(-panels // panel_group), -(-in_channels // most)
    slots = max(1, min(blocks, _TASKS // (panel_groups * parts)))
    parts = max(parts, min(in_channels, -(-2 * threads // (panel_groups * slots))))
    group = -(-in_channels // parts)
    layout, pixels, taps, phases = offset_tables(group, x_size, dy_shape[2:], rows, cols, block_rows, block_pictures)
    parts = -(-in_channels // group)
    picture_size = group * layout.channel_size
    if direct:
        pixels, taps = _places(group, in_channels, x_size, dy_shape[2:], rows, cols, block_rows, block_pictures)
        picture_size = 0
    panel_start = -(-block_pictures * picture_size // 64) * 64
    sums_start = panel_start + panel_group * pixels.size * lane_count
    sizes = Sizes(
        tasks=slots * panel_groups * parts,
        panels=panels,
        channels=channels,
        depth=in_channels * kernel,
        chunk=pixels.size,
        height=height,
        block_rows=block_rows,
        row_blocks=row_blocks,
        panel_start=panel_start,
        sums_start=sums_start,
        parts=parts,
        pictures=pictures,
        block_pictures=block_pictures,
        width=width,
        picture_size=picture_size,
        group=group,
        kernel=kernel,
        slots=slots,
        panel_group=panel_group,
        direct=int(direct),
        row_step=rows.stride * x_size[1],
    )
    scratch_size = sums_start + panel_group * taps.size * lane_count
    return Tables(taps, pixels, *phases), layout, sizes, scratch_size


# ---- kernels ---------------------------------------------------------------------------------------------------------


@jit
def _gradient_task(arrays, scratch, tables, layout, sizes, task):
    """Sum over the blocks of one slot, for some input channels and some panels."""
    width = PANEL.columns * (VECTOR_BYTES // scratch.itemsize)
    first_input = task % sizes.parts * sizes.group
    inputs = min(sizes.group, sizes.depth // sizes.kernel - first_input)
    slot = task // sizes.parts % sizes.slots
    first_panel = task // (sizes.parts * sizes.slots) * sizes.panel_group
    panels = min(sizes.panel_group, sizes.panels - first_panel)
    taps, blocks = inputs * sizes.kernel, sizes.row_blocks * (-(-sizes.pictures // sizes.block_pictures))
    sums_size, panel_size = taps * width, sizes.chunk * width

    clear(scratch, sizes.sums_start, panels * sums_size)
    clear(scratch, sizes.panel_start, panels * panel_size)
    for block in range(slot * blocks // sizes.slots, (slot + 1) * blocks // sizes.slots):
        first_row = block % sizes.row_blocks * sizes.block_rows
        first_picture = block // sizes.row_blocks * sizes.block_pictures
        rows = min(sizes.block_rows, sizes.height - first_row)
        pictures = min(sizes.block_pictures, sizes.pictures - first_picture)
        source = arrays.a
        if sizes.direct:
            plane = first_picture * (sizes.depth // sizes.kernel) + first_input
            source = arrays.a[plane * layout.height * layout.width + first_row * sizes.row_step :]
        else:
            # fmt: off
            pack_pictures(
                arrays, scratch, tables, layout, sizes, first_picture, pictures, first_row, rows, first_input, inputs
            )
            # fmt: on
            source = scratch
        for p in range(panels):
            start = sizes.panel_start + p * panel_size
            _turn_gradient(arrays, scratch, sizes, first_panel + p, first_picture, pictures, first_row, rows, start)
            # fmt: off
            add_products(
                scratch, sizes.sums_start + p * sums_size, source, tables.rows, 0, taps,
                tables.cols, 0, pictures * rows * sizes.width, scratch, start,
            )
            # fmt: on
    for p in range(panels):
        channel = (first_panel + p) * width
        to = (slot * sizes.channels + channel) * sizes.depth + first_input * sizes.kernel
        channels = min(width, sizes.channels - channel)
        transpose(arrays.out, to, sizes.depth, scratch, sizes.sums_start + p * sums_size, width, taps, channels)


@jit
def _turn_gradient(arrays, scratch, sizes, panel, first_picture, pictures, first_row, rows, to):
    """Write the channels of one panel side by side, for each pixel of a block."""
    width = PANEL.columns * (VECTOR_BYTES // scratch.itemsize)
    channel, size, pixels = panel * width, sizes.height * sizes.width, rows * sizes.width
    for i in range(pictures):
        source = ((first_picture + i) * sizes.channels + channel) * size + first_row * sizes.width
        channels = min(width, sizes.channels - channel)
        transpose(scratch, to + i * pixels * width, width, arrays.b, source, size, channels, pixels)
