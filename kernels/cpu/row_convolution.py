"""Convolution with kernels of 3x3 from rows as they lie: nothing is packed, copied or transformed.

With few channels, what other algorithms do before they multiply (packing in ``correlation``, transforms in
``winograd``) costs more than it saves. Here a task is one row of the output of one picture. A tile of it, up to three
vectors of pixels by ``WIDE.rows`` output channels, stays in registers while the input channels go by: of each, the
three rows that the kernel meets are loaded from the input itself, once for each of its columns. Input channels of that
many rows stay in the first-level cache while the tile moves along.

Above and below the picture lies one row of zeros, which all share. To its left and right, lanes are masked.
"""

import numpy as np
from numba import extending

from kernels.cpu import packing
from kernels.cpu.packing import plain, turn
from kernels.cpu.tasks import run
from kernels.cpu.tiling import VECTOR_BYTES, WIDE, lanes
from kernels.cpu.vector_writer import signature_of, write_with
from kernels.jit import jit

#: How many input channels are few: of three of their rows, what a tile meets stays in the first-level cache.
FEW = 32
#: Rows, columns and taps of a kernel; numbers of a tile of output channels for each input channel.
_SIDE, _TAPS = 3, 9
_STEP = _TAPS * WIDE.rows
#: Vectors in a tile, at most: so many tiles there are.
_VECTORS = 3
#: Where the row of zeros is meant: before all arrays.
_NOWHERE = -(1 << 60)


def possible(x_shape, weight_shape, out_size, rows, cols):
    """Return whether a correlation is one of this form: few input channels, a plain kernel of 3x3.

    At most one column may lie outside: further out, masks for the first vector of a row and the last would not do.
    """
    if weight_shape[2] > FEW or not plain(rows, cols):
        return False
    first = min(cols.pieces[0].offsets)
    return -1 <= first <= 0 and out_size[1] + first < x_shape[3]


