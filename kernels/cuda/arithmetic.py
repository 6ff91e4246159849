"""What NumPy's operators and functions of each element do on device arrays: the table `OPERATIONS`.

``a + b``, ``-a``, ``a < 1`` or ``numpy.exp(a)`` of a device array come to `apply` by way of NumPy's protocol. Operands
broadcast; a number takes the type of the array beside it and travels with the launch of a kernel. Whatever would have
to be copied from or to the host is refused.
"""

import math
import numbers
from typing import NamedTuple

import numpy as np

from kernels.cuda.array import DeviceArray, empty
from kernels.cuda.device import SIMULATED
from kernels.cuda.gemm import product
from kernels.cuda.strides import COPY, Elementwise, full, whole

# Python's functions raise where a GPU's and NumPy's give inf or NaN.
_exp, _log, _sqrt, _power = (
    (np.exp, np.log, np.sqrt, np.power) if SIMULATED else (math.exp, math.log, math.sqrt, math.pow)
)


class Operation(NamedTuple):
    """A function of NumPy's on the device.

    Attributes
    ----------
    run : Elementwise
        Its kernels.
    kinds : str
        Kinds of types that it takes: "f" floats, "i" and "u" whole numbers, "b" bools.
    decides : bool
        Whether its results are bools.
    """

    run: Elementwise
    kinds: str
    decides: bool = False


def _negative(a):
    return -a


def _absolute(a):
    return abs(a)


def _square(a):
    return a * a


def _exponential(a):
    return _exp(a)


def _logarithm(a):
    return _log(a)


def _root(a):
    return _sqrt(a)


def _is_finite(a):
    return a - a == 0


def _add(a, b):
    return a + b


def _subtract(a, b):
    return a - b


def _multiply(a, b):
    return a * b


def _divide(a, b):
    return a / b


def _to_the_power(a, b):
    return _power(a, b)


def _maximum(a, b):
    return a if a >= b or a != a else b  # NaN wins


def _minimum(a, b):
    return a if a <= b or a != a else b


def _less(a, b):
    return a < b


def _less_equal(a, b):
    return a <= b


def _greater(a, b):
    return a > b


def _greater_equal(a, b):
    return a >= b


def _equal(a, b):
    return a == b


def _not_equal(a, b):
    return a != b


def _table(rows):
    return {
        ufunc: Operation(Elementwise(ufunc.__name__, function, ufunc.nin, decides), kinds, decides)
        for ufunc, function, kinds, decides in rows
    }


#: By NumPy's function: what the device does for it.
OPERATIONS = _table(
    [
        (np.negative, _negative, "fi", False),
        (np.absolute, _absolute, "fi", False),
        (np.square, _square, "fiu", False),
        (np.exp, _exponential, "f", False),
        (np.log, _logarithm, "f", False),
        (np.sqrt, _root, "f", False),
        (np.isfinite, _is_finite, "f", True),
        (np.add, _add, "fiu", False),
        (np.subtract, _subtract, "fiu", False),
        (np.multiply, _multiply, "fiu", False),
        (np.divide, _divide, "f", False),
        (np.power, _to_the_power, "f", False),
        (np.maximum, _maximum, "fiu", False),
        (np.minimum, _minimum, "fiu", False),
        (np.less, _less, "fiub", True),
        (np.less_equal, _less_equal, "fiub", True),
        (np.greater, _greater, "fiub", True),
        (np.greater_equal, _greater_equal, "fiub", True),
        (np.equal, _equal, "fiub", True),
        (np.not_equal, _not_equal, "fiub", True),
    ]
)


