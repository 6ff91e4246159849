"""Serial kernels that a parallel loop calls by address.

Numba optimises a function anew inside everything that calls it, and three times over inside a parallel loop. Called
by address, a kernel is compiled once: half the time to the first result.
"""

import numba

_compiled: dict = {}


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
