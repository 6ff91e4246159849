"""Convolution with kernels of 3x3 by Winograd's method: four times fewer products, by way of a change of basis.

Four by four output pixels of one channel depend on six by six input pixels. Taken as polynomials, their product is
fixed by its values at six points an axis (0, 1, -1, 2, -2 and infinity), and there it is plain multiplication: 36
products instead of 144. With the input transformed by B, the kernel by G and the result by A (see
``winograd_transforms``), ::

    output tile = A' [ sum over channels of (G kernel G') * (B' input tile B) ] A

where * is element by element. For each of the 36 elements the sum over channels is a matrix product of its own.

A task is a panel of up to 48 tiles, whose transformed input stays in a core's second-level cache, for some output
channels. It transforms the input, then takes a block of output channels at a time: 36 products, and the transform back.
The kernels are transformed once for all tasks. Only where there are few panels and the kernels outweigh all else does
each task transform its own, a few input channels at a time: what is used once should not travel to memory and back.

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
from kernels.cpu.native import address_of, call
from kernels.cpu.packing import plain, turn
from kernels.cpu.tiling import VECTOR_BYTES, WIDE
from kernels.cpu.vector import multiply_square_1, multiply_square_2, multiply_square_3
from kernels.cpu.winograd_transforms import (
    GROUP_COLS,
    GROUPS,
    LANES,
    PLACE,
    SPAN,
    TILE,
    place_groups,
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
#: Panels up to which tasks transform the kernels themselves, and of how many input channels at a time.
_FEW_PANELS, _CHUNK = 2, 128
#: How many input channels before their use kernels are fetched.
_AHEAD = 4
#: Numbers between the ends of neighbouring elements: a multiple of 4096 bytes apart, they would drive each other out
#: of the first-level cache.
GAP = 16

# ---- public within the backend ---------------------------------------------------------------------------------------


def possible(dtype, groups, rows, cols):
    """Return whether a correlation is one of this form: float32, one group, a kernel of 3x3 without stride."""
    return dtype == np.float32 and groups == 1 and plain(rows, cols) and turn(rows) == turn(cols)


def vectors_of(pictures, out_size):
    """Return how many vectors of tiles cover the output."""
    return -(-pictures * -(-out_size[0] // TILE) * -(-out_size[1] // GROUP_COLS) // GROUPS)


def winograd_correlate(
    x, weight, bias, out_size, rows, cols, scale=None, residual=None, relu=False, more=None, halves=False
):
    """Return the correlation of ``x`` with ``weight``, (out, in, 3, 3), or None where that is not finite.

    The parameters are those of ``correlation.correlate``; ``scale`` multiplies the weights of each output channel, and
    ``more``, of the shape of ``x``, has the second half of the input channels. With ``halves``, and without a residual,
    the two halves of the output channels are arrays of their own: a tuple.
    """
    channels, in_channels = weight.shape[:2]
    outputs = 2 if halves else 1
    outs = [packing.new_array((x.shape[0], channels // outputs, *out_size), x.dtype) for _ in range(outputs)]
    offsets = min(rows.pieces[0].offsets), min(cols.pieces[0].offsets)
    in_shape = x.shape[0], in_channels, *x.shape[2:]
    sizes = _plan(in_shape, channels, out_size, offsets, numba.get_num_threads())
    kernels = weight if weight.flags.c_contiguous else weight.swapaxes(0, 1)
    if not kernels.flags.c_contiguous:
        kernels = weight = np.ascontiguousarray(weight)
    sizes = sizes._replace(
        add=int(residual is not None),
        relu=int(relu),
        turned=int(turn(rows) < 0),
        weight_step=weight.strides[0] // weight.itemsize,
        weight_in_step=weight.strides[1] // weight.itemsize,
        inputs=1 if more is None else 2,
        outputs=outputs,
    )
    weights = packing.flat(kernels)
    scales = np.ones(-(-channels // WIDE.rows) * WIDE.rows, x.dtype)  # filled up to whole tiles
    if scale is not None:
        scales[:channels] = scale
    if not sizes.few_panels:
        weights = _transformed_weights(weights, scales, sizes)
    starts = np.zeros(channels, x.dtype) if bias is None else bias
    other = packing.flat(x if residual is None else residual)  # without one, any array: it is not read
    more = packing.flat(x if more is None else more)
    out, more_out = packing.flat(outs[0]), packing.flat(outs[-1])
    arrays = Arrays(out, packing.flat(x), weights, scales, packing.flat(starts), other, more, more_out)
    places = run_tasks(_task, arrays, NO_TABLES, sizes)
    if places[:, 0].any():
        return None
    return tuple(outs) if halves else outs[0]


def _transformed_weights(weights, scales, sizes):
    """Return the kernels transformed, in the order in which the products need them."""
    size = sizes.blocks * POINTS * sizes.weights_step
    (transformed,) = packing.scratch(1, size, weights.dtype, "winograd weights")
    tiles = -(-sizes.channels // WIDE.rows)
    sizes = sizes._replace(tasks=tiles, workers=min(numba.get_num_threads(), tiles), scratch=0)
    run_tasks(_weights_task, Arrays(transformed, weights, weights, scales, *[weights] * 4), NO_TABLES, sizes)
    return transformed


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
    few_panels: int  # whether tasks transform the kernels
    chunk: int  # input channels that are taken at a time
    in_step: int  # from one element of the transformed input to the next; of the sums; of the transformed weights
    sums_step: int
    weights_step: int
    sums_start: int  # in scratch
    weights_start: int
    add: int = 0  # whether to add a residual, and to apply a ReLU
    relu: int = 0
    turned: int = 0  # whether to turn kernels by half a turn
    weight_step: int = 0  # in the kernels themselves: from one output channel to the next, and input channel
    weight_in_step: int = 0
    inputs: int = 1  # arrays that share the input channels; the output channels
    outputs: int = 1


class Arrays(NamedTuple):
    """The flat arrays that all tasks share."""

    out: np.ndarray
    x: np.ndarray
    weights: np.ndarray  # kernels; or transformed: [block][element][tile of channels][input channel][channel of it]
    scales: np.ndarray
    bias: np.ndarray
    residual: np.ndarray
    more: np.ndarray  # the second half of the input channels, if ``x`` does not have all; of the output, ``out``
    more_out: np.ndarray


class Tables(NamedTuple):
    """Arrays of int64 that ``dot_tile`` needs, in the weight gradient."""

    taps: np.ndarray
    vectors: np.ndarray
    counts: np.ndarray


NO_TABLES = Tables(*[np.zeros(0, np.int64)] * 3)


@lru_cache(maxsize=1024)
def _plan(x_shape, channels, out_size, offsets, threads):
    """Return the sizes for arrays of these shapes."""
    pictures, in_channels, height, width = x_shape
    group_rows, group_cols = -(-out_size[0] // TILE), -(-out_size[1] // GROUP_COLS)
    all_vectors = vectors_of(pictures, out_size)
    panels = -(-all_vectors // VECTORS)
    vectors = -(-all_vectors // panels)  # panels of equal size
    panel = vectors * LANES
    few_panels = panels <= _FEW_PANELS
    tiles = -(-channels // WIDE.rows)
    if few_panels:  # one block for each part
        parts = min(range(1, tiles + 1), key=lambda p: -(-panels * p // threads) * (40 + 60 * -(-tiles // p)))
        block, blocks, chunk = -(-tiles // parts) * WIDE.rows, parts, min(in_channels, _CHUNK)
    else:
        block, chunk = min(_BLOCK, tiles * WIDE.rows), in_channels
        blocks = -(-channels // block)

        def cost(parts):  # each transforms the same input once more, which costs about as much as 40 products
            return -(-panels * parts // threads) * (40 * in_channels + -(-blocks // parts) * block * (in_channels + 40))

        parts = min(range(1, blocks + 1), key=cost)
    in_step, sums_step = chunk * panel + GAP, block * panel + GAP
    weights_step = (WIDE.rows * chunk if few_panels else block * in_channels) + GAP
    tasks = panels * parts
    sums_start = POINTS * in_step
    weights_start = sums_start + POINTS * sums_step
    return Sizes(
        tasks=tasks,
        workers=max(1, min(threads, tasks)),
        scratch=weights_start + few_panels * POINTS * weights_step,
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
        few_panels=int(few_panels),
        chunk=chunk,
        in_step=in_step,
        sums_step=sums_step,
        weights_step=weights_step,
        sums_start=sums_start,
        weights_start=weights_start,
    )


# ---- kernels ---------------------------------------------------------------------------------------------------------


def run_tasks(task, arrays, tables, sizes):
    """Run all tasks and return their places, a row for each worker."""
    scratch = packing.scratch(sizes.workers, sizes.scratch, arrays.out.dtype, "winograd")
    places = packing.scratch(sizes.workers, 1 + sizes.vectors * GROUPS * PLACE, np.int64)
    places[:, 0] = 0
    address = address_of(task, arrays.out.dtype, (arrays, scratch[0], places[0], tables, sizes, 0))
    _run_kernel(address, tuple(arrays), scratch, places, tuple(tables), tuple(sizes))
    return places


@jit(parallel=True)
def _run_kernel(address, arrays, scratch, places, tables, sizes):
    """Share the tasks out to as many workers as there are rows of scratch."""
    # named here: Numba takes long to recognise a named tuple that comes from Python
    named_arrays, named_tables, named_sizes = Arrays(*arrays), Tables(*tables), Sizes(*sizes)
    workers, tasks = scratch.shape[0], named_sizes.tasks
    for worker in prange(workers):
        first = np.int64(worker) * tasks // workers
        last = (np.int64(worker) + 1) * tasks // workers
        for task in range(first, last):
            call(address, named_arrays, scratch[worker], places[worker], named_tables, named_sizes, task)


@jit
def _weights_task(arrays, scratch, places, tables, sizes, tile):
    """Transform the kernels of one tile of output channels."""
    channel = tile * WIDE.rows
    block, row = channel // sizes.block, channel % sizes.block
    to = block * POINTS * sizes.weights_step + row * sizes.in_channels
    _transform_kernels(arrays.out, to, arrays, sizes, channel, 0, sizes.in_channels)


@jit
def _transform_kernels(to, to_start, arrays, sizes, channel, first, inputs):
    """Transform the kernels of one tile of output channels and some input channels."""
    for c in range(inputs):
        source = channel * sizes.weight_step + (first + c) * sizes.weight_in_step
        # fmt: off
        transform_weights(
            to, to_start + c * WIDE.rows, sizes.weights_step, arrays.weights, source, sizes.weight_step,
            sizes.channels - channel, sizes.turned, arrays.scales, channel, _AHEAD * sizes.weight_in_step,
        )
        # fmt: on


@jit
def _task(arrays, scratch, places, tables, sizes, task):
    """Compute the output of one panel of tiles, for one part of the blocks of output channels."""
    part, panel = task % sizes.parts, task // sizes.parts
    place_groups(places, sizes, panel)
    first_block, last_block = part * sizes.blocks // sizes.parts, (part + 1) * sizes.blocks // sizes.parts
    for block in range(first_block, last_block):
        channel = block * sizes.block
        channels = min(sizes.block, sizes.channels - channel)
        for first in range(0, sizes.in_channels, sizes.chunk):
            inputs = min(sizes.chunk, sizes.in_channels - first)
            if block == first_block:  # of several blocks, each has but one chunk, and it is the same
                _transform_pixels(arrays, scratch, places, sizes, first, inputs)
            _multiply(arrays, scratch, sizes, block, channels, first, inputs)
        out_size, share = sizes.out_height * sizes.out_width, sizes.channels // sizes.outputs
        for o in range(channels):
            out = arrays.out if channel + o < share else arrays.more_out
            place = (channel + o) % share
            ahead = out_size if place + 1 < share else 0
            for v in range(sizes.vectors):
                # fmt: off
                transform_output(
                    out, place * out_size, sizes.out_width, scratch,
                    sizes.sums_start + o * sizes.panel + v * LANES, sizes.sums_step, places, v * GROUPS,
                    arrays.bias, channel + o, arrays.residual, sizes.add, sizes.relu, ahead,
                )
                # fmt: on


@jit
def _transform_pixels(arrays, scratch, places, sizes, first, inputs):
    """Transform the pixels that a panel meets, of some input channels."""
    size, share = sizes.height * sizes.width, sizes.in_channels // sizes.inputs
    for c in range(inputs):
        x = arrays.x if first + c < share else arrays.more
        channel = (first + c) % share
        ahead = size if channel + 1 < share else 0
        for v in range(sizes.vectors):
            # fmt: off
            transform_input(
                scratch, c * sizes.panel + v * LANES, sizes.in_step, x, channel * size, places, v * GROUPS,
                sizes.height, sizes.width, ahead,
            )
            # fmt: on


@jit
def _multiply(arrays, scratch, sizes, block, channels, first, inputs):
    """Multiply transformed pixels with transformed kernels, element by element of the tiles.

    The sums of the input channels before ``first`` are there already.
    """
    if sizes.few_panels:
        for row in range(0, channels, WIDE.rows):
            start = sizes.weights_start
            _transform_kernels(scratch, start, arrays, sizes, block * sizes.block + row, first, inputs)
            for k in range(POINTS):
                _multiply_tile(scratch, sizes, k, row, inputs, scratch, start + k * sizes.weights_step, first)
    else:
        for k in range(POINTS):  # the pixels of one element stay in the first-level cache
            for row in range(0, channels, WIDE.rows):
                start = (block * POINTS + k) * sizes.weights_step + row * sizes.in_channels
                _multiply_tile(scratch, sizes, k, row, inputs, arrays.weights, start, first)


@jit
def _multiply_tile(scratch, sizes, k, row, inputs, weights, weight_start, add):
    """Compute element k of a tile of output channels, for all tiles of the panel."""
    sums = sizes.sums_start + k * sizes.sums_step + row * sizes.panel
    lane_count = VECTOR_BYTES // scratch.itemsize
    vectors = sizes.panel // lane_count
    for first in range(0, vectors, 3):
        place, pixels = sums + first * lane_count, k * sizes.in_step + first * lane_count
        terms = inputs, weights, weight_start, add
        if vectors - first == 1:
            multiply_square_1(scratch, place, sizes.panel, scratch, pixels, *terms)
        elif vectors - first == 2:
            multiply_square_2(scratch, place, sizes.panel, scratch, pixels, *terms)
        else:
            multiply_square_3(scratch, place, sizes.panel, scratch, pixels, *terms)