def apply(ufunc, method, *inputs, out=None, **how):
    """Do what NumPy's protocol ``__array_ufunc__`` asks for.

    Parameters
    ----------
    ufunc : numpy.ufunc
        Such as ``numpy.add``.
    method : str
        ``"__call__"``, or ``"at"`` of ``numpy.add``; others are refused.
    *inputs : DeviceArray or number
        One of them at least is a device array. The second one of ``"at"`` is an index with arrays.
    out : tuple of DeviceArray, optional
        Where to write the result.
    **how
        Further arguments of NumPy's, which are refused.

    Returns
    -------
    DeviceArray
        None for ``"at"``.

    Raises
    ------
    TypeError
        If the device does not do it, if an array of the host takes part, or types do not fit.
    ValueError
        If shapes do not broadcast.
    """
    if ufunc is np.matmul and method == "__call__" and out is None and not how:
        return matmul(*inputs)
    if ufunc is np.add and method == "at" and isinstance(inputs[0], DeviceArray):
        return inputs[0].picks(inputs[1]).add(inputs[0], inputs[2])
    operation = OPERATIONS.get(ufunc)
    if operation is None or method != "__call__" or how:
        asked = ufunc.__name__ if method == "__call__" else f"{ufunc.__name__}.{method}"
        asked += f" with {', '.join(sorted(how))}" if how else ""
        raise TypeError(f"numpy.{asked} has no kernel for device arrays; kernels.cuda.to_host(a) copies one")
    if ufunc is np.power and (simple := _simple_power(*inputs)) is not None:
        return simple
    arrays = _operands(ufunc.__name__, inputs)
    dtype = arrays[0].dtype
    if dtype.kind not in operation.kinds:
        raise TypeError(f"{ufunc.__name__} of a device array of {dtype} has no kernel; change its type with astype")
    try:
        shape = np.broadcast_shapes(*(a.shape for a in arrays))
    except ValueError:
        shapes = " and ".join(str(a.shape) for a in arrays)
        raise ValueError(f"{ufunc.__name__} of device arrays of shapes {shapes}, which do not broadcast") from None
    y = empty(shape, np.bool_ if operation.decides else dtype) if out is None else out[0]
    if not isinstance(y, DeviceArray) or y.shape != shape or y.dtype != (np.bool_ if operation.decides else dtype):
        raise TypeError(f"{ufunc.__name__} into {y!r:.100} of device arrays; expected one of shape {shape}, {dtype}")
    operation.run(whole(y), *(whole(a).repeated(shape) for a in arrays))
    return y


def _operands(name, inputs):
    """Return the inputs as device arrays of one type: numbers take that of the arrays."""
    arrays = [value for value in inputs if isinstance(value, DeviceArray)]
    for value in inputs:
        if not isinstance(value, DeviceArray | np.ndarray | numbers.Number | np.generic):
            raise TypeError(f"{name} of a device array and a {type(value).__name__}; expected device arrays or numbers")
        if isinstance(value, np.ndarray):
            raise TypeError(
                f"{name} of a device array of shape {arrays[0].shape} and a NumPy array of shape {value.shape}: "
                "copy one of them with kernels.cuda.to_device or to_host"
            )
    types = sorted({str(a.dtype) for a in arrays})
    if len(types) > 1:
        raise TypeError(f"{name} of device arrays of {' and '.join(types)}; expected one type")
    dtype = arrays[0].dtype
    for value in inputs:
        if not isinstance(value, DeviceArray) and np.asarray(value).dtype.kind == "f" and dtype.kind != "f":
            raise TypeError(f"{name} of a device array of {dtype} and {value!r}; change its type with astype")
    return [value if isinstance(value, DeviceArray) else full((), value, dtype) for value in inputs]


def _simple_power(a, exponent):
    """Return the power where NumPy too takes a shorter way, which rounds less, or None."""
    if not isinstance(a, DeviceArray) or isinstance(exponent, DeviceArray | np.ndarray) or a.dtype.kind != "f":
        return None
    if exponent == 1:
        return a.copy()
    if exponent == 2:
        return np.square(a)
    if exponent == 0.5:
        return np.sqrt(a)
    return 1 / a if exponent == -1 else None


def matmul(a, b):
    """Return the products of matrices, ``a @ b``; axes before the last two broadcast.

    Parameters
    ----------
    a : DeviceArray, shape (..., I, K)
        Float32 or float64.
    b : DeviceArray, shape (..., K, J)
        Of the same type.

    Returns
    -------
    DeviceArray, shape (..., I, J)

    Raises
    ------
    TypeError, ValueError
        If types or shapes do not fit.
    """
    a, b = _operands("matmul", (a, b))
    if a.ndim < 2 or b.ndim < 2 or a.shape[-1] != b.shape[-2]:
        raise ValueError(f"matmul of device arrays of shapes {a.shape} and {b.shape}, which do not fit")
    if a.ndim == b.ndim == 2:
        return product(a, b)
    before = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    y = empty((*before, a.shape[-2], b.shape[-1]), a.dtype)
    if y.size:
        a, b = (whole(each).repeated((*before, *each.shape[-2:])).copied() for each in (a, b))
        for where in np.ndindex(before):
            y[where] = product(a[where], b[where])
    return y


def astype(a, dtype, copy=True):
    """Return a device array as another type, a copy even of the same type unless ``copy`` is False."""
    dtype = np.dtype(dtype)
    if dtype.kind not in "fiub":
        raise TypeError(f"dtype is {dtype}; expected floating-point numbers, integers or booleans")
    if dtype == a.dtype and not copy:
        return a
    if dtype == np.bool_ and a.dtype != np.bool_:
        return a != 0
    y = empty(a.shape, dtype)
    COPY(whole(y), whole(a))
    return y
