"""Convolution with kernels of 3x3 by Winograd's method: four times fewer products, by way of a change of basis.

Four by four output pixels of one channel depend on six by six input pixels. Taken as polynomials, their product is
fixed by its values at six points an axis (0, 1, -1, 2, -2 and infinity), and there it is plain multiplication: 36
products instead of 144. With the input transformed by B, the kernel by G and the result by A (see
``winograd_transforms``), ::

    output tile = A' [ sum over channels of (G kernel G') * (B' input tile B) ] A

where * is element by element. For each of the 36 elements the sum over channels is a matrix product of its own.

A task is a panel of up to 48 tiles, whose transformed input stays in a core's second-level cache, for some output
channels. It transforms the input, then takes a block of output channels at a time: 36 products, and the transform back.

The price is rounding: errors of about 1e-5 of the largest result in float32, thirty times those of the plain sum, so
float64 never comes here. And what is infinite or not a number spoils its whole tile: where a result is not finite, the
caller has to compute it directly.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", arXiv:1509.09308.
"""

from functools import lru_cache
from typing import NamedTuple

import numba
import numpy as np
from numba import prange

from kernels.cpu import packing
from kernels.cpu.native import native
from kernels.cpu.tiling import WIDE, lanes
from kernels.cpu.vector import multiply_one, multiply_two, multiply_wide
from kernels.cpu.winograd_transforms import (
    GROUP_COLS,
    GROUPS,
    LANES,
    PLACE,
    SPAN,
    TILE,
    transform_input,
    transform_output,
    transform_weights,
)
from kernels.jit import jit

#: Vectors of tiles in a panel, at most.
VECTORS = 3
#: Elements of a transformed tile.
POINTS = SPAN * SPAN
#: Output channels that a task takes at a time: their sums stay in the second-level cache.
_BLOCK = 32
#: Numbers between the ends of neighbouring elements: a multiple of 4096 bytes apart, they would drive each other out
#: of the first-level cache.
_GAP = 16

# ---- public within the backend ---------------------------------------------------------------------------------------


def possible(dtype, groups, rows, cols):
    """Return whether a correlation is one of this form: float32, one group, a kernel of 3x3 without stride."""
    orders = [_order(axis) for axis in (rows, cols)]
    return dtype == np.float32 and groups == 1 and orders[0] == orders[1] and orders[0] in (1, -1)


def _order(axis):
    """Return the step between the inputs that the three taps of an output meet; 0 if there is no such step."""
    offsets = axis.pieces[0].offsets
    if axis.stride != 1 or axis.step != 1 or len(offsets) != 3 or offsets[2] - offsets[1] != offsets[1] - offsets[0]:
        return 0
    return offsets[1] - offsets[0]


def winograd_correlate(x, weight, bias, out_size, rows, cols, residual=None, relu=False):
    """Return the correlation of ``x`` with ``weight``, (out, in, 3, 3), or None where that is not finite.

    The parameters are those of ``correlation.correlate``.
    """
    channels, in_channels = weight.shape[:2]
    out = packing.new_array((x.shape[0], channels, *out_size), x.dtype)
    offsets = min(rows.pieces[0].offsets), min(cols.pieces[0].offsets)
    sizes = _plan(x.shape, channels, out_size, offsets, numba.get_num_threads())
    weights = _transformed_weights(weight, _order(rows) < 0, sizes)
    starts = np.zeros(channels, x.dtype) if bias is None else bias
    add = packing.flat(x if residual is None else residual)  # without one, any array: it is not read
    arrays = Arrays(packing.flat(out), packing.flat(x), weights, packing.flat(starts), add)
    places = _run(
        _task,
        arrays,
        _tables(in_channels, sizes.vectors),
        sizes._replace(add=int(residual is not None), relu=int(relu)),
    )
    return None if places[:, 0].any() else out


# ---- planning --------------------------------------------------------------------------------------------------------


class Sizes(NamedTuple):
    """What a task must know of the shapes."""

    tasks: int
    workers: int
    scratch: int  # numbers that a worker needs
    vectors: int  # of a panel, and its tiles
    panel: int
    pictures: int
    in_channels: int
    channels: int
    height: int
    width: int
    out_height: int
    out_width: int
    first_row: int  # of the input, for output 0
    first_col: int
    group_rows: int  # groups of a picture
    group_cols: int
    blocks: int  # of output channels
    block: int
    parts: int  # into which the blocks are divided
    in_step: int  # from one element of the transformed input to the next; of the sums; of the transformed weights
    sums_step: int
    weights_step: int
    sums_start: int
    add: int = 0  # whether to add a residual, and to apply a ReLU
    relu: int = 0
    turned: int = 0  # whether to turn kernels by half a turn
    weight_step: int = 0  # from one output channel of the weights themselves to the next, and of the input channels
    weight_in_step: int = 0


