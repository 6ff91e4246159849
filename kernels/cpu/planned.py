"""What ``planner`` chooses for a call of a convolution: for readers, who see it without running the call."""

from kernels import checks
from kernels.cpu import planner
from kernels.cpu.packing import gather_axis, scatter_axis


def algorithms(name, arguments):
    """Return the algorithm for each result of a call.

    Parameters
    ----------
    name : str
        Of a function of the contract, or a fused one: ``"conv2d_forward"``.
    arguments : dict
        The call's arguments by name, defaults included.

    Returns
    -------
    dict of str to str
        ``{"y": "winograd"}`` for a forward call, ``{"dx": ..., "dweight": ...}`` for a backward one. Empty for
        functions that have but one algorithm, and where there is nothing to compute.
    """
    if not name.startswith(("conv2d_", "conv_transpose2d_")):
        return {}
    shared = ["x", "weight", "stride", "padding", "dilation", "groups"]
    transposed = name.startswith("conv_transpose2d_")
    shared += ["output_padding"] if transposed else []
    given = {key: arguments[key] for key in shared}
    if arguments.get("more") is not None:
        given["joined"] = 2
    if name.endswith("_backward"):
        return _of_backward(transposed, arguments["dy"], arguments["needs"], given)
    x, weight, _, g = (checks.conv_transpose2d if transposed else checks.conv2d)(bias=None, **given)
    choice = (_scatter if transposed else _gather)(x.dtype, (g.N, g.C, g.H, g.W), weight, g, (g.oH, g.oW))
    return _planned(y=choice)


def _of_backward(transposed, dy, needs, given):
    """Return the algorithms for the gradients of input and weight, where they are wanted."""
    check = checks.conv_transpose2d_gradient if transposed else checks.conv2d_gradient
    dy, _, weight, g, needs = check(dy, needs=needs, **given)
    dx = (_gather if transposed else _scatter)(dy.dtype, dy.shape, weight, g, (g.H, g.W)) if needs[0] else None
    shapes = (dy.shape, (g.N, g.C, g.H, g.W))[:: -1 if transposed else 1]
    dweight = _gradient(dy.dtype, shapes[0], shapes[1], g) if needs[1] else None
    return _planned(dx=dx, dweight=dweight)


def _planned(**algorithms):
    """Leave out what is not computed."""
    return {name: algorithm for name, algorithm in algorithms.items() if algorithm is not None}


def _gather(dtype, x_shape, weight, g, size):
    """Return the algorithm for ``conv2d.gather``."""
    shape = (g.groups, weight.shape[0] // g.groups, *weight.shape[1:])
    return _choose(dtype, x_shape, shape, size, *_gather_axes(g))


def _scatter(dtype, y_shape, weight, g, size):
    """Return the algorithm for ``conv2d.scatter``."""
    shape = (g.groups, weight.shape[1], weight.shape[0] // g.groups, *weight.shape[2:])
    rows, cols = scatter_axis(size[0], g.kH, g.sH, g.pH, g.dH), scatter_axis(size[1], g.kW, g.sW, g.pW, g.dW)
    return _choose(dtype, y_shape, shape, size, rows, cols)


def _choose(dtype, x_shape, shape, size, rows, cols):
    """Return the algorithm for a correlation with weights of a shape (groups, out, in, kH, kW)."""
    return None if 0 in (*x_shape, *shape) else planner.choose(dtype, x_shape, shape, size, rows, cols)


def _gradient(dtype, dy_shape, x_shape, g):
    """Return the algorithm for ``conv2d.gradient``."""
    if 0 in (*dy_shape, *x_shape):
        return None
    return planner.choose_gradient(dtype, dy_shape, x_shape, g.groups, *_gather_axes(g))


def _gather_axes(g):
    """Return which input rows and columns the outputs of a convolution meet."""
    return gather_axis(g.kH, g.sH, g.pH, g.dH), gather_axis(g.kW, g.sW, g.pW, g.dW)
