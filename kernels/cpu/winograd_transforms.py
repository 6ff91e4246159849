"""The transforms of Winograd's convolution, for sixteen tiles at once; ``winograd`` has the theory.

Lanes are tiles: four groups of four tiles that lie side by side. Row i of a group's input is 18 pixels, read as the
16 from its first column on and the 16 from its third. Lanes are sixteen on every machine: where registers are
shorter, LLVM uses several.

``places`` says where the groups of a panel are: number 0 is 1 as soon as a result was infinite or not a number, and
from ``1 + g * PLACE`` on stand, for group g, its offset in the input, first input row and column, offset in the
output, and how many output rows and columns it writes.
"""

from functools import partial
from itertools import product
from typing import Any

from numba import extending

from kernels.cpu.tiling import WIDE
from kernels.cpu.vector_writer import signature_of, write_with
from kernels.jit import jit

intrinsic: Any = extending.intrinsic

LANES = 16
#: Groups of tiles in a vector, and output columns of a group.
GROUPS, GROUP_COLS = 4, 16
#: Output rows and columns of a tile, and input rows and columns.
TILE, SPAN = 4, 6
#: Numbers in ``places`` for each group.
PLACE = 6

_write_wide = partial(write_with, lanes=LANES)


# ---- the three matrices ----------------------------------------------------------------------------------------------


def _input_matrix(w, a, b, c, d, e, f):
    """Multiply by B transposed: polynomials that vanish at all points 0, 1, -1, 2, -2, infinity but one."""
    add, subtract = w.builder.fadd, w.builder.fsub
    even, odd = w.scale_add(c, -4, e), w.scale_add(b, -4, d)  # for 1 and -1
    far_even, far_odd = subtract(e, c), subtract(d, b)  # for 2 and -2
    return (
        w.scale_add(a, 4, w.scale_add(c, -5, e)),
        add(even, odd),
        subtract(even, odd),
        w.scale_add(far_odd, 2, far_even),
        w.scale_add(far_odd, -2, far_even),
        w.scale_add(b, 4, w.scale_add(d, -5, f)),
    )


def _output_matrix(w, m0, m1, m2, m3, m4, m5):
    """Multiply by A transposed: the coefficients of a product from its values at the points."""
    add, subtract = w.builder.fadd, w.builder.fsub
    near_sum, near_difference = add(m1, m2), subtract(m1, m2)
    far_sum, far_difference = add(m3, m4), subtract(m3, m4)
    return (
        add(add(m0, near_sum), far_sum),
        w.scale_add(far_difference, 2, near_difference),
        w.scale_add(far_sum, 4, near_sum),
        add(w.scale_add(far_difference, 8, near_difference), m5),
    )


def _weight_matrix(w, g0, g1, g2):
    """Multiply by G: the kernel's value at each point, times what the other matrices leave out."""
    add, subtract, constant = w.builder.fadd, w.builder.fsub, w.constant
    multiply = w.builder.fmul
    near, far = multiply(add(g0, g2), constant(-1 / 6)), w.scale_add(g2, 4, g0)
    middle = multiply(g1, constant(1 / 6))
    far, far_middle = multiply(far, constant(1 / 24)), multiply(g1, constant(1 / 12))
    return (
        multiply(g0, constant(1 / 4)),
        subtract(near, middle),
        add(near, middle),
        add(far, far_middle),
        subtract(far, far_middle),
        g2,
    )


def _slope_matrix(w, y0, y1, y2, y3):
    """Multiply by A: values of a gradient, taken as a polynomial, at the points."""
    add, subtract = w.builder.fadd, w.builder.fsub
    even, odd = add(y0, y2), add(y1, y3)
    far_even, far_odd = w.scale_add(y2, 4, y0), w.scale_add(y3, 4, y1)
    return (
        y0,
        add(even, odd),
        subtract(even, odd),
        w.scale_add(far_odd, 2, far_even),
        w.scale_add(far_odd, -2, far_even),
        y3,
    )


