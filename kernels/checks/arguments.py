"""Checks of single arguments, which the operators' checks are made of."""

import operator

import numpy as np

FLOATS = (np.float32, np.float64)
REDUCTIONS = ("none", "mean", "sum")


def array(name, a, ndim=None, dtype=None):
    """Return ``a`` as a C-contiguous float array in native byte order, of ``ndim`` axes and type ``dtype`` if given.

    An array on a device is so already, and stays there.
    """
    if not isinstance(a, np.ndarray) and not is_on_device(a):
        raise TypeError(f"{name} is a {type(a).__name__}; expected a NumPy array")
    native = a.dtype.newbyteorder("=")
    if native not in FLOATS:
        raise TypeError(f"{name} has dtype {a.dtype}; expected float32 or float64")
    if dtype is not None and native != dtype:
        raise TypeError(f"{name} has dtype {native}; expected {np.dtype(dtype)}, as the other arrays have")
    if ndim is not None and a.ndim != ndim:
        raise ValueError(f"{name} has shape {a.shape}; expected {ndim} axes, {_AXES.get(ndim, '')}".rstrip(", "))
    return a if is_on_device(a) else np.asarray(a, dtype=native, order="C")


def is_on_device(a):
    """Return whether ``a`` is an array in the memory of a device: such a class says so itself."""
    return getattr(type(a), "on_device", False)


_AXES = {1: "one value per channel", 2: "(N, features)", 4: "(N, C, H, W)"}


def index_array(name, a, shape=None, dtype=np.int64):
    """Return ``a`` as a C-contiguous array of whole numbers of type ``dtype``, of shape ``shape`` if given."""
    if not isinstance(a, np.ndarray) and not is_on_device(a):
        raise TypeError(f"{name} is a {type(a).__name__}; expected a NumPy array")
    if a.dtype.kind not in "iu":
        raise TypeError(f"{name} has dtype {a.dtype}; expected integers")
    if shape is not None and a.shape != tuple(shape):
        raise ValueError(f"{name} has shape {a.shape}; expected {tuple(shape)}")
    if is_on_device(a) and a.dtype != dtype:
        raise TypeError(f"{name} has dtype {a.dtype}; expected {np.dtype(dtype)} on the device")
    return a if is_on_device(a) else np.asarray(a, dtype=dtype, order="C")


def same_shape(name, a, shape, why):
    """Check that array ``a`` has shape ``shape``; ``why`` says where that shape comes from."""
    if a.shape != tuple(shape):
        raise ValueError(f"{name} has shape {a.shape}; expected {tuple(shape)}, {why}")
    return a


def integer(name, value, minimum=None):
    """Return ``value`` as an int of at least ``minimum``, where given."""
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}; expected a whole number") from None
    if minimum is not None and number < minimum:
        raise ValueError(f"{name} is {number}; expected at least {minimum}")
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"{name} is {number}; expected a number that fits into 64 bits")
    return number


def pair(name, value, minimum):
    """Return ``value``, an int or a pair (vertical, horizontal), as two ints of at least ``minimum``."""
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise ValueError(f"{name} is {value!r}; expected a whole number or a pair (vertical, horizontal)")
        return integer(name, value[0], minimum), integer(name, value[1], minimum)
    number = integer(name, value, minimum)
    return number, number


def shape(name, value, ndim=None):
    """Return ``value`` as a shape: a tuple of ``ndim`` sizes, where given, of at least 0."""
    if not isinstance(value, (tuple, list)) or ndim not in (None, len(value)):
        raise ValueError(f"{name} is {value!r}; expected a shape" + (f" of {ndim} sizes" if ndim else ""))
    return tuple(integer(name, size, 0) for size in value)


def number(name, value, minimum=None, maximum=None):
    """Return ``value`` as a finite float from ``minimum`` to ``maximum``, where given."""
    try:
        if isinstance(value, (bool, np.bool_, str)):
            raise TypeError
        result = float(value)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"{name} is {value!r}; expected a number") from None
    if not np.isfinite(result):
        raise ValueError(f"{name} is {result}; expected a finite number")
    if minimum is not None and result < minimum:
        raise ValueError(f"{name} is {result}; expected at least {minimum}")
    if maximum is not None and result > maximum:
        raise ValueError(f"{name} is {result}; expected at most {maximum}")
    return result


def reduction(value):
    """Check the name of a reduction."""
    if value not in REDUCTIONS:
        raise ValueError(f"reduction is {value!r}; expected 'none', 'mean' or 'sum'")
    return value


def axis(value, ndim):
    """Return ``value`` as an axis from 0 to ``ndim - 1``; negative ones count from the end."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"axis is {value!r}; expected a whole number")
    if not -ndim <= value < ndim:
        raise ValueError(f"axis is {value}; expected one from {-ndim} to {ndim - 1}")
    return int(value) % ndim


def three_flags(name, value):
    """Return ``value`` as three bools: whether the gradients of x, weight and bias are wanted."""
    if not isinstance(value, (tuple, list)) or len(value) != 3:
        raise ValueError(f"{name} is {value!r}; expected three flags: for x, weight and bias")
    return tuple(bool(flag) for flag in value)


def has_pixels(name, of_shape):
    """Check that pictures of shape ``of_shape`` are not without a pixel."""
    if of_shape[2] < 1 or of_shape[3] < 1:
        raise ValueError(f"{name} has shape {tuple(of_shape)}; expected a height and width of at least 1")


def divides(groups, channels, what):
    """Check that ``groups`` divides the number of channels; ``what`` says whose they are."""
    if channels % groups:
        raise ValueError(f"groups is {groups}, which does not divide the {channels} {what}")
