"""Vector instructions of convolutions whose kernels of 2x2 lie side by side: each pixel belongs to one of them.

Pixels of even and of odd columns belong to different taps. ``multiply_pairs`` computes both and writes them in turn, so
that a transposed convolution is one product; the others take them apart, for its gradients. As in ``vector``,
nothing here checks addresses.
"""

from kernels.cpu.tiling import DOT, WIDE
from kernels.cpu.vector import intrinsic
from kernels.cpu.vector_writer import signature_of, write_with

#: Vectors of ``gather_pairs``: with the parted pairs of one row they fit the registers.
PAIR_COLUMNS = 2


@intrinsic
def multiply_pairs(
    typing_context, out, out_start, channel_size, channels, row_size, out_offsets, counts, packed, in_offsets, first,
    vectors, taps, tap_count, weights, weight_start, bias, bias_start, add, relu,
):  # fmt: skip
    """Compute what ``multiply_wide`` does, for rows that are the 2x2 pixels of an output channel in turn.

    The tile is ``WIDE.rows // 4`` output channels by ``WIDE.columns`` vectors of pixels of the input. Vector v is read
    as there; its first ``counts[first + v]`` lanes become twice as many pixels, from ``out_start + out_offsets[first +
    v]`` on and ``row_size`` farther, for each further channel ``channel_size`` farther. If ``add`` is not 0, they are
    added to what stands there.
    """
    signature = signature_of(
        out, out_start, channel_size, channels, row_size, out_offsets, counts, packed, in_offsets, first,
        vectors, taps, tap_count, weights, weight_start, bias, bias_start, add, relu,
    )  # fmt: skip
    return signature, write_with(_write_multiply_pairs)


