"""Steps of the optimisers, in place on the device: all parameters of a model in one launch.

The formulas are in ``kernels/naive/optimizer_steps.py``; how a launch takes many arrays is in ``addresses``. The step
of Adam, and whether momentum is fresh, are arguments of the launch: parameters at another step have another launch, but
in training all are at the same. What follows from the settings alone is computed on the host in float64; the kernels
compute in the type of the parameters, as PyTorch's do.

Arrays that are changed have to be on the device: those of the host would be copied there and back, unseen.
"""

import math
from collections import defaultdict

import numpy as np
from numba.types import boolean, float64, int64

from kernels import checks
from kernels.cuda.addresses import PART_THREADS, address, array_of, blocks_of, bounds, launch, memory, parts_of_arrays
from kernels.cuda.array import empty, on_device, to_host
from kernels.cuda.device import cuda, typed_kernel
from kernels.cuda.reduction import block_sum


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
    values : sequence of DeviceArray, float32 or float64
        Parameters, all of one type.
    gradients : sequence of ndarray or DeviceArray
        Their gradients, which stay as they are.
    buffers : sequence of DeviceArray, or None
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
        If an array is not of float32 or float64, types differ, or one that is changed is not on the device.
    ValueError
        If numbers of arrays or shapes differ.

    Notes
    -----
    Follows ``torch.optim.SGD``.
    """
    settings = {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay}
    values, gradients, buffers, fresh, s = checks.sgd_step(values, gradients, buffers, fresh, settings, on_device=True)
    gradients = on_device(*gradients)
    with_momentum = buffers is not None
    groups = _groups(values, [bool(f) for f in fresh] if with_momentum else [False] * len(values))
    for first, members in groups:
        lists = _members(members, values, gradients, buffers if with_momentum else values)
        kind = values[0].dtype.type
        numbers = -1 if maximize else 1, s["lr"], s["weight_decay"], s["momentum"], 1 - s["dampening"]
        launch(_sgd_kernel, lists, values[0].dtype, *map(kind, numbers), with_momentum, first, bool(nesterov))


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
    values : sequence of DeviceArray, float32 or float64
        Parameters, all of one type.
    gradients : sequence of ndarray or DeviceArray
        Their gradients, which stay as they are.
    means, squares : sequence of DeviceArray
        Running means of the gradients and of their squares, zeros at first.
    largest : sequence of DeviceArray, or None
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
        If an array is not of float32 or float64, types differ, or one that is changed is not on the device.
    ValueError
        If numbers of arrays or shapes differ.

    Notes
    -----
    Follows ``torch.optim.Adam`` and ``AdamW``; Kingma and Ba, 2015; Loshchilov and Hutter, 2019; Reddi et al., 2018.
    """
    settings = {"lr": lr, "beta1": beta1, "beta2": beta2, "eps": eps, "weight_decay": weight_decay}
    checked = checks.adam_step(values, gradients, means, squares, largest, steps, settings, on_device=True)
    values, gradients, means, squares, largest, steps, s = checked
    gradients = on_device(*gradients)
    for step, members in _groups(values, steps):
        lists = _members(members, values, gradients, means, squares, squares if largest is None else largest)
        kind = values[0].dtype.type
        l2, shrink = (0, 1 - s["lr"] * s["weight_decay"]) if decoupled else (s["weight_decay"], 1)
        with np.errstate(all="ignore"):
            rate = s["lr"] / (1 - np.float64(s["beta1"]) ** step)
            root = 1 / np.sqrt(1 - np.float64(s["beta2"]) ** step)
            betas = s["beta1"], 1 - s["beta1"], s["beta2"], 1 - s["beta2"]
            numbers = [kind(n) for n in (-1 if maximize else 1, l2, shrink, *betas, rate, root, s["eps"])]
        launch(_adam_kernel, lists, values[0].dtype, *numbers, largest is not None)


