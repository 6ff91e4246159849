"""Steps of the optimisers, in place, for any number of arrays; and the norm of gradients.

With gradient ``g`` (negative to climb) and parameter ``v``, stochastic gradient descent with momentum is

    g      = g + weight_decay * v
    buffer = momentum * buffer + (1 - dampening) * g        (the first time: g)
    g      = g + momentum * buffer  with Nesterov, else  buffer
    v      = v - lr * g

Adam at step t (Kingma and Ba, 2015):

    v      = (1 - lr * weight_decay) * v   if decoupled (AdamW),  else  g = g + weight_decay * v
    mean   = beta1 * mean + (1 - beta1) * g
    square = beta2 * square + (1 - beta2) * g^2
    v      = v - lr / (1 - beta1^t) * mean / (sqrt(square / (1 - beta2^t)) + eps)

where AMSGrad puts the largest ``square`` so far in the place of ``square``.
"""

import math

import numpy as np

from kernels import checks
from kernels.jit import jit


def sgd_step(
    values,
    gradients,
    buffers=None,
    fresh=(),
    lr=1e-3,
    momentum=0.0,
    dampening=0.0,
    weight_decay=0.0,
    nesterov=False,
    maximize=False,
):
    """Take a step of stochastic gradient descent: change ``values`` and ``buffers`` in place.

    Parameters
    ----------
    values : sequence of ndarray, float32 or float64
        Parameters, all of one type, C-contiguous.
    gradients : sequence of ndarray
        Their gradients, which stay as they are.
    buffers : sequence of ndarray, or None
        Direction of the last step of each; None without momentum.
    fresh : sequence of bool
        Whether a buffer holds nothing yet.
    lr, momentum, dampening, weight_decay : float
        Learning rate, share of the last direction that is kept, share of the gradient that is left out, and share of
        the parameter that is added to the gradient.
    nesterov, maximize : bool
        Look one step ahead; climb.

    Returns
    -------
    None

    Raises
    ------
    TypeError
        If an array is not of float32 or float64, or types differ.
    ValueError
        If numbers of arrays or shapes differ, or an array that is changed is read-only or not C-contiguous.

    Notes
    -----
    Follows ``torch.optim.SGD``.
    """
    settings = {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay}
    values, gradients, buffers, fresh, s = checks.sgd_step(values, gradients, buffers, fresh, settings)
    sign = -1.0 if maximize else 1.0
    for i, (v, g) in enumerate(zip(values, gradients, strict=True)):
        buffer = np.empty(0, v.dtype) if buffers is None else buffers[i].reshape(-1)
        constants = s["lr"], s["momentum"], s["dampening"], s["weight_decay"]
        first = buffers is not None and bool(fresh[i])
        _sgd_kernel(v.reshape(-1), buffer, g.reshape(-1), first, sign, constants, bool(nesterov))


