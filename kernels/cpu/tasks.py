"""One parallel loop for all passes over arrays. It calls serial tasks by address.

A loop of its own for each pass would read the same and cost seconds: Numba compiles a parallel loop, and all that is
called in it, several times over. Here the loop is compiled once, and each pass is one serial function
``task(arrays, sizes, number)``. Where the arrays are small, all tasks run on the calling thread: waking the others
takes longer than the work.
"""

from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.extending import intrinsic

from kernels.cpu.blocks import BLOCK, flat
from kernels.cpu.native import native
from kernels.jit import jit

#: How many numbers a task can be told.
_SIZES = 14


class Arrays(NamedTuple):
    """What tasks work on: flat arrays, of size 0 where a pass has none."""

    out: np.ndarray  # results, of the pass's floating type
    more: np.ndarray
    a: np.ndarray  # inputs of that type, read-only
    b: np.ndarray
    c: np.ndarray
    d: np.ndarray
    numbers: np.ndarray  # float64, read-only: parameters
    indices: np.ndarray  # int64, a result
    places: np.ndarray  # int64, read-only
    table: np.ndarray  # float64, two axes: constants, and sums


_NO_INDEX, _NO_TABLE = np.empty(0, np.int64), np.empty((0, 0))
_NO_PLACES, _NO_NUMBERS = flat(_NO_INDEX), flat(None, np.float64)
_NOTHING = {kind: (np.empty(0, kind), flat(None, kind)) for kind in (np.dtype(np.float32), np.dtype(np.float64))}


_addresses: dict = {}


def run(
    task,
    tasks,
    sizes,
    out,
    a=None,
    b=None,
    c=None,
    d=None,
    *,
    more=None,
    numbers=None,
    indices=None,
    places=None,
    table=_NO_TABLE,
):
    """Run ``task(arrays, sizes, number)`` for each number below ``tasks``, in parallel.

    Parameters
    ----------
    task : callable
        A function that ``jit`` has decorated; it writes nothing that another number reads or writes.
    tasks : int
        How many there are.
    sizes : tuple of int
        What it is told; zeros follow.
    out, a, b, c, d, more, indices, places, table : ndarray, optional
        See `Arrays`. Results are C-contiguous; the type of ``out`` counts even where it is empty.
    numbers : tuple of float, optional
        Further parameters.
    """
    to, source = _NOTHING[out.dtype]
    arrays = (
        out.reshape(-1),
        to if more is None else more.reshape(-1),
        source if a is None else flat(a),
        source if b is None else flat(b),
        source if c is None else flat(c),
        source if d is None else flat(d),
        _NO_NUMBERS if numbers is None else flat(np.array(numbers, np.float64)),
        _NO_INDEX if indices is None else indices.reshape(-1),
        _NO_PLACES if places is None else flat(places),
        table,
    )
    sizes = sizes + (0,) * (_SIZES - len(sizes))
    key = task, out.dtype
    if key not in _addresses:
        _addresses[key] = native(task, out.dtype, (Arrays(*arrays), sizes, 0)).address
    _run_kernel(_addresses[key], arrays, sizes, tasks, max(out.size, arrays[2].size) > BLOCK)


@jit(parallel=True)
def _run_kernel(address, arrays, sizes, tasks, in_parallel):
    # named here: Numba takes long to recognise a named tuple that comes from Python
    named = Arrays(*arrays)
    if in_parallel and tasks > 1:
        for number in prange(tasks):
            _call(address, named, sizes, np.int64(number))
    else:
        for number in range(tasks):
            _call(address, named, sizes, np.int64(number))


@intrinsic
def _call(typing_context, address, arrays, sizes, number):
    """Call the task at ``address``."""

    def codegen(context, builder, signature, arguments):
        kinds = [context.get_value_type(kind) for kind in signature.args[1:]]
        function = ir.FunctionType(ir.VoidType(), kinds).as_pointer()
        builder.call(builder.inttoptr(arguments[0], function), arguments[1:])
        return context.get_dummy_value()

    return types.void(types.intp, arrays, sizes, types.int64), codegen
