"""The logistic function. One task computes one block, without a branch or a call per element."""

from kernels import checks
from kernels.cpu.blocks import block_count, block_slice
from kernels.cpu.memory import empty_like
from kernels.cpu.tasks import run
from kernels.cpu.vector_math import exp
from kernels.jit import jit


def sigmoid_forward(x):
    """Return ``1 / (1 + exp(-x))``, element by element.

    Parameters
    ----------
    x : ndarray, any shape, float32 or float64
        Input.

    Returns
    -------
    ndarray, shape of ``x``
        Values from 0 to 1; NaN where ``x`` is NaN.

    Raises
    ------
    TypeError
        If ``x`` is not an array of float32 or float64.
    """
    x = checks.array("x", x)
    y = empty_like(x)
    if x.size:
        run(_sigmoid_forward_block, block_count(x.size), (x.size,), y, x)
    return y


def sigmoid_backward(dy, y):
    """Return the gradient of the input, ``dy * y * (1 - y)``.

    Parameters
    ----------
    dy : ndarray, shape of ``y``
        Gradient of the output.
    y : ndarray, any shape, float32 or float64
        The output.

    Returns
    -------
    ndarray, shape of ``y``
        Gradient of the input.

    Raises
    ------
    TypeError
        If an argument is not an array of float32 or float64, or the types differ.
    ValueError
        If the shapes differ.
    """
    dy, y = checks.gradient_of(dy, y)
    dx = empty_like(y)
    if y.size:
        run(_sigmoid_backward_block, block_count(y.size), (y.size,), dx, dy, y)
    return dx


@jit
def sigmoid(x):
    """Return the logistic function of one number, in its own type; ``exp`` only ever sees ``-|x|``: no overflow."""
    one = type(x)(1)
    e = exp(-abs(x))
    return (e if x < 0 else one) / (one + e)


@jit
def _sigmoid_forward_block(arrays, sizes, block):
    part = block_slice(block, sizes[0])
    y, x = arrays.out[part], arrays.a[part]
    for i in range(x.size):
        y[i] = sigmoid(x[i])


@jit
def _sigmoid_backward_block(arrays, sizes, block):
    part = block_slice(block, sizes[0])
    dx, dy, y = arrays.out[part], arrays.a[part], arrays.b[part]
    one = y.dtype.type(1)
    for i in range(y.size):
        dx[i] = dy[i] * (one - y[i]) * y[i]
