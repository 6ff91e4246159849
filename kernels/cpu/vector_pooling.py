"""Maxima of windows and where they stand, in explicit vectors: lanes are neighbouring windows of one row.

A vector loop that LLVM makes of plain code takes several vectors at a time and the rest one by one; the rows of small
maps are all rest. Here one vector is one step, and the last one is cut by a mask.
"""

from llvmlite import ir
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic

from kernels.cpu.vector_writer import signature_of, write_with

_INT32, _INT64 = ir.IntType(32), ir.IntType(64)
#: Rows of the picture by which two are fetched ahead.
_AHEAD = 3


def _pool(stride):
    """Return a function that takes the maxima of windows ``stride`` pixels apart, 1 or 2.

    All taps of the windows must lie inside the picture. The first window begins at number ``place`` of the plane,
    which begins at ``start`` of ``x``; the taps of a window lie at ``taps[tap_start:]``, so many pixels on. The
    maxima of ``count`` windows, at most as many as a vector has lanes, go to ``y`` from ``y_start`` on, and to
    ``indices``, if ``keep`` is not 0, where they stand in the plane. The first of equal values counts, and the last
    NaN.
    """

    @intrinsic
    def pool(typing_context, y, indices, y_start, x, start, place, taps, tap_start, tap_count, count, keep):
        signature = signature_of(y, indices, y_start, x, start, place, taps, tap_start, tap_count, count, keep)
        return signature, write_with(_write_pool, stride)

    return pool


pool_apart_1, pool_apart_2 = _pool(1), _pool(2)


@intrinsic
def pool_pairs(typing_context, y, indices, y_start, x, start, place, below, count, keep):
    """As ``pool_apart_2``, for windows of two by two neighbours, the second row of which is ``below`` pixels on.

    Each pixel is loaded once, and what follows is fetched ahead.
    """
    signature = signature_of(y, indices, y_start, x, start, place, below, count, keep)
    return signature, write_with(_write_pool_pairs)


def _write_pool(w, stride, y, indices, y_start, x, start, place, taps, tap_start, tap_count, count, keep):
    source, taps = w.at(x, w.builder.add(start, place)), w.at(taps, tap_start)
    y, indices = w.at(y, y_start), w.at(indices, y_start)
    keep = w.builder.icmp_signed("!=", keep, w.int(0))
    # places are counted in whole numbers as wide as the elements: the same masks serve both
    whole_number = ir.IntType(8 * w.itemsize)
    numbers = ir.VectorType(whole_number, w.lanes)

    def narrow(number):
        return w.builder.trunc(number, whole_number) if w.itemsize == 4 else number

    def maxima(load):
        def step(t, best):
            value, at = best
            tap = w.get(taps, t)
            here = load(w.at(source, tap))
            wins = w.builder.fcmp_unordered("ugt", here, value)  # larger, or one of them is NaN
            keeps = w.builder.and_(
                w.builder.fcmp_unordered("uno", value, value), w.builder.fcmp_ordered("ord", here, here)
            )
            wins = w.builder.and_(wins, w.builder.not_(keeps))
            now = w.builder.bitcast(w.splat(narrow(tap)), w.vector)
            return [w.builder.select(wins, here, value), w.builder.select(wins, now, at)]

        first = w.builder.bitcast(w.splat(narrow(w.get(taps, 0))), w.vector)
        value, at = w.loop(tap_count, [w.constant(float("-inf")), first], step)
        return value, lambda: _in_plane(w, w.builder.bitcast(at, numbers), stride, place)

    with w.builder.if_else(w.builder.icmp_signed("==", count, w.int(w.lanes))) as (whole, cut):
        with whole:
            _put(w, y, indices, keep, maxima(lambda pointer: _load(w, pointer, stride)))
        with cut:
            found = maxima(lambda pointer: _load(w, pointer, stride, count))
            _put(w, y, indices, keep, found, w.first_lanes(count))


