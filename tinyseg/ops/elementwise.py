"""Arithmetic with broadcasting, exp and log. NumPy's operators: these work on single numbers and small tensors."""

import numpy as np

from tinyseg.backend import kernel
from tinyseg.function import Function
from tinyseg.tensor import Tensor, tensor_beside, tensor_over, whole_array


def sum_to_shape(dy, shape, dtype=None):
    """Undo broadcasting: sum ``dy`` over the axes along which an input of shape ``shape`` was repeated."""
    extra = tuple(range(dy.ndim - len(shape)))
    repeated = tuple(i + len(extra) for i, size in enumerate(shape) if size == 1 and dy.shape[i + len(extra)] != 1)
    if extra or repeated:
        dy = dy.sum(axis=extra + repeated, keepdims=True).reshape(shape)
    return dy if dtype is None else dy.astype(dtype, copy=False)


class Add(Function):
    def forward(self, a, b):
        self.shapes = a.shape, b.shape
        return kernel("add_forward")(a, b) if a.dtype.kind == "f" else a + b

    def backward(self, dy):
        return kernel("add_backward")(dy, *self.shapes)


class Sub(Function):
    def forward(self, a, b):
        self.shapes = a.shape, b.shape
        return a - b

    def backward(self, dy):
        return sum_to_shape(dy, self.shapes[0]), sum_to_shape(-dy, self.shapes[1]) if self.needs[1] else None


class Mul(Function):
    def forward(self, a, b):
        self.shapes = a.shape, b.shape
        self.saved = a if self.needs[1] else None, b if self.needs[0] else None
        return a * b

    def backward(self, dy):
        a, b = self.saved
        return (
            sum_to_shape(dy * b, self.shapes[0]) if self.needs[0] else None,
            sum_to_shape(dy * a, self.shapes[1]) if self.needs[1] else None,
        )


class Div(Function):
    def forward(self, a, b):
        self.shapes = a.shape, b.shape
        self.saved = a if self.needs[1] else None, b
        with np.errstate(divide="ignore", invalid="ignore"):  # x / 0 is infinite, as in PyTorch
            return a / b

    def backward(self, dy):
        a, b = self.saved
        with np.errstate(divide="ignore", invalid="ignore"):
            return (
                sum_to_shape(dy / b, self.shapes[0]) if self.needs[0] else None,
                sum_to_shape(-dy * a / (b * b), self.shapes[1]) if self.needs[1] else None,
            )


class Pow(Function):
    def forward(self, x, *, exponent):
        self.saved = (x,)
        self.exponent = exponent
        with np.errstate(divide="ignore", invalid="ignore"):
            return x**exponent

    def backward(self, dy):
        (x,) = self.saved
        if self.exponent == 0:
            return np.zeros_like(dy)
        with np.errstate(divide="ignore", invalid="ignore"):
            return dy * (self.exponent * x ** (self.exponent - 1))


class Neg(Function):
    def forward(self, x):
        return -x

    def backward(self, dy):
        return -dy


class Exp(Function):
    def forward(self, x):
        with np.errstate(over="ignore"):
            y = np.exp(x)
        self.saved = (y,)
        return y

    def backward(self, dy):
        (y,) = self.saved
        return dy * y


class Log(Function):
    def forward(self, x):
        self.saved = (x,)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.log(x)

    def backward(self, dy):
        (x,) = self.saved
        with np.errstate(divide="ignore"):
            return dy / x


class Matmul(Function):
    def forward(self, a, b):
        if a.ndim < 2 or b.ndim < 2:
            raise ValueError(f"a @ b with shapes {a.shape} and {b.shape}; expected two or more axes each")
        self.shapes = a.shape, b.shape
        self.saved = a if self.needs[1] else None, b if self.needs[0] else None
        return a @ b

    def backward(self, dy):
        a, b = self.saved
        return (
            sum_to_shape(dy @ b.swapaxes(-1, -2), self.shapes[0]) if self.needs[0] else None,
            sum_to_shape(a.swapaxes(-1, -2) @ dy, self.shapes[1]) if self.needs[1] else None,
        )


class Astype(Function):
    def forward(self, x, *, dtype):
        self.dtype = x.dtype
        return x.astype(dtype)

    def backward(self, dy):
        return dy.astype(self.dtype)


