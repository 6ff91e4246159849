"""Limits to gradients, between ``backward()`` and ``step()``."""

import numpy as np

from tinyseg.backend import kernel
from tinyseg.tensor import Tensor


def _gradients(parameters):
    """Return the gradient arrays of one parameter or several, those that have one."""
    parameters = [parameters] if isinstance(parameters, Tensor) else parameters
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def _norm(arrays, norm_type):
    """Return a norm of all values of some arrays together."""
    if norm_type == 2:  # one type at a time
        kinds = sorted({a.dtype for a in arrays}, key=str)
        return sum(kernel("sum_of_squares")([a for a in arrays if a.dtype == kind]) for kind in kinds) ** 0.5
    norms = [float(np.linalg.norm(a.ravel().astype(np.float64), norm_type)) for a in arrays]
    return float(np.linalg.norm(norms, norm_type)) if norms else 0.0


def _scale(arrays, factor):
    """Multiply arrays by a number, in place."""
    for kind in sorted({a.dtype for a in arrays}, key=str):
        of_kind = [a for a in arrays if a.dtype == kind]
        kernel("scale_arrays")([a for a in of_kind if a.flags.c_contiguous], factor)
        for a in of_kind:
            if not a.flags.c_contiguous:
                with np.errstate(invalid="ignore"):
                    a *= factor


def clip_grad_norm_(parameters, max_norm, norm_type=2.0, error_if_nonfinite=False):
    """Scale all gradients together, so that their common norm is at most ``max_norm``.

    Parameters
    ----------
    parameters : iterable of Tensor
        Whose ``grad`` are changed in place.
    max_norm : float
        The largest norm.
    norm_type : float
        Which norm: 2, or 1, or ``inf`` for the largest value.
    error_if_nonfinite : bool
        Raise instead of scaling if the norm is NaN or infinite.

    Returns
    -------
    Tensor
        The norm before, a single value.

    Raises
    ------
    RuntimeError
        If the norm is not finite and ``error_if_nonfinite`` is True.
    """
    gradients = _gradients(parameters)
    total = _norm([gradient.array for gradient in gradients], norm_type)
    if error_if_nonfinite and not np.isfinite(total):
        raise RuntimeError(f"the norm of the gradients is {total}; nothing was scaled")
    factor = min(float(max_norm) / (total + 1e-6), 1.0) if not np.isnan(total) else np.nan
    if factor != 1:  # after an infinite norm, infinite gradients become NaN, the others 0
        _scale([gradient.array for gradient in gradients], factor)
        for gradient in gradients:
            gradient.mark_changed()
    return Tensor(total)


def clip_grad_value_(parameters, clip_value):
    """Limit each value of the gradients to the range from ``-clip_value`` to ``clip_value``.

    Parameters
    ----------
    parameters : iterable of Tensor
        Whose ``grad`` are changed in place.
    clip_value : float
        The largest absolute value.
    """
    for gradient in _gradients(parameters):
        np.clip(gradient.array, -clip_value, clip_value, out=gradient.array)
        gradient.mark_changed()