def _write_pool_pairs(w, y, indices, y_start, x, start, place, below, count, keep):
    source = w.at(x, w.builder.add(start, place))
    y, indices = w.at(y, y_start), w.at(indices, y_start)
    keep = w.builder.icmp_signed("!=", keep, w.int(0))
    whole_number = ir.IntType(8 * w.itemsize)
    # rows are too short for the processor to foresee which comes next
    for row in range(_AHEAD, _AHEAD + 2):
        for half in range(2):
            pixel = w.builder.add(w.builder.mul(below, w.int(row)), w.int(half * w.lanes))
            w.prefetch(w.at(source, pixel))

    def maxima(load):
        pairs = [load(source), load(w.at(source, below))]
        value, *others = [w.every_other(*pair, side) for pair in pairs for side in range(2)]
        wins = []
        for here in others:
            larger, nan = w.builder.fcmp_ordered(">", here, value), w.builder.fcmp_unordered("uno", here, here)
            wins.append(w.builder.or_(larger, nan))
            value = w.builder.select(wins[-1], here, value)

        def places():
            at = ir.Constant(ir.VectorType(whole_number, w.lanes), [0] * w.lanes)
            for win, tap in zip(wins, (w.int(1), below, w.builder.add(below, w.int(1))), strict=True):
                tap = w.builder.trunc(tap, whole_number) if w.itemsize == 4 else tap
                at = w.builder.select(win, w.splat(tap), at)
            return _in_plane(w, at, 2, place)

        return value, places

    with w.builder.if_else(w.builder.icmp_signed("==", count, w.int(w.lanes))) as (whole, cut):
        with whole:
            _put(w, y, indices, keep, maxima(lambda row: (w.load(row, 0), w.load(row, w.lanes))))
        with cut:
            pixels = w.builder.mul(count, w.int(2))
            masks = w.first_lanes(pixels), w.first_lanes(w.builder.sub(pixels, w.int(w.lanes)))
            found = maxima(lambda row: [w.load_masked(w.at(row, i * w.lanes), mask) for i, mask in enumerate(masks)])
            _put(w, y, indices, keep, found, w.first_lanes(count))


def _in_plane(w, taps, stride, place):
    """Return the places in the plane of a tap of each window, which begin ``stride`` apart from ``place`` on."""
    wide = ir.VectorType(_INT64, w.lanes)
    lanes = ir.Constant(wide, [stride * lane for lane in range(w.lanes)])
    return w.builder.add(w.builder.sext(taps, wide) if w.itemsize == 4 else taps, w.builder.add(lanes, w.splat(place)))


def _put(w, y, indices, keep, found, mask=None):
    """Store maxima and, if ``keep``, where they stand: all, or those that ``mask`` chooses."""
    value, places = found
    if mask is None:
        w.store(value, y)
    else:
        w.store_masked(value, y, mask)
    with w.builder.if_then(keep):
        at = places()
        to = at.type.as_pointer()
        if mask is None:
            w.builder.store(at, w.builder.bitcast(indices, to)).align = 8
        else:
            signature = ir.FunctionType(ir.VoidType(), [at.type, to, _INT32, mask.type])
            store = get_or_insert_function(w.builder.module, signature, f"llvm.masked.store.v{w.lanes}i64.p0")
            w.builder.call(store, [at, w.builder.bitcast(indices, to), ir.Constant(_INT32, 8), mask])


def _load(w, pointer, stride, count=None):
    """Load one pixel of each window: every pixel, or every other one of two vectors, nothing beyond the last."""
    if stride == 1:
        return w.load(pointer, 0) if count is None else w.load_masked(pointer, w.first_lanes(count))
    # the second vector begins with the last pixel of the first, and so ends with the last one that is wanted
    if count is None:
        pair = w.load(pointer, 0), w.load(pointer, w.lanes - 1)
    else:
        reach = w.builder.sub(w.builder.mul(count, w.int(2)), w.int(1))
        masks = w.first_lanes(reach), w.first_lanes(w.builder.sub(reach, w.int(w.lanes - 1)))
        pair = tuple(w.load_masked(w.at(pointer, i * (w.lanes - 1)), mask) for i, mask in enumerate(masks))
    half = w.lanes // 2
    return w.shuffle(*pair, [*range(0, w.lanes, 2), *range(w.lanes + 1, w.lanes + 1 + 2 * half, 2)])