def row_vectors(width, dtype):
    """Return how many vectors the tiles of a row take the time of: narrow ones load more for each product."""
    tiles, rest = divmod(-(-width // lanes(dtype)), _VECTORS)
    return tiles * _VECTORS + (rest + 0.3 if rest else 0)


def row_correlate(
    x, weight, bias, out_size, rows, cols, scale=None, residual=None, relu=False, more=None, halves=False
):  # fmt: skip
    """Return the correlation of ``x`` with ``weight``, (groups, out, in, 3, 3).

    The parameters are those of ``correlation.correlate``; ``scale`` multiplies the weights of each output channel, and
    ``more``, of the shape of ``x``, has the second half of the input channels, of one group. With ``halves``, and one
    group without a residual, the two halves of the output channels are arrays of their own: a tuple.
    """
    groups, channels, in_channels = weight.shape[:3]
    outputs, inputs = 2 if halves else 1, 1 if more is None else 2
    outs = [packing.new_array((x.shape[0], groups * channels // outputs, *out_size), x.dtype) for _ in range(outputs)]
    constants = _constants(weight[..., :: turn(rows), :: turn(cols)], bias, scale, x.shape[3])
    first = [min(axis.pieces[0].offsets) for axis in (rows, cols)]
    shares = in_channels // inputs, channels // outputs
    sizes = (groups, channels, inputs, *shares, *x.shape[2:], *out_size, *first, int(residual is not None), int(relu))
    tasks = x.shape[0] * groups * out_size[0]
    run(_row, tasks, sizes, outs[0], x, more, constants, residual, more=outs[-1] if halves else None)
    return tuple(outs) if halves else outs[0]


def _constants(weight, bias, scale, width):
    """Return, for each tile of output channels, what their sums start at and all weights; then a row of zeros."""
    groups, channels, in_channels = weight.shape[:3]
    tiles, terms, dtype = -(-channels // WIDE.rows), 1 + in_channels * _TAPS, weight.dtype
    padded = np.zeros((groups, tiles * WIDE.rows, terms), dtype)
    if bias is not None:
        padded[:, :channels, 0] = bias.reshape(groups, channels)
    padded[:, :channels, 1:] = weight.reshape(groups, channels, -1)
    if scale is not None:
        padded[:, :channels, 1:] *= scale.reshape(groups, channels, 1)
    constants = packing.new_array((padded.size + width + (_VECTORS + 1) * lanes(dtype),), dtype)
    by_tile = constants[: padded.size].reshape(groups * tiles, terms, WIDE.rows)
    by_tile[...] = padded.reshape(groups * tiles, WIDE.rows, terms).swapaxes(1, 2)
    constants[padded.size :] = 0
    return constants


# ---- kernels ---------------------------------------------------------------------------------------------------------


@jit
def _row(arrays, sizes, task):
    """Compute all channels of one row of the output."""
    groups, channels, inputs, in_share, out_share, height, width, out_height, out_width = sizes[:9]
    first_row, first_col, add, relu = sizes[9:13]
    number, row = task // out_height, task % out_height  # picture * groups + group
    tiles, tile_size = (channels + WIDE.rows - 1) // WIDE.rows, WIDE.rows + inputs * in_share * _STEP
    plane, out_plane = height * width, out_height * out_width
    top, width_of_vector = row + first_row, VECTOR_BYTES // arrays.out.itemsize
    ahead = width if 0 <= top + _SIDE < height else 0
    for out_col in range(0, out_width, _VECTORS * width_of_vector):
        col, left = out_col + first_col, out_width - out_col
        at = number * in_share * plane + top * width + col
        above = at if 0 <= top < height else _NOWHERE
        middle = at + width if 0 <= top + 1 < height else _NOWHERE
        below = at + 2 * width if 0 <= top + 2 < height else _NOWHERE
        place = number * out_share * out_plane + row * out_width + out_col
        for tile in range(tiles):
            flat = arrays.out, arrays.more, arrays.a, arrays.b, arrays.c, arrays.d
            target = place, out_plane, tile * WIDE.rows, channels, out_share, left
            source = above, middle, below, plane, ahead, col, width, inputs, in_share
            constants = (number % groups * tiles + tile) * tile_size, groups * tiles * tile_size
            if left > 2 * width_of_vector:
                _multiply_3(*flat, *target, *source, *constants, add, relu)
            elif left > width_of_vector:
                _multiply_2(*flat, *target, *source, *constants, add, relu)
            else:
                _multiply_1(*flat, *target, *source, *constants, add, relu)


def _multiply(vectors):
    """Return a function that writes one tile: ``vectors`` of pixels of a row, by ``WIDE.rows`` output channels.

    The channels are those from ``first`` on, of ``channels``; the first of ``out_share`` are in ``out``, the others in
    ``more_out``, at ``place`` and ``out_plane`` numbers a channel farther. ``left`` columns of the output remain, which
    end in the tile's last vector or beyond it. ``above``, ``middle`` and ``below`` are where the kernel's rows begin in
    the first of the input channels, of which ``in_share`` are in ``x`` and the others in ``more``, ``plane`` numbers
    apart: at column ``col`` of ``width``. What the next row will need lies ``ahead`` of the last, and is fetched.
    From ``start`` on ``constants`` has what the sums start at, then the weights; from ``zeros`` on, a row of zeros.

    Where fewer than ``WIDE.rows`` channels remain, the rows that are too many go to the place of the last channel
    first, which is then overwritten: rows are stored from the last to the first.
    """

    @extending.intrinsic
    def multiply(
        typing_context, out, more_out, x, more, constants, residual, place, out_plane, first, channels, out_share, left,
        above, middle, below, plane, ahead, col, width, inputs, in_share, start, zeros, add, relu,
    ):  # fmt: skip
        signature = signature_of(
            out, more_out, x, more, constants, residual, place, out_plane, first, channels, out_share, left,
            above, middle, below, plane, ahead, col, width, inputs, in_share, start, zeros, add, relu,
        )  # fmt: skip
        return signature, write_with(_write, vectors)

    return multiply


def _write(
    w, vectors, out, more_out, x, more, constants, residual, place, out_plane, first, channels, out_share, left,
    above, middle, below, plane, ahead, col, width, inputs, in_share, start, zeros, add, relu,
):  # fmt: skip
    b, last = w.builder, vectors - 1
    places = []  # of all vectors of the first channel, then of the second
    offsets = []
    for m in range(WIDE.rows):
        channel = w.smaller(b.add(first, w.int(m)), b.sub(channels, w.int(1)))
        in_first = b.icmp_signed("<", channel, out_share)
        share = b.select(in_first, channel, b.sub(channel, out_share))
        offset = b.add(place, b.mul(share, out_plane))
        row = b.select(in_first, w.at(out, offset), w.at(more_out, offset))
        offsets += [b.add(offset, w.int(v * w.lanes)) for v in range(vectors)]
        places += [w.at(row, v * w.lanes) for v in range(vectors)]
    for pointer in places:  # the lines of the output arrive while the sums are computed
        w.prefetch(pointer, to_write=True)

    empty = w.at(constants, b.add(zeros, w.int(1)))  # column -1 is there too
    places_in = above, middle, below
    outside = [b.icmp_signed("==", at, w.int(_NOWHERE)) for at in places_in]
    steps = [b.select(no_row, w.int(0), plane) for no_row in outside]
    first_column = w.lanes_inside(col, width)
    last_columns = [w.lanes_inside(b.add(col, w.int(last * w.lanes + k)), width) for k in range(_SIDE)]
    share_step = b.mul(in_share, w.int(_STEP))

    def load(row, v, k):
        pointer = w.at(row, v * w.lanes + k)
        if v == last:
            return w.load_masked(pointer, last_columns[k])
        return w.load_masked(pointer, first_column) if v == k == 0 else w.load(pointer, 0)

    def add_array(a, totals):
        source = b.select(b.icmp_signed("==", a, w.int(0)), x, more)
        rows = [
            b.select(no_row, empty, w.at(source, at))
            for no_row, at in zip(outside, (above, middle, below), strict=True)
        ]
        weights = w.at(w.at(constants, b.add(start, b.mul(a, share_step))), WIDE.rows)

        def add_channel(c, totals):
            totals, here = list(totals), w.at(weights, b.mul(c, w.int(_STEP)))
            for i in range(_SIDE):
                row = w.at(rows[i], b.mul(steps[i], c))
                if i == _SIDE - 1:
                    for v in range(vectors):
                        w.prefetch(w.at(w.at(row, ahead), v * w.lanes))
                for k in range(_SIDE):
                    pixels = [load(row, v, k) for v in range(vectors)]
                    for m in range(WIDE.rows):
                        weight = w.splat(w.get(here, (i * _SIDE + k) * WIDE.rows + m))
                        for v, pixel in enumerate(pixels):
                            totals[m * vectors + v] = w.multiply_add(weight, pixel, totals[m * vectors + v])
            return totals

        return w.loop(in_share, totals, add_channel)

    starts = w.at(constants, start)
    initial = [w.splat(w.get(starts, m)) for m in range(WIDE.rows) for _ in range(vectors)]
    totals = w.loop(inputs, initial, add_array)

    count = b.sub(left, w.int(last * w.lanes))
    whole, mask = b.icmp_signed(">=", count, w.int(w.lanes)), w.first_lanes(count)
    every = w.first_lanes(w.int(w.lanes))
    masks = [mask if v == last else every for v in range(vectors)] * WIDE.rows
    totals = w.choose(
        b.icmp_signed("!=", add, w.int(0)),
        lambda: [
            b.fadd(total, w.load_masked(w.at(residual, offset), mask))
            for total, offset, mask in zip(totals, offsets, masks, strict=True)
        ],
        totals,
    )
    totals = w.clamp(totals, relu)
    with b.if_else(whole) as (all_lanes, some):
        with all_lanes:
            for total, pointer in zip(reversed(totals), reversed(places), strict=True):
                w.store(total, pointer)
        with some:
            for total, pointer, mask in zip(reversed(totals), reversed(places), reversed(masks), strict=True):
                w.store_masked(total, pointer, mask)


_multiply_1, _multiply_2, _multiply_3 = (_multiply(vectors) for vectors in (1, 2, 3))
