"""Writes vector instructions, as LLVM IR, into a function that Numba is compiling."""

from llvmlite import ir
from numba import types
from numba.core.cgutils import get_or_insert_function
from numba.np.arrayobj import make_array

from kernels.cpu.tiling import VECTOR_BYTES

_INT = ir.IntType(64)
_INT32 = ir.IntType(32)


class Writer:
    """Writes instructions on vectors of one element type into the function that Numba is compiling.

    Vectors have as many lanes as a register, unless ``lanes`` says otherwise.
    """

    def __init__(self, builder, dtype, lanes=None):
        self.builder = builder
        self.element, letter = (ir.FloatType(), "f32") if dtype == types.float32 else (ir.DoubleType(), "f64")
        self.itemsize = dtype.bitwidth // 8
        self.lanes = lanes or VECTOR_BYTES // self.itemsize
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

    def at(self, pointer, index):
        """Return the address of element ``index``."""
        return self.builder.gep(pointer, [self.int(index) if isinstance(index, int) else index])

    def get(self, pointer, index):
        """Load one element."""
        return self.builder.load(self.at(pointer, index))

    def put(self, value, pointer, index):
        """Store one element."""
        self.builder.store(value, self.at(pointer, index))

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

    def load_masked(self, pointer, mask):
        """Load the lanes that ``mask`` chooses, and touch no other; these are zeros."""
        to = self.vector.as_pointer()
        signature = ir.FunctionType(self.vector, [to, _INT32, mask.type, self.vector])
        function = get_or_insert_function(self.builder.module, signature, f"llvm.masked.load.{self.name}.p0")
        align = ir.Constant(_INT32, self.itemsize)
        return self.builder.call(function, [self.builder.bitcast(pointer, to), align, mask, self.zero])

    def splat(self, value):
        """Return a vector with ``value`` in every lane."""
        vector = ir.VectorType(value.type, self.lanes)
        undefined = ir.Constant(vector, ir.Undefined)
        first = self.builder.insert_element(undefined, value, ir.Constant(_INT32, 0))
        every = ir.Constant(ir.VectorType(_INT32, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, undefined, every)

    def first_lanes(self, count):
        """Return the mask of the first ``count`` lanes."""
        limit = self.splat(self.builder.trunc(count, _INT32))
        return self.builder.icmp_signed("<", self._numbers_from(self.int(0)), limit)

    def _numbers_from(self, first):
        """Return a vector of the whole numbers from ``first`` on."""
        numbers = ir.Constant(ir.VectorType(_INT32, self.lanes), list(range(self.lanes)))
        return self.builder.add(numbers, self.splat(self.builder.trunc(first, _INT32)))

    def lanes_inside(self, first, size):
        """Return the mask of the lanes i with ``0 <= first + i < size``."""
        return self.inside(self._numbers_from(first), self.splat(self.builder.trunc(size, _INT32)))

    def inside(self, value, size):
        """Return whether ``0 <= value < size``: a negative value, taken for unsigned, is large."""
        return self.builder.icmp_unsigned("<", value, size)

    def only_if(self, condition, mask):
        """Return ``mask`` if ``condition`` holds, else no lane."""
        return self.builder.select(condition, mask, ir.Constant(mask.type, [0] * self.lanes))

    def any_nan(self, vector):
        """Return whether some lane is not a number."""
        mask = self.builder.fcmp_unordered("uno", vector, vector)
        bits = ir.IntType(self.lanes)
        return self.builder.icmp_unsigned("!=", self.builder.bitcast(mask, bits), ir.Constant(bits, 0))

    def constant(self, value):
        """Return a vector with the number ``value`` in every lane."""
        return ir.Constant(self.vector, [value] * self.lanes)

    def scale_add(self, a, factor, total):
        """Return ``factor * a + total`` for a number ``factor``."""
        return self.multiply_add(a, self.constant(float(factor)), total)

    def gather(self, pointers):
        """Return a vector of one element from each address."""
        vector = ir.Constant(self.vector, ir.Undefined)
        for lane, pointer in enumerate(pointers):
            vector = self.builder.insert_element(vector, self.builder.load(pointer), ir.Constant(_INT32, lane))
        return vector

    def prefetch(self, pointer, to_write=False, nearest=True):
        """Fetch the cache line at an address that may be anywhere, into the first-level cache or the second."""
        byte = ir.IntType(8).as_pointer()
        signature = ir.FunctionType(ir.VoidType(), [byte, _INT32, _INT32, _INT32])
        function = get_or_insert_function(self.builder.module, signature, "llvm.prefetch.p0")
        access, locality, data = (ir.Constant(_INT32, n) for n in (int(to_write), 3 if nearest else 2, 1))
        self.builder.call(function, [self.builder.bitcast(pointer, byte), access, locality, data])

    def shuffle(self, a, b, lanes):
        """Return the lanes of that number of two vectors put together."""
        return self.builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_INT32, len(lanes)), lanes))

    def multiply_add(self, a, b, total):
        """Return ``a * b + total``, lane by lane."""
        return self.builder.call(self._fmuladd, [a, b, total])

    def every_other(self, a, b, first):
        """Return the lanes ``first, first + 2, ...`` of two vectors put together."""
        return self.shuffle(a, b, list(range(first, 2 * self.lanes, 2)))

    def alternate(self, a, b, half):
        """Return the lanes of two vectors in turn, ``a[0], b[0], a[1], ...``: the first half of them, or the second."""
        first = half * self.lanes // 2
        return self.shuffle(
            a, b, [i + other for i in range(first, first + self.lanes // 2) for other in (0, self.lanes)]
        )

    def transposed(self, rows):
        """Return the columns of a square of vectors."""
        half = self.lanes // 2
        for _ in range(half.bit_length()):  # each step halves the distance between neighbours of a column
            rows = [self.alternate(rows[i], rows[i + half], side) for i in range(half) for side in range(2)]
        return rows

    def sums(self, vectors):
        """Return a vector whose lane i is the sum of the lanes of ``vectors[i]``, as many as there are lanes.

        Two vectors are folded into one: of one, the second half of its lanes is added to the first, of the other the
        first to the second; then quarters likewise. What stays in its lanes is a choice between two registers, so that
        each fold takes but one permutation.
        """
        lanes, step = range(self.lanes), self.lanes
        while step > 1:
            step //= 2
            stay = [lane if lane & step == 0 else self.lanes + lane for lane in lanes]
            move = [lane + step if lane & step == 0 else self.lanes + lane - step for lane in lanes]
            pairs = zip(vectors[:step], vectors[step:], strict=True)
            vectors = [self.builder.fadd(self.shuffle(a, b, stay), self.shuffle(a, b, move)) for a, b in pairs]
        return vectors[0]

    def choose(self, condition, compute, otherwise):
        """Return the vectors that ``compute()`` gives where ``condition`` holds, else ``otherwise``."""
        before = self.builder.block
        with self.builder.if_then(condition):
            computed = compute()
            inside = self.builder.block
        chosen = []
        for value, other in zip(computed, otherwise, strict=True):
            phi = self.builder.phi(self.vector)
            phi.add_incoming(value, inside)
            phi.add_incoming(other, before)
            chosen.append(phi)
        return chosen

    def clamp(self, vectors, relu):
        """Return ``vectors`` with 0 in place of what is below it, if ``relu`` is not 0. NaN stays."""
        above = self.builder.fcmp_ordered
        return self.choose(
            self.builder.icmp_signed("!=", relu, self.int(0)),
            lambda: [self.builder.select(above(">", self.zero, v), self.zero, v) for v in vectors],
            vectors,
        )

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
        last, following = builder.block, builder.add(i, self.int(1))
        for phi, start, after in zip([i, *values], [self.int(0), *initial], [following, *results], strict=True):
            phi.add_incoming(start, before)
            phi.add_incoming(after, last)
        builder.branch(head)
        builder.position_at_end(end)
        return values


def signature_of(*arguments):
    """Return a signature that takes arrays as they are and everything else as an index."""
    return types.void(*(kind if isinstance(kind, types.Array) else types.int64 for kind in arguments))


def write_with(write, *first, lanes=None):
    """Return the code generator of an intrinsic that calls ``write(writer, *first, *arguments)``.

    Each array among the arguments is replaced by the address of its first element. Vectors are of the type of the
    first argument, an array, and of so many ``lanes``, or as many as a register has.
    """

    def codegen(context, builder, signature, arguments):
        pointers = [
            make_array(kind)(context, builder, value).data if isinstance(kind, types.Array) else value
            for kind, value in zip(signature.args, arguments, strict=True)
        ]
        write(Writer(builder, signature.args[0].dtype, lanes), *first, *pointers)
        return context.get_dummy_value()

    return codegen
