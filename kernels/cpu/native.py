"""Serial kernels that a parallel loop calls by address.

Numba optimises a function anew inside everything that calls it, and three times over inside a parallel loop. Called
by address, a kernel is compiled once: half the time to the first result.
"""

from typing import Any

import numba
from llvmlite import ir
from numba import extending, types

_compiled: dict = {}
_addresses: dict = {}
_intrinsic: Any = extending.intrinsic  # to a type checker, callers would have to pass the typing context


def native(function, dtype, arguments):
    """Return ``function`` compiled for arrays of type ``dtype``, to be passed to a parallel kernel as a value.

    Parameters
    ----------
    function : callable
        A function that ``jit`` has decorated. It returns nothing.
    dtype : dtype
        Type that the types of all arguments follow from.
    arguments : tuple
        Arguments like those that it will be called with.

    Returns
    -------
    CFunc
        The same object for the same function and dtype. Like the kernels, it is kept on disk where that is possible.
    """
    key = function, dtype
    if key not in _compiled:
        signature = numba.types.void(*map(numba.typeof, arguments))
        options = {name: function.targetoptions[name] for name in ("error_model", "fastmath")}
        try:
            _compiled[key] = numba.cfunc(signature, cache=True, **options)(function.py_func)
        except RuntimeError:  # no folder to cache in
            _compiled[key] = numba.cfunc(signature, **options)(function.py_func)
    return _compiled[key]


def address_of(function, dtype, arguments):
    """Return the address of ``native(function, dtype, arguments)``, for ``call``.

    A number is passed to a kernel in no time; what a function's type is, Numba finds out anew at every call.
    """
    key = function, dtype
    if key not in _addresses:
        _addresses[key] = native(function, dtype, arguments).address
    return _addresses[key]


@_intrinsic
def call(typing_context, address, arrays, scratch, first, second, third, task):
    """Call the task at ``address``; ``first`` to ``third`` are what else it has to know: tables, a layout, sizes."""

    def codegen(context, builder, signature, arguments):
        kinds = [context.get_value_type(kind) for kind in signature.args[1:]]
        function = ir.FunctionType(ir.VoidType(), kinds).as_pointer()
        builder.call(builder.inttoptr(arguments[0], function), arguments[1:])
        return context.get_dummy_value()

    return types.void(types.intp, arrays, scratch, first, second, third, types.int64), codegen