def adam_step(
    values,
    gradients,
    means,
    squares,
    largest,
    steps,
    lr=1e-3,
    beta1=0.9,
    beta2=0.999,
    eps=1e-8,
    weight_decay=0.0,
    decoupled=False,
    maximize=False,
):
    """Take a step of Adam: change ``values``, ``means``, ``squares`` and ``largest`` in place.

    Parameters
    ----------
    values : sequence of ndarray, float32 or float64
        Parameters, all of one type, C-contiguous.
    gradients : sequence of ndarray
        Their gradients, which stay as they are.
    means, squares : sequence of ndarray
        Running means of the gradients and of their squares, zeros at first.
    largest : sequence of ndarray, or None
        For AMSGrad the largest running means of squares so far, zeros at first.
    steps : sequence of int
        Number of this step of each parameter, from 1.
    lr, beta1, beta2, eps, weight_decay : float
        Learning rate, what share of the running means is kept, what is added to the root, and share of the parameter
        that is added to the gradient.
    decoupled, maximize : bool
        Shrink the parameter itself by ``lr * weight_decay`` instead (AdamW); climb.

    Returns
    -------
    None

    Raises
    ------
    TypeError
        If an array is not of float32 or float64, or types differ.
    ValueError
        If numbers of arrays or shapes differ, or an array that is changed is read-only or not C-contiguous.

    Notes
    -----
    Follows ``torch.optim.Adam`` and ``AdamW``; Kingma and Ba, 2015; Loshchilov and Hutter, 2019; Reddi et al., 2018.
    """
    settings = {"lr": lr, "beta1": beta1, "beta2": beta2, "eps": eps, "weight_decay": weight_decay}
    lists = checks.adam_step(values, gradients, means, squares, largest, steps, settings)
    values, gradients, means, squares, largest, steps, s = lists
    sign = -1.0 if maximize else 1.0
    constants = s["lr"], s["beta1"], s["beta2"], s["eps"], s["weight_decay"]
    for i, (v, g) in enumerate(zip(values, gradients, strict=True)):
        top = np.empty(0, v.dtype) if largest is None else largest[i].reshape(-1)
        state = means[i].reshape(-1), squares[i].reshape(-1), top
        _adam_kernel(v.reshape(-1), *state, g.reshape(-1), steps[i], sign, constants, bool(decoupled))


def sum_of_squares(arrays):
    """Return the sum of the squares of all values, in float64.

    Parameters
    ----------
    arrays : sequence of ndarray, float32 or float64
        Arrays of any shapes and of one type.

    Returns
    -------
    float
        The sum; its root is the norm of all arrays together.

    Raises
    ------
    TypeError
        If an array is not of float32 or float64, or types differ.
    """
    total = 0.0
    for a in checks.float_arrays("arrays", arrays):
        total += _square_kernel(a.reshape(-1))
    return total


def scale_arrays(arrays, factor):
    """Multiply all values by ``factor``, in place.

    Parameters
    ----------
    arrays : sequence of ndarray, float32 or float64
        Arrays of one type, C-contiguous.
    factor : float
        Any number; NaN and infinity count too.

    Returns
    -------
    None

    Raises
    ------
    TypeError
        If an array is not of float32 or float64, or types differ.
    ValueError
        If an array is read-only or not C-contiguous.
    """
    for a in checks.arrays_in_place("arrays", arrays):
        _scale_kernel(a.reshape(-1), float(factor))


@jit
def _sgd_kernel(values, buffer, gradient, fresh, sign, constants, nesterov):
    lr, momentum, dampening, weight_decay = constants
    for i in range(values.size):
        g = sign * gradient[i]
        if weight_decay != 0:
            g += weight_decay * values[i]
        if buffer.size:
            buffer[i] = g if fresh else momentum * buffer[i] + (1 - dampening) * g
            g = g + momentum * buffer[i] if nesterov else np.float64(buffer[i])
        values[i] -= lr * g


@jit
def _adam_kernel(values, mean, square, largest, gradient, step, sign, constants, decoupled):
    lr, beta1, beta2, eps, weight_decay = constants
    for i in range(values.size):
        g = sign * gradient[i]
        if decoupled:
            values[i] *= 1 - lr * weight_decay
        elif weight_decay != 0:
            g += weight_decay * values[i]
        mean[i] = beta1 * mean[i] + (1 - beta1) * g
        square[i] = beta2 * square[i] + (1 - beta2) * g * g
        root = square[i]
        if largest.size:
            if not square[i] <= largest[i] and not math.isnan(largest[i]):
                largest[i] = square[i]
            root = largest[i]
        values[i] -= lr / (1 - beta1**step) * mean[i] / (math.sqrt(root / (1 - beta2**step)) + eps)


@jit
def _square_kernel(a):
    total = 0.0
    for i in range(a.size):
        total += np.float64(a[i]) * np.float64(a[i])
    return total


@jit
def _scale_kernel(a, factor):
    for i in range(a.size):
        a[i] *= factor
