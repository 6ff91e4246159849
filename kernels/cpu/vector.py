"""The vector instructions under the convolutions: register tiles, written as LLVM IR.

LLVM vectorises a plain loop, but it does not keep a block of accumulators in registers across one. These
functions do, and every convolution, its two gradients and the matrix product are loops around them:

- ``multiply_wide``, and ``multiply_narrow`` for few output channels: lanes are pixels, rows are output channels, and
  one step is one tap (an input channel and a place in the kernel): load the pixels that the tap meets, broadcast one
  weight per row, multiply and add.
- ``dot_tile``: lanes are pixels again, but each accumulator is one weight's gradient: the dot product of an output
  channel's gradient with the pixels that one tap meets. The lanes are added up at the end.
- ``multiply_panel``: lanes are output channels, rows are pixels, or the taps of a weight gradient. One step loads
  vectors of channels and broadcasts one number per row, which may lie anywhere.

Addresses are element indices into flat arrays, and nothing here checks them: a caller reads only scratch that it
owns, and the lanes it must not write are masked.
"""

from typing import Any

from numba import extending
from numba.core.cgutils import memset, raw_memcpy

from kernels.cpu.tiling import DOT, NARROW, PANEL, WIDE
from kernels.cpu.vector_writer import signature_of, write_with

#: Lines of the cache that may be fetched at once: a core keeps track of some twenty, those of its operands included.
_LINES_AT_ONCE = 12

intrinsic: Any = extending.intrinsic  # to a type checker, callers would have to pass the typing context

# ---- copying ---------------------------------------------------------------------------------------------------------


@intrinsic
def copy(typing_context, to, to_start, source, source_start, count):
    """Copy ``count`` elements. A plain loop would allow for negative indices, one element at a time."""
    return signature_of(to, to_start, source, source_start, count), write_with(_write_copy)


def _write_copy(w, to, to_start, source, source_start, count):
    raw_memcpy(w.builder, w.at(to, to_start), w.at(source, source_start), count, w.int(w.itemsize))


@intrinsic
def clear(typing_context, to, to_start, count):
    """Set ``count`` elements to zero."""
    return signature_of(to, to_start, count), write_with(_write_clear)


def _write_clear(w, to, to_start, count):
    memset(w.builder, w.at(to, to_start), w.builder.mul(count, w.int(w.itemsize)), 0)


@intrinsic
def copy_spaced(typing_context, to, to_start, to_step, source, source_start, source_step, count):
    """Copy ``count`` elements, ``source_step`` apart, to places ``to_step`` apart."""
    signature = signature_of(to, to_start, to_step, source, source_start, source_step, count)
    return signature, write_with(_write_copy_spaced)


def _write_copy_spaced(w, to, to_start, to_step, source, source_start, source_step, count):
    to, source = w.at(to, to_start), w.at(source, source_start)

    def step(i, _):
        w.put(w.get(source, w.builder.mul(i, source_step)), to, w.builder.mul(i, to_step))
        return []

    w.loop(count, [], step)


@intrinsic
def copy_every_other(typing_context, to, to_start, source, source_start, count, ahead):
    """Copy ``count`` elements that are 2 apart: nothing beyond the last is read.

    What lies ``ahead`` elements on, where the next copy may begin, is fetched into the cache.
    """
    return signature_of(to, to_start, source, source_start, count, ahead), write_with(_write_copy_every_other)


