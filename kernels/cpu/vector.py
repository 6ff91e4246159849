"""The vector instructions under the convolutions: two register tiles, written as LLVM IR.

LLVM vectorises a plain loop, but it does not keep a block of accumulators in registers across one. These two
functions do, and every convolution, its two gradients and the matrix product are loops around them:

- ``multiply_tile``: lanes are pixels, rows are output channels, and one step is one tap (an input channel and a
  place in the kernel): load the pixels that the tap meets, broadcast one weight per row, multiply and add.
- ``dot_tile``: lanes are pixels again, but each accumulator is one weight's gradient: the dot product of an output
  channel's gradient with the pixels that one tap meets. The lanes are added up at the end.

Addresses are element indices into flat arrays, and nothing here checks them: a caller reads only scratch that it
owns, and the lanes it must not write are masked.
"""

import platform
from typing import NamedTuple

import numpy as np
from llvmlite import binding, ir
from numba import config, types
from numba.core.cgutils import get_or_insert_function, memset, raw_memcpy
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

# ---- what the CPU has ------------------------------------------------------------------------------------------------


class Tiling(NamedTuple):
    """How many registers of which size a CPU has, and the tiles that fit them."""

    vector_bytes: int
    rows: int  # multiply_tile: output channels ...
    vectors: int  # ... by vectors of pixels
    dot_rows: int  # dot_tile: output channels ...
    dot_taps: int  # ... by taps


def _features():
    """Return the names of the vector extensions that Numba compiles for."""
    if config.CPU_FEATURES is not None:
        return {name[1:] for name in config.CPU_FEATURES.split(",") if name.startswith("+")}
    return {name for name, present in binding.get_host_cpu_features().items() if present}


def choose_tiling(features, machine):
    """Return the tiling for a CPU with these ``features``: accumulators, operands and nothing left to spill.

    Any tiling is right on any CPU, since LLVM splits vectors that are too long; the choice only sets the speed.
    """
    if "avx512f" in features:
        return Tiling(64, 8, 3, 4, 6)  # 32 registers of 64 bytes
    if machine.lower() in ("aarch64", "arm64"):
        return Tiling(16, 8, 3, 4, 6)  # 32 registers of 16 bytes
    if "avx" in features:
        return Tiling(32, 4, 3, 2, 6)  # 16 registers of 32 bytes
    return Tiling(16, 4, 3, 2, 6)


TILING = choose_tiling(_features(), platform.machine())

#: Output channels, and vectors of pixels, of one ``multiply_tile``.
TILE_ROWS, TILE_VECTORS = TILING.rows, TILING.vectors
#: Output channels, and taps, of one ``dot_tile``.
DOT_ROWS, DOT_TAPS = TILING.dot_rows, TILING.dot_taps


def lanes(dtype):
    """Return how many numbers of type ``dtype`` one vector holds."""
    return TILING.vector_bytes // np.dtype(dtype).itemsize


