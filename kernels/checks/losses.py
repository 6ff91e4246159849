"""Checks of losses."""

import numpy as np

from kernels.checks.arguments import array, index_array, integer, is_on_device, number, reduction, same_shape


def loss_pair(x, target, name="x"):
    """Return ``x, target`` of one shape and type."""
    x = array(name, x)
    target = same_shape("target", array("target", target, None, x.dtype), x.shape, f"the shape of {name}")
    return x, target


def probabilities(p, target):
    """Return ``p, target``; every value of both, where it is on the host, lies in [0, 1] or is NaN."""
    p, target = loss_pair(p, target, "p")
    for name, a in (("p", p), ("target", target)):
        if is_on_device(a):
            continue
        # at first without arrays in between, which NaN takes
        if a.size and not (a.min() >= 0 and a.max() <= 1) and ((a < 0) | (a > 1)).any():
            raise ValueError(f"{name} has values from {np.nanmin(a):g} to {np.nanmax(a):g}; expected 0 to 1")
    return p, target


def broadcast_to(name, a, x):
    """Return ``a``, or None, broadcast to the shape of ``x``; on a device as it is, if it broadcasts to that."""
    if a is None:
        return None
    a = array(name, a, None, x.dtype)
    try:
        if is_on_device(a):
            np.broadcast_to(np.broadcast_to(0, a.shape), x.shape)  # shapes alone
            return a
        return np.ascontiguousarray(np.broadcast_to(a, x.shape))
    except ValueError:
        raise ValueError(f"{name} has shape {a.shape}, which does not broadcast to {x.shape}") from None


def loss_gradient(dy, x, how, none_shape=None):
    """Return ``dy`` as an array of the loss's shape: with 'none' that of ``x`` (or ``none_shape``), else no axes."""
    reduction(how)
    if isinstance(dy, (int, float, np.floating)):
        dy = np.asarray(dy, x.dtype)
    dy = array("dy", dy, None, x.dtype)
    expected = (x.shape if none_shape is None else none_shape) if how == "none" else ()
    return same_shape("dy", dy, expected, f"the shape of the loss with reduction {how!r}")


def cross_entropy(x, target, weight, ignore_index, label_smoothing):
    """Return ``x, target, weight, ignore_index, label_smoothing``, with x as (N, C, P) and target as (N, P).

    ``x`` is (N, C) or (N, C, ...), ``target`` has its shape without the axis of classes. Every target on the host
    is a class or ``ignore_index``.
    """
    x = array("x", x)
    if x.ndim < 2 or x.shape[1] < 1:
        raise ValueError(f"x has shape {x.shape}; expected (N, C) or (N, C, ...), with one or more classes C")
    n, c = x.shape[:2]
    target = index_array("target", target, (n, *x.shape[2:]))
    ignore_index = integer("ignore_index", ignore_index)
    if not is_on_device(target) and target.size and not (target.min() >= 0 and target.max() < c):
        wrong = ((target < 0) | (target >= c)) & (target != ignore_index)
        for where in np.argwhere(wrong)[:1]:
            at = tuple(int(i) for i in where)
            raise ValueError(
                f"target has class {target[at]} at index {at}; expected 0 to {c - 1}, or {ignore_index} to be ignored"
            )
    if weight is not None:
        weight = same_shape("weight", array("weight", weight, 1, x.dtype), (c,), "one value per class")
    smoothing = number("label_smoothing", label_smoothing, 0, 1)
    pixels = int(np.prod(x.shape[2:], dtype=np.int64))
    return x.reshape(n, c, pixels), target.reshape(n, pixels), weight, ignore_index, smoothing