def _write_copy_every_other(w, to, to_start, source, source_start, count, ahead):
    to, source = w.at(to, to_start), w.at(source, source_start)
    # the last element of two vectors is one that is left out and may not exist: the last vector is loaded masked
    vectors = w.builder.sdiv(w.builder.sub(count, w.int(1)), w.int(w.lanes))

    def vector_step(i, _):
        first = w.builder.mul(i, w.int(2 * w.lanes))
        pair = w.load(source, first), w.load(source, w.builder.add(first, w.int(w.lanes)))
        for half in range(2):
            w.prefetch(w.at(w.at(source, w.builder.add(first, ahead)), half * w.lanes))
        w.store(w.every_other(*pair, 0), w.at(to, w.builder.mul(i, w.int(w.lanes))))
        return []

    w.loop(vectors, [], vector_step)
    done = w.builder.mul(vectors, w.int(w.lanes))
    left = w.builder.sub(count, done)
    reach = w.builder.sub(w.builder.mul(left, w.int(2)), w.int(1))
    first = w.at(source, w.builder.mul(done, w.int(2)))
    masks = w.first_lanes(reach), w.first_lanes(w.builder.sub(reach, w.int(w.lanes)))
    for half in range(2):
        w.prefetch(w.at(w.at(first, ahead), half * w.lanes))
    pair = [w.load_masked(w.at(first, i * w.lanes), mask) for i, mask in enumerate(masks)]
    w.store_masked(w.every_other(*pair, 0), w.at(to, done), w.first_lanes(left))


@intrinsic
def transpose_square(typing_context, to, to_start, to_step, source, source_start, source_step):
    """Copy as many rows as a vector has lanes, of as many elements each, transposed; rows are ``_step`` apart."""
    signature = signature_of(to, to_start, to_step, source, source_start, source_step)
    return signature, write_with(_write_transpose_square)


def _write_transpose_square(w, to, to_start, to_step, source, source_start, source_step):
    to, source = w.at(to, to_start), w.at(source, source_start)
    rows = [w.load(source, w.builder.mul(source_step, w.int(i))) for i in range(w.lanes)]
    for i, row in enumerate(w.transposed(rows)):
        w.store(row, w.at(to, w.builder.mul(to_step, w.int(i))))


# ---- weighted sums ---------------------------------------------------------------------------------------------------


def _multiply(tile):
    """Return a function that writes one tile: bias plus the weighted sum over the taps.

    The tile is ``tile.rows`` output channels by ``tile.columns`` vectors of pixels. Vector v of it is number
    ``first + v`` of the task's list. For tap t it reads ``packed`` at ``in_offsets[first + v] + taps[t]``, and its
    first ``counts[first + v]`` lanes go to ``out_start + out_offsets[first + v]``, for each further channel
    ``channel_size`` farther. ``weights`` holds ``tile.rows`` values per tap, ``bias`` holds ``tile.rows`` values.
    If ``add`` is not 0, what stands at the same place of ``residual`` is added; if ``relu`` is not 0, sums below 0
    become 0.

    Where fewer than ``tile.columns`` vectors remain, the last one is computed again. Where fewer than ``tile.rows``
    channels remain, the rows that are too many (their weights are zeros that fill up the tile) go to the place of the
    last channel first, which is then overwritten: rows are stored from the last to the first.

    With tap t, what the caller needs later is fetched into the second-level cache: ``tile.columns // 2 + 1`` lines of
    ``ahead``, ``ahead_pitch`` elements apart, from ``ahead_start + t * ahead_step`` on, wherever that is.
    """

    @intrinsic
    def multiply(
        typing_context, out, out_start, channel_size, channels, out_offsets, counts, packed, in_offsets, first, vectors,
        taps, tap_start, tap_count, weights, weight_start, bias, bias_start, residual, add, relu,
        ahead, ahead_start, ahead_step, ahead_pitch,
    ):  # fmt: skip
        signature = signature_of(
            out, out_start, channel_size, channels, out_offsets, counts, packed, in_offsets, first, vectors,
            taps, tap_start, tap_count, weights, weight_start, bias, bias_start, residual, add, relu,
            ahead, ahead_start, ahead_step, ahead_pitch,
        )  # fmt: skip
        return signature, write_with(_write_multiply, tile)

    return multiply