def _kernel_matrix(w, u0, u1, u2, u3, u4, u5):
    """Multiply by G transposed: from the points back to the kernel."""
    add, subtract, constant = w.builder.fadd, w.builder.fsub, w.constant
    near_sum, near_difference = add(u1, u2), subtract(u2, u1)
    far_sum, far_difference = add(u3, u4), subtract(u3, u4)
    near = w.builder.fmul(near_sum, constant(-1 / 6))
    return (
        w.multiply_add(u0, constant(1 / 4), w.multiply_add(far_sum, constant(1 / 24), near)),
        w.multiply_add(far_difference, constant(1 / 12), w.builder.fmul(near_difference, constant(1 / 6))),
        add(w.multiply_add(far_sum, constant(1 / 6), near), u5),
    )


def _both_sides(w, matrix, rows):
    """Apply ``matrix`` to the columns and then to the rows of a square of vectors."""
    turned = [matrix(w, *column) for column in zip(*rows, strict=True)]
    return [matrix(w, *row) for row in zip(*turned, strict=True)]


# ---- places ----------------------------------------------------------------------------------------------------------


@jit
def place_groups(places, sizes, panel):
    """Note in ``places`` where the groups of a panel are, for ``winograd.Sizes``."""
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
        in_start = picture * (sizes.in_channels // sizes.inputs) * sizes.height * sizes.width
        out_start = picture * (sizes.channels // sizes.outputs) * sizes.out_height * sizes.out_width
        places[at] = in_start + in_row * sizes.width + in_col
        places[at + 1], places[at + 2] = in_row, in_col
        places[at + 3] = out_start + row * sizes.out_width + col
        places[at + 4], places[at + 5] = rows, sizes.out_width - col


# ---- input -----------------------------------------------------------------------------------------------------------


@intrinsic
def transform_input(
    typing_context, to, to_start, to_step, x, x_start, places, first_group, height, width, ahead
):  # fmt: skip
    """Transform one channel of sixteen tiles: number k of 36 goes to ``to_start + k * to_step``.

    The plane of ``height`` by ``width`` pixels is ``x_start`` from where ``places`` says; what is outside it is zero.
    The same pixels ``ahead`` numbers on are fetched into the cache meanwhile.
    """
    signature = signature_of(to, to_start, to_step, x, x_start, places, first_group, height, width, ahead)
    return signature, _write_wide(_write_input)


def _write_input(w, to, to_start, to_step, x, x_start, places, first_group, height, width, ahead):
    place = w.at(places, w.builder.add(w.builder.mul(first_group, w.int(PLACE)), w.int(1)))
    groups = []
    for g in range(GROUPS):
        offset, row, col = (w.get(place, g * PLACE + i) for i in range(3))
        masks = [w.lanes_inside(w.builder.add(col, w.int(shift)), width) for shift in (0, 2)]
        groups.append((w.at(x, w.builder.add(x_start, offset)), row, masks))
    rows = []
    for i in range(SPAN):
        step = w.builder.mul(width, w.int(i))
        left, right = [], []
        for pointer, row, masks in groups:
            inside = w.inside(w.builder.add(row, w.int(i)), height)
            at = w.at(pointer, step)
            w.prefetch(w.at(at, ahead))
            left.append(w.load_masked(at, w.only_if(inside, masks[0])))
            right.append(w.load_masked(w.at(at, 2), w.only_if(inside, masks[1])))
        rows.append([*_columns(w, left, 0), *_columns(w, left, 2), *_columns(w, right, 2)])
    for k, value in enumerate(v for row in _both_sides(w, _input_matrix, rows) for v in row):
        w.store(value, w.at(to, w.builder.add(to_start, w.builder.mul(to_step, w.int(k)))))


def _columns(w, groups, first):
    """Return columns ``first`` and ``first + 1`` of every tile of four groups."""
    chosen = [16 * side + 4 * tile + first + odd for odd, side, tile in product((0, 1), (0, 1), range(4))]
    ab, cd = w.shuffle(groups[0], groups[1], chosen), w.shuffle(groups[2], groups[3], chosen)
    halves = [[*range(8 * half, 8 * half + 8), *range(16 + 8 * half, 24 + 8 * half)] for half in (0, 1)]
    return [w.shuffle(ab, cd, half) for half in halves]


# ---- output ----------------------------------------------------------------------------------------------------------


@intrinsic
def transform_output(
    typing_context, out, out_start, width, sums, sums_start, sums_step, places, first_group,
    bias, channel, residual, add, relu, ahead,
):  # fmt: skip
    """Transform the sums of one output channel of sixteen tiles back to pixels, and write those in the picture.

    The plane, of rows of ``width`` pixels, is ``out_start`` from where ``places`` says. If ``add`` is not 0, what
    stands at the same place of ``residual`` is added; if ``relu`` is not 0, what is below 0 becomes 0. The
    same pixels of the output ``ahead`` numbers on are fetched into the cache meanwhile: a store that has to wait for
    its line holds up all later ones.
    """
    # fmt: off
    signature = signature_of(
        out, out_start, width, sums, sums_start, sums_step, places, first_group, bias, channel, residual, add, relu,
        ahead,
    )
    # fmt: on
    return signature, _write_wide(_write_output)


def _write_output(
    w, out, out_start, width, sums, sums_start, sums_step, places, first_group, bias, channel, residual, add, relu,
    ahead,
):  # fmt: skip
    place = w.at(places, w.builder.add(w.builder.mul(first_group, w.int(PLACE)), w.int(1)))
    sums = w.at(sums, sums_start)
    squares = [[w.load(sums, w.builder.mul(sums_step, w.int(SPAN * i + j))) for j in range(SPAN)] for i in range(SPAN)]
    start = w.splat(w.get(bias, channel))
    tiles = [[w.builder.fadd(start, v) for v in row] for row in _both_sides(w, _output_matrix, squares)]
    pixels = [_interleave(w, row) for row in tiles]  # row by row, group by group
    offsets, masks = [], []
    for i in range(TILE):
        for g in range(GROUPS):
            offset, rows, cols = (w.get(place, g * PLACE + 3 + n) for n in range(3))
            offsets.append(w.builder.add(w.builder.add(out_start, offset), w.builder.mul(width, w.int(i))))
            masks.append(w.only_if(w.builder.icmp_signed("<", w.int(i), rows), w.first_lanes(cols)))
            w.prefetch(w.at(out, w.builder.add(offsets[-1], ahead)), to_write=True)
    values = [v for row in pixels for v in row]
    values = w.choose(
        w.builder.icmp_signed("!=", add, w.int(0)),
        lambda: [
            w.builder.fadd(v, w.load_masked(w.at(residual, offset), mask))
            for v, offset, mask in zip(values, offsets, masks, strict=True)
        ],
        values,
    )
    _note_not_finite(w, values, places)
    for value, offset, mask in zip(w.clamp(values, relu), offsets, masks, strict=True):
        w.store_masked(value, w.at(out, offset), mask)


def _interleave(w, columns):
    """Return the pixels of four groups in order, from the four columns of their tiles; undoes ``_columns``."""
    even = [w.alternate(columns[0], columns[2], half) for half in (0, 1)]
    odd = [w.alternate(columns[1], columns[3], half) for half in (0, 1)]
    return [w.alternate(even[pair], odd[pair], half) for pair in (0, 1) for half in (0, 1)]


def _note_not_finite(w, values, places):
    """Set ``places[0]`` to 1 if some value is infinite or not a number: times 0, only that is not 0."""
    total = w.zero
    for value in values:
        total = w.multiply_add(value, w.zero, total)
    found = w.builder.zext(w.any_nan(total), places.type.pointee)
    w.put(w.builder.or_(w.get(places, 0), found), places, 0)


# ---- weights ---------------------------------------------------------------------------------------------------------


@intrinsic
def transform_weights(
    typing_context, to, to_start, to_step, weight, weight_start, channel_step, channels, turned, scales, channel, ahead
):  # fmt: skip
    """Transform the 3x3 kernels of a tile of output channels and one input channel.

    The lanes of vector k of 36, at ``to_start + k * to_step``, are ``WIDE.rows`` output channels, ``channel_step``
    apart in ``weight``; beyond the last of ``channels`` it is repeated. Each is multiplied by its scale, of which the
    first is number ``channel``. If ``turned`` is not 0, kernels are turned by half a turn. What lies ``ahead`` numbers
    on is fetched into the cache meanwhile: the kernels of the next input channels may be far away.
    """
    signature = signature_of(
        to, to_start, to_step, weight, weight_start, channel_step, channels, turned, scales, channel, ahead
    )
    return signature, write_with(_write_weights, lanes=WIDE.rows)


def _write_weights(
    w, to, to_start, to_step, weight, weight_start, channel_step, channels, turned, scales, channel, ahead
):  # fmt: skip
    last = w.builder.sub(channels, w.int(1))
    weight = w.at(weight, weight_start)
    kernels = [w.at(weight, w.builder.mul(channel_step, w.smaller(w.int(i), last))) for i in range(w.lanes)]
    for kernel in kernels:
        w.prefetch(w.at(kernel, ahead))
    taps = []  # those of all channels; all but the last lie in whole vectors
    for first in range(0, 8, w.lanes):
        taps += w.transposed([w.load(kernel, first) for kernel in kernels])
    taps.append(w.gather([w.at(kernel, 8) for kernel in kernels]))
    is_turned = w.builder.icmp_signed("!=", turned, w.int(0))
    scale = w.load(scales, channel)
    taps = [w.builder.select(is_turned, b, a) for a, b in zip(taps, reversed(taps), strict=True)]
    taps = [w.builder.fmul(tap, scale) for tap in taps]
    rows = [taps[3 * i : 3 * i + 3] for i in range(3)]
    for k, value in enumerate(v for row in _both_sides(w, _weight_matrix, rows) for v in row):
        w.store(value, w.at(to, w.builder.add(to_start, w.builder.mul(to_step, w.int(k)))))


# ---- gradient of the weights -----------------------------------------------------------------------------------------


@intrinsic
def transform_gradient(typing_context, to, to_start, to_step, dy, dy_start, places, first_group, width, ahead):
    """Transform the output gradient of one channel of sixteen tiles, as ``transform_input`` does the input.

    The plane, of rows of ``width`` pixels, is ``dy_start`` from where ``places`` says the output is. The same pixels
    ``ahead`` numbers on are fetched into the second-level cache meanwhile: the results would drive them out of the
    first before they are used.
    """
    signature = signature_of(to, to_start, to_step, dy, dy_start, places, first_group, width, ahead)
    return signature, _write_wide(_write_gradient)


def _write_gradient(w, to, to_start, to_step, dy, dy_start, places, first_group, width, ahead):
    place = w.at(places, w.builder.add(w.builder.mul(first_group, w.int(PLACE)), w.int(1)))
    groups = []
    for g in range(GROUPS):
        offset, rows, cols = (w.get(place, g * PLACE + 3 + n) for n in range(3))
        groups.append((w.at(dy, w.builder.add(dy_start, offset)), rows, w.first_lanes(cols)))
    tiles = []
    for i in range(TILE):
        step = w.builder.mul(width, w.int(i))
        pixels = []
        for pointer, rows, mask in groups:
            at = w.at(pointer, step)
            w.prefetch(w.at(at, ahead), nearest=False)
            pixels.append(w.load_masked(at, w.only_if(w.builder.icmp_signed("<", w.int(i), rows), mask)))
        tiles.append([*_columns(w, pixels, 0), *_columns(w, pixels, 2)])
    for k, value in enumerate(v for row in _both_sides(w, _slope_matrix, tiles) for v in row):
        w.store(value, w.at(to, w.builder.add(to_start, w.builder.mul(to_step, w.int(k)))))


@intrinsic
def transform_sums(typing_context, to, to_start, sums, sums_start, sums_step, slots, slot_step):
    """Transform a vector of weight gradients back to kernels of 3x3, which go to ``to_start`` on, tap by tap.

    Each element is the sum over ``slots``, which are ``slot_step`` apart, in their order.
    """
    return signature_of(to, to_start, sums, sums_start, sums_step, slots, slot_step), write_with(_write_sums)


def _write_sums(w, to, to_start, sums, sums_start, sums_step, slots, slot_step):
    sums, to = w.at(sums, sums_start), w.at(to, to_start)

    def add_slot(i, totals):
        here = w.at(sums, w.builder.mul(slot_step, i))
        elements = [w.load(here, w.builder.mul(sums_step, w.int(k))) for k in range(SPAN * SPAN)]
        return [w.builder.fadd(total, element) for total, element in zip(totals, elements, strict=True)]

    elements = w.loop(slots, [w.zero] * (SPAN * SPAN), add_slot)
    squares = [elements[SPAN * i : SPAN * (i + 1)] for i in range(SPAN)]
    for k, value in enumerate(v for row in _both_sides(w, _kernel_matrix, squares) for v in row):
        w.store(value, w.at(to, k * w.lanes))
