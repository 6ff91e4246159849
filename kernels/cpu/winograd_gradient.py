"""The weight gradient of a 3x3 convolution by Winograd's method.

``winograd`` computes an output tile as A' [(G kernel G') * (B' input tile B)] A. The gradient of the kernel is the
same chain backwards ::

    G' [ sum over tiles of (A gradient tile A') * (B' input tile B) ] G

and for each of the 36 elements the sum is a matrix product again: output channels by input channels, over tiles. Its
terms are vectors of tiles, so ``dot_tile`` computes it.

The tiles are taken a chunk at a time. First every task transforms some channels of input and output gradient, then
every task takes one of the 36 products. Sums are added up chunk after chunk, whatever the number of threads.
"""

from functools import lru_cache

import numba
import numpy as np

from kernels.cpu import packing
from kernels.cpu.tiling import DOT, VECTOR_BYTES, dot_size, lanes
from kernels.cpu.vector import clear, dot_tile
from kernels.cpu.winograd import GAP, POINTS, Arrays, Sizes, Tables, place_groups, run_tasks, vectors_of
from kernels.cpu.winograd_transforms import (
    GROUP_COLS,
    GROUPS,
    LANES,
    TILE,
    transform_gradient,
    transform_input,
    transform_sums,
)
from kernels.jit import jit

#: Vectors of tiles of a chunk: enough that adding up the lanes is little beside the products.
_VECTORS = 60


def winograd_weight_gradient(dy, x, rows, cols):
    """Return the gradient (out, in, 3, 3) of the weights of a correlation, or None where that is not finite.

    The parameters are those of ``weight_gradient.weight_gradient``.
    """
    channels, in_channels = dy.shape[1], x.shape[1]
    offsets = min(rows.pieces[0].offsets), min(cols.pieces[0].offsets)
    sizes, tables, chunks = _plan(dy.shape, x.shape, offsets, numba.get_num_threads())
    (pixels,) = packing.scratch(1, sizes.sums_start + POINTS * sizes.sums_step, x.dtype, "winograd pixels")
    (sums,) = packing.scratch(1, POINTS * sizes.weights_step, x.dtype, "winograd weights")
    gradient = packing.new_array((channels, in_channels, 3, 3), x.dtype)
    x, dy = packing.flat(x), packing.flat(dy)
    for chunk in range(chunks):
        now = sizes._replace(chunk=chunk)
        run_tasks(_transform_task, Arrays(pixels, x, dy, dy, dy, dy), tables, now._replace(tasks=sizes.parts))
        run_tasks(_product_task, Arrays(sums, pixels, dy, dy, dy, dy), tables, now._replace(tasks=POINTS))
    done = sizes._replace(tasks=sizes.blocks, scratch=9 * lanes(x.dtype))
    run_tasks(_gradient_task, Arrays(packing.flat(gradient), sums, dy, dy, dy, dy), tables, done)
    return gradient if np.isfinite(gradient).all() else None


@lru_cache(maxsize=1024)
def _plan(dy_shape, x_shape, offsets, threads):
    """Return sizes, tables and the number of chunks for arrays of these shapes.

    Of the sizes, ``in`` stands for the transformed input, ``sums`` for the transformed output gradient, ``weights`` for
    the products; ``blocks`` counts tiles of output channels, ``block`` those of input channels.
    """
    pictures, channels, *size = dy_shape
    in_channels, height, width = x_shape[1:]
    all_vectors = vectors_of(pictures, size)
    chunks = -(-all_vectors // _VECTORS)
    vectors = -(-all_vectors // chunks)
    panel = vectors * LANES + GAP
    blocks, block = -(-channels // DOT.rows), -(-in_channels // DOT.columns)
    in_step, sums_step = in_channels * panel + GAP, blocks * DOT.rows * panel + GAP
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
        weights_step=blocks * block * dot_size(np.float32),
        sums_start=POINTS * in_step,
        weights_start=0,
    )
    # the last tile of input channels repeats the last one
    taps = np.minimum(np.arange(block * DOT.columns), in_channels - 1) * panel
    taps = (np.arange(POINTS)[:, None] * in_step + taps).reshape(-1)
    width_of_vector = lanes(np.float32)
    starts = np.arange(0, vectors * LANES, width_of_vector)
    tables = Tables(taps, starts, np.full(starts.size, width_of_vector))
    return sizes, tables, chunks


# ---- kernels ---------------------------------------------------------------------------------------------------------


@jit
def _transform_task(arrays, scratch, places, tables, sizes, part):
    """Transform a share of all channels, first those of the input, then those of the output gradient."""
    place_groups(places, sizes, sizes.chunk)
    size, out_size = sizes.height * sizes.width, sizes.out_height * sizes.out_width
    count = sizes.in_channels + sizes.channels
    for c in range(part * count // sizes.parts, (part + 1) * count // sizes.parts):
        o = c - sizes.in_channels
        for v in range(sizes.vectors):
            # fmt: off
            if o < 0:
                transform_input(
                    arrays.out, c * sizes.panel + v * LANES, sizes.in_step, arrays.x, c * size, places, v * GROUPS,
                    sizes.height, sizes.width, 0,
                )
            else:
                transform_gradient(
                    arrays.out, sizes.sums_start + o * sizes.panel + v * LANES, sizes.sums_step,
                    arrays.weights, o * out_size, places, v * GROUPS, sizes.out_width,
                )
            # fmt: on


@jit
def _product_task(arrays, scratch, places, tables, sizes, k):
    """Add the products of one element of all tiles of a chunk."""
    size = DOT.rows * DOT.columns  # as dot_size says
    lane_count = VECTOR_BYTES // arrays.out.itemsize
    size = (size + lane_count - 1) // lane_count * lane_count
    if sizes.chunk == 0:
        clear(arrays.out, k * sizes.weights_step, sizes.weights_step)
    for tap in range(sizes.block):
        for tile in range(sizes.blocks):
            channel = tile * DOT.rows
            # fmt: off
            dot_tile(
                arrays.out, k * sizes.weights_step + (tile * sizes.block + tap) * size,
                arrays.x, sizes.sums_start + k * sizes.sums_step + channel * sizes.panel, sizes.panel,
                sizes.channels - channel, arrays.x, tables.vectors, tables.counts, tables.vectors.size,
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
            transform_sums(scratch, 0, arrays.x, start, sizes.weights_step)
            for lane in range(min(lane_count, DOT.rows * DOT.columns - first)):
                o = tile * DOT.rows + (first + lane) // DOT.columns
                c = tap * DOT.columns + (first + lane) % DOT.columns
                if o < sizes.channels and c < sizes.in_channels:
                    for t in range(9):
                        arrays.out[(o * sizes.in_channels + c) * 9 + t] = scratch[t * lane_count + lane]