def dot_size(dtype):
    """Return how many numbers ``dot_tile`` adds to: its sums, filled up to whole vectors."""
    return -(-DOT_ROWS * DOT_TAPS // lanes(dtype)) * lanes(dtype)


# ---- writing IR ------------------------------------------------------------------------------------------------------

_INT = ir.IntType(64)
_INT32 = ir.IntType(32)


class _Writer:
    """Writes instructions on vectors of one element type into the function that Numba is compiling."""

    def __init__(self, builder, dtype):
        self.builder = builder
        self.element, letter = (ir.FloatType(), "f32") if dtype == types.float32 else (ir.DoubleType(), "f64")
        self.itemsize = dtype.bitwidth // 8
        self.lanes = TILING.vector_bytes // self.itemsize
        self.vector = ir.VectorType(self.element, self.lanes)
        self.name = f"v{self.lanes}{letter}"
        self.zero = ir.Constant(self.vector, [0.0] * self.lanes)
        # fmuladd, not fma: on a CPU without the instruction, fma is a function call per element
        signature = ir.FunctionType(self.vector, [self.vector] * 3)
        self._fmuladd = get_or_insert_function(builder.module, signature, f"llvm.fmuladd.{self.name}")

    def int(self, value):
        """Return a constant index."""
        return ir.Constant(_INT, value)

    def smaller(self, a, b):
        """Return the smaller of two indices."""
        return self.builder.select(self.builder.icmp_signed("<", a, b), a, b)

    def product_sum(self, *terms):
        """Return the sum of ``terms``, each an index or a pair of indices to be multiplied."""
        values = [self.builder.mul(*term) if isinstance(term, tuple) else term for term in terms]
        total = values[0]
        for value in values[1:]:
            total = self.builder.add(total, value)
        return total

    def at(self, pointer, index):
        """Return the address of element ``index``."""
        return self.builder.gep(pointer, [self.int(index) if isinstance(index, int) else index])

    def get(self, pointer, index):
        """Load one element."""
        return self.builder.load(self.at(pointer, index))

    def load(self, pointer, index):
        """Load a vector from any element."""
        vector = self.builder.load(self.builder.bitcast(self.at(pointer, index), self.vector.as_pointer()))
        vector.align = self.itemsize
        return vector

    def store(self, vector, pointer):
        """Store a vector at ``pointer``."""
        instruction = self.builder.store(vector, self.builder.bitcast(pointer, self.vector.as_pointer()))
        instruction.align = self.itemsize

    def store_masked(self, vector, pointer, mask):
        """Store the lanes of a vector that ``mask`` chooses, and touch no other."""
        to = self.vector.as_pointer()
        signature = ir.FunctionType(ir.VoidType(), [self.vector, to, _INT32, mask.type])
        function = get_or_insert_function(self.builder.module, signature, f"llvm.masked.store.{self.name}.p0")
        align = ir.Constant(_INT32, self.itemsize)
        self.builder.call(function, [vector, self.builder.bitcast(pointer, to), align, mask])

    def splat(self, value):
        """Return a vector with ``value`` in every lane."""
        vector = ir.VectorType(value.type, self.lanes)
        undefined = ir.Constant(vector, ir.Undefined)
        first = self.builder.insert_element(undefined, value, ir.Constant(_INT32, 0))
        every = ir.Constant(ir.VectorType(_INT32, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, undefined, every)

    def first_lanes(self, count):
        """Return the mask of the first ``count`` lanes."""
        numbers = ir.Constant(ir.VectorType(_INT32, self.lanes), list(range(self.lanes)))
        return self.builder.icmp_signed("<", numbers, self.splat(self.builder.trunc(count, _INT32)))

    def multiply_add(self, a, b, total):
        """Return ``a * b + total``, lane by lane."""
        return self.builder.call(self._fmuladd, [a, b, total])

    def every_other(self, a, b, first):
        """Return the lanes ``first, first + 2, ...`` of two vectors put together."""
        index = ir.Constant(ir.VectorType(_INT32, self.lanes), list(range(first, 2 * self.lanes, 2)))
        return self.builder.shuffle_vector(a, b, index)

    def sums(self, vectors):
        """Return a vector whose lane i is the sum of the lanes of ``vectors[i]``, as many as there are lanes.

        Neighbouring lanes are added pairwise while pairs of vectors are folded into one: a third of the work of
        adding up one vector at a time.
        """
        while len(vectors) > 1:
            pairs = zip(vectors[::2], vectors[1::2], strict=True)
            vectors = [self.builder.fadd(self.every_other(a, b, 0), self.every_other(a, b, 1)) for a, b in pairs]
        return vectors[0]

    def loop(self, count, initial, step):
        """Run ``step(i, values)`` for i from 0 to ``count - 1``; return the final values, of as many as ``initial``."""
        builder, function = self.builder, self.builder.function
        before = builder.block
        head, body, end = (function.append_basic_block(name) for name in ("tile.head", "tile.body", "tile.end"))
        builder.branch(head)
        builder.position_at_end(head)
        i = builder.phi(_INT)
        values = [builder.phi(self.vector) for _ in initial]
        builder.cbranch(builder.icmp_signed("<", i, count), body, end)
        builder.position_at_end(body)
        results = step(i, values)
        following = builder.add(i, self.int(1))
        for phi, start, after in zip([i, *values], [self.int(0), *initial], [following, *results], strict=True):
            phi.add_incoming(start, before)
            phi.add_incoming(after, body)
        builder.branch(head)
        builder.position_at_end(end)
        return values


def _data(context, builder, signature, arguments):
    """Return the arguments with each array replaced by the address of its first element."""
    return [
        make_array(kind)(context, builder, value).data if isinstance(kind, types.Array) else value
        for kind, value in zip(signature.args, arguments, strict=True)
    ]


def _signature(arguments):
    """Return a signature that takes arrays as they are and everything else as an index."""
    return types.void(*(kind if isinstance(kind, types.Array) else types.int64 for kind in arguments))


# ---- copying --------------------------------------------------------------------------------------------------------


@intrinsic
def copy(typing_context, to, to_start, source, source_start, count):
    """Copy ``count`` elements. A plain loop would allow for negative indices, one element at a time."""
    signature = _signature((to, to_start, source, source_start, count))

    def codegen(context, builder, signature, arguments):
        to, to_start, source, source_start, count = _data(context, builder, signature, arguments)
        w = _Writer(builder, signature.args[0].dtype)
        raw_memcpy(builder, w.at(to, to_start), w.at(source, source_start), count, w.int(w.itemsize))
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def clear(typing_context, to, to_start, count):
    """Set ``count`` elements to zero."""
    signature = _signature((to, to_start, count))

    def codegen(context, builder, signature, arguments):
        to, to_start, count = _data(context, builder, signature, arguments)
        w = _Writer(builder, signature.args[0].dtype)
        memset(builder, w.at(to, to_start), builder.mul(count, w.int(w.itemsize)), 0)
        return context.get_dummy_value()

    return signature, codegen


# ---- the tiles -------------------------------------------------------------------------------------------------------


@intrinsic
def multiply_tile(
    typing_context,
    out,
    out_start,
    channel_size,
    channels,
    out_offsets,
    counts,
    packed,
    in_offsets,
    first,
    vectors,
    taps,
    tap_start,
    tap_count,
    weights,
    weight_start,
    bias,
    bias_start,
):
    """Write ``TILE_ROWS`` output channels at ``TILE_VECTORS`` vectors of pixels: bias plus weighted sum over the taps.

    Vector v of the tile is number ``first + v`` of the task's list. It reads ``packed`` at
    ``in_offsets[first + v] + taps[t]`` for tap t, and its first ``counts[first + v]`` lanes go to
    ``out_start + out_offsets[first + v]``, for each further channel ``channel_size`` farther.
    ``weights`` holds ``TILE_ROWS`` values per tap, ``bias`` holds ``TILE_ROWS`` values.

    Where fewer than ``TILE_VECTORS`` vectors remain, the last one is computed again. Where fewer than ``TILE_ROWS``
    channels remain, the rows that are too many (their weights are zeros that fill up the tile) go to the place of the
    last channel first, which is then overwritten: rows are stored from the last to the first.
    """
    signature = _signature(
        (out, out_start, channel_size, channels, out_offsets, counts, packed, in_offsets, first, vectors)
        + (taps, tap_start, tap_count, weights, weight_start, bias, bias_start)
    )

    def codegen(context, builder, signature, arguments):
        arguments = _data(context, builder, signature, arguments)
        out, out_start, channel_size, channels, out_offsets, counts, packed, in_offsets, first, vectors = arguments[:10]
        taps, tap_start, tap_count, weights, weight_start, bias, bias_start = arguments[10:]
        w = _Writer(builder, signature.args[0].dtype)
        last_row, last_vector = builder.sub(channels, w.int(1)), builder.sub(vectors, w.int(1))
        index = [builder.add(first, w.smaller(w.int(v), last_vector)) for v in range(TILE_VECTORS)]
        row = [w.smaller(w.int(m), last_row) for m in range(TILE_ROWS)]
        source = [w.at(packed, w.get(in_offsets, i)) for i in index]
        weights, taps, bias = w.at(weights, weight_start), w.at(taps, tap_start), w.at(bias, bias_start)
        initial = [w.splat(w.get(bias, m)) for m in range(TILE_ROWS) for _ in range(TILE_VECTORS)]

        def tap(t, totals):
            offset = w.get(taps, t)
            pixels = [w.load(pointer, offset) for pointer in source]
            here = w.at(weights, builder.mul(t, w.int(TILE_ROWS)))
            results = []
            for m in range(TILE_ROWS):
                scale = w.splat(w.get(here, m))
                for v in range(TILE_VECTORS):
                    results.append(w.multiply_add(scale, pixels[v], totals[m * TILE_VECTORS + v]))
            return results

        totals = w.loop(tap_count, initial, tap)
        places = [
            w.at(out, w.product_sum(out_start, w.get(out_offsets, i), (channel_size, m))) for m in row for i in index
        ]
        kept = [w.get(counts, i) for i in index]
        fewest = kept[0]
        for count in kept[1:]:
            fewest = w.smaller(fewest, count)
        with builder.if_else(builder.icmp_signed("==", fewest, w.int(w.lanes))) as (whole, cut):
            with whole:
                for total, place in zip(reversed(totals), reversed(places), strict=True):
                    w.store(total, place)
            with cut:
                masks = [w.first_lanes(count) for count in kept] * TILE_ROWS
                for total, place, mask in zip(reversed(totals), reversed(places), reversed(masks), strict=True):
                    w.store_masked(total, place, mask)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def dot_tile(
    typing_context,
    sums,
    sums_start,
    gradient,
    gradient_start,
    channel_size,
    channels,
    packed,
    in_offsets,
    counts,
    vectors,
    taps,
    tap_start,
):
    """Add ``DOT_ROWS`` x ``DOT_TAPS`` dot products over ``vectors`` vectors of pixels to ``sums``.

    Vector i of output channel m is at ``gradient_start + m * channel_size + i * lanes`` of ``gradient``, zero beyond
    its ``counts[i]`` pixels; the pixels that tap k meets there are at ``in_offsets[i] + taps[tap_start + k]`` of
    ``packed``. Rows beyond ``channels`` repeat the last one. Sum (m, k) is number ``m * DOT_TAPS + k`` of ``sums``.
    """
    signature = _signature(
        (sums, sums_start, gradient, gradient_start, channel_size, channels)
        + (packed, in_offsets, counts, vectors, taps, tap_start)
    )

    def codegen(context, builder, signature, arguments):
        arguments = _data(context, builder, signature, arguments)
        sums, sums_start, gradient, gradient_start, channel_size, channels = arguments[:6]
        packed, in_offsets, counts, vectors, taps, tap_start = arguments[6:]
        w = _Writer(builder, signature.args[0].dtype)
        last_row = builder.sub(channels, w.int(1))
        rows = [
            w.at(gradient, w.product_sum(gradient_start, (channel_size, w.smaller(w.int(m), last_row))))
            for m in range(DOT_ROWS)
        ]
        source = [w.at(packed, w.get(taps, builder.add(tap_start, w.int(k)))) for k in range(DOT_TAPS)]

        def add_products(i, totals):
            place, offset = builder.mul(i, w.int(w.lanes)), w.get(in_offsets, i)
            slopes = [w.load(pointer, place) for pointer in rows]
            inside = w.first_lanes(w.get(counts, i))
            results = list(totals)
            for k in range(DOT_TAPS):
                # the gradient is zero beyond the edge, but the pixels there may be inf or NaN, and 0 * inf is not 0
                pixels = builder.select(inside, w.load(source[k], offset), w.zero)
                for m in range(DOT_ROWS):
                    results[m * DOT_TAPS + k] = w.multiply_add(slopes[m], pixels, totals[m * DOT_TAPS + k])
            return results

        totals = w.loop(vectors, [w.zero] * (DOT_ROWS * DOT_TAPS), add_products)
        totals += [w.zero] * (-len(totals) % w.lanes)
        for start in range(0, len(totals), w.lanes):
            pointer = w.at(sums, builder.add(sums_start, w.int(start)))
            w.store(builder.fadd(w.load(pointer, 0), w.sums(totals[start : start + w.lanes])), pointer)
        return context.get_dummy_value()

    return signature, codegen
