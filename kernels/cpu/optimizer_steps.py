"""Steps of the optimisers: all parameters of a model in one launch.

The parameters count as one long line of numbers, of which each task takes a part of fixed length, whatever arrays lie
there: thousands of small arrays cost hardly more than a large one. Tasks find the arrays by their addresses, and
read and write each number once.
"""

import ctypes
import math

import numpy as np
from numba import carray, types
from numba.extending import intrinsic

from kernels import checks
from kernels.cpu.tasks import run
from kernels.jit import RELAXED, jit

_NO_BYTES = ctypes.c_char * 0

#: How many numbers a task takes.
_PART = 4096

#: What the table holds of each array.
_LR, _WEIGHT_DECAY, _MOMENTUM, _GAIN, _SGD_COLUMNS = range(5)
_RATE, _L2, _SHRINK, _BETA1, _BETA2, _ROOT, _EPS, _ADAM_COLUMNS = range(8)


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
    table = np.empty((len(values), _SGD_COLUMNS))
    table[:, _LR], table[:, _WEIGHT_DECAY] = s["lr"], s["weight_decay"]
    table[:, _MOMENTUM], table[:, _GAIN] = s["momentum"], 1 - s["dampening"]
    if buffers is not None and any(fresh):
        for i in np.flatnonzero(fresh):
            buffers[i][...] = 0  # the first direction is the whole gradient
            table[i, _GAIN] = 1
    lists = values, gradients, values if buffers is None else buffers
    _run(_sgd_task, lists, table, (buffers is not None, bool(nesterov), bool(maximize)))


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
    count = np.array(steps, np.float64)
    table = np.empty((len(values), _ADAM_COLUMNS))
    table[:, _RATE], table[:, _ROOT] = s["lr"] / (1 - s["beta1"] ** count), np.sqrt(1 - s["beta2"] ** count)
    table[:, _BETA1], table[:, _BETA2], table[:, _EPS] = s["beta1"], s["beta2"], s["eps"]
    table[:, _L2] = 0 if decoupled else s["weight_decay"]
    table[:, _SHRINK] = 1 - s["lr"] * s["weight_decay"] if decoupled else 1
    lists = values, gradients, means, squares, squares if largest is None else largest
    _run(_adam_task, lists, table, (largest is not None, bool(maximize)))


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
    arrays = checks.float_arrays("arrays", arrays)
    sums = np.zeros((-(-sum(a.size for a in arrays) // _PART), 1))
    _run(_square_task, (arrays,), sums)
    return float(sums.sum())


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
    _run(_scale_task, (checks.arrays_in_place("arrays", arrays),), np.array([[factor]], np.float64))


def _run(task, lists, table, options=()):
    """Run a task for each part of the arrays in ``lists``; the lists correspond, and the first one says the sizes."""
    first = lists[0]
    offsets = np.zeros(len(first) + 1, np.int64)
    np.cumsum([a.size for a in first], out=offsets[1:])
    total = int(offsets[-1])
    if total:
        addresses = [_address(a) for arrays in lists for a in arrays]
        places = np.concatenate([offsets, np.array(addresses, np.int64)])
        # the largest array says the type, and whether there is enough to do for several threads
        example = max(first, key=lambda a: a.size)
        run(task, -(-total // _PART), (len(first), *map(int, options)), example, places=places, table=table)


def _address(a):
    """Return where an array begins; as NumPy says it, in a fifth of the time if the array can be written to."""
    try:
        return ctypes.addressof(_NO_BYTES.from_buffer(a))
    except TypeError:
        return a.ctypes.data


# ---- what a task works on --------------------------------------------------------------------------------------------


@intrinsic
def _pointer(typing_context, address, like):
    """Return an address as a pointer to numbers of the type of an array."""

    def codegen(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(like.dtype)(types.int64, like), codegen


@jit
def _span(places, count, number):
    """Return the first number of a task on the line, and the one after its last."""
    return number * _PART, min(number * _PART + _PART, places[count])


@jit
def _piece(places, count, begin, end):
    """Return the array in which a part begins, where in it, and how much of the part lies there."""
    i, above = 0, count
    while above - i > 1:
        middle = (i + above) // 2
        if places[middle] <= begin:
            i = middle
        else:
            above = middle
    return i, begin - places[i], min(end, places[i + 1]) - begin


@jit
def _array(arrays, count, which, piece):
    """Return a piece of an array of list number ``which``."""
    i, start, size = piece
    address = arrays.places[count + 1 + which * count + i] + start * arrays.out.itemsize
    return carray(_pointer(address, arrays.out), size)


# ---- tasks -----------------------------------------------------------------------------------------------------------


@jit
def _sgd_task(arrays, sizes, number):
    """Take a step with one part of the line."""
    count, has_buffers, nesterov, maximize = sizes[:4]
    begin, end = _span(arrays.places, count, number)
    while begin < end:
        piece = _piece(arrays.places, count, begin, end)
        values, gradient = _array(arrays, count, 0, piece), _array(arrays, count, 1, piece)
        constants = arrays.table[piece[0]]
        if has_buffers:
            _momentum_step(values, _array(arrays, count, 2, piece), gradient, constants, nesterov, maximize)
        else:
            _plain_step(values, gradient, constants, maximize)
        begin += piece[2]


@jit
def _plain_step(values, gradient, constants, maximize):
    kind = values.dtype.type
    lr, decay = kind(constants[_LR]), kind(constants[_WEIGHT_DECAY])
    for i in range(values.size):
        g = -gradient[i] if maximize else gradient[i]
        g = g + decay * values[i] if decay != 0 else g
        values[i] -= lr * g


@jit
def _momentum_step(values, buffer, gradient, constants, nesterov, maximize):
    kind = values.dtype.type
    lr, decay = kind(constants[_LR]), kind(constants[_WEIGHT_DECAY])
    momentum, gain = kind(constants[_MOMENTUM]), kind(constants[_GAIN])
    for i in range(values.size):
        g = -gradient[i] if maximize else gradient[i]
        g = g + decay * values[i] if decay != 0 else g
        direction = buffer[i] * momentum + gain * g
        buffer[i] = direction
        values[i] -= lr * (g + momentum * direction if nesterov else direction)


@jit
def _adam_task(arrays, sizes, number):
    """Take a step with one part of the line."""
    count, has_largest, maximize = sizes[:3]
    begin, end = _span(arrays.places, count, number)
    while begin < end:
        piece = _piece(arrays.places, count, begin, end)
        values, gradient = _array(arrays, count, 0, piece), _array(arrays, count, 1, piece)
        mean, square = _array(arrays, count, 2, piece), _array(arrays, count, 3, piece)
        constants = arrays.table[piece[0]]
        if has_largest:
            largest = _array(arrays, count, 4, piece)
            _adam_move(values, gradient, mean, square, largest, constants, maximize)
        else:
            _adam_move(values, gradient, mean, square, square[:0], constants, maximize)
        begin += piece[2]


@jit
def _adam_move(values, gradient, mean, square, largest, constants, maximize):
    """Move both means and then the values, in one loop: each number is read and written once."""
    kind = values.dtype.type
    decay, beta2, sign = kind(constants[_L2]), kind(constants[_BETA2]), kind(-1 if maximize else 1)
    share1, share2 = kind(1 - constants[_BETA1]), kind(1 - constants[_BETA2])
    rate, shrink = kind(constants[_RATE]), kind(constants[_SHRINK])
    part, eps = kind(1 / constants[_ROOT]), kind(constants[_EPS])
    for i in range(values.size):
        g = sign * gradient[i]
        g = g + decay * values[i] if decay != 0 else g
        m = mean[i] + share1 * (g - mean[i])
        s = square[i] * beta2 + share2 * g * g
        mean[i], square[i] = m, s
        if largest.size:
            # NaN stays, and comes in
            s = s if s > largest[i] or math.isnan(s) else largest[i]
            largest[i] = s
        values[i] = values[i] * shrink - rate * (m / (np.sqrt(s) * part + eps))


@jit
def _square_task(arrays, sizes, number):
    """Sum the squares of one part of the line."""
    count = sizes[0]
    begin, end = _span(arrays.places, count, number)
    while begin < end:
        piece = _piece(arrays.places, count, begin, end)
        arrays.table[number, 0] += _sum_of_squares(_array(arrays, count, 0, piece))
        begin += piece[2]


@jit(fastmath=RELAXED)
def _sum_of_squares(a):
    total = 0.0
    for i in range(a.size):
        total += np.float64(a[i]) * np.float64(a[i])
    return total


@jit
def _scale_task(arrays, sizes, number):
    """Multiply one part of the line."""
    count = sizes[0]
    begin, end = _span(arrays.places, count, number)
    factor = arrays.out.dtype.type(arrays.table[0, 0])
    while begin < end:
        piece = _piece(arrays.places, count, begin, end)
        a = _array(arrays, count, 0, piece)
        for i in range(a.size):
            a[i] *= factor
        begin += piece[2]
