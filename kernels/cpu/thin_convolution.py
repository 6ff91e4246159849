"""3x3 convolutions with few output channels, or one for each group: the pixels are read where they are.

With one output channel, packing the input takes as long as the sums, and a tile of several channels, as
``row_convolution`` has, would compute most of them in vain. Here a register tile loads its pixels from the rows
themselves, and only where it meets the edge of the picture, through masks. Lanes are pixels. Each output channel is
computed by itself, four rows at a time, since what is loaded of a row of the input serves three.

A task is a few output rows of one picture and group. The lines that it will write, and the rows that it will read next,
are fetched into the cache meanwhile: there are too many rows in use for the processor to foresee them. Each output is
one sum in one fixed order.
"""

from itertools import product
from typing import Any

import numpy as np
from llvmlite import ir
from numba import extending

from kernels.cpu import packing
from kernels.cpu.packing import plain, turn
from kernels.cpu.tasks import run
from kernels.cpu.tiling import VECTOR_BYTES, WIDE, lanes
from kernels.cpu.vector_writer import signature_of, write_with
from kernels.jit import jit

intrinsic: Any = extending.intrinsic

#: Output rows of a task.
_BLOCK_ROWS = 8
#: How many output channels are few.
FEW = WIDE.rows * 3 // 4
#: How many tiles ahead the lines of the output are fetched.
_AHEAD = 4
#: Rows of a tile, and vectors of each.
_ROWS, _VECTORS = 4, 2


def possible(weight_shape, rows, cols):
    """Return whether a correlation is one of this form: few output channels, a plain kernel of 3x3."""
    return weight_shape[1] <= FEW and plain(rows, cols)


