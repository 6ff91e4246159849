"""ReLU. One task computes one block; a comparison and a selection per element, as many at once as a register holds."""

from kernels import checks
from kernels.cpu.blocks import block_count, block_slice
from kernels.cpu.memory import empty_like
from kernels.cpu.tasks import run
from kernels.jit import jit


def relu_forward(x):
    """Return the larger of ``x`` and 0, element by element.

    Parameters
    ----------
    x : ndarray, any shape, float32 or float64
        Input.

    Returns
    -------
    ndarray, shape of ``x``
        ``x`` where it is above 0 or NaN, else 0.

    Raises
    ------
    TypeError
        If ``x`` is not an array of float32 or float64.

    Notes
    -----
    NaN passes, as in PyTorch.
    """
    x = checks.array("x", x)
    y = empty_like(x)
    if x.size:
        run(_relu_forward_block, block_count(x.size), (x.size,), y, x)
    return y


def relu_backward(dy, y):
    """Return the gradient of the input of a ReLU.

    Parameters
    ----------
    dy : ndarray, shape of ``y``
        Gradient of the output.
    y : ndarray, any shape, float32 or float64
        The output (or the input, which has the same sign).

    Returns
    -------
    ndarray, shape of ``y``
        0 where ``y <= 0``, else ``dy``.

    Raises
    ------
    TypeError
        If an argument is not an array of float32 or float64, or the types differ.
    ValueError
        If the shapes differ.

    Notes
    -----
    Where ``y`` is NaN, ``dy`` passes, as in PyTorch.
    """
    dy, y = checks.gradient_of(dy, y)
    dx = empty_like(y)
    if y.size:
        run(_relu_backward_block, block_count(y.size), (y.size,), dx, dy, y)
    return dx


@jit
def _relu_forward_block(arrays, sizes, block):
    part = block_slice(block, sizes[0])
    y, x = arrays.out[part], arrays.a[part]
    zero = x.dtype.type(0)
    for i in range(x.size):
        y[i] = zero if x[i] <= zero else x[i]


@jit
def _relu_backward_block(arrays, sizes, block):
    part = block_slice(block, sizes[0])
    dx, dy, y = arrays.out[part], arrays.a[part], arrays.b[part]
    zero = y.dtype.type(0)
    for i in range(y.size):
        dx[i] = zero if y[i] <= zero else dy[i]
