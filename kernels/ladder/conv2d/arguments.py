"""What every rung of conv2d does first."""

import numpy as np

from kernels import checks


def prepare(x, weight, bias, stride, padding):
    """Return checked arrays, a bias in any case, and the geometry of the convolution."""
    x, weight, bias, g = checks.conv2d(x, weight, bias, stride, padding, 1, 1)
    bias = np.zeros(g.O, x.dtype) if bias is None else bias
    return writable(x), writable(weight), writable(bias), g


def writable(a):
    """Return ``a``, or a copy of a read-only array: to Numba that is another type, to compile everything anew for."""
    return a if a.flags.writeable else a.copy()


def padded(x, g):
    """Return a copy of ``x`` with zeros around it, (N, C, rows, sW, columns): columns sorted by remainder modulo sW.

    What kernel column kx meets at neighbouring outputs, ``stride`` columns of x apart, is a plain piece of a row there:
    remainder ``kx % sW``, from column ``kx // sW`` on. For stride 1 it is the padded picture itself.
    """
    columns = -(-(g.W + 2 * g.pW) // g.sW)
    whole = np.zeros((g.N, g.C, g.H + 2 * g.pH, columns * g.sW), x.dtype)
    whole[:, :, g.pH : g.pH + g.H, g.pW : g.pW + g.W] = x
    return np.ascontiguousarray(whole.reshape(*whole.shape[:3], columns, g.sW).swapaxes(3, 4))


def refuse_strides(g, rung):
    """Raise for a stride other than 1, where a rung has only that."""
    if (g.sH, g.sW) != (1, 1):
        raise ValueError(f"stride is {(g.sH, g.sW)}; expected 1: the rung {rung!r} has no other")