def _write_multiply(
    w, tile, out, out_start, channel_size, channels, out_offsets, counts, packed, in_offsets, first, vectors,
    taps, tap_start, tap_count, weights, weight_start, bias, bias_start, residual, add, relu,
    ahead, ahead_start, ahead_step, ahead_pitch,
):  # fmt: skip
    last_row, last_vector = w.builder.sub(channels, w.int(1)), w.builder.sub(vectors, w.int(1))
    row = [w.smaller(w.int(m), last_row) for m in range(tile.rows)]
    index = [w.builder.add(first, w.smaller(w.int(v), last_vector)) for v in range(tile.columns)]
    source = [w.at(packed, w.get(in_offsets, i)) for i in index]
    weights, taps, bias = w.at(weights, weight_start), w.at(taps, tap_start), w.at(bias, bias_start)
    starts = [w.builder.add(out_start, w.get(out_offsets, i)) for i in index]
    offsets = [w.builder.add(start, w.builder.mul(channel_size, m)) for m in row for start in starts]
    ahead = w.at(ahead, ahead_start)
    # The lines of the output arrive while the sums are computed. Many at once would hold up the pixels, so if there are
    # taps enough, one comes with each. A row has one more than vectors, as it need not begin where a line does.
    row_lines, many = 1 << tile.columns.bit_length(), len(offsets) > _LINES_AT_ONCE
    fewest_taps = w.int(row_lines * tile.rows) if many else w.builder.add(tap_count, w.int(1))
    with w.builder.if_then(w.builder.icmp_signed("<", tap_count, fewest_taps)):
        for offset in offsets:
            w.prefetch(w.at(out, offset), to_write=True)

    def fetch(t):
        later = w.at(ahead, w.builder.mul(t, ahead_step))
        for line in range(tile.columns // 2 + 1):
            w.prefetch(w.at(later, w.builder.mul(ahead_pitch, w.int(line))), nearest=False)
        if not many:
            return
        m, line = w.builder.udiv(t, w.int(row_lines)), w.builder.urem(t, w.int(row_lines))
        v = w.smaller(w.smaller(line, w.int(tile.columns - 1)), last_vector)
        start = w.builder.add(out_start, w.get(out_offsets, w.builder.add(first, v)))
        start = w.builder.add(start, w.builder.mul(w.builder.sub(line, v), w.int(w.lanes)))
        start = w.builder.add(start, w.builder.mul(channel_size, w.smaller(m, last_row)))
        w.prefetch(w.at(out, start), to_write=True)

    def add_tap(t, totals):
        fetch(t)
        offset = w.get(taps, t)
        pixels = [w.load(pointer, offset) for pointer in source]
        here = w.at(weights, w.builder.mul(t, w.int(tile.rows)))
        results = []
        for m in range(tile.rows):
            weight = w.splat(w.get(here, m))
            old = totals[m * tile.columns : (m + 1) * tile.columns]
            results += [w.multiply_add(weight, p, total) for p, total in zip(pixels, old, strict=True)]
        return results

    initial = [w.splat(w.get(bias, m)) for m in range(tile.rows) for _ in range(tile.columns)]
    totals = w.loop(tap_count, initial, add_tap)

    kept = [w.get(counts, i) for i in index]
    masks = [w.first_lanes(count) for count in kept] * tile.rows
    places = list(zip(offsets, masks, strict=True))
    totals = w.choose(
        w.builder.icmp_signed("!=", add, w.int(0)),
        lambda: [
            w.builder.fadd(total, w.load_masked(w.at(residual, offset), mask))
            for total, (offset, mask) in zip(totals, places, strict=True)
        ],
        totals,
    )
    totals = w.clamp(totals, relu)
    fewest = kept[0]
    for count in kept[1:]:
        fewest = w.smaller(fewest, count)
    with w.builder.if_else(w.builder.icmp_signed("==", fewest, w.int(w.lanes))) as (whole, cut):
        with whole:
            for total, (offset, _) in zip(reversed(totals), reversed(places), strict=True):
                w.store(total, w.at(out, offset))
        with cut:
            for total, (offset, mask) in zip(reversed(totals), reversed(places), strict=True):
                w.store_masked(total, w.at(out, offset), mask)


multiply_wide, multiply_narrow = _multiply(WIDE), _multiply(NARROW)


def _multiply_square(columns):
    """Return a function that adds the product of two matrices that lie in packed rows, for a tile of the result.

    The tile is ``WIDE.rows`` by ``columns`` vectors, its rows ``step`` apart from ``sums_start`` on. Term t of all sums
    is vector after vector from ``pixel_start + t * step`` of ``pixels``, times ``WIDE.rows`` numbers from
    ``weight_start + t * WIDE.rows`` of ``weights``. If ``add`` is 0, the sums start at 0.
    """

    @intrinsic
    def multiply(
        typing_context, sums, sums_start, step, pixels, pixel_start, terms, weights, weight_start, add
    ):  # fmt: skip
        signature = signature_of(sums, sums_start, step, pixels, pixel_start, terms, weights, weight_start, add)
        return signature, write_with(_write_multiply_square, columns)

    return multiply


def _write_multiply_square(
    w, columns, sums, sums_start, step, pixels, pixel_start, terms, weights, weight_start, add
):  # fmt: skip
    sums, pixels, weights = w.at(sums, sums_start), w.at(pixels, pixel_start), w.at(weights, weight_start)
    rows = [w.at(sums, w.builder.mul(step, w.int(m))) for m in range(WIDE.rows)]
    places = [w.at(row, v * w.lanes) for row in rows for v in range(columns)]
    for place in places:
        w.prefetch(place, to_write=True)
    zeros = [w.zero] * len(places)
    initial = w.choose(
        w.builder.icmp_signed("!=", add, w.int(0)), lambda: [w.load(place, 0) for place in places], zeros
    )

    def add_term(t, totals):
        here = w.at(pixels, w.builder.mul(t, step))
        there = w.at(weights, w.builder.mul(t, w.int(WIDE.rows)))
        vectors = [w.load(here, v * w.lanes) for v in range(columns)]
        results = []
        for m in range(WIDE.rows):
            weight = w.splat(w.get(there, m))
            old = totals[m * columns : (m + 1) * columns]
            results += [w.multiply_add(weight, vector, total) for vector, total in zip(vectors, old, strict=True)]
        return results

    for total, place in zip(w.loop(terms, initial, add_term), places, strict=True):
        w.store(total, place)


multiply_square_1, multiply_square_2, multiply_square_3 = (_multiply_square(columns) for columns in (1, 2, 3))


@intrinsic
def multiply_panel(
    typing_context, sums, sums_start, source, row_offsets, first, rows, col_offsets, first_col, cols,
    panel, panel_start,
):  # fmt: skip
    """Add the products of up to ``PANEL.rows`` rows with ``cols`` rows of channels to ``sums``.

    Number t of row m is at ``row_offsets[first + m] + col_offsets[first_col + t]`` of ``source``; it multiplies row t
    of ``panel``. The rows of ``sums`` and ``panel`` are ``PANEL.columns`` vectors of channels. Where fewer than
    ``PANEL.rows`` rows remain, the last one is computed, and stored, again.
    """
    signature = signature_of(
        sums, sums_start, source, row_offsets, first, rows, col_offsets, first_col, cols, panel, panel_start
    )
    return signature, write_with(_write_multiply_panel)


def _write_multiply_panel(
    w, sums, sums_start, source, row_offsets, first, rows, col_offsets, first_col, cols, panel, panel_start
):  # fmt: skip
    width = PANEL.columns * w.lanes
    last_row = w.builder.sub(rows, w.int(1))
    row = [w.smaller(w.int(m), last_row) for m in range(PANEL.rows)]
    pixels = [w.at(source, w.get(row_offsets, w.builder.add(first, m))) for m in row]
    col_offsets, panel = w.at(col_offsets, first_col), w.at(panel, panel_start)

    def add_col(t, totals):
        offset, here = w.get(col_offsets, t), w.at(panel, w.builder.mul(t, w.int(width)))
        channels = [w.load(here, v * w.lanes) for v in range(PANEL.columns)]
        results = []
        for m in range(PANEL.rows):
            pixel = w.splat(w.get(pixels[m], offset))
            old = totals[m * PANEL.columns : (m + 1) * PANEL.columns]
            results += [w.multiply_add(pixel, c, total) for c, total in zip(channels, old, strict=True)]
        return results

    totals = w.loop(cols, [w.zero] * (PANEL.rows * PANEL.columns), add_col)
    starts = [w.at(sums, w.builder.add(sums_start, w.builder.mul(m, w.int(width)))) for m in row]
    places = [w.at(start, v * w.lanes) for start in starts for v in range(PANEL.columns)]
    # all are loaded before any is stored: a row that is computed twice must not be added twice
    results = [w.builder.fadd(w.load(place, 0), total) for place, total in zip(places, totals, strict=True)]
    for result, place in zip(results, places, strict=True):
        w.store(result, place)


# ---- dot products ----------------------------------------------------------------------------------------------------


def _dot(whole):
    """Return a function that adds ``DOT.rows`` x ``DOT.columns`` dot products over ``vectors`` vectors to ``sums``.

    Vector i of output channel m is at ``gradient_start + m * channel_size + i * lanes`` of ``gradient``, zero beyond
    its ``counts[i]`` pixels; the pixels that tap k meets there are at ``in_offsets[i] + taps[tap_start + k]`` of
    ``packed``. Rows beyond ``channels`` repeat the last one. Sum (m, k) is number ``m * DOT.columns + k`` of ``sums``.
    If all vectors are ``whole``, their counts are not read.
    """

    @intrinsic
    def dot_tile(
        typing_context, sums, sums_start, gradient, gradient_start, channel_size, channels,
        packed, in_offsets, counts, vectors, taps, tap_start,
    ):  # fmt: skip
        signature = signature_of(
            sums, sums_start, gradient, gradient_start, channel_size, channels,
            packed, in_offsets, counts, vectors, taps, tap_start,
        )  # fmt: skip
        return signature, write_with(_write_dot, whole)

    return dot_tile


def _write_dot(
    w, whole, sums, sums_start, gradient, gradient_start, channel_size, channels,
    packed, in_offsets, counts, vectors, taps, tap_start,
):  # fmt: skip
    last_row = w.builder.sub(channels, w.int(1))
    gradient, taps = w.at(gradient, gradient_start), w.at(taps, tap_start)
    rows = [w.at(gradient, w.builder.mul(channel_size, w.smaller(w.int(m), last_row))) for m in range(DOT.rows)]
    source = [w.at(packed, w.get(taps, k)) for k in range(DOT.columns)]

    def add_products(i, totals):
        place, offset = w.builder.mul(i, w.int(w.lanes)), w.get(in_offsets, i)
        slopes = [w.load(pointer, place) for pointer in rows]
        inside = None if whole else w.first_lanes(w.get(counts, i))
        results = list(totals)
        for k in range(DOT.columns):
            pixels = w.load(source[k], offset)
            if not whole:
                # the gradient is zero beyond the edge, but the pixels there may be inf or NaN, and 0 * inf is not 0
                pixels = w.builder.select(inside, pixels, w.zero)
            for m in range(DOT.rows):
                results[m * DOT.columns + k] = w.multiply_add(slopes[m], pixels, totals[m * DOT.columns + k])
        return results

    totals = w.loop(vectors, [w.zero] * (DOT.rows * DOT.columns), add_products)
    totals += [w.zero] * (-len(totals) % w.lanes)
    for start in range(0, len(totals), w.lanes):
        pointer = w.at(sums, w.builder.add(sums_start, w.int(start)))
        w.store(w.builder.fadd(w.load(pointer, 0), w.sums(totals[start : start + w.lanes])), pointer)


dot_tile, dot_whole_tile = _dot(False), _dot(True)
