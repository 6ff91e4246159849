"""The weight gradient of a 3x3 convolution with few channels on one side: both arrays are read where they are.

A weight's gradient is the sum of products of an output channel's gradient with the input pixels that its tap met. Of
the two arrays, that with fewer channels is read shifted, once for each of three columns of taps, and the other one as
it is: lanes are its pixels. For a row of both, a register tile holds the sums of three taps and some channels of the
array with more.

The rows are dealt out to a fixed number of slots, each with sums of its own, lane by lane, which are added up in order:
the result does not depend on the number of threads.
"""

from typing import Any

import numpy as np
from numba import extending

from kernels.cpu import packing
from kernels.cpu.packing import plain
from kernels.cpu.tasks import run
from kernels.cpu.tiling import VECTOR_BYTES, WIDE, lanes
from kernels.cpu.vector import clear
from kernels.cpu.vector_writer import signature_of, write_with
from kernels.jit import jit

intrinsic: Any = extending.intrinsic

#: Channels of a register tile: with three taps, as many sums as a tile of a convolution has.
TILE = WIDE.rows
#: How many channels are few.
FEW = 8
#: Slots at most.
_SLOTS = 32


def possible(dy_shape, x_shape, groups, rows, cols):
    """Return whether a correlation is one of this form: few channels on one side, a plain kernel of 3x3."""
    return groups == 1 and min(dy_shape[1], x_shape[1]) <= FEW and plain(rows, cols)


def rows_of(dy_shape, x_shape, dtype):
    """Return how many rows of a tile of channels are multiplied with a row of taps, and of how many vectors each."""
    few, many = sorted((dy_shape, x_shape), key=lambda shape: shape[1])
    return 3 * many[0] * many[2] * few[1] * -(-many[1] // TILE), -(-many[3] // lanes(dtype))


def thin_weight_gradient(dy, x, rows, cols):
    """Return the gradient (out, in, 3, 3) of a correlation's weights; see ``weight_gradient.weight_gradient``."""
    first = [axis.pieces[0].offsets[0] for axis in (rows, cols)]
    turned = x.shape[1] > dy.shape[1]  # an input meets its outputs on the other side, the last tap first
    many, few, first = (x, dy, [-start - 2 for start in first]) if turned else (dy, x, first)
    pictures, channels, height, width = many.shape
    lane_count, tiles = lanes(x.dtype), -(-channels // TILE)
    # vectors of a row before, and those up to, which all taps meet pixels in the picture
    head = min(-(-max(0, -first[1]) // lane_count), -(-width // lane_count))
    tail = max(head, min(width, few.shape[3] - 2 - first[1]) // lane_count)
    slots = min(_SLOTS, pictures * height)
    sums = packing.new_array((slots, few.shape[1], tiles, 3, TILE, 3, lane_count), x.dtype)
    run(_slot_task, slots, (slots, *many.shape, *few.shape[1:], *first, head, tail), sums, many, few)
    with np.errstate(all="ignore"):  # infinities of both signs make NaN, silently
        total = sums.sum(axis=0).sum(axis=-1)
    gradient = total.transpose(1, 3, 0, 2, 4).reshape(tiles * TILE, few.shape[1], 3, 3)[:channels]
    return gradient[:, :, ::-1, ::-1].swapaxes(0, 1).copy() if turned else gradient


@jit
def _slot_task(arrays, sizes, slot):
    """Sum over the rows of one slot."""
    slots, pictures, channels, height, width, few, few_height, few_width, first_row, first_col, head, tail = sizes[:12]
    lane_count = VECTOR_BYTES // arrays.out.itemsize
    tiles, tile_size = (channels + TILE - 1) // TILE, TILE * 3 * lane_count
    sums = slot * few * tiles * 3 * tile_size
    clear(arrays.out, sums, few * tiles * 3 * tile_size)
    for number in range(slot * pictures * height // slots, (slot + 1) * pictures * height // slots):
        picture, row = number // height, number % height
        for c in range(few):
            for tile in range(tiles):
                first = ((picture * channels + tile * TILE) * height + row) * width
                for ky in range(3):
                    line = row + first_row + ky
                    if 0 <= line < few_height:
                        # fmt: off
                        add_row(
                            arrays.out, sums + ((c * tiles + tile) * 3 + ky) * tile_size, arrays.a, first,
                            height * width, channels - tile * TILE, width, arrays.b,
                            ((picture * few + c) * few_height + line) * few_width, first_col, few_width, head, tail,
                        )
                        # fmt: on


@intrinsic
def add_row(
    typing_context, sums, sums_start, many, many_start, plane, channels, width, few, few_start, col, few_width,
    head, tail,
):  # fmt: skip
    """Add the products of one row of ``TILE`` channels with the pixels that three taps meet to as many vectors.

    The row is ``width`` pixels from ``many_start`` of ``many`` on; channels are ``plane`` apart, and what is beyond
    ``channels`` repeats the last one. Its pixel j meets with tap k number ``col + j + k`` of the ``few_width`` pixels
    from ``few_start`` of ``few`` on; where there is none, there is no product. From vector ``head`` on and before
    ``tail`` all exist.
    """
    signature = signature_of(
        sums, sums_start, many, many_start, plane, channels, width, few, few_start, col, few_width, head, tail
    )
    return signature, write_with(_write_add_row)


def _write_add_row(
    w, sums, sums_start, many, many_start, plane, channels, width, few, few_start, col, few_width, head, tail
):  # fmt: skip
    add, multiply, last = w.builder.add, w.builder.mul, w.builder.sub(channels, w.int(1))
    many, sums = w.at(many, many_start), w.at(sums, sums_start)
    channels = [w.at(many, multiply(plane, w.smaller(w.int(m), last))) for m in range(TILE)]
    taps = [w.at(few, add(add(few_start, col), w.int(k))) for k in range(3)]
    count = w.builder.sdiv(add(width, w.int(w.lanes - 1)), w.int(w.lanes))

    def add_vectors(begin, end, totals, load):
        """Add the vectors from ``begin`` to ``end``, of which ``load`` gives pixels, shifted ones, and masks."""

        def step(i, totals):
            pixels, shifted, masks = load(multiply(add(begin, i), w.int(w.lanes)))
            totals = list(totals)
            for m, channel in enumerate(pixels):
                for k in range(3):
                    total = w.multiply_add(channel, shifted[k], totals[3 * m + k])
                    totals[3 * m + k] = w.builder.select(masks[k], total, totals[3 * m + k]) if masks else total
            return totals

        return w.loop(w.builder.sub(end, begin), totals, step)

    def load_whole(place):
        return [w.load(channel, place) for channel in channels], [w.load(tap, place) for tap in taps], None

    def load_cut(place):
        inside = w.first_lanes(w.builder.sub(width, place))
        masks = [w.lanes_inside(add(add(col, place), w.int(k)), few_width) for k in range(3)]
        masks = [w.builder.and_(inside, mask) for mask in masks]
        shifted = [w.load_masked(w.at(tap, place), mask) for tap, mask in zip(taps, masks, strict=True)]
        return [w.load_masked(w.at(channel, place), inside) for channel in channels], shifted, masks

    totals = [w.load(sums, i * w.lanes) for i in range(3 * TILE)]
    totals = add_vectors(w.int(0), head, totals, load_cut)
    totals = add_vectors(head, tail, totals, load_whole)
    totals = add_vectors(tail, count, totals, load_cut)
    for i, total in enumerate(totals):
        w.store(total, w.at(sums, i * w.lanes))