def vectors_of(out_size, dtype):
    """Return how many vectors of outputs are computed for one channel of a picture: whole tiles."""
    return -(-out_size[0] // _ROWS) * -(-out_size[1] // (_VECTORS * lanes(dtype))) * _ROWS * _VECTORS


def thin_correlate(x, weight, bias, out_size, rows, cols, residual=None, relu=False):
    """Return the correlation of ``x`` with ``weight``, (groups, out, in, 3, 3); see ``correlation.correlate``."""
    groups, channels, in_channels = weight.shape[:3]
    out = packing.new_array((x.shape[0], groups * channels, *out_size), x.dtype)
    weights = np.ascontiguousarray(weight[..., :: turn(rows), :: turn(cols)])  # from the first input met to the last
    starts = np.zeros(groups * channels, x.dtype) if bias is None else bias
    first = min(rows.pieces[0].offsets), min(cols.pieces[0].offsets)
    sizes = groups, channels, in_channels, *x.shape[2:], *out_size, *first, int(residual is not None), int(relu)
    blocks = -(-out_size[0] // _BLOCK_ROWS)
    residual = x if residual is None else residual  # without one, any array: it is not read
    run(_thin_task, x.shape[0] * groups * blocks, sizes, out, x, weights, starts, residual)
    return out


@jit
def _thin_task(arrays, sizes, task):
    """Compute a few rows of all output channels of one picture and group."""
    groups, channels, in_channels, height, width, out_height, out_width, first_row, first_col, add, relu = sizes[:11]
    blocks = (out_height + _BLOCK_ROWS - 1) // _BLOCK_ROWS
    plane, begin = task // blocks, task % blocks * _BLOCK_ROWS  # picture * groups + group
    tile_cols = _VECTORS * (VECTOR_BYTES // arrays.out.itemsize)
    x, shape = plane * in_channels * height * width, (height, width)
    for row in range(begin, min(begin + _BLOCK_ROWS, out_height), _ROWS):
        for channel in range(channels):
            number = plane % groups * channels + channel
            for col in range(0, out_width, tile_cols):
                y = ((plane * channels + channel) * out_height + row) * out_width + col
                place = x, row + first_row, col + first_col
                # fmt: off
                thin_tile(
                    arrays.out, y, out_height - row, out_width - col, out_width, arrays.a, *place, *shape, in_channels,
                    arrays.b, number * in_channels * 9, arrays.c, number, arrays.d, add, relu,
                )
                # fmt: on


@intrinsic
def thin_tile(
    typing_context, y, y_start, rows, cols, out_width, x, x_start, row, col, height, width, in_channels,
    weights, weight_start, bias, bias_start, residual, add, relu,
):  # fmt: skip
    """Write one tile of an output channel: bias plus the weighted sum over input channels and taps.

    The tile is ``_ROWS`` by ``_VECTORS`` vectors from number ``y_start`` of ``y`` on, of rows of ``out_width``. Of it,
    what lies beyond ``rows`` and ``cols`` is not written. Its first tap meets ``row`` and ``col``, which may lie
    outside, of planes of ``height`` by ``width`` from ``x_start`` of ``x`` on: all outside is zero. ``weights`` holds a
    value per input channel and tap. ``residual`` is added if ``add`` is not 0, and ``relu`` is applied likewise, as by
    ``vector.multiply_wide``.
    """
    signature = signature_of(
        y, y_start, rows, cols, out_width, x, x_start, row, col, height, width, in_channels,
        weights, weight_start, bias, bias_start, residual, add, relu,
    )  # fmt: skip
    return signature, write_with(_write_thin)


def _write_thin(
    w, y, y_start, rows, cols, out_width, x, x_start, row, col, height, width, in_channels,
    weights, weight_start, bias, bias_start, residual, add, relu,
):  # fmt: skip
    builder = w.builder
    starts = [builder.add(y_start, builder.mul(out_width, w.int(r))) for r in range(_ROWS)]
    offsets = [builder.add(start, w.int(v * w.lanes)) for start in starts for v in range(_VECTORS)]
    for offset in offsets:
        w.prefetch(w.at(w.at(y, offset), _AHEAD * _VECTORS * w.lanes), to_write=True)
    x = w.at(x, builder.add(x_start, builder.add(builder.mul(row, width), col)))
    weights, first = w.at(weights, weight_start), w.splat(w.get(bias, bias_start))

    def compute(met, kept):
        """Write the code for a tile, of which ``met`` and ``kept`` lanes are in the picture: None where all are."""

        def add_channel(c, totals):
            pixels, totals = w.at(x, builder.mul(c, builder.mul(height, width))), list(totals)
            lines = [w.at(pixels, builder.mul(width, w.int(i))) for i in range(2 * _ROWS + 2)]
            for line, v in product(lines[_ROWS + 2 :], range(_VECTORS)):
                w.prefetch(w.at(line, v * w.lanes), nearest=False)
            here = w.at(weights, builder.mul(c, w.int(9)))
            for kx in range(3):
                taps = [w.splat(w.get(here, 3 * ky + kx)) for ky in range(3)]
                for i, v in product(range(_ROWS + 2), range(_VECTORS)):
                    pixels = _load(w, w.at(lines[i], v * w.lanes + kx), met and met[i][v][kx])
                    for ky in range(max(0, i - _ROWS + 1), min(3, i + 1)):
                        n = (i - ky) * _VECTORS + v
                        totals[n] = w.multiply_add(taps[ky], pixels, totals[n])
            return totals

        totals = w.loop(in_channels, [first] * len(offsets), add_channel)
        totals = w.choose(
            builder.icmp_signed("!=", add, w.int(0)),
            lambda: [
                builder.fadd(total, _load(w, w.at(residual, offset), mask))
                for total, offset, mask in zip(totals, offsets, kept, strict=True)
            ],
            totals,
        )
        for total, offset, mask in zip(w.clamp(totals, relu), offsets, kept, strict=True):
            if mask is None:
                w.store(total, w.at(y, offset))
            else:
                w.store_masked(total, w.at(y, offset), mask)

    with builder.if_else(_is_whole(w, rows, cols, row, col, height, width)) as (whole, cut):
        with whole:
            compute(None, [None] * len(offsets))
        with cut:
            compute(*_masks(w, rows, cols, row, col, height, width))


def _is_whole(w, rows, cols, row, col, height, width):
    """Return whether a tile, and all that its taps meet, lies inside the picture."""
    builder, wide, whole = w.builder, _VECTORS * w.lanes, ir.Constant(ir.IntType(1), 1)
    limits = ((row, _ROWS + 2, height), (col, wide + 2, width), (w.int(0), _ROWS, rows), (w.int(0), wide, cols))
    for start, size, limit in limits:
        whole = builder.and_(whole, builder.icmp_signed(">=", start, w.int(0)))
        whole = builder.and_(whole, builder.icmp_signed("<=", builder.add(start, w.int(size)), limit))
    return whole


def _masks(w, rows, cols, row, col, height, width):
    """Return the masks of what a tile meets, by row, vector and tap, and of what it writes, as many as accumulators."""
    add, firsts = w.builder.add, [v * w.lanes for v in range(_VECTORS)]
    lines = [w.inside(add(row, w.int(i)), height) for i in range(_ROWS + 2)]
    spans = [[w.lanes_inside(add(col, w.int(first + kx)), width) for kx in range(3)] for first in firsts]
    met = [[[w.only_if(line, lanes) for lanes in span] for span in spans] for line in lines]
    written = [w.builder.icmp_signed("<", w.int(r), rows) for r in range(_ROWS)]
    ends = [w.first_lanes(w.builder.sub(cols, w.int(first))) for first in firsts]
    return met, [w.only_if(line, end) for line in written for end in ends]


def _load(w, pointer, mask):
    """Load the lanes that ``mask`` chooses; all if it is None."""
    return w.load(pointer, 0) if mask is None else w.load_masked(pointer, mask)
