"""First values of parameters, with PyTorch's names, arguments and distributions.

Each function overwrites the tensor in place, off the tape, and returns it.
"""

import math

import numpy as np

from tinyseg.backend import moved
from tinyseg.random import generator as shared_generator


def _fill(tensor, values):
    """Write ``values``, which broadcast, into the tensor."""
    tensor.array[...] = values if np.ndim(values) == 0 else moved(np.asarray(values, tensor.dtype), tensor.device)
    tensor.mark_changed()
    return tensor


def _fans(tensor):
    """Return how many inputs an output sees and how many outputs an input reaches, for (out, in, ...) weights."""
    if tensor.ndim < 2:
        raise ValueError(f"tensor has shape {tensor.shape}; expected two or more axes: (out, in, ...)")
    receptive = int(np.prod(tensor.shape[2:]))
    return tensor.shape[1] * receptive, tensor.shape[0] * receptive


def _fan(tensor, mode):
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"mode is {mode!r}; expected 'fan_in' or 'fan_out'")
    return _fans(tensor)[mode == "fan_out"]


def calculate_gain(nonlinearity, param=None):
    """Return the factor by which weights before a nonlinearity are enlarged, so that the variance stays.

    Parameters
    ----------
    nonlinearity : {"linear", "conv2d", "conv_transpose2d", "sigmoid", "tanh", "relu", "leaky_relu"}
        What follows the weights.
    param : float, optional
        Negative slope of the leaky ReLU, 0.01 if left out.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If the name is none of these.
    """
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else float(param)
        return math.sqrt(2.0 / (1 + slope**2))
    gains = {"linear": 1.0, "conv2d": 1.0, "conv_transpose2d": 1.0, "sigmoid": 1.0, "tanh": 5.0 / 3}
    gains["relu"] = math.sqrt(2.0)
    if nonlinearity not in gains:
        raise ValueError(f"nonlinearity is {nonlinearity!r}; expected one of {', '.join([*gains, 'leaky_relu'])}")
    return gains[nonlinearity]


def uniform_(tensor, a=0.0, b=1.0, generator=None):
    """Fill with numbers drawn evenly from [a, b).

    Parameters
    ----------
    tensor : Tensor
        Any shape.
    a, b : float
        Bounds.
    generator : numpy.random.Generator, optional
        Source of chance; the one of ``tinyseg.manual_seed`` if left out.

    Returns
    -------
    Tensor
    """
    return _fill(tensor, (generator or shared_generator()).uniform(a, b, tensor.shape))


def normal_(tensor, mean=0.0, std=1.0, generator=None):
    """Fill with numbers drawn from a normal distribution.

    Parameters
    ----------
    tensor : Tensor
        Any shape.
    mean, std : float
        Mean and standard deviation.
    generator : numpy.random.Generator, optional
        Source of chance; the one of ``tinyseg.manual_seed`` if left out.

    Returns
    -------
    Tensor
    """
    return _fill(tensor, (generator or shared_generator()).normal(mean, std, tensor.shape))


def constant_(tensor, val):
    """Fill with one value.

    Parameters
    ----------
    tensor : Tensor
        Any shape.
    val : float
        The value.

    Returns
    -------
    Tensor
    """
    return _fill(tensor, val)


def zeros_(tensor):
    """Fill with zeros.

    Parameters
    ----------
    tensor : Tensor
        Any shape.

    Returns
    -------
    Tensor
    """
    return _fill(tensor, 0)


def ones_(tensor):
    """Fill with ones.

    Parameters
    ----------
    tensor : Tensor
        Any shape.

    Returns
    -------
    Tensor
    """
    return _fill(tensor, 1)


def kaiming_uniform_(tensor, a=0, mode="fan_in", nonlinearity="leaky_relu", generator=None):
    """Fill evenly within ``gain * sqrt(3 / fan)`` of 0 (He et al., 2015).

    Parameters
    ----------
    tensor : Tensor
        ``(out, in, ...)``.
    a : float
        Negative slope of the leaky ReLU that follows.
    mode : {"fan_in", "fan_out"}
        Whether the variance is kept forward or backward.
    nonlinearity : str
        As for ``calculate_gain``.
    generator : numpy.random.Generator, optional
        Source of chance; the one of ``tinyseg.manual_seed`` if left out.

    Returns
    -------
    Tensor
    """
    bound = calculate_gain(nonlinearity, a) * math.sqrt(3.0 / max(_fan(tensor, mode), 1))
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(tensor, a=0, mode="fan_in", nonlinearity="leaky_relu", generator=None):
    """Fill from a normal distribution of standard deviation ``gain / sqrt(fan)`` (He et al., 2015).

    Parameters
    ----------
    tensor : Tensor
        ``(out, in, ...)``.
    a : float
        Negative slope of the leaky ReLU that follows.
    mode : {"fan_in", "fan_out"}
        Whether the variance is kept forward or backward.
    nonlinearity : str
        As for ``calculate_gain``.
    generator : numpy.random.Generator, optional
        Source of chance; the one of ``tinyseg.manual_seed`` if left out.

    Returns
    -------
    Tensor
    """
    std = calculate_gain(nonlinearity, a) / math.sqrt(max(_fan(tensor, mode), 1))
    return normal_(tensor, 0.0, std, generator)


def xavier_uniform_(tensor, gain=1.0, generator=None):
    """Fill evenly within ``gain * sqrt(6 / (fan_in + fan_out))`` of 0 (Glorot and Bengio, 2010).

    Parameters
    ----------
    tensor : Tensor
        ``(out, in, ...)``.
    gain : float
        Factor, see ``calculate_gain``.
    generator : numpy.random.Generator, optional
        Source of chance; the one of ``tinyseg.manual_seed`` if left out.

    Returns
    -------
    Tensor
    """
    bound = gain * math.sqrt(6.0 / max(sum(_fans(tensor)), 1))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor, gain=1.0, generator=None):
    """Fill from a normal distribution of variance ``gain^2 * 2 / (fan_in + fan_out)`` (Glorot and Bengio, 2010).

    Parameters
    ----------
    tensor : Tensor
        ``(out, in, ...)``.
    gain : float
        Factor, see ``calculate_gain``.
    generator : numpy.random.Generator, optional
        Source of chance; the one of ``tinyseg.manual_seed`` if left out.

    Returns
    -------
    Tensor
    """
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / max(sum(_fans(tensor)), 1)), generator)


def default_(weight, bias=None):
    """Fill weight and bias evenly within ``1 / sqrt(fan_in)`` of 0: what PyTorch's layers start with.

    Parameters
    ----------
    weight : Tensor
        ``(out, in, ...)``. For a transposed convolution, ``(in, out, ...)``, the second axis counts all the same.
    bias : Tensor, optional
        ``(out,)``.
    """
    kaiming_uniform_(weight, a=math.sqrt(5))
    if bias is not None:
        bound = 1 / math.sqrt(max(_fans(weight)[0], 1))
        uniform_(bias, -bound, bound)