def _write_multiply_pairs(
    w, out, out_start, channel_size, channels, row_size, out_offsets, counts, packed, in_offsets, first,
    vectors, taps, tap_count, weights, weight_start, bias, bias_start, add, relu,
):  # fmt: skip
    builder, columns = w.builder, WIDE.columns
    last_channel, last_vector = builder.sub(channels, w.int(1)), builder.sub(vectors, w.int(1))
    index = [builder.add(first, w.smaller(w.int(v), last_vector)) for v in range(columns)]
    source = [w.at(packed, w.get(in_offsets, i)) for i in index]
    weights, bias = w.at(weights, weight_start), w.at(bias, bias_start)
    starts = [builder.add(out_start, w.get(out_offsets, i)) for i in index]
    offsets = []  # by channel, row of its pixels, and vector
    for m in range(WIDE.rows // 4):
        channel = builder.mul(channel_size, w.smaller(w.int(m), last_channel))
        for row in (channel, builder.add(channel, row_size)):
            offsets += [builder.add(start, row) for start in starts]
    for offset in offsets:  # the lines of the output arrive while the sums are computed
        for half in range(2):
            w.prefetch(w.at(w.at(out, offset), half * w.lanes), to_write=True)

    def add_tap(t, totals):
        offset = w.get(taps, t)
        pixels = [w.load(pointer, offset) for pointer in source]
        here = w.at(weights, builder.mul(t, w.int(WIDE.rows)))
        results = []
        for m in range(WIDE.rows):
            weight = w.splat(w.get(here, m))
            old = totals[m * columns : (m + 1) * columns]
            results += [w.multiply_add(weight, p, total) for p, total in zip(pixels, old, strict=True)]
        return results

    initial = [w.splat(w.get(bias, m)) for m in range(WIDE.rows) for _ in range(columns)]
    totals = w.loop(tap_count, initial, add_tap)
    rows = [totals[m * columns : (m + 1) * columns] for m in range(WIDE.rows)]
    pairs = [pair for m in range(0, WIDE.rows, 2) for pair in zip(rows[m], rows[m + 1], strict=True)]
    results = [w.alternate(*pair, half) for pair in pairs for half in range(2)]
    kept = [w.get(counts, i) for i in index]
    doubled = [builder.add(count, count) for count in kept]
    masks = [w.first_lanes(n) for count in doubled for n in (count, builder.sub(count, w.int(w.lanes)))]
    halves = [w.at(w.at(out, offset), half * w.lanes) for offset in offsets for half in range(2)]
    places = list(zip(halves, masks * (WIDE.rows // 2), strict=True))
    results = w.choose(
        builder.icmp_signed("!=", add, w.int(0)),
        lambda: [
            builder.fadd(result, w.load_masked(place, mask))
            for result, (place, mask) in zip(results, places, strict=True)
        ],
        results,
    )
    results = w.clamp(results, relu)
    fewest = kept[0]
    for count in kept[1:]:
        fewest = w.smaller(fewest, count)
    # channels that are too many go to the place of the last first, which is then overwritten
    with builder.if_else(builder.icmp_signed("==", fewest, w.int(w.lanes))) as (whole, cut):
        with whole:
            for result, (place, _) in zip(reversed(results), reversed(places), strict=True):
                w.store(result, place)
        with cut:
            for result, (place, mask) in zip(reversed(results), reversed(places), strict=True):
                w.store_masked(result, place, mask)


@intrinsic
def gather_pairs(
    typing_context, out, out_start, channel_size, channels, source, source_start, plane, planes, row_size, places,
    spots, first, vectors, ahead, weights, weight_start, bias, bias_start, residual, add, relu,
):  # fmt: skip
    """Compute what ``multiply_wide`` does, for a kernel of 2x2 whose pixels are read where they are.

    The tile is ``WIDE.rows`` output channels by ``PAIR_COLUMNS`` vectors, all of them whole. Number v goes to
    ``out_start + places[first + v]``. Its first half meets the pairs at ``source_start + places[first + v + spots]`` of
    two rows, ``row_size`` apart, in each of ``planes``; the second half those at ``places[first + v + 2 * spots]``.
    Meanwhile the lines of the cache ``ahead`` of those that are read arrive.
    """
    signature = signature_of(
        out, out_start, channel_size, channels, source, source_start, plane, planes, row_size, places, spots,
        first, vectors, ahead, weights, weight_start, bias, bias_start, residual, add, relu,
    )  # fmt: skip
    return signature, write_with(_write_gather_pairs)


def _write_gather_pairs(
    w, out, out_start, channel_size, channels, source, source_start, plane, planes, row_size, places, spots,
    first, vectors, ahead, weights, weight_start, bias, bias_start, residual, add, relu,
):  # fmt: skip
    builder, columns = w.builder, PAIR_COLUMNS
    last_channel, last_vector = builder.sub(channels, w.int(1)), builder.sub(vectors, w.int(1))
    index = [builder.add(first, w.smaller(w.int(v), last_vector)) for v in range(columns)]
    source, weights, bias = w.at(source, source_start), w.at(weights, weight_start), w.at(bias, bias_start)
    halves = [[w.at(source, w.get(w.at(places, builder.mul(spots, w.int(n))), i)) for i in index] for n in (1, 2)]
    starts = [builder.add(out_start, w.get(places, i)) for i in index]
    rows = [builder.mul(channel_size, w.smaller(w.int(m), last_channel)) for m in range(WIDE.rows)]
    offsets = [builder.add(start, row) for row in rows for start in starts]
    for offset in offsets:  # the lines of the output arrive while the sums are computed
        w.prefetch(w.at(out, offset), to_write=True)

    def add_plane(c, totals):
        results = list(totals)
        offset, here = builder.mul(c, plane), w.at(weights, builder.mul(c, w.int(4 * WIDE.rows)))
        for half in halves:
            for pointer in half:
                w.prefetch(w.at(w.at(pointer, offset), ahead), nearest=False)
        for row in range(2):
            line = builder.add(offset, row_size) if row else offset
            pairs = [[w.load(pointer, line) for pointer in pair] for pair in zip(*halves, strict=True)]
            for side in range(2):
                pixels = [w.every_other(*pair, side) for pair in pairs]
                for m in range(WIDE.rows):
                    weight = w.splat(w.get(here, w.int((2 * row + side) * WIDE.rows + m)))
                    for v, pixel in enumerate(pixels):
                        results[m * columns + v] = w.multiply_add(weight, pixel, results[m * columns + v])
        return results

    initial = [w.splat(w.get(bias, w.int(m))) for m in range(WIDE.rows) for _ in range(columns)]
    totals = w.loop(planes, initial, add_plane)
    totals = w.choose(
        builder.icmp_signed("!=", add, w.int(0)),
        lambda: [builder.fadd(total, w.load(residual, offset)) for total, offset in zip(totals, offsets, strict=True)],
        totals,
    )
    # channels that are too many go to the place of the last first, which is then overwritten
    for total, offset in zip(reversed(w.clamp(totals, relu)), reversed(offsets), strict=True):
        w.store(total, w.at(out, offset))


@intrinsic
def pack_vectors(typing_context, to, to_start, source, source_start, offsets, counts, first, vectors):
    """Copy vectors to places side by side: number i from ``offsets[first + i]`` on, zeros after ``counts[first + i]``.

    Lanes that are not copied are not read either.
    """
    signature = signature_of(to, to_start, source, source_start, offsets, counts, first, vectors)
    return signature, write_with(_write_pack_vectors)


def _write_pack_vectors(w, to, to_start, source, source_start, offsets, counts, first, vectors):
    to, source = w.at(to, to_start), w.at(source, source_start)

    def step(i, _):
        number = w.builder.add(first, i)
        vector = w.load_masked(w.at(source, w.get(offsets, number)), w.first_lanes(w.get(counts, number)))
        w.store(vector, w.at(to, w.builder.mul(i, w.int(w.lanes))))
        return []

    w.loop(vectors, [], step)


@intrinsic
def split_pairs(typing_context, to, even_start, odd_start, source, source_start, count):
    """Part ``count`` pairs of elements: what ``merge_pairs`` does, backwards, but whole vectors are written.

    What stands after the last element, up to a vector, is lost. Nothing beyond the last pair is read.
    """
    return signature_of(to, even_start, odd_start, source, source_start, count), write_with(_write_split_pairs)


def _write_split_pairs(w, to, even_start, odd_start, source, source_start, count):
    builder = w.builder
    even, odd, source = w.at(to, even_start), w.at(to, odd_start), w.at(source, source_start)
    elements = builder.add(count, count)

    def step(i, _):
        first = builder.mul(i, w.int(w.lanes))
        here, left = w.at(source, builder.add(first, first)), builder.sub(elements, builder.add(first, first))
        masks = w.first_lanes(left), w.first_lanes(builder.sub(left, w.int(w.lanes)))
        pair = [w.load_masked(w.at(here, half * w.lanes), mask) for half, mask in enumerate(masks)]
        w.store(w.every_other(*pair, 0), w.at(even, first))
        w.store(w.every_other(*pair, 1), w.at(odd, first))
        return []

    w.loop(builder.sdiv(builder.add(count, w.int(w.lanes - 1)), w.int(w.lanes)), [], step)


@intrinsic
def copy_vectors(typing_context, to, to_start, source, source_start, vectors):
    """Copy whole vectors: a call of the system's ``memcpy`` takes longer than a few of them."""
    return signature_of(to, to_start, source, source_start, vectors), write_with(_write_copy_vectors)


def _write_copy_vectors(w, to, to_start, source, source_start, vectors):
    to, source = w.at(to, to_start), w.at(source, source_start)

    def step(i, _):
        place = w.builder.mul(i, w.int(w.lanes))
        w.store(w.load(source, place), w.at(to, place))
        return []

    w.loop(vectors, [], step)


# ---- weights in tiles ------------------------------------------------------------------------------------------------


@intrinsic
def pack_weight_rows(typing_context, to, to_start, source, source_start, step, terms, scale, scale_start):
    """Pack ``WIDE.rows`` rows of weights, ``step`` apart, term by term: each with its factor from ``scale``."""
    signature = signature_of(to, to_start, source, source_start, step, terms, scale, scale_start)
    return signature, write_with(_write_pack_weight_rows, lanes=WIDE.rows)


def _write_pack_weight_rows(w, to, to_start, source, source_start, step, terms, scale, scale_start):
    to, factors = w.at(to, to_start), w.load(scale, scale_start)
    rows = [w.at(source, w.builder.add(source_start, w.builder.mul(step, w.int(m)))) for m in range(w.lanes)]

    def square(i, _):
        first = w.builder.mul(i, w.int(w.lanes))
        here = w.at(to, w.builder.mul(first, w.int(w.lanes)))
        for t, vector in enumerate(w.transposed([w.load(row, first) for row in rows])):
            w.store(w.builder.fmul(vector, factors), w.at(here, t * w.lanes))
        return []

    squares = w.builder.sdiv(terms, w.int(w.lanes))
    w.loop(squares, [], square)
    done = w.builder.mul(squares, w.int(w.lanes))

    def term(i, _):
        place = w.builder.add(done, i)
        vector = w.gather([w.at(row, place) for row in rows])
        w.store(w.builder.fmul(vector, factors), w.at(to, w.builder.mul(place, w.int(w.lanes))))
        return []

    w.loop(w.builder.sub(terms, done), [], term)


@intrinsic
def pack_weight_columns(typing_context, to, to_start, source, source_start, step, terms, rows, scale, scale_start):
    """Pack ``rows`` of ``WIDE.rows`` weights that stand side by side, for each term; the terms are ``step`` apart.

    Each is multiplied by its factor from ``scale``; those beyond ``rows`` become zeros.
    """
    signature = signature_of(to, to_start, source, source_start, step, terms, rows, scale, scale_start)
    return signature, write_with(_write_pack_weight_columns, lanes=WIDE.rows)


def _write_pack_weight_columns(w, to, to_start, source, source_start, step, terms, rows, scale, scale_start):
    to, source, factors = w.at(to, to_start), w.at(source, source_start), w.load(scale, scale_start)
    mask = w.first_lanes(rows)

    def term(i, _):
        vector = w.load_masked(w.at(source, w.builder.mul(i, step)), mask)
        w.store(w.builder.fmul(vector, factors), w.at(to, w.builder.mul(i, w.int(w.lanes))))
        return []

    w.loop(terms, [], term)


# ---- dot products ----------------------------------------------------------------------------------------------------


def _dot(parted):
    """Return a function that adds the dot products of ``DOT.rows`` channels with some taps to ``sums``.

    Vector i of channel m is at ``gradient_start + m * channel_size + places[first + i]`` of ``gradient``. Its lanes
    meet those at ``source_start + k * source_step + places[first + spots + i]`` of ``source``, for tap k. If they are
    ``parted``, they meet as many pairs instead, each of two taps: k is a row, of two, and the second half of the pairs
    has a place of its own, ``spots`` farther. There are ``whole`` such vectors, then ``cuts`` of ``count`` lanes, with
    places likewise; nothing beyond these lanes is read. Rows beyond ``channels``, and taps beyond ``sources``, repeat
    the last one. Meanwhile a line of the cache per whole vector arrives from ``next_gradient``, and ``next_source``.
    """

    @intrinsic
    def dot(
        typing_context, sums, sums_start, gradient, gradient_start, channel_size, channels, source, source_start,
        source_step, sources, places, first, spots, whole, first_cut, cut_spots, cuts, count, next_gradient,
        next_source,
    ):  # fmt: skip
        signature = signature_of(
            sums, sums_start, gradient, gradient_start, channel_size, channels, source, source_start,
            source_step, sources, places, first, spots, whole, first_cut, cut_spots, cuts, count, next_gradient,
            next_source,
        )  # fmt: skip
        return signature, write_with(_write_dot, parted)

    return dot


def _write_dot(
    w, parted, sums, sums_start, gradient, gradient_start, channel_size, channels, source, source_start,
    source_step, sources, places, first, spots, whole, first_cut, cut_spots, cuts, count, next_gradient, next_source,
):  # fmt: skip
    builder, columns = w.builder, 4 if parted else DOT.columns
    ahead = w.at(gradient, next_gradient), w.at(source, next_source)
    gradient, source = w.at(gradient, gradient_start), w.at(source, source_start)
    last_row, last_tap = builder.sub(channels, w.int(1)), builder.sub(sources, w.int(1))
    rows = [w.at(gradient, builder.mul(channel_size, w.smaller(w.int(m), last_row))) for m in range(DOT.rows)]
    taps = [w.int(k) if parted else w.smaller(w.int(k), last_tap) for k in range(2 if parted else columns)]
    lines = [w.at(source, builder.mul(source_step, k)) for k in taps]

    def add_vectors(first, spots, load):
        tables = [w.at(places, builder.add(first, builder.mul(spots, w.int(n)))) for n in range(3)]

        def add_vector(i, totals):
            place, *spot = (w.get(table, i) for table in tables)
            for pointer in ahead:
                w.prefetch(w.at(pointer, builder.mul(i, w.int(w.lanes))), nearest=False)
            slopes = [load(w.at(row, place), 0) for row in rows]
            pixels = [load(w.at(line, spot[0]), 1) for line in lines]
            if parted:
                halves = [load(w.at(line, spot[1]), 2) for line in lines]
                pairs = zip(pixels, halves, strict=True)
                pixels = [w.every_other(*pair, side) for pair in pairs for side in range(2)]
            products = [(slope, pixel) for slope in slopes for pixel in pixels]
            return [w.multiply_add(*pair, total) for pair, total in zip(products, totals, strict=True)]

        return add_vector

    zeros = [w.zero] * (DOT.rows * columns)
    totals = w.loop(whole, zeros, add_vectors(first, spots, lambda pointer, _: w.load(pointer, 0)))
    twice = builder.add(count, count)
    masks = [w.first_lanes(n) for n in (count, twice if parted else count, builder.sub(twice, w.int(w.lanes)))]
    add_cut = add_vectors(first_cut, cut_spots, lambda pointer, operand: w.load_masked(pointer, masks[operand]))
    totals = w.loop(cuts, totals, add_cut)
    totals += [w.zero] * (-len(totals) % w.lanes)
    for start in range(0, len(totals), w.lanes):
        pointer = w.at(sums, builder.add(sums_start, w.int(start)))
        w.store(builder.fadd(w.load(pointer, 0), w.sums(totals[start : start + w.lanes])), pointer)


dot_points, dot_pairs = _dot(False), _dot(True)