class Arrays(NamedTuple):
    """The flat arrays that all tasks share."""

    out: np.ndarray
    x: np.ndarray
    weights: np.ndarray  # [block][element][tile of channels][input channel][channel of the tile]
    bias: np.ndarray
    residual: np.ndarray


class Tables(NamedTuple):
    """Arrays for ``multiply_wide``; its taps are input channels here."""

    taps: np.ndarray  # where each input channel is, for each element of the tiles in turn
    vectors: np.ndarray
    counts: np.ndarray
    zeros: np.ndarray


@lru_cache(maxsize=1024)
def _plan(x_shape, channels, out_size, offsets, threads):
    """Return the sizes for arrays of these shapes."""
    pictures, in_channels, height, width = x_shape
    group_rows, group_cols = -(-out_size[0] // TILE), -(-out_size[1] // GROUP_COLS)
    all_vectors = -(-pictures * group_rows * group_cols // GROUPS)
    panels = -(-all_vectors // VECTORS)
    vectors = -(-all_vectors // panels)  # panels of equal size
    panel = vectors * LANES
    block = min(_BLOCK, -(-channels // WIDE.rows) * WIDE.rows)
    blocks = -(-channels // block)

    def cost(parts):  # every part transforms the same input once more; a transform costs about as much as 40 products
        return -(-panels * parts // threads) * (40 * in_channels + -(-blocks // parts) * block * (in_channels + 40))

    parts = min(range(1, blocks + 1), key=cost)
    in_step, sums_step = in_channels * panel + _GAP, block * panel + _GAP
    tasks = panels * parts
    return Sizes(
        tasks=tasks,
        workers=max(1, min(threads, tasks)),
        scratch=POINTS * (in_step + sums_step),
        vectors=vectors,
        panel=panel,
        pictures=pictures,
        in_channels=in_channels,
        channels=channels,
        height=height,
        width=width,
        out_height=out_size[0],
        out_width=out_size[1],
        first_row=offsets[0],
        first_col=offsets[1],
        group_rows=group_rows,
        group_cols=group_cols,
        blocks=blocks,
        block=block,
        parts=parts,
        in_step=in_step,
        sums_step=sums_step,
        weights_step=block * in_channels + _GAP,
        sums_start=POINTS * in_step,
    )


@lru_cache(maxsize=256)
def _tables(in_channels, vectors):
    """Return the tables for so many input channels and vectors of tiles."""
    panel, width = vectors * LANES, lanes(np.float32)
    elements = np.arange(POINTS)[:, None] * (in_channels * panel + _GAP)
    taps = (elements + np.arange(in_channels) * panel).reshape(-1)
    starts = np.arange(0, panel, width)
    return Tables(taps, starts, np.full(starts.size, width), np.zeros(WIDE.rows, np.float32))


def _transformed_weights(weight, turned, sizes):
    """Return ``weight`` transformed, in the order in which the products need it."""
    owner = weight if weight.flags.c_contiguous else weight.swapaxes(0, 1)
    if not owner.flags.c_contiguous:
        owner = weight = np.ascontiguousarray(weight)
    size = sizes.blocks * POINTS * sizes.weights_step
    (weights,) = packing.scratch(1, size, weight.dtype, "winograd weights")
    tiles = -(-sizes.channels // WIDE.rows)
    sizes = sizes._replace(
        tasks=tiles,
        workers=min(numba.get_num_threads(), tiles),
        scratch=0,
        turned=int(turned),
        weight_step=weight.strides[0] // weight.itemsize,
        weight_in_step=weight.strides[1] // weight.itemsize,
    )
    nothing = np.zeros(0, weight.dtype)
    arrays = Arrays(weights, packing.flat(owner), nothing, nothing, nothing)
    _run(_weights_task, arrays, _tables(sizes.in_channels, sizes.vectors), sizes)
    return weights


# ---- kernels ---------------------------------------------------------------------------------------------------------


def _run(task, arrays, tables, sizes):
    """Run all tasks and return their places, a row for each worker."""
    scratch = packing.scratch(sizes.workers, sizes.scratch, arrays.out.dtype, "winograd")
    places = packing.scratch(sizes.workers, 1 + VECTORS * GROUPS * PLACE, np.int64)
    places[:, 0] = 0
    run_task = native(task, arrays.out.dtype, (arrays, scratch[0], places[0], tables, sizes, 0))
    _run_kernel(run_task, arrays, scratch, places, tables, sizes)
    return places


@jit(parallel=True)
def _run_kernel(run_task, arrays, scratch, places, tables, sizes):
    """Share the tasks out to as many workers as there are rows of scratch."""
    workers = scratch.shape[0]
    for worker in prange(workers):
        first = np.int64(worker) * sizes.tasks // workers
        last = (np.int64(worker) + 1) * sizes.tasks // workers
        for task in range(first, last):
            run_task(arrays, scratch[worker], places[worker], tables, sizes, task)


@jit
def _weights_task(arrays, scratch, places, tables, sizes, tile):
    """Transform the weights of one tile of output channels."""
    channel = tile * WIDE.rows
    tile_size = sizes.in_channels * WIDE.rows
    block, rest = channel // sizes.block, channel % sizes.block // WIDE.rows
    to = block * POINTS * sizes.weights_step + rest * tile_size
    for c in range(sizes.in_channels):
        source = channel * sizes.weight_step + c * sizes.weight_in_step
        # fmt: off
        transform_weights(
            arrays.out, to + c * WIDE.rows, sizes.weights_step, arrays.x, source, sizes.weight_step,
            sizes.channels - channel, sizes.turned,
        )
        # fmt: on


@jit
def _task(arrays, scratch, places, tables, sizes, task):
    """Compute the output of one panel of tiles, for one part of the blocks of output channels."""
    part, panel = task % sizes.parts, task // sizes.parts
    place_groups(places, sizes, panel)
    size, out_size = sizes.height * sizes.width, sizes.out_height * sizes.out_width
    for c in range(sizes.in_channels):
        ahead = size if c + 1 < sizes.in_channels else 0
        for v in range(sizes.vectors):
            # fmt: off
            transform_input(
                scratch, c * sizes.panel + v * LANES, sizes.in_step, arrays.x, c * size, places, v * GROUPS,
                sizes.height, sizes.width, ahead,
            )
            # fmt: on
    for block in range(part * sizes.blocks // sizes.parts, (part + 1) * sizes.blocks // sizes.parts):
        first = block * sizes.block
        channels = min(sizes.block, sizes.channels - first)
        _multiply(arrays, scratch, tables, sizes, block, channels)
        for o in range(channels):
            for v in range(sizes.vectors):
                # fmt: off
                transform_output(
                    arrays.out, (first + o) * out_size, sizes.out_width, scratch,
                    sizes.sums_start + o * sizes.panel + v * LANES, sizes.sums_step, places, v * GROUPS,
                    arrays.bias, first + o, arrays.residual, sizes.add, sizes.relu,
                )
                # fmt: on


@jit
def _multiply(arrays, scratch, tables, sizes, block, channels):
    """Multiply the transformed input with a block of transformed weights, element by element of the tiles."""
    vectors = tables.vectors.size
    for k in range(POINTS):
        for row in range(0, channels, WIDE.rows):
            weight_start = (block * POINTS + k) * sizes.weights_step + row * sizes.in_channels
            sums = sizes.sums_start + k * sizes.sums_step + row * sizes.panel
            taps = k * sizes.in_channels, sizes.in_channels
            # fmt: off
            if vectors == 1:
                multiply_one(
                    scratch, sums, sizes.panel, WIDE.rows, tables.vectors, tables.counts, scratch, tables.vectors,
                    0, vectors, tables.taps, *taps, arrays.weights, weight_start, tables.zeros, 0, tables.zeros, 0, 0,
                )
            elif vectors == 2:
                multiply_two(
                    scratch, sums, sizes.panel, WIDE.rows, tables.vectors, tables.counts, scratch, tables.vectors,
                    0, vectors, tables.taps, *taps, arrays.weights, weight_start, tables.zeros, 0, tables.zeros, 0, 0,
                )
            else:
                for first in range(0, vectors, WIDE.columns):
                    multiply_wide(
                        scratch, sums, sizes.panel, WIDE.rows, tables.vectors, tables.counts, scratch, tables.vectors,
                        first, vectors - first, tables.taps, *taps, arrays.weights, weight_start,
                        tables.zeros, 0, tables.zeros, 0, 0,
                    )
            # fmt: on


@jit
def place_groups(places, sizes, panel):
    """Note where the groups of a panel are; see ``winograd_transforms``."""
    per_picture = sizes.group_rows * sizes.group_cols
    groups = sizes.vectors * GROUPS
    for i in range(groups):
        group, at = panel * groups + i, 1 + i * PLACE
        picture = group // per_picture
        row = group % per_picture // sizes.group_cols * TILE
        col = group % sizes.group_cols * GROUP_COLS
        in_row, in_col = row + sizes.first_row, col + sizes.first_col
        rows = sizes.out_height - row
        if picture >= sizes.pictures:  # the last panel is filled up with groups outside of any picture
            picture, in_row, rows = 0, sizes.height, 0
        in_start = picture * sizes.in_channels * sizes.height * sizes.width
        out_start = picture * sizes.channels * sizes.out_height * sizes.out_width
        places[at] = in_start + in_row * sizes.width + in_col
        places[at + 1], places[at + 2] = in_row, in_col
        places[at + 3] = out_start + row * sizes.out_width + col
        places[at + 4], places[at + 5] = rows, sizes.out_width - col