def sum_of_squares(arrays):
    """Return the sum of the squares of all values, in float64.

    Parameters
    ----------
    arrays : sequence of ndarray or DeviceArray, float32 or float64
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
    arrays = on_device(*checks.float_arrays("arrays", arrays))
    parts = parts_of_arrays(arrays)
    if not parts:
        return 0.0
    partials = empty((blocks_of(parts),), np.float64)
    launch(_squares_kernel, (arrays,), arrays[0].dtype, partials.raw)
    with np.errstate(over="ignore"):
        return float(to_host(partials).sum())


def scale_arrays(arrays, factor):
    """Multiply all values by ``factor``, in place.

    Parameters
    ----------
    arrays : sequence of DeviceArray, float32 or float64
        Arrays of one type.
    factor : float
        Any number; NaN and infinity count too.

    Returns
    -------
    None

    Raises
    ------
    TypeError
        If an array is not of float32 or float64, types differ, or one is not on the device.
    """
    arrays = checks.arrays_in_place("arrays", arrays, on_device=True)
    if arrays:
        with np.errstate(over="ignore"):
            factor = arrays[0].dtype.type(factor)
        launch(_scale_kernel, (arrays,), arrays[0].dtype, factor)


def _groups(values, items):
    """Return pairs of an item and the numbers of the arrays that have it."""
    groups = defaultdict(list)
    for i, item in enumerate(items):
        groups[item].append(i)
    return groups.items()


def _members(numbers, *lists):
    """Return the arrays of some numbers from each list."""
    return lists if len(numbers) == len(lists[0]) else [[arrays[i] for i in numbers] for arrays in lists]


@typed_kernel(lambda T: (int64[::1], int64, int64, T, T, T, T, T, boolean, boolean, boolean), threads=PART_THREADS)
def _sgd_kernel(T):
    load, store = memory(T)

    def sgd_kernel(table, arrays, parts, sign, lr, weight_decay, momentum, gain, with_momentum, fresh, nesterov):
        for part in range(cuda.blockIdx.x, parts, cuda.gridDim.x):
            n = array_of(table, arrays, part)
            start, stop = bounds(table, arrays, n, part)
            values, gradients = address(table, arrays, n, 0), address(table, arrays, n, 1)
            buffers = address(table, arrays, n, 2)
            for i in range(start + cuda.threadIdx.x, stop, PART_THREADS):
                v, g = load(values, i), sign * load(gradients, i)
                if weight_decay != T(0):
                    g += weight_decay * v
                if with_momentum:
                    buffer = g if fresh else momentum * load(buffers, i) + gain * g
                    store(buffers, i, buffer)
                    g = g + momentum * buffer if nesterov else buffer
                store(values, i, v - lr * g)

    return sgd_kernel


@typed_kernel(lambda T: (int64[::1], int64, int64, *(T,) * 10, boolean), threads=PART_THREADS)
def _adam_kernel(T):
    load, store = memory(T)

    def adam_kernel(table, arrays, parts, sign, l2, shrink, beta1, rest1, beta2, rest2, rate, root, eps, with_largest):
        for part in range(cuda.blockIdx.x, parts, cuda.gridDim.x):
            n = array_of(table, arrays, part)
            start, stop = bounds(table, arrays, n, part)
            values, gradients = address(table, arrays, n, 0), address(table, arrays, n, 1)
            means, squares, tops = (
                address(table, arrays, n, 2),
                address(table, arrays, n, 3),
                address(table, arrays, n, 4),
            )
            for i in range(start + cuda.threadIdx.x, stop, PART_THREADS):
                v, g = load(values, i) * shrink, sign * load(gradients, i)
                if l2 != T(0):
                    g += l2 * v
                mean = beta1 * load(means, i) + rest1 * g
                square = beta2 * load(squares, i) + rest2 * g * g
                store(means, i, mean)
                store(squares, i, square)
                if with_largest:
                    top = load(tops, i)
                    if not square <= top and not math.isnan(top):  # NaN, once there, stays
                        top = square
                        store(tops, i, top)
                    square = top
                store(values, i, v - rate * mean / (T(math.sqrt(square)) * root + eps))

    return adam_kernel


@typed_kernel(lambda T: (int64[::1], int64, int64, float64[::1]), threads=PART_THREADS)
def _squares_kernel(T):
    load, _ = memory(T)

    def squares_kernel(table, arrays, parts, partials):
        total = float64(0)
        for part in range(cuda.blockIdx.x, parts, cuda.gridDim.x):
            n = array_of(table, arrays, part)
            start, stop = bounds(table, arrays, n, part)
            values = address(table, arrays, n, 0)
            for i in range(start + cuda.threadIdx.x, stop, PART_THREADS):
                value = float64(load(values, i))
                total += value * value
        total = block_sum(total)
        if cuda.threadIdx.x == 0:
            partials[cuda.blockIdx.x] = total

    return squares_kernel


@typed_kernel(lambda T: (int64[::1], int64, int64, T), threads=PART_THREADS)
def _scale_kernel(T):
    load, store = memory(T)

    def scale_kernel(table, arrays, parts, factor):
        for part in range(cuda.blockIdx.x, parts, cuda.gridDim.x):
            n = array_of(table, arrays, part)
            start, stop = bounds(table, arrays, n, part)
            values = address(table, arrays, n, 0)
            for i in range(start + cuda.threadIdx.x, stop, PART_THREADS):
                store(values, i, load(values, i) * factor)

    return scale_kernel
