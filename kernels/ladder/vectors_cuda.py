"""Sixteen bytes at a time between a CUDA kernel's arrays and its registers: four float32 or two float64.

Numba has no such access of its own. Its vector types (``cuda.float32x4``), records, complex numbers and loops over four
neighbours are all compiled to single loads from global memory, since nothing tells the compiler that an address is a
multiple of 16; only for shared memory made with ``alignment=16`` does it find out and join them, as ``kernels.cuda``
relies on. So `load` and `store` are written in the compiler's own language, where the promise can be made:
``ld.global.v4.f32`` is what comes out. The simulator and the tracer run plain Python in their place.
"""

import numpy as np
from numba import from_dtype
from numba.core import types
from numba.extending import intrinsic

from kernels.cuda.device import SIMULATED

BYTES = 16


def vector_dtype(dtype):
    """Return what arrays of a floating type in global memory are seen as: a record of as many as fit."""
    dtype = np.dtype(dtype)
    return np.dtype([("", dtype)] * (BYTES // dtype.itemsize))


def vectors(a):
    """Return the elements of a device array as vectors, for kernels; their number is a multiple of a vector's."""
    return a.raw[: a.size].view(vector_dtype(a.dtype))


def vector_type(T):
    """Return the type of an array of vectors of a floating type of Numba's, for signatures."""
    return from_dtype(vector_dtype(T.name))[::1]


def elements(T):
    """Return how many elements a vector has."""
    return BYTES * 8 // T.bitwidth


def _load(a, index, into, place):
    """Read vector number ``index`` of ``a`` into the local array ``into``, from ``place`` on.

    ``a`` is an array of vectors, or one of elements that begins at a multiple of 16 bytes.
    """
    if a.dtype.names:
        vector = a[index]
        for i in range(len(vector)):
            into[place + i] = vector[i]
    else:
        count = BYTES // a.dtype.itemsize
        for i in range(count):
            into[place + i] = a[index * count + i]


def _store(a, index, values, place):
    """Write vector number ``index`` of ``a``, an array of elements, from the local array ``values``, from ``place`` on.

    The tracer sees the elements written one after the other.
    """
    count = BYTES // a.dtype.itemsize
    for i in range(count):
        a[index * count + i] = values[place + i]


def _compiled(python, copy):
    """Return the function for compiled kernels: ``copy`` writes its instructions."""

    def typed(context, a, index, local, place):
        def write(context, builder, signature, arguments):
            kinds = signature.args
            element = context.get_data_type(kinds[2].dtype)
            count = BYTES * 8 // kinds[2].dtype.bitwidth
            at_vectors, at_local = (context.make_array(kinds[i])(context, builder, arguments[i]).data for i in (0, 2))
            index_, place_ = (context.cast(builder, arguments[i], kinds[i], types.intp) for i in (1, 3))
            if kinds[0].dtype == kinds[2].dtype:  # elements, not vectors
                index_ = builder.mul(index_, index_.type(count))
            wide = ir.VectorType(element, count).as_pointer(at_vectors.type.addrspace)
            whole = builder.bitcast(builder.gep(at_vectors, [index_]), wide)
            places = [builder.gep(at_local, [builder.add(place_, place_.type(i))]) for i in range(count)]
            copy(builder, whole, places, ir.VectorType(element, count))
            return context.get_dummy_value()

        return types.void(a, index, local, place), write

    from llvmlite import ir

    typed.__name__ = python.__name__
    compiled = intrinsic(typed)
    compiled.py_func = python  # what `tinyseg.explain.cuda_trace` runs
    return compiled


def _copy_in(builder, whole, places, kind):
    vector = builder.load(whole)
    vector.align = BYTES
    for i, place in enumerate(places):
        builder.store(builder.extract_element(vector, _number(i)), place)


def _copy_out(builder, whole, places, kind):
    vector = kind(None)
    for i, place in enumerate(places):
        vector = builder.insert_element(vector, builder.load(place), _number(i))
    builder.store(vector, whole).align = BYTES


def _number(i):
    from llvmlite import ir

    return ir.IntType(32)(i)


load = _load if SIMULATED else _compiled(_load, _copy_in)
store = _store if SIMULATED else _compiled(_store, _copy_out)