def astype(x, dtype):
    """Return a copy of the tensor with values of another type. Integer results carry no gradient.

    Parameters
    ----------
    x : Tensor
        Any shape.
    dtype : numpy.dtype
        Type of the result.

    Returns
    -------
    Tensor
        Same shape.
    """
    dtype = np.dtype(dtype)
    if dtype not in (np.float32, np.float64):
        return tensor_over(x.array.astype(dtype))
    return Astype.apply(x, dtype=dtype)


def _partner(x, other):
    """Return ``other`` as a tensor to go with tensor ``x``: Python's numbers take the type of ``x``."""
    if isinstance(other, Tensor):
        return other
    if isinstance(other, bool | int | float | np.generic):
        kind = np.asarray(other).dtype.kind
        if kind in "biuf":
            dtype = x.dtype if x.dtype.kind == "f" else (np.float32 if kind == "f" else None)
            return tensor_beside(x, other, dtype)
    if isinstance(other, np.ndarray):
        return Tensor(other)
    return NotImplemented


def _common_type(a, b):
    """Return ``a`` and ``b`` as tensors of one type: the wider float; a float's, where the other holds integers."""
    if a.dtype == b.dtype:
        return a, b
    if (a.dtype.kind == "f") == (b.dtype.kind == "f"):
        dtype = np.result_type(a.dtype, b.dtype)
    else:
        dtype = a.dtype if a.dtype.kind == "f" else b.dtype
    return a.to(dtype=dtype), b.to(dtype=dtype)


def _binary(function, swapped=False):
    """Return the method of Tensor for a binary operator."""

    def method(self, other):
        other = _partner(self, other)
        if other is NotImplemented:
            return NotImplemented
        a, b = _common_type(*((other, self) if swapped else (self, other)))
        try:
            np.broadcast_shapes(a.shape[:-2], b.shape[:-2]) if function is Matmul else np.broadcast_shapes(
                a.shape, b.shape
            )
        except ValueError:
            raise ValueError(f"shapes {a.shape} and {b.shape} of the two operands do not broadcast") from None
        if function is Div and a.dtype.kind != "f":
            a, b = a.to(dtype=np.float32), b.to(dtype=np.float32)
        return function.apply(a, b)

    return method


def _power(self, exponent):
    """Return the tensor to the power of a number."""
    if isinstance(exponent, Tensor) or not isinstance(exponent, int | float | np.number):
        return NotImplemented
    return Pow.apply(self, exponent=exponent if isinstance(exponent, int) else float(exponent))


def _comparison(compare):
    """Return the method of Tensor for a comparison: a tensor of bools, off the tape."""

    def method(self, other):
        return tensor_over(whole_array(compare(self.array, other.array if isinstance(other, Tensor) else other)))

    return method


def exp(x):
    """Return e to the power of each value.

    Parameters
    ----------
    x : Tensor
        Any shape.

    Returns
    -------
    Tensor
        Same shape.
    """
    return Exp.apply(x)


def log(x):
    """Return the natural logarithm of each value; -inf of 0 and NaN of negative values, as in PyTorch.

    Parameters
    ----------
    x : Tensor
        Any shape.

    Returns
    -------
    Tensor
        Same shape.
    """
    return Log.apply(x)


def add(input, other):
    """Return the sum of two tensors, which broadcast. Argument names follow PyTorch.

    Parameters
    ----------
    input, other : Tensor
        Shapes that broadcast to one.

    Returns
    -------
    Tensor
    """
    return (input if isinstance(input, Tensor) else Tensor(input)) + other


def _install():
    """Give the operators to the class Tensor."""
    methods = {
        "add": Add,
        "sub": Sub,
        "mul": Mul,
        "truediv": Div,
        "matmul": Matmul,
    }
    for name, function in methods.items():
        setattr(Tensor, f"__{name}__", _binary(function))
        setattr(Tensor, f"__r{name}__", _binary(function, swapped=True))
    for name, compare in {
        "lt": np.less,
        "le": np.less_equal,
        "gt": np.greater,
        "ge": np.greater_equal,
        "eq": np.equal,
        "ne": np.not_equal,
    }.items():
        setattr(Tensor, f"__{name}__", _comparison(compare))
    Tensor.__pow__ = _power
    Tensor.__neg__ = lambda self: Neg.apply(self)
    Tensor.exp = exp
    Tensor.log = log
    Tensor.astype = astype


_install()
