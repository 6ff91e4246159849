"""3x3 convolutions of few channels, or one for each group: the pixels are read where they are.

With one input channel, or one output channel, packing the input takes as long as the sums. Here a register tile loads
its pixels from the rows themselves, and only where it meets the edge of the picture, through masks. Lanes are pixels.
Of several output channels, a tile computes as many as others do, of one row; of a single one it computes four rows,
since what it loads of a row of the input serves three.

A task is a few output rows of one picture and group. The lines that it will write, and the rows that it will read next,
are fetched into the cache meanwhile: there are too many rows in use for the processor to foresee them. Each output is
one sum in one fixed order.
"""

import math
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import extending

from kernels.cpu import packing
from kernels.cpu.tasks import run
from kernels.cpu.tiling import VECTOR_BYTES, WIDE, lanes
from kernels.cpu.vector_writer import signature_of, write_with
from kernels.jit import jit

intrinsic: Any = extending.intrinsic

#: Output rows of a task.
_BLOCK_ROWS = 8
#: How many channels are few; up to how many output channels each is computed by itself.
FEW, _SINGLE = 8, WIDE.rows * 3 // 4
#: How many tiles ahead the lines of the output are fetched.
_AHEAD = 4


class _Tile(NamedTuple):
    """Accumulators: output channels by rows by vectors."""

    channels: int
    rows: int
    vectors: int


_SEVERAL, _ONE = _Tile(WIDE.rows, 1, 2), _Tile(1, 4, 2)


def possible(weight_shape, rows, cols):
    """Return whether a correlation is one of this form: few channels, a kernel of 3x3 without stride or dilation."""
    return min(weight_shape[1:3]) <= FEW and all(
        axis.stride == axis.step == 1 and len(axis.pieces[0].offsets) == 3 and abs(_turn(axis)) == 1
        for axis in (rows, cols)
    )


