"""The weight gradient of a 3x3 convolution by Winograd's method.

``winograd`` computes an output tile as A' [(G kernel G') * (B' input tile B)] A. The gradient of the kernel is the
same chain backwards ::

    G' [ sum over tiles of (A gradient tile A') * (B' input tile B) ] G

and for each of the 36 elements the sum is a matrix product again: output channels by input channels, over tiles. Its
terms are vectors of tiles, so ``dot_whole_tile`` computes it.

With few channels, the transformed tiles of a panel fit into a core's second-level cache, or nearly: the panels are
dealt out to a fixed number of slots, and a task transforms the panels of one slot, one after the other, and takes all
products.
With many channels, the tiles are taken a panel at a time by all tasks: first each transforms some channels of input and
output gradient, then each takes one of the 36 products. Either way, the order of the sums does not depend on the number
of threads.
"""

from functools import lru_cache

import numba
import numpy as np

from kernels.cpu import packing
from kernels.cpu.tiling import DOT, VECTOR_BYTES, dot_size, lanes
from kernels.cpu.vector import clear, dot_whole_tile
from kernels.cpu.winograd import GAP, POINTS, Arrays, Sizes, Tables, run_tasks, vectors_of
from kernels.cpu.winograd_transforms import (
    GROUP_COLS,
    GROUPS,
    LANES,
    TILE,
    place_groups,
    transform_gradient,
    transform_input,
    transform_sums,
)
from kernels.jit import jit

#: Vectors of tiles of a panel that one task has for itself, and the bytes that it should take: it leaves some of the
#: second-level cache for pixels and sums. With more channels than fit, the smallest panel still beats sharing.
_OWN_VECTORS, _LEAST_OWN_VECTORS, _OWN_BYTES = 14, 7, 700_000
#: Slots at most, the memory that all partial sums may take, and how few slots would leave threads idle.
_SLOTS, _SUMS_BYTES, _LEAST_SLOTS = 32, 8_000_000, 4
#: Vectors of tiles of a panel that all tasks share, and the bytes that it should take, unless there are so many
#: kernels for each vector that the products are less work than fetching their sums.
_SHARED_VECTORS, _SHARED_BYTES, _KERNELS_PER_VECTOR = 60, 4_500_000, 1024


def winograd_weight_gradient(dy, x, rows, cols, more=None):
    """Return the gradient (out, in, 3, 3) of the weights of a correlation, or None where that is not finite.

    The parameters are those of ``weight_gradient.weight_gradient``; ``more``, of the shape of ``x``, has the second
    half of the input channels.
    """
    inputs = 1 if more is None else 2
    channels, in_channels = dy.shape[1], inputs * x.shape[1]
    offsets = min(rows.pieces[0].offsets), min(cols.pieces[0].offsets)
    threads = numba.get_num_threads()
    sizes, tables, panels, slots = _plan(dy.shape, (x.shape[0], in_channels, *x.shape[2:]), offsets, threads)
    sizes = sizes._replace(inputs=inputs)
    pixels_size = sizes.sums_start + POINTS * sizes.sums_step
    (sums,) = packing.scratch(1, max(slots, 1) * POINTS * sizes.weights_step, x.dtype, "winograd weights")
    gradient = packing.new_array((channels, in_channels, 3, 3), x.dtype)
    more = packing.flat(x if more is None else more)
    x, dy = packing.flat(x), packing.flat(dy)
    others = *[dy] * 4, more, dy
    if slots:
        own = sizes._replace(tasks=slots, workers=min(threads, slots), parts=slots, chunk=panels, scratch=pixels_size)
        run_tasks(_slot_task, Arrays(sums, x, *others), tables, own)
    else:
        (pixels,) = packing.scratch(1, pixels_size, x.dtype, "winograd pixels")
        for panel in range(panels):
            now = sizes._replace(chunk=panel)
            run_tasks(_transform_task, Arrays(pixels, x, *others), tables, now._replace(tasks=sizes.parts))
            run_tasks(_product_task, Arrays(sums, pixels, *others), tables, now._replace(tasks=POINTS))
    done = sizes._replace(tasks=sizes.blocks, scratch=9 * lanes(x.dtype), parts=max(slots, 1))
    run_tasks(_gradient_task, Arrays(packing.flat(gradient), sums, *others), tables, done)
    return gradient if np.isfinite(gradient).all() else None


