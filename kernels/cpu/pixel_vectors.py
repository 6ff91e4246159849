"""Vector instructions that move pixels: packed for products of points, or merged from two rows of results.

As in ``vector``, nothing here checks addresses.
"""

from kernels.cpu.tiling import NARROW, WIDE
from kernels.cpu.vector import intrinsic
from kernels.cpu.vector_writer import signature_of, write_with

#: Each term lies in another page, too far away for the processor to foresee: so many terms before its pixels are
#: copied, they are fetched.
_TERMS_AHEAD = 8


def _pack_terms(columns):
    """Return a function that copies ``count`` pixels of each term into ``columns`` vectors, term after term.

    In the source, terms are ``step`` elements apart. What comes after the pixels is not read, and packed as zeros.
    """

    @intrinsic
    def pack_terms(typing_context, to, to_start, source, source_start, step, terms, count):
        signature = signature_of(to, to_start, source, source_start, step, terms, count)
        return signature, write_with(_write_pack_terms, columns)

    return pack_terms


def _write_pack_terms(w, columns, to, to_start, source, source_start, step, terms, count):
    builder, to, source = w.builder, w.at(to, to_start), w.at(source, source_start)
    masks = [w.first_lanes(builder.sub(count, w.int(v * w.lanes))) for v in range(columns)]

    def copy_term(t, _):
        here, there = w.at(source, builder.mul(t, step)), w.at(to, builder.mul(t, w.int(columns * w.lanes)))
        later = w.at(here, builder.mul(step, w.int(_TERMS_AHEAD)))
        for v, mask in enumerate(masks):
            w.prefetch(w.at(later, v * w.lanes))
            w.store(w.load_masked(w.at(here, v * w.lanes), mask), w.at(there, v * w.lanes))
        w.prefetch(w.at(later, columns * w.lanes - 1))  # pixels need not begin with a line of the cache
        return []

    w.loop(terms, [], copy_term)


pack_wide_terms, pack_narrow_terms = _pack_terms(WIDE.columns), _pack_terms(NARROW.columns)


@intrinsic
def merge_pairs(typing_context, to, to_start, source, even_start, odd_start, count):
    """Write ``count`` pairs: an element from ``even_start`` on, then one from ``odd_start`` on."""
    return signature_of(to, to_start, source, even_start, odd_start, count), write_with(_write_merge_pairs)


def _write_merge_pairs(w, to, to_start, source, even_start, odd_start, count):
    to, even, odd = w.at(to, to_start), w.at(source, even_start), w.at(source, odd_start)
    vectors = w.builder.sdiv(count, w.int(w.lanes))

    def vector_step(i, _):
        first = w.builder.mul(i, w.int(w.lanes))
        pair = w.load(even, first), w.load(odd, first)
        for half in range(2):
            place = w.builder.add(w.builder.mul(first, w.int(2)), w.int(half * w.lanes))
            w.store(w.alternate(*pair, half), w.at(to, place))
        return []

    w.loop(vectors, [], vector_step)
    done = w.builder.mul(vectors, w.int(w.lanes))

    def step(i, _):
        i = w.builder.add(i, done)
        place = w.builder.mul(i, w.int(2))
        w.put(w.get(even, i), to, place)
        w.put(w.get(odd, i), to, w.builder.add(place, w.int(1)))
        return []

    w.loop(w.builder.sub(count, done), [], step)