def vectors_of(channels, out_size, dtype):
    """Return how many vectors of outputs are computed for one picture and group: whole tiles."""
    tile = _tile(channels)
    sizes = zip((channels, *out_size), (tile.channels, tile.rows, tile.vectors * lanes(dtype)), strict=True)
    return math.prod(-(-size // part) for size, part in sizes) * tile.channels * tile.rows * tile.vectors


def thin_correlate(x, weight, bias, out_size, rows, cols, residual=None, relu=False):
    """Return the correlation of ``x`` with ``weight``, (groups, out, in, 3, 3); see ``correlation.correlate``."""
    groups, channels, in_channels = weight.shape[:3]
    out = packing.new_array((x.shape[0], groups * channels, *out_size), x.dtype)
    tile = _tile(channels)
    tiles = -(-channels // tile.channels)
    # taps from the first row and column of the input to the last; channels of a tile side by side, filled up with zeros
    weights = np.zeros((groups, tiles * tile.channels, in_channels, 3, 3), x.dtype)
    weights[:, :channels] = weight[..., :: _turn(rows), :: _turn(cols)]
    weights = weights.reshape(groups * tiles, tile.channels, in_channels * 9).swapaxes(1, 2)
    starts = np.zeros((groups, tiles * tile.channels), x.dtype)
    if bias is not None:
        starts[:, :channels] = bias.reshape(groups, channels)
    first = min(rows.pieces[0].offsets), min(cols.pieces[0].offsets)
    sizes = groups, channels, in_channels, *x.shape[2:], *out_size, *first, int(residual is not None), int(relu)
    blocks = -(-out_size[0] // _BLOCK_ROWS)
    residual = x if residual is None else residual  # without one, any array: it is not read
    run(_thin_task, x.shape[0] * groups * blocks, sizes, out, x, np.ascontiguousarray(weights), starts, residual)
    return out


def _tile(channels):
    """Return the tile for so many output channels."""
    return _ONE if channels <= _SINGLE else _SEVERAL


def _turn(axis):
    """Return the step between the inputs that two neighbouring taps meet."""
    offsets = axis.pieces[0].offsets
    return offsets[1] - offsets[0]


@jit
def _thin_task(arrays, sizes, task):
    """Compute a few rows of all output channels of one picture and group."""
    groups, channels, in_channels, height, width, out_height, out_width, first_row, first_col, add, relu = sizes[:11]
    blocks = (out_height + _BLOCK_ROWS - 1) // _BLOCK_ROWS
    plane, begin = task // blocks, task % blocks * _BLOCK_ROWS  # picture * groups + group
    one = channels <= _SINGLE
    tile_channels, tile_rows = (_ONE.channels, _ONE.rows) if one else (_SEVERAL.channels, _SEVERAL.rows)
    tile_cols = _ONE.vectors * (VECTOR_BYTES // arrays.out.itemsize)
    tiles = (channels + tile_channels - 1) // tile_channels
    x, shape = plane * in_channels * height * width, (height, width)
    for row in range(begin, min(begin + _BLOCK_ROWS, out_height), tile_rows):
        for tile in range(tiles):
            channel, number = tile * tile_channels, plane % groups * tiles + tile
            for col in range(0, out_width, tile_cols):
                y = ((plane * channels + channel) * out_height + row) * out_width + col
                left = channels - channel, out_height - row, out_width - col
                place = x, row + first_row, col + first_col
                weights = number * in_channels * 9 * tile_channels
                # fmt: off
                if one:
                    thin_of_one(
                        arrays.out, y, *left, out_height, out_width, arrays.a, *place, *shape, in_channels,
                        arrays.b, weights, arrays.c, number * tile_channels, arrays.d, add, relu,
                    )
                else:
                    thin_of_several(
                        arrays.out, y, *left, out_height, out_width, arrays.a, *place, *shape, in_channels,
                        arrays.b, weights, arrays.c, number * tile_channels, arrays.d, add, relu,
                    )
                # fmt: on


def _thin(tile):
    """Return a function that writes one tile: bias plus the weighted sum over input channels and taps.

    The tile is ``tile.rows`` by ``tile.vectors`` vectors from number ``y_start`` of ``y`` on, for ``tile.channels``
    planes of ``out_height`` by ``out_width``. Of it, what lies beyond ``rows``, ``cols`` and ``channels`` is not
    written. Its first tap meets ``row`` and ``col``, which may lie outside, of planes of ``height`` by ``width`` from
    ``x_start`` of ``x`` on: all outside is zero. ``weights`` holds ``tile.channels`` values per input channel and tap,
    ``bias`` holds ``tile.channels`` values. ``residual`` is added if ``add`` is not 0, and ``relu`` is applied
    likewise, as by ``vector.multiply_wide``.
    """

    @intrinsic
    def thin(
        typing_context, y, y_start, channels, rows, cols, out_height, out_width, x, x_start, row, col, height, width,
        in_channels, weights, weight_start, bias, bias_start, residual, add, relu,
    ):  # fmt: skip
        signature = signature_of(
            y, y_start, channels, rows, cols, out_height, out_width, x, x_start, row, col, height, width,
            in_channels, weights, weight_start, bias, bias_start, residual, add, relu,
        )  # fmt: skip
        return signature, write_with(_write_thin, tile)

    return thin


def _write_thin(
    w, tile, y, y_start, channels, rows, cols, out_height, out_width, x, x_start, row, col, height, width,
    in_channels, weights, weight_start, bias, bias_start, residual, add, relu,
):  # fmt: skip
    builder, outs = w.builder, range(tile.channels)
    last, size = builder.sub(channels, w.int(1)), builder.mul(out_height, out_width)
    planes = [builder.add(y_start, builder.mul(size, w.smaller(w.int(o), last))) for o in outs]
    starts = [builder.add(place, builder.mul(out_width, w.int(r))) for place in planes for r in range(tile.rows)]
    offsets = [builder.add(start, w.int(v * w.lanes)) for start in starts for v in range(tile.vectors)]
    for offset in offsets:
        w.prefetch(w.at(w.at(y, offset), _AHEAD * tile.vectors * w.lanes), to_write=True)
    x = w.at(x, builder.add(x_start, builder.add(builder.mul(row, width), col)))
    weights, bias = w.at(weights, weight_start), w.at(bias, bias_start)
    first = [w.splat(w.get(bias, o)) for o in outs]

    def compute(met, kept):
        """Write the code for a tile, of which ``met`` and ``kept`` lanes are in the picture: None where all are."""

        def add_channel(c, totals):
            pixels, totals = w.at(x, builder.mul(c, builder.mul(height, width))), list(totals)
            lines = [w.at(pixels, builder.mul(width, w.int(i))) for i in range(2 * tile.rows + 2)]
            for line, v in product(lines[tile.rows + 2 :], range(tile.vectors)):
                w.prefetch(w.at(line, v * w.lanes), nearest=False)
            here = w.at(weights, builder.mul(c, w.int(9 * tile.channels)))
            for kx in range(3):
                taps = [[w.splat(w.get(here, (3 * ky + kx) * tile.channels + o)) for ky in range(3)] for o in outs]
                for i, v in product(range(tile.rows + 2), range(tile.vectors)):
                    pixels = _load(w, w.at(lines[i], v * w.lanes + kx), met and met[i][v][kx])
                    for ky, o in product(range(max(0, i - tile.rows + 1), min(3, i + 1)), outs):
                        n = (o * tile.rows + i - ky) * tile.vectors + v
                        totals[n] = w.multiply_add(taps[o][ky], pixels, totals[n])
            return totals

        totals = w.loop(in_channels, [start for start in first for _ in range(tile.rows * tile.vectors)], add_channel)
        totals = w.choose(
            builder.icmp_signed("!=", add, w.int(0)),
            lambda: [
                builder.fadd(total, _load(w, w.at(residual, offset), mask))
                for total, offset, mask in zip(totals, offsets, kept, strict=True)
            ],
            totals,
        )
        # channels that are too many go to the place of the last one first, which is then overwritten
        for total, offset, mask in reversed(list(zip(w.clamp(totals, relu), offsets, kept, strict=True))):
            if mask is None:
                w.store(total, w.at(y, offset))
            else:
                w.store_masked(total, w.at(y, offset), mask)

    with builder.if_else(_is_whole(w, tile, rows, cols, row, col, height, width)) as (whole, cut):
        with whole:
            compute(None, [None] * len(offsets))
        with cut:
            compute(*_masks(w, tile, rows, cols, row, col, height, width))


def _is_whole(w, tile, rows, cols, row, col, height, width):
    """Return whether a tile, and all that its taps meet, lies inside the picture."""
    builder, wide, whole = w.builder, tile.vectors * w.lanes, ir.Constant(ir.IntType(1), 1)
    limits = ((row, tile.rows + 2, height), (col, wide + 2, width), (w.int(0), tile.rows, rows), (w.int(0), wide, cols))
    for start, size, limit in limits:
        whole = builder.and_(whole, builder.icmp_signed(">=", start, w.int(0)))
        whole = builder.and_(whole, builder.icmp_signed("<=", builder.add(start, w.int(size)), limit))
    return whole


def _masks(w, tile, rows, cols, row, col, height, width):
    """Return the masks of what a tile meets, by row, vector and tap, and of what it writes, as many as accumulators."""
    add, firsts = w.builder.add, [v * w.lanes for v in range(tile.vectors)]
    lines = [w.inside(add(row, w.int(i)), height) for i in range(tile.rows + 2)]
    spans = [[w.lanes_inside(add(col, w.int(first + kx)), width) for kx in range(3)] for first in firsts]
    met = [[[w.only_if(line, lanes) for lanes in span] for span in spans] for line in lines]
    written = [w.builder.icmp_signed("<", w.int(r), rows) for r in range(tile.rows)]
    ends = [w.first_lanes(w.builder.sub(cols, w.int(first))) for first in firsts]
    return met, [w.only_if(line, end) for line in written for end in ends] * tile.channels


def _load(w, pointer, mask):
    """Load the lanes that ``mask`` chooses; all if it is None."""
    return w.load(pointer, 0) if mask is None else w.load_masked(pointer, mask)


thin_of_several, thin_of_one = _thin(_SEVERAL), _thin(_ONE)