@lru_cache(maxsize=1024)
def _plan(dy_shape, x_shape, offsets, threads):
    """Return sizes, tables, the number of panels, and that of slots or 0 for arrays of these shapes.

    Of the sizes, ``in`` stands for the transformed input, ``sums`` for the transformed output gradient, ``weights`` for
    the products; ``blocks`` counts tiles of output channels, ``block`` those of input channels. ``chunk`` is the panel
    that all tasks share, or the number of panels; ``parts`` are the shares of the channels to transform, or the slots.
    """
    pictures, channels, *size = dy_shape
    in_channels, height, width = x_shape[1:]
    all_vectors = vectors_of(pictures, size)
    blocks, block = -(-channels // DOT.rows), -(-in_channels // DOT.columns)
    weights_step = blocks * block * dot_size(np.float32)
    vectors, panels, slots = _panels(all_vectors, in_channels + channels, in_channels * channels, weights_step)
    panel = vectors * LANES + GAP
    # an odd number of lines: then no two elements of a tile share a set of the first-level cache
    in_step, sums_step = ((count * panel // GAP | 1) * GAP for count in (in_channels, blocks * DOT.rows))
    sizes = Sizes(
        tasks=0,
        workers=threads,
        scratch=0,
        vectors=vectors,
        panel=panel,
        pictures=pictures,
        in_channels=in_channels,
        channels=channels,
        height=height,
        width=width,
        out_height=size[0],
        out_width=size[1],
        first_row=offsets[0],
        first_col=offsets[1],
        group_rows=-(-size[0] // TILE),
        group_cols=-(-size[1] // GROUP_COLS),
        blocks=blocks,
        block=block,
        parts=min(channels + in_channels, 4 * threads),
        few_panels=0,
        chunk=0,
        in_step=in_step,
        sums_step=sums_step,
        weights_step=weights_step,
        sums_start=POINTS * in_step,
        weights_start=0,
    )
    # the last tile of input channels repeats the last one
    taps = np.minimum(np.arange(block * DOT.columns), in_channels - 1) * panel
    taps = (np.arange(POINTS)[:, None] * in_step + taps).reshape(-1)
    width_of_vector = lanes(np.float32)
    starts = np.arange(0, vectors * LANES, width_of_vector)
    tables = Tables(taps, starts, np.full(starts.size, width_of_vector))
    return sizes, tables, panels, slots


def _panels(all_vectors, channels, kernels, weights_step):
    """Return the vectors of tiles of a panel, the number of panels, and that of slots, or 0 if all tasks share panels.

    ``channels`` are those of input and output together. The number of threads must not enter: it would change the sums.
    """
    itemsize = np.dtype(np.float32).itemsize
    vector_bytes = channels * POINTS * LANES * itemsize
    own = max(_LEAST_OWN_VECTORS, min(_OWN_VECTORS, _OWN_BYTES // vector_bytes))
    panels = 2 * -(-all_vectors // (2 * own))  # an even number: with few, one more would keep a thread waiting
    slots = min(panels, _SLOTS, _SUMS_BYTES // (POINTS * weights_step * itemsize)) // 2 * 2
    if slots < _LEAST_SLOTS or own * vector_bytes > _SHARED_BYTES:
        slots = 0
        shared = max(_SHARED_BYTES // vector_bytes, kernels // _KERNELS_PER_VECTOR, 1)
        panels = -(-all_vectors // min(_SHARED_VECTORS, shared))
    return -(-all_vectors // panels), panels, slots  # panels of equal size


# ---- kernels ---------------------------------------------------------------------------------------------------------


@jit
def _slot_task(arrays, scratch, places, tables, sizes, slot):
    """Sum the products of all tiles of one slot."""
    start = slot * POINTS * sizes.weights_step
    clear(arrays.out, start, POINTS * sizes.weights_step)
    for panel in range(slot * sizes.chunk // sizes.parts, (slot + 1) * sizes.chunk // sizes.parts):
        place_groups(places, sizes, panel)
        _transform_channels(scratch, arrays, places, sizes, 0, sizes.in_channels + sizes.channels)
        for k in range(POINTS):
            _add_products(arrays.out, start, scratch, tables, sizes, k)


@jit
def _transform_task(arrays, scratch, places, tables, sizes, part):
    """Transform a share of all channels of a panel."""
    place_groups(places, sizes, sizes.chunk)
    count = sizes.in_channels + sizes.channels
    first, last = part * count // sizes.parts, (part + 1) * count // sizes.parts
    _transform_channels(arrays.out, arrays, places, sizes, first, last)


@jit
def _product_task(arrays, scratch, places, tables, sizes, k):
    """Add the products of one element of all tiles of a panel."""
    if sizes.chunk == 0:
        clear(arrays.out, k * sizes.weights_step, sizes.weights_step)
    _add_products(arrays.out, 0, arrays.x, tables, sizes, k)


@jit
def _transform_channels(to, arrays, places, sizes, first, last):
    """Transform the channels from ``first`` to ``last``: first those of the input, then those of the gradient.

    Meanwhile the pixels of the next channel are fetched, and in the end those of the first one in the next panel.
    """
    size, out_size = sizes.height * sizes.width, sizes.out_height * sizes.out_width
    next_panel = sizes.vectors * LANES * TILE * TILE  # about: where rows or pictures end, it lies elsewhere
    first_out, share = max(first, sizes.in_channels), sizes.in_channels // sizes.inputs
    for c in range(first, last):
        o, channel = c - sizes.in_channels, c % share
        x = arrays.x if c < share else arrays.more
        ahead = size if c + 1 < last and channel + 1 < share else next_panel - (c - max(first, c - channel)) * size
        out_ahead = out_size if c + 1 < last else next_panel - (c - first_out) * out_size
        for v in range(sizes.vectors):
            # fmt: off
            if o < 0:
                transform_input(
                    to, c * sizes.panel + v * LANES, sizes.in_step, x, channel * size, places, v * GROUPS,
                    sizes.height, sizes.width, ahead,
                )
            else:
                transform_gradient(
                    to, sizes.sums_start + o * sizes.panel + v * LANES, sizes.sums_step,
                    arrays.weights, o * out_size, places, v * GROUPS, sizes.out_width, out_ahead,
                )
            # fmt: on


@jit
def _add_products(sums, start, pixels, tables, sizes, k):
    """Add the products of one element of the tiles in ``pixels``."""
    size = DOT.rows * DOT.columns  # as dot_size says
    lane_count = VECTOR_BYTES // sums.itemsize
    size = (size + lane_count - 1) // lane_count * lane_count
    for tap in range(sizes.block):
        for tile in range(sizes.blocks):
            channel = tile * DOT.rows
            # fmt: off
            dot_whole_tile(
                sums, start + k * sizes.weights_step + (tile * sizes.block + tap) * size,
                pixels, sizes.sums_start + k * sizes.sums_step + channel * sizes.panel, sizes.panel,
                sizes.channels - channel, pixels, tables.vectors, tables.counts, tables.vectors.size,
                tables.taps, (k * sizes.block + tap) * DOT.columns,
            )
            # fmt: on


@jit
def _gradient_task(arrays, scratch, places, tables, sizes, tile):
    """Turn the products of one tile of output channels into gradients of kernels."""
    lane_count = VECTOR_BYTES // scratch.itemsize
    size = (DOT.rows * DOT.columns + lane_count - 1) // lane_count * lane_count
    for tap in range(sizes.block):
        for first in range(0, size, lane_count):
            start = (tile * sizes.block + tap) * size + first
            transform_sums(scratch, 0, arrays.x, start, sizes.weights_step, sizes.parts, POINTS * sizes.weights_step)
            for lane in range(min(lane_count, DOT.rows * DOT.columns - first)):
                o = tile * DOT.rows + (first + lane) // DOT.columns
                c = tap * DOT.columns + (first + lane) % DOT.columns
                if o < sizes.channels and c < sizes.in_channels:
                    for t in range(9):
                        arrays.out[(o * sizes.in_channels + c) * 9 + t] = scratch[t * lane_count + lane]
